/* Private to agent/api: protobuf's wire format, written by hand where it is worth it, and protobuf-c's packing into our
 * buffers where it is not. Source: https://protobuf.dev/programming-guides/encoding/.
 *
 * The put functions write what proto3 writes: a field with its default value is left out. The size functions say how
 * many bytes the put function of the same name appends, tag included; a message needs them for the length before it.
 * Field numbers are at most 15 (one tag byte), which the assert in hw_pb_tag checks.
 */
#ifndef HW_API_PROTOWIRE_H
#define HW_API_PROTOWIRE_H

#include <protobuf-c/protobuf-c.h>

#include "agent/base/assert.h"
#include "agent/base/buf.h"

enum hw_pb_type { HW_PB_VARINT = 0, HW_PB_FIXED64 = 1, HW_PB_BYTES = 2, HW_PB_FIXED32 = 5 };

static inline uint8_t hw_pb_tag(unsigned field, enum hw_pb_type type)
{
    hw_assert(field > 0 && field < 16);
    return (uint8_t)(field << 3 | type);
}

static inline size_t hw_pb_varint_size(uint64_t v)
{
    /* 7 bits a byte: ceil(bits / 7), without a division. */
    unsigned bits = 64 - (unsigned)__builtin_clzll(v | 1);
    return (bits * 9 + 64) / 64;
}

static inline size_t hw_pb_uint_size(uint64_t v)
{
    return v == 0 ? 0 : 1 + hw_pb_varint_size(v);
}

static inline size_t hw_pb_bytes_size(size_t len)
{
    return len == 0 ? 0 : 1 + hw_pb_varint_size(len) + len;
}

/* A sub-message is written even when it is empty: it is there. */
static inline size_t hw_pb_message_size(size_t len)
{
    return 1 + hw_pb_varint_size(len) + len;
}

void hw_pb_put_uint(struct hw_buf *b, unsigned field, uint64_t v);
void hw_pb_put_fixed64(struct hw_buf *b, unsigned field, uint64_t v);
void hw_pb_put_bytes(struct hw_buf *b, unsigned field, struct hw_slice s);
/* Tag and length; the message's own bytes follow. */
void hw_pb_begin_message(struct hw_buf *b, unsigned field, size_t len);

/* The next field of a message: false at its end, or when it is malformed (r->failed). For HW_PB_BYTES `bytes` is the
 * content, for the others `number` is the value. Groups are malformed. */
bool hw_protowire_next(struct hw_reader *r, unsigned *field, enum hw_pb_type *type, uint64_t *number,
                       struct hw_slice *bytes);

/* Append a protobuf-c message. HW_ERR_NOMEM. */
int hw_pack(const ProtobufCMessage *message, struct hw_buf *out);

#endif
