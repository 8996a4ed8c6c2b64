#include <stdlib.h>
#include <string.h>

#include "agent/loop/stream_impl.h"

#define ADDRESS_MAX 280

/* One attempt. The caller may be told (time-out, cancel) while the resolver or libuv still hold parts of this: it is
 * freed when the last of them has let go. */
struct attempt {
    struct hw_connect *c; /* NULL once done has run */
    struct hw_loop *loop;
    struct hw_stream *stream;
    struct hw_resolve resolve;
    struct hw_defer cancelled;
    uv_connect_t req;
    uv_timer_t timer;
    struct hw_named named;
    unsigned timeout_ms;
    unsigned refs; /* the timer handle, the resolver, the connect request */
    char address[ADDRESS_MAX];
};

static void unref(struct attempt *a)
{
    if (--a->refs == 0) {
        free(a);
    }
}

static void on_timer_closed(uv_handle_t *h)
{
    struct attempt *a = h->data;
    loop_unname(&a->named);
    unref(a);
}

/* Call done, once. e has been set when status is not 0. The stream goes with done, or is closed. */
static void tell(struct attempt *a, int status)
{
    struct hw_connect *c = a->c;
    struct hw_stream *s = a->stream;
    a->c = NULL;
    a->stream = NULL;
    c->impl = NULL;
    if (a->cancelled.is_posted) { /* it was cancelled earlier in this turn: that is what the caller expects to hear */
        hw_defer_cancel(a->loop, &a->cancelled);
        status = hw_error_set(&c->e, HW_ERR_CANCELLED, "cannot connect to %s: cancelled", a->address);
    }
    uv_close((uv_handle_t *)&a->timer, on_timer_closed);
    if (status != 0 && s != NULL) {
        hw_stream_close(s);
        s = NULL;
    }
    c->done(c, status, s);
}

static void fail_errno(struct attempt *a, int uv_status)
{
    int code = hw_error_errno(&a->c->e, -uv_status, "cannot connect to %s", a->address);
    if (code == HW_ERR_IO) {
        code = a->c->e.code = HW_ERR_CONNECT;
    }
    tell(a, code);
}

/* TCP lets a socket connect to itself when its own port, drawn from the ephemeral range, happens to be the one it asks
 * for (simultaneous open, RFC 9293 section 3.5). Nobody listens there then, and the port would stay taken. */
static bool is_own_echo(const uv_tcp_t *tcp)
{
    struct sockaddr_storage own = {0};
    struct sockaddr_storage peer = {0};
    int own_len = sizeof own;
    int peer_len = sizeof peer;
    return uv_tcp_getsockname(tcp, (struct sockaddr *)&own, &own_len) == 0 &&
           uv_tcp_getpeername(tcp, (struct sockaddr *)&peer, &peer_len) == 0 && own_len == peer_len &&
           memcmp(&own, &peer, (size_t)own_len) == 0;
}

static void on_connect(uv_connect_t *req, int status)
{
    struct attempt *a = hw_container_of(req, struct attempt, req);
    if (a->c != NULL && status == 0 && is_own_echo(stream_tcp(a->stream))) {
        status = UV_ECONNREFUSED;
    }
    if (a->c != NULL && status == 0) {
        stream_connected(a->stream);
        tell(a, 0);
    } else if (a->c != NULL) {
        fail_errno(a, status);
    }
    unref(a);
}

static void on_resolved(struct hw_resolve *r, int status)
{
    struct attempt *a = hw_container_of(r, struct attempt, resolve);
    int code;
    if (a->c == NULL) {
        unref(a);
        return;
    }
    if (status != 0) {
        hw_error_set(&a->c->e, status, "cannot connect to %s: look up %s: %s", a->address, r->host, r->why);
        tell(a, status);
        unref(a);
        return;
    }
    a->stream = stream_new(a->loop);
    if (a->stream == NULL) {
        code = UV_ENOMEM;
    } else {
        code = uv_tcp_connect(&a->req, stream_tcp(a->stream), (const struct sockaddr *)(const void *)r->address,
                              on_connect);
    }
    if (code != 0) {
        fail_errno(a, code);
        unref(a);
    } /* otherwise the resolver's reference is the request's from here on */
}

static void on_timeout(uv_timer_t *t)
{
    struct attempt *a = t->data;
    hw_error_set(&a->c->e, HW_ERR_TIMEOUT, "cannot connect to %s: no answer within %u ms", a->address, a->timeout_ms);
    tell(a, HW_ERR_TIMEOUT);
}

static void run_cancelled(struct hw_defer *d)
{
    struct attempt *a = hw_container_of(d, struct attempt, cancelled);
    hw_error_set(&a->c->e, HW_ERR_CANCELLED, "cannot connect to %s: cancelled", a->address);
    tell(a, HW_ERR_CANCELLED);
}

int hw_connect_start(struct hw_loop *loop, struct hw_pool *resolver, struct hw_connect *c, const char *address,
                     unsigned timeout_ms, void (*done)(struct hw_connect *c, int status, struct hw_stream *s))
{
    char host[256];
    char port[16];
    struct attempt *a;
    int r;
    *c = (struct hw_connect){.done = done};
    r = hw_address_split(address, host, sizeof host, port, sizeof port, &c->e);
    if (r != 0) {
        return r;
    }
    a = calloc(1, sizeof *a);
    if (a == NULL) {
        return hw_error_set(&c->e, HW_ERR_NOMEM, "cannot connect to %s: out of memory", address);
    }
    r = hw_resolve_start(loop, resolver, &a->resolve, host, port, on_resolved);
    if (r != 0) {
        free(a);
        return hw_error_set(&c->e, r, "cannot connect to %s: look up %s: %s", address, host, hw_err_text(r));
    }
    a->c = c;
    c->impl = a;
    a->loop = loop;
    a->timeout_ms = timeout_ms;
    a->refs = 2;
    memcpy(a->address, address, strlen(address) + 1); /* fits: its parts did */
    hw_defer_init(&a->cancelled, run_cancelled);
    uv_timer_init(&loop->uv, &a->timer);
    a->timer.data = a;
    uv_timer_start(&a->timer, on_timeout, timeout_ms, 0);
    loop_name(loop, &a->named, "connect", &a->timer);
    return 0;
}

void hw_connect_cancel(struct hw_connect *c)
{
    struct attempt *a = c->impl;
    if (a != NULL) {
        hw_defer_post(a->loop, &a->cancelled);
    }
}
