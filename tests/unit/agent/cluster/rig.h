/* Up to three nodes on one loop: real consensus (real disk, real connections between them), a real state, and of the
 * replica only what the cluster driver asks for: who is hot, who is reachable (as the case wants it), and a way into the
 * log. Node 0 has the cluster object.
 */
#ifndef HW_TEST_CLUSTER_RIG_H
#define HW_TEST_CLUSTER_RIG_H

#include "agent/cluster/cluster.h"
#include "agent/loop/stream.h"
#include "tests/unit/hw_test.h"

#define RIG_NODES_MAX 3
#define RIG_PATIENCE_MS 15000
#define RIG_ID(i) ((uint64_t)(i) + 1)

struct rig_node {
    struct rig *rig;
    uint64_t id;
    char address[64];
    struct hw_listener *listener;
    struct hw_consensus *consensus;
    struct hw_hot *hot;
    uint64_t claimed_term;
};

struct rig {
    struct hw_loop *loop;
    struct hw_pool *pool;
    struct hw_timer *tick;
    struct rig_node nodes[RIG_NODES_MAX];
    unsigned node_count;
    struct hw_cluster *cluster;
    uint64_t unreachable[8]; /* ids; 0: none */
    bool is_never_hot;
    bool refuses_proposals;
    struct hw_change handover;
    unsigned closed;
};

/* Nodes that vote from the start, each in the registry as "n1", "n2", ...; returns when node 0 is hot. */
void rig_open(struct rig *r, unsigned node_count);
void rig_close(struct rig *r);
bool rig_is_hot(struct rig *r, unsigned at);
enum hw_role rig_role(struct rig *r, uint64_t id);
const struct hw_node *rig_registered(struct rig *r, const char *name);
/* Has the history a record of this kind about this node? */
bool rig_has_event(struct rig *r, const char *kind, uint64_t node_id);
void rig_set_reachable(struct rig *r, uint64_t id, bool is_reachable);
/* Turn the loop until the counter is there; false when it takes too long. */
bool rig_until(struct rig *r, const int *value, int want);
bool rig_until_role(struct rig *r, uint64_t id, enum hw_role role);
void rig_turns(struct rig *r, unsigned ms);

#endif
