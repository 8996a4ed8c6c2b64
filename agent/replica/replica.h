/* A replica: where the state (storage/hot), the image (storage/warm) and the log (agent/consensus) meet. It starts from
 * the image, applies the log, keeps the image up to date, answers reads and writes, reaches the other replicas, and
 * makes itself whole again from a peer's image when the log no longer reaches back.
 *
 * Life cycle: hw_replica_new · hw_replica_start · ... · hw_replica_shut(on_closed) · hw_replica_free. Loop thread only.
 * Blocking work (SQLite, files) is done on the replica's own worker; nothing here waits.
 *
 * Hot: this node is hot when it is the Raft leader and its HotAcquired entry of the current term has been applied here.
 */
#ifndef HW_REPLICA_REPLICA_H
#define HW_REPLICA_REPLICA_H

#include "agent/base/metrics.h"
#include "agent/consensus/consensus.h"
#include "agent/loop/loop.h"
#include "agent/loop/pool.h"
#include "agent/rpc/rpc.h"
#include "storage/hot/hot.h"

struct hw_replica;

struct hw_replica_config {
    struct hw_consensus_config consensus; /* folder is set by the replica: data/raft */
    const char *name;                     /* of the node */
    const char *data;                     /* data folder, exists and is locked by the caller */
    uint64_t checkpoint_interval_ms;
    uint64_t checkpoint_dirty_bytes;
    uint64_t transfer_chunk_bytes;
    unsigned reads_max;    /* linearizable reads waiting */
    unsigned forwards_max; /* calls waiting for, or under way to, the hot node */
    unsigned scan_slice_keys;
    unsigned watchers_max;            /* 0: the default, 100000 */
    uint64_t watch_stall_ms;          /* a watcher that takes nothing for so long is ended; 0: the default, 30000 */
    uint64_t state_bytes_max;         /* growth is refused beyond; 0: no bound */
    uint64_t compaction_retention_ms; /* automatic compaction by age; 0: not by age */
    hw_rev compaction_retention_revisions; /* and by number; 0: not by number */
    uint64_t compaction_interval_ms;       /* how often it is looked at */
    bool is_bootstrap; /* write the first configuration (members) before starting, if the log is empty */
    struct hw_member members[HW_MEMBERS_MAX];
    size_t member_count;
};

struct hw_replica_ops {
    /* The replica serves: state loaded, log started. Or it could not, and the reason: HW_ERR_CORRUPT means that the
     * files are damaged (the owner quarantines and rejoins), anything else that the process should end. */
    void (*on_started)(void *ctx, int status, const char *why);
    void (*on_change)(void *ctx); /* leader, hot, members, phase or peers' reachability */
    void (*on_failed)(void *ctx, const char *why);
    /* A peer says that the quorum which this node belongs to was given up: what it has may never vote again. */
    void (*on_superseded)(void *ctx, uint64_t recovery);
    void (*on_removed)(void *ctx); /* the hot node says that this node is no member any more */
};

int hw_replica_new(struct hw_loop *loop, struct hw_pool *resolver, struct hw_metrics *metrics,
                   const struct hw_replica_config *config, const struct hw_replica_ops *ops, void *ctx,
                   struct hw_replica **replica, struct hw_error *e);
void hw_replica_start(struct hw_replica *r);
/* Writes a last checkpoint, closes the log. */
void hw_replica_shut(struct hw_replica *r, void (*on_closed)(void *ctx), void *ctx);
void hw_replica_free(struct hw_replica *r);

/* Borrowed; the pointer changes when an image is installed, so do not keep it over a turn. */
struct hw_hot *hw_replica_hot(struct hw_replica *r);
struct hw_consensus *hw_replica_consensus(struct hw_replica *r);

/* ---- writes ---- */

/* The caller fills `cmd` by hw_write_encode, submits, and keeps the struct until done. status 0: applied, `result`
 * holds the answer (owned by the struct until done returns). Otherwise as hw_proposal's statuses. Only on the hot node:
 * HW_ERR_NOTHOT at once elsewhere. */
struct hw_write {
    void (*done)(struct hw_write *w, int status);
    void *data;
    struct hw_result result;
    struct hw_proposal proposal; /* private */
    struct hw_replica *replica;  /* private */
    uint64_t started_us;         /* private */
    bool *is_taken;              /* private */
};
int hw_write_encode(struct hw_write *w, const struct hw_cmd *cmd);
int hw_replica_write(struct hw_replica *r, struct hw_write *w);
/* Within done: the result becomes the caller's, to be freed with hw_result_free before the replica goes away. */
void hw_write_take_result(struct hw_write *w, struct hw_result *result);

/* False while the state is over state_bytes_max: then puts and lease grants are refused, before the log. Asked on the
 * hot node; others follow whatever it has accepted. */
bool hw_replica_may_grow(struct hw_replica *r);

/* ---- reads ---- */

/* Wait until the local state may answer a linearizable read that arrived now (Raft dissertation 6.4): on the hot node
 * one round of confirmation for all reads that wait, on a warm node by asking the hot node for its confirmed index and
 * waiting for it here. done: 0, HW_ERR_UNAVAILABLE (no hot node within the time), HW_ERR_CANCELLED. */
struct hw_read {
    void (*done)(struct hw_read *rd, int status);
    void *data;
    TAILQ_ENTRY(hw_read) link; /* private */
    uint64_t index;            /* private */
    uint64_t deadline_ms;      /* private */
};
int hw_replica_read(struct hw_replica *r, struct hw_read *rd, uint64_t timeout_ms);

/* ---- hot node, peers ---- */

bool hw_replica_is_hot(const struct hw_replica *r);
uint64_t hw_replica_hot_id(const struct hw_replica *r); /* 0: unknown */
/* Kept connections to the other members, by id; NULL when it is not a member. */
struct hw_channel *hw_replica_channel(struct hw_replica *r, uint64_t id);
/* On the hot node: is this id no member of the committed configuration? false elsewhere, and while that changes. */
bool hw_replica_is_removed(const struct hw_replica *r, uint64_t id);
/* What the registry calls a member; before it is in there, what it calls itself. "": unknown. Valid for the turn. */
const char *hw_replica_name_of(struct hw_replica *r, uint64_t id);
bool hw_replica_is_reachable(const struct hw_replica *r, uint64_t id);

/* Send a call to the hot node over the peer connection ("/hotwarm.v1.Peer/Forward"). While no hot node is known it is
 * held, up to timeout_ms; a call that surely did not arrive is sent again to the next hot node; one that may have
 * arrived is not, unless is_idempotent. done: gRPC status, text and the answer (borrowed).
 * When this node becomes hot meanwhile, done runs with HW_GRPC_ABORTED and text HW_FORWARD_IS_LOCAL: execute it here.
 */
#define HW_FORWARD_IS_LOCAL "this node is hot now"
struct hw_forward {
    void (*done)(struct hw_forward *f, enum hw_grpc status, const char *text, struct hw_slice answer);
    void *data;
    const char *method;    /* a constant string */
    struct hw_buf payload; /* owned by the struct; free it in done */
    bool is_idempotent;
    /* private */
    TAILQ_ENTRY(hw_forward) link;
    uint64_t deadline_ms;
    uint64_t sent_to;
    struct hw_replica *replica;
    struct hw_request request;
    struct hw_buf answer;
    bool is_sent;
    bool is_answered;
};
/* HW_ERR_EXHAUSTED beyond forwards_max. */
int hw_replica_forward(struct hw_replica *r, struct hw_forward *f, uint64_t timeout_ms);

/* The peer service's questions. */
uint64_t hw_replica_term(const struct hw_replica *r);

/* While no leader is known because too few voters are there: a sentence that says which are missing and what to do. ""
 * otherwise. Valid for the turn. */
const char *hw_replica_trouble(const struct hw_replica *r);

/* ---- image ---- */

struct hw_replica_status {
    const char *phase; /* "loading", "member", "rebuilding", "stopping", "failed" */
    bool is_hot;
    uint64_t hot_id;
    uint64_t epoch;
    struct hw_consensus_view view;
    uint64_t applied_index;
    uint64_t image_index;
    uint64_t image_age_ms; /* 0 while the image holds everything applied */
    uint64_t rebuild_done_bytes;
    uint64_t rebuild_total_bytes;
    bool is_full;         /* the state has reached state_bytes_max and has not shrunk below 95 % of it */
    bool is_disk_failing; /* the last checkpoint failed; it is being retried */
    char disk_problem[256];
};
void hw_replica_status(struct hw_replica *r, struct hw_replica_status *status);

/* Bring the image up to `index` or later (0: to what is applied now) and call back; for snapshots and transfers. */
struct hw_image_wait {
    void (*done)(struct hw_image_wait *w, int status);
    void *data;
    uint64_t index;
    bool is_patient;                 /* the next checkpoint will do, in its turn or within a second */
    TAILQ_ENTRY(hw_image_wait) link; /* private */
};
int hw_replica_image_wait(struct hw_replica *r, struct hw_image_wait *w);
/* Remove what compaction has made unreachable, in memory and in the image, soon and in the background. */
void hw_replica_defragment(struct hw_replica *r);
const char *hw_replica_image_path(const struct hw_replica *r);
/* The worker for image files: copies, reads and queries run there, in order with checkpoints. */
struct hw_pool *hw_replica_pool(struct hw_replica *r);

#endif
