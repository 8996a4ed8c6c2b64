/* Checksums that always fit, so that a fuzzer gets past them: xxhash's functions, but for reading what is hashed, give
 * one number. (That a wrong checksum is refused is for the unit tests.) Defines functions: exactly one file of a
 * program includes it. Whoever makes first inputs for such a fuzzer includes it, too.
 */
#ifndef HW_FUZZ_HASH_SEAM_H
#define HW_FUZZ_HASH_SEAM_H

#include <stdint.h>
#include <xxhash.h>

#define SEAM_HASH 0x3132333435363738ull

static inline XXH64_hash_t seam_hash(const void *data, size_t len)
{
    const uint8_t *p = data;
    volatile uint8_t sink = 0;
    for (size_t i = 0; i < len; i++) {
        sink = (uint8_t)(sink + p[i]); /* the sanitizer sees a read past the end */
    }
    return SEAM_HASH;
}

XXH64_hash_t XXH3_64bits(const void *data, size_t len)
{
    return seam_hash(data, len);
}

XXH64_hash_t XXH3_64bits_withSeed(const void *data, size_t len, XXH64_hash_t seed)
{
    (void)seed;
    return seam_hash(data, len);
}

XXH64_hash_t XXH64(const void *data, size_t len, XXH64_hash_t seed)
{
    (void)seed;
    return seam_hash(data, len);
}

XXH64_hash_t XXH3_64bits_digest(const XXH3_state_t *state)
{
    (void)state;
    return SEAM_HASH;
}

#endif
