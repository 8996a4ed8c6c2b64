#include "storage/hot/range.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"

/* etcd sorts when an order is given, and ascending when only a target other than the key is; ascending keys is how the
 * index gives them. */
static bool is_sort_needed(const struct hw_range *r)
{
    return r->sort_target != HW_BY_KEY || r->sort_order == HW_SORT_DESCEND;
}

/* How many versions to gather. One more than the limit tells whether there are more. Without an explicit order etcd
 * cuts before it sorts, also when it then sorts by another target than the key: kept, so that answers agree with
 * etcd's (executeRange in server/etcdserver/txn). */
static size_t keep_max_of(const struct hw_range *r)
{
    bool is_filtered = r->min_mod != 0 || r->max_mod != 0 || r->min_create != 0 || r->max_create != 0;
    if (r->count_only) {
        return 0;
    }
    if (r->sort_order != HW_SORT_NONE || is_filtered || r->limit <= 0 || (uint64_t)r->limit >= SIZE_MAX) {
        return SIZE_MAX;
    }
    return (size_t)r->limit + 1;
}

void hw_range_run_init(struct hw_range_run *run, const struct hw_range *range, hw_rev revision)
{
    memset(run, 0, sizeof *run);
    run->range = *range;
    run->span = hw_span_of(range->key, range->range_end);
    run->revision = revision;
    run->sub = UINT32_MAX;
    run->keep_max = keep_max_of(range);
}

static bool is_wanted(const struct hw_range *r, const struct hw_version *v)
{
    return (r->max_mod == 0 || v->mod_main <= r->max_mod) && (r->min_mod == 0 || v->mod_main >= r->min_mod) &&
           (r->max_create == 0 || v->create_main <= r->max_create) &&
           (r->min_create == 0 || v->create_main >= r->min_create);
}

static struct hw_version *seen(const struct hw_range_run *run, const struct hw_index_key *k)
{
    struct hw_version *v = NULL;
    uint32_t n;
    if (run->sub == UINT32_MAX) {
        return hw_index_as_of(k, run->revision);
    }
    for (n = hw_index_count_as_of(k, run->revision); n > 0; n--) {
        v = hw_index_version(k, n - 1);
        if (v->mod_main < run->revision || v->mod_sub < run->sub) {
            break;
        }
    }
    return n == 0 || v->is_tombstone ? NULL : v;
}

static int push(struct hw_range_run *run, struct hw_version *v)
{
    if (run->kv_count == run->kv_cap) {
        size_t cap = run->kv_cap == 0 ? 1 : run->kv_cap < 16 ? 16 : run->kv_cap * 2;
        struct hw_version **kvs = realloc(run->kvs, cap * sizeof(struct hw_version *));
        if (kvs == NULL) {
            return HW_ERR_NOMEM;
        }
        run->kvs = kvs;
        run->kv_cap = cap;
    }
    run->kvs[run->kv_count++] = hw_version_ref(v);
    return 0;
}

/* The tree may have changed since the last step, so the way back is by key. */
static int gather(struct hw_range_run *run, const struct hw_index *ix, size_t budget)
{
    struct hw_index_key *first;
    struct hw_index_key *stop;
    struct hw_index_key *last = NULL;
    hw_index_bounds(ix, &run->span, &first, &stop);
    if (run->at != NULL && first != NULL) {
        first = hw_index_above(ix, hw_slice_of(run->at->data, run->at->len));
    }
    for (struct hw_index_key *k = first; k != stop; k = hw_index_next(k)) {
        struct hw_version *v;
        if (budget-- == 0) {
            break;
        }
        v = seen(run, k);
        last = k;
        if (v == NULL) {
            continue;
        }
        run->count++;
        if (run->kv_count < run->keep_max && is_wanted(&run->range, v) && push(run, v) != 0) {
            return HW_ERR_NOMEM;
        }
    }
    if (last == NULL || hw_index_next(last) == stop) {
        return 0;
    }
    if (run->at != NULL) {
        hw_key_name_unref(run->at);
    }
    run->at = hw_key_name_ref(hw_index_name(last));
    return 1;
}

static void reverse(struct hw_version **kvs, size_t count)
{
    for (size_t i = 0; i < count / 2; i++) {
        struct hw_version *v = kvs[i];
        kvs[i] = kvs[count - 1 - i];
        kvs[count - 1 - i] = v;
    }
}

static int start_sort(struct hw_range_run *run)
{
    bool is_descending = run->range.sort_order == HW_SORT_DESCEND;
    run->phase = HW_RANGE_CUT;
    if (!is_sort_needed(&run->range) || run->kv_count < 2) {
        return 0;
    }
    if (run->range.sort_target == HW_BY_KEY) {
        reverse(run->kvs, run->kv_count);
        return 0;
    }
    if (hw_sort_start(&run->sort, run->kvs, run->kv_count, hw_sort_by(run->range.sort_target), is_descending) != 0) {
        return HW_ERR_NOMEM;
    }
    run->kvs = NULL;
    run->phase = HW_RANGE_SORT;
    return 0;
}

/* True when nothing is over the limit any more. */
static bool cut(struct hw_range_run *run, size_t budget)
{
    if (run->range.limit <= 0) {
        return true;
    }
    while (run->kv_count > (uint64_t)run->range.limit) {
        if (budget-- == 0) {
            return false;
        }
        run->has_more = true;
        hw_version_unref(run->kvs[--run->kv_count]);
    }
    return true;
}

int hw_range_run_step(struct hw_range_run *run, const struct hw_index *ix, size_t budget)
{
    int rc;
    hw_assert(budget > 0);
    switch (run->phase) {
    case HW_RANGE_GATHER:
        rc = gather(run, ix, budget);
        if (rc == 0) {
            rc = start_sort(run);
        }
        if (rc != 0) {
            return rc;
        }
        if (run->kv_count > budget) {
            return 1;
        }
        return hw_range_run_step(run, ix, budget);
    case HW_RANGE_SORT:
        if (!hw_sort_step(&run->sort, budget)) {
            return 1;
        }
        run->kvs = hw_sort_take(&run->sort);
        run->phase = HW_RANGE_CUT;
        return hw_range_run_step(run, ix, budget);
    case HW_RANGE_CUT:
        if (!cut(run, budget)) {
            return 1;
        }
        run->phase = HW_RANGE_DONE;
        return 0;
    case HW_RANGE_DONE:
        return 0;
    }
    hw_unreachable();
}

void hw_range_run_close(struct hw_range_run *run)
{
    struct hw_version **kvs = run->sort.from != NULL ? run->sort.from : run->kvs;
    /* While a merge is under way, its source still holds every element once. */
    for (size_t i = 0; i < run->kv_count; i++) {
        hw_version_unref(kvs[i]);
    }
    free(kvs);
    free(run->sort.to);
    if (run->at != NULL) {
        hw_key_name_unref(run->at);
    }
    memset(run, 0, sizeof *run);
}

/* ---- scans ---- */

struct hw_scan {
    struct hw_hot *hot;
    struct hw_pin pin;
    hw_rev header_revision;
    struct hw_range_run run;
    uint8_t bytes[]; /* key, range_end */
};

int hw_hot_check_revision(const struct hw_hot *h, hw_rev revision)
{
    if (revision <= 0) {
        return 0;
    }
    if (revision > h->revision) {
        return HW_ERR_FUTURE;
    }
    return revision < h->compacted ? HW_ERR_COMPACTED : 0;
}

static int scan_new(struct hw_hot *h, const struct hw_range *range, hw_rev revision, uint32_t sub,
                    struct hw_scan **scan)
{
    struct hw_range copy = *range;
    struct hw_scan *s = malloc(sizeof *s + range->key.len + range->range_end.len);
    *scan = NULL;
    if (s == NULL) {
        return HW_ERR_NOMEM;
    }
    copy.key.data = s->bytes;
    copy.range_end.data = s->bytes + range->key.len;
    if (range->key.len > 0) {
        memcpy(s->bytes, range->key.data, range->key.len);
    }
    if (range->range_end.len > 0) {
        memcpy(s->bytes + range->key.len, range->range_end.data, range->range_end.len);
    }
    s->hot = h;
    s->header_revision = h->revision;
    hw_range_run_init(&s->run, &copy, revision);
    s->run.sub = sub;
    /* With the writes before `sub` of a revision, what the one before it has is read too. */
    hw_pin_add(h, &s->pin, sub == UINT32_MAX ? revision : revision - 1);
    *scan = s;
    return 0;
}

int hw_scan_start(struct hw_hot *h, const struct hw_range *range, struct hw_scan **scan)
{
    int rc = hw_hot_check_revision(h, range->revision);
    *scan = NULL;
    return rc != 0 ? rc : scan_new(h, range, range->revision > 0 ? range->revision : h->revision, UINT32_MAX, scan);
}

int hw_scan_start_deferred(struct hw_hot *h, const struct hw_deferred *d, struct hw_scan **scan)
{
    return scan_new(h, &d->range, d->revision, d->sub, scan);
}

int hw_scan_step(struct hw_scan *scan, size_t budget)
{
    return hw_range_run_step(&scan->run, &scan->hot->index, budget);
}

struct hw_version *const *hw_scan_kvs(const struct hw_scan *scan, size_t *count)
{
    *count = scan->run.kv_count;
    return scan->run.kvs;
}

int64_t hw_scan_count(const struct hw_scan *scan)
{
    return scan->run.count;
}

bool hw_scan_has_more(const struct hw_scan *scan)
{
    return scan->run.has_more;
}

hw_rev hw_scan_revision(const struct hw_scan *scan)
{
    return scan->header_revision;
}

void hw_scan_close(struct hw_scan *scan)
{
    if (scan == NULL) {
        return;
    }
    hw_pin_remove(scan->hot, &scan->pin);
    hw_range_run_close(&scan->run);
    free(scan);
}

bool hw_scan_close_step(struct hw_scan *scan, size_t budget)
{
    struct hw_range_run *run = &scan->run;
    if (run->phase == HW_RANGE_DONE) {
        while (run->kv_count > 0 && budget > 0) {
            hw_version_unref(run->kvs[--run->kv_count]);
            budget--;
        }
        if (run->kv_count > 0) {
            return false;
        }
    }
    hw_scan_close(scan);
    return true;
}
