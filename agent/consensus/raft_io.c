#include <raft.h>

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
 *  - The snapshot file is read after the message for it was made, and may be a newer one; its term is not corrected.
 *  - A failed read of the snapshot file frees an uninitialized pointer. */

/* A message of more bytes is sent in pieces, so that no heartbeat waits behind a large one and each piece resets the
 * receiver's election timer. */
#define MESSAGE_BYTES_MAX (1024u * 1024u)
/* One write of a batch holds it once more in memory, in one piece. */
#define APPEND_BYTES_MAX (4u * 1024u * 1024u)
/* Messages that one peer may leave unsent. More are dropped: libraft would queue them without end. */
#define OUTSTANDING_MAX 256
/* An install or snapshot that the disk refused is tried again after this. */
#define PUT_RETRY_MS 1000

static struct hw_consensus *of(struct raft_io *io)
{
    struct raft *r = io->data;
    return r->data;
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
};

static void append_free(struct append *a)
{
    free(a->reqs);
    free(a->entries);
    free(a);
}

static void on_appended(struct raft_io_append *own, int status)
{
    struct append *a = own->data;
    struct hw_consensus *c = a->c;
    if (status != 0 && c->life != LIFE_CLOSING) {
        consensus_fail(c, "the log could not be written: %s", raft_strerror(status));
        status = RAFT_CANCELED; /* the one that libraft understands: it frees and forgets */
    }
    consensus_room_set(c);
    for (size_t i = 0; i < a->req_count; i++) {
        a->reqs[i]->cb(a->reqs[i], status);
    }
    append_free(a);
    consensus_post(c);
}

static int grow(void **array, size_t *cap, size_t want, size_t size)
{
    size_t n = *cap == 0 ? 16 : *cap;
    void *p;
    if (want <= *cap) {
        return 0;
    }
    while (n < want) {
        n *= 2;
    }
    p = realloc(*array, n * size);
    if (p == NULL) {
        return HW_ERR_NOMEM;
    }
    *array = p;
    *cap = n;
    return 0;
}

static int append_add(struct append *a, struct raft_io_append *req, const struct raft_entry *entries, unsigned n)
{
    if (grow((void **)&a->reqs, &a->req_cap, a->req_count + 1, sizeof a->reqs[0]) != 0 ||
        grow((void **)&a->entries, &a->entry_cap, a->entry_count + n, sizeof a->entries[0]) != 0) {
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
        /* Whether the io below still holds it cannot be told; it is given up for lost, with its memory. */
        consensus_fail(c, "the log could not be written: %s: %s", raft_strerror(rv), c->io->errmsg);
    }
}

static int do_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[], unsigned n,
                     raft_io_append_cb cb)
{
    struct hw_consensus *c = of(io);
    struct append *a = c->corked_append;
    if (c->has_failed) {
        return RAFT_IOERR;
    }
    req->cb = cb;
    if (a == NULL) {
        a = calloc(1, sizeof *a);
        if (a != NULL) {
            a->c = c;
            a->own.data = a;
        }
    }
    if (a == NULL || append_add(a, req, entries, n) != 0) {
        consensus_fail(c, "the log could not be written: out of memory");
        if (a != NULL && a != c->corked_append) {
            append_free(a);
        }
        return RAFT_NOMEM;
    }
    c->corked_append = NULL;
    if (c->is_corked && a->bytes < APPEND_BYTES_MAX) {
        c->corked_append = a;
    } else {
        append_go(a);
    }
    return 0;
}

static int do_truncate(struct raft_io *io, raft_index index)
{
    struct hw_consensus *c = of(io);
    int rv = c->below.truncate(io, index);
    if (rv != 0) {
        consensus_fail(c, "the log could not be cut: %s: %s", raft_strerror(rv), io->errmsg);
    }
    return rv;
}

static int do_set_term(struct raft_io *io, raft_term term)
{
    struct hw_consensus *c = of(io);
    int rv = c->has_failed ? RAFT_IOERR : c->below.set_term(io, term);
    if (rv != 0) {
        consensus_fail(c, "the term could not be stored: %s: %s", raft_strerror(rv), io->errmsg);
    }
    return rv;
}

static int do_set_vote(struct raft_io *io, raft_id id)
{
    struct hw_consensus *c = of(io);
    int rv = c->has_failed ? RAFT_IOERR : c->below.set_vote(io, id);
    if (rv != 0) {
        consensus_fail(c, "the vote could not be stored: %s: %s", raft_strerror(rv), io->errmsg);
    }
    return rv;
}

/* ---- sending ---- */

/* One or several of libraft's messages to one server, leaving as one or several of ours. The entries of all lie in one
 * array; the entries' data is libraft's until the callbacks of all its requests have run. */
struct outgoing {
    struct hw_consensus *c;
    struct peer *peer;
    struct raft_message message;
    char address[256];
    struct raft_io_send **reqs;
    size_t req_count;
    size_t req_cap;
    struct raft_entry *entries;
    size_t entry_count;
    size_t entry_cap;
    unsigned refs; /* pieces under way, and the one that sends them */
};

struct piece {
    struct raft_io_send own;
    struct outgoing *out;
};

static struct peer *peer_of(struct hw_consensus *c, uint64_t id)
{
    struct peer *spare = NULL;
    for (size_t i = 0; i < hw_array_len(c->peers); i++) {
        struct peer *p = &c->peers[i];
        if (p->id == id) {
            return p;
        }
        if (spare == NULL && p->outstanding == 0 && p->corked == NULL) {
            spare = p;
        }
    }
    if (spare != NULL) {
        spare->id = id;
    }
    return spare;
}

static void outgoing_unref(struct outgoing *out, int status)
{
    if (--out->refs > 0) {
        return;
    }
    for (size_t i = 0; i < out->req_count; i++) {
        out->reqs[i]->cb(out->reqs[i], status);
    }
    free(out->reqs);
    free(out->entries);
    free(out);
}

static void on_sent(struct raft_io_send *own, int status)
{
    struct piece *piece = own->data;
    struct outgoing *out = piece->out;
    free(piece);
    out->peer->outstanding--;
    outgoing_unref(out, status);
}

static void send_piece(struct outgoing *out, struct raft_message *m)
{
    struct hw_consensus *c = out->c;
    struct piece *piece = malloc(sizeof *piece);
    if (piece == NULL) {
        return;
    }
    piece->out = out;
    piece->own.data = piece;
    out->refs++;
    out->peer->outstanding++;
    if (c->below.send(c->io, &piece->own, m, on_sent) != 0) {
        on_sent(&piece->own, RAFT_NOCONNECTION);
    } else {
        count(c->sent[m->type - 1], 1);
    }
}

/* How many of the entries go into the next piece. */
static size_t piece_len(const struct raft_entry *entries, size_t n)
{
    size_t bytes = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        bytes += entries[i].buf.len;
        if (i > 0 && (bytes > MESSAGE_BYTES_MAX || entries[i].type == RAFT_CHANGE)) {
            break;
        }
    }
    return i;
}

static void outgoing_go(struct outgoing *out)
{
    struct raft_message m = out->message;
    size_t at = 0;
    m.server_address = out->address;
    out->refs = 1;
    if (m.type != RAFT_APPEND_ENTRIES || out->entry_count == 0) {
        send_piece(out, &m);
    }
    while (at < out->entry_count) {
        size_t n = piece_len(out->entries + at, out->entry_count - at);
        m.append_entries.entries = out->entries + at;
        m.append_entries.n_entries = (unsigned)n;
        send_piece(out, &m);
        at += n;
        m.append_entries.prev_log_index += n;
        m.append_entries.prev_log_term = out->entries[at - 1].term;
    }
    outgoing_unref(out, 0);
}

static int outgoing_add(struct outgoing *out, struct raft_io_send *req, const struct raft_message *m)
{
    unsigned n = m->type == RAFT_APPEND_ENTRIES ? m->append_entries.n_entries : 0;
    if (grow((void **)&out->reqs, &out->req_cap, out->req_count + 1, sizeof out->reqs[0]) != 0 ||
        grow((void **)&out->entries, &out->entry_cap, out->entry_count + n, sizeof out->entries[0]) != 0) {
        return HW_ERR_NOMEM;
    }
    if (n > 0) {
        memcpy(out->entries + out->entry_count, m->append_entries.entries, n * sizeof out->entries[0]);
        out->entry_count += n;
    }
    out->reqs[out->req_count++] = req;
    return 0;
}

static struct outgoing *outgoing_new(struct hw_consensus *c, struct peer *peer, struct raft_io_send *req,
                                     const struct raft_message *m)
{
    struct outgoing *out = calloc(1, sizeof *out);
    size_t len = strlen(m->server_address);
    if (out == NULL || len >= sizeof out->address || outgoing_add(out, req, m) != 0) {
        if (out != NULL) {
            free(out->reqs);
            free(out->entries);
        }
        free(out);
        return NULL;
    }
    out->c = c;
    out->peer = peer;
    out->message = *m;
    memcpy(out->address, m->server_address, len + 1);
    if (m->type == RAFT_INSTALL_SNAPSHOT && m->install_snapshot.last_index == c->get_index) {
        out->message.install_snapshot.last_term = c->get_term;
    }
    return out;
}

static bool is_continued_by(const struct outgoing *out, const struct raft_message *m)
{
    const struct raft_append_entries *a = &out->message.append_entries;
    const struct raft_append_entries *b = &m->append_entries;
    return m->type == RAFT_APPEND_ENTRIES && a->term == b->term &&
           b->prev_log_index == a->prev_log_index + out->entry_count &&
           strcmp(out->address, m->server_address) == 0;
}

static void flush_peer(struct peer *p)
{
    struct outgoing *out = p->corked;
    p->corked = NULL;
    if (out != NULL) {
        outgoing_go(out);
    }
}

static int do_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m, raft_io_send_cb cb)
{
    struct hw_consensus *c = of(io);
    struct peer *p = c->has_failed ? NULL : peer_of(c, m->server_id);
    struct outgoing *out;
    req->cb = cb;
    if (p != NULL && p->corked != NULL && is_continued_by(p->corked, m) && outgoing_add(p->corked, req, m) == 0) {
        if (m->append_entries.leader_commit > p->corked->message.append_entries.leader_commit) {
            p->corked->message.append_entries.leader_commit = m->append_entries.leader_commit;
        }
        return 0;
    }
    if (p != NULL) {
        flush_peer(p);
    }
    out = p != NULL && p->outstanding < OUTSTANDING_MAX ? outgoing_new(c, p, req, m) : NULL;
    if (out == NULL) {
        /* Lost, as messages may be. An error would make libraft leave out the rest of its step. */
        count(c->dropped, 1);
        cb(req, RAFT_NOCONNECTION);
    } else if (c->is_corked && m->type == RAFT_APPEND_ENTRIES) {
        p->corked = out;
    } else {
        outgoing_go(out);
    }
    return 0;
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
    for (size_t i = 0; i < hw_array_len(c->peers); i++) {
        flush_peer(&c->peers[i]);
    }
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

static bool is_acceptable(struct hw_consensus *c, const struct raft_message *m)
{
    struct hw_slice manifest;
    if (c->has_failed) {
        return false;
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
    return true;
}

static void on_recv(struct raft_io *io, struct raft_message *m)
{
    struct hw_consensus *c = of(io);
    if (m->type >= 1 && m->type <= MESSAGE_TYPES) {
        count(c->received[m->type - 1], 1);
    }
    if (c->life == LIFE_STARTED && !is_acceptable(c, m)) {
        count(c->dropped, 1);
        message_free(m);
        return;
    }
    consensus_room_set(c);
    c->recv(io, m);
    consensus_post(c);
}

static void on_tick(struct raft_io *io)
{
    struct hw_consensus *c = of(io);
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
    struct hw_consensus *c = of(io);
    c->tick = tick;
    c->recv = recv;
    c->heartbeat_ms = msecs;
    return c->below.start(io, c->config.tick_ms < msecs ? c->config.tick_ms : msecs, on_tick, on_recv);
}

/* ---- loading ---- */

static void loaded_free(struct raft_snapshot *s, struct raft_entry *entries, size_t n)
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

/* The metadata files carry no checksum, and libraft only asserts that they go with the log. A term that is behind the
 * log was not written by this log's server: going on could vote twice in one term. */
static int do_load(struct raft_io *io, raft_term *term, raft_id *voted_for, struct raft_snapshot **snapshot,
                   raft_index *start_index, struct raft_entry *entries[], size_t *n_entries)
{
    struct hw_consensus *c = of(io);
    raft_term newest = 0;
    int rv = c->below.load(io, term, voted_for, snapshot, start_index, entries, n_entries);
    if (rv != 0) {
        return rv;
    }
    if (*snapshot != NULL) {
        newest = (*snapshot)->term;
    }
    for (size_t i = 0; i < *n_entries; i++) {
        newest = (*entries)[i].term > newest ? (*entries)[i].term : newest;
    }
    if (*term < newest || (*snapshot == NULL && *n_entries > 0 && (*entries)[0].type != RAFT_CHANGE)) {
        snprintf(io->errmsg, sizeof io->errmsg, "metadata is at term %llu, the log reaches term %llu%s", *term, newest,
                 *term < newest ? "" : " and does not begin with a configuration");
        loaded_free(*snapshot, *entries, *n_entries);
        *snapshot = NULL;
        *entries = NULL;
        *n_entries = 0;
        return RAFT_CORRUPT;
    }
    return 0;
}

/* ---- snapshots ---- */

static int do_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct hw_consensus *c = of(io);
    struct put *put = &c->put;
    /* legacy.c starts no snapshot while one is taken or installed, and the filter of installs does the rest. */
    hw_assert(put->state == PUT_IDLE);
    put->state = PUT_ASKED;
    put->trailing = trailing;
    put->req = req;
    put->cb = cb;
    put->snapshot = snapshot;
    put->not_before = 0;
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
    consensus_room_set(c);
    put.cb(put.req, status);
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
        loaded_free(snapshot, NULL, 0);
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
    struct hw_consensus *c = of(io);
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
    struct hw_consensus *c = of(io);
    c->close_cb(io);
}

/* A snapshot that waits for the owner is in our hands, not in the io's: its request ends here. */
static void do_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct hw_consensus *c = of(io);
    struct put put = c->put;
    c->life = LIFE_CLOSING;
    if (put.state != PUT_IDLE && put.state != PUT_WRITING) {
        c->put.state = PUT_IDLE;
        put.cb(put.req, RAFT_CANCELED);
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
    io->send = do_send;
    io->append = do_append;
    io->truncate = do_truncate;
    io->snapshot_put = do_snapshot_put;
    io->snapshot_get = do_snapshot_get;
}

/* ---- the fsm ---- */

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct hw_consensus *c = fsm->data;
    uint64_t index = raft_last_applied(c->raft) + 1;
    struct pending *mine;
    struct hw_slice entry;
    uint64_t term;
    int rc;
    *result = NULL;
    if (c->has_failed) {
        return RAFT_SHUTDOWN; /* asked again at every step; the entry must not be applied twice */
    }
    mine = consensus_match(c, index);
    rc = frame_entry_decode(buf->base, buf->len, &term, &entry);
    if (rc == 0) {
        rc = c->ops->apply(c->ctx, index, term, entry, mine != NULL ? mine->p : NULL);
    }
    if (rc != 0) {
        consensus_fail(c, "log entry %llu cannot be applied: %s", (unsigned long long)index, hw_err_text(rc));
        if (mine != NULL) {
            consensus_complete(mine, HW_ERR_UNKNOWN);
        }
        return RAFT_SHUTDOWN;
    }
    if (mine != NULL) {
        consensus_complete(mine, 0);
    }
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct hw_consensus *c = fsm->data;
    struct raft *r = c->raft;
    struct hw_buf payload = {0};
    struct hw_buf framed = {0};
    uint64_t uncommitted = r->configuration_uncommitted_index;
    int rc;
    if (c->has_failed || (uncommitted != 0 && uncommitted <= raft_commit_index(r))) {
        return RAFT_BUSY; /* libraft has yet to note this configuration as committed: the snapshot would miss it */
    }
    *bufs = raft_malloc(sizeof **bufs);
    rc = *bufs == NULL ? HW_ERR_NOMEM : c->ops->manifest(c->ctx, raft_last_applied(r), &payload);
    if (rc == 0) {
        rc = frame_manifest_encode(hw_buf_slice(&payload), &framed);
    }
    hw_buf_free(&payload);
    if (rc != 0) {
        hw_buf_free(&framed);
        raft_free(*bufs);
        *bufs = NULL;
        return rc == HW_ERR_NOMEM ? RAFT_NOMEM : RAFT_BUSY;
    }
    (*bufs)[0].base = hw_buf_take(&framed, &(*bufs)[0].len);
    *n_bufs = 1;
    return 0;
}

/* The buffer is ours on success. On failure it stays libraft's when it is starting; later libraft forgets it. */
static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct hw_consensus *c = fsm->data;
    struct hw_slice manifest;
    int rc = frame_manifest_decode(buf->base, buf->len, &manifest);
    if (rc == 0) {
        rc = c->ops->restore(c->ctx, manifest);
    }
    if (rc != 0 && c->tick == NULL) { /* raft_start comes to the io's start last */
        c->start_code = rc;
        return RAFT_CORRUPT;
    }
    raft_free(buf->base);
    if (rc != 0) {
        consensus_fail(c, "the state cannot be restored from a snapshot: %s", hw_err_text(rc));
        return RAFT_SHUTDOWN;
    }
    return 0;
}

void io_fsm_init(struct hw_consensus *c)
{
    c->fsm = (struct raft_fsm){
        .version = 3,
        .data = c,
        .apply = fsm_apply,
        .snapshot = fsm_snapshot,
        .restore = fsm_restore,
    };
}
