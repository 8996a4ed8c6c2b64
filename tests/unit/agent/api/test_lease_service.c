/* etcdserverpb.Lease over real sockets, on a node that is a whole cluster by itself. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/replica/lease.h"
#include "proto/etcd.pb-c.h"
#include "proto/hotwarm.pb-c.h"
#include "tests/unit/agent/api/service_kit.h"

#define KEEP_ALIVE "/etcdserverpb.Lease/LeaseKeepAlive"
#define MANY 3000

static struct kit k;
static struct kit_call call;

static void drop(void *message)
{
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

static Etcdserverpb__LeaseGrantResponse *grant(int64_t id, int64_t ttl_s)
{
    Etcdserverpb__LeaseGrantRequest m = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    m.id = id;
    m.ttl = ttl_s;
    return kit_ask(&k, k.client, "/etcdserverpb.Lease/LeaseGrant", &m.base,
                   &etcdserverpb__lease_grant_response__descriptor, &call);
}

static Etcdserverpb__LeaseTimeToLiveResponse *time_to_live(int64_t id, bool keys)
{
    Etcdserverpb__LeaseTimeToLiveRequest m = ETCDSERVERPB__LEASE_TIME_TO_LIVE_REQUEST__INIT;
    m.id = id;
    m.keys = keys;
    return kit_ask(&k, k.client, "/etcdserverpb.Lease/LeaseTimeToLive", &m.base,
                   &etcdserverpb__lease_time_to_live_response__descriptor, &call);
}

static void revoke(int64_t id)
{
    Etcdserverpb__LeaseRevokeRequest m = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    m.id = id;
    drop(kit_ask(&k, k.client, "/etcdserverpb.Lease/LeaseRevoke", &m.base,
                 &etcdserverpb__lease_revoke_response__descriptor, &call));
}

static void put(const char *key, int64_t lease)
{
    Etcdserverpb__PutRequest m = ETCDSERVERPB__PUT_REQUEST__INIT;
    m.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    m.lease = lease;
    drop(kit_ask(&k, k.client, "/etcdserverpb.KV/Put", &m.base, &etcdserverpb__put_response__descriptor, &call));
}

static void grants_are_refused_in_etcds_words(void)
{
    static const struct {
        int64_t id, ttl_s;
        enum hw_grpc status;
        const char *text;
    } cases[] = {
        {5, 30, HW_GRPC_FAILED_PRECONDITION, "etcdserver: lease already exists"},
        {0, 9000000001, HW_GRPC_OUT_OF_RANGE, "etcdserver: too large lease TTL"},
        {0, INT64_MAX, HW_GRPC_OUT_OF_RANGE, "etcdserver: too large lease TTL"},
        {0, -1, HW_GRPC_INVALID_ARGUMENT, "the TTL of a lease cannot be negative: -1"},
        {-7, 30, HW_GRPC_INVALID_ARGUMENT, "the ID of a lease cannot be negative: -7"},
    };
    Etcdserverpb__LeaseGrantResponse *r;
    kit_open(&k, 0);
    kit_start_replica(&k);
    r = grant(5, 30);
    REQUIRE(r != NULL);
    CHECK_EQ(r->id, 5);
    CHECK_EQ(r->ttl, 30);
    CHECK(r->header->revision == 1); /* no key has changed */
    drop(r);
    r = grant(0, 0);
    REQUIRE(r != NULL);
    CHECK(r->id > 0);
    CHECK_EQ(r->ttl, hw_replica_lease_ttl_min_s(k.replica));
    drop(r);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK(grant(cases[i].id, cases[i].ttl_s) == NULL);
        CHECK_EQ(call.status, cases[i].status);
        CHECK_STR(call.text, cases[i].text);
    }
    put("x", 1234);
    CHECK_EQ(call.status, HW_GRPC_NOT_FOUND);
    CHECK_STR(call.text, "etcdserver: requested lease not found");
    for (int64_t id = -1; id <= 1; id++) {
        revoke(id);
        CHECK_EQ(call.status, HW_GRPC_NOT_FOUND);
        CHECK_STR(call.text, "etcdserver: requested lease not found");
    }
    kit_close(&k);
}

/* More of them than are visited in a turn. */
static void time_to_live_and_listing_take_as_many_turns_as_they_need(void)
{
    Etcdserverpb__LeaseTimeToLiveResponse *r;
    Etcdserverpb__LeaseLeasesRequest q = ETCDSERVERPB__LEASE_LEASES_REQUEST__INIT;
    Etcdserverpb__LeaseLeasesResponse *list;
    char key[16];
    kit_open(&k, 0);
    kit_start_replica(&k);
    drop(grant(5, 30));
    for (int i = 0; i < 3 * KIT_SLICE_KEYS + 28; i++) {
        snprintf(key, sizeof key, "k%05d", i);
        put(key, 5);
        CHECK_EQ(call.status, HW_GRPC_OK);
    }
    r = time_to_live(5, false);
    REQUIRE(r != NULL);
    CHECK_EQ(r->n_keys, 0);
    CHECK_EQ(r->grantedttl, 30);
    CHECK(r->ttl >= 25 && r->ttl <= 30);
    drop(r);
    r = time_to_live(5, true);
    REQUIRE(r != NULL);
    REQUIRE(r->n_keys == 3 * KIT_SLICE_KEYS + 28);
    for (size_t i = 0; i < r->n_keys; i++) {
        snprintf(key, sizeof key, "k%05zu", i);
        CHECK(r->keys[i].len == 6 && memcmp(r->keys[i].data, key, 6) == 0);
    }
    drop(r);
    r = time_to_live(6, true);
    REQUIRE(r != NULL);
    CHECK_EQ(r->ttl, -1);
    CHECK_EQ(r->id, 6);
    CHECK_EQ(r->grantedttl, 0);
    drop(r);
    for (int64_t id = 10; id < 10 + 2 * KIT_SLICE_KEYS; id++) {
        drop(grant(id, 30));
    }
    list = kit_ask(&k, k.client, "/etcdserverpb.Lease/LeaseLeases", &q.base,
                   &etcdserverpb__lease_leases_response__descriptor, &call);
    REQUIRE(list != NULL);
    CHECK_EQ(list->n_leases, 2 * KIT_SLICE_KEYS + 1);
    CHECK_EQ(list->leases[0]->id, 5);
    CHECK_EQ(list->leases[1]->id, 10);
    drop(list);
    kit_close(&k);
}

/* ---- the stream ---- */

struct stream {
    struct hw_request request;
    size_t answers;
    size_t gone; /* with TTL 0 */
    bool is_over;
    enum hw_grpc status;
    char text[256];
};

static void on_message(struct hw_request *r, struct hw_slice message)
{
    struct stream *s = hw_container_of(r, struct stream, request);
    Etcdserverpb__LeaseKeepAliveResponse *m =
        etcdserverpb__lease_keep_alive_response__unpack(NULL, message.len, message.data);
    REQUIRE(m != NULL);
    CHECK(m->header != NULL);
    CHECK(m->ttl == 0 || m->ttl == 30);
    s->answers++;
    s->gone += m->ttl == 0;
    drop(m);
}

static void on_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct stream *s = hw_container_of(r, struct stream, request);
    s->status = status;
    snprintf(s->text, sizeof s->text, "%s", text == NULL ? "" : text);
    s->is_over = true;
}

static const struct hw_request_ops stream_ops = {.on_message = on_message, .on_end = on_end};

static void stream_open(struct stream *s)
{
    memset(s, 0, sizeof *s);
    s->request.ops = &stream_ops;
    REQUIRE(hw_request_start(k.client, &s->request, KEEP_ALIVE, NULL, 0, false, hw_slice_of(NULL, 0), false) == 0);
}

static void stream_send(struct stream *s, int64_t id)
{
    Etcdserverpb__LeaseKeepAliveRequest m = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    uint8_t packed[16];
    m.id = id;
    CHECK_EQ(
        hw_request_send(&s->request, hw_slice_of(packed, etcdserverpb__lease_keep_alive_request__pack(&m, packed))), 0);
}

static bool is_over(void *arg)
{
    return ((struct stream *)arg)->is_over;
}

static void a_stream_answers_every_id_and_ends_with_its_client(void)
{
    struct stream s;
    kit_open(&k, 0);
    kit_start_replica(&k);
    drop(grant(5, 30));
    stream_open(&s);
    for (int i = 0; i < MANY; i++) {
        stream_send(&s, i % 3 == 0 ? 6 : 5); /* far more than are under way at once */
    }
    hw_request_half_close(&s.request);
    kit_turn_until(&k, is_over, &s);
    CHECK_EQ(s.status, HW_GRPC_OK);
    CHECK_EQ(s.answers, MANY);
    CHECK_EQ(s.gone, MANY / 3);
    stream_open(&s); /* nothing sent at all */
    hw_request_half_close(&s.request);
    kit_turn_until(&k, is_over, &s);
    CHECK_EQ(s.status, HW_GRPC_OK);
    stream_open(&s);
    CHECK_EQ(hw_request_send(&s.request, hw_slice_str("\xff\xff\xff")), 0);
    kit_turn_until(&k, is_over, &s);
    CHECK_EQ(s.status, HW_GRPC_INVALID_ARGUMENT);
    kit_close(&k);
}

static bool has_answer(void *arg)
{
    return ((struct stream *)arg)->answers > 0;
}

static void a_client_may_go_and_a_node_may_stop_in_the_middle(void)
{
    struct stream going;
    struct stream staying;
    kit_open(&k, 0);
    kit_start_replica(&k);
    drop(grant(5, 30));
    stream_open(&going);
    stream_open(&staying);
    for (int i = 0; i < MANY; i++) {
        stream_send(&going, 5);
        stream_send(&staying, 5);
    }
    kit_turn_until(&k, has_answer, &going);
    hw_request_cancel(&going.request);
    kit_turn_until(&k, is_over, &going);
    CHECK_EQ(going.status, HW_GRPC_CANCELLED);
    for (int i = 0; i < MANY && !staying.is_over; i++) {
        stream_send(&staying, 5);
    }
    kit_close(&k);
    CHECK(staying.is_over);
    CHECK(staying.status != HW_GRPC_OK);
}

static void a_stream_to_a_node_without_state_is_refused(void)
{
    struct stream s;
    kit_open(&k, 0);
    stream_open(&s);
    stream_send(&s, 5);
    kit_turn_until(&k, is_over, &s);
    CHECK_EQ(s.status, HW_GRPC_UNAVAILABLE);
    kit_close(&k);
}

/* As a warm node sends it on: one call. */
static void a_forwarded_keep_alive_is_one_call(void)
{
    static const struct {
        uint8_t id;
        int64_t ttl_s;
    } cases[] = {{5, 30}, {6, 0}};
    kit_open(&k, 0);
    kit_start_replica(&k);
    drop(grant(5, 30));
    for (size_t i = 0; i < 2; i++) {
        uint8_t payload[] = {0x08, cases[i].id};
        Hotwarm__V1__ForwardRequest m = HOTWARM__V1__FORWARD_REQUEST__INIT;
        Hotwarm__V1__ForwardResponse *r;
        Etcdserverpb__LeaseKeepAliveResponse *answer;
        m.method = (char *)KEEP_ALIVE;
        m.payload = (ProtobufCBinaryData){sizeof payload, payload};
        r = kit_ask(&k, k.peer, "/hotwarm.v1.Peer/Forward", &m.base, &hotwarm__v1__forward_response__descriptor, &call);
        REQUIRE(r != NULL);
        answer = etcdserverpb__lease_keep_alive_response__unpack(NULL, r->payload.len, r->payload.data);
        REQUIRE(answer != NULL);
        CHECK_EQ(answer->id, cases[i].id);
        CHECK_EQ(answer->ttl, cases[i].ttl_s);
        drop(answer);
        drop(r);
    }
    kit_close(&k);
}

HW_SUITE(api_lease_service, HW_CASE(grants_are_refused_in_etcds_words),
         HW_CASE(time_to_live_and_listing_take_as_many_turns_as_they_need),
         HW_CASE(a_stream_answers_every_id_and_ends_with_its_client),
         HW_CASE(a_client_may_go_and_a_node_may_stop_in_the_middle),
         HW_CASE(a_stream_to_a_node_without_state_is_refused), HW_CASE(a_forwarded_keep_alive_is_one_call))
