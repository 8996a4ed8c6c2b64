#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/rng.h"
#include "agent/consensus/folder.h"
#include "agent/consensus/frame.h"
#include "tests/unit/agent/consensus/cluster.h"

/* What a server does with a log folder that was damaged: it either says so, or goes on with a state that is a part of
 * the true history. It never crashes, and never makes up entries. */

#define FLIPS_PER_FILE 12
#define BLOCK 4096

static void path_of(char *path, size_t size, const char *folder, const char *name)
{
    snprintf(path, size, "%s/%s", folder, name);
}

static void folder_clear(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *entry;
    REQUIRE(d != NULL);
    while ((entry = readdir(d)) != NULL) {
        unlinkat(dirfd(d), entry->d_name, 0);
    }
    closedir(d);
}

/* Leaves holes for zeros: open segments are 8 MiB of little else. */
static void file_copy(const char *from, const char *to)
{
    static const char zeros[BLOCK];
    char block[BLOCK];
    int in = open(from, O_RDONLY);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    off_t at = 0;
    ssize_t n;
    REQUIRE(in >= 0 && out >= 0);
    while ((n = read(in, block, sizeof block)) > 0) {
        if (memcmp(block, zeros, (size_t)n) != 0) {
            REQUIRE(pwrite(out, block, (size_t)n, at) == n);
        }
        at += n;
    }
    REQUIRE(ftruncate(out, at) == 0);
    close(in);
    close(out);
}

static size_t folder_copy(const char *from, const char *to, char names[][64], size_t max)
{
    DIR *d = opendir(from);
    struct dirent *entry;
    size_t count = 0;
    REQUIRE(d != NULL);
    folder_clear(to);
    while ((entry = readdir(d)) != NULL) {
        char a[300];
        char b[300];
        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= 64) {
            continue;
        }
        path_of(a, sizeof a, from, entry->d_name);
        path_of(b, sizeof b, to, entry->d_name);
        file_copy(a, b);
        if (names != NULL && count < max) {
            memcpy(names[count], entry->d_name, strlen(entry->d_name) + 1);
        }
        count++;
    }
    closedir(d);
    return count < max ? count : max;
}

/* How far the file has something in it. */
static off_t used_bytes(const char *path)
{
    char block[BLOCK];
    off_t used = 0;
    off_t at = 0;
    ssize_t n;
    int fd = open(path, O_RDONLY);
    REQUIRE(fd >= 0);
    while ((n = read(fd, block, sizeof block)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            used = block[i] != 0 ? at + i + 1 : used;
        }
        at += n;
    }
    close(fd);
    return used > 0 ? used : at < 64 ? at : 64;
}

static void flip(const char *path, off_t at, uint8_t bits)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    REQUIRE(fd >= 0);
    REQUIRE(pread(fd, &byte, 1, at) == 1);
    byte ^= bits;
    REQUIRE(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
}

static void node_dispose(struct node *n)
{
    if (n->c != NULL) {
        node_stop(n); /* also after a failed start */
    }
}

static bool has_applied_log(struct cluster *cl, void *arg)
{
    struct node *n = arg;
    struct hw_consensus_view v;
    (void)cl;
    hw_consensus_view(n->c, &v);
    return n->has_failed || v.role == HW_ROLE_NONE || (v.is_leader && v.applied_index == v.last_index);
}

/* True when it started. */
static bool try_start(struct node *n, const char *what)
{
    int rc;
    n->has_failed = false;
    node_new(n);
    rc = hw_consensus_start(n->c, &n->e);
    if (rc == 0) {
        CHECK(cluster_wait(n->cl, has_applied_log, n));
        CHECK(!n->has_failed);
    } else if (rc != HW_ERR_CORRUPT && rc != HW_ERR_VERSION) {
        printf("\n%s: %s (%s)\n", what, n->e.text, hw_err_name(rc));
        CHECK(rc == HW_ERR_CORRUPT);
    } else {
        CHECK(strstr(n->e.text, n->folder) != NULL);
    }
    node_dispose(n);
    return rc == 0;
}

static bool has_two_snapshots(struct cluster *cl, void *arg)
{
    (void)arg;
    return cl->nodes[0].snapshots >= 2;
}

static void flip_all(struct cluster *cl, const char *original, unsigned *started, unsigned *refused)
{
    struct node *n = &cl->nodes[0];
    const char *scratch = hw_test_dir();
    struct hw_rng rng;
    char names[64][64];
    size_t count = folder_copy(original, scratch, names, 64);
    hw_rng_seed(&rng, 7);
    n->folder = scratch;
    for (size_t f = 0; f < count; f++) {
        char path[300];
        char what[400];
        path_of(path, sizeof path, original, names[f]);
        off_t used = used_bytes(path);
        for (int k = 0; k < FLIPS_PER_FILE && used > 0; k++) {
            /* The beginning is where the formats are. */
            off_t at = (off_t)hw_rng_below(&rng, k % 2 == 0 && used > 64 ? 64 : (uint64_t)used);
            folder_copy(original, scratch, NULL, 0);
            path_of(path, sizeof path, scratch, names[f]);
            flip(path, at, (uint8_t)(1u << hw_rng_below(&rng, 8)));
            snprintf(what, sizeof what, "%s at %lld", names[f], (long long)at);
            if (try_start(n, what)) {
                ++*started;
            } else {
                ++*refused;
            }
        }
    }
}

static void flipped_bits_are_noticed_or_harmless(void)
{
    struct cluster cl;
    const char *stopped = hw_test_dir();
    const char *killed = hw_test_dir();
    unsigned started = 0;
    unsigned refused = 0;
    cluster_open(&cl);
    cl.config.snapshot_threshold = 32;
    cl.config.snapshot_trailing = 16;
    cluster_start(&cl, 1);
    for (int i = 0; i < 150; i++) {
        CHECK_EQ(cluster_write(&cl, 60), 0);
    }
    CHECK(cluster_wait(&cl, has_two_snapshots, NULL));
    folder_copy(cl.nodes[0].folder, killed, NULL, 0); /* open segments and all: as after a crash */
    node_stop(&cl.nodes[0]);
    folder_copy(cl.nodes[0].folder, stopped, NULL, 0);
    cl.nodes[0].folder = hw_test_dir();
    folder_copy(killed, cl.nodes[0].folder, NULL, 0);
    CHECK(try_start(&cl.nodes[0], "after a crash"));
    flip_all(&cl, stopped, &started, &refused);
    flip_all(&cl, killed, &started, &refused);
    if (getenv("VERBOSE") != NULL) {
        printf("\n    %u started, %u refused ", started, refused);
    }
    CHECK(started > 0);
    CHECK(refused > 0);
    CHECK_EQ(cl.disagreements, 0);
    cluster_close(&cl);
}

static void missing_files_are_noticed_or_harmless(void)
{
    struct cluster cl;
    struct node *n = &cl.nodes[0];
    const char *original;
    const char *scratch = hw_test_dir();
    char names[64][64];
    size_t count;
    cluster_open(&cl);
    cl.config.snapshot_threshold = 32;
    cl.config.snapshot_trailing = 16;
    cluster_start(&cl, 1);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(cluster_write(&cl, 60), 0);
    }
    node_stop(n);
    original = n->folder;
    count = folder_copy(original, scratch, names, 64);
    n->folder = scratch;
    for (size_t f = 0; f < count; f++) {
        char path[300];
        folder_copy(original, scratch, NULL, 0);
        path_of(path, sizeof path, scratch, names[f]);
        unlink(path);
        try_start(n, names[f]);
        folder_copy(original, scratch, NULL, 0);
        REQUIRE(truncate(path, used_bytes(path) / 2) == 0);
        try_start(n, names[f]);
    }
    CHECK_EQ(cl.disagreements, 0);
    cluster_close(&cl);
}

/* ---- without a server ---- */

static void put_u64(uint8_t *at, uint64_t v)
{
    memcpy(at, &v, 8);
}

/* A segment of one batch with one entry of 8 bytes, then `rest` bytes. */
static void segment_write(const char *folder, size_t rest, uint8_t fill, uint64_t second_count)
{
    uint8_t data[512] = {0};
    size_t len = 8 + 16 + 16 + 8;
    char path[300];
    int fd;
    put_u64(data, 1);
    put_u64(data + 16, 1); /* entries */
    data[24 + 12] = 8;     /* length of the entry */
    memset(data + len, fill, rest);
    if (rest >= 16) {
        put_u64(data + len + 8, second_count);
    }
    path_of(path, sizeof path, folder, "open-1");
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    REQUIRE(fd >= 0);
    REQUIRE(write(fd, data, len + rest) == (ssize_t)(len + rest));
    close(fd);
}

static off_t segment_size(const char *folder)
{
    struct stat st;
    char path[300];
    path_of(path, sizeof path, folder, "open-1");
    REQUIRE(stat(path, &st) == 0);
    return st.st_size;
}

static void open_segments_are_made_safe_for_libraft(void)
{
    const char *folder = hw_test_dir();
    struct hw_error e = {0};
    CHECK_EQ(folder_check(folder, &e), 0);
    segment_write(folder, 0, 0, 0);
    CHECK_EQ(folder_check(folder, &e), 0);
    segment_write(folder, 8, 0, 0); /* a rest that is too short for a batch: cut off */
    CHECK_EQ(folder_check(folder, &e), 0);
    CHECK_EQ(segment_size(folder), 48);
    segment_write(folder, 8, 3, 0);
    CHECK_EQ(folder_check(folder, &e), HW_ERR_CORRUPT);
    segment_write(folder, 100, 0, 0); /* not written yet: left alone */
    CHECK_EQ(folder_check(folder, &e), 0);
    CHECK_EQ(segment_size(folder), 148);
    segment_write(folder, 100, 0, 1000); /* a second batch that reaches past the end */
    CHECK_EQ(folder_check(folder, &e), HW_ERR_CORRUPT);
    segment_write(folder, 100, 0xff, 3); /* entries that do */
    CHECK_EQ(folder_check(folder, &e), HW_ERR_CORRUPT);
    segment_write(folder, 100, 0, UINT64_MAX); /* libraft takes an absurd count for the end */
    CHECK_EQ(folder_check(folder, &e), 0);
    CHECK_EQ(folder_check("/nonexistent/folder", &e), HW_ERR_NOTFOUND);
}

static void frames_hold_what_was_put_in_and_nothing_else(void)
{
    for (size_t len = 0; len < 40; len++) {
        struct hw_buf b = {0};
        struct hw_slice payload;
        uint64_t term;
        uint8_t bytes[40];
        memset(bytes, (int)len + 1, sizeof bytes);
        CHECK_EQ(frame_entry_begin(&b), 0);
        hw_buf_append(&b, bytes, len);
        CHECK_EQ(frame_entry_end(&b), 0);
        CHECK_EQ(frame_entry_end(&b), HW_ERR_INVALID); /* twice */
        frame_entry_set_term(&b, UINT64_MAX - 3);
        CHECK_EQ(b.len % 8, 0);
        CHECK_EQ(frame_entry_decode(b.data, b.len, &term, &payload), 0);
        CHECK_EQ(term, UINT64_MAX - 3);
        CHECK_EQ(payload.len, len);
        CHECK(memcmp(payload.data, bytes, len) == 0);
        CHECK_EQ(frame_entry_decode(b.data, b.len - 8, &term, &payload), HW_ERR_CORRUPT);
        CHECK_EQ(frame_entry_decode(b.data, 0, &term, &payload), HW_ERR_CORRUPT);
        b.data[4] = 2;
        CHECK_EQ(frame_entry_decode(b.data, b.len, &term, &payload), HW_ERR_VERSION);
        hw_buf_free(&b);
        CHECK_EQ(frame_manifest_encode(hw_slice_of(bytes, len), &b), 0);
        CHECK_EQ(frame_manifest_decode(b.data, b.len, &payload), 0);
        CHECK_EQ(payload.len, len);
        for (size_t i = 0; i < b.len; i++) {
            b.data[i] ^= 0x10;
            CHECK(frame_manifest_decode(b.data, b.len, &payload) != 0);
            b.data[i] ^= 0x10;
        }
        for (size_t i = 0; i < b.len; i++) {
            CHECK(frame_manifest_decode(b.data, i, &payload) != 0);
        }
        hw_buf_free(&b);
    }
}

HW_SUITE(consensus_damage, HW_CASE(flipped_bits_are_noticed_or_harmless),
         HW_CASE(missing_files_are_noticed_or_harmless), HW_CASE(open_segments_are_made_safe_for_libraft),
         HW_CASE(frames_hold_what_was_put_in_and_nothing_else))
