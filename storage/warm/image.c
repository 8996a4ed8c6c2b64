#include "storage/warm/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "storage/warm/fs.h"
#include "storage/warm/rows.h"

/* A WAL without its image is what a quarantine or an installation leaves when the machine stops in the middle of it.
 * SQLite would replay it into whatever image.db comes next, so it goes out of the way first. */
static int set_orphan_aside(const char *folder, const char *name, const char *suffix, struct hw_error *e)
{
    char path[PATH_MAX];
    char file[NAME_MAX + 1];
    uint64_t size = 0;
    int rc = hw_fs_join(path, folder, name, suffix, e);
    if (rc != 0 || !hw_fs_is_there(path)) {
        return rc;
    }
    if ((rc = hw_fs_size(path, &size, e)) != 0) {
        return rc;
    }
    if (size == 0 || strcmp(suffix, "-shm") == 0) {
        return hw_fs_unlink(path, e);
    }
    snprintf(file, sizeof file, "%s%s", name, suffix);
    return hw_quarantine(folder, file, hw_wall_ms(), e);
}

/* The new image is built beside its place and renamed, so that an image.db is never half-made. */
static int create(const char *path, uint64_t cluster_id, struct hw_error *e)
{
    char folder[PATH_MAX];
    char part[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    struct hw_db *db;
    int rc;
    if ((rc = hw_fs_parent(folder, path, e)) != 0 || (rc = hw_fs_join(part, folder, name, ".new", e)) != 0 ||
        (rc = set_orphan_aside(folder, name, "-wal", e)) != 0 ||
        (rc = set_orphan_aside(folder, name, "-shm", e)) != 0 || (rc = hw_fs_unlink(part, e)) != 0) {
        return rc;
    }
    rc = hw_db_open(part, HW_DB_BUILD, &db, e);
    if (rc == 0) {
        rc = hw_schema_create(db, cluster_id, e);
        hw_db_close(db);
    }
    if (rc == 0 && (rc = hw_fs_sync_file(part, e)) == 0 && (rc = hw_fs_rename(part, path, e)) == 0) {
        return hw_fs_sync_dir(folder, e);
    }
    hw_fs_unlink(part, NULL);
    return rc;
}

static int read_head(struct hw_db *db, struct hw_image_head *head, struct hw_error *e)
{
    int rc = hw_db_begin_read(db, e);
    if (rc == 0) {
        rc = hw_head_read(db, head, e);
        hw_db_rollback(db);
    }
    return rc;
}

static int check_cluster(struct hw_db *db, const struct hw_image_head *head, uint64_t cluster_id, struct hw_error *e)
{
    if (cluster_id == 0 || head->meta.cluster_id == 0 || head->meta.cluster_id == cluster_id) {
        return 0;
    }
    return hw_error_set(e, HW_ERR_FOREIGN,
                        "%s belongs to cluster %016" PRIx64 ", this node to %016" PRIx64
                        ": give the node its own data folder, or move the image away to have it rebuilt",
                        hw_db_path(db), head->meta.cluster_id, cluster_id);
}

/* An image that no cluster owns yet becomes ours. */
static int bind_cluster(struct hw_db *db, uint64_t cluster_id, struct hw_error *e)
{
    struct hw_image_head head;
    int rc = hw_db_begin_write(db, e);
    if (rc == 0 && (rc = hw_head_read(db, &head, e)) == 0 && (rc = check_cluster(db, &head, cluster_id, e)) == 0) {
        head.meta.cluster_id = cluster_id;
        if ((rc = hw_head_write(db, &head, e)) == 0) {
            rc = hw_db_commit(db, e);
        }
    }
    hw_db_rollback(db);
    return rc;
}

static int wrap_open(const char *path, enum hw_db_mode mode, struct hw_image **out, struct hw_error *e)
{
    struct hw_image *image = calloc(1, sizeof *image);
    int rc;
    if (image == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "open %s: out of memory", path);
    }
    if ((rc = hw_db_open(path, mode, &image->db, e)) == 0 && (rc = hw_schema_check(image->db, e)) == 0) {
        *out = image;
        return 0;
    }
    hw_image_close(image);
    return rc;
}

int hw_image_open(const char *path, uint64_t cluster_id, struct hw_image **out, struct hw_error *e)
{
    struct hw_image *image;
    struct hw_image_head head;
    uint64_t size = 0;
    int rc;
    if (!hw_fs_is_there(path) && (rc = create(path, cluster_id, e)) != 0) {
        return rc;
    }
    if ((rc = hw_fs_size(path, &size, e)) != 0) {
        return rc;
    }
    if (size == 0) {
        /* SQLite would take it for a new file and drop its WAL. */
        return hw_error_set(e, HW_ERR_CORRUPT, "%s is empty", path);
    }
    if ((rc = wrap_open(path, HW_DB_WRITE, &image, e)) != 0) {
        return rc;
    }
    if ((rc = read_head(image->db, &head, e)) == 0 && (rc = check_cluster(image->db, &head, cluster_id, e)) == 0 &&
        (rc = hw_db_use_wal(image->db, e)) == 0 && cluster_id != head.meta.cluster_id && cluster_id != 0) {
        rc = bind_cluster(image->db, cluster_id, e);
    }
    if (rc != 0) {
        hw_image_close(image);
        return rc;
    }
    *out = image;
    return 0;
}

int hw_image_open_readonly(const char *path, struct hw_image **out, struct hw_error *e)
{
    uint64_t size = 0;
    int rc = hw_fs_size(path, &size, e);
    if (rc == 0 && size == 0) {
        rc = hw_error_set(e, HW_ERR_CORRUPT, "%s is empty", path);
    }
    return rc != 0 ? rc : wrap_open(path, HW_DB_READONLY, out, e);
}

void hw_image_close(struct hw_image *image)
{
    if (image != NULL) {
        hw_db_close(image->db);
        free(image);
    }
}

int hw_image_read_meta(struct hw_image *image, struct hw_image_meta *meta, struct hw_error *e)
{
    struct hw_image_head head;
    int rc = read_head(image->db, &head, e);
    if (rc == 0) {
        *meta = head.meta;
    }
    return rc;
}

struct span {
    const struct hw_key_name *key;
    size_t at;
};

static int compare_spans(const void *a, const void *b)
{
    const struct span *x = a;
    const struct span *y = b;
    if (x->key != y->key) {
        return (uintptr_t)x->key < (uintptr_t)y->key ? -1 : 1;
    }
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Which versions of the cut did compaction make unreachable already? Those followed by another of the same key below
 * the compacted revision. Writing them would be undone by the next sweep. The last one of a key stays even when
 * it is a tombstone: it hides older rows of the image. Keys are told apart by address, which at worst keeps too much.
 * NULL: none, or no memory to find out; both are right. */
static bool *find_unreachable(const struct hw_cut *cut)
{
    size_t count = 0;
    bool *skip = NULL;
    struct span *spans;
    while (count < cut->version_count && cut->versions[count]->mod_main < cut->compacted) {
        count++;
    }
    spans = count < 2 ? NULL : malloc(count * sizeof *spans);
    if (spans != NULL && (skip = calloc(cut->version_count, sizeof *skip)) != NULL) {
        for (size_t i = 0; i < count; i++) {
            spans[i] = (struct span){cut->versions[i]->key, i};
        }
        qsort(spans, count, sizeof *spans, compare_spans);
        for (size_t i = 0; i + 1 < count; i++) {
            skip[spans[i].at] = spans[i].key == spans[i + 1].key;
        }
    }
    free(spans);
    return skip;
}

/* Versions up to the image's revision are in it already (or swept from it): a cut may reach back further than the
 * image needs when the image came from a peer. */
static int insert_versions(struct hw_db *db, const struct hw_cut *cut, struct hw_image_head *head, struct hw_error *e)
{
    struct hw_stmt *s;
    bool *skip = find_unreachable(cut);
    int rc = hw_db_stmt(db, HW_ROW_INSERT_SQL, &s, e);
    for (size_t i = 0; rc == 0 && i < cut->version_count; i++) {
        const struct hw_version *v = cut->versions[i];
        if (v->mod_main <= head->meta.counters.revision || (skip != NULL && skip[i])) {
            continue;
        }
        if ((rc = hw_row_insert(s, ++head->last_id, v, e)) == 0) {
            head->meta.rows_hash += hw_version_hash(v);
            head->meta.row_count++;
        }
    }
    free(skip);
    return rc;
}

static int write_cut(struct hw_db *db, const struct hw_cut *cut, struct hw_image_head *head, struct hw_error *e)
{
    int rc;
    if ((rc = insert_versions(db, cut, head, e)) != 0 ||
        (rc = hw_events_append(db, cut->events, cut->event_count, head->meta.counters.event_seq, &head->event_hash,
                               e)) != 0 ||
        (rc = hw_lease_rows_apply(db, cut->leases, cut->lease_count, &head->lease_hash, e)) != 0) {
        return rc;
    }
    if (cut->nodes_changed &&
        (rc = hw_registry_replace(db, cut->nodes, cut->node_count, &head->registry_hash, e)) != 0) {
        return rc;
    }
    head->meta.counters = (struct hw_hot_counters){.applied = cut->applied,
                                                   .revision = cut->revision,
                                                   .compacted = cut->compacted,
                                                   .epoch = cut->epoch,
                                                   .hot_node = cut->hot_node,
                                                   .event_seq = cut->event_seq,
                                                   .hash = cut->hash};
    return hw_head_write(db, head, e);
}

int hw_image_apply(struct hw_image *image, const struct hw_cut *cut, uint64_t wall_ms, struct hw_error *e)
{
    struct hw_image_head head;
    int rc = hw_db_begin_write(image->db, e);
    if (rc != 0) {
        return rc;
    }
    rc = hw_head_read(image->db, &head, e);
    if (rc == 0 && cut->applied > head.meta.counters.applied) {
        head.meta.written_wall_ms = wall_ms;
        if ((rc = write_cut(image->db, cut, &head, e)) == 0) {
            rc = hw_db_commit(image->db, e);
        }
    }
    hw_db_rollback(image->db);
    /* The cut is durable in the WAL already. A WAL that cannot be folded in is reported all the same, because it would
     * grow without end; the caller tries again, and finds the cut contained. */
    return rc != 0 ? rc : hw_db_fold_wal(image->db, false, e);
}
