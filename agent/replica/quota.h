/* The bound on the memory of the state, with hysteresis: over it, what would let the state grow is refused until it has
 * shrunk below 95 %, so that clients do not see the two answers alternate. Deletions, compaction and the end of leases
 * are never refused: they are the way out. Private to agent/replica; pure.
 *
 * What is under way when the bound is reached still arrives: the state may exceed it by limits.proposal_bytes_max.
 */
#ifndef HW_REPLICA_QUOTA_H
#define HW_REPLICA_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

struct hw_quota {
    uint64_t bytes_max; /* 0: no bound */
    bool is_over;
};

/* Look at the size now; true when is_over changed. */
bool hw_quota_update(struct hw_quota *q, uint64_t bytes);
/* Below this it clears. */
uint64_t hw_quota_clear_below(const struct hw_quota *q);

#endif
