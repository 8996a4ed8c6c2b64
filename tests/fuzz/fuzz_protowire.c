/* The hand-written part of protobuf, beside protobuf-c: a transaction that the scan before unpacking lets through
 * unpacks within its memory, becomes a transaction of the state and runs; what unpacks and is not too large was let
 * through. */
#include <stdlib.h>

#include "agent/api/arena.h"
#include "agent/api/protowire.h"
#include "agent/api/txn.h"
#include "storage/hot/hot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OPS_MAX 64
/* As hw_exchange_unpack bounds it. */
#define ARENA_EXTRA ((size_t)4 * 1024 * 1024)

/* What is written again from what was read is read again as the same. */
static void walk(const uint8_t *data, size_t size)
{
    struct hw_reader r;
    unsigned field;
    enum hw_pb_type type;
    uint64_t number;
    struct hw_slice bytes;
    hw_reader_init(&r, data, size);
    while (hw_protowire_next(&r, &field, &type, &number, &bytes)) {
        hw_assert(field > 0);
        if (type == HW_PB_BYTES && field < 16) {
            struct hw_buf b = {0};
            hw_pb_begin_message(&b, field, bytes.len);
            hw_buf_append(&b, bytes.data, bytes.len);
            hw_assert(b.len == hw_pb_message_size(bytes.len));
            hw_buf_free(&b);
        } else if (type == HW_PB_VARINT && field < 16 && number != 0) {
            struct hw_buf b = {0};
            struct hw_reader again;
            uint64_t same;
            hw_pb_put_uint(&b, field, number);
            hw_assert(b.len == hw_pb_uint_size(number));
            hw_reader_init(&again, b.data, b.len);
            hw_assert(hw_protowire_next(&again, &field, &type, &same, &bytes) && same == number);
            hw_buf_free(&b);
        }
    }
}

static void run(const Etcdserverpb__TxnRequest *m, struct hw_arena *arena)
{
    struct hw_cmd cmd = {.type = HW_CMD_TXN};
    enum hw_refusal refusal;
    struct hw_error e = {0};
    struct hw_result result;
    struct hw_buf b = {0};
    struct hw_hot *hot;
    if (!hw_txn_convert(m, arena, &cmd.txn, &refusal)) {
        hw_assert(refusal < HW_REFUSAL_COUNT);
        return;
    }
    (void)hw_txn_is_serializable(m);
    if (hw_hot_check_txn(&cmd.txn, OPS_MAX, &e) != 0) {
        hw_assert(e.text[0] != '\0');
        return;
    }
    hot = hw_hot_new();
    hw_assert(hot != NULL);
    hw_result_init(&result);
    if (hw_txn_is_readonly(&cmd.txn)) {
        hw_hot_read_txn(hot, &cmd.txn, &result);
    } else {
        hw_assert(hw_cmd_encode(&cmd, &b) == 0);
        hw_assert(hw_hot_apply(hot, 1, b.data, b.len, &result, &e) == 0);
    }
    hw_assert(hw_hot_check(hot) == NULL);
    hw_result_free(&result);
    hw_buf_free(&b);
    hw_hot_free(hot);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum hw_refusal refusal = HW_REFUSAL_COUNT;
    bool is_let_through = hw_txn_is_unpackable(hw_slice_of(data, size), &refusal);
    struct hw_arena arena;
    Etcdserverpb__TxnRequest *m;
    walk(data, size);
    hw_arena_init(&arena);
    hw_arena_reset(&arena, 2 * size + ARENA_EXTRA + OPS_MAX * 512);
    if (is_let_through) {
        m = etcdserverpb__txn_request__unpack(&arena.allocator, size, size == 0 ? (const uint8_t *)"" : data);
        if (m != NULL) {
            run(m, &arena);
        }
    } else {
        hw_assert(refusal == HW_REFUSE_MALFORMED || refusal == HW_REFUSE_TXN_TOO_DEEP ||
                  refusal == HW_REFUSE_TOO_MANY_OPS);
    }
    hw_arena_close(&arena);
    return 0;
}
