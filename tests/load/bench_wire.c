#include "tests/load/bench_wire.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static void put_bytes(struct hw_buf *out, unsigned field, struct hw_slice s)
{
    hw_buf_put_varint(out, field << 3 | WIRE_BYTES);
    hw_buf_put_bytes(out, s);
}

static void put_number(struct hw_buf *out, unsigned field, uint64_t v)
{
    hw_buf_put_varint(out, field << 3 | WIRE_VARINT);
    hw_buf_put_varint(out, v);
}

void bench_put_encode(struct hw_buf *out, struct hw_slice key, struct hw_slice value)
{
    put_bytes(out, 1, key);
    put_bytes(out, 2, value);
}

void bench_range_encode(struct hw_buf *out, const struct bench_range *range)
{
    put_bytes(out, 1, range->key);
    if (range->end.len > 0) {
        put_bytes(out, 2, range->end);
    }
    if (range->limit > 0) {
        put_number(out, 3, range->limit);
    }
    if (range->is_serializable) {
        put_number(out, 7, 1);
    }
    if (range->is_keys_only) {
        put_number(out, 8, 1);
    }
}

/* RequestOp{request_put = 2 or request_range = 1} as the field of the transaction. The operation's own length is known
 * from its parts; only the outer length needs the inner one first, hence scratch. */
static void put_operation(struct hw_buf *out, struct hw_buf *scratch, unsigned txn_field, unsigned op_field,
                          size_t inner_at)
{
    struct hw_slice inner = hw_slice_of(scratch->data + inner_at, scratch->len - inner_at);
    size_t header = 2; /* tag and a length below 128 */
    for (size_t n = inner.len; n >= 0x80; n >>= 7) {
        header++;
    }
    hw_buf_put_varint(out, txn_field << 3 | WIRE_BYTES);
    hw_buf_put_varint(out, header + inner.len);
    put_bytes(out, op_field, inner);
}

void bench_txn_encode(struct hw_buf *out, struct hw_buf *scratch, struct hw_slice key, struct hw_slice value,
                      int64_t mod_revision)
{
    size_t at;
    hw_buf_clear(scratch);
    put_number(scratch, 2, 2); /* target MOD; the result EQUAL is 0 */
    put_bytes(scratch, 3, key);
    put_number(scratch, 6, (uint64_t)mod_revision);
    put_bytes(out, 1, hw_buf_slice(scratch));
    at = scratch->len;
    bench_put_encode(scratch, key, value);
    put_operation(out, scratch, 2, 2, at);
    at = scratch->len;
    put_bytes(scratch, 1, key);
    put_operation(out, scratch, 3, 1, at);
}

void bench_watch_create_encode(struct hw_buf *out, struct hw_buf *scratch, struct hw_slice key)
{
    hw_buf_clear(scratch);
    put_bytes(scratch, 1, key);
    put_bytes(out, 1, hw_buf_slice(scratch));
}

void bench_grant_encode(struct hw_buf *out, uint64_t ttl_s)
{
    put_number(out, 1, ttl_s);
}

void bench_keep_alive_encode(struct hw_buf *out, int64_t id)
{
    put_number(out, 1, (uint64_t)id);
}

bool bench_field_next(struct hw_reader *r, struct bench_field *field)
{
    uint64_t tag;
    if (hw_reader_left(r) == 0) {
        return false;
    }
    tag = hw_reader_varint(r);
    field->number = (unsigned)(tag >> 3);
    field->number_value = 0;
    field->bytes = hw_slice_of(NULL, 0);
    switch (tag & 7) {
    case WIRE_VARINT:
        field->number_value = hw_reader_varint(r);
        break;
    case WIRE_FIXED64:
        field->number_value = hw_reader_u64(r);
        break;
    case WIRE_BYTES:
        field->bytes = hw_reader_bytes(r);
        break;
    case WIRE_FIXED32:
        field->number_value = hw_reader_u32(r);
        break;
    default:
        r->failed = true;
    }
    return !r->failed;
}

struct bench_kv bench_kv_decode(struct hw_slice message)
{
    struct bench_kv kv = {{NULL, 0}, {NULL, 0}, 0};
    struct bench_field f;
    struct hw_reader r;
    hw_reader_init(&r, message.data, message.len);
    while (bench_field_next(&r, &f)) {
        if (f.number == 1) {
            kv.key = f.bytes;
        } else if (f.number == 3) {
            kv.mod_revision = (int64_t)f.number_value;
        } else if (f.number == 5) {
            kv.value = f.bytes;
        }
    }
    return kv;
}

/* The first field of that number, empty when there is none. */
static struct bench_field first_field(struct hw_slice message, unsigned number)
{
    struct bench_field f;
    struct hw_reader r;
    hw_reader_init(&r, message.data, message.len);
    while (bench_field_next(&r, &f)) {
        if (f.number == number) {
            return f;
        }
    }
    return (struct bench_field){0, 0, {NULL, 0}};
}

int64_t bench_revision_of(struct hw_slice message)
{
    return (int64_t)first_field(first_field(message, 1).bytes, 3).number_value;
}

struct bench_txn_answer bench_txn_decode(struct hw_slice message)
{
    struct bench_txn_answer answer = {false, bench_revision_of(message), 0};
    struct hw_slice range;
    answer.is_succeeded = first_field(message, 2).number_value != 0;
    /* responses[0].response_range.kvs[0] */
    range = first_field(first_field(message, 3).bytes, 1).bytes;
    if (!answer.is_succeeded) {
        answer.mod_revision = bench_kv_decode(first_field(range, 2).bytes).mod_revision;
    }
    return answer;
}
