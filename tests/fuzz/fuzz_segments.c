/* Open log segments as a start finds them. The first byte chooses: bit 0 the file's bytes as they are, or an assembled
 * segment: records of u8 kind, u8 length and that many bytes, of which the kind makes a whole batch of so many entries,
 * a batch with a wrong checksum, zeros, or bytes as they are; bit 1 a second, later segment with the same content; bit
 * 2 a second one of zeros.
 *
 * What is accepted is accepted again, and never grows. */
#include <string.h>
#include <sys/stat.h>

#include "agent/consensus/folder.h"
#include "tests/fuzz/fuzz_folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FIRST "open-1"
#define SECOND "open-2"
#define SEGMENT_BYTES_MAX (1u << 20)

/* libraft's: CRC-32 (polynomial 0x04c11db7), most significant bit first, from 0, not inverted. */
static uint32_t crc(const uint8_t *data, size_t len)
{
    uint32_t c = 0;
    for (size_t i = 0; i < len; i++) {
        c ^= (uint32_t)data[i] << 24;
        for (int bit = 0; bit < 8; bit++) {
            c = (c << 1) ^ ((c >> 31) * 0x04c11db7u);
        }
    }
    return c;
}

static void put_batch(struct hw_buf *out, unsigned entries, const uint8_t *data, size_t len, bool is_wrong)
{
    struct hw_buf head = {0};
    struct hw_buf body = {0};
    static const uint8_t zeros[8];
    hw_buf_put_u64(&head, entries);
    for (unsigned i = 0; i < entries; i++) {
        size_t part = i + 1 < entries ? len / entries : len - (entries - 1) * (len / entries);
        size_t padded = (part + 7) / 8 * 8;
        hw_buf_put_u64(&head, 1);
        hw_buf_put_u32(&head, 1);
        hw_buf_put_u32(&head, (uint32_t)padded);
        hw_buf_append(&body, data + i * (len / entries), part);
        hw_buf_append(&body, zeros, padded - part);
    }
    hw_buf_put_u32(out, crc(head.data, head.len) + is_wrong);
    hw_buf_put_u32(out, crc(body.data, body.len));
    hw_buf_append(out, head.data, head.len);
    hw_buf_append(out, body.data, body.len);
    hw_buf_free(&head);
    hw_buf_free(&body);
}

static void assemble(struct hw_reader *r, struct hw_buf *out)
{
    hw_buf_put_u64(out, 1);
    while (hw_reader_left(r) >= 2 && out->len < SEGMENT_BYTES_MAX) {
        uint8_t kind = hw_reader_u8(r);
        size_t len = hw_reader_u8(r);
        len = len < hw_reader_left(r) ? len : hw_reader_left(r);
        switch (kind & 3) {
        case 0:
            put_batch(out, 1 + (kind >> 2 & 15), r->pos, len, false);
            break;
        case 1:
            put_batch(out, 1 + (kind >> 2 & 15), r->pos, len, true);
            break;
        case 2:
            for (unsigned i = 0; i < (1u + (kind >> 2)) * len; i++) {
                hw_buf_put_u8(out, 0);
            }
            break;
        default:
            hw_buf_append(out, r->pos, len);
        }
        r->pos += len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t zeros[64];
    struct hw_buf segment = {0};
    struct hw_error e = {0};
    struct hw_reader r;
    struct stat before;
    struct stat after;
    char path[PATH_MAX];
    if (size == 0) {
        return 0;
    }
    hw_reader_init(&r, data + 1, size - 1);
    if (data[0] & 1) {
        hw_buf_append(&segment, data + 1, size - 1);
    } else {
        assemble(&r, &segment);
    }
    snprintf(path, sizeof path, "%s", fuzz_file(FIRST, segment.data, segment.len));
    if (data[0] & 6) {
        fuzz_file(SECOND, data[0] & 2 ? segment.data : zeros, data[0] & 2 ? segment.len : sizeof zeros);
    }
    hw_assert(stat(path, &before) == 0);
    if (folder_check(fuzz_folder(), &e) != 0) {
        hw_assert(e.code == HW_ERR_CORRUPT && e.text[0] != '\0');
    } else {
        hw_assert(stat(path, &after) == 0 && after.st_size <= before.st_size);
        hw_assert(folder_check(fuzz_folder(), &e) == 0);
    }
    fuzz_file_remove(FIRST);
    fuzz_file_remove(SECOND);
    hw_buf_free(&segment);
    return 0;
}
