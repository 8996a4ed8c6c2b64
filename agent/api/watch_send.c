/* What watch streams tell their clients. Events are encoded once for all watches that get the same batch; a watch adds
 * its id. */
#include "agent/api/watch.h"

#include "agent/api/api_impl.h"
#include "agent/api/protowire.h"

/* Fields of WatchResponse and of Event: proto/etcd.proto, proto/mvcc.proto. */
enum { WATCH_ID = 2, CREATED = 3, CANCELED = 4, COMPACT_REVISION = 5, CANCEL_REASON = 6, FRAGMENT = 7, EVENTS = 11 };
enum { EVENT_TYPE = 1, EVENT_KV = 2, EVENT_PREV_KV = 3 };
enum { EVENT_PUT = 0, EVENT_DELETE = 1 };

/* etcdctl's and every other client's id of an answer that is about the whole stream. */
#define STREAM_ID (-1)
/* How much more than events may wait: answers to a client that asks and asks and does not read. */
#define CONTROL_BYTES_MAX ((size_t)1024 * 1024)
/* Buffers above this size are not kept for the next batch. */
#define KEEP_BYTES_MAX ((size_t)4 * 1024 * 1024)

static struct hw_header header_of(struct hw_api *api, hw_rev revision)
{
    return (struct hw_header){.cluster_id = api->cluster_id,
                              .member_id = api->config.node_id,
                              .revision = revision,
                              .raft_term = hw_replica_term(api->replica)};
}

/* ---- answers and news ---- */

void hw_watch_tell(struct hw_watch_stream *s, const struct hw_watch_news *news)
{
    struct hw_api *api = s->api;
    struct hw_buf *out = &api->watches.out;
    struct hw_header header = header_of(api, hw_hot_revision(hw_replica_hot(api->replica)));
    int rc;
    if (s->is_ending) {
        return;
    }
    hw_buf_clear(out);
    hw_encode_header(out, &header);
    hw_pb_put_uint(out, WATCH_ID, (uint64_t)news->id);
    hw_pb_put_uint(out, CREATED, news->is_created);
    hw_pb_put_uint(out, CANCELED, news->is_canceled);
    hw_pb_put_uint(out, COMPACT_REVISION, (uint64_t)news->compact_revision);
    if (news->reason != NULL) {
        hw_pb_put_bytes(out, CANCEL_REASON, hw_slice_str(news->reason));
    }
    rc = out->failed ? HW_ERR_NOMEM : hw_call_send(s->call, hw_buf_slice(out));
    out->failed = false;
    if (rc == HW_ERR_CANCELLED) {
        return; /* the client has gone: on_cancel has run */
    }
    if (rc != 0 || hw_call_queued(s->call) > api->config.watch_queue_bytes_max + CONTROL_BYTES_MAX) {
        hw_watch_stream_end(s, HW_GRPC_RESOURCE_EXHAUSTED,
                            "etcdserver: the client does not read the answers of this stream");
    }
}

static void told(struct hw_watch *w)
{
    struct hw_api *api = w->stream->api;
    if (w->is_notified) {
        w->told_ms = hw_loop_now_ms(api->loop);
        TAILQ_REMOVE(&api->watches.notify, w, notify_link);
        TAILQ_INSERT_TAIL(&api->watches.notify, w, notify_link);
    }
}

void hw_watch_try_progress(struct hw_watch_stream *s)
{
    struct hw_watch *w;
    if (!s->is_progress_asked || s->is_ending) {
        return;
    }
    for (w = s->watches; w != NULL; w = w->hh.next) {
        if (hw_watcher_progress(w->watcher) == 0) {
            return;
        }
    }
    s->is_progress_asked = false;
    hw_watch_tell(s, &(struct hw_watch_news){.id = STREAM_ID});
}

/* ---- back-pressure ---- */

void hw_watch_not_full(struct hw_watch_stream *s)
{
    if (s->is_full) {
        s->is_full = false;
        TAILQ_REMOVE(&s->api->watches.full, s, full_link);
        hw_call_on_drain(s->call, NULL);
    }
}

static bool refuse(struct hw_watch *w)
{
    struct hw_watch_stream *s = w->stream;
    if (!w->is_full) {
        w->is_full = true;
        TAILQ_INSERT_TAIL(&s->full, w, full_link);
    }
    if (!s->is_full) {
        s->is_full = true;
        TAILQ_INSERT_TAIL(&s->api->watches.full, s, full_link);
        hw_call_on_drain(s->call, hw_watch_on_drain);
    }
    return false;
}

void hw_watch_try_resume(struct hw_watch_stream *s)
{
    struct hw_watch *w;
    if (hw_call_queued(s->call) >= s->api->config.watch_queue_bytes_max) {
        return;
    }
    while ((w = TAILQ_FIRST(&s->full)) != NULL) {
        TAILQ_REMOVE(&s->full, w, full_link);
        w->is_full = false;
        hw_watcher_ready(w->watcher);
    }
    hw_watch_not_full(s);
}

void hw_watch_on_drain(void *stream, struct hw_call *call)
{
    (void)call;
    hw_watch_try_resume(stream);
}

/* ---- events ---- */

static size_t event_size(const struct hw_version *v, const struct hw_version *previous)
{
    size_t size =
        hw_pb_uint_size(v->is_tombstone ? EVENT_DELETE : EVENT_PUT) + hw_pb_message_size(hw_encode_kv_size(v));
    return previous == NULL ? size : size + hw_pb_message_size(hw_encode_kv_size(previous));
}

static void put_event(struct hw_buf *out, const struct hw_version *v, const struct hw_version *previous)
{
    hw_pb_begin_message(out, EVENTS, event_size(v, previous));
    hw_pb_put_uint(out, EVENT_TYPE, v->is_tombstone ? EVENT_DELETE : EVENT_PUT);
    hw_encode_kv(out, EVENT_KV, v);
    if (previous != NULL) {
        hw_encode_kv(out, EVENT_PREV_KV, previous);
    }
}

static const struct hw_version *previous_of(const struct hw_watch_batch *batch, size_t i)
{
    return batch->previous == NULL ? NULL : batch->previous[i];
}

static void give_back(struct hw_buf *b)
{
    if (b->cap > KEEP_BYTES_MAX || b->failed) {
        hw_buf_free(b);
    }
}

/* Into watches.header and watches.events, unless it is there from the watch before. */
static bool encode(struct hw_api *api, const struct hw_watch_batch *batch)
{
    struct hw_watches *all = &api->watches;
    struct hw_header header;
    if (all->batch_id == batch->id && all->has_previous == (batch->previous != NULL)) {
        return true;
    }
    header = header_of(api, batch->revision);
    all->batch_id = 0;
    give_back(&all->events);
    hw_buf_clear(&all->header);
    hw_buf_clear(&all->events);
    hw_encode_header(&all->header, &header);
    for (size_t i = 0; i < batch->count && !all->events.failed; i++) {
        put_event(&all->events, batch->versions[i], previous_of(batch, i));
    }
    if (all->header.failed || all->events.failed) {
        hw_buf_free(&all->header);
        hw_buf_free(&all->events);
        return false;
    }
    all->batch_id = batch->id;
    all->has_previous = batch->previous != NULL;
    return true;
}

static int send_part(struct hw_watch *w, struct hw_slice events, bool is_fragment)
{
    struct hw_watches *all = &w->stream->api->watches;
    struct hw_buf *out = &all->out;
    int rc;
    hw_buf_clear(out);
    hw_buf_append(out, all->header.data, all->header.len);
    hw_pb_put_uint(out, WATCH_ID, (uint64_t)w->id);
    hw_pb_put_uint(out, FRAGMENT, is_fragment);
    hw_buf_append(out, events.data, events.len);
    rc = out->failed ? HW_ERR_NOMEM : hw_call_send(w->stream->call, hw_buf_slice(out));
    give_back(out);
    return rc;
}

/* In parts below the limit of a message, where the client can put them together again. The first part decides whether
 * there is room: a half-sent batch could not be sent again. */
static int send_fragments(struct hw_watch *w, const struct hw_watch_batch *batch)
{
    struct hw_api *api = w->stream->api;
    struct hw_slice all = hw_buf_slice(&api->watches.events);
    size_t limit = api->config.request_bytes_max;
    size_t start = 0;
    size_t end = 0;
    for (size_t i = 0; i < batch->count; i++) {
        size_t size = hw_pb_message_size(event_size(batch->versions[i], previous_of(batch, i)));
        if (end > start && end - start + size > limit) {
            int rc = send_part(w, hw_slice_of(all.data + start, end - start), true);
            if (rc != 0) {
                if (start > 0 && rc != HW_ERR_CANCELLED) {
                    hw_watch_stream_end(w->stream, HW_GRPC_RESOURCE_EXHAUSTED,
                                        "etcdserver: no room to send the events");
                    return 0;
                }
                return rc;
            }
            start = end;
        }
        end += size;
    }
    hw_assert(end == all.len);
    return send_part(w, hw_slice_of(all.data + start, end - start), batch->is_partial);
}

static bool on_batch(void *ctx, const struct hw_watch_batch *batch)
{
    struct hw_watch *w = ctx;
    struct hw_watch_stream *s = w->stream;
    struct hw_api *api = s->api;
    int rc;
    if (s->is_ending) {
        return true;
    }
    if (hw_call_queued(s->call) >= api->config.watch_queue_bytes_max || !encode(api, batch)) {
        return refuse(w);
    }
    if (w->is_fragmented) {
        rc = send_fragments(w, batch);
    } else {
        rc = send_part(w, hw_buf_slice(&api->watches.events), false);
    }
    if (rc != 0 && rc != HW_ERR_CANCELLED) {
        return refuse(w);
    }
    told(w);
    return true;
}

static void on_end(void *ctx, hw_rev compacted, const char *reason)
{
    struct hw_watch *w = ctx;
    struct hw_watch_stream *s = w->stream;
    struct hw_watch_news news = {.id = w->id, .is_canceled = true, .compact_revision = compacted, .reason = reason};
    if (compacted > 0) {
        news.reason = hw_refusal_text(HW_REFUSE_COMPACTED);
    }
    hw_watch_tell(s, &news);
    hw_watch_drop(w);
}

const struct hw_watcher_ops hw_watch_watcher_ops = {.on_batch = on_batch, .on_end = on_end};
