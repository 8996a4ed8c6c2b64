#include <string.h>
#include <time.h>

#include "agent/base/clock.h"
#include "tests/unit/hw_test.h"

static void rfc3339_writes_utc_with_milliseconds(void)
{
    static const struct {
        uint64_t wall_ms;
        const char *text;
    } rows[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1, "1970-01-01T00:00:00.001Z"},
        {999, "1970-01-01T00:00:00.999Z"},
        {951782399999, "2000-02-28T23:59:59.999Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"}, /* a leap year, though divisible by 100 */
        {1000000000010, "2001-09-09T01:46:40.010Z"},
        {1769903999123, "2026-01-31T23:59:59.123Z"},
        {2147483648000, "2038-01-19T03:14:08.000Z"}, /* beyond 32 bits */
        {4107542400000, "2100-03-01T00:00:00.000Z"}, /* no leap year */
        {253402300799999, "9999-12-31T23:59:59.999Z"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char buf[HW_RFC3339_SIZE];
        CHECK(hw_rfc3339(rows[i].wall_ms, buf) == buf);
        CHECK_STR(buf, rows[i].text);
    }
}

static void monotonic_clocks_agree_and_never_go_back(void)
{
    uint64_t before = hw_mono_ns();
    for (int i = 0; i < 1000; i++) {
        uint64_t ns = hw_mono_ns();
        uint64_t us = hw_mono_us();
        uint64_t ms = hw_mono_ms();
        CHECK(ns >= before);
        CHECK(us >= ns / 1000);
        CHECK(ms >= us / 1000);
        CHECK(hw_mono_ns() / 1000000 >= ms);
        before = ns;
    }
}

static void wall_time_is_the_systems(void)
{
    uint64_t ms = hw_wall_ms();
    time_t now = time(NULL);
    CHECK(ms / 1000 + 5 >= (uint64_t)now && ms / 1000 <= (uint64_t)now + 5);
}

HW_SUITE(base_clock, HW_CASE(rfc3339_writes_utc_with_milliseconds), HW_CASE(monotonic_clocks_agree_and_never_go_back),
         HW_CASE(wall_time_is_the_systems))
