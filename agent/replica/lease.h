/* The clock of the leases: on the hot node, when each ends; elsewhere, nothing.
 *
 * Deadlines count on a running clock that stands still while the loop does (a stalled or stopped process, a suspended
 * machine): a stall of the hot node never ends leases that their owners could not renew meanwhile. A node that becomes
 * hot gives each lease what was last written down, or its full time, plus one election timeout, which it does not hand
 * on. Ending is a proposal (LEASE_REVOKE), at most a bounded number in flight. One ordered structure, no timer per
 * lease. Loop thread only.
 *
 * A change of the hot node neither shortens a lease nor endlessly renews it: remaining time is written down through the
 * log, in batches of HW_LEASE_CHECKPOINT_MAX, one under way, at most one every HW_LEASE_TICK_MS:
 * - a lease that was granted or renewed in this tenure once a third of its time, at most a minute, is used;
 * - one that was taken over from another hot node after a second, and again whenever as much more was used as was
 *   written down in this tenure (lease_clock.h): a third of each lease's time is 20 s for a minute's lease, and tenures
 *   shorter than that must count too;
 * - before an orderly handover (hw_replica_lease_hand_on) whatever is not written down yet, to the second, for the
 *   first HW_LEASE_CHECKPOINT_MAX of them.
 * So what a change adds to a lease without keep-alives is bounded. By kill -9, the first one adds at most a third of
 * its time (at most a minute); each later one at most half of the tenure that ended, but no less than 1 s and what the
 * rounds take (up to 0.6 s, 3 s for 100,000 leases); an orderly one less than 1 s of rounding; each change one election
 * timeout while the tenure lasts that it began. Only tenures that are all shorter than that keep a lease alive for as
 * long as they go on.
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

/* The tenure is about to be handed over: write down what is left, in one batch at most, in the log before whatever is
 * submitted to it after this call. Does nothing elsewhere. */
void hw_replica_lease_hand_on(struct hw_replica *r);

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
