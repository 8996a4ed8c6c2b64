#include "tests/unit/agent/cluster/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"

/* ---- consensus ---- */

struct command {
    struct hw_proposal proposal;
    void (*done)(void *arg, int status);
    void *arg;
};

static int propose(struct crig_node *n, const struct hw_cmd *cmd, void (*done)(void *arg, int status), void *arg);

static int on_apply(void *ctx, uint64_t index, uint64_t term, struct hw_slice entry, struct hw_proposal *mine)
{
    struct crig_node *n = ctx;
    struct hw_error e = {0};
    (void)term;
    (void)mine;
    return hw_hot_apply(n->hot, index, entry.data, entry.len, NULL, &e);
}

static int on_manifest(void *ctx, uint64_t index, struct hw_buf *out)
{
    (void)ctx;
    hw_buf_put_u64(out, index);
    return 0;
}

static void on_make_durable(void *ctx, const struct hw_durable *d)
{
    (void)d;
    hw_consensus_durable(((struct crig_node *)ctx)->consensus);
}

static int on_restore(void *ctx, struct hw_slice manifest)
{
    (void)ctx;
    (void)manifest;
    return 0;
}

static void on_claimed(void *arg, int status)
{
    (void)arg;
    (void)status;
}

static void on_change(void *ctx, const struct hw_consensus_view *view)
{
    struct crig_node *n = ctx;
    struct hw_cmd cmd = {.type = HW_CMD_HOT_ACQUIRED};
    if (view->is_leader && n->claimed_term != view->term) {
        n->claimed_term = view->term;
        cmd.hot.node_id = n->id;
        cmd.hot.epoch = view->term;
        propose(n, &cmd, on_claimed, NULL);
    }
    if (n->rig->cluster != NULL) {
        hw_cluster_poke(n->rig->cluster);
    }
}

static void on_failed(void *ctx, const char *why)
{
    (void)ctx;
    printf("  consensus failed: %s\n", why);
    CHECK(false);
}

static const struct hw_consensus_ops consensus_ops = {
    .apply = on_apply,
    .manifest = on_manifest,
    .make_durable = on_make_durable,
    .restore = on_restore,
    .on_change = on_change,
    .on_failed = on_failed,
};

static void on_proposal_done(struct hw_proposal *p, int status)
{
    struct command *c = hw_container_of(p, struct command, proposal);
    c->done(c->arg, status);
    free(c);
}

static int propose(struct crig_node *n, const struct hw_cmd *cmd, void (*done)(void *arg, int status), void *arg)
{
    struct command *c = calloc(1, sizeof *c);
    int rc;
    hw_assert(c != NULL);
    c->done = done;
    c->arg = arg;
    c->proposal.done = on_proposal_done;
    rc = hw_proposal_begin(&c->proposal);
    if (rc == 0) {
        rc = hw_cmd_encode(cmd, &c->proposal.entry);
    }
    if (rc == 0) {
        rc = hw_consensus_propose(n->consensus, &c->proposal);
    }
    if (rc != 0) {
        hw_buf_free(&c->proposal.entry);
        free(c);
    }
    return rc;
}

/* ---- what the cluster asks ---- */

bool crig_is_hot(struct crig *r, unsigned at)
{
    struct crig_node *n = &r->nodes[at];
    struct hw_consensus_view view;
    hw_consensus_view(n->consensus, &view);
    return view.is_leader && hw_hot_epoch(n->hot) == view.term && hw_hot_hot_node(n->hot) == n->id;
}

static bool ops_is_hot(void *ctx)
{
    struct crig *r = ctx;
    return !r->is_never_hot && crig_is_hot(r, 0);
}

static bool ops_is_reachable(void *ctx, uint64_t id)
{
    struct crig *r = ctx;
    for (size_t i = 0; i < hw_array_len(r->unreachable); i++) {
        if (r->unreachable[i] == id) {
            return false;
        }
    }
    return true;
}

static struct hw_hot *ops_hot(void *ctx)
{
    return ((struct crig *)ctx)->nodes[0].hot;
}

static int ops_propose(void *ctx, const struct hw_cmd *cmd, void (*done)(void *arg, int status), void *arg)
{
    struct crig *r = ctx;
    return r->refuses_proposals ? HW_ERR_EXHAUSTED : propose(&r->nodes[0], cmd, done, arg);
}

static const struct hw_cluster_ops cluster_ops = {ops_is_hot, ops_is_reachable, ops_hot, ops_propose, NULL};

void crig_set_reachable(struct crig *r, uint64_t id, bool is_reachable)
{
    size_t spare = hw_array_len(r->unreachable);
    for (size_t i = 0; i < hw_array_len(r->unreachable); i++) {
        if (r->unreachable[i] == id) {
            r->unreachable[i] = 0;
        }
        spare = r->unreachable[i] == 0 ? i : spare;
    }
    hw_assert(spare < hw_array_len(r->unreachable));
    r->unreachable[spare] = is_reachable ? 0 : id;
}

/* ---- the rig ---- */

static void on_tick(void *ctx)
{
    (void)ctx;
}

static void on_accept(void *ctx, struct hw_stream *s)
{
    struct crig_node *n = ctx;
    hw_consensus_accept(n->consensus, s);
}

static void node_new(struct crig *r, unsigned at)
{
    struct crig_node *n = &r->nodes[at];
    struct hw_consensus_config config;
    struct hw_error e = {0};
    n->rig = r;
    n->id = CRIG_ID(at);
    n->hot = hw_hot_new();
    REQUIRE(n->hot != NULL);
    REQUIRE(hw_listener_new(r->loop, "127.0.0.1:0", 100, on_accept, n, &n->listener, &e) == 0);
    snprintf(n->address, sizeof n->address, "%s", hw_listener_address(n->listener));
    hw_consensus_config_default(&config);
    config.id = n->id;
    config.cluster_id = 0xc1;
    config.address = n->address;
    config.folder = hw_test_dir();
    config.election_ms = 600; /* other suites and sanitizers share the machine */
    REQUIRE(hw_consensus_new(r->loop, r->pool, NULL, &config, &consensus_ops, n, &n->consensus, &e) == 0);
}

static void start_all(struct crig *r)
{
    struct hw_member members[CRIG_NODES_MAX];
    struct hw_error e = {0};
    for (unsigned i = 0; i < r->node_count; i++) {
        members[i] = (struct hw_member){.id = r->nodes[i].id, .role = HW_ROLE_VOTER};
        snprintf(members[i].address, sizeof members[i].address, "%s", r->nodes[i].address);
    }
    for (unsigned i = 0; i < r->node_count; i++) {
        REQUIRE(hw_consensus_bootstrap(r->nodes[i].consensus, members, r->node_count, &e) == 0);
        REQUIRE(hw_consensus_start(r->nodes[i].consensus, &e) == 0);
    }
}

static void on_handed_over(struct hw_change *ch, int status)
{
    (void)status;
    ch->done = NULL; /* tried again if it was in vain */
}

/* Whoever was elected hands over to node 0. */
static void make_first_hot(struct crig *r)
{
    uint64_t end_ms = hw_mono_ms() + CRIG_PATIENCE_MS;
    while (!crig_is_hot(r, 0) && hw_mono_ms() < end_ms) {
        hw_loop_turn(r->loop, true);
        for (unsigned i = 1; i < r->node_count; i++) {
            if (crig_is_hot(r, i) && r->handover.done == NULL) {
                r->handover.done = on_handed_over;
                if (hw_consensus_transfer(r->nodes[i].consensus, &r->handover, CRIG_ID(0)) != 0) {
                    r->handover.done = NULL;
                }
            }
        }
    }
    REQUIRE(crig_is_hot(r, 0));
}

static void on_registered(void *arg, int status)
{
    *(int *)arg += status == 0;
}

void crig_open(struct crig *r, unsigned node_count)
{
    struct hw_cluster_config config = {.self_id = CRIG_ID(0), .voters_wanted = 3};
    int registered = 0;
    memset(r, 0, sizeof *r);
    REQUIRE(hw_loop_new(&r->loop, NULL, 0) == 0);
    REQUIRE(hw_pool_new(r->loop, "pool", 1, 64, &r->pool, NULL) == 0);
    r->tick = hw_timer_new(r->loop, "tick", on_tick, r);
    hw_timer_start(r->tick, 2, 2);
    r->node_count = node_count;
    for (unsigned i = 0; i < node_count; i++) {
        node_new(r, i);
    }
    start_all(r);
    make_first_hot(r);
    for (unsigned i = 0; i < node_count; i++) {
        struct hw_cmd cmd = {.type = HW_CMD_NODE_SET, .node.id = CRIG_ID(i)};
        snprintf(cmd.node.name, sizeof cmd.node.name, "n%u", i + 1);
        snprintf(cmd.node.peer_address, sizeof cmd.node.peer_address, "%s", r->nodes[i].address);
        REQUIRE(propose(&r->nodes[0], &cmd, on_registered, &registered) == 0);
    }
    REQUIRE(crig_until(r, &registered, (int)node_count));
    REQUIRE(hw_cluster_new(r->loop, &config, r->nodes[0].consensus, &cluster_ops, r, &r->cluster) == 0);
}

static void on_closed(void *ctx)
{
    ((struct crig *)ctx)->closed++;
}

void crig_close(struct crig *r)
{
    uint64_t end_ms = hw_mono_ms() + CRIG_PATIENCE_MS;
    hw_cluster_free(r->cluster);
    r->cluster = NULL;
    for (unsigned i = 0; i < r->node_count; i++) {
        hw_listener_free(r->nodes[i].listener);
        hw_consensus_shut(r->nodes[i].consensus, on_closed, r);
    }
    while (r->closed < r->node_count && hw_mono_ms() < end_ms) {
        hw_loop_turn(r->loop, true);
    }
    CHECK_EQ(r->closed, r->node_count);
    hw_pool_shut(r->pool, on_closed, r);
    while (r->closed < r->node_count + 1 && hw_mono_ms() < end_ms) {
        hw_loop_turn(r->loop, true);
    }
    hw_timer_free(r->tick);
    for (unsigned i = 0; i < r->node_count; i++) {
        hw_consensus_free(r->nodes[i].consensus);
        hw_hot_free(r->nodes[i].hot);
    }
    for (int i = 0; i < 1000 && hw_loop_turn(r->loop, true); i++) {
    }
    hw_pool_free(r->pool);
    hw_loop_free(r->loop);
}

enum hw_role crig_role(struct crig *r, uint64_t id)
{
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count = hw_consensus_members(r->nodes[0].consensus, members, HW_MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (members[i].id == id) {
            return members[i].role;
        }
    }
    return HW_ROLE_NONE;
}

const struct hw_node *crig_registered(struct crig *r, const char *name)
{
    return hw_hot_node_by_name(r->nodes[0].hot, name);
}

bool crig_has_event(struct crig *r, const char *kind, uint64_t node_id)
{
    const struct hw_event *e;
    for (size_t i = 0; (e = hw_hot_event_at(r->nodes[0].hot, i)) != NULL; i++) {
        if (strcmp(e->kind, kind) == 0 && e->node_id == node_id) {
            return true;
        }
    }
    return false;
}

bool crig_until(struct crig *r, const int *value, int want)
{
    uint64_t end_ms = hw_mono_ms() + CRIG_PATIENCE_MS;
    while (*value < want && hw_mono_ms() < end_ms) {
        hw_loop_turn(r->loop, true);
    }
    return *value >= want;
}

bool crig_until_hot(struct crig *r, unsigned at)
{
    uint64_t end_ms = hw_mono_ms() + CRIG_PATIENCE_MS;
    while (!crig_is_hot(r, at) && hw_mono_ms() < end_ms) {
        hw_loop_turn(r->loop, true);
    }
    return crig_is_hot(r, at);
}

bool crig_until_role(struct crig *r, uint64_t id, enum hw_role role)
{
    uint64_t end_ms = hw_mono_ms() + CRIG_PATIENCE_MS;
    while (crig_role(r, id) != role && hw_mono_ms() < end_ms) {
        hw_loop_turn(r->loop, true);
    }
    return crig_role(r, id) == role;
}

void crig_turns(struct crig *r, unsigned ms)
{
    uint64_t end_ms = hw_mono_ms() + ms;
    while (hw_mono_ms() < end_ms) {
        hw_loop_turn(r->loop, true);
    }
}
