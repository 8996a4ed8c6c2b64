/* The clock of the leases: on the hot node, when each ends; elsewhere, nothing.
 *
 * Deadlines count on a running clock that stands still while the loop does (a stalled or stopped process, a suspended
 * machine): a stall of the hot node never ends leases that their owners could not renew meanwhile. A node that becomes
 * hot gives each lease what was last written down, or its full time, plus one election timeout. Remaining time is
 * written down through the log for leases that have used a third of their time, so that a change of the hot node
 * neither shortens nor endlessly renews them. Ending is a proposal (LEASE_REVOKE), at most a bounded number in flight.
 * One ordered structure, no timer per lease. Loop thread only.
 */
#ifndef HW_REPLICA_LEASE_H
#define HW_REPLICA_LEASE_H

#include "agent/replica/replica.h"
#include "storage/hot/lease.h"

/* Renew to the full time. On the hot node only: HW_ERR_NOTHOT; HW_ERR_NOTFOUND when it is gone. ttl_s: what it has now.
 */
int hw_replica_lease_renew(struct hw_replica *r, int64_t id, int64_t *ttl_s);
/* What is left, rounded down to seconds; hot node only. */
int hw_replica_lease_left(struct hw_replica *r, int64_t id, int64_t *left_s);

#endif
