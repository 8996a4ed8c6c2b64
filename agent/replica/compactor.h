/* Automatic compaction: which revision may be forgotten now. Every node notes now and then which revision its own state
 * is at; the hot node proposes the compaction. A warm node's state is at most as new as the hot node's, so what it
 * noted is on the safe side when it becomes hot; a node that has just started has noted nothing and waits for the whole
 * retention once more.
 *
 * The choice is a pure function of notes, time and revision (hw_compactor_choose); the rest drives it. Private to
 * agent/replica. Loop thread only.
 */
#ifndef HW_REPLICA_COMPACTOR_H
#define HW_REPLICA_COMPACTOR_H

#include "agent/replica/replica.h"

#define HW_COMPACTOR_NOTES_MAX 128

struct hw_compactor_note {
    uint64_t at_ms;
    hw_rev revision;
};

/* A ring: the oldest note gives way. */
struct hw_compactor_notes {
    struct hw_compactor_note at[HW_COMPACTOR_NOTES_MAX];
    size_t start;
    size_t count;
};

struct hw_compactor_policy {
    uint64_t retention_ms;      /* what was the present less than this ago stays readable; 0: no matter how old */
    hw_rev retention_revisions; /* at most so many revisions are kept; 0: no matter how many */
};

/* Notes closer together than this would push out those that are still needed. */
uint64_t hw_compactor_note_every_ms(const struct hw_compactor_policy *policy, uint64_t interval_ms);
/* at_ms does not go back. */
void hw_compactor_note_add(struct hw_compactor_notes *notes, uint64_t at_ms, hw_rev revision);
/* The revision to compact at now; 0: none. Age and number bind together: what either of them lets go may go. */
hw_rev hw_compactor_choose(const struct hw_compactor_notes *notes, const struct hw_compactor_policy *policy,
                           uint64_t now_ms, hw_rev revision, hw_rev compacted);

#endif
