/* What frames log entries and snapshot manifests: what is accepted is framed again to the same bytes, and the two kinds
 * of manifest fit into each other. */
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/err.h"
#include "agent/consensus/frame.h"
#include "storage/warm/manifest.h"
#include "tests/fuzz/fuzz_hash_seam.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_entry(const uint8_t *data, size_t size)
{
    struct hw_slice payload;
    struct hw_buf again = {0};
    uint64_t term;
    uint64_t index;
    int rc = frame_entry_decode(data, size, &term, &index, &payload);
    if (rc != 0) {
        hw_assert(rc == HW_ERR_CORRUPT || rc == HW_ERR_VERSION);
        return;
    }
    hw_assert(frame_entry_begin(&again) == 0);
    hw_assert(hw_buf_append(&again, payload.data, payload.len) == 0);
    hw_assert(frame_entry_end(&again) == 0);
    frame_entry_set_place(&again, term, index);
    hw_assert(again.len == size && memcmp(again.data, data, size) == 0);
    hw_buf_free(&again);
}

static void try_manifest(struct hw_slice payload)
{
    struct hw_manifest m;
    struct hw_error e = {0};
    struct hw_buf again = {0};
    int rc = hw_manifest_decode(payload.data, payload.len, &m, &e);
    if (rc != 0) {
        hw_assert(e.text[0] != '\0');
        return;
    }
    hw_assert(hw_manifest_encode(&m, &again) == 0);
    hw_assert(hw_slice_is_equal(hw_buf_slice(&again), payload));
    hw_buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hw_slice payload;
    struct hw_buf again = {0};
    int rc;
    try_entry(data, size);
    try_manifest(hw_slice_of(data, size));
    rc = frame_manifest_decode(data, size, &payload);
    if (rc != 0) {
        hw_assert(rc == HW_ERR_CORRUPT || rc == HW_ERR_VERSION);
        return 0;
    }
    hw_assert(frame_manifest_encode(payload, &again) == 0);
    hw_assert(again.len == size && memcmp(again.data, data, size) == 0);
    try_manifest(payload);
    hw_buf_free(&again);
    return 0;
}
