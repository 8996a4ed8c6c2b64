/* Every invariant of the structure, for tests and debug builds. */
#include <string.h>

#include "storage/hot/state.h"

const char *hw_version_problem(const struct hw_version *before, const struct hw_version *v)
{
    if (v->mod_main < 2) {
        return "a version was written at a revision that is none";
    }
    if (v->is_tombstone && (v->create_main != 0 || v->version != 0 || v->value_len != 0 || v->lease != 0)) {
        return "a tombstone holds something";
    }
    if (!v->is_tombstone && (v->create_main < 2 || v->create_main > v->mod_main || v->version < 1)) {
        return "a version was created after it was written";
    }
    if (before == NULL) {
        return NULL;
    }
    if (v->mod_main < before->mod_main || (v->mod_main == before->mod_main && v->mod_sub <= before->mod_sub)) {
        return "the versions of a key do not rise";
    }
    if (before->is_tombstone) {
        return v->is_tombstone || v->version != 1 || v->create_main != v->mod_main
                   ? "what follows a tombstone is not a creation"
                   : NULL;
    }
    if (!v->is_tombstone && (v->version != before->version + 1 || v->create_main != before->create_main)) {
        return "a version does not follow the one before it";
    }
    return NULL;
}

static const char *check_index(const struct hw_hot *h)
{
    const struct hw_index *ix = &h->index;
    struct hw_index_key *before = NULL;
    size_t keys = 0;
    size_t live = 0;
    size_t versions = 0;
    for (struct hw_index_key *k = hw_index_first(ix); k != NULL; k = hw_index_next(k)) {
        const struct hw_version *older = NULL;
        if (before != NULL && hw_slice_cmp(hw_index_slice(before), hw_index_slice(k)) >= 0) {
            return "the keys are not in order";
        }
        if (k->count == 0) {
            return "a key has no version";
        }
        for (uint32_t i = 0; i < k->count; i++) {
            const struct hw_version *v = hw_index_version(k, i);
            const char *problem = hw_version_problem(older, v);
            if (problem != NULL) {
                return problem;
            }
            if (!hw_slice_is_equal(hw_slice_of(v->key->data, v->key->len), hw_index_slice(k))) {
                return "a version hangs on another key";
            }
            older = v;
        }
        if (older->mod_main > h->revision) {
            return "a version is newer than the state";
        }
        before = k;
        keys++;
        live += !older->is_tombstone;
        versions += k->count;
    }
    if (keys != ix->key_count || live != ix->live_count || versions != ix->version_count) {
        return "the counts of the index are wrong";
    }
    return NULL;
}

static const char *check_dirty(const struct hw_hot *h)
{
    const struct hw_dirty *d = &h->dirty;
    size_t bytes = 0;
    for (size_t i = 0; i < d->count; i++) {
        const struct hw_version *v = d->at[i];
        if (v->mod_main > h->revision) {
            return "a dirty version is newer than the state";
        }
        if (i > 0 && (v->mod_main < d->at[i - 1]->mod_main ||
                      (v->mod_main == d->at[i - 1]->mod_main && v->mod_sub <= d->at[i - 1]->mod_sub))) {
            return "the dirty versions are not in order";
        }
        bytes += hw_version_bytes(v) + v->key->len;
    }
    return bytes == d->bytes ? NULL : "the bytes of the dirty versions are wrong";
}

static const char *check_registry(const struct hw_hot *h)
{
    for (size_t i = 0; i < h->registry.count; i++) {
        const struct hw_node *n = &h->registry.nodes[i];
        if (i > 0 && n->id <= h->registry.nodes[i - 1].id) {
            return "the nodes are not in order";
        }
        if (hw_hot_node_by_name(h, n->name) != n) {
            return "two nodes have one name";
        }
    }
    for (size_t i = 0; i < h->history.count; i++) {
        const struct hw_event *v = hw_hot_event_at(h, i);
        if (v->seq > h->history.seq || (i > 0 && v->seq <= hw_hot_event_at(h, i - 1)->seq)) {
            return "the history is not in order";
        }
    }
    return NULL;
}

const char *hw_hot_check(const struct hw_hot *h)
{
    const char *problem = NULL;
    if (h->revision < 1 || h->compacted > h->revision || h->sweep.done > h->compacted ||
        h->sweep.target > h->compacted || h->last_cut.compacted > h->compacted) {
        return "the revisions contradict each other";
    }
    problem = check_index(h);
    if (problem == NULL) {
        problem = check_dirty(h);
    }
    if (problem == NULL) {
        problem = check_registry(h);
    }
    return problem != NULL ? problem : hw_lease_table_problem(h);
}
