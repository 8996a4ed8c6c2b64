/* What a machine's disk holds of libraft, and the disk half of its raft_io. Owned by the server. */
#ifndef HW_SIM_DISK_H
#define HW_SIM_DISK_H

#include <raft.h>

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "agent/base/buf.h"

struct disk_op;
TAILQ_HEAD(disk_op_list, disk_op);
struct disk {
    /* survives a crash */
    raft_term term;
    raft_id vote;
    struct raft_entry *entries; /* each owns its buf */
    size_t count;
    size_t cap;
    raft_index first; /* index of entries[0], or of the next one */
    bool has_snapshot;
    raft_index snapshot_index;
    raft_term snapshot_term;
    raft_index conf_index;
    struct hw_buf conf;
    struct hw_buf data;
    /* of this life */
    raft_index next_index; /* as submitted, which runs ahead of what is written */
    uint64_t busy_until_ms;
    struct disk_op_list ops; /* in order, as raft_uv's barriers have it */
    struct disk_op_list gets;
    bool is_broken; /* an error was met: nothing is written any more */
    /* faults */
    uint64_t latency_ms;
    bool fails_append;
    unsigned fails_puts;
};

struct server;
void disk_init(struct disk *d);
void disk_free(struct disk *d);
void disk_bootstrap(struct disk *d, const struct raft_configuration *conf);
void disk_wrap(struct server *v);
/* The machine loses power: of what is being written, a part arrives. Before the callbacks are cancelled. */
void disk_power_cut(struct server *v);
void disk_cancel(struct server *v);
raft_index disk_last(const struct disk *d);

#endif
