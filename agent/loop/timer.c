#include <stdlib.h>

#include "agent/loop/loop_impl.h"

struct hw_timer {
    uv_timer_t uv;
    struct hw_named named;
    struct hw_loop *loop;
    hw_timer_fn fn;
    void *ctx;
};

struct hw_timer *hw_timer_new(struct hw_loop *loop, const char *name, hw_timer_fn fn, void *ctx)
{
    struct hw_timer *t = calloc(1, sizeof *t);
    hw_assert(t != NULL);
    hw_assert(fn != NULL);
    t->loop = loop;
    t->fn = fn;
    t->ctx = ctx;
    uv_timer_init(&loop->uv, &t->uv);
    loop_name(loop, &t->named, name, &t->uv);
    return t;
}

static void on_timer(uv_timer_t *uv)
{
    struct hw_timer *t = hw_container_of(uv, struct hw_timer, uv);
    t->loop->has_worked = true;
    hw_loop_note(t->loop, t->named.name);
    t->fn(t->ctx);
}

void hw_timer_start(struct hw_timer *t, uint64_t after_ms, uint64_t repeat_ms)
{
    int r = uv_timer_start(&t->uv, on_timer, after_ms, repeat_ms);
    hw_assert(r == 0);
}

void hw_timer_stop(struct hw_timer *t)
{
    uv_timer_stop(&t->uv);
}

bool hw_timer_is_active(const struct hw_timer *t)
{
    return uv_is_active((const uv_handle_t *)&t->uv) != 0;
}

static void on_timer_closed(uv_handle_t *h)
{
    struct hw_timer *t = hw_container_of(h, struct hw_timer, uv);
    loop_unname(&t->named);
    free(t);
}

void hw_timer_free(struct hw_timer *t)
{
    if (t != NULL) {
        uv_close((uv_handle_t *)&t->uv, on_timer_closed);
    }
}
