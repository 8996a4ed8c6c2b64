#include "storage/warm/part.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "storage/warm/fs.h"

#define FOLDER "incoming"
#define PART "image.part"
#define FROM "image.part.from"
#define FORMAT 1
#define FROM_BYTES_MAX 1024

void hw_part_path(const char *data, char *path, size_t size)
{
    snprintf(path, size, "%s/" FOLDER "/" PART, data);
}

/* The lines that the last one, the checksum, is over. */
static int encode(const struct hw_part *p, char *text, size_t size)
{
    return snprintf(text, size,
                    "format=%d\ncluster=%016" PRIx64 "\nsource=%016" PRIx64 "\ntoken=%016" PRIx64 "\nindex=%" PRIu64
                    "\ntotal=%" PRIu64 "\n",
                    FORMAT, p->cluster_id, p->source, p->token, p->index, p->total_bytes);
}

static bool decode(char *text, struct hw_part *p)
{
    char again[FROM_BYTES_MAX];
    uint64_t checksum = 0;
    int format = 0;
    int n;
    memset(p, 0, sizeof *p);
    if (sscanf(text,
               "format=%d\ncluster=%" SCNx64 "\nsource=%" SCNx64 "\ntoken=%" SCNx64 "\nindex=%" SCNu64
               "\ntotal=%" SCNu64 "\nchecksum=%" SCNx64,
               &format, &p->cluster_id, &p->source, &p->token, &p->index, &p->total_bytes, &checksum) != 7 ||
        format != FORMAT) {
        return false;
    }
    n = encode(p, again, sizeof again);
    return checksum == XXH3_64bits(again, (size_t)n) && strncmp(again, text, (size_t)n) == 0;
}

int hw_part_load(const char *data, uint64_t cluster_id, struct hw_part *part, struct hw_error *e)
{
    char folder[PATH_MAX];
    char path[PATH_MAX];
    struct hw_buf text;
    int rc = hw_fs_join(folder, data, FOLDER, "", e);
    hw_buf_init(&text);
    if (rc == 0 && (rc = hw_fs_join(path, folder, FROM, "", e)) == 0) {
        rc = hw_fs_is_there(path) ? hw_fs_read(path, FROM_BYTES_MAX, &text, e) : HW_ERR_NOTFOUND;
    }
    if (rc == 0) {
        hw_buf_put_u8(&text, '\0');
        rc = text.failed ? HW_ERR_NOMEM : decode((char *)text.data, part) ? 0 : HW_ERR_NOTFOUND;
    }
    hw_buf_free(&text);
    if (rc == 0 && (rc = hw_fs_join(path, folder, PART, "", e)) == 0) {
        rc = hw_fs_size(path, &part->received_bytes, e);
    }
    if (rc == 0 && (part->cluster_id != cluster_id || part->token == 0 || part->received_bytes > part->total_bytes)) {
        rc = HW_ERR_NOTFOUND;
    }
    return rc;
}

int hw_part_begin(const char *data, const struct hw_part *part, struct hw_error *e)
{
    char folder[PATH_MAX];
    char path[PATH_MAX];
    char text[FROM_BYTES_MAX];
    int n = encode(part, text, sizeof text - 32);
    int rc = hw_fs_join(folder, data, FOLDER, "", e);
    int fd;
    if (rc != 0 || (rc = hw_fs_join(path, folder, PART, "", e)) != 0) {
        return rc;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_TRUNC, 0600);
    if (fd < 0) {
        return hw_error_errno(e, errno, "open %s", path);
    }
    close(fd);
    n += snprintf(text + n, 32, "checksum=%016" PRIx64 "\n", (uint64_t)XXH3_64bits(text, (size_t)n));
    return hw_fs_replace(folder, FROM, hw_slice_of(text, (size_t)n), e);
}

int hw_part_write(const char *data, struct hw_slice bytes, uint64_t at, struct hw_error *e)
{
    char path[PATH_MAX];
    int fd;
    hw_part_path(data, path, sizeof path);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return hw_error_errno(e, errno, "open %s", path);
    }
    while (bytes.len > 0) {
        ssize_t n = pwrite(fd, bytes.data, bytes.len, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            int rc = hw_error_errno(e, errno, "write %s", path);
            close(fd);
            return rc;
        }
        bytes.data += n;
        bytes.len -= (size_t)n;
        at += (uint64_t)n;
    }
    close(fd);
    return 0;
}

int hw_part_check(const char *data, uint64_t size, uint64_t checksum, struct hw_error *e)
{
    enum { BLOCK = 1 << 20 };
    char path[PATH_MAX];
    XXH3_state_t *state = XXH3_createState();
    uint8_t *block = malloc(BLOCK);
    uint64_t seen = 0;
    ssize_t n = 0;
    int rc = 0;
    int fd;
    hw_part_path(data, path, sizeof path);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (state == NULL || block == NULL) {
        rc = hw_error_set(e, HW_ERR_NOMEM, "check %s: out of memory", path);
    } else if (fd < 0) {
        rc = hw_error_errno(e, errno, "open %s", path);
    } else {
        XXH3_64bits_reset(state);
        while ((n = read(fd, block, BLOCK)) > 0) {
            XXH3_64bits_update(state, block, (size_t)n);
            seen += (uint64_t)n;
        }
        if (n < 0 || fsync(fd) != 0) {
            rc = hw_error_errno(e, errno, "read %s", path);
        } else if (seen != size || XXH3_64bits_digest(state) != checksum) {
            rc = hw_error_set(e, HW_ERR_CORRUPT, "the received image is damaged (%" PRIu64 " of %" PRIu64 " bytes)",
                              seen, size);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    free(block);
    XXH3_freeState(state);
    return rc;
}

void hw_part_forget(const char *data)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/" FOLDER "/" FROM, data);
    hw_fs_unlink(path, NULL);
}
