#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/settings.h"
#include "tests/unit/hw_test.h"

static char env_endpoints[256];
static char env_home[256];

static char *fake_env(const char *name)
{
    if (strcmp(name, "HWCTL_ENDPOINTS") == 0) {
        return env_endpoints;
    }
    return strcmp(name, "HOME") == 0 ? env_home : NULL;
}

static int load(struct hw_ctl_settings *s, struct hw_error *e, int argc, const char *const *argv)
{
    struct hw_ctl_args args;
    memset(e, 0, sizeof *e);
    REQUIRE(hw_ctl_parse(argc, argv, &args, e) == 0);
    return hw_ctl_settings_load(&args, fake_env, s, e);
}

static void write_config(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");
    REQUIRE(f != NULL);
    fputs(text, f);
    fclose(f);
}

static void flag_beats_environment_beats_file_beats_default(void)
{
    struct hw_ctl_settings s;
    struct hw_error e;
    char path[300];
    snprintf(env_home, sizeof env_home, "%s", hw_test_dir());
    env_endpoints[0] = '\0';
    CHECK_EQ(load(&s, &e, 2, (const char *const[]){"hwctl", "status"}), 0);
    CHECK_EQ(s.endpoint_count, 1);
    CHECK_STR(s.endpoints[0], "127.0.0.1:2379");
    CHECK_EQ(s.timeout_ms, 5000);
    snprintf(path, sizeof path, "%s/.config", env_home);
    CHECK_EQ(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/.config/hwctl", env_home);
    CHECK_EQ(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/.config/hwctl/config", env_home);
    write_config(path, "# mine\n\n endpoints = f1:1 , f2 \noutput=json\r\ntimeout_ms=77");
    CHECK_EQ(load(&s, &e, 2, (const char *const[]){"hwctl", "status"}), 0);
    CHECK_EQ(s.endpoint_count, 2);
    CHECK_STR(s.endpoints[0], "f1:1");
    CHECK_STR(s.endpoints[1], "f2:2379");
    CHECK_EQ(s.output, HW_CTL_JSON);
    CHECK_EQ(s.timeout_ms, 77);
    snprintf(env_endpoints, sizeof env_endpoints, "e1:1");
    CHECK_EQ(load(&s, &e, 2, (const char *const[]){"hwctl", "status"}), 0);
    CHECK_STR(s.endpoints[0], "e1:1");
    CHECK_EQ(
        load(&s, &e, 7, (const char *const[]){"hwctl", "status", "--endpoints=g", "-o", "table", "--timeout", "9"}), 0);
    CHECK_STR(s.endpoints[0], "g:2379");
    CHECK_EQ(s.output, HW_CTL_TABLE);
    CHECK_EQ(s.timeout_ms, 9);
    env_endpoints[0] = '\0';
}

static void a_named_file_must_be_there(void)
{
    struct hw_ctl_settings s;
    struct hw_error e;
    env_home[0] = '\0';
    CHECK_EQ(load(&s, &e, 3, (const char *const[]){"hwctl", "status", "--config=/nonexistent/c"}), HW_ERR_NOTFOUND);
    CHECK(strstr(e.text, "/nonexistent/c") != NULL);
}

static void a_wrong_line_is_named_with_its_number(void)
{
    static const struct {
        const char *text;
        const char *why;
    } cases[] = {
        {"output=json\nnonsense\n", "c:2: want key=value"},        {"colour=red", "c:1: unknown key \"colour\""},
        {"\n\ntimeout_ms=soon", "c:3: timeout_ms wants a number"}, {"timeout_ms=0", "c:1: timeout_ms wants a number"},
        {"output=xml", "c:1: output is table, json or plain"},     {"endpoints=a,,b", "c:1: an endpoint is empty"},
        {"endpoints=https://a:1", "TLS is not offered"},           {"endpoints=", "an endpoint is empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hw_ctl_settings s = {.timeout_ms = 1};
        struct hw_error e = {0};
        CHECK(hw_ctl_settings_parse(&s, "c", cases[i].text, &e) < 0);
        CHECK(strstr(e.text, cases[i].why) != NULL);
    }
}

static void endpoints_get_a_port_and_lose_their_scheme(void)
{
    struct hw_ctl_settings s = {.timeout_ms = 1};
    struct hw_error e = {0};
    CHECK_EQ(hw_ctl_settings_endpoints(&s, "http://a:1,b, [::1]:5,[::1]", &e), 0);
    CHECK_EQ(s.endpoint_count, 4);
    CHECK_STR(s.endpoints[0], "a:1");
    CHECK_STR(s.endpoints[1], "b:2379");
    CHECK_STR(s.endpoints[2], "[::1]:5");
    CHECK_STR(s.endpoints[3], "[::1]:2379");
    CHECK_EQ(hw_ctl_settings_endpoints(&s, "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a", &e), HW_ERR_TOOBIG);
    CHECK(hw_ctl_settings_endpoints(&s, "a:b:c", &e) < 0);
}

static void plain_output_is_for_get_only(void)
{
    struct hw_ctl_settings s;
    struct hw_error e;
    env_home[0] = '\0';
    CHECK_EQ(load(&s, &e, 5, (const char *const[]){"hwctl", "get", "k", "-o", "plain"}), 0);
    CHECK_EQ(s.output, HW_CTL_PLAIN);
    CHECK_EQ(load(&s, &e, 4, (const char *const[]){"hwctl", "status", "-o", "plain"}), HW_ERR_INVALID);
}

HW_SUITE(cli_settings, HW_CASE(flag_beats_environment_beats_file_beats_default), HW_CASE(a_named_file_must_be_there),
         HW_CASE(a_wrong_line_is_named_with_its_number), HW_CASE(endpoints_get_a_port_and_lose_their_scheme),
         HW_CASE(plain_output_is_for_get_only))
