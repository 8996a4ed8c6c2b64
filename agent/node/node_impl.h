/* Private to agent/node. node.c: order of life; wiring.c: what siblings ask of each other. */
#ifndef HW_NODE_IMPL_H
#define HW_NODE_IMPL_H

#include "agent/api/api.h"
#include "agent/cluster/cluster.h"
#include "agent/cluster/formation.h"
#include "agent/cluster/lookout.h"
#include "agent/node/node.h"
#include "agent/replica/replica.h"
#include "storage/warm/identity.h"

#define COMPONENT "node"

struct hw_agent {
    struct hw_config running; /* what SIGHUP changed included */
    const struct hw_config *config;
    const struct hw_node_options *options;
    struct hw_loop *loop;
    struct hw_metrics *metrics;
    struct hw_pool *resolver;
    struct hw_datadir *datadir;
    struct hw_identity identity;
    bool has_lost_data;                                 /* see hw_datadir_has_lost_data */
    struct hw_form_member initial[HW_CONFIG_NODES_MAX]; /* cluster.initial, as the ports tell it */
    struct hw_api *api;
    struct hw_formation *formation;
    struct hw_replica *replica;
    struct hw_cluster *cluster;
    struct hw_signal *sigterm, *sigint, *sighup;
    struct hw_timer *stop_timer;
    struct hw_timer *register_timer;
    struct hw_defer later; /* leave a callback before freeing whose it is */
    void (*later_fn)(struct hw_agent *a);
    struct hw_switchover handover;
    struct hw_forward registration;
    struct hw_join own_join;
    bool is_registering;
    bool is_registered;
    bool is_started; /* the replica serves */
    bool is_stopping;
    bool is_again; /* start anew after this run */
    uint64_t next_recovery;
    struct hw_lookout *lookout; /* for other recoveries of this cluster; NULL while there was none */
    bool is_recovery;           /* start again after this run, alone with the data that is there */
    bool has_recovered;         /* ... and this is that run; the history does not say so yet */
    unsigned signals;
    struct hw_reload *reload; /* under way */
    bool is_reload_wanted;    /* again, when that one is done */
    int status;               /* why it ended */
};

/* node.c */
void hw_agent_stop(struct hw_agent *a, int status);
void hw_agent_post(struct hw_agent *a, void (*fn)(struct hw_agent *a));
int hw_agent_start_replica(struct hw_agent *a, bool is_bootstrap);
/* Are there others to be rebuilt from? */
bool hw_agent_can_start_anew(const struct hw_agent *a);
const char *hw_agent_phase(const struct hw_agent *a);

/* reload.c */
void hw_agent_on_reload_signal(void *ctx, int signum);

/* recover.c: a lost quorum is given up (the last one goes on alone), or was given up by another */
int hw_agent_recover(void *ctx, uint64_t *recovery, struct hw_error *e);
void hw_agent_on_superseded(void *ctx, uint64_t recovery);
/* Once it is hot: a record in the history. */
void hw_agent_note_recovery(struct hw_agent *a);
/* In a recovered cluster: ask the configured addresses for other recoveries from now on. */
void hw_agent_look_out(struct hw_agent *a);
/* Between two runs; the data folder is still ours. False: the identity could not be written, and is as it was. */
bool hw_agent_store_recovery(struct hw_agent *a);

/* wiring.c */
extern const struct hw_api_ops hw_agent_api_ops;
extern const struct hw_cluster_ops hw_agent_cluster_ops;
extern const struct hw_formation_ops hw_agent_formation_ops;
extern const struct hw_replica_ops hw_agent_replica_ops;
int hw_agent_start_formation(struct hw_agent *a);
/* Put a command into the log; see hw_cluster_ops. */
int hw_agent_propose(void *ctx, const struct hw_cmd *cmd, void (*done)(void *arg, int status), void *arg);
/* Say who and where we are, until the registry has it. */
void hw_agent_register(struct hw_agent *a);

#endif
