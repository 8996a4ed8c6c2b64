/* The image as a value: what storage/warm keeps in SQLite. Versions are immutable and counted, so that images and
 * states share them. Rows that compaction made unreachable stay: the state sweeps them again after a load. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"

void image_init(struct image *m)
{
    memset(m, 0, sizeof *m);
    m->counters.revision = 1;
}

void image_free(struct image *m)
{
    for (size_t i = 0; i < m->version_count; i++) {
        hw_version_unref(m->versions[i]);
    }
    free(m->versions);
    free(m->nodes);
    free(m->events);
    free(m->leases);
    image_init(m);
}

static void *grow(void *at, size_t count, size_t size)
{
    void *p = realloc(at, (count > 0 ? count : 1) * size);
    hw_assert(p != NULL);
    return p;
}

static void add_versions(struct image *m, struct hw_version *const *versions, size_t count)
{
    if (m->version_count + count > m->version_cap) {
        m->version_cap = 2 * (m->version_count + count);
        m->versions = grow(m->versions, m->version_cap, sizeof m->versions[0]);
    }
    for (size_t i = 0; i < count; i++) {
        m->versions[m->version_count++] = hw_version_ref(versions[i]);
    }
}

static void add_events(struct image *m, const struct hw_event *events, size_t count)
{
    if (count == 0) {
        return;
    }
    m->events = grow(m->events, m->event_count + count, sizeof m->events[0]);
    memcpy(m->events + m->event_count, events, count * sizeof events[0]);
    m->event_count += count;
}

static void set_nodes(struct image *m, const struct hw_node *nodes, size_t count)
{
    m->nodes = grow(m->nodes, count, sizeof m->nodes[0]);
    if (count > 0) {
        memcpy(m->nodes, nodes, count * sizeof nodes[0]);
    }
    m->node_count = count;
}

static size_t lease_place(const struct image *m, int64_t id)
{
    size_t i = 0;
    while (i < m->lease_count && m->leases[i].id < id) {
        i++;
    }
    return i;
}

static void set_lease(struct image *m, const struct hw_lease_record *r)
{
    size_t i = lease_place(m, r->id);
    bool is_there = i < m->lease_count && m->leases[i].id == r->id;
    if (r->is_gone && is_there) {
        memmove(m->leases + i, m->leases + i + 1, (m->lease_count - i - 1) * sizeof *r);
        m->lease_count--;
    } else if (!r->is_gone && !is_there) {
        m->leases = grow(m->leases, m->lease_count + 1, sizeof *r);
        memmove(m->leases + i + 1, m->leases + i, (m->lease_count - i) * sizeof *r);
        m->lease_count++;
    }
    if (!r->is_gone) {
        m->leases[i] = *r;
    }
}

static void set_leases(struct image *m, const struct hw_lease_record *leases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        set_lease(m, &leases[i]);
    }
}

void image_apply(struct image *m, const struct hw_cut *cut)
{
    if (cut->applied <= m->counters.applied) {
        return;
    }
    m->counters = (struct hw_hot_counters){
        .applied = cut->applied,
        .revision = cut->revision,
        .compacted = cut->compacted,
        .epoch = cut->epoch,
        .hot_node = cut->hot_node,
        .event_seq = cut->event_seq,
        .hash = cut->hash,
    };
    add_versions(m, cut->versions, cut->version_count);
    add_events(m, cut->events, cut->event_count);
    set_leases(m, cut->leases, cut->lease_count);
    if (cut->nodes_changed) {
        set_nodes(m, cut->nodes, cut->node_count);
    }
}

void image_copy(struct image *to, const struct image *from)
{
    image_free(to);
    to->counters = from->counters;
    add_versions(to, from->versions, from->version_count);
    add_events(to, from->events, from->event_count);
    set_nodes(to, from->nodes, from->node_count);
    set_leases(to, from->leases, from->lease_count);
}

static int by_key_and_revision(const void *x, const void *y)
{
    const struct hw_version *a = *(struct hw_version *const *)x;
    const struct hw_version *b = *(struct hw_version *const *)y;
    int order = hw_slice_cmp(hw_slice_of(a->key->data, a->key->len), hw_slice_of(b->key->data, b->key->len));
    if (order == 0) {
        order = a->mod_main < b->mod_main ? -1 : a->mod_main > b->mod_main;
    }
    return order != 0 ? order : a->mod_sub < b->mod_sub ? -1 : a->mod_sub > b->mod_sub;
}

struct hw_hot *image_load(struct sim *s, struct image *m)
{
    struct hw_hot *hot = hw_hot_new();
    struct hw_error e = {0};
    int rc = 0;
    hw_assert(hot != NULL);
    if (m->version_count > 0) {
        qsort(m->versions, m->version_count, sizeof m->versions[0], by_key_and_revision);
    }
    for (size_t i = 0; i < m->version_count && rc == 0; i++) {
        rc = hw_hot_load_version(hot, hw_version_ref(m->versions[i]));
        if (rc != 0) {
            hw_version_unref(m->versions[i]);
        }
    }
    for (size_t i = 0; i < m->node_count && rc == 0; i++) {
        rc = hw_hot_load_node(hot, &m->nodes[i]);
    }
    for (size_t i = 0; i < m->event_count && rc == 0; i++) {
        rc = hw_hot_load_event(hot, &m->events[i]);
    }
    for (size_t i = 0; i < m->lease_count && rc == 0; i++) {
        struct hw_lease_record r = m->leases[i];
        r.remaining_s = s->options->canary == CANARY_LEASE ? 0 : r.remaining_s;
        rc = hw_hot_load_lease(hot, &r);
    }
    if (rc == 0) {
        rc = hw_hot_load_finish(hot, &m->counters, &e);
    }
    if (rc != 0) {
        sim_fail(s, "an image cannot be loaded: %s", hw_err_text(rc));
        hw_hot_free(hot);
        return NULL;
    }
    return hot;
}
