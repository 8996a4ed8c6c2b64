/* What was written between two revisions, against a list of everything that the feed ever told, with writes,
 * compactions and sweeps between the steps. HW_SEED replays.
 */
#include "storage/hot/changes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/rng.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"

#define ROUNDS 3000
#define KEYS 24

/* Every version ever written, in the order of writing; one reference each. */
struct record {
    struct hw_version **at;
    size_t count;
    size_t cap;
};

static void keep(void *ctx, hw_rev revision, struct hw_version *const *versions, size_t count)
{
    struct record *r = ctx;
    (void)revision;
    for (size_t i = 0; i < count; i++) {
        if (r->count == r->cap) {
            r->cap = r->cap == 0 ? 1024 : r->cap * 2;
            r->at = realloc(r->at, r->cap * sizeof(struct hw_version *));
        }
        r->at[r->count++] = hw_version_ref(versions[i]);
    }
}

static void record_free(struct record *r)
{
    for (size_t i = 0; i < r->count; i++) {
        hw_version_unref(r->at[i]);
    }
    free(r->at);
    memset(r, 0, sizeof *r);
}

static void text_of(struct hw_buf *out, const struct hw_version *v)
{
    hw_buf_printf(out, "%" PRId64 ".%u%c", v->mod_main, v->mod_sub, v->is_tombstone ? '-' : '+');
    hw_buf_append(out, v->key->data, v->key->len);
    hw_buf_append_str(out, " ");
}

static bool is_within(const struct hw_version *v, struct hw_slice key, struct hw_slice end)
{
    struct hw_slice name = hw_slice_of(v->key->data, v->key->len);
    if (end.len == 0) {
        return hw_slice_is_equal(name, key);
    }
    return hw_slice_cmp(name, key) >= 0 && ((end.len == 1 && end.data[0] == 0) || hw_slice_cmp(name, end) < 0);
}

static struct hw_version *before_of(const struct record *r, const struct hw_version *v)
{
    struct hw_version *before = NULL;
    for (size_t i = 0; r->at[i] != v; i++) {
        if (hw_slice_is_equal(hw_slice_of(r->at[i]->key->data, r->at[i]->key->len),
                              hw_slice_of(v->key->data, v->key->len))) {
            before = r->at[i];
        }
    }
    return before == NULL || before->is_tombstone ? NULL : before;
}

struct world {
    struct kit kit;
    struct record record;
    struct hw_rng rng;
    struct hw_changes *ch;
    char key[8];
    char end[8];
    hw_rev from;
    hw_rev compacted; /* at the start */
    struct hw_buf expected;
    size_t seen_at_compacted;
    size_t seen_tombstone_at_compacted;
    size_t seen_long;
    size_t seen_previous;
    size_t failures;
};

static void random_key(struct world *w, char out[8])
{
    snprintf(out, 8, "k%02d", (int)hw_rng_below(&w->rng, KEYS));
}

static struct hw_slice slice_of_end(const char *end)
{
    return end[0] == '*' ? OPEN_END : hw_slice_str(end);
}

static void write_something(struct world *w)
{
    char key[8];
    char end[8];
    struct hw_op put;
    struct hw_op del;
    struct hw_txn first = {.success = &put, .success_count = 1};
    struct hw_txn second = {.success = &del, .success_count = 1};
    struct hw_op both[] = {hotkit_op_txn(&first), hotkit_op_txn(&second)};
    random_key(w, key);
    random_key(w, end);
    switch (hw_rng_below(&w->rng, 6)) {
    case 0:
        hotkit_delete(&w->kit, key, S(""));
        break;
    case 1:
        hotkit_delete(&w->kit, key, hw_slice_str(end));
        break;
    case 2: /* one key twice in one revision */
        put = hotkit_op_put(key, "twice");
        del = hotkit_op_delete(key, "");
        CHECK_EQ(hotkit_txn(&w->kit, &(struct hw_txn){.success = both, .success_count = 2}, NULL), 0);
        break;
    default:
        hotkit_put(&w->kit, key, "v");
    }
}

static void disturb(struct world *w)
{
    write_something(w);
    if (hw_rng_is_chance(&w->rng, 5)) {
        hw_rev low = hw_hot_compacted(w->kit.hot);
        hotkit_compact(&w->kit, hw_hot_revision(w->kit.hot) -
                                    (hw_rev)hw_rng_below(&w->rng, (uint64_t)(hw_hot_revision(w->kit.hot) - low) + 1));
    }
    hw_hot_sweep(w->kit.hot, 1 + hw_rng_below(&w->rng, 40));
}

static void start(struct world *w)
{
    hw_rev low = hw_hot_compacted(w->kit.hot) - 1;
    hw_rev revision = hw_hot_revision(w->kit.hot);
    hw_rev to = revision - (hw_rev)hw_rng_below(&w->rng, 5) + 2;
    int rc;
    random_key(w, w->key);
    random_key(w, w->end);
    if (hw_rng_is_chance(&w->rng, 30)) {
        w->end[0] = hw_rng_is_chance(&w->rng, 50) ? '\0' : '*';
    }
    w->compacted = hw_hot_compacted(w->kit.hot);
    w->from = hw_rng_is_chance(&w->rng, 30) ? w->compacted
                                            : low + (hw_rev)hw_rng_below(&w->rng, (uint64_t)(revision - low) + 3);
    rc = hw_changes_start(w->kit.hot, hw_slice_str(w->key), slice_of_end(w->end), w->from, to, &w->ch);
    CHECK_EQ(rc, w->from < w->compacted ? HW_ERR_COMPACTED : 0);
    CHECK((rc == 0) == (w->ch != NULL));
    hw_buf_clear(&w->expected);
    for (size_t i = 0; i < w->record.count; i++) {
        const struct hw_version *v = w->record.at[i];
        if (v->mod_main >= w->from && v->mod_main <= to && is_within(v, hw_slice_str(w->key), slice_of_end(w->end))) {
            text_of(&w->expected, v);
            w->seen_at_compacted += v->mod_main == w->compacted;
            w->seen_tombstone_at_compacted += v->mod_main == w->compacted && v->is_tombstone;
        }
    }
}

static void finish(struct world *w)
{
    struct hw_buf got = {0};
    size_t count;
    struct hw_version *const *at = hw_changes_at(w->ch, &count);
    for (size_t i = 0; i < count; i++) {
        struct hw_version *before = before_of(&w->record, at[i]);
        struct hw_version *previous = hw_hot_previous(w->kit.hot, at[i]);
        bool may_be_gone = at[i]->mod_main == w->compacted; /* at the start already */
        text_of(&got, at[i]);
        CHECK(previous == before || (previous == NULL && may_be_gone));
        w->seen_previous += previous != NULL;
    }
    if (!hw_slice_is_equal(hw_buf_slice(&got), hw_buf_slice(&w->expected)) && w->failures++ < 5) {
        printf("  changes of [%s, %s) from %" PRId64 "\n  expected %.*s\n  got      %.*s\n", w->key, w->end, w->from,
               (int)w->expected.len, (const char *)w->expected.data, (int)got.len, (const char *)got.data);
    }
    CHECK(w->failures == 0);
    w->seen_long += count > 20;
    hw_buf_free(&got);
    hw_changes_close(w->ch);
    w->ch = NULL;
}

static void changes_are_what_the_feed_told(void)
{
    static struct world w;
    memset(&w, 0, sizeof w);
    hotkit_open(&w.kit);
    hw_hot_set_feed(w.kit.hot, keep, &w.record);
    hw_rng_seed(&w.rng, hotkit_seed("hot changes"));
    for (int i = 0; i < ROUNDS && w.failures == 0; i++) {
        size_t budget = 1 + hw_rng_below(&w.rng, 9);
        int rc = 1;
        disturb(&w);
        start(&w);
        while (w.ch != NULL && (rc = hw_changes_step(w.ch, budget)) > 0) {
            if (hw_rng_is_chance(&w.rng, 30)) {
                disturb(&w);
            }
        }
        if (w.ch != NULL) {
            CHECK_EQ(rc, 0);
            CHECK_EQ(hw_changes_step(w.ch, 1), 0);
            finish(&w);
        }
    }
    CHECK_EQ(hw_hot_open_scans(w.kit.hot), 0);
    CHECK(w.seen_at_compacted > 20 && w.seen_tombstone_at_compacted > 20);
    CHECK(w.seen_long > 20 && w.seen_previous > 20);
    hotkit_close(&w.kit);
    record_free(&w.record);
    hw_buf_free(&w.expected);
}

static const char *changes_text(struct kit *k, struct hw_slice key, struct hw_slice end, hw_rev from, hw_rev to)
{
    static struct hw_buf out;
    struct hw_changes *ch;
    struct hw_version *const *at;
    size_t count;
    int rc = hw_changes_start(k->hot, key, end, from, to, &ch);
    if (rc != 0) {
        return hw_err_name(rc);
    }
    while ((rc = hw_changes_step(ch, 2)) > 0) {
    }
    CHECK_EQ(rc, 0);
    hw_buf_clear(&out);
    at = hw_changes_at(ch, &count);
    for (size_t i = 0; i < count; i++) {
        text_of(&out, at[i]);
    }
    hw_changes_close(ch);
    hw_buf_put_u8(&out, 0);
    return (const char *)out.data;
}

/* The open point of earlier designs: the tombstone of just the compacted revision. */
static void a_watcher_at_the_compacted_revision_misses_nothing(void)
{
    static struct kit k;
    hotkit_open(&k);
    hotkit_put(&k, "a", "1");      /* 2 */
    hotkit_put(&k, "b", "1");      /* 3 */
    hotkit_delete(&k, "a", S("")); /* 4 */
    hotkit_put(&k, "b", "2");      /* 5 */
    hotkit_compact(&k, 4);
    hotkit_sweep(&k, 1);
    CHECK_STR(changes_text(&k, OPEN_END, OPEN_END, 3, 9), "COMPACTED");
    CHECK_STR(changes_text(&k, OPEN_END, OPEN_END, 4, 9), "4.0-a 5.0+b ");
    CHECK_STR(changes_text(&k, S("a"), S(""), 4, 4), "4.0-a ");
    CHECK_STR(changes_text(&k, S("b"), S("a"), 4, 9), "");
    CHECK_STR(changes_text(&k, OPEN_END, OPEN_END, 6, 9), "");
    CHECK_STR(changes_text(&k, OPEN_END, OPEN_END, 5, 4), "");
    CHECK_EQ(hw_hot_key_count(k.hot), 1);
    CHECK_STR(hotkit_all(&k, 4), "b=1 /1");
    hotkit_compact(&k, 5);
    hotkit_sweep(&k, 1);
    CHECK_EQ(hw_hot_version_count(k.hot), 1);
    hotkit_close(&k);
}

static void what_an_open_one_needs_stays(void)
{
    static struct kit k;
    struct hw_changes *ch;
    struct hw_version *const *at;
    size_t count;
    hotkit_open(&k);
    hotkit_put(&k, "a", "1"); /* 2 */
    hotkit_put(&k, "a", "2"); /* 3 */
    hotkit_put(&k, "a", "3"); /* 4 */
    REQUIRE(hw_changes_start(k.hot, S("a"), S(""), 3, 100, &ch) == 0);
    CHECK_EQ(hw_hot_open_scans(k.hot), 1);
    hotkit_put(&k, "a", "4"); /* 5: newer than the state was */
    hotkit_compact(&k, 5);
    hotkit_sweep(&k, 1);
    CHECK_EQ(hw_changes_step(ch, 100), 0);
    at = hw_changes_at(ch, &count);
    REQUIRE(count == 2);
    CHECK(hw_hot_previous(k.hot, at[0]) != NULL && hw_hot_previous(k.hot, at[0])->value[0] == '1');
    CHECK(hw_hot_previous(k.hot, at[1]) == at[0]);
    hotkit_put(&k, "a", "5");
    hotkit_compact(&k, 6);
    hw_version_ref(at[1]);
    {
        struct hw_version *late = at[1];
        hw_changes_close(ch);
        hotkit_sweep(&k, 1);
        CHECK(hw_hot_previous(k.hot, late) == NULL); /* itself no longer held */
        hw_version_unref(late);
    }
    CHECK_EQ(hw_hot_version_count(k.hot), 1);
    hw_changes_close(NULL);
    hotkit_close(&k);
}

static void the_previous_version_is_a_live_one(void)
{
    static struct kit k;
    struct record r = {0};
    hotkit_open(&k);
    hw_hot_set_feed(k.hot, keep, &r);
    hotkit_put(&k, "a", "1");
    hotkit_put(&k, "a", "2");
    hotkit_delete(&k, "a", S(""));
    hotkit_put(&k, "a", "3");
    REQUIRE(r.count == 4);
    CHECK(hw_hot_previous(k.hot, r.at[0]) == NULL);
    CHECK(hw_hot_previous(k.hot, r.at[1]) == r.at[0]);
    CHECK(hw_hot_previous(k.hot, r.at[2]) == r.at[1]);
    CHECK(hw_hot_previous(k.hot, r.at[3]) == NULL);
    hotkit_close(&k);
    record_free(&r);
}

HW_SUITE(hot_changes, HW_CASE(changes_are_what_the_feed_told),
         HW_CASE(a_watcher_at_the_compacted_revision_misses_nothing), HW_CASE(what_an_open_one_needs_stays),
         HW_CASE(the_previous_version_is_a_live_one))
