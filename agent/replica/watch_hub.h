/* Private to agent/replica: the hub between the state's feed and its watchers. It knows the loop and the state, not the
 * replica, so tests run it on a state alone.
 *
 *     watch.c           watchers come and go, the feed      watch_catchup.c   watchers that are behind
 *     watch_index.c     who wants a key                     watch_recent.c    the newest versions
 *
 *     A watcher is in one of these, and each has its list:
 *
 *           new, start in the past
 *                   |            nothing left to give
 *                   v      .------------------------------.
 *     .-----> HW_WATCH_BEHIND <-----------------.         v
 *     | ready       |            too much for   |   HW_WATCH_CURRENT <--- new
 *     |             | "full"     one turn       '---------|
 *     |             v                                     | "full"
 *     '------- HW_WATCH_FULL <----------------------------'      any of them: HW_WATCH_ENDED
 *
 * A current watcher has been given everything before the state's present revision; `next` says from where on it wants
 * changes at all. For the others `next` and `next_sub` are the first version that has not been given.
 */
#ifndef HW_REPLICA_WATCH_HUB_H
#define HW_REPLICA_WATCH_HUB_H

#include "agent/base/metrics.h"
#include "agent/replica/watch.h"
#include "agent/replica/watch_index.h"
#include "storage/hot/changes.h"

#define HW_WATCHERS_MAX_DEFAULT 100000
#define HW_WATCH_STALL_MS_DEFAULT 30000

enum hw_watch_state { HW_WATCH_CURRENT, HW_WATCH_BEHIND, HW_WATCH_FULL, HW_WATCH_ENDED };

TAILQ_HEAD(hw_watcher_queue, hw_watcher);

struct hw_watcher {
    struct hw_watch_hub *hub;
    struct hw_watch_span *span;
    const struct hw_watcher_ops *ops;
    void *ctx;
    hw_rev next;
    uint32_t next_sub;
    uint8_t state;
    uint8_t filter; /* HW_WATCH_NO_PUT | HW_WATCH_NO_DELETE */
    bool prev_kv;
    uint64_t full_since_ms; /* 0: took what it was given last */
    TAILQ_ENTRY(hw_watcher) link;
    LIST_ENTRY(hw_watcher) span_link;
};

enum { HW_WATCH_NO_PUT = 1, HW_WATCH_NO_DELETE = 2, HW_WATCH_FILTERS = 4 };

/* What a span's watchers get of one revision, by filter; made when the first one needs it. */
struct hw_watch_view {
    struct hw_version **versions;
    struct hw_version **previous;
    size_t cap;
    size_t count;
    bool has_versions;
    bool has_previous;
    size_t bytes;
    size_t previous_bytes;
    uint64_t id;
};

/* Which version a span wants, as linked lists in one array. */
struct hw_watch_match {
    uint32_t version;
    uint32_t next;
};

/* Every version of `first` and later revisions, oldest first; one reference each. */
struct hw_watch_recent {
    struct hw_version **at;
    size_t start;
    size_t count;
    size_t cap;
    size_t bytes;
    hw_rev first;
    size_t versions_max; /* HW_WATCH_RECENT_VERSIONS; tests lower it */
};
#define HW_WATCH_RECENT_VERSIONS ((size_t)16384)
#define HW_WATCH_RECENT_BYTES ((size_t)16 * 1024 * 1024)

struct hw_watch_hub {
    struct hw_loop *loop;
    struct hw_hot *hot; /* NULL: not loaded */
    size_t watchers_max;
    uint64_t stall_ms;
    size_t count;
    struct hw_watch_index index;
    struct hw_watcher_queue current;
    struct hw_watcher_queue behind;
    struct hw_watcher_queue full;
    uint64_t batch_id;

    /* the feed */
    SLIST_HEAD(, hw_watch_span) touched;
    struct hw_watch_match *matches;
    size_t match_count;
    size_t match_cap;
    uint32_t feeding; /* the version that is being matched */
    struct hw_watch_view views[HW_WATCH_FILTERS];
    unsigned turn_left; /* watchers that may still be served within apply in this turn */
    struct hw_watch_recent recent;

    /* catching up */
    struct hw_defer serve;
    struct hw_timer *stall;
    struct hw_watcher *serving; /* the first one behind; has `changes` */
    struct hw_changes *changes;
    bool is_found; /* the search has ended; `found_at` is the first version not given */
    size_t found_at;
    hw_rev found_to;
    struct hw_version **batch;
    struct hw_version **batch_previous;
    size_t batch_cap;

    struct hw_gauge *m_watchers;
    struct hw_gauge *m_behind;
    size_t behind_count; /* full ones included */
};

/* watch.c. metrics may be NULL, 0 is the default. HW_ERR_NOMEM. */
int hw_watch_hub_init(struct hw_watch_hub *hub, struct hw_loop *loop, struct hw_metrics *metrics, size_t watchers_max,
                      uint64_t stall_ms);
/* The state to watch, NULL for none: from here on the feed is the hub's. The old one must still be there. */
void hw_watch_hub_set_state(struct hw_watch_hub *hub, struct hw_hot *hot);
/* No more callbacks; nothing of the state or of the loop is held afterwards. */
void hw_watch_hub_stop(struct hw_watch_hub *hub);
void hw_watch_hub_close(struct hw_watch_hub *hub);
int hw_watch_hub_add(struct hw_watch_hub *hub, const struct hw_watch_request *request, const struct hw_watcher_ops *ops,
                     void *ctx, struct hw_watcher **w);
/* As much may be done within apply as in a fresh turn. */
void hw_watch_new_turn(struct hw_watch_hub *hub);
void hw_watch_move(struct hw_watcher *w, enum hw_watch_state state);
/* It did not take the batch that begins at (next, next_sub). */
void hw_watch_refused(struct hw_watcher *w, hw_rev next, uint32_t next_sub);
/* Its last call; w may be gone afterwards. */
void hw_watch_end(struct hw_watcher *w, hw_rev compacted, const char *reason);
static inline bool hw_watch_is_wanted(uint8_t filter, const struct hw_version *v)
{
    return (filter & (v->is_tombstone ? HW_WATCH_NO_DELETE : HW_WATCH_NO_PUT)) == 0;
}
static inline size_t hw_watch_bytes(const struct hw_version *v)
{
    return v == NULL ? 0 : 64 + (size_t)v->key->len + v->value_len;
}

/* watch_catchup.c */
/* HW_ERR_NOMEM */
int hw_watch_catchup_init(struct hw_watch_hub *hub);
void hw_watch_catchup_post(struct hw_watch_hub *hub);
/* Let go of a search under way. */
void hw_watch_catchup_stop(struct hw_watch_hub *hub);
void hw_watch_catchup_close(struct hw_watch_hub *hub);
/* There are full ones: look after them now and then. */
void hw_watch_stall_start(struct hw_watch_hub *hub);

/* watch_recent.c */
void hw_watch_recent_begin(struct hw_watch_recent *recent, hw_rev first);
void hw_watch_recent_push(struct hw_watch_recent *recent, hw_rev revision, struct hw_version *const *versions,
                          size_t count);
void hw_watch_recent_close(struct hw_watch_recent *recent);
/* The versions from (revision, sub) on; revision is at least recent->first. */
struct hw_version *const *hw_watch_recent_from(const struct hw_watch_recent *recent, hw_rev revision, size_t *count);

#endif
