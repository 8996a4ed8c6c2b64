/* Up to three nodes on one loop: real consensus (real disk, real connections between them), a real state, and of the
 * replica only what the cluster driver asks for: who is hot, who is reachable (as the case wants it), and a way into
 * the log. Node 0 has the cluster object.
 */
#ifndef HW_TEST_CLUSTER_RIG_H
#define HW_TEST_CLUSTER_RIG_H

#include "agent/cluster/cluster.h"
#include "agent/loop/stream.h"
#include "tests/unit/hw_test.h"

#define CRIG_NODES_MAX 3
#define CRIG_PATIENCE_MS 15000
#define CRIG_ID(i) ((uint64_t)(i) + 1)

struct crig_node {
    struct crig *rig;
    uint64_t id;
    char address[64];
    struct hw_listener *listener;
    struct hw_consensus *consensus;
    struct hw_hot *hot;
    uint64_t claimed_term;
};

struct crig {
    struct hw_loop *loop;
    struct hw_pool *pool;
    struct hw_timer *tick;
    struct crig_node nodes[CRIG_NODES_MAX];
    unsigned node_count;
    struct hw_cluster *cluster;
    uint64_t unreachable[8]; /* ids; 0: none */
    bool is_never_hot;
    bool refuses_proposals;
    struct hw_change handover;
    unsigned closed;
};

/* Nodes that vote from the start, each in the registry as "n1", "n2", ...; returns when node 0 is hot. */
void crig_open(struct crig *r, unsigned node_count);
void crig_close(struct crig *r);
bool crig_is_hot(struct crig *r, unsigned at);
enum hw_role crig_role(struct crig *r, uint64_t id);
const struct hw_node *crig_registered(struct crig *r, const char *name);
/* Has the history a record of this kind about this node? */
bool crig_has_event(struct crig *r, const char *kind, uint64_t node_id);
void crig_set_reachable(struct crig *r, uint64_t id, bool is_reachable);
/* Turn the loop until the counter is there; false when it takes too long. */
bool crig_until(struct crig *r, const int *value, int want);
bool crig_until_hot(struct crig *r, unsigned at);
bool crig_until_role(struct crig *r, uint64_t id, enum hw_role role);
void crig_turns(struct crig *r, unsigned ms);

#endif
