/* Linearizable reads without a log write (Raft dissertation 6.4, etcd's ReadIndex).
 *
 * On the hot node: reads that wait share one round. Each other voter is asked for its current term over the peer
 * connection; when a majority, this node included, is still in our term, no other leader can have committed anything
 * before the round began, so the state here is current for every read that arrived before it. A read that arrives
 * during a round waits for the next one.
 *
 * On a warm node: one question to the hot node for all reads that wait; its answer is an index; each read is answered
 * when that index has been applied here.
 */
#include <inttypes.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/replica/replica_impl.h"
#include "proto/hotwarm.pb-c.h"

#define TICK_MS 20

static void finish_list(struct hw_replica *r, struct hw_read_list *list, int status)
{
    struct hw_read_list mine = TAILQ_HEAD_INITIALIZER(mine);
    struct hw_read *rd;
    TAILQ_CONCAT(&mine, list, link);
    while ((rd = TAILQ_FIRST(&mine)) != NULL) {
        TAILQ_REMOVE(&mine, rd, link);
        r->reads.count--;
        rd->done(rd, status);
    }
}

static void expire_list(struct hw_replica *r, struct hw_read_list *list, uint64_t now)
{
    struct hw_read *rd;
    struct hw_read *next;
    for (rd = TAILQ_FIRST(list); rd != NULL; rd = next) {
        next = TAILQ_NEXT(rd, link);
        if (rd->deadline_ms <= now) {
            TAILQ_REMOVE(list, rd, link);
            r->reads.count--;
            rd->done(rd, HW_ERR_UNAVAILABLE);
        }
    }
}

/* ---- the hot node's round ---- */

static void round_end(struct hw_replica *r, bool is_confirmed)
{
    struct hw_reads *q = &r->reads;
    q->is_round = false;
    if (is_confirmed) {
        finish_list(r, &q->confirming, 0);
    } else {
        TAILQ_CONCAT(&q->confirming, &q->waiting, link); /* the older ones first */
        TAILQ_CONCAT(&q->waiting, &q->confirming, link);
    }
    hw_defer_post(r->loop, &q->kick);
}

static void round_ack(struct hw_replica *r)
{
    struct hw_reads *q = &r->reads;
    struct hw_consensus_view view;
    if (++q->acks < q->acks_wanted) {
        return;
    }
    hw_consensus_view(r->consensus, &view);
    round_end(r, r->is_hot && view.is_leader && view.term == q->round_term);
}

static void on_term_message(struct hw_request *request, struct hw_slice message)
{
    struct hw_term_query *tq = hw_container_of(request, struct hw_term_query, request);
    struct hw_replica *r = tq->replica;
    struct hw_reads *q = &r->reads;
    Hotwarm__V1__TermResponse *m = hotwarm__v1__term_response__unpack(NULL, message.len, message.data);
    if (m == NULL) {
        return;
    }
    if (q->is_round && tq->round == q->round && m->term == q->round_term && m->id == tq->voter) {
        round_ack(r);
    }
    hotwarm__v1__term_response__free_unpacked(m, NULL);
}

static void on_term_end(struct hw_request *request, enum hw_grpc status, const char *text)
{
    struct hw_term_query *tq = hw_container_of(request, struct hw_term_query, request);
    (void)status;
    (void)text;
    tq->is_busy = false;
    if (tq->replica->reads.is_round && tq->round != tq->replica->reads.round) {
        hw_defer_post(tq->replica->loop, &tq->replica->reads.kick);
    }
    hw_replica_maybe_closed(tq->replica);
}

static const struct hw_request_ops term_ops = {.on_message = on_term_message, .on_end = on_term_end};

/* Ask the voters that were not asked in this round yet; one question per voter at a time. */
static void ask_terms(struct hw_replica *r)
{
    struct hw_reads *q = &r->reads;
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count = hw_consensus_members(r->consensus, members, HW_MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct hw_peer *peer = hw_peer_of(r, members[i].id);
        struct hw_term_query *tq;
        if (members[i].role != HW_ROLE_VOTER || peer == NULL || !peer->is_up) {
            continue;
        }
        tq = &q->queries[peer - r->peers];
        if (tq->is_busy || (tq->voter == peer->id && tq->round == q->round)) {
            continue;
        }
        tq->replica = r;
        tq->round = q->round;
        tq->voter = peer->id;
        tq->request.ops = &term_ops;
        if (hw_request_start(peer->channel, &tq->request, "/hotwarm.v1.Peer/Term", NULL,
                             r->config.consensus.election_ms, true, hw_slice_of("", 0), true) == 0) {
            tq->is_busy = true;
        }
    }
}

static void round_start(struct hw_replica *r)
{
    struct hw_reads *q = &r->reads;
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count = hw_consensus_members(r->consensus, members, HW_MEMBERS_MAX);
    unsigned voters = 0;
    for (size_t i = 0; i < count; i++) {
        voters += members[i].role == HW_ROLE_VOTER;
    }
    TAILQ_CONCAT(&q->confirming, &q->waiting, link);
    q->is_round = true;
    q->round++;
    q->round_term = r->view.term;
    q->round_started_ms = hw_loop_now_ms(r->loop);
    q->acks = 0;
    q->acks_wanted = voters / 2 + 1;
    hw_counter_add(r->m_rounds, 1);
    ask_terms(r);
    round_ack(r); /* this node itself */
}

/* ---- the warm node's question ---- */

static void on_index_message(struct hw_request *request, struct hw_slice message)
{
    struct hw_replica *r = hw_container_of(request, struct hw_replica, reads.index_request);
    Hotwarm__V1__ReadIndexResponse *m = hotwarm__v1__read_index_response__unpack(NULL, message.len, message.data);
    if (m == NULL) {
        return;
    }
    r->reads.has_index = true;
    r->reads.index = m->index;
    hotwarm__v1__read_index_response__free_unpacked(m, NULL);
}

static void on_index_end(struct hw_request *request, enum hw_grpc status, const char *text)
{
    struct hw_replica *r = hw_container_of(request, struct hw_replica, reads.index_request);
    struct hw_reads *q = &r->reads;
    struct hw_read *rd;
    (void)text;
    q->is_asking = false;
    if (status == HW_GRPC_OK && q->has_index) {
        TAILQ_FOREACH(rd, &q->confirming, link) {
            rd->index = q->index;
        }
        TAILQ_CONCAT(&q->applying, &q->confirming, link);
        hw_reads_on_applied(r);
        hw_defer_post(r->loop, &q->kick);
    } else {
        TAILQ_CONCAT(&q->confirming, &q->waiting, link);
        TAILQ_CONCAT(&q->waiting, &q->confirming, link); /* the timer asks again */
    }
    hw_replica_maybe_closed(r);
}

static const struct hw_request_ops index_ops = {.on_message = on_index_message, .on_end = on_index_end};

static void ask_index(struct hw_replica *r)
{
    struct hw_reads *q = &r->reads;
    struct hw_peer *peer = hw_peer_of(r, r->hot_id);
    if (peer == NULL || !peer->is_up) {
        return;
    }
    q->has_index = false;
    q->index_request.ops = &index_ops;
    if (hw_request_start(peer->channel, &q->index_request, "/hotwarm.v1.Peer/ReadIndex", NULL,
                         r->config.consensus.election_ms * 2, true, hw_slice_of("", 0), true) == 0) {
        TAILQ_CONCAT(&q->confirming, &q->waiting, link);
        q->is_asking = true;
    }
}

void hw_reads_on_applied(struct hw_replica *r)
{
    struct hw_reads *q = &r->reads;
    uint64_t applied = hw_hot_applied(r->hot);
    struct hw_read *rd;
    struct hw_read *next;
    for (rd = TAILQ_FIRST(&q->applying); rd != NULL; rd = next) {
        next = TAILQ_NEXT(rd, link);
        if (rd->index <= applied) {
            TAILQ_REMOVE(&q->applying, rd, link);
            q->count--;
            rd->done(rd, 0);
        }
    }
}

static void kick_step(struct hw_defer *d)
{
    struct hw_replica *r = hw_container_of(d, struct hw_replica, reads.kick);
    struct hw_reads *q = &r->reads;
    if (r->hot == NULL || r->consensus == NULL || r->phase != HW_PHASE_MEMBER) {
        return;
    }
    if (q->is_round && r->is_hot) {
        ask_terms(r);
        return;
    }
    if (q->is_round || q->is_asking || TAILQ_EMPTY(&q->waiting)) {
        return;
    }
    if (r->is_hot) {
        round_start(r);
    } else if (r->hot_id != 0) {
        ask_index(r);
    }
}

void hw_reads_kick(struct hw_replica *r)
{
    hw_defer_post(r->loop, &r->reads.kick);
}

void hw_reads_restart(struct hw_replica *r)
{
    struct hw_reads *q = &r->reads;
    if (q->is_round) {
        round_end(r, false);
    }
    if (q->is_asking) {
        hw_request_cancel(&q->index_request);
    }
    hw_reads_kick(r);
}

static void on_tick(void *ctx)
{
    struct hw_replica *r = ctx;
    struct hw_reads *q = &r->reads;
    uint64_t now = hw_loop_now_ms(r->loop);
    expire_list(r, &q->waiting, now);
    expire_list(r, &q->confirming, now);
    expire_list(r, &q->applying, now);
    if (hw_replica_trouble(r)[0] != '\0') { /* until somebody starts the missing nodes there is nothing to wait for */
        finish_list(r, &q->waiting, HW_ERR_UNAVAILABLE);
    }
    if (q->is_round && (now - q->round_started_ms > r->config.consensus.election_ms || TAILQ_EMPTY(&q->confirming))) {
        round_end(r, false);
    }
    if (q->count == 0) {
        hw_timer_stop(q->timer);
        return;
    }
    hw_reads_kick(r);
}

int hw_replica_read(struct hw_replica *r, struct hw_read *rd, uint64_t timeout_ms)
{
    struct hw_reads *q = &r->reads;
    if (r->hot == NULL || r->phase != HW_PHASE_MEMBER) {
        return HW_ERR_UNAVAILABLE;
    }
    if (q->count >= r->config.reads_max) {
        return HW_ERR_EXHAUSTED;
    }
    hw_counter_add(r->m_reads, 1);
    rd->deadline_ms = hw_loop_now_ms(r->loop) + timeout_ms;
    TAILQ_INSERT_TAIL(&q->waiting, rd, link);
    q->count++;
    if (!hw_timer_is_active(q->timer)) {
        hw_timer_start(q->timer, TICK_MS, TICK_MS);
    }
    hw_reads_kick(r);
    return 0;
}

void hw_reads_init(struct hw_replica *r)
{
    struct hw_reads *q = &r->reads;
    TAILQ_INIT(&q->waiting);
    TAILQ_INIT(&q->confirming);
    TAILQ_INIT(&q->applying);
    hw_defer_init(&q->kick, kick_step);
    q->timer = hw_timer_new(r->loop, "reads", on_tick, r);
}

void hw_reads_close(struct hw_replica *r)
{
    struct hw_reads *q = &r->reads;
    hw_timer_free(q->timer);
    q->timer = NULL;
    hw_defer_cancel(r->loop, &q->kick);
    q->is_round = false;
    finish_list(r, &q->waiting, HW_ERR_CANCELLED);
    finish_list(r, &q->confirming, HW_ERR_CANCELLED);
    finish_list(r, &q->applying, HW_ERR_CANCELLED);
    if (q->is_asking) {
        hw_request_cancel(&q->index_request);
    }
    for (size_t i = 0; i < HW_MEMBERS_MAX; i++) {
        if (q->queries[i].is_busy) {
            hw_request_cancel(&q->queries[i].request);
        }
    }
}

bool hw_reads_is_idle(const struct hw_replica *r)
{
    for (size_t i = 0; i < HW_MEMBERS_MAX; i++) {
        if (r->reads.queries[i].is_busy) {
            return false;
        }
    }
    return !r->reads.is_asking;
}
