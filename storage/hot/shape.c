/* What can be said about a transaction without a state. The rules and their texts are etcd's (server/etcdserver/api/
 * v3rpc/key.go, checkTxnRequest and checkIntervals), for clients recognise the texts.
 *
 * The hard rule: no key may be written twice. Both branches of a transaction are looked at, whichever will run:
 *
 *   - two puts on one key are refused, unless they are in opposite branches of one transaction;
 *   - a put and a delete that covers its key are refused when they stand in one list of operations, when one of
 *     them stands in the list and the other within a nested transaction of it, and when both are nested and the
 *     delete comes first. (A put that is nested before the delete passes: the delete then has the last word.)
 *
 * Unlike etcd's check, which takes the end "\0" literally, this one lets such a delete cover every key from its own on.
 *
 * It takes O(depth * n log n): the branches are visited in the order in which etcd merges its sets; puts and deletes
 * come into force as they are visited, and those of the first branch are out of force while the other is visited.
 * Deletes are kept as ranges over the sorted put keys, in a Fenwick tree (P. Fenwick 1994): add to a range, ask for a
 * point.
 */
#include <stdlib.h>
#include <string.h>

#include "storage/hot/state.h"

static const char TOO_MANY_OPS[] = "etcdserver: too many operations in txn request";
static const char EMPTY_KEY[] = "etcdserver: key is not provided";
static const char VALUE_PROVIDED[] = "etcdserver: value is provided";
static const char LEASE_PROVIDED[] = "etcdserver: lease is provided";
static const char DUPLICATE_KEY[] = "etcdserver: duplicate key given in txn request";
static const char NO_OPERATION[] = "etcdserver: key not found"; /* what etcd says of an operation without a type */
static const char TOO_LARGE[] = "etcdserver: request is too large";
static const char TOO_DEEP[] = "transactions are nested too deep";

/* ---- each operation by itself ---- */

struct totals {
    size_t ops;
    size_t compares;
    size_t puts;
    size_t deletes;
};

static const char *check_key(struct hw_slice key, struct hw_slice range_end)
{
    if (key.len == 0) {
        return EMPTY_KEY;
    }
    return key.len > HW_BYTES_MAX || range_end.len > HW_BYTES_MAX ? TOO_LARGE : NULL;
}

static const char *check_put(const struct hw_put *p)
{
    const char *problem = check_key(p->key, (struct hw_slice){0});
    if (problem != NULL) {
        return problem;
    }
    if (p->ignore_value && p->value.len > 0) {
        return VALUE_PROVIDED;
    }
    if (p->ignore_lease && p->lease != 0) {
        return LEASE_PROVIDED;
    }
    return p->value.len > HW_BYTES_MAX ? TOO_LARGE : NULL;
}

static const char *check_txn(const struct hw_txn *txn, size_t ops_max, unsigned depth, struct totals *t);

static const char *check_ops(const struct hw_op *ops, size_t count, size_t ops_max, unsigned depth, struct totals *t)
{
    const char *problem = NULL;
    for (size_t i = 0; i < count && problem == NULL; i++) {
        const struct hw_op *op = &ops[i];
        switch (op->type) {
        case HW_OP_RANGE:
            problem = check_key(op->range.key, op->range.range_end);
            break;
        case HW_OP_PUT:
            problem = check_put(&op->put);
            t->puts++;
            break;
        case HW_OP_DELETE:
            problem = check_key(op->del.key, op->del.range_end);
            t->deletes++;
            break;
        case HW_OP_TXN:
            problem = check_txn(op->txn, ops_max, depth + 1, t);
            break;
        default:
            problem = NO_OPERATION;
        }
    }
    return problem;
}

static size_t at_least(size_t a, size_t b)
{
    return a > b ? a : b;
}

static const char *check_txn(const struct hw_txn *txn, size_t ops_max, unsigned depth, struct totals *t)
{
    const char *problem = NULL;
    size_t widest;
    if (txn == NULL) {
        return NO_OPERATION;
    }
    if (depth > HW_TXN_DEPTH_MAX) {
        return TOO_DEEP;
    }
    widest = at_least(txn->compare_count, at_least(txn->success_count, txn->failure_count));
    if (widest > ops_max) {
        return TOO_MANY_OPS;
    }
    t->ops += txn->success_count + txn->failure_count;
    t->compares += txn->compare_count;
    if (t->ops > HW_TXN_OPS_HARD_MAX || t->compares > HW_TXN_OPS_HARD_MAX) {
        return TOO_MANY_OPS;
    }
    for (size_t i = 0; i < txn->compare_count && problem == NULL; i++) {
        const struct hw_compare *c = &txn->compares[i];
        problem = check_key(c->key, c->range_end);
        if (problem == NULL && c->value.len > HW_BYTES_MAX) {
            problem = TOO_LARGE;
        }
    }
    if (problem == NULL) {
        problem = check_ops(txn->success, txn->success_count, ops_max - widest, depth, t);
    }
    if (problem == NULL) {
        problem = check_ops(txn->failure, txn->failure_count, ops_max - widest, depth, t);
    }
    return problem;
}

/* ---- the operations together ---- */

struct put_place {
    struct hw_slice key;
    size_t order; /* of the visit */
};

struct delete_place {
    struct hw_span span;
    size_t from; /* the distinct put keys that it covers */
    size_t to;
};

struct overlap {
    struct put_place *puts; /* in the order of the visit, then sorted by key */
    struct delete_place *deletes;
    struct hw_slice *keys; /* the distinct ones, sorted */
    size_t *slots;         /* of a put, by order of the visit: which key */
    size_t *puts_in_force; /* by slot */
    size_t *cover;         /* Fenwick tree over the slots, modulo 2^64 */
    size_t put_count;      /* visited so far */
    size_t delete_count;
    size_t slot_count;
};

static void collect(struct overlap *o, const struct hw_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ops[i].type == HW_OP_DELETE) {
            o->deletes[o->delete_count++].span = hw_span_of(ops[i].del.key, ops[i].del.range_end);
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (ops[i].type == HW_OP_TXN) {
            collect(o, ops[i].txn->success, ops[i].txn->success_count);
            collect(o, ops[i].txn->failure, ops[i].txn->failure_count);
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (ops[i].type == HW_OP_PUT) {
            o->puts[o->put_count] = (struct put_place){ops[i].put.key, o->put_count};
            o->put_count++;
        }
    }
}

static int compare_puts(const void *a, const void *b)
{
    return hw_slice_cmp(((const struct put_place *)a)->key, ((const struct put_place *)b)->key);
}

/* The first slot whose key is not below `key`. */
static size_t slot_at_or_above(const struct overlap *o, struct hw_slice key)
{
    size_t lo = 0;
    size_t hi = o->slot_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (hw_slice_cmp(o->keys[mid], key) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static void place(struct overlap *o)
{
    qsort(o->puts, o->put_count, sizeof o->puts[0], compare_puts);
    for (size_t i = 0; i < o->put_count; i++) {
        if (i == 0 || !hw_slice_is_equal(o->puts[i].key, o->puts[i - 1].key)) {
            o->keys[o->slot_count++] = o->puts[i].key;
        }
        o->slots[o->puts[i].order] = o->slot_count - 1;
    }
    for (size_t i = 0; i < o->delete_count; i++) {
        struct delete_place *d = &o->deletes[i];
        d->from = slot_at_or_above(o, d->span.key);
        if (d->span.is_open) {
            d->to = o->slot_count;
        } else if (d->span.is_point) {
            d->to = d->from < o->slot_count && hw_slice_is_equal(o->keys[d->from], d->span.key) ? d->from + 1 : d->from;
        } else {
            d->to = slot_at_or_above(o, d->span.end);
        }
    }
}

static void cover_from(struct overlap *o, size_t slot, size_t by)
{
    for (size_t i = slot + 1; i <= o->slot_count; i += i & -i) {
        o->cover[i - 1] += by;
    }
}

static void put_in_force(struct overlap *o, const struct delete_place *d, bool on)
{
    if (d->from < d->to) {
        cover_from(o, d->from, on ? 1 : (size_t)-1);
        cover_from(o, d->to, on ? (size_t)-1 : 1);
    }
}

static bool is_deleted(const struct overlap *o, size_t slot)
{
    size_t covers = 0;
    for (size_t i = slot + 1; i > 0; i -= i & -i) {
        covers += o->cover[i - 1];
    }
    return covers > 0;
}

static bool has_conflict(struct overlap *o, const struct hw_txn *txn);

/* Afterwards everything in the list is in force. */
static bool has_conflict_in_list(struct overlap *o, const struct hw_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ops[i].type == HW_OP_DELETE) {
            put_in_force(o, &o->deletes[o->delete_count++], true);
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (ops[i].type == HW_OP_TXN && has_conflict(o, ops[i].txn)) {
            return true;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (ops[i].type == HW_OP_PUT) {
            size_t slot = o->slots[o->put_count++];
            if (o->puts_in_force[slot] > 0 || is_deleted(o, slot)) {
                return true;
            }
            o->puts_in_force[slot]++;
        }
    }
    return false;
}

/* Puts and deletes of a stretch of the visit come into or out of force. */
static void turn(struct overlap *o, size_t put_from, size_t put_to, size_t delete_from, size_t delete_to, bool on)
{
    for (size_t i = put_from; i < put_to; i++) {
        o->puts_in_force[o->slots[i]] += on ? 1 : (size_t)-1;
    }
    for (size_t i = delete_from; i < delete_to; i++) {
        put_in_force(o, &o->deletes[i], on);
    }
}

static bool has_conflict(struct overlap *o, const struct hw_txn *txn)
{
    size_t put_from = o->put_count;
    size_t delete_from = o->delete_count;
    size_t put_to;
    size_t delete_to;
    if (has_conflict_in_list(o, txn->success, txn->success_count)) {
        return true;
    }
    put_to = o->put_count;
    delete_to = o->delete_count;
    turn(o, put_from, put_to, delete_from, delete_to, false);
    if (has_conflict_in_list(o, txn->failure, txn->failure_count)) {
        return true;
    }
    turn(o, put_from, put_to, delete_from, delete_to, true);
    return false;
}

/* 1: a key is written twice; 0: not; HW_ERR_NOMEM. */
static int check_overlap(const struct hw_txn *txn, const struct totals *t)
{
    struct overlap o = {0};
    int rc = HW_ERR_NOMEM;
    if (t->puts == 0 || t->puts + t->deletes < 2) {
        return 0;
    }
    o.puts = calloc(t->puts, sizeof *o.puts);
    o.deletes = calloc(t->deletes + 1, sizeof *o.deletes);
    o.keys = calloc(t->puts, sizeof *o.keys);
    o.slots = calloc(3 * t->puts, sizeof *o.slots);
    if (o.puts != NULL && o.deletes != NULL && o.keys != NULL && o.slots != NULL) {
        o.puts_in_force = o.slots + t->puts;
        o.cover = o.puts_in_force + t->puts;
        collect(&o, txn->success, txn->success_count);
        collect(&o, txn->failure, txn->failure_count);
        place(&o);
        o.put_count = 0;
        o.delete_count = 0;
        rc = has_conflict(&o, txn);
    }
    free(o.puts);
    free(o.deletes);
    free(o.keys);
    free(o.slots);
    return rc;
}

int hw_hot_check_txn(const struct hw_txn *txn, size_t ops_max, struct hw_error *e)
{
    struct totals t = {0};
    const char *problem = check_txn(txn, ops_max, 1, &t);
    int rc;
    if (problem != NULL) {
        return hw_error_set(e, HW_ERR_INVALID, "%s", problem);
    }
    rc = check_overlap(txn, &t);
    if (rc < 0) {
        return hw_error_set(e, rc, "check a transaction of %zu operations: out of memory", t.ops);
    }
    return rc == 0 ? 0 : hw_error_set(e, HW_ERR_INVALID, "%s", DUPLICATE_KEY);
}
