/* Watchers of the local state: each gets every change of its keys from a revision on, once, in revision order, on any
 * node, hot or warm, also across a change of the hot node and an installed image.
 *
 * A watcher holds no queue of its own. Up to date, it is handed changes within apply. When its owner says that it is
 * full (the client reads too slowly) it falls behind, and later catches up from the versions that the state keeps; so
 * memory is in proportion to watchers, not to traffic; a bounded number of recent versions, shared by all, saves those
 * that are only a little behind the search. It ends by itself, with a reason, when compaction has taken what it still
 * needed, or when it has been full for longer than `watch_stall_ms` of the configuration.
 *
 * Rules: etcd's watch guarantees (ordered, unique, reliable, atomic, resumable):
 * https://etcd.io/docs/latest/learning/api_guarantees/#watch-apis
 * Loop thread only. Callbacks run within apply or in a turn of their own, never within a call of this header; they may
 * not create or free watchers, but on_end may free its own. All watchers are freed before the replica is shut.
 */
#ifndef HW_REPLICA_WATCH_H
#define HW_REPLICA_WATCH_H

#include "agent/replica/replica.h"

struct hw_watcher;

/* All changes of one revision that this watcher wants; a batch may hold several revisions when catching up. A revision
 * is split over batches only when it alone is larger than HW_WATCH_REVISION_BYTES_MAX (or that many versions). */
#define HW_WATCH_REVISION_BYTES_MAX ((size_t)16 * 1024 * 1024)
#define HW_WATCH_REVISION_VERSIONS_MAX ((size_t)128 * 1024)
struct hw_watch_batch {
    struct hw_version *const *versions; /* borrowed, in revision order */
    struct hw_version *const *previous; /* NULL unless prev_kv; each may be NULL */
    size_t count;
    hw_rev revision; /* the state's revision as of this batch: everything of this watcher up to it has been given */
    bool is_partial; /* the last revision in it goes on in the next batch */
    uint64_t id;     /* batches with the same id have the same content but for `previous`, which is there or not */
};

struct hw_watcher_ops {
    /* false: full; nothing was taken, the same batch comes again after hw_watcher_ready. */
    bool (*on_batch)(void *ctx, const struct hw_watch_batch *batch);
    /* The last call: compacted > 0 (the state's) when compaction took what was needed; reason is a sentence otherwise.
     */
    void (*on_end)(void *ctx, hw_rev compacted, const char *reason);
};

struct hw_watch_request {
    struct hw_slice key; /* copied */
    struct hw_slice range_end;
    hw_rev start;           /* 0: from now on; beyond the present: waits for it */
    bool no_put, no_delete; /* filters */
    bool prev_kv;
};

/* etcd's meaning of a range: no end: the one key; "\0": every key from `key` on. Is there a key that fits? */
bool hw_watch_is_range_valid(struct hw_slice key, struct hw_slice range_end);

/* HW_ERR_COMPACTED (start < compacted, as in etcd), HW_ERR_EXHAUSTED (watchers_max of the configuration), HW_ERR_NOMEM,
 * HW_ERR_INVALID (no key is in the range), HW_ERR_UNAVAILABLE (the state is not loaded yet). */
int hw_watcher_new(struct hw_replica *r, const struct hw_watch_request *request, const struct hw_watcher_ops *ops,
                   void *ctx, struct hw_watcher **w);
/* No callback after it. NULL is allowed. */
void hw_watcher_free(struct hw_watcher *w);
/* There is room again. */
void hw_watcher_ready(struct hw_watcher *w);
/* Everything up to the returned revision has been given; 0 while it is behind, or waits for a revision after the next
 * one. For progress notifications; not within apply. */
hw_rev hw_watcher_progress(const struct hw_watcher *w);

size_t hw_replica_watcher_count(const struct hw_replica *r);

#endif
