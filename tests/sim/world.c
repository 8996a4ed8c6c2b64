/* One run: events in order of time, clients, then healing and the proof that everybody ends up the same. */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"

#define HEAL_MS_MAX 200000
#define PROPOSALS_MAX 20

static int by_time(struct sim_event *a, struct sim_event *b)
{
    if (a->at_ms != b->at_ms) {
        return a->at_ms < b->at_ms ? -1 : 1;
    }
    return a->seq < b->seq ? -1 : a->seq > b->seq;
}
/* RB_GENERATE_STATIC of libbsd 0.11 wants a macro __unused that only its overlay headers define. */
RB_GENERATE_INTERNAL(sim_event_tree, sim_event, link, by_time, __attribute__((unused)) static)

void sim_cancel(struct sim *s, struct sim_event *e)
{
    if (e->is_set) {
        RB_REMOVE(sim_event_tree, &s->events, e);
        e->is_set = false;
    }
}

void sim_after(struct sim *s, struct sim_event *e, uint64_t delay_ms, unsigned server, const char *what,
               void (*fire)(struct sim *s, struct sim_event *e))
{
    sim_cancel(s, e);
    e->at_ms = s->now_ms + delay_ms;
    e->seq = ++s->seq;
    e->server = server;
    e->what = what;
    e->fire = fire;
    e->is_set = true;
    RB_INSERT(sim_event_tree, &s->events, e);
}

void sim_trace(struct sim *s, unsigned server, const char *what, uint64_t a, uint64_t b)
{
    uint64_t numbers[4] = {s->now_ms, server, a, b};
    s->trace = XXH3_64bits_withSeed(numbers, sizeof numbers, XXH3_64bits_withSeed(what, strlen(what), s->trace));
    if (s->options->is_verbose) {
        printf("  %8llu s%u %s %llu %llu\n", (unsigned long long)s->now_ms, server, what, (unsigned long long)a,
               (unsigned long long)b);
    }
}

void sim_fail(struct sim *s, const char *fmt, ...)
{
    va_list ap;
    if (s->has_failed) {
        return;
    }
    s->has_failed = true;
    va_start(ap, fmt);
    vsnprintf(s->failure, sizeof s->failure, fmt, ap);
    va_end(ap);
}

uint64_t sim_below(struct sim *s, uint64_t bound)
{
    return hw_rng_below(&s->rng, bound);
}

bool sim_chance(struct sim *s, unsigned percent)
{
    return percent > 0 && hw_rng_is_chance(&s->rng, percent);
}

uint64_t sim_between(struct sim *s, uint64_t lo, uint64_t hi)
{
    return lo + hw_rng_below(&s->rng, hi - lo + 1);
}

/* False when the run is over. */
static bool step(struct sim *s)
{
    struct sim_event *e = RB_MIN(sim_event_tree, &s->events);
    if (e == NULL || s->has_failed) {
        return false;
    }
    sim_cancel(s, e);
    s->now_ms = e->at_ms;
    s->steps++;
    if (e->what != NULL) {
        sim_trace(s, e->server, e->what, 0, 0);
    }
    e->fire(s, e);
    return !s->has_failed;
}

/* ---- clients ---- */

static void on_op_done(struct hw_proposal *p, int status)
{
    struct op *op = hw_container_of(p, struct op, proposal);
    check_done(op, status);
    if (op->kind == OP_ACQUIRE) {
        op->server->is_acquiring = false;
        op->server->acquire_term = status == 0 ? op->server->acquire_term : 0; /* refused: a later turn claims again */
    }
    hw_result_free(&op->result);
    free(op);
}

static int encode(struct op *op, struct hw_cmd *cmd)
{
    int rc = hw_proposal_begin(&op->proposal);
    cmd->wall_ms = op->id;
    return rc != 0 ? rc : hw_cmd_encode(cmd, &op->proposal.entry);
}

/* Few ids, so that they meet: grants of one in use, puts and revocations of one that is gone. */
static int64_t any_lease(struct sim *s)
{
    return 1 + (int64_t)sim_below(s, 12);
}

static int encode_keys(struct op *op)
{
    struct sim *s = op->server->sim;
    struct hw_cmd cmd = {.type = HW_CMD_TXN};
    struct hw_op ops[2] = {{.type = HW_OP_PUT}, {.type = HW_OP_PUT}};
    struct hw_compare compare = {.target = HW_CMP_VERSION, .result = HW_CMP_GREATER};
    snprintf(op->key, sizeof op->key, "k%03llu", (unsigned long long)sim_below(s, s->key_count));
    snprintf(op->value, sizeof op->value, "v%llu", (unsigned long long)op->id);
    ops[0].put = (struct hw_put){.key = hw_slice_str(op->key),
                                 .value = hw_slice_str(op->value),
                                 .lease = op->kind == OP_LEASED ? any_lease(s) : 0};
    ops[1].put = (struct hw_put){.key = hw_slice_str("counter"), .value = hw_slice_str(op->value)};
    if (op->kind == OP_DELETE) {
        ops[0] = (struct hw_op){.type = HW_OP_DELETE, .del = {.key = hw_slice_str(op->key)}};
    }
    cmd.txn.success = ops;
    cmd.txn.success_count = op->kind == OP_TXN ? 2 : 1;
    if (op->kind == OP_TXN) {
        compare.key = hw_slice_str(op->key);
        compare.number = (int64_t)sim_below(s, 4);
        cmd.txn.compares = &compare;
        cmd.txn.compare_count = 1;
    }
    return encode(op, &cmd);
}

static int encode_op(struct op *op)
{
    struct server *v = op->server;
    struct hw_cmd cmd = {.type = HW_CMD_EVENT};
    struct hw_consensus_view view;
    struct hw_lease_remaining remaining;
    switch (op->kind) {
    case OP_PUT:
    case OP_TXN:
    case OP_DELETE:
    case OP_LEASED:
        return encode_keys(op);
    case OP_GRANT:
        cmd.type = HW_CMD_LEASE_GRANT;
        cmd.grant.id = any_lease(v->sim);
        cmd.grant.ttl_s = 1 + (int64_t)sim_below(v->sim, 100);
        break;
    case OP_REVOKE:
        cmd.type = HW_CMD_LEASE_REVOKE;
        cmd.revoke = any_lease(v->sim);
        break;
    case OP_REMAINING:
        cmd.type = HW_CMD_LEASE_CHECKPOINT;
        remaining = (struct hw_lease_remaining){any_lease(v->sim), (int64_t)sim_below(v->sim, 50)};
        cmd.checkpoint.leases = &remaining;
        cmd.checkpoint.count = 1;
        break;
    case OP_COMPACT:
        cmd.type = HW_CMD_COMPACT;
        cmd.compact = 1 + (hw_rev)sim_below(v->sim, (uint64_t)hw_hot_revision(v->hot));
        break;
    case OP_EVENT:
        snprintf(cmd.event.kind, sizeof cmd.event.kind, "test");
        snprintf(cmd.event.text, sizeof cmd.event.text, "event %llu", (unsigned long long)op->id);
        break;
    case OP_NODE:
        cmd.type = HW_CMD_NODE_SET;
        cmd.node.id = 1 + sim_below(v->sim, 8);
        snprintf(cmd.node.name, sizeof cmd.node.name, "n%llu", (unsigned long long)cmd.node.id);
        snprintf(cmd.node.peer_address, sizeof cmd.node.peer_address, "p%llu:1", (unsigned long long)op->id);
        break;
    case OP_ACQUIRE:
        hw_consensus_view(v->consensus, &view);
        cmd.type = HW_CMD_HOT_ACQUIRED;
        cmd.hot.node_id = v->id;
        cmd.hot.epoch = view.term;
        break;
    }
    return encode(op, &cmd);
}

bool op_propose(struct server *v, enum op_kind kind)
{
    struct op *op = calloc(1, sizeof *op);
    int rc;
    hw_assert(op != NULL);
    op->server = v;
    op->kind = kind;
    op->id = v->sim->next_op++;
    op->proposal.done = on_op_done;
    hw_result_init(&op->result);
    rc = encode_op(op);
    hw_assert(rc == 0);
    rc = hw_consensus_propose(v->consensus, &op->proposal);
    if (rc != 0) {
        hw_buf_free(&op->proposal.entry);
        free(op);
    }
    return rc == 0;
}

static enum op_kind any_kind(struct sim *s)
{
    static const struct {
        enum op_kind kind;
        unsigned below;
    } shares[] = {{OP_PUT, 45},    {OP_LEASED, 57},    {OP_TXN, 71},     {OP_DELETE, 82}, {OP_GRANT, 88},
                  {OP_REVOKE, 91}, {OP_REMAINING, 93}, {OP_COMPACT, 95}, {OP_EVENT, 98},  {OP_NODE, 100}};
    uint64_t n = sim_below(s, 100);
    unsigned i = 0;
    while (n >= shares[i].below) {
        i++;
    }
    return shares[i].kind;
}

/* Bursts, so that several leave together: group commit. A leader that was cut off still believes in itself. */
static void on_client(struct sim *s, struct sim_event *e)
{
    struct server *leaders[SIM_SERVERS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < s->server_count; i++) {
        if (server_is_leader(&s->servers[i])) {
            leaders[n++] = &s->servers[i];
        }
    }
    if (n > 0) {
        struct server *v = leaders[sim_below(s, n)];
        for (uint64_t k = 1 + sim_below(s, sim_chance(s, 10) ? PROPOSALS_MAX : 4); k > 0; k--) {
            op_propose(v, any_kind(s));
        }
        server_turn(v);
    }
    sim_after(s, e, sim_between(s, 1, 40), SIM_NOBODY, NULL, on_client);
}

/* ---- healing ---- */

static bool is_settled(struct sim *s)
{
    struct hw_consensus_view first;
    unsigned hot = 0;
    if (fault_is_replacing(s)) {
        return false;
    }
    for (unsigned i = 0; i < s->server_count; i++) {
        struct server *v = &s->servers[i];
        struct hw_consensus_view view;
        if (!v->is_up) {
            return false;
        }
        hw_consensus_view(v->consensus, &view);
        first = i == 0 ? view : first;
        hot += server_is_hot(v);
        if (view.term != first.term || view.last_index != first.last_index || view.applied_index != view.last_index ||
            view.proposals > 0 || v->install.is_wanted) {
            return false;
        }
    }
    return hot == 1;
}

static void compare_all(struct sim *s, const char *when)
{
    for (unsigned i = 0; i < s->server_count && !s->has_failed; i++) {
        check_state(&s->servers[i], when);
        if (hw_hot_hash(s->servers[i].hot) != hw_hot_hash(s->servers[0].hot) ||
            check_content(s->servers[i].hot) != check_content(s->servers[0].hot) ||
            check_leases(s->servers[i].hot) != check_leases(s->servers[0].hot)) {
            sim_fail(s, "servers 0 and %u differ %s", i, when);
        }
    }
}

static void describe(struct sim *s, char *text, size_t size)
{
    size_t n = 0;
    for (unsigned i = 0; i < s->server_count && n < size; i++) {
        struct server *v = &s->servers[i];
        struct hw_consensus_view view = {0};
        if (v->is_up) {
            hw_consensus_view(v->consensus, &view);
        }
        n += (size_t)snprintf(text + n, size - n,
                              " [%u id %llu %s %s%s term %llu leader %llu last %llu commit %llu "
                              "applied %llu%s%s]",
                              i, (unsigned long long)v->id, v->is_up ? "up" : "down", hw_role_name(view.role),
                              server_is_hot(v) ? " hot" : "", (unsigned long long)view.term,
                              (unsigned long long)view.leader_id, (unsigned long long)view.last_index,
                              (unsigned long long)view.commit_index, (unsigned long long)view.applied_index,
                              view.is_changing ? " changing" : "", v->install.is_wanted ? " installing" : "");
    }
}

/* With every fault gone: one hot node, new writes, the same state everywhere. */
static void settle(struct sim *s, const char *when)
{
    uint64_t deadline = s->now_ms + HEAL_MS_MAX;
    uint64_t acked = s->stats.acked;
    char text[480];
    while (!is_settled(s) && s->now_ms < deadline && step(s)) {
    }
    sim_after(s, &s->client, 0, SIM_NOBODY, NULL, on_client);
    for (uint64_t until = s->now_ms + 300; s->now_ms < until && step(s);) {
    }
    sim_cancel(s, &s->client);
    while (!is_settled(s) && s->now_ms < deadline && step(s)) {
    }
    if (!s->has_failed && !is_settled(s)) {
        describe(s, text, sizeof text);
        sim_fail(s, "no progress %s:%s", when, text);
    } else if (!s->has_failed && s->stats.acked == acked) {
        sim_fail(s, "no write is acknowledged %s", when);
    }
    if (!s->has_failed) {
        compare_all(s, when);
    }
}

/* ---- a run ---- */

static void bootstrap(struct sim *s)
{
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    for (unsigned i = 0; i < s->server_count; i++) {
        server_init(s, i);
        raft_configuration_add(&conf, s->servers[i].id, s->servers[i].address,
                               i < s->voters_wanted ? RAFT_VOTER : RAFT_STANDBY);
    }
    for (unsigned i = 0; i < s->server_count; i++) {
        disk_bootstrap(&s->servers[i].disk, &conf);
    }
    raft_configuration_close(&conf);
}

void sim_run(struct sim *s, uint64_t seed, const struct sim_options *options)
{
    memset(s, 0, sizeof *s);
    s->seed = seed;
    s->options = options;
    hw_rng_seed(&s->rng, seed);
    RB_INIT(&s->events);
    net_init(s);
    s->now_ms = 1000;
    s->next_id = 1;
    s->next_op = 1;
    s->server_count = (unsigned)sim_between(s, 3, 5);
    s->voters_wanted = s->server_count == 5 && sim_chance(s, 50) ? 5 : 3;
    s->snapshot_threshold = (unsigned)sim_between(s, 10, 200);
    s->snapshot_trailing = (unsigned)sim_between(s, 1, 100);
    s->checkpoint_ms = sim_between(s, 30, 1000);
    s->key_count = (unsigned)sim_between(s, 3, 60);
    bootstrap(s);
    fault_start(s);
    for (unsigned i = 0; i < s->server_count; i++) {
        server_start(&s->servers[i]);
    }
    sim_after(s, &s->client, 100, SIM_NOBODY, NULL, on_client);
    while (s->steps < options->steps && step(s)) {
    }
    s->is_healing = true;
    sim_cancel(s, &s->client);
    fault_heal(s);
    settle(s, "after healing");
    for (unsigned i = 0; i < s->server_count && !s->has_failed; i++) {
        server_crash(&s->servers[i], "all stop");
    }
    fault_heal(s);
    settle(s, "after a cold start");
    for (unsigned i = 0; i < s->server_count; i++) {
        server_free(&s->servers[i]);
    }
    net_close(s);
    check_free(&s->checks);
}
