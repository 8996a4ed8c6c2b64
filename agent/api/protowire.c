#include "agent/api/protowire.h"

#include "agent/base/err.h"

void hw_pb_put_uint(struct hw_buf *b, unsigned field, uint64_t v)
{
    if (v != 0) {
        hw_buf_put_u8(b, hw_pb_tag(field, HW_PB_VARINT));
        hw_buf_put_varint(b, v);
    }
}

void hw_pb_put_fixed64(struct hw_buf *b, unsigned field, uint64_t v)
{
    if (v != 0) {
        hw_buf_put_u8(b, hw_pb_tag(field, HW_PB_FIXED64));
        hw_buf_put_u64(b, v);
    }
}

void hw_pb_put_bytes(struct hw_buf *b, unsigned field, struct hw_slice s)
{
    if (s.len > 0) {
        hw_buf_put_u8(b, hw_pb_tag(field, HW_PB_BYTES));
        hw_buf_put_bytes(b, s);
    }
}

void hw_pb_begin_message(struct hw_buf *b, unsigned field, size_t len)
{
    hw_buf_put_u8(b, hw_pb_tag(field, HW_PB_BYTES));
    hw_buf_put_varint(b, len);
}

bool hw_protowire_next(struct hw_reader *r, unsigned *field, enum hw_pb_type *type, uint64_t *number,
                       struct hw_slice *bytes)
{
    uint64_t tag;
    if (r->failed || hw_reader_left(r) == 0) {
        return false;
    }
    tag = hw_reader_varint(r);
    if (r->failed || tag >> 3 == 0 || tag > UINT32_MAX) {
        r->failed = true;
        return false;
    }
    *field = (unsigned)(tag >> 3);
    *type = (enum hw_pb_type)(tag & 7);
    *number = 0;
    *bytes = hw_slice_of(NULL, 0);
    switch (*type) {
    case HW_PB_VARINT:
        *number = hw_reader_varint(r);
        break;
    case HW_PB_FIXED64:
        *number = hw_reader_u64(r);
        break;
    case HW_PB_BYTES:
        *bytes = hw_reader_bytes(r);
        break;
    case HW_PB_FIXED32:
        *number = hw_reader_u32(r);
        break;
    default:
        r->failed = true;
    }
    return !r->failed;
}

int hw_pack(const ProtobufCMessage *message, struct hw_buf *out)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size == 0) {
        return 0; /* an empty buffer has no memory to point into */
    }
    if (hw_buf_reserve(out, size) != 0) {
        return HW_ERR_NOMEM;
    }
    out->len += protobuf_c_message_pack(message, out->data + out->len);
    return 0;
}
