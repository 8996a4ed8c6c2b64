/* Many deadlines on one timer: an ordered tree, so that a call costs a tree insert and not a timer of the loop.
 * Private to agent/rpc; loop thread. The owner keeps each struct hw_deadline until it has fired or was cleared.
 */
#ifndef HW_RPC_DEADLINE_H
#define HW_RPC_DEADLINE_H

#include <bsd/sys/tree.h>

#include "agent/loop/loop.h"

struct hw_deadline {
    RB_ENTRY(hw_deadline) link;
    uint64_t at_ms; /* on the loop's clock */
    bool is_set;
};

struct hw_deadlines {
    RB_HEAD(hw_deadline_tree, hw_deadline) tree;
    struct hw_loop *loop;
    struct hw_timer *timer;
    uint64_t armed_at_ms; /* UINT64_MAX: the timer is not armed */
    void (*on_due)(struct hw_deadline *d);
};

void hw_deadlines_init(struct hw_deadlines *ds, struct hw_loop *loop, const char *name,
                       void (*on_due)(struct hw_deadline *d));
/* Nothing fires after it; deadlines that are still set may be forgotten. */
void hw_deadlines_close(struct hw_deadlines *ds);
/* A deadline above a year is none. */
void hw_deadline_set(struct hw_deadlines *ds, struct hw_deadline *d, uint64_t after_ms);
void hw_deadline_clear(struct hw_deadlines *ds, struct hw_deadline *d);
uint64_t hw_deadline_left_ms(const struct hw_deadlines *ds, const struct hw_deadline *d);

#endif
