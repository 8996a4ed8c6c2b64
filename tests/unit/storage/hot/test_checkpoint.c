/* Cuts and loads. The model check has the round trip of random states; here is what surrounds it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"

static void note_event(struct kit *k, const char *text)
{
    struct hw_cmd cmd = {.type = HW_CMD_EVENT, .event = {.kind = "drill"}};
    snprintf(cmd.event.text, sizeof cmd.event.text, "%s", text);
    hotkit_apply(k, &cmd, NULL);
}

static void add_node(struct kit *k, uint64_t id, const char *name)
{
    struct hw_cmd cmd = {.type = HW_CMD_NODE_SET, .node = {.id = id}};
    snprintf(cmd.node.name, sizeof cmd.node.name, "%s", name);
    CHECK_EQ(hotkit_apply(k, &cmd, NULL), 0);
}

static struct hw_cut *cut_of(struct kit *k)
{
    struct hw_cut *cut;
    REQUIRE(hw_hot_cut(k->hot, &cut) == 0);
    return cut;
}

static void a_cut_holds_what_is_new(void)
{
    static struct kit k;
    struct hw_cut *cut;
    hotkit_open(&k);
    add_node(&k, 5, "n5");
    hotkit_put(&k, "b", "1");
    hotkit_put(&k, "a", "2");
    CHECK_EQ(hw_hot_dirty_count(k.hot), 2);
    CHECK(hw_hot_dirty_bytes(k.hot) > 2 * sizeof(struct hw_version));
    cut = cut_of(&k);
    CHECK_EQ(hw_hot_dirty_count(k.hot), 0);
    CHECK_EQ(cut->applied, 3);
    CHECK_EQ(cut->revision, 3);
    CHECK_EQ(cut->version_count, 2);
    CHECK_EQ(cut->versions[0]->mod_main, 2);
    CHECK_EQ(cut->versions[1]->mod_main, 3);
    CHECK(cut->nodes_changed && cut->node_count == 1 && cut->nodes[0].id == 5);
    CHECK(cut->event_count == 1 && cut->event_seq == 1);
    CHECK_EQ(cut->hash, hw_hot_hash(k.hot));
    hw_cut_free(cut);

    note_event(&k, "second");
    hotkit_compact(&k, 3);
    cut = cut_of(&k);
    CHECK(!cut->nodes_changed && cut->node_count == 1);
    CHECK_EQ(cut->version_count, 0);
    CHECK(cut->event_count == 1 && strcmp(cut->events[0].text, "second") == 0);
    CHECK(cut->compacted == 3 && cut->compacted_before == 0);
    hw_cut_free(cut);

    cut = cut_of(&k);
    CHECK(cut->event_count == 0 && cut->compacted_before == 3);
    hw_cut_free(cut);
    hw_cut_free(NULL);
    hotkit_close(&k);
}

static void a_cut_outlives_the_state(void)
{
    static struct kit k;
    struct hw_cut *cut;
    hotkit_open(&k);
    hotkit_put(&k, "a", "1");
    hotkit_put(&k, "a", "2");
    cut = cut_of(&k);
    hotkit_compact(&k, 3);
    hotkit_sweep(&k, 10);
    hotkit_close(&k);
    CHECK_EQ(cut->version_count, 2);
    CHECK_EQ(cut->versions[0]->value[0], '1');
    hw_cut_free(cut);
}

static void a_cut_brings_at_most_the_history_that_is_kept(void)
{
    static struct kit k;
    struct hw_cut *cut;
    hotkit_open(&k);
    for (int i = 0; i < HW_HISTORY_MAX + 5; i++) {
        note_event(&k, "x");
    }
    cut = cut_of(&k);
    CHECK_EQ(cut->event_count, HW_HISTORY_MAX);
    CHECK_EQ(cut->events[0].seq, 6);
    CHECK_EQ(cut->event_seq, HW_HISTORY_MAX + 5);
    hw_cut_free(cut);
    hotkit_close(&k);
}

static struct hw_hot_counters counters_of(const struct hw_cut *cut)
{
    return (struct hw_hot_counters){cut->applied,  cut->revision,  cut->compacted, cut->epoch,
                                    cut->hot_node, cut->event_seq, cut->hash};
}

static void a_loaded_state_is_the_same_and_goes_on_the_same(void)
{
    static struct kit k;
    static struct kit loaded;
    struct hw_hot_counters c;
    struct hw_cut *cut;
    struct hw_cut *next;
    hotkit_open(&k);
    hotkit_open(&loaded);
    add_node(&k, 7, "n7");
    add_node(&k, 3, "n3");
    note_event(&k, "before");
    hotkit_apply(&k, &(struct hw_cmd){.type = HW_CMD_HOT_ACQUIRED, .hot = {3, 12}}, NULL);
    hotkit_put(&k, "a", "1");
    hotkit_put(&k, "b", "2");
    hotkit_delete(&k, "b", S(""));
    cut = cut_of(&k);
    for (size_t i = 0; i < cut->version_count; i++) {
        CHECK_EQ(hw_hot_load_version(loaded.hot, hw_version_ref(cut->versions[i])), 0);
    }
    for (size_t i = 0; i < cut->node_count; i++) {
        CHECK_EQ(hw_hot_load_node(loaded.hot, &cut->nodes[i]), 0);
    }
    for (size_t i = 0; i < cut->event_count; i++) {
        CHECK_EQ(hw_hot_load_event(loaded.hot, &cut->events[i]), 0);
    }
    c = counters_of(cut);
    CHECK_EQ(hw_hot_load_finish(loaded.hot, &c, NULL), 0);
    loaded.index = c.applied;
    CHECK(hw_hot_epoch(loaded.hot) == 12 && hw_hot_hot_node(loaded.hot) == 3);
    CHECK_EQ(hw_hot_event_count(loaded.hot), 4);
    CHECK_EQ(hw_hot_dirty_count(loaded.hot), 0);
    for (int i = 0; i < 2; i++) {
        struct kit *each = i == 0 ? &k : &loaded;
        hotkit_put(each, "b", "3");
        note_event(each, "after");
        hotkit_compact(each, hw_hot_revision(each->hot));
    }
    CHECK_EQ(hw_hot_hash(k.hot), hw_hot_hash(loaded.hot));
    CHECK_EQ(hotkit_hash(&k, 0, 1), hotkit_hash(&loaded, 0, 1));
    CHECK_STR(hw_hot_event_at(loaded.hot, 4)->text, "after");
    next = cut_of(&loaded);
    CHECK(next->version_count == 1 && next->event_count == 1 && !next->nodes_changed);
    hw_cut_free(next);
    hw_cut_free(cut);
    hotkit_sweep(&loaded, 100);
    CHECK_EQ(hw_hot_version_count(loaded.hot), 2);
    hotkit_close(&k);
    hotkit_close(&loaded);
}

struct record {
    const char *key;
    hw_rev mod;
    uint32_t sub;
    hw_rev create;
    int64_t version;
};

/* Loads one record; version 0 makes it a tombstone. */
static int load(struct hw_hot *h, const struct record *r)
{
    struct hw_key_name *name = hw_key_name_new(hw_slice_str(r->key));
    struct hw_version *v = hw_version_new(name, (struct hw_slice){0});
    int rc;
    v->mod_main = r->mod;
    v->mod_sub = r->sub;
    v->create_main = r->create;
    v->version = r->version;
    v->is_tombstone = r->version == 0;
    rc = hw_hot_load_version(h, v);
    if (rc != 0) {
        hw_version_unref(v);
    }
    hw_key_name_unref(name);
    return rc;
}

static void a_damaged_image_is_refused(void)
{
    static const struct record good = {"k", 5, 1, 4, 2};
    static const struct record bad[] = {
        {"j", 6, 0, 6, 1},  /* a lower key */
        {"k", 5, 1, 4, 3},  /* the same again */
        {"k", 4, 0, 4, 3},  /* older */
        {"k", 6, 0, 4, 2},  /* the version does not count on */
        {"k", 6, 0, 5, 3},  /* created twice */
        {"l", 6, 0, 7, 1},  /* created after it was written */
        {"l", 1, 0, 1, 1},  /* before the first write */
        {"l", 6, 0, 6, -1}, /* no version */
        {"l", 6, 0, 6, 0},  /* a tombstone that was created */
    };
    struct hw_hot *h = hw_hot_new();
    struct hw_node node = {.id = 1, .name = "n"};
    struct hw_event event = {.seq = 4};
    CHECK_EQ(load(h, &good), 0);
    for (size_t i = 0; i < hw_array_len(bad); i++) {
        CHECK_EQ(load(h, &bad[i]), HW_ERR_CORRUPT);
    }
    CHECK_EQ(load(h, &(struct record){"k", 5, 2, 4, 3}), 0);
    CHECK_EQ(load(h, &(struct record){"k", 6, 0, 0, 0}), 0);
    CHECK_EQ(load(h, &(struct record){"k", 7, 0, 0, 0}), HW_ERR_CORRUPT);
    CHECK_EQ(load(h, &(struct record){"k", 7, 0, 4, 4}), HW_ERR_CORRUPT);
    CHECK_EQ(load(h, &(struct record){"k", 7, 0, 7, 1}), 0);
    CHECK_EQ(hw_hot_load_node(h, &node), 0);
    CHECK_EQ(hw_hot_load_node(h, &node), HW_ERR_CORRUPT);
    node.id = 2;
    CHECK_EQ(hw_hot_load_node(h, &node), HW_ERR_CORRUPT);
    CHECK_EQ(hw_hot_load_event(h, &event), 0);
    CHECK_EQ(hw_hot_load_event(h, &event), HW_ERR_CORRUPT);
    CHECK_EQ(hw_hot_load_finish(h, &(struct hw_hot_counters){.revision = 6, .event_seq = 4}, NULL), HW_ERR_CORRUPT);
    CHECK_EQ(hw_hot_load_finish(h, &(struct hw_hot_counters){.revision = 7, .event_seq = 3}, NULL), HW_ERR_CORRUPT);
    CHECK_EQ(hw_hot_load_finish(h, &(struct hw_hot_counters){.revision = 0, .event_seq = 4}, NULL), HW_ERR_CORRUPT);
    CHECK_EQ(hw_hot_load_finish(h, &(struct hw_hot_counters){.revision = 7, .compacted = 8, .event_seq = 4}, NULL),
             HW_ERR_CORRUPT);
    CHECK_EQ(hw_hot_load_finish(h, &(struct hw_hot_counters){.revision = 7, .event_seq = 4}, NULL), 0);
    CHECK(hw_hot_check(h) == NULL);
    hw_hot_free(h);
}

static void entries_without_a_command_move_the_index(void)
{
    static struct kit k;
    struct hw_error e = {0};
    hotkit_open(&k);
    hw_hot_note_index(k.hot, 4);
    hw_hot_note_index(k.hot, 3);
    CHECK_EQ(hw_hot_applied(k.hot), 4);
    CHECK_EQ(hw_hot_apply(k.hot, 5, "\x01\x07 damaged", 10, NULL, &e), HW_ERR_CORRUPT);
    CHECK_EQ(hw_hot_apply(k.hot, 5, "\x02", 1, NULL, &e), HW_ERR_VERSION);
    CHECK(strstr(e.text, "apply log entry 5: ") == e.text);
    CHECK_EQ(hw_hot_applied(k.hot), 4);
    k.index = 4;
    CHECK_EQ(hotkit_put(&k, "a", "1"), 0);
    hotkit_close(&k);
}

HW_SUITE(hot_checkpoint, HW_CASE(a_cut_holds_what_is_new), HW_CASE(a_cut_outlives_the_state),
         HW_CASE(a_cut_brings_at_most_the_history_that_is_kept),
         HW_CASE(a_loaded_state_is_the_same_and_goes_on_the_same), HW_CASE(a_damaged_image_is_refused),
         HW_CASE(entries_without_a_command_move_the_index))
