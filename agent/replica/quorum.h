/* Is the quorum lost? Without a leader a node may just be between two elections; when fewer voters than a majority are
 * there for a while, no election can end, and somebody has to bring the missing ones back. Private to agent/replica.
 * Zeroed is initialised. Loop thread only.
 */
#ifndef HW_REPLICA_QUORUM_H
#define HW_REPLICA_QUORUM_H

#include <stdint.h>

struct hw_replica;

struct hw_quorum {
    uint64_t missed_ms; /* since when too few voters are there; 0: enough are, or a leader is known */
    uint64_t said_ms;
    char trouble[640]; /* "": none */
};

/* Look again, about once a second; logs when it is lost, now and then while it is, and when it is back. */
void hw_quorum_tick(struct hw_replica *r);

#endif
