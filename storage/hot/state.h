/* Private to storage/hot: what a state is made of, and what its source files offer each other.
 *
 *     apply.c     entry point: decode, dispatch            txn.c         transactions: check, run, undo
 *     shape.c     checks of a transaction without a state  result.c      memory of a result
 *     range.c     ranges in steps, scans                   sort.c        sorting in steps
 *     compact.c   compaction, pins, sweep                  hash.c        fingerprint, hasher
 *     registry.c  nodes, history, tenure                   checkpoint.c  dirty versions, cuts
 *     load.c      from an image                            check.c       invariants
 */
#ifndef HW_HOT_STATE_H
#define HW_HOT_STATE_H

#include <sys/queue.h>

#include "storage/hot/hot.h"
#include "storage/hot/index.h"

/* Newer than any revision: what a transaction reads, its own writes included. */
#define HW_REV_NEWEST INT64_MAX

/* An open reader: versions that it needs may not be removed physically, as if nothing above `revision` had been
 * compacted. */
struct hw_pin {
    TAILQ_ENTRY(hw_pin) link;
    hw_rev revision;
};

/* Versions written since the last cut, in the order of writing; one reference each. */
struct hw_dirty {
    struct hw_version **at;
    size_t count;
    size_t cap;
    size_t bytes;
};

struct hw_registry {
    struct hw_node *nodes; /* by rising id */
    size_t count;
    size_t cap;
    bool is_changed; /* since the last cut */
};

/* A ring once it has HW_HISTORY_MAX records. */
struct hw_history {
    struct hw_event *at;
    size_t start;
    size_t count;
    size_t cap;
    uint64_t seq; /* of the newest */
};

struct hw_hot {
    struct hw_index index;
    uint64_t applied;
    hw_rev revision;
    hw_rev compacted;
    uint64_t hash;
    uint64_t epoch;
    uint64_t hot_node;
    struct hw_registry registry;
    struct hw_history history;
    struct hw_dirty dirty;
    TAILQ_HEAD(, hw_pin) pins;
    hw_feed_fn feed;
    void *feed_ctx;
    struct {
        hw_rev done;            /* what this revision made unreachable is gone */
        hw_rev target;          /* of the pass under way; 0: none */
        struct hw_key_name *at; /* the pass has finished this key; NULL: at the start */
    } sweep;
    struct {
        hw_rev compacted;
        uint64_t event_seq;
    } last_cut;
    struct {
        struct hw_index_key *last;
        hw_rev mod_max;
    } load;
};

/* ---- txn.c ---- */
/* Runs a decoded transaction. Returns 0 with the outcome in *code, or HW_ERR_NOMEM with the state as it was.
 * result may be NULL. */
int hw_txn_apply(struct hw_hot *h, const struct hw_txn *txn, struct hw_result *result, int *code);

/* ---- result.c ---- */
/* Zeroed memory that lives as long as the result; NULL when out of memory. */
void *hw_result_alloc(struct hw_result *r, size_t count, size_t size);

/* ---- compact.c ---- */
void hw_compact_apply(struct hw_hot *h, hw_rev revision, uint64_t index, int *code);
void hw_pin_add(struct hw_hot *h, struct hw_pin *pin, hw_rev revision);
void hw_pin_remove(struct hw_hot *h, struct hw_pin *pin);
/* How many of a key's oldest versions a compaction at `revision` makes unreachable. */
uint32_t hw_compact_unreachable(const struct hw_index_key *k, hw_rev revision);

/* ---- hash.c ---- */
/* What a change other than of a key adds to the fingerprint. */
uint64_t hw_hash_numbers(const uint64_t *numbers, size_t count);
uint64_t hw_hash_text(const char *text, uint64_t seed);

/* ---- check.c ---- */
/* What is wrong with v as the version after `before` (NULL: the first that is kept of its key); NULL: nothing. */
const char *hw_version_problem(const struct hw_version *before, const struct hw_version *v);

/* ---- registry.c ---- */
/* Each returns 0 with the outcome in *code, or HW_ERR_NOMEM with the state as it was. */
int hw_registry_set(struct hw_hot *h, const struct hw_node *node, uint64_t wall_ms, uint64_t index, int *code);
int hw_registry_remove(struct hw_hot *h, uint64_t id, uint64_t wall_ms, uint64_t index, int *code);
int hw_tenure_apply(struct hw_hot *h, uint64_t node_id, const char *name, uint64_t epoch, uint64_t wall_ms,
                    uint64_t index);
int hw_history_add(struct hw_hot *h, const struct hw_event *event, uint64_t wall_ms, uint64_t index);
/* For the load: as it stands in the image. Room is made, nothing else is changed. HW_ERR_NOMEM. */
int hw_registry_insert(struct hw_registry *r, const struct hw_node *node);
int hw_history_reserve(struct hw_history *y);
void hw_history_push(struct hw_history *y, const struct hw_event *event);

/* ---- checkpoint.c ---- */
int hw_dirty_reserve(struct hw_dirty *d);
/* After hw_dirty_reserve: cannot fail. Takes over the caller's reference. */
void hw_dirty_push(struct hw_dirty *d, struct hw_version *v);
void hw_dirty_pop(struct hw_dirty *d);

#endif
