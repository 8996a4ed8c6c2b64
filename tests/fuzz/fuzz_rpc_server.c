/* What a client may send to a gRPC server: bytes in, nothing may break, leak or grow without bound.
 *
 * The first byte chooses: bit 0 raw bytes (the preface included) or commands; bit 1 a peer that never reads; bits 2-3
 * how many bytes come in one turn; bit 4 a shutdown at the end. A command is an opcode and its arguments; it makes a
 * well-formed frame, so that the fuzzer gets past the framing soon.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. tests/fuzz/fuzz_rpc_server.c \
 *         agent/rpc/{wire,deadline,session,session_send,server,call}.c agent/base/X.c -lnghttp2
 */
#include "agent/rpc/rpc.h"
#include "tests/fuzz/fuzz_rpc_seam.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HELD_MAX 64
#define WIRE_BYTES_MAX (1u << 20)

static struct hw_call *held[HELD_MAX];
static size_t held_count;

static void forget(struct hw_call *call)
{
    for (size_t i = 0; i < held_count; i++) {
        if (held[i] == call) {
            held[i] = held[--held_count];
            return;
        }
    }
}

static void on_cancel(void *data, struct hw_call *call)
{
    /* Half of the handlers end at once, the others keep a cancelled call for later. */
    if (data != NULL) {
        forget(call);
        hw_call_end(call, HW_GRPC_CANCELLED, "cancelled");
    }
}

static void on_echo(void *ctx, struct hw_call *call, struct hw_slice message)
{
    (void)ctx;
    (void)hw_call_header(call, "user-agent");
    hw_call_reply(call, message);
}

static void on_hold(void *ctx, struct hw_call *call, struct hw_slice message)
{
    if (held_count == HELD_MAX) {
        hw_call_end(call, HW_GRPC_RESOURCE_EXHAUSTED, "full");
        return;
    }
    held[held_count++] = call;
    hw_call_set_data(call, message.len % 2 == 0 ? ctx : NULL);
    hw_call_on_cancel(call, on_cancel);
}

static void on_bidi_message(void *ctx, struct hw_call *call, struct hw_slice message)
{
    (void)ctx;
    if (message.len == 3) {
        hw_call_end(call, HW_GRPC_ABORTED, "three \xff bytes");
    } else {
        hw_call_send(call, message);
    }
}

static void on_bidi_end(void *ctx, struct hw_call *call)
{
    (void)ctx;
    hw_call_end(call, HW_GRPC_OK, NULL);
}

static void on_bidi_open(void *ctx, struct hw_call *call)
{
    (void)ctx;
    hw_call_on_cancel(call, on_cancel);
    hw_call_set_data(call, call);
}

static void put_frame(struct hw_buf *out, uint8_t type, uint8_t flags, uint8_t id, const uint8_t *payload, size_t len)
{
    uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, type, flags, 0, 0, 0, id};
    hw_buf_append(out, head, sizeof head);
    hw_buf_append(out, payload, len);
}

static void put_header(struct hw_buf *b, const char *name, const char *value)
{
    hw_buf_put_u8(b, 0);
    hw_buf_put_u8(b, (uint8_t)strlen(name));
    hw_buf_append_str(b, name);
    hw_buf_put_u8(b, (uint8_t)strlen(value));
    hw_buf_append_str(b, value);
}

static void put_request(struct hw_buf *out, uint8_t id, uint8_t variant)
{
    static const char *const paths[] = {"/f.F/Echo", "/f.F/Hold", "/f.F/Bidi", "/f.F/None"};
    struct hw_buf b = {0};
    put_header(&b, ":method", "POST");
    put_header(&b, ":scheme", "http");
    put_header(&b, ":path", paths[variant & 3]);
    put_header(&b, ":authority", "f");
    put_header(&b, "content-type", variant & 4 ? "application/grpc" : "application/grpc+proto");
    if (variant & 8) {
        put_header(&b, "grpc-timeout", variant & 16 ? "5m" : "0n");
    }
    put_frame(out, 1, (uint8_t)(4 | (variant >> 7)), id, b.data, b.len);
    hw_buf_free(&b);
}

static uint8_t take(struct hw_reader *r)
{
    return hw_reader_u8(r);
}

/* Commands to frames. */
static void assemble(struct hw_reader *r, struct hw_buf *out)
{
    hw_buf_append_str(out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    put_frame(out, 4, 0, 0, NULL, 0);
    while (hw_reader_left(r) > 0 && out->len < WIRE_BYTES_MAX) {
        uint8_t op = take(r);
        uint8_t id = take(r);
        uint8_t variant = take(r);
        size_t len = op & 0x40 ? (size_t)take(r) * 64 : op & 0x3f;
        const uint8_t *bytes = r->pos;
        if (len > hw_reader_left(r)) {
            len = hw_reader_left(r);
        }
        switch (op & 0x80 ? 0 : variant & 3) {
        case 0: /* a request; its number says how often */
            for (unsigned i = 0; i <= (op & 0x80 ? op & 7u : 0); i++) {
                put_request(out, (uint8_t)(id + 2 * i), variant >> 2);
            }
            break;
        case 1: /* DATA that holds one message */
        {
            struct hw_buf b = {0};
            const uint8_t big = variant >> 6 == 2;
            const uint8_t prefix[5] = {variant >> 6 == 3, 0, big, 0, (uint8_t)len};
            hw_buf_append(&b, prefix, sizeof prefix);
            hw_buf_append(&b, bytes, len);
            put_frame(out, 0, variant >> 2 & 1, id, b.data, b.len);
            hw_buf_free(&b);
            r->pos += len;
        } break;
        case 2: /* any frame */
            put_frame(out, variant >> 2 & 15, op & 0x2d, id, bytes, len);
            r->pos += len;
            break;
        default: /* any bytes */
            hw_buf_append(out, bytes, len);
            r->pos += len;
        }
    }
}

static void end_one_held(struct hw_loop *loop)
{
    if (held_count > 0) {
        struct hw_call *call = held[--held_count];
        if (loop->now_ms % 2 == 0) {
            hw_call_reply(call, hw_slice_str("held"));
        } else {
            hw_call_end(call, HW_GRPC_NOT_FOUND, "held");
        }
    }
}

static void deliver(struct hw_loop *loop, const struct hw_buf *wire, size_t step)
{
    for (size_t at = 0; at < wire->len;) {
        struct hw_stream *s = seam_stream_alive(loop);
        size_t n = wire->len - at < step ? wire->len - at : step;
        uint8_t *exact;
        if (s == NULL) {
            return;
        }
        exact = malloc(n); /* so that the sanitizer sees a read past the end */
        hw_assert(exact != NULL);
        memcpy(exact, wire->data + at, n);
        s->ops->on_data(s->ctx, exact, n);
        free(exact);
        at += n;
        if (at % 3 == 0) {
            end_one_held(loop);
        }
        seam_turn(loop);
        seam_advance(loop, 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t steps[] = {1u << 20, 64, 7, 1};
    static const struct hw_method methods[] = {
        {.path = "/f.F/Echo", .on_unary = on_echo},
        {.path = "/f.F/Hold", .on_unary = on_hold, .ctx = held},
        {.path = "/f.F/Bidi", .on_open = on_bidi_open, .on_message = on_bidi_message, .on_half_close = on_bidi_end},
    };
    struct hw_rpc_limits limits;
    struct hw_rpc_server *server;
    struct hw_loop *loop;
    struct hw_stream *s;
    struct hw_buf wire = {0};
    struct hw_reader r;
    if (size == 0) {
        return 0;
    }
    hw_reader_init(&r, data + 1, size - 1);
    if (data[0] & 1) {
        hw_buf_append(&wire, data + 1, size - 1);
    } else {
        assemble(&r, &wire);
    }
    hw_rpc_limits_default(&limits);
    limits.message_bytes_max = 100;
    limits.streams_max = 8;
    limits.header_bytes_max = 600;
    limits.send_queue_bytes_max = 4096;
    loop = seam_loop_new();
    hw_assert(hw_rpc_server_new(loop, NULL, &limits, &server) == 0);
    hw_rpc_server_add(server, methods, hw_array_len(methods));
    s = seam_stream_new(loop);
    s->is_stuck = (data[0] & 2) != 0;
    hw_rpc_server_accept(server, s);
    deliver(loop, &wire, steps[data[0] >> 2 & 3]);
    if (data[0] & 16) {
        hw_rpc_server_shut(server, 5, NULL, NULL);
        seam_turn(loop);
        seam_advance(loop, 10);
        seam_turn(loop);
    } else if (seam_stream_alive(loop) != NULL) {
        seam_end(seam_stream_alive(loop), HW_ERR_CLOSED);
        seam_turn(loop);
    }
    hw_rpc_server_free(server);
    for (int i = 0; i < 3; i++) {
        seam_turn(loop);
    }
    while (held_count > 0) {
        end_one_held(loop);
    }
    seam_turn(loop);
    seam_loop_free(loop);
    hw_buf_free(&wire);
    return 0;
}
