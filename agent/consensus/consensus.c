#include <raft.h>
#include <raft/uv.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/base/rng.h"
#include "agent/consensus/impl.h"

#if RAFT_VERSION_NUMBER < 2200
#error "libraft is older than 0.22: elections there count entries that are not on disk"
#endif

#define INSTALL_RESEND_MS 60000
#define CATCH_UP_ROUNDS 10
#define CATCH_UP_ROUND_MS 10000
#define CONNECT_RETRY_MS 100
#define DISK_RETRY_MS 500
/* Entries sent ahead of a follower's answer. Large enough that group commit never meets it: at the limit libraft sends
 * an empty message for each new entry. */
#define INFLIGHT_ENTRIES 1024
#define ROOM_EVERY_MS 1000
#define ROOM_MAX 65535 /* what libraft's messages can carry */

/* ---- small things ---- */

const char *hw_role_name(enum hw_role role)
{
    static const char *const names[] = {"standby", "voter", "spare", "none"};
    return (unsigned)role < hw_array_len(names) ? names[role] : "unknown";
}

void hw_consensus_config_default(struct hw_consensus_config *config)
{
    *config = (struct hw_consensus_config){
        .heartbeat_ms = 50,
        .election_ms = 300,
        .tick_ms = 10,
        .snapshot_threshold = 8192,
        .snapshot_trailing = 8192,
        .entry_bytes_max = 4 * 1024 * 1024,
        .proposals_max = 16384,
        .proposal_bytes_max = 64 * 1024 * 1024,
    };
}

static bool is_running(const struct hw_consensus *c)
{
    return c->life == LIFE_STARTED && !c->has_failed;
}

static bool is_leader(const struct hw_consensus *c)
{
    return is_running(c) && raft_state(c->raft) == RAFT_LEADER;
}

static int code_of(int rv)
{
    switch (rv) {
    case 0:
        return 0;
    case RAFT_NOMEM:
        return HW_ERR_NOMEM;
    case RAFT_NOTLEADER:
        return HW_ERR_NOTHOT;
    case RAFT_LEADERSHIPLOST:
        return HW_ERR_UNKNOWN;
    case RAFT_NOSPACE:
        return HW_ERR_NOSPACE;
    case RAFT_DUPLICATEID:
    case RAFT_DUPLICATEADDRESS:
    case RAFT_CANTBOOTSTRAP:
        return HW_ERR_EXISTS;
    case RAFT_NOTFOUND:
    case RAFT_BADID:
        return HW_ERR_NOTFOUND;
    case RAFT_BADROLE:
        return HW_ERR_PRECONDITION;
    case RAFT_CANTCHANGE:
    case RAFT_BUSY:
    case RAFT_TOOMANY:
        return HW_ERR_EXHAUSTED;
    case RAFT_NOCONNECTION: /* of a promotion: the standby did not catch up */
        return HW_ERR_TIMEOUT;
    case RAFT_CANCELED:
    case RAFT_SHUTDOWN:
        return HW_ERR_CANCELLED;
    case RAFT_CORRUPT:
    case RAFT_MALFORMED:
        return HW_ERR_CORRUPT;
    case RAFT_TOOBIG:
        return HW_ERR_TOOBIG;
    case RAFT_INVALID:
    case RAFT_NAMETOOLONG:
        return HW_ERR_INVALID;
    default:
        return HW_ERR_IO;
    }
}

void consensus_post(struct hw_consensus *c)
{
    if (c->loop != NULL) {
        hw_defer_post(c->loop, &c->step);
    }
}

void consensus_fail(struct hw_consensus *c, const char *fmt, ...)
{
    va_list ap;
    if (c->has_failed) {
        return;
    }
    c->has_failed = true;
    va_start(ap, fmt);
    vsnprintf(c->failure, sizeof c->failure, fmt, ap);
    va_end(ap);
    consensus_post(c);
}

/* libraft asks for room in KiB, of the segments that raft_uv has allocated ahead: at most 24 MiB, and less in every
 * burst of writes. What an operator means is the file system's free space, and MiB reach further in 16 bits. raft_uv
 * sets the field again in each turn, so this comes before everything that goes into libraft. */
void consensus_room_set(struct hw_consensus *c)
{
    if (c->loop != NULL) {
        c->io->capacity = (unsigned short)(c->room.free_mib < ROOM_MAX ? c->room.free_mib : ROOM_MAX);
    }
}

static void on_room(struct hw_job *job)
{
    struct disk_room *r = hw_container_of(job, struct disk_room, job);
    struct hw_consensus *c = r->owner;
    c->is_room_job = false;
    consensus_maybe_closed(c);
}

static void room_work(struct hw_job *job)
{
    folder_room(hw_container_of(job, struct disk_room, job));
}

static void room_step(struct hw_consensus *c)
{
    uint64_t now_ms;
    if (c->loop == NULL || c->pool == NULL || c->is_room_job) {
        return;
    }
    now_ms = hw_loop_now_ms(c->loop);
    if (now_ms - c->room_asked_ms < ROOM_EVERY_MS) {
        return;
    }
    c->room_asked_ms = now_ms;
    c->room.job = (struct hw_job){.work = room_work, .done = on_room};
    c->is_room_job = hw_pool_submit(c->pool, &c->room.job) == 0;
}

/* ---- proposals ---- */

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

void consensus_complete(struct pending *n, int status)
{
    move_to_completed(n->c, &n->c->inflight, n, status);
}

void consensus_lose_inflight(struct hw_consensus *c, int status)
{
    while (!TAILQ_EMPTY(&c->inflight)) {
        consensus_complete(TAILQ_FIRST(&c->inflight), status);
    }
}

static void lose_queue(struct hw_consensus *c, int status)
{
    while (!TAILQ_EMPTY(&c->queue)) {
        move_to_completed(c, &c->queue, TAILQ_FIRST(&c->queue), status);
    }
}

/* A leader's own entry of its own term: nobody else can have written this index in this term. In any other case the
 * entry may be another leader's, and what waits here cannot be told its outcome any more. */
struct pending *consensus_match(struct hw_consensus *c, uint64_t index)
{
    struct pending *n = TAILQ_FIRST(&c->inflight);
    if (n == NULL) {
        return NULL;
    }
    if (raft_state(c->raft) != RAFT_LEADER || n->p->term != raft_current_term(c->raft) || n->p->index < index) {
        consensus_lose_inflight(c, HW_ERR_UNKNOWN);
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
        consensus_complete(n, n->c->life == LIFE_STARTED ? HW_ERR_UNKNOWN : HW_ERR_CANCELLED);
    }
    pending_maybe_free(n);
}

int hw_proposal_begin(struct hw_proposal *p)
{
    return frame_entry_begin(&p->entry);
}

int hw_consensus_propose(struct hw_consensus *c, struct hw_proposal *p)
{
    struct pending *n;
    int rc;
    if (!is_leader(c)) {
        return HW_ERR_NOTHOT;
    }
    if (p->entry.len > FRAME_ENTRY_HEAD + c->config.entry_bytes_max) {
        return HW_ERR_TOOBIG;
    }
    if (c->proposals >= c->config.proposals_max ||
        c->proposal_bytes + p->entry.len > c->config.proposal_bytes_max) {
        return HW_ERR_EXHAUSTED;
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
    frame_entry_set_term(&p->entry, p->term);
    buf.base = p->entry.data;
    buf.len = p->entry.len;
    rv = raft_apply(c->raft, &n->req, &buf, 1, on_apply);
    if (rv == 0) {
        hw_buf_take(&p->entry, &buf.len); /* libraft has it, or has copied and freed it */
        n->is_held = true;
        p->index = n->req.index;
        TAILQ_REMOVE(&c->queue, n, link);
        TAILQ_INSERT_TAIL(&c->inflight, n, link);
    } else if (rv == RAFT_NOTLEADER || rv == RAFT_NOSPACE) {
        move_to_completed(c, &c->queue, n, code_of(rv));
    } else {
        /* Somewhere in the middle: its engine may have the entry, and the buffer may be freed or not. */
        hw_buf_take(&p->entry, &buf.len);
        consensus_fail(c, "an entry could not be appended: %s", raft_strerror(rv));
        move_to_completed(c, &c->queue, n, HW_ERR_UNKNOWN);
    }
}

static void flush(struct hw_consensus *c)
{
    struct pending *last = TAILQ_LAST(&c->queue, pending_list);
    struct pending *n = NULL;
    uint64_t done = 0;
    if (last == NULL) {
        return;
    }
    if (!is_leader(c)) {
        lose_queue(c, HW_ERR_NOTHOT);
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

static void deliver(struct hw_consensus *c)
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

/* ---- changes ---- */

static void change_over(struct hw_consensus *c, int status)
{
    if (c->change.kind != CHANGE_NONE && !c->change.is_over) {
        c->change.is_over = true;
        c->change.status = status;
        consensus_post(c);
    }
}

static void on_change(struct raft_change *req, int status)
{
    struct hw_consensus *c = req->data;
    change_over(c, c->life == LIFE_STARTED ? code_of(status) : HW_ERR_CANCELLED);
}

static void on_transfer(struct raft_transfer *req)
{
    struct hw_consensus *c = req->data;
    raft_id leader_id = 0;
    const char *address;
    raft_leader(c->raft, &leader_id, &address);
    if (c->life != LIFE_STARTED) {
        change_over(c, HW_ERR_CANCELLED);
    } else if (leader_id == req->id) {
        change_over(c, 0);
    } else {
        change_over(c, raft_state(c->raft) == RAFT_LEADER ? HW_ERR_TIMEOUT : HW_ERR_ABORTED);
    }
}

static void change_start(struct hw_consensus *c)
{
    struct change *ch = &c->change;
    int rv = RAFT_NOTLEADER;
    ch->is_submitted = true;
    ch->req.data = c;
    ch->transfer.data = c;
    consensus_room_set(c);
    if (is_leader(c) && raft_transferee(c->raft) == 0) {
        switch (ch->kind) {
        case CHANGE_ADD:
            rv = raft_add(c->raft, &ch->req, ch->id, ch->address, on_change);
            break;
        case CHANGE_ASSIGN:
            rv = raft_assign(c->raft, &ch->req, ch->id, ch->role, on_change);
            break;
        case CHANGE_REMOVE:
            rv = raft_remove(c->raft, &ch->req, ch->id, on_change);
            break;
        case CHANGE_TRANSFER:
            rv = raft_transfer(c->raft, &ch->transfer, ch->id, on_transfer);
            break;
        case CHANGE_NONE:
            break;
        }
    }
    if (rv != 0) {
        if (c->raft->legacy.change == &ch->req) {
            c->raft->legacy.change = NULL; /* raft_assign leaves it behind when the submission is refused */
        }
        change_over(c, code_of(rv));
    }
}

/* When the standby has caught up, libraft submits the new configuration itself; if that is refused (no space), its
 * error is lost and the request would wait for ever. */
static bool is_change_stuck(const struct hw_consensus *c)
{
    const struct raft *r = c->raft;
    return is_leader(c) && c->change.kind == CHANGE_ASSIGN && c->change.is_submitted && !c->change.is_over &&
           r->legacy.change == &c->change.req && c->change.req.catch_up_id == 0 &&
           r->configuration_uncommitted_index == 0 && r->leader_state.promotee_id == 0;
}

static void change_step(struct hw_consensus *c)
{
    if (c->change.kind != CHANGE_NONE && !c->change.is_submitted && !c->change.is_over) {
        change_start(c);
    } else if (is_change_stuck(c)) {
        c->raft->legacy.change = NULL;
        change_over(c, HW_ERR_NOSPACE);
    }
    if (c->change.is_over) {
        struct hw_change *owner = c->change.owner;
        int status = c->change.status;
        c->change = (struct change){0};
        owner->done(owner, status);
    }
}

static int change_new(struct hw_consensus *c, struct hw_change *owner, enum change_kind kind, uint64_t id)
{
    if (!is_leader(c)) {
        return HW_ERR_NOTHOT;
    }
    if (c->change.kind != CHANGE_NONE || (kind != CHANGE_TRANSFER && c->raft->configuration_uncommitted_index != 0)) {
        return HW_ERR_EXHAUSTED;
    }
    c->change = (struct change){.kind = kind, .owner = owner, .id = id};
    consensus_post(c);
    return 0;
}

static const struct raft_server *server_of(const struct hw_consensus *c, uint64_t id)
{
    const struct raft_configuration *conf = &c->raft->configuration;
    for (unsigned i = 0; i < conf->n; i++) {
        if (conf->servers[i].id == id) {
            return &conf->servers[i];
        }
    }
    return NULL;
}

int hw_consensus_add(struct hw_consensus *c, struct hw_change *ch, uint64_t id, const char *address)
{
    size_t len = strlen(address);
    int rc;
    if (id == 0 || len == 0 || len >= sizeof c->change.address) {
        return HW_ERR_INVALID;
    }
    if (!is_leader(c)) {
        return HW_ERR_NOTHOT;
    }
    if (c->raft->configuration.n >= HW_MEMBERS_MAX) {
        return HW_ERR_EXHAUSTED;
    }
    rc = change_new(c, ch, CHANGE_ADD, id);
    if (rc == 0) {
        memcpy(c->change.address, address, len + 1);
    }
    return rc;
}

int hw_consensus_assign(struct hw_consensus *c, struct hw_change *ch, uint64_t id, enum hw_role role)
{
    static const int roles[] = {
        [HW_ROLE_STANDBY] = RAFT_STANDBY, [HW_ROLE_VOTER] = RAFT_VOTER, [HW_ROLE_SPARE] = RAFT_SPARE};
    const struct raft_server *server;
    int rc;
    if ((unsigned)role >= hw_array_len(roles)) {
        return HW_ERR_INVALID;
    }
    if (!is_leader(c)) {
        return HW_ERR_NOTHOT;
    }
    server = server_of(c, id);
    if (server == NULL) {
        return HW_ERR_NOTFOUND;
    }
    if (server->role == roles[role] || (role == HW_ROLE_VOTER && server->role != RAFT_STANDBY)) {
        return HW_ERR_PRECONDITION;
    }
    rc = change_new(c, ch, CHANGE_ASSIGN, id);
    if (rc == 0) {
        c->change.role = roles[role];
    }
    return rc;
}

int hw_consensus_remove(struct hw_consensus *c, struct hw_change *ch, uint64_t id)
{
    if (is_leader(c) && server_of(c, id) == NULL) {
        return HW_ERR_NOTFOUND;
    }
    return change_new(c, ch, CHANGE_REMOVE, id);
}

int hw_consensus_transfer(struct hw_consensus *c, struct hw_change *ch, uint64_t id)
{
    return change_new(c, ch, CHANGE_TRANSFER, id);
}

/* ---- status ---- */

static enum hw_role role_of(int role)
{
    switch (role) {
    case RAFT_STANDBY:
        return HW_ROLE_STANDBY;
    case RAFT_VOTER:
        return HW_ROLE_VOTER;
    case RAFT_SPARE:
        return HW_ROLE_SPARE;
    default:
        return HW_ROLE_NONE;
    }
}

void hw_consensus_view(const struct hw_consensus *c, struct hw_consensus_view *view)
{
    struct raft *r = c->raft;
    raft_id leader_id = 0;
    const char *address;
    *view = (struct hw_consensus_view){
        .is_started = c->life == LIFE_STARTED,
        .role = HW_ROLE_NONE,
        .proposals = c->proposals,
        .proposal_bytes = c->proposal_bytes,
    };
    if (c->life != LIFE_STARTED) {
        return;
    }
    if (!c->has_failed) {
        raft_leader(r, &leader_id, &address);
    }
    view->is_leader = is_leader(c);
    view->term = raft_current_term(r);
    view->leader_id = leader_id;
    view->role = role_of(raft_role(r));
    view->commit_index = raft_commit_index(r);
    view->applied_index = raft_last_applied(r);
    view->last_index = raft_last_index(r);
    view->config_index = r->configuration_committed_index;
    view->is_changing = r->configuration_uncommitted_index != 0 || c->change.kind != CHANGE_NONE;
    view->member_count = r->configuration.n;
}

size_t hw_consensus_members(const struct hw_consensus *c, struct hw_member *members, size_t max)
{
    size_t n = 0;
    if (c->life != LIFE_STARTED) {
        return 0;
    }
    for (unsigned i = 0; i < c->raft->configuration.n && n < max; i++) {
        const struct raft_server *s = &c->raft->configuration.servers[i];
        struct hw_member *m = &members[n++];
        m->id = s->id;
        m->role = role_of(s->role);
        snprintf(m->address, sizeof m->address, "%s", s->address);
    }
    return n;
}

int hw_consensus_match_index(const struct hw_consensus *c, uint64_t id, uint64_t *index)
{
    raft_index found;
    int rv;
    if (!is_leader(c)) {
        return HW_ERR_NOTHOT;
    }
    rv = raft_match_index(c->raft, id, &found);
    if (rv == 0) {
        *index = found;
    }
    return code_of(rv);
}

void hw_consensus_durable(struct hw_consensus *c)
{
    if (c->put.state == PUT_WAITING) {
        c->put.state = PUT_READY;
        consensus_post(c);
    }
}

void hw_consensus_suspect_leader(struct hw_consensus *c, unsigned election_ms)
{
    if (!is_running(c) || raft_state(c->raft) == RAFT_LEADER || raft_role(c->raft) != RAFT_VOTER ||
        election_ms == 0 || election_ms >= c->config.election_ms) {
        return;
    }
    c->suspect_until = c->below.time(c->io) + 2 * (raft_time)c->config.election_ms;
    c->suspect_term = raft_current_term(c->raft);
    raft_set_election_timeout(c->raft, election_ms);
}

/* Back to the normal timeout as soon as the suspicion is settled, one way or the other. */
static void suspect_step(struct hw_consensus *c)
{
    raft_id leader_id = 0;
    const char *address;
    if (c->suspect_until == 0) {
        return;
    }
    raft_leader(c->raft, &leader_id, &address);
    if (c->below.time(c->io) >= c->suspect_until || raft_state(c->raft) == RAFT_LEADER ||
        (leader_id != 0 && raft_current_term(c->raft) != c->suspect_term)) {
        c->suspect_until = 0;
        raft_set_election_timeout(c->raft, c->config.election_ms);
    }
}

/* ---- step ---- */

static void fan_out(struct hw_consensus *c)
{
    struct hw_consensus_view v;
    const struct hw_consensus_view *t = &c->told;
    uint64_t uncommitted = c->raft->configuration_uncommitted_index;
    hw_consensus_view(c, &v);
    if (v.applied_index != c->told_applied) {
        c->told_applied = v.applied_index;
        if (c->ops->on_applied != NULL) {
            c->ops->on_applied(c->ctx, v.applied_index);
        }
    }
    if (!c->has_told || v.is_leader != t->is_leader || v.term != t->term || v.leader_id != t->leader_id ||
        v.role != t->role || v.config_index != t->config_index || v.is_changing != t->is_changing ||
        v.member_count != t->member_count || uncommitted != c->told_uncommitted) {
        c->told = v;
        c->told_uncommitted = uncommitted;
        c->has_told = true;
        if (c->ops->on_change != NULL) {
            c->ops->on_change(c->ctx, &v);
        }
    }
    if (c->has_failed && !c->has_told_failure) {
        c->has_told_failure = true;
        if (c->ops->on_failed != NULL) {
            c->ops->on_failed(c->ctx, c->failure);
        }
    }
}

void hw_consensus_step(struct hw_consensus *c)
{
    if (c->is_stepping) {
        return;
    }
    c->is_stepping = true;
    if (c->life == LIFE_STARTED) {
        const struct pending *n = TAILQ_FIRST(&c->inflight);
        if (raft_state(c->raft) == RAFT_UNAVAILABLE) {
            consensus_fail(c, "%s", raft_errmsg(c->raft));
        }
        if (n != NULL && (!is_leader(c) || n->p->term != raft_current_term(c->raft))) {
            consensus_lose_inflight(c, HW_ERR_UNKNOWN);
        }
        io_put_step(c);
        suspect_step(c);
        flush(c);
        deliver(c);
        change_step(c);
        fan_out(c);
        room_step(c);
    } else {
        deliver(c);
        change_step(c);
        consensus_maybe_closed(c);
    }
    c->is_stepping = false;
}

static void run_step(struct hw_defer *d)
{
    struct hw_consensus *c = hw_container_of(d, struct hw_consensus, step);
    if (c->loop != NULL) {
        hw_loop_note(c->loop, "consensus");
    }
    hw_consensus_step(c);
}

/* ---- life ---- */

static void destroy(struct hw_consensus *c)
{
    if (c->loop != NULL) {
        hw_defer_cancel(c->loop, &c->step);
        hw_defer_cancel(c->loop, &c->closed);
    }
    transport_free(c->transport);
    free((char *)c->config.address);
    free((char *)c->config.folder);
    free(c);
}

static void run_closed(struct hw_defer *d)
{
    struct hw_consensus *c = hw_container_of(d, struct hw_consensus, closed);
    void (*on_closed)(void *) = c->on_closed;
    c->on_closed = NULL;
    if (c->is_freed) {
        destroy(c);
    } else if (on_closed != NULL) {
        on_closed(c->closed_ctx);
    }
}

void consensus_maybe_closed(struct hw_consensus *c)
{
    if (c->life == LIFE_CLOSED && !c->is_room_job && TAILQ_EMPTY(&c->completed) && c->change.kind == CHANGE_NONE &&
        (c->on_closed != NULL || c->is_freed)) {
        hw_defer_post(c->loop, &c->closed);
    }
}

static void on_raft_closed(struct raft *r)
{
    struct hw_consensus *c = r->data;
    raft_uv_close(&c->own_io);
    c->life = LIFE_CLOSED;
    consensus_post(c);
}

static void start_closing(struct hw_consensus *c)
{
    bool is_open = c->life == LIFE_OPEN || c->life == LIFE_STARTED;
    c->life = is_open ? LIFE_CLOSING : LIFE_CLOSED;
    lose_queue(c, HW_ERR_CANCELLED);
    consensus_lose_inflight(c, HW_ERR_CANCELLED);
    change_over(c, HW_ERR_CANCELLED);
    if (is_open) {
        raft_close(c->raft, on_raft_closed);
    }
    consensus_post(c);
}

void hw_consensus_shut(struct hw_consensus *c, void (*on_closed)(void *ctx), void *ctx)
{
    hw_assert(c->loop != NULL && !c->is_stepping && c->life != LIFE_CLOSING && c->life != LIFE_CLOSED);
    c->on_closed = on_closed;
    c->closed_ctx = ctx;
    start_closing(c);
}

void hw_consensus_free(struct hw_consensus *c)
{
    if (c == NULL) {
        return;
    }
    if (c->loop == NULL) {
        lose_queue(c, HW_ERR_CANCELLED);
        consensus_lose_inflight(c, HW_ERR_CANCELLED);
        deliver(c);
        destroy(c);
        return;
    }
    if (c->life == LIFE_CLOSED && !c->is_room_job) {
        destroy(c);
        return;
    }
    /* Opened but never shut, for instance after a failed start: the handles need some turns. */
    c->is_freed = true;
    c->on_closed = NULL;
    if (c->life != LIFE_CLOSING && c->life != LIFE_CLOSED) {
        start_closing(c);
    }
}

static void on_trace(struct raft_tracer *t, int type, const void *info)
{
    const struct raft_tracer_info *i = info;
    (void)t;
    if (type == RAFT_TRACER_DIAGNOSTIC) {
        hw_log_debug("libraft", "trace", "text=%s", hw_logq(i->diagnostic.message));
    }
}

static int config_check(const struct hw_consensus_config *config, struct hw_error *e)
{
    size_t len = config->address != NULL ? strlen(config->address) : 0;
    if (config->id == 0) {
        return hw_error_set(e, HW_ERR_INVALID, "consensus: the node id is 0");
    }
    if (len == 0 || len >= sizeof(struct hw_member){0}.address) {
        return hw_error_set(e, HW_ERR_INVALID, "consensus: the peer address must have 1 to 255 characters");
    }
    if (config->heartbeat_ms < 2 || config->heartbeat_ms >= config->election_ms || config->tick_ms == 0) {
        return hw_error_set(e, HW_ERR_INVALID, "consensus: heartbeat_ms (%u) must be less than election_ms (%u), "
                            "and tick_ms (%u) at least 1", config->heartbeat_ms, config->election_ms, config->tick_ms);
    }
    if (config->election_ms == 150 && config->heartbeat_ms == 15) {
        return hw_error_set(e, HW_ERR_INVALID,
                            "consensus: libraft triples election_ms 150 with heartbeat_ms 15; use other numbers");
    }
    /* libraft's raft_io tells an install from a snapshot of our own by trailing 0. */
    if (config->snapshot_threshold == 0 || config->snapshot_trailing == 0) {
        return hw_error_set(e, HW_ERR_INVALID, "consensus: snapshot_threshold and snapshot_trailing must not be 0");
    }
    if (config->proposals_max == 0 || config->entry_bytes_max == 0 || config->entry_bytes_max > 1u << 30 ||
        config->proposal_bytes_max < config->entry_bytes_max + FRAME_ENTRY_HEAD) {
        return hw_error_set(e, HW_ERR_INVALID, "consensus: proposals_max and entry_bytes_max must not be 0, "
                            "entry_bytes_max at most 1 GiB, proposal_bytes_max more than entry_bytes_max");
    }
    return 0;
}

static struct hw_consensus *object_new(const struct hw_consensus_config *config, const struct hw_consensus_ops *ops,
                                       void *ctx)
{
    struct hw_consensus *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    c->config = *config;
    c->config.address = strdup(config->address != NULL ? config->address : "");
    c->config.folder = strdup(config->folder != NULL ? config->folder : "");
    c->ops = ops;
    c->ctx = ctx;
    TAILQ_INIT(&c->queue);
    TAILQ_INIT(&c->inflight);
    TAILQ_INIT(&c->completed);
    hw_defer_init(&c->step, run_step);
    hw_defer_init(&c->closed, run_closed);
    io_fsm_init(c);
    if (c->config.address == NULL || c->config.folder == NULL) {
        destroy(c);
        return NULL;
    }
    return c;
}

static void metrics_init(struct hw_consensus *c, struct hw_metrics *metrics)
{
    static const char *const types[MESSAGE_TYPES] = {"append_entries", "append_entries_result", "request_vote",
                                                     "request_vote_result", "install_snapshot", "timeout_now"};
    for (int i = 0; i < MESSAGE_TYPES; i++) {
        char labels[64];
        snprintf(labels, sizeof labels, "type=\"%s\"", types[i]);
        c->sent[i] = hw_metrics_counter(metrics, "hotwarm_raft_messages_sent_total", labels,
                                        "Raft messages sent to peers.");
        c->received[i] = hw_metrics_counter(metrics, "hotwarm_raft_messages_received_total", labels,
                                            "Raft messages received from peers.");
    }
    c->dropped = hw_metrics_counter(metrics, "hotwarm_raft_messages_dropped_total", NULL,
                                    "Raft messages dropped: a peer that does not read, or a snapshot under way.");
    c->proposed = hw_metrics_counter(metrics, "hotwarm_raft_proposals_total", NULL, "Entries proposed by this node.");
    c->batches = hw_metrics_counter(metrics, "hotwarm_raft_batches_total", NULL,
                                    "Groups in which the proposals of one loop turn left together.");
}

int hw_consensus_new(struct hw_loop *loop, struct hw_pool *resolver, struct hw_metrics *metrics,
                     const struct hw_consensus_config *config, const struct hw_consensus_ops *ops, void *ctx,
                     struct hw_consensus **out, struct hw_error *e)
{
    struct hw_consensus *c;
    int rc = config_check(config, e);
    if (rc != 0) {
        return rc;
    }
    c = object_new(config, ops, ctx);
    if (c == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "consensus: out of memory");
    }
    c->loop = loop;
    c->pool = resolver;
    c->room = (struct disk_room){.folder = c->config.folder, .owner = c, .free_mib = ROOM_MAX};
    if (metrics != NULL) {
        metrics_init(c, metrics);
    }
    *out = c;
    return 0;
}

static int open_failed(struct hw_consensus *c, int rv, const char *text, struct hw_error *e)
{
    return hw_error_set(e, code_of(rv), "open the log in %s: %s", c->config.folder,
                        text[0] != '\0' ? text : raft_strerror(rv));
}

/* raft_init opens handles on the loop, so it comes as late as possible. */
static int open_raft(struct hw_consensus *c, struct hw_error *e)
{
    const struct hw_consensus_config *config = &c->config;
    struct raft *r = &c->own_raft;
    int rv;
    if (c->life == LIFE_OPEN) {
        return 0;
    }
    if (c->transport == NULL) {
        c->transport = transport_new(c);
    }
    if (c->transport == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "open the log in %s: out of memory", config->folder);
    }
    rv = raft_uv_init(&c->own_io, hw_loop_uv(c->loop), config->folder, transport_raft(c->transport));
    if (rv != 0) {
        return open_failed(c, rv, c->own_io.errmsg, e);
    }
    raft_uv_set_connect_retry_delay(&c->own_io, CONNECT_RETRY_MS);
    raft_uv_set_disk_retry(&c->own_io, DISK_RETRY_MS);
    /* Auto recovery renames a damaged segment and goes on without it: a voter would forget entries that it has
     * acknowledged, and a majority could lose what clients were told is safe. The node is rebuilt instead. */
    raft_uv_set_auto_recovery(&c->own_io, false);
    r->data = c;
    rv = raft_init(r, &c->own_io, &c->fsm, config->id, config->address);
    if (rv != 0) {
        rv = open_failed(c, rv, r->errmsg, e);
        raft_uv_close(&c->own_io);
        return rv;
    }
    /* libraft formats every trace line before it asks whether anyone listens; NULL is the only cheap tracer. */
    c->tracer = (struct raft_tracer){.version = 2, .impl = c, .emit = on_trace};
    r->tracer = hw_log_is_on(HW_DEBUG, "libraft") ? &c->tracer : NULL;
    raft_uv_set_tracer(&c->own_io, r->tracer);
    raft_seed(r, (unsigned)hw_random_u64());
    raft_set_pre_vote(r, true);
    raft_set_heartbeat_timeout(r, config->heartbeat_ms);
    raft_set_election_timeout(r, config->election_ms);
    raft_set_install_snapshot_timeout(r, INSTALL_RESEND_MS);
    raft_set_snapshot_threshold(r, config->snapshot_threshold);
    raft_set_snapshot_trailing(r, config->snapshot_trailing);
    raft_set_max_catch_up_rounds(r, CATCH_UP_ROUNDS);
    raft_set_max_catch_up_round_duration(r, CATCH_UP_ROUND_MS);
    raft_set_max_inflight_entries(r, INFLIGHT_ENTRIES);
    raft_set_capacity_threshold(r, (unsigned short)(config->disk_reserve_mb < ROOM_MAX ? config->disk_reserve_mb
                                                                                       : ROOM_MAX));
    c->raft = r;
    c->io = &c->own_io;
    io_wrap(c);
    c->life = LIFE_OPEN;
    return 0;
}

int hw_consensus_bootstrap(struct hw_consensus *c, const struct hw_member *members, size_t count, struct hw_error *e)
{
    static const int roles[] = {
        [HW_ROLE_STANDBY] = RAFT_STANDBY, [HW_ROLE_VOTER] = RAFT_VOTER, [HW_ROLE_SPARE] = RAFT_SPARE};
    struct raft_configuration conf;
    int rc;
    int rv = 0;
    hw_assert(c->life == LIFE_NEW || c->life == LIFE_OPEN);
    if (count == 0 || count > HW_MEMBERS_MAX) {
        return hw_error_set(e, HW_ERR_INVALID, "bootstrap: %zu members, expected 1 to %d", count, HW_MEMBERS_MAX);
    }
    if (!hw_consensus_folder_is_pristine(c->config.folder)) {
        return hw_error_set(e, HW_ERR_EXISTS, "bootstrap: %s already holds a log", c->config.folder);
    }
    rc = open_raft(c, e);
    if (rc != 0) {
        return rc;
    }
    raft_configuration_init(&conf);
    for (size_t i = 0; i < count && rv == 0; i++) {
        rv = (unsigned)members[i].role < hw_array_len(roles)
                 ? raft_configuration_add(&conf, members[i].id, members[i].address, roles[members[i].role])
                 : RAFT_BADROLE;
        if (rv != 0) {
            rc = hw_error_set(e, code_of(rv), "bootstrap: member %llu at %s: %s", (unsigned long long)members[i].id,
                              members[i].address, raft_strerror(rv));
        }
    }
    if (rv == 0) {
        rv = raft_bootstrap(c->raft, &conf);
        if (rv != 0) {
            rc = hw_error_set(e, code_of(rv), "bootstrap: write the first configuration in %s: %s", c->config.folder,
                              c->io->errmsg[0] != '\0' ? c->io->errmsg : raft_strerror(rv));
        }
    }
    raft_configuration_close(&conf);
    return rc;
}

/* raft_uv reports a file that ends early, whatever the reason, as an input/output error. */
static int start_code(struct hw_consensus *c, int rv)
{
    const char *text = raft_errmsg(c->raft);
    if (c->start_code != 0) {
        return c->start_code;
    }
    return strstr(text, "short read") != NULL || strstr(text, "file has only") != NULL ? HW_ERR_CORRUPT : code_of(rv);
}

int hw_consensus_start(struct hw_consensus *c, struct hw_error *e)
{
    int rc;
    int rv;
    hw_assert(c->life == LIFE_NEW || c->life == LIFE_OPEN);
    rc = folder_check(c->config.folder, e);
    if (rc == 0) {
        rc = open_raft(c, e);
    }
    if (rc != 0) {
        return rc;
    }
    folder_room(&c->room);
    consensus_room_set(c);
    rv = raft_start(c->raft);
    if (rv == RAFT_CORRUPT && c->start_code == 0 && strstr(raft_errmsg(c->raft), "behind last snapshot") != NULL) {
        /* A crash while a snapshot was installed: the old segments, all of them covered by the snapshot, were not yet
         * removed. The first attempt has closed the open ones, and then the second knows to leave them all out. */
        rv = raft_start(c->raft);
    }
    if (rv != 0) {
        rc = start_code(c, rv);
        return hw_error_set(e, rc, "start from the log in %s: %s", c->config.folder,
                            c->start_code != 0 ? "its snapshot cannot be restored" : raft_errmsg(c->raft));
    }
    c->life = LIFE_STARTED;
    consensus_post(c);
    return 0;
}

void hw_consensus_accept(struct hw_consensus *c, struct hw_stream *stream)
{
    transport_accept(c->life == LIFE_STARTED ? c->transport : NULL, stream);
}

/* ---- simulation ---- */

struct hw_consensus *hw_consensus_new_detached(const struct hw_consensus_config *config,
                                               const struct hw_consensus_ops *ops, void *ctx)
{
    return object_new(config, ops, ctx);
}

struct raft_fsm *hw_consensus_fsm(struct hw_consensus *c)
{
    return &c->fsm;
}

void hw_consensus_attach(struct hw_consensus *c, struct raft *raft, struct raft_io *io)
{
    c->raft = raft;
    c->io = io;
    raft->data = c;
    io_wrap(c);
    c->life = LIFE_STARTED;
}
