/* Random numbers: a seeded generator for everything that a test must replay (SplitMix64, Steele et al. 2014), and bytes
 * from the kernel for identities. Not thread-safe: one generator, one owner.
 */
#ifndef HW_BASE_RNG_H
#define HW_BASE_RNG_H

#include <stdint.h>

struct hw_rng {
    uint64_t state;
};

void hw_rng_seed(struct hw_rng *r, uint64_t seed);
uint64_t hw_rng_next(struct hw_rng *r);
/* Uniform in [0, bound); bound > 0. */
uint64_t hw_rng_below(struct hw_rng *r, uint64_t bound);
/* True in `percent` of 100 calls. */
_Bool hw_rng_is_chance(struct hw_rng *r, unsigned percent);

/* 64 bits from the kernel (getrandom). Never 0. Aborts if the kernel has none, which does not happen on Linux >= 3.17.
 */
uint64_t hw_random_u64(void);

#endif
