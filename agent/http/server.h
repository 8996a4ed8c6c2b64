/* Inside of the HTTP server, shared by server.c (connections, routes) and reply.c (answers). Private to agent/http;
 * loop thread.
 *
 * A request in the handler's hands is `request` inside its connection. The connection's struct lives until its stream
 * has ended and its request was answered; the server's until hw_http_server_free and its last connection.
 */
#ifndef HW_HTTP_SERVER_H
#define HW_HTTP_SERVER_H

#include "agent/http/message.h"

#define HW_HTTP_STATUS_MIN 100
#define HW_HTTP_STATUS_END 600

struct hw_http_connection;

struct hw_http_req {
    struct hw_http_connection *connection;
    bool is_open; /* the handler has it */
    uint64_t start_us;
};

struct hw_http_connection {
    struct hw_http_server *server;
    struct hw_stream *stream; /* NULL: ended */
    TAILQ_ENTRY(hw_http_connection) link;
    struct hw_http_message message;
    struct hw_http_req request;
    struct hw_buf pending; /* came behind the request in progress */
    struct hw_defer resume;
    uint64_t since_ms;    /* when it became idle, or the request in progress began */
    size_t queued_before; /* unsent bytes at the last sweep */
    bool has_begun;       /* bytes of the next request have come */
    bool is_reading;      /* in read_requests */
    bool is_paused;       /* the stream below gives no bytes */
    bool is_stalled;      /* the client does not read its answers */
    bool is_closing;      /* the last answer is on its way */
};

struct hw_http_route_entry {
    struct hw_http_route route;
    size_t path_len;
};

struct hw_http_server {
    struct hw_loop *loop;
    struct hw_metrics *metrics;
    struct hw_metrics *own_metrics; /* when none was given */
    struct hw_http_limits limits;
    struct hw_http_route_entry *routes;
    size_t route_count;
    TAILQ_HEAD(, hw_http_connection) connections;
    size_t connection_count; /* structs, ended ones with an open request included */
    size_t stream_count;
    struct hw_timer *sweep;
    struct hw_defer closed;
    void (*on_closed)(void *ctx);
    void *on_closed_ctx;
    bool is_shut;
    bool is_freed;
    struct hw_counter *requests[HW_HTTP_STATUS_END - HW_HTTP_STATUS_MIN]; /* made when first needed */
    struct hw_histogram *seconds;
    struct hw_gauge *open_connections;
    uint64_t date_s; /* of `date` */
    char date[40];
};

/* reply.c: write status line, fields and body; counts. Does not touch the request. `ends`: the connection's last. */
void hw_http_write(struct hw_http_connection *c, int status, const char *content_type, struct hw_slice body,
                   const char *const *headers, bool is_head, bool ends);
/* {"error": error, "message": message} */
void hw_http_write_error(struct hw_http_connection *c, int status, const char *message, const char *const *headers,
                         bool is_head, bool ends);
/* server.c: the answer is written; on with the next request. */
void hw_http_answered(struct hw_http_connection *c);

#endif
