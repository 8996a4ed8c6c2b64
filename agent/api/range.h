/* Private to agent/api: KV.Range, and what everything that walks many keys may take together: ranges, the deferred
 * ranges of transactions (txn_answer.h) and hashes.
 *
 * A range is read in slices: at most scan_slice_keys keys looked at, as many encoded, HW_RANGE_SLICE_BYTES written. All
 * ranges share one budget a loop turn, of HW_RANGE_TURN_SLICES slices; a slice runs while any of it is left, so a turn
 * exceeds it by at most one slice. Its revision is fixed when its reading starts, so that the slices fit together.
 *
 * A range that one slice answers is answered at once, or in the next turn when the budget is used up: single keys
 * first, then the others as they came. One that takes more is large. Large ranges take turns, HW_RANGES_BUILT_MAX of
 * them at once and one of a connection; the others wait in order and hold nothing but their request, until a place is
 * free and their connection has not more than HW_RANGE_UNSENT_BYTES to send. So does a range that fits a slice but has
 * more than HW_RANGE_SMALL_BYTES to say to such a connection. What waits ends with its deadline at the latest.
 *
 * Memory: answers being built and answers not yet sent are counted together. Above bytes_max ranges that turn out to be
 * large are refused (TOO_MANY_REQUESTS), those that wait go on waiting, and those under way but one wait again: large
 * ranges take the sum to bytes_max and one answer at most. Loop thread.
 */
#ifndef HW_API_RANGE_H
#define HW_API_RANGE_H

#include "agent/api/exchange.h"

#define HW_RANGE_TURN_SLICES 4
#define HW_RANGE_SLICE_BYTES ((size_t)1024 * 1024)
#define HW_RANGES_BUILT_MAX 8
#define HW_RANGE_UNSENT_BYTES ((size_t)4 * 1024 * 1024)
#define HW_RANGE_SMALL_BYTES ((size_t)64 * 1024)
#define HW_RANGE_BYTES_MAX ((size_t)256 * 1024 * 1024)

struct hw_ranges {
    struct hw_range_list singles; /* of one key, for the next turn */
    struct hw_range_list fresh;   /* not tried yet */
    struct hw_range_list waiting; /* known to be large */
    struct hw_range_list built;
    unsigned waiting_count;
    unsigned built_count;
    size_t bytes_max;

    uint64_t turn; /* that the budget is for */
    int64_t keys_left;
    int64_t bytes_left;
    size_t unsent; /* by all connections, as of unsent_turn, and what was answered since */
    uint64_t unsent_turn;

    uint64_t grace_turn; /* somebody other than a range had a slice beyond the budget in this turn */

    uint64_t keys_turn; /* looked at or encoded in this turn */
    uint64_t keys_turn_max;
    size_t bytes_peak; /* the most that was counted against bytes_max */

    struct hw_defer go_on;
    struct hw_timer *again;

    TAILQ_HEAD(, hw_txn_answer) txns; /* being built, one after another */
    unsigned txn_count;
    struct hw_defer txns_go_on;
};

void hw_ranges_init(struct hw_api *api);
/* After all ranges have ended. */
void hw_ranges_close(struct hw_api *api);
/* May somebody else walk keys now, a slice of the budget? Ranges may use it up turn after turn, so one slice in a turn
 * is given beyond it. Charge afterwards. */
bool hw_ranges_may_walk(struct hw_api *api);
void hw_ranges_charge(struct hw_api *api, size_t keys, size_t bytes);
/* Answers being built and not yet sent are at their bound. */
bool hw_ranges_is_memory_short(struct hw_api *api);
/* The state here may be read; ends the exchange, now or later. */
void hw_range_answer(struct hw_exchange *x);

#endif
