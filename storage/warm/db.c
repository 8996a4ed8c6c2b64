#include "storage/warm/db.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "storage/warm/db_private.h"
#include "storage/warm/image.h"
#include "storage/warm/fs.h"

/* How long a writer waits for another connection of the same file before HW_ERR_LOCKED. */
#define BUSY_TIMEOUT_MS 5000

static int code_of_io(int sqlite_code, int errnum)
{
    switch (sqlite_code) {
    case SQLITE_IOERR_NOMEM:
        return HW_ERR_NOMEM;
    case SQLITE_IOERR_CORRUPTFS:
    case SQLITE_IOERR_DATA:
    case SQLITE_IOERR_SHORT_READ:
        return HW_ERR_CORRUPT;
    default:
        break;
    }
    if (errnum == ENOSPC || errnum == EDQUOT || errnum == EROFS || errnum == ENOMEM) {
        return hw_err_from_errno(errnum);
    }
    return HW_ERR_IO;
}

static int code_of(int sqlite_code, int errnum)
{
    switch (sqlite_code & 0xff) {
    case SQLITE_NOMEM:
        return HW_ERR_NOMEM;
    case SQLITE_FULL:
        return HW_ERR_NOSPACE;
    case SQLITE_READONLY:
        return HW_ERR_READONLY;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        return HW_ERR_LOCKED;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_FORMAT:
    case SQLITE_ERROR: /* our own SQL is right for the schema of our format, so the file is not */
        return HW_ERR_CORRUPT;
    case SQLITE_IOERR:
        return code_of_io(sqlite_code, errnum);
    case SQLITE_CANTOPEN:
        return errnum == 0 ? HW_ERR_IO : hw_err_from_errno(errnum);
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return HW_ERR_DENIED;
    case SQLITE_TOOBIG:
        return HW_ERR_TOOBIG;
    case SQLITE_INTERRUPT:
        return HW_ERR_CANCELLED;
    default:
        return HW_ERR_INTERNAL;
    }
}

int hw_db_error(struct hw_db *db, int sqlite_code, struct hw_error *e, const char *what)
{
    int primary = sqlite_code & 0xff;
    int errnum = db->handle == NULL ? 0 : sqlite3_system_errno(db->handle);
    bool is_system = errnum != 0 && (primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN || primary == SQLITE_FULL);
    const char *words = sqlite3_errstr(sqlite_code);
    /* The connection's own message says more, but only when it is about this failure. */
    if (db->handle != NULL && (sqlite3_errcode(db->handle) & 0xff) == primary) {
        words = sqlite3_errmsg(db->handle);
    }
    return hw_error_set(e, code_of(sqlite_code, is_system ? errnum : 0), "%s: %s: %s%s%s", db->path, what, words,
                        is_system ? ": " : "", is_system ? strerror(errnum) : "");
}

static int note_wal_pages(void *ctx, sqlite3 *handle, const char *name, int pages)
{
    struct hw_db *db = ctx;
    (void)handle;
    (void)name;
    db->wal_pages = pages;
    return SQLITE_OK;
}

/* trusted_schema, triggers and defensive: a file that came over the network must not run code of its own choosing. */
static int harden(struct hw_db *db, struct hw_error *e)
{
    static const int options[][2] = {{SQLITE_DBCONFIG_DEFENSIVE, 1},
                                     {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
                                     {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0},
                                     {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
                                     {SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1}};
    for (size_t i = 0; i < hw_array_len(options); i++) {
        int rc = sqlite3_db_config(db->handle, options[i][0], options[i][1], NULL);
        if (rc != SQLITE_OK) {
            return hw_db_error(db, rc, e, "set up the connection");
        }
    }
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    sqlite3_wal_hook(db->handle, note_wal_pages, db); /* also replaces SQLite's own automatic checkpoint */
    return hw_db_exec(db, "PRAGMA cell_size_check = ON; PRAGMA cache_size = -65536", e);
}

/* SQLite also opens for reading what bears a newer number in its header than it can write. */
static int refuse_readonly(const char *path, struct hw_error *e)
{
    if (hw_fs_check("access", path) == 0 && access(path, W_OK) == 0) {
        return hw_error_set(e, HW_ERR_CORRUPT, "%s: the header is damaged: SQLite finds a format that it cannot write",
                            path);
    }
    return hw_error_set(e, HW_ERR_READONLY, "%s cannot be written: make the file and its folder writable", path);
}

int hw_db_open(const char *path, enum hw_db_mode mode, struct hw_db **out, struct hw_error *e)
{
    static const int flags[] = {
        [HW_DB_READONLY] = SQLITE_OPEN_READONLY,
        [HW_DB_WRITE] = SQLITE_OPEN_READWRITE,
        [HW_DB_BUILD] = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
    };
    struct hw_db *db = calloc(1, sizeof *db);
    int rc;
    if (db == NULL || (db->path = strdup(path)) == NULL) {
        free(db);
        return hw_error_set(e, HW_ERR_NOMEM, "open %s: out of memory", path);
    }
    rc = sqlite3_open_v2(path, &db->handle, flags[mode] | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc != SQLITE_OK) {
        rc = hw_db_error(db, rc, e, "open");
        goto fail;
    }
    if ((rc = harden(db, e)) != 0) {
        goto fail;
    }
    /* SQLite opens for reading what it may not write, without a word. */
    if (mode != HW_DB_READONLY && sqlite3_db_readonly(db->handle, "main") == 1) {
        rc = refuse_readonly(path, e);
        goto fail;
    }
    if (mode == HW_DB_BUILD && (rc = hw_db_exec(db, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF", e)) != 0) {
        goto fail;
    }
    *out = db;
    return 0;

fail:
    hw_db_close(db);
    return rc;
}

void hw_db_close(struct hw_db *db)
{
    if (db == NULL) {
        return;
    }
    for (size_t i = 0; i < db->stmt_count; i++) {
        sqlite3_finalize(db->stmts[i].handle);
    }
    /* Every statement is finalized and every backup finished, so the handle cannot be busy; a failing last fold leaves
     * the WAL beside the file, which the next open reads. */
    sqlite3_close(db->handle);
    free(db->path);
    free(db);
}

static int set_journal(struct hw_db *db, const char *sql, const char *mode, struct hw_error *e)
{
    sqlite3_stmt *handle = NULL;
    int rc = sqlite3_prepare_v2(db->handle, sql, -1, &handle, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(handle);
    }
    if (rc == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(handle, 0);
        bool is_set = text != NULL && strcmp(text, mode) == 0;
        sqlite3_finalize(handle);
        return is_set ? 0 : hw_error_set(e, HW_ERR_IO, "%s: SQLite refuses journal mode %s here", db->path, mode);
    }
    rc = hw_db_error(db, rc, e, "set the journal mode");
    sqlite3_finalize(handle);
    return rc;
}

int hw_db_use_wal(struct hw_db *db, struct hw_error *e)
{
    int rc = set_journal(db, "PRAGMA journal_mode = WAL", "wal", e);
    if (rc != 0) {
        return rc;
    }
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    return hw_db_exec(db, "PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864", e);
}

int hw_db_leave_wal(struct hw_db *db, struct hw_error *e)
{
    return set_journal(db, "PRAGMA journal_mode = DELETE", "delete", e);
}

const char *hw_db_path(const struct hw_db *db)
{
    return db->path;
}

int hw_db_exec(struct hw_db *db, const char *sql, struct hw_error *e)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : hw_db_error(db, rc, e, "run a statement");
}

int hw_db_read_i64(struct hw_db *db, const char *sql, int64_t *value, struct hw_error *e)
{
    sqlite3_stmt *handle = NULL;
    int rc = sqlite3_prepare_v2(db->handle, sql, -1, &handle, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(handle);
    }
    if (rc == SQLITE_ROW) {
        *value = sqlite3_column_int64(handle, 0);
        rc = 0;
    } else if (rc == SQLITE_DONE) {
        rc = hw_error_set(e, HW_ERR_CORRUPT, "%s: no answer where one must be", db->path);
    } else {
        rc = hw_db_error(db, rc, e, "read");
    }
    sqlite3_finalize(handle);
    return rc;
}

static int run_cached(struct hw_db *db, const char *sql, struct hw_error *e)
{
    struct hw_stmt *s;
    int rc = hw_db_stmt(db, sql, &s, e);
    return rc != 0 ? rc : hw_stmt_run(s, e);
}

int hw_db_begin_read(struct hw_db *db, struct hw_error *e)
{
    return run_cached(db, "BEGIN", e);
}

int hw_db_begin_write(struct hw_db *db, struct hw_error *e)
{
    return run_cached(db, "BEGIN IMMEDIATE", e);
}

int hw_db_commit(struct hw_db *db, struct hw_error *e)
{
    return run_cached(db, "COMMIT", e);
}

void hw_db_rollback(struct hw_db *db)
{
    for (size_t i = 0; i < db->stmt_count; i++) {
        hw_stmt_reset(&db->stmts[i]);
    }
    if (sqlite3_get_autocommit(db->handle) == 0) {
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    }
}

int hw_db_fold_wal(struct hw_db *db, bool now, struct hw_error *e)
{
    int rc;
    if (!now && db->wal_pages <= HW_DB_WAL_PAGES_MAX) {
        return 0;
    }
    rc = sqlite3_wal_checkpoint_v2(db->handle, "main", now ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE,
                                   NULL, NULL);
    if (rc != SQLITE_OK && (now || (rc & 0xff) != SQLITE_BUSY)) {
        return hw_db_error(db, rc, e, "fold the WAL into the file");
    }
    db->wal_pages = 0;
    return 0;
}

int hw_db_copy(struct hw_db *from, struct hw_db *to, struct hw_error *e)
{
    sqlite3_backup *backup = sqlite3_backup_init(to->handle, "main", from->handle, "main");
    int rc;
    if (backup == NULL) {
        return hw_db_error(to, sqlite3_extended_errcode(to->handle), e, "start the copy");
    }
    rc = sqlite3_backup_step(backup, -1);
    sqlite3_backup_finish(backup);
    return rc == SQLITE_DONE ? 0 : hw_db_error(to, rc, e, "copy");
}

int hw_db_stmt(struct hw_db *db, const char *sql, struct hw_stmt **stmt, struct hw_error *e)
{
    struct hw_stmt *s;
    int rc;
    for (size_t i = 0; i < db->stmt_count; i++) {
        if (db->stmts[i].sql == sql) {
            hw_stmt_reset(&db->stmts[i]);
            *stmt = &db->stmts[i];
            return 0;
        }
    }
    hw_assert(db->stmt_count < HW_DB_STMT_MAX);
    s = &db->stmts[db->stmt_count];
    rc = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &s->handle, NULL);
    if (rc != SQLITE_OK) {
        return hw_db_error(db, rc, e, "prepare a statement");
    }
    s->db = db;
    s->sql = sql;
    s->failed = SQLITE_OK;
    db->stmt_count++;
    *stmt = s;
    return 0;
}

static void note_bind(struct hw_stmt *s, int rc)
{
    if (rc != SQLITE_OK && s->failed == SQLITE_OK) {
        s->failed = rc;
    }
}

void hw_stmt_bind_i64(struct hw_stmt *s, int at, int64_t value)
{
    note_bind(s, sqlite3_bind_int64(s->handle, at, value));
}

void hw_stmt_bind_blob(struct hw_stmt *s, int at, struct hw_slice value)
{
    note_bind(s, sqlite3_bind_blob64(s->handle, at, value.len == 0 ? (const void *)"" : value.data, value.len,
                                     SQLITE_STATIC));
}

void hw_stmt_bind_text(struct hw_stmt *s, int at, const char *value, size_t len)
{
    note_bind(s, sqlite3_bind_text64(s->handle, at, value, len, SQLITE_STATIC, SQLITE_UTF8));
}

int hw_stmt_step(struct hw_stmt *s, struct hw_error *e)
{
    int rc = s->failed == SQLITE_OK ? sqlite3_step(s->handle) : s->failed;
    if (rc == SQLITE_ROW) {
        return 1;
    }
    if (rc != SQLITE_DONE) {
        rc = hw_db_error(s->db, rc, e, s->failed == SQLITE_OK ? "run a statement" : "a column has the wrong type");
    } else {
        rc = 0;
    }
    hw_stmt_reset(s);
    return rc;
}

int hw_stmt_run(struct hw_stmt *s, struct hw_error *e)
{
    int rc;
    while ((rc = hw_stmt_step(s, e)) > 0) {
    }
    return rc;
}

void hw_stmt_reset(struct hw_stmt *s)
{
    if (s != NULL) {
        sqlite3_reset(s->handle);
        s->failed = SQLITE_OK;
    }
}

static bool has_type(struct hw_stmt *s, int column, int type)
{
    if (sqlite3_column_type(s->handle, column) != type) {
        note_bind(s, SQLITE_CORRUPT);
        return false;
    }
    return true;
}

int64_t hw_stmt_i64(struct hw_stmt *s, int column)
{
    return has_type(s, column, SQLITE_INTEGER) ? sqlite3_column_int64(s->handle, column) : 0;
}

static struct hw_slice bytes_of(struct hw_stmt *s, int column)
{
    const void *data = sqlite3_column_blob(s->handle, column);
    int len = sqlite3_column_bytes(s->handle, column);
    if (data == NULL && (sqlite3_errcode(s->db->handle) & 0xff) == SQLITE_NOMEM) {
        note_bind(s, SQLITE_NOMEM);
    }
    return hw_slice_of(data == NULL ? "" : data, data == NULL ? 0 : (size_t)len);
}

struct hw_slice hw_stmt_blob(struct hw_stmt *s, int column)
{
    return has_type(s, column, SQLITE_BLOB) ? bytes_of(s, column) : hw_slice_of("", 0);
}

struct hw_slice hw_stmt_text(struct hw_stmt *s, int column)
{
    return has_type(s, column, SQLITE_TEXT) ? bytes_of(s, column) : hw_slice_of("", 0);
}

bool hw_stmt_is_text(struct hw_stmt *s, int column)
{
    return sqlite3_column_type(s->handle, column) == SQLITE_TEXT;
}

const char *hw_image_library(void)
{
    return sqlite3_libversion();
}
