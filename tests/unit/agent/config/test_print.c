#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config/config.h"
#include "agent/config/schema.h"
#include "tests/unit/hw_test.h"

static const char full[] = "cluster:\n"
                           "  name: shop\n"
                           "  initial:\n"
                           "    - {name: a, peer: \"10.0.0.1:2380\"}\n"
                           "    - {name: b, peer: \"[fd00::2]:2380\"}\n"
                           "  voters: 1\n"
                           "node: {name: a, data: \"/var/lib/\\\"hot\\\" \\\\ warm: é#\"}\n"
                           "listen: {peer: \"10.0.0.1:2380\"}\n"
                           "insecure: true\n"
                           "image: {checkpoint_dirty_bytes: 17179869184}\n"
                           "log: {level: \"info,replica=debug\"}\n";

static bool parse(const char *text, size_t len, struct hw_config *c)
{
    struct hw_config_problems p;
    int rc = hw_config_parse("f", text, len, c, &p);
    if (rc != 0 && p.count > 0) {
        printf("%s", (const char *)p.text.data);
    }
    hw_config_problems_free(&p);
    return rc == 0;
}

static void what_is_printed_is_read_back(void)
{
    struct hw_config a;
    struct hw_config b;
    struct hw_buf first = {0};
    struct hw_buf second = {0};
    struct hw_buf diff = {0};
    REQUIRE(parse(full, strlen(full), &a));
    hw_config_print(&a, &first);
    REQUIRE(parse((const char *)first.data, first.len, &b));
    hw_config_diff(&a, &b, &diff, &diff);
    CHECK_EQ(diff.len, 0);
    CHECK_STR(b.node.data, "/var/lib/\"hot\" \\ warm: é#");
    CHECK_EQ(b.members.initial_count, 2);
    CHECK_STR(b.members.initial[1].peer, "[fd00::2]:2380");
    hw_config_print(&b, &second);
    CHECK(hw_slice_is_equal(hw_buf_slice(&first), hw_buf_slice(&second)));
    hw_buf_free(&first);
    hw_buf_free(&second);
    hw_buf_free(&diff);
}

static void join_is_printed_and_compared(void)
{
    static const char text[] = "cluster: {name: c, join: [\"h:1\", \"[::1]:2\"]}\nnode: {name: a, data: d}\n";
    struct hw_config a;
    struct hw_config b;
    struct hw_buf out = {0};
    struct hw_buf diff = {0};
    REQUIRE(parse(text, strlen(text), &a));
    hw_config_print(&a, &out);
    REQUIRE(parse((const char *)out.data, out.len, &b));
    CHECK_EQ(b.members.join_count, 2);
    CHECK_STR(b.members.join[1], "[::1]:2");
    hw_config_diff(&a, &b, &diff, &diff);
    CHECK_EQ(diff.len, 0);
    b.members.join[1][1] = '2';
    hw_config_diff(&a, &b, &diff, &diff);
    CHECK(hw_slice_is_equal(hw_buf_slice(&diff), hw_slice_str("cluster.join")));
    hw_buf_free(&out);
    hw_buf_free(&diff);
}

static void print_names_every_group_once(void)
{
    struct hw_config c;
    struct hw_buf out = {0};
    REQUIRE(parse(full, strlen(full), &c));
    hw_config_print(&c, &out);
    hw_buf_put_u8(&out, 0);
    CHECK(strstr((const char *)out.data, "format: 1\ncluster:\n  name: \"shop\"\n  initial:\n    - {name: \"a\", "
                                         "peer: \"10.0.0.1:2380\"}\n") == (const char *)out.data);
    CHECK(strstr((const char *)out.data, "  join: []\n  voters: 1\nnode:\n") != NULL);
    CHECK(strstr((const char *)out.data, "log:\n  level: \"info,replica=debug\"\n  stall_budget_ms: 10\n"
                                         "stop_timeout_ms: 10000\n") != NULL);
    hw_buf_free(&out);
}

static void check_diff(const struct hw_config *a, const struct hw_config *b, const char *reloadable,
                       const char *restart)
{
    struct hw_buf x = {0};
    struct hw_buf y = {0};
    hw_config_diff(a, b, &x, &y);
    hw_buf_put_u8(&x, 0);
    hw_buf_put_u8(&y, 0);
    CHECK_STR((const char *)x.data, reloadable);
    CHECK_STR((const char *)y.data, restart);
    hw_buf_free(&x);
    hw_buf_free(&y);
}

static void diff_tells_reload_from_restart(void)
{
    struct hw_config a;
    struct hw_config b;
    REQUIRE(parse(full, strlen(full), &a));
    b = a;
    check_diff(&a, &b, "", "");
    snprintf(b.log.level, sizeof b.log.level, "debug");
    check_diff(&a, &b, "log.level", "");
    b.raft.tick_ms = 9;
    b.insecure = false;
    snprintf(b.members.initial[1].peer, sizeof b.members.initial[1].peer, "h:1");
    snprintf(b.members.join[0], sizeof b.members.join[0], "h:1");
    check_diff(&a, &b, "log.level", "cluster.initial, insecure, raft.tick_ms");
    b.members.join_count = 1;
    b.members.initial_count = 1;
    check_diff(&b, &a, "log.level", "cluster.initial, cluster.join, insecure, raft.tick_ms");
}

/* A key that the table does not name could be set by nobody. */
static void the_table_covers_the_struct(void)
{
    struct hw_config c;
    unsigned char *bytes = (unsigned char *)&c;
    size_t uncovered = 0;
    memset(&c, 0, sizeof c);
    for (size_t i = 0; i < hw_config_row_count; i++) {
        memset(hw_config_field_mut(&c, &hw_config_rows[i]), 0xff, hw_config_rows[i].size);
        CHECK(strlen(hw_config_rows[i].key) < HW_CONFIG_KEY_MAX);
        CHECK(hw_config_rows[i].help != NULL && strchr(hw_config_rows[i].help, '|') == NULL);
        CHECK_EQ(hw_config_find(hw_config_rows[i].key), &hw_config_rows[i]);
    }
    memset(&c.members.initial_count, 0xff, sizeof c.members.initial_count);
    memset(&c.members.join_count, 0xff, sizeof c.members.join_count);
    for (size_t i = 0; i < sizeof c; i++) {
        uncovered += bytes[i] == 0;
    }
    CHECK_EQ(uncovered, 7); /* the padding behind `insecure` */
}

static void every_default_is_within_its_range(void)
{
    struct hw_config c;
    hw_config_default(&c);
    for (size_t i = 0; i < hw_config_row_count; i++) {
        const struct hw_config_row *row = &hw_config_rows[i];
        if (row->type == HW_CONFIG_UINT) {
            CHECK(row->min <= row->def && row->def <= row->max);
            CHECK_EQ(*(const uint64_t *)hw_config_field(&c, row), row->def);
        }
    }
    CHECK_STR(c.advertise.client, c.listen.client);
}

static void reference_mentions_every_key(void)
{
    struct hw_buf out = {0};
    hw_config_reference(&out);
    hw_buf_put_u8(&out, 0);
    REQUIRE(!out.failed);
    for (size_t i = 0; i < hw_config_row_count; i++) {
        char cell[128];
        snprintf(cell, sizeof cell, "\n| `%s` | ", hw_config_rows[i].key);
        CHECK(strstr((const char *)out.data, cell) != NULL);
    }
    hw_buf_free(&out);
}

static void the_example_of_the_reference_is_valid(void)
{
    struct hw_buf out = {0};
    struct hw_config c;
    const char *begin;
    const char *end;
    hw_config_reference(&out);
    hw_buf_put_u8(&out, 0);
    begin = strstr((const char *)out.data, "```yaml\n");
    REQUIRE(begin != NULL);
    begin += strlen("```yaml\n");
    end = strstr(begin, "```");
    REQUIRE(end != NULL);
    CHECK(parse(begin, (size_t)(end - begin), &c));
    CHECK_EQ(c.members.initial_count, 3);
    hw_buf_free(&out);
}

/* Run from the root of the tree, as `make unit` does. */
static void the_page_in_docs_is_what_the_program_writes(void)
{
    struct hw_buf out = {0};
    char page[65536];
    size_t len;
    FILE *f = fopen("docs/config.md", "r");
    REQUIRE(f != NULL);
    len = fread(page, 1, sizeof page, f);
    fclose(f);
    hw_config_reference(&out);
    CHECK(hw_slice_is_equal(hw_slice_of(page, len), hw_buf_slice(&out)));
    hw_buf_free(&out);
}

HW_SUITE(config_print, HW_CASE(what_is_printed_is_read_back), HW_CASE(join_is_printed_and_compared),
         HW_CASE(print_names_every_group_once), HW_CASE(diff_tells_reload_from_restart),
         HW_CASE(the_table_covers_the_struct), HW_CASE(every_default_is_within_its_range),
         HW_CASE(reference_mentions_every_key), HW_CASE(the_example_of_the_reference_is_valid),
         HW_CASE(the_page_in_docs_is_what_the_program_writes))
