#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/rng.h"
#include "storage/hot/lease.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/warm/fixture.h"

static void a_new_image_is_the_empty_state(void)
{
    const char *path = fixture_path(hw_test_dir(), "image.db");
    struct hw_image_meta meta;
    struct hw_error e = {0};
    uint64_t digest = 0;
    struct fixture f;
    fixture_init(&f);
    REQUIRE(fixture_reopen(path, &meta, &digest, &e) == 0);
    CHECK_EQ(meta.format, HW_IMAGE_FORMAT);
    CHECK_EQ(meta.cluster_id, FIXTURE_CLUSTER);
    CHECK_EQ(meta.counters.applied, 0);
    CHECK_EQ(meta.counters.revision, 1);
    CHECK_EQ(meta.row_count, 0);
    CHECK_EQ(digest, fixture_digest(f.hot));
    fixture_close(&f);
}

static void a_state_comes_back_as_it_was_cut(void)
{
    const char *path = fixture_path(hw_test_dir(), "image.db");
    struct hw_image *image;
    struct hw_image_meta meta;
    struct hw_error e = {0};
    struct fixture f;
    uint64_t digest = 0;
    fixture_init(&f);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    fixture_put(&f, "a", "1");
    fixture_put(&f, "b", "");
    fixture_node(&f, 0xf000000000000001ull, "alpha");
    fixture_hot(&f, 0xf000000000000001ull, 7);
    fixture_event(&f, "promoted", "alpha became hot");
    fixture_grant(&f, 1, 60);
    fixture_grant(&f, INT64_MAX, HW_LEASE_TTL_MAX);
    fixture_grant(&f, 3, 5);
    fixture_put_leased(&f, "l", "1", 3);
    CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
    fixture_revoke(&f, 3);
    fixture_remaining(&f, 1, 17);
    fixture_grant(&f, 4, 5);
    fixture_put_leased(&f, "m", "1", INT64_MAX);
    fixture_put(&f, "a", "2");
    fixture_delete(&f, "b");
    fixture_put(&f, "b", "again");
    fixture_delete(&f, "b");
    fixture_node(&f, 2, "beta");
    CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
    hw_image_close(image);

    REQUIRE(fixture_reopen(path, &meta, &digest, &e) == 0);
    CHECK_EQ(digest, fixture_digest(f.hot));
    CHECK_EQ(meta.counters.applied, f.index);
    CHECK_EQ(meta.counters.revision, hw_hot_revision(f.hot));
    CHECK_EQ(meta.counters.hash, hw_hot_hash(f.hot));
    CHECK_EQ(meta.counters.hot_node, 0xf000000000000001ull);
    CHECK_EQ(meta.counters.epoch, 7);
    CHECK_EQ(meta.written_wall_ms, 1700000000999ull);
    CHECK_EQ(meta.row_count, 9);
    fixture_close(&f);
}

static void a_cut_that_is_contained_is_skipped(void)
{
    const char *path = fixture_path(hw_test_dir(), "image.db");
    struct hw_image *image;
    struct hw_image_meta meta;
    struct hw_error e = {0};
    struct fixture f;
    struct hw_cut *cut;
    fixture_init(&f);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    fixture_put(&f, "a", "1");
    fixture_event(&f, "kind", "text");
    fixture_grant(&f, 5, 60);
    REQUIRE(hw_hot_cut(f.hot, &cut) == 0);
    CHECK_EQ(hw_image_apply(image, cut, 1, &e), 0);
    CHECK_EQ(hw_image_apply(image, cut, 2, &e), 0);
    REQUIRE(hw_image_read_meta(image, &meta, &e) == 0);
    CHECK_EQ(meta.row_count, 1);
    CHECK_EQ(meta.written_wall_ms, 1);
    /* A later cut that reaches back over what the image holds adds only what is new. */
    cut->applied += 10;
    CHECK_EQ(hw_image_apply(image, cut, 3, &e), 0);
    REQUIRE(hw_image_verify(image, &meta, &e) == 0);
    CHECK_EQ(meta.row_count, 1);
    hw_cut_free(cut);
    hw_image_close(image);
    fixture_close(&f);
}

static void history_keeps_the_newest_events(void)
{
    const char *path = fixture_path(hw_test_dir(), "image.db");
    struct hw_image *image;
    struct hw_image_meta meta;
    struct hw_error e = {0};
    struct fixture f;
    uint64_t digest = 0;
    fixture_init(&f);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    for (int i = 0; i < 1500; i++) {
        fixture_event(&f, "tick", i % 2 == 0 ? "even" : "odd");
        if (i % 200 == 0) {
            CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
        }
    }
    CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
    hw_image_close(image);
    REQUIRE(fixture_reopen(path, &meta, &digest, &e) == 0);
    CHECK_EQ(meta.counters.event_seq, 1500);
    CHECK_EQ(digest, fixture_digest(f.hot));
    fixture_close(&f);
}

/* Random commands, cuts, sweeps of random size and reopening: the image answers as the state does after each. */
static void any_mix_of_cuts_and_sweeps_keeps_the_state(void)
{
    const char *path = fixture_path(hw_test_dir(), "image.db");
    struct hw_image *image;
    struct hw_image_meta meta;
    struct hw_error e = {0};
    struct fixture f;
    struct hw_rng rng;
    uint64_t digest = 0;
    int rc = 0;
    fixture_init(&f);
    hw_rng_seed(&rng, 20240607);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    for (int round = 0; round < 150; round++) {
        for (uint64_t n = hw_rng_below(&rng, 12); n > 0; n--) {
            char key[16];
            snprintf(key, sizeof key, "key-%d", (int)hw_rng_below(&rng, 9));
            int64_t lease = 1 + (int64_t)hw_rng_below(&rng, 4);
            if (hw_rng_is_chance(&rng, 35)) {
                fixture_delete(&f, key);
            } else if (hw_rng_is_chance(&rng, 30)) {
                fixture_put_leased(&f, key, "leased", lease);
            } else if (hw_rng_is_chance(&rng, 30)) {
                fixture_grant(&f, lease, 9);
            } else if (hw_rng_is_chance(&rng, 20)) {
                fixture_revoke(&f, lease);
            } else if (hw_rng_is_chance(&rng, 20)) {
                fixture_remaining(&f, lease, (int64_t)hw_rng_below(&rng, 9));
            } else {
                fixture_put(&f, key, hw_rng_is_chance(&rng, 20) ? "" : key + 4);
            }
            if (hw_rng_is_chance(&rng, 8)) {
                hw_rev low = hw_hot_compacted(f.hot) + 1;
                hw_rev span = hw_hot_revision(f.hot) - low + 1;
                if (span > 0) {
                    fixture_compact(&f, low + (hw_rev)hw_rng_below(&rng, (uint64_t)span));
                }
            }
        }
        CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
        if (hw_rng_is_chance(&rng, 60)) {
            rc = hw_image_sweep(image, (size_t)hw_rng_below(&rng, 9), &e);
            CHECK(rc >= 0);
        }
        hw_image_close(image);
        REQUIRE(fixture_reopen(path, &meta, &digest, &e) == 0);
        REQUIRE(digest == fixture_digest(f.hot));
        REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    }
    fixture_put(&f, "last", ""); /* what the compacted revision itself wrote or replaced would stay */
    fixture_compact(&f, hw_hot_revision(f.hot));
    CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
    while ((rc = hw_image_sweep(image, 7, &e)) > 0) {
    }
    CHECK_EQ(rc, 0);
    REQUIRE(hw_image_verify(image, &meta, &e) == 0);
    CHECK_EQ(meta.row_count, hw_hot_key_count(f.hot));
    hw_image_close(image);
    fixture_close(&f);
}

/* A watcher may start at the compacted revision: what it wrote stays through cut, sweep and load. */
static void what_the_compacted_revision_wrote_stays(void)
{
    const char *path = fixture_path(hw_test_dir(), "image.db");
    struct hw_image *image;
    struct hw_image_meta meta;
    struct hw_error e = {0};
    struct fixture f;
    uint64_t digest = 0;
    fixture_init(&f);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    for (int i = 0; i < 4; i++) {
        fixture_put(&f, "a", "1");
        fixture_put(&f, "b", "1");
        if (i % 2 == 0) {
            CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
        }
        fixture_put_and_delete(&f, "a");
        if (i < 2) {
            fixture_delete(&f, "b");
        }
        fixture_compact(&f, hw_hot_revision(f.hot));
        CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
        while (hw_image_sweep(image, 2, &e) > 0) {
        }
        hw_image_close(image);
        REQUIRE(fixture_reopen(path, &meta, &digest, &e) == 0);
        CHECK_EQ(digest, fixture_digest(f.hot));
        REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    }
    hw_image_close(image);
    fixture_close(&f);
}

static void a_sweep_with_nothing_to_do_writes_nothing(void)
{
    const char *dir = hw_test_dir();
    const char *path = fixture_path(dir, "image.db");
    const char *wal = fixture_path(dir, "image.db-wal");
    struct hw_image *image;
    struct hw_error e = {0};
    struct fixture f;
    struct stat before;
    struct stat after;
    fixture_init(&f);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    fixture_put(&f, "a", "1");
    fixture_put(&f, "a", "2");
    fixture_compact(&f, 3);
    CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
    while (hw_image_sweep(image, 10, &e) > 0) {
    }
    REQUIRE(stat(wal, &before) == 0);
    CHECK_EQ(hw_image_sweep(image, 10, &e), 0);
    REQUIRE(stat(wal, &after) == 0);
    CHECK_EQ(before.st_size, after.st_size);
    CHECK_EQ(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    hw_image_close(image);
    fixture_close(&f);
}

static void another_cluster_is_refused_and_an_unbound_image_is_bound(void)
{
    const char *path = fixture_path(hw_test_dir(), "image.db");
    struct hw_image *image;
    struct hw_image_meta meta;
    struct hw_error e = {0};
    REQUIRE(hw_image_open(path, 0, &image, &e) == 0);
    REQUIRE(hw_image_read_meta(image, &meta, &e) == 0);
    CHECK_EQ(meta.cluster_id, 0);
    hw_image_close(image);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    hw_image_close(image);
    CHECK_EQ(hw_image_open(path, 99, &image, &e), HW_ERR_FOREIGN);
    CHECK(strstr(e.text, "1234567890abcdef") != NULL);
    REQUIRE(hw_image_open(path, 0, &image, &e) == 0);
    REQUIRE(hw_image_read_meta(image, &meta, &e) == 0);
    CHECK_EQ(meta.cluster_id, FIXTURE_CLUSTER);
    hw_image_close(image);
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db;
    REQUIRE(sqlite3_open(path, &db) == SQLITE_OK);
    CHECK_EQ(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void a_newer_format_is_refused_and_left_alone(void)
{
    const char *path = fixture_path(hw_test_dir(), "image.db");
    struct hw_image *image;
    struct hw_error e = {0};
    size_t before_len;
    size_t after_len;
    char *before;
    char *after;
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    hw_image_close(image);
    run_sql(path, "PRAGMA user_version = 2");
    before = fixture_slurp(path, &before_len);
    CHECK_EQ(hw_image_open(path, FIXTURE_CLUSTER, &image, &e), HW_ERR_VERSION);
    CHECK(strstr(e.text, "newer") != NULL);
    CHECK_EQ(hw_image_open_readonly(path, &image, &e), HW_ERR_VERSION);
    after = fixture_slurp(path, &after_len);
    CHECK_EQ(before_len, after_len);
    CHECK(before_len == after_len && memcmp(before, after, before_len) == 0);
    free(before);
    free(after);
}

static void what_is_no_image_is_refused(void)
{
    const char *dir = hw_test_dir();
    const char *path = fixture_path(dir, "image.db");
    struct hw_image *image;
    struct hw_error e = {0};
    CHECK_EQ(hw_image_open_readonly(path, &image, &e), HW_ERR_NOTFOUND);
    fixture_spill(path, "", 0);
    CHECK_EQ(hw_image_open(path, 1, &image, &e), HW_ERR_CORRUPT);
    CHECK_EQ(hw_image_open_readonly(path, &image, &e), HW_ERR_CORRUPT);
    fixture_spill(path, "this is not a database, not at all, whatever its name says", 58);
    CHECK_EQ(hw_image_open(path, 1, &image, &e), HW_ERR_CORRUPT);
    unlink(path);
    run_sql(path, "CREATE TABLE other(x)");
    CHECK_EQ(hw_image_open(path, 1, &image, &e), HW_ERR_CORRUPT);
    CHECK_EQ(hw_image_open(fixture_path(dir, "no/such/image.db"), 1, &image, &e), HW_ERR_NOTFOUND);
}

static void a_changed_table_or_row_is_found(void)
{
    static const char *const changes[] = {
        "UPDATE revision SET value = x'00' WHERE main = 2",
        "UPDATE revision SET lease = 5 WHERE main = 2",
        "DELETE FROM revision WHERE main = 2",
        "UPDATE registry SET peer_address = 'elsewhere:2380'",
        "DELETE FROM registry",
        "UPDATE event SET text = 'nothing happened'",
        "UPDATE lease SET remaining_s = 9",
        "DELETE FROM lease",
        "INSERT INTO lease(id, ttl_s, remaining_s) VALUES(9, 60, 0)",
        "UPDATE meta SET value = value + 1 WHERE name = 'applied'",
        "UPDATE meta SET value = '0000000000000001' WHERE name = 'state_hash'",
        "DELETE FROM meta WHERE name = 'head_hash'",
        "UPDATE meta SET value = 'many' WHERE name = 'row_count'",
        "DROP VIEW kv; CREATE VIEW kv AS SELECT 1 AS key",
        "DROP INDEX revision_by_key",
    };
    const char *dir = hw_test_dir();
    const char *path = fixture_path(dir, "image.db");
    const char *copy = fixture_path(dir, "copy.db");
    struct hw_image_meta meta;
    struct hw_image *image;
    struct hw_error e = {0};
    struct fixture f;
    uint64_t digest;
    fixture_init(&f);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    fixture_put(&f, "a", "1");
    fixture_node(&f, 1, "alpha");
    fixture_event(&f, "promoted", "alpha became hot");
    fixture_grant(&f, 5, 60);
    CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
    hw_image_close(image);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        struct hw_hot *hot;
        int rc;
        fixture_copy_file(path, copy);
        run_sql(copy, changes[i]);
        CHECK_EQ(fixture_reopen(copy, &meta, &digest, &e), HW_ERR_CORRUPT);
        if ((rc = hw_image_open(copy, 0, &image, &e)) == 0) {
            CHECK_EQ(hw_image_load(image, &hot, NULL, NULL, &e), HW_ERR_CORRUPT);
            hw_image_close(image);
        }
        CHECK(rc == 0 || rc == HW_ERR_CORRUPT);
    }
    fixture_close(&f);
}

static void count_progress(void *ctx, uint64_t done, uint64_t total)
{
    uint64_t *last = ctx;
    CHECK(done >= *last && done <= total);
    *last = done;
}

static void load_reports_progress_to_the_end(void)
{
    const char *path = fixture_path(hw_test_dir(), "image.db");
    struct hw_image *image;
    struct hw_error e = {0};
    struct fixture f;
    struct hw_hot *hot;
    uint64_t last = 0;
    fixture_init(&f);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    for (int i = 0; i < 40000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i * 7919 % 40000);
        fixture_put(&f, key, "v");
    }
    CHECK_EQ(fixture_checkpoint(&f, image, &e), 0);
    REQUIRE(hw_image_load(image, &hot, count_progress, &last, &e) == 0);
    CHECK_EQ(last, 40000);
    CHECK_EQ(hw_hot_key_count(hot), 40000);
    hw_hot_free(hot);
    hw_image_close(image);
    fixture_close(&f);
}

HW_SUITE(warm_image, HW_CASE(a_new_image_is_the_empty_state), HW_CASE(a_state_comes_back_as_it_was_cut),
         HW_CASE(a_cut_that_is_contained_is_skipped), HW_CASE(history_keeps_the_newest_events),
         HW_CASE(any_mix_of_cuts_and_sweeps_keeps_the_state), HW_CASE(what_the_compacted_revision_wrote_stays),
         HW_CASE(a_sweep_with_nothing_to_do_writes_nothing),
         HW_CASE(another_cluster_is_refused_and_an_unbound_image_is_bound),
         HW_CASE(a_newer_format_is_refused_and_left_alone), HW_CASE(what_is_no_image_is_refused),
         HW_CASE(a_changed_table_or_row_is_found), HW_CASE(load_reports_progress_to_the_end))
