/* The tables of an image and its bookkeeping, the head: everything of `meta`, read and written as one. Private to
 * storage/warm. Tables and columns are described in docs/disk-format.md; change both together and raise
 * HW_IMAGE_FORMAT when an older program would misread the result.
 *
 * Every byte that matters is under a hash: rows of `revision` under rows_hash, of `registry` under registry_hash, of
 * `event` under event_hash, of `lease` under lease_hash, and the head itself, these hashes included, under head_hash.
 * All but the last are sums modulo 2^64, so that they follow inserts and deletes without reading the table again.
 *
 * Errors: those of db.h; HW_ERR_CORRUPT for a head that is incomplete or does not fit its hash.
 */
#ifndef HW_WARM_SCHEMA_H
#define HW_WARM_SCHEMA_H

#include "storage/hot/lease.h"
#include "storage/warm/db.h"
#include "storage/warm/image.h"

struct hw_image {
    struct hw_db *db;
};

struct hw_image_head {
    struct hw_image_meta meta;
    uint64_t registry_hash;
    uint64_t event_hash;
    uint64_t lease_hash;
    uint64_t last_id;       /* of `revision`, ever given: ids rise with (main, sub) and are never used again */
    hw_rev swept;           /* the sweep for compaction up to here is done */
    uint64_t sweep_last_id; /* the sweep towards `compacted` has looked at rows up to this id */
};

/* Tables, views, format and a head with applied 0, in one transaction. */
int hw_schema_create(struct hw_db *db, uint64_t cluster_id, struct hw_error *e);
/* Is this an image of a format that we know? Changes nothing. HW_ERR_CORRUPT, HW_ERR_VERSION. */
int hw_schema_check(struct hw_db *db, struct hw_error *e);

/* Within a transaction of the caller's. */
int hw_head_read(struct hw_db *db, struct hw_image_head *head, struct hw_error *e);
int hw_head_write(struct hw_db *db, const struct hw_image_head *head, struct hw_error *e);

/* Each 64-bit hash of one row of the small tables. */
uint64_t hw_node_hash(const struct hw_node *node);
uint64_t hw_event_hash(const struct hw_event *event);
uint64_t hw_lease_hash(const struct hw_lease_record *lease); /* whether it is gone has no part in it */

/* Ids and hashes are kept as 16 hexadecimal digits, as the program prints them. */
#define HW_HEX_SIZE 17
void hw_hex_put(char out[HW_HEX_SIZE], uint64_t value);
bool hw_hex_is_valid(struct hw_slice text, uint64_t *value);

#endif
