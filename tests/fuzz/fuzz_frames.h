/* HTTP/2 frames for fuzz targets: well-formed ones, so that the fuzzer gets past the framing soon. RFC 9113, 7541. */
#ifndef HW_FUZZ_FRAMES_H
#define HW_FUZZ_FRAMES_H

#include <string.h>

#include "agent/base/buf.h"

#define FRAME_BYTES_MAX 16384
#define HTTP2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

enum { FRAME_DATA = 0, FRAME_HEADERS = 1, FRAME_RST_STREAM = 3, FRAME_SETTINGS = 4 };
enum { FRAME_END_STREAM = 1, FRAME_ACK = 1, FRAME_END_HEADERS = 4 };

static inline void frame_put(struct hw_buf *out, uint8_t type, uint8_t flags, uint32_t id, const void *payload,
                             size_t len)
{
    uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,       type,       flags,
                       (uint8_t)(id >> 24),  (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    hw_buf_append(out, head, sizeof head);
    hw_buf_append(out, payload, len);
}

/* A literal header without indexing; name and value of at most 126 bytes. */
static inline void frame_put_header(struct hw_buf *b, const char *name, const char *value)
{
    hw_buf_put_u8(b, 0);
    hw_buf_put_u8(b, (uint8_t)strlen(name));
    hw_buf_append_str(b, name);
    hw_buf_put_u8(b, (uint8_t)strlen(value));
    hw_buf_append_str(b, value);
}

/* One gRPC message, in as many DATA frames as it takes. */
static inline void frame_put_message(struct hw_buf *out, uint32_t id, const uint8_t *data, size_t len, bool is_last)
{
    struct hw_buf b = {0};
    const uint8_t prefix[5] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    hw_buf_append(&b, prefix, sizeof prefix);
    hw_buf_append(&b, data, len);
    for (size_t at = 0; at < b.len;) {
        size_t n = b.len - at < FRAME_BYTES_MAX ? b.len - at : FRAME_BYTES_MAX;
        frame_put(out, FRAME_DATA, is_last && at + n == b.len ? FRAME_END_STREAM : 0, id, b.data + at, n);
        at += n;
    }
    hw_buf_free(&b);
}

#endif
