#include "agent/replica/quorum.h"

#include <inttypes.h>
#include <stdio.h>

#include "agent/base/log.h"
#include "agent/replica/replica_impl.h"

#define PATIENCE_MS 2000
#define SAY_EVERY_MS 30000

struct count {
    unsigned voters;
    unsigned there; /* this node included */
};

static struct count count_voters(struct hw_replica *r, const struct hw_member *members, size_t count)
{
    struct count c = {0};
    for (size_t i = 0; i < count; i++) {
        if (members[i].role == HW_ROLE_VOTER) {
            c.voters++;
            c.there += hw_replica_is_reachable(r, members[i].id);
        }
    }
    return c;
}

static size_t after(size_t at, size_t size, int n)
{
    return n < 0 || at + (size_t)n >= size ? size - 1 : at + (size_t)n;
}

/* "n2 (10.0.0.2:2380, its data is gone), n3 (10.0.0.3:2380, no answer)" */
static void list_missing(struct hw_replica *r, const struct hw_member *members, size_t count, char *text, size_t size)
{
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        const struct hw_member *m = &members[i];
        const struct hw_node *node = hw_hot_node_by_id(r->hot, m->id);
        const struct hw_peer *p = hw_peer_of(r, m->id);
        char id[20];
        if (m->role != HW_ROLE_VOTER || hw_replica_is_reachable(r, m->id)) {
            continue;
        }
        snprintf(id, sizeof id, "%016" PRIx64, m->id);
        at =
            after(at, size,
                  snprintf(text + at, size - at, "%s%s (%.80s, %s)", at > 0 ? ", " : "", node != NULL ? node->name : id,
                           m->address, p != NULL && p->is_replaced ? "its data is gone" : "no answer"));
    }
}

static void describe(struct hw_replica *r, const struct hw_member *members, size_t count, struct count c)
{
    char missing[320];
    list_missing(r, members, count, missing, sizeof missing);
    snprintf(
        r->quorum.trouble, sizeof r->quorum.trouble,
        "the quorum is lost: %u of %u voters are there, %u are needed; missing: %s; start these nodes with the data "
        "folders that they had: until then nothing is written and no node is let in; hwctl snapshot save keeps a "
        "copy of what this node has",
        c.there, c.voters, c.voters / 2 + 1, missing);
}

static void over(struct hw_replica *r)
{
    if (r->quorum.trouble[0] != '\0') {
        hw_log_info(HW_COMPONENT, "the quorum is back", "missing_ms=%" PRIu64,
                    hw_loop_now_ms(r->loop) - r->quorum.missed_ms);
    }
    r->quorum.missed_ms = 0;
    r->quorum.trouble[0] = '\0';
}

void hw_quorum_tick(struct hw_replica *r)
{
    struct hw_quorum *q = &r->quorum;
    struct hw_member members[HW_MEMBERS_MAX];
    uint64_t now_ms = hw_loop_now_ms(r->loop);
    bool is_news = q->trouble[0] == '\0';
    struct count c;
    size_t count;
    if (r->phase != HW_PHASE_MEMBER) {
        q->trouble[0] = '\0';
        return;
    }
    count = hw_consensus_members(r->consensus, members, HW_MEMBERS_MAX);
    c = count_voters(r, members, count);
    if (r->view.leader_id != 0 || c.voters == 0 || c.there > c.voters / 2) {
        over(r);
        return;
    }
    q->missed_ms = q->missed_ms == 0 ? now_ms : q->missed_ms;
    if (now_ms - q->missed_ms < PATIENCE_MS) {
        return;
    }
    describe(r, members, count, c);
    if (is_news || now_ms - q->said_ms >= SAY_EVERY_MS) {
        q->said_ms = now_ms;
        hw_log_warn(HW_COMPONENT, "the quorum is lost", "why=%s", hw_logq_into(q->trouble, (char[700]){0}, 700));
    }
}

const char *hw_replica_trouble(const struct hw_replica *r)
{
    return r->quorum.trouble;
}
