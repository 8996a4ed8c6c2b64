/* Whole files: copies of an image, putting one in place, and moving damaged ones aside. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "storage/warm/datadir.h"
#include "storage/warm/fs.h"
#include "storage/warm/schema.h"

/* Files of one name moved aside within one millisecond; beyond that something is wrong. */
#define QUARANTINE_TRIES_MAX 100

static int copy_pages(struct hw_db *from, struct hw_db *to, struct hw_image_meta *meta, struct hw_error *e)
{
    struct hw_image_head head;
    int rc;
    if ((rc = hw_db_copy(from, to, e)) != 0 || (rc = hw_db_leave_wal(to, e)) != 0 ||
        (rc = hw_schema_check(to, e)) != 0 || (rc = hw_head_read(to, &head, e)) != 0) {
        return rc;
    }
    if (meta != NULL) {
        *meta = head.meta;
    }
    return 0;
}

static int with_suffix(char out[PATH_MAX], const char *path, const char *suffix, struct hw_error *e)
{
    int n = snprintf(out, PATH_MAX, "%s%s", path, suffix);
    if (n < 0 || n >= PATH_MAX) {
        return hw_error_set(e, HW_ERR_INVALID, "%.100s...%s: the path is longer than %d bytes", path, suffix, PATH_MAX);
    }
    return 0;
}

static void remove_beside(const char *path)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    char full[PATH_MAX];
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        if (with_suffix(full, path, suffixes[i], NULL) == 0) {
            hw_fs_unlink(full, NULL);
        }
    }
}

int hw_image_copy(const char *source, const char *dest, struct hw_image_meta *meta, struct hw_error *e)
{
    char folder[PATH_MAX];
    struct hw_db *from = NULL;
    struct hw_db *to = NULL;
    uint64_t size = 0;
    int rc;
    if ((rc = hw_fs_parent(folder, dest, e)) != 0 || (rc = hw_fs_size(source, &size, e)) != 0) {
        return rc;
    }
    if (hw_fs_is_there(dest)) {
        return hw_error_set(e, HW_ERR_EXISTS, "%s is there already: remove it or name another file", dest);
    }
    if ((rc = hw_db_open(source, HW_DB_READONLY, &from, e)) == 0 && (rc = hw_schema_check(from, e)) == 0 &&
        (rc = hw_db_open(dest, HW_DB_BUILD, &to, e)) == 0) {
        rc = copy_pages(from, to, meta, e);
    }
    hw_db_close(to);
    hw_db_close(from);
    if (rc == 0 && (rc = hw_fs_sync_file(dest, e)) == 0) {
        rc = hw_fs_sync_dir(folder, e);
    }
    if (rc != 0) {
        remove_beside(dest);
    }
    return rc;
}

/* Bring the old image and its WAL together, so that removing the WAL takes nothing away: the machine may stop between
 * that and the rename, and the old image must be whole then. An image too damaged for this has nothing to lose. */
static int fold_old(const char *path, struct hw_error *e)
{
    struct hw_error why = {0};
    struct hw_db *db;
    uint64_t size = 0;
    int rc = hw_fs_size(path, &size, &why);
    if (rc == HW_ERR_NOTFOUND || (rc == 0 && size == 0)) {
        return 0;
    }
    if (rc != 0) {
        return hw_error_set(e, rc, "%s", why.text);
    }
    rc = hw_db_open(path, HW_DB_WRITE, &db, &why);
    if (rc == 0) {
        rc = hw_db_fold_wal(db, true, &why);
        hw_db_close(db);
    }
    if (rc == 0 || rc == HW_ERR_CORRUPT) {
        return 0;
    }
    return hw_error_set(e, rc, "bring the old image to rest: %s", why.text);
}

int hw_image_install(const char *folder, const char *incoming, struct hw_error *e)
{
    static const char *const suffixes[] = {"-wal", "-shm"};
    char path[PATH_MAX];
    char beside[PATH_MAX];
    uint64_t size = 0;
    int rc;
    if ((rc = hw_fs_join(path, folder, HW_IMAGE_FILE, "", e)) != 0 || (rc = hw_fs_size(incoming, &size, e)) != 0 ||
        (rc = with_suffix(beside, incoming, "-wal", e)) != 0) {
        return rc;
    }
    if (hw_fs_size(beside, &size, NULL) == 0 && size > 0) {
        return hw_error_set(e, HW_ERR_INVALID, "%s has a WAL beside it: install a copy that stands alone", incoming);
    }
    if ((rc = hw_fs_sync_file(incoming, e)) != 0 || (rc = fold_old(path, e)) != 0) {
        return rc;
    }
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        if ((rc = hw_fs_join(beside, folder, HW_IMAGE_FILE, suffixes[i], e)) != 0 ||
            (rc = hw_fs_unlink(beside, e)) != 0) {
            return rc;
        }
    }
    /* The WAL must be gone for good before the new image bears the name, or it would be replayed into it. */
    if ((rc = hw_fs_sync_dir(folder, e)) != 0 || (rc = hw_fs_rename(incoming, path, e)) != 0 ||
        (rc = hw_fs_sync_dir(folder, e)) != 0) {
        return rc;
    }
    remove_beside(incoming);
    return 0;
}

/* "20260131T235959123Z": RFC 3339 without the marks that shells and Windows shares trip over. */
static void compact_time(uint64_t wall_ms, char out[HW_RFC3339_SIZE])
{
    char text[HW_RFC3339_SIZE];
    size_t n = 0;
    hw_rfc3339(wall_ms, text);
    for (const char *p = text; *p != '\0'; p++) {
        if (isalnum((unsigned char)*p)) {
            out[n++] = *p;
        }
    }
    out[n] = '\0';
}

static int choose_target(char out[PATH_MAX], const char *aside, const char *name, uint64_t wall_ms, struct hw_error *e)
{
    char time[HW_RFC3339_SIZE];
    char file[NAME_MAX + 64];
    compact_time(wall_ms, time);
    for (int i = 1; i <= QUARANTINE_TRIES_MAX; i++) {
        int rc;
        if (i == 1) {
            snprintf(file, sizeof file, "%s-%s", time, name);
        } else {
            snprintf(file, sizeof file, "%s.%d-%s", time, i, name);
        }
        if ((rc = hw_fs_join(out, aside, file, "", e)) != 0) {
            return rc;
        }
        if (!hw_fs_is_there(out)) {
            return 0;
        }
    }
    return hw_error_set(e, HW_ERR_EXISTS, "%s holds too many files named %s-%s", aside, time, name);
}

/* The file first, what belongs to it after: an orphaned WAL is recognized on the next open, an image robbed of its WAL
 * is not. */
int hw_quarantine(const char *folder, const char *name, uint64_t wall_ms, struct hw_error *e)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char aside[PATH_MAX];
    char from[PATH_MAX];
    char target[PATH_MAX];
    char to[PATH_MAX];
    int rc;
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL || strlen(name) > NAME_MAX ||
        strcmp(name, HW_QUARANTINE_FOLDER) == 0) {
        return hw_error_set(e, HW_ERR_INVALID, "'%s' is not a file of the data folder", name);
    }
    if ((rc = hw_fs_join(from, folder, name, "", e)) != 0 ||
        (rc = hw_fs_join(aside, folder, HW_QUARANTINE_FOLDER, "", e)) != 0) {
        return rc;
    }
    if (!hw_fs_is_there(from)) {
        return hw_error_set(e, HW_ERR_NOTFOUND, "%s: there is nothing to move aside", from);
    }
    if ((rc = hw_fs_mkdir(aside, e)) != 0 || (rc = choose_target(target, aside, name, wall_ms, e)) != 0) {
        return rc;
    }
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        if ((rc = hw_fs_join(from, folder, name, suffixes[i], e)) != 0) {
            return rc;
        }
        if (!hw_fs_is_there(from)) {
            continue;
        }
        if ((rc = with_suffix(to, target, suffixes[i], e)) != 0 || (rc = hw_fs_rename(from, to, e)) != 0) {
            return rc;
        }
    }
    rc = hw_fs_sync_dir(aside, e);
    return rc != 0 ? rc : hw_fs_sync_dir(folder, e);
}
