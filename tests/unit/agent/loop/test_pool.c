#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>

#include "tests/unit/agent/loop/loop_test.h"

struct work {
    struct hw_job job;
    sem_t *gate; /* waits for it when not NULL */
    unsigned id;
    bool is_done;
    char thread[16];
    bool takes_term;
};

static unsigned order[64];
static unsigned order_count;
static unsigned closed_count;

static void do_work(struct hw_job *job)
{
    struct work *w = hw_container_of(job, struct work, job);
    sigset_t set;
    prctl(PR_GET_NAME, w->thread);
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    w->takes_term = sigismember(&set, SIGTERM) == 0;
    if (w->gate != NULL) {
        while (sem_wait(w->gate) != 0) {
        }
    }
}

static void work_done(struct hw_job *job)
{
    struct work *w = hw_container_of(job, struct work, job);
    CHECK(!w->is_done);
    w->is_done = true;
    order[order_count++] = w->id;
}

static struct work work(unsigned id, sem_t *gate)
{
    return (struct work){.job = {.work = do_work, .done = work_done}, .gate = gate, .id = id};
}

static void on_closed(void *ctx)
{
    (void)ctx;
    closed_count++;
}

static struct hw_pool *pool_new(struct hw_loop *loop, unsigned threads, unsigned queue_max)
{
    struct hw_pool *pool = NULL;
    order_count = 0;
    closed_count = 0;
    CU_ASSERT_EQUAL_FATAL(hw_pool_new(loop, "test-pool", threads, queue_max, &pool, NULL), 0);
    return pool;
}

static void one_thread_keeps_the_order(void)
{
    struct hw_loop *loop = test_loop_new();
    struct hw_pool *pool = pool_new(loop, 1, 64);
    struct work w[50];
    for (unsigned i = 0; i < 50; i++) {
        w[i] = work(i, NULL);
        CHECK_EQ(hw_pool_submit(pool, &w[i].job), 0);
    }
    CHECK_EQ(hw_pool_busy(pool), 50);
    hw_loop_run(loop); /* ends: an idle pool does not keep the loop */
    CHECK_EQ(hw_pool_busy(pool), 0);
    CHECK_EQ(order_count, 50);
    for (unsigned i = 0; i < order_count; i++) {
        CHECK_EQ(order[i], i);
    }
    CHECK_STR(w[0].thread, "test-pool-0");
    CHECK(!w[0].takes_term);
    hw_pool_free(pool);
    hw_loop_free(loop);
}

static void a_full_queue_refuses_at_once(void)
{
    struct hw_loop *loop = test_loop_new();
    struct hw_pool *pool = pool_new(loop, 1, 2);
    struct work w[4];
    sem_t gate;
    sem_init(&gate, 0, 0);
    for (unsigned i = 0; i < 4; i++) {
        w[i] = work(i, &gate);
        CHECK_EQ(hw_pool_submit(pool, &w[i].job), i < 3 ? 0 : HW_ERR_EXHAUSTED);
    }
    for (unsigned i = 0; i < 3; i++) {
        sem_post(&gate);
    }
    hw_loop_run(loop);
    CHECK_EQ(order_count, 3);
    CHECK(!w[3].is_done);
    sem_post(&gate);
    CHECK_EQ(hw_pool_submit(pool, &w[3].job), 0);
    hw_loop_run(loop);
    CHECK(w[3].is_done);
    hw_pool_free(pool);
    hw_loop_free(loop);
    sem_destroy(&gate);
}

static void shut_lets_running_and_queued_jobs_finish(void)
{
    struct hw_loop *loop = test_loop_new();
    struct hw_pool *pool = pool_new(loop, 2, 8);
    struct work w[6];
    struct work late = work(9, NULL);
    sem_t gate;
    sem_init(&gate, 0, 0);
    for (unsigned i = 0; i < 6; i++) {
        w[i] = work(i, &gate);
        CHECK_EQ(hw_pool_submit(pool, &w[i].job), 0);
    }
    hw_pool_shut(pool, on_closed, NULL);
    CHECK_EQ(hw_pool_submit(pool, &late.job), HW_ERR_UNAVAILABLE);
    test_turn_for(loop, 20);
    CHECK_EQ(closed_count, 0);
    CHECK_EQ(hw_pool_busy(pool), 6);
    for (unsigned i = 0; i < 6; i++) {
        sem_post(&gate);
    }
    hw_loop_run(loop);
    CHECK_EQ(order_count, 6);
    CHECK_EQ(closed_count, 1);
    hw_pool_free(pool);
    hw_loop_free(loop);
    sem_destroy(&gate);
}

static void shut_of_an_idle_pool_calls_back_later(void)
{
    struct hw_loop *loop = test_loop_new();
    struct hw_pool *pool = pool_new(loop, 3, 1);
    hw_pool_shut(pool, on_closed, NULL);
    CHECK_EQ(closed_count, 0);
    hw_loop_run(loop);
    CHECK_EQ(closed_count, 1);
    hw_pool_free(pool);
    hw_pool_free(NULL);
    hw_loop_free(loop);
}

struct chain {
    struct hw_job job;
    struct hw_pool *pool;
    unsigned left;
};

static void chain_work(struct hw_job *job)
{
    (void)job;
}

static void chain_done(struct hw_job *job)
{
    struct chain *c = hw_container_of(job, struct chain, job);
    if (--c->left > 0) {
        CHECK_EQ(hw_pool_submit(c->pool, &c->job), 0);
    } else {
        hw_pool_shut(c->pool, on_closed, NULL);
    }
}

static void done_may_submit_the_same_job_again_and_shut(void)
{
    struct hw_loop *loop = test_loop_new();
    struct chain c = {.job = {.work = chain_work, .done = chain_done}, .left = 200};
    c.pool = pool_new(loop, 2, 0);
    CHECK_EQ(hw_pool_submit(c.pool, &c.job), 0);
    hw_loop_run(loop);
    CHECK_EQ(c.left, 0);
    CHECK_EQ(closed_count, 1);
    hw_pool_free(c.pool);
    hw_loop_free(loop);
}

/* ---- resolver ---- */

static bool resolved;
static int resolved_status;

static void on_resolved(struct hw_resolve *r, int status)
{
    (void)r;
    resolved = true;
    resolved_status = status;
}

static void check_resolves(struct hw_pool *pool, struct hw_loop *loop, const char *host, int family)
{
    struct hw_resolve r;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)r.address;
    resolved = false;
    CHECK_EQ(hw_resolve_start(loop, pool, &r, host, "2379", on_resolved), 0);
    CHECK(!resolved);
    REQUIRE(test_turn_until(loop, &resolved));
    CHECK_EQ(resolved_status, 0);
    CHECK_EQ(v4->sin_family, family);
    CHECK_EQ(ntohs(v4->sin_port), 2379);
    CHECK_EQ(r.address_len, family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
}

static void literals_and_localhost_need_no_worker(void)
{
    struct hw_loop *loop = test_loop_new();
    struct hw_resolve r;
    check_resolves(NULL, loop, "127.0.0.1", AF_INET);
    check_resolves(NULL, loop, "::1", AF_INET6);
    check_resolves(NULL, loop, "localhost", AF_INET);
    CHECK_EQ(hw_resolve_start(loop, NULL, &r, "db1.example", "1", on_resolved), HW_ERR_INVALID);
    CHECK_EQ(hw_resolve_start(loop, NULL, &r, "127.0.0.1", "http", on_resolved), HW_ERR_INVALID);
    CHECK_EQ(hw_resolve_start(loop, NULL, &r, "", "1", on_resolved), HW_ERR_INVALID);
    hw_loop_free(loop);
}

static void a_name_without_address_is_refused_in_words(void)
{
    struct hw_loop *loop = test_loop_new();
    struct hw_pool *pool = pool_new(loop, 1, 4);
    struct hw_resolve r;
    resolved = false;
    /* The dot at the front makes it malformed for every resolver, so that no server is asked. */
    CHECK_EQ(hw_resolve_start(loop, pool, &r, ".bad..name.invalid", "1", on_resolved), 0);
    REQUIRE(test_turn_until(loop, &resolved));
    CHECK(resolved_status < 0);
    CHECK(strlen(r.why) > 0);
    hw_pool_free(pool);
    hw_loop_free(loop);
}

static void addresses_are_split_or_refused_with_a_sentence(void)
{
    static const struct {
        const char *text;
        const char *host; /* NULL: refused */
        const char *port;
    } rows[] = {
        {"127.0.0.1:80", "127.0.0.1", "80"},
        {"[::1]:2379", "::1", "2379"},
        {"db1.example:0", "db1.example", "0"},
        {"[fe80::1%eth0]:1", "fe80::1%eth0", "1"},
        {"db1", NULL, NULL},
        {":80", NULL, NULL},
        {"db1:", NULL, NULL},
        {"::1:80", NULL, NULL},
        {"[::1]80", NULL, NULL},
        {"[::1", NULL, NULL},
        {"[]:80", NULL, NULL},
        {"[db1]:80", NULL, NULL},
        {"db1:http", NULL, NULL},
        {"db1:65536", NULL, NULL},
        {"db1:-1", NULL, NULL},
        {"", NULL, NULL},
        {"a-host-name-that-is-too-long-for-the-buffer:1", NULL, NULL},
        {"db1:00000000000000000000080", NULL, NULL},
    };
    for (size_t i = 0; i < hw_array_len(rows); i++) {
        char host[32];
        char port[8];
        struct hw_error e = {0};
        int r = hw_address_split(rows[i].text, host, sizeof host, port, sizeof port, &e);
        if (rows[i].host != NULL) {
            CHECK_EQ(r, 0);
            CHECK_STR(host, rows[i].host);
            CHECK_STR(port, rows[i].port);
        } else {
            CHECK_EQ(r, HW_ERR_INVALID);
            CHECK(strncmp(e.text, "address \"", 9) == 0);
        }
    }
}

static void loopback_hosts_are_known(void)
{
    CHECK(hw_address_is_loopback("127.0.0.1"));
    CHECK(hw_address_is_loopback("127.9.9.9"));
    CHECK(hw_address_is_loopback("::1"));
    CHECK(hw_address_is_loopback("LocalHost"));
    CHECK(hw_address_is_loopback("::ffff:127.0.0.1"));
    CHECK(!hw_address_is_loopback("0.0.0.0"));
    CHECK(!hw_address_is_loopback("::"));
    CHECK(!hw_address_is_loopback("128.0.0.1"));
    CHECK(!hw_address_is_loopback("localhost.example"));
    CHECK(!hw_address_is_loopback(""));
}

HW_SUITE(loop_pool, HW_CASE(one_thread_keeps_the_order), HW_CASE(a_full_queue_refuses_at_once),
         HW_CASE(shut_lets_running_and_queued_jobs_finish), HW_CASE(shut_of_an_idle_pool_calls_back_later),
         HW_CASE(done_may_submit_the_same_job_again_and_shut), HW_CASE(literals_and_localhost_need_no_worker),
         HW_CASE(a_name_without_address_is_refused_in_words), HW_CASE(addresses_are_split_or_refused_with_a_sentence),
         HW_CASE(loopback_hosts_are_known))
