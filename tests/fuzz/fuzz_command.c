/* Log commands and manifests: what is accepted is encoded again to the same bytes; what is not is refused in words. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "storage/hot/hot.h"
#include "storage/warm/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void apply(struct hw_hot *hot, const struct hw_cmd *cmd)
{
    struct hw_buf b;
    hw_buf_init(&b);
    hw_assert(hw_cmd_encode(cmd, &b) == 0);
    hw_assert(hw_hot_apply(hot, hw_hot_applied(hot) + 1, b.data, b.len, NULL, NULL) == 0);
    hw_buf_free(&b);
}

/* A state in which commands find something: a lease with a key, a key without one, a tombstone. */
static struct hw_hot *furnished(void)
{
    struct hw_op ops[] = {
        {.type = HW_OP_PUT, .put = {.key = hw_slice_str("a"), .value = hw_slice_str("1"), .lease = 1}},
        {.type = HW_OP_PUT, .put = {.key = hw_slice_str("b")}},
        {.type = HW_OP_PUT, .put = {.key = hw_slice_str("c")}},
    };
    struct hw_op del = {.type = HW_OP_DELETE, .del = {.key = hw_slice_str("c")}};
    struct hw_hot *hot = hw_hot_new();
    hw_assert(hot != NULL);
    apply(hot, &(struct hw_cmd){.type = HW_CMD_LEASE_GRANT, .grant = {1, 60}});
    apply(hot, &(struct hw_cmd){.type = HW_CMD_TXN, .txn = {.success = ops, .success_count = hw_array_len(ops)}});
    apply(hot, &(struct hw_cmd){.type = HW_CMD_TXN, .txn = {.success = &del, .success_count = 1}});
    return hot;
}

static void try_on_a_state(const uint8_t *data, size_t size)
{
    struct hw_hot *hot = furnished();
    struct hw_result result;
    struct hw_error e = {0};
    struct hw_cut *cut;
    hw_result_init(&result);
    hw_assert(hw_hot_apply(hot, hw_hot_applied(hot) + 1, data, size, &result, &e) == 0);
    hw_assert(hw_hot_check(hot) == NULL);
    hw_assert(hw_hot_cut(hot, &cut) == 0);
    while (hw_hot_sweep(hot, 10)) {
    }
    hw_assert(hw_hot_check(hot) == NULL);
    hw_cut_free(cut);
    hw_result_free(&result);
    hw_hot_free(hot);
}

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
        try_on_a_state(data, size);
    }
    hw_buf_clear(&again);
    if (hw_manifest_decode(data, size, &manifest, &e) == 0) {
        hw_assert(hw_manifest_encode(&manifest, &again) == 0);
        hw_assert(again.len == size && memcmp(again.data, data, size) == 0);
    }
    hw_buf_free(&again);
    return 0;
}
