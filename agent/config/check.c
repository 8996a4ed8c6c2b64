/* The checks of the whole: what no single key can tell. Each names both sides and the arithmetic between them. A check
 * whose keys have problems of their own is left out: it would only repeat them in other words. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/base/assert.h"
#include "agent/config/load.h"
#include "agent/config/value.h"

const char *const hw_config_check_texts[] = {
    "`raft.election_ms` is at least three times `raft.heartbeat_ms`: one lost heartbeat must not start an election.",
    "`raft.election_ms` 150 with `raft.heartbeat_ms` 15 is refused: the consensus library takes this very pair for a "
    "test's and silently triples both.",
    "`raft.tick_ms` is at most `raft.heartbeat_ms`: heartbeats cannot leave more often than timers are looked at.",
    "`cluster.initial` and `cluster.join` exclude each other: a node forms a cluster or joins one.",
    "`cluster.initial`, when given, has this node (`node.name`) with its own address (`advertise.peer`).",
    "Names and addresses of `cluster.initial`, and addresses of `cluster.join`, occur once; a node does not join "
    "itself.",
    "`cluster.voters` is odd: an even number survives no more losses than the odd number below it.",
    "`listen.client` and `listen.peer` do not collide, and are loopback addresses unless `insecure` is true.",
    "`advertise.client` and `advertise.peer` are addresses that can be connected to: not 0.0.0.0 and not ::.",
    "`compaction.mode` is periodic, revision or off; revision has `compaction.retention_revisions` above 0.",
    "`limits.proposal_bytes_max` is at least `limits.request_bytes_max`: the largest request must fit into the queue.",
};
const size_t hw_config_check_count = hw_array_len(hw_config_check_texts);

static bool is_good(struct hw_config_loading *l, const char *key)
{
    return !hw_config_origin(l, hw_config_find(key))->is_bad;
}

/* A problem at the place where the key was set: environment, line of the file, or neither for a default. */
__attribute__((format(printf, 3, 4))) static void at_key(struct hw_config_loading *l, const char *key, const char *fmt,
                                                         ...)
{
    const struct hw_config_row *row = hw_config_find(key);
    const struct hw_config_origin *origin = hw_config_origin(l, row);
    char sentence[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    if (origin->is_env) {
        char variable[HW_CONFIG_ENV_MAX];
        hw_config_report_env(&l->report, hw_config_env_name(row, variable), key, "%s", sentence);
    } else {
        hw_config_report_at(&l->report, origin->line, key, "%s", sentence);
    }
}

/* The one of two keys that somebody set: a default is not to blame. */
static const char *set_one(struct hw_config_loading *l, const char *key, const char *other)
{
    const struct hw_config_origin *a = hw_config_origin(l, hw_config_find(key));
    const struct hw_config_origin *b = hw_config_origin(l, hw_config_find(other));
    bool is_a_set = a->is_env || a->line > 0;
    bool is_b_set = b->is_env || b->line > 0;
    return !is_a_set && is_b_set ? other : key;
}

static void check_raft(struct hw_config_loading *l)
{
    uint64_t heartbeat = l->c->raft.heartbeat_ms;
    uint64_t election = l->c->raft.election_ms;
    uint64_t tick = l->c->raft.tick_ms;
    if (is_good(l, "raft.election_ms") && is_good(l, "raft.heartbeat_ms")) {
        if (election < 3 * heartbeat) {
            at_key(l, set_one(l, "raft.election_ms", "raft.heartbeat_ms"),
                   "election_ms %" PRIu64 " is below 3 x heartbeat_ms (3 x %" PRIu64 " = %" PRIu64
                   "); raise election_ms "
                   "to %" PRIu64 " or lower heartbeat_ms to %" PRIu64,
                   election, heartbeat, 3 * heartbeat, 3 * heartbeat, election / 3);
        }
        if (election == 150 && heartbeat == 15) {
            at_key(
                l, "raft.election_ms",
                "150 with heartbeat_ms 15 is a pair that the consensus library silently triples (to 3 x 150 = 450 and "
                "3 x 15 = 45); choose 151 or another number");
        }
    }
    if (is_good(l, "raft.tick_ms") && is_good(l, "raft.heartbeat_ms") && tick > heartbeat) {
        at_key(l, set_one(l, "raft.tick_ms", "raft.heartbeat_ms"),
               "tick_ms %" PRIu64 " is above heartbeat_ms %" PRIu64 ": a heartbeat would leave only every %" PRIu64
               " ms; lower tick_ms to %" PRIu64 " or less",
               tick, heartbeat, tick, heartbeat);
    }
}

static void check_initial_items(struct hw_config_loading *l)
{
    const struct hw_config *c = l->c;
    for (size_t i = 1; i < c->members.initial_count; i++) {
        const struct hw_config_peer *peer = &c->members.initial[i];
        char key[HW_CONFIG_KEY_MAX];
        bool is_name_said = false;
        bool is_peer_said = false;
        for (size_t j = 0; j < i; j++) {
            const struct hw_config_peer *other = &c->members.initial[j];
            if (!is_name_said && strcmp(peer->name, other->name) == 0) {
                snprintf(key, sizeof key, "cluster.initial[%zu].name", i);
                hw_config_report_at(&l->report, l->initial_lines[i], key,
                                    "\"%s\" is also the name in line %d; every node has its own", peer->name,
                                    l->initial_lines[j]);
                is_name_said = true;
            }
            if (!is_peer_said && strcasecmp(peer->peer, other->peer) == 0) {
                snprintf(key, sizeof key, "cluster.initial[%zu].peer", i);
                hw_config_report_at(&l->report, l->initial_lines[i], key,
                                    "\"%s\" is also the address in line %d; every node has its own", peer->peer,
                                    l->initial_lines[j]);
                is_peer_said = true;
            }
        }
    }
}

static void check_self_in_initial(struct hw_config_loading *l)
{
    const struct hw_config *c = l->c;
    for (size_t i = 0; i < c->members.initial_count; i++) {
        const struct hw_config_peer *peer = &c->members.initial[i];
        if (strcmp(peer->name, c->node.name) != 0) {
            continue;
        }
        if (is_good(l, "advertise.peer") && strcasecmp(peer->peer, c->advertise.peer) != 0) {
            char key[HW_CONFIG_KEY_MAX];
            snprintf(key, sizeof key, "cluster.initial[%zu].peer", i);
            hw_config_report_at(&l->report, l->initial_lines[i], key,
                                "\"%.100s\" is not advertise.peer of this node, \"%.100s\"; make them equal",
                                peer->peer, c->advertise.peer);
        }
        return;
    }
    at_key(l, "node.name",
           "\"%s\" is not among the %zu names of cluster.initial; add this node there, or name it "
           "as it is there",
           c->node.name, c->members.initial_count);
}

static void check_join(struct hw_config_loading *l)
{
    const struct hw_config *c = l->c;
    for (size_t i = 0; i < c->members.join_count; i++) {
        char key[HW_CONFIG_KEY_MAX];
        snprintf(key, sizeof key, "cluster.join[%zu]", i);
        for (size_t j = 0; j < i; j++) {
            if (strcasecmp(c->members.join[i], c->members.join[j]) == 0) {
                hw_config_report_at(&l->report, l->join_lines[i], key, "\"%s\" is also the address in line %d",
                                    c->members.join[i], l->join_lines[j]);
                break;
            }
        }
        if (is_good(l, "advertise.peer") && strcasecmp(c->members.join[i], c->advertise.peer) == 0) {
            hw_config_report_at(&l->report, l->join_lines[i], key,
                                "\"%s\" is this node itself (advertise.peer); name the nodes that are there already",
                                c->members.join[i]);
        }
    }
}

static void check_members(struct hw_config_loading *l)
{
    const struct hw_config *c = l->c;
    uint64_t voters = c->members.voters;
    if (c->members.initial_count > 0 && c->members.join_count > 0) {
        at_key(l, "cluster.join",
               "given together with cluster.initial (line %d); a node either forms a new cluster or joins an existing "
               "one: "
               "keep one of them",
               hw_config_origin(l, hw_config_find("cluster.initial"))->line);
    }
    if (is_good(l, "cluster.initial") && c->members.initial_count > 0) {
        check_initial_items(l);
        if (is_good(l, "node.name")) {
            check_self_in_initial(l);
        }
    }
    if (is_good(l, "cluster.join")) {
        check_join(l);
    }
    if (is_good(l, "cluster.voters") && voters % 2 == 0) {
        at_key(l, "cluster.voters",
               "%" PRIu64 " is even: %" PRIu64 " voters survive the loss of %" PRIu64 ", as %" PRIu64
               " do; choose %" PRIu64 " or %" PRIu64,
               voters, voters, (voters - 1) / 2, voters - 1, voters - 1, voters + 1);
    }
}

static void check_listen_address(struct hw_config_loading *l, const char *key, const char *text)
{
    struct hw_config_address a;
    char why[HW_CONFIG_WHY_MAX];
    if (!is_good(l, key) || !is_good(l, "insecure") || l->c->insecure || hw_config_split(text, &a, why) != 0) {
        return;
    }
    if (!hw_config_is_loopback(a.host)) {
        at_key(l, key,
               "\"%s\" can be reached from other machines, without encryption; listen on 127.0.0.1, or accept it with "
               "insecure: true",
               text);
    }
}

static void check_listen_pair(struct hw_config_loading *l)
{
    struct hw_config_address client;
    struct hw_config_address peer;
    char why[HW_CONFIG_WHY_MAX];
    if (!is_good(l, "listen.client") || !is_good(l, "listen.peer") ||
        hw_config_split(l->c->listen.client, &client, why) != 0 ||
        hw_config_split(l->c->listen.peer, &peer, why) != 0) {
        return;
    }
    if (client.port == peer.port && (strcasecmp(client.host, peer.host) == 0 || hw_config_is_wildcard(client.host) ||
                                     hw_config_is_wildcard(peer.host))) {
        at_key(l, set_one(l, "listen.peer", "listen.client"),
               "listen.client \"%.100s\" and listen.peer \"%.100s\" collide on port %u; give each its own port",
               l->c->listen.client, l->c->listen.peer, peer.port);
    }
}

static void check_advertise_address(struct hw_config_loading *l, const char *key, const char *text)
{
    struct hw_config_address a;
    char why[HW_CONFIG_WHY_MAX];
    if (is_good(l, key) && hw_config_split(text, &a, why) == 0 && hw_config_is_wildcard(a.host)) {
        at_key(l, key, "\"%s\" means any address and cannot be connected to; set it to the one that others use", text);
    }
}

static void check_limits(struct hw_config_loading *l)
{
    uint64_t request = l->c->limits.request_bytes_max;
    uint64_t queue = l->c->limits.proposal_bytes_max;
    if (is_good(l, "limits.request_bytes_max") && is_good(l, "limits.proposal_bytes_max") && queue < request) {
        at_key(l, set_one(l, "limits.proposal_bytes_max", "limits.request_bytes_max"),
               "proposal_bytes_max %" PRIu64 " is below request_bytes_max %" PRIu64 " by %" PRIu64
               ": the largest request could never be written",
               queue, request, request - queue);
    }
}

static void check_compaction(struct hw_config_loading *l)
{
    const char *mode = l->c->compaction.mode;
    if (!is_good(l, "compaction.mode")) {
        return;
    }
    if (strcmp(mode, "periodic") != 0 && strcmp(mode, "revision") != 0 && strcmp(mode, "off") != 0) {
        at_key(l, "compaction.mode", "\"%.60s\" is none of the modes periodic, revision and off", mode);
    } else if (strcmp(mode, "revision") == 0 && is_good(l, "compaction.retention_revisions") &&
               l->c->compaction.retention_revisions == 0) {
        at_key(l, set_one(l, "compaction.retention_revisions", "compaction.mode"),
               "0 with mode revision would never compact; give the number of revisions to keep, or choose mode off");
    }
}

void hw_config_check(struct hw_config_loading *l)
{
    check_raft(l);
    check_members(l);
    check_listen_address(l, "listen.client", l->c->listen.client);
    check_listen_address(l, "listen.peer", l->c->listen.peer);
    check_listen_pair(l);
    check_advertise_address(l, "advertise.client", l->c->advertise.client);
    check_advertise_address(l, "advertise.peer", l->c->advertise.peer);
    check_compaction(l);
    check_limits(l);
}
