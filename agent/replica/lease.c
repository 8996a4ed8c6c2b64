/* The hot node's side of leases. On becoming hot the leases of the state are put on the clock, some a turn; from then
 * on the state tells what comes and goes (its lease feed). Every tick: end what is over, write down what is left of
 * what has used much of its time.
 *
 * A batch of remaining times is collected and proposed in one turn, and only one is under way at a time: so whoever
 * renews a lease can tell whether a smaller value than "all" is in the log already, or about to be (is_written_down).
 */
#include "agent/replica/lease.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/replica/lease_clock.h"
#include "agent/replica/replica_impl.h"

#define ENDS_MAX 128      /* revocations under way */
#define END_RETRY_MS 500  /* after one that was refused */
#define ADOPT_BUDGET 2000 /* leases a turn: about a millisecond */
#define FREE_BUDGET 10000 /* a turn */
#define WALK_BUDGET 10000 /* a tick */
#define WALK_EVERY_MS 500 /* at most one round in this time */

struct lease_end {
    struct hw_write write;
    struct hw_leases *leases;
    int64_t id;
    bool is_busy;
};

struct hw_leases {
    struct hw_replica *replica;
    struct hw_lease_clock clock;
    struct hw_timer *timer;
    struct hw_defer adopt; /* leases of the state, when this node has become hot */
    struct hw_defer drop;
    struct hw_defer more; /* ends have been done: there is room for others */
    bool is_on;           /* this node is hot */
    bool is_adopting;
    int64_t adopted; /* up to this id */
    struct lease_end ends[ENDS_MAX];
    unsigned end_count;
    /* remaining times */
    struct hw_write write;
    struct hw_write hand_on;          /* a second one, before the tenure is handed over */
    struct hw_lease_remaining *batch; /* HW_LEASE_CHECKPOINT_MAX */
    uint64_t batch_number;            /* of what is under way, or was last */
    bool is_writing;
    bool is_handing_on;
    bool is_walking;
    uint64_t walked_ms; /* when the round began */
    struct hw_counter *m_ended;
    struct hw_counter *m_renewed;
};

static struct hw_leases *of(const struct hw_replica *r)
{
    return r->leases;
}

/* ---- who is there ---- */

static void on_lease(void *ctx, const struct hw_lease_view *view, bool is_gone)
{
    struct hw_leases *l = ctx;
    struct hw_lease_entry *e;
    if (!l->is_on) {
        return;
    }
    e = hw_lease_clock_find(&l->clock, view->id);
    if (is_gone) {
        if (e != NULL) {
            hw_lease_clock_remove(&l->clock, e);
        }
    } else if (e != NULL) {
        e->written_s = view->remaining_s;
    } else {
        hw_lease_clock_advance(&l->clock, hw_mono_ms());
        if (hw_lease_clock_add(&l->clock, view->id, view->ttl_s) == NULL) {
            l->is_adopting = true; /* out of memory: look through the state again, later */
            l->adopted = INT64_MIN;
        }
    }
}

static void adopt_step(struct hw_defer *d)
{
    struct hw_leases *l = hw_container_of(d, struct hw_leases, adopt);
    struct hw_lease_view view;
    unsigned budget = ADOPT_BUDGET;
    hw_loop_note(l->replica->loop, "adopt leases");
    while (l->is_on && l->is_adopting && budget-- > 0) {
        if (hw_hot_lease_next(l->replica->hot, l->adopted, &view) != 0) {
            l->is_adopting = false;
            hw_log_debug(HW_COMPONENT, "leases taken over", "leases=%zu", l->clock.count);
            return;
        }
        if (hw_lease_clock_find(&l->clock, view.id) == NULL &&
            hw_lease_clock_adopt(&l->clock, view.id, view.ttl_s, view.remaining_s) == NULL) {
            return; /* out of memory: the next tick goes on */
        }
        l->adopted = view.id;
    }
    if (l->is_on && l->is_adopting) {
        hw_defer_post(l->replica->loop, d);
    }
}

static void drop_step(struct hw_defer *d)
{
    struct hw_leases *l = hw_container_of(d, struct hw_leases, drop);
    if (hw_lease_clock_free_step(&l->clock, FREE_BUDGET)) {
        hw_defer_post(l->replica->loop, d);
    }
}

/* The entry of a lease that exists; NULL: it does not. Also while leases are still being taken over. */
static struct hw_lease_entry *entry_of(struct hw_leases *l, int64_t id)
{
    struct hw_lease_entry *e = hw_lease_clock_find(&l->clock, id);
    struct hw_lease_view view;
    if (e == NULL && l->is_adopting && hw_hot_lease(l->replica->hot, id, &view) == 0) {
        e = hw_lease_clock_adopt(&l->clock, id, view.ttl_s, view.remaining_s);
    }
    return e;
}

/* ---- ends ---- */

static void on_end_done(struct hw_write *w, int status)
{
    struct lease_end *end = hw_container_of(w, struct lease_end, write);
    struct hw_leases *l = end->leases;
    struct hw_lease_entry *e = l->is_on ? hw_lease_clock_find(&l->clock, end->id) : NULL;
    end->is_busy = false;
    l->end_count--;
    if (l->is_on) {
        hw_defer_post(l->replica->loop, &l->more);
    }
    if (status == 0) {
        hw_counter_add(l->m_ended, 1);
    }
    /* Applied, it is gone from the clock already, or somebody else was faster; refused, it is tried again. */
    if (e != NULL && e->is_ending) {
        if (status == 0) {
            hw_lease_clock_remove(&l->clock, e);
        } else {
            hw_lease_clock_put_back(&l->clock, e, END_RETRY_MS);
        }
    }
}

static int end_one(struct hw_leases *l, struct lease_end *end, int64_t id)
{
    struct hw_cmd cmd = {.type = HW_CMD_LEASE_REVOKE, .wall_ms = hw_wall_ms(), .revoke = id};
    int rc;
    memset(&end->write, 0, sizeof end->write);
    end->write.done = on_end_done;
    end->leases = l;
    end->id = id;
    rc = hw_write_encode(&end->write, &cmd);
    if (rc == 0) {
        rc = hw_replica_write(l->replica, &end->write);
    }
    if (rc == 0) {
        end->is_busy = true;
        l->end_count++;
    }
    return rc;
}

static void end_what_is_over(struct hw_leases *l)
{
    struct hw_lease_entry *e;
    for (unsigned i = 0; i < ENDS_MAX && l->end_count < ENDS_MAX; i++) {
        if (l->ends[i].is_busy) {
            continue;
        }
        e = hw_lease_clock_take_over(&l->clock);
        if (e == NULL) {
            return;
        }
        if (end_one(l, &l->ends[i], e->id) != 0) {
            hw_lease_clock_put_back(&l->clock, e, END_RETRY_MS);
            return;
        }
    }
}

static void more_step(struct hw_defer *d)
{
    struct hw_leases *l = hw_container_of(d, struct hw_leases, more);
    if (l->is_on) {
        end_what_is_over(l);
    }
}

/* ---- remaining times ---- */

static bool is_written_down(const struct hw_leases *l, const struct hw_lease_entry *e)
{
    return e->written_s > 0 || ((l->is_writing || l->is_handing_on) && e->batch == l->batch_number);
}

static void on_written(struct hw_write *w, int status)
{
    struct hw_leases *l = w->data;
    *(w == &l->write ? &l->is_writing : &l->is_handing_on) = false;
    if (status != 0 && status != HW_ERR_NOTHOT && status != HW_ERR_CANCELLED) {
        hw_log_debug(HW_COMPONENT, "remaining times of leases not written", "why=%s", hw_logq(hw_err_text(status)));
    }
}

/* Refused: false; the next round finds them again. */
static bool write_batch(struct hw_leases *l, struct hw_write *w, size_t count)
{
    struct hw_cmd cmd = {.type = HW_CMD_LEASE_CHECKPOINT, .wall_ms = hw_wall_ms()};
    int rc;
    cmd.checkpoint.leases = l->batch;
    cmd.checkpoint.count = count;
    memset(w, 0, sizeof *w);
    w->done = on_written;
    w->data = l;
    rc = hw_write_encode(w, &cmd);
    return rc == 0 && hw_replica_write(l->replica, w) == 0;
}

static void write_what_is_left(struct hw_leases *l)
{
    struct hw_lease_entry *e;
    size_t count = 0;
    if (l->is_writing || l->is_handing_on || (!l->is_walking && l->clock.now_ms - l->walked_ms < WALK_EVERY_MS)) {
        return;
    }
    if (!l->is_walking) {
        l->is_walking = true;
        l->walked_ms = l->clock.now_ms;
        if (l->clock.next == NULL) {
            hw_lease_clock_walk(&l->clock);
        }
    }
    l->batch_number++;
    for (unsigned i = 0; i < WALK_BUDGET && count < HW_LEASE_CHECKPOINT_MAX; i++) {
        e = hw_lease_clock_walk(&l->clock);
        if (e == NULL) {
            l->is_walking = false;
            break;
        }
        if (hw_lease_clock_is_writable(&l->clock, e, &l->batch[count].remaining_s)) {
            l->batch[count++].id = e->id;
            e->batch = l->batch_number;
        }
    }
    l->is_writing = count > 0 && write_batch(l, &l->write, count);
}

void hw_replica_lease_hand_on(struct hw_replica *r)
{
    struct hw_leases *l = of(r);
    struct hw_lease_entry *e;
    unsigned budget = WALK_BUDGET;
    size_t count = 0;
    if (!l->is_on || l->is_handing_on) {
        return;
    }
    hw_lease_clock_advance(&l->clock, hw_mono_ms());
    l->batch_number += !l->is_writing; /* one number for both, so that is_written_down knows either */
    TAILQ_FOREACH(e, &l->clock.all, link) {
        if (budget-- == 0 || count == HW_LEASE_CHECKPOINT_MAX) {
            break;
        }
        if (hw_lease_clock_is_handed_on(&l->clock, e, &l->batch[count].remaining_s)) {
            l->batch[count++].id = e->id;
            e->batch = l->batch_number;
        }
    }
    l->is_handing_on = count > 0 && write_batch(l, &l->hand_on, count);
}

static void on_tick(void *ctx)
{
    struct hw_leases *l = ctx;
    hw_lease_clock_advance(&l->clock, hw_mono_ms());
    if (l->is_adopting) {
        hw_defer_post(l->replica->loop, &l->adopt);
    }
    end_what_is_over(l);
    write_what_is_left(l);
}

/* ---- life ---- */

void hw_leases_init(struct hw_replica *r)
{
    struct hw_leases *l = calloc(1, sizeof *l);
    hw_assert(l != NULL);
    l->batch = calloc(HW_LEASE_CHECKPOINT_MAX, sizeof *l->batch);
    hw_assert(l->batch != NULL);
    l->replica = r;
    hw_lease_clock_init(&l->clock, r->config.consensus.election_ms);
    l->timer = hw_timer_new(r->loop, "leases", on_tick, l);
    hw_defer_init(&l->adopt, adopt_step);
    hw_defer_init(&l->drop, drop_step);
    hw_defer_init(&l->more, more_step);
    l->m_ended = hw_metrics_counter(r->metrics, "hotwarm_leases_ended_total", NULL, "Leases that were over.");
    l->m_renewed = hw_metrics_counter(r->metrics, "hotwarm_leases_renewed_total", NULL, "Keep-alives granted.");
    r->leases = l;
}

void hw_leases_attach(struct hw_replica *r)
{
    hw_hot_set_lease_feed(r->hot, on_lease, r->leases);
}

void hw_leases_refresh(struct hw_replica *r)
{
    struct hw_leases *l = of(r);
    if (r->is_hot == l->is_on || l->timer == NULL) {
        return;
    }
    l->is_on = r->is_hot;
    if (l->is_on) {
        hw_lease_clock_start(&l->clock, hw_mono_ms());
        l->is_adopting = true;
        l->adopted = INT64_MIN;
        l->is_walking = false;
        l->walked_ms = l->clock.now_ms;
        hw_defer_post(r->loop, &l->adopt);
        hw_timer_start(l->timer, HW_LEASE_TICK_MS, HW_LEASE_TICK_MS);
    } else {
        l->is_adopting = false;
        hw_timer_stop(l->timer);
        hw_lease_clock_drop(&l->clock);
        hw_defer_post(r->loop, &l->drop);
    }
}

void hw_leases_close(struct hw_replica *r)
{
    struct hw_leases *l = of(r);
    l->is_on = false;
    hw_defer_cancel(r->loop, &l->adopt);
    hw_defer_cancel(r->loop, &l->drop);
    hw_defer_cancel(r->loop, &l->more);
    hw_timer_free(l->timer);
    l->timer = NULL;
}

void hw_leases_free(struct hw_replica *r)
{
    struct hw_leases *l = of(r);
    if (l == NULL) {
        return;
    }
    hw_lease_clock_drop(&l->clock);
    while (hw_lease_clock_free_step(&l->clock, FREE_BUDGET)) {
    }
    free(l->batch);
    free(l);
    r->leases = NULL;
}

/* ---- questions ---- */

int64_t hw_replica_lease_ttl_min_s(const struct hw_replica *r)
{
    int64_t min_s = ((int64_t)r->config.consensus.election_ms * 2 + 999) / 1000;
    return min_s > 1 ? min_s : 1;
}

int hw_replica_lease_renew(struct hw_replica *r, int64_t id, int64_t *ttl_s)
{
    struct hw_leases *l = of(r);
    struct hw_lease_entry *e;
    if (!hw_replica_is_hot(r) || !l->is_on) {
        return HW_ERR_NOTHOT;
    }
    e = entry_of(l, id);
    if (e == NULL || e->is_ending) {
        return HW_ERR_NOTFOUND;
    }
    hw_lease_clock_advance(&l->clock, hw_mono_ms());
    hw_lease_clock_renew(&l->clock, e);
    hw_counter_add(l->m_renewed, 1);
    *ttl_s = e->ttl_s;
    return 0;
}

int hw_replica_lease_left(struct hw_replica *r, int64_t id, int64_t *left_s)
{
    struct hw_leases *l = of(r);
    struct hw_lease_entry *e;
    if (!hw_replica_is_hot(r) || !l->is_on) {
        return HW_ERR_NOTHOT;
    }
    e = entry_of(l, id);
    if (e == NULL) {
        return HW_ERR_NOTFOUND;
    }
    hw_lease_clock_advance(&l->clock, hw_mono_ms());
    *left_s = hw_lease_clock_left_s(&l->clock, e);
    return 0;
}

/* ---- keep-alive ---- */

static void keep_alive_renew(struct hw_keep_alive *k)
{
    k->done(k, hw_replica_lease_renew(k->replica, k->id, &k->ttl_s));
}

static void keep_alive_written(struct hw_write *w, int status)
{
    struct hw_keep_alive *k = w->data;
    /* Without space in the log nothing can be written down, and nothing ends: better renewed here than not at all. */
    if (status == 0 || status == HW_ERR_NOSPACE) {
        keep_alive_renew(k);
    } else {
        k->done(k, status);
    }
}

static int keep_alive_write(struct hw_keep_alive *k)
{
    struct hw_lease_remaining all = {.id = k->id, .remaining_s = 0};
    struct hw_cmd cmd = {.type = HW_CMD_LEASE_CHECKPOINT, .wall_ms = hw_wall_ms()};
    struct hw_write *w = &k->work.write;
    int rc;
    cmd.checkpoint.leases = &all;
    cmd.checkpoint.count = 1;
    memset(w, 0, sizeof *w);
    w->done = keep_alive_written;
    w->data = k;
    rc = hw_write_encode(w, &cmd);
    return rc != 0 ? rc : hw_replica_write(k->replica, w);
}

static void keep_alive_confirmed(struct hw_read *rd, int status)
{
    struct hw_keep_alive *k = rd->data;
    struct hw_leases *l = of(k->replica);
    struct hw_lease_entry *e;
    if (status == 0 && (!hw_replica_is_hot(k->replica) || !l->is_on)) {
        status = HW_ERR_NOTHOT; /* confirmed through another node: it is hot now */
    }
    if (status != 0) {
        k->done(k, status);
        return;
    }
    e = entry_of(l, k->id);
    if (e == NULL || e->is_ending || !is_written_down(l, e)) {
        keep_alive_renew(k);
        return;
    }
    status = keep_alive_write(k);
    if (status != 0) {
        keep_alive_written(&k->work.write, status);
    }
}

int hw_replica_lease_keep_alive(struct hw_replica *r, struct hw_keep_alive *k, uint64_t timeout_ms)
{
    if (!hw_replica_is_hot(r)) {
        return HW_ERR_NOTHOT;
    }
    k->replica = r;
    memset(&k->work.read, 0, sizeof k->work.read);
    k->work.read.done = keep_alive_confirmed;
    k->work.read.data = k;
    return hw_replica_read(r, &k->work.read, timeout_ms);
}
