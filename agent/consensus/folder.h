/* The log's folder as files, without libraft. Private to agent/consensus, but for hw_consensus_folder_is_pristine.
 */
#ifndef HW_CONSENSUS_FOLDER_H
#define HW_CONSENSUS_FOLDER_H

#include "agent/base/err.h"
#include "agent/loop/pool.h"

/* Blocking; before libraft opens the folder. Refuses, with HW_ERR_CORRUPT, open segments with damage in the middle
 * (libraft would take it for the end, and drop what was acknowledged behind it) or with damage that would make libraft
 * free memory twice, and cuts off a rest of a few zero bytes that would do the same. A write torn by a crash is left to
 * libraft. */
int folder_check(const char *folder, struct hw_error *e);

/* Free space of the folder's file system, asked on a pool. 0 MiB when it cannot be told. */
struct disk_room {
    struct hw_job job;
    const char *folder;
    uint64_t free_mib;
    void *owner;
};
void folder_room(struct disk_room *r); /* blocking */

#endif
