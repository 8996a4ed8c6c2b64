/* A log of one node in memory, for fuzz targets: what the agent uses of agent/consensus, without libraft. What is
 * proposed is applied when seam_log_turn is called. Defines those functions, so exactly one file of a program includes
 * it, and the program is linked without agent/consensus.
 */
#ifndef HW_FUZZ_CONSENSUS_SEAM_H
#define HW_FUZZ_CONSENSUS_SEAM_H

#include <stdio.h>

#include "agent/base/assert.h"
#include "agent/consensus/consensus.h"

struct hw_consensus {
    const struct hw_consensus_ops *ops;
    void *ctx;
    struct hw_consensus_view view;
    struct hw_member members[2];
    TAILQ_HEAD(, hw_proposal) proposed;
    struct hw_change *change; /* refused in the next turn */
};

static inline struct hw_consensus *seam_log_new(const struct hw_consensus_ops *ops, void *ctx, uint64_t self_id,
                                                bool is_leader)
{
    struct hw_consensus *c = calloc(1, sizeof *c);
    hw_assert(c != NULL);
    c->ops = ops;
    c->ctx = ctx;
    c->view.is_leader = is_leader;
    c->view.is_started = true;
    c->view.term = 5;
    c->view.leader_id = is_leader ? self_id : self_id + 1;
    c->view.role = HW_ROLE_VOTER;
    c->view.member_count = is_leader ? 1 : 2;
    for (size_t i = 0; i < c->view.member_count; i++) {
        c->members[i].id = self_id + i;
        c->members[i].role = HW_ROLE_VOTER;
        snprintf(c->members[i].address, sizeof c->members[i].address, "127.0.0.1:%zu", i + 2);
    }
    TAILQ_INIT(&c->proposed);
    return c;
}

static inline void seam_log_turn(struct hw_consensus *c)
{
    struct hw_proposal *p;
    struct hw_change *ch = c->change;
    bool has_applied = false;
    c->change = NULL;
    if (ch != NULL) {
        ch->done(ch, HW_ERR_TIMEOUT);
    }
    while ((p = TAILQ_FIRST(&c->proposed)) != NULL) {
        struct hw_buf entry = p->entry;
        hw_buf_init(&p->entry);
        TAILQ_REMOVE(&c->proposed, p, link);
        p->index = ++c->view.last_index;
        p->term = c->view.term;
        c->view.commit_index = c->view.applied_index = p->index;
        hw_assert(c->ops->apply(c->ctx, p->index, p->term, hw_buf_slice(&entry), p) == 0);
        hw_buf_free(&entry);
        p->done(p, 0);
        has_applied = true;
    }
    if (has_applied) {
        c->ops->on_applied(c->ctx, c->view.applied_index);
    }
}

/* ---- what agent/consensus promises ---- */

int hw_proposal_begin(struct hw_proposal *p)
{
    p->is_essential = false;
    hw_buf_init(&p->entry);
    return 0;
}

int hw_consensus_propose(struct hw_consensus *c, struct hw_proposal *p)
{
    if (!c->view.is_leader) {
        return HW_ERR_NOTHOT;
    }
    TAILQ_INSERT_TAIL(&c->proposed, p, link);
    return 0;
}

void hw_consensus_view(const struct hw_consensus *c, struct hw_consensus_view *view)
{
    *view = c->view;
}

size_t hw_consensus_members(const struct hw_consensus *c, struct hw_member *members, size_t max)
{
    size_t count = c->view.member_count < max ? c->view.member_count : max;
    for (size_t i = 0; i < count; i++) {
        members[i] = c->members[i];
    }
    return count;
}

int hw_consensus_match_index(const struct hw_consensus *c, uint64_t id, uint64_t *index)
{
    (void)id;
    *index = c->view.last_index;
    return c->view.is_leader ? 0 : HW_ERR_NOTHOT;
}

static inline int seam_change(struct hw_consensus *c, struct hw_change *ch)
{
    if (c->change != NULL) {
        return HW_ERR_EXHAUSTED;
    }
    c->change = ch;
    return 0;
}

int hw_consensus_add(struct hw_consensus *c, struct hw_change *ch, uint64_t id, const char *address)
{
    (void)id;
    hw_assert(address[0] != '\0');
    return seam_change(c, ch);
}

int hw_consensus_assign(struct hw_consensus *c, struct hw_change *ch, uint64_t id, enum hw_role role)
{
    (void)id;
    (void)role;
    return seam_change(c, ch);
}

int hw_consensus_remove(struct hw_consensus *c, struct hw_change *ch, uint64_t id)
{
    (void)id;
    return seam_change(c, ch);
}

int hw_consensus_transfer(struct hw_consensus *c, struct hw_change *ch, uint64_t id)
{
    (void)id;
    return seam_change(c, ch);
}

const char *hw_role_name(enum hw_role role)
{
    static const char *const names[] = {"standby", "voter", "spare", "none"};
    return names[role];
}

const char *hw_consensus_library(void)
{
    return "none";
}

void hw_consensus_accept(struct hw_consensus *c, struct hw_stream *stream)
{
    (void)c;
    hw_stream_close(stream);
}

void hw_consensus_durable(struct hw_consensus *c)
{
    (void)c;
}

void hw_consensus_suspect_leader(struct hw_consensus *c, unsigned election_ms)
{
    (void)c;
    (void)election_ms;
}

int hw_consensus_new(struct hw_loop *loop, struct hw_pool *resolver, struct hw_metrics *metrics,
                     const struct hw_consensus_config *config, const struct hw_consensus_ops *ops, void *ctx,
                     struct hw_consensus **c, struct hw_error *e)
{
    (void)loop;
    (void)resolver;
    (void)metrics;
    (void)config;
    (void)ops;
    (void)ctx;
    (void)c;
    return hw_error_set(e, HW_ERR_UNAVAILABLE, "the program makes the log itself");
}

int hw_consensus_bootstrap(struct hw_consensus *c, const struct hw_member *members, size_t count, struct hw_error *e)
{
    (void)c;
    (void)members;
    (void)count;
    (void)e;
    return 0;
}

int hw_consensus_start(struct hw_consensus *c, struct hw_error *e)
{
    (void)c;
    (void)e;
    return 0;
}

bool hw_consensus_folder_is_pristine(const char *folder)
{
    (void)folder;
    return true;
}

void hw_consensus_shut(struct hw_consensus *c, void (*on_closed)(void *ctx), void *ctx)
{
    struct hw_proposal *p;
    if (c->change != NULL) {
        c->change->done(c->change, HW_ERR_CANCELLED);
        c->change = NULL;
    }
    while ((p = TAILQ_FIRST(&c->proposed)) != NULL) {
        TAILQ_REMOVE(&c->proposed, p, link);
        hw_buf_free(&p->entry);
        p->done(p, HW_ERR_CANCELLED);
    }
    on_closed(ctx);
}

void hw_consensus_free(struct hw_consensus *c)
{
    free(c);
}

#endif
