/* Every file operation failing in turn: what is on disk afterwards is the old or the new state, never between, and what
 * was reported as done is there. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/warm/fs.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/warm/fault.h"
#include "tests/unit/storage/warm/fixture.h"

/* Far above what any of these scenarios does. */
#define OPERATIONS_MAX 5000

struct scene {
    const char *path;   /* the image under test */
    const char *base;   /* what it is before: the first cut and a WAL folded in */
    struct hw_cut *cut; /* what brings it from old to new */
    uint64_t old_digest;
    uint64_t new_digest;
    struct fixture f;
};

static void scene_init(struct scene *s)
{
    const char *dir = hw_test_dir();
    struct hw_image *image;
    struct hw_error e = {0};
    char key[16];
    fault_install();
    s->path = fixture_path(dir, "image.db");
    s->base = fixture_path(dir, "base.db");
    fixture_init(&s->f);
    REQUIRE(hw_image_open(s->base, FIXTURE_CLUSTER, &image, &e) == 0);
    for (int i = 0; i < 60; i++) {
        snprintf(key, sizeof key, "key-%02d", i * 7 % 20);
        fixture_put(&s->f, key, "an old value that takes some room in the file");
    }
    fixture_node(&s->f, 1, "alpha");
    fixture_grant(&s->f, 1, 60);
    fixture_grant(&s->f, 2, 60);
    fixture_put_leased(&s->f, "leased", "1", 1);
    REQUIRE(fixture_checkpoint(&s->f, image, &e) == 0);
    hw_image_close(image);
    s->old_digest = fixture_digest(s->f.hot);
    for (int i = 0; i < 60; i++) {
        snprintf(key, sizeof key, "key-%02d", i * 3 % 25);
        if (i % 5 == 0) {
            fixture_delete(&s->f, key);
        } else {
            fixture_put(&s->f, key, "a new value");
        }
    }
    fixture_node(&s->f, 2, "beta");
    fixture_revoke(&s->f, 1);
    fixture_remaining(&s->f, 2, 30);
    fixture_grant(&s->f, 3, 60);
    fixture_put_leased(&s->f, "leased", "2", 3);
    fixture_event(&s->f, "node-added", "beta joined");
    fixture_compact(&s->f, 50);
    REQUIRE(hw_hot_cut(s->f.hot, &s->cut) == 0);
    s->new_digest = fixture_digest(s->f.hot);
}

static void scene_close(struct scene *s)
{
    hw_cut_free(s->cut);
    fixture_close(&s->f);
}

static void remove_image(const char *path)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", ".new"};
    char full[4200];
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        snprintf(full, sizeof full, "%s%s", path, suffixes[i]);
        unlink(full);
    }
}

/* The life of a checkpoint worker: open, one cut, sweeps, close. Returns whether the cut was reported as written. */
static bool checkpoint_life(struct scene *s)
{
    struct hw_image *image;
    struct hw_error e = {0};
    bool is_written;
    int rc = hw_image_open(s->path, FIXTURE_CLUSTER, &image, &e);
    if (rc != 0) {
        CHECK(e.text[0] != '\0');
        return false;
    }
    rc = hw_image_apply(image, s->cut, 5, &e);
    is_written = rc == 0;
    CHECK(rc == 0 || e.code == rc);
    for (int i = 0; i < 50 && rc >= 0; i++) {
        rc = hw_image_sweep(image, 5, &e);
    }
    hw_image_close(image);
    return is_written;
}

static bool is_old_or_new(struct scene *s, bool must_be_new)
{
    struct hw_image_meta meta;
    struct hw_error e = {0};
    uint64_t digest = 0;
    int rc = fixture_reopen(s->path, &meta, &digest, &e);
    bool is_right = rc == 0 && (digest == s->new_digest || (digest == s->old_digest && !must_be_new));
    if (!is_right) {
        printf("\n  after the fault: rc %d, %s\n", rc, e.text);
    }
    return is_right;
}

static void sweep_faults(enum fault_kind kind, bool has_power_cut)
{
    struct scene s;
    unsigned n = 1;
    scene_init(&s);
    for (; n < OPERATIONS_MAX; n++) {
        bool is_written;
        remove_image(s.path);
        fixture_copy_file(s.base, s.path);
        fault_arm(n, kind);
        is_written = checkpoint_life(&s);
        fault_disarm();
        if (has_power_cut) {
            char shm[4200];
            fault_power_cut();
            snprintf(shm, sizeof shm, "%s-shm", s.path);
            unlink(shm);
        }
        CHECK(is_old_or_new(&s, is_written));
        if (!fault_was_hit()) {
            CHECK(is_written);
            break;
        }
    }
    CHECK(n > 10 && n < OPERATIONS_MAX);
    scene_close(&s);
}

static void one_failing_operation_leaves_the_old_or_the_new_cut(void)
{
    sweep_faults(FAULT_ONCE, false);
}

static void a_disk_that_dies_leaves_the_old_or_the_new_cut(void)
{
    sweep_faults(FAULT_FOREVER, false);
}

static void a_power_cut_leaves_the_old_or_the_new_cut(void)
{
    sweep_faults(FAULT_FOREVER, true);
}

static void a_full_disk_is_said_and_leaves_the_old_or_the_new_cut(void)
{
    struct scene s;
    struct hw_image *image;
    struct hw_error e = {0};
    sweep_faults(FAULT_FULL, false);
    scene_init(&s);
    fixture_copy_file(s.base, s.path);
    REQUIRE(hw_image_open(s.path, FIXTURE_CLUSTER, &image, &e) == 0);
    fault_arm(1, FAULT_FULL);
    CHECK_EQ(hw_image_apply(image, s.cut, 5, &e), HW_ERR_NOSPACE);
    CHECK(strstr(e.text, s.path) != NULL);
    fault_disarm();
    /* Space is back: the same handle and the same cut. */
    CHECK_EQ(hw_image_apply(image, s.cut, 5, &e), 0);
    hw_image_close(image);
    CHECK(is_old_or_new(&s, true));
    scene_close(&s);
}

static void a_failing_creation_leaves_no_half_image(void)
{
    const char *path = fixture_path(hw_test_dir(), "image.db");
    unsigned n = 1;
    fault_install();
    for (; n < OPERATIONS_MAX; n++) {
        struct hw_image_meta meta;
        struct hw_image *image;
        struct hw_error e = {0};
        uint64_t digest;
        int rc;
        remove_image(path);
        fault_arm(n, FAULT_FOREVER);
        rc = hw_image_open(path, FIXTURE_CLUSTER, &image, &e);
        if (rc == 0) {
            hw_image_close(image);
        }
        fault_disarm();
        CHECK_EQ(fixture_reopen(path, &meta, &digest, &e), 0);
        CHECK_EQ(meta.counters.applied, 0);
        if (!fault_was_hit()) {
            CHECK_EQ(rc, 0);
            break;
        }
    }
    CHECK(n > 5 && n < OPERATIONS_MAX);
}

static void a_failing_copy_leaves_nothing_or_all(void)
{
    struct scene s;
    const char *dir = hw_test_dir();
    const char *dest = fixture_path(dir, "copy.db");
    unsigned n = 1;
    scene_init(&s);
    for (; n < OPERATIONS_MAX; n++) {
        struct hw_image_meta meta;
        struct hw_error e = {0};
        uint64_t digest = 0;
        int rc;
        remove_image(dest);
        fault_arm(n, FAULT_ONCE);
        rc = hw_image_copy(s.base, dest, &meta, &e);
        fault_disarm();
        CHECK_EQ(hw_fs_is_there(dest), rc == 0);
        if (rc == 0) {
            CHECK_EQ(fixture_reopen(dest, &meta, &digest, &e), 0);
            CHECK_EQ(digest, s.old_digest);
        }
        if (!fault_was_hit()) {
            CHECK_EQ(rc, 0);
            break;
        }
    }
    CHECK(n > 5 && n < OPERATIONS_MAX);
    scene_close(&s);
}

/* The old image has a WAL that matters: the agent was killed. */
static void make_old_with_wal(struct scene *s, const char *side)
{
    struct hw_image *image;
    struct hw_error e = {0};
    char from[4200];
    char to[4200];
    remove_image(side);
    fixture_copy_file(s->base, side);
    REQUIRE(hw_image_open(side, FIXTURE_CLUSTER, &image, &e) == 0);
    REQUIRE(hw_image_apply(image, s->cut, 5, &e) == 0);
    remove_image(s->path);
    fixture_copy_file(side, s->path);
    snprintf(from, sizeof from, "%s-wal", side);
    snprintf(to, sizeof to, "%s-wal", s->path);
    fixture_copy_file(from, to);
    hw_image_close(image);
}

static void a_failing_installation_leaves_the_old_or_the_new_image(void)
{
    struct scene s;
    const char *dir = hw_test_dir();
    const char *side = fixture_path(dir, "side.db");
    const char *incoming = fixture_path(dir, "part.db");
    const char *fresh = fixture_path(dir, "fresh.db");
    struct hw_image_meta meta;
    struct hw_error e = {0};
    uint64_t fresh_digest = 0;
    unsigned n = 1;
    scene_init(&s);
    s.path = fixture_path(dir, HW_IMAGE_FILE);
    REQUIRE(fixture_reopen(fresh, &meta, &fresh_digest, &e) == 0);
    for (; n < OPERATIONS_MAX; n++) {
        uint64_t digest = 0;
        int rc;
        make_old_with_wal(&s, side);
        fixture_copy_file(fresh, incoming);
        fault_arm(n, FAULT_FOREVER);
        rc = hw_image_install(dir, incoming, &e);
        fault_disarm();
        CHECK_EQ(fixture_reopen(s.path, &meta, &digest, &e), 0);
        CHECK(digest == fresh_digest || (digest == s.new_digest && rc != 0));
        if (!fault_was_hit()) {
            CHECK_EQ(rc, 0);
            CHECK(!hw_fs_is_there(incoming));
            break;
        }
    }
    CHECK(n > 5 && n < OPERATIONS_MAX);
    scene_close(&s);
}

static void what_may_not_be_written_is_said(void)
{
    struct scene s;
    struct hw_image *image;
    struct hw_error e = {0};
    scene_init(&s);
    fixture_copy_file(s.base, s.path);
    fault_arm(1, FAULT_READONLY);
    CHECK_EQ(hw_image_open(s.path, FIXTURE_CLUSTER, &image, &e), HW_ERR_READONLY);
    CHECK(strstr(e.text, s.path) != NULL);
    remove_image(s.path);
    CHECK_EQ(hw_image_open(s.path, FIXTURE_CLUSTER, &image, &e), HW_ERR_READONLY);
    fault_disarm();
    scene_close(&s);
}

static sqlite3_mem_methods real_memory;
static unsigned allocations_left; /* 0: never fail */
static bool was_starved;

static bool is_starving(void)
{
    if (allocations_left == 0 || --allocations_left > 0) {
        return false;
    }
    was_starved = true;
    return true;
}

static void *starving_malloc(int size)
{
    return is_starving() ? NULL : real_memory.xMalloc(size);
}

static void *starving_realloc(void *at, int size)
{
    return is_starving() ? NULL : real_memory.xRealloc(at, size);
}

static void use_memory(const sqlite3_mem_methods *methods)
{
    sqlite3_shutdown();
    CHECK_EQ(sqlite3_config(SQLITE_CONFIG_MALLOC, methods), SQLITE_OK);
    CHECK_EQ(sqlite3_initialize(), SQLITE_OK);
}

static void a_failing_allocation_leaves_the_old_or_the_new_cut(void)
{
    sqlite3_mem_methods starving;
    struct scene s;
    unsigned n = 1;
    scene_init(&s);
    sqlite3_shutdown();
    CHECK_EQ(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory), SQLITE_OK);
    starving = real_memory;
    starving.xMalloc = starving_malloc;
    starving.xRealloc = starving_realloc;
    use_memory(&starving);
    for (; n < OPERATIONS_MAX; n += n < 400 ? 1 : 7) {
        bool is_written;
        remove_image(s.path);
        fixture_copy_file(s.base, s.path);
        was_starved = false;
        allocations_left = n;
        is_written = checkpoint_life(&s);
        allocations_left = 0;
        CHECK(is_old_or_new(&s, is_written));
        if (!was_starved) {
            break;
        }
    }
    CHECK(n > 50 && n < OPERATIONS_MAX);
    use_memory(&real_memory);
    scene_close(&s);
}

/* A bit flipped anywhere in the file is either found or of no consequence: free space, SQLite's own counters. */
static void a_flipped_bit_is_found_or_harmless(void)
{
    struct scene s;
    size_t len;
    char *bytes;
    unsigned found = 0;
    unsigned tried = 0;
    scene_init(&s);
    bytes = fixture_slurp(s.base, &len);
    for (size_t at = 0; at < len; at += at < 120 ? 1 : 37) {
        struct hw_image_meta meta;
        struct hw_error e = {0};
        uint64_t digest = 0;
        int rc;
        bytes[at] ^= (char)(1 << (at % 8));
        remove_image(s.path);
        fixture_spill(s.path, bytes, len);
        bytes[at] ^= (char)(1 << (at % 8));
        rc = fixture_reopen(s.path, &meta, &digest, &e);
        tried++;
        found += rc != 0;
        CHECK(rc == 0 ? digest == s.old_digest : e.text[0] != '\0');
        if (rc != 0 && rc != HW_ERR_CORRUPT && rc != HW_ERR_VERSION) {
            CHECK_EQ(rc, HW_ERR_CORRUPT);
            printf("\n  byte %zu: rc %d, %s\n", at, rc, e.text);
        }
    }
    CHECK(found > tried / 10);
    free(bytes);
    scene_close(&s);
}

HW_SUITE(warm_fault, HW_CASE(one_failing_operation_leaves_the_old_or_the_new_cut),
         HW_CASE(a_disk_that_dies_leaves_the_old_or_the_new_cut), HW_CASE(a_power_cut_leaves_the_old_or_the_new_cut),
         HW_CASE(a_full_disk_is_said_and_leaves_the_old_or_the_new_cut),
         HW_CASE(a_failing_creation_leaves_no_half_image), HW_CASE(a_failing_copy_leaves_nothing_or_all),
         HW_CASE(a_failing_installation_leaves_the_old_or_the_new_image), HW_CASE(what_may_not_be_written_is_said),
         HW_CASE(a_failing_allocation_leaves_the_old_or_the_new_cut), HW_CASE(a_flipped_bit_is_found_or_harmless))
