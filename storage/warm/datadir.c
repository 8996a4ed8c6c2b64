#include "storage/warm/datadir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "storage/warm/fs.h"
#include "storage/warm/identity.h"
#include "storage/warm/image.h"

#define LOCK_POLL_MS 20

/* The lock belongs to the open file, not to its name, and the kernel drops it with the process: a crash leaves no stale
 * lock behind. The file itself stays; its text only tells a person who holds it. */
static int refuse_locked(const struct hw_datadir *d, struct hw_error *e)
{
    char pid[16] = "";
    ssize_t n = pread(d->lock_fd, pid, sizeof pid - 1, 0);
    pid[n > 0 ? n : 0] = '\0';
    pid[strspn(pid, "0123456789")] = '\0';
    return hw_error_set(e, HW_ERR_LOCKED, "data folder %s is in use by process %s: is another hwagent running?",
                        d->path, pid[0] == '\0' ? "(unknown)" : pid);
}

static int write_pid(struct hw_datadir *d, const char *path, struct hw_error *e)
{
    char pid[16];
    int len = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    int errnum = hw_fs_check("write", path);
    if (errnum == 0 && (ftruncate(d->lock_fd, 0) != 0 || pwrite(d->lock_fd, pid, (size_t)len, 0) != len)) {
        errnum = errno == 0 ? EIO : errno;
    }
    return errnum == 0 ? 0 : hw_error_errno(e, errnum, "write %s", path);
}

/* A process that was killed holds its lock until the kernel has taken it apart, and its supervisor starts the next one
 * at once. */
static int lock_soon(int fd)
{
    uint64_t end_ms = hw_mono_ms() + HW_LOCK_WAIT_MS;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK || hw_mono_ms() >= end_ms) {
            return errno;
        }
        nanosleep(&(struct timespec){.tv_nsec = LOCK_POLL_MS * 1000000L}, NULL);
    }
    return 0;
}

static int take_lock(struct hw_datadir *d, struct hw_error *e)
{
    char path[PATH_MAX];
    int errnum;
    int rc = hw_fs_join(path, d->path, HW_LOCK_FILE, "", e);
    if (rc != 0) {
        return rc;
    }
    errnum = hw_fs_check("open", path);
    if (errnum == 0) {
        d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        errnum = d->lock_fd < 0 ? errno : 0;
    }
    if (errnum == EROFS || errnum == EACCES) {
        return hw_error_set(e, errnum == EROFS ? HW_ERR_READONLY : HW_ERR_DENIED,
                            "data folder %s cannot be written (%s): give hwagent a folder of its own that it may write",
                            d->path, strerror(errnum));
    }
    if (errnum != 0) {
        return hw_error_errno(e, errnum, "open %s", path);
    }
    errnum = hw_fs_check("flock", path);
    if (errnum == 0) {
        errnum = lock_soon(d->lock_fd);
    }
    if (errnum == EWOULDBLOCK) {
        return refuse_locked(d, e);
    }
    return errnum != 0 ? hw_error_errno(e, errnum, "lock %s", path) : write_pid(d, path, e);
}

static bool is_stale(const char *path, uint64_t now_wall_ms)
{
    struct stat st;
    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
        return false;
    }
    return (uint64_t)st.st_mtim.tv_sec * 1000 + HW_INCOMING_KEEP_MS < now_wall_ms;
}

static int remove_stale_parts(const char *folder, struct hw_error *e)
{
    DIR *dir;
    const struct dirent *entry;
    uint64_t now_wall_ms = hw_wall_ms();
    int errnum = hw_fs_check("opendir", folder);
    int rc = 0;
    dir = errnum != 0 ? NULL : opendir(folder);
    if (dir == NULL) {
        return hw_error_errno(e, errnum != 0 ? errnum : errno, "look into %s", folder);
    }
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        char path[PATH_MAX];
        if ((rc = hw_fs_join(path, folder, entry->d_name, "", e)) == 0 && is_stale(path, now_wall_ms)) {
            rc = hw_fs_unlink(path, e);
        }
    }
    closedir(dir);
    return rc;
}

static int make_folders(struct hw_datadir *d, struct hw_error *e)
{
    char path[PATH_MAX];
    int rc;
    if ((rc = hw_fs_join(path, d->path, HW_RAFT_FOLDER, "", e)) != 0 || (rc = hw_fs_mkdir(path, e)) != 0 ||
        (rc = hw_fs_join(path, d->path, HW_INCOMING_FOLDER, "", e)) != 0 || (rc = hw_fs_mkdir(path, e)) != 0) {
        return rc;
    }
    return remove_stale_parts(path, e);
}

int hw_datadir_open(const char *path, struct hw_datadir **out, struct hw_error *e)
{
    struct hw_datadir *d = calloc(1, sizeof *d);
    int rc;
    if (d == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "open data folder %s: out of memory", path);
    }
    d->lock_fd = -1;
    if (path[0] == '\0' || snprintf(d->path, sizeof d->path, "%s", path) >= (int)sizeof d->path) {
        rc = hw_error_set(e, HW_ERR_INVALID, "the data folder has no name, or one that is too long");
    } else if ((rc = hw_fs_mkdir(d->path, e)) == 0 && (rc = take_lock(d, e)) == 0) {
        rc = make_folders(d, e);
    }
    if (rc != 0) {
        hw_datadir_close(d);
        return rc;
    }
    *out = d;
    return 0;
}

void hw_datadir_close(struct hw_datadir *d)
{
    if (d == NULL) {
        return;
    }
    if (d->lock_fd >= 0) {
        close(d->lock_fd);
    }
    free(d);
}

const char *hw_datadir_path(const struct hw_datadir *d)
{
    return d->path;
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text);
    size_t end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static bool is_empty_folder(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    bool is_empty = true;
    if (dir == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return false; /* something that cannot be read is not nothing */
    }
    while (is_empty && (entry = readdir(dir)) != NULL) {
        is_empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    }
    closedir(dir);
    return is_empty;
}

bool hw_datadir_has_lost_data(const struct hw_datadir *d)
{
    char path[PATH_MAX];
    struct dirent *entry;
    bool has_lost = false;
    DIR *dir = hw_fs_join(path, d->path, HW_QUARANTINE_FOLDER, "", NULL) == 0 ? opendir(path) : NULL;
    if (dir == NULL) {
        return false;
    }
    while (!has_lost && (entry = readdir(dir)) != NULL) {
        has_lost = ends_with(entry->d_name, "-" HW_IMAGE_FILE) ||
                   (ends_with(entry->d_name, "-" HW_RAFT_FOLDER) && !is_empty_folder(dirfd(dir), entry->d_name));
    }
    closedir(dir);
    return has_lost;
}
