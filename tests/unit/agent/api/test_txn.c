/* From protobuf to the state's structs: what is taken over, what is refused and how. */
#include <stdlib.h>
#include <string.h>

#include "agent/api/protowire.h"
#include "agent/api/txn.h"
#include "agent/base/rng.h"
#include "storage/hot/hot.h"
#include "tests/unit/hw_test.h"

#define OPS_MAX 128

static struct hw_arena arena;

static ProtobufCBinaryData bytes_of(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)s};
}

static bool is_text(struct hw_slice s, const char *text)
{
    return hw_slice_is_equal(s, hw_slice_str(text));
}

/* ---- single requests ---- */

static void a_range_is_taken_over_field_by_field(void)
{
    Etcdserverpb__RangeRequest m = ETCDSERVERPB__RANGE_REQUEST__INIT;
    struct hw_range r;
    enum hw_refusal refusal;
    m.key = bytes_of("a");
    m.range_end = bytes_of("b");
    m.limit = 7;
    m.revision = 9;
    m.sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND;
    m.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__VALUE;
    m.keys_only = 1;
    m.count_only = 1;
    m.min_mod_revision = 1;
    m.max_mod_revision = 2;
    m.min_create_revision = 3;
    m.max_create_revision = 4;
    REQUIRE(hw_range_convert(&m, &r, &refusal));
    CHECK(is_text(r.key, "a") && is_text(r.range_end, "b"));
    CHECK(r.limit == 7 && r.revision == 9 && r.keys_only && r.count_only);
    CHECK(r.sort_order == HW_SORT_DESCEND && r.sort_target == HW_BY_VALUE);
    CHECK(r.min_mod == 1 && r.max_mod == 2 && r.min_create == 3 && r.max_create == 4);
}

static void unknown_sort_options_are_refused(void)
{
    static const int bad[][2] = {{3, 0}, {0, 5}, {-1, 0}, {0, -1}, {INT32_MAX, 0}, {0, INT32_MIN}, {100, 100}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        Etcdserverpb__RangeRequest m = ETCDSERVERPB__RANGE_REQUEST__INIT;
        struct hw_range r;
        enum hw_refusal refusal = HW_REFUSAL_COUNT;
        m.key = bytes_of("a");
        m.sort_order = (Etcdserverpb__RangeRequest__SortOrder)bad[i][0];
        m.sort_target = (Etcdserverpb__RangeRequest__SortTarget)bad[i][1];
        CHECK(!hw_range_convert(&m, &r, &refusal));
        CHECK_EQ(refusal, HW_REFUSE_SORT_OPTION);
    }
}

static void requests_without_a_key_are_refused(void)
{
    Etcdserverpb__RangeRequest range = ETCDSERVERPB__RANGE_REQUEST__INIT;
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__DeleteRangeRequest del = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    struct hw_op op;
    enum hw_refusal refusal = HW_REFUSAL_COUNT;
    CHECK(!hw_range_convert(&range, &op.range, &refusal) && refusal == HW_REFUSE_EMPTY_KEY);
    refusal = HW_REFUSAL_COUNT;
    CHECK(!hw_put_convert(&put, &op.put, &refusal) && refusal == HW_REFUSE_EMPTY_KEY);
    refusal = HW_REFUSAL_COUNT;
    CHECK(!hw_delete_convert(&del, &op.del, &refusal) && refusal == HW_REFUSE_EMPTY_KEY);
}

static void what_a_put_ignores_it_may_not_bring(void)
{
    Etcdserverpb__PutRequest m = ETCDSERVERPB__PUT_REQUEST__INIT;
    struct hw_put put;
    enum hw_refusal refusal;
    m.key = bytes_of("k");
    m.value = bytes_of("v");
    m.ignore_value = 1;
    CHECK(!hw_put_convert(&m, &put, &refusal) && refusal == HW_REFUSE_VALUE_PROVIDED);
    m.value = bytes_of("");
    CHECK(hw_put_convert(&m, &put, &refusal) && put.ignore_value);
    m.ignore_lease = 1;
    m.lease = 5;
    CHECK(!hw_put_convert(&m, &put, &refusal) && refusal == HW_REFUSE_LEASE_PROVIDED);
    m.lease = 0;
    CHECK(hw_put_convert(&m, &put, &refusal) && put.ignore_lease);
}

/* ---- compares ---- */

static bool convert_one_compare(const Etcdserverpb__Compare *c, struct hw_txn *txn, enum hw_refusal *refusal)
{
    Etcdserverpb__TxnRequest m = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__Compare *compares[] = {(Etcdserverpb__Compare *)c};
    m.compare = compares;
    m.n_compare = 1;
    hw_arena_reset(&arena, 1 << 20);
    return hw_txn_convert(&m, &arena, txn, refusal);
}

static void compares_take_the_value_that_fits_their_target(void)
{
    Etcdserverpb__Compare c = ETCDSERVERPB__COMPARE__INIT;
    struct hw_txn txn;
    enum hw_refusal refusal;
    hw_arena_init(&arena);
    c.key = bytes_of("k");
    c.range_end = bytes_of("l");
    c.result = ETCDSERVERPB__COMPARE__COMPARE_RESULT__NOT_EQUAL;
    c.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD;
    c.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION;
    c.mod_revision = 42;
    REQUIRE(convert_one_compare(&c, &txn, &refusal));
    CHECK(txn.compares[0].target == HW_CMP_MOD && txn.compares[0].result == HW_CMP_NOT_EQUAL);
    CHECK(txn.compares[0].number == 42 && is_text(txn.compares[0].range_end, "l"));
    c.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE;
    c.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
    c.value = bytes_of("v");
    REQUIRE(convert_one_compare(&c, &txn, &refusal));
    CHECK(is_text(txn.compares[0].value, "v") && txn.compares[0].number == 0);
    hw_arena_close(&arena);
}

static void a_union_that_does_not_fit_counts_as_zero(void)
{
    Etcdserverpb__Compare c = ETCDSERVERPB__COMPARE__INIT;
    struct hw_txn txn;
    enum hw_refusal refusal;
    hw_arena_init(&arena);
    c.key = bytes_of("k");
    c.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE;
    c.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION;
    c.version = 0x1234567812345678; /* must not be taken for a pointer */
    REQUIRE(convert_one_compare(&c, &txn, &refusal));
    CHECK(txn.compares[0].value.len == 0);
    c.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__LEASE;
    c.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION__NOT_SET;
    REQUIRE(convert_one_compare(&c, &txn, &refusal));
    CHECK(txn.compares[0].number == 0);
    hw_arena_close(&arena);
}

static void unknown_compares_are_refused(void)
{
    static const int bad[][2] = {{4, 0}, {0, 5}, {-1, 0}, {0, -1}, {INT32_MAX, INT32_MAX}};
    hw_arena_init(&arena);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        Etcdserverpb__Compare c = ETCDSERVERPB__COMPARE__INIT;
        struct hw_txn txn;
        enum hw_refusal refusal = HW_REFUSAL_COUNT;
        c.key = bytes_of("k");
        c.result = (Etcdserverpb__Compare__CompareResult)bad[i][0];
        c.target = (Etcdserverpb__Compare__CompareTarget)bad[i][1];
        CHECK(!convert_one_compare(&c, &txn, &refusal));
        CHECK_EQ(refusal, HW_REFUSE_COMPARE_OPTION);
    }
    Etcdserverpb__Compare keyless = ETCDSERVERPB__COMPARE__INIT;
    struct hw_txn txn;
    enum hw_refusal refusal = HW_REFUSAL_COUNT;
    CHECK(!convert_one_compare(&keyless, &txn, &refusal) && refusal == HW_REFUSE_EMPTY_KEY);
    hw_arena_close(&arena);
}

/* ---- whole transactions, as bytes ---- */

/* The path of a request: count, unpack, convert, check. Text of the refusal, or NULL. */
static const char *take(struct hw_buf *message, struct hw_txn *txn)
{
    static struct hw_error e;
    enum hw_refusal refusal;
    Etcdserverpb__TxnRequest *m;
    if (!hw_txn_is_unpackable(hw_buf_slice(message), &refusal)) {
        return hw_refusal_text(refusal);
    }
    hw_arena_reset(&arena, 1 << 26);
    m = etcdserverpb__txn_request__unpack(&arena.allocator, message->len, message->data);
    if (m == NULL) {
        return hw_refusal_text(HW_REFUSE_MALFORMED);
    }
    if (!hw_txn_convert(m, &arena, txn, &refusal)) {
        return hw_refusal_text(refusal);
    }
    return hw_hot_check_txn(txn, OPS_MAX, &e) != 0 ? e.text : NULL;
}

static void add_op(struct hw_buf *txn, unsigned branch, unsigned type, const struct hw_buf *inner)
{
    struct hw_buf op;
    hw_buf_init(&op);
    hw_pb_begin_message(&op, type, inner->len);
    hw_buf_append(&op, inner->data, inner->len);
    hw_pb_begin_message(txn, branch, op.len);
    hw_buf_append(txn, op.data, op.len);
    hw_buf_free(&op);
}

static void add_put(struct hw_buf *txn, unsigned branch, const char *key)
{
    struct hw_buf put;
    hw_buf_init(&put);
    hw_pb_put_bytes(&put, 1, hw_slice_str(key));
    add_op(txn, branch, 2, &put);
    hw_buf_free(&put);
}

static void nest(struct hw_buf *txn, unsigned levels)
{
    for (unsigned i = 0; i < levels; i++) {
        struct hw_buf outer;
        hw_buf_init(&outer);
        add_op(&outer, 2, 4, txn);
        hw_buf_free(txn);
        *txn = outer;
    }
}

static void nesting_is_taken_to_its_limit_and_refused_beyond(void)
{
    struct hw_buf b;
    struct hw_txn txn;
    hw_arena_init(&arena);
    hw_buf_init(&b);
    add_put(&b, 2, "k");
    nest(&b, HW_TXN_DEPTH_MAX - 1);
    CHECK(take(&b, &txn) == NULL);
    CHECK(txn.success_count == 1 && txn.success[0].type == HW_OP_TXN);
    CHECK(!hw_txn_is_readonly(&txn));
    nest(&b, 1);
    CHECK_STR(take(&b, &txn), hw_refusal_text(HW_REFUSE_TXN_TOO_DEEP));
    /* as deep as a request of the allowed size can go: unpacking would overrun the stack */
    nest(&b, 3000);
    CHECK_STR(take(&b, &txn), hw_refusal_text(HW_REFUSE_TXN_TOO_DEEP));
    hw_buf_free(&b);
    hw_arena_close(&arena);
}

static void operations_are_counted_per_branch(void)
{
    struct hw_buf b;
    struct hw_txn txn;
    char key[16];
    hw_arena_init(&arena);
    hw_buf_init(&b);
    for (int i = 0; i < OPS_MAX; i++) {
        snprintf(key, sizeof key, "k%d", i);
        add_put(&b, 2, key);
        add_put(&b, 3, key);
    }
    CHECK(take(&b, &txn) == NULL);
    CHECK(txn.success_count == OPS_MAX && txn.failure_count == OPS_MAX);
    add_put(&b, 3, "one more");
    CHECK_STR(take(&b, &txn), hw_refusal_text(HW_REFUSE_TOO_MANY_OPS));
    hw_buf_free(&b);
    hw_arena_close(&arena);
}

static void a_flood_of_empty_operations_is_refused_before_unpacking(void)
{
    struct hw_buf b;
    enum hw_refusal refusal = HW_REFUSAL_COUNT;
    hw_buf_init(&b);
    for (int i = 0; i <= HW_TXN_OPS_HARD_MAX; i++) {
        hw_buf_append(&b, "\x12\x00", 2);
    }
    CHECK(!hw_txn_is_unpackable(hw_buf_slice(&b), &refusal));
    CHECK_EQ(refusal, HW_REFUSE_TOO_MANY_OPS);
    hw_buf_free(&b);
}

static void duplicate_keys_are_refused_within_a_branch_only(void)
{
    struct hw_buf b;
    struct hw_txn txn;
    hw_arena_init(&arena);
    hw_buf_init(&b);
    add_put(&b, 2, "k");
    add_put(&b, 3, "k");
    CHECK(take(&b, &txn) == NULL);
    add_put(&b, 2, "k");
    CHECK_STR(take(&b, &txn), hw_refusal_text(HW_REFUSE_DUPLICATE_KEY));
    hw_buf_free(&b);
    hw_arena_close(&arena);
}

static void an_operation_without_a_type_is_refused(void)
{
    struct hw_buf b;
    struct hw_txn txn;
    hw_arena_init(&arena);
    hw_buf_init(&b);
    hw_pb_begin_message(&b, 2, 0);
    CHECK_STR(take(&b, &txn), hw_refusal_text(HW_REFUSE_KEY_NOT_FOUND));
    hw_buf_clear(&b);
    add_put(&b, 2, "");
    CHECK_STR(take(&b, &txn), hw_refusal_text(HW_REFUSE_EMPTY_KEY));
    hw_buf_free(&b);
    hw_arena_close(&arena);
}

static void the_last_of_several_types_is_the_operation(void)
{
    struct hw_buf b;
    struct hw_buf op;
    struct hw_txn txn;
    hw_arena_init(&arena);
    hw_buf_init(&b);
    hw_buf_init(&op);
    hw_buf_append(&op, "\x12\x03\x0a\x01k\x1a\x03\x0a\x01k", 10); /* put k, then delete k in the same oneof */
    hw_pb_begin_message(&b, 2, op.len);
    hw_buf_append(&b, op.data, op.len);
    CHECK(take(&b, &txn) == NULL);
    CHECK(txn.success_count == 1 && txn.success[0].type == HW_OP_DELETE);
    hw_buf_free(&op);
    hw_buf_free(&b);
    hw_arena_close(&arena);
}

static void only_ranges_make_a_transaction_readonly(void)
{
    struct hw_buf range;
    struct hw_buf b;
    struct hw_txn txn;
    Etcdserverpb__TxnRequest *m;
    hw_arena_init(&arena);
    hw_buf_init(&range);
    hw_buf_init(&b);
    hw_pb_put_bytes(&range, 1, hw_slice_str("k"));
    add_op(&b, 2, 1, &range);
    nest(&b, 2);
    CHECK(take(&b, &txn) == NULL);
    CHECK(hw_txn_is_readonly(&txn));
    m = etcdserverpb__txn_request__unpack(&arena.allocator, b.len, b.data);
    CHECK(!hw_txn_is_serializable(m));
    hw_buf_clear(&b);
    hw_pb_put_uint(&range, 7, 1);
    add_op(&b, 2, 1, &range);
    nest(&b, 2);
    m = etcdserverpb__txn_request__unpack(&arena.allocator, b.len, b.data);
    CHECK(hw_txn_is_serializable(m));
    add_put(&b, 3, "k");
    CHECK(take(&b, &txn) == NULL);
    CHECK(!hw_txn_is_readonly(&txn));
    hw_buf_free(&range);
    hw_buf_free(&b);
    hw_arena_close(&arena);
}

/* Whatever the bytes: an answer, no crash, no memory that stays. The sanitizers watch. */
static void random_damage_is_refused_or_taken(void)
{
    struct hw_buf b;
    struct hw_rng rng;
    struct hw_txn txn;
    unsigned taken = 0;
    hw_arena_init(&arena);
    hw_buf_init(&b);
    hw_rng_seed(&rng, 7);
    add_put(&b, 2, "key-one");
    add_put(&b, 2, "key-two");
    nest(&b, 3);
    add_put(&b, 3, "key-three");
    for (int round = 0; round < 20000; round++) {
        struct hw_buf copy;
        hw_buf_init(&copy);
        hw_buf_append(&copy, b.data, b.len - hw_rng_below(&rng, 4));
        for (uint64_t i = hw_rng_below(&rng, 4); i > 0; i--) {
            copy.data[hw_rng_below(&rng, copy.len)] = (uint8_t)hw_rng_next(&rng);
        }
        taken += take(&copy, &txn) == NULL;
        hw_buf_free(&copy);
    }
    CHECK(taken > 0 && taken < 20000);
    hw_buf_free(&b);
    hw_arena_close(&arena);
}

HW_SUITE(api_txn, HW_CASE(a_range_is_taken_over_field_by_field), HW_CASE(unknown_sort_options_are_refused),
         HW_CASE(requests_without_a_key_are_refused), HW_CASE(what_a_put_ignores_it_may_not_bring),
         HW_CASE(compares_take_the_value_that_fits_their_target), HW_CASE(a_union_that_does_not_fit_counts_as_zero),
         HW_CASE(unknown_compares_are_refused), HW_CASE(nesting_is_taken_to_its_limit_and_refused_beyond),
         HW_CASE(operations_are_counted_per_branch), HW_CASE(a_flood_of_empty_operations_is_refused_before_unpacking),
         HW_CASE(duplicate_keys_are_refused_within_a_branch_only), HW_CASE(an_operation_without_a_type_is_refused),
         HW_CASE(the_last_of_several_types_is_the_operation), HW_CASE(only_ranges_make_a_transaction_readonly),
         HW_CASE(random_damage_is_refused_or_taken))
