#include "agent/api/txn.h"

#include "agent/api/protowire.h"

static bool refuse(enum hw_refusal *to, enum hw_refusal refusal)
{
    *to = refusal;
    return false;
}

static struct hw_slice slice_of(ProtobufCBinaryData b)
{
    return hw_slice_of(b.data, b.len);
}

/* ---- before unpacking ---- */

/* Field numbers of TxnRequest and RequestOp, proto/etcd.proto. */
enum { TXN_SUCCESS = 2, TXN_FAILURE = 3, OP_TXN = 4 };

static bool scan_txn(struct hw_slice message, unsigned depth, size_t *parts, enum hw_refusal *refusal);

static bool scan_op(struct hw_slice message, unsigned depth, size_t *parts, enum hw_refusal *refusal)
{
    struct hw_reader r;
    unsigned field;
    enum hw_pb_type type;
    uint64_t number;
    struct hw_slice bytes;
    hw_reader_init(&r, message.data, message.len);
    while (hw_protowire_next(&r, &field, &type, &number, &bytes)) {
        if (field == OP_TXN && type == HW_PB_BYTES && !scan_txn(bytes, depth + 1, parts, refusal)) {
            return false;
        }
    }
    return r.failed ? refuse(refusal, HW_REFUSE_MALFORMED) : true;
}

static bool scan_txn(struct hw_slice message, unsigned depth, size_t *parts, enum hw_refusal *refusal)
{
    struct hw_reader r;
    unsigned field;
    enum hw_pb_type type;
    uint64_t number;
    struct hw_slice bytes;
    if (depth > HW_TXN_DEPTH_MAX) {
        return refuse(refusal, HW_REFUSE_TXN_TOO_DEEP);
    }
    hw_reader_init(&r, message.data, message.len);
    while (hw_protowire_next(&r, &field, &type, &number, &bytes)) {
        /* Compares count too, and unknown fields: each costs memory to unpack. */
        if (++*parts > HW_TXN_OPS_HARD_MAX) {
            return refuse(refusal, HW_REFUSE_TOO_MANY_OPS);
        }
        if ((field == TXN_SUCCESS || field == TXN_FAILURE) && type == HW_PB_BYTES &&
            !scan_op(bytes, depth, parts, refusal)) {
            return false;
        }
    }
    return r.failed ? refuse(refusal, HW_REFUSE_MALFORMED) : true;
}

bool hw_txn_is_unpackable(struct hw_slice message, enum hw_refusal *refusal)
{
    size_t parts = 0;
    return scan_txn(message, 1, &parts, refusal);
}

/* ---- one request ---- */

bool hw_range_convert(const Etcdserverpb__RangeRequest *m, struct hw_range *range, enum hw_refusal *refusal)
{
    if (m->key.len == 0) {
        return refuse(refusal, HW_REFUSE_EMPTY_KEY);
    }
    if ((int)m->sort_order < HW_SORT_NONE || (int)m->sort_order > HW_SORT_DESCEND || (int)m->sort_target < HW_BY_KEY ||
        (int)m->sort_target > HW_BY_VALUE) {
        return refuse(refusal, HW_REFUSE_SORT_OPTION);
    }
    *range = (struct hw_range){
        .key = slice_of(m->key),
        .range_end = slice_of(m->range_end),
        .limit = m->limit,
        .revision = m->revision,
        .sort_order = (enum hw_sort_order)m->sort_order,
        .sort_target = (enum hw_sort_target)m->sort_target,
        .keys_only = m->keys_only,
        .count_only = m->count_only,
        .min_mod = m->min_mod_revision,
        .max_mod = m->max_mod_revision,
        .min_create = m->min_create_revision,
        .max_create = m->max_create_revision,
    };
    return true;
}

bool hw_put_convert(const Etcdserverpb__PutRequest *m, struct hw_put *put, enum hw_refusal *refusal)
{
    if (m->key.len == 0) {
        return refuse(refusal, HW_REFUSE_EMPTY_KEY);
    }
    if (m->ignore_value && m->value.len > 0) {
        return refuse(refusal, HW_REFUSE_VALUE_PROVIDED);
    }
    if (m->ignore_lease && m->lease != 0) {
        return refuse(refusal, HW_REFUSE_LEASE_PROVIDED);
    }
    *put = (struct hw_put){
        .key = slice_of(m->key),
        .value = slice_of(m->value),
        .lease = m->lease,
        .prev_kv = m->prev_kv,
        .ignore_value = m->ignore_value,
        .ignore_lease = m->ignore_lease,
    };
    return true;
}

bool hw_delete_convert(const Etcdserverpb__DeleteRangeRequest *m, struct hw_delete *del, enum hw_refusal *refusal)
{
    if (m->key.len == 0) {
        return refuse(refusal, HW_REFUSE_EMPTY_KEY);
    }
    *del = (struct hw_delete){.key = slice_of(m->key), .range_end = slice_of(m->range_end), .prev_kv = m->prev_kv};
    return true;
}

/* ---- transactions ---- */

/* A union that does not fit the target counts as that target's zero, as in etcd. */
static bool convert_compare(const Etcdserverpb__Compare *m, struct hw_compare *c, enum hw_refusal *refusal)
{
    Etcdserverpb__Compare__TargetUnionCase given = m->target_union_case;
    if ((int)m->result < HW_CMP_EQUAL || (int)m->result > HW_CMP_NOT_EQUAL || (int)m->target < HW_CMP_VERSION ||
        (int)m->target > HW_CMP_LEASE) {
        return refuse(refusal, HW_REFUSE_COMPARE_OPTION);
    }
    if (m->key.len == 0) {
        return refuse(refusal, HW_REFUSE_EMPTY_KEY);
    }
    *c = (struct hw_compare){
        .result = (enum hw_compare_result)m->result,
        .target = (enum hw_compare_target)m->target,
        .key = slice_of(m->key),
        .range_end = slice_of(m->range_end),
    };
    if (c->target == HW_CMP_VERSION && given == ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION) {
        c->number = m->version;
    } else if (c->target == HW_CMP_CREATE && given == ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION) {
        c->number = m->create_revision;
    } else if (c->target == HW_CMP_MOD && given == ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION) {
        c->number = m->mod_revision;
    } else if (c->target == HW_CMP_LEASE && given == ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE) {
        c->number = m->lease;
    } else if (c->target == HW_CMP_VALUE && given == ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE) {
        c->value = slice_of(m->value);
    }
    return true;
}

static bool convert_op(const Etcdserverpb__RequestOp *m, struct hw_arena *arena, struct hw_op *op,
                       enum hw_refusal *refusal)
{
    switch (m->request_case) {
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE:
        op->type = HW_OP_RANGE;
        return hw_range_convert(m->request_range, &op->range, refusal);
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT:
        op->type = HW_OP_PUT;
        return hw_put_convert(m->request_put, &op->put, refusal);
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE:
        op->type = HW_OP_DELETE;
        return hw_delete_convert(m->request_delete_range, &op->del, refusal);
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN:
        op->type = HW_OP_TXN;
        op->txn = hw_arena_alloc(arena, sizeof *op->txn);
        return op->txn == NULL ? refuse(refusal, HW_REFUSE_NO_MEMORY)
                               : hw_txn_convert(m->request_txn, arena, op->txn, refusal);
    default:
        return refuse(refusal, HW_REFUSE_KEY_NOT_FOUND); /* etcd's answer to an operation without a type */
    }
}

static bool convert_ops(Etcdserverpb__RequestOp **from, size_t count, struct hw_arena *arena, struct hw_op **ops,
                        enum hw_refusal *refusal)
{
    *ops = hw_arena_alloc(arena, count * sizeof **ops);
    if (*ops == NULL) {
        return refuse(refusal, HW_REFUSE_NO_MEMORY);
    }
    for (size_t i = 0; i < count; i++) {
        if (!convert_op(from[i], arena, &(*ops)[i], refusal)) {
            return false;
        }
    }
    return true;
}

bool hw_txn_convert(const Etcdserverpb__TxnRequest *m, struct hw_arena *arena, struct hw_txn *txn,
                    enum hw_refusal *refusal)
{
    *txn = (struct hw_txn){.compare_count = m->n_compare, .success_count = m->n_success, .failure_count = m->n_failure};
    txn->compares = hw_arena_alloc(arena, m->n_compare * sizeof *txn->compares);
    if (txn->compares == NULL) {
        return refuse(refusal, HW_REFUSE_NO_MEMORY);
    }
    for (size_t i = 0; i < m->n_compare; i++) {
        if (!convert_compare(m->compare[i], &txn->compares[i], refusal)) {
            return false;
        }
    }
    return convert_ops(m->success, m->n_success, arena, &txn->success, refusal) &&
           convert_ops(m->failure, m->n_failure, arena, &txn->failure, refusal);
}

static bool ops_are_readonly(const struct hw_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ops[i].type != HW_OP_RANGE && !(ops[i].type == HW_OP_TXN && hw_txn_is_readonly(ops[i].txn))) {
            return false;
        }
    }
    return true;
}

bool hw_txn_is_readonly(const struct hw_txn *txn)
{
    return ops_are_readonly(txn->success, txn->success_count) && ops_are_readonly(txn->failure, txn->failure_count);
}

static bool ops_are_serializable(Etcdserverpb__RequestOp *const *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ops[i]->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE
                ? !ops[i]->request_range->serializable
                : ops[i]->request_case != ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN ||
                      !hw_txn_is_serializable(ops[i]->request_txn)) {
            return false;
        }
    }
    return true;
}

bool hw_txn_is_serializable(const Etcdserverpb__TxnRequest *m)
{
    return ops_are_serializable(m->success, m->n_success) && ops_are_serializable(m->failure, m->n_failure);
}
