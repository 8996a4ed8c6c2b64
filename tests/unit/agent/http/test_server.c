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
#include "agent/http/http.h"
#include "tests/unit/hw_test.h"

struct rig {
    struct hw_loop *loop;
    struct hw_metrics *metrics;
    struct hw_http_server *server;
    struct hw_listener *listener;
    struct hw_timer *tick;
    struct hw_http_req *held;
    bool is_closed;
    int fd;
    struct hw_buf in;
};

static void on_echo(void *ctx, struct hw_http_req *req)
{
    struct hw_buf out = {0};
    const char *q = hw_http_query(req, "q");
    const char *x = hw_http_header(req, "x-test");
    static const char *const headers[] = {"X-Extra", "1", "X-Bad", "a\r\nInjected: 1", NULL};
    (void)ctx;
    hw_buf_printf(&out, "%s %s q=%s x=%s body=%.*s", hw_http_method(req), hw_http_path(req), q != NULL ? q : "-",
                  x != NULL ? x : "-", (int)hw_http_body(req).len, (const char *)hw_http_body(req).data);
    hw_http_reply(req, 200, "text/plain", hw_buf_slice(&out), headers);
    hw_buf_free(&out);
}

static void on_hold(void *ctx, struct hw_http_req *req)
{
    ((struct rig *)ctx)->held = req;
}

static void on_big(void *ctx, struct hw_http_req *req)
{
    static uint8_t bytes[1000000];
    (void)ctx;
    hw_http_reply(req, 200, "application/octet-stream", hw_slice_of(bytes, sizeof bytes), NULL);
}

static void on_empty(void *ctx, struct hw_http_req *req)
{
    (void)ctx;
    hw_http_reply(req, 204, NULL, hw_slice_of(NULL, 0), NULL);
}

static void on_accept(void *ctx, struct hw_stream *stream)
{
    hw_http_server_accept(((struct rig *)ctx)->server, stream);
}

static void on_tick(void *ctx)
{
    (void)ctx;
}

static void rig_connect(struct rig *rig)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int rc;
    in.sin_port = htons((uint16_t)strtoul(strrchr(hw_listener_address(rig->listener), ':') + 1, NULL, 10));
    rig->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    rc = connect(rig->fd, (struct sockaddr *)&in, sizeof in);
    hw_assert(rc == 0);
    fcntl(rig->fd, F_SETFL, O_NONBLOCK);
    hw_buf_clear(&rig->in);
}

static void rig_open(struct rig *rig, unsigned idle_ms)
{
    const struct hw_http_route routes[] = {
        {"GET", "/echo", on_echo, rig},       {"POST", "/echo", on_echo, rig}, {"GET", "/files/", on_echo, rig},
        {"GET", "/files/held", on_hold, rig}, {"GET", "/big", on_big, rig},    {"GET", "/empty", on_empty, rig},
    };
    struct hw_http_limits limits;
    int rc;
    memset(rig, 0, sizeof *rig);
    rc = hw_loop_new(&rig->loop, NULL, 0);
    hw_assert(rc == 0);
    rig->metrics = hw_metrics_new();
    hw_http_limits_default(&limits);
    limits.idle_ms = idle_ms;
    limits.header_bytes_max = 2000;
    limits.body_bytes_max = 10000;
    rc = hw_http_server_new(rig->loop, rig->metrics, &limits, &rig->server);
    hw_assert(rc == 0);
    hw_http_server_add(rig->server, routes, hw_array_len(routes));
    rc = hw_listener_new(rig->loop, "127.0.0.1:0", 100, on_accept, rig, &rig->listener, NULL);
    hw_assert(rc == 0);
    rig->tick = hw_timer_new(rig->loop, "tick", on_tick, rig);
    hw_timer_start(rig->tick, 2, 2);
    rig_connect(rig);
}

static void rig_close(struct rig *rig)
{
    close(rig->fd);
    hw_listener_free(rig->listener);
    hw_http_server_free(rig->server);
    hw_timer_free(rig->tick);
    for (int i = 0; i < 1000 && hw_loop_turn(rig->loop, true); i++) {
    }
    hw_loop_free(rig->loop);
    hw_metrics_free(rig->metrics);
    hw_buf_free(&rig->in);
}

static void say(struct rig *rig, const char *text)
{
    ssize_t n = send(rig->fd, text, strlen(text), MSG_NOSIGNAL);
    (void)n; /* what the test looks at is the answer */
}

/* Until `count` times `text` was read (true), or the server closed or ms are over (false). */
static bool hear(struct rig *rig, const char *text, unsigned count, unsigned ms)
{
    uint64_t end_ms = hw_mono_ms() + ms;
    while (hw_mono_ms() < end_ms) {
        char piece[65536];
        const char *at = (const char *)rig->in.data;
        unsigned found = 0;
        ssize_t n = recv(rig->fd, piece, sizeof piece, 0);
        if (n > 0) {
            hw_buf_append(&rig->in, piece, (size_t)n);
            hw_buf_put_u8(&rig->in, 0);
            rig->in.len--;
            at = (const char *)rig->in.data;
        }
        while (text != NULL && at != NULL && (at = strstr(at, text)) != NULL) {
            found++;
            at++;
        }
        if (text != NULL && found >= count) {
            return true;
        }
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            return text == NULL;
        }
        if (n < 0) {
            hw_loop_turn(rig->loop, true);
        }
    }
    return false;
}

static bool hears_end(struct rig *rig, unsigned ms)
{
    return hear(rig, NULL, 0, ms);
}

static void turns(struct rig *rig, unsigned ms)
{
    uint64_t end_ms = hw_mono_ms() + ms;
    while (hw_mono_ms() < end_ms) {
        hw_loop_turn(rig->loop, true);
    }
}

static bool has(const struct rig *rig, const char *text)
{
    return rig->in.data != NULL && strstr((const char *)rig->in.data, text) != NULL;
}

static void a_request_is_answered_and_the_connection_kept(void)
{
    struct rig rig;
    rig_open(&rig, 60000);
    say(&rig, "GET /echo?q=a%20b HTTP/1.1\r\nHost: h\r\nX-Test: 7\r\n\r\n");
    CHECK(hear(&rig, "GET /echo q=a b x=7 body=", 1, 2000));
    CHECK(has(&rig, "HTTP/1.1 200 OK\r\nDate: "));
    CHECK(has(&rig, "Content-Type: text/plain\r\n"));
    CHECK(has(&rig, "X-Extra: 1\r\n"));
    CHECK(!has(&rig, "Injected"));
    CHECK(has(&rig, "Connection: keep-alive\r\n"));
    say(&rig, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    CHECK(hear(&rig, "body=hi", 1, 2000));
    say(&rig, "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    CHECK(hears_end(&rig, 2000));
    CHECK(has(&rig, "Connection: close\r\n"));
    rig_close(&rig);
}

static void pipelined_requests_are_answered_in_order(void)
{
    struct rig rig;
    rig_open(&rig, 60000);
    say(&rig, "GET /echo?q=1 HTTP/1.1\r\nHost: h\r\n\r\nGET /files/held HTTP/1.1\r\nHost: h\r\n\r\n"
              "GET /echo?q=3 HTTP/1.1\r\nHost: h\r\n\r\nGET /echo?q=4 HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(hear(&rig, "q=1", 1, 2000));
    turns(&rig, 20);
    CHECK(!has(&rig, "q=3"));
    REQUIRE(rig.held != NULL);
    CHECK(!hw_http_is_gone(rig.held));
    hw_http_reply(rig.held, 200, "text/plain", hw_slice_str("q=2"), NULL);
    CHECK(hear(&rig, "q=4", 1, 2000));
    CHECK(strstr((char *)rig.in.data, "q=2") < strstr((char *)rig.in.data, "q=3"));
    CHECK(strstr((char *)rig.in.data, "q=3") < strstr((char *)rig.in.data, "q=4"));
    rig_close(&rig);
}

static void the_longest_route_wins_and_errors_are_json(void)
{
    struct rig rig;
    rig_open(&rig, 60000);
    say(&rig, "GET /files/a/b HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(hear(&rig, "GET /files/a/b", 1, 2000));
    say(&rig, "GET /files/held HTTP/1.1\r\nHost: h\r\n\r\n");
    turns(&rig, 30);
    REQUIRE(rig.held != NULL);
    hw_http_reply(rig.held, 200, NULL, hw_slice_str("held"), NULL);
    CHECK(hear(&rig, "held", 1, 2000));
    say(&rig, "GET /files HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(hear(&rig, "{\"error\": \"not_found\", \"message\": \"no such path\"}", 1, 2000));
    CHECK(has(&rig, "HTTP/1.1 404 Not Found"));
    say(&rig, "DELETE /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(hear(&rig, "\"method_not_allowed\"", 1, 2000));
    CHECK(has(&rig, "Allow: GET, HEAD, POST\r\n"));
    say(&rig, "GET /echo?q=last HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(hear(&rig, "q=last", 1, 2000));
    rig_close(&rig);
}

static void head_has_no_body(void)
{
    struct rig rig;
    rig_open(&rig, 60000);
    say(&rig, "HEAD /echo HTTP/1.1\r\nHost: h\r\n\r\nHEAD /none HTTP/1.1\r\nHost: h\r\n\r\n"
              "GET /empty HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    CHECK(hears_end(&rig, 2000));
    CHECK(has(&rig, "Content-Length: 24\r\n"));
    CHECK(!has(&rig, "HEAD /echo q"));
    CHECK(has(&rig, "404 Not Found"));
    CHECK(!has(&rig, "not_found"));
    CHECK(has(&rig, "204 No Content"));
    rig_close(&rig);
}

static void malformed_requests_are_answered_and_closed(void)
{
    static const struct {
        const char *text;
        const char *answer;
    } all[] = {{"\x16\x03\x01\x02\r\n\r\n", "HTTP/1.1 400 Bad Request"},
               {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request"},
               {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10001\r\n\r\n", "HTTP/1.1 413 Payload Too Large"}};
    for (size_t i = 0; i < hw_array_len(all); i++) {
        struct rig rig;
        rig_open(&rig, 60000);
        say(&rig, all[i].text);
        CHECK(hears_end(&rig, 2000));
        CHECK(has(&rig, all[i].answer));
        CHECK(has(&rig, "\"error\": "));
        CHECK(has(&rig, "Connection: close"));
        rig_close(&rig);
    }
}

static void huge_headers_and_targets_are_refused(void)
{
    static char big[5000];
    struct rig rig;
    memset(big, 'a', sizeof big - 1);
    rig_open(&rig, 60000);
    say(&rig, "GET /");
    say(&rig, big);
    CHECK(hears_end(&rig, 2000));
    CHECK(has(&rig, "HTTP/1.1 414 "));
    rig_close(&rig);
    rig_open(&rig, 60000);
    say(&rig, "GET / HTTP/1.1\r\nHost: h\r\nX: ");
    say(&rig, big);
    CHECK(hears_end(&rig, 2000));
    CHECK(has(&rig, "HTTP/1.1 431 "));
    rig_close(&rig);
}

static void a_body_on_demand_is_asked_for(void)
{
    struct rig rig;
    rig_open(&rig, 60000);
    say(&rig, "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    CHECK(hear(&rig, "HTTP/1.1 100 Continue\r\n\r\n", 1, 2000));
    say(&rig, "ok");
    CHECK(hear(&rig, "body=ok", 1, 2000));
    rig_close(&rig);
}

static void an_idle_connection_is_closed(void)
{
    struct rig rig;
    uint64_t start_ms;
    rig_open(&rig, 100);
    start_ms = hw_mono_ms();
    CHECK(hears_end(&rig, 3000));
    CHECK(hw_mono_ms() - start_ms >= 90);
    CHECK_EQ(rig.in.len, 0);
    rig_close(&rig);
}

/* A byte now and then must not keep a request open for ever. */
static void a_trickling_request_is_closed(void)
{
    struct rig rig;
    uint64_t start_ms;
    bool is_over = false;
    rig_open(&rig, 150);
    start_ms = hw_mono_ms();
    say(&rig, "GET /echo HTTP/1.1\r\n");
    while (!is_over && hw_mono_ms() - start_ms < 3000) {
        say(&rig, "A");
        is_over = hears_end(&rig, 20);
    }
    CHECK(is_over);
    CHECK(hw_mono_ms() - start_ms < 1000);
    rig_close(&rig);
}

static void a_request_in_progress_is_not_idle(void)
{
    struct rig rig;
    rig_open(&rig, 60);
    say(&rig, "GET /files/held HTTP/1.1\r\nHost: h\r\n\r\n");
    turns(&rig, 300);
    REQUIRE(rig.held != NULL);
    hw_http_reply(rig.held, 200, NULL, hw_slice_str("patience"), NULL);
    CHECK(hear(&rig, "patience", 1, 1000));
    rig_close(&rig);
}

static void a_client_that_leaves_is_seen(void)
{
    struct rig rig;
    rig_open(&rig, 60000);
    say(&rig, "GET /files/held HTTP/1.1\r\nHost: h\r\n\r\n");
    turns(&rig, 30);
    REQUIRE(rig.held != NULL);
    close(rig.fd);
    turns(&rig, 50);
    CHECK(hw_http_is_gone(rig.held));
    CHECK_STR(hw_http_path(rig.held), "/files/held");
    hw_http_reply(rig.held, 200, NULL, hw_slice_str("too late"), NULL);
    rig_connect(&rig);
    say(&rig, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(hear(&rig, "GET /echo", 1, 1000));
    rig_close(&rig);
}

/* It asks for 200 MB in one breath: answers are made only as fast as they are read. */
static void a_client_that_does_not_read_is_held_back_and_closed(void)
{
    struct rig rig;
    struct hw_buf text = {0};
    rig_open(&rig, 300);
    for (int i = 0; i < 200; i++) {
        hw_buf_append_str(&text, "GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    hw_buf_put_u8(&text, 0);
    say(&rig, (char *)text.data);
    turns(&rig, 200);
    {
        struct hw_buf out = {0};
        unsigned long answered = 0;
        hw_metrics_render(rig.metrics, &out);
        hw_buf_put_u8(&out, 0);
        sscanf(strstr((char *)out.data, "hotwarm_http_requests_total{code=\"200\"}"),
               "hotwarm_http_requests_total{code=\"200\"} %lu", &answered);
        CHECK(answered >= 1 && answered < 20);
        hw_buf_free(&out);
    }
    turns(&rig, 1500);
    CHECK(hears_end(&rig, 2000));
    CHECK(rig.in.len < 30000000);
    hw_buf_free(&text);
    rig_close(&rig);
}

static void a_slow_reader_gets_everything(void)
{
    struct rig rig;
    rig_open(&rig, 60000);
    for (int i = 0; i < 20; i++) {
        say(&rig, "GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    say(&rig, "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    turns(&rig, 100);
    CHECK(hears_end(&rig, 5000));
    CHECK(rig.in.len > 20000000);
    rig_close(&rig);
}

static void on_closed(void *ctx)
{
    ((struct rig *)ctx)->is_closed = true;
}

static void a_shutdown_waits_for_the_answer_in_progress(void)
{
    struct rig rig;
    int idle;
    rig_open(&rig, 60000);
    turns(&rig, 10);
    idle = rig.fd;
    rig_connect(&rig);
    say(&rig, "GET /files/held HTTP/1.1\r\nHost: h\r\n\r\n");
    turns(&rig, 30);
    REQUIRE(rig.held != NULL);
    hw_http_server_shut(rig.server, on_closed, &rig);
    turns(&rig, 50);
    CHECK(!rig.is_closed);
    hw_http_reply(rig.held, 200, NULL, hw_slice_str("last"), NULL);
    CHECK(hears_end(&rig, 1000));
    CHECK(has(&rig, "Connection: close"));
    CHECK(has(&rig, "last"));
    close(idle);
    close(rig.fd);
    rig.fd = -1;
    turns(&rig, 100);
    CHECK(rig.is_closed);
    rig_close(&rig);
}

static void a_free_with_an_open_request_waits_for_its_reply(void)
{
    struct rig rig;
    rig_open(&rig, 60000);
    say(&rig, "GET /files/held HTTP/1.1\r\nHost: h\r\n\r\n");
    turns(&rig, 30);
    REQUIRE(rig.held != NULL);
    hw_http_server_free(rig.server);
    rig.server = NULL;
    turns(&rig, 30);
    CHECK(hw_http_is_gone(rig.held));
    hw_http_reply(rig.held, 200, NULL, hw_slice_str("x"), NULL);
    rig_close(&rig);
}

HW_SUITE(http_server, HW_CASE(a_request_is_answered_and_the_connection_kept),
         HW_CASE(pipelined_requests_are_answered_in_order), HW_CASE(the_longest_route_wins_and_errors_are_json),
         HW_CASE(head_has_no_body), HW_CASE(malformed_requests_are_answered_and_closed),
         HW_CASE(huge_headers_and_targets_are_refused), HW_CASE(a_body_on_demand_is_asked_for),
         HW_CASE(an_idle_connection_is_closed), HW_CASE(a_trickling_request_is_closed),
         HW_CASE(a_request_in_progress_is_not_idle), HW_CASE(a_client_that_leaves_is_seen),
         HW_CASE(a_client_that_does_not_read_is_held_back_and_closed), HW_CASE(a_slow_reader_gets_everything),
         HW_CASE(a_shutdown_waits_for_the_answer_in_progress), HW_CASE(a_free_with_an_open_request_waits_for_its_reply))
