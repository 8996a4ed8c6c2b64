/* Ranges: etcd's RangeRequest, field by field. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"

/* Revisions 2 to 8: b and d are written twice, c is deleted, ab comes last. */
static void fill(struct kit *k)
{
    hotkit_open(k);
    hotkit_put(k, "a", "9");
    hotkit_put(k, "b", "8");
    hotkit_put(k, "c", "7");
    hotkit_put(k, "d", "6");
    hotkit_put(k, "b", "5");
    hotkit_delete(k, "c", S(""));
    hotkit_put(k, "d", "1");
    hotkit_put(k, "ab", "7");
}

struct range_case {
    struct hw_range range;
    const char *expected;
};

static void run_cases(struct kit *k, const struct range_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t budget = 1; budget < 12; budget += 5) {
            const char *got = hotkit_range(k, &cases[i].range, budget);
            if (strcmp(got, cases[i].expected) != 0) {
                printf("  case %zu, budget %zu: %s, expected %s\n", i, budget, got, cases[i].expected);
            }
            CHECK_STR(got, cases[i].expected);
        }
    }
}

#define ALL .key = OPEN_END, .range_end = OPEN_END

static void keys_and_ends(void)
{
    static struct kit k;
    const struct range_case cases[] = {
        {{.key = S("a")}, "a=9 /1"},
        {{.key = S("c")}, "/0"},
        {{.key = S("zz")}, "/0"},
        {{.key = S("a"), .range_end = S("b")}, "a=9 ab=7 /2"},
        {{.key = S("a"), .range_end = S("bb")}, "a=9 ab=7 b=5 /3"},
        {{.key = S("a\0"), .range_end = S("b")}, "ab=7 /1"},
        {{.key = S("b"), .range_end = OPEN_END}, "b=5 d=1 /2"},
        {{ALL}, "a=9 ab=7 b=5 d=1 /4"},
        {{.key = S("b"), .range_end = S("b")}, "/0"},
        {{.key = S("d"), .range_end = S("a")}, "/0"},
        {{.key = S("e"), .range_end = OPEN_END}, "/0"},
    };
    fill(&k);
    run_cases(&k, cases, hw_array_len(cases));
    hotkit_close(&k);
}

static void revisions(void)
{
    static struct kit k;
    const struct range_case cases[] = {
        {{ALL, .revision = 1}, "/0"},
        {{ALL, .revision = 2}, "a=9 /1"},
        {{ALL, .revision = 5}, "a=9 b=8 c=7 d=6 /4"},
        {{ALL, .revision = 6}, "a=9 b=5 c=7 d=6 /4"},
        {{ALL, .revision = 7}, "a=9 b=5 d=6 /3"},
        {{ALL, .revision = 9}, "a=9 ab=7 b=5 d=1 /4"},
        {{ALL, .revision = 0}, "a=9 ab=7 b=5 d=1 /4"},
        {{ALL, .revision = -5}, "a=9 ab=7 b=5 d=1 /4"},
        {{ALL, .revision = 10}, "FUTURE"},
    };
    fill(&k);
    run_cases(&k, cases, hw_array_len(cases));
    CHECK_EQ(hotkit_compact(&k, 6), 0);
    CHECK_STR(hotkit_all(&k, 5), "COMPACTED");
    CHECK_STR(hotkit_all(&k, 6), "a=9 b=5 c=7 d=6 /4");
    CHECK_EQ(hw_hot_check_revision(k.hot, 5), HW_ERR_COMPACTED);
    CHECK_EQ(hw_hot_check_revision(k.hot, 6), 0);
    CHECK_EQ(hw_hot_check_revision(k.hot, 9), 0);
    CHECK_EQ(hw_hot_check_revision(k.hot, 10), HW_ERR_FUTURE);
    CHECK_EQ(hw_hot_check_revision(k.hot, 0), 0);
    hotkit_close(&k);
}

static void limits_and_filters(void)
{
    static struct kit k;
    const struct range_case cases[] = {
        {{ALL, .limit = 2}, "a=9 ab=7 /4+"},
        {{ALL, .limit = 4}, "a=9 ab=7 b=5 d=1 /4"},
        {{ALL, .limit = 9}, "a=9 ab=7 b=5 d=1 /4"},
        {{ALL, .limit = INT64_MAX}, "a=9 ab=7 b=5 d=1 /4"},
        {{ALL, .limit = -1}, "a=9 ab=7 b=5 d=1 /4"},
        {{ALL, .keys_only = true}, "a ab b d /4"},
        {{ALL, .count_only = true}, "/4"},
        {{ALL, .count_only = true, .limit = 1}, "/4"},
        {{ALL, .count_only = true, .min_mod = 8}, "/4"},
        {{ALL, .min_mod = 6}, "ab=7 b=5 d=1 /4"},
        {{ALL, .max_mod = 6}, "a=9 b=5 /4"},
        {{ALL, .min_mod = 6, .max_mod = 6}, "b=5 /4"},
        {{ALL, .min_create = 3}, "ab=7 b=5 d=1 /4"},
        {{ALL, .max_create = 3}, "a=9 b=5 /4"},
        {{ALL, .min_create = 3, .limit = 1}, "ab=7 /4+"},
        {{ALL, .max_create = 3, .limit = 2}, "a=9 b=5 /4"},
        {{ALL, .max_mod = 5, .revision = 5, .min_create = 4}, "c=7 d=6 /4"},
    };
    fill(&k);
    run_cases(&k, cases, hw_array_len(cases));
    hotkit_close(&k);
}

static void sorting(void)
{
    static struct kit k;
    const struct range_case cases[] = {
        {{ALL, .sort_order = HW_SORT_ASCEND}, "a=9 ab=7 b=5 d=1 /4"},
        {{ALL, .sort_order = HW_SORT_DESCEND}, "d=1 b=5 ab=7 a=9 /4"},
        {{ALL, .sort_order = HW_SORT_DESCEND, .limit = 1}, "d=1 /4+"},
        {{ALL, .sort_order = HW_SORT_ASCEND, .sort_target = HW_BY_VALUE}, "d=1 b=5 ab=7 a=9 /4"},
        {{ALL, .sort_order = HW_SORT_DESCEND, .sort_target = HW_BY_VALUE, .limit = 2}, "a=9 ab=7 /4+"},
        {{ALL, .sort_order = HW_SORT_ASCEND, .sort_target = HW_BY_MOD}, "a=9 b=5 d=1 ab=7 /4"},
        {{ALL, .sort_order = HW_SORT_DESCEND, .sort_target = HW_BY_CREATE}, "ab=7 d=1 b=5 a=9 /4"},
        /* Equals stay in key order, in both directions. */
        {{ALL, .sort_order = HW_SORT_ASCEND, .sort_target = HW_BY_VERSION}, "a=9 ab=7 b=5 d=1 /4"},
        {{ALL, .sort_order = HW_SORT_DESCEND, .sort_target = HW_BY_VERSION}, "b=5 d=1 a=9 ab=7 /4"},
        /* Without an order, a target other than the key sorts ascending... */
        {{ALL, .sort_target = HW_BY_VALUE}, "d=1 b=5 ab=7 a=9 /4"},
        /* ...but what it sorts was cut in key order before. */
        {{ALL, .sort_target = HW_BY_VALUE, .limit = 2}, "b=5 ab=7 /4+"},
        {{ALL, .sort_target = HW_BY_VALUE, .limit = 2, .min_mod = 1}, "d=1 b=5 /4+"},
    };
    fill(&k);
    run_cases(&k, cases, hw_array_len(cases));
    hotkit_close(&k);
}

static void a_scan_sees_its_revision_whatever_is_written(void)
{
    static struct kit k;
    struct hw_scan *scan;
    int rc = 1;
    fill(&k);
    REQUIRE(hw_scan_start(k.hot, &(struct hw_range){ALL}, &scan) == 0);
    CHECK_EQ(hw_scan_revision(scan), 9);
    for (int i = 0; rc > 0; i++) {
        char key[8];
        rc = hw_scan_step(scan, 1);
        snprintf(key, sizeof key, "a%d", i);
        hotkit_put(&k, key, "new");
        hotkit_put(&k, "b", "new");
        hotkit_delete(&k, "a", OPEN_END);
        CHECK_EQ(hotkit_compact(&k, hw_hot_revision(k.hot)), 0);
        hotkit_sweep(&k, 1);
    }
    CHECK_EQ(rc, 0);
    CHECK_STR(hotkit_scan_text(scan, false), "a=9 ab=7 b=5 d=1 /4");
    CHECK_EQ(hw_scan_step(scan, 1), 0);
    hw_scan_close(scan);
    CHECK_STR(hotkit_all(&k, 0), "/0");
    hotkit_put(&k, "last", "1"); /* at the compacted revision the tombstones would stay */
    hotkit_compact(&k, hw_hot_revision(k.hot));
    hotkit_sweep(&k, 1);
    CHECK_EQ(hw_hot_version_count(k.hot), 1);
    hotkit_close(&k);
}

static void a_scan_may_be_closed_at_any_step(void)
{
    static struct kit k;
    fill(&k);
    for (int steps = 0; steps < 40; steps++) {
        struct hw_scan *scan;
        struct hw_range r = {ALL, .sort_order = HW_SORT_DESCEND, .sort_target = HW_BY_VALUE, .limit = 1};
        REQUIRE(hw_scan_start(k.hot, &r, &scan) == 0);
        for (int i = 0; i < steps; i++) {
            hw_scan_step(scan, 1);
        }
        hw_scan_close(scan);
    }
    hw_scan_close(NULL);
    hotkit_close(&k);
}

HW_SUITE(hot_range, HW_CASE(keys_and_ends), HW_CASE(revisions), HW_CASE(limits_and_filters), HW_CASE(sorting),
         HW_CASE(a_scan_sees_its_revision_whatever_is_written), HW_CASE(a_scan_may_be_closed_at_any_step))
