/* get, put, del, txn, compact, bench: requests and output. */
#include <stdlib.h>
#include <string.h>

#include "cli/kv_print.h"
#include "cli/range.h"
#include "cli/samples.h"
#include "tests/unit/cli/fixture.h"
#include "tests/unit/hw_test.h"

#define RANGE "/etcdserverpb.KV/Range"
#define PUT "/etcdserverpb.KV/Put"
#define BYTES(literal) ((ProtobufCBinaryData){sizeof(literal) - 1, (uint8_t *)(char[]){literal}})

static void reply_kvs(struct fake *f, size_t count)
{
    Etcdserverpb__RangeResponse r = ETCDSERVERPB__RANGE_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader h = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Mvccpb__KeyValue kv[2] = {MVCCPB__KEY_VALUE__INIT, MVCCPB__KEY_VALUE__INIT};
    Mvccpb__KeyValue *kvs[] = {&kv[0], &kv[1]};
    kv[0].key = BYTES("k");
    kv[0].value = BYTES("one\n\x01\\");
    kv[0].mod_revision = 12;
    kv[0].create_revision = 11;
    kv[0].version = 2;
    kv[1].key = BYTES("k2");
    kv[1].value = BYTES("");
    kv[1].mod_revision = 13;
    kv[1].version = 1;
    h.cluster_id = 0xc0ffee;
    h.revision = 13;
    r.header = &h;
    r.n_kvs = count;
    r.kvs = kvs;
    r.count = (int64_t)count;
    fake_reply(f, RANGE, &r.base);
}

static void get_has_a_table_plain_and_json(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    reply_kvs(f, 2);
    CHECK_EQ(fixture_run(fx, "get", "k", "--prefix", NULL), 0);
    CHECK_STR(fx->out, "KEY  VALUE        MOD  VERSION\n"
                       "k    one\\n\\x01\\\\   12        2\n"
                       "k2                 13        1\n");
    CHECK_EQ(fixture_run(fx, "get", "k", "--prefix", "-o", "plain", NULL), 0);
    CHECK_STR(fx->out, "k\none\n\x01\\\nk2\n\n");
    CHECK_EQ(fixture_run(fx, "get", "k", "--prefix", "--keys-only", NULL), 0);
    CHECK_STR(fx->out, "k\nk2\n");
    CHECK_EQ(fixture_run(fx, "get", "k", "--prefix", "--count-only", NULL), 0);
    CHECK_STR(fx->out, "2\n");
    reply_kvs(f, 1);
    CHECK_EQ(fixture_run(fx, "get", "k", "-o", "json", NULL), 0);
    CHECK_STR(fx->out,
              "{\"header\":{\"cluster_id\":\"0000000000c0ffee\",\"member_id\":\"0000000000000000\",\"revision\":13,"
              "\"raft_term\":0},\"kvs\":[{\"key\":\"aw==\",\"create_revision\":11,\"mod_revision\":12,"
              "\"version\":2,\"value\":\"b25lCgFc\",\"lease\":0}],\"more\":false,\"count\":1}\n");
    fixture_free(fx);
}

static void get_of_a_missing_key_is_exit_4(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    reply_kvs(f, 0);
    CHECK_EQ(fixture_run(fx, "get", "no\nthing", NULL), 4);
    CHECK(strstr(fx->err, "hwctl: get: key \"no\\nthing\" is not there. ") == fx->err);
    CHECK_EQ(fixture_run(fx, "get", "k", "--prefix", NULL), 0);
    CHECK_STR(fx->out, "");
    fixture_free(fx);
}

static void get_flags_fill_the_request(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    struct fake_route *route = fake_route(f, RANGE);
    Etcdserverpb__RangeRequest *q;
    reply_kvs(f, 2);
    CHECK_EQ(fixture_run(fx, "get", "a\xff", "--prefix", "--limit", "3", "--rev", "4", "--serializable", "--sort-by",
                         "mod", "--order", "descend", NULL),
             0);
    q = etcdserverpb__range_request__unpack(NULL, route->request.len, route->request.data);
    REQUIRE(q != NULL);
    CHECK(q->range_end.len == 1 && q->range_end.data[0] == 'b');
    CHECK_EQ(q->limit, 3);
    CHECK_EQ(q->revision, 4);
    CHECK(q->serializable && !q->keys_only);
    CHECK_EQ(q->sort_target, ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__MOD);
    CHECK_EQ(q->sort_order, ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND);
    etcdserverpb__range_request__free_unpacked(q, NULL);
    CHECK_EQ(fixture_run(fx, "get", "a", "b", "--prefix", NULL), 2);
    CHECK_EQ(fixture_run(fx, "get", "", NULL), 2);
    CHECK_EQ(fixture_run(fx, "get", "", "--from-key", NULL), 0);
    fixture_free(fx);
}

static void ranges_follow_etcd(void)
{
    static const struct {
        enum hw_ctl_range_kind kind;
        const char *key;
        const char *end;
        size_t end_len;
    } cases[] = {
        {HW_CTL_RANGE_ONE, "a", "", 0},
        {HW_CTL_RANGE_PREFIX, "a", "b", 1},
        {HW_CTL_RANGE_PREFIX, "a\xff\xff", "b", 1},
        {HW_CTL_RANGE_PREFIX, "\xff", "\0", 1},
        {HW_CTL_RANGE_PREFIX, "", "\0", 1},
        {HW_CTL_RANGE_FROM, "m", "\0", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hw_slice key = hw_slice_str(cases[i].key);
        struct hw_slice end;
        struct hw_buf buf = {0};
        hw_ctl_range_of(cases[i].kind, &key, &end, &buf);
        CHECK(hw_slice_is_equal(end, hw_slice_of(cases[i].end, cases[i].end_len)));
        CHECK(key.len > 0);
        hw_buf_free(&buf);
    }
}

static void put_reads_stdin_and_checks_its_arguments(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    struct fake_route *route = fake_route(f, PUT);
    Etcdserverpb__PutResponse r = ETCDSERVERPB__PUT_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader h = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Etcdserverpb__PutRequest *q;
    h.revision = 5;
    r.header = &h;
    fake_reply(f, PUT, &r.base);
    fx->input = "from stdin\n";
    CHECK_EQ(fixture_run(fx, "put", "k", "-", "--lease", "3", "--prev-kv", NULL), 0);
    CHECK_STR(fx->out, "OK revision 5\n");
    q = etcdserverpb__put_request__unpack(NULL, route->request.len, route->request.data);
    REQUIRE(q != NULL);
    CHECK(q->value.len == 11 && memcmp(q->value.data, "from stdin\n", 11) == 0);
    CHECK(q->lease == 3 && q->prev_kv && !q->ignore_value);
    etcdserverpb__put_request__free_unpacked(q, NULL);
    CHECK_EQ(fixture_run(fx, "put", "k", NULL), 2);
    CHECK_EQ(fixture_run(fx, "put", "k", "v", "--ignore-value", NULL), 2);
    CHECK_EQ(fixture_run(fx, "put", "", "v", NULL), 2);
    CHECK_EQ(route->calls, 1);
    CHECK_EQ(fixture_run(fx, "put", "k", "--ignore-value", NULL), 0);
    fixture_free(fx);
}

static void del_and_compact_report(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    Etcdserverpb__DeleteRangeResponse d = ETCDSERVERPB__DELETE_RANGE_RESPONSE__INIT;
    Etcdserverpb__CompactionResponse c = ETCDSERVERPB__COMPACTION_RESPONSE__INIT;
    d.deleted = 3;
    fake_reply(f, "/etcdserverpb.KV/DeleteRange", &d.base);
    fake_reply(f, "/etcdserverpb.KV/Compact", &c.base);
    CHECK_EQ(fixture_run(fx, "del", "k", "--prefix", NULL), 0);
    CHECK_STR(fx->out, "3 deleted, revision 0\n");
    CHECK_EQ(fixture_run(fx, "compact", "12", NULL), 0);
    CHECK_STR(fx->out, "compacted up to revision 12\n");
    CHECK_EQ(fixture_run(fx, "compact", "0", NULL), 2);
    fixture_free(fx);
}

static void txn_prints_what_was_done(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    Etcdserverpb__TxnResponse r = ETCDSERVERPB__TXN_RESPONSE__INIT;
    Etcdserverpb__ResponseOp op = ETCDSERVERPB__RESPONSE_OP__INIT;
    Etcdserverpb__ResponseOp *ops[] = {&op};
    Etcdserverpb__PutResponse put = ETCDSERVERPB__PUT_RESPONSE__INIT;
    op.response_case = ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_PUT;
    op.response_put = &put;
    r.n_responses = 1;
    r.responses = ops;
    r.succeeded = true;
    fake_reply(f, "/etcdserverpb.KV/Txn", &r.base);
    fx->input = "if value(k) = v\nthen put k w\nelse get k\n";
    CHECK_EQ(fixture_run(fx, "txn", "--check", NULL), 0);
    CHECK_STR(fx->out, "conditions held, revision 0\nput: OK\n");
    r.succeeded = false;
    r.n_responses = 0;
    fake_reply(f, "/etcdserverpb.KV/Txn", &r.base);
    CHECK_EQ(fixture_run(fx, "txn", NULL), 0);
    CHECK_EQ(fixture_run(fx, "txn", "--check", NULL), 4);
    CHECK_EQ(fixture_run(fx, "txn", "-o", "json", NULL), 0);
    CHECK(strstr(fx->out, "\"succeeded\":false,\"responses\":[]") != NULL);
    fx->input = "then put k\n";
    CHECK_EQ(fixture_run(fx, "txn", NULL), 2);
    CHECK_STR(fx->err, "hwctl: txn: line 1, column 11: the value is missing. 'hwctl help txn' shows the form.\n");
    CHECK_EQ(fixture_run(fx, "txn", "-f", "/nonexistent/t", NULL), 4);
    fixture_free(fx);
}

static void bench_counts_operations_and_errors(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    Etcdserverpb__PutResponse r = ETCDSERVERPB__PUT_RESPONSE__INIT;
    Etcdserverpb__DeleteRangeResponse d = ETCDSERVERPB__DELETE_RANGE_RESPONSE__INIT;
    json_t *o;
    fake_reply(f, PUT, &r.base);
    fake_reply(f, "/etcdserverpb.KV/DeleteRange", &d.base);
    CHECK_EQ(fixture_run(fx, "bench", "put", "--count", "500", "--clients", "16", "--channels", "3", "--size", "9",
                         "--clean", "-o", "json", NULL),
             0);
    CHECK_EQ(fake_route(f, PUT)->calls, 500);
    CHECK_EQ(fake_route(f, "/etcdserverpb.KV/DeleteRange")->calls, 1);
    o = fixture_json(fx);
    REQUIRE(o != NULL);
    CHECK_EQ(json_integer_value(json_object_get(o, "ok")), 500);
    CHECK_EQ(json_integer_value(json_object_get(o, "failed")), 0);
    CHECK_EQ(json_integer_value(json_object_get(o, "channels")), 3);
    CHECK(json_real_value(json_object_get(o, "ops_per_second")) > 0);
    CHECK(json_integer_value(json_object_get(json_object_get(o, "latency_us"), "p99")) > 0);
    json_decref(o);
    fake_refuse(f, PUT, HW_GRPC_RESOURCE_EXHAUSTED, "queue full");
    fake_route(f, PUT)->fail_calls = 505;
    CHECK_EQ(fixture_run(fx, "bench", "put", "--count", "50", "--clients", "2", NULL), 0);
    CHECK(strstr(fx->out, "5 failed with RESOURCE_EXHAUSTED\nfirst error: queue full\n") != NULL);
    fake_route(f, PUT)->fail_calls = 0;
    CHECK_EQ(fixture_run(fx, "bench", "put", "--count", "5", NULL), 6);
    CHECK_EQ(fixture_run(fx, "bench", "stress", NULL), 2);
    CHECK_EQ(fixture_run(fx, "bench", "put", "--count", "5", "--duration", "1", NULL), 2);
    fixture_free(fx);
}

static void bench_keeps_to_its_rate_and_time(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    json_t *o;
    reply_kvs(f, 1);
    CHECK_EQ(fixture_run(fx, "bench", "get", "--duration", "1", "--rate", "200", "-o", "json", NULL), 0);
    o = fixture_json(fx);
    REQUIRE(o != NULL);
    CHECK(json_integer_value(json_object_get(o, "ok")) >= 150 && json_integer_value(json_object_get(o, "ok")) <= 201);
    json_decref(o);
    fake_route(f, RANGE)->is_silent = true;
    CHECK_EQ(fixture_run(fx, "bench", "get", "--duration", "1", "--timeout", "100", NULL), 3);
    fixture_free(fx);
}

static void quantiles_are_nearest_rank(void)
{
    struct hw_ctl_samples s;
    REQUIRE(hw_ctl_samples_init(&s) == 0);
    CHECK_EQ(hw_ctl_samples_quantile_us(&s, 500), 0);
    for (unsigned i = 100; i > 0; i--) {
        hw_ctl_samples_add(&s, i);
    }
    CHECK_EQ(hw_ctl_samples_quantile_us(&s, 500), 50);
    CHECK_EQ(hw_ctl_samples_quantile_us(&s, 990), 99);
    CHECK_EQ(hw_ctl_samples_quantile_us(&s, 1000), 100);
    CHECK_EQ(s.max_us, 100);
    for (unsigned i = 0; i < HW_CTL_SAMPLES_MAX + 1000; i++) {
        hw_ctl_samples_add(&s, 7);
    }
    CHECK_EQ(s.kept, HW_CTL_SAMPLES_MAX);
    CHECK_EQ(hw_ctl_samples_quantile_us(&s, 500), 7);
    hw_ctl_samples_close(&s);
}

HW_SUITE(cli_kv, HW_CASE(get_has_a_table_plain_and_json), HW_CASE(get_of_a_missing_key_is_exit_4),
         HW_CASE(get_flags_fill_the_request), HW_CASE(ranges_follow_etcd),
         HW_CASE(put_reads_stdin_and_checks_its_arguments), HW_CASE(del_and_compact_report),
         HW_CASE(txn_prints_what_was_done), HW_CASE(bench_counts_operations_and_errors),
         HW_CASE(bench_keeps_to_its_rate_and_time), HW_CASE(quantiles_are_nearest_rank))
