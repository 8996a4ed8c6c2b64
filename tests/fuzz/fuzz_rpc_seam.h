/* The loop and its streams in memory, for fuzz targets: what agent/rpc and agent/http use of agent/loop, without
 * sockets, threads or real time. Defines those functions, so exactly one file of a program includes it, and the
 * program is linked without agent/loop.
 *
 * seam_turn ends a turn: deferred functions run, closed streams end. A stream that is `is_stuck` keeps what is written
 * to it, as a peer does that never reads.
 */
#ifndef HW_FUZZ_RPC_SEAM_H
#define HW_FUZZ_RPC_SEAM_H

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/loop/loop.h"
#include "agent/loop/stream.h"

struct hw_loop {
    uint64_t now_ms;
    TAILQ_HEAD(, hw_defer) posted;
    TAILQ_HEAD(, hw_timer) timers;
    TAILQ_HEAD(, hw_stream) streams;
};

struct hw_timer {
    TAILQ_ENTRY(hw_timer) link;
    struct hw_loop *loop;
    hw_timer_fn fn;
    void *ctx;
    uint64_t at_ms;
    uint64_t repeat_ms;
    bool is_active;
};

struct hw_stream {
    TAILQ_ENTRY(hw_stream) link;
    struct hw_loop *loop;
    const struct hw_stream_ops *ops;
    void *ctx;
    size_t queued;
    bool is_stuck;
    bool is_paused;
    bool was_high;
    bool is_ending;
    int status;
};

static struct hw_loop *seam_loop_new(void)
{
    struct hw_loop *loop = calloc(1, sizeof *loop);
    hw_assert(loop != NULL);
    loop->now_ms = 1000;
    TAILQ_INIT(&loop->posted);
    TAILQ_INIT(&loop->timers);
    TAILQ_INIT(&loop->streams);
    return loop;
}

static struct hw_stream *seam_stream_new(struct hw_loop *loop)
{
    struct hw_stream *s = calloc(1, sizeof *s);
    hw_assert(s != NULL);
    s->loop = loop;
    TAILQ_INSERT_TAIL(&loop->streams, s, link);
    return s;
}

static struct hw_stream *seam_stream_alive(const struct hw_loop *loop)
{
    struct hw_stream *s = TAILQ_FIRST(&loop->streams);
    return s != NULL && !s->is_ending ? s : NULL;
}

static void seam_end(struct hw_stream *s, int status)
{
    if (!s->is_ending) {
        s->is_ending = true;
        s->status = status;
    }
}

static void seam_drain(struct hw_stream *s)
{
    s->queued = 0;
    if (s->was_high && !s->is_ending) {
        s->was_high = false;
        s->ops->on_drain(s->ctx);
    }
}

static void seam_run_posted(struct hw_loop *loop)
{
    struct hw_defer mark = {.is_posted = true};
    struct hw_defer *d;
    TAILQ_INSERT_TAIL(&loop->posted, &mark, link);
    while ((d = TAILQ_FIRST(&loop->posted)) != &mark) {
        TAILQ_REMOVE(&loop->posted, d, link);
        d->is_posted = false;
        d->fn(d);
    }
    TAILQ_REMOVE(&loop->posted, &mark, link);
}

static void seam_turn(struct hw_loop *loop)
{
    struct hw_stream *s;
    struct hw_stream *next;
    seam_run_posted(loop);
    for (s = TAILQ_FIRST(&loop->streams); s != NULL; s = next) {
        next = TAILQ_NEXT(s, link);
        if (!s->is_stuck) {
            seam_drain(s);
        }
        if (s->is_ending) {
            TAILQ_REMOVE(&loop->streams, s, link);
            s->ops->on_end(s->ctx, s->status);
            free(s);
        }
    }
}

static void seam_advance(struct hw_loop *loop, uint64_t ms)
{
    struct hw_timer *t;
    loop->now_ms += ms;
    do {
        TAILQ_FOREACH(t, &loop->timers, link) {
            if (t->is_active && t->at_ms <= loop->now_ms) {
                break;
            }
        }
        if (t != NULL) {
            t->is_active = t->repeat_ms != 0;
            t->at_ms = loop->now_ms + t->repeat_ms;
            t->fn(t->ctx);
        }
    } while (t != NULL);
}

/* Everything must be gone by now. */
static void seam_loop_free(struct hw_loop *loop)
{
    hw_assert(TAILQ_EMPTY(&loop->posted) && TAILQ_EMPTY(&loop->timers) && TAILQ_EMPTY(&loop->streams));
    free(loop);
}

/* ---- what agent/loop promises ---- */

uint64_t hw_loop_now_ms(struct hw_loop *loop)
{
    return loop->now_ms;
}

void hw_loop_note(struct hw_loop *loop, const char *what)
{
    (void)loop;
    (void)what;
}

void hw_defer_init(struct hw_defer *d, void (*fn)(struct hw_defer *d))
{
    *d = (struct hw_defer){.fn = fn};
}

void hw_defer_post(struct hw_loop *loop, struct hw_defer *d)
{
    if (!d->is_posted) {
        d->is_posted = true;
        TAILQ_INSERT_TAIL(&loop->posted, d, link);
    }
}

void hw_defer_cancel(struct hw_loop *loop, struct hw_defer *d)
{
    if (d->is_posted) {
        d->is_posted = false;
        TAILQ_REMOVE(&loop->posted, d, link);
    }
}

struct hw_timer *hw_timer_new(struct hw_loop *loop, const char *name, hw_timer_fn fn, void *ctx)
{
    struct hw_timer *t = calloc(1, sizeof *t);
    (void)name;
    hw_assert(t != NULL);
    t->loop = loop;
    t->fn = fn;
    t->ctx = ctx;
    TAILQ_INSERT_TAIL(&loop->timers, t, link);
    return t;
}

void hw_timer_start(struct hw_timer *t, uint64_t after_ms, uint64_t repeat_ms)
{
    t->is_active = true;
    t->at_ms = t->loop->now_ms + (after_ms > 0 ? after_ms : 1);
    t->repeat_ms = repeat_ms;
}

void hw_timer_stop(struct hw_timer *t)
{
    t->is_active = false;
}

bool hw_timer_is_active(const struct hw_timer *t)
{
    return t->is_active;
}

void hw_timer_free(struct hw_timer *t)
{
    if (t != NULL) {
        TAILQ_REMOVE(&t->loop->timers, t, link);
        free(t);
    }
}

void hw_stream_own(struct hw_stream *s, const struct hw_stream_ops *ops, void *ctx)
{
    s->ops = ops;
    s->ctx = ctx;
}

int hw_stream_write(struct hw_stream *s, const void *data, size_t len)
{
    (void)data;
    if (s->is_ending) {
        return HW_ERR_CLOSED;
    }
    s->queued += len;
    s->was_high = s->was_high || s->queued > HW_STREAM_HIGH;
    return s->queued > 64u * 1024u * 1024u ? HW_ERR_EXHAUSTED : 0;
}

int hw_stream_write_buf(struct hw_stream *s, struct hw_buf *b)
{
    int rc = hw_stream_write(s, b->data, b->len);
    if (rc == 0) {
        hw_buf_free(b);
    }
    return rc;
}

size_t hw_stream_queued(const struct hw_stream *s)
{
    return s->queued;
}

void hw_stream_pause(struct hw_stream *s, bool paused)
{
    s->is_paused = paused;
}

void hw_stream_finish(struct hw_stream *s, uint64_t deadline_ms)
{
    (void)deadline_ms;
    seam_end(s, 0);
}

void hw_stream_close(struct hw_stream *s)
{
    seam_end(s, HW_ERR_CANCELLED);
}

const char *hw_stream_peer(const struct hw_stream *s)
{
    (void)s;
    return "127.0.0.1:1";
}

struct hw_loop *hw_stream_loop(const struct hw_stream *s)
{
    return s->loop;
}

#endif
