#include "agent/rpc/deadline.h"

#include "agent/base/assert.h"

#define AFTER_MS_MAX (366ull * 24u * 3600u * 1000u)

static int compare(struct hw_deadline *a, struct hw_deadline *b)
{
    if (a->at_ms != b->at_ms) {
        return a->at_ms < b->at_ms ? -1 : 1;
    }
    return (uintptr_t)a < (uintptr_t)b ? -1 : (uintptr_t)a > (uintptr_t)b;
}

/* RB_GENERATE_STATIC of libbsd 0.11 wants a macro __unused that only its overlay headers define. */
RB_GENERATE_INTERNAL(hw_deadline_tree, hw_deadline, link, compare, __attribute__((unused)) static)

static void arm(struct hw_deadlines *ds, uint64_t at_ms)
{
    uint64_t now_ms = hw_loop_now_ms(ds->loop);
    ds->armed_at_ms = at_ms;
    hw_timer_start(ds->timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

/* The timer is not moved when its earliest deadline is cleared (most calls end in time): it fires, finds nothing due,
 * and is set for the next one. */
static void on_timer(void *ctx)
{
    struct hw_deadlines *ds = ctx;
    uint64_t now_ms = hw_loop_now_ms(ds->loop);
    struct hw_deadline *d;
    ds->armed_at_ms = UINT64_MAX;
    while ((d = RB_MIN(hw_deadline_tree, &ds->tree)) != NULL && d->at_ms <= now_ms) {
        hw_deadline_clear(ds, d);
        ds->on_due(d);
    }
    if (d != NULL && ds->timer != NULL && ds->armed_at_ms > d->at_ms) {
        arm(ds, d->at_ms);
    }
}

void hw_deadlines_init(struct hw_deadlines *ds, struct hw_loop *loop, const char *name,
                       void (*on_due)(struct hw_deadline *d))
{
    RB_INIT(&ds->tree);
    ds->loop = loop;
    ds->timer = hw_timer_new(loop, name, on_timer, ds);
    ds->armed_at_ms = UINT64_MAX;
    ds->on_due = on_due;
}

void hw_deadlines_close(struct hw_deadlines *ds)
{
    hw_timer_free(ds->timer);
    ds->timer = NULL;
    RB_INIT(&ds->tree);
}

void hw_deadline_set(struct hw_deadlines *ds, struct hw_deadline *d, uint64_t after_ms)
{
    hw_assert(!d->is_set);
    if (after_ms > AFTER_MS_MAX || ds->timer == NULL) {
        return;
    }
    d->at_ms = hw_loop_now_ms(ds->loop) + after_ms;
    d->is_set = true;
    RB_INSERT(hw_deadline_tree, &ds->tree, d);
    if (d->at_ms < ds->armed_at_ms) {
        arm(ds, d->at_ms);
    }
}

void hw_deadline_clear(struct hw_deadlines *ds, struct hw_deadline *d)
{
    if (d->is_set) {
        d->is_set = false;
        if (ds->timer != NULL) {
            RB_REMOVE(hw_deadline_tree, &ds->tree, d);
        }
    }
}

uint64_t hw_deadline_left_ms(const struct hw_deadlines *ds, const struct hw_deadline *d)
{
    uint64_t now_ms = hw_loop_now_ms(ds->loop);
    if (!d->is_set) {
        return UINT64_MAX;
    }
    return d->at_ms > now_ms ? d->at_ms - now_ms : 0;
}
