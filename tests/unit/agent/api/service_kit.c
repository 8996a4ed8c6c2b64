#include "tests/unit/agent/api/service_kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/etcd.pb-c.h"
#include "tests/unit/agent/loop/loop_test.h"

static void on_hello(void *ctx, struct hw_hello *hello)
{
    static const struct hw_form_member initial[] = {{.name = "solo", .peer_address = "127.0.0.1:2"},
                                                    {.name = "duo", .peer_address = "127.0.0.1:3"}};
    struct kit *k = ctx;
    hello->id = 77;
    hello->cluster_id = 0;
    hello->phase = k->phase;
    hello->problem = k->problem;
    hello->initial = initial;
    hello->initial_count = 2;
}

static void on_asked(void *ctx, const char *name, const struct hw_form_member *list, size_t count)
{
    struct kit *k = ctx;
    snprintf(k->asked, sizeof k->asked, "%s says %zu: %s %s", name, count, list[0].name, list[0].peer_address);
}

static int on_form(void *ctx, uint64_t cluster_id, uint64_t recovery, const struct hw_form_member *members,
                   size_t count, struct hw_error *e)
{
    struct kit *k = ctx;
    (void)members;
    (void)recovery;
    k->forms++;
    return cluster_id == 13 ? hw_error_set(e, HW_ERR_FOREIGN, "an unlucky cluster of %zu", count) : 0;
}

static const struct hw_api_ops api_ops = {.hello = on_hello, .form = on_form, .asked = on_asked};

void kit_open(struct kit *k, uint64_t rate_mb)
{
    struct hw_api_config config = {
        .client_listen = "127.0.0.1:0",
        .peer_listen = "127.0.0.1:0",
        .client_address = "127.0.0.1:1",
        .peer_address = "127.0.0.1:2",
        .cluster_name = "kit",
        .node_name = "solo",
        .node_id = 77,
        .request_bytes_max = 100000,
        .txn_ops_max = 128,
        .connections_max = 100,
        .streams_max = 100,
        .request_timeout_ms = 2000,
        .scan_slice_keys = KIT_SLICE_KEYS,
        .transfer_chunk_bytes = KIT_CHUNK_BYTES,
        .transfer_rate_mb = rate_mb,
    };
    static const struct hw_channel_ops channel_ops = {0};
    struct hw_error e = {0};
    memset(k, 0, sizeof *k);
    k->phase = "joining";
    k->data = hw_test_dir();
    k->metrics = hw_metrics_new();
    k->loop = test_loop_new();
    REQUIRE(hw_pool_new(k->loop, "kit", 1, 16, &k->resolver, &e) == 0);
    REQUIRE(hw_api_new(k->loop, k->resolver, k->metrics, &config, &api_ops, k, &k->api, &e) == 0);
    REQUIRE(hw_api_listen(k->api, &e) == 0);
    REQUIRE(hw_channel_new(k->loop, k->resolver, hw_api_client_bound(k->api), NULL, &channel_ops, k, &k->client) == 0);
    REQUIRE(hw_channel_new(k->loop, k->resolver, hw_api_peer_bound(k->api), NULL, &channel_ops, k, &k->peer) == 0);
}

static void on_started(void *ctx, int status, const char *why)
{
    struct kit *k = ctx;
    if (status != 0) {
        printf("replica: %s\n", why);
    }
    CHECK_EQ(status, 0);
    k->is_started = true;
}

static void on_change(void *ctx)
{
    (void)ctx;
}

static void on_failed(void *ctx, const char *why)
{
    (void)ctx;
    printf("replica: %s\n", why);
    CHECK(why == NULL);
}

static const struct hw_replica_ops replica_ops = {
    .on_started = on_started, .on_change = on_change, .on_failed = on_failed};

static bool is_hot(void *arg)
{
    struct kit *k = arg;
    return k->is_started && hw_replica_is_hot(k->replica);
}

void kit_start_replica(struct kit *k)
{
    struct hw_replica_config *config = calloc(1, sizeof *config);
    struct hw_error e = {0};
    char folder[512];
    REQUIRE(config != NULL);
    snprintf(folder, sizeof folder, "%s/raft", k->data);
    mkdir(folder, 0700);
    hw_consensus_config_default(&config->consensus);
    config->consensus.id = 77;
    config->consensus.cluster_id = 4242;
    config->consensus.address = hw_api_peer_bound(k->api);
    config->consensus.disk_reserve_mb = 0;
    config->data = k->data;
    config->checkpoint_interval_ms = 100;
    config->checkpoint_dirty_bytes = 1 << 24;
    config->transfer_chunk_bytes = KIT_CHUNK_BYTES;
    config->reads_max = 1000;
    config->forwards_max = 1000;
    config->scan_slice_keys = KIT_SLICE_KEYS;
    config->is_bootstrap = true;
    config->member_count = 1;
    config->members[0].id = 77;
    config->members[0].role = HW_ROLE_VOTER;
    snprintf(config->members[0].address, sizeof config->members[0].address, "%s", config->consensus.address);
    REQUIRE(hw_replica_new(k->loop, k->resolver, k->metrics, config, &replica_ops, k, &k->replica, &e) == 0);
    free(config);
    hw_replica_start(k->replica);
    kit_turn_until(k, is_hot, k);
    hw_api_set_replica(k->api, k->replica, 4242);
}

static void on_closed(void *ctx)
{
    struct kit *k = ctx;
    k->is_closed = true;
}

void kit_close(struct kit *k)
{
    hw_channel_free(k->client);
    hw_channel_free(k->peer);
    hw_api_shut(k->api, 500, on_closed, k);
    CHECK(test_turn_until(k->loop, &k->is_closed));
    if (k->replica != NULL) {
        k->is_closed = false;
        hw_replica_shut(k->replica, on_closed, k);
        CHECK(test_turn_until(k->loop, &k->is_closed));
        hw_replica_free(k->replica);
    }
    hw_api_free(k->api);
    k->is_closed = false;
    hw_pool_shut(k->resolver, on_closed, k);
    CHECK(test_turn_until(k->loop, &k->is_closed));
    hw_pool_free(k->resolver);
    while (hw_loop_turn(k->loop, false)) {
    }
    hw_loop_free(k->loop);
    hw_metrics_free(k->metrics);
}

void kit_turn_until(struct kit *k, bool (*is_so)(void *arg), void *arg)
{
    bool expired = false;
    struct hw_timer *patience = hw_timer_new(k->loop, "patience", test_expired, &expired);
    hw_timer_start(patience, TEST_PATIENCE_MS, 0);
    while (!is_so(arg) && !expired) {
        hw_loop_turn(k->loop, true);
    }
    hw_timer_free(patience);
    CHECK(!expired);
}

/* ---- calls ---- */

static void on_message(struct hw_request *r, struct hw_slice message)
{
    struct kit_call *c = hw_container_of(r, struct kit_call, request);
    REQUIRE(c->count < hw_array_len(c->messages));
    hw_buf_append(&c->messages[c->count++], message.data, message.len);
}

static void on_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct kit_call *c = hw_container_of(r, struct kit_call, request);
    c->status = status;
    snprintf(c->text, sizeof c->text, "%s", text == NULL ? "" : text);
    c->is_over = true;
}

static const struct hw_request_ops request_ops = {.on_message = on_message, .on_end = on_end};

void kit_begin(struct hw_channel *channel, struct kit_call *c, const char *path, const ProtobufCMessage *message)
{
    size_t len = message == NULL ? 0 : protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(len + 1);
    memset(c, 0, sizeof *c);
    c->request.ops = &request_ops;
    if (message != NULL) {
        protobuf_c_message_pack(message, packed);
    }
    REQUIRE(hw_request_start(channel, &c->request, path, NULL, 15000, false, hw_slice_of(packed, len), true) == 0);
    free(packed);
}

static bool is_over(void *arg)
{
    const struct kit_call *c = arg;
    return c->is_over;
}

void kit_end(struct kit *k, struct kit_call *c)
{
    kit_turn_until(k, is_over, c);
}

void kit_free(struct kit_call *c)
{
    for (size_t i = 0; i < c->count; i++) {
        hw_buf_free(&c->messages[i]);
    }
}

void *kit_ask(struct kit *k, struct hw_channel *channel, const char *path, const ProtobufCMessage *message,
              const ProtobufCMessageDescriptor *answer, struct kit_call *c)
{
    void *m = NULL;
    kit_begin(channel, c, path, message);
    kit_end(k, c);
    if (c->status == HW_GRPC_OK && c->count == 1) {
        m = protobuf_c_message_unpack(answer, NULL, c->messages[0].len,
                                      c->messages[0].len == 0 ? (const uint8_t *)"" : c->messages[0].data);
        CHECK(m != NULL);
    }
    kit_free(c);
    return m;
}

bool kit_put(struct kit *k, const char *key, const char *value)
{
    Etcdserverpb__PutRequest m = ETCDSERVERPB__PUT_REQUEST__INIT;
    struct kit_call *c = malloc(sizeof *c);
    Etcdserverpb__PutResponse *answer;
    bool is_ok;
    m.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    m.value = (ProtobufCBinaryData){strlen(value), (uint8_t *)value};
    answer = kit_ask(k, k->client, "/etcdserverpb.KV/Put", &m.base, &etcdserverpb__put_response__descriptor, c);
    is_ok = answer != NULL;
    if (is_ok) {
        etcdserverpb__put_response__free_unpacked(answer, NULL);
    }
    free(c);
    return is_ok;
}
