#include "agent/http/message.h"

#include <http_parser.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/base/assert.h"

#define FIELDS_MAX 100
#define QUERY_PARAMETERS_MAX 100
/* Colon, blank and line end of a field. */
#define FIELD_OVERHEAD_BYTES 4
#define KEEP_BYTES_MAX (16u * 1024u)

static int refuse(struct hw_http_message *m, int status, const char *text)
{
    if (m->error_status == 0) {
        m->error_status = status;
        m->error_text = text;
    }
    return 1;
}

static int add(struct hw_http_message *m, struct hw_buf *b, const void *data, size_t len)
{
    return hw_buf_append(b, data, len) == 0 ? 0 : refuse(m, 503, "out of memory");
}

static int on_begin(struct http_parser *p)
{
    struct hw_http_message *m = p->data;
    m->has_begun = true;
    return 0;
}

static int on_url(struct http_parser *p, const char *at, size_t len)
{
    struct hw_http_message *m = p->data;
    m->header_bytes += len;
    if (m->header_bytes > m->limits.header_bytes_max) {
        return refuse(m, 414, "the request target is too long");
    }
    return add(m, &m->target, at, len);
}

static int count_header(struct hw_http_message *m, size_t len)
{
    m->header_bytes += len;
    if (m->header_bytes > m->limits.header_bytes_max) {
        return refuse(m, 431, "the request's header fields are too large");
    }
    return 0;
}

static int on_field(struct http_parser *p, const char *at, size_t len)
{
    struct hw_http_message *m = p->data;
    if (m->is_complete || (p->flags & F_TRAILING) != 0) {
        return count_header(m, len); /* trailers of a chunked body are of no use here */
    }
    if (m->is_in_value || m->field_count == 0) {
        if (m->is_in_value) {
            hw_buf_put_u8(&m->fields, 0);
        }
        m->is_in_value = false;
        if (++m->field_count > FIELDS_MAX) {
            return refuse(m, 431, "the request has too many header fields");
        }
        if (count_header(m, FIELD_OVERHEAD_BYTES) != 0) {
            return 1;
        }
    }
    if (count_header(m, len) != 0) {
        return 1;
    }
    /* http_parser may be built to let blanks in names pass (RFC 9112 section 5.1 does not). */
    if (memchr(at, ' ', len) != NULL) {
        return refuse(m, 400, "a header field's name has a blank");
    }
    for (size_t i = 0; i < len; i++) {
        hw_buf_put_u8(&m->fields, (uint8_t)(at[i] >= 'A' && at[i] <= 'Z' ? at[i] + 32 : at[i]));
    }
    return 0;
}

static int on_value(struct http_parser *p, const char *at, size_t len)
{
    struct hw_http_message *m = p->data;
    if ((p->flags & F_TRAILING) != 0) {
        return count_header(m, len);
    }
    if (!m->is_in_value) {
        m->is_in_value = true;
        hw_buf_put_u8(&m->fields, 0);
    }
    if (memchr(at, '\0', len) != NULL) {
        return refuse(m, 400, "a header field has a zero byte");
    }
    if (count_header(m, len) != 0) {
        return 1;
    }
    return add(m, &m->fields, at, len);
}

static int on_headers(struct http_parser *p)
{
    struct hw_http_message *m = p->data;
    const char *expect;
    if (m->field_count > 0) {
        if (!m->is_in_value) {
            hw_buf_put_u8(&m->fields, 0); /* a name that the parser gave no value for: lookup() walks by zeros */
        }
        hw_buf_put_u8(&m->fields, 0);
        m->is_in_value = false;
    }
    m->method = http_method_str((enum http_method)p->method);
    m->is_head = p->method == HTTP_HEAD;
    m->keeps_alive = http_should_keep_alive(p) != 0;
    if (m->fields.failed) {
        return refuse(m, 503, "out of memory");
    }
    if (p->http_major != 1) {
        return refuse(m, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    }
    if (p->method == HTTP_CONNECT) {
        return refuse(m, 405, "CONNECT is not offered");
    }
    p->upgrade = 0; /* an offer that we do not take */
    if (p->http_minor > 0 && hw_http_message_field(m, "host") == NULL) {
        return refuse(m, 400, "the request has no Host field");
    }
    if ((p->flags & F_CONTENTLENGTH) != 0 && p->content_length > m->limits.body_bytes_max) {
        return refuse(m, 413, "the request's body is too large");
    }
    expect = hw_http_message_field(m, "expect");
    if (expect != NULL && p->http_minor > 0) {
        if (strcasecmp(expect, "100-continue") != 0) {
            return refuse(m, 417, "only the expectation 100-continue is known");
        }
        m->wants_continue = true;
    }
    return 0;
}

static int on_body(struct http_parser *p, const char *at, size_t len)
{
    struct hw_http_message *m = p->data;
    m->wants_continue = false; /* it did not wait */
    if (m->body.len + len > m->limits.body_bytes_max) {
        return refuse(m, 413, "the request's body is too large");
    }
    return add(m, &m->body, at, len);
}

static int on_complete(struct http_parser *p)
{
    struct hw_http_message *m = p->data;
    m->is_complete = true;
    m->wants_continue = false;
    http_parser_pause(p, 1);
    return 0;
}

int hw_http_message_init(struct hw_http_message *m, const struct hw_http_limits *limits)
{
    memset(m, 0, sizeof *m);
    m->limits = *limits;
    m->parser = calloc(1, sizeof *m->parser);
    if (m->parser == NULL) {
        return HW_ERR_NOMEM;
    }
    hw_http_message_reset(m);
    return 0;
}

void hw_http_message_free(struct hw_http_message *m)
{
    free(m->parser);
    hw_buf_free(&m->target);
    hw_buf_free(&m->fields);
    hw_buf_free(&m->path);
    hw_buf_free(&m->query);
    hw_buf_free(&m->body);
}

static void clear(struct hw_buf *b)
{
    if (b->cap > KEEP_BYTES_MAX) {
        hw_buf_free(b);
    }
    hw_buf_clear(b);
}

void hw_http_message_reset(struct hw_http_message *m)
{
    struct hw_http_message old = *m;
    clear(&old.target);
    clear(&old.fields);
    clear(&old.path);
    clear(&old.query);
    clear(&old.body);
    *m = (struct hw_http_message){
        .parser = old.parser,
        .limits = old.limits,
        .target = old.target,
        .fields = old.fields,
        .path = old.path,
        .query = old.query,
        .body = old.body,
    };
    http_parser_init(m->parser, HTTP_REQUEST);
    m->parser->data = m;
}

/* ---- the target ---- */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Appends the decoded text and a zero. A zero inside would cut what handlers see: refused. */
static bool decode(struct hw_buf *out, const uint8_t *s, size_t len, bool plus_is_blank)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t c = s[i];
        if (c == '%') {
            int high = i + 2 < len ? hex_digit(s[i + 1]) : -1;
            int low = i + 2 < len ? hex_digit(s[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return false;
            }
            c = (uint8_t)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus_is_blank) {
            c = ' ';
        }
        if (c == 0) {
            return false;
        }
        hw_buf_put_u8(out, c);
    }
    hw_buf_put_u8(out, 0);
    return true;
}

static bool decode_query(struct hw_http_message *m, const uint8_t *s, size_t len)
{
    unsigned count = 0;
    while (len > 0) {
        const uint8_t *amp = memchr(s, '&', len);
        size_t n = amp != NULL ? (size_t)(amp - s) : len;
        const uint8_t *eq = memchr(s, '=', n);
        size_t name_len = eq != NULL ? (size_t)(eq - s) : n;
        if (n > 0) {
            if (++count > QUERY_PARAMETERS_MAX || !decode(&m->query, s, name_len, true) ||
                !decode(&m->query, eq != NULL ? eq + 1 : s + n, eq != NULL ? n - name_len - 1 : 0, true)) {
                return false;
            }
        }
        s += n;
        len -= n;
        if (len > 0) {
            s++;
            len--;
        }
    }
    return true;
}

static int split_target(struct hw_http_message *m)
{
    struct http_parser_url u;
    const uint8_t *base = m->target.data;
    bool is_fine;
    http_parser_url_init(&u);
    /* "*" (OPTIONS) and whatever else has no path. */
    if (m->target.len == 0 || http_parser_parse_url((const char *)base, m->target.len, 0, &u) != 0 ||
        (u.field_set & (1u << UF_PATH)) == 0 || base[u.field_data[UF_PATH].off] != '/') {
        return refuse(m, 400, "the request target is not a path");
    }
    is_fine = decode(&m->path, base + u.field_data[UF_PATH].off, u.field_data[UF_PATH].len, false);
    if (is_fine && (u.field_set & (1u << UF_QUERY)) != 0) {
        is_fine = decode_query(m, base + u.field_data[UF_QUERY].off, u.field_data[UF_QUERY].len);
    }
    if (m->path.failed || m->query.failed) {
        return refuse(m, 503, "out of memory");
    }
    return is_fine ? 0 : refuse(m, 400, "the request target is not encoded well");
}

int hw_http_message_feed(struct hw_http_message *m, const uint8_t *data, size_t len, size_t *used)
{
    static const struct http_parser_settings settings = {
        .on_message_begin = on_begin,
        .on_url = on_url,
        .on_header_field = on_field,
        .on_header_value = on_value,
        .on_headers_complete = on_headers,
        .on_body = on_body,
        .on_message_complete = on_complete,
    };
    hw_assert(!m->is_complete && m->error_status == 0);
    *used = http_parser_execute(m->parser, &settings, (const char *)data, len);
    if (m->is_complete && m->error_status == 0) {
        split_target(m);
    } else if (m->error_status == 0 && HTTP_PARSER_ERRNO(m->parser) != HPE_OK) {
        enum http_errno why = HTTP_PARSER_ERRNO(m->parser);
        refuse(m, why == HPE_HEADER_OVERFLOW ? 431 : 400, http_errno_description(why));
    }
    if (m->error_status != 0) {
        return HW_ERR_PROTOCOL;
    }
    return m->is_complete ? 1 : 0;
}

static const char *lookup(const struct hw_buf *pairs, const char *name)
{
    const char *p = (const char *)pairs->data;
    const char *end = p != NULL ? p + pairs->len : NULL;
    while (p < end) {
        const char *value = p + strlen(p) + 1;
        if (strcmp(p, name) == 0) {
            return value;
        }
        p = value + strlen(value) + 1;
    }
    return NULL;
}

const char *hw_http_message_field(const struct hw_http_message *m, const char *lower_case_name)
{
    return lookup(&m->fields, lower_case_name);
}

const char *hw_http_message_query(const struct hw_http_message *m, const char *name)
{
    return lookup(&m->query, name);
}

const char *hw_http_reason(int status)
{
    return http_status_str((enum http_status)status);
}
