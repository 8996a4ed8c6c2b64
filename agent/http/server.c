#include "agent/http/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"

/* Pipelined bytes kept while a request is in progress; beyond it TCP holds the client back. */
#define PENDING_BYTES_MAX (64u * 1024u)
/* For the last answer of a connection. */
#define FINISH_MS 5000
#define SWEEP_MS_MAX 1000
/* A request that has begun must be whole after this: one that trickles in holds a connection for nothing. */
#define RECEIVE_MS_MAX 10000

static void read_requests(struct hw_http_connection *c);

void hw_http_limits_default(struct hw_http_limits *l)
{
    *l = (struct hw_http_limits){
        .header_bytes_max = 16u * 1024u,
        .body_bytes_max = 2u * 1024u * 1024u,
        .idle_ms = 60000,
    };
}

/* ---- life ---- */

static void server_release(struct hw_http_server *server)
{
    if (server->is_freed && server->connection_count == 0) {
        hw_metrics_free(server->own_metrics);
        free(server->routes);
        free(server);
    }
}

static void connection_release(struct hw_http_connection *c)
{
    struct hw_http_server *server = c->server;
    if (c->stream != NULL || c->request.is_open || c->is_reading) {
        return;
    }
    hw_defer_cancel(server->loop, &c->resume);
    hw_http_message_free(&c->message);
    hw_buf_free(&c->pending);
    free(c);
    server->connection_count--;
    server_release(server);
}

static void closed(struct hw_http_server *server)
{
    void (*on_closed)(void *ctx) = server->on_closed;
    if (server->is_shut && server->stream_count == 0 && on_closed != NULL) {
        server->on_closed = NULL;
        on_closed(server->on_closed_ctx);
    }
}

static void on_closed_turn(struct hw_defer *d)
{
    closed(hw_container_of(d, struct hw_http_server, closed));
}

/* An idle connection and an answer that is not read end after idle_ms, a request that trickles in perhaps earlier. */
static void on_sweep(void *ctx)
{
    struct hw_http_server *server = ctx;
    uint64_t now_ms = hw_loop_now_ms(server->loop);
    struct hw_http_connection *c;
    TAILQ_FOREACH(c, &server->connections, link) {
        size_t queued = hw_stream_queued(c->stream);
        uint64_t limit_ms = server->limits.idle_ms;
        if (c->has_begun && limit_ms > RECEIVE_MS_MAX) {
            limit_ms = RECEIVE_MS_MAX;
        }
        if (queued < c->queued_before) {
            c->since_ms = now_ms;
        }
        c->queued_before = queued;
        if (!c->request.is_open && now_ms - c->since_ms >= limit_ms) {
            c->is_closing = true;
            hw_stream_close(c->stream);
        }
    }
}

int hw_http_server_new(struct hw_loop *loop, struct hw_metrics *metrics, const struct hw_http_limits *limits,
                       struct hw_http_server **out)
{
    struct hw_http_server *server = calloc(1, sizeof *server);
    uint64_t sweep_ms = limits->idle_ms / 4 < SWEEP_MS_MAX ? limits->idle_ms / 4 + 1 : SWEEP_MS_MAX;
    if (server == NULL) {
        return HW_ERR_NOMEM;
    }
    server->loop = loop;
    server->own_metrics = metrics == NULL ? hw_metrics_new() : NULL;
    server->metrics = metrics == NULL ? server->own_metrics : metrics;
    server->limits = *limits;
    server->seconds = hw_metrics_histogram(server->metrics, "hotwarm_http_request_seconds", NULL,
                                           "Time from a complete HTTP request to its answer.");
    server->open_connections =
        hw_metrics_gauge(server->metrics, "hotwarm_http_connections", NULL, "HTTP/1.1 connections of clients.");
    TAILQ_INIT(&server->connections);
    hw_defer_init(&server->closed, on_closed_turn);
    server->sweep = hw_timer_new(loop, "http server sweep", on_sweep, server);
    hw_timer_start(server->sweep, sweep_ms, sweep_ms);
    *out = server;
    return 0;
}

void hw_http_server_add(struct hw_http_server *server, const struct hw_http_route *routes, size_t count)
{
    struct hw_http_route_entry *all = realloc(server->routes, (server->route_count + count) * sizeof *all);
    hw_assert(all != NULL);
    server->routes = all;
    for (size_t i = 0; i < count; i++) {
        hw_assert(routes[i].path[0] == '/');
        all[server->route_count++] = (struct hw_http_route_entry){routes[i], strlen(routes[i].path)};
    }
}

void hw_http_server_shut(struct hw_http_server *server, void (*on_closed)(void *ctx), void *ctx)
{
    struct hw_http_connection *c;
    hw_assert(!server->is_shut);
    server->is_shut = true;
    server->on_closed = on_closed;
    server->on_closed_ctx = ctx;
    TAILQ_FOREACH(c, &server->connections, link) {
        if (!c->request.is_open && !c->is_closing) {
            c->is_closing = true;
            hw_stream_finish(c->stream, FINISH_MS);
        }
    }
    if (server->stream_count == 0) {
        hw_defer_post(server->loop, &server->closed);
    }
}

void hw_http_server_free(struct hw_http_server *server)
{
    struct hw_http_connection *c;
    if (server == NULL) {
        return;
    }
    hw_assert(!server->is_freed);
    server->is_freed = true;
    server->is_shut = true;
    server->on_closed = NULL;
    hw_defer_cancel(server->loop, &server->closed);
    hw_timer_free(server->sweep);
    TAILQ_FOREACH(c, &server->connections, link) {
        c->is_closing = true;
        hw_stream_close(c->stream);
    }
    server_release(server);
}

/* ---- requests ---- */

static bool is_match(const struct hw_http_route_entry *r, const char *path, size_t len)
{
    if (r->route.path[r->path_len - 1] == '/') {
        return len >= r->path_len && memcmp(path, r->route.path, r->path_len) == 0;
    }
    return len == r->path_len && memcmp(path, r->route.path, len) == 0;
}

static bool is_method(const struct hw_http_route *route, const char *method)
{
    return strcmp(route->method, method) == 0 || (strcmp(route->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

/* The best route for path and method; *path_len is the length of the best match of the path alone, 0 when none. */
static const struct hw_http_route *find_route(const struct hw_http_server *server, const struct hw_http_message *m,
                                              size_t *path_len)
{
    const char *path = (const char *)m->path.data;
    size_t len = strlen(path);
    const struct hw_http_route *best = NULL;
    *path_len = 0;
    for (size_t i = 0; i < server->route_count; i++) {
        const struct hw_http_route_entry *r = &server->routes[i];
        if (r->path_len < *path_len || !is_match(r, path, len)) {
            continue;
        }
        if (r->path_len > *path_len) {
            *path_len = r->path_len;
            best = NULL;
        }
        if (best == NULL && is_method(&r->route, m->method)) {
            best = &r->route;
        }
    }
    return best;
}

/* RFC 9110 section 15.5.6: a 405 names what is allowed. */
static void refuse_method(struct hw_http_connection *c, size_t path_len, bool ends)
{
    const struct hw_http_server *server = c->server;
    const char *path = (const char *)c->message.path.data;
    char allow[128] = "";
    const char *headers[] = {"Allow", allow, NULL};
    for (size_t i = 0; i < server->route_count; i++) {
        const struct hw_http_route_entry *r = &server->routes[i];
        if (r->path_len == path_len && is_match(r, path, strlen(path))) {
            const char *method = strcmp(r->route.method, "GET") == 0 ? "GET, HEAD" : r->route.method;
            size_t used = strlen(allow);
            snprintf(allow + used, sizeof allow - used, "%s%s", used > 0 ? ", " : "", method);
        }
    }
    hw_http_write_error(c, 405, "the method is not offered for this path", headers, c->message.is_head, ends);
}

static void finish(struct hw_http_connection *c)
{
    c->is_closing = true;
    if (c->stream != NULL) {
        hw_stream_finish(c->stream, FINISH_MS);
    }
}

static void next_request(struct hw_http_connection *c)
{
    hw_http_message_reset(&c->message);
    c->has_begun = false;
    c->since_ms = hw_loop_now_ms(c->server->loop);
}

static void dispatch(struct hw_http_connection *c)
{
    size_t path_len;
    const struct hw_http_route *route = find_route(c->server, &c->message, &path_len);
    bool ends = !c->message.keeps_alive || c->server->is_shut;
    if (route != NULL) {
        c->request = (struct hw_http_req){.connection = c, .is_open = true, .start_us = hw_mono_us()};
        route->handle(route->ctx, &c->request);
        return;
    }
    if (path_len > 0) {
        refuse_method(c, path_len, ends);
    } else {
        hw_http_write_error(c, 404, "no such path", NULL, c->message.is_head, ends);
    }
    if (ends) {
        finish(c);
    } else {
        next_request(c);
    }
}

/* From hw_http_reply: perhaps within the handler, perhaps later. */
void hw_http_answered(struct hw_http_connection *c)
{
    if (c->stream == NULL) {
        connection_release(c);
        return;
    }
    if (c->is_closing) {
        finish(c);
        return;
    }
    next_request(c);
    if (!c->is_reading) {
        hw_defer_post(c->server->loop, &c->resume);
    }
}

static void refuse(struct hw_http_connection *c)
{
    hw_http_write_error(c, c->message.error_status, c->message.error_text, NULL, c->message.is_head, true);
    finish(c);
}

static void pause_or_go(struct hw_http_connection *c)
{
    bool want = c->is_stalled || c->pending.len > PENDING_BYTES_MAX;
    if (want != c->is_paused) {
        c->is_paused = want;
        hw_stream_pause(c->stream, want);
    }
}

/* Take as many requests from `pending` as handlers answer at once. */
static void read_requests(struct hw_http_connection *c)
{
    size_t at = 0;
    c->is_reading = true;
    while (at < c->pending.len && !c->request.is_open && !c->is_closing && !c->is_stalled) {
        size_t used;
        int rc;
        if (!c->has_begun) {
            c->has_begun = true;
            c->since_ms = hw_loop_now_ms(c->server->loop);
        }
        rc = hw_http_message_feed(&c->message, c->pending.data + at, c->pending.len - at, &used);
        at += used;
        if (rc < 0) {
            refuse(c);
        } else if (rc == 1) {
            dispatch(c);
        } else if (c->message.wants_continue) {
            static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
            c->message.wants_continue = false;
            hw_stream_write(c->stream, line, sizeof line - 1);
        }
        c->is_stalled = hw_stream_queued(c->stream) > HW_STREAM_HIGH;
    }
    c->is_reading = false;
    if (c->is_closing) {
        hw_buf_clear(&c->pending);
        return;
    }
    hw_buf_consume(&c->pending, at);
    if (c->pending.len == 0 && c->pending.cap > PENDING_BYTES_MAX) {
        hw_buf_free(&c->pending);
    }
    pause_or_go(c);
}

/* ---- connections ---- */

static void on_resume(struct hw_defer *d)
{
    struct hw_http_connection *c = hw_container_of(d, struct hw_http_connection, resume);
    if (!c->is_closing) {
        read_requests(c);
    }
}

static void on_data(void *ctx, const uint8_t *data, size_t len)
{
    struct hw_http_connection *c = ctx;
    if (c->is_closing) {
        return;
    }
    hw_loop_note(c->server->loop, "http");
    if (hw_buf_append(&c->pending, data, len) != 0) {
        c->is_closing = true;
        hw_stream_close(c->stream);
        return;
    }
    read_requests(c);
}

static void on_drain(void *ctx)
{
    struct hw_http_connection *c = ctx;
    c->is_stalled = false;
    if (!c->is_closing) {
        pause_or_go(c);
        read_requests(c);
    }
}

static void on_end(void *ctx, int status)
{
    struct hw_http_connection *c = ctx;
    struct hw_http_server *server = c->server;
    (void)status;
    TAILQ_REMOVE(&server->connections, c, link);
    c->stream = NULL;
    c->is_closing = true;
    hw_defer_cancel(server->loop, &c->resume);
    server->stream_count--;
    atomic_fetch_sub_explicit(&server->open_connections->value, 1, memory_order_relaxed);
    closed(server); /* may free the server: this connection still counts, so its memory stays */
    connection_release(c);
}

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

void hw_http_server_accept(struct hw_http_server *server, struct hw_stream *stream)
{
    static const struct hw_stream_ops ops = {on_data, on_end, on_drain};
    struct hw_http_connection *c;
    if (server->is_shut) {
        drop(stream);
        return;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL || hw_http_message_init(&c->message, &server->limits) != 0) {
        free(c);
        drop(stream);
        return;
    }
    c->server = server;
    c->stream = stream;
    c->since_ms = hw_loop_now_ms(server->loop);
    hw_defer_init(&c->resume, on_resume);
    TAILQ_INSERT_TAIL(&server->connections, c, link);
    server->connection_count++;
    server->stream_count++;
    atomic_fetch_add_explicit(&server->open_connections->value, 1, memory_order_relaxed);
    hw_stream_own(stream, &ops, c);
}
