#include <string.h>

#include "agent/base/assert.h"
#include "agent/consensus/impl.h"

/* Changes of membership and leadership: one at a time, given to libraft in the step, where no call of its own is under
 * way. */

void changes_over(struct hw_consensus *c, int status)
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
    changes_over(c, c->life == LIFE_STARTED ? consensus_code(status) : HW_ERR_CANCELLED);
}

static void on_transfer(struct raft_transfer *req)
{
    struct hw_consensus *c = req->data;
    raft_id leader_id = 0;
    const char *address;
    raft_leader(c->raft, &leader_id, &address);
    if (c->life != LIFE_STARTED) {
        changes_over(c, HW_ERR_CANCELLED);
    } else if (leader_id == req->id) {
        changes_over(c, 0);
    } else {
        changes_over(c, raft_state(c->raft) == RAFT_LEADER ? HW_ERR_TIMEOUT : HW_ERR_ABORTED);
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
    if (consensus_is_leader(c) && raft_transferee(c->raft) == 0) {
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
        changes_over(c, consensus_code(rv));
    }
}

/* When the standby has caught up, libraft submits the new configuration itself; if that is refused (no space), its
 * error is lost and the request would wait for ever. */
static bool is_change_stuck(const struct hw_consensus *c)
{
    const struct raft *r = c->raft;
    return consensus_is_leader(c) && c->change.kind == CHANGE_ASSIGN && c->change.is_submitted && !c->change.is_over &&
           r->legacy.change == &c->change.req && c->change.req.catch_up_id == 0 &&
           r->configuration_uncommitted_index == 0 && r->leader_state.promotee_id == 0;
}

void changes_step(struct hw_consensus *c)
{
    if (c->change.kind != CHANGE_NONE && !c->change.is_submitted && !c->change.is_over) {
        change_start(c);
    } else if (is_change_stuck(c)) {
        c->raft->legacy.change = NULL;
        changes_over(c, HW_ERR_NOSPACE);
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
    if (!consensus_is_leader(c)) {
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
    if (!consensus_is_leader(c)) {
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
    if (!consensus_is_leader(c)) {
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
    if (consensus_is_leader(c) && server_of(c, id) == NULL) {
        return HW_ERR_NOTFOUND;
    }
    return change_new(c, ch, CHANGE_REMOVE, id);
}

int hw_consensus_transfer(struct hw_consensus *c, struct hw_change *ch, uint64_t id)
{
    return change_new(c, ch, CHANGE_TRANSFER, id);
}
