#include "agent/api/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)64 * 1024)
#define ALIGNMENT ((size_t)16)

struct hw_arena_block {
    struct hw_arena_block *next;
    size_t used;
    size_t size;
    _Alignas(16) unsigned char data[];
};

static struct hw_arena_block *block_new(size_t size)
{
    struct hw_arena_block *b = malloc(sizeof *b + size);
    if (b != NULL) {
        b->next = NULL;
        b->used = 0;
        b->size = size;
    }
    return b;
}

void *hw_arena_alloc(struct hw_arena *a, size_t bytes)
{
    size_t rounded = (bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
    struct hw_arena_block *b = a->blocks;
    if (rounded == 0) {
        rounded = ALIGNMENT;
    }
    if (bytes > a->bytes_max || rounded > a->bytes_max - a->bytes) {
        a->is_exhausted = true;
        return NULL;
    }
    if (b == NULL || b->size - b->used < rounded) {
        b = block_new(rounded > BLOCK_BYTES ? rounded : BLOCK_BYTES);
        if (b == NULL) {
            a->is_exhausted = true;
            return NULL;
        }
        b->next = a->blocks;
        a->blocks = b;
    }
    a->bytes += rounded;
    b->used += rounded;
    return b->data + b->used - rounded;
}

static void *on_alloc(void *allocator_data, size_t size)
{
    return hw_arena_alloc(allocator_data, size);
}

/* Everything goes at once, by reset. */
static void on_free(void *allocator_data, void *pointer)
{
    (void)allocator_data;
    (void)pointer;
}

void hw_arena_init(struct hw_arena *a)
{
    memset(a, 0, sizeof *a);
    a->allocator = (ProtobufCAllocator){.alloc = on_alloc, .free = on_free, .allocator_data = a};
}

void hw_arena_reset(struct hw_arena *a, size_t bytes_max)
{
    while (a->blocks != NULL && (a->blocks->next != NULL || a->blocks->size > BLOCK_BYTES)) {
        struct hw_arena_block *next = a->blocks->next;
        free(a->blocks);
        a->blocks = next;
    }
    if (a->blocks != NULL) {
        a->blocks->used = 0;
    }
    a->bytes = 0;
    a->bytes_max = bytes_max;
    a->is_exhausted = false;
}

void hw_arena_close(struct hw_arena *a)
{
    while (a->blocks != NULL) {
        struct hw_arena_block *next = a->blocks->next;
        free(a->blocks);
        a->blocks = next;
    }
}
