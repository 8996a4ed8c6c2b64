/* Transactions with long ranges: in slices of the turn's budget, and each range as of its place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "proto/etcd.pb-c.h"
#include "tests/unit/agent/api/service_kit.h"

enum {
    KEYS = 25 * KIT_SLICE_KEYS,
    /* a slice may begin with one key left, and one is given beyond the budget */
    TURN_KEYS_MAX = (HW_RANGE_TURN_SLICES + 2) * KIT_SLICE_KEYS
};

static struct kit k;
static struct kit_call call;

static void open_filled(void)
{
    char key[16];
    kit_open(&k, 0);
    kit_start_replica(&k);
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%05d", i);
        REQUIRE(kit_put(&k, key, "value"));
    }
    k.api->ranges.keys_turn_max = 0;
}

static ProtobufCBinaryData bytes_of(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)s};
}

struct ops {
    Etcdserverpb__RequestOp op[8];
    Etcdserverpb__RequestOp *list[8];
    Etcdserverpb__RangeRequest range[8];
    Etcdserverpb__PutRequest put;
    Etcdserverpb__TxnRequest txn;
    size_t count;
};

static Etcdserverpb__RequestOp *add(struct ops *o, Etcdserverpb__RequestOp__RequestCase what)
{
    Etcdserverpb__RequestOp *op = &o->op[o->count];
    etcdserverpb__request_op__init(op);
    op->request_case = what;
    o->list[o->count++] = op;
    return op;
}

static Etcdserverpb__RangeRequest *add_range(struct ops *o, const char *key, const char *end)
{
    Etcdserverpb__RangeRequest *r = &o->range[o->count];
    etcdserverpb__range_request__init(r);
    r->key = bytes_of(key);
    r->range_end = bytes_of(end);
    add(o, ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE)->request_range = r;
    return r;
}

static Etcdserverpb__TxnRequest *as_txn(struct ops *o)
{
    etcdserverpb__txn_request__init(&o->txn);
    o->txn.success = o->list;
    o->txn.n_success = o->count;
    return &o->txn;
}

static Etcdserverpb__TxnResponse *ask(struct ops *o)
{
    return kit_ask(&k, k.client, "/etcdserverpb.KV/Txn", &as_txn(o)->base, &etcdserverpb__txn_response__descriptor,
                   &call);
}

static const Etcdserverpb__RangeResponse *range_of(const Etcdserverpb__TxnResponse *r, size_t i)
{
    REQUIRE(i < r->n_responses && r->responses[i]->response_case == ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE);
    return r->responses[i]->response_range;
}

static void long_ranges_are_read_in_slices(void)
{
    struct ops o = {0};
    Etcdserverpb__TxnResponse *r;
    const Etcdserverpb__RangeResponse *a;
    open_filled();
    add_range(&o, "k00003", "");
    add_range(&o, "k", "l");
    add_range(&o, "k", "l")->count_only = 1;
    add_range(&o, "k", "l")->limit = 7;
    add_range(&o, "k", "l")->keys_only = 1;
    add_range(&o, "k00004", "");
    r = ask(&o);
    REQUIRE(r != NULL && r->succeeded && r->n_responses == 6);
    CHECK(r->header->revision == KEYS + 1 && r->header->cluster_id != 0);
    CHECK_EQ(range_of(r, 0)->count, 1);
    a = range_of(r, 1);
    REQUIRE(a->count == KEYS && a->n_kvs == KEYS && !a->more);
    CHECK(memcmp(a->kvs[KEYS - 1]->key.data, "k02499", 6) == 0 && a->kvs[KEYS - 1]->value.len == 5);
    CHECK_EQ(a->header->revision, KEYS + 1);
    CHECK(range_of(r, 2)->count == KEYS && range_of(r, 2)->n_kvs == 0);
    CHECK(range_of(r, 3)->count == KEYS && range_of(r, 3)->n_kvs == 7 && range_of(r, 3)->more);
    CHECK(range_of(r, 4)->n_kvs == KEYS && range_of(r, 4)->kvs[9]->value.len == 0);
    CHECK(range_of(r, 5)->n_kvs == 1);
    CHECK(k.api->ranges.keys_turn_max > 0 && k.api->ranges.keys_turn_max <= TURN_KEYS_MAX);
    CHECK_EQ(hw_hot_open_scans(hw_replica_hot(k.replica)), 0);
    protobuf_c_message_free_unpacked(&r->base, NULL);
    kit_close(&k);
}

static void in_a_transaction_that_writes_each_range_is_as_of_its_place(void)
{
    struct ops o = {0};
    struct ops inner = {0};
    Etcdserverpb__TxnResponse *r;
    const Etcdserverpb__TxnResponse *nested;
    open_filled();
    etcdserverpb__put_request__init(&o.put);
    o.put.key = bytes_of("k-new");
    o.put.value = bytes_of("1");
    add_range(&inner, "k", "l");
    add_range(&inner, "k", "k00001");
    add_range(&o, "k", "l");
    add(&o, ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT)->request_put = &o.put;
    add_range(&o, "k", "l")->count_only = 1;
    add(&o, ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN)->request_txn = as_txn(&inner);
    add_range(&o, "none", "");
    r = ask(&o);
    REQUIRE(r != NULL && r->n_responses == 5);
    CHECK_EQ(r->header->revision, KEYS + 2);
    CHECK_EQ(range_of(r, 0)->count, KEYS);
    CHECK_EQ(range_of(r, 0)->n_kvs, KEYS);
    CHECK_EQ(r->responses[1]->response_put->header->revision, KEYS + 2);
    CHECK_EQ(range_of(r, 2)->count, KEYS + 1);
    nested = r->responses[3]->response_txn;
    REQUIRE(nested != NULL && nested->succeeded && nested->n_responses == 2);
    CHECK_EQ(range_of(nested, 0)->count, KEYS + 1);
    CHECK_EQ(range_of(nested, 1)->count, 2);
    CHECK_EQ(range_of(r, 4)->count, 0);
    CHECK(k.api->ranges.keys_turn_max <= TURN_KEYS_MAX);
    CHECK_EQ(hw_hot_open_scans(hw_replica_hot(k.replica)), 0);
    protobuf_c_message_free_unpacked(&r->base, NULL);
    kit_close(&k);
}

static bool is_building(void *arg)
{
    (void)arg;
    return k.api->ranges.txn_count > 0 || call.is_over;
}

static void a_node_stops_while_an_answer_is_built(void)
{
    struct ops o = {0};
    open_filled();
    add_range(&o, "k", "l");
    add_range(&o, "k", "l");
    kit_begin(k.client, &call, "/etcdserverpb.KV/Txn", &as_txn(&o)->base);
    kit_turn_until(&k, is_building, NULL);
    CHECK(!call.is_over);
    hw_api_set_replica(k.api, NULL, 0);
    CHECK_EQ(k.api->ranges.txn_count, 0);
    CHECK_EQ(hw_hot_open_scans(hw_replica_hot(k.replica)), 0);
    kit_end(&k, &call);
    CHECK_EQ(call.status, HW_GRPC_UNAVAILABLE);
    kit_free(&call);
    kit_close(&k);
}

static void hashes_share_the_budget(void)
{
    Etcdserverpb__HashKVRequest m = ETCDSERVERPB__HASH_KVREQUEST__INIT;
    static struct kit_call calls[8];
    open_filled();
    for (int i = 0; i < 8; i++) {
        kit_begin(k.client, &calls[i], "/etcdserverpb.Maintenance/HashKV", &m.base);
    }
    for (int i = 0; i < 8; i++) {
        kit_end(&k, &calls[i]);
        CHECK_EQ(calls[i].status, HW_GRPC_OK);
        kit_free(&calls[i]);
    }
    CHECK(k.api->ranges.keys_turn_max > 0 && k.api->ranges.keys_turn_max <= TURN_KEYS_MAX);
    kit_close(&k);
}

HW_SUITE(api_txn_answer, HW_CASE(long_ranges_are_read_in_slices),
         HW_CASE(in_a_transaction_that_writes_each_range_is_as_of_its_place),
         HW_CASE(a_node_stops_while_an_answer_is_built), HW_CASE(hashes_share_the_budget))
