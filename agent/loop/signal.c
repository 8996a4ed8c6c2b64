#include <stdlib.h>

#include "agent/loop/loop_impl.h"

struct hw_signal {
    uv_signal_t uv;
    struct hw_named named;
    void (*fn)(void *ctx, int signum);
    void *ctx;
};

static void on_signal(uv_signal_t *uv, int signum)
{
    struct hw_signal *s = hw_container_of(uv, struct hw_signal, uv);
    s->fn(s->ctx, signum);
}

struct hw_signal *hw_signal_new(struct hw_loop *loop, int signum, void (*fn)(void *ctx, int signum), void *ctx)
{
    struct hw_signal *s = calloc(1, sizeof *s);
    int r;
    hw_assert(s != NULL);
    hw_assert(fn != NULL);
    s->fn = fn;
    s->ctx = ctx;
    r = uv_signal_init(&loop->uv, &s->uv);
    hw_assert(r == 0);
    r = uv_signal_start(&s->uv, on_signal, signum);
    hw_assert(r == 0);
    loop_name(loop, &s->named, "signal", &s->uv);
    return s;
}

static void on_signal_closed(uv_handle_t *h)
{
    struct hw_signal *s = hw_container_of(h, struct hw_signal, uv);
    loop_unname(&s->named);
    free(s);
}

void hw_signal_free(struct hw_signal *s)
{
    if (s != NULL) {
        uv_close((uv_handle_t *)&s->uv, on_signal_closed);
    }
}
