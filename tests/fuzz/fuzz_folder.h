/* A folder for a fuzz target whose product reads files: in memory (/dev/shm) unless TMPDIR says where; run.sh removes
 * what a crash leaves. */
#ifndef HW_FUZZ_FOLDER_H
#define HW_FUZZ_FOLDER_H

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/assert.h"

static char fuzz_folder_path[PATH_MAX - 64];

static inline void fuzz_folder_remove(void)
{
    rmdir(fuzz_folder_path);
}

static inline const char *fuzz_folder(void)
{
    if (fuzz_folder_path[0] == '\0') {
        const char *parent = getenv("TMPDIR");
        snprintf(fuzz_folder_path, sizeof fuzz_folder_path, "%s/hw-fuzz-XXXXXX", parent != NULL ? parent : "/dev/shm");
        hw_assert(mkdtemp(fuzz_folder_path) != NULL);
        atexit(fuzz_folder_remove);
    }
    return fuzz_folder_path;
}

/* Write folder/name; returns its path, valid until the next call. */
static inline const char *fuzz_file(const char *name, const void *data, size_t len)
{
    static char path[PATH_MAX];
    int fd;
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    hw_assert(fd >= 0);
    hw_assert(write(fd, data, len) == (ssize_t)len);
    close(fd);
    return path;
}

static inline void fuzz_file_remove(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    unlink(path);
}

#endif
