/* Kept connections to the other members, one channel each. They carry the questions of read.c, the calls of forward.c
 * and images; and that they are up or down is a fact about the peer. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/replica/replica_impl.h"
#include "proto/hotwarm.pb-c.h"

#define GREET_TIMEOUT_MS 2000
#define GREET_EVERY_MS 1000
/* Election timeout, random in [1x, 2x], once the leader's process is known to be gone. Pre-vote makes a false alarm
 * harmless. */
#define SUSPECT_MS 20
/* The answer of any call that was sent on to the hot node, a range among them. */
#define PEER_MESSAGE_MAX ((size_t)65 * 1024 * 1024)

static void went_down(struct hw_peer *p, int status)
{
    p->is_up = false;
    if (p->id == p->replica->view.leader_id && status != HW_ERR_TIMEOUT && p->replica->consensus != NULL) {
        /* Its kernel closed the connection: the process is gone, no need to wait for its silence to tell. */
        hw_consensus_suspect_leader(p->replica->consensus, SUSPECT_MS);
    }
    hw_log_warn(HW_COMPONENT, "peer connection lost", "peer=%016" PRIx64 " address=%s why=%s", p->id, p->address,
                hw_logq(hw_err_text(status)));
    p->replica->ops->on_change(p->replica->ctx);
}

/* An address may have a new owner (a wiped node that came back under a new id), so a connection counts only once the
 * other side has said who it is, on that very connection: a process that goes away still answers what it has, after the
 * channel has given its connection up. */
static void on_hello_message(struct hw_request *request, struct hw_slice message)
{
    struct hw_peer *p = hw_container_of(request, struct hw_peer, hello);
    Hotwarm__V1__HelloResponse *m = hotwarm__v1__hello_response__unpack(NULL, message.len, message.data);
    bool is_same = m != NULL && m->id == p->id;
    bool is_removed = is_same && m->removed;
    bool is_read = m != NULL;
    uint64_t recovery = m != NULL && m->cluster_id == p->replica->config.consensus.cluster_id ? m->recovery : 0;
    if (is_same) {
        snprintf(p->name, sizeof p->name, "%s", m->name);
    }
    hotwarm__v1__hello_response__free_unpacked(m, NULL);
    if (recovery > p->replica->config.consensus.recovery && p->replica->phase == HW_PHASE_MEMBER) {
        p->replica->ops->on_superseded(p->replica->ctx, recovery);
        return;
    }
    if (is_removed && p->replica->phase == HW_PHASE_MEMBER) {
        p->replica->ops->on_removed(p->replica->ctx);
        return;
    }
    if (p->id == 0 || !is_read || p->greeted != p->connection || !hw_channel_is_up(p->channel)) {
        return;
    }
    p->is_replaced = !is_same;
    if (!is_same && p->is_up) {
        went_down(p, HW_ERR_FOREIGN);
    }
    if (!is_same || p->is_up) {
        return;
    }
    p->is_up = true;
    hw_log_info(HW_COMPONENT, "peer reachable", "peer=%016" PRIx64 " address=%s", p->id, p->address);
    hw_forwards_kick(p->replica);
    hw_reads_kick(p->replica);
    p->replica->ops->on_change(p->replica->ctx);
}

static void on_hello_end(struct hw_request *request, enum hw_grpc status, const char *text)
{
    struct hw_peer *p = hw_container_of(request, struct hw_peer, hello);
    (void)status;
    (void)text;
    p->is_greeting = false;
    if (p->id != 0 && !p->is_up && hw_channel_is_up(p->channel) && status != HW_GRPC_OK) {
        hw_log_debug(HW_COMPONENT, "peer did not say who it is", "address=%s why=%s", p->address, hw_logq(text));
    }
    hw_replica_maybe_closed(p->replica);
}

static const struct hw_request_ops hello_ops = {.on_message = on_hello_message, .on_end = on_hello_end};

static void greet(struct hw_peer *p)
{
    Hotwarm__V1__HelloRequest m = HOTWARM__V1__HELLO_REQUEST__INIT;
    uint8_t packed[32];
    if (p->is_greeting) {
        return;
    }
    m.from_id = p->replica->config.consensus.id;
    p->greeted = p->connection;
    hw_assert(hotwarm__v1__hello_request__get_packed_size(&m) <= sizeof packed);
    p->hello.ops = &hello_ops;
    p->is_greeting = hw_request_start(p->channel, &p->hello, "/hotwarm.v1.Peer/Hello", NULL, GREET_TIMEOUT_MS, true,
                                      hw_slice_of(packed, hotwarm__v1__hello_request__pack(&m, packed)), true) == 0;
}

static void on_up(void *ctx)
{
    greet(ctx);
}

/* Who has no leader may have been taken out while it was away: nobody sends the log to it any more. */
static void on_greet_timer(void *ctx)
{
    struct hw_replica *r = ctx;
    for (size_t i = 0; i < HW_MEMBERS_MAX && r->phase == HW_PHASE_MEMBER; i++) {
        struct hw_peer *p = &r->peers[i];
        if (p->id != 0 && hw_channel_is_up(p->channel) && (r->view.leader_id == 0 || !p->is_up)) {
            greet(p);
        }
    }
    hw_quorum_tick(r);
}

static void on_down(void *ctx, int status)
{
    struct hw_peer *p = ctx;
    p->connection++;
    p->is_replaced = false;
    if (p->is_up) { /* otherwise still refused: said once is enough */
        went_down(p, status);
    }
}

static const struct hw_channel_ops channel_ops = {.on_up = on_up, .on_down = on_down};

static void peer_drop(struct hw_peer *p)
{
    struct hw_channel *channel = p->channel;
    p->id = 0;
    p->channel = NULL;
    p->is_up = false;
    hw_channel_free(channel);
}

struct hw_peer *hw_peer_of(struct hw_replica *r, uint64_t id)
{
    for (size_t i = 0; id != 0 && i < HW_MEMBERS_MAX; i++) {
        if (r->peers[i].id == id) {
            return &r->peers[i];
        }
    }
    return NULL;
}

const char *hw_replica_name_of(struct hw_replica *r, uint64_t id)
{
    const struct hw_node *node = r->hot != NULL ? hw_hot_node_by_id(r->hot, id) : NULL;
    const struct hw_peer *p = hw_peer_of(r, id);
    if (node != NULL) {
        return node->name;
    }
    return id == r->config.consensus.id ? r->name : p != NULL ? p->name : "";
}

static void peer_add(struct hw_replica *r, const struct hw_member *m)
{
    struct hw_rpc_limits limits;
    for (size_t i = 0; i < HW_MEMBERS_MAX; i++) {
        struct hw_peer *p = &r->peers[i];
        /* A slot's question may still be on its way to the peer that had it before. */
        if (p->id != 0 || r->reads.queries[i].is_busy || p->is_greeting) {
            continue;
        }
        hw_rpc_limits_default(&limits);
        limits.message_bytes_max = PEER_MESSAGE_MAX;
        p->replica = r;
        snprintf(p->address, sizeof p->address, "%s", m->address);
        if (hw_channel_new(r->loop, r->resolver, p->address, &limits, &channel_ops, p, &p->channel) != 0) {
            return; /* out of memory: the next change tries again */
        }
        p->id = m->id;
        p->name[0] = '\0';
        p->is_replaced = false;
        hw_channel_keep(p->channel);
        return;
    }
}

void hw_peers_sync(struct hw_replica *r)
{
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count;
    if (r->greet_timer == NULL) {
        return; /* closed; the view still changes while the log is being closed */
    }
    count = hw_consensus_members(r->consensus, members, HW_MEMBERS_MAX);
    for (size_t i = 0; i < HW_MEMBERS_MAX; i++) {
        bool is_wanted = false;
        for (size_t k = 0; k < count && r->peers[i].id != 0; k++) {
            is_wanted |= members[k].id == r->peers[i].id && strcmp(members[k].address, r->peers[i].address) == 0;
        }
        if (r->peers[i].id != 0 && !is_wanted) {
            peer_drop(&r->peers[i]);
        }
    }
    for (size_t k = 0; k < count; k++) {
        if (members[k].id != r->config.consensus.id && hw_peer_of(r, members[k].id) == NULL) {
            peer_add(r, &members[k]);
        }
    }
}

void hw_peers_init(struct hw_replica *r)
{
    r->greet_timer = hw_timer_new(r->loop, "greet", on_greet_timer, r);
    hw_timer_start(r->greet_timer, GREET_EVERY_MS, GREET_EVERY_MS);
}

bool hw_replica_is_removed(const struct hw_replica *r, uint64_t id)
{
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count;
    if (!hw_replica_is_hot(r) || r->view.is_changing) {
        return false;
    }
    count = hw_consensus_members(r->consensus, members, HW_MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (members[i].id == id) {
            return false;
        }
    }
    return true;
}

void hw_peers_close(struct hw_replica *r)
{
    hw_timer_free(r->greet_timer);
    r->greet_timer = NULL;
    for (size_t i = 0; i < HW_MEMBERS_MAX; i++) {
        if (r->peers[i].id != 0) {
            peer_drop(&r->peers[i]);
        }
    }
}

bool hw_peers_are_idle(const struct hw_replica *r)
{
    for (size_t i = 0; i < HW_MEMBERS_MAX; i++) {
        if (r->peers[i].is_greeting) {
            return false;
        }
    }
    return true;
}

struct hw_channel *hw_replica_channel(struct hw_replica *r, uint64_t id)
{
    struct hw_peer *p = hw_peer_of(r, id);
    return p == NULL ? NULL : p->channel;
}

bool hw_replica_is_reachable(const struct hw_replica *r, uint64_t id)
{
    for (size_t i = 0; i < HW_MEMBERS_MAX; i++) {
        if (r->peers[i].id == id && id != 0) {
            return r->peers[i].is_up;
        }
    }
    return id == r->config.consensus.id;
}
