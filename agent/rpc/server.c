#include "agent/rpc/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"

/* After the grace of a shutdown: for the statuses of the calls that it has cut off. */
#define LAST_WORDS_MS 500
/* How often ping_timeout_ms a new client has for its SETTINGS. */
#define HANDSHAKE_TIMES 5

void hw_rpc_limits_default(struct hw_rpc_limits *l)
{
    *l = (struct hw_rpc_limits){
        .message_bytes_max = 2u * 1024u * 1024u,
        .streams_max = 1024,
        .header_bytes_max = 16u * 1024u,
        .send_queue_bytes_max = 64u * 1024u * 1024u,
        .ping_ms = 2000,
        .ping_timeout_ms = 2000,
    };
}

/* ---- methods ---- */

static void method_metrics(struct hw_rpc_server *server, struct hw_rpc_method *method)
{
    char labels[256];
    snprintf(labels, sizeof labels, "method=\"%s\"", method->label);
    method->seconds = hw_metrics_histogram(server->metrics, "hotwarm_grpc_request_seconds", labels,
                                           "Time from a call's headers to its status.");
}

void hw_rpc_server_count(struct hw_rpc_server *server, struct hw_rpc_method *method, enum hw_grpc status)
{
    unsigned i = (unsigned)status < HW_WIRE_STATUS_COUNT ? (unsigned)status : HW_GRPC_UNKNOWN;
    if (method->requests[i] == NULL) {
        char labels[256];
        snprintf(labels, sizeof labels, "method=\"%s\",code=\"%s\"", method->label, hw_wire_status_name(status));
        method->requests[i] =
            hw_metrics_counter(server->metrics, "hotwarm_grpc_requests_total", labels, "Calls by method and status.");
    }
    hw_counter_add(method->requests[i], 1);
}

void hw_rpc_server_add(struct hw_rpc_server *server, const struct hw_method *methods, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct hw_rpc_method *method;
        HASH_FIND_STR(server->methods, methods[i].path, method);
        hw_assert(method == NULL && methods[i].path[0] == '/');
        hw_assert(methods[i].on_unary != NULL || methods[i].on_open != NULL);
        method = calloc(1, sizeof *method);
        hw_assert(method != NULL);
        method->m = methods[i];
        method->label = method->m.path + 1;
        method_metrics(server, method);
        HASH_ADD_KEYPTR(hh, server->methods, method->m.path, strlen(method->m.path), method);
    }
}

struct hw_rpc_method *hw_rpc_server_find(struct hw_rpc_connection *connection, struct hw_slice path)
{
    struct hw_rpc_method *method = connection->last_method;
    if (method != NULL && method->hh.keylen == path.len && memcmp(method->m.path, path.data, path.len) == 0) {
        return method;
    }
    HASH_FIND(hh, connection->server->methods, path.data, path.len, method);
    if (method != NULL) {
        connection->last_method = method;
    }
    return method;
}

bool hw_rpc_server_has_service(const struct hw_rpc_server *server, const char *path)
{
    size_t len = (size_t)(strrchr(path, '/') - path) + 1;
    const struct hw_rpc_method *method;
    for (method = server->methods; method != NULL; method = method->hh.next) {
        if (strncmp(method->m.path, path, len) == 0 && strchr(method->m.path + len, '/') == NULL) {
            return true;
        }
    }
    return false;
}

/* ---- life ---- */

static void destroy(struct hw_rpc_server *server)
{
    struct hw_rpc_method *method;
    struct hw_rpc_method *next;
    struct hw_call *call;
    while ((call = SLIST_FIRST(&server->spare_calls)) != NULL) {
        SLIST_REMOVE_HEAD(&server->spare_calls, free_link);
        hw_rpc_call_free(call);
    }
    HASH_ITER(hh, server->methods, method, next) {
        HASH_DEL(server->methods, method);
        free(method);
    }
    hw_metrics_free(server->own_metrics);
    free(server);
}

void hw_rpc_server_release(struct hw_rpc_server *server)
{
    if (server->is_freed && server->connection_count == 0 && server->call_count == 0) {
        destroy(server);
    }
}

static void closed(struct hw_rpc_server *server)
{
    void (*on_closed)(void *ctx) = server->on_closed;
    if (server->is_shut && server->connection_count == 0 && on_closed != NULL) {
        server->on_closed = NULL;
        hw_timer_stop(server->grace);
        on_closed(server->on_closed_ctx);
    }
}

static void on_closed_turn(struct hw_defer *d)
{
    closed(hw_container_of(d, struct hw_rpc_server, closed));
}

static void abort_stream(struct hw_h2_stream *s)
{
    hw_rpc_call_abort(hw_container_of(s, struct hw_call, s), HW_GRPC_UNAVAILABLE, "the server is shutting down");
}

static void on_grace(void *ctx)
{
    struct hw_rpc_server *server = ctx;
    struct hw_rpc_connection *c;
    TAILQ_FOREACH(c, &server->connections, link) {
        if (server->is_grace_over) {
            hw_h2_close(c->h2);
        } else {
            hw_h2_each_stream(c->h2, abort_stream);
        }
    }
    server->is_grace_over = true;
    hw_timer_start(server->grace, LAST_WORDS_MS, 0);
}

static void on_handshake_due(struct hw_deadline *d)
{
    struct hw_rpc_connection *c = hw_container_of(d, struct hw_rpc_connection, handshake);
    hw_counter_add(c->server->protocol_errors, 1);
    hw_h2_close(c->h2);
}

int hw_rpc_server_new(struct hw_loop *loop, struct hw_metrics *metrics, const struct hw_rpc_limits *limits,
                      struct hw_rpc_server **out)
{
    struct hw_rpc_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        return HW_ERR_NOMEM;
    }
    server->loop = loop;
    server->own_metrics = metrics == NULL ? hw_metrics_new() : NULL;
    server->metrics = metrics == NULL ? server->own_metrics : metrics;
    if (limits != NULL) {
        server->limits = *limits;
    } else {
        hw_rpc_limits_default(&server->limits);
    }
    server->unknown.label = "unknown";
    method_metrics(server, &server->unknown);
    server->in_flight = hw_metrics_gauge(server->metrics, "hotwarm_grpc_in_flight", NULL, "Calls in progress.");
    server->open_connections =
        hw_metrics_gauge(server->metrics, "hotwarm_grpc_connections", NULL, "HTTP/2 connections of clients.");
    server->protocol_errors = hw_metrics_counter(server->metrics, "hotwarm_grpc_protocol_errors_total", NULL,
                                                 "Violations of HTTP/2 or gRPC framing, floods included, by clients.");
    TAILQ_INIT(&server->connections);
    SLIST_INIT(&server->spare_calls);
    hw_deadlines_init(&server->deadlines, loop, "rpc server deadlines", hw_rpc_call_due);
    hw_deadlines_init(&server->handshakes, loop, "rpc server handshakes", on_handshake_due);
    server->grace = hw_timer_new(loop, "rpc server grace", on_grace, server);
    hw_defer_init(&server->closed, on_closed_turn);
    *out = server;
    return 0;
}

void hw_rpc_server_shut(struct hw_rpc_server *server, uint64_t grace_ms, void (*on_closed)(void *ctx), void *ctx)
{
    struct hw_rpc_connection *c;
    hw_assert(!server->is_shut);
    server->is_shut = true;
    server->on_closed = on_closed;
    server->on_closed_ctx = ctx;
    TAILQ_FOREACH(c, &server->connections, link) {
        hw_h2_shut(c->h2);
    }
    if (server->connection_count == 0) {
        hw_defer_post(server->loop, &server->closed);
    } else {
        hw_timer_start(server->grace, grace_ms, 0);
    }
}

void hw_rpc_server_free(struct hw_rpc_server *server)
{
    struct hw_rpc_connection *c;
    if (server == NULL) {
        return;
    }
    hw_assert(!server->is_freed);
    server->is_freed = true;
    server->is_shut = true;
    server->on_closed = NULL;
    hw_defer_cancel(server->loop, &server->closed);
    hw_timer_free(server->grace);
    TAILQ_FOREACH(c, &server->connections, link) {
        hw_h2_close(c->h2);
    }
    hw_deadlines_close(&server->deadlines);
    hw_deadlines_close(&server->handshakes);
    hw_rpc_server_release(server);
}

unsigned hw_rpc_server_connection_count(const struct hw_rpc_server *server)
{
    return server->connection_count;
}

size_t hw_rpc_server_queued(const struct hw_rpc_server *server)
{
    const struct hw_rpc_connection *c;
    size_t bytes = 0;
    TAILQ_FOREACH(c, &server->connections, link) {
        bytes += c->queued_bytes;
    }
    return bytes;
}

/* ---- connections ---- */

void hw_rpc_connection_release(struct hw_rpc_connection *c)
{
    struct hw_rpc_server *server = c->server;
    if (c->h2 == NULL && c->call_count == 0) {
        free(c);
    }
    hw_rpc_server_release(server);
}

static void on_up(void *ctx)
{
    struct hw_rpc_connection *c = ctx;
    hw_deadline_clear(&c->server->handshakes, &c->handshake);
}

static void on_goaway(void *ctx)
{
    (void)ctx;
}

static void on_protocol_error(void *ctx)
{
    struct hw_rpc_connection *c = ctx;
    hw_counter_add(c->server->protocol_errors, 1);
    hw_log_debug("rpc", "a client broke the protocol", "peer=%s", c->peer);
}

static void on_end(void *ctx, int status)
{
    struct hw_rpc_connection *c = ctx;
    struct hw_rpc_server *server = c->server;
    (void)status;
    hw_deadline_clear(&server->handshakes, &c->handshake);
    c->h2 = NULL;
    TAILQ_REMOVE(&server->connections, c, link);
    server->connection_count--;
    atomic_fetch_sub_explicit(&server->open_connections->value, 1, memory_order_relaxed);
    /* on_closed may free the server: a call count that is not zero keeps it until the release below. */
    server->call_count++;
    closed(server);
    server->call_count--;
    hw_rpc_connection_release(c);
}

const struct hw_h2_ops hw_rpc_server_h2_ops = {
    .on_open = hw_rpc_call_open,
    .on_header = hw_rpc_call_header,
    .on_headers = hw_rpc_call_headers,
    .on_message = hw_rpc_call_message,
    .on_bad_message = hw_rpc_call_bad_message,
    .on_half_close = hw_rpc_call_half_close,
    .on_close = hw_rpc_call_close,
    .on_drain = hw_rpc_call_drain,
    .on_up = on_up,
    .on_goaway = on_goaway,
    .on_protocol_error = on_protocol_error,
    .on_end = on_end,
};

/* A stream that nobody owns yet must still be closed by somebody. */
static void drop_data(void *ctx, const uint8_t *data, size_t len)
{
    (void)ctx;
    (void)data;
    (void)len;
}

static void drop_end(void *ctx, int status)
{
    (void)ctx;
    (void)status;
}

static void drop(struct hw_stream *stream)
{
    static const struct hw_stream_ops ops = {drop_data, drop_end, NULL};
    hw_stream_own(stream, &ops, NULL);
    hw_stream_close(stream);
}

void hw_rpc_server_accept(struct hw_rpc_server *server, struct hw_stream *stream)
{
    struct hw_rpc_connection *c;
    if (server->is_shut) {
        drop(stream);
        return;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL) {
        drop(stream);
        return;
    }
    c->server = server;
    snprintf(c->peer, sizeof c->peer, "%s", hw_stream_peer(stream));
    if (hw_h2_new(true, stream, &server->limits, &hw_rpc_server_h2_ops, c, &c->h2) != 0) {
        free(c);
        drop(stream);
        return;
    }
    if (server->limits.ping_timeout_ms != 0) {
        hw_deadline_set(&server->handshakes, &c->handshake, (uint64_t)HANDSHAKE_TIMES * server->limits.ping_timeout_ms);
    }
    TAILQ_INSERT_TAIL(&server->connections, c, link);
    server->connection_count++;
    atomic_fetch_add_explicit(&server->open_connections->value, 1, memory_order_relaxed);
}
