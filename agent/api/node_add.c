/* Admin/NodeAdd: let a node in that runs at an address and belongs to no cluster yet. Runs on the hot node:
 *
 *     HELLO  ask the node who it is: the name must be the one asked for, so that a typo adds nobody else
 *     JOIN   add it to the members and the registry
 *     FORM   tell it which cluster it belongs to, unless it knows
 *
 * Each step can be repeated: after a failure the operator runs the same command again. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "agent/api/protowire.h"
#include "proto/hotwarm.pb-c.h"

#define ASK_TIMEOUT_MS 3000

enum stage { HELLO, JOIN, FORM };

struct addition {
    struct hw_exchange *x;
    enum stage stage;
    struct hw_channel *channel;
    struct hw_request request;
    struct hw_join join;
    struct hw_defer defer; /* goes on from here, outside of the callback that brought the news */
    Hotwarm__V1__HelloResponse *hello;
    Hotwarm__V1__FormResponse *form;
    int status; /* of the join */
    bool was_member;
    enum hw_grpc call_status;
    char call_text[256];
};

static void addition_free(struct addition *a)
{
    if (a->channel != NULL) {
        hw_channel_free(a->channel);
    }
    if (a->hello != NULL) {
        hotwarm__v1__hello_response__free_unpacked(a->hello, NULL);
    }
    if (a->form != NULL) {
        hotwarm__v1__form_response__free_unpacked(a->form, NULL);
    }
    free(a);
}

static void fail(struct addition *a, enum hw_grpc status, const char *what, const char *why)
{
    hw_exchange_failf(a->x, status, "add node %s at %s: %s%s", a->join.node.name, a->join.node.peer_address, what, why);
    addition_free(a);
}

static void succeed(struct addition *a)
{
    Hotwarm__V1__NodeResponse m = HOTWARM__V1__NODE_RESPONSE__INIT;
    char text[HW_NODE_NAME_MAX + HW_ADDRESS_MAX + 128];
    snprintf(text, sizeof text, "node %s at %s %s; it becomes a voter when it has caught up", a->join.node.name,
             a->join.node.peer_address, a->was_member ? "is a member already" : "was added");
    m.id = a->join.node.id;
    m.text = text;
    hw_exchange_ok_message(a->x, &m.base);
    addition_free(a);
}

/* ---- calls to the new node ---- */

static void on_message(struct hw_request *request, struct hw_slice message)
{
    struct addition *a = hw_container_of(request, struct addition, request);
    if (a->stage == HELLO && a->hello == NULL) {
        a->hello = hotwarm__v1__hello_response__unpack(NULL, message.len, message.data);
    } else if (a->stage == FORM && a->form == NULL) {
        a->form = hotwarm__v1__form_response__unpack(NULL, message.len, message.data);
    }
}

static void on_end(struct hw_request *request, enum hw_grpc status, const char *text)
{
    struct addition *a = hw_container_of(request, struct addition, request);
    a->call_status = status;
    snprintf(a->call_text, sizeof a->call_text, "%s", text != NULL && text[0] != '\0' ? text : "no answer");
    hw_defer_post(a->x->api->loop, &a->defer);
}

static const struct hw_request_ops request_ops = {.on_message = on_message, .on_end = on_end};
static const struct hw_channel_ops channel_ops = {0};

static int call(struct addition *a, const char *path, const ProtobufCMessage *message)
{
    struct hw_buf packed;
    int rc;
    hw_buf_init(&packed);
    rc = hw_pack(message, &packed);
    if (rc == 0) {
        a->request.ops = &request_ops;
        rc = hw_request_start(a->channel, &a->request, path, NULL, ASK_TIMEOUT_MS, false, hw_buf_slice(&packed), true);
    }
    hw_buf_free(&packed);
    return rc;
}

static int say_hello(struct addition *a)
{
    Hotwarm__V1__HelloRequest m = HOTWARM__V1__HELLO_REQUEST__INIT;
    m.from_id = a->x->api->config.node_id;
    m.from_name = (char *)a->x->api->config.node_name;
    return call(a, "/hotwarm.v1.Peer/Hello", &m.base);
}

static int say_form(struct addition *a)
{
    Hotwarm__V1__FormRequest m = HOTWARM__V1__FORM_REQUEST__INIT;
    struct hw_hello own = {.phase = ""};
    a->x->api->ops.hello(a->x->api->ctx, &own);
    m.recovery = own.recovery;
    m.cluster_id = a->x->api->cluster_id; /* without members: the cluster is there already */
    m.cluster_name = (char *)a->x->api->config.cluster_name;
    return call(a, "/hotwarm.v1.Peer/Form", &m.base);
}

/* ---- steps ---- */

static void on_joined(struct hw_join *j, int status)
{
    struct addition *a = hw_container_of(j, struct addition, join);
    a->status = status;
    hw_defer_post(a->x->api->loop, &a->defer);
}

static bool is_member(struct hw_api *api, uint64_t id, enum hw_role *role)
{
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count = hw_consensus_members(hw_replica_consensus(api->replica), members, HW_MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (members[i].id == id) {
            *role = members[i].role;
            return true;
        }
    }
    return false;
}

static void join(struct addition *a)
{
    enum hw_role role = HW_ROLE_SPARE;
    int rc;
    a->was_member = is_member(a->x->api, a->join.node.id, &role);
    if (a->was_member && role == HW_ROLE_VOTER && a->hello->cluster_id != 0) {
        fail(a, HW_GRPC_ALREADY_EXISTS, "it is a voter of this cluster already: ", "nothing was changed");
        return;
    }
    a->stage = JOIN;
    a->join.done = on_joined;
    rc = hw_cluster_join(a->x->api->cluster, &a->join);
    if (rc != 0) {
        on_joined(&a->join, rc);
    }
}

static void after_hello(struct addition *a)
{
    struct hw_api *api = a->x->api;
    const Hotwarm__V1__HelloResponse *m = a->hello;
    struct hw_node *node = &a->join.node;
    if (a->call_status != HW_GRPC_OK || m == NULL) {
        fail(a, HW_GRPC_FAILED_PRECONDITION, "nobody answers there: ", a->call_text);
    } else if (strcmp(m->name, node->name) != 0) {
        fail(a, HW_GRPC_FAILED_PRECONDITION, "the node there has another name: ", m->name);
    } else if (strcmp(m->cluster_name, api->config.cluster_name) != 0) {
        fail(a, HW_GRPC_FAILED_PRECONDITION, "the node there is configured for another cluster: ", m->cluster_name);
    } else if (m->cluster_id != 0 && m->cluster_id != api->cluster_id) {
        fail(a, HW_GRPC_FAILED_PRECONDITION, "the node there belongs to another cluster already; ",
             "empty its data folder first");
    } else if (m->id == 0 || strlen(m->client_address) >= sizeof node->client_address) {
        fail(a, HW_GRPC_FAILED_PRECONDITION, "the node there gives no usable answer", "");
    } else if (api->cluster == NULL || !hw_api_has_state(api)) {
        fail(a, HW_GRPC_UNAVAILABLE, "this node is not hot any more; ", "try again");
    } else {
        node->id = m->id;
        snprintf(node->client_address, sizeof node->client_address, "%s", m->client_address);
        join(a);
    }
}

static void after_join(struct addition *a)
{
    struct hw_api *api = a->x->api;
    if (a->status == HW_ERR_NOTHOT) {
        hw_exchange_reroute(a->x);
        addition_free(a);
    } else if (a->status != 0) {
        fail(a, hw_grpc_of_err(a->status), "", a->join.e.text[0] != '\0' ? a->join.e.text : hw_err_text(a->status));
    } else if (a->hello->cluster_id == api->cluster_id) {
        succeed(a);
    } else {
        a->stage = FORM;
        if (say_form(a) != 0) {
            fail(a, HW_GRPC_UNAVAILABLE, "it was added but could not be told; ", "run the command again");
        }
    }
}

static void after_form(struct addition *a)
{
    if (a->call_status != HW_GRPC_OK || a->form == NULL) {
        fail(a, HW_GRPC_UNAVAILABLE, "it was added but could not be told, run the command again: ", a->call_text);
    } else if (!a->form->accepted) {
        fail(a, HW_GRPC_FAILED_PRECONDITION, "it was added but does not accept: ", a->form->why);
    } else {
        succeed(a);
    }
}

static void addition_step(struct hw_defer *d)
{
    struct addition *a = hw_container_of(d, struct addition, defer);
    switch (a->stage) {
    case HELLO:
        after_hello(a);
        break;
    case JOIN:
        after_join(a);
        break;
    case FORM:
        after_form(a);
        break;
    }
}

static struct addition *addition_new(struct hw_exchange *x, const Hotwarm__V1__NodeAddRequest *m, struct hw_error *e)
{
    char host[HW_ADDRESS_MAX];
    char port[16];
    struct addition *a;
    if (m->name[0] == '\0' || strlen(m->name) >= HW_NODE_NAME_MAX) {
        hw_error_set(e, HW_ERR_INVALID, "a node's name has 1 to %d characters", HW_NODE_NAME_MAX - 1);
        return NULL;
    }
    if (strlen(m->peer_address) >= HW_ADDRESS_MAX) {
        hw_error_set(e, HW_ERR_INVALID, "the peer address is too long");
        return NULL;
    }
    if (hw_address_split(m->peer_address, host, sizeof host, port, sizeof port, e) != 0) {
        return NULL;
    }
    a = calloc(1, sizeof *a);
    if (a == NULL) {
        hw_error_set(e, HW_ERR_NOMEM, "no memory to add a node");
        return NULL;
    }
    a->x = x;
    hw_defer_init(&a->defer, addition_step);
    snprintf(a->join.node.name, sizeof a->join.node.name, "%s", m->name);
    snprintf(a->join.node.peer_address, sizeof a->join.node.peer_address, "%s", m->peer_address);
    return a;
}

void hw_admin_node_add(struct hw_exchange *x)
{
    Hotwarm__V1__NodeAddRequest *m = hw_exchange_unpack(x, &hotwarm__v1__node_add_request__descriptor);
    struct hw_api *api = x->api;
    struct hw_error e = {0};
    struct addition *a;
    int rc;
    if (m == NULL) {
        return;
    }
    a = addition_new(x, m, &e);
    if (a == NULL) {
        hw_exchange_fail(x, hw_grpc_of_err(e.code), hw_error_text(&e));
        return;
    }
    rc = hw_channel_new(api->loop, api->resolver, a->join.node.peer_address, NULL, &channel_ops, a, &a->channel);
    if (rc == 0) {
        rc = say_hello(a);
    }
    if (rc != 0) {
        fail(a, hw_grpc_of_err(rc), "", hw_err_text(rc));
    }
}
