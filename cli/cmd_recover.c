/* recover: a quorum that is lost for good. Every endpoint is asked for itself; the plan is made here, from what they
 * say, and shown before anything is done. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "cli/call.h"
#include "cli/output.h"
#include "cli/run.h"
#include "proto/hotwarm.pb-c.h"

#define POLL_MS 200

static const struct hw_ctl_method plan_method = {.path = "/hotwarm.v1.Admin/RecoverPlan",
                                                 .response = &hotwarm__v1__recover_plan_response__descriptor};
static const struct hw_ctl_method apply_method = {.path = "/hotwarm.v1.Admin/RecoverApply",
                                                  .response = &hotwarm__v1__recover_apply_response__descriptor,
                                                  .is_write = true};

struct row {
    Hotwarm__V1__RecoverPlanResponse *m; /* NULL: no answer */
    struct hw_error e;
};

struct plan {
    struct row rows[HW_CTL_ENDPOINTS_MAX];
    unsigned count;
    int survivor;    /* row; -1: none */
    const char *hot; /* somebody knows a hot node; NULL: nobody does */
};

static void plan_free(struct plan *p)
{
    for (unsigned i = 0; i < p->count; i++) {
        if (p->rows[i].m != NULL) {
            protobuf_c_message_free_unpacked(&p->rows[i].m->base, NULL);
        }
    }
    free(p);
}

static bool is_voter(const Hotwarm__V1__RecoverPlanResponse *m)
{
    return m != NULL && m->cluster_id != 0 && strcmp(m->role, "voter") == 0;
}

/* Raft's own rule of who is up to date (Raft paper 5.4.1); of an older recovery nothing may survive. */
static bool is_ahead(const Hotwarm__V1__RecoverPlanResponse *a, const Hotwarm__V1__RecoverPlanResponse *b)
{
    if (a->recovery != b->recovery) {
        return a->recovery > b->recovery;
    }
    return a->last_term != b->last_term ? a->last_term > b->last_term : a->last_index > b->last_index;
}

static int make_plan(struct hw_ctl *ctl, struct plan **out, struct hw_error *e)
{
    Hotwarm__V1__RecoverPlanRequest q = HOTWARM__V1__RECOVER_PLAN_REQUEST__INIT;
    struct plan *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "out of memory");
    }
    p->survivor = -1;
    p->count = ctl->endpoint_count;
    for (unsigned i = 0; i < p->count && !ctl->is_interrupted; i++) {
        struct row *r = &p->rows[i];
        ProtobufCMessage *answer;
        if (hw_ctl_unary_at(ctl, i, &plan_method, &q.base, &answer, &r->e) == 0) {
            r->m = (Hotwarm__V1__RecoverPlanResponse *)answer;
        }
        if (is_voter(r->m) && (p->survivor < 0 || is_ahead(r->m, p->rows[p->survivor].m))) {
            p->survivor = (int)i;
        }
        if (r->m != NULL && *r->m->hot_node != '\0') {
            p->hot = r->m->hot_node;
        }
    }
    if (ctl->is_interrupted) {
        plan_free(p);
        return hw_error_set(e, HW_ERR_CANCELLED, "interrupted");
    }
    *out = p;
    return 0;
}

static bool has_answered(const struct plan *p, const Hotwarm__V1__RecoverMember *member)
{
    for (unsigned i = 0; i < p->count; i++) {
        if (p->rows[i].m != NULL && p->rows[i].m->id == member->id) {
            return true;
        }
    }
    return false;
}

/* The voters of the survivor's configuration that did not answer, comma-separated; how many. */
static unsigned missing_voters(const struct plan *p, char *text, size_t size, unsigned *voters)
{
    const Hotwarm__V1__RecoverPlanResponse *m = p->rows[p->survivor].m;
    unsigned missing = 0;
    size_t n = 0;
    *voters = 0;
    text[0] = '\0';
    for (size_t i = 0; i < m->n_members; i++) {
        if (strcmp(m->members[i]->role, "voter") != 0) {
            continue;
        }
        ++*voters;
        if (!has_answered(p, m->members[i]) && n < size) {
            n += (size_t)snprintf(text + n, size - n, "%s%s", missing > 0 ? ", " : "", m->members[i]->name);
            missing++;
        }
    }
    return missing;
}

static const char *verdict_of(const struct plan *p, unsigned i)
{
    const Hotwarm__V1__RecoverPlanResponse *m = p->rows[i].m;
    if (m == NULL) {
        return "no answer";
    }
    if (m->cluster_id == 0) {
        return "has no data";
    }
    return (int)i == p->survivor ? "goes on" : "joins anew, its data moves to quarantine";
}

static int print_json(struct hw_ctl *ctl, const struct plan *p, struct hw_error *e)
{
    json_t *list = json_array();
    json_t *missing = json_array();
    const Hotwarm__V1__RecoverPlanResponse *s = p->survivor < 0 ? NULL : p->rows[p->survivor].m;
    for (unsigned i = 0; i < p->count; i++) {
        const Hotwarm__V1__RecoverPlanResponse *m = p->rows[i].m;
        json_t *row = json_pack("{s:s, s:b, s:s}", "endpoint", ctl->endpoints[i].address, "answered", m != NULL,
                                "verdict", verdict_of(p, i));
        if (m != NULL) {
            json_object_set_new(row, "name", hw_ctl_json_text(m->name));
            json_object_set_new(row, "role", hw_ctl_json_text(m->role));
            json_object_set_new(row, "recovery", hw_ctl_json_number(m->recovery));
            json_object_set_new(row, "last_term", hw_ctl_json_number(m->last_term));
            json_object_set_new(row, "last_index", hw_ctl_json_number(m->last_index));
            json_object_set_new(row, "applied_index", hw_ctl_json_number(m->applied_index));
            json_object_set_new(row, "revision", json_integer(m->revision));
        }
        json_array_append_new(list, row);
    }
    for (size_t i = 0; s != NULL && i < s->n_members; i++) {
        if (strcmp(s->members[i]->role, "voter") == 0 && !has_answered(p, s->members[i])) {
            json_array_append_new(missing, hw_ctl_json_text(s->members[i]->name));
        }
    }
    return hw_ctl_json_print(ctl,
                             json_pack("{s:o, s:o, s:o, s:o}", "hot_node",
                                       p->hot != NULL ? hw_ctl_json_text(p->hot) : json_null(), "survivor",
                                       s != NULL ? hw_ctl_json_text(s->name) : json_null(), "missing_voters", missing,
                                       "nodes", list),
                             e);
}

static void print_table(struct hw_ctl *ctl, const struct plan *p)
{
    static const char *const headings[] = {"NODE",     "ROLE",      ">LAST TERM", ">LAST INDEX",
                                           ">APPLIED", ">REVISION", "THEN",       NULL};
    struct hw_ctl_table *t = hw_ctl_table_new(ctl, headings);
    for (unsigned i = 0; i < p->count; i++) {
        const Hotwarm__V1__RecoverPlanResponse *m = p->rows[i].m;
        char n[4][HW_CTL_SHORT_SIZE];
        if (m == NULL) {
            hw_ctl_table_add(
                t, (const char *[]){ctl->endpoints[i].address, NULL, NULL, NULL, NULL, NULL, verdict_of(p, i)});
            hw_ctl_table_color(t, "red");
            continue;
        }
        snprintf(n[0], sizeof n[0], "%llu", (unsigned long long)m->last_term);
        snprintf(n[1], sizeof n[1], "%llu", (unsigned long long)m->last_index);
        snprintf(n[2], sizeof n[2], "%llu", (unsigned long long)m->applied_index);
        snprintf(n[3], sizeof n[3], "%lld", (long long)m->revision);
        hw_ctl_table_add(t, (const char *[]){m->name, m->role, n[0], n[1], n[2], n[3], verdict_of(p, i)});
    }
    hw_ctl_table_print(t);
}

static void print_consequences(struct hw_ctl *ctl, const struct plan *p)
{
    const Hotwarm__V1__RecoverPlanResponse *s = p->rows[p->survivor].m;
    char missing[1024];
    unsigned voters;
    unsigned count = missing_voters(p, missing, sizeof missing, &voters);
    fprintf(ctl->out, "\n%s has the most complete log of those that answer and would go on alone, in a new epoch.\n",
            s->name);
    if (count == 0) {
        fprintf(ctl->out, "All %u voters answered: nothing acknowledged would be lost.\n", voters);
    } else if (count <= voters / 2) {
        fprintf(ctl->out,
                "Not heard of: %s (%u of %u voters). Every acknowledged write is on one of those that answered at "
                "least: nothing acknowledged would be lost.\n",
                missing, count, voters);
    } else {
        fprintf(
            ctl->out,
            "Not heard of: %s (%u of %u voters). LOST would be every write that they acknowledged behind term %llu, "
            "index %llu (revision %lld): how many, nobody here can know.\n",
            missing, count, voters, (unsigned long long)s->last_term, (unsigned long long)s->last_index,
            (long long)s->revision);
    }
    if (s->last_index > s->applied_index) {
        fprintf(ctl->out, "%llu entries of its log were not known to be committed; they would count.\n",
                (unsigned long long)(s->last_index - s->applied_index));
    }
    fprintf(ctl->out,
            "Keep the others stopped until it is done, and start them only while %s runs: without it they would go on "
            "with their old data until they hear of it.\n",
            s->name);
    fprintf(ctl->out, "To do it: hwctl recover --apply --survivor %s\n", s->name);
}

static int row_named(const struct plan *p, const char *name)
{
    for (unsigned i = 0; i < p->count; i++) {
        if (p->rows[i].m != NULL && strcmp(p->rows[i].m->name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* Until the survivor is the leader of the recovered cluster. */
static int wait_for_survivor(struct hw_ctl *ctl, unsigned i, uint64_t recovery, struct hw_error *e)
{
    uint64_t end_ms = hw_mono_ms() + ctl->settings.timeout_ms;
    while (hw_mono_ms() < end_ms) {
        Hotwarm__V1__RecoverPlanRequest q = HOTWARM__V1__RECOVER_PLAN_REQUEST__INIT;
        ProtobufCMessage *answer;
        struct hw_error ignored = {0};
        bool is_there = false;
        if (hw_ctl_unary_at(ctl, i, &plan_method, &q.base, &answer, &ignored) == 0) {
            const Hotwarm__V1__RecoverPlanResponse *m = (Hotwarm__V1__RecoverPlanResponse *)answer;
            is_there = m->recovery == recovery && strcmp(m->hot_node, m->name) == 0;
            protobuf_c_message_free_unpacked(answer, NULL);
        }
        if (is_there) {
            return 0;
        }
        if (hw_ctl_wait(ctl, NULL, POLL_MS) == HW_ERR_CANCELLED) {
            return hw_error_set(e, HW_ERR_CANCELLED, "interrupted: the recovery was begun and goes on");
        }
    }
    hw_ctl_hint(ctl, "Look at its log; 'hwctl recover' shows where it stands");
    return hw_error_set(e, HW_ERR_TIMEOUT, "the recovery was begun, but the node did not become hot in time");
}

static int apply(struct hw_ctl *ctl, struct plan *p, const char *survivor, bool is_forced, struct hw_error *e)
{
    Hotwarm__V1__RecoverApplyRequest q = HOTWARM__V1__RECOVER_APPLY_REQUEST__INIT;
    ProtobufCMessage *answer;
    uint64_t recovery;
    uint64_t count;
    int i = row_named(p, survivor);
    int rc;
    if (i < 0) {
        hw_ctl_hint(ctl, "'hwctl recover' lists who answers; give all client addresses with --endpoints");
        return hw_error_set(e, HW_ERR_NOTFOUND, "no node that answers is called '%s'", survivor);
    }
    if (i != p->survivor && !is_forced) {
        hw_ctl_hint(ctl, "Take that one, or --force to lose what '%s' does not have", survivor);
        return hw_error_set(e, HW_ERR_PRECONDITION, "'%s' has the most complete log, not '%s'",
                            p->survivor < 0 ? "nobody" : p->rows[p->survivor].m->name, survivor);
    }
    q.survivor = (char *)survivor;
    q.last_term = p->rows[i].m->last_term;
    q.last_index = p->rows[i].m->last_index;
    q.force = is_forced;
    rc = hw_ctl_unary_at(ctl, (unsigned)i, &apply_method, &q.base, &answer, e);
    if (rc != 0) {
        return rc;
    }
    recovery = ((Hotwarm__V1__RecoverApplyResponse *)answer)->recovery;
    count = ((Hotwarm__V1__RecoverApplyResponse *)answer)->count;
    protobuf_c_message_free_unpacked(answer, NULL);
    rc = wait_for_survivor(ctl, (unsigned)i, recovery, e);
    if (rc != 0) {
        return rc;
    }
    if (hw_ctl_is_json(ctl)) {
        return hw_ctl_json_print(
            ctl, json_pack("{s:s, s:o}", "survivor", survivor, "recovery", hw_ctl_json_number(count)), e);
    }
    fprintf(ctl->out,
            "%s is hot and alone (recovery %llu). The others join anew, with their old data in quarantine, when they "
            "see it: start them, watch 'hwctl status'.\n",
            survivor, (unsigned long long)count);
    return 0;
}

HW_CTL_RUN(recover)
{
    const char *survivor = hw_ctl_text(args, "survivor", NULL);
    bool is_forced = hw_ctl_is_set(args, "force");
    struct plan *p = NULL;
    int rc;
    if (hw_ctl_is_set(args, "apply") && survivor == NULL) {
        hw_ctl_hint(ctl, "'hwctl recover' without --apply shows the plan and names the node");
        return hw_error_set(e, HW_ERR_INVALID, "--apply needs --survivor NODE");
    }
    rc = make_plan(ctl, &p, e);
    if (rc != 0) {
        return rc;
    }
    if (hw_ctl_is_set(args, "apply")) {
        rc = apply(ctl, p, survivor, is_forced, e);
    } else if (hw_ctl_is_json(ctl)) {
        rc = print_json(ctl, p, e);
    } else {
        print_table(ctl, p);
    }
    if (rc == 0 && !hw_ctl_is_set(args, "apply")) {
        if (p->hot != NULL) {
            hw_ctl_hint(ctl, "Nothing is to be recovered: see 'hwctl status'");
            rc = hw_error_set(e, HW_ERR_PRECONDITION, "the quorum is not lost: %s is hot", p->hot);
        } else if (p->survivor < 0) {
            hw_ctl_hint(ctl, "Start an agent that has data, and name its client address with --endpoints");
            rc = hw_error_set(e, HW_ERR_UNAVAILABLE, "no voter answers, so nobody can go on");
        } else if (!hw_ctl_is_json(ctl)) {
            print_consequences(ctl, p);
        }
    }
    plan_free(p);
    return rc;
}
