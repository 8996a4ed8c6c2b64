#include "agent/base/rng.h"

#include <sys/random.h>

#include "agent/base/assert.h"

void hw_rng_seed(struct hw_rng *r, uint64_t seed)
{
    r->state = seed;
}

uint64_t hw_rng_next(struct hw_rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t hw_rng_below(struct hw_rng *r, uint64_t bound)
{
    hw_assert(bound > 0);
    return hw_rng_next(r) % bound;
}

_Bool hw_rng_is_chance(struct hw_rng *r, unsigned percent)
{
    return hw_rng_below(r, 100) < percent;
}

uint64_t hw_random_u64(void)
{
    uint64_t v = 0;
    while (v == 0) {
        ssize_t n = getrandom(&v, sizeof v, 0);
        hw_assert(n == (ssize_t)sizeof v);
    }
    return v;
}
