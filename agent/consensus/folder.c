#include "agent/consensus/folder.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/consensus/consensus.h"

/* libraft's segment format (raft/uv.h): a u64 format, then batches: two u32 checksums (of the header from its count on,
 * of the data), u64 count, 16 bytes of header per entry that end in its u32 length, the entries' data in multiples of 8
 * bytes. It reads at most this many entries in a batch. */
#define OPEN_PREFIX "open-"
#define SEGMENT_FORMAT 1
#define SEGMENT_FORMAT_BYTES 8
#define BATCH_HEAD_BYTES 16
#define ENTRY_HEAD_BYTES 16
#define BATCH_ENTRIES_MAX (8u * 1024 * 1024 / 32)
#define SECTOR_BYTES 512
/* What a search for batches may look at, in bytes: contents made to look like batches must not hold up the start. */
#define SEARCH_WORK_MAX (64u * 1024 * 1024)

/* What a crash leaves, and what only damage leaves.
 *
 * libraft cuts an open segment at the first batch that does not check, taking it for a write that a crash has torn.
 * Were it damage, everything behind it, acknowledged long ago, would go without a word. The two can be told apart:
 *
 * - One write is under way at any time, in all segments together (uvAppendMaybeStart goes on only when the queue of
 *   those being written is empty, and the writer asserts it). Each is RWF_DSYNC, and nothing of it is acknowledged
 *   before all of it is on the disk. So only the last write can be torn; and as soon as a later open segment holds
 *   anything, all of the earlier one is complete. (An earlier one may still be open: closing it is a job on a thread
 *   pool, behind which the writes to the next one go on. Closed segments are always older than open ones.)
 * - But one write may be many batches, all that were waiting, and a disk may have written its sectors in any order
 *   when the power fails. So a whole batch behind one that does not check is no proof by itself.
 * - A sector is written or it is not, and before it was written it was zero: segments are allocated afresh, an open one
 *   is never written to again after a restart, and a repeated write has the same bytes. The rewritten block at the
 *   front of a write has the same bytes up to the end of the write before, and zeros after that. So where a write is
 *   torn, there is a sector that is zero from where its new bytes should begin.
 *
 * Therefore: a batch that does not check, and a whole one further on with no zero sector between them, is damage. With
 * a zero sector between them it may be a torn write, as may anything that has no whole batch behind it; then libraft's
 * cut is right, or cannot be told from right. */

static bool is_number(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!isdigit((unsigned char)s[i])) {
            return false;
        }
    }
    return len > 0;
}

static bool is_segment(const char *name)
{
    const char *dash = strchr(name, '-');
    return dash != NULL && is_number(name, (size_t)(dash - name)) && is_number(dash + 1, strlen(dash + 1));
}

bool hw_consensus_folder_is_pristine(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *entry;
    bool is_pristine = true;
    if (d == NULL) {
        return errno == ENOENT;
    }
    while (is_pristine && (entry = readdir(d)) != NULL) {
        const char *n = entry->d_name;
        is_pristine = strncmp(n, "metadata", 8) != 0 && strncmp(n, OPEN_PREFIX, strlen(OPEN_PREFIX)) != 0 &&
                      strncmp(n, "snapshot-", 9) != 0 && !is_segment(n);
    }
    closedir(d);
    return is_pristine;
}

void folder_room(struct disk_room *r)
{
    struct statvfs st;
    r->free_mib = statvfs(r->folder, &st) == 0 ? (uint64_t)st.f_bavail * st.f_frsize / (1024 * 1024) : 0;
}

static int read_all(int fd, uint8_t *data, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = read(fd, data + at, len - at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n == 0 ? EIO : errno;
        }
        at += (size_t)n;
    }
    return 0;
}

struct segment {
    const uint8_t *data;
    size_t len;
    uint32_t crc_table[256];
    uint64_t work; /* bytes looked at */
};

/* libraft's checksum: CRC-32 (polynomial 0x04c11db7), most significant bit first, from 0, not inverted. No library here
 * has this variant. */
static void crc_init(struct segment *s)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i << 24;
        for (int bit = 0; bit < 8; bit++) {
            c = (c << 1) ^ ((c >> 31) * 0x04c11db7u);
        }
        s->crc_table[i] = c;
    }
}

static uint32_t crc_of(struct segment *s, size_t at, size_t len)
{
    uint32_t c = 0;
    for (size_t i = at; i < at + len; i++) {
        c = (c << 8) ^ s->crc_table[(c >> 24) ^ s->data[i]];
    }
    s->work += len;
    return c;
}

static uint64_t u64_at(const struct segment *s, size_t at)
{
    struct hw_reader r;
    hw_reader_init(&r, s->data + at, s->len - at);
    return hw_reader_u64(&r);
}

static uint32_t u32_at(const struct segment *s, size_t at)
{
    struct hw_reader r;
    hw_reader_init(&r, s->data + at, s->len - at);
    return hw_reader_u32(&r);
}

enum batch { BATCH_GOOD, BATCH_BAD, BATCH_OVERLONG };

/* In libraft's order, which decides what it makes of a bad one. */
static enum batch batch_at(struct segment *s, size_t at, size_t *size)
{
    size_t left = s->len - at;
    uint64_t n;
    size_t head;
    if (left < BATCH_HEAD_BYTES) {
        return BATCH_BAD;
    }
    n = u64_at(s, at + 8);
    if (n == 0 || n > BATCH_ENTRIES_MAX) {
        return BATCH_BAD;
    }
    head = BATCH_HEAD_BYTES + n * ENTRY_HEAD_BYTES;
    if (head > left) {
        return BATCH_OVERLONG;
    }
    if (u32_at(s, at) != crc_of(s, at + 8, head - 8)) {
        return BATCH_BAD;
    }
    *size = head;
    for (uint64_t i = 1; i <= n; i++) {
        *size += u32_at(s, at + BATCH_HEAD_BYTES + i * ENTRY_HEAD_BYTES - 4);
    }
    if (*size > left) {
        return BATCH_OVERLONG;
    }
    return u32_at(s, at + 4) == crc_of(s, at + head, *size - head) ? BATCH_GOOD : BATCH_BAD;
}

/* A quick look before checksums are counted. */
static bool is_batch_plausible(struct segment *s, size_t at)
{
    size_t left = s->len - at;
    size_t head = at + BATCH_HEAD_BYTES;
    uint64_t size = BATCH_HEAD_BYTES;
    uint64_t n = left >= BATCH_HEAD_BYTES ? u64_at(s, at + 8) : 0;
    if (n == 0 || n > BATCH_ENTRIES_MAX || BATCH_HEAD_BYTES + n * ENTRY_HEAD_BYTES > left) {
        return false;
    }
    for (uint64_t i = 0; i < n; i++, head += ENTRY_HEAD_BYTES) {
        uint32_t len = u32_at(s, head + 12);
        uint32_t type = u32_at(s, head + 8); /* a byte 1 to 3, three zeros */
        size += ENTRY_HEAD_BYTES + len;
        s->work += ENTRY_HEAD_BYTES;
        if (type < 1 || type > 3 || len % 8 != 0 || size > left) {
            return false;
        }
    }
    return true;
}

static bool is_zero(const uint8_t *data, size_t len)
{
    return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

/* The offset of a whole batch behind the bad one with no zero sector between them, or 0. */
static size_t find_batch_behind(struct segment *s, size_t bad)
{
    size_t at = bad;
    while (at < s->len) {
        size_t sector_end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        size_t end = sector_end < s->len ? sector_end : s->len;
        if (is_zero(s->data + at, end - at)) {
            return 0;
        }
        for (; at < end; at += 8) {
            size_t size;
            if (s->work > SEARCH_WORK_MAX ||
                (at > bad && is_batch_plausible(s, at) && batch_at(s, at, &size) == BATCH_GOOD)) {
                return at;
            }
        }
    }
    return 0;
}

static int read_file(const char *folder, const char *name, int fd, uint8_t **data, size_t *len, struct hw_error *e)
{
    struct stat st;
    int errnum;
    *data = NULL;
    if (fstat(fd, &st) != 0) {
        return hw_error_errno(e, errno, "look at %s/%s", folder, name);
    }
    *len = (size_t)st.st_size;
    *data = malloc(*len + 1);
    if (*data == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "read %s/%s: out of memory", folder, name);
    }
    errnum = read_all(fd, *data, *len);
    if (errnum != 0) {
        free(*data);
        *data = NULL;
        return hw_error_errno(e, errnum, "read %s/%s", folder, name);
    }
    return 0;
}

static uint64_t counter_of(const char *name)
{
    return strtoull(name + strlen(OPEN_PREFIX), NULL, 10);
}

/* 1 when an open segment of a higher number has anything in it, 0 when none has. */
static int has_later_data(const char *folder, const char *name, struct hw_error *e)
{
    DIR *d = opendir(folder);
    struct dirent *entry;
    int rc = 0;
    if (d == NULL) {
        return hw_error_errno(e, errno, "open the log folder %s", folder);
    }
    while (rc == 0 && (entry = readdir(d)) != NULL) {
        uint8_t *data;
        size_t len;
        int fd;
        if (strncmp(entry->d_name, OPEN_PREFIX, strlen(OPEN_PREFIX)) != 0 ||
            counter_of(entry->d_name) <= counter_of(name)) {
            continue;
        }
        fd = openat(dirfd(d), entry->d_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            rc = hw_error_errno(e, errno, "open %s/%s", folder, entry->d_name);
            break;
        }
        rc = read_file(folder, entry->d_name, fd, &data, &len, e);
        if (rc == 0) {
            rc = !is_zero(data, len);
        }
        free(data);
        close(fd);
    }
    closedir(d);
    return rc;
}

/* The batch at `bad` does not check, and it is not the zeros after the last one. */
static int check_bad_batch(struct segment *s, size_t bad, const char *folder, const char *name, struct hw_error *e)
{
    int rc = has_later_data(folder, name, e);
    size_t behind;
    if (rc > 0) {
        return hw_error_set(
            e, HW_ERR_CORRUPT,
            "%s/%s is damaged: the batch at byte %zu does not check, and it is not the end of the log: a "
            "later segment has been written",
            folder, name, bad);
    }
    behind = rc == 0 ? find_batch_behind(s, bad) : 0;
    if (behind > 0) {
        return hw_error_set(e, HW_ERR_CORRUPT,
                            "%s/%s is damaged: the batch at byte %zu does not check, and it is not the end of the log: "
                            "there is more at byte %zu",
                            folder, name, bad, behind);
    }
    return rc;
}

/* uvSegmentLoadOpen, when a second or later batch cannot be read because the file ends, frees the file's memory, and
 * its caller frees it again through the entries of the first batch. A rest of 1 to 15 bytes does that too, and an
 * honest crash can leave one: a full segment that was not closed. */
static int check_batches(struct segment *s, const char *folder, const char *name, int fd, struct hw_error *e)
{
    enum batch batch = BATCH_GOOD;
    size_t at = SEGMENT_FORMAT_BYTES;
    size_t size;
    while (s->len - at >= BATCH_HEAD_BYTES && (batch = batch_at(s, at, &size)) == BATCH_GOOD) {
        at += size;
    }
    s->work = 0;
    if (batch == BATCH_OVERLONG) {
        return hw_error_set(e, HW_ERR_CORRUPT,
                            "%s/%s is damaged: the batch at byte %zu reaches past the end of the file", folder, name,
                            at);
    }
    if (!is_zero(s->data + at, s->len - at)) {
        return s->len - at >= BATCH_HEAD_BYTES
                   ? check_bad_batch(s, at, folder, name, e)
                   : hw_error_set(e, HW_ERR_CORRUPT, "%s/%s is damaged: %zu stray bytes at byte %zu", folder, name,
                                  s->len - at, at);
    }
    if (s->len > at && s->len - at < BATCH_HEAD_BYTES && ftruncate(fd, (off_t)at) != 0) {
        return hw_error_errno(e, errno, "cut %s/%s at %zu", folder, name, at);
    }
    return 0;
}

static int check_open_segment(const char *folder, const char *name, int fd, struct hw_error *e)
{
    struct segment s = {0};
    uint8_t *data;
    int rc = read_file(folder, name, fd, &data, &s.len, e);
    if (rc != 0) {
        return rc;
    }
    s.data = data;
    /* What has another format, libraft refuses, or removes when it is all zeros. */
    if (s.len > SEGMENT_FORMAT_BYTES && u64_at(&s, 0) == SEGMENT_FORMAT) {
        crc_init(&s);
        rc = check_batches(&s, folder, name, fd, e);
    }
    free(data);
    return rc;
}

int folder_check(const char *folder, struct hw_error *e)
{
    DIR *d = opendir(folder);
    struct dirent *entry;
    int rc = 0;
    if (d == NULL) {
        return hw_error_errno(e, errno, "open the log folder %s", folder);
    }
    while (rc == 0 && (entry = readdir(d)) != NULL) {
        if (strncmp(entry->d_name, OPEN_PREFIX, strlen(OPEN_PREFIX)) == 0) {
            int fd = openat(dirfd(d), entry->d_name, O_RDWR | O_CLOEXEC);
            if (fd < 0) {
                rc = hw_error_errno(e, errno, "open %s/%s", folder, entry->d_name);
            } else {
                rc = check_open_segment(folder, entry->d_name, fd, e);
                close(fd);
            }
        }
    }
    closedir(d);
    return rc;
}
