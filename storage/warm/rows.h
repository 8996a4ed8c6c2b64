/* Rows of the image's tables as the state's records, and back. Private to storage/warm. Errors: those of db.h;
 * HW_ERR_CORRUPT for a row that no writer of ours makes.
 */
#ifndef HW_WARM_ROWS_H
#define HW_WARM_ROWS_H

#include "storage/warm/schema.h"

/* The columns that hw_row_to_version reads, in its order. */
#define HW_ROW_COLUMNS "id, main, sub, key, create_revision, version, lease, tombstone, value"

/* A version with one reference, and a key name of its own, of the statement's current row. */
int hw_row_to_version(struct hw_stmt *s, struct hw_version **v, struct hw_error *e);
int hw_row_insert(struct hw_stmt *s, uint64_t id, const struct hw_version *v, struct hw_error *e);
#define HW_ROW_INSERT_SQL                                                                          \
    "INSERT INTO revision(id, main, sub, key, create_revision, version, lease, tombstone, value) " \
    "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"

int hw_registry_replace(struct hw_db *db, const struct hw_node *nodes, size_t count, uint64_t *hash,
                        struct hw_error *e);
/* Events whose seq is above after_seq; then forget all but the newest HW_HISTORY_MAX. hash is moved along. */
int hw_events_append(struct hw_db *db, const struct hw_event *events, size_t count, uint64_t after_seq, uint64_t *hash,
                     struct hw_error *e);
/* What a cut says of leases, in any order: those that are gone are removed, the others added or replaced. */
int hw_lease_rows_apply(struct hw_db *db, const struct hw_lease_record *leases, size_t count, uint64_t *hash,
                        struct hw_error *e);

/* Each row in the order that hw_hot_load_* wants; fn returns 0 or a negative hw_err, which ends the walk. Compares the
 * table with the hash of the head. */
typedef int (*hw_node_fn)(void *ctx, const struct hw_node *node);
typedef int (*hw_event_fn)(void *ctx, const struct hw_event *event);
int hw_registry_walk(struct hw_db *db, const struct hw_image_head *head, hw_node_fn fn, void *ctx, struct hw_error *e);
int hw_events_walk(struct hw_db *db, const struct hw_image_head *head, hw_event_fn fn, void *ctx, struct hw_error *e);
typedef int (*hw_lease_row_fn)(void *ctx, const struct hw_lease_record *lease);
int hw_lease_rows_walk(struct hw_db *db, const struct hw_image_head *head, hw_lease_row_fn fn, void *ctx,
                       struct hw_error *e);

#endif
