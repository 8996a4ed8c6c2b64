/* Giving a lost quorum up: the server becomes the only voter of what it has (raft_recover, raft.h). What its log holds
 * beyond the commit index counts from then on; what only the others had is lost: the operator has been told so.
 *
 * The order makes it safe to be cut short and run again: the configuration is one more entry at the end of the log, the
 * term only grows. The term jumps, because those who were given up may have gone on in terms that this server never
 * heard of, and the epochs that services use as fencing tokens must not come twice.
 */
#include "agent/consensus/impl.h"

#include "agent/base/log.h"

/* Term, and whether there is a log at all: libraft would append to one that is not there. */
static int look(struct hw_consensus *c, raft_term *term, raft_index *last)
{
    struct raft_snapshot *snapshot = NULL;
    struct raft_entry *entries = NULL;
    raft_index start = 0;
    raft_id vote;
    size_t n = 0;
    int rv = c->below.load(c->io, term, &vote, &snapshot, &start, &entries, &n);
    if (rv != 0) {
        return rv;
    }
    *last = n > 0 ? start + n - 1 : snapshot != NULL ? snapshot->index : 0;
    io_loaded_free(snapshot, entries, n);
    return 0;
}

int consensus_recover(struct hw_consensus *c)
{
    struct raft_configuration alone;
    raft_term term = 0;
    raft_term next;
    raft_index last = 0;
    int rv = look(c, &term, &last);
    if (rv != 0) {
        return rv;
    }
    if (last == 0) {
        snprintf(c->io->errmsg, sizeof c->io->errmsg, "there is no log to recover from");
        return RAFT_CORRUPT;
    }
    raft_configuration_init(&alone);
    rv = raft_configuration_add(&alone, c->config.id, c->config.address, RAFT_VOTER);
    if (rv == 0) {
        rv = c->below.recover(c->io, &alone);
    }
    raft_configuration_close(&alone);
    next = term + HW_RECOVERY_TERM_STEP + HW_RECOVERY_DRAW(c->config.recovery) * HW_RECOVERY_DRAW_STEP;
    if (rv == 0) {
        rv = c->below.set_term(c->io, next);
    }
    if (rv == 0) {
        hw_log_warn("raft", "the lost quorum is given up, this node is the only voter",
                    "last_index=%llu term=%llu was_term=%llu", (unsigned long long)last + 1, (unsigned long long)next,
                    (unsigned long long)term);
    }
    return rv;
}
