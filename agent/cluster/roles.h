/* Who should vote: a pure function from facts to one next step. Values in, decision out; a driver performs it and asks
 * again. Every step can be repeated after a crash halfway.
 *
 * Rules, first match wins:
 *  1. nothing while a change is under way, or while this node is not hot;
 *  2. a reachable spare becomes standby, so that it receives the log;
 *  3. a reachable, caught-up standby becomes voter while there are fewer voters than wanted, but never so that the
 *     quorum would stay even on purpose: from an odd count only when two candidates are ready (or the count is 0).
 */
#ifndef HW_CLUSTER_ROLES_H
#define HW_CLUSTER_ROLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/consensus/consensus.h"

struct hw_role_fact {
    uint64_t id;
    enum hw_role role;
    bool is_reachable;
    uint64_t lag; /* entries behind the leader's log; UINT64_MAX: unknown */
};

struct hw_role_facts {
    bool is_hot;      /* the deciding node is hot */
    bool is_changing; /* a change of membership or leadership is under way */
    unsigned voters_wanted;
    uint64_t lag_max; /* a standby with at most this lag is caught up */
    struct hw_role_fact members[HW_MEMBERS_MAX];
    size_t member_count;
};

enum hw_role_action { HW_ROLE_KEEP, HW_ROLE_ASSIGN };
struct hw_role_decision {
    enum hw_role_action action;
    uint64_t id;
    enum hw_role role;
    const char *rule; /* a constant sentence: why */
};

struct hw_role_decision hw_roles_decide(const struct hw_role_facts *facts);

#endif
