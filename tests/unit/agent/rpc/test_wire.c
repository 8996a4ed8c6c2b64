#include <string.h>

#include "agent/base/assert.h"
#include "agent/rpc/wire.h"
#include "tests/unit/hw_test.h"

static void timeouts_have_six_units(void)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"1H", 3600000}, {"2M", 120000}, {"3S", 3000},
                {"4m", 4},       {"1u", 1},      {"1001u", 2},
                {"1n", 1},       {"0n", 0},      {"99999999H", 359999996400000}};
    static const char *const bad[] = {"", "1", "S", "-1S", "1s", "123456789m", "1.5S", " 1S"};
    uint64_t ms;
    for (size_t i = 0; i < hw_array_len(good); i++) {
        CHECK_EQ(hw_wire_timeout_parse(hw_slice_str(good[i].text), &ms), 0);
        CHECK_EQ(ms, good[i].ms);
    }
    for (size_t i = 0; i < hw_array_len(bad); i++) {
        CHECK_EQ(hw_wire_timeout_parse(hw_slice_str(bad[i]), &ms), HW_ERR_INVALID);
    }
}

static void a_timeout_is_never_written_shorter(void)
{
    static const uint64_t all[] = {0, 1, 99999999, 100000000, 99999999000, 100000000001, 6000000000001};
    char text[HW_WIRE_TIMEOUT_SIZE];
    for (size_t i = 0; i < hw_array_len(all); i++) {
        uint64_t ms;
        hw_wire_timeout_format(all[i], text);
        CHECK_EQ(hw_wire_timeout_parse(hw_slice_str(text), &ms), 0);
        CHECK(ms >= all[i] && ms - all[i] <= 3600000);
    }
    hw_wire_timeout_format(UINT64_MAX, text);
    CHECK_STR(text, "99999999H");
}

static void texts_survive_percent_encoding(void)
{
    static const char text[] = "50% of\tcaf\xc3\xa9\n";
    struct hw_buf coded = {0};
    struct hw_buf plain = {0};
    hw_wire_text_encode(text, &coded);
    CHECK_EQ(coded.len, strlen("50%25 of%09caf%C3%A9%0A"));
    CHECK(memcmp(coded.data, "50%25 of%09caf%C3%A9%0A", coded.len) == 0);
    hw_wire_text_decode(hw_buf_slice(&coded), &plain);
    CHECK(plain.len == strlen(text) && memcmp(plain.data, text, plain.len) == 0);
    hw_buf_clear(&plain);
    hw_wire_text_decode(hw_slice_str("%zz%4"), &plain);
    CHECK(plain.len == 5 && memcmp(plain.data, "%zz%4", 5) == 0);
    hw_buf_free(&coded);
    hw_buf_free(&plain);
}

/* Three messages (4, 0 and 3 bytes) cut at every place. */
static void messages_come_out_however_they_are_cut(void)
{
    static const uint8_t bytes[] = {0, 0, 0, 0, 4, 'a', 'b', 'c', 'd', 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 'x', 'y', 'z'};
    for (size_t step = 1; step <= sizeof bytes; step++) {
        struct hw_wire_in in = {0};
        char seen[32] = "";
        for (size_t at = 0; at < sizeof bytes; at += step) {
            const uint8_t *data = bytes + at;
            size_t len = sizeof bytes - at < step ? sizeof bytes - at : step;
            struct hw_slice m;
            int rc;
            while ((rc = hw_wire_next(&in, &data, &len, 100, &m)) == 1) {
                size_t used = strlen(seen);
                snprintf(seen + used, sizeof seen - used, "%.*s|", (int)m.len, (const char *)m.data);
                if (len == 0) {
                    break;
                }
            }
            CHECK(rc >= 0);
        }
        CHECK_STR(seen, "abcd||xyz|");
        CHECK(!hw_wire_is_partial(&in));
        hw_wire_reset(&in, 0);
    }
}

static int feed(const void *bytes, size_t len, size_t max, struct hw_wire_in *in)
{
    const uint8_t *data = bytes;
    struct hw_slice m;
    return hw_wire_next(in, &data, &len, max, &m);
}

static void bad_prefixes_are_told_apart(void)
{
    struct hw_wire_in in = {0};
    CHECK_EQ(feed("\x01\0\0\0\1x", 6, 100, &in), HW_ERR_UNIMPLEMENTED);
    hw_wire_reset(&in, 0);
    CHECK_EQ(feed("\x02\0\0\0\1x", 6, 100, &in), HW_ERR_PROTOCOL);
    hw_wire_reset(&in, 0);
    CHECK_EQ(feed("\0\0\0\0\x65", 5, 100, &in), HW_ERR_TOOBIG);
    CHECK_EQ(in.want, 101);
    hw_wire_reset(&in, 0);
    CHECK_EQ(feed("\0\0\0\0\x64", 5, 100, &in), 0);
    CHECK(hw_wire_is_partial(&in));
    hw_wire_reset(&in, 0);
}

static void an_announced_length_takes_no_memory(void)
{
    struct hw_wire_in in = {0};
    CHECK_EQ(feed("\0\x7f\xff\xff\xffx", 6, SIZE_MAX, &in), 0);
    CHECK(in.body.cap <= 64 * 1024);
    hw_wire_reset(&in, 0);
}

static void unknown_statuses_are_unknown(void)
{
    CHECK_EQ(hw_wire_status_parse(hw_slice_str("0")), HW_GRPC_OK);
    CHECK_EQ(hw_wire_status_parse(hw_slice_str("16")), HW_GRPC_UNAUTHENTICATED);
    CHECK_EQ(hw_wire_status_parse(hw_slice_str("17")), HW_GRPC_UNKNOWN);
    CHECK_EQ(hw_wire_status_parse(hw_slice_str("x")), HW_GRPC_UNKNOWN);
    CHECK_EQ(hw_wire_status_parse(hw_slice_str("")), HW_GRPC_UNKNOWN);
    CHECK_STR(hw_wire_status_name(HW_GRPC_UNAVAILABLE), "UNAVAILABLE");
    CHECK_EQ(hw_wire_status_of_http(503), HW_GRPC_UNAVAILABLE);
    CHECK_EQ(hw_wire_status_of_http(404), HW_GRPC_UNIMPLEMENTED);
    CHECK_EQ(hw_wire_status_of_reset(7), HW_GRPC_UNAVAILABLE);
    CHECK_EQ(hw_wire_status_of_reset(8), HW_GRPC_CANCELLED);
    CHECK_EQ(hw_wire_status_of_reset(1), HW_GRPC_INTERNAL);
}

HW_SUITE(rpc_wire, HW_CASE(timeouts_have_six_units), HW_CASE(a_timeout_is_never_written_shorter),
         HW_CASE(texts_survive_percent_encoding), HW_CASE(messages_come_out_however_they_are_cut),
         HW_CASE(bad_prefixes_are_told_apart), HW_CASE(an_announced_length_takes_no_memory),
         HW_CASE(unknown_statuses_are_unknown))
