#include "cli/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/loop/pool.h"

#define FILE_BYTES_MAX 16384

static int add_endpoint(struct hw_ctl_settings *s, const char *text, size_t len, struct hw_error *e)
{
    char *address = s->endpoints[s->endpoint_count];
    char host[256];
    char port[16];
    if (len > 7 && strncmp(text, "http://", 7) == 0) {
        text += 7;
        len -= 7;
    }
    if (len > 8 && strncmp(text, "https://", 8) == 0) {
        return hw_error_set(e, HW_ERR_INVALID, "endpoint \"%.*s\": TLS is not offered; give host:port", (int)len, text);
    }
    if (s->endpoint_count == HW_CTL_ENDPOINTS_MAX) {
        return hw_error_set(e, HW_ERR_TOOBIG, "more than %d endpoints", HW_CTL_ENDPOINTS_MAX);
    }
    if (len == 0 || len > HW_CTL_ADDRESS_SIZE - 8) {
        return hw_error_set(e, HW_ERR_INVALID, "an endpoint is empty or longer than %d bytes", HW_CTL_ADDRESS_SIZE - 8);
    }
    snprintf(address, HW_CTL_ADDRESS_SIZE, "%.*s", (int)len, text);
    if (strchr(address, ':') == NULL || address[len - 1] == ']') {
        snprintf(address, HW_CTL_ADDRESS_SIZE, "%.*s:%s", (int)len, text, HW_CTL_PORT);
    }
    if (hw_address_split(address, host, sizeof host, port, sizeof port, e) != 0) {
        return hw_error_wrap(e, "endpoint \"%s\"", address);
    }
    s->endpoint_count++;
    return 0;
}

int hw_ctl_settings_endpoints(struct hw_ctl_settings *s, const char *list, struct hw_error *e)
{
    s->endpoint_count = 0;
    for (const char *p = list;;) {
        size_t skipped = strspn(p, " \t");
        size_t len = strcspn(p + skipped, ",");
        const char *next = p + skipped + len;
        size_t used = len;
        while (used > 0 && (p[skipped + used - 1] == ' ' || p[skipped + used - 1] == '\t')) {
            used--;
        }
        int rc = add_endpoint(s, p + skipped, used, e);
        if (rc != 0) {
            return rc;
        }
        if (*next == '\0') {
            return 0;
        }
        p = next + 1;
    }
}

static int set_output(struct hw_ctl_settings *s, const char *text, struct hw_error *e)
{
    static const char *const names[] = {[HW_CTL_TABLE] = "table", [HW_CTL_JSON] = "json", [HW_CTL_PLAIN] = "plain"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            s->output = (enum hw_ctl_output)i;
            return 0;
        }
    }
    return hw_error_set(e, HW_ERR_INVALID, "output is table, json or plain, not \"%.40s\"", text);
}

static int set_key(struct hw_ctl_settings *s, const char *key, const char *value, struct hw_error *e)
{
    int64_t number;
    if (strcmp(key, "endpoints") == 0) {
        return hw_ctl_settings_endpoints(s, value, e);
    }
    if (strcmp(key, "output") == 0) {
        return set_output(s, value, e);
    }
    if (strcmp(key, "timeout_ms") == 0) {
        if (!hw_ctl_is_number(value, 1, HW_CTL_TIMEOUT_MS_MAX, &number)) {
            return hw_error_set(e, HW_ERR_INVALID, "timeout_ms wants a number from 1 to %d, not \"%.40s\"",
                                HW_CTL_TIMEOUT_MS_MAX, value);
        }
        s->timeout_ms = (uint64_t)number;
        return 0;
    }
    return hw_error_set(e, HW_ERR_INVALID, "unknown key \"%.40s\"; known: endpoints, output, timeout_ms", key);
}

static char *trim(char *s)
{
    char *end;
    s += strspn(s, " \t\r");
    end = s + strlen(s);
    while (end > s && strchr(" \t\r", end[-1]) != NULL) {
        *--end = '\0';
    }
    return s;
}

int hw_ctl_settings_parse(struct hw_ctl_settings *s, const char *name, const char *text, struct hw_error *e)
{
    unsigned line_number = 0;
    for (const char *p = text; *p != '\0';) {
        char line[HW_CTL_ENDPOINTS_MAX * HW_CTL_ADDRESS_SIZE];
        size_t len = strcspn(p, "\n");
        char *key;
        char *equals;
        line_number++;
        if (len >= sizeof line) {
            return hw_error_set(e, HW_ERR_TOOBIG, "%s:%u: line is too long", name, line_number);
        }
        memcpy(line, p, len);
        line[len] = '\0';
        p += len + (p[len] == '\n');
        key = trim(line);
        if (*key == '\0' || *key == '#') {
            continue;
        }
        equals = strchr(key, '=');
        if (equals == NULL) {
            return hw_error_set(e, HW_ERR_INVALID, "%s:%u: want key=value", name, line_number);
        }
        *equals = '\0';
        if (set_key(s, trim(key), trim(equals + 1), e) != 0) {
            return hw_error_wrap(e, "%s:%u", name, line_number);
        }
    }
    return 0;
}

static int load_file(struct hw_ctl_settings *s, const char *path, bool must_exist, struct hw_error *e)
{
    char text[FILE_BYTES_MAX];
    FILE *f = fopen(path, "re");
    size_t len;
    int failed;
    if (f == NULL) {
        return errno == ENOENT && !must_exist ? 0 : hw_error_errno(e, errno, "open the configuration %s", path);
    }
    errno = 0;
    len = fread(text, 1, sizeof text, f);
    failed = ferror(f) != 0 ? errno : 0;
    fclose(f);
    if (failed != 0) {
        return hw_error_errno(e, failed, "read the configuration %s", path);
    }
    if (len == sizeof text) {
        return hw_error_set(e, HW_ERR_TOOBIG, "the configuration %s is longer than %d bytes", path, FILE_BYTES_MAX - 1);
    }
    text[len] = '\0';
    return hw_ctl_settings_parse(s, path, text, e);
}

static int load_default_file(struct hw_ctl_settings *s, char *(*get_env)(const char *name), struct hw_error *e)
{
    char path[1024];
    const char *base = get_env("XDG_CONFIG_HOME");
    const char *home = get_env("HOME");
    if (base != NULL && base[0] == '/') {
        snprintf(path, sizeof path, "%s/hwctl/config", base);
    } else if (home != NULL && home[0] == '/') {
        snprintf(path, sizeof path, "%s/.config/hwctl/config", home);
    } else {
        return 0;
    }
    return load_file(s, path, false, e);
}

int hw_ctl_settings_load(const struct hw_ctl_args *args, char *(*get_env)(const char *name), struct hw_ctl_settings *s,
                         struct hw_error *e)
{
    const char *named = hw_ctl_text(args, "config", NULL);
    const char *env = get_env("HWCTL_ENDPOINTS");
    const char *output = hw_ctl_text(args, "output", NULL);
    int rc;
    memset(s, 0, sizeof *s);
    s->timeout_ms = HW_CTL_TIMEOUT_MS;
    rc = hw_ctl_settings_endpoints(s, "127.0.0.1:" HW_CTL_PORT, e);
    if (rc == 0) {
        rc = named != NULL ? load_file(s, named, true, e) : load_default_file(s, get_env, e);
    }
    if (rc == 0 && hw_ctl_is_set(args, "endpoints")) {
        rc = hw_ctl_settings_endpoints(s, hw_ctl_text(args, "endpoints", ""), e);
    } else if (rc == 0 && env != NULL && *env != '\0') {
        rc = hw_ctl_settings_endpoints(s, env, e);
        if (rc != 0) {
            hw_error_wrap(e, "HWCTL_ENDPOINTS");
        }
    }
    if (rc != 0) {
        return rc;
    }
    if (output != NULL) {
        set_output(s, output, NULL); /* the parser let only a known word through */
    }
    if (s->output == HW_CTL_PLAIN && args->command != NULL && !args->command->has_plain) {
        if (output != NULL) {
            return hw_error_set(e, HW_ERR_INVALID, "%s has no plain output; take table or json", args->command->name);
        }
        s->output = HW_CTL_TABLE;
    }
    s->timeout_ms = (uint64_t)hw_ctl_number(args, "timeout", (int64_t)s->timeout_ms);
    s->is_quiet = hw_ctl_is_set(args, "quiet");
    return 0;
}
