/* The start of a connection of the log's, before libraft gets it: what a dialling peer says, and what an accepting one
 * answers. The first byte chooses: bit 0 which side is fuzzed, bit 1 a well-formed beginning, bits 2-3 how many bytes
 * come in one turn, bit 4 a peer that never reads, bit 5 closing halfway. */
#include <raft/uv.h>

#include "agent/base/log.h"
#include "agent/consensus/impl.h"
#include "tests/fuzz/fuzz_rpc_seam.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct uv_loop_s *hw_loop_uv(struct hw_loop *loop)
{
    (void)loop;
    hw_assert(!"no descriptor is ever handed over");
    return NULL;
}

static unsigned answers;

static void on_connected(struct raft_uv_connect *req, struct uv_stream_s *stream, int status)
{
    (void)req;
    hw_assert(stream == NULL && status != 0);
    answers++;
}

static void on_accepted(struct raft_uv_transport *t, raft_id id, const char *address, struct uv_stream_s *stream)
{
    (void)t;
    (void)id;
    (void)address;
    hw_assert(stream == NULL);
}

static void on_closed(struct raft_uv_transport *t)
{
    (void)t;
}

static bool is_alive(const struct hw_loop *loop, const struct hw_stream *s)
{
    return seam_stream_alive(loop) == s && !s->is_paused;
}

static void feed(struct hw_loop *loop, struct hw_stream *s, const uint8_t *data, size_t size, size_t step)
{
    for (size_t at = 0; at < size && is_alive(loop, s);) {
        size_t n = size - at < step ? size - at : step;
        seam_receive(s, data + at, n);
        seam_turn(loop);
        at += n;
    }
}

static void begin(struct hw_loop *loop, struct hw_stream *s, bool is_accepting)
{
    struct hw_buf b = {0};
    if (is_accepting) {
        hw_buf_append(&b, HW_PEER_MAGIC, HW_PEER_MAGIC_LEN);
        hw_buf_put_u64(&b, 9);
        hw_buf_put_u64(&b, 2);
    } else {
        hw_buf_put_u8(&b, 1);
    }
    feed(loop, s, b.data, b.len, b.len);
    hw_buf_free(&b);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return hw_log_configure("error");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t steps[] = {1u << 20, 50, 7, 1};
    static struct hw_consensus c;
    static struct raft raft;
    struct raft_uv_connect req = {0};
    struct raft_uv_transport *rt;
    struct transport *t;
    struct hw_stream *s;
    bool is_accepting;
    if (size == 0) {
        return 0;
    }
    is_accepting = (data[0] & 1) == 0;
    answers = 0;
    c.loop = seam_loop_new();
    c.raft = &raft;
    c.config.id = 1;
    c.config.cluster_id = 9;
    c.config.address = "127.0.0.1:2";
    t = transport_new(&c);
    hw_assert(t != NULL);
    rt = transport_raft(t);
    hw_assert(rt->init(rt, 1, "127.0.0.1:2") == 0 && rt->listen(rt, on_accepted) == 0);
    if (is_accepting) {
        s = seam_stream_new(c.loop);
        transport_accept(t, s);
    } else {
        hw_assert(rt->connect(rt, &req, 2, "127.0.0.1:3", on_connected) == 0);
        s = seam_connected(c.loop);
    }
    s->is_stuck = (data[0] & 16) != 0;
    seam_turn(c.loop);
    if ((data[0] & 2) && is_alive(c.loop, s)) {
        begin(c.loop, s, is_accepting);
    }
    feed(c.loop, s, data + 1, size - 1, steps[data[0] >> 2 & 3]);
    if (!(data[0] & 32)) {
        seam_advance(c.loop, 20000);
        seam_turn(c.loop);
    }
    rt->close(rt, on_closed);
    seam_turn(c.loop);
    seam_turn(c.loop);
    hw_assert(is_accepting || answers == 1);
    transport_free(t);
    seam_loop_free(c.loop);
    return 0;
}
