#include "storage/warm/part.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "tests/unit/hw_test.h"

#define CLUSTER 0xc1

static const char *data;
static const struct hw_part some = {
    .cluster_id = CLUSTER, .source = 3, .token = 0xfedc, .index = 77, .total_bytes = 10};

static void open_folder(void)
{
    char path[512];
    data = hw_test_dir();
    snprintf(path, sizeof path, "%s/incoming", data);
    REQUIRE(mkdir(path, 0700) == 0);
}

static int load(struct hw_part *p)
{
    struct hw_error e = {0};
    return hw_part_load(data, CLUSTER, p, &e);
}

static void write_from(const char *text)
{
    char path[512];
    FILE *f;
    snprintf(path, sizeof path, "%s/incoming/image.part.from", data);
    f = fopen(path, "w");
    REQUIRE(f != NULL);
    fputs(text, f);
    fclose(f);
}

static void what_was_begun_is_found_again_with_what_there_is_of_it(void)
{
    struct hw_part p;
    struct hw_error e = {0};
    open_folder();
    CHECK_EQ(load(&p), HW_ERR_NOTFOUND);
    CHECK_EQ(hw_part_begin(data, &some, &e), 0);
    CHECK_EQ(load(&p), 0);
    CHECK_EQ(p.received_bytes, 0);
    CHECK_EQ(hw_part_write(data, hw_slice_str("abcd"), 0, &e), 0);
    CHECK_EQ(hw_part_write(data, hw_slice_str("ef"), 4, &e), 0);
    CHECK_EQ(load(&p), 0);
    CHECK(p.received_bytes == 6 && p.total_bytes == 10 && p.token == 0xfedc && p.index == 77 && p.source == 3);
    CHECK_EQ(hw_part_begin(data, &some, &e), 0); /* begun anew: nothing of the other one is left */
    CHECK_EQ(load(&p), 0);
    CHECK_EQ(p.received_bytes, 0);
    hw_part_forget(data);
    CHECK_EQ(load(&p), HW_ERR_NOTFOUND);
}

static void what_does_not_fit_is_none(void)
{
    static const char *const texts[] = {"", "format=1\n", "format=2\ncluster=c1\n", "\n\n\n"};
    struct hw_part p = some;
    struct hw_error e = {0};
    open_folder();
    CHECK_EQ(hw_part_begin(data, &some, &e), 0);
    CHECK_EQ(hw_part_load(data, 0xc2, &p, &e), HW_ERR_NOTFOUND); /* another cluster's */
    CHECK_EQ(hw_part_write(data, hw_slice_str("more than ten bytes"), 0, &e), 0);
    CHECK_EQ(load(&p), HW_ERR_NOTFOUND);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        write_from(texts[i]);
        CHECK_EQ(load(&p), HW_ERR_NOTFOUND);
    }
    write_from("format=1\ncluster=00000000000000c1\nsource=0000000000000003\ntoken=000000000000fedc\nindex=77\n"
               "total=99\nchecksum=0000000000000001\n");
    CHECK_EQ(load(&p), HW_ERR_NOTFOUND);
}

static void a_whole_part_is_checked_against_size_and_checksum(void)
{
    struct hw_error e = {0};
    open_folder();
    CHECK_EQ(hw_part_begin(data, &some, &e), 0);
    CHECK_EQ(hw_part_write(data, hw_slice_str("0123456789"), 0, &e), 0);
    CHECK_EQ(hw_part_check(data, 10, XXH3_64bits("0123456789", 10), &e), 0);
    CHECK_EQ(hw_part_check(data, 9, XXH3_64bits("0123456789", 10), &e), HW_ERR_CORRUPT);
    CHECK_EQ(hw_part_check(data, 10, 1, &e), HW_ERR_CORRUPT);
}

HW_SUITE(warm_part, HW_CASE(what_was_begun_is_found_again_with_what_there_is_of_it), HW_CASE(what_does_not_fit_is_none),
         HW_CASE(a_whole_part_is_checked_against_size_and_checksum))
