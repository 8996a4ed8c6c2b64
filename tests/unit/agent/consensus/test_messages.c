#include "tests/fuzz/fuzz_raft_server.h"
#include "tests/unit/hw_test.h"

/* What a server makes of messages that no sound cluster sends. */

static void give_entries(struct server *v, raft_id from, uint64_t prev, uint64_t prev_term, uint64_t term,
                         uint64_t commit, unsigned count)
{
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = from, .server_address = "127.0.0.1:2"};
    m.append_entries.term = term;
    m.append_entries.prev_log_index = prev;
    m.append_entries.prev_log_term = prev_term;
    m.append_entries.leader_commit = commit;
    m.append_entries.n_entries = count;
    m.append_entries.entries = count == 0 ? NULL : make_entries(prev + 1, term, count);
    v->recv(&v->io, &m);
    hw_consensus_step(v->consensus);
}

static void commit_all(struct server *v)
{
    give_entries(v, 2, 5, 2, 2, 5, 0);
    CHECK_EQ(v->applied, 5);
    CHECK_STR(v->failure, "");
}

static void another_entry_where_one_is_committed_stops_the_server(void)
{
    struct server v;
    server_open(&v);
    commit_all(&v);
    give_entries(&v, 3, 4, 2, 3, 4, 3);
    CHECK(strstr(v.failure, "entry 5 was committed here in term 2") != NULL);
    CHECK_EQ(v.applied, 5);
    server_close(&v);
}

static void another_term_before_the_entries_stops_the_server(void)
{
    struct server v;
    server_open(&v);
    commit_all(&v);
    give_entries(&v, 3, 1, 9, 9, 0, 2);
    CHECK(strstr(v.failure, "entry 1 was committed here in term 1") != NULL);
    server_close(&v);
}

static void give_snapshot(struct server *v, uint64_t term, uint64_t last_index, uint64_t last_term)
{
    struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT, .server_id = 3, .server_address = "127.0.0.1:3"};
    struct raft_install_snapshot *s = &m.install_snapshot;
    struct hw_buf framed = {0};
    s->term = term;
    s->last_index = last_index;
    s->last_term = last_term;
    s->conf_index = 1;
    make_configuration(&s->conf);
    REQUIRE(frame_manifest_encode(hw_slice_str("manifest"), &framed) == 0);
    s->data.len = framed.len;
    s->data.base = raft_malloc(framed.len);
    REQUIRE(s->data.base != NULL);
    memcpy(s->data.base, framed.data, framed.len);
    hw_buf_free(&framed);
    v->recv(&v->io, &m);
    hw_consensus_step(v->consensus);
}

static void a_snapshot_of_another_history_stops_the_server(void)
{
    struct server v;
    server_open(&v);
    commit_all(&v);
    give_snapshot(&v, 14, 3, 9);
    CHECK(strstr(v.failure, "entry 3 was committed here in term 2") != NULL);
    CHECK_EQ(raft_commit_index(&v.raft), 5);
    server_close(&v);
}

static void give_vote(struct server *v, uint64_t term, bool is_pre_vote)
{
    struct raft_message m = {.type = RAFT_REQUEST_VOTE_RESULT, .server_id = 2, .server_address = "127.0.0.1:2"};
    m.request_vote_result.version = 2;
    m.request_vote_result.term = term;
    m.request_vote_result.vote_granted = true;
    m.request_vote_result.pre_vote = is_pre_vote;
    v->recv(&v->io, &m);
    hw_consensus_step(v->consensus);
}

/* Entries 2 to 5 came from the disk in one block; 4 and 5 are on their way to a follower when all must go. */
static void a_leader_that_is_sending_can_be_overtaken_by_a_snapshot(void)
{
    struct server v;
    struct raft_message acked = {.type = RAFT_APPEND_ENTRIES_RESULT, .server_id = 2, .server_address = "127.0.0.1:2"};
    server_open(&v);
    v.now += 1000;
    v.tick(&v.io);
    hw_consensus_step(v.consensus);
    give_vote(&v, 3, true);
    give_vote(&v, 3, false);
    REQUIRE(raft_state(&v.raft) == RAFT_LEADER);
    acked.append_entries_result.version = 1;
    acked.append_entries_result.term = 3;
    acked.append_entries_result.rejected = 5;
    acked.append_entries_result.last_log_index = 3;
    v.recv(&v.io, &acked);
    hw_consensus_step(v.consensus);
    CHECK(!STAILQ_EMPTY(&v.sends));
    give_snapshot(&v, 4, 20, 4);
    CHECK(raft_state(&v.raft) == RAFT_FOLLOWER);
    CHECK_STR(v.failure, "");
    server_close(&v);
}

static void what_is_not_committed_may_be_replaced(void)
{
    struct server v;
    server_open(&v);
    give_entries(&v, 3, 3, 2, 3, 6, 3);
    CHECK_STR(v.failure, "");
    while (!STAILQ_EMPTY(&v.appends)) {
        struct pending_append *a = STAILQ_FIRST(&v.appends);
        STAILQ_REMOVE_HEAD(&v.appends, link);
        a->cb(a->req, 0);
        free(a);
    }
    hw_consensus_step(v.consensus);
    CHECK_EQ(v.applied, 6);
    server_close(&v);
}

static void a_late_message_of_an_older_term_stops_nobody(void)
{
    struct server v;
    server_open(&v);
    commit_all(&v);
    give_entries(&v, 3, 4, 1, 1, 4, 1);
    CHECK_STR(v.failure, "");
    CHECK_EQ(v.applied, 5);
    server_close(&v);
}

HW_SUITE(consensus_messages, HW_CASE(another_entry_where_one_is_committed_stops_the_server),
         HW_CASE(another_term_before_the_entries_stops_the_server),
         HW_CASE(a_snapshot_of_another_history_stops_the_server),
         HW_CASE(a_leader_that_is_sending_can_be_overtaken_by_a_snapshot),
         HW_CASE(what_is_not_committed_may_be_replaced), HW_CASE(a_late_message_of_an_older_term_stops_nobody));
