#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/consensus/impl.h"

#define ROOM_EVERY_MS 1000

/* ---- small things ---- */

const char *hw_role_name(enum hw_role role)
{
    static const char *const names[] = {"standby", "voter", "spare", "none"};
    return (unsigned)role < hw_array_len(names) ? names[role] : "unknown";
}

static bool is_running(const struct hw_consensus *c)
{
    return c->life == LIFE_STARTED && !c->has_failed;
}

bool consensus_is_leader(const struct hw_consensus *c)
{
    return is_running(c) && raft_state(c->raft) == RAFT_LEADER;
}

int consensus_code(int rv)
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
    view->is_leader = consensus_is_leader(c);
    view->term = raft_current_term(r);
    view->leader_id = leader_id;
    view->role = role_of(raft_role(r));
    view->commit_index = raft_commit_index(r);
    view->applied_index = c->has_failed ? c->told_applied : raft_last_applied(r);
    view->last_index = raft_last_index(r);
    view->last_term = c->last_term;
    view->config_index = r->configuration_committed_index;
    view->is_changing = r->configuration_uncommitted_index != 0 || c->change.kind != CHANGE_NONE;
    view->member_count = r->configuration.n;
    view->is_disk_low = c->is_disk_low;
    view->lost_tail_id = c->has_failed ? 0 : consensus_lost_tail(c);
}

size_t hw_consensus_members(const struct hw_consensus *c, struct hw_member *members, size_t max)
{
    const struct raft_configuration *configuration;
    size_t n = 0;
    if (c->life != LIFE_STARTED) {
        return 0;
    }
    /* While a leader's snapshot is being installed its configuration is the newest that is known here; a node that has
     * just been let in has no other, and needs one to know whom to fetch the image from. */
    configuration =
        c->put.state != PUT_IDLE && c->put.trailing == 0 ? &c->put.snapshot->configuration : &c->raft->configuration;
    for (unsigned i = 0; i < configuration->n && n < max; i++) {
        const struct raft_server *s = &configuration->servers[i];
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
    if (!consensus_is_leader(c)) {
        return HW_ERR_NOTHOT;
    }
    rv = raft_match_index(c->raft, id, &found);
    if (rv == 0) {
        *index = found;
    }
    return consensus_code(rv);
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
    if (!is_running(c) || raft_state(c->raft) == RAFT_LEADER || raft_role(c->raft) != RAFT_VOTER || election_ms == 0 ||
        election_ms >= c->config.election_ms) {
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
        if (n != NULL && (!consensus_is_leader(c) || n->p->term != raft_current_term(c->raft))) {
            proposals_lose_inflight(c, HW_ERR_UNKNOWN);
        }
        io_put_step(c);
        suspect_step(c);
        proposals_flush(c);
        proposals_deliver(c);
        changes_step(c);
        commit_note_step(c);
        c->is_disk_low = consensus_is_disk_low(c);
        fan_out(c);
        room_step(c);
    } else {
        proposals_deliver(c);
        changes_step(c);
        consensus_maybe_closed(c);
    }
    c->is_stepping = false;
}

/* ---- simulation ---- */

struct hw_consensus *hw_consensus_new_detached(const struct hw_consensus_config *config,
                                               const struct hw_consensus_ops *ops, void *ctx)
{
    return consensus_object_new(config, ops, ctx);
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
