#include "agent/base/clock.h"
#include "agent/replica/replica.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "storage/warm/image.h"
#include "tests/unit/agent/replica/rig.h"

static const char *path_of(struct rrig *r, const char *name)
{
    static char path[4][512];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", r->data, name);
    return p;
}

/* ---- starting and stopping ---- */

static void what_was_written_is_there_after_a_restart(void)
{
    struct rrig r;
    struct hw_replica_status s;
    uint64_t epoch;
    rrig_open(&r);
    rrig_start_hot(&r);
    CHECK_EQ(hw_replica_hot_id(r.replica), RRIG_SELF);
    CHECK_EQ(rrig_put(&r, "a", "1"), 0);
    CHECK_STR(rrig_peek(&r, "a"), "1"); /* applied when acknowledged */
    CHECK_EQ(rrig_put(&r, "a", "2"), 0);
    CHECK_STR(rrig_get(&r, "a"), "2");
    CHECK_STR(rrig_get(&r, "b"), "");
    hw_replica_status(r.replica, &s);
    CHECK_STR(s.phase, "member");
    CHECK_EQ(s.epoch, s.view.term);
    epoch = s.epoch;
    rrig_stop(&r);
    for (int i = 0; i < 3; i++) {
        rrig_start_hot(&r);
        CHECK_STR(rrig_get(&r, "a"), "2");
        CHECK_EQ(hw_hot_revision(hw_replica_hot(r.replica)), 3);
        /* libraft elects the only voter without a new term, so a cluster of one keeps its epoch. */
        CHECK(hw_hot_epoch(hw_replica_hot(r.replica)) >= epoch);
        epoch = hw_hot_epoch(hw_replica_hot(r.replica));
        rrig_stop(&r);
    }
    rrig_close(&r);
}

/* The last checkpoint holds everything, so that the next start has nothing to replay but its own claim. */
static void an_orderly_stop_leaves_an_image_that_is_up_to_date(void)
{
    struct rrig r;
    struct hw_image *image;
    struct hw_image_meta meta;
    struct hw_error e = {0};
    uint64_t applied;
    rrig_open(&r);
    r.config.checkpoint_interval_ms = 60000;
    rrig_start_hot(&r);
    CHECK_EQ(rrig_put(&r, "a", "1"), 0);
    applied = hw_hot_applied(hw_replica_hot(r.replica));
    rrig_stop(&r);
    REQUIRE(hw_image_open_readonly(path_of(&r, HW_IMAGE_FILE), &image, &e) == 0);
    CHECK_EQ(hw_image_verify(image, &meta, &e), 0);
    CHECK_EQ(meta.counters.applied, applied);
    CHECK_EQ(meta.cluster_id, RRIG_CLUSTER);
    hw_image_close(image);
    rrig_close(&r);
}

static void stopping_during_the_start_is_in_order(void)
{
    for (unsigned turns = 0; turns < 6; turns++) {
        struct rrig r;
        rrig_open(&r);
        rrig_begin(&r);
        for (unsigned i = 0; i < turns; i++) {
            hw_loop_turn(r.loop, true);
        }
        rrig_stop(&r);
        rrig_start_hot(&r); /* nothing was left half-done */
        rrig_close(&r);
    }
}

/* ---- kill ---- */

/* The child writes as fast as it can and says how far it got; it ends in the middle, without a word to anybody. */
static void write_and_die(int fd, const char *data, unsigned keys, unsigned snapshot_threshold)
{
    struct rrig r;
    rrig_open(&r);
    snprintf(r.data, sizeof r.data, "%s", data);
    r.config.consensus.snapshot_threshold = snapshot_threshold;
    r.config.consensus.snapshot_trailing = 5;
    rrig_start_hot(&r);
    for (unsigned i = 0; i < keys; i++) {
        char key[32];
        char value[32];
        snprintf(key, sizeof key, "k%u", i % 17);
        snprintf(value, sizeof value, "v%u", i);
        if (rrig_put(&r, key, value) != 0 || write(fd, &i, sizeof i) != sizeof i) {
            _exit(1);
        }
    }
    kill(getpid(), SIGKILL);
    _exit(1);
}

static void a_kill_loses_nothing_that_was_acknowledged(void)
{
    struct rrig r;
    rrig_open(&r);
    for (unsigned round = 0; round < 3; round++) {
        unsigned last = 0;
        unsigned n = 0;
        int fds[2];
        int status;
        pid_t pid;
        REQUIRE(pipe(fds) == 0);
        fflush(NULL);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            close(fds[0]);
            write_and_die(fds[1], r.data, 60 + 31 * round, 20);
        }
        close(fds[1]);
        while (read(fds[0], &last, sizeof last) == sizeof last) {
            n++;
        }
        close(fds[0]);
        REQUIRE(waitpid(pid, &status, 0) == pid);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        CHECK_EQ(n, 60 + 31 * round);
        rrig_start_hot(&r);
        for (unsigned i = n - 17; i < n; i++) {
            char key[32];
            char value[32];
            snprintf(key, sizeof key, "k%u", i % 17);
            snprintf(value, sizeof value, "v%u", i);
            CHECK_STR(rrig_get(&r, key), value);
        }
        CHECK(hw_hot_check(hw_replica_hot(r.replica)) == NULL);
        rrig_stop(&r);
    }
    rrig_close(&r);
}

/* ---- damage ---- */

static void copy_file(const char *from, const char *to)
{
    char command[1200];
    snprintf(command, sizeof command, "cp %s %s", from, to);
    REQUIRE(system(command) == 0);
}

/* An image that was put back from somewhere else: the log no longer reaches down to it. */
static void an_image_older_than_its_log_is_refused(void)
{
    struct rrig r;
    rrig_open(&r);
    r.config.consensus.snapshot_threshold = 10;
    r.config.consensus.snapshot_trailing = 2;
    rrig_start_hot(&r);
    rrig_stop(&r);
    copy_file(path_of(&r, HW_IMAGE_FILE), path_of(&r, "old.db"));
    rrig_start_hot(&r);
    for (int i = 0; i < 60; i++) {
        CHECK_EQ(rrig_put(&r, "a", "x"), 0);
        if (i % 20 == 0) {
            rrig_turns(&r, 60); /* a snapshot waits for the next checkpoint */
        }
    }
    rrig_stop(&r);
    copy_file(path_of(&r, "old.db"), path_of(&r, HW_IMAGE_FILE));
    CHECK_EQ(rrig_start(&r), HW_ERR_CORRUPT);
    CHECK(strstr(r.start_why, "the image is older than its log") != NULL);
    CHECK(strstr(r.start_why, HW_IMAGE_FILE) != NULL);
    rrig_close(&r);
}

static void a_damaged_image_is_refused(void)
{
    struct rrig r;
    struct stat st;
    int fd;
    char noise[4096];
    rrig_open(&r);
    rrig_start_hot(&r);
    for (int i = 0; i < 40; i++) {
        CHECK_EQ(rrig_put(&r, "a", "some value"), 0);
    }
    rrig_stop(&r);
    memset(noise, 0x5a, sizeof noise);
    fd = open(path_of(&r, HW_IMAGE_FILE), O_WRONLY | O_CLOEXEC);
    REQUIRE(fd >= 0 && fstat(fd, &st) == 0);
    for (off_t at = 4096; at < st.st_size; at += 4096) {
        REQUIRE(pwrite(fd, noise, 2048, at) == 2048);
    }
    close(fd);
    CHECK_EQ(rrig_start(&r), HW_ERR_CORRUPT);
    CHECK(strncmp(r.start_why, "start: ", 7) == 0);
    CHECK(hw_replica_consensus(r.replica) == NULL); /* the log was not touched */
    rrig_close(&r);
}

static void the_image_of_another_cluster_is_refused(void)
{
    struct rrig r;
    rrig_open(&r);
    rrig_start_hot(&r);
    rrig_stop(&r);
    r.config.consensus.cluster_id = RRIG_CLUSTER + 1;
    CHECK_EQ(rrig_start(&r), HW_ERR_FOREIGN);
    rrig_close(&r);
}

/* ---- checkpoints ---- */

static void a_failing_checkpoint_holds_nothing_up_and_recovers(void)
{
    struct rrig r;
    struct hw_replica_status s;
    sqlite3 *lock = NULL;
    rrig_open(&r);
    rrig_start_hot(&r);
    CHECK_EQ(rrig_put(&r, "a", "1"), 0);
    CHECK(rrig_until_image(&r, hw_hot_applied(hw_replica_hot(r.replica))));
    REQUIRE(sqlite3_open(path_of(&r, HW_IMAGE_FILE), &lock) == SQLITE_OK);
    REQUIRE(sqlite3_exec(lock, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
    for (int i = 0; i < 400; i++) {
        CHECK_EQ(rrig_put(&r, "a", "2"), 0);
        rrig_turns(&r, 20);
        hw_replica_status(r.replica, &s);
        if (s.is_disk_failing) {
            break;
        }
    }
    CHECK(s.is_disk_failing);
    CHECK(s.disk_problem[0] != '\0');
    CHECK(s.image_index < s.applied_index);
    CHECK(s.image_age_ms > 0);
    CHECK(hw_replica_is_hot(r.replica));
    CHECK_EQ(rrig_put(&r, "a", "3"), 0);
    CHECK_STR(rrig_get(&r, "a"), "3");
    sqlite3_exec(lock, "ROLLBACK", NULL, NULL, NULL);
    sqlite3_close(lock);
    CHECK(rrig_until_image(&r, hw_hot_applied(hw_replica_hot(r.replica))));
    hw_replica_status(r.replica, &s);
    CHECK(!s.is_disk_failing);
    rrig_stop(&r);
    rrig_start_hot(&r);
    CHECK_STR(rrig_get(&r, "a"), "3");
    rrig_close(&r);
}

struct waited {
    struct hw_image_wait w;
    int ends;
    int status;
};

static void on_waited(struct hw_image_wait *w, int status)
{
    struct waited *x = hw_container_of(w, struct waited, w);
    x->ends++;
    x->status = status;
}

static void waiting_for_the_image(void)
{
    struct rrig r;
    struct hw_replica_status s;
    struct waited now = {.w.done = on_waited};
    struct waited past = {.w = {.done = on_waited, .index = 1}};
    struct waited future = {.w = {.done = on_waited, .index = 1000000}};
    uint64_t applied;
    rrig_open(&r);
    r.config.checkpoint_interval_ms = 60000; /* nobody else brings it up to date */
    rrig_start_hot(&r);
    CHECK_EQ(rrig_put(&r, "a", "1"), 0);
    applied = hw_hot_applied(hw_replica_hot(r.replica));
    CHECK_EQ(hw_replica_image_wait(r.replica, &future.w), 0);
    CHECK_EQ(hw_replica_image_wait(r.replica, &now.w), 0);
    CHECK_EQ(now.w.index, applied);
    CHECK_EQ(now.ends, 0); /* never within the call */
    CHECK(rrig_until(&r, &now.ends, 1));
    CHECK_EQ(now.status, 0);
    hw_replica_status(r.replica, &s);
    CHECK(s.image_index >= applied);
    CHECK_EQ(hw_replica_image_wait(r.replica, &past.w), 0);
    CHECK_EQ(past.ends, 0);
    CHECK(rrig_until(&r, &past.ends, 1));
    CHECK_EQ(past.status, 0);
    CHECK_EQ(future.ends, 0);
    rrig_stop(&r);
    CHECK_EQ(future.ends, 1);
    CHECK_EQ(future.status, HW_ERR_CANCELLED);
    rrig_close(&r);
}

/* ---- limits ---- */

struct asked_read {
    struct hw_read rd;
    int ends;
    int status;
};

static void on_read(struct hw_read *rd, int status)
{
    struct asked_read *a = hw_container_of(rd, struct asked_read, rd);
    a->ends++;
    a->status = status;
}

static void reads_are_bounded(void)
{
    struct rrig r;
    struct asked_read a[4];
    rrig_open(&r);
    r.config.reads_max = 3;
    rrig_start_hot(&r);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 4; i++) {
            a[i] = (struct asked_read){.rd.done = on_read};
            CHECK_EQ(hw_replica_read(r.replica, &a[i].rd, 5000), i < 3 ? 0 : HW_ERR_EXHAUSTED);
        }
        for (int i = 0; i < 3; i++) {
            CHECK(rrig_until(&r, &a[i].ends, 1));
            CHECK_EQ(a[i].status, 0);
        }
        CHECK_EQ(a[3].ends, 0);
    }
    rrig_close(&r);
}

struct asked_forward {
    struct hw_forward f;
    int ends;
    enum hw_grpc status;
    char text[128];
};

static void on_forwarded(struct hw_forward *f, enum hw_grpc status, const char *text, struct hw_slice answer)
{
    struct asked_forward *a = hw_container_of(f, struct asked_forward, f);
    (void)answer;
    a->ends++;
    a->status = status;
    snprintf(a->text, sizeof a->text, "%s", text != NULL ? text : "");
    hw_buf_free(&f->payload);
}

static void forward_fill(struct asked_forward *a)
{
    memset(a, 0, sizeof *a);
    a->f.done = on_forwarded;
    a->f.method = "Put";
    hw_buf_append_str(&a->f.payload, "payload");
}

/* Two members, of which the other never comes: no leader, ever. */
static void without_a_hot_node_calls_wait_for_their_time_and_are_bounded(void)
{
    struct rrig r;
    struct asked_forward f[3];
    struct asked_read rd = {.rd.done = on_read};
    rrig_open(&r);
    r.config.forwards_max = 2;
    r.config.member_count = 2;
    r.config.members[1] = (struct hw_member){.id = 8, .address = "127.0.0.1:2", .role = HW_ROLE_VOTER};
    REQUIRE(rrig_start(&r) == 0);
    CHECK_EQ(rrig_put(&r, "a", "1"), HW_ERR_NOTHOT);
    CHECK_EQ(hw_replica_hot_id(r.replica), 0);
    CHECK(!hw_replica_is_reachable(r.replica, 8));
    CHECK(hw_replica_is_reachable(r.replica, RRIG_SELF));
    CHECK(hw_replica_channel(r.replica, 8) != NULL);
    CHECK(hw_replica_channel(r.replica, 9) == NULL);
    for (int i = 0; i < 3; i++) {
        forward_fill(&f[i]);
        CHECK_EQ(hw_replica_forward(r.replica, &f[i].f, i == 0 ? 50 : 60000), i < 2 ? 0 : HW_ERR_EXHAUSTED);
    }
    hw_buf_free(&f[2].f.payload);
    CHECK_EQ(hw_replica_read(r.replica, &rd.rd, 50), 0);
    CHECK(rrig_until(&r, &f[0].ends, 1));
    CHECK_EQ(f[0].status, HW_GRPC_UNAVAILABLE);
    CHECK_STR(f[0].text, "etcdserver: no leader");
    CHECK(rrig_until(&r, &rd.ends, 1));
    CHECK_EQ(rd.status, HW_ERR_UNAVAILABLE);
    CHECK_EQ(f[1].ends, 0);
    rrig_stop(&r);
    CHECK_EQ(f[1].ends, 1);
    CHECK_EQ(f[1].status, HW_GRPC_UNAVAILABLE);
    rrig_close(&r);
}

static void a_call_for_the_hot_node_on_the_hot_node_is_given_back(void)
{
    struct rrig r;
    struct asked_forward f;
    rrig_open(&r);
    rrig_start_hot(&r);
    forward_fill(&f);
    CHECK_EQ(hw_replica_forward(r.replica, &f.f, 5000), 0);
    CHECK(rrig_until(&r, &f.ends, 1));
    CHECK_EQ(f.status, HW_GRPC_ABORTED);
    CHECK_STR(f.text, HW_FORWARD_IS_LOCAL);
    rrig_close(&r);
}

static void reads_under_way_are_cancelled_by_the_stop(void)
{
    struct rrig r;
    struct asked_read a = {.rd.done = on_read};
    rrig_open(&r);
    rrig_start_hot(&r);
    CHECK_EQ(hw_replica_read(r.replica, &a.rd, 5000), 0);
    rrig_stop(&r);
    CHECK_EQ(a.ends, 1);
    CHECK_EQ(a.status, HW_ERR_CANCELLED);
    rrig_close(&r);
}

static void a_lost_quorum_is_named_with_the_voters_that_are_missing(void)
{
    struct rrig r;
    uint64_t end_ms = hw_mono_ms() + RRIG_PATIENCE_MS;
    const char *why;
    rrig_open(&r);
    r.config.member_count = 3;
    r.config.members[1] = (struct hw_member){.id = 0x21, .address = "127.0.0.1:2", .role = HW_ROLE_VOTER};
    r.config.members[2] = (struct hw_member){.id = 0x22, .address = "127.0.0.1:3", .role = HW_ROLE_VOTER};
    REQUIRE(rrig_start(&r) == 0);
    CHECK_STR(hw_replica_trouble(r.replica), "");
    while (hw_replica_trouble(r.replica)[0] == '\0' && hw_mono_ms() < end_ms) {
        hw_loop_turn(r.loop, true);
    }
    why = hw_replica_trouble(r.replica);
    CHECK(strstr(why, "1 of 3 voters are there, 2 are needed") != NULL);
    CHECK(strstr(why, "0000000000000021 (127.0.0.1:2, no answer)") != NULL);
    CHECK(strstr(why, "0000000000000022 (127.0.0.1:3, no answer)") != NULL);
    rrig_close(&r);
}

HW_SUITE(replica, HW_CASE(a_lost_quorum_is_named_with_the_voters_that_are_missing),
         HW_CASE(what_was_written_is_there_after_a_restart),
         HW_CASE(an_orderly_stop_leaves_an_image_that_is_up_to_date), HW_CASE(stopping_during_the_start_is_in_order),
         HW_CASE(a_kill_loses_nothing_that_was_acknowledged), HW_CASE(an_image_older_than_its_log_is_refused),
         HW_CASE(a_damaged_image_is_refused), HW_CASE(the_image_of_another_cluster_is_refused),
         HW_CASE(a_failing_checkpoint_holds_nothing_up_and_recovers), HW_CASE(waiting_for_the_image),
         HW_CASE(reads_are_bounded), HW_CASE(without_a_hot_node_calls_wait_for_their_time_and_are_bounded),
         HW_CASE(a_call_for_the_hot_node_on_the_hot_node_is_given_back),
         HW_CASE(reads_under_way_are_cancelled_by_the_stop))
