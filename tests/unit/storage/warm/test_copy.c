#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/warm/fs.h"
#include "storage/warm/image.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/warm/fixture.h"

static void a_copy_is_an_image_that_stands_alone(void)
{
    const char *dir = hw_test_dir();
    const char *path = fixture_path(dir, "image.db");
    const char *dest = fixture_path(dir, "copy.db");
    struct hw_image *image;
    struct hw_image *copy;
    struct hw_image_meta meta;
    struct hw_error e = {0};
    struct fixture f;
    uint64_t digest = 0;
    uint64_t expected;
    fixture_init(&f);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    fixture_put(&f, "a", "1");
    REQUIRE(fixture_checkpoint(&f, image, &e) == 0);
    expected = fixture_digest(f.hot);
    /* The source is open and has a WAL. */
    REQUIRE(hw_image_copy(path, dest, &meta, &e) == 0);
    CHECK_EQ(meta.counters.applied, 1);
    CHECK_EQ(meta.cluster_id, FIXTURE_CLUSTER);
    CHECK(!hw_fs_is_there(fixture_path(dir, "copy.db-wal")));
    CHECK(!hw_fs_is_there(fixture_path(dir, "copy.db-shm")));
    fixture_put(&f, "a", "2");
    CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
    REQUIRE(hw_image_open_readonly(dest, &copy, &e) == 0);
    CHECK_EQ(hw_image_verify(copy, &meta, &e), 0);
    hw_image_close(copy);
    CHECK(!hw_fs_is_there(fixture_path(dir, "copy.db-wal")));
    CHECK_EQ(fixture_reopen(dest, &meta, &digest, &e), 0);
    CHECK_EQ(digest, expected);
    CHECK_EQ(hw_image_copy(path, dest, &meta, &e), HW_ERR_EXISTS);
    CHECK(hw_fs_is_there(dest));
    CHECK_EQ(hw_image_copy(fixture_path(dir, "none.db"), fixture_path(dir, "x.db"), &meta, &e), HW_ERR_NOTFOUND);
    CHECK(!hw_fs_is_there(fixture_path(dir, "x.db")));
    hw_image_close(image);
    fixture_close(&f);
}

static void an_installed_image_replaces_the_old_one(void)
{
    const char *dir = hw_test_dir();
    const char *path = fixture_path(dir, HW_IMAGE_FILE);
    const char *incoming = fixture_path(dir, "part.db");
    struct hw_image *image;
    struct hw_image_meta meta;
    struct hw_error e = {0};
    struct fixture f;
    uint64_t digest = 0;
    fixture_init(&f);
    REQUIRE(hw_image_open(incoming, FIXTURE_CLUSTER, &image, &e) == 0);
    fixture_put(&f, "a", "1");
    REQUIRE(fixture_checkpoint(&f, image, &e) == 0);
    hw_image_close(image);
    fixture_copy_file(incoming, fixture_path(dir, "second.db"));
    CHECK_EQ(hw_image_install(dir, incoming, &e), 0); /* where there is none */
    CHECK_EQ(fixture_reopen(path, &meta, &digest, &e), 0);
    CHECK_EQ(digest, fixture_digest(f.hot));
    fixture_spill(path, "damaged beyond all repair, and far too short", 44);
    fixture_spill(fixture_path(dir, "image.db-wal"), "leftover", 8);
    CHECK_EQ(hw_image_install(dir, fixture_path(dir, "second.db"), &e), 0); /* over a damaged one */
    CHECK_EQ(fixture_reopen(path, &meta, &digest, &e), 0);
    CHECK_EQ(digest, fixture_digest(f.hot));
    CHECK_EQ(hw_image_install(dir, fixture_path(dir, "none.db"), &e), HW_ERR_NOTFOUND);
    CHECK_EQ(fixture_reopen(path, &meta, &digest, &e), 0);
    fixture_close(&f);
}

static void quarantine_moves_and_never_deletes(void)
{
    const char *dir = hw_test_dir();
    const char *aside = fixture_path(dir, "quarantine");
    struct hw_error e = {0};
    size_t len;
    char *bytes;
    for (int i = 0; i < 2; i++) {
        fixture_spill(fixture_path(dir, "image.db"), "abc", 3);
        fixture_spill(fixture_path(dir, "image.db-wal"), "de", 2);
        fixture_spill(fixture_path(dir, "image.db-shm"), "f", 1);
        CHECK_EQ(hw_quarantine(dir, "image.db", 1700000000123ull, &e), 0);
        CHECK(!hw_fs_is_there(fixture_path(dir, "image.db")));
        CHECK(!hw_fs_is_there(fixture_path(dir, "image.db-wal")));
        CHECK(!hw_fs_is_there(fixture_path(dir, "image.db-shm")));
    }
    bytes = fixture_slurp(fixture_path(aside, "20231114T221320123Z-image.db"), &len);
    CHECK(len == 3 && memcmp(bytes, "abc", 3) == 0);
    free(bytes);
    CHECK(hw_fs_is_there(fixture_path(aside, "20231114T221320123Z-image.db-wal")));
    CHECK(hw_fs_is_there(fixture_path(aside, "20231114T221320123Z.2-image.db")));
    REQUIRE(mkdir(fixture_path(dir, "raft"), 0700) == 0);
    CHECK_EQ(hw_quarantine(dir, "raft", 1700000000123ull, &e), 0);
    CHECK(hw_fs_is_there(fixture_path(aside, "20231114T221320123Z-raft")));
    CHECK_EQ(hw_quarantine(dir, "raft", 1, &e), HW_ERR_NOTFOUND);
    CHECK_EQ(hw_quarantine(dir, "../etc", 1, &e), HW_ERR_INVALID);
    CHECK_EQ(hw_quarantine(dir, "quarantine", 1, &e), HW_ERR_INVALID);
    CHECK_EQ(hw_quarantine(dir, "", 1, &e), HW_ERR_INVALID);
}

static void a_wal_without_its_image_never_reaches_the_next_one(void)
{
    const char *dir = hw_test_dir();
    const char *path = fixture_path(dir, HW_IMAGE_FILE);
    struct hw_image *image;
    struct hw_image_meta meta;
    struct hw_error e = {0};
    struct fixture f;
    uint64_t digest = 0;
    char *wal;
    size_t len;
    fixture_init(&f);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    fixture_put(&f, "a", "1");
    REQUIRE(fixture_checkpoint(&f, image, &e) == 0);
    wal = fixture_slurp(fixture_path(dir, "image.db-wal"), &len);
    hw_image_close(image);
    unlink(path);
    fixture_spill(fixture_path(dir, "image.db-wal"), wal, len);
    free(wal);
    REQUIRE(fixture_reopen(path, &meta, &digest, &e) == 0);
    CHECK_EQ(meta.counters.applied, 0);
    CHECK(hw_fs_is_there(fixture_path(dir, "quarantine")));
    fixture_close(&f);
}

HW_SUITE(warm_copy, HW_CASE(a_copy_is_an_image_that_stands_alone), HW_CASE(an_installed_image_replaces_the_old_one),
         HW_CASE(quarantine_moves_and_never_deletes), HW_CASE(a_wal_without_its_image_never_reaches_the_next_one))
