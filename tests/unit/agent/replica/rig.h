/* One replica with its real disk, in this process: a cluster of one node (or one of several members of which the others
 * never come), on a fresh folder or on the one that an earlier rig has left.
 */
#ifndef HW_TEST_REPLICA_RIG_H
#define HW_TEST_REPLICA_RIG_H

#include "agent/replica/replica.h"
#include "tests/unit/hw_test.h"

#define RRIG_CLUSTER 0xabcdef01u
#define RRIG_SELF 7
#define RRIG_PATIENCE_MS 15000

struct rrig {
    struct hw_loop *loop;
    struct hw_pool *resolver;
    struct hw_metrics *metrics;
    struct hw_timer *tick;
    struct hw_replica *replica;
    struct hw_replica_config config; /* of the last start; change it before rrig_start */
    char data[256];
    int starts;
    int start_status;
    char start_why[HW_ERROR_TEXT_MAX];
    int failures;
    int closed;
};

/* A loop and a fresh data folder; nothing is started. */
void rrig_open(struct rrig *r);
/* Start the replica. */
void rrig_begin(struct rrig *r);
/* ... and wait for what comes of it: its status. */
int rrig_start(struct rrig *r);
/* ... and until it is hot. */
void rrig_start_hot(struct rrig *r);
/* In order: a last checkpoint, then all is closed. */
void rrig_stop(struct rrig *r);
void rrig_close(struct rrig *r);

bool rrig_until(struct rrig *r, const int *value, int want);
bool rrig_until_image(struct rrig *r, uint64_t index);
void rrig_turns(struct rrig *r, unsigned ms);
/* Write and wait; the status. */
int rrig_put(struct rrig *r, const char *key, const char *value);
/* Linearizable read, waited for; then the value: "" when there is none, "?" when the read failed. */
const char *rrig_get(struct rrig *r, const char *key);
/* Of the state as it is. */
const char *rrig_peek(struct rrig *r, const char *key);

#endif
