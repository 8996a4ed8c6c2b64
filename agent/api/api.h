/* The services on the wire: decode, validate, call, encode. One object holds both ports' servers: the client port
 * (etcd v3, hotwarm.v1.Admin, health, HTTP) and the peer port (hotwarm.v1.Peer, and Raft's streams, which it hands to
 * consensus). What a service needs is set when it is there: before the replica has started, calls that need it are
 * answered with UNAVAILABLE and a sentence that says what the node is doing.
 *
 * Life cycle: hw_api_new · hw_api_listen · hw_api_set_* · hw_api_shut(on_closed) · hw_api_free. Loop thread only.
 */
#ifndef HW_API_API_H
#define HW_API_API_H

#include "agent/base/metrics.h"
#include "agent/cluster/cluster.h"
#include "agent/loop/loop.h"
#include "agent/replica/replica.h"

/* Clients switch features on by it (etcd's Maintenance.Status.version). */
#define HW_ETCD_VERSION "3.5.13"

struct hw_api;

struct hw_api_config {
    const char *client_listen;
    const char *peer_listen;
    const char *client_address; /* advertised */
    const char *peer_address;
    const char *cluster_name;
    const char *node_name;
    uint64_t node_id;
    size_t request_bytes_max;
    unsigned txn_ops_max;
    unsigned connections_max;
    unsigned streams_max;
    unsigned request_timeout_ms;
    unsigned scan_slice_keys;
    uint64_t transfer_chunk_bytes;
    uint64_t transfer_rate_mb;      /* 0: unlimited */
    uint64_t watch_queue_bytes_max; /* of one stream; 0: the default, 4 MiB */
    uint64_t watch_progress_ms;     /* 0: the default, 600000 */
};

/* What only the composition root knows: the answers of Hello and Form before there is a replica. */
struct hw_hello {
    uint64_t id;
    uint64_t cluster_id;
    bool has_lost_data;  /* of a cluster, in quarantine */
    uint64_t recovery;   /* which recovery of this cluster; 0: none */
    const char *phase;   /* "loading", "waiting", "forming", "joining", "member", "rebuilding", "stopping" */
    const char *problem; /* what is wrong, a sentence; NULL: nothing known. Valid for the turn */
    const struct hw_form_member *initial; /* cluster.initial; lives as long as the owner */
    size_t initial_count;
};
struct hw_form_member {
    uint64_t id; /* 0 in a list of initial nodes */
    char name[HW_NODE_NAME_MAX];
    char peer_address[HW_ADDRESS_MAX];
};
struct hw_api_ops {
    void (*hello)(void *ctx, struct hw_hello *hello);
    /* Another node says what the cluster is. 0: accepted and stored; else why not. */
    int (*form)(void *ctx, uint64_t cluster_id, uint64_t recovery, const struct hw_form_member *members, size_t count,
                struct hw_error *e);
    /* A node of this cluster's name that waits has said what its cluster.initial is. NULL: of no interest. */
    void (*asked)(void *ctx, const char *name, const struct hw_form_member *initial, size_t count);
    /* Give the quorum up and go on alone: begun (the node starts anew in a moment; *recovery: its number), or why
     * not. */
    int (*recover)(void *ctx, uint64_t *recovery, struct hw_error *e);
};

int hw_api_new(struct hw_loop *loop, struct hw_pool *resolver, struct hw_metrics *metrics,
               const struct hw_api_config *config, const struct hw_api_ops *ops, void *ctx, struct hw_api **api,
               struct hw_error *e);
/* Both ports, or neither: HW_ERR_INUSE and a sentence that names the address. */
int hw_api_listen(struct hw_api *api, struct hw_error *e);
/* NULL takes it away: pending calls of that part are answered with UNAVAILABLE by their own completions. */
void hw_api_set_replica(struct hw_api *api, struct hw_replica *replica, uint64_t cluster_id);
void hw_api_set_cluster(struct hw_api *api, struct hw_cluster *cluster);
/* Readiness as /readyz and grpc.health see it; why is a sentence while it is not. */
bool hw_api_is_ready(struct hw_api *api, const char **why);
/* Stop accepting, let calls end for grace_ms. */
void hw_api_shut(struct hw_api *api, uint64_t grace_ms, void (*on_closed)(void *ctx), void *ctx);
void hw_api_free(struct hw_api *api);
/* The bound addresses (useful with port 0). */
const char *hw_api_client_bound(const struct hw_api *api);
const char *hw_api_peer_bound(const struct hw_api *api);

#endif
