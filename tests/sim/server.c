/* One server: libraft under agent/consensus with the simulated disk and network, the state, and its starts and crashes.
 * The rules are agent/replica's; entries that the image already holds are skipped. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "storage/warm/manifest.h"

#define HEARTBEAT_MS 50
#define ELECTION_MS 300
#define TICK_MS 10
/* As agent/consensus sets them. */
#define INSTALL_RESEND_MS 60000
#define CATCH_UP_ROUNDS 10
#define CATCH_UP_ROUND_MS 10000
#define INFLIGHT_ENTRIES 1024
#define CAPACITY_MIN 100

struct server *server_of_id(struct sim *s, uint64_t id)
{
    for (unsigned i = 0; i < s->server_count; i++) {
        if (s->servers[i].id == id) {
            return &s->servers[i];
        }
    }
    return NULL;
}

bool server_is_leader(const struct server *v)
{
    struct hw_consensus_view view;
    if (!v->is_up) {
        return false;
    }
    hw_consensus_view(v->consensus, &view);
    return view.is_leader;
}

bool server_is_hot(const struct server *v)
{
    struct hw_consensus_view view;
    if (!v->is_up) {
        return false;
    }
    hw_consensus_view(v->consensus, &view);
    return view.is_leader && hw_hot_epoch(v->hot) == view.term && hw_hot_hot_node(v->hot) == v->id;
}

/* ---- what consensus asks ---- */

static int on_apply(void *ctx, uint64_t index, uint64_t term, struct hw_slice entry, struct hw_proposal *mine)
{
    struct server *v = ctx;
    struct op *op = mine == NULL ? NULL : hw_container_of(mine, struct op, proposal);
    uint64_t epoch = hw_hot_epoch(v->hot);
    struct hw_error e = {0};
    bool is_applied = index > hw_hot_applied(v->hot);
    if (is_applied) {
        int rc = hw_hot_apply(v->hot, index, entry.data, entry.len, op == NULL ? NULL : &op->result, &e);
        if (rc != 0) {
            sim_fail(v->sim, "server %u cannot apply entry %llu: %s", v->at, (unsigned long long)index, e.text);
            return rc;
        }
    } else if (op != NULL) {
        sim_fail(v->sim, "server %u proposed entry %llu and its image holds it already", v->at,
                 (unsigned long long)index);
    }
    check_entry(v, index, term, entry, epoch, is_applied);
    return 0;
}

static int on_manifest(void *ctx, uint64_t index, struct hw_buf *out)
{
    struct server *v = ctx;
    struct hw_manifest m = {.cluster_id = SIM_CLUSTER, .index = index, .image_format = 1};
    hw_hot_note_index(v->hot, index);
    m.revision = hw_hot_revision(v->hot);
    m.hash = hw_hot_hash(v->hot);
    return hw_manifest_encode(&m, out);
}

static void on_make_durable(void *ctx, const struct hw_durable *d)
{
    struct server *v = ctx;
    if (d->is_install) {
        keep_install(v, d->index);
    } else {
        keep_durable(v, d->index);
    }
}

static int on_restore(void *ctx, struct hw_slice manifest)
{
    struct server *v = ctx;
    struct hw_manifest m;
    struct hw_error e = {0};
    int rc = hw_manifest_decode(manifest.data, manifest.len, &m, &e);
    if (rc != 0) {
        sim_fail(v->sim, "server %u: %s", v->at, e.text);
        return rc;
    }
    if (v->install.is_installed) {
        keep_swap(v);
    }
    if (v->image.counters.applied < m.index) {
        sim_fail(v->sim, "server %u: the manifest is at %llu, the durable image only at %llu", v->at,
                 (unsigned long long)m.index, (unsigned long long)v->image.counters.applied);
        return HW_ERR_CORRUPT;
    }
    return 0;
}

static void on_change(void *ctx, const struct hw_consensus_view *view)
{
    struct server *v = ctx;
    sim_trace(v->sim, v->at, view->is_leader ? "leader" : "follower", view->term, view->leader_id);
    if (view->is_leader && !v->was_leader) {
        v->sim->stats.elections++;
    }
    v->was_leader = view->is_leader;
    if (view->is_leader) {
        check_leader(v, view->term);
    }
}

static void on_applied(void *ctx, uint64_t applied_index)
{
    struct server *v = ctx;
    hw_hot_note_index(v->hot, applied_index);
    hw_hot_sweep(v->hot, 50);
}

static void on_crash(struct sim *s, struct sim_event *e)
{
    struct server *v = hw_container_of(e, struct server, crash_event);
    server_crash(v, v->crash_why);
    if (s->is_healing) {
        fault_restart(v); /* it failed just before the faults ended */
    }
}

static void on_failed(void *ctx, const char *why)
{
    struct server *v = ctx;
    sim_trace(v->sim, v->at, why, 0, 0);
    v->crash_why = "its consensus failed";
    sim_after(v->sim, &v->crash_event, 0, v->at, "process ends", on_crash);
}

static const struct hw_consensus_ops ops = {
    .apply = on_apply,
    .manifest = on_manifest,
    .make_durable = on_make_durable,
    .restore = on_restore,
    .on_change = on_change,
    .on_applied = on_applied,
    .on_failed = on_failed,
};

/* ---- the rest of the io ---- */

static void on_tick(struct sim *s, struct sim_event *e)
{
    struct server *v = hw_container_of(e, struct server, tick_event);
    v->tick(&v->io);
    sim_after(s, e, v->tick_ms, v->at, NULL, on_tick);
    server_turn(v);
}

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct server *v = io->impl;
    v->tick = tick;
    v->recv = recv;
    v->tick_ms = msecs;
    sim_after(v->sim, &v->tick_event, sim_below(v->sim, msecs), v->at, NULL, on_tick);
    return 0;
}

static int io_init(struct raft_io *io, raft_id id, const char *address)
{
    (void)io;
    (void)id;
    (void)address;
    return 0;
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct server *v = io->impl;
    disk_cancel(v);
    net_cancel(v);
    cb(io);
}

static raft_time io_time(struct raft_io *io)
{
    struct server *v = io->impl;
    return v->sim->now_ms;
}

static int io_random(struct raft_io *io, int min, int max)
{
    struct server *v = io->impl;
    return (int)sim_between(v->sim, (uint64_t)min, (uint64_t)max);
}

/* ---- life ---- */

static void start_raft(struct server *v)
{
    struct raft *r = &v->raft;
    int rv;
    memset(&v->io, 0, sizeof v->io);
    v->io = (struct raft_io){.version = 2,
                             .capacity = UINT16_MAX,
                             .impl = v,
                             .init = io_init,
                             .close = io_close,
                             .start = io_start,
                             .time = io_time,
                             .random = io_random};
    disk_wrap(v);
    net_wrap(v);
    rv = raft_init(r, &v->io, hw_consensus_fsm(v->consensus), v->id, v->address);
    hw_assert(rv == 0);
    r->tracer = NULL;
    hw_consensus_attach(v->consensus, r, &v->io);
    raft_set_pre_vote(r, true);
    raft_set_heartbeat_timeout(r, HEARTBEAT_MS);
    raft_set_election_timeout(r, ELECTION_MS);
    raft_set_install_snapshot_timeout(r, INSTALL_RESEND_MS);
    raft_set_snapshot_threshold(r, v->sim->snapshot_threshold);
    raft_set_snapshot_trailing(r, v->sim->snapshot_trailing);
    raft_set_max_catch_up_rounds(r, CATCH_UP_ROUNDS);
    raft_set_max_catch_up_round_duration(r, CATCH_UP_ROUND_MS);
    raft_set_max_inflight_entries(r, INFLIGHT_ENTRIES);
    raft_set_capacity_threshold(r, CAPACITY_MIN);
    rv = raft_start(r);
    if (rv != 0) {
        sim_fail(v->sim, "server %u cannot start: %s", v->at, raft_errmsg(r));
    }
}

void server_start(struct server *v)
{
    struct sim *s = v->sim;
    struct hw_consensus_config config;
    hw_assert(!v->is_up);
    hw_consensus_config_default(&config);
    config.id = v->id;
    config.cluster_id = SIM_CLUSTER;
    config.address = v->address;
    config.heartbeat_ms = HEARTBEAT_MS;
    config.election_ms = ELECTION_MS;
    config.tick_ms = TICK_MS;
    v->hot = image_load(s, &v->image);
    if (v->hot == NULL) {
        return;
    }
    s->stats.ahead += v->image.counters.applied > disk_last(&v->disk);
    v->consensus = hw_consensus_new_detached(&config, &ops, v);
    hw_assert(v->consensus != NULL);
    v->is_up = true;
    v->life++;
    v->acquire_term = 0;
    v->is_acquiring = v->was_leader = false;
    sim_trace(s, v->at, "start", v->image.counters.applied, disk_last(&v->disk));
    check_state(v, "after a start");
    keep_start(v);
    driver_start(v);
    start_raft(v);
    server_turn(v);
}

void server_crash(struct server *v, const char *why)
{
    struct sim *s = v->sim;
    if (!v->is_up) {
        return;
    }
    sim_trace(s, v->at, why, 0, 0);
    s->stats.crashes++;
    keep_crash(v);
    disk_power_cut(v);
    sim_cancel(s, &v->tick_event);
    sim_cancel(s, &v->driver_event);
    sim_cancel(s, &v->crash_event);
    raft_close(&v->raft, NULL);
    hw_consensus_free(v->consensus);
    v->is_up = false;
    v->consensus = NULL;
    hw_hot_free(v->hot);
    v->hot = NULL;
    net_reset_to(s, v->at);
}

void server_wipe(struct server *v)
{
    hw_assert(!v->is_up);
    disk_free(&v->disk);
    disk_init(&v->disk);
    image_free(&v->image);
    v->id = v->sim->next_id++;
    v->sim->stats.wipes++;
    sim_trace(v->sim, v->at, "wiped", v->id, 0);
}

void server_init(struct sim *s, unsigned at)
{
    struct server *v = &s->servers[at];
    memset(v, 0, sizeof *v);
    v->sim = s;
    v->at = at;
    v->id = s->next_id++;
    snprintf(v->address, sizeof v->address, "s%u:1", at);
    disk_init(&v->disk);
    image_init(&v->image);
    TAILQ_INIT(&v->sendings);
}

void server_free(struct server *v)
{
    server_crash(v, "end");
    sim_cancel(v->sim, &v->start_event);
    disk_free(&v->disk);
    image_free(&v->image);
}

/* libraft queues the callbacks of client requests and leaves it to its raft_io to run them at the end of a turn; the
 * function for it is not exported from the shared library, the queue is in the public struct. */
static void fire_completed(struct server *v)
{
    void **head = (void **)v->raft.legacy.requests;
    while (head[0] != head) {
        void **at = head[0];
        struct raft_apply *req = hw_container_of(at, struct raft_apply, queue);
        ((void **)at[1])[0] = at[0];
        ((void **)at[0])[1] = at[1];
        if (req->type == RAFT_COMMAND) {
            req->cb(req, req->status, req->result);
        } else if (req->type == RAFT_CHANGE) {
            struct raft_change *change = hw_container_of(at, struct raft_change, queue);
            change->cb(change, change->status);
        } else {
            struct raft_transfer *transfer = hw_container_of(at, struct raft_transfer, queue);
            transfer->cb(transfer);
        }
    }
}

void server_turn(struct server *v)
{
    if (!v->is_up || v->sim->has_failed) {
        return;
    }
    for (int i = 0; i < 2; i++) { /* what the first posts, the second does */
        struct hw_consensus_view view;
        fire_completed(v);
        hw_consensus_step(v->consensus);
        hw_consensus_view(v->consensus, &view);
        if (view.is_leader && !v->is_acquiring && v->acquire_term != view.term) {
            if (op_propose(v, OP_ACQUIRE)) {
                v->acquire_term = view.term;
                v->is_acquiring = true;
            }
        }
    }
}
