#include "agent/replica/quota.h"

#include "tests/unit/hw_test.h"

static void it_stays_over_until_well_below(void)
{
    struct hw_quota q = {.bytes_max = 1000};
    CHECK(!hw_quota_update(&q, 999));
    CHECK(!q.is_over);
    CHECK(hw_quota_update(&q, 1000));
    CHECK(q.is_over);
    CHECK(!hw_quota_update(&q, 999));
    CHECK(!hw_quota_update(&q, 950));
    CHECK(q.is_over);
    CHECK(hw_quota_update(&q, 949));
    CHECK(!q.is_over);
    CHECK(!hw_quota_update(&q, 999));
    CHECK(!q.is_over);
}

static void zero_is_no_bound(void)
{
    struct hw_quota q = {.bytes_max = 0};
    CHECK(!hw_quota_update(&q, UINT64_MAX));
    CHECK(!q.is_over);
}

HW_SUITE(replica_quota, HW_CASE(it_stays_over_until_well_below), HW_CASE(zero_is_no_bound))
