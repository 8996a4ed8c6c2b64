#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/http/message.h"
#include "tests/unit/hw_test.h"

static const struct hw_http_limits limits = {.header_bytes_max = 300, .body_bytes_max = 50, .idle_ms = 1000};

/* Feeds in pieces of `step`; returns what the last feed said. */
static int feed(struct hw_http_message *m, const char *text, size_t len, size_t step, size_t *taken)
{
    int rc = 0;
    *taken = 0;
    while (rc == 0 && *taken < len) {
        size_t used;
        size_t n = len - *taken < step ? len - *taken : step;
        rc = hw_http_message_feed(m, (const uint8_t *)text + *taken, n, &used);
        *taken += used;
    }
    return rc;
}

static void a_request_is_read_however_it_is_cut(void)
{
    static const char text[] = "POST /a%20b/c?x=1&y=%26+z&flag&=&x=2 HTTP/1.1\r\nHost: h\r\nX-Empty:\r\n"
                               "X-Long-Name:  v w \r\nContent-Length: 5\r\n\r\nhello";
    for (size_t step = 1; step <= sizeof text; step++) {
        struct hw_http_message m;
        size_t taken;
        REQUIRE(hw_http_message_init(&m, &limits) == 0);
        CHECK_EQ(feed(&m, text, sizeof text - 1, step, &taken), 1);
        CHECK_EQ(taken, sizeof text - 1);
        CHECK_STR(m.method, "POST");
        CHECK_STR((char *)m.path.data, "/a b/c");
        CHECK_STR(hw_http_message_query(&m, "x"), "1");
        CHECK_STR(hw_http_message_query(&m, "y"), "& z");
        CHECK_STR(hw_http_message_query(&m, "flag"), "");
        CHECK(hw_http_message_query(&m, "z") == NULL);
        CHECK_STR(hw_http_message_field(&m, "host"), "h");
        CHECK_STR(hw_http_message_field(&m, "x-empty"), "");
        CHECK_STR(hw_http_message_field(&m, "x-long-name"), "v w ");
        CHECK(hw_http_message_field(&m, "x-none") == NULL);
        CHECK(m.body.len == 5 && memcmp(m.body.data, "hello", 5) == 0);
        CHECK(m.keeps_alive && !m.is_head);
        hw_http_message_free(&m);
    }
}

static void chunks_become_one_body_and_trailers_are_dropped(void)
{
    static const char text[] = "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n";
    for (size_t step = 1; step <= sizeof text; step++) {
        struct hw_http_message m;
        size_t taken;
        REQUIRE(hw_http_message_init(&m, &limits) == 0);
        CHECK_EQ(feed(&m, text, sizeof text - 1, step, &taken), 1);
        CHECK(m.body.len == 5 && memcmp(m.body.data, "abcde", 5) == 0);
        CHECK(hw_http_message_field(&m, "x-trailer") == NULL);
        CHECK_STR(hw_http_message_field(&m, "transfer-encoding"), "chunked");
        hw_http_message_free(&m);
    }
}

static void what_follows_a_request_is_left(void)
{
    static const char text[] = "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
                               "GET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    struct hw_http_message m;
    size_t first;
    size_t second;
    REQUIRE(hw_http_message_init(&m, &limits) == 0);
    CHECK_EQ(feed(&m, text, sizeof text - 1, sizeof text, &first), 1);
    CHECK_STR((char *)m.path.data, "/1");
    CHECK(m.keeps_alive);
    hw_http_message_reset(&m);
    CHECK_EQ(feed(&m, text + first, sizeof text - 1 - first, sizeof text, &second), 1);
    CHECK_STR((char *)m.path.data, "/2");
    CHECK(!m.keeps_alive);
    CHECK_EQ(first + second, sizeof text - 1);
    hw_http_message_free(&m);
}

static void bad_requests_have_their_status(void)
{
    char long_path[400] = "GET /";
    char long_field[500] = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
    const struct {
        const char *text;
        int status;
    } all[] = {
        {"BREW / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505},
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: h\r\nBad Name: x\r\n\r\n", 400},
        {"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400},
        {"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
        {"GET /?a=%0 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
        {"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400},
        {"CONNECT a:1 HTTP/1.1\r\nHost: h\r\n\r\n", 405},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 51\r\n\r\n", 413},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3c\r\n"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         413},
        {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: h\r\nX: a\x01\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n", 417},
        {long_path, 414},
        {long_field, 431},
    };
    memset(long_path + 5, 'a', sizeof long_path - 6);
    memset(long_field + strlen(long_field), 'a', sizeof long_field - 1 - strlen(long_field));
    for (size_t i = 0; i < hw_array_len(all); i++) {
        struct hw_http_message m;
        size_t taken;
        REQUIRE(hw_http_message_init(&m, &limits) == 0);
        CHECK_EQ(feed(&m, all[i].text, strlen(all[i].text), 7, &taken), HW_ERR_PROTOCOL);
        if (m.error_status != all[i].status) {
            fprintf(stderr, "case %zu: %d\n", i, m.error_status);
        }
        CHECK_EQ(m.error_status, all[i].status);
        CHECK(m.error_text != NULL);
        hw_http_message_free(&m);
    }
}

/* The parser itself lets it pass; handlers would see half of the value. */
static void a_zero_byte_in_a_field_is_refused(void)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n";
    struct hw_http_message m;
    size_t taken;
    REQUIRE(hw_http_message_init(&m, &limits) == 0);
    CHECK_EQ(feed(&m, text, sizeof text - 1, sizeof text, &taken), HW_ERR_PROTOCOL);
    CHECK_EQ(m.error_status, 400);
    hw_http_message_free(&m);
}

static void too_many_fields_are_refused(void)
{
    struct hw_http_limits wide = {.header_bytes_max = 100000, .body_bytes_max = 0, .idle_ms = 1};
    struct hw_http_message m;
    struct hw_buf text = {0};
    size_t taken;
    hw_buf_append_str(&text, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 100; i++) {
        hw_buf_append_str(&text, "A: b\r\n");
    }
    hw_buf_append_str(&text, "\r\n");
    REQUIRE(hw_http_message_init(&m, &wide) == 0);
    CHECK_EQ(feed(&m, (char *)text.data, text.len, text.len, &taken), HW_ERR_PROTOCOL);
    CHECK_EQ(m.error_status, 431);
    hw_http_message_free(&m);
    hw_buf_free(&text);
}

static void a_client_that_waits_is_noticed(void)
{
    static const char head[] = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    struct hw_http_message m;
    size_t taken;
    REQUIRE(hw_http_message_init(&m, &limits) == 0);
    CHECK_EQ(feed(&m, head, sizeof head - 1, sizeof head, &taken), 0);
    CHECK(m.wants_continue);
    CHECK_EQ(feed(&m, "ok", 2, 2, &taken), 1);
    CHECK(!m.wants_continue);
    hw_http_message_free(&m);
}

static void an_upgrade_offer_is_ignored(void)
{
    static const char text[] =
        "POST /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok";
    struct hw_http_message m;
    size_t taken;
    REQUIRE(hw_http_message_init(&m, &limits) == 0);
    CHECK_EQ(feed(&m, text, sizeof text - 1, 3, &taken), 1);
    CHECK_EQ(m.body.len, 2);
    hw_http_message_free(&m);
}

HW_SUITE(http_message, HW_CASE(a_request_is_read_however_it_is_cut),
         HW_CASE(chunks_become_one_body_and_trailers_are_dropped), HW_CASE(what_follows_a_request_is_left),
         HW_CASE(bad_requests_have_their_status), HW_CASE(a_zero_byte_in_a_field_is_refused),
         HW_CASE(too_many_fields_are_refused), HW_CASE(a_client_that_waits_is_noticed),
         HW_CASE(an_upgrade_offer_is_ignored))
