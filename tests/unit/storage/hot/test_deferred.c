/* Long ranges within transactions are read later, as of their place in the transaction. */
#include <stdio.h>
#include <string.h>

#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"

enum { KEYS = HW_TXN_INLINE_KEYS + 500 };

static struct kit k;

static void fill(void)
{
    char key[16];
    hotkit_open(&k);
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%05d", i);
        REQUIRE(hotkit_put(&k, key, "v") == 0);
    }
}

static struct hw_op op_count(void)
{
    return (struct hw_op){.type = HW_OP_RANGE, .range = {.key = S("k"), .range_end = S("l")}};
}

/* The keys that a deferred range finds, and whether `key` is among them with `value` (NULL: it is not there). */
static int64_t read_deferred(const struct hw_op_result *op, const char *key, const char *value)
{
    struct hw_scan *scan = NULL;
    struct hw_version *const *kvs;
    bool is_as_said = value == NULL;
    int64_t count;
    size_t n;
    REQUIRE(op->range.deferred != NULL);
    CHECK_EQ(op->range.kv_count, 0);
    REQUIRE(hw_scan_start_deferred(k.hot, op->range.deferred, &scan) == 0);
    while (hw_scan_step(scan, 100) > 0) {
    }
    kvs = hw_scan_kvs(scan, &n);
    for (size_t i = 0; i < n; i++) {
        if (hw_slice_is_equal(hw_slice_of(kvs[i]->key->data, kvs[i]->key->len), hw_slice_str(key))) {
            is_as_said =
                value != NULL && hw_slice_is_equal(hw_slice_of(kvs[i]->value, kvs[i]->value_len), hw_slice_str(value));
        }
    }
    CHECK(is_as_said);
    count = hw_scan_count(scan);
    while (!hw_scan_close_step(scan, 64)) {
    }
    return count;
}

static void each_sees_the_writes_before_it_and_none_that_come_later(void)
{
    struct hw_result r;
    struct hw_op ops[] = {op_count(), hotkit_op_put("k-new", "1"),  op_count(), hotkit_op_delete("k00010", "k00020"),
                          op_count(), hotkit_op_put("k00500", "2"), op_count()};
    struct hw_txn txn = {.success = ops, .success_count = sizeof ops / sizeof ops[0]};
    fill();
    CHECK_EQ(hotkit_txn(&k, &txn, &r), 0);
    CHECK_EQ(hw_hot_open_scans(k.hot), 1);
    CHECK_EQ(hotkit_put(&k, "k-new", "later"), 0);
    CHECK_EQ(hotkit_put(&k, "k00010", "later"), 0);
    CHECK_EQ(hotkit_delete(&k, "k00500", S("")), 0);
    CHECK_EQ(hotkit_compact(&k, hw_hot_revision(k.hot)), 0);
    hotkit_sweep(&k, 1000);
    CHECK_EQ(read_deferred(&r.txn.ops[0], "k-new", NULL), KEYS);
    CHECK_EQ(read_deferred(&r.txn.ops[0], "k00500", "v"), KEYS);
    CHECK_EQ(read_deferred(&r.txn.ops[2], "k-new", "1"), KEYS + 1);
    CHECK_EQ(read_deferred(&r.txn.ops[2], "k00010", "v"), KEYS + 1);
    CHECK_EQ(read_deferred(&r.txn.ops[4], "k00010", NULL), KEYS - 9);
    CHECK_EQ(read_deferred(&r.txn.ops[4], "k00500", "v"), KEYS - 9);
    CHECK_EQ(read_deferred(&r.txn.ops[6], "k00500", "2"), KEYS - 9);
    hw_result_free(&r);
    CHECK_EQ(hw_hot_open_scans(k.hot), 0);
    hotkit_sweep(&k, 1000);
    CHECK(hw_hot_check(k.hot) == NULL);
    hotkit_close(&k);
}

static void one_with_a_revision_of_its_own_outlives_compaction(void)
{
    struct hw_result r;
    struct hw_op op = op_count();
    struct hw_txn txn = {.success = &op, .success_count = 1};
    fill();
    op.range.revision = hw_hot_revision(k.hot);
    CHECK_EQ(hotkit_delete(&k, "k", S("l")), 0);
    hw_result_init(&r);
    CHECK_EQ(hw_hot_read_txn(k.hot, &txn, &r), 0);
    CHECK_EQ(hotkit_compact(&k, hw_hot_revision(k.hot)), 0);
    hotkit_sweep(&k, 1000);
    CHECK_EQ(read_deferred(&r.txn.ops[0], "k00000", "v"), KEYS);
    hw_result_free(&r);
    hotkit_close(&k);
}

static void short_ranges_are_answered_at_once_until_together_they_are_long(void)
{
    struct hw_result r;
    struct hw_op ops[4];
    struct hw_txn txn = {.success = ops, .success_count = 4};
    fill();
    for (int i = 0; i < 4; i++) {
        ops[i] = (struct hw_op){.type = HW_OP_RANGE, .range = {.key = S("k000"), .range_end = S("k004")}};
    }
    hw_result_init(&r);
    CHECK_EQ(hw_hot_read_txn(k.hot, &txn, &r), 0);
    CHECK_EQ(r.txn.ops[0].range.count, 400);
    CHECK_EQ(r.txn.ops[1].range.kv_count, 400);
    CHECK(r.txn.ops[1].range.deferred == NULL);
    CHECK_EQ(read_deferred(&r.txn.ops[2], "k00399", "v"), 400);
    CHECK_EQ(read_deferred(&r.txn.ops[3], "k00000", "v"), 400);
    hw_result_free(&r);
    hotkit_close(&k);
}

static void nobody_waits_for_what_another_node_proposed(void)
{
    struct hw_op ops[] = {op_count(), hotkit_op_put("k-new", "1")};
    struct hw_txn txn = {.success = ops, .success_count = 2};
    fill();
    CHECK_EQ(hotkit_txn(&k, &txn, NULL), 0);
    CHECK_EQ(hw_hot_open_scans(k.hot), 0);
    hotkit_close(&k);
}

static void compares_over_many_keys_are_refused_before_the_log(void)
{
    struct hw_compare c = {.target = HW_CMP_VERSION, .result = HW_CMP_GREATER, .key = S("k"), .range_end = S("l")};
    struct hw_compare many[14];
    struct hw_txn inner = {.compares = many, .compare_count = 14};
    struct hw_op op = hotkit_op_txn(&inner);
    struct hw_txn txn = {.compares = &c, .compare_count = 1, .failure = &op, .failure_count = 1};
    fill();
    for (int i = 0; i < 14; i++) {
        many[i] = c;
    }
    inner.compare_count = 12;
    CHECK_EQ(hw_hot_check_compares(k.hot, &txn), 0);
    inner.compare_count = 13;
    CHECK_EQ(hw_hot_check_compares(k.hot, &txn), HW_ERR_TOOBIG);
    many[0].range_end = S("");
    CHECK_EQ(hw_hot_check_compares(k.hot, &txn), 0);
    hotkit_close(&k);
}

HW_SUITE(hot_deferred, HW_CASE(each_sees_the_writes_before_it_and_none_that_come_later),
         HW_CASE(one_with_a_revision_of_its_own_outlives_compaction),
         HW_CASE(short_ranges_are_answered_at_once_until_together_they_are_long),
         HW_CASE(nobody_waits_for_what_another_node_proposed),
         HW_CASE(compares_over_many_keys_are_refused_before_the_log))
