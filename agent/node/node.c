#include "agent/node/node.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/rng.h"
#include "agent/node/node_impl.h"
#include "storage/warm/image.h"

#define HANDOVER_TIMEOUT_MS 2000
#define API_GRACE_MS 1000
#define DRAIN_TURNS_MAX 1000 /* for closes under way: each needs a turn or two */
#define RESOLVER_THREADS 2
#define RESOLVER_QUEUE_MAX 256

static void on_later(struct hw_defer *d)
{
    struct hw_agent *a = hw_container_of(d, struct hw_agent, later);
    void (*fn)(struct hw_agent *) = a->later_fn;
    a->later_fn = NULL;
    if (fn != NULL && !a->is_stopping) {
        fn(a);
    }
}

void hw_agent_post(struct hw_agent *a, void (*fn)(struct hw_agent *a))
{
    hw_assert(a->later_fn == NULL || a->is_stopping);
    a->later_fn = fn;
    hw_defer_post(a->loop, &a->later);
}

const char *hw_agent_phase(const struct hw_agent *a)
{
    struct hw_replica_status s;
    if (a->is_stopping) {
        return "stopping";
    }
    if (a->formation != NULL) {
        return hw_formation_phase(a->formation);
    }
    if (a->replica == NULL) {
        return "waiting";
    }
    hw_replica_status(a->replica, &s);
    return s.phase;
}

/* ---- stop, in the reverse order of start ---- */

static void on_replica_closed(void *ctx)
{
    struct hw_agent *a = ctx;
    hw_loop_stop(a->loop);
}

static void on_api_closed(void *ctx)
{
    struct hw_agent *a = ctx;
    hw_formation_free(a->formation);
    a->formation = NULL;
    hw_lookout_free(a->lookout);
    a->lookout = NULL;
    hw_cluster_free(a->cluster);
    a->cluster = NULL;
    if (a->replica != NULL) {
        hw_replica_shut(a->replica, on_replica_closed, a);
    } else {
        hw_loop_stop(a->loop);
    }
}

static void close_ports(struct hw_agent *a)
{
    if (a->api != NULL) {
        hw_api_shut(a->api, API_GRACE_MS, on_api_closed, a);
    } else {
        on_api_closed(a);
    }
}

static void on_handed_over(struct hw_switchover *s, int status)
{
    struct hw_agent *a = hw_container_of(s, struct hw_agent, handover);
    if (status == 0) {
        hw_log_info(COMPONENT, "handed the hot tier over", "to=%016" PRIx64 " took_ms=%" PRIu64, s->to,
                    hw_loop_now_ms(a->loop) - s->started_ms);
    } else if (status != HW_ERR_CANCELLED) {
        hw_log_warn(COMPONENT, "the hot tier was not handed over, the others will elect", "why=%s",
                    hw_logq(hw_error_text(&s->e)));
    }
    if (status != HW_ERR_CANCELLED) {
        close_ports(a);
    }
}

static void on_stop_timeout(void *ctx)
{
    struct hw_agent *a = ctx;
    hw_log_error(COMPONENT, "stopping took too long, ending now", "stop_timeout_ms=%" PRIu64,
                 a->config->stop_timeout_ms);
    _Exit(hw_err_exit(HW_ERR_TIMEOUT));
}

void hw_agent_stop(struct hw_agent *a, int status)
{
    if (a->is_stopping) {
        return;
    }
    a->is_stopping = true;
    a->status = status;
    hw_timer_stop(a->register_timer);
    hw_timer_start(a->stop_timer, a->config->stop_timeout_ms, 0);
    hw_log_info(COMPONENT, "stopping", "reason=%s", status == 0 ? "signal" : hw_err_name(status));
    if (status == 0 && a->cluster != NULL && hw_replica_is_hot(a->replica)) {
        a->handover.done = on_handed_over;
        a->handover.to = 0;
        if (hw_cluster_switchover(a->cluster, &a->handover, HANDOVER_TIMEOUT_MS) == 0) {
            return;
        }
    }
    close_ports(a);
}

/* ---- signals ---- */

static void on_stop_signal(void *ctx, int signum)
{
    struct hw_agent *a = ctx;
    if (a->signals++ > 0) {
        hw_log_warn(COMPONENT, "second signal, ending without a clean stop", "signal=%d", signum);
        _Exit(hw_err_exit(HW_ERR_CANCELLED));
    }
    hw_agent_stop(a, 0);
}

/* ---- start ---- */

static void consensus_config(const struct hw_agent *a, struct hw_consensus_config *c)
{
    const struct hw_config *config = a->config;
    hw_consensus_config_default(c);
    c->id = a->identity.raft_id;
    c->cluster_id = a->identity.cluster_id;
    c->recovery = a->identity.recovery;
    c->is_recovering = a->identity.state == HW_IDENTITY_RECOVERING;
    c->address = config->advertise.peer;
    c->heartbeat_ms = (unsigned)config->raft.heartbeat_ms;
    c->election_ms = (unsigned)config->raft.election_ms;
    c->tick_ms = (unsigned)config->raft.tick_ms;
    c->snapshot_threshold = (unsigned)config->raft.snapshot_threshold;
    c->snapshot_trailing = (unsigned)config->raft.snapshot_trailing;
    c->disk_reserve_mb = (unsigned)config->raft.disk_reserve_mb;
    c->proposals_max = (unsigned)config->limits.proposals_max;
    c->proposal_bytes_max = config->limits.proposal_bytes_max;
}

static void compaction_config(const struct hw_agent *a, struct hw_replica_config *c)
{
    const struct hw_config *config = a->config;
    bool is_on = strcmp(config->compaction.mode, "off") != 0;
    bool is_by_age = is_on && strcmp(config->compaction.mode, "periodic") == 0;
    c->compaction_retention_ms = is_by_age ? config->compaction.retention_s * 1000 : 0;
    c->compaction_retention_revisions = is_on ? (hw_rev)config->compaction.retention_revisions : 0;
    c->compaction_interval_ms = config->compaction.interval_s * 1000;
}

/* What memory and disk this agent may be asked for, in one line. */
static void log_budgets(const struct hw_agent *a)
{
    const struct hw_config *c = a->config;
    hw_log_info(COMPONENT, "budgets",
                "state_bytes_max=%" PRIu64 " proposal_bytes_max=%" PRIu64 " request_bytes_max=%" PRIu64
                " checkpoint_dirty_bytes=%" PRIu64 " disk_reserve_mb=%" PRIu64 " connections_max=%" PRIu64
                " streams_max=%" PRIu64 " reads_max=%" PRIu64 " forwards_max=%" PRIu64
                " compaction=%s retention_s=%" PRIu64 " retention_revisions=%" PRIu64,
                c->limits.state_bytes_max, c->limits.proposal_bytes_max, c->limits.request_bytes_max,
                c->image.checkpoint_dirty_bytes, c->raft.disk_reserve_mb, c->limits.connections_max,
                c->limits.streams_max, c->limits.reads_max, c->limits.forwards_max, c->compaction.mode,
                c->compaction.retention_s, c->compaction.retention_revisions);
}

int hw_agent_start_replica(struct hw_agent *a, bool is_bootstrap)
{
    struct hw_replica_config *c = calloc(1, sizeof *c);
    struct hw_error e = {0};
    int rc;
    hw_assert(c != NULL);
    consensus_config(a, &c->consensus);
    c->name = a->config->node.name;
    c->data = hw_datadir_path(a->datadir);
    c->checkpoint_interval_ms = a->config->image.checkpoint_interval_ms;
    c->checkpoint_dirty_bytes = a->config->image.checkpoint_dirty_bytes;
    c->transfer_chunk_bytes = a->config->image.transfer_chunk_bytes;
    c->reads_max = (unsigned)a->config->limits.reads_max;
    c->forwards_max = (unsigned)a->config->limits.forwards_max;
    c->scan_slice_keys = (unsigned)a->config->limits.scan_slice_keys;
    c->watchers_max = (unsigned)a->config->limits.watchers_max;
    c->watch_stall_ms = a->config->limits.watch_stall_ms;
    c->state_bytes_max = a->config->limits.state_bytes_max;
    compaction_config(a, c);
    c->is_bootstrap = is_bootstrap;
    for (size_t i = 0; i < a->identity.member_count && is_bootstrap; i++) {
        c->members[i].id = a->identity.members[i].id;
        c->members[i].role = HW_ROLE_VOTER;
        memcpy(c->members[i].address, a->identity.members[i].peer_address, sizeof c->members[i].address);
        c->member_count++;
    }
    rc = hw_replica_new(a->loop, a->resolver, a->metrics, c, &hw_agent_replica_ops, a, &a->replica, &e);
    free(c);
    if (rc != 0) {
        hw_log_error(COMPONENT, "cannot start", "why=%s", hw_logq(hw_error_text(&e)));
        hw_agent_stop(a, rc);
        return rc;
    }
    hw_replica_start(a->replica);
    return 0;
}

static int load_identity(struct hw_agent *a, struct hw_error *e)
{
    int rc = hw_identity_load(a->datadir, &a->identity, e);
    if (rc == HW_ERR_NOTFOUND) {
        memset(&a->identity, 0, sizeof a->identity);
        a->identity.state = HW_IDENTITY_WAITING;
        a->identity.raft_id = hw_random_u64() >> 1;
        snprintf(a->identity.name, sizeof a->identity.name, "%s", a->config->node.name);
        rc = hw_identity_store(a->datadir, &a->identity, e);
    }
    if (rc != 0) {
        return rc;
    }
    if (strcmp(a->identity.name, a->config->node.name) != 0) {
        return hw_error_set(e, HW_ERR_FOREIGN,
                            "the data folder %s belongs to node '%s', but node.name is '%s': correct one of the two",
                            hw_datadir_path(a->datadir), a->identity.name, a->config->node.name);
    }
    return 0;
}

/* The seed of a new cluster goes on telling the others; every other node that knows the list can start. */
static bool is_unfinished_seed(const struct hw_agent *a)
{
    if (a->identity.state != HW_IDENTITY_FORMING) {
        return false;
    }
    for (size_t i = 0; i < a->identity.member_count; i++) {
        if (strcmp(a->identity.members[i].name, a->identity.name) < 0) {
            return false;
        }
    }
    return true;
}

static int start_parts(struct hw_agent *a, struct hw_error *e)
{
    char raft_folder[4200];
    snprintf(raft_folder, sizeof raft_folder, "%s/%s", hw_datadir_path(a->datadir), HW_RAFT_FOLDER);
    if ((a->identity.state == HW_IDENTITY_MEMBER || a->identity.state == HW_IDENTITY_RECOVERING) &&
        hw_consensus_folder_is_pristine(raft_folder)) {
        /* A member without a log may have voted and acknowledged before: it must come back as somebody else. */
        if (!hw_agent_can_start_anew(a)) {
            return hw_error_set(e, HW_ERR_CORRUPT,
                                "the log in %s is gone, and there is no other node to rebuild from: restore the folder",
                                raft_folder);
        }
        hw_log_error(COMPONENT, "the log is gone: starting anew from the other nodes", "folder=%s",
                     hw_logq(raft_folder));
        a->is_again = true;
        return hw_error_set(e, HW_ERR_CORRUPT, "the log is gone");
    }
    if (a->identity.state == HW_IDENTITY_WAITING || is_unfinished_seed(a)) {
        return hw_agent_start_formation(a);
    }
    return hw_agent_start_replica(a, a->identity.state == HW_IDENTITY_FORMING);
}

static int open_ports(struct hw_agent *a, struct hw_error *e)
{
    const struct hw_config *c = a->config;
    struct hw_api_config config = {
        .client_listen = c->listen.client,
        .peer_listen = c->listen.peer,
        .client_address = c->advertise.client,
        .peer_address = c->advertise.peer,
        .cluster_name = c->cluster,
        .node_name = c->node.name,
        .node_id = a->identity.raft_id,
        .request_bytes_max = c->limits.request_bytes_max,
        .txn_ops_max = (unsigned)c->limits.txn_ops_max,
        .connections_max = (unsigned)c->limits.connections_max,
        .streams_max = (unsigned)c->limits.streams_max,
        .request_timeout_ms = (unsigned)c->limits.request_timeout_ms,
        .scan_slice_keys = (unsigned)c->limits.scan_slice_keys,
        .transfer_chunk_bytes = c->image.transfer_chunk_bytes,
        .transfer_rate_mb = c->image.transfer_rate_mb,
        .watch_queue_bytes_max = c->limits.watch_queue_bytes_max,
        .watch_progress_ms = c->limits.watch_progress_ms,
    };
    int rc = hw_api_new(a->loop, a->resolver, a->metrics, &config, &hw_agent_api_ops, a, &a->api, e);
    return rc != 0 ? rc : hw_api_listen(a->api, e);
}

static void on_register_timer(void *ctx)
{
    hw_agent_register(ctx);
}

static int start(struct hw_agent *a, struct hw_error *e)
{
    int rc = hw_loop_new(&a->loop, a->metrics, (unsigned)a->config->log.stall_budget_ms);
    if (rc != 0) {
        return hw_error_set(e, rc, "the event loop cannot be made");
    }
    log_budgets(a);
    hw_defer_init(&a->later, on_later);
    a->stop_timer = hw_timer_new(a->loop, "stop", on_stop_timeout, a);
    a->register_timer = hw_timer_new(a->loop, "register", on_register_timer, a);
    rc = hw_pool_new(a->loop, "hw-resolver", RESOLVER_THREADS, RESOLVER_QUEUE_MAX, &a->resolver, e);
    if (rc == 0) {
        rc = hw_datadir_open(a->config->node.data, &a->datadir, e);
    }
    if (rc == 0) {
        a->has_lost_data = hw_datadir_has_lost_data(a->datadir);
        rc = load_identity(a, e);
        if (rc == HW_ERR_CORRUPT && hw_agent_can_start_anew(a)) {
            hw_log_error(COMPONENT,
                         "the identity is damaged: moving the data to quarantine and starting anew from the "
                         "other nodes",
                         "why=%s", hw_logq(hw_error_text(e)));
            a->is_again = true;
        }
    }
    if (rc == 0) {
        rc = open_ports(a, e);
    }
    if (rc == 0) {
        a->sigterm = hw_signal_new(a->loop, SIGTERM, on_stop_signal, a);
        a->sigint = hw_signal_new(a->loop, SIGINT, on_stop_signal, a);
        a->sighup = hw_signal_new(a->loop, SIGHUP, hw_agent_on_reload_signal, a);
        rc = start_parts(a, e);
    }
    return rc;
}

static void close_resolver_done(void *ctx)
{
    hw_loop_stop(ctx);
}

static void release(struct hw_agent *a)
{
    hw_signal_free(a->sigterm);
    hw_signal_free(a->sigint);
    hw_signal_free(a->sighup);
    hw_timer_free(a->stop_timer);
    hw_timer_free(a->register_timer);
    hw_formation_free(a->formation);
    hw_replica_free(a->replica);
    hw_api_free(a->api);
    if (a->resolver != NULL) {
        hw_pool_shut(a->resolver, close_resolver_done, a->loop);
        hw_loop_run(a->loop);
        hw_pool_free(a->resolver);
    }
    if (a->loop != NULL) {
        for (unsigned turns = 0; turns < DRAIN_TURNS_MAX && hw_loop_turn(a->loop, false); turns++) {
        }
        hw_loop_free(a->loop);
    }
    hw_metrics_free(a->metrics);
}

static void quarantine(struct hw_agent *a)
{
    static const char *const names[] = {HW_IMAGE_FILE, HW_RAFT_FOLDER, HW_IDENTITY_FILE};
    uint64_t now = hw_wall_ms();
    for (size_t i = 0; i < hw_array_len(names); i++) {
        struct hw_error e = {0};
        int rc = hw_quarantine(hw_datadir_path(a->datadir), names[i], now, &e);
        if (rc != 0 && rc != HW_ERR_NOTFOUND) {
            hw_log_error(COMPONENT, "quarantine failed", "file=%s why=%s", names[i], hw_logq(hw_error_text(&e)));
            a->is_again = false;
        }
    }
}

int hw_node_run(const struct hw_config *config, const struct hw_node_options *options)
{
    int status;
    bool is_again;
    do {
        struct hw_agent *a = calloc(1, sizeof *a);
        struct hw_error e = {0};
        hw_assert(a != NULL);
        a->running = *config;
        a->config = &a->running;
        a->options = options;
        a->metrics = hw_metrics_new();
        status = start(a, &e);
        if (status != 0 && !a->is_again) {
            hw_log_error(COMPONENT, "cannot start", "error=%s why=%s", hw_err_name(status), hw_logq(hw_error_text(&e)));
        }
        if (status != 0 && a->loop != NULL) {
            hw_agent_stop(a, status);
        }
        if (a->loop != NULL) {
            hw_loop_run(a->loop);
            status = a->status;
        }
        release(a);
        if (a->is_again) {
            quarantine(a);
        }
        is_again = a->is_again || (a->is_recovery && hw_agent_store_recovery(a));
        hw_datadir_close(a->datadir);
        hw_log_info(COMPONENT, is_again ? "starting again" : "stopped", "status=%s", hw_err_name(status));
        free(a);
    } while (is_again);
    return status;
}
