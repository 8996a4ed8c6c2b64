/* Nodes, tenure, history. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"

static int set_node(struct kit *k, uint64_t id, const char *name, const char *peer)
{
    struct hw_cmd cmd = {.type = HW_CMD_NODE_SET, .wall_ms = 1000 + k->index, .node = {.id = id}};
    snprintf(cmd.node.name, sizeof cmd.node.name, "%s", name);
    snprintf(cmd.node.peer_address, sizeof cmd.node.peer_address, "%s", peer);
    snprintf(cmd.node.client_address, sizeof cmd.node.client_address, "%s", "c:1");
    return hotkit_apply(k, &cmd, NULL);
}

static int remove_node(struct kit *k, uint64_t id)
{
    return hotkit_apply(k, &(struct hw_cmd){.type = HW_CMD_NODE_REMOVE, .node_id = id}, NULL);
}

static int acquire(struct kit *k, uint64_t id, uint64_t epoch)
{
    struct hw_cmd cmd = {.type = HW_CMD_HOT_ACQUIRED, .hot = {.node_id = id, .epoch = epoch}};
    snprintf(cmd.hot.name, sizeof cmd.hot.name, "n%" PRIu64, id);
    return hotkit_apply(k, &cmd, NULL);
}

static const char *last_kind(const struct kit *k)
{
    return hw_hot_event_at(k->hot, hw_hot_event_count(k->hot) - 1)->kind;
}

static const char *last_text(const struct kit *k)
{
    return hw_hot_event_at(k->hot, hw_hot_event_count(k->hot) - 1)->text;
}

static void names_belong_to_one_id(void)
{
    static struct kit k;
    hotkit_open(&k);
    CHECK_EQ(set_node(&k, 30, "n3", "p:3"), 0);
    CHECK_EQ(set_node(&k, 10, "n1", "p:1"), 0);
    CHECK_EQ(set_node(&k, 20, "n2", "p:2"), 0);
    CHECK_EQ(set_node(&k, 11, "n1", "p:1"), HW_ERR_EXISTS);
    CHECK_EQ(set_node(&k, 20, "n1", "p:2"), HW_ERR_EXISTS);
    CHECK_EQ(set_node(&k, 0, "n0", "p:0"), HW_ERR_INVALID);
    CHECK_EQ(set_node(&k, 40, "", "p:0"), HW_ERR_INVALID);
    CHECK_EQ(hw_hot_node_count(k.hot), 3);
    for (size_t i = 0; i < 3; i++) {
        CHECK_EQ(hw_hot_node_at(k.hot, i)->id, 10 * (i + 1));
    }
    CHECK(hw_hot_node_at(k.hot, 3) == NULL);
    CHECK(hw_hot_node_by_id(k.hot, 20) == hw_hot_node_by_name(k.hot, "n2"));
    CHECK(hw_hot_node_by_id(k.hot, 21) == NULL && hw_hot_node_by_name(k.hot, "n4") == NULL);
    CHECK_EQ(remove_node(&k, 10), 0);
    CHECK_EQ(remove_node(&k, 10), HW_ERR_NOTFOUND);
    CHECK_EQ(set_node(&k, 11, "n1", "p:1"), 0);
    CHECK_EQ(hw_hot_revision(k.hot), 1);
    hotkit_close(&k);
}

static void changes_of_nodes_are_history_and_repetition_is_not(void)
{
    static struct kit k;
    uint64_t hash;
    uint64_t added;
    hotkit_open(&k);
    set_node(&k, 1, "n1", "p:1");
    CHECK_STR(last_kind(&k), "node-added");
    CHECK_STR(last_text(&k), "n1, peers at p:1, clients at c:1");
    added = hw_hot_node_at(k.hot, 0)->added_wall_ms;
    CHECK_EQ(added, 1000);
    hash = hw_hot_hash(k.hot);
    set_node(&k, 1, "n1", "p:1");
    CHECK_EQ(hw_hot_hash(k.hot), hash);
    CHECK_EQ(hw_hot_event_count(k.hot), 1);
    set_node(&k, 1, "n1", "p:9");
    CHECK_STR(last_kind(&k), "node-changed");
    CHECK_EQ(hw_hot_node_at(k.hot, 0)->added_wall_ms, added);
    CHECK_STR(hw_hot_node_at(k.hot, 0)->peer_address, "p:9");
    remove_node(&k, 1);
    CHECK_STR(last_kind(&k), "node-removed");
    CHECK_EQ(hw_hot_event_count(k.hot), 3);
    CHECK(hw_hot_hash(k.hot) != hash);
    hotkit_close(&k);
}

static void an_epoch_belongs_to_one_node(void)
{
    static struct kit k;
    hotkit_open(&k);
    set_node(&k, 1, "n1", "p:1");
    CHECK_EQ(hw_hot_epoch(k.hot), 0);
    CHECK_EQ(acquire(&k, 1, 5), 0);
    CHECK_STR(last_kind(&k), "promoted");
    CHECK_STR(last_text(&k), "n1 is hot, epoch 5");
    CHECK_EQ(hw_hot_event_at(k.hot, 1)->epoch, 5);
    CHECK_EQ(hw_hot_event_at(k.hot, 1)->index, k.index);
    CHECK_EQ(acquire(&k, 2, 4), 0);
    CHECK_EQ(acquire(&k, 2, 5), 0);
    CHECK_EQ(hw_hot_epoch(k.hot), 5);
    CHECK_EQ(hw_hot_hot_node(k.hot), 1);
    CHECK_EQ(hw_hot_event_count(k.hot), 2);
    CHECK_EQ(acquire(&k, 0xab, 6), 0);
    CHECK_EQ(hw_hot_hot_node(k.hot), 0xab);
    CHECK_STR(last_text(&k), "n171 is hot, epoch 6");
    CHECK_STR(hw_hot_event_at(k.hot, 2)->node, "n171"); /* though the registry does not know it */
    hotkit_close(&k);
}

static void the_history_keeps_the_newest(void)
{
    static struct kit k;
    struct hw_cmd cmd = {.type = HW_CMD_EVENT, .wall_ms = 77, .event = {.node_id = 9, .kind = "drill"}};
    hotkit_open(&k);
    acquire(&k, 1, 3);
    for (unsigned i = 0; i < HW_HISTORY_MAX + 100; i++) {
        snprintf(cmd.event.text, sizeof cmd.event.text, "number %u", i);
        CHECK_EQ(hotkit_apply(&k, &cmd, NULL), 0);
    }
    CHECK_EQ(hw_hot_event_count(k.hot), HW_HISTORY_MAX);
    CHECK_STR(hw_hot_event_at(k.hot, 0)->text, "number 100");
    CHECK_STR(last_text(&k), "number 1123");
    CHECK_EQ(hw_hot_event_at(k.hot, 0)->seq, 102);
    CHECK_EQ(hw_hot_event_at(k.hot, 0)->epoch, 3);
    CHECK_EQ(hw_hot_event_at(k.hot, 0)->wall_ms, 77);
    CHECK_EQ(hw_hot_event_at(k.hot, 0)->node_id, 9);
    CHECK(hw_hot_event_at(k.hot, HW_HISTORY_MAX) == NULL);
    hotkit_close(&k);
}

static void the_registry_is_bounded(void)
{
    static struct kit k;
    char name[16];
    hotkit_open(&k);
    for (unsigned i = 1; i <= HW_NODES_MAX + 1; i++) {
        snprintf(name, sizeof name, "n%u", i);
        CHECK_EQ(set_node(&k, i, name, "p"), i <= HW_NODES_MAX ? 0 : HW_ERR_EXHAUSTED);
    }
    CHECK_EQ(set_node(&k, 5, "n5", "moved"), 0);
    hotkit_close(&k);
}

HW_SUITE(hot_registry, HW_CASE(names_belong_to_one_id), HW_CASE(changes_of_nodes_are_history_and_repetition_is_not),
         HW_CASE(an_epoch_belongs_to_one_node), HW_CASE(the_history_keeps_the_newest), HW_CASE(the_registry_is_bounded))
