#include "agent/replica/compactor.h"

uint64_t hw_compactor_note_every_ms(const struct hw_compactor_policy *policy, uint64_t interval_ms)
{
    /* The ring must reach back beyond the retention. */
    uint64_t least_ms = policy->retention_ms / (HW_COMPACTOR_NOTES_MAX - 8);
    return interval_ms > least_ms ? interval_ms : least_ms;
}

void hw_compactor_note_add(struct hw_compactor_notes *notes, uint64_t at_ms, hw_rev revision)
{
    if (notes->count == HW_COMPACTOR_NOTES_MAX) {
        notes->start = (notes->start + 1) % HW_COMPACTOR_NOTES_MAX;
        notes->count--;
    }
    notes->at[(notes->start + notes->count) % HW_COMPACTOR_NOTES_MAX] =
        (struct hw_compactor_note){.at_ms = at_ms, .revision = revision};
    notes->count++;
}

/* The newest revision that was the present at least retention_ms ago; 0: not known. */
static hw_rev old_enough(const struct hw_compactor_notes *notes, uint64_t retention_ms, uint64_t now_ms)
{
    hw_rev found = 0;
    for (size_t i = 0; i < notes->count; i++) {
        const struct hw_compactor_note *n = &notes->at[(notes->start + i) % HW_COMPACTOR_NOTES_MAX];
        if (n->at_ms > now_ms || now_ms - n->at_ms < retention_ms) {
            break;
        }
        found = n->revision;
    }
    return found;
}

hw_rev hw_compactor_choose(const struct hw_compactor_notes *notes, const struct hw_compactor_policy *policy,
                           uint64_t now_ms, hw_rev revision, hw_rev compacted)
{
    hw_rev by_age = policy->retention_ms > 0 ? old_enough(notes, policy->retention_ms, now_ms) : 0;
    hw_rev by_number = policy->retention_revisions > 0 ? revision - policy->retention_revisions : 0;
    hw_rev target = by_age > by_number ? by_age : by_number;
    target = target < revision ? target : revision; /* a note of a state that was replaced since */
    return target > compacted && target > 0 ? target : 0;
}
