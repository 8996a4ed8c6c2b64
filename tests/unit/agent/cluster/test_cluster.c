#include "agent/cluster/cluster.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"
#include "tests/unit/agent/cluster/rig.h"

/* Nobody listens there; spares and standbys need not answer. */
#define NEW_ID 0x91
#define NEW_ADDRESS "127.0.0.1:1"

struct asked_join {
    struct hw_join j;
    int ends;
    int status;
};

static void on_joined(struct hw_join *j, int status)
{
    struct asked_join *a = hw_container_of(j, struct asked_join, j);
    a->ends++;
    a->status = status;
}

static void join_fill(struct asked_join *a, uint64_t id, const char *name, const char *address)
{
    memset(a, 0, sizeof *a);
    a->j.done = on_joined;
    a->j.node.id = id;
    snprintf(a->j.node.name, sizeof a->j.node.name, "%s", name);
    snprintf(a->j.node.peer_address, sizeof a->j.node.peer_address, "%s", address);
    snprintf(a->j.node.client_address, sizeof a->j.node.client_address, "127.0.0.1:2");
}

/* Asked and answered. */
static int join(struct crig *r, struct asked_join *a, uint64_t id, const char *name, const char *address)
{
    join_fill(a, id, name, address);
    REQUIRE(hw_cluster_join(r->cluster, &a->j) == 0);
    CHECK(crig_until(r, &a->ends, 1));
    return a->status;
}

struct asked_leave {
    struct hw_leave l;
    int ends;
    int status;
};

static void on_left(struct hw_leave *l, int status)
{
    struct asked_leave *a = hw_container_of(l, struct asked_leave, l);
    a->ends++;
    a->status = status;
}

static int leave(struct crig *r, struct asked_leave *a, const char *name)
{
    memset(a, 0, sizeof *a);
    a->l.done = on_left;
    snprintf(a->l.name, sizeof a->l.name, "%s", name);
    REQUIRE(hw_cluster_leave(r->cluster, &a->l) == 0);
    CHECK(crig_until(r, &a->ends, 1));
    return a->status;
}

/* ---- joining ---- */

static void a_new_node_is_let_in_registered_and_given_a_role(void)
{
    struct crig r;
    struct asked_join a;
    crig_open(&r, 1);
    crig_set_reachable(&r, NEW_ID, false);
    CHECK_EQ(join(&r, &a, NEW_ID, "fresh", NEW_ADDRESS), 0);
    CHECK_EQ(crig_role(&r, NEW_ID), HW_ROLE_SPARE);
    REQUIRE(crig_registered(&r, "fresh") != NULL);
    CHECK_EQ(crig_registered(&r, "fresh")->id, NEW_ID);
    CHECK(crig_registered(&r, "fresh")->added_wall_ms > 0);
    crig_turns(&r, 500);
    CHECK_EQ(crig_role(&r, NEW_ID), HW_ROLE_SPARE); /* as long as it cannot be reached */
    crig_set_reachable(&r, NEW_ID, true);
    CHECK(crig_until_role(&r, NEW_ID, HW_ROLE_STANDBY));
    crig_turns(&r, 300);
    CHECK(crig_has_event(&r, "role-changed", NEW_ID));
    CHECK_EQ(crig_role(&r, NEW_ID), HW_ROLE_STANDBY); /* it never answers: not a voter */
    crig_close(&r);
}

static void joining_again_refreshes_the_addresses(void)
{
    struct crig r;
    struct asked_join a;
    crig_open(&r, 1);
    CHECK_EQ(join(&r, &a, NEW_ID, "fresh", NEW_ADDRESS), 0);
    CHECK_EQ(join(&r, &a, NEW_ID, "fresh", NEW_ADDRESS), 0);
    join_fill(&a, NEW_ID, "fresh", NEW_ADDRESS);
    snprintf(a.j.node.client_address, sizeof a.j.node.client_address, "127.0.0.1:3");
    REQUIRE(hw_cluster_join(r.cluster, &a.j) == 0);
    CHECK(crig_until(&r, &a.ends, 1));
    CHECK_EQ(a.status, 0);
    CHECK_STR(crig_registered(&r, "fresh")->client_address, "127.0.0.1:3");
    CHECK_EQ(hw_hot_node_count(r.nodes[0].hot), 2);
    crig_close(&r);
}

static void an_older_incarnation_that_is_gone_makes_room(void)
{
    struct crig r;
    struct asked_join a;
    crig_open(&r, 1);
    crig_set_reachable(&r, NEW_ID, false);
    CHECK_EQ(join(&r, &a, NEW_ID, "fresh", NEW_ADDRESS), 0);
    CHECK_EQ(join(&r, &a, NEW_ID + 1, "fresh", NEW_ADDRESS), 0);
    CHECK_EQ(crig_role(&r, NEW_ID), HW_ROLE_NONE);
    CHECK(crig_role(&r, NEW_ID + 1) != HW_ROLE_NONE);
    CHECK_EQ(crig_registered(&r, "fresh")->id, NEW_ID + 1);
    CHECK(hw_hot_node_by_id(r.nodes[0].hot, NEW_ID) == NULL);
    crig_close(&r);
}

static void a_live_node_keeps_its_name(void)
{
    struct crig r;
    struct asked_join a;
    crig_open(&r, 1);
    CHECK_EQ(join(&r, &a, NEW_ID, "fresh", NEW_ADDRESS), 0);
    CHECK_EQ(join(&r, &a, NEW_ID + 1, "fresh", "127.0.0.1:4"), HW_ERR_EXISTS);
    CHECK(strstr(a.j.e.text, "a live node is called 'fresh' already") != NULL);
    CHECK_EQ(join(&r, &a, NEW_ID + 2, "n1", "127.0.0.1:4"), HW_ERR_EXISTS); /* the hot node's own */
    CHECK_EQ(crig_registered(&r, "fresh")->id, NEW_ID);
    crig_close(&r);
}

static void an_address_belongs_to_one_member(void)
{
    struct crig r;
    struct asked_join a;
    crig_open(&r, 1);
    CHECK_EQ(join(&r, &a, NEW_ID, "fresh", r.nodes[0].address), HW_ERR_EXISTS);
    CHECK(strstr(a.j.e.text, "belongs to the member") != NULL);
    CHECK_EQ(crig_role(&r, NEW_ID), HW_ROLE_NONE);
    CHECK(crig_registered(&r, "fresh") == NULL);
    crig_close(&r);
}

static void what_is_incomplete_is_refused_at_once(void)
{
    struct crig r;
    struct asked_join a;
    crig_open(&r, 1);
    join_fill(&a, 0, "fresh", NEW_ADDRESS);
    CHECK_EQ(hw_cluster_join(r.cluster, &a.j), HW_ERR_INVALID);
    join_fill(&a, NEW_ID, "", NEW_ADDRESS);
    CHECK_EQ(hw_cluster_join(r.cluster, &a.j), HW_ERR_INVALID);
    join_fill(&a, NEW_ID, "fresh", "");
    CHECK_EQ(hw_cluster_join(r.cluster, &a.j), HW_ERR_INVALID);
    CHECK_EQ(a.ends, 0);
    crig_close(&r);
}

/* ---- leaving ---- */

static void a_node_is_taken_out_of_the_log_and_the_registry(void)
{
    struct crig r;
    struct asked_join j;
    struct asked_leave l;
    crig_open(&r, 1);
    CHECK_EQ(join(&r, &j, NEW_ID, "fresh", NEW_ADDRESS), 0);
    CHECK_EQ(leave(&r, &l, "fresh"), 0);
    CHECK_EQ(crig_role(&r, NEW_ID), HW_ROLE_NONE);
    CHECK(crig_registered(&r, "fresh") == NULL);
    memset(&l, 0, sizeof l);
    snprintf(l.l.name, sizeof l.l.name, "fresh");
    CHECK_EQ(hw_cluster_leave(r.cluster, &l.l), HW_ERR_NOTFOUND);
    CHECK(strstr(l.l.e.text, "no node is called 'fresh'") != NULL);
    crig_close(&r);
}

static void the_hot_node_does_not_leave(void)
{
    struct crig r;
    struct asked_leave l;
    crig_open(&r, 1);
    CHECK_EQ(leave(&r, &l, "n1"), HW_ERR_PRECONDITION);
    CHECK(strstr(l.l.e.text, "'n1' is the hot node: move the hot tier first") != NULL);
    CHECK_EQ(crig_role(&r, CRIG_ID(0)), HW_ROLE_VOTER);
    crig_close(&r);
}

static void a_voter_does_not_leave_when_no_quorum_would_be_left(void)
{
    struct crig r;
    struct asked_leave l;
    crig_open(&r, 3);
    crig_set_reachable(&r, CRIG_ID(2), false);
    CHECK_EQ(leave(&r, &l, "n2"), HW_ERR_PRECONDITION);
    CHECK(strstr(l.l.e.text, "without 'n2' only 1 of 2 voters are reachable") != NULL);
    CHECK_EQ(crig_role(&r, CRIG_ID(1)), HW_ROLE_VOTER);
    CHECK_EQ(leave(&r, &l, "n3"), 0); /* the one that is gone may go */
    CHECK_EQ(crig_role(&r, CRIG_ID(2)), HW_ROLE_NONE);
    crig_close(&r);
}

/* ---- waiting ---- */

static void the_queue_has_an_end_and_is_cancelled_with_the_object(void)
{
    struct crig r;
    struct asked_join a[17];
    struct asked_leave l = {.l.name = "n1"};
    crig_open(&r, 1);
    for (unsigned i = 0; i < 17; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%u", i);
        join_fill(&a[i], NEW_ID + i, name, "127.0.0.1:9");
        CHECK_EQ(hw_cluster_join(r.cluster, &a[i].j), i < 16 ? 0 : HW_ERR_EXHAUSTED);
    }
    CHECK_EQ(hw_cluster_leave(r.cluster, &l.l), HW_ERR_EXHAUSTED);
    CHECK(strstr(l.l.e.text, "16 changes of membership wait already") != NULL);
    hw_cluster_free(r.cluster);
    r.cluster = NULL;
    for (unsigned i = 0; i < 16; i++) {
        CHECK_EQ(a[i].ends, 1);
        CHECK_EQ(a[i].status, HW_ERR_CANCELLED);
    }
    CHECK_EQ(a[16].ends, 0);
    crig_close(&r);
}

/* A change is with libraft, or a command in the log: the memory goes when it comes back. */
static void freed_in_the_middle_of_a_step(void)
{
    for (unsigned turns = 1; turns < 12; turns++) {
        struct crig r;
        struct asked_join a;
        crig_open(&r, 1);
        join_fill(&a, NEW_ID, "fresh", NEW_ADDRESS);
        REQUIRE(hw_cluster_join(r.cluster, &a.j) == 0);
        for (unsigned i = 0; i < turns; i++) {
            hw_loop_turn(r.loop, true);
        }
        hw_cluster_free(r.cluster);
        r.cluster = NULL;
        CHECK_EQ(a.ends, 1);
        crig_turns(&r, 30);
        CHECK_EQ(a.ends, 1);
        crig_close(&r);
    }
    hw_cluster_free(NULL);
}

static void only_the_hot_node_changes_members(void)
{
    struct crig r;
    struct asked_join a;
    struct hw_switchover s = {0};
    crig_open(&r, 1);
    join_fill(&a, NEW_ID, "fresh", NEW_ADDRESS);
    r.is_never_hot = true;
    CHECK_EQ(hw_cluster_join(r.cluster, &a.j), HW_ERR_NOTHOT);
    CHECK_EQ(hw_cluster_switchover(r.cluster, &s, 100), HW_ERR_NOTHOT);
    r.is_never_hot = false;
    CHECK_EQ(hw_cluster_join(r.cluster, &a.j), 0);
    r.is_never_hot = true; /* demoted while it waits */
    CHECK(crig_until(&r, &a.ends, 1));
    CHECK_EQ(a.status, HW_ERR_NOTHOT);
    crig_close(&r);
}

static void a_refused_command_is_tried_again(void)
{
    struct crig r;
    struct asked_join a;
    crig_open(&r, 1);
    r.refuses_proposals = true;
    join_fill(&a, NEW_ID, "fresh", NEW_ADDRESS);
    REQUIRE(hw_cluster_join(r.cluster, &a.j) == 0);
    crig_turns(&r, 500);
    CHECK_EQ(a.ends, 0);
    CHECK(crig_role(&r, NEW_ID) != HW_ROLE_NONE);
    r.refuses_proposals = false;
    CHECK(crig_until(&r, &a.ends, 1));
    CHECK_EQ(a.status, 0);
    CHECK(crig_registered(&r, "fresh") != NULL);
    crig_close(&r);
}

/* ---- switchover ---- */

struct asked_switch {
    struct hw_switchover s;
    int ends;
    int status;
};

static void on_switched(struct hw_switchover *s, int status)
{
    struct asked_switch *a = hw_container_of(s, struct asked_switch, s);
    a->ends++;
    a->status = status;
}

static void the_hot_tier_moves_only_to_a_reachable_voter(void)
{
    struct crig r;
    struct asked_switch a = {.s.done = on_switched};
    crig_open(&r, 1);
    CHECK_EQ(hw_cluster_switchover(r.cluster, &a.s, 1000), HW_ERR_PRECONDITION);
    CHECK(strstr(a.s.e.text, "there is no other reachable voter") != NULL);
    a.s.to = CRIG_ID(0);
    CHECK_EQ(hw_cluster_switchover(r.cluster, &a.s, 1000), HW_ERR_PRECONDITION);
    CHECK(strstr(a.s.e.text, "hot already") != NULL);
    a.s.to = 0x4444;
    CHECK_EQ(hw_cluster_switchover(r.cluster, &a.s, 1000), HW_ERR_PRECONDITION);
    CHECK(strstr(a.s.e.text, "no member has that id") != NULL);
    CHECK_EQ(a.ends, 0);
    crig_close(&r);
}

/* A target that is still writing, or a busy machine, lets the time for it pass: the operator asks again. */
static void the_hot_tier_moves_and_the_epoch_grows(void)
{
    struct crig r;
    struct asked_switch a;
    struct asked_switch b = {.s.done = on_switched};
    uint64_t epoch;
    crig_open(&r, 3);
    epoch = hw_hot_epoch(r.nodes[0].hot);
    crig_set_reachable(&r, CRIG_ID(1), false);
    for (int tries = 0; tries < 5; tries++) {
        a = (struct asked_switch){.s.done = on_switched};
        REQUIRE(hw_cluster_switchover(r.cluster, &a.s, 10000) == 0);
        CHECK_EQ(hw_cluster_switchover(r.cluster, &b.s, 10000), HW_ERR_EXHAUSTED);
        CHECK(crig_until(&r, &a.ends, 1));
        if (a.status == 0) {
            break;
        }
        CHECK(a.s.e.text[0] != '\0');
        CHECK(crig_until_hot(&r, 0));
    }
    CHECK_EQ(a.status, 0);
    CHECK_EQ(a.s.to, CRIG_ID(2));
    CHECK(a.s.epoch > epoch);
    CHECK(crig_until_hot(&r, 2));
    CHECK(!crig_is_hot(&r, 0));
    CHECK_EQ(hw_cluster_switchover(r.cluster, &b.s, 100), HW_ERR_NOTHOT);
    crig_close(&r);
}

HW_SUITE(cluster_driver, HW_CASE(a_new_node_is_let_in_registered_and_given_a_role),
         HW_CASE(joining_again_refreshes_the_addresses), HW_CASE(an_older_incarnation_that_is_gone_makes_room),
         HW_CASE(a_live_node_keeps_its_name), HW_CASE(an_address_belongs_to_one_member),
         HW_CASE(what_is_incomplete_is_refused_at_once), HW_CASE(a_node_is_taken_out_of_the_log_and_the_registry),
         HW_CASE(the_hot_node_does_not_leave), HW_CASE(a_voter_does_not_leave_when_no_quorum_would_be_left),
         HW_CASE(the_queue_has_an_end_and_is_cancelled_with_the_object), HW_CASE(freed_in_the_middle_of_a_step),
         HW_CASE(only_the_hot_node_changes_members), HW_CASE(a_refused_command_is_tried_again),
         HW_CASE(the_hot_tier_moves_only_to_a_reachable_voter), HW_CASE(the_hot_tier_moves_and_the_epoch_grows))
