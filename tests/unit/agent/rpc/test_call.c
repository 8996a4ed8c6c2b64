#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "tests/unit/agent/rpc/rig.h"

static void a_unary_call_is_answered(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Echo", "hello", 5000), 0);
    CHECK(!p.is_done);
    CHECK(rpc_rig_until(&rig, &p.is_done, 5000));
    CHECK_EQ(p.status, HW_GRPC_OK);
    CHECK_EQ(p.messages, 1);
    CHECK_STR((char *)p.last.data, "hello");
    CHECK(rig.time_left_ms > 3000 && rig.time_left_ms <= 5000);
    CHECK(strncmp(rig.seen_peer, "127.0.0.1:", 10) == 0);
    CHECK_EQ(rig.ups, 1);
    CHECK_EQ(rpc_rig_metric(&rig, "hotwarm_grpc_requests_total{method=\"t.T/Echo\",code=\"OK\"}"), 1);
    CHECK_EQ(rpc_rig_metric(&rig, "hotwarm_grpc_request_seconds_count{method=\"t.T/Echo\"}"), 1);
    CHECK_EQ(rpc_rig_metric(&rig, "hotwarm_grpc_connections"), 1);
    CHECK_EQ(rpc_rig_metric(&rig, "hotwarm_grpc_in_flight"), 0);
    rpc_probe_free(&p);
    rpc_rig_close(&rig);
}

static void an_empty_message_is_a_message(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Echo", "", 0), 0);
    CHECK(rpc_rig_until(&rig, &p.is_done, 5000));
    CHECK_EQ(p.status, HW_GRPC_OK);
    CHECK_EQ(p.messages, 1);
    CHECK_EQ(p.bytes, 0);
    CHECK_EQ(rig.time_left_ms, UINT64_MAX);
    rpc_probe_free(&p);
    rpc_rig_close(&rig);
}

static void headers_reach_the_handler(void)
{
    static const char *const headers[] = {"x-other", "1", "x-test", "value", NULL};
    static const char *const bad[] = {"X-Upper", "1", NULL};
    static const char *const pseudo[] = {":path", "/", NULL};
    struct rpc_rig rig;
    struct rpc_probe p = {.r.ops = &rpc_probe_ops};
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(hw_request_start(rig.channel, &p.r, "/t.T/Echo", bad, 0, false, hw_slice_str(""), true), HW_ERR_INVALID);
    CHECK_EQ(hw_request_start(rig.channel, &p.r, "/t.T/Echo", pseudo, 0, false, hw_slice_str(""), true),
             HW_ERR_INVALID);
    CHECK_EQ(hw_request_start(rig.channel, &p.r, "/t.T/Echo", headers, 0, false, hw_slice_str(""), true), 0);
    CHECK(rpc_rig_until(&rig, &p.is_done, 5000));
    CHECK_STR(rig.seen_header, "value");
    rpc_probe_free(&p);
    rpc_rig_close(&rig);
}

static void ten_thousand_calls_share_one_connection(void)
{
    enum { COUNT = 10000 };
    struct rpc_rig rig;
    struct rpc_probe *all = calloc(COUNT, sizeof *all);
    int fine = 0;
    rpc_rig_open(&rig, NULL);
    for (int i = 0; i < COUNT; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        REQUIRE(rpc_probe_start(&all[i], rig.channel, "Echo", text, 30000) == 0);
    }
    for (int i = 0; i < COUNT; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        REQUIRE(rpc_rig_until(&rig, &all[i].is_done, 30000));
        fine += all[i].status == HW_GRPC_OK && all[i].ends == 1 && strcmp((char *)all[i].last.data, text) == 0;
        rpc_probe_free(&all[i]);
    }
    CHECK_EQ(fine, COUNT);
    CHECK_EQ(hw_rpc_server_connection_count(rig.server), 1);
    free(all);
    rpc_rig_close(&rig);
}

static void too_many_waiting_calls_are_refused(void)
{
    struct hw_rpc_limits limits;
    struct rpc_rig rig;
    struct rpc_probe all[33];
    hw_rpc_limits_default(&limits);
    limits.streams_max = 2;
    rpc_rig_open(&rig, &limits);
    rig.ends_on_cancel = true;
    for (int i = 0; i < 32; i++) {
        CHECK_EQ(rpc_probe_start(&all[i], rig.channel, "Echo", "x", 0), 0);
    }
    CHECK_EQ(rpc_probe_start(&all[32], rig.channel, "Echo", "x", 0), HW_ERR_EXHAUSTED);
    for (int i = 0; i < 32; i++) {
        CHECK(rpc_rig_until(&rig, &all[i].is_done, 5000));
        CHECK_EQ(all[i].status, HW_GRPC_OK);
        rpc_probe_free(&all[i]);
    }
    rpc_rig_close(&rig);
}

static void big_messages_pass_in_both_directions(void)
{
    struct rpc_rig rig;
    struct rpc_probe p = {.r.ops = &rpc_probe_ops};
    size_t len = 2 * 1024 * 1024;
    uint8_t *bytes = malloc(len);
    rpc_rig_open(&rig, NULL);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)(i * 7 + (i >> 12));
    }
    CHECK_EQ(hw_request_start(rig.channel, &p.r, "/t.T/Echo", NULL, 0, false, hw_slice_of(bytes, len), true), 0);
    CHECK(rpc_rig_until(&rig, &p.is_done, 10000));
    CHECK_EQ(p.status, HW_GRPC_OK);
    CHECK(p.last.len == len + 1 && memcmp(p.last.data, bytes, len) == 0);
    free(bytes);
    rpc_probe_free(&p);
    rpc_rig_close(&rig);
}

static void a_stream_of_messages_is_held_back(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Count", "5000 10000", 0), 0);
    CHECK(rpc_rig_until(&rig, &p.is_done, 20000));
    CHECK_EQ(p.status, HW_GRPC_OK);
    CHECK_EQ(p.messages, 5000);
    CHECK_EQ(p.bytes, 50000000);
    CHECK(rig.queued_max < 80 * 1024);
    CHECK(rig.drains > 100);
    rpc_probe_free(&p);
    rpc_rig_close(&rig);
}

static void both_sides_may_stream(void)
{
    struct rpc_rig rig;
    struct rpc_probe p = {.r.ops = &rpc_probe_ops};
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(hw_request_start(rig.channel, &p.r, "/t.T/Bidi", NULL, 0, false, hw_slice_str("one"), false), 0);
    CHECK(rpc_rig_until_count(&rig, &p.messages, 1, 5000));
    CHECK_STR((char *)p.last.data, "one");
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(hw_request_send(&p.r, hw_slice_str("more")), 0);
    }
    CHECK(hw_request_queued(&p.r) > 0);
    CHECK(rpc_rig_until_count(&rig, &p.messages, 101, 5000));
    CHECK_EQ(hw_request_queued(&p.r), 0);
    CHECK(p.drains > 0);
    CHECK(!p.is_done);
    hw_request_half_close(&p.r);
    CHECK_EQ(hw_request_send(&p.r, hw_slice_str("late")), HW_ERR_PRECONDITION);
    CHECK(rpc_rig_until(&rig, &p.is_done, 5000));
    CHECK_EQ(p.status, HW_GRPC_OK);
    CHECK_STR(p.text, "bye");
    rpc_probe_free(&p);
    rpc_rig_close(&rig);
}

static void a_client_may_stream_much(void)
{
    struct rpc_rig rig;
    struct rpc_probe p = {.r.ops = &rpc_probe_ops};
    static uint8_t piece[100000];
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(hw_request_start(rig.channel, &p.r, "/t.T/Sink", NULL, 0, false, hw_slice_of(NULL, 0), false), 0);
    for (int i = 0; i < 400; i++) {
        CHECK_EQ(hw_request_send(&p.r, hw_slice_of(piece, sizeof piece)), 0);
    }
    hw_request_half_close(&p.r);
    CHECK(rpc_rig_until(&rig, &p.is_done, 10000));
    CHECK_EQ(p.status, HW_GRPC_OK);
    CHECK_STR((char *)p.last.data, "40000000");
    rpc_probe_free(&p);
    rpc_rig_close(&rig);
}

static void a_status_text_arrives_whole(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Fail", "x", 0), 0);
    CHECK(rpc_rig_until(&rig, &p.is_done, 5000));
    CHECK_EQ(p.status, HW_GRPC_FAILED_PRECONDITION);
    CHECK_STR(p.text, "no: 100%\n\xc3\xa9");
    CHECK_EQ(p.messages, 0);
    rpc_probe_free(&p);
    rpc_rig_close(&rig);
}

static void an_unknown_method_is_unimplemented(void)
{
    static const struct {
        const char *path;
        const char *text;
    } all[] = {{"/t.T/Nope", "unknown method Nope for service t.T"},
               {"/no.Such/Echo", "unknown service no.Such"},
               {"/t.T/", "unknown method  for service t.T"},
               {"/Echo", "malformed method name: \"/Echo\""}};
    struct rpc_rig rig;
    rpc_rig_open(&rig, NULL);
    for (size_t i = 0; i < hw_array_len(all); i++) {
        struct rpc_probe p = {.r.ops = &rpc_probe_ops};
        CHECK_EQ(hw_request_start(rig.channel, &p.r, all[i].path, NULL, 0, false, hw_slice_str("x"), true), 0);
        CHECK(rpc_rig_until(&rig, &p.is_done, 5000));
        CHECK_EQ(p.status, HW_GRPC_UNIMPLEMENTED);
        CHECK_STR(p.text, all[i].text);
    }
    CHECK_EQ(rpc_rig_metric(&rig, "hotwarm_grpc_requests_total{method=\"unknown\",code=\"UNIMPLEMENTED\"}"), 4);
    rpc_rig_close(&rig);
}

static void an_oversized_message_is_refused_by_the_server(void)
{
    struct hw_rpc_limits limits;
    struct rpc_rig rig;
    struct rpc_probe p = {.r.ops = &rpc_probe_ops};
    struct rpc_probe q;
    static uint8_t bytes[3000];
    hw_rpc_limits_default(&limits);
    limits.message_bytes_max = 1000;
    rpc_rig_open(&rig, &limits);
    CHECK_EQ(hw_request_start(rig.channel, &p.r, "/t.T/Echo", NULL, 0, false, hw_slice_of(bytes, 1001), true), 0);
    CHECK(rpc_rig_until(&rig, &p.is_done, 5000));
    CHECK_EQ(p.status, HW_GRPC_RESOURCE_EXHAUSTED);
    CHECK_STR(p.text, "grpc: received message larger than max (1001 vs. 1000)");
    /* And by the client; the connection lives on. */
    CHECK_EQ(rpc_probe_start(&q, rig.channel, "Count", "3 1500", 0), 0);
    CHECK(rpc_rig_until(&rig, &q.is_done, 5000));
    CHECK_EQ(q.status, HW_GRPC_RESOURCE_EXHAUSTED);
    CHECK_STR(q.text, "grpc: received message larger than max (1500 vs. 1000)");
    CHECK_EQ(hw_rpc_server_connection_count(rig.server), 1);
    CHECK_EQ(rpc_rig_metric(&rig, "hotwarm_grpc_in_flight"), 0);
    rpc_rig_close(&rig);
}

static void the_client_keeps_its_deadline(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Hold", "x", 60), 0);
    CHECK(rpc_rig_until(&rig, &p.is_done, 2000));
    CHECK_EQ(p.status, HW_GRPC_DEADLINE_EXCEEDED);
    rpc_rig_turns(&rig, 30);
    CHECK_EQ(rig.held_count, 1);
    CHECK_EQ(rig.cancels, 1);
    CHECK_EQ(rpc_rig_metric(&rig, "hotwarm_grpc_in_flight"), 0);
    rpc_rig_close(&rig);
}

/* A client that announces a deadline and does not keep it itself. */
static void the_server_keeps_the_deadline_too(void)
{
    static const char *const headers[] = {"grpc-timeout", "50m", NULL};
    static const char *const bad[] = {"grpc-timeout", "1x", NULL};
    struct rpc_rig rig;
    struct rpc_probe p = {.r.ops = &rpc_probe_ops};
    struct rpc_probe q = {.r.ops = &rpc_probe_ops};
    rpc_rig_open(&rig, NULL);
    rig.ends_on_cancel = false;
    CHECK_EQ(hw_request_start(rig.channel, &p.r, "/t.T/Hold", headers, 0, false, hw_slice_str("x"), true), 0);
    CHECK(rpc_rig_until(&rig, &p.is_done, 2000));
    CHECK_EQ(p.status, HW_GRPC_DEADLINE_EXCEEDED);
    CHECK_STR(p.text, "context deadline exceeded");
    CHECK_EQ(rig.cancels, 1);
    CHECK(hw_call_is_cancelled(rig.held));
    CHECK_EQ(hw_call_send(rig.held, hw_slice_str("x")), HW_ERR_CANCELLED);
    hw_call_end(rig.held, HW_GRPC_OK, NULL);
    CHECK_EQ(rpc_rig_metric(&rig, "hotwarm_grpc_requests_total{method=\"t.T/Hold\",code=\"DEADLINE_EXCEEDED\"}"), 1);
    CHECK_EQ(hw_request_start(rig.channel, &q.r, "/t.T/Hold", bad, 0, false, hw_slice_str("x"), true), 0);
    CHECK(rpc_rig_until(&rig, &q.is_done, 2000));
    CHECK_EQ(q.status, HW_GRPC_INTERNAL);
    rpc_rig_close(&rig);
}

static void many_deadlines_fire_in_order(void)
{
    enum { COUNT = 200 };
    struct rpc_rig rig;
    struct rpc_probe *all = calloc(COUNT, sizeof *all);
    rpc_rig_open(&rig, NULL);
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(rpc_probe_start(&all[i], rig.channel, "Hold", "x", (uint64_t)(20 + (i * 37) % 100)), 0);
    }
    for (int i = 0; i < COUNT; i++) {
        CHECK(rpc_rig_until(&rig, &all[i].is_done, 2000));
        CHECK_EQ(all[i].status, HW_GRPC_DEADLINE_EXCEEDED);
        rpc_probe_free(&all[i]);
    }
    rpc_rig_turns(&rig, 50);
    CHECK_EQ(rig.cancels, rig.held_count);
    free(all);
    rpc_rig_close(&rig);
}

static void a_cancel_reaches_the_handler(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Hold", "x", 0), 0);
    CHECK(rpc_rig_until_count(&rig, &rig.held_count, 1, 2000));
    hw_request_cancel(&p.r);
    CHECK(!p.is_done);
    CHECK_EQ(hw_request_send(&p.r, hw_slice_str("x")), HW_ERR_CANCELLED);
    CHECK(rpc_rig_until(&rig, &p.is_done, 2000));
    CHECK_EQ(p.status, HW_GRPC_CANCELLED);
    CHECK(rpc_rig_until_count(&rig, &rig.cancels, 1, 2000));
    CHECK_EQ(p.ends, 1);
    CHECK_EQ(rpc_rig_metric(&rig, "hotwarm_grpc_requests_total{method=\"t.T/Hold\",code=\"CANCELLED\"}"), 1);
    rpc_rig_close(&rig);
}

static void a_cancel_in_the_turn_of_the_start_sends_nothing(void)
{
    struct rpc_rig rig;
    struct rpc_probe warm;
    struct rpc_probe p;
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(rpc_probe_start(&warm, rig.channel, "Echo", "x", 0), 0);
    CHECK(rpc_rig_until(&rig, &warm.is_done, 2000));
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Hold", "x", 0), 0);
    hw_request_cancel(&p.r);
    hw_request_cancel(&p.r);
    CHECK(rpc_rig_until(&rig, &p.is_done, 2000));
    rpc_rig_turns(&rig, 20);
    CHECK_EQ(p.status, HW_GRPC_CANCELLED);
    CHECK_EQ(p.ends, 1);
    CHECK_EQ(rig.cancels, rig.held_count);
    rpc_probe_free(&warm);
    rpc_rig_close(&rig);
}

static void a_stream_cut_off_by_its_client_ends_at_the_server(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Count", "1000000 10000", 0), 0);
    CHECK(rpc_rig_until_count(&rig, &p.messages, 50, 5000));
    hw_request_cancel(&p.r);
    CHECK(rpc_rig_until_count(&rig, &rig.cancels, 1, 5000));
    rpc_probe_free(&p);
    rpc_rig_close(&rig);
}

static void a_late_answer_after_the_connection_is_harmless(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    rpc_rig_open(&rig, NULL);
    rig.ends_on_cancel = false;
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Hold", "x", 0), 0);
    CHECK(rpc_rig_until_count(&rig, &rig.held_count, 1, 2000));
    hw_channel_free(rig.channel);
    rig.channel = NULL;
    CHECK(rpc_rig_until(&rig, &p.is_done, 2000));
    CHECK_EQ(p.status, HW_GRPC_CANCELLED);
    CHECK(rpc_rig_until_count(&rig, &rig.cancels, 1, 2000));
    CHECK_EQ(hw_rpc_server_connection_count(rig.server), 0);
    CHECK(strncmp(hw_call_peer(rig.held), "127.0.0.1", 9) == 0);
    CHECK_STR(hw_call_path(rig.held), "/t.T/Hold");
    hw_call_reply(rig.held, hw_slice_str("late"));
    rpc_rig_close(&rig);
}

static void a_full_send_queue_refuses(void)
{
    struct hw_rpc_limits limits;
    struct rpc_rig rig;
    struct rpc_probe p;
    static uint8_t bytes[60000];
    hw_rpc_limits_default(&limits);
    limits.send_queue_bytes_max = 100000;
    rpc_rig_open(&rig, &limits);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Hold", "x", 0), 0);
    CHECK(rpc_rig_until_count(&rig, &rig.held_count, 1, 2000));
    CHECK_EQ(hw_call_send(rig.held, hw_slice_of(bytes, sizeof bytes)), 0);
    CHECK_EQ(hw_call_send(rig.held, hw_slice_of(bytes, sizeof bytes)), HW_ERR_EXHAUSTED);
    CHECK_EQ(hw_call_queued(rig.held), sizeof bytes + 5);
    hw_call_end(rig.held, HW_GRPC_OK, NULL);
    CHECK(rpc_rig_until(&rig, &p.is_done, 2000));
    CHECK_EQ(p.bytes, sizeof bytes);
    rpc_probe_free(&p);
    rpc_rig_close(&rig);
}

static void a_shutdown_lets_calls_end(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    struct rpc_probe q;
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Hold", "x", 0), 0);
    CHECK(rpc_rig_until_count(&rig, &rig.held_count, 1, 2000));
    hw_listener_free(rig.listener);
    rig.listener = NULL;
    hw_rpc_server_shut(rig.server, 5000, NULL, NULL);
    CHECK(rpc_rig_until_count(&rig, &rig.downs, 1, 2000)); /* GOAWAY */
    CHECK(!p.is_done);
    hw_call_reply(rig.held, hw_slice_str("last"));
    CHECK(rpc_rig_until(&rig, &p.is_done, 2000));
    CHECK_EQ(p.status, HW_GRPC_OK);
    rpc_rig_turns(&rig, 50);
    CHECK_EQ(hw_rpc_server_connection_count(rig.server), 0);
    CHECK_EQ(rpc_probe_start(&q, rig.channel, "Echo", "x", 100), 0);
    CHECK(rpc_rig_until(&rig, &q.is_done, 2000));
    CHECK_EQ(q.status, HW_GRPC_DEADLINE_EXCEEDED);
    rpc_probe_free(&p);
    rpc_rig_close(&rig);
}

static void a_shutdown_cuts_calls_off_after_its_grace(void)
{
    struct rpc_rig rig;
    struct rpc_probe p;
    rpc_rig_open(&rig, NULL);
    CHECK_EQ(rpc_probe_start(&p, rig.channel, "Hold", "x", 0), 0);
    CHECK(rpc_rig_until_count(&rig, &rig.held_count, 1, 2000));
    rpc_rig_server_stop(&rig, 50);
    CHECK(rpc_rig_until(&rig, &p.is_done, 2000));
    CHECK_EQ(p.status, HW_GRPC_UNAVAILABLE);
    CHECK_STR(p.text, "the server is shutting down");
    CHECK_EQ(rig.cancels, 1);
    rpc_rig_close(&rig);
}

static void a_shutdown_without_connections_ends(void)
{
    struct rpc_rig rig;
    rpc_rig_open(&rig, NULL);
    rpc_rig_server_stop(&rig, 1000);
    rpc_rig_close(&rig);
}

HW_SUITE(rpc_call, HW_CASE(a_unary_call_is_answered), HW_CASE(an_empty_message_is_a_message),
         HW_CASE(headers_reach_the_handler), HW_CASE(ten_thousand_calls_share_one_connection),
         HW_CASE(too_many_waiting_calls_are_refused), HW_CASE(big_messages_pass_in_both_directions),
         HW_CASE(a_stream_of_messages_is_held_back), HW_CASE(both_sides_may_stream), HW_CASE(a_client_may_stream_much),
         HW_CASE(a_status_text_arrives_whole), HW_CASE(an_unknown_method_is_unimplemented),
         HW_CASE(an_oversized_message_is_refused_by_the_server), HW_CASE(the_client_keeps_its_deadline),
         HW_CASE(the_server_keeps_the_deadline_too), HW_CASE(many_deadlines_fire_in_order),
         HW_CASE(a_cancel_reaches_the_handler), HW_CASE(a_cancel_in_the_turn_of_the_start_sends_nothing),
         HW_CASE(a_stream_cut_off_by_its_client_ends_at_the_server),
         HW_CASE(a_late_answer_after_the_connection_is_harmless), HW_CASE(a_full_send_queue_refuses),
         HW_CASE(a_shutdown_lets_calls_end), HW_CASE(a_shutdown_cuts_calls_off_after_its_grace),
         HW_CASE(a_shutdown_without_connections_ends))
