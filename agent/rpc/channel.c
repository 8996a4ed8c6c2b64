#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/rpc/client.h"

#define BACKOFF_MS_MIN 20u
#define BACKOFF_MS_MAX 1000u
#define CONNECT_MS 2000u
#define HANDSHAKE_MS 2000u
/* Our own loop may have been late: what the kernel holds is read before the peer is given up. */
#define LAST_CHANCE_MS 20u

/* Life of a channel.
 *
 *     IDLE ──call, or keep──▶ CONNECTING ──TCP, SETTINGS──▶ UP
 *     CONNECTING, UP ──refused, lost, silent, GOAWAY──▶ BACKOFF ──time──▶ CONNECTING
 *     BACKOFF, CONNECTING, UP ──lost, and nobody waits──▶ IDLE
 */

static void connect_now(struct hw_channel *channel);

bool hw_rpc_channel_is_failing(const struct hw_channel *channel)
{
    return channel->failures > 0 && channel->state != HW_CHANNEL_UP && channel->state != HW_CHANNEL_IDLE;
}

static void backoff_start(struct hw_channel *channel)
{
    unsigned shift = channel->failures > 1 ? channel->failures - 1 : 0;
    uint64_t ms = shift < 6 ? BACKOFF_MS_MIN << shift : BACKOFF_MS_MAX;
    ms = ms < BACKOFF_MS_MAX ? ms : BACKOFF_MS_MAX;
    /* 80 to 120 %: the nodes of a cluster must not come in step. */
    ms = ms * 4 / 5 + hw_rng_below(&channel->rng, ms * 2 / 5 + 1);
    channel->state = HW_CHANNEL_BACKOFF;
    hw_timer_start(channel->backoff, ms, 0);
}

/* The current connection, or the attempt at one, is over. */
static void went_down(struct hw_channel *channel, int status, const char *why)
{
    channel->current = NULL;
    channel->is_pinging = false;
    channel->is_suspect = false;
    if (channel->is_freed) {
        channel->state = HW_CHANNEL_IDLE;
        return;
    }
    hw_timer_stop(channel->keepalive);
    if (channel->failures < 1000) {
        channel->failures++;
    }
    snprintf(channel->why, sizeof channel->why, "%s: %.120s", channel->address, why);
    backoff_start(channel);
    hw_rpc_client_fail_waiting(channel, true, HW_GRPC_UNAVAILABLE, channel->why);
    if (!channel->is_kept && channel->waiting_count == 0) {
        hw_timer_stop(channel->backoff);
        channel->state = HW_CHANNEL_IDLE;
    }
    if (channel->ops.on_down != NULL) {
        channel->ops.on_down(channel->ctx, status);
    }
}

/* ---- the connection ---- */

static void on_up(void *ctx)
{
    struct hw_rpc_link *link = ctx;
    struct hw_channel *channel = link->channel;
    if (channel->current != link) {
        return;
    }
    channel->state = HW_CHANNEL_UP;
    channel->failures = 0;
    channel->is_suspect = false;
    if (channel->limits.ping_ms != 0) {
        hw_timer_start(channel->keepalive, channel->limits.ping_ms, 0);
    } else {
        hw_timer_stop(channel->keepalive);
    }
    if (channel->ops.on_up != NULL) {
        channel->ops.on_up(channel->ctx);
    }
    hw_rpc_client_pump(channel);
}

static void on_goaway(void *ctx)
{
    struct hw_rpc_link *link = ctx;
    if (link->channel->current == link) {
        went_down(link->channel, HW_ERR_CLOSED, "the peer is going away");
    }
}

static void on_protocol_error(void *ctx)
{
    struct hw_rpc_link *link = ctx;
    hw_log_debug("rpc", "a server broke the protocol", "address=%s", link->channel->address);
}

static void on_end(void *ctx, int status)
{
    struct hw_rpc_link *link = ctx;
    struct hw_channel *channel = link->channel;
    hw_assert(link->stream_count == 0);
    TAILQ_REMOVE(&channel->links, link, link);
    if (channel->current == link) {
        went_down(channel, status != 0 ? status : HW_ERR_CLOSED,
                  status != 0 ? hw_err_text(status) : "the peer closed the connection");
    }
    free(link);
    hw_rpc_channel_release(channel);
}

static struct hw_h2_stream *on_open(void *ctx)
{
    (void)ctx;
    return NULL;
}

const struct hw_h2_ops hw_rpc_client_h2_ops = {
    .on_open = on_open,
    .on_header = hw_rpc_client_header,
    .on_headers = hw_rpc_client_headers,
    .on_message = hw_rpc_client_message,
    .on_bad_message = hw_rpc_client_bad_message,
    .on_half_close = hw_rpc_client_half_close,
    .on_close = hw_rpc_client_close,
    .on_drain = hw_rpc_client_drain,
    .on_up = on_up,
    .on_goaway = on_goaway,
    .on_protocol_error = on_protocol_error,
    .on_end = on_end,
};

static void drop_data(void *ctx, const uint8_t *data, size_t len)
{
    (void)ctx;
    (void)data;
    (void)len;
}

static void drop_end(void *ctx, int status)
{
    (void)ctx;
    (void)status;
}

static void drop(struct hw_stream *stream)
{
    static const struct hw_stream_ops ops = {drop_data, drop_end, NULL};
    hw_stream_own(stream, &ops, NULL);
    hw_stream_close(stream);
}

static int link_new(struct hw_channel *channel, struct hw_stream *stream)
{
    struct hw_rpc_link *link = calloc(1, sizeof *link);
    int rc;
    if (link == NULL) {
        return HW_ERR_NOMEM;
    }
    link->channel = channel;
    rc = hw_h2_new(false, stream, &channel->limits, &hw_rpc_client_h2_ops, link, &link->h2);
    if (rc != 0) {
        free(link);
        return rc;
    }
    TAILQ_INSERT_TAIL(&channel->links, link, link);
    channel->current = link;
    return 0;
}

static void on_connected(struct hw_connect *c, int status, struct hw_stream *stream)
{
    struct hw_channel *channel = hw_container_of(c, struct hw_channel, connect);
    unsigned handshake_ms = channel->limits.ping_timeout_ms;
    channel->is_tcp_pending = false;
    if (channel->is_freed) {
        if (status == 0) {
            drop(stream);
        }
        hw_rpc_channel_release(channel);
        return;
    }
    if (status == 0) {
        status = link_new(channel, stream);
        if (status != 0) {
            hw_error_set(&c->e, status, "out of memory");
            drop(stream);
        }
    }
    if (status != 0) {
        went_down(channel, status, hw_error_text(&c->e));
        return;
    }
    hw_timer_start(channel->keepalive, handshake_ms != 0 ? handshake_ms : HANDSHAKE_MS, 0);
}

static void connect_now(struct hw_channel *channel)
{
    int rc;
    channel->state = HW_CHANNEL_CONNECTING;
    channel->connect = (struct hw_connect){0};
    rc = hw_connect_start(channel->loop, channel->resolver, &channel->connect, channel->address, CONNECT_MS,
                          on_connected);
    if (rc == 0) {
        channel->is_tcp_pending = true;
    } else {
        /* The resolver's queue is full: as good as unreachable for now. Nobody is told within a call of theirs. */
        channel->failures++;
        snprintf(channel->why, sizeof channel->why, "%s: %s", channel->address, hw_err_text(rc));
        backoff_start(channel);
    }
}

static void on_backoff(void *ctx)
{
    connect_now(ctx);
}

void hw_rpc_channel_want(struct hw_channel *channel)
{
    if (channel->state == HW_CHANNEL_IDLE && !channel->is_freed) {
        channel->failures = 0;
        connect_now(channel);
    }
}

/* ---- keep-alive ---- */

static void give_up(struct hw_channel *channel, const char *why)
{
    struct hw_rpc_link *link = channel->current;
    went_down(channel, HW_ERR_TIMEOUT, why);
    hw_h2_close(link->h2);
}

static void on_keepalive(void *ctx)
{
    struct hw_channel *channel = ctx;
    uint64_t now_ms = hw_loop_now_ms(channel->loop);
    uint64_t read_ms = hw_h2_last_read_ms(channel->current->h2);
    if (channel->is_pinging && read_ms >= channel->ping_at_ms) {
        channel->is_pinging = false;
        channel->is_suspect = false;
    }
    if (channel->is_pinging || channel->state == HW_CHANNEL_CONNECTING) {
        if (channel->is_suspect) {
            give_up(channel, "the peer does not answer");
        } else {
            channel->is_suspect = true;
            hw_timer_start(channel->keepalive, LAST_CHANCE_MS, 0);
        }
        return;
    }
    if (now_ms - read_ms < channel->limits.ping_ms) {
        hw_timer_start(channel->keepalive, channel->limits.ping_ms - (now_ms - read_ms), 0);
        return;
    }
    channel->is_pinging = true;
    channel->is_suspect = false;
    channel->ping_at_ms = now_ms;
    hw_h2_ping(channel->current->h2);
    hw_timer_start(channel->keepalive, channel->limits.ping_timeout_ms, 0);
}

/* ---- life ---- */

int hw_channel_new(struct hw_loop *loop, struct hw_pool *resolver, const char *address,
                   const struct hw_rpc_limits *limits, const struct hw_channel_ops *ops, void *ctx,
                   struct hw_channel **out)
{
    struct hw_channel *channel;
    char host[256];
    char port[16];
    int rc = hw_address_split(address, host, sizeof host, port, sizeof port, NULL);
    if (rc != 0) {
        return rc;
    }
    channel = calloc(1, sizeof *channel);
    if (channel == NULL) {
        return HW_ERR_NOMEM;
    }
    channel->address = strdup(address);
    if (channel->address == NULL) {
        free(channel);
        return HW_ERR_NOMEM;
    }
    channel->loop = loop;
    channel->resolver = resolver;
    if (limits != NULL) {
        channel->limits = *limits;
    } else {
        hw_rpc_limits_default(&channel->limits);
    }
    channel->ops = ops != NULL ? *ops : (struct hw_channel_ops){0};
    channel->ctx = ctx;
    hw_rng_seed(&channel->rng, hw_random_u64());
    TAILQ_INIT(&channel->links);
    TAILQ_INIT(&channel->waiting);
    TAILQ_INIT(&channel->ending);
    SLIST_INIT(&channel->spare);
    hw_deadlines_init(&channel->deadlines, loop, "rpc channel deadlines", hw_rpc_client_due);
    channel->backoff = hw_timer_new(loop, "rpc channel back-off", on_backoff, channel);
    channel->keepalive = hw_timer_new(loop, "rpc channel keep-alive", on_keepalive, channel);
    hw_defer_init(&channel->end, hw_rpc_client_run_ending);
    *out = channel;
    return 0;
}

void hw_channel_keep(struct hw_channel *channel)
{
    channel->is_kept = true;
    hw_rpc_channel_want(channel);
}

bool hw_channel_is_up(const struct hw_channel *channel)
{
    return channel->state == HW_CHANNEL_UP && hw_h2_is_open(channel->current->h2);
}

const char *hw_channel_address(const struct hw_channel *channel)
{
    return channel->address;
}

void hw_rpc_channel_release(struct hw_channel *channel)
{
    struct hw_rpc_call *call;
    if (!channel->is_freed || channel->is_tcp_pending || channel->call_count > 0 || !TAILQ_EMPTY(&channel->links)) {
        return;
    }
    hw_defer_cancel(channel->loop, &channel->end);
    while ((call = SLIST_FIRST(&channel->spare)) != NULL) {
        SLIST_REMOVE_HEAD(&channel->spare, free_link);
        hw_rpc_client_call_free(call);
    }
    free(channel->address);
    free(channel);
}

void hw_channel_free(struct hw_channel *channel)
{
    struct hw_rpc_link *link;
    if (channel == NULL) {
        return;
    }
    hw_assert(!channel->is_freed);
    hw_rpc_client_cancel_all(channel);
    channel->is_freed = true;
    hw_timer_free(channel->backoff);
    hw_timer_free(channel->keepalive);
    hw_deadlines_close(&channel->deadlines);
    if (channel->is_tcp_pending) {
        hw_connect_cancel(&channel->connect);
    }
    TAILQ_FOREACH(link, &channel->links, link) {
        hw_h2_close(link->h2);
    }
    /* Also when nothing is left: this may run inside one of our own callbacks, which goes on with the channel. */
    hw_defer_post(channel->loop, &channel->end);
}
