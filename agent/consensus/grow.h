/* Private to agent/consensus: an array that grows. */
#ifndef HW_CONSENSUS_GROW_H
#define HW_CONSENSUS_GROW_H

#include <stddef.h>
#include <stdlib.h>

/* Room for `want` elements: the array, moved perhaps, or NULL with the old one as it was. */
static inline void *array_grow(void *array, size_t *cap, size_t want, size_t size)
{
    size_t n = *cap == 0 ? 16 : *cap;
    void *p;
    if (want <= *cap) {
        return array;
    }
    while (n < want) {
        n *= 4; /* what grows here is gone after the turn */
    }
    p = realloc(array, n * size);
    if (p != NULL) {
        *cap = n;
    }
    return p;
}

#endif
