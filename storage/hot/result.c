/* The memory of a result: chunks that are freed together. What it names are versions, which it holds references on. */
#include <stdlib.h>
#include <string.h>

#include "storage/hot/state.h"

/* One put with its previous version fits. */
#define CHUNK_BYTES_MIN 496

struct chunk {
    struct chunk *next;
    size_t used;
    size_t size;
    max_align_t data[];
};

void hw_result_init(struct hw_result *r)
{
    memset(r, 0, sizeof *r);
}

void *hw_result_alloc(struct hw_result *r, size_t count, size_t size)
{
    struct chunk *c = r->arena;
    size_t bytes;
    void *at;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2) {
        return NULL;
    }
    bytes = (bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    if (c == NULL || c->size - c->used < bytes) {
        size_t chunk_bytes = bytes > CHUNK_BYTES_MIN ? bytes : CHUNK_BYTES_MIN;
        c = malloc(sizeof *c + chunk_bytes);
        if (c == NULL) {
            return NULL;
        }
        c->next = r->arena;
        c->used = 0;
        c->size = chunk_bytes;
        r->arena = c;
    }
    at = (char *)c->data + c->used;
    c->used += bytes;
    return memset(at, 0, bytes);
}

static void unref_versions(struct hw_txn_result *txn)
{
    for (size_t i = 0; i < txn->op_count; i++) {
        struct hw_op_result *op = &txn->ops[i];
        for (size_t j = 0; j < op->range.kv_count; j++) {
            hw_version_unref(op->range.kvs[j]);
        }
        if (op->txn != NULL) {
            unref_versions(op->txn);
        }
    }
}

void hw_result_free(struct hw_result *r)
{
    struct chunk *c = r->arena;
    unref_versions(&r->txn);
    if (r->pin != NULL) {
        hw_pin_remove(r->pin->hot, &r->pin->pin);
    }
    while (c != NULL) {
        struct chunk *next = c->next;
        free(c);
        c = next;
    }
    hw_result_init(r);
}
