/* One read-only SQL statement that a person wrote. Three walls: the authorizer allows reading and nothing else, SQLite
 * itself says whether the statement may write, and a clock and limits bound what it costs. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "storage/warm/db_private.h"
#include "storage/warm/schema.h"

/* Virtual machine steps between two looks at the clock: some tens of microseconds. */
#define CLOCK_STEPS 1000
/* The largest string or row that an expression may make. */
#define VALUE_BYTES_MAX (64 << 20)
#define SQL_BYTES_MAX (64 << 10)
#define COLUMN_MAX 256

struct query {
    uint64_t deadline_ms; /* CLOCK_BOOTTIME; 0: none */
    bool is_late;
    bool is_refused;
};

static bool is_harmless_pragma(const char *name, const char *argument)
{
    static const char *const with_argument[] = {"table_info", "table_xinfo", "table_list", "index_list",
                                                "index_info", "index_xinfo", "quick_check"};
    static const char *const without_argument[] = {"page_count",     "page_size",      "freelist_count", "user_version",
                                                   "application_id", "schema_version", "encoding",       "table_list",
                                                   "quick_check",    "compile_options"};
    const char *const *list = argument == NULL ? without_argument : with_argument;
    size_t count = argument == NULL ? hw_array_len(without_argument) : hw_array_len(with_argument);
    for (size_t i = 0; name != NULL && i < count; i++) {
        if (sqlite3_stricmp(name, list[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_harmless_function(const char *name)
{
    static const char *const refused[] = {"load_extension", "fts3_tokenizer", "sqlite_log",
                                          "readfile",       "writefile",      "edit"};
    for (size_t i = 0; name != NULL && i < hw_array_len(refused); i++) {
        if (sqlite3_stricmp(name, refused[i]) == 0) {
            return false;
        }
    }
    return name != NULL;
}

static int authorize(void *ctx, int action, const char *a, const char *b, const char *database, const char *trigger)
{
    struct query *q = ctx;
    bool is_allowed = false;
    (void)database;
    (void)trigger;
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE:
        is_allowed = true;
        break;
    case SQLITE_FUNCTION:
        is_allowed = is_harmless_function(b);
        break;
    case SQLITE_PRAGMA:
        is_allowed = is_harmless_pragma(a, b);
        break;
    default:
        break;
    }
    if (!is_allowed) {
        q->is_refused = true;
    }
    return is_allowed ? SQLITE_OK : SQLITE_DENY;
}

static int is_late(void *ctx)
{
    struct query *q = ctx;
    q->is_late = q->deadline_ms != 0 && hw_mono_ms() >= q->deadline_ms;
    return q->is_late ? 1 : 0;
}

static int refuse(struct hw_db *db, const struct query *q, int rc, struct hw_error *e)
{
    if (q->is_late) {
        return hw_error_set(e, HW_ERR_TIMEOUT, "the query was stopped: it ran longer than it may");
    }
    if (q->is_refused) {
        return hw_error_set(e, HW_ERR_DENIED, "only reading is allowed here: %s", sqlite3_errmsg(db->handle));
    }
    if ((rc & 0xff) == SQLITE_ERROR || (rc & 0xff) == SQLITE_RANGE) {
        return hw_error_set(e, HW_ERR_INVALID, "SQL: %s", sqlite3_errmsg(db->handle));
    }
    return hw_db_error(db, rc, e, "query");
}

/* Only blanks, comments and semicolons may follow the statement: what compiles to nothing. */
static bool has_more(sqlite3 *handle, const char *tail)
{
    while (*tail != '\0') {
        sqlite3_stmt *next = NULL;
        int rc = sqlite3_prepare_v2(handle, tail, -1, &next, &tail);
        sqlite3_finalize(next);
        if (rc != SQLITE_OK || next != NULL) {
            return true;
        }
    }
    return false;
}

static int prepare(struct hw_db *db, struct query *q, const char *sql, sqlite3_stmt **stmt, struct hw_error *e)
{
    const char *tail;
    int rc;
    if (strlen(sql) > SQL_BYTES_MAX) {
        return hw_error_set(e, HW_ERR_TOOBIG, "the statement is longer than %d bytes", SQL_BYTES_MAX);
    }
    rc = sqlite3_prepare_v2(db->handle, sql, -1, stmt, &tail);
    if (rc != SQLITE_OK) {
        return refuse(db, q, rc, e);
    }
    if (*stmt == NULL) {
        return hw_error_set(e, HW_ERR_INVALID, "there is no statement to run");
    }
    if (has_more(db->handle, tail)) {
        return hw_error_set(e, HW_ERR_INVALID, "one statement at a time");
    }
    if (!sqlite3_stmt_readonly(*stmt)) {
        return hw_error_set(e, HW_ERR_DENIED, "only reading is allowed here");
    }
    if (sqlite3_bind_parameter_count(*stmt) > 0) {
        return hw_error_set(e, HW_ERR_INVALID, "parameters are not supported: write the values into the statement");
    }
    if (sqlite3_column_count(*stmt) > COLUMN_MAX) {
        return hw_error_set(e, HW_ERR_TOOBIG, "more than %d columns", COLUMN_MAX);
    }
    return 0;
}

/* RFC 3629: no surrogates, nothing above U+10FFFF, no longer form than needed. */
static bool is_utf8(const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len;
    while (p < end) {
        uint32_t c = *p++;
        uint32_t least = 0;
        int more = 0;
        if (c < 0x80) {
            continue;
        }
        if (c >= 0xc2 && c <= 0xdf) {
            more = 1, c &= 0x1f, least = 0x80;
        } else if (c >= 0xe0 && c <= 0xef) {
            more = 2, c &= 0x0f, least = 0x800;
        } else if (c >= 0xf0 && c <= 0xf4) {
            more = 3, c &= 0x07, least = 0x10000;
        } else {
            return false;
        }
        for (; more > 0; more--) {
            if (p == end || (*p & 0xc0) != 0x80) {
                return false;
            }
            c = c << 6 | (*p++ & 0x3fu);
        }
        if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
            return false;
        }
    }
    return true;
}

/* A C string and the wire carry neither NUL nor broken UTF-8: such bytes are shown as SQL writes them, x'00ff'. */
static int render(const uint8_t *data, size_t len, struct hw_buf *out)
{
    static const char digits[] = "0123456789abcdef";
    if (memchr(data, '\0', len) == NULL && is_utf8(data, len)) {
        hw_buf_append(out, data, len);
    } else if (hw_buf_reserve(out, 2 * len + 4) == 0) {
        hw_buf_append(out, "x'", 2);
        for (size_t i = 0; i < len; i++) {
            hw_buf_put_u8(out, (uint8_t)digits[data[i] >> 4]);
            hw_buf_put_u8(out, (uint8_t)digits[data[i] & 15]);
        }
        hw_buf_append(out, "'", 1);
    }
    hw_buf_put_u8(out, 0);
    return out->failed ? HW_ERR_NOMEM : 0;
}

struct row {
    struct hw_buf text; /* every value of the row, NUL-terminated */
    size_t offsets[COLUMN_MAX];
    const char *names[COLUMN_MAX];
    const char *values[COLUMN_MAX];
};

static int fill_row(sqlite3_stmt *stmt, int count, struct row *row, struct hw_error *e)
{
    hw_buf_clear(&row->text);
    for (int i = 0; i < count; i++) {
        bool is_null = sqlite3_column_type(stmt, i) == SQLITE_NULL;
        /* As blob first for blobs: column_text would tell SQLite to convert and count again. */
        bool is_blob = sqlite3_column_type(stmt, i) == SQLITE_BLOB;
        const void *data = is_blob ? sqlite3_column_blob(stmt, i) : (const void *)sqlite3_column_text(stmt, i);
        size_t len = (size_t)sqlite3_column_bytes(stmt, i);
        row->names[i] = sqlite3_column_name(stmt, i);
        row->offsets[i] = is_null ? SIZE_MAX : row->text.len;
        if (row->names[i] == NULL || (data == NULL && !is_null && len > 0) ||
            (!is_null && render(data == NULL ? (const uint8_t *)"" : data, data == NULL ? 0 : len, &row->text) != 0)) {
            return hw_error_set(e, HW_ERR_NOMEM, "out of memory for a row of the answer");
        }
    }
    for (int i = 0; i < count; i++) {
        row->values[i] = row->offsets[i] == SIZE_MAX ? NULL : (const char *)row->text.data + row->offsets[i];
    }
    return 0;
}

static int run(struct hw_db *db, struct query *q, sqlite3_stmt *stmt, size_t rows_max, hw_sql_row_fn fn, void *ctx,
               struct hw_error *e)
{
    struct row *row = calloc(1, sizeof *row);
    int count = sqlite3_column_count(stmt);
    size_t rows = 0;
    int rc = 0;
    if (row == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "query: out of memory");
    }
    while (rc == 0) {
        int step = sqlite3_step(stmt);
        if (step == SQLITE_DONE) {
            break;
        }
        if (step != SQLITE_ROW) {
            rc = refuse(db, q, step, e);
        } else if (++rows > rows_max) {
            rc = hw_error_set(e, HW_ERR_EXHAUSTED, "the answer has more than %zu rows: use LIMIT", rows_max);
        } else if (is_late(q)) {
            rc = refuse(db, q, SQLITE_INTERRUPT, e);
        } else if ((rc = fill_row(stmt, count, row, e)) == 0 && (rc = fn(ctx, count, row->names, row->values)) != 0) {
            rc = hw_error_set(e, rc, "the receiver of the rows stopped the query");
        }
    }
    hw_buf_free(&row->text);
    free(row);
    return rc;
}

int hw_image_query(struct hw_image *image, const char *sql, size_t rows_max, unsigned timeout_ms, hw_sql_row_fn row,
                   void *ctx, struct hw_error *e)
{
    struct hw_db *db = image->db;
    struct query q = {.deadline_ms = timeout_ms == 0 ? 0 : hw_mono_ms() + timeout_ms};
    sqlite3_stmt *stmt = NULL;
    int length_max = sqlite3_limit(db->handle, SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX);
    int rc;
    sqlite3_set_authorizer(db->handle, authorize, &q);
    sqlite3_progress_handler(db->handle, CLOCK_STEPS, is_late, &q);
    rc = prepare(db, &q, sql, &stmt, e);
    if (rc == 0) {
        rc = run(db, &q, stmt, rows_max, row, ctx, e);
    }
    sqlite3_finalize(stmt);
    sqlite3_progress_handler(db->handle, 0, NULL, NULL);
    sqlite3_set_authorizer(db->handle, NULL, NULL);
    sqlite3_limit(db->handle, SQLITE_LIMIT_LENGTH, length_max);
    return rc;
}
