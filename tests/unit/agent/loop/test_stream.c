#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/rng.h"
#include "tests/unit/agent/loop/loop_test.h"

/* One owned end of a connection. */
struct side {
    struct hw_stream *s;
    struct hw_buf got;
    unsigned ends;
    bool has_ended;
    int status;
    bool has_drained;
    bool is_full; /* got has what the test waits for */
    size_t want;
    bool within; /* set around calls into the stream: no callback may come */
    void (*on_data)(struct side *side, const uint8_t *data, size_t len);
};

static void side_on_data(void *ctx, const uint8_t *data, size_t len)
{
    struct side *side = ctx;
    CHECK(!side->within);
    CHECK_EQ(side->ends, 0);
    hw_buf_append(&side->got, data, len);
    side->is_full = side->got.len >= side->want;
    if (side->on_data != NULL) {
        side->on_data(side, data, len);
    }
}

static void side_on_end(void *ctx, int status)
{
    struct side *side = ctx;
    CHECK(!side->within);
    side->ends++;
    side->has_ended = true;
    side->status = status;
    side->s = NULL;
}

static void side_on_drain(void *ctx)
{
    struct side *side = ctx;
    CHECK(!side->within);
    CHECK(hw_stream_queued(side->s) <= HW_STREAM_LOW);
    side->has_drained = true;
}

static const struct hw_stream_ops side_ops = {side_on_data, side_on_end, side_on_drain};

/* A listener whose accepted stream becomes side b; side a is connected to it, or fd is. */
struct pair {
    struct hw_loop *loop;
    struct hw_listener *listener;
    struct hw_connect connect;
    struct side a;
    struct side b;
    bool is_accepted;
    bool is_connected;
    int fd;
};

static void pair_accepted(void *ctx, struct hw_stream *s)
{
    struct pair *p = ctx;
    p->b.s = s;
    hw_stream_own(s, &side_ops, &p->b);
    p->is_accepted = true;
}

static void pair_connected(struct hw_connect *c, int status, struct hw_stream *s)
{
    struct pair *p = hw_container_of(c, struct pair, connect);
    CU_ASSERT_EQUAL_FATAL(status, 0);
    p->a.s = s;
    hw_stream_own(s, &side_ops, &p->a);
    p->is_connected = true;
}

static void pair_listen(struct pair *p)
{
    struct hw_error e = {0};
    memset(p, 0, sizeof *p);
    p->fd = -1;
    p->loop = test_loop_new();
    CU_ASSERT_EQUAL_FATAL(hw_listener_new(p->loop, "127.0.0.1:0", 8, pair_accepted, p, &p->listener, &e), 0);
}

static void pair_open(struct pair *p)
{
    pair_listen(p);
    CU_ASSERT_EQUAL_FATAL(hw_connect_start(p->loop, NULL, &p->connect, hw_listener_address(p->listener),
                                           TEST_PATIENCE_MS, pair_connected),
                          0);
    CU_ASSERT_FATAL(test_turn_until(p->loop, &p->is_connected));
    CU_ASSERT_FATAL(test_turn_until(p->loop, &p->is_accepted));
}

static void pair_open_raw(struct pair *p)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    const int small_bytes = 64 * 1024; /* so that a few megabytes are surely more than the kernel takes */
    pair_listen(p);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)strtoul(strrchr(hw_listener_address(p->listener), ':') + 1, NULL, 10));
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &small_bytes, sizeof small_bytes);
    CU_ASSERT_FATAL(connect(p->fd, (struct sockaddr *)&to, sizeof to) == 0);
    CU_ASSERT_FATAL(test_turn_until(p->loop, &p->is_accepted));
}

static void pair_close(struct pair *p)
{
    if (p->a.s != NULL) {
        hw_stream_close(p->a.s);
    }
    if (p->b.s != NULL) {
        hw_stream_close(p->b.s);
    }
    if (p->fd >= 0) {
        close(p->fd);
    }
    hw_listener_free(p->listener);
    hw_loop_free(p->loop);
    hw_buf_free(&p->a.got);
    hw_buf_free(&p->b.got);
}

static void echo(struct side *side, const uint8_t *data, size_t len)
{
    side->within = true;
    CHECK_EQ(hw_stream_write(side->s, data, len), 0);
    side->within = false;
}

static void fill(uint8_t *data, size_t len, uint64_t seed)
{
    struct hw_rng rng;
    hw_rng_seed(&rng, seed);
    for (size_t i = 0; i < len; i++) {
        data[i] = (uint8_t)hw_rng_next(&rng);
    }
}

#define BIG_BYTES (10u * 1024u * 1024u)

static void ten_megabytes_in_random_pieces_come_back_whole(void)
{
    struct pair p;
    struct hw_rng rng;
    uint8_t *data = malloc(BIG_BYTES);
    size_t sent = 0;
    REQUIRE(data != NULL);
    fill(data, BIG_BYTES, 1);
    hw_rng_seed(&rng, 2);
    pair_open(&p);
    p.b.on_data = echo;
    p.a.want = BIG_BYTES;
    while (sent < BIG_BYTES) {
        size_t n = 1 + (size_t)hw_rng_below(&rng, hw_rng_is_chance(&rng, 5) ? 300000 : 700);
        int r;
        n = n < BIG_BYTES - sent ? n : BIG_BYTES - sent;
        p.a.within = true;
        if (hw_rng_is_chance(&rng, 30)) {
            struct hw_buf b = {0};
            hw_buf_append(&b, data + sent, n);
            r = hw_stream_write_buf(p.a.s, &b);
            CHECK(b.data == NULL);
        } else {
            r = hw_stream_write(p.a.s, data + sent, n);
        }
        p.a.within = false;
        REQUIRE(r == 0);
        sent += n;
        if (hw_rng_is_chance(&rng, 10)) {
            hw_loop_turn(p.loop, false);
        }
    }
    REQUIRE(test_turn_until(p.loop, &p.a.is_full));
    CHECK_EQ(p.a.got.len, BIG_BYTES);
    CHECK(memcmp(p.a.got.data, data, BIG_BYTES) == 0);
    pair_close(&p);
    free(data);
}

static void what_is_written_in_one_turn_arrives_as_one_piece(void)
{
    struct pair p;
    char got[4096];
    pair_open_raw(&p);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(hw_stream_write(p.b.s, "0123456789", 10), 0);
    }
    CHECK_EQ(hw_stream_queued(p.b.s), 1000);
    CHECK_EQ(recv(p.fd, got, sizeof got, MSG_DONTWAIT), -1);
    hw_loop_turn(p.loop, false);
    CHECK_EQ(hw_stream_queued(p.b.s), 0);
    CHECK_EQ(recv(p.fd, got, sizeof got, 0), 1000);
    pair_close(&p);
}

static void back_pressure_shows_and_drain_comes_once_it_is_gone(void)
{
    struct pair p;
    uint8_t *data = calloc(1, 16u << 20);
    size_t left = 16u << 20;
    pair_open_raw(&p);
    CHECK_EQ(hw_stream_write(p.b.s, data, left), 0);
    test_turn_for(p.loop, 50);
    CHECK(hw_stream_queued(p.b.s) > HW_STREAM_HIGH);
    CHECK(hw_stream_queued(p.b.s) < left); /* the kernel has taken some */
    CHECK(!p.b.has_drained);
    while (left > 0) {
        ssize_t n = recv(p.fd, data, 65536, MSG_DONTWAIT);
        if (n > 0) {
            left -= (size_t)n;
        }
        hw_loop_turn(p.loop, false);
        REQUIRE(n > 0 || errno == EAGAIN);
    }
    CHECK(p.b.has_drained);
    p.b.has_drained = false;
    CHECK_EQ(hw_stream_write(p.b.s, data, 10), 0);
    test_turn_for(p.loop, 5);
    CHECK(!p.b.has_drained); /* it was never high */
    pair_close(&p);
    free(data);
}

static void a_write_beyond_write_max_is_refused_whole(void)
{
    struct pair p;
    uint8_t data[1000] = {0};
    struct hw_buf b = {0};
    pair_open_raw(&p);
    hw_stream_set_write_max(p.b.s, 2500);
    CHECK_EQ(hw_stream_write(p.b.s, data, 1000), 0);
    CHECK_EQ(hw_stream_write(p.b.s, data, 1000), 0);
    CHECK_EQ(hw_stream_write(p.b.s, data, 501), HW_ERR_EXHAUSTED);
    hw_buf_append(&b, data, 501);
    CHECK_EQ(hw_stream_write_buf(p.b.s, &b), HW_ERR_EXHAUSTED);
    CHECK_EQ(b.len, 501); /* not taken */
    CHECK_EQ(hw_stream_queued(p.b.s), 2000);
    CHECK_EQ(hw_stream_write(p.b.s, data, 500), 0);
    test_turn_for(p.loop, 2);
    CHECK_EQ(hw_stream_write_buf(p.b.s, &b), 0);
    pair_close(&p);
}

static void a_peer_that_closes_ends_the_stream_with_0(void)
{
    struct pair p;
    pair_open(&p);
    hw_stream_close(p.a.s);
    CHECK_EQ(p.a.ends, 0);
    CHECK_EQ(hw_stream_write(p.a.s, "x", 1), HW_ERR_CLOSED);
    hw_stream_close(p.a.s);
    REQUIRE(test_turn_until(p.loop, &p.a.has_ended));
    CHECK_EQ(p.a.status, HW_ERR_CANCELLED);
    REQUIRE(test_turn_until(p.loop, &p.b.has_ended));
    CHECK_EQ(p.b.status, 0);
    test_turn_for(p.loop, 5);
    CHECK_EQ(p.a.ends, 1);
    CHECK_EQ(p.b.ends, 1);
    pair_close(&p);
}

static void a_reset_ends_the_stream_with_an_error(void)
{
    struct pair p;
    struct linger now = {.l_onoff = 1};
    pair_open_raw(&p);
    setsockopt(p.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(p.fd);
    p.fd = -1;
    REQUIRE(test_turn_until(p.loop, &p.b.has_ended));
    CHECK_EQ(p.b.status, HW_ERR_CLOSED);
    pair_close(&p);
}

static void a_write_to_a_reset_peer_ends_with_an_error_not_a_signal(void)
{
    struct pair p;
    struct linger now = {.l_onoff = 1};
    pair_open_raw(&p);
    hw_stream_pause(p.b.s, true); /* so that only the writing can notice */
    setsockopt(p.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(p.fd);
    p.fd = -1;
    test_turn_for(p.loop, 5);
    CHECK(!p.b.has_ended);
    CHECK_EQ(hw_stream_write(p.b.s, "x", 1), 0);
    REQUIRE(test_turn_until(p.loop, &p.b.has_ended));
    CHECK_EQ(p.b.status, HW_ERR_CLOSED);
    pair_close(&p);
}

static void a_half_closed_peer_still_gets_the_answer(void)
{
    struct pair p;
    char got[16];
    pair_open_raw(&p);
    p.b.on_data = echo;
    CHECK_EQ(send(p.fd, "ping", 4, 0), 4);
    shutdown(p.fd, SHUT_WR);
    REQUIRE(test_turn_until(p.loop, &p.b.has_ended));
    CHECK_EQ(p.b.status, 0);
    CHECK_EQ(recv(p.fd, got, sizeof got, MSG_WAITALL), 4);
    CHECK_EQ(recv(p.fd, got, sizeof got, 0), 0);
    pair_close(&p);
}

static struct hw_defer answer_defer;
static struct side *answering;

static void answer_later(struct hw_defer *d)
{
    (void)d;
    CHECK_EQ(hw_stream_write(answering->s, "pong", 4), 0);
}

static void post_answer(struct side *side, const uint8_t *data, size_t len)
{
    (void)data;
    (void)len;
    answering = side;
    hw_defer_init(&answer_defer, answer_later);
    hw_defer_post(hw_stream_loop(side->s), &answer_defer);
}

static void an_answer_made_at_the_end_of_the_turn_still_goes_to_a_half_closed_peer(void)
{
    struct pair p;
    char got[16];
    pair_open_raw(&p);
    p.b.on_data = post_answer;
    CHECK_EQ(send(p.fd, "ping", 4, 0), 4);
    shutdown(p.fd, SHUT_WR);
    REQUIRE(test_turn_until(p.loop, &p.b.has_ended));
    CHECK_EQ(recv(p.fd, got, sizeof got, MSG_WAITALL), 4);
    CHECK(memcmp(got, "pong", 4) == 0);
    pair_close(&p);
}

static void a_half_closed_peer_that_does_not_read_is_given_up(void)
{
    struct pair p;
    uint8_t *data = calloc(1, 16u << 20);
    pair_open_raw(&p);
    CHECK_EQ(hw_stream_write(p.b.s, data, 16u << 20), 0);
    free(data);
    shutdown(p.fd, SHUT_WR);
    REQUIRE(test_turn_until(p.loop, &p.b.has_ended));
    CHECK_EQ(p.b.status, 0);
    pair_close(&p);
}

static void finish_sends_what_is_queued_first(void)
{
    struct pair p;
    uint8_t *data = malloc(4u << 20);
    fill(data, 4u << 20, 3);
    pair_open(&p);
    CHECK_EQ(hw_stream_write(p.b.s, data, 4u << 20), 0);
    CHECK_EQ(hw_stream_write(p.a.s, "not read any more", 17), 0);
    p.b.within = true;
    hw_stream_finish(p.b.s, TEST_PATIENCE_MS);
    CHECK_EQ(hw_stream_write(p.b.s, "x", 1), HW_ERR_CLOSED);
    p.b.within = false;
    REQUIRE(test_turn_until(p.loop, &p.a.has_ended));
    CHECK_EQ(p.a.status, 0);
    CHECK_EQ(p.a.got.len, 4u << 20);
    CHECK(memcmp(p.a.got.data, data, p.a.got.len) == 0);
    REQUIRE(test_turn_until(p.loop, &p.b.has_ended));
    CHECK_EQ(p.b.status, 0);
    CHECK_EQ(p.b.got.len, 0);
    pair_close(&p);
    free(data);
}

static void finish_gives_up_at_its_deadline(void)
{
    struct pair p;
    uint8_t *data = calloc(1, 16u << 20);
    pair_open_raw(&p);
    CHECK_EQ(hw_stream_write(p.b.s, data, 16u << 20), 0);
    hw_stream_finish(p.b.s, 30);
    REQUIRE(test_turn_until(p.loop, &p.b.has_ended));
    CHECK_EQ(p.b.status, HW_ERR_TIMEOUT);
    pair_close(&p);
    free(data);
}

static void a_paused_stream_delivers_nothing_until_it_goes_on(void)
{
    struct pair p;
    pair_open_raw(&p);
    hw_stream_pause(p.b.s, true);
    CHECK_EQ(send(p.fd, "abc", 3, 0), 3);
    test_turn_for(p.loop, 5);
    CHECK_EQ(p.b.got.len, 0);
    p.b.want = 3;
    hw_stream_pause(p.b.s, false);
    REQUIRE(test_turn_until(p.loop, &p.b.is_full));
    CHECK(memcmp(p.b.got.data, "abc", 3) == 0);
    pair_close(&p);
}

/* ---- handing over ---- */

static struct side next;

/* Looks at the first byte and gives the stream on, as a port with two protocols does. */
static void sniff(struct side *side, const uint8_t *data, size_t len)
{
    next.s = side->s;
    CHECK_EQ(hw_stream_unread(side->s, data + 1, len - 1), 0);
    hw_stream_own(side->s, &side_ops, &next);
    side->s = NULL;
}

static void unread_bytes_come_first_to_the_next_owner(void)
{
    struct pair p;
    char text[3000];
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = (char)('a' + i % 26);
    }
    pair_open_raw(&p);
    next = (struct side){.want = sizeof text - 1};
    p.b.on_data = sniff;
    CHECK_EQ(send(p.fd, text, 1000, 0), 1000);
    test_turn_for(p.loop, 1);
    CHECK_EQ(send(p.fd, text + 1000, 2000, 0), 2000);
    REQUIRE(test_turn_until(p.loop, &next.is_full));
    CHECK_EQ(next.got.len, sizeof text - 1);
    CHECK(memcmp(next.got.data, text + 1, next.got.len) == 0);
    CHECK_EQ(p.b.ends, 0);
    hw_stream_close(next.s);
    REQUIRE(test_turn_until(p.loop, &next.has_ended));
    CHECK_EQ(p.b.ends, 0);
    hw_buf_free(&next.got);
    pair_close(&p);
}

static void unread_bytes_wait_while_paused(void)
{
    struct pair p;
    pair_open_raw(&p);
    next = (struct side){.want = 4};
    p.b.on_data = sniff;
    hw_stream_pause(p.b.s, false);
    CHECK_EQ(send(p.fd, "12345", 5, 0), 5);
    REQUIRE(test_turn_until(p.loop, &p.b.is_full));
    hw_stream_pause(next.s, true);
    test_turn_for(p.loop, 5);
    hw_stream_pause(next.s, false);
    REQUIRE(test_turn_until(p.loop, &next.is_full));
    CHECK(memcmp(next.got.data, "2345", 4) == 0);
    p.b.s = next.s;
    hw_stream_own(p.b.s, &side_ops, &p.b);
    hw_buf_free(&next.got);
    pair_close(&p);
}

static void a_detached_socket_lives_on_without_the_stream(void)
{
    struct pair p;
    char got[8];
    int fd = -1;
    pair_open_raw(&p);
    CHECK_EQ(hw_stream_write(p.b.s, "a", 1), 0);
    CHECK_EQ(hw_stream_detach(p.b.s, &fd), HW_ERR_PRECONDITION);
    test_turn_for(p.loop, 2);
    CHECK_EQ(hw_stream_unread(p.b.s, (const uint8_t *)"u", 1), 0);
    CHECK_EQ(hw_stream_detach(p.b.s, &fd), HW_ERR_PRECONDITION);
    test_turn_for(p.loop, 2);
    REQUIRE(hw_stream_detach(p.b.s, &fd) == 0);
    p.b.s = NULL;
    test_turn_for(p.loop, 2);
    CHECK_EQ(p.b.ends, 0);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_EQ(send(fd, "b", 1, 0), 1);
    CHECK_EQ(recv(p.fd, got, 2, MSG_WAITALL), 2);
    CHECK(memcmp(got, "ab", 2) == 0);
    CHECK_EQ(send(p.fd, "c", 1, 0), 1);
    test_turn_for(p.loop, 2); /* the loop looks no more */
    CHECK_EQ(recv(fd, got, 1, 0), 1);
    close(fd);
    pair_close(&p);
}

static void close_in_data(struct side *side, const uint8_t *data, size_t len)
{
    (void)data;
    (void)len;
    hw_stream_close(side->s);
}

static void an_owner_may_close_while_it_gets_data(void)
{
    struct pair p;
    pair_open_raw(&p);
    p.b.on_data = close_in_data;
    CHECK_EQ(send(p.fd, "abc", 3, 0), 3);
    REQUIRE(test_turn_until(p.loop, &p.b.has_ended));
    CHECK_EQ(p.b.status, HW_ERR_CANCELLED);
    CHECK_EQ(p.b.ends, 1);
    pair_close(&p);
}

static void a_peer_has_a_name(void)
{
    struct pair p;
    pair_open(&p);
    CHECK_STR(hw_stream_peer(p.a.s), hw_listener_address(p.listener));
    CHECK(strncmp(hw_stream_peer(p.b.s), "127.0.0.1:", 10) == 0);
    CHECK(hw_stream_loop(p.a.s) == p.loop);
    pair_close(&p);
}

HW_SUITE(loop_stream, HW_CASE(ten_megabytes_in_random_pieces_come_back_whole),
         HW_CASE(what_is_written_in_one_turn_arrives_as_one_piece),
         HW_CASE(back_pressure_shows_and_drain_comes_once_it_is_gone),
         HW_CASE(a_write_beyond_write_max_is_refused_whole), HW_CASE(a_peer_that_closes_ends_the_stream_with_0),
         HW_CASE(a_reset_ends_the_stream_with_an_error),
         HW_CASE(a_write_to_a_reset_peer_ends_with_an_error_not_a_signal),
         HW_CASE(a_half_closed_peer_still_gets_the_answer),
         HW_CASE(an_answer_made_at_the_end_of_the_turn_still_goes_to_a_half_closed_peer),
         HW_CASE(a_half_closed_peer_that_does_not_read_is_given_up), HW_CASE(finish_sends_what_is_queued_first),
         HW_CASE(finish_gives_up_at_its_deadline), HW_CASE(a_paused_stream_delivers_nothing_until_it_goes_on),
         HW_CASE(unread_bytes_come_first_to_the_next_owner), HW_CASE(unread_bytes_wait_while_paused),
         HW_CASE(a_detached_socket_lives_on_without_the_stream), HW_CASE(an_owner_may_close_while_it_gets_data),
         HW_CASE(a_peer_has_a_name))
