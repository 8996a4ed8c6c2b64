#include <errno.h>
#include <string.h>

#include "agent/base/err.h"
#include "tests/unit/hw_test.h"

static void every_code_has_name_text_and_a_nonzero_exit(void)
{
#define X(name, code, grpc, exit, text)             \
    CHECK_STR(hw_err_name(HW_ERR_##name), #name);   \
    CHECK_EQ(hw_err_by_name(#name), HW_ERR_##name); \
    CHECK(hw_err_grpc(HW_ERR_##name) > 0);          \
    CHECK(hw_err_exit(HW_ERR_##name) > 0);          \
    CHECK(strlen(hw_err_text(HW_ERR_##name)) > 0);
    HW_ERR_LIST(X)
#undef X
    CHECK_EQ(hw_err_exit(0), 0);
    CHECK_EQ(hw_err_by_name("NO_SUCH"), 0);
}

static void wrapping_prefixes_what_was_done(void)
{
    struct hw_error e = {0};
    CHECK_EQ(hw_error_errno(&e, ENOSPC, "write %s", "image.db"), HW_ERR_NOSPACE);
    CHECK_EQ(hw_error_wrap(&e, "checkpoint"), HW_ERR_NOSPACE);
    CHECK_STR(e.text, "checkpoint: write image.db: No space left on device");
}

static void a_null_carrier_keeps_the_code(void)
{
    CHECK_EQ(hw_error_set(NULL, HW_ERR_CORRUPT, "x"), HW_ERR_CORRUPT);
    CHECK_EQ(hw_error_errno(NULL, ENOENT, "x"), HW_ERR_NOTFOUND);
}

static void a_long_text_is_cut_not_overrun(void)
{
    struct hw_error e = {0};
    char big[2000];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    hw_error_set(&e, HW_ERR_IO, "%s", big);
    hw_error_wrap(&e, "%s", big);
    CHECK(strlen(e.text) < sizeof e.text);
}

HW_SUITE(base_err, HW_CASE(every_code_has_name_text_and_a_nonzero_exit), HW_CASE(wrapping_prefixes_what_was_done),
         HW_CASE(a_null_carrier_keeps_the_code), HW_CASE(a_long_text_is_cut_not_overrun))
