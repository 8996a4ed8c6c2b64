/* The functions of agent/loop, as fuzz_rpc_seam.h makes them; only that header includes this one. */
#ifndef HW_FUZZ_LOOP_PROMISES_H
#define HW_FUZZ_LOOP_PROMISES_H

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

int hw_stream_unread(struct hw_stream *s, const uint8_t *data, size_t len)
{
    return hw_buf_append(&s->unread, data, len);
}

int hw_stream_detach(struct hw_stream *s, int *fd)
{
    (void)fd;
    seam_end(s, 0);
    return HW_ERR_CLOSED;
}

int hw_connect_start(struct hw_loop *loop, struct hw_pool *resolver, struct hw_connect *c, const char *address,
                     unsigned timeout_ms, void (*done)(struct hw_connect *c, int status, struct hw_stream *s))
{
    (void)resolver;
    (void)address;
    (void)timeout_ms;
    for (size_t i = 0; i < SEAM_CONNECTS_MAX; i++) {
        if (loop->connects[i] == NULL) {
            loop->connects[i] = c;
            c->done = done;
            c->impl = loop;
            return 0;
        }
    }
    return HW_ERR_EXHAUSTED;
}

void hw_connect_cancel(struct hw_connect *c)
{
    struct hw_loop *loop = c->impl;
    for (size_t i = 0; i < SEAM_CONNECTS_MAX; i++) {
        loop->is_cancelled[i] = loop->is_cancelled[i] || loop->connects[i] == c;
    }
}

int hw_listener_new(struct hw_loop *loop, const char *address, unsigned connections_max, hw_accept_fn on_accept,
                    void *ctx, struct hw_listener **listener, struct hw_error *e)
{
    (void)loop;
    (void)address;
    (void)connections_max;
    (void)e;
    *listener = calloc(1, sizeof **listener);
    hw_assert(*listener != NULL);
    **listener = (struct hw_listener){on_accept, ctx};
    return 0;
}

const char *hw_listener_address(const struct hw_listener *l)
{
    (void)l;
    return "127.0.0.1:1";
}

void hw_listener_free(struct hw_listener *l)
{
    free(l);
}

int hw_pool_new(struct hw_loop *loop, const char *name, unsigned threads, unsigned queue_max, struct hw_pool **pool,
                struct hw_error *e)
{
    (void)loop;
    (void)name;
    (void)threads;
    (void)queue_max;
    (void)e;
    *pool = NULL;
    return 0;
}

int hw_pool_submit(struct hw_pool *pool, struct hw_job *job)
{
    (void)pool;
    if (seam_takes_job == NULL || !seam_takes_job(job)) {
        return HW_ERR_EXHAUSTED;
    }
    STAILQ_INSERT_TAIL(&seam_jobs, job, link);
    return 0;
}

void hw_pool_shut(struct hw_pool *pool, void (*on_closed)(void *ctx), void *ctx)
{
    (void)pool;
    on_closed(ctx);
}

void hw_pool_free(struct hw_pool *pool)
{
    (void)pool;
}

void hw_loop_stats(struct hw_loop *loop, struct hw_loop_stats *stats, bool reset)
{
    (void)loop;
    (void)reset;
    *stats = (struct hw_loop_stats){0};
}

#endif
