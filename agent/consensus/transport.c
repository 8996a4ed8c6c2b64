#include <raft/uv.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/consensus/impl.h"

/* Connections between peers. A connection carries messages one way, from the side that made it; libraft reads and
 * writes it itself, with its own libuv handle. Ours is what comes before: find, connect, and a handshake that keeps
 * strangers out.
 *
 *     connecting side                              accepting side
 *     "HWRAFT1\n" u64 cluster, u64 from, u64 to,
 *     u16 length, own address              ──▶    check
 *                                          ◀──    u8 status (0: welcome), u16 length, reason
 *     detach, hand to libraft                      stop reading, detach, hand to libraft
 *
 * The connecting side sends nothing before the welcome, and the accepting side reads nothing after the hello, so that
 * no byte of libraft's can get stuck in a stream of ours. */

#define HANDSHAKE_MS 3000
#define HANDSHAKES_MAX 64
#define SWEEP_MS 100
#define REFUSAL_LOG_MS 10000
#define HELLO_FIXED (HW_PEER_MAGIC_LEN + 8 + 8 + 8 + 2)
#define ADDRESS_MAX 255
#define REASON_MAX 200
#define ANSWER_FIXED 3
/* A peer that acknowledges nothing for this long is gone: the kernel then ends the connection, and with it the queue of
 * messages that libraft keeps for it. */
#define UNACKED_MAX_MS 5000
#define KEEPALIVE_S 5

/* A recovered cluster is another one to those who were given up: they must not vote in it with what they have. */
static uint64_t wire_id(const struct hw_consensus_config *config)
{
    return config->cluster_id ^ config->recovery * UINT64_C(0x9e3779b97f4a7c15);
}

enum side { SIDE_CONNECT, SIDE_ACCEPT };

struct handshake {
    struct transport *t;
    enum side side;
    struct hw_stream *stream;
    struct hw_buf in;
    uint64_t deadline_ms;
    uint64_t peer_id;
    char peer_address[ADDRESS_MAX + 1];
    struct hw_defer handover; /* accept: once the welcome is with the kernel */
    bool is_welcomed;
    bool is_ending; /* closed or refused; on_end frees */
    /* SIDE_CONNECT */
    struct raft_uv_connect *req; /* NULL once answered */
    struct hw_connect connect;
    bool is_connecting;
    TAILQ_ENTRY(handshake) link;
};

struct refusal {
    uint64_t peer_id;
    uint64_t logged_ms;
};

struct transport {
    struct hw_consensus *c;
    struct raft_uv_transport raft;
    raft_uv_accept_cb on_accept; /* NULL: not listening */
    raft_uv_transport_close_cb on_closed;
    bool is_closing;
    TAILQ_HEAD(, handshake) handshakes;
    unsigned accepting;
    struct hw_timer *sweep;
    struct hw_defer closed;
    struct refusal refusals[HW_MEMBERS_MAX];
};

static void maybe_closed(struct transport *t)
{
    if (t->is_closing && TAILQ_EMPTY(&t->handshakes)) {
        hw_defer_post(t->c->loop, &t->closed);
    }
}

static void handshake_free(struct handshake *h)
{
    struct transport *t = h->t;
    TAILQ_REMOVE(&t->handshakes, h, link);
    t->accepting -= h->side == SIDE_ACCEPT;
    hw_defer_cancel(t->c->loop, &h->handover);
    hw_buf_free(&h->in);
    free(h);
    if (TAILQ_EMPTY(&t->handshakes)) {
        hw_timer_stop(t->sweep);
    }
    maybe_closed(t);
}

/* Tell libraft that the attempt failed; it tries again by itself. */
static void answer_failed(struct handshake *h)
{
    struct raft_uv_connect *req = h->req;
    if (req != NULL) {
        h->req = NULL;
        req->cb(req, NULL, h->t->is_closing ? RAFT_CANCELED : RAFT_NOCONNECTION);
    }
}

static void handshake_fail(struct handshake *h)
{
    if (h->is_ending) {
        return;
    }
    h->is_ending = true;
    if (h->is_connecting) {
        hw_connect_cancel(&h->connect);
    } else {
        hw_stream_close(h->stream);
    }
    answer_failed(h);
}

static void log_refusal(struct handshake *h, const char *reason)
{
    struct transport *t = h->t;
    uint64_t now_ms = hw_loop_now_ms(t->c->loop);
    struct refusal *r = &t->refusals[h->peer_id % hw_array_len(t->refusals)];
    if (r->peer_id == h->peer_id && now_ms - r->logged_ms < REFUSAL_LOG_MS) {
        return;
    }
    *r = (struct refusal){h->peer_id, now_ms};
    hw_log_warn("raft", "a peer refused our connection", "peer=%016llx address=%s reason=%s",
                (unsigned long long)h->peer_id, hw_logq(h->peer_address), hw_logq(reason));
}

/* Make the handle that libraft wants. It frees it with raft_free. */
static struct uv_stream_s *open_handle(struct transport *t, int fd)
{
    uv_tcp_t *tcp = raft_malloc(sizeof *tcp);
    int unacked = UNACKED_MAX_MS;
    if (tcp == NULL || uv_tcp_init(hw_loop_uv(t->c->loop), tcp) != 0) {
        raft_free(tcp);
        close(fd);
        return NULL;
    }
    if (uv_tcp_open(tcp, fd) != 0) {
        close(fd);
        uv_close((uv_handle_t *)tcp, (uv_close_cb)raft_free);
        return NULL;
    }
    uv_tcp_nodelay(tcp, 1);
    uv_tcp_keepalive(tcp, 1, KEEPALIVE_S);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked, sizeof unacked);
    return (struct uv_stream_s *)tcp;
}

/* Out of our stream, into libraft. */
static void hand_over(struct handshake *h)
{
    struct transport *t = h->t;
    struct uv_stream_s *handle;
    int fd;
    if (hw_stream_detach(h->stream, &fd) != 0) {
        handshake_fail(h);
        return;
    }
    h->stream = NULL;
    h->is_ending = true;
    handle = open_handle(t, fd);
    if (handle == NULL) {
        answer_failed(h);
    } else if (h->side == SIDE_CONNECT) {
        struct raft_uv_connect *req = h->req;
        h->req = NULL;
        req->cb(req, handle, 0);
    } else {
        t->on_accept(&t->raft, h->peer_id, h->peer_address, handle);
    }
    handshake_free(h);
}

static void on_end(void *ctx, int status)
{
    struct handshake *h = ctx;
    (void)status;
    h->is_ending = true;
    answer_failed(h);
    handshake_free(h);
}

/* ---- connecting ---- */

static void on_answer(void *ctx, const uint8_t *data, size_t len)
{
    struct handshake *h = ctx;
    struct hw_reader r;
    uint8_t status;
    size_t reason_len;
    char reason[REASON_MAX + 1] = "";
    if (h->is_ending) {
        return;
    }
    if (h->in.len + len > ANSWER_FIXED + REASON_MAX || hw_buf_append(&h->in, data, len) != 0) {
        handshake_fail(h);
        return;
    }
    hw_reader_init(&r, h->in.data, h->in.len);
    status = hw_reader_u8(&r);
    reason_len = hw_reader_u8(&r);
    reason_len |= (size_t)hw_reader_u8(&r) << 8;
    if (r.failed || hw_reader_left(&r) < reason_len) {
        return; /* more to come */
    }
    if (status == 0 && reason_len == 0 && hw_reader_left(&r) == 0) {
        hand_over(h);
        return;
    }
    memcpy(reason, r.pos, reason_len);
    log_refusal(h, reason);
    handshake_fail(h);
}

static const struct hw_stream_ops connect_ops = {.on_data = on_answer, .on_end = on_end};

static void on_connected(struct hw_connect *connect, int status, struct hw_stream *s)
{
    struct handshake *h = hw_container_of(connect, struct handshake, connect);
    const struct hw_consensus_config *config = &h->t->c->config;
    struct hw_buf hello = {0};
    size_t len = strlen(config->address);
    h->is_connecting = false;
    if (status != 0) {
        h->is_ending = true;
        answer_failed(h);
        handshake_free(h);
        return;
    }
    h->stream = s;
    hw_stream_own(s, &connect_ops, h);
    if (h->is_ending) {
        hw_stream_close(s);
        return;
    }
    hw_buf_append(&hello, HW_PEER_MAGIC, HW_PEER_MAGIC_LEN);
    hw_buf_put_u64(&hello, wire_id(config));
    hw_buf_put_u64(&hello, config->id);
    hw_buf_put_u64(&hello, h->peer_id);
    hw_buf_put_u8(&hello, (uint8_t)len);
    hw_buf_put_u8(&hello, (uint8_t)(len >> 8));
    hw_buf_append(&hello, config->address, len);
    if (hw_stream_write_buf(s, &hello) != 0) {
        hw_buf_free(&hello);
        handshake_fail(h);
    }
}

static void run_handover(struct hw_defer *d)
{
    struct handshake *h = hw_container_of(d, struct handshake, handover);
    if (!h->is_ending && hw_stream_queued(h->stream) == 0) {
        hand_over(h);
    } /* otherwise the sweep tries again */
}

static struct handshake *handshake_new(struct transport *t, enum side side)
{
    struct handshake *h = calloc(1, sizeof *h);
    if (h == NULL) {
        return NULL;
    }
    h->t = t;
    h->side = side;
    h->deadline_ms = hw_loop_now_ms(t->c->loop) + HANDSHAKE_MS;
    hw_defer_init(&h->handover, run_handover);
    if (TAILQ_EMPTY(&t->handshakes)) {
        hw_timer_start(t->sweep, SWEEP_MS, SWEEP_MS);
    }
    TAILQ_INSERT_TAIL(&t->handshakes, h, link);
    t->accepting += side == SIDE_ACCEPT;
    return h;
}

/* libraft goes on dialling servers that were taken out of the configuration. */
static bool is_stranger(const struct hw_consensus *c, uint64_t id)
{
    const struct raft_configuration *conf = &c->raft->configuration;
    for (unsigned i = 0; i < conf->n; i++) {
        if (conf->servers[i].id == id) {
            return false;
        }
    }
    return conf->n > 0;
}

static int do_connect(struct raft_uv_transport *rt, struct raft_uv_connect *req, raft_id id, const char *address,
                      raft_uv_connect_cb cb)
{
    struct transport *t = rt->impl;
    struct handshake *h;
    if (t->is_closing || strlen(address) > ADDRESS_MAX || is_stranger(t->c, id)) {
        return RAFT_NOCONNECTION;
    }
    h = handshake_new(t, SIDE_CONNECT);
    if (h == NULL) {
        return RAFT_NOMEM;
    }
    h->peer_id = id;
    memcpy(h->peer_address, address, strlen(address) + 1);
    if (hw_connect_start(t->c->loop, t->c->pool, &h->connect, address, HANDSHAKE_MS, on_connected) != 0) {
        log_refusal(h, hw_error_text(&h->connect.e));
        handshake_free(h);
        return RAFT_NOCONNECTION;
    }
    h->is_connecting = true;
    h->req = req;
    req->cb = cb;
    return 0;
}

/* ---- accepting ---- */

static void refuse(struct handshake *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void refuse(struct handshake *h, const char *fmt, ...)
{
    char reason[REASON_MAX + 1];
    uint8_t head[ANSWER_FIXED];
    va_list ap;
    size_t len;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof reason, fmt, ap);
    va_end(ap);
    len = strlen(reason);
    head[0] = 1;
    head[1] = (uint8_t)len;
    head[2] = (uint8_t)(len >> 8);
    h->is_ending = true;
    hw_stream_pause(h->stream, true);
    hw_log_debug("raft", "refused a peer", "from=%s reason=%s", hw_stream_peer(h->stream), hw_logq(reason));
    if (hw_stream_write(h->stream, head, sizeof head) != 0 || hw_stream_write(h->stream, reason, len) != 0) {
        hw_stream_close(h->stream);
    } else {
        hw_stream_finish(h->stream, HANDSHAKE_MS);
    }
}

/* Is what came so far a beginning of our magic, or has it failed already? */
static bool is_magic(struct handshake *h)
{
    size_t n = h->in.len < HW_PEER_MAGIC_LEN ? h->in.len : HW_PEER_MAGIC_LEN;
    if (memcmp(h->in.data, HW_PEER_MAGIC, n) == 0) {
        return true;
    }
    if (n == HW_PEER_MAGIC_LEN && memcmp(h->in.data, HW_PEER_MAGIC, 6) == 0) {
        refuse(h, "unknown version of the peer protocol; upgrade the older of the two agents");
    } else if (n < HW_PEER_MAGIC_LEN && memcmp(h->in.data, HW_PEER_MAGIC, n < 6 ? n : 6) == 0) {
        return true;
    } else {
        refuse(h, "not the peer protocol");
    }
    return false;
}

static void check_hello(struct handshake *h, uint64_t cluster_id, uint64_t from, uint64_t to)
{
    const struct hw_consensus_config *config = &h->t->c->config;
    static const uint8_t welcome[ANSWER_FIXED];
    if (cluster_id != wire_id(config)) {
        refuse(h, "this node belongs to cluster %016llx (recovered %llu times), not to the peer's",
               (unsigned long long)config->cluster_id, (unsigned long long)HW_RECOVERY_COUNT(config->recovery));
    } else if (to != config->id) {
        refuse(h, "this is node %llu, not %llu", (unsigned long long)config->id, (unsigned long long)to);
    } else if (from == 0 || from == config->id) {
        refuse(h, "node id %llu is not a peer's", (unsigned long long)from);
    } else {
        h->peer_id = from;
        h->is_welcomed = true;
        hw_stream_pause(h->stream, true); /* what comes next is libraft's */
        if (hw_stream_write(h->stream, welcome, sizeof welcome) != 0) {
            handshake_fail(h);
            return;
        }
        hw_defer_post(h->t->c->loop, &h->handover);
    }
}

static void on_hello(void *ctx, const uint8_t *data, size_t len)
{
    struct handshake *h = ctx;
    struct hw_reader r;
    uint64_t cluster_id;
    uint64_t from;
    uint64_t to;
    size_t address_len;
    if (h->is_ending || h->is_welcomed) {
        return;
    }
    if (h->in.len + len > HELLO_FIXED + ADDRESS_MAX) {
        refuse(h, "the hello is too long");
        return;
    }
    if (hw_buf_append(&h->in, data, len) != 0) {
        handshake_fail(h);
        return;
    }
    if (!is_magic(h) || h->in.len < HELLO_FIXED) {
        return;
    }
    hw_reader_init(&r, h->in.data + HW_PEER_MAGIC_LEN, h->in.len - HW_PEER_MAGIC_LEN);
    cluster_id = hw_reader_u64(&r);
    from = hw_reader_u64(&r);
    to = hw_reader_u64(&r);
    address_len = hw_reader_u8(&r);
    address_len |= (size_t)hw_reader_u8(&r) << 8;
    if (address_len == 0 || address_len > ADDRESS_MAX || hw_reader_left(&r) > address_len) {
        refuse(h, "the hello is malformed");
    } else if (hw_reader_left(&r) == address_len) {
        memcpy(h->peer_address, r.pos, address_len);
        if (memchr(h->peer_address, 0, address_len) != NULL) {
            refuse(h, "the hello is malformed");
        } else {
            check_hello(h, cluster_id, from, to);
        }
    }
}

static const struct hw_stream_ops accept_ops = {.on_data = on_hello, .on_end = on_end};

/* A stream that nobody wants still needs an owner until it is gone. */
static void ignore_data(void *ctx, const uint8_t *data, size_t len)
{
    (void)ctx;
    (void)data;
    (void)len;
}

static void ignore_end(void *ctx, int status)
{
    (void)ctx;
    (void)status;
}

static const struct hw_stream_ops ignore_ops = {.on_data = ignore_data, .on_end = ignore_end};

void transport_accept(struct transport *t, struct hw_stream *s)
{
    struct handshake *h = NULL;
    if (t != NULL && !t->is_closing && t->on_accept != NULL && t->accepting < HANDSHAKES_MAX) {
        h = handshake_new(t, SIDE_ACCEPT);
    }
    if (h == NULL) {
        hw_stream_own(s, &ignore_ops, NULL);
        hw_stream_close(s);
        return;
    }
    h->stream = s;
    hw_stream_own(s, &accept_ops, h);
}

/* ---- life ---- */

static void sweep(void *ctx)
{
    struct transport *t = ctx;
    struct handshake *h = TAILQ_FIRST(&t->handshakes);
    uint64_t now_ms = hw_loop_now_ms(t->c->loop);
    while (h != NULL) {
        struct handshake *next = TAILQ_NEXT(h, link);
        if (!h->is_ending && now_ms >= h->deadline_ms) {
            handshake_fail(h);
        } else if (h->is_welcomed && !h->is_ending) {
            hw_defer_post(t->c->loop, &h->handover);
        }
        h = next;
    }
}

static int do_init(struct raft_uv_transport *rt, raft_id id, const char *address)
{
    (void)rt;
    (void)id;
    (void)address;
    return 0;
}

static int do_listen(struct raft_uv_transport *rt, raft_uv_accept_cb cb)
{
    struct transport *t = rt->impl;
    t->on_accept = cb;
    return 0;
}

static void do_close(struct raft_uv_transport *rt, raft_uv_transport_close_cb cb)
{
    struct transport *t = rt->impl;
    struct handshake *h = TAILQ_FIRST(&t->handshakes);
    t->is_closing = true;
    t->on_accept = NULL;
    t->on_closed = cb;
    while (h != NULL) { /* freed later, each by its own end */
        struct handshake *next = TAILQ_NEXT(h, link);
        if (!h->is_ending) {
            handshake_fail(h);
        } else if (h->stream != NULL) {
            hw_stream_close(h->stream); /* a refusal being sent */
        }
        h = next;
    }
    maybe_closed(t);
}

static void run_closed(struct hw_defer *d)
{
    struct transport *t = hw_container_of(d, struct transport, closed);
    raft_uv_transport_close_cb cb = t->on_closed;
    t->on_closed = NULL;
    if (cb != NULL) {
        cb(&t->raft);
    }
}

struct transport *transport_new(struct hw_consensus *c)
{
    struct transport *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return NULL;
    }
    t->c = c;
    t->raft.version = 1;
    t->raft.impl = t;
    t->raft.init = do_init;
    t->raft.listen = do_listen;
    t->raft.connect = do_connect;
    t->raft.close = do_close;
    TAILQ_INIT(&t->handshakes);
    hw_defer_init(&t->closed, run_closed);
    t->sweep = hw_timer_new(c->loop, "peer handshakes", sweep, t);
    return t;
}

struct raft_uv_transport *transport_raft(struct transport *t)
{
    return &t->raft;
}

void transport_free(struct transport *t)
{
    if (t != NULL) {
        hw_assert(TAILQ_EMPTY(&t->handshakes));
        hw_defer_cancel(t->c->loop, &t->closed);
        hw_timer_free(t->sweep);
        free(t);
    }
}
