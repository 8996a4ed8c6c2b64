/* What the composition root says of itself to other nodes, and what it lets them say of it. */
#include <stdio.h>
#include <string.h>

#include "agent/node/node_impl.h"
#include "tests/unit/agent/loop/loop_test.h"

static struct hw_agent a;

static void later(struct hw_defer *d)
{
    (void)d; /* the replica that would start next is not wanted here */
}

/* n2 of three initial nodes, waiting. */
static void agent_open(void)
{
    static const char text[] = "format: 1\ncluster:\n  name: test\n  initial:\n"
                               "    - {name: n1, peer: \"127.0.0.1:1\"}\n    - {name: n2, peer: \"127.0.0.1:2\"}\n"
                               "    - {name: n3, peer: \"127.0.0.1:3\"}\n"
                               "node: {name: n2, data: /tmp/none}\nlisten: {peer: \"127.0.0.1:2\"}\n";
    struct hw_config_problems problems = {0};
    struct hw_error e = {0};
    memset(&a, 0, sizeof a);
    REQUIRE(hw_config_parse("test", text, sizeof text - 1, &a.running, &problems) == 0);
    hw_config_problems_free(&problems);
    a.config = &a.running;
    a.loop = test_loop_new();
    hw_defer_init(&a.later, later);
    REQUIRE(hw_pool_new(a.loop, "wiring", 1, 16, &a.resolver, NULL) == 0);
    REQUIRE(hw_datadir_open(hw_test_dir(), &a.datadir, &e) == 0);
    a.identity.state = HW_IDENTITY_WAITING;
    a.identity.raft_id = 22;
    snprintf(a.identity.name, sizeof a.identity.name, "n2");
    REQUIRE(hw_agent_start_formation(&a) == 0);
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void agent_close(void)
{
    bool is_closed = false;
    hw_formation_free(a.formation);
    hw_pool_shut(a.resolver, on_closed, &is_closed);
    CHECK(test_turn_until(a.loop, &is_closed));
    for (int i = 0; i < 1000 && hw_loop_turn(a.loop, false); i++) {
    }
    hw_pool_free(a.resolver);
    hw_datadir_close(a.datadir);
    hw_loop_free(a.loop);
}

static int form(uint64_t cluster_id, uint64_t own_id, const char *third, struct hw_error *e)
{
    struct hw_form_member m[3] = {{.id = 11, .name = "n1", .peer_address = "127.0.0.1:1"},
                                  {.id = own_id, .name = "n2", .peer_address = "127.0.0.1:2"},
                                  {.id = 33, .name = "n3"}};
    snprintf(m[2].peer_address, sizeof m[2].peer_address, "%s", third);
    memset(e, 0, sizeof *e);
    return hw_agent_api_ops.form(&a, cluster_id, 0, m, 3, e);
}

static void a_waiting_node_tells_its_list_and_no_cluster(void)
{
    struct hw_hello hello = {0};
    agent_open();
    a.identity.cluster_id = 5; /* of an attempt that did not come about */
    hw_agent_api_ops.hello(&a, &hello);
    CHECK(hello.id == 22 && hello.cluster_id == 0 && hello.problem == NULL);
    CHECK_STR(hello.phase, "waiting");
    REQUIRE(hello.initial_count == 3);
    CHECK_STR(hello.initial[2].name, "n3");
    CHECK_STR(hello.initial[2].peer_address, "127.0.0.1:3");
    a.identity.state = HW_IDENTITY_MEMBER;
    hw_agent_api_ops.hello(&a, &hello);
    CHECK_EQ(hello.cluster_id, 5);
    a.is_stopping = true;
    hw_agent_api_ops.hello(&a, &hello);
    CHECK_STR(hello.phase, "stopping");
    agent_close();
}

static void a_list_is_taken_only_when_it_is_ours_and_has_us(void)
{
    struct hw_identity stored;
    struct hw_error e;
    agent_open();
    CHECK_EQ(form(7, 23, "127.0.0.1:3", &e), HW_ERR_PRECONDITION); /* an older incarnation of us */
    CHECK(strstr(hw_error_text(&e), "not in the list") != NULL);
    CHECK_EQ(form(7, 22, "127.0.0.1:9", &e), HW_ERR_PRECONDITION);
    CHECK(strstr(hw_error_text(&e), "'n3' is at 127.0.0.1:3 here and at 127.0.0.1:9 there") != NULL);
    CHECK_EQ(a.identity.state, HW_IDENTITY_WAITING);
    CHECK_EQ(form(7, 22, "127.0.0.1:3", &e), 0);
    CHECK(a.identity.state == HW_IDENTITY_FORMING && a.identity.cluster_id == 7 && a.identity.member_count == 3);
    CHECK_EQ(hw_identity_load(a.datadir, &stored, &e), 0);
    CHECK(stored.state == HW_IDENTITY_FORMING && stored.cluster_id == 7 && stored.members[2].id == 33);
    CHECK_EQ(form(7, 22, "127.0.0.1:3", &e), 0); /* said again: the answer was lost */
    CHECK_EQ(form(8, 22, "127.0.0.1:3", &e), HW_ERR_FOREIGN);
    agent_close();
}

static void an_asker_with_another_list_is_heard(void)
{
    struct hw_form_member one = {.name = "n1", .peer_address = "127.0.0.1:1"};
    struct hw_hello hello = {0};
    agent_open();
    hw_agent_api_ops.asked(&a, "n1", &one, 1);
    while (hello.problem == NULL) {
        hw_loop_turn(a.loop, true);
        hw_agent_api_ops.hello(&a, &hello);
    }
    CHECK(strstr(hello.problem, "cluster.initial differs on node 'n1'") != NULL);
    agent_close();
}

static void a_node_can_start_anew_when_it_knows_others(void)
{
    agent_open();
    CHECK(hw_agent_can_start_anew(&a));
    a.running.members.initial_count = 1;
    CHECK(!hw_agent_can_start_anew(&a));
    a.running.members.join_count = 1;
    CHECK(hw_agent_can_start_anew(&a));
    agent_close();
}

HW_SUITE(node_wiring, HW_CASE(a_waiting_node_tells_its_list_and_no_cluster),
         HW_CASE(a_list_is_taken_only_when_it_is_ours_and_has_us), HW_CASE(an_asker_with_another_list_is_heard),
         HW_CASE(a_node_can_start_anew_when_it_knows_others))
