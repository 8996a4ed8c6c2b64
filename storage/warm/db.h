/* A thin layer over SQLite: connections with our settings, statements, and one place that turns SQLite's codes into
 * ours. Private to storage/warm; only db.c and query.c know sqlite3.h.
 *
 * Life cycle: hw_db_open / hw_db_close. Statements from hw_db_stmt belong to the connection, are prepared once and
 * kept; reset one before leaving it half-way, or its read transaction stays open. One thread at a time uses a
 * connection.
 *
 * Errors: 0 or a negative hw_err; the text names the file and what SQLite says. Bind failures are kept and come back
 * from the next step, so that a row is bound without a check per column.
 */
#ifndef HW_WARM_DB_H
#define HW_WARM_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"

struct hw_db;
struct hw_stmt;

enum hw_db_mode {
    HW_DB_READONLY, /* of an image */
    HW_DB_WRITE,    /* of an image; hw_db_use_wal makes it ready for writing */
    HW_DB_BUILD     /* a file that nobody else sees until it is complete: no journal, no fsync; the caller syncs it */
};

int hw_db_open(const char *path, enum hw_db_mode mode, struct hw_db **db, struct hw_error *e);
/* NULL is allowed. The last close of a file folds its WAL in, but only after hw_db_use_wal. */
void hw_db_close(struct hw_db *db);
/* From here on the file is changed: WAL mode, synchronous=FULL (a commit is durable when it returns). */
int hw_db_use_wal(struct hw_db *db, struct hw_error *e);
/* Leave WAL mode, so that the file stands alone. */
int hw_db_leave_wal(struct hw_db *db, struct hw_error *e);

const char *hw_db_path(const struct hw_db *db);

/* One or more statements whose rows nobody wants. */
int hw_db_exec(struct hw_db *db, const char *sql, struct hw_error *e);
/* First column of the first row of a one-off statement. */
int hw_db_read_i64(struct hw_db *db, const char *sql, int64_t *value, struct hw_error *e);

int hw_db_begin_read(struct hw_db *db, struct hw_error *e);
int hw_db_begin_write(struct hw_db *db, struct hw_error *e);
int hw_db_commit(struct hw_db *db, struct hw_error *e);
/* Ends whatever transaction is open; never fails (SQLite may have rolled back by itself). */
void hw_db_rollback(struct hw_db *db);

/* Fold the WAL into the file when it has grown past HW_DB_WAL_PAGES_MAX pages (always: `now`). Readers are not held up:
 * what one of them still needs stays in the WAL until the next call. */
#define HW_DB_WAL_PAGES_MAX 4096
int hw_db_fold_wal(struct hw_db *db, bool now, struct hw_error *e);

/* Copy every page of one open connection into another, at one point in time. */
int hw_db_copy(struct hw_db *from, struct hw_db *to, struct hw_error *e);

/* sql must be a literal: its address is the key of the cache. Comes back reset; bind every parameter each time. */
int hw_db_stmt(struct hw_db *db, const char *sql, struct hw_stmt **stmt, struct hw_error *e);
void hw_stmt_bind_i64(struct hw_stmt *s, int at, int64_t value);
/* Borrowed until the next step has returned done. Empty slices are bound as empty, never as NULL. */
void hw_stmt_bind_blob(struct hw_stmt *s, int at, struct hw_slice value);
void hw_stmt_bind_text(struct hw_stmt *s, int at, const char *value, size_t len);
/* > 0: a row; 0: done, and reset; < 0: failed, and reset. */
int hw_stmt_step(struct hw_stmt *s, struct hw_error *e);
/* Step to the end. */
int hw_stmt_run(struct hw_stmt *s, struct hw_error *e);
/* NULL is allowed. */
void hw_stmt_reset(struct hw_stmt *s);

/* Columns of the current row; slices are valid until the next step or reset. A value of another type than asked for
 * marks the statement, and the next step fails with HW_ERR_CORRUPT. */
int64_t hw_stmt_i64(struct hw_stmt *s, int column);
struct hw_slice hw_stmt_blob(struct hw_stmt *s, int column);
struct hw_slice hw_stmt_text(struct hw_stmt *s, int column);
bool hw_stmt_is_text(struct hw_stmt *s, int column);

#endif
