/* Inside of hwbench: what its modules share. hwbench.c reads the arguments, connects and prints; one module runs one
 * kind of load (calls, watch, lease, gap) over agent/rpc, or over the bare frames of tests/bench/ideal.c.
 *
 * Life: bench_window_start begins warm-up, then the window in which results count, then the end; the runner starts no
 * more operations when is_stopping is set and turns the loop with bench_turn until its operations have ended, which
 * also gives up GRACE_MS after the end (what was left is `unfinished`). Everything runs on the loop thread. Memory is
 * the process's: nothing is freed, the program ends after one run.
 */
#ifndef HW_TESTS_LOAD_BENCH_H
#define HW_TESTS_LOAD_BENCH_H

#include "agent/base/rng.h"
#include "agent/rpc/rpc.h"
#include "tests/load/bench_hist.h"
#include "tests/load/bench_wire.h"

#define BENCH_ENDPOINTS_MAX 9
#define BENCH_CHANNELS_MAX 64
#define BENCH_CLIENTS_MAX 10000
#define BENCH_KEYS_MAX 10000000
#define BENCH_VALUE_BYTES_MAX 65536
#define BENCH_KEY_BYTES_MAX 96
#define BENCH_RPC_STATUSES 17
#define BENCH_RETRY_MS 5

struct bench_options {
    const char *workload;
    const char *endpoints[BENCH_ENDPOINTS_MAX];
    unsigned endpoint_count;
    bool is_ideal;
    bool is_serializable;
    bool is_sequential; /* each key once, in order */
    unsigned clients;
    unsigned connections;
    double seconds;
    double warmup_s;
    uint64_t count; /* operations in all; 0: by time */
    uint32_t keys;
    size_t value_bytes;
    unsigned range_keys;
    unsigned watchers;
    unsigned streams;
    unsigned rate; /* per second; 0: as fast as it goes */
    unsigned leases;
    unsigned ttl_s;
    uint64_t seed;
    const char *prefix;
    long kill_pid; /* 0: nobody */
    unsigned kill_after_ms;
};

struct bench {
    struct bench_options o;
    struct hw_loop *loop;
    struct hw_pool *resolver;
    struct hw_channel *channels[BENCH_CHANNELS_MAX];
    unsigned channel_count;
    struct hw_rng rng;
    uint8_t *value; /* random bytes, value_bytes long */
    struct hw_timer *timer;
    /* the window */
    bool is_open;      /* results count */
    bool is_stopping;  /* start nothing more */
    bool is_abandoned; /* wait no longer */
    bool is_unimplemented;
    uint64_t opened_ns;
    uint64_t closed_ns;
    uint64_t cpu_us; /* of this process, within the window */
    /* results */
    struct bench_hist hist;
    uint64_t ops;     /* within the window */
    uint64_t ops_all; /* with warm-up and end: what the servers have worked for */
    uint64_t items;   /* keys or events that came with the operations */
    uint64_t conflicts;
    uint64_t missing; /* reads that found nothing */
    uint64_t errors[BENCH_RPC_STATUSES];
    uint64_t refused; /* not even started: no connection, or a full queue */
    uint64_t unfinished;
    char text[128];     /* the first error's */
    struct hw_buf more; /* further JSON members of the workload, each begins with ", " */
};

/* bench_run.c */
void bench_window_start(struct bench *b);
/* Ends the window now: for runs by count. */
void bench_window_close(struct bench *b);
/* One turn of the loop; false when there is nothing more to wait for. */
bool bench_turn(struct bench *b);
void bench_op_done(struct bench *b, uint64_t started_ns);
void bench_op_failed(struct bench *b, enum hw_grpc status, const char *text);
/* prefix, then the number in eight digits: length prefix + 8 always. Returns the length. */
size_t bench_key(const struct bench *b, uint32_t number, char key[BENCH_KEY_BYTES_MAX]);
/* The number of such a key; false for another key. */
bool bench_key_number(const struct bench *b, struct hw_slice key, uint32_t *number);
/* Visit all keys of the prefix, page by page; HW_ERR_* when a page can not be read. Runs the loop. */
int bench_visit_keys(struct bench *b, bool is_serializable, void (*visit)(void *ctx, const struct bench_kv *kv),
                     void *ctx);

/* The workloads: 0, or a negative hw_err with b->text set. */
int bench_calls_run(struct bench *b);
int bench_watch_run(struct bench *b);
int bench_lease_run(struct bench *b);
int bench_gap_run(struct bench *b);

/* bench_ideal.c: the other side of tests/bench/ideal.c. done(ctx, id) for each answer. */
int bench_ideal_connect(struct bench *b, void (*done)(void *ctx, uint64_t id), void *ctx);
int bench_ideal_send(struct bench *b, uint64_t id, bool is_read, uint32_t key, struct hw_slice value);

#endif
