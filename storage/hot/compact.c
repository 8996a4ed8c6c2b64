/* Compaction is logical at once and physical later. The command only moves `compacted`, below which no revision can be
 * read any more; the sweep then walks the keys in steps and lets go of what no reader can reach. Open readers hold the
 * sweep back by pins.
 */
#include "agent/base/assert.h"
#include "storage/hot/state.h"

void hw_pin_add(struct hw_hot *h, struct hw_pin *pin, hw_rev revision)
{
    pin->revision = revision;
    TAILQ_INSERT_TAIL(&h->pins, pin, link);
}

size_t hw_hot_open_scans(const struct hw_hot *h)
{
    const struct hw_pin *pin;
    size_t count = 0;
    TAILQ_FOREACH(pin, &h->pins, link) {
        count++;
    }
    return count;
}

void hw_pin_remove(struct hw_hot *h, struct hw_pin *pin)
{
    TAILQ_REMOVE(&h->pins, pin, link);
}

void hw_compact_apply(struct hw_hot *h, hw_rev revision, uint64_t index, int *code)
{
    uint64_t change[] = {'C', index, (uint64_t)revision};
    if (revision > h->revision) {
        *code = HW_ERR_FUTURE;
    } else if (revision <= h->compacted) {
        *code = HW_ERR_COMPACTED;
    } else {
        *code = 0;
        h->compacted = revision;
        h->hash += hw_hash_numbers(change, hw_array_len(change));
    }
}

/* At `revision` itself everything stays, tombstones too: a watcher may start there (as in etcd, server/storage/mvcc:
 * a watch is refused below the compacted revision, and compaction keeps a tombstone of just that revision). Of the
 * versions below only the newest can still be read, when `revision` did not write the key, and a tombstone there says
 * no more than nothing would. */
uint32_t hw_compact_unreachable(const struct hw_index_key *k, hw_rev revision)
{
    uint32_t n = hw_index_count_as_of(k, revision - 1);
    bool is_superseded = n < k->count && hw_index_version(k, n)->mod_main == revision;
    if (n == 0 || is_superseded) {
        return n;
    }
    return hw_index_version(k, n - 1)->is_tombstone ? n : n - 1;
}

static hw_rev sweep_floor(const struct hw_hot *h)
{
    hw_rev floor = h->compacted;
    struct hw_pin *pin;
    TAILQ_FOREACH(pin, &h->pins, link) {
        if (pin->revision < floor) {
            floor = pin->revision;
        }
    }
    return floor;
}

/* The first key that this pass has not finished. */
static struct hw_index_key *take_sweep_at(struct hw_hot *h)
{
    struct hw_key_name *at = h->sweep.at;
    struct hw_index_key *k;
    if (at == NULL) {
        return hw_index_first(&h->index);
    }
    k = hw_index_at_or_above(&h->index, hw_slice_of(at->data, at->len));
    h->sweep.at = NULL;
    hw_key_name_unref(at);
    return k;
}

bool hw_hot_sweep(struct hw_hot *h, size_t budget)
{
    struct hw_index_key *k;
    if (h->sweep.target == 0) {
        hw_rev floor = sweep_floor(h);
        if (floor <= h->sweep.done) {
            return false;
        }
        h->sweep.target = floor;
    }
    k = take_sweep_at(h);
    while (k != NULL && budget > 0) {
        struct hw_index_key *next = hw_index_next(k);
        uint32_t n = hw_compact_unreachable(k, h->sweep.target);
        bool is_finished = n <= budget;
        hw_index_drop_oldest(&h->index, k, is_finished ? n : (uint32_t)budget);
        if (k->count == 0) {
            hw_index_remove(&h->index, k);
        }
        if (!is_finished) {
            budget = 0;
            break;
        }
        budget -= n < budget ? n + 1 : n;
        k = next;
    }
    if (k != NULL) {
        h->sweep.at = hw_key_name_ref(hw_index_name(k));
        return true;
    }
    h->sweep.done = h->sweep.target;
    h->sweep.target = 0;
    return sweep_floor(h) > h->sweep.done;
}
