#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/rng.h"
#include "tests/unit/hw_test.h"

#define N(rows) (sizeof(rows) / sizeof(rows)[0])

static void slices_compare_as_memcmp_with_the_shorter_first(void)
{
    static const struct {
        const char *a, *b;
        int order;
    } rows[] = {{"", "", 0},          {"", "a", -1},    {"a", "a", 0},      {"a", "b", -1},
                {"ab", "a", 1},       {"a", "ab", -1},  {"b", "ab", 1},     {"abc", "abd", -1},
                {"\x7f", "\x80", -1}, {"\xff", "a", 1}, {"same", "same", 0}};
    for (size_t i = 0; i < N(rows); i++) {
        int order = hw_slice_cmp(hw_slice_str(rows[i].a), hw_slice_str(rows[i].b));
        CHECK_EQ((order > 0) - (order < 0), rows[i].order);
        CHECK_EQ(hw_slice_is_equal(hw_slice_str(rows[i].a), hw_slice_str(rows[i].b)), rows[i].order == 0);
    }
    CHECK(hw_slice_is_equal(hw_slice_of(NULL, 0), hw_slice_str("")));
    CHECK(hw_slice_cmp(hw_slice_of("a\0b", 3), hw_slice_of("a\0c", 3)) < 0);
}

static void a_buffer_holds_what_was_appended(void)
{
    struct hw_buf b = {0};
    size_t len;
    uint8_t *data;
    hw_buf_free(&b); /* valid on zeros */
    CHECK_EQ(hw_buf_append(&b, NULL, 0), 0);
    CHECK_EQ(hw_buf_append_str(&b, "one "), 0);
    CHECK_EQ(hw_buf_printf(&b, "%d %s", 2, "three"), 0);
    CHECK_EQ(hw_buf_printf(&b, "%s", ""), 0);
    CHECK_EQ(b.len, 11);
    CHECK(hw_slice_is_equal(hw_buf_slice(&b), hw_slice_str("one 2 three")));
    hw_buf_consume(&b, 4);
    CHECK(hw_slice_is_equal(hw_buf_slice(&b), hw_slice_str("2 three")));
    hw_buf_consume(&b, 0);
    CHECK_EQ(b.len, 7);
    data = hw_buf_take(&b, &len);
    CHECK_EQ(len, 7);
    CHECK(memcmp(data, "2 three", 7) == 0);
    CHECK(b.data == NULL && b.len == 0 && b.cap == 0);
    free(data);
    hw_buf_append_str(&b, "x");
    hw_buf_consume(&b, 100); /* more than there is */
    CHECK_EQ(b.len, 0);
    hw_buf_free(&b);
    CHECK(b.data == NULL);
}

static void a_buffer_grows_over_any_length(void)
{
    struct hw_buf b = {0};
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (size_t i = 0; i < 200; i++) {
        CHECK_EQ(hw_buf_append(&b, text, i), 0);
        CHECK(b.cap >= b.len);
    }
    CHECK_EQ(b.len, 199 * 200 / 2);
    hw_buf_clear(&b);
    CHECK(b.len == 0 && b.cap > 0);
    CHECK_EQ(hw_buf_printf(&b, "<%s>", text), 0);
    CHECK_EQ(b.len, sizeof text - 1 + 2);
    CHECK(b.data[0] == '<' && b.data[b.len - 1] == '>');
    CHECK_EQ(hw_buf_reserve(&b, 5000), 0);
    CHECK(b.cap - b.len >= 5000);
    hw_buf_free(&b);
}

static void a_buffer_remembers_that_it_failed(void)
{
    struct hw_buf b = {0};
    hw_buf_append_str(&b, "kept");
    CHECK_EQ(hw_buf_reserve(&b, SIZE_MAX - 2), HW_ERR_NOMEM); /* the sum does not fit */
    CHECK(b.failed);
    hw_buf_append_str(&b, "!");
    CHECK(b.failed);
    CHECK(hw_slice_is_equal(hw_buf_slice(&b), hw_slice_str("kept!")));
    hw_buf_clear(&b);
    CHECK(!b.failed);
    hw_buf_free(&b);
}

static void numbers_are_little_endian(void)
{
    static const uint8_t expected[] = {0xab, 4, 3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1, 3, 'a', 'b', 'c'};
    struct hw_buf b = {0};
    struct hw_reader r;
    hw_buf_put_u8(&b, 0xab);
    hw_buf_put_u32(&b, 0x01020304);
    hw_buf_put_u64(&b, 0x0102030405060708);
    hw_buf_put_bytes(&b, hw_slice_str("abc"));
    CHECK(hw_slice_is_equal(hw_buf_slice(&b), hw_slice_of(expected, sizeof expected)));
    hw_reader_init(&r, b.data, b.len);
    CHECK_EQ(hw_reader_u8(&r), 0xab);
    CHECK_EQ(hw_reader_u32(&r), 0x01020304);
    CHECK_EQ(hw_reader_u64(&r), 0x0102030405060708);
    CHECK(hw_slice_is_equal(hw_reader_bytes(&r), hw_slice_str("abc")));
    CHECK(hw_reader_left(&r) == 0 && !r.failed);
    hw_buf_free(&b);
}

static void varints_come_back_and_have_their_size(void)
{
    static const struct {
        uint64_t v;
        size_t size;
    } rows[] = {{0, 1},     {1, 1},          {127, 1},        {128, 2},         {16383, 2},
                {16384, 3}, {UINT32_MAX, 5}, {1ull << 62, 9}, {1ull << 63, 10}, {UINT64_MAX, 10}};
    for (size_t i = 0; i < N(rows); i++) {
        struct hw_buf b = {0};
        struct hw_reader r;
        hw_buf_put_varint(&b, rows[i].v);
        CHECK_EQ(b.len, rows[i].size);
        hw_reader_init(&r, b.data, b.len);
        CHECK_EQ(hw_reader_varint(&r), rows[i].v);
        CHECK(!r.failed && hw_reader_left(&r) == 0);
        for (size_t cut = 0; cut < b.len; cut++) {
            hw_reader_init(&r, b.data, cut);
            CHECK_EQ(hw_reader_varint(&r), 0);
            CHECK(r.failed);
        }
        hw_buf_free(&b);
    }
}

static void a_reader_refuses_what_is_not_there(void)
{
    static const struct {
        const char *data;
        size_t len;
    } bytes[] = {{"", 0},
                 {"\x01", 1},
                 {"\x05"
                  "abcd",
                  5},
                 {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
                  "a",
                  11}},
      varints[] = {{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10}, /* the 65th bit */
                   {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11}};
    struct hw_reader r;
    for (size_t i = 0; i < N(bytes); i++) {
        struct hw_slice s;
        hw_reader_init(&r, bytes[i].data, bytes[i].len);
        s = hw_reader_bytes(&r);
        CHECK(r.failed && s.len == 0);
    }
    for (size_t i = 0; i < N(varints); i++) {
        hw_reader_init(&r, varints[i].data, varints[i].len);
        CHECK_EQ(hw_reader_varint(&r), 0);
        CHECK(r.failed);
    }
    hw_reader_init(&r, "\x01\x02\x03", 3); /* after the first short read everything is zero */
    CHECK_EQ(hw_reader_u32(&r), 0);
    CHECK(r.failed);
    CHECK_EQ(hw_reader_u8(&r), 0);
    CHECK_EQ(hw_reader_varint(&r), 0);
    CHECK_EQ(hw_reader_bytes(&r).len, 0);
}

static void random_bytes_never_lead_outside(void)
{
    struct hw_rng rng;
    hw_rng_seed(&rng, 3);
    for (int turn = 0; turn < 5000; turn++) {
        size_t len = (size_t)hw_rng_below(&rng, 40);
        uint8_t *data = malloc(len > 0 ? len : 1); /* of this size, so that a sanitizer sees a step too far */
        struct hw_reader r;
        REQUIRE(data != NULL);
        for (size_t i = 0; i < len; i++) {
            data[i] = (uint8_t)hw_rng_below(&rng, turn % 2 == 0 ? 256 : 12);
        }
        hw_reader_init(&r, data, len);
        while (!r.failed && hw_reader_left(&r) > 0) {
            struct hw_slice s = {0};
            size_t left = hw_reader_left(&r);
            switch (hw_rng_below(&rng, 4)) {
            case 0:
                hw_reader_u32(&r);
                break;
            case 1:
                hw_reader_varint(&r);
                break;
            case 2:
                hw_reader_u64(&r);
                break;
            default:
                s = hw_reader_bytes(&r);
                CHECK(s.len == 0 || (s.data >= data && s.data + s.len <= data + len));
            }
            CHECK(r.failed || hw_reader_left(&r) < left);
        }
        free(data);
    }
}

static void a_reader_of_nothing_is_at_its_end(void)
{
    struct hw_reader r;
    hw_reader_init(&r, NULL, 0);
    CHECK_EQ(hw_reader_left(&r), 0);
    CHECK(!r.failed);
    (void)hw_reader_u8(&r);
    CHECK(r.failed);
}

HW_SUITE(base_buf, HW_CASE(slices_compare_as_memcmp_with_the_shorter_first), HW_CASE(a_buffer_holds_what_was_appended),
         HW_CASE(a_buffer_grows_over_any_length), HW_CASE(a_buffer_remembers_that_it_failed),
         HW_CASE(numbers_are_little_endian), HW_CASE(varints_come_back_and_have_their_size),
         HW_CASE(a_reader_refuses_what_is_not_there), HW_CASE(random_bytes_never_lead_outside),
         HW_CASE(a_reader_of_nothing_is_at_its_end))
