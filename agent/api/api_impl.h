/* Private to agent/api: the struct behind api.h and what its files share. One service, one file; each gives a table of
 * methods (exchange.h) or, for streams, functions for the server.
 */
#ifndef HW_API_IMPL_H
#define HW_API_IMPL_H

#include "agent/api/api.h"
#include "agent/api/arena.h"
#include "agent/api/exchange.h"
#include "agent/api/image_copy.h"
#include "agent/api/port.h"
#include "agent/api/range.h"
#include "agent/api/watch.h"
#include "agent/base/assert.h"
#include "agent/http/http.h"

#define HW_COMPONENT "api"
/* How often deadlines, silent connections, watchers and copies are looked at. */
#define HW_API_TICK_MS 100

TAILQ_HEAD(hw_exchange_list, hw_exchange);

struct hw_exchanges {
    struct hw_exchange_list usual; /* in the order of their deadlines: all have the same limit */
    struct hw_exchange_list slow;
    struct hw_exchange_list over; /* their clients have been answered, their handlers have not ended */
    struct hw_exchange_list retry;
    struct hw_exchange_list spare;
    unsigned count;
    unsigned spare_count;
    struct hw_timer *retry_timer;
};

/* The size of the image file, looked at now and then by the replica's worker: stat may wait for a disk. */
struct hw_image_size {
    struct hw_job job;
    bool is_busy;
    uint64_t looked_ms;
    uint64_t bytes;
    uint64_t found; /* the worker's */
    char path[4096];
};

struct hw_health_watcher;
TAILQ_HEAD(hw_health_watcher_list, hw_health_watcher);

struct hw_keep_alive_stream;
TAILQ_HEAD(hw_keep_alive_list, hw_keep_alive_stream);

struct hw_api {
    struct hw_loop *loop;
    struct hw_pool *resolver;
    struct hw_metrics *metrics;
    struct hw_api_config config; /* its strings are copies */
    struct hw_api_ops ops;
    void *ctx;
    uint64_t started_ms;

    struct hw_replica *replica;
    struct hw_cluster *cluster;
    uint64_t cluster_id;

    struct hw_arena arena;
    struct hw_buf out;
    struct hw_exchanges exchanges;
    struct hw_ranges ranges;
    struct hw_health_watcher_list watchers; /* of health */
    unsigned watcher_count;
    struct hw_watches watches; /* of keys */
    struct hw_keep_alive_list keep_alives;
    struct hw_images images;
    struct hw_image_size image_size;
    unsigned queries; /* running */

    struct hw_endpoint *endpoints;
    struct hw_rpc_server *client_rpc;
    struct hw_rpc_server *peer_rpc;
    struct hw_http_server *http;
    struct hw_port client_port;
    struct hw_port peer_port;
    struct hw_timer *tick;

    struct hw_scope *scope;
    struct hw_hold hold_client, hold_peer, hold_http, hold_grace;
    struct hw_timer *grace;
    bool is_stopping;
    bool is_freed;
    unsigned refs; /* the owner, exchanges, jobs, streams: memory goes with the last */
};

void hw_api_ref(struct hw_api *api);
void hw_api_unref(struct hw_api *api);
/* A replica that has loaded its state and takes part. */
bool hw_api_has_state(const struct hw_api *api);
/* gRPC's and HTTP's word for what the node is doing ("loading", "member", ...). */
const char *hw_api_phase(struct hw_api *api);

/* ---- services ---- */
extern const struct hw_service_method hw_kv_methods[];
extern const size_t hw_kv_method_count;
extern const struct hw_service_method hw_lease_methods[];
extern const size_t hw_lease_method_count;
extern const struct hw_service_method hw_cluster_methods[];
extern const size_t hw_cluster_method_count;
extern const struct hw_service_method hw_maintenance_methods[];
extern const size_t hw_maintenance_method_count;
extern const struct hw_service_method hw_admin_methods[];
extern const size_t hw_admin_method_count;
extern const struct hw_service_method hw_health_methods[];
extern const size_t hw_health_method_count;
extern const struct hw_service_method hw_peer_methods[];
extern const size_t hw_peer_method_count;

/* All methods that have HW_METHOD_FORWARDED; NULL when the path is not one of them. */
const struct hw_service_method *hw_api_forwarded_method(const char *path);

/* exchange.c */
void hw_exchanges_init(struct hw_api *api);
void hw_exchanges_close(struct hw_api *api);
void hw_exchanges_tick(struct hw_api *api);
/* Let go of what the replica owns, because it goes away. */
void hw_exchanges_abort(struct hw_api *api);
/* Answer every client; handlers go on. */
void hw_exchanges_cancel(struct hw_api *api);

/* health.c: a stream */
void hw_health_watch(void *api, struct hw_call *call, struct hw_slice message);
void hw_health_tick(struct hw_api *api);
void hw_health_close(struct hw_api *api);

/* lease_stream.c: a stream */
#define HW_KEEP_ALIVE_PATH "/etcdserverpb.Lease/LeaseKeepAlive"
void hw_keep_alive_open(void *api, struct hw_call *call);
void hw_keep_alive_message(void *api, struct hw_call *call, struct hw_slice message);
void hw_keep_alive_half_close(void *api, struct hw_call *call);
void hw_keep_alives_tick(struct hw_api *api);
void hw_keep_alives_close(struct hw_api *api);

/* maintenance.c */
void hw_maintenance_tick(struct hw_api *api);

/* query.c, node_add.c: methods of Admin with more to do */
void hw_admin_query(struct hw_exchange *x);
void hw_admin_node_add(struct hw_exchange *x);

/* recover.c */
void hw_admin_recover_plan(struct hw_exchange *x);
void hw_admin_recover_apply(struct hw_exchange *x);

/* admin.c: an answer about membership that ended with a status and a sentence */
void hw_admin_fail(struct hw_exchange *x, int status, const struct hw_error *e);

/* http_endpoints.c */
void hw_http_endpoints_add(struct hw_api *api);

#endif
