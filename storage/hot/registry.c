/* The nodes, the hot tenure and the history: small, whole in memory, written only by commands. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "storage/hot/state.h"

/* ---- history ---- */

int hw_history_reserve(struct hw_history *y)
{
    size_t cap = y->cap == 0 ? 16 : y->cap * 2;
    struct hw_event *at;
    if (y->count < y->cap || y->cap == HW_HISTORY_MAX) {
        return 0;
    }
    at = realloc(y->at, cap * sizeof *at);
    if (at == NULL) {
        return HW_ERR_NOMEM;
    }
    y->at = at;
    y->cap = cap;
    return 0;
}

/* After hw_history_reserve. Only a full ring turns, so that growing never has to unroll it. */
void hw_history_push(struct hw_history *y, const struct hw_event *event)
{
    hw_assert(y->cap > 0);
    if (y->count < y->cap) {
        y->at[y->count++] = *event;
    } else {
        y->at[y->start] = *event;
        y->start = (y->start + 1) % y->cap;
    }
    y->seq = event->seq;
}

static uint64_t event_hash(const struct hw_event *v)
{
    uint64_t numbers[] = {'E', v->seq, v->index, v->wall_ms, v->epoch, v->node_id};
    uint64_t hash = hw_hash_numbers(numbers, hw_array_len(numbers));
    return hw_hash_text(v->text, hw_hash_text(v->kind, hw_hash_text(v->node, hash)));
}

/* After hw_history_reserve. */
static void record(struct hw_hot *h, const struct hw_event *event, uint64_t wall_ms, uint64_t index)
{
    struct hw_event v = *event;
    const struct hw_node *node = v.node[0] == '\0' ? hw_hot_node_by_id(h, v.node_id) : NULL;
    if (node != NULL) {
        memcpy(v.node, node->name, sizeof v.node);
    }
    v.seq = h->history.seq + 1;
    v.index = index;
    v.wall_ms = wall_ms;
    v.epoch = h->epoch;
    hw_history_push(&h->history, &v);
    h->hash += event_hash(&v);
}

int hw_history_add(struct hw_hot *h, const struct hw_event *event, uint64_t wall_ms, uint64_t index)
{
    if (hw_history_reserve(&h->history) != 0) {
        return HW_ERR_NOMEM;
    }
    record(h, event, wall_ms, index);
    return 0;
}

static void record_node(struct hw_hot *h, const char *kind, const struct hw_node *node, uint64_t wall_ms,
                        uint64_t index)
{
    struct hw_event v = {.node_id = node->id};
    memcpy(v.node, node->name, sizeof v.node);
    snprintf(v.kind, sizeof v.kind, "%s", kind);
    snprintf(v.text, sizeof v.text, "%s, peers at %s, clients at %s", node->name, node->peer_address,
             node->client_address);
    record(h, &v, wall_ms, index);
}

size_t hw_hot_event_count(const struct hw_hot *h)
{
    return h->history.count;
}

const struct hw_event *hw_hot_event_at(const struct hw_hot *h, size_t i)
{
    if (i >= h->history.count) {
        return NULL;
    }
    return &h->history.at[(h->history.start + i) % h->history.cap];
}

/* ---- nodes ---- */

static uint64_t node_hash(const struct hw_node *n, uint64_t index)
{
    uint64_t numbers[] = {'N', index, n->id, n->added_wall_ms};
    uint64_t hash = hw_hash_text(n->name, hw_hash_numbers(numbers, hw_array_len(numbers)));
    return hw_hash_text(n->client_address, hw_hash_text(n->peer_address, hash));
}

/* Where the node is, or would be. */
static size_t place_of(const struct hw_registry *r, uint64_t id)
{
    size_t i = 0;
    while (i < r->count && r->nodes[i].id < id) {
        i++;
    }
    return i;
}

int hw_registry_insert(struct hw_registry *r, const struct hw_node *node)
{
    size_t i = place_of(r, node->id);
    if (r->count == r->cap) {
        size_t cap = r->cap == 0 ? 8 : r->cap * 2;
        struct hw_node *nodes = realloc(r->nodes, cap * sizeof *nodes);
        if (nodes == NULL) {
            return HW_ERR_NOMEM;
        }
        r->nodes = nodes;
        r->cap = cap;
    }
    memmove(&r->nodes[i + 1], &r->nodes[i], (r->count - i) * sizeof r->nodes[0]);
    r->nodes[i] = *node;
    r->count++;
    return 0;
}

static bool is_same_node(const struct hw_node *a, const struct hw_node *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->peer_address, b->peer_address) == 0 &&
           strcmp(a->client_address, b->client_address) == 0;
}

static int check_node(const struct hw_hot *h, const struct hw_node *node, const struct hw_node *known)
{
    const struct hw_node *namesake = hw_hot_node_by_name(h, node->name);
    if (node->id == 0 || node->name[0] == '\0') {
        return HW_ERR_INVALID;
    }
    if (namesake != NULL && namesake->id != node->id) {
        return HW_ERR_EXISTS;
    }
    return known == NULL && h->registry.count >= HW_NODES_MAX ? HW_ERR_EXHAUSTED : 0;
}

int hw_registry_set(struct hw_hot *h, const struct hw_node *node, uint64_t wall_ms, uint64_t index, int *code)
{
    const struct hw_node *known = hw_hot_node_by_id(h, node->id);
    struct hw_node n = *node;
    *code = check_node(h, node, known);
    if (*code != 0 || (known != NULL && is_same_node(known, node))) {
        return 0; /* saying the same again is no news */
    }
    n.added_wall_ms = known == NULL ? wall_ms : known->added_wall_ms;
    if (hw_history_reserve(&h->history) != 0) {
        return HW_ERR_NOMEM;
    }
    if (known != NULL) {
        h->registry.nodes[place_of(&h->registry, n.id)] = n;
    } else if (hw_registry_insert(&h->registry, &n) != 0) {
        return HW_ERR_NOMEM;
    }
    h->registry.is_changed = true;
    h->hash += node_hash(&n, index);
    record_node(h, known == NULL ? "node-added" : "node-changed", &n, wall_ms, index);
    return 0;
}

int hw_registry_remove(struct hw_hot *h, uint64_t id, uint64_t wall_ms, uint64_t index, int *code)
{
    struct hw_registry *r = &h->registry;
    size_t i = place_of(r, id);
    uint64_t numbers[] = {'R', index, id};
    struct hw_node n;
    *code = i == r->count || r->nodes[i].id != id ? HW_ERR_NOTFOUND : 0;
    if (*code != 0) {
        return 0;
    }
    if (hw_history_reserve(&h->history) != 0) {
        return HW_ERR_NOMEM;
    }
    n = r->nodes[i];
    r->count--;
    memmove(&r->nodes[i], &r->nodes[i + 1], (r->count - i) * sizeof r->nodes[0]);
    r->is_changed = true;
    h->hash += hw_hash_numbers(numbers, hw_array_len(numbers));
    record_node(h, "node-removed", &n, wall_ms, index);
    return 0;
}

size_t hw_hot_node_count(const struct hw_hot *h)
{
    return h->registry.count;
}

const struct hw_node *hw_hot_node_at(const struct hw_hot *h, size_t i)
{
    return i < h->registry.count ? &h->registry.nodes[i] : NULL;
}

const struct hw_node *hw_hot_node_by_id(const struct hw_hot *h, uint64_t id)
{
    size_t i = place_of(&h->registry, id);
    return i < h->registry.count && h->registry.nodes[i].id == id ? &h->registry.nodes[i] : NULL;
}

const struct hw_node *hw_hot_node_by_name(const struct hw_hot *h, const char *name)
{
    for (size_t i = 0; i < h->registry.count; i++) {
        if (strcmp(h->registry.nodes[i].name, name) == 0) {
            return &h->registry.nodes[i];
        }
    }
    return NULL;
}

/* ---- tenure ---- */

/* An epoch belongs to one node for ever: it is the fencing token. So also a second claim to the epoch in force, not
 * only one to an older epoch, changes nothing. */
int hw_tenure_apply(struct hw_hot *h, uint64_t node_id, const char *name, uint64_t epoch, uint64_t wall_ms,
                    uint64_t index)
{
    uint64_t numbers[] = {'H', index, node_id, epoch};
    struct hw_event v = {.node_id = node_id};
    if (epoch <= h->epoch) {
        return 0;
    }
    if (hw_history_reserve(&h->history) != 0) {
        return HW_ERR_NOMEM;
    }
    h->epoch = epoch;
    h->hot_node = node_id;
    h->hash += hw_hash_numbers(numbers, hw_array_len(numbers));
    snprintf(v.kind, sizeof v.kind, "promoted");
    snprintf(v.node, sizeof v.node, "%s", name);
    snprintf(v.text, sizeof v.text, "%s is hot, epoch %" PRIu64, name, epoch);
    record(h, &v, wall_ms, index);
    return 0;
}

uint64_t hw_hot_epoch(const struct hw_hot *h)
{
    return h->epoch;
}

uint64_t hw_hot_hot_node(const struct hw_hot *h)
{
    return h->hot_node;
}
