/* The codec: round trips, refusals, and damaged encodings, which are refused or mean exactly what they say. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/rng.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"

#define ROUNDS 2000
#define MUTATIONS 100

static struct hw_slice random_bytes(struct hw_rng *r)
{
    static const uint8_t pool[300] = "key\0with\xff"
                                     "bytes";
    size_t len = hw_rng_is_chance(r, 5) ? 200 : hw_rng_below(r, 12);
    return hw_slice_of(pool + hw_rng_below(r, 20), len);
}

static int64_t random_number(struct hw_rng *r)
{
    return (int64_t)(hw_rng_next(r) >> hw_rng_below(r, 64));
}

static void random_text(struct hw_rng *r, char *out, size_t size)
{
    size_t len = hw_rng_is_chance(r, 10) ? size - 1 : hw_rng_below(r, 20);
    memset(out, 'a' + (int)hw_rng_below(r, 26), len);
    out[len] = '\0';
}

static int64_t random_seconds(struct hw_rng *r, int64_t min)
{
    int64_t s = random_number(r);
    return s < min ? min : s > HW_LEASE_TTL_MAX ? HW_LEASE_TTL_MAX : s;
}

static void random_txn(struct hw_rng *r, struct hw_txn *txn, unsigned depth);

static void random_op(struct hw_rng *r, struct hw_op *op, unsigned depth)
{
    op->type = (enum hw_op_type)(1 + hw_rng_below(r, depth < HW_TXN_DEPTH_MAX ? 4 : 3));
    switch (op->type) {
    case HW_OP_RANGE:
        op->range = (struct hw_range){.key = random_bytes(r),
                                      .range_end = random_bytes(r),
                                      .limit = random_number(r),
                                      .revision = random_number(r),
                                      .sort_order = (enum hw_sort_order)hw_rng_below(r, 3),
                                      .sort_target = (enum hw_sort_target)hw_rng_below(r, 5),
                                      .keys_only = hw_rng_is_chance(r, 50),
                                      .count_only = hw_rng_is_chance(r, 50),
                                      .min_mod = random_number(r),
                                      .max_mod = random_number(r),
                                      .min_create = random_number(r),
                                      .max_create = random_number(r)};
        break;
    case HW_OP_PUT:
        op->put = (struct hw_put){random_bytes(r),         random_bytes(r),         random_number(r),
                                  hw_rng_is_chance(r, 50), hw_rng_is_chance(r, 50), hw_rng_is_chance(r, 50)};
        break;
    case HW_OP_DELETE:
        op->del = (struct hw_delete){random_bytes(r), random_bytes(r), hw_rng_is_chance(r, 50)};
        break;
    case HW_OP_TXN:
        op->txn = calloc(1, sizeof *op->txn);
        random_txn(r, op->txn, depth + 1);
        break;
    }
}

static struct hw_op *random_ops(struct hw_rng *r, size_t *count, unsigned depth)
{
    struct hw_op *ops;
    *count = hw_rng_below(r, 4);
    ops = calloc(*count + 1, sizeof *ops);
    for (size_t i = 0; i < *count; i++) {
        random_op(r, &ops[i], depth);
    }
    return ops;
}

static void random_txn(struct hw_rng *r, struct hw_txn *txn, unsigned depth)
{
    txn->compare_count = hw_rng_below(r, 3);
    txn->compares = calloc(txn->compare_count + 1, sizeof *txn->compares);
    for (size_t i = 0; i < txn->compare_count; i++) {
        struct hw_compare *c = &txn->compares[i];
        c->result = (enum hw_compare_result)hw_rng_below(r, 4);
        c->target = (enum hw_compare_target)hw_rng_below(r, 5);
        c->key = random_bytes(r);
        c->range_end = random_bytes(r);
        c->number = random_number(r);
        c->value = random_bytes(r);
    }
    txn->success = random_ops(r, &txn->success_count, depth);
    txn->failure = random_ops(r, &txn->failure_count, depth);
}

static void random_command(struct hw_rng *r, struct hw_cmd *cmd)
{
    memset(cmd, 0, sizeof *cmd);
    cmd->type = (enum hw_cmd_type)(1 + hw_rng_below(r, HW_CMD_TYPE_END - 1));
    if (hw_rng_is_chance(r, 50)) {
        cmd->type = HW_CMD_TXN;
    }
    cmd->wall_ms = hw_rng_next(r);
    switch (cmd->type) {
    case HW_CMD_TXN:
        random_txn(r, &cmd->txn, 1);
        break;
    case HW_CMD_COMPACT:
        cmd->compact = random_number(r);
        break;
    case HW_CMD_HOT_ACQUIRED:
        cmd->hot.node_id = hw_rng_next(r);
        cmd->hot.epoch = hw_rng_next(r);
        random_text(r, cmd->hot.name, sizeof cmd->hot.name);
        break;
    case HW_CMD_NODE_SET:
        cmd->node.id = hw_rng_next(r);
        random_text(r, cmd->node.name, sizeof cmd->node.name);
        random_text(r, cmd->node.peer_address, sizeof cmd->node.peer_address);
        random_text(r, cmd->node.client_address, sizeof cmd->node.client_address);
        break;
    case HW_CMD_NODE_REMOVE:
        cmd->node_id = hw_rng_next(r);
        break;
    case HW_CMD_LEASE_GRANT:
        cmd->grant.id = 1 + (int64_t)(hw_rng_next(r) >> (1 + hw_rng_below(r, 62)));
        cmd->grant.ttl_s = random_seconds(r, 1);
        break;
    case HW_CMD_LEASE_REVOKE:
        cmd->revoke = random_number(r);
        break;
    case HW_CMD_LEASE_CHECKPOINT:
        cmd->checkpoint.count = hw_rng_is_chance(r, 5) ? 200 : hw_rng_below(r, 4);
        cmd->checkpoint.leases = calloc(cmd->checkpoint.count + 1, sizeof *cmd->checkpoint.leases);
        for (size_t i = 0; i < cmd->checkpoint.count; i++) {
            cmd->checkpoint.leases[i] = (struct hw_lease_remaining){random_number(r), random_seconds(r, 0)};
        }
        break;
    default:
        cmd->event.node_id = hw_rng_next(r);
        random_text(r, cmd->event.kind, sizeof cmd->event.kind);
        random_text(r, cmd->event.text, sizeof cmd->event.text);
    }
}

/* Decodes; what is accepted must encode to the same bytes. Returns the decoder's answer. */
static int decode_and_compare(const uint8_t *data, size_t len)
{
    struct hw_buf again = {0};
    struct hw_cmd cmd;
    int rc = hw_cmd_decode(data, len, &cmd, NULL);
    if (rc == 0) {
        CHECK_EQ(hw_cmd_encode(&cmd, &again), 0);
        CHECK(again.len == len && memcmp(again.data, data, len) == 0);
    }
    hw_cmd_free(&cmd);
    hw_buf_free(&again);
    return rc;
}

static void mutate(struct hw_rng *r, struct hw_buf *b)
{
    static const uint8_t edges[] = {0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0x81, 0xff};
    size_t changes = 1 + hw_rng_below(r, 3);
    for (size_t i = 0; i < changes && b->len > 0; i++) {
        size_t at = hw_rng_below(r, b->len);
        switch (hw_rng_below(r, 4)) {
        case 0:
            b->data[at] = edges[hw_rng_below(r, sizeof edges)];
            break;
        case 1:
            b->data[at] ^= (uint8_t)(1u << hw_rng_below(r, 8));
            break;
        case 2:
            b->len = at;
            break;
        default:
            hw_buf_put_u8(b, edges[hw_rng_below(r, sizeof edges)]);
        }
    }
}

static void what_is_accepted_has_one_encoding(void)
{
    struct hw_rng r;
    struct hw_buf b = {0};
    struct hw_buf damaged = {0};
    size_t accepted = 0;
    hw_rng_seed(&r, hotkit_seed("hot command"));
    for (int i = 0; i < ROUNDS; i++) {
        struct hw_cmd cmd;
        random_command(&r, &cmd);
        hw_buf_clear(&b);
        REQUIRE(hw_cmd_encode(&cmd, &b) == 0);
        hw_cmd_free(&cmd);
        CHECK_EQ(decode_and_compare(b.data, b.len), 0);
        for (int j = 0; j < MUTATIONS; j++) {
            hw_buf_clear(&damaged);
            hw_buf_append(&damaged, b.data, b.len);
            mutate(&r, &damaged);
            accepted += decode_and_compare(damaged.data, damaged.len) == 0;
        }
    }
    CHECK(accepted > 0);
    hw_buf_free(&b);
    hw_buf_free(&damaged);
}

/* Every proper prefix, and one byte more, is refused. Each is copied, so that a read past the end is seen. */
static void nothing_is_missing_and_nothing_trails(void)
{
    struct hw_rng r;
    hw_rng_seed(&r, 7);
    for (int i = 0; i < 200; i++) {
        struct hw_buf b = {0};
        struct hw_cmd cmd;
        random_command(&r, &cmd);
        REQUIRE(hw_cmd_encode(&cmd, &b) == 0);
        hw_cmd_free(&cmd);
        for (size_t len = 0; len < b.len; len++) {
            uint8_t *copy = malloc(len + 1);
            memcpy(copy, b.data, len);
            copy = realloc(copy, len > 0 ? len : 1);
            CHECK_EQ(hw_cmd_decode(copy, len, &cmd, NULL), HW_ERR_CORRUPT);
            hw_cmd_free(&cmd);
            free(copy);
        }
        hw_buf_put_u8(&b, 0);
        CHECK_EQ(hw_cmd_decode(b.data, b.len, &cmd, NULL), HW_ERR_CORRUPT);
        hw_cmd_free(&cmd);
        hw_buf_free(&b);
    }
}

static int decode_body(enum hw_cmd_type type, struct hw_slice body)
{
    struct hw_buf b = {0};
    struct hw_cmd cmd;
    int rc;
    hw_buf_put_u8(&b, HW_CMD_FORMAT);
    hw_buf_put_u8(&b, (uint8_t)type);
    hw_buf_put_u64(&b, 0);
    hw_buf_append(&b, body.data, body.len);
    rc = hw_cmd_decode(b.data, b.len, &cmd, NULL);
    hw_cmd_free(&cmd);
    hw_buf_free(&b);
    return rc;
}

static void bad_commands_are_refused(void)
{
    /* One more than there may be, all of them there. */
    static const uint8_t many_leases[2 + (HW_LEASE_CHECKPOINT_MAX + 1) * 9] = {0x81, 0x20};
    static const struct {
        const char *what;
        enum hw_cmd_type type;
        struct hw_slice body;
    } cases[] = {
        {"type 0", 0, {0}},
        {"unknown type", HW_CMD_TYPE_END, {0}},
        {"padded varint", HW_CMD_COMPACT, {(const uint8_t *)"\x85\x00", 2}},
        {"varint too long", HW_CMD_COMPACT, {(const uint8_t *)"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10}},
        {"more compares than bytes", HW_CMD_TXN, {(const uint8_t *)"\x02\x00\x00\x00\x00\x00\x00\x00", 8}},
        {"more operations than allowed", HW_CMD_TXN, {(const uint8_t *)"\x00\x81\x80\x04", 4}},
        {"huge count", HW_CMD_TXN, {(const uint8_t *)"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11}},
        {"operation type 0", HW_CMD_TXN, {(const uint8_t *)"\x00\x01\x00\x00\x00\x00\x00", 7}},
        {"operation type 5", HW_CMD_TXN, {(const uint8_t *)"\x00\x01\x05\x00\x00\x00\x00", 7}},
        {"unknown flag of a put", HW_CMD_TXN, {(const uint8_t *)"\x00\x01\x02\x08\x01k\x00\x00\x00", 9}},
        {"unknown flag of a delete", HW_CMD_TXN, {(const uint8_t *)"\x00\x01\x03\x02\x01k\x00\x00", 8}},
        {"compare result 4", HW_CMD_TXN, {(const uint8_t *)"\x01\x04\x00\x01k\x00\x00\x00\x00", 9}},
        {"compare target 5", HW_CMD_TXN, {(const uint8_t *)"\x01\x00\x05\x01k\x00\x00\x00\x00", 9}},
        {"NUL in a name",
         HW_CMD_NODE_SET,
         {(const uint8_t *)"12345678\x02"
                           "a\0\x00\x00",
          13}},
        {"lease 0", HW_CMD_LEASE_GRANT, {(const uint8_t *)"\0\0\0\0\0\0\0\0\x05", 9}},
        {"negative lease", HW_CMD_LEASE_GRANT, {(const uint8_t *)"\0\0\0\0\0\0\0\x80\x05", 9}},
        {"no time to live", HW_CMD_LEASE_GRANT, {(const uint8_t *)"\x01\0\0\0\0\0\0\0\x00", 9}},
        {"time to live too long", HW_CMD_LEASE_GRANT, {(const uint8_t *)"\x01\0\0\0\0\0\0\0\x81\xb4\xc4\xc3\x21", 13}},
        {"half a lease", HW_CMD_LEASE_REVOKE, {(const uint8_t *)"\x01\0\0\0", 4}},
        {"more leases than bytes", HW_CMD_LEASE_CHECKPOINT, {(const uint8_t *)"\x02\x01\0\0\0\0\0\0\0\x05", 10}},
        {"more leases than allowed", HW_CMD_LEASE_CHECKPOINT, {many_leases, sizeof many_leases}},
        {"negative time left",
         HW_CMD_LEASE_CHECKPOINT,
         {(const uint8_t *)"\x01\x01\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 19}},
        {"kind too long",
         HW_CMD_EVENT,
         {(const uint8_t *)"12345678\x20"
                           "abcdefghijklmnopqrstuvwxyz012345\x00",
          42}},
    };
    for (size_t i = 0; i < hw_array_len(cases); i++) {
        int rc = decode_body(cases[i].type, cases[i].body);
        if (rc != HW_ERR_CORRUPT) {
            printf("  %s: %s\n", cases[i].what, hw_err_name(rc));
        }
        CHECK_EQ(rc, HW_ERR_CORRUPT);
    }
    CHECK_EQ(decode_body(HW_CMD_TXN, S("\x00\x01\x02\x07\x01k\x00\x00\x00")), 0);
    CHECK_EQ(decode_body(HW_CMD_COMPACT, S("\x05")), 0);
    CHECK_EQ(decode_body(HW_CMD_LEASE_GRANT, S("\x01\0\0\0\0\0\0\0\x80\xb4\xc4\xc3\x21")), 0);
    CHECK_EQ(decode_body(HW_CMD_LEASE_CHECKPOINT, S("\x01\x01\0\0\0\0\0\0\0\x00")), 0);
}

static void a_newer_format_is_named_as_such(void)
{
    struct hw_error e = {0};
    struct hw_cmd cmd;
    uint8_t data[] = {HW_CMD_FORMAT + 1, 99, 1, 2, 3};
    CHECK_EQ(hw_cmd_decode(data, sizeof data, &cmd, &e), HW_ERR_VERSION);
    CHECK(strstr(e.text, "upgrade") != NULL);
    hw_cmd_free(&cmd);
    data[0] = 0;
    CHECK_EQ(hw_cmd_decode(data, sizeof data, &cmd, &e), HW_ERR_CORRUPT);
    CHECK_EQ(hw_cmd_decode(data, 0, &cmd, &e), HW_ERR_CORRUPT);
}

static void nesting_is_bounded_on_both_sides(void)
{
    struct hw_txn chain[HW_TXN_DEPTH_MAX + 1];
    struct hw_op ops[HW_TXN_DEPTH_MAX];
    struct hw_cmd cmd = {.type = HW_CMD_TXN};
    struct hw_buf b = {0};
    memset(chain, 0, sizeof chain);
    for (int i = 0; i < HW_TXN_DEPTH_MAX; i++) {
        ops[i] = hotkit_op_txn(&chain[i + 1]);
        chain[i].success = &ops[i];
        chain[i].success_count = 1;
    }
    cmd.txn = chain[1];
    CHECK_EQ(hw_cmd_encode(&cmd, &b), 0);
    CHECK_EQ(decode_and_compare(b.data, b.len), 0);
    /* One deeper: each level is "no compares, one operation: a transaction" in front, "no failure" behind. */
    cmd.txn = chain[0];
    CHECK_EQ(hw_cmd_encode(&cmd, &b), HW_ERR_INVALID);
    hw_buf_put_u8(&b, 0);
    memmove(b.data + 13, b.data + 10, b.len - 1 - 10);
    hw_buf_reserve(&b, 8);
    b.len += 2;
    memcpy(b.data + 10, "\x00\x01\x04", 3);
    hw_buf_put_u8(&b, 0);
    CHECK_EQ(decode_and_compare(b.data, b.len), HW_ERR_CORRUPT);
    hw_buf_free(&b);
}

static void an_encoder_refuses_what_a_decoder_would(void)
{
    struct hw_buf b = {0};
    struct hw_cmd cmd = {.type = HW_CMD_TYPE_END};
    struct hw_op op = hotkit_op_get("k");
    CHECK_EQ(hw_cmd_encode(&cmd, &b), HW_ERR_INVALID);
    cmd = (struct hw_cmd){.type = HW_CMD_TXN, .txn = {.success = &op, .success_count = 1}};
    op.range.sort_target = (enum hw_sort_target)5;
    CHECK_EQ(hw_cmd_encode(&cmd, &b), HW_ERR_INVALID);
    op = hotkit_op_txn(NULL);
    CHECK_EQ(hw_cmd_encode(&cmd, &b), HW_ERR_INVALID);
    op.type = (enum hw_op_type)9;
    CHECK_EQ(hw_cmd_encode(&cmd, &b), HW_ERR_INVALID);
    cmd.txn.success_count = HW_TXN_OPS_HARD_MAX + 1;
    CHECK_EQ(hw_cmd_encode(&cmd, &b), HW_ERR_INVALID);
    cmd = (struct hw_cmd){.type = HW_CMD_EVENT};
    memset(cmd.event.kind, 'x', sizeof cmd.event.kind);
    CHECK_EQ(hw_cmd_encode(&cmd, &b), HW_ERR_INVALID);
    cmd = (struct hw_cmd){.type = HW_CMD_LEASE_GRANT, .grant = {0, 5}};
    CHECK_EQ(hw_cmd_encode(&cmd, &b), HW_ERR_INVALID);
    cmd.grant.id = 1;
    cmd.grant.ttl_s = HW_LEASE_TTL_MAX + 1;
    CHECK_EQ(hw_cmd_encode(&cmd, &b), HW_ERR_INVALID);
    cmd = (struct hw_cmd){.type = HW_CMD_LEASE_CHECKPOINT, .checkpoint = {NULL, HW_LEASE_CHECKPOINT_MAX + 1}};
    CHECK_EQ(hw_cmd_encode(&cmd, &b), HW_ERR_INVALID);
    CHECK_EQ(b.len, 0);
    hw_buf_free(&b);
}

HW_SUITE(hot_command, HW_CASE(what_is_accepted_has_one_encoding), HW_CASE(nothing_is_missing_and_nothing_trails),
         HW_CASE(bad_commands_are_refused), HW_CASE(a_newer_format_is_named_as_such),
         HW_CASE(nesting_is_bounded_on_both_sides), HW_CASE(an_encoder_refuses_what_a_decoder_would))
