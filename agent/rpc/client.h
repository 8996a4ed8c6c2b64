/* Inside of the gRPC client, shared by channel.c (connection, back-off, keep-alive) and request.c (calls). Private to
 * agent/rpc; loop thread.
 *
 * A channel has one current link (a connection whose HTTP/2 is up) and possibly older ones that the peer has asked to
 * leave (GOAWAY) and that finish their calls. A call waits in `waiting` until the current link has room for it. The
 * caller's hw_request is let go at on_end; our part of the call lives until its stream has closed, too.
 */
#ifndef HW_RPC_CLIENT_H
#define HW_RPC_CLIENT_H

#include "agent/base/rng.h"
#include "agent/rpc/deadline.h"
#include "agent/rpc/h2.h"

struct hw_rpc_link {
    struct hw_channel *channel;
    struct hw_h2 *h2;
    TAILQ_ENTRY(hw_rpc_link) link;
    unsigned stream_count;
};

TAILQ_HEAD(hw_rpc_call_list, hw_rpc_call);

struct hw_rpc_call {
    struct hw_h2_stream s;
    struct hw_channel *channel;
    struct hw_rpc_link *link; /* while on a connection */
    struct hw_request *user;  /* NULL after on_end */
    struct hw_deadline deadline;
    TAILQ_ENTRY(hw_rpc_call) list_link;
    struct hw_rpc_call_list *list; /* waiting, ending or neither */
    struct hw_buf meta;            /* path and headers as C strings */
    unsigned header_count;
    uint64_t timeout_ms;
    char timeout[HW_WIRE_TIMEOUT_SIZE];
    unsigned http_status;
    size_t header_bytes;
    bool is_grpc;
    bool has_status;
    bool is_fail_fast;
    enum hw_grpc status;
    struct hw_buf text; /* of the end */
    SLIST_ENTRY(hw_rpc_call) free_link;
};

enum hw_rpc_channel_state {
    HW_CHANNEL_IDLE,       /* nobody needs a connection */
    HW_CHANNEL_CONNECTING, /* TCP, then HTTP/2's first exchange */
    HW_CHANNEL_UP,
    HW_CHANNEL_BACKOFF
};

struct hw_channel {
    struct hw_loop *loop;
    struct hw_pool *resolver;
    struct hw_rpc_limits limits;
    struct hw_channel_ops ops;
    void *ctx;
    char *address;
    enum hw_rpc_channel_state state;
    bool is_kept;
    bool is_freed;
    bool is_tcp_pending; /* `connect` runs */
    bool is_pinging;
    bool is_suspect; /* too late; one more look at the socket */
    struct hw_connect connect;
    struct hw_rpc_link *current; /* of CONNECTING and UP */
    TAILQ_HEAD(, hw_rpc_link) links;
    unsigned failures; /* in a row */
    struct hw_rng rng;
    struct hw_timer *backoff;
    struct hw_timer *keepalive;
    uint64_t ping_at_ms; /* when the ping left */
    struct hw_deadlines deadlines;
    struct hw_rpc_call_list waiting;
    struct hw_rpc_call_list ending; /* on_end runs at the end of this turn */
    struct hw_defer end;
    size_t queued_bytes; /* of all calls, waiting ones included */
    size_t waiting_count;
    size_t call_count;
    SLIST_HEAD(, hw_rpc_call) spare;
    unsigned spare_count;
    char why[192]; /* the last failure, for the calls that it ends */
};

extern const struct hw_h2_ops hw_rpc_client_h2_ops;

/* channel.c */
/* There is work for a connection. */
void hw_rpc_channel_want(struct hw_channel *channel);
bool hw_rpc_channel_is_failing(const struct hw_channel *channel);
/* Memory goes when all is over. */
void hw_rpc_channel_release(struct hw_channel *channel);

/* request.c */
/* Put waiting calls onto the current link, as many as it takes. */
void hw_rpc_client_pump(struct hw_channel *channel);
/* End the waiting calls, all or only those that do not want to wait; on_end runs now. */
void hw_rpc_client_fail_waiting(struct hw_channel *channel, bool only_fail_fast, enum hw_grpc status, const char *text);
void hw_rpc_client_run_ending(struct hw_defer *d);
/* All calls of a channel that is going away: CANCELLED, in this turn's end. */
void hw_rpc_client_cancel_all(struct hw_channel *channel);
void hw_rpc_client_due(struct hw_deadline *d);
void hw_rpc_client_header(struct hw_h2_stream *s, struct hw_slice name, struct hw_slice value);
void hw_rpc_client_headers(struct hw_h2_stream *s, bool end);
void hw_rpc_client_message(struct hw_h2_stream *s, struct hw_slice message);
void hw_rpc_client_bad_message(struct hw_h2_stream *s, enum hw_grpc status, const char *text);
void hw_rpc_client_half_close(struct hw_h2_stream *s);
void hw_rpc_client_close(struct hw_h2_stream *s, uint32_t h2_error);
void hw_rpc_client_drain(struct hw_h2_stream *s);
void hw_rpc_client_call_free(struct hw_rpc_call *call);

#endif
