/* Membership and the hot tenure, driven: lets nodes in, takes them out, gives them their roles (roles.h), moves the hot
 * tier on request. Knows the log (agent/consensus) and the state (storage/hot); what belongs to its sibling, the
 * replica, comes in through hw_cluster_ops.
 *
 * All changes are made on the hot node, one at a time, and are refused elsewhere with HW_ERR_NOTHOT. Loop thread only.
 */
#ifndef HW_CLUSTER_CLUSTER_H
#define HW_CLUSTER_CLUSTER_H

#include "agent/cluster/roles.h"
#include "agent/consensus/consensus.h"
#include "agent/loop/loop.h"
#include "storage/hot/hot.h"

struct hw_cluster;

struct hw_cluster_ops {
    bool (*is_hot)(void *ctx);
    bool (*is_reachable)(void *ctx, uint64_t id);
    struct hw_hot *(*hot)(void *ctx);
    /* Put a command into the log; done(arg, status, result code) later. Negative: not taken. */
    int (*propose)(void *ctx, const struct hw_cmd *cmd, void (*done)(void *arg, int status), void *arg);
    /* Leadership is about to be handed over on purpose: what is proposed now still comes before. May be NULL. */
    void (*on_hand_over)(void *ctx);
};

struct hw_cluster_config {
    uint64_t self_id;
    const char *self_name; /* taken, also before this node is in the registry */
    unsigned voters_wanted;
    uint64_t lag_max;           /* default 1000 entries */
    unsigned change_timeout_ms; /* a join or removal that takes longer is given up; default 30000 */
};

int hw_cluster_new(struct hw_loop *loop, const struct hw_cluster_config *config, struct hw_consensus *consensus,
                   const struct hw_cluster_ops *ops, void *ctx, struct hw_cluster **cluster);
/* Pending requests complete with HW_ERR_CANCELLED before it returns. */
void hw_cluster_free(struct hw_cluster *cluster);
/* Something changed (members, hot, reachability): decide again. Also runs by itself every 200 ms while hot. */
void hw_cluster_poke(struct hw_cluster *cluster);

/* Let a node in, or refresh its addresses: removes an older incarnation of the same name (refused with HW_ERR_EXISTS
 * while that one is reachable), adds it as spare, registers it. Idempotent. At most 16 wait at once. */
struct hw_join {
    void (*done)(struct hw_join *j, int status);
    void *data;
    struct hw_node node;       /* id, name, addresses */
    struct hw_error e;         /* the reason of a refusal */
    TAILQ_ENTRY(hw_join) link; /* private */
    uint64_t deadline_ms;      /* private */
};
int hw_cluster_join(struct hw_cluster *cluster, struct hw_join *j);

/* Take a node out by name. The hot node itself, the last voter, and a removal that would leave no quorum of reachable
 * voters are refused with HW_ERR_PRECONDITION. */
struct hw_leave {
    void (*done)(struct hw_leave *l, int status);
    void *data;
    char name[HW_NODE_NAME_MAX];
    struct hw_error e;
    TAILQ_ENTRY(hw_leave) link;
    uint64_t deadline_ms;
};
int hw_cluster_leave(struct hw_cluster *cluster, struct hw_leave *l);

/* Hand the hot tier to a voter (to == 0: the most up-to-date reachable one). done(0) when the other node's HotAcquired
 * was applied here; epoch and to are filled. */
struct hw_switchover {
    void (*done)(struct hw_switchover *s, int status);
    void *data;
    uint64_t to;
    uint64_t epoch;
    uint64_t started_ms;
    uint64_t deadline_ms;
    struct hw_error e;
    struct hw_change change; /* private */
    struct hw_cluster *cluster;
    bool is_transferring;
};
int hw_cluster_switchover(struct hw_cluster *cluster, struct hw_switchover *s, uint64_t timeout_ms);

#endif
