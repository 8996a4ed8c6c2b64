#include <stdbool.h>

#include "agent/base/rng.h"
#include "tests/unit/hw_test.h"

/* The first outputs of SplitMix64 from seed 0, as published with the algorithm: seeds in old reports must go on giving
 * the same runs. */
static void a_seed_gives_the_published_sequence(void)
{
    static const uint64_t expected[] = {0xe220a8397b1dcdafu, 0x6e789e6aa1b965f4u, 0x06c45d188009454fu,
                                        0xf88bb8a8724c81ecu};
    struct hw_rng r;
    hw_rng_seed(&r, 0);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        CHECK_EQ(hw_rng_next(&r), expected[i]);
    }
}

static void equal_seeds_give_equal_sequences_and_others_do_not(void)
{
    struct hw_rng a;
    struct hw_rng b;
    struct hw_rng c;
    unsigned same = 0;
    hw_rng_seed(&a, 42);
    hw_rng_seed(&b, 42);
    hw_rng_seed(&c, 43);
    for (int i = 0; i < 100; i++) {
        uint64_t v = hw_rng_next(&a);
        CHECK_EQ(v, hw_rng_next(&b));
        same += v == hw_rng_next(&c);
    }
    CHECK_EQ(same, 0);
}

static void numbers_stay_below_their_bound_and_reach_all_of_it(void)
{
    static const uint64_t bounds[] = {1, 2, 3, 10, 63};
    struct hw_rng r;
    hw_rng_seed(&r, 1);
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        uint64_t seen = 0;
        for (int k = 0; k < 2000; k++) {
            uint64_t v = hw_rng_below(&r, bounds[i]);
            REQUIRE(v < bounds[i]);
            seen |= (uint64_t)1 << v;
        }
        CHECK_EQ(seen, ((uint64_t)1 << bounds[i]) - 1);
    }
    for (int k = 0; k < 100; k++) {
        CHECK(hw_rng_below(&r, UINT64_MAX) < UINT64_MAX);
    }
}

static void chances_come_about_as_often_as_they_say(void)
{
    static const struct {
        unsigned percent, min, max; /* of 10000 */
    } rows[] = {{0, 0, 0}, {1, 50, 160}, {30, 2800, 3200}, {50, 4800, 5200}, {100, 10000, 10000}};
    struct hw_rng r;
    hw_rng_seed(&r, 9);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned hits = 0;
        for (int k = 0; k < 10000; k++) {
            hits += hw_rng_is_chance(&r, rows[i].percent);
        }
        CHECK(hits >= rows[i].min && hits <= rows[i].max);
    }
}

static void identities_are_never_zero_and_never_twice(void)
{
    uint64_t seen[100];
    for (size_t i = 0; i < 100; i++) {
        seen[i] = hw_random_u64();
        CHECK(seen[i] != 0);
        for (size_t k = 0; k < i; k++) {
            CHECK(seen[k] != seen[i]);
        }
    }
}

HW_SUITE(base_rng, HW_CASE(a_seed_gives_the_published_sequence),
         HW_CASE(equal_seeds_give_equal_sequences_and_others_do_not),
         HW_CASE(numbers_stay_below_their_bound_and_reach_all_of_it), HW_CASE(chances_come_about_as_often_as_they_say),
         HW_CASE(identities_are_never_zero_and_never_twice))
