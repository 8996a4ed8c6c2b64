/* Admin/RecoverPlan and RecoverApply: a quorum that is lost for good is given up by an operator. Both run on the very
 * node that is asked, without a hot node. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "proto/hotwarm.pb-c.h"

struct member_row {
    Hotwarm__V1__RecoverMember m;
    char name[HW_NODE_NAME_MAX];
};

struct plan {
    Hotwarm__V1__RecoverPlanResponse m;
    struct member_row rows[HW_MEMBERS_MAX];
    Hotwarm__V1__RecoverMember *list[HW_MEMBERS_MAX];
};

static void fill_members(struct hw_api *api, struct plan *p)
{
    struct hw_member members[HW_MEMBERS_MAX];
    struct hw_hot *hot = hw_replica_hot(api->replica);
    size_t count = hw_consensus_members(hw_replica_consensus(api->replica), members, HW_MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct member_row *row = &p->rows[i];
        const struct hw_node *node = hw_hot_node_by_id(hot, members[i].id);
        hotwarm__v1__recover_member__init(&row->m);
        snprintf(row->name, sizeof row->name, "%s", node != NULL ? node->name : "?");
        row->m.id = members[i].id;
        row->m.name = row->name;
        row->m.role = (char *)hw_role_name(members[i].role);
        row->m.is_reachable = hw_replica_is_reachable(api->replica, members[i].id);
        p->list[i] = &row->m;
    }
    p->m.members = p->list;
    p->m.n_members = count;
}

/* The leader as hwctl status has it: one that was killed is known for the length of an election yet. */
static uint64_t live_hot_id(struct hw_api *api)
{
    uint64_t id = hw_replica_hot_id(api->replica);
    return hw_replica_is_reachable(api->replica, id) ? id : 0;
}

static void fill_state(struct hw_api *api, struct plan *p)
{
    struct hw_replica_status s;
    uint64_t hot_id = live_hot_id(api);
    struct hw_hot *hot = hw_replica_hot(api->replica);
    const char *hot_name;
    hw_replica_status(api->replica, &s);
    hot_name = hw_replica_name_of(api->replica, hot_id);
    p->m.last_term = s.view.last_term;
    p->m.last_index = s.view.last_index;
    p->m.applied_index = s.applied_index;
    p->m.revision = hw_hot_revision(hot);
    p->m.role = (char *)hw_role_name(s.view.role);
    p->m.hot_node = (char *)(hot_id == 0 ? "" : hot_name[0] != '\0' ? hot_name : "?");
    fill_members(api, p);
}

void hw_admin_recover_plan(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    struct hw_hello hello = {.phase = ""};
    struct plan p;
    if (hw_exchange_unpack(x, &hotwarm__v1__recover_plan_request__descriptor) == NULL) {
        return;
    }
    hotwarm__v1__recover_plan_response__init(&p.m);
    api->ops.hello(api->ctx, &hello);
    p.m.name = (char *)api->config.node_name;
    p.m.id = hello.id;
    p.m.cluster_id = hello.cluster_id;
    p.m.recovery = hello.recovery;
    p.m.phase = (char *)hw_api_phase(api);
    if (hw_api_has_state(api)) {
        fill_state(api, &p);
    }
    hw_exchange_ok_message(x, &p.m.base);
}

/* The operator has decided on what the plan has shown; if that is not so any more, he looks again. */
static int check(struct hw_api *api, const Hotwarm__V1__RecoverApplyRequest *m, struct hw_error *e)
{
    struct hw_replica_status s;
    struct hw_member members[HW_MEMBERS_MAX];
    unsigned voters = 0;
    unsigned reachable = 0;
    size_t count;
    if (strcmp(m->survivor, api->config.node_name) != 0) {
        return hw_error_set(e, HW_ERR_PRECONDITION, "this is node '%s', not '%.63s'", api->config.node_name,
                            m->survivor);
    }
    if (!hw_api_has_state(api)) {
        return hw_error_set(e, HW_ERR_UNAVAILABLE, "this node is %s and has no log to go on with", hw_api_phase(api));
    }
    hw_replica_status(api->replica, &s);
    if (s.view.last_term != m->last_term || s.view.last_index != m->last_index) {
        return hw_error_set(e, HW_ERR_ABORTED,
                            "its log ends at term %llu, index %llu now, not at %llu, %llu as planned: look at the plan "
                            "again",
                            (unsigned long long)s.view.last_term, (unsigned long long)s.view.last_index,
                            (unsigned long long)m->last_term, (unsigned long long)m->last_index);
    }
    count = hw_consensus_members(hw_replica_consensus(api->replica), members, HW_MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        voters += members[i].role == HW_ROLE_VOTER;
        reachable += members[i].role == HW_ROLE_VOTER && hw_replica_is_reachable(api->replica, members[i].id);
    }
    if (!m->force && (live_hot_id(api) != 0 || reachable > voters / 2)) {
        return hw_error_set(e, HW_ERR_PRECONDITION,
                            "the quorum is not lost: %u of %u voters can be reached from here%s. Giving it up would "
                            "lose what they have",
                            reachable, voters, live_hot_id(api) != 0 ? " and a leader is known" : "");
    }
    return 0;
}

void hw_admin_recover_apply(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    Hotwarm__V1__RecoverApplyRequest *m = hw_exchange_unpack(x, &hotwarm__v1__recover_apply_request__descriptor);
    Hotwarm__V1__RecoverApplyResponse answer = HOTWARM__V1__RECOVER_APPLY_RESPONSE__INIT;
    struct hw_error e = {0};
    int rc;
    if (m == NULL) {
        return;
    }
    rc = check(api, m, &e);
    if (rc == 0) {
        rc = api->ops.recover(api->ctx, &answer.recovery, &e);
    }
    if (rc != 0) {
        hw_admin_fail(x, rc, &e);
        return;
    }
    answer.count = HW_RECOVERY_COUNT(answer.recovery);
    hw_exchange_ok_message(x, &answer.base);
}
