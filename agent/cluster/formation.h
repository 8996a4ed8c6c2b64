/* How a node without data finds its cluster: it forms a new one with the other initial nodes, or joins one that exists.
 *
 * Rules:
 *  - A node that belongs to no cluster asks every address it knows (cluster.initial, cluster.join) who is there.
 *  - If anybody belongs to a cluster of the right name, this node asks to be let in (Join) with its fresh id. A wiped
 *    node takes this way too: it never votes on an empty disk under its old id. Members of a quorum that was given up
 *    (hwctl recover) may still answer: the highest recovery counts.
 *  - A new cluster is formed only when every initial node has answered that it belongs to none, and none of them has
 * data of an old one in quarantine. The one with the lowest name (the seed) draws the cluster id, stores the list of
 * members, and sends it to the others (Form), who store it; when a majority has, each starts its log with that first
 * configuration. The seed's list is stored before it is sent, so a crash halfway goes on with the same list.
 *  - The lists of initial nodes are compared (initial.h): each node says its own when it asks and when it answers.
 * While that of a node which asks or answers differs, no cluster is formed, and both say so.
 *  - A node asks to be let in only where a hot node is known. When no member that answers knows one, this node says
 * what they say is missing.
 *  - A node with neither addresses nor other initial nodes waits to be added (hwctl node add), or, when it is the only
 *    initial node, forms a cluster of one.
 *
 * Life cycle: hw_formation_new · hw_formation_start · ... · hw_formation_free (in any state). Loop thread only.
 */
#ifndef HW_CLUSTER_FORMATION_H
#define HW_CLUSTER_FORMATION_H

#include "agent/loop/loop.h"
#include "agent/loop/pool.h"
#include "storage/hot/command.h"

#define HW_FORMATION_PEERS_MAX 16

struct hw_formation;

struct hw_formation_member {
    uint64_t id;
    char name[HW_NODE_NAME_MAX];
    char peer_address[HW_ADDRESS_MAX];
};

struct hw_formation_peer {
    char name[HW_NODE_NAME_MAX]; /* empty for a join address: any */
    char address[HW_ADDRESS_MAX];
};

struct hw_formation_config {
    const char *cluster_name;
    struct hw_node self;                                    /* id, name, addresses */
    struct hw_formation_peer peers[HW_FORMATION_PEERS_MAX]; /* the other initial nodes, or the addresses to join by */
    size_t peer_count;
    bool is_initial; /* this node is one of the initial nodes */
    /* It had data, which was put aside for being damaged: it may join, but not form a new cluster, in which all that
     * the old one had acknowledged would be forgotten. */
    bool has_lost_data;
    /* A seed that stopped halfway goes on: */
    uint64_t forming_cluster_id;
    struct hw_formation_member forming[HW_FORMATION_PEERS_MAX];
    size_t forming_count;
};

struct hw_formation_ops {
    /* The seed has decided: store it durably before returning 0. */
    int (*on_decided)(void *ctx, uint64_t cluster_id, const struct hw_formation_member *members, size_t count);
    /* Enough others have stored it: start the log with the members given before. The object may be freed from here. */
    void (*on_formed)(void *ctx);
    /* Let in: start the log empty. The object may be freed from here. */
    void (*on_joined)(void *ctx, uint64_t cluster_id, uint64_t recovery);
};

int hw_formation_new(struct hw_loop *loop, struct hw_pool *resolver, const struct hw_formation_config *config,
                     const struct hw_formation_ops *ops, void *ctx, struct hw_formation **formation);
void hw_formation_start(struct hw_formation *f);
/* Another node that waits for a cluster has asked who is here, and said what its cluster.initial is. */
void hw_formation_note_asker(struct hw_formation *f, const char *name, const struct hw_formation_peer *initial,
                             size_t count);
/* Why there is no cluster for this node although others answer, a sentence; NULL: nothing is known to be wrong. Valid
 * until the next turn of the loop. */
const char *hw_formation_problem(const struct hw_formation *f);
/* Memory goes when the last call under way has ended; no callback runs any more. NULL is allowed. */
void hw_formation_free(struct hw_formation *f);
/* "waiting", "forming" or "joining". */
const char *hw_formation_phase(const struct hw_formation *f);

#endif
