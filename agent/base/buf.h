/* Bytes: a borrowed slice, a growable buffer, and bounded little-endian readers and writers for our own formats.
 *
 * hw_buf owns its memory; free with hw_buf_free (also valid on a zeroed struct). Appending may fail with HW_ERR_NOMEM;
 * a buffer remembers the failure (`failed`), so that an encoder may append many times and check once at the end.
 * hw_reader never reads past its end: after the first short read every further read gives zero and `failed` is set.
 */
#ifndef HW_BASE_BUF_H
#define HW_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hw_slice {
    const uint8_t *data;
    size_t len;
};

struct hw_slice hw_slice_of(const void *data, size_t len);
struct hw_slice hw_slice_str(const char *s);
/* memcmp order, shorter first. */
int hw_slice_cmp(struct hw_slice a, struct hw_slice b);
bool hw_slice_is_equal(struct hw_slice a, struct hw_slice b);

struct hw_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    bool failed;
};

void hw_buf_init(struct hw_buf *b);
void hw_buf_free(struct hw_buf *b);
/* Make room for `more` bytes after len. */
int hw_buf_reserve(struct hw_buf *b, size_t more);
int hw_buf_append(struct hw_buf *b, const void *data, size_t len);
int hw_buf_append_str(struct hw_buf *b, const char *s);
int hw_buf_printf(struct hw_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drop `n` bytes from the front (memmove). */
void hw_buf_consume(struct hw_buf *b, size_t n);
/* len = 0, memory kept. */
void hw_buf_clear(struct hw_buf *b);
/* Ownership of the memory moves to the caller (free()); the buffer is empty afterwards. */
uint8_t *hw_buf_take(struct hw_buf *b, size_t *len);
struct hw_slice hw_buf_slice(const struct hw_buf *b);

void hw_buf_put_u8(struct hw_buf *b, uint8_t v);
void hw_buf_put_u32(struct hw_buf *b, uint32_t v);
void hw_buf_put_u64(struct hw_buf *b, uint64_t v);
/* LEB128, at most 10 bytes. */
void hw_buf_put_varint(struct hw_buf *b, uint64_t v);
/* varint length, then the bytes. */
void hw_buf_put_bytes(struct hw_buf *b, struct hw_slice s);

struct hw_reader {
    const uint8_t *pos;
    const uint8_t *end;
    bool failed;
};

void hw_reader_init(struct hw_reader *r, const void *data, size_t len);
size_t hw_reader_left(const struct hw_reader *r);
uint8_t hw_reader_u8(struct hw_reader *r);
uint32_t hw_reader_u32(struct hw_reader *r);
uint64_t hw_reader_u64(struct hw_reader *r);
uint64_t hw_reader_varint(struct hw_reader *r);
/* Borrowed from the reader's memory. */
struct hw_slice hw_reader_bytes(struct hw_reader *r);

#endif
