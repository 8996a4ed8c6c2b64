#include "agent/rpc/wire.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"

/* An announced length is only a claim: room grows with the bytes that have come. */
#define FIRST_RESERVE_BYTES_MAX (16u * 1024u)

static const char *const status_names[HW_WIRE_STATUS_COUNT] = {
    "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
};

static int check_prefix(struct hw_wire_in *in, size_t message_bytes_max)
{
    in->want = (size_t)in->prefix[1] << 24 | (size_t)in->prefix[2] << 16 | (size_t)in->prefix[3] << 8 | in->prefix[4];
    if (in->prefix[0] > 1) {
        return HW_ERR_PROTOCOL;
    }
    if (in->prefix[0] == 1) {
        return HW_ERR_UNIMPLEMENTED;
    }
    return in->want > message_bytes_max ? HW_ERR_TOOBIG : 0;
}

static int take_prefix(struct hw_wire_in *in, const uint8_t **data, size_t *len, size_t message_bytes_max)
{
    size_t n = HW_WIRE_PREFIX_BYTES - in->prefix_len;
    int rc;
    if (n > *len) {
        n = *len;
    }
    memcpy(in->prefix + in->prefix_len, *data, n);
    in->prefix_len += (unsigned)n;
    *data += n;
    *len -= n;
    if (in->prefix_len < HW_WIRE_PREFIX_BYTES) {
        return 0;
    }
    rc = check_prefix(in, message_bytes_max);
    return rc != 0 ? rc : 1;
}

int hw_wire_next(struct hw_wire_in *in, const uint8_t **data, size_t *len, size_t message_bytes_max,
                 struct hw_slice *message)
{
    size_t missing;
    size_t n;
    hw_wire_delivered(in, SIZE_MAX);
    if (in->prefix_len < HW_WIRE_PREFIX_BYTES) {
        int rc = take_prefix(in, data, len, message_bytes_max);
        if (rc <= 0) {
            return rc;
        }
        if (*len >= in->want) {
            *message = hw_slice_of(*data, in->want);
            *data += in->want;
            *len -= in->want;
            in->prefix_len = 0;
            return 1;
        }
    }
    missing = in->want - in->body.len;
    n = missing < *len ? missing : *len;
    if (in->body.cap == 0 &&
        hw_buf_reserve(&in->body, in->want < FIRST_RESERVE_BYTES_MAX ? in->want : FIRST_RESERVE_BYTES_MAX) != 0) {
        return HW_ERR_NOMEM;
    }
    if (hw_buf_append(&in->body, *data, n) != 0) {
        return HW_ERR_NOMEM;
    }
    *data += n;
    *len -= n;
    if (in->body.len < in->want) {
        return 0;
    }
    *message = hw_buf_slice(&in->body);
    in->is_delivered = true;
    in->prefix_len = 0;
    return 1;
}

void hw_wire_delivered(struct hw_wire_in *in, size_t keep_bytes_max)
{
    if (in->is_delivered) {
        in->is_delivered = false;
        in->body.len = 0;
        if (in->body.cap > keep_bytes_max) {
            hw_buf_free(&in->body);
        }
    }
}

bool hw_wire_is_partial(const struct hw_wire_in *in)
{
    return in->prefix_len > 0;
}

void hw_wire_reset(struct hw_wire_in *in, size_t keep_bytes_max)
{
    in->prefix_len = 0;
    in->want = 0;
    in->is_delivered = false;
    if (in->body.cap > keep_bytes_max) {
        hw_buf_free(&in->body);
    }
    hw_buf_clear(&in->body);
}

void hw_wire_prefix(uint8_t out[HW_WIRE_PREFIX_BYTES], size_t message_len)
{
    out[0] = 0;
    out[1] = (uint8_t)(message_len >> 24);
    out[2] = (uint8_t)(message_len >> 16);
    out[3] = (uint8_t)(message_len >> 8);
    out[4] = (uint8_t)message_len;
}

int hw_wire_timeout_parse(struct hw_slice text, uint64_t *ms)
{
    uint64_t v = 0;
    if (text.len < 2 || text.len > 9) {
        return HW_ERR_INVALID;
    }
    for (size_t i = 0; i < text.len - 1; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return HW_ERR_INVALID;
        }
        v = v * 10 + (uint64_t)(text.data[i] - '0');
    }
    switch (text.data[text.len - 1]) {
    case 'H':
        *ms = v * 3600u * 1000u;
        return 0;
    case 'M':
        *ms = v * 60u * 1000u;
        return 0;
    case 'S':
        *ms = v * 1000u;
        return 0;
    case 'm':
        *ms = v;
        return 0;
    case 'u':
        *ms = (v + 999u) / 1000u;
        return 0;
    case 'n':
        *ms = (v + 999999u) / 1000000u;
        return 0;
    default:
        return HW_ERR_INVALID;
    }
}

void hw_wire_timeout_format(uint64_t ms, char out[HW_WIRE_TIMEOUT_SIZE])
{
    static const struct {
        uint64_t ms;
        char unit;
    } units[] = {{1, 'm'}, {1000, 'S'}, {60000, 'M'}, {3600000, 'H'}};
    for (size_t i = 0; i < hw_array_len(units); i++) {
        uint64_t n = ms / units[i].ms + (ms % units[i].ms != 0);
        if (n <= 99999999u) {
            snprintf(out, HW_WIRE_TIMEOUT_SIZE, "%u%c", (unsigned)n, units[i].unit);
            return;
        }
    }
    snprintf(out, HW_WIRE_TIMEOUT_SIZE, "99999999H");
}

void hw_wire_text_encode(const char *text, struct hw_buf *out)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0' && n < HW_WIRE_TEXT_MAX; p++, n++) {
        if (*p >= 0x20 && *p <= 0x7e && *p != '%') {
            hw_buf_put_u8(out, *p);
        } else {
            hw_buf_put_u8(out, '%');
            hw_buf_put_u8(out, (uint8_t)hex[*p >> 4]);
            hw_buf_put_u8(out, (uint8_t)hex[*p & 15]);
        }
    }
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void hw_wire_text_decode(struct hw_slice encoded, struct hw_buf *out)
{
    for (size_t i = 0; i < encoded.len; i++) {
        int high = -1;
        int low = -1;
        if (encoded.data[i] == '%' && i + 2 < encoded.len) {
            high = hex_digit(encoded.data[i + 1]);
            low = hex_digit(encoded.data[i + 2]);
        }
        if (high >= 0 && low >= 0) {
            hw_buf_put_u8(out, (uint8_t)(high << 4 | low));
            i += 2;
        } else {
            hw_buf_put_u8(out, encoded.data[i]);
        }
    }
}

const char *hw_wire_status_name(enum hw_grpc status)
{
    return (unsigned)status < HW_WIRE_STATUS_COUNT ? status_names[status] : "UNKNOWN";
}

enum hw_grpc hw_wire_status_parse(struct hw_slice text)
{
    unsigned v = 0;
    if (text.len == 0 || text.len > 2) {
        return HW_GRPC_UNKNOWN;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return HW_GRPC_UNKNOWN;
        }
        v = v * 10 + (unsigned)(text.data[i] - '0');
    }
    return v < HW_WIRE_STATUS_COUNT ? (enum hw_grpc)v : HW_GRPC_UNKNOWN;
}

enum hw_grpc hw_wire_status_of_http(unsigned http_status)
{
    switch (http_status) {
    case 400:
        return HW_GRPC_INTERNAL;
    case 401:
        return HW_GRPC_UNAUTHENTICATED;
    case 403:
        return HW_GRPC_PERMISSION_DENIED;
    case 404:
        return HW_GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return HW_GRPC_UNAVAILABLE;
    default:
        return HW_GRPC_UNKNOWN;
    }
}

enum hw_grpc hw_wire_status_of_reset(uint32_t h2_error)
{
    switch (h2_error) {
    case 0x7: /* REFUSED_STREAM */
        return HW_GRPC_UNAVAILABLE;
    case 0x8: /* CANCEL */
        return HW_GRPC_CANCELLED;
    case 0xb: /* ENHANCE_YOUR_CALM */
        return HW_GRPC_RESOURCE_EXHAUSTED;
    case 0xc: /* INADEQUATE_SECURITY */
        return HW_GRPC_PERMISSION_DENIED;
    default:
        return HW_GRPC_INTERNAL;
    }
}
