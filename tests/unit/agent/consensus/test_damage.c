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

/* Acknowledged entries behind the damage: libraft alone would start without them. */
static void damage_in_the_middle_is_not_taken_for_a_crash(void)
{
    struct cluster cl;
    struct node *n = &cl.nodes[0];
    const char *killed = hw_test_dir();
    char names[64][64];
    char path[300];
    off_t used = 0;
    size_t count;
    cluster_open(&cl);
    cluster_start(&cl, 1);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(cluster_write(&cl, 60), 0);
    }
    count = folder_copy(n->folder, killed, names, 64);
    node_stop(n);
    n->folder = killed;
    for (size_t i = 0; i < count && used <= 1500; i++) {
        path_of(path, sizeof path, killed, names[i]);
        used = strncmp(names[i], "open-", 5) == 0 ? used_bytes(path) : 0;
    }
    REQUIRE(used > 1500);
    flip(path, 1500, 0x10);
    CHECK(!try_start(n, "damage in the middle"));
    CHECK(!try_start(n, "and it stays refused"));
    flip(path, 1500, 0x10);
    CHECK(try_start(n, "without the damage"));
    CHECK_EQ(cl.disagreements, 0);
    cluster_close(&cl);
}

/* ---- without a server ---- */

#define IMAGE_BYTES (128 * 1024)
#define BATCHES_MAX 16

/* An open segment as libraft writes it. */
struct image {
    uint8_t data[IMAGE_BYTES];
    size_t starts[BATCHES_MAX];
    size_t count;
    size_t len;
    struct hw_rng rng;
};

static uint32_t crc(const uint8_t *data, size_t len)
{
    uint32_t c = 0;
    for (size_t i = 0; i < len; i++) {
        c ^= (uint32_t)data[i] << 24;
        for (int bit = 0; bit < 8; bit++) {
            c = (c & 0x80000000u) != 0 ? (c << 1) ^ 0x04c11db7u : c << 1;
        }
    }
    return c;
}

static void image_init(struct image *im)
{
    memset(im, 0, sizeof *im);
    im->data[0] = 1;
    im->len = 8;
    hw_rng_seed(&im->rng, 11);
}

/* Payload without zero bytes. */
static void image_add(struct image *im, uint64_t entries, uint32_t entry_bytes)
{
    uint8_t *at = im->data + im->len;
    uint8_t *payload = at + 16 + 16 * entries;
    uint32_t sum;
    REQUIRE(im->count < BATCHES_MAX && im->len + 16 + entries * (16 + entry_bytes) <= sizeof im->data);
    im->starts[im->count++] = im->len;
    memcpy(at + 8, &entries, 8);
    for (uint64_t i = 0; i < entries; i++) {
        at[16 + 16 * i] = 3;     /* term */
        at[16 + 16 * i + 8] = 1; /* a command */
        memcpy(at + 16 + 16 * i + 12, &entry_bytes, 4);
    }
    for (uint64_t i = 0; i < entries * entry_bytes; i++) {
        payload[i] = (uint8_t)(1 + hw_rng_below(&im->rng, 255));
    }
    sum = crc(at + 8, 8 + 16 * entries);
    memcpy(at, &sum, 4);
    sum = crc(payload, entries * entry_bytes);
    memcpy(at + 4, &sum, 4);
    im->len += 16 + entries * (16 + entry_bytes);
}

static int check_file(const char *folder, const char *name, const uint8_t *data, size_t len)
{
    struct hw_error e = {0};
    char path[300];
    int fd;
    int rc;
    path_of(path, sizeof path, folder, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    REQUIRE(fd >= 0);
    REQUIRE(write(fd, data, len) == (ssize_t)len);
    close(fd);
    rc = folder_check(folder, &e);
    CHECK((rc == 0) == (e.text[0] == '\0'));
    return rc;
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
    static struct image im;
    const char *folder = hw_test_dir();
    struct hw_error e = {0};
    size_t end;
    CHECK_EQ(folder_check(folder, &e), 0);
    CHECK_EQ(folder_check("/nonexistent/folder", &e), HW_ERR_NOTFOUND);
    image_init(&im);
    CHECK_EQ(check_file(folder, "open-1", im.data, 0), 0);
    CHECK_EQ(check_file(folder, "open-1", im.data, 8), 0);
    image_add(&im, 1, 8);
    end = im.len;
    CHECK_EQ(check_file(folder, "open-1", im.data, end), 0);
    CHECK_EQ(check_file(folder, "open-1", im.data, end + 8), 0); /* a rest that is too short for a batch: cut off */
    CHECK_EQ(segment_size(folder), end);
    CHECK_EQ(check_file(folder, "open-1", im.data, end + 100), 0); /* not written yet: left alone */
    CHECK_EQ(segment_size(folder), end + 100);
    im.data[end + 3] = 3;
    CHECK_EQ(check_file(folder, "open-1", im.data, end + 8), HW_ERR_CORRUPT);
    im.data[end + 8] = 200; /* a second batch that reaches past the end */
    CHECK_EQ(check_file(folder, "open-1", im.data, end + 100), HW_ERR_CORRUPT);
    memset(im.data + end + 8, 0xff, 8); /* libraft takes an absurd count for the end */
    CHECK_EQ(check_file(folder, "open-1", im.data, end + 100), 0);
    image_init(&im);
    image_add(&im, 1, 8);
    image_add(&im, 3, 400);
    CHECK_EQ(check_file(folder, "open-1", im.data, im.len - 8), HW_ERR_CORRUPT); /* entries that reach past the end */
}

static void damage_before_the_last_batch_is_refused(void)
{
    static struct image im;
    static const struct {
        uint64_t entries;
        uint32_t bytes;
    } batches[] = {{1, 8}, {1, 200}, {3, 640}, {1, 0}, {40, 16}, {1, 9000}, {2, 72}, {1, 120}};
    const char *folder = hw_test_dir();
    image_init(&im);
    for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
        image_add(&im, batches[i].entries, batches[i].bytes);
    }
    CHECK_EQ(check_file(folder, "open-1", im.data, sizeof im.data), 0);
    for (size_t i = 0; i < im.count; i++) {
        size_t start = im.starts[i];
        size_t end = i + 1 < im.count ? im.starts[i + 1] : im.len;
        /* The checksums, the count, a term, a length, the data's middle and end. */
        const size_t offsets[] = {start, start + 4, start + 8, start + 16, start + 26, (start + end) / 2, end - 4};
        for (size_t k = 0; k < sizeof offsets / sizeof offsets[0]; k++) {
            uint8_t kept[4];
            memcpy(kept, im.data + offsets[k], sizeof kept);
            memcpy(im.data + offsets[k], "harm", sizeof kept);
            CHECK_EQ(check_file(folder, "open-1", im.data, sizeof im.data), i + 1 < im.count ? HW_ERR_CORRUPT : 0);
            CHECK_EQ(segment_size(folder), sizeof im.data);
            memcpy(im.data + offsets[k], kept, sizeof kept);
        }
    }
}

static void damage_before_a_later_segment_is_refused(void)
{
    static struct image im;
    static const uint8_t zeros[BLOCK];
    const char *folder = hw_test_dir();
    image_init(&im);
    image_add(&im, 1, 200);
    image_add(&im, 1, 200);
    CHECK_EQ(check_file(folder, "open-9", im.data, sizeof im.data), 0);
    CHECK_EQ(check_file(folder, "open-10", im.data, sizeof im.data), 0); /* both were open: as a crash leaves it */
    im.data[im.len - 1] ^= 1;
    CHECK_EQ(check_file(folder, "open-10", im.data, sizeof im.data), 0); /* the very last batch */
    CHECK_EQ(check_file(folder, "open-9", im.data, sizeof im.data), HW_ERR_CORRUPT);
    CHECK_EQ(check_file(folder, "open-10", zeros, sizeof zeros), 0); /* prepared, never written */
    CHECK_EQ(check_file(folder, "open-10", zeros, 0), 0);
}

/* The last write is of several batches; any of its sectors may be missing after a power failure. */
static void a_torn_write_is_left_to_libraft(void)
{
    static struct image before;
    static struct image after;
    static uint8_t torn[IMAGE_BYTES];
    const char *folder = hw_test_dir();
    unsigned whole = 0;
    image_init(&before);
    for (int i = 0; i < 4; i++) {
        image_add(&before, 1, 1400 + 8 * (uint32_t)i);
    }
    after = before;
    image_add(&after, 1, 200);
    image_add(&after, 4, 56);
    image_add(&after, 1, 3000);
    image_add(&after, 90, 8);
    image_add(&after, 1, 480);
    image_add(&after, 1, 8);
    for (int turn = 0; turn < 600; turn++) {
        unsigned percent = (unsigned)hw_rng_below(&before.rng, 101);
        size_t from = before.len / BLOCK * BLOCK;
        memcpy(torn, before.data, sizeof torn);
        for (size_t at = from; at < after.len; at += 512) {
            /* Every 7th as a process that is killed leaves it: pages from the front. */
            if (turn % 7 == 0 ? at < from + BLOCK * (size_t)(turn % 4) : hw_rng_is_chance(&before.rng, percent)) {
                memcpy(torn + at, after.data + at, 512);
            }
        }
        CHECK_EQ(check_file(folder, "open-1", torn, sizeof torn), 0);
        whole += memcmp(torn, after.data, sizeof torn) == 0;
    }
    CHECK(whole < 100);
}

/* Headers that check, each of an entry that reaches to the end: the search behind a bad batch has an end. */
static void a_search_for_batches_is_bounded(void)
{
    size_t len = 1024 * 1024 + 8;
    uint8_t *data = calloc(1, len);
    const char *folder = hw_test_dir();
    REQUIRE(data != NULL);
    data[0] = 1;
    for (size_t at = 8; at < len; at += 32) {
        uint32_t entry_bytes = (uint32_t)(len - at - 32);
        uint32_t sum;
        data[at + 8] = 1;  /* entries */
        data[at + 24] = 1; /* a command */
        memcpy(data + at + 28, &entry_bytes, 4);
        sum = crc(data + at + 8, 24);
        memcpy(data + at, &sum, 4);
        memset(data + at + 4, 0xee, 4);
    }
    CHECK_EQ(check_file(folder, "open-1", data, len), HW_ERR_CORRUPT);
    free(data);
}

static void frames_hold_what_was_put_in_and_nothing_else(void)
{
    for (size_t len = 0; len < 40; len++) {
        struct hw_buf b = {0};
        struct hw_slice payload;
        uint64_t term;
        uint64_t index;
        uint8_t bytes[40];
        memset(bytes, (int)len + 1, sizeof bytes);
        CHECK_EQ(frame_entry_begin(&b), 0);
        hw_buf_append(&b, bytes, len);
        CHECK_EQ(frame_entry_end(&b), 0);
        CHECK_EQ(frame_entry_end(&b), HW_ERR_INVALID); /* twice */
        frame_entry_set_place(&b, UINT64_MAX - 3, 77);
        CHECK_EQ(b.len % 8, 0);
        CHECK_EQ(frame_entry_decode(b.data, b.len, &term, &index, &payload), 0);
        CHECK_EQ(term, UINT64_MAX - 3);
        CHECK_EQ(payload.len, len);
        CHECK(memcmp(payload.data, bytes, len) == 0);
        CHECK_EQ(frame_entry_decode(b.data, b.len - 8, &term, &index, &payload), HW_ERR_CORRUPT);
        CHECK_EQ(frame_entry_decode(b.data, 0, &term, &index, &payload), HW_ERR_CORRUPT);
        b.data[4] = 2;
        CHECK_EQ(frame_entry_decode(b.data, b.len, &term, &index, &payload), HW_ERR_VERSION);
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
         HW_CASE(missing_files_are_noticed_or_harmless), HW_CASE(damage_in_the_middle_is_not_taken_for_a_crash),
         HW_CASE(open_segments_are_made_safe_for_libraft), HW_CASE(damage_before_the_last_batch_is_refused),
         HW_CASE(damage_before_a_later_segment_is_refused), HW_CASE(a_torn_write_is_left_to_libraft),
         HW_CASE(a_search_for_batches_is_bounded), HW_CASE(frames_hold_what_was_put_in_and_nothing_else))
