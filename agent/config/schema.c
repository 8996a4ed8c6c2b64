#include "agent/config/schema.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"

#define FIELD(member) .offset = offsetof(struct hw_config, member), .size = sizeof(((struct hw_config *)NULL)->member)
#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

#define UINT(k, member, d, lo, hi, ...)                                                                      \
    {                                                                                                        \
        .key = (k), .type = HW_CONFIG_UINT, FIELD(member), .def = (d), .min = (lo), .max = (hi), __VA_ARGS__ \
    }
#define BOOL(k, member, d, ...)                                                              \
    {                                                                                        \
        .key = (k), .type = HW_CONFIG_BOOL, FIELD(member), .def = (d), .max = 1, __VA_ARGS__ \
    }
#define TEXT(k, t, member, ...)                                       \
    {                                                                 \
        .key = (k), .type = HW_CONFIG_##t, FIELD(member), __VA_ARGS__ \
    }

const struct hw_config_row hw_config_rows[] = {
    UINT("format", format, HW_CONFIG_FORMAT, 1, HW_CONFIG_FORMAT,
         .help = "Version of the layout of this file; a program refuses a newer one than it knows."),

    TEXT("cluster.name", NAME, cluster,
         .help = "Name of the cluster; the same on every node, part of every peer handshake."),
    TEXT("cluster.initial", PEERS, members.initial,
         .help = "The nodes that form a new cluster, this one included; the same list on each of them."),
    TEXT("cluster.join", ADDRESSES, members.join,
         .help = "Peer addresses of an existing cluster that this node joins; instead of cluster.initial."),
    UINT("cluster.voters", members.voters, 3, 1, 5,
         .help = "How many nodes vote: 1, 3 or 5; (voters - 1) / 2 of them may be lost at once."),

    TEXT("node.name", NAME, node.name, .help = "Name of this node, unique in the cluster."),
    TEXT("node.data", PATH, node.data, .help = "Folder of the image and the log; used by one agent only."),

    TEXT("listen.client", ADDRESS, listen.client, .def_text = "127.0.0.1:2379",
         .help = "Where clients are served: gRPC and HTTP/1.1 on one port."),
    TEXT("listen.peer", ADDRESS, listen.peer, .def_text = "127.0.0.1:2380",
         .help = "Where the other agents are served."),
    TEXT("advertise.client", ADDRESS, advertise.client, .def_key = "listen.client",
         .help = "The client address as others reach it."),
    TEXT("advertise.peer", ADDRESS, advertise.peer, .def_key = "listen.peer",
         .help = "The peer address as the other nodes reach it."),
    BOOL("insecure", insecure, false, .help = "Allow listening beyond loopback without encryption."),

    UINT("raft.heartbeat_ms", raft.heartbeat_ms, 50, 5, 10000,
         .help = "The hot node is heard from at least this often."),
    UINT("raft.election_ms", raft.election_ms, 300, 20, 60000,
         .help = "Silence after which an election starts: a random time between one and two times this."),
    UINT("raft.tick_ms", raft.tick_ms, 10, 1, 1000, .help = "How often the timers above are looked at."),
    UINT("raft.snapshot_threshold", raft.snapshot_threshold, 8192, 16, 16777216,
         .help = "Log entries between two snapshots."),
    UINT("raft.snapshot_trailing", raft.snapshot_trailing, 8192, 16, 16777216,
         .help = "Log entries kept behind a snapshot, for nodes that are a little late."),
    UINT("raft.disk_reserve_mb", raft.disk_reserve_mb, 64, 0, 1048576,
         .help = "Writes are refused when the log disk has less than this left, in MB; 0: not checked."),

    UINT("image.checkpoint_interval_ms", image.checkpoint_interval_ms, 1000, 10, 3600000,
         .help = "The image is at most this old."),
    UINT("image.checkpoint_dirty_bytes", image.checkpoint_dirty_bytes, 64 * MIB, 64 * KIB, 16 * GIB,
         .help = "More changed bytes than this start a checkpoint earlier."),
    UINT("image.transfer_rate_mb", image.transfer_rate_mb, 0, 0, 100000,
         .help = "Rate at which an image is sent to another node, in MB a second; 0: unlimited."),
    UINT("image.transfer_chunk_bytes", image.transfer_chunk_bytes, 1 * MIB, 4 * KIB, 1536 * KIB,
         .help = "An image is sent in pieces of this size."),

    TEXT("compaction.mode", NAME, compaction.mode, .def_text = "periodic",
         .help = "Forget old revisions by themselves: periodic (by age and by number), revision (by number), off."),
    UINT("compaction.retention_s", compaction.retention_s, 3600, 1, 31536000,
         .help =
             "In mode periodic: what was current within this many seconds stays readable, unless there are too many "
             "revisions."),
    UINT("compaction.retention_revisions", compaction.retention_revisions, 1000000, 0, 1000000000000,
         .help = "In modes periodic and revision: at most this many revisions are kept; 0: no matter how many."),
    UINT("compaction.interval_s", compaction.interval_s, 60, 1, 86400, .help = "How often that is looked at."),

    UINT("limits.state_bytes_max", limits.state_bytes_max, 2 * GIB, 0, 1024 * GIB,
         .help = "Memory of the state beyond which puts and lease grants are refused, until it is below 95 % of it; 0: "
                 "no bound."),
    UINT("limits.request_bytes_max", limits.request_bytes_max, 1536 * KIB, 1 * KIB, 16 * MIB,
         .help = "Size of one request."),
    UINT("limits.txn_ops_max", limits.txn_ops_max, 128, 1, 65536, .help = "Operations of one transaction."),
    UINT("limits.connections_max", limits.connections_max, 10000, 8, 1000000, .help = "Connections of one port."),
    UINT("limits.streams_max", limits.streams_max, 1024, 1, 1000000, .help = "Calls under way on one connection."),
    UINT("limits.proposals_max", limits.proposals_max, 16384, 1, 1048576, .help = "Writes under way to the log."),
    UINT("limits.proposal_bytes_max", limits.proposal_bytes_max, 64 * MIB, 64 * KIB, 4 * GIB,
         .help = "Bytes of the writes under way to the log."),
    UINT("limits.forwards_max", limits.forwards_max, 16384, 1, 1048576,
         .help = "Calls under way from a warm node to the hot node."),
    UINT("limits.reads_max", limits.reads_max, 65536, 1, 1048576,
         .help = "Linearizable reads waiting for a confirmation."),
    UINT("limits.request_timeout_ms", limits.request_timeout_ms, 5000, 1, 3600000,
         .help = "Deadline of a request that brings none of its own."),
    UINT("limits.scan_slice_keys", limits.scan_slice_keys, 1000, 1, 1000000,
         .help = "Keys in one slice of a long range, a hash or a listing; all of these together take about four slices "
                 "in a turn of the loop."),
    UINT("limits.watchers_max", limits.watchers_max, 100000, 1, 10000000, .help = "Watchers of keys on this node."),
    UINT("limits.watch_queue_bytes_max", limits.watch_queue_bytes_max, 4 * MIB, 64 * KIB, 1 * GIB,
         .help = "Events of one watch stream that wait for its client to read; beyond it the stream falls behind."),
    UINT("limits.watch_stall_ms", limits.watch_stall_ms, 30000, 100, 86400000,
         .help = "A watcher whose client has not read for so long is cancelled."),
    UINT("limits.watch_progress_ms", limits.watch_progress_ms, 600000, 100, 86400000,
         .help = "How often a quiet watcher that asks for progress notifications gets one."),

    TEXT("log.level", LEVELS, log.level, .def_text = "info", .reloadable = true,
         .help = "debug, info, warn or error, and exceptions: \"info,replica=debug\"."),
    UINT("log.stall_budget_ms", log.stall_budget_ms, 10, 0, 60000,
         .help = "A turn of the loop that takes longer is logged; 0: never."),
    UINT("stop_timeout_ms", stop_timeout_ms, 10000, 100, 3600000, .help = "A clean stop takes at most this long."),
};

const size_t hw_config_row_count = hw_array_len(hw_config_rows);
_Static_assert(hw_array_len(hw_config_rows) <= HW_CONFIG_ROWS_MAX, "raise HW_CONFIG_ROWS_MAX");

const struct hw_config_row *hw_config_find(const char *key)
{
    for (size_t i = 0; i < hw_config_row_count; i++) {
        if (strcmp(hw_config_rows[i].key, key) == 0) {
            return &hw_config_rows[i];
        }
    }
    return NULL;
}

bool hw_config_is_group(const char *key)
{
    size_t len = strlen(key);
    for (size_t i = 0; i < hw_config_row_count; i++) {
        if (strncmp(hw_config_rows[i].key, key, len) == 0 && hw_config_rows[i].key[len] == '.') {
            return true;
        }
    }
    return false;
}

bool hw_config_is_list(const struct hw_config_row *row)
{
    return row->type == HW_CONFIG_PEERS || row->type == HW_CONFIG_ADDRESSES;
}

bool hw_config_is_text(const struct hw_config_row *row)
{
    return row->type != HW_CONFIG_UINT && row->type != HW_CONFIG_BOOL && !hw_config_is_list(row);
}

bool hw_config_is_required(const struct hw_config_row *row)
{
    return hw_config_is_text(row) && row->def_text == NULL && row->def_key == NULL;
}

const void *hw_config_field(const struct hw_config *c, const struct hw_config_row *row)
{
    return (const char *)c + row->offset;
}

void *hw_config_field_mut(struct hw_config *c, const struct hw_config_row *row)
{
    return (char *)c + row->offset;
}

void hw_config_take_default_key(struct hw_config *c, const struct hw_config_row *row)
{
    const struct hw_config_row *from = hw_config_find(row->def_key);
    hw_assert(from != NULL && from->size == row->size);
    memcpy(hw_config_field_mut(c, row), hw_config_field(c, from), row->size);
}

const char *hw_config_env_name(const struct hw_config_row *row, char buf[HW_CONFIG_ENV_MAX])
{
    int n = snprintf(buf, HW_CONFIG_ENV_MAX, "HOTWARM_%s", row->key);
    hw_assert(n > 0 && n < HW_CONFIG_ENV_MAX);
    for (char *p = buf; *p != '\0'; p++) {
        *p = (char)(*p == '.' ? '_' : toupper((unsigned char)*p));
    }
    return buf;
}

void hw_config_default(struct hw_config *c)
{
    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < hw_config_row_count; i++) {
        const struct hw_config_row *row = &hw_config_rows[i];
        if (row->type == HW_CONFIG_UINT) {
            *(uint64_t *)hw_config_field_mut(c, row) = row->def;
        } else if (row->type == HW_CONFIG_BOOL) {
            *(bool *)hw_config_field_mut(c, row) = row->def != 0;
        } else if (row->def_text != NULL) {
            snprintf(hw_config_field_mut(c, row), row->size, "%s", row->def_text);
        } else if (row->def_key != NULL) {
            hw_config_take_default_key(c, row);
        }
    }
}
