/* Private to agent/replica: the struct behind replica.h and the parts that share it. One part, one file:
 * apply.c (log to state), checkpoint.c (state to image), read.c (linearizable reads), peers.c (connections),
 * forward.c (calls to the hot node), rebuild.c (image from a peer), lease.c (when leases end), upkeep.c (bounds of the
 * state), watch*.c (watchers), quorum.c (is it lost?), replica.c (life).
 */
#ifndef HW_REPLICA_IMPL_H
#define HW_REPLICA_IMPL_H

#include <limits.h>

#include "agent/replica/lease.h"
#include "agent/replica/quorum.h"
#include "agent/replica/rebuild.h"
#include "agent/replica/replica.h"
#include "agent/replica/upkeep.h"
#include "agent/replica/watch_hub.h"
#include "storage/warm/image.h"
#include "storage/warm/manifest.h"

#define HW_COMPONENT "replica"

/* ---- checkpoint ---- */
struct hw_checkpoint {
    struct hw_timer *timer;
    struct hw_job job;
    struct hw_cut *cut; /* being written, or failed and to be written again */
    bool is_writing;
    bool is_suspended; /* an image is being installed: cuts of the old state must not reach it */
    bool is_failing;
    bool has_more_to_sweep;
    uint64_t image_index;
    uint64_t behind_since_ms; /* when the first change that the image lacks was applied, about; 0: it lacks none */
    uint64_t cut_ms;          /* when the cut that is being written was taken */
    TAILQ_HEAD(, hw_image_wait) waits;
    /* written by the worker, read in done */
    int status;
    struct hw_error e;
    bool sweep_left;
    uint64_t wall_ms;
    uint64_t started_us;
};

/* ---- reads ---- */
struct hw_term_query {
    struct hw_request request;
    struct hw_replica *replica;
    uint64_t round;
    uint64_t voter;
    bool is_busy;
};
TAILQ_HEAD(hw_read_list, hw_read);
struct hw_reads {
    struct hw_read_list waiting;    /* arrived, not in a round yet */
    struct hw_read_list confirming; /* in the round under way */
    struct hw_read_list applying;   /* have an index, wait for it here */
    unsigned count;
    struct hw_timer *timer;
    struct hw_defer kick;
    uint64_t round; /* number of the round under way, or of the last one */
    bool is_round;
    uint64_t round_term;
    uint64_t round_started_ms;
    unsigned acks_wanted;
    unsigned acks;
    struct hw_term_query queries[HW_MEMBERS_MAX];
    struct hw_request index_request; /* warm: the question to the hot node */
    bool is_asking;
    bool has_index;
    uint64_t index;
};

/* ---- peers ---- */
struct hw_peer {
    uint64_t id; /* 0: free */
    char address[256];
    char name[HW_NODE_NAME_MAX]; /* as it said itself; "" before */
    struct hw_channel *channel;
    struct hw_replica *replica;
    bool is_up; /* connected, and the one that answers is really this member */
    bool is_greeting;
    unsigned connection; /* grows when one is lost */
    unsigned greeted;    /* the connection that the greeting under way was sent on */
    bool is_replaced;    /* another id answers at its address: its data is gone */
    struct hw_request hello;
};

/* ---- forwards ---- */
struct hw_forwards {
    TAILQ_HEAD(, hw_forward) held;
    TAILQ_HEAD(, hw_forward) sent;
    unsigned count;
    struct hw_timer *timer;
    struct hw_defer kick;
};

struct hw_leases; /* lease.c */

enum hw_replica_phase { HW_PHASE_LOADING, HW_PHASE_MEMBER, HW_PHASE_STOPPING, HW_PHASE_FAILED };

struct hw_replica {
    struct hw_loop *loop;
    struct hw_pool *resolver;
    struct hw_metrics *metrics;
    struct hw_replica_config config;
    char name[HW_NODE_NAME_MAX];
    char data[PATH_MAX];
    char raft_folder[PATH_MAX];
    char image_path[PATH_MAX];
    const struct hw_replica_ops *ops;
    void *ctx;

    struct hw_pool *writer; /* one thread: checkpoints, loading, installing, in order */
    struct hw_pool *reader; /* copies, queries */
    struct hw_consensus *consensus;
    struct hw_hot *hot;
    struct hw_image *image; /* the writer's */
    enum hw_replica_phase phase;
    struct hw_error failure;
    struct hw_consensus_view view;
    bool is_hot;
    uint64_t hot_id;

    struct hw_job start_job;
    int start_status;
    struct hw_error start_error;

    struct hw_write acquire; /* the HotAcquired entry of this term */
    bool is_acquiring;
    uint64_t acquire_term;
    int claim_status;             /* of the last claim, so that each reason is logged once */
    struct hw_timer *claim_timer; /* active: the last claim was refused, the next one waits for it */
    struct hw_defer sweep;
    TAILQ_HEAD(, hw_retired) retired; /* replaced states, freed in slices */
    struct hw_defer retire;
    struct hw_timer *retire_timer;

    struct hw_checkpoint checkpoint;
    struct hw_reads reads;
    struct hw_peer peers[HW_MEMBERS_MAX];
    struct hw_quorum quorum;
    struct hw_timer *greet_timer; /* without a leader: ask the peers whether we still belong */
    struct hw_forwards forwards;
    struct hw_rebuild rebuild;
    struct hw_watch_hub watch;
    struct hw_leases *leases;
    struct hw_upkeep upkeep;

    void (*on_closed)(void *ctx);
    void *on_closed_ctx;
    unsigned close_waits;
    bool is_final_done;

    struct hw_gauge *m_is_hot, *m_epoch, *m_term, *m_applied, *m_image_index, *m_revision, *m_keys, *m_bytes;
    struct hw_counter *m_writes, *m_reads, *m_rounds, *m_forwards, *m_checkpoints, *m_checkpoint_failures, *m_rebuilds;
    struct hw_histogram *m_write_seconds, *m_checkpoint_seconds;
};

struct hw_retired {
    struct hw_hot *hot;
    TAILQ_ENTRY(hw_retired) link;
};

/* apply.c */
extern const struct hw_consensus_ops hw_replica_consensus_ops;
void hw_apply_init(struct hw_replica *r);
void hw_apply_close(struct hw_replica *r);
void hw_replica_retire(struct hw_replica *r, struct hw_hot *hot);
/* Compare who is hot with what we knew; fan out. */
void hw_replica_refresh(struct hw_replica *r);

/* checkpoint.c */
void hw_checkpoint_init(struct hw_replica *r);
void hw_checkpoint_close(struct hw_replica *r);
void hw_checkpoint_start(struct hw_replica *r, uint64_t image_index);
/* Begin one now unless one is under way. */
void hw_checkpoint_kick(struct hw_replica *r);
/* Before and after an image is replaced. */
void hw_checkpoint_suspend(struct hw_replica *r);
void hw_checkpoint_resume(struct hw_replica *r, uint64_t image_index);
bool hw_checkpoint_is_idle(const struct hw_replica *r);

/* read.c */
void hw_reads_init(struct hw_replica *r);
void hw_reads_close(struct hw_replica *r);
void hw_reads_kick(struct hw_replica *r);
void hw_reads_on_applied(struct hw_replica *r);
/* Leader or hot node changed: start rounds anew. */
void hw_reads_restart(struct hw_replica *r);
bool hw_reads_is_idle(const struct hw_replica *r);

/* peers.c */
void hw_peers_init(struct hw_replica *r);
void hw_peers_sync(struct hw_replica *r);
void hw_peers_close(struct hw_replica *r);
bool hw_peers_are_idle(const struct hw_replica *r);
struct hw_peer *hw_peer_of(struct hw_replica *r, uint64_t id);

/* forward.c */
void hw_forwards_init(struct hw_replica *r);
void hw_forwards_close(struct hw_replica *r);
void hw_forwards_kick(struct hw_replica *r);

/* After the swap. */
void hw_rebuild_done(struct hw_replica *r);
bool hw_rebuild_is_idle(const struct hw_replica *r);

/* lease.c */
void hw_leases_init(struct hw_replica *r);
void hw_leases_close(struct hw_replica *r);
void hw_leases_free(struct hw_replica *r);
/* r->hot is a new state. */
void hw_leases_attach(struct hw_replica *r);
/* r->is_hot may have changed. */
void hw_leases_refresh(struct hw_replica *r);

/* replica.c */
void hw_replica_maybe_closed(struct hw_replica *r);

#endif
