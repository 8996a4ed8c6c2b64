/* The services over real sockets, on a node that is a whole cluster by itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "proto/etcd.pb-c.h"
#include "proto/health.pb-c.h"
#include "proto/hotwarm.pb-c.h"
#include "tests/unit/agent/api/service_kit.h"
#include "tests/unit/agent/loop/loop_test.h"

#define HEALTH_OK GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define HEALTH_NOT GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define HEALTH_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

static struct kit k;
static struct kit_call call;

static ProtobufCBinaryData bytes_of(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)s};
}

static void drop(void *message)
{
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

static Etcdserverpb__RangeResponse *range(const char *key, const char *end, bool is_serializable)
{
    Etcdserverpb__RangeRequest m = ETCDSERVERPB__RANGE_REQUEST__INIT;
    m.key = bytes_of(key);
    m.range_end = bytes_of(end);
    m.serializable = is_serializable;
    return kit_ask(&k, k.client, "/etcdserverpb.KV/Range", &m.base, &etcdserverpb__range_response__descriptor, &call);
}

static void before_there_is_a_replica_calls_say_what_the_node_does(void)
{
    Grpc__Health__V1__HealthCheckRequest check = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    Grpc__Health__V1__HealthCheckResponse *health;
    Hotwarm__V1__HelloRequest hello = HOTWARM__V1__HELLO_REQUEST__INIT;
    Hotwarm__V1__HelloResponse *hi;
    Hotwarm__V1__VersionRequest version = HOTWARM__V1__VERSION_REQUEST__INIT;
    Hotwarm__V1__VersionResponse *v;
    const char *why = NULL;
    kit_open(&k, 0);
    CHECK(range("a", "", true) == NULL);
    CHECK_EQ(call.status, HW_GRPC_UNAVAILABLE);
    CHECK_STR(call.text, HW_NOTHING_DONE "node solo is joining: it has no state to answer from");
    CHECK(!hw_api_is_ready(k.api, &why));
    CHECK_STR(why, "the node waits to be let into the cluster");
    health = kit_ask(&k, k.client, "/grpc.health.v1.Health/Check", &check.base,
                     &grpc__health__v1__health_check_response__descriptor, &call);
    CHECK(health != NULL && health->status == HEALTH_NOT);
    drop(health);
    check.service = (char *)"nobody";
    CHECK(kit_ask(&k, k.client, "/grpc.health.v1.Health/Check", &check.base,
                  &grpc__health__v1__health_check_response__descriptor, &call) == NULL);
    CHECK_EQ(call.status, HW_GRPC_NOT_FOUND);
    hi = kit_ask(&k, k.peer, "/hotwarm.v1.Peer/Hello", &hello.base, &hotwarm__v1__hello_response__descriptor, &call);
    CHECK(hi != NULL && hi->id == 77 && hi->cluster_id == 0);
    CHECK(hi != NULL && strcmp(hi->phase, "joining") == 0 && strcmp(hi->cluster_name, "kit") == 0);
    drop(hi);
    v = kit_ask(&k, k.client, "/hotwarm.v1.Admin/Version", &version.base, &hotwarm__v1__version_response__descriptor,
                &call);
    CHECK(v != NULL && strcmp(v->etcd_version, HW_ETCD_VERSION) == 0);
    drop(v);
    kit_close(&k);
}

static void a_node_without_a_cluster_tells_and_hears_the_list_of_initial_nodes(void)
{
    Hotwarm__V1__HelloRequest m = HOTWARM__V1__HELLO_REQUEST__INIT;
    Hotwarm__V1__PeerMember row = HOTWARM__V1__PEER_MEMBER__INIT;
    Hotwarm__V1__PeerMember *rows[] = {&row};
    Hotwarm__V1__HelloResponse *hi;
    const char *why = NULL;
    kit_open(&k, 0);
    k.problem = "the lists differ";
    CHECK(!hw_api_is_ready(k.api, &why));
    CHECK_STR(why, "the lists differ");
    m.from_name = (char *)"duo";
    m.cluster_name = (char *)"another";
    m.initial = rows;
    m.n_initial = 1;
    row.name = (char *)"duo";
    row.peer_address = (char *)"127.0.0.1:9";
    hi = kit_ask(&k, k.peer, "/hotwarm.v1.Peer/Hello", &m.base, &hotwarm__v1__hello_response__descriptor, &call);
    REQUIRE(hi != NULL && hi->n_initial == 2);
    CHECK_STR(hi->initial[1]->name, "duo");
    CHECK_STR(hi->initial[1]->peer_address, "127.0.0.1:3");
    CHECK_STR(k.asked, ""); /* another cluster's nodes are none of ours */
    drop(hi);
    m.cluster_name = (char *)"kit";
    drop(kit_ask(&k, k.peer, "/hotwarm.v1.Peer/Hello", &m.base, &hotwarm__v1__hello_response__descriptor, &call));
    CHECK_STR(k.asked, "duo says 1: duo 127.0.0.1:9");
    k.asked[0] = '\0';
    row.name = (char *)"";
    drop(kit_ask(&k, k.peer, "/hotwarm.v1.Peer/Hello", &m.base, &hotwarm__v1__hello_response__descriptor, &call));
    CHECK_STR(k.asked, "");
    kit_close(&k);
}

static void forming_is_asked_of_the_owner(void)
{
    Hotwarm__V1__FormRequest m = HOTWARM__V1__FORM_REQUEST__INIT;
    Hotwarm__V1__FormResponse *r;
    kit_open(&k, 0);
    m.cluster_id = 5;
    m.cluster_name = (char *)"other";
    r = kit_ask(&k, k.peer, "/hotwarm.v1.Peer/Form", &m.base, &hotwarm__v1__form_response__descriptor, &call);
    CHECK(r != NULL && !r->accepted && k.forms == 0);
    drop(r);
    m.cluster_name = (char *)"kit";
    r = kit_ask(&k, k.peer, "/hotwarm.v1.Peer/Form", &m.base, &hotwarm__v1__form_response__descriptor, &call);
    CHECK(r != NULL && r->accepted && k.forms == 1);
    drop(r);
    m.cluster_id = 13;
    r = kit_ask(&k, k.peer, "/hotwarm.v1.Peer/Form", &m.base, &hotwarm__v1__form_response__descriptor, &call);
    CHECK(r != NULL && !r->accepted && strstr(r->why, "unlucky") != NULL);
    drop(r);
    kit_close(&k);
}

static void what_is_put_is_read_and_headers_say_who_answered(void)
{
    Etcdserverpb__RangeResponse *r;
    kit_open(&k, 0);
    kit_start_replica(&k);
    CHECK(kit_put(&k, "a", "1"));
    CHECK(kit_put(&k, "a", "2"));
    for (int i = 0; i < 2; i++) {
        r = range("a", "", i == 0);
        REQUIRE(r != NULL);
        CHECK(r->header->cluster_id == 4242 && r->header->member_id == 77 && r->header->revision == 3);
        CHECK(r->header->raft_term > 0 && r->count == 1 && r->n_kvs == 1);
        CHECK(r->n_kvs == 1 && r->kvs[0]->version == 2 && r->kvs[0]->value.data[0] == '2');
        drop(r);
    }
    kit_close(&k);
}

static void bad_requests_are_refused_in_etcds_words(void)
{
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__CompactionRequest compact = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    static uint8_t big[100001];
    kit_open(&k, 0);
    kit_start_replica(&k);
    CHECK(range("", "", false) == NULL);
    CHECK_EQ(call.status, HW_GRPC_INVALID_ARGUMENT);
    CHECK_STR(call.text, "etcdserver: key is not provided");
    put.key = bytes_of("k");
    put.value = (ProtobufCBinaryData){sizeof big, big};
    CHECK(kit_ask(&k, k.client, "/etcdserverpb.KV/Put", &put.base, &etcdserverpb__put_response__descriptor, &call) ==
          NULL);
    CHECK_STR(call.text, "etcdserver: request is too large");
    put.value.len = 1;
    put.lease = 99;
    CHECK(kit_ask(&k, k.client, "/etcdserverpb.KV/Put", &put.base, &etcdserverpb__put_response__descriptor, &call) ==
          NULL);
    CHECK_STR(call.text, "etcdserver: requested lease not found");
    CHECK_EQ(call.status, HW_GRPC_NOT_FOUND);
    compact.revision = 1000;
    CHECK(kit_ask(&k, k.client, "/etcdserverpb.KV/Compact", &compact.base,
                  &etcdserverpb__compaction_response__descriptor, &call) == NULL);
    CHECK_STR(call.text, "etcdserver: mvcc: required revision is a future revision");
    CHECK_EQ(call.status, HW_GRPC_OUT_OF_RANGE);
    /* not a RangeRequest at all */
    kit_begin(k.client, &call, "/etcdserverpb.KV/Range", NULL);
    kit_end(&k, &call);
    CHECK_EQ(call.status, HW_GRPC_INVALID_ARGUMENT);
    kit_free(&call);
    kit_close(&k);
}

static void a_long_range_is_whole_whatever_is_written_meanwhile(void)
{
    enum { KEYS = 5 * KIT_SLICE_KEYS + 7 };
    Etcdserverpb__RangeRequest m = ETCDSERVERPB__RANGE_REQUEST__INIT;
    Etcdserverpb__RangeResponse *r;
    char key[16];
    kit_open(&k, 0);
    kit_start_replica(&k);
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%05d", i);
        REQUIRE(kit_put(&k, key, "before"));
    }
    m.key = bytes_of("k");
    m.range_end = bytes_of("l");
    kit_begin(k.client, &call, "/etcdserverpb.KV/Range", &m.base);
    CHECK(kit_put(&k, "k99999", "after"));
    kit_end(&k, &call);
    CHECK_EQ(call.status, HW_GRPC_OK);
    r = etcdserverpb__range_response__unpack(NULL, call.messages[0].len, call.messages[0].data);
    REQUIRE(r != NULL);
    CHECK(r->n_kvs == (size_t)r->count && (r->count == KEYS || r->count == KEYS + 1));
    for (size_t i = 0; i + 1 < r->n_kvs; i++) {
        CHECK(memcmp(r->kvs[i]->key.data, r->kvs[i + 1]->key.data, 6) < 0);
    }
    drop(r);
    kit_free(&call);
    kit_close(&k);
}

static bool has_open_scan(void *arg)
{
    return hw_hot_open_scans(hw_replica_hot(k.replica)) > 0 || ((struct kit_call *)arg)->is_over;
}

static void a_range_ends_when_the_replica_goes_away(void)
{
    Etcdserverpb__HashKVRequest m = ETCDSERVERPB__HASH_KVREQUEST__INIT;
    char key[16];
    kit_open(&k, 0);
    kit_start_replica(&k);
    for (int i = 0; i < 20 * KIT_SLICE_KEYS; i++) {
        snprintf(key, sizeof key, "k%05d", i);
        REQUIRE(kit_put(&k, key, "v"));
    }
    kit_begin(k.client, &call, "/etcdserverpb.Maintenance/HashKV", &m.base);
    kit_turn_until(&k, has_open_scan, &call);
    CHECK(!call.is_over);
    hw_api_set_replica(k.api, NULL, 0);
    CHECK_EQ(hw_hot_open_scans(hw_replica_hot(k.replica)), 0);
    kit_end(&k, &call);
    CHECK_EQ(call.status, HW_GRPC_UNAVAILABLE);
    CHECK_STR(call.text, "etcdserver: server stopped");
    kit_free(&call);
    kit_close(&k);
}

static void calls_of_other_nodes_run_here_and_only_those_meant_to(void)
{
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    Hotwarm__V1__ForwardRequest m = HOTWARM__V1__FORWARD_REQUEST__INIT;
    Hotwarm__V1__ForwardResponse *r;
    Etcdserverpb__PutResponse *inner;
    uint8_t packed[64];
    kit_open(&k, 0);
    kit_start_replica(&k);
    put.key = bytes_of("f");
    m.method = (char *)"/etcdserverpb.KV/Put";
    m.payload = (ProtobufCBinaryData){etcdserverpb__put_request__pack(&put, packed), packed};
    r = kit_ask(&k, k.peer, "/hotwarm.v1.Peer/Forward", &m.base, &hotwarm__v1__forward_response__descriptor, &call);
    REQUIRE(r != NULL);
    inner = etcdserverpb__put_response__unpack(NULL, r->payload.len, r->payload.data);
    CHECK(inner != NULL && inner->header->revision == 2);
    drop(inner);
    drop(r);
    m.method = (char *)"/hotwarm.v1.Peer/Form";
    CHECK(kit_ask(&k, k.peer, "/hotwarm.v1.Peer/Forward", &m.base, &hotwarm__v1__forward_response__descriptor, &call) ==
          NULL);
    CHECK_EQ(call.status, HW_GRPC_UNIMPLEMENTED);
    m.method = (char *)"/etcdserverpb.KV/Compact"; /* a refusal passes through as it is */
    m.payload = (ProtobufCBinaryData){2, (uint8_t *)"\x08\x64"};
    CHECK(kit_ask(&k, k.peer, "/hotwarm.v1.Peer/Forward", &m.base, &hotwarm__v1__forward_response__descriptor, &call) ==
          NULL);
    CHECK_EQ(call.status, HW_GRPC_OUT_OF_RANGE);
    /* the services of clients are not on the peer port */
    kit_begin(k.peer, &call, "/etcdserverpb.KV/Put", &put.base);
    kit_end(&k, &call);
    CHECK_EQ(call.status, HW_GRPC_UNIMPLEMENTED);
    kit_free(&call);
    kit_close(&k);
}

static bool has_two_messages(void *arg)
{
    return ((struct kit_call *)arg)->count >= 2;
}

static Grpc__Health__V1__HealthCheckResponse__ServingStatus health_of(const struct hw_buf *b)
{
    Grpc__Health__V1__HealthCheckResponse *m =
        grpc__health__v1__health_check_response__unpack(NULL, b->len, b->len == 0 ? (const uint8_t *)"" : b->data);
    Grpc__Health__V1__HealthCheckResponse__ServingStatus status = m == NULL ? HEALTH_UNKNOWN : m->status;
    drop(m);
    return status;
}

static void a_watcher_of_health_hears_of_the_change(void)
{
    Grpc__Health__V1__HealthCheckRequest m = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    kit_open(&k, 0);
    m.service = (char *)"hot";
    kit_begin(k.client, &call, "/grpc.health.v1.Health/Watch", &m.base);
    test_turn_for(k.loop, 50);
    kit_start_replica(&k);
    kit_turn_until(&k, has_two_messages, &call);
    CHECK_EQ(health_of(&call.messages[0]), HEALTH_NOT);
    CHECK_EQ(health_of(&call.messages[1]), HEALTH_OK);
    hw_request_cancel(&call.request);
    kit_end(&k, &call);
    kit_free(&call);
    kit_close(&k);
}

/* ---- images ---- */

/* Reads a stream to its end; what came is appended to `file` from `offset` on. Returns the token. */
static uint64_t take_image(uint64_t token, uint64_t offset, struct hw_buf *file, uint64_t *checksum)
{
    Hotwarm__V1__SnapshotRequest m = HOTWARM__V1__SNAPSHOT_REQUEST__INIT;
    uint64_t size = 0;
    m.token = token;
    m.offset = offset;
    kit_begin(k.client, &call, "/hotwarm.v1.Admin/Snapshot", &m.base);
    kit_end(&k, &call);
    CHECK_EQ(call.status, HW_GRPC_OK);
    for (size_t i = 0; i < call.count; i++) {
        Hotwarm__V1__SnapshotMessage *part =
            hotwarm__v1__snapshot_message__unpack(NULL, call.messages[i].len, call.messages[i].data);
        REQUIRE(part != NULL);
        if (i == 0) {
            REQUIRE(part->part_case == HOTWARM__V1__SNAPSHOT_MESSAGE__PART_BEGIN);
            token = part->begin->token;
            size = part->begin->size;
            CHECK(part->begin->cluster_id == 4242 && part->begin->index > 0);
        } else if (i + 1 < call.count) {
            REQUIRE(part->part_case == HOTWARM__V1__SNAPSHOT_MESSAGE__PART_CHUNK);
            CHECK_EQ(part->chunk->offset, file->len);
            CHECK_EQ(part->chunk->checksum, XXH3_64bits(part->chunk->data.data, part->chunk->data.len));
            hw_buf_append(file, part->chunk->data.data, part->chunk->data.len);
        } else {
            REQUIRE(part->part_case == HOTWARM__V1__SNAPSHOT_MESSAGE__PART_END);
            *checksum = part->end->checksum;
        }
        drop(part);
    }
    CHECK_EQ(file->len, size);
    kit_free(&call);
    return token;
}

static void an_image_comes_whole_and_in_parts(void)
{
    struct hw_buf file;
    struct hw_buf rest;
    uint64_t checksum = 0;
    uint64_t token;
    hw_buf_init(&file);
    hw_buf_init(&rest);
    kit_open(&k, 0);
    kit_start_replica(&k);
    CHECK(kit_put(&k, "a", "1"));
    token = take_image(0, 0, &file, &checksum);
    CHECK(file.len > 2 * KIT_CHUNK_BYTES);
    CHECK_EQ(checksum, XXH3_64bits(file.data, file.len));
    CHECK(memcmp(file.data, "SQLite format 3", 16) == 0);
    /* the same copy again, from the middle of a chunk */
    hw_buf_append(&rest, file.data, KIT_CHUNK_BYTES + 5);
    CHECK_EQ(take_image(token, rest.len, &rest, &checksum), token);
    CHECK(hw_slice_is_equal(hw_buf_slice(&rest), hw_buf_slice(&file)));
    CHECK_EQ(checksum, XXH3_64bits(file.data, file.len));
    /* an unknown token: a copy from the start, shared while nothing was written */
    hw_buf_clear(&rest);
    CHECK_EQ(take_image(token + 1, 100, &rest, &checksum), token);
    /* newer than what was written meanwhile */
    CHECK(kit_put(&k, "a", "2"));
    hw_buf_clear(&rest);
    CHECK(take_image(0, 0, &rest, &checksum) != token);
    hw_buf_free(&file);
    hw_buf_free(&rest);
    kit_close(&k);
}

static bool has_some_chunks(void *arg)
{
    return ((struct kit_call *)arg)->count >= 3;
}

static void a_stream_can_be_left_and_the_node_can_stop_meanwhile(void)
{
    Hotwarm__V1__SnapshotRequest m = HOTWARM__V1__SNAPSHOT_REQUEST__INIT;
    static struct kit_call second;
    static char value[60000];
    char key[16];
    kit_open(&k, 1); /* 1 MB a second: some seconds for the whole */
    kit_start_replica(&k);
    memset(value, 'v', sizeof value - 1);
    for (int i = 0; i < 60; i++) {
        snprintf(key, sizeof key, "k%02d", i);
        REQUIRE(kit_put(&k, key, value));
    }
    kit_begin(k.client, &call, "/hotwarm.v1.Admin/Snapshot", &m.base);
    kit_begin(k.peer, &second, "/hotwarm.v1.Peer/Image", &m.base);
    kit_turn_until(&k, has_some_chunks, &call);
    hw_request_cancel(&call.request);
    kit_end(&k, &call);
    kit_turn_until(&k, has_some_chunks, &second);
    CHECK(!second.is_over);
    kit_free(&call);
    kit_close(&k); /* with a stream under way */
    kit_free(&second);
}

static void a_copy_of_what_is_not_applied_yet_is_refused(void)
{
    Hotwarm__V1__SnapshotRequest m = HOTWARM__V1__SNAPSHOT_REQUEST__INIT;
    kit_open(&k, 0);
    kit_start_replica(&k);
    m.min_index = 1000000;
    kit_begin(k.peer, &call, "/hotwarm.v1.Peer/Image", &m.base);
    kit_end(&k, &call);
    CHECK_EQ(call.status, HW_GRPC_UNAVAILABLE);
    CHECK_EQ(call.count, 0);
    kit_free(&call);
    kit_close(&k);
}

/* ---- SQL ---- */

static void queries_are_for_warm_nodes_unless_the_hot_one_is_named(void)
{
    Hotwarm__V1__QueryRequest m = HOTWARM__V1__QUERY_REQUEST__INIT;
    Hotwarm__V1__QueryResponse *r;
    kit_open(&k, 0);
    kit_start_replica(&k);
    m.sql = (char *)"select 1 as one, null as gone, '' as empty union all select 2, 'x', 'y'";
    CHECK(kit_ask(&k, k.client, "/hotwarm.v1.Admin/Query", &m.base, &hotwarm__v1__query_response__descriptor, &call) ==
          NULL);
    CHECK_EQ(call.status, HW_GRPC_FAILED_PRECONDITION);
    m.hot_too = 1;
    r = kit_ask(&k, k.client, "/hotwarm.v1.Admin/Query", &m.base, &hotwarm__v1__query_response__descriptor, &call);
    REQUIRE(r != NULL);
    CHECK(r->n_columns == 3 && strcmp(r->columns[1], "gone") == 0 && r->n_rows == 2 && !r->more);
    CHECK(r->rows[0]->n_values == 3 && r->rows[0]->values[1]->is_null && !r->rows[0]->values[2]->is_null);
    CHECK(r->rows[1]->values[0]->text.data[0] == '2' && strcmp(r->node, "solo") == 0);
    drop(r);
    m.rows_max = 1;
    r = kit_ask(&k, k.client, "/hotwarm.v1.Admin/Query", &m.base, &hotwarm__v1__query_response__descriptor, &call);
    CHECK(r != NULL && r->n_rows == 1 && r->more);
    drop(r);
    m.sql = (char *)"delete from meta";
    CHECK(kit_ask(&k, k.client, "/hotwarm.v1.Admin/Query", &m.base, &hotwarm__v1__query_response__descriptor, &call) ==
          NULL);
    CHECK(call.status != HW_GRPC_OK && strlen(call.text) > 0);
    kit_close(&k);
}

HW_SUITE(api_service, HW_CASE(before_there_is_a_replica_calls_say_what_the_node_does),
         HW_CASE(a_node_without_a_cluster_tells_and_hears_the_list_of_initial_nodes),
         HW_CASE(forming_is_asked_of_the_owner), HW_CASE(what_is_put_is_read_and_headers_say_who_answered),
         HW_CASE(bad_requests_are_refused_in_etcds_words), HW_CASE(a_long_range_is_whole_whatever_is_written_meanwhile),
         HW_CASE(a_range_ends_when_the_replica_goes_away),
         HW_CASE(calls_of_other_nodes_run_here_and_only_those_meant_to),
         HW_CASE(a_watcher_of_health_hears_of_the_change), HW_CASE(an_image_comes_whole_and_in_parts),
         HW_CASE(a_stream_can_be_left_and_the_node_can_stop_meanwhile),
         HW_CASE(a_copy_of_what_is_not_applied_yet_is_refused),
         HW_CASE(queries_are_for_warm_nodes_unless_the_hot_one_is_named))
