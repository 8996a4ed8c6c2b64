/* HTTP on the client port: probes for load balancers and orchestrators (/livez, /readyz, /hot, /warm answer 200 or
 * 503), metrics, and the cluster's status as JSON. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/api/api_impl.h"
#include "agent/api/status.h"

#define JSON_TYPE "application/json"
#define TEXT_TYPE "text/plain; charset=utf-8"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

static const char *const no_store[] = {"cache-control", "no-store", NULL};

static void reply_error(struct hw_http_req *req, int status, const char *message)
{
    char body[256];
    snprintf(body, sizeof body, "{\"error\": \"unavailable\", \"message\": \"%s\"}\n", message);
    hw_http_reply(req, status, JSON_TYPE, hw_slice_str(body), no_store);
}

/* Takes the reference. Ids are strings in JSON: a number there holds 53 bits. */
static void reply_json(struct hw_http_req *req, int status, json_t *json)
{
    char *text = json == NULL ? NULL : json_dumps(json, JSON_INDENT(2));
    json_decref(json);
    if (text == NULL) {
        reply_error(req, 503, "out of memory");
        return;
    }
    struct hw_buf body;
    hw_buf_init(&body);
    hw_buf_append_str(&body, text);
    hw_buf_append_str(&body, "\n");
    free(text);
    if (body.failed) {
        reply_error(req, 503, "out of memory");
    } else {
        hw_http_reply(req, status, JSON_TYPE, hw_buf_slice(&body), no_store);
    }
    hw_buf_free(&body);
}

/* ---- probes ---- */

static void reply_probe(struct hw_api *api, struct hw_http_req *req, bool is_ok, const char *reason)
{
    bool has_state = hw_api_has_state(api);
    bool is_hot = has_state && hw_replica_is_hot(api->replica);
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:I}", "status", is_ok ? "ok" : "unavailable", "reason",
                  is_ok || reason == NULL ? "" : reason, "node", api->config.node_name, "tier", is_hot ? "hot" : "warm",
                  "epoch", (json_int_t)(has_state ? hw_hot_epoch(hw_replica_hot(api->replica)) : 0));
    reply_json(req, is_ok ? 200 : 503, json);
}

/* The loop runs: it answered. */
static void handle_livez(void *ctx, struct hw_http_req *req)
{
    reply_probe(ctx, req, true, NULL);
}

static void handle_readyz(void *ctx, struct hw_http_req *req)
{
    const char *why;
    bool is_ready = hw_api_is_ready(ctx, &why);
    reply_probe(ctx, req, is_ready, why);
}

static void handle_hot(void *ctx, struct hw_http_req *req)
{
    struct hw_api *api = ctx;
    const char *why;
    bool is_ready = hw_api_is_ready(api, &why);
    bool is_hot = is_ready && hw_replica_is_hot(api->replica);
    reply_probe(api, req, is_hot, is_ready ? "this node is warm" : why);
}

static void handle_warm(void *ctx, struct hw_http_req *req)
{
    struct hw_api *api = ctx;
    const char *why;
    bool is_ready = hw_api_is_ready(api, &why);
    bool is_warm = is_ready && !hw_replica_is_hot(api->replica);
    reply_probe(api, req, is_warm, is_ready ? "this node is hot" : why);
}

/* ---- status ---- */

static json_t *id_json(uint64_t id)
{
    char text[20];
    snprintf(text, sizeof text, "%016" PRIx64, id);
    return json_string(text);
}

static json_t *node_json(const Hotwarm__V1__NodeStatus *n)
{
    return json_pack(
        "{s:o, s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:I, s:I, s:o, s:s, "
        "s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
        "id", id_json(n->id), "name", n->name, "tier", n->tier, "role", n->role, "health", n->health, "phase", n->phase,
        "is_answering", n->is_answering, "term", (json_int_t)n->term, "epoch", (json_int_t)n->epoch, "applied_index",
        (json_int_t)n->applied_index, "commit_index", (json_int_t)n->commit_index, "lag", (json_int_t)n->lag,
        "image_index", (json_int_t)n->image_index, "image_age_ms", (json_int_t)n->image_age_ms, "peer_address",
        n->peer_address, "client_address", n->client_address, "revision", (json_int_t)n->revision, "compacted",
        (json_int_t)n->compacted, "state_hash", id_json(n->state_hash), "version", n->version, "key_count",
        (json_int_t)n->key_count, "state_bytes", (json_int_t)n->state_bytes, "uptime_ms", (json_int_t)n->uptime_ms,
        "proposals", (json_int_t)n->proposals, "rebuild_done_bytes", (json_int_t)n->rebuild_done_bytes,
        "rebuild_total_bytes", (json_int_t)n->rebuild_total_bytes, "loop_stalls", (json_int_t)n->loop_stalls,
        "loop_busy_us_max", (json_int_t)n->loop_busy_us_max);
}

static void status_done(void *arg, const Hotwarm__V1__StatusResponse *m)
{
    json_t *nodes = json_array();
    for (size_t i = 0; nodes != NULL && i < m->n_nodes; i++) {
        json_array_append_new(nodes, node_json(m->nodes[i]));
    }
    reply_json(arg, 200,
               json_pack("{s:s, s:o, s:s, s:s, s:I, s:o}", "cluster_name", m->cluster_name, "cluster_id",
                         id_json(m->cluster_id), "answered_by", m->answered_by, "hot_node", m->hot_node, "epoch",
                         (json_int_t)m->epoch, "nodes", nodes));
}

static void handle_status(void *ctx, struct hw_http_req *req)
{
    struct hw_api *api = ctx;
    const char *local = hw_http_query(req, "local");
    if (local != NULL && strcmp(local, "true") == 0) {
        Hotwarm__V1__StatusResponse m = HOTWARM__V1__STATUS_RESPONSE__INIT;
        struct hw_node_status own;
        Hotwarm__V1__NodeStatus *nodes[] = {&own.m};
        char hot_node[HW_NODE_NAME_MAX];
        hw_status_own(api, &own);
        hw_status_cluster(api, &m, hot_node);
        m.n_nodes = 1;
        m.nodes = nodes;
        status_done(req, &m);
    } else if (hw_status_collect(api, status_done, req) != 0) {
        reply_error(req, 503, "out of memory");
    }
}

static void handle_version(void *ctx, struct hw_http_req *req)
{
    struct hw_api *api = ctx;
    reply_json(req, 200,
               json_pack("{s:s, s:s, s:s}", "version", HW_VERSION, "etcd_version", HW_ETCD_VERSION, "node",
                         api->config.node_name));
}

/* ---- as etcd answers them ---- */

static void handle_health(void *ctx, struct hw_http_req *req)
{
    const char *why;
    bool is_ready = hw_api_is_ready(ctx, &why);
    hw_http_reply(req, is_ready ? 200 : 503, JSON_TYPE,
                  hw_slice_str(is_ready ? "{\"health\":\"true\"}" : "{\"health\":\"false\"}"), NULL);
}

static void handle_etcd_version(void *ctx, struct hw_http_req *req)
{
    (void)ctx;
    reply_json(req, 200, json_pack("{s:s, s:s}", "etcdserver", HW_ETCD_VERSION, "etcdcluster", HW_ETCD_VERSION));
}

/* ---- text ---- */

/* By the name that Prometheus' own libraries use: `etcdctl check datascale` and dashboards look for it. */
static void render_memory(struct hw_buf *body)
{
    unsigned long pages;
    FILE *f = fopen("/proc/self/statm", "re"); /* of the kernel's memory: nothing that could wait for a disk */
    if (f == NULL) {
        return;
    }
    if (fscanf(f, "%*u %lu", &pages) == 1) {
        hw_buf_printf(body,
                      "# HELP process_resident_memory_bytes Resident memory size in bytes.\n"
                      "# TYPE process_resident_memory_bytes gauge\n"
                      "process_resident_memory_bytes %lu\n",
                      pages * (unsigned long)sysconf(_SC_PAGESIZE));
    }
    fclose(f);
}

static void handle_metrics(void *ctx, struct hw_http_req *req)
{
    struct hw_api *api = ctx;
    struct hw_buf body;
    hw_buf_init(&body);
    hw_metrics_render(api->metrics, &body);
    render_memory(&body);
    if (body.failed) {
        reply_error(req, 503, "out of memory");
    } else {
        hw_http_reply(req, 200, METRICS_TYPE, hw_buf_slice(&body), NULL);
    }
    hw_buf_free(&body);
}

static void handle_root(void *ctx, struct hw_http_req *req)
{
    static const char text[] = "HotWarm agent " HW_VERSION ". This port speaks etcd's v3 API and hotwarm.v1 (gRPC).\n"
                               "Over HTTP:\n"
                               "  /livez       200 while the process answers\n"
                               "  /readyz      200 while this node can serve\n"
                               "  /hot         200 while this node is hot\n"
                               "  /warm        200 while this node can serve and is not hot\n"
                               "  /health      as etcd answers it\n"
                               "  /version     as etcd answers it\n"
                               "  /metrics     Prometheus\n"
                               "  /v1/status   all nodes, JSON (?local=true: only this one)\n"
                               "  /v1/version  versions, JSON\n";
    (void)ctx;
    if (strcmp(hw_http_path(req), "/") != 0) { /* the route matches everything that no other does */
        static const char unknown[] = "{\"error\": \"not found\", \"message\": \"GET / lists the paths\"}\n";
        hw_http_reply(req, 404, JSON_TYPE, hw_slice_str(unknown), NULL);
        return;
    }
    hw_http_reply(req, 200, TEXT_TYPE, hw_slice_str(text), NULL);
}

void hw_http_endpoints_add(struct hw_api *api)
{
    struct hw_http_route routes[] = {
        {"GET", "/livez", handle_livez, api},
        {"GET", "/readyz", handle_readyz, api},
        {"GET", "/hot", handle_hot, api},
        {"GET", "/warm", handle_warm, api},
        {"GET", "/health", handle_health, api},
        {"GET", "/version", handle_etcd_version, api},
        {"GET", "/metrics", handle_metrics, api},
        {"GET", "/v1/status", handle_status, api},
        {"GET", "/v1/version", handle_version, api},
        {"GET", "/", handle_root, api},
    };
    hw_http_server_add(api->http, routes, hw_array_len(routes));
}
