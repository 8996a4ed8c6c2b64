#include <stdlib.h>

#include "agent/base/assert.h"
#include "agent/consensus/impl.h"

/* Proposals: queued until the end of the turn, then in the log, then completed; three lists, in order. */

static void pending_maybe_free(struct pending *n)
{
    if (!n->is_held && n->p == NULL) {
        free(n);
    }
}

static void move_to_completed(struct hw_consensus *c, struct pending_list *from, struct pending *n, int status)
{
    TAILQ_REMOVE(from, n, link);
    n->status = status;
    n->is_completed = true;
    TAILQ_INSERT_TAIL(&c->completed, n, link);
    consensus_post(c);
}

void proposals_complete(struct pending *n, int status)
{
    move_to_completed(n->c, &n->c->inflight, n, status);
}

void proposals_lose_inflight(struct hw_consensus *c, int status)
{
    while (!TAILQ_EMPTY(&c->inflight)) {
        proposals_complete(TAILQ_FIRST(&c->inflight), status);
    }
}

void proposals_lose_queue(struct hw_consensus *c, int status)
{
    while (!TAILQ_EMPTY(&c->queue)) {
        move_to_completed(c, &c->queue, TAILQ_FIRST(&c->queue), status);
    }
}

/* A leader's own entry of its own term: nobody else can have written this index in this term. In any other case the
 * entry may be another leader's, and what waits here cannot be told its outcome any more. */
struct pending *proposals_match(struct hw_consensus *c, uint64_t index)
{
    struct pending *n = TAILQ_FIRST(&c->inflight);
    if (n == NULL) {
        return NULL;
    }
    if (raft_state(c->raft) != RAFT_LEADER || n->p->term != raft_current_term(c->raft) || n->p->index < index) {
        proposals_lose_inflight(c, HW_ERR_UNKNOWN);
        return NULL;
    }
    return n->p->index == index ? n : NULL;
}

/* The outcome was seen by apply, but for the loss of leadership. */
static void on_apply(struct raft_apply *req, int status, void *result)
{
    struct pending *n = hw_container_of(req, struct pending, req);
    (void)result;
    n->is_held = false;
    if (n->p != NULL && !n->is_completed) {
        hw_assert(status != 0);
        proposals_complete(n, n->c->life == LIFE_STARTED ? HW_ERR_UNKNOWN : HW_ERR_CANCELLED);
    }
    pending_maybe_free(n);
}

int hw_proposal_begin(struct hw_proposal *p)
{
    p->is_essential = false;
    return frame_entry_begin(&p->entry);
}

/* Our own log disk, or so many voters' that the rest is no majority. What followers last said counts. */
bool consensus_is_disk_low(const struct hw_consensus *c)
{
    unsigned reserve = c->config.disk_reserve_mb;
    unsigned voters = 0;
    unsigned low = 0;
    if (c->loop == NULL || reserve == 0 || c->life != LIFE_STARTED) {
        return false;
    }
    if (c->room.free_mib < reserve) {
        return true;
    }
    for (unsigned i = 0; i < c->raft->configuration.n; i++) {
        const struct raft_server *s = &c->raft->configuration.servers[i];
        voters += s->role == RAFT_VOTER;
        for (size_t k = 0; s->role == RAFT_VOTER && k < hw_array_len(c->peers); k++) {
            low += c->peers[k].id == s->id && c->peers[k].has_room && c->peers[k].free_mib < reserve;
        }
    }
    return voters > 0 && voters - low <= voters / 2;
}

int hw_consensus_propose(struct hw_consensus *c, struct hw_proposal *p)
{
    struct pending *n;
    int rc;
    if (!consensus_is_leader(c)) {
        return HW_ERR_NOTHOT;
    }
    if (p->entry.len > FRAME_ENTRY_HEAD + c->config.entry_bytes_max) {
        return HW_ERR_TOOBIG;
    }
    if (c->proposals >= c->config.proposals_max || c->proposal_bytes + p->entry.len > c->config.proposal_bytes_max) {
        return HW_ERR_EXHAUSTED;
    }
    if (!p->is_essential && c->is_disk_low) {
        return HW_ERR_NOSPACE;
    }
    n = calloc(1, sizeof *n);
    if (n == NULL) {
        return HW_ERR_NOMEM;
    }
    rc = frame_entry_end(&p->entry);
    if (rc != 0) {
        free(n);
        return rc;
    }
    p->index = 0;
    p->term = 0;
    n->c = c;
    n->p = p;
    n->bytes = p->entry.len;
    TAILQ_INSERT_TAIL(&c->queue, n, link);
    c->proposals++;
    c->proposal_bytes += n->bytes;
    consensus_post(c);
    return 0;
}

static void submit(struct hw_consensus *c, struct pending *n)
{
    struct hw_proposal *p = n->p;
    struct raft_buffer buf;
    int rv;
    p->term = raft_current_term(c->raft);
    p->index = raft_last_index(c->raft) + 1;
    frame_entry_set_place(&p->entry, p->term, p->index);
    buf.base = p->entry.data;
    buf.len = p->entry.len;
    rv = raft_apply(c->raft, &n->req, &buf, 1, on_apply);
    if (rv == 0) {
        hw_buf_take(&p->entry, &buf.len); /* libraft has it, or has copied and freed it */
        n->is_held = true;
        hw_assert(p->index == n->req.index);
        TAILQ_REMOVE(&c->queue, n, link);
        TAILQ_INSERT_TAIL(&c->inflight, n, link);
    } else if (rv == RAFT_NOTLEADER || rv == RAFT_NOSPACE) {
        move_to_completed(c, &c->queue, n, consensus_code(rv));
    } else {
        /* Somewhere in the middle: its engine may have the entry, and the buffer may be freed or not. */
        hw_buf_take(&p->entry, &buf.len);
        consensus_fail(c, "an entry could not be appended: %s", raft_strerror(rv));
        move_to_completed(c, &c->queue, n, HW_ERR_UNKNOWN);
    }
}

void proposals_flush(struct hw_consensus *c)
{
    struct pending *last = TAILQ_LAST(&c->queue, pending_list);
    struct pending *n = NULL;
    uint64_t done = 0;
    if (last == NULL) {
        return;
    }
    if (!consensus_is_leader(c)) {
        proposals_lose_queue(c, HW_ERR_NOTHOT);
        return;
    }
    consensus_room_set(c);
    io_cork(c);
    while (n != last && !c->has_failed) {
        n = TAILQ_FIRST(&c->queue);
        submit(c, n);
        done++;
    }
    io_uncork(c);
    count(c->proposed, done);
    count(c->batches, 1);
}

void proposals_deliver(struct hw_consensus *c)
{
    struct pending *n;
    while ((n = TAILQ_FIRST(&c->completed)) != NULL) {
        struct hw_proposal *p = n->p;
        int status = n->status;
        TAILQ_REMOVE(&c->completed, n, link);
        c->proposals--;
        c->proposal_bytes -= n->bytes;
        n->p = NULL;
        pending_maybe_free(n);
        hw_buf_free(&p->entry);
        p->done(p, status);
    }
}
