/* What all ranges together may take, whoever asks for them. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/api/api_impl.h"
#include "proto/etcd.pb-c.h"
#include "tests/unit/agent/api/service_kit.h"
#include "tests/unit/agent/loop/loop_test.h"

#define MIB ((size_t)1024 * 1024)
enum {
    KEYS = 6 * KIT_SLICE_KEYS + 7,
    VALUE_BYTES = 2000,
    ANSWER_BYTES_MIN = KEYS * VALUE_BYTES,
    RANGES = 90,
    /* a slice is looked at and encoded, the last one may begin with one key left */
    TURN_KEYS_MAX = (HW_RANGE_TURN_SLICES + 2) * KIT_SLICE_KEYS
};

static struct kit k;
static struct kit_call call;

static void fill(void)
{
    static char value[VALUE_BYTES + 1];
    char key[16];
    memset(value, 'v', VALUE_BYTES);
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%05d", i);
        REQUIRE(kit_put(&k, key, value));
    }
}

/* ---- a client by hand, which does not read ---- */

static void put_frame(struct hw_buf *b, uint8_t type, uint8_t flags, uint32_t stream, const void *payload, size_t len)
{
    uint8_t head[9] = {(uint8_t)(len >> 16),    (uint8_t)(len >> 8),     (uint8_t)len,           type,           flags,
                       (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    hw_buf_append(b, head, sizeof head);
    hw_buf_append(b, payload, len);
}

static void put_header(struct hw_buf *b, const char *name, const char *value)
{
    hw_buf_put_u8(b, 0);
    hw_buf_put_u8(b, (uint8_t)strlen(name));
    hw_buf_append_str(b, name);
    hw_buf_put_u8(b, (uint8_t)strlen(value));
    hw_buf_append_str(b, value);
}

static void put_call(struct hw_buf *b, uint32_t stream, const ProtobufCMessage *message)
{
    uint8_t data[128] = {0};
    size_t len = protobuf_c_message_pack(message, data + 5);
    struct hw_buf headers;
    hw_buf_init(&headers);
    put_header(&headers, ":method", "POST");
    put_header(&headers, ":scheme", "http");
    put_header(&headers, ":path", "/etcdserverpb.KV/Range");
    put_header(&headers, ":authority", "x");
    put_header(&headers, "content-type", "application/grpc");
    put_header(&headers, "te", "trailers");
    data[4] = (uint8_t)len;
    put_frame(b, 1, 4, stream, headers.data, headers.len);
    put_frame(b, 0, 1, stream, data, len + 5);
    hw_buf_free(&headers);
}

static int connect_to_clients(void)
{
    const char *bound = hw_api_client_bound(k.api);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoull(strrchr(bound, ':') + 1, NULL, 10))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

/* The windows are those that HTTP/2 begins with, and are never opened further. */
static int ask_and_do_not_read(unsigned count)
{
    Etcdserverpb__RangeRequest m = ETCDSERVERPB__RANGE_REQUEST__INIT;
    struct hw_buf b;
    int fd = connect_to_clients();
    hw_buf_init(&b);
    m.key = (ProtobufCBinaryData){1, (uint8_t *)""};
    m.range_end = m.key;
    m.serializable = 1;
    hw_buf_append_str(&b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    put_frame(&b, 4, 0, 0, NULL, 0);
    for (unsigned i = 0; i < count; i++) {
        put_call(&b, 2 * i + 1, &m.base);
    }
    REQUIRE(send(fd, b.data, b.len, MSG_DONTWAIT) == (ssize_t)b.len);
    hw_buf_free(&b);
    return fd;
}

/* ---- what others see ---- */

static Etcdserverpb__RangeResponse *get(const char *key, const char *end)
{
    Etcdserverpb__RangeRequest m = ETCDSERVERPB__RANGE_REQUEST__INIT;
    m.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    m.range_end = (ProtobufCBinaryData){strlen(end), (uint8_t *)end};
    return kit_ask(&k, k.client, "/etcdserverpb.KV/Range", &m.base, &etcdserverpb__range_response__descriptor, &call);
}

static bool is_found(const char *key, const char *end, size_t count)
{
    Etcdserverpb__RangeResponse *r = get(key, end);
    bool is_so = r != NULL && r->n_kvs == count && (size_t)r->count == count;
    if (r != NULL) {
        protobuf_c_message_free_unpacked(&r->base, NULL);
    }
    return is_so;
}

static bool has_waiting(void *arg)
{
    (void)arg;
    return k.api->ranges.waiting_count > 0;
}

static bool is_waiting_for_the_connection(void *arg)
{
    (void)arg;
    return hw_rpc_server_queued(k.api->client_rpc) > HW_RANGE_UNSENT_BYTES && k.api->ranges.built_count == 0;
}

static bool has_none(void *arg)
{
    (void)arg;
    return k.api->exchanges.count == 0;
}

/* ---- cases ---- */

static void a_client_that_does_not_read_costs_little_and_delays_nobody(void)
{
    const struct hw_ranges *r;
    int fd;
    kit_open(&k, 0);
    r = &k.api->ranges;
    kit_start_replica(&k);
    fill();
    CHECK(r->bytes_peak < 64 * 1024);
    fd = ask_and_do_not_read(RANGES);
    kit_turn_until(&k, has_waiting, NULL);
    CHECK(kit_put(&k, "other", "1"));
    CHECK(is_found("other", "", 1));
    kit_turn_until(&k, is_waiting_for_the_connection, NULL);
    CHECK(r->waiting_count > RANGES / 2);
    CHECK_EQ(hw_hot_open_scans(hw_replica_hot(k.replica)), 0); /* what waits holds nothing */
    CHECK(kit_put(&k, "other", "2"));
    CHECK(is_found("other", "", 1));
    CHECK(is_found("k", "l", KEYS)); /* a large one of another connection does not wait for that one */
    CHECK(k.api->exchanges.count > RANGES / 2);
    kit_turn_until(&k, has_none, NULL); /* by their deadline */
    CHECK_EQ(r->waiting_count, 0);
    CHECK(r->keys_turn_max > KIT_SLICE_KEYS && r->keys_turn_max <= TURN_KEYS_MAX);
    CHECK(r->bytes_peak <= HW_RANGE_UNSENT_BYTES + 3 * MIB); /* and an answer of each of the two connections */
    CHECK(hw_rpc_server_queued(k.api->client_rpc) <= HW_RANGE_UNSENT_BYTES + 2 * MIB);
    close(fd);
    kit_close(&k);
}

static void many_connections_share_the_budget_of_a_turn(void)
{
    enum { CONNECTIONS = 30 };
    const struct hw_ranges *r;
    int fds[CONNECTIONS];
    kit_open(&k, 0);
    r = &k.api->ranges;
    kit_start_replica(&k);
    fill();
    for (int i = 0; i < CONNECTIONS; i++) {
        fds[i] = ask_and_do_not_read(3);
    }
    kit_turn_until(&k, has_waiting, NULL);
    CHECK(r->built_count <= HW_RANGES_BUILT_MAX);
    CHECK(kit_put(&k, "other", "1"));
    CHECK(is_found("other", "", 1));
    kit_turn_until(&k, has_none, NULL);
    CHECK(r->keys_turn_max <= TURN_KEYS_MAX);
    for (int i = 0; i < CONNECTIONS; i++) {
        close(fds[i]);
    }
    kit_close(&k);
}

static void when_too_much_waits_to_be_sent_large_ranges_are_refused_and_small_ones_are_not(void)
{
    struct hw_ranges *r;
    int fds[4];
    kit_open(&k, 0);
    r = &k.api->ranges;
    kit_start_replica(&k);
    fill();
    r->bytes_max = 2 * ANSWER_BYTES_MIN;
    for (size_t i = 0; i < hw_array_len(fds); i++) {
        fds[i] = ask_and_do_not_read(2);
    }
    kit_turn_until(&k, has_waiting, NULL);
    while (hw_rpc_server_queued(k.api->client_rpc) <= r->bytes_max) {
        hw_loop_turn(k.loop, true);
    }
    CHECK(get("k", "l") == NULL);
    CHECK_EQ(call.status, HW_GRPC_RESOURCE_EXHAUSTED);
    CHECK_STR(call.text, "etcdserver: too many requests");
    CHECK(kit_put(&k, "other", "1"));
    CHECK(is_found("other", "", 1));
    CHECK(is_found("k00000", "k00010", 10));
    CHECK(r->bytes_peak <= r->bytes_max + ANSWER_BYTES_MIN + MIB);
    for (size_t i = 0; i < hw_array_len(fds); i++) {
        close(fds[i]);
    }
    kit_turn_until(&k, has_none, NULL);
    CHECK(is_found("k", "l", KEYS)); /* it is free again */
    kit_close(&k);
}

static void a_node_stops_with_ranges_in_every_state(void)
{
    int fd;
    kit_open(&k, 0);
    kit_start_replica(&k);
    fill();
    fd = ask_and_do_not_read(RANGES);
    kit_turn_until(&k, has_waiting, NULL);
    hw_api_set_replica(k.api, NULL, 0);
    CHECK_EQ(hw_hot_open_scans(hw_replica_hot(k.replica)), 0);
    CHECK_EQ(k.api->ranges.waiting_count + k.api->ranges.built_count, 0);
    CHECK(TAILQ_EMPTY(&k.api->ranges.fresh));
    close(fd);
    kit_close(&k);
}

HW_SUITE(api_range, HW_CASE(a_client_that_does_not_read_costs_little_and_delays_nobody),
         HW_CASE(many_connections_share_the_budget_of_a_turn),
         HW_CASE(when_too_much_waits_to_be_sent_large_ranges_are_refused_and_small_ones_are_not),
         HW_CASE(a_node_stops_with_ranges_in_every_state))
