#include <string.h>

#include "agent/base/log.h"
#include "agent/config/value.h"
#include "tests/unit/hw_test.h"

/* Two parsers of one syntax: what the configuration lets through, the log must take. */
static void levels_are_those_that_the_log_takes(void)
{
    static const struct {
        const char *text;
        bool is_good;
    } cases[] = {
        {"debug", true},
        {"info", true},
        {"warn,replica=debug", true},
        {"error,a=info,b=warn", true},
        {"replica=debug", true},
        {"loud", false},
        {"info,=debug", false},
        {"info,a=", false},
        {"info,a=loud", false},
        {"INFO", false},
        {"info replica=debug", false},
        {"info, replica=debug", false},
        {"info;a=debug", false},
        {"info ,a=debug", false},
        {"info,a12345678901234567890123=debug", false},
        {"info,a1234567890123456789012=debug", true},
        {"a=info,b=info,c=info,d=info,e=info,f=info,g=info,h=info,i=info,j=info,k=info,l=info,m=info,n=info,o=info,"
         "p=info",
         true},
        {"a=info,b=info,c=info,d=info,e=info,f=info,g=info,h=info,i=info,j=info,k=info,l=info,m=info,n=info,o=info,"
         "p=info,q=info",
         false},
    };
    const struct hw_config_row *row = hw_config_find("log.level");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hw_config c;
        char why[HW_CONFIG_WHY_MAX];
        CHECK_EQ(hw_config_set(&c, row, cases[i].text, why) == 0, cases[i].is_good);
        CHECK_EQ(hw_log_configure(cases[i].text) == 0, cases[i].is_good);
    }
    CHECK_EQ(hw_log_configure("info"), 0);
}

static void a_refused_value_leaves_the_field_alone(void)
{
    struct hw_config c;
    char why[HW_CONFIG_WHY_MAX];
    hw_config_default(&c);
    CHECK(hw_config_set(&c, hw_config_find("raft.tick_ms"), "0", why) != 0);
    CHECK_EQ(c.raft.tick_ms, 10);
    CHECK(hw_config_set(&c, hw_config_find("listen.client"), "h", why) != 0);
    CHECK_STR(c.listen.client, "127.0.0.1:2379");
    CHECK(hw_config_set(&c, hw_config_find("insecure"), "1", why) != 0);
    CHECK(!c.insecure);
}

static void an_address_is_taken_apart(void)
{
    struct hw_config_address a;
    char why[HW_CONFIG_WHY_MAX];
    CHECK_EQ(hw_config_split("node-1.example.org:65535", &a, why), 0);
    CHECK_STR(a.host, "node-1.example.org");
    CHECK_EQ(a.port, 65535);
    CHECK_EQ(hw_config_split("[fd00::1]:1", &a, why), 0);
    CHECK_STR(a.host, "fd00::1");
    CHECK_EQ(a.port, 1);
}

static void loopback_and_wildcard_are_told_apart(void)
{
    static const struct {
        const char *host;
        bool is_loopback;
        bool is_wildcard;
    } cases[] = {
        {"127.0.0.1", true, false},  {"127.255.0.9", true, false},      {"::1", true, false},
        {"localhost", true, false},  {"LocalHost", true, false},        {"0.0.0.0", false, true},
        {"::", false, true},         {"10.0.0.1", false, false},        {"fd00::1", false, false},
        {"128.0.0.1", false, false}, {"127.example.org", false, false}, {"localhost.example.org", false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_EQ(hw_config_is_loopback(cases[i].host), cases[i].is_loopback);
        CHECK_EQ(hw_config_is_wildcard(cases[i].host), cases[i].is_wildcard);
    }
}

static void an_environment_name_is_the_key_in_capitals(void)
{
    char name[HW_CONFIG_ENV_MAX];
    CHECK_STR(hw_config_env_name(hw_config_find("node.name"), name), "HOTWARM_NODE_NAME");
    CHECK_STR(hw_config_env_name(hw_config_find("stop_timeout_ms"), name), "HOTWARM_STOP_TIMEOUT_MS");
}

HW_SUITE(config_value, HW_CASE(levels_are_those_that_the_log_takes), HW_CASE(a_refused_value_leaves_the_field_alone),
         HW_CASE(an_address_is_taken_apart), HW_CASE(loopback_and_wildcard_are_told_apart),
         HW_CASE(an_environment_name_is_the_key_in_capitals))
