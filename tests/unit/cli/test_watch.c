/* watch: what is printed, and how it goes on when an endpoint is lost. */
#include <signal.h>
#include <string.h>

#include "agent/base/clock.h"
#include "proto/etcd.pb-c.h"
#include "tests/unit/cli/fixture.h"
#include "tests/unit/hw_test.h"

#define WATCH "/etcdserverpb.Watch/Watch"
#define BYTES(literal)                           \
    (ProtobufCBinaryData)                        \
    {                                            \
        sizeof(literal) - 1, (uint8_t *)(char[]) \
        {                                        \
            literal                              \
        }                                        \
    }

/* What a watch request asked for; freed by the caller of unpacked. */
static Etcdserverpb__WatchRequest *asked(const struct fake_route *route)
{
    Etcdserverpb__WatchRequest *q = etcdserverpb__watch_request__unpack(NULL, route->request.len, route->request.data);
    REQUIRE(q != NULL && q->request_union_case == ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST);
    return q;
}

static void send_created(struct hw_call *call, int64_t revision)
{
    Etcdserverpb__WatchResponse r = ETCDSERVERPB__WATCH_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    header.revision = revision;
    r.header = &header;
    r.created = true;
    fake_send(call, &r.base);
}

/* One put and, when `with_delete`, one delete behind it, both of this revision. */
static void send_events(struct hw_call *call, int64_t revision, bool with_delete, bool is_fragment)
{
    Etcdserverpb__WatchResponse r = ETCDSERVERPB__WATCH_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Mvccpb__Event put = MVCCPB__EVENT__INIT;
    Mvccpb__Event del = MVCCPB__EVENT__INIT;
    Mvccpb__KeyValue kv = MVCCPB__KEY_VALUE__INIT;
    Mvccpb__KeyValue gone = MVCCPB__KEY_VALUE__INIT;
    Mvccpb__KeyValue before = MVCCPB__KEY_VALUE__INIT;
    Mvccpb__Event *events[] = {&put, &del};
    header.revision = revision;
    r.header = &header;
    kv.key = BYTES("a");
    kv.value = BYTES("new\n");
    kv.mod_revision = revision;
    put.kv = &kv;
    gone.key = BYTES("b");
    gone.mod_revision = revision;
    before.value = BYTES("old");
    del.type = MVCCPB__EVENT__EVENT_TYPE__DELETE;
    del.kv = &gone;
    del.prev_kv = &before;
    r.events = events;
    r.n_events = with_delete ? 2 : 1;
    r.fragment = is_fragment;
    fake_send(call, &r.base);
}

static void send_cancelled(struct hw_call *call, bool is_created, int64_t compacted, const char *why)
{
    Etcdserverpb__WatchResponse r = ETCDSERVERPB__WATCH_RESPONSE__INIT;
    r.created = is_created;
    r.canceled = true;
    r.compact_revision = compacted;
    r.cancel_reason = (char *)why;
    fake_send(call, &r.base);
    hw_call_end(call, HW_GRPC_OK, NULL);
}

static void on_cancel(void *data, struct hw_call *call)
{
    (void)data;
    hw_call_end(call, HW_GRPC_CANCELLED, NULL);
}

/* Two events of one revision, then the user has seen enough. The wake-up comes a little after what was sent. */
static void events_and_interrupt(struct fake_route *route, struct hw_call *call, struct hw_slice message)
{
    (void)route;
    (void)message;
    send_created(call, 6);
    send_events(call, 7, true, false);
    hw_call_end(call, HW_GRPC_UNAVAILABLE, "stops");
}

static void interrupt(struct fake_route *route, struct hw_call *call, struct hw_slice message)
{
    (void)route;
    (void)message;
    send_created(call, 9);
    hw_call_on_cancel(call, on_cancel);
    raise(SIGINT);
}

static void events_are_lines_and_objects(void)
{
    struct fixture *fx = fixture_new();
    struct fake *a = fake_new(fx);
    struct fake *b = fake_new(fx);
    Etcdserverpb__WatchRequest *q;
    json_t *o;
    fx->takes_signals = true;
    fake_route(a, WATCH)->hook = events_and_interrupt;
    fake_route(b, WATCH)->hook = interrupt;
    CHECK_EQ(fixture_run(fx, "watch", "a", "--prefix", "--prev-kv", NULL), 0);
    CHECK_STR(fx->out, "7 PUT a new\\n\n7 DELETE b  before: old\n");
    CHECK(strstr(fx->err, "stops; going on from revision 8\n") != NULL);
    q = asked(fake_route(a, WATCH));
    CHECK_EQ(q->create_request->start_revision, 0);
    CHECK(q->create_request->fragment && q->create_request->prev_kv);
    CHECK(q->create_request->range_end.len == 1 && q->create_request->range_end.data[0] == 'b');
    etcdserverpb__watch_request__free_unpacked(q, NULL);
    q = asked(fake_route(b, WATCH)); /* nothing is lost and nothing comes twice */
    CHECK_EQ(q->create_request->start_revision, 8);
    etcdserverpb__watch_request__free_unpacked(q, NULL);
    CHECK_EQ(fixture_run(fx, "watch", "a", "--rev", "7", "-o", "json", NULL), 0);
    o = fixture_json(fx);
    REQUIRE(o != NULL);
    CHECK_EQ(json_integer_value(json_object_get(json_object_get(o, "header"), "revision")), 7);
    CHECK_EQ(json_array_size(json_object_get(o, "events")), 2);
    CHECK_STR(json_string_value(json_object_get(json_array_get(json_object_get(o, "events"), 1), "type")), "DELETE");
    CHECK(strchr(fx->out, '\n') == fx->out + strlen(fx->out) - 1);
    json_decref(o);
    fixture_free(fx);
}

/* The first part of revision 7, and then nothing more. */
static void part_and_end(struct fake_route *route, struct hw_call *call, struct hw_slice message)
{
    (void)route;
    (void)message;
    send_created(call, 6);
    send_events(call, 7, false, true);
    hw_call_end(call, HW_GRPC_UNAVAILABLE, "goes away");
}

static void a_revision_cut_in_the_middle_is_asked_for_again(void)
{
    struct fixture *fx = fixture_new();
    struct fake *a = fake_new(fx);
    struct fake *b = fake_new(fx);
    Etcdserverpb__WatchRequest *q;
    fx->takes_signals = true;
    fake_route(a, WATCH)->hook = part_and_end;
    fake_route(b, WATCH)->hook = interrupt;
    CHECK_EQ(fixture_run(fx, "watch", "a", NULL), 0);
    CHECK_STR(fx->out, "");
    q = asked(fake_route(b, WATCH));
    CHECK_EQ(q->create_request->start_revision, 7);
    etcdserverpb__watch_request__free_unpacked(q, NULL);
    fixture_free(fx);
}

static void compacted(struct fake_route *route, struct hw_call *call, struct hw_slice message)
{
    (void)route;
    (void)message;
    send_created(call, 50);
    send_cancelled(call, false, 40, "mvcc: required revision has been compacted");
}

static void refused(struct fake_route *route, struct hw_call *call, struct hw_slice message)
{
    (void)route;
    (void)message;
    send_cancelled(call, true, 0, "permission denied");
}

static void what_cannot_be_watched_ends_with_a_reason(void)
{
    struct fixture *fx = fixture_new();
    struct fake *a = fake_new(fx);
    fake_route(a, WATCH)->hook = compacted;
    CHECK_EQ(fixture_run(fx, "watch", "a", "--rev", "7", NULL), 4);
    CHECK(strstr(fx->err, "the history before revision 40 has been compacted, and 7 is next") != NULL);
    fake_route(a, WATCH)->hook = refused;
    CHECK_EQ(fixture_run(fx, "watch", "a", NULL), 2);
    CHECK(strstr(fx->err, "permission denied") != NULL);
    CHECK_EQ(fake_route(a, WATCH)->calls, 2);
    CHECK_EQ(fixture_run(fx, "watch", "a", "b", "--prefix", NULL), 2);
    CHECK_EQ(fixture_run(fx, "watch", "", NULL), 2);
    CHECK_EQ(fake_route(a, WATCH)->calls, 2);
    fixture_free(fx);
}

static void when_none_can_be_watched_all_are_listed(void)
{
    struct fixture *fx = fixture_new();
    struct fake *a = fake_new(fx);
    char endpoints[200];
    fake_refuse(a, WATCH, HW_GRPC_UNAVAILABLE, "loading");
    snprintf(endpoints, sizeof endpoints, "%s,%s", DEAD_ADDRESS, fake_address(a));
    fx->endpoints = endpoints;
    CHECK_EQ(fixture_run(fx, "watch", "a", NULL), 3);
    CHECK(strstr(fx->err, "hwctl: watch: no endpoint could be watched. ") == fx->err);
    CHECK(strstr(fx->err, "\n  " DEAD_ADDRESS ": cannot connect") != NULL);
    CHECK(strstr(fx->err, ": loading\n") != NULL);
    fixture_free(fx);
}

static void a_frozen_endpoint_does_not_hold_up_a_watch(void)
{
    struct fixture *fx = fixture_new();
    uint64_t start_ms = hw_mono_ms();
    fx->takes_signals = true;
    fake_new_mute(fx);
    fake_route(fake_new(fx), WATCH)->hook = interrupt;
    CHECK_EQ(fixture_run(fx, "watch", "a", NULL), 0);
    CHECK(hw_mono_ms() - start_ms < 1500);
    fixture_free(fx);
}

HW_SUITE(cli_watch, HW_CASE(events_are_lines_and_objects), HW_CASE(a_revision_cut_in_the_middle_is_asked_for_again),
         HW_CASE(what_cannot_be_watched_ends_with_a_reason), HW_CASE(when_none_can_be_watched_all_are_listed),
         HW_CASE(a_frozen_endpoint_does_not_hold_up_a_watch))
