/* Watchers of the local state: each gets every change of its keys from a revision on, once, in revision order, on any
 * node, hot or warm, also across a change of the hot node and an installed image.
 *
 * A watcher holds no queue of its own. Up to date, it is handed changes within apply. When its owner says that it is
 * full (the client reads too slowly) it falls behind, and later catches up from the versions that the state keeps; so
 * memory is in proportion to watchers, not to traffic. It ends by itself, with a reason, when compaction has taken what
 * it still needed, or when it has been full for longer than `stall_ms`.
 *
 * Rules: etcd's watch guarantees (ordered, unique, reliable, atomic, resumable):
 * https://etcd.io/docs/latest/learning/api_guarantees/#watch-apis
 * Loop thread only. Callbacks run within apply or in a turn of their own; they may not create or free watchers.
 */
#ifndef HW_REPLICA_WATCH_H
#define HW_REPLICA_WATCH_H

#include "agent/replica/replica.h"

struct hw_watcher;

/* All changes of one revision that this watcher wants; a batch may hold several revisions when catching up. */
struct hw_watch_batch {
    struct hw_version *const *versions; /* borrowed, in revision order */
    struct hw_version *const *previous; /* NULL unless prev_kv; each may be NULL */
    size_t count;
    hw_rev revision; /* the state's revision as of this batch: everything of this watcher up to it has been given */
};

struct hw_watcher_ops {
    /* false: full; nothing was taken, the same batch comes again after hw_watcher_ready. */
    bool (*on_batch)(void *ctx, const struct hw_watch_batch *batch);
    /* The last call: compacted > 0 when compaction took what was needed; reason is a sentence otherwise. */
    void (*on_end)(void *ctx, hw_rev compacted, const char *reason);
};

struct hw_watch_request {
    struct hw_slice key; /* copied */
    struct hw_slice range_end;
    hw_rev start;           /* 0: from now on; beyond the present: waits for it */
    bool no_put, no_delete; /* filters */
    bool prev_kv;
};

/* HW_ERR_COMPACTED (start <= compacted), HW_ERR_EXHAUSTED (watchers_max of the configuration), HW_ERR_NOMEM. */
int hw_watcher_new(struct hw_replica *r, const struct hw_watch_request *request, const struct hw_watcher_ops *ops,
                   void *ctx, struct hw_watcher **w);
/* No callback after it. NULL is allowed. */
void hw_watcher_free(struct hw_watcher *w);
/* There is room again. */
void hw_watcher_ready(struct hw_watcher *w);
/* Everything up to the returned revision has been given; 0 while it is behind. For progress notifications. */
hw_rev hw_watcher_progress(const struct hw_watcher *w);

size_t hw_replica_watcher_count(const struct hw_replica *r);

#endif
