/* States, cuts and images for the tests of storage/warm. */
#ifndef HW_TEST_WARM_FIXTURE_H
#define HW_TEST_WARM_FIXTURE_H

#include "storage/warm/image.h"

#define FIXTURE_CLUSTER 0x1234567890abcdefull

/* A state that commands are applied to, as the replica does. */
struct fixture {
    struct hw_hot *hot;
    uint64_t index;
};

void fixture_init(struct fixture *f);
void fixture_close(struct fixture *f);
void fixture_put(struct fixture *f, const char *key, const char *value);
/* Without the lease, the put is refused by the state, which is no failure here. */
void fixture_put_leased(struct fixture *f, const char *key, const char *value, int64_t lease);
void fixture_grant(struct fixture *f, int64_t id, int64_t ttl_s);
void fixture_revoke(struct fixture *f, int64_t id);
void fixture_remaining(struct fixture *f, int64_t id, int64_t remaining_s);
/* Put and deleted again, in one revision. */
void fixture_put_and_delete(struct fixture *f, const char *key);
void fixture_delete(struct fixture *f, const char *key);
void fixture_compact(struct fixture *f, hw_rev revision);
void fixture_node(struct fixture *f, uint64_t id, const char *name);
void fixture_event(struct fixture *f, const char *kind, const char *text);
void fixture_hot(struct fixture *f, uint64_t node_id, uint64_t epoch);
/* Cut and write; the result of hw_image_apply. */
int fixture_checkpoint(struct fixture *f, struct hw_image *image, struct hw_error *e);

/* "<folder>/<name>" in memory that lives until 64 calls later. */
const char *fixture_path(const char *folder, const char *name);
/* All bytes of a file; abort when that fails. */
char *fixture_slurp(const char *path, size_t *len);
void fixture_spill(const char *path, const void *data, size_t len);
void fixture_copy_file(const char *from, const char *to);
/* Everything that a state answers, as one number: every version of every key, what a watcher
 * from the compacted revision on is told, leases and their keys, registry, history, counters. */
uint64_t fixture_digest(struct hw_hot *hot);
/* Open, verify, load; 0 when all went well. The image must name the cluster. */
int fixture_reopen(const char *path, struct hw_image_meta *meta, uint64_t *digest, struct hw_error *e);

#endif
