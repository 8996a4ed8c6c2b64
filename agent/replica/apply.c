/* From the log to the state: what libraft commits is applied here, on every node, in log order; and the hot tenure that
 * begins with an applied HotAcquired. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/replica/replica_impl.h"

#define SWEEP_BUDGET 2000 /* records a turn: well under a millisecond */
#define RETIRE_BUDGET 20000
#define RETIRE_RETRY_MS 100
#define CLAIM_RETRY_MS 100

static void on_acquired(struct hw_write *w, int status)
{
    struct hw_replica *r = w->data;
    r->is_acquiring = false;
    if (status != 0 && status != HW_ERR_NOTHOT && status != r->claim_status) {
        hw_log_warn(HW_COMPONENT, "claim to the hot tier not confirmed", "term=%" PRIu64 " why=%s", r->acquire_term,
                    hw_logq(hw_err_text(status)));
    }
    r->claim_status = status;
    if (status != 0 && r->claim_timer != NULL) {
        /* Refused while still leader (a transfer that came to nothing, no space): nobody else can become hot in this
         * term, so it must be claimed again. */
        r->acquire_term = 0;
        hw_timer_start(r->claim_timer, CLAIM_RETRY_MS, 0);
    }
    hw_replica_refresh(r);
}

/* A new leader says so through the log; it is hot once that entry is applied: then everything committed before it is
 * applied too, and no older leader can commit any more. */
static void claim(struct hw_replica *r)
{
    struct hw_cmd cmd = {.type = HW_CMD_HOT_ACQUIRED, .wall_ms = hw_wall_ms()};
    int rc;
    if (r->is_acquiring || !r->view.is_leader || r->acquire_term == r->view.term || r->phase != HW_PHASE_MEMBER ||
        hw_timer_is_active(r->claim_timer)) {
        return;
    }
    cmd.hot.node_id = r->config.consensus.id;
    cmd.hot.epoch = r->view.term;
    snprintf(cmd.hot.name, sizeof cmd.hot.name, "%s", r->name);
    r->acquire.done = on_acquired;
    r->acquire.data = r;
    rc = hw_write_encode(&r->acquire, &cmd);
    r->acquire.proposal.is_essential = true;
    if (rc == 0) {
        rc = hw_replica_write(r, &r->acquire);
    }
    if (rc == 0) {
        r->is_acquiring = true;
        r->acquire_term = r->view.term;
    } else {
        hw_timer_start(r->claim_timer, CLAIM_RETRY_MS, 0);
    }
}

static void on_claim_timer(void *ctx)
{
    hw_replica_refresh(ctx);
}

void hw_replica_refresh(struct hw_replica *r)
{
    uint64_t self = r->config.consensus.id;
    uint64_t hot_id = 0;
    bool is_hot;
    bool has_changed;
    if (r->consensus == NULL || r->hot == NULL) {
        return;
    }
    hw_consensus_view(r->consensus, &r->view);
    is_hot = r->view.is_leader && hw_hot_epoch(r->hot) == r->view.term && hw_hot_hot_node(r->hot) == self;
    /* On a warm node the leader of the log is the one to ask; whether it is hot yet it says itself. */
    hot_id = r->view.is_leader ? (is_hot ? self : 0) : r->view.leader_id;
    has_changed = is_hot != r->is_hot || hot_id != r->hot_id;
    r->is_hot = is_hot;
    r->hot_id = hot_id;
    hw_gauge_set(r->m_is_hot, is_hot);
    hw_gauge_set(r->m_term, (int64_t)r->view.term);
    hw_gauge_set(r->m_epoch, (int64_t)hw_hot_epoch(r->hot));
    hw_leases_refresh(r);
    claim(r);
    if (has_changed) {
        hw_log_info(HW_COMPONENT, is_hot ? "this node is hot" : "the hot node changed",
                    "node=%016" PRIx64 " hot=%016" PRIx64 " epoch=%" PRIu64 " term=%" PRIu64, self, hot_id,
                    hw_hot_epoch(r->hot), r->view.term);
        hw_reads_restart(r);
        hw_forwards_kick(r);
    }
    r->ops->on_change(r->ctx);
}

static int on_apply(void *ctx, uint64_t index, uint64_t term, struct hw_slice entry, struct hw_proposal *mine)
{
    struct hw_replica *r = ctx;
    struct hw_write *w = mine == NULL ? NULL : hw_container_of(mine, struct hw_write, proposal);
    uint64_t epoch = hw_hot_epoch(r->hot);
    int rc;
    (void)term;
    if (index <= hw_hot_applied(r->hot)) {
        hw_assert(w == NULL); /* the image already holds it: only a follower replays such entries */
        return 0;
    }
    rc = hw_hot_apply(r->hot, index, entry.data, entry.len, w == NULL ? NULL : &w->result, &r->failure);
    if (rc != 0) {
        return rc;
    }
    hw_counter_add(r->m_writes, 1);
    if (hw_hot_epoch(r->hot) != epoch) {
        hw_replica_refresh(r);
    }
    if (hw_hot_dirty_bytes(r->hot) > r->config.checkpoint_dirty_bytes) {
        hw_checkpoint_kick(r);
    }
    return 0;
}

static int on_manifest(void *ctx, uint64_t index, struct hw_buf *out)
{
    struct hw_replica *r = ctx;
    struct hw_manifest m = {
        .format = HW_MANIFEST_FORMAT,
        .cluster_id = r->config.consensus.cluster_id,
        .index = index,
        .revision = hw_hot_revision(r->hot),
        .image_format = HW_IMAGE_FORMAT,
        .hash = hw_hot_hash(r->hot),
    };
    hw_hot_note_index(r->hot, index);
    return hw_manifest_encode(&m, out);
}

static void on_durable_wait(struct hw_image_wait *w, int status)
{
    struct hw_replica *r = w->data;
    free(w);
    if (status == 0) {
        hw_consensus_durable(r->consensus);
    }
}

static void on_make_durable(void *ctx, const struct hw_durable *d)
{
    struct hw_replica *r = ctx;
    struct hw_image_wait *w;
    if (d->is_install) {
        hw_rebuild_begin(r, d->index, d->leader_id);
        return;
    }
    w = calloc(1, sizeof *w);
    hw_assert(w != NULL);
    w->done = on_durable_wait;
    w->data = r;
    w->index = d->index;
    /* Under load the log asks several times a second. A cut costs by the pages that it touches, and in an index by key
     * that is nearly one for each row of a small cut. */
    w->is_patient = true;
    if (hw_replica_image_wait(r, w) != 0) {
        free(w); /* stopping: libraft's close cancels the snapshot */
    }
}

static int on_restore(void *ctx, struct hw_slice manifest)
{
    struct hw_replica *r = ctx;
    struct hw_manifest m;
    int rc = hw_manifest_decode(manifest.data, manifest.len, &m, &r->failure);
    if (rc != 0) {
        return rc;
    }
    if (r->rebuild.is_installed) {
        hw_assert(r->rebuild.loaded != NULL);
        hw_watch_hub_set_state(&r->watch, r->rebuild.loaded);
        hw_replica_retire(r, r->hot);
        r->hot = r->rebuild.loaded;
        r->rebuild.loaded = NULL;
        hw_leases_attach(r);
        hw_rebuild_done(r);
    }
    if (hw_hot_applied(r->hot) < m.index) {
        return hw_error_set(&r->failure, HW_ERR_CORRUPT,
                            "the image %s is at log index %" PRIu64 ", but the log's snapshot is at %" PRIu64
                            ": the image is older than its log",
                            r->image_path, hw_hot_applied(r->hot), (uint64_t)m.index);
    }
    return 0;
}

static void on_view_change(void *ctx, const struct hw_consensus_view *view)
{
    struct hw_replica *r = ctx;
    (void)view;
    hw_peers_sync(r);
    hw_replica_refresh(r);
}

static void on_applied(void *ctx, uint64_t applied_index)
{
    struct hw_replica *r = ctx;
    if (applied_index > hw_hot_applied(r->hot)) {
        hw_hot_note_index(r->hot, applied_index);
    }
    hw_gauge_set(r->m_applied, (int64_t)hw_hot_applied(r->hot));
    hw_gauge_set(r->m_revision, hw_hot_revision(r->hot));
    if (r->checkpoint.behind_since_ms == 0) {
        r->checkpoint.behind_since_ms = hw_loop_now_ms(r->loop);
    }
    hw_reads_on_applied(r);
    hw_defer_post(r->loop, &r->sweep);
    claim(r);
}

static void on_failed(void *ctx, const char *why)
{
    struct hw_replica *r = ctx;
    if (r->failure.text[0] == '\0') {
        hw_error_set(&r->failure, HW_ERR_IO, "%s", why);
    }
    r->phase = HW_PHASE_FAILED;
    r->ops->on_failed(r->ctx, hw_error_text(&r->failure));
}

const struct hw_consensus_ops hw_replica_consensus_ops = {
    .apply = on_apply,
    .manifest = on_manifest,
    .make_durable = on_make_durable,
    .restore = on_restore,
    .on_change = on_view_change,
    .on_applied = on_applied,
    .on_failed = on_failed,
};

static void sweep_step(struct hw_defer *d)
{
    struct hw_replica *r = hw_container_of(d, struct hw_replica, sweep);
    if (r->hot != NULL && hw_hot_sweep(r->hot, SWEEP_BUDGET)) {
        hw_defer_post(r->loop, d);
    }
}

static void retire_step(struct hw_defer *d)
{
    struct hw_replica *r = hw_container_of(d, struct hw_replica, retire);
    struct hw_retired *old = TAILQ_FIRST(&r->retired);
    if (old == NULL) {
        return;
    }
    if (hw_hot_open_scans(old->hot) > 0) {
        hw_timer_start(r->retire_timer, RETIRE_RETRY_MS, 0);
        return;
    }
    if (hw_hot_free_step(old->hot, RETIRE_BUDGET)) {
        TAILQ_REMOVE(&r->retired, old, link);
        free(old);
    }
    hw_defer_post(r->loop, d);
}

static void on_retire_timer(void *ctx)
{
    struct hw_replica *r = ctx;
    hw_defer_post(r->loop, &r->retire);
}

/* A replaced state goes in slices, and not before the scans that read it have ended. */
void hw_replica_retire(struct hw_replica *r, struct hw_hot *hot)
{
    struct hw_retired *old = calloc(1, sizeof *old);
    hw_assert(old != NULL);
    old->hot = hot;
    TAILQ_INSERT_TAIL(&r->retired, old, link);
    hw_defer_post(r->loop, &r->retire);
}

void hw_apply_init(struct hw_replica *r)
{
    TAILQ_INIT(&r->retired);
    hw_defer_init(&r->sweep, sweep_step);
    hw_defer_init(&r->retire, retire_step);
    r->retire_timer = hw_timer_new(r->loop, "retire", on_retire_timer, r);
    r->claim_timer = hw_timer_new(r->loop, "claim", on_claim_timer, r);
}

void hw_apply_close(struct hw_replica *r)
{
    struct hw_retired *old;
    hw_defer_cancel(r->loop, &r->sweep);
    hw_defer_cancel(r->loop, &r->retire);
    hw_timer_free(r->retire_timer);
    r->retire_timer = NULL;
    hw_timer_free(r->claim_timer);
    r->claim_timer = NULL;
    while ((old = TAILQ_FIRST(&r->retired)) != NULL) {
        TAILQ_REMOVE(&r->retired, old, link);
        hw_hot_free(old->hot);
        free(old);
    }
}

int hw_write_encode(struct hw_write *w, const struct hw_cmd *cmd)
{
    int rc = hw_proposal_begin(&w->proposal);
    if (rc == 0) {
        rc = hw_cmd_encode(cmd, &w->proposal.entry);
    }
    if (rc != 0) {
        hw_buf_free(&w->proposal.entry);
    }
    return rc;
}

static void on_proposal_done(struct hw_proposal *p, int status)
{
    struct hw_write *w = hw_container_of(p, struct hw_write, proposal);
    struct hw_replica *r = w->replica;
    struct hw_result result = w->result;
    bool is_taken = false;
    w->is_taken = &is_taken;
    hw_histogram_observe_us(r->m_write_seconds, hw_mono_us() - w->started_us);
    w->done(w, status); /* the struct may be gone after it, its result is freed here */
    if (!is_taken) {
        hw_result_free(&result);
    }
}

void hw_write_take_result(struct hw_write *w, struct hw_result *result)
{
    *result = w->result;
    *w->is_taken = true;
}

int hw_replica_write(struct hw_replica *r, struct hw_write *w)
{
    int rc;
    if (r->consensus == NULL || r->phase != HW_PHASE_MEMBER) {
        hw_buf_free(&w->proposal.entry);
        return HW_ERR_UNAVAILABLE;
    }
    hw_result_init(&w->result);
    w->replica = r;
    w->started_us = hw_mono_us();
    w->proposal.done = on_proposal_done;
    rc = hw_consensus_propose(r->consensus, &w->proposal);
    if (rc != 0) {
        hw_buf_free(&w->proposal.entry);
    }
    return rc;
}
