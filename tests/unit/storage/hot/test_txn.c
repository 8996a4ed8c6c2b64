/* Puts, deletes and transactions: etcd's semantics. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"

#define THEN(list) .success = (list), .success_count = hw_array_len(list)
#define ELSE(list) .failure = (list), .failure_count = hw_array_len(list)
#define IF(list) .compares = (list), .compare_count = hw_array_len(list)

/* The code's name, or the result as text. */
static const char *run(struct kit *k, const struct hw_txn *txn)
{
    static char text[4096];
    struct hw_buf out = {0};
    struct hw_result r;
    int code = hotkit_txn(k, txn, &r);
    if (code != 0) {
        snprintf(text, sizeof text, "%s", hw_err_name(code));
    } else {
        hotkit_result_text(&out, &r.txn);
        snprintf(text, sizeof text, "%.*s", (int)out.len, (const char *)out.data);
    }
    hw_buf_free(&out);
    hw_result_free(&r);
    return text;
}

static const char *run_op(struct kit *k, struct hw_op op)
{
    return run(k, &(struct hw_txn){.success = &op, .success_count = 1});
}

static void puts_count_versions_and_keep_their_creation(void)
{
    static struct kit k;
    struct hw_op put = hotkit_op_put("k", "1");
    put.put.prev_kv = true;
    hotkit_open(&k);
    CHECK_EQ(hw_hot_revision(k.hot), 1);
    CHECK_STR(run_op(&k, put), "then[P2:/0;]");
    put.put.value = S("2");
    CHECK_STR(run_op(&k, put), "then[P3:k=1(2,2,1) /0;]");
    CHECK_STR(run_op(&k, hotkit_op_get("k")), "then[R3:k=2(2,3,2) /1;]");
    CHECK_EQ(hotkit_delete(&k, "k", S("")), 0);
    CHECK_STR(run_op(&k, put), "then[P5:/0;]");
    CHECK_STR(run_op(&k, hotkit_op_get("k")), "then[R5:k=2(5,5,1) /1;]");
    CHECK_EQ(hw_hot_key_count(k.hot), 1);
    CHECK_EQ(hw_hot_version_count(k.hot), 4);
    hotkit_close(&k);
}

static void a_put_may_keep_value_or_lease(void)
{
    static struct kit k;
    struct hw_op keep = hotkit_op_put("k", "");
    struct hw_op lease = hotkit_op_put("k", "x");
    keep.put.ignore_value = true;
    hotkit_open(&k);
    CHECK_STR(run_op(&k, keep), "NOTFOUND");
    hotkit_put(&k, "k", "old");
    CHECK_STR(run_op(&k, keep), "then[P3:/0;]");
    CHECK_STR(hotkit_all(&k, 0), "k=old /1");
    lease.put.ignore_lease = true;
    CHECK_STR(run_op(&k, lease), "then[P4:/0;]");
    lease.put.ignore_lease = false;
    lease.put.lease = 1234;
    CHECK_STR(run_op(&k, lease), "PRECONDITION");
    hotkit_delete(&k, "k", S(""));
    CHECK_STR(run_op(&k, keep), "NOTFOUND");
    keep.put.value = S("no");
    CHECK_STR(run_op(&k, keep), "INVALID");
    lease.put.ignore_lease = true;
    CHECK_STR(run_op(&k, lease), "INVALID");
    CHECK_STR(run_op(&k, hotkit_op_put("", "x")), "INVALID");
    CHECK_EQ(hw_hot_revision(k.hot), 5);
    hotkit_close(&k);
}

static void deletes_leave_no_trace_when_there_is_nothing(void)
{
    static struct kit k;
    struct hw_op del = hotkit_op_delete("a", "c");
    del.del.prev_kv = true;
    hotkit_open(&k);
    CHECK_STR(run_op(&k, del), "then[D1:/0;]");
    hotkit_put(&k, "a", "1");
    hotkit_put(&k, "b", "2");
    hotkit_put(&k, "c", "3");
    CHECK_STR(run_op(&k, del), "then[D5:a=1(2,2,1) b=2(3,3,1) /2;]");
    CHECK_STR(run_op(&k, del), "then[D5:/0;]");
    CHECK_EQ(hw_hot_revision(k.hot), 5);
    CHECK_STR(hotkit_all(&k, 0), "c=3 /1");
    CHECK_STR(hotkit_all(&k, 4), "a=1 b=2 c=3 /3");
    hotkit_close(&k);
}

static void reads_see_the_writes_before_them(void)
{
    static struct kit k;
    struct hw_op ops[] = {hotkit_op_get("a"),
                          hotkit_op_put("a", "1"),
                          hotkit_op_get("a"),
                          hotkit_op_put("b", "2"),
                          {.type = HW_OP_RANGE, .range = {.key = OPEN_END, .range_end = OPEN_END}},
                          {.type = HW_OP_RANGE, .range = {.key = OPEN_END, .range_end = OPEN_END, .revision = 1}}};
    struct hw_op late[] = {hotkit_op_put("c", "3"), hotkit_op_get("a")};
    hotkit_open(&k);
    CHECK_STR(run(&k, &(struct hw_txn){THEN(ops)}),
              "then[R1:/0;P2:/0;R2:a=1(2,2,1) /1;P2:/0;R2:a=1(2,2,1) b=2(2,2,1) /2;R2:/0;]");
    CHECK_EQ(hw_hot_revision(k.hot), 2);
    CHECK_STR(hotkit_all(&k, 2), "a=1 b=2 /2");
    late[1].range.revision = 3; /* the revision that this transaction is about to make: still the future */
    CHECK_STR(run(&k, &(struct hw_txn){THEN(late)}), "FUTURE");
    CHECK_EQ(hw_hot_check_reads(k.hot, &(struct hw_txn){THEN(late)}), HW_ERR_FUTURE);
    CHECK_EQ(hotkit_compact(&k, 2), 0);
    late[1].range.revision = 1;
    CHECK_STR(run(&k, &(struct hw_txn){THEN(late)}), "COMPACTED");
    CHECK_EQ(hw_hot_check_reads(k.hot, &(struct hw_txn){THEN(late)}), HW_ERR_COMPACTED);
    CHECK_EQ(hw_hot_check_reads(k.hot, &(struct hw_txn){ELSE(late)}), 0);
    CHECK_EQ(hw_hot_check_reads(k.hot, &(struct hw_txn){THEN(ops)}), HW_ERR_COMPACTED);
    CHECK_STR(hotkit_all(&k, 0), "a=1 b=2 /2");
    /* Only what runs is checked. */
    CHECK_STR(run(&k, &(struct hw_txn){ELSE(late)}), "then[]");
    hotkit_close(&k);
}

static void a_nested_delete_may_follow_a_put(void)
{
    static struct kit k;
    struct hw_op put[] = {hotkit_op_put("k", "v")};
    struct hw_op del[] = {hotkit_op_delete("k", "")};
    struct hw_txn first = {THEN(put)};
    struct hw_txn second = {THEN(del)};
    struct hw_op both[] = {hotkit_op_txn(&first), hotkit_op_txn(&second), hotkit_op_get("k")};
    struct hw_op reversed[] = {hotkit_op_txn(&second), hotkit_op_txn(&first)};
    hotkit_open(&k);
    CHECK_STR(run(&k, &(struct hw_txn){THEN(both)}), "then[T0:then[P2:/0;]T0:then[D2:/1;]R2:/0;]");
    CHECK_EQ(hw_hot_revision(k.hot), 2);
    CHECK_EQ(hw_hot_version_count(k.hot), 2);
    CHECK_STR(run(&k, &(struct hw_txn){THEN(reversed)}), "INVALID");
    hotkit_close(&k);
}

static void nested_compares_see_the_state_before(void)
{
    static struct kit k;
    struct hw_compare is_new[] = {{.result = HW_CMP_EQUAL, .target = HW_CMP_VERSION, .key = S("a")}};
    struct hw_op yes[] = {hotkit_op_put("yes", "1")};
    struct hw_op no[] = {hotkit_op_put("no", "1")};
    struct hw_txn inner = {IF(is_new), THEN(yes), ELSE(no)};
    struct hw_op outer[] = {hotkit_op_put("a", "1"), hotkit_op_txn(&inner)};
    hotkit_open(&k);
    CHECK_STR(run(&k, &(struct hw_txn){THEN(outer)}), "then[P2:/0;T0:then[P2:/0;]]");
    CHECK_STR(run(&k, &(struct hw_txn){THEN(outer)}), "then[P3:/0;T0:else[P3:/0;]]");
    CHECK_STR(hotkit_all(&k, 0), "a=1 no=1 yes=1 /3");
    hotkit_close(&k);
}

struct compare_case {
    struct hw_compare compare;
    bool holds;
};

static void compares(void)
{
    static struct kit k;
    const struct compare_case cases[] = {
        {{.target = HW_CMP_VALUE, .key = S("a"), .value = S("1")}, true},
        {{.target = HW_CMP_VALUE, .key = S("a"), .value = S("2")}, false},
        {{.result = HW_CMP_GREATER, .target = HW_CMP_VALUE, .key = S("a"), .value = S("0")}, true},
        {{.result = HW_CMP_LESS, .target = HW_CMP_VALUE, .key = S("a"), .value = S("10")}, true},
        {{.result = HW_CMP_NOT_EQUAL, .target = HW_CMP_VALUE, .key = S("a"), .value = S("1")}, false},
        {{.target = HW_CMP_VERSION, .key = S("b"), .number = 2}, true},
        {{.target = HW_CMP_CREATE, .key = S("b"), .number = 3}, true},
        {{.target = HW_CMP_MOD, .key = S("b"), .number = 4}, true},
        {{.result = HW_CMP_GREATER, .target = HW_CMP_MOD, .key = S("b"), .number = 4}, false},
        {{.target = HW_CMP_LEASE, .key = S("b")}, true},
        /* A key that is not there: no value at all, numbers 0. */
        {{.target = HW_CMP_VALUE, .key = S("x")}, false},
        {{.result = HW_CMP_NOT_EQUAL, .target = HW_CMP_VALUE, .key = S("x"), .value = S("1")}, false},
        {{.target = HW_CMP_VERSION, .key = S("x")}, true},
        {{.target = HW_CMP_CREATE, .key = S("x")}, true},
        {{.target = HW_CMP_MOD, .key = S("x"), .number = 1}, false},
        {{.result = HW_CMP_LESS, .target = HW_CMP_MOD, .key = S("x"), .number = 1}, true},
        {{.target = HW_CMP_LEASE, .key = S("x")}, true},
        {{.result = HW_CMP_GREATER, .target = HW_CMP_CREATE, .key = S("gone")}, false},
        /* Ranges: every key must hold; one without keys counts as a key that is not there. */
        {{.result = HW_CMP_GREATER, .target = HW_CMP_CREATE, .key = S("a"), .range_end = S("c")}, true},
        {{.target = HW_CMP_VERSION, .key = S("a"), .range_end = S("c"), .number = 1}, false},
        {{.target = HW_CMP_VALUE, .key = S("a"), .range_end = S("b"), .value = S("1")}, true},
        {{.result = HW_CMP_GREATER, .target = HW_CMP_MOD, .key = OPEN_END, .range_end = OPEN_END, .number = 1}, true},
        {{.target = HW_CMP_VERSION, .key = S("x"), .range_end = S("z")}, true},
        {{.target = HW_CMP_VALUE, .key = S("x"), .range_end = S("z")}, false},
    };
    hotkit_open(&k);
    hotkit_put(&k, "a", "1");
    hotkit_put(&k, "b", "1");
    hotkit_put(&k, "b", "2");
    hotkit_put(&k, "gone", "");
    hotkit_delete(&k, "gone", S(""));
    for (size_t i = 0; i < hw_array_len(cases); i++) {
        struct hw_compare c = cases[i].compare;
        const char *got = run(&k, &(struct hw_txn){.compares = &c, .compare_count = 1});
        if (strcmp(got, cases[i].holds ? "then[]" : "else[]") != 0) {
            printf("  compare %zu: %s\n", i, got);
        }
        CHECK_STR(got, cases[i].holds ? "then[]" : "else[]");
    }
    CHECK_EQ(hw_hot_revision(k.hot), 6);
    hotkit_close(&k);
}

static void every_compare_must_hold(void)
{
    static struct kit k;
    struct hw_compare both[] = {{.target = HW_CMP_VERSION, .key = S("a"), .number = 1},
                                {.target = HW_CMP_VERSION, .key = S("b"), .number = 1}};
    struct hw_op yes[] = {hotkit_op_put("b", "1")};
    struct hw_txn txn = {IF(both), THEN(yes), ELSE(yes)};
    hotkit_open(&k);
    CHECK_STR(run(&k, &txn), "else[P2:/0;]");
    hotkit_put(&k, "a", "1");
    CHECK_STR(run(&k, &txn), "then[P4:/0;]");
    CHECK_STR(run(&k, &txn), "else[P5:/0;]");
    hotkit_close(&k);
}

static void a_refused_transaction_changes_nothing(void)
{
    static struct kit k;
    struct hw_op ops[] = {hotkit_op_put("a", "1"), hotkit_op_delete("b", ""), hotkit_op_put("missing", "")};
    uint64_t hash;
    hotkit_open(&k);
    hotkit_put(&k, "b", "2");
    hash = hw_hot_hash(k.hot);
    ops[2].put.ignore_value = true;
    CHECK_STR(run(&k, &(struct hw_txn){THEN(ops)}), "NOTFOUND");
    CHECK_STR(hotkit_all(&k, 0), "b=2 /1");
    CHECK_EQ(hw_hot_revision(k.hot), 2);
    CHECK_EQ(hw_hot_hash(k.hot), hash);
    CHECK_EQ(hw_hot_applied(k.hot), 2);
    hotkit_close(&k);
}

struct fed {
    char text[256];
    size_t calls;
};

static void note_feed(void *ctx, hw_rev revision, struct hw_version *const *versions, size_t count)
{
    struct fed *f = ctx;
    size_t at = strlen(f->text);
    f->calls++;
    at += (size_t)snprintf(f->text + at, sizeof f->text - at, "%d:", (int)revision);
    for (size_t i = 0; i < count; i++) {
        at += (size_t)snprintf(f->text + at, sizeof f->text - at, "%s%.*s.%u ", versions[i]->is_tombstone ? "-" : "+",
                               (int)versions[i]->key->len, (const char *)versions[i]->key->data, versions[i]->mod_sub);
    }
}

static void the_feed_tells_every_write_once(void)
{
    static struct kit k;
    struct fed fed = {0};
    struct hw_op ops[] = {hotkit_op_put("c", "1"), hotkit_op_delete("a", "b"), hotkit_op_put("b", "2")};
    hotkit_open(&k);
    hotkit_put(&k, "a", "0");
    hw_hot_set_feed(k.hot, note_feed, &fed);
    CHECK_STR(run(&k, &(struct hw_txn){THEN(ops)}), "then[P3:/0;D3:/1;P3:/0;]");
    hotkit_delete(&k, "nothing", S(""));
    hotkit_put(&k, "a", "1");
    CHECK_STR(fed.text, "3:+c.0 -a.1 +b.2 4:+a.0 ");
    CHECK_EQ(fed.calls, 2);
    hotkit_close(&k);
}

static void a_result_outlives_what_it_names(void)
{
    static struct kit k;
    struct hw_op get = {.type = HW_OP_RANGE, .range = {.key = OPEN_END, .range_end = OPEN_END}};
    struct hw_buf out = {0};
    struct hw_result r;
    hotkit_open(&k);
    for (int i = 0; i < 200; i++) {
        char key[8];
        snprintf(key, sizeof key, "%03d", i);
        hotkit_put(&k, key, "v");
    }
    CHECK_EQ(hotkit_txn(&k, &(struct hw_txn){.success = &get, .success_count = 1}, &r), 0);
    hotkit_delete(&k, "0", OPEN_END);
    hotkit_put(&k, "last", "1");
    hotkit_compact(&k, hw_hot_revision(k.hot));
    hotkit_sweep(&k, 10);
    CHECK_EQ(hw_hot_version_count(k.hot), 1);
    hotkit_close(&k);
    hotkit_result_text(&out, &r.txn);
    CHECK(out.len > 200 * 8);
    CHECK_EQ(r.txn.ops[0].range.count, 200);
    hw_result_free(&r);
    hw_buf_free(&out);
}

static void a_delete_that_would_hold_the_loop_is_refused_whole(void)
{
    static struct kit k;
    hw_rev revision;
    hotkit_open(&k);
    for (unsigned i = 0; i <= HW_DELETE_KEYS_MAX; i++) {
        char key[32];
        snprintf(key, sizeof key, "d/%06u", i);
        CHECK_EQ(hotkit_put(&k, key, "v"), 0);
    }
    revision = hw_hot_revision(k.hot);
    CHECK_EQ(hotkit_delete(&k, "d/", hw_slice_str("d0")), HW_ERR_TOOBIG);
    CHECK_EQ(hw_hot_revision(k.hot), revision);
    CHECK_EQ(hotkit_delete(&k, "d/", hw_slice_str("d/000001")), 0);
    CHECK_EQ(hotkit_delete(&k, "d/", hw_slice_str("d0")), 0);
    CHECK_EQ(hw_hot_key_count(k.hot), 0);
    hotkit_close(&k);
}

HW_SUITE(hot_txn, HW_CASE(a_delete_that_would_hold_the_loop_is_refused_whole),
         HW_CASE(puts_count_versions_and_keep_their_creation), HW_CASE(a_put_may_keep_value_or_lease),
         HW_CASE(deletes_leave_no_trace_when_there_is_nothing), HW_CASE(reads_see_the_writes_before_them),
         HW_CASE(a_nested_delete_may_follow_a_put), HW_CASE(nested_compares_see_the_state_before), HW_CASE(compares),
         HW_CASE(every_compare_must_hold), HW_CASE(a_refused_transaction_changes_nothing),
         HW_CASE(the_feed_tells_every_write_once), HW_CASE(a_result_outlives_what_it_names))
