#include <time.h>

#include "agent/loop/loop.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/loop/loop_impl.h"
#include "agent/loop/outq.h"

/* At most one line a second about stalls: a loop that is late all the time must not spend its time on logging. */
#define STALL_LOG_EVERY_MS 1000
/* Turns that hw_loop_free grants to close callbacks, which may post or close further things. */
#define FREE_TURNS_MAX 64

/* Turns and the stall probe.
 *
 * libuv's turn is: timers, idle, prepare, poll (which waits and then runs the I/O callbacks), check, closing. A turn of
 * ours reaches from one prepare to the next, so that it holds everything that one wake-up caused. Busy time is its
 * length without the wait, which libuv itself measures (UV_METRICS_IDLE_TIME): a check handler alone would come too
 * late to see the I/O callbacks. */

static uint64_t thread_cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void turn_begin(struct hw_loop *loop)
{
    loop->turn_start_ns = uv_hrtime();
    loop->turn_cpu_ns = thread_cpu_ns();
    loop->turn_idle_ns = uv_metrics_idle_time(&loop->uv);
    loop->has_polled = false;
    loop->note = NULL;
    loop->note_longest = NULL;
    loop->note_longest_ns = 0;
}

static void note_close(struct hw_loop *loop, uint64_t now_ns)
{
    if (loop->note != NULL && now_ns - loop->note_start_ns >= loop->note_longest_ns) {
        loop->note_longest_ns = now_ns - loop->note_start_ns;
        loop->note_longest = loop->note;
    }
}

static void stalled(struct hw_loop *loop, uint64_t busy_us, uint64_t cpu_us)
{
    uint64_t now_ms = uv_now(&loop->uv);
    loop->stats.stalls++;
    if (loop->stalls_total != NULL) {
        hw_counter_add(loop->stalls_total, 1);
    }
    if (loop->stall_logged_ms != 0 && now_ms - loop->stall_logged_ms < STALL_LOG_EVERY_MS) {
        loop->stalls_unlogged++;
        return;
    }
    hw_log_warn("loop", "a turn held the loop for too long",
                "busy_ms=%llu cpu_ms=%llu budget_ms=%u longest=%s longest_ms=%llu unlogged=%llu",
                (unsigned long long)(busy_us / 1000), (unsigned long long)(cpu_us / 1000), loop->stall_budget_ms,
                hw_logq(loop->note_longest != NULL ? loop->note_longest : "unknown"),
                (unsigned long long)(loop->note_longest_ns / 1000000), (unsigned long long)loop->stalls_unlogged);
    loop->stall_logged_ms = now_ms;
    loop->stalls_unlogged = 0;
}

static void turn_end(struct hw_loop *loop)
{
    uint64_t now_ns = uv_hrtime();
    uint64_t waited_ns = uv_metrics_idle_time(&loop->uv) - loop->turn_idle_ns;
    uint64_t length_ns = now_ns - loop->turn_start_ns;
    uint64_t busy_us = length_ns > waited_ns ? (length_ns - waited_ns) / 1000 : 0;
    uint64_t cpu_us = (thread_cpu_ns() - loop->turn_cpu_ns) / 1000;
    note_close(loop, now_ns);
    loop->stats.turns++;
    if (busy_us > loop->stats.busy_us_max) {
        loop->stats.busy_us_max = busy_us;
    }
    if (cpu_us > loop->stats.cpu_us_max) {
        loop->stats.cpu_us_max = cpu_us;
    }
    if (loop->turn_seconds != NULL) {
        hw_histogram_observe_us(loop->turn_seconds, busy_us);
    }
    if (loop->stall_budget_ms != 0 && busy_us > (uint64_t)loop->stall_budget_ms * 1000) {
        stalled(loop, busy_us, cpu_us);
    }
}

void hw_loop_note(struct hw_loop *loop, const char *what)
{
    uint64_t now_ns = uv_hrtime();
    note_close(loop, now_ns);
    loop->note = what;
    loop->note_start_ns = now_ns;
}

void hw_loop_stats(struct hw_loop *loop, struct hw_loop_stats *stats, bool reset)
{
    *stats = loop->stats;
    if (reset) {
        loop->stats = (struct hw_loop_stats){0};
    }
}

/* Deferred functions run in prepare and in check: whatever posted them (timer, prepare, I/O, check, close callback),
 * one of the two comes before the next wait. What is posted by somebody else's prepare handler after ours has run is
 * covered by the spin handle. A marker keeps one run from serving what it has posted itself, and leaves one list from
 * which a cancel can remove. */

static void on_spin(uv_idle_t *h)
{
    (void)h;
}

static void run_posted(struct hw_loop *loop)
{
    struct hw_defer mark = {.is_posted = true};
    struct hw_defer *d;
    if (TAILQ_EMPTY(&loop->posted)) {
        return;
    }
    loop->has_worked = true;
    TAILQ_INSERT_TAIL(&loop->posted, &mark, link);
    while ((d = TAILQ_FIRST(&loop->posted)) != &mark) {
        TAILQ_REMOVE(&loop->posted, d, link);
        d->is_posted = false;
        d->fn(d);
    }
    TAILQ_REMOVE(&loop->posted, &mark, link);
    if (TAILQ_EMPTY(&loop->posted)) {
        uv_idle_stop(&loop->spin);
    }
}

void hw_defer_init(struct hw_defer *d, void (*fn)(struct hw_defer *d))
{
    *d = (struct hw_defer){.fn = fn};
}

void hw_defer_post(struct hw_loop *loop, struct hw_defer *d)
{
    hw_assert(loop_is_own_thread(loop));
    hw_assert(d->fn != NULL);
    if (d->is_posted) {
        return;
    }
    if (TAILQ_EMPTY(&loop->posted)) {
        uv_idle_start(&loop->spin, on_spin);
    }
    TAILQ_INSERT_TAIL(&loop->posted, d, link);
    d->is_posted = true;
}

void hw_defer_cancel(struct hw_loop *loop, struct hw_defer *d)
{
    if (!d->is_posted) {
        return;
    }
    TAILQ_REMOVE(&loop->posted, d, link);
    d->is_posted = false;
    if (TAILQ_EMPTY(&loop->posted)) {
        uv_idle_stop(&loop->spin);
    }
}

static void on_prepare(uv_prepare_t *h)
{
    struct hw_loop *loop = h->data;
    run_posted(loop);
    if (loop->has_polled) {
        turn_end(loop);
        turn_begin(loop);
    }
    if (loop->is_single && loop->has_worked) {
        uv_idle_start(&loop->spin, on_spin);
    }
}

static void on_check(uv_check_t *h)
{
    struct hw_loop *loop = h->data;
    loop->has_polled = true;
    run_posted(loop);
}

/* A write to a closed connection must be an error of that connection. libuv and libraft write without MSG_NOSIGNAL. */
static void ignore_sigpipe(void)
{
    struct sigaction sa;
    if (sigaction(SIGPIPE, NULL, &sa) == 0 && sa.sa_handler == SIG_DFL) {
        signal(SIGPIPE, SIG_IGN);
    }
}

int hw_loop_new(struct hw_loop **out, struct hw_metrics *metrics, unsigned stall_budget_ms)
{
    struct hw_loop *loop = calloc(1, sizeof *loop);
    int r;
    if (loop == NULL) {
        return HW_ERR_NOMEM;
    }
    r = uv_loop_init(&loop->uv);
    if (r != 0) {
        free(loop);
        return loop_err(r);
    }
    uv_loop_configure(&loop->uv, UV_METRICS_IDLE_TIME);
    ignore_sigpipe();
    TAILQ_INIT(&loop->posted);
    LIST_INIT(&loop->named);
    SLIST_INIT(&loop->spares);
    loop->thread = pthread_self();
    loop->stall_budget_ms = stall_budget_ms;
    /* libuv runs the handlers that were started last first: ours, the first, see what all others have posted. */
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_check_init(&loop->uv, &loop->check);
    uv_idle_init(&loop->uv, &loop->spin);
    loop->prepare.data = loop->check.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_check_start(&loop->check, on_check);
    uv_unref((uv_handle_t *)&loop->prepare);
    uv_unref((uv_handle_t *)&loop->check);
    if (metrics != NULL) {
        loop->turn_seconds = hw_metrics_histogram(metrics, "hotwarm_loop_turn_seconds", NULL,
                                                  "How long one turn of the loop was busy, without waiting.");
        loop->stalls_total = hw_metrics_counter(metrics, "hotwarm_loop_stalls_total", NULL,
                                                "Turns of the loop that were busy for longer than the budget.");
        loop->refused_total = hw_metrics_counter(metrics, "hotwarm_connections_refused_total", NULL,
                                                 "Connections closed at once because of a listener's connections_max.");
    }
    *out = loop;
    return 0;
}

static void run(struct hw_loop *loop, uv_run_mode mode)
{
    loop->thread = pthread_self();
    turn_begin(loop);
    uv_run(&loop->uv, mode);
    if (loop->has_polled) {
        turn_end(loop);
    }
}

void hw_loop_run(struct hw_loop *loop)
{
    run(loop, UV_RUN_DEFAULT);
}

/* UV_RUN_ONCE polls after timers and deferred functions, for ever if these were all there was: whoever turns the loop
 * until one of them has set a flag would hang. So a turn does not wait once something of it has run: for what is due at
 * the start libuv is asked, what falls due in between is seen in on_prepare. */
bool hw_loop_turn(struct hw_loop *loop, bool wait)
{
    uv_update_time(&loop->uv);
    loop->is_single = true;
    loop->has_worked = false;
    run(loop, wait && uv_backend_timeout(&loop->uv) != 0 ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    loop->is_single = false;
    if (TAILQ_EMPTY(&loop->posted)) {
        uv_idle_stop(&loop->spin);
    }
    return uv_loop_alive(&loop->uv) != 0;
}

void hw_loop_stop(struct hw_loop *loop)
{
    uv_stop(&loop->uv);
}

uv_loop_t *hw_loop_uv(struct hw_loop *loop)
{
    return &loop->uv;
}

uint64_t hw_loop_now_ms(struct hw_loop *loop)
{
    return uv_now(&loop->uv);
}

bool loop_is_own_thread(const struct hw_loop *loop)
{
    return pthread_equal(loop->thread, pthread_self()) != 0;
}

void loop_name(struct hw_loop *loop, struct hw_named *n, const char *name, const void *handle)
{
    n->name = name;
    n->handle = handle;
    LIST_INSERT_HEAD(&loop->named, n, link);
}

void loop_unname(struct hw_named *n)
{
    LIST_REMOVE(n, link);
}

static void report_leak(uv_handle_t *h, void *arg)
{
    struct hw_loop *loop = arg;
    const struct hw_named *n;
    LIST_FOREACH(n, &loop->named, link) {
        if (n->handle == h) {
            break;
        }
    }
    hw_log_error("loop", "a handle was not closed before the loop was freed", "type=%s name=%s closing=%d",
                 uv_handle_type_name(uv_handle_get_type(h)), n != NULL ? hw_logq(n->name) : "unknown",
                 uv_is_closing(h));
}

void hw_loop_free(struct hw_loop *loop)
{
    int r = UV_EBUSY;
    loop->thread = pthread_self();
    for (int i = 0; i < FREE_TURNS_MAX && uv_loop_alive(&loop->uv); i++) {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    }
    hw_assert(TAILQ_EMPTY(&loop->posted));
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->check, NULL);
    uv_close((uv_handle_t *)&loop->spin, NULL);
    for (int i = 0; i < FREE_TURNS_MAX && r == UV_EBUSY; i++) {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        r = uv_loop_close(&loop->uv);
    }
    if (r != 0) {
        uv_walk(&loop->uv, report_leak, loop);
    }
    hw_assert(r == 0 && "handles are still open, see the lines above");
    outq_free_spares(loop);
    free(loop);
}

int loop_err(int uv_status)
{
    switch (uv_status) {
    case UV_ECANCELED:
        return HW_ERR_CANCELLED;
    case UV_EOF:
        return HW_ERR_CLOSED;
    default:
        return hw_err_from_errno(-uv_status);
    }
}
