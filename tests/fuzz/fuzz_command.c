/* Log commands and manifests: what is accepted is encoded again to the same bytes; what is not is refused in words. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "storage/hot/hot.h"
#include "storage/warm/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hw_cmd cmd;
    struct hw_manifest manifest;
    struct hw_error e = {0};
    struct hw_buf again;
    int rc = hw_cmd_decode(data, size, &cmd, &e);
    hw_buf_init(&again);
    if (rc == 0) {
        hw_assert(hw_cmd_encode(&cmd, &again) == 0);
        hw_assert(again.len == size && memcmp(again.data, data, size) == 0);
    } else {
        hw_assert(rc < 0 && e.text[0] != '\0');
    }
    hw_cmd_free(&cmd);
    if (rc == 0) {
        struct hw_hot *hot = hw_hot_new();
        struct hw_result result;
        hw_assert(hot != NULL);
        hw_result_init(&result);
        hw_assert(hw_hot_apply(hot, 1, data, size, &result, &e) == 0);
        hw_assert(hw_hot_check(hot) == NULL);
        hw_result_free(&result);
        hw_hot_free(hot);
    }
    hw_buf_clear(&again);
    if (hw_manifest_decode(data, size, &manifest, &e) == 0) {
        hw_assert(hw_manifest_encode(&manifest, &again) == 0);
        hw_assert(again.len == size && memcmp(again.data, data, size) == 0);
    }
    hw_buf_free(&again);
    return 0;
}
