/* Log commands: what a Raft entry of ours holds.
 *
 * Encoding: u8 format (HW_CMD_FORMAT), u8 type, u64 wall_ms, then the type's fields; integers little-endian or varint,
 * byte strings with a varint length. A decoder accepts exactly what an encoder writes: trailing bytes, unknown types,
 * enumeration values outside their range and a newer format are refused. Bounds (HW_TXN_*) are checked by the decoder
 * too, so that a damaged entry cannot ask for unbounded memory.
 *
 * The proposer fills wall_ms; the state machine has no clock of its own.
 */
#ifndef HW_HOT_COMMAND_H
#define HW_HOT_COMMAND_H

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "storage/hot/record.h"

#define HW_CMD_FORMAT 1
/* A transaction holds at most this many operations over all its branches and nested transactions... */
#define HW_TXN_OPS_HARD_MAX 65536
/* Deletes of one transaction cover at most this many keys: they are applied in one go on every node, and more would
 * hold heartbeats up for longer than an election takes. */
#define HW_DELETE_KEYS_MAX 200000
/* Compares of one transaction over ranges look at no more than this many keys, for the same reason: checked before the
 * log (hw_hot_check_compares). */
#define HW_COMPARE_KEYS_MAX 20000
/* A transaction nests at most this deep (the outermost is depth 1). */
#define HW_TXN_DEPTH_MAX 8
/* One key or value; far above what the API lets through. */
#define HW_BYTES_MAX (1u << 30)

enum hw_cmd_type {
    HW_CMD_TXN = 1,          /* every write of keys, also a single put or delete */
    HW_CMD_COMPACT,          /* forget versions below a revision */
    HW_CMD_HOT_ACQUIRED,     /* a node became leader and says so: {node_id, epoch} */
    HW_CMD_NODE_SET,         /* add or replace a node of the registry */
    HW_CMD_NODE_REMOVE,      /* remove a node from the registry */
    HW_CMD_EVENT,            /* one record of the cluster history */
    HW_CMD_LEASE_GRANT,      /* a lease begins: {id, ttl} */
    HW_CMD_LEASE_REVOKE,     /* a lease ends, its keys are deleted */
    HW_CMD_LEASE_CHECKPOINT, /* how much time leases have left, so that a new hot node does not begin anew */
    HW_CMD_TYPE_END
};

/* etcd's RangeRequest, field by field (etcdserverpb/rpc.proto). */
enum hw_sort_order { HW_SORT_NONE, HW_SORT_ASCEND, HW_SORT_DESCEND };
enum hw_sort_target { HW_BY_KEY, HW_BY_VERSION, HW_BY_CREATE, HW_BY_MOD, HW_BY_VALUE };
struct hw_range {
    struct hw_slice key;
    struct hw_slice range_end; /* empty: the one key; "\0": every key >= key */
    int64_t limit;             /* 0: none */
    hw_rev revision;           /* <= 0: the latest */
    enum hw_sort_order sort_order;
    enum hw_sort_target sort_target;
    bool keys_only;
    bool count_only;
    hw_rev min_mod, max_mod, min_create, max_create; /* 0: no bound; inclusive */
};

struct hw_put {
    struct hw_slice key;
    struct hw_slice value;
    int64_t lease;
    bool prev_kv;
    bool ignore_value; /* keep the value, change lease and revision */
    bool ignore_lease; /* keep the lease */
};

struct hw_delete {
    struct hw_slice key;
    struct hw_slice range_end;
    bool prev_kv;
};

enum hw_compare_result { HW_CMP_EQUAL, HW_CMP_GREATER, HW_CMP_LESS, HW_CMP_NOT_EQUAL };
enum hw_compare_target { HW_CMP_VERSION, HW_CMP_CREATE, HW_CMP_MOD, HW_CMP_VALUE, HW_CMP_LEASE };
struct hw_compare {
    enum hw_compare_result result;
    enum hw_compare_target target;
    struct hw_slice key;
    struct hw_slice range_end; /* empty: the one key */
    int64_t number;            /* for every target but VALUE */
    struct hw_slice value;     /* for VALUE */
};

enum hw_op_type { HW_OP_RANGE = 1, HW_OP_PUT, HW_OP_DELETE, HW_OP_TXN };
struct hw_txn;
struct hw_op {
    enum hw_op_type type;
    union {
        struct hw_range range;
        struct hw_put put;
        struct hw_delete del;
        struct hw_txn *txn;
    };
};

struct hw_txn {
    struct hw_compare *compares;
    size_t compare_count;
    struct hw_op *success;
    size_t success_count;
    struct hw_op *failure;
    size_t failure_count;
};

/* One node of the registry. Strings are NUL-terminated; longer ones are refused before they reach the log. */
#define HW_NODE_NAME_MAX 64
#define HW_ADDRESS_MAX 256
struct hw_node {
    uint64_t id; /* Raft id: one incarnation of the node's disk */
    char name[HW_NODE_NAME_MAX];
    char peer_address[HW_ADDRESS_MAX];   /* host:port */
    char client_address[HW_ADDRESS_MAX]; /* host:port */
    uint64_t added_wall_ms;              /* given on apply: the proposer's wall clock when the id first appeared */
};

/* One record of the cluster history. */
#define HW_EVENT_KIND_MAX 32
#define HW_EVENT_TEXT_MAX 512
struct hw_event {
    uint64_t seq;                 /* given by the state on apply: 1, 2, ... */
    uint64_t index;               /* log index, given on apply */
    uint64_t wall_ms;             /* the proposer's wall clock */
    uint64_t epoch;               /* given on apply: the epoch in force */
    uint64_t node_id;             /* whom it is about; 0: the cluster */
    char node[HW_NODE_NAME_MAX];  /* its name then, given on apply: a removed node keeps its name in the history */
    char kind[HW_EVENT_KIND_MAX]; /* "promoted", "node-added", ... */
    char text[HW_EVENT_TEXT_MAX]; /* what an operator reads */
};

#define HW_LEASE_CHECKPOINT_MAX 4096
struct hw_lease_remaining {
    int64_t id;
    int64_t remaining_s; /* 0: full again; at most HW_LEASE_TTL_MAX */
};

struct hw_cmd {
    enum hw_cmd_type type;
    uint64_t wall_ms;
    union {
        struct hw_txn txn;
        hw_rev compact;
        struct {
            uint64_t node_id;
            uint64_t epoch;
            char name[HW_NODE_NAME_MAX]; /* the registry may not hold it yet */
        } hot;
        struct hw_node node; /* NODE_SET */
        uint64_t node_id;    /* NODE_REMOVE */
        struct {
            int64_t id;    /* > 0 */
            int64_t ttl_s; /* 1 to HW_LEASE_TTL_MAX */
        } grant;
        int64_t revoke; /* lease id */
        struct {
            struct hw_lease_remaining *leases;
            size_t count; /* at most HW_LEASE_CHECKPOINT_MAX */
        } checkpoint;
        struct hw_event event; /* EVENT: kind, text, node_id are the proposer's */
    };
};

/* Append the encoding of cmd to out. HW_ERR_NOMEM, or HW_ERR_INVALID for what a decoder would refuse. */
int hw_cmd_encode(const struct hw_cmd *cmd, struct hw_buf *out);

/* Decode; slices borrow from data, arrays are allocated: free with hw_cmd_free (valid after a failure too).
 * HW_ERR_CORRUPT, HW_ERR_VERSION (format newer than this program), HW_ERR_NOMEM. */
int hw_cmd_decode(const void *data, size_t len, struct hw_cmd *cmd, struct hw_error *e);
void hw_cmd_free(struct hw_cmd *cmd);

#endif
