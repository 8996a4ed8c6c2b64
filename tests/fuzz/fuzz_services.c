/* What a client or another agent may ask: every method of every service, from the first byte of a connection to the
 * state and back. All of agent/api, agent/rpc, agent/http, agent/replica, agent/cluster and storage/hot is the
 * product's; sockets, time, the log and the disk are in memory (jobs for the disk are refused). The format of inputs is
 * in fuzz_services.h.
 *
 * Checked, beside what the sanitizers see: the state is sound, and nothing is left when all has been closed.
 */
#include "agent/base/log.h"
#include "proto/hotwarm.pb-c.h"
#include "tests/fuzz/fuzz_frames.h"
#include "tests/fuzz/fuzz_node.h"
#include "tests/fuzz/fuzz_services.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECORDS_MAX 200

struct connection {
    struct hw_stream *stream; /* NULL: none yet; else it may have ended */
    bool is_peer;
    uint32_t next_id;
};

struct others {
    struct node *node;
    struct connection client;
    struct connection peer;
    struct connection *last;
    bool is_stuck;
};

static struct hw_stream *connect(struct others *o, bool is_peer)
{
    struct hw_stream *s = dial(o->node, is_peer);
    s->is_stuck = o->is_stuck;
    return s;
}

static void send_bytes(struct others *o, struct connection *c, const struct hw_buf *b)
{
    if (c->stream != NULL && is_alive(o->node, c->stream)) {
        seam_receive(c->stream, b->data, b->len);
    }
    turn(o->node);
}

static void connection_open(struct others *o, struct connection *c)
{
    struct hw_buf b = {0};
    if (c->stream != NULL && is_alive(o->node, c->stream) && c->next_id < 1000) {
        return;
    }
    c->stream = connect(o, c->is_peer);
    c->next_id = 1;
    hw_buf_append_str(&b, HTTP2_PREFACE);
    frame_put(&b, FRAME_SETTINGS, 0, 0, NULL, 0);
    frame_put(&b, FRAME_SETTINGS, FRAME_ACK, 0, NULL, 0);
    send_bytes(o, c, &b);
    hw_buf_free(&b);
}

static void put_request(struct hw_buf *out, uint32_t id, const char *path)
{
    struct hw_buf b = {0};
    frame_put_header(&b, ":method", "POST");
    frame_put_header(&b, ":scheme", "http");
    frame_put_header(&b, ":path", path);
    frame_put_header(&b, ":authority", "f");
    frame_put_header(&b, "content-type", "application/grpc");
    frame_put(out, FRAME_HEADERS, FRAME_END_HEADERS, id, b.data, b.len);
    hw_buf_free(&b);
}

static void call_forwarded(struct hw_buf *out, uint32_t id, const char *path, const uint8_t *data, size_t len)
{
    Hotwarm__V1__ForwardRequest m = HOTWARM__V1__FORWARD_REQUEST__INIT;
    struct hw_buf b = {0};
    m.method = (char *)path;
    m.payload = (ProtobufCBinaryData){len, (uint8_t *)data};
    hw_assert(hw_buf_reserve(&b, hotwarm__v1__forward_request__get_packed_size(&m)) == 0);
    b.len = hotwarm__v1__forward_request__pack(&m, b.data);
    put_request(out, id, "/hotwarm.v1.Peer/Forward");
    frame_put_message(out, id, b.data, b.len, true);
    hw_buf_free(&b);
}

static void reset_last(struct others *o)
{
    static const uint8_t cancel[4] = {0, 0, 0, 8};
    struct hw_buf b = {0};
    if (o->last != NULL && o->last->next_id > 1) {
        frame_put(&b, FRAME_RST_STREAM, 0, o->last->next_id - 2, cancel, sizeof cancel);
        send_bytes(o, o->last, &b);
    }
    hw_buf_free(&b);
}

static void call(struct others *o, const char *path, unsigned flags, const uint8_t *data, size_t len)
{
    bool is_forwarded = (flags & CALL_FORWARDED) != 0;
    bool is_peer = is_forwarded || strncmp(path, "/hotwarm.v1.Peer/", 17) == 0;
    bool goes_on = (flags & CALL_GOES_ON) && o->last != NULL && o->last->next_id > 1;
    struct connection *c = goes_on ? o->last : is_peer ? &o->peer : &o->client;
    struct hw_buf b = {0};
    if (goes_on) {
        frame_put_message(&b, c->next_id - 2, data, len, (flags & CALL_HALF_CLOSE) != 0);
    } else {
        connection_open(o, c);
        if (is_forwarded) {
            call_forwarded(&b, c->next_id, path, data, len);
        } else {
            put_request(&b, c->next_id, path);
            frame_put_message(&b, c->next_id, data, len, (flags & CALL_HALF_CLOSE) != 0);
        }
        c->next_id += 2;
        o->last = c;
    }
    send_bytes(o, c, &b);
    hw_buf_free(&b);
}

static void raw(struct others *o, bool is_peer, const uint8_t *data, size_t len)
{
    struct hw_stream *s = connect(o, is_peer);
    for (size_t at = 0; at < len && is_alive(o->node, s);) {
        size_t step = len - at > 3 && at < 6 ? 3 : len - at; /* the start in pieces: the port decides by it */
        seam_receive(s, data + at, step);
        turn(o->node);
        at += step;
    }
}

static void play(struct others *o, struct hw_reader *r)
{
    for (unsigned i = 0; i < RECORDS_MAX && hw_reader_left(r) >= 4; i++) {
        uint8_t method = hw_reader_u8(r);
        uint8_t flags = hw_reader_u8(r);
        size_t len = hw_reader_u8(r);
        len |= (size_t)hw_reader_u8(r) << 8;
        len = len < hw_reader_left(r) ? len : hw_reader_left(r);
        if (flags & CALL_RESET) {
            reset_last(o);
        }
        if (flags & (CALL_LATER | CALL_MUCH_LATER)) {
            seam_advance(o->node->loop, flags & CALL_MUCH_LATER ? 5000 : 100);
            turn(o->node);
        }
        if (flags & CALL_RAW) {
            raw(o, method & 1, r->pos, len);
        } else {
            call(o, service_paths[method % hw_array_len(service_paths)], flags, r->pos, len);
        }
        r->pos += len;
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return hw_log_configure("error");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hw_reader r;
    struct node n;
    struct others o = {.node = &n, .client.next_id = 1, .peer = {.is_peer = true, .next_id = 1}};
    struct node_setup setup = {.data = "/nonexistent"};
    if (size < 5) {
        return 0;
    }
    setup.is_hot = (data[0] & MODE_WARM) == 0;
    setup.is_full = (data[0] & MODE_FULL) != 0;
    setup.is_empty = (data[0] & MODE_EMPTY) != 0;
    o.is_stuck = (data[0] & MODE_STUCK) != 0;
    hw_reader_init(&r, data + 1, size - 1);
    node_open(&n, &setup);
    play(&o, &r);
    turn(&n);
    seam_advance(n.loop, 100);
    turn(&n);
    if (data[0] & MODE_CUT_ALL) {
        node_cut_all(&n);
    }
    node_close(&n);
    return 0;
}
