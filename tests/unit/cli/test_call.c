/* Failing over, deadlines, and how errors are said. */
#include <signal.h>
#include <string.h>

#include "agent/base/clock.h"
#include "cli/call.h"
#include "proto/etcd.pb-c.h"
#include "proto/hotwarm.pb-c.h"
#include "tests/unit/cli/fixture.h"
#include "tests/unit/hw_test.h"

#define RANGE "/etcdserverpb.KV/Range"
#define PUT "/etcdserverpb.KV/Put"

static void reply_range(struct fake *f, const char *value)
{
    Etcdserverpb__RangeResponse r = ETCDSERVERPB__RANGE_RESPONSE__INIT;
    Mvccpb__KeyValue kv = MVCCPB__KEY_VALUE__INIT;
    Mvccpb__KeyValue *kvs[] = {&kv};
    kv.key = (ProtobufCBinaryData){1, (uint8_t *)(char[]){"k"}};
    kv.value = (ProtobufCBinaryData){strlen(value), (uint8_t *)value};
    r.n_kvs = 1;
    r.kvs = kvs;
    r.count = 1;
    fake_reply(f, RANGE, &r.base);
}

static void reply_put(struct fake *f)
{
    Etcdserverpb__PutResponse r = ETCDSERVERPB__PUT_RESPONSE__INIT;
    fake_reply(f, PUT, &r.base);
}

static void a_read_skips_dead_and_unavailable_endpoints(void)
{
    struct fixture *fx = fixture_new();
    struct fake *a = fake_new(fx);
    struct fake *b = fake_new(fx);
    char endpoints[200];
    char skipped[300];
    fake_refuse(a, RANGE, HW_GRPC_UNAVAILABLE, "loading, 40% done");
    reply_range(b, "hello");
    snprintf(endpoints, sizeof endpoints, "%s,%s,%s", DEAD_ADDRESS, fake_address(a), fake_address(b));
    fx->endpoints = endpoints;
    CHECK_EQ(fixture_run(fx, "get", "k", "--print-value-only", NULL), 0);
    CHECK_STR(fx->out, "hello\n");
    CHECK(strstr(fx->err, "hwctl: skipped " DEAD_ADDRESS ": cannot connect") != NULL);
    snprintf(skipped, sizeof skipped, "hwctl: skipped %s: loading, 40%% done\n", fake_address(a));
    CHECK(strstr(fx->err, skipped) != NULL);
    CHECK_EQ(fixture_run(fx, "get", "k", "--print-value-only", "-q", NULL), 0);
    CHECK_STR(fx->err, "");
    fixture_free(fx);
}

static void a_read_leaves_a_silent_endpoint_in_time(void)
{
    struct fixture *fx = fixture_new();
    struct fake *mute = fake_new_mute(fx);
    struct fake *silent = fake_new(fx);
    struct fake *b = fake_new(fx);
    uint64_t start_ms = hw_mono_ms();
    fake_route(silent, RANGE)->is_silent = true;
    reply_range(b, "x");
    CHECK_EQ(fixture_run(fx, "get", "k", "--timeout", "600", NULL), 0);
    CHECK(hw_mono_ms() - start_ms < 1500);
    CHECK(strstr(fx->err, fake_address(mute)) != NULL);
    CHECK(strstr(fx->err, "no answer within") != NULL);
    fixture_free(fx);
}

static void a_frozen_first_endpoint_costs_a_moment(void)
{
    struct fixture *fx = fixture_new();
    struct fake *frozen = fake_new_mute(fx);
    struct fake *b = fake_new(fx);
    uint64_t start_ms = hw_mono_ms();
    uint64_t took_ms;
    char skipped[200];
    reply_range(b, "x");
    reply_put(b);
    CHECK_EQ(fixture_run(fx, "get", "k", NULL), 0); /* with the default deadline of 5 s */
    took_ms = hw_mono_ms() - start_ms;
    CHECK(took_ms >= HW_CTL_RACE_MS && took_ms < 1000);
    snprintf(skipped, sizeof skipped, "hwctl: skipped %s: no connection within ", fake_address(frozen));
    CHECK(strstr(fx->err, skipped) == fx->err);
    CHECK_EQ(fixture_run(fx, "put", "k", "v", "-q", NULL), 0);
    CHECK_STR(fx->err, "");
    CHECK(hw_mono_ms() - start_ms < 2000);
    fixture_free(fx);
}

static void the_first_endpoint_wins_when_it_is_well(void)
{
    struct fixture *fx = fixture_new();
    struct fake *a = fake_new(fx);
    struct fake *b = fake_new(fx);
    reply_range(a, "a");
    reply_range(b, "b");
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(fixture_run(fx, "get", "k", "--print-value-only", NULL), 0);
        CHECK_STR(fx->out, "a\n");
    }
    CHECK_STR(fx->err, "");
    CHECK_EQ(fake_route(b, RANGE)->calls, 0);
    fixture_free(fx);
}

static void all_frozen_are_listed_when_time_is_over(void)
{
    struct fixture *fx = fixture_new();
    struct fake *a = fake_new_mute(fx);
    struct fake *b = fake_new_mute(fx);
    uint64_t start_ms = hw_mono_ms();
    CHECK_EQ(fixture_run(fx, "put", "k", "v", "--timeout", "400", NULL), 3);
    CHECK(hw_mono_ms() - start_ms >= 400 && hw_mono_ms() - start_ms < 1500);
    CHECK(strstr(fx->err, "no endpoint could be reached") != NULL);
    CHECK(strstr(fx->err, fake_address(a)) != NULL && strstr(fx->err, fake_address(b)) != NULL);
    CHECK(strstr(fx->err, "may have been applied") == NULL);
    fixture_free(fx);
}

static void when_none_answers_all_are_listed(void)
{
    struct fixture *fx = fixture_new();
    fx->endpoints = DEAD_ADDRESS ",127.0.0.1:2";
    CHECK_EQ(fixture_run(fx, "get", "k", NULL), 3);
    CHECK(strncmp(fx->err, "hwctl: get: no endpoint could be reached. Check that an agent runs there", 40) == 0);
    CHECK(strstr(fx->err, "\n  127.0.0.1:1: cannot connect") != NULL);
    CHECK(strstr(fx->err, "\n  127.0.0.1:2: cannot connect") != NULL);
    CHECK_STR(fx->out, "");
    fixture_free(fx);
}

static void the_deadline_holds_against_silence(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    uint64_t start_ms = hw_mono_ms();
    fake_route(f, RANGE)->is_silent = true;
    fake_route(f, PUT)->is_silent = true;
    CHECK_EQ(fixture_run(fx, "get", "k", "--timeout", "150", NULL), 3);
    CHECK_EQ(fixture_run(fx, "put", "k", "v", "--timeout", "150", NULL), 3);
    CHECK(strstr(fx->err, "read it back") != NULL);
    CHECK(hw_mono_ms() - start_ms >= 250 && hw_mono_ms() - start_ms < 1500);
    fixture_free(fx);
    fx = fixture_new();
    fake_new_mute(fx);
    start_ms = hw_mono_ms();
    CHECK_EQ(fixture_run(fx, "put", "k", "v", "--timeout", "150", NULL), 3);
    CHECK(hw_mono_ms() - start_ms < 1000);
    fixture_free(fx);
}

static void a_write_goes_on_only_when_surely_not_applied(void)
{
    struct fixture *fx = fixture_new();
    struct fake *a = fake_new(fx);
    struct fake *b = fake_new(fx);
    char endpoints[200];
    reply_put(b);
    fake_refuse(a, PUT, HW_GRPC_UNAVAILABLE, "put: this node is not hot");
    snprintf(endpoints, sizeof endpoints, "%s,%s,%s", DEAD_ADDRESS, fake_address(a), fake_address(b));
    fx->endpoints = endpoints;
    CHECK_EQ(fixture_run(fx, "put", "k", "v", NULL), 0);
    CHECK_EQ(fake_route(a, PUT)->calls, 1);
    CHECK_EQ(fake_route(b, PUT)->calls, 1);
    fake_refuse(a, PUT, HW_GRPC_UNAVAILABLE, "connection closed");
    CHECK_EQ(fixture_run(fx, "put", "k", "v", NULL), 3);
    CHECK_EQ(fake_route(b, PUT)->calls, 1);
    CHECK(strstr(fx->err, "It may have been applied or not: read it back") != NULL);
    fake_refuse(a, PUT, HW_GRPC_RESOURCE_EXHAUSTED, "no space left");
    CHECK_EQ(fixture_run(fx, "put", "k", "v", NULL), 6);
    CHECK_EQ(fake_route(b, PUT)->calls, 1);
    CHECK(strstr(fx->err, "no space left. ") != NULL);
    fake_refuse(a, PUT, HW_GRPC_RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded");
    CHECK_EQ(fixture_run(fx, "put", "k", "v", NULL), 6);
    CHECK(strstr(fx->err, "database space exceeded. Nothing was written. See what is full with 'hwctl alarm list'") !=
          NULL);
    CHECK(strstr(fx->err, "Writes go on by themselves then.") != NULL);
    fixture_free(fx);
}

static void statuses_become_exit_codes(void)
{
    static const struct {
        enum hw_grpc status;
        int exit;
    } cases[] = {
        {HW_GRPC_INVALID_ARGUMENT, 2},  {HW_GRPC_NOT_FOUND, 4},
        {HW_GRPC_ALREADY_EXISTS, 4},    {HW_GRPC_PERMISSION_DENIED, 5},
        {HW_GRPC_UNAUTHENTICATED, 5},   {HW_GRPC_RESOURCE_EXHAUSTED, 6},
        {HW_GRPC_ABORTED, 6},           {HW_GRPC_FAILED_PRECONDITION, 4},
        {HW_GRPC_OUT_OF_RANGE, 4},      {HW_GRPC_UNIMPLEMENTED, 2},
        {HW_GRPC_INTERNAL, 70},         {HW_GRPC_UNAVAILABLE, 3},
        {HW_GRPC_DATA_LOSS, 7},         {HW_GRPC_UNKNOWN, 70},
        {HW_GRPC_DEADLINE_EXCEEDED, 3},
    };
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake_refuse(f, RANGE, cases[i].status, "the server's words");
        CHECK_EQ(fixture_run(fx, "get", "k", NULL), cases[i].exit);
        CHECK(strncmp(fx->err, "hwctl: get: ", 12) == 0);
        if (cases[i].status != HW_GRPC_DEADLINE_EXCEEDED) {
            CHECK(strstr(fx->err, "the server's words") != NULL);
        }
    }
    fixture_free(fx);
}

static void an_answer_of_another_kind_is_refused(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    struct fake_route *r = fake_route(f, RANGE);
    r->status = HW_GRPC_OK;
    hw_buf_append_str(&r->reply, "\xff\xff\xff");
    CHECK_EQ(fixture_run(fx, "get", "k", NULL), 3);
    CHECK(strstr(fx->err, "the answer is not a etcdserverpb.RangeResponse") != NULL);
    fixture_free(fx);
}

static void the_rule_of_failing_over(void)
{
    static const struct hw_ctl_method read = {.path = "/r"};
    static const struct hw_ctl_method picky = {.path = "/q", .skips_refusals = true};
    static const struct hw_ctl_method write = {.path = "/w", .is_write = true};
    CHECK(hw_ctl_may_go_on(&read, true, HW_ERR_UNAVAILABLE, ""));
    CHECK(hw_ctl_may_go_on(&read, true, HW_ERR_TIMEOUT, ""));
    CHECK(!hw_ctl_may_go_on(&read, true, HW_ERR_NOTFOUND, ""));
    CHECK(!hw_ctl_may_go_on(&read, true, HW_ERR_PRECONDITION, ""));
    CHECK(hw_ctl_may_go_on(&picky, true, HW_ERR_PRECONDITION, ""));
    CHECK(!hw_ctl_may_go_on(&read, false, HW_ERR_CANCELLED, ""));
    CHECK(hw_ctl_may_go_on(&write, false, HW_ERR_CONNECT, ""));
    CHECK(!hw_ctl_may_go_on(&write, true, HW_ERR_UNAVAILABLE, "connection closed"));
    CHECK(!hw_ctl_may_go_on(&write, true, HW_ERR_TIMEOUT, "not hot"));
    CHECK(hw_ctl_may_go_on(&write, true, HW_ERR_UNAVAILABLE, HW_NOTHING_DONE "node n1 is waiting"));
    CHECK(!hw_ctl_may_go_on(&write, true, HW_ERR_UNAVAILABLE, "node n1 says " HW_NOTHING_DONE));
    CHECK(hw_ctl_may_go_on(&write, true, HW_ERR_UNAVAILABLE, "This node is Not Hot"));
}

static void interrupt(struct fake_route *route, struct hw_call *call, struct hw_slice message)
{
    (void)message;
    if (route->reply.len > 0) {
        hw_call_reply(call, hw_buf_slice(&route->reply));
    } else {
        hw_call_end(call, HW_GRPC_UNAVAILABLE, "too late");
    }
    raise(SIGINT);
}

static void an_interrupt_ends_a_call_and_a_watch(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    struct fake *mute = fake_new_mute(fx);
    Hotwarm__V1__StatusResponse s = HOTWARM__V1__STATUS_RESPONSE__INIT;
    uint64_t start_ms = hw_mono_ms();
    char endpoints[200];
    fx->takes_signals = true;
    fake_route(f, RANGE)->hook = interrupt;
    snprintf(endpoints, sizeof endpoints, "%s,%s", fake_address(f), fake_address(mute));
    fx->endpoints = endpoints;
    CHECK_EQ(fixture_run(fx, "get", "k", NULL), 130);
    CHECK(strstr(fx->err, "interrupted. Nothing more was done.") != NULL);
    s.cluster_name = (char *)(char[]){"prod"};
    fake_reply(f, "/hotwarm.v1.Admin/Status", &s.base);
    fake_route(f, "/hotwarm.v1.Admin/Status")->hook = interrupt;
    CHECK_EQ(fixture_run(fx, "status", "--watch", "60", NULL), 0);
    CHECK(strstr(fx->out, "cluster prod") != NULL);
    CHECK(hw_mono_ms() - start_ms < 4000);
    fixture_free(fx);
}

static void a_watch_outlives_an_outage(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    struct fake_route *route = fake_route(f, "/hotwarm.v1.Admin/Status");
    fx->takes_signals = true;
    route->status = HW_GRPC_UNAVAILABLE;
    route->text = "loading";
    route->interrupts_after = 2;
    CHECK_EQ(fixture_run(fx, "status", "--watch", "1", NULL), 0);
    CHECK_EQ(route->calls, 2);
    CHECK(strstr(fx->err, "trying again") != NULL && strstr(fx->err, "loading") != NULL);
    fixture_free(fx);
}

HW_SUITE(cli_call, HW_CASE(a_read_skips_dead_and_unavailable_endpoints),
         HW_CASE(a_read_leaves_a_silent_endpoint_in_time), HW_CASE(a_frozen_first_endpoint_costs_a_moment),
         HW_CASE(the_first_endpoint_wins_when_it_is_well), HW_CASE(all_frozen_are_listed_when_time_is_over),
         HW_CASE(when_none_answers_all_are_listed), HW_CASE(the_deadline_holds_against_silence),
         HW_CASE(a_write_goes_on_only_when_surely_not_applied), HW_CASE(statuses_become_exit_codes),
         HW_CASE(an_answer_of_another_kind_is_refused), HW_CASE(the_rule_of_failing_over),
         HW_CASE(an_interrupt_ends_a_call_and_a_watch), HW_CASE(a_watch_outlives_an_outage))
