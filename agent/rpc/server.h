/* Inside of the gRPC server, shared by server.c (connections, methods, shutdown) and call.c (calls). Private to
 * agent/rpc; loop thread.
 *
 * Who keeps what alive: the server lives until hw_rpc_server_free and until its last connection and call are gone. A
 * connection's struct lives until HTTP/2 has ended and its last call is gone. A call lives until its stream has closed
 * and its handler has ended it, whichever comes later.
 */
#ifndef HW_RPC_SERVER_H
#define HW_RPC_SERVER_H

#include <uthash.h>

#include "agent/rpc/deadline.h"
#include "agent/rpc/h2.h"

struct hw_rpc_method {
    struct hw_method m;
    const char *label;                                 /* the path without its first slash */
    struct hw_counter *requests[HW_WIRE_STATUS_COUNT]; /* made when first needed */
    struct hw_histogram *seconds;
    UT_hash_handle hh;
};

struct hw_rpc_connection {
    struct hw_rpc_server *server;
    struct hw_h2 *h2; /* NULL: ended */
    TAILQ_ENTRY(hw_rpc_connection) link;
    struct hw_deadline handshake; /* for the client's SETTINGS */
    size_t queued_bytes;          /* of all calls */
    unsigned call_count;
    struct hw_rpc_method *last_method; /* clients repeat themselves */
    char peer[64];
};

struct hw_call {
    struct hw_h2_stream s;
    struct hw_rpc_connection *connection;
    struct hw_rpc_method *method; /* NULL: unknown */
    struct hw_deadline deadline;
    void *data;
    void (*on_cancel)(void *data, struct hw_call *call);
    void (*on_drain)(void *data, struct hw_call *call);
    uint64_t start_us;
    uint64_t timeout_ms; /* UINT64_MAX: none */
    size_t header_bytes;
    struct hw_buf headers; /* name\0value\0...; the path first when the method is unknown */
    bool has_path;
    bool is_post;
    bool is_grpc;
    bool is_header_bad; /* out of memory, or a timeout that is none */
    bool is_admitted;   /* counts as in flight until its status is decided */
    bool is_open;       /* the handler has it; of a unary method: with its message */
    bool is_cancelled;  /* the status is decided and counted, the handler has not ended it */
    bool is_ended;      /* by the handler, or never given to one */
    bool is_closed;     /* the stream is gone */
    bool is_busy;       /* on_cancel runs */
    SLIST_ENTRY(hw_call) free_link;
};

struct hw_rpc_server {
    struct hw_loop *loop;
    struct hw_metrics *metrics;
    struct hw_metrics *own_metrics; /* when none was given */
    struct hw_rpc_limits limits;
    struct hw_rpc_method *methods; /* uthash by path */
    struct hw_rpc_method unknown;
    struct hw_deadlines deadlines;               /* of calls */
    struct hw_deadlines handshakes;              /* of connections */
    TAILQ_HEAD(, hw_rpc_connection) connections; /* with h2 */
    unsigned connection_count;
    size_t call_count;
    SLIST_HEAD(, hw_call) spare_calls;
    unsigned spare_count;
    struct hw_gauge *in_flight;
    struct hw_gauge *open_connections;
    struct hw_counter *protocol_errors;
    struct hw_timer *grace;
    struct hw_defer closed;
    void (*on_closed)(void *ctx);
    void *on_closed_ctx;
    bool is_shut;
    bool is_grace_over;
    bool is_freed;
};

extern const struct hw_h2_ops hw_rpc_server_h2_ops;

/* call.c */
struct hw_h2_stream *hw_rpc_call_open(void *connection);
void hw_rpc_call_header(struct hw_h2_stream *s, struct hw_slice name, struct hw_slice value);
void hw_rpc_call_headers(struct hw_h2_stream *s, bool end);
void hw_rpc_call_message(struct hw_h2_stream *s, struct hw_slice message);
void hw_rpc_call_bad_message(struct hw_h2_stream *s, enum hw_grpc status, const char *text);
void hw_rpc_call_half_close(struct hw_h2_stream *s);
void hw_rpc_call_close(struct hw_h2_stream *s, uint32_t h2_error);
void hw_rpc_call_drain(struct hw_h2_stream *s);
void hw_rpc_call_due(struct hw_deadline *d);
/* Decide the status in the handler's place: it is told by on_cancel and still ends the call. */
void hw_rpc_call_abort(struct hw_call *call, enum hw_grpc status, const char *text);
void hw_rpc_call_free(struct hw_call *call);

/* server.c */
struct hw_rpc_method *hw_rpc_server_find(struct hw_rpc_connection *connection, struct hw_slice path);
bool hw_rpc_server_has_service(const struct hw_rpc_server *server, const char *path);
void hw_rpc_server_count(struct hw_rpc_server *server, struct hw_rpc_method *method, enum hw_grpc status);
/* The last call or the connection itself has gone: memory goes with the last of both. */
void hw_rpc_connection_release(struct hw_rpc_connection *connection);
void hw_rpc_server_release(struct hw_rpc_server *server);

#endif
