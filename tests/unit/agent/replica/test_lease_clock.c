#include "agent/replica/lease_clock.h"

#include <stdlib.h>

#include "agent/base/rng.h"
#include "tests/unit/hw_test.h"

#define GRACE_MS 300

static void open_clock(struct hw_lease_clock *c)
{
    hw_lease_clock_init(c, GRACE_MS);
    hw_lease_clock_start(c, 1000000);
}

static void close_clock(struct hw_lease_clock *c)
{
    hw_lease_clock_drop(c);
    while (hw_lease_clock_free_step(c, 100)) {
    }
}

/* Time as a loop that is never late sees it. */
static void pass(struct hw_lease_clock *c, uint64_t ms)
{
    for (; ms > HW_LEASE_TICK_MS; ms -= HW_LEASE_TICK_MS) {
        hw_lease_clock_advance(c, c->machine_ms + HW_LEASE_TICK_MS);
    }
    hw_lease_clock_advance(c, c->machine_ms + ms);
}

static void a_stall_counts_half_a_second_however_long_it_was(void)
{
    struct hw_lease_clock c;
    uint64_t before;
    open_clock(&c);
    before = c.now_ms;
    hw_lease_clock_advance(&c, c.machine_ms + 3600000);
    CHECK_EQ(c.now_ms, before + HW_LEASE_STEP_MS_MAX);
    hw_lease_clock_advance(&c, c.machine_ms + 100);
    CHECK_EQ(c.now_ms, before + HW_LEASE_STEP_MS_MAX + 100);
    hw_lease_clock_advance(&c, c.machine_ms - 50); /* cannot happen; harmless */
    CHECK_EQ(c.now_ms, before + HW_LEASE_STEP_MS_MAX + 100);
    close_clock(&c);
}

static void leases_end_in_order_and_not_early(void)
{
    static const int64_t ttls[] = {5, 2, 9, 2, 7};
    static const int64_t order[] = {2, 4, 1, 5, 3};
    struct hw_lease_clock c;
    open_clock(&c);
    for (int i = 0; i < 5; i++) {
        REQUIRE(hw_lease_clock_add(&c, i + 1, ttls[i]) != NULL);
    }
    pass(&c, 1999);
    CHECK(hw_lease_clock_take_over(&c) == NULL);
    pass(&c, 1);
    for (int i = 0; i < 2; i++) {
        struct hw_lease_entry *e = hw_lease_clock_take_over(&c);
        REQUIRE(e != NULL);
        CHECK_EQ(e->id, order[i]);
        CHECK(e->is_ending);
        CHECK_EQ(hw_lease_clock_left_s(&c, e), 0);
    }
    CHECK(hw_lease_clock_take_over(&c) == NULL);
    pass(&c, 60000);
    for (int i = 2; i < 5; i++) {
        struct hw_lease_entry *e = hw_lease_clock_take_over(&c);
        REQUIRE(e != NULL);
        CHECK_EQ(e->id, order[i]);
        hw_lease_clock_remove(&c, e);
    }
    CHECK_EQ(c.count, 2);
    close_clock(&c);
}

static void renewing_gives_the_whole_time_again(void)
{
    struct hw_lease_clock c;
    struct hw_lease_entry *e;
    open_clock(&c);
    e = hw_lease_clock_add(&c, 1, 10);
    pass(&c, 9500);
    CHECK_EQ(hw_lease_clock_left_s(&c, e), 0);
    hw_lease_clock_renew(&c, e);
    CHECK_EQ(hw_lease_clock_left_s(&c, e), 10);
    pass(&c, 9999);
    CHECK(hw_lease_clock_take_over(&c) == NULL);
    pass(&c, 1);
    CHECK(hw_lease_clock_take_over(&c) == e);
    close_clock(&c);
}

static void one_that_could_not_be_ended_comes_again_and_may_be_renewed(void)
{
    struct hw_lease_clock c;
    struct hw_lease_entry *e;
    open_clock(&c);
    e = hw_lease_clock_add(&c, 1, 1);
    pass(&c, 1000);
    CHECK(hw_lease_clock_take_over(&c) == e);
    hw_lease_clock_put_back(&c, e, 500);
    CHECK(hw_lease_clock_take_over(&c) == NULL);
    pass(&c, 500);
    CHECK(hw_lease_clock_take_over(&c) == e);
    hw_lease_clock_put_back(&c, e, 500);
    hw_lease_clock_renew(&c, e);
    pass(&c, 999);
    CHECK(hw_lease_clock_take_over(&c) == NULL);
    close_clock(&c);
}

static void a_new_hot_node_gives_what_was_written_and_an_election(void)
{
    struct hw_lease_clock c;
    struct hw_lease_entry *full;
    struct hw_lease_entry *part;
    open_clock(&c);
    full = hw_lease_clock_adopt(&c, 1, 60, 0);
    part = hw_lease_clock_adopt(&c, 2, 60, 17);
    CHECK_EQ(full->end_ms - c.now_ms, 60000 + GRACE_MS);
    CHECK_EQ(part->end_ms - c.now_ms, 17000 + GRACE_MS);
    CHECK_EQ(hw_lease_clock_left_s(&c, full), 60); /* never more than it has */
    CHECK_EQ(hw_lease_clock_left_s(&c, part), 17);
    close_clock(&c);
}

static void what_is_left_is_written_after_a_third_or_a_minute(void)
{
    static const struct {
        int64_t ttl_s;
        int64_t written_s;
        uint64_t passed_ms;
        int64_t want_s; /* -1: nothing */
    } cases[] = {{60, 0, 20000, -1},  {60, 0, 20100, 40},    {60, 40, 1000, -1},    {60, 40, 1100, 39},
                 {3, 0, 1000, -1},    {3, 0, 1100, 2},       {86400, 0, 60000, -1}, {86400, 0, 61000, 86339},
                 {86400, 5, 4000, 1}, {9000000000, 0, 0, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hw_lease_clock c;
        struct hw_lease_entry *e;
        int64_t left_s = -1;
        open_clock(&c);
        e = cases[i].written_s > 0 ? hw_lease_clock_adopt(&c, 1, cases[i].ttl_s, cases[i].written_s)
                                   : hw_lease_clock_add(&c, 1, cases[i].ttl_s);
        pass(&c, cases[i].passed_ms);
        CHECK_EQ(hw_lease_clock_is_writable(&c, e, &left_s), cases[i].want_s >= 0);
        if (cases[i].want_s >= 0) {
            CHECK_EQ(left_s, cases[i].want_s);
        }
        close_clock(&c);
    }
}

/* Hot nodes that come and go every `tenure_ms`, each cut off (kill -9): the wall time that a lease lives. */
static uint64_t life_ms(int64_t ttl_s, uint64_t tenure_ms, bool is_handed_on)
{
    int64_t written_s = 0;
    uint64_t life = 0;
    for (unsigned change = 0; change < 10000; change++) {
        struct hw_lease_clock c;
        struct hw_lease_entry *e;
        int64_t left_s;
        open_clock(&c);
        e = change == 0 ? hw_lease_clock_add(&c, 1, ttl_s) : hw_lease_clock_adopt(&c, 1, ttl_s, written_s);
        for (uint64_t t = 0; t < tenure_ms; t += 100) {
            pass(&c, 100);
            life += 100;
            if (hw_lease_clock_take_over(&c) != NULL) {
                close_clock(&c);
                return life;
            }
            if (t % 500 == 0 && hw_lease_clock_is_writable(&c, e, &left_s)) {
                e->written_s = left_s;
            }
        }
        if (is_handed_on && hw_lease_clock_is_handed_on(&c, e, &left_s)) {
            e->written_s = left_s;
        }
        written_s = e->written_s;
        close_clock(&c);
    }
    return UINT64_MAX;
}

static void changes_of_the_hot_node_neither_shorten_nor_endlessly_renew(void)
{
    static const uint64_t tenures_ms[] = {1800, 2000, 3000, 5000, 7700, 20000};
    static const int64_t ttls_s[] = {2, 5, 10, 60, 600, 3600};
    for (size_t i = 0; i < 6; i++) {
        for (size_t k = 0; k < 6; k++) {
            uint64_t whole_ms = (uint64_t)ttls_s[k] * 1000;
            uint64_t killed_ms = life_ms(ttls_s[k], tenures_ms[i], false);
            uint64_t handed_ms = life_ms(ttls_s[k], tenures_ms[i], true);
            uint64_t third_ms = whole_ms / 3 < HW_LEASE_WRITE_AFTER_MS_MAX ? whole_ms / 3 : HW_LEASE_WRITE_AFTER_MS_MAX;
            CHECK(killed_ms >= whole_ms);
            CHECK(handed_ms >= whole_ms);
            CHECK(killed_ms <= third_ms + 3 * whole_ms + 1000 + GRACE_MS);
            CHECK(handed_ms <= 2 * whole_ms + 1000 + GRACE_MS);
        }
    }
}

static void a_renewed_one_is_written_back_to_full(void)
{
    struct hw_lease_clock c;
    struct hw_lease_entry *e;
    int64_t left_s = -1;
    open_clock(&c);
    e = hw_lease_clock_adopt(&c, 1, 60, 20);
    CHECK(!hw_lease_clock_is_writable(&c, e, &left_s)); /* the grace alone is no reason */
    hw_lease_clock_renew(&c, e);
    CHECK(hw_lease_clock_is_writable(&c, e, &left_s));
    CHECK_EQ(left_s, 0);
    close_clock(&c);
}

static void the_walk_sees_each_once_a_round_whatever_is_removed(void)
{
    struct hw_lease_clock c;
    struct hw_lease_entry *e;
    size_t seen = 0;
    open_clock(&c);
    for (int i = 1; i <= 10; i++) {
        hw_lease_clock_add(&c, i, 10);
    }
    CHECK(hw_lease_clock_walk(&c) == NULL);
    while ((e = hw_lease_clock_walk(&c)) != NULL) {
        seen++;
        if (seen == 3) {
            hw_lease_clock_remove(&c, hw_lease_clock_find(&c, 4)); /* the next one */
            hw_lease_clock_remove(&c, e);
        }
    }
    CHECK_EQ(seen, 9);
    hw_lease_clock_drop(&c);
    CHECK(hw_lease_clock_walk(&c) == NULL);
    close_clock(&c);
}

static void dropping_is_at_once_and_memory_goes_in_slices(void)
{
    struct hw_lease_clock c;
    unsigned steps = 0;
    open_clock(&c);
    for (int i = 1; i <= 1000; i++) {
        hw_lease_clock_add(&c, i, 10);
    }
    hw_lease_clock_drop(&c);
    CHECK_EQ(c.count, 0);
    CHECK(hw_lease_clock_find(&c, 1) == NULL);
    CHECK(hw_lease_clock_add(&c, 1, 10) != NULL); /* hot again before the old ones are gone */
    for (; hw_lease_clock_free_step(&c, 300); steps++) {
    }
    CHECK_EQ(steps, 3);
    CHECK(hw_lease_clock_find(&c, 1) != NULL);
    close_clock(&c);
}

/* Against a plain array: which leases are there, and which end when. */
#define MODEL_LEASES 64
static void any_order_of_events_is_as_in_a_plain_array(void)
{
    struct hw_lease_clock c;
    uint64_t ends[MODEL_LEASES] = {0}; /* 0: not there */
    struct hw_rng rng;
    hw_rng_seed(&rng, 4711);
    open_clock(&c);
    for (int round = 0; round < 20000; round++) {
        int64_t id = (int64_t)hw_rng_below(&rng, MODEL_LEASES);
        struct hw_lease_entry *e = hw_lease_clock_find(&c, id);
        CHECK_EQ(e != NULL, ends[id] != 0);
        switch (hw_rng_below(&rng, 4)) {
        case 0:
            if (e == NULL) {
                int64_t ttl_s = 1 + (int64_t)hw_rng_below(&rng, 30);
                REQUIRE(hw_lease_clock_add(&c, id, ttl_s) != NULL);
                ends[id] = c.now_ms + (uint64_t)ttl_s * 1000;
            }
            break;
        case 1:
            if (e != NULL) {
                hw_lease_clock_renew(&c, e);
                ends[id] = c.now_ms + (uint64_t)e->ttl_s * 1000;
            }
            break;
        case 2:
            if (e != NULL && hw_rng_is_chance(&rng, 20)) {
                hw_lease_clock_remove(&c, e);
                ends[id] = 0;
            }
            break;
        default:
            pass(&c, hw_rng_below(&rng, 1000));
            while ((e = hw_lease_clock_take_over(&c)) != NULL) {
                CHECK(ends[e->id] != 0 && ends[e->id] <= c.now_ms);
                ends[e->id] = 0;
                hw_lease_clock_remove(&c, e);
            }
            for (int i = 0; i < MODEL_LEASES; i++) {
                CHECK(ends[i] == 0 || ends[i] > c.now_ms);
            }
            break;
        }
    }
    close_clock(&c);
}

HW_SUITE(replica_lease_clock, HW_CASE(a_stall_counts_half_a_second_however_long_it_was),
         HW_CASE(leases_end_in_order_and_not_early), HW_CASE(renewing_gives_the_whole_time_again),
         HW_CASE(one_that_could_not_be_ended_comes_again_and_may_be_renewed),
         HW_CASE(a_new_hot_node_gives_what_was_written_and_an_election),
         HW_CASE(what_is_left_is_written_after_a_third_or_a_minute), HW_CASE(a_renewed_one_is_written_back_to_full),
         HW_CASE(changes_of_the_hot_node_neither_shorten_nor_endlessly_renew),
         HW_CASE(the_walk_sees_each_once_a_round_whatever_is_removed),
         HW_CASE(dropping_is_at_once_and_memory_goes_in_slices), HW_CASE(any_order_of_events_is_as_in_a_plain_array))
