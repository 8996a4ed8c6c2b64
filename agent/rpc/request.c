#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/rpc/client.h"

#define SPARE_CALLS_MAX 1024
#define KEEP_META_BYTES_MAX 2048
/* Calls of a channel, waiting ones included, as a multiple of what one connection carries. */
#define CALLS_PER_STREAM_MAX 16
#define CUSTOM_HEADERS_MAX 16
#define FIXED_HEADERS_MAX 8
#define HEADER_OVERHEAD_BYTES 32

static struct hw_rpc_call *call_of(struct hw_h2_stream *s)
{
    return hw_container_of(s, struct hw_rpc_call, s);
}

/* ---- life ---- */

static struct hw_rpc_call *call_new(struct hw_channel *channel)
{
    struct hw_rpc_call *call = SLIST_FIRST(&channel->spare);
    if (call != NULL) {
        SLIST_REMOVE_HEAD(&channel->spare, free_link);
        channel->spare_count--;
    } else {
        call = calloc(1, sizeof *call);
        if (call == NULL) {
            return NULL;
        }
        hw_h2_stream_init(&call->s, &channel->queued_bytes);
    }
    call->channel = channel;
    channel->call_count++;
    return call;
}

void hw_rpc_client_call_free(struct hw_rpc_call *call)
{
    hw_h2_stream_free(&call->s);
    hw_buf_free(&call->meta);
    hw_buf_free(&call->text);
    free(call);
}

static void recycle(struct hw_rpc_call *call)
{
    struct hw_channel *channel = call->channel;
    hw_assert(call->list == NULL && !call->deadline.is_set);
    hw_h2_stream_reset(&call->s, &channel->queued_bytes);
    channel->call_count--;
    if (channel->spare_count >= SPARE_CALLS_MAX || channel->is_freed) {
        hw_rpc_client_call_free(call);
    } else {
        struct hw_h2_stream s = call->s;
        struct hw_buf meta = call->meta;
        struct hw_buf text = call->text;
        if (meta.cap > KEEP_META_BYTES_MAX) {
            hw_buf_free(&meta);
        }
        if (text.cap > KEEP_META_BYTES_MAX) {
            hw_buf_free(&text);
        }
        hw_buf_clear(&meta);
        hw_buf_clear(&text);
        *call = (struct hw_rpc_call){.s = s, .meta = meta, .text = text};
        SLIST_INSERT_HEAD(&channel->spare, call, free_link);
        channel->spare_count++;
    }
}

static void release(struct hw_rpc_call *call)
{
    if (call->user == NULL && call->s.h2 == NULL) {
        recycle(call);
    }
}

static void list_leave(struct hw_rpc_call *call)
{
    struct hw_channel *channel = call->channel;
    if (call->list == NULL) {
        return;
    }
    if (call->list == &channel->waiting) {
        channel->waiting_count--;
    }
    TAILQ_REMOVE(call->list, call, list_link);
    call->list = NULL;
}

static void list_join(struct hw_rpc_call *call, struct hw_rpc_call_list *list)
{
    list_leave(call);
    call->list = list;
    TAILQ_INSERT_TAIL(list, call, list_link);
    if (list == &call->channel->waiting) {
        call->channel->waiting_count++;
    }
}

static bool is_ending(const struct hw_rpc_call *call)
{
    return call->user == NULL || call->list == &call->channel->ending;
}

/* The one place where on_end is called. `call` may be gone afterwards when it is off its connection. */
static void end_now(struct hw_rpc_call *call, enum hw_grpc status, const char *text)
{
    struct hw_request *user = call->user;
    hw_assert(user != NULL);
    list_leave(call);
    hw_deadline_clear(&call->channel->deadlines, &call->deadline);
    call->s.wants_drain = false;
    if (call->s.h2 != NULL && (!call->s.is_remote_closed || !call->s.is_done || hw_h2_queued(&call->s) > 0)) {
        hw_h2_reset(&call->s, HW_H2_CANCEL);
    }
    call->user = NULL;
    user->impl = NULL;
    user->ops->on_end(user, status, text);
    release(call);
}

/* As end_now at the end of this turn: for everything that the owner itself calls. */
static void end_later(struct hw_rpc_call *call, enum hw_grpc status, const char *text)
{
    if (is_ending(call)) {
        return;
    }
    hw_deadline_clear(&call->channel->deadlines, &call->deadline);
    call->status = status;
    hw_buf_clear(&call->text);
    hw_buf_append(&call->text, text, strlen(text) + 1);
    list_join(call, &call->channel->ending);
    hw_h2_reset(&call->s, HW_H2_CANCEL);
    hw_defer_post(call->channel->loop, &call->channel->end);
}

static const char *text_of(const struct hw_rpc_call *call)
{
    return call->text.len > 0 ? (const char *)call->text.data : "";
}

void hw_rpc_client_run_ending(struct hw_defer *d)
{
    struct hw_channel *channel = hw_container_of(d, struct hw_channel, end);
    struct hw_rpc_call *call;
    /* What on_end starts and ends again is for the next turn. */
    struct hw_rpc_call *last = TAILQ_LAST(&channel->ending, hw_rpc_call_list);
    bool is_last = last == NULL;
    while (!is_last) {
        call = TAILQ_FIRST(&channel->ending);
        is_last = call == last;
        end_now(call, call->status, text_of(call));
    }
    hw_rpc_channel_release(channel);
}

void hw_rpc_client_due(struct hw_deadline *d)
{
    struct hw_rpc_call *call = hw_container_of(d, struct hw_rpc_call, deadline);
    if (!is_ending(call)) {
        end_now(call, HW_GRPC_DEADLINE_EXCEEDED, "context deadline exceeded");
    }
}

void hw_rpc_client_fail_waiting(struct hw_channel *channel, bool only_fail_fast, enum hw_grpc status, const char *text)
{
    struct hw_rpc_call *call = TAILQ_FIRST(&channel->waiting);
    while (call != NULL) {
        struct hw_rpc_call *next = TAILQ_NEXT(call, list_link);
        if (!only_fail_fast || call->is_fail_fast) {
            end_later(call, status, text);
        }
        call = next;
    }
}

static void cancel_stream(struct hw_h2_stream *s)
{
    end_later(call_of(s), HW_GRPC_CANCELLED, "the channel was closed");
}

void hw_rpc_client_cancel_all(struct hw_channel *channel)
{
    struct hw_rpc_link *link;
    hw_rpc_client_fail_waiting(channel, false, HW_GRPC_CANCELLED, "the channel was closed");
    TAILQ_FOREACH(link, &channel->links, link) {
        hw_h2_each_stream(link->h2, cancel_stream);
    }
}

/* ---- onto the wire ---- */

static int put_on_link(struct hw_rpc_call *call, struct hw_rpc_link *link)
{
    const char *nv[FIXED_HEADERS_MAX + CUSTOM_HEADERS_MAX][2] = {
        {":method", "POST"},
        {":scheme", "http"},
        {":path", (const char *)call->meta.data},
        {":authority", call->channel->address},
        {"te", "trailers"},
        {"content-type", "application/grpc"},
        {"user-agent", "hotwarm/" HW_VERSION},
    };
    size_t count = FIXED_HEADERS_MAX - 1;
    const char *p = (const char *)call->meta.data;
    int rc;
    p += strlen(p) + 1;
    if (call->deadline.is_set) {
        hw_wire_timeout_format(hw_deadline_left_ms(&call->channel->deadlines, &call->deadline), call->timeout);
        nv[count][0] = "grpc-timeout";
        nv[count++][1] = call->timeout;
    }
    for (unsigned i = 0; i < call->header_count; i++) {
        nv[count][0] = p;
        p += strlen(p) + 1;
        nv[count++][1] = p;
        p += strlen(p) + 1;
    }
    rc = hw_h2_request(link->h2, &call->s, (const char *const(*)[2])nv, count);
    if (rc == 0) {
        call->link = link;
        link->stream_count++;
    }
    return rc;
}

void hw_rpc_client_pump(struct hw_channel *channel)
{
    struct hw_rpc_call *call;
    while ((call = TAILQ_FIRST(&channel->waiting)) != NULL && channel->state == HW_CHANNEL_UP &&
           hw_h2_is_open(channel->current->h2)) {
        struct hw_rpc_link *link = channel->current;
        if (link->stream_count >= channel->limits.streams_max || link->stream_count >= hw_h2_streams_max(link->h2)) {
            return;
        }
        list_leave(call);
        if (put_on_link(call, link) != 0) {
            end_later(call, HW_GRPC_UNAVAILABLE, "the call could not be put on the connection");
        }
    }
}

/* ---- what the server sends ---- */

static bool is_name(struct hw_slice name, const char *text)
{
    return name.len == strlen(text) && memcmp(name.data, text, name.len) == 0;
}

void hw_rpc_client_header(struct hw_h2_stream *s, struct hw_slice name, struct hw_slice value)
{
    struct hw_rpc_call *call = call_of(s);
    call->header_bytes += name.len + value.len + HEADER_OVERHEAD_BYTES;
    if (is_ending(call) || call->header_bytes > call->channel->limits.header_bytes_max) {
        return;
    }
    if (is_name(name, ":status") && value.len == 3) {
        call->http_status = 0;
        for (size_t i = 0; i < value.len; i++) {
            call->http_status = call->http_status * 10 + (unsigned)(value.data[i] - '0') % 10;
        }
    } else if (is_name(name, "content-type")) {
        call->is_grpc = value.len >= 16 && memcmp(value.data, "application/grpc", 16) == 0;
    } else if (is_name(name, "grpc-status")) {
        call->has_status = true;
        call->status = hw_wire_status_parse(value);
    } else if (is_name(name, "grpc-message")) {
        hw_buf_clear(&call->text);
        hw_wire_text_decode(value, &call->text);
        hw_buf_put_u8(&call->text, 0);
    }
}

static void end_with_http(struct hw_rpc_call *call)
{
    char text[96];
    snprintf(text, sizeof text, "the server answered with HTTP status %u and not with gRPC", call->http_status);
    end_now(call, hw_wire_status_of_http(call->http_status), text);
}

void hw_rpc_client_headers(struct hw_h2_stream *s, bool end)
{
    struct hw_rpc_call *call = call_of(s);
    if (is_ending(call) || (!end && call->http_status >= 100 && call->http_status < 200)) {
        return;
    }
    if (call->header_bytes > call->channel->limits.header_bytes_max) {
        end_now(call, HW_GRPC_RESOURCE_EXHAUSTED, "grpc: the response's headers are larger than max");
    } else if (end && call->has_status) {
        end_now(call, call->status, text_of(call));
    } else if (call->http_status != 200 || !call->is_grpc) {
        end_with_http(call);
    } else if (end) {
        end_now(call, HW_GRPC_INTERNAL, "grpc: the server ended the call without a status");
    }
}

void hw_rpc_client_message(struct hw_h2_stream *s, struct hw_slice message)
{
    struct hw_rpc_call *call = call_of(s);
    if (!is_ending(call) && call->user->ops->on_message != NULL) {
        call->user->ops->on_message(call->user, message);
    }
}

void hw_rpc_client_bad_message(struct hw_h2_stream *s, enum hw_grpc status, const char *text)
{
    struct hw_rpc_call *call = call_of(s);
    if (!is_ending(call)) {
        end_now(call, status, text);
    }
}

void hw_rpc_client_half_close(struct hw_h2_stream *s)
{
    struct hw_rpc_call *call = call_of(s);
    if (!is_ending(call)) {
        end_now(call, HW_GRPC_INTERNAL, "grpc: the server ended the call without a status");
    }
}

void hw_rpc_client_close(struct hw_h2_stream *s, uint32_t h2_error)
{
    struct hw_rpc_call *call = call_of(s);
    struct hw_channel *channel = call->channel;
    char text[192];
    call->link->stream_count--;
    call->link = NULL;
    if (is_ending(call)) {
        release(call);
    } else if (h2_error == HW_H2_CONNECTION_LOST) {
        snprintf(text, sizeof text, "the connection to %.128s was lost", channel->address);
        end_now(call, HW_GRPC_UNAVAILABLE, text);
    } else {
        snprintf(text, sizeof text, "the server reset the call (HTTP/2 error %u)", (unsigned)h2_error);
        end_now(call, hw_wire_status_of_reset(h2_error), text);
    }
    hw_rpc_client_pump(channel);
}

void hw_rpc_client_drain(struct hw_h2_stream *s)
{
    struct hw_rpc_call *call = call_of(s);
    if (!is_ending(call) && call->user->ops->on_drain != NULL) {
        call->user->ops->on_drain(call->user);
    }
}

/* ---- what the owner does ---- */

static int fill_meta(struct hw_rpc_call *call, const char *path, const char *const *headers)
{
    size_t bytes_max = call->channel->limits.header_bytes_max;
    hw_buf_append(&call->meta, path, strlen(path) + 1);
    for (size_t i = 0; headers != NULL && headers[i] != NULL; i += 2) {
        if (call->header_count == CUSTOM_HEADERS_MAX || !hw_h2_is_header_valid(headers[i], headers[i + 1])) {
            return HW_ERR_INVALID;
        }
        hw_buf_append(&call->meta, headers[i], strlen(headers[i]) + 1);
        hw_buf_append(&call->meta, headers[i + 1], strlen(headers[i + 1]) + 1);
        call->header_count++;
    }
    if (call->meta.failed) {
        return HW_ERR_NOMEM;
    }
    return call->meta.len > bytes_max ? HW_ERR_INVALID : 0;
}

int hw_request_start(struct hw_channel *channel, struct hw_request *r, const char *path, const char *const *headers,
                     uint64_t timeout_ms, bool fail_fast, struct hw_slice first, bool half_close)
{
    struct hw_rpc_call *call;
    int rc;
    if (channel->is_freed) {
        return HW_ERR_CANCELLED;
    }
    if (channel->call_count >= CALLS_PER_STREAM_MAX * (size_t)channel->limits.streams_max ||
        channel->queued_bytes + first.len > channel->limits.send_queue_bytes_max) {
        return HW_ERR_EXHAUSTED;
    }
    call = call_new(channel);
    if (call == NULL) {
        return HW_ERR_NOMEM;
    }
    rc = fill_meta(call, path, headers);
    if (rc == 0 && (first.data != NULL || half_close)) {
        rc = hw_h2_send(&call->s, first);
    }
    if (rc != 0) {
        recycle(call);
        return rc;
    }
    call->user = r;
    call->s.is_done = half_close;
    call->s.wants_drain = r->ops->on_drain != NULL;
    call->is_fail_fast = fail_fast;
    r->impl = call;
    if (timeout_ms != 0) {
        hw_deadline_set(&channel->deadlines, &call->deadline, timeout_ms);
    }
    if (fail_fast && hw_rpc_channel_is_failing(channel)) {
        end_later(call, HW_GRPC_UNAVAILABLE, channel->why);
        return 0;
    }
    list_join(call, &channel->waiting);
    hw_rpc_channel_want(channel);
    hw_rpc_client_pump(channel);
    return 0;
}

int hw_request_send(struct hw_request *r, struct hw_slice message)
{
    struct hw_rpc_call *call = r->impl;
    if (call == NULL || is_ending(call)) {
        return HW_ERR_CANCELLED;
    }
    if (call->s.is_done) {
        return HW_ERR_PRECONDITION;
    }
    if (call->channel->queued_bytes + message.len > call->channel->limits.send_queue_bytes_max) {
        return HW_ERR_EXHAUSTED;
    }
    return hw_h2_send(&call->s, message);
}

void hw_request_half_close(struct hw_request *r)
{
    struct hw_rpc_call *call = r->impl;
    if (call != NULL && !is_ending(call)) {
        hw_h2_half_close(&call->s);
    }
}

size_t hw_request_queued(const struct hw_request *r)
{
    const struct hw_rpc_call *call = r->impl;
    return call != NULL ? hw_h2_queued(&call->s) : 0;
}

void hw_request_cancel(struct hw_request *r)
{
    if (r->impl != NULL) {
        end_later(r->impl, HW_GRPC_CANCELLED, "the call was cancelled");
    }
}
