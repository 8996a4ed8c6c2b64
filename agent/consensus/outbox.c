#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/consensus/impl.h"

/* Messages on their way out. libraft hands over one message per entry and server; what belongs together between cork
 * and uncork leaves as one, what is too large for one leaves as several. */

/* A message of more bytes is sent in pieces, so that no heartbeat waits behind a large one and each piece resets the
 * receiver's election timer. */
#define MESSAGE_BYTES_MAX (1024u * 1024u)
/* Messages that one peer may leave unsent. More are dropped: libraft would queue them without end. */
#define OUTSTANDING_MAX 256

/* One or several of libraft's messages to one server, leaving as one or several of ours. The entries of all lie in one
 * array; the entries' data is libraft's until the callbacks of all its requests have run.
 *
 * But entries that share one block of memory (read from the disk together, or received together) are sent as a copy of
 * ours, and libraft is told at once that they have left. While any of them is being sent, libraft frees the block when
 * the last one that is not leaves its log (a snapshot is installed, the end is cut off), and again when the message has
 * left. */
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
    uint8_t *copy; /* of the entries' data, or NULL */
    unsigned refs; /* pieces under way, and the one that sends them */
};

struct piece {
    struct raft_io_send own;
    struct outgoing *out;
};

struct peer *outbox_peer(struct hw_consensus *c, uint64_t id)
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
        spare->lost_count = 0;
        spare->commit_told = 0;
        spare->has_room = false;
    }
    return spare;
}

static void complete(struct outgoing *out, int status)
{
    for (size_t i = 0; i < out->req_count; i++) {
        out->reqs[i]->cb(out->reqs[i], status);
    }
    out->req_count = 0;
}

static void outgoing_unref(struct outgoing *out, int status)
{
    if (--out->refs > 0) {
        return;
    }
    complete(out, status);
    free(out->reqs);
    free(out->entries);
    free(out->copy);
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
    if (m->type == RAFT_APPEND_ENTRIES) {
        commit_note_told(out->peer, &m->append_entries);
    }
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

/* Where entries share memory, a copy takes its place. */
static int unshare(struct outgoing *out)
{
    size_t bytes = 0;
    bool is_shared = false;
    uint8_t *to;
    for (size_t i = 0; i < out->entry_count; i++) {
        is_shared = is_shared || out->entries[i].batch != NULL;
        bytes += out->entries[i].buf.len;
    }
    if (!is_shared) {
        return 0;
    }
    to = out->copy = malloc(bytes > 0 ? bytes : 1);
    if (to == NULL) {
        return HW_ERR_NOMEM;
    }
    for (size_t i = 0; i < out->entry_count; i++) {
        struct raft_entry *e = &out->entries[i];
        if (e->buf.len > 0) {
            memcpy(to, e->buf.base, e->buf.len);
        }
        e->buf.base = to;
        e->batch = NULL;
        to += e->buf.len;
    }
    return 0;
}

static void outgoing_go(struct outgoing *out)
{
    struct raft_message m = out->message;
    size_t at = 0;
    m.server_address = out->address;
    out->refs = 1;
    if (unshare(out) != 0) {
        count(out->c->dropped, 1);
        outgoing_unref(out, RAFT_NOCONNECTION);
        return;
    }
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
    if (out->copy != NULL) {
        complete(out, 0);
    }
    outgoing_unref(out, 0);
}

static int outgoing_add(struct outgoing *out, struct raft_io_send *req, const struct raft_message *m)
{
    unsigned n = m->type == RAFT_APPEND_ENTRIES ? m->append_entries.n_entries : 0;
    void *reqs = array_grow(out->reqs, &out->req_cap, out->req_count + 1, sizeof out->reqs[0]);
    void *entries = out->entries;
    if (reqs == NULL) {
        return HW_ERR_NOMEM;
    }
    out->reqs = reqs;
    if (n > 0) {
        entries = array_grow(out->entries, &out->entry_cap, out->entry_count + n, sizeof out->entries[0]);
        if (entries == NULL) {
            return HW_ERR_NOMEM;
        }
        out->entries = entries;
        memcpy(out->entries + out->entry_count, m->append_entries.entries, n * sizeof out->entries[0]);
        out->entry_count += n;
    }
    out->reqs[out->req_count++] = req;
    return 0;
}

/* The message for a snapshot was made before the file was read, and points at an address in a configuration that may
 * have been replaced meanwhile. */
static const char *address_of(const struct hw_consensus *c, const struct raft_message *m)
{
    const struct raft_configuration *conf = &c->raft->configuration;
    if (m->type != RAFT_INSTALL_SNAPSHOT) {
        return m->server_address;
    }
    for (unsigned i = 0; i < conf->n; i++) {
        if (conf->servers[i].id == m->server_id) {
            return conf->servers[i].address;
        }
    }
    return NULL;
}

/* libraft answers every pre-vote with the term that was asked about, so a candidate whose term is behind never learns
 * why it is refused. Where the longest log is at a low term and a shorter one at a high term (its server was once a
 * candidate for long), none could ever win again: each denies the other, for its term or for its log. So a refusal for
 * the term carries ours, and the candidate catches up with it. It is on disk, and it is no vote: a server may always
 * move to a term that it hears of. */
static void mend_vote_result(const struct hw_consensus *c, struct raft_request_vote_result *m)
{
    raft_term term = raft_current_term(c->raft);
    if (m->pre_vote && !m->vote_granted && m->term < term) {
        m->term = term;
    }
}

static struct outgoing *outgoing_new(struct hw_consensus *c, struct peer *peer, struct raft_io_send *req,
                                     const struct raft_message *m)
{
    const char *address = address_of(c, m);
    size_t len = address != NULL ? strlen(address) : 0;
    struct outgoing *out;
    if (address == NULL || len >= sizeof out->address) {
        return NULL;
    }
    out = calloc(1, sizeof *out);
    if (out == NULL) {
        return NULL;
    }
    if (outgoing_add(out, req, m) != 0) {
        free(out->reqs);
        free(out->entries);
        free(out);
        return NULL;
    }
    out->c = c;
    out->peer = peer;
    out->message = *m;
    memcpy(out->address, address, len + 1);
    if (m->type == RAFT_INSTALL_SNAPSHOT && m->install_snapshot.last_index == c->get_index) {
        out->message.install_snapshot.last_term = c->get_term;
    } else if (m->type == RAFT_REQUEST_VOTE_RESULT) {
        mend_vote_result(c, &out->message.request_vote_result);
    }
    return out;
}

static bool is_continued_by(const struct outgoing *out, const struct raft_message *m)
{
    const struct raft_append_entries *a = &out->message.append_entries;
    const struct raft_append_entries *b = &m->append_entries;
    return m->type == RAFT_APPEND_ENTRIES && a->term == b->term &&
           b->prev_log_index == a->prev_log_index + out->entry_count && strcmp(out->address, m->server_address) == 0;
}

static void flush_peer(struct peer *p)
{
    struct outgoing *out = p->corked;
    p->corked = NULL;
    if (out != NULL) {
        outgoing_go(out);
    }
}

int outbox_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m, raft_io_send_cb cb)
{
    struct hw_consensus *c = io_owner(io);
    struct peer *p = c->has_failed ? NULL : outbox_peer(c, m->server_id);
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

void outbox_flush(struct hw_consensus *c)
{
    for (size_t i = 0; i < hw_array_len(c->peers); i++) {
        flush_peer(&c->peers[i]);
    }
}
