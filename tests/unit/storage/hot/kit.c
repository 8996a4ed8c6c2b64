#include "tests/unit/storage/hot/kit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/hw_test.h"

#define SEED_DEFAULT 20260131

void hotkit_open(struct kit *k)
{
    memset(k, 0, sizeof *k);
    k->hot = hw_hot_new();
    REQUIRE(k->hot != NULL);
}

void hotkit_close(struct kit *k)
{
    const char *problem = hw_hot_check(k->hot);
    if (problem != NULL) {
        printf("  broken: %s\n", problem);
    }
    CHECK(problem == NULL);
    hw_hot_free(k->hot);
    hw_buf_free(&k->encoded);
}

int hotkit_apply(struct kit *k, const struct hw_cmd *cmd, struct hw_result *r)
{
    struct hw_result own;
    struct hw_error e = {0};
    int code;
    if (r == NULL) {
        r = &own;
    }
    hw_result_init(r);
    hw_buf_clear(&k->encoded);
    REQUIRE(hw_cmd_encode(cmd, &k->encoded) == 0);
    REQUIRE(hw_hot_apply(k->hot, ++k->index, k->encoded.data, k->encoded.len, r, &e) == 0);
    CHECK_EQ(hw_hot_applied(k->hot), k->index);
    CHECK_EQ(r->revision, hw_hot_revision(k->hot));
    code = r->code;
    if (r == &own) {
        hw_result_free(r);
    }
    return code;
}

int hotkit_txn(struct kit *k, const struct hw_txn *txn, struct hw_result *r)
{
    struct hw_cmd cmd = {.type = HW_CMD_TXN, .txn = *txn};
    return hotkit_apply(k, &cmd, r);
}

struct hw_op hotkit_op_put(const char *key, const char *value)
{
    return (struct hw_op){.type = HW_OP_PUT, .put = {.key = hw_slice_str(key), .value = hw_slice_str(value)}};
}

struct hw_op hotkit_op_delete(const char *key, const char *range_end)
{
    return (struct hw_op){.type = HW_OP_DELETE,
                          .del = {.key = hw_slice_str(key), .range_end = hw_slice_str(range_end)}};
}

struct hw_op hotkit_op_get(const char *key)
{
    return (struct hw_op){.type = HW_OP_RANGE, .range = {.key = hw_slice_str(key)}};
}

struct hw_op hotkit_op_txn(struct hw_txn *txn)
{
    return (struct hw_op){.type = HW_OP_TXN, .txn = txn};
}

int hotkit_put(struct kit *k, const char *key, const char *value)
{
    struct hw_op op = hotkit_op_put(key, value);
    return hotkit_txn(k, &(struct hw_txn){.success = &op, .success_count = 1}, NULL);
}

int hotkit_delete(struct kit *k, const char *key, struct hw_slice range_end)
{
    struct hw_op op = {.type = HW_OP_DELETE, .del = {.key = hw_slice_str(key), .range_end = range_end}};
    return hotkit_txn(k, &(struct hw_txn){.success = &op, .success_count = 1}, NULL);
}

int hotkit_compact(struct kit *k, hw_rev revision)
{
    return hotkit_apply(k, &(struct hw_cmd){.type = HW_CMD_COMPACT, .compact = revision}, NULL);
}

int hotkit_grant(struct kit *k, int64_t id, int64_t ttl_s)
{
    return hotkit_apply(k, &(struct hw_cmd){.type = HW_CMD_LEASE_GRANT, .grant = {id, ttl_s}}, NULL);
}

int hotkit_revoke(struct kit *k, int64_t id)
{
    return hotkit_apply(k, &(struct hw_cmd){.type = HW_CMD_LEASE_REVOKE, .revoke = id}, NULL);
}

int hotkit_remaining(struct kit *k, int64_t id, int64_t remaining_s)
{
    struct hw_lease_remaining one = {id, remaining_s};
    return hotkit_apply(k, &(struct hw_cmd){.type = HW_CMD_LEASE_CHECKPOINT, .checkpoint = {&one, 1}}, NULL);
}

int hotkit_lease(struct kit *k, const char *key, int64_t id)
{
    struct hw_op op = hotkit_op_put(key, "leased");
    op.put.lease = id;
    return hotkit_txn(k, &(struct hw_txn){.success = &op, .success_count = 1}, NULL);
}

const char *hotkit_lease_text(struct kit *k, int64_t id)
{
    static char text[1024];
    struct hw_lease_view view;
    struct hw_key_name *key = NULL;
    size_t at = 0;
    int rc = hw_hot_lease(k->hot, id, &view);
    if (rc != 0) {
        return hw_err_name(rc);
    }
    while (hw_hot_lease_keys(k->hot, id, key, &key, 1) == 1) {
        at += (size_t)snprintf(text + at, sizeof text - at, "%.*s ", (int)key->len, (const char *)key->data);
    }
    at += (size_t)snprintf(text + at, sizeof text - at, "/%zu %" PRId64, view.key_count, view.ttl_s);
    if (view.remaining_s != 0) {
        at += (size_t)snprintf(text + at, sizeof text - at, ",%" PRId64, view.remaining_s);
    }
    snprintf(text + at, sizeof text - at, "s");
    return text;
}

void hotkit_sweep(struct kit *k, size_t budget)
{
    while (hw_hot_sweep(k->hot, budget)) {
    }
}

const char *hotkit_scan_text(const struct hw_scan *scan, bool keys_only)
{
    static char text[65536];
    size_t count;
    struct hw_version *const *kvs = hw_scan_kvs(scan, &count);
    size_t at = 0;
    for (size_t i = 0; i < count && at < sizeof text - 64; i++) {
        const struct hw_version *v = kvs[i];
        at += (size_t)snprintf(text + at, sizeof text - at, "%.*s", (int)v->key->len, (const char *)v->key->data);
        if (!keys_only) {
            at += (size_t)snprintf(text + at, sizeof text - at, "=%.*s", (int)v->value_len, (const char *)v->value);
        }
        text[at++] = ' ';
    }
    snprintf(text + at, sizeof text - at, "/%" PRId64 "%s", hw_scan_count(scan), hw_scan_has_more(scan) ? "+" : "");
    return text;
}

const char *hotkit_range(struct kit *k, const struct hw_range *range, size_t budget)
{
    struct hw_scan *scan;
    const char *text;
    int rc = hw_scan_start(k->hot, range, &scan);
    if (rc != 0) {
        return hw_err_name(rc);
    }
    do {
        rc = hw_scan_step(scan, budget);
    } while (rc > 0);
    text = rc == 0 ? hotkit_scan_text(scan, range->keys_only) : hw_err_name(rc);
    hw_scan_close(scan);
    return text;
}

const char *hotkit_all(struct kit *k, hw_rev revision)
{
    return hotkit_range(k, &(struct hw_range){.key = OPEN_END, .range_end = OPEN_END, .revision = revision}, 1000);
}

void hotkit_version_text(struct hw_buf *out, const struct hw_version *v, bool keys_only)
{
    hw_buf_append(out, v->key->data, v->key->len);
    if (!keys_only) {
        hw_buf_append_str(out, "=");
        hw_buf_append(out, v->value, v->value_len);
    }
    hw_buf_printf(out, "(%" PRId64 ",%" PRId64 ",%" PRId64 ")", v->create_main, v->mod_main, v->version);
    if (v->lease != 0) {
        hw_buf_printf(out, "~%" PRId64, v->lease);
    }
    hw_buf_append_str(out, " ");
}

void hotkit_result_text(struct hw_buf *out, const struct hw_txn_result *txn)
{
    hw_buf_append_str(out, txn->succeeded ? "then[" : "else[");
    for (size_t i = 0; i < txn->op_count; i++) {
        const struct hw_op_result *op = &txn->ops[i];
        hw_buf_printf(out, "%c%" PRId64 ":", "?RPDT"[op->type], op -> revision);
        for (size_t j = 0; j < op->range.kv_count; j++) {
            hotkit_version_text(out, op->range.kvs[j], op->range.keys_only);
        }
        if (op->type == HW_OP_TXN) {
            hotkit_result_text(out, op->txn);
        } else {
            hw_buf_printf(out, "/%" PRId64 "%s;", op->range.count, op->range.more ? "+" : "");
        }
    }
    hw_buf_append_str(out, "]");
}

uint64_t hotkit_hash(struct kit *k, hw_rev revision, size_t budget)
{
    struct hw_hasher *hasher;
    uint64_t hash;
    REQUIRE(hw_hasher_start(k->hot, revision, &hasher) == 0);
    while (hw_hasher_step(hasher, budget) > 0) {
    }
    hash = hw_hasher_hash(hasher);
    hw_hasher_close(hasher);
    return hash;
}

uint64_t hotkit_seed(const char *what)
{
    const char *text = getenv("HW_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : SEED_DEFAULT;
    printf("  %s: HW_SEED=%" PRIu64 "\n", what, seed);
    return seed;
}
