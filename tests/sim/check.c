/* What must never happen. The first server that applies an entry says what is true at that index; every other server,
 * and every state that comes out of an image, must agree. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"

#define ULL(x) ((unsigned long long)(x))

static void *room(void *at, size_t *cap, size_t index, size_t size)
{
    size_t n = *cap == 0 ? 256 : *cap;
    if (index < *cap) {
        return at;
    }
    while (n <= index) {
        n *= 2;
    }
    at = realloc(at, n * size);
    hw_assert(at != NULL);
    memset((char *)at + *cap * size, 0, (n - *cap) * size);
    *cap = n;
    return at;
}

static struct fate *fate_of(struct checks *c, uint64_t id)
{
    c->fates = room(c->fates, &c->fate_cap, id, sizeof c->fates[0]);
    return &c->fates[id];
}

void check_free(struct checks *c)
{
    free(c->truth);
    free(c->fates);
    free(c->acks);
    free(c->leaders);
    memset(c, 0, sizeof *c);
}

void check_leader(struct server *v, uint64_t term)
{
    struct checks *c = &v->sim->checks;
    c->leaders = room(c->leaders, &c->leader_cap, term, sizeof c->leaders[0]);
    if (c->leaders[term] != 0 && c->leaders[term] != v->id) {
        sim_fail(v->sim, "two leaders in term %llu: %llu and %llu", ULL(term), ULL(c->leaders[term]), ULL(v->id));
    }
    c->leaders[term] = v->id;
}

/* What is true of the state at an index: of the last command at or below it. */
static const struct truth *known(const struct checks *c, uint64_t index)
{
    static const struct truth nothing;
    for (uint64_t i = index; i > 0; i--) {
        if (i < c->truth_cap && c->truth[i].entry_hash != 0) {
            return &c->truth[i];
        }
    }
    return &nothing;
}

#define LEASE_KEYS 128

uint64_t check_leases(struct hw_hot *hot)
{
    struct hw_lease_view view = {.id = INT64_MIN};
    uint64_t hash = 0;
    while (hw_hot_lease_next(hot, view.id, &view) == 0) {
        struct hw_key_name *keys[LEASE_KEYS];
        size_t n = hw_hot_lease_keys(hot, view.id, NULL, keys, LEASE_KEYS);
        int64_t facts[] = {view.id, view.ttl_s, view.remaining_s, (int64_t)view.key_count, (int64_t)n};
        hash = XXH3_64bits_withSeed(facts, sizeof facts, hash);
        for (size_t i = 0; i < n; i++) {
            hash = XXH3_64bits_withSeed(keys[i]->data, keys[i]->len, hash);
        }
    }
    return hash;
}

static void check_command(struct server *v, uint64_t index, uint64_t term, struct hw_slice entry, uint64_t epoch_before,
                          bool is_applied)
{
    struct hw_error e = {0};
    struct hw_cmd cmd;
    struct fate *fate;
    if (hw_cmd_decode(entry.data, entry.len, &cmd, &e) != 0) {
        sim_fail(v->sim, "entry %llu: %s", ULL(index), e.text);
        return;
    }
    fate = fate_of(&v->sim->checks, cmd.wall_ms);
    if (fate->index != 0 && fate->index != index) {
        sim_fail(v->sim, "command %llu was applied at %llu and again at %llu", ULL(cmd.wall_ms), ULL(fate->index),
                 ULL(index));
    }
    if (fate->fate == FATE_REFUSED) {
        sim_fail(v->sim, "command %llu was refused as surely not applied, and is at %llu", ULL(cmd.wall_ms),
                 ULL(index));
    }
    fate->index = index;
    if (is_applied && cmd.type == HW_CMD_HOT_ACQUIRED &&
        (hw_hot_epoch(v->hot) <= epoch_before || cmd.hot.epoch != term || hw_hot_epoch(v->hot) != term)) {
        sim_fail(v->sim, "epoch %llu follows %llu, in an entry of term %llu", ULL(hw_hot_epoch(v->hot)),
                 ULL(epoch_before), ULL(term));
    }
    hw_cmd_free(&cmd);
}

void check_entry(struct server *v, uint64_t index, uint64_t term, struct hw_slice entry, uint64_t epoch_before,
                 bool is_applied)
{
    struct checks *c = &v->sim->checks;
    uint64_t hash = XXH3_64bits_withSeed(entry.data, entry.len, term) | 1;
    struct truth *t;
    c->truth = room(c->truth, &c->truth_cap, index, sizeof c->truth[0]);
    t = &c->truth[index];
    if (t->entry_hash != 0 && t->entry_hash != hash) {
        sim_fail(v->sim, "server %u applies another entry at %llu than others did", v->at, ULL(index));
    }
    if (is_applied && t->entry_hash != 0 && t->state_hash != hw_hot_hash(v->hot)) {
        sim_fail(v->sim, "server %u has another state than others at %llu", v->at, ULL(index));
    }
    if (is_applied && t->entry_hash != 0 && t->lease_hash != check_leases(v->hot)) {
        sim_fail(v->sim, "server %u has other leases than others at %llu", v->at, ULL(index));
    }
    if (!is_applied && t->entry_hash == 0) {
        sim_fail(v->sim, "server %u skips entry %llu, which no server ever applied", v->at, ULL(index));
    }
    check_command(v, index, term, entry, epoch_before, is_applied);
    if (t->entry_hash == 0) {
        t->entry_hash = hash;
        t->state_hash = hw_hot_hash(v->hot);
        t->lease_hash = check_leases(v->hot);
        sim_trace(v->sim, v->at, "committed", index, t->state_hash);
    }
    c->index_max = index > c->index_max ? index : c->index_max;
}

static void remember_ack(struct op *op)
{
    struct checks *c = &op->server->sim->checks;
    if (op->result.code != 0 || (op->kind != OP_PUT && op->kind != OP_DELETE)) {
        return;
    }
    if (c->ack_count == c->ack_cap) {
        c->acks = room(c->acks, &c->ack_cap, c->ack_count, sizeof c->acks[0]);
    }
    c->acks[c->ack_count] =
        (struct ack){.index = op->proposal.index, .revision = op->result.revision, .is_delete = op->kind == OP_DELETE};
    memcpy(c->acks[c->ack_count].key, op->key, sizeof op->key);
    memcpy(c->acks[c->ack_count++].value, op->value, sizeof op->value);
}

void check_done(struct op *op, int status)
{
    struct sim *s = op->server->sim;
    struct fate *fate = fate_of(&s->checks, op->id);
    if (s->options->canary == CANARY_ACK && status == HW_ERR_UNKNOWN) {
        status = 0;
    }
    sim_trace(s, op->server->at, "done", op->id, (uint64_t)-status);
    switch (status) {
    case 0:
        fate->fate = FATE_ACKED;
        s->stats.acked++;
        s->stats.grants += op->kind == OP_GRANT && op->result.code == 0;
        s->stats.attached += op->kind == OP_LEASED && op->result.code == 0;
        s->stats.revoked += op->kind == OP_REVOKE && op->result.code == 0;
        s->stats.compactions += op->kind == OP_COMPACT && op->result.code == 0;
        if (fate->index == 0 || fate->index != op->proposal.index) {
            sim_fail(s, "command %llu was acknowledged at %llu and applied at %llu", ULL(op->id),
                     ULL(op->proposal.index), ULL(fate->index));
        }
        remember_ack(op);
        break;
    case HW_ERR_NOTHOT:
    case HW_ERR_NOSPACE:
        fate->fate = FATE_REFUSED;
        s->stats.refused++;
        s->stats.nospace += status == HW_ERR_NOSPACE;
        if (fate->index != 0) {
            sim_fail(s, "command %llu is refused as surely not applied, and was applied at %llu", ULL(op->id),
                     ULL(fate->index));
        }
        break;
    case HW_ERR_UNKNOWN:
    case HW_ERR_CANCELLED:
        fate->fate = FATE_UNKNOWN;
        s->stats.unknown++;
        break;
    default:
        sim_fail(s, "command %llu ended with %s", ULL(op->id), hw_err_name(status));
    }
}

static bool holds(struct hw_hot *hot, const struct ack *a)
{
    struct hw_range range = {.key = hw_slice_str(a->key), .revision = a->revision};
    struct hw_scan *scan;
    struct hw_version *const *kvs;
    bool is_there = false;
    size_t n;
    int rc = hw_scan_start(hot, &range, &scan);
    if (rc != 0) {
        return false;
    }
    do {
        rc = hw_scan_step(scan, 100);
    } while (rc > 0);
    kvs = hw_scan_kvs(scan, &n);
    if (a->is_delete) {
        is_there = n == 0;
    } else {
        is_there = n == 1 && kvs[0]->mod_main == a->revision &&
                   hw_slice_is_equal(hw_slice_of(kvs[0]->value, kvs[0]->value_len), hw_slice_str(a->value));
    }
    hw_scan_close(scan);
    return is_there;
}

uint64_t check_content(struct hw_hot *hot)
{
    struct hw_hasher *hasher;
    uint64_t hash;
    int rc = hw_hasher_start(hot, 0, &hasher);
    hw_assert(rc == 0);
    while (hw_hasher_step(hasher, 1000) > 0) {
    }
    hash = hw_hasher_hash(hasher);
    hw_hasher_close(hasher);
    return hash;
}

void check_state(struct server *v, const char *when)
{
    struct checks *c = &v->sim->checks;
    const char *problem = hw_hot_check(v->hot);
    uint64_t applied = hw_hot_applied(v->hot);
    const struct truth *t = known(c, applied);
    if (problem != NULL) {
        sim_fail(v->sim, "server %u %s: %s", v->at, when, problem);
    }
    if (t->state_hash != hw_hot_hash(v->hot)) {
        sim_fail(v->sim, "server %u %s: the state at %llu is not the one that was there", v->at, when, ULL(applied));
    }
    if (t->lease_hash != check_leases(v->hot)) {
        sim_fail(v->sim, "server %u %s: the leases at %llu are not those that were there", v->at, when, ULL(applied));
    }
    for (size_t i = 0; i < c->ack_count; i++) {
        const struct ack *a = &c->acks[i];
        if (a->index <= applied && a->revision >= hw_hot_compacted(v->hot) && !holds(v->hot, a)) {
            sim_fail(v->sim,
                     "server %u %s (applied %llu): the acknowledged write of %s at revision %lld, index %llu, "
                     "is lost",
                     v->at, when, ULL(applied), a->key, (long long)a->revision, ULL(a->index));
        }
    }
}
