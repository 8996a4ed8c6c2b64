#include "tests/unit/storage/hot/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"

#define LEAVES_MAX 512

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct mkey *)a)->name, ((const struct mkey *)b)->name);
}

void model_init(struct model *m)
{
    memset(m, 0, sizeof *m);
    m->revision = 1;
    /* Some names are prefixes of others: that is where orders go wrong. */
    for (int i = 0; i < MODEL_KEYS; i++) {
        snprintf(m->keys[i].name, sizeof m->keys[i].name,
                 i % 3 == 0   ? "%c"
                 : i % 3 == 1 ? "%c%c"
                              : "%c%c0",
                 'a' + i / 3, 'a' + i % 5);
    }
    qsort(m->keys, MODEL_KEYS, sizeof m->keys[0], compare_names);
}

void model_free(struct model *m)
{
    for (int i = 0; i < MODEL_KEYS; i++) {
        free(m->keys[i].at);
    }
}

static struct mkey *model_key(struct model *m, struct hw_slice key)
{
    for (int i = 0; i < MODEL_KEYS; i++) {
        if (hw_slice_is_equal(hw_slice_str(m->keys[i].name), key)) {
            return &m->keys[i];
        }
    }
    return NULL;
}

static const struct mversion *model_as_of(const struct mkey *k, hw_rev rev)
{
    for (size_t i = k->count; i > 0; i--) {
        if (k->at[i - 1].main <= rev) {
            return k->at[i - 1].is_tombstone ? NULL : &k->at[i - 1];
        }
    }
    return NULL;
}

static bool is_within(const struct mkey *k, struct hw_slice key, struct hw_slice end)
{
    struct hw_slice name = hw_slice_str(k->name);
    if (end.len == 0) {
        return hw_slice_is_equal(name, key);
    }
    return hw_slice_cmp(name, key) >= 0 && ((end.len == 1 && end.data[0] == 0) || hw_slice_cmp(name, end) < 0);
}

static void model_write(struct model *m, struct mkey *k, const struct mversion *v)
{
    struct hw_key_name *name = hw_key_name_new(hw_slice_str(k->name));
    struct hw_version *real = hw_version_new(name, hw_slice_of(v->value, v->value_len));
    struct mversion *mine;
    if (k->count == k->cap) {
        k->cap = k->cap == 0 ? 16 : k->cap * 2;
        k->at = realloc(k->at, k->cap * sizeof k->at[0]);
    }
    mine = &k->at[k->count++];
    *mine = *v;
    mine->main = m->revision + 1;
    mine->sub = m->sub++;
    if (!v->is_tombstone && v->version == 1) {
        mine->create = mine->main;
    }
    real->mod_main = mine->main;
    real->mod_sub = mine->sub;
    real->create_main = mine->create;
    real->version = mine->version;
    real->lease = mine->lease;
    real->is_tombstone = mine->is_tombstone;
    mine->hash = hw_version_hash(real);
    hw_version_unref(real);
    hw_key_name_unref(name);
}

static void model_version_text(struct hw_buf *out, const struct mkey *k, const struct mversion *v, bool keys_only)
{
    hw_buf_append_str(out, k->name);
    if (!keys_only) {
        hw_buf_append_str(out, "=");
        hw_buf_append(out, v->value, v->value_len);
    }
    hw_buf_printf(out, "(%" PRId64 ",%" PRId64 ",%" PRId64 ")", v->create, v->main, v->version);
    if (v->lease != 0) {
        hw_buf_printf(out, "~%" PRId64, v->lease);
    }
    hw_buf_append_str(out, " ");
}

static int64_t sort_number(const struct mversion *v, enum hw_sort_target target)
{
    return target == HW_BY_VERSION ? v->version : target == HW_BY_CREATE ? v->create : v->main;
}

static int sort_order(const struct mkey *ka, const struct mversion *a, const struct mkey *kb, const struct mversion *b,
                      const struct hw_range *r)
{
    int c;
    if (r->sort_target == HW_BY_KEY) {
        c = strcmp(ka->name, kb->name);
    } else if (r->sort_target == HW_BY_VALUE) {
        c = hw_slice_cmp(hw_slice_of(a->value, a->value_len), hw_slice_of(b->value, b->value_len));
    } else {
        int64_t na = sort_number(a, r->sort_target);
        int64_t nb = sort_number(b, r->sort_target);
        c = na < nb ? -1 : na > nb;
    }
    return r->sort_order == HW_SORT_DESCEND ? -c : c;
}

/* Appends what a range answers at `rev`. */
void model_range(struct model *m, const struct hw_range *r, hw_rev rev, struct hw_buf *out)
{
    const struct mkey *keys[MODEL_KEYS];
    const struct mversion *kvs[MODEL_KEYS];
    bool is_filtered = r->min_mod != 0 || r->max_mod != 0 || r->min_create != 0 || r->max_create != 0;
    bool is_early_cut = r->sort_order == HW_SORT_NONE && !is_filtered && r->limit > 0;
    size_t n = 0;
    int64_t count = 0;
    bool more = false;
    for (int i = 0; i < MODEL_KEYS; i++) {
        const struct mversion *v = model_as_of(&m->keys[i], rev);
        if (v == NULL || !is_within(&m->keys[i], r->key, r->range_end)) {
            continue;
        }
        count++;
        if (r->count_only || (is_early_cut && (int64_t)n > r->limit) || (r->min_mod != 0 && v->main < r->min_mod) ||
            (r->max_mod != 0 && v->main > r->max_mod) || (r->min_create != 0 && v->create < r->min_create) ||
            (r->max_create != 0 && v->create > r->max_create)) {
            continue;
        }
        keys[n] = &m->keys[i];
        kvs[n++] = v;
    }
    for (size_t i = 1; i < n; i++) {
        for (size_t j = i; j > 0 && sort_order(keys[j - 1], kvs[j - 1], keys[j], kvs[j], r) > 0; j--) {
            const struct mkey *k = keys[j];
            const struct mversion *v = kvs[j];
            keys[j] = keys[j - 1];
            kvs[j] = kvs[j - 1];
            keys[j - 1] = k;
            kvs[j - 1] = v;
        }
    }
    if (r->limit > 0 && n > (uint64_t)r->limit) {
        n = (size_t)r->limit;
        more = true;
    }
    for (size_t i = 0; i < n; i++) {
        model_version_text(out, keys[i], kvs[i], r->keys_only);
    }
    hw_buf_printf(out, "/%" PRId64 "%s;", count, more ? "+" : "");
}

uint64_t model_hash(struct model *m, hw_rev rev)
{
    uint64_t hash = 0;
    for (int i = 0; i < MODEL_KEYS; i++) {
        struct mkey *k = &m->keys[i];
        for (size_t j = 0; j < k->count && k->at[j].main <= rev; j++) {
            bool is_newest_below = j + 1 == k->count || k->at[j + 1].main > m->compacted;
            bool is_reachable = k->at[j].main >= m->compacted || (is_newest_below && !k->at[j].is_tombstone);
            hash += is_reachable ? k->at[j].hash : 0;
        }
    }
    return hash;
}

/* ---- transactions in the model ---- */

/* A leaf operation and the way to it: which branch and which place in it, from the outermost transaction in. */
struct leaf {
    const struct hw_op *op;
    struct {
        int branch;
        size_t place;
    } way[HW_TXN_DEPTH_MAX];
    size_t depth;
};

struct leaves {
    struct leaf at[LEAVES_MAX];
    size_t count;
};

static void collect_leaves(struct leaves *all, const struct hw_txn *txn, struct leaf *prefix)
{
    for (int branch = 0; branch < 2; branch++) {
        const struct hw_op *ops = branch == 0 ? txn->success : txn->failure;
        size_t count = branch == 0 ? txn->success_count : txn->failure_count;
        for (size_t i = 0; i < count; i++) {
            struct leaf leaf = *prefix;
            leaf.op = &ops[i];
            leaf.way[leaf.depth].branch = branch;
            leaf.way[leaf.depth].place = i;
            leaf.depth++;
            if (ops[i].type == HW_OP_TXN) {
                collect_leaves(all, ops[i].txn, &leaf);
            } else {
                hw_assert(all->count < LEAVES_MAX);
                all->at[all->count++] = leaf;
            }
        }
    }
}

static bool is_put_in_delete(const struct hw_op *put, const struct hw_op *del)
{
    struct mkey k = {0};
    memcpy(k.name, put->put.key.data, put->put.key.len);
    return is_within(&k, del->del.key, del->del.range_end);
}

/* The rule of shape.c's comment, pair by pair. */
static bool is_conflict(const struct leaf *a, const struct leaf *b)
{
    size_t d = 0;
    const struct leaf *del = a->op->type == HW_OP_DELETE ? a : b;
    const struct leaf *put = a->op->type == HW_OP_DELETE ? b : a;
    while (a->way[d].branch == b->way[d].branch && a->way[d].place == b->way[d].place) {
        d++;
    }
    if (a->way[d].branch != b->way[d].branch || put->op->type != HW_OP_PUT) {
        return false;
    }
    if (del->op->type == HW_OP_PUT) {
        return hw_slice_is_equal(a->op->put.key, b->op->put.key);
    }
    if (del->op->type != HW_OP_DELETE || !is_put_in_delete(put->op, del->op)) {
        return false;
    }
    return del->depth == d + 1 || put->depth == d + 1 || del->way[d].place < put->way[d].place;
}

static bool has_duplicate(const struct hw_txn *txn)
{
    static struct leaves all;
    struct leaf none = {0};
    all.count = 0;
    collect_leaves(&all, txn, &none);
    for (size_t i = 0; i < all.count; i++) {
        for (size_t j = i + 1; j < all.count; j++) {
            if (is_conflict(&all.at[i], &all.at[j])) {
                return true;
            }
        }
    }
    return false;
}

static bool is_true(const struct hw_compare *c, const struct mversion *v)
{
    int64_t number = 0;
    int order;
    if (c->target == HW_CMP_VALUE) {
        if (v == NULL) {
            return false;
        }
        order = hw_slice_cmp(hw_slice_of(v->value, v->value_len), c->value);
    } else {
        if (v != NULL) {
            number = c->target == HW_CMP_VERSION  ? v->version
                     : c->target == HW_CMP_CREATE ? v->create
                     : c->target == HW_CMP_LEASE  ? v->lease
                                                  : v->main;
        }
        order = number < c->number ? -1 : number > c->number;
    }
    return c->result == HW_CMP_EQUAL       ? order == 0
           : c->result == HW_CMP_NOT_EQUAL ? order != 0
           : c->result == HW_CMP_GREATER   ? order > 0
                                           : order < 0;
}

static bool have_compares_held(struct model *m, const struct hw_txn *txn, hw_rev rev)
{
    for (size_t i = 0; i < txn->compare_count; i++) {
        const struct hw_compare *c = &txn->compares[i];
        bool is_empty = true;
        for (int j = 0; j < MODEL_KEYS; j++) {
            const struct mversion *v = model_as_of(&m->keys[j], rev);
            if (v == NULL || !is_within(&m->keys[j], c->key, c->range_end)) {
                continue;
            }
            is_empty = false;
            if (!is_true(c, v)) {
                return false;
            }
        }
        if (is_empty && !is_true(c, NULL)) {
            return false;
        }
    }
    return true;
}

static bool has_lease(struct model *m, int64_t id)
{
    return id == 0 || (id <= MODEL_LEASES && m->leases[id - 1].is_there);
}

static int model_check(struct model *m, const struct hw_txn *txn)
{
    bool ok = have_compares_held(m, txn, m->revision);
    const struct hw_op *ops = ok ? txn->success : txn->failure;
    size_t count = ok ? txn->success_count : txn->failure_count;
    int code = 0;
    for (size_t i = 0; i < count && code == 0; i++) {
        const struct hw_op *op = &ops[i];
        if (op->type == HW_OP_TXN) {
            code = model_check(m, op->txn);
        } else if (op->type == HW_OP_RANGE && op->range.revision > 0) {
            code = op->range.revision > m->revision    ? HW_ERR_FUTURE
                   : op->range.revision < m->compacted ? HW_ERR_COMPACTED
                                                       : 0;
        } else if (op->type == HW_OP_PUT) {
            bool is_there = model_as_of(model_key(m, op->put.key), m->revision) != NULL;
            code = (op->put.ignore_value || op->put.ignore_lease) && !is_there ? HW_ERR_NOTFOUND
                   : !has_lease(m, op->put.lease)                              ? HW_ERR_PRECONDITION
                                                                               : 0;
        }
    }
    return code;
}

static void model_put(struct model *m, const struct hw_put *put, struct hw_buf *out)
{
    struct mkey *k = model_key(m, put->key);
    const struct mversion *before = model_as_of(k, INT64_MAX);
    struct mversion v = {.version = 1};
    if (before != NULL) {
        v = *before;
        v.version++;
        if (put->prev_kv) {
            model_version_text(out, k, before, false);
        }
    }
    if (!put->ignore_lease) {
        v.lease = put->lease;
    }
    if (!put->ignore_value) {
        v.value_len = (uint8_t)put->value.len;
        memcpy(v.value, put->value.data, put->value.len);
    }
    model_write(m, k, &v);
    hw_buf_append_str(out, "/0;");
}

static void model_delete(struct model *m, const struct hw_delete *del, struct hw_buf *out)
{
    struct mversion tombstone = {.is_tombstone = true};
    int deleted = 0;
    for (int i = 0; i < MODEL_KEYS; i++) {
        const struct mversion *before = model_as_of(&m->keys[i], INT64_MAX);
        if (before == NULL || !is_within(&m->keys[i], del->key, del->range_end)) {
            continue;
        }
        if (del->prev_kv) {
            model_version_text(out, &m->keys[i], before, false);
        }
        deleted++;
        model_write(m, &m->keys[i], &tombstone);
    }
    hw_buf_printf(out, "/%d;", deleted);
}

static void model_run(struct model *m, const struct hw_txn *txn, struct hw_buf *out)
{
    bool ok = have_compares_held(m, txn, m->revision); /* of the state before, however deep */
    const struct hw_op *ops = ok ? txn->success : txn->failure;
    size_t count = ok ? txn->success_count : txn->failure_count;
    hw_buf_append_str(out, ok ? "then[" : "else[");
    for (size_t i = 0; i < count; i++) {
        const struct hw_op *op = &ops[i];
        struct hw_buf one = {0};
        hw_rev rev;
        if (op->type == HW_OP_RANGE) {
            model_range(m, &op->range, op->range.revision > 0 ? op->range.revision : INT64_MAX, &one);
        } else if (op->type == HW_OP_PUT) {
            model_put(m, &op->put, &one);
        } else if (op->type == HW_OP_DELETE) {
            model_delete(m, &op->del, &one);
        } else {
            model_run(m, op->txn, &one);
        }
        rev = op->type == HW_OP_TXN ? 0 : m->revision + (m->sub > 0);
        hw_buf_printf(out, "%c%" PRId64 ":", "?RPDT"[op->type], rev);
        hw_buf_append(out, one.data, one.len);
        hw_buf_free(&one);
    }
    hw_buf_append_str(out, "]");
}

int model_txn(struct model *m, const struct hw_txn *txn, struct hw_buf *out)
{
    int code = has_duplicate(txn) ? HW_ERR_INVALID : model_check(m, txn);
    if (code == 0) {
        m->sub = 0;
        model_run(m, txn, out);
        m->revision += m->sub > 0;
    }
    return code;
}

int model_grant(struct model *m, int64_t id, int64_t ttl_s)
{
    if (has_lease(m, id)) {
        return HW_ERR_EXISTS;
    }
    m->leases[id - 1] = (struct mlease){.is_there = true, .ttl_s = ttl_s};
    return 0;
}

int model_revoke(struct model *m, int64_t id)
{
    struct mversion tombstone = {.is_tombstone = true};
    if (!has_lease(m, id)) {
        return HW_ERR_NOTFOUND;
    }
    m->sub = 0;
    for (int i = 0; i < MODEL_KEYS; i++) {
        const struct mversion *v = model_as_of(&m->keys[i], INT64_MAX);
        if (v != NULL && v->lease == id) {
            model_write(m, &m->keys[i], &tombstone);
        }
    }
    m->revision += m->sub > 0;
    m->leases[id - 1].is_there = false;
    return 0;
}

void model_remaining(struct model *m, const struct hw_lease_remaining *leases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (has_lease(m, leases[i].id)) {
            struct mlease *lease = &m->leases[leases[i].id - 1];
            lease->remaining_s = leases[i].remaining_s < lease->ttl_s ? leases[i].remaining_s : lease->ttl_s;
        }
    }
}

void model_lease_text(struct model *m, int64_t id, struct hw_buf *out)
{
    const struct mlease *lease = &m->leases[id - 1];
    int count = 0;
    if (!lease->is_there) {
        hw_buf_append_str(out, "NOTFOUND");
        return;
    }
    for (int i = 0; i < MODEL_KEYS; i++) {
        const struct mversion *v = model_as_of(&m->keys[i], INT64_MAX);
        if (v != NULL && v->lease == id) {
            hw_buf_printf(out, "%s ", m->keys[i].name);
            count++;
        }
    }
    hw_buf_printf(out, "/%d %" PRId64, count, lease->ttl_s);
    if (lease->remaining_s != 0) {
        hw_buf_printf(out, ",%" PRId64, lease->remaining_s);
    }
    hw_buf_append_str(out, "s");
}
