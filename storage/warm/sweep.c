/* Deleting what compaction made unreachable, a slice at a time.
 *
 * For a row r below the compacted revision, every older row of its key is unreachable, and so is r itself if it is a
 * tombstone. (What rows of the compacted revision itself replaced is left for the next sweep: those rows stay, so they
 * would have to be looked at twice.) The ids of `revision` rise with (main, sub), so one walk over ids from where the
 * last sweep ended finds all of it; each row is looked at once in its life. The place is kept in the head, in the same
 * transaction as the deletes.
 *
 * Order matters: older rows of a key go before the tombstone that hides them, or a key would come back to life for
 * whoever loads the image between two slices.
 */
#include <inttypes.h>

#include "storage/warm/rows.h"

struct sweep {
    struct hw_db *db;
    struct hw_image_head head;
    struct hw_stmt *older; /* rows of a key below (main, sub), oldest first */
    struct hw_stmt *remove;
    size_t budget;
};

/* Drop the row that `s` stands on; s is reset on failure. */
static int remove_row(struct sweep *w, struct hw_stmt *s, struct hw_error *e)
{
    struct hw_version *v;
    int rc = hw_row_to_version(s, &v, e);
    if (rc == 0) {
        w->head.meta.rows_hash -= hw_version_hash(v);
        w->head.meta.row_count--;
        hw_version_unref(v);
        hw_stmt_bind_i64(w->remove, 1, hw_stmt_i64(s, 0));
        rc = hw_stmt_run(w->remove, e);
    }
    if (rc != 0) {
        hw_stmt_reset(s);
    }
    return rc;
}

/* > 0: the budget ended before the older rows did. */
static int remove_older(struct sweep *w, struct hw_stmt *row, struct hw_error *e)
{
    int rc;
    hw_stmt_bind_blob(w->older, 1, hw_stmt_blob(row, 3));
    hw_stmt_bind_i64(w->older, 2, hw_stmt_i64(row, 1));
    hw_stmt_bind_i64(w->older, 3, hw_stmt_i64(row, 2));
    while ((rc = hw_stmt_step(w->older, e)) > 0) {
        if (w->budget == 0) {
            hw_stmt_reset(w->older);
            return 1;
        }
        w->budget--;
        if ((rc = remove_row(w, w->older, e)) != 0) {
            return rc;
        }
    }
    return rc;
}

/* One row of the walk: 0 done with it, > 0 out of budget before it was done. */
static int sweep_row(struct sweep *w, struct hw_stmt *row, struct hw_error *e)
{
    int rc;
    if (w->budget == 0) {
        return 1;
    }
    w->budget--; /* looking costs as well: a slice stays short where nothing is to be deleted */
    if ((rc = remove_older(w, row, e)) != 0) {
        return rc;
    }
    w->head.sweep_last_id = (uint64_t)hw_stmt_i64(row, 0);
    return hw_stmt_i64(row, 7) == 1 ? remove_row(w, row, e) : 0;
}

static int sweep_rows(struct sweep *w, struct hw_error *e)
{
    struct hw_stmt *row;
    int rc;
    if ((rc = hw_db_stmt(w->db, "SELECT " HW_ROW_COLUMNS " FROM revision WHERE id > ?1 ORDER BY id", &row, e)) != 0 ||
        (rc = hw_db_stmt(w->db,
                         "SELECT " HW_ROW_COLUMNS " FROM revision WHERE key = ?1 AND (main, sub) < (?2, ?3) "
                         "ORDER BY main, sub",
                         &w->older, e)) != 0 ||
        (rc = hw_db_stmt(w->db, "DELETE FROM revision WHERE id = ?1", &w->remove, e)) != 0) {
        return rc;
    }
    hw_stmt_bind_i64(row, 1, (int64_t)w->head.sweep_last_id);
    while ((rc = hw_stmt_step(row, e)) > 0 && hw_stmt_i64(row, 1) < w->head.meta.counters.compacted) {
        if ((rc = sweep_row(w, row, e)) != 0) {
            hw_stmt_reset(row);
            return rc;
        }
    }
    if (rc >= 0) {
        hw_stmt_reset(row);
        w->head.swept = w->head.meta.counters.compacted;
        rc = 0;
    }
    return rc;
}

int hw_image_sweep(struct hw_image *image, size_t budget, struct hw_error *e)
{
    struct sweep w = {.db = image->db, .budget = budget < 2 ? 2 : budget};
    int more;
    int rc = hw_db_begin_read(image->db, e);
    if (rc != 0) {
        return rc;
    }
    rc = hw_head_read(image->db, &w.head, e);
    hw_db_rollback(image->db);
    if (rc != 0 || w.head.swept >= w.head.meta.counters.compacted) {
        return rc;
    }
    if ((rc = hw_db_begin_write(image->db, e)) != 0) {
        return rc;
    }
    rc = hw_head_read(image->db, &w.head, e);
    if (rc == 0) {
        rc = sweep_rows(&w, e);
    }
    more = rc > 0;
    if (rc >= 0 && (rc = hw_head_write(image->db, &w.head, e)) == 0) {
        rc = hw_db_commit(image->db, e);
    }
    hw_db_rollback(image->db);
    if (rc == 0) {
        rc = hw_db_fold_wal(image->db, false, e);
    }
    return rc != 0 ? rc : more;
}
