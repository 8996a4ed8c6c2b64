/* Transactions, in etcd's order of things (server/etcdserver/txn/txn.go):
 *
 *   1. the compares of the transaction and of every nested one on the way are decided, all against the state before:
 *      which branches run is known before anything is written ("the path");
 *   2. what will run is checked: revisions of ranges, keys of puts that keep something, leases;
 *   3. it runs. Every operation sees the writes of those before it. Nothing can be refused any more; only memory can
 *      end, and then the versions written so far, which are the last ones of the dirty list, are taken back.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "storage/hot/range.h"
#include "storage/hot/state.h"

#define PATH_ROOM 32
#define KEYS_EACH 8 /* finding a place costs about as much as so many keys */

struct txn_run {
    struct hw_hot *hot;
    struct hw_result *result; /* NULL: nobody waits */
    hw_rev main;
    uint32_t sub; /* writes so far */
    size_t dirty_start;
    uint64_t hash_start;
    struct hw_lease_spares spares;
    bool *path; /* did the compares hold: one for each transaction on the way, the outer before the inner */
    size_t path_count;
    size_t path_cap;
    size_t path_at;
    bool path_room[PATH_ROOM];
    size_t deleted;     /* keys that deletes will cover */
    size_t inline_keys; /* that ranges may still look at now, and the size of what they find */
    size_t inline_bytes;
};

struct op_list {
    const struct hw_op *ops;
    size_t count;
};

static struct op_list branch_of(const struct hw_txn *txn, bool succeeded)
{
    return succeeded ? (struct op_list){txn->success, txn->success_count}
                     : (struct op_list){txn->failure, txn->failure_count};
}

/* ---- 1: the path ---- */

static int compare_numbers(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

/* v is NULL for a key that does not exist: its numbers are 0. */
static bool is_compare_true(const struct hw_compare *c, const struct hw_version *v)
{
    int order = 0;
    switch (c->target) {
    case HW_CMP_VERSION:
        order = compare_numbers(v == NULL ? 0 : v->version, c->number);
        break;
    case HW_CMP_CREATE:
        order = compare_numbers(v == NULL ? 0 : v->create_main, c->number);
        break;
    case HW_CMP_MOD:
        order = compare_numbers(v == NULL ? 0 : v->mod_main, c->number);
        break;
    case HW_CMP_LEASE:
        order = compare_numbers(v == NULL ? 0 : v->lease, c->number);
        break;
    case HW_CMP_VALUE:
        if (v == NULL) {
            return false; /* no value, not an empty one */
        }
        order = hw_slice_cmp(hw_slice_of(v->value, v->value_len), c->value);
        break;
    }
    switch (c->result) {
    case HW_CMP_EQUAL:
        return order == 0;
    case HW_CMP_GREATER:
        return order > 0;
    case HW_CMP_LESS:
        return order < 0;
    case HW_CMP_NOT_EQUAL:
        return order != 0;
    }
    hw_unreachable();
}

/* Every key of the range must hold; a range without keys counts as one key that does not exist. */
static bool has_compare_held(const struct hw_index *ix, const struct hw_compare *c)
{
    struct hw_span span = hw_span_of(c->key, c->range_end);
    struct hw_index_key *k;
    struct hw_index_key *stop;
    bool is_empty = true;
    hw_index_bounds(ix, &span, &k, &stop);
    for (; k != stop; k = hw_index_next(k)) {
        const struct hw_version *v = hw_index_live(k);
        if (v == NULL) {
            continue;
        }
        is_empty = false;
        if (!is_compare_true(c, v)) {
            return false;
        }
    }
    return !is_empty || is_compare_true(c, NULL);
}

static int push_path(struct txn_run *run, bool succeeded)
{
    if (run->path_count == run->path_cap) {
        bool *path = malloc(2 * run->path_cap * sizeof *path);
        if (path == NULL) {
            return HW_ERR_NOMEM;
        }
        memcpy(path, run->path, run->path_count * sizeof *path);
        if (run->path != run->path_room) {
            free(run->path);
        }
        run->path = path;
        run->path_cap *= 2;
    }
    run->path[run->path_count++] = succeeded;
    return 0;
}

static int find_path(struct txn_run *run, const struct hw_txn *txn)
{
    bool succeeded = true;
    struct op_list list;
    int rc;
    for (size_t i = 0; i < txn->compare_count && succeeded; i++) {
        succeeded = has_compare_held(&run->hot->index, &txn->compares[i]);
    }
    rc = push_path(run, succeeded);
    list = branch_of(txn, succeeded);
    for (size_t i = 0; i < list.count && rc == 0; i++) {
        if (list.ops[i].type == HW_OP_TXN) {
            rc = find_path(run, list.ops[i].txn);
        }
    }
    return rc;
}

/* Counted as if none of them failed early: how far they get may change until they are applied. */
static void count_compares(const struct hw_index *ix, const struct hw_txn *txn, size_t *keys);

static void count_nested(const struct hw_index *ix, const struct hw_op *ops, size_t count, size_t *keys)
{
    for (size_t i = 0; i < count; i++) {
        if (ops[i].type == HW_OP_TXN) {
            count_compares(ix, ops[i].txn, keys);
        }
    }
}

static void count_compares(const struct hw_index *ix, const struct hw_txn *txn, size_t *keys)
{
    for (size_t i = 0; i < txn->compare_count; i++) {
        struct hw_span span = hw_span_of(txn->compares[i].key, txn->compares[i].range_end);
        struct hw_index_key *k = NULL;
        struct hw_index_key *stop = NULL;
        if (!span.is_point) {
            hw_index_bounds(ix, &span, &k, &stop);
        }
        for (; k != stop && *keys <= HW_COMPARE_KEYS_MAX; k = hw_index_next(k)) {
            (*keys)++;
        }
    }
    count_nested(ix, txn->success, txn->success_count, keys);
    count_nested(ix, txn->failure, txn->failure_count, keys);
}

int hw_hot_check_compares(const struct hw_hot *h, const struct hw_txn *txn)
{
    size_t keys = 0;
    count_compares(&h->index, txn, &keys);
    return keys > HW_COMPARE_KEYS_MAX ? HW_ERR_TOOBIG : 0;
}

static bool reads_at_a_revision(const struct hw_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct hw_txn *inner = ops[i].type == HW_OP_TXN ? ops[i].txn : NULL;
        if ((ops[i].type == HW_OP_RANGE && ops[i].range.revision > 0) ||
            (inner != NULL && (reads_at_a_revision(inner->success, inner->success_count) ||
                               reads_at_a_revision(inner->failure, inner->failure_count)))) {
            return true;
        }
    }
    return false;
}

static int check_reads(const struct hw_hot *h, const struct hw_txn *txn)
{
    bool succeeded = true;
    struct op_list list;
    int code = 0;
    for (size_t i = 0; i < txn->compare_count && succeeded; i++) {
        succeeded = has_compare_held(&h->index, &txn->compares[i]);
    }
    list = branch_of(txn, succeeded);
    for (size_t i = 0; i < list.count && code == 0; i++) {
        if (list.ops[i].type == HW_OP_RANGE) {
            code = hw_hot_check_revision(h, list.ops[i].range.revision);
        } else if (list.ops[i].type == HW_OP_TXN) {
            code = check_reads(h, list.ops[i].txn);
        }
    }
    return code;
}

int hw_hot_check_reads(const struct hw_hot *h, const struct hw_txn *txn)
{
    if (!reads_at_a_revision(txn->success, txn->success_count) &&
        !reads_at_a_revision(txn->failure, txn->failure_count)) {
        return 0;
    }
    return check_reads(h, txn);
}

/* ---- 2: checks ---- */

static int check_lease(const struct hw_hot *h, int64_t id)
{
    const struct hw_lease *lease = id == 0 ? NULL : hw_lease_find(&h->leases, id);
    if (id != 0 && lease == NULL) {
        return HW_ERR_PRECONDITION;
    }
    return lease != NULL && lease->key_count >= HW_LEASE_KEYS_MAX ? HW_ERR_EXHAUSTED : 0;
}

static int check_put(const struct hw_hot *h, const struct hw_put *put)
{
    if (put->ignore_value || put->ignore_lease) {
        struct hw_index_key *k = hw_index_find(&h->index, put->key);
        if (k == NULL || hw_index_live(k) == NULL) {
            return HW_ERR_NOTFOUND;
        }
    }
    return check_lease(h, put->lease);
}

/* As the state is before the transaction. */
static int check_delete(struct txn_run *run, const struct hw_delete *del)
{
    struct hw_span span = hw_span_of(del->key, del->range_end);
    struct hw_index_key *k;
    struct hw_index_key *stop;
    hw_index_bounds(&run->hot->index, &span, &k, &stop);
    for (; k != stop; k = hw_index_next(k)) {
        run->deleted += hw_index_live(k) != NULL;
        if (run->deleted > HW_DELETE_KEYS_MAX) {
            return HW_ERR_TOOBIG;
        }
    }
    return 0;
}

static int check_path(struct txn_run *run, const struct hw_txn *txn)
{
    struct op_list list = branch_of(txn, run->path[run->path_at++]);
    int code = 0;
    for (size_t i = 0; i < list.count && code == 0; i++) {
        const struct hw_op *op = &list.ops[i];
        if (op->type == HW_OP_RANGE) {
            code = hw_hot_check_revision(run->hot, op->range.revision);
        } else if (op->type == HW_OP_PUT) {
            code = check_put(run->hot, &op->put);
        } else if (op->type == HW_OP_DELETE) {
            code = check_delete(run, &op->del);
        } else if (op->type == HW_OP_TXN) {
            code = check_path(run, op->txn);
        }
    }
    return code;
}

/* ---- 3: run ---- */

static int64_t lease_of(const struct hw_index_key *k)
{
    const struct hw_version *v = hw_index_live(k);
    return v == NULL ? 0 : v->lease;
}

/* Takes over the reference on v, also when it fails. */
static int write_version(struct txn_run *run, struct hw_index_key *k, struct hw_version *v)
{
    struct hw_hot *h = run->hot;
    int64_t lease = lease_of(k);
    v->mod_main = run->main;
    v->mod_sub = run->sub;
    if (hw_dirty_reserve(&h->dirty) != 0 || hw_lease_move(&h->leases, k, lease, v->lease, &run->spares) != 0) {
        hw_version_unref(v);
        return HW_ERR_NOMEM;
    }
    if (hw_index_link(&h->index, k, v) != 0) {
        hw_lease_move_back(&h->leases, k, lease, v->lease, &run->spares);
        hw_version_unref(v);
        return HW_ERR_NOMEM;
    }
    hw_dirty_push(&h->dirty, v);
    h->hash += hw_version_hash(v);
    run->sub++;
    return 0;
}

/* The versions go into the result, references included. */
static int give(struct hw_result *r, struct hw_op_result *out, struct hw_version **kvs, size_t count)
{
    if (count == 0) {
        return 0;
    }
    out->range.kvs = hw_result_alloc(r, count, sizeof(struct hw_version *));
    if (out->range.kvs == NULL) {
        return HW_ERR_NOMEM;
    }
    memcpy(out->range.kvs, kvs, count * sizeof(struct hw_version *));
    out->range.kv_count = count;
    return 0;
}

static int copy_bytes(struct hw_result *r, struct hw_slice from, struct hw_slice *to)
{
    uint8_t *data = hw_result_alloc(r, from.len + 1, 1);
    if (data == NULL) {
        return HW_ERR_NOMEM;
    }
    if (from.len > 0) {
        memcpy(data, from.data, from.len);
    }
    *to = hw_slice_of(data, from.len);
    return 0;
}

/* Every deferred range of the result can be read while it lives. */
static int pin_result(struct txn_run *run, hw_rev revision)
{
    struct hw_result *r = run->result;
    if (r->pin == NULL) {
        r->pin = hw_result_alloc(r, 1, sizeof *r->pin);
        if (r->pin == NULL) {
            return HW_ERR_NOMEM;
        }
        r->pin->hot = run->hot;
        hw_pin_add(run->hot, &r->pin->pin, revision);
    } else if (revision < r->pin->pin.revision) {
        r->pin->pin.revision = revision;
    }
    return 0;
}

/* Only memory can end from here to the end of the transaction; it then frees the result, pin included. */
static int defer(struct txn_run *run, const struct hw_range *range, struct hw_op_result *out)
{
    struct hw_deferred *d = hw_result_alloc(run->result, 1, sizeof *d);
    bool is_own = range->revision > 0;
    int rc = HW_ERR_NOMEM;
    if (d == NULL) {
        return rc;
    }
    d->range = *range;
    d->revision = is_own ? range->revision : run->sub > 0 ? run->main : run->main - 1;
    d->sub = is_own || run->sub == 0 ? UINT32_MAX : run->sub;
    rc = copy_bytes(run->result, range->key, &d->range.key);
    if (rc == 0) {
        rc = copy_bytes(run->result, range->range_end, &d->range.range_end);
    }
    if (rc == 0) {
        rc = pin_result(run, is_own ? range->revision : run->main - 1);
    }
    out->range.keys_only = range->keys_only;
    out->range.deferred = d;
    return rc;
}

static void charge(struct txn_run *run, const struct hw_range_run *r)
{
    size_t keys = (size_t)r->count + KEYS_EACH;
    size_t bytes = 0;
    for (size_t i = 0; i < r->kv_count; i++) {
        bytes += r->range.keys_only ? 0 : r->kvs[i]->value_len;
    }
    run->inline_keys -= keys < run->inline_keys ? keys : run->inline_keys;
    run->inline_bytes -= bytes < run->inline_bytes ? bytes : run->inline_bytes;
}

/* `budget`: SIZE_MAX for what was bounded before; else a range that is not done by then is deferred. */
static int run_range(struct txn_run *run, const struct hw_range *range, size_t budget, struct hw_op_result *out)
{
    struct hw_range_run r;
    int rc;
    if (out == NULL) {
        return 0;
    }
    if (budget == 0) {
        return defer(run, range, out);
    }
    hw_range_run_init(&r, range, range->revision > 0 ? range->revision : HW_REV_NEWEST);
    rc = hw_range_run_step(&r, &run->hot->index, budget);
    if (budget != SIZE_MAX) {
        charge(run, &r);
    }
    if (rc > 0) {
        hw_range_run_close(&r);
        run->inline_keys = 0;
        return defer(run, range, out);
    }
    if (rc == 0) {
        rc = give(run->result, out, r.kvs, r.kv_count);
    }
    if (rc == 0) {
        r.kv_count = 0;
        out->range.count = r.count;
        out->range.more = r.has_more;
        out->range.keys_only = range->keys_only;
    }
    hw_range_run_close(&r);
    return rc;
}

/* The node of a key that is about to be written. */
static struct hw_index_key *key_to_write(struct hw_index *ix, struct hw_slice key)
{
    struct hw_index_place place;
    struct hw_index_key *k = hw_index_seek(ix, key, &place);
    struct hw_key_name *name;
    if (k != NULL) {
        return k;
    }
    name = hw_key_name_new(key);
    if (name == NULL) {
        return NULL;
    }
    k = hw_index_add(ix, &place, name);
    hw_key_name_unref(name);
    return k;
}

static int run_put(struct txn_run *run, const struct hw_put *put, struct hw_op_result *out)
{
    struct hw_index *ix = &run->hot->index;
    struct hw_index_key *k = key_to_write(ix, put->key);
    struct hw_version *before;
    struct hw_version *v;
    int rc = HW_ERR_NOMEM;
    if (k == NULL) {
        return HW_ERR_NOMEM;
    }
    before = hw_index_live(k);
    hw_assert(before != NULL || !(put->ignore_value || put->ignore_lease));
    v = hw_version_new(hw_index_name(k),
                       put->ignore_value ? hw_slice_of(before->value, before->value_len) : put->value);
    if (v != NULL) {
        v->create_main = before == NULL ? run->main : before->create_main;
        v->version = before == NULL ? 1 : before->version + 1;
        v->lease = put->ignore_lease ? before->lease : put->lease;
        rc = write_version(run, k, v);
    }
    if (rc != 0) {
        if (k->count == 0) {
            hw_index_remove(ix, k);
        }
        return rc;
    }
    if (out != NULL && put->prev_kv && before != NULL) {
        rc = give(run->result, out, &before, 1);
        if (rc == 0) {
            hw_version_ref(before);
        }
    }
    return rc;
}

static int write_tombstone(struct txn_run *run, struct hw_index_key *k)
{
    struct hw_version *v = hw_version_new(hw_index_name(k), (struct hw_slice){0});
    if (v == NULL) {
        return HW_ERR_NOMEM;
    }
    v->is_tombstone = true;
    return write_version(run, k, v);
}

static int run_delete(struct txn_run *run, const struct hw_delete *del, struct hw_op_result *out)
{
    struct hw_index *ix = &run->hot->index;
    struct hw_span span = hw_span_of(del->key, del->range_end);
    struct hw_range all = {.key = del->key, .range_end = del->range_end};
    struct hw_index_key *k;
    struct hw_index_key *stop;
    int64_t deleted = 0;
    int rc = del->prev_kv ? run_range(run, &all, SIZE_MAX, out) : 0;
    hw_index_bounds(ix, &span, &k, &stop);
    for (; k != stop && rc == 0; k = hw_index_next(k)) {
        if (hw_index_live(k) == NULL) {
            continue;
        }
        rc = write_tombstone(run, k);
        deleted++;
    }
    if (out != NULL) {
        out->range.count = deleted;
    }
    return rc;
}

static int run_txn(struct txn_run *run, const struct hw_txn *txn, struct hw_txn_result *out);

static int run_nested(struct txn_run *run, const struct hw_txn *txn, struct hw_op_result *out)
{
    if (out == NULL) {
        return run_txn(run, txn, NULL);
    }
    out->txn = hw_result_alloc(run->result, 1, sizeof *out->txn);
    return out->txn == NULL ? HW_ERR_NOMEM : run_txn(run, txn, out->txn);
}

static int run_op(struct txn_run *run, const struct hw_op *op, struct hw_op_result *out)
{
    int rc = 0;
    switch (op->type) {
    case HW_OP_RANGE:
        rc = run_range(run, &op->range, run->inline_bytes > 0 ? run->inline_keys : 0, out);
        break;
    case HW_OP_PUT:
        rc = run_put(run, &op->put, out);
        break;
    case HW_OP_DELETE:
        rc = run_delete(run, &op->del, out);
        break;
    case HW_OP_TXN:
        rc = run_nested(run, op->txn, out);
        break;
    }
    if (out != NULL) {
        out->type = op->type;
        out->revision = op->type == HW_OP_TXN ? 0 : run->sub > 0 ? run->main : run->main - 1;
    }
    return rc;
}

static int run_txn(struct txn_run *run, const struct hw_txn *txn, struct hw_txn_result *out)
{
    bool succeeded = run->path[run->path_at++];
    struct op_list list = branch_of(txn, succeeded);
    int rc = 0;
    if (out != NULL) {
        out->succeeded = succeeded;
        if (list.count > 0) {
            out->ops = hw_result_alloc(run->result, list.count, sizeof out->ops[0]);
            if (out->ops == NULL) {
                return HW_ERR_NOMEM;
            }
            out->op_count = list.count;
        }
    }
    for (size_t i = 0; i < list.count && rc == 0; i++) {
        rc = run_op(run, &list.ops[i], out == NULL ? NULL : &out->ops[i]);
    }
    return rc;
}

static void undo(struct txn_run *run)
{
    struct hw_hot *h = run->hot;
    while (h->dirty.count > run->dirty_start) {
        struct hw_version *v = h->dirty.at[h->dirty.count - 1];
        struct hw_index_key *k = hw_index_find(&h->index, hw_slice_of(v->key->data, v->key->len));
        hw_index_unlink_newest(&h->index, k);
        hw_lease_move_back(&h->leases, k, lease_of(k), v->lease, &run->spares);
        if (k->count == 0) {
            hw_index_remove(&h->index, k);
        }
        hw_dirty_pop(&h->dirty);
    }
    h->hash = run->hash_start;
}

/* What was written takes effect, or is taken back when rc says that memory ended. */
static int settle(struct txn_run *run, int rc)
{
    struct hw_hot *h = run->hot;
    if (rc != 0) {
        undo(run);
    }
    hw_lease_spares_free(&run->spares);
    if (rc == 0 && run->sub > 0) {
        h->revision = run->main;
        if (h->feed != NULL) {
            h->feed(h->feed_ctx, run->main, h->dirty.at + run->dirty_start, run->sub);
        }
    }
    return rc;
}

static int run_path(struct txn_run *run, const struct hw_txn *txn)
{
    run->path_at = 0;
    return settle(run, run_txn(run, txn, run->result == NULL ? NULL : &run->result->txn));
}

static struct txn_run start_run(struct hw_hot *h, struct hw_result *result)
{
    struct txn_run run = {
        .hot = h,
        .result = result,
        .main = h->revision + 1,
        .dirty_start = h->dirty.count,
        .hash_start = h->hash,
        .path_cap = PATH_ROOM,
        .inline_keys = HW_TXN_INLINE_KEYS,
        .inline_bytes = HW_TXN_INLINE_BYTES,
    };
    SLIST_INIT(&run.spares);
    return run;
}

int hw_txn_apply(struct hw_hot *h, const struct hw_txn *txn, struct hw_result *result, int *code)
{
    struct txn_run run = start_run(h, result);
    int rc;
    run.path = run.path_room;
    *code = hw_hot_check_txn(txn, HW_TXN_OPS_HARD_MAX, NULL);
    if (*code != 0) {
        return *code == HW_ERR_NOMEM ? HW_ERR_NOMEM : 0;
    }
    rc = find_path(&run, txn);
    if (rc == 0) {
        *code = check_path(&run, txn);
        if (*code == 0) {
            rc = run_path(&run, txn);
        }
    }
    if (run.path != run.path_room) {
        free(run.path);
    }
    return rc;
}

int hw_txn_revoke(struct hw_hot *h, struct hw_lease *lease)
{
    struct txn_run run = start_run(h, NULL);
    struct hw_lease_key *first;
    int rc = 0;
    /* Each tombstone takes its key off the lease. */
    while (rc == 0 && (first = hw_lease_first_key(lease)) != NULL) {
        rc = write_tombstone(&run, first->key);
    }
    return settle(&run, rc);
}

int hw_hot_read_txn(struct hw_hot *h, const struct hw_txn *txn, struct hw_result *result)
{
    hw_rev revision = h->revision;
    int rc = hw_txn_apply(h, txn, result, &result->code);
    hw_assert(h->revision == revision); /* the caller made sure that it writes nothing */
    result->revision = revision;
    return rc;
}
