/* Leases: which keys hang on them, and what happens to both. The model check has the random mixes. */
#include "storage/hot/lease.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"

static void a_lease_is_granted_once_and_revoked_once(void)
{
    static struct kit k;
    struct hw_lease_view view;
    hotkit_open(&k);
    CHECK_EQ(hotkit_grant(&k, 7, 60), 0);
    CHECK_EQ(hotkit_grant(&k, 7, 60), HW_ERR_EXISTS);
    CHECK_EQ(hotkit_grant(&k, INT64_MAX, HW_LEASE_TTL_MAX), 0);
    CHECK_EQ(hw_hot_lease_count(k.hot), 2);
    CHECK_STR(hotkit_lease_text(&k, 7), "/0 60s");
    CHECK_EQ(hw_hot_lease_next(k.hot, INT64_MIN, &view), 0);
    CHECK_EQ(view.id, 7);
    CHECK_EQ(hw_hot_lease_next(k.hot, 7, &view), 0);
    CHECK_EQ(view.id, INT64_MAX);
    CHECK_EQ(hw_hot_lease_next(k.hot, INT64_MAX, &view), HW_ERR_NOTFOUND);
    CHECK_EQ(hotkit_revoke(&k, 7), 0);
    CHECK_EQ(hotkit_revoke(&k, 7), HW_ERR_NOTFOUND);
    CHECK_EQ(hotkit_revoke(&k, -1), HW_ERR_NOTFOUND);
    CHECK_EQ(hw_hot_lease_next(k.hot, INT64_MIN, &view), 0);
    CHECK_EQ(view.id, INT64_MAX);
    CHECK_EQ(hotkit_grant(&k, 7, 5), 0);
    CHECK_STR(hotkit_lease_text(&k, 7), "/0 5s");
    CHECK_EQ(hw_hot_lease_count(k.hot), 2);
    CHECK_EQ(hw_hot_revision(k.hot), 1);
    hotkit_close(&k);
}

static void puts_and_deletes_move_a_key_between_leases(void)
{
    static struct kit k;
    struct hw_op keep = hotkit_op_put("a", "kept");
    hotkit_open(&k);
    keep.put.ignore_lease = true;
    CHECK_EQ(hotkit_lease(&k, "a", 1), HW_ERR_PRECONDITION);
    CHECK_EQ(hw_hot_key_count(k.hot), 0);
    hotkit_grant(&k, 1, 10);
    hotkit_grant(&k, 2, 20);
    hotkit_lease(&k, "b", 1);
    hotkit_lease(&k, "a", 1);
    hotkit_lease(&k, "a", 1);
    CHECK_STR(hotkit_lease_text(&k, 1), "a b /2 10s");
    CHECK_EQ(hotkit_txn(&k, &(struct hw_txn){.success = &keep, .success_count = 1}, NULL), 0);
    CHECK_STR(hotkit_lease_text(&k, 1), "a b /2 10s");
    hotkit_lease(&k, "a", 2);
    CHECK_STR(hotkit_lease_text(&k, 1), "b /1 10s");
    CHECK_STR(hotkit_lease_text(&k, 2), "a /1 20s");
    hotkit_put(&k, "a", "free");
    CHECK_STR(hotkit_lease_text(&k, 2), "/0 20s");
    hotkit_delete(&k, "b", S(""));
    CHECK_STR(hotkit_lease_text(&k, 1), "/0 10s");
    hotkit_lease(&k, "b", 1);
    hotkit_lease(&k, "c", 1);
    hotkit_delete(&k, "a", OPEN_END);
    CHECK_STR(hotkit_lease_text(&k, 1), "/0 10s");
    hotkit_close(&k);
}

static void a_transaction_that_writes_a_key_twice_leaves_the_last_word(void)
{
    static struct kit k;
    struct hw_op put = hotkit_op_put("a", "2");
    struct hw_op del = hotkit_op_delete("a", "");
    struct hw_txn first = {.success = &put, .success_count = 1};
    struct hw_txn second = {.success = &del, .success_count = 1};
    struct hw_op ops[] = {hotkit_op_txn(&first), hotkit_op_txn(&second), hotkit_op_put("b", "1")};
    struct hw_txn txn = {.success = ops, .success_count = hw_array_len(ops)};
    hotkit_open(&k);
    hotkit_grant(&k, 1, 10);
    hotkit_grant(&k, 2, 10);
    hotkit_lease(&k, "a", 1);
    put.put.lease = 2;
    ops[2].put.lease = 2;
    CHECK_EQ(hotkit_txn(&k, &txn, NULL), 0);
    CHECK_STR(hotkit_lease_text(&k, 1), "/0 10s");
    CHECK_STR(hotkit_lease_text(&k, 2), "b /1 10s");
    /* One unknown lease, however deep, and nothing happens. */
    put.put.lease = 3;
    CHECK_EQ(hotkit_txn(&k, &txn, NULL), HW_ERR_PRECONDITION);
    CHECK_STR(hotkit_lease_text(&k, 2), "b /1 10s");
    hotkit_close(&k);
}

struct heard {
    char text[256];
    size_t len;
};

static void hear_keys(void *ctx, hw_rev revision, struct hw_version *const *versions, size_t count)
{
    struct heard *h = ctx;
    for (size_t i = 0; i < count; i++) {
        const struct hw_version *v = versions[i];
        h->len += (size_t)snprintf(h->text + h->len, sizeof h->text - h->len, "%" PRId64 "%c%.*s ", revision,
                                   v->is_tombstone ? '-' : '+', (int)v->key->len, (const char *)v->key->data);
    }
}

static void hear_leases(void *ctx, const struct hw_lease_view *view, bool is_gone)
{
    struct heard *h = ctx;
    h->len += (size_t)snprintf(h->text + h->len, sizeof h->text - h->len, "%s%" PRId64 ":%" PRId64 ",%" PRId64 " ",
                               is_gone ? "gone" : "lease", view->id, view->ttl_s, view->remaining_s);
}

static void a_revocation_deletes_its_keys_in_one_revision_in_key_order(void)
{
    static struct kit k;
    static struct heard heard;
    memset(&heard, 0, sizeof heard);
    hotkit_open(&k);
    hotkit_grant(&k, 1, 10);
    hotkit_grant(&k, 2, 10);
    hotkit_lease(&k, "c", 1);
    hotkit_lease(&k, "a", 1);
    hotkit_lease(&k, "other", 2);
    hotkit_lease(&k, "b", 1);
    hw_hot_set_feed(k.hot, hear_keys, &heard);
    hw_hot_set_lease_feed(k.hot, hear_leases, &heard);
    CHECK_EQ(hotkit_revoke(&k, 1), 0);
    CHECK_EQ(hw_hot_revision(k.hot), 6);
    CHECK_STR(hotkit_all(&k, 0), "other=leased /1");
    CHECK_STR(hotkit_all(&k, 5), "a=leased b=leased c=leased other=leased /4");
    CHECK_EQ(hotkit_grant(&k, 1, 30), 0);
    CHECK_EQ(hotkit_revoke(&k, 1), 0); /* no keys: no revision */
    CHECK_EQ(hw_hot_revision(k.hot), 6);
    CHECK_EQ(hotkit_remaining(&k, 2, 4), 0);
    CHECK_STR(heard.text, "6-a 6-b 6-c gone1:10,0 lease1:30,0 gone1:30,0 lease2:10,4 ");
    hotkit_close(&k);
}

static void remaining_time_is_written_down(void)
{
    static struct kit k;
    uint64_t hash;
    hotkit_open(&k);
    hotkit_grant(&k, 1, 10);
    hash = hw_hot_hash(k.hot);
    CHECK_EQ(hotkit_remaining(&k, 1, 4), 0);
    CHECK_STR(hotkit_lease_text(&k, 1), "/0 10,4s");
    CHECK(hw_hot_hash(k.hot) != hash);
    hash = hw_hot_hash(k.hot);
    CHECK_EQ(hotkit_remaining(&k, 1, 4), 0);
    CHECK_EQ(hw_hot_hash(k.hot), hash); /* the same again is no news */
    CHECK_EQ(hotkit_remaining(&k, 99, 4), 0);
    CHECK_EQ(hw_hot_hash(k.hot), hash);
    CHECK_EQ(hotkit_remaining(&k, 1, 11), 0); /* never more than granted */
    CHECK_STR(hotkit_lease_text(&k, 1), "/0 10,10s");
    CHECK_EQ(hotkit_remaining(&k, 1, 0), 0);
    CHECK_STR(hotkit_lease_text(&k, 1), "/0 10s");
    hotkit_close(&k);
}

static void the_keys_of_a_lease_come_in_slices(void)
{
    static struct kit k;
    struct hw_key_name *keys[8];
    struct hw_key_name *between = hw_key_name_new(S("bb"));
    hotkit_open(&k);
    hotkit_grant(&k, 1, 10);
    hotkit_lease(&k, "c", 1);
    hotkit_lease(&k, "a", 1);
    hotkit_lease(&k, "b", 1);
    CHECK_EQ(hw_hot_lease_keys(k.hot, 1, NULL, keys, 2), 2);
    CHECK(keys[0]->data[0] == 'a' && keys[1]->data[0] == 'b');
    CHECK_EQ(hw_hot_lease_keys(k.hot, 1, keys[1], keys, 8), 1);
    CHECK_EQ(keys[0]->data[0], 'c');
    CHECK_EQ(hw_hot_lease_keys(k.hot, 1, between, keys, 8), 1);
    CHECK_EQ(hw_hot_lease_keys(k.hot, 1, keys[0], keys, 8), 0);
    CHECK_EQ(hw_hot_lease_keys(k.hot, 2, NULL, keys, 8), 0);
    hw_key_name_unref(between);
    hotkit_close(&k);
}

static void a_compare_sees_the_lease(void)
{
    static struct kit k;
    struct hw_compare is_seven = {.key = S("k"), .target = HW_CMP_LEASE, .result = HW_CMP_EQUAL, .number = 7};
    struct hw_result r;
    hotkit_open(&k);
    hotkit_grant(&k, 7, 10);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(hotkit_txn(&k, &(struct hw_txn){.compares = &is_seven, .compare_count = 1}, &r), 0);
        CHECK_EQ(r.txn.succeeded, i == 1);
        hw_result_free(&r);
        hotkit_lease(&k, "k", 7);
    }
    hotkit_close(&k);
}

static struct hw_cut *cut_of(struct kit *k)
{
    struct hw_cut *cut;
    REQUIRE(hw_hot_cut(k->hot, &cut) == 0);
    return cut;
}

static void a_cut_names_each_changed_lease_once(void)
{
    static struct kit k;
    struct hw_cut *cut;
    hotkit_open(&k);
    hotkit_grant(&k, 3, 10);
    hotkit_grant(&k, 1, 10);
    hotkit_remaining(&k, 1, 2);
    hotkit_grant(&k, 2, 10);
    hotkit_revoke(&k, 2);
    CHECK_EQ(hw_hot_dirty_count(k.hot), 3);
    CHECK(hw_hot_dirty_bytes(k.hot) > 0);
    cut = cut_of(&k);
    CHECK_EQ(hw_hot_dirty_count(k.hot), 0);
    CHECK_EQ(hw_hot_dirty_bytes(k.hot), 0);
    REQUIRE(cut->lease_count == 3);
    CHECK(cut->leases[0].id == 3 && !cut->leases[0].is_gone);
    CHECK(cut->leases[1].id == 1 && cut->leases[1].remaining_s == 2 && cut->leases[1].ttl_s == 10);
    CHECK(cut->leases[2].id == 2 && cut->leases[2].is_gone);
    hw_cut_free(cut);
    cut = cut_of(&k);
    CHECK_EQ(cut->lease_count, 0);
    hw_cut_free(cut);
    hotkit_revoke(&k, 1);
    hotkit_grant(&k, 1, 99); /* came back before the cut */
    hotkit_revoke(&k, 3);
    cut = cut_of(&k);
    REQUIRE(cut->lease_count == 2);
    CHECK(cut->leases[0].id == 1 && !cut->leases[0].is_gone && cut->leases[0].ttl_s == 99);
    CHECK(cut->leases[0].remaining_s == 0);
    CHECK(cut->leases[1].id == 3 && cut->leases[1].is_gone);
    hw_cut_free(cut);
    CHECK_EQ(hw_hot_lease_count(k.hot), 1);
    hotkit_close(&k);
}

static struct hw_hot *load_put(int64_t lease)
{
    struct hw_hot *h = hw_hot_new();
    struct hw_key_name *name = hw_key_name_new(S("k"));
    struct hw_version *v = hw_version_new(name, S("v"));
    v->mod_main = v->create_main = 2;
    v->version = 1;
    v->lease = lease;
    REQUIRE(hw_hot_load_version(h, v) == 0);
    hw_key_name_unref(name);
    return h;
}

static void a_load_attaches_keys_and_refuses_what_does_not_fit(void)
{
    static const struct hw_lease_record bad[] = {
        {0, 5, 0, false},  {-4, 5, 0, false}, {8, 0, 0, false}, {8, HW_LEASE_TTL_MAX + 1, 0, false},
        {8, 5, -1, false}, {8, 5, 6, false},  {8, 5, 0, true},  {7, 5, 0, false},
    };
    struct hw_lease_record good = {7, 5, 2, false};
    struct hw_hot_counters c = {.applied = 1, .revision = 2};
    struct hw_lease_view view;
    struct hw_error e = {0};
    struct hw_hot *h = load_put(7);
    CHECK_EQ(hw_hot_load_finish(h, &c, &e), HW_ERR_CORRUPT);
    CHECK(strstr(e.text, "lease 7") != NULL);
    CHECK_EQ(hw_hot_load_lease(h, &good), 0);
    for (size_t i = 0; i < hw_array_len(bad); i++) {
        CHECK_EQ(hw_hot_load_lease(h, &bad[i]), HW_ERR_CORRUPT);
    }
    CHECK_EQ(hw_hot_load_finish(h, &c, &e), 0);
    CHECK(hw_hot_check(h) == NULL);
    CHECK_EQ(hw_hot_lease(h, 7, &view), 0);
    CHECK(view.key_count == 1 && view.ttl_s == 5 && view.remaining_s == 2);
    CHECK_EQ(hw_hot_dirty_count(h), 0);
    hw_hot_free(h);
}

/* A tree per lease: neither many leases nor one with many keys is slow or deep. */
static void many_leases_and_many_keys_are_cheap(void)
{
    static struct kit k;
    char key[16];
    size_t before;
    hotkit_open(&k);
    for (int i = 1; i <= 50000; i++) {
        hotkit_grant(&k, i * 7919ll, 60);
        snprintf(key, sizeof key, "%05d", i);
        hotkit_lease(&k, key, i * 7919ll);
    }
    before = hw_hot_bytes(k.hot);
    for (int i = 1; i <= 50000; i++) {
        snprintf(key, sizeof key, "%05d", i * 11 % 50001);
        hotkit_lease(&k, key, 7919); /* all on one */
    }
    CHECK(hw_hot_bytes(k.hot) > before);
    CHECK_EQ(hotkit_revoke(&k, 7919), 0);
    CHECK_EQ(hw_hot_key_count(k.hot), 0);
    CHECK_EQ(hw_hot_lease_count(k.hot), 49999);
    CHECK_EQ(hw_hot_revision(k.hot), 100002);
    hotkit_close(&k);
}

static void leases_are_freed_in_slices(void)
{
    static struct kit k;
    size_t steps = 1;
    hotkit_open(&k);
    for (int i = 0; i < 100; i++) {
        char key[8];
        hotkit_grant(&k, i + 1, 5);
        snprintf(key, sizeof key, "%d", i);
        hotkit_lease(&k, key, i / 10 + 1);
    }
    hotkit_revoke(&k, 50); /* gone, but not cut yet */
    while (!hw_hot_free_step(k.hot, 7)) {
        steps++;
    }
    CHECK(steps >= 400 / 7); /* leases, attached keys, versions in the index and in the dirty list */
    hw_buf_free(&k.encoded);
}

HW_SUITE(hot_lease, HW_CASE(a_lease_is_granted_once_and_revoked_once),
         HW_CASE(puts_and_deletes_move_a_key_between_leases),
         HW_CASE(a_transaction_that_writes_a_key_twice_leaves_the_last_word),
         HW_CASE(a_revocation_deletes_its_keys_in_one_revision_in_key_order), HW_CASE(remaining_time_is_written_down),
         HW_CASE(the_keys_of_a_lease_come_in_slices), HW_CASE(a_compare_sees_the_lease),
         HW_CASE(a_cut_names_each_changed_lease_once), HW_CASE(a_load_attaches_keys_and_refuses_what_does_not_fit),
         HW_CASE(many_leases_and_many_keys_are_cheap), HW_CASE(leases_are_freed_in_slices))
