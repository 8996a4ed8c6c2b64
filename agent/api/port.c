#include "agent/api/port.h"

#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "agent/base/log.h"

struct hw_sniffer {
    struct hw_port *port;
    struct hw_stream *stream;
    uint8_t bytes[HW_SNIFF_BYTES]; /* what came so far, while it is too little */
    size_t len;
    uint64_t deadline_ms;
    bool is_decided;
    TAILQ_ENTRY(hw_sniffer) link;
};

static bool is_prefix(const uint8_t *data, size_t len, const char *whole, size_t whole_len)
{
    return memcmp(data, whole, len < whole_len ? len : whole_len) == 0;
}

enum hw_sniff hw_sniff(const uint8_t *data, size_t len, bool is_peer)
{
    static const char http2[] = "PRI ";
    size_t http2_len = sizeof http2 - 1;
    if (is_prefix(data, len, http2, http2_len)) {
        return len >= http2_len ? HW_SNIFF_RPC : HW_SNIFF_MORE;
    }
    if (!is_peer) {
        return HW_SNIFF_HTTP;
    }
    if (is_prefix(data, len, HW_PEER_MAGIC, HW_PEER_MAGIC_LEN)) {
        return len >= HW_PEER_MAGIC_LEN ? HW_SNIFF_RAFT : HW_SNIFF_MORE;
    }
    return HW_SNIFF_CLOSE;
}

static void sniffer_end(struct hw_sniffer *s)
{
    if (!s->is_decided) {
        TAILQ_REMOVE(&s->port->sniffers, s, link);
        s->port->sniffer_count--;
        s->is_decided = true;
    }
}

/* on_end frees the sniffer. */
static void sniffer_close(struct hw_sniffer *s)
{
    sniffer_end(s);
    hw_stream_close(s->stream);
}

static void hand_on(struct hw_sniffer *s, enum hw_sniff what)
{
    struct hw_api *api = s->port->api;
    struct hw_stream *stream = s->stream;
    bool is_peer = s->port->is_peer;
    sniffer_end(s);
    free(s);
    if (what == HW_SNIFF_RPC) {
        hw_rpc_server_accept(is_peer ? api->peer_rpc : api->client_rpc, stream);
    } else if (what == HW_SNIFF_HTTP) {
        hw_http_server_accept(api->http, stream);
    } else {
        hw_consensus_accept(hw_replica_consensus(api->replica), stream);
    }
}

static int give_back(struct hw_sniffer *s, const uint8_t *data, size_t len)
{
    struct hw_buf all;
    int rc;
    if (s->len == 0) {
        return hw_stream_unread(s->stream, data, len);
    }
    hw_buf_init(&all);
    hw_buf_append(&all, s->bytes, s->len);
    hw_buf_append(&all, data, len);
    rc = all.failed ? HW_ERR_NOMEM : hw_stream_unread(s->stream, all.data, all.len);
    hw_buf_free(&all);
    return rc;
}

static void on_data(void *ctx, const uint8_t *data, size_t len)
{
    struct hw_sniffer *s = ctx;
    struct hw_api *api = s->port->api;
    uint8_t start[HW_SNIFF_BYTES];
    size_t more = len < sizeof start - s->len ? len : sizeof start - s->len;
    enum hw_sniff what;
    if (s->is_decided) {
        return; /* being closed */
    }
    memcpy(start, s->bytes, s->len);
    memcpy(start + s->len, data, more);
    what = hw_sniff(start, s->len + more, s->port->is_peer);
    if (what == HW_SNIFF_MORE) {
        memcpy(s->bytes, start, s->len + more); /* a shorter start than HW_SNIFF_BYTES: all of data fitted */
        s->len += more;
        return;
    }
    if (what == HW_SNIFF_RAFT && (api->replica == NULL || hw_replica_consensus(api->replica) == NULL)) {
        what = HW_SNIFF_CLOSE; /* it connects again until there is one */
    }
    if (what == HW_SNIFF_CLOSE || give_back(s, data, len) != 0) {
        hw_log_debug(HW_COMPONENT, "connection closed", "peer=%s why=\"unknown protocol, or not ready\"",
                     hw_stream_peer(s->stream));
        sniffer_close(s);
        return;
    }
    hand_on(s, what);
}

static void on_end(void *ctx, int status)
{
    struct hw_sniffer *s = ctx;
    (void)status;
    sniffer_end(s);
    free(s);
}

static const struct hw_stream_ops sniffer_ops = {.on_data = on_data, .on_end = on_end};

static void on_accept(void *ctx, struct hw_stream *stream)
{
    struct hw_port *port = ctx;
    struct hw_sniffer *s = calloc(1, sizeof *s);
    if (s == NULL || port->api->is_stopping) {
        free(s);
        hw_stream_close(stream);
        return;
    }
    if (port->sniffer_count >= HW_SNIFFED_MAX) {
        sniffer_close(TAILQ_FIRST(&port->sniffers));
    }
    s->port = port;
    s->stream = stream;
    s->deadline_ms = hw_loop_now_ms(port->api->loop) + HW_SNIFF_MS;
    TAILQ_INSERT_TAIL(&port->sniffers, s, link);
    port->sniffer_count++;
    hw_stream_own(stream, &sniffer_ops, s);
}

int hw_port_open(struct hw_port *port, struct hw_api *api, const char *address, bool is_peer, struct hw_error *e)
{
    int rc;
    port->api = api;
    port->is_peer = is_peer;
    port->sniffer_count = 0;
    TAILQ_INIT(&port->sniffers);
    rc = hw_listener_new(api->loop, address, api->config.connections_max, on_accept, port, &port->listener, e);
    if (rc != 0) {
        port->listener = NULL;
        return rc;
    }
    return 0;
}

void hw_port_close(struct hw_port *port)
{
    struct hw_sniffer *s;
    hw_listener_free(port->listener);
    port->listener = NULL;
    while (port->api != NULL && (s = TAILQ_FIRST(&port->sniffers)) != NULL) {
        sniffer_close(s);
    }
}

void hw_port_tick(struct hw_port *port)
{
    uint64_t now = hw_loop_now_ms(port->api->loop);
    struct hw_sniffer *s;
    while ((s = TAILQ_FIRST(&port->sniffers)) != NULL && s->deadline_ms <= now) {
        sniffer_close(s);
    }
}
