/* A small cluster for the consensus tests: real servers on one loop, over loopback, with real disks, each with a toy
 * state. The toy state is a hash over all entries in order; a table of the hash after each index, filled by whoever
 * comes there first, shows at once when two servers disagree. Its image survives a restart of the server. */
#ifndef TEST_CONSENSUS_CLUSTER_H
#define TEST_CONSENSUS_CLUSTER_H

#include "agent/consensus/consensus.h"
#include "tests/unit/hw_test.h"

#define NODES_MAX 5
#define WAIT_MS 60000

struct toy_state {
    uint64_t index;
    uint64_t hash;
    uint64_t count;
};

struct cluster;

struct node {
    struct cluster *cl;
    uint64_t id;
    const char *folder;
    struct hw_listener *listener;
    struct hw_consensus *c; /* NULL: down */
    struct toy_state state;
    struct toy_state image; /* durable */
    struct hw_timer *durable_timer;
    bool is_installing;
    struct toy_state manifest; /* of the snapshot asked for */
    unsigned snapshots;
    unsigned installs;
    unsigned restores;
    unsigned changes; /* on_change */
    struct hw_consensus_view view;
    uint64_t applied_told;
    bool is_closed;
    bool has_failed;
    char why[256];
    struct hw_error e;
};

struct cluster {
    struct hw_loop *loop;
    struct hw_pool *pool;
    struct hw_metrics *metrics;
    struct node nodes[NODES_MAX];
    struct hw_consensus_config config; /* what all have in common */
    unsigned durable_ms;
    uint64_t *table; /* hash after index */
    size_t table_len;
    unsigned disagreements;
    size_t acked;
    size_t failed[32]; /* proposals by -status */
};

/* Entries carry the proposer's number, so that nothing is applied twice unnoticed. */
struct write {
    struct hw_proposal p;
    struct cluster *cl;
    int status; /* 1: under way */
    unsigned done_count;
    uint64_t applied_index;
};

void cluster_open(struct cluster *cl);
void cluster_close(struct cluster *cl);
/* Make the object, and its listener the first time. */
void node_new(struct node *n);
void node_start(struct node *n);
void node_stop(struct node *n);
void cluster_start(struct cluster *cl, unsigned voters);
/* Nobody leads: elect soon. Done after the start, and when the leader is stopped. */
void cluster_hurry(struct cluster *cl);
struct node *cluster_leader(struct cluster *cl); /* NULL: none, or not known by all that are up */

typedef bool (*cluster_cond)(struct cluster *cl, void *arg);
bool cluster_wait(struct cluster *cl, cluster_cond cond, void *arg);
bool cluster_wait_leader(struct cluster *cl);
/* All that are up have applied as far as the leader. */
bool cluster_wait_even(struct cluster *cl);

int write_propose(struct node *n, struct write *w, size_t len);
/* Propose one and wait for its end, at whoever leads; tries again while nobody does. Returns its status. */
int cluster_write(struct cluster *cl, size_t len);

struct change_wait {
    struct hw_change ch;
    int status; /* 1: under way */
};
void change_wait_init(struct change_wait *w);
bool cluster_wait_change(struct cluster *cl, struct change_wait *w);

#endif
