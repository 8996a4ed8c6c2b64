/* hotwarm.v1.Admin: what operators ask for. Status and History are answered by any node; what changes the cluster runs
 * on the hot node. Query is in query.c, NodeAdd in node_add.c, Snapshot in image_stream.c. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "agent/api/status.h"
#include "proto/hotwarm.pb-c.h"
#include "storage/warm/image.h"

#define STATUS_TIMEOUT_MS (2 * HW_STATUS_TIMEOUT_MS)
#define SWITCHOVER_TIMEOUT_MS 10000
/* hw_cluster gives a change up after 30 s by itself. */
#define CHANGE_TIMEOUT_MS 40000

void hw_admin_fail(struct hw_exchange *x, int status, const struct hw_error *e)
{
    if (e->text[0] != '\0') {
        hw_exchange_fail(x, hw_grpc_of_err(status), hw_error_text(e));
    } else if (status == HW_ERR_CANCELLED || status == HW_ERR_NOMEM) {
        hw_exchange_refuse(x, hw_refusal_of_status(status));
    } else {
        hw_exchange_fail(x, hw_grpc_of_err(status), hw_err_text(status));
    }
}

/* ---- Status, NodeList ---- */

static void status_done(void *arg, const Hotwarm__V1__StatusResponse *m)
{
    hw_exchange_ok_message(arg, &m->base);
}

static void handle_status(struct hw_exchange *x)
{
    Hotwarm__V1__StatusRequest *m = hw_exchange_unpack(x, &hotwarm__v1__status_request__descriptor);
    if (m == NULL) {
        return;
    }
    if (m->local) {
        hw_status_answer_own(x);
    } else if (hw_status_collect(x->api, status_done, x) != 0) {
        hw_exchange_refuse(x, HW_REFUSE_NO_MEMORY);
    }
}

/* ---- NodeRemove ---- */

struct removal {
    struct hw_leave leave;
    struct hw_exchange *x;
    uint64_t id;
};

static void removal_done(struct hw_leave *l, int status)
{
    struct removal *r = hw_container_of(l, struct removal, leave);
    Hotwarm__V1__NodeResponse m = HOTWARM__V1__NODE_RESPONSE__INIT;
    char text[HW_NODE_NAME_MAX + 64];
    if (status == 0) {
        snprintf(text, sizeof text, "node %s was removed", l->name);
        m.id = r->id;
        m.text = text;
        hw_exchange_ok_message(r->x, &m.base);
    } else if (status == HW_ERR_NOTHOT) {
        hw_exchange_reroute(r->x);
    } else {
        hw_admin_fail(r->x, status, &l->e);
    }
    free(r);
}

static void handle_node_remove(struct hw_exchange *x)
{
    Hotwarm__V1__NodeRemoveRequest *m = hw_exchange_unpack(x, &hotwarm__v1__node_remove_request__descriptor);
    const struct hw_node *node;
    struct removal *r;
    int rc;
    if (m == NULL) {
        return;
    }
    node = hw_hot_node_by_name(hw_replica_hot(x->api->replica), m->name);
    if (node == NULL) {
        hw_exchange_failf(x, HW_GRPC_NOT_FOUND, "there is no node named \"%.63s\": `hwctl node list` shows the names",
                          m->name);
        return;
    }
    r = calloc(1, sizeof *r);
    if (r == NULL) {
        hw_exchange_refuse(x, HW_REFUSE_NO_MEMORY);
        return;
    }
    r->x = x;
    r->id = node->id;
    r->leave.done = removal_done;
    snprintf(r->leave.name, sizeof r->leave.name, "%s", node->name);
    rc = hw_cluster_leave(x->api->cluster, &r->leave);
    if (rc != 0) {
        removal_done(&r->leave, rc);
    }
}

/* ---- Switchover ---- */

struct switchover {
    struct hw_switchover s;
    struct hw_exchange *x;
};

static void switchover_done(struct hw_switchover *s, int status)
{
    struct switchover *so = hw_container_of(s, struct switchover, s);
    struct hw_exchange *x = so->x;
    struct hw_api *api = x->api;
    Hotwarm__V1__SwitchoverResponse m = HOTWARM__V1__SWITCHOVER_RESPONSE__INIT;
    char to[HW_NODE_NAME_MAX];
    const struct hw_node *node;
    if (status != 0) {
        hw_admin_fail(x, status, &s->e);
        free(so);
        return;
    }
    node = hw_api_has_state(api) ? hw_hot_node_by_id(hw_replica_hot(api->replica), s->to) : NULL;
    if (node != NULL) {
        snprintf(to, sizeof to, "%s", node->name);
    } else {
        snprintf(to, sizeof to, "%016" PRIx64, s->to);
    }
    m.from = (char *)api->config.node_name;
    m.to = to;
    m.epoch = s->epoch;
    m.took_ms = hw_loop_now_ms(api->loop) - s->started_ms;
    hw_exchange_ok_message(x, &m.base);
    free(so);
}

static void handle_switchover(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    Hotwarm__V1__SwitchoverRequest *m = hw_exchange_unpack(x, &hotwarm__v1__switchover_request__descriptor);
    const struct hw_node *node = NULL;
    struct switchover *so;
    int rc;
    if (m == NULL) {
        return;
    }
    if (m->to[0] != '\0') {
        node = hw_hot_node_by_name(hw_replica_hot(api->replica), m->to);
        if (node == NULL) {
            hw_exchange_failf(x, HW_GRPC_NOT_FOUND,
                              "there is no node named \"%.63s\": `hwctl node list` shows the names", m->to);
            return;
        }
        if (node->id == api->config.node_id) {
            hw_exchange_failf(x, HW_GRPC_FAILED_PRECONDITION, "node %s is hot already", node->name);
            return;
        }
    }
    so = calloc(1, sizeof *so);
    if (so == NULL) {
        hw_exchange_refuse(x, HW_REFUSE_NO_MEMORY);
        return;
    }
    so->x = x;
    so->s.done = switchover_done;
    so->s.to = node == NULL ? 0 : node->id;
    so->s.started_ms = hw_loop_now_ms(api->loop);
    rc = hw_cluster_switchover(api->cluster, &so->s, SWITCHOVER_TIMEOUT_MS);
    if (rc == HW_ERR_NOTHOT) {
        free(so);
        hw_exchange_reroute(x); /* nothing was begun */
    } else if (rc != 0) {
        switchover_done(&so->s, rc);
    }
}

/* ---- History ---- */

struct event {
    Hotwarm__V1__Event m;
};

static void fill_event(const struct hw_event *from, struct event *to)
{
    hotwarm__v1__event__init(&to->m);
    to->m.seq = from->seq;
    to->m.index = from->index;
    to->m.wall_ms = from->wall_ms;
    to->m.epoch = from->epoch;
    to->m.node = (char *)from->node;
    to->m.kind = (char *)from->kind;
    to->m.text = (char *)from->text;
}

static void handle_history(struct hw_exchange *x)
{
    Hotwarm__V1__HistoryRequest *request = hw_exchange_unpack(x, &hotwarm__v1__history_request__descriptor);
    struct hw_hot *hot = hw_replica_hot(x->api->replica);
    Hotwarm__V1__HistoryResponse m = HOTWARM__V1__HISTORY_RESPONSE__INIT;
    size_t kept = hw_hot_event_count(hot);
    struct event *events;
    size_t count;
    if (request == NULL) {
        return;
    }
    count = request->limit == 0 || request->limit > kept ? kept : (size_t)request->limit;
    events = calloc(count + 1, sizeof *events);
    m.events = calloc(count + 1, sizeof *m.events);
    if (events == NULL || m.events == NULL) {
        hw_exchange_refuse(x, HW_REFUSE_NO_MEMORY);
    } else {
        for (size_t i = 0; i < count; i++) { /* the newest, oldest first */
            fill_event(hw_hot_event_at(hot, kept - count + i), &events[i]);
            m.events[i] = &events[i].m;
        }
        m.n_events = count;
        hw_exchange_ok_message(x, &m.base);
    }
    free(events);
    free(m.events);
}

/* ---- Version ---- */

static void handle_version(struct hw_exchange *x)
{
    Hotwarm__V1__VersionResponse m = HOTWARM__V1__VERSION_RESPONSE__INIT;
    m.version = (char *)HW_VERSION;
    m.etcd_version = (char *)HW_ETCD_VERSION;
    m.libraft = (char *)hw_consensus_library();
    m.sqlite = (char *)hw_image_library();
    m.node = (char *)x->api->config.node_name;
    hw_exchange_ok_message(x, &m.base);
}

const struct hw_service_method hw_admin_methods[] = {
    {"/hotwarm.v1.Admin/Status", handle_status, 0, STATUS_TIMEOUT_MS},
    {"/hotwarm.v1.Admin/NodeList", handle_status, 0, STATUS_TIMEOUT_MS},
    {"/hotwarm.v1.Admin/NodeAdd", hw_admin_node_add,
     HW_METHOD_HOT | HW_METHOD_CLUSTER | HW_METHOD_FORWARDED | HW_METHOD_IDEMPOTENT, CHANGE_TIMEOUT_MS},
    {"/hotwarm.v1.Admin/NodeRemove", handle_node_remove, HW_METHOD_HOT | HW_METHOD_CLUSTER | HW_METHOD_FORWARDED,
     CHANGE_TIMEOUT_MS},
    {"/hotwarm.v1.Admin/Switchover", handle_switchover, HW_METHOD_HOT | HW_METHOD_CLUSTER | HW_METHOD_FORWARDED,
     SWITCHOVER_TIMEOUT_MS + 5000},
    {"/hotwarm.v1.Admin/History", handle_history, HW_METHOD_REPLICA, 0},
    {"/hotwarm.v1.Admin/Query", hw_admin_query, HW_METHOD_REPLICA, 15000},
    {"/hotwarm.v1.Admin/Version", handle_version, 0, 0},
    {"/hotwarm.v1.Admin/RecoverPlan", hw_admin_recover_plan, 0, 0},
    {"/hotwarm.v1.Admin/RecoverApply", hw_admin_recover_apply, 0, 0},
};
const size_t hw_admin_method_count = hw_array_len(hw_admin_methods);
