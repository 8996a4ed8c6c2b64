/* Compaction, the sweep, and the hashes over it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"

/* Revisions: a 2 3 4, b 5, b gone 6, c 7, c gone 8, c 9. */
static void fill(struct kit *k)
{
    hotkit_open(k);
    hotkit_put(k, "a", "1");
    hotkit_put(k, "a", "2");
    hotkit_put(k, "a", "3");
    hotkit_put(k, "b", "1");
    hotkit_delete(k, "b", S(""));
    hotkit_put(k, "c", "1");
    hotkit_delete(k, "c", S(""));
    hotkit_put(k, "c", "2");
}

static void compaction_refuses_the_past_and_the_future(void)
{
    static struct kit k;
    fill(&k);
    CHECK_EQ(hw_hot_compacted(k.hot), 0);
    CHECK_EQ(hotkit_compact(&k, 10), HW_ERR_FUTURE);
    CHECK_EQ(hotkit_compact(&k, 0), HW_ERR_COMPACTED);
    CHECK_EQ(hotkit_compact(&k, 5), 0);
    CHECK_EQ(hotkit_compact(&k, 5), HW_ERR_COMPACTED);
    CHECK_EQ(hotkit_compact(&k, 4), HW_ERR_COMPACTED);
    CHECK_EQ(hw_hot_compacted(k.hot), 5);
    CHECK_EQ(hw_hot_revision(k.hot), 9);
    CHECK_EQ(hotkit_compact(&k, 9), 0);
    hotkit_close(&k);
}

static void what_reads_and_watches_from_the_revision_on_need_stays(void)
{
    static const struct {
        hw_rev revision;
        size_t versions_left;
    } cases[] = {{1, 8}, {2, 8}, {3, 7}, {4, 6}, {5, 6}, {6, 5}, {7, 4}, {8, 3}, {9, 2}};
    for (size_t i = 0; i < hw_array_len(cases); i++) {
        for (size_t budget = 1; budget < 5; budget++) {
            static struct kit k;
            char before[256];
            fill(&k);
            CHECK_EQ(hotkit_compact(&k, cases[i].revision), 0);
            snprintf(before, sizeof before, "%s", hotkit_all(&k, cases[i].revision));
            CHECK_EQ(hw_hot_version_count(k.hot), 8);
            hotkit_sweep(&k, budget);
            CHECK_EQ(hw_hot_version_count(k.hot), cases[i].versions_left);
            CHECK_STR(hotkit_all(&k, cases[i].revision), before);
            CHECK_STR(hotkit_all(&k, 0), "a=3 c=2 /2");
            CHECK(!hw_hot_sweep(k.hot, 1));
            hotkit_close(&k);
        }
    }
}

static void a_sweep_stays_within_its_budget(void)
{
    static struct kit k;
    size_t left;
    hotkit_open(&k);
    for (int i = 0; i < 1000; i++) {
        hotkit_put(&k, "counter", "x");
    }
    hotkit_compact(&k, hw_hot_revision(k.hot));
    left = hw_hot_version_count(k.hot);
    while (hw_hot_sweep(k.hot, 10)) {
        CHECK(left - hw_hot_version_count(k.hot) <= 10);
        left = hw_hot_version_count(k.hot);
        hotkit_put(&k, "counter", "y"); /* while its older versions go */
        left++;
        CHECK(hw_hot_check(k.hot) == NULL);
    }
    CHECK(hw_hot_version_count(k.hot) < 150);
    hotkit_close(&k);
}

static void an_open_reader_holds_the_sweep_back(void)
{
    static struct kit k;
    struct hw_scan *scan;
    struct hw_range all = {.key = OPEN_END, .range_end = OPEN_END, .revision = 4};
    fill(&k);
    REQUIRE(hw_scan_start(k.hot, &all, &scan) == 0);
    CHECK_EQ(hotkit_compact(&k, 9), 0);
    hotkit_sweep(&k, 1);
    CHECK_EQ(hw_hot_version_count(k.hot), 6); /* as if 4 had been compacted */
    CHECK_EQ(hw_scan_step(scan, 100), 0);
    CHECK_STR(hotkit_scan_text(scan, false), "a=3 /1");
    CHECK(!hw_hot_sweep(k.hot, 100));
    hw_scan_close(scan);
    hotkit_sweep(&k, 1);
    CHECK_EQ(hw_hot_version_count(k.hot), 2);
    hotkit_close(&k);
}

static void the_hash_follows_the_rule_not_the_sweep(void)
{
    static struct kit k;
    uint64_t swept_not;
    uint64_t before;
    fill(&k);
    before = hotkit_hash(&k, 6, 1);
    CHECK_EQ(hotkit_hash(&k, 6, 1000), before);
    CHECK(hotkit_hash(&k, 9, 1) != before);
    CHECK_EQ(hotkit_hash(&k, 9, 1), hotkit_hash(&k, 0, 3));
    hotkit_compact(&k, 6);
    swept_not = hotkit_hash(&k, 0, 1);
    CHECK(swept_not != before);
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(hotkit_hash(&k, 0, 2), swept_not);
        hw_hot_sweep(k.hot, 1);
    }
    hotkit_sweep(&k, 1);
    CHECK_EQ(hotkit_hash(&k, 0, 2), swept_not);
    hotkit_close(&k);
}

static void a_hasher_refuses_what_it_cannot_know(void)
{
    static struct kit k;
    struct hw_hasher *hasher;
    fill(&k);
    hotkit_compact(&k, 5);
    CHECK_EQ(hw_hasher_start(k.hot, 4, &hasher), HW_ERR_COMPACTED);
    CHECK_EQ(hw_hasher_start(k.hot, 10, &hasher), HW_ERR_FUTURE);
    REQUIRE(hw_hasher_start(k.hot, 0, &hasher) == 0);
    hotkit_put(&k, "a", "later");
    hotkit_compact(&k, 10);
    CHECK_EQ(hw_hasher_revision(hasher), 9);
    CHECK_EQ(hw_hasher_compacted(hasher), 5);
    hw_hasher_close(hasher);
    hw_hasher_close(NULL);
    hotkit_close(&k);
}

static void a_state_is_freed_in_slices(void)
{
    static struct kit k;
    size_t steps = 1;
    hotkit_open(&k);
    for (int i = 0; i < 100; i++) {
        char key[8];
        snprintf(key, sizeof key, "%d", i % 30);
        hotkit_put(&k, key, "v");
    }
    while (!hw_hot_free_step(k.hot, 7)) {
        steps++;
    }
    CHECK(steps >= 2 * 100 / 7); /* the versions once in the index and once in the dirty list */
    hw_buf_free(&k.encoded);
}

HW_SUITE(hot_compact, HW_CASE(compaction_refuses_the_past_and_the_future),
         HW_CASE(what_reads_and_watches_from_the_revision_on_need_stays), HW_CASE(a_sweep_stays_within_its_budget),
         HW_CASE(an_open_reader_holds_the_sweep_back), HW_CASE(the_hash_follows_the_rule_not_the_sweep),
         HW_CASE(a_hasher_refuses_what_it_cannot_know), HW_CASE(a_state_is_freed_in_slices))
