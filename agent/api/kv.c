/* etcdserverpb.KV: Range, Put, DeleteRange, Txn, Compact.
 *
 * Writes run on the hot node, as one command through the log. Reads are answered by every node: serializable ones at
 * once, others when the state here is known to be current (range.h: in slices, so that long ones delay nobody).
 */
#include "agent/api/api_impl.h"
#include "agent/api/txn.h"
#include "agent/api/txn_answer.h"
#include "agent/base/clock.h"

/* ---- Range ---- */

static void handle_range(struct hw_exchange *x)
{
    Etcdserverpb__RangeRequest *m = hw_exchange_unpack(x, &etcdserverpb__range_request__descriptor);
    struct hw_range range;
    enum hw_refusal refusal;
    if (m == NULL) {
        return;
    }
    if (!hw_range_convert(m, &range, &refusal)) {
        hw_exchange_refuse(x, refusal);
    } else if (m->serializable) {
        hw_range_answer(x);
    } else {
        hw_exchange_read(x, hw_range_answer);
    }
}

/* ---- writes ---- */

static void answer_put(struct hw_exchange *x, const struct hw_result *result)
{
    struct hw_header header = hw_exchange_header(x, result->revision);
    struct hw_buf *out = hw_exchange_out(x);
    const struct hw_op_result *op = &result->txn.ops[0];
    hw_encode_put(out, &header, op->range.kv_count > 0 ? op->range.kvs[0] : NULL);
    hw_exchange_ok_out(x, out);
}

static void answer_delete(struct hw_exchange *x, const struct hw_result *result)
{
    struct hw_header header = hw_exchange_header(x, result->revision);
    struct hw_buf *out = hw_exchange_out(x);
    const struct hw_op_result *op = &result->txn.ops[0];
    hw_encode_delete(out, &header, op->range.count, op->range.kvs, op->range.kv_count);
    hw_exchange_ok_out(x, out);
}

static void answer_txn(struct hw_exchange *x, const struct hw_result *result)
{
    struct hw_result mine;
    (void)result;
    hw_write_take_result(&x->work.write, &mine);
    hw_txn_answer(x, &mine);
}

static void answer_compact(struct hw_exchange *x, const struct hw_result *result)
{
    struct hw_header header = hw_exchange_header(x, result->revision);
    struct hw_buf *out = hw_exchange_out(x);
    hw_encode_header(out, &header);
    hw_exchange_ok_out(x, out);
}

static void write_one(struct hw_exchange *x, struct hw_op *op,
                      void (*answer)(struct hw_exchange *x, const struct hw_result *result))
{
    struct hw_cmd cmd = {.type = HW_CMD_TXN, .wall_ms = hw_wall_ms(), .txn = {.success = op, .success_count = 1}};
    hw_exchange_write(x, &cmd, answer);
}

static void handle_put(struct hw_exchange *x)
{
    Etcdserverpb__PutRequest *m = hw_exchange_unpack(x, &etcdserverpb__put_request__descriptor);
    struct hw_op op = {.type = HW_OP_PUT};
    enum hw_refusal refusal;
    if (m == NULL) {
        return;
    }
    if (!hw_put_convert(m, &op.put, &refusal)) {
        hw_exchange_refuse(x, refusal);
        return;
    }
    if (!hw_replica_may_grow(x->api->replica)) {
        hw_exchange_refuse(x, HW_REFUSE_NO_SPACE);
        return;
    }
    write_one(x, &op, answer_put);
}

static void handle_delete(struct hw_exchange *x)
{
    Etcdserverpb__DeleteRangeRequest *m = hw_exchange_unpack(x, &etcdserverpb__delete_range_request__descriptor);
    struct hw_op op = {.type = HW_OP_DELETE};
    enum hw_refusal refusal;
    if (m == NULL) {
        return;
    }
    if (!hw_delete_convert(m, &op.del, &refusal)) {
        hw_exchange_refuse(x, refusal);
        return;
    }
    write_one(x, &op, answer_delete);
}

/* `physical` asks to wait until the space is free. The versions become unreachable when the command is applied; memory
 * is freed in the background within moments, and the image's rows after that: the answer does not wait for either. */
static void handle_compact(struct hw_exchange *x)
{
    Etcdserverpb__CompactionRequest *m = hw_exchange_unpack(x, &etcdserverpb__compaction_request__descriptor);
    struct hw_cmd cmd = {.type = HW_CMD_COMPACT, .wall_ms = hw_wall_ms()};
    if (m == NULL) {
        return;
    }
    cmd.compact = m->revision;
    hw_exchange_write(x, &cmd, answer_compact);
}

/* ---- Txn ---- */

/* NULL: refused already. Valid until the arena's next reset. */
static Etcdserverpb__TxnRequest *txn_read(struct hw_exchange *x, struct hw_txn *txn)
{
    enum hw_refusal refusal;
    struct hw_error e = {0};
    Etcdserverpb__TxnRequest *m;
    if (!hw_txn_is_unpackable(hw_buf_slice(&x->request), &refusal)) {
        hw_exchange_refuse(x, refusal);
        return NULL;
    }
    m = hw_exchange_unpack(x, &etcdserverpb__txn_request__descriptor);
    if (m == NULL) {
        return NULL;
    }
    if (!hw_txn_convert(m, &x->api->arena, txn, &refusal)) {
        hw_exchange_refuse(x, refusal);
        return NULL;
    }
    if (hw_hot_check_txn(txn, x->api->config.txn_ops_max, &e) != 0) {
        hw_exchange_fail(x, hw_grpc_of_err(e.code), hw_error_text(&e));
        return NULL;
    }
    return m;
}

static void txn_answer_here(struct hw_exchange *x)
{
    struct hw_txn txn;
    struct hw_result result;
    int rc;
    if (txn_read(x, &txn) == NULL) {
        return;
    }
    if (hw_hot_check_compares(hw_replica_hot(x->api->replica), &txn) != 0) {
        hw_exchange_refuse(x, HW_REFUSE_COMPARE_TOO_LARGE);
        return;
    }
    hw_result_init(&result);
    rc = hw_hot_read_txn(hw_replica_hot(x->api->replica), &txn, &result);
    if (rc != 0) {
        hw_exchange_refuse(x, hw_refusal_of_status(rc));
    } else if (result.code != 0) {
        hw_exchange_refuse(x, hw_refusal_of_result(result.code));
    } else {
        hw_txn_answer(x, &result);
        return;
    }
    hw_result_free(&result);
}

/* Transactions were checked to nest at most HW_TXN_DEPTH_MAX deep. */
static bool has_put(const struct hw_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct hw_txn *inner = ops[i].type == HW_OP_TXN ? ops[i].txn : NULL;
        if (ops[i].type == HW_OP_PUT || (inner != NULL && (has_put(inner->success, inner->success_count) ||
                                                           has_put(inner->failure, inner->failure_count)))) {
            return true;
        }
    }
    return false;
}

static void txn_write(struct hw_exchange *x, const struct hw_cmd *cmd)
{
    const struct hw_txn *txn = &cmd->txn;
    struct hw_hot *hot = hw_replica_hot(x->api->replica);
    bool may_grow = hw_replica_may_grow(x->api->replica);
    int code;
    if (!may_grow && (has_put(txn->success, txn->success_count) || has_put(txn->failure, txn->failure_count))) {
        hw_exchange_refuse(x, HW_REFUSE_NO_SPACE);
    } else if (hw_hot_check_compares(hot, txn) != 0) {
        hw_exchange_refuse(x, HW_REFUSE_COMPARE_TOO_LARGE);
    } else if ((code = hw_hot_check_reads(hot, txn)) != 0) {
        hw_exchange_refuse(x, code == HW_ERR_COMPACTED ? HW_REFUSE_COMPACTED : HW_REFUSE_FUTURE);
    } else {
        hw_exchange_write(x, cmd, answer_txn);
    }
}

static void handle_txn(struct hw_exchange *x)
{
    struct hw_cmd cmd = {.type = HW_CMD_TXN, .wall_ms = hw_wall_ms()};
    Etcdserverpb__TxnRequest *m = txn_read(x, &cmd.txn);
    if (m == NULL) {
        return;
    }
    if (!hw_txn_is_readonly(&cmd.txn)) {
        if (hw_exchange_try_here(x)) {
            txn_write(x, &cmd);
        }
    } else if (hw_txn_is_serializable(m)) {
        txn_answer_here(x);
    } else {
        hw_exchange_read(x, txn_answer_here);
    }
}

const struct hw_service_method hw_kv_methods[] = {
    {"/etcdserverpb.KV/Range", handle_range, HW_METHOD_REPLICA, 0},
    {"/etcdserverpb.KV/Put", handle_put, HW_METHOD_HOT | HW_METHOD_FORWARDED, 0},
    {"/etcdserverpb.KV/DeleteRange", handle_delete, HW_METHOD_HOT | HW_METHOD_FORWARDED, 0},
    {"/etcdserverpb.KV/Txn", handle_txn, HW_METHOD_REPLICA | HW_METHOD_FORWARDED, 0},
    {"/etcdserverpb.KV/Compact", handle_compact, HW_METHOD_HOT | HW_METHOD_FORWARDED, 0},
};
const size_t hw_kv_method_count = hw_array_len(hw_kv_methods);
