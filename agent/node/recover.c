/* Giving a lost quorum up, and being given up (see docs/recover.md).
 *
 * The survivor writes state "recovering" and the next number of recovery into its identity, and starts again: consensus
 * then makes it the only voter (agent/consensus/recover.c). Both may be cut short anywhere and are done again.
 * Everybody who knows a lower number is superseded: it cannot reach the survivor's log, and when it hears of the higher
 * number it puts its data aside and asks to be let in as a fresh node.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/rng.h"
#include "agent/node/node_impl.h"

static void stop_to_recover(struct hw_agent *a)
{
    a->is_recovery = true;
    hw_agent_stop(a, HW_ERR_CANCELLED);
}

int hw_agent_recover(void *ctx, uint64_t *recovery, struct hw_error *e)
{
    struct hw_agent *a = ctx;
    if (a->identity.state != HW_IDENTITY_MEMBER || !a->is_started || a->is_stopping) {
        return hw_error_set(e, HW_ERR_UNAVAILABLE, "this node has no log to go on with: ask another one");
    }
    a->next_recovery =
        (HW_RECOVERY_COUNT(a->identity.recovery) + 1) << HW_RECOVERY_DRAW_BITS | HW_RECOVERY_DRAW(hw_random_u64());
    *recovery = a->next_recovery;
    hw_log_warn(COMPONENT, "the operator gives the quorum up: starting again, alone",
                "cluster=%016" PRIx64 " recovery=%" PRIu64, a->identity.cluster_id, HW_RECOVERY_COUNT(*recovery));
    hw_agent_post(a, stop_to_recover); /* the answer leaves first: ports close with a grace */
    return 0;
}

bool hw_agent_store_recovery(struct hw_agent *a)
{
    struct hw_identity next = a->identity;
    struct hw_error e = {0};
    next.state = HW_IDENTITY_RECOVERING;
    next.recovery = a->next_recovery;
    if (hw_identity_store(a->datadir, &next, &e) != 0) {
        hw_log_error(COMPONENT, "not recovered, nothing was changed", "why=%s", hw_logq(hw_error_text(&e)));
        return false;
    }
    return true;
}

void hw_agent_on_superseded(void *ctx, uint64_t recovery)
{
    struct hw_agent *a = ctx;
    bool can_rejoin = hw_agent_can_start_anew(a);
    if (a->is_stopping) {
        return;
    }
    hw_log_error(COMPONENT, "the quorum that this node belongs to was given up by an operator: its data is superseded",
                 "own_recovery=%" PRIx64 " recovery=%" PRIx64 " next=%s", a->identity.recovery, recovery,
                 can_rejoin ? "\"moving the data to quarantine, joining anew\""
                            : "\"move the data folder away, then add the node again: hwctl node add\"");
    a->is_again = can_rejoin;
    hw_agent_stop(a, HW_ERR_FOREIGN);
}

static void on_noted(void *arg, int status)
{
    (void)arg;
    if (status != 0) {
        hw_log_warn(COMPONENT, "the recovery is not in the history", "why=%s", hw_logq(hw_err_text(status)));
    }
}

void hw_agent_note_recovery(struct hw_agent *a)
{
    struct hw_cmd cmd = {.type = HW_CMD_EVENT, .wall_ms = hw_wall_ms()};
    a->has_recovered = false;
    cmd.event.node_id = a->identity.raft_id;
    snprintf(cmd.event.kind, sizeof cmd.event.kind, "recovered");
    snprintf(cmd.event.text, sizeof cmd.event.text,
             "the lost quorum was given up (recovery %" PRIu64
             "): %s went on alone; writes that only the others had are "
             "lost, and they come back as fresh nodes",
             HW_RECOVERY_COUNT(a->identity.recovery), a->config->node.name);
    if (hw_agent_propose(a, &cmd, on_noted, NULL) != 0) {
        on_noted(NULL, HW_ERR_UNAVAILABLE);
    }
}

/* ---- others that act on the same cluster ---- */

static void on_heard(void *ctx, uint64_t recovery)
{
    struct hw_agent *a = ctx;
    if (recovery > a->identity.recovery) {
        hw_agent_on_superseded(a, recovery);
    }
}

void hw_agent_look_out(struct hw_agent *a)
{
    const char *addresses[HW_LOOKOUT_ADDRESSES_MAX];
    const struct hw_config *c = a->config;
    size_t count = 0;
    if (a->identity.recovery == 0 || a->lookout != NULL) {
        return;
    }
    for (size_t i = 0; i < c->members.initial_count; i++) {
        if (strcmp(c->members.initial[i].name, c->node.name) != 0) {
            addresses[count++] = c->members.initial[i].peer;
        }
    }
    for (size_t i = 0; i < c->members.join_count; i++) {
        addresses[count++] = c->members.join[i];
    }
    if (hw_lookout_new(a->loop, a->resolver, a->identity.cluster_id, addresses, count, on_heard, a, &a->lookout) != 0) {
        hw_log_warn(COMPONENT, "nobody looks out for another recovery of this cluster", "why=\"out of memory\"");
    }
}
