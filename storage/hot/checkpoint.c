/* What the next checkpoint writes: the list of dirty versions, and the cut that takes it away. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "storage/hot/state.h"

#define DIRTY_CAP_MIN 64

int hw_dirty_reserve(struct hw_dirty *d)
{
    size_t cap = d->cap == 0 ? DIRTY_CAP_MIN : d->cap * 2;
    struct hw_version **at;
    if (d->count < d->cap) {
        return 0;
    }
    at = realloc(d->at, cap * sizeof(struct hw_version *));
    if (at == NULL) {
        return HW_ERR_NOMEM;
    }
    d->at = at;
    d->cap = cap;
    return 0;
}

static size_t bytes_of(const struct hw_version *v)
{
    return hw_version_bytes(v) + v->key->len;
}

void hw_dirty_push(struct hw_dirty *d, struct hw_version *v)
{
    hw_assert(d->count < d->cap);
    d->at[d->count++] = v;
    d->bytes += bytes_of(v);
}

void hw_dirty_pop(struct hw_dirty *d)
{
    struct hw_version *v = d->at[--d->count];
    d->bytes -= bytes_of(v);
    hw_version_unref(v);
}

size_t hw_hot_dirty_count(const struct hw_hot *h)
{
    return h->dirty.count + h->leases.dirty_count;
}

size_t hw_hot_dirty_bytes(const struct hw_hot *h)
{
    return h->dirty.bytes + h->leases.dirty_count * sizeof(struct hw_lease_record);
}

static int copy_nodes(const struct hw_hot *h, struct hw_cut *c)
{
    size_t count = h->registry.count;
    if (count > 0) {
        c->nodes = malloc(count * sizeof c->nodes[0]);
        if (c->nodes == NULL) {
            return HW_ERR_NOMEM;
        }
        memcpy(c->nodes, h->registry.nodes, count * sizeof c->nodes[0]);
    }
    c->node_count = count;
    return 0;
}

static int copy_events(const struct hw_hot *h, struct hw_cut *c)
{
    uint64_t fresh = h->history.seq - h->last_cut.event_seq;
    size_t count = fresh < h->history.count ? (size_t)fresh : h->history.count;
    if (count > 0) {
        c->events = malloc(count * sizeof c->events[0]);
        if (c->events == NULL) {
            return HW_ERR_NOMEM;
        }
        for (size_t i = 0; i < count; i++) {
            c->events[i] = *hw_hot_event_at(h, h->history.count - count + i);
        }
    }
    c->event_count = count;
    return 0;
}

static int make_room_for_leases(const struct hw_hot *h, struct hw_cut *c)
{
    if (h->leases.dirty_count > 0) {
        c->leases = malloc(h->leases.dirty_count * sizeof c->leases[0]);
        if (c->leases == NULL) {
            return HW_ERR_NOMEM;
        }
    }
    return 0;
}

int hw_hot_cut(struct hw_hot *h, struct hw_cut **cut)
{
    struct hw_cut *c = calloc(1, sizeof *c);
    *cut = NULL;
    if (c == NULL) {
        return HW_ERR_NOMEM;
    }
    if (copy_nodes(h, c) != 0 || copy_events(h, c) != 0 || make_room_for_leases(h, c) != 0) {
        hw_cut_free(c);
        return HW_ERR_NOMEM;
    }
    c->applied = h->applied;
    c->revision = h->revision;
    c->compacted = h->compacted;
    c->compacted_before = h->last_cut.compacted;
    c->epoch = h->epoch;
    c->hot_node = h->hot_node;
    c->hash = h->hash;
    c->event_seq = h->history.seq;
    c->nodes_changed = h->registry.is_changed;
    c->versions = h->dirty.at;
    c->version_count = h->dirty.count;
    c->lease_count = h->leases.dirty_count;
    hw_lease_table_take_dirty(&h->leases, c->leases);
    memset(&h->dirty, 0, sizeof h->dirty);
    h->registry.is_changed = false;
    h->last_cut.compacted = h->compacted;
    h->last_cut.event_seq = h->history.seq;
    *cut = c;
    return 0;
}

void hw_cut_free(struct hw_cut *cut)
{
    if (cut == NULL) {
        return;
    }
    for (size_t i = 0; i < cut->version_count; i++) {
        hw_version_unref(cut->versions[i]);
    }
    free(cut->versions);
    free(cut->nodes);
    free(cut->events);
    free(cut->leases);
    free(cut);
}
