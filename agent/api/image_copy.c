#include "agent/api/image_copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/api/api_impl.h"
#include "agent/base/log.h"
#include "agent/base/rng.h"

#define FOLDER "transfer"
#define TOKEN_DIGITS 16
#define HASH_BLOCK_BYTES ((size_t)1024 * 1024)

/* ---- on the worker ---- */

/* image_path's folder + "/transfer". */
static void transfer_folder(const char *image_path, char *folder, size_t size)
{
    const char *slash = strrchr(image_path, '/');
    int len = slash == NULL ? 1 : (int)(slash - image_path);
    snprintf(folder, size, "%.*s/%s", len, slash == NULL ? "." : image_path, FOLDER);
}

static int hash_file(int fd, const char *path, uint64_t *size, uint64_t *hash, struct hw_error *e)
{
    XXH3_state_t *state = XXH3_createState();
    uint8_t *block = malloc(HASH_BLOCK_BYTES);
    ssize_t n = 0;
    int rc = 0;
    *size = 0;
    if (state == NULL || block == NULL) {
        rc = hw_error_set(e, HW_ERR_NOMEM, "no memory to read %s", path);
    } else {
        XXH3_64bits_reset(state);
        while ((n = read(fd, block, HASH_BLOCK_BYTES)) > 0 || (n < 0 && errno == EINTR)) {
            XXH3_64bits_update(state, block, n < 0 ? 0 : (size_t)n);
            *size += n < 0 ? 0 : (uint64_t)n;
        }
        rc = n < 0 ? hw_error_errno(e, errno, "read %s", path) : 0;
        *hash = XXH3_64bits_digest(state);
    }
    free(block);
    XXH3_freeState(state);
    return rc;
}

static void copy_work(struct hw_job *job)
{
    struct hw_copy *c = hw_container_of(job, struct hw_copy, job);
    char folder[HW_COPY_PATH_MAX];
    int rc;
    transfer_folder(c->source, folder, sizeof folder);
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        hw_error_errno(&c->e, errno, "make folder %s", folder);
        return;
    }
    rc = hw_image_copy(c->source, c->path, &c->meta, &c->e);
    if (rc != 0) {
        hw_error_wrap(&c->e, "copy the image");
        return;
    }
    c->fd = open(c->path, O_RDONLY | O_CLOEXEC);
    if (c->fd < 0) {
        hw_error_errno(&c->e, errno, "open %s", c->path);
        return;
    }
    hash_file(c->fd, c->path, &c->size, &c->checksum, &c->e);
}

/* Deleting a large file takes long, closing its last descriptor then too. */
static void remove_work(struct hw_job *job)
{
    struct hw_copy *c = hw_container_of(job, struct hw_copy, job);
    if (c->fd >= 0) {
        close(c->fd);
    }
    unlink(c->path);
}

static bool is_copy_name(const char *name)
{
    return strlen(name) >= TOKEN_DIGITS && strspn(name, "0123456789abcdef") == TOKEN_DIGITS &&
           strncmp(name + TOKEN_DIGITS, ".db", 3) == 0;
}

struct leftovers {
    struct hw_api *api;
    struct hw_job job;
    char folder[HW_COPY_PATH_MAX];
};

static void leftovers_work(struct hw_job *job)
{
    struct leftovers *l = hw_container_of(job, struct leftovers, job);
    DIR *dir = opendir(l->folder);
    struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (is_copy_name(entry->d_name)) {
            unlinkat(dirfd(dir), entry->d_name, 0);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

/* ---- on the loop ---- */

static void leftovers_done(struct hw_job *job)
{
    struct leftovers *l = hw_container_of(job, struct leftovers, job);
    struct hw_api *api = l->api;
    free(l);
    hw_api_unref(api);
}

static void copy_free(struct hw_copy *c)
{
    struct hw_api *api = c->api;
    free(c);
    hw_api_unref(api);
}

static void remove_done(struct hw_job *job)
{
    copy_free(hw_container_of(job, struct hw_copy, job));
}

/* Nobody uses it and no job of it runs. */
static void copy_remove(struct hw_copy *c)
{
    struct hw_api *api = c->api;
    hw_assert(c->users == 0 && c->state != HW_COPY_WAITING && c->state != HW_COPY_COPYING);
    if (c->is_listed) {
        TAILQ_REMOVE(&api->images.copies, c, link);
        c->is_listed = false;
    }
    c->job.work = remove_work;
    c->job.done = remove_done;
    if (api->replica == NULL || hw_pool_submit(hw_replica_pool(api->replica), &c->job) != 0) {
        remove_work(&c->job); /* stopping: nobody is kept waiting */
        copy_free(c);
    }
}

static void copy_decided(struct hw_copy *c, enum hw_copy_state state)
{
    c->state = state;
    c->last_used_ms = hw_loop_now_ms(c->api->loop);
    hw_image_streams_poke(c->api, c);
}

static void copy_done(struct hw_job *job)
{
    struct hw_copy *c = hw_container_of(job, struct hw_copy, job);
    if (c->e.code != 0) {
        hw_log_warn(HW_COMPONENT, "no copy of the image", "why=%s", hw_logq(hw_error_text(&c->e)));
    }
    c->users++; /* the streams that it pokes may be its last users */
    if (c->e.code != 0) {
        copy_decided(c, HW_COPY_FAILED);
    } else {
        hw_log_info(HW_COMPONENT, "image copied for sending", "token=%016" PRIx64 " index=%" PRIu64 " bytes=%" PRIu64,
                    c->token, c->meta.counters.applied, c->size);
        copy_decided(c, HW_COPY_READY);
    }
    hw_copy_release(c);
}

static void wait_done(struct hw_image_wait *w, int status)
{
    struct hw_copy *c = w->data;
    int rc = status;
    if (rc == 0 && (!c->is_listed || c->api->replica == NULL)) {
        rc = HW_ERR_CANCELLED;
    }
    if (rc == 0) {
        c->state = HW_COPY_COPYING;
        c->job.work = copy_work;
        c->job.done = copy_done;
        rc = hw_pool_submit(hw_replica_pool(c->api->replica), &c->job);
    }
    if (rc != 0) {
        hw_error_set(&c->e, rc, "copy the image: %s", hw_err_text(rc));
        c->users++;
        copy_decided(c, HW_COPY_FAILED);
        hw_copy_release(c);
    }
}

static bool is_unused(const struct hw_copy *c)
{
    return c->users == 0 && (c->state == HW_COPY_READY || c->state == HW_COPY_FAILED);
}

/* Room for one more: the one that has been unused for longest goes. */
static bool make_room(struct hw_api *api)
{
    struct hw_copy *c;
    struct hw_copy *oldest = NULL;
    unsigned count = 0;
    TAILQ_FOREACH(c, &api->images.copies, link) {
        count++;
        if (is_unused(c) && (oldest == NULL || c->last_used_ms < oldest->last_used_ms)) {
            oldest = c;
        }
    }
    if (count < HW_COPIES_MAX) {
        return true;
    }
    if (oldest != NULL) {
        copy_remove(oldest);
    }
    return oldest != NULL;
}

static int copy_new(struct hw_api *api, uint64_t index, struct hw_copy **copy)
{
    struct hw_copy *c = calloc(1, sizeof *c);
    char folder[HW_COPY_PATH_MAX];
    int rc;
    if (c == NULL) {
        return HW_ERR_NOMEM;
    }
    c->api = api;
    c->fd = -1;
    c->token = hw_random_u64();
    c->wanted_index = index;
    snprintf(c->source, sizeof c->source, "%s", hw_replica_image_path(api->replica));
    transfer_folder(c->source, folder, sizeof folder - 32);
    snprintf(c->path, sizeof c->path, "%.4000s/%016" PRIx64 ".db", folder, c->token);
    c->state = HW_COPY_WAITING;
    c->wait.done = wait_done;
    c->wait.data = c;
    c->wait.index = index;
    rc = hw_replica_image_wait(api->replica, &c->wait);
    if (rc != 0) {
        free(c);
        return rc;
    }
    hw_api_ref(api);
    c->is_listed = true;
    TAILQ_INSERT_TAIL(&api->images.copies, c, link);
    *copy = c;
    return 0;
}

struct hw_copy *hw_copy_find(struct hw_api *api, uint64_t token)
{
    struct hw_copy *c;
    TAILQ_FOREACH(c, &api->images.copies, link) {
        if (c->token == token && c->state == HW_COPY_READY) {
            c->users++;
            return c;
        }
    }
    return NULL;
}

int hw_copy_take(struct hw_api *api, uint64_t index, struct hw_copy **copy, struct hw_error *e)
{
    uint64_t applied = hw_hot_applied(hw_replica_hot(api->replica));
    struct hw_copy *c;
    int rc;
    if (index > applied) {
        return hw_error_set(e, HW_ERR_UNAVAILABLE,
                            "node %s has applied the log only up to index %" PRIu64 ", %" PRIu64 " is asked for",
                            api->config.node_name, applied, index);
    }
    if (index == 0) {
        index = applied;
    }
    TAILQ_FOREACH(c, &api->images.copies, link) {
        uint64_t holds = c->state == HW_COPY_READY ? c->meta.counters.applied : c->wanted_index;
        if (c->state != HW_COPY_FAILED && holds >= index) {
            c->users++;
            *copy = c;
            return 0;
        }
    }
    if (!make_room(api)) {
        return hw_error_set(e, HW_ERR_EXHAUSTED,
                            "node %s is sending %d copies of its image already: try again later, "
                            "or ask another node",
                            api->config.node_name, HW_COPIES_MAX);
    }
    rc = copy_new(api, index, copy);
    if (rc != 0) {
        return hw_error_set(e, rc, "copy the image: %s", hw_err_text(rc));
    }
    (*copy)->users++;
    return 0;
}

void hw_copy_release(struct hw_copy *c)
{
    hw_assert(c->users > 0);
    c->users--;
    c->last_used_ms = hw_loop_now_ms(c->api->loop);
    if (is_unused(c) && (!c->is_listed || c->state == HW_COPY_FAILED)) {
        copy_remove(c);
    }
}

void hw_images_init(struct hw_api *api)
{
    TAILQ_INIT(&api->images.copies);
    TAILQ_INIT(&api->images.streams);
}

void hw_images_open(struct hw_api *api)
{
    struct leftovers *l = calloc(1, sizeof *l);
    if (l == NULL) {
        return; /* they wait for the next start */
    }
    l->api = api;
    l->job.work = leftovers_work;
    l->job.done = leftovers_done;
    transfer_folder(hw_replica_image_path(api->replica), l->folder, sizeof l->folder);
    if (hw_pool_submit(hw_replica_pool(api->replica), &l->job) != 0) {
        free(l);
        return;
    }
    hw_api_ref(api);
}

void hw_images_close(struct hw_api *api)
{
    struct hw_copy *c;
    hw_image_streams_close(api);
    while ((c = TAILQ_FIRST(&api->images.copies)) != NULL) {
        if (is_unused(c)) {
            copy_remove(c);
            continue;
        }
        /* Its wait, its job or its last stream ends soon and removes it. */
        TAILQ_REMOVE(&api->images.copies, c, link);
        c->is_listed = false;
    }
}

void hw_images_tick(struct hw_api *api)
{
    uint64_t now = hw_loop_now_ms(api->loop);
    struct hw_copy *c;
    struct hw_copy *next;
    for (c = TAILQ_FIRST(&api->images.copies); c != NULL; c = next) {
        next = TAILQ_NEXT(c, link);
        if (is_unused(c) && now - c->last_used_ms > HW_COPY_KEEP_MS) {
            copy_remove(c);
        }
    }
}
