#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/rpc/server.h"

#define SPARE_CALLS_MAX 4096
#define KEEP_HEADER_BYTES_MAX 2048
/* RFC 9113 section 6.5.2: a header costs 32 bytes beside its text. */
#define HEADER_OVERHEAD_BYTES 32

static struct hw_call *call_of(struct hw_h2_stream *s)
{
    return hw_container_of(s, struct hw_call, s);
}

/* ---- life ---- */

struct hw_h2_stream *hw_rpc_call_open(void *ctx)
{
    struct hw_rpc_connection *connection = ctx;
    struct hw_rpc_server *server = connection->server;
    struct hw_call *call = SLIST_FIRST(&server->spare_calls);
    /* Calls that clients have cancelled but handlers still hold do not count for HTTP/2: they do here. */
    if (connection->call_count >= 2 * server->limits.streams_max) {
        return NULL;
    }
    if (call != NULL) {
        SLIST_REMOVE_HEAD(&server->spare_calls, free_link);
        server->spare_count--;
        call->s.account = &connection->queued_bytes;
    } else {
        call = calloc(1, sizeof *call);
        if (call == NULL) {
            return NULL;
        }
        hw_h2_stream_init(&call->s, &connection->queued_bytes);
    }
    call->connection = connection;
    call->timeout_ms = UINT64_MAX;
    connection->call_count++;
    server->call_count++;
    return &call->s;
}

void hw_rpc_call_free(struct hw_call *call)
{
    hw_h2_stream_free(&call->s);
    hw_buf_free(&call->headers);
    free(call);
}

static void recycle(struct hw_call *call)
{
    struct hw_rpc_connection *connection = call->connection;
    struct hw_rpc_server *server = connection->server;
    hw_assert(!call->deadline.is_set);
    hw_h2_stream_reset(&call->s, &connection->queued_bytes);
    if (server->spare_count >= SPARE_CALLS_MAX || server->is_freed) {
        hw_rpc_call_free(call);
    } else {
        struct hw_h2_stream s = call->s;
        struct hw_buf headers = call->headers;
        if (headers.cap > KEEP_HEADER_BYTES_MAX) {
            hw_buf_free(&headers);
        }
        hw_buf_clear(&headers);
        *call = (struct hw_call){.s = s, .headers = headers};
        SLIST_INSERT_HEAD(&server->spare_calls, call, free_link);
        server->spare_count++;
    }
    connection->call_count--;
    server->call_count--;
    hw_rpc_connection_release(connection);
}

static void release(struct hw_call *call)
{
    if (call->is_ended && call->is_closed && !call->is_busy) {
        recycle(call);
    }
}

/* The status is decided: count it once. */
static void decided(struct hw_call *call, enum hw_grpc status)
{
    struct hw_rpc_server *server = call->connection->server;
    struct hw_rpc_method *method = call->method != NULL ? call->method : &server->unknown;
    hw_rpc_server_count(server, method, status);
    if (call->is_admitted) {
        call->is_admitted = false;
        hw_histogram_observe_us(method->seconds, hw_mono_us() - call->start_us);
        atomic_fetch_sub_explicit(&server->in_flight->value, 1, memory_order_relaxed);
    }
    hw_deadline_clear(&server->deadlines, &call->deadline);
}

/* An answer to a call that no handler has seen. */
static void refuse(struct hw_call *call, enum hw_grpc status, const char *text)
{
    hw_assert(!call->is_open && !call->is_ended);
    call->is_ended = true;
    call->s.is_in_broken = true;
    decided(call, status);
    hw_h2_finish(&call->s, status, text);
}

static void cancelled(struct hw_call *call, enum hw_grpc status)
{
    call->is_cancelled = true;
    decided(call, status);
    if (call->on_cancel != NULL) {
        call->is_busy = true;
        call->on_cancel(call->data, call);
        call->is_busy = false;
    }
}

void hw_rpc_call_abort(struct hw_call *call, enum hw_grpc status, const char *text)
{
    if (call->is_ended || call->is_cancelled || call->is_closed) {
        return;
    }
    if (!call->is_open) {
        refuse(call, status, text);
        return;
    }
    call->s.is_in_broken = true;
    if (hw_h2_queued(&call->s) > 0) {
        /* Trailers would wait behind messages that nobody waits for. */
        hw_h2_reset(&call->s, HW_H2_CANCEL);
    } else {
        hw_h2_finish(&call->s, status, text);
    }
    cancelled(call, status);
    release(call);
}

void hw_rpc_call_due(struct hw_deadline *d)
{
    hw_rpc_call_abort(hw_container_of(d, struct hw_call, deadline), HW_GRPC_DEADLINE_EXCEEDED,
                      "context deadline exceeded");
}

void hw_rpc_call_close(struct hw_h2_stream *s, uint32_t h2_error)
{
    struct hw_call *call = call_of(s);
    (void)h2_error;
    call->is_closed = true;
    if (!call->is_open) {
        if (call->is_admitted) {
            decided(call, HW_GRPC_CANCELLED);
        }
        call->is_ended = true;
    } else if (!call->is_ended && !call->is_cancelled) {
        cancelled(call, HW_GRPC_CANCELLED);
    }
    release(call);
}

/* ---- what the client sends ---- */

static bool is_name(struct hw_slice name, const char *text, size_t len)
{
    return name.len == len && memcmp(name.data, text, len) == 0;
}
#define IS_NAME(name, text) is_name(name, text, sizeof(text) - 1)

static void keep_header(struct hw_call *call, struct hw_slice name, struct hw_slice value)
{
    hw_buf_append(&call->headers, name.data, name.len);
    hw_buf_put_u8(&call->headers, 0);
    hw_buf_append(&call->headers, value.data, value.len);
    hw_buf_put_u8(&call->headers, 0);
}

static void pseudo_header(struct hw_call *call, struct hw_slice name, struct hw_slice value)
{
    if (IS_NAME(name, ":path")) {
        call->has_path = true;
        call->method = hw_rpc_server_find(call->connection, value);
        if (call->method == NULL) {
            keep_header(call, name, value);
        }
    } else if (IS_NAME(name, ":method")) {
        call->is_post = IS_NAME(value, "POST");
    }
}

void hw_rpc_call_header(struct hw_h2_stream *s, struct hw_slice name, struct hw_slice value)
{
    struct hw_call *call = call_of(s);
    if (call->is_admitted || call->is_ended || call->is_cancelled) {
        return; /* trailers of the client: gRPC has none */
    }
    call->header_bytes += name.len + value.len + HEADER_OVERHEAD_BYTES;
    if (call->header_bytes > call->connection->server->limits.header_bytes_max) {
        return;
    }
    if (name.data[0] == ':') {
        pseudo_header(call, name, value);
    } else if (IS_NAME(name, "content-type")) {
        static const char grpc[] = "application/grpc";
        size_t len = sizeof grpc - 1;
        call->is_grpc = value.len >= len && memcmp(value.data, grpc, len) == 0 &&
                        (value.len == len || value.data[len] == ';' ||
                         is_name(hw_slice_of(value.data + len, value.len - len), "+proto", 6));
    } else if (IS_NAME(name, "grpc-timeout")) {
        call->is_header_bad |= hw_wire_timeout_parse(value, &call->timeout_ms) != 0;
    } else if (!IS_NAME(name, "te")) {
        keep_header(call, name, value);
    }
}

static void refuse_unknown(struct hw_call *call)
{
    const char *path = hw_call_header(call, ":path");
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    char text[512];
    if (path == NULL || slash == NULL || path[0] != '/' || slash == path) {
        snprintf(text, sizeof text, "malformed method name: \"%.200s\"", path != NULL ? path : "");
    } else if (hw_rpc_server_has_service(call->connection->server, path)) {
        snprintf(text, sizeof text, "unknown method %.200s for service %.*s", slash + 1,
                 (int)(slash - path - 1 > 200 ? 200 : slash - path - 1), path + 1);
    } else {
        snprintf(text, sizeof text, "unknown service %.*s", (int)(slash - path - 1 > 200 ? 200 : slash - path - 1),
                 path + 1);
    }
    refuse(call, HW_GRPC_UNIMPLEMENTED, text);
}

/* False: the call has its answer. */
static bool is_welcome(struct hw_call *call)
{
    struct hw_rpc_server *server = call->connection->server;
    if (call->header_bytes > server->limits.header_bytes_max) {
        refuse(call, HW_GRPC_RESOURCE_EXHAUSTED, "grpc: the request's headers are larger than max");
    } else if (!call->is_post || !call->is_grpc) {
        call->is_ended = true;
        hw_h2_reject(&call->s, call->is_post ? 415 : 405);
        decided(call, HW_GRPC_UNKNOWN);
    } else if (call->headers.failed) {
        refuse(call, HW_GRPC_RESOURCE_EXHAUSTED, "out of memory");
    } else if (call->is_header_bad) {
        refuse(call, HW_GRPC_INTERNAL, "malformed grpc-timeout");
    } else if (call->method == NULL) {
        refuse_unknown(call);
    } else if (server->is_shut) {
        refuse(call, HW_GRPC_UNAVAILABLE, "the server is shutting down");
    } else if (call->connection->queued_bytes > server->limits.send_queue_bytes_max) {
        refuse(call, HW_GRPC_RESOURCE_EXHAUSTED, "too many bytes wait to be sent on this connection");
    } else if (call->timeout_ms == 0) {
        refuse(call, HW_GRPC_DEADLINE_EXCEEDED, "context deadline exceeded");
    } else {
        return true;
    }
    return false;
}

void hw_rpc_call_headers(struct hw_h2_stream *s, bool end)
{
    struct hw_call *call = call_of(s);
    struct hw_rpc_server *server = call->connection->server;
    if (!call->is_admitted && !call->is_ended && !call->is_cancelled && is_welcome(call)) {
        call->is_admitted = true;
        call->start_us = hw_mono_us();
        atomic_fetch_add_explicit(&server->in_flight->value, 1, memory_order_relaxed);
        if (call->timeout_ms != UINT64_MAX) {
            hw_deadline_set(&server->deadlines, &call->deadline, call->timeout_ms);
        }
        if (call->method->m.on_unary == NULL) {
            call->is_open = true;
            call->method->m.on_open(call->method->m.ctx, call);
        }
    }
    if (end) {
        hw_rpc_call_half_close(s);
    }
}

static bool is_listening(const struct hw_call *call)
{
    return call->is_admitted && !call->is_ended;
}

void hw_rpc_call_message(struct hw_h2_stream *s, struct hw_slice message)
{
    struct hw_call *call = call_of(s);
    const struct hw_method *m = call->method != NULL ? &call->method->m : NULL;
    if (!is_listening(call)) {
        return;
    }
    if (m->on_unary == NULL) {
        if (m->on_message != NULL) {
            m->on_message(m->ctx, call, message);
        }
    } else if (call->is_open) {
        hw_rpc_call_abort(call, HW_GRPC_INTERNAL, "grpc: more than one message for a call that takes one");
    } else {
        call->is_open = true;
        m->on_unary(m->ctx, call, message);
    }
}

void hw_rpc_call_bad_message(struct hw_h2_stream *s, enum hw_grpc status, const char *text)
{
    struct hw_call *call = call_of(s);
    if (is_listening(call)) {
        hw_rpc_call_abort(call, status, text);
    }
}

void hw_rpc_call_half_close(struct hw_h2_stream *s)
{
    struct hw_call *call = call_of(s);
    if (!is_listening(call)) {
        return;
    }
    if (call->method->m.on_unary == NULL) {
        if (call->method->m.on_half_close != NULL) {
            call->method->m.on_half_close(call->method->m.ctx, call);
        }
    } else if (!call->is_open) {
        hw_rpc_call_abort(call, HW_GRPC_INTERNAL, "grpc: the call ended without its message");
    }
}

void hw_rpc_call_drain(struct hw_h2_stream *s)
{
    struct hw_call *call = call_of(s);
    if (call->on_drain != NULL && is_listening(call)) {
        call->on_drain(call->data, call);
    }
}

/* ---- what handlers do ---- */

void hw_call_set_data(struct hw_call *call, void *data)
{
    call->data = data;
}

void *hw_call_data(const struct hw_call *call)
{
    return call->data;
}

void hw_call_on_cancel(struct hw_call *call, void (*on_cancel)(void *data, struct hw_call *call))
{
    call->on_cancel = on_cancel;
}

bool hw_call_is_cancelled(const struct hw_call *call)
{
    return call->is_cancelled;
}

uint64_t hw_call_time_left_ms(const struct hw_call *call)
{
    return hw_deadline_left_ms(&call->connection->server->deadlines, &call->deadline);
}

const char *hw_call_path(const struct hw_call *call)
{
    return call->method->m.path;
}

const char *hw_call_peer(const struct hw_call *call)
{
    return call->connection->peer;
}

const char *hw_call_header(const struct hw_call *call, const char *name)
{
    const char *p = (const char *)call->headers.data;
    const char *end = p != NULL ? p + call->headers.len : NULL;
    while (p < end) {
        const char *value = p + strlen(p) + 1;
        if (strcmp(p, name) == 0) {
            return value;
        }
        p = value + strlen(value) + 1;
    }
    return NULL;
}

int hw_call_send(struct hw_call *call, struct hw_slice message)
{
    const struct hw_rpc_connection *connection = call->connection;
    hw_assert(!call->is_ended);
    if (call->is_cancelled || call->is_closed) {
        return HW_ERR_CANCELLED;
    }
    if (connection->queued_bytes + message.len > connection->server->limits.send_queue_bytes_max) {
        return HW_ERR_EXHAUSTED;
    }
    return hw_h2_send(&call->s, message);
}

size_t hw_call_queued(const struct hw_call *call)
{
    return hw_h2_queued(&call->s);
}

size_t hw_call_connection_queued(const struct hw_call *call)
{
    return call->connection->queued_bytes;
}

const void *hw_call_connection(const struct hw_call *call)
{
    return call->connection;
}

void hw_call_on_drain(struct hw_call *call, void (*on_drain)(void *data, struct hw_call *call))
{
    call->on_drain = on_drain;
    call->s.wants_drain = on_drain != NULL;
}

void hw_call_end(struct hw_call *call, enum hw_grpc status, const char *text)
{
    hw_assert(call->is_open && !call->is_ended);
    call->is_ended = true;
    call->s.wants_drain = false;
    if (!call->is_cancelled) {
        decided(call, status);
        hw_h2_finish(&call->s, status, text);
    }
    release(call);
}

void hw_call_reply(struct hw_call *call, struct hw_slice message)
{
    int rc = hw_call_send(call, message);
    if (rc == 0 || rc == HW_ERR_CANCELLED) {
        hw_call_end(call, HW_GRPC_OK, NULL);
    } else {
        hw_call_end(call, HW_GRPC_RESOURCE_EXHAUSTED, "too many bytes wait to be sent on this connection");
    }
}
