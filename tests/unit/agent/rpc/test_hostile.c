/* Clients that break the rules, over raw sockets: the server answers or closes, counts, and serves the others on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/agent/rpc/rig.h"

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, CONTINUATION = 9 };

#define ERRORS "hotwarm_grpc_protocol_errors_total"

static void others_are_served(struct rpc_rig *rig)
{
    struct rpc_probe p;
    CHECK_EQ(rpc_probe_start(&p, rig->channel, "Echo", "still here", 5000), 0);
    CHECK(rpc_rig_until(rig, &p.is_done, 5000));
    CHECK_EQ(p.status, HW_GRPC_OK);
    rpc_probe_free(&p);
}

/* Sends bytes after the preface; the connection must end with GOAWAY and be counted. */
static void expect_goaway(uint8_t type, uint8_t flags, uint32_t id, const void *payload, size_t len)
{
    struct rpc_rig rig;
    struct hw_buf in = {0};
    unsigned count;
    int fd;
    rpc_rig_open(&rig, NULL);
    fd = rpc_raw_connect(rig.address);
    rpc_raw_preface(fd);
    rpc_raw_frame(fd, type, flags, id, payload, len);
    CHECK(rpc_raw_read(&rig, fd, &in, 3000));
    rpc_raw_find(&in, GOAWAY, 0, &count);
    CHECK_EQ(count, 1);
    CHECK_EQ(rpc_rig_metric(&rig, ERRORS), 1);
    others_are_served(&rig);
    close(fd);
    rpc_rig_turns(&rig, 30);
    CHECK_EQ(hw_rpc_server_connection_count(rig.server), 1);
    hw_buf_free(&in);
    rpc_rig_close(&rig);
}

static void a_client_that_says_nothing_is_closed(void)
{
    struct hw_rpc_limits limits;
    struct rpc_rig rig;
    struct hw_buf in = {0};
    int fd;
    hw_rpc_limits_default(&limits);
    limits.ping_timeout_ms = 20;
    rpc_rig_open(&rig, &limits);
    fd = rpc_raw_connect(rig.address);
    CHECK(rpc_raw_read(&rig, fd, &in, 2000));
    CHECK_EQ(rpc_rig_metric(&rig, ERRORS), 1);
    hw_channel_keep(rig.channel);
    rpc_rig_turns(&rig, 200); /* those that have said hello stay */
    CHECK(hw_channel_is_up(rig.channel));
    CHECK_EQ(rig.downs, 0);
    close(fd);
    hw_buf_free(&in);
    rpc_rig_close(&rig);
}

static void data_on_stream_zero_ends_the_connection(void)
{
    expect_goaway(DATA, 0, 0, "abc", 3);
}

static void a_ping_of_the_wrong_size_ends_the_connection(void)
{
    expect_goaway(PING, 0, 0, "1234", 4);
}

static void an_oversized_frame_ends_the_connection(void)
{
    uint8_t *bytes = calloc(1, 70000);
    expect_goaway(HEADERS, 4, 1, bytes, 70000);
    free(bytes);
}

static void broken_header_compression_ends_the_connection(void)
{
    expect_goaway(HEADERS, 5, 1, "\xff\xff\xff\xff\xff\xff\xff", 7);
}

static void a_continuation_alone_ends_the_connection(void)
{
    expect_goaway(CONTINUATION, 4, 1, "x", 1);
}

static void a_bad_preface_is_closed(void)
{
    struct rpc_rig rig;
    struct hw_buf in = {0};
    int fd;
    rpc_rig_open(&rig, NULL);
    fd = rpc_raw_connect(rig.address);
    rpc_raw_send(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
    CHECK(rpc_raw_read(&rig, fd, &in, 3000));
    CHECK_EQ(rpc_rig_metric(&rig, ERRORS), 1);
    others_are_served(&rig);
    close(fd);
    hw_buf_free(&in);
    rpc_rig_close(&rig);
}

/* A call whose one DATA frame is `bytes`. The answer's headers may be Huffman-coded: the status is looked up in the
 * server's metrics. */
static void expect_status(const void *bytes, size_t len, const char *code)
{
    struct rpc_rig rig;
    struct hw_buf in = {0};
    char sample[128];
    unsigned count;
    int fd;
    rpc_rig_open(&rig, NULL);
    fd = rpc_raw_connect(rig.address);
    rpc_raw_preface(fd);
    rpc_raw_headers(fd, 1, "/t.T/Echo", NULL, NULL, false);
    rpc_raw_frame(fd, DATA, 1, 1, bytes, len);
    CHECK(!rpc_raw_read(&rig, fd, &in, 100));
    rpc_raw_find(&in, HEADERS, 1, &count);
    CHECK_EQ(count, 1); /* trailers only */
    rpc_raw_find(&in, GOAWAY, 0, &count);
    CHECK_EQ(count, 0);
    snprintf(sample, sizeof sample, "hotwarm_grpc_requests_total{method=\"t.T/Echo\",code=\"%s\"}", code);
    CHECK_EQ(rpc_rig_metric(&rig, sample), 1);
    CHECK_EQ(rpc_rig_metric(&rig, "hotwarm_grpc_in_flight"), 0);
    close(fd);
    hw_buf_free(&in);
    rpc_rig_close(&rig);
}

static void a_compressed_message_is_unimplemented(void)
{
    expect_status("\x01\0\0\0\x01x", 6, "UNIMPLEMENTED");
}

static void an_unknown_message_flag_is_internal(void)
{
    expect_status("\x07\0\0\0\x01x", 6, "INTERNAL");
}

static void a_cut_off_message_is_internal(void)
{
    expect_status("\0\0\0\0\x05xy", 7, "INTERNAL");
}

static void a_call_without_a_message_is_internal(void)
{
    expect_status("", 0, "INTERNAL");
}

static void an_oversized_claim_is_refused_before_its_bytes(void)
{
    expect_status("\0\x20\0\0\x01", 5, "RESOURCE_EXHAUSTED");
}

static void another_content_type_is_415(void)
{
    struct rpc_rig rig;
    struct hw_buf in = {0};
    struct hw_slice headers;
    int fd;
    rpc_rig_open(&rig, NULL);
    fd = rpc_raw_connect(rig.address);
    rpc_raw_preface(fd);
    rpc_raw_headers(fd, 1, "/t.T/Echo", "content-type", "application/json", true);
    rpc_raw_headers(fd, 3, "/t.T/Echo", "content-type", "application/grpcx", true);
    rpc_raw_headers(fd, 5, "/t.T/Hold", "content-type", "application/grpc+proto", false);
    rpc_raw_frame(fd, DATA, 1, 5, "\0\0\0\0\0", 5);
    rpc_raw_read(&rig, fd, &in, 100);
    headers = rpc_raw_find(&in, HEADERS, 1, NULL);
    CHECK(headers.data != NULL);
    CHECK(rpc_raw_find(&in, HEADERS, 3, NULL).data != NULL);
    CHECK_EQ(rpc_rig_metric(&rig, "hotwarm_grpc_requests_total{method=\"t.T/Echo\",code=\"UNKNOWN\"}"), 2);
    CHECK_EQ(rig.held_count, 1);
    close(fd);
    hw_buf_free(&in);
    rpc_rig_close(&rig);
}

static void too_long_headers_are_refused(void)
{
    struct hw_rpc_limits limits;
    struct rpc_rig rig;
    char big[121];
    int fd;
    struct hw_buf in = {0};
    hw_rpc_limits_default(&limits);
    limits.header_bytes_max = 350;
    memset(big, 'a', 120);
    big[120] = '\0';
    rpc_rig_open(&rig, &limits);
    fd = rpc_raw_connect(rig.address);
    rpc_raw_preface(fd);
    rpc_raw_headers(fd, 1, "/t.T/Hold", "x-big", big, true);
    rpc_raw_read(&rig, fd, &in, 100);
    CHECK(rpc_raw_find(&in, HEADERS, 1, NULL).data != NULL);
    CHECK_EQ(rig.held_count, 0);
    CHECK_EQ(rpc_rig_metric(&rig, "code=\"RESOURCE_EXHAUSTED\"}"), 1);
    close(fd);
    hw_buf_free(&in);
    rpc_rig_close(&rig);
}

static void a_header_flood_is_cut(void)
{
    struct rpc_rig rig;
    struct hw_buf in = {0};
    struct hw_buf block = {0};
    unsigned count;
    int fd;
    rpc_rig_open(&rig, NULL);
    for (int i = 0; i < 800; i++) {
        hw_buf_append(&block, "\0\x05x-big\x05value", 13);
    }
    fd = rpc_raw_connect(rig.address);
    rpc_raw_preface(fd);
    rpc_raw_frame(fd, HEADERS, 0, 1, block.data, block.len);
    for (int i = 0; i < 200; i++) {
        rpc_raw_frame(fd, CONTINUATION, 0, 1, block.data, block.len);
    }
    CHECK(rpc_raw_read(&rig, fd, &in, 3000));
    rpc_raw_find(&in, GOAWAY, 0, &count);
    CHECK_EQ(rpc_rig_metric(&rig, ERRORS), 1);
    others_are_served(&rig);
    close(fd);
    hw_buf_free(&in);
    hw_buf_free(&block);
    rpc_rig_close(&rig);
}

static void rapid_resets_end_the_connection(void)
{
    struct rpc_rig rig;
    struct hw_buf in = {0};
    bool is_closed = false;
    unsigned count;
    int fd;
    rpc_rig_open(&rig, NULL);
    fd = rpc_raw_connect(rig.address);
    rpc_raw_preface(fd);
    for (uint32_t id = 1; id < 20001 && !is_closed; id += 2) {
        rpc_raw_headers(fd, id, "/t.T/Hold", NULL, NULL, false);
        rpc_raw_frame(fd, DATA, 0, id, "\0\0\0\0\0", 5);
        rpc_raw_frame(fd, RST_STREAM, 0, id, "\0\0\0\x08", 4);
        if (id % 64 == 1) {
            is_closed = rpc_raw_read(&rig, fd, &in, 1);
        }
    }
    CHECK(is_closed || rpc_raw_read(&rig, fd, &in, 3000));
    rpc_raw_find(&in, GOAWAY, 0, &count);
    CHECK_EQ(rpc_rig_metric(&rig, ERRORS), 1);
    CHECK(rig.held_count < 6000);
    CHECK_EQ(rig.cancels, rig.held_count);
    others_are_served(&rig);
    close(fd);
    hw_buf_free(&in);
    rpc_rig_close(&rig);
}

static void flood(uint8_t type, size_t len)
{
    struct rpc_rig rig;
    struct hw_buf in = {0};
    bool is_closed = false;
    int fd;
    rpc_rig_open(&rig, NULL);
    fd = rpc_raw_connect(rig.address);
    rpc_raw_preface(fd);
    for (int i = 0; i < 20000 && !is_closed; i++) {
        rpc_raw_frame(fd, type, 0, 0, "\0\0\0\0\0\0\0\0", len);
        if (i % 256 == 0) {
            is_closed = rpc_raw_read(&rig, fd, &in, 1);
        }
    }
    CHECK(is_closed || rpc_raw_read(&rig, fd, &in, 3000));
    CHECK_EQ(rpc_rig_metric(&rig, ERRORS), 1);
    others_are_served(&rig);
    close(fd);
    hw_buf_free(&in);
    rpc_rig_close(&rig);
}

static void a_ping_flood_ends_the_connection(void)
{
    flood(PING, 8);
}

static void a_settings_flood_ends_the_connection(void)
{
    flood(SETTINGS, 0);
}

static void streams_beyond_the_limit_are_refused(void)
{
    struct hw_rpc_limits limits;
    struct rpc_rig rig;
    struct hw_buf in = {0};
    unsigned resets;
    int fd;
    hw_rpc_limits_default(&limits);
    limits.streams_max = 3;
    rpc_rig_open(&rig, &limits);
    fd = rpc_raw_connect(rig.address);
    rpc_raw_preface(fd);
    for (uint32_t id = 1; id <= 9; id += 2) {
        rpc_raw_headers(fd, id, "/t.T/Hold", NULL, NULL, false);
        rpc_raw_frame(fd, DATA, 1, id, "\0\0\0\0\0", 5);
    }
    rpc_raw_read(&rig, fd, &in, 100);
    rpc_raw_find(&in, RST_STREAM, UINT32_MAX, &resets);
    CHECK_EQ(rig.held_count, 3);
    CHECK_EQ(resets, 2);
    close(fd);
    rpc_rig_turns(&rig, 50);
    CHECK_EQ(rig.cancels, 3);
    hw_buf_free(&in);
    rpc_rig_close(&rig);
}

/* It asks for much and takes nothing: the server holds a bounded queue and goes on with the others. */
static void a_peer_that_never_reads_holds_only_itself(void)
{
    struct rpc_rig rig;
    int small = 4096;
    int fd;
    rpc_rig_open(&rig, NULL);
    fd = rpc_raw_connect(rig.address);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    rpc_raw_preface(fd);
    /* Its windows are wide open, so only the socket holds the server back. */
    rpc_raw_frame(fd, SETTINGS, 0, 0, "\0\4\x7f\xff\xff\xff", 6);
    rpc_raw_frame(fd, 8, 0, 0, "\x7f\0\0\0", 4);
    for (uint32_t id = 1; id <= 19; id += 2) {
        rpc_raw_headers(fd, id, "/t.T/Count", NULL, NULL, false);
        rpc_raw_frame(fd, DATA, 1, id,
                      "\0\0\0\0\x0d"
                      "1000000 10000",
                      18);
    }
    rpc_rig_turns(&rig, 300);
    CHECK(rig.queued_max < 100 * 1024);
    others_are_served(&rig);
    close(fd);
    CHECK(rpc_rig_until_count(&rig, &rig.cancels, 10, 3000));
    rpc_rig_close(&rig);
}

/* As before, but what piles up are answers to its own pings: they are bounded, too. */
static void a_peer_that_pings_and_never_reads_is_closed(void)
{
    struct rpc_rig rig;
    int fd;
    rpc_rig_open(&rig, NULL);
    hw_channel_keep(rig.channel);
    fd = rpc_raw_connect(rig.address);
    rpc_raw_preface(fd);
    for (int i = 0; i < 100; i++) {
        for (int k = 0; k < 200; k++) {
            rpc_raw_frame(fd, PING, 0, 0, "12345678", 8);
        }
        rpc_rig_turns(&rig, 2);
    }
    rpc_rig_turns(&rig, 1500);
    CHECK_EQ(rpc_rig_metric(&rig, ERRORS), 1);
    CHECK_EQ(hw_rpc_server_connection_count(rig.server), 1);
    others_are_served(&rig);
    close(fd);
    rpc_rig_close(&rig);
}

/* Many messages that never end: one connection may not hold streams_max times message_bytes_max. */
static void unfinished_messages_are_bounded(void)
{
    struct hw_rpc_limits limits;
    struct rpc_rig rig;
    struct hw_buf in = {0};
    static uint8_t piece[16384];
    unsigned answers = 0;
    int fd;
    hw_rpc_limits_default(&limits);
    limits.message_bytes_max = 4 * 1024 * 1024;
    rpc_rig_open(&rig, &limits);
    fd = rpc_raw_connect(rig.address);
    rpc_raw_preface(fd);
    memcpy(piece, "\0\0\x3f\xff\xff", 5);
    for (uint32_t id = 1; id < 2 * 64; id += 2) {
        rpc_raw_headers(fd, id, "/t.T/Echo", NULL, NULL, false);
        for (int i = 0; i < 60; i++) { /* below the window of a stream */
            rpc_raw_frame(fd, DATA, 0, id, piece, sizeof piece);
            if (i == 0) {
                memset(piece, 0, 5);
            }
            rpc_raw_read(&rig, fd, &in, 1);
        }
        memcpy(piece, "\0\0\x3f\xff\xff", 5);
    }
    rpc_raw_read(&rig, fd, &in, 100);
    rpc_raw_find(&in, HEADERS, UINT32_MAX, &answers);
    CHECK(answers > 10);
    CHECK_EQ(rpc_rig_metric(&rig, "code=\"RESOURCE_EXHAUSTED\"}"), answers);
    others_are_served(&rig);
    close(fd);
    hw_buf_free(&in);
    rpc_rig_close(&rig);
}

HW_SUITE(rpc_hostile, HW_CASE(a_bad_preface_is_closed), HW_CASE(a_client_that_says_nothing_is_closed),
         HW_CASE(data_on_stream_zero_ends_the_connection), HW_CASE(a_ping_of_the_wrong_size_ends_the_connection),
         HW_CASE(an_oversized_frame_ends_the_connection), HW_CASE(broken_header_compression_ends_the_connection),
         HW_CASE(a_continuation_alone_ends_the_connection), HW_CASE(a_compressed_message_is_unimplemented),
         HW_CASE(an_unknown_message_flag_is_internal), HW_CASE(a_cut_off_message_is_internal),
         HW_CASE(a_call_without_a_message_is_internal), HW_CASE(an_oversized_claim_is_refused_before_its_bytes),
         HW_CASE(another_content_type_is_415), HW_CASE(too_long_headers_are_refused), HW_CASE(a_header_flood_is_cut),
         HW_CASE(rapid_resets_end_the_connection), HW_CASE(a_ping_flood_ends_the_connection),
         HW_CASE(a_settings_flood_ends_the_connection), HW_CASE(streams_beyond_the_limit_are_refused),
         HW_CASE(a_peer_that_never_reads_holds_only_itself), HW_CASE(a_peer_that_pings_and_never_reads_is_closed),
         HW_CASE(unfinished_messages_are_bounded))
