/* What the tests of the hot-tier state share: a state with its log index, commands from C strings, and results as text,
 * so that a case is one line of what is asked and one of what is expected.
 */
#ifndef HW_TEST_HOT_KIT_H
#define HW_TEST_HOT_KIT_H

#include "storage/hot/lease.h"

struct kit {
    struct hw_hot *hot;
    uint64_t index;
    struct hw_buf encoded; /* the last command */
};

void hotkit_open(struct kit *k);
void hotkit_close(struct kit *k);

/* Slices of literals: S may hold NUL bytes, "\0" is the open range end. */
#define S(literal) hw_slice_of("" literal, sizeof(literal) - 1)
#define OPEN_END S("\0")

/* Encode, apply at the next index; the result's code. r may be NULL; free it otherwise. */
int hotkit_apply(struct kit *k, const struct hw_cmd *cmd, struct hw_result *r);
int hotkit_txn(struct kit *k, const struct hw_txn *txn, struct hw_result *r);
int hotkit_put(struct kit *k, const char *key, const char *value);
int hotkit_delete(struct kit *k, const char *key, struct hw_slice range_end);
int hotkit_compact(struct kit *k, hw_rev revision);
int hotkit_grant(struct kit *k, int64_t id, int64_t ttl_s);
int hotkit_revoke(struct kit *k, int64_t id);
int hotkit_remaining(struct kit *k, int64_t id, int64_t remaining_s);
/* A put that names a lease. */
int hotkit_lease(struct kit *k, const char *key, int64_t id);
/* "a b /2 10s": keys and key count, time to live, and what is left of it (",3") unless it is full; "NOTFOUND". */
const char *hotkit_lease_text(struct kit *k, int64_t id);
/* Until there is nothing left that may go. */
void hotkit_sweep(struct kit *k, size_t budget);

struct hw_op hotkit_op_put(const char *key, const char *value);
struct hw_op hotkit_op_delete(const char *key, const char *range_end);
struct hw_op hotkit_op_get(const char *key);
struct hw_op hotkit_op_txn(struct hw_txn *txn);

/* "a=1 b=2 /5+": keys and values, the count, + for more; "COMPACTED" and so on for a refusal. Valid until the next. */
const char *hotkit_range(struct kit *k, const struct hw_range *range, size_t budget);
/* All keys at a revision (0: latest). */
const char *hotkit_all(struct kit *k, hw_rev revision);
const char *hotkit_scan_text(const struct hw_scan *scan, bool keys_only);

/* One version in full, for comparisons: "key=value(create,mod,version)", and "~7" when it has lease 7. Appends. */
void hotkit_version_text(struct hw_buf *out, const struct hw_version *v, bool keys_only);
/* A whole result, in full. Appends. */
void hotkit_result_text(struct hw_buf *out, const struct hw_txn_result *txn);

/* The hash of the state by hasher, in steps of `budget`. */
uint64_t hotkit_hash(struct kit *k, hw_rev revision, size_t budget);

/* HW_SEED, or a fixed one; printed so that a failure can be replayed. */
uint64_t hotkit_seed(const char *what);

#endif
