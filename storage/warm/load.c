/* Reading a whole image: load and verify.
 *
 * The state wants its versions in (key, main, sub) order, the table has them in the order they were written. Following
 * the index row by row would be a random read each; sorting keys with long common prefixes is slow. So two linear
 * walks: the table in id order makes the records, then the index alone, which holds (key, main, sub, id), says in which
 * order to hand them over. The second walk also compares every entry of the index with its record, so an index that
 * lost or invented a row is found here.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "storage/warm/rows.h"

#define INDEX_WALK_SQL "SELECT id, main, sub, key FROM revision INDEXED BY revision_by_key ORDER BY key, main, sub"
#define PROGRESS_ROWS 16384

struct slot {
    int64_t id;
    struct hw_version *version; /* NULL once the second walk took it */
};

struct loader {
    struct hw_db *db;
    struct hw_hot *hot;
    struct hw_image_head head;
    struct slot *slots; /* by rising id */
    size_t slot_count;
    size_t slot_max;
    struct hw_version *pending; /* the newest record in key order, not handed over yet */
    hw_image_progress_fn progress;
    void *progress_ctx;
};

static int damaged(struct hw_db *db, struct hw_error *e, const char *what)
{
    return hw_error_set(e, HW_ERR_CORRUPT, "%s: %s", hw_db_path(db), what);
}

static void report(struct loader *l, size_t steps)
{
    if (l->progress != NULL && steps % PROGRESS_ROWS == 0) {
        uint64_t done = steps / 2; /* two walks: each row counts half in each */
        l->progress(l->progress_ctx, done > l->head.meta.row_count ? l->head.meta.row_count : done,
                    l->head.meta.row_count);
    }
}

static int add_slot(struct loader *l, int64_t id, struct hw_version *v, struct hw_error *e)
{
    if (l->slot_count == l->slot_max) {
        size_t max = l->slot_max == 0 ? 1024 : l->slot_max * 2;
        struct slot *slots = realloc(l->slots, max * sizeof *slots);
        if (slots == NULL) {
            return hw_error_set(e, HW_ERR_NOMEM, "load %s: out of memory", hw_db_path(l->db));
        }
        l->slots = slots;
        l->slot_max = max;
    }
    l->slots[l->slot_count++] = (struct slot){id, v};
    return 0;
}

static int read_table(struct loader *l, struct hw_error *e)
{
    struct hw_stmt *s = NULL;
    struct hw_version *v;
    uint64_t hash = 0;
    int64_t last = INT64_MIN;
    int rc = hw_db_stmt(l->db, "SELECT " HW_ROW_COLUMNS " FROM revision ORDER BY id", &s, e);
    while (rc == 0 && (rc = hw_stmt_step(s, e)) > 0) {
        int64_t id = hw_stmt_i64(s, 0);
        if ((rc = hw_row_to_version(s, &v, e)) != 0) {
            break;
        }
        if (id <= last && l->slot_count > 0) {
            rc = damaged(l->db, e, "rows of table revision are out of order");
        } else {
            rc = add_slot(l, id, v, e);
        }
        if (rc != 0) {
            hw_version_unref(v);
            break;
        }
        last = id;
        hash += hw_version_hash(v);
        report(l, l->slot_count);
    }
    if (rc != 0) {
        hw_stmt_reset(s);
        return rc;
    }
    if (l->slot_count != l->head.meta.row_count || hash != l->head.meta.rows_hash) {
        return damaged(l->db, e, "table revision does not fit its checksum");
    }
    return 0;
}

/* Ids have no gaps but those that sweeps leave, so a guess from the first id is right most of the time. */
static struct slot *find_slot(struct loader *l, int64_t id)
{
    size_t low = 0;
    size_t high = l->slot_count;
    if (high > 0 && id >= l->slots[0].id) {
        uint64_t guess = (uint64_t)id - (uint64_t)l->slots[0].id;
        if (guess < high && l->slots[guess].id == id) {
            return &l->slots[guess];
        }
        high = guess < high ? (size_t)guess : high;
    }
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (l->slots[mid].id < id) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < l->slot_count && l->slots[low].id == id ? &l->slots[low] : NULL;
}

static int hand_over(struct loader *l, struct hw_version *v, struct hw_error *e)
{
    int rc = hw_hot_load_version(l->hot, v);
    if (rc != 0) {
        return hw_error_set(e, rc, "%s: load revision %" PRId64 ": %s", hw_db_path(l->db), v->mod_main,
                            hw_err_text(rc));
    }
    return 0;
}

/* What compaction made unreachable may be in the image still, wholly or in part, until the sweep gets there; the state
 * gets what its rule leaves: below the compacted revision only the newest version of a key that this revision did not
 * write, and that not when it is a tombstone. So a version is handed over once the next one is known (NULL: there is
 * none). */
static int settle(struct loader *l, const struct hw_version *next, struct hw_error *e)
{
    struct hw_version *v = l->pending;
    hw_rev compacted = l->head.meta.counters.compacted;
    bool is_followed = next != NULL && next->key == v->key && next->mod_main <= compacted;
    int rc;
    if (v->mod_main < compacted && (v->is_tombstone || is_followed)) {
        hw_version_unref(v);
        l->pending = NULL;
        return 0;
    }
    rc = hand_over(l, v, e);
    if (rc == 0) {
        l->pending = NULL;
    }
    return rc;
}

static int take_next(struct loader *l, struct slot *slot, struct hw_error *e)
{
    struct hw_version *v = slot->version;
    struct hw_version *before = l->pending;
    int rc = 0;
    if (before != NULL && before->key->len == v->key->len &&
        memcmp(before->key->data, v->key->data, v->key->len) == 0) {
        /* All versions of a key share its bytes; nobody else has seen this record yet. */
        hw_key_name_unref(v->key);
        v->key = hw_key_name_ref(before->key);
    }
    if (before != NULL && (rc = settle(l, v, e)) != 0) {
        return rc;
    }
    l->pending = v;
    slot->version = NULL;
    return 0;
}

static int read_index(struct loader *l, struct hw_error *e)
{
    struct hw_stmt *s = NULL;
    size_t count = 0;
    int rc = hw_db_stmt(l->db, INDEX_WALK_SQL, &s, e);
    while (rc == 0 && (rc = hw_stmt_step(s, e)) > 0) {
        struct slot *slot = find_slot(l, hw_stmt_i64(s, 0));
        const struct hw_version *v = slot == NULL ? NULL : slot->version;
        if (v == NULL || v->mod_main != hw_stmt_i64(s, 1) || (int64_t)v->mod_sub != hw_stmt_i64(s, 2) ||
            !hw_slice_is_equal(hw_stmt_blob(s, 3), hw_slice_of(v->key->data, v->key->len))) {
            rc = damaged(l->db, e, "index revision_by_key does not fit its table");
        } else {
            rc = take_next(l, slot, e);
        }
        count++;
        report(l, l->slot_count + count);
    }
    hw_stmt_reset(s);
    if (rc == 0 && count != l->slot_count) {
        rc = damaged(l->db, e, "index revision_by_key lacks rows of its table");
    }
    return rc == 0 && l->pending != NULL ? settle(l, NULL, e) : rc;
}

static int load_node(void *ctx, const struct hw_node *node)
{
    return hw_hot_load_node(ctx, node);
}

static int load_event(void *ctx, const struct hw_event *event)
{
    return hw_hot_load_event(ctx, event);
}

static int load_lease(void *ctx, const struct hw_lease_record *lease)
{
    return hw_hot_load_lease(ctx, lease);
}

static int load_all(struct loader *l, struct hw_error *e)
{
    int rc;
    if ((rc = hw_head_read(l->db, &l->head, e)) != 0 || (rc = read_table(l, e)) != 0 || (rc = read_index(l, e)) != 0 ||
        (rc = hw_registry_walk(l->db, &l->head, load_node, l->hot, e)) != 0 ||
        (rc = hw_events_walk(l->db, &l->head, load_event, l->hot, e)) != 0 ||
        (rc = hw_lease_rows_walk(l->db, &l->head, load_lease, l->hot, e)) != 0) {
        return rc;
    }
    if ((rc = hw_hot_load_finish(l->hot, &l->head.meta.counters, e)) != 0) {
        hw_error_wrap(e, "%s", hw_db_path(l->db));
    } else if (l->progress != NULL) {
        l->progress(l->progress_ctx, l->head.meta.row_count, l->head.meta.row_count);
    }
    return rc;
}

int hw_image_load(struct hw_image *image, struct hw_hot **hot, hw_image_progress_fn progress, void *ctx,
                  struct hw_error *e)
{
    struct loader l = {.db = image->db, .progress = progress, .progress_ctx = ctx};
    int rc;
    l.hot = hw_hot_new();
    if (l.hot == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "load %s: out of memory", hw_db_path(image->db));
    }
    if ((rc = hw_db_begin_read(image->db, e)) == 0) {
        rc = load_all(&l, e);
        hw_db_rollback(image->db);
    }
    for (size_t i = 0; i < l.slot_count; i++) {
        if (l.slots[i].version != NULL) {
            hw_version_unref(l.slots[i].version);
        }
    }
    free(l.slots);
    if (l.pending != NULL) {
        hw_version_unref(l.pending);
    }
    if (rc != 0) {
        hw_hot_free(l.hot);
        return rc;
    }
    *hot = l.hot;
    return 0;
}

/* One entry of the index, hashed alike from the table and from the index: equal sums mean equal entries. */
static uint64_t entry_hash(int64_t id, int64_t main, int64_t sub, struct hw_slice key)
{
    int64_t numbers[3] = {id, main, sub};
    return XXH3_64bits_withSeed(key.data, key.len, XXH3_64bits(numbers, sizeof numbers));
}

static int verify_rows(struct hw_db *db, const struct hw_image_head *head, struct hw_error *e)
{
    struct hw_stmt *s = NULL;
    struct hw_version *v;
    uint64_t hash = 0;
    uint64_t count = 0;
    uint64_t entries = 0;
    int rc = hw_db_stmt(db, "SELECT " HW_ROW_COLUMNS " FROM revision ORDER BY id", &s, e);
    while (rc == 0 && (rc = hw_stmt_step(s, e)) > 0) {
        if ((rc = hw_row_to_version(s, &v, e)) != 0) {
            hw_stmt_reset(s);
            return rc;
        }
        if (v->mod_main > head->meta.counters.revision || (uint64_t)hw_stmt_i64(s, 0) > head->last_id) {
            rc = damaged(db, e, "a row of table revision is newer than the image");
        }
        hash += hw_version_hash(v);
        entries += entry_hash(hw_stmt_i64(s, 0), v->mod_main, v->mod_sub, hw_slice_of(v->key->data, v->key->len));
        count++;
        hw_version_unref(v);
    }
    hw_stmt_reset(s);
    if (rc == 0 && (count != head->meta.row_count || hash != head->meta.rows_hash)) {
        rc = damaged(db, e, "table revision does not fit its checksum");
    }
    if (rc == 0) {
        rc = hw_db_stmt(db, INDEX_WALK_SQL, &s, e);
    }
    while (rc == 0 && (rc = hw_stmt_step(s, e)) > 0) {
        entries -= entry_hash(hw_stmt_i64(s, 0), hw_stmt_i64(s, 1), hw_stmt_i64(s, 2), hw_stmt_blob(s, 3));
        rc = 0;
    }
    if (rc == 0 && entries != 0) {
        rc = damaged(db, e, "index revision_by_key does not fit its table");
    }
    return rc;
}

static int check_counters(struct hw_db *db, const struct hw_image_head *head, struct hw_error *e)
{
    const struct hw_hot_counters *c = &head->meta.counters;
    if (head->meta.format != HW_IMAGE_FORMAT || c->revision < 1 || c->compacted < 0 || c->compacted > c->revision ||
        head->swept > c->compacted) {
        return damaged(db, e, "the counters of table meta contradict each other");
    }
    return 0;
}

static int quick_check(struct hw_db *db, struct hw_error *e)
{
    struct hw_stmt *s;
    char words[200];
    int rc = hw_db_stmt(db, "PRAGMA quick_check(1)", &s, e);
    if (rc != 0 || (rc = hw_stmt_step(s, e)) < 0) {
        return rc;
    }
    if (rc > 0) {
        struct hw_slice text = hw_stmt_text(s, 0);
        size_t len = text.len < sizeof words ? text.len : sizeof words - 1;
        memcpy(words, text.data, len);
        words[len] = '\0';
        hw_stmt_reset(s);
        rc = strcmp(words, "ok") == 0 ? 0 : damaged(db, e, words);
    }
    return rc;
}

static int verify_all(struct hw_db *db, struct hw_image_head *head, struct hw_error *e)
{
    int rc;
    if ((rc = quick_check(db, e)) != 0 || (rc = hw_schema_check(db, e)) != 0 || (rc = hw_head_read(db, head, e)) != 0 ||
        (rc = check_counters(db, head, e)) != 0 || (rc = verify_rows(db, head, e)) != 0 ||
        (rc = hw_registry_walk(db, head, NULL, NULL, e)) != 0 || (rc = hw_events_walk(db, head, NULL, NULL, e)) != 0) {
        return rc;
    }
    return hw_lease_rows_walk(db, head, NULL, NULL, e);
}

int hw_image_verify(struct hw_image *image, struct hw_image_meta *meta, struct hw_error *e)
{
    struct hw_image_head head;
    int rc = hw_db_begin_read(image->db, e);
    if (rc != 0) {
        return rc;
    }
    rc = verify_all(image->db, &head, e);
    hw_db_rollback(image->db);
    if (rc == 0 && meta != NULL) {
        *meta = head.meta;
    }
    return rc;
}
