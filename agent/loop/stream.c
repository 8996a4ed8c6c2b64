#include "agent/loop/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/buf.h"
#include "agent/loop/outq.h"
#include "agent/loop/stream_impl.h"

#define WRITE_MAX_BYTES (64u * 1024u * 1024u)
/* Pieces per system call, and system calls per stream and turn: one fast reader must not hold the loop. */
#define PIECES_MAX 64
#define WRITES_PER_TURN_MAX 8
#define KEEPALIVE_S 15
/* How long a finished stream waits for the peer's own end, so that the kernel does not throw away, with a reset, what
 * the peer has not read yet; and how long a peer that ended first is given to take the rest of its answer. */
#define LINGER_MS 1000

/* Life of a stream. Any state may go to ENDING.
 *
 *     OPEN ──peer ended, bytes left──▶ LAST_WORDS ──sent, or LINGER_MS──▶ ENDING
 *     OPEN ──hw_stream_finish──▶ FINISHING ──sent──▶ LINGERING ──peer ended, or LINGER_MS──▶ ENDING
 *     ENDING ──handles closed──▶ on_end, memory freed
 */
enum state { OPEN, LAST_WORDS, FINISHING, LINGERING, ENDING };

struct hw_stream {
    uv_tcp_t tcp;
    uv_timer_t timer; /* open only after timer_start */
    unsigned handles_open;
    bool has_timer;
    struct hw_named named;
    struct hw_loop *loop;
    const struct hw_stream_ops *ops; /* NULL: no owner */
    void *ctx;
    enum state state;
    int status; /* for on_end */
    bool is_paused;
    bool is_reading;
    bool is_writing; /* write_req holds the first write_bytes of out */
    bool has_peer_ended;
    bool was_high;
    size_t write_bytes;
    size_t write_max;
    uv_write_t write_req;
    struct outq out;
    struct hw_buf unread;
    struct hw_defer work; /* end of turn: deliver what was given back, write, tell of the drain */
    void (*on_gone)(void *ctx);
    void *gone_ctx;
    char peer[LOOP_ADDRESS_SIZE];
};

static void reading_update(struct hw_stream *s);
static void flush(struct hw_stream *s);

/* ---- ending ---- */

static void on_handle_closed(uv_handle_t *h)
{
    struct hw_stream *s = h->data;
    if (--s->handles_open > 0) {
        return;
    }
    loop_unname(&s->named);
    if (s->ops != NULL) {
        s->ops->on_end(s->ctx, s->status);
    }
    hw_defer_cancel(s->loop, &s->work);
    outq_clear(s->loop, &s->out);
    hw_buf_free(&s->unread);
    if (s->on_gone != NULL) {
        s->on_gone(s->gone_ctx);
    }
    free(s);
}

static void end(struct hw_stream *s, int status)
{
    if (s->state == ENDING) {
        return;
    }
    s->state = ENDING;
    s->status = status;
    hw_defer_cancel(s->loop, &s->work);
    if (s->has_timer) {
        uv_close((uv_handle_t *)&s->timer, on_handle_closed);
    }
    uv_close((uv_handle_t *)&s->tcp, on_handle_closed);
}

static void on_deadline(uv_timer_t *t)
{
    struct hw_stream *s = t->data;
    if (s->state == FINISHING) {
        end(s, HW_ERR_TIMEOUT);
    } else {
        end(s, 0);
    }
}

static void timer_start(struct hw_stream *s, uint64_t after_ms)
{
    if (!s->has_timer) {
        uv_timer_init(&s->loop->uv, &s->timer);
        s->timer.data = s;
        s->has_timer = true;
        s->handles_open++;
    }
    uv_timer_start(&s->timer, on_deadline, after_ms, 0);
}

/* All bytes are with the kernel. */
static void all_sent(struct hw_stream *s)
{
    uv_os_fd_t fd = -1;
    if (s->state == LAST_WORDS) {
        end(s, 0);
        return;
    }
    if (s->state != FINISHING) {
        return;
    }
    uv_fileno((uv_handle_t *)&s->tcp, &fd);
    if (s->has_peer_ended || shutdown(fd, SHUT_WR) != 0) {
        end(s, 0);
        return;
    }
    s->state = LINGERING;
    timer_start(s, LINGER_MS);
}

static void peer_ended(struct hw_stream *s)
{
    s->has_peer_ended = true;
    reading_update(s);
    if (s->state == OPEN) {
        s->state = LAST_WORDS;
        timer_start(s, LINGER_MS);
        hw_defer_post(s->loop, &s->work); /* after what the last bytes made the owner post */
    } else if (s->state == LINGERING) {
        end(s, 0);
    }
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct hw_stream *s = h->data;
    (void)suggested;
    *buf = uv_buf_init(s->loop->read_bytes, sizeof s->loop->read_bytes);
}

static void on_read(uv_stream_t *tcp, ssize_t n, const uv_buf_t *buf)
{
    struct hw_stream *s = tcp->data;
    if (n == UV_EOF) {
        peer_ended(s);
    } else if (n < 0) {
        end(s, loop_err((int)n));
    } else if (n > 0 && s->state == OPEN) {
        s->ops->on_data(s->ctx, (const uint8_t *)buf->base, (size_t)n);
    }
}

/* Bytes given back come before fresh ones, so nothing is read while there are any. A finishing stream reads on and
 * drops what comes, to see the peer's end. */
static void reading_update(struct hw_stream *s)
{
    bool is_owned = s->state == OPEN && s->ops != NULL && !s->is_paused && s->unread.len == 0;
    bool want = !s->has_peer_ended && (is_owned || s->state == FINISHING || s->state == LINGERING);
    if (want == s->is_reading || s->state == ENDING) {
        return;
    }
    s->is_reading = want;
    if (want) {
        int r = uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read);
        hw_assert(r == 0);
    } else {
        uv_read_stop((uv_stream_t *)&s->tcp);
    }
}

static void deliver_unread(struct hw_stream *s)
{
    struct hw_buf b = s->unread;
    if (b.len == 0 || s->state != OPEN || s->ops == NULL || s->is_paused) {
        return;
    }
    hw_buf_init(&s->unread);
    s->ops->on_data(s->ctx, b.data, b.len);
    hw_buf_free(&b);
    reading_update(s);
}

void hw_stream_own(struct hw_stream *s, const struct hw_stream_ops *ops, void *ctx)
{
    hw_assert(ops != NULL && ops->on_data != NULL && ops->on_end != NULL);
    s->ops = ops;
    s->ctx = ctx;
    if (s->state == ENDING) {
        return;
    }
    reading_update(s);
    if (s->unread.len > 0) {
        hw_defer_post(s->loop, &s->work);
    }
}

int hw_stream_unread(struct hw_stream *s, const uint8_t *data, size_t len)
{
    struct hw_buf b;
    if (s->state != OPEN) {
        return HW_ERR_CLOSED;
    }
    if (len == 0) {
        return 0;
    }
    hw_buf_init(&b);
    hw_buf_append(&b, data, len);
    hw_buf_append(&b, s->unread.data, s->unread.len);
    if (b.failed) {
        hw_buf_free(&b);
        return HW_ERR_NOMEM;
    }
    hw_buf_free(&s->unread);
    s->unread = b;
    reading_update(s);
    hw_defer_post(s->loop, &s->work);
    return 0;
}

void hw_stream_pause(struct hw_stream *s, bool paused)
{
    s->is_paused = paused;
    reading_update(s);
    if (!paused && s->unread.len > 0 && s->state == OPEN) {
        hw_defer_post(s->loop, &s->work);
    }
}

/* ---- writing ---- */

static void tell_drained(struct hw_stream *s)
{
    if (s->was_high && s->out.bytes <= HW_STREAM_LOW && s->state == OPEN) {
        s->was_high = false;
        if (s->ops != NULL && s->ops->on_drain != NULL) {
            s->ops->on_drain(s->ctx);
        }
    }
}

static void on_written(uv_write_t *req, int status)
{
    struct hw_stream *s = req->data;
    s->is_writing = false;
    if (s->state == ENDING) {
        return;
    }
    if (status != 0) {
        end(s, loop_err(status));
        return;
    }
    outq_consume(s->loop, &s->out, s->write_bytes);
    flush(s);
    tell_drained(s);
}

/* The kernel's buffer is full: leave the first pieces to libuv until it has room. */
static void write_later(struct hw_stream *s)
{
    uv_buf_t bufs[PIECES_MAX];
    unsigned count;
    int r;
    s->write_bytes = outq_gather(&s->out, bufs, PIECES_MAX, &count);
    s->write_req.data = s;
    r = uv_write(&s->write_req, (uv_stream_t *)&s->tcp, bufs, count, on_written);
    if (r != 0) {
        end(s, loop_err(r));
        return;
    }
    s->is_writing = true;
}

/* Runs only from the loop (deferred work, completions), never within a call of the owner's. */
static void flush(struct hw_stream *s)
{
    for (unsigned i = 0; s->out.bytes > 0 && !s->is_writing && s->state != ENDING; i++) {
        uv_buf_t bufs[PIECES_MAX];
        unsigned count;
        size_t bytes = outq_gather(&s->out, bufs, PIECES_MAX, &count);
        int r;
        if (i == WRITES_PER_TURN_MAX) {
            hw_defer_post(s->loop, &s->work);
            return;
        }
        r = uv_try_write((uv_stream_t *)&s->tcp, bufs, count);
        if (r < 0 && r != UV_EAGAIN) {
            end(s, loop_err(r));
            return;
        }
        if (r > 0) {
            outq_consume(s->loop, &s->out, (size_t)r);
        }
        if (r < 0 || (size_t)r < bytes) {
            write_later(s);
        }
    }
    if (s->out.bytes == 0) {
        all_sent(s);
    }
}

static void run_work(struct hw_defer *d)
{
    struct hw_stream *s = hw_container_of(d, struct hw_stream, work);
    deliver_unread(s);
    if (s->state == ENDING) {
        return;
    }
    flush(s);
    tell_drained(s);
}

static int write_check(const struct hw_stream *s, size_t len)
{
    if (s->state != OPEN && s->state != LAST_WORDS) {
        return HW_ERR_CLOSED;
    }
    return len > s->write_max || hw_stream_queued(s) > s->write_max - len ? HW_ERR_EXHAUSTED : 0;
}

static void write_queued(struct hw_stream *s)
{
    if (s->out.bytes > HW_STREAM_HIGH) {
        s->was_high = true;
    }
    if (!s->is_writing) {
        hw_defer_post(s->loop, &s->work);
    }
}

int hw_stream_write(struct hw_stream *s, const void *data, size_t len)
{
    int r = write_check(s, len);
    if (r == 0 && len > 0) {
        r = outq_append(s->loop, &s->out, data, len);
        if (r == 0) {
            write_queued(s);
        }
    }
    return r;
}

int hw_stream_write_buf(struct hw_stream *s, struct hw_buf *b)
{
    int r = b->failed ? HW_ERR_NOMEM : write_check(s, b->len);
    if (r == 0) {
        r = outq_take(s->loop, &s->out, b);
        if (r == 0) {
            write_queued(s);
        }
    }
    return r;
}

size_t hw_stream_queued(const struct hw_stream *s)
{
    size_t taken = s->is_writing ? s->write_bytes - uv_stream_get_write_queue_size((const uv_stream_t *)&s->tcp) : 0;
    return s->out.bytes - taken;
}

void hw_stream_set_write_max(struct hw_stream *s, size_t bytes)
{
    s->write_max = bytes;
}

/* ---- the rest ---- */

void hw_stream_finish(struct hw_stream *s, uint64_t deadline_ms)
{
    if (s->state == OPEN) {
        s->state = FINISHING;
        hw_buf_free(&s->unread);
        reading_update(s);
        timer_start(s, deadline_ms);
        hw_defer_post(s->loop, &s->work);
    }
}

void hw_stream_close(struct hw_stream *s)
{
    end(s, HW_ERR_CANCELLED);
}

const char *hw_stream_peer(const struct hw_stream *s)
{
    return s->peer;
}

struct hw_loop *hw_stream_loop(const struct hw_stream *s)
{
    return s->loop;
}

int hw_stream_detach(struct hw_stream *s, int *fd)
{
    uv_os_fd_t own = -1;
    int copy;
    if (s->state != OPEN || s->out.bytes > 0 || s->unread.len > 0) {
        return HW_ERR_PRECONDITION;
    }
    uv_fileno((uv_handle_t *)&s->tcp, &own);
    copy = fcntl(own, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) {
        return hw_err_from_errno(errno);
    }
    s->ops = NULL;
    end(s, 0);
    *fd = copy;
    return 0;
}

struct hw_stream *stream_new(struct hw_loop *loop)
{
    struct hw_stream *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    if (uv_tcp_init(&loop->uv, &s->tcp) != 0) {
        free(s);
        return NULL;
    }
    s->tcp.data = s;
    s->handles_open = 1;
    s->loop = loop;
    s->write_max = WRITE_MAX_BYTES;
    outq_init(&s->out);
    hw_buf_init(&s->unread);
    hw_defer_init(&s->work, run_work);
    memcpy(s->peer, "?", 2);
    loop_name(loop, &s->named, s->peer, &s->tcp);
    return s;
}

int stream_open(struct hw_stream *s, int fd)
{
    int r = uv_tcp_open(&s->tcp, fd);
    if (r == 0) {
        stream_connected(s);
    }
    return r;
}

uv_tcp_t *stream_tcp(struct hw_stream *s)
{
    return &s->tcp;
}

void stream_connected(struct hw_stream *s)
{
    struct sockaddr_storage address;
    int len = sizeof address;
    uv_tcp_nodelay(&s->tcp, 1);
    uv_tcp_keepalive(&s->tcp, 1, KEEPALIVE_S);
    if (uv_tcp_getpeername(&s->tcp, (struct sockaddr *)&address, &len) == 0) {
        loop_address_text((const struct sockaddr *)&address, s->peer);
    }
}

void stream_on_gone(struct hw_stream *s, void (*fn)(void *ctx), void *ctx)
{
    s->on_gone = fn;
    s->gone_ctx = ctx;
}
