#include "agent/replica/lease_clock.h"

#include <stdlib.h>

#include "agent/base/assert.h"

static int compare_ids(const struct hw_lease_entry *a, const struct hw_lease_entry *b)
{
    return (a->id > b->id) - (a->id < b->id);
}

static int compare_ends(const struct hw_lease_entry *a, const struct hw_lease_entry *b)
{
    return a->end_ms != b->end_ms ? (a->end_ms > b->end_ms) - (a->end_ms < b->end_ms) : compare_ids(a, b);
}

/* RB_GENERATE_STATIC of libbsd 0.11 wants a macro __unused that only its overlay headers define. */
RB_GENERATE_INTERNAL(hw_lease_ids, hw_lease_entry, by_id, compare_ids, __attribute__((unused)) static)
RB_GENERATE_INTERNAL(hw_lease_ends, hw_lease_entry, by_end, compare_ends, __attribute__((unused)) static)

void hw_lease_clock_init(struct hw_lease_clock *c, uint64_t grace_ms)
{
    RB_INIT(&c->ids);
    RB_INIT(&c->ends);
    TAILQ_INIT(&c->all);
    TAILQ_INIT(&c->dropped);
    c->next = NULL;
    c->count = 0;
    c->now_ms = 1;
    c->machine_ms = 0;
    c->grace_ms = grace_ms;
}

void hw_lease_clock_start(struct hw_lease_clock *c, uint64_t machine_ms)
{
    c->machine_ms = machine_ms;
}

void hw_lease_clock_advance(struct hw_lease_clock *c, uint64_t machine_ms)
{
    uint64_t step = machine_ms > c->machine_ms ? machine_ms - c->machine_ms : 0;
    c->now_ms += step < HW_LEASE_STEP_MS_MAX ? step : HW_LEASE_STEP_MS_MAX;
    c->machine_ms = machine_ms;
}

struct hw_lease_entry *hw_lease_clock_find(const struct hw_lease_clock *c, int64_t id)
{
    struct hw_lease_entry key = {.id = id};
    return RB_FIND(hw_lease_ids, (struct hw_lease_ids *)&c->ids, &key);
}

/* Times to live are bounded (HW_LEASE_TTL_MAX), so that milliseconds fit. */
static uint64_t ms_of(int64_t seconds)
{
    return (uint64_t)(seconds > 0 ? seconds : 0) * 1000;
}

/* What the state says is left. */
static uint64_t known_ms(const struct hw_lease_entry *e)
{
    return ms_of(e->written_s > 0 ? e->written_s : e->ttl_s);
}

static struct hw_lease_entry *add(struct hw_lease_clock *c, int64_t id, int64_t ttl_s, int64_t written_s,
                                  uint64_t left_ms)
{
    struct hw_lease_entry *e = calloc(1, sizeof *e);
    if (e == NULL) {
        return NULL;
    }
    e->id = id;
    e->ttl_s = ttl_s;
    e->written_s = written_s;
    e->end_ms = c->now_ms + left_ms;
    hw_assert(RB_INSERT(hw_lease_ids, &c->ids, e) == NULL);
    RB_INSERT(hw_lease_ends, &c->ends, e);
    TAILQ_INSERT_TAIL(&c->all, e, link);
    c->count++;
    return e;
}

struct hw_lease_entry *hw_lease_clock_add(struct hw_lease_clock *c, int64_t id, int64_t ttl_s)
{
    return add(c, id, ttl_s, 0, ms_of(ttl_s));
}

struct hw_lease_entry *hw_lease_clock_adopt(struct hw_lease_clock *c, int64_t id, int64_t ttl_s, int64_t written_s)
{
    uint64_t left_ms = ms_of(written_s > 0 ? written_s : ttl_s);
    struct hw_lease_entry *e = add(c, id, ttl_s, written_s, left_ms + c->grace_ms);
    if (e != NULL) {
        e->adopted_ms = left_ms;
    }
    return e;
}

static void leave_ends(struct hw_lease_clock *c, struct hw_lease_entry *e)
{
    if (!e->is_ending) {
        RB_REMOVE(hw_lease_ends, &c->ends, e);
    }
}

void hw_lease_clock_remove(struct hw_lease_clock *c, struct hw_lease_entry *e)
{
    if (c->next == e) {
        c->next = TAILQ_NEXT(e, link);
    }
    leave_ends(c, e);
    RB_REMOVE(hw_lease_ids, &c->ids, e);
    TAILQ_REMOVE(&c->all, e, link);
    c->count--;
    free(e);
}

static void end_at(struct hw_lease_clock *c, struct hw_lease_entry *e, uint64_t end_ms)
{
    leave_ends(c, e);
    e->is_ending = false;
    e->end_ms = end_ms;
    RB_INSERT(hw_lease_ends, &c->ends, e);
}

void hw_lease_clock_renew(struct hw_lease_clock *c, struct hw_lease_entry *e)
{
    hw_assert(!e->is_ending);
    e->adopted_ms = 0;
    end_at(c, e, c->now_ms + ms_of(e->ttl_s));
}

static uint64_t left_ms(const struct hw_lease_clock *c, const struct hw_lease_entry *e)
{
    return e->is_ending || e->end_ms <= c->now_ms ? 0 : e->end_ms - c->now_ms;
}

int64_t hw_lease_clock_left_s(const struct hw_lease_clock *c, const struct hw_lease_entry *e)
{
    int64_t left_s = (int64_t)(left_ms(c, e) / 1000);
    return left_s < e->ttl_s ? left_s : e->ttl_s;
}

struct hw_lease_entry *hw_lease_clock_take_over(struct hw_lease_clock *c)
{
    struct hw_lease_entry *e = RB_MIN(hw_lease_ends, &c->ends);
    if (e == NULL || e->end_ms > c->now_ms) {
        return NULL;
    }
    leave_ends(c, e);
    e->is_ending = true;
    return e;
}

void hw_lease_clock_put_back(struct hw_lease_clock *c, struct hw_lease_entry *e, uint64_t delay_ms)
{
    end_at(c, e, c->now_ms + delay_ms);
}

/* How much may be used before it is written down. */
static uint64_t write_after_ms(const struct hw_lease_entry *e)
{
    uint64_t after_ms = ms_of(e->ttl_s) / 3;
    after_ms = after_ms < HW_LEASE_WRITE_AFTER_MS_MAX ? after_ms : HW_LEASE_WRITE_AFTER_MS_MAX;
    if (e->adopted_ms != 0) {
        uint64_t written_ms = e->adopted_ms > known_ms(e) ? e->adopted_ms - known_ms(e) : 0;
        uint64_t early_ms = written_ms > HW_LEASE_WRITE_ADOPTED_MS ? written_ms : HW_LEASE_WRITE_ADOPTED_MS;
        after_ms = after_ms < early_ms ? after_ms : early_ms;
    }
    return after_ms;
}

static bool is_writable_after(const struct hw_lease_clock *c, const struct hw_lease_entry *e, uint64_t after_ms,
                              int64_t *remaining_s)
{
    uint64_t left = left_ms(c, e);
    uint64_t known = known_ms(e);
    uint64_t own = e->adopted_ms == 0 ? left : left > c->grace_ms ? left - c->grace_ms : 1;
    if (left == 0) {
        return false; /* it ends: nothing to hand on */
    }
    if (own + after_ms < known || left > known + c->grace_ms + 1000) {
        int64_t left_s = (int64_t)((own + 999) / 1000);
        *remaining_s = left_s < e->ttl_s ? left_s : 0;
        return *remaining_s != e->written_s;
    }
    return false;
}

bool hw_lease_clock_is_writable(const struct hw_lease_clock *c, const struct hw_lease_entry *e, int64_t *remaining_s)
{
    return is_writable_after(c, e, write_after_ms(e), remaining_s);
}

bool hw_lease_clock_is_handed_on(const struct hw_lease_clock *c, const struct hw_lease_entry *e, int64_t *remaining_s)
{
    return is_writable_after(c, e, 0, remaining_s);
}

struct hw_lease_entry *hw_lease_clock_walk(struct hw_lease_clock *c)
{
    struct hw_lease_entry *e = c->next;
    c->next = e == NULL ? TAILQ_FIRST(&c->all) : TAILQ_NEXT(e, link);
    return e;
}

void hw_lease_clock_drop(struct hw_lease_clock *c)
{
    RB_INIT(&c->ids);
    RB_INIT(&c->ends);
    TAILQ_CONCAT(&c->dropped, &c->all, link);
    c->next = NULL;
    c->count = 0;
}

bool hw_lease_clock_free_step(struct hw_lease_clock *c, size_t budget)
{
    struct hw_lease_entry *e;
    while (budget > 0 && (e = TAILQ_FIRST(&c->dropped)) != NULL) {
        TAILQ_REMOVE(&c->dropped, e, link);
        free(e);
        budget--;
    }
    return !TAILQ_EMPTY(&c->dropped);
}
