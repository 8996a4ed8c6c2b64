/* Unit tests: a thin layer over CUnit. A test file holds cases and registers them as one suite:
 *
 *     static void put_fails_when_lease_is_gone(void) { CHECK(...); }
 *     HW_SUITE(hot_txn, HW_CASE(put_fails_when_lease_is_gone), ...);
 *
 * The runner (main.c) finds suites by their constructors. `unit NAME...` runs suites whose name starts with NAME.
 */
#ifndef HW_TEST_H
#define HW_TEST_H

#include <CUnit/CUnit.h>
#include <stddef.h>

struct hw_case {
    const char *name;
    void (*run)(void);
};

struct hw_suite {
    const char *name;
    const struct hw_case *cases;
    size_t case_count;
    struct hw_suite *next;
};

void hw_suite_register(struct hw_suite *s);

#define HW_CASE(fn) \
    {               \
#fn, fn     \
    }
#define HW_SUITE(suite_name, ...)                                                                                    \
    static const struct hw_case suite_cases_[] = {__VA_ARGS__};                                                      \
    static struct hw_suite suite_ = {#suite_name, suite_cases_, sizeof suite_cases_ / sizeof suite_cases_[0], NULL}; \
    __attribute__((constructor)) static void suite_register_(void)                                                   \
    {                                                                                                                \
        hw_suite_register(&suite_);                                                                                  \
    }

/* CHECK goes on after a failure, REQUIRE leaves the case. */
#define CHECK(expr) CU_ASSERT(expr)
#define REQUIRE(expr) CU_ASSERT_FATAL(expr)
#define CHECK_EQ(a, b) CU_ASSERT_EQUAL((a), (b))
#define CHECK_STR(a, b) CU_ASSERT_STRING_EQUAL((a), (b))

/* A fresh folder under $TMPDIR (or /tmp), removed with its contents when the runner ends. Valid until then. */
const char *hw_test_dir(void);

#endif
