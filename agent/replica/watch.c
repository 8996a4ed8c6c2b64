/* Watchers come and go, and those that are up to date get each revision from the state's feed. */
#include "agent/replica/watch.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/replica/replica_impl.h"
#include "agent/replica/watch_hub.h"

/* Bounds of what one turn does within apply; the rest is done by watch_catchup.c, in slices, and in larger batches the
 * more there is to do. */
#define FEED_WATCHERS_A_TURN 4096
#define FEED_MATCHES_MAX ((size_t)256 * 1024)
#define NO_MATCH UINT32_MAX

/* ---- lists ---- */

static struct hw_watcher_queue *queue_of(struct hw_watch_hub *hub, enum hw_watch_state state)
{
    switch (state) {
    case HW_WATCH_CURRENT:
        return &hub->current;
    case HW_WATCH_BEHIND:
        return &hub->behind;
    case HW_WATCH_FULL:
        return &hub->full;
    case HW_WATCH_ENDED:
        break;
    }
    hw_unreachable();
}

static bool is_late(const struct hw_watcher *w)
{
    return w->state == HW_WATCH_BEHIND || w->state == HW_WATCH_FULL;
}

static void leave(struct hw_watcher *w)
{
    struct hw_watch_hub *hub = w->hub;
    if (hub->serving == w) {
        hw_watch_catchup_stop(hub);
    }
    hub->behind_count -= is_late(w);
    TAILQ_REMOVE(queue_of(hub, w->state), w, link);
}

static void enter(struct hw_watcher *w, enum hw_watch_state state)
{
    struct hw_watch_hub *hub = w->hub;
    w->state = (uint8_t)state;
    hub->behind_count += is_late(w);
    TAILQ_INSERT_TAIL(queue_of(hub, state), w, link);
    if (state == HW_WATCH_BEHIND) {
        hw_watch_catchup_post(hub);
    }
}

static void show(struct hw_watch_hub *hub)
{
    if (hub->m_watchers != NULL) {
        hw_gauge_set(hub->m_watchers, (int64_t)hub->count);
        hw_gauge_set(hub->m_behind, (int64_t)hub->behind_count);
    }
}

void hw_watch_move(struct hw_watcher *w, enum hw_watch_state state)
{
    leave(w);
    enter(w, state);
    show(w->hub);
}

void hw_watch_refused(struct hw_watcher *w, hw_rev next, uint32_t next_sub)
{
    w->next = next;
    w->next_sub = next_sub;
    if (w->full_since_ms == 0) {
        w->full_since_ms = hw_loop_now_ms(w->hub->loop);
    }
    hw_watch_move(w, HW_WATCH_FULL);
    hw_watch_stall_start(w->hub);
}

/* Everything that the hub keeps for it. */
static void forget(struct hw_watcher *w)
{
    struct hw_watch_hub *hub = w->hub;
    leave(w);
    LIST_REMOVE(w, span_link);
    hw_watch_index_release(&hub->index, w->span);
    w->state = HW_WATCH_ENDED;
    hub->count--;
    if (hub->count == 0) {
        hw_watch_recent_close(&hub->recent);
    }
    show(hub);
}

void hw_watch_end(struct hw_watcher *w, hw_rev compacted, const char *reason)
{
    forget(w);
    w->ops->on_end(w->ctx, compacted, reason);
}

/* ---- the feed ---- */

static void overflow(struct hw_watch_span *s)
{
    s->is_overflown = true;
}

static bool reserve_match(struct hw_watch_hub *hub)
{
    size_t cap = hub->match_cap == 0 ? 64 : 2 * hub->match_cap;
    struct hw_watch_match *bigger;
    if (hub->match_count < hub->match_cap) {
        return true;
    }
    if (hub->match_count >= FEED_MATCHES_MAX) {
        return false;
    }
    bigger = realloc(hub->matches, cap * sizeof *bigger);
    if (bigger == NULL) {
        return false;
    }
    hub->matches = bigger;
    hub->match_cap = cap;
    return true;
}

static void on_match(void *ctx, struct hw_watch_span *s)
{
    struct hw_watch_hub *hub = ctx;
    if (!s->is_touched) {
        s->is_touched = true;
        s->first = NO_MATCH;
        s->match_count = 0;
        SLIST_INSERT_HEAD(&hub->touched, s, touched);
    }
    if (s->is_overflown || !reserve_match(hub)) {
        overflow(s);
        return;
    }
    hub->matches[hub->match_count] = (struct hw_watch_match){hub->feeding, NO_MATCH};
    if (s->first == NO_MATCH) {
        s->first = (uint32_t)hub->match_count;
    } else {
        hub->matches[s->latest].next = (uint32_t)hub->match_count;
    }
    s->latest = (uint32_t)hub->match_count++;
    s->match_count++;
}

static bool reserve_view(struct hw_watch_view *view, size_t count)
{
    struct hw_version **versions;
    struct hw_version **previous;
    size_t cap = view->cap == 0 ? 16 : view->cap;
    if (count <= view->cap) {
        return true;
    }
    while (cap < count) {
        cap *= 2;
    }
    versions = realloc(view->versions, cap * sizeof *versions);
    view->versions = versions != NULL ? versions : view->versions;
    previous = realloc(view->previous, cap * sizeof *previous);
    view->previous = previous != NULL ? previous : view->previous;
    if (versions == NULL || previous == NULL) {
        return false;
    }
    view->cap = cap;
    return true;
}

/* False: too much for one batch, or out of memory. */
static bool fill_view(struct hw_watch_hub *hub, struct hw_watch_span *s, struct hw_version *const *versions,
                      uint8_t filter, bool prev_kv)
{
    struct hw_watch_view *view = &hub->views[filter];
    if (!view->has_versions) {
        if (s->match_count > HW_WATCH_REVISION_VERSIONS_MAX || !reserve_view(view, s->match_count)) {
            return false;
        }
        view->count = 0;
        view->bytes = 0;
        view->id = ++hub->batch_id;
        for (uint32_t m = s->first; m != NO_MATCH; m = hub->matches[m].next) {
            struct hw_version *v = versions[hub->matches[m].version];
            if (hw_watch_is_wanted(filter, v)) {
                view->versions[view->count++] = v;
                view->bytes += hw_watch_bytes(v);
            }
        }
        view->has_versions = true;
    }
    if (prev_kv && !view->has_previous) {
        view->previous_bytes = 0;
        for (size_t i = 0; i < view->count; i++) {
            view->previous[i] = hw_hot_previous(hub->hot, view->versions[i]);
            view->previous_bytes += hw_watch_bytes(view->previous[i]);
        }
        view->has_previous = true;
    }
    return view->bytes + (prev_kv ? view->previous_bytes : 0) <= HW_WATCH_REVISION_BYTES_MAX;
}

static void feed_watcher(struct hw_watch_hub *hub, struct hw_watcher *w, hw_rev revision,
                         struct hw_version *const *versions)
{
    const struct hw_watch_view *view = &hub->views[w->filter];
    struct hw_watch_batch batch;
    if (w->span->is_overflown || hub->turn_left == 0 || !fill_view(hub, w->span, versions, w->filter, w->prev_kv)) {
        w->next = revision;
        w->next_sub = 0;
        hw_watch_move(w, HW_WATCH_BEHIND);
        return;
    }
    if (view->count == 0) {
        return;
    }
    hub->turn_left--;
    batch = (struct hw_watch_batch){.versions = view->versions,
                                    .previous = w->prev_kv ? view->previous : NULL,
                                    .count = view->count,
                                    .revision = revision,
                                    .id = view->id};
    if (w->ops->on_batch(w->ctx, &batch)) {
        w->full_since_ms = 0;
    } else {
        hw_watch_refused(w, revision, 0);
    }
}

static void on_feed(void *ctx, hw_rev revision, struct hw_version *const *versions, size_t count)
{
    struct hw_watch_hub *hub = ctx;
    struct hw_watch_span *s;
    struct hw_watcher *w;
    if (hub->count == 0) {
        return;
    }
    hw_watch_recent_push(&hub->recent, revision, versions, count);
    hub->match_count = 0;
    for (size_t i = 0; i < count; i++) {
        hub->feeding = (uint32_t)i;
        hw_watch_index_match(&hub->index, hw_slice_of(versions[i]->key->data, versions[i]->key->len), on_match, hub);
    }
    while ((s = SLIST_FIRST(&hub->touched)) != NULL) {
        SLIST_REMOVE_HEAD(&hub->touched, touched);
        for (int i = 0; i < HW_WATCH_FILTERS; i++) {
            hub->views[i].has_versions = false;
            hub->views[i].has_previous = false;
        }
        LIST_FOREACH(w, &s->watchers, span_link) {
            if (w->state == HW_WATCH_CURRENT && w->next <= revision) {
                feed_watcher(hub, w, revision, versions);
            }
        }
        s->is_touched = false;
        s->is_overflown = false;
    }
    hw_watch_catchup_post(hub); /* a new turn may do as much again */
}

/* ---- life of the hub ---- */

int hw_watch_hub_init(struct hw_watch_hub *hub, struct hw_loop *loop, struct hw_metrics *metrics, size_t watchers_max,
                      uint64_t stall_ms)
{
    memset(hub, 0, sizeof *hub);
    hub->loop = loop;
    hub->watchers_max = watchers_max > 0 ? watchers_max : HW_WATCHERS_MAX_DEFAULT;
    hub->stall_ms = stall_ms > 0 ? stall_ms : HW_WATCH_STALL_MS_DEFAULT;
    hub->turn_left = FEED_WATCHERS_A_TURN;
    hub->recent.versions_max = HW_WATCH_RECENT_VERSIONS;
    hw_watch_index_init(&hub->index);
    TAILQ_INIT(&hub->current);
    TAILQ_INIT(&hub->behind);
    TAILQ_INIT(&hub->full);
    SLIST_INIT(&hub->touched);
    if (metrics != NULL) {
        hub->m_watchers = hw_metrics_gauge(metrics, "hotwarm_watchers", NULL, "Watchers of keys on this node.");
        hub->m_behind = hw_metrics_gauge(metrics, "hotwarm_watchers_behind", NULL, "Watchers that are catching up.");
    }
    return hw_watch_catchup_init(hub);
}

void hw_watch_hub_set_state(struct hw_watch_hub *hub, struct hw_hot *hot)
{
    struct hw_watcher *w;
    if (hub->hot != NULL) {
        hw_rev given = hw_hot_revision(hub->hot);
        hw_hot_set_feed(hub->hot, NULL, NULL);
        hw_watch_catchup_stop(hub);
        while ((w = TAILQ_FIRST(&hub->current)) != NULL) {
            w->next = w->next > given ? w->next : given + 1;
            w->next_sub = 0;
            hw_watch_move(w, HW_WATCH_BEHIND);
        }
    }
    hub->hot = hot;
    if (hot != NULL) {
        hw_watch_recent_begin(&hub->recent, hw_hot_revision(hot) + 1);
        hw_hot_set_feed(hot, on_feed, hub);
    }
}

void hw_watch_new_turn(struct hw_watch_hub *hub)
{
    hub->turn_left = FEED_WATCHERS_A_TURN;
}

void hw_watch_hub_stop(struct hw_watch_hub *hub)
{
    if (hub->hot != NULL) {
        hw_hot_set_feed(hub->hot, NULL, NULL);
    }
    hw_watch_catchup_close(hub);
    hw_watch_recent_close(&hub->recent);
    hub->hot = NULL;
}

void hw_watch_hub_close(struct hw_watch_hub *hub)
{
    hw_assert(hub->count == 0);
    for (int i = 0; i < HW_WATCH_FILTERS; i++) {
        free(hub->views[i].versions);
        free(hub->views[i].previous);
    }
    free(hub->matches);
    free(hub->batch);
    free(hub->batch_previous);
}

/* ---- watchers ---- */

int hw_watch_hub_add(struct hw_watch_hub *hub, const struct hw_watch_request *request, const struct hw_watcher_ops *ops,
                     void *ctx, struct hw_watcher **out)
{
    struct hw_watcher *w;
    hw_rev now;
    if (hub->hot == NULL) {
        return HW_ERR_UNAVAILABLE;
    }
    if (!hw_watch_is_range_valid(request->key, request->range_end) || request->start < 0) {
        return HW_ERR_INVALID;
    }
    now = hw_hot_revision(hub->hot);
    if (request->start > 0 && request->start < hw_hot_compacted(hub->hot)) {
        return HW_ERR_COMPACTED;
    }
    if (hub->count >= hub->watchers_max) {
        return HW_ERR_EXHAUSTED;
    }
    w = calloc(1, sizeof *w);
    if (w == NULL) {
        return HW_ERR_NOMEM;
    }
    w->span = hw_watch_index_get(&hub->index, request->key, request->range_end);
    if (w->span == NULL) {
        free(w);
        return HW_ERR_NOMEM;
    }
    LIST_INSERT_HEAD(&w->span->watchers, w, span_link);
    w->hub = hub;
    w->ops = ops;
    w->ctx = ctx;
    w->next = request->start > 0 ? request->start : now + 1;
    w->filter = (uint8_t)((request->no_put ? HW_WATCH_NO_PUT : 0) | (request->no_delete ? HW_WATCH_NO_DELETE : 0));
    w->prev_kv = request->prev_kv;
    if (hub->count++ == 0) {
        hw_watch_recent_begin(&hub->recent, now + 1);
    }
    enter(w, w->next > now ? HW_WATCH_CURRENT : HW_WATCH_BEHIND);
    show(hub);
    *out = w;
    return 0;
}

int hw_watcher_new(struct hw_replica *r, const struct hw_watch_request *request, const struct hw_watcher_ops *ops,
                   void *ctx, struct hw_watcher **w)
{
    return hw_watch_hub_add(&r->watch, request, ops, ctx, w);
}

void hw_watcher_free(struct hw_watcher *w)
{
    if (w == NULL) {
        return;
    }
    if (w->state != HW_WATCH_ENDED) {
        forget(w);
    }
    free(w);
}

void hw_watcher_ready(struct hw_watcher *w)
{
    if (w->state == HW_WATCH_FULL) {
        hw_watch_move(w, HW_WATCH_BEHIND);
    }
}

hw_rev hw_watcher_progress(const struct hw_watcher *w)
{
    hw_rev now;
    if (w->state != HW_WATCH_CURRENT || w->hub->hot == NULL) {
        return 0;
    }
    now = hw_hot_revision(w->hub->hot);
    return w->next > now + 1 ? 0 : now;
}

size_t hw_replica_watcher_count(const struct hw_replica *r)
{
    return r->watch.count;
}
