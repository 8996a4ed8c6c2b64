/* A lack of memory while a key is added must be an error, not uthash's exit; and clients choose the keys, so the hash
 * has a seed that they do not know. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((element)->is_overflown = true)
#define HASH_FUNCTION(key, len, out) ((out) = (unsigned)XXH3_64bits_withSeed(key, len, hash_seed()))

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/rng.h"

static uint64_t hash_seed(void)
{
    static uint64_t seed;
    if (seed == 0) {
        seed = hw_random_u64();
    }
    return seed;
}

struct hw_watch_span;
static void refresh_last(struct hw_watch_span *s);
#define RB_AUGMENT(s) refresh_last(s)

#include "agent/replica/watch.h"
#include "agent/replica/watch_index.h"

static int range_cmp(const struct hw_watch_span *a, const struct hw_watch_span *b)
{
    int c = hw_slice_cmp(a->key, b->key);
    if (c != 0) {
        return c;
    }
    return a->is_open || b->is_open ? (int)a->is_open - (int)b->is_open : hw_slice_cmp(a->end, b->end);
}

static bool ends_later(const struct hw_watch_span *a, const struct hw_watch_span *b)
{
    return !b->is_open && (a->is_open || hw_slice_cmp(a->end, b->end) > 0);
}

/* Up to the root: the tree's own code tells of the lowest node that changed, not of those above it. */
static void refresh_last(struct hw_watch_span *s)
{
    for (; s != NULL; s = RB_PARENT(s, link)) {
        struct hw_watch_span *children[] = {RB_LEFT(s, link), RB_RIGHT(s, link)};
        s->last = s;
        for (int i = 0; i < 2; i++) {
            if (children[i] != NULL && ends_later(children[i]->last, s->last)) {
                s->last = children[i]->last;
            }
        }
    }
}

RB_GENERATE_INTERNAL(hw_watch_tree, hw_watch_span, link, range_cmp, __attribute__((unused)) static)

void hw_watch_index_init(struct hw_watch_index *ix)
{
    ix->points = NULL;
    RB_INIT(&ix->ranges);
}

static bool is_open_end(struct hw_slice end)
{
    return end.len == 1 && end.data[0] == 0;
}

bool hw_watch_is_range_valid(struct hw_slice key, struct hw_slice range_end)
{
    return range_end.len == 0 || is_open_end(range_end) || hw_slice_cmp(key, range_end) < 0;
}

static struct hw_watch_span *span_new(struct hw_slice key, struct hw_slice end)
{
    struct hw_watch_span *s = calloc(1, sizeof *s + key.len + end.len);
    if (s == NULL) {
        return NULL;
    }
    LIST_INIT(&s->watchers);
    if (key.len > 0) {
        memcpy(s->bytes, key.data, key.len);
    }
    if (end.len > 0) {
        memcpy(s->bytes + key.len, end.data, end.len);
    }
    s->key = hw_slice_of(s->bytes, key.len);
    s->end = hw_slice_of(s->bytes + key.len, end.len);
    return s;
}

static struct hw_watch_span *get_point(struct hw_watch_index *ix, struct hw_slice key)
{
    struct hw_watch_span *s;
    HASH_FIND(hh, ix->points, key.data, key.len, s);
    if (s != NULL) {
        return s;
    }
    s = span_new(key, hw_slice_of(NULL, 0));
    if (s == NULL) {
        return NULL;
    }
    s->is_point = true;
    HASH_ADD_KEYPTR(hh, ix->points, s->key.data, s->key.len, s);
    if (s->is_overflown) {
        free(s);
        return NULL;
    }
    return s;
}

static struct hw_watch_span *get_range(struct hw_watch_index *ix, struct hw_slice key, struct hw_slice end)
{
    struct hw_watch_span like = {.key = key, .end = end, .is_open = is_open_end(end)};
    struct hw_watch_span *s = RB_FIND(hw_watch_tree, &ix->ranges, &like);
    if (s != NULL) {
        return s;
    }
    s = span_new(key, end);
    if (s == NULL) {
        return NULL;
    }
    s->is_open = like.is_open;
    s->last = s;
    RB_INSERT(hw_watch_tree, &ix->ranges, s);
    refresh_last(s);
    return s;
}

struct hw_watch_span *hw_watch_index_get(struct hw_watch_index *ix, struct hw_slice key, struct hw_slice range_end)
{
    return range_end.len == 0 ? get_point(ix, key) : get_range(ix, key, range_end);
}

void hw_watch_index_release(struct hw_watch_index *ix, struct hw_watch_span *s)
{
    if (!LIST_EMPTY(&s->watchers)) {
        return;
    }
    if (s->is_point) {
        HASH_DEL(ix->points, s);
    } else {
        RB_REMOVE(hw_watch_tree, &ix->ranges, s);
    }
    free(s);
}

bool hw_watch_span_has(const struct hw_watch_span *s, struct hw_slice key)
{
    if (s->is_point) {
        return hw_slice_is_equal(s->key, key);
    }
    return hw_slice_cmp(s->key, key) <= 0 && (s->is_open || hw_slice_cmp(key, s->end) < 0);
}

struct match {
    struct hw_slice key;
    void (*fn)(void *ctx, struct hw_watch_span *s);
    void *ctx;
};

/* As deep as the tree is high. */
static void match_ranges(struct hw_watch_span *s, const struct match *m)
{
    while (s != NULL && (s->last->is_open || hw_slice_cmp(m->key, s->last->end) < 0)) {
        match_ranges(RB_LEFT(s, link), m);
        if (hw_slice_cmp(s->key, m->key) > 0) {
            return;
        }
        if (s->is_open || hw_slice_cmp(m->key, s->end) < 0) {
            m->fn(m->ctx, s);
        }
        s = RB_RIGHT(s, link);
    }
}

void hw_watch_index_match(struct hw_watch_index *ix, struct hw_slice key,
                          void (*fn)(void *ctx, struct hw_watch_span *s), void *ctx)
{
    struct match m = {key, fn, ctx};
    struct hw_watch_span *s;
    HASH_FIND(hh, ix->points, key.data, key.len, s);
    if (s != NULL) {
        fn(ctx, s);
    }
    match_ranges(RB_ROOT(&ix->ranges), &m);
}
