#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "agent/base/log.h"

/* A request of an allowed size must reach us to be refused in etcd's words, so the wire's own limit is above it, as in
 * etcd (grpcOverheadBytes). */
#define WIRE_EXTRA_BYTES ((size_t)512 * 1024)
#define SEND_QUEUE_BYTES_MAX (2 * HW_ANSWER_BYTES_MAX)

static const struct {
    const struct hw_service_method *methods;
    const size_t *count;
    bool is_peer;
} services[] = {
    {hw_kv_methods, &hw_kv_method_count, false},
    {hw_lease_methods, &hw_lease_method_count, false},
    {hw_cluster_methods, &hw_cluster_method_count, false},
    {hw_maintenance_methods, &hw_maintenance_method_count, false},
    {hw_admin_methods, &hw_admin_method_count, false},
    {hw_health_methods, &hw_health_method_count, false},
    {hw_peer_methods, &hw_peer_method_count, true},
};

const struct hw_service_method *hw_api_forwarded_method(const char *path)
{
    for (size_t i = 0; i < hw_array_len(services); i++) {
        for (size_t k = 0; k < *services[i].count; k++) {
            const struct hw_service_method *m = &services[i].methods[k];
            if ((m->flags & HW_METHOD_FORWARDED) != 0 && strcmp(m->path, path) == 0) {
                return m;
            }
        }
    }
    return NULL;
}

/* ---- making ---- */

static int add_services(struct hw_api *api)
{
    size_t count = 0;
    struct hw_endpoint *ep;
    for (size_t i = 0; i < hw_array_len(services); i++) {
        count += *services[i].count;
    }
    api->endpoints = calloc(count, sizeof *api->endpoints);
    if (api->endpoints == NULL) {
        return HW_ERR_NOMEM;
    }
    ep = api->endpoints;
    for (size_t i = 0; i < hw_array_len(services); i++) {
        for (size_t k = 0; k < *services[i].count; k++, ep++) {
            struct hw_method m = {.path = services[i].methods[k].path, .on_unary = hw_exchange_serve, .ctx = ep};
            ep->api = api;
            ep->method = &services[i].methods[k];
            if ((ep->method->flags & HW_METHOD_STREAM) == 0) {
                hw_rpc_server_add(services[i].is_peer ? api->peer_rpc : api->client_rpc, &m, 1);
            }
        }
    }
    return 0;
}

static void add_streams(struct hw_api *api)
{
    struct hw_method client[] = {
        {.path = "/etcdserverpb.Watch/Watch", .on_open = hw_watch_open, .on_message = hw_watch_message, .ctx = api},
        {.path = "/hotwarm.v1.Admin/Snapshot", .on_unary = hw_image_stream_serve, .ctx = api},
        {.path = "/grpc.health.v1.Health/Watch", .on_unary = hw_health_watch, .ctx = api},
        {.path = HW_KEEP_ALIVE_PATH,
         .on_open = hw_keep_alive_open,
         .on_message = hw_keep_alive_message,
         .on_half_close = hw_keep_alive_half_close,
         .ctx = api},
    };
    struct hw_method peer[] = {
        {.path = "/hotwarm.v1.Peer/Image", .on_unary = hw_image_stream_serve, .ctx = api},
        {.path = "/hotwarm.v1.Peer/Forward", .on_unary = hw_exchange_serve_forward, .ctx = api},
    };
    hw_rpc_server_add(api->client_rpc, client, hw_array_len(client));
    hw_rpc_server_add(api->peer_rpc, peer, hw_array_len(peer));
}

static int make_servers(struct hw_api *api)
{
    struct hw_rpc_limits limits;
    struct hw_http_limits http_limits;
    int rc;
    hw_rpc_limits_default(&limits);
    limits.message_bytes_max = api->config.request_bytes_max + WIRE_EXTRA_BYTES;
    limits.streams_max = api->config.streams_max;
    limits.send_queue_bytes_max = SEND_QUEUE_BYTES_MAX;
    hw_http_limits_default(&http_limits);
    rc = hw_rpc_server_new(api->loop, api->metrics, &limits, &api->client_rpc);
    if (rc == 0) {
        /* A forwarded call has a method and a length around it; one peer's calls are those of all its clients. */
        limits.message_bytes_max += WIRE_EXTRA_BYTES;
        limits.streams_max = HW_EXCHANGES_MAX;
        rc = hw_rpc_server_new(api->loop, api->metrics, &limits, &api->peer_rpc);
    }
    if (rc == 0) {
        rc = hw_http_server_new(api->loop, api->metrics, &http_limits, &api->http);
    }
    if (rc == 0) {
        rc = add_services(api);
    }
    if (rc == 0) {
        add_streams(api);
        hw_http_endpoints_add(api);
    }
    return rc;
}

static void on_tick(void *ctx)
{
    struct hw_api *api = ctx;
    hw_exchanges_tick(api);
    hw_health_tick(api);
    hw_watches_tick(api);
    hw_images_tick(api);
    hw_maintenance_tick(api);
    hw_keep_alives_tick(api);
    if (!api->is_stopping) {
        hw_port_tick(&api->client_port);
        hw_port_tick(&api->peer_port);
    }
}

static int copy_config(struct hw_api_config *to, const struct hw_api_config *from)
{
    const char **strings[] = {&to->client_listen, &to->peer_listen,  &to->client_address,
                              &to->peer_address,  &to->cluster_name, &to->node_name};
    int rc = 0;
    *to = *from;
    hw_watches_configure(to);
    for (size_t i = 0; i < hw_array_len(strings); i++) {
        *strings[i] = strdup(*strings[i]);
        rc = *strings[i] == NULL ? HW_ERR_NOMEM : rc;
    }
    return rc;
}

static void free_config(struct hw_api_config *c)
{
    const char *strings[] = {c->client_listen, c->peer_listen,  c->client_address,
                             c->peer_address,  c->cluster_name, c->node_name};
    for (size_t i = 0; i < hw_array_len(strings); i++) {
        free((void *)strings[i]);
    }
}

static void on_grace(void *ctx);

int hw_api_new(struct hw_loop *loop, struct hw_pool *resolver, struct hw_metrics *metrics,
               const struct hw_api_config *config, const struct hw_api_ops *ops, void *ctx, struct hw_api **out,
               struct hw_error *e)
{
    struct hw_api *api = calloc(1, sizeof *api);
    int rc;
    if (api == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "no memory for the services");
    }
    api->refs = 1;
    api->loop = loop;
    api->resolver = resolver;
    api->metrics = metrics;
    api->ops = *ops;
    api->ctx = ctx;
    api->started_ms = hw_loop_now_ms(loop);
    hw_arena_init(&api->arena);
    TAILQ_INIT(&api->watchers);
    TAILQ_INIT(&api->keep_alives);
    TAILQ_INIT(&api->client_port.sniffers);
    TAILQ_INIT(&api->peer_port.sniffers);
    hw_images_init(api);
    hw_watches_init(api);
    hw_exchanges_init(api);
    api->tick = hw_timer_new(loop, "api tick", on_tick, api);
    api->grace = hw_timer_new(loop, "api grace", on_grace, api);
    api->scope = hw_scope_new(loop, "api");
    rc = copy_config(&api->config, config);
    if (rc == 0) {
        rc = make_servers(api);
    }
    if (rc != 0) {
        hw_api_free(api);
        return hw_error_set(e, rc, "no memory for the services");
    }
    *out = api;
    return 0;
}

int hw_api_listen(struct hw_api *api, struct hw_error *e)
{
    int rc = hw_port_open(&api->client_port, api, api->config.client_listen, false, e);
    if (rc != 0) {
        return rc;
    }
    rc = hw_port_open(&api->peer_port, api, api->config.peer_listen, true, e);
    if (rc != 0) {
        hw_port_close(&api->client_port);
        return rc;
    }
    hw_timer_start(api->tick, HW_API_TICK_MS, HW_API_TICK_MS);
    return 0;
}

const char *hw_api_client_bound(const struct hw_api *api)
{
    return api->client_port.listener == NULL ? api->config.client_listen
                                             : hw_listener_address(api->client_port.listener);
}

const char *hw_api_peer_bound(const struct hw_api *api)
{
    return api->peer_port.listener == NULL ? api->config.peer_listen : hw_listener_address(api->peer_port.listener);
}

/* ---- parts come and go ---- */

void hw_api_set_replica(struct hw_api *api, struct hw_replica *replica, uint64_t cluster_id)
{
    if (api->replica != NULL && api->replica != replica) {
        /* Scans read its state, streams its files: they may not outlive it. */
        hw_exchanges_abort(api);
        hw_watches_end(api);
        api->replica = NULL;
        hw_images_close(api);
    }
    api->cluster_id = cluster_id;
    if (replica != NULL && api->replica == NULL) {
        api->replica = replica;
        hw_images_open(api);
    }
}

void hw_api_set_cluster(struct hw_api *api, struct hw_cluster *cluster)
{
    api->cluster = cluster;
}

bool hw_api_has_state(const struct hw_api *api)
{
    return api->replica != NULL && hw_replica_hot(api->replica) != NULL && hw_replica_consensus(api->replica) != NULL;
}

const char *hw_api_phase(struct hw_api *api)
{
    struct hw_replica_status s;
    struct hw_hello hello = {.phase = "starting"};
    if (api->is_stopping) {
        return "stopping";
    }
    if (api->replica != NULL) {
        hw_replica_status(api->replica, &s);
        return s.phase;
    }
    api->ops.hello(api->ctx, &hello);
    return hello.phase;
}

bool hw_api_is_ready(struct hw_api *api, const char **why)
{
    static const struct {
        const char *phase;
        const char *why;
    } reasons[] = {
        {"loading", "the node is loading its state"},
        {"waiting", "the node waits for the other initial nodes, or to be added to a cluster"},
        {"forming", "the cluster is being formed"},
        {"joining", "the node waits to be let into the cluster"},
        {"rebuilding", "the node is fetching an image from a peer"},
        {"stopping", "the node is stopping"},
        {"failed", "the node has failed and is about to end"},
    };
    const char *phase = hw_api_phase(api);
    struct hw_hello hello = {0};
    *why = NULL;
    if (api->replica == NULL && !api->is_stopping) {
        api->ops.hello(api->ctx, &hello);
    }
    if (hello.problem != NULL) {
        *why = hello.problem;
        return false;
    }
    for (size_t i = 0; i < hw_array_len(reasons); i++) {
        if (strcmp(phase, reasons[i].phase) == 0) {
            *why = reasons[i].why;
            return false;
        }
    }
    if (!hw_api_has_state(api)) {
        *why = "the node is starting";
    } else if (hw_replica_hot_id(api->replica) == 0) {
        *why = hw_replica_trouble(api->replica);
        if ((*why)[0] == '\0') {
            *why = "no hot node is known: an election is under way, or too few voters are up";
        }
    }
    return *why == NULL;
}

/* ---- end ---- */

static void on_client_closed(void *ctx)
{
    struct hw_api *api = ctx;
    hw_scope_release(api->scope, &api->hold_client);
}

static void on_peer_closed(void *ctx)
{
    struct hw_api *api = ctx;
    hw_scope_release(api->scope, &api->hold_peer);
}

static void on_http_closed(void *ctx)
{
    struct hw_api *api = ctx;
    hw_scope_release(api->scope, &api->hold_http);
}

/* Grace is over, or all calls have ended before: nothing here may use the replica any more, for it goes next. */
static void let_go(struct hw_api *api)
{
    hw_exchanges_cancel(api);
    hw_api_set_replica(api, NULL, api->cluster_id);
    api->cluster = NULL;
}

static void on_grace(void *ctx)
{
    let_go(ctx);
}

struct closing {
    void (*on_closed)(void *ctx);
    void *ctx;
    struct hw_api *api;
};

static void on_scope_closed(void *ctx)
{
    struct closing *closing = ctx;
    void (*on_closed)(void *ctx) = closing->on_closed;
    void *arg = closing->ctx;
    let_go(closing->api);
    hw_timer_stop(closing->api->tick);
    hw_timer_stop(closing->api->grace);
    free(closing);
    on_closed(arg);
}

void hw_api_shut(struct hw_api *api, uint64_t grace_ms, void (*on_closed)(void *ctx), void *ctx)
{
    struct closing *closing = malloc(sizeof *closing);
    hw_assert(closing != NULL && !api->is_stopping);
    *closing = (struct closing){.on_closed = on_closed, .ctx = ctx, .api = api};
    api->is_stopping = true;
    hw_port_close(&api->client_port);
    hw_port_close(&api->peer_port);
    /* Streams have no end of their own to wait for. */
    hw_health_close(api);
    hw_keep_alives_close(api);
    hw_watches_end(api);
    hw_image_streams_close(api);
    hw_scope_hold(api->scope, &api->hold_client, "client calls");
    hw_scope_hold(api->scope, &api->hold_peer, "peer calls");
    hw_scope_hold(api->scope, &api->hold_http, "http requests");
    hw_rpc_server_shut(api->client_rpc, grace_ms, on_client_closed, api);
    hw_rpc_server_shut(api->peer_rpc, grace_ms, on_peer_closed, api);
    hw_http_server_shut(api->http, on_http_closed, api);
    hw_timer_start(api->grace, grace_ms, 0);
    hw_scope_shut(api->scope, on_scope_closed, closing);
}

void hw_api_ref(struct hw_api *api)
{
    api->refs++;
}

void hw_api_unref(struct hw_api *api)
{
    if (--api->refs > 0) {
        return;
    }
    hw_assert(api->is_freed);
    hw_arena_close(&api->arena);
    hw_watches_close(api);
    hw_buf_free(&api->out);
    free(api->endpoints);
    free_config(&api->config);
    free(api);
}

void hw_api_free(struct hw_api *api)
{
    if (api == NULL) {
        return;
    }
    api->is_stopping = true;
    hw_port_close(&api->client_port);
    hw_port_close(&api->peer_port);
    hw_health_close(api);
    hw_keep_alives_close(api);
    let_go(api);
    hw_exchanges_close(api);
    hw_timer_free(api->tick);
    hw_timer_free(api->grace);
    hw_scope_free(api->scope);
    if (api->client_rpc != NULL) {
        hw_rpc_server_free(api->client_rpc);
    }
    if (api->peer_rpc != NULL) {
        hw_rpc_server_free(api->peer_rpc);
    }
    if (api->http != NULL) {
        hw_http_server_free(api->http);
    }
    api->is_freed = true;
    hw_api_unref(api);
}
