#include "agent/api/kv_encode.h"

#include "agent/api/protowire.h"

/* Field numbers: proto/etcd.proto, proto/mvcc.proto. The header is field 1 of every answer. */
enum { HEADER = 1 };
enum { RANGE_KVS = 2, RANGE_MORE = 3, RANGE_COUNT = 4 };
enum { PUT_PREV = 2 };
enum { DELETE_DELETED = 2, DELETE_PREV = 3 };
enum { TXN_SUCCEEDED = 2, TXN_RESPONSES = 3 };
enum { OP_RANGE = 1, OP_PUT = 2, OP_DELETE = 3, OP_TXN = 4 };

static size_t header_size(const struct hw_header *h)
{
    return hw_pb_uint_size(h->cluster_id) + hw_pb_uint_size(h->member_id) + hw_pb_uint_size((uint64_t)h->revision) +
           hw_pb_uint_size(h->raft_term);
}

void hw_encode_header(struct hw_buf *out, const struct hw_header *h)
{
    hw_pb_begin_message(out, HEADER, header_size(h));
    hw_pb_put_uint(out, 1, h->cluster_id);
    hw_pb_put_uint(out, 2, h->member_id);
    hw_pb_put_uint(out, 3, (uint64_t)h->revision);
    hw_pb_put_uint(out, 4, h->raft_term);
}

static size_t kv_size(const struct hw_version *v, bool keys_only)
{
    return hw_pb_bytes_size(v->key->len) + hw_pb_uint_size((uint64_t)v->create_main) +
           hw_pb_uint_size((uint64_t)v->mod_main) + hw_pb_uint_size((uint64_t)v->version) +
           hw_pb_bytes_size(keys_only ? 0 : v->value_len) + hw_pb_uint_size((uint64_t)v->lease);
}

static void put_kv(struct hw_buf *out, unsigned field, const struct hw_version *v, bool keys_only)
{
    size_t size = kv_size(v, keys_only);
    if (hw_buf_reserve(out, hw_pb_message_size(size)) != 0) {
        return;
    }
    hw_pb_begin_message(out, field, size);
    hw_pb_put_bytes(out, 1, hw_slice_of(v->key->data, v->key->len));
    hw_pb_put_uint(out, 2, (uint64_t)v->create_main);
    hw_pb_put_uint(out, 3, (uint64_t)v->mod_main);
    hw_pb_put_uint(out, 4, (uint64_t)v->version);
    hw_pb_put_bytes(out, 5, hw_slice_of(v->value, keys_only ? 0 : v->value_len));
    hw_pb_put_uint(out, 6, (uint64_t)v->lease);
}

void hw_encode_kv(struct hw_buf *out, unsigned field, const struct hw_version *v)
{
    put_kv(out, field, v, false);
}

size_t hw_encode_kv_size(const struct hw_version *v)
{
    return kv_size(v, false);
}

static size_t kvs_size(struct hw_version *const *kvs, size_t count, bool keys_only)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += hw_pb_message_size(kv_size(kvs[i], keys_only));
    }
    return size;
}

static void put_kvs(struct hw_buf *out, unsigned field, struct hw_version *const *kvs, size_t count, bool keys_only)
{
    for (size_t i = 0; i < count && !out->failed; i++) {
        put_kv(out, field, kvs[i], keys_only);
    }
}

void hw_encode_range_begin(struct hw_buf *out, const struct hw_header *header)
{
    hw_encode_header(out, header);
}

void hw_encode_range_kvs(struct hw_buf *out, struct hw_version *const *kvs, size_t count, bool keys_only)
{
    put_kvs(out, RANGE_KVS, kvs, count, keys_only);
}

void hw_encode_range_end(struct hw_buf *out, bool more, int64_t count)
{
    hw_pb_put_uint(out, RANGE_MORE, more);
    hw_pb_put_uint(out, RANGE_COUNT, (uint64_t)count);
}

static size_t put_size(const struct hw_header *header, const struct hw_version *previous)
{
    size_t size = hw_pb_message_size(header_size(header));
    return previous == NULL ? size : size + hw_pb_message_size(kv_size(previous, false));
}

void hw_encode_put(struct hw_buf *out, const struct hw_header *header, const struct hw_version *previous)
{
    hw_encode_header(out, header);
    if (previous != NULL) {
        put_kv(out, PUT_PREV, previous, false);
    }
}

static size_t delete_size(const struct hw_header *header, int64_t deleted, struct hw_version *const *previous,
                          size_t count)
{
    return hw_pb_message_size(header_size(header)) + hw_pb_uint_size((uint64_t)deleted) +
           kvs_size(previous, count, false);
}

void hw_encode_delete(struct hw_buf *out, const struct hw_header *header, int64_t deleted,
                      struct hw_version *const *previous, size_t count)
{
    hw_encode_header(out, header);
    hw_pb_put_uint(out, DELETE_DELETED, (uint64_t)deleted);
    put_kvs(out, DELETE_PREV, previous, count, false);
}

/* The bytes of one operation's own answer, without the ResponseOp around it. */
static size_t op_size(const struct hw_header *inner, const struct hw_op_result *op)
{
    switch (op->type) {
    case HW_OP_RANGE:
        return hw_pb_message_size(header_size(inner)) +
               kvs_size(op->range.kvs, op->range.kv_count, op->range.keys_only) + hw_pb_uint_size(op->range.more) +
               hw_pb_uint_size((uint64_t)op->range.count);
    case HW_OP_PUT:
        return put_size(inner, op->range.kv_count > 0 ? op->range.kvs[0] : NULL);
    case HW_OP_DELETE:
        return delete_size(inner, op->range.count, op->range.kvs, op->range.kv_count);
    case HW_OP_TXN:
        return hw_encode_txn_size(inner, op->txn);
    }
    hw_unreachable();
}

size_t hw_encode_txn_size(const struct hw_header *header, const struct hw_txn_result *txn)
{
    struct hw_header inner = {.revision = header->revision};
    size_t size = hw_pb_message_size(header_size(header)) + hw_pb_uint_size(txn->succeeded);
    for (size_t i = 0; i < txn->op_count; i++) {
        size += hw_pb_message_size(hw_pb_message_size(op_size(&inner, &txn->ops[i])));
    }
    return size;
}

static const unsigned op_fields[] = {
    [HW_OP_RANGE] = OP_RANGE, [HW_OP_PUT] = OP_PUT, [HW_OP_DELETE] = OP_DELETE, [HW_OP_TXN] = OP_TXN};

static void put_op(struct hw_buf *out, const struct hw_header *inner, const struct hw_op_result *op)
{
    size_t size = op_size(inner, op);
    hw_pb_begin_message(out, TXN_RESPONSES, hw_pb_message_size(size));
    hw_pb_begin_message(out, op_fields[op->type], size);
    switch (op->type) {
    case HW_OP_RANGE:
        hw_encode_range_begin(out, inner);
        hw_encode_range_kvs(out, op->range.kvs, op->range.kv_count, op->range.keys_only);
        hw_encode_range_end(out, op->range.more, op->range.count);
        break;
    case HW_OP_PUT:
        hw_encode_put(out, inner, op->range.kv_count > 0 ? op->range.kvs[0] : NULL);
        break;
    case HW_OP_DELETE:
        hw_encode_delete(out, inner, op->range.count, op->range.kvs, op->range.kv_count);
        break;
    case HW_OP_TXN:
        hw_encode_txn(out, inner, op->txn);
        break;
    }
}

void hw_encode_txn(struct hw_buf *out, const struct hw_header *header, const struct hw_txn_result *txn)
{
    struct hw_header inner = {.revision = header->revision};
    hw_encode_header(out, header);
    hw_pb_put_uint(out, TXN_SUCCEEDED, txn->succeeded);
    for (size_t i = 0; i < txn->op_count && !out->failed; i++) {
        put_op(out, &inner, &txn->ops[i]);
    }
}

/* ---- in pieces ---- */

enum { LENGTH_BYTES = 5 };

static void put_length(uint8_t *at, size_t len)
{
    for (int i = 0; i < LENGTH_BYTES; i++) {
        at[i] = (uint8_t)((len >> (7 * i) & 0x7f) | (i < LENGTH_BYTES - 1 ? 0x80 : 0));
    }
}

static void begin_open_message(struct hw_buf *out, unsigned field)
{
    static const uint8_t room[LENGTH_BYTES];
    hw_buf_put_u8(out, hw_pb_tag(field, HW_PB_BYTES));
    hw_buf_append(out, room, sizeof room);
}

void hw_encode_txn_begin(struct hw_buf *out, const struct hw_header *header, bool succeeded)
{
    hw_encode_header(out, header);
    hw_pb_put_uint(out, TXN_SUCCEEDED, succeeded);
}

void hw_encode_op(struct hw_buf *out, const struct hw_header *header, const struct hw_op_result *op)
{
    put_op(out, header, op);
}

size_t hw_encode_op_begin(struct hw_buf *out, enum hw_op_type type)
{
    begin_open_message(out, TXN_RESPONSES);
    begin_open_message(out, op_fields[type]);
    return out->len;
}

void hw_encode_op_end(struct hw_buf *out, size_t begin)
{
    if (!out->failed) {
        put_length(out->data + begin - LENGTH_BYTES, out->len - begin);
        put_length(out->data + begin - 2 * LENGTH_BYTES - 1, out->len - begin + LENGTH_BYTES + 1);
    }
}
