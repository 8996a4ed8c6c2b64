#include "agent/consensus/frame.h"

#include <string.h>
#include <xxhash.h>

#include "agent/base/err.h"

#define ENTRY_FORMAT 1
#define MANIFEST_MAGIC "HWMANIF1"
#define MANIFEST_HEAD 24

static void put_u32(uint8_t *at, uint32_t v)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(v >> (8 * i));
    }
}

static int pad(struct hw_buf *b)
{
    static const uint8_t zeros[8];
    return b->len % 8 == 0 ? 0 : hw_buf_append(b, zeros, 8 - b->len % 8);
}

static bool is_zero(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] != 0) {
            return false;
        }
    }
    return true;
}

int frame_entry_begin(struct hw_buf *b)
{
    static const uint8_t head[FRAME_ENTRY_HEAD];
    hw_buf_clear(b);
    return hw_buf_append(b, head, sizeof head);
}

int frame_entry_end(struct hw_buf *b)
{
    if (b->failed) {
        return HW_ERR_NOMEM;
    }
    if (b->len < FRAME_ENTRY_HEAD || !is_zero(b->data, FRAME_ENTRY_HEAD)) {
        return HW_ERR_INVALID;
    }
    uint32_t len = (uint32_t)(b->len - FRAME_ENTRY_HEAD);
    int rc = pad(b);
    if (rc != 0) {
        return rc;
    }
    put_u32(b->data, len);
    put_u32(b->data + 4, ENTRY_FORMAT);
    return 0;
}

void frame_entry_set_place(struct hw_buf *b, uint64_t term, uint64_t index)
{
    put_u32(b->data + 8, (uint32_t)term);
    put_u32(b->data + 12, (uint32_t)(term >> 32));
    put_u32(b->data + 16, (uint32_t)index);
    put_u32(b->data + 20, (uint32_t)(index >> 32));
}

int frame_entry_decode(const void *data, size_t len, uint64_t *term, uint64_t *index, struct hw_slice *payload)
{
    const uint8_t *p = data;
    struct hw_reader r;
    uint32_t payload_len;
    uint32_t format;
    size_t end;
    hw_reader_init(&r, data, len);
    payload_len = hw_reader_u32(&r);
    format = hw_reader_u32(&r);
    *term = hw_reader_u64(&r);
    *index = hw_reader_u64(&r);
    if (r.failed) {
        return HW_ERR_CORRUPT;
    }
    if (format != ENTRY_FORMAT) {
        return format > ENTRY_FORMAT ? HW_ERR_VERSION : HW_ERR_CORRUPT;
    }
    end = FRAME_ENTRY_HEAD + (size_t)payload_len;
    if (len % 8 != 0 || end > len || len - end >= 8 || !is_zero(p + end, len - end)) {
        return HW_ERR_CORRUPT;
    }
    *payload = hw_slice_of(p + FRAME_ENTRY_HEAD, payload_len);
    return 0;
}

int frame_manifest_encode(struct hw_slice payload, struct hw_buf *out)
{
    if (payload.len > UINT32_MAX) {
        return HW_ERR_TOOBIG;
    }
    hw_buf_append(out, MANIFEST_MAGIC, 8);
    hw_buf_put_u32(out, (uint32_t)payload.len);
    hw_buf_put_u32(out, 0);
    hw_buf_put_u64(out, XXH64(payload.data, payload.len, 0));
    hw_buf_append(out, payload.data, payload.len);
    pad(out);
    return out->failed ? HW_ERR_NOMEM : 0;
}

int frame_manifest_decode(const void *data, size_t len, struct hw_slice *payload)
{
    const uint8_t *p = data;
    struct hw_reader r;
    uint32_t payload_len;
    uint32_t reserved;
    uint64_t sum;
    size_t end;
    if (len < MANIFEST_HEAD || memcmp(p, MANIFEST_MAGIC, 7) != 0) {
        return HW_ERR_CORRUPT;
    }
    if (p[7] != MANIFEST_MAGIC[7]) {
        return p[7] > '1' && p[7] <= '9' ? HW_ERR_VERSION : HW_ERR_CORRUPT;
    }
    hw_reader_init(&r, p + 8, len - 8);
    payload_len = hw_reader_u32(&r);
    reserved = hw_reader_u32(&r);
    sum = hw_reader_u64(&r);
    end = MANIFEST_HEAD + (size_t)payload_len;
    if (reserved != 0 || len % 8 != 0 || end > len || len - end >= 8 || !is_zero(p + end, len - end) ||
        XXH64(p + MANIFEST_HEAD, payload_len, 0) != sum) {
        return HW_ERR_CORRUPT;
    }
    *payload = hw_slice_of(p + MANIFEST_HEAD, payload_len);
    return 0;
}
