/* The few messages of etcd's API that a load needs, written and read by hand: a generated decoder allocates for every
 * message, and what the client costs is taken from the servers on the same machine. Field numbers are etcd's
 * (https://etcd.io/docs/latest/dev-guide/api_reference_v3/). Encoders append to a buffer that the caller clears and
 * keeps, so that nothing is allocated after the first calls. Decoders borrow from the message.
 */
#ifndef HW_TESTS_LOAD_BENCH_WIRE_H
#define HW_TESTS_LOAD_BENCH_WIRE_H

#include "agent/base/buf.h"

#define BENCH_PATH_PUT "/etcdserverpb.KV/Put"
#define BENCH_PATH_RANGE "/etcdserverpb.KV/Range"
#define BENCH_PATH_TXN "/etcdserverpb.KV/Txn"
#define BENCH_PATH_WATCH "/etcdserverpb.Watch/Watch"
#define BENCH_PATH_GRANT "/etcdserverpb.Lease/LeaseGrant"
#define BENCH_PATH_KEEP_ALIVE "/etcdserverpb.Lease/LeaseKeepAlive"

void bench_put_encode(struct hw_buf *out, struct hw_slice key, struct hw_slice value);

struct bench_range {
    struct hw_slice key;
    struct hw_slice end; /* empty: one key */
    uint64_t limit;      /* 0: none */
    bool is_serializable;
    bool is_keys_only;
};
void bench_range_encode(struct hw_buf *out, const struct bench_range *range);
/* If the key's mod_revision is this: put; else get. `scratch` holds the parts. */
void bench_txn_encode(struct hw_buf *out, struct hw_buf *scratch, struct hw_slice key, struct hw_slice value,
                      int64_t mod_revision);
void bench_watch_create_encode(struct hw_buf *out, struct hw_buf *scratch, struct hw_slice key);
void bench_grant_encode(struct hw_buf *out, uint64_t ttl_s);
void bench_keep_alive_encode(struct hw_buf *out, int64_t id);

/* One field of a message; false at the end or when the rest can not be read (`r->failed`). */
struct bench_field {
    unsigned number;
    uint64_t number_value; /* of varints */
    struct hw_slice bytes; /* of messages, strings and bytes */
};
bool bench_field_next(struct hw_reader *r, struct bench_field *field);

struct bench_kv {
    struct hw_slice key;
    struct hw_slice value;
    int64_t mod_revision;
};
struct bench_kv bench_kv_decode(struct hw_slice message);
/* header.revision, which is field 1 of every answer; 0 when it is not there. */
int64_t bench_revision_of(struct hw_slice message);

struct bench_txn_answer {
    bool is_succeeded;
    int64_t revision;     /* of the header */
    int64_t mod_revision; /* of the key that `else` has read; 0 when there is none */
};
struct bench_txn_answer bench_txn_decode(struct hw_slice message);

#endif
