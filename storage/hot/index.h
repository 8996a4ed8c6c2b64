/* Private to storage/hot: the ordered keys of the state and their versions.
 *
 * A red-black tree (libbsd) of keys; each key holds its versions from the oldest to the newest, tombstones included.
 * Most keys have one version, so a single one lives in the node and only a second allocates an array.
 *
 * The index holds one reference on every version in it and one on every key name. Pointers to keys stay valid until
 * hw_index_remove. HW_ERR_NOMEM (or NULL) changes nothing. One thread.
 */
#ifndef HW_HOT_INDEX_H
#define HW_HOT_INDEX_H

#include <bsd/sys/tree.h>
#include <stddef.h>

#include "storage/hot/record.h"

struct hw_version_array {
    uint32_t start; /* removed from the front; closed up once they are the larger half */
    uint32_t cap;
    struct hw_version *at[];
};

/* What a search reads (data, len and the first half of link) stands together, for the cache. */
struct hw_index_key {
    const uint8_t *data; /* of its hw_key_name: one hop less on the way down the tree */
    uint32_t len;
    uint32_t count;
    RB_ENTRY(hw_index_key) link;
    union {
        struct hw_version *one;        /* count <= 1 */
        struct hw_version_array *many; /* count > 1 */
    };
};

RB_HEAD(hw_index_tree, hw_index_key);

struct hw_index {
    struct hw_index_tree tree;
    size_t key_count;  /* nodes of the tree */
    size_t live_count; /* whose newest version is not a tombstone */
    size_t version_count;
    size_t bytes; /* estimate of the memory held */
};

/* What a request's key and range_end mean (etcd's rule): the one key, [key, end), or every key >= key. */
struct hw_span {
    struct hw_slice key;
    struct hw_slice end;
    bool is_point;
    bool is_open; /* no upper end */
};
struct hw_span hw_span_of(struct hw_slice key, struct hw_slice range_end);

void hw_index_init(struct hw_index *ix);

struct hw_index_key *hw_index_first(const struct hw_index *ix);
struct hw_index_key *hw_index_next(struct hw_index_key *k);
struct hw_index_key *hw_index_find(const struct hw_index *ix, struct hw_slice key);
struct hw_index_key *hw_index_at_or_above(const struct hw_index *ix, struct hw_slice key);
struct hw_index_key *hw_index_above(const struct hw_index *ix, struct hw_slice key);
/* The keys of a span are those from *first up to but not including *stop; either may be NULL. */
void hw_index_bounds(const struct hw_index *ix, const struct hw_span *span, struct hw_index_key **first,
                     struct hw_index_key **stop);

/* Where a key that is not there belongs: valid until the next change of the keys. A place with only `parent` set is the
 * one right of the highest key. */
struct hw_index_place {
    struct hw_index_key *parent; /* NULL: the tree is empty */
    struct hw_index_key *above;  /* the next higher key */
};
/* The key, or NULL and its place. */
struct hw_index_key *hw_index_seek(const struct hw_index *ix, struct hw_slice key, struct hw_index_place *place);
/* A key without versions, which the caller links next. NULL when out of memory. */
struct hw_index_key *hw_index_add(struct hw_index *ix, const struct hw_index_place *place, struct hw_key_name *name);
/* Only a key without versions. */
void hw_index_remove(struct hw_index *ix, struct hw_index_key *k);

/* Make v the newest version. The index takes a reference of its own. */
int hw_index_link(struct hw_index *ix, struct hw_index_key *k, struct hw_version *v);
/* Undo the last hw_index_link of this key. */
void hw_index_unlink_newest(struct hw_index *ix, struct hw_index_key *k);
/* Let go of the n oldest versions. */
void hw_index_drop_oldest(struct hw_index *ix, struct hw_index_key *k, uint32_t n);

/* How many versions have mod_main <= rev: they are the first ones. */
uint32_t hw_index_count_as_of(const struct hw_index_key *k, hw_rev rev);
/* What a reader at rev sees: NULL when the key does not exist then. */
struct hw_version *hw_index_as_of(const struct hw_index_key *k, hw_rev rev);

static inline struct hw_version *hw_index_version(const struct hw_index_key *k, uint32_t i)
{
    return k->count > 1 ? k->many->at[k->many->start + i] : k->one;
}

/* NULL for a key that has no version yet. */
static inline struct hw_version *hw_index_newest(const struct hw_index_key *k)
{
    return k->count == 0 ? NULL : hw_index_version(k, k->count - 1);
}

/* The newest version, NULL when that is a tombstone. */
static inline struct hw_version *hw_index_live(const struct hw_index_key *k)
{
    struct hw_version *v = hw_index_newest(k);
    return v == NULL || v->is_tombstone ? NULL : v;
}

static inline struct hw_slice hw_index_slice(const struct hw_index_key *k)
{
    return (struct hw_slice){k->data, k->len};
}

struct hw_key_name *hw_index_name(const struct hw_index_key *k);

/* The memory that one version or one key takes, for the estimates. */
size_t hw_version_bytes(const struct hw_version *v);

#endif
