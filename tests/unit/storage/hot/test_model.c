/* The state against the model of model.h. A seeded run of random commands, ranges at old revisions, scans and hashes
 * that stay open across writes, compactions and sweeps, cuts, and loads from what was cut. HW_SEED and HW_MODEL_OPS
 * replay and lengthen it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/rng.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/hot/kit.h"
#include "tests/unit/storage/hot/model.h"

#define OPS_DEFAULT 100000
#define OPEN_MAX 4

struct open_scan {
    struct hw_scan *scan;
    bool keys_only;
    char *expected;
};

struct open_hasher {
    struct hw_hasher *hasher;
    uint64_t expected;
};

struct world {
    struct kit kit;
    struct model model;
    struct hw_rng rng;
    struct open_scan scans[OPEN_MAX];
    struct open_hasher hasher;
    struct hw_version **image; /* everything that was cut */
    size_t image_count;
    size_t image_cap;
    struct hw_lease_record leases[MODEL_LEASES]; /* of the image; id 0: none */
    struct hw_buf expected;
    struct hw_buf got;
    size_t failures;
    size_t seen[11]; /* how often each outcome came up: a run that never does a thing proves nothing about it */
};

enum {
    SEEN_APPLIED,
    SEEN_DUPLICATE,
    SEEN_COMPACTED,
    SEEN_FUTURE,
    SEEN_NOTFOUND,
    SEEN_NO_LEASE,
    SEEN_REVOKED,
    SEEN_REVOKED_EMPTY,
    SEEN_NESTED,
    SEEN_SWEPT,
    SEEN_RELOADED
};

static uint64_t below(struct world *w, uint64_t bound)
{
    return hw_rng_below(&w->rng, bound);
}

/* ---- random questions ---- */

static struct hw_slice random_key(struct world *w)
{
    return hw_slice_str(w->model.keys[below(w, MODEL_KEYS)].name);
}

static struct hw_slice random_end(struct world *w)
{
    switch (below(w, 4)) {
    case 0:
        return OPEN_END;
    case 1:
        return random_key(w);
    default:
        return (struct hw_slice){0};
    }
}

static struct hw_slice random_value(struct world *w)
{
    static const char letters[] = "xyzxyzzyxyzx";
    return hw_slice_of(letters + below(w, 4), below(w, MODEL_VALUE_MAX + 1));
}

/* Mostly revisions that exist. */
static hw_rev random_revision(struct world *w)
{
    hw_rev oldest = w->model.compacted - 3;
    switch (below(w, 3)) {
    case 0:
        return 0;
    case 1:
        return w->model.revision - (hw_rev)below(w, 20) + 1;
    default:
        return oldest + (hw_rev)below(w, (uint64_t)(w->model.revision - oldest) + 2);
    }
}

static hw_rev random_bound(struct world *w)
{
    return below(w, 6) == 0 ? w->model.revision - (hw_rev)below(w, 100) : 0;
}

static struct hw_range random_range(struct world *w)
{
    struct hw_range r = {.key = random_key(w), .range_end = random_end(w)};
    if (below(w, 4) == 0) {
        r.key = OPEN_END;
        r.range_end = OPEN_END;
    }
    r.revision = random_revision(w);
    r.limit = below(w, 2) == 0 ? 0 : (int64_t)below(w, 12);
    r.sort_order = (enum hw_sort_order)below(w, 3);
    r.sort_target = (enum hw_sort_target)below(w, 5);
    r.keys_only = below(w, 8) == 0;
    r.count_only = below(w, 8) == 0;
    r.min_mod = random_bound(w);
    r.max_mod = random_bound(w);
    r.min_create = random_bound(w);
    r.max_create = random_bound(w);
    return r;
}

static struct hw_put random_put(struct world *w)
{
    struct hw_put p = {.key = random_key(w), .value = random_value(w), .prev_kv = below(w, 3) == 0};
    if (below(w, 10) == 0) {
        p.ignore_value = true;
        p.value.len = 0;
    }
    p.ignore_lease = below(w, 20) == 0;
    p.lease = !p.ignore_lease && below(w, 4) == 0 ? 1 + (int64_t)below(w, MODEL_LEASES) : 0;
    return p;
}

static struct hw_compare random_compare(struct world *w)
{
    struct hw_compare c = {.key = random_key(w), .range_end = random_end(w)};
    c.result = (enum hw_compare_result)below(w, 4);
    c.target = (enum hw_compare_target)below(w, 5);
    if (c.target == HW_CMP_VALUE) {
        c.value = random_value(w);
    } else if (c.target == HW_CMP_VERSION) {
        c.number = (int64_t)below(w, 4);
    } else if (c.target == HW_CMP_LEASE) {
        c.number = (int64_t)below(w, MODEL_LEASES);
    } else {
        c.number = below(w, 2) == 0 ? 0 : w->model.revision - (hw_rev)below(w, 50);
    }
    return c;
}

static void random_txn(struct world *w, struct hw_txn *txn, unsigned depth);

static struct hw_op *random_ops(struct world *w, size_t *count, unsigned depth)
{
    struct hw_op *ops;
    *count = below(w, depth == 0 ? 5 : 3);
    ops = calloc(*count + 1, sizeof *ops);
    for (size_t i = 0; i < *count; i++) {
        uint64_t dice = below(w, 10);
        if (dice < 5) {
            ops[i].type = HW_OP_PUT;
            ops[i].put = random_put(w);
        } else if (dice < 7) {
            ops[i].type = HW_OP_RANGE;
            ops[i].range = random_range(w);
        } else if (dice < 8 || depth == 3) {
            ops[i].type = HW_OP_DELETE;
            ops[i].del = (struct hw_delete){random_key(w), below(w, 3) == 0 ? random_end(w) : (struct hw_slice){0},
                                            below(w, 2) == 0};
        } else {
            ops[i].type = HW_OP_TXN;
            ops[i].txn = calloc(1, sizeof *ops[i].txn);
            random_txn(w, ops[i].txn, depth + 1);
            w->seen[SEEN_NESTED]++;
        }
    }
    return ops;
}

static void random_txn(struct world *w, struct hw_txn *txn, unsigned depth)
{
    txn->compare_count = below(w, 3);
    txn->compares = calloc(txn->compare_count + 1, sizeof *txn->compares);
    for (size_t i = 0; i < txn->compare_count; i++) {
        txn->compares[i] = random_compare(w);
    }
    txn->success = random_ops(w, &txn->success_count, depth);
    txn->failure = random_ops(w, &txn->failure_count, depth);
}

/* ---- the run ---- */

static void expect(struct world *w, bool holds, const char *what)
{
    if (!holds && w->failures++ < 5) {
        printf("  at command %" PRIu64 ": %s\n  expected %.*s\n  got      %.*s\n", w->kit.index, what,
               (int)w->expected.len, (const char *)w->expected.data, (int)w->got.len, (const char *)w->got.data);
    }
    CHECK(holds);
}

static bool is_same_text(const struct world *w)
{
    return hw_slice_is_equal(hw_buf_slice(&w->expected), hw_buf_slice(&w->got));
}

static void run_txn(struct world *w, struct hw_cmd *cmd)
{
    struct hw_result r;
    int code;
    hw_buf_clear(&w->expected);
    hw_buf_clear(&w->got);
    code = model_txn(&w->model, &cmd->txn, &w->expected);
    hotkit_apply(&w->kit, cmd, &r);
    if (r.code == 0) {
        hotkit_result_text(&w->got, &r.txn);
    }
    expect(w, r.code == code, "code of a transaction");
    expect(w, is_same_text(w), "result of a transaction");
    expect(w, r.revision == w->model.revision, "revision");
    w->seen[code == 0                  ? SEEN_APPLIED
            : code == HW_ERR_INVALID   ? SEEN_DUPLICATE
            : code == HW_ERR_COMPACTED ? SEEN_COMPACTED
            : code == HW_ERR_FUTURE    ? SEEN_FUTURE
            : code == HW_ERR_NOTFOUND  ? SEEN_NOTFOUND
                                       : SEEN_NO_LEASE]++;
    hw_result_free(&r);
}

static void step_txn(struct world *w)
{
    struct hw_cmd cmd = {.type = HW_CMD_TXN};
    random_txn(w, &cmd.txn, 0);
    run_txn(w, &cmd);
    hw_cmd_free(&cmd);
}

static void step_single(struct world *w)
{
    struct hw_op op = {.type = HW_OP_PUT};
    struct hw_cmd cmd = {.type = HW_CMD_TXN, .txn = {.success = &op, .success_count = 1}};
    op.put = random_put(w);
    if (below(w, 5) == 0) {
        op = (struct hw_op){.type = HW_OP_DELETE, .del = {random_key(w), {0}, below(w, 2) == 0}};
    } else if (below(w, 200) == 0) {
        op = (struct hw_op){.type = HW_OP_DELETE, .del = {random_key(w), random_end(w), true}};
    }
    run_txn(w, &cmd);
}

static void step_lease(struct world *w)
{
    int64_t id = 1 + (int64_t)below(w, MODEL_LEASES);
    struct hw_cmd cmd = {.type = HW_CMD_LEASE_GRANT, .grant = {id, 1 + (int64_t)below(w, 9)}};
    struct hw_lease_remaining remaining[3];
    hw_rev before = w->model.revision;
    int code = 0;
    switch (below(w, 8)) {
    case 0:
        cmd = (struct hw_cmd){.type = HW_CMD_LEASE_REVOKE, .revoke = id};
        code = model_revoke(&w->model, id);
        w->seen[w->model.revision > before ? SEEN_REVOKED : SEEN_REVOKED_EMPTY] += code == 0;
        break;
    case 1:
        for (size_t i = 0; i < hw_array_len(remaining); i++) {
            remaining[i] = (struct hw_lease_remaining){1 + (int64_t)below(w, MODEL_LEASES), (int64_t)below(w, 12)};
        }
        cmd = (struct hw_cmd){.type = HW_CMD_LEASE_CHECKPOINT,
                              .checkpoint = {remaining, below(w, hw_array_len(remaining) + 1)}};
        model_remaining(&w->model, remaining, cmd.checkpoint.count);
        break;
    default:
        code = model_grant(&w->model, id, cmd.grant.ttl_s);
    }
    expect(w, hotkit_apply(&w->kit, &cmd, NULL) == code, "code of a lease command");
    expect(w, hw_hot_revision(w->kit.hot) == w->model.revision, "revision after a lease command");
}

static void compare_leases(struct world *w)
{
    struct hw_lease_view view = {.id = INT64_MIN};
    size_t count = 0;
    for (int64_t id = 1; id <= MODEL_LEASES; id++) {
        hw_buf_clear(&w->expected);
        hw_buf_clear(&w->got);
        model_lease_text(&w->model, id, &w->expected);
        hw_buf_append_str(&w->got, hotkit_lease_text(&w->kit, id));
        expect(w, is_same_text(w), "a lease");
        if (w->model.leases[id - 1].is_there) {
            count++;
            expect(w, hw_hot_lease_next(w->kit.hot, view.id, &view) == 0 && view.id == id, "the next lease");
        }
    }
    expect(w, hw_hot_lease_next(w->kit.hot, view.id, &view) == HW_ERR_NOTFOUND, "the end of the leases");
    expect(w, hw_hot_lease_count(w->kit.hot) == count, "count of the leases");
}

static void scan_text(struct hw_buf *out, const struct hw_scan *scan, bool keys_only)
{
    size_t count;
    struct hw_version *const *kvs = hw_scan_kvs(scan, &count);
    for (size_t i = 0; i < count; i++) {
        hotkit_version_text(out, kvs[i], keys_only);
    }
    hw_buf_printf(out, "/%" PRId64 "%s;", hw_scan_count(scan), hw_scan_has_more(scan) ? "+" : "");
}

static void step_open_scan(struct world *w)
{
    struct open_scan *o = &w->scans[below(w, OPEN_MAX)];
    int rc;
    if (o->scan == NULL) {
        struct hw_range r = random_range(w);
        hw_rev rev = r.revision > 0 ? r.revision : w->model.revision;
        int code = rev > w->model.revision ? HW_ERR_FUTURE : rev < w->model.compacted ? HW_ERR_COMPACTED : 0;
        hw_buf_clear(&w->expected);
        hw_buf_clear(&w->got);
        rc = hw_scan_start(w->kit.hot, &r, &o->scan);
        expect(w, rc == (r.revision > 0 ? code : 0), "refusal of a scan");
        if (rc == 0) {
            model_range(&w->model, &r, rev, &w->expected);
            o->keys_only = r.keys_only;
            o->expected = strndup((const char *)w->expected.data, w->expected.len);
        }
        return;
    }
    rc = hw_scan_step(o->scan, 1 + below(w, 10));
    if (rc > 0) {
        return;
    }
    hw_buf_clear(&w->expected);
    hw_buf_append_str(&w->expected, o->expected);
    hw_buf_clear(&w->got);
    scan_text(&w->got, o->scan, o->keys_only);
    expect(w, rc == 0 && is_same_text(w), "a scan across writes");
    hw_scan_close(o->scan);
    free(o->expected);
    o->scan = NULL;
}

static void step_open_hasher(struct world *w)
{
    struct open_hasher *o = &w->hasher;
    hw_rev rev;
    if (o->hasher == NULL) {
        if (below(w, 10) != 0) {
            return; /* a hasher holds back every sweep: leave time without one */
        }
        rev = w->model.revision - (hw_rev)below(w, (uint64_t)(w->model.revision - w->model.compacted) + 1);
        rev = rev < 1 ? 1 : rev;
        expect(w, hw_hasher_start(w->kit.hot, rev, &o->hasher) == 0, "start of a hasher");
        o->expected = model_hash(&w->model, rev);
    } else if (hw_hasher_step(o->hasher, 1 + below(w, 100)) == 0) {
        expect(w, hw_hasher_hash(o->hasher) == o->expected, "a hash across writes");
        hw_hasher_close(o->hasher);
        o->hasher = NULL;
    }
}

static void step_compact(struct world *w)
{
    hw_rev rev = w->model.revision - (hw_rev)below(w, below(w, 4) == 0 ? 400 : 40) + 1;
    int code = rev > w->model.revision ? HW_ERR_FUTURE : rev <= w->model.compacted ? HW_ERR_COMPACTED : 0;
    expect(w, hotkit_compact(&w->kit, rev) == code, "code of a compaction");
    if (code == 0) {
        w->model.compacted = rev;
    }
}

static int compare_image(const void *a, const void *b)
{
    const struct hw_version *va = *(struct hw_version *const *)a;
    const struct hw_version *vb = *(struct hw_version *const *)b;
    int c = hw_slice_cmp(hw_slice_of(va->key->data, va->key->len), hw_slice_of(vb->key->data, vb->key->len));
    if (c == 0) {
        c = va->mod_main < vb->mod_main ? -1 : va->mod_main > vb->mod_main;
    }
    return c != 0 ? c : va->mod_sub < vb->mod_sub ? -1 : va->mod_sub > vb->mod_sub;
}

/* What the image holds after a cut: without what the compaction made unreachable. */
static void prune_image(struct world *w, hw_rev compacted)
{
    size_t kept = 0;
    qsort(w->image, w->image_count, sizeof w->image[0], compare_image);
    for (size_t i = 0; i < w->image_count; i++) {
        struct hw_version *v = w->image[i];
        bool is_newest = i + 1 == w->image_count || w->image[i + 1]->mod_main > compacted ||
                         !hw_slice_is_equal(hw_slice_of(v->key->data, v->key->len),
                                            hw_slice_of(w->image[i + 1]->key->data, w->image[i + 1]->key->len));
        if (v->mod_main < compacted && (!is_newest || v->is_tombstone)) {
            hw_version_unref(v);
        } else {
            w->image[kept++] = v;
        }
    }
    w->image_count = kept;
}

static void take_cut(struct world *w, struct hw_hot_counters *c)
{
    struct hw_cut *cut;
    REQUIRE(hw_hot_cut(w->kit.hot, &cut) == 0);
    CHECK(hw_hot_dirty_count(w->kit.hot) == 0 && hw_hot_dirty_bytes(w->kit.hot) == 0);
    while (w->image_count + cut->version_count > w->image_cap) {
        w->image_cap = w->image_cap == 0 ? 1024 : w->image_cap * 2;
        w->image = realloc(w->image, w->image_cap * sizeof(struct hw_version *));
    }
    for (size_t i = 0; i < cut->version_count; i++) {
        w->image[w->image_count++] = hw_version_ref(cut->versions[i]);
    }
    prune_image(w, cut->compacted);
    for (size_t i = 0; i < cut->lease_count; i++) {
        const struct hw_lease_record *r = &cut->leases[i];
        w->leases[r->id - 1] = r->is_gone ? (struct hw_lease_record){0} : *r;
    }
    *c = (struct hw_hot_counters){cut->applied,  cut->revision,  cut->compacted, cut->epoch,
                                  cut->hot_node, cut->event_seq, cut->hash};
    hw_cut_free(cut);
}

static void load_leases(struct world *w, struct hw_hot *loaded)
{
    for (size_t i = 0; i < MODEL_LEASES; i++) {
        if (w->leases[i].id != 0) {
            expect(w, hw_hot_load_lease(loaded, &w->leases[i]) == 0, "load of a lease");
        }
    }
}

/* Cut, load a fresh state from all cuts, and go on with either of the two: they must be the same. */
static void step_reload(struct world *w)
{
    struct hw_hot *loaded = hw_hot_new();
    struct hw_hot_counters c;
    uint64_t hash;
    bool is_busy = w->hasher.hasher != NULL;
    bool are_leases_first = below(w, 2) == 0;
    take_cut(w, &c);
    if (are_leases_first) {
        load_leases(w, loaded);
    }
    for (size_t i = 0; i < w->image_count; i++) {
        expect(w, hw_hot_load_version(loaded, hw_version_ref(w->image[i])) == 0, "load of a version");
    }
    if (!are_leases_first) {
        load_leases(w, loaded);
    }
    expect(w, hw_hot_load_finish(loaded, &c, NULL) == 0, "end of a load");
    expect(w, hw_hot_check(loaded) == NULL, "invariants of a loaded state");
    expect(w, hw_hot_hash(loaded) == hw_hot_hash(w->kit.hot), "fingerprint of a loaded state");
    expect(w, hw_hot_key_count(loaded) == hw_hot_key_count(w->kit.hot), "key count of a loaded state");
    hash = hotkit_hash(&w->kit, 0, 100);
    expect(w, hash == model_hash(&w->model, w->model.revision), "hash of the state");
    for (int i = 0; i < OPEN_MAX; i++) {
        is_busy = is_busy || w->scans[i].scan != NULL;
    }
    if (is_busy) {
        hw_hot_free(loaded);
    } else {
        hw_hot_free(w->kit.hot);
        w->kit.hot = loaded;
    }
    expect(w, hotkit_hash(&w->kit, 0, 7) == hash, "hash of a loaded state");
    compare_leases(w);
    w->seen[SEEN_RELOADED]++;
}

static void step(struct world *w)
{
    uint64_t dice = below(w, 1000);
    if (dice < 440) {
        step_single(w);
    } else if (dice < 500) {
        step_lease(w);
    } else if (dice < 700) {
        step_txn(w);
    } else if (dice < 900) {
        step_open_scan(w);
    } else if (dice < 940) {
        step_open_hasher(w);
    } else if (dice < 950) {
        step_compact(w);
    } else if (dice < 999) {
        size_t before = hw_hot_version_count(w->kit.hot);
        hw_hot_sweep(w->kit.hot, 1 + below(w, 200));
        w->seen[SEEN_SWEPT] += hw_hot_version_count(w->kit.hot) < before;
    } else if (below(w, 4) == 0) {
        step_reload(w);
    } else {
        expect(w, hw_hot_check(w->kit.hot) == NULL, "invariants");
        compare_leases(w);
    }
}

static void close_world(struct world *w)
{
    for (int i = 0; i < OPEN_MAX; i++) {
        if (w->scans[i].scan != NULL) {
            hw_scan_close(w->scans[i].scan);
            free(w->scans[i].expected);
        }
    }
    hw_hasher_close(w->hasher.hasher);
    for (size_t i = 0; i < w->image_count; i++) {
        hw_version_unref(w->image[i]);
    }
    free(w->image);
    model_free(&w->model);
    hw_buf_free(&w->expected);
    hw_buf_free(&w->got);
    hotkit_close(&w->kit);
}

static void the_state_agrees_with_the_model(void)
{
    static struct world w;
    const char *text = getenv("HW_MODEL_OPS");
    size_t ops = text != NULL ? strtoull(text, NULL, 0) : OPS_DEFAULT;
    memset(&w, 0, sizeof w);
    hotkit_open(&w.kit);
    model_init(&w.model);
    hw_rng_seed(&w.rng, hotkit_seed("hot model"));
    for (size_t i = 0; i < ops && w.failures == 0; i++) {
        step(&w);
    }
    if (ops >= OPS_DEFAULT) {
        for (size_t i = 0; i < hw_array_len(w.seen); i++) {
            CHECK(w.seen[i] > 0);
        }
    }
    close_world(&w);
}

HW_SUITE(hot_model, HW_CASE(the_state_agrees_with_the_model))
