/* The partly fetched image: incoming/image.part, and beside it incoming/image.part.from, which says what it is a part
 * of. So a node that was killed in the middle of a fetch can ask for the rest, as long as the source still has that
 * copy.
 *
 * The part is written in rising order, so its size is how much of it is there; what it holds is checked as a whole when
 * it is complete. Blocking: for a worker. Nothing is kept between calls.
 */
#ifndef HW_WARM_PART_H
#define HW_WARM_PART_H

#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"

struct hw_part {
    uint64_t cluster_id;
    uint64_t source; /* Raft id of the node that sends it */
    uint64_t token;  /* of the source's copy */
    uint64_t index;  /* log index of that copy */
    uint64_t total_bytes;
    uint64_t received_bytes; /* not kept: the size of the part */
};

/* incoming/image.part of a data folder. */
void hw_part_path(const char *data, char *path, size_t size);
/* HW_ERR_NOTFOUND when there is none that could be gone on with: no file, or one that is damaged or of another cluster
 * or format; HW_ERR_IO. */
int hw_part_load(const char *data, uint64_t cluster_id, struct hw_part *part, struct hw_error *e);
/* Begin a new one: an empty part, and then what it will be a part of. */
int hw_part_begin(const char *data, const struct hw_part *part, struct hw_error *e);
/* Write at an offset of the part. */
int hw_part_write(const char *data, struct hw_slice bytes, uint64_t at, struct hw_error *e);
/* Is it complete, as the source has it? Makes it durable. HW_ERR_CORRUPT. */
int hw_part_check(const char *data, uint64_t size, uint64_t checksum, struct hw_error *e);
/* Nothing to go on with any more; the part itself stays. */
void hw_part_forget(const char *data);

#endif
