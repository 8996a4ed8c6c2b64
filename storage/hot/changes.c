#include "storage/hot/changes.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "storage/hot/sort.h"
#include "storage/hot/state.h"

enum phase { PHASE_GATHER, PHASE_SORT, PHASE_DONE };

struct hw_changes {
    struct hw_hot *hot;
    struct hw_pin pin;
    enum phase phase;
    struct hw_span span;
    hw_rev from;
    hw_rev to;
    struct hw_key_name *at; /* gathering goes on with this key, above (at_main, at_sub); NULL: at the start */
    hw_rev at_main;
    uint32_t at_sub;
    struct hw_version **found;
    size_t count;
    size_t cap;
    struct hw_sort sort;
    uint8_t bytes[]; /* key, range_end */
};

int hw_changes_start(struct hw_hot *h, struct hw_slice key, struct hw_slice range_end, hw_rev from, hw_rev to,
                     struct hw_changes **out)
{
    struct hw_changes *ch;
    *out = NULL;
    if (from < h->compacted) {
        return HW_ERR_COMPACTED;
    }
    ch = calloc(1, sizeof *ch + key.len + range_end.len);
    if (ch == NULL) {
        return HW_ERR_NOMEM;
    }
    if (key.len > 0) {
        memcpy(ch->bytes, key.data, key.len);
    }
    if (range_end.len > 0) {
        memcpy(ch->bytes + key.len, range_end.data, range_end.len);
    }
    ch->hot = h;
    ch->span = hw_span_of(hw_slice_of(ch->bytes, key.len), hw_slice_of(ch->bytes + key.len, range_end.len));
    ch->from = from > 1 ? from : 1;
    ch->to = to < h->revision ? to : h->revision;
    /* One below, so that hw_hot_previous finds what the first changes replaced, if it is there now. */
    hw_pin_add(h, &ch->pin, ch->from - 1);
    *out = ch;
    return 0;
}

/* How many versions of a key come before or at (main, sub). */
static uint32_t count_up_to(const struct hw_index_key *k, hw_rev main, uint32_t sub)
{
    uint32_t lo = 0;
    uint32_t hi = k->count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct hw_version *v = hw_index_version(k, mid);
        if (v->mod_main < main || (v->mod_main == main && v->mod_sub <= sub)) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static int push(struct hw_changes *ch, struct hw_version *v)
{
    if (ch->count == ch->cap) {
        size_t cap = ch->cap == 0 ? 16 : ch->cap * 2;
        struct hw_version **found = realloc(ch->found, cap * sizeof(struct hw_version *));
        if (found == NULL) {
            return HW_ERR_NOMEM;
        }
        ch->found = found;
        ch->cap = cap;
    }
    ch->found[ch->count++] = hw_version_ref(v);
    return 0;
}

/* Takes from one key, above where `at_` stands, and moves it. *taken: at most `budget`; > 0: there is more. */
static int take_key(struct hw_changes *ch, const struct hw_index_key *k, size_t budget, size_t *taken)
{
    uint32_t i = count_up_to(k, ch->at_main, ch->at_sub);
    *taken = 0;
    for (; i < k->count; i++) {
        struct hw_version *v = hw_index_version(k, i);
        if (v->mod_main > ch->to) {
            return 0;
        }
        if (*taken == budget) {
            return 1;
        }
        if (push(ch, v) != 0) {
            return HW_ERR_NOMEM;
        }
        ch->at_main = v->mod_main;
        ch->at_sub = v->mod_sub;
        (*taken)++;
    }
    return 0;
}

static void start_key(struct hw_changes *ch)
{
    ch->at_main = ch->from - 1;
    ch->at_sub = UINT32_MAX;
}

/* The tree may have changed since the last step, so the way back is by key. A key that is gone meanwhile had nothing
 * that was wanted: the pin holds that. Its neighbour starts afresh. */
static struct hw_index_key *resume(struct hw_changes *ch, struct hw_index_key *first)
{
    struct hw_slice at;
    struct hw_index_key *k = first;
    if (ch->at == NULL || first == NULL) {
        start_key(ch);
    } else {
        at = hw_slice_of(ch->at->data, ch->at->len);
        k = hw_index_at_or_above(&ch->hot->index, at);
        if (k != NULL && !hw_slice_is_equal(hw_index_slice(k), at)) {
            start_key(ch);
        }
    }
    if (ch->at != NULL) {
        hw_key_name_unref(ch->at);
        ch->at = NULL;
    }
    return k;
}

static int gather(struct hw_changes *ch, size_t budget)
{
    struct hw_index_key *k;
    struct hw_index_key *stop;
    hw_index_bounds(&ch->hot->index, &ch->span, &k, &stop);
    k = resume(ch, k);
    while (k != stop && budget > 0) {
        size_t taken;
        int rc = take_key(ch, k, budget, &taken);
        if (rc < 0) {
            return rc;
        }
        budget -= taken > 0 ? taken : 1;
        if (rc == 0) {
            k = hw_index_next(k);
            start_key(ch);
        }
    }
    if (k == stop) {
        return 0;
    }
    ch->at = hw_key_name_ref(hw_index_name(k));
    return 1;
}

static int start_sort(struct hw_changes *ch)
{
    if (ch->count < 2 || ch->span.is_point) {
        ch->phase = PHASE_DONE; /* the versions of one key are in order */
        return 0;
    }
    if (hw_sort_start(&ch->sort, ch->found, ch->count, hw_sort_by_write, false) != 0) {
        return HW_ERR_NOMEM;
    }
    ch->found = NULL;
    ch->phase = PHASE_SORT;
    return 0;
}

int hw_changes_step(struct hw_changes *ch, size_t budget)
{
    int rc;
    hw_assert(budget > 0);
    if (ch->phase == PHASE_GATHER) {
        rc = gather(ch, budget);
        if (rc == 0) {
            rc = start_sort(ch);
        }
        if (rc != 0 || ch->phase == PHASE_DONE) {
            return rc;
        }
        if (ch->count > budget) {
            return 1;
        }
    }
    if (ch->phase == PHASE_SORT) {
        if (!hw_sort_step(&ch->sort, budget)) {
            return 1;
        }
        ch->found = hw_sort_take(&ch->sort);
        ch->phase = PHASE_DONE;
    }
    return 0;
}

struct hw_version *const *hw_changes_at(const struct hw_changes *ch, size_t *count)
{
    hw_assert(ch->phase == PHASE_DONE);
    *count = ch->count;
    return ch->found;
}

void hw_changes_close(struct hw_changes *ch)
{
    struct hw_version **found;
    if (ch == NULL) {
        return;
    }
    /* While a merge is under way, its source still holds every element once. */
    found = ch->sort.from != NULL ? ch->sort.from : ch->found;
    for (size_t i = 0; i < ch->count; i++) {
        hw_version_unref(found[i]);
    }
    free(found);
    free(ch->sort.to);
    if (ch->at != NULL) {
        hw_key_name_unref(ch->at);
    }
    hw_pin_remove(ch->hot, &ch->pin);
    free(ch);
}

struct hw_version *hw_hot_previous(const struct hw_hot *h, const struct hw_version *v)
{
    struct hw_index_key *k = hw_index_find(&h->index, hw_slice_of(v->key->data, v->key->len));
    struct hw_version *before;
    uint32_t n = k == NULL ? 0 : count_up_to(k, v->mod_main, v->mod_sub);
    /* The oldest go first, so when v itself is not held any more, nothing before it is. */
    if (n < 2 || hw_index_version(k, n - 1)->mod_main != v->mod_main ||
        hw_index_version(k, n - 1)->mod_sub != v->mod_sub) {
        return NULL;
    }
    before = hw_index_version(k, n - 2);
    return before->is_tombstone ? NULL : before;
}
