/* What is wrong with a transaction, whatever the state: etcd's checks and texts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"

#define DUPLICATE "etcdserver: duplicate key given in txn request"
#define TOO_MANY "etcdserver: too many operations in txn request"

/* A transaction as a text: "a" puts a, "-a" deletes a, "-a:c" deletes [a, c), "-a:*" deletes from a on, "(x|y)" nests a
 * transaction with x in the first branch and y in the second. One letter a key. */
static void parse_list(const char **at, struct hw_op **ops, size_t *count);

static struct hw_txn *parse_nested(const char **at)
{
    struct hw_txn *txn = calloc(1, sizeof *txn);
    (*at)++;
    parse_list(at, &txn->success, &txn->success_count);
    if (**at == '|') {
        (*at)++;
        parse_list(at, &txn->failure, &txn->failure_count);
    }
    (*at)++;
    return txn;
}

static struct hw_op parse_delete(const char **at)
{
    struct hw_op op = {.type = HW_OP_DELETE, .del = {.key = hw_slice_of(*at + 1, 1)}};
    *at += 2;
    if (**at == ':') {
        op.del.range_end = (*at)[1] == '*' ? OPEN_END : hw_slice_of(*at + 1, 1);
        *at += 2;
    }
    return op;
}

static void parse_list(const char **at, struct hw_op **ops, size_t *count)
{
    *ops = calloc(strlen(*at) + 1, sizeof **ops);
    *count = 0;
    while (**at != '\0' && **at != '|' && **at != ')') {
        struct hw_op *op = &(*ops)[*count];
        if (**at == ' ') {
            (*at)++;
            continue;
        }
        if (**at == '(') {
            *op = hotkit_op_txn(parse_nested(at));
        } else if (**at == '-') {
            *op = parse_delete(at);
        } else {
            *op = (struct hw_op){.type = HW_OP_PUT, .put = {.key = hw_slice_of((*at)++, 1)}};
        }
        (*count)++;
    }
}

/* NULL when nothing is wrong with it. */
static const char *check(const char *text, size_t ops_max)
{
    static struct hw_error e;
    char wrapped[256];
    const char *at = wrapped;
    struct hw_cmd cmd = {.type = HW_CMD_TXN};
    struct hw_txn *txn;
    int rc;
    snprintf(wrapped, sizeof wrapped, "(%s)", text);
    txn = parse_nested(&at);
    rc = hw_hot_check_txn(txn, ops_max, &e);
    cmd.txn = *txn;
    hw_cmd_free(&cmd);
    free(txn);
    CHECK(rc == 0 || rc == HW_ERR_INVALID);
    return rc == 0 ? NULL : e.text;
}

static void no_key_is_written_twice(void)
{
    static const struct {
        const char *txn;
        bool is_refused;
    } cases[] = {
        {"", false},
        {"a b c", false},
        {"a b a", true},
        {"b|a a", true},
        {"a|a", false},
        {"a -a", true},
        {"-a a", true},
        {"-a -a", false},
        {"-a:c b", true},
        {"-a:c c", false},
        {"-a:c a", true},
        {"-b:* a", false},
        {"-b:* c", true},
        {"-c:a b", false},
        {"-a|a", false},
        {"(a) a", true},
        {"(a) (a)", true},
        {"(a|a)", false},
        {"(a|b) b", true},
        {"(a|a) (b|a)", true},
        {"(a|-a)", false},
        {"(-a|a)", false},
        {"-a (b) (c|a)", true},
        {"(-a) a", true},
        {"(b|-a) a", true},
        {"(a) (-a)", false},
        {"(-a) (a)", true},
        {"(c|-a:c) (d|b)", true},
        {"((a)) (-a)", false},
        {"((-a)) ((a))", true},
        {"((a|-a)) (b)", false},
        {"((a) (-a)) (b)", false},
        {"((a) (-a)) -a", true},
        {"((-a)|(a)) b", false},
        {"((-a)|(a)) (-a)", false},
        {"((-a)|b) (a)", true},
        {"(((((((a))))))) a", true},
    };
    for (size_t i = 0; i < hw_array_len(cases); i++) {
        const char *problem = check(cases[i].txn, 128);
        if ((problem != NULL) != cases[i].is_refused) {
            printf("  \"%s\": %s\n", cases[i].txn, problem != NULL ? problem : "accepted");
        }
        CHECK_EQ(problem != NULL, cases[i].is_refused);
        if (problem != NULL) {
            CHECK_STR(problem, DUPLICATE);
        }
    }
}

static void operations_are_counted_as_etcd_counts_them(void)
{
    CHECK(check("a b c", 3) == NULL);
    CHECK_STR(check("a b c d", 3), TOO_MANY);
    CHECK(check("a b c|d e f", 3) == NULL);
    CHECK_STR(check("|a b c d", 3), TOO_MANY);
    /* A nested one has what its parent left over. */
    CHECK(check("a (b)", 3) == NULL);
    CHECK_STR(check("a (b c)", 3), TOO_MANY);
    CHECK(check("((((((((a))))))))", 128) != NULL);
    CHECK(check("(((((((a)))))))", 128) == NULL);
}

static void operations_are_checked_one_by_one(void)
{
    struct hw_op op = hotkit_op_put("k", "v");
    struct hw_compare c = {.key = S("")};
    struct hw_txn txn = {.failure = &op, .failure_count = 1};
    struct hw_error e;
    op.put.ignore_value = true;
    CHECK_EQ(hw_hot_check_txn(&txn, 128, &e), HW_ERR_INVALID);
    CHECK_STR(e.text, "etcdserver: value is provided");
    op.put.ignore_value = false;
    op.put.ignore_lease = true;
    op.put.lease = 1;
    CHECK_EQ(hw_hot_check_txn(&txn, 128, &e), HW_ERR_INVALID);
    CHECK_STR(e.text, "etcdserver: lease is provided");
    op = hotkit_op_delete("", "x");
    CHECK_EQ(hw_hot_check_txn(&txn, 128, &e), HW_ERR_INVALID);
    CHECK_STR(e.text, "etcdserver: key is not provided");
    op = hotkit_op_get("");
    CHECK_EQ(hw_hot_check_txn(&txn, 128, &e), HW_ERR_INVALID);
    op = (struct hw_op){0};
    CHECK_EQ(hw_hot_check_txn(&txn, 128, &e), HW_ERR_INVALID);
    CHECK_STR(e.text, "etcdserver: key not found");
    op = hotkit_op_txn(NULL);
    CHECK_EQ(hw_hot_check_txn(&txn, 128, &e), HW_ERR_INVALID);
    op = hotkit_op_get("k");
    CHECK_EQ(hw_hot_check_txn(&txn, 128, &e), 0);
    txn.compares = &c;
    txn.compare_count = 1;
    CHECK_EQ(hw_hot_check_txn(&txn, 128, &e), HW_ERR_INVALID);
    CHECK_STR(e.text, "etcdserver: key is not provided");
}

/* Half of the largest transaction puts, each nested by itself, and then every delete covers all of them: the case that
 * is quadratic when pairs are looked at. */
static void the_largest_transaction_is_checked_fast(void)
{
    enum { HALF = HW_TXN_OPS_HARD_MAX / 4 };
    static struct hw_op inner[2 * HALF];
    static struct hw_txn nested[2 * HALF];
    static struct hw_op outer[2 * HALF];
    static char keys[HALF][8];
    uint64_t start = hw_mono_ms();
    for (size_t i = 0; i < 2 * HALF; i++) {
        if (i < HALF) {
            snprintf(keys[i], sizeof keys[i], "%07zu", i);
            inner[i] = hotkit_op_put(keys[i], "");
        } else {
            inner[i] = (struct hw_op){.type = HW_OP_DELETE, .del = {.key = S("0"), .range_end = OPEN_END}};
        }
        nested[i] = (struct hw_txn){.success = &inner[i], .success_count = 1};
        outer[i] = hotkit_op_txn(&nested[i]);
    }
    CHECK_EQ(hw_hot_check_txn(&(struct hw_txn){.success = outer, .success_count = 2 * HALF}, HW_TXN_OPS_HARD_MAX, NULL),
             0);
    CHECK(hw_mono_ms() - start < 2000);
}

HW_SUITE(hot_shape, HW_CASE(no_key_is_written_twice), HW_CASE(operations_are_counted_as_etcd_counts_them),
         HW_CASE(operations_are_checked_one_by_one), HW_CASE(the_largest_transaction_is_checked_fast))
