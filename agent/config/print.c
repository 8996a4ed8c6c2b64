/* What a configuration looks like to a person: as YAML, and as the difference of two. */
#include <inttypes.h>
#include <string.h>

#include "agent/config/config.h"
#include "agent/config/schema.h"

/* Texts have no control characters (value.c), so quotes and backslashes are all that needs an escape. */
static void print_text(const char *text, struct hw_buf *out)
{
    hw_buf_put_u8(out, '"');
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') {
            hw_buf_put_u8(out, '\\');
        }
        hw_buf_put_u8(out, (uint8_t)*p);
    }
    hw_buf_put_u8(out, '"');
}

static void print_list(const struct hw_config *c, const struct hw_config_row *row, struct hw_buf *out)
{
    bool is_peers = row->type == HW_CONFIG_PEERS;
    size_t count = is_peers ? c->members.initial_count : c->members.join_count;
    if (count == 0) {
        hw_buf_append_str(out, " []\n");
        return;
    }
    hw_buf_append_str(out, "\n");
    for (size_t i = 0; i < count; i++) {
        hw_buf_append_str(out, "    - ");
        if (is_peers) {
            hw_buf_append_str(out, "{name: ");
            print_text(c->members.initial[i].name, out);
            hw_buf_append_str(out, ", peer: ");
            print_text(c->members.initial[i].peer, out);
            hw_buf_append_str(out, "}");
        } else {
            print_text(c->members.join[i], out);
        }
        hw_buf_append_str(out, "\n");
    }
}

static void print_value(const struct hw_config *c, const struct hw_config_row *row, struct hw_buf *out)
{
    const void *field = hw_config_field(c, row);
    if (hw_config_is_list(row)) {
        print_list(c, row, out);
        return;
    }
    hw_buf_append_str(out, " ");
    if (row->type == HW_CONFIG_UINT) {
        hw_buf_printf(out, "%" PRIu64, *(const uint64_t *)field);
    } else if (row->type == HW_CONFIG_BOOL) {
        hw_buf_append_str(out, *(const bool *)field ? "true" : "false");
    } else {
        print_text(field, out);
    }
    hw_buf_append_str(out, "\n");
}

void hw_config_print(const struct hw_config *c, struct hw_buf *out)
{
    const char *group = "";
    size_t group_len = 0;
    for (size_t i = 0; i < hw_config_row_count; i++) {
        const struct hw_config_row *row = &hw_config_rows[i];
        const char *dot = strchr(row->key, '.');
        size_t len = dot == NULL ? 0 : (size_t)(dot - row->key);
        if (len > 0 && (len != group_len || strncmp(group, row->key, len) != 0)) {
            hw_buf_printf(out, "%.*s:\n", (int)len, row->key);
        }
        group = row->key;
        group_len = len;
        hw_buf_printf(out, "%s%s:", len > 0 ? "  " : "", dot == NULL ? row->key : dot + 1);
        print_value(c, row, out);
    }
}

static bool is_same_list(const struct hw_config *a, const struct hw_config *b, const struct hw_config_row *row)
{
    if (row->type == HW_CONFIG_PEERS) {
        if (a->members.initial_count != b->members.initial_count) {
            return false;
        }
        for (size_t i = 0; i < a->members.initial_count; i++) {
            if (strcmp(a->members.initial[i].name, b->members.initial[i].name) != 0 ||
                strcmp(a->members.initial[i].peer, b->members.initial[i].peer) != 0) {
                return false;
            }
        }
        return true;
    }
    if (a->members.join_count != b->members.join_count) {
        return false;
    }
    for (size_t i = 0; i < a->members.join_count; i++) {
        if (strcmp(a->members.join[i], b->members.join[i]) != 0) {
            return false;
        }
    }
    return true;
}

static bool is_same(const struct hw_config *a, const struct hw_config *b, const struct hw_config_row *row)
{
    const void *x = hw_config_field(a, row);
    const void *y = hw_config_field(b, row);
    if (hw_config_is_list(row)) {
        return is_same_list(a, b, row);
    }
    if (row->type == HW_CONFIG_UINT) {
        return *(const uint64_t *)x == *(const uint64_t *)y;
    }
    if (row->type == HW_CONFIG_BOOL) {
        return *(const bool *)x == *(const bool *)y;
    }
    return strcmp(x, y) == 0;
}

void hw_config_diff(const struct hw_config *running, const struct hw_config *fresh, struct hw_buf *reloadable,
                    struct hw_buf *restart)
{
    for (size_t i = 0; i < hw_config_row_count; i++) {
        const struct hw_config_row *row = &hw_config_rows[i];
        if (!is_same(running, fresh, row)) {
            struct hw_buf *out = row->reloadable ? reloadable : restart;
            hw_buf_printf(out, "%s%s", out->len > 0 ? ", " : "", row->key);
        }
    }
}
