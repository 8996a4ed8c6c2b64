#include "cli/output.h"

#include <errno.h>
#include <libsmartcols/libsmartcols.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#include "agent/base/assert.h"

/* ---- tables ---- */

struct hw_ctl_table {
    struct libscols_table *table;
    struct libscols_line *last;
    unsigned columns;
};

struct hw_ctl_table *hw_ctl_table_new(struct hw_ctl *ctl, const char *const *headings)
{
    struct hw_ctl_table *t = calloc(1, sizeof *t);
    const char *no_color = ctl->env->get_env("NO_COLOR");
    hw_assert(t != NULL);
    t->table = scols_new_table();
    hw_assert(t->table != NULL);
    scols_table_set_stream(t->table, ctl->out);
    scols_table_set_termforce(t->table, SCOLS_TERMFORCE_NEVER);
    scols_table_set_column_separator(t->table, "  ");
    scols_table_enable_noencoding(t->table, 1); /* cells are escaped here, in hw_ctl_table_add */
    scols_table_enable_colors(t->table, ctl->env->out_is_tty && (no_color == NULL || *no_color == '\0'));
    for (; headings[t->columns] != NULL; t->columns++) {
        const char *name = headings[t->columns];
        bool is_right = name[0] == '>';
        hw_assert(scols_table_new_column(t->table, name + is_right, 0, is_right ? SCOLS_FL_RIGHT : 0) != NULL);
    }
    return t;
}

static bool has_control(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f) {
            return true;
        }
    }
    return false;
}

void hw_ctl_table_add(struct hw_ctl_table *t, const char *const *cells)
{
    struct hw_buf scratch = {0};
    t->last = scols_table_new_line(t->table, NULL);
    hw_assert(t->last != NULL);
    for (unsigned i = 0; i < t->columns; i++) {
        const char *cell = cells[i] != NULL ? cells[i] : "-";
        /* Texts of the wire may hold line ends and worse, which would break the table or the terminal. */
        if (has_control(cell)) {
            cell = hw_ctl_escaped(&scratch, cell, strlen(cell));
        }
        hw_assert(scols_line_set_data(t->last, i, cell) == 0);
    }
    hw_buf_free(&scratch);
}

void hw_ctl_table_color(struct hw_ctl_table *t, const char *color)
{
    scols_line_set_color(t->last, color);
}

void hw_ctl_table_print(struct hw_ctl_table *t)
{
    scols_print_table(t->table);
    hw_ctl_table_free(t);
}

void hw_ctl_table_free(struct hw_ctl_table *t)
{
    scols_unref_table(t->table);
    free(t);
}

/* ---- JSON ---- */

int hw_ctl_json_print(struct hw_ctl *ctl, json_t *value, struct hw_error *e)
{
    char *text = value != NULL ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(value);
    if (text == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "out of memory while making JSON");
    }
    fprintf(ctl->out, "%s\n", text);
    free(text);
    return 0;
}

json_t *hw_ctl_json_text(const char *text)
{
    json_t *value = json_string(text != NULL ? text : "");
    if (value == NULL) {
        struct hw_buf scratch = {0};
        for (const char *p = text; *p != '\0'; p++) {
            if ((unsigned char)*p < 0x80) {
                hw_buf_append(&scratch, p, 1);
            } else {
                hw_buf_printf(&scratch, "\\x%02x", (unsigned)(unsigned char)*p);
            }
        }
        value = scratch.failed ? NULL : json_stringn((const char *)scratch.data, scratch.len);
        hw_buf_free(&scratch);
    }
    return value;
}

json_t *hw_ctl_json_bytes(const void *data, size_t len)
{
    struct hw_buf scratch = {0};
    json_t *value;
    hw_ctl_base64(&scratch, data, len);
    value = scratch.failed ? NULL : json_stringn(scratch.len > 0 ? (const char *)scratch.data : "", scratch.len);
    hw_buf_free(&scratch);
    return value;
}

json_t *hw_ctl_json_hex(uint64_t v)
{
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)v);
    return json_string(text);
}

json_t *hw_ctl_json_number(uint64_t v)
{
    return json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v);
}

/* ---- bytes ---- */

static void escape_byte(struct hw_buf *out, uint8_t c)
{
    switch (c) {
    case '\n':
        hw_buf_append_str(out, "\\n");
        break;
    case '\t':
        hw_buf_append_str(out, "\\t");
        break;
    case '\\':
        hw_buf_append_str(out, "\\\\");
        break;
    default:
        hw_buf_printf(out, "\\x%02x", c);
    }
}

void hw_ctl_escape(struct hw_buf *out, const void *data, size_t len)
{
    const char *p = data;
    size_t left = len;
    while (left > 0) {
        mbstate_t state = {0};
        wchar_t wide = 0;
        size_t n = mbrtowc(&wide, p, left, &state);
        if (n == 0 || n > left) { /* NUL, or no character of this locale */
            escape_byte(out, (uint8_t)*p);
            n = 1;
        } else if (*p == '\\' || !iswprint((wint_t)wide)) {
            for (size_t i = 0; i < n; i++) {
                escape_byte(out, (uint8_t)p[i]);
            }
        } else {
            hw_buf_append(out, p, n);
        }
        p += n;
        left -= n;
    }
}

const char *hw_ctl_escaped(struct hw_buf *scratch, const void *data, size_t len)
{
    hw_buf_clear(scratch);
    hw_ctl_escape(scratch, data, len);
    hw_buf_append(scratch, "", 1);
    return scratch->failed ? "(out of memory)" : (const char *)scratch->data;
}

void hw_ctl_base64(struct hw_buf *out, const void *data, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i < 3 ? len - i : 3;
        uint32_t group = (uint32_t)p[i] << 16 | (n > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0);
        char quad[4] = {digits[group >> 18], digits[group >> 12 & 63], n > 1 ? digits[group >> 6 & 63] : '=',
                        n > 2 ? digits[group & 63] : '='};
        hw_buf_append(out, quad, sizeof quad);
    }
}

/* ---- sizes and ages ---- */

const char *hw_ctl_bytes_text(uint64_t bytes, char buf[HW_CTL_SHORT_SIZE])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    unsigned unit = 0;
    while (v >= 1024 && unit + 1 < hw_array_len(units)) {
        v /= 1024;
        unit++;
    }
    snprintf(buf, HW_CTL_SHORT_SIZE, unit == 0 ? "%.0f %s" : "%.1f %s", v, units[unit]);
    return buf;
}

const char *hw_ctl_age_text(uint64_t ms, char buf[HW_CTL_SHORT_SIZE])
{
    if (ms < 1000) {
        snprintf(buf, HW_CTL_SHORT_SIZE, "%llu ms", (unsigned long long)ms);
    } else if (ms < 120000) {
        snprintf(buf, HW_CTL_SHORT_SIZE, "%.1f s", (double)ms / 1000);
    } else if (ms < 7200000) {
        snprintf(buf, HW_CTL_SHORT_SIZE, "%llu min", (unsigned long long)(ms / 60000));
    } else if (ms < 172800000) {
        snprintf(buf, HW_CTL_SHORT_SIZE, "%llu h", (unsigned long long)(ms / 3600000));
    } else {
        snprintf(buf, HW_CTL_SHORT_SIZE, "%llu d", (unsigned long long)(ms / 86400000));
    }
    return buf;
}
