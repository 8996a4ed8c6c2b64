#include "storage/hot/sort.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/err.h"

static int compare_numbers(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

static int by_key(const struct hw_version *a, const struct hw_version *b)
{
    return hw_slice_cmp(hw_slice_of(a->key->data, a->key->len), hw_slice_of(b->key->data, b->key->len));
}

static int by_version(const struct hw_version *a, const struct hw_version *b)
{
    return compare_numbers(a->version, b->version);
}

static int by_create(const struct hw_version *a, const struct hw_version *b)
{
    return compare_numbers(a->create_main, b->create_main);
}

static int by_mod(const struct hw_version *a, const struct hw_version *b)
{
    return compare_numbers(a->mod_main, b->mod_main);
}

static int by_value(const struct hw_version *a, const struct hw_version *b)
{
    return hw_slice_cmp(hw_slice_of(a->value, a->value_len), hw_slice_of(b->value, b->value_len));
}

hw_sort_fn hw_sort_by(enum hw_sort_target target)
{
    switch (target) {
    case HW_BY_KEY:
        return by_key;
    case HW_BY_VERSION:
        return by_version;
    case HW_BY_CREATE:
        return by_create;
    case HW_BY_MOD:
        return by_mod;
    case HW_BY_VALUE:
        return by_value;
    }
    hw_unreachable();
}

int hw_sort_by_write(const struct hw_version *a, const struct hw_version *b)
{
    int c = by_mod(a, b);
    return c != 0 ? c : compare_numbers(a->mod_sub, b->mod_sub);
}

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The pair of runs that begins at `start`. */
static void begin_pair(struct hw_sort *s, size_t start)
{
    s->left = start;
    s->left_end = at_most(start + s->width, s->count);
    s->right = s->left_end;
    s->right_end = at_most(s->left_end + s->width, s->count);
    s->out = start;
}

int hw_sort_start(struct hw_sort *s, struct hw_version **array, size_t count, hw_sort_fn compare, bool is_descending)
{
    struct hw_version **to = malloc((count > 0 ? count : 1) * sizeof(struct hw_version *));
    if (to == NULL) {
        return HW_ERR_NOMEM;
    }
    memset(s, 0, sizeof *s);
    s->from = array;
    s->to = to;
    s->count = count;
    s->width = 1;
    s->compare = compare;
    s->is_descending = is_descending;
    begin_pair(s, 0);
    return 0;
}

static bool is_left_next(const struct hw_sort *s)
{
    int c;
    if (s->left == s->left_end || s->right == s->right_end) {
        return s->left < s->left_end;
    }
    c = s->compare(s->from[s->left], s->from[s->right]);
    return s->is_descending ? c >= 0 : c <= 0;
}

bool hw_sort_step(struct hw_sort *s, size_t budget)
{
    while (s->width < s->count) {
        while (s->out < s->right_end) {
            if (budget-- == 0) {
                return false;
            }
            s->to[s->out++] = s->from[is_left_next(s) ? s->left++ : s->right++];
        }
        if (s->right_end < s->count) {
            begin_pair(s, s->right_end);
        } else {
            struct hw_version **swap = s->from;
            s->from = s->to;
            s->to = swap;
            s->width *= 2;
            begin_pair(s, 0);
        }
    }
    return true;
}

struct hw_version **hw_sort_take(struct hw_sort *s)
{
    struct hw_version **array = s->from;
    free(s->to);
    memset(s, 0, sizeof *s);
    return array;
}
