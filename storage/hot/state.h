/* Private to storage/hot: what a state is made of, and what its source files offer each other.
 *
 *     apply.c     entry point: decode, dispatch            txn.c         transactions: check, run, undo
 *     shape.c     checks of a transaction without a state  result.c      memory of a result
 *     range.c     ranges in steps, scans                   sort.c        sorting in steps
 *     compact.c   compaction, pins, sweep                  hash.c        fingerprint, hasher
 *     registry.c  nodes, history, tenure                   checkpoint.c  dirty versions, cuts
 *     load.c      from an image                            check.c       invariants
 *     lease.c     leases and their keys                    changes.c     what was written between two revisions
 */
#ifndef HW_HOT_STATE_H
#define HW_HOT_STATE_H

#include <sys/queue.h>

#include "storage/hot/hot.h"
#include "storage/hot/index.h"
#include "storage/hot/lease.h"

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

/* A key that hangs on a lease: its newest version exists and names the lease. The node of a key outlives that. */
struct hw_lease_key {
    union {
        RB_ENTRY(hw_lease_key) link;
        SLIST_ENTRY(hw_lease_key) spare; /* detached by a transaction that may have to take it back */
    };
    struct hw_index_key *key;
};
RB_HEAD(hw_lease_keys, hw_lease_key);
SLIST_HEAD(hw_lease_spares, hw_lease_key);

/* Most leases have one key, so the keys are a tree of small nodes and not an array or a table. A lease that is gone
 * stays until the next cut, which has to say so. */
struct hw_lease {
    RB_ENTRY(hw_lease) link;
    int64_t id;
    int64_t ttl_s;
    int64_t remaining_s;
    struct hw_lease_keys keys;
    size_t key_count;
    STAILQ_ENTRY(hw_lease) dirty;
    bool is_dirty;
    bool is_gone;
};
RB_HEAD(hw_lease_tree, hw_lease);

struct hw_lease_table {
    struct hw_lease_tree tree; /* by id */
    size_t count;              /* without those that are gone */
    size_t key_count;          /* of all together */
    STAILQ_HEAD(, hw_lease) dirty;
    size_t dirty_count;
    hw_lease_fn feed;
    void *feed_ctx;
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
    struct hw_lease_table leases;
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
        bool has_leased; /* a version names a lease */
    } load;
};

/* What a result holds besides memory and versions. */
struct hw_result_pin {
    struct hw_hot *hot;
    struct hw_pin pin;
};

/* A range of a transaction that is read later. In the memory of the result. */
struct hw_deferred {
    struct hw_range range; /* its key and end are copies */
    hw_rev revision;
    uint32_t sub; /* of that revision, writes from this one on are not seen */
};

/* ---- txn.c ---- */
/* Runs a decoded transaction. Returns 0 with the outcome in *code, or HW_ERR_NOMEM with the state as it was.
 * result may be NULL. */
int hw_txn_apply(struct hw_hot *h, const struct hw_txn *txn, struct hw_result *result, int *code);

/* Deletes every key of a lease in one revision, in key order. HW_ERR_NOMEM with the state as it was. */
int hw_txn_revoke(struct hw_hot *h, struct hw_lease *lease);

/* ---- lease.c ---- */
void hw_lease_table_init(struct hw_lease_table *t);
/* At most *budget records; true when all are gone. */
bool hw_lease_table_free_step(struct hw_lease_table *t, size_t *budget);
/* NULL: none of that id, or gone. */
struct hw_lease *hw_lease_find(const struct hw_lease_table *t, int64_t id);
/* A new lease, not dirty: for the load and the grant. As the commands below. */
int hw_lease_table_add(struct hw_lease_table *t, int64_t id, int64_t ttl_s, struct hw_lease **lease, int *code);
/* A key's newest version named `from` (0: none, or no version) and now names `to`. What is detached goes to spares.
 * HW_ERR_NOMEM changes nothing. */
int hw_lease_move(struct hw_lease_table *t, struct hw_index_key *k, int64_t from, int64_t to,
                  struct hw_lease_spares *spares);
/* Takes back a move with the same arguments, last one first. */
void hw_lease_move_back(struct hw_lease_table *t, struct hw_index_key *k, int64_t from, int64_t to,
                        struct hw_lease_spares *spares);
struct hw_lease_key *hw_lease_first_key(struct hw_lease *lease); /* lowest; NULL: none */
void hw_lease_spares_free(struct hw_lease_spares *spares);
/* For the load: a key once more is no news. HW_ERR_NOTFOUND: no such lease. */
int hw_lease_attach_loaded(struct hw_lease_table *t, struct hw_index_key *k, int64_t id);
/* Each returns 0 with the outcome in *code, or HW_ERR_NOMEM with the state as it was. */
int hw_lease_grant(struct hw_hot *h, int64_t id, int64_t ttl_s, uint64_t index, int *code);
int hw_lease_revoke(struct hw_hot *h, int64_t id, uint64_t index, int *code);
void hw_lease_checkpoint(struct hw_hot *h, const struct hw_lease_remaining *leases, size_t count, uint64_t index);
/* Moves what changed into `out`, which has room for dirty_count. */
void hw_lease_table_take_dirty(struct hw_lease_table *t, struct hw_lease_record *out);
size_t hw_lease_table_bytes(const struct hw_lease_table *t);
const char *hw_lease_table_problem(const struct hw_hot *h);

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
