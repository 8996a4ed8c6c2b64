/* Two hashes. The fingerprint (hw_hot_hash) sums what happened and is kept up to date by apply. The hasher sums what
 * can be read, by walking the keys in steps.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "storage/hot/state.h"

#define NUMBERS_MAX 8
#define STEP_BYTES ((size_t)4 * 1024 * 1024)

uint64_t hw_hash_numbers(const uint64_t *numbers, size_t count)
{
    uint64_t raw[NUMBERS_MAX];
    hw_assert(count <= NUMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        raw[i] = htole64(numbers[i]);
    }
    return XXH3_64bits(raw, count * sizeof raw[0]);
}

uint64_t hw_hash_text(const char *text, uint64_t seed)
{
    return XXH3_64bits_withSeed(text, strlen(text), seed);
}

uint64_t hw_hot_hash(const struct hw_hot *h)
{
    return h->hash;
}

struct hw_hasher {
    struct hw_hot *hot;
    struct hw_pin pin;
    hw_rev revision;
    hw_rev compacted;
    uint64_t hash;
    struct hw_key_name *at; /* the key to go on with; NULL: the first */
    uint32_t at_done;       /* versions of that key that are in the sum already, counted from the newest in it */
    bool is_done;
    size_t step_bytes; /* of the values that this step has read */
};

int hw_hasher_start(struct hw_hot *h, hw_rev revision, struct hw_hasher **hasher)
{
    int rc = hw_hot_check_revision(h, revision);
    struct hw_hasher *s;
    *hasher = NULL;
    if (rc != 0) {
        return rc;
    }
    s = calloc(1, sizeof *s);
    if (s == NULL) {
        return HW_ERR_NOMEM;
    }
    s->hot = h;
    s->revision = revision > 0 ? revision : h->revision;
    s->compacted = h->compacted;
    hw_pin_add(h, &s->pin, s->compacted); /* what a later compaction makes unreachable is still in this sum */
    *hasher = s;
    return 0;
}

/* Adds at most `budget` versions of one key, from the newest back; returns how many, and in *finished whether that was
 * the last. New versions may be linked and unreachable ones dropped between steps: neither changes what is counted. */
static size_t add_key(struct hw_hasher *s, const struct hw_index_key *k, size_t budget, bool *finished)
{
    uint32_t from = hw_compact_unreachable(k, s->compacted);
    uint32_t to = hw_index_count_as_of(k, s->revision);
    size_t added = 0;
    to = to > s->at_done ? to - s->at_done : 0;
    while (to > from && added < budget && s->step_bytes < STEP_BYTES) {
        const struct hw_version *v = hw_index_version(k, --to);
        s->hash += hw_version_hash(v);
        s->step_bytes += v->value_len;
        added++;
    }
    s->at_done += (uint32_t)added;
    *finished = to <= from;
    return added;
}

int hw_hasher_step(struct hw_hasher *s, size_t budget)
{
    struct hw_index *ix = &s->hot->index;
    struct hw_index_key *k;
    if (s->is_done) {
        return 0;
    }
    k = s->at == NULL ? hw_index_first(ix) : hw_index_at_or_above(ix, hw_slice_of(s->at->data, s->at->len));
    if (s->at != NULL) {
        /* A pinned key is only removed when nothing of it counts; then its neighbour starts afresh. */
        if (k == NULL || !hw_slice_is_equal(hw_index_slice(k), hw_slice_of(s->at->data, s->at->len))) {
            s->at_done = 0;
        }
        hw_key_name_unref(s->at);
        s->at = NULL;
    }
    s->step_bytes = 0;
    while (k != NULL && budget > 0 && s->step_bytes < STEP_BYTES) {
        bool finished;
        size_t added = add_key(s, k, budget, &finished);
        budget -= added > 0 ? added : 1;
        if (finished) {
            s->at_done = 0;
            k = hw_index_next(k);
        }
    }
    if (k != NULL) {
        s->at = hw_key_name_ref(hw_index_name(k));
        return 1;
    }
    s->is_done = true;
    return 0;
}

uint64_t hw_hasher_hash(const struct hw_hasher *s)
{
    return s->hash;
}

hw_rev hw_hasher_revision(const struct hw_hasher *s)
{
    return s->revision;
}

hw_rev hw_hasher_compacted(const struct hw_hasher *s)
{
    return s->compacted;
}

void hw_hasher_close(struct hw_hasher *s)
{
    if (s == NULL) {
        return;
    }
    hw_pin_remove(s->hot, &s->pin);
    if (s->at != NULL) {
        hw_key_name_unref(s->at);
    }
    free(s);
}
