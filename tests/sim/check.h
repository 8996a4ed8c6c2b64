/* Clients' commands, their fates, and what must never happen. */
#ifndef HW_SIM_CHECK_H
#define HW_SIM_CHECK_H

#include "agent/consensus/consensus.h"
#include "storage/hot/hot.h"

struct server;

/* ---- clients ---- */

enum op_kind {
    OP_PUT,
    OP_TXN,
    OP_DELETE,
    OP_COMPACT,
    OP_EVENT,
    OP_NODE,
    OP_ACQUIRE,
    OP_GRANT,
    OP_LEASED, /* a put that attaches its key */
    OP_REVOKE,
    OP_REMAINING
};
struct op {
    struct hw_proposal proposal;
    struct hw_result result;
    struct server *server;
    uint64_t id; /* in every command as its wall_ms, so that an entry names its proposal */
    enum op_kind kind;
    char key[16];
    char value[24];
};
/* Propose; counts what comes of it. False when refused at once. */
bool op_propose(struct server *v, enum op_kind kind);

/* ---- checks ---- */

enum op_fate { FATE_OPEN, FATE_ACKED, FATE_UNKNOWN, FATE_REFUSED };
struct fate {
    enum op_fate fate;
    uint64_t index; /* where it was applied; 0: nowhere yet */
};
struct truth {
    uint64_t entry_hash; /* 0: no command here, or not seen yet */
    uint64_t state_hash;
    uint64_t lease_hash;
};
struct ack {
    uint64_t index;
    hw_rev revision;
    bool is_delete;
    char key[16];
    char value[24];
};
struct checks {
    struct truth *truth; /* by log index */
    size_t truth_cap;
    uint64_t index_max;
    struct fate *fates; /* by op id */
    size_t fate_cap;
    struct ack *acks;
    size_t ack_count;
    size_t ack_cap;
    uint64_t *leaders; /* by term */
    size_t leader_cap;
};
void check_free(struct checks *c);
void check_leader(struct server *v, uint64_t term);
void check_entry(struct server *v, uint64_t index, uint64_t term, struct hw_slice entry, uint64_t epoch_before,
                 bool is_applied);
void check_done(struct op *op, int status);
/* The whole state against what is known. */
void check_state(struct server *v, const char *when);
uint64_t check_content(struct hw_hot *hot);
/* All leases with their keys. */
uint64_t check_leases(struct hw_hot *hot);

#endif
