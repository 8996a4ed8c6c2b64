/* Private to agent/loop: the bytes of one stream that the kernel has not taken yet.
 *
 * A list of chunks whose data never moves, so that a running uv_write may look at them while more is appended behind.
 * Small writes fill up the last chunk: many messages leave as one piece. Chunks of the usual size go back to a small
 * store of the loop, so that an idle stream holds none. Free with outq_clear.
 */
#ifndef HW_LOOP_OUTQ_H
#define HW_LOOP_OUTQ_H

#include "agent/loop/loop_impl.h"

TAILQ_HEAD(chunk_list, hw_chunk);

struct outq {
    struct chunk_list chunks;
    size_t bytes;
};

void outq_init(struct outq *q);
void outq_clear(struct hw_loop *loop, struct outq *q);
/* A copy; HW_ERR_NOMEM leaves the queue as it was. */
int outq_append(struct hw_loop *loop, struct outq *q, const uint8_t *data, size_t len);
/* Takes the buffer's memory on success. */
int outq_take(struct hw_loop *loop, struct outq *q, struct hw_buf *b);
/* The first pieces, at most `max`; sets their count, returns their bytes. */
size_t outq_gather(const struct outq *q, uv_buf_t *bufs, unsigned max, unsigned *count);
/* Drop `n` bytes from the front. */
void outq_consume(struct hw_loop *loop, struct outq *q, size_t n);
void outq_free_spares(struct hw_loop *loop);

#endif
