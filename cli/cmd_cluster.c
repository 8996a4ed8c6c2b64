/* status, node, switchover, history: the cluster and its tiers. */
#include <string.h>

#include "agent/base/clock.h"
#include "cli/call.h"
#include "cli/output.h"
#include "cli/run.h"
#include "cli/status_print.h"

#define WATCH_SECONDS 2

static const struct hw_ctl_method status_method = {.path = "/hotwarm.v1.Admin/Status",
                                                   .response = &hotwarm__v1__status_response__descriptor};
static const struct hw_ctl_method list_method = {.path = "/hotwarm.v1.Admin/NodeList",
                                                 .response = &hotwarm__v1__status_response__descriptor};
static const struct hw_ctl_method add_method = {
    .path = "/hotwarm.v1.Admin/NodeAdd", .response = &hotwarm__v1__node_response__descriptor, .is_write = true};
static const struct hw_ctl_method remove_method = {
    .path = "/hotwarm.v1.Admin/NodeRemove", .response = &hotwarm__v1__node_response__descriptor, .is_write = true};
static const struct hw_ctl_method switchover_method = {.path = "/hotwarm.v1.Admin/Switchover",
                                                       .response = &hotwarm__v1__switchover_response__descriptor,
                                                       .is_write = true};
static const struct hw_ctl_method history_method = {.path = "/hotwarm.v1.Admin/History",
                                                    .response = &hotwarm__v1__history_response__descriptor};

/* ---- status ---- */

static int status_once(struct hw_ctl *ctl, struct hw_error *e)
{
    Hotwarm__V1__StatusRequest q = HOTWARM__V1__STATUS_REQUEST__INIT;
    ProtobufCMessage *answer;
    int rc = hw_ctl_unary(ctl, &status_method, &q.base, &answer, e);
    if (rc != 0) {
        return rc;
    }
    if (hw_ctl_is_json(ctl)) {
        rc = hw_ctl_json_print(ctl, hw_ctl_json_status((Hotwarm__V1__StatusResponse *)answer), e);
    } else {
        hw_ctl_print_status(ctl, (Hotwarm__V1__StatusResponse *)answer);
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    return rc;
}

/* Refresh until Ctrl-C or until nobody reads. An outage is shown and waited out: that is what one watches for. */
static int status_watch(struct hw_ctl *ctl, uint64_t period_ms, struct hw_error *e)
{
    bool in_place = ctl->env->out_is_tty && !hw_ctl_is_json(ctl);
    for (;;) {
        char now[HW_RFC3339_SIZE];
        int rc;
        if (in_place) {
            fputs("\033[H\033[2J", ctl->out);
        }
        if (!hw_ctl_is_json(ctl)) {
            fprintf(ctl->out, "%s  every %llu s, Ctrl-C ends\n", hw_rfc3339(hw_wall_ms(), now),
                    (unsigned long long)(period_ms / 1000));
        }
        rc = status_once(ctl, e);
        if (ctl->is_interrupted) {
            return 0;
        }
        if (rc == HW_ERR_UNAVAILABLE || rc == HW_ERR_TIMEOUT) {
            hw_ctl_note(ctl, "status: %s; trying again", hw_error_text(e));
            if (!ctl->settings.is_quiet && ctl->detail.len > 0) {
                fwrite(ctl->detail.data, 1, ctl->detail.len, ctl->env->err);
            }
            hw_buf_clear(&ctl->detail);
            ctl->hint[0] = '\0';
        } else if (rc != 0) {
            return rc;
        }
        if (!hw_ctl_is_json(ctl) && !in_place) {
            fputc('\n', ctl->out);
        }
        fflush(ctl->out);
        if (hw_ctl_is_out_closed(ctl)) {
            return 0;
        }
        rc = hw_ctl_start(ctl, e);
        if (rc != 0) {
            return rc;
        }
        if (hw_ctl_wait(ctl, NULL, period_ms) == HW_ERR_CANCELLED) {
            return 0;
        }
    }
}

HW_CTL_RUN(status)
{
    int64_t seconds = hw_ctl_number(args, "watch", 0);
    if (!hw_ctl_is_set(args, "watch")) {
        return status_once(ctl, e);
    }
    if (hw_ctl_text(args, "watch", NULL) == NULL) {
        seconds = WATCH_SECONDS;
    }
    return status_watch(ctl, (uint64_t)seconds * 1000, e);
}

/* ---- node ---- */

HW_CTL_RUN(node_list)
{
    Hotwarm__V1__StatusRequest q = HOTWARM__V1__STATUS_REQUEST__INIT;
    ProtobufCMessage *answer;
    int rc = hw_ctl_unary(ctl, &list_method, &q.base, &answer, e);
    (void)args;
    if (rc != 0) {
        return rc;
    }
    if (hw_ctl_is_json(ctl)) {
        rc = hw_ctl_json_print(ctl, hw_ctl_json_status((Hotwarm__V1__StatusResponse *)answer), e);
    } else {
        hw_ctl_print_nodes(ctl, (Hotwarm__V1__StatusResponse *)answer);
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    return rc;
}

static int node_change(struct hw_ctl *ctl, const struct hw_ctl_method *method, const ProtobufCMessage *request,
                       const char *name, const char *done, struct hw_error *e)
{
    ProtobufCMessage *answer;
    const Hotwarm__V1__NodeResponse *r;
    int rc = hw_ctl_unary(ctl, method, request, &answer, e);
    if (rc != 0) {
        return rc;
    }
    r = (Hotwarm__V1__NodeResponse *)answer;
    if (hw_ctl_is_json(ctl)) {
        rc = hw_ctl_json_print(ctl,
                               json_pack("{s:o, s:o, s:o}", "id", hw_ctl_json_hex(r->id), "name",
                                         hw_ctl_json_text(name), "text", hw_ctl_json_text(r->text)),
                               e);
    } else {
        fprintf(ctl->out, "%s %s (id %016llx)%s%s\n", done, name, (unsigned long long)r->id,
                *r->text != '\0' ? ": " : "", r->text);
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    return rc;
}

HW_CTL_RUN(node_add)
{
    Hotwarm__V1__NodeAddRequest q = HOTWARM__V1__NODE_ADD_REQUEST__INIT;
    char host[256];
    char port[16];
    int rc;
    q.name = (char *)hw_ctl_word(args, 0);
    q.peer_address = (char *)hw_ctl_word(args, 1);
    if (hw_address_split(q.peer_address, host, sizeof host, port, sizeof port, e) != 0) {
        return hw_error_wrap(e, "PEER_ADDRESS \"%s\"", q.peer_address);
    }
    rc = node_change(ctl, &add_method, &q.base, q.name, "added", e);
    if (rc == HW_ERR_EXISTS) {
        hw_ctl_hint(ctl, "See who is there with 'hwctl node list'");
    }
    return rc;
}

HW_CTL_RUN(node_remove)
{
    Hotwarm__V1__NodeRemoveRequest q = HOTWARM__V1__NODE_REMOVE_REQUEST__INIT;
    q.name = (char *)hw_ctl_word(args, 0);
    return node_change(ctl, &remove_method, &q.base, q.name, "removed", e);
}

/* ---- switchover ---- */

HW_CTL_RUN(switchover)
{
    Hotwarm__V1__SwitchoverRequest q = HOTWARM__V1__SWITCHOVER_REQUEST__INIT;
    const Hotwarm__V1__SwitchoverResponse *r;
    ProtobufCMessage *answer;
    int rc;
    q.to = (char *)hw_ctl_text(args, "to", "");
    rc = hw_ctl_unary(ctl, &switchover_method, &q.base, &answer, e);
    if (rc != 0) {
        return rc;
    }
    r = (Hotwarm__V1__SwitchoverResponse *)answer;
    if (hw_ctl_is_json(ctl)) {
        rc = hw_ctl_json_print(ctl,
                               json_pack("{s:o, s:o, s:o, s:o}", "from", hw_ctl_json_text(r->from), "to",
                                         hw_ctl_json_text(r->to), "epoch", hw_ctl_json_number(r->epoch), "took_ms",
                                         hw_ctl_json_number(r->took_ms)),
                               e);
    } else {
        fprintf(ctl->out, "hot moved from %s to %s in %llu ms, epoch %llu\n", r->from, r->to,
                (unsigned long long)r->took_ms, (unsigned long long)r->epoch);
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    return rc;
}

/* ---- history ---- */

static json_t *json_event(const Hotwarm__V1__Event *v)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "seq", hw_ctl_json_number(v->seq), "index",
                     hw_ctl_json_number(v->index), "wall_ms", hw_ctl_json_number(v->wall_ms), "epoch",
                     hw_ctl_json_number(v->epoch), "node", hw_ctl_json_text(v->node), "kind", hw_ctl_json_text(v->kind),
                     "text", hw_ctl_json_text(v->text));
}

static int print_history(struct hw_ctl *ctl, const Hotwarm__V1__HistoryResponse *r, struct hw_error *e)
{
    static const char *const headings[] = {">SEQ", "TIME", ">EPOCH", "NODE", "KIND", "TEXT", NULL};
    struct hw_ctl_table *t;
    if (hw_ctl_is_json(ctl)) {
        json_t *events = json_array();
        for (size_t i = 0; i < r->n_events; i++) {
            json_array_append_new(events, json_event(r->events[i]));
        }
        return hw_ctl_json_print(ctl, json_pack("{s:o}", "events", events), e);
    }
    t = hw_ctl_table_new(ctl, headings);
    for (size_t i = 0; i < r->n_events; i++) {
        const Hotwarm__V1__Event *v = r->events[i];
        char when[HW_RFC3339_SIZE];
        char seq[HW_CTL_SHORT_SIZE];
        char epoch[HW_CTL_SHORT_SIZE];
        snprintf(seq, sizeof seq, "%llu", (unsigned long long)v->seq);
        snprintf(epoch, sizeof epoch, "%llu", (unsigned long long)v->epoch);
        hw_ctl_table_add(t, (const char *[]){seq, hw_rfc3339(v->wall_ms, when), epoch, v->node, v->kind, v->text});
    }
    hw_ctl_table_print(t);
    return 0;
}

HW_CTL_RUN(history)
{
    Hotwarm__V1__HistoryRequest q = HOTWARM__V1__HISTORY_REQUEST__INIT;
    ProtobufCMessage *answer;
    int rc;
    q.limit = (uint64_t)hw_ctl_number(args, "limit", 0);
    rc = hw_ctl_unary(ctl, &history_method, &q.base, &answer, e);
    if (rc == 0) {
        rc = print_history(ctl, (Hotwarm__V1__HistoryResponse *)answer, e);
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    return rc;
}
