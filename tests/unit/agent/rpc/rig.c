#include "tests/unit/agent/rpc/rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"

/* ---- the server's methods ---- */

static void on_echo(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct rpc_rig *rig = ctx;
    const char *header = hw_call_header(call, "x-test");
    snprintf(rig->seen_header, sizeof rig->seen_header, "%s", header != NULL ? header : "");
    snprintf(rig->seen_peer, sizeof rig->seen_peer, "%s", hw_call_peer(call));
    rig->time_left_ms = hw_call_time_left_ms(call);
    hw_call_reply(call, message);
}

static void on_hold_cancel(void *data, struct hw_call *call)
{
    struct rpc_rig *rig = data;
    rig->cancels++;
    if (rig->ends_on_cancel) {
        rig->held = NULL;
        hw_call_end(call, HW_GRPC_CANCELLED, NULL);
    }
}

static void on_hold(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct rpc_rig *rig = ctx;
    (void)message;
    rig->held = call;
    rig->held_count++;
    hw_call_set_data(call, rig);
    hw_call_on_cancel(call, on_hold_cancel);
}

static void on_fail(void *ctx, struct hw_call *call, struct hw_slice message)
{
    (void)ctx;
    (void)message;
    hw_call_end(call, HW_GRPC_FAILED_PRECONDITION, "no: 100%\n\xc3\xa9");
}

struct count {
    struct rpc_rig *rig;
    unsigned left;
    size_t size;
    unsigned char *bytes;
};

static void count_end(struct count *c, struct hw_call *call)
{
    free(c->bytes);
    free(c);
    hw_call_end(call, HW_GRPC_OK, NULL);
}

static void count_cancel(void *data, struct hw_call *call)
{
    struct count *c = data;
    c->rig->cancels++;
    count_end(c, call);
}

static void count_go(void *data, struct hw_call *call)
{
    struct count *c = data;
    while (c->left > 0 && hw_call_queued(call) < 64 * 1024) {
        if (hw_call_send(call, hw_slice_of(c->bytes, c->size)) != 0) {
            return;
        }
        c->left--;
        if (hw_call_queued(call) > c->rig->queued_max) {
            c->rig->queued_max = hw_call_queued(call);
        }
    }
    if (c->left == 0) {
        count_end(c, call);
    }
}

static void count_drain(void *data, struct hw_call *call)
{
    ((struct count *)data)->rig->drains++;
    count_go(data, call);
}

/* "<messages> <bytes each>" */
static void on_count(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct count *c = calloc(1, sizeof *c);
    char text[64] = "";
    memcpy(text, message.data, message.len < 63 ? message.len : 63);
    c->rig = ctx;
    sscanf(text, "%u %zu", &c->left, &c->size);
    c->bytes = calloc(1, c->size + 1);
    hw_call_set_data(call, c);
    hw_call_on_cancel(call, count_cancel);
    hw_call_on_drain(call, count_drain);
    count_go(c, call);
}

static void bidi_open(void *ctx, struct hw_call *call)
{
    hw_call_set_data(call, ctx);
    hw_call_on_cancel(call, on_hold_cancel);
    ((struct rpc_rig *)ctx)->held = call;
}

static void bidi_message(void *ctx, struct hw_call *call, struct hw_slice message)
{
    (void)ctx;
    hw_call_send(call, message);
}

static void bidi_half_close(void *ctx, struct hw_call *call)
{
    ((struct rpc_rig *)ctx)->held = NULL;
    hw_call_end(call, HW_GRPC_OK, "bye");
}

static void sink_open(void *ctx, struct hw_call *call)
{
    (void)call;
    ((struct rpc_rig *)ctx)->sunk_bytes = 0;
}

static void sink_message(void *ctx, struct hw_call *call, struct hw_slice message)
{
    (void)call;
    ((struct rpc_rig *)ctx)->sunk_bytes += message.len;
}

static void sink_half_close(void *ctx, struct hw_call *call)
{
    char text[32];
    snprintf(text, sizeof text, "%zu", ((struct rpc_rig *)ctx)->sunk_bytes);
    hw_call_reply(call, hw_slice_str(text));
}

/* ---- the rig ---- */

static void on_accept(void *ctx, struct hw_stream *stream)
{
    hw_rpc_server_accept(((struct rpc_rig *)ctx)->server, stream);
}

void rpc_rig_server_start(struct rpc_rig *rig, const char *address)
{
    const struct hw_method methods[] = {
        {.path = "/t.T/Echo", .on_unary = on_echo, .ctx = rig},
        {.path = "/t.T/Hold", .on_unary = on_hold, .ctx = rig},
        {.path = "/t.T/Fail", .on_unary = on_fail, .ctx = rig},
        {.path = "/t.T/Count", .on_unary = on_count, .ctx = rig},
        {.path = "/t.T/Bidi",
         .on_open = bidi_open,
         .on_message = bidi_message,
         .on_half_close = bidi_half_close,
         .ctx = rig},
        {.path = "/t.T/Sink",
         .on_open = sink_open,
         .on_message = sink_message,
         .on_half_close = sink_half_close,
         .ctx = rig},
    };
    struct hw_error e = {0};
    int rc = hw_rpc_server_new(rig->loop, rig->metrics, &rig->limits, &rig->server);
    hw_assert(rc == 0);
    hw_rpc_server_add(rig->server, methods, hw_array_len(methods));
    rc = hw_listener_new(rig->loop, address, 1000, on_accept, rig, &rig->listener, &e);
    hw_assert(rc == 0);
    snprintf(rig->address, sizeof rig->address, "%s", hw_listener_address(rig->listener));
}

static void on_closed(void *ctx)
{
    ((struct rpc_rig *)ctx)->is_closed = true;
}

void rpc_rig_server_stop(struct rpc_rig *rig, uint64_t grace_ms)
{
    rig->is_closed = false;
    hw_listener_free(rig->listener);
    rig->listener = NULL;
    hw_rpc_server_shut(rig->server, grace_ms, on_closed, rig);
    CHECK(rpc_rig_until(rig, &rig->is_closed, (unsigned)grace_ms + 3000));
    hw_rpc_server_free(rig->server);
    rig->server = NULL;
}

static void on_up(void *ctx)
{
    ((struct rpc_rig *)ctx)->ups++;
}

static void on_down(void *ctx, int status)
{
    struct rpc_rig *rig = ctx;
    rig->downs++;
    rig->down_status = status;
}

void rpc_rig_channel_start(struct rpc_rig *rig, const char *address)
{
    static const struct hw_channel_ops ops = {on_up, on_down};
    int rc = hw_channel_new(rig->loop, rig->pool, address, &rig->limits, &ops, rig, &rig->channel);
    hw_assert(rc == 0);
}

static void on_tick(void *ctx)
{
    (void)ctx;
}

void rpc_rig_open(struct rpc_rig *rig, const struct hw_rpc_limits *limits)
{
    int rc;
    memset(rig, 0, sizeof *rig);
    rig->ends_on_cancel = true;
    rc = hw_loop_new(&rig->loop, NULL, 0);
    hw_assert(rc == 0);
    rc = hw_pool_new(rig->loop, "resolve", 1, 16, &rig->pool, NULL);
    hw_assert(rc == 0);
    rig->metrics = hw_metrics_new();
    hw_rpc_limits_default(&rig->limits);
    if (limits != NULL) {
        rig->limits = *limits;
    }
    rig->tick = hw_timer_new(rig->loop, "tick", on_tick, rig);
    hw_timer_start(rig->tick, 2, 2);
    rpc_rig_server_start(rig, "127.0.0.1:0");
    rpc_rig_channel_start(rig, rig->address);
}

void rpc_rig_close(struct rpc_rig *rig)
{
    hw_channel_free(rig->channel);
    hw_listener_free(rig->listener);
    hw_rpc_server_free(rig->server);
    hw_pool_shut(rig->pool, on_closed, rig);
    rig->is_closed = false;
    CHECK(rpc_rig_until(rig, &rig->is_closed, 3000));
    hw_timer_free(rig->tick);
    for (int i = 0; i < 1000 && hw_loop_turn(rig->loop, true); i++) {
    }
    hw_pool_free(rig->pool);
    hw_loop_free(rig->loop);
    hw_metrics_free(rig->metrics);
}

bool rpc_rig_until(struct rpc_rig *rig, const bool *flag, unsigned ms)
{
    uint64_t end_ms = hw_mono_ms() + ms;
    while (!*flag && hw_mono_ms() < end_ms) {
        hw_loop_turn(rig->loop, true);
    }
    return *flag;
}

bool rpc_rig_until_count(struct rpc_rig *rig, const int *value, int want, unsigned ms)
{
    uint64_t end_ms = hw_mono_ms() + ms;
    while (*value < want && hw_mono_ms() < end_ms) {
        hw_loop_turn(rig->loop, true);
    }
    return *value >= want;
}

void rpc_rig_turns(struct rpc_rig *rig, unsigned ms)
{
    const bool never = false;
    rpc_rig_until(rig, &never, ms);
}

double rpc_rig_metric(struct rpc_rig *rig, const char *sample)
{
    struct hw_buf out = {0};
    char *rest;
    double value = -1;
    hw_metrics_render(rig->metrics, &out);
    hw_buf_put_u8(&out, 0);
    rest = (char *)out.data;
    for (char *line = strtok_r(rest, "\n", &rest); line != NULL && value < 0; line = strtok_r(NULL, "\n", &rest)) {
        const char *at = line[0] != '#' ? strstr(line, sample) : NULL;
        if (at != NULL && at[strlen(sample)] == ' ') {
            value = strtod(at + strlen(sample), NULL);
        }
    }
    hw_buf_free(&out);
    return value;
}

/* ---- probes ---- */

static void probe_message(struct hw_request *r, struct hw_slice message)
{
    struct rpc_probe *p = hw_container_of(r, struct rpc_probe, r);
    p->messages++;
    p->bytes += message.len;
    hw_buf_clear(&p->last);
    hw_buf_append(&p->last, message.data, message.len);
    hw_buf_put_u8(&p->last, 0);
}

static void probe_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct rpc_probe *p = hw_container_of(r, struct rpc_probe, r);
    p->is_done = true;
    p->ends++;
    p->status = status;
    snprintf(p->text, sizeof p->text, "%s", text != NULL ? text : "");
}

static void probe_drain(struct hw_request *r)
{
    hw_container_of(r, struct rpc_probe, r)->drains++;
}

const struct hw_request_ops rpc_probe_ops = {probe_message, probe_end, probe_drain};

int rpc_probe_start(struct rpc_probe *p, struct hw_channel *channel, const char *method, const char *message,
                    uint64_t timeout_ms)
{
    char path[64];
    snprintf(path, sizeof path, "/t.T/%s", method);
    memset(p, 0, sizeof *p);
    p->r.ops = &rpc_probe_ops;
    return hw_request_start(channel, &p->r, path, NULL, timeout_ms, false, hw_slice_str(message), true);
}

void rpc_probe_free(struct rpc_probe *p)
{
    hw_buf_free(&p->last);
}

/* ---- raw sockets ---- */

int rpc_raw_connect(const char *address)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    in.sin_port = htons((uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
    rc = connect(fd, (struct sockaddr *)&in, sizeof in);
    hw_assert(fd >= 0 && rc == 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

void rpc_raw_send(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0) {
            return; /* full or closed: what the test looks at is the answer */
        }
        p += n;
        len -= (size_t)n;
    }
}

void rpc_raw_frame(int fd, uint8_t type, uint8_t flags, uint32_t id, const void *payload, size_t len)
{
    uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,       type,       flags,
                       (uint8_t)(id >> 24),  (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    rpc_raw_send(fd, head, sizeof head);
    rpc_raw_send(fd, payload, len);
}

void rpc_raw_preface(int fd)
{
    rpc_raw_send(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    rpc_raw_frame(fd, 4, 0, 0, NULL, 0);
}

static void put_header(struct hw_buf *b, const char *name, const char *value)
{
    hw_buf_put_u8(b, 0); /* literal without indexing, new name (RFC 7541 section 6.2.2), lengths below 127 */
    hw_buf_put_u8(b, (uint8_t)strlen(name));
    hw_buf_append_str(b, name);
    hw_buf_put_u8(b, (uint8_t)strlen(value));
    hw_buf_append_str(b, value);
}

void rpc_raw_headers(int fd, uint32_t id, const char *path, const char *extra_name, const char *extra_value,
                     bool end_stream)
{
    struct hw_buf b = {0};
    put_header(&b, ":method", "POST");
    put_header(&b, ":scheme", "http");
    put_header(&b, ":path", path);
    put_header(&b, ":authority", "test");
    if (extra_name == NULL || strcmp(extra_name, "content-type") != 0) {
        put_header(&b, "content-type", "application/grpc");
    }
    if (extra_name != NULL) {
        put_header(&b, extra_name, extra_value);
    }
    rpc_raw_frame(fd, 1, (uint8_t)(4 | (end_stream ? 1 : 0)), id, b.data, b.len);
    hw_buf_free(&b);
}

bool rpc_raw_read(struct rpc_rig *rig, int fd, struct hw_buf *in, unsigned ms)
{
    uint64_t end_ms = hw_mono_ms() + ms;
    while (hw_mono_ms() < end_ms) {
        uint8_t piece[65536];
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            return true;
        }
        if (n > 0) {
            hw_buf_append(in, piece, (size_t)n);
        } else {
            hw_loop_turn(rig->loop, true);
        }
    }
    return false;
}

struct hw_slice rpc_raw_find(const struct hw_buf *in, uint8_t type, uint32_t id, unsigned *count)
{
    struct hw_slice found = {NULL, SIZE_MAX};
    size_t at = 0;
    if (count != NULL) {
        *count = 0;
    }
    while (at + 9 <= in->len) {
        const uint8_t *p = in->data + at;
        size_t len = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
        uint32_t frame_id = (uint32_t)p[5] << 24 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 8 | p[8];
        if (at + 9 + len > in->len) {
            break;
        }
        if (p[3] == type && (id == UINT32_MAX || frame_id == id)) {
            if (found.data == NULL) {
                found = hw_slice_of(p + 9, len);
            }
            if (count != NULL) {
                (*count)++;
            }
        }
        at += 9 + len;
    }
    return found;
}
