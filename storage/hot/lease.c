#include "storage/hot/lease.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "storage/hot/state.h"

/* What malloc adds to a block, on average. */
#define MALLOC_OVERHEAD 12

enum lease_change { CHANGE_GRANT = 1, CHANGE_REVOKE, CHANGE_REMAINING };

static int compare_leases(const struct hw_lease *a, const struct hw_lease *b)
{
    return a->id < b->id ? -1 : a->id > b->id;
}

static int compare_lease_keys(const struct hw_lease_key *a, const struct hw_lease_key *b)
{
    return a->key == b->key ? 0 : hw_slice_cmp(hw_index_slice(a->key), hw_index_slice(b->key));
}

RB_GENERATE_INTERNAL(hw_lease_tree, hw_lease, link, compare_leases, __attribute__((unused)) static)
RB_GENERATE_INTERNAL(hw_lease_keys, hw_lease_key, link, compare_lease_keys, __attribute__((unused)) static)

/* ---- the table ---- */

/* tree.h takes heads that are not const, also where it only reads. */
static struct hw_lease_tree *tree_of(const struct hw_lease_table *t)
{
    return (struct hw_lease_tree *)(uintptr_t)&t->tree;
}

static struct hw_lease *find_any(const struct hw_lease_table *t, int64_t id)
{
    struct hw_lease probe = {.id = id};
    return RB_FIND(hw_lease_tree, tree_of(t), &probe);
}

struct hw_lease *hw_lease_find(const struct hw_lease_table *t, int64_t id)
{
    struct hw_lease *lease = find_any(t, id);
    return lease == NULL || lease->is_gone ? NULL : lease;
}

void hw_lease_table_init(struct hw_lease_table *t)
{
    RB_INIT(&t->tree);
    STAILQ_INIT(&t->dirty);
}

struct hw_lease_key *hw_lease_first_key(struct hw_lease *lease)
{
    return RB_MIN(hw_lease_keys, &lease->keys);
}

bool hw_lease_table_free_step(struct hw_lease_table *t, size_t *budget)
{
    struct hw_lease *lease;
    while ((lease = RB_ROOT(&t->tree)) != NULL) {
        struct hw_lease_key *a;
        while ((a = RB_ROOT(&lease->keys)) != NULL && *budget > 0) {
            RB_REMOVE(hw_lease_keys, &lease->keys, a);
            free(a);
            (*budget)--;
        }
        if (*budget == 0) {
            return false;
        }
        RB_REMOVE(hw_lease_tree, &t->tree, lease);
        free(lease);
        (*budget)--;
    }
    return true;
}

int hw_lease_table_add(struct hw_lease_table *t, int64_t id, int64_t ttl_s, struct hw_lease **out, int *code)
{
    struct hw_lease *lease = find_any(t, id);
    *out = NULL;
    *code = lease != NULL && !lease->is_gone ? HW_ERR_EXISTS : t->count >= HW_LEASES_MAX ? HW_ERR_EXHAUSTED : 0;
    if (*code != 0) {
        return 0;
    }
    if (lease == NULL) {
        lease = calloc(1, sizeof *lease);
        if (lease == NULL) {
            return HW_ERR_NOMEM;
        }
        lease->id = id;
        RB_INIT(&lease->keys);
        RB_INSERT(hw_lease_tree, &t->tree, lease);
    }
    lease->is_gone = false; /* the id of one that is gone may come back before the cut */
    lease->ttl_s = ttl_s;
    lease->remaining_s = 0;
    t->count++;
    *out = lease;
    return 0;
}

size_t hw_lease_table_bytes(const struct hw_lease_table *t)
{
    return t->count * (sizeof(struct hw_lease) + MALLOC_OVERHEAD) +
           t->key_count * (sizeof(struct hw_lease_key) + MALLOC_OVERHEAD);
}

/* ---- keys ---- */

static void attach(struct hw_lease_table *t, struct hw_lease *lease, struct hw_lease_key *a)
{
    struct hw_lease_key *other = RB_INSERT(hw_lease_keys, &lease->keys, a);
    hw_assert(other == NULL);
    lease->key_count++;
    t->key_count++;
}

static struct hw_lease_key *detach(struct hw_lease_table *t, int64_t id, struct hw_index_key *k)
{
    struct hw_lease *lease = hw_lease_find(t, id);
    struct hw_lease_key probe = {.key = k};
    struct hw_lease_key *a;
    hw_assert(lease != NULL); /* a lease does not go before its keys */
    a = RB_FIND(hw_lease_keys, &lease->keys, &probe);
    hw_assert(a != NULL);
    RB_REMOVE(hw_lease_keys, &lease->keys, a);
    lease->key_count--;
    t->key_count--;
    return a;
}

int hw_lease_move(struct hw_lease_table *t, struct hw_index_key *k, int64_t from, int64_t to,
                  struct hw_lease_spares *spares)
{
    struct hw_lease *lease;
    struct hw_lease_key *a;
    if (from == to) {
        return 0;
    }
    if (to != 0) {
        lease = hw_lease_find(t, to);
        hw_assert(lease != NULL); /* checked before anything was written */
        a = malloc(sizeof *a);
        if (a == NULL) {
            return HW_ERR_NOMEM;
        }
        a->key = k;
        attach(t, lease, a);
    }
    if (from != 0) {
        a = detach(t, from, k);
        SLIST_INSERT_HEAD(spares, a, spare);
    }
    return 0;
}

/* The last node that was spared is the one that this move let go. */
void hw_lease_move_back(struct hw_lease_table *t, struct hw_index_key *k, int64_t from, int64_t to,
                        struct hw_lease_spares *spares)
{
    struct hw_lease_key *a;
    if (from == to) {
        return;
    }
    if (to != 0) {
        free(detach(t, to, k));
    }
    if (from != 0) {
        a = SLIST_FIRST(spares);
        hw_assert(a != NULL && a->key == k);
        SLIST_REMOVE_HEAD(spares, spare);
        attach(t, hw_lease_find(t, from), a);
    }
}

void hw_lease_spares_free(struct hw_lease_spares *spares)
{
    struct hw_lease_key *a;
    while ((a = SLIST_FIRST(spares)) != NULL) {
        SLIST_REMOVE_HEAD(spares, spare);
        free(a);
    }
}

int hw_lease_attach_loaded(struct hw_lease_table *t, struct hw_index_key *k, int64_t id)
{
    struct hw_lease *lease = hw_lease_find(t, id);
    struct hw_lease_key probe = {.key = k};
    struct hw_lease_key *a;
    if (lease == NULL) {
        return HW_ERR_NOTFOUND;
    }
    if (RB_FIND(hw_lease_keys, &lease->keys, &probe) != NULL) {
        return 0;
    }
    a = malloc(sizeof *a);
    if (a == NULL) {
        return HW_ERR_NOMEM;
    }
    a->key = k;
    attach(t, lease, a);
    return 0;
}

/* ---- commands ---- */

static struct hw_lease_view view_of(const struct hw_lease *lease)
{
    return (struct hw_lease_view){
        .id = lease->id, .ttl_s = lease->ttl_s, .remaining_s = lease->remaining_s, .key_count = lease->key_count};
}

static void tell(const struct hw_hot *h, const struct hw_lease *lease)
{
    struct hw_lease_view view = view_of(lease);
    if (h->leases.feed != NULL) {
        h->leases.feed(h->leases.feed_ctx, &view, lease->is_gone);
    }
}

static void note_change(struct hw_hot *h, struct hw_lease *lease, enum lease_change change, int64_t seconds,
                        uint64_t index)
{
    uint64_t numbers[] = {'L', index, change, (uint64_t)lease->id, (uint64_t)seconds};
    h->hash += hw_hash_numbers(numbers, hw_array_len(numbers));
    if (!lease->is_dirty) {
        lease->is_dirty = true;
        STAILQ_INSERT_TAIL(&h->leases.dirty, lease, dirty);
        h->leases.dirty_count++;
    }
}

int hw_lease_grant(struct hw_hot *h, int64_t id, int64_t ttl_s, uint64_t index, int *code)
{
    struct hw_lease *lease;
    int rc = hw_lease_table_add(&h->leases, id, ttl_s, &lease, code);
    if (lease != NULL) {
        note_change(h, lease, CHANGE_GRANT, ttl_s, index);
        tell(h, lease);
    }
    return rc;
}

int hw_lease_revoke(struct hw_hot *h, int64_t id, uint64_t index, int *code)
{
    struct hw_lease *lease = hw_lease_find(&h->leases, id);
    *code = lease == NULL ? HW_ERR_NOTFOUND : 0;
    if (lease == NULL) {
        return 0;
    }
    if (hw_txn_revoke(h, lease) != 0) {
        return HW_ERR_NOMEM;
    }
    lease->is_gone = true;
    h->leases.count--;
    note_change(h, lease, CHANGE_REVOKE, 0, index);
    tell(h, lease);
    return 0;
}

void hw_lease_checkpoint(struct hw_hot *h, const struct hw_lease_remaining *leases, size_t count, uint64_t index)
{
    for (size_t i = 0; i < count; i++) {
        struct hw_lease *lease = hw_lease_find(&h->leases, leases[i].id);
        int64_t remaining_s;
        if (lease == NULL) {
            continue;
        }
        remaining_s = leases[i].remaining_s < lease->ttl_s ? leases[i].remaining_s : lease->ttl_s;
        if (lease->remaining_s != remaining_s) {
            lease->remaining_s = remaining_s;
            note_change(h, lease, CHANGE_REMAINING, remaining_s, index);
        }
        tell(h, lease);
    }
}

/* ---- checkpoint ---- */

void hw_lease_table_take_dirty(struct hw_lease_table *t, struct hw_lease_record *out)
{
    struct hw_lease *lease;
    while ((lease = STAILQ_FIRST(&t->dirty)) != NULL) {
        STAILQ_REMOVE_HEAD(&t->dirty, dirty);
        lease->is_dirty = false;
        *out++ = (struct hw_lease_record){
            .id = lease->id, .ttl_s = lease->ttl_s, .remaining_s = lease->remaining_s, .is_gone = lease->is_gone};
        if (lease->is_gone) {
            RB_REMOVE(hw_lease_tree, &t->tree, lease);
            free(lease);
        }
    }
    t->dirty_count = 0;
}

/* ---- read ---- */

size_t hw_hot_lease_count(const struct hw_hot *h)
{
    return h->leases.count;
}

int hw_hot_lease(const struct hw_hot *h, int64_t id, struct hw_lease_view *view)
{
    const struct hw_lease *lease = hw_lease_find(&h->leases, id);
    if (lease == NULL) {
        return HW_ERR_NOTFOUND;
    }
    *view = view_of(lease);
    return 0;
}

int hw_hot_lease_next(const struct hw_hot *h, int64_t after, struct hw_lease_view *view)
{
    struct hw_lease probe = {.id = after == INT64_MAX ? after : after + 1};
    struct hw_lease *lease = after == INT64_MAX ? NULL : RB_NFIND(hw_lease_tree, tree_of(&h->leases), &probe);
    while (lease != NULL && lease->is_gone) {
        lease = RB_NEXT(hw_lease_tree, NULL, lease);
    }
    if (lease == NULL) {
        return HW_ERR_NOTFOUND;
    }
    *view = view_of(lease);
    return 0;
}

size_t hw_hot_lease_keys(const struct hw_hot *h, int64_t id, const struct hw_key_name *after, struct hw_key_name **keys,
                         size_t max)
{
    struct hw_lease *lease = hw_lease_find(&h->leases, id);
    struct hw_lease_key *a = lease == NULL ? NULL : hw_lease_first_key(lease);
    size_t count = 0;
    if (lease != NULL && after != NULL) {
        struct hw_index_key key = {.data = after->data, .len = after->len};
        struct hw_lease_key probe = {.key = &key};
        a = RB_NFIND(hw_lease_keys, &lease->keys, &probe);
        if (a != NULL && compare_lease_keys(a, &probe) == 0) {
            a = RB_NEXT(hw_lease_keys, NULL, a);
        }
    }
    for (; a != NULL && count < max; a = RB_NEXT(hw_lease_keys, NULL, a)) {
        keys[count++] = hw_index_name(a->key);
    }
    return count;
}

void hw_hot_set_lease_feed(struct hw_hot *h, hw_lease_fn fn, void *ctx)
{
    h->leases.feed = fn;
    h->leases.feed_ctx = ctx;
}

/* ---- invariants ---- */

static const char *keys_problem(struct hw_lease *lease)
{
    const struct hw_lease_key *before = NULL;
    struct hw_lease_key *a;
    size_t count = 0;
    RB_FOREACH(a, hw_lease_keys, &lease->keys) {
        const struct hw_version *v = hw_index_live(a->key);
        if (v == NULL || v->lease != lease->id) {
            return "a key hangs on a lease that it does not name";
        }
        if (before != NULL && compare_lease_keys(before, a) >= 0) {
            return "the keys of a lease are not in order";
        }
        before = a;
        count++;
    }
    return count == lease->key_count ? NULL : "the key count of a lease is wrong";
}

const char *hw_lease_table_problem(const struct hw_hot *h)
{
    const struct hw_lease_table *t = &h->leases;
    struct hw_lease *lease;
    size_t count = 0;
    size_t keys = 0;
    size_t dirty = 0;
    size_t leased = 0;
    RB_FOREACH(lease, hw_lease_tree, tree_of(t)) {
        const char *problem = keys_problem(lease);
        if (problem != NULL) {
            return problem;
        }
        if (lease->is_gone ? lease->key_count > 0 || !lease->is_dirty
                           : lease->ttl_s < 1 || lease->remaining_s < 0 || lease->remaining_s > lease->ttl_s) {
            return "a lease contradicts itself";
        }
        count += !lease->is_gone;
        keys += lease->key_count;
        dirty += lease->is_dirty;
    }
    for (struct hw_index_key *k = hw_index_first(&h->index); k != NULL; k = hw_index_next(k)) {
        const struct hw_version *v = hw_index_live(k);
        leased += v != NULL && v->lease != 0;
    }
    if (count != t->count || keys != t->key_count || dirty != t->dirty_count) {
        return "the counts of the leases are wrong";
    }
    return leased == keys ? NULL : "a key names a lease that it does not hang on";
}
