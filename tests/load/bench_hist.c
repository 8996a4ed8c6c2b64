#include "tests/load/bench_hist.h"

#define STEPS (1u << BENCH_HIST_STEP_BITS)

static unsigned bucket_of(uint64_t ns)
{
    unsigned shift;
    if (ns < STEPS) {
        return (unsigned)ns;
    }
    if (ns >> BENCH_HIST_VALUE_BITS != 0) {
        return BENCH_HIST_BUCKETS - 1;
    }
    shift = 63u - (unsigned)__builtin_clzll(ns) - BENCH_HIST_STEP_BITS;
    return ((shift + 1) << BENCH_HIST_STEP_BITS) + (unsigned)(ns >> shift) - STEPS;
}

/* The middle of a bucket: half a step is the most that it can be off. */
static uint64_t value_of(unsigned bucket)
{
    unsigned shift;
    if (bucket < STEPS) {
        return bucket;
    }
    shift = (bucket >> BENCH_HIST_STEP_BITS) - 1;
    return ((uint64_t)(STEPS + bucket % STEPS) << shift) + ((1ull << shift) >> 1);
}

void bench_hist_add(struct bench_hist *h, uint64_t ns)
{
    h->buckets[bucket_of(ns)]++;
    h->count++;
    h->sum_ns += ns;
    if (ns > h->max_ns) {
        h->max_ns = ns;
    }
}

uint64_t bench_hist_quantile_ns(const struct bench_hist *h, double q)
{
    uint64_t rank = (uint64_t)(q * (double)h->count);
    uint64_t seen = 0;
    if ((double)rank < q * (double)h->count) {
        rank++;
    }
    for (unsigned i = 0; i < BENCH_HIST_BUCKETS && h->count > 0; i++) {
        seen += h->buckets[i];
        if (seen >= rank && seen > 0) {
            uint64_t v = value_of(i);
            return v < h->max_ns ? v : h->max_ns;
        }
    }
    return h->max_ns;
}
