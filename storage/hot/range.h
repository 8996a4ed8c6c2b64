/* Private to storage/hot: a range in steps, over the index as it is at each step but for the versions of one revision.
 * Used by scans, which pin their revision, and by transactions, which run theirs in one step.
 *
 * Phases: gather the versions in key order and count the keys, sort them, cut to the limit.
 */
#ifndef HW_HOT_RANGE_H
#define HW_HOT_RANGE_H

#include "storage/hot/index.h"
#include "storage/hot/sort.h"
#include "storage/hot/state.h"

enum hw_range_phase { HW_RANGE_GATHER, HW_RANGE_SORT, HW_RANGE_CUT, HW_RANGE_DONE };

struct hw_range_run {
    enum hw_range_phase phase;
    struct hw_range range; /* its slices are borrowed until close */
    struct hw_span span;
    hw_rev revision;
    uint32_t sub;           /* of `revision`, writes from this one on are not seen; UINT32_MAX: all are */
    struct hw_key_name *at; /* gathering has finished this key; NULL: at the start */
    size_t keep_max;        /* gather at most so many */
    struct hw_version **kvs;
    size_t kv_count;
    size_t kv_cap;
    int64_t count;
    bool has_more;
    struct hw_sort sort;
};

/* `revision` is what is read; range->revision is not looked at. */
void hw_range_run_init(struct hw_range_run *run, const struct hw_range *range, hw_rev revision);
/* > 0: call again; 0: kvs, kv_count, count and has_more are final; HW_ERR_NOMEM. */
int hw_range_run_step(struct hw_range_run *run, const struct hw_index *ix, size_t budget);
void hw_range_run_close(struct hw_range_run *run);

#endif
