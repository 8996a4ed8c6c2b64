#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/bench/ideal_log.h"

/* A page at a time: large writes make large pages in the cache, and then the kernel counts a whole one (in write_bytes
 * of /proc/PID/io) for each small write into it. */
#define ZERO_BYTES 4096u

void ideal_die(const char *what)
{
    fprintf(stderr, "ideal: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static void write_all(int fd, struct iovec *iov, int count, off_t at)
{
    while (count > 0) {
        ssize_t n = pwritev(fd, iov, count, at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            ideal_die("write the log");
        }
        at += n;
        while (count > 0 && (size_t)n >= iov->iov_len) {
            n -= (ssize_t)iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
}

/* Both the ring and the file may wrap between the two positions. */
static void write_range(struct ideal_log *log, uint64_t from, uint64_t to)
{
    while (from < to) {
        uint64_t at = from % log->file_bytes;
        uint64_t len = to - from < log->file_bytes - at ? to - from : log->file_bytes - at;
        uint64_t start = from % IDEAL_RING_BYTES;
        uint64_t first = len < IDEAL_RING_BYTES - start ? len : IDEAL_RING_BYTES - start;
        struct iovec iov[2] = {{log->ring + start, first}, {log->ring, len - first}};
        write_all(log->fd, iov, len > first ? 2 : 1, (off_t)at);
        from += len;
    }
}

static void *writer(void *ctx)
{
    struct ideal_log *log = ctx;
    pthread_mutex_lock(&log->lock);
    for (;;) {
        uint64_t from = log->written;
        uint64_t to = log->end;
        if (from == to) {
            pthread_cond_wait(&log->changed, &log->lock);
            continue;
        }
        pthread_mutex_unlock(&log->lock);
        write_range(log, from, to);
        pthread_mutex_lock(&log->lock);
        log->written = to;
        pthread_cond_broadcast(&log->changed);
        pthread_mutex_unlock(&log->lock);
        log->on_written(log->ctx, to);
        pthread_mutex_lock(&log->lock);
    }
    return NULL;
}

void ideal_log_open(struct ideal_log *log, const char *path, uint64_t file_bytes,
                    void (*on_written)(void *ctx, uint64_t written), void *ctx)
{
    static const uint8_t zeros[ZERO_BYTES];
    pthread_t thread;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        ideal_die(path);
    }
    for (uint64_t at = 0; at < file_bytes; at += sizeof zeros) {
        struct iovec iov = {(void *)zeros, sizeof zeros};
        write_all(fd, &iov, 1, (off_t)at);
    }
    if (fsync(fd) != 0) {
        ideal_die("sync the log");
    }
    close(fd);
    *log = (struct ideal_log){.file_bytes = file_bytes, .on_written = on_written, .ctx = ctx};
    log->fd = open(path, O_WRONLY | O_DSYNC | O_CLOEXEC);
    log->ring = calloc(1, IDEAL_RING_BYTES);
    if (log->fd < 0 || log->ring == NULL) {
        ideal_die("open the log");
    }
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->changed, NULL);
    if (pthread_create(&thread, NULL, writer, log) != 0) {
        ideal_die("start the writer");
    }
}

void ideal_log_publish(struct ideal_log *log, uint64_t end)
{
    pthread_mutex_lock(&log->lock);
    if (end != log->end) {
        log->end = end;
        pthread_cond_broadcast(&log->changed);
    }
    pthread_mutex_unlock(&log->lock);
}

uint64_t ideal_log_written(struct ideal_log *log)
{
    uint64_t written;
    pthread_mutex_lock(&log->lock);
    written = log->written;
    pthread_mutex_unlock(&log->lock);
    return written;
}

void ideal_log_wait(struct ideal_log *log, uint64_t position)
{
    pthread_mutex_lock(&log->lock);
    while (log->written < position) {
        pthread_cond_wait(&log->changed, &log->lock);
    }
    pthread_mutex_unlock(&log->lock);
}

void ideal_ring_copy_in(struct ideal_log *log, uint64_t position, const void *data, uint32_t len)
{
    uint32_t start = (uint32_t)(position % IDEAL_RING_BYTES);
    uint32_t first = len < IDEAL_RING_BYTES - start ? len : IDEAL_RING_BYTES - start;
    memcpy(log->ring + start, data, first);
    memcpy(log->ring, (const uint8_t *)data + first, len - first);
}

void ideal_ring_copy_out(const struct ideal_log *log, uint64_t position, void *data, uint32_t len)
{
    uint32_t start = (uint32_t)(position % IDEAL_RING_BYTES);
    uint32_t first = len < IDEAL_RING_BYTES - start ? len : IDEAL_RING_BYTES - start;
    memcpy(data, log->ring + start, first);
    memcpy((uint8_t *)data + first, log->ring, len - first);
}
