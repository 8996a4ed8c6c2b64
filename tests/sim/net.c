/* The network half of a raft_io. A link is one direction between two machines; it keeps its order, as a TCP connection
 * does. A cut loses what is sent, a stall holds it back and delivers it late, all at once. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"

struct message {
    struct sim_event event;
    TAILQ_ENTRY(message) link;
    struct raft_message m;
    struct sending *sending; /* while stalled: told when it leaves */
    unsigned from;
    unsigned to;
    uint64_t from_id;
    unsigned to_life;
};

/* libraft's request, until its callback has run. */
struct sending {
    struct sim_event event;
    TAILQ_ENTRY(sending) link;
    struct server *server;
    struct raft_io_send *req;
    raft_io_send_cb cb;
    int status;
    struct message *stalled;
};

static void message_free(struct message *msg)
{
    struct raft_message *m = &msg->m;
    if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
        raft_free(m->append_entries.entries[0].batch);
        raft_free(m->append_entries.entries);
    } else if (m->type == RAFT_INSTALL_SNAPSHOT) {
        raft_configuration_close(&m->install_snapshot.conf);
        raft_free(m->install_snapshot.data.base);
    }
    free(msg);
}

static void copy_entries(struct raft_append_entries *a)
{
    const struct raft_entry *from = a->entries;
    size_t bytes = 0;
    uint8_t *batch;
    uint8_t *at;
    if (a->n_entries == 0) {
        a->entries = NULL;
        return;
    }
    for (unsigned i = 0; i < a->n_entries; i++) {
        bytes += from[i].buf.len;
    }
    batch = raft_malloc(bytes);
    a->entries = raft_malloc(a->n_entries * sizeof a->entries[0]);
    hw_assert(batch != NULL && a->entries != NULL);
    at = batch;
    for (unsigned i = 0; i < a->n_entries; i++) {
        a->entries[i] = from[i];
        a->entries[i].batch = batch;
        a->entries[i].buf.base = memcpy(at, from[i].buf.base, from[i].buf.len);
        at += from[i].buf.len;
    }
}

static void copy_install(struct raft_install_snapshot *i)
{
    struct raft_configuration conf;
    struct raft_buffer encoded;
    void *data = raft_malloc(i->data.len);
    int rv = raft_configuration_encode(&i->conf, &encoded);
    hw_assert(rv == 0 && data != NULL);
    raft_configuration_init(&conf);
    rv = raft_configuration_decode(&encoded, &conf);
    hw_assert(rv == 0);
    raft_free(encoded.base);
    i->conf = conf;
    i->data.base = memcpy(data, i->data.base, i->data.len);
}

/* libraft 0.22.1 asks "am I in the pre-vote?" of a union that holds a pointer in every other state: what a late answer
 * to a vote does would then depend on where the heap lies. */
static bool is_late_vote(const struct server *to, const struct message *msg)
{
    return msg->m.type == RAFT_REQUEST_VOTE_RESULT && raft_state((struct raft *)&to->raft) != RAFT_CANDIDATE;
}

static void on_deliver(struct sim *s, struct sim_event *e)
{
    struct message *msg = hw_container_of(e, struct message, event);
    struct server *to = &s->servers[msg->to];
    if (!to->is_up || to->life != msg->to_life || s->links[msg->from][msg->to].is_cut || is_late_vote(to, msg)) {
        message_free(msg);
        return;
    }
    sim_trace(s, msg->to, "message", msg->m.type, msg->from_id);
    msg->m.server_id = msg->from_id;
    msg->m.server_address = s->servers[msg->from].address;
    to->recv(&to->io, &msg->m);
    free(msg); /* what hangs on it is libraft's now */
    server_turn(to);
}

static void depart(struct sim *s, struct message *msg)
{
    struct link *link = &s->links[msg->from][msg->to];
    uint64_t at = s->now_ms + 1 + sim_below(s, s->latency_ms);
    link->last_ms = at > link->last_ms ? at : link->last_ms;
    sim_after(s, &msg->event, link->last_ms - s->now_ms, msg->to, "deliver", on_deliver);
}

static void on_sent(struct sim *s, struct sim_event *e)
{
    struct sending *g = hw_container_of(e, struct sending, event);
    struct server *v = g->server;
    (void)s;
    TAILQ_REMOVE(&v->sendings, g, link);
    g->cb(g->req, g->status);
    free(g);
    server_turn(v);
}

static struct message *message_new(struct server *v, struct server *to, const struct raft_message *m)
{
    struct message *msg = calloc(1, sizeof *msg);
    hw_assert(msg != NULL);
    msg->m = *m;
    if (m->type == RAFT_APPEND_ENTRIES) {
        copy_entries(&msg->m.append_entries);
    } else if (m->type == RAFT_INSTALL_SNAPSHOT) {
        copy_install(&msg->m.install_snapshot);
    }
    msg->from = v->at;
    msg->from_id = v->id;
    msg->to = to->at;
    msg->to_life = to->life;
    return msg;
}

static int io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m, raft_io_send_cb cb)
{
    struct server *v = io->impl;
    struct sim *s = v->sim;
    struct server *to = server_of_id(s, m->server_id);
    struct sending *g = calloc(1, sizeof *g);
    struct link *link;
    hw_assert(g != NULL);
    g->server = v;
    g->req = req;
    g->cb = cb;
    req->cb = cb;
    TAILQ_INSERT_TAIL(&v->sendings, g, link);
    link = to != NULL ? &s->links[v->at][to->at] : NULL;
    if (to == NULL || !to->is_up || link->is_cut) {
        g->status = RAFT_NOCONNECTION;
    } else if (link->is_stalled) {
        g->stalled = message_new(v, to, m);
        g->stalled->sending = g;
        TAILQ_INSERT_TAIL(&link->stalled, g->stalled, link);
        return 0;
    } else if (sim_chance(s, s->loss_percent)) {
        s->stats.lost++;
    } else {
        depart(s, message_new(v, to, m));
    }
    sim_after(s, &g->event, 0, v->at, "sent", on_sent);
    return 0;
}

void net_wrap(struct server *v)
{
    v->io.send = io_send;
    TAILQ_INIT(&v->sendings);
}

/* What a stall held back: sent after all, or lost. */
static void release(struct sim *s, struct link *link, bool is_lost)
{
    struct message *msg;
    link->is_stalled = false;
    while ((msg = TAILQ_FIRST(&link->stalled)) != NULL) {
        struct sending *g = msg->sending;
        TAILQ_REMOVE(&link->stalled, msg, link);
        msg->sending = NULL;
        g->stalled = NULL;
        g->status = is_lost ? RAFT_NOCONNECTION : 0;
        sim_after(s, &g->event, 0, g->server->at, "sent", on_sent);
        if (is_lost) {
            message_free(msg);
        } else {
            depart(s, msg);
        }
    }
}

void net_stall(struct sim *s, unsigned from, unsigned to, bool on)
{
    struct link *link = &s->links[from][to];
    if (on) {
        link->is_stalled = true;
    } else {
        release(s, link, false);
    }
}

void net_heal(struct sim *s)
{
    for (unsigned i = 0; i < SIM_SERVERS_MAX; i++) {
        for (unsigned j = 0; j < SIM_SERVERS_MAX; j++) {
            s->links[i][j].is_cut = false;
            release(s, &s->links[i][j], false);
        }
    }
}

void net_cancel(struct server *v)
{
    struct sending *g;
    while ((g = TAILQ_FIRST(&v->sendings)) != NULL) {
        TAILQ_REMOVE(&v->sendings, g, link);
        sim_cancel(v->sim, &g->event);
        if (g->stalled != NULL) {
            TAILQ_REMOVE(&v->sim->links[v->at][g->stalled->to].stalled, g->stalled, link);
            message_free(g->stalled);
        }
        g->cb(g->req, RAFT_CANCELED);
        free(g);
    }
}

void net_reset_to(struct sim *s, unsigned to)
{
    for (unsigned i = 0; i < SIM_SERVERS_MAX; i++) {
        bool was_stalled = s->links[i][to].is_stalled;
        release(s, &s->links[i][to], true);
        s->links[i][to].is_stalled = was_stalled;
    }
}

bool net_is_connected(const struct sim *s, unsigned a, unsigned b)
{
    const struct link *there = &s->links[a][b];
    const struct link *back = &s->links[b][a];
    return !there->is_cut && !there->is_stalled && !back->is_cut && !back->is_stalled;
}

void net_init(struct sim *s)
{
    for (unsigned i = 0; i < SIM_SERVERS_MAX; i++) {
        for (unsigned j = 0; j < SIM_SERVERS_MAX; j++) {
            s->links[i][j] = (struct link){0};
            TAILQ_INIT(&s->links[i][j].stalled);
        }
    }
}

/* Every server is down: only messages on their way are left. */
void net_close(struct sim *s)
{
    struct sim_event *e;
    while ((e = RB_ROOT(&s->events)) != NULL) {
        sim_cancel(s, e);
        if (e->fire == on_deliver) {
            message_free(hw_container_of(e, struct message, event));
        }
    }
}
