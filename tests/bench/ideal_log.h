/* The log of the bare replicator: a ring of bytes in memory and one thread that appends it to a file.
 *
 * Whoever owns the log copies bytes into the ring (ideal_log_room, then the ring itself) and publishes them; the writer
 * takes all that is published, in one write to a file opened with O_DSYNC, and calls on_written on its own thread. So
 * while one write is on its way to the disk, the next batch gathers. Positions count bytes since the start and never go
 * back. The file is filled with zeros first and written over in a circle: this program shows what the disk gives to an
 * append that never has to extend a file; it is not a log that anybody could read back.
 *
 * Errors of the disk end the program. Two threads: the owner and the writer.
 */
#ifndef HW_TESTS_BENCH_IDEAL_LOG_H
#define HW_TESTS_BENCH_IDEAL_LOG_H

#include <pthread.h>
#include <stdint.h>

#define IDEAL_RING_BYTES (16u * 1024u * 1024u)

struct ideal_log {
    int fd;
    uint64_t file_bytes;
    uint8_t *ring; /* position p is at p % IDEAL_RING_BYTES */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t end;     /* published */
    uint64_t written; /* durable */
    void (*on_written)(void *ctx, uint64_t written);
    void *ctx;
};

/* Print a sentence with errno and end the program. */
void ideal_die(const char *what) __attribute__((noreturn));

void ideal_log_open(struct ideal_log *log, const char *path, uint64_t file_bytes,
                    void (*on_written)(void *ctx, uint64_t written), void *ctx);
/* Bytes up to this position are in the ring now. */
void ideal_log_publish(struct ideal_log *log, uint64_t end);
uint64_t ideal_log_written(struct ideal_log *log);
/* Wait until this position is durable. */
void ideal_log_wait(struct ideal_log *log, uint64_t position);
void ideal_ring_copy_in(struct ideal_log *log, uint64_t position, const void *data, uint32_t len);
void ideal_ring_copy_out(const struct ideal_log *log, uint64_t position, void *data, uint32_t len);

#endif
