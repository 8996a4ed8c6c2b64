/* What db.c and query.c share about a connection. The only header of the project that includes sqlite3.h. */
#ifndef HW_WARM_DB_PRIVATE_H
#define HW_WARM_DB_PRIVATE_H

#include <sqlite3.h>

#include "storage/warm/db.h"

#define HW_DB_STMT_MAX 32

struct hw_stmt {
    struct hw_db *db;
    const char *sql;
    sqlite3_stmt *handle;
    int failed; /* SQLite's code of the first bind or column that went wrong since the last reset */
};

struct hw_db {
    sqlite3 *handle;
    int wal_pages; /* as of the last commit of this connection; 0 once folded in */
    size_t stmt_count;
    struct hw_stmt stmts[HW_DB_STMT_MAX];
    char *path;
};

/* The nearest hw_err for a result code of SQLite, and a text "<path>: <what>: <SQLite's words>". */
int hw_db_error(struct hw_db *db, int sqlite_code, struct hw_error *e, const char *what);

#endif
