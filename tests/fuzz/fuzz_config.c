/* Fuzz the configuration file: whatever is accepted must print as a file that reads back to the same configuration, and
 * whatever is refused must come with problems. */
#include <stdlib.h>

#include "agent/base/assert.h"
#include "agent/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hw_config first;
    struct hw_config second;
    struct hw_config_problems problems;
    struct hw_buf printed = {0};
    struct hw_buf diff = {0};
    int rc = hw_config_parse("fuzz", data, size, &first, &problems);
    hw_assert((rc == 0) == (problems.count == 0));
    hw_config_problems_free(&problems);
    if (rc != 0) {
        return 0;
    }
    hw_config_print(&first, &printed);
    rc = hw_config_parse("printed", printed.data, printed.len, &second, &problems);
    hw_assert(rc == 0);
    hw_config_diff(&first, &second, &diff, &diff);
    hw_assert(diff.len == 0);
    hw_config_problems_free(&problems);
    hw_buf_free(&printed);
    hw_buf_free(&diff);
    return 0;
}
