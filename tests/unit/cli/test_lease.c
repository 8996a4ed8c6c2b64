/* lease grant, revoke, keep-alive, timetolive, list: what is asked and what is shown. */
#include <signal.h>
#include <string.h>

#include "agent/base/clock.h"
#include "proto/etcd.pb-c.h"
#include "tests/unit/cli/fixture.h"
#include "tests/unit/hw_test.h"

#define LEASE(name) "/etcdserverpb.Lease/Lease" name

static void a_grant_says_what_was_granted(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    Etcdserverpb__LeaseGrantResponse r = ETCDSERVERPB__LEASE_GRANT_RESPONSE__INIT;
    Etcdserverpb__LeaseGrantRequest *q;
    struct fake_route *route = fake_route(f, LEASE("Grant"));
    r.id = 7;
    r.ttl = 5; /* raised by the server */
    fake_reply(f, LEASE("Grant"), &r.base);
    CHECK_EQ(fixture_run(fx, "lease", "grant", "2", "--id", "7", NULL), 0);
    CHECK_STR(fx->out, "lease 7 granted for 5 s\n");
    q = etcdserverpb__lease_grant_request__unpack(NULL, route->request.len, route->request.data);
    REQUIRE(q != NULL);
    CHECK(q->ttl == 2 && q->id == 7);
    etcdserverpb__lease_grant_request__free_unpacked(q, NULL);
    CHECK_EQ(fixture_run(fx, "lease", "grant", "2", "-o", "json", NULL), 0);
    CHECK(strstr(fx->out, "\"ID\":7,\"TTL\":5}") != NULL);
    for (size_t i = 0; i < 4; i++) {
        CHECK_EQ(
            fixture_run(fx, "lease", "grant", ((const char *[]){"0", "-5", "soon", "9223372036854775808"})[i], NULL),
            2);
    }
    CHECK_EQ(route->calls, 2);
    fake_refuse(f, LEASE("Grant"), HW_GRPC_FAILED_PRECONDITION, "etcdserver: lease already exists");
    CHECK_EQ(fixture_run(fx, "lease", "grant", "2", "--id", "7", NULL), 4);
    fixture_free(fx);
}

static void ids_are_decimal_or_hexadecimal(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    Etcdserverpb__LeaseRevokeResponse r = ETCDSERVERPB__LEASE_REVOKE_RESPONSE__INIT;
    struct fake_route *route = fake_route(f, LEASE("Revoke"));
    fake_reply(f, LEASE("Revoke"), &r.base);
    CHECK_EQ(fixture_run(fx, "lease", "revoke", "0x4d2", NULL), 0);
    CHECK(strstr(fx->out, "lease 1234 revoked") == fx->out);
    CHECK_EQ(fixture_run(fx, "lease", "revoke", "1234", NULL), 0);
    for (size_t i = 0; i < 6; i++) {
        static const char *const bad[] = {"0", "0x", "0x0", "0xffffffffffffffff", "12x", "0x12345678123456789"};
        CHECK_EQ(fixture_run(fx, "lease", "revoke", bad[i], NULL), 2);
    }
    CHECK_EQ(route->calls, 2);
    fake_refuse(f, LEASE("Revoke"), HW_GRPC_NOT_FOUND, "etcdserver: requested lease not found");
    CHECK_EQ(fixture_run(fx, "lease", "revoke", "7", NULL), 4);
    fixture_free(fx);
}

static void renew(struct fake_route *route, struct hw_call *call, struct hw_slice message)
{
    Etcdserverpb__LeaseKeepAliveResponse r = ETCDSERVERPB__LEASE_KEEP_ALIVE_RESPONSE__INIT;
    (void)message;
    r.id = 7;
    r.ttl = route->calls < 3 ? 1 : 0; /* the third time it is gone */
    fake_send(call, &r.base);
    hw_call_end(call, HW_GRPC_OK, NULL);
}

static void keep_alive_renews_each_third_until_it_is_gone(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    uint64_t start_ms = hw_mono_ms();
    uint64_t took_ms;
    fake_route(f, LEASE("KeepAlive"))->hook = renew;
    CHECK_EQ(fixture_run(fx, "lease", "keep-alive", "7", NULL), 4);
    took_ms = hw_mono_ms() - start_ms;
    CHECK(took_ms >= 2 * 333 - 10 && took_ms < 2500);
    CHECK_STR(fx->out, "lease 7 has 1 s again\nlease 7 has 1 s again\n");
    CHECK(strstr(fx->err, "lease 7 is not there. List what there is with 'hwctl lease list'") != NULL);
    fake_route(f, LEASE("KeepAlive"))->calls = 0;
    CHECK_EQ(fixture_run(fx, "lease", "keep-alive", "7", "--once", NULL), 0);
    CHECK_EQ(fake_route(f, LEASE("KeepAlive"))->calls, 1);
    fixture_free(fx);
}

static void renew_and_interrupt(struct fake_route *route, struct hw_call *call, struct hw_slice message)
{
    renew(route, call, message);
    raise(SIGINT);
}

static void an_interrupt_ends_keep_alive(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    fx->takes_signals = true;
    fake_route(f, LEASE("KeepAlive"))->hook = renew_and_interrupt;
    CHECK_EQ(fixture_run(fx, "lease", "keep-alive", "7", NULL), 130);
    CHECK_EQ(fake_route(f, LEASE("KeepAlive"))->calls, 1);
    fixture_free(fx);
}

static void the_time_left_and_the_keys_are_shown(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    Etcdserverpb__LeaseTimeToLiveResponse r = ETCDSERVERPB__LEASE_TIME_TO_LIVE_RESPONSE__INIT;
    ProtobufCBinaryData keys[] = {{3, (uint8_t *)(char[]){"a\tb"}}, {1, (uint8_t *)(char[]){"c"}}};
    r.id = 7;
    r.ttl = 3;
    r.grantedttl = 5;
    r.n_keys = 2;
    r.keys = keys;
    fake_reply(f, LEASE("TimeToLive"), &r.base);
    CHECK_EQ(fixture_run(fx, "lease", "timetolive", "7", "--keys", NULL), 0);
    CHECK_STR(fx->out, "lease 7: 3 s left of 5 s\na\\tb\nc\n");
    CHECK_EQ(fixture_run(fx, "lease", "timetolive", "7", "--keys", "-o", "json", NULL), 0);
    CHECK(strstr(fx->out, "\"ID\":7,\"TTL\":3,\"grantedTTL\":5,\"keys\":[\"YQli\",\"Yw==\"]}") != NULL);
    r.ttl = -1;
    fake_reply(f, LEASE("TimeToLive"), &r.base);
    CHECK_EQ(fixture_run(fx, "lease", "timetolive", "7", NULL), 4);
    CHECK(strstr(fx->err, "lease 7 is not there") != NULL);
    fixture_free(fx);
}

static void the_list_has_both_notations(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    Etcdserverpb__LeaseLeasesResponse r = ETCDSERVERPB__LEASE_LEASES_RESPONSE__INIT;
    Etcdserverpb__LeaseStatus one = ETCDSERVERPB__LEASE_STATUS__INIT;
    Etcdserverpb__LeaseStatus *leases[] = {&one};
    one.id = 1234;
    r.n_leases = 1;
    r.leases = leases;
    fake_reply(f, LEASE("Leases"), &r.base);
    CHECK_EQ(fixture_run(fx, "lease", "list", NULL), 0);
    CHECK(strstr(fx->out, "1234  0x4d2") != NULL);
    CHECK_EQ(fixture_run(fx, "lease", "list", "-o", "json", NULL), 0);
    CHECK(strstr(fx->out, "\"leases\":[{\"ID\":1234}]") != NULL);
    fixture_free(fx);
}

HW_SUITE(cli_lease, HW_CASE(a_grant_says_what_was_granted), HW_CASE(ids_are_decimal_or_hexadecimal),
         HW_CASE(keep_alive_renews_each_third_until_it_is_gone), HW_CASE(an_interrupt_ends_keep_alive),
         HW_CASE(the_time_left_and_the_keys_are_shown), HW_CASE(the_list_has_both_notations))
