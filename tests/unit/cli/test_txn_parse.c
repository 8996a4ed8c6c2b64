#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/rng.h"
#include "cli/txn_parse.h"
#include "tests/unit/hw_test.h"

static int parse(const char *text, Etcdserverpb__TxnRequest **txn, struct hw_ctl_txn_place *place, struct hw_error *e)
{
    memset(e, 0, sizeof *e);
    return hw_ctl_txn_parse(hw_slice_str(text), txn, place, e);
}

static bool is(ProtobufCBinaryData b, const char *text, size_t len)
{
    return b.len == len && memcmp(b.data, text, len) == 0;
}
#define IS(bytes, literal) is(bytes, literal, sizeof(literal) - 1)

static void a_whole_transaction_is_read(void)
{
    static const char text[] = "# move the leader\n"
                               "if value(\"k 1\") = \"v\\x00\\n\"\n"
                               "if version(k2) > 0\n"
                               "  if mod(k)!=7   # trailing words are a comment\n"
                               "if missing(new)\r\n"
                               "if exists(\"d/\" prefix)\n"
                               "\n"
                               "then put k v\n"
                               "then put \"a b\" \"\" lease 9 prev-kv\n"
                               "then del d/ prefix prev-kv\n"
                               "then get a to c limit 5 keys-only\n"
                               "else get \"\" prefix count-only rev 3";
    Etcdserverpb__TxnRequest *t;
    struct hw_ctl_txn_place place;
    struct hw_error e;
    REQUIRE(parse(text, &t, &place, &e) == 0);
    REQUIRE(t->n_compare == 5 && t->n_success == 4 && t->n_failure == 1);
    CHECK(IS(t->compare[0]->key, "k 1") && IS(t->compare[0]->value, "v\0\n"));
    CHECK_EQ(t->compare[0]->target, ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE);
    CHECK_EQ(t->compare[1]->result, ETCDSERVERPB__COMPARE__COMPARE_RESULT__GREATER);
    CHECK_EQ(t->compare[2]->result, ETCDSERVERPB__COMPARE__COMPARE_RESULT__NOT_EQUAL);
    CHECK_EQ(t->compare[2]->target_union_case, ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION);
    CHECK_EQ(t->compare[2]->mod_revision, 7);
    CHECK_EQ(t->compare[3]->target, ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION);
    CHECK_EQ(t->compare[3]->result, ETCDSERVERPB__COMPARE__COMPARE_RESULT__EQUAL);
    CHECK_EQ(t->compare[3]->version, 0);
    CHECK(IS(t->compare[4]->range_end, "d0"));
    CHECK(IS(t->success[0]->request_put->key, "k") && IS(t->success[0]->request_put->value, "v"));
    CHECK(IS(t->success[1]->request_put->value, "") && t->success[1]->request_put->prev_kv);
    CHECK_EQ(t->success[1]->request_put->lease, 9);
    CHECK(IS(t->success[2]->request_delete_range->range_end, "d0") && t->success[2]->request_delete_range->prev_kv);
    CHECK(IS(t->success[3]->request_range->range_end, "c") && t->success[3]->request_range->keys_only);
    CHECK_EQ(t->success[3]->request_range->limit, 5);
    CHECK(IS(t->failure[0]->request_range->key, "\0") && IS(t->failure[0]->request_range->range_end, "\0"));
    CHECK(t->failure[0]->request_range->count_only);
    CHECK_EQ(t->failure[0]->request_range->revision, 3);
    etcdserverpb__txn_request__free_unpacked(t, NULL);
}

static void a_mistake_is_told_with_its_place(void)
{
    static const struct {
        const char *text;
        unsigned line, column;
        const char *why;
    } cases[] = {
        {"", 0, 0, "no operation"},
        {"if exists(k)", 0, 0, "no operation"},
        {"when x", 1, 1, "begins with if, then or else"},
        {"\n  when x", 2, 3, "begins with"},
        {"\"if\" exists(k)", 1, 1, "begins with"},
        {"if", 1, 3, "a condition is missing"},
        {"if size(k) = 1", 1, 4, "want a condition"},
        {"if value", 1, 9, "want '(' after the target"},
        {"if value(", 1, 10, "the key is missing"},
        {"if value()", 1, 10, "want the key, not ')'"},
        {"if value(k", 1, 11, "want ')' after the key"},
        {"if value(k x) = 1", 1, 12, "want ')', prefix"},
        {"if value(\"\") = v", 1, 10, "the key is empty"},
        {"if value(k) ~ v", 1, 13, "want one of = != < >"},
        {"if value(k) ! v", 1, 13, "want one of"},
        {"if value(k) =", 1, 14, "the value is missing"},
        {"if mod(k) = x", 1, 13, "is a number"},
        {"if mod(k) = -1", 1, 13, "is a number"},
        {"if mod(k) = \"1\"", 1, 13, "is a number"},
        {"if mod(k) = 99999999999999999999", 1, 13, "is a number"},
        {"if mod(k) = 1 2", 1, 15, "nothing may follow"},
        {"then", 1, 5, "an operation (put, get or del) is missing"},
        {"then push k", 1, 6, "want an operation"},
        {"then put", 1, 9, "the key is missing"},
        {"then put k", 1, 11, "the value is missing"},
        {"then put \"\" v", 1, 10, "the key is empty"},
        {"then put k v w", 1, 14, "unknown word \"w\""},
        {"then put k v lease", 1, 19, "the lease is missing"},
        {"then put k \"v", 1, 12, "the quote is not closed"},
        {"then put k \"v\\", 1, 14, "the quote is not closed"},
        {"then put k \"v\\q\"", 1, 14, "unknown escape"},
        {"then put k \"\\x4\"", 1, 13, "two hexadecimal digits"},
        {"then get k prefix from-key", 1, 19, "exclude each other"},
        {"then get k limit few", 1, 18, "is a number"},
        {"then get \"\"", 1, 10, "the key is empty"},
        {"then put a 1\n\nelse del", 3, 9, "the key is missing"},
        {"then del k keys-only", 1, 12, "unknown word"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Etcdserverpb__TxnRequest *t;
        struct hw_ctl_txn_place place;
        struct hw_error e;
        CHECK_EQ(parse(cases[i].text, &t, &place, &e), HW_ERR_INVALID);
        CHECK(t == NULL);
        if (place.line != cases[i].line || place.column != cases[i].column || strstr(e.text, cases[i].why) == NULL) {
            fprintf(stderr, "case %zu \"%s\": %u:%u %s\n", i, cases[i].text, place.line, place.column, e.text);
        }
        CHECK_EQ(place.line, cases[i].line);
        CHECK_EQ(place.column, cases[i].column);
        CHECK(strstr(e.text, cases[i].why) != NULL);
    }
}

static void any_bytes_are_read_or_refused(void)
{
    static const char *const pieces[] = {"if ", "then ", "else ", "value(", "k",       ")",       " = ",
                                         "\"",  "\\x",   "put ",  "get ",   "del ",    "prefix ", "\n",
                                         "#",   "7 ",    "to ",   "\\",     "exists(", "limit "};
    struct hw_rng rng;
    hw_rng_seed(&rng, 42);
    for (unsigned round = 0; round < 20000; round++) {
        char text[256] = "";
        Etcdserverpb__TxnRequest *t;
        struct hw_ctl_txn_place place;
        struct hw_error e;
        unsigned count = (unsigned)hw_rng_below(&rng, 16);
        for (unsigned i = 0; i < count; i++) {
            size_t used = strlen(text);
            snprintf(text + used, sizeof text - used, "%s",
                     pieces[hw_rng_below(&rng, sizeof pieces / sizeof pieces[0])]);
        }
        int rc = parse(text, &t, &place, &e);
        CHECK(rc == 0 || (rc == HW_ERR_INVALID && e.text[0] != '\0' && t == NULL));
        if (rc == 0) {
            etcdserverpb__txn_request__free_unpacked(t, NULL);
        }
    }
}

static void too_many_lines_are_refused(void)
{
    struct hw_buf text = {0};
    Etcdserverpb__TxnRequest *t;
    struct hw_ctl_txn_place place;
    struct hw_error e = {0};
    for (unsigned i = 0; i <= HW_CTL_TXN_OPS_MAX; i++) {
        hw_buf_append_str(&text, "then del k\n");
    }
    CHECK_EQ(hw_ctl_txn_parse(hw_buf_slice(&text), &t, &place, &e), HW_ERR_INVALID);
    CHECK_EQ(place.line, HW_CTL_TXN_OPS_MAX + 1);
    hw_buf_free(&text);
}

HW_SUITE(cli_txn_parse, HW_CASE(a_whole_transaction_is_read), HW_CASE(a_mistake_is_told_with_its_place),
         HW_CASE(any_bytes_are_read_or_refused), HW_CASE(too_many_lines_are_refused))
