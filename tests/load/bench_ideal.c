/* The client of tests/bench/ideal.c: little-endian frames {u32 length of what follows, u64 id, u32 key, value}; an
 * answer is {u32 length, u64 id, value of a read}. The top bit of the id says: read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "tests/load/bench.h"

#define READ_BIT (1ull << 63)
#define CONNECT_MS 5000u
#define ANSWER_BYTES_MAX (BENCH_VALUE_BYTES_MAX + 64u)

struct link {
    struct ideal *ideal;
    struct hw_connect connect;
    struct hw_stream *stream;
    struct hw_buf in; /* the beginning of an answer that is not whole yet */
};

struct ideal {
    struct bench *b;
    void (*done)(void *ctx, uint64_t id);
    void *ctx;
    struct link links[BENCH_CHANNELS_MAX];
    unsigned up;
    bool has_failed;
};

/* One run, one process. */
static struct ideal ideal;

/* Answers that are whole in these bytes; returns how many bytes they had. */
static size_t take_answers(struct link *l, const uint8_t *data, size_t len)
{
    size_t pos = 0;
    while (len - pos >= 12) {
        struct hw_reader r;
        uint32_t length;
        uint64_t id;
        hw_reader_init(&r, data + pos, len - pos);
        length = hw_reader_u32(&r);
        hw_assert(length >= 8 && length <= ANSWER_BYTES_MAX);
        if (len - pos - 4 < length) {
            break;
        }
        id = hw_reader_u64(&r);
        pos += 4 + length;
        l->ideal->done(l->ideal->ctx, id & ~READ_BIT);
    }
    return pos;
}

static void on_data(void *ctx, const uint8_t *data, size_t len)
{
    struct link *l = ctx;
    size_t used;
    if (l->in.len == 0) {
        used = take_answers(l, data, len);
        hw_assert(hw_buf_append(&l->in, data + used, len - used) == 0);
        return;
    }
    hw_assert(hw_buf_append(&l->in, data, len) == 0);
    used = take_answers(l, l->in.data, l->in.len);
    hw_buf_consume(&l->in, used);
}

static void on_end(void *ctx, int status)
{
    struct link *l = ctx;
    l->stream = NULL;
    bench_op_failed(l->ideal->b, HW_GRPC_UNAVAILABLE, hw_err_text(status));
    bench_window_close(l->ideal->b);
}

static const struct hw_stream_ops ops = {.on_data = on_data, .on_end = on_end};

static void on_connected(struct hw_connect *c, int status, struct hw_stream *s)
{
    struct link *l = hw_container_of(c, struct link, connect);
    if (status != 0) {
        snprintf(l->ideal->b->text, sizeof l->ideal->b->text, "%.120s", hw_error_text(&c->e));
        l->ideal->has_failed = true;
        return;
    }
    l->stream = s;
    l->ideal->up++;
    hw_stream_own(s, &ops, l);
}

int bench_ideal_connect(struct bench *b, void (*done)(void *ctx, uint64_t id), void *ctx)
{
    ideal = (struct ideal){.b = b, .done = done, .ctx = ctx};
    for (unsigned i = 0; i < b->o.connections; i++) {
        struct link *l = &ideal.links[i];
        l->ideal = &ideal;
        if (hw_connect_start(b->loop, NULL, &l->connect, b->o.endpoints[0], CONNECT_MS, on_connected) != 0) {
            return HW_ERR_CONNECT;
        }
    }
    while (ideal.up < b->o.connections && !ideal.has_failed && hw_loop_turn(b->loop, true)) {
    }
    return ideal.has_failed ? HW_ERR_CONNECT : 0;
}

int bench_ideal_send(struct bench *b, uint64_t id, bool is_read, uint32_t key, struct hw_slice value)
{
    static struct hw_buf frame;
    struct link *l = &ideal.links[id % b->o.connections];
    if (l->stream == NULL) {
        return HW_ERR_CLOSED;
    }
    hw_buf_clear(&frame);
    hw_buf_put_u32(&frame, (uint32_t)(12 + value.len));
    hw_buf_put_u64(&frame, is_read ? id | READ_BIT : id);
    hw_buf_put_u32(&frame, key);
    hw_buf_append(&frame, value.data, value.len);
    return hw_stream_write(l->stream, frame.data, frame.len);
}
