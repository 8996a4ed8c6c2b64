#include "storage/warm/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_CHUNK_BYTES 4096

hw_fs_fault_fn hw_fs_fault;

int hw_fs_check(const char *op, const char *path)
{
    return hw_fs_fault == NULL ? 0 : hw_fs_fault(op, path);
}

/* For the form `is_failed(...) || syscall() != 0`, which leaves the reason in errno either way. */
static bool is_failed(const char *op, const char *path)
{
    int errnum = hw_fs_check(op, path);
    if (errnum != 0) {
        errno = errnum;
    }
    return errnum != 0;
}

int hw_fs_join(char out[PATH_MAX], const char *folder, const char *name, const char *suffix, struct hw_error *e)
{
    int n = snprintf(out, PATH_MAX, "%s/%s%s", folder, name, suffix);
    if (n < 0 || n >= PATH_MAX) {
        return hw_error_set(e, HW_ERR_INVALID, "%.100s.../%s%s: the path is longer than %d bytes", folder, name, suffix,
                            PATH_MAX);
    }
    return 0;
}

int hw_fs_parent(char out[PATH_MAX], const char *path, struct hw_error *e)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path);
    if (len >= PATH_MAX) {
        return hw_error_set(e, HW_ERR_INVALID, "%.100s...: the path is longer than %d bytes", path, PATH_MAX);
    }
    if (slash == NULL) {
        memcpy(out, ".", 2);
    } else if (len == 0) {
        memcpy(out, "/", 2);
    } else {
        memcpy(out, path, len);
        out[len] = '\0';
    }
    return 0;
}

bool hw_fs_is_there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

int hw_fs_size(const char *path, uint64_t *size, struct hw_error *e)
{
    struct stat st;
    if (is_failed("stat", path) || stat(path, &st) != 0) {
        return hw_error_errno(e, errno, "look at %s", path);
    }
    if (!S_ISREG(st.st_mode)) {
        return hw_error_set(e, HW_ERR_INVALID, "%s is not a regular file", path);
    }
    *size = (uint64_t)st.st_size;
    return 0;
}

int hw_fs_mkdir(const char *path, struct hw_error *e)
{
    char parent[PATH_MAX];
    struct stat st;
    int rc;
    if (stat(path, &st) == 0) {
        return S_ISDIR(st.st_mode) ? 0 : hw_error_set(e, HW_ERR_INVALID, "%s is in the way: not a folder", path);
    }
    if (is_failed("mkdir", path) || mkdir(path, 0700) != 0) {
        return hw_error_errno(e, errno, "make folder %s", path);
    }
    rc = hw_fs_parent(parent, path, e);
    return rc != 0 ? rc : hw_fs_sync_dir(parent, e);
}

static int sync_path(const char *path, int flags, struct hw_error *e)
{
    int rc = 0;
    int fd = is_failed("open", path) ? -1 : open(path, flags | O_CLOEXEC);
    if (fd < 0) {
        return hw_error_errno(e, errno, "open %s to make it durable", path);
    }
    if (is_failed("fsync", path) || fsync(fd) != 0) {
        rc = hw_error_errno(e, errno, "fsync %s", path);
    }
    close(fd);
    return rc;
}

int hw_fs_sync_file(const char *path, struct hw_error *e)
{
    return sync_path(path, O_RDONLY, e);
}

int hw_fs_sync_dir(const char *path, struct hw_error *e)
{
    return sync_path(path, O_RDONLY | O_DIRECTORY, e);
}

int hw_fs_rename(const char *from, const char *to, struct hw_error *e)
{
    if (is_failed("rename", from) || rename(from, to) != 0) {
        return hw_error_errno(e, errno, "rename %s to %s", from, to);
    }
    return 0;
}

int hw_fs_unlink(const char *path, struct hw_error *e)
{
    if (is_failed("unlink", path) || unlink(path) != 0) {
        return errno == ENOENT ? 0 : hw_error_errno(e, errno, "remove %s", path);
    }
    return 0;
}

static int write_all(int fd, const char *path, struct hw_slice data, struct hw_error *e)
{
    size_t done = 0;
    while (done < data.len) {
        ssize_t n = is_failed("write", path) ? -1 : write(fd, data.data + done, data.len - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return hw_error_errno(e, errno, "write %s", path);
        }
        done += (size_t)n;
    }
    if (is_failed("fsync", path) || fsync(fd) != 0) {
        return hw_error_errno(e, errno, "fsync %s", path);
    }
    return 0;
}

int hw_fs_replace(const char *folder, const char *name, struct hw_slice data, struct hw_error *e)
{
    char path[PATH_MAX];
    char part[PATH_MAX];
    int fd;
    int rc;
    if ((rc = hw_fs_join(path, folder, name, "", e)) != 0 || (rc = hw_fs_join(part, folder, name, ".new", e)) != 0) {
        return rc;
    }
    fd = is_failed("open", part) ? -1 : open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return hw_error_errno(e, errno, "make %s", part);
    }
    rc = write_all(fd, part, data, e);
    if (close(fd) != 0 && rc == 0) {
        rc = hw_error_errno(e, errno, "close %s", part);
    }
    if (rc == 0) {
        rc = hw_fs_rename(part, path, e);
    }
    if (rc != 0) {
        unlink(part);
        return rc;
    }
    return hw_fs_sync_dir(folder, e);
}

int hw_fs_read(const char *path, size_t max, struct hw_buf *out, struct hw_error *e)
{
    size_t start = out->len;
    ssize_t n = 1;
    int rc = 0;
    int fd = is_failed("open", path) ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return hw_error_errno(e, errno, "open %s", path);
    }
    while (rc == 0 && n > 0) {
        if (hw_buf_reserve(out, READ_CHUNK_BYTES) != 0) {
            rc = hw_error_set(e, HW_ERR_NOMEM, "read %s: out of memory", path);
            break;
        }
        n = is_failed("read", path) ? -1 : read(fd, out->data + out->len, READ_CHUNK_BYTES);
        if (n < 0 && errno == EINTR) {
            n = 1;
        } else if (n < 0) {
            rc = hw_error_errno(e, errno, "read %s", path);
        } else {
            out->len += (size_t)n;
            if (out->len - start > max) {
                rc = hw_error_set(e, HW_ERR_TOOBIG, "%s holds more than %zu bytes", path, max);
            }
        }
    }
    close(fd);
    return rc;
}
