/* The image: one SQLite file per node (image.db, WAL mode) that holds the state at one applied index, in tables that a
 * person can query. Blocking and loop-free: callers put every call on a worker; one thread at a time uses a handle, and
 * different handles of one file may be used at once (SQLite's WAL lets readers go on beside the one writer).
 *
 * Rules: an image moves from cut to cut in single transactions that also move `meta`, so that after any crash it is a
 * state at some applied index. It is durable when hw_image_apply returns. Every row of `revision` takes part in
 * `meta.rows_hash` (sum of hw_version_hash), which load and verify compare.
 *
 * Tables: docs/disk-format.md. Errors: HW_ERR_CORRUPT, HW_ERR_VERSION (newer format, file left alone), HW_ERR_FOREIGN
 * (another cluster), HW_ERR_NOSPACE, HW_ERR_READONLY, HW_ERR_LOCKED, HW_ERR_IO, HW_ERR_NOMEM; the text names the file.
 */
#ifndef HW_WARM_IMAGE_H
#define HW_WARM_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "storage/hot/hot.h"

#define HW_IMAGE_FORMAT 1
#define HW_IMAGE_FILE "image.db"

struct hw_image;

/* Version of SQLite at run time. A constant string. */
const char *hw_image_library(void);

struct hw_image_meta {
    uint32_t format;
    uint64_t cluster_id; /* 0: not bound to a cluster yet */
    uint64_t written_wall_ms;
    uint64_t rows_hash;
    uint64_t row_count; /* of `revision` */
    struct hw_hot_counters counters;
};

/* Open the image at path for reading and writing, making an empty one (applied 0) when there is none. cluster_id binds
 * an image that no cluster owns yet and is compared with a bound one (0: take what is there). A zero-length file is
 * damage, not a new image. A WAL found without its image is moved to quarantine. */
int hw_image_open(const char *path, uint64_t cluster_id, struct hw_image **image, struct hw_error *e);
/* Read-only; HW_ERR_NOTFOUND when there is none. */
int hw_image_open_readonly(const char *path, struct hw_image **image, struct hw_error *e);
void hw_image_close(struct hw_image *image);

int hw_image_read_meta(struct hw_image *image, struct hw_image_meta *meta, struct hw_error *e);

/* Bring the image from its applied index up to the cut's, in one transaction, durable on return. A cut that the image
 * already contains is skipped (0). wall_ms is recorded as written_wall_ms. An error may also come from folding the WAL
 * into the file, after the cut became durable: apply the same cut again, as after every error. */
int hw_image_apply(struct hw_image *image, const struct hw_cut *cut, uint64_t wall_ms, struct hw_error *e);

/* Delete the rows that compaction made unreachable, each call one transaction; > 0: more. At most `budget` rows (at
 * least 2) are looked at or deleted a call. Cheap, and without a write, when there is nothing to do. */
int hw_image_sweep(struct hw_image *image, size_t budget, struct hw_error *e);

/* Fill a new state. progress (may be NULL) is called now and then with rows done and rows in all. */
typedef void (*hw_image_progress_fn)(void *ctx, uint64_t done, uint64_t total);
int hw_image_load(struct hw_image *image, struct hw_hot **hot, hw_image_progress_fn progress, void *ctx,
                  struct hw_error *e);

/* Structure (SQLite's quick_check), format, counters and rows_hash, reading every row. */
int hw_image_verify(struct hw_image *image, struct hw_image_meta *meta, struct hw_error *e);

/* A consistent copy at one applied index into a new file (SQLite's backup API), fsynced with its folder; the copy is
 * itself an image (no WAL beside it). Writers of the source are not held up. Removes dest on failure, but never
 * replaces what is there: HW_ERR_EXISTS. meta may be NULL. The copy is not verified. */
int hw_image_copy(const char *source, const char *dest, struct hw_image_meta *meta, struct hw_error *e);

/* Replace folder/image.db by the file `incoming` (same file system) atomically: brings the old image to rest, removes
 * its WAL, renames, fsyncs the folder. A damaged old image is simply replaced: quarantine it first to keep it. No
 * handle of either may be open; incoming must stand alone (HW_ERR_INVALID when it has a WAL). */
int hw_image_install(const char *folder, const char *incoming, struct hw_error *e);

/* Move folder/<name> (a file or a folder; for an image also its -wal and -shm) to folder/quarantine/<time>-<name>,
 * never deleting. HW_ERR_NOTFOUND when there is nothing of that name. */
int hw_quarantine(const char *folder, const char *name, uint64_t wall_ms, struct hw_error *e);

/* One read-only SQL statement on the image. Refused: what writes, attaches or changes settings (HW_ERR_DENIED), what is
 * no SQL or more than one statement (HW_ERR_INVALID). Stops after rows_max rows or timeout_ms of running (0: no limit
 * of time) with HW_ERR_EXHAUSTED or HW_ERR_TIMEOUT; rows handed over before that stand. Values come as UTF-8 text,
 * bytes that are not as x'00ff'; NULL is NULL. names and values are valid during the call of `row`; when that returns
 * other than 0 the query ends with its result. */
typedef int (*hw_sql_row_fn)(void *ctx, int column_count, const char *const *names, const char *const *values);
int hw_image_query(struct hw_image *image, const char *sql, size_t rows_max, unsigned timeout_ms, hw_sql_row_fn row,
                   void *ctx, struct hw_error *e);

#endif
