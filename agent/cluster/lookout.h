/* After a quorum was given up (hwctl recover) the members do not know everybody any more who may still act on the old
 * data, or on another recovery of it: two operators may have recovered two nodes. Each node of a recovered cluster
 * therefore keeps asking the addresses of its configuration who is there, and tells its owner the highest recovery of
 * its own cluster that it hears of. Whoever has less is superseded.
 *
 * Loop thread only; hw_lookout_free in any state, memory goes with the last call under way.
 */
#ifndef HW_CLUSTER_LOOKOUT_H
#define HW_CLUSTER_LOOKOUT_H

#include "agent/loop/loop.h"
#include "agent/loop/pool.h"

#define HW_LOOKOUT_ADDRESSES_MAX 32

struct hw_lookout;

/* on_heard runs for every answer of a node of this cluster; the lookout may be freed within it. */
int hw_lookout_new(struct hw_loop *loop, struct hw_pool *resolver, uint64_t cluster_id, const char *const *addresses,
                   size_t count, void (*on_heard)(void *ctx, uint64_t recovery), void *ctx, struct hw_lookout **out);
/* NULL is allowed. */
void hw_lookout_free(struct hw_lookout *l);

#endif
