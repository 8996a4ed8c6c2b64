#include "agent/replica/upkeep.h"

#include <inttypes.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/replica/replica_impl.h"

#define EVERY_MS 1000

/* ---- memory ---- */

static void look_at_size(struct hw_replica *r)
{
    struct hw_quota *q = &r->upkeep.quota;
    uint64_t bytes = hw_hot_bytes(r->hot);
    if (!hw_quota_update(q, bytes) || !r->is_hot) {
        return;
    }
    if (q->is_over) {
        hw_log_warn(HW_COMPONENT, "the state is full: puts and lease grants are refused",
                    "state_bytes=%" PRIu64 " state_bytes_max=%" PRIu64 " until_below=%" PRIu64, bytes, q->bytes_max,
                    hw_quota_clear_below(q));
    } else {
        hw_log_info(HW_COMPONENT, "the state has room again", "state_bytes=%" PRIu64 " state_bytes_max=%" PRIu64, bytes,
                    q->bytes_max);
    }
}

bool hw_replica_may_grow(struct hw_replica *r)
{
    if (r->hot == NULL) {
        return true;
    }
    look_at_size(r);
    return !r->upkeep.quota.is_over;
}

void hw_replica_defragment(struct hw_replica *r)
{
    if (r->hot == NULL || r->phase != HW_PHASE_MEMBER) {
        return;
    }
    hw_defer_post(r->loop, &r->sweep);
    r->checkpoint.has_more_to_sweep = true;
    hw_checkpoint_kick(r);
}

/* ---- compaction ---- */

static void on_compacted(struct hw_write *w, int status)
{
    struct hw_replica *r = w->data;
    r->upkeep.is_compacting = false;
    if (status == 0 && w->result.code == 0) {
        hw_counter_add(r->upkeep.m_compactions, 1);
    } else if (status != 0 && status != HW_ERR_NOTHOT && status != HW_ERR_CANCELLED) {
        hw_log_debug(HW_COMPONENT, "automatic compaction put off", "why=%s", hw_logq(hw_err_text(status)));
    }
}

static void compact(struct hw_replica *r, hw_rev revision)
{
    struct hw_upkeep *u = &r->upkeep;
    struct hw_cmd cmd = {.type = HW_CMD_COMPACT, .wall_ms = hw_wall_ms(), .compact = revision};
    int rc;
    memset(&u->compaction, 0, sizeof u->compaction);
    u->compaction.done = on_compacted;
    u->compaction.data = r;
    rc = hw_write_encode(&u->compaction, &cmd);
    if (rc == 0) {
        rc = hw_replica_write(r, &u->compaction);
    }
    u->is_compacting = rc == 0; /* refused: the next look finds as much to do */
}

static void look_at_revisions(struct hw_replica *r)
{
    struct hw_upkeep *u = &r->upkeep;
    struct hw_compactor_policy policy = {.retention_ms = r->config.compaction_retention_ms,
                                         .retention_revisions = r->config.compaction_retention_revisions};
    uint64_t now = hw_mono_ms();
    hw_rev revision = hw_hot_revision(r->hot);
    if (u->noted_ms == 0 ||
        now - u->noted_ms >= hw_compactor_note_every_ms(&policy, r->config.compaction_interval_ms)) {
        u->noted_ms = now;
        hw_compactor_note_add(&u->notes, now, revision);
    }
    if (!hw_replica_is_hot(r) || u->is_compacting || now - u->chosen_ms < r->config.compaction_interval_ms) {
        return;
    }
    u->chosen_ms = now;
    revision = hw_compactor_choose(&u->notes, &policy, now, revision, hw_hot_compacted(r->hot));
    if (revision > 0) {
        compact(r, revision);
    }
}

static void on_timer(void *ctx)
{
    struct hw_replica *r = ctx;
    if (r->hot == NULL || r->phase != HW_PHASE_MEMBER) {
        return;
    }
    look_at_size(r);
    look_at_revisions(r);
    hw_gauge_set(r->upkeep.m_leases, (int64_t)hw_hot_lease_count(r->hot));
}

void hw_upkeep_init(struct hw_replica *r)
{
    struct hw_upkeep *u = &r->upkeep;
    u->quota.bytes_max = r->config.state_bytes_max;
    u->timer = hw_timer_new(r->loop, "upkeep", on_timer, r);
    u->m_compactions =
        hw_metrics_counter(r->metrics, "hotwarm_auto_compactions_total", NULL, "Compactions without a request.");
    u->m_leases = hw_metrics_gauge(r->metrics, "hotwarm_leases", NULL, "Leases of the state.");
    hw_timer_start(u->timer, EVERY_MS, EVERY_MS);
}

void hw_upkeep_close(struct hw_replica *r)
{
    hw_timer_free(r->upkeep.timer);
    r->upkeep.timer = NULL;
}
