#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "tests/unit/hw_test.h"

static char *no_env(const char *name)
{
    (void)name;
    return NULL;
}

static char *no_color(const char *name)
{
    static char one[] = "1";
    return strcmp(name, "NO_COLOR") == 0 ? one : NULL;
}

static void bytes_become_printable(void)
{
    struct hw_buf b = {0};
    CHECK_STR(hw_ctl_escaped(&b, "plain text", 10), "plain text");
    CHECK_STR(hw_ctl_escaped(&b, "a\0b\n\t\\\x1b[31m\xff", 12), "a\\x00b\\n\\t\\\\\\x1b[31m\\xff");
    CHECK_STR(hw_ctl_escaped(&b, "", 0), "");
    hw_buf_free(&b);
}

static void base64_follows_rfc_4648(void)
{
    static const char *const cases[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"},
                                           {"\xff\xfe\xfd", "//79"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hw_buf b = {0};
        hw_ctl_base64(&b, cases[i][0], strlen(cases[i][0]));
        hw_buf_append(&b, "", 1);
        CHECK_STR((const char *)b.data, cases[i][1]);
        hw_buf_free(&b);
    }
}

static void sizes_and_ages_are_short(void)
{
    char b[HW_CTL_SHORT_SIZE];
    CHECK_STR(hw_ctl_bytes_text(0, b), "0 B");
    CHECK_STR(hw_ctl_bytes_text(1536, b), "1.5 KiB");
    CHECK_STR(hw_ctl_bytes_text(UINT64_MAX, b), "16.0 EiB");
    CHECK_STR(hw_ctl_age_text(999, b), "999 ms");
    CHECK_STR(hw_ctl_age_text(1500, b), "1.5 s");
    CHECK_STR(hw_ctl_age_text(300000, b), "5 min");
    CHECK_STR(hw_ctl_age_text(86400000, b), "24 h");
    CHECK_STR(hw_ctl_age_text(864000000, b), "10 d");
}

static char *print_table(char *(*get_env)(const char *), bool is_tty)
{
    static const char *const headings[] = {"A", ">N", "REST", NULL};
    char *text;
    size_t len;
    struct hw_ctl_env env = {.out = open_memstream(&text, &len), .out_is_tty = is_tty, .get_env = get_env};
    struct hw_ctl ctl = {.env = &env, .out = env.out};
    struct hw_ctl_table *t = hw_ctl_table_new(&ctl, headings);
    hw_ctl_table_add(t, (const char *[]){"long cell", "7", "two\nlines"});
    hw_ctl_table_add(t, (const char *[]){"x", NULL, "z"});
    hw_ctl_table_color(t, "red");
    hw_ctl_table_print(t);
    fclose(env.out);
    return text;
}

static void tables_are_aligned_and_colour_is_for_terminals(void)
{
    static const char plain[] = "A          N  REST\nlong cell  7  two\\nlines\nx          -  z\n";
    char *text = print_table(no_env, false);
    CHECK_STR(text, plain);
    free(text);
    text = print_table(no_color, true);
    CHECK_STR(text, plain);
    free(text);
    text = print_table(no_env, true);
    CHECK(strstr(text, "\033[") != NULL);
    free(text);
}

static void json_survives_text_that_is_not_utf8(void)
{
    json_t *v = hw_ctl_json_text("ok \xff");
    CHECK_STR(json_string_value(v), "ok \\xff");
    json_decref(v);
    v = hw_ctl_json_number(UINT64_MAX);
    CHECK_EQ(json_integer_value(v), INT64_MAX);
    json_decref(v);
}

HW_SUITE(cli_output, HW_CASE(bytes_become_printable), HW_CASE(base64_follows_rfc_4648),
         HW_CASE(sizes_and_ages_are_short), HW_CASE(tables_are_aligned_and_colour_is_for_terminals),
         HW_CASE(json_survives_text_that_is_not_utf8))
