/* Named worker pools of our own, for everything that blocks: SQLite, fsync, DNS, hooks. libuv's default pool belongs to
 * libraft's disk jobs and nothing of ours goes there (a starved pool means false elections).
 *
 * hw_pool_submit takes a job struct that the caller owns: `work` runs on a worker thread and may touch only what the
 * job holds; then `done` runs on the loop thread, exactly once. A full queue refuses at once with HW_ERR_EXHAUSTED:
 * with threads + queue_max jobs submitted and not done. A pool without jobs does not keep the loop running. Workers
 * take no signals; they are named after the pool (15 characters, so keep the name under 13).
 * hw_pool_shut lets queued and running jobs finish (their done runs), then calls back once; what is submitted after it
 * is refused with HW_ERR_UNAVAILABLE.
 */
#ifndef HW_LOOP_POOL_H
#define HW_LOOP_POOL_H

#include "agent/loop/loop.h"

struct hw_pool;

struct hw_job {
    void (*work)(struct hw_job *job); /* on a worker */
    void (*done)(struct hw_job *job); /* on the loop thread */
    STAILQ_ENTRY(hw_job) link;
};

int hw_pool_new(struct hw_loop *loop, const char *name, unsigned threads, unsigned queue_max, struct hw_pool **pool,
                struct hw_error *e);
int hw_pool_submit(struct hw_pool *pool, struct hw_job *job);
/* Jobs queued and running. */
unsigned hw_pool_busy(const struct hw_pool *pool);
void hw_pool_shut(struct hw_pool *pool, void (*on_closed)(void *ctx), void *ctx);
/* After on_closed, or at once when no job is queued or running. NULL is allowed. */
void hw_pool_free(struct hw_pool *pool);

/* getaddrinfo on a pool. host is a name or a literal address; a literal (and localhost, which is 127.0.0.1) is answered
 * without a worker, in the next turn; pool may be NULL for those. port is a number. The first address found is given,
 * IPv4 before IPv6. HW_ERR_INVALID for a host or port that cannot be one, HW_ERR_EXHAUSTED when the pool is full. */
struct sockaddr;
struct hw_resolve {
    void (*done)(struct hw_resolve *r, int status); /* address, address_len valid when status is 0 */
    char host[256];
    char port[16];
    unsigned char address[128]; /* a sockaddr_storage */
    unsigned address_len;
    char why[128]; /* the resolver's words when it failed */
    int status;
    struct hw_job job;
    struct hw_defer defer;
};
int hw_resolve_start(struct hw_loop *loop, struct hw_pool *pool, struct hw_resolve *r, const char *host,
                     const char *port, void (*done)(struct hw_resolve *r, int status));

/* Split "host:port", "[v6]:port" into its parts; HW_ERR_INVALID with a sentence. */
int hw_address_split(const char *address, char *host, size_t host_size, char *port, size_t port_size,
                     struct hw_error *e);
/* Is this host one that only this machine can reach (127/8, ::1, localhost)? */
bool hw_address_is_loopback(const char *host);

#endif
