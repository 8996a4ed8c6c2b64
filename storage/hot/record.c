#include "storage/hot/record.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"

struct hw_key_name *hw_key_name_new(struct hw_slice key)
{
    struct hw_key_name *k;
    if (key.len > UINT32_MAX) {
        return NULL;
    }
    k = malloc(sizeof *k + key.len);
    if (k == NULL) {
        return NULL;
    }
    atomic_init(&k->refs, 1);
    k->len = (uint32_t)key.len;
    if (key.len > 0) {
        memcpy(k->data, key.data, key.len);
    }
    return k;
}

struct hw_key_name *hw_key_name_ref(struct hw_key_name *k)
{
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

/* Release orders this thread's last reads before the free, acquire makes the freeing thread see those of the others. */
static bool is_last_unref(atomic_uint *refs)
{
    unsigned before = atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel);
    hw_assert(before > 0);
    return before == 1;
}

void hw_key_name_unref(struct hw_key_name *k)
{
    if (is_last_unref(&k->refs)) {
        free(k);
    }
}

struct hw_version *hw_version_new(struct hw_key_name *key, struct hw_slice value)
{
    struct hw_version *v;
    if (value.len > UINT32_MAX) {
        return NULL;
    }
    v = malloc(sizeof *v + value.len);
    if (v == NULL) {
        return NULL;
    }
    memset(v, 0, sizeof *v);
    atomic_init(&v->refs, 1);
    v->key = hw_key_name_ref(key);
    v->value_len = (uint32_t)value.len;
    if (value.len > 0) {
        memcpy(v->value, value.data, value.len);
    }
    return v;
}

struct hw_version *hw_version_ref(struct hw_version *v)
{
    atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    return v;
}

void hw_version_unref(struct hw_version *v)
{
    if (is_last_unref(&v->refs)) {
        hw_key_name_unref(v->key);
        free(v);
    }
}

uint64_t hw_version_hash(const struct hw_version *v)
{
    /* The lengths are among the numbers, so that no bytes can move between key and value unnoticed. */
    uint64_t numbers[] = {
        htole64((uint64_t)v->mod_main), htole64(v->mod_sub),         htole64((uint64_t)v->create_main),
        htole64((uint64_t)v->version),  htole64((uint64_t)v->lease), htole64(v->is_tombstone),
        htole64(v->key->len),           htole64(v->value_len),
    };
    uint64_t hash = XXH3_64bits(numbers, sizeof numbers);
    hash = XXH3_64bits_withSeed(v->key->data, v->key->len, hash);
    return XXH3_64bits_withSeed(v->value, v->value_len, hash);
}
