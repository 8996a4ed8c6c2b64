#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/loop/stream_impl.h"

/* Accepting is done here and not by uv_listen: libuv sheds load on EMFILE by accepting and closing, and may spin when
 * its spare descriptor is gone. Ours leaves the connections in the kernel's queue and comes back a little later. */
#define BACKLOG 1024
#define ACCEPTS_PER_TURN_MAX 64
#define PAUSE_MS 100
#define LOG_EVERY_MS 60000

struct hw_listener {
    uv_poll_t poll;
    struct hw_named named;
    struct hw_loop *loop;
    struct hw_timer *pause;
    int fd;
    unsigned alive; /* streams that exist */
    unsigned connections_max;
    bool is_closed;
    uint64_t error_logged_ms;
    uint64_t refused_logged_ms;
    hw_accept_fn on_accept;
    void *ctx;
    char address[LOOP_ADDRESS_SIZE];
};

static void watch(struct hw_listener *l);

static void free_if_unused(struct hw_listener *l)
{
    if (l->is_closed && l->alive == 0) {
        free(l);
    }
}

static void on_stream_gone(void *ctx)
{
    struct hw_listener *l = ctx;
    l->alive--;
    free_if_unused(l);
}

static bool may_log(const struct hw_listener *l, uint64_t *logged_ms)
{
    uint64_t now_ms = hw_loop_now_ms(l->loop);
    if (*logged_ms != 0 && now_ms - *logged_ms < LOG_EVERY_MS) {
        return false;
    }
    *logged_ms = now_ms;
    return true;
}

static void pause_accepting(struct hw_listener *l, const char *why)
{
    if (may_log(l, &l->error_logged_ms)) {
        hw_log_error("loop", "cannot accept connections, trying again", "listener=%s every_ms=%d error=%s", l->address,
                     PAUSE_MS, hw_logq(why));
    }
    uv_poll_stop(&l->poll);
    hw_timer_start(l->pause, PAUSE_MS, 0);
}

static void on_pause_over(void *ctx)
{
    watch(ctx);
}

static void refuse(struct hw_listener *l, int fd)
{
    close(fd);
    if (l->loop->refused_total != NULL) {
        hw_counter_add(l->loop->refused_total, 1);
    }
    if (may_log(l, &l->refused_logged_ms)) {
        hw_log_warn("loop", "connection refused: the listener has as many as it may", "listener=%s connections_max=%u",
                    l->address, l->connections_max);
    }
}

/* False: nothing more to accept now. */
static bool accept_one(struct hw_listener *l)
{
    struct hw_stream *s;
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        switch (errno) {
        case EAGAIN:
            return false;
        case EMFILE:
        case ENFILE:
        case ENOMEM:
        case ENOBUFS:
        case EINVAL:
        case EBADF:
            pause_accepting(l, strerror(errno));
            return false;
        default:
            return true; /* that connection died while it waited (accept(2), error handling); the next may be well */
        }
    }
    if (l->alive >= l->connections_max) {
        refuse(l, fd);
        return true;
    }
    s = stream_new(l->loop);
    if (s == NULL || stream_open(s, fd) != 0) {
        close(fd);
        if (s != NULL) {
            hw_stream_close(s);
        }
        pause_accepting(l, "out of memory");
        return false;
    }
    l->alive++;
    stream_on_gone(s, on_stream_gone, l);
    l->on_accept(l->ctx, s);
    return true;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct hw_listener *l = hw_container_of(poll, struct hw_listener, poll);
    (void)events;
    if (status != 0) {
        pause_accepting(l, uv_strerror(status));
        return;
    }
    /* on_accept may free the listener: then the handle is closing, and its memory lives until its close callback. */
    for (int i = 0; i < ACCEPTS_PER_TURN_MAX && !uv_is_closing((uv_handle_t *)poll); i++) {
        if (!accept_one(l)) {
            return;
        }
    }
}

static void watch(struct hw_listener *l)
{
    int r = uv_poll_start(&l->poll, UV_READABLE, on_readable);
    hw_assert(r == 0);
}

static int bind_and_listen(const char *text, const struct sockaddr *address, socklen_t len, int *out,
                           struct hw_error *e)
{
    const int on = 1;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int r;
    if (fd < 0) {
        return hw_error_errno(e, errno, "listen on %s: socket", text);
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, address, len) != 0 || listen(fd, BACKLOG) != 0) {
        const char *help = errno == EADDRINUSE      ? " (another program has this port: stop it or choose another)"
                           : errno == EADDRNOTAVAIL ? " (this machine has no such address)"
                           : errno == EACCES        ? " (ports below 1024 need a privilege)"
                                                    : "";
        r = hw_error_errno(e, errno, "listen on %s%s", text, help);
        close(fd);
        return r;
    }
    *out = fd;
    return 0;
}

static int resolve_now(const char *text, struct sockaddr_storage *address, socklen_t *len, struct hw_error *e)
{
    char host[256];
    char port[16];
    int r = hw_address_split(text, host, sizeof host, port, sizeof port, e);
    if (r == 0 && !loop_address_literal(host, port, address, len)) {
        r = hw_error_set(e, HW_ERR_INVALID, "host %s is not an address; write one of this machine's, or 0.0.0.0", host);
    }
    if (r != 0) {
        hw_error_wrap(e, "listen on %s", text);
    }
    return r;
}

int hw_listener_new(struct hw_loop *loop, const char *address, unsigned connections_max, hw_accept_fn on_accept,
                    void *ctx, struct hw_listener **listener, struct hw_error *e)
{
    struct sockaddr_storage sa;
    socklen_t len;
    struct hw_listener *l;
    int fd = -1;
    int r = resolve_now(address, &sa, &len, e);
    if (r != 0) {
        return r;
    }
    r = bind_and_listen(address, (const struct sockaddr *)&sa, len, &fd, e);
    if (r != 0) {
        return r;
    }
    l = calloc(1, sizeof *l);
    if (l == NULL) {
        close(fd);
        return hw_error_set(e, HW_ERR_NOMEM, "listen on %s: out of memory", address);
    }
    l->loop = loop;
    l->fd = fd;
    l->connections_max = connections_max;
    l->on_accept = on_accept;
    l->ctx = ctx;
    len = sizeof sa;
    getsockname(fd, (struct sockaddr *)&sa, &len);
    loop_address_text((const struct sockaddr *)&sa, l->address);
    r = uv_poll_init(&loop->uv, &l->poll, fd);
    if (r != 0) {
        close(fd);
        free(l);
        return hw_error_errno(e, -r, "listen on %s: watch the socket", address);
    }
    loop_name(loop, &l->named, l->address, &l->poll);
    l->pause = hw_timer_new(loop, "listener-pause", on_pause_over, l);
    watch(l);
    *listener = l;
    return 0;
}

const char *hw_listener_address(const struct hw_listener *l)
{
    return l->address;
}

static void on_poll_closed(uv_handle_t *h)
{
    struct hw_listener *l = hw_container_of(h, struct hw_listener, poll);
    loop_unname(&l->named);
    l->is_closed = true;
    free_if_unused(l);
}

void hw_listener_free(struct hw_listener *l)
{
    if (l == NULL) {
        return;
    }
    hw_timer_free(l->pause);
    uv_close((uv_handle_t *)&l->poll, on_poll_closed);
    close(l->fd); /* after uv_close, which takes it out of epoll; the port is free for the next at once */
}
