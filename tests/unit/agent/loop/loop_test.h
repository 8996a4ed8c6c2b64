/* What the tests of agent/loop share: turning a loop until something is so, and raw sockets as peers. */
#ifndef HW_TEST_LOOP_H
#define HW_TEST_LOOP_H

#include <stdbool.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/loop/stream.h"
#include "tests/unit/hw_test.h"

#define TEST_PATIENCE_MS 20000

static inline void test_expired(void *ctx)
{
    *(bool *)ctx = true;
}

/* Turn until *flag; false when TEST_PATIENCE_MS were not enough. */
static inline bool test_turn_until(struct hw_loop *loop, const bool *flag)
{
    bool expired = false;
    struct hw_timer *t = hw_timer_new(loop, "patience", test_expired, &expired);
    hw_timer_start(t, TEST_PATIENCE_MS, 0);
    while (!*flag && !expired) {
        hw_loop_turn(loop, true);
    }
    hw_timer_free(t);
    return *flag;
}

/* Go on turning for a while: for what must not happen. */
static inline void test_turn_for(struct hw_loop *loop, uint64_t ms)
{
    bool expired = false;
    struct hw_timer *t = hw_timer_new(loop, "while", test_expired, &expired);
    hw_timer_start(t, ms, 0);
    while (!expired) {
        hw_loop_turn(loop, true);
    }
    hw_timer_free(t);
}

static inline struct hw_loop *test_loop_new(void)
{
    struct hw_loop *loop = NULL;
    CU_ASSERT_EQUAL_FATAL(hw_loop_new(&loop, NULL, 0), 0);
    return loop;
}

#endif
