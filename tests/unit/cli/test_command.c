#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/help.h"
#include "tests/unit/cli/fixture.h"
#include "tests/unit/hw_test.h"

static int parse(struct hw_ctl_args *args, struct hw_error *e, int argc, const char *const *words)
{
    memset(e, 0, sizeof *e);
    return hw_ctl_parse(argc, words, args, e);
}
#define PARSE(...)                                                                           \
    parse(&args, &e, (int)(sizeof((const char *[]){"hwctl", __VA_ARGS__}) / sizeof(char *)), \
          (const char *[]){"hwctl", __VA_ARGS__, NULL})

static void flags_stand_before_or_after_the_command(void)
{
    struct hw_ctl_args args;
    struct hw_error e;
    CHECK_EQ(PARSE("-o", "json", "--timeout=20", "get", "k", "--limit", "3", "--prefix"), 0);
    CHECK_STR(args.command->name, "get");
    CHECK_STR(hw_ctl_text(&args, "output", ""), "json");
    CHECK_EQ(hw_ctl_number(&args, "timeout", 0), 20);
    CHECK_EQ(hw_ctl_number(&args, "limit", 0), 3);
    CHECK(hw_ctl_is_set(&args, "prefix") && !hw_ctl_is_set(&args, "keys-only"));
    CHECK_STR(hw_ctl_word(&args, 0), "k");
    CHECK(hw_ctl_word(&args, 1) == NULL);
    CHECK_EQ(PARSE("node", "-q", "add", "d", "1.2.3.4:2380", "-ojson"), 0);
    CHECK_STR(args.command->name, "node add");
    CHECK_STR(hw_ctl_text(&args, "output", ""), "json");
    CHECK(hw_ctl_is_set(&args, "quiet"));
}

static void two_dashes_end_the_flags(void)
{
    struct hw_ctl_args args;
    struct hw_error e;
    CHECK_EQ(PARSE("put", "--", "--prefix", "-"), 0);
    CHECK_STR(hw_ctl_word(&args, 0), "--prefix");
    CHECK_STR(hw_ctl_word(&args, 1), "-");
    CHECK_EQ(PARSE("put", "k", "-"), 0); /* a lone dash is a word */
    CHECK_STR(hw_ctl_word(&args, 1), "-");
}

static void watch_takes_a_number_or_none(void)
{
    struct hw_ctl_args args;
    struct hw_error e;
    CHECK_EQ(PARSE("status", "--watch"), 0);
    CHECK(hw_ctl_is_set(&args, "watch"));
    CHECK_EQ(PARSE("status", "--watch", "7"), 0);
    CHECK_EQ(hw_ctl_number(&args, "watch", 0), 7);
    CHECK_EQ(PARSE("status", "--watch", "-o", "json"), 0);
    CHECK_STR(hw_ctl_text(&args, "output", ""), "json");
}

static void wrong_command_lines_say_what_was_wanted(void)
{
    static const struct {
        const char *words[5];
        const char *why;
    } cases[] = {
        {{"staus"}, "did you mean \"status\""},
        {{"node", "lst"}, "did you mean \"node list\""},
        {{"snapshto"}, "did you mean \"snapshot\""},
        {{"xyzzy"}, "unknown command \"xyzzy\""},
        {{"node"}, "wants a sub-command"},
        {{"get"}, "hwctl get KEY [RANGE_END]"},
        {{"get", "a", "b", "c"}, "too many arguments at \"c\""},
        {{"get", "a", "--prefx"}, "did you mean --prefix"},
        {{"get", "a", "--limit"}, "--limit wants a value (N)"},
        {{"get", "a", "--limit", "0"}, "--limit wants a number from 1"},
        {{"get", "a", "--limit", "1x"}, "not \"1x\""},
        {{"get", "a", "--order", "up"}, "ascend|descend"},
        {{"get", "a", "--prefix=1"}, "--prefix takes no value"},
        {{"status", "-o", "yaml"}, "-o wants one of table|json|plain"},
        {{"--prefix", "get", "a"}, "before the command"},
        {{"-z", "get", "a"}, "no flag -z"},
        {{"status", "--watch=0"}, "from 1 to 86400"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *argv[7] = {"hwctl"};
        struct hw_ctl_args args;
        struct hw_error e;
        int argc = 1;
        while (argc < 6 && cases[i].words[argc - 1] != NULL) {
            argv[argc] = cases[i].words[argc - 1];
            argc++;
        }
        CHECK_EQ(parse(&args, &e, argc, argv), HW_ERR_INVALID);
        if (strstr(e.text, cases[i].why) == NULL) {
            fprintf(stderr, "case %zu: \"%s\" lacks \"%s\"\n", i, e.text, cases[i].why);
        }
        CHECK(strstr(e.text, cases[i].why) != NULL);
    }
}

static void help_needs_nothing_but_the_command(void)
{
    struct hw_ctl_args args;
    struct hw_error e;
    CHECK_EQ(PARSE("get", "--help"), 0);
    CHECK(args.is_help && args.command != NULL);
    CHECK_EQ(PARSE("node", "-h"), 0);
    CHECK(args.is_help && args.command == NULL);
    CHECK_STR(args.group, "node");
}

static void the_table_is_sound(void)
{
    for (const struct hw_ctl_command *c = hw_ctl_commands; c->name != NULL; c++) {
        unsigned count = 0;
        CHECK(hw_ctl_command_find(c->name) == c);
        CHECK(c->help != NULL && c->help[strlen(c->help) - 1] != '.' && c->run != NULL);
        CHECK(c->examples != NULL && c->examples[0] != NULL);
        for (const struct hw_ctl_flag *f = c->flags; f != NULL && f->name != NULL; f++, count++) {
            CHECK(strlen(f->name) <= 32 && f->help != NULL);
            for (const struct hw_ctl_flag *g = hw_ctl_globals; g->name != NULL; g++) {
                CHECK(strcmp(f->name, g->name) != 0 && (f->letter == '\0' || f->letter != g->letter));
            }
        }
        CHECK(count <= HW_CTL_FLAGS_MAX);
        for (unsigned i = 0; c->examples[i] != NULL; i++) {
            CHECK(strncmp(c->examples[i], c->name, strlen(c->name)) == 0);
        }
    }
}

/* The printed reference is the committed page: run `hwctl help --reference > docs/hwctl.md` after a change. */
static void docs_page_is_the_printed_reference(void)
{
    char *printed;
    size_t len;
    FILE *out = open_memstream(&printed, &len);
    FILE *page = fopen("docs/hwctl.md", "re");
    char *text;
    hw_ctl_help_reference(out);
    fclose(out);
    REQUIRE(page != NULL);
    text = calloc(1, len + 2);
    REQUIRE(text != NULL);
    CHECK_EQ(fread(text, 1, len + 1, page), len);
    CHECK(memcmp(text, printed, len) == 0);
    fclose(page);
    free(text);
    free(printed);
}

static void completion_knows_commands_and_flags(void)
{
    struct fixture *fx = fixture_new();
    fx->endpoints = "";
    CHECK_EQ(fixture_run(fx, "completion", NULL), 0);
    CHECK(strstr(fx->out, " status node switchover history recover get") != NULL);
    CHECK(strstr(fx->out, "\"node\") words=\"list add remove\"") != NULL);
    CHECK(strstr(fx->out, "\"snapshot\") words=\"save verify\"") != NULL);
    CHECK(strstr(fx->out, "--print-value-only") != NULL);
    CHECK(strstr(fx->out, "complete -F _hwctl hwctl") != NULL);
    fixture_free(fx);
}

static void help_and_usage_go_to_the_right_stream(void)
{
    struct fixture *fx = fixture_new();
    fx->endpoints = "";
    CHECK_EQ(fixture_run(fx, NULL), 2);
    CHECK(*fx->out == '\0' && strstr(fx->err, "Usage: hwctl") != NULL);
    CHECK_EQ(fixture_run(fx, "help", NULL), 0);
    CHECK(*fx->err == '\0' && strstr(fx->out, "Exit codes:") != NULL);
    CHECK_EQ(fixture_run(fx, "help", "node", "add", NULL), 0);
    CHECK(strstr(fx->out, "Usage: hwctl node add NAME PEER_ADDRESS") != NULL);
    CHECK_EQ(fixture_run(fx, "help", "node", NULL), 0);
    CHECK(strstr(fx->out, "node remove") != NULL && strstr(fx->out, "status") == NULL);
    CHECK_EQ(fixture_run(fx, "help", "gte", NULL), 2);
    CHECK_STR(fx->err,
              "hwctl: help: no command \"gte\"; did you mean \"get\"? Correct the command and run it again.\n");
    CHECK_EQ(fixture_run(fx, "get", "k", "--help", NULL), 0);
    CHECK(strstr(fx->out, "--print-value-only") != NULL);
    CHECK_EQ(fixture_run(fx, "staus", NULL), 2);
    CHECK_STR(fx->err, "hwctl: unknown command \"staus\"; did you mean \"status\"? See 'hwctl help'.\n");
    fixture_free(fx);
}

HW_SUITE(cli_command, HW_CASE(flags_stand_before_or_after_the_command), HW_CASE(two_dashes_end_the_flags),
         HW_CASE(watch_takes_a_number_or_none), HW_CASE(wrong_command_lines_say_what_was_wanted),
         HW_CASE(help_needs_nothing_but_the_command), HW_CASE(the_table_is_sound),
         HW_CASE(docs_page_is_the_printed_reference), HW_CASE(completion_knows_commands_and_flags),
         HW_CASE(help_and_usage_go_to_the_right_stream))
