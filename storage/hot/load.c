/* Filling a new state from an image. Versions come in key order, so every new key hangs to the right of the last one
 * and nothing is searched for.
 */
#include <inttypes.h>
#include <string.h>

#include "storage/hot/state.h"

/* Why v cannot follow what was loaded last; `order` says how its key stands to the last key. */
static const char *problem_of(const struct hw_hot *h, const struct hw_version *v, int *order)
{
    struct hw_index_key *last = h->load.last;
    *order = 1;
    if (last != NULL) {
        *order = hw_slice_cmp(hw_slice_of(v->key->data, v->key->len), hw_index_slice(last));
    }
    if (*order < 0) {
        return "out of order";
    }
    return hw_version_problem(*order == 0 ? hw_index_newest(last) : NULL, v);
}

int hw_hot_load_version(struct hw_hot *h, struct hw_version *v)
{
    struct hw_index_key *k = h->load.last;
    int order;
    int rc;
    if (problem_of(h, v, &order) != NULL) {
        return HW_ERR_CORRUPT;
    }
    if (order > 0) {
        struct hw_index_place place = {.parent = h->load.last};
        k = hw_index_add(&h->index, &place, v->key);
        if (k == NULL) {
            return HW_ERR_NOMEM;
        }
    }
    rc = hw_index_link(&h->index, k, v);
    if (rc != 0) {
        if (k->count == 0) {
            hw_index_remove(&h->index, k);
        }
        return rc;
    }
    hw_version_unref(v);
    h->load.last = k;
    if (v->mod_main > h->load.mod_max) {
        h->load.mod_max = v->mod_main;
    }
    h->load.has_leased = h->load.has_leased || v->lease != 0;
    return 0;
}

int hw_hot_load_node(struct hw_hot *h, const struct hw_node *node)
{
    if (node->id == 0 || node->name[0] == '\0' || hw_hot_node_by_id(h, node->id) != NULL ||
        hw_hot_node_by_name(h, node->name) != NULL || h->registry.count >= HW_NODES_MAX) {
        return HW_ERR_CORRUPT;
    }
    return hw_registry_insert(&h->registry, node);
}

int hw_hot_load_event(struct hw_hot *h, const struct hw_event *event)
{
    if (event->seq <= h->history.seq) {
        return HW_ERR_CORRUPT;
    }
    if (hw_history_reserve(&h->history) != 0) {
        return HW_ERR_NOMEM;
    }
    hw_history_push(&h->history, event);
    return 0;
}

int hw_hot_load_lease(struct hw_hot *h, const struct hw_lease_record *record)
{
    int code;
    struct hw_lease *lease;
    if (record->id <= 0 || record->is_gone || record->ttl_s < 1 || record->ttl_s > HW_LEASE_TTL_MAX ||
        record->remaining_s < 0 || record->remaining_s > record->ttl_s) {
        return HW_ERR_CORRUPT;
    }
    if (hw_lease_table_add(&h->leases, record->id, record->ttl_s, &lease, &code) != 0) {
        return HW_ERR_NOMEM;
    }
    if (code != 0) {
        return HW_ERR_CORRUPT;
    }
    lease->remaining_s = record->remaining_s;
    return 0;
}

/* The versions say which lease a key hangs on, and the leases may have come after them. */
static int attach_keys(struct hw_hot *h, struct hw_error *e)
{
    struct hw_index_key *k = h->load.has_leased ? hw_index_first(&h->index) : NULL;
    for (; k != NULL; k = hw_index_next(k)) {
        const struct hw_version *v = hw_index_live(k);
        int rc = v == NULL || v->lease == 0 ? 0 : hw_lease_attach_loaded(&h->leases, k, v->lease);
        if (rc == HW_ERR_NOTFOUND) {
            return hw_error_set(e, HW_ERR_CORRUPT,
                                "load image: a key hangs on lease %" PRId64
                                ", which is not there: restore it from another node",
                                v->lease);
        }
        if (rc != 0) {
            return hw_error_set(e, rc, "load image: out of memory");
        }
    }
    return 0;
}

int hw_hot_load_finish(struct hw_hot *h, const struct hw_hot_counters *c, struct hw_error *e)
{
    int rc;
    if (c->revision < 1 || c->compacted < 0 || c->compacted > c->revision) {
        return hw_error_set(e, HW_ERR_CORRUPT,
                            "load image: revision %" PRId64 " and compacted revision %" PRId64
                            " contradict each other: restore it from another node",
                            c->revision, c->compacted);
    }
    if (h->load.mod_max > c->revision) {
        return hw_error_set(e, HW_ERR_CORRUPT,
                            "load image: it holds a version of revision %" PRId64 " but says it ends at %" PRId64
                            ": restore it from another node",
                            h->load.mod_max, c->revision);
    }
    if (h->history.seq > c->event_seq) {
        return hw_error_set(e, HW_ERR_CORRUPT,
                            "load image: it holds event %" PRIu64 " but says the last is %" PRIu64
                            ": restore it from another node",
                            h->history.seq, c->event_seq);
    }
    rc = attach_keys(h, e);
    if (rc != 0) {
        return rc;
    }
    h->applied = c->applied;
    h->revision = c->revision;
    h->compacted = c->compacted;
    h->epoch = c->epoch;
    h->hot_node = c->hot_node;
    h->hash = c->hash;
    h->history.seq = c->event_seq;
    h->last_cut.compacted = c->compacted;
    h->last_cut.event_seq = c->event_seq;
    memset(&h->load, 0, sizeof h->load);
    return 0;
}
