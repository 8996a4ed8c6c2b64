#include <raft.h>
#include <raft/fixture.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/base/rng.h"
#include "agent/consensus/consensus.h"
#include "tests/unit/hw_test.h"

/* Whole clusters in simulated time: libraft's fixture under our wrapper. A seed decides everything: who is cut off from
 * whom, who stands still, what is proposed where, when snapshots become durable, who leads or changes its role. What
 * must hold whatever happens: all apply the same entries at the same indexes; what was acknowledged stays; what was
 * refused never appears; every proposal and change ends once. HW_SEED=n replays one seed, HW_SEEDS=n runs so many. */

#define NODES 5
#define SEEDS 200
#define STORM_MS 8000
#define CALM_MS 60000
#define PROPOSALS_MAX 1500
#define CALM_PROPOSALS 200
#define INDEX_MAX 8192

struct sim;

struct sim_node {
    struct sim *sim;
    unsigned i;
    struct hw_consensus *c;
    uint64_t index;
    uint64_t hash;
    uint64_t image_index;
    uint64_t image_hash;
    bool wants_durable;
    bool is_install;
    uint64_t want_index;
    uint64_t want_hash;
    raft_time durable_at;
    bool has_failed;
    unsigned snapshots;
    unsigned installs;
};

struct sim_write {
    struct hw_proposal p;
    struct sim *sim;
    int status; /* 1: under way */
    unsigned done_count;
    bool is_applied_as_mine;
};

struct sim {
    struct raft_fixture f;
    struct hw_rng rng;
    struct sim_node nodes[NODES];
    unsigned n;
    struct sim_write writes[PROPOSALS_MAX];
    size_t write_count;
    uint64_t table[INDEX_MAX];        /* hash after index */
    uint64_t index_of[PROPOSALS_MAX]; /* where a write was applied first */
    struct hw_change change;
    bool is_changing;
    unsigned changes_done;
    unsigned faulty;    /* this node's disk will break; n: nobody's */
    const char *broken; /* what did not hold */
};

static void broke(struct sim *s, const char *what)
{
    if (s->broken == NULL) {
        s->broken = what;
    }
}

/* ---- the state machine ---- */

static void table_check(struct sim_node *n)
{
    struct sim *s = n->sim;
    if (n->index >= INDEX_MAX) {
        broke(s, "the log is longer than the table");
    } else if (s->table[n->index] == 0) {
        s->table[n->index] = n->hash;
    } else if (s->table[n->index] != n->hash) {
        broke(s, "two servers applied different entries");
    }
}

static int sim_apply(void *ctx, uint64_t index, uint64_t term, struct hw_slice entry, struct hw_proposal *mine)
{
    struct sim_node *n = ctx;
    struct sim *s = n->sim;
    struct hw_reader r;
    uint64_t number;
    hw_reader_init(&r, entry.data, entry.len);
    number = hw_reader_u64(&r);
    if (r.failed || number >= s->write_count || term == 0) {
        broke(s, "an entry that nobody proposed");
        return 0;
    }
    if (mine != NULL) {
        struct sim_write *w = hw_container_of(mine, struct sim_write, p);
        if (w != &s->writes[number] || w->p.index != index || w->p.term != term) {
            broke(s, "an entry was taken for another proposal");
        }
        w->is_applied_as_mine = true;
    }
    if (s->index_of[number] == 0) {
        s->index_of[number] = index;
    } else if (s->index_of[number] != index) {
        broke(s, "one proposal at two indexes");
    }
    if (index <= n->index) {
        if (n->index != n->image_index) {
            broke(s, "an entry was applied again");
        }
        return 0;
    }
    n->index = index;
    n->hash = XXH64(&number, sizeof number, n->hash + index) | 1;
    table_check(n);
    return 0;
}

static int sim_manifest(void *ctx, uint64_t index, struct hw_buf *out)
{
    struct sim_node *n = ctx;
    if (n->index > index) {
        broke(n->sim, "a manifest behind the state");
    }
    hw_buf_put_u64(out, n->index);
    hw_buf_put_u64(out, n->hash);
    return 0;
}

static void sim_make_durable(void *ctx, const struct hw_durable *d)
{
    struct sim_node *n = ctx;
    struct hw_reader r;
    if (n->wants_durable) {
        broke(n->sim, "two snapshots at a time");
    }
    hw_reader_init(&r, d->manifest.data, d->manifest.len);
    n->want_index = hw_reader_u64(&r);
    n->want_hash = hw_reader_u64(&r);
    n->wants_durable = true;
    n->is_install = d->is_install;
    n->snapshots += !d->is_install;
    n->installs += d->is_install;
    n->durable_at = raft_fixture_time(&n->sim->f) + hw_rng_below(&n->sim->rng, 1500);
}

static int sim_restore(void *ctx, struct hw_slice manifest)
{
    struct sim_node *n = ctx;
    struct hw_reader r;
    hw_reader_init(&r, manifest.data, manifest.len);
    if (hw_reader_u64(&r) > n->image_index) {
        broke(n->sim, "restore before the image was durable");
    }
    n->index = n->image_index;
    n->hash = n->image_hash;
    table_check(n);
    return 0;
}

static void sim_on_failed(void *ctx, const char *why)
{
    struct sim_node *n = ctx;
    if (n->i != n->sim->faulty) {
        printf("\nserver %u failed: %s\n", n->i, why);
        broke(n->sim, "a server failed without a fault");
    }
    n->has_failed = true;
}

static const struct hw_consensus_ops sim_ops = {
    .apply = sim_apply,
    .manifest = sim_manifest,
    .make_durable = sim_make_durable,
    .restore = sim_restore,
    .on_failed = sim_on_failed,
};

/* ---- the driver ---- */

static void on_write_done(struct hw_proposal *p, int status)
{
    struct sim_write *w = hw_container_of(p, struct sim_write, p);
    w->status = status;
    if (++w->done_count > 1) {
        broke(w->sim, "a proposal ended twice");
    }
    if ((status == 0) != w->is_applied_as_mine) {
        broke(w->sim, "acknowledged and applied are not the same");
    }
}

static void propose(struct sim *s, struct sim_node *n)
{
    struct sim_write *w = &s->writes[s->write_count];
    if (s->write_count == PROPOSALS_MAX) {
        return;
    }
    *w = (struct sim_write){.sim = s, .status = 1, .p.done = on_write_done};
    hw_proposal_begin(&w->p);
    hw_buf_put_u64(&w->p.entry, s->write_count);
    s->write_count++;
    if (hw_consensus_propose(n->c, &w->p) != 0) {
        hw_buf_free(&w->p.entry);
        s->write_count--;
    }
}

static void on_change_done(struct hw_change *ch, int status)
{
    struct sim *s = hw_container_of(ch, struct sim, change);
    if (!s->is_changing) {
        broke(s, "a change ended twice");
    }
    s->is_changing = false;
    s->changes_done += status == 0;
}

static void change(struct sim *s, struct sim_node *n)
{
    static const enum hw_role roles[] = {HW_ROLE_STANDBY, HW_ROLE_VOTER, HW_ROLE_SPARE};
    uint64_t id = hw_rng_below(&s->rng, s->n) + 1;
    struct hw_member members[NODES];
    size_t voters = 0;
    size_t count;
    int rc;
    if (s->is_changing || n->has_failed) {
        return;
    }
    s->change.done = on_change_done;
    count = hw_consensus_members(n->c, members, NODES);
    for (size_t i = 0; i < count; i++) {
        voters += members[i].role == HW_ROLE_VOTER;
    }
    s->is_changing = true;
    if (hw_rng_is_chance(&s->rng, 40) || s->faulty < s->n) {
        rc = hw_consensus_transfer(n->c, &s->change, hw_rng_is_chance(&s->rng, 50) ? 0 : id);
    } else if (voters > 3 || members[id - 1].role != HW_ROLE_VOTER) {
        rc = hw_consensus_assign(n->c, &s->change, id, roles[hw_rng_below(&s->rng, 3)]);
    } else {
        rc = HW_ERR_PRECONDITION;
    }
    if (rc != 0) {
        s->is_changing = false;
    }
}

/* The fixture wants the others connected when it saturates a line, kills or revives. */
static void reconnect(struct sim *s, unsigned i)
{
    for (unsigned j = 0; j < s->n; j++) {
        if (i != j) {
            raft_fixture_reconnect(&s->f, i, j);
            raft_fixture_reconnect(&s->f, j, i);
        }
    }
}

static void calm_down(struct sim *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        reconnect(s, i);
        raft_fixture_set_network_latency(&s->f, i, 15);
    }
    for (unsigned i = 0; i < s->n; i++) {
        if (!raft_fixture_alive(&s->f, i) && !s->nodes[i].has_failed) {
            raft_fixture_revive(&s->f, i);
        }
    }
    for (unsigned i = 0; i < s->n; i++) {
        for (unsigned j = 0; j < s->n; j++) {
            if (i != j && !s->nodes[i].has_failed && !s->nodes[j].has_failed) {
                raft_fixture_desaturate(&s->f, i, j);
            }
        }
    }
}

static void disturb(struct sim *s)
{
    unsigned i = (unsigned)hw_rng_below(&s->rng, s->n);
    unsigned j = (unsigned)hw_rng_below(&s->rng, s->n);
    switch (hw_rng_below(&s->rng, 8)) {
    case 0:
        if (i != j) {
            raft_fixture_disconnect(&s->f, i, j);
        }
        break;
    case 1:
        if (i != j) {
            reconnect(s, i);
            raft_fixture_saturate(&s->f, i, j);
        }
        break;
    case 2:
    case 3:
        reconnect(s, i);
        if (raft_fixture_alive(&s->f, i)) {
            raft_fixture_kill(&s->f, i);
        } else if (!s->nodes[i].has_failed) {
            raft_fixture_revive(&s->f, i);
        }
        break;
    case 4:
        raft_fixture_set_network_latency(&s->f, i, 1 + (unsigned)hw_rng_below(&s->rng, 80));
        break;
    case 5:
        raft_fixture_set_randomized_election_timeout(&s->f, i, 1000 + (unsigned)hw_rng_below(&s->rng, 1000));
        break;
    default:
        calm_down(s);
        break;
    }
}

static void durable_step(struct sim_node *n)
{
    if (n->wants_durable && raft_fixture_time(&n->sim->f) >= n->durable_at) {
        n->wants_durable = false;
        n->image_index = n->is_install ? n->want_index : n->index;
        n->image_hash = n->is_install ? n->want_hash : n->hash;
        hw_consensus_durable(n->c);
    }
}

static void step(struct sim *s)
{
    raft_fixture_step(&s->f);
    for (unsigned i = 0; i < s->n; i++) {
        /* Several events may come in one turn of a loop, before the step at its end. */
        if (raft_fixture_alive(&s->f, i) && hw_rng_is_chance(&s->rng, 40)) {
            durable_step(&s->nodes[i]);
            hw_consensus_step(s->nodes[i].c);
            if (s->nodes[i].has_failed) {
                reconnect(s, i);
                raft_fixture_kill(&s->f, i); /* its process exits */
            }
        }
    }
}

static void storm_step(struct sim *s)
{
    step(s);
    for (unsigned i = 0; i < s->n; i++) {
        struct sim_node *n = &s->nodes[i];
        if (raft_state(raft_fixture_get(&s->f, i)) == RAFT_LEADER && raft_fixture_alive(&s->f, i)) {
            if (hw_rng_is_chance(&s->rng, 8) && s->write_count < PROPOSALS_MAX - CALM_PROPOSALS) {
                for (uint64_t k = hw_rng_below(&s->rng, 6); k > 0; k--) {
                    propose(s, n);
                }
            }
            if (hw_rng_below(&s->rng, 400) == 0) {
                change(s, n);
            }
        }
    }
    if (hw_rng_below(&s->rng, 150) == 0) {
        disturb(s);
    }
}

/* The leader of the highest term. The fixture waits also for servers that do not know yet that they are spares. */
static struct sim_node *leader_of(struct sim *s)
{
    struct sim_node *leader = NULL;
    uint64_t term = 0;
    for (unsigned i = 0; i < s->n; i++) {
        struct hw_consensus_view v;
        hw_consensus_view(s->nodes[i].c, &v);
        if (v.is_leader && v.term > term && raft_fixture_alive(&s->f, i)) {
            leader = &s->nodes[i];
            term = v.term;
        }
    }
    return leader;
}

/* All that take part by the leader's configuration have what it has. */
static bool is_settled(struct sim *s, struct sim_node *leader)
{
    struct hw_member members[NODES];
    size_t count = hw_consensus_members(leader->c, members, NODES);
    struct hw_consensus_view lv;
    hw_consensus_view(leader->c, &lv);
    for (size_t i = 0; i < count; i++) {
        struct sim_node *n = &s->nodes[members[i].id - 1];
        struct hw_consensus_view v;
        hw_consensus_view(n->c, &v);
        if (!n->has_failed && members[i].role != HW_ROLE_SPARE &&
            (v.applied_index != lv.last_index || n->index != leader->index)) {
            return false;
        }
    }
    return true;
}

/* One more write, acknowledged, and all have it. */
static bool settle(struct sim *s)
{
    raft_time end = raft_fixture_time(&s->f) + CALM_MS;
    raft_time next = 0;
    struct sim_write *last = NULL;
    struct sim_node *at = NULL;
    calm_down(s);
    while (raft_fixture_time(&s->f) < end && s->broken == NULL) {
        struct sim_node *leader;
        step(s);
        if (hw_rng_below(&s->rng, 500) == 0) { /* the fixture's are fixed: two candidates could tie for ever */
            raft_fixture_set_randomized_election_timeout(&s->f, (unsigned)hw_rng_below(&s->rng, s->n),
                                                         1000 + (unsigned)hw_rng_below(&s->rng, 1000));
        }
        leader = leader_of(s);
        if (raft_fixture_time(&s->f) >= next && leader != NULL &&
            (last == NULL || at->has_failed || (last->status != 0 && last->status != 1))) {
            size_t before = s->write_count;
            next = raft_fixture_time(&s->f) + 500;
            propose(s, leader);
            at = leader;
            last = s->write_count > before ? &s->writes[before] : NULL;
        }
        if (leader != NULL && last != NULL && last->status == 0 && is_settled(s, leader)) {
            return true;
        }
    }
    return false;
}

static void check_end(struct sim *s)
{
    for (size_t k = 0; k < s->write_count; k++) {
        const struct sim_write *w = &s->writes[k];
        if (w->done_count != 1) {
            broke(s, "a proposal did not end");
        } else if (w->status == 0 && s->index_of[k] == 0) {
            broke(s, "an acknowledged write was not applied");
        } else if ((w->status == HW_ERR_NOTHOT || w->status == HW_ERR_NOSPACE) && s->index_of[k] != 0) {
            broke(s, "a refused write was applied");
        }
    }
}

/* The fixture's own truncate counts entries wrongly after an install, and copies what is not there. Its disk is never
 * read again, so cutting nothing is as good. */
static int no_truncate(struct raft_io *io, raft_index index)
{
    (void)io;
    (void)index;
    return 0;
}

static void dump(struct sim *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        struct hw_consensus_view v;
        const struct raft *r = raft_fixture_get(&s->f, i);
        hw_consensus_view(s->nodes[i].c, &v);
        printf("\n  server %u: %s term %llu leader %llu commit %llu applied %llu last %llu stored %llu%s%s", i + 1,
               raft_state_name(r->state), (unsigned long long)v.term, (unsigned long long)v.leader_id,
               (unsigned long long)v.commit_index, (unsigned long long)v.applied_index,
               (unsigned long long)v.last_index, r->last_stored, s->nodes[i].has_failed ? " failed" : "",
               s->nodes[i].wants_durable ? " waits for its image" : "");
    }
}

static void sim_open(struct sim *s, uint64_t seed)
{
    struct hw_consensus_config config;
    struct raft_configuration conf;
    hw_rng_seed(&s->rng, seed);
    s->n = hw_rng_is_chance(&s->rng, 50) ? 3 : 5;
    s->faulty = hw_rng_is_chance(&s->rng, 10) ? (unsigned)hw_rng_below(&s->rng, s->n) : s->n;
    hw_consensus_config_default(&config);
    config.tick_ms = 25;
    raft_fixture_init(&s->f);
    for (unsigned i = 0; i < s->n; i++) {
        struct sim_node *n = &s->nodes[i];
        struct raft *raft;
        n->sim = s;
        n->i = i;
        config.id = i + 1;
        n->c = hw_consensus_new_detached(&config, &sim_ops, n);
        REQUIRE(raft_fixture_grow(&s->f, hw_consensus_fsm(n->c)) == 0);
        raft = raft_fixture_get(&s->f, i);
        if (getenv("HW_TRACE") == NULL) {
            raft->tracer = NULL;
        }
        raft_set_pre_vote(raft, true);
        raft_set_snapshot_threshold(raft, 20 + (unsigned)hw_rng_below(&s->rng, 30));
        raft_set_snapshot_trailing(raft, 1 + (unsigned)hw_rng_below(&s->rng, 12));
        raft_set_install_snapshot_timeout(raft, 2000);
        raft->io->truncate = no_truncate;
        hw_consensus_attach(n->c, raft, raft->io);
    }
    raft_fixture_configuration(&s->f, s->n == 5 && hw_rng_is_chance(&s->rng, 50) ? 3 : s->n, &conf);
    REQUIRE(raft_fixture_bootstrap(&s->f, &conf) == 0);
    raft_configuration_close(&conf);
    REQUIRE(raft_fixture_start(&s->f) == 0);
    for (unsigned i = 0; i < s->n; i++) {
        /* Once: a disk that becomes faster would complete writes out of order, which raft_uv never does. */
        raft_fixture_set_disk_latency(&s->f, i, 1 + (unsigned)hw_rng_below(&s->rng, 120));
    }
    if (s->faulty < s->n) {
        raft_fixture_io_fault(&s->f, s->faulty, 20 + (int)hw_rng_below(&s->rng, 400), 1);
    }
}

static unsigned total_writes;
static unsigned total_snapshots;
static unsigned total_installs;
static unsigned total_changes;

static const char *sim_run(uint64_t seed)
{
    struct sim *s = calloc(1, sizeof *s);
    const char *broken;
    sim_open(s, seed);
    while (raft_fixture_time(&s->f) < STORM_MS && s->broken == NULL) {
        storm_step(s);
    }
    if (s->broken == NULL && !settle(s)) {
        broke(s, "the cluster did not settle");
        dump(s);
    }
    raft_fixture_close(&s->f);
    for (unsigned i = 0; i < s->n; i++) {
        hw_consensus_free(s->nodes[i].c);
        total_snapshots += s->nodes[i].snapshots;
        total_installs += s->nodes[i].installs;
    }
    check_end(s);
    if (s->is_changing) {
        broke(s, "a change did not end");
    }
    total_writes += (unsigned)s->write_count;
    total_changes += s->changes_done;
    broken = s->broken;
    free(s);
    return broken;
}

static void safety_holds_for_every_seed(void)
{
    const char *one = getenv("HW_SEED");
    const char *many = getenv("HW_SEEDS");
    uint64_t first = one != NULL ? strtoull(one, NULL, 0) : 1;
    uint64_t count = one != NULL ? 1 : many != NULL ? strtoull(many, NULL, 0) : SEEDS;
    hw_log_configure("error");
    for (uint64_t seed = first; seed < first + count; seed++) {
        const char *broken = sim_run(seed);
        if (broken != NULL) {
            printf("\nseed %llu: %s (replay: HW_SEED=%llu)\n", (unsigned long long)seed, broken,
                   (unsigned long long)seed);
        }
        CHECK(broken == NULL);
    }
    if (getenv("VERBOSE") != NULL) {
        printf("\n    %llu seeds, %u writes, %u snapshots, %u installs, %u changes ", (unsigned long long)count,
               total_writes, total_snapshots, total_installs, total_changes);
    }
    /* The canary of the simulation itself: it must have come where it wants to look. */
    CHECK(one != NULL || (total_writes > count && total_snapshots > count && total_installs > 0 && total_changes > 0));
}

HW_SUITE(consensus_sim, HW_CASE(safety_holds_for_every_seed))
