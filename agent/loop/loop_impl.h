/* Private to agent/loop: the loop's own state and what its files share. The only header here that shows uv.h.
 *
 * Every libuv handle that this folder opens carries a hw_named, so that a leak can be reported in words. Handles are
 * closed by their owners; memory that libuv still looks at is freed in the close callback and nowhere else.
 */
#ifndef HW_LOOP_LOOP_IMPL_H
#define HW_LOOP_LOOP_IMPL_H

#include <pthread.h>
#include <sys/socket.h>
#include <uv.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/loop/loop.h"

#define LOOP_READ_BYTES (64u * 1024u)

struct hw_named {
    const char *name;
    const uv_handle_t *handle;
    LIST_ENTRY(hw_named) link;
};

struct hw_chunk;

struct hw_loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t spin; /* active while something is posted: a poll then does not wait */
    pthread_t thread;
    TAILQ_HEAD(, hw_defer) posted;
    LIST_HEAD(, hw_named) named;

    /* The turn that runs now, see turn_end. */
    uint64_t turn_start_ns;
    uint64_t turn_cpu_ns;
    uint64_t turn_idle_ns;
    bool has_polled;
    bool is_single; /* in hw_loop_turn */
    bool has_worked;
    const char *note;
    uint64_t note_start_ns;
    const char *note_longest;
    uint64_t note_longest_ns;
    struct hw_loop_stats stats;
    unsigned stall_budget_ms;
    uint64_t stall_logged_ms;
    uint64_t stalls_unlogged;
    struct hw_histogram *turn_seconds;
    struct hw_counter *stalls_total;
    struct hw_counter *refused_total;

    /* Spare output chunks of all streams, see outq.h. */
    SLIST_HEAD(, hw_chunk) spares;
    unsigned spare_count;

    char read_bytes[LOOP_READ_BYTES]; /* one for all streams: data is borrowed for the length of a callback */
};

void loop_name(struct hw_loop *loop, struct hw_named *n, const char *name, const void *handle);
void loop_unname(struct hw_named *n);
bool loop_is_own_thread(const struct hw_loop *loop);

/* The nearest code for a libuv status, which is a negative errno value on Linux or one of getaddrinfo's. */
int loop_err(int uv_status);

/* "1.2.3.4:80" or "[::1]:80". Returns buf. */
#define LOOP_ADDRESS_SIZE 64
const char *loop_address_text(const struct sockaddr *address, char buf[LOOP_ADDRESS_SIZE]);
/* A literal address or localhost (RFC 6761: always this machine) without asking anybody; false for another name. */
bool loop_address_literal(const char *host, const char *port, struct sockaddr_storage *address, socklen_t *len);

#endif
