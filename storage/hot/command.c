/* The codec of command.h. What a decoder accepts has exactly one encoding: varints are minimal, flags have no unknown
 * bits, strings hold no NUL, nothing trails. So an accepted entry can be encoded again to the same bytes, and two nodes
 * that read one entry cannot understand it differently.
 *
 *     command  = format:u8 type:u8 wall_ms:u64 body
 *     txn      = n compare* n op* n op*                               (compares, success, failure; n: varint)
 *     compare  = result:u8 target:u8 key:bytes range_end:bytes (value:bytes | number:varint)
 *     op       = type:u8 (range | put | delete | txn)
 *     range    = flags:u8 order:u8 target:u8 key:bytes range_end:bytes limit revision min_mod max_mod min_create
 *                max_create                                           (varints of the two's complement)
 *     put      = flags:u8 key:bytes lease:varint value:bytes
 *     delete   = flags:u8 key:bytes range_end:bytes
 *     grant      = id:u64 ttl_s:varint
 *     revoke     = id:u64                                             (ids are random: a varint would be longer)
 *     checkpoint = n (id:u64 remaining_s:varint)*
 */
#include "storage/hot/command.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "storage/hot/lease.h"

enum { RANGE_KEYS_ONLY = 1, RANGE_COUNT_ONLY = 2, RANGE_FLAGS = 3 };
enum { PUT_PREV_KV = 1, PUT_IGNORE_VALUE = 2, PUT_IGNORE_LEASE = 4, PUT_FLAGS = 7 };
enum { DELETE_PREV_KV = 1, DELETE_FLAGS = 1 };

/* The shortest encodings: they bound a count by the bytes that are left, before anything is allocated. */
enum { COMPARE_BYTES_MIN = 5, OP_BYTES_MIN = 4, REMAINING_BYTES_MIN = 9 };

/* ---- encode ---- */

/* About what a put takes beside key and value. */
#define PUT_REST_BYTES 32

struct encoder {
    struct hw_buf *out;
    size_t ops_left;
    size_t compares_left;
    bool is_refused;
};

static void put_slice(struct encoder *c, struct hw_slice s)
{
    if (s.len > HW_BYTES_MAX) {
        c->is_refused = true;
        return;
    }
    hw_buf_put_bytes(c->out, s);
}

static void put_i64(struct encoder *c, int64_t v)
{
    hw_buf_put_varint(c->out, (uint64_t)v);
}

static void put_enum(struct encoder *c, unsigned v, unsigned end)
{
    if (v >= end) {
        c->is_refused = true;
    }
    hw_buf_put_u8(c->out, (uint8_t)v);
}

static void put_text(struct encoder *c, const char *text, size_t size)
{
    size_t len = strnlen(text, size);
    if (len == size) {
        c->is_refused = true;
        return;
    }
    hw_buf_put_bytes(c->out, hw_slice_of(text, len));
}

/* False when the list is longer than the budget. */
static bool put_count(struct encoder *c, size_t count, size_t *left)
{
    if (count > *left) {
        c->is_refused = true;
        return false;
    }
    *left -= count;
    hw_buf_put_varint(c->out, count);
    return true;
}

static void put_range(struct encoder *c, const struct hw_range *r)
{
    unsigned flags = (r->keys_only ? RANGE_KEYS_ONLY : 0) | (r->count_only ? RANGE_COUNT_ONLY : 0);
    hw_buf_put_u8(c->out, (uint8_t)flags);
    put_enum(c, r->sort_order, HW_SORT_DESCEND + 1);
    put_enum(c, r->sort_target, HW_BY_VALUE + 1);
    put_slice(c, r->key);
    put_slice(c, r->range_end);
    put_i64(c, r->limit);
    put_i64(c, r->revision);
    put_i64(c, r->min_mod);
    put_i64(c, r->max_mod);
    put_i64(c, r->min_create);
    put_i64(c, r->max_create);
}

static void put_put(struct encoder *c, const struct hw_put *p)
{
    unsigned flags = (p->prev_kv ? PUT_PREV_KV : 0) | (p->ignore_value ? PUT_IGNORE_VALUE : 0) |
                     (p->ignore_lease ? PUT_IGNORE_LEASE : 0);
    if (p->key.len <= HW_BYTES_MAX && p->value.len <= HW_BYTES_MAX) {
        hw_buf_reserve(c->out, p->key.len + p->value.len + PUT_REST_BYTES); /* one allocation for most commands */
    }
    hw_buf_put_u8(c->out, (uint8_t)flags);
    put_slice(c, p->key);
    put_i64(c, p->lease);
    put_slice(c, p->value);
}

static void put_compare(struct encoder *c, const struct hw_compare *cmp)
{
    put_enum(c, cmp->result, HW_CMP_NOT_EQUAL + 1);
    put_enum(c, cmp->target, HW_CMP_LEASE + 1);
    put_slice(c, cmp->key);
    put_slice(c, cmp->range_end);
    if (cmp->target == HW_CMP_VALUE) {
        put_slice(c, cmp->value);
    } else {
        put_i64(c, cmp->number);
    }
}

static void put_txn(struct encoder *c, const struct hw_txn *txn, unsigned depth);

static void put_ops(struct encoder *c, const struct hw_op *ops, size_t count, unsigned depth)
{
    if (!put_count(c, count, &c->ops_left)) {
        return;
    }
    for (size_t i = 0; i < count && !c->is_refused; i++) {
        const struct hw_op *op = &ops[i];
        hw_buf_put_u8(c->out, (uint8_t)op->type);
        switch (op->type) {
        case HW_OP_RANGE:
            put_range(c, &op->range);
            break;
        case HW_OP_PUT:
            put_put(c, &op->put);
            break;
        case HW_OP_DELETE:
            hw_buf_put_u8(c->out, op->del.prev_kv ? DELETE_PREV_KV : 0);
            put_slice(c, op->del.key);
            put_slice(c, op->del.range_end);
            break;
        case HW_OP_TXN:
            put_txn(c, op->txn, depth + 1);
            break;
        default:
            c->is_refused = true;
        }
    }
}

static void put_txn(struct encoder *c, const struct hw_txn *txn, unsigned depth)
{
    if (txn == NULL || depth > HW_TXN_DEPTH_MAX || !put_count(c, txn->compare_count, &c->compares_left)) {
        c->is_refused = true;
        return;
    }
    for (size_t i = 0; i < txn->compare_count && !c->is_refused; i++) {
        put_compare(c, &txn->compares[i]);
    }
    put_ops(c, txn->success, txn->success_count, depth);
    put_ops(c, txn->failure, txn->failure_count, depth);
}

static void put_seconds(struct encoder *c, int64_t seconds, int64_t min)
{
    if (seconds < min || seconds > HW_LEASE_TTL_MAX) {
        c->is_refused = true;
    }
    put_i64(c, seconds);
}

static void put_checkpoint(struct encoder *c, const struct hw_lease_remaining *leases, size_t count)
{
    size_t left = HW_LEASE_CHECKPOINT_MAX;
    if (!put_count(c, count, &left)) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        hw_buf_put_u64(c->out, (uint64_t)leases[i].id);
        put_seconds(c, leases[i].remaining_s, 0);
    }
}

static void put_body(struct encoder *c, const struct hw_cmd *cmd)
{
    switch (cmd->type) {
    case HW_CMD_TXN:
        put_txn(c, &cmd->txn, 1);
        break;
    case HW_CMD_COMPACT:
        put_i64(c, cmd->compact);
        break;
    case HW_CMD_HOT_ACQUIRED:
        hw_buf_put_u64(c->out, cmd->hot.node_id);
        hw_buf_put_u64(c->out, cmd->hot.epoch);
        put_text(c, cmd->hot.name, sizeof cmd->hot.name);
        break;
    case HW_CMD_NODE_SET:
        hw_buf_put_u64(c->out, cmd->node.id);
        put_text(c, cmd->node.name, sizeof cmd->node.name);
        put_text(c, cmd->node.peer_address, sizeof cmd->node.peer_address);
        put_text(c, cmd->node.client_address, sizeof cmd->node.client_address);
        break;
    case HW_CMD_NODE_REMOVE:
        hw_buf_put_u64(c->out, cmd->node_id);
        break;
    case HW_CMD_EVENT:
        hw_buf_put_u64(c->out, cmd->event.node_id);
        put_text(c, cmd->event.kind, sizeof cmd->event.kind);
        put_text(c, cmd->event.text, sizeof cmd->event.text);
        break;
    case HW_CMD_LEASE_GRANT:
        c->is_refused = c->is_refused || cmd->grant.id <= 0;
        hw_buf_put_u64(c->out, (uint64_t)cmd->grant.id);
        put_seconds(c, cmd->grant.ttl_s, 1);
        break;
    case HW_CMD_LEASE_REVOKE:
        hw_buf_put_u64(c->out, (uint64_t)cmd->revoke);
        break;
    case HW_CMD_LEASE_CHECKPOINT:
        put_checkpoint(c, cmd->checkpoint.leases, cmd->checkpoint.count);
        break;
    default:
        c->is_refused = true;
    }
}

int hw_cmd_encode(const struct hw_cmd *cmd, struct hw_buf *out)
{
    struct encoder c = {
        .out = out, .ops_left = HW_TXN_OPS_HARD_MAX, .compares_left = HW_TXN_OPS_HARD_MAX, .is_refused = false};
    size_t start = out->len;
    hw_buf_put_u8(out, HW_CMD_FORMAT);
    hw_buf_put_u8(out, (uint8_t)cmd->type);
    hw_buf_put_u64(out, cmd->wall_ms);
    put_body(&c, cmd);
    if (c.is_refused || out->failed) {
        out->len = start;
        return c.is_refused ? HW_ERR_INVALID : HW_ERR_NOMEM;
    }
    return 0;
}

/* ---- decode ---- */

struct decoder {
    struct hw_reader r; /* `failed`: the bytes are not what an encoder writes */
    size_t ops_left;
    size_t compares_left;
    bool is_out_of_memory;
};

static bool has_failed(const struct decoder *d)
{
    return d->r.failed || d->is_out_of_memory;
}

static uint64_t get_varint(struct decoder *d)
{
    const uint8_t *start = d->r.pos;
    uint64_t v = hw_reader_varint(&d->r);
    size_t size = (size_t)(d->r.pos - start);
    if (size > 1 && start[size - 1] == 0) {
        d->r.failed = true; /* padded: the same number has a shorter form */
    }
    return v;
}

static int64_t get_i64(struct decoder *d)
{
    return (int64_t)get_varint(d);
}

static struct hw_slice get_slice(struct decoder *d)
{
    struct hw_slice s = {NULL, 0};
    uint64_t len = get_varint(d);
    if (d->r.failed || len > HW_BYTES_MAX || len > hw_reader_left(&d->r)) {
        d->r.failed = true;
        return s;
    }
    s.data = d->r.pos;
    s.len = (size_t)len;
    d->r.pos += len;
    return s;
}

static unsigned get_enum(struct decoder *d, unsigned end)
{
    unsigned v = hw_reader_u8(&d->r);
    if (v >= end) {
        d->r.failed = true;
        return 0;
    }
    return v;
}

static unsigned get_flags(struct decoder *d, unsigned known)
{
    return get_enum(d, known + 1);
}

static void get_text(struct decoder *d, char *out, size_t size)
{
    struct hw_slice s = get_slice(d);
    if (d->r.failed || s.len >= size || (s.len > 0 && memchr(s.data, '\0', s.len) != NULL)) {
        d->r.failed = true;
        return;
    }
    if (s.len > 0) {
        memcpy(out, s.data, s.len);
    }
    out[s.len] = '\0';
}

/* Reads a count and allocates as many zeroed elements; sets *count only when they are there. */
static void *get_array(struct decoder *d, size_t *count, size_t *left, size_t bytes_min, size_t element_size)
{
    uint64_t n = get_varint(d);
    void *array;
    if (d->r.failed || n > *left || n > hw_reader_left(&d->r) / bytes_min) {
        d->r.failed = true;
        return NULL;
    }
    if (n == 0) {
        return NULL;
    }
    array = calloc((size_t)n, element_size);
    if (array == NULL) {
        d->is_out_of_memory = true;
        return NULL;
    }
    *left -= (size_t)n;
    *count = (size_t)n;
    return array;
}

static void get_range(struct decoder *d, struct hw_range *r)
{
    unsigned flags = get_flags(d, RANGE_FLAGS);
    r->keys_only = (flags & RANGE_KEYS_ONLY) != 0;
    r->count_only = (flags & RANGE_COUNT_ONLY) != 0;
    r->sort_order = (enum hw_sort_order)get_enum(d, HW_SORT_DESCEND + 1);
    r->sort_target = (enum hw_sort_target)get_enum(d, HW_BY_VALUE + 1);
    r->key = get_slice(d);
    r->range_end = get_slice(d);
    r->limit = get_i64(d);
    r->revision = get_i64(d);
    r->min_mod = get_i64(d);
    r->max_mod = get_i64(d);
    r->min_create = get_i64(d);
    r->max_create = get_i64(d);
}

static void get_put(struct decoder *d, struct hw_put *p)
{
    unsigned flags = get_flags(d, PUT_FLAGS);
    p->prev_kv = (flags & PUT_PREV_KV) != 0;
    p->ignore_value = (flags & PUT_IGNORE_VALUE) != 0;
    p->ignore_lease = (flags & PUT_IGNORE_LEASE) != 0;
    p->key = get_slice(d);
    p->lease = get_i64(d);
    p->value = get_slice(d);
}

static void get_compare(struct decoder *d, struct hw_compare *cmp)
{
    cmp->result = (enum hw_compare_result)get_enum(d, HW_CMP_NOT_EQUAL + 1);
    cmp->target = (enum hw_compare_target)get_enum(d, HW_CMP_LEASE + 1);
    cmp->key = get_slice(d);
    cmp->range_end = get_slice(d);
    if (cmp->target == HW_CMP_VALUE) {
        cmp->value = get_slice(d);
    } else {
        cmp->number = get_i64(d);
    }
}

static void get_txn(struct decoder *d, struct hw_txn *txn, unsigned depth);

static void get_op(struct decoder *d, struct hw_op *op, unsigned depth)
{
    op->type = (enum hw_op_type)get_enum(d, HW_OP_TXN + 1);
    switch (op->type) {
    case HW_OP_RANGE:
        get_range(d, &op->range);
        break;
    case HW_OP_PUT:
        get_put(d, &op->put);
        break;
    case HW_OP_DELETE:
        op->del.prev_kv = get_flags(d, DELETE_FLAGS) != 0;
        op->del.key = get_slice(d);
        op->del.range_end = get_slice(d);
        break;
    case HW_OP_TXN:
        if (depth == HW_TXN_DEPTH_MAX) {
            d->r.failed = true;
            break;
        }
        op->txn = calloc(1, sizeof *op->txn);
        if (op->txn == NULL) {
            d->is_out_of_memory = true;
            break;
        }
        get_txn(d, op->txn, depth + 1);
        break;
    default:
        d->r.failed = true;
    }
}

static void get_txn(struct decoder *d, struct hw_txn *txn, unsigned depth)
{
    txn->compares = get_array(d, &txn->compare_count, &d->compares_left, COMPARE_BYTES_MIN, sizeof *txn->compares);
    for (size_t i = 0; i < txn->compare_count && !has_failed(d); i++) {
        get_compare(d, &txn->compares[i]);
    }
    if (has_failed(d)) {
        return;
    }
    txn->success = get_array(d, &txn->success_count, &d->ops_left, OP_BYTES_MIN, sizeof *txn->success);
    for (size_t i = 0; i < txn->success_count && !has_failed(d); i++) {
        get_op(d, &txn->success[i], depth);
    }
    if (has_failed(d)) {
        return;
    }
    txn->failure = get_array(d, &txn->failure_count, &d->ops_left, OP_BYTES_MIN, sizeof *txn->failure);
    for (size_t i = 0; i < txn->failure_count && !has_failed(d); i++) {
        get_op(d, &txn->failure[i], depth);
    }
}

static int64_t get_seconds(struct decoder *d, int64_t min)
{
    int64_t seconds = get_i64(d);
    if (seconds < min || seconds > HW_LEASE_TTL_MAX) {
        d->r.failed = true;
    }
    return seconds;
}

static void get_checkpoint(struct decoder *d, struct hw_cmd *cmd)
{
    size_t left = HW_LEASE_CHECKPOINT_MAX;
    struct hw_lease_remaining *leases =
        get_array(d, &cmd->checkpoint.count, &left, REMAINING_BYTES_MIN, sizeof *leases);
    cmd->checkpoint.leases = leases;
    for (size_t i = 0; i < cmd->checkpoint.count && !has_failed(d); i++) {
        leases[i].id = (int64_t)hw_reader_u64(&d->r);
        leases[i].remaining_s = get_seconds(d, 0);
    }
}

static void get_body(struct decoder *d, struct hw_cmd *cmd)
{
    switch (cmd->type) {
    case HW_CMD_TXN:
        get_txn(d, &cmd->txn, 1);
        break;
    case HW_CMD_COMPACT:
        cmd->compact = get_i64(d);
        break;
    case HW_CMD_HOT_ACQUIRED:
        cmd->hot.node_id = hw_reader_u64(&d->r);
        cmd->hot.epoch = hw_reader_u64(&d->r);
        get_text(d, cmd->hot.name, sizeof cmd->hot.name);
        break;
    case HW_CMD_NODE_SET:
        cmd->node.id = hw_reader_u64(&d->r);
        get_text(d, cmd->node.name, sizeof cmd->node.name);
        get_text(d, cmd->node.peer_address, sizeof cmd->node.peer_address);
        get_text(d, cmd->node.client_address, sizeof cmd->node.client_address);
        break;
    case HW_CMD_NODE_REMOVE:
        cmd->node_id = hw_reader_u64(&d->r);
        break;
    case HW_CMD_EVENT:
        cmd->event.node_id = hw_reader_u64(&d->r);
        get_text(d, cmd->event.kind, sizeof cmd->event.kind);
        get_text(d, cmd->event.text, sizeof cmd->event.text);
        break;
    case HW_CMD_LEASE_GRANT:
        cmd->grant.id = (int64_t)hw_reader_u64(&d->r);
        d->r.failed = d->r.failed || cmd->grant.id <= 0;
        cmd->grant.ttl_s = get_seconds(d, 1);
        break;
    case HW_CMD_LEASE_REVOKE:
        cmd->revoke = (int64_t)hw_reader_u64(&d->r);
        break;
    case HW_CMD_LEASE_CHECKPOINT:
        get_checkpoint(d, cmd);
        break;
    default:
        d->r.failed = true;
    }
}

int hw_cmd_decode(const void *data, size_t len, struct hw_cmd *cmd, struct hw_error *e)
{
    struct decoder d = {.ops_left = HW_TXN_OPS_HARD_MAX, .compares_left = HW_TXN_OPS_HARD_MAX};
    unsigned format;
    memset(cmd, 0, sizeof *cmd);
    hw_reader_init(&d.r, data, len);
    format = hw_reader_u8(&d.r);
    if (format > HW_CMD_FORMAT) {
        return hw_error_set(e, HW_ERR_VERSION,
                            "log command has format %u, this program knows formats up to %d: upgrade this node", format,
                            HW_CMD_FORMAT);
    }
    if (format != HW_CMD_FORMAT) {
        return hw_error_set(e, HW_ERR_CORRUPT, "log command of %zu bytes has no format: the entry is damaged", len);
    }
    cmd->type = (enum hw_cmd_type)get_enum(&d, HW_CMD_TYPE_END);
    cmd->wall_ms = hw_reader_u64(&d.r);
    if (!d.r.failed) {
        get_body(&d, cmd);
    }
    if (d.is_out_of_memory) {
        return hw_error_set(e, HW_ERR_NOMEM, "decode a log command of %zu bytes: out of memory", len);
    }
    if (d.r.failed || hw_reader_left(&d.r) > 0) {
        return hw_error_set(e, HW_ERR_CORRUPT, "log command of %zu bytes is damaged near byte %zu", len,
                            len - hw_reader_left(&d.r));
    }
    return 0;
}

static void free_txn(struct hw_txn *txn);

static void free_ops(struct hw_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ops[i].type == HW_OP_TXN && ops[i].txn != NULL) {
            free_txn(ops[i].txn);
            free(ops[i].txn);
        }
    }
    free(ops);
}

static void free_txn(struct hw_txn *txn)
{
    free(txn->compares);
    free_ops(txn->success, txn->success_count);
    free_ops(txn->failure, txn->failure_count);
}

void hw_cmd_free(struct hw_cmd *cmd)
{
    if (cmd->type == HW_CMD_TXN) {
        free_txn(&cmd->txn);
    } else if (cmd->type == HW_CMD_LEASE_CHECKPOINT) {
        free(cmd->checkpoint.leases);
    }
    memset(cmd, 0, sizeof *cmd);
}
