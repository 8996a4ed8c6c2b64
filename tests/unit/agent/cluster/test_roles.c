#include "agent/cluster/roles.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"
#include "tests/unit/hw_test.h"

#define LAG_MAX 10
#define MEMBERS 4
/* One member: role (voter, standby, spare) x reachable x lag. */
#define KINDS 24

static const uint64_t lags[] = {0, LAG_MAX, LAG_MAX + 1, UINT64_MAX};

static struct hw_role_fact fact_of_kind(uint64_t id, unsigned kind)
{
    static const enum hw_role roles[] = {HW_ROLE_VOTER, HW_ROLE_STANDBY, HW_ROLE_SPARE};
    return (struct hw_role_fact){
        .id = id, .role = roles[kind % 3], .is_reachable = kind / 3 % 2, .lag = lags[kind / 6]};
}

static struct hw_role_fact *find(struct hw_role_facts *f, uint64_t id)
{
    for (size_t i = 0; i < f->member_count; i++) {
        if (f->members[i].id == id) {
            return &f->members[i];
        }
    }
    return NULL;
}

static bool is_candidate(const struct hw_role_fact *m)
{
    return m->role == HW_ROLE_STANDBY && m->is_reachable && m->lag <= LAG_MAX;
}

struct counts {
    unsigned voters;
    unsigned candidates;
    unsigned spares; /* reachable */
};

static struct counts count(const struct hw_role_facts *f)
{
    struct counts c = {0};
    for (size_t i = 0; i < f->member_count; i++) {
        c.voters += f->members[i].role == HW_ROLE_VOTER;
        c.candidates += is_candidate(&f->members[i]);
        c.spares += f->members[i].role == HW_ROLE_SPARE && f->members[i].is_reachable;
    }
    return c;
}

/* What is wrong with a decision; NULL when nothing is. */
static const char *wrong(struct hw_role_facts *f, const struct hw_role_decision *d)
{
    struct counts c = count(f);
    struct hw_role_fact *m = d->action == HW_ROLE_ASSIGN ? find(f, d->id) : NULL;
    bool may_promote = c.voters < f->voters_wanted && c.candidates > 0 && (c.voters % 2 == 0 || c.candidates >= 2);
    if (d->rule == NULL || d->rule[0] == '\0') {
        return "no rule";
    }
    if (!f->is_hot || f->is_changing) {
        return d->action == HW_ROLE_KEEP ? NULL : "decided while not hot, or during a change";
    }
    if (d->action == HW_ROLE_KEEP) {
        return c.spares > 0 || may_promote ? "kept where a step was due" : NULL;
    }
    if (m == NULL) {
        return "decided on a stranger";
    }
    if (c.spares > 0) {
        return m->role == HW_ROLE_SPARE && m->is_reachable && d->role == HW_ROLE_STANDBY ? NULL : "spares come first";
    }
    if (d->role != HW_ROLE_VOTER || !is_candidate(m)) {
        return "only a reachable standby that has caught up becomes voter";
    }
    return may_promote ? NULL : "one voter too many, or an even quorum on purpose";
}

/* Perform decisions until there are none. Returns the steps, or -1 when it does not end. */
static int converge(struct hw_role_facts *f, bool *has_promoted)
{
    for (int steps = 0; steps <= 2 * MEMBERS; steps++) {
        struct hw_role_decision d = hw_roles_decide(f);
        struct hw_role_fact *m;
        if (d.action == HW_ROLE_KEEP) {
            return steps;
        }
        m = find(f, d.id);
        if (m == NULL || m->role == d.role) {
            return -1;
        }
        m->role = d.role;
        *has_promoted |= d.role == HW_ROLE_VOTER;
    }
    return -1;
}

static void judge(struct hw_role_facts *f, unsigned long *failures)
{
    struct hw_role_decision d = hw_roles_decide(f);
    const char *problem = wrong(f, &d);
    struct counts before = count(f);
    struct counts after;
    bool has_promoted = false;
    if (problem == NULL && f->is_hot && !f->is_changing) {
        int steps = converge(f, &has_promoted);
        after = count(f);
        problem = steps < 0                                                         ? "it does not converge"
                  : after.voters > before.voters && after.voters > f->voters_wanted ? "more voters than wanted"
                  : has_promoted && after.voters % 2 == 0                           ? "it settles on an even quorum"
                  : after.spares > 0                                                ? "a reachable spare is left"
                                                                                    : NULL;
    }
    if (problem != NULL && (*failures)++ < 5) {
        printf("  %s\n", problem);
    }
}

static void every_small_cluster_is_decided_by_the_rules(void)
{
    static const unsigned wanted[] = {1, 3, 5};
    unsigned long failures = 0;
    unsigned long cases = 0;
    for (unsigned n = 0; n <= MEMBERS; n++) {
        unsigned combinations = 1;
        for (unsigned i = 0; i < n; i++) {
            combinations *= KINDS;
        }
        for (unsigned c = 0; c < combinations; c++) {
            for (unsigned k = 0; k < hw_array_len(wanted) * 4; k++) {
                static struct hw_role_facts f;
                f.is_hot = k & 1;
                f.is_changing = k & 2;
                f.voters_wanted = wanted[k / 4];
                f.lag_max = LAG_MAX;
                f.member_count = n;
                for (unsigned i = 0, rest = c; i < n; i++, rest /= KINDS) {
                    f.members[i] = fact_of_kind(100 + i, rest % KINDS);
                }
                judge(&f, &failures);
                cases++;
            }
        }
    }
    CHECK_EQ(failures, 0);
    CHECK(cases > 4000000);
}

/* "v+0 s-5": role (v voter, s standby, p spare), reachable or not, lag; the ids are 1, 2, ... */
static struct hw_role_facts parse(const char *text, unsigned voters_wanted)
{
    struct hw_role_facts f = {.is_hot = true, .voters_wanted = voters_wanted, .lag_max = LAG_MAX};
    char role;
    char reach;
    unsigned lag;
    int n;
    for (; sscanf(text, " %c%c%u%n", &role, &reach, &lag, &n) == 3; text += n) {
        struct hw_role_fact *m = &f.members[f.member_count++];
        *m = (struct hw_role_fact){.id = f.member_count, .is_reachable = reach == '+', .lag = lag};
        m->role = role == 'v' ? HW_ROLE_VOTER : role == 's' ? HW_ROLE_STANDBY : HW_ROLE_SPARE;
    }
    return f;
}

static void golden_scenarios(void)
{
    static const struct {
        const char *members;
        unsigned wanted;
        uint64_t id; /* 0: keep */
        enum hw_role role;
    } table[] = {
        {"v+0", 3, 0, 0},                       /* a cluster of one */
        {"v+0 p+0", 3, 2, HW_ROLE_STANDBY},     /* a node was let in */
        {"v+0 p-0", 3, 0, 0},                   /* and is away */
        {"v+0 s+0", 3, 0, 0},                   /* two voters would be worse than one */
        {"v+0 s+0 p+0", 3, 3, HW_ROLE_STANDBY}, /* the second one arrives */
        {"v+0 s+3 s+1", 3, 3, HW_ROLE_VOTER},   /* both are ready: the one nearer to the log first */
        {"v+0 s+2 s+2", 3, 2, HW_ROLE_VOTER},   /* equally near: the lower id */
        {"v+0 s+11 s+1", 3, 0, 0},              /* one has not caught up */
        {"v+0 s-0 s+1", 3, 0, 0},               /* one is away */
        {"v+0 v+0 s+1", 3, 3, HW_ROLE_VOTER},   /* half-way: the third */
        {"v+0 v-0 s+1", 3, 3, HW_ROLE_VOTER},   /* after a removal with one of two away */
        {"v+0 v+0 v-0 s+0", 3, 0, 0},           /* a dead voter is removed first, not outvoted */
        {"v+0 v+0 v+0 s+0 s+0", 3, 0, 0},       /* enough */
        {"v+0 v+0 v+0 s+0 s+0", 5, 4, HW_ROLE_VOTER},
        {"v+0 v+0 v+0 s+0", 5, 0, 0}, /* four are no better than three */
        {"v+0 v+0 v+0 v+0 s+10", 5, 5, HW_ROLE_VOTER},
        {"v+0 v+0 v+0", 1, 0, 0}, /* nobody loses the vote */
        {"s+0", 3, 1, HW_ROLE_VOTER},
        {"", 3, 0, 0},
    };
    for (size_t i = 0; i < hw_array_len(table); i++) {
        struct hw_role_facts f = parse(table[i].members, table[i].wanted);
        struct hw_role_decision d = hw_roles_decide(&f);
        bool is_as_told = table[i].id == 0
                              ? d.action == HW_ROLE_KEEP
                              : d.action == HW_ROLE_ASSIGN && d.id == table[i].id && d.role == table[i].role;
        if (!is_as_told) {
            printf("  '%s' wanted %u: %s %llu: %s\n", table[i].members, table[i].wanted,
                   d.action == HW_ROLE_KEEP ? "keep" : hw_role_name(d.role), (unsigned long long)d.id, d.rule);
        }
        CHECK(is_as_told);
    }
}

static void the_order_of_members_does_not_matter(void)
{
    struct hw_role_facts f = parse("v+0 s+3 s+1 s+1 s+0", 5);
    struct hw_role_decision first;
    f.members[4].id = 77;
    first = hw_roles_decide(&f);
    for (size_t i = 1; i < f.member_count; i++) {
        struct hw_role_fact moved = f.members[0];
        memmove(&f.members[0], &f.members[1], (f.member_count - 1) * sizeof moved);
        f.members[f.member_count - 1] = moved;
        CHECK_EQ(hw_roles_decide(&f).id, first.id);
    }
    CHECK_EQ(first.id, 77);
}

HW_SUITE(cluster_roles, HW_CASE(every_small_cluster_is_decided_by_the_rules), HW_CASE(golden_scenarios),
         HW_CASE(the_order_of_members_does_not_matter))
