/* What siblings ask of each other, carried as plain values. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/cluster/initial.h"
#include "agent/node/node_impl.h"
#include "agent/replica/lease.h"
#include "proto/hotwarm.pb-c.h"

#define REGISTER_EVERY_MS 500
#define REGISTER_TIMEOUT_MS 5000
/* How many standbys' entries behind still count as caught up. */
#define LAG_MAX 1000

/* ---- the ports ask ---- */

static void on_hello(void *ctx, struct hw_hello *hello)
{
    struct hw_agent *a = ctx;
    hello->id = a->identity.raft_id;
    hello->cluster_id = a->identity.state == HW_IDENTITY_MEMBER ? a->identity.cluster_id : 0;
    hello->recovery = a->identity.recovery;
    hello->has_lost_data = a->has_lost_data;
    hello->phase = hw_agent_phase(a);
    hello->problem = a->formation != NULL && !a->is_stopping ? hw_formation_problem(a->formation) : NULL;
    hello->initial = a->initial;
    hello->initial_count = a->config->members.initial_count;
    for (size_t i = 0; i < hello->initial_count && a->initial[i].name[0] == '\0'; i++) {
        snprintf(a->initial[i].name, sizeof a->initial[i].name, "%s", a->config->members.initial[i].name);
        snprintf(a->initial[i].peer_address, sizeof a->initial[i].peer_address, "%s",
                 a->config->members.initial[i].peer);
    }
}

static size_t to_peers(const struct hw_form_member *members, size_t count, struct hw_formation_peer *peers)
{
    for (size_t i = 0; i < count; i++) {
        memcpy(peers[i].name, members[i].name, sizeof peers[i].name);
        memcpy(peers[i].address, members[i].peer_address, sizeof peers[i].address);
    }
    return count;
}

static void on_asked(void *ctx, const char *name, const struct hw_form_member *initial, size_t count)
{
    struct hw_agent *a = ctx;
    struct hw_formation_peer peers[HW_MEMBERS_MAX];
    if (a->formation != NULL) {
        hw_formation_note_asker(a->formation, name, peers, to_peers(initial, count, peers));
    }
}

/* A seed that was started with other addresses than this node must not decide for it. */
static int check_list(struct hw_agent *a, const struct hw_form_member *members, size_t count, struct hw_error *e)
{
    struct hw_formation_peer here[HW_CONFIG_NODES_MAX];
    struct hw_formation_peer there[HW_IDENTITY_MEMBERS_MAX];
    struct hw_hello hello = {0};
    char why[HW_INITIAL_WHY_MAX];
    on_hello(a, &hello);
    if (count == 0 || hello.initial_count == 0 ||
        !hw_initial_differs(here, to_peers(hello.initial, hello.initial_count, here), there,
                            to_peers(members, count, there), "the first", why)) {
        return 0;
    }
    return hw_error_set(e, HW_ERR_PRECONDITION, "%s", why);
}

static void start_as_formed(struct hw_agent *a)
{
    hw_formation_free(a->formation);
    a->formation = NULL;
    hw_agent_start_replica(a, true);
}

static int on_form(void *ctx, uint64_t cluster_id, uint64_t recovery, const struct hw_form_member *members,
                   size_t count, struct hw_error *e)
{
    struct hw_agent *a = ctx;
    struct hw_identity next = a->identity;
    bool is_among = count == 0; /* no list: this node was added to a cluster that exists (hwctl node add) */
    if (a->identity.state != HW_IDENTITY_WAITING) {
        return a->identity.cluster_id == cluster_id
                   ? 0
                   : hw_error_set(e, HW_ERR_FOREIGN, "this node belongs to cluster %016" PRIx64 " already",
                                  a->identity.cluster_id);
    }
    if (a->formation == NULL || a->is_stopping || count > HW_IDENTITY_MEMBERS_MAX) {
        return hw_error_set(e, HW_ERR_UNAVAILABLE, "this node is not waiting for a cluster");
    }
    if (check_list(a, members, count, e) != 0) {
        return e->code;
    }
    if (count > 0 && a->has_lost_data) {
        return hw_error_set(e, HW_ERR_PRECONDITION,
                            "damaged data of a cluster is in quarantine here: this node may join "
                            "one, but not form a new one");
    }
    next.cluster_id = cluster_id;
    next.recovery = count == 0 ? recovery : 0;
    next.state = count == 0 ? HW_IDENTITY_MEMBER : HW_IDENTITY_FORMING;
    next.member_count = count;
    for (size_t i = 0; i < count; i++) {
        next.members[i].id = members[i].id;
        snprintf(next.members[i].name, sizeof next.members[i].name, "%s", members[i].name);
        snprintf(next.members[i].peer_address, sizeof next.members[i].peer_address, "%s", members[i].peer_address);
        is_among |= members[i].id == a->identity.raft_id;
    }
    if (!is_among) {
        return hw_error_set(e, HW_ERR_PRECONDITION, "this node's id is %016" PRIx64 ", which is not in the list",
                            a->identity.raft_id);
    }
    if (hw_identity_store(a->datadir, &next, e) != 0) {
        return e->code;
    }
    a->identity = next;
    hw_log_info(COMPONENT, "told what the cluster is", "cluster=%016" PRIx64 " members=%zu", cluster_id, count);
    if (count == 0) {
        hw_formation_free(a->formation);
        a->formation = NULL;
        hw_agent_start_replica(a, false);
    } else {
        hw_agent_post(a, start_as_formed);
    }
    return 0;
}

const struct hw_api_ops hw_agent_api_ops = {
    .hello = on_hello, .form = on_form, .asked = on_asked, .recover = hw_agent_recover};

/* ---- formation tells ---- */

static int on_decided(void *ctx, uint64_t cluster_id, const struct hw_formation_member *members, size_t count)
{
    struct hw_agent *a = ctx;
    struct hw_identity next = a->identity;
    struct hw_error e = {0};
    next.state = HW_IDENTITY_FORMING;
    next.cluster_id = cluster_id;
    next.member_count = count;
    for (size_t i = 0; i < count; i++) {
        next.members[i].id = members[i].id;
        memcpy(next.members[i].name, members[i].name, sizeof next.members[i].name);
        memcpy(next.members[i].peer_address, members[i].peer_address, sizeof next.members[i].peer_address);
    }
    if (hw_identity_store(a->datadir, &next, &e) != 0) {
        hw_log_error(COMPONENT, "the list of members cannot be stored", "why=%s", hw_logq(hw_error_text(&e)));
        return e.code;
    }
    a->identity = next;
    return 0;
}

static void on_formed(void *ctx)
{
    hw_agent_post(ctx, start_as_formed);
}

static void start_as_joined(struct hw_agent *a)
{
    hw_formation_free(a->formation);
    a->formation = NULL;
    hw_agent_start_replica(a, false);
}

static void on_joined(void *ctx, uint64_t cluster_id, uint64_t recovery)
{
    struct hw_agent *a = ctx;
    struct hw_error e = {0};
    a->identity.state = HW_IDENTITY_MEMBER;
    a->identity.cluster_id = cluster_id;
    a->identity.recovery = recovery;
    a->identity.member_count = 0;
    if (hw_identity_store(a->datadir, &a->identity, &e) != 0) {
        hw_log_error(COMPONENT, "the identity cannot be stored", "why=%s", hw_logq(hw_error_text(&e)));
        hw_agent_stop(a, e.code);
        return;
    }
    hw_agent_post(a, start_as_joined);
}

const struct hw_formation_ops hw_agent_formation_ops = {
    .on_decided = on_decided, .on_formed = on_formed, .on_joined = on_joined};

int hw_agent_start_formation(struct hw_agent *a)
{
    const struct hw_config *c = a->config;
    struct hw_formation_config *f = calloc(1, sizeof *f);
    int rc;
    if (f == NULL) {
        return HW_ERR_NOMEM;
    }
    f->cluster_name = c->cluster;
    f->self.id = a->identity.raft_id;
    snprintf(f->self.name, sizeof f->self.name, "%s", c->node.name);
    snprintf(f->self.peer_address, sizeof f->self.peer_address, "%s", c->advertise.peer);
    snprintf(f->self.client_address, sizeof f->self.client_address, "%s", c->advertise.client);
    f->is_initial = c->members.initial_count > 0;
    f->has_lost_data = a->has_lost_data;
    for (size_t i = 0; i < c->members.initial_count; i++) {
        if (strcmp(c->members.initial[i].name, c->node.name) != 0) {
            struct hw_formation_peer *p = &f->peers[f->peer_count++];
            snprintf(p->name, sizeof p->name, "%s", c->members.initial[i].name);
            snprintf(p->address, sizeof p->address, "%s", c->members.initial[i].peer);
        }
    }
    for (size_t i = 0; i < c->members.join_count; i++) {
        snprintf(f->peers[f->peer_count++].address, HW_ADDRESS_MAX, "%s", c->members.join[i]);
    }
    if (a->identity.state == HW_IDENTITY_FORMING) {
        f->forming_cluster_id = a->identity.cluster_id;
        f->forming_count = a->identity.member_count;
        for (size_t i = 0; i < a->identity.member_count; i++) {
            f->forming[i].id = a->identity.members[i].id;
            memcpy(f->forming[i].name, a->identity.members[i].name, sizeof f->forming[i].name);
            memcpy(f->forming[i].peer_address, a->identity.members[i].peer_address, sizeof f->forming[i].peer_address);
        }
    }
    rc = hw_formation_new(a->loop, a->resolver, f, &hw_agent_formation_ops, a, &a->formation);
    free(f);
    if (rc == 0) {
        hw_formation_start(a->formation);
    }
    return rc;
}

/* ---- the cluster driver asks ---- */

static bool is_hot(void *ctx)
{
    struct hw_agent *a = ctx;
    return a->replica != NULL && hw_replica_is_hot(a->replica);
}

static bool is_reachable(void *ctx, uint64_t id)
{
    struct hw_agent *a = ctx;
    return a->replica != NULL && hw_replica_is_reachable(a->replica, id);
}

static struct hw_hot *hot_state(void *ctx)
{
    struct hw_agent *a = ctx;
    return a->replica == NULL ? NULL : hw_replica_hot(a->replica);
}

struct proposal {
    struct hw_write write;
    void (*done)(void *arg, int status);
    void *arg;
};

static void on_written(struct hw_write *w, int status)
{
    struct proposal *p = hw_container_of(w, struct proposal, write);
    void (*done)(void *arg, int status) = p->done;
    void *arg = p->arg;
    if (status == 0) {
        status = w->result.code;
    }
    free(p);
    done(arg, status);
}

int hw_agent_propose(void *ctx, const struct hw_cmd *cmd, void (*done)(void *arg, int status), void *arg)
{
    struct hw_agent *a = ctx;
    struct proposal *p = calloc(1, sizeof *p);
    int rc;
    if (p == NULL) {
        return HW_ERR_NOMEM;
    }
    p->done = done;
    p->arg = arg;
    p->write.done = on_written;
    rc = hw_write_encode(&p->write, cmd);
    p->write.proposal.is_essential = true;
    if (rc == 0) {
        rc = hw_replica_write(a->replica, &p->write);
    }
    if (rc != 0) {
        free(p);
    }
    return rc;
}

static void on_hand_over(void *ctx)
{
    struct hw_agent *a = ctx;
    hw_replica_lease_hand_on(a->replica);
}

const struct hw_cluster_ops hw_agent_cluster_ops = {
    .is_hot = is_hot,
    .is_reachable = is_reachable,
    .hot = hot_state,
    .propose = hw_agent_propose,
    .on_hand_over = on_hand_over,
};

/* ---- the replica tells ---- */

static void start_cluster(struct hw_agent *a)
{
    struct hw_cluster_config config = {.self_id = a->identity.raft_id,
                                       .self_name = a->config->node.name,
                                       .voters_wanted = (unsigned)a->config->members.voters,
                                       .lag_max = LAG_MAX};
    struct hw_error e = {0};
    if (hw_cluster_new(a->loop, &config, hw_replica_consensus(a->replica), &hw_agent_cluster_ops, a, &a->cluster) !=
        0) {
        hw_agent_stop(a, HW_ERR_NOMEM);
        return;
    }
    if (a->identity.state == HW_IDENTITY_FORMING || a->identity.state == HW_IDENTITY_RECOVERING) {
        a->has_recovered = a->identity.state == HW_IDENTITY_RECOVERING;
        a->identity.state = HW_IDENTITY_MEMBER;
        a->identity.member_count = 0;
        if (hw_identity_store(a->datadir, &a->identity, &e) != 0) {
            hw_log_error(COMPONENT, "the identity cannot be stored", "why=%s", hw_logq(hw_error_text(&e)));
            hw_agent_stop(a, e.code);
            return;
        }
    }
    a->is_started = true;
    hw_agent_look_out(a);
    hw_api_set_replica(a->api, a->replica, a->identity.cluster_id);
    hw_api_set_cluster(a->api, a->cluster);
    hw_timer_start(a->register_timer, 0, REGISTER_EVERY_MS);
    hw_log_info(COMPONENT, "serving", "cluster=%016" PRIx64 " id=%016" PRIx64 " client=%s peer=%s",
                a->identity.cluster_id, a->identity.raft_id, hw_api_client_bound(a->api), hw_api_peer_bound(a->api));
}

/* Damage is mended by starting anew as a fresh node that the others let in; that needs others. */
bool hw_agent_can_start_anew(const struct hw_agent *a)
{
    return a->config->members.initial_count > 1 || a->config->members.join_count > 0;
}

static void on_started(void *ctx, int status, const char *why)
{
    struct hw_agent *a = ctx;
    if (status == 0) {
        hw_agent_post(a, start_cluster);
        return;
    }
    if (status == HW_ERR_CORRUPT && hw_agent_can_start_anew(a)) {
        hw_log_error(COMPONENT, "the data is damaged: moving it to quarantine and starting anew from the other nodes",
                     "why=%s", hw_logq(why));
        a->is_again = true;
    } else {
        hw_log_error(COMPONENT, "cannot start", "error=%s why=%s%s", hw_err_name(status), hw_logq(why),
                     status == HW_ERR_CORRUPT ? " next=\"restore the data folder from a snapshot; nothing was changed\""
                                              : "");
    }
    hw_agent_stop(a, status);
}

static void on_change(void *ctx)
{
    struct hw_agent *a = ctx;
    if (a->cluster != NULL) {
        hw_cluster_poke(a->cluster);
    }
    if (a->has_recovered && a->replica != NULL && hw_replica_is_hot(a->replica)) {
        hw_agent_note_recovery(a);
    }
}

static void on_failed(void *ctx, const char *why)
{
    struct hw_agent *a = ctx;
    hw_log_error(COMPONENT, "this replica cannot go on and ends", "why=%s next=\"see the reason, then start it again\"",
                 hw_logq(why));
    hw_agent_stop(a, HW_ERR_IO);
}

static void on_removed(void *ctx)
{
    struct hw_agent *a = ctx;
    hw_log_error(COMPONENT, "this node was removed from the cluster, and ends",
                 "name=%s id=%016" PRIx64 " next=\"to join again, move its data folder away and start it\"",
                 a->config->node.name, a->identity.raft_id);
    hw_agent_stop(a, HW_ERR_PRECONDITION);
}

const struct hw_replica_ops hw_agent_replica_ops = {.on_started = on_started,
                                                    .on_change = on_change,
                                                    .on_failed = on_failed,
                                                    .on_superseded = hw_agent_on_superseded,
                                                    .on_removed = on_removed};

/* ---- registration ---- */

static void fill_own_node(const struct hw_agent *a, struct hw_node *n)
{
    memset(n, 0, sizeof *n);
    n->id = a->identity.raft_id;
    snprintf(n->name, sizeof n->name, "%s", a->config->node.name);
    snprintf(n->peer_address, sizeof n->peer_address, "%s", a->config->advertise.peer);
    snprintf(n->client_address, sizeof n->client_address, "%s", a->config->advertise.client);
}

static void on_own_join(struct hw_join *j, int status)
{
    struct hw_agent *a = hw_container_of(j, struct hw_agent, own_join);
    a->is_registering = false;
    if (status != 0 && status != HW_ERR_CANCELLED) {
        hw_log_warn(COMPONENT, "registration failed", "why=%s", hw_logq(hw_error_text(&j->e)));
    }
}

static void on_forwarded(struct hw_forward *f, enum hw_grpc status, const char *text, struct hw_slice answer)
{
    struct hw_agent *a = hw_container_of(f, struct hw_agent, registration);
    (void)answer;
    a->is_registering = false;
    hw_buf_free(&f->payload);
    if (status != HW_GRPC_OK && status != HW_GRPC_ABORTED && status != HW_GRPC_UNAVAILABLE) {
        hw_log_warn(COMPONENT, "registration failed", "why=%s", hw_logq(text));
    }
}

static void forward_registration(struct hw_agent *a, struct hw_node *n)
{
    Hotwarm__V1__JoinRequest m = HOTWARM__V1__JOIN_REQUEST__INIT;
    struct hw_forward *f = &a->registration;
    m.id = n->id;
    m.name = n->name;
    m.peer_address = n->peer_address;
    m.client_address = n->client_address;
    m.cluster_name = (char *)a->config->cluster;
    hw_buf_init(&f->payload);
    if (hw_buf_reserve(&f->payload, hotwarm__v1__join_request__get_packed_size(&m) + 1) != 0) {
        return;
    }
    f->payload.len = hotwarm__v1__join_request__pack(&m, f->payload.data);
    f->method = "/hotwarm.v1.Peer/Join";
    f->is_idempotent = true;
    f->done = on_forwarded;
    a->is_registering = hw_replica_forward(a->replica, f, REGISTER_TIMEOUT_MS) == 0;
    if (!a->is_registering) {
        hw_buf_free(&f->payload);
    }
}

void hw_agent_register(struct hw_agent *a)
{
    struct hw_node want;
    const struct hw_node *have;
    if (a->replica == NULL || a->cluster == NULL || a->is_registering || a->is_stopping) {
        return;
    }
    fill_own_node(a, &want);
    have = hw_hot_node_by_id(hw_replica_hot(a->replica), want.id);
    if (have != NULL && strcmp(have->name, want.name) == 0 && strcmp(have->peer_address, want.peer_address) == 0 &&
        strcmp(have->client_address, want.client_address) == 0) {
        hw_timer_stop(a->register_timer);
        return;
    }
    if (hw_replica_is_hot(a->replica)) {
        a->own_join.node = want;
        a->own_join.done = on_own_join;
        a->is_registering = hw_cluster_join(a->cluster, &a->own_join) == 0;
    } else {
        forward_registration(a, &want);
    }
}
