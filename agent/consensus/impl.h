/* Private to agent/consensus: the object, and what its files call in each other. It is the one place that includes
 * <raft.h>; no other folder sees it.
 *
 * What flows where:
 *   life.c        from configuration to a running server, and back
 *   consensus.c   status, and the step at the end of a turn
 *   proposals.c, changes.c   what the owner asks for
 *   raft_io.c, outbox.c, fsm.c   what libraft calls: the wrapped raft_io and the raft_fsm
 *   commit_note.c telling followers soon what is committed
 *   transport.c   connections between peers, with our handshake
 *   frame.c       what our entries and manifests look like as bytes
 *   folder.c      the log's folder as files: is it empty, can libraft read it without harm, how much room is left
 *
 * libraft is not re-entrant, and calls back from the middle of its own work. So everything that goes into it
 * (proposals, changes, the answer about a snapshot) and everything that comes out of it for the owner (completions,
 * changes of state) waits for hw_consensus_step, except apply, manifest and restore, which are its questions.
 */
#ifndef HW_CONSENSUS_IMPL_H
#define HW_CONSENSUS_IMPL_H

#include <raft.h>
#include <stdlib.h>

#include "agent/consensus/consensus.h"
#include "agent/consensus/folder.h"
#include "agent/consensus/frame.h"
#include "agent/consensus/grow.h"

#define MESSAGE_TYPES 6
#define ROOM_MAX 65535 /* MiB: what libraft's messages can carry */

/* A proposal on its way. libraft holds `req` from raft_apply until its callback, which may come before or after we have
 * learnt the outcome: the memory goes when both are over. */
struct pending {
    struct raft_apply req;
    struct hw_consensus *c;
    struct hw_proposal *p; /* NULL once done has run */
    int status;
    size_t bytes;
    bool is_held; /* by libraft */
    bool is_completed;
    TAILQ_ENTRY(pending) link;
};
TAILQ_HEAD(pending_list, pending);

/* The one snapshot that libraft wants written.
 *
 *     IDLE ──snapshot_put──▶ ASKED ──step: make_durable──▶ WAITING ──hw_consensus_durable──▶ READY
 *     READY ──step: libraft's own snapshot_put──▶ WRITING ──▶ IDLE      (failed: back to READY, after a pause)
 */
enum put_state { PUT_IDLE, PUT_ASKED, PUT_WAITING, PUT_READY, PUT_WRITING };

struct put {
    enum put_state state;
    unsigned trailing; /* 0: an install */
    struct raft_io_snapshot_put *req;
    raft_io_snapshot_put_cb cb;
    const struct raft_snapshot *snapshot;
    struct raft_io_snapshot_put own; /* handed to the io below */
    raft_time not_before;
    uint64_t leader_id;
};

/* One change of membership or leadership. */
enum change_kind { CHANGE_NONE, CHANGE_ADD, CHANGE_ASSIGN, CHANGE_REMOVE, CHANGE_TRANSFER };

struct change {
    enum change_kind kind;
    struct hw_change *owner;
    uint64_t id;
    int role;
    char address[256];
    bool is_submitted; /* libraft has it */
    bool is_over;      /* status is final, done not yet called */
    int status;
    struct raft_change req;
    struct raft_transfer transfer;
};

/* A server that we send to. */
struct peer {
    uint64_t id;
    unsigned outstanding; /* messages not yet taken by the io below */
    unsigned lost_count;  /* rejections in a row that deny what this server had acknowledged; see raft_io.c */
    raft_time lost_since;
    unsigned free_mib; /* of its log disk, as its last answer said; valid when has_room */
    bool has_room;
    raft_index commit_told; /* the highest commit index that a message of this term carried to it */
    struct outgoing *corked;
};

enum life { LIFE_NEW, LIFE_OPEN /* raft_init done */, LIFE_STARTED, LIFE_CLOSING, LIFE_CLOSED };

struct transport;

struct hw_consensus {
    struct hw_loop *loop; /* NULL: detached */
    struct hw_pool *pool;
    struct hw_consensus_config config; /* address and folder are copies */
    const struct hw_consensus_ops *ops;
    void *ctx;
    enum life life;

    struct raft *raft; /* own_raft, or the simulation's; NULL before */
    struct raft_io *io;
    struct raft_io below; /* the io's own functions */
    struct raft_fsm fsm;
    struct raft own_raft;
    struct raft_io own_io;
    struct raft_tracer tracer;
    struct transport *transport;

    struct hw_defer step;
    bool is_stepping;
    int start_code; /* why load or restore refused */
    bool has_failed;
    bool has_told_failure;
    char failure[512];

    struct pending_list queue;     /* proposed, not yet in libraft */
    struct pending_list inflight;  /* in the log, in index order */
    struct pending_list completed; /* done is to be called */
    size_t proposals;
    size_t proposal_bytes;

    struct put put;
    struct change change;

    struct hw_consensus_view told; /* last on_change */
    uint64_t told_uncommitted;
    uint64_t told_applied;
    bool has_told;

    /* raft_io.c */
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    raft_io_close_cb close_cb;
    unsigned heartbeat_ms;
    raft_time leader_ticked;
    raft_time suspect_until; /* 0: not suspected */
    raft_term suspect_term;
    raft_term own_term; /* as leader: the term of ours that has an applied entry, and the first such entry */
    raft_index own_index;
    raft_index commit_noted;
    struct hw_timer *note_timer;
    unsigned notes;        /* under way */
    raft_term last_term;   /* of the last entry */
    uint64_t append_index; /* of the next append */
    uint64_t appended_to;
    bool is_corked;
    struct append *corked_append;
    struct append *lost_appends;
    struct peer peers[2 * HW_MEMBERS_MAX];
    uint64_t get_index; /* the snapshot being sent now, see on_got */
    uint64_t get_term;

    struct disk_room room; /* of the log's file system */
    bool is_room_job;
    bool is_disk_low; /* as of the last step */
    uint64_t room_asked_ms;

    void (*on_closed)(void *ctx);
    void *closed_ctx;
    bool is_freed;
    struct hw_defer closed;

    struct hw_counter *sent[MESSAGE_TYPES];
    struct hw_counter *received[MESSAGE_TYPES];
    struct hw_counter *dropped;
    struct hw_counter *proposed;
    struct hw_counter *batches;
};

static inline void count(struct hw_counter *counter, uint64_t n)
{
    if (counter != NULL) {
        hw_counter_add(counter, n);
    }
}

/* consensus.c */
void consensus_post(struct hw_consensus *c);
/* The server cannot go on; the first reason is kept and told in the next step. */
void consensus_fail(struct hw_consensus *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool consensus_is_leader(const struct hw_consensus *c);
int consensus_code(int rv);
void consensus_room_set(struct hw_consensus *c);
bool consensus_is_disk_low(const struct hw_consensus *c);

/* life.c */
struct hw_consensus *consensus_object_new(const struct hw_consensus_config *config, const struct hw_consensus_ops *ops,
                                          void *ctx);
void consensus_maybe_closed(struct hw_consensus *c);

/* proposals.c */
void proposals_flush(struct hw_consensus *c);
/* Run what was completed. */
void proposals_deliver(struct hw_consensus *c);
void proposals_complete(struct pending *n, int status);
/* The proposal behind the entry that libraft applies now, or NULL. */
struct pending *proposals_match(struct hw_consensus *c, uint64_t index);
/* What waits for a commit cannot be told its outcome any more. */
void proposals_lose_inflight(struct hw_consensus *c, int status);
void proposals_lose_queue(struct hw_consensus *c, int status);

/* changes.c */
void changes_over(struct hw_consensus *c, int status);
void changes_step(struct hw_consensus *c);

/* fsm.c */
void io_fsm_init(struct hw_consensus *c);

/* raft_io.c */
struct hw_consensus *io_owner(struct raft_io *io);
/* Put our functions before the io's own. c->raft and c->io are set, raft_init was done. */
void io_wrap(struct hw_consensus *c);
/* After the io was closed. */
void io_free(struct hw_consensus *c);
/* What load has returned. */
void io_loaded_free(struct raft_snapshot *snapshot, struct raft_entry *entries, size_t n);
/* Between the two, appends and messages are held back, then leave as few and large ones. */
void io_cork(struct hw_consensus *c);
void io_uncork(struct hw_consensus *c);
/* A server that denies what it had acknowledged in this term, on the leader; 0: none. */
uint64_t consensus_lost_tail(const struct hw_consensus *c);
/* Drive the snapshot's state machine. */
void io_put_step(struct hw_consensus *c);

/* recover.c: before the log is loaded, when config.is_recovering */
int consensus_recover(struct hw_consensus *c);

/* transport.c */
struct raft_uv_transport;
struct transport *transport_new(struct hw_consensus *c);
struct raft_uv_transport *transport_raft(struct transport *t);
void transport_accept(struct transport *t, struct hw_stream *s);
void transport_free(struct transport *t);

#include "agent/consensus/outbox.h"

#endif
