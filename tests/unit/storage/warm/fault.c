#include "tests/unit/storage/warm/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/warm/fs.h"

struct file {
    sqlite3_file base;
    char *path; /* of a main file or WAL; NULL for temporary ones */
    sqlite3_file *real;
};

/* What undoes one write or truncation. */
struct undo {
    char *path;
    sqlite3_int64 offset;
    sqlite3_int64 old_size;
    size_t len;
    void *bytes;
    struct undo *next;
};

static sqlite3_vfs *real_vfs;
static sqlite3_vfs vfs;
static unsigned left; /* operations until the fault; 0: not armed */
static bool is_armed;
static bool is_hit;
static enum fault_kind fault_kind;
static struct undo *undos;

static bool is_failing(bool is_write)
{
    if (!is_armed || fault_kind == FAULT_READONLY || (fault_kind == FAULT_FULL && !is_write)) {
        return false;
    }
    if (left > 1) {
        left--;
        return false;
    }
    if (left == 1 || fault_kind != FAULT_ONCE) {
        left = 0;
        is_hit = true;
        return true;
    }
    return false;
}

static int fs_fault(const char *op, const char *path)
{
    (void)path;
    if (is_armed && fault_kind == FAULT_READONLY) {
        return strcmp(op, "read") == 0 || strcmp(op, "stat") == 0 || strcmp(op, "opendir") == 0 ? 0 : EROFS;
    }
    if (strcmp(op, "read") == 0 || strcmp(op, "stat") == 0) {
        return 0;
    }
    if (!is_failing(strcmp(op, "write") == 0)) {
        return 0;
    }
    return fault_kind == FAULT_FULL ? ENOSPC : EIO;
}

static sqlite3_file *real_of(sqlite3_file *f)
{
    return ((struct file *)f)->real;
}

static void push_undo(struct file *f, sqlite3_int64 offset, sqlite3_int64 len)
{
    struct undo *u = calloc(1, sizeof *u);
    sqlite3_int64 size = 0;
    f->real->pMethods->xFileSize(f->real, &size);
    u->path = strdup(f->path);
    u->offset = offset;
    u->old_size = size;
    if (offset < size && len > 0) {
        u->len = (size_t)(offset + len > size ? size - offset : len);
        u->bytes = malloc(u->len);
        f->real->pMethods->xRead(f->real, u->bytes, (int)u->len, offset);
    }
    u->next = undos;
    undos = u;
}

static void free_undo(struct undo *u)
{
    free(u->path);
    free(u->bytes);
    free(u);
}

static void drop_undos(const char *path)
{
    struct undo **at = &undos;
    while (*at != NULL) {
        struct undo *u = *at;
        if (path == NULL || strcmp(u->path, path) == 0) {
            *at = u->next;
            free_undo(u);
        } else {
            at = &u->next;
        }
    }
}

static int file_close(sqlite3_file *f)
{
    struct file *file = (struct file *)f;
    int rc = file->real->pMethods == NULL ? SQLITE_OK : file->real->pMethods->xClose(file->real);
    free(file->path);
    file->path = NULL;
    return rc;
}

static int file_read(sqlite3_file *f, void *data, int len, sqlite3_int64 offset)
{
    return real_of(f)->pMethods->xRead(real_of(f), data, len, offset);
}

static int file_write(sqlite3_file *f, const void *data, int len, sqlite3_int64 offset)
{
    struct file *file = (struct file *)f;
    bool is_bad = is_failing(true);
    if (is_armed && file->path != NULL && (!is_bad || fault_kind == FAULT_FOREVER)) {
        push_undo(file, offset, len);
    }
    if (is_bad) {
        if (fault_kind == FAULT_FOREVER && len > 1) {
            file->real->pMethods->xWrite(file->real, data, len / 2, offset);
        }
        return fault_kind == FAULT_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE;
    }
    return file->real->pMethods->xWrite(file->real, data, len, offset);
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    struct file *file = (struct file *)f;
    sqlite3_int64 old = 0;
    if (is_failing(false)) {
        return SQLITE_IOERR_TRUNCATE;
    }
    if (is_armed && file->path != NULL) {
        file->real->pMethods->xFileSize(file->real, &old);
        push_undo(file, size, old > size ? old - size : 0);
    }
    return file->real->pMethods->xTruncate(file->real, size);
}

static int file_sync(sqlite3_file *f, int flags)
{
    struct file *file = (struct file *)f;
    int rc;
    if (is_failing(false)) {
        return SQLITE_IOERR_FSYNC;
    }
    rc = file->real->pMethods->xSync(file->real, flags);
    if (rc == SQLITE_OK && file->path != NULL) {
        drop_undos(file->path);
    }
    return rc;
}

static int file_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return real_of(f)->pMethods->xFileSize(real_of(f), size);
}

static int file_lock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xLock(real_of(f), level);
}

static int file_unlock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xUnlock(real_of(f), level);
}

static int file_check_lock(sqlite3_file *f, int *out)
{
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out);
}

static int file_control(sqlite3_file *f, int op, void *arg)
{
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int file_sector(sqlite3_file *f)
{
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int file_traits(sqlite3_file *f)
{
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int file_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
    return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, out);
}

static int file_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
    return real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}

static void file_shm_barrier(sqlite3_file *f)
{
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int file_shm_unmap(sqlite3_file *f, int is_delete)
{
    return real_of(f)->pMethods->xShmUnmap(real_of(f), is_delete);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_lock,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_traits,
    .xShmMap = file_shm_map,
    .xShmLock = file_shm_lock,
    .xShmBarrier = file_shm_barrier,
    .xShmUnmap = file_shm_unmap,
};

static int vfs_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out_flags)
{
    struct file *file = (struct file *)f;
    int rc;
    (void)v;
    file->base.pMethods = NULL;
    file->real = (sqlite3_file *)(file + 1);
    file->real->pMethods = NULL;
    file->path = NULL;
    if (is_failing(false)) {
        return SQLITE_CANTOPEN;
    }
    if (is_armed && fault_kind == FAULT_READONLY && (flags & SQLITE_OPEN_MAIN_DB) != 0) {
        flags = (flags & ~(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) | SQLITE_OPEN_READONLY;
    }
    rc = real_vfs->xOpen(real_vfs, name, file->real, flags, out_flags);
    if (rc == SQLITE_OK) {
        file->path = name == NULL ? NULL : strdup(name);
        file->base.pMethods = &methods;
    }
    return rc;
}

static int vfs_delete(sqlite3_vfs *v, const char *name, int sync_dir)
{
    (void)v;
    if (is_failing(false)) {
        return SQLITE_IOERR_DELETE;
    }
    drop_undos(name);
    return real_vfs->xDelete(real_vfs, name, sync_dir);
}

void fault_install(void)
{
    /* Once: a registered VFS is a link of SQLite's list. After a shutdown of SQLite registering again is needed to be
     * its first choice. */
    if (real_vfs != NULL) {
        sqlite3_vfs_register(&vfs, 1);
        fault_disarm();
        return;
    }
    real_vfs = sqlite3_vfs_find("unix");
    vfs = *real_vfs;
    vfs.zName = "hw-fault";
    vfs.szOsFile = (int)sizeof(struct file) + real_vfs->szOsFile;
    vfs.xOpen = vfs_open;
    vfs.xDelete = vfs_delete;
    vfs.pNext = NULL;
    sqlite3_vfs_register(&vfs, 1);
    fault_disarm();
}

void fault_arm(unsigned nth, enum fault_kind kind)
{
    drop_undos(NULL);
    left = nth;
    fault_kind = kind;
    is_hit = false;
    is_armed = true;
    hw_fs_fault = fs_fault;
}

void fault_disarm(void)
{
    is_armed = false;
    hw_fs_fault = NULL;
}

bool fault_was_hit(void)
{
    return is_hit;
}

void fault_power_cut(void)
{
    for (struct undo *u = undos; u != NULL; u = u->next) {
        int fd = open(u->path, O_RDWR);
        if (fd >= 0) {
            if ((u->len > 0 && pwrite(fd, u->bytes, u->len, u->offset) != (ssize_t)u->len) ||
                ftruncate(fd, u->old_size) != 0) {
                perror("fault: undo a write");
            }
            close(fd);
        }
    }
    drop_undos(NULL);
}
