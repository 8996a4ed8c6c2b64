#include "storage/hot/index.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/err.h"

/* What malloc adds to a block, on average. */
#define MALLOC_OVERHEAD 12

static int compare_keys(const struct hw_index_key *a, const struct hw_index_key *b)
{
    uint32_t n = a->len < b->len ? a->len : b->len;
    int c = memcmp(a->data, b->data, n);
    if (c != 0) {
        return c;
    }
    return a->len < b->len ? -1 : a->len > b->len;
}

RB_GENERATE_INTERNAL(hw_index_tree, hw_index_key, link, compare_keys, __attribute__((unused)) static)

struct hw_span hw_span_of(struct hw_slice key, struct hw_slice range_end)
{
    struct hw_span span = {.key = key, .end = range_end};
    span.is_point = range_end.len == 0;
    span.is_open = range_end.len == 1 && range_end.data[0] == 0;
    return span;
}

void hw_index_init(struct hw_index *ix)
{
    memset(ix, 0, sizeof *ix);
    RB_INIT(&ix->tree);
}

struct hw_key_name *hw_index_name(const struct hw_index_key *k)
{
    return (struct hw_key_name *)(uintptr_t)(k->data - offsetof(struct hw_key_name, data));
}

size_t hw_version_bytes(const struct hw_version *v)
{
    return sizeof *v + v->value_len + MALLOC_OVERHEAD + sizeof v;
}

static size_t key_bytes(const struct hw_index_key *k)
{
    return sizeof *k + sizeof(struct hw_key_name) + k->len + 2 * MALLOC_OVERHEAD;
}

/* ---- finding ---- */

/* tree.h takes heads that are not const, also where it only reads. */
static struct hw_index_tree *tree_of(const struct hw_index *ix)
{
    return (struct hw_index_tree *)(uintptr_t)&ix->tree;
}

struct hw_index_key *hw_index_first(const struct hw_index *ix)
{
    return RB_MIN(hw_index_tree, tree_of(ix));
}

struct hw_index_key *hw_index_next(struct hw_index_key *k)
{
    return RB_NEXT(hw_index_tree, NULL, k);
}

/* The way down, by hand and not by RB_FIND: in a large tree nearly every node is a cache miss, and so is every key.
 * Asking for both children before the key is looked at overlaps the two, and a new key needs one descent instead of
 * two. Measured at a million keys: new keys go in twice as fast, writes of old ones a third faster.
 * `above` is the last node on the way whose key is higher. */
struct hw_index_key *hw_index_seek(const struct hw_index *ix, struct hw_slice key, struct hw_index_place *place)
{
    struct hw_index_key *k = RB_ROOT(&ix->tree);
    place->parent = NULL;
    place->above = NULL;
    while (k != NULL) {
        struct hw_index_key *left = RB_LEFT(k, link);
        struct hw_index_key *right = RB_RIGHT(k, link);
        int order;
        __builtin_prefetch(left);
        __builtin_prefetch(right);
        order = hw_slice_cmp(key, hw_index_slice(k));
        if (order == 0) {
            return k;
        }
        place->parent = k;
        if (order < 0) {
            place->above = k;
            k = left;
        } else {
            k = right;
        }
    }
    return NULL;
}

struct hw_index_key *hw_index_find(const struct hw_index *ix, struct hw_slice key)
{
    struct hw_index_place place;
    return hw_index_seek(ix, key, &place);
}

struct hw_index_key *hw_index_at_or_above(const struct hw_index *ix, struct hw_slice key)
{
    struct hw_index_place place;
    struct hw_index_key *k = hw_index_seek(ix, key, &place);
    return k != NULL ? k : place.above;
}

struct hw_index_key *hw_index_above(const struct hw_index *ix, struct hw_slice key)
{
    struct hw_index_place place;
    struct hw_index_key *k = hw_index_seek(ix, key, &place);
    return k != NULL ? hw_index_next(k) : place.above;
}

void hw_index_bounds(const struct hw_index *ix, const struct hw_span *span, struct hw_index_key **first,
                     struct hw_index_key **stop)
{
    *first = NULL;
    *stop = NULL;
    if (span->is_point) {
        *first = hw_index_find(ix, span->key);
        *stop = *first == NULL ? NULL : hw_index_next(*first);
    } else if (span->is_open) {
        *first = hw_index_at_or_above(ix, span->key);
    } else if (hw_slice_cmp(span->key, span->end) < 0) {
        *first = hw_index_at_or_above(ix, span->key);
        *stop = hw_index_at_or_above(ix, span->end);
    }
}

/* ---- keys ---- */

static struct hw_index_key *new_key(struct hw_index *ix, struct hw_key_name *name)
{
    struct hw_index_key *k = malloc(sizeof *k);
    if (k == NULL) {
        return NULL;
    }
    memset(k, 0, sizeof *k);
    k->data = hw_key_name_ref(name)->data;
    k->len = name->len;
    ix->key_count++;
    ix->bytes += key_bytes(k);
    return k;
}

struct hw_index_key *hw_index_add(struct hw_index *ix, const struct hw_index_place *place, struct hw_key_name *name)
{
    struct hw_index_key *parent = place->parent;
    struct hw_index_key *k = new_key(ix, name);
    if (k == NULL) {
        return NULL;
    }
    /* What RB_INSERT does once it has found the place. */
    RB_SET(k, parent, link);
    if (parent == NULL) {
        hw_assert(RB_EMPTY(&ix->tree));
        RB_ROOT(&ix->tree) = k;
    } else if (parent == place->above) {
        hw_assert(RB_LEFT(parent, link) == NULL);
        RB_LEFT(parent, link) = k;
    } else {
        hw_assert(RB_RIGHT(parent, link) == NULL);
        RB_RIGHT(parent, link) = k;
    }
    hw_index_tree_RB_INSERT_COLOR(&ix->tree, k);
    return k;
}

void hw_index_remove(struct hw_index *ix, struct hw_index_key *k)
{
    hw_assert(k->count == 0);
    RB_REMOVE(hw_index_tree, &ix->tree, k);
    ix->key_count--;
    ix->bytes -= key_bytes(k);
    hw_key_name_unref(hw_index_name(k));
    free(k);
}

/* ---- versions ---- */

static void count_version(struct hw_index *ix, const struct hw_version *v, bool was_live, bool is_live)
{
    ix->version_count++;
    ix->bytes += hw_version_bytes(v);
    ix->live_count += is_live;
    ix->live_count -= was_live;
}

static void uncount_version(struct hw_index *ix, const struct hw_version *v)
{
    ix->version_count--;
    ix->bytes -= hw_version_bytes(v);
}

/* Room for one more at the end of a key with at least one version. */
static int reserve(struct hw_index_key *k)
{
    struct hw_version_array *a = k->count > 1 ? k->many : NULL;
    struct hw_version_array *bigger;
    uint64_t cap;
    if (a != NULL && a->start + k->count < a->cap) {
        return 0;
    }
    if (a != NULL && a->start > k->count) {
        memmove(a->at, a->at + a->start, k->count * sizeof a->at[0]);
        a->start = 0;
        return 0;
    }
    cap = a == NULL ? 4 : (uint64_t)a->cap * 2;
    if (cap > UINT32_MAX) {
        return HW_ERR_NOMEM;
    }
    bigger = realloc(a, sizeof *bigger + cap * sizeof bigger->at[0]);
    if (bigger == NULL) {
        return HW_ERR_NOMEM;
    }
    if (a == NULL) {
        bigger->start = 0;
        bigger->at[0] = k->one;
    }
    bigger->cap = (uint32_t)cap;
    k->many = bigger;
    return 0;
}

int hw_index_link(struct hw_index *ix, struct hw_index_key *k, struct hw_version *v)
{
    bool was_live = hw_index_live(k) != NULL;
    if (k->count == 0) {
        k->one = v;
    } else {
        if (reserve(k) != 0) {
            return HW_ERR_NOMEM;
        }
        k->many->at[k->many->start + k->count] = v;
    }
    hw_version_ref(v);
    k->count++;
    count_version(ix, v, was_live, !v->is_tombstone);
    return 0;
}

/* An array of one goes back into the node. */
static void shrink(struct hw_index_key *k, uint32_t count_before)
{
    struct hw_version_array *a = k->many;
    if (count_before < 2 || k->count > 1) {
        return;
    }
    k->one = k->count == 1 ? a->at[a->start] : NULL;
    free(a);
}

void hw_index_unlink_newest(struct hw_index *ix, struct hw_index_key *k)
{
    struct hw_version *v = hw_index_newest(k);
    bool was_live = !v->is_tombstone;
    uncount_version(ix, v);
    k->count--;
    shrink(k, k->count + 1);
    ix->live_count += hw_index_live(k) != NULL;
    ix->live_count -= was_live;
    hw_version_unref(v);
}

void hw_index_drop_oldest(struct hw_index *ix, struct hw_index_key *k, uint32_t n)
{
    uint32_t before = k->count;
    hw_assert(n <= before);
    if (n == before && hw_index_live(k) != NULL) {
        ix->live_count--;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct hw_version *v = hw_index_version(k, i);
        uncount_version(ix, v);
        hw_version_unref(v);
    }
    if (before > 1) {
        k->many->start += n;
    }
    k->count -= n;
    shrink(k, before);
}

uint32_t hw_index_count_as_of(const struct hw_index_key *k, hw_rev rev)
{
    uint32_t lo = 0;
    uint32_t hi = k->count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (hw_index_version(k, mid)->mod_main <= rev) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

struct hw_version *hw_index_as_of(const struct hw_index_key *k, hw_rev rev)
{
    struct hw_version *v = hw_index_newest(k);
    if (v != NULL && v->mod_main > rev) {
        uint32_t n = hw_index_count_as_of(k, rev);
        v = n == 0 ? NULL : hw_index_version(k, n - 1);
    }
    return v == NULL || v->is_tombstone ? NULL : v;
}
