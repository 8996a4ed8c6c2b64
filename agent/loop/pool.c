#include "agent/loop/pool.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/loop/loop_impl.h"

#define THREADS_MAX 64
#define NAME_SIZE 16 /* what pthread_setname_np takes */

STAILQ_HEAD(job_list, hw_job);

enum state { OPEN, SHUTTING, CLOSED };

/* The loop thread owns everything but what the lock guards. */
struct hw_pool {
    uv_async_t async;
    struct hw_named named;
    struct hw_loop *loop;
    char name[NAME_SIZE];
    enum state state;
    unsigned busy; /* submitted and done not yet run */
    unsigned busy_max;
    bool free_on_close;
    void (*on_closed)(void *ctx);
    void *ctx;
    struct hw_defer closing;
    unsigned thread_count;
    pthread_t threads[THREADS_MAX];

    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job_list queue;    /* guarded by lock */
    struct job_list finished; /* guarded by lock */
    bool is_stopping;         /* guarded by lock */
};

static void *worker(void *arg)
{
    struct hw_pool *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        struct hw_job *job;
        bool is_first;
        while (STAILQ_EMPTY(&p->queue) && !p->is_stopping) {
            pthread_cond_wait(&p->wake, &p->lock);
        }
        if (STAILQ_EMPTY(&p->queue)) {
            break;
        }
        job = STAILQ_FIRST(&p->queue);
        STAILQ_REMOVE_HEAD(&p->queue, link);
        pthread_mutex_unlock(&p->lock);
        job->work(job);
        pthread_mutex_lock(&p->lock);
        is_first = STAILQ_EMPTY(&p->finished);
        STAILQ_INSERT_TAIL(&p->finished, job, link);
        if (is_first) {
            uv_async_send(&p->async); /* the loop takes the whole list at once: one wake-up is enough */
        }
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void stop_threads(struct hw_pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->is_stopping = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->thread_count; i++) {
        pthread_join(p->threads[i], NULL);
    }
    p->thread_count = 0;
}

static void destroy(struct hw_pool *p)
{
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void on_async_closed(uv_handle_t *h)
{
    struct hw_pool *p = hw_container_of(h, struct hw_pool, async);
    loop_unname(&p->named);
    p->state = CLOSED;
    if (p->free_on_close) {
        destroy(p);
    } else if (p->on_closed != NULL) {
        p->on_closed(p->ctx);
    }
}

static void close_now(struct hw_pool *p)
{
    hw_assert(p->busy == 0);
    stop_threads(p); /* they are idle: this waits for their exit, not for work */
    uv_close((uv_handle_t *)&p->async, on_async_closed);
}

static void run_closing(struct hw_defer *d)
{
    close_now(hw_container_of(d, struct hw_pool, closing));
}

static void on_async(uv_async_t *async)
{
    struct hw_pool *p = hw_container_of(async, struct hw_pool, async);
    struct job_list finished = STAILQ_HEAD_INITIALIZER(finished);
    struct hw_job *job;
    pthread_mutex_lock(&p->lock);
    STAILQ_CONCAT(&finished, &p->finished);
    pthread_mutex_unlock(&p->lock);
    if (!STAILQ_EMPTY(&finished)) {
        hw_loop_note(p->loop, p->name);
    }
    while ((job = STAILQ_FIRST(&finished)) != NULL) {
        STAILQ_REMOVE_HEAD(&finished, link);
        p->busy--;
        if (p->busy == 0) {
            uv_unref((uv_handle_t *)&p->async);
        }
        job->done(job);
    }
    if (p->state == SHUTTING && p->busy == 0) {
        hw_defer_post(p->loop, &p->closing);
    }
}

/* Signals are for the loop thread; a worker takes only those that its own faults raise. */
static void block_signals(sigset_t *old)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < hw_array_len(faults); i++) {
        sigdelset(&set, faults[i]);
    }
    pthread_sigmask(SIG_SETMASK, &set, old);
}

static int start_threads(struct hw_pool *p, unsigned threads)
{
    sigset_t old;
    int r = 0;
    block_signals(&old);
    for (unsigned i = 0; i < threads && r == 0; i++) {
        r = pthread_create(&p->threads[i], NULL, worker, p);
        if (r == 0) {
            char name[NAME_SIZE];
            snprintf(name, sizeof name, "%.12s-%u", p->name, i);
            pthread_setname_np(p->threads[i], name);
            p->thread_count++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

int hw_pool_new(struct hw_loop *loop, const char *name, unsigned threads, unsigned queue_max, struct hw_pool **pool,
                struct hw_error *e)
{
    struct hw_pool *p;
    int r;
    hw_assert(threads > 0 && threads <= THREADS_MAX);
    p = calloc(1, sizeof *p);
    if (p == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "worker pool %s: out of memory", name);
    }
    r = uv_async_init(&loop->uv, &p->async, on_async);
    if (r != 0) {
        free(p);
        return hw_error_errno(e, -r, "worker pool %s: cannot make its wake-up; raise the limit on open files", name);
    }
    uv_unref((uv_handle_t *)&p->async);
    loop_name(loop, &p->named, p->name, &p->async);
    p->loop = loop;
    p->busy_max = threads + queue_max;
    snprintf(p->name, sizeof p->name, "%s", name);
    hw_defer_init(&p->closing, run_closing);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    STAILQ_INIT(&p->queue);
    STAILQ_INIT(&p->finished);
    r = start_threads(p, threads);
    if (r != 0) {
        hw_pool_free(p);
        return hw_error_errno(e, r, "worker pool %s: cannot start %u threads; raise the limit on tasks", name, threads);
    }
    *pool = p;
    return 0;
}

int hw_pool_submit(struct hw_pool *pool, struct hw_job *job)
{
    hw_assert(loop_is_own_thread(pool->loop));
    hw_assert(job->work != NULL && job->done != NULL);
    if (pool->state != OPEN) {
        return HW_ERR_UNAVAILABLE;
    }
    if (pool->busy >= pool->busy_max) {
        return HW_ERR_EXHAUSTED;
    }
    if (pool->busy++ == 0) {
        uv_ref((uv_handle_t *)&pool->async);
    }
    pthread_mutex_lock(&pool->lock);
    STAILQ_INSERT_TAIL(&pool->queue, job, link);
    pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    return 0;
}

unsigned hw_pool_busy(const struct hw_pool *pool)
{
    return pool->busy;
}

void hw_pool_shut(struct hw_pool *pool, void (*on_closed)(void *ctx), void *ctx)
{
    hw_assert(pool->state == OPEN);
    pool->state = SHUTTING;
    pool->on_closed = on_closed;
    pool->ctx = ctx;
    if (pool->busy == 0) {
        hw_defer_post(pool->loop, &pool->closing);
    }
}

void hw_pool_free(struct hw_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    hw_assert(pool->state != SHUTTING);
    if (pool->state == CLOSED) {
        destroy(pool);
        return;
    }
    pool->free_on_close = true;
    close_now(pool);
}
