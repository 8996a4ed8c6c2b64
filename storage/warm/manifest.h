/* The manifest: what a Raft snapshot of ours holds. Small, because the data lives in the image: it says which state the
 * image must contain, so that a node behind the log knows what to fetch and can tell whether it got it.
 *
 * Pure values; no life cycle. Encoding (little-endian): 4 bytes "HWmf", u32 manifest format, u64 cluster id, u64 log
 * index, u64 revision, u32 image format, u64 state hash, u64 xxh3 of all bytes before it: 52 bytes. The format stands
 * second for ever, so that an older program can say what it met.
 */
#ifndef HW_WARM_MANIFEST_H
#define HW_WARM_MANIFEST_H

#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "storage/hot/record.h"

#define HW_MANIFEST_FORMAT 1
#define HW_MANIFEST_BYTES 52

struct hw_manifest {
    uint32_t format;
    uint64_t cluster_id;
    uint64_t index; /* of the log */
    hw_rev revision;
    uint32_t image_format;
    uint64_t hash; /* hw_hot_hash at index */
};

/* Append the encoding, in HW_MANIFEST_FORMAT whatever m->format says. HW_ERR_NOMEM. */
int hw_manifest_encode(const struct hw_manifest *m, struct hw_buf *out);

/* Accepts exactly what encode writes. HW_ERR_CORRUPT; HW_ERR_VERSION when the manifest or the image that it stands for
 * has a newer format than this program knows. */
int hw_manifest_decode(const void *data, size_t len, struct hw_manifest *m, struct hw_error *e);

#endif
