#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "storage/warm/fs.h"
#include "storage/warm/identity.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/warm/fault.h"
#include "tests/unit/storage/warm/fixture.h"

static struct hw_identity forming(void)
{
    struct hw_identity id = {
        .state = HW_IDENTITY_FORMING, .cluster_id = 0xabcull, .raft_id = 2, .recovery = 3, .member_count = 2};
    snprintf(id.name, sizeof id.name, "%s", "beta");
    id.members[0].id = 1;
    snprintf(id.members[0].name, sizeof id.members[0].name, "%s", "alpha");
    snprintf(id.members[0].peer_address, sizeof id.members[0].peer_address, "%s", "alpha.example:2380");
    id.members[1].id = 2;
    snprintf(id.members[1].name, sizeof id.members[1].name, "%s", "beta");
    snprintf(id.members[1].peer_address, sizeof id.members[1].peer_address, "%s", "[::1]:2380");
    return id;
}

static struct hw_identity waiting(void)
{
    struct hw_identity id = {.state = HW_IDENTITY_WAITING};
    snprintf(id.name, sizeof id.name, "%s", "beta");
    return id;
}

static struct hw_datadir *open_dir(const char *path)
{
    struct hw_datadir *d = NULL;
    struct hw_error e = {0};
    int rc = hw_datadir_open(path, &d, &e);
    if (rc != 0) {
        printf("\n  %s\n", e.text);
    }
    REQUIRE(rc == 0);
    return d;
}

static void an_identity_comes_back_as_it_was_stored(void)
{
    struct hw_datadir *d = open_dir(fixture_path(hw_test_dir(), "data"));
    struct hw_identity in = forming();
    struct hw_identity out;
    struct hw_error e = {0};
    CHECK_EQ(hw_identity_load(d, &out, &e), HW_ERR_NOTFOUND);
    CHECK_EQ(hw_identity_store(d, &in, &e), 0);
    CHECK_EQ(hw_identity_load(d, &out, &e), 0);
    CHECK(memcmp(&in, &out, sizeof in) == 0);
    in = waiting();
    CHECK_EQ(hw_identity_store(d, &in, &e), 0);
    CHECK_EQ(hw_identity_load(d, &out, &e), 0);
    CHECK(memcmp(&in, &out, sizeof in) == 0);
    hw_datadir_close(d);
}

static void a_wrong_identity_is_not_written(void)
{
    struct hw_datadir *d = open_dir(fixture_path(hw_test_dir(), "data"));
    struct hw_identity good = forming();
    struct hw_identity bad[7];
    struct hw_identity out;
    CHECK_EQ(hw_identity_store(d, &good, NULL), 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bad[i] = good;
    }
    bad[0].name[0] = '\0';
    snprintf(bad[1].name, sizeof bad[1].name, "%s", "two words");
    bad[2].raft_id = 0;
    bad[3].member_count = 0;
    bad[4].members[1].id = 1;
    snprintf(bad[5].members[0].peer_address, sizeof bad[5].members[0].peer_address, "%s", "a\nstate=member");
    bad[6].state = 9;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_EQ(hw_identity_store(d, &bad[i], NULL), HW_ERR_INVALID);
    }
    CHECK_EQ(hw_identity_load(d, &out, NULL), 0);
    CHECK(memcmp(&good, &out, sizeof good) == 0);
    hw_datadir_close(d);
}

static void every_damage_is_refused_in_words(void)
{
    const char *folder = fixture_path(hw_test_dir(), "data");
    const char *path = fixture_path(folder, HW_IDENTITY_FILE);
    struct hw_datadir *d = open_dir(folder);
    struct hw_identity in = forming();
    struct hw_identity out;
    char *bytes;
    size_t len;
    CHECK_EQ(hw_identity_store(d, &in, NULL), 0);
    bytes = fixture_slurp(path, &len);
    for (size_t bit = 0; bit < len * 8; bit++) {
        struct hw_error e = {0};
        int rc;
        bytes[bit / 8] ^= (char)(1 << (bit % 8));
        fixture_spill(path, bytes, len);
        rc = hw_identity_load(d, &out, &e);
        /* The digit of "format=1" may turn into a larger one. */
        CHECK(rc == HW_ERR_CORRUPT || (rc == HW_ERR_VERSION && bit / 8 == 7));
        CHECK(strstr(e.text, path) != NULL);
        bytes[bit / 8] ^= (char)(1 << (bit % 8));
    }
    for (size_t cut = 0; cut < len; cut++) {
        fixture_spill(path, bytes, cut);
        CHECK_EQ(hw_identity_load(d, &out, NULL), HW_ERR_CORRUPT);
    }
    free(bytes);
    bytes = calloc(1, 200000);
    fixture_spill(path, bytes, 200000);
    CHECK_EQ(hw_identity_load(d, &out, NULL), HW_ERR_CORRUPT);
    free(bytes);
    hw_datadir_close(d);
}

static void a_newer_identity_is_refused_and_left_alone(void)
{
    static const char newer[] = "format=2\n{\"something\": \"else\"}\n";
    const char *folder = fixture_path(hw_test_dir(), "data");
    const char *path = fixture_path(folder, HW_IDENTITY_FILE);
    struct hw_datadir *d = open_dir(folder);
    struct hw_identity out;
    struct hw_error e = {0};
    char *bytes;
    size_t len;
    fixture_spill(path, newer, sizeof newer - 1);
    CHECK_EQ(hw_identity_load(d, &out, &e), HW_ERR_VERSION);
    CHECK(strstr(e.text, "newer HotWarm") != NULL);
    bytes = fixture_slurp(path, &len);
    CHECK(len == sizeof newer - 1 && memcmp(bytes, newer, len) == 0);
    free(bytes);
    hw_datadir_close(d);
}

static void a_failing_store_leaves_the_old_or_the_new(void)
{
    struct hw_datadir *d = open_dir(fixture_path(hw_test_dir(), "data"));
    struct hw_identity old = waiting();
    struct hw_identity new = forming();
    unsigned n = 1;
    fault_install();
    for (; n < 100; n++) {
        struct hw_identity out;
        struct hw_error e = {0};
        int rc;
        REQUIRE(hw_identity_store(d, &old, &e) == 0);
        fault_arm(n, FAULT_FOREVER);
        rc = hw_identity_store(d, &new, &e);
        fault_disarm();
        REQUIRE(hw_identity_load(d, &out, &e) == 0);
        CHECK(memcmp(&out, &new, sizeof out) == 0 || (rc != 0 && memcmp(&out, &old, sizeof out) == 0));
        if (!fault_was_hit()) {
            CHECK_EQ(rc, 0);
            break;
        }
    }
    CHECK(n > 4 && n < 100);
    fault_arm(1, FAULT_FULL);
    CHECK_EQ(hw_identity_store(d, &new, NULL), HW_ERR_NOSPACE);
    fault_disarm();
    hw_datadir_close(d);
}

static void a_folder_belongs_to_one_process(void)
{
    const char *path = fixture_path(hw_test_dir(), "data");
    struct hw_datadir *d = open_dir(path);
    struct hw_datadir *second;
    struct hw_error e = {0};
    struct stat st;
    char pid[32];
    int status = 0;
    pid_t child;
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0700);
    CHECK(hw_fs_is_there(fixture_path(path, HW_RAFT_FOLDER)));
    CHECK(hw_fs_is_there(fixture_path(path, HW_INCOMING_FOLDER)));
    CHECK_EQ(hw_datadir_open(path, &second, &e), HW_ERR_LOCKED);
    snprintf(pid, sizeof pid, "process %ld:", (long)getpid());
    CHECK(strstr(e.text, pid) != NULL);
    CHECK(strstr(e.text, "is another hwagent running?") != NULL);
    child = fork();
    if (child == 0) {
        _exit(hw_datadir_open(path, &second, NULL) == HW_ERR_LOCKED ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    hw_datadir_close(d);
    hw_datadir_close(open_dir(path));
}

static void the_lock_of_a_process_that_goes_away_is_waited_for(void)
{
    const char *path = fixture_path(hw_test_dir(), "data");
    struct hw_datadir *d;
    int ready[2];
    char byte;
    pid_t child;
    hw_datadir_close(open_dir(path));
    REQUIRE(pipe(ready) == 0);
    child = fork();
    if (child == 0) {
        bool is_held = hw_datadir_open(path, &d, NULL) == 0 && write(ready[1], "x", 1) == 1;
        usleep(300000);
        _exit(is_held ? 0 : 1);
    }
    REQUIRE(read(ready[0], &byte, 1) == 1);
    CHECK_EQ(hw_datadir_open(path, &d, NULL), 0);
    hw_datadir_close(d);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    close(ready[0]);
    close(ready[1]);
}

static void a_folder_that_cannot_be_used_is_refused(void)
{
    const char *dir = hw_test_dir();
    const char *file = fixture_path(dir, "file");
    const char *folder = fixture_path(dir, "data");
    struct hw_datadir *d;
    struct hw_error e = {0};
    CHECK_EQ(hw_datadir_open("", &d, &e), HW_ERR_INVALID);
    fixture_spill(file, "x", 1);
    CHECK_EQ(hw_datadir_open(file, &d, &e), HW_ERR_INVALID);
    CHECK_EQ(hw_datadir_open(fixture_path(dir, "no/such/data"), &d, &e), HW_ERR_NOTFOUND);
    /* The kernel refuses new files there even to root. */
    CHECK(hw_datadir_open("/proc/self", &d, &e) < 0);
    CHECK(strstr(e.text, "/proc/self") != NULL);
    hw_datadir_close(open_dir(folder));
    fault_install();
    fault_arm(1, FAULT_READONLY);
    CHECK_EQ(hw_datadir_open(folder, &d, &e), HW_ERR_READONLY);
    CHECK(strstr(e.text, "cannot be written") != NULL);
    fault_disarm();
}

static void only_stale_parts_are_removed(void)
{
    const char *folder = fixture_path(hw_test_dir(), "data");
    const char *old = fixture_path(folder, HW_INCOMING_FOLDER "/old.part");
    const char *young = fixture_path(folder, HW_INCOMING_FOLDER "/young.part");
    struct timespec times[2];
    hw_datadir_close(open_dir(folder));
    fixture_spill(old, "x", 1);
    fixture_spill(young, "x", 1);
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= (time_t)(HW_INCOMING_KEEP_MS / 1000) + 10;
    times[1] = times[0];
    REQUIRE(utimensat(AT_FDCWD, old, times, 0) == 0);
    hw_datadir_close(open_dir(folder));
    CHECK(!hw_fs_is_there(old));
    CHECK(hw_fs_is_there(young));
}

HW_SUITE(warm_identity, HW_CASE(an_identity_comes_back_as_it_was_stored), HW_CASE(a_wrong_identity_is_not_written),
         HW_CASE(every_damage_is_refused_in_words), HW_CASE(a_newer_identity_is_refused_and_left_alone),
         HW_CASE(a_failing_store_leaves_the_old_or_the_new), HW_CASE(a_folder_belongs_to_one_process),
         HW_CASE(the_lock_of_a_process_that_goes_away_is_waited_for), HW_CASE(a_folder_that_cannot_be_used_is_refused),
         HW_CASE(only_stale_parts_are_removed))
