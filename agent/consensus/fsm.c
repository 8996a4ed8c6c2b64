#include "agent/consensus/impl.h"

/* What libraft asks of the state machine. */

/* Never an error: libraft would free the entries of the message that it handles a second time, and offer the entry
 * again at its next step. A server that has failed applies nothing more, sends nothing more, and takes no snapshot. */
static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct hw_consensus *c = fsm->data;
    uint64_t index = raft_last_applied(c->raft) + 1;
    struct pending *mine;
    struct hw_slice entry;
    uint64_t term;
    uint64_t place;
    int rc;
    *result = NULL;
    if (c->has_failed) {
        proposals_lose_inflight(c, HW_ERR_UNKNOWN);
        return 0;
    }
    mine = proposals_match(c, index);
    rc = frame_entry_decode(buf->base, buf->len, &term, &place, &entry);
    if (rc == 0 && place != index) {
        rc = HW_ERR_CORRUPT; /* the log has slid: see frame.h */
    }
    if (rc == 0) {
        commit_note_applied(c, index, term);
        rc = c->ops->apply(c->ctx, index, term, entry, mine != NULL ? mine->p : NULL);
    }
    if (rc != 0) {
        consensus_fail(c, "log entry %llu cannot be applied: %s", (unsigned long long)index, hw_err_text(rc));
        proposals_lose_inflight(c, HW_ERR_UNKNOWN);
    } else if (mine != NULL) {
        proposals_complete(mine, 0);
    }
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct hw_consensus *c = fsm->data;
    struct raft *r = c->raft;
    struct hw_buf payload = {0};
    struct hw_buf framed = {0};
    uint64_t uncommitted = r->configuration_uncommitted_index;
    int rc;
    if (c->has_failed || (uncommitted != 0 && uncommitted <= raft_commit_index(r))) {
        return RAFT_BUSY; /* libraft has yet to note this configuration as committed: the snapshot would miss it */
    }
    *bufs = raft_malloc(sizeof **bufs);
    rc = *bufs == NULL ? HW_ERR_NOMEM : c->ops->manifest(c->ctx, raft_last_applied(r), &payload);
    if (rc == 0) {
        rc = frame_manifest_encode(hw_buf_slice(&payload), &framed);
    }
    hw_buf_free(&payload);
    if (rc != 0) {
        hw_buf_free(&framed);
        raft_free(*bufs);
        *bufs = NULL;
        return rc == HW_ERR_NOMEM ? RAFT_NOMEM : RAFT_BUSY;
    }
    (*bufs)[0].base = hw_buf_take(&framed, &(*bufs)[0].len);
    *n_bufs = 1;
    return 0;
}

/* The buffer is ours on success. On failure it stays libraft's when it is starting; later libraft forgets it. */
static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct hw_consensus *c = fsm->data;
    struct hw_slice manifest;
    int rc = frame_manifest_decode(buf->base, buf->len, &manifest);
    if (rc == 0) {
        rc = c->ops->restore(c->ctx, manifest);
    }
    if (rc != 0 && c->tick == NULL) { /* raft_start comes to the io's start last */
        c->start_code = rc;
        return RAFT_CORRUPT;
    }
    raft_free(buf->base);
    if (rc != 0) {
        consensus_fail(c, "the state cannot be restored from a snapshot: %s", hw_err_text(rc));
        return RAFT_SHUTDOWN;
    }
    return 0;
}

void io_fsm_init(struct hw_consensus *c)
{
    c->fsm = (struct raft_fsm){
        .version = 3,
        .data = c,
        .apply = fsm_apply,
        .snapshot = fsm_snapshot,
        .restore = fsm_restore,
    };
}
