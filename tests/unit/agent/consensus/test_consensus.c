#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "tests/unit/agent/consensus/cluster.h"

/* Real servers, disks and sockets in one process. Nothing here depends on how fast: conditions are waited for. */

#define WRITES 10000

/* Keeps `width` proposals under way at the leader until `total` have ended. */
struct load {
    struct write *writes;
    size_t total;
    size_t next;
    size_t width;
    size_t len;
};

static bool is_loaded(struct cluster *cl, void *arg)
{
    struct load *l = arg;
    size_t open = 0;
    struct node *leader = cluster_leader(cl);
    for (size_t i = 0; i < l->next; i++) {
        open += l->writes[i].status == 1;
    }
    while (leader != NULL && l->next < l->total && open < l->width) {
        if (write_propose(leader, &l->writes[l->next], l->len) != 0) {
            break;
        }
        l->next++;
        open++;
    }
    return l->next == l->total && open == 0;
}

static void load_free(struct load *l)
{
    for (size_t i = 0; i < l->next; i++) {
        CHECK_EQ(l->writes[i].done_count, 1);
    }
    free(l->writes);
}

static struct load load_new(size_t total, size_t width)
{
    return (struct load){.writes = calloc(total, sizeof(struct write)), .total = total, .width = width, .len = 100};
}

static void three_servers_apply_the_same_in_the_same_order(void)
{
    struct cluster cl;
    struct load l = load_new(WRITES, 500);
    cluster_open(&cl);
    cluster_start(&cl, 3);
    REQUIRE(cluster_wait_leader(&cl));
    CHECK(cluster_wait(&cl, is_loaded, &l));
    CHECK_EQ(cl.acked, WRITES);
    CHECK(cluster_wait_even(&cl));
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(cl.nodes[i].state.count, WRITES);
    }
    for (size_t i = 1; i < WRITES; i++) {
        CHECK(l.writes[i].p.index > l.writes[i - 1].p.index);
    }
    load_free(&l);
    cluster_close(&cl);
}

static void leadership_moves_on_request(void)
{
    struct cluster cl;
    struct change_wait w;
    struct node *leader;
    uint64_t target;
    cluster_open(&cl);
    cluster_start(&cl, 3);
    CHECK_EQ(cluster_write(&cl, 100), 0);
    leader = cluster_leader(&cl);
    target = leader->id % 3 + 1;
    change_wait_init(&w);
    REQUIRE(hw_consensus_transfer(leader->c, &w.ch, target) == 0);
    CHECK_EQ(hw_consensus_transfer(leader->c, &(struct hw_change){0}, target), HW_ERR_EXHAUSTED);
    CHECK(cluster_wait_change(&cl, &w));
    CHECK_EQ(w.status, 0);
    CHECK_EQ(cluster_write(&cl, 100), 0);
    CHECK(cluster_leader(&cl) != leader);
    CHECK_EQ(cluster_leader(&cl)->id, target);
    leader = cluster_leader(&cl);
    change_wait_init(&w);
    REQUIRE(hw_consensus_transfer(leader->c, &w.ch, 77) == 0);
    CHECK(cluster_wait_change(&cl, &w));
    CHECK_EQ(w.status, HW_ERR_NOTFOUND);
    CHECK(cluster_wait_even(&cl));
    cluster_close(&cl);
}

static void two_of_three_go_on_and_the_third_comes_back(void)
{
    struct cluster cl;
    struct load l = load_new(500, 50);
    struct node *gone;
    cluster_open(&cl);
    cluster_start(&cl, 3);
    CHECK_EQ(cluster_write(&cl, 100), 0);
    gone = cluster_leader(&cl);
    node_stop(gone);
    REQUIRE(cluster_wait_leader(&cl));
    CHECK(cluster_wait(&cl, is_loaded, &l));
    node_start(gone);
    CHECK(cluster_wait_even(&cl));
    CHECK_EQ(cl.acked, 501);
    load_free(&l);
    cluster_close(&cl);
}

static bool is_known_member(struct cluster *cl, void *arg)
{
    struct hw_consensus_view v;
    (void)cl;
    hw_consensus_view(((struct node *)arg)->c, &v);
    return v.role != HW_ROLE_NONE && v.applied_index > 0 && !v.is_changing;
}

static int change_sync(struct cluster *cl, int rc, struct change_wait *w)
{
    if (rc != 0) {
        return rc;
    }
    CHECK(cluster_wait_change(cl, w));
    return w->status;
}

static void a_fourth_joins_is_promoted_and_leaves(void)
{
    struct cluster cl;
    struct change_wait w;
    struct node *leader;
    struct node *fourth;
    struct hw_member members[8];
    struct hw_consensus_view v;
    uint64_t index;
    cluster_open(&cl);
    cluster_start(&cl, 3);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(cluster_write(&cl, 50), 0);
    }
    leader = cluster_leader(&cl);
    fourth = &cl.nodes[3];
    node_start(fourth);
    change_wait_init(&w);
    CHECK_EQ(change_sync(&cl, hw_consensus_add(leader->c, &w.ch, 4, hw_listener_address(fourth->listener)), &w), 0);
    change_wait_init(&w);
    CHECK_EQ(hw_consensus_add(leader->c, &w.ch, 4, "127.0.0.1:1"), 0);
    CHECK(cluster_wait_change(&cl, &w));
    CHECK_EQ(w.status, HW_ERR_EXISTS);
    change_wait_init(&w);
    CHECK_EQ(hw_consensus_assign(leader->c, &w.ch, 4, HW_ROLE_VOTER), HW_ERR_PRECONDITION);
    CHECK_EQ(change_sync(&cl, hw_consensus_assign(leader->c, &w.ch, 4, HW_ROLE_STANDBY), &w), 0);
    /* It gets its log in few messages, and must know its configuration for committed, as the others do. */
    CHECK(cluster_wait(&cl, is_known_member, fourth));
    CHECK(cluster_wait_even(&cl));
    hw_consensus_view(leader->c, &v);
    CHECK_EQ(fourth->view.config_index, v.config_index);
    change_wait_init(&w);
    CHECK_EQ(change_sync(&cl, hw_consensus_assign(leader->c, &w.ch, 4, HW_ROLE_VOTER), &w), 0);
    CHECK_EQ(hw_consensus_members(leader->c, members, 8), 4);
    CHECK_EQ(members[3].id, 4);
    CHECK_EQ(members[3].role, HW_ROLE_VOTER);
    CHECK_EQ(hw_consensus_match_index(leader->c, 4, &index), 0);
    CHECK_EQ(hw_consensus_match_index(leader->c, 9, &index), HW_ERR_NOTFOUND);
    CHECK(cluster_wait(&cl, is_known_member, fourth));
    hw_consensus_view(leader->c, &v);
    CHECK(cluster_wait_even(&cl));
    CHECK_EQ(fourth->view.role, HW_ROLE_VOTER);
    CHECK_EQ(fourth->view.config_index, v.config_index);
    change_wait_init(&w);
    CHECK_EQ(hw_consensus_remove(leader->c, &w.ch, 9), HW_ERR_NOTFOUND);
    CHECK_EQ(change_sync(&cl, hw_consensus_remove(leader->c, &w.ch, 4), &w), 0);
    node_stop(fourth);
    CHECK_EQ(cluster_write(&cl, 50), 0);
    CHECK_EQ(hw_consensus_members(cluster_leader(&cl)->c, members, 8), 3);
    cluster_close(&cl);
}

static bool has_snapshots(struct cluster *cl, void *arg)
{
    (void)arg;
    return cl->nodes[0].snapshots > 1 && cl->nodes[1].snapshots > 1;
}

static void a_server_behind_the_log_gets_a_snapshot_and_survives_restart(void)
{
    struct cluster cl;
    struct load l = load_new(1000, 20);
    struct change_wait w;
    struct node *fourth;
    struct hw_member members[8];
    cluster_open(&cl);
    cl.config.snapshot_threshold = 64;
    cl.config.snapshot_trailing = 16;
    cl.durable_ms = 20;
    cluster_start(&cl, 3);
    REQUIRE(cluster_wait_leader(&cl));
    CHECK(cluster_wait(&cl, is_loaded, &l));
    CHECK(cluster_wait(&cl, has_snapshots, NULL));
    fourth = &cl.nodes[3];
    node_start(fourth);
    change_wait_init(&w);
    CHECK_EQ(
        change_sync(&cl, hw_consensus_add(cluster_leader(&cl)->c, &w.ch, 4, hw_listener_address(fourth->listener)), &w),
        0);
    change_wait_init(&w);
    CHECK_EQ(change_sync(&cl, hw_consensus_assign(cluster_leader(&cl)->c, &w.ch, 4, HW_ROLE_STANDBY), &w), 0);
    CHECK(cluster_wait_even(&cl));
    CHECK(fourth->installs >= 1);
    CHECK(fourth->restores >= 1);
    CHECK_EQ(fourth->state.count, 1000);
    for (int i = 0; i < 4; i++) {
        node_stop(&cl.nodes[i]);
        cl.nodes[i].restores = 0;
    }
    for (int i = 0; i < 4; i++) {
        node_start(&cl.nodes[i]);
        CHECK_EQ(cl.nodes[i].restores, 1);
    }
    cluster_hurry(&cl);
    CHECK_EQ(cluster_write(&cl, 100), 0);
    CHECK(cluster_wait_even(&cl));
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(cl.nodes[i].state.count, 1001);
        CHECK_EQ(hw_consensus_members(cl.nodes[i].c, members, 8), 4);
        CHECK_EQ(members[3].role, HW_ROLE_STANDBY);
    }
    load_free(&l);
    cluster_close(&cl);
}

static bool has_durable_wait(struct cluster *cl, void *arg)
{
    (void)arg;
    return cl->nodes[0].snapshots > 0;
}

static void shutting_while_a_snapshot_waits_is_clean(void)
{
    struct cluster cl;
    struct load l = load_new(300, 20);
    cluster_open(&cl);
    cl.config.snapshot_threshold = 64;
    cl.durable_ms = 10 * 60 * 1000; /* never */
    cluster_start(&cl, 1);
    REQUIRE(cluster_wait_leader(&cl));
    CHECK(cluster_wait(&cl, is_loaded, &l));
    CHECK(cluster_wait(&cl, has_durable_wait, NULL));
    node_stop(&cl.nodes[0]);
    cl.durable_ms = 0;
    node_start(&cl.nodes[0]);
    CHECK_EQ(cl.nodes[0].restores, 0);
    CHECK(cluster_wait_even(&cl));
    CHECK_EQ(cl.nodes[0].state.count, 300);
    load_free(&l);
    cluster_close(&cl);
}

static void every_proposal_ends_once_when_shutting(void)
{
    struct cluster cl;
    struct write *writes = calloc(400, sizeof *writes);
    struct change_wait w;
    struct node *leader;
    cluster_open(&cl);
    cluster_start(&cl, 3);
    CHECK_EQ(cluster_write(&cl, 10), 0);
    leader = cluster_leader(&cl);
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(write_propose(leader, &writes[i], 100), 0);
    }
    hw_loop_turn(cl.loop, false);
    for (int i = 200; i < 400; i++) { /* these have not reached libraft */
        CHECK_EQ(write_propose(leader, &writes[i], 100), 0);
    }
    change_wait_init(&w);
    CHECK_EQ(hw_consensus_transfer(leader->c, &w.ch, 0), 0);
    node_stop(leader);
    for (int i = 0; i < 400; i++) {
        CHECK_EQ(writes[i].done_count, 1);
        CHECK(writes[i].status == 0 || writes[i].status == HW_ERR_CANCELLED);
    }
    CHECK_EQ(w.status, HW_ERR_CANCELLED);
    free(writes);
    cluster_close(&cl);
}

static bool are_writes_over(struct cluster *cl, void *arg)
{
    struct write *writes = arg;
    (void)cl;
    for (int i = 0; i < 50; i++) {
        if (writes[i].status == 1) {
            return false;
        }
    }
    return true;
}

static void a_leader_without_a_majority_says_that_it_does_not_know(void)
{
    struct cluster cl;
    struct write *writes = calloc(50, sizeof *writes);
    struct node *leader;
    cluster_open(&cl);
    cluster_start(&cl, 3);
    CHECK_EQ(cluster_write(&cl, 10), 0);
    leader = cluster_leader(&cl);
    for (int i = 0; i < 3; i++) {
        if (&cl.nodes[i] != leader) {
            node_stop(&cl.nodes[i]);
        }
    }
    for (int i = 0; i < 50; i++) {
        writes[i].status = write_propose(leader, &writes[i], 100) == 0 ? 1 : HW_ERR_UNKNOWN;
    }
    CHECK(cluster_wait(&cl, are_writes_over, writes));
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(writes[i].status, HW_ERR_UNKNOWN);
    }
    CHECK_EQ(write_propose(leader, &writes[0], 100), HW_ERR_NOTHOT);
    for (int i = 0; i < 3; i++) {
        if (&cl.nodes[i] != leader) {
            node_start(&cl.nodes[i]);
        }
    }
    CHECK_EQ(cluster_write(&cl, 10), 0);
    CHECK(cluster_wait_even(&cl));
    free(writes);
    cluster_close(&cl);
}

static void bounds_are_refused_at_once(void)
{
    struct cluster cl;
    struct write w[5];
    struct node *n;
    struct hw_proposal bare = {0};
    struct hw_error e;
    struct hw_consensus_config config;
    struct hw_consensus *c;
    cluster_open(&cl);
    cl.config.entry_bytes_max = 1000;
    cl.config.proposals_max = 3;
    cl.config.proposal_bytes_max = 3000;
    cluster_start(&cl, 1);
    n = &cl.nodes[0];
    CHECK_EQ(cluster_write(&cl, 10), 0);
    CHECK_EQ(write_propose(n, &w[0], 1001), HW_ERR_TOOBIG);
    CHECK_EQ(write_propose(n, &w[0], 1000), 0);
    CHECK_EQ(write_propose(n, &w[1], 1000), 0);
    CHECK_EQ(write_propose(n, &w[2], 1000), HW_ERR_EXHAUSTED); /* bytes */
    CHECK_EQ(write_propose(n, &w[2], 10), 0);
    CHECK_EQ(write_propose(n, &w[3], 10), HW_ERR_EXHAUSTED); /* count */
    CHECK_EQ(hw_consensus_propose(n->c, &bare), HW_ERR_EXHAUSTED);
    CHECK_EQ(cluster_write(&cl, 10), HW_ERR_EXHAUSTED);
    CHECK(cluster_wait_even(&cl));
    while (n->state.count < 4) {
        hw_loop_turn(cl.loop, true);
    }
    CHECK_EQ(hw_consensus_propose(n->c, &bare), HW_ERR_INVALID); /* without begin */
    config = cl.config;
    config.id = 1;
    config.address = "a:1";
    config.folder = "/tmp";
    config.heartbeat_ms = config.election_ms;
    CHECK_EQ(hw_consensus_new(cl.loop, cl.pool, NULL, &config, NULL, NULL, &c, &e), HW_ERR_INVALID);
    cluster_close(&cl);
}

static void bootstrap_needs_an_empty_folder(void)
{
    struct cluster cl;
    struct hw_member m = {.id = 1, .address = "127.0.0.1:1", .role = HW_ROLE_VOTER};
    cluster_open(&cl);
    node_new(&cl.nodes[0]);
    CHECK(hw_consensus_folder_is_pristine(cl.nodes[0].folder));
    CHECK(hw_consensus_folder_is_pristine("/nonexistent/folder"));
    CHECK_EQ(hw_consensus_bootstrap(cl.nodes[0].c, &m, 1, &cl.nodes[0].e), 0);
    CHECK(!hw_consensus_folder_is_pristine(cl.nodes[0].folder));
    CHECK_EQ(hw_consensus_bootstrap(cl.nodes[0].c, &m, 1, &cl.nodes[0].e), HW_ERR_EXISTS);
    hw_consensus_free(cl.nodes[0].c); /* opened, never started nor shut */
    cl.nodes[0].c = NULL;
    node_new(&cl.nodes[0]);
    hw_consensus_free(cl.nodes[0].c); /* not even opened */
    cl.nodes[0].c = NULL;
    cluster_close(&cl);
}

/* ---- strangers ---- */

struct stranger {
    struct hw_connect connect;
    struct hw_stream *stream;
    struct hw_buf sent;
    struct hw_buf answer;
    bool has_ended;
};

static void stranger_data(void *ctx, const uint8_t *data, size_t len)
{
    struct stranger *s = ctx;
    hw_buf_append(&s->answer, data, len);
}

static void stranger_end(void *ctx, int status)
{
    struct stranger *s = ctx;
    (void)status;
    s->has_ended = true;
}

static const struct hw_stream_ops stranger_ops = {.on_data = stranger_data, .on_end = stranger_end};

static void stranger_connected(struct hw_connect *c, int status, struct hw_stream *stream)
{
    struct stranger *s = hw_container_of(c, struct stranger, connect);
    REQUIRE(status == 0);
    s->stream = stream;
    hw_stream_own(stream, &stranger_ops, s);
    if (s->sent.len > 0) {
        CHECK_EQ(hw_stream_write_buf(stream, &s->sent), 0);
    }
}

static bool has_stranger_ended(struct cluster *cl, void *arg)
{
    (void)cl;
    return ((struct stranger *)arg)->has_ended;
}

static void hello(struct hw_buf *b, const char *magic, uint64_t cluster_id, uint64_t from, uint64_t to,
                  const char *address)
{
    hw_buf_append(b, magic, 8);
    hw_buf_put_u64(b, cluster_id);
    hw_buf_put_u64(b, from);
    hw_buf_put_u64(b, to);
    hw_buf_put_u8(b, (uint8_t)strlen(address));
    hw_buf_put_u8(b, 0);
    hw_buf_append_str(b, address);
}

/* What the stranger was told; the connection must be closed in any case. */
static void stranger_is_told(struct cluster *cl, struct stranger *s, const char *reason)
{
    struct node *n = &cl->nodes[0];
    REQUIRE(hw_connect_start(cl->loop, cl->pool, &s->connect, hw_listener_address(n->listener), 5000,
                             stranger_connected) == 0);
    CHECK(cluster_wait(cl, has_stranger_ended, s));
    hw_buf_put_u8(&s->answer, 0);
    if (reason == NULL) {
        CHECK_EQ(s->answer.len, 1);
    } else {
        CHECK(s->answer.len > 3 && s->answer.data[0] == 1);
        CHECK(strstr((char *)s->answer.data + 3, reason) != NULL);
    }
    hw_buf_free(&s->answer);
    hw_buf_free(&s->sent);
    *s = (struct stranger){0};
}

static void strangers_are_refused(void)
{
    struct cluster cl;
    struct stranger s = {0};
    cluster_open(&cl);
    cluster_start(&cl, 1);
    hello(&s.sent, HW_PEER_MAGIC, 0xbad, 2, 1, "x:1");
    stranger_is_told(&cl, &s, "belongs to cluster");
    hello(&s.sent, HW_PEER_MAGIC, 0xc1, 2, 7, "x:1");
    stranger_is_told(&cl, &s, "this is node 1, not 7");
    hello(&s.sent, HW_PEER_MAGIC, 0xc1, 1, 1, "x:1");
    stranger_is_told(&cl, &s, "not a peer's");
    hello(&s.sent, "HWRAFT9\n", 0xc1, 2, 1, "x:1");
    stranger_is_told(&cl, &s, "version");
    hello(&s.sent, "GET / HT", 0xc1, 2, 1, "x:1");
    stranger_is_told(&cl, &s, "not the peer protocol");
    hello(&s.sent, HW_PEER_MAGIC, 0xc1, 2, 1, "");
    stranger_is_told(&cl, &s, "malformed");
    hw_buf_append(&s.sent, HW_PEER_MAGIC, 8); /* says hello and no more */
    stranger_is_told(&cl, &s, NULL);
    stranger_is_told(&cl, &s, NULL); /* says nothing */
    cluster_close(&cl);
}

static void half_open_handshakes_are_bounded(void)
{
    struct cluster cl;
    struct stranger *s = calloc(80, sizeof *s);
    cluster_open(&cl);
    cluster_start(&cl, 1);
    for (int i = 0; i < 80; i++) {
        REQUIRE(hw_connect_start(cl.loop, cl.pool, &s[i].connect, hw_listener_address(cl.nodes[0].listener), 5000,
                                 stranger_connected) == 0);
    }
    for (int i = 0; i < 80; i++) {
        CHECK(cluster_wait(&cl, has_stranger_ended, &s[i]));
    }
    CHECK_EQ(cluster_write(&cl, 10), 0);
    free(s);
    cluster_close(&cl);
}

static void suspecting_the_leader_finds_another(void)
{
    struct cluster cl;
    struct node *gone;
    cluster_open(&cl);
    cl.config.election_ms = 10 * WAIT_MS; /* without the suspicion nobody would stand in time */
    cluster_start(&cl, 3);
    REQUIRE(cluster_wait_leader(&cl));
    CHECK_EQ(cluster_write(&cl, 10), 0);
    gone = cluster_leader(&cl);
    hw_consensus_suspect_leader(gone->c, 100); /* a leader does not suspect itself */
    node_stop(gone);                           /* the others are told */
    REQUIRE(cluster_wait_leader(&cl));
    CHECK_EQ(cluster_write(&cl, 10), 0);
    cluster_close(&cl);
}

/* Values that do not fit one message are sent in pieces. */
static void large_entries_arrive(void)
{
    struct cluster cl;
    struct load l = load_new(40, 12);
    struct node *follower;
    cluster_open(&cl);
    cluster_start(&cl, 3);
    REQUIRE(cluster_wait_leader(&cl));
    l.len = 600 * 1024;
    follower = &cl.nodes[cluster_leader(&cl)->id % 3];
    CHECK(cluster_wait(&cl, is_loaded, &l));
    CHECK_EQ(cl.acked, 40);
    node_stop(follower);
    CHECK_EQ(cluster_write(&cl, 3 * 1024 * 1024), 0);
    node_start(follower);
    CHECK(cluster_wait_even(&cl));
    load_free(&l);
    cluster_close(&cl);
}

/* A measurement, run by hand: HW_BENCH=1 unit consensus_cluster. */
static void throughput(void)
{
    static const size_t widths[] = {1, 64, 256, 1024};
    if (getenv("HW_BENCH") == NULL) {
        return;
    }
    for (size_t k = 0; k < hw_array_len(widths); k++) {
        struct cluster cl;
        struct load l = load_new(widths[k] == 1 ? 3000 : 100000, widths[k]);
        size_t open = 0;
        size_t first = 0;
        uint64_t start_us;
        cluster_open(&cl);
        cluster_start(&cl, 3);
        CHECK_EQ(cluster_write(&cl, 10), 0);
        start_us = hw_mono_us();
        while (first < l.total) {
            while (l.next < l.total && l.next - first < l.width && cluster_leader(&cl) != NULL &&
                   write_propose(cluster_leader(&cl), &l.writes[l.next], 300) == 0) {
                l.next++;
                open++;
            }
            hw_loop_turn(cl.loop, true);
            while (first < l.next && l.writes[first].status != 1) {
                first++;
            }
        }
        printf("\n%zu in flight: %.0f proposals/s", widths[k],
               (double)l.total * 1e6 / (double)(hw_mono_us() - start_us));
        load_free(&l);
        cluster_close(&cl);
    }
    printf("\n");
}

HW_SUITE(consensus_cluster, HW_CASE(three_servers_apply_the_same_in_the_same_order),
         HW_CASE(leadership_moves_on_request), HW_CASE(two_of_three_go_on_and_the_third_comes_back),
         HW_CASE(a_fourth_joins_is_promoted_and_leaves),
         HW_CASE(a_server_behind_the_log_gets_a_snapshot_and_survives_restart),
         HW_CASE(shutting_while_a_snapshot_waits_is_clean), HW_CASE(every_proposal_ends_once_when_shutting),
         HW_CASE(a_leader_without_a_majority_says_that_it_does_not_know), HW_CASE(bounds_are_refused_at_once),
         HW_CASE(bootstrap_needs_an_empty_folder), HW_CASE(strangers_are_refused),
         HW_CASE(half_open_handshakes_are_bounded), HW_CASE(suspecting_the_leader_finds_another),
         HW_CASE(large_entries_arrive), HW_CASE(throughput))
