/* The hub on a state alone, without log and disk: against a model that looks at every event ever written. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/rng.h"
#include "agent/replica/watch_hub.h"
#include "tests/unit/agent/loop/loop_test.h"
#include "tests/unit/storage/hot/kit.h"

#define KEYS 24
#define EVENTS_MAX 40000
#define WATCHERS 40
#define COMMANDS_MAX 20000

/* ---- the model: every event, and the state as it is ---- */

struct event {
    hw_rev revision;
    uint32_t sub;
    char key[8];
    char value[16]; /* "": deleted */
    char before[16];
};

struct owner {
    struct rig *rig;
    struct hw_watcher *w; /* NULL: free */
    char key[8];
    char end[8];
    size_t end_len;
    hw_rev start;
    bool no_put, no_delete, prev_kv;
    bool is_full;  /* takes nothing */
    bool was_full; /* has said so */
    size_t at;     /* first event not looked at */
    hw_rev given;
    unsigned ends;
    hw_rev compacted;
    char reason[160];
    size_t events;
    size_t batches;
    size_t partial;
    size_t largest;
};

struct rig {
    struct kit kit;
    struct hw_loop *loop;
    struct hw_watch_hub hub;
    struct event *events;
    size_t event_count;
    char values[KEYS][16];
    struct hw_buf commands[COMMANDS_MAX];
    size_t command_count;
    struct hw_rng rng;
    unsigned serial;
    struct owner owners[WATCHERS];
    unsigned ended;
    size_t given; /* events, to whomever */
};

static struct rig rig;

static void rig_open(size_t recent, uint64_t stall_ms)
{
    memset(&rig, 0, sizeof rig);
    hotkit_open(&rig.kit);
    rig.loop = test_loop_new();
    rig.events = calloc(EVENTS_MAX, sizeof *rig.events);
    REQUIRE(rig.events != NULL);
    REQUIRE(hw_watch_hub_init(&rig.hub, rig.loop, NULL, 0, stall_ms) == 0);
    rig.hub.recent.versions_max = recent;
    hw_watch_hub_set_state(&rig.hub, rig.kit.hot);
}

static void rig_close(void)
{
    for (int i = 0; i < WATCHERS; i++) {
        hw_watcher_free(rig.owners[i].w);
    }
    hw_watch_hub_stop(&rig.hub);
    hw_watch_hub_close(&rig.hub);
    CHECK_EQ(hw_hot_open_scans(rig.kit.hot), 0);
    hotkit_close(&rig.kit);
    while (hw_loop_turn(rig.loop, false)) {
    }
    hw_loop_free(rig.loop);
    for (size_t i = 0; i < rig.command_count; i++) {
        hw_buf_free(&rig.commands[i]);
    }
    free(rig.events);
}

static bool is_wanted(const struct owner *o, const struct event *e)
{
    bool is_after = strcmp(e->key, o->key) >= 0;
    bool is_before = o->end_len == 1 && o->end[0] == '\0' ? true : strcmp(e->key, o->end) < 0;
    bool is_in = o->end_len == 0 ? strcmp(e->key, o->key) == 0 : is_after && is_before;
    return is_in && e->revision >= o->start && !(e->value[0] == '\0' ? o->no_delete : o->no_put);
}

static bool same(const char *text, const struct hw_version *v)
{
    return v->value_len == strlen(text) && memcmp(v->value, text, v->value_len) == 0;
}

/* ---- owners ---- */

static void check_version(struct owner *o, const struct hw_version *v, const struct hw_version *previous, bool has_prev)
{
    const struct event *e;
    while (o->at < rig.event_count && !is_wanted(o, &rig.events[o->at])) {
        o->at++;
    }
    REQUIRE(o->at < rig.event_count);
    e = &rig.events[o->at++];
    CHECK_EQ(v->mod_main, e->revision);
    CHECK_EQ(v->mod_sub, e->sub);
    CHECK(v->key->len == strlen(e->key) && memcmp(v->key->data, e->key, v->key->len) == 0);
    CHECK_EQ(v->is_tombstone, e->value[0] == '\0');
    CHECK(same(e->value, v));
    CHECK_EQ(has_prev, o->prev_kv);
    if (has_prev && previous != NULL) {
        CHECK(e->before[0] != '\0' && same(e->before, previous));
    } else if (has_prev) {
        CHECK(e->before[0] == '\0' || e->revision <= hw_hot_compacted(rig.kit.hot));
    }
}

static bool on_batch(void *ctx, const struct hw_watch_batch *b)
{
    struct owner *o = ctx;
    CHECK(b->count > 0);
    CHECK(!o->was_full || !o->is_full);
    if (o->is_full) {
        o->was_full = true;
        return false;
    }
    for (size_t i = 0; i < b->count; i++) {
        check_version(o, b->versions[i], b->previous == NULL ? NULL : b->previous[i], b->previous != NULL);
    }
    for (size_t i = o->at; i < rig.event_count && rig.events[i].revision <= b->revision && !b->is_partial; i++) {
        CHECK(!is_wanted(o, &rig.events[i]));
    }
    CHECK(b->revision >= b->versions[b->count - 1]->mod_main);
    o->given = b->revision;
    o->events += b->count;
    rig.given += b->count;
    o->batches++;
    o->partial += b->is_partial;
    o->largest = b->count > o->largest ? b->count : o->largest;
    return true;
}

static void on_end(void *ctx, hw_rev compacted, const char *reason)
{
    struct owner *o = ctx;
    o->ends++;
    o->compacted = compacted;
    snprintf(o->reason, sizeof o->reason, "%s", reason == NULL ? "" : reason);
    CHECK(compacted == 0 || compacted == hw_hot_compacted(rig.kit.hot));
    CHECK(compacted > 0 || reason != NULL);
    rig.ended++;
    hw_watcher_free(o->w);
    o->w = NULL;
}

static const struct hw_watcher_ops ops = {on_batch, on_end};

static int watch(struct owner *o, const char *key, struct hw_slice end, hw_rev start)
{
    struct hw_watch_request q = {.key = hw_slice_str(key),
                                 .range_end = end,
                                 .start = start,
                                 .no_put = o->no_put,
                                 .no_delete = o->no_delete,
                                 .prev_kv = o->prev_kv};
    int rc;
    snprintf(o->key, sizeof o->key, "%s", key);
    memset(o->end, 0, sizeof o->end);
    memcpy(o->end, end.data != NULL ? end.data : (const uint8_t *)"", end.len);
    o->end_len = end.len;
    o->start = start > 0 ? start : hw_hot_revision(rig.kit.hot) + 1;
    rc = hw_watch_hub_add(&rig.hub, &q, &ops, o, &o->w);
    return rc;
}

/* ---- what happens ---- */

static int key_index(const char *key)
{
    return (key[1] - '0') * 10 + key[2] - '0';
}

static void note(const char *key, const char *value, uint32_t sub)
{
    struct event *e = &rig.events[rig.event_count++];
    REQUIRE(rig.event_count < EVENTS_MAX);
    e->revision = hw_hot_revision(rig.kit.hot) + 1;
    e->sub = sub;
    snprintf(e->key, sizeof e->key, "%s", key);
    snprintf(e->value, sizeof e->value, "%s", value);
    snprintf(e->before, sizeof e->before, "%s", rig.values[key_index(key)]);
    snprintf(rig.values[key_index(key)], sizeof rig.values[0], "%s", value);
}

static void apply(const struct hw_cmd *cmd)
{
    struct hw_buf *b;
    hotkit_apply(&rig.kit, cmd, NULL);
    REQUIRE(rig.command_count < COMMANDS_MAX);
    b = &rig.commands[rig.command_count++];
    hw_buf_append(b, rig.kit.encoded.data, rig.kit.encoded.len);
}

static void random_txn(void)
{
    struct hw_op op[6];
    char keys[6][8];
    char values[6][16];
    unsigned count = 1 + (unsigned)hw_rng_below(&rig.rng, 5);
    unsigned first = (unsigned)hw_rng_below(&rig.rng, KEYS);
    uint32_t sub = 0;
    struct hw_cmd cmd = {.type = HW_CMD_TXN, .txn = {.success = op, .success_count = count}};
    for (unsigned i = 0; i < count; i++) {
        unsigned k = (first + 5 * i) % KEYS;
        snprintf(keys[i], sizeof keys[i], "k%02u", k);
        if (hw_rng_is_chance(&rig.rng, 60)) {
            snprintf(values[i], sizeof values[i], "v%u", ++rig.serial);
            op[i] = hotkit_op_put(keys[i], values[i]);
            note(keys[i], values[i], sub++);
        } else {
            op[i] = hotkit_op_delete(keys[i], "");
            if (rig.values[k][0] != '\0') {
                note(keys[i], "", sub++);
            }
        }
    }
    apply(&cmd);
}

/* As after an installed image: the same history in another state. */
static void swap_state(void)
{
    struct hw_hot *old = rig.kit.hot;
    struct hw_hot *fresh = hw_hot_new();
    struct hw_error e = {0};
    for (size_t i = 0; i < rig.command_count; i++) {
        REQUIRE(hw_hot_apply(fresh, i + 1, rig.commands[i].data, rig.commands[i].len, NULL, &e) == 0);
    }
    while (hw_hot_sweep(fresh, 100)) {
    }
    hw_watch_hub_set_state(&rig.hub, fresh);
    CHECK_EQ(hw_hot_open_scans(old), 0);
    hw_hot_free(old);
    rig.kit.hot = fresh;
}

static void random_watch(struct owner *o)
{
    hw_rev now = hw_hot_revision(rig.kit.hot);
    hw_rev start = 0;
    char key[8];
    char end[8];
    int rc;
    *o = (struct owner){.rig = &rig,
                        .prev_kv = hw_rng_is_chance(&rig.rng, 50),
                        .no_put = hw_rng_is_chance(&rig.rng, 15),
                        .no_delete = hw_rng_is_chance(&rig.rng, 15)};
    snprintf(key, sizeof key, "k%02u", (unsigned)hw_rng_below(&rig.rng, KEYS));
    snprintf(end, sizeof end, "k%02u", (unsigned)hw_rng_below(&rig.rng, KEYS + 1));
    if (hw_rng_is_chance(&rig.rng, 50)) {
        start = 1 + (hw_rev)hw_rng_below(&rig.rng, (uint64_t)now + 3);
    }
    switch (hw_rng_below(&rig.rng, 3)) {
    case 0:
        rc = watch(o, key, S(""), start);
        break;
    case 1:
        rc = watch(o, key, OPEN_END, start);
        break;
    default:
        rc = watch(o, key, hw_slice_str(end), start);
        if (strcmp(key, end) >= 0) {
            CHECK_EQ(rc, HW_ERR_INVALID);
            rc = -1;
        }
    }
    if (rc == HW_ERR_COMPACTED) {
        CHECK(start > 0 && start < hw_hot_compacted(rig.kit.hot));
    }
    if (rc != 0) {
        o->w = NULL;
    }
}

static void ready(struct owner *o)
{
    o->is_full = false;
    o->was_full = false;
    if (o->w != NULL) {
        hw_watcher_ready(o->w);
    }
}

static void step(void)
{
    struct owner *o = &rig.owners[hw_rng_below(&rig.rng, WATCHERS)];
    unsigned dice = (unsigned)hw_rng_below(&rig.rng, 1000);
    if (dice < 450) {
        random_txn();
    } else if (dice < 600) {
        if (o->w == NULL) {
            random_watch(o);
        }
    } else if (dice < 630) {
        hw_watcher_free(o->w);
        o->w = NULL;
    } else if (dice < 720) {
        o->is_full = true;
    } else if (dice < 820) {
        ready(o);
    } else if (dice < 850) {
        struct hw_cmd cmd = {.type = HW_CMD_COMPACT};
        hw_rev now = hw_hot_revision(rig.kit.hot);
        cmd.compact = now - (hw_rev)hw_rng_below(&rig.rng, 40);
        if (cmd.compact > 0) {
            apply(&cmd);
        }
    } else if (dice < 880) {
        hw_hot_sweep(rig.kit.hot, 1 + hw_rng_below(&rig.rng, 200));
    } else if (dice < 884) {
        swap_state();
    } else {
        hw_loop_turn(rig.loop, false);
    }
}

static void settle(void)
{
    for (int i = 0; i < WATCHERS; i++) {
        ready(&rig.owners[i]);
    }
    for (int i = 0; i < 2000 && rig.hub.behind_count > 0; i++) {
        hw_loop_turn(rig.loop, false);
    }
    CHECK_EQ(rig.hub.behind_count, 0);
    for (int i = 0; i < WATCHERS; i++) {
        struct owner *o = &rig.owners[i];
        hw_rev now = hw_hot_revision(rig.kit.hot);
        if (o->w == NULL) {
            continue;
        }
        CHECK_EQ(hw_watcher_progress(o->w), o->start > now + 1 ? 0 : now);
        for (; o->at < rig.event_count; o->at++) {
            CHECK(!is_wanted(o, &rig.events[o->at]));
        }
    }
}

static void every_watcher_gets_exactly_its_events(void)
{
    static const size_t recents[] = {0, 5, 60, HW_WATCH_RECENT_VERSIONS};
    for (size_t i = 0; i < hw_array_len(recents); i++) {
        rig_open(recents[i], 1000000);
        hw_rng_seed(&rig.rng, hotkit_seed("watch") + i);
        for (int n = 0; n < 8000; n++) {
            step();
            if (n % 1000 == 999) {
                settle();
            }
        }
        settle();
        CHECK(rig.given > 10000);
        CHECK(rig.ended > 0 || recents[i] > 60);
        rig_close();
    }
}

/* ---- single claims ---- */

static void put(const char *key, const char *value)
{
    struct hw_op op = hotkit_op_put(key, value);
    struct hw_cmd cmd = {.type = HW_CMD_TXN, .txn = {.success = &op, .success_count = 1}};
    note(key, value, 0);
    apply(&cmd);
}

static void a_watcher_that_takes_nothing_is_ended_with_a_reason(void)
{
    struct owner *o = &rig.owners[0];
    struct owner *other = &rig.owners[1];
    rig_open(100, 60);
    CHECK_EQ(watch(o, "k00", S(""), 0), 0);
    CHECK_EQ(watch(other, "k00", S(""), 0), 0);
    o->is_full = true;
    put("k00", "1");
    CHECK(hw_watcher_progress(o->w) == 0 && hw_watcher_progress(other->w) == 2);
    test_turn_for(rig.loop, 20);
    CHECK_EQ(o->ends, 0);
    test_turn_for(rig.loop, 120);
    CHECK(o->ends == 1 && o->compacted == 0 && strstr(o->reason, "does not read") != NULL);
    CHECK(other->ends == 0 && other->events == 1);
    rig_close();
}

static void compaction_ends_a_full_watcher_that_it_overtakes(void)
{
    struct owner *o = &rig.owners[0];
    struct hw_cmd compact = {.type = HW_CMD_COMPACT, .compact = 4};
    rig_open(0, 1000000);
    CHECK_EQ(watch(o, "k00", OPEN_END, 0), 0);
    o->is_full = true;
    put("k00", "1");
    put("k01", "1");
    put("k02", "1");
    apply(&compact);
    ready(o);
    test_turn_for(rig.loop, 5);
    CHECK(o->ends == 1 && o->compacted == 4 && o->events == 0);
    CHECK_EQ(watch(o, "k00", OPEN_END, 3), HW_ERR_COMPACTED);
    o->w = NULL;
    o->at = 0;
    CHECK_EQ(watch(o, "k00", OPEN_END, 4), 0); /* as in etcd: the compacted revision itself is there */
    test_turn_for(rig.loop, 5);
    CHECK_EQ(o->events, 1);
    rig_close();
}

static void limits_are_errors(void)
{
    struct owner *o = rig.owners;
    struct hw_watch_request q = {.key = S("a")};
    rig_open(100, 0);
    CHECK_EQ(watch(&o[0], "k05", S("k05"), 0), HW_ERR_INVALID);
    CHECK_EQ(watch(&o[0], "k05", S("k04"), 0), HW_ERR_INVALID);
    rig.hub.watchers_max = 1;
    CHECK_EQ(watch(&o[0], "k05", S("k06"), 0), 0);
    CHECK_EQ(hw_watch_hub_add(&rig.hub, &q, &ops, &o[1], &o[1].w), HW_ERR_EXHAUSTED);
    hw_watch_hub_set_state(&rig.hub, NULL);
    CHECK_EQ(hw_watch_hub_add(&rig.hub, &q, &ops, &o[1], &o[1].w), HW_ERR_UNAVAILABLE);
    CHECK_EQ(hw_watcher_progress(o[0].w), 0);
    rig_close();
}

/* ---- many ---- */

struct tally {
    size_t batches;
    size_t versions;
    size_t partial;
    bool refuses_second;
    bool has_refused;
};

static bool tally_batch(void *ctx, const struct hw_watch_batch *b)
{
    struct tally *t = ctx;
    if (t->refuses_second && t->batches == 1 && !t->has_refused) {
        t->has_refused = true;
        return false;
    }
    t->batches++;
    t->versions += b->count;
    t->partial += b->is_partial;
    return true;
}

static void tally_end(void *ctx, hw_rev compacted, const char *reason)
{
    (void)ctx;
    (void)compacted;
    (void)reason;
    CHECK(false);
}

static const struct hw_watcher_ops tally_ops = {tally_batch, tally_end};

static void ten_thousand_watchers(bool is_one_key)
{
    enum { MANY = 10000, PUTS = 50 };
    static struct hw_watcher *w[MANY];
    struct tally t = {0};
    uint64_t start_us;
    CHECK(sizeof(struct hw_watcher) <= 160 && sizeof(struct hw_watch_span) <= 200);
    rig_open(HW_WATCH_RECENT_VERSIONS, 0);
    for (int i = 0; i < MANY; i++) {
        char key[16];
        struct hw_watch_request q;
        snprintf(key, sizeof key, "k%05d", is_one_key ? 0 : i);
        q = (struct hw_watch_request){.key = hw_slice_str(key)};
        REQUIRE(hw_watch_hub_add(&rig.hub, &q, &tally_ops, &t, &w[i]) == 0);
    }
    start_us = hw_mono_us();
    for (int i = 0; i < PUTS; i++) {
        REQUIRE(hotkit_put(&rig.kit, "k00000", "v") == 0);
    }
    while (rig.hub.behind_count > 0) {
        hw_loop_turn(rig.loop, false);
    }
    CHECK_EQ(t.versions, is_one_key ? (size_t)MANY * PUTS : PUTS);
    /* A millisecond of a slow machine for 10,000 callbacks would be 2 s for all. */
    CHECK(hw_mono_us() - start_us < 5000000);
    for (int i = 0; i < MANY; i++) {
        hw_watcher_free(w[i]);
    }
    CHECK_EQ(rig.hub.count, 0);
    rig_close();
}

static void ten_thousand_watchers_of_one_key_all_get_every_event(void)
{
    ten_thousand_watchers(true);
}

static void ten_thousand_watchers_of_other_keys_cost_nothing(void)
{
    ten_thousand_watchers(false);
}

/* Only such a revision is split, and it goes on where it was, also after a refusal in its middle. */
static void a_huge_revision_comes_in_parts(void)
{
    enum { BIG = 131072 + 5000, A_TXN = 10000 };
    struct tally t = {0};
    struct hw_op *puts = calloc(A_TXN, sizeof *puts);
    char(*keys)[16] = calloc(A_TXN, sizeof *keys);
    struct hw_watch_request q = {.key = S("x"), .range_end = S("y"), .no_put = true, .prev_kv = true};
    struct hw_watcher *w;
    rig_open(HW_WATCH_RECENT_VERSIONS, 0);
    for (int n = 0; n < BIG;) {
        struct hw_txn txn = {.success = puts};
        for (; txn.success_count < A_TXN && n < BIG; n++, txn.success_count++) {
            snprintf(keys[txn.success_count], sizeof keys[0], "x%07d", n);
            puts[txn.success_count] = hotkit_op_put(keys[txn.success_count], "v");
        }
        REQUIRE(hotkit_txn(&rig.kit, &txn, NULL) == 0);
    }
    REQUIRE(hw_watch_hub_add(&rig.hub, &q, &tally_ops, &t, &w) == 0);
    REQUIRE(hotkit_delete(&rig.kit, "x", S("y")) == 0);
    CHECK_EQ(t.batches, 0);
    t.refuses_second = true;
    while (!t.has_refused) {
        hw_loop_turn(rig.loop, false);
    }
    CHECK(t.partial == 1 && t.versions < BIG);
    hw_watcher_ready(w);
    while (rig.hub.behind_count > 0) {
        hw_loop_turn(rig.loop, false);
    }
    CHECK(t.partial == 1 && t.batches == 2 && t.versions == BIG);
    hw_watcher_free(w);
    rig_close();
    free(puts);
    free(keys);
}

HW_SUITE(watch_hub, HW_CASE(every_watcher_gets_exactly_its_events),
         HW_CASE(a_watcher_that_takes_nothing_is_ended_with_a_reason),
         HW_CASE(compaction_ends_a_full_watcher_that_it_overtakes), HW_CASE(limits_are_errors),
         HW_CASE(ten_thousand_watchers_of_one_key_all_get_every_event),
         HW_CASE(ten_thousand_watchers_of_other_keys_cost_nothing), HW_CASE(a_huge_revision_comes_in_parts))
