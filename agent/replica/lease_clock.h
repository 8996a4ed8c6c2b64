/* When leases end: a running clock and the leases in the order of their ends. Private to agent/replica; pure: no loop,
 * no log, time comes in as a value. lease.c drives it on the hot node.
 *
 * The running clock goes with the machine's, but by at most HW_LEASE_STEP_MS_MAX between two looks at it: a process
 * that was stopped, starved or asleep finds its leases as it left them, because their owners could not renew them
 * meanwhile. So a lease may live longer than its time, never shorter.
 *
 * Two trees, by end and by id, hold one node a lease: no memory but the node itself is ever asked for, so that only
 * adding can fail, and no growing table makes a turn of the loop long. Life cycle: init · (start · ... · drop)* ·
 * hw_lease_clock_free_step until it says that nothing is left.
 */
#ifndef HW_REPLICA_LEASE_CLOCK_H
#define HW_REPLICA_LEASE_CLOCK_H

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

/* The clock is looked at every HW_LEASE_TICK_MS. */
#define HW_LEASE_TICK_MS 100
#define HW_LEASE_STEP_MS_MAX 500
/* Remaining time is written down once a third of the time to live has gone since it was last known, and at the latest
 * after this: leases of hours must not begin anew because the hot node changes every few minutes. */
#define HW_LEASE_WRITE_AFTER_MS_MAX 60000
/* One that was taken over and has not been renewed since is written down sooner: after this long, and then whenever as
 * much again has been used as was written down in this tenure. So of a tenure that is cut off at any moment at least
 * half counts, less this, and the number of writings grows with the logarithm of the time. */
#define HW_LEASE_WRITE_ADOPTED_MS 1000

struct hw_lease_entry {
    RB_ENTRY(hw_lease_entry) by_id;
    RB_ENTRY(hw_lease_entry) by_end;
    TAILQ_ENTRY(hw_lease_entry) link;
    int64_t id;
    int64_t ttl_s;
    int64_t written_s;   /* what the state says is left; 0: all */
    uint64_t end_ms;     /* on the running clock */
    uint64_t batch;      /* number of the last batch of remaining times that it was in */
    uint64_t adopted_ms; /* what was written down when it was taken over; 0: granted or renewed in this tenure */
    bool is_ending;      /* its revocation has been proposed: it is not in by_end and cannot be renewed */
};

RB_HEAD(hw_lease_ids, hw_lease_entry);
RB_HEAD(hw_lease_ends, hw_lease_entry);
TAILQ_HEAD(hw_lease_list, hw_lease_entry);

struct hw_lease_clock {
    struct hw_lease_ids ids;
    struct hw_lease_ends ends;
    struct hw_lease_list all;     /* in the order of adding */
    struct hw_lease_list dropped; /* to be freed in slices */
    struct hw_lease_entry *next;  /* of the walk for what is to be written down */
    size_t count;
    uint64_t now_ms;     /* the running clock: starts at 1 */
    uint64_t machine_ms; /* when it was looked at last */
    uint64_t grace_ms;   /* added on taking over; not handed on: the next hot node adds its own */
};

void hw_lease_clock_init(struct hw_lease_clock *c, uint64_t grace_ms);
/* This node is hot from now on. */
void hw_lease_clock_start(struct hw_lease_clock *c, uint64_t machine_ms);
/* Look at the machine's clock (CLOCK_BOOTTIME). */
void hw_lease_clock_advance(struct hw_lease_clock *c, uint64_t machine_ms);

struct hw_lease_entry *hw_lease_clock_find(const struct hw_lease_clock *c, int64_t id);
/* One that was granted just now: its whole time. NULL: out of memory. The id is not there yet. */
struct hw_lease_entry *hw_lease_clock_add(struct hw_lease_clock *c, int64_t id, int64_t ttl_s);
/* One that was there before this node became hot: what was written down, or its whole time, and the grace. */
struct hw_lease_entry *hw_lease_clock_adopt(struct hw_lease_clock *c, int64_t id, int64_t ttl_s, int64_t written_s);
void hw_lease_clock_remove(struct hw_lease_clock *c, struct hw_lease_entry *e);

/* Its whole time again. Not for one that is ending. */
void hw_lease_clock_renew(struct hw_lease_clock *c, struct hw_lease_entry *e);
/* Whole seconds, at most the time to live; 0 for one that is ending. */
int64_t hw_lease_clock_left_s(const struct hw_lease_clock *c, const struct hw_lease_entry *e);

/* The one that is over and ends first, marked as ending; NULL: none is over. */
struct hw_lease_entry *hw_lease_clock_take_over(struct hw_lease_clock *c);
/* It could not be ended: it comes again after delay_ms, unless it is renewed before. */
void hw_lease_clock_put_back(struct hw_lease_clock *c, struct hw_lease_entry *e, uint64_t delay_ms);

/* Should what is left be written down now, and what: 0 is all of it. */
bool hw_lease_clock_is_writable(const struct hw_lease_clock *c, const struct hw_lease_entry *e, int64_t *remaining_s);
/* The same before this node hands the tenure on: whatever the state does not say yet, to the second. */
bool hw_lease_clock_is_handed_on(const struct hw_lease_clock *c, const struct hw_lease_entry *e, int64_t *remaining_s);
/* Go round all leases: the next one, NULL at the end of a round (the walk begins anew then). */
struct hw_lease_entry *hw_lease_clock_walk(struct hw_lease_clock *c);

/* Forget all. O(1): memory goes with free_step, at most `budget` leases a call; true while there is more. */
void hw_lease_clock_drop(struct hw_lease_clock *c);
bool hw_lease_clock_free_step(struct hw_lease_clock *c, size_t budget);

#endif
