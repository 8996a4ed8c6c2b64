#include "agent/replica/quota.h"

uint64_t hw_quota_clear_below(const struct hw_quota *q)
{
    return q->bytes_max - q->bytes_max / 20;
}

bool hw_quota_update(struct hw_quota *q, uint64_t bytes)
{
    bool was_over = q->is_over;
    if (q->bytes_max == 0) {
        q->is_over = false;
    } else if (bytes >= q->bytes_max) {
        q->is_over = true;
    } else if (bytes < hw_quota_clear_below(q)) {
        q->is_over = false;
    }
    return q->is_over != was_over;
}
