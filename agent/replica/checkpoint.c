/* From the state to the image: a cut is taken on the loop (O(1)), written by the worker in one transaction, and the
 * next cut follows. A cut that could not be written is kept and written again before any later one. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/replica/replica_impl.h"

#define RETRY_MS 500
#define SWEEP_ROWS 20000
/* The longest that a patient wait holds up what waits: the log, which grows meanwhile. */
#define PATIENCE_MS 1000
/* A third of a loop's share of a busy processor: enough to keep up with what that loop can then accept. */
#define WRITER_NICE 5

/* A cut is a burst of work that nobody waits for; beside the loop it would show in every request's time. Linux has a
 * niceness for each thread; without it (an error here) the burst is only more visible. */
static void be_nice(void)
{
    setpriority(PRIO_PROCESS, (id_t)gettid(), WRITER_NICE);
}

static void checkpoint_work(struct hw_job *job)
{
    struct hw_checkpoint *c = hw_container_of(job, struct hw_checkpoint, job);
    struct hw_replica *r = hw_container_of(c, struct hw_replica, checkpoint);
    int rc;
    be_nice();
    c->status = 0;
    if (c->cut != NULL) {
        c->status = hw_image_apply(r->image, c->cut, c->wall_ms, &c->e);
    }
    if (c->status == 0) {
        rc = hw_image_sweep(r->image, SWEEP_ROWS, &c->e);
        c->sweep_left = rc > 0;
        c->status = rc < 0 ? rc : 0;
    }
}

static void answer_waits(struct hw_replica *r)
{
    struct hw_checkpoint *c = &r->checkpoint;
    struct hw_image_wait *w;
    struct hw_image_wait *next;
    for (w = TAILQ_FIRST(&c->waits); w != NULL; w = next) {
        next = TAILQ_NEXT(w, link);
        if (w->index <= c->image_index) {
            TAILQ_REMOVE(&c->waits, w, link);
            w->done(w, 0);
        }
    }
}

static bool has_impatient(const struct hw_checkpoint *c)
{
    const struct hw_image_wait *w;
    TAILQ_FOREACH(w, &c->waits, link) {
        if (!w->is_patient) {
            return true;
        }
    }
    return false;
}

static void checkpoint_failed(struct hw_replica *r)
{
    struct hw_checkpoint *c = &r->checkpoint;
    hw_counter_add(r->m_checkpoint_failures, 1);
    if (!c->is_failing) {
        hw_log_error(HW_COMPONENT, "checkpoint failed, the state stays in memory and the log; trying again",
                     "image=%s why=%s retry_ms=%d", hw_logq(r->image_path), hw_logq(hw_error_text(&c->e)), RETRY_MS);
    }
    c->is_failing = true;
    if (r->phase != HW_PHASE_STOPPING) {
        hw_timer_start(c->timer, RETRY_MS, r->config.checkpoint_interval_ms);
    }
}

static void checkpoint_done(struct hw_job *job)
{
    struct hw_checkpoint *c = hw_container_of(job, struct hw_checkpoint, job);
    struct hw_replica *r = hw_container_of(c, struct hw_replica, checkpoint);
    bool is_again = false;
    c->is_writing = false;
    if (c->status != 0) {
        checkpoint_failed(r);
    } else {
        if (c->is_failing) {
            hw_log_info(HW_COMPONENT, "checkpoints work again", "image=%s", hw_logq(r->image_path));
        }
        c->is_failing = false;
        hw_counter_add(r->m_checkpoints, 1);
        hw_histogram_observe_us(r->m_checkpoint_seconds, hw_mono_us() - c->started_us);
        if (c->cut != NULL) {
            c->image_index = c->cut->applied;
            hw_cut_free(c->cut);
            c->cut = NULL;
        }
        c->has_more_to_sweep = c->sweep_left;
        hw_gauge_set(r->m_image_index, (int64_t)c->image_index);
        c->behind_since_ms = c->image_index >= hw_hot_applied(r->hot) ? 0 : c->cut_ms;
        is_again = has_impatient(c) || c->has_more_to_sweep;
        answer_waits(r);
    }
    if (r->phase == HW_PHASE_STOPPING || c->is_suspended) {
        hw_replica_maybe_closed(r);
    } else if (is_again) {
        hw_checkpoint_kick(r);
    }
}

void hw_checkpoint_kick(struct hw_replica *r)
{
    struct hw_checkpoint *c = &r->checkpoint;
    if (c->is_writing || c->is_suspended || r->image == NULL || r->hot == NULL) {
        return;
    }
    if (c->cut == NULL && hw_hot_applied(r->hot) > c->image_index) {
        if (hw_hot_cut(r->hot, &c->cut) != 0) {
            return; /* out of memory: the timer comes again */
        }
        c->cut_ms = hw_loop_now_ms(r->loop);
    }
    if (c->cut == NULL && !c->has_more_to_sweep) {
        return;
    }
    c->wall_ms = hw_wall_ms();
    c->started_us = hw_mono_us();
    c->job.work = checkpoint_work;
    c->job.done = checkpoint_done;
    if (hw_pool_submit(r->writer, &c->job) == 0) {
        c->is_writing = true;
    }
}

static void on_timer(void *ctx)
{
    answer_waits(ctx);
    hw_checkpoint_kick(ctx);
}

void hw_checkpoint_init(struct hw_replica *r)
{
    TAILQ_INIT(&r->checkpoint.waits);
    r->checkpoint.timer = hw_timer_new(r->loop, "checkpoint", on_timer, r);
}

void hw_checkpoint_start(struct hw_replica *r, uint64_t image_index)
{
    r->checkpoint.image_index = image_index;
    hw_timer_start(r->checkpoint.timer, r->config.checkpoint_interval_ms, r->config.checkpoint_interval_ms);
}

void hw_checkpoint_suspend(struct hw_replica *r)
{
    r->checkpoint.is_suspended = true;
}

void hw_checkpoint_resume(struct hw_replica *r, uint64_t image_index)
{
    struct hw_checkpoint *c = &r->checkpoint;
    hw_assert(!c->is_writing);
    hw_cut_free(c->cut); /* of the state that was replaced */
    c->cut = NULL;
    c->is_suspended = false;
    c->is_failing = false;
    c->image_index = image_index;
    answer_waits(r);
    hw_checkpoint_kick(r);
}

bool hw_checkpoint_is_idle(const struct hw_replica *r)
{
    return !r->checkpoint.is_writing;
}

void hw_checkpoint_close(struct hw_replica *r)
{
    struct hw_image_wait *w;
    while ((w = TAILQ_FIRST(&r->checkpoint.waits)) != NULL) {
        TAILQ_REMOVE(&r->checkpoint.waits, w, link);
        w->done(w, HW_ERR_CANCELLED);
    }
    hw_timer_free(r->checkpoint.timer);
    r->checkpoint.timer = NULL;
    hw_cut_free(r->checkpoint.cut);
    r->checkpoint.cut = NULL;
}

int hw_replica_image_wait(struct hw_replica *r, struct hw_image_wait *w)
{
    if (r->hot == NULL || r->phase == HW_PHASE_FAILED || r->phase == HW_PHASE_STOPPING) {
        return HW_ERR_UNAVAILABLE;
    }
    if (w->index == 0) {
        w->index = hw_hot_applied(r->hot);
    }
    TAILQ_INSERT_TAIL(&r->checkpoint.waits, w, link);
    if (w->index <= r->checkpoint.image_index) {
        hw_timer_start(r->checkpoint.timer, 0, r->config.checkpoint_interval_ms); /* answered by an empty turn */
    }
    if (!w->is_patient) {
        hw_checkpoint_kick(r);
    } else if (r->config.checkpoint_interval_ms > PATIENCE_MS) {
        hw_timer_start(r->checkpoint.timer, PATIENCE_MS, r->config.checkpoint_interval_ms);
    }
    return 0;
}
