/* What a key with --prefix or --from-key stands for on the wire. Pure. */
#ifndef HW_CLI_RANGE_H
#define HW_CLI_RANGE_H

#include "agent/base/buf.h"

enum hw_ctl_range_kind { HW_CTL_RANGE_ONE, HW_CTL_RANGE_PREFIX, HW_CTL_RANGE_FROM };

/* Fills the end of the range; it stays empty for a single key. An empty key with another kind becomes etcd's first key
 * (one zero byte). The end's memory is static or `end_buf`, which the caller frees and whose `failed` it checks. */
void hw_ctl_range_of(enum hw_ctl_range_kind kind, struct hw_slice *key, struct hw_slice *end, struct hw_buf *end_buf);

#endif
