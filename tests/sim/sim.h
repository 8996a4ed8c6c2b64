/* The cluster in one process, in virtual time: real agent/consensus (detached), real libraft, real storage/hot; the disk,
 * the network, the clock and the image are simulated, and break in seeded ways. One seed is one history: everything is
 * drawn from one generator and every event has its place in one queue, so a seed replays exactly.
 *
 * Why not libraft's own fixture: its disk forgets what a restart needs (a snapshot does not shorten its log, truncation
 * ignores where the log starts, dead servers keep their memory), and it knows no loss, no reordering between links and no
 * torn writes.
 *
 *   sim.c      the command line, the runs, the summary
 *   world.c    one run: the queue of events, the trace, clients, healing
 *   server.c   one server: consensus, state, image, installs, the driver of roles
 *   disk.c     raft_io's disk half: what survives a crash, and what is torn by it
 *   net.c      raft_io's network half: latency, loss, cuts, stalls
 *   image.c    the durable image as a value
 *   fault.c    what goes wrong, and when
 *   check.c    what must never happen
 */
#ifndef HW_SIM_SIM_H
#define HW_SIM_SIM_H

#include <raft.h>

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "agent/base/rng.h"
#include "agent/consensus/consensus.h"
#include "storage/hot/hot.h"

#define SIM_SERVERS_MAX 5
#define SIM_CLUSTER 0x51u
#define SIM_NOBODY SIM_SERVERS_MAX /* "server" of events that belong to none */

/* What happened, over all runs. Required: a batch of runs in which it never happened proves nothing, and fails. */
#define SIM_STATS(X)                                  \
    X(elections, "leaders elected", true)             \
    X(acked, "writes acknowledged", true)             \
    X(unknown, "writes of unknown outcome", true)     \
    X(refused, "writes refused", true)                \
    X(nospace, "writes refused for space", true)      \
    X(crashes, "crashes", true)                       \
    X(restarts, "restarts", true)                     \
    X(torn, "crashes within a disk write", true)      \
    X(partitions, "partitions", true)                 \
    X(one_way, "one-way cuts", true)                  \
    X(stalls, "stalled links", true)                  \
    X(lost, "messages lost", true)                    \
    X(slow_disks, "slow disks", true)                 \
    X(disk_errors, "disk errors", true)               \
    X(put_errors, "snapshot writes failed", true)     \
    X(image_errors, "checkpoints failed", true)       \
    X(transfers, "leadership transfers", true)        \
    X(suspicions, "leaders suspected", true)          \
    X(snapshots, "snapshots written", true)           \
    X(installs, "images installed", true)             \
    X(install_breaks, "image transfers broken", true) \
    X(ahead, "restarts with an image ahead", true)    \
    X(wipes, "disks lost", true)                      \
    X(changes, "membership changes", true)            \
    X(compactions, "compactions", true)               \
    X(checkpoints, "checkpoints", true)

struct sim_stats {
#define X(name, text, required) uint64_t name;
    SIM_STATS(X)
#undef X
};

/* ---- events ---- */

struct sim;
struct sim_event {
    RB_ENTRY(sim_event) link;
    uint64_t at_ms;
    uint64_t seq;
    const char *what;
    unsigned server;
    bool is_set;
    void (*fire)(struct sim *s, struct sim_event *e);
};
RB_HEAD(sim_event_tree, sim_event);

/* Once, after delay_ms; an event that is set already moves. */
void sim_after(struct sim *s, struct sim_event *e, uint64_t delay_ms, unsigned server, const char *what,
               void (*fire)(struct sim *s, struct sim_event *e));
void sim_cancel(struct sim *s, struct sim_event *e);
/* Part of the trace that two runs of a seed must agree on. */
void sim_trace(struct sim *s, unsigned server, const char *what, uint64_t a, uint64_t b);
/* The first violation ends the run. */
void sim_fail(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t sim_below(struct sim *s, uint64_t bound);
bool sim_chance(struct sim *s, unsigned percent);
/* In [lo, hi]. */
uint64_t sim_between(struct sim *s, uint64_t lo, uint64_t hi);

/* ---- disk ---- */

struct disk_op;
TAILQ_HEAD(disk_op_list, disk_op);
struct disk {
    /* survives a crash */
    raft_term term;
    raft_id vote;
    struct raft_entry *entries; /* each owns its buf */
    size_t count;
    size_t cap;
    raft_index first; /* index of entries[0], or of the next one */
    bool has_snapshot;
    raft_index snapshot_index;
    raft_term snapshot_term;
    raft_index conf_index;
    struct hw_buf conf;
    struct hw_buf data;
    /* of this life */
    raft_index next_index; /* as submitted, which runs ahead of what is written */
    uint64_t busy_until_ms;
    struct disk_op_list ops;  /* in order, as raft_uv's barriers have it */
    struct disk_op_list gets;
    bool is_broken; /* an error was met: nothing is written any more */
    /* faults */
    uint64_t latency_ms;
    bool fails_append;
    unsigned fails_puts;
};

struct server;
void disk_init(struct disk *d);
void disk_free(struct disk *d);
void disk_bootstrap(struct disk *d, const struct raft_configuration *conf);
void disk_wrap(struct server *v);
/* The machine loses power: of what is being written, a part arrives. Before the callbacks are cancelled. */
void disk_power_cut(struct server *v);
void disk_cancel(struct server *v);
raft_index disk_last(const struct disk *d);

/* ---- network ---- */

struct message;
struct sending;
TAILQ_HEAD(message_list, message);
TAILQ_HEAD(sending_list, sending);
struct link {
    bool is_cut;
    bool is_stalled;
    uint64_t last_ms; /* of the newest delivery: one connection keeps its order */
    struct message_list stalled;
};

void net_init(struct sim *s);
void net_close(struct sim *s);
void net_wrap(struct server *v);
void net_heal(struct sim *s);
void net_stall(struct sim *s, unsigned from, unsigned to, bool on);
/* The sender is gone: its callbacks run with RAFT_CANCELED. */
void net_cancel(struct server *v);
/* Every connection to this server breaks. */
void net_reset_to(struct sim *s, unsigned to);
bool net_is_connected(const struct sim *s, unsigned a, unsigned b);

/* ---- image ---- */

struct image {
    struct hw_hot_counters counters;
    struct hw_version **versions;
    size_t version_count;
    size_t version_cap;
    struct hw_node *nodes;
    size_t node_count;
    struct hw_event *events;
    size_t event_count;
};
void image_init(struct image *m);
void image_free(struct image *m);
void image_apply(struct image *m, const struct hw_cut *cut);
void image_copy(struct image *to, const struct image *from);
/* NULL and a failed run when it cannot be loaded. */
struct hw_hot *image_load(struct sim *s, struct image *m);

/* ---- servers ---- */

struct checkpoint {
    struct sim_event timer;
    struct sim_event write;
    struct hw_cut *cut;
    bool is_suspended;
    bool is_failing;
    bool has_durable_wait;
    uint64_t durable_index;
};

struct install {
    bool is_wanted;
    bool is_copying;
    bool is_installed;
    uint64_t index;
    unsigned source;
    unsigned source_life;
    struct image incoming;
    struct hw_hot *loaded;
    struct sim_event event;
};

struct server {
    struct sim *sim;
    unsigned at;  /* which machine */
    uint64_t id;  /* which incarnation of its disk */
    char address[16];
    bool is_up;
    unsigned life; /* counts starts */
    struct disk disk;
    struct image image;
    /* of this life */
    struct raft raft;
    struct raft_io io;
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    unsigned tick_ms;
    struct sim_event tick_event;
    struct sim_event driver_event;
    struct sim_event crash_event;
    struct sim_event start_event;
    struct sending_list sendings;
    struct hw_consensus *consensus;
    struct hw_hot *hot;
    struct checkpoint checkpoint;
    struct install install;
    uint64_t acquire_term;
    bool is_acquiring;
    bool is_changing;
    bool was_leader;
    struct hw_change change;
    const char *crash_why;
};

void server_init(struct sim *s, unsigned at);
void server_free(struct server *v);
void server_start(struct server *v);
void server_crash(struct server *v, const char *why);
/* The disk and all on it are gone; the machine comes back as another node. */
void server_wipe(struct server *v);
/* What the loop does at the end of a turn. */
void server_turn(struct server *v);
bool server_is_leader(const struct server *v);
bool server_is_hot(const struct server *v);
void server_transfer(struct server *v);
struct server *server_of_id(struct sim *s, uint64_t id);

/* ---- clients ---- */

enum op_kind { OP_PUT, OP_TXN, OP_DELETE, OP_COMPACT, OP_EVENT, OP_NODE, OP_ACQUIRE };
struct op {
    struct hw_proposal proposal;
    struct hw_result result;
    struct server *server;
    uint64_t id; /* in every command as its wall_ms, so that an entry names its proposal */
    enum op_kind kind;
    char key[16];
    char value[24];
};
/* Propose; counts what comes of it. False when refused at once. */
bool op_propose(struct server *v, enum op_kind kind);

/* ---- checks ---- */

enum op_fate { FATE_OPEN, FATE_ACKED, FATE_UNKNOWN, FATE_REFUSED };
struct fate {
    enum op_fate fate;
    uint64_t index; /* where it was applied; 0: nowhere yet */
};
struct truth {
    uint64_t entry_hash; /* 0: no command here, or not seen yet */
    uint64_t state_hash;
};
struct ack {
    uint64_t index;
    hw_rev revision;
    bool is_delete;
    char key[16];
    char value[24];
};
struct checks {
    struct truth *truth; /* by log index */
    size_t truth_cap;
    uint64_t index_max;
    struct fate *fates; /* by op id */
    size_t fate_cap;
    struct ack *acks;
    size_t ack_count;
    size_t ack_cap;
    uint64_t *leaders; /* by term */
    size_t leader_cap;
};
void check_free(struct checks *c);
void check_leader(struct server *v, uint64_t term);
void check_entry(struct server *v, uint64_t index, uint64_t term, struct hw_slice entry, uint64_t epoch_before,
                 bool is_applied);
void check_done(struct op *op, int status);
/* The whole state against what is known. */
void check_state(struct server *v, const char *when);
uint64_t check_content(struct hw_hot *hot);

/* ---- the run ---- */

/* What is broken on purpose, to see that it is found. */
enum canary {
    CANARY_NONE,
    CANARY_VOTE,    /* a crash forgets the vote */
    CANARY_FSYNC,   /* a crash loses entries that were reported written */
    CANARY_DURABLE, /* a manifest is stored before its image */
    CANARY_ACK      /* what a leader has proposed is called applied */
};

struct sim_options {
    uint64_t steps;
    bool is_verbose;
    enum canary canary;
};

struct sim {
    uint64_t seed;
    const struct sim_options *options;
    struct hw_rng rng;
    uint64_t now_ms;
    uint64_t steps;
    uint64_t seq;
    struct sim_event_tree events;
    uint64_t trace;
    bool has_failed;
    char failure[640];
    struct sim_stats stats;
    struct checks checks;

    struct server servers[SIM_SERVERS_MAX];
    unsigned server_count;
    unsigned voters_wanted;
    uint64_t next_id;
    struct link links[SIM_SERVERS_MAX][SIM_SERVERS_MAX];

    /* drawn once */
    unsigned snapshot_threshold;
    unsigned snapshot_trailing;
    uint64_t checkpoint_ms;
    unsigned key_count;
    /* in force now */
    unsigned loss_percent;
    uint64_t latency_ms;
    uint64_t image_latency_ms;
    bool is_healing;
    uint64_t next_op;
    struct sim_event client;
    struct sim_event fault;
};

void fault_start(struct sim *s);
void fault_heal(struct sim *s);
bool fault_is_replacing(const struct sim *s);

/* One run; the sim keeps trace, stats and failure. */
void sim_run(struct sim *s, uint64_t seed, const struct sim_options *options);

#endif
