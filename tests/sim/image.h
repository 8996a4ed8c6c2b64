/* The durable image as a value. image_init / image_free; copies share their versions. */
#ifndef HW_SIM_IMAGE_H
#define HW_SIM_IMAGE_H

#include "storage/hot/lease.h"

struct sim;

struct image {
    struct hw_hot_counters counters;
    struct hw_version **versions;
    size_t version_count;
    size_t version_cap;
    struct hw_node *nodes;
    size_t node_count;
    struct hw_event *events;
    size_t event_count;
    struct hw_lease_record *leases; /* by rising id, those that exist */
    size_t lease_count;
};
void image_init(struct image *m);
void image_free(struct image *m);
void image_apply(struct image *m, const struct hw_cut *cut);
void image_copy(struct image *to, const struct image *from);
/* NULL and a failed run when it cannot be loaded. */
struct hw_hot *image_load(struct sim *s, struct image *m);

#endif
