#include "cli/range.h"

void hw_ctl_range_of(enum hw_ctl_range_kind kind, struct hw_slice *key, struct hw_slice *end, struct hw_buf *end_buf)
{
    static const uint8_t zero[1] = {0};
    size_t len = key->len;
    *end = hw_slice_of(NULL, 0);
    if (kind == HW_CTL_RANGE_ONE) {
        return;
    }
    if (kind == HW_CTL_RANGE_PREFIX) {
        while (len > 0 && key->data[len - 1] == 0xff) {
            len--;
        }
        hw_buf_clear(end_buf);
        hw_buf_append(end_buf, key->data, len);
        if (len > 0 && !end_buf->failed) {
            end_buf->data[len - 1]++;
            *end = hw_buf_slice(end_buf);
        }
    }
    if (end->len == 0) { /* from the key to the end of the key space: etcd writes that as one zero byte */
        *end = hw_slice_of(zero, 1);
    }
    if (key->len == 0) {
        *key = hw_slice_of(zero, 1);
    }
}
