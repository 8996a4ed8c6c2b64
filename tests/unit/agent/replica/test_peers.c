#include <stdio.h>
#include <string.h>

#include "agent/loop/stream.h"
#include "agent/rpc/rpc.h"
#include "proto/hotwarm.pb-c.h"
#include "tests/unit/agent/replica/rig.h"

#define OTHER 8

/* The other member as far as greetings go: it keeps them, and answers when told, with the id that it is told. */
struct peer {
    struct rrig *rig;
    struct hw_rpc_server *server;
    struct hw_listener *listener;
    struct hw_call *held;
    int greetings;
    char address[64];
};

static void on_hello(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct peer *p = ctx;
    (void)message;
    p->held = call;
    p->greetings++;
}

static void on_accept(void *ctx, struct hw_stream *stream)
{
    struct peer *p = ctx;
    hw_rpc_server_accept(p->server, stream);
}

static void answer(struct peer *p, uint64_t id)
{
    Hotwarm__V1__HelloResponse m = HOTWARM__V1__HELLO_RESPONSE__INIT;
    uint8_t packed[64];
    m.id = id;
    hw_call_reply(p->held, hw_slice_of(packed, hotwarm__v1__hello_response__pack(&m, packed)));
    p->held = NULL;
}

static void peer_start(struct peer *p, struct rrig *rig, const char *address)
{
    struct hw_error e = {0};
    const struct hw_method method = {.path = "/hotwarm.v1.Peer/Hello", .on_unary = on_hello, .ctx = p};
    memset(p, 0, sizeof *p);
    p->rig = rig;
    REQUIRE(hw_rpc_server_new(rig->loop, NULL, NULL, &p->server) == 0);
    hw_rpc_server_add(p->server, &method, 1);
    REQUIRE(hw_listener_new(rig->loop, address, 16, on_accept, p, &p->listener, &e) == 0);
    snprintf(p->address, sizeof p->address, "%s", hw_listener_address(p->listener));
}

/* No new calls; what was asked is still answered, as by a process that ends in order. */
static void peer_shut(struct peer *p)
{
    hw_listener_free(p->listener);
    p->listener = NULL;
    hw_rpc_server_shut(p->server, 60000, NULL, NULL);
}

static void peer_free(struct peer *p)
{
    if (p->held != NULL) {
        hw_call_end(p->held, HW_GRPC_CANCELLED, NULL);
    }
    hw_listener_free(p->listener);
    hw_rpc_server_free(p->server);
}

/* A replica whose one other member is at the peer's address. */
static void open_with(struct rrig *r, struct peer *p)
{
    rrig_open(r);
    peer_start(p, r, "127.0.0.1:0");
    r->config.member_count = 2;
    r->config.members[1] = (struct hw_member){.id = OTHER, .role = HW_ROLE_VOTER};
    snprintf(r->config.members[1].address, sizeof r->config.members[1].address, "%s", p->address);
    REQUIRE(rrig_start(r) == 0);
}

static bool until_reachable(struct rrig *r, bool wanted)
{
    for (unsigned ms = 0; ms < RRIG_PATIENCE_MS && hw_replica_is_reachable(r->replica, OTHER) != wanted; ms++) {
        rrig_turns(r, 1);
    }
    return hw_replica_is_reachable(r->replica, OTHER) == wanted;
}

static void a_peer_is_reachable_once_it_has_said_that_it_is_the_member(void)
{
    struct rrig r;
    struct peer p;
    open_with(&r, &p);
    REQUIRE(rrig_until(&r, &p.greetings, 1));
    CHECK(!hw_replica_is_reachable(r.replica, OTHER));
    answer(&p, OTHER + 1); /* somebody else lives there now */
    REQUIRE(rrig_until(&r, &p.greetings, 2));
    CHECK(!hw_replica_is_reachable(r.replica, OTHER));
    answer(&p, OTHER);
    CHECK(until_reachable(&r, true));
    peer_free(&p);
    CHECK(until_reachable(&r, false));
    rrig_close(&r);
}

/* The old incarnation of a node whose log is damaged says who it was, ends, and comes back under a new id: for as long
 * as the old one counts as live, the new one is not let in. */
static void an_answer_of_a_connection_that_was_given_up_does_not_count(void)
{
    struct rrig r;
    struct peer old;
    struct peer anew;
    open_with(&r, &old);
    REQUIRE(rrig_until(&r, &old.greetings, 1));
    peer_shut(&old);
    rrig_turns(&r, 20); /* GOAWAY arrives */
    peer_start(&anew, &r, old.address);
    answer(&old, OTHER);
    REQUIRE(rrig_until(&r, &anew.greetings, 1));
    CHECK(!hw_replica_is_reachable(r.replica, OTHER));
    answer(&anew, OTHER + 1);
    REQUIRE(rrig_until(&r, &anew.greetings, 2));
    CHECK(!hw_replica_is_reachable(r.replica, OTHER));
    peer_free(&old);
    peer_free(&anew);
    rrig_close(&r);
}

HW_SUITE(replica_peers, HW_CASE(a_peer_is_reachable_once_it_has_said_that_it_is_the_member),
         HW_CASE(an_answer_of_a_connection_that_was_given_up_does_not_count))
