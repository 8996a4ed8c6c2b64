/* Watchers that are behind: served one after another in a deferred function, a bounded amount a turn. What they lack
 * comes from the recent versions when these reach back far enough, else from a search of the state. One is served until
 * it is full, has everything, or has had its share; then it is the next one's turn. */
#include <stdlib.h>

#include "agent/base/assert.h"
#include "agent/replica/watch_hub.h"

/* Versions and keys looked at in one turn: about a millisecond. */
#define TURN_BUDGET ((size_t)4000)
/* Beginning with a watcher and calling it costs about as much as looking at so many versions. */
#define WATCHER_COST ((size_t)16)
/* Keys of a range searched at a time. */
#define SEARCH_STEP ((size_t)128)
/* A batch ends with the revision in which it reaches one of these. */
#define BATCH_VERSIONS ((size_t)1000)
#define BATCH_BYTES ((size_t)1024 * 1024)
#define STALL_LOOK_MS_MAX 1000

static const char stall_reason[] = "etcdserver: watcher was cancelled: the client does not read its events; begin "
                                   "again at the revision after the last "
                                   "one received";

static const char memory_reason[] = "etcdserver: watcher was cancelled: this node is out of memory";

void hw_watch_catchup_stop(struct hw_watch_hub *hub)
{
    if (hub->changes != NULL) {
        hw_changes_close(hub->changes);
    }
    hub->changes = NULL;
    hub->serving = NULL;
    hub->is_found = false;
}

void hw_watch_catchup_post(struct hw_watch_hub *hub)
{
    if (hub->stall != NULL) {
        hw_defer_post(hub->loop, &hub->serve);
    }
}

static bool reserve_batch(struct hw_watch_hub *hub, size_t count)
{
    struct hw_version **batch;
    struct hw_version **previous;
    size_t cap = 2 * hub->batch_cap;
    if (count <= hub->batch_cap) {
        return true;
    }
    cap = cap < BATCH_VERSIONS ? BATCH_VERSIONS : cap;
    batch = realloc(hub->batch, cap * sizeof *batch);
    hub->batch = batch != NULL ? batch : hub->batch;
    previous = realloc(hub->batch_previous, cap * sizeof *previous);
    hub->batch_previous = previous != NULL ? previous : hub->batch_previous;
    if (batch == NULL || previous == NULL) {
        return false;
    }
    hub->batch_cap = cap;
    return true;
}

/* Where the versions of one watcher come from: from (next, next_sub) of the watcher on, up to revision `to`. */
struct source {
    struct hw_version *const *at;
    size_t count;
    hw_rev to;
};

/* A batch, how far it got in the source, and where the watcher is when it has taken it. */
struct progress {
    struct hw_watch_batch batch;
    size_t bytes;
    size_t at;
    hw_rev next;
    uint32_t next_sub;
};

static bool is_in(const struct hw_watcher *w, const struct hw_version *v)
{
    return hw_watch_is_wanted(w->filter, v) && (v->mod_main != w->next || v->mod_sub >= w->next_sub) &&
           hw_watch_span_has(w->span, hw_slice_of(v->key->data, v->key->len));
}

/* Add one revision; false when there is no room for all of it: then the batch ends before it, or, when it is the first,
 * within it. */
static bool add_revision(struct hw_watch_hub *hub, const struct hw_watcher *w, const struct source *from,
                         struct progress *p)
{
    struct progress before = *p;
    hw_rev revision = from->at[p->at]->mod_main;
    for (; p->at < from->count && from->at[p->at]->mod_main == revision; p->at++) {
        struct hw_version *v = from->at[p->at];
        if (!is_in(w, v)) {
            continue;
        }
        if (p->batch.count == HW_WATCH_REVISION_VERSIONS_MAX || p->bytes > HW_WATCH_REVISION_BYTES_MAX ||
            !reserve_batch(hub, p->batch.count + 1)) {
            if (before.batch.count > 0) {
                *p = before;
            } else {
                p->next = revision;
                p->next_sub = v->mod_sub;
                p->batch.is_partial = true;
            }
            return false;
        }
        hub->batch_previous[p->batch.count] = w->prev_kv ? hw_hot_previous(hub->hot, v) : NULL;
        p->bytes += hw_watch_bytes(v) + hw_watch_bytes(hub->batch_previous[p->batch.count]);
        hub->batch[p->batch.count++] = v;
    }
    if (before.batch.count > 0 && (p->batch.count > BATCH_VERSIONS || p->bytes > BATCH_BYTES)) {
        *p = before;
        return false;
    }
    p->next = revision + 1;
    p->next_sub = 0;
    return p->batch.count < BATCH_VERSIONS && p->bytes < BATCH_BYTES;
}

/* Give one batch from the source's position `*at` on. False: it was not taken. */
static bool give(struct hw_watch_hub *hub, struct hw_watcher *w, const struct source *from, size_t *at, size_t budget)
{
    struct progress p = {.at = *at, .next = w->next, .next_sub = w->next_sub};
    while (p.at < from->count && p.at - *at < budget && add_revision(hub, w, from, &p)) {
    }
    if (p.at == from->count) {
        p.next = from->to + 1;
        p.next_sub = 0;
    }
    if (p.batch.count > 0) {
        p.batch.versions = hub->batch;
        p.batch.previous = w->prev_kv ? hub->batch_previous : NULL;
        p.batch.revision = p.batch.is_partial ? p.next : p.next - 1;
        p.batch.id = ++hub->batch_id;
        if (!w->ops->on_batch(w->ctx, &p.batch)) {
            hw_watch_refused(w, w->next, w->next_sub);
            return false;
        }
        w->full_since_ms = 0;
    }
    w->next = p.next;
    w->next_sub = p.next_sub;
    *at = p.at;
    return true;
}

/* Each of these serves the first watcher and returns what it cost. */

static size_t serve_recent(struct hw_watch_hub *hub, struct hw_watcher *w, size_t budget)
{
    struct source from = {.to = hw_hot_revision(hub->hot)};
    size_t at = 0;
    from.at = hw_watch_recent_from(&hub->recent, w->next, &from.count);
    while (at < from.count && at < budget) {
        if (!give(hub, w, &from, &at, budget - at)) {
            return at + WATCHER_COST;
        }
    }
    if (at == from.count) {
        w->next = from.to + 1;
        w->next_sub = 0;
        hw_watch_move(w, HW_WATCH_CURRENT);
    } else {
        hw_watch_move(w, HW_WATCH_BEHIND); /* to the end of the queue */
    }
    return at + WATCHER_COST;
}

static size_t begin_search(struct hw_watch_hub *hub, struct hw_watcher *w)
{
    const struct hw_watch_span *s = w->span;
    int rc = HW_ERR_COMPACTED;
    hw_watch_catchup_stop(hub);
    if (w->next >= hw_hot_compacted(hub->hot)) {
        hub->found_to = hw_hot_revision(hub->hot);
        rc = hw_changes_start(hub->hot, s->key, s->end, w->next, hub->found_to, &hub->changes);
    }
    if (rc == 0) {
        hub->serving = w;
        hub->found_at = 0;
    } else {
        hub->changes = NULL;
        if (rc == HW_ERR_COMPACTED) {
            hw_watch_end(w, hw_hot_compacted(hub->hot), NULL);
        } else {
            hw_watch_end(w, 0, memory_reason);
        }
    }
    return WATCHER_COST;
}

static size_t search(struct hw_watch_hub *hub, struct hw_watcher *w, size_t budget)
{
    size_t step = budget < SEARCH_STEP || w->span->is_point ? budget : SEARCH_STEP;
    size_t found;
    int rc = hw_changes_step(hub->changes, step);
    if (rc < 0) {
        hw_watch_end(w, 0, memory_reason);
        return WATCHER_COST;
    }
    hub->is_found = rc == 0;
    if (hub->is_found && w->span->is_point) {
        hw_changes_at(hub->changes, &found);
        return found;
    }
    return step;
}

static size_t give_found(struct hw_watch_hub *hub, struct hw_watcher *w, size_t budget)
{
    struct source from = {.to = hub->found_to};
    size_t before = hub->found_at;
    from.at = hw_changes_at(hub->changes, &from.count);
    if (hub->found_at < from.count) {
        if (!give(hub, w, &from, &hub->found_at, budget)) {
            return WATCHER_COST;
        }
    }
    if (hub->found_at == from.count) {
        w->next = from.to + 1;
        w->next_sub = 0;
        /* More may have happened meanwhile: then it waits for its next turn. */
        hw_watch_move(w, w->next > hw_hot_revision(hub->hot) ? HW_WATCH_CURRENT : HW_WATCH_BEHIND);
        return WATCHER_COST;
    }
    return hub->found_at - before + WATCHER_COST;
}

static size_t serve_one(struct hw_watch_hub *hub, struct hw_watcher *w, size_t budget)
{
    if (hub->serving == w) {
        return hub->is_found ? give_found(hub, w, budget) : search(hub, w, budget);
    }
    if (w->next > hw_hot_revision(hub->hot)) {
        hw_watch_move(w, HW_WATCH_CURRENT);
        return 1;
    }
    return w->next >= hub->recent.first ? serve_recent(hub, w, budget) : begin_search(hub, w);
}

static void on_serve(struct hw_defer *d)
{
    struct hw_watch_hub *hub = hw_container_of(d, struct hw_watch_hub, serve);
    size_t budget = TURN_BUDGET;
    hw_loop_note(hub->loop, "watch");
    hw_watch_new_turn(hub);
    while (budget > 0 && hub->hot != NULL) {
        struct hw_watcher *w = hub->serving != NULL ? hub->serving : TAILQ_FIRST(&hub->behind);
        size_t cost;
        if (w == NULL) {
            return;
        }
        cost = serve_one(hub, w, budget);
        budget -= cost < budget ? cost : budget;
    }
    if (hub->hot != NULL) {
        hw_defer_post(hub->loop, d);
    }
}

/* ---- those that do not take what they are offered ---- */

static void on_stall(void *ctx)
{
    struct hw_watch_hub *hub = ctx;
    uint64_t now_ms = hw_loop_now_ms(hub->loop);
    struct hw_watcher *next;
    for (struct hw_watcher *w = TAILQ_FIRST(&hub->full); w != NULL; w = next) {
        next = TAILQ_NEXT(w, link);
        if (hub->hot != NULL && w->next < hw_hot_compacted(hub->hot) && w->next < hub->recent.first) {
            hw_watch_end(w, hw_hot_compacted(hub->hot), NULL);
        } else if (now_ms - w->full_since_ms >= hub->stall_ms) {
            hw_watch_end(w, 0, stall_reason);
        }
    }
    if (TAILQ_EMPTY(&hub->full)) {
        hw_timer_stop(hub->stall);
    }
}

void hw_watch_stall_start(struct hw_watch_hub *hub)
{
    uint64_t look_ms = hub->stall_ms / 4 + 1;
    if (hub->stall != NULL && !hw_timer_is_active(hub->stall)) {
        look_ms = look_ms < STALL_LOOK_MS_MAX ? look_ms : STALL_LOOK_MS_MAX;
        hw_timer_start(hub->stall, look_ms, look_ms);
    }
}

int hw_watch_catchup_init(struct hw_watch_hub *hub)
{
    hw_defer_init(&hub->serve, on_serve);
    hub->stall = hw_timer_new(hub->loop, "watch stall", on_stall, hub);
    return reserve_batch(hub, BATCH_VERSIONS) ? 0 : HW_ERR_NOMEM;
}

void hw_watch_catchup_close(struct hw_watch_hub *hub)
{
    hw_watch_catchup_stop(hub);
    hw_defer_cancel(hub->loop, &hub->serve);
    hw_timer_free(hub->stall);
    hub->stall = NULL;
}
