/* Leases of the state. The state holds what must survive: who exists, with which time to live, which keys are attached,
 * and how much time was left when that was last written down. It has no clock: when a lease ends is decided by the hot
 * node (agent/replica/lease.c), which proposes the revocation.
 *
 * Commands (command.h): LEASE_GRANT, LEASE_REVOKE (deletes every attached key in one revision, as a transaction would),
 * LEASE_CHECKPOINT (remaining time of many). A put names its lease; a put without one, or with another, detaches the
 * key from the old one; so does a delete. etcd's rules: https://etcd.io/docs/latest/learning/api/#lease-api
 *
 * A revocation is not sliced: a lease with a million keys holds up the loop for as long as a transaction that deletes a
 * million keys does. Its result holds no operations, only the revision.
 *
 * Result codes: GRANT: HW_ERR_EXISTS (id in use), HW_ERR_EXHAUSTED (HW_LEASES_MAX). REVOKE: HW_ERR_NOTFOUND. PUT within
 * a transaction: HW_ERR_PRECONDITION (no such lease). CHECKPOINT ignores leases that are gone and writes
 * down no more than was granted.
 */
#ifndef HW_HOT_LEASE_H
#define HW_HOT_LEASE_H

#include "storage/hot/hot.h"

#define HW_LEASES_MAX (4u * 1024u * 1024u)
/* Keys of one lease: they are deleted in one go on every node when it ends, as by HW_DELETE_KEYS_MAX. A put that would
 * attach one more has the result HW_ERR_EXHAUSTED. (The puts of one transaction are checked against the state before
 * it, so a lease may have as many more as a transaction has operations.) */
#define HW_LEASE_KEYS_MAX 200000
/* etcd's bound on a time to live, seconds. */
#define HW_LEASE_TTL_MAX 9000000000

struct hw_lease_view {
    int64_t id;
    int64_t ttl_s;       /* as granted */
    int64_t remaining_s; /* as last written down; 0: full */
    size_t key_count;
};

size_t hw_hot_lease_count(const struct hw_hot *h);
/* HW_ERR_NOTFOUND. */
int hw_hot_lease(const struct hw_hot *h, int64_t id, struct hw_lease_view *view);
/* The lease with the lowest id above `after` (INT64_MIN: the first); HW_ERR_NOTFOUND at the end. */
int hw_hot_lease_next(const struct hw_hot *h, int64_t after, struct hw_lease_view *view);
/* The attached keys in key order, from the first that is greater than `after` (NULL: the first), at most `max`; returns
 * how many. Names are borrowed until the next apply. */
size_t hw_hot_lease_keys(const struct hw_hot *h, int64_t id, const struct hw_key_name *after, struct hw_key_name **keys,
                         size_t max);

/* Called within apply when a lease came, went, or its remaining time was written down, be it the same as before
 * (`is_gone` tells; its keys went before it). For the hot node's clock. One listener; not called by a load. */
typedef void (*hw_lease_fn)(void *ctx, const struct hw_lease_view *view, bool is_gone);
void hw_hot_set_lease_feed(struct hw_hot *h, hw_lease_fn fn, void *ctx);

/* ---- checkpoint and load ---- */

struct hw_lease_record {
    int64_t id;
    int64_t ttl_s;
    int64_t remaining_s;
    bool is_gone; /* in cuts: remove it */
};
/* Before hw_hot_load_finish, before or after the versions. HW_ERR_CORRUPT (twice, or out of bounds), HW_ERR_NOMEM. */
int hw_hot_load_lease(struct hw_hot *h, const struct hw_lease_record *record);

#endif
