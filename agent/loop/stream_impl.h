/* Private to agent/loop: how connect.c and listener.c make streams.
 *
 * A stream is made around nothing (connect) or around an accepted socket. It has no owner until hw_stream_own: closing
 * it before that calls nobody.
 */
#ifndef HW_LOOP_STREAM_IMPL_H
#define HW_LOOP_STREAM_IMPL_H

#include "agent/loop/loop_impl.h"
#include "agent/loop/stream.h"

/* NULL when out of memory. */
struct hw_stream *stream_new(struct hw_loop *loop);
/* Takes the descriptor on success. A negative libuv status otherwise. */
int stream_open(struct hw_stream *s, int fd);
uv_tcp_t *stream_tcp(struct hw_stream *s);
/* Connected: set the socket's options and learn the peer's name. */
void stream_connected(struct hw_stream *s);
/* Called when the stream's memory goes. */
void stream_on_gone(struct hw_stream *s, void (*fn)(void *ctx), void *ctx);

#endif
