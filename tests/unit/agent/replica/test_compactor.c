#include "agent/replica/compactor.h"

#include "tests/unit/hw_test.h"

#define HOUR_MS 3600000u

static void by_age_the_newest_note_that_is_old_enough_counts(void)
{
    struct hw_compactor_policy policy = {.retention_ms = HOUR_MS};
    struct hw_compactor_notes notes = {.count = 0};
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 5 * HOUR_MS, 1000, 0), 0); /* nothing known */
    for (unsigned i = 0; i < 10; i++) {
        hw_compactor_note_add(&notes, HOUR_MS + i * 60000, 100 + i);
    }
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 2 * HOUR_MS - 1, 1000, 0), 0);
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 2 * HOUR_MS, 1000, 0), 100);
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 2 * HOUR_MS + 60000 * 3 + 5, 1000, 0), 103);
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 2 * HOUR_MS + 60000 * 3 + 5, 1000, 103), 0); /* done already */
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 9 * HOUR_MS, 1000, 103), 109);
}

static void by_number_the_newest_are_kept(void)
{
    struct hw_compactor_policy policy = {.retention_revisions = 100};
    struct hw_compactor_notes notes = {.count = 0};
    hw_compactor_note_add(&notes, 1, 50); /* age does not matter then */
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 10 * HOUR_MS, 99, 0), 0);
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 10 * HOUR_MS, 101, 0), 1);
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 10 * HOUR_MS, 500, 0), 400);
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 10 * HOUR_MS, 500, 400), 0);
}

static void what_either_bound_lets_go_goes(void)
{
    struct hw_compactor_policy policy = {.retention_ms = HOUR_MS, .retention_revisions = 100};
    struct hw_compactor_notes notes = {.count = 0};
    hw_compactor_note_add(&notes, 1000, 50);
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 1000 + HOUR_MS, 60, 0), 50);
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 1000 + HOUR_MS, 500, 0), 400);
    policy = (struct hw_compactor_policy){0}; /* off */
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 9 * HOUR_MS, 500, 0), 0);
}

static void a_note_beyond_the_present_is_cut(void)
{
    struct hw_compactor_policy policy = {.retention_ms = HOUR_MS};
    struct hw_compactor_notes notes = {.count = 0};
    hw_compactor_note_add(&notes, 1000, 500); /* of a state that a restored one has replaced */
    CHECK_EQ(hw_compactor_choose(&notes, &policy, 9 * HOUR_MS, 300, 0), 300);
}

static void the_notes_reach_back_beyond_the_retention(void)
{
    static const uint64_t retentions_ms[] = {1000, HOUR_MS, 24 * (uint64_t)HOUR_MS, 8760 * (uint64_t)HOUR_MS};
    for (size_t i = 0; i < sizeof retentions_ms / sizeof retentions_ms[0]; i++) {
        struct hw_compactor_policy policy = {.retention_ms = retentions_ms[i]};
        struct hw_compactor_notes notes = {.count = 0};
        uint64_t every_ms = hw_compactor_note_every_ms(&policy, 1000);
        uint64_t now = 0;
        for (hw_rev revision = 1; revision <= 1000; revision++, now += every_ms) {
            hw_compactor_note_add(&notes, now, revision);
        }
        now -= every_ms;
        CHECK_EQ(notes.count, HW_COMPACTOR_NOTES_MAX);
        CHECK(hw_compactor_choose(&notes, &policy, now, 1000, 0) > 0);
        CHECK(hw_compactor_choose(&notes, &policy, now, 1000, 0) < 1000);
    }
}

HW_SUITE(replica_compactor, HW_CASE(by_age_the_newest_note_that_is_old_enough_counts),
         HW_CASE(by_number_the_newest_are_kept), HW_CASE(what_either_bound_lets_go_goes),
         HW_CASE(a_note_beyond_the_present_is_cut), HW_CASE(the_notes_reach_back_beyond_the_retention))
