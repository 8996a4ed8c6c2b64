/* Consensus: libraft behind a header without its types. One object is one server of the Raft cluster (Ongaro's
 * dissertation, 2014): it keeps the log on disk, replicates proposals, elects leaders, changes membership. It knows
 * nothing of keys, images or services: entries are bytes, and what to do with them is the owner's, through
 * hw_consensus_ops.
 *
 * Life cycle: hw_consensus_new · (hw_consensus_bootstrap once, on an empty folder) · hw_consensus_start · ... ·
 * hw_consensus_shut(on_closed) · hw_consensus_free. Loop thread only. Callbacks may call back into proposals and
 * status, never into shut or free.
 *
 * Group commit: proposals of one loop turn leave together at its end. Each has its own log index, but they are one
 * write to the disk and one message to each peer.
 */
#ifndef HW_CONSENSUS_CONSENSUS_H
#define HW_CONSENSUS_CONSENSUS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/metrics.h"
#include "agent/loop/loop.h"
#include "agent/loop/stream.h"

struct hw_consensus;
struct raft;
struct raft_io;

enum hw_role { HW_ROLE_STANDBY, HW_ROLE_VOTER, HW_ROLE_SPARE, HW_ROLE_NONE /* not in the configuration */ };
const char *hw_role_name(enum hw_role role);

struct hw_member {
    uint64_t id;
    char address[256]; /* peer address, host:port */
    enum hw_role role;
};
#define HW_MEMBERS_MAX 64

/* How a cluster counts that its quorum was given up: a count, and behind it a number that was drawn, so that two
 * recoveries made at the same time are two: the higher one supersedes the other. */
#define HW_RECOVERY_DRAW_BITS 20
#define HW_RECOVERY_DRAW(recovery) ((recovery) & ((UINT64_C(1) << HW_RECOVERY_DRAW_BITS) - 1))
#define HW_RECOVERY_COUNT(recovery) ((recovery) >> HW_RECOVERY_DRAW_BITS)
/* A recovered cluster goes on in a term so much higher, above whatever those who were given up may have reached; and
 * the higher of two recoveries in the higher term. */
#define HW_RECOVERY_TERM_STEP 1000000u
#define HW_RECOVERY_DRAW_STEP 1000u

struct hw_consensus_config {
    uint64_t id;                 /* > 0 */
    uint64_t cluster_id;         /* part of the peer handshake: a stranger is refused */
    uint64_t recovery;           /* so is this: which recovery of this cluster; 0: none */
    bool is_recovering;          /* this start gives the quorum up: the server goes on alone, with what its log holds */
    const char *address;         /* own peer address, as peers connect to it */
    const char *folder;          /* exists; libraft's own files live here */
    unsigned heartbeat_ms;       /* default 50 */
    unsigned election_ms;        /* default 300; the timeout is random in [1x, 2x] */
    unsigned tick_ms;            /* how often timers are looked at; default 10 */
    unsigned snapshot_threshold; /* entries between snapshots; default 8192 */
    unsigned snapshot_trailing;  /* entries kept behind a snapshot for slow followers; default 8192 */
    unsigned disk_reserve_mb;    /* writes are refused when the log disk has less left than this; 0: no check */
    size_t entry_bytes_max;      /* one proposal; default 4 MiB */
    unsigned proposals_max;      /* in flight; default 16384 */
    size_t proposal_bytes_max;   /* in flight; default 64 MiB */
};
void hw_consensus_config_default(struct hw_consensus_config *config);

/* One entry to be replicated. The caller owns the struct until done; the buffer's memory is taken by propose.
 * Build the entry with hw_proposal_begin (makes room for our frame) and hw_buf_append.
 *
 * done runs exactly once if propose returned 0:
 *   0                    committed and applied here (ops->apply ran just before with this proposal);
 *   HW_ERR_NOTHOT        not leader any more before it reached the log: surely not applied;
 *   HW_ERR_UNKNOWN       leadership lost with the entry in flight: it may or may not be applied later;
 *   HW_ERR_NOSPACE       a majority's log disks are nearly full: surely not applied;
 *   HW_ERR_CANCELLED     shutting down, outcome unknown. */
struct hw_proposal {
    void (*done)(struct hw_proposal *p, int status);
    struct hw_buf entry;
    bool is_essential; /* may use the disk's reserve: what the cluster needs to have a hot node. begin clears it */
    uint64_t index;    /* log index once it is in the log */
    uint64_t term;
    TAILQ_ENTRY(hw_proposal) link; /* the owner's: not used here */
};
int hw_proposal_begin(struct hw_proposal *p);
/* HW_ERR_NOTHOT, HW_ERR_EXHAUSTED (in-flight bounds), HW_ERR_TOOBIG, HW_ERR_NOMEM, HW_ERR_INVALID (not begun with
 * hw_proposal_begin): at once, nothing taken. */
int hw_consensus_propose(struct hw_consensus *c, struct hw_proposal *p);

/* A wish that data be durable before libraft's disk layer may forget log entries up to index.
 *  - is_install false: the local image must be durable at `index` or later.
 *  - is_install true: a leader sent a manifest because the log no longer reaches back; the owner must fetch an image of
 *    that index or later from a peer, make it durable and have it loaded, so that restore can swap it in at once.
 * The owner answers with hw_consensus_durable once it is true, however long it takes; failing is not an option that
 * libraft has, so the owner retries. While shutting down it need not answer. */
struct hw_durable {
    uint64_t index;
    uint64_t term;
    bool is_install;
    struct hw_slice manifest; /* valid until answered */
    uint64_t leader_id;       /* who sent it, for install */
};

struct hw_consensus_view {
    bool is_leader;
    bool is_started;
    uint64_t term;
    uint64_t leader_id; /* 0: unknown */
    enum hw_role role;  /* own */
    uint64_t commit_index;
    uint64_t applied_index;
    uint64_t last_index;
    uint64_t last_term;    /* of the entry there */
    uint64_t config_index; /* of the last committed configuration */
    bool is_changing;      /* an uncommitted configuration, or a change or transfer under way */
    size_t member_count;
    bool is_disk_low;      /* writes of clients are refused: the reserve of the log disks is reached */
    uint64_t lost_tail_id; /* on the leader: a member that denies entries it had acknowledged; 0: none. A new term
                              mends it: hand leadership over */
    size_t proposals;      /* in flight */
    size_t proposal_bytes;
};

struct hw_consensus_ops {
    /* Apply a committed entry, in log order. `mine` is the proposal if it was made here, else NULL. Must not fail but
     * by stopping this replica: nonzero makes the server unavailable (on_failed follows). */
    int (*apply)(void *ctx, uint64_t index, uint64_t term, struct hw_slice entry, struct hw_proposal *mine);
    /* Fill the manifest for a snapshot at `index` (everything up to it has been applied). O(1). */
    int (*manifest)(void *ctx, uint64_t index, struct hw_buf *out);
    void (*make_durable)(void *ctx, const struct hw_durable *d);
    /* At start (the newest snapshot of the disk) and after an install: the state must now be at the manifest's index or
     * later. Nonzero: refuse to go on. */
    int (*restore)(void *ctx, struct hw_slice manifest);
    /* State, term, leader, role or membership changed (compared once a turn). */
    void (*on_change)(void *ctx, const struct hw_consensus_view *view);
    /* Applied moved in this turn (also by entries that are not commands). */
    void (*on_applied)(void *ctx, uint64_t applied_index);
    /* The server cannot go on (its disk failed, or apply refused): the process should say why and exit. */
    void (*on_failed)(void *ctx, const char *why);
};

int hw_consensus_new(struct hw_loop *loop, struct hw_pool *resolver, struct hw_metrics *metrics,
                     const struct hw_consensus_config *config, const struct hw_consensus_ops *ops, void *ctx,
                     struct hw_consensus **c, struct hw_error *e);
/* Write the first configuration on an empty folder. HW_ERR_EXISTS when there is a log already. */
int hw_consensus_bootstrap(struct hw_consensus *c, const struct hw_member *members, size_t count, struct hw_error *e);
/* Load the log and take part. HW_ERR_CORRUPT when the folder's files are damaged, HW_ERR_IO. Calls restore. */
int hw_consensus_start(struct hw_consensus *c, struct hw_error *e);
void hw_consensus_shut(struct hw_consensus *c, void (*on_closed)(void *ctx), void *ctx);
void hw_consensus_free(struct hw_consensus *c);

/* Version of libraft that this was built with (the library exports none), "0.22.1". A constant string. */
const char *hw_consensus_library(void);

/* Is there a log, a vote or a snapshot in this folder? (files only; no object needed) */
bool hw_consensus_folder_is_pristine(const char *folder);

void hw_consensus_view(const struct hw_consensus *c, struct hw_consensus_view *view);
/* The configuration in force (committed or not). Returns how many were filled. */
size_t hw_consensus_members(const struct hw_consensus *c, struct hw_member *members, size_t max);
/* How far a member's log is known to match, on the leader; HW_ERR_NOTHOT elsewhere. */
int hw_consensus_match_index(const struct hw_consensus *c, uint64_t id, uint64_t *index);

/* The answer to make_durable. */
void hw_consensus_durable(struct hw_consensus *c);

/* The owner has seen that the leader's process is gone (its kernel closed a connection): stand for election after a
 * random [1x, 2x] of this instead of election_ms. Back to normal when a leader of a later term is known, or after twice
 * election_ms. A false alarm is harmless: nobody votes for one while the leader is heard from. */
void hw_consensus_suspect_leader(struct hw_consensus *c, unsigned election_ms);

/* One change of membership or leadership at a time: HW_ERR_EXHAUSTED while one is under way. The caller owns the struct
 * until done. A voter is only made from a standby; libraft first lets it catch up and fails with HW_ERR_TIMEOUT when it
 * cannot. */
struct hw_change {
    void (*done)(struct hw_change *ch, int status);
    void *impl;
};
int hw_consensus_add(struct hw_consensus *c, struct hw_change *ch, uint64_t id, const char *address);
int hw_consensus_assign(struct hw_consensus *c, struct hw_change *ch, uint64_t id, enum hw_role role);
int hw_consensus_remove(struct hw_consensus *c, struct hw_change *ch, uint64_t id);
/* Hand leadership to a voter (0: the most up to date). done 0 only when it became leader. Proposals are refused
 * meanwhile by libraft itself (HW_ERR_NOTHOT on done, surely not applied). */
int hw_consensus_transfer(struct hw_consensus *c, struct hw_change *ch, uint64_t id);

/* The peer port saw our handshake's first bytes and hands the stream over (nothing consumed: use hw_stream_unread).
 * Wrong cluster, unknown version or a wrong id are refused with a reason that the peer logs. */
#define HW_PEER_MAGIC "HWRAFT1\n"
#define HW_PEER_MAGIC_LEN 8
void hw_consensus_accept(struct hw_consensus *c, struct hw_stream *stream);

/* For simulation: an object without disk and network of its own. Wrap the raft_io (in place) that a fixture gave a
 * server, use the fsm in raft_init, then attach the raft. start, bootstrap and shut are the fixture's business. */
struct raft_fsm;
struct hw_consensus *hw_consensus_new_detached(const struct hw_consensus_config *config,
                                               const struct hw_consensus_ops *ops, void *ctx);
struct raft_fsm *hw_consensus_fsm(struct hw_consensus *c);
void hw_consensus_attach(struct hw_consensus *c, struct raft *raft, struct raft_io *io);
/* What the loop does at the end of a turn: flush proposals, compare state, fan out. */
void hw_consensus_step(struct hw_consensus *c);

#endif
