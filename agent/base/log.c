#include "agent/base/log.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/err.h"

#define OVERRIDES_MAX 16
#define COMPONENT_MAX 24

struct override {
    char component[COMPONENT_MAX];
    enum hw_level level;
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static enum hw_level default_level = HW_INFO;
static struct override overrides[OVERRIDES_MAX];
static size_t override_count;

static int parse_level(const char *s, size_t len, enum hw_level *out)
{
    for (size_t i = 0; i < hw_array_len(level_names); i++) {
        if (strlen(level_names[i]) == len && strncmp(level_names[i], s, len) == 0) {
            *out = (enum hw_level)i;
            return 0;
        }
    }
    return HW_ERR_INVALID;
}

bool hw_log_is_component(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)name[i]) && strchr("-_.", name[i]) == NULL) {
            return false;
        }
    }
    return len > 0;
}

int hw_log_configure(const char *spec)
{
    enum hw_level base = HW_INFO;
    struct override parsed[OVERRIDES_MAX];
    size_t count = 0;
    const char *p = spec;
    while (*p != '\0') {
        size_t len = strcspn(p, ",");
        const char *eq = memchr(p, '=', len);
        if (eq == NULL) {
            if (parse_level(p, len, &base) != 0) {
                return HW_ERR_INVALID;
            }
        } else {
            size_t name_len = (size_t)(eq - p);
            if (count == OVERRIDES_MAX || !hw_log_is_component(p, name_len) || name_len >= COMPONENT_MAX ||
                parse_level(eq + 1, len - name_len - 1, &parsed[count].level) != 0) {
                return HW_ERR_INVALID;
            }
            memcpy(parsed[count].component, p, name_len);
            parsed[count].component[name_len] = '\0';
            count++;
        }
        p += len;
        p += *p == ',';
    }
    default_level = base;
    memcpy(overrides, parsed, count * sizeof parsed[0]);
    override_count = count;
    return 0;
}

bool hw_log_is_on(enum hw_level level, const char *component)
{
    for (size_t i = 0; i < override_count; i++) {
        if (strcmp(overrides[i].component, component) == 0) {
            return level >= overrides[i].level;
        }
    }
    return level >= default_level;
}

const char *hw_logq_into(const char *text, char *buf, size_t size)
{
    size_t n = 0;
    if (size < 3) {
        return "\"\"";
    }
    if (text == NULL) {
        text = "";
    }
    buf[n++] = '"';
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0' && n + 4 < size; p++) {
        if (*p == '"' || *p == '\\') {
            buf[n++] = '\\';
            buf[n++] = (char)*p;
        } else if (*p == '\n') {
            buf[n++] = '\\';
            buf[n++] = 'n';
        } else {
            buf[n++] = (char)(*p < 0x20 || *p == 0x7f ? '?' : *p);
        }
    }
    buf[n++] = '"';
    buf[n] = '\0';
    return buf;
}

void hw_log(enum hw_level level, const char *component, const char *msg, const char *fields, ...)
{
    char line[HW_LOG_LINE_MAX];
    char when[HW_RFC3339_SIZE];
    size_t n;
    if (!hw_log_is_on(level, component)) {
        return;
    }
    n = (size_t)snprintf(line, sizeof line, "time=%s level=%s component=%s msg=\"%s\"", hw_rfc3339(hw_wall_ms(), when),
                         level_names[level], component, msg);
    if (n < sizeof line - 2 && fields != NULL && fields[0] != '\0') {
        va_list ap;
        int more;
        line[n++] = ' ';
        va_start(ap, fields);
        more = vsnprintf(line + n, sizeof line - n, fields, ap);
        va_end(ap);
        n += more < 0 ? 0 : (size_t)more;
    }
    if (n > sizeof line - 2) {
        n = sizeof line - 2;
    }
    line[n++] = '\n';
    while (write(STDERR_FILENO, line, n) < 0) {
        break; /* nowhere to say it */
    }
}
