#include "agent/config/value.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"

#define LEVEL_OVERRIDES_MAX 16 /* as agent/base/log has room for */
#define LEVEL_COMPONENT_MAX 23

#define quoted(text) hw_logq_into((text), (char[96]){0}, 96)
#define refuse(why, ...) (snprintf((why), HW_CONFIG_WHY_MAX, __VA_ARGS__), HW_ERR_INVALID)

static const char digits[] = "0123456789";
static const char name_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

static int parse_uint(const char *text, uint64_t *value, char *why)
{
    uint64_t v = 0;
    size_t len = strlen(text);
    if (len == 0 || strspn(text, digits) != len || (len > 1 && text[0] == '0')) {
        return refuse(why, "%s is not a plain whole number; write digits only, in the unit that the key names",
                      quoted(text));
    }
    for (const char *p = text; *p != '\0'; p++) {
        if (__builtin_mul_overflow(v, UINT64_C(10), &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v)) {
            return refuse(why, "%s does not fit into 64 bits", quoted(text));
        }
    }
    *value = v;
    return 0;
}

static int set_uint(uint64_t *field, const struct hw_config_row *row, const char *text, char *why)
{
    uint64_t v;
    if (parse_uint(text, &v, why) != 0) {
        return HW_ERR_INVALID;
    }
    if (v < row->min) {
        return refuse(why, "%" PRIu64 " is below the minimum %" PRIu64, v, row->min);
    }
    if (v > row->max) {
        return refuse(why, "%" PRIu64 " is above the maximum %" PRIu64, v, row->max);
    }
    *field = v;
    return 0;
}

static int set_bool(bool *field, const char *text, char *why)
{
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
        return refuse(why, "%s is neither true nor false", quoted(text));
    }
    *field = text[0] == 't';
    return 0;
}

static int check_name(const char *text, char *why)
{
    size_t ok = strspn(text, name_chars);
    if (text[ok] != '\0') {
        return refuse(why, "%s has something else than letters, digits, '-', '_' and '.' at position %zu", quoted(text),
                      ok + 1);
    }
    return 0;
}

static int check_path(const char *text, char *why)
{
    for (const char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            return refuse(why, "%s has a control character at position %zu", quoted(text), (size_t)(p - text) + 1);
        }
    }
    return 0;
}

static bool is_level(const char *text, size_t len)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    for (size_t i = 0; i < hw_array_len(levels); i++) {
        if (strlen(levels[i]) == len && memcmp(levels[i], text, len) == 0) {
            return true;
        }
    }
    return false;
}

/* hw_log_configure would take it into force at once; a check must not. */
static int check_levels(const char *text, char *why)
{
    size_t overrides = 0;
    for (const char *p = text;; p++) {
        size_t len = strcspn(p, ",");
        const char *eq = memchr(p, '=', len);
        size_t name_len = eq == NULL ? 0 : (size_t)(eq - p);
        const char *level = eq == NULL ? p : eq + 1;
        if (!is_level(level, len - (size_t)(level - p))) {
            return refuse(why, "%s is not LEVEL[,COMPONENT=LEVEL]... with the levels debug, info, warn and error",
                          quoted(text));
        }
        if (eq != NULL && (name_len == 0 || name_len > LEVEL_COMPONENT_MAX)) {
            return refuse(why, "%s names a component of %zu characters; 1 to %d are possible", quoted(text), name_len,
                          LEVEL_COMPONENT_MAX);
        }
        if (eq != NULL && !hw_log_is_component(p, name_len)) {
            return refuse(why,
                          "%s names a component \"%.*s\", but names have letters, digits, '-', '_' and '.' only; a "
                          "comma without a space stands between LEVEL and COMPONENT=LEVEL",
                          quoted(text), (int)name_len, p);
        }
        overrides += eq != NULL;
        if (overrides > LEVEL_OVERRIDES_MAX) {
            return refuse(why, "names more than %d components", LEVEL_OVERRIDES_MAX);
        }
        p += len;
        if (*p == '\0') {
            return 0;
        }
    }
}

static int check_host(const char *text, const char *host, bool is_bracketed, char *why)
{
    uint8_t raw[sizeof(struct in6_addr)];
    if (is_bracketed) {
        return inet_pton(AF_INET6, host, raw) == 1
                   ? 0
                   : refuse(why, "%s has no IPv6 address in its brackets", quoted(text));
    }
    if (strchr(host, ':') != NULL) {
        return refuse(why, "%s has more than one colon; an IPv6 address goes into brackets: [::1]:2379", quoted(text));
    }
    if (host[0] == '\0' || host[strspn(host, name_chars)] != '\0') {
        return refuse(why, "%s is not host:port with a host name or address", quoted(text));
    }
    if (host[strspn(host, "0123456789.")] == '\0' && inet_pton(AF_INET, host, raw) != 1) {
        return refuse(why, "%s has no valid IPv4 address before its colon", quoted(text));
    }
    return 0;
}

int hw_config_split(const char *text, struct hw_config_address *a, char why[HW_CONFIG_WHY_MAX])
{
    const char *colon = strrchr(text, ':');
    bool is_bracketed = text[0] == '[';
    const char *host = text + is_bracketed;
    const char *end = colon;
    uint64_t port = 0;
    if (colon == NULL || strlen(text) >= sizeof a->host) {
        return refuse(why, "%s is not host:port of at most %zu characters", quoted(text), sizeof a->host - 1);
    }
    if (is_bracketed) {
        if (colon < text + 2 || colon[-1] != ']') {
            return refuse(why, "%s is not [address]:port", quoted(text));
        }
        end = colon - 1;
    }
    memcpy(a->host, host, (size_t)(end - host));
    a->host[end - host] = '\0';
    if (check_host(text, a->host, is_bracketed, why) != 0) {
        return HW_ERR_INVALID;
    }
    if (parse_uint(colon + 1, &port, why) != 0 || port < 1 || port > 65535) {
        return refuse(why, "%s has no port from 1 to 65535 after its colon", quoted(text));
    }
    a->port = (unsigned)port;
    return 0;
}

bool hw_config_is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    if (inet_pton(AF_INET6, host, &v6) == 1) {
        return IN6_IS_ADDR_LOOPBACK(&v6);
    }
    return strcasecmp(host, "localhost") == 0;
}

bool hw_config_is_wildcard(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return v4.s_addr == 0;
    }
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6);
}

int hw_config_set_item(enum hw_config_type type, const char *text, char *out, size_t size, char why[HW_CONFIG_WHY_MAX])
{
    struct hw_config_address a;
    int rc = 0;
    if (text[0] == '\0') {
        return refuse(why, "is empty");
    }
    if (strlen(text) >= size) {
        return refuse(why, "%s has %zu characters; at most %zu are possible", quoted(text), strlen(text), size - 1);
    }
    switch (type) {
    case HW_CONFIG_NAME:
        rc = check_name(text, why);
        break;
    case HW_CONFIG_PATH:
        rc = check_path(text, why);
        break;
    case HW_CONFIG_ADDRESS:
        rc = hw_config_split(text, &a, why);
        break;
    case HW_CONFIG_LEVELS:
        rc = check_levels(text, why);
        break;
    default:
        hw_unreachable();
    }
    if (rc == 0) {
        memcpy(out, text, strlen(text) + 1);
    }
    return rc;
}

int hw_config_set(struct hw_config *c, const struct hw_config_row *row, const char *text, char why[HW_CONFIG_WHY_MAX])
{
    switch (row->type) {
    case HW_CONFIG_UINT:
        return set_uint(hw_config_field_mut(c, row), row, text, why);
    case HW_CONFIG_BOOL:
        return set_bool(hw_config_field_mut(c, row), text, why);
    default:
        return hw_config_set_item(row->type, text, hw_config_field_mut(c, row), row->size, why);
    }
}
