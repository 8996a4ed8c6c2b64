#include "agent/cluster/roles.h"

static struct hw_role_decision assign(uint64_t id, enum hw_role role, const char *rule)
{
    return (struct hw_role_decision){.action = HW_ROLE_ASSIGN, .id = id, .role = role, .rule = rule};
}

static struct hw_role_decision keep(const char *rule)
{
    return (struct hw_role_decision){.action = HW_ROLE_KEEP, .rule = rule};
}

static bool is_candidate(const struct hw_role_facts *f, const struct hw_role_fact *m)
{
    return m->role == HW_ROLE_STANDBY && m->is_reachable && m->lag <= f->lag_max;
}

struct hw_role_decision hw_roles_decide(const struct hw_role_facts *f)
{
    const struct hw_role_fact *best = NULL;
    unsigned voters = 0;
    unsigned candidates = 0;
    if (!f->is_hot) {
        return keep("only the hot node decides");
    }
    if (f->is_changing) {
        return keep("one change at a time");
    }
    for (size_t i = 0; i < f->member_count; i++) {
        const struct hw_role_fact *m = &f->members[i];
        if (m->role == HW_ROLE_SPARE && m->is_reachable) {
            return assign(m->id, HW_ROLE_STANDBY, "a reachable spare receives the log as standby");
        }
        voters += m->role == HW_ROLE_VOTER;
        if (is_candidate(f, m)) {
            candidates++;
            if (best == NULL || m->lag < best->lag || (m->lag == best->lag && m->id < best->id)) {
                best = m;
            }
        }
    }
    if (voters >= f->voters_wanted) {
        return keep("there are as many voters as wanted");
    }
    if (best == NULL) {
        return keep("no reachable standby has caught up");
    }
    if (voters % 2 == 1 && candidates < 2) {
        return keep("one more voter would leave an even quorum: waiting for a second standby");
    }
    return assign(best->id, HW_ROLE_VOTER, "a caught-up standby becomes voter");
}
