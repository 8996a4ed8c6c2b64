#include "agent/loop/outq.h"

#include <stdlib.h>
#include <string.h>

/* With its head a little less than 16 KiB, which suits both the allocator and one HTTP/2 frame. */
#define CHUNK_BYTES (16u * 1024u - 64u)
#define SPARES_MAX 64
/* A taken buffer below this is cheaper to copy than to send as a piece of its own. */
#define TAKE_MIN_BYTES 4096

struct hw_chunk {
    TAILQ_ENTRY(hw_chunk) link;
    SLIST_ENTRY(hw_chunk) spare;
    uint8_t *data; /* `own`, or memory taken from a buffer */
    size_t sent;
    size_t len;
    size_t cap;
    uint8_t own[];
};

void outq_init(struct outq *q)
{
    TAILQ_INIT(&q->chunks);
    q->bytes = 0;
}

static struct hw_chunk *chunk_new(struct hw_loop *loop, size_t min)
{
    struct hw_chunk *c = SLIST_FIRST(&loop->spares);
    if (c != NULL && min <= CHUNK_BYTES) {
        SLIST_REMOVE_HEAD(&loop->spares, spare);
        loop->spare_count--;
    } else {
        size_t cap = min > CHUNK_BYTES ? min : CHUNK_BYTES;
        c = malloc(sizeof *c + cap);
        if (c == NULL) {
            return NULL;
        }
        c->cap = cap;
        c->data = c->own;
    }
    c->sent = 0;
    c->len = 0;
    return c;
}

static void chunk_free(struct hw_loop *loop, struct hw_chunk *c)
{
    if (c->data != c->own) {
        free(c->data);
    } else if (c->cap == CHUNK_BYTES && loop->spare_count < SPARES_MAX) {
        SLIST_INSERT_HEAD(&loop->spares, c, spare);
        loop->spare_count++;
        return;
    }
    free(c);
}

void outq_free_spares(struct hw_loop *loop)
{
    struct hw_chunk *c;
    while ((c = SLIST_FIRST(&loop->spares)) != NULL) {
        SLIST_REMOVE_HEAD(&loop->spares, spare);
        free(c);
    }
    loop->spare_count = 0;
}

int outq_append(struct hw_loop *loop, struct outq *q, const uint8_t *data, size_t len)
{
    struct hw_chunk *last = TAILQ_LAST(&q->chunks, chunk_list);
    size_t room = last != NULL ? last->cap - last->len : 0;
    size_t first = len < room ? len : room;
    struct hw_chunk *more = NULL;
    if (first < len) {
        more = chunk_new(loop, len - first);
        if (more == NULL) {
            return HW_ERR_NOMEM;
        }
    }
    if (first > 0) {
        memcpy(last->data + last->len, data, first);
        last->len += first;
    }
    if (more != NULL) {
        memcpy(more->data, data + first, len - first);
        more->len = len - first;
        TAILQ_INSERT_TAIL(&q->chunks, more, link);
    }
    q->bytes += len;
    return 0;
}

int outq_take(struct hw_loop *loop, struct outq *q, struct hw_buf *b)
{
    struct hw_chunk *c;
    if (b->len < TAKE_MIN_BYTES) {
        int r = outq_append(loop, q, b->data, b->len);
        if (r == 0) {
            hw_buf_free(b);
        }
        return r;
    }
    c = malloc(sizeof *c);
    if (c == NULL) {
        return HW_ERR_NOMEM;
    }
    c->sent = 0;
    c->data = hw_buf_take(b, &c->len);
    c->cap = c->len; /* nothing is appended to foreign memory */
    TAILQ_INSERT_TAIL(&q->chunks, c, link);
    q->bytes += c->len;
    return 0;
}

size_t outq_gather(const struct outq *q, uv_buf_t *bufs, unsigned max, unsigned *count)
{
    const struct hw_chunk *c;
    size_t bytes = 0;
    unsigned n = 0;
    TAILQ_FOREACH(c, &q->chunks, link) {
        if (n == max) {
            break;
        }
        bufs[n].base = (char *)c->data + c->sent;
        bufs[n].len = c->len - c->sent;
        bytes += bufs[n].len;
        n++;
    }
    *count = n;
    return bytes;
}

void outq_consume(struct hw_loop *loop, struct outq *q, size_t n)
{
    hw_assert(n <= q->bytes);
    q->bytes -= n;
    while (n > 0) {
        struct hw_chunk *c = TAILQ_FIRST(&q->chunks);
        size_t left = c->len - c->sent;
        if (n < left) {
            c->sent += n;
            return;
        }
        n -= left;
        TAILQ_REMOVE(&q->chunks, c, link);
        chunk_free(loop, c);
    }
}

void outq_clear(struct hw_loop *loop, struct outq *q)
{
    outq_consume(loop, q, q->bytes);
}
