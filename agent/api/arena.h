/* Private to agent/api: memory for one unpacked request.
 *
 * A bump allocator behind protobuf-c's interface: unpacking allocates many small pieces and frees them all at once.
 * hw_arena_reset forgets everything handed out; the first block stays, so that a usual request costs no malloc. One
 * arena serves all requests, one after another: what outlives the handler is copied elsewhere.
 *
 * Bounded: beyond the limit given to reset an allocation fails and `is_exhausted` says why the unpacking failed. Memory
 * is aligned for any type. Loop thread only.
 */
#ifndef HW_API_ARENA_H
#define HW_API_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

struct hw_arena_block;

struct hw_arena {
    struct hw_arena_block *blocks; /* the newest first; the oldest is kept by reset */
    size_t bytes;                  /* handed out since the reset, with alignment */
    size_t bytes_max;
    bool is_exhausted;
    ProtobufCAllocator allocator;
};

void hw_arena_init(struct hw_arena *a);
void hw_arena_close(struct hw_arena *a);
void hw_arena_reset(struct hw_arena *a, size_t bytes_max);
/* NULL above the limit or out of memory. Not cleared. Zero bytes give a pointer too. */
void *hw_arena_alloc(struct hw_arena *a, size_t bytes);

#endif
