#include "agent/rpc/header_rules.h"

#include <string.h>
#include <strings.h>

#include "agent/base/assert.h"

enum { METHOD = 1, PATH = 2, SCHEME = 4, AUTHORITY = 8 };

static bool is_text(struct hw_slice s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

static bool has_upper(struct hw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] >= 'A' && s.data[i] <= 'Z') {
            return true;
        }
    }
    return false;
}

static bool is_pseudo_good(struct hw_header_rules *r, unsigned bit, struct hw_slice value)
{
    switch (bit) {
    case METHOD:
        r->is_connect = is_text(value, "CONNECT");
        return hw_h2_is_method(value);
    case PATH:
        r->is_path_good = value.len > 0 && (value.data[0] == '/' || is_text(value, "*"));
        return hw_h2_is_path(value);
    case SCHEME:
        return value.len > 0 && hw_h2_is_header_value(value);
    default:
        return hw_h2_is_header_value(value);
    }
}

static int pseudo_header(struct hw_header_rules *r, struct hw_slice name, struct hw_slice value)
{
    unsigned bit = is_text(name, ":method")      ? METHOD
                   : is_text(name, ":path")      ? PATH
                   : is_text(name, ":scheme")    ? SCHEME
                   : is_text(name, ":authority") ? AUTHORITY
                                                 : 0;
    if (bit == 0 || r->is_trailer || r->has_regular || (r->pseudo & bit) != 0 || !is_pseudo_good(r, bit, value)) {
        return -1;
    }
    r->pseudo |= bit;
    return 1;
}

static int content_length(struct hw_header_rules *r, struct hw_slice value)
{
    if (r->has_content_length || r->is_trailer || value.len == 0 || value.len > 18) {
        return -1;
    }
    r->has_content_length = true;
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < '0' || value.data[i] > '9') {
            return -1;
        }
        r->content_length = r->content_length * 10 + (uint64_t)(value.data[i] - '0');
    }
    return 1;
}

int hw_header_rules_header(struct hw_header_rules *r, struct hw_slice name, struct hw_slice value)
{
    static const char *const connection_specific[] = {"connection", "keep-alive", "proxy-connection",
                                                      "transfer-encoding", "upgrade"};
    if (name.len > 0 && name.data[0] == ':') {
        return pseudo_header(r, name, value);
    }
    r->has_regular = true;
    if (has_upper(name)) {
        return -1;
    }
    if (!hw_h2_is_header_name(name) || !hw_h2_is_header_value(value)) {
        return 0;
    }
    for (size_t i = 0; i < hw_array_len(connection_specific); i++) {
        if (is_text(name, connection_specific[i])) {
            return -1;
        }
    }
    if (is_text(name, "te")) {
        return value.len == 8 && strncasecmp((const char *)value.data, "trailers", 8) == 0 ? 1 : -1;
    }
    return is_text(name, "content-length") ? content_length(r, value) : 1;
}

bool hw_header_rules_block(struct hw_header_rules *r, bool end_stream)
{
    unsigned wanted = r->is_connect ? METHOD | AUTHORITY : METHOD | PATH | SCHEME;
    if (r->is_trailer) {
        return end_stream;
    }
    r->is_trailer = true;
    return (r->pseudo & wanted) == wanted && (r->is_connect || r->is_path_good);
}

bool hw_header_rules_end(const struct hw_header_rules *r)
{
    return !r->has_content_length || r->content_length == r->body_bytes;
}
