#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/consensus/impl.h"

/* What libraft calls: the fsm, and a raft_io whose functions stand before the io's own. They are here because libraft
 * 0.22.1, whose release build has its assertions compiled out, needs help:
 *
 *  - raft_apply takes one buffer a call (it says n, and drops all but the first). Group commit is therefore made here:
 *    between cork and uncork, the appends of one flush become one, and so do its messages to one server.
 *  - Errors of the io are asserted away or leave log and engine out of step. Ours stop the server (consensus_fail), and
 *    a message that cannot be sent is lost, as messages may be, instead of breaking off what libraft was doing.
 *  - A follower notes a configuration entry under the index of its message's first entry, and then never takes it for
 *    committed. So a configuration entry is always the first of its message.
 *  - InstallSnapshot while a snapshot is taken dereferences NULL; while one is installed it leaks. Such are dropped.
 *  - A leader looks at its contacts at each tick, and takes a follower that has not answered since the last one out of
 *    the pipeline: entries then wait for the next heartbeat. So a leader ticks once per heartbeat, sends one in every
 *    tick, and only others see the fine tick.
 *  - The snapshot file is read after the message for it was made: it may be a newer one, whose term is not corrected,
 *    and the message's address may have been freed.
 *  - A failed read of the snapshot file frees an uninitialized pointer. */

/* One write of a batch holds it once more in memory, in one piece. */
#define APPEND_BYTES_MAX (4u * 1024u * 1024u)
/* An install or snapshot that the disk refused is tried again after this. */
#define PUT_RETRY_MS 1000
#define LOST_TAIL_COUNT 5

struct hw_consensus *io_owner(struct raft_io *io)
{
    struct raft *r = io->data;
    return r->data;
}

/* libraft keeps its log twice, as entries and as terms, and when it cannot append to the first (no memory, or an entry
 * that was cut off comes back while the old one is still being written or sent) it leaves the second ahead. From then
 * on entries would land at wrong indexes. Every append is announced by a truncate at its first index, so we know. */
static void check_in_step(struct hw_consensus *c)
{
    if (!c->has_failed && c->life == LIFE_STARTED && (c->put.state == PUT_IDLE || c->put.trailing > 0) &&
        raft_last_index(c->raft) != c->appended_to) {
        consensus_fail(c, "libraft's log is out of step (%llu of %llu entries): restart to load it from the disk",
                       (unsigned long long)c->appended_to, (unsigned long long)raft_last_index(c->raft));
    }
}

/* ---- appends ---- */

struct append {
    struct raft_io_append own;
    struct hw_consensus *c;
    struct raft_io_append **reqs;
    size_t req_count;
    size_t req_cap;
    struct raft_entry *entries;
    size_t entry_count;
    size_t entry_cap;
    size_t bytes;
    bool is_lost;
    struct append *next_lost;
};

static void append_free(struct append *a)
{
    free(a->reqs);
    free(a->entries);
    free(a);
}

static void append_answer(struct append *a, int status)
{
    for (size_t i = 0; i < a->req_count; i++) {
        a->reqs[i]->cb(a->reqs[i], status);
    }
    a->req_count = 0;
}

/* Its requests are answered when libraft is closed: until then it only understands success. */
static void append_lose(struct append *a)
{
    a->is_lost = true;
    a->next_lost = a->c->lost_appends;
    a->c->lost_appends = a;
}

static void on_appended(struct raft_io_append *own, int status)
{
    struct append *a = own->data;
    struct hw_consensus *c = a->c;
    if (status != 0 && c->life != LIFE_CLOSING) {
        consensus_fail(c, "the log could not be written: %s", raft_strerror(status));
        append_lose(a);
        return;
    }
    consensus_room_set(c);
    append_answer(a, status);
    if (!a->is_lost) {
        append_free(a);
    }
    check_in_step(c);
    consensus_post(c);
}

static int append_add(struct append *a, struct raft_io_append *req, const struct raft_entry *entries, unsigned n)
{
    void *reqs = array_grow(a->reqs, &a->req_cap, a->req_count + 1, sizeof a->reqs[0]);
    void *all = array_grow(a->entries, &a->entry_cap, a->entry_count + n, sizeof a->entries[0]);
    a->reqs = reqs != NULL ? reqs : a->reqs;
    a->entries = all != NULL ? all : a->entries;
    if (reqs == NULL || all == NULL) {
        return HW_ERR_NOMEM;
    }
    a->reqs[a->req_count++] = req;
    memcpy(a->entries + a->entry_count, entries, n * sizeof entries[0]);
    a->entry_count += n;
    for (unsigned i = 0; i < n; i++) {
        a->bytes += entries[i].buf.len;
    }
    return 0;
}

static void append_go(struct append *a)
{
    struct hw_consensus *c = a->c;
    int rv = c->below.append(c->io, &a->own, a->entries, (unsigned)a->entry_count, on_appended);
    if (rv != 0) {
        /* Whether the io below still holds it cannot be told before it is closed. */
        append_lose(a);
        consensus_fail(c, "the log could not be written: %s: %s", raft_strerror(rv), c->io->errmsg);
    }
}

/* Never an error, here and in do_truncate: libraft would free the entries of the message a second time. */
static int do_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[], unsigned n,
                     raft_io_append_cb cb)
{
    struct hw_consensus *c = io_owner(io);
    struct append *a = c->corked_append;
    req->cb = cb;
    c->corked_append = NULL;
    if (a == NULL) {
        a = calloc(1, sizeof *a);
        if (a != NULL) {
            a->c = c;
            a->own.data = a;
        }
    }
    if (a == NULL || append_add(a, req, entries, n) != 0) {
        consensus_fail(c, "the log could not be written: out of memory");
    }
    c->appended_to = c->append_index + n - 1;
    c->last_term = n > 0 ? entries[n - 1].term : c->last_term;
    if (a == NULL) {
        return 0;
    }
    if (c->has_failed) {
        append_lose(a);
    } else if (c->is_corked && a->bytes < APPEND_BYTES_MAX) {
        c->corked_append = a;
    } else {
        append_go(a);
    }
    return 0;
}

static int do_truncate(struct raft_io *io, raft_index index)
{
    struct hw_consensus *c = io_owner(io);
    int rv = c->below.truncate(io, index);
    c->append_index = index;
    if (rv != 0) {
        consensus_fail(c, "the log could not be cut: %s: %s", raft_strerror(rv), io->errmsg);
    }
    return 0;
}

static int do_set_term(struct raft_io *io, raft_term term)
{
    struct hw_consensus *c = io_owner(io);
    int rv = c->has_failed ? RAFT_IOERR : c->below.set_term(io, term);
    if (rv != 0) {
        consensus_fail(c, "the term could not be stored: %s: %s", raft_strerror(rv), io->errmsg);
    }
    return rv;
}

static int do_set_vote(struct raft_io *io, raft_id id)
{
    struct hw_consensus *c = io_owner(io);
    int rv = c->has_failed ? RAFT_IOERR : c->below.set_vote(io, id);
    if (rv != 0) {
        consensus_fail(c, "the vote could not be stored: %s: %s", raft_strerror(rv), io->errmsg);
    }
    return rv;
}

void io_free(struct hw_consensus *c)
{
    while (c->lost_appends != NULL) {
        struct append *a = c->lost_appends;
        c->lost_appends = a->next_lost;
        append_free(a);
    }
}

void io_cork(struct hw_consensus *c)
{
    c->is_corked = true;
}

/* Messages first: the followers' disks are as slow as ours. */
void io_uncork(struct hw_consensus *c)
{
    struct append *a = c->corked_append;
    c->is_corked = false;
    c->corked_append = NULL;
    outbox_flush(c);
    if (a != NULL) {
        append_go(a);
    }
}

/* ---- receiving ---- */

static void message_free(struct raft_message *m)
{
    if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
        raft_free(m->append_entries.entries[0].batch);
        raft_free(m->append_entries.entries);
    } else if (m->type == RAFT_INSTALL_SNAPSHOT) {
        raft_configuration_close(&m->install_snapshot.conf);
        raft_free(m->install_snapshot.data.base);
    }
}

/* Of an entry of the log; 0: it is not there any more, or not yet. */
static raft_term term_of(const struct raft *r, raft_index index)
{
    const struct raft_trail *t = &r->trail;
    if (index == t->snapshot.index) {
        return t->snapshot.term;
    }
    for (unsigned i = t->front; index > t->offset && i != t->back; i = (i + 1) % t->size) {
        if (index <= t->records[i].index) {
            return t->records[i].term;
        }
    }
    return 0;
}

/* A leader whose log has another entry where we have a committed one: a node that was given another one's files, or an
 * old copy of its own. No way leads on from there. libraft, on its way to saying so, frees the entries twice; and a
 * snapshot like that takes it back behind what was applied. */
static bool has_other_entry(struct hw_consensus *c, raft_id leader, raft_index index, raft_term theirs)
{
    raft_term ours = term_of(c->raft, index);
    if (index == 0 || index > raft_commit_index(c->raft) || ours == 0 || ours == theirs) {
        return false;
    }
    consensus_fail(c,
                   "entry %llu was committed here in term %llu, but node %llu, which leads, has it from term %llu: the "
                   "data folder of one of the two is not its own or is an old copy; move it away and let that node "
                   "join again",
                   (unsigned long long)index, (unsigned long long)ours, (unsigned long long)leader,
                   (unsigned long long)theirs);
    return true;
}

static bool has_other_history(struct hw_consensus *c, const struct raft_message *m)
{
    const struct raft_append_entries *a = &m->append_entries;
    raft_index commit = raft_commit_index(c->raft);
    if (c->put.state != PUT_IDLE && c->put.trailing == 0) {
        return false; /* the log is not ours yet */
    }
    if (m->type == RAFT_INSTALL_SNAPSHOT) {
        const struct raft_install_snapshot *s = &m->install_snapshot;
        return s->term >= raft_current_term(c->raft) && has_other_entry(c, m->server_id, s->last_index, s->last_term);
    }
    if (a->term < raft_current_term(c->raft)) {
        return false; /* libraft rejects it */
    }
    if (has_other_entry(c, m->server_id, a->prev_log_index, a->prev_log_term)) {
        return true;
    }
    for (unsigned i = 0; i < a->n_entries && a->prev_log_index < commit && i < commit - a->prev_log_index; i++) {
        if (has_other_entry(c, m->server_id, a->prev_log_index + 1 + i, a->entries[i].term)) {
            return true;
        }
    }
    return false;
}

static bool is_acceptable(struct hw_consensus *c, const struct raft_message *m)
{
    struct hw_slice manifest;
    if (c->has_failed) {
        return false;
    }
    if (m->type == RAFT_REQUEST_VOTE_RESULT && raft_state(c->raft) != RAFT_CANDIDATE) {
        return false; /* libraft would look at a candidate's fields that are something else by now */
    }
    if (m->type == RAFT_APPEND_ENTRIES) {
        for (unsigned i = 0; i < m->append_entries.n_entries; i++) {
            if (m->append_entries.entries[i].buf.len % 8 != 0) {
                return false; /* would be an error of our disk */
            }
        }
    }
    if (m->type == RAFT_INSTALL_SNAPSHOT) {
        const struct raft_buffer *b = &m->install_snapshot.data;
        if (c->put.state != PUT_IDLE) {
            return false; /* the leader sends it again */
        }
        if (frame_manifest_decode(b->base, b->len, &manifest) != 0) {
            hw_log_error("raft", "the leader sent a snapshot manifest that this version cannot read", "leader=%llu",
                         (unsigned long long)m->server_id);
            return false;
        }
        c->put.leader_id = m->server_id;
    }
    return (m->type != RAFT_APPEND_ENTRIES && m->type != RAFT_INSTALL_SNAPSHOT) || !has_other_history(c, m);
}

/* What every leader's log holds up to our commit index is what ours holds (Leader Completeness, dissertation 3.6.3). So
 * the part of a message that lies there needs no check, and libraft's would go wrong in two ways:
 *  - its log cannot tell "removed after a snapshot" from "not there yet": with prev_log_index 0 it appends old entries
 *    at its end, otherwise it rejects, and the leader goes down to the beginning and then round and round;
 *  - a message that ends before the commit index moves it back. */
static void mend_append_entries(struct hw_consensus *c, struct raft_append_entries *m)
{
    const struct raft *r = c->raft;
    uint64_t snapshot = r->trail.snapshot.index;
    if (c->put.state != PUT_IDLE && c->put.trailing == 0) {
        return; /* it is not ours yet */
    }
    if (m->prev_log_index <= r->trail.offset && m->prev_log_index < snapshot) {
        uint64_t skip = snapshot - m->prev_log_index;
        if (skip >= m->n_entries && m->n_entries > 0) {
            raft_free(m->entries[0].batch);
            raft_free(m->entries);
            m->entries = NULL;
            m->n_entries = 0;
        } else if (m->n_entries > 0) {
            m->n_entries -= (unsigned)skip;
            memmove(m->entries, m->entries + skip, m->n_entries * sizeof m->entries[0]);
        }
        m->prev_log_index = snapshot;
        m->prev_log_term = r->trail.snapshot.term;
    }
    if (m->prev_log_index + m->n_entries < r->commit_index && m->leader_commit > r->commit_index) {
        m->leader_commit = r->commit_index;
    }
}

/* A server whose disk lost the end of its log denies, again and again, what it had acknowledged in this term. Late
 * answers look the same, but only for a moment. libraft would never send that server anything again before the next
 * term, and count it as holding entries that it does not hold. */
static void note_tail(struct hw_consensus *c, uint64_t from, const struct raft_append_entries_result *m,
                      raft_index match)
{
    struct peer *p = outbox_peer(c, from);
    if (p == NULL) {
        return;
    }
    if (m->rejected == 0 || m->last_log_index >= match) {
        p->lost_count = 0;
        return;
    }
    if (p->lost_count++ == 0) {
        p->lost_since = c->below.time(c->io);
    }
}

uint64_t consensus_lost_tail(const struct hw_consensus *c)
{
    raft_time now;
    if (!consensus_is_leader(c)) {
        return 0;
    }
    now = c->below.time(c->io);
    for (size_t i = 0; i < hw_array_len(c->peers); i++) {
        const struct peer *p = &c->peers[i];
        raft_index match;
        if (p->lost_count >= LOST_TAIL_COUNT && now - p->lost_since >= c->config.election_ms &&
            raft_match_index(c->raft, p->id, &match) == 0) {
            return p->id;
        }
    }
    return 0;
}

/* A rejection of what is known to match has been overtaken by a later answer. libraft ignores it but for a follower
 * that it probes: there it takes the next index below the match index, counts a negative number of entries under way,
 * and sends that follower nothing more in this term. It still is a sign of life. */
static void mend_append_entries_result(struct hw_consensus *c, uint64_t from, struct raft_append_entries_result *m)
{
    raft_index match;
    if (!consensus_is_leader(c) || m->term != raft_current_term(c->raft) ||
        raft_match_index(c->raft, from, &match) != 0) {
        return;
    }
    note_tail(c, from, m, match);
    if (m->rejected > 0 && m->rejected <= match) {
        m->rejected = 0;
        m->last_log_index = 0;
    }
}

static void note_room(struct hw_consensus *c, const struct raft_message *m)
{
    struct peer *p = outbox_peer(c, m->server_id);
    if (p != NULL) {
        p->free_mib = m->append_entries_result.capacity;
        p->has_room = true;
    }
}

static void on_recv(struct raft_io *io, struct raft_message *m)
{
    struct hw_consensus *c = io_owner(io);
    if (m->type >= 1 && m->type <= MESSAGE_TYPES) {
        count(c->received[m->type - 1], 1);
    }
    if (c->life == LIFE_STARTED && !is_acceptable(c, m)) {
        count(c->dropped, 1);
        message_free(m);
        return;
    }
    if (m->type == RAFT_APPEND_ENTRIES && c->life == LIFE_STARTED) {
        mend_append_entries(c, &m->append_entries);
    } else if (m->type == RAFT_APPEND_ENTRIES_RESULT && c->life == LIFE_STARTED) {
        note_room(c, m);
        mend_append_entries_result(c, m->server_id, &m->append_entries_result);
    }
    consensus_room_set(c);
    c->recv(io, m);
    check_in_step(c);
    consensus_post(c);
}

static void on_tick(struct raft_io *io)
{
    struct hw_consensus *c = io_owner(io);
    if (!c->has_failed && raft_state(c->raft) != RAFT_LEADER) {
        c->leader_ticked = 0;
        consensus_room_set(c);
        c->tick(io);
    } else if (!c->has_failed && c->below.time(io) - c->leader_ticked >= c->heartbeat_ms) {
        c->leader_ticked = c->below.time(io);
        consensus_room_set(c);
        /* "Has nothing been sent for this long?": in this tick, whatever was sent before it. */
        raft_set_heartbeat_timeout(c->raft, 1);
        c->tick(io);
        raft_set_heartbeat_timeout(c->raft, c->heartbeat_ms);
    }
    consensus_post(c);
}

static int do_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct hw_consensus *c = io_owner(io);
    c->tick = tick;
    c->recv = recv;
    c->heartbeat_ms = msecs;
    c->appended_to = raft_last_index(c->raft);
    return c->below.start(io, c->config.tick_ms < msecs ? c->config.tick_ms : msecs, on_tick, on_recv);
}

/* ---- loading ---- */

void io_loaded_free(struct raft_snapshot *s, struct raft_entry *entries, size_t n)
{
    void *batch = NULL;
    for (size_t i = 0; i < n; i++) {
        if (entries[i].batch != batch) {
            batch = entries[i].batch;
            raft_free(batch);
        }
    }
    raft_free(entries);
    if (s != NULL) {
        raft_configuration_close(&s->configuration);
        for (unsigned i = 0; i < s->n_bufs; i++) {
            raft_free(s->bufs[i].base);
        }
        raft_free(s->bufs);
        raft_free(s);
    }
}

static bool is_in_place(const struct raft_entry *entry, raft_index index)
{
    struct hw_slice payload;
    uint64_t term;
    uint64_t place;
    int rc;
    if (entry->type != RAFT_COMMAND) {
        return true;
    }
    rc = frame_entry_decode(entry->buf.base, entry->buf.len, &term, &place, &payload);
    return rc == HW_ERR_VERSION || (rc == 0 && place == index); /* a newer format is refused in words when applied */
}

/* The metadata files carry no checksum, and libraft only asserts that they go with the log. A term that is behind the
 * log was not written by this log's server: going on could vote twice in one term. */
static int do_load(struct raft_io *io, raft_term *term, raft_id *voted_for, struct raft_snapshot **snapshot,
                   raft_index *start_index, struct raft_entry *entries[], size_t *n_entries)
{
    struct hw_consensus *c = io_owner(io);
    raft_term newest = 0;
    int rv = c->config.is_recovering ? consensus_recover(c) : 0;
    if (rv == 0) {
        rv = c->below.load(io, term, voted_for, snapshot, start_index, entries, n_entries);
    }
    if (rv != 0) {
        return rv;
    }
    if (*snapshot != NULL) {
        newest = (*snapshot)->term;
    }
    for (size_t i = 0; i < *n_entries; i++) {
        newest = (*entries)[i].term > newest ? (*entries)[i].term : newest;
        if (!is_in_place(&(*entries)[i], *start_index + i)) {
            snprintf(io->errmsg, sizeof io->errmsg,
                     "entry %llu of the log says that it is another one: a segment is missing", *start_index + i);
            io_loaded_free(*snapshot, *entries, *n_entries);
            *snapshot = NULL;
            *entries = NULL;
            *n_entries = 0;
            return RAFT_CORRUPT;
        }
    }
    if (*term < newest || (*snapshot == NULL && *n_entries > 0 && (*entries)[0].type != RAFT_CHANGE)) {
        snprintf(io->errmsg, sizeof io->errmsg, "metadata is at term %llu, the log reaches term %llu%s", *term, newest,
                 *term < newest ? "" : " and does not begin with a configuration");
        io_loaded_free(*snapshot, *entries, *n_entries);
        *snapshot = NULL;
        *entries = NULL;
        *n_entries = 0;
        return RAFT_CORRUPT;
    }
    c->last_term = *n_entries > 0 ? (*entries)[*n_entries - 1].term : newest;
    return 0;
}

/* ---- snapshots ---- */

static int do_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct hw_consensus *c = io_owner(io);
    struct put *put = &c->put;
    /* legacy.c starts no snapshot while one is taken or installed, and the filter of installs does the rest. */
    hw_assert(put->state == PUT_IDLE);
    put->state = PUT_ASKED;
    put->trailing = trailing;
    put->req = req;
    put->cb = cb;
    put->snapshot = snapshot;
    put->not_before = 0;
    if (trailing == 0) {
        c->last_term = snapshot->term; /* an install: nothing is left of the log */
    }
    consensus_post(c);
    return 0;
}

static void on_put(struct raft_io_snapshot_put *own, int status)
{
    struct hw_consensus *c = own->data;
    struct put put = c->put;
    if (status != 0 && c->life != LIFE_CLOSING) {
        /* libraft takes every failure for the end. The disk may get room again. */
        hw_log_error("raft", "a snapshot could not be written, trying again", "index=%llu error=%s",
                     (unsigned long long)put.snapshot->index, hw_logq(raft_strerror(status)));
        c->put.state = PUT_READY;
        c->put.not_before = c->below.time(c->io) + PUT_RETRY_MS;
        return;
    }
    c->put.state = PUT_IDLE;
    if (status == 0 && put.trailing == 0) {
        c->appended_to = put.snapshot->index;
    }
    consensus_room_set(c);
    put.cb(put.req, status);
    check_in_step(c);
    consensus_post(c);
}

static void put_ask(struct hw_consensus *c)
{
    const struct raft_snapshot *s = c->put.snapshot;
    struct hw_durable d = {
        .index = s->index,
        .term = s->term,
        .is_install = c->put.trailing == 0,
        .leader_id = c->put.trailing == 0 ? c->put.leader_id : 0,
    };
    int rc = frame_manifest_decode(s->bufs[0].base, s->bufs[0].len, &d.manifest);
    hw_assert(rc == 0);
    c->put.state = PUT_WAITING;
    c->ops->make_durable(c->ctx, &d);
}

void io_put_step(struct hw_consensus *c)
{
    int rv;
    if (c->has_failed) {
        return;
    }
    if (c->put.state == PUT_ASKED) {
        put_ask(c);
    }
    if (c->put.state == PUT_READY && c->below.time(c->io) >= c->put.not_before) {
        c->put.state = PUT_WRITING;
        c->put.own.data = c;
        rv = c->below.snapshot_put(c->io, c->put.trailing, &c->put.own, c->put.snapshot, on_put);
        if (rv != 0) {
            on_put(&c->put.own, rv);
        }
    }
}

/* libraft's get request is answered by ours, see on_got. */
struct get {
    struct raft_io_snapshot_get own;
    struct raft_io_snapshot_get *req;
    raft_io_snapshot_get_cb cb;
    struct hw_consensus *c;
};

static void on_got(struct raft_io_snapshot_get *own, struct raft_snapshot *snapshot, int status)
{
    struct get *g = own->data;
    struct hw_consensus *c = g->c;
    if (status == 0 && c->life == LIFE_STARTED) {
        c->get_index = snapshot->index;
        c->get_term = snapshot->term;
        g->cb(g->req, snapshot, 0);
        c->get_index = 0;
    } else if (status == 0) {
        io_loaded_free(snapshot, NULL, 0);
    } else {
        /* libraft's own callback would free what it has never set. Without it only its request leaks, and the leader
         * sends the snapshot again after a while. */
        hw_log_error("raft", "the snapshot could not be read for a follower", "error=%s",
                     hw_logq(raft_strerror(status)));
        raft_free(snapshot);
    }
    free(g);
}

static int do_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
    struct hw_consensus *c = io_owner(io);
    struct get *g = calloc(1, sizeof *g);
    int rv;
    if (g == NULL) {
        return RAFT_NOMEM;
    }
    *g = (struct get){.own = {.data = g}, .req = req, .cb = cb, .c = c};
    req->cb = cb;
    rv = c->below.snapshot_get(io, &g->own, on_got);
    if (rv != 0) {
        free(g);
    }
    return rv;
}

static void on_io_closed(struct raft_io *io)
{
    struct hw_consensus *c = io_owner(io);
    c->close_cb(io);
}

/* A snapshot that waits for the owner is in our hands, not in the io's: its request ends here. */
static void do_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct hw_consensus *c = io_owner(io);
    struct put put = c->put;
    c->life = LIFE_CLOSING;
    if (put.state != PUT_IDLE && put.state != PUT_WRITING) {
        c->put.state = PUT_IDLE;
        put.cb(put.req, RAFT_CANCELED);
    }
    for (struct append *a = c->lost_appends; a != NULL; a = a->next_lost) {
        append_answer(a, RAFT_CANCELED);
    }
    c->close_cb = cb;
    c->below.close(io, on_io_closed);
}

void io_wrap(struct hw_consensus *c)
{
    struct raft_io *io = c->io;
    c->below = *io;
    io->close = do_close;
    io->load = do_load;
    io->start = do_start;
    io->set_term = do_set_term;
    io->set_vote = do_set_vote;
    io->send = outbox_send;
    io->append = do_append;
    io->truncate = do_truncate;
    io->snapshot_put = do_snapshot_put;
    io->snapshot_get = do_snapshot_get;
}
