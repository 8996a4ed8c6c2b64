/* The receiving end of a snapshot: messages in, a checked file out. Knows no network.
 *
 * Bytes go to PATH.part, locked against a second run, and become PATH by fsync, rename and fsync of the folder. Every
 * chunk's checksum and the whole file's are checked (xxh3-64). After a broken stream the next one goes on at the next
 * byte when the server still has that copy (same token); a server that begins another copy makes the file start over.
 *
 * Life cycle: open · message... · finish or abort, once; abort removes the part. Errors: HW_ERR_CORRUPT (checksum),
 * HW_ERR_PROTOCOL (order), HW_ERR_EXISTS, HW_ERR_LOCKED, and those of files.
 */
#ifndef HW_CLI_SNAPSHOT_FILE_H
#define HW_CLI_SNAPSHOT_FILE_H

#include <stdbool.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"

struct hw_ctl_snapshot {
    const char *path; /* borrowed */
    char part[4096];
    int fd;
    uint64_t token; /* 0: none begun */
    uint64_t size;
    uint64_t offset; /* bytes received, checked and written */
    uint64_t index;
    int64_t revision;
    uint64_t cluster_id;
    uint64_t rows_hash;
    uint64_t checksum; /* of the whole file, once it is complete */
    bool has_begun;    /* the present stream */
    bool is_complete;
    void *hash; /* XXH3_state_t */
};

/* may_replace: a file at path is replaced in the end; otherwise it is HW_ERR_EXISTS. */
int hw_ctl_snapshot_open(struct hw_ctl_snapshot *s, const char *path, bool may_replace, struct hw_error *e);
/* A new stream begins: it has to start with `begin`. */
void hw_ctl_snapshot_stream(struct hw_ctl_snapshot *s);
/* One packed SnapshotMessage. */
int hw_ctl_snapshot_message(struct hw_ctl_snapshot *s, struct hw_slice message, struct hw_error *e);
/* Forget what was received: the next stream is asked for a new copy. */
int hw_ctl_snapshot_restart(struct hw_ctl_snapshot *s, struct hw_error *e);
int hw_ctl_snapshot_finish(struct hw_ctl_snapshot *s, struct hw_error *e);
void hw_ctl_snapshot_abort(struct hw_ctl_snapshot *s);

#endif
