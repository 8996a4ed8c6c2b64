#include "agent/cluster/formation.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/cluster/initial.h"
#include "agent/rpc/rpc.h"
#include "proto/hotwarm.pb-c.h"
#include "tests/unit/hw_test.h"

/* Three nodes on one loop: real channels and rpc servers, and of the rest of a node only its identity. */
#define NODES 3
#define PATIENCE_MS 10000

enum state { ABSENT, WAITING, FORMING, MEMBER };

struct node {
    struct rig *rig;
    char name[16];
    const char *cluster_name;
    uint64_t id;
    char address[64];
    enum state state;
    uint64_t cluster_id;
    struct hw_formation_member members[HW_FORMATION_PEERS_MAX];
    size_t member_count;
    struct hw_listener *listener;
    struct hw_rpc_server *server;
    struct hw_formation *formation;
    struct hw_defer over; /* the formation is freed in a later turn, as the node does */
    int decided;
    int formed;
    int joined;
    int joins_asked; /* of this node */
    int hellos;
    int refuse_decisions; /* so many times the disk is full */
    bool refuses_forms;
    const char *trouble;                  /* a member without a hot node */
    const char *wrong_address;            /* of the last node in the list that this node has */
    struct hw_formation_peer list[NODES]; /* its cluster.initial */
    size_t list_count;
};

struct rig {
    struct hw_loop *loop;
    struct hw_pool *resolver;
    struct hw_timer *tick;
    struct node nodes[NODES];
    bool is_closed;
};

static void reply(struct hw_call *call, const ProtobufCMessage *m)
{
    uint8_t packed[4096];
    hw_assert(protobuf_c_message_get_packed_size(m) <= sizeof packed);
    hw_call_reply(call, hw_slice_of(packed, protobuf_c_message_pack(m, packed)));
}

static void free_formation(struct hw_defer *d)
{
    struct node *n = hw_container_of(d, struct node, over);
    hw_formation_free(n->formation);
    n->formation = NULL;
}

static void hear(struct node *n, const Hotwarm__V1__HelloRequest *q)
{
    struct hw_formation_peer list[NODES];
    hw_assert(q->n_initial <= NODES);
    for (size_t i = 0; i < q->n_initial; i++) {
        snprintf(list[i].name, sizeof list[i].name, "%s", q->initial[i]->name);
        snprintf(list[i].address, sizeof list[i].address, "%s", q->initial[i]->peer_address);
    }
    if (n->formation != NULL) {
        hw_formation_note_asker(n->formation, q->from_name, list, q->n_initial);
    }
}

static void on_hello(void *ctx, struct hw_call *call, struct hw_slice message)
{
    static const char *const phases[] = {"", "waiting", "forming", "member"};
    struct node *n = ctx;
    Hotwarm__V1__HelloResponse m = HOTWARM__V1__HELLO_RESPONSE__INIT;
    Hotwarm__V1__HelloRequest *q = hotwarm__v1__hello_request__unpack(NULL, message.len, message.data);
    Hotwarm__V1__PeerMember rows[NODES];
    Hotwarm__V1__PeerMember *list[NODES];
    hw_assert(q != NULL);
    hear(n, q);
    hotwarm__v1__hello_request__free_unpacked(q, NULL);
    for (size_t i = 0; i < n->list_count && n->state == WAITING; i++) {
        hotwarm__v1__peer_member__init(&rows[i]);
        rows[i].name = n->list[i].name;
        rows[i].peer_address = n->list[i].address;
        list[i] = &rows[i];
        m.n_initial = i + 1;
    }
    m.initial = list;
    m.hot_id = n->state == MEMBER && n->trouble == NULL ? 12 : 0;
    m.trouble = (char *)(n->trouble != NULL ? n->trouble : "");
    n->hellos++;
    m.id = n->id;
    m.name = n->name;
    m.phase = (char *)phases[n->state];
    m.cluster_id = n->cluster_id;
    m.peer_address = n->address;
    m.cluster_name = (char *)n->cluster_name;
    reply(call, &m.base);
}

static void on_form(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct node *n = ctx;
    Hotwarm__V1__FormRequest *q = hotwarm__v1__form_request__unpack(NULL, message.len, message.data);
    Hotwarm__V1__FormResponse m = HOTWARM__V1__FORM_RESPONSE__INIT;
    hw_assert(q != NULL);
    m.accepted = !n->refuses_forms && (n->state == WAITING || n->cluster_id == q->cluster_id);
    m.why = (char *)(m.accepted ? "" : "belongs elsewhere");
    if (m.accepted && n->state == WAITING) {
        n->state = MEMBER;
        n->cluster_id = q->cluster_id;
        n->member_count = q->n_members;
        for (size_t i = 0; i < q->n_members; i++) {
            n->members[i].id = q->members[i]->id;
            snprintf(n->members[i].name, sizeof n->members[i].name, "%s", q->members[i]->name);
            snprintf(n->members[i].peer_address, sizeof n->members[i].peer_address, "%s", q->members[i]->peer_address);
        }
        hw_defer_post(n->rig->loop, &n->over);
    }
    hotwarm__v1__form_request__free_unpacked(q, NULL);
    reply(call, &m.base);
}

static void on_join(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct node *n = ctx;
    Hotwarm__V1__JoinResponse m = HOTWARM__V1__JOIN_RESPONSE__INIT;
    (void)message;
    n->joins_asked++;
    if (n->state != MEMBER) {
        hw_call_end(call, HW_GRPC_UNAVAILABLE, "not a member");
        return;
    }
    m.cluster_id = n->cluster_id;
    reply(call, &m.base);
}

static void on_accept(void *ctx, struct hw_stream *stream)
{
    hw_rpc_server_accept(((struct node *)ctx)->server, stream);
}

/* ---- what the formation tells ---- */

static int on_decided(void *ctx, uint64_t cluster_id, const struct hw_formation_member *members, size_t count)
{
    struct node *n = ctx;
    if (n->refuse_decisions > 0) {
        n->refuse_decisions--;
        return HW_ERR_NOSPACE;
    }
    n->decided++;
    n->state = FORMING;
    n->cluster_id = cluster_id;
    n->member_count = count;
    memcpy(n->members, members, count * sizeof members[0]);
    return 0;
}

static void on_formed(void *ctx)
{
    struct node *n = ctx;
    n->formed++;
    n->state = MEMBER;
    hw_defer_post(n->rig->loop, &n->over);
}

static void on_joined(void *ctx, uint64_t cluster_id, uint64_t recovery)
{
    struct node *n = ctx;
    n->joined++;
    n->state = MEMBER;
    n->cluster_id = cluster_id;
    (void)recovery;
    hw_defer_post(n->rig->loop, &n->over);
}

static const struct hw_formation_ops formation_ops = {on_decided, on_formed, on_joined};

/* ---- the rig ---- */

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void on_tick(void *ctx)
{
    (void)ctx;
}

static void node_listen(struct node *n)
{
    const struct hw_method methods[] = {
        {.path = "/hotwarm.v1.Peer/Hello", .on_unary = on_hello, .ctx = n},
        {.path = "/hotwarm.v1.Peer/Form", .on_unary = on_form, .ctx = n},
        {.path = "/hotwarm.v1.Peer/Join", .on_unary = on_join, .ctx = n},
    };
    struct hw_rpc_limits limits;
    struct hw_error e = {0};
    hw_rpc_limits_default(&limits);
    REQUIRE(hw_rpc_server_new(n->rig->loop, NULL, &limits, &n->server) == 0);
    hw_rpc_server_add(n->server, methods, hw_array_len(methods));
    REQUIRE(hw_listener_new(n->rig->loop, n->address, 100, on_accept, n, &n->listener, &e) == 0);
    snprintf(n->address, sizeof n->address, "%s", hw_listener_address(n->listener));
    n->state = n->state == ABSENT ? WAITING : n->state;
}

static void node_silence(struct node *n)
{
    if (n->server == NULL) {
        return;
    }
    hw_listener_free(n->listener);
    hw_rpc_server_free(n->server);
    n->listener = NULL;
    n->server = NULL;
}

static void rig_open(struct rig *r)
{
    memset(r, 0, sizeof *r);
    REQUIRE(hw_loop_new(&r->loop, NULL, 0) == 0);
    REQUIRE(hw_pool_new(r->loop, "resolve", 1, 16, &r->resolver, NULL) == 0);
    r->tick = hw_timer_new(r->loop, "tick", on_tick, r);
    hw_timer_start(r->tick, 2, 2);
    for (unsigned i = 0; i < NODES; i++) {
        struct node *n = &r->nodes[i];
        n->rig = r;
        n->id = 11 + i;
        n->cluster_name = "prod";
        snprintf(n->name, sizeof n->name, "n%u", i + 1);
        snprintf(n->address, sizeof n->address, "127.0.0.1:0");
        hw_defer_init(&n->over, free_formation);
        node_listen(n);
    }
}

static bool turn_until(struct rig *r, bool (*is_so)(struct rig *r), unsigned ms)
{
    uint64_t end_ms = hw_mono_ms() + ms;
    while (!is_so(r) && hw_mono_ms() < end_ms) {
        hw_loop_turn(r->loop, true);
    }
    return is_so(r);
}

static bool never(struct rig *r)
{
    (void)r;
    return false;
}

static bool is_closed(struct rig *r)
{
    return r->is_closed;
}

static void rig_close(struct rig *r)
{
    for (unsigned i = 0; i < NODES; i++) {
        hw_defer_cancel(r->loop, &r->nodes[i].over);
        hw_formation_free(r->nodes[i].formation);
    }
    turn_until(r, never, 20);
    for (unsigned i = 0; i < NODES; i++) {
        node_silence(&r->nodes[i]);
    }
    hw_pool_shut(r->resolver, on_closed, &r->is_closed);
    CHECK(turn_until(r, is_closed, PATIENCE_MS));
    hw_timer_free(r->tick);
    for (int i = 0; i < 1000 && hw_loop_turn(r->loop, true); i++) {
    }
    hw_pool_free(r->resolver);
    hw_loop_free(r->loop);
}

static void node_start(struct node *n, bool is_initial)
{
    struct hw_formation_config c = {.cluster_name = n->cluster_name, .is_initial = is_initial};
    c.self.id = n->id;
    memcpy(c.self.name, n->name, sizeof n->name);
    memcpy(c.self.peer_address, n->address, sizeof n->address);
    for (unsigned i = 0; i < NODES; i++) {
        struct node *other = &n->rig->nodes[i];
        if (other != n) {
            struct hw_formation_peer *p = &c.peers[c.peer_count++];
            snprintf(p->name, sizeof p->name, "%s", is_initial ? other->name : "");
            snprintf(p->address, sizeof p->address, "%s", other->address);
        }
    }
    if (n->wrong_address != NULL) {
        snprintf(c.peers[c.peer_count - 1].address, HW_ADDRESS_MAX, "%s", n->wrong_address);
    }
    n->list_count = 0;
    if (is_initial) {
        memcpy(n->list[0].name, c.self.name, sizeof c.self.name);
        memcpy(n->list[0].address, c.self.peer_address, sizeof c.self.peer_address);
        memcpy(&n->list[1], c.peers, c.peer_count * sizeof c.peers[0]);
        n->list_count = c.peer_count + 1;
    }
    if (n->state == FORMING) {
        c.forming_cluster_id = n->cluster_id;
        c.forming_count = n->member_count;
        memcpy(c.forming, n->members, sizeof c.forming);
    }
    REQUIRE(hw_formation_new(n->rig->loop, n->rig->resolver, &c, &formation_ops, n, &n->formation) == 0);
    hw_formation_start(n->formation);
}

static bool are_all_members(struct rig *r)
{
    return r->nodes[0].state == MEMBER && r->nodes[1].state == MEMBER && r->nodes[2].state == MEMBER;
}

/* One cluster, one list, the same everywhere. */
static void check_formed(struct rig *r)
{
    struct node *seed = &r->nodes[0];
    CHECK_EQ(seed->member_count, NODES);
    CHECK(seed->cluster_id != 0);
    for (unsigned i = 0; i < NODES; i++) {
        struct node *n = &r->nodes[i];
        CHECK_EQ(n->cluster_id, seed->cluster_id);
        CHECK_EQ(n->member_count, NODES);
        for (size_t k = 0; k < NODES; k++) {
            CHECK_EQ(n->members[k].id, seed->members[k].id);
            CHECK_STR(n->members[k].name, seed->members[k].name);
            CHECK_STR(n->members[k].peer_address, r->nodes[n->members[k].id - 11].address);
        }
    }
}

/* ---- cases ---- */

static void three_empty_nodes_form_one_cluster(void)
{
    struct rig r;
    rig_open(&r);
    for (unsigned i = 0; i < NODES; i++) {
        node_start(&r.nodes[i], true);
        CHECK_STR(hw_formation_phase(r.nodes[i].formation), "waiting");
    }
    CHECK(turn_until(&r, are_all_members, PATIENCE_MS));
    CHECK_EQ(r.nodes[0].decided, 1);
    CHECK_EQ(r.nodes[0].formed, 1);
    CHECK_EQ(r.nodes[1].decided + r.nodes[2].decided, 0);
    CHECK_EQ(r.nodes[1].joined + r.nodes[2].joined, 0);
    check_formed(&r);
    rig_close(&r);
}

static void a_node_that_comes_late_is_waited_for(void)
{
    struct rig r;
    rig_open(&r);
    node_silence(&r.nodes[2]);
    node_start(&r.nodes[0], true);
    node_start(&r.nodes[1], true);
    turn_until(&r, never, 600);
    CHECK_EQ(r.nodes[0].decided, 0);
    CHECK_STR(hw_formation_phase(r.nodes[0].formation), "waiting");
    node_listen(&r.nodes[2]);
    node_start(&r.nodes[2], true);
    CHECK(turn_until(&r, are_all_members, PATIENCE_MS));
    CHECK_EQ(r.nodes[0].decided, 1);
    check_formed(&r);
    rig_close(&r);
}

/* Also a wiped node: it never forms a second cluster beside the one that is there. */
static void a_cluster_that_exists_is_joined(void)
{
    struct rig r;
    rig_open(&r);
    for (unsigned i = 1; i < NODES; i++) {
        r.nodes[i].state = MEMBER;
        r.nodes[i].cluster_id = 0x77;
    }
    node_start(&r.nodes[0], true);
    CHECK(turn_until(&r, are_all_members, PATIENCE_MS));
    CHECK_EQ(r.nodes[0].joined, 1);
    CHECK_EQ(r.nodes[0].decided, 0);
    CHECK_EQ(r.nodes[0].cluster_id, 0x77);
    CHECK_EQ(r.nodes[1].joins_asked + r.nodes[2].joins_asked, 1);
    rig_close(&r);
}

static void a_node_with_an_address_to_join_by_never_forms(void)
{
    struct rig r;
    rig_open(&r);
    node_start(&r.nodes[0], false);
    turn_until(&r, never, 500);
    CHECK_EQ(r.nodes[0].decided, 0);
    CHECK(r.nodes[1].hellos > 0);
    r.nodes[2].state = MEMBER;
    r.nodes[2].cluster_id = 0x78;
    r.nodes[1].state = MEMBER;
    r.nodes[1].cluster_id = 0x78;
    CHECK(turn_until(&r, are_all_members, PATIENCE_MS));
    CHECK_EQ(r.nodes[0].cluster_id, 0x78);
    rig_close(&r);
}

static void another_clusters_name_is_no_peer(void)
{
    struct rig r;
    rig_open(&r);
    r.nodes[2].cluster_name = "staging";
    r.nodes[2].state = MEMBER;
    r.nodes[2].cluster_id = 0x99;
    node_start(&r.nodes[0], true);
    node_start(&r.nodes[1], true);
    turn_until(&r, never, 800);
    CHECK_EQ(r.nodes[0].decided, 0);
    CHECK_EQ(r.nodes[2].joins_asked, 0);
    CHECK(r.nodes[2].hellos > 1); /* asked again: somebody may correct it */
    rig_close(&r);
}

static void another_node_at_a_peers_address_is_no_peer(void)
{
    struct rig r;
    rig_open(&r);
    snprintf(r.nodes[2].name, sizeof r.nodes[2].name, "x9");
    node_start(&r.nodes[0], true); /* expects x9 there */
    node_start(&r.nodes[1], true);
    snprintf(r.nodes[2].name, sizeof r.nodes[2].name, "n3");
    turn_until(&r, never, 600);
    CHECK_EQ(r.nodes[0].decided, 0);
    rig_close(&r);
}

static void a_seed_that_cannot_store_its_list_sends_nothing(void)
{
    struct rig r;
    rig_open(&r);
    r.nodes[0].refuse_decisions = 3;
    for (unsigned i = 0; i < NODES; i++) {
        node_start(&r.nodes[i], true);
    }
    CHECK(turn_until(&r, are_all_members, PATIENCE_MS));
    CHECK_EQ(r.nodes[0].refuse_decisions, 0);
    CHECK_EQ(r.nodes[0].decided, 1);
    check_formed(&r);
    rig_close(&r);
}

static bool is_seed_forming(struct rig *r)
{
    return r->nodes[0].state == FORMING;
}

static void a_seed_that_stops_half_way_goes_on_with_the_same_list(void)
{
    struct rig r;
    uint64_t cluster_id;
    rig_open(&r);
    r.nodes[1].refuses_forms = r.nodes[2].refuses_forms = true;
    for (unsigned i = 0; i < NODES; i++) {
        node_start(&r.nodes[i], true);
    }
    CHECK(turn_until(&r, is_seed_forming, PATIENCE_MS));
    CHECK_STR(hw_formation_phase(r.nodes[0].formation), "forming");
    turn_until(&r, never, 300);
    CHECK_EQ(r.nodes[0].formed, 0);
    cluster_id = r.nodes[0].cluster_id;
    hw_formation_free(r.nodes[0].formation);
    r.nodes[0].formation = NULL;
    node_silence(&r.nodes[0]);
    turn_until(&r, never, 100);
    r.nodes[1].refuses_forms = r.nodes[2].refuses_forms = false;
    node_listen(&r.nodes[0]);
    node_start(&r.nodes[0], true);
    CHECK(turn_until(&r, are_all_members, PATIENCE_MS));
    CHECK_EQ(r.nodes[0].cluster_id, cluster_id);
    CHECK_EQ(r.nodes[0].decided, 1);
    check_formed(&r);
    rig_close(&r);
}

static bool is_seed_member(struct rig *r)
{
    return r->nodes[0].state == MEMBER;
}

static void a_majority_is_enough_to_start(void)
{
    struct rig r;
    rig_open(&r);
    r.nodes[2].refuses_forms = true;
    for (unsigned i = 0; i < NODES; i++) {
        node_start(&r.nodes[i], true);
    }
    CHECK(turn_until(&r, is_seed_member, PATIENCE_MS));
    CHECK_EQ(r.nodes[1].state, MEMBER);
    CHECK_EQ(r.nodes[2].cluster_id == 0 || r.nodes[2].joined > 0, 1);
    rig_close(&r);
}

static void a_cluster_of_one_forms_at_once(void)
{
    struct rig r;
    struct hw_formation_config c = {.cluster_name = "prod", .is_initial = true};
    struct node *n;
    rig_open(&r);
    n = &r.nodes[0];
    c.self.id = n->id;
    memcpy(c.self.name, n->name, sizeof n->name);
    memcpy(c.self.peer_address, n->address, sizeof n->address);
    REQUIRE(hw_formation_new(r.loop, r.resolver, &c, &formation_ops, n, &n->formation) == 0);
    hw_formation_start(n->formation);
    CHECK(turn_until(&r, is_seed_member, PATIENCE_MS));
    CHECK_EQ(n->member_count, 1);
    rig_close(&r);
}

static void freed_with_calls_under_way_it_says_nothing_more(void)
{
    struct rig r;
    rig_open(&r);
    for (unsigned i = 0; i < NODES; i++) {
        node_start(&r.nodes[i], true);
    }
    hw_loop_turn(r.loop, true);
    hw_loop_turn(r.loop, true);
    for (unsigned i = 0; i < NODES; i++) {
        hw_formation_free(r.nodes[i].formation);
        r.nodes[i].formation = NULL;
    }
    turn_until(&r, never, 300);
    for (unsigned i = 0; i < NODES; i++) {
        CHECK_EQ(r.nodes[i].decided + r.nodes[i].formed + r.nodes[i].joined, 0);
    }
    hw_formation_free(NULL);
    rig_close(&r);
}

static bool has_problem(struct rig *r)
{
    return hw_formation_problem(r->nodes[0].formation) != NULL && hw_formation_problem(r->nodes[1].formation) != NULL;
}

static bool has_no_problem(struct rig *r)
{
    return hw_formation_problem(r->nodes[0].formation) == NULL;
}

/* n2 has another address for n3: it is told, tells, and nothing is formed until the lists agree. */
static void lists_that_differ_form_nothing_and_both_sides_say_so(void)
{
    struct rig r;
    const char *why;
    rig_open(&r);
    r.nodes[1].wrong_address = "127.0.0.1:1";
    for (unsigned i = 0; i < NODES; i++) {
        node_start(&r.nodes[i], true);
    }
    CHECK(turn_until(&r, has_problem, PATIENCE_MS));
    turn_until(&r, never, 300);
    CHECK_EQ(r.nodes[0].decided, 0);
    why = hw_formation_problem(r.nodes[0].formation);
    REQUIRE(why != NULL);
    CHECK(strstr(why, "'n2'") != NULL && strstr(why, "'n3'") != NULL && strstr(why, "127.0.0.1:1 there") != NULL);
    why = hw_formation_problem(r.nodes[1].formation);
    REQUIRE(why != NULL);
    CHECK(strstr(why, "127.0.0.1:1 here") != NULL && strstr(why, "make cluster.initial the same") != NULL);
    hw_formation_free(r.nodes[1].formation);
    r.nodes[1].wrong_address = NULL;
    node_start(&r.nodes[1], true);
    CHECK(turn_until(&r, are_all_members, PATIENCE_MS));
    CHECK_EQ(r.nodes[0].decided, 1);
    check_formed(&r);
    rig_close(&r);
}

/* The two that agree know nothing of n3's list but what it says when it asks. */
static void a_list_with_one_node_more_is_heard_from_who_asks(void)
{
    struct rig r;
    struct hw_formation_peer mine[2] = {{.name = "n1"}, {.name = "n2"}};
    const struct hw_formation_peer wide[3] = {{"n1", "a:1"}, {"n2", "a:2"}, {"n3", "a:3"}};
    struct hw_formation_config c = {.cluster_name = "prod", .is_initial = true, .peer_count = 1};
    struct node *n;
    rig_open(&r);
    n = &r.nodes[0];
    n->id = 11;
    snprintf(mine[0].address, sizeof mine[0].address, "a:1");
    snprintf(mine[1].address, sizeof mine[1].address, "a:2");
    c.self.id = n->id;
    snprintf(c.self.name, sizeof c.self.name, "n1");
    snprintf(c.self.peer_address, sizeof c.self.peer_address, "a:1");
    c.peers[0] = mine[1];
    REQUIRE(hw_formation_new(r.loop, r.resolver, &c, &formation_ops, n, &n->formation) == 0);
    hw_formation_start(n->formation);
    hw_formation_note_asker(n->formation, "n3", wide, 0); /* without a list: no opinion */
    turn_until(&r, never, 250);
    CHECK(hw_formation_problem(n->formation) == NULL);
    hw_formation_note_asker(n->formation, "n\n3", wide, 3);
    turn_until(&r, never, 250);
    REQUIRE(hw_formation_problem(n->formation) != NULL);
    CHECK(strstr(hw_formation_problem(n->formation), "'n3' (a:3) is in the list there and not here") != NULL);
    CHECK(strstr(hw_formation_problem(n->formation), "node 'n?3'") != NULL);
    hw_formation_note_asker(n->formation, "n\n3", mine, 2);
    CHECK(turn_until(&r, has_no_problem, PATIENCE_MS));
    rig_close(&r);
}

static void a_cluster_without_a_quorum_is_not_asked_but_quoted(void)
{
    struct rig r;
    const char *why;
    rig_open(&r);
    r.nodes[2].state = MEMBER;
    r.nodes[2].cluster_id = 0x77;
    r.nodes[2].trouble = "the quorum is lost: 1 of 3";
    node_start(&r.nodes[0], true);
    node_start(&r.nodes[1], true);
    CHECK(turn_until(&r, has_problem, PATIENCE_MS));
    turn_until(&r, never, 300);
    CHECK_EQ(r.nodes[2].joins_asked, 0);
    CHECK_EQ(r.nodes[0].decided, 0);
    why = hw_formation_problem(r.nodes[0].formation);
    REQUIRE(why != NULL);
    CHECK(strstr(why, "n3 says: the quorum is lost: 1 of 3") != NULL);
    r.nodes[2].trouble = NULL;
    CHECK(turn_until(&r, are_all_members, PATIENCE_MS));
    CHECK_EQ(r.nodes[0].joined + r.nodes[1].joined, 2);
    rig_close(&r);
}

static void lists_are_the_same_in_any_order_and_differ_by_name_or_address(void)
{
    const struct hw_formation_peer a[] = {{"n1", "h1:1"}, {"n2", "h2:1"}, {"n3", "h3:1"}};
    const struct hw_formation_peer b[] = {{"n3", "h3:1"}, {"n1", "h1:1"}, {"n2", "h2:1"}};
    const struct hw_formation_peer c[] = {{"n3", "h3:1"}, {"n1", "h1:9"}, {"n2", "h2:1"}};
    char why[HW_INITIAL_WHY_MAX];
    CHECK(!hw_initial_differs(a, 3, b, 3, "n3", why));
    CHECK(!hw_initial_differs(a, 0, b, 0, "n3", why));
    CHECK(hw_initial_differs(a, 3, c, 3, "n3", why));
    CHECK(strstr(why, "'n1' is at h1:1 here and at h1:9 there") != NULL);
    CHECK(hw_initial_differs(a, 3, b, 2, "n3", why));
    CHECK(strstr(why, "'n2' (h2:1) is in the list here and not there") != NULL);
    CHECK(hw_initial_differs(a, 2, b, 3, "n3", why));
    CHECK(strstr(why, "'n3' (h3:1) is in the list there and not here") != NULL);
}

HW_SUITE(cluster_formation, HW_CASE(lists_that_differ_form_nothing_and_both_sides_say_so),
         HW_CASE(a_list_with_one_node_more_is_heard_from_who_asks),
         HW_CASE(a_cluster_without_a_quorum_is_not_asked_but_quoted),
         HW_CASE(lists_are_the_same_in_any_order_and_differ_by_name_or_address),
         HW_CASE(three_empty_nodes_form_one_cluster), HW_CASE(a_node_that_comes_late_is_waited_for),
         HW_CASE(a_cluster_that_exists_is_joined), HW_CASE(a_node_with_an_address_to_join_by_never_forms),
         HW_CASE(another_clusters_name_is_no_peer), HW_CASE(another_node_at_a_peers_address_is_no_peer),
         HW_CASE(a_seed_that_cannot_store_its_list_sends_nothing),
         HW_CASE(a_seed_that_stops_half_way_goes_on_with_the_same_list), HW_CASE(a_majority_is_enough_to_start),
         HW_CASE(a_cluster_of_one_forms_at_once), HW_CASE(freed_with_calls_under_way_it_says_nothing_more))
