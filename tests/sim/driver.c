/* What agent/cluster does while hot, one change at a time: lets members in and out, and gives roles by its rules. */
#include "agent/cluster/roles.h"
#include "tests/sim/sim.h"

#include "agent/base/assert.h"

#define DRIVER_MS 200
#define LAG_MAX 50

static void on_change_done(struct hw_change *ch, int status)
{
    struct server *v = hw_container_of(ch, struct server, change);
    v->is_changing = false;
    v->sim->stats.changes += status == 0;
    sim_trace(v->sim, v->at, "change done", (uint64_t)-status, 0);
}

static void on_transferred(struct hw_change *ch, int status)
{
    struct server *v = hw_container_of(ch, struct server, change);
    v->is_changing = false;
    v->sim->stats.transfers += status == 0;
    sim_trace(v->sim, v->at, "transfer done", (uint64_t)-status, 0);
}

void server_transfer(struct server *v)
{
    if (v->is_changing) {
        return;
    }
    v->change.done = on_transferred;
    v->is_changing = hw_consensus_transfer(v->consensus, &v->change, 0) == 0;
    server_turn(v);
}

/* A member whose disk is gone makes room, its successor is let in. */
static int replace_members(struct server *v, const struct hw_member *members, size_t count)
{
    struct sim *s = v->sim;
    for (size_t i = 0; i < count; i++) {
        if (server_of_id(s, members[i].id) == NULL) {
            return hw_consensus_remove(v->consensus, &v->change, members[i].id);
        }
    }
    for (unsigned i = 0; i < s->server_count; i++) {
        bool is_member = false;
        for (size_t k = 0; k < count; k++) {
            is_member |= members[k].id == s->servers[i].id;
        }
        if (!is_member && s->servers[i].is_up && net_is_connected(s, v->at, i)) {
            return hw_consensus_add(v->consensus, &v->change, s->servers[i].id, s->servers[i].address);
        }
    }
    return HW_ERR_NOTFOUND;
}

static int assign_roles(struct server *v, const struct hw_member *members, size_t count, uint64_t last_index)
{
    struct sim *s = v->sim;
    struct hw_role_facts f = {.is_hot = true, .voters_wanted = s->voters_wanted, .lag_max = LAG_MAX};
    struct hw_role_decision d;
    f.member_count = count;
    for (size_t i = 0; i < count; i++) {
        struct server *m = server_of_id(s, members[i].id);
        uint64_t match = 0;
        f.members[i] = (struct hw_role_fact){.id = members[i].id, .role = members[i].role, .lag = UINT64_MAX};
        f.members[i].is_reachable = m != NULL && m->is_up && net_is_connected(s, v->at, m->at);
        if (hw_consensus_match_index(v->consensus, members[i].id, &match) == 0 && match > 0) {
            f.members[i].lag = last_index > match ? last_index - match : 0;
        }
    }
    d = hw_roles_decide(&f);
    return d.action == HW_ROLE_ASSIGN ? hw_consensus_assign(v->consensus, &v->change, d.id, d.role) : HW_ERR_NOTFOUND;
}

static void driver_step(struct sim *s, struct sim_event *e)
{
    struct server *v = hw_container_of(e, struct server, driver_event);
    struct hw_member members[HW_MEMBERS_MAX];
    struct hw_consensus_view view;
    size_t count = hw_consensus_members(v->consensus, members, HW_MEMBERS_MAX);
    hw_consensus_view(v->consensus, &view);
    sim_after(s, e, DRIVER_MS, v->at, NULL, driver_step);
    if (!server_is_hot(v) || v->is_changing || view.is_changing) {
        return;
    }
    v->change.done = on_change_done;
    v->is_changing = replace_members(v, members, count) == 0;
    if (!v->is_changing) {
        v->is_changing = assign_roles(v, members, count, view.last_index) == 0;
    }
    server_turn(v);
}

void driver_start(struct server *v)
{
    v->is_changing = false;
    sim_after(v->sim, &v->driver_event, DRIVER_MS, v->at, NULL, driver_step);
}
