#include "cli/snapshot_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "proto/hotwarm.pb-c.h"

int hw_ctl_snapshot_open(struct hw_ctl_snapshot *s, const char *path, bool may_replace, struct hw_error *e)
{
    int rc;
    memset(s, 0, sizeof *s);
    s->path = path;
    s->fd = -1;
    if (*path == '\0' || (size_t)snprintf(s->part, sizeof s->part, "%s.part", path) >= sizeof s->part) {
        return hw_error_set(e, HW_ERR_INVALID, "the file name is empty or too long");
    }
    if (!may_replace && access(path, F_OK) == 0) {
        return hw_error_set(e, HW_ERR_EXISTS, "%s is there already", path);
    }
    s->hash = XXH3_createState();
    if (s->hash == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "out of memory");
    }
    XXH3_64bits_reset(s->hash);
    s->fd = open(s->part, O_RDWR | O_CREAT | O_CLOEXEC, 0600); /* not O_TRUNC: it may be another run's */
    if (s->fd < 0) {
        rc = hw_error_errno(e, errno, "make %s", s->part);
        goto failed;
    }
    if (flock(s->fd, LOCK_EX | LOCK_NB) != 0) {
        rc = hw_error_set(e, HW_ERR_LOCKED, "%s is being written by another hwctl", s->part);
        goto failed;
    }
    if (ftruncate(s->fd, 0) != 0) {
        rc = hw_error_errno(e, errno, "empty %s", s->part);
        goto failed;
    }
    return 0;

failed:
    if (s->fd >= 0) {
        close(s->fd);
    }
    XXH3_freeState(s->hash);
    s->fd = -1;
    s->hash = NULL;
    return rc;
}

void hw_ctl_snapshot_stream(struct hw_ctl_snapshot *s)
{
    s->has_begun = false;
}

int hw_ctl_snapshot_restart(struct hw_ctl_snapshot *s, struct hw_error *e)
{
    s->token = 0;
    s->offset = 0;
    XXH3_64bits_reset(s->hash);
    if (ftruncate(s->fd, 0) != 0) {
        return hw_error_errno(e, errno, "empty %s", s->part);
    }
    return 0;
}

static int on_begin(struct hw_ctl_snapshot *s, const Hotwarm__V1__SnapshotBegin *b, struct hw_error *e)
{
    bool is_same = s->token != 0 && b->token == s->token && b->size == s->size && b->index == s->index;
    if (s->has_begun) {
        return hw_error_set(e, HW_ERR_PROTOCOL, "the stream began twice");
    }
    if (!is_same && s->offset > 0) {
        int rc = hw_ctl_snapshot_restart(s, e);
        if (rc != 0) {
            return rc;
        }
    }
    s->has_begun = true;
    s->token = b->token;
    s->size = b->size;
    s->index = b->index;
    s->revision = b->revision;
    s->cluster_id = b->cluster_id;
    s->rows_hash = b->rows_hash;
    return 0;
}

static int write_all(struct hw_ctl_snapshot *s, const uint8_t *data, size_t len, struct hw_error *e)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pwrite(s->fd, data + done, len - done, (off_t)(s->offset + done));
        if (n < 0 && errno != EINTR) {
            return hw_error_errno(e, errno, "write %s", s->part);
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int on_chunk(struct hw_ctl_snapshot *s, const Hotwarm__V1__SnapshotChunk *c, struct hw_error *e)
{
    int rc;
    if (!s->has_begun || c->offset != s->offset || c->data.len > s->size - s->offset) {
        return hw_error_set(e, HW_ERR_PROTOCOL, "a chunk at byte %llu came where byte %llu of %llu was due",
                            (unsigned long long)c->offset, (unsigned long long)s->offset, (unsigned long long)s->size);
    }
    if (XXH3_64bits(c->data.data, c->data.len) != c->checksum) {
        return hw_error_set(e, HW_ERR_CORRUPT, "the chunk at byte %llu arrived damaged (checksum)",
                            (unsigned long long)c->offset);
    }
    rc = write_all(s, c->data.data, c->data.len, e);
    if (rc == 0) {
        XXH3_64bits_update(s->hash, c->data.data, c->data.len);
        s->offset += c->data.len;
    }
    return rc;
}

static int on_end(struct hw_ctl_snapshot *s, const Hotwarm__V1__SnapshotEnd *end, struct hw_error *e)
{
    if (!s->has_begun || s->offset != s->size) {
        return hw_error_set(e, HW_ERR_PROTOCOL, "the stream ended at byte %llu of %llu", (unsigned long long)s->offset,
                            (unsigned long long)s->size);
    }
    s->checksum = XXH3_64bits_digest(s->hash);
    if (s->checksum != end->checksum) {
        return hw_error_set(e, HW_ERR_CORRUPT, "the file is damaged: checksum %016llx, the server sent %016llx",
                            (unsigned long long)s->checksum, (unsigned long long)end->checksum);
    }
    s->is_complete = true;
    return 0;
}

int hw_ctl_snapshot_message(struct hw_ctl_snapshot *s, struct hw_slice message, struct hw_error *e)
{
    Hotwarm__V1__SnapshotMessage *m = hotwarm__v1__snapshot_message__unpack(NULL, message.len, message.data);
    int rc;
    if (m == NULL) {
        return hw_error_set(e, HW_ERR_PROTOCOL, "the stream holds something that is not a snapshot message");
    }
    switch (s->is_complete ? HOTWARM__V1__SNAPSHOT_MESSAGE__PART__NOT_SET : m->part_case) {
    case HOTWARM__V1__SNAPSHOT_MESSAGE__PART_BEGIN:
        rc = on_begin(s, m->begin, e);
        break;
    case HOTWARM__V1__SNAPSHOT_MESSAGE__PART_CHUNK:
        rc = on_chunk(s, m->chunk, e);
        break;
    case HOTWARM__V1__SNAPSHOT_MESSAGE__PART_END:
        rc = on_end(s, m->end, e);
        break;
    default:
        rc =
            hw_error_set(e, HW_ERR_PROTOCOL, s->is_complete ? "a message came after the end" : "an empty message came");
        break;
    }
    hotwarm__v1__snapshot_message__free_unpacked(m, NULL);
    return rc;
}

static void release(struct hw_ctl_snapshot *s)
{
    if (s->fd >= 0) {
        close(s->fd);
        s->fd = -1;
    }
    if (s->hash != NULL) {
        XXH3_freeState(s->hash);
        s->hash = NULL;
    }
}

/* A rename is durable when the folder is. */
static int sync_folder(const char *path, struct hw_error *e)
{
    const char *slash = strrchr(path, '/');
    char folder[4096];
    int fd;
    int rc = 0;
    snprintf(folder, sizeof folder, "%.*s",
             slash == path   ? 1
             : slash != NULL ? (int)(slash - path)
                             : 1,
             slash != NULL ? path : ".");
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        rc = hw_error_errno(e, errno, "make the folder %s durable", folder);
    }
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

int hw_ctl_snapshot_finish(struct hw_ctl_snapshot *s, struct hw_error *e)
{
    int rc = 0;
    hw_assert(s->is_complete);
    if (fsync(s->fd) != 0) {
        rc = hw_error_errno(e, errno, "make %s durable", s->part);
    } else if (rename(s->part, s->path) != 0) {
        rc = hw_error_errno(e, errno, "rename %s to %s", s->part, s->path);
    }
    if (rc != 0) {
        hw_ctl_snapshot_abort(s);
        return rc;
    }
    release(s);
    return sync_folder(s->path, e);
}

void hw_ctl_snapshot_abort(struct hw_ctl_snapshot *s)
{
    if (s->fd >= 0) {
        unlink(s->part);
    }
    release(s);
}
