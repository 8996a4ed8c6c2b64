/* The configuration of an agent: one table (schema.c) drives the YAML file, the environment, --check-config, the
 * printed effective configuration and the reference page docs/config.md.
 *
 * Every problem of a file is reported at once, each with its line and key ("config.yaml:12: raft.election_ms: 5 is
 * below the minimum 20"); unknown and repeated keys are problems. Values are strings in memory of the struct; times
 * carry their unit in the key. Environment variables override the file: HOTWARM_ + the key in capitals, dots as
 * underscores (HOTWARM_NODE_NAME); lists are not settable there.
 */
#ifndef HW_CONFIG_CONFIG_H
#define HW_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"

#define HW_CONFIG_FORMAT 1
#define HW_CONFIG_NODES_MAX 9
#define HW_CONFIG_TEXT_MAX 256

struct hw_config_peer {
    char name[64];
    char peer[HW_CONFIG_TEXT_MAX];
};

struct hw_config {
    uint64_t format;  /* format: 1 */
    char cluster[64]; /* cluster.name: letters, digits, '-', '_', '.' */
    struct {
        char name[64];                 /* node.name */
        char data[HW_CONFIG_TEXT_MAX]; /* node.data: the data folder */
    } node;
    struct {
        char client[HW_CONFIG_TEXT_MAX]; /* listen.client, default 127.0.0.1:2379 */
        char peer[HW_CONFIG_TEXT_MAX];   /* listen.peer, default 127.0.0.1:2380 */
    } listen;
    struct {
        char client[HW_CONFIG_TEXT_MAX]; /* advertise.client; default: listen.client */
        char peer[HW_CONFIG_TEXT_MAX];   /* advertise.peer; default: listen.peer */
    } advertise;
    struct {
        /* cluster.initial: the nodes that form a new cluster, itself included */
        struct hw_config_peer initial[HW_CONFIG_NODES_MAX];
        size_t initial_count;
        char join[HW_CONFIG_NODES_MAX][HW_CONFIG_TEXT_MAX]; /* cluster.join: peer addresses of an existing cluster */
        size_t join_count;
        uint64_t voters; /* cluster.voters: 1, 3 or 5; default 3 */
    } members;
    bool insecure; /* insecure: allow listening beyond loopback without TLS */
    struct {
        uint64_t heartbeat_ms;       /* 50 */
        uint64_t election_ms;        /* 300 */
        uint64_t tick_ms;            /* 10 */
        uint64_t snapshot_threshold; /* 8192 entries */
        uint64_t snapshot_trailing;  /* 8192 entries */
        uint64_t disk_reserve_mb;    /* 64 */
    } raft;
    struct {
        uint64_t checkpoint_interval_ms; /* 1000: the image is at most this old */
        uint64_t checkpoint_dirty_bytes; /* 64 MiB: an earlier checkpoint beyond it */
        uint64_t transfer_rate_mb;       /* MB/s an image is sent with; 0: unlimited; default 0 */
        uint64_t transfer_chunk_bytes;   /* 1 MiB */
    } image;
    struct {
        char mode[HW_CONFIG_TEXT_MAX]; /* periodic, revision or off */
        uint64_t retention_s;          /* 3600 */
        uint64_t retention_revisions;  /* 1000000; 0: no matter how many */
        uint64_t interval_s;           /* 60 */
    } compaction;
    struct {
        uint64_t state_bytes_max;       /* 2 GiB; 0: no bound */
        uint64_t request_bytes_max;     /* 1.5 MiB = 1572864 */
        uint64_t txn_ops_max;           /* 128 */
        uint64_t connections_max;       /* 10000 per port */
        uint64_t streams_max;           /* 1024 calls of one connection */
        uint64_t proposals_max;         /* 16384 in flight */
        uint64_t proposal_bytes_max;    /* 64 MiB in flight */
        uint64_t forwards_max;          /* 16384 calls under way to the hot node */
        uint64_t reads_max;             /* 65536 linearizable reads waiting */
        uint64_t request_timeout_ms;    /* 5000: a request without a deadline of its own */
        uint64_t scan_slice_keys;       /* 1000 keys a loop turn */
        uint64_t watchers_max;          /* 100000 of this node */
        uint64_t watch_queue_bytes_max; /* 4 MiB of events of one stream that its client has not read */
        uint64_t watch_stall_ms;        /* 30000: a watcher whose client reads nothing is ended */
        uint64_t watch_progress_ms;     /* 600000: progress is told to a quiet watcher that asked for it */
    } limits;
    struct {
        char level[HW_CONFIG_TEXT_MAX]; /* "info" or "info,replica=debug"; reloadable */
        uint64_t stall_budget_ms;       /* 10: a longer loop turn is logged */
    } log;
    uint64_t stop_timeout_ms; /* 10000: a clean stop takes at most this long */
};

void hw_config_default(struct hw_config *c);

/* Problems, one a line, with file:line: key: what is wrong and what would be right; in the order of the file, then the
 * environment, then what is missing. At most 100 lines are listed, the last says how many more there are. */
struct hw_config_problems {
    struct hw_buf text; /* NUL-terminated when count > 0 */
    size_t count;
};
void hw_config_problems_free(struct hw_config_problems *p);

/* Defaults, then the file (NULL: none), then the environment, then the checks of the whole. 0 or HW_ERR_INVALID with
 * every problem listed; HW_ERR_NOTFOUND, HW_ERR_IO for the file itself (one problem); HW_ERR_NOMEM. `problems` is set
 * in every case and freed by the caller; after an error `c` is not to be used. Reads the file at once: for the start,
 * and for a worker at a reload. */
int hw_config_load(const char *path, struct hw_config *c, struct hw_config_problems *problems);
/* As hw_config_load, from memory; `name` stands for the file in messages. Environment not read. */
int hw_config_parse(const char *name, const void *text, size_t len, struct hw_config *c,
                    struct hw_config_problems *problems);

/* What differs between the running configuration and a new one: keys that can be reloaded, and keys that need a
 * restart. Appends key names, comma-separated. */
void hw_config_diff(const struct hw_config *running, const struct hw_config *fresh, struct hw_buf *reloadable,
                    struct hw_buf *restart);

/* The effective configuration as YAML, and the reference page (Markdown) of all keys. */
void hw_config_print(const struct hw_config *c, struct hw_buf *out);
void hw_config_reference(struct hw_buf *out);

#endif
