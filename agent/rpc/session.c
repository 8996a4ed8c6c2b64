#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/rpc/session.h"

#define STREAM_WINDOW_BYTES (2 * 1024 * 1024)
#define CONNECTION_WINDOW_BYTES (16 * 1024 * 1024)
/* Frames that cost us more than the peer (RST_STREAM, PING, SETTINGS, PRIORITY, empty DATA): so many at once, then so
 * many a second (CVE-2023-44487, CVE-2019-9512 and their kin). */
#define CONTROL_BURST 4096u
#define CONTROL_PER_SECOND 1024u

void hw_h2_post(struct hw_h2 *h2)
{
    if (!h2->is_finishing) {
        hw_defer_post(h2->loop, &h2->flush);
    }
}

/* nghttp2 refuses nothing that we ask for, except without memory: then the connection can not be kept right. */
void hw_h2_check(struct hw_h2 *h2, int rc)
{
    if (nghttp2_is_fatal(rc)) {
        hw_h2_close(h2);
    }
    hw_h2_post(h2);
}

static void detach(struct hw_h2_stream *s, uint32_t h2_error)
{
    struct hw_h2 *h2 = s->h2;
    hw_h2_forget_moved(h2, s);
    TAILQ_REMOVE(&h2->streams, s, link);
    h2->stream_count--;
    h2->in_bytes -= s->in_counted;
    s->in_counted = 0;
    s->h2 = NULL;
    h2->ops->on_close(s, h2_error);
}

void hw_h2_close(struct hw_h2 *h2)
{
    if (h2->is_closed) {
        return;
    }
    h2->is_closed = true;
    h2->is_failed = true;
    h2->is_finishing = true;
    hw_defer_cancel(h2->loop, &h2->flush);
    hw_stream_close(h2->stream);
}

/* ---- receiving ---- */

/* A peer that makes us work for nothing. */
static bool is_flood(struct hw_h2 *h2)
{
    uint64_t now_ms = h2->last_read_ms;
    if (h2->control_tokens == 0) {
        uint64_t more = (now_ms - h2->control_ms) * CONTROL_PER_SECOND / 1000;
        h2->control_tokens = more < CONTROL_BURST ? more : CONTROL_BURST;
        h2->control_ms = now_ms;
    }
    if (h2->control_tokens == 0) {
        return true;
    }
    h2->control_tokens--;
    return false;
}

static void count_error(struct hw_h2 *h2)
{
    h2->is_counted = true;
    h2->ops->on_protocol_error(h2->ctx);
}

static void fail_once(struct hw_h2 *h2, enum hw_h2_code code)
{
    if (!h2->is_failed) {
        count_error(h2);
        hw_h2_fail(h2, code);
    }
}

static void malformed(struct hw_h2_stream *s)
{
    struct hw_h2 *h2 = s->h2;
    s->is_malformed = true;
    s->is_in_broken = true;
    s->is_reset = true;
    count_error(h2);
    hw_h2_check(h2, nghttp2_submit_rst_stream(h2->ng, NGHTTP2_FLAG_NONE, s->id, HW_H2_PROTOCOL_ERROR));
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    struct hw_h2 *h2 = ctx;
    struct hw_h2_stream *s;
    if (!h2->is_server || frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        return 0;
    }
    s = h2->ops->on_open(h2->ctx);
    if (s == NULL) {
        nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, frame->hd.stream_id, HW_H2_REFUSED_STREAM);
        return 0;
    }
    hw_h2_attach(h2, s, frame->hd.stream_id);
    nghttp2_session_set_stream_user_data(ng, frame->hd.stream_id, s);
    return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *ctx)
{
    struct hw_h2 *h2 = ctx;
    struct hw_h2_stream *s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    struct hw_slice n = hw_slice_of(name, name_len);
    struct hw_slice v = hw_slice_of(value, value_len);
    int rc = 1;
    (void)flags;
    if (s == NULL || s->is_malformed) {
        return 0;
    }
    if (h2->is_server) {
        rc = hw_header_rules_header(&s->rules, n, v);
    }
    if (rc < 0) {
        malformed(s);
    } else if (rc > 0) {
        h2->ops->on_header(s, n, v);
    }
    return 0;
}

static void bad_message(struct hw_h2_stream *s, int rc)
{
    struct hw_h2 *h2 = s->h2;
    char text[128];
    s->is_in_broken = true;
    h2->in_bytes -= s->in_counted;
    s->in_counted = 0;
    switch (rc) {
    case HW_ERR_TOOBIG:
        snprintf(text, sizeof text, "grpc: received message larger than max (%zu vs. %zu)", s->in.want,
                 h2->limits.message_bytes_max);
        hw_wire_reset(&s->in, 0);
        h2->ops->on_bad_message(s, HW_GRPC_RESOURCE_EXHAUSTED, text);
        return;
    case HW_ERR_UNIMPLEMENTED:
        h2->ops->on_bad_message(s, HW_GRPC_UNIMPLEMENTED, "grpc: compressed messages are not supported");
        return;
    case HW_ERR_NOMEM:
        hw_wire_reset(&s->in, 0);
        h2->ops->on_bad_message(s, HW_GRPC_RESOURCE_EXHAUSTED, "too many bytes of unfinished messages");
        return;
    default:
        count_error(h2);
        h2->ops->on_bad_message(s, HW_GRPC_INTERNAL, "grpc: received a message with unknown flags");
    }
}

/* All streams of a connection together may hold a few messages in pieces, not one each. */
static bool is_in_full(const struct hw_h2 *h2)
{
    return h2->in_bytes > 4 * h2->limits.message_bytes_max + CONNECTION_WINDOW_BYTES;
}

static int on_data_chunk(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *ctx)
{
    struct hw_h2 *h2 = ctx;
    struct hw_h2_stream *s = nghttp2_session_get_stream_user_data(ng, id);
    (void)flags;
    if (s != NULL) {
        s->rules.body_bytes += len;
    }
    while (s != NULL && !s->is_in_broken && len > 0) {
        struct hw_slice message;
        int rc = hw_wire_next(&s->in, &data, &len, h2->limits.message_bytes_max, &message);
        size_t held = rc == 0 ? s->in.body.len : 0;
        h2->in_bytes = h2->in_bytes - s->in_counted + held;
        s->in_counted = held;
        if (rc == 1) {
            h2->ops->on_message(s, message);
            hw_wire_delivered(&s->in, KEEP_BYTES_MAX);
            continue;
        }
        if (rc == 0 && is_in_full(h2)) {
            rc = HW_ERR_NOMEM;
        }
        if (rc < 0) {
            bad_message(s, rc);
        }
    }
    return 0;
}

static void remote_closed(struct hw_h2_stream *s)
{
    s->is_remote_closed = true;
    if (!s->is_in_broken && hw_wire_is_partial(&s->in)) {
        s->is_in_broken = true;
        s->h2->ops->on_bad_message(s, HW_GRPC_INTERNAL, "grpc: the last message is cut off");
    }
}

static void stream_frame(struct hw_h2 *h2, struct hw_h2_stream *s, const nghttp2_frame *frame)
{
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (s->is_malformed) {
        return;
    }
    if (h2->is_server && ((frame->hd.type == NGHTTP2_HEADERS && !hw_header_rules_block(&s->rules, end)) ||
                          (end && !hw_header_rules_end(&s->rules)))) {
        malformed(s);
        return;
    }
    if (frame->hd.type == NGHTTP2_HEADERS) {
        if (end) {
            remote_closed(s);
        }
        h2->ops->on_headers(s, end);
        return;
    }
    if (end) {
        remote_closed(s);
        h2->ops->on_half_close(s);
    }
}

static bool is_costly(const nghttp2_frame *frame)
{
    switch (frame->hd.type) {
    case NGHTTP2_RST_STREAM:
    case NGHTTP2_PRIORITY:
        return true;
    case NGHTTP2_SETTINGS:
    case NGHTTP2_PING:
        return (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0;
    case NGHTTP2_DATA:
        return frame->hd.length == 0 && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0;
    default:
        return false;
    }
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    struct hw_h2 *h2 = ctx;
    if (is_costly(frame) && is_flood(h2)) {
        fail_once(h2, HW_H2_ENHANCE_YOUR_CALM);
        return 0;
    }
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA: {
        struct hw_h2_stream *s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
        if (s != NULL) {
            stream_frame(h2, s, frame);
        }
        break;
    }
    case NGHTTP2_SETTINGS:
        if (!h2->is_up && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
            h2->is_up = true;
            h2->ops->on_up(h2->ctx);
        }
        break;
    case NGHTTP2_GOAWAY:
        h2->has_goaway = true;
        h2->ops->on_goaway(h2->ctx);
        break;
    default:
        break;
    }
    return 0;
}

static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *frame, int lib_error, void *ctx)
{
    struct hw_h2 *h2 = ctx;
    (void)ng;
    (void)frame;
    /* REFUSED_STREAM: more streams than we allow. A peer may not know our SETTINGS yet. */
    if (lib_error != NGHTTP2_ERR_REFUSED_STREAM) {
        count_error(h2);
    }
    return 0;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    struct hw_h2 *h2 = ctx;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        h2->has_goaway = true;
        if (frame->goaway.error_code != HW_H2_NO_ERROR && !h2->is_counted) {
            count_error(h2);
        }
        return 0;
    }
    if (h2->is_server && frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        struct hw_h2_stream *s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
        if (s != NULL && !s->is_remote_closed && !s->is_reset) {
            /* The answer came before the request's end: nothing more is wanted (RFC 9113 section 8.1). */
            s->is_reset = true;
            nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, s->id, HW_H2_NO_ERROR);
        }
    }
    return 0;
}

/* A request that never became a stream, e.g. because a GOAWAY came first. nghttp2 closes only what it has opened. */
static int on_frame_not_send(nghttp2_session *ng, const nghttp2_frame *frame, int lib_error, void *ctx)
{
    struct hw_h2 *h2 = ctx;
    struct hw_h2_stream *s;
    (void)lib_error;
    if (h2->is_server || frame->hd.type != NGHTTP2_HEADERS ||
        nghttp2_session_find_stream(ng, frame->hd.stream_id) != NULL) {
        return 0;
    }
    TAILQ_FOREACH(s, &h2->streams, link) {
        if (s->id == frame->hd.stream_id) {
            detach(s, HW_H2_REFUSED_STREAM);
            break;
        }
    }
    return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *ctx)
{
    struct hw_h2_stream *s = nghttp2_session_get_stream_user_data(ng, id);
    (void)ctx;
    if (s != NULL) {
        nghttp2_session_set_stream_user_data(ng, id, NULL);
        detach(s, code);
    }
    return 0;
}

/* Answers to frames that a peer never reads must not pile up without end. */
static bool is_out_full(struct hw_h2 *h2)
{
    return h2->is_stalled &&
           nghttp2_session_get_outbound_queue_size(h2->ng) > 8 * (size_t)h2->limits.streams_max + CONTROL_BURST;
}

static void on_data(void *ctx, const uint8_t *data, size_t len)
{
    struct hw_h2 *h2 = ctx;
    ssize_t n;
    if (h2->is_failed || h2->is_finishing) {
        return;
    }
    hw_loop_note(h2->loop, "rpc");
    h2->last_read_ms = hw_loop_now_ms(h2->loop);
    n = nghttp2_session_mem_recv(h2->ng, data, len);
    if (h2->is_finishing) {
        return;
    }
    if (n < 0) {
        fail_once(h2, n == NGHTTP2_ERR_FLOODED ? HW_H2_ENHANCE_YOUR_CALM : HW_H2_PROTOCOL_ERROR);
    } else if (is_out_full(h2)) {
        fail_once(h2, HW_H2_ENHANCE_YOUR_CALM);
    }
    hw_h2_post(h2);
}

static void on_stream_drain(void *ctx)
{
    struct hw_h2 *h2 = ctx;
    h2->is_stalled = false;
    hw_h2_post(h2);
}

/* ---- the connection ---- */

static void on_stream_end(void *ctx, int status)
{
    struct hw_h2 *h2 = ctx;
    struct hw_h2_stream *s;
    h2->is_failed = true;
    h2->is_finishing = true;
    hw_defer_cancel(h2->loop, &h2->flush);
    while ((s = TAILQ_FIRST(&h2->streams)) != NULL) {
        nghttp2_session_set_stream_user_data(h2->ng, s->id, NULL);
        detach(s, HW_H2_CONNECTION_LOST);
    }
    h2->ops->on_end(h2->ctx, status);
    nghttp2_session_del(h2->ng);
    hw_buf_free(&h2->out);
    free(h2);
}

static int new_session(struct hw_h2 *h2)
{
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *option = NULL;
    int rc = HW_ERR_NOMEM;
    if (nghttp2_session_callbacks_new(&cb) != 0 || nghttp2_option_new(&option) != 0) {
        goto out;
    }
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(cb, hw_h2_on_send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(cb, hw_h2_on_read_length);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_no_http_messaging(option, h2->is_server); /* header_rules.h says why */
    nghttp2_option_set_stream_reset_rate_limit(option, CONTROL_BURST, CONTROL_PER_SECOND);
    rc = h2->is_server ? nghttp2_session_server_new2(&h2->ng, cb, h2, option)
                       : nghttp2_session_client_new2(&h2->ng, cb, h2, option);
    rc = rc != 0 ? HW_ERR_NOMEM : 0;
out:
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    return rc;
}

static int submit_preface(struct hw_h2 *h2)
{
    nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, FRAME_BYTES_MAX},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)h2->limits.header_bytes_max},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
        {h2->is_server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
         h2->is_server ? h2->limits.streams_max : 0},
    };
    if (nghttp2_submit_settings(h2->ng, NGHTTP2_FLAG_NONE, entries, hw_array_len(entries)) != 0 ||
        nghttp2_session_set_local_window_size(h2->ng, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW_BYTES) != 0) {
        return HW_ERR_NOMEM;
    }
    return 0;
}

int hw_h2_new(bool is_server, struct hw_stream *stream, const struct hw_rpc_limits *limits, const struct hw_h2_ops *ops,
              void *ctx, struct hw_h2 **out)
{
    static const struct hw_stream_ops stream_ops = {on_data, on_stream_end, on_stream_drain};
    struct hw_h2 *h2 = calloc(1, sizeof *h2);
    if (h2 == NULL) {
        return HW_ERR_NOMEM;
    }
    h2->is_server = is_server;
    h2->stream = stream;
    h2->loop = hw_stream_loop(stream);
    h2->limits = *limits;
    h2->ops = ops;
    h2->ctx = ctx;
    h2->last_read_ms = hw_loop_now_ms(h2->loop);
    h2->control_tokens = CONTROL_BURST;
    h2->control_ms = h2->last_read_ms;
    TAILQ_INIT(&h2->streams);
    TAILQ_INIT(&h2->moved);
    hw_defer_init(&h2->flush, hw_h2_on_flush);
    if (new_session(h2) != 0 || submit_preface(h2) != 0) {
        nghttp2_session_del(h2->ng);
        free(h2);
        return HW_ERR_NOMEM;
    }
    hw_stream_own(stream, &stream_ops, h2);
    hw_h2_post(h2);
    *out = h2;
    return 0;
}

const char *hw_h2_peer(const struct hw_h2 *h2)
{
    return hw_stream_peer(h2->stream);
}

unsigned hw_h2_streams_max(const struct hw_h2 *h2)
{
    return nghttp2_session_get_remote_settings(h2->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

uint64_t hw_h2_last_read_ms(const struct hw_h2 *h2)
{
    return h2->last_read_ms;
}

bool hw_h2_is_open(const struct hw_h2 *h2)
{
    return !h2->is_failed && !h2->is_finishing && !h2->has_goaway;
}

void hw_h2_each_stream(struct hw_h2 *h2, void (*fn)(struct hw_h2_stream *s))
{
    struct hw_h2_stream *s;
    TAILQ_FOREACH(s, &h2->streams, link) {
        fn(s);
    }
}

void hw_h2_ping(struct hw_h2 *h2)
{
    hw_h2_check(h2, nghttp2_submit_ping(h2->ng, NGHTTP2_FLAG_NONE, NULL));
}

void hw_h2_shut(struct hw_h2 *h2)
{
    hw_h2_check(h2, nghttp2_submit_goaway(h2->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2->ng),
                                          HW_H2_NO_ERROR, NULL, 0));
}

/* Called while nghttp2 reads, so the GOAWAY waits for the end of the turn. A stalled socket does not hold it back: the
 * stream below has a deadline for its last bytes. */
void hw_h2_fail(struct hw_h2 *h2, enum hw_h2_code code)
{
    h2->is_failed = true;
    h2->has_goaway = true;
    h2->is_stalled = false;
    hw_h2_check(h2, nghttp2_session_terminate_session(h2->ng, code));
}

/* ---- characters, for header_rules.c ---- */

bool hw_h2_is_header_name(struct hw_slice name)
{
    return nghttp2_check_header_name(name.data, name.len) != 0;
}

bool hw_h2_is_header_value(struct hw_slice value)
{
    return nghttp2_check_header_value_rfc9113(value.data, value.len) != 0;
}

bool hw_h2_is_method(struct hw_slice value)
{
    return nghttp2_check_method(value.data, value.len) != 0;
}

bool hw_h2_is_path(struct hw_slice value)
{
    return nghttp2_check_path(value.data, value.len) != 0;
}
