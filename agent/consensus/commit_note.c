#include <stdlib.h>

#include "agent/base/assert.h"
#include "agent/consensus/impl.h"

/* Telling followers soon what is committed.
 *
 * libraft tells a follower with the next entries, or with the next heartbeat. When writes are sparse that is up to a
 * heartbeat later: so long a warm node lags behind an acknowledged write, a linearizable read there waits, and a
 * watcher there does not hear. So, when something was committed and no message has carried the news after a moment, the
 * leader sends what libraft's own heartbeat would be: AppendEntries without entries, at the index that was committed.
 * It is only sent to followers that are known to hold that entry, and only for entries of the leader's own term, whose
 * term is known here. Under load the next entries are always faster, and nothing is sent. */

#define NOTE_AFTER_MS 1

static bool is_known(const struct hw_consensus *c, raft_index commit)
{
    return consensus_is_leader(c) && c->own_term == raft_current_term(c->raft) && commit >= c->own_index;
}

static void on_note_sent(struct raft_io_send *req, int status)
{
    struct hw_consensus *c = req->data;
    (void)status;
    c->notes--;
    free(req);
    consensus_post(c);
}

static void note_one(struct hw_consensus *c, const struct raft_server *s, raft_index commit)
{
    struct peer *p = outbox_peer(c, s->id);
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = s->id, .server_address = s->address};
    struct raft_io_send *req;
    raft_index match;
    if (p == NULL || p->commit_told >= commit || raft_match_index(c->raft, s->id, &match) != 0 || match < commit) {
        return;
    }
    req = calloc(1, sizeof *req);
    if (req == NULL) {
        return;
    }
    m.append_entries.term = c->own_term;
    m.append_entries.prev_log_index = commit;
    m.append_entries.prev_log_term = c->own_term;
    m.append_entries.leader_commit = commit;
    req->data = c;
    p->commit_told = commit;
    c->notes++;
    if (c->below.send(c->io, req, &m, on_note_sent) != 0) {
        on_note_sent(req, RAFT_NOCONNECTION);
    } else {
        count(c->sent[RAFT_APPEND_ENTRIES - 1], 1);
    }
}

static void note_all(struct hw_consensus *c)
{
    const struct raft_configuration *conf = &c->raft->configuration;
    raft_index commit = raft_commit_index(c->raft);
    if (c->has_failed || c->life != LIFE_STARTED || !is_known(c, commit)) {
        return;
    }
    c->commit_noted = commit;
    for (unsigned i = 0; i < conf->n; i++) {
        if (conf->servers[i].id != c->config.id && conf->servers[i].role != RAFT_SPARE) {
            note_one(c, &conf->servers[i], commit);
        }
    }
}

static void on_timer(void *ctx)
{
    note_all(ctx);
}

void commit_note_applied(struct hw_consensus *c, uint64_t index, uint64_t term)
{
    if (c->own_term != term && consensus_is_leader(c) && term == raft_current_term(c->raft)) {
        c->own_term = term;
        c->own_index = index;
        c->commit_noted = 0;
        for (size_t i = 0; i < hw_array_len(c->peers); i++) {
            c->peers[i].commit_told = 0;
        }
    }
}

void commit_note_told(struct peer *p, const struct raft_append_entries *m)
{
    raft_index last = m->prev_log_index + m->n_entries;
    raft_index told = m->leader_commit < last ? m->leader_commit : last; /* what the receiver may take it for */
    if (told > p->commit_told) {
        p->commit_told = told;
    }
}

void commit_note_step(struct hw_consensus *c)
{
    raft_index commit = raft_commit_index(c->raft);
    if (c->has_failed || commit <= c->commit_noted || !is_known(c, commit)) {
        return;
    }
    if (c->loop == NULL) {
        note_all(c); /* a simulation: no timer of ours */
    } else if (!hw_timer_is_active(c->note_timer)) {
        hw_timer_start(c->note_timer, NOTE_AFTER_MS, 0);
    }
}

void commit_note_open(struct hw_consensus *c)
{
    c->note_timer = hw_timer_new(c->loop, "commit note", on_timer, c);
}

void commit_note_close(struct hw_consensus *c)
{
    hw_timer_free(c->note_timer);
    c->note_timer = NULL;
}
