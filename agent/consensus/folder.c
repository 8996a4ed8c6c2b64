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

/* libraft's segment format (raft/uv.h): a u64 format, then batches: two u32 checksums, u64 count, 16 bytes of header
 * per entry that end in its u32 length, the entries' data. It reads at most this many entries in a batch. */
#define SEGMENT_FORMAT_BYTES 8
#define BATCH_HEAD_BYTES 16
#define ENTRY_HEAD_BYTES 16
#define BATCH_ENTRIES_MAX (8u * 1024 * 1024 / 32)

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
        is_pristine = strncmp(n, "metadata", 8) != 0 && strncmp(n, "open-", 5) != 0 &&
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

/* The end of the batches that libraft will read, or -1 and the offset of a batch that reaches past the end. */
static int walk(const uint8_t *data, size_t len, size_t *offset)
{
    size_t at = SEGMENT_FORMAT_BYTES;
    while (len - at >= BATCH_HEAD_BYTES) {
        struct hw_reader r;
        uint64_t n;
        size_t size;
        hw_reader_init(&r, data + at + 8, len - at - 8);
        n = hw_reader_u64(&r);
        *offset = at;
        if (n == 0 || n > BATCH_ENTRIES_MAX) {
            return 0; /* libraft takes this for the end of what was written */
        }
        size = BATCH_HEAD_BYTES + n * ENTRY_HEAD_BYTES;
        if (size > len - at) {
            return -1;
        }
        for (uint64_t i = 0; i < n; i++) {
            hw_reader_u64(&r);
            hw_reader_u32(&r);
            size += hw_reader_u32(&r);
        }
        if (size > len - at) {
            return -1;
        }
        at += size;
    }
    *offset = at;
    return 0;
}

/* uvSegmentLoadOpen, when a second or later batch cannot be read because the file ends, frees the file's memory, and
 * its caller frees it again through the entries of the first batch. A rest of 1 to 15 bytes does that too, and an
 * honest crash can leave one: a full segment that was not closed. */
static int check_open_segment(const char *folder, const char *name, int fd, struct hw_error *e)
{
    struct stat st;
    uint8_t *data = NULL;
    size_t len;
    size_t offset = 0;
    int errnum;
    int rc = 0;
    if (fstat(fd, &st) != 0) {
        return hw_error_errno(e, errno, "look at %s/%s", folder, name);
    }
    len = (size_t)st.st_size;
    if (len <= SEGMENT_FORMAT_BYTES) {
        return 0;
    }
    data = malloc(len);
    if (data == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "read %s/%s: out of memory", folder, name);
    }
    errnum = read_all(fd, data, len);
    if (errnum != 0) {
        rc = hw_error_errno(e, errnum, "read %s/%s", folder, name);
    } else if (walk(data, len, &offset) != 0) {
        rc = hw_error_set(e, HW_ERR_CORRUPT, "%s/%s is damaged: the batch at byte %zu reaches past the end of the file",
                          folder, name, offset);
    } else if (offset < len && len - offset < BATCH_HEAD_BYTES) {
        if (data[offset] != 0 || memcmp(data + offset, data + offset + 1, len - offset - 1) != 0) {
            rc = hw_error_set(e, HW_ERR_CORRUPT, "%s/%s is damaged: %zu stray bytes at byte %zu", folder, name,
                              len - offset, offset);
        } else if (ftruncate(fd, (off_t)offset) != 0) {
            rc = hw_error_errno(e, errno, "cut %s/%s at %zu", folder, name, offset);
        }
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
        if (strncmp(entry->d_name, "open-", 5) == 0) {
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
