/* The cluster in one process, in virtual time: real agent/consensus (detached), real libraft, real storage/hot; the
 * disk, the network, the clock and the image are simulated, and break in seeded ways. One seed is one history:
 * everything is drawn from one generator and every event has its place in one queue, so a seed replays exactly.
 *
 * Why not libraft's own fixture: its disk forgets what a restart needs (a snapshot does not shorten its log, truncation
 * ignores where the log starts, dead servers keep their memory), and it knows no loss, no reordering between links and
 * no torn writes.
 *
 *   sim.c      the command line, the runs, the summary
 *   world.c    one run: the queue of events, the trace, clients, healing
 *   server.c   one server: libraft, consensus and state, its starts and crashes
 *   keep.c     its checkpoints and installs
 *   driver.c   its changes of members and roles, while hot
 *   disk.c     raft_io's disk half: what survives a crash, and what is torn by it
 *   net.c      raft_io's network half: latency, loss, cuts, stalls
 *   image.c    the durable image as a value
 *   fault.c    what goes wrong, and when
 *   check.c    what must never happen
 */
#ifndef HW_SIM_SIM_H
#define HW_SIM_SIM_H

#include "agent/base/rng.h"
#include "tests/sim/check.h"
#include "tests/sim/server.h"

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
    X(grants, "leases granted", true)                 \
    X(attached, "keys attached to leases", true)      \
    X(revoked, "leases revoked", true)                \
    X(checkpoints, "checkpoints", true)

struct sim_stats {
#define X(name, text, required) uint64_t name;
    SIM_STATS(X)
#undef X
};

/* ---- the run ---- */

/* What is broken on purpose, to see that it is found. */
enum canary {
    CANARY_NONE,
    CANARY_VOTE,    /* a crash forgets the vote */
    CANARY_FSYNC,   /* a crash loses entries that were reported written */
    CANARY_DURABLE, /* a manifest is stored before its image */
    CANARY_ACK,     /* what a leader has proposed is called applied */
    CANARY_LEASE    /* an image forgets a lease's remaining time */
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
void fault_restart(struct server *v);
bool fault_is_replacing(const struct sim *s);

/* One run; the sim keeps trace, stats and failure. */
void sim_run(struct sim *s, uint64_t seed, const struct sim_options *options);

#endif
