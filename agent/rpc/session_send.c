#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/rpc/session.h"

/* A part of the send buffer that is given away instead of copied. */
#define GIVE_BYTES_MIN (64u * 1024u)
/* For the last bytes of a connection. */
#define FINISH_DEADLINE_MS 1000

#define NV(name, value)                                                             \
    {                                                                               \
        (uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, \
            NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE            \
    }

static const nghttp2_nv nv_status_200 = NV(":status", "200");
static const nghttp2_nv nv_content_type = NV("content-type", "application/grpc");
static const nghttp2_nv nv_grpc_status[HW_WIRE_STATUS_COUNT] = {
    NV("grpc-status", "0"),  NV("grpc-status", "1"),  NV("grpc-status", "2"),  NV("grpc-status", "3"),
    NV("grpc-status", "4"),  NV("grpc-status", "5"),  NV("grpc-status", "6"),  NV("grpc-status", "7"),
    NV("grpc-status", "8"),  NV("grpc-status", "9"),  NV("grpc-status", "10"), NV("grpc-status", "11"),
    NV("grpc-status", "12"), NV("grpc-status", "13"), NV("grpc-status", "14"), NV("grpc-status", "15"),
    NV("grpc-status", "16"),
};

/* ---- stream buffers ---- */

void hw_h2_stream_init(struct hw_h2_stream *s, size_t *account)
{
    memset(s, 0, sizeof *s);
    s->account = account;
}

static void drop_queue(struct hw_h2_stream *s)
{
    size_t queued = hw_h2_queued(s);
    if (queued > 0) {
        *s->account -= queued; /* of a spare stream it dangles, but that has nothing queued */
    }
    hw_buf_clear(&s->out);
    s->out_pos = 0;
}

static void keep_or_free(struct hw_buf *b)
{
    if (b->cap > KEEP_BYTES_MAX) {
        hw_buf_free(b);
    }
    hw_buf_clear(b);
}

void hw_h2_stream_reset(struct hw_h2_stream *s, size_t *account)
{
    struct hw_wire_in in;
    struct hw_buf out;
    struct hw_buf text;
    hw_assert(s->h2 == NULL);
    drop_queue(s);
    hw_wire_reset(&s->in, KEEP_BYTES_MAX);
    keep_or_free(&s->out);
    keep_or_free(&s->text);
    in = s->in;
    out = s->out;
    text = s->text;
    hw_h2_stream_init(s, account);
    s->in = in;
    s->out = out;
    s->text = text;
}

void hw_h2_stream_free(struct hw_h2_stream *s)
{
    hw_assert(s->h2 == NULL);
    drop_queue(s);
    hw_wire_reset(&s->in, 0);
    hw_buf_free(&s->out);
    hw_buf_free(&s->text);
}

size_t hw_h2_queued(const struct hw_h2_stream *s)
{
    return s->out.len - s->out_pos;
}

void hw_h2_attach(struct hw_h2 *h2, struct hw_h2_stream *s, int32_t id)
{
    s->h2 = h2;
    s->id = id;
    TAILQ_INSERT_TAIL(&h2->streams, s, link);
    h2->stream_count++;
}

void hw_h2_forget_moved(struct hw_h2 *h2, struct hw_h2_stream *s)
{
    if (s->has_moved) {
        s->has_moved = false;
        TAILQ_REMOVE(&h2->moved, s, drain_link);
    }
}

/* ---- sending ---- */

static ssize_t on_read_source(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t len, uint32_t *flags,
                              nghttp2_data_source *source, void *ctx)
{
    struct hw_h2_stream *s = source->ptr;
    size_t queued = hw_h2_queued(s);
    size_t n = queued < len ? queued : len;
    (void)buf;
    (void)ctx;
    if (queued == 0 && !s->is_done) {
        s->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == queued && s->is_done) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->h2->is_server) {
            nghttp2_nv nv[2] = {nv_grpc_status[s->status],
                                {(uint8_t *)"grpc-message", s->text.data, sizeof "grpc-message" - 1, s->text.len,
                                 NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX}};
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (nghttp2_submit_trailer(ng, id, nv, s->text.len > 0 ? 2 : 1) != 0) {
                return NGHTTP2_ERR_CALLBACK_FAILURE;
            }
        }
    }
    return (ssize_t)n;
}

int hw_h2_on_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *header, size_t len,
                       nghttp2_data_source *source, void *ctx)
{
    struct hw_h2 *h2 = ctx;
    struct hw_h2_stream *s = source->ptr;
    (void)ng;
    (void)frame;
    if (hw_buf_reserve(&h2->out, 9 + len) != 0) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    hw_buf_append(&h2->out, header, 9);
    if (len > 0) {
        hw_buf_append(&h2->out, s->out.data + s->out_pos, len);
        s->out_pos += len;
        *s->account -= len;
    }
    if (s->out_pos == s->out.len) {
        s->out_pos = 0;
        keep_or_free(&s->out);
    }
    if (s->wants_drain && !s->has_moved) {
        s->has_moved = true;
        TAILQ_INSERT_TAIL(&h2->moved, s, drain_link);
    }
    if (h2->out.len >= HW_STREAM_HIGH) {
        h2->is_paused = true;
        return NGHTTP2_ERR_PAUSE;
    }
    return 0;
}

ssize_t hw_h2_on_read_length(nghttp2_session *ng, uint8_t type, int32_t id, int32_t connection_window,
                             int32_t stream_window, uint32_t remote_frame_bytes_max, void *ctx)
{
    ssize_t n = FRAME_BYTES_MAX;
    (void)ng;
    (void)type;
    (void)id;
    (void)ctx;
    n = n < connection_window ? n : connection_window;
    n = n < stream_window ? n : stream_window;
    return n < (ssize_t)remote_frame_bytes_max ? n : (ssize_t)remote_frame_bytes_max;
}

static int write_out(struct hw_h2 *h2)
{
    int rc;
    if (h2->out.len == 0) {
        return 0;
    }
    h2->out_reserve_bytes = h2->out.len;
    if (h2->out.len >= GIVE_BYTES_MIN) {
        rc = hw_stream_write_buf(h2->stream, &h2->out);
        if (rc == 0) {
            hw_buf_init(&h2->out);
        }
    } else {
        rc = hw_stream_write(h2->stream, h2->out.data, h2->out.len);
        hw_buf_clear(&h2->out);
        if (h2->out.cap > GIVE_BYTES_MIN) {
            hw_buf_free(&h2->out); /* an idle connection must not keep what a busy moment needed */
        }
    }
    h2->is_stalled = hw_stream_queued(h2->stream) > HW_STREAM_HIGH;
    return rc;
}

static int make_frames(struct hw_h2 *h2)
{
    if (h2->out.cap == 0 && hw_buf_reserve(&h2->out, h2->out_reserve_bytes) != 0) {
        return HW_ERR_NOMEM;
    }
    while (!h2->is_stalled) {
        const uint8_t *data;
        ssize_t n;
        h2->is_paused = false;
        n = nghttp2_session_mem_send(h2->ng, &data);
        if (n < 0 || hw_buf_append(&h2->out, data, (size_t)n) != 0) {
            return HW_ERR_NOMEM;
        }
        if (n == 0 || h2->out.len >= HW_STREAM_HIGH) {
            int rc = write_out(h2);
            if (rc != 0 || (n == 0 && !h2->is_paused)) {
                return rc;
            }
        }
    }
    return 0;
}

static void tell_moved(struct hw_h2 *h2)
{
    struct hw_h2_stream *s;
    while ((s = TAILQ_FIRST(&h2->moved)) != NULL) {
        hw_h2_forget_moved(h2, s);
        if (s->wants_drain && hw_h2_queued(s) <= HW_STREAM_LOW) {
            h2->ops->on_drain(s);
        }
    }
}

void hw_h2_on_flush(struct hw_defer *d)
{
    struct hw_h2 *h2 = hw_container_of(d, struct hw_h2, flush);
    if (make_frames(h2) != 0) {
        hw_h2_close(h2);
        return;
    }
    tell_moved(h2);
    if (!h2->has_goaway || h2->is_finishing) {
        return;
    }
    if (h2->is_failed || (nghttp2_session_want_read(h2->ng) == 0 && nghttp2_session_want_write(h2->ng) == 0)) {
        h2->is_finishing = true;
        hw_stream_finish(h2->stream, FINISH_DEADLINE_MS);
    }
}

static void resume(struct hw_h2_stream *s)
{
    if (s->is_deferred) {
        s->is_deferred = false;
        hw_h2_check(s->h2, nghttp2_session_resume_data(s->h2->ng, s->id));
        return;
    }
    hw_h2_post(s->h2);
}

static void respond(struct hw_h2_stream *s)
{
    const nghttp2_nv nv[2] = {nv_status_200, nv_content_type};
    nghttp2_data_provider provider = {.source.ptr = s, .read_callback = on_read_source};
    s->is_responded = true;
    hw_h2_check(s->h2, nghttp2_submit_response(s->h2->ng, s->id, nv, 2, &provider));
}

int hw_h2_send(struct hw_h2_stream *s, struct hw_slice message)
{
    uint8_t prefix[HW_WIRE_PREFIX_BYTES];
    if (message.len > UINT32_MAX) {
        return HW_ERR_TOOBIG;
    }
    if (s->out_pos > s->out.len / 2) {
        hw_buf_consume(&s->out, s->out_pos);
        s->out_pos = 0;
    }
    if (hw_buf_reserve(&s->out, message.len + sizeof prefix) != 0) {
        s->out.failed = false;
        return HW_ERR_NOMEM;
    }
    hw_wire_prefix(prefix, message.len);
    hw_buf_append(&s->out, prefix, sizeof prefix);
    hw_buf_append(&s->out, message.data, message.len);
    *s->account += message.len + sizeof prefix;
    if (s->h2 != NULL) {
        if (s->h2->is_server && !s->is_responded) {
            respond(s);
        }
        resume(s);
    }
    return 0;
}

void hw_h2_half_close(struct hw_h2_stream *s)
{
    s->is_done = true;
    if (s->h2 != NULL) {
        resume(s);
    }
}

void hw_h2_finish(struct hw_h2_stream *s, enum hw_grpc status, const char *text)
{
    s->status = (unsigned)status < HW_WIRE_STATUS_COUNT ? status : HW_GRPC_UNKNOWN;
    if (text != NULL && text[0] != '\0') {
        hw_wire_text_encode(text, &s->text);
    }
    s->is_done = true;
    if (s->h2 == NULL || s->is_reset) {
        return;
    }
    if (!s->is_responded) {
        nghttp2_nv nv[4] = {nv_status_200,
                            nv_content_type,
                            nv_grpc_status[s->status],
                            {(uint8_t *)"grpc-message", s->text.data, sizeof "grpc-message" - 1, s->text.len,
                             NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX}};
        s->is_responded = true;
        hw_h2_check(s->h2, nghttp2_submit_response(s->h2->ng, s->id, nv, s->text.len > 0 ? 4 : 3, NULL));
        return;
    }
    resume(s);
}

void hw_h2_reject(struct hw_h2_stream *s, unsigned http_status)
{
    char status[8];
    nghttp2_nv nv = {(uint8_t *)":status", (uint8_t *)status, 7, 3, NGHTTP2_NV_FLAG_NO_COPY_NAME};
    hw_assert(!s->is_responded && http_status >= 100 && http_status < 1000);
    snprintf(status, sizeof status, "%u", http_status);
    s->is_responded = true;
    s->is_done = true;
    s->is_in_broken = true;
    hw_h2_check(s->h2, nghttp2_submit_response(s->h2->ng, s->id, &nv, 1, NULL));
}

void hw_h2_reset(struct hw_h2_stream *s, enum hw_h2_code code)
{
    drop_queue(s);
    s->is_done = true;
    s->is_in_broken = true;
    if (s->h2 != NULL && !s->is_reset) {
        s->is_reset = true;
        hw_h2_check(s->h2, nghttp2_submit_rst_stream(s->h2->ng, NGHTTP2_FLAG_NONE, s->id, code));
    }
}

#define REQUEST_HEADERS_MAX 32

int hw_h2_request(struct hw_h2 *h2, struct hw_h2_stream *s, const char *const (*pairs)[2], size_t count)
{
    nghttp2_nv nv[REQUEST_HEADERS_MAX];
    nghttp2_data_provider provider = {.source.ptr = s, .read_callback = on_read_source};
    int32_t id;
    hw_assert(count <= REQUEST_HEADERS_MAX && s->h2 == NULL);
    for (size_t i = 0; i < count; i++) {
        nv[i] = (nghttp2_nv){(uint8_t *)pairs[i][0], (uint8_t *)pairs[i][1], strlen(pairs[i][0]), strlen(pairs[i][1]),
                             NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
        /* A deadline differs from call to call: it would only push useful entries out of the table. */
        if (strcmp(pairs[i][0], "grpc-timeout") == 0) {
            nv[i].flags |= NGHTTP2_NV_FLAG_NO_INDEX;
        }
    }
    id = nghttp2_submit_request(h2->ng, NULL, nv, count, &provider, s);
    if (id < 0) {
        return id == NGHTTP2_ERR_NOMEM ? HW_ERR_NOMEM : HW_ERR_UNAVAILABLE;
    }
    hw_h2_attach(h2, s, id);
    hw_h2_post(h2);
    return 0;
}

bool hw_h2_is_header_valid(const char *name, const char *value)
{
    return name[0] != ':' && nghttp2_check_header_name((const uint8_t *)name, strlen(name)) != 0 &&
           nghttp2_check_header_value((const uint8_t *)value, strlen(value)) != 0;
}
