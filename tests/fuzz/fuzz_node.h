/* One node in memory, for fuzz targets: everything of the agent's above the log, the loop and the disk. Exactly one
 * file of a program includes it.
 */
#ifndef HW_FUZZ_NODE_H
#define HW_FUZZ_NODE_H

#include "agent/api/api_impl.h"
#undef HW_COMPONENT
#include "agent/replica/replica_impl.h"
#undef HW_COMPONENT
#include "tests/fuzz/fuzz_consensus_seam.h"
#include "tests/fuzz/fuzz_rpc_seam.h"

#define SELF_ID 1
#define OTHER_ID 2

struct node_setup {
    const char *data; /* folder */
    bool is_hot;      /* and the only member; otherwise OTHER_ID is */
    bool is_full;     /* the state may hardly grow */
    bool is_empty;    /* no replica yet */
};

struct node {
    struct hw_loop *loop;
    struct hw_metrics *metrics;
    struct hw_replica *replica;
    struct hw_cluster *cluster;
    struct hw_api *api;
};

/* ---- what a composition root gives ---- */

static void on_started(void *ctx, int status, const char *why)
{
    (void)ctx;
    (void)status;
    (void)why;
}

static void on_change(void *ctx)
{
    struct node *n = ctx;
    if (n->cluster != NULL) {
        hw_cluster_poke(n->cluster);
    }
}

static void on_failed(void *ctx, const char *why)
{
    (void)ctx;
    hw_assert(why == NULL);
}

static void on_removed(void *ctx)
{
    (void)ctx;
}

static void on_superseded(void *ctx, uint64_t recovery)
{
    (void)ctx;
    hw_assert(recovery > 0);
}

static const struct hw_replica_ops replica_ops = {.on_started = on_started,
                                                  .on_change = on_change,
                                                  .on_failed = on_failed,
                                                  .on_superseded = on_superseded,
                                                  .on_removed = on_removed};

static void on_hello(void *ctx, struct hw_hello *hello)
{
    (void)ctx;
    *hello = (struct hw_hello){.id = SELF_ID, .cluster_id = 9, .phase = "joining"};
}

static int on_form(void *ctx, uint64_t cluster_id, uint64_t recovery, const struct hw_form_member *members,
                   size_t count, struct hw_error *e)
{
    (void)ctx;
    (void)recovery;
    hw_assert(cluster_id != 0);
    for (size_t i = 0; i < count; i++) {
        hw_assert(members[i].id != 0 && strlen(members[i].name) > 0 && strlen(members[i].peer_address) > 0);
    }
    return count == 0 ? hw_error_set(e, HW_ERR_INVALID, "nobody") : 0;
}

static void on_asked(void *ctx, const char *name, const struct hw_form_member *initial, size_t count)
{
    (void)ctx;
    (void)name;
    hw_assert(count == 0 || initial != NULL);
}

static int on_recover(void *ctx, uint64_t *recovery, struct hw_error *e)
{
    (void)ctx;
    *recovery = 0;
    return hw_error_set(e, HW_ERR_UNAVAILABLE, "not here");
}

static const struct hw_api_ops node_api_ops = {
    .hello = on_hello, .form = on_form, .asked = on_asked, .recover = on_recover};

static bool is_hot(void *ctx)
{
    struct node *n = ctx;
    return hw_replica_is_hot(n->replica);
}

static bool is_reachable(void *ctx, uint64_t id)
{
    struct node *n = ctx;
    return hw_replica_is_reachable(n->replica, id);
}

static struct hw_hot *hot_state(void *ctx)
{
    struct node *n = ctx;
    return hw_replica_hot(n->replica);
}

struct proposal {
    struct hw_write write;
    void (*done)(void *arg, int status);
    void *arg;
};

static void on_written(struct hw_write *w, int status)
{
    struct proposal *p = hw_container_of(w, struct proposal, write);
    p->done(p->arg, status != 0 ? status : w->result.code);
    free(p);
}

static int propose(void *ctx, const struct hw_cmd *cmd, void (*done)(void *arg, int status), void *arg)
{
    struct node *n = ctx;
    struct proposal *p = calloc(1, sizeof *p);
    int rc;
    hw_assert(p != NULL);
    p->done = done;
    p->arg = arg;
    p->write.done = on_written;
    rc = hw_write_encode(&p->write, cmd);
    rc = rc == 0 ? hw_replica_write(n->replica, &p->write) : rc;
    if (rc != 0) {
        free(p);
    }
    return rc;
}

static const struct hw_cluster_ops cluster_ops = {is_hot, is_reachable, hot_state, propose, NULL};

/* ---- the node ---- */

static void apply(struct hw_hot *hot, const struct hw_cmd *cmd)
{
    struct hw_buf b = {0};
    hw_assert(hw_cmd_encode(cmd, &b) == 0);
    hw_assert(hw_hot_apply(hot, hw_hot_applied(hot) + 1, b.data, b.len, NULL, NULL) == 0);
    hw_buf_free(&b);
}

/* A state in which requests find something: keys, a lease, a tombstone, a compaction, a node, an event. */
static struct hw_hot *furnished(void)
{
    struct hw_op ops[] = {
        {.type = HW_OP_PUT, .put = {.key = hw_slice_str("a"), .value = hw_slice_str("1"), .lease = 1}},
        {.type = HW_OP_PUT, .put = {.key = hw_slice_str("b"), .value = hw_slice_str("2")}},
        {.type = HW_OP_PUT, .put = {.key = hw_slice_str("bb"), .value = hw_slice_str("3")}},
        {.type = HW_OP_PUT, .put = {.key = hw_slice_str("c")}},
    };
    struct hw_op del = {.type = HW_OP_DELETE, .del = {.key = hw_slice_str("c")}};
    struct hw_cmd node = {
        .type = HW_CMD_NODE_SET,
        .wall_ms = 1,
        .node = {.id = SELF_ID, .name = "n1", .peer_address = "127.0.0.1:2", .client_address = "127.0.0.1:1"}};
    struct hw_cmd acquired = {
        .type = HW_CMD_HOT_ACQUIRED, .wall_ms = 1, .hot = {.node_id = 2, .epoch = 4, .name = "n2"}};
    struct hw_hot *hot = hw_hot_new();
    hw_assert(hot != NULL);
    apply(hot, &acquired);
    apply(hot, &node);
    apply(hot, &(struct hw_cmd){.type = HW_CMD_LEASE_GRANT, .grant = {1, 60}});
    apply(hot, &(struct hw_cmd){.type = HW_CMD_TXN, .txn = {.success = ops, .success_count = hw_array_len(ops)}});
    apply(hot, &(struct hw_cmd){.type = HW_CMD_TXN, .txn = {.success = ops, .success_count = 2}});
    apply(hot, &(struct hw_cmd){.type = HW_CMD_TXN, .txn = {.success = &del, .success_count = 1}});
    apply(hot, &(struct hw_cmd){.type = HW_CMD_COMPACT, .compact = 2});
    return hot;
}

static void replica_open(struct node *n, const struct node_setup *setup)
{
    struct hw_replica_config *config = calloc(1, sizeof *config);
    const struct hw_cluster_config cluster_config = {.self_id = SELF_ID, .self_name = "n1", .voters_wanted = 3};
    struct hw_error e = {0};
    hw_assert(config != NULL);
    config->consensus.id = SELF_ID;
    config->consensus.cluster_id = 9;
    config->consensus.address = "127.0.0.1:2";
    config->consensus.election_ms = 300;
    config->name = "n1";
    config->data = setup->data;
    config->checkpoint_interval_ms = 1000;
    config->checkpoint_dirty_bytes = 1 << 20;
    config->reads_max = 100;
    config->forwards_max = 20;
    config->scan_slice_keys = 2;
    config->watchers_max = 20;
    config->state_bytes_max = setup->is_full ? 1000 : 1 << 20;
    config->compaction_interval_ms = 300000;
    hw_assert(hw_replica_new(n->loop, NULL, n->metrics, config, &replica_ops, n, &n->replica, &e) == 0);
    free(config);
    n->replica->hot = furnished();
    n->replica->consensus = seam_log_new(&hw_replica_consensus_ops, n->replica, SELF_ID, setup->is_hot);
    n->replica->consensus->view.last_index = hw_hot_applied(n->replica->hot);
    n->replica->phase = HW_PHASE_MEMBER;
    hw_watch_hub_set_state(&n->replica->watch, n->replica->hot);
    hw_leases_attach(n->replica);
    hw_peers_sync(n->replica);
    hw_replica_refresh(n->replica);
    seam_log_turn(n->replica->consensus);
    hw_assert(hw_replica_is_hot(n->replica) == setup->is_hot);
    hw_assert(hw_cluster_new(n->loop, &cluster_config, n->replica->consensus, &cluster_ops, n, &n->cluster) == 0);
    hw_api_set_replica(n->api, n->replica, 9);
    hw_api_set_cluster(n->api, n->cluster);
}

static void node_open(struct node *n, const struct node_setup *setup)
{
    const struct hw_api_config config = {
        .client_listen = "127.0.0.1:1",
        .peer_listen = "127.0.0.1:2",
        .client_address = "127.0.0.1:1",
        .peer_address = "127.0.0.1:2",
        .cluster_name = "fuzz",
        .node_name = "n1",
        .node_id = SELF_ID,
        .request_bytes_max = 4096,
        .txn_ops_max = 16,
        .connections_max = 100,
        .streams_max = 100,
        .request_timeout_ms = 2000,
        .scan_slice_keys = 2,
        .transfer_chunk_bytes = 1024,
        .watch_queue_bytes_max = 4096,
    };
    struct hw_error e = {0};
    memset(n, 0, sizeof *n);
    n->loop = seam_loop_new();
    n->metrics = hw_metrics_new();
    hw_assert(hw_api_new(n->loop, NULL, n->metrics, &config, &node_api_ops, n, &n->api, &e) == 0);
    hw_assert(hw_api_listen(n->api, &e) == 0);
    if (!setup->is_empty) {
        replica_open(n, setup);
    }
}

static void turn(struct node *n)
{
    for (int i = 0; i < 3; i++) {
        seam_turn(n->loop);
        if (n->replica != NULL) {
            seam_log_turn(n->replica->consensus);
        }
    }
}

static void on_closed(void *ctx)
{
    bool *is_closed = ctx;
    *is_closed = true;
}

static inline void turn_until(struct node *n, const bool *is_closed)
{
    for (int i = 0; !*is_closed; i++) {
        hw_assert(i < 1000);
        turn(n);
        seam_advance(n->loop, 10);
    }
}

static inline void node_cut_all(struct node *n)
{
    struct hw_stream *s;
    TAILQ_FOREACH(s, &n->loop->streams, link) {
        seam_end(s, HW_ERR_CLOSED);
    }
    turn(n);
}

static void node_close(struct node *n)
{
    bool is_closed = false;
    struct hw_stream *s;
    hw_api_shut(n->api, 50, on_closed, &is_closed);
    turn_until(n, &is_closed);
    if (n->replica != NULL) {
        hw_assert(hw_hot_check(n->replica->hot) == NULL);
        hw_cluster_free(n->cluster);
        n->cluster = NULL;
        is_closed = false;
        hw_replica_shut(n->replica, on_closed, &is_closed);
        turn_until(n, &is_closed);
        hw_replica_free(n->replica);
        n->replica = NULL;
    }
    hw_api_free(n->api);
    TAILQ_FOREACH(s, &n->loop->streams, link) {
        seam_end(s, HW_ERR_CLOSED); /* what its server has let go of already */
    }
    for (int i = 0; i < 4; i++) {
        turn(n);
        seam_advance(n->loop, 2000);
    }
    seam_loop_free(n->loop);
    hw_metrics_free(n->metrics);
}

static bool is_alive(const struct node *n, const struct hw_stream *wanted)
{
    const struct hw_stream *s;
    TAILQ_FOREACH(s, &n->loop->streams, link) {
        if (s == wanted) {
            return !s->is_ending && !s->is_paused;
        }
    }
    return false;
}

/* Somebody connects to a port of the node. */
static struct hw_stream *dial(struct node *n, bool is_peer)
{
    struct hw_listener *l = is_peer ? n->api->peer_port.listener : n->api->client_port.listener;
    struct hw_stream *s = seam_stream_new(n->loop);
    l->on_accept(l->ctx, s);
    return s;
}

#endif
