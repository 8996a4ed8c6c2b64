#include <stdlib.h>

#include "agent/base/buf.h"
#include "agent/loop/loop_impl.h"

struct hw_scope {
    struct hw_loop *loop;
    const char *name;
    TAILQ_HEAD(, hw_hold) holds;
    bool is_shut;
    void (*on_closed)(void *ctx);
    void *ctx;
    struct hw_defer closed;
};

static void run_closed(struct hw_defer *d)
{
    struct hw_scope *s = hw_container_of(d, struct hw_scope, closed);
    void (*on_closed)(void *ctx) = s->on_closed;
    if (!TAILQ_EMPTY(&s->holds) || on_closed == NULL) {
        return; /* held again meanwhile: its release posts this once more */
    }
    s->on_closed = NULL;
    on_closed(s->ctx);
}

struct hw_scope *hw_scope_new(struct hw_loop *loop, const char *name)
{
    struct hw_scope *s = calloc(1, sizeof *s);
    hw_assert(s != NULL);
    s->loop = loop;
    s->name = name;
    TAILQ_INIT(&s->holds);
    hw_defer_init(&s->closed, run_closed);
    return s;
}

void hw_scope_hold(struct hw_scope *s, struct hw_hold *h, const char *name)
{
    hw_assert(!h->is_held);
    h->name = name;
    h->is_held = true;
    TAILQ_INSERT_TAIL(&s->holds, h, link);
}

static void close_if_free(struct hw_scope *s)
{
    if (s->is_shut && s->on_closed != NULL && TAILQ_EMPTY(&s->holds)) {
        hw_defer_post(s->loop, &s->closed);
    }
}

void hw_scope_release(struct hw_scope *s, struct hw_hold *h)
{
    hw_assert(h->is_held);
    TAILQ_REMOVE(&s->holds, h, link);
    h->is_held = false;
    close_if_free(s);
}

void hw_scope_shut(struct hw_scope *s, void (*on_closed)(void *ctx), void *ctx)
{
    hw_assert(!s->is_shut);
    hw_assert(on_closed != NULL);
    s->is_shut = true;
    s->on_closed = on_closed;
    s->ctx = ctx;
    close_if_free(s);
}

bool hw_scope_is_shut(const struct hw_scope *s)
{
    return s->is_shut;
}

void hw_scope_report(const struct hw_scope *s, struct hw_buf *out)
{
    const struct hw_hold *h;
    const char *between = " held by ";
    hw_buf_append_str(out, s->name);
    if (TAILQ_EMPTY(&s->holds)) {
        hw_buf_append_str(out, " held by nobody");
        return;
    }
    TAILQ_FOREACH(h, &s->holds, link) {
        hw_buf_append_str(out, between);
        hw_buf_append_str(out, h->name);
        between = ", ";
    }
}

void hw_scope_free(struct hw_scope *s)
{
    if (s != NULL) {
        hw_assert(TAILQ_EMPTY(&s->holds));
        hw_defer_cancel(s->loop, &s->closed);
        free(s);
    }
}
