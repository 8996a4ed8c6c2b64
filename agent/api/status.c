#include "agent/api/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "agent/api/protowire.h"

#define STATUS_PATH "/hotwarm.v1.Peer/Status"

/* ---- this node ---- */

static void fill_state(struct hw_api *api, const struct hw_replica_status *s, Hotwarm__V1__NodeStatus *m)
{
    struct hw_hot *hot = hw_replica_hot(api->replica);
    m->term = s->view.term;
    m->epoch = s->epoch;
    m->applied_index = s->applied_index;
    m->commit_index = s->view.commit_index;
    m->image_index = s->image_index;
    m->image_age_ms = s->image_age_ms;
    m->rebuild_done_bytes = s->rebuild_done_bytes;
    m->rebuild_total_bytes = s->rebuild_total_bytes;
    m->proposals = s->view.proposals;
    m->revision = hw_hot_revision(hot);
    m->compacted = hw_hot_compacted(hot);
    m->state_hash = hw_hot_hash(hot);
    m->key_count = hw_hot_key_count(hot);
    m->state_bytes = hw_hot_bytes(hot);
    m->role = (char *)hw_role_name(s->view.role);
    m->tier = (char *)(s->is_hot ? "hot" : "warm");
}

static void fill_health(struct hw_api *api, const struct hw_replica_status *s, char *health)
{
    const char *why;
    if (s->is_disk_failing) {
        snprintf(health, HW_HEALTH_TEXT_MAX, "the image is not being written: %s", s->disk_problem);
    } else if (s->view.is_disk_low) {
        snprintf(health, HW_HEALTH_TEXT_MAX, "the log disk is nearly full: writes are refused until there is space");
    } else if (!hw_api_is_ready(api, &why)) {
        snprintf(health, HW_HEALTH_TEXT_MAX, "%s", why);
    } else {
        snprintf(health, HW_HEALTH_TEXT_MAX, "ok");
    }
}

void hw_status_own(struct hw_api *api, struct hw_node_status *status)
{
    struct hw_replica_status s = {0};
    struct hw_loop_stats stats;
    Hotwarm__V1__NodeStatus *m = &status->m;
    hotwarm__v1__node_status__init(m);
    m->id = api->config.node_id;
    m->tier = (char *)"warm";
    m->role = (char *)hw_role_name(HW_ROLE_NONE);
    if (hw_api_has_state(api)) {
        hw_replica_status(api->replica, &s);
        fill_state(api, &s, m);
    }
    fill_health(api, &s, status->health);
    snprintf(status->name, sizeof status->name, "%s", api->config.node_name);
    snprintf(status->peer_address, sizeof status->peer_address, "%s", api->config.peer_address);
    snprintf(status->client_address, sizeof status->client_address, "%s", api->config.client_address);
    m->name = status->name;
    m->health = status->health;
    m->peer_address = status->peer_address;
    m->client_address = status->client_address;
    m->version = (char *)HW_VERSION;
    m->phase = (char *)hw_api_phase(api);
    m->is_answering = 1;
    m->uptime_ms = hw_loop_now_ms(api->loop) - api->started_ms;
    hw_loop_stats(api->loop, &stats, false);
    m->loop_stalls = stats.stalls;
    m->loop_busy_us_max = stats.busy_us_max;
}

void hw_status_cluster(struct hw_api *api, Hotwarm__V1__StatusResponse *m, char *hot_node)
{
    uint64_t hot_id = 0;
    hot_node[0] = '\0';
    m->cluster_id = api->cluster_id;
    m->cluster_name = (char *)api->config.cluster_name;
    m->answered_by = (char *)api->config.node_name;
    m->hot_node = hot_node;
    if (hw_api_has_state(api)) {
        const char *name;
        hot_id = hw_replica_hot_id(api->replica);
        if (!hw_replica_is_reachable(api->replica, hot_id)) {
            hot_id = 0; /* it was, and is not known to be any more */
        }
        name = hw_replica_name_of(api->replica, hot_id);
        m->epoch = hw_hot_epoch(hw_replica_hot(api->replica));
        if (name[0] != '\0') {
            snprintf(hot_node, HW_NODE_NAME_MAX, "%s", name);
        } else if (hot_id != 0) {
            snprintf(hot_node, HW_NODE_NAME_MAX, "%016" PRIx64, hot_id);
        }
    }
}

void hw_status_answer_own(struct hw_exchange *x)
{
    Hotwarm__V1__StatusResponse m = HOTWARM__V1__STATUS_RESPONSE__INIT;
    struct hw_node_status own;
    Hotwarm__V1__NodeStatus *nodes[] = {&own.m};
    char hot_node[HW_NODE_NAME_MAX];
    hw_status_own(x->api, &own);
    hw_status_cluster(x->api, &m, hot_node);
    m.n_nodes = 1;
    m.nodes = nodes;
    hw_exchange_ok_message(x, &m.base);
}

/* ---- all nodes ---- */

struct collector;

struct asked {
    struct collector *collector;
    struct hw_request request;
    bool is_busy;
    Hotwarm__V1__StatusResponse *answer;
    struct hw_node_status status; /* own, or what is known of one that does not answer */
};

struct collector {
    struct hw_api *api;
    void (*done)(void *arg, const Hotwarm__V1__StatusResponse *m);
    void *arg;
    size_t busy;
    struct hw_defer defer;
    size_t count;
    struct asked asked[];
};

static const Hotwarm__V1__NodeStatus *answer_of(const struct asked *a)
{
    return a->answer != NULL && a->answer->n_nodes == 1 ? a->answer->nodes[0] : &a->status.m;
}

static void finish(struct hw_defer *d)
{
    struct collector *c = hw_container_of(d, struct collector, defer);
    struct hw_api *api = c->api;
    Hotwarm__V1__StatusResponse m = HOTWARM__V1__STATUS_RESPONSE__INIT;
    Hotwarm__V1__NodeStatus *nodes[HW_MEMBERS_MAX];
    char hot_node[HW_NODE_NAME_MAX];
    uint64_t newest = 0;
    hw_status_cluster(api, &m, hot_node);
    for (size_t i = 0; i < c->count; i++) {
        nodes[i] = (Hotwarm__V1__NodeStatus *)answer_of(&c->asked[i]);
        newest = nodes[i]->commit_index > newest ? nodes[i]->commit_index : newest;
    }
    for (size_t i = 0; i < c->count; i++) {
        if (nodes[i]->is_answering) {
            nodes[i]->lag = newest > nodes[i]->applied_index ? newest - nodes[i]->applied_index : 0;
        }
    }
    m.n_nodes = c->count;
    m.nodes = nodes;
    c->done(c->arg, &m);
    for (size_t i = 0; i < c->count; i++) {
        if (c->asked[i].answer != NULL) {
            hotwarm__v1__status_response__free_unpacked(c->asked[i].answer, NULL);
        }
    }
    free(c);
    hw_api_unref(api);
}

static void on_message(struct hw_request *request, struct hw_slice message)
{
    struct asked *a = hw_container_of(request, struct asked, request);
    if (a->answer == NULL) {
        a->answer = hotwarm__v1__status_response__unpack(NULL, message.len, message.data);
    }
}

static void on_end(struct hw_request *request, enum hw_grpc status, const char *text)
{
    struct asked *a = hw_container_of(request, struct asked, request);
    struct collector *c = a->collector;
    a->is_busy = false;
    if (status != HW_GRPC_OK && a->answer == NULL) {
        snprintf(a->status.health, sizeof a->status.health, "does not answer: %s",
                 text != NULL && text[0] != '\0' ? text : "no connection");
    }
    if (--c->busy == 0) {
        hw_defer_post(c->api->loop, &c->defer);
    }
}

static const struct hw_request_ops request_ops = {.on_message = on_message, .on_end = on_end};

static void fill_down(struct hw_api *api, const struct hw_member *member, struct hw_node_status *status)
{
    const struct hw_node *node = hw_hot_node_by_id(hw_replica_hot(api->replica), member->id);
    Hotwarm__V1__NodeStatus *m = &status->m;
    hotwarm__v1__node_status__init(m);
    m->id = member->id;
    m->tier = (char *)"down";
    m->role = (char *)hw_role_name(member->role);
    snprintf(status->health, sizeof status->health, "does not answer: no connection");
    snprintf(status->peer_address, sizeof status->peer_address, "%s", member->address);
    if (node != NULL) {
        snprintf(status->name, sizeof status->name, "%s", node->name);
        snprintf(status->client_address, sizeof status->client_address, "%s", node->client_address);
    } else {
        snprintf(status->name, sizeof status->name, "%016" PRIx64, member->id);
    }
    m->name = status->name;
    m->health = status->health;
    m->peer_address = status->peer_address;
    m->client_address = status->client_address;
}

static void ask(struct collector *c, struct asked *a, const struct hw_member *member)
{
    struct hw_channel *channel = hw_replica_channel(c->api->replica, member->id);
    Hotwarm__V1__StatusRequest m = HOTWARM__V1__STATUS_REQUEST__INIT;
    struct hw_buf packed;
    fill_down(c->api, member, &a->status);
    if (channel == NULL) {
        return;
    }
    m.local = 1;
    hw_buf_init(&packed);
    a->request.ops = &request_ops;
    if (hw_pack(&m.base, &packed) == 0 &&
        hw_request_start(channel, &a->request, STATUS_PATH, NULL, HW_STATUS_TIMEOUT_MS, true, hw_buf_slice(&packed),
                         true) == 0) {
        a->is_busy = true;
        c->busy++;
    }
    hw_buf_free(&packed);
}

int hw_status_collect(struct hw_api *api, void (*done)(void *arg, const Hotwarm__V1__StatusResponse *m), void *arg)
{
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count = 0;
    struct collector *c;
    bool has_self = false;
    if (hw_api_has_state(api)) {
        count = hw_consensus_members(hw_replica_consensus(api->replica), members, HW_MEMBERS_MAX - 1);
    }
    c = calloc(1, sizeof *c + (count + 1) * sizeof c->asked[0]);
    if (c == NULL) {
        return HW_ERR_NOMEM;
    }
    c->api = api;
    c->done = done;
    c->arg = arg;
    hw_defer_init(&c->defer, finish);
    hw_api_ref(api);
    for (size_t i = 0; i < count; i++) {
        struct asked *a = &c->asked[c->count++];
        a->collector = c;
        if (members[i].id == api->config.node_id) {
            has_self = true;
            hw_status_own(api, &a->status);
        } else {
            ask(c, a, &members[i]);
        }
    }
    if (!has_self) {
        hw_status_own(api, &c->asked[c->count++].status);
    }
    if (c->busy == 0) {
        hw_defer_post(api->loop, &c->defer);
    }
    return 0;
}
