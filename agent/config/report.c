#include "agent/config/report.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/err.h"

#define ORDER_ENV (INT_MAX - 1)
#define ORDER_NOWHERE INT_MAX
#define SENTENCE_MAX 1024

void hw_config_report_init(struct hw_config_report *r, const char *name)
{
    memset(r, 0, sizeof *r);
    r->name = name;
}

void hw_config_report_free(struct hw_config_report *r)
{
    hw_buf_free(&r->text);
}

static void add(struct hw_config_report *r, int order, const char *where, const char *key, const char *sentence)
{
    size_t offset = r->text.len;
    if (r->count == HW_CONFIG_PROBLEMS_MAX) {
        r->left_out++;
        return;
    }
    hw_buf_printf(&r->text, "%s: %s%s%s\n", where, key != NULL ? key : "", key != NULL ? ": " : "", sentence);
    r->items[r->count].order = order;
    r->items[r->count].offset = offset;
    r->items[r->count].len = r->text.len - offset;
    r->count++;
}

void hw_config_report_at(struct hw_config_report *r, int line, const char *key, const char *fmt, ...)
{
    char sentence[SENTENCE_MAX];
    char where[SENTENCE_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    if (line > 0) {
        snprintf(where, sizeof where, "%s:%d", r->name, line);
    } else {
        snprintf(where, sizeof where, "%s", r->name);
    }
    add(r, line > 0 ? line : ORDER_NOWHERE, where, key, sentence);
}

void hw_config_report_env(struct hw_config_report *r, const char *variable, const char *key, const char *fmt, ...)
{
    char sentence[SENTENCE_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    add(r, ORDER_ENV, variable, key, sentence);
}

int hw_config_report_done(struct hw_config_report *r, struct hw_config_problems *problems)
{
    struct hw_buf *out = &problems->text;
    hw_buf_init(out);
    problems->count = r->count + r->left_out;
    /* Insertion sort keeps the order of discovery within a line; the list is short. */
    for (size_t i = 1; i < r->count; i++) {
        for (size_t j = i; j > 0 && r->items[j - 1].order > r->items[j].order; j--) {
            __typeof__(r->items[0]) swap = r->items[j];
            r->items[j] = r->items[j - 1];
            r->items[j - 1] = swap;
        }
    }
    for (size_t i = 0; i < r->count && !r->text.failed; i++) {
        hw_buf_append(out, r->text.data + r->items[i].offset, r->items[i].len);
    }
    if (r->left_out > 0) {
        hw_buf_printf(out, "%s: %zu more problems are not listed\n", r->name, r->left_out);
    }
    hw_buf_put_u8(out, 0);
    if (out->failed || r->text.failed) {
        hw_buf_free(out);
        problems->count = 0;
        return HW_ERR_NOMEM;
    }
    out->len--;
    return 0;
}

void hw_config_problems_free(struct hw_config_problems *p)
{
    hw_buf_free(&p->text);
    p->count = 0;
}
