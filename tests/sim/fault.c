/* What goes wrong, and when. Nothing here breaks a promise that the design makes: a disk is lost only while all others
 * are whole, so that what a majority has acknowledged is still somewhere. */
#include "tests/sim/sim.h"

#define DOWN_MS_MAX 3000

static void cut(struct sim *s, unsigned a, unsigned b, bool both)
{
    s->links[a][b].is_cut = true;
    if (both) {
        s->links[b][a].is_cut = true;
    }
}

static void partition(struct sim *s)
{
    unsigned side = (unsigned)sim_between(s, 1, (1u << s->server_count) - 2);
    s->stats.partitions++;
    for (unsigned a = 0; a < s->server_count; a++) {
        for (unsigned b = 0; b < s->server_count; b++) {
            if (((side >> a) & 1) != ((side >> b) & 1)) {
                cut(s, a, b, false);
            }
        }
    }
}

static void one_link(struct sim *s)
{
    unsigned a = (unsigned)sim_below(s, s->server_count);
    unsigned b = (a + 1 + (unsigned)sim_below(s, s->server_count - 1)) % s->server_count;
    if (sim_chance(s, 50)) {
        s->stats.one_way++;
        cut(s, a, b, false);
    } else {
        s->stats.stalls++;
        net_stall(s, a, b, true);
    }
}

/* All links of one server, in one direction: it hears and is not heard, or the other way round. */
static void half_deaf(struct sim *s)
{
    unsigned a = (unsigned)sim_below(s, s->server_count);
    bool hears = sim_chance(s, 50);
    bool stalls = sim_chance(s, 30);
    for (unsigned b = 0; b < s->server_count; b++) {
        unsigned from = hears ? a : b;
        unsigned to = hears ? b : a;
        if (b == a) {
            continue;
        }
        if (stalls) {
            net_stall(s, from, to, true);
        } else {
            cut(s, from, to, false);
        }
    }
    s->stats.one_way += !stalls;
    s->stats.stalls += stalls;
}

/* ---- servers ---- */

static void on_start(struct sim *s, struct sim_event *e)
{
    for (unsigned i = 0; i < s->server_count; i++) {
        struct server *v = &s->servers[i];
        if (&v->start_event == e && !v->is_up) {
            s->stats.restarts++;
            server_start(v);
        }
    }
}

static void crash(struct sim *s, struct server *v)
{
    if (!v->is_up) {
        return;
    }
    server_crash(v, "crash");
    sim_after(s, &v->start_event, sim_between(s, 1, DOWN_MS_MAX), v->at, "restart", on_start);
}

static struct server *leader(struct sim *s)
{
    for (unsigned i = 0; i < s->server_count; i++) {
        if (server_is_leader(&s->servers[i])) {
            return &s->servers[i];
        }
    }
    return NULL;
}

static struct server *anybody(struct sim *s)
{
    return &s->servers[sim_below(s, s->server_count)];
}

/* The kernel of a dead leader closes its connections, and the others hear it. */
static void crash_leader(struct sim *s)
{
    struct server *v = leader(s);
    if (v == NULL) {
        return;
    }
    crash(s, v);
    for (unsigned i = 0; i < s->server_count; i++) {
        struct server *other = &s->servers[i];
        if (other->is_up && net_is_connected(s, v->at, i) && sim_chance(s, 80)) {
            s->stats.suspicions++;
            hw_consensus_suspect_leader(other->consensus, 20);
            server_turn(other);
        }
    }
}

static void false_alarm(struct sim *s)
{
    struct server *v = anybody(s);
    if (v->is_up) {
        s->stats.suspicions++;
        hw_consensus_suspect_leader(v->consensus, 20);
        server_turn(v);
    }
}

/* Between the loss of a disk and the vote of its successor no other may be lost: the hot node knows who votes. */
bool fault_is_replacing(const struct sim *s)
{
    for (unsigned i = 0; i < s->server_count; i++) {
        const struct server *v = &s->servers[i];
        struct hw_member members[HW_MEMBERS_MAX];
        struct hw_consensus_view view;
        size_t count;
        unsigned voters = 0;
        bool is_whole = true;
        if (!server_is_hot(v)) {
            continue;
        }
        hw_consensus_view(v->consensus, &view);
        count = hw_consensus_members(v->consensus, members, HW_MEMBERS_MAX);
        for (size_t k = 0; k < count; k++) {
            voters += members[k].role == HW_ROLE_VOTER;
            is_whole &= server_of_id((struct sim *)s, members[k].id) != NULL;
        }
        if (is_whole && count == s->server_count && voters == s->voters_wanted && !view.is_changing &&
            view.config_index <= view.commit_index && view.last_index - view.commit_index < 100) {
            return false;
        }
    }
    return true;
}

static void wipe(struct sim *s)
{
    struct server *v = anybody(s);
    unsigned connected = 0;
    for (unsigned i = 0; i < s->server_count; i++) {
        connected += s->servers[i].is_up && net_is_connected(s, leader(s) != NULL ? leader(s)->at : 0, i);
    }
    if (fault_is_replacing(s) || connected < s->server_count || leader(s) == NULL) {
        return;
    }
    server_crash(v, "disk lost");
    server_wipe(v);
    sim_after(s, &v->start_event, sim_between(s, 1, DOWN_MS_MAX), v->at, "restart", on_start);
}

/* ---- the schedule ---- */

static void slow_disk(struct sim *s)
{
    struct server *v = anybody(s);
    s->stats.slow_disks++;
    v->disk.latency_ms = sim_between(s, 50, 600);
    s->image_latency_ms = sim_between(s, 100, 2000);
}

static void bad_disk(struct sim *s)
{
    struct server *v = anybody(s);
    switch (sim_below(s, 4)) {
    case 0:
        v->disk.fails_append = v->is_up;
        break;
    case 1:
        v->disk.fails_puts = 2;
        break;
    case 2:
        v->checkpoint.is_failing = v->is_up;
        break;
    default:
        for (unsigned i = 0; i < s->server_count; i++) {
            s->servers[i].io.capacity = s->servers[i].is_up && sim_chance(s, 70) ? 10 : UINT16_MAX;
        }
    }
}

static void quiet(struct sim *s)
{
    net_heal(s);
    s->loss_percent = 0;
    s->latency_ms = 3;
    s->image_latency_ms = 50;
    for (unsigned i = 0; i < s->server_count; i++) {
        s->servers[i].disk.latency_ms = 3;
        s->servers[i].checkpoint.is_failing = false;
        s->servers[i].io.capacity = UINT16_MAX;
    }
}

static void go_wrong(struct sim *s)
{
    struct server *v;
    switch (sim_below(s, 16)) {
    case 0:
    case 1:
        partition(s);
        break;
    case 2:
        one_link(s);
        break;
    case 3:
        half_deaf(s);
        break;
    case 4:
        crash(s, anybody(s));
        break;
    case 5:
    case 6:
        crash_leader(s);
        break;
    case 7:
        for (unsigned i = 0; i < s->server_count; i++) {
            crash(s, &s->servers[i]);
        }
        break;
    case 8:
        v = leader(s);
        if (v != NULL) {
            server_transfer(v);
        }
        break;
    case 9:
        false_alarm(s);
        break;
    case 10:
        s->loss_percent = (unsigned)sim_between(s, 1, 30);
        s->latency_ms = sim_between(s, 1, 120);
        break;
    case 11:
        slow_disk(s);
        break;
    case 12:
        bad_disk(s);
        break;
    case 13:
        wipe(s);
        break;
    default:
        quiet(s);
    }
}

static void on_fault(struct sim *s, struct sim_event *e)
{
    if (s->is_healing) {
        return;
    }
    go_wrong(s);
    sim_after(s, e, sim_between(s, 20, 1200), SIM_NOBODY, "fault", on_fault);
}

/* What a supervisor does. */
void fault_restart(struct server *v)
{
    sim_after(v->sim, &v->start_event, 1, v->at, "restart", on_start);
}

void fault_start(struct sim *s)
{
    quiet(s);
    sim_after(s, &s->fault, sim_between(s, 500, 2000), SIM_NOBODY, "fault", on_fault);
}

void fault_heal(struct sim *s)
{
    sim_cancel(s, &s->fault);
    quiet(s);
    for (unsigned i = 0; i < s->server_count; i++) {
        struct server *v = &s->servers[i];
        v->disk.fails_append = false;
        v->disk.fails_puts = 0;
        if (!v->is_up) {
            fault_restart(v);
        }
    }
}
