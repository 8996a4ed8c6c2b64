/* Messages of the log, as they come out of libraft's decoder, into its wrapper and into libraft: a follower of three
 * that may become a candidate and a leader. Input: records of 12 bytes: u8 type, u8 sender and flags, then numbers that
 * are taken near the server's own (its term, its last index, its commit index), as those of late, doubled, reordered
 * and wrong messages are. What no cluster does is left out: a second leader of a term.
 *
 * Checked, beside what the sanitizers see and fuzz_raft_server.h checks: the commit index does not go back.
 */
#include "agent/base/log.h"
#include "tests/fuzz/fuzz_hash_seam.h"
#include "tests/fuzz/fuzz_raft_server.h"

const char *__asan_default_options(void);
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECORD_BYTES 12
#define RECORDS_MAX 200
#define TERMS_MAX 64

static raft_id leaders[TERMS_MAX]; /* who has spoken as the leader of a term */

/* ---- messages ---- */

static uint64_t near(uint64_t value, uint8_t byte, uint64_t min)
{
    uint64_t up = byte & 15;
    uint64_t down = byte >> 4;
    uint64_t to = value + up;
    return to < min + down ? min : to - down;
}

/* One leader a term, and never ourselves. */
static bool may_lead(struct server *v, raft_id id, raft_term term)
{
    raft_id *leader = &leaders[term % TERMS_MAX];
    if (term >= TERMS_MAX || id == SELF ||
        (raft_state(&v->raft) == RAFT_LEADER && term == raft_current_term(&v->raft))) {
        return false;
    }
    if (*leader == 0) {
        *leader = id;
    }
    return *leader == id;
}

static bool make_append(struct server *v, struct raft_message *m, const uint8_t *p)
{
    struct raft_append_entries *a = &m->append_entries;
    unsigned count = p[6] & 7;
    a->term = near(raft_current_term(&v->raft), p[2], 1);
    if (!may_lead(v, m->server_id, a->term)) {
        return false;
    }
    a->prev_log_index = near(raft_last_index(&v->raft), p[3], 1);
    a->prev_log_term = p[4] & 1 ? a->term : near(raft_current_term(&v->raft), p[4] >> 1, 1);
    a->leader_commit = near(a->prev_log_index, p[5], 0);
    if (count > 0) {
        a->entries = make_entries(a->prev_log_index + 1, a->term, count);
        a->n_entries = count;
        if (p[6] & 128) {
            a->entries[count - 1].buf.len -= p[6] >> 4 & 7; /* no multiple of 8 */
        }
    }
    return true;
}

static bool make_install(struct server *v, struct raft_message *m, const uint8_t *p)
{
    struct raft_install_snapshot *s = &m->install_snapshot;
    struct hw_buf framed = {0};
    s->term = near(raft_current_term(&v->raft), p[2], 1);
    if (!may_lead(v, m->server_id, s->term)) {
        return false;
    }
    s->last_index = near(raft_last_index(&v->raft), p[3], 1);
    s->last_term = near(raft_current_term(&v->raft), p[4], 1);
    s->conf_index = 1;
    make_configuration(&s->conf);
    hw_assert(frame_manifest_encode(hw_slice_str("manifest"), &framed) == 0);
    framed.data[p[5] % framed.len] ^= p[6];
    s->data.len = p[7] & 1 ? framed.len : framed.len - p[7] % framed.len;
    s->data.base = raft_malloc(s->data.len);
    hw_assert(s->data.base != NULL);
    memcpy(s->data.base, framed.data, s->data.len);
    hw_buf_free(&framed);
    return true;
}

static bool make_message(struct server *v, struct raft_message *m, const uint8_t *p)
{
    raft_term term = near(raft_current_term(&v->raft), p[2], 1);
    raft_index last = near(raft_last_index(&v->raft), p[3], 0);
    m->type = (enum raft_message_type)(1 + p[0] % 6);
    m->server_id = 2 + (p[1] & 1);
    m->server_address = "127.0.0.1:2";
    switch (m->type) {
    case RAFT_APPEND_ENTRIES:
        return make_append(v, m, p);
    case RAFT_APPEND_ENTRIES_RESULT:
        m->append_entries_result = (struct raft_append_entries_result){
            .version = 1, .term = term, .rejected = p[4] & 1 ? near(last, p[5], 0) : 0, .last_log_index = last};
        m->append_entries_result.capacity = p[6];
        return last <= raft_last_index(&v->raft); /* nobody holds what we have not sent */
    case RAFT_REQUEST_VOTE:
        m->request_vote = (struct raft_request_vote){.version = 2,
                                                     .term = term,
                                                     .candidate_id = m->server_id,
                                                     .last_log_index = last,
                                                     .last_log_term = near(raft_current_term(&v->raft), p[4], 1),
                                                     .disrupt_leader = p[5] & 1,
                                                     .pre_vote = (p[5] & 2) != 0};
        return term < TERMS_MAX;
    case RAFT_REQUEST_VOTE_RESULT:
        m->request_vote_result = (struct raft_request_vote_result){
            .version = 2, .term = term, .vote_granted = p[4] & 1, .pre_vote = (p[4] & 2) != 0};
        return term < TERMS_MAX;
    case RAFT_INSTALL_SNAPSHOT:
        return make_install(v, m, p);
    default:
        m->timeout_now = (struct raft_timeout_now){.version = 1,
                                                   .term = term,
                                                   .last_log_index = last,
                                                   .last_log_term = near(raft_current_term(&v->raft), p[4], 1)};
        return may_lead(v, m->server_id, term);
    }
}

static void let_io_go_on(struct server *v, uint8_t which)
{
    struct pending_append *a = STAILQ_FIRST(&v->appends);
    struct pending_send *s = STAILQ_FIRST(&v->sends);
    if ((which & 1) && a != NULL) {
        STAILQ_REMOVE_HEAD(&v->appends, link);
        a->cb(a->req, 0);
        free(a);
    }
    if ((which & 2) && s != NULL) {
        STAILQ_REMOVE_HEAD(&v->sends, link);
        s->cb(s->req, which & 4 ? RAFT_NOCONNECTION : 0);
        free(s);
    }
    if ((which & 16) && !STAILQ_EMPTY(&v->gets)) {
        finish_get(v);
    }
    if ((which & 8) && v->wants_durable) {
        v->wants_durable = false;
        hw_consensus_durable(v->consensus);
    }
}

static void one(struct server *v, const uint8_t *p)
{
    raft_index commit = raft_commit_index(&v->raft);
    if (p[0] & 128) {
        v->now += (raft_time)p[2] * 4;
        v->tick(&v->io);
    } else {
        struct raft_message m = {0};
        if (make_message(v, &m, p)) {
            v->recv(&v->io, &m);
        } else if (m.type == RAFT_APPEND_ENTRIES && m.append_entries.n_entries > 0) {
            raft_free(m.append_entries.entries[0].batch);
            raft_free(m.append_entries.entries);
        }
    }
    let_io_go_on(v, p[1] >> 1);
    hw_consensus_step(v->consensus);
    hw_assert(raft_commit_index(&v->raft) >= commit);
}

/* libraft itself leaks a little when entries or a snapshot come at an unusual moment (docs/testing.md). */
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return hw_log_configure("error,raft=error");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct server v;
    memset(leaders, 0, sizeof leaders);
    server_open(&v);
    for (unsigned i = 0; i < RECORDS_MAX && size >= RECORD_BYTES && v.failure[0] == '\0'; i++) {
        uint8_t record[RECORD_BYTES];
        memcpy(record, data, RECORD_BYTES);
        one(&v, record);
        data += RECORD_BYTES;
        size -= RECORD_BYTES;
    }
    server_close(&v);
    return 0;
}
