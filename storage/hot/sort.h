/* Private to storage/hot: sorting versions in steps, so that a million of them does not hold up the loop. A bottom-up
 * merge sort, hence stable: equal elements stay in key order, in both directions.
 */
#ifndef HW_HOT_SORT_H
#define HW_HOT_SORT_H

#include <stdbool.h>
#include <stddef.h>

#include "storage/hot/command.h"
#include "storage/hot/record.h"

typedef int (*hw_sort_fn)(const struct hw_version *a, const struct hw_version *b);
hw_sort_fn hw_sort_by(enum hw_sort_target target);
/* In the order of writing: main, then sub. */
int hw_sort_by_write(const struct hw_version *a, const struct hw_version *b);

struct hw_sort {
    struct hw_version **from; /* sorted runs of `width` */
    struct hw_version **to;   /* the same, merged in pairs, as far as `out` */
    size_t count;
    size_t width;
    size_t left;  /* next of the left run */
    size_t right; /* next of the right run */
    size_t left_end;
    size_t right_end;
    size_t out;
    hw_sort_fn compare;
    bool is_descending;
};

/* Takes over `array` and its length; hw_sort_take gives back an array with the same elements. HW_ERR_NOMEM: nothing was
 * taken. */
int hw_sort_start(struct hw_sort *s, struct hw_version **array, size_t count, hw_sort_fn compare, bool is_descending);
/* At most `budget` moves; true when done. */
bool hw_sort_step(struct hw_sort *s, size_t budget);
/* The array, sorted or not; the rest is freed. NULL when no sort was started. */
struct hw_version **hw_sort_take(struct hw_sort *s);

#endif
