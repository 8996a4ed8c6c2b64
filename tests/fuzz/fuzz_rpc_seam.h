/* The loop, its streams and pools in memory, for fuzz targets: what the agent uses of agent/loop, without sockets,
 * threads or real time. Defines those functions, so exactly one file of a program includes it, and the program is
 * linked without most of agent/loop.
 *
 * seam_turn ends a turn: deferred functions run, closed streams end. A stream that is `is_stuck` keeps what is written
 * to it, as a peer does that never reads. Connections that the program opens wait until seam_connected is called for
 * them. Pools take only jobs that seam_takes_job accepts, which run at the end of the turn; otherwise they are full.
 */
#ifndef HW_FUZZ_RPC_SEAM_H
#define HW_FUZZ_RPC_SEAM_H

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/loop/loop.h"
#include "agent/loop/stream.h"

#define SEAM_CONNECTS_MAX 64

struct hw_loop {
    uint64_t now_ms;
    TAILQ_HEAD(, hw_defer) posted;
    TAILQ_HEAD(, hw_timer) timers;
    TAILQ_HEAD(, hw_stream) streams;
    struct hw_connect *connects[SEAM_CONNECTS_MAX]; /* under way */
    bool is_cancelled[SEAM_CONNECTS_MAX];
};

struct hw_listener {
    hw_accept_fn on_accept;
    void *ctx;
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
    struct hw_buf unread;
    size_t queued;
    bool is_stuck;
    bool is_paused;
    bool was_high;
    bool is_ending;
    int status;
};

static bool (*seam_takes_job)(const struct hw_job *job); /* NULL: none */
static STAILQ_HEAD(, hw_job) seam_jobs = STAILQ_HEAD_INITIALIZER(seam_jobs);

static inline struct hw_loop *seam_loop_new(void)
{
    struct hw_loop *loop = calloc(1, sizeof *loop);
    hw_assert(loop != NULL);
    loop->now_ms = 1000;
    TAILQ_INIT(&loop->posted);
    TAILQ_INIT(&loop->timers);
    TAILQ_INIT(&loop->streams);
    return loop;
}

static inline struct hw_stream *seam_stream_new(struct hw_loop *loop)
{
    struct hw_stream *s = calloc(1, sizeof *s);
    hw_assert(s != NULL);
    s->loop = loop;
    TAILQ_INSERT_TAIL(&loop->streams, s, link);
    return s;
}

static inline struct hw_stream *seam_stream_alive(const struct hw_loop *loop)
{
    struct hw_stream *s = TAILQ_FIRST(&loop->streams);
    return s != NULL && !s->is_ending ? s : NULL;
}

static inline void seam_end(struct hw_stream *s, int status)
{
    if (!s->is_ending) {
        s->is_ending = true;
        s->status = status;
    }
}

static inline void seam_drain(struct hw_stream *s)
{
    s->queued = 0;
    if (s->was_high && !s->is_ending) {
        s->was_high = false;
        s->ops->on_drain(s->ctx);
    }
}

static inline void seam_run_posted(struct hw_loop *loop)
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

static inline void seam_deliver_unread(struct hw_stream *s)
{
    struct hw_buf b = s->unread;
    hw_buf_init(&s->unread);
    if (b.len > 0 && !s->is_ending) {
        s->ops->on_data(s->ctx, b.data, b.len);
    }
    hw_buf_free(&b);
}

static inline void seam_cancel_connects(struct hw_loop *loop)
{
    for (size_t i = 0; i < SEAM_CONNECTS_MAX; i++) {
        struct hw_connect *c = loop->connects[i];
        if (c != NULL && loop->is_cancelled[i]) {
            loop->connects[i] = NULL;
            loop->is_cancelled[i] = false;
            c->done(c, HW_ERR_CANCELLED, NULL);
        }
    }
}

static inline void seam_turn(struct hw_loop *loop)
{
    struct hw_stream *s;
    struct hw_stream *next;
    struct hw_job *job;
    seam_cancel_connects(loop);
    while ((job = STAILQ_FIRST(&seam_jobs)) != NULL) {
        STAILQ_REMOVE_HEAD(&seam_jobs, link);
        job->work(job);
        job->done(job);
    }
    TAILQ_FOREACH(s, &loop->streams, link) {
        seam_deliver_unread(s);
    }
    seam_run_posted(loop);
    for (s = TAILQ_FIRST(&loop->streams); s != NULL; s = next) {
        next = TAILQ_NEXT(s, link);
        if (!s->is_stuck) {
            seam_drain(s);
        }
        if (s->is_ending) {
            TAILQ_REMOVE(&loop->streams, s, link);
            if (s->ops != NULL) {
                s->ops->on_end(s->ctx, s->status);
            }
            hw_buf_free(&s->unread);
            free(s);
        }
    }
}

static inline void seam_advance(struct hw_loop *loop, uint64_t ms)
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
static inline void seam_loop_free(struct hw_loop *loop)
{
    hw_assert(TAILQ_EMPTY(&loop->posted) && TAILQ_EMPTY(&loop->timers) && TAILQ_EMPTY(&loop->streams));
    for (size_t i = 0; i < SEAM_CONNECTS_MAX; i++) {
        hw_assert(loop->connects[i] == NULL);
    }
    free(loop);
}

/* The first connection that the program waits for is there. NULL: it waits for none. */
static inline struct hw_stream *seam_connected(struct hw_loop *loop)
{
    for (size_t i = 0; i < SEAM_CONNECTS_MAX; i++) {
        struct hw_connect *c = loop->connects[i];
        if (c != NULL && !loop->is_cancelled[i]) {
            struct hw_stream *s = seam_stream_new(loop);
            loop->connects[i] = NULL;
            c->done(c, 0, s);
            return s;
        }
    }
    return NULL;
}

/* Bytes from the other side, in a block of exactly their size, so that the sanitizer sees a read past the end. */
static inline void seam_receive(struct hw_stream *s, const void *data, size_t len)
{
    uint8_t *exact = malloc(len + 1);
    hw_assert(exact != NULL);
    memcpy(exact + 1, data, len);
    if (!s->is_ending) {
        s->ops->on_data(s->ctx, exact + 1, len);
    }
    free(exact);
}

#include "tests/fuzz/fuzz_loop_promises.h"

#endif
