/* Admin/Snapshot and Peer/Image: an image as a stream of SnapshotMessage. First `begin`, then chunks in rising offset,
 * each with its checksum, then `end` with that of the whole file.
 *
 *     wait for the copy -> begin -> (read a chunk on the worker -> send -> wait for room and for the rate) ... -> end
 *
 * A client that comes back with token and offset gets the rest, as long as the copy is there; else a new copy from the
 * start, which it knows by the token in `begin`. What is read ahead is bounded: a chunk is read only while less than
 * WINDOW_CHUNKS chunks wait to be sent.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/api/api_impl.h"
#include "agent/api/protowire.h"
#include "proto/hotwarm.pb-c.h"

#define WINDOW_CHUNKS 4

struct hw_image_stream {
    struct hw_api *api;
    struct hw_call *call; /* NULL: ended */
    struct hw_copy *copy;
    uint64_t offset; /* of the next chunk */
    bool has_begun;
    bool is_reading;
    uint64_t due_us; /* by the rate limit: not before */
    struct hw_timer *timer;
    struct hw_defer defer;
    struct hw_job job;
    TAILQ_ENTRY(hw_image_stream) link;
    /* the worker's */
    int fd;
    size_t chunk_len;
    struct hw_buf message;
    struct hw_error e;
};

/* Field numbers of SnapshotMessage and SnapshotChunk, proto/hotwarm.proto. */
enum { PART_CHUNK = 2, CHUNK_OFFSET = 1, CHUNK_DATA = 2, CHUNK_CHECKSUM = 3 };

static void stream_free(struct hw_image_stream *s)
{
    struct hw_api *api = s->api;
    TAILQ_REMOVE(&api->images.streams, s, link);
    api->images.stream_count--;
    hw_defer_cancel(api->loop, &s->defer);
    hw_timer_free(s->timer);
    hw_buf_free(&s->message);
    hw_copy_release(s->copy);
    free(s);
    hw_api_unref(api);
}

static void stream_end(struct hw_image_stream *s, enum hw_grpc status, const char *text)
{
    struct hw_call *call = s->call;
    s->call = NULL;
    hw_call_end(call, status, text);
    if (!s->is_reading) {
        stream_free(s);
    }
}

/* ---- the worker: one chunk, as it goes on the wire, read to its place ---- */

static void read_work(struct hw_job *job)
{
    struct hw_image_stream *s = hw_container_of(job, struct hw_image_stream, job);
    size_t len = s->chunk_len;
    size_t chunk = hw_pb_uint_size(s->offset) + hw_pb_bytes_size(len) + 9;
    size_t done = 0;
    uint8_t *data;
    hw_buf_clear(&s->message);
    if (hw_buf_reserve(&s->message, hw_pb_message_size(chunk)) != 0) {
        hw_error_set(&s->e, HW_ERR_NOMEM, "no memory for a chunk of %zu bytes", len);
        return;
    }
    hw_pb_begin_message(&s->message, PART_CHUNK, chunk);
    hw_pb_put_uint(&s->message, CHUNK_OFFSET, s->offset);
    hw_pb_begin_message(&s->message, CHUNK_DATA, len);
    data = s->message.data + s->message.len;
    while (done < len) {
        ssize_t n = pread(s->fd, data + done, len - done, (off_t)(s->offset + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            hw_error_errno(&s->e, n < 0 ? errno : EIO, "read the copy of the image at offset %" PRIu64,
                           s->offset + (uint64_t)done);
            return;
        }
        done += (size_t)n;
    }
    s->message.len += len;
    hw_buf_put_u8(&s->message, hw_pb_tag(CHUNK_CHECKSUM, HW_PB_FIXED64));
    hw_buf_put_u64(&s->message, XXH3_64bits(data, len));
}

/* ---- the loop ---- */

static int send_message(struct hw_image_stream *s, const Hotwarm__V1__SnapshotMessage *m)
{
    struct hw_buf out;
    int rc;
    hw_buf_init(&out);
    rc = hw_pack(&m->base, &out);
    if (rc == 0) {
        rc = hw_call_send(s->call, hw_buf_slice(&out));
    }
    hw_buf_free(&out);
    return rc;
}

static int send_begin(struct hw_image_stream *s)
{
    Hotwarm__V1__SnapshotMessage m = HOTWARM__V1__SNAPSHOT_MESSAGE__INIT;
    Hotwarm__V1__SnapshotBegin begin = HOTWARM__V1__SNAPSHOT_BEGIN__INIT;
    const struct hw_copy *c = s->copy;
    begin.token = c->token;
    begin.size = c->size;
    begin.index = c->meta.counters.applied;
    begin.revision = c->meta.counters.revision;
    begin.cluster_id = c->meta.cluster_id;
    begin.rows_hash = c->meta.rows_hash;
    m.part_case = HOTWARM__V1__SNAPSHOT_MESSAGE__PART_BEGIN;
    m.begin = &begin;
    return send_message(s, &m);
}

static int send_end(struct hw_image_stream *s)
{
    Hotwarm__V1__SnapshotMessage m = HOTWARM__V1__SNAPSHOT_MESSAGE__INIT;
    Hotwarm__V1__SnapshotEnd end = HOTWARM__V1__SNAPSHOT_END__INIT;
    end.checksum = s->copy->checksum;
    m.part_case = HOTWARM__V1__SNAPSHOT_MESSAGE__PART_END;
    m.end = &end;
    return send_message(s, &m);
}

static void read_done(struct hw_job *job);

/* When to go on by the rate limit; 0: now. */
static uint64_t rate_wait_ms(const struct hw_image_stream *s)
{
    uint64_t now_us = hw_loop_now_ms(s->api->loop) * 1000;
    return s->due_us <= now_us ? 0 : (s->due_us - now_us + 999) / 1000;
}

static void rate_charge(struct hw_image_stream *s, size_t bytes)
{
    uint64_t rate_mb = s->api->config.transfer_rate_mb;
    uint64_t now_us = hw_loop_now_ms(s->api->loop) * 1000;
    if (rate_mb > 0) {
        s->due_us = (s->due_us > now_us ? s->due_us : now_us) + bytes / rate_mb; /* 1 MB/s is a byte a microsecond */
    }
}

static void stream_read(struct hw_image_stream *s)
{
    uint64_t left = s->copy->size - s->offset;
    uint64_t chunk = s->api->config.transfer_chunk_bytes;
    s->chunk_len = (size_t)(left < chunk ? left : chunk);
    s->fd = s->copy->fd;
    s->job.work = read_work;
    s->job.done = read_done;
    if (hw_pool_submit(hw_replica_pool(s->api->replica), &s->job) != 0) {
        hw_timer_start(s->timer, HW_API_TICK_MS, 0); /* its queue is full: in a moment */
        return;
    }
    s->is_reading = true;
}

static void stream_step(struct hw_image_stream *s)
{
    struct hw_copy *c = s->copy;
    int rc = 0;
    if (s->is_reading || c->state == HW_COPY_WAITING || c->state == HW_COPY_COPYING) {
        return; /* comes back when that is done */
    }
    if (c->state == HW_COPY_FAILED) {
        stream_end(s, hw_grpc_of_err(c->e.code), hw_error_text(&c->e));
        return;
    }
    if (!s->has_begun) {
        s->has_begun = true;
        s->offset = s->offset <= c->size ? s->offset : c->size;
        rc = send_begin(s);
    }
    if (rc == 0 && s->offset == c->size) {
        rc = send_end(s);
        if (rc == 0) {
            stream_end(s, HW_GRPC_OK, NULL);
            return;
        }
    }
    if (rc != 0) {
        stream_end(s, hw_grpc_of_err(rc), hw_err_text(rc));
        return;
    }
    if (hw_call_queued(s->call) >= WINDOW_CHUNKS * s->api->config.transfer_chunk_bytes) {
        return; /* on_drain */
    }
    if (rate_wait_ms(s) > 0) {
        hw_timer_start(s->timer, rate_wait_ms(s), 0);
        return;
    }
    stream_read(s);
}

static void read_done(struct hw_job *job)
{
    struct hw_image_stream *s = hw_container_of(job, struct hw_image_stream, job);
    int rc;
    s->is_reading = false;
    if (s->call == NULL) {
        stream_free(s);
        return;
    }
    if (s->e.code != 0 || s->message.failed) {
        stream_end(s, HW_GRPC_DATA_LOSS, hw_error_text(&s->e));
        return;
    }
    rc = hw_call_send(s->call, hw_buf_slice(&s->message));
    if (rc != 0) {
        stream_end(s, hw_grpc_of_err(rc), hw_err_text(rc));
        return;
    }
    s->offset += s->chunk_len;
    rate_charge(s, s->chunk_len);
    stream_step(s);
}

static void on_timer(void *ctx)
{
    stream_step(ctx);
}

static void on_defer(struct hw_defer *d)
{
    struct hw_image_stream *s = hw_container_of(d, struct hw_image_stream, defer);
    if (s->call != NULL) {
        stream_step(s);
    }
}

/* Not from within the call: what comes next may end it. */
static void on_drain(void *data, struct hw_call *call)
{
    struct hw_image_stream *s = data;
    (void)call;
    hw_defer_post(s->api->loop, &s->defer);
}

static void on_cancel(void *data, struct hw_call *call)
{
    (void)call;
    stream_end(data, HW_GRPC_CANCELLED, NULL);
}

static struct hw_copy *take_copy(struct hw_api *api, const Hotwarm__V1__SnapshotRequest *m, uint64_t *offset,
                                 struct hw_error *e)
{
    struct hw_copy *c = m->token == 0 ? NULL : hw_copy_find(api, m->token);
    if (c != NULL && c->meta.counters.applied < m->min_index) {
        hw_copy_release(c); /* more is needed by now than when that transfer began */
        c = NULL;
    }
    *offset = c == NULL ? 0 : m->offset;
    if (c == NULL && hw_copy_take(api, m->min_index, &c, e) != 0) {
        return NULL;
    }
    return c;
}

void hw_image_stream_serve(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct hw_api *api = ctx;
    Hotwarm__V1__SnapshotRequest *m;
    struct hw_image_stream *s;
    struct hw_error e = {0};
    struct hw_copy *copy;
    uint64_t offset;
    if (!hw_api_has_state(api) || api->is_stopping) {
        hw_call_end(call, HW_GRPC_UNAVAILABLE, "this node has no image to send now");
        return;
    }
    if (api->images.stream_count >= HW_IMAGE_STREAMS_MAX) {
        hw_call_end(call, HW_GRPC_RESOURCE_EXHAUSTED, "this node is sending its image to too many others");
        return;
    }
    m = hotwarm__v1__snapshot_request__unpack(NULL, message.len, message.data);
    if (m == NULL) {
        hw_call_end(call, hw_refusal_status(HW_REFUSE_MALFORMED), hw_refusal_text(HW_REFUSE_MALFORMED));
        return;
    }
    copy = take_copy(api, m, &offset, &e);
    hotwarm__v1__snapshot_request__free_unpacked(m, NULL);
    if (copy == NULL) {
        hw_call_end(call, hw_grpc_of_err(e.code), hw_error_text(&e));
        return;
    }
    s = calloc(1, sizeof *s);
    if (s == NULL) {
        hw_copy_release(copy);
        hw_call_end(call, hw_refusal_status(HW_REFUSE_NO_MEMORY), hw_refusal_text(HW_REFUSE_NO_MEMORY));
        return;
    }
    s->api = api;
    s->call = call;
    s->copy = copy;
    s->offset = offset;
    s->timer = hw_timer_new(api->loop, "image stream", on_timer, s);
    hw_defer_init(&s->defer, on_defer);
    TAILQ_INSERT_TAIL(&api->images.streams, s, link);
    api->images.stream_count++;
    hw_api_ref(api);
    hw_call_set_data(call, s);
    hw_call_on_cancel(call, on_cancel);
    hw_call_on_drain(call, on_drain);
    stream_step(s);
}

void hw_image_streams_poke(struct hw_api *api, struct hw_copy *copy)
{
    struct hw_image_stream *s;
    struct hw_image_stream *next;
    for (s = TAILQ_FIRST(&api->images.streams); s != NULL; s = next) {
        next = TAILQ_NEXT(s, link);
        if (s->copy == copy && s->call != NULL) {
            stream_step(s);
        }
    }
}

void hw_image_streams_close(struct hw_api *api)
{
    struct hw_image_stream *s;
    struct hw_image_stream *next;
    for (s = TAILQ_FIRST(&api->images.streams); s != NULL; s = next) {
        next = TAILQ_NEXT(s, link);
        if (s->call != NULL) {
            stream_end(s, HW_GRPC_UNAVAILABLE,
                       "this node is stopping: go on with the same token later, or ask another node");
        }
    }
}
