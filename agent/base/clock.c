#include "agent/base/clock.h"

#include <stdio.h>
#include <time.h>

uint64_t hw_mono_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t hw_mono_us(void)
{
    return hw_mono_ns() / 1000u;
}

uint64_t hw_mono_ms(void)
{
    return hw_mono_ns() / 1000000u;
}

uint64_t hw_wall_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

const char *hw_rfc3339(uint64_t wall_ms, char buf[HW_RFC3339_SIZE])
{
    time_t s = (time_t)(wall_ms / 1000u);
    struct tm tm;
    size_t n;
    gmtime_r(&s, &tm);
    n = strftime(buf, HW_RFC3339_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(buf + n, HW_RFC3339_SIZE - n, ".%03uZ", (unsigned)(wall_ms % 1000u));
    return buf;
}
