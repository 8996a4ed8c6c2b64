/* Latencies in a log-linear histogram: 128 steps per power of two, so a quantile is off by less than 1 % whatever its
 * size. Fixed memory, no allocation. Values in nanoseconds; what is longer than 2^40 ns (18 min) counts as that. The
 * maximum is exact. A zeroed struct is empty. One thread.
 */
#ifndef HW_TESTS_LOAD_BENCH_HIST_H
#define HW_TESTS_LOAD_BENCH_HIST_H

#include <stdint.h>

#define BENCH_HIST_STEP_BITS 7
#define BENCH_HIST_VALUE_BITS 40
#define BENCH_HIST_BUCKETS ((BENCH_HIST_VALUE_BITS - BENCH_HIST_STEP_BITS + 1) << BENCH_HIST_STEP_BITS)

struct bench_hist {
    uint64_t buckets[BENCH_HIST_BUCKETS];
    uint64_t count;
    uint64_t max_ns;
    uint64_t sum_ns;
};

void bench_hist_add(struct bench_hist *h, uint64_t ns);
/* q in (0, 1]; 0 when empty. */
uint64_t bench_hist_quantile_ns(const struct bench_hist *h, double q);

#endif
