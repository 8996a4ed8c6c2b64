/* The clock of leases in a replica that is a cluster of its own. */
#include "agent/replica/lease.h"

#include <string.h>

#include "agent/base/clock.h"
#include "tests/unit/agent/replica/rig.h"

#define MANY 5000

struct put_or_grant {
    struct hw_write write;
    int is_done;
    int status;
    int code;
};

static void on_done(struct hw_write *w, int status)
{
    struct put_or_grant *p = w->data;
    p->is_done = 1;
    p->status = status;
    p->code = w->result.code;
}

static int write_cmd(struct rrig *r, const struct hw_cmd *cmd)
{
    struct put_or_grant p = {.is_done = 0};
    p.write.done = on_done;
    p.write.data = &p;
    REQUIRE(hw_write_encode(&p.write, cmd) == 0);
    REQUIRE(hw_replica_write(r->replica, &p.write) == 0);
    REQUIRE(rrig_until(r, &p.is_done, 1));
    return p.status != 0 ? p.status : p.code;
}

static int grant(struct rrig *r, int64_t id, int64_t ttl_s)
{
    struct hw_cmd cmd = {.type = HW_CMD_LEASE_GRANT, .wall_ms = 1, .grant = {id, ttl_s}};
    return write_cmd(r, &cmd);
}

static int write_remaining(struct rrig *r, int64_t id, int64_t remaining_s)
{
    struct hw_lease_remaining one = {id, remaining_s};
    struct hw_cmd cmd = {.type = HW_CMD_LEASE_CHECKPOINT, .wall_ms = 1};
    cmd.checkpoint.leases = &one;
    cmd.checkpoint.count = 1;
    return write_cmd(r, &cmd);
}

static bool is_there(struct rrig *r, int64_t id)
{
    struct hw_lease_view view;
    return hw_hot_lease(hw_replica_hot(r->replica), id, &view) == 0;
}

struct waiting {
    struct hw_keep_alive k;
    int is_done;
    int status;
};

static void on_kept(struct hw_keep_alive *k, int status)
{
    struct waiting *w = k->data;
    w->is_done = 1;
    w->status = status;
}

static int keep_alive(struct rrig *r, int64_t id, int64_t *ttl_s)
{
    struct waiting w = {.is_done = 0};
    w.k.done = on_kept;
    w.k.data = &w;
    w.k.id = id;
    REQUIRE(hw_replica_lease_keep_alive(r->replica, &w.k, 5000) == 0);
    REQUIRE(rrig_until(r, &w.is_done, 1));
    *ttl_s = w.k.ttl_s;
    return w.status;
}

static void a_lease_ends_by_itself_and_not_early(void)
{
    struct rrig r;
    uint64_t begun;
    rrig_open(&r);
    rrig_start_hot(&r);
    begun = hw_mono_ms();
    CHECK_EQ(grant(&r, 1, 1), 0);
    CHECK_EQ(grant(&r, 2, 100), 0);
    CHECK_EQ(grant(&r, 2, 100), HW_ERR_EXISTS);
    while (is_there(&r, 1) && hw_mono_ms() - begun < RRIG_PATIENCE_MS) {
        rrig_turns(&r, 5);
    }
    CHECK(!is_there(&r, 1));
    CHECK(hw_mono_ms() - begun >= 1000);
    CHECK(is_there(&r, 2));
    rrig_close(&r);
}

static void keeping_alive_keeps_it(void)
{
    struct rrig r;
    int64_t ttl_s = 0;
    int64_t left_s = 0;
    uint64_t begun;
    rrig_open(&r);
    rrig_start_hot(&r);
    CHECK_EQ(grant(&r, 1, 1), 0);
    for (begun = hw_mono_ms(); hw_mono_ms() - begun < 2500;) {
        CHECK_EQ(keep_alive(&r, 1, &ttl_s), 0);
        CHECK_EQ(ttl_s, 1);
        rrig_turns(&r, 100);
    }
    CHECK(is_there(&r, 1));
    CHECK_EQ(hw_replica_lease_left(r.replica, 1, &left_s), 0);
    CHECK(left_s <= 1);
    CHECK_EQ(keep_alive(&r, 99, &ttl_s), HW_ERR_NOTFOUND);
    CHECK_EQ(hw_replica_lease_left(r.replica, 99, &left_s), HW_ERR_NOTFOUND);
    CHECK_EQ(hw_replica_lease_renew(r.replica, 99, &ttl_s), HW_ERR_NOTFOUND);
    rrig_close(&r);
}

/* Otherwise the next hot node would end it early, although its owner was told that it has all its time. */
static void a_keep_alive_first_writes_back_to_full_what_was_written_down(void)
{
    struct rrig r;
    struct hw_lease_view view;
    int64_t ttl_s = 0;
    uint64_t applied;
    rrig_open(&r);
    rrig_start_hot(&r);
    CHECK_EQ(grant(&r, 1, 60), 0);
    applied = hw_hot_applied(hw_replica_hot(r.replica));
    CHECK_EQ(keep_alive(&r, 1, &ttl_s), 0);
    CHECK_EQ(hw_hot_applied(hw_replica_hot(r.replica)), applied); /* nothing to write: no log entry */
    CHECK_EQ(write_remaining(&r, 1, 7), 0);
    CHECK_EQ(keep_alive(&r, 1, &ttl_s), 0);
    CHECK_EQ(ttl_s, 60);
    REQUIRE(hw_hot_lease(hw_replica_hot(r.replica), 1, &view) == 0);
    CHECK_EQ(view.remaining_s, 0);
    rrig_close(&r);
}

static void what_is_left_survives_a_restart(void)
{
    struct rrig r;
    int64_t left_s = 0;
    rrig_open(&r);
    rrig_start_hot(&r);
    CHECK_EQ(grant(&r, 1, 60), 0);
    CHECK_EQ(grant(&r, 2, 60), 0);
    CHECK_EQ(write_remaining(&r, 2, 7), 0);
    rrig_stop(&r);
    rrig_start_hot(&r);
    CHECK_EQ(hw_replica_lease_left(r.replica, 1, &left_s), 0);
    CHECK(left_s > 50);
    CHECK_EQ(hw_replica_lease_left(r.replica, 2, &left_s), 0);
    CHECK(left_s >= 5 && left_s <= 8);
    rrig_close(&r);
}

static void remaining_time_is_written_down_by_itself(void)
{
    struct rrig r;
    struct hw_lease_view view = {0};
    uint64_t begun;
    rrig_open(&r);
    rrig_start_hot(&r);
    CHECK_EQ(grant(&r, 1, 6), 0);
    for (begun = hw_mono_ms(); view.remaining_s == 0 && hw_mono_ms() - begun < 6000;) {
        rrig_turns(&r, 20);
        REQUIRE(hw_hot_lease(hw_replica_hot(r.replica), 1, &view) == 0);
    }
    CHECK(view.remaining_s >= 2 && view.remaining_s <= 4);
    rrig_close(&r);
}

/* More at once than may be under way. */
static void thousands_end_together(void)
{
    struct rrig r;
    struct hw_hot *hot;
    uint64_t begun;
    rrig_open(&r);
    rrig_start_hot(&r);
    for (int64_t id = 1; id <= MANY; id += 100) {
        struct put_or_grant p[100] = {{.is_done = 0}};
        for (int i = 0; i < 100; i++) {
            struct hw_cmd cmd = {.type = HW_CMD_LEASE_GRANT, .wall_ms = 1, .grant = {id + i, 2}};
            p[i].write.done = on_done;
            p[i].write.data = &p[i];
            REQUIRE(hw_write_encode(&p[i].write, &cmd) == 0);
            REQUIRE(hw_replica_write(r.replica, &p[i].write) == 0);
        }
        for (int i = 0; i < 100; i++) {
            REQUIRE(rrig_until(&r, &p[i].is_done, 1));
        }
    }
    hot = hw_replica_hot(r.replica);
    for (begun = hw_mono_ms(); hw_hot_lease_count(hot) > 0 && hw_mono_ms() - begun < RRIG_PATIENCE_MS;) {
        rrig_turns(&r, 20);
    }
    CHECK_EQ(hw_hot_lease_count(hot), 0);
    rrig_close(&r);
}

static void the_state_is_compacted_by_number(void)
{
    struct rrig r;
    uint64_t begun;
    rrig_open(&r);
    r.config.compaction_retention_revisions = 10;
    r.config.compaction_interval_ms = 1000;
    rrig_start_hot(&r);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(rrig_put(&r, "a", "1"), 0);
    }
    for (begun = hw_mono_ms(); hw_hot_compacted(hw_replica_hot(r.replica)) == 0 && hw_mono_ms() - begun < 5000;) {
        rrig_turns(&r, 20);
    }
    CHECK(hw_hot_compacted(hw_replica_hot(r.replica)) <= 41);
    CHECK(hw_hot_compacted(hw_replica_hot(r.replica)) > 0);
    rrig_close(&r);
}

static void growth_is_refused_when_the_state_is_full(void)
{
    struct rrig r;
    struct hw_replica_status s;
    rrig_open(&r);
    rrig_start_hot(&r);
    CHECK(hw_replica_may_grow(r.replica)); /* no bound */
    rrig_stop(&r);
    r.config.state_bytes_max = 1;
    rrig_start_hot(&r);
    CHECK(!hw_replica_may_grow(r.replica));
    hw_replica_status(r.replica, &s);
    CHECK(s.is_full);
    rrig_close(&r);
}

HW_SUITE(replica_lease, HW_CASE(a_lease_ends_by_itself_and_not_early), HW_CASE(keeping_alive_keeps_it),
         HW_CASE(a_keep_alive_first_writes_back_to_full_what_was_written_down),
         HW_CASE(what_is_left_survives_a_restart), HW_CASE(remaining_time_is_written_down_by_itself),
         HW_CASE(thousands_end_together), HW_CASE(the_state_is_compacted_by_number),
         HW_CASE(growth_is_refused_when_the_state_is_full))
