/* The driver behind cluster.h. Joins and leaves wait in queues; each is a step function over what the log and the
 * registry say now, so that a step can be run again at any time, also by the next hot node after a retry of the asker.
 */
#include "agent/cluster/cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"

#define COMPONENT "cluster"
#define TICK_MS 200
#define QUEUE_MAX 16
#define LAG_UNKNOWN UINT64_MAX

struct hw_cluster {
    struct hw_loop *loop;
    struct hw_cluster_config config;
    struct hw_consensus *consensus;
    const struct hw_cluster_ops *ops;
    void *ctx;
    struct hw_timer *timer;
    struct hw_defer step;
    TAILQ_HEAD(, hw_join) joins;
    TAILQ_HEAD(, hw_leave) leaves;
    unsigned waiting;
    struct hw_switchover *switchover;
    struct hw_change change;
    bool is_changing;  /* our change is with libraft */
    bool is_proposing; /* our registry command is in the log */
    bool is_closed;
    int change_status; /* of the last one */
    int propose_status;
    uint64_t change_id;
    enum hw_role change_role;
};

static void join_end(struct hw_cluster *c, struct hw_join *j, int status)
{
    TAILQ_REMOVE(&c->joins, j, link);
    c->waiting--;
    j->done(j, status);
}

static void leave_end(struct hw_cluster *c, struct hw_leave *l, int status)
{
    TAILQ_REMOVE(&c->leaves, l, link);
    c->waiting--;
    l->done(l, status);
}

static void on_change_done(struct hw_change *ch, int status)
{
    struct hw_cluster *c = hw_container_of(ch, struct hw_cluster, change);
    c->is_changing = false;
    c->change_status = status;
    if (c->is_closed) {
        if (!c->is_proposing) {
            free(c);
        }
        return;
    }
    if (status != 0) {
        hw_log_warn(COMPONENT, "change of membership failed, it will be tried again", "node=%016" PRIx64 " why=%s",
                    c->change_id, hw_logq(hw_err_text(status)));
    }
    hw_defer_post(c->loop, &c->step);
}

static void on_proposed(void *arg, int status)
{
    struct hw_cluster *c = arg;
    c->is_proposing = false;
    c->propose_status = status;
    if (c->is_closed) {
        if (!c->is_changing) {
            free(c);
        }
        return;
    }
    hw_defer_post(c->loop, &c->step);
}

static int propose(struct hw_cluster *c, struct hw_cmd *cmd)
{
    int rc;
    cmd->wall_ms = hw_wall_ms();
    c->is_proposing = true;
    rc = c->ops->propose(c->ctx, cmd, on_proposed, c);
    if (rc != 0) {
        c->is_proposing = false;
    }
    return rc;
}

static void note_event(struct hw_cluster *c, uint64_t id, const char *kind, const char *text)
{
    struct hw_cmd cmd = {.type = HW_CMD_EVENT};
    cmd.event.node_id = id;
    snprintf(cmd.event.kind, sizeof cmd.event.kind, "%s", kind);
    snprintf(cmd.event.text, sizeof cmd.event.text, "%s", text);
    if (propose(c, &cmd) != 0) {
        hw_log_warn(COMPONENT, "event not recorded", "kind=%s", kind);
    }
}

static const struct hw_member *member_of(const struct hw_member *members, size_t count, uint64_t id)
{
    for (size_t i = 0; i < count; i++) {
        if (members[i].id == id) {
            return &members[i];
        }
    }
    return NULL;
}

static bool start_change(struct hw_cluster *c, uint64_t id, int rc)
{
    if (rc != 0) {
        hw_log_warn(COMPONENT, "change of membership refused, it will be tried again", "node=%016" PRIx64 " why=%s", id,
                    hw_logq(hw_err_text(rc)));
        return false;
    }
    c->is_changing = true;
    c->change_id = id;
    return true;
}

static void remove_member(struct hw_cluster *c, uint64_t id)
{
    c->change.done = on_change_done;
    start_change(c, id, hw_consensus_remove(c->consensus, &c->change, id));
}

static void remove_from_registry(struct hw_cluster *c, uint64_t id)
{
    struct hw_cmd cmd = {.type = HW_CMD_NODE_REMOVE, .node_id = id};
    propose(c, &cmd);
}

/* ---- joining ---- */

/* An older incarnation of the joining name, or another member at its address. */
static bool clear_the_way(struct hw_cluster *c, struct hw_join *j, const struct hw_member *members, size_t count)
{
    struct hw_hot *hot = c->ops->hot(c->ctx);
    const struct hw_node *old = hw_hot_node_by_name(hot, j->node.name);
    if (c->config.self_name != NULL && strcmp(c->config.self_name, j->node.name) == 0 &&
        j->node.id != c->config.self_id) {
        hw_error_set(&j->e, HW_ERR_EXISTS, "the hot node itself is called '%s': give this node another name",
                     j->node.name);
        join_end(c, j, HW_ERR_EXISTS);
        return false;
    }
    if (old != NULL && old->id != j->node.id) {
        if (old->id == c->config.self_id || c->ops->is_reachable(c->ctx, old->id)) {
            hw_error_set(&j->e, HW_ERR_EXISTS,
                         "a live node is called '%s' already (id %016" PRIx64
                         " at %s): give this node another name, or "
                         "stop the other one",
                         old->name, old->id, old->peer_address);
            join_end(c, j, HW_ERR_EXISTS);
        } else if (member_of(members, count, old->id) != NULL) {
            hw_log_info(COMPONENT, "an older incarnation makes room for a new one",
                        "name=%s old=%016" PRIx64 " new=%016" PRIx64, old->name, old->id, j->node.id);
            remove_member(c, old->id);
        } else {
            remove_from_registry(c, old->id);
        }
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (members[i].id != j->node.id && strcmp(members[i].address, j->node.peer_address) == 0) {
            hw_error_set(&j->e, HW_ERR_EXISTS,
                         "the peer address %s belongs to the member %016" PRIx64
                         ": remove that node first (hwctl node remove), or use another address",
                         members[i].address, members[i].id);
            join_end(c, j, HW_ERR_EXISTS);
            return false;
        }
    }
    return true;
}

static bool is_registered(const struct hw_node *have, const struct hw_node *want)
{
    return have != NULL && strcmp(have->name, want->name) == 0 && strcmp(have->peer_address, want->peer_address) == 0 &&
           strcmp(have->client_address, want->client_address) == 0;
}

static void join_step(struct hw_cluster *c, struct hw_join *j)
{
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count = hw_consensus_members(c->consensus, members, HW_MEMBERS_MAX);
    const struct hw_node *have = hw_hot_node_by_id(c->ops->hot(c->ctx), j->node.id);
    if (!clear_the_way(c, j, members, count)) {
        return;
    }
    if (member_of(members, count, j->node.id) == NULL) {
        if (count >= HW_MEMBERS_MAX) {
            hw_error_set(&j->e, HW_ERR_EXHAUSTED, "the cluster has %zu members, the most it can have", count);
            join_end(c, j, HW_ERR_EXHAUSTED);
            return;
        }
        c->change.done = on_change_done;
        start_change(c, j->node.id, hw_consensus_add(c->consensus, &c->change, j->node.id, j->node.peer_address));
        return;
    }
    if (!is_registered(have, &j->node)) {
        struct hw_cmd cmd = {.type = HW_CMD_NODE_SET, .node = j->node};
        cmd.node.added_wall_ms = have != NULL ? have->added_wall_ms : hw_wall_ms();
        propose(c, &cmd);
        return;
    }
    join_end(c, j, 0);
}

/* ---- leaving ---- */

static int check_leave(struct hw_cluster *c, struct hw_leave *l, const struct hw_node *node,
                       const struct hw_member *members, size_t count)
{
    const struct hw_member *m = member_of(members, count, node->id);
    unsigned voters = 0;
    unsigned reachable = 0;
    if (node->id == c->config.self_id) {
        return hw_error_set(&l->e, HW_ERR_PRECONDITION,
                            "'%s' is the hot node: move the hot tier first (hwctl switchover)", node->name);
    }
    for (size_t i = 0; i < count; i++) {
        if (members[i].role == HW_ROLE_VOTER && members[i].id != node->id) {
            voters++;
            reachable += c->ops->is_reachable(c->ctx, members[i].id);
        }
    }
    if (m != NULL && m->role == HW_ROLE_VOTER && reachable < voters / 2 + 1) {
        return hw_error_set(
            &l->e, HW_ERR_PRECONDITION,
            "without '%s' only %u of %u voters are reachable, which is no majority: bring another voter "
            "back first",
            node->name, reachable, voters);
    }
    return 0;
}

static void leave_step(struct hw_cluster *c, struct hw_leave *l)
{
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count = hw_consensus_members(c->consensus, members, HW_MEMBERS_MAX);
    const struct hw_node *node = hw_hot_node_by_name(c->ops->hot(c->ctx), l->name);
    int rc;
    if (node == NULL) {
        leave_end(c, l, 0);
        return;
    }
    if (member_of(members, count, node->id) == NULL) {
        remove_from_registry(c, node->id);
        return;
    }
    rc = check_leave(c, l, node, members, count);
    if (rc != 0) {
        leave_end(c, l, rc);
        return;
    }
    remove_member(c, node->id);
}

/* ---- roles ---- */

static void gather(struct hw_cluster *c, struct hw_role_facts *f)
{
    struct hw_member members[HW_MEMBERS_MAX];
    struct hw_consensus_view view;
    hw_consensus_view(c->consensus, &view);
    f->is_hot = c->ops->is_hot(c->ctx);
    f->is_changing = view.is_changing || c->is_changing;
    f->voters_wanted = c->config.voters_wanted;
    f->lag_max = c->config.lag_max;
    f->member_count = hw_consensus_members(c->consensus, members, HW_MEMBERS_MAX);
    for (size_t i = 0; i < f->member_count; i++) {
        uint64_t match = 0;
        f->members[i].id = members[i].id;
        f->members[i].role = members[i].role;
        f->members[i].is_reachable = c->ops->is_reachable(c->ctx, members[i].id);
        f->members[i].lag = LAG_UNKNOWN;
        if (hw_consensus_match_index(c->consensus, members[i].id, &match) == 0 && match > 0) {
            f->members[i].lag = view.last_index > match ? view.last_index - match : 0;
        }
    }
}

static void roles_step(struct hw_cluster *c)
{
    struct hw_role_facts facts;
    struct hw_role_decision d;
    const struct hw_node *node;
    char text[HW_EVENT_TEXT_MAX];
    memset(&facts, 0, sizeof facts);
    gather(c, &facts);
    d = hw_roles_decide(&facts);
    if (d.action == HW_ROLE_KEEP) {
        return;
    }
    c->change.done = on_change_done;
    if (!start_change(c, d.id, hw_consensus_assign(c->consensus, &c->change, d.id, d.role))) {
        return;
    }
    node = hw_hot_node_by_id(c->ops->hot(c->ctx), d.id);
    hw_log_info(COMPONENT, "role changes", "node=%016" PRIx64 " name=%s role=%s rule=%s", d.id,
                node != NULL ? node->name : "?", hw_role_name(d.role), hw_logq(d.rule));
    snprintf(text, sizeof text, "to %s: %s", hw_role_name(d.role), d.rule);
    note_event(c, d.id, "role-changed", text);
}

/* ---- switchover ---- */

static void switchover_end(struct hw_cluster *c, int status)
{
    struct hw_switchover *s = c->switchover;
    c->switchover = NULL;
    s->done(s, status);
}

static void on_transfer_done(struct hw_change *ch, int status)
{
    struct hw_switchover *s = hw_container_of(ch, struct hw_switchover, change);
    struct hw_cluster *c = s->cluster;
    s->is_transferring = false;
    if (c == NULL) {
        s->done(s, HW_ERR_CANCELLED); /* the cluster object went away meanwhile */
        return;
    }
    if (status != 0) {
        status = status == HW_ERR_TIMEOUT ? HW_ERR_ABORTED : status; /* nothing moved: it can be asked for again */
        hw_error_set(&s->e, status,
                     "leadership was not handed over within the election timeout: the node may be slow or "
                     "unreachable, this node stays hot");
        switchover_end(c, status);
        return;
    }
    hw_defer_post(c->loop, &c->step);
}

static void switchover_step(struct hw_cluster *c)
{
    struct hw_switchover *s = c->switchover;
    struct hw_hot *hot = c->ops->hot(c->ctx);
    if (s == NULL || s->is_transferring) {
        return;
    }
    if (hw_hot_epoch(hot) > s->epoch) {
        s->epoch = hw_hot_epoch(hot);
        s->to = hw_hot_hot_node(hot);
        switchover_end(c, 0);
    } else if (hw_loop_now_ms(c->loop) > s->deadline_ms) {
        hw_error_set(&s->e, HW_ERR_TIMEOUT, "leadership moved, but no node became hot in time: see hwctl status");
        switchover_end(c, HW_ERR_TIMEOUT);
    }
}

static int choose_target(struct hw_cluster *c, struct hw_switchover *s)
{
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count = hw_consensus_members(c->consensus, members, HW_MEMBERS_MAX);
    uint64_t best = 0;
    uint64_t best_match = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t match = 0;
        if (members[i].id == c->config.self_id || (s->to != 0 && members[i].id != s->to)) {
            continue;
        }
        if (members[i].role != HW_ROLE_VOTER || !c->ops->is_reachable(c->ctx, members[i].id)) {
            if (s->to != 0) {
                return hw_error_set(&s->e, HW_ERR_PRECONDITION,
                                    "that node is %s and %s: only a reachable voter can "
                                    "become hot",
                                    hw_role_name(members[i].role),
                                    c->ops->is_reachable(c->ctx, members[i].id) ? "reachable" : "not reachable");
            }
            continue;
        }
        hw_consensus_match_index(c->consensus, members[i].id, &match);
        if (best == 0 || match > best_match) {
            best = members[i].id;
            best_match = match;
        }
    }
    if (best == 0) {
        return hw_error_set(&s->e, HW_ERR_PRECONDITION, "%s",
                            s->to == c->config.self_id ? "that node is hot already"
                            : s->to != 0               ? "no member has that id"
                                                       : "there is no other reachable voter to become hot");
    }
    s->to = best;
    return 0;
}

static void hand_over(struct hw_cluster *c)
{
    if (c->ops->on_hand_over != NULL) {
        c->ops->on_hand_over(c->ctx);
    }
}

int hw_cluster_switchover(struct hw_cluster *c, struct hw_switchover *s, uint64_t timeout_ms)
{
    int rc;
    if (!c->ops->is_hot(c->ctx)) {
        return hw_error_set(&s->e, HW_ERR_NOTHOT, "this node is not hot");
    }
    if (c->switchover != NULL) {
        return hw_error_set(&s->e, HW_ERR_EXHAUSTED, "another switchover is under way");
    }
    rc = choose_target(c, s);
    if (rc != 0) {
        return rc;
    }
    s->epoch = hw_hot_epoch(c->ops->hot(c->ctx));
    s->started_ms = hw_loop_now_ms(c->loop);
    s->deadline_ms = s->started_ms + timeout_ms;
    s->cluster = c;
    s->change.done = on_transfer_done;
    hand_over(c);
    rc = hw_consensus_transfer(c->consensus, &s->change, s->to);
    if (rc != 0) {
        return hw_error_set(&s->e, rc, "hand over leadership: %s", hw_err_text(rc));
    }
    s->is_transferring = true;
    c->switchover = s;
    return 0;
}

/* ---- a member that lost the end of its log ---- */

/* In this term we count it as holding entries that it does not hold. The next leader begins without such beliefs and
 * sends them again, so leadership moves: to a voter that has everything, else to whoever wins. */
static void mend_tail(struct hw_cluster *c, uint64_t damaged)
{
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count = hw_consensus_members(c->consensus, members, HW_MEMBERS_MAX);
    const struct hw_node *node = hw_hot_node_by_id(c->ops->hot(c->ctx), damaged);
    uint64_t to = 0;
    char text[HW_EVENT_TEXT_MAX];
    for (size_t i = 0; i < count && to == 0; i++) {
        if (members[i].id != c->config.self_id && members[i].id != damaged && members[i].role == HW_ROLE_VOTER &&
            c->ops->is_reachable(c->ctx, members[i].id)) {
            to = members[i].id;
        }
    }
    hw_log_error(COMPONENT, "a member lost log entries that it had acknowledged: handing leadership over mends it",
                 "node=%016" PRIx64 " name=%s to=%016" PRIx64, damaged, node != NULL ? node->name : "?", to);
    snprintf(text, sizeof text,
             "%s lost log entries that it had acknowledged (damaged disk?): leadership moves, so that "
             "it is sent them again",
             node != NULL ? node->name : "a member");
    note_event(c, damaged, "tail-lost", text);
    c->change.done = on_change_done;
    hand_over(c);
    start_change(c, damaged, hw_consensus_transfer(c->consensus, &c->change, to));
}

/* ---- the driver ---- */

static void expire(struct hw_cluster *c)
{
    uint64_t now = hw_loop_now_ms(c->loop);
    bool is_hot = c->ops->is_hot(c->ctx);
    struct hw_join *j;
    struct hw_join *j_next;
    struct hw_leave *l;
    struct hw_leave *l_next;
    for (j = TAILQ_FIRST(&c->joins); j != NULL; j = j_next) {
        j_next = TAILQ_NEXT(j, link);
        if (!is_hot || now > j->deadline_ms) {
            join_end(c, j,
                     hw_error_set(&j->e, is_hot ? HW_ERR_TIMEOUT : HW_ERR_NOTHOT, "%s",
                                  is_hot ? "the change did not complete in time, try again" : "not hot"));
        }
    }
    for (l = TAILQ_FIRST(&c->leaves); l != NULL; l = l_next) {
        l_next = TAILQ_NEXT(l, link);
        if (!is_hot || now > l->deadline_ms) {
            leave_end(c, l,
                      hw_error_set(&l->e, is_hot ? HW_ERR_TIMEOUT : HW_ERR_NOTHOT, "%s",
                                   is_hot ? "the change did not complete in time, try again" : "not hot"));
        }
    }
}

static void step(struct hw_defer *d)
{
    struct hw_cluster *c = hw_container_of(d, struct hw_cluster, step);
    struct hw_consensus_view view;
    unsigned waiting;
    if (c->ops->hot(c->ctx) == NULL) {
        return;
    }
    expire(c);
    waiting = c->waiting;
    switchover_step(c);
    hw_consensus_view(c->consensus, &view);
    if (!c->ops->is_hot(c->ctx) || c->is_changing || c->is_proposing || view.is_changing || c->switchover != NULL) {
        return;
    }
    if (view.lost_tail_id != 0) {
        mend_tail(c, view.lost_tail_id);
    } else if (!TAILQ_EMPTY(&c->joins)) {
        join_step(c, TAILQ_FIRST(&c->joins));
    } else if (!TAILQ_EMPTY(&c->leaves)) {
        leave_step(c, TAILQ_FIRST(&c->leaves));
    } else {
        roles_step(c);
    }
    if (c->waiting > 0 && c->waiting < waiting) {
        hw_defer_post(c->loop, d); /* one is done: the next; a refused change waits for the timer */
    }
}

static void on_timer(void *ctx)
{
    hw_cluster_poke(ctx);
}

void hw_cluster_poke(struct hw_cluster *c)
{
    hw_defer_post(c->loop, &c->step);
}

int hw_cluster_join(struct hw_cluster *c, struct hw_join *j)
{
    if (!c->ops->is_hot(c->ctx)) {
        return hw_error_set(&j->e, HW_ERR_NOTHOT, "this node is not hot");
    }
    if (c->waiting >= QUEUE_MAX) {
        return hw_error_set(&j->e, HW_ERR_EXHAUSTED, "%u changes of membership wait already", c->waiting);
    }
    if (j->node.id == 0 || j->node.name[0] == '\0' || j->node.peer_address[0] == '\0') {
        return hw_error_set(&j->e, HW_ERR_INVALID, "a node needs an id, a name and a peer address");
    }
    c->waiting++;
    j->deadline_ms = hw_loop_now_ms(c->loop) + c->config.change_timeout_ms;
    TAILQ_INSERT_TAIL(&c->joins, j, link);
    hw_cluster_poke(c);
    return 0;
}

int hw_cluster_leave(struct hw_cluster *c, struct hw_leave *l)
{
    if (!c->ops->is_hot(c->ctx)) {
        return hw_error_set(&l->e, HW_ERR_NOTHOT, "this node is not hot");
    }
    if (c->waiting >= QUEUE_MAX) {
        return hw_error_set(&l->e, HW_ERR_EXHAUSTED, "%u changes of membership wait already", c->waiting);
    }
    if (hw_hot_node_by_name(c->ops->hot(c->ctx), l->name) == NULL) {
        return hw_error_set(&l->e, HW_ERR_NOTFOUND, "no node is called '%s': see hwctl node list", l->name);
    }
    c->waiting++;
    l->deadline_ms = hw_loop_now_ms(c->loop) + c->config.change_timeout_ms;
    TAILQ_INSERT_TAIL(&c->leaves, l, link);
    hw_cluster_poke(c);
    return 0;
}

int hw_cluster_new(struct hw_loop *loop, const struct hw_cluster_config *config, struct hw_consensus *consensus,
                   const struct hw_cluster_ops *ops, void *ctx, struct hw_cluster **cluster)
{
    struct hw_cluster *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return HW_ERR_NOMEM;
    }
    c->loop = loop;
    c->config = *config;
    c->config.lag_max = config->lag_max != 0 ? config->lag_max : 1000;
    c->config.change_timeout_ms = config->change_timeout_ms != 0 ? config->change_timeout_ms : 30000;
    c->consensus = consensus;
    c->ops = ops;
    c->ctx = ctx;
    TAILQ_INIT(&c->joins);
    TAILQ_INIT(&c->leaves);
    hw_defer_init(&c->step, step);
    c->timer = hw_timer_new(loop, "cluster", on_timer, c);
    hw_timer_start(c->timer, TICK_MS, TICK_MS);
    *cluster = c;
    return 0;
}

void hw_cluster_free(struct hw_cluster *c)
{
    struct hw_join *j;
    struct hw_leave *l;
    if (c == NULL) {
        return;
    }
    hw_timer_free(c->timer);
    hw_defer_cancel(c->loop, &c->step);
    while ((j = TAILQ_FIRST(&c->joins)) != NULL) {
        join_end(c, j, HW_ERR_CANCELLED);
    }
    while ((l = TAILQ_FIRST(&c->leaves)) != NULL) {
        leave_end(c, l, HW_ERR_CANCELLED);
    }
    if (c->switchover != NULL && c->switchover->is_transferring) {
        c->switchover->cluster = NULL; /* libraft still holds the change; its completion ends the request */
        c->switchover = NULL;
    } else if (c->switchover != NULL) {
        switchover_end(c, HW_ERR_CANCELLED);
    }
    c->is_closed = true;
    if (!c->is_changing && !c->is_proposing) {
        free(c); /* else the completion frees it */
    }
}
