/* The loop: one thread that owns all mutable state of an agent. Everything asynchronous in HotWarm hangs off one of
 * these; uv.h is included by the .c files of this folder only (and by agent/consensus, for libraft).
 *
 * The async law of the project: the caller owns the request struct. Submit returns 0: `done` runs exactly once, later,
 * on the loop thread. Submit returns negative: `done` never runs and nothing was taken. Cancelling hurries a request;
 * it still completes once.
 *
 * Life cycle: hw_loop_new · hw_loop_run (returns after hw_loop_stop, or when nothing is left) · hw_loop_free (asserts
 * that every handle was closed and names those that are not). Everything here is for the loop thread, except where
 * "any thread" is said.
 */
#ifndef HW_LOOP_LOOP_H
#define HW_LOOP_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "agent/base/err.h"
#include "agent/base/metrics.h"

struct hw_loop;
struct uv_loop_s;

/* metrics may be NULL. stall_budget_ms: a loop turn that runs longer is logged and counted (0: never). Ignores SIGPIPE
 * for the process where nobody handles it: a broken connection is an error of its stream. */
int hw_loop_new(struct hw_loop **loop, struct hw_metrics *metrics, unsigned stall_budget_ms);
void hw_loop_run(struct hw_loop *loop);
/* One turn; blocks for events only when `wait` and when neither a timer nor a deferred function has run in it. False
 * when nothing is left to wait for. For tests. */
bool hw_loop_turn(struct hw_loop *loop, bool wait);
void hw_loop_stop(struct hw_loop *loop);
void hw_loop_free(struct hw_loop *loop);
/* For agent/consensus, which gives it to libraft. */
struct uv_loop_s *hw_loop_uv(struct hw_loop *loop);

/* The time at the start of this turn (CLOCK_MONOTONIC milliseconds as libuv keeps it: for intervals only). */
uint64_t hw_loop_now_ms(struct hw_loop *loop);

/* Turn statistics: how long callbacks held the loop. Metrics: hotwarm_loop_turn_seconds (histogram),
 * hotwarm_loop_stalls_total; and from listeners hotwarm_connections_refused_total. */
struct hw_loop_stats {
    uint64_t turns;
    uint64_t busy_us_max; /* since the start or the last reset */
    uint64_t
        cpu_us_max;  /* as busy_us_max, but only what the thread computed: the rest it was blocked or not scheduled */
    uint64_t stalls; /* turns over the budget */
};
void hw_loop_stats(struct hw_loop *loop, struct hw_loop_stats *stats, bool reset);
/* Name what runs now, so that a stall names its culprit ("apply", "rpc"): the longest stretch between two notes of the
 * turn. A constant string. Timers and pools note their own names before they call. */
void hw_loop_note(struct hw_loop *loop, const char *what);

/* ---- defer: run once at the end of this turn, before the loop waits for events again ----
 * The place for group commit and write coalescing. Posting a posted one does nothing; a function may post again: that
 * runs in the next turn, which then does not wait. Runs in order of posting. */
struct hw_defer {
    void (*fn)(struct hw_defer *d);
    TAILQ_ENTRY(hw_defer) link;
    bool is_posted;
};
void hw_defer_init(struct hw_defer *d, void (*fn)(struct hw_defer *d));
void hw_defer_post(struct hw_loop *loop, struct hw_defer *d);
void hw_defer_cancel(struct hw_loop *loop, struct hw_defer *d);

/* ---- timers ---- */
struct hw_timer;
typedef void (*hw_timer_fn)(void *ctx);
/* Aborts when out of memory (a few dozen exist per agent). `name` is for leak reports. */
struct hw_timer *hw_timer_new(struct hw_loop *loop, const char *name, hw_timer_fn fn, void *ctx);
void hw_timer_start(struct hw_timer *t, uint64_t after_ms, uint64_t repeat_ms);
void hw_timer_stop(struct hw_timer *t);
bool hw_timer_is_active(const struct hw_timer *t);
/* Stops at once: fn does not run any more; memory goes later. NULL is allowed. */
void hw_timer_free(struct hw_timer *t);

/* ---- signals ---- */
struct hw_signal;
struct hw_signal *hw_signal_new(struct hw_loop *loop, int signum, void (*fn)(void *ctx, int signum), void *ctx);
void hw_signal_free(struct hw_signal *s);

/* ---- scope: shutdown with a count ----
 * Everything open takes a named hold; when shut was called and the last hold is released, the close callback runs once,
 * in a later turn. hw_scope_report appends who still holds it. */
struct hw_scope;
struct hw_hold {
    const char *name;
    TAILQ_ENTRY(hw_hold) link;
    bool is_held;
};
struct hw_scope *hw_scope_new(struct hw_loop *loop, const char *name);
void hw_scope_hold(struct hw_scope *s, struct hw_hold *h, const char *name);
void hw_scope_release(struct hw_scope *s, struct hw_hold *h);
void hw_scope_shut(struct hw_scope *s, void (*on_closed)(void *ctx), void *ctx);
bool hw_scope_is_shut(const struct hw_scope *s);
void hw_scope_report(const struct hw_scope *s, struct hw_buf *out);
void hw_scope_free(struct hw_scope *s);

#endif
