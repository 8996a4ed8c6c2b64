#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "tests/unit/agent/loop/loop_test.h"

/* ---- defer ---- */

struct step {
    struct hw_defer d;
    struct hw_loop *loop;
    char letter;
    unsigned again;
    struct step *cancels;
};

static char trace[64];

static void note_letter(char c)
{
    size_t n = strlen(trace);
    trace[n] = c;
    trace[n + 1] = '\0';
}

static void run_step(struct hw_defer *d)
{
    struct step *s = hw_container_of(d, struct step, d);
    note_letter(s->letter);
    if (s->cancels != NULL) {
        hw_defer_cancel(s->loop, &s->cancels->d);
    }
    if (s->again > 0) {
        s->again--;
        hw_defer_post(s->loop, &s->d);
    }
}

static struct step step(struct hw_loop *loop, char letter)
{
    struct step s = {.loop = loop, .letter = letter};
    hw_defer_init(&s.d, run_step);
    return s;
}

static void deferred_run_in_order_of_posting(void)
{
    struct hw_loop *loop = test_loop_new();
    struct step a = step(loop, 'a');
    struct step b = step(loop, 'b');
    struct step c = step(loop, 'c');
    trace[0] = '\0';
    hw_defer_post(loop, &b.d);
    hw_defer_post(loop, &a.d);
    hw_defer_post(loop, &b.d);
    hw_defer_post(loop, &c.d);
    hw_loop_run(loop);
    CHECK_STR(trace, "bac");
    hw_loop_free(loop);
}

static void a_reposted_one_runs_after_all_of_this_turn(void)
{
    struct hw_loop *loop = test_loop_new();
    struct step a = step(loop, 'a');
    struct step b = step(loop, 'b');
    trace[0] = '\0';
    a.again = 3;
    hw_defer_post(loop, &a.d);
    hw_defer_post(loop, &b.d);
    hw_loop_run(loop);
    CHECK_STR(trace, "abaaa");
    hw_loop_free(loop);
}

static void a_cancelled_one_does_not_run(void)
{
    struct hw_loop *loop = test_loop_new();
    struct step a = step(loop, 'a');
    struct step b = step(loop, 'b');
    struct step c = step(loop, 'c');
    trace[0] = '\0';
    a.cancels = &b;
    hw_defer_post(loop, &a.d);
    hw_defer_post(loop, &b.d);
    hw_defer_post(loop, &c.d);
    hw_defer_cancel(loop, &c.d);
    hw_loop_run(loop);
    CHECK_STR(trace, "a");
    CHECK(!b.d.is_posted);
    hw_defer_post(loop, &b.d);
    hw_defer_cancel(loop, &b.d);
    CHECK(!hw_loop_turn(loop, true)); /* would block for ever if the loop still span or waited */
    hw_loop_free(loop);
}

struct poster {
    struct step *s;
    uint64_t at_us;
};

static void post_it(void *ctx)
{
    struct poster *p = ctx;
    p->at_us = hw_mono_us();
    hw_defer_post(p->s->loop, &p->s->d);
}

static bool step_ran;
static uint64_t step_ran_us;

static void run_timed(struct hw_defer *d)
{
    (void)d;
    step_ran = true;
    step_ran_us = hw_mono_us();
}

/* The later timer would be the next event: what the first posts must not wait for it. */
static void what_a_timer_posts_does_not_wait_for_an_event(void)
{
    struct hw_loop *loop = test_loop_new();
    struct step a = step(loop, 'a');
    struct poster p = {.s = &a};
    bool late = false;
    struct hw_timer *first = hw_timer_new(loop, "first", post_it, &p);
    struct hw_timer *next = hw_timer_new(loop, "next", test_expired, &late);
    step_ran = false;
    hw_defer_init(&a.d, run_timed);
    hw_timer_start(first, 1, 0);
    hw_timer_start(next, 5000, 0);
    while (!step_ran) {
        hw_loop_turn(loop, true);
    }
    CHECK(!late);
    CHECK(step_ran_us - p.at_us < 2500000);
    hw_timer_free(first);
    hw_timer_free(next);
    hw_loop_free(loop);
}

static struct step *from_scope;

static void on_scope_posts(void *ctx)
{
    hw_defer_post(ctx, &from_scope->d);
}

static void posting_from_a_deferred_one_keeps_the_loop_going(void)
{
    struct hw_loop *loop = test_loop_new();
    struct step a = step(loop, 'a');
    struct hw_scope *scope = hw_scope_new(loop, "s");
    trace[0] = '\0';
    from_scope = &a;
    hw_scope_shut(scope, on_scope_posts, loop);
    hw_loop_run(loop);
    CHECK_STR(trace, "a");
    hw_scope_free(scope);
    hw_loop_free(loop);
}

/* ---- timers and signals ---- */

struct one_shot {
    struct hw_timer *t;
    unsigned ran;
};

static void free_self(void *ctx)
{
    struct one_shot *o = ctx;
    o->ran++;
    hw_timer_free(o->t);
}

static void a_timer_may_be_freed_in_its_own_callback(void)
{
    struct hw_loop *loop = test_loop_new();
    struct one_shot o = {0};
    o.t = hw_timer_new(loop, "self", free_self, &o);
    hw_timer_start(o.t, 0, 1);
    hw_loop_run(loop);
    CHECK_EQ(o.ran, 1);
    hw_timer_free(NULL);
    hw_loop_free(loop);
}

struct two {
    struct hw_timer *a;
    struct hw_timer *b;
    unsigned ran;
};

static void free_both(void *ctx)
{
    struct two *t = ctx;
    t->ran++;
    hw_timer_free(t->a);
    hw_timer_free(t->b);
}

static void a_timer_freed_by_another_does_not_run(void)
{
    struct hw_loop *loop = test_loop_new();
    struct two t = {0};
    t.a = hw_timer_new(loop, "a", free_both, &t);
    t.b = hw_timer_new(loop, "b", free_both, &t);
    hw_timer_start(t.a, 1, 0);
    hw_timer_start(t.b, 1, 0);
    hw_loop_run(loop);
    CHECK_EQ(t.ran, 1);
    hw_loop_free(loop);
}

struct repeat {
    struct hw_timer *t;
    unsigned left;
};

static void count_down(void *ctx)
{
    struct repeat *r = ctx;
    if (--r->left == 0) {
        hw_timer_stop(r->t);
    }
}

static void a_timer_repeats_until_stopped(void)
{
    struct hw_loop *loop = test_loop_new();
    struct repeat r = {.left = 3};
    uint64_t start_ms = hw_mono_ms();
    r.t = hw_timer_new(loop, "repeat", count_down, &r);
    CHECK(!hw_timer_is_active(r.t));
    hw_timer_start(r.t, 10, 5);
    CHECK(hw_timer_is_active(r.t));
    hw_loop_run(loop);
    CHECK_EQ(r.left, 0);
    CHECK(!hw_timer_is_active(r.t));
    CHECK(hw_mono_ms() - start_ms >= 19);
    hw_timer_free(r.t);
    hw_loop_free(loop);
}

static int got_signal;
static struct hw_signal *sig;

static void on_usr1(void *ctx, int signum)
{
    got_signal = signum;
    hw_signal_free(sig);
    hw_loop_stop(ctx);
}

static void a_signal_comes_on_the_loop(void)
{
    struct hw_loop *loop = test_loop_new();
    sig = hw_signal_new(loop, SIGUSR1, on_usr1, loop);
    got_signal = 0;
    raise(SIGUSR1);
    hw_loop_run(loop);
    CHECK_EQ(got_signal, SIGUSR1);
    hw_signal_free(NULL);
    hw_loop_free(loop);
}

/* ---- scope ---- */

static void scope_closed(void *ctx)
{
    (*(unsigned *)ctx)++;
}

static void a_scope_closes_once_when_the_last_hold_goes(void)
{
    struct hw_loop *loop = test_loop_new();
    struct hw_scope *s = hw_scope_new(loop, "replica");
    struct hw_hold a = {0};
    struct hw_hold b = {0};
    struct hw_buf text = {0};
    unsigned closed = 0;
    hw_scope_hold(s, &a, "checkpoint");
    hw_scope_hold(s, &b, "peer n2");
    hw_scope_release(s, &a);
    hw_scope_hold(s, &a, "image");
    CHECK(!hw_scope_is_shut(s));
    hw_scope_shut(s, scope_closed, &closed);
    CHECK(hw_scope_is_shut(s));
    hw_loop_run(loop);
    CHECK_EQ(closed, 0);
    hw_scope_report(s, &text);
    hw_buf_put_u8(&text, 0);
    CHECK_STR((char *)text.data, "replica held by peer n2, image");
    hw_buf_free(&text);
    hw_scope_release(s, &a);
    hw_scope_release(s, &b);
    CHECK_EQ(closed, 0); /* not within the release */
    hw_loop_run(loop);
    CHECK_EQ(closed, 1);
    hw_scope_report(s, &text);
    hw_buf_put_u8(&text, 0);
    CHECK_STR((char *)text.data, "replica held by nobody");
    hw_buf_free(&text);
    hw_scope_free(s);
    hw_loop_free(loop);
}

static void a_hold_taken_while_closing_delays_the_close(void)
{
    struct hw_loop *loop = test_loop_new();
    struct hw_scope *s = hw_scope_new(loop, "s");
    struct hw_hold a = {0};
    unsigned closed = 0;
    hw_scope_shut(s, scope_closed, &closed);
    hw_scope_hold(s, &a, "late");
    hw_loop_run(loop);
    CHECK_EQ(closed, 0);
    hw_scope_release(s, &a);
    hw_loop_run(loop);
    CHECK_EQ(closed, 1);
    hw_scope_free(s);
    hw_loop_free(loop);
}

/* ---- the loop itself ---- */

static void burn(void *ctx)
{
    uint64_t start_us = hw_mono_us();
    hw_loop_note(ctx, "burn");
    while (hw_mono_us() - start_us < 60000) {
    }
    hw_loop_note(ctx, "after");
}

static void a_busy_turn_is_counted(void)
{
    struct hw_metrics *m = hw_metrics_new();
    struct hw_loop *loop = NULL;
    struct hw_loop_stats stats;
    struct hw_timer *t;
    struct hw_buf text = {0};
    REQUIRE(hw_loop_new(&loop, m, 50) == 0);
    t = hw_timer_new(loop, "burner", burn, loop);
    hw_timer_start(t, 200, 0); /* waits longer than it burns */
    hw_loop_run(loop);
    hw_loop_stats(loop, &stats, true);
    CHECK(stats.turns >= 1);
    CHECK(stats.stalls >= 1);
    CHECK(stats.busy_us_max >= 60000);
    hw_metrics_render(m, &text);
    hw_buf_put_u8(&text, 0);
    CHECK(strstr((char *)text.data, "hotwarm_loop_stalls_total 0") == NULL);
    CHECK(strstr((char *)text.data, "hotwarm_loop_turn_seconds_count") != NULL);
    hw_buf_free(&text);
    hw_loop_stats(loop, &stats, false);
    CHECK_EQ(stats.turns, 0);
    CHECK_EQ(stats.busy_us_max, 0);
    hw_timer_free(t);
    hw_loop_free(loop);
    hw_metrics_free(m);
}

/* A machine may be busy with other things: one quiet attempt of many is proof enough. */
static void waiting_is_not_being_busy(void)
{
    struct hw_loop *loop = test_loop_new();
    struct hw_loop_stats stats = {0};
    bool was_quiet = false;
    for (int i = 0; i < 20 && !was_quiet; i++) {
        hw_loop_stats(loop, &stats, true);
        test_turn_for(loop, 100);
        hw_loop_stats(loop, &stats, true);
        was_quiet = stats.busy_us_max < 50000;
    }
    CHECK(was_quiet);
    hw_loop_free(loop);
}

static void stop_it(void *ctx)
{
    hw_loop_stop(ctx);
}

/* With something else open, a turn that waited after it had run a due timer or a posted function would wait for ever:
 * this case would hang. */
static void a_turn_that_has_run_something_does_not_wait(void)
{
    struct hw_loop *loop = test_loop_new();
    bool fired = false;
    struct step a = step(loop, 'a');
    struct hw_signal *open = hw_signal_new(loop, SIGUSR2, on_usr1, loop);
    struct hw_timer *t = hw_timer_new(loop, "due", test_expired, &fired);
    hw_timer_start(t, 1, 0);
    usleep(5000);
    while (!fired) {
        CHECK(hw_loop_turn(loop, true));
    }
    trace[0] = '\0';
    hw_defer_post(loop, &a.d);
    while (trace[0] == '\0') {
        CHECK(hw_loop_turn(loop, true));
    }
    hw_timer_free(t);
    hw_signal_free(open);
    hw_loop_free(loop);
}

static void run_returns_after_stop(void)
{
    struct hw_loop *loop = test_loop_new();
    bool never = false;
    struct hw_timer *stop = hw_timer_new(loop, "stop", stop_it, loop);
    struct hw_timer *far = hw_timer_new(loop, "far", test_expired, &never);
    hw_timer_start(stop, 1, 0);
    hw_timer_start(far, 60000, 0);
    hw_loop_run(loop);
    CHECK(!never);
    hw_timer_free(stop);
    hw_timer_free(far);
    hw_loop_free(loop);
}

static void freeing_a_loop_with_an_open_handle_names_it_and_aborts(void)
{
    char text[4096];
    size_t have = 0;
    ssize_t n;
    int fds[2];
    int status = 0;
    pid_t pid;
    REQUIRE(pipe(fds) == 0);
    pid = fork();
    if (pid == 0) {
        struct hw_loop *loop = NULL;
        dup2(fds[1], STDERR_FILENO);
        if (hw_loop_new(&loop, NULL, 0) == 0) {
            hw_timer_start(hw_timer_new(loop, "heartbeat", stop_it, loop), 60000, 0);
            hw_loop_free(loop);
        }
        _exit(0);
    }
    close(fds[1]);
    while ((n = read(fds[0], text + have, sizeof text - 1 - have)) > 0) {
        have += (size_t)n;
    }
    text[have] = '\0';
    close(fds[0]);
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(strstr(text, "type=timer") != NULL);
    CHECK(strstr(text, "heartbeat") != NULL);
}

HW_SUITE(loop_loop, HW_CASE(deferred_run_in_order_of_posting), HW_CASE(a_reposted_one_runs_after_all_of_this_turn),
         HW_CASE(a_cancelled_one_does_not_run), HW_CASE(what_a_timer_posts_does_not_wait_for_an_event),
         HW_CASE(posting_from_a_deferred_one_keeps_the_loop_going), HW_CASE(a_timer_may_be_freed_in_its_own_callback),
         HW_CASE(a_timer_freed_by_another_does_not_run), HW_CASE(a_timer_repeats_until_stopped),
         HW_CASE(a_signal_comes_on_the_loop), HW_CASE(a_scope_closes_once_when_the_last_hold_goes),
         HW_CASE(a_hold_taken_while_closing_delays_the_close), HW_CASE(a_busy_turn_is_counted),
         HW_CASE(waiting_is_not_being_busy), HW_CASE(a_turn_that_has_run_something_does_not_wait),
         HW_CASE(run_returns_after_stop), HW_CASE(freeing_a_loop_with_an_open_handle_names_it_and_aborts))
