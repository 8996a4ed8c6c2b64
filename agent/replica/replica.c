/* A replica's life: start from the image, run, stop. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/replica/replica_impl.h"

#define READER_THREADS 2
#define POOL_QUEUE_MAX 1024

static void make_metrics(struct hw_replica *r)
{
    struct hw_metrics *m = r->metrics;
    r->m_is_hot = hw_metrics_gauge(m, "hotwarm_is_hot", NULL, "1 while this node is hot.");
    r->m_epoch = hw_metrics_gauge(m, "hotwarm_epoch", NULL, "Epoch of the hot tenure in force.");
    r->m_term = hw_metrics_gauge(m, "hotwarm_raft_term", NULL, "Current Raft term.");
    r->m_applied = hw_metrics_gauge(m, "hotwarm_applied_index", NULL, "Last log index applied to the state.");
    r->m_image_index = hw_metrics_gauge(m, "hotwarm_image_index", NULL, "Log index of the image on disk.");
    r->m_revision = hw_metrics_gauge(m, "hotwarm_revision", NULL, "Revision of the state.");
    r->m_keys = hw_metrics_gauge(m, "hotwarm_keys", NULL, "Keys held in memory.");
    r->m_bytes = hw_metrics_gauge(m, "hotwarm_state_bytes", NULL, "Estimated memory of the state.");
    r->m_writes = hw_metrics_counter(m, "hotwarm_applied_commands_total", NULL, "Commands applied.");
    r->m_reads = hw_metrics_counter(m, "hotwarm_linearizable_reads_total", NULL, "Linearizable reads begun.");
    r->m_rounds = hw_metrics_counter(m, "hotwarm_read_rounds_total", NULL, "Confirmation rounds of the hot node.");
    r->m_forwards = hw_metrics_counter(m, "hotwarm_forwards_total", NULL, "Calls sent on to the hot node.");
    r->m_checkpoints = hw_metrics_counter(m, "hotwarm_checkpoints_total", NULL, "Checkpoints written.");
    r->m_checkpoint_failures = hw_metrics_counter(m, "hotwarm_checkpoint_failures_total", NULL, "Checkpoints failed.");
    r->m_rebuilds = hw_metrics_counter(m, "hotwarm_rebuilds_total", NULL, "Images fetched from a peer.");
    r->m_write_seconds = hw_metrics_histogram(m, "hotwarm_write_seconds", NULL, "From proposal to applied.");
    r->m_checkpoint_seconds = hw_metrics_histogram(m, "hotwarm_checkpoint_seconds", NULL, "Duration of checkpoints.");
}

int hw_replica_new(struct hw_loop *loop, struct hw_pool *resolver, struct hw_metrics *metrics,
                   const struct hw_replica_config *config, const struct hw_replica_ops *ops, void *ctx,
                   struct hw_replica **replica, struct hw_error *e)
{
    struct hw_replica *r = calloc(1, sizeof *r);
    int rc;
    if (r == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "no memory for a replica");
    }
    r->loop = loop;
    r->resolver = resolver;
    r->metrics = metrics;
    r->config = *config;
    r->ops = ops;
    r->ctx = ctx;
    snprintf(r->name, sizeof r->name, "%s", config->name != NULL ? config->name : "");
    snprintf(r->data, sizeof r->data, "%s", config->data);
    snprintf(r->raft_folder, sizeof r->raft_folder, "%s/raft", config->data);
    snprintf(r->image_path, sizeof r->image_path, "%s/%s", config->data, HW_IMAGE_FILE);
    rc = hw_watch_hub_init(&r->watch, loop, metrics, config->watchers_max, config->watch_stall_ms);
    if (rc != 0) {
        hw_error_set(e, rc, "no memory for the watchers");
    } else {
        rc = hw_pool_new(loop, "hw-writer", 1, POOL_QUEUE_MAX, &r->writer, e);
    }
    if (rc == 0) {
        rc = hw_pool_new(loop, "hw-reader", READER_THREADS, POOL_QUEUE_MAX, &r->reader, e);
    }
    if (rc != 0) {
        if (r->writer != NULL) {
            hw_pool_free(r->writer);
        }
        hw_watch_hub_stop(&r->watch);
        hw_watch_hub_close(&r->watch);
        free(r);
        return rc;
    }
    make_metrics(r);
    hw_apply_init(r);
    hw_checkpoint_init(r);
    hw_reads_init(r);
    hw_forwards_init(r);
    hw_rebuild_init(r);
    hw_peers_init(r);
    hw_leases_init(r);
    hw_upkeep_init(r);
    *replica = r;
    return 0;
}

static void start_work(struct hw_job *job)
{
    struct hw_replica *r = hw_container_of(job, struct hw_replica, start_job);
    int rc = hw_image_open(r->image_path, r->config.consensus.cluster_id, &r->image, &r->start_error);
    if (rc == 0) {
        rc = hw_image_load(r->image, &r->hot, NULL, NULL, &r->start_error);
    }
    r->start_status = rc;
}

static int start_consensus(struct hw_replica *r, struct hw_error *e)
{
    int rc;
    r->config.consensus.folder = r->raft_folder;
    rc = hw_consensus_new(r->loop, r->resolver, r->metrics, &r->config.consensus, &hw_replica_consensus_ops, r,
                          &r->consensus, e);
    if (rc != 0) {
        return rc;
    }
    if (r->config.is_bootstrap && hw_consensus_folder_is_pristine(r->raft_folder)) {
        rc = hw_consensus_bootstrap(r->consensus, r->config.members, r->config.member_count, e);
    }
    return rc != 0 ? rc : hw_consensus_start(r->consensus, e);
}

/* What an image holds was committed, and what is applied on a node is in its log. An image that reaches further than
 * the log means that the log lost its end (or that an install was cut short): as a leader this node would give out
 * indexes again whose entries its state already holds, and skip them. */
static int check_tail(struct hw_replica *r, uint64_t image_index, struct hw_error *e)
{
    struct hw_consensus_view view;
    hw_consensus_view(r->consensus, &view);
    if (view.last_index >= image_index) {
        return 0;
    }
    return hw_error_set(e, HW_ERR_CORRUPT,
                        "the log in %s ends at entry %" PRIu64 ", but the image holds entry %" PRIu64
                        ": the end of the log is gone",
                        r->raft_folder, view.last_index, image_index);
}

static void start_done(struct hw_job *job)
{
    struct hw_replica *r = hw_container_of(job, struct hw_replica, start_job);
    int rc = r->start_status;
    if (r->phase == HW_PHASE_STOPPING) {
        hw_replica_maybe_closed(r);
        return;
    }
    if (rc == 0) {
        uint64_t image_index = hw_hot_applied(r->hot);
        hw_watch_hub_set_state(&r->watch, r->hot);
        hw_leases_attach(r);
        rc = start_consensus(r, &r->start_error);
        if (rc == 0) {
            rc = check_tail(r, image_index, &r->start_error);
        }
        if (rc == 0) {
            r->phase = HW_PHASE_MEMBER;
            hw_checkpoint_start(r, image_index);
            hw_peers_sync(r);
            hw_replica_refresh(r);
        } else if (r->failure.text[0] != '\0') {
            r->start_error = r->failure; /* restore said it better */
            rc = r->failure.code;
        }
    }
    if (rc != 0) {
        r->phase = HW_PHASE_FAILED;
        hw_error_wrap(&r->start_error, "start");
    }
    r->ops->on_started(r->ctx, rc, rc == 0 ? NULL : hw_error_text(&r->start_error));
}

void hw_replica_start(struct hw_replica *r)
{
    r->start_job.work = start_work;
    r->start_job.done = start_done;
    hw_assert(hw_pool_submit(r->writer, &r->start_job) == 0);
}

/* ---- stopping: a last checkpoint, then the log, then the workers ---- */

static void on_pool_closed(void *ctx)
{
    struct hw_replica *r = ctx;
    if (--r->close_waits == 0) {
        r->on_closed(r->on_closed_ctx);
    }
}

static void on_consensus_closed(void *ctx)
{
    struct hw_replica *r = ctx;
    r->close_waits = 2;
    hw_pool_shut(r->writer, on_pool_closed, r);
    hw_pool_shut(r->reader, on_pool_closed, r);
}

void hw_replica_maybe_closed(struct hw_replica *r)
{
    if (r->on_closed == NULL || r->is_final_done || !hw_checkpoint_is_idle(r) || !hw_rebuild_is_idle(r) ||
        !hw_reads_is_idle(r) || !hw_peers_are_idle(r) || !TAILQ_EMPTY(&r->forwards.sent)) {
        return;
    }
    r->is_final_done = true;
    hw_checkpoint_close(r);
    if (r->consensus != NULL) {
        hw_consensus_shut(r->consensus, on_consensus_closed, r);
    } else {
        on_consensus_closed(r);
    }
}

static void close_step(struct hw_defer *d)
{
    struct hw_replica *r = hw_container_of(d, struct hw_replica, sweep);
    hw_replica_maybe_closed(r);
}

void hw_replica_shut(struct hw_replica *r, void (*on_closed)(void *ctx), void *ctx)
{
    bool was_member = r->phase == HW_PHASE_MEMBER;
    r->on_closed = on_closed;
    r->on_closed_ctx = ctx;
    if (was_member && !r->rebuild.is_loading) {
        hw_checkpoint_kick(r); /* so that the next start has little to replay */
    }
    r->phase = HW_PHASE_STOPPING;
    hw_watch_hub_stop(&r->watch);
    hw_apply_close(r);
    hw_reads_close(r);
    hw_forwards_close(r);
    hw_rebuild_close(r);
    hw_leases_close(r);
    hw_upkeep_close(r);
    hw_peers_close(r);
    hw_timer_stop(r->checkpoint.timer);
    hw_defer_init(&r->sweep, close_step);
    hw_defer_post(r->loop, &r->sweep);
}

void hw_replica_free(struct hw_replica *r)
{
    if (r == NULL) {
        return;
    }
    if (r->consensus != NULL) {
        hw_consensus_free(r->consensus);
    }
    hw_pool_free(r->writer);
    hw_pool_free(r->reader);
    hw_image_close(r->image);
    hw_hot_free(r->hot);
    if (r->rebuild.loaded != NULL) {
        hw_hot_free(r->rebuild.loaded);
    }
    hw_leases_free(r);
    hw_buf_free(&r->rebuild.pending);
    hw_buf_free(&r->rebuild.writing);
    hw_watch_hub_close(&r->watch);
    free(r);
}

/* ---- small questions ---- */

struct hw_hot *hw_replica_hot(struct hw_replica *r)
{
    return r->hot;
}

struct hw_consensus *hw_replica_consensus(struct hw_replica *r)
{
    return r->consensus;
}

bool hw_replica_is_hot(const struct hw_replica *r)
{
    return r->is_hot && r->phase == HW_PHASE_MEMBER;
}

uint64_t hw_replica_hot_id(const struct hw_replica *r)
{
    return r->hot_id;
}

uint64_t hw_replica_term(const struct hw_replica *r)
{
    struct hw_consensus_view view;
    if (r->consensus == NULL) {
        return 0;
    }
    hw_consensus_view(r->consensus, &view);
    return view.term;
}

const char *hw_replica_image_path(const struct hw_replica *r)
{
    return r->image_path;
}

struct hw_pool *hw_replica_pool(struct hw_replica *r)
{
    return r->reader;
}

static const char *phase_name(const struct hw_replica *r)
{
    switch (r->phase) {
    case HW_PHASE_LOADING:
        return "loading";
    case HW_PHASE_MEMBER:
        return r->rebuild.is_wanted ? "rebuilding" : "member";
    case HW_PHASE_STOPPING:
        return "stopping";
    case HW_PHASE_FAILED:
        return "failed";
    }
    hw_unreachable();
}

void hw_replica_status(struct hw_replica *r, struct hw_replica_status *s)
{
    memset(s, 0, sizeof *s);
    s->phase = phase_name(r);
    if (r->hot == NULL || r->consensus == NULL) {
        return;
    }
    hw_consensus_view(r->consensus, &s->view);
    s->is_hot = hw_replica_is_hot(r);
    s->hot_id = r->hot_id;
    s->epoch = hw_hot_epoch(r->hot);
    s->applied_index = hw_hot_applied(r->hot);
    s->image_index = r->checkpoint.image_index;
    if (r->checkpoint.behind_since_ms != 0) {
        s->image_age_ms = hw_loop_now_ms(r->loop) - r->checkpoint.behind_since_ms;
    }
    if (r->rebuild.is_wanted) {
        s->rebuild_done_bytes = r->rebuild.received_bytes;
        s->rebuild_total_bytes = r->rebuild.total_bytes;
    }
    s->is_full = r->upkeep.quota.is_over;
    s->is_disk_failing = r->checkpoint.is_failing;
    if (s->is_disk_failing) {
        snprintf(s->disk_problem, sizeof s->disk_problem, "%s", hw_error_text(&r->checkpoint.e));
    }
    hw_gauge_set(r->m_keys, (int64_t)hw_hot_key_count(r->hot));
    hw_gauge_set(r->m_bytes, (int64_t)hw_hot_bytes(r->hot));
}
