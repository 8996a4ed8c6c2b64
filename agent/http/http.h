/* A small HTTP/1.1 server (RFC 9112) for health, metrics, JSON and the dashboard. Requests are bounded and fully read
 * before the handler runs; connections are kept alive; pipelined requests are answered in order, one at a time.
 * Malformed or oversized requests are answered with 400, 413, 414 or 431 in JSON {"error": ..., "message": ...} and the
 * connection is closed. An idle connection is closed after idle_ms, one whose request takes more than 10 s to come
 * then.
 */
#ifndef HW_HTTP_HTTP_H
#define HW_HTTP_HTTP_H

#include "agent/base/buf.h"
#include "agent/base/metrics.h"
#include "agent/loop/loop.h"
#include "agent/loop/stream.h"

struct hw_http_limits {
    size_t header_bytes_max; /* default 16 KiB, request line included */
    size_t body_bytes_max;   /* default 2 MiB */
    unsigned idle_ms;        /* default 60000 */
};
void hw_http_limits_default(struct hw_http_limits *l);

struct hw_http_server;
struct hw_http_req; /* lives until hw_http_reply */

/* Longest matching prefix wins; a path that ends in '/' matches everything below, any other only itself. */
struct hw_http_route {
    const char *method; /* "GET" (answers HEAD too), "POST" */
    const char *path;
    void (*handle)(void *ctx, struct hw_http_req *req);
    void *ctx;
};

int hw_http_server_new(struct hw_loop *loop, struct hw_metrics *metrics, const struct hw_http_limits *limits,
                       struct hw_http_server **server);
void hw_http_server_add(struct hw_http_server *server, const struct hw_http_route *routes, size_t count);
void hw_http_server_accept(struct hw_http_server *server, struct hw_stream *stream);
void hw_http_server_shut(struct hw_http_server *server, void (*on_closed)(void *ctx), void *ctx);
void hw_http_server_free(struct hw_http_server *server);

const char *hw_http_method(const struct hw_http_req *req);
const char *hw_http_path(const struct hw_http_req *req); /* decoded, without the query */
/* A query parameter, decoded; NULL when absent. Valid while the request lives. */
const char *hw_http_query(struct hw_http_req *req, const char *name);
const char *hw_http_header(const struct hw_http_req *req, const char *lower_case_name);
struct hw_slice hw_http_body(const struct hw_http_req *req);
bool hw_http_is_gone(const struct hw_http_req *req); /* the client went away; reply all the same */
/* Copies the body; the pointer is dead afterwards. headers: NULL or pairs {name, value, ..., NULL}. */
void hw_http_reply(struct hw_http_req *req, int status, const char *content_type, struct hw_slice body,
                   const char *const *headers);

#endif
