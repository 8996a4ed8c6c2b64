/* Files and folders of the data folder: the few operations that must survive a power cut, with fsync of the file and of
 * its folder where the order matters. Private to storage/warm. Blocking: for worker threads and for start-up.
 *
 * Errors: 0 or a negative hw_err; the text names the path and the operation. Nothing is kept between calls.
 *
 * Do not use these on an image that this process has open: closing any descriptor of a file drops the POSIX locks that
 * SQLite holds on it in the same process (https://www.sqlite.org/howtocorrupt.html, section 2.2).
 */
#ifndef HW_WARM_FS_H
#define HW_WARM_FS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"

/* The seam for fault tests: asked before every system call of this file with its name ("open", "write", "fsync",
 * "rename", ...) and path; a result other than 0 is the errno that the call then fails with. NULL in production. */
typedef int (*hw_fs_fault_fn)(const char *op, const char *path);
extern hw_fs_fault_fn hw_fs_fault;

/* out = folder/name<suffix>; HW_ERR_INVALID when that is longer than a path may be. */
int hw_fs_join(char out[PATH_MAX], const char *folder, const char *name, const char *suffix, struct hw_error *e);
/* The folder that holds path ("." when it names none). */
int hw_fs_parent(char out[PATH_MAX], const char *path, struct hw_error *e);

bool hw_fs_is_there(const char *path);
/* Size in bytes; HW_ERR_NOTFOUND. */
int hw_fs_size(const char *path, uint64_t *size, struct hw_error *e);

/* A folder of mode 0700, and the fsync that makes its name durable; 0 when it is there already. */
int hw_fs_mkdir(const char *path, struct hw_error *e);
int hw_fs_sync_file(const char *path, struct hw_error *e);
int hw_fs_sync_dir(const char *path, struct hw_error *e);
int hw_fs_rename(const char *from, const char *to, struct hw_error *e);
/* 0 when there is none. */
int hw_fs_unlink(const char *path, struct hw_error *e);

/* Replace folder/name by these bytes: after a crash the file is wholly the old or wholly the new one. */
int hw_fs_replace(const char *folder, const char *name, struct hw_slice data, struct hw_error *e);
/* Append the whole file to out; HW_ERR_TOOBIG when it holds more than max bytes. */
int hw_fs_read(const char *path, size_t max, struct hw_buf *out, struct hw_error *e);

/* errno of the fault seam for an operation, 0 when it may go on; for system calls made elsewhere in this folder. */
int hw_fs_check(const char *op, const char *path);

#endif
