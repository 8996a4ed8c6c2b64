#include "tests/unit/agent/consensus/cluster.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"

/* ---- the toy ---- */

static void table_check(struct cluster *cl, const struct toy_state *s)
{
    if (s->index >= cl->table_len) {
        size_t len = s->index * 2 + 1024;
        cl->table = realloc(cl->table, len * sizeof cl->table[0]);
        memset(cl->table + cl->table_len, 0, (len - cl->table_len) * sizeof cl->table[0]);
        cl->table_len = len;
    }
    if (cl->table[s->index] == 0) {
        cl->table[s->index] = s->hash;
    } else if (cl->table[s->index] != s->hash) {
        cl->disagreements++;
    }
}

static int toy_apply(void *ctx, uint64_t index, uint64_t term, struct hw_slice entry, struct hw_proposal *mine)
{
    struct node *n = ctx;
    struct write *w = hw_container_of(mine, struct write, p);
    if (mine != NULL) {
        CHECK_EQ(mine->index, index);
        CHECK_EQ(mine->term, term);
        w->applied_index = index;
    }
    CHECK(term > 0);
    if (index <= n->state.index) {
        return 0; /* the image has it already */
    }
    n->state.index = index;
    n->state.hash = XXH64(entry.data, entry.len, n->state.hash + index) | 1;
    n->state.count++;
    table_check(n->cl, &n->state);
    return 0;
}

static int toy_manifest(void *ctx, uint64_t index, struct hw_buf *out)
{
    struct node *n = ctx;
    CHECK(n->state.index <= index); /* barriers and configurations are not told */
    hw_buf_put_u64(out, index);
    hw_buf_put_u64(out, n->state.index);
    hw_buf_put_u64(out, n->state.hash);
    hw_buf_put_u64(out, n->state.count);
    return 0;
}

static struct toy_state manifest_decode(struct hw_slice m)
{
    struct toy_state s;
    struct hw_reader r;
    hw_reader_init(&r, m.data, m.len);
    hw_reader_u64(&r);
    s.index = hw_reader_u64(&r);
    s.hash = hw_reader_u64(&r);
    s.count = hw_reader_u64(&r);
    CHECK(!r.failed);
    return s;
}

static void toy_durable_now(void *ctx)
{
    struct node *n = ctx;
    if (n->c == NULL) {
        return;
    }
    n->image = n->is_installing ? n->manifest : n->state;
    CHECK(n->image.index >= n->manifest.index);
    hw_consensus_durable(n->c);
}

static void toy_make_durable(void *ctx, const struct hw_durable *d)
{
    struct node *n = ctx;
    n->is_installing = d->is_install;
    n->manifest = manifest_decode(d->manifest);
    CHECK(n->manifest.index <= d->index);
    CHECK(!d->is_install || d->leader_id != 0);
    n->snapshots += !d->is_install;
    n->installs += d->is_install;
    if (n->cl->durable_ms == 0) {
        toy_durable_now(n); /* answering at once is allowed */
    } else {
        hw_timer_start(n->durable_timer, n->cl->durable_ms, 0);
    }
}

static int toy_restore(void *ctx, struct hw_slice manifest)
{
    struct node *n = ctx;
    struct toy_state s = manifest_decode(manifest);
    n->restores++;
    if (n->image.index < s.index) {
        return HW_ERR_PRECONDITION;
    }
    n->state = n->image;
    table_check(n->cl, &n->state);
    return 0;
}

static void toy_on_change(void *ctx, const struct hw_consensus_view *view)
{
    struct node *n = ctx;
    n->changes++;
    n->view = *view;
}

static void toy_on_applied(void *ctx, uint64_t index)
{
    struct node *n = ctx;
    CHECK(index > n->applied_told || n->restores > 0);
    n->applied_told = index;
}

static void toy_on_failed(void *ctx, const char *why)
{
    struct node *n = ctx;
    CHECK(!n->has_failed);
    n->has_failed = true;
    snprintf(n->why, sizeof n->why, "%s", why);
}

static const struct hw_consensus_ops toy_ops = {
    .apply = toy_apply,
    .manifest = toy_manifest,
    .make_durable = toy_make_durable,
    .restore = toy_restore,
    .on_change = toy_on_change,
    .on_applied = toy_on_applied,
    .on_failed = toy_on_failed,
};

/* ---- nodes ---- */

static void on_stream(void *ctx, struct hw_stream *s)
{
    struct node *n = ctx;
    if (n->c != NULL) {
        hw_consensus_accept(n->c, s);
    } else {
        hw_stream_close(s);
    }
}

void node_new(struct node *n)
{
    struct cluster *cl = n->cl;
    struct hw_consensus_config config = cl->config;
    if (n->listener == NULL) {
        REQUIRE(hw_listener_new(cl->loop, "127.0.0.1:0", 256, on_stream, n, &n->listener, &n->e) == 0);
        n->folder = hw_test_dir();
        n->durable_timer = hw_timer_new(cl->loop, "toy", toy_durable_now, n);
    }
    config.id = n->id;
    config.address = hw_listener_address(n->listener);
    config.folder = n->folder;
    n->state = (struct toy_state){0};
    n->applied_told = 0;
    n->is_closed = false;
    REQUIRE(hw_consensus_new(cl->loop, cl->pool, cl->metrics, &config, &toy_ops, n, &n->c, &n->e) == 0);
}

void node_start(struct node *n)
{
    if (n->c == NULL) {
        node_new(n);
    }
    if (hw_consensus_start(n->c, &n->e) != 0) {
        printf("start: %s\n", n->e.text);
        CU_FAIL_FATAL("start");
    }
}

static void on_closed(void *ctx)
{
    struct node *n = ctx;
    n->is_closed = true;
}

static bool is_closed(struct cluster *cl, void *arg)
{
    struct node *n = arg;
    (void)cl;
    return n->is_closed;
}

void cluster_hurry(struct cluster *cl)
{
    for (unsigned i = 0; i < NODES_MAX; i++) {
        if (cl->nodes[i].c != NULL) {
            hw_consensus_suspect_leader(cl->nodes[i].c, 50);
        }
    }
}

void node_stop(struct node *n)
{
    struct hw_consensus *c = n->c;
    bool was_leader;
    if (c == NULL) {
        return;
    }
    was_leader = n->view.is_leader;
    hw_consensus_shut(c, on_closed, n);
    hw_timer_stop(n->durable_timer);
    n->c = NULL;
    CHECK(cluster_wait(n->cl, is_closed, n));
    hw_consensus_free(c);
    n->view = (struct hw_consensus_view){0};
    if (was_leader) {
        cluster_hurry(n->cl);
    }
}

void cluster_open(struct cluster *cl)
{
    struct hw_error e = {0};
    *cl = (struct cluster){0};
    hw_log_configure(getenv("HW_LOG") != NULL ? getenv("HW_LOG") : "error");
    hw_consensus_config_default(&cl->config);
    cl->config.cluster_id = 0xc1;
    cl->config.election_ms = 3000; /* a busy machine must not look like a lost leader; see cluster_hurry */
    cl->metrics = hw_metrics_new();
    REQUIRE(hw_loop_new(&cl->loop, NULL, 0) == 0);
    REQUIRE(hw_pool_new(cl->loop, "resolver", 1, 256, &cl->pool, &e) == 0);
    for (unsigned i = 0; i < NODES_MAX; i++) {
        cl->nodes[i].cl = cl;
        cl->nodes[i].id = i + 1;
    }
}

static void on_pool_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static bool is_set(struct cluster *cl, void *arg)
{
    (void)cl;
    return *(bool *)arg;
}

void cluster_close(struct cluster *cl)
{
    bool is_shut = false;
    for (unsigned i = 0; i < NODES_MAX; i++) {
        node_stop(&cl->nodes[i]);
        hw_listener_free(cl->nodes[i].listener);
        hw_timer_free(cl->nodes[i].durable_timer);
    }
    hw_pool_shut(cl->pool, on_pool_closed, &is_shut);
    CHECK(cluster_wait(cl, is_set, &is_shut));
    hw_pool_free(cl->pool);
    hw_loop_free(cl->loop);
    hw_metrics_free(cl->metrics);
    free(cl->table);
    CHECK_EQ(cl->disagreements, 0);
}

void cluster_start(struct cluster *cl, unsigned voters)
{
    struct hw_member members[NODES_MAX] = {0};
    for (unsigned i = 0; i < voters; i++) {
        node_new(&cl->nodes[i]);
        members[i].id = cl->nodes[i].id;
        members[i].role = HW_ROLE_VOTER;
        snprintf(members[i].address, sizeof members[i].address, "%s", hw_listener_address(cl->nodes[i].listener));
    }
    for (unsigned i = 0; i < voters; i++) {
        REQUIRE(hw_consensus_bootstrap(cl->nodes[i].c, members, voters, &cl->nodes[i].e) == 0);
        node_start(&cl->nodes[i]);
    }
    cluster_hurry(cl);
}

struct node *cluster_leader(struct cluster *cl)
{
    struct node *leader = NULL;
    for (unsigned i = 0; i < NODES_MAX; i++) {
        struct hw_consensus_view v;
        if (cl->nodes[i].c != NULL) {
            hw_consensus_view(cl->nodes[i].c, &v);
            if (v.is_leader && v.leader_id == cl->nodes[i].id) {
                leader = &cl->nodes[i];
            }
        }
    }
    for (unsigned i = 0; i < NODES_MAX && leader != NULL; i++) {
        struct hw_consensus_view v;
        if (cl->nodes[i].c != NULL) {
            hw_consensus_view(cl->nodes[i].c, &v);
            if (v.role == HW_ROLE_VOTER && v.leader_id != leader->id) {
                leader = NULL;
            }
        }
    }
    return leader;
}

bool cluster_wait(struct cluster *cl, cluster_cond cond, void *arg)
{
    uint64_t end_ms = hw_mono_ms() + WAIT_MS;
    while (!cond(cl, arg)) {
        if (hw_mono_ms() > end_ms) {
            return false;
        }
        hw_loop_turn(cl->loop, true);
    }
    return true;
}

static bool has_leader(struct cluster *cl, void *arg)
{
    (void)arg;
    return cluster_leader(cl) != NULL;
}

bool cluster_wait_leader(struct cluster *cl)
{
    return cluster_wait(cl, has_leader, NULL);
}

static bool is_even(struct cluster *cl, void *arg)
{
    struct node *leader = cluster_leader(cl);
    struct hw_consensus_view lv;
    (void)arg;
    if (leader == NULL) {
        return false;
    }
    hw_consensus_view(leader->c, &lv);
    for (unsigned i = 0; i < NODES_MAX; i++) {
        struct hw_consensus_view v;
        if (cl->nodes[i].c != NULL) {
            hw_consensus_view(cl->nodes[i].c, &v);
            if (v.applied_index != lv.last_index || cl->nodes[i].state.hash != leader->state.hash) {
                return false;
            }
        }
    }
    return true;
}

bool cluster_wait_even(struct cluster *cl)
{
    return cluster_wait(cl, is_even, NULL);
}

/* ---- writes ---- */

static void on_write_done(struct hw_proposal *p, int status)
{
    struct write *w = hw_container_of(p, struct write, p);
    CHECK(w->done_count == 0);
    w->done_count++;
    w->status = status;
    if (status == 0) {
        CHECK(w->applied_index == p->index && p->index > 0);
        w->cl->acked++;
    } else {
        w->cl->failed[-status]++;
    }
}

int write_propose(struct node *n, struct write *w, size_t len)
{
    static uint64_t number;
    uint8_t block[256];
    int rc;
    *w = (struct write){.cl = n->cl, .status = 1};
    w->p.done = on_write_done;
    if (n->c == NULL) {
        return HW_ERR_NOTHOT;
    }
    hw_proposal_begin(&w->p);
    hw_buf_put_u64(&w->p.entry, ++number);
    memset(block, (int)(number & 0xff), sizeof block);
    for (size_t left = len > 8 ? len - 8 : 0; left > 0;) {
        size_t k = left < sizeof block ? left : sizeof block;
        hw_buf_append(&w->p.entry, block, k);
        left -= k;
    }
    rc = hw_consensus_propose(n->c, &w->p);
    if (rc != 0) {
        hw_buf_free(&w->p.entry);
    }
    return rc;
}

static bool is_written(struct cluster *cl, void *arg)
{
    struct write *w = arg;
    (void)cl;
    return w->status != 1;
}

int cluster_write(struct cluster *cl, size_t len)
{
    struct write *w = calloc(1, sizeof *w);
    int status = HW_ERR_NOTHOT;
    while (status == HW_ERR_NOTHOT && cluster_wait_leader(cl)) {
        status = write_propose(cluster_leader(cl), w, len);
        if (status == 0) {
            CHECK(cluster_wait(cl, is_written, w));
            status = w->status;
        }
    }
    free(w);
    return status;
}

static void on_change_done(struct hw_change *ch, int status)
{
    struct change_wait *w = hw_container_of(ch, struct change_wait, ch);
    CHECK_EQ(w->status, 1);
    w->status = status;
}

void change_wait_init(struct change_wait *w)
{
    *w = (struct change_wait){.ch = {.done = on_change_done}, .status = 1};
}

static bool is_changed(struct cluster *cl, void *arg)
{
    (void)cl;
    return ((struct change_wait *)arg)->status != 1;
}

bool cluster_wait_change(struct cluster *cl, struct change_wait *w)
{
    return cluster_wait(cl, is_changed, w);
}
