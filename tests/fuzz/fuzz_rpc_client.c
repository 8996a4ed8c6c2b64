/* What a server may answer to a gRPC client: bytes in, nothing may break, leak or grow without bound.
 *
 * The first byte chooses: bit 0 raw bytes or commands; bit 1 a server that never reads; bits 2-3 how many bytes come in
 * one turn; bit 4 calls with a deadline; bit 5 a kept channel. A command is an opcode and its arguments, and makes a
 * well-formed frame; some make the client do something instead.
 */
#include "agent/rpc/rpc.h"
#include "tests/fuzz/fuzz_frames.h"
#include "tests/fuzz/fuzz_rpc_seam.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CALLS_MAX 12

struct caller {
    struct hw_request request;
    bool is_used;
    bool is_ended;
    bool is_quitter; /* cancels when the first message comes */
};

static struct caller callers[CALLS_MAX];

static void on_message(struct hw_request *r, struct hw_slice message)
{
    struct caller *c = r->data;
    hw_assert(c->is_used && !c->is_ended && message.len <= 1000);
    if (c->is_quitter) {
        hw_request_cancel(r);
    }
}

static void on_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct caller *c = r->data;
    hw_assert(c->is_used && !c->is_ended);
    hw_assert(text == NULL || strlen(text) < 100000);
    (void)status;
    c->is_ended = true;
}

static const struct hw_request_ops ops = {.on_message = on_message, .on_end = on_end};

static void start_call(struct hw_channel *channel, uint8_t variant, uint64_t timeout_ms)
{
    static const char *const headers[] = {"x-name", "value", NULL};
    for (size_t i = 0; i < CALLS_MAX; i++) {
        struct caller *c = &callers[i];
        if (c->is_used && !c->is_ended) {
            continue;
        }
        *c = (struct caller){.request = {.ops = &ops, .data = c}, .is_used = true, .is_quitter = (variant & 4) != 0};
        if (hw_request_start(channel, &c->request, "/f.F/Method", variant & 1 ? headers : NULL, timeout_ms,
                             (variant & 2) != 0, hw_slice_str("question"), (variant & 8) == 0) != 0) {
            c->is_used = false;
        }
        return;
    }
}

static void act(struct hw_channel *channel, uint8_t what, uint8_t who, uint64_t timeout_ms)
{
    struct caller *c = &callers[who % CALLS_MAX];
    bool is_live = c->is_used && !c->is_ended;
    switch (what & 3) {
    case 0:
        start_call(channel, who, timeout_ms);
        break;
    case 1:
        if (is_live) {
            hw_request_cancel(&c->request);
        }
        break;
    case 2:
        if (is_live) {
            (void)hw_request_send(&c->request, hw_slice_str("more"));
        }
        break;
    default:
        if (is_live) {
            hw_request_half_close(&c->request);
        }
    }
}

static void put_headers(struct hw_buf *out, uint32_t id, uint8_t variant)
{
    static const char *const statuses[] = {"0", "14", "5", "99999999999"};
    struct hw_buf b = {0};
    bool is_end = (variant & 1) != 0;
    if (variant & 2) {
        frame_put_header(&b, ":status", variant & 4 ? "503" : "200");
        frame_put_header(&b, "content-type", variant & 8 ? "text/html" : "application/grpc");
    }
    if (is_end) {
        frame_put_header(&b, "grpc-status", statuses[variant >> 4 & 3]);
        frame_put_header(&b, "grpc-message", variant & 64 ? "no%20hot%2" : "plain");
    }
    frame_put(out, FRAME_HEADERS, (uint8_t)(FRAME_END_HEADERS | (is_end ? FRAME_END_STREAM : 0)), id, b.data, b.len);
    hw_buf_free(&b);
}

static void server_frame(struct hw_reader *r, uint8_t op, struct hw_buf *out)
{
    uint32_t id = hw_reader_u8(r);
    uint8_t variant = hw_reader_u8(r);
    size_t len = op >> 3;
    len = len < hw_reader_left(r) ? len : hw_reader_left(r);
    switch (op & 7) {
    case 1:
        put_headers(out, id, variant);
        return;
    case 2:
        frame_put_message(out, id, r->pos, len, (variant & 1) != 0);
        break;
    case 3:
        frame_put(out, variant & 15, variant >> 4, id, r->pos, len);
        break;
    default:
        hw_buf_append(out, r->pos, len);
    }
    r->pos += len;
}

static void deliver(struct hw_loop *loop, struct hw_buf *wire, size_t step)
{
    for (size_t at = 0; at < wire->len;) {
        struct hw_stream *s = seam_stream_alive(loop);
        size_t n = wire->len - at < step ? wire->len - at : step;
        if (s == NULL || s->is_paused) {
            break;
        }
        seam_receive(s, wire->data + at, n);
        seam_turn(loop);
        at += n;
    }
    hw_buf_clear(wire);
}

static void connect(struct hw_loop *loop, bool is_stuck)
{
    struct hw_stream *s = seam_connected(loop);
    if (s != NULL) {
        struct hw_buf b = {0};
        s->is_stuck = is_stuck;
        frame_put(&b, FRAME_SETTINGS, 0, 0, NULL, 0);
        deliver(loop, &b, b.len);
        hw_buf_free(&b);
    }
}

static void play(struct hw_loop *loop, struct hw_channel *channel, const uint8_t *data, size_t size)
{
    static const size_t steps[] = {1u << 20, 64, 7, 1};
    size_t step = steps[data[0] >> 2 & 3];
    uint64_t timeout_ms = data[0] & 16 ? 50 : 0;
    struct hw_buf wire = {0};
    struct hw_reader r;
    hw_reader_init(&r, data + 1, size - 1);
    if (data[0] & 1) {
        struct hw_stream *s = seam_connected(loop);
        hw_buf_append(&wire, data + 1, size - 1);
        if (s != NULL) {
            s->is_stuck = (data[0] & 2) != 0;
            deliver(loop, &wire, step);
        }
        hw_buf_free(&wire);
        return;
    }
    connect(loop, (data[0] & 2) != 0);
    while (hw_reader_left(&r) >= 3) {
        uint8_t op = hw_reader_u8(&r);
        if ((op & 7) == 0) {
            uint8_t who = hw_reader_u8(&r);
            act(channel, op >> 3, who, timeout_ms);
            seam_turn(loop);
        } else if ((op & 7) == 7) {
            seam_advance(loop, (uint64_t)op * hw_reader_u8(&r));
            seam_turn(loop);
            connect(loop, (data[0] & 2) != 0);
        } else {
            server_frame(&r, op, &wire);
            deliver(loop, &wire, step);
        }
    }
    hw_buf_free(&wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hw_rpc_limits limits;
    struct hw_channel *channel;
    struct hw_loop *loop;
    if (size < 4) {
        return 0;
    }
    memset(callers, 0, sizeof callers);
    hw_rpc_limits_default(&limits);
    limits.message_bytes_max = 1000;
    limits.streams_max = 6;
    limits.header_bytes_max = 600;
    limits.send_queue_bytes_max = 4096;
    loop = seam_loop_new();
    hw_assert(hw_channel_new(loop, NULL, "127.0.0.1:1", &limits, NULL, NULL, &channel) == 0);
    if (data[0] & 32) {
        hw_channel_keep(channel);
    }
    start_call(channel, 0, data[0] & 16 ? 50 : 0);
    start_call(channel, 8, 0);
    seam_turn(loop);
    play(loop, channel, data, size);
    seam_advance(loop, 100);
    seam_turn(loop);
    hw_channel_free(channel);
    for (int i = 0; i < 6; i++) {
        seam_turn(loop);
        seam_advance(loop, 10000);
    }
    for (size_t i = 0; i < CALLS_MAX; i++) {
        hw_assert(!callers[i].is_used || callers[i].is_ended);
    }
    seam_loop_free(loop);
    return 0;
}
