#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "tests/unit/agent/rpc/rig.h"

/* A listener outside the loop; accept by hand. */
static int listen_raw(char address[64])
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    hw_assert(bind(fd, (struct sockaddr *)&in, sizeof in) == 0 && listen(fd, 16) == 0);
    getsockname(fd, (struct sockaddr *)&in, &len);
    snprintf(address, 64, "127.0.0.1:%u", (unsigned)ntohs(in.sin_port));
    return fd;
}

static int accept_raw(struct rpc_rig *rig, int fd)
{
    int peer = -1;
    for (int i = 0; i < 500 && peer < 0; i++) {
        rpc_rig_turns(rig, 2);
        peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    hw_assert(peer >= 0);
    return peer;
}

static void open_to(struct rpc_rig *rig, const char *address, const struct hw_rpc_limits *limits)
{
    rpc_rig_open(rig, limits);
    hw_channel_free(rig->channel);
    rpc_rig_channel_start(rig, address);
}

static void an_address_without_a_port_is_refused(void)
{
    struct rpc_rig rig;
    struct hw_channel *channel;
    rpc_rig_open(&rig, NULL);
    CHECK(hw_channel_new(rig.loop, rig.pool, "localhost", &rig.limits, NULL, NULL, &channel) != 0);
    rpc_rig_close(&rig);
}

static void a_kept_channel_connects_by_itself(void)
{
    struct rpc_rig rig;
    rpc_rig_open(&rig, NULL);
    CHECK(!hw_channel_is_up(rig.channel));
    hw_channel_keep(rig.channel);
    CHECK(rpc_rig_until_count(&rig, &rig.ups, 1, 2000));
    CHECK(hw_channel_is_up(rig.channel));
    CHECK_STR(hw_channel_address(rig.channel), rig.address);
    rpc_rig_close(&rig);
}

static void a_lost_server_is_told_at_once_and_found_again(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    struct rpc_probe q;
    char address[64];
    uint64_t lost_ms;
    rpc_rig_open(&rig, NULL);
    snprintf(address, sizeof address, "%s", rig.address);
    hw_channel_keep(rig.channel);
    CHECK(rpc_rig_until_count(&rig, &rig.ups, 1, 2000));
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Hold", "x", 0), 0);
    CHECK(rpc_rig_until_count(&rig, &rig.held_count, 1, 2000));
    lost_ms = hw_mono_ms();
    hw_listener_free(rig.listener);
    hw_rpc_server_free(rig.server); /* closes without a word, as the kernel does for a dead process */
    CHECK(rpc_rig_until_count(&rig, &rig.downs, 1, 2000));
    CHECK(hw_mono_ms() - lost_ms < 100);
    CHECK(p.is_done);
    CHECK_EQ(p.status, HW_GRPC_UNAVAILABLE);
    CHECK(strstr(p.text, address) != NULL);
    /* A call that waits, over a few refused attempts, for the server's return. */
    CHECK_EQ(rpc_probe_start(&q, rig.channel, "Echo", "again", 5000), 0);
    rpc_rig_turns(&rig, 100);
    CHECK(!q.is_done);
    CHECK(rig.downs >= 3);
    rpc_rig_server_start(&rig, address);
    CHECK(rpc_rig_until(&rig, &q.is_done, 3000));
    CHECK_EQ(q.status, HW_GRPC_OK);
    CHECK_EQ(rig.ups, 2);
    rpc_probe_free(&q);
    rpc_rig_close(&rig);
}

static void a_fail_fast_call_does_not_wait(void)
{
    struct rpc_rig rig;
    struct rpc_probe p = {.r.ops = &rpc_probe_ops};
    struct rpc_probe q = {.r.ops = &rpc_probe_ops};
    char address[64];
    int fd = listen_raw(address);
    close(fd); /* refused from now on */
    open_to(&rig, address, NULL);
    CHECK_EQ(hw_request_start(rig.channel, &p.r, "/t.T/Echo", NULL, 5000, true, hw_slice_str("x"), true), 0);
    CHECK(rpc_rig_until(&rig, &p.is_done, 1000));
    CHECK_EQ(p.status, HW_GRPC_UNAVAILABLE);
    CHECK_EQ(rig.downs, 1);
    hw_channel_keep(rig.channel);
    CHECK(rpc_rig_until_count(&rig, &rig.downs, 2, 1000));
    CHECK_EQ(hw_request_start(rig.channel, &q.r, "/t.T/Echo", NULL, 5000, true, hw_slice_str("x"), true), 0);
    CHECK(!q.is_done);
    CHECK(rpc_rig_until(&rig, &q.is_done, 1000));
    CHECK_EQ(q.status, HW_GRPC_UNAVAILABLE);
    rpc_rig_close(&rig);
}

static void a_waiting_call_keeps_its_deadline(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    char address[64];
    int fd = listen_raw(address);
    close(fd);
    open_to(&rig, address, NULL);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Echo", "x", 80), 0);
    CHECK(rpc_rig_until(&rig, &p.is_done, 1000));
    CHECK_EQ(p.status, HW_GRPC_DEADLINE_EXCEEDED);
    rpc_rig_close(&rig);
}

static void attempts_are_spread_out(void)
{
    struct rpc_rig rig;
    char address[64];
    int fd = listen_raw(address);
    close(fd);
    open_to(&rig, address, NULL);
    hw_channel_keep(rig.channel);
    rpc_rig_turns(&rig, 600);
    /* 20, 40, 80, 160, 320 ms, each +-20 %. */
    CHECK(rig.downs >= 4 && rig.downs <= 7);
    CHECK(rig.down_status != 0);
    rpc_rig_close(&rig);
}

static void a_silent_listener_is_given_up(void)
{
    struct hw_rpc_limits limits;
    struct rpc_rig rig;
    struct rpc_probe p = {.r.ops = &rpc_probe_ops};
    char address[64];
    int fd = listen_raw(address);
    hw_rpc_limits_default(&limits);
    limits.ping_timeout_ms = 100;
    open_to(&rig, address, &limits);
    CHECK_EQ(hw_request_start(rig.channel, &p.r, "/t.T/Echo", NULL, 5000, true, hw_slice_str("x"), true), 0);
    CHECK(rpc_rig_until_count(&rig, &rig.downs, 1, 1000));
    CHECK_EQ(rig.down_status, HW_ERR_TIMEOUT);
    CHECK_EQ(rig.ups, 0);
    CHECK(rpc_rig_until(&rig, &p.is_done, 1000));
    CHECK_EQ(p.status, HW_GRPC_UNAVAILABLE);
    rpc_rig_close(&rig);
    close(fd);
}

/* Up once, then silent: only the ping can tell. */
static void a_half_open_peer_is_found_by_ping(void)
{
    struct hw_rpc_limits limits;
    struct rpc_rig rig;
    struct rpc_probe p;
    struct hw_buf in = {0};
    char address[64];
    int fd = listen_raw(address);
    int peer;
    unsigned pings;
    hw_rpc_limits_default(&limits);
    limits.ping_ms = 50;
    limits.ping_timeout_ms = 100;
    open_to(&rig, address, &limits);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Echo", "x", 0), 0);
    peer = accept_raw(&rig, fd);
    rpc_raw_frame(peer, 4, 0, 0, NULL, 0);
    CHECK(rpc_rig_until_count(&rig, &rig.ups, 1, 1000));
    CHECK(rpc_rig_until_count(&rig, &rig.downs, 1, 1000));
    CHECK_EQ(rig.down_status, HW_ERR_TIMEOUT);
    rpc_rig_turns(&rig, 5);
    CHECK(p.is_done);
    CHECK_EQ(p.status, HW_GRPC_UNAVAILABLE);
    {
        char preface[24];
        CHECK_EQ(recv(peer, preface, sizeof preface, 0), 24);
    }
    rpc_raw_read(&rig, peer, &in, 50);
    rpc_raw_find(&in, 6, 0, &pings);
    CHECK_EQ(pings, 1);
    hw_buf_free(&in);
    close(peer);
    close(fd);
    rpc_rig_close(&rig);
}

static void a_live_connection_survives_its_pings(void)
{
    struct hw_rpc_limits limits;
    struct rpc_rig rig;
    hw_rpc_limits_default(&limits);
    limits.ping_ms = 20;
    limits.ping_timeout_ms = 50;
    rpc_rig_open(&rig, &limits);
    hw_channel_keep(rig.channel);
    rpc_rig_turns(&rig, 400);
    CHECK_EQ(rig.ups, 1);
    CHECK_EQ(rig.downs, 0);
    /* Our own loop was late: no reason to give the peer up. */
    usleep(150000);
    rpc_rig_turns(&rig, 100);
    CHECK_EQ(rig.downs, 0);
    rpc_rig_close(&rig);
}

static void a_free_ends_calls_in_flight_and_waiting(void)
{
    struct hw_rpc_limits limits;
    struct rpc_rig rig;
    struct rpc_probe all[8];
    hw_rpc_limits_default(&limits);
    limits.streams_max = 4;
    rpc_rig_open(&rig, &limits);
    for (int i = 0; i < 8; i++) {
        CHECK_EQ(rpc_probe_start(&all[i], rig.channel, "Hold", "x", 1000), 0);
    }
    CHECK(rpc_rig_until_count(&rig, &rig.held_count, 4, 2000));
    hw_channel_free(rig.channel);
    rig.channel = NULL;
    for (int i = 0; i < 8; i++) {
        CHECK(!all[i].is_done);
    }
    for (int i = 0; i < 8; i++) {
        CHECK(rpc_rig_until(&rig, &all[i].is_done, 1000));
        CHECK_EQ(all[i].status, HW_GRPC_CANCELLED);
        CHECK_EQ(all[i].ends, 1);
    }
    CHECK(rpc_rig_until_count(&rig, &rig.cancels, 4, 1000));
    rpc_rig_close(&rig);
}

static void a_free_while_connecting_is_clean(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Echo", "x", 0), 0);
    hw_channel_free(rig.channel);
    rig.channel = NULL;
    CHECK(rpc_rig_until(&rig, &p.is_done, 1000));
    CHECK_EQ(p.status, HW_GRPC_CANCELLED);
    rpc_rig_close(&rig);
}

/* Everything an owner may do inside on_end. */
struct chain {
    struct rpc_probe p;
    struct rpc_rig *rig;
    int left;
};

static void chain_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct chain *c = hw_container_of(r, struct chain, p.r);
    (void)text;
    c->p.ends++;
    c->p.status = status;
    if (--c->left > 0) {
        CHECK_EQ(hw_request_start(c->rig->channel, r, "/t.T/Echo", NULL, 1000, false, hw_slice_str("x"), true), 0);
        return;
    }
    hw_channel_free(c->rig->channel);
    c->rig->channel = NULL;
    c->p.is_done = true;
}

static void on_end_may_start_calls_and_free_the_channel(void)
{
    static const struct hw_request_ops ops = {NULL, chain_end, NULL};
    struct rpc_rig rig;
    struct chain c = {.p.r.ops = &ops, .rig = &rig, .left = 20};
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(hw_request_start(rig.channel, &c.p.r, "/t.T/Echo", NULL, 1000, false, hw_slice_str("x"), true), 0);
    CHECK(rpc_rig_until(&rig, &c.p.is_done, 3000));
    CHECK_EQ(c.p.ends, 20);
    CHECK_EQ(c.p.status, HW_GRPC_OK);
    rpc_rig_close(&rig);
}

static void a_server_that_is_not_grpc_is_named(void)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    struct rpc_rig rig;
    struct rpc_probe p = {.r.ops = &rpc_probe_ops};
    char address[64];
    int fd = listen_raw(address);
    int peer;
    open_to(&rig, address, NULL);
    CHECK_EQ(hw_request_start(rig.channel, &p.r, "/t.T/Echo", NULL, 5000, true, hw_slice_str("x"), true), 0);
    peer = accept_raw(&rig, fd);
    rpc_raw_send(peer, answer, sizeof answer - 1);
    CHECK(rpc_rig_until(&rig, &p.is_done, 2000));
    CHECK_EQ(p.status, HW_GRPC_UNAVAILABLE);
    close(peer);
    close(fd);
    rpc_rig_close(&rig);
}

HW_SUITE(rpc_channel, HW_CASE(an_address_without_a_port_is_refused), HW_CASE(a_kept_channel_connects_by_itself),
         HW_CASE(a_lost_server_is_told_at_once_and_found_again), HW_CASE(a_fail_fast_call_does_not_wait),
         HW_CASE(a_waiting_call_keeps_its_deadline), HW_CASE(attempts_are_spread_out),
         HW_CASE(a_silent_listener_is_given_up), HW_CASE(a_half_open_peer_is_found_by_ping),
         HW_CASE(a_live_connection_survives_its_pings), HW_CASE(a_free_ends_calls_in_flight_and_waiting),
         HW_CASE(a_free_while_connecting_is_clean), HW_CASE(on_end_may_start_calls_and_free_the_channel),
         HW_CASE(a_server_that_is_not_grpc_is_named))
