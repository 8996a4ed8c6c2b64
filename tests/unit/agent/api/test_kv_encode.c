/* The hand-written encoders against protobuf-c's own packing, byte for byte, on random answers. */
#include <stdlib.h>
#include <string.h>

#include "agent/api/kv_encode.h"
#include "agent/api/protowire.h"
#include "agent/base/rng.h"
#include "proto/etcd.pb-c.h"
#include "tests/unit/hw_test.h"

#define ROUNDS 300
#define KVS_MAX 6

static struct hw_rng rng;

/* All widths of a varint, zero and negative ones too. */
static uint64_t some_number(void)
{
    return hw_rng_is_chance(&rng, 20) ? 0 : hw_rng_next(&rng) >> hw_rng_below(&rng, 64);
}

static struct hw_version *some_version(void)
{
    uint8_t bytes[400];
    struct hw_key_name *key;
    struct hw_version *v;
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)hw_rng_next(&rng);
    }
    key = hw_key_name_new(hw_slice_of(bytes, 1 + hw_rng_below(&rng, 200)));
    v = hw_version_new(key, hw_slice_of(bytes, hw_rng_below(&rng, 3) == 0 ? 0 : hw_rng_below(&rng, sizeof bytes)));
    hw_key_name_unref(key);
    v->create_main = (hw_rev)some_number();
    v->mod_main = (hw_rev)some_number();
    v->version = (int64_t)some_number();
    v->lease = (int64_t)some_number();
    return v;
}

struct kvs {
    struct hw_version *versions[KVS_MAX];
    Mvccpb__KeyValue messages[KVS_MAX];
    Mvccpb__KeyValue *pointers[KVS_MAX];
    size_t count;
};

static void kvs_make(struct kvs *k, size_t count, bool keys_only)
{
    k->count = count;
    for (size_t i = 0; i < count; i++) {
        struct hw_version *v = some_version();
        Mvccpb__KeyValue *m = &k->messages[i];
        mvccpb__key_value__init(m);
        m->key = (ProtobufCBinaryData){v->key->len, v->key->data};
        m->create_revision = v->create_main;
        m->mod_revision = v->mod_main;
        m->version = v->version;
        m->value = (ProtobufCBinaryData){keys_only ? 0 : v->value_len, v->value};
        m->lease = v->lease;
        k->versions[i] = v;
        k->pointers[i] = m;
    }
}

static void kvs_free(struct kvs *k)
{
    for (size_t i = 0; i < k->count; i++) {
        hw_version_unref(k->versions[i]);
    }
}

static void some_header(struct hw_header *h, Etcdserverpb__ResponseHeader *m)
{
    *h = (struct hw_header){some_number(), some_number(), (hw_rev)some_number(), some_number()};
    etcdserverpb__response_header__init(m);
    m->cluster_id = h->cluster_id;
    m->member_id = h->member_id;
    m->revision = h->revision;
    m->raft_term = h->raft_term;
}

static void check_same(struct hw_buf *ours, const ProtobufCMessage *theirs)
{
    struct hw_buf packed;
    hw_buf_init(&packed);
    CHECK_EQ(hw_pack(theirs, &packed), 0);
    CHECK(!ours->failed);
    CHECK(hw_slice_is_equal(hw_buf_slice(ours), hw_buf_slice(&packed)));
    hw_buf_free(&packed);
    hw_buf_clear(ours);
}

static void ranges_are_encoded_as_protobuf_does(void)
{
    struct hw_buf out;
    hw_buf_init(&out);
    hw_rng_seed(&rng, 1);
    for (int round = 0; round < ROUNDS; round++) {
        struct hw_header h;
        Etcdserverpb__ResponseHeader header;
        Etcdserverpb__RangeResponse m = ETCDSERVERPB__RANGE_RESPONSE__INIT;
        bool keys_only = hw_rng_is_chance(&rng, 30);
        struct kvs k;
        size_t cut;
        some_header(&h, &header);
        kvs_make(&k, hw_rng_below(&rng, KVS_MAX + 1), keys_only);
        m.header = &header;
        m.kvs = k.pointers;
        m.n_kvs = k.count;
        m.more = hw_rng_is_chance(&rng, 50);
        m.count = (int64_t)some_number();
        cut = hw_rng_below(&rng, k.count + 1); /* in two slices, as over two turns */
        hw_encode_range_begin(&out, &h);
        hw_encode_range_kvs(&out, k.versions, cut, keys_only);
        hw_encode_range_kvs(&out, k.versions + cut, k.count - cut, keys_only);
        hw_encode_range_end(&out, m.more, m.count);
        check_same(&out, &m.base);
        kvs_free(&k);
    }
    hw_buf_free(&out);
}

static void puts_are_encoded_as_protobuf_does(void)
{
    struct hw_buf out;
    hw_buf_init(&out);
    hw_rng_seed(&rng, 2);
    for (int round = 0; round < ROUNDS; round++) {
        struct hw_header h;
        Etcdserverpb__ResponseHeader header;
        Etcdserverpb__PutResponse m = ETCDSERVERPB__PUT_RESPONSE__INIT;
        struct kvs k;
        some_header(&h, &header);
        kvs_make(&k, hw_rng_below(&rng, 2), false);
        m.header = &header;
        m.prev_kv = k.count > 0 ? k.pointers[0] : NULL;
        hw_encode_put(&out, &h, k.count > 0 ? k.versions[0] : NULL);
        check_same(&out, &m.base);
        kvs_free(&k);
    }
    hw_buf_free(&out);
}

static void deletes_are_encoded_as_protobuf_does(void)
{
    struct hw_buf out;
    hw_buf_init(&out);
    hw_rng_seed(&rng, 3);
    for (int round = 0; round < ROUNDS; round++) {
        struct hw_header h;
        Etcdserverpb__ResponseHeader header;
        Etcdserverpb__DeleteRangeResponse m = ETCDSERVERPB__DELETE_RANGE_RESPONSE__INIT;
        struct kvs k;
        some_header(&h, &header);
        kvs_make(&k, hw_rng_below(&rng, KVS_MAX + 1), false);
        m.header = &header;
        m.prev_kvs = k.pointers;
        m.n_prev_kvs = k.count;
        m.deleted = (int64_t)some_number();
        hw_encode_delete(&out, &h, m.deleted, k.versions, k.count);
        check_same(&out, &m.base);
        kvs_free(&k);
    }
    hw_buf_free(&out);
}

/* ---- transactions: both sides are built in step, to the depth that the wire allows ---- */

struct pair {
    struct hw_op_result op;
    struct hw_txn_result txn;
    struct hw_op_result ops[4];
    Etcdserverpb__ResponseOp m;
    Etcdserverpb__ResponseHeader header;
    Etcdserverpb__RangeResponse range;
    Etcdserverpb__PutResponse put;
    Etcdserverpb__DeleteRangeResponse del;
    Etcdserverpb__TxnResponse nested;
    Etcdserverpb__ResponseOp *responses[4];
    struct kvs kvs;
    struct pair *children[4];
    size_t child_count;
};

static struct pair *pair_new(hw_rev revision, unsigned depth);

static void pair_free(struct pair *p)
{
    for (size_t i = 0; i < p->child_count; i++) {
        pair_free(p->children[i]);
    }
    kvs_free(&p->kvs);
    free(p);
}

static void make_nested(struct pair *p, hw_rev revision, unsigned depth)
{
    p->child_count = hw_rng_below(&rng, 4);
    for (size_t i = 0; i < p->child_count; i++) {
        p->children[i] = pair_new(revision, depth + 1);
        p->ops[i] = p->children[i]->op;
        p->responses[i] = &p->children[i]->m;
    }
    p->txn = (struct hw_txn_result){.succeeded = hw_rng_is_chance(&rng, 50), .ops = p->ops, .op_count = p->child_count};
    etcdserverpb__txn_response__init(&p->nested);
    p->nested.header = &p->header;
    p->nested.succeeded = p->txn.succeeded;
    p->nested.n_responses = p->child_count;
    p->nested.responses = p->responses;
}

static struct pair *pair_new(hw_rev revision, unsigned depth)
{
    struct pair *p = calloc(1, sizeof *p);
    uint64_t kind = hw_rng_below(&rng, depth < 8 ? 4 : 3);
    bool keys_only = kind == 0 && hw_rng_is_chance(&rng, 30);
    etcdserverpb__response_op__init(&p->m);
    etcdserverpb__response_header__init(&p->header);
    p->header.revision = revision;
    kvs_make(&p->kvs, hw_rng_below(&rng, kind == 1 ? 2 : 4), keys_only);
    p->op.range.kvs = p->kvs.versions;
    p->op.range.kv_count = p->kvs.count;
    p->op.range.count = (int64_t)some_number();
    p->op.range.keys_only = keys_only;
    if (kind == 0) {
        p->op.type = HW_OP_RANGE;
        p->op.range.more = hw_rng_is_chance(&rng, 50);
        etcdserverpb__range_response__init(&p->range);
        p->range.header = &p->header;
        p->range.kvs = p->kvs.pointers;
        p->range.n_kvs = p->kvs.count;
        p->range.more = p->op.range.more;
        p->range.count = p->op.range.count;
        p->m.response_case = ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE;
        p->m.response_range = &p->range;
    } else if (kind == 1) {
        p->op.type = HW_OP_PUT;
        etcdserverpb__put_response__init(&p->put);
        p->put.header = &p->header;
        p->put.prev_kv = p->kvs.count > 0 ? p->kvs.pointers[0] : NULL;
        p->m.response_case = ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_PUT;
        p->m.response_put = &p->put;
    } else if (kind == 2) {
        p->op.type = HW_OP_DELETE;
        etcdserverpb__delete_range_response__init(&p->del);
        p->del.header = &p->header;
        p->del.deleted = p->op.range.count;
        p->del.prev_kvs = p->kvs.pointers;
        p->del.n_prev_kvs = p->kvs.count;
        p->m.response_case = ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_DELETE_RANGE;
        p->m.response_delete_range = &p->del;
    } else {
        p->op.type = HW_OP_TXN;
        make_nested(p, revision, depth);
        p->op.txn = &p->txn;
        p->m.response_case = ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_TXN;
        p->m.response_txn = &p->nested;
    }
    return p;
}

static void transactions_are_encoded_as_protobuf_does(void)
{
    struct hw_buf out;
    hw_buf_init(&out);
    hw_rng_seed(&rng, 4);
    for (int round = 0; round < ROUNDS; round++) {
        struct hw_header h;
        Etcdserverpb__ResponseHeader header;
        struct pair top = {0};
        some_header(&h, &header);
        make_nested(&top, h.revision, 1);
        top.nested.header = &header;
        hw_encode_txn(&out, &h, &top.txn);
        CHECK_EQ(out.len, hw_encode_txn_size(&h, &top.txn));
        check_same(&out, &top.nested.base);
        for (size_t i = 0; i < top.child_count; i++) {
            pair_free(top.children[i]);
        }
    }
    hw_buf_free(&out);
}

static void varint_sizes_are_those_of_the_writer(void)
{
    struct hw_buf out;
    hw_buf_init(&out);
    for (unsigned bit = 0; bit < 64; bit++) {
        for (int delta = -1; delta <= 1; delta++) {
            uint64_t v = ((uint64_t)1 << bit) + (uint64_t)delta;
            hw_buf_clear(&out);
            hw_buf_put_varint(&out, v);
            CHECK_EQ(out.len, hw_pb_varint_size(v));
        }
    }
    hw_buf_free(&out);
}

static void the_field_reader_stops_at_damage(void)
{
    static const struct {
        const char *bytes;
        size_t len;
        unsigned fields;
        bool failed;
    } cases[] = {
        {"", 0, 0, false},
        {"\x08\x01\x12\x02xy", 6, 2, false},
        {"\x09"
         "12345678",
         9, 1, false},
        {"\x0d"
         "1234",
         5, 1, false},
        {"\x12\x05xy", 4, 0, true}, /* longer than there is */
        {"\x08", 1, 0, true},       /* no value */
        {"\x0b\x0c", 2, 0, true},   /* a group */
        {"\x00\x01", 2, 0, true},   /* field 0 */
        {"\x0f\x01", 2, 0, true},   /* wire type 7 */
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01", 11, 0, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hw_reader r;
        unsigned field;
        enum hw_pb_type type;
        uint64_t number;
        struct hw_slice bytes;
        unsigned seen = 0;
        hw_reader_init(&r, cases[i].bytes, cases[i].len);
        while (hw_protowire_next(&r, &field, &type, &number, &bytes)) {
            seen++;
        }
        CHECK_EQ(seen, cases[i].fields);
        CHECK_EQ(r.failed, cases[i].failed);
    }
}

static void an_empty_message_packs_into_an_empty_buffer(void)
{
    Etcdserverpb__StatusRequest m = ETCDSERVERPB__STATUS_REQUEST__INIT;
    struct hw_buf b = {0};
    CHECK_EQ(hw_pack(&m.base, &b), 0);
    CHECK_EQ(b.len, 0);
    CHECK(!b.failed);
    hw_buf_free(&b);
}

HW_SUITE(api_kv_encode, HW_CASE(ranges_are_encoded_as_protobuf_does), HW_CASE(puts_are_encoded_as_protobuf_does),
         HW_CASE(deletes_are_encoded_as_protobuf_does), HW_CASE(transactions_are_encoded_as_protobuf_does),
         HW_CASE(varint_sizes_are_those_of_the_writer), HW_CASE(the_field_reader_stops_at_damage),
         HW_CASE(an_empty_message_packs_into_an_empty_buffer))
