/* What a replica sees to now and then, so that its state stays within bounds: notes for the automatic compaction, the
 * compaction itself on the hot node, and the bound on memory. Private to agent/replica. Life cycle: init · close, as
 * part of a replica. Loop thread only.
 */
#ifndef HW_REPLICA_UPKEEP_H
#define HW_REPLICA_UPKEEP_H

#include "agent/replica/compactor.h"
#include "agent/replica/quota.h"

struct hw_upkeep {
    struct hw_timer *timer;
    struct hw_quota quota;
    struct hw_compactor_notes notes;
    uint64_t noted_ms;  /* 0: not yet */
    uint64_t chosen_ms; /* when a revision to compact at was looked for */
    struct hw_write compaction;
    bool is_compacting;
    struct hw_counter *m_compactions;
    struct hw_gauge *m_leases;
};

void hw_upkeep_init(struct hw_replica *r);
void hw_upkeep_close(struct hw_replica *r);

#endif
