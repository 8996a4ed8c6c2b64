/* The fetch of an image from a peer, as a part of a replica: how far it is. Private to agent/replica; the diagram is in
 * rebuild.c. Life cycle: init · begin (by libraft's snapshot) · done, again and again · close. Loop thread only, but
 * for the fields named as the worker's.
 */
#ifndef HW_REPLICA_REBUILD_H
#define HW_REPLICA_REBUILD_H

#include "agent/loop/pool.h"
#include "agent/rpc/rpc.h"
#include "storage/hot/hot.h"
#include "storage/warm/part.h"

struct hw_replica;

struct hw_rebuild {
    bool is_wanted;
    bool is_installed; /* the image on disk is the new one, restore has not run yet */
    uint64_t index;    /* at least this */
    uint64_t leader_id;
    uint64_t source; /* peer we fetch from */
    unsigned attempts;
    struct hw_timer *retry;
    struct hw_request request;
    bool is_streaming;
    bool is_cancelling;
    uint64_t token;
    uint64_t copy_index; /* of the copy with this token */
    bool is_resumed;     /* token and what was received are of an earlier process, and were not asked for yet */
    unsigned said_percent;
    uint64_t total_bytes;
    uint64_t received_bytes; /* given to the writer, in order */
    uint64_t checksum;       /* of the whole file, from the end message */
    bool has_ended;
    struct hw_buf pending; /* chunk bytes not yet written */
    struct hw_job job;
    bool is_writing;
    bool is_loading;
    /* the worker's */
    struct hw_part part;
    struct hw_buf writing;
    uint64_t writing_at;
    int status;
    struct hw_error e;
    struct hw_hot *loaded;
    uint64_t loaded_index;
    uint64_t started_ms;
};

void hw_rebuild_init(struct hw_replica *r);
void hw_rebuild_close(struct hw_replica *r);
void hw_rebuild_begin(struct hw_replica *r, uint64_t index, uint64_t leader_id);

#endif
