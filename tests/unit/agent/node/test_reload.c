/* SIGHUP, on an agent of which only the loop, the worker and the configuration are there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/log.h"
#include "agent/node/node_impl.h"
#include "tests/unit/agent/loop/loop_test.h"

static struct hw_agent a;
static struct hw_node_options options;
static char path[256];

static void write_config(const char *rest)
{
    FILE *f = fopen(path, "w");
    REQUIRE(f != NULL);
    fprintf(f, "format: 1\ncluster:\n  name: test\n  voters: 1\nnode:\n  name: n1\n  data: /tmp/none\n%s", rest);
    fclose(f);
}

static void agent_open(const char *rest)
{
    struct hw_config_problems problems = {0};
    memset(&a, 0, sizeof a);
    snprintf(path, sizeof path, "%s/config.yaml", hw_test_dir());
    write_config(rest);
    REQUIRE(hw_config_load(path, &a.running, &problems) == 0);
    hw_config_problems_free(&problems);
    options.config_path = path;
    a.config = &a.running;
    a.options = &options;
    a.loop = test_loop_new();
    REQUIRE(hw_pool_new(a.loop, "reload", 1, 4, &a.resolver, NULL) == 0);
    REQUIRE(hw_log_configure("error") == 0);
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void agent_close(void)
{
    bool is_closed = false;
    hw_pool_shut(a.resolver, on_closed, &is_closed);
    CHECK(test_turn_until(a.loop, &is_closed));
    hw_pool_free(a.resolver);
    hw_loop_free(a.loop);
    CHECK_EQ(hw_log_configure(getenv("VERBOSE") != NULL ? "debug" : "error"), 0);
}

static void reload(void)
{
    hw_agent_on_reload_signal(&a, 1);
    while (a.reload != NULL) {
        hw_loop_turn(a.loop, true);
    }
}

static void what_can_change_changes_and_the_rest_stays(void)
{
    agent_open("log: {level: error}\n");
    write_config("log: {level: \"error,reload-test=debug\"}\nraft: {tick_ms: 20}\n");
    reload();
    CHECK_STR(a.running.log.level, "error,reload-test=debug");
    CHECK(hw_log_is_on(HW_DEBUG, "reload-test"));
    CHECK_EQ(a.running.raft.tick_ms, 10); /* needs a restart */
    agent_close();
}

static void a_refused_file_leaves_everything_as_it_was(void)
{
    agent_open("log: {level: error}\n");
    write_config("log: {level: info reload-test=debug}\nnonsense: 1\n");
    reload();
    CHECK_STR(a.running.log.level, "error");
    CHECK(!hw_log_is_on(HW_INFO, "reload-test"));
    remove(path);
    reload();
    CHECK_STR(a.running.log.level, "error");
    agent_close();
}

/* The file may change after it was read for the first signal. */
static void a_signal_during_a_reload_is_not_lost(void)
{
    agent_open("log: {level: error}\n");
    hw_agent_on_reload_signal(&a, 1);
    REQUIRE(a.reload != NULL);
    hw_agent_on_reload_signal(&a, 1);
    hw_agent_on_reload_signal(&a, 1);
    CHECK(a.is_reload_wanted);
    write_config("log: {level: warn}\n");
    while (a.reload != NULL) {
        hw_loop_turn(a.loop, true);
    }
    CHECK(!a.is_reload_wanted);
    CHECK_STR(a.running.log.level, "warn");
    agent_close();
}

static void without_a_file_or_while_stopping_nothing_is_read(void)
{
    agent_open("log: {level: error}\n");
    options.config_path = NULL;
    hw_agent_on_reload_signal(&a, 1);
    CHECK(a.reload == NULL);
    options.config_path = path;
    a.is_stopping = true;
    hw_agent_on_reload_signal(&a, 1);
    CHECK(a.reload == NULL);
    agent_close();
}

HW_SUITE(node_reload, HW_CASE(what_can_change_changes_and_the_rest_stays),
         HW_CASE(a_refused_file_leaves_everything_as_it_was), HW_CASE(a_signal_during_a_reload_is_not_lost),
         HW_CASE(without_a_file_or_while_stopping_nothing_is_read))
