/* hotwarm.v1.Peer: what agents ask each other, on the peer port. Forward is in exchange.c, Image in image_stream.c. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "agent/api/status.h"
#include "proto/hotwarm.pb-c.h"

#define JOIN_TIMEOUT_MS 40000

static bool fits(const char *text, size_t size)
{
    return text[0] != '\0' && strlen(text) < size;
}

/* ---- who are you ---- */

/* At most HW_MEMBERS_MAX; a row that does not fit makes the whole list none. */
static size_t read_initial(const Hotwarm__V1__HelloRequest *m, struct hw_form_member *initial)
{
    if (m->n_initial > HW_MEMBERS_MAX) {
        return 0;
    }
    for (size_t i = 0; i < m->n_initial; i++) {
        const Hotwarm__V1__PeerMember *from = m->initial[i];
        if (!fits(from->name, sizeof initial[i].name) || !fits(from->peer_address, sizeof initial[i].peer_address)) {
            return 0;
        }
        initial[i].id = 0;
        snprintf(initial[i].name, sizeof initial[i].name, "%s", from->name);
        snprintf(initial[i].peer_address, sizeof initial[i].peer_address, "%s", from->peer_address);
    }
    return m->n_initial;
}

static void hear_initial(struct hw_api *api, const Hotwarm__V1__HelloRequest *m)
{
    struct hw_form_member initial[HW_MEMBERS_MAX];
    size_t count;
    if (api->ops.asked == NULL || strcmp(m->cluster_name, api->config.cluster_name) != 0) {
        return;
    }
    count = read_initial(m, initial);
    if (count > 0) {
        api->ops.asked(api->ctx, m->from_name, initial, count);
    }
}

static size_t fill_initial(const struct hw_hello *hello, Hotwarm__V1__PeerMember *rows, Hotwarm__V1__PeerMember **list)
{
    size_t count = hello->cluster_id == 0 && hello->initial_count <= HW_MEMBERS_MAX ? hello->initial_count : 0;
    for (size_t i = 0; i < count; i++) {
        hotwarm__v1__peer_member__init(&rows[i]);
        rows[i].name = (char *)hello->initial[i].name;
        rows[i].peer_address = (char *)hello->initial[i].peer_address;
        list[i] = &rows[i];
    }
    return count;
}

static void handle_hello(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    struct hw_hello hello = {.phase = "starting"};
    Hotwarm__V1__HelloResponse m = HOTWARM__V1__HELLO_RESPONSE__INIT;
    Hotwarm__V1__HelloRequest *request = hw_exchange_unpack(x, &hotwarm__v1__hello_request__descriptor);
    Hotwarm__V1__PeerMember rows[HW_MEMBERS_MAX];
    Hotwarm__V1__PeerMember *list[HW_MEMBERS_MAX];
    if (request == NULL) {
        return;
    }
    hear_initial(api, request);
    api->ops.hello(api->ctx, &hello);
    m.initial = list;
    m.n_initial = fill_initial(&hello, rows, list);
    m.id = hello.id;
    m.cluster_id = hello.cluster_id;
    m.recovery = hello.recovery;
    m.lost_data = hello.has_lost_data;
    m.phase = (char *)hw_api_phase(api);
    m.name = (char *)api->config.node_name;
    m.peer_address = (char *)api->config.peer_address;
    m.client_address = (char *)api->config.client_address;
    m.cluster_name = (char *)api->config.cluster_name;
    if (hw_api_has_state(api)) {
        const struct hw_node *hot;
        m.hot_id = hw_replica_hot_id(api->replica);
        m.term = hw_replica_term(api->replica);
        m.trouble = (char *)(m.hot_id == 0 ? hw_replica_trouble(api->replica) : "");
        m.removed = request->from_id != 0 && hw_replica_is_removed(api->replica, request->from_id);
        hot = hw_hot_node_by_id(hw_replica_hot(api->replica), m.hot_id);
        if (hot != NULL) {
            m.hot_peer_address = (char *)hot->peer_address;
        }
    }
    hw_exchange_ok_message(x, &m.base);
}

/* ---- forming a cluster ---- */

static int read_members(const Hotwarm__V1__FormRequest *m, struct hw_form_member *members, struct hw_error *e)
{
    if (m->n_members > HW_MEMBERS_MAX) {
        return hw_error_set(e, HW_ERR_INVALID, "more than %d members", HW_MEMBERS_MAX);
    }
    for (size_t i = 0; i < m->n_members; i++) {
        const Hotwarm__V1__PeerMember *from = m->members[i];
        if (from->id == 0 || !fits(from->name, sizeof members[i].name) ||
            !fits(from->peer_address, sizeof members[i].peer_address)) {
            return hw_error_set(e, HW_ERR_INVALID, "member %zu has no id, or no usable name or address", i + 1);
        }
        members[i].id = from->id;
        snprintf(members[i].name, sizeof members[i].name, "%s", from->name);
        snprintf(members[i].peer_address, sizeof members[i].peer_address, "%s", from->peer_address);
    }
    return 0;
}

static void handle_form(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    Hotwarm__V1__FormRequest *request = hw_exchange_unpack(x, &hotwarm__v1__form_request__descriptor);
    Hotwarm__V1__FormResponse m = HOTWARM__V1__FORM_RESPONSE__INIT;
    struct hw_form_member members[HW_MEMBERS_MAX];
    struct hw_error e = {0};
    int rc;
    if (request == NULL) {
        return;
    }
    if (request->cluster_id == 0) {
        rc = hw_error_set(&e, HW_ERR_INVALID, "a cluster has an id");
    } else if (strcmp(request->cluster_name, api->config.cluster_name) != 0) {
        rc = hw_error_set(&e, HW_ERR_FOREIGN, "this node is configured for cluster \"%s\", not \"%.63s\"",
                          api->config.cluster_name, request->cluster_name);
    } else {
        rc = read_members(request, members, &e);
    }
    if (rc == 0) {
        rc = api->ops.form(api->ctx, request->cluster_id, request->recovery, members, request->n_members, &e);
    }
    m.accepted = rc == 0;
    if (rc != 0) {
        m.why = (char *)hw_error_text(&e);
    }
    hw_exchange_ok_message(x, &m.base);
}

/* ---- joining ---- */

struct joining {
    struct hw_join join;
    struct hw_exchange *x;
};

static void join_done(struct hw_join *join, int status)
{
    struct joining *j = hw_container_of(join, struct joining, join);
    struct hw_exchange *x = j->x;
    Hotwarm__V1__JoinResponse m = HOTWARM__V1__JOIN_RESPONSE__INIT;
    if (status == 0) {
        struct hw_hello own = {.phase = ""};
        x->api->ops.hello(x->api->ctx, &own);
        m.cluster_id = x->api->cluster_id;
        m.recovery = own.recovery;
        hw_exchange_ok_message(x, &m.base);
    } else if (status == HW_ERR_NOTHOT) {
        hw_exchange_reroute(x);
    } else {
        hw_admin_fail(x, status, &join->e);
    }
    free(j);
}

static void handle_join(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    Hotwarm__V1__JoinRequest *m = hw_exchange_unpack(x, &hotwarm__v1__join_request__descriptor);
    struct joining *j;
    struct hw_node *node;
    int rc;
    if (m == NULL) {
        return;
    }
    if (strcmp(m->cluster_name, api->config.cluster_name) != 0) {
        hw_exchange_failf(x, HW_GRPC_FAILED_PRECONDITION, "this is cluster \"%s\", not \"%.63s\"",
                          api->config.cluster_name, m->cluster_name);
        return;
    }
    if (m->id == 0 || !fits(m->name, HW_NODE_NAME_MAX) || !fits(m->peer_address, HW_ADDRESS_MAX) ||
        !fits(m->client_address, HW_ADDRESS_MAX)) {
        hw_exchange_fail(x, HW_GRPC_INVALID_ARGUMENT, "a node joins with an id, a name and two addresses");
        return;
    }
    j = calloc(1, sizeof *j);
    if (j == NULL) {
        hw_exchange_refuse(x, HW_REFUSE_NO_MEMORY);
        return;
    }
    j->x = x;
    j->join.done = join_done;
    node = &j->join.node;
    node->id = m->id;
    snprintf(node->name, sizeof node->name, "%s", m->name);
    snprintf(node->peer_address, sizeof node->peer_address, "%s", m->peer_address);
    snprintf(node->client_address, sizeof node->client_address, "%s", m->client_address);
    rc = hw_cluster_join(api->cluster, &j->join);
    if (rc != 0) {
        join_done(&j->join, rc);
    }
}

/* ---- reads of warm nodes ---- */

static void read_index_answer(struct hw_exchange *x)
{
    Hotwarm__V1__ReadIndexResponse m = HOTWARM__V1__READ_INDEX_RESPONSE__INIT;
    m.index = hw_hot_applied(hw_replica_hot(x->api->replica));
    m.term = hw_replica_term(x->api->replica);
    hw_exchange_ok_message(x, &m.base);
}

static void handle_read_index(struct hw_exchange *x)
{
    if (hw_replica_is_hot(x->api->replica)) {
        hw_exchange_read(x, read_index_answer);
    } else {
        hw_exchange_refuse(x, HW_REFUSE_NOT_HOT);
    }
}

static void handle_term(struct hw_exchange *x)
{
    Hotwarm__V1__TermResponse m = HOTWARM__V1__TERM_RESPONSE__INIT;
    m.term = hw_replica_term(x->api->replica);
    m.id = x->api->config.node_id;
    hw_exchange_ok_message(x, &m.base);
}

const struct hw_service_method hw_peer_methods[] = {
    {"/hotwarm.v1.Peer/Hello", handle_hello, 0, 0},
    {"/hotwarm.v1.Peer/Form", handle_form, 0, 0},
    {"/hotwarm.v1.Peer/Join", handle_join,
     HW_METHOD_HOT | HW_METHOD_CLUSTER | HW_METHOD_FORWARDED | HW_METHOD_IDEMPOTENT, JOIN_TIMEOUT_MS},
    {"/hotwarm.v1.Peer/ReadIndex", handle_read_index, HW_METHOD_REPLICA, 0},
    {"/hotwarm.v1.Peer/Term", handle_term, HW_METHOD_REPLICA, 0},
    {"/hotwarm.v1.Peer/Status", hw_status_answer_own, 0, 0},
};
const size_t hw_peer_method_count = hw_array_len(hw_peer_methods);
