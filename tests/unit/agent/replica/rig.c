#include "tests/unit/agent/replica/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"

static void on_started(void *ctx, int status, const char *why)
{
    struct rrig *r = ctx;
    r->starts++;
    r->start_status = status;
    snprintf(r->start_why, sizeof r->start_why, "%s", why != NULL ? why : "");
}

static void on_change(void *ctx)
{
    (void)ctx;
}

static void on_failed(void *ctx, const char *why)
{
    struct rrig *r = ctx;
    printf("  the replica failed: %s\n", why);
    r->failures++;
}

static const struct hw_replica_ops replica_ops = {
    .on_started = on_started, .on_change = on_change, .on_failed = on_failed};

static void on_tick(void *ctx)
{
    (void)ctx;
}

static void make_folder(struct rrig *r, const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", r->data, name);
    REQUIRE(mkdir(path, 0700) == 0);
}

void rrig_open(struct rrig *r)
{
    memset(r, 0, sizeof *r);
    REQUIRE(hw_loop_new(&r->loop, NULL, 0) == 0);
    REQUIRE(hw_pool_new(r->loop, "resolve", 1, 16, &r->resolver, NULL) == 0);
    r->metrics = hw_metrics_new();
    r->tick = hw_timer_new(r->loop, "tick", on_tick, r);
    hw_timer_start(r->tick, 2, 2);
    snprintf(r->data, sizeof r->data, "%s", hw_test_dir());
    make_folder(r, "raft");
    make_folder(r, "incoming");
    hw_consensus_config_default(&r->config.consensus);
    r->config.consensus.id = RRIG_SELF;
    r->config.consensus.cluster_id = RRIG_CLUSTER;
    r->config.consensus.address = "127.0.0.1:1";
    r->config.data = r->data;
    r->config.checkpoint_interval_ms = 20;
    r->config.checkpoint_dirty_bytes = 1 << 20;
    r->config.transfer_chunk_bytes = 1 << 16;
    r->config.reads_max = 100;
    r->config.forwards_max = 100;
    r->config.scan_slice_keys = 1000;
    r->config.is_bootstrap = true;
    r->config.member_count = 1;
    r->config.members[0] = (struct hw_member){.id = RRIG_SELF, .address = "127.0.0.1:1", .role = HW_ROLE_VOTER};
}

bool rrig_until(struct rrig *r, const int *value, int want)
{
    uint64_t end_ms = hw_mono_ms() + RRIG_PATIENCE_MS;
    while (*value < want && hw_mono_ms() < end_ms) {
        hw_loop_turn(r->loop, true);
    }
    return *value >= want;
}

void rrig_turns(struct rrig *r, unsigned ms)
{
    uint64_t end_ms = hw_mono_ms() + ms;
    while (hw_mono_ms() < end_ms) {
        hw_loop_turn(r->loop, true);
    }
}

void rrig_begin(struct rrig *r)
{
    struct hw_error e = {0};
    r->starts = 0;
    REQUIRE(hw_replica_new(r->loop, r->resolver, r->metrics, &r->config, &replica_ops, r, &r->replica, &e) == 0);
    hw_replica_start(r->replica);
}

int rrig_start(struct rrig *r)
{
    rrig_begin(r);
    CHECK(rrig_until(r, &r->starts, 1));
    return r->start_status;
}

void rrig_start_hot(struct rrig *r)
{
    uint64_t end_ms = hw_mono_ms() + RRIG_PATIENCE_MS;
    REQUIRE(rrig_start(r) == 0);
    while (!hw_replica_is_hot(r->replica) && hw_mono_ms() < end_ms) {
        hw_loop_turn(r->loop, true);
    }
    REQUIRE(hw_replica_is_hot(r->replica));
}

static void on_closed(void *ctx)
{
    ((struct rrig *)ctx)->closed++;
}

void rrig_stop(struct rrig *r)
{
    r->closed = 0;
    hw_replica_shut(r->replica, on_closed, r);
    CHECK(rrig_until(r, &r->closed, 1));
    hw_replica_free(r->replica);
    r->replica = NULL;
}

void rrig_close(struct rrig *r)
{
    if (r->replica != NULL) {
        rrig_stop(r);
    }
    r->closed = 0;
    hw_pool_shut(r->resolver, on_closed, r);
    CHECK(rrig_until(r, &r->closed, 1));
    hw_timer_free(r->tick);
    for (int i = 0; i < 1000 && hw_loop_turn(r->loop, true); i++) {
    }
    hw_pool_free(r->resolver);
    hw_loop_free(r->loop);
    hw_metrics_free(r->metrics);
    CHECK_EQ(r->failures, 0);
}

bool rrig_until_image(struct rrig *r, uint64_t index)
{
    uint64_t end_ms = hw_mono_ms() + RRIG_PATIENCE_MS;
    struct hw_replica_status s;
    do {
        hw_loop_turn(r->loop, true);
        hw_replica_status(r->replica, &s);
    } while (s.image_index < index && hw_mono_ms() < end_ms);
    return s.image_index >= index;
}

struct waiting {
    int ends;
    int status;
};

static void on_written(struct hw_write *w, int status)
{
    struct waiting *x = w->data;
    x->ends++;
    x->status = status;
}

int rrig_put(struct rrig *r, const char *key, const char *value)
{
    struct waiting x = {0};
    struct hw_op op = {.type = HW_OP_PUT, .put = {.key = hw_slice_str(key), .value = hw_slice_str(value)}};
    struct hw_cmd cmd = {.type = HW_CMD_TXN, .wall_ms = 1, .txn = {.success = &op, .success_count = 1}};
    struct hw_write w = {.done = on_written, .data = &x};
    int rc = hw_write_encode(&w, &cmd);
    REQUIRE(rc == 0);
    rc = hw_replica_write(r->replica, &w);
    if (rc != 0) {
        return rc;
    }
    CHECK(rrig_until(r, &x.ends, 1));
    return x.status;
}

static void on_read(struct hw_read *rd, int status)
{
    struct waiting *x = rd->data;
    x->ends++;
    x->status = status;
}

const char *rrig_peek(struct rrig *r, const char *key)
{
    static char value[256];
    struct hw_range range = {.key = hw_slice_str(key)};
    struct hw_version *const *kvs;
    struct hw_scan *scan;
    size_t n;
    REQUIRE(hw_scan_start(hw_replica_hot(r->replica), &range, &scan) == 0);
    while (hw_scan_step(scan, 100) > 0) {
    }
    kvs = hw_scan_kvs(scan, &n);
    snprintf(value, sizeof value, "%.*s", n == 0 ? 0 : (int)kvs[0]->value_len, n == 0 ? "" : (char *)kvs[0]->value);
    hw_scan_close(scan);
    return value;
}

const char *rrig_get(struct rrig *r, const char *key)
{
    struct waiting x = {0};
    struct hw_read rd = {.done = on_read, .data = &x};
    int rc = hw_replica_read(r->replica, &rd, 5000);
    if (rc != 0 || !rrig_until(r, &x.ends, 1) || x.status != 0) {
        return "?";
    }
    return rrig_peek(r, key);
}
