/* Memory ends at the 1st, 2nd, ... nth allocation: the call says so, the state is as it was, and the same call succeeds
 * when there is memory again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "storage/hot/changes.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"
#include "tests/unit/storage/hot/nomem.h"

#define ALLOCATIONS_MAX 10000

static void fill(struct kit *k)
{
    char key[8];
    hotkit_open(k);
    for (int i = 0; i < 70; i++) {
        snprintf(key, sizeof key, "k%02d", i % 40);
        hotkit_put(k, key, "value");
    }
}

struct picture {
    hw_rev revision;
    uint64_t applied;
    uint64_t hash;
    uint64_t sum;
    size_t keys;
    size_t versions;
    size_t dirty;
    size_t dirty_bytes;
    size_t nodes;
    size_t events;
    size_t leases;
    char lease_1[1024];
    char lease_2[1024];
};

static struct picture picture_of(struct kit *k)
{
    struct picture p;
    memset(&p, 0, sizeof p);
    p.revision = hw_hot_revision(k->hot);
    p.applied = hw_hot_applied(k->hot);
    p.hash = hw_hot_hash(k->hot);
    p.sum = hotkit_hash(k, 0, 1000);
    p.keys = hw_hot_key_count(k->hot);
    p.versions = hw_hot_version_count(k->hot);
    p.dirty = hw_hot_dirty_count(k->hot);
    p.dirty_bytes = hw_hot_dirty_bytes(k->hot);
    p.nodes = hw_hot_node_count(k->hot);
    p.events = hw_hot_event_count(k->hot);
    p.leases = hw_hot_lease_count(k->hot);
    snprintf(p.lease_1, sizeof p.lease_1, "%s", hotkit_lease_text(k, 1));
    snprintf(p.lease_2, sizeof p.lease_2, "%s", hotkit_lease_text(k, 2));
    return p;
}

/* Applies with the nth allocation failing, n = 1, 2, ... until it goes through; how many n that took. */
static unsigned sweep_command(struct kit *k, const struct hw_cmd *cmd, bool with_result)
{
    struct picture before = picture_of(k);
    unsigned n;
    hw_buf_clear(&k->encoded);
    REQUIRE(hw_cmd_encode(cmd, &k->encoded) == 0);
    for (n = 1; n < ALLOCATIONS_MAX; n++) {
        struct hw_result r;
        struct hw_error e = {0};
        struct picture after;
        bool has_failed;
        int rc;
        hw_result_init(&r);
        nomem_arm(n);
        rc = hw_hot_apply(k->hot, k->index + 1, k->encoded.data, k->encoded.len, with_result ? &r : NULL, &e);
        has_failed = nomem_disarm();
        hw_result_free(&r);
        CHECK(hw_hot_check(k->hot) == NULL);
        if (!has_failed) {
            CHECK_EQ(rc, 0);
            k->index++;
            return n;
        }
        CHECK_EQ(rc, HW_ERR_NOMEM);
        CHECK(strstr(e.text, "out of memory") != NULL);
        after = picture_of(k);
        CHECK(memcmp(&before, &after, sizeof before) == 0);
    }
    return n;
}

static void a_transaction_that_runs_out_changes_nothing(void)
{
    struct hw_op deep[] = {hotkit_op_put("deep", "1"), hotkit_op_delete("k2", "k3"), hotkit_op_get("deep")};
    struct hw_txn nested = {.success = deep, .success_count = hw_array_len(deep)};
    struct hw_op ops[] = {
        hotkit_op_put("k05", "again"),
        hotkit_op_put("new", "1"),
        {.type = HW_OP_RANGE, .range = {.key = OPEN_END, .range_end = OPEN_END, .sort_target = HW_BY_MOD, .limit = 9}},
        hotkit_op_delete("k1", "k2"),
        hotkit_op_txn(&nested)};
    struct hw_cmd cmd = {.type = HW_CMD_TXN, .txn = {.success = ops, .success_count = hw_array_len(ops)}};
    ops[0].put.prev_kv = true;
    ops[3].del.prev_kv = true;
    for (int with_result = 0; with_result < 2; with_result++) {
        static struct kit k;
        if (!nomem_is_available()) {
            return;
        }
        fill(&k);
        CHECK(sweep_command(&k, &cmd, with_result != 0) > 30);
        hotkit_close(&k);
    }
}

/* Keys that come to a lease, leave it, change it and stay, some of them twice. */
static void leases_that_run_out_are_as_they_were(void)
{
    static struct kit k;
    struct hw_op put = hotkit_op_put("k03", "there and gone");
    struct hw_op del = hotkit_op_delete("k0", "k08");
    struct hw_txn first = {.success = &put, .success_count = 1};
    struct hw_txn second = {.success = &del, .success_count = 1};
    struct hw_op ops[] = {hotkit_op_txn(&first),     hotkit_op_txn(&second),    hotkit_op_put("k10", "moves"),
                          hotkit_op_put("k11", "1"), hotkit_op_put("k12", "2"), hotkit_op_put("new", "3")};
    struct hw_cmd txn = {.type = HW_CMD_TXN, .txn = {.success = ops, .success_count = hw_array_len(ops)}};
    struct hw_cmd grant = {.type = HW_CMD_LEASE_GRANT, .grant = {3, 10}};
    struct hw_cmd revoke = {.type = HW_CMD_LEASE_REVOKE, .revoke = 1};
    struct hw_lease_remaining left = {2, 3};
    struct hw_cmd checkpoint = {.type = HW_CMD_LEASE_CHECKPOINT, .checkpoint = {&left, 1}};
    char key[8];
    if (!nomem_is_available()) {
        return;
    }
    fill(&k);
    hotkit_grant(&k, 1, 10);
    hotkit_grant(&k, 2, 10);
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "k%02d", i);
        hotkit_lease(&k, key, 1 + i % 2);
    }
    put.put.lease = 1;
    ops[2].put.lease = 2;
    ops[3].put.ignore_lease = true;
    ops[5].put.lease = 1;
    CHECK(sweep_command(&k, &txn, true) > 20);
    CHECK_STR(hotkit_lease_text(&k, 1), "k08 k14 k16 k18 new /5 10s");
    CHECK_STR(hotkit_lease_text(&k, 2), "k09 k10 k11 k13 k15 k17 k19 /7 10s");
    CHECK(sweep_command(&k, &grant, false) > 1);
    CHECK(sweep_command(&k, &checkpoint, false) > 1);
    CHECK(sweep_command(&k, &revoke, true) > 5);
    CHECK_STR(hotkit_lease_text(&k, 1), "NOTFOUND");
    CHECK_STR(hotkit_lease_text(&k, 2), "k09 k10 k11 k13 k15 k17 k19 /7 10,3s");
    hotkit_close(&k);
}

/* More transactions on the way than the path has room for by itself. */
static void a_long_path_that_runs_out_changes_nothing(void)
{
    static struct kit k;
    struct hw_op put = hotkit_op_put("last", "1");
    struct hw_txn empty = {0};
    struct hw_op ops[100];
    struct hw_cmd cmd = {.type = HW_CMD_TXN, .txn = {.success = ops, .success_count = hw_array_len(ops)}};
    for (size_t i = 0; i < hw_array_len(ops); i++) {
        ops[i] = hotkit_op_txn(&empty);
    }
    ops[99] = put;
    if (!nomem_is_available()) {
        return;
    }
    fill(&k);
    CHECK(sweep_command(&k, &cmd, true) > 100);
    hotkit_close(&k);
}

static void registry_and_history_that_run_out_change_nothing(void)
{
    static struct kit k;
    struct hw_cmd cmd = {.type = HW_CMD_NODE_SET};
    unsigned failures = 0;
    if (!nomem_is_available()) {
        return;
    }
    hotkit_open(&k);
    for (unsigned i = 1; i < 40; i++) {
        cmd.type = HW_CMD_NODE_SET;
        cmd.node = (struct hw_node){.id = i};
        snprintf(cmd.node.name, sizeof cmd.node.name, "n%u", i);
        failures += sweep_command(&k, &cmd, true) - 1;
    }
    cmd = (struct hw_cmd){.type = HW_CMD_EVENT, .event = {.kind = "drill"}};
    for (unsigned i = 1; i < 40; i++) {
        failures += sweep_command(&k, &cmd, false) - 1;
    }
    CHECK(failures >= 5);
    hotkit_close(&k);
}

static void readers_that_run_out_can_be_closed(void)
{
    static struct kit k;
    struct hw_range r = {
        .key = OPEN_END, .range_end = OPEN_END, .sort_target = HW_BY_MOD, .sort_order = HW_SORT_DESCEND};
    bool has_failed = true;
    if (!nomem_is_available()) {
        return;
    }
    fill(&k);
    for (unsigned n = 1; has_failed; n++) {
        struct hw_scan *scan;
        struct hw_hasher *hasher;
        int rc;
        nomem_arm(n);
        rc = hw_scan_start(k.hot, &r, &scan);
        while (rc == 0 && (rc = hw_scan_step(scan, 10)) > 0) {
            rc = 0;
        }
        has_failed = nomem_disarm();
        CHECK_EQ(rc, has_failed ? HW_ERR_NOMEM : 0);
        hw_scan_close(scan);
        nomem_arm(1);
        CHECK_EQ(hw_hasher_start(k.hot, 0, &hasher), HW_ERR_NOMEM);
        nomem_disarm();
        CHECK(hasher == NULL);
    }
    hotkit_close(&k);
}

static void changes_that_run_out_can_be_closed(void)
{
    static struct kit k;
    bool has_failed = true;
    unsigned failures = 0;
    if (!nomem_is_available()) {
        return;
    }
    fill(&k);
    for (unsigned n = 1; has_failed; n++) {
        struct hw_changes *ch;
        int rc;
        nomem_arm(n);
        rc = hw_changes_start(k.hot, OPEN_END, OPEN_END, 1, 100, &ch);
        while (rc == 0 && (rc = hw_changes_step(ch, 10)) > 0) {
            rc = 0;
        }
        has_failed = nomem_disarm();
        failures += has_failed;
        CHECK_EQ(rc, has_failed ? HW_ERR_NOMEM : 0);
        hw_changes_close(ch);
        CHECK_EQ(hw_hot_open_scans(k.hot), 0);
    }
    CHECK(failures >= 4);
    hotkit_close(&k);
}

static void a_cut_that_runs_out_takes_nothing(void)
{
    static struct kit k;
    struct hw_cmd event = {.type = HW_CMD_EVENT, .event = {.kind = "drill"}};
    struct hw_cmd node = {.type = HW_CMD_NODE_SET, .node = {.id = 1, .name = "n"}};
    struct hw_cut *cut = NULL;
    if (!nomem_is_available()) {
        return;
    }
    fill(&k);
    hotkit_apply(&k, &event, NULL);
    hotkit_apply(&k, &node, NULL);
    hotkit_grant(&k, 1, 10);
    hotkit_grant(&k, 2, 10);
    hotkit_revoke(&k, 2);
    for (unsigned n = 1; cut == NULL; n++) {
        nomem_arm(n);
        CHECK_EQ(hw_hot_cut(k.hot, &cut), n <= 4 ? HW_ERR_NOMEM : 0);
        CHECK(nomem_disarm() == (cut == NULL));
        CHECK_EQ(hw_hot_dirty_count(k.hot), cut == NULL ? 72 : 0);
    }
    CHECK(cut->version_count == 70 && cut->event_count == 2 && cut->nodes_changed);
    CHECK(cut->lease_count == 2 && !cut->leases[0].is_gone && cut->leases[1].is_gone);
    hw_cut_free(cut);
    hotkit_close(&k);
}

static void a_load_that_runs_out_leaves_the_version_with_the_caller(void)
{
    static struct kit k;
    struct hw_cut *cut;
    struct hw_hot *loaded = hw_hot_new();
    if (!nomem_is_available()) {
        hw_hot_free(loaded);
        return;
    }
    hotkit_open(&k);
    for (int i = 0; i < 6; i++) {
        hotkit_put(&k, i < 3 ? "a" : "b", "v");
    }
    REQUIRE(hw_hot_cut(k.hot, &cut) == 0);
    for (size_t i = 0; i < cut->version_count; i++) {
        struct hw_version *v = hw_version_ref(cut->versions[i]);
        bool has_failed = true;
        for (unsigned n = 1; has_failed; n++) {
            int rc;
            nomem_arm(n);
            rc = hw_hot_load_version(loaded, v);
            has_failed = nomem_disarm();
            CHECK_EQ(rc, has_failed ? HW_ERR_NOMEM : 0);
        }
    }
    CHECK_EQ(hw_hot_load_finish(loaded, &(struct hw_hot_counters){.revision = 7}, NULL), 0);
    CHECK(hw_hot_check(loaded) == NULL);
    CHECK_EQ(hw_hot_version_count(loaded), 6);
    hw_cut_free(cut);
    hw_hot_free(loaded);
    hotkit_close(&k);
}

/* The end of a load attaches keys; called again, it goes on where memory ended. */
static void the_end_of_a_load_that_runs_out_may_be_tried_again(void)
{
    static struct kit k;
    static struct kit loaded;
    struct hw_hot_counters c = {.revision = 7};
    struct hw_cut *cut;
    int rc = HW_ERR_NOMEM;
    unsigned failures = 0;
    if (!nomem_is_available()) {
        return;
    }
    hotkit_open(&k);
    hotkit_open(&loaded);
    hotkit_grant(&k, 1, 10);
    for (int i = 0; i < 6; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%d", i);
        hotkit_lease(&k, key, 1);
    }
    REQUIRE(hw_hot_cut(k.hot, &cut) == 0);
    for (size_t i = 0; i < cut->version_count; i++) {
        REQUIRE(hw_hot_load_version(loaded.hot, hw_version_ref(cut->versions[i])) == 0);
    }
    nomem_arm(1);
    CHECK_EQ(hw_hot_load_lease(loaded.hot, &cut->leases[0]), HW_ERR_NOMEM);
    nomem_disarm();
    REQUIRE(hw_hot_load_lease(loaded.hot, &cut->leases[0]) == 0);
    while (rc == HW_ERR_NOMEM) {
        nomem_arm(3);
        rc = hw_hot_load_finish(loaded.hot, &c, NULL);
        failures += nomem_disarm();
    }
    CHECK_EQ(rc, 0);
    CHECK_EQ(failures, 2);
    CHECK_STR(hotkit_lease_text(&loaded, 1), "k0 k1 k2 k3 k4 k5 /6 10s");
    hw_cut_free(cut);
    hotkit_close(&k);
    hotkit_close(&loaded);
}

static void the_rest_says_so(void)
{
    struct hw_txn txn = {0};
    struct hw_op ops[] = {hotkit_op_put("a", ""), hotkit_op_put("b", ""), hotkit_op_delete("c", "")};
    if (!nomem_is_available()) {
        return;
    }
    txn.success = ops;
    txn.success_count = hw_array_len(ops);
    for (unsigned n = 1; n <= 4; n++) {
        nomem_arm(n);
        CHECK_EQ(hw_hot_check_txn(&txn, 128, NULL), HW_ERR_NOMEM);
        nomem_disarm();
    }
    nomem_arm(1);
    CHECK(hw_hot_new() == NULL);
    nomem_arm(1);
    CHECK(hw_key_name_new(S("k")) == NULL);
    for (unsigned n = 1; n < 3; n++) {
        struct hw_cmd cmd = {.type = HW_CMD_TXN, .txn = txn};
        struct hw_buf b = {0};
        nomem_arm(n);
        if (hw_cmd_encode(&cmd, &b) != 0) {
            CHECK(nomem_disarm() && b.len == 0);
        }
        nomem_disarm();
        hw_buf_free(&b);
    }
}

HW_SUITE(hot_nomem, HW_CASE(a_transaction_that_runs_out_changes_nothing), HW_CASE(leases_that_run_out_are_as_they_were),
         HW_CASE(a_long_path_that_runs_out_changes_nothing), HW_CASE(registry_and_history_that_run_out_change_nothing),
         HW_CASE(readers_that_run_out_can_be_closed), HW_CASE(changes_that_run_out_can_be_closed),
         HW_CASE(a_cut_that_runs_out_takes_nothing), HW_CASE(a_load_that_runs_out_leaves_the_version_with_the_caller),
         HW_CASE(the_end_of_a_load_that_runs_out_may_be_tried_again), HW_CASE(the_rest_says_so))
