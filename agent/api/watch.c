/* Watch streams: what clients ask, and how streams end. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(watch) ((watch)->stream = NULL)

#include "agent/api/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "proto/etcd.pb-c.h"

#define QUEUE_BYTES_DEFAULT ((size_t)4 * 1024 * 1024)
#define PROGRESS_MS_DEFAULT 600000
/* A request becomes larger by being unpacked. */
#define UNPACKED_FACTOR 8
/* How long a stream that wants a hot node stays without one: longer than an election takes. */
#define HOTLESS_MS_MAX 3000
/* etcd's clients.WithRequireLeader */
#define WANTS_HOT_HEADER "hasleader"
#define INVALID_ID (-1)

static const uint8_t first_key[1] = {0};

/* ---- ends ---- */

void hw_watch_drop(struct hw_watch *w)
{
    struct hw_watch_stream *s = w->stream;
    if (w->is_full) {
        TAILQ_REMOVE(&s->full, w, full_link);
    }
    if (w->is_notified) {
        TAILQ_REMOVE(&s->api->watches.notify, w, notify_link);
    }
    HASH_DEL(s->watches, w);
    hw_watcher_free(w->watcher);
    free(w);
}

static void stream_free(struct hw_watch_stream *s, enum hw_grpc status, const char *text)
{
    struct hw_call *call = s->call;
    struct hw_api *api = s->api;
    while (s->watches != NULL) {
        hw_watch_drop(s->watches);
    }
    hw_watch_not_full(s);
    TAILQ_REMOVE(&api->watches.streams, s, link);
    hw_defer_cancel(api->loop, &s->end);
    hw_call_on_cancel(call, NULL);
    free(s);
    hw_call_end(call, status, text);
}

static void on_end(struct hw_defer *d)
{
    struct hw_watch_stream *s = hw_container_of(d, struct hw_watch_stream, end);
    stream_free(s, s->end_status, s->end_text);
}

void hw_watch_stream_end(struct hw_watch_stream *s, enum hw_grpc status, const char *text)
{
    if (!s->is_ending) {
        s->is_ending = true;
        s->end_status = status;
        s->end_text = text;
        hw_defer_post(s->api->loop, &s->end);
    }
}

/* May come out of a send of ours, within a watcher's callback. */
static void on_cancel(void *data, struct hw_call *call)
{
    (void)call;
    hw_watch_stream_end(data, HW_GRPC_CANCELLED, NULL);
}

void hw_watches_end(struct hw_api *api)
{
    struct hw_watch_stream *s;
    while ((s = TAILQ_FIRST(&api->watches.streams)) != NULL) {
        stream_free(s, hw_refusal_status(HW_REFUSE_STOPPED), hw_refusal_text(HW_REFUSE_STOPPED));
    }
    api->watches.batch_id = 0; /* the next replica counts anew */
}

/* ---- create ---- */

static struct hw_watch *find(struct hw_watch_stream *s, int64_t id)
{
    struct hw_watch *w;
    HASH_FIND(hh, s->watches, &id, sizeof id, w);
    return w;
}

static void refuse(struct hw_watch_stream *s, const char *reason)
{
    hw_watch_tell(s,
                  &(struct hw_watch_news){.id = INVALID_ID, .is_created = true, .is_canceled = true, .reason = reason});
}

static struct hw_slice slice_of(const ProtobufCBinaryData *b)
{
    return hw_slice_of(b->data, b->len);
}

/* False: a filter that this version does not know. */
static bool convert(const Etcdserverpb__WatchCreateRequest *m, struct hw_watch_request *request)
{
    *request = (struct hw_watch_request){.key = slice_of(&m->key),
                                         .range_end = slice_of(&m->range_end),
                                         /* etcd takes a negative one as "everything that is kept" */
                                         .start = m->start_revision < 0 ? 1 : m->start_revision,
                                         .prev_kv = m->prev_kv};
    if (request->key.len == 0) {
        request->key = hw_slice_of(first_key, sizeof first_key);
    }
    for (size_t i = 0; i < m->n_filters; i++) {
        switch (m->filters[i]) {
        case ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT:
            request->no_put = true;
            break;
        case ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE:
            request->no_delete = true;
            break;
        default:
            return false;
        }
    }
    return true;
}

static int64_t free_id(struct hw_watch_stream *s)
{
    while (find(s, s->next_id) != NULL) {
        s->next_id++;
    }
    return s->next_id++;
}

static void refuse_status(struct hw_watch_stream *s, int64_t id, int rc)
{
    switch (rc) {
    case HW_ERR_COMPACTED:
        hw_watch_tell(s, &(struct hw_watch_news){.id = id, .is_created = true});
        hw_watch_tell(s, &(struct hw_watch_news){.id = id,
                                                 .is_canceled = true,
                                                 .compact_revision = hw_hot_compacted(hw_replica_hot(s->api->replica)),
                                                 .reason = hw_refusal_text(HW_REFUSE_COMPACTED)});
        break;
    case HW_ERR_INVALID:
        refuse(s, "mvcc: watcher range is empty");
        break;
    case HW_ERR_EXHAUSTED:
        refuse(s, "etcdserver: too many watchers on this node (limits.watchers_max)");
        break;
    default:
        refuse(s, "etcdserver: this node is out of memory for another watcher");
        break;
    }
}

/* Its events come in later turns, so after the answer. */
static void create(struct hw_watch_stream *s, const Etcdserverpb__WatchCreateRequest *m)
{
    struct hw_watch_request request;
    struct hw_watch *w;
    int rc;
    if (!convert(m, &request)) {
        refuse(s, "etcdserver: the watch has a filter that this version does not know");
        return;
    }
    if (!hw_watch_is_range_valid(request.key, request.range_end)) {
        refuse_status(s, INVALID_ID, HW_ERR_INVALID);
        return;
    }
    if (m->watch_id != 0 && find(s, m->watch_id) != NULL) {
        refuse(s, "mvcc: duplicate watch ID provided on the WatchStream");
        return;
    }
    w = calloc(1, sizeof *w);
    if (w == NULL) {
        refuse_status(s, INVALID_ID, HW_ERR_NOMEM);
        return;
    }
    w->id = m->watch_id != 0 ? m->watch_id : free_id(s);
    w->stream = s;
    w->prev_kv = m->prev_kv;
    w->is_fragmented = m->fragment;
    HASH_ADD(hh, s->watches, id, sizeof w->id, w);
    if (w->stream == NULL) {
        free(w);
        refuse_status(s, INVALID_ID, HW_ERR_NOMEM);
        return;
    }
    rc = hw_watcher_new(s->api->replica, &request, &hw_watch_watcher_ops, w, &w->watcher);
    if (rc != 0) {
        int64_t id = w->id;
        hw_watch_drop(w);
        refuse_status(s, id, rc);
        return;
    }
    if (m->progress_notify) {
        w->is_notified = true;
        w->told_ms = hw_loop_now_ms(s->api->loop);
        TAILQ_INSERT_TAIL(&s->api->watches.notify, w, notify_link);
    }
    hw_watch_tell(s, &(struct hw_watch_news){.id = w->id, .is_created = true});
}

/* ---- the other requests ---- */

static void cancel(struct hw_watch_stream *s, const Etcdserverpb__WatchCancelRequest *m)
{
    struct hw_watch *w = find(s, m->watch_id);
    if (w != NULL) {
        hw_watch_drop(w);
        hw_watch_tell(s, &(struct hw_watch_news){.id = m->watch_id, .is_canceled = true});
    }
}

void hw_watch_message(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct hw_api *api = ctx;
    struct hw_watch_stream *s = hw_call_data(call);
    Etcdserverpb__WatchRequest *m;
    if (s == NULL || s->is_ending) {
        return;
    }
    hw_arena_reset(&api->arena, UNPACKED_FACTOR * (message.len + 4096));
    m = etcdserverpb__watch_request__unpack(&api->arena.allocator, message.len, message.data);
    if (m == NULL) {
        hw_watch_stream_end(s, hw_refusal_status(HW_REFUSE_MALFORMED), hw_refusal_text(HW_REFUSE_MALFORMED));
        return;
    }
    switch (m->request_union_case) {
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST:
        create(s, m->create_request);
        break;
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST:
        cancel(s, m->cancel_request);
        break;
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST:
        s->is_progress_asked = true;
        hw_watch_try_progress(s);
        break;
    default: /* one of a later version: etcd ignores it, too */
        break;
    }
}

void hw_watch_open(void *ctx, struct hw_call *call)
{
    struct hw_api *api = ctx;
    struct hw_watch_stream *s;
    if (!hw_api_has_state(api) || api->is_stopping) {
        char text[256];
        snprintf(text, sizeof text, "node %s is %s: it has no state to watch", api->config.node_name,
                 hw_api_phase(api));
        hw_call_end(call, HW_GRPC_UNAVAILABLE, text);
        return;
    }
    s = calloc(1, sizeof *s);
    if (s == NULL) {
        hw_call_end(call, hw_refusal_status(HW_REFUSE_NO_MEMORY), hw_refusal_text(HW_REFUSE_NO_MEMORY));
        return;
    }
    s->api = api;
    s->call = call;
    s->wants_hot = hw_call_header(call, WANTS_HOT_HEADER) != NULL;
    TAILQ_INIT(&s->full);
    hw_defer_init(&s->end, on_end);
    TAILQ_INSERT_TAIL(&api->watches.streams, s, link);
    hw_call_set_data(call, s);
    hw_call_on_cancel(call, on_cancel);
}

/* ---- now and then ---- */

static void tell_progress(struct hw_api *api)
{
    uint64_t now_ms = hw_loop_now_ms(api->loop);
    struct hw_watch *w;
    while ((w = TAILQ_FIRST(&api->watches.notify)) != NULL && now_ms - w->told_ms >= api->config.watch_progress_ms) {
        w->told_ms = now_ms;
        TAILQ_REMOVE(&api->watches.notify, w, notify_link);
        TAILQ_INSERT_TAIL(&api->watches.notify, w, notify_link);
        if (hw_watcher_progress(w->watcher) > 0) {
            hw_watch_tell(w->stream, &(struct hw_watch_news){.id = w->id});
        }
    }
}

static bool is_hotless_for_long(struct hw_api *api)
{
    struct hw_watches *all = &api->watches;
    if (api->replica == NULL || hw_replica_hot_id(api->replica) != 0) {
        all->hotless_since_ms = 0;
        return false;
    }
    if (all->hotless_since_ms == 0) {
        all->hotless_since_ms = hw_loop_now_ms(api->loop);
    }
    return hw_loop_now_ms(api->loop) - all->hotless_since_ms > HOTLESS_MS_MAX;
}

void hw_watches_tick(struct hw_api *api)
{
    bool is_hotless = is_hotless_for_long(api);
    struct hw_watch_stream *s;
    struct hw_watch_stream *next;
    tell_progress(api);
    for (s = TAILQ_FIRST(&api->watches.full); s != NULL; s = next) {
        next = TAILQ_NEXT(s, full_link);
        hw_watch_try_resume(s); /* on_drain waits for more room, and not for that of the connection */
    }
    TAILQ_FOREACH(s, &api->watches.streams, link) {
        hw_watch_try_progress(s);
        if (is_hotless && s->wants_hot) {
            hw_watch_stream_end(s, hw_refusal_status(HW_REFUSE_NO_LEADER), hw_refusal_text(HW_REFUSE_NO_LEADER));
        }
    }
}

void hw_watches_init(struct hw_api *api)
{
    TAILQ_INIT(&api->watches.streams);
    TAILQ_INIT(&api->watches.full);
    TAILQ_INIT(&api->watches.notify);
}

void hw_watches_configure(struct hw_api_config *config)
{
    if (config->watch_queue_bytes_max == 0) {
        config->watch_queue_bytes_max = QUEUE_BYTES_DEFAULT;
    }
    if (config->watch_progress_ms == 0) {
        config->watch_progress_ms = PROGRESS_MS_DEFAULT;
    }
}

void hw_watches_close(struct hw_api *api)
{
    hw_buf_free(&api->watches.out);
    hw_buf_free(&api->watches.header);
    hw_buf_free(&api->watches.events);
}
