/* The hot-tier state: a multi-version key-value space, the node registry and the cluster history. Pure: no I/O, no
 * clock, no randomness, no libuv. The same commands in the same order make the same state on every node.
 *
 * Life cycle: hw_hot_new / hw_hot_free. One thread owns it (the loop); what it hands out for other threads is
 * immutable: versions (record.h) and cuts (below).
 *
 * Semantics are etcd's (api/v3 documentation, "KV API guarantees" and etcdserverpb/rpc.proto): a revision is one
 * 64-bit counter of the whole key space, starting at 1 for the empty state; every transaction that changes a key takes
 * the next one; its writes are told apart by sub-revisions. A delete leaves a tombstone until compaction.
 *
 * apply never fails: what a client did wrong is data in the result (`code`), identical on every node.
 */
#ifndef HW_HOT_HOT_H
#define HW_HOT_HOT_H

#include <stdbool.h>

#include "agent/base/err.h"
#include "storage/hot/command.h"
#include "storage/hot/record.h"

struct hw_hot;
struct hw_lease_record; /* lease.h */

struct hw_hot *hw_hot_new(void); /* NULL: out of memory */
void hw_hot_free(struct hw_hot *h);
/* As hw_hot_free, but at most `budget` records a call; true when all is gone. For the loop, which may not stall. */
bool hw_hot_free_step(struct hw_hot *h, size_t budget); /* scans and hashers are closed before */

/* ---- apply ---- */

/* The answer of one operation of a transaction; the union follows the operation's type. */
struct hw_op_result {
    enum hw_op_type type;
    struct {
        struct hw_version **kvs; /* borrowed from the result */
        size_t kv_count;
        int64_t count; /* range: all keys in the range, whatever the limit; delete: how many were deleted */
        bool more;
        bool keys_only;
        const struct hw_deferred *deferred; /* not NULL: long, so not read yet (hw_scan_start_deferred); kvs is empty */
    } range;                                /* RANGE; for PUT and DELETE kvs are the previous versions when asked for */
    struct hw_txn_result *txn;              /* TXN */
    hw_rev revision; /* etcd's header of this operation: the revision as it left it; 0 for TXN, where etcd gives none */
};
struct hw_txn_result {
    bool succeeded; /* the compares held */
    struct hw_op_result *ops;
    size_t op_count;
};

/* code: 0, or HW_ERR_COMPACTED, HW_ERR_FUTURE, HW_ERR_NOTFOUND (key for ignore_*, node), HW_ERR_INVALID (shape of a
 * transaction, a node without id or name), HW_ERR_PRECONDITION (lease not found), HW_ERR_EXISTS (node name taken),
 * HW_ERR_EXHAUSTED (registry full); those of lease commands are in lease.h. Nothing was changed then. */
struct hw_result {
    int code;
    hw_rev revision; /* of the state after the command */
    struct hw_txn_result txn;
    void *arena;               /* private */
    struct hw_result_pin *pin; /* private: what deferred ranges need is kept while the result lives */
};
void hw_result_init(struct hw_result *r);
void hw_result_free(struct hw_result *r);

/* Apply one encoded command at a log index. `index` must be greater than hw_hot_applied. `result` has been through
 * hw_result_init and comes back empty when the call fails; it may be NULL (nobody waits: cheaper). Returns 0, or
 * HW_ERR_VERSION / HW_ERR_CORRUPT / HW_ERR_NOMEM when the entry cannot be understood at all: then the caller must stop
 * this replica, for others may understand it. The state is as it was before the call then. */
int hw_hot_apply(struct hw_hot *h, uint64_t index, const void *data, size_t len, struct hw_result *result,
                 struct hw_error *e);

/* Note that the log passed `index` without a command (a barrier, a configuration). */
void hw_hot_note_index(struct hw_hot *h, uint64_t index);

/* Would this command be refused whatever the state? The same checks as apply makes on the shape of a transaction (two
 * puts on one key, a put and a delete that overlap, sizes). For the API, before the log. */
int hw_hot_check_txn(const struct hw_txn *txn, size_t ops_max, struct hw_error *e);

/* Do the compares of this transaction, those of nested ones included, cover more keys than HW_COMPARE_KEYS_MAX now?
 * HW_ERR_TOOBIG, else 0. Stops counting there. */
int hw_hot_check_compares(const struct hw_hot *h, const struct hw_txn *txn);

/* Would this transaction be refused now, for the revision of a range on the path that its compares choose? For the API,
 * before the log: a transaction that writes and reads where nothing can be read any more, or yet, is refused whole
 * without an entry. The state may be another when it is applied, and then the same rule decides on every node.
 * HW_ERR_COMPACTED, HW_ERR_FUTURE. Check the compares first: they are looked at here. */
int hw_hot_check_reads(const struct hw_hot *h, const struct hw_txn *txn);

/* Would this range (also one within a transaction) be refused now, for its revision? Checked before the log. */
int hw_hot_check_revision(const struct hw_hot *h, hw_rev revision);

/* ---- read ---- */

/* Ranges of a transaction: together they look at no more than these in the turn that applies it; those that would are
 * deferred, and read by a scan as of their place in the transaction. */
#define HW_TXN_INLINE_KEYS 1000
#define HW_TXN_INLINE_BYTES ((size_t)1024 * 1024)

/* A transaction without a put or delete in any branch, answered from the state as it is: refusals as apply's, in
 * result->code. Returns HW_ERR_NOMEM, else 0. */
int hw_hot_read_txn(struct hw_hot *h, const struct hw_txn *txn, struct hw_result *result);

/* Scans and hashers open now: a replaced state is freed only when there are none. */
size_t hw_hot_open_scans(const struct hw_hot *h);

uint64_t hw_hot_applied(const struct hw_hot *h);
hw_rev hw_hot_revision(const struct hw_hot *h);
hw_rev hw_hot_compacted(const struct hw_hot *h);     /* 0: never */
size_t hw_hot_key_count(const struct hw_hot *h);     /* that exist at the latest revision */
size_t hw_hot_version_count(const struct hw_hot *h); /* held, also those that wait for the sweep */
size_t hw_hot_bytes(const struct hw_hot *h);         /* estimate of the memory held */

/* A range in steps. An immutable revision is fixed at start, so that steps in later turns of the loop see the same
 * state whatever was written between. A range holds its revision against physical removal; close it.
 *
 *     rc = hw_scan_start(h, &range, &scan);         refusals: HW_ERR_COMPACTED, HW_ERR_FUTURE, HW_ERR_NOMEM
 *     while ((rc = hw_scan_step(scan, 1000)) > 0) ...  next turn of the loop; budget = keys looked at
 *     rc == 0: kvs, count and more are final        rc < 0: refused (NOMEM), close it
 *     hw_scan_close(scan);
 */
struct hw_scan;
int hw_scan_start(struct hw_hot *h, const struct hw_range *range, struct hw_scan **scan);
int hw_scan_step(struct hw_scan *scan, size_t budget);
/* Valid after the last step, until close: references are held by the scan. */
struct hw_version *const *hw_scan_kvs(const struct hw_scan *scan, size_t *count);
int64_t hw_scan_count(const struct hw_scan *scan);
bool hw_scan_has_more(const struct hw_scan *scan);
hw_rev hw_scan_revision(const struct hw_scan *scan); /* the state's revision at start (etcd's header revision) */
void hw_scan_close(struct hw_scan *scan);
/* As hw_scan_close in steps: lets go of at most `budget` versions, true when it is closed. No other call after the
 * first. */
bool hw_scan_close_step(struct hw_scan *scan, size_t budget);
/* Read a deferred range. The result that names it must live until here, not longer. HW_ERR_NOMEM. */
int hw_scan_start_deferred(struct hw_hot *h, const struct hw_deferred *d, struct hw_scan **scan);

/* Hash of the state as of a revision (0: latest), in steps: the sum of hw_version_hash over every version with
 * compacted-away ones left out by rule (not by what happens to be removed physically yet), so that equal logs give
 * equal hashes on every node whatever their clean-up has done. */
struct hw_hasher;
int hw_hasher_start(struct hw_hot *h, hw_rev revision, struct hw_hasher **hasher);
/* `budget` versions or 4 MiB of them, whichever is less. > 0: go on; 0: done. */
int hw_hasher_step(struct hw_hasher *hasher, size_t budget);
uint64_t hw_hasher_hash(const struct hw_hasher *hasher);
hw_rev hw_hasher_revision(const struct hw_hasher *hasher);
hw_rev hw_hasher_compacted(const struct hw_hasher *hasher);
void hw_hasher_close(struct hw_hasher *hasher);

/* Fingerprint of the history that led here, for comparing replicas at one applied index: a running sum over every
 * version ever written and every change of compaction, registry, history, leases and epoch (with its log index). O(1):
 * apply keeps it up to date; it is never reduced by compaction, and an image carries it as a counter. */
uint64_t hw_hot_hash(const struct hw_hot *h);

/* Physical removal of what compaction made unreachable, in steps. Cheap when there is nothing to do.
 * Returns true while there is more; false also when open scans hold the rest back, so call again now and then. The
 * state's answers do not change by it. */
bool hw_hot_sweep(struct hw_hot *h, size_t budget);

/* ---- registry, history, hot tenure ---- */

#define HW_NODES_MAX 1024 /* HW_ERR_EXHAUSTED beyond */
size_t hw_hot_node_count(const struct hw_hot *h);
const struct hw_node *hw_hot_node_at(const struct hw_hot *h, size_t i); /* by rising id; valid until the next apply */
const struct hw_node *hw_hot_node_by_id(const struct hw_hot *h, uint64_t id);
const struct hw_node *hw_hot_node_by_name(const struct hw_hot *h, const char *name);
uint64_t hw_hot_epoch(const struct hw_hot *h);    /* of the last HotAcquired; 0: none yet */
uint64_t hw_hot_hot_node(const struct hw_hot *h); /* its node id */

#define HW_HISTORY_MAX 1024 /* older records are dropped */
size_t hw_hot_event_count(const struct hw_hot *h);
const struct hw_event *hw_hot_event_at(const struct hw_hot *h, size_t i); /* oldest first; valid until next apply */

/* ---- feed ---- */

/* Called within apply, once for every revision that changed keys, with its versions in sub-revision order. The array is
 * the callee's for the call only; a callee that keeps versions takes references. The seam for watch. */
typedef void (*hw_feed_fn)(void *ctx, hw_rev revision, struct hw_version *const *versions, size_t count);
void hw_hot_set_feed(struct hw_hot *h, hw_feed_fn fn, void *ctx);

/* ---- checkpoint ---- */

/* What changed since the last cut: an immutable batch for the worker that brings the image up to `applied`.
 * Taking one is O(1) in the number of versions (the dirty array moves; registry and history are small copies) and
 * linear in the leases that changed.
 * When writing it failed, keep it and write it again before any later cut: cuts are a sequence. */
struct hw_cut {
    uint64_t applied;
    hw_rev revision;
    hw_rev compacted;        /* versions that this makes unreachable are to be deleted from the image */
    hw_rev compacted_before; /* as of the cut before this one */
    uint64_t epoch;
    uint64_t hot_node;
    uint64_t hash;                /* hw_hot_hash at this cut */
    uint64_t event_seq;           /* of the newest event */
    struct hw_version **versions; /* in revision order; the cut holds references */
    size_t version_count;
    struct hw_node *nodes; /* the whole registry */
    size_t node_count;
    bool nodes_changed;
    struct hw_event *events; /* new since the last cut, oldest first */
    size_t event_count;
    struct hw_lease_record *leases; /* changed since the last cut, each once; see lease.h */
    size_t lease_count;
};
/* HW_ERR_NOMEM: nothing was taken, try again later. */
int hw_hot_cut(struct hw_hot *h, struct hw_cut **cut);
void hw_cut_free(struct hw_cut *cut); /* any thread */
/* How many records (versions and leases) and bytes the next cut would hold. */
size_t hw_hot_dirty_count(const struct hw_hot *h);
size_t hw_hot_dirty_bytes(const struct hw_hot *h);

/* ---- load ---- */

/* Fill a new state from an image, on any thread, before anybody else sees it. Versions in rising (key, mod_main,
 * mod_sub) order: that makes it linear. Each call takes over the caller's reference on success. */
int hw_hot_load_version(struct hw_hot *h, struct hw_version *v);
int hw_hot_load_node(struct hw_hot *h, const struct hw_node *node);
int hw_hot_load_event(struct hw_hot *h, const struct hw_event *event); /* oldest first */
struct hw_hot_counters {
    uint64_t applied;
    hw_rev revision;
    hw_rev compacted;
    uint64_t epoch;
    uint64_t hot_node;
    uint64_t event_seq;
    uint64_t hash;
};
/* Ends the load; attaches keys to their leases. HW_ERR_CORRUPT when what was loaded breaks an invariant (order,
 * revisions beyond the counters, a key whose lease is not there), HW_ERR_NOMEM. */
int hw_hot_load_finish(struct hw_hot *h, const struct hw_hot_counters *counters, struct hw_error *e);

/* Every invariant of the structure, for tests and for debug builds: O(n). NULL when all hold, else the broken one. */
const char *hw_hot_check(const struct hw_hot *h);

#endif
