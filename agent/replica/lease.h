/* The clock of the leases: on the hot node, when each ends; elsewhere, nothing.
 *
 * Deadlines count on a running clock that stands still while the loop does (a stalled or stopped process, a suspended
 * machine): a stall of the hot node never ends leases that their owners could not renew meanwhile. A node that becomes
 * hot gives each lease what was last written down, or its full time, plus one election timeout. Remaining time is
 * written down through the log for leases that have used a third of their time, so that a change of the hot node
 * neither shortens nor endlessly renews them. Ending is a proposal (LEASE_REVOKE), at most a bounded number in flight.
 * One ordered structure, no timer per lease. Loop thread only.
 *
 * While the log takes no entries (no space), nothing ends either, and what was renewed meanwhile stays.
 */
#ifndef HW_REPLICA_LEASE_H
#define HW_REPLICA_LEASE_H

#include "agent/replica/replica.h"
#include "storage/hot/lease.h"

/* The shortest time to live that is granted: a lease must outlive a change of the hot node. Shorter wishes are raised
 * to it, as etcd does. */
int64_t hw_replica_lease_ttl_min_s(const struct hw_replica *r);

/* Renew to the full time. On the hot node only: HW_ERR_NOTHOT; HW_ERR_NOTFOUND when it is gone, or about to be. ttl_s:
 * what it has now. For an owner's keep-alive use hw_replica_lease_keep_alive. */
int hw_replica_lease_renew(struct hw_replica *r, int64_t id, int64_t *ttl_s);
/* What is left, rounded down to seconds; hot node only. */
int hw_replica_lease_left(struct hw_replica *r, int64_t id, int64_t *left_s);

/* What an owner may rely on: this node is confirmed to be hot still (one round for all that wait, as for a read); where
 * the log says that less is left, it is told "all" first, so that the next hot node does not end the lease early; then
 * the lease is renewed. The caller owns the struct until done.
 * done: 0 with ttl_s; HW_ERR_NOTFOUND (gone); HW_ERR_NOTHOT; otherwise as hw_read and hw_write. */
struct hw_keep_alive {
    void (*done)(struct hw_keep_alive *k, int status);
    void *data;
    int64_t id;
    int64_t ttl_s;
    struct hw_replica *replica; /* private */
    union {
        struct hw_read read;
        struct hw_write write;
    } work; /* private */
};
/* HW_ERR_NOTHOT, and what hw_replica_read refuses. */
int hw_replica_lease_keep_alive(struct hw_replica *r, struct hw_keep_alive *k, uint64_t timeout_ms);

#endif
