/* Private to agent/replica: which watchers want a key. Watchers of the same key or range share one span: single keys
 * are in a hash table, ranges in an interval tree, a red-black tree by first key in which every span knows the one of
 * its subtree that ends last (Cormen et al., "Introduction to Algorithms", 14.3).
 *
 * A span lives while it has watchers. Loop thread only.
 */
#ifndef HW_REPLICA_WATCH_INDEX_H
#define HW_REPLICA_WATCH_INDEX_H

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uthash.h>

#include "agent/base/buf.h"

struct hw_watcher;

struct hw_watch_span {
    union {
        UT_hash_handle hh; /* of a single key */
        struct {
            RB_ENTRY(hw_watch_span) link;
            struct hw_watch_span *last; /* of this subtree: the one that ends last */
        };
    };
    LIST_HEAD(, hw_watcher) watchers;
    struct hw_slice key;
    struct hw_slice end; /* empty: a single key, or no end */
    bool is_point;
    bool is_open;
    /* For the feed, within one revision. */
    bool is_touched;
    bool is_overflown;
    uint32_t first;
    uint32_t latest;
    uint32_t match_count;
    SLIST_ENTRY(hw_watch_span) touched;
    uint8_t bytes[];
};

RB_HEAD(hw_watch_tree, hw_watch_span);

struct hw_watch_index {
    struct hw_watch_span *points;
    struct hw_watch_tree ranges;
};

void hw_watch_index_init(struct hw_watch_index *ix);
/* The span, made when it is not there; NULL when out of memory. */
struct hw_watch_span *hw_watch_index_get(struct hw_watch_index *ix, struct hw_slice key, struct hw_slice range_end);
/* Goes when it has no watchers. */
void hw_watch_index_release(struct hw_watch_index *ix, struct hw_watch_span *s);
bool hw_watch_span_has(const struct hw_watch_span *s, struct hw_slice key);
/* Call fn for every span that has the key. */
void hw_watch_index_match(struct hw_watch_index *ix, struct hw_slice key,
                          void (*fn)(void *ctx, struct hw_watch_span *s), void *ctx);

#endif
