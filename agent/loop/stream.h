/* Byte streams over TCP. The seam for TLS: a stream may have a filter under it, and nobody above can tell.
 *
 * Reading: on_data gets bytes as they come (borrowed for the call). Writing: hw_stream_write queues a copy or takes a
 * buffer; everything written in one turn leaves in one system call at its end. Back-pressure: hw_stream_queued says how
 * much is not yet taken by the kernel; on_drain fires when it falls to HW_STREAM_LOW after having been above
 * HW_STREAM_HIGH. Writers watch it; the stream itself refuses above write_max (HW_ERR_EXHAUSTED).
 *
 * Ending: on_end runs exactly once, when the peer closed (status 0), on an error, or after hw_stream_close (status
 * HW_ERR_CANCELLED); after it no other callback runs and the pointer is dead. A peer that ends its sending side counts
 * as closed, but first gets what is written by the end of that turn (within a second). A stream closed by
 * hw_stream_finish first sends what is queued (bounded by a deadline: HW_ERR_TIMEOUT), then waits up to a second for
 * the peer's own end, so that no reset overtakes the last bytes; then on_end(0). Meanwhile what comes in is dropped.
 * Once a stream is ending, writes are refused with HW_ERR_CLOSED. No callback runs within a call into the stream: all
 * come later.
 */
#ifndef HW_LOOP_STREAM_H
#define HW_LOOP_STREAM_H

#include "agent/base/buf.h"
#include "agent/loop/pool.h"

#define HW_STREAM_HIGH (256u * 1024u)
#define HW_STREAM_LOW (64u * 1024u)

struct hw_stream;

struct hw_stream_ops {
    void (*on_data)(void *ctx, const uint8_t *data, size_t len);
    void (*on_end)(void *ctx, int status);
    void (*on_drain)(void *ctx); /* may be NULL */
};

/* The owner takes the stream over; data that came before is delivered in a later turn. May be called again to hand the
 * stream to another owner (a listener sniffs the first bytes, then gives the stream on). */
void hw_stream_own(struct hw_stream *s, const struct hw_stream_ops *ops, void *ctx);
/* Give bytes back, to be delivered first to whoever owns the stream at the end of this turn. */
int hw_stream_unread(struct hw_stream *s, const uint8_t *data, size_t len);
int hw_stream_write(struct hw_stream *s, const void *data, size_t len);
/* Takes the buffer's memory on success. */
int hw_stream_write_buf(struct hw_stream *s, struct hw_buf *b);
size_t hw_stream_queued(const struct hw_stream *s);
void hw_stream_set_write_max(struct hw_stream *s, size_t bytes); /* default 64 MiB */
/* Stop and go on reading: the peer is held back by TCP. */
void hw_stream_pause(struct hw_stream *s, bool paused);
void hw_stream_finish(struct hw_stream *s, uint64_t deadline_ms);
void hw_stream_close(struct hw_stream *s);
const char *hw_stream_peer(const struct hw_stream *s); /* "127.0.0.1:51234" */
struct hw_loop *hw_stream_loop(const struct hw_stream *s);
/* Take the socket out of a stream whose queue is empty: a duplicate descriptor that the caller owns; the stream closes
 * (on_end is not called). HW_ERR_PRECONDITION while bytes are queued or unread. */
int hw_stream_detach(struct hw_stream *s, int *fd);

/* Connect: resolves, connects, TCP_NODELAY and keep-alive set. done(status != 0) explains in e, and so does a refusal
 * by hw_connect_start. The struct may go as soon as done has run, resolver may be NULL for literal addresses. */
struct hw_connect {
    void (*done)(struct hw_connect *c, int status, struct hw_stream *s);
    struct hw_error e;
    void *impl;
};
int hw_connect_start(struct hw_loop *loop, struct hw_pool *resolver, struct hw_connect *c, const char *address,
                     unsigned timeout_ms, void (*done)(struct hw_connect *c, int status, struct hw_stream *s));
/* done runs with HW_ERR_CANCELLED, in a later turn. After done: nothing happens. */
void hw_connect_cancel(struct hw_connect *c);

/* Listen on "host:port" (host literal or localhost; resolved before the loop runs). Port 0: any; see
 * hw_listener_address. on_accept owns the stream at once. Beyond connections_max streams alive from this listener new
 * ones are closed at once and counted. Without descriptors or memory accepting pauses for 100 ms at a time and what has
 * come waits in the kernel. Streams outlive their listener. */
struct hw_listener;
typedef void (*hw_accept_fn)(void *ctx, struct hw_stream *s);
int hw_listener_new(struct hw_loop *loop, const char *address, unsigned connections_max, hw_accept_fn on_accept,
                    void *ctx, struct hw_listener **listener, struct hw_error *e);
const char *hw_listener_address(const struct hw_listener *l);
/* No accept after it; memory goes later. NULL is allowed. */
void hw_listener_free(struct hw_listener *l);

#endif
