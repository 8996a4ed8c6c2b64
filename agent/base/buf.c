#include "agent/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"

struct hw_slice hw_slice_of(const void *data, size_t len)
{
    return (struct hw_slice){data, len};
}

struct hw_slice hw_slice_str(const char *s)
{
    return (struct hw_slice){(const uint8_t *)s, strlen(s)};
}

int hw_slice_cmp(struct hw_slice a, struct hw_slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n == 0 ? 0 : memcmp(a.data, b.data, n);
    if (c != 0) {
        return c;
    }
    return a.len < b.len ? -1 : a.len > b.len;
}

bool hw_slice_is_equal(struct hw_slice a, struct hw_slice b)
{
    return a.len == b.len && hw_slice_cmp(a, b) == 0;
}

void hw_buf_init(struct hw_buf *b)
{
    memset(b, 0, sizeof *b);
}

void hw_buf_free(struct hw_buf *b)
{
    free(b->data);
    hw_buf_init(b);
}

int hw_buf_reserve(struct hw_buf *b, size_t more)
{
    size_t need = b->len + more;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    uint8_t *data;
    if (need < b->len) {
        b->failed = true;
        return HW_ERR_NOMEM;
    }
    if (need <= b->cap) {
        return 0;
    }
    while (cap < need) {
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    }
    data = realloc(b->data, cap);
    if (data == NULL) {
        b->failed = true;
        return HW_ERR_NOMEM;
    }
    b->data = data;
    b->cap = cap;
    return 0;
}

int hw_buf_append(struct hw_buf *b, const void *data, size_t len)
{
    if (hw_buf_reserve(b, len) != 0) {
        return HW_ERR_NOMEM;
    }
    if (len > 0) {
        memcpy(b->data + b->len, data, len);
        b->len += len;
    }
    return 0;
}

int hw_buf_append_str(struct hw_buf *b, const char *s)
{
    return hw_buf_append(b, s, strlen(s));
}

int hw_buf_printf(struct hw_buf *b, const char *fmt, ...)
{
    va_list ap;
    int n;
    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || hw_buf_reserve(b, (size_t)n + 1) != 0) {
        b->failed = true;
        return HW_ERR_NOMEM;
    }
    va_start(ap, fmt);
    vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return 0;
}

void hw_buf_consume(struct hw_buf *b, size_t n)
{
    if (n >= b->len) {
        b->len = 0;
        return;
    }
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
}

void hw_buf_clear(struct hw_buf *b)
{
    b->len = 0;
    b->failed = false;
}

uint8_t *hw_buf_take(struct hw_buf *b, size_t *len)
{
    uint8_t *data = b->data;
    *len = b->len;
    hw_buf_init(b);
    return data;
}

struct hw_slice hw_buf_slice(const struct hw_buf *b)
{
    return (struct hw_slice){b->data, b->len};
}

void hw_buf_put_u8(struct hw_buf *b, uint8_t v)
{
    hw_buf_append(b, &v, 1);
}

static void put_le(struct hw_buf *b, uint64_t v, size_t width)
{
    uint8_t raw[8];
    for (size_t i = 0; i < width; i++) {
        raw[i] = (uint8_t)(v >> (8 * i));
    }
    hw_buf_append(b, raw, width);
}

void hw_buf_put_u32(struct hw_buf *b, uint32_t v)
{
    put_le(b, v, 4);
}

void hw_buf_put_u64(struct hw_buf *b, uint64_t v)
{
    put_le(b, v, 8);
}

void hw_buf_put_varint(struct hw_buf *b, uint64_t v)
{
    uint8_t raw[10];
    size_t n = 0;
    while (v >= 0x80) {
        raw[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    raw[n++] = (uint8_t)v;
    hw_buf_append(b, raw, n);
}

void hw_buf_put_bytes(struct hw_buf *b, struct hw_slice s)
{
    hw_buf_put_varint(b, s.len);
    hw_buf_append(b, s.data, s.len);
}

void hw_reader_init(struct hw_reader *r, const void *data, size_t len)
{
    r->pos = data;
    r->end = len > 0 ? r->pos + len : r->pos; /* data may be NULL then, and NULL + 0 is undefined */
    r->failed = false;
}

size_t hw_reader_left(const struct hw_reader *r)
{
    return (size_t)(r->end - r->pos);
}

static uint64_t get_le(struct hw_reader *r, size_t width)
{
    uint64_t v = 0;
    if (r->failed || hw_reader_left(r) < width) {
        r->failed = true;
        return 0;
    }
    for (size_t i = 0; i < width; i++) {
        v |= (uint64_t)r->pos[i] << (8 * i);
    }
    r->pos += width;
    return v;
}

uint8_t hw_reader_u8(struct hw_reader *r)
{
    return (uint8_t)get_le(r, 1);
}

uint32_t hw_reader_u32(struct hw_reader *r)
{
    return (uint32_t)get_le(r, 4);
}

uint64_t hw_reader_u64(struct hw_reader *r)
{
    return get_le(r, 8);
}

uint64_t hw_reader_varint(struct hw_reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = hw_reader_u8(r);
        if (r->failed) {
            return 0;
        }
        if (shift == 63 && byte > 1) {
            break;
        }
        v |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            return v;
        }
    }
    r->failed = true;
    return 0;
}

struct hw_slice hw_reader_bytes(struct hw_reader *r)
{
    uint64_t len = hw_reader_varint(r);
    struct hw_slice s = {NULL, 0};
    if (r->failed || len > hw_reader_left(r)) {
        r->failed = true;
        return s;
    }
    s.data = r->pos;
    s.len = (size_t)len;
    r->pos += len;
    return s;
}
