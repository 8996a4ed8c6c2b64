#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "tests/unit/agent/loop/loop_test.h"

struct server {
    struct hw_stream *streams[16];
    unsigned count;
    bool has_one;
    bool has_three;
    struct hw_listener *frees; /* on_accept frees it */
};

static void server_data(void *ctx, const uint8_t *data, size_t len)
{
    (void)ctx;
    (void)data;
    (void)len;
}

static void server_end(void *ctx, int status)
{
    (void)status;
    *(struct hw_stream **)ctx = NULL;
}

static const struct hw_stream_ops server_ops = {server_data, server_end, NULL};

static void server_accept(void *ctx, struct hw_stream *s)
{
    struct server *sv = ctx;
    CU_ASSERT_FATAL(sv->count < hw_array_len(sv->streams));
    sv->streams[sv->count] = s;
    hw_stream_own(s, &server_ops, &sv->streams[sv->count]);
    sv->count++;
    sv->has_one = true;
    sv->has_three = sv->count >= 3;
    if (sv->frees != NULL) {
        hw_listener_free(sv->frees);
        sv->frees = NULL;
    }
}

static void server_close(struct server *sv)
{
    for (unsigned i = 0; i < sv->count; i++) {
        if (sv->streams[i] != NULL) {
            hw_stream_close(sv->streams[i]);
        }
    }
}

static struct sockaddr_in address_of(const struct hw_listener *l)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)strtoul(strrchr(hw_listener_address(l), ':') + 1, NULL, 10));
    return to;
}

static int raw_connect(const struct hw_listener *l)
{
    struct sockaddr_in to = address_of(l);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CU_ASSERT_FATAL(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

static struct hw_listener *listen_any(struct hw_loop *loop, struct server *sv, unsigned max)
{
    struct hw_listener *l = NULL;
    memset(sv, 0, sizeof *sv);
    CU_ASSERT_EQUAL_FATAL(hw_listener_new(loop, "localhost:0", max, server_accept, sv, &l, NULL), 0);
    return l;
}

static void a_port_in_use_is_named_in_the_sentence(void)
{
    struct hw_loop *loop = test_loop_new();
    struct server sv;
    struct hw_listener *l = listen_any(loop, &sv, 4);
    struct hw_listener *second = NULL;
    struct hw_error e = {0};
    CHECK_EQ(hw_listener_new(loop, hw_listener_address(l), 4, server_accept, &sv, &second, &e), HW_ERR_INUSE);
    CHECK(strstr(e.text, hw_listener_address(l)) != NULL);
    CHECK(strstr(e.text, "choose another") != NULL);
    CHECK(second == NULL);
    hw_listener_free(l);
    hw_loop_free(loop);
}

static void the_port_is_free_as_soon_as_the_listener_is(void)
{
    struct hw_loop *loop = test_loop_new();
    struct server sv;
    struct hw_listener *l = listen_any(loop, &sv, 4);
    char address[64];
    memcpy(address, hw_listener_address(l), strlen(hw_listener_address(l)) + 1);
    hw_listener_free(l);
    CHECK_EQ(hw_listener_new(loop, address, 4, server_accept, &sv, &l, NULL), 0);
    CHECK_STR(hw_listener_address(l), address);
    hw_listener_free(l);
    hw_listener_free(NULL);
    hw_loop_free(loop);
}

static void an_address_that_cannot_be_is_refused_with_a_sentence(void)
{
    static const char *const bad[] = {"127.0.0.1", "db1.example:80", "127.0.0.1:99999", "[::1", ":80"};
    struct hw_loop *loop = test_loop_new();
    for (size_t i = 0; i < hw_array_len(bad); i++) {
        struct hw_listener *l = NULL;
        struct hw_error e = {0};
        CHECK_EQ(hw_listener_new(loop, bad[i], 4, server_accept, NULL, &l, &e), HW_ERR_INVALID);
        CHECK(strncmp(e.text, "listen on ", 10) == 0);
        CHECK(strstr(e.text, bad[i]) != NULL);
        CHECK_EQ(hw_listener_new(loop, bad[i], 4, server_accept, NULL, &l, NULL), HW_ERR_INVALID);
    }
    hw_loop_free(loop);
}

static void connections_beyond_the_maximum_are_closed_and_counted(void)
{
    struct hw_metrics *m = hw_metrics_new();
    struct hw_loop *loop = NULL;
    struct server sv;
    struct hw_listener *l;
    struct hw_buf text = {0};
    int fds[3];
    char c;
    CHECK_EQ(hw_loop_new(&loop, m, 0), 0);
    l = listen_any(loop, &sv, 2);
    for (int i = 0; i < 3; i++) {
        fds[i] = raw_connect(l);
    }
    test_turn_for(loop, 20);
    CHECK_EQ(sv.count, 2);
    CHECK_EQ(recv(fds[2], &c, 1, MSG_DONTWAIT), 0); /* closed */
    CHECK_EQ(recv(fds[1], &c, 1, MSG_DONTWAIT), -1);
    hw_metrics_render(m, &text);
    hw_buf_put_u8(&text, 0);
    CHECK(strstr((char *)text.data, "hotwarm_connections_refused_total 1") != NULL);
    hw_buf_free(&text);
    close(fds[0]); /* makes room */
    test_turn_for(loop, 5);
    close(fds[2]);
    fds[2] = raw_connect(l);
    REQUIRE(test_turn_until(loop, &sv.has_three));
    close(fds[1]);
    close(fds[2]);
    server_close(&sv);
    hw_listener_free(l);
    hw_loop_free(loop);
    hw_metrics_free(m);
}

static void a_listener_may_be_freed_while_it_accepts_and_its_streams_live_on(void)
{
    struct hw_loop *loop = test_loop_new();
    struct server sv;
    struct hw_listener *l = listen_any(loop, &sv, 4);
    int a = raw_connect(l);
    int b = raw_connect(l);
    char c;
    sv.frees = l;
    REQUIRE(test_turn_until(loop, &sv.has_one));
    test_turn_for(loop, 2);
    CHECK_EQ(sv.count, 1);
    CHECK_EQ(hw_stream_write(sv.streams[0], "x", 1), 0);
    test_turn_for(loop, 2);
    CHECK_EQ(recv(a, &c, 1, 0), 1);
    close(a);
    close(b);
    test_turn_for(loop, 5);
    CHECK(sv.streams[0] == NULL);
    hw_loop_free(loop);
}

/* In a child, whose limit on descriptors is used up: accepting must pause, not spin, and go on later. */
static int child_without_descriptors(void)
{
    struct hw_loop *loop = test_loop_new();
    struct server sv;
    struct hw_listener *l = listen_any(loop, &sv, 4);
    struct hw_loop_stats stats;
    struct rlimit limit;
    struct sockaddr_in to = address_of(l);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int last;
    getrlimit(RLIMIT_NOFILE, &limit);
    last = dup(client);
    limit.rlim_cur = (rlim_t)last + 1;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (connect(client, (struct sockaddr *)&to, sizeof to) != 0) {
        return 2;
    }
    hw_loop_stats(loop, &stats, true);
    test_turn_for(loop, 350);
    hw_loop_stats(loop, &stats, true);
    if (sv.count != 0) {
        return 3;
    }
    if (stats.turns > 50) {
        return 4;
    }
    close(last);
    if (!test_turn_until(loop, &sv.has_one)) {
        return 5;
    }
    server_close(&sv);
    hw_listener_free(l);
    hw_loop_free(loop);
    return 0;
}

static void without_descriptors_accepting_pauses_and_goes_on(void)
{
    const char *preload = getenv("LD_PRELOAD");
    int status = 0;
    pid_t pid;
    if (preload != NULL && strstr(preload, "vgpreload") != NULL) {
        return; /* valgrind keeps the limit itself, by accepting and closing */
    }
    pid = fork();
    if (pid == 0) {
        _exit(child_without_descriptors());
    }
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
}

/* ---- connect ---- */

struct client {
    struct hw_connect c;
    struct hw_stream *s;
    bool is_done;
    unsigned dones;
    int status;
};

static void client_done(struct hw_connect *c, int status, struct hw_stream *s)
{
    struct client *cl = hw_container_of(c, struct client, c);
    CHECK((status == 0) == (s != NULL));
    cl->is_done = true;
    cl->dones++;
    cl->status = status;
    cl->s = s;
}

/* An address of this machine where nobody listens. */
static void dead_address(struct hw_loop *loop, char address[64])
{
    struct server sv;
    struct hw_listener *l = listen_any(loop, &sv, 1);
    memcpy(address, hw_listener_address(l), strlen(hw_listener_address(l)) + 1);
    hw_listener_free(l);
}

static void a_refused_connection_says_where(void)
{
    struct hw_loop *loop = test_loop_new();
    struct client cl = {0};
    char address[64];
    dead_address(loop, address);
    CHECK_EQ(hw_connect_start(loop, NULL, &cl.c, address, 5000, client_done), 0);
    REQUIRE(test_turn_until(loop, &cl.is_done));
    CHECK_EQ(cl.status, HW_ERR_CONNECT);
    CHECK(strstr(cl.c.e.text, address) != NULL);
    CHECK(strstr(cl.c.e.text, "refused") != NULL);
    hw_loop_free(loop);
}

static void a_malformed_address_is_refused_at_once(void)
{
    struct hw_loop *loop = test_loop_new();
    struct client cl = {0};
    CHECK_EQ(hw_connect_start(loop, NULL, &cl.c, "127.0.0.1", 5000, client_done), HW_ERR_INVALID);
    CHECK(strlen(cl.c.e.text) > 0);
    CHECK_EQ(hw_connect_start(loop, NULL, &cl.c, "db1.example:1", 5000, client_done), HW_ERR_INVALID);
    hw_loop_run(loop);
    CHECK_EQ(cl.dones, 0);
    hw_loop_free(loop);
}

static void a_name_that_does_not_resolve_fails_in_words(void)
{
    struct hw_loop *loop = test_loop_new();
    struct hw_pool *pool = NULL;
    struct client cl = {0};
    REQUIRE(hw_pool_new(loop, "dns", 1, 4, &pool, NULL) == 0);
    CHECK_EQ(hw_connect_start(loop, pool, &cl.c, ".bad..name.invalid:80", 5000, client_done), 0);
    REQUIRE(test_turn_until(loop, &cl.is_done));
    CHECK(cl.status < 0);
    CHECK(strstr(cl.c.e.text, ".bad..name.invalid:80") != NULL);
    hw_loop_run(loop);
    hw_pool_free(pool);
    hw_loop_free(loop);
}

/* A listening socket whose queue is full: further SYNs are dropped, so a connect hangs. */
struct hole {
    int fd;
    int fillers[8];
    char address[64];
};

static void hole_open(struct hole *h)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    socklen_t len = sizeof to;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CU_ASSERT_FATAL(bind(h->fd, (struct sockaddr *)&to, sizeof to) == 0 && listen(h->fd, 0) == 0);
    getsockname(h->fd, (struct sockaddr *)&to, &len);
    for (size_t i = 0; i < hw_array_len(h->fillers); i++) {
        h->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(h->fillers[i], (struct sockaddr *)&to, sizeof to);
    }
    snprintf(h->address, sizeof h->address, "127.0.0.1:%u", ntohs(to.sin_port));
}

static void hole_close(struct hole *h)
{
    close(h->fd);
    for (size_t i = 0; i < hw_array_len(h->fillers); i++) {
        close(h->fillers[i]);
    }
}

static void a_connect_without_answer_ends_at_its_timeout(void)
{
    struct hw_loop *loop = test_loop_new();
    struct client cl = {0};
    struct hole h;
    uint64_t start_ms = hw_mono_ms();
    hole_open(&h);
    CHECK_EQ(hw_connect_start(loop, NULL, &cl.c, h.address, 50, client_done), 0);
    REQUIRE(test_turn_until(loop, &cl.is_done));
    CHECK_EQ(cl.status, HW_ERR_TIMEOUT);
    CHECK(strstr(cl.c.e.text, "50 ms") != NULL);
    CHECK(hw_mono_ms() - start_ms >= 49);
    hw_loop_run(loop);
    CHECK_EQ(cl.dones, 1);
    hole_close(&h);
    hw_loop_free(loop);
}

static void a_cancelled_connect_completes_once_and_later(void)
{
    struct hw_loop *loop = test_loop_new();
    struct client cl = {0};
    struct hole h;
    hole_open(&h);
    for (unsigned turns = 0; turns < 3; turns++) { /* while resolving, while connecting */
        cl = (struct client){0};
        CHECK_EQ(hw_connect_start(loop, NULL, &cl.c, h.address, 5000, client_done), 0);
        for (unsigned i = 0; i < turns; i++) {
            hw_loop_turn(loop, false);
        }
        hw_connect_cancel(&cl.c);
        hw_connect_cancel(&cl.c);
        CHECK_EQ(cl.dones, 0);
        hw_loop_run(loop);
        CHECK_EQ(cl.dones, 1);
        CHECK_EQ(cl.status, HW_ERR_CANCELLED);
    }
    hw_connect_cancel(&cl.c); /* after done: nothing */
    hole_close(&h);
    hw_loop_free(loop);
}

static void a_cancelled_connect_does_not_wait_for_the_resolver(void)
{
    struct hw_loop *loop = test_loop_new();
    struct hw_pool *pool = NULL;
    struct client *cl = calloc(1, sizeof *cl);
    REQUIRE(cl != NULL && hw_pool_new(loop, "dns", 1, 4, &pool, NULL) == 0);
    CHECK_EQ(hw_connect_start(loop, pool, &cl->c, ".bad..name.invalid:80", 5000, client_done), 0);
    hw_connect_cancel(&cl->c);
    REQUIRE(test_turn_until(loop, &cl->is_done));
    CHECK_EQ(cl->status, HW_ERR_CANCELLED);
    free(cl); /* the caller's struct may go at once; the lookup goes on without it */
    hw_loop_run(loop);
    hw_pool_free(pool);
    hw_loop_free(loop);
}

static void an_unowned_stream_may_be_closed(void)
{
    struct hw_loop *loop = test_loop_new();
    struct server sv;
    struct hw_listener *l = listen_any(loop, &sv, 4);
    struct client cl = {0};
    CHECK_EQ(hw_connect_start(loop, NULL, &cl.c, hw_listener_address(l), 5000, client_done), 0);
    REQUIRE(test_turn_until(loop, &cl.is_done));
    REQUIRE(cl.status == 0);
    CHECK_STR(hw_stream_peer(cl.s), hw_listener_address(l));
    CHECK_EQ(hw_stream_write(cl.s, "x", 1), 0);
    hw_stream_close(cl.s);
    REQUIRE(test_turn_until(loop, &sv.has_one));
    test_turn_for(loop, 5);
    CHECK(sv.streams[0] == NULL);
    hw_listener_free(l);
    hw_loop_free(loop);
}

HW_SUITE(loop_listener, HW_CASE(a_port_in_use_is_named_in_the_sentence),
         HW_CASE(the_port_is_free_as_soon_as_the_listener_is),
         HW_CASE(an_address_that_cannot_be_is_refused_with_a_sentence),
         HW_CASE(connections_beyond_the_maximum_are_closed_and_counted),
         HW_CASE(a_listener_may_be_freed_while_it_accepts_and_its_streams_live_on),
         HW_CASE(without_descriptors_accepting_pauses_and_goes_on), HW_CASE(a_refused_connection_says_where),
         HW_CASE(a_malformed_address_is_refused_at_once), HW_CASE(a_name_that_does_not_resolve_fails_in_words),
         HW_CASE(a_connect_without_answer_ends_at_its_timeout), HW_CASE(a_cancelled_connect_completes_once_and_later),
         HW_CASE(a_cancelled_connect_does_not_wait_for_the_resolver), HW_CASE(an_unowned_stream_may_be_closed))
