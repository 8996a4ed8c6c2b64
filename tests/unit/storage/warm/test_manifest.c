#include <string.h>

#include "storage/warm/image.h"
#include "storage/warm/manifest.h"
#include "tests/unit/hw_test.h"

static const struct hw_manifest sample = {.format = HW_MANIFEST_FORMAT,
                                          .cluster_id = 0xfedcba9876543210ull,
                                          .index = 1ull << 40,
                                          .revision = 123456789,
                                          .image_format = HW_IMAGE_FORMAT,
                                          .hash = 0x8000000000000001ull};

static void what_is_encoded_is_decoded(void)
{
    struct hw_buf b = {0};
    struct hw_manifest m;
    struct hw_error e = {0};
    REQUIRE(hw_manifest_encode(&sample, &b) == 0);
    CHECK_EQ(b.len, HW_MANIFEST_BYTES);
    REQUIRE(hw_manifest_decode(b.data, b.len, &m, &e) == 0);
    CHECK_EQ(m.format, sample.format);
    CHECK_EQ(m.cluster_id, sample.cluster_id);
    CHECK_EQ(m.index, sample.index);
    CHECK_EQ(m.revision, sample.revision);
    CHECK_EQ(m.image_format, sample.image_format);
    CHECK_EQ(m.hash, sample.hash);
    hw_buf_free(&b);
}

static void every_flipped_bit_is_refused(void)
{
    struct hw_buf b = {0};
    struct hw_manifest m;
    REQUIRE(hw_manifest_encode(&sample, &b) == 0);
    for (size_t bit = 0; bit < b.len * 8; bit++) {
        struct hw_error e = {0};
        int rc;
        b.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        rc = hw_manifest_decode(b.data, b.len, &m, &e);
        CHECK(rc == HW_ERR_CORRUPT || (rc == HW_ERR_VERSION && bit / 8 >= 4 && bit / 8 < 8));
        CHECK(e.text[0] != '\0');
        b.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    hw_buf_free(&b);
}

static void every_other_length_is_refused(void)
{
    struct hw_buf b = {0};
    struct hw_manifest m;
    REQUIRE(hw_manifest_encode(&sample, &b) == 0);
    for (size_t len = 0; len < b.len; len++) {
        CHECK_EQ(hw_manifest_decode(b.data, len, &m, NULL), HW_ERR_CORRUPT);
    }
    hw_buf_put_u8(&b, 0);
    CHECK_EQ(hw_manifest_decode(b.data, b.len, &m, NULL), HW_ERR_CORRUPT);
    hw_buf_free(&b);
}

static void a_newer_image_format_is_refused_as_such(void)
{
    struct hw_manifest newer = sample;
    struct hw_buf b = {0};
    struct hw_manifest m;
    struct hw_error e = {0};
    newer.image_format = HW_IMAGE_FORMAT + 1;
    REQUIRE(hw_manifest_encode(&newer, &b) == 0);
    CHECK_EQ(hw_manifest_decode(b.data, b.len, &m, &e), HW_ERR_VERSION);
    CHECK(strstr(e.text, "newer") != NULL);
    hw_buf_free(&b);
}

HW_SUITE(warm_manifest, HW_CASE(what_is_encoded_is_decoded), HW_CASE(every_flipped_bit_is_refused),
         HW_CASE(every_other_length_is_refused), HW_CASE(a_newer_image_format_is_refused_as_such))
