#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/err.h"
#include "agent/base/log.h"
#include "tests/unit/hw_test.h"

struct capture {
    int pipe[2];
    int stderr_fd;
};

static void capture_begin(struct capture *c)
{
    REQUIRE(pipe(c->pipe) == 0);
    c->stderr_fd = dup(STDERR_FILENO);
    REQUIRE(c->stderr_fd >= 0);
    REQUIRE(dup2(c->pipe[1], STDERR_FILENO) == STDERR_FILENO);
}

/* What was logged since. */
static void capture_end(struct capture *c, char *text, size_t size)
{
    ssize_t n;
    REQUIRE(dup2(c->stderr_fd, STDERR_FILENO) == STDERR_FILENO);
    close(c->stderr_fd);
    close(c->pipe[1]);
    n = read(c->pipe[0], text, size - 1);
    text[n < 0 ? 0 : n] = '\0';
    close(c->pipe[0]);
}

/* The levels are the process's: whoever runs the suites may have set others. */
static enum hw_level level_now(void)
{
    enum hw_level level = HW_DEBUG;
    while (level < HW_ERROR && !hw_log_is_on(level, "of-no-component")) {
        level++;
    }
    return level;
}

static void level_restore(enum hw_level level)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    CHECK_EQ(hw_log_configure(names[level]), 0);
}

static void levels_are_parsed_or_left_as_they_were(void)
{
    static const struct {
        const char *spec;
        int rc;
    } rows[] = {
        {"", 0},
        {"debug", 0},
        {"error", 0},
        {"info,replica=debug", 0},
        {"replica=debug", 0},
        {"replica=debug,http=error,warn", 0},
        {"loud", HW_ERR_INVALID},
        {"INFO", HW_ERR_INVALID},
        {"info,", 0},
        {",info", HW_ERR_INVALID},
        {"=debug", HW_ERR_INVALID},
        {"replica=", HW_ERR_INVALID},
        {"replica=loud", HW_ERR_INVALID},
        {"info replica=debug", HW_ERR_INVALID},
        {"info, replica=debug", HW_ERR_INVALID},
        {"rep\tlica=debug", HW_ERR_INVALID},
        {"info;replica=debug", HW_ERR_INVALID},
        {"replica=debug=info", HW_ERR_INVALID},
        {"a-component-name-of-23b=info", 0},
        {"a-component-name-of-24by=info", HW_ERR_INVALID},
        {"a=info,b=info,c=info,d=info,e=info,f=info,g=info,h=info,i=info,j=info,k=info,l=info,m=info,n=info,o=info,p="
         "info",
         0},
        {"a=info,b=info,c=info,d=info,e=info,f=info,g=info,h=info,i=info,j=info,k=info,l=info,m=info,n=info,o=info,p="
         "info,"
         "q=info",
         HW_ERR_INVALID},
    };
    enum hw_level before = level_now();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_EQ(hw_log_configure("error,marker=debug"), 0);
        CHECK_EQ(hw_log_configure(rows[i].spec), rows[i].rc);
        CHECK_EQ(hw_log_is_on(HW_DEBUG, "marker"), rows[i].rc != 0 || strcmp(rows[i].spec, "debug") == 0);
    }
    level_restore(before);
}

static void a_level_holds_for_its_component(void)
{
    static const struct {
        const char *component;
        enum hw_level lowest;
    } rows[] = {{"replica", HW_DEBUG}, {"http", HW_ERROR}, {"other", HW_WARN}, {"replica2", HW_WARN}, {"", HW_WARN}};
    enum hw_level before = level_now();
    CHECK_EQ(hw_log_configure("replica=debug,warn,http=error"), 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (enum hw_level level = HW_DEBUG; level <= HW_ERROR; level++) {
            CHECK_EQ(hw_log_is_on(level, rows[i].component), level >= rows[i].lowest);
        }
    }
    level_restore(before);
}

static void a_line_is_one_event(void)
{
    struct capture c;
    char text[4096];
    enum hw_level before = level_now();
    CHECK_EQ(hw_log_configure("info,quiet=error,loud=debug"), 0);
    capture_begin(&c);
    hw_log_info("replica", "became hot", "epoch=%d name=%s", 7, "n1");
    hw_log_info("quiet", "not seen", NULL);
    hw_log_debug("replica", "not seen", "a=%d", 1);
    hw_log_debug("loud", "seen", "a=%d", 1);
    hw_log(HW_ERROR, "quiet", "no fields", NULL);
    hw_log(HW_WARN, "x", "empty fields", "%s", "");
    capture_end(&c, text, sizeof text);
    level_restore(before);
    static const char *const expected[] = {
        " level=info component=replica msg=\"became hot\" epoch=7 name=n1\n",
        " level=debug component=loud msg=\"seen\" a=1\n",
        " level=error component=quiet msg=\"no fields\"\n",
        " level=warn component=x msg=\"empty fields\" \n",
    };
    const char *at = text;
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        size_t stamp = strlen("time=2026-01-31T23:59:59.123Z");
        REQUIRE(strlen(at) > stamp);
        CHECK(strncmp(at, "time=2", 6) == 0 && at[stamp - 1] == 'Z');
        REQUIRE(strncmp(at + stamp, expected[i], strlen(expected[i])) == 0);
        at += stamp + strlen(expected[i]);
    }
    CHECK_STR(at, "");
}

static void a_long_line_is_cut_and_still_ends(void)
{
    struct capture c;
    char text[8192];
    char big[5000];
    enum hw_level before = level_now();
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    CHECK_EQ(hw_log_configure("info"), 0);
    capture_begin(&c);
    hw_log_info("a", "long fields", "text=%s", big);
    hw_log(HW_INFO, "a", big, "text=%s", big);
    capture_end(&c, text, sizeof text);
    level_restore(before);
    const char *end = strchr(text, '\n');
    REQUIRE(end != NULL);
    CHECK(end - text < HW_LOG_LINE_MAX && end - text > HW_LOG_LINE_MAX - 4);
    const char *second = end + 1;
    end = strchr(second, '\n');
    REQUIRE(end != NULL);
    CHECK(end - second < HW_LOG_LINE_MAX);
    CHECK_STR(end + 1, "");
}

static void quoting_leaves_nothing_that_breaks_a_line(void)
{
    static const struct {
        const char *text;
        size_t size;
        const char *quoted;
    } rows[] = {
        {NULL, 64, "\"\""},
        {"", 64, "\"\""},
        {"plain", 64, "\"plain\""},
        {"two words", 64, "\"two words\""},
        {"say \"hi\"", 64, "\"say \\\"hi\\\"\""},
        {"back\\slash", 64, "\"back\\\\slash\""},
        {"line\nline", 64, "\"line\\nline\""},
        {"\t\r\x01\x7f", 64, "\"????\""},
        {"gr\xc3\xbc\xc3\x9f", 64, "\"gr\xc3\xbc\xc3\x9f\""},
        {"abcdefgh", 8, "\"abc\""}, /* room is kept for an escape */
        {"\"\"\"\"\"\"", 8, "\"\\\"\\\"\""},
        {"abc", 4, "\"\""},
        {"abc", 3, "\"\""},
        {"abc", 2, "\"\""},
        {"abc", 0, "\"\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char buf[65];
        memset(buf, '#', sizeof buf);
        CHECK_STR(hw_logq_into(rows[i].text, buf, rows[i].size), rows[i].quoted);
        CHECK_EQ(buf[rows[i].size], '#');
    }
    CHECK_STR(hw_logq("a b"), "\"a b\"");
}

HW_SUITE(base_log, HW_CASE(levels_are_parsed_or_left_as_they_were), HW_CASE(a_level_holds_for_its_component),
         HW_CASE(a_line_is_one_event), HW_CASE(a_long_line_is_cut_and_still_ends),
         HW_CASE(quoting_leaves_nothing_that_breaks_a_line))
