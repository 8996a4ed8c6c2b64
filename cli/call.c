#include "cli/call.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"

int hw_ctl_code_of(enum hw_grpc status)
{
    static const int codes[] = {
        [HW_GRPC_OK] = 0,
        [HW_GRPC_CANCELLED] = HW_ERR_CANCELLED,
        [HW_GRPC_UNKNOWN] = HW_ERR_INTERNAL,
        [HW_GRPC_INVALID_ARGUMENT] = HW_ERR_INVALID,
        [HW_GRPC_DEADLINE_EXCEEDED] = HW_ERR_TIMEOUT,
        [HW_GRPC_NOT_FOUND] = HW_ERR_NOTFOUND,
        [HW_GRPC_ALREADY_EXISTS] = HW_ERR_EXISTS,
        [HW_GRPC_PERMISSION_DENIED] = HW_ERR_DENIED,
        [HW_GRPC_RESOURCE_EXHAUSTED] = HW_ERR_EXHAUSTED,
        [HW_GRPC_FAILED_PRECONDITION] = HW_ERR_PRECONDITION,
        [HW_GRPC_ABORTED] = HW_ERR_ABORTED,
        [HW_GRPC_OUT_OF_RANGE] = HW_ERR_COMPACTED,
        [HW_GRPC_UNIMPLEMENTED] = HW_ERR_UNIMPLEMENTED,
        [HW_GRPC_INTERNAL] = HW_ERR_INTERNAL,
        [HW_GRPC_UNAVAILABLE] = HW_ERR_UNAVAILABLE,
        [HW_GRPC_DATA_LOSS] = HW_ERR_CORRUPT,
        [HW_GRPC_UNAUTHENTICATED] = HW_ERR_DENIED,
    };
    return (size_t)status < hw_array_len(codes) ? codes[status] : HW_ERR_INTERNAL;
}

/* ---- connections ---- */

static void on_up(void *ctx)
{
    struct hw_ctl_endpoint *ep = ctx;
    ep->is_settled = true;
    ep->ctl->has_news = true;
    ep->down_status = 0;
}

static void on_down(void *ctx, int status)
{
    struct hw_ctl_endpoint *ep = ctx;
    ep->is_settled = true;
    ep->ctl->has_news = true;
    ep->down_status = status;
}

void hw_ctl_drop(struct hw_ctl *ctl, unsigned i)
{
    if (ctl->endpoints[i].channel != NULL) {
        hw_channel_free(ctl->endpoints[i].channel);
        ctl->endpoints[i].channel = NULL;
    }
}

void hw_ctl_disconnect(struct hw_ctl *ctl)
{
    for (unsigned i = 0; i < ctl->endpoint_count; i++) {
        hw_ctl_drop(ctl, i);
    }
}

static const char *down_text(int status)
{
    switch (status) {
    case 0:
        return hw_err_text(HW_ERR_CLOSED);
    case HW_ERR_CONNECT:
        return "cannot connect: nothing listens there, or no route";
    case HW_ERR_NOTFOUND:
        return "the host name is not known";
    default:
        return hw_err_text(status);
    }
}

static int begin(struct hw_ctl *ctl, unsigned i, struct hw_error *e)
{
    static const struct hw_channel_ops ops = {on_up, on_down};
    struct hw_ctl_endpoint *ep = &ctl->endpoints[i];
    struct hw_rpc_limits limits;
    int rc;
    hw_ctl_drop(ctl, i);
    hw_rpc_limits_default(&limits);
    limits.message_bytes_max = HW_CTL_MESSAGE_BYTES_MAX;
    ep->ctl = ctl;
    ep->is_settled = false;
    ep->down_status = 0;
    ep->begun_mono_ms = hw_mono_ms();
    rc = hw_channel_new(ctl->loop, ctl->resolver, ep->address, &limits, &ops, ep, &ep->channel);
    if (rc != 0) {
        ep->channel = NULL;
        return hw_error_set(e, rc, "%s", hw_err_text(rc));
    }
    hw_channel_keep(ep->channel);
    return 0;
}

static int silent_for(uint64_t ms, struct hw_error *e)
{
    return hw_error_set(e, HW_ERR_CONNECT, "no connection within %llu ms", (unsigned long long)ms);
}

int hw_ctl_connect(struct hw_ctl *ctl, unsigned i, uint64_t wait_ms, struct hw_error *e)
{
    struct hw_ctl_endpoint *ep = &ctl->endpoints[i];
    int rc = hw_ctl_start(ctl, e);
    if (rc != 0 || (ep->channel != NULL && hw_channel_is_up(ep->channel))) {
        return rc;
    }
    rc = begin(ctl, i, e);
    if (rc != 0) {
        return rc;
    }
    rc = hw_ctl_wait(ctl, &ep->is_settled, wait_ms);
    if (rc == 0 && hw_channel_is_up(ep->channel)) {
        return 0;
    }
    hw_ctl_drop(ctl, i);
    if (rc == HW_ERR_CANCELLED) {
        return hw_error_set(e, rc, "interrupted");
    }
    return rc == HW_ERR_TIMEOUT ? silent_for(wait_ms, e)
                                : hw_error_set(e, HW_ERR_CONNECT, "%s", down_text(ep->down_status));
}

/* ---- the race ---- */

void hw_ctl_race_again(struct hw_ctl *ctl)
{
    for (unsigned i = 0; i < ctl->endpoint_count; i++) {
        struct hw_ctl_endpoint *ep = &ctl->endpoints[i];
        ep->is_left = false;
        if (ep->channel != NULL && ep->is_settled && !hw_channel_is_up(ep->channel)) {
            hw_ctl_drop(ctl, i); /* it waits before it tries again; the command does not */
        }
    }
}

void hw_ctl_leave(struct hw_ctl *ctl, unsigned i, const struct hw_error *e)
{
    ctl->endpoints[i].is_left = true;
    ctl->endpoints[i].why = *e;
    hw_ctl_drop(ctl, i);
}

void hw_ctl_say_left(struct hw_ctl *ctl)
{
    for (unsigned k = 0; k < ctl->endpoint_count; k++) {
        const struct hw_ctl_endpoint *ep = &ctl->endpoints[(ctl->preferred + k) % ctl->endpoint_count];
        if (ep->is_left) {
            hw_buf_printf(&ctl->detail, "  %s: %s\n", ep->address, hw_error_text(&ep->why));
        }
    }
}

/* Look at all connections, begin the next one when it is its turn. 1: there is a winner; 0: wait until *turn_ms;
 * HW_ERR_CONNECT: nobody is left. */
static int race_step(struct hw_ctl *ctl, uint64_t *turn_ms, unsigned *winner)
{
    bool is_pending = false;
    uint64_t now_ms = hw_mono_ms();
    *turn_ms = 0;
    for (unsigned k = 0; k < ctl->endpoint_count; k++) {
        unsigned i = (ctl->preferred + k) % ctl->endpoint_count;
        struct hw_ctl_endpoint *ep = &ctl->endpoints[i];
        struct hw_error why = {0};
        if (ep->is_left) {
            continue;
        }
        if (ep->channel == NULL && now_ms < *turn_ms) {
            continue;
        }
        if (ep->channel == NULL && begin(ctl, i, &why) != 0) {
            hw_ctl_leave(ctl, i, &why);
        } else if (hw_channel_is_up(ep->channel)) {
            *winner = i;
            return 1;
        } else if (ep->is_settled) {
            hw_error_set(&why, HW_ERR_CONNECT, "%s", down_text(ep->down_status));
            hw_ctl_leave(ctl, i, &why);
        } else {
            uint64_t next_ms = ep->begun_mono_ms + HW_CTL_RACE_MS;
            *turn_ms = next_ms > *turn_ms ? next_ms : *turn_ms;
            is_pending = true;
        }
    }
    return is_pending ? 0 : HW_ERR_CONNECT;
}

static void leave_the_silent(struct hw_ctl *ctl)
{
    for (unsigned i = 0; i < ctl->endpoint_count; i++) {
        struct hw_ctl_endpoint *ep = &ctl->endpoints[i];
        struct hw_error why = {0};
        if (!ep->is_left && ep->channel != NULL) {
            silent_for(hw_mono_ms() - ep->begun_mono_ms, &why);
            hw_ctl_leave(ctl, i, &why);
        }
    }
}

int hw_ctl_race(struct hw_ctl *ctl, uint64_t wait_ms, unsigned *winner, struct hw_error *e)
{
    uint64_t end_ms = hw_mono_ms() + wait_ms;
    int rc = hw_ctl_start(ctl, e);
    while (rc == 0) {
        uint64_t turn_ms;
        uint64_t now_ms;
        ctl->has_news = false;
        rc = race_step(ctl, &turn_ms, winner);
        if (rc == 1) {
            return 0;
        }
        if (rc != 0) {
            return hw_error_set(e, rc, "no endpoint could be reached");
        }
        now_ms = hw_mono_ms();
        if (now_ms >= end_ms) {
            leave_the_silent(ctl);
            return hw_error_set(e, HW_ERR_CONNECT, "no connection within %llu ms", (unsigned long long)wait_ms);
        }
        /* Past its turn, only news or the end can change anything. */
        turn_ms = turn_ms > now_ms && turn_ms < end_ms ? turn_ms : end_ms;
        rc = hw_ctl_wait(ctl, &ctl->has_news, turn_ms - now_ms);
        rc = rc == HW_ERR_TIMEOUT ? 0 : rc;
    }
    return rc == HW_ERR_CANCELLED ? hw_error_set(e, rc, "interrupted") : rc;
}

/* ---- one call ---- */

struct attempt {
    struct hw_request request;
    hw_ctl_message_fn on_message;
    void *ctx;
    bool is_done;
    bool has_news; /* a message came since it was cleared */
    bool was_sent;
    int refused; /* by on_message */
    enum hw_grpc status;
    char text[768];
    struct hw_error *e;
};

static void on_message(struct hw_request *r, struct hw_slice message)
{
    struct attempt *a = r->data;
    a->has_news = true;
    if (a->refused == 0) {
        a->refused = a->on_message(a->ctx, message, a->e);
        if (a->refused != 0) {
            hw_request_cancel(r);
        }
    }
}

static void on_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct attempt *a = r->data;
    a->is_done = true;
    a->has_news = true;
    a->status = status;
    snprintf(a->text, sizeof a->text, "%s", text != NULL ? text : "");
}

static const struct hw_request_ops request_ops = {on_message, on_end, NULL};

/* Wait for the end; a stream may go on as long as messages come. */
static int await(struct hw_ctl *ctl, struct attempt *a, uint64_t wait_ms, bool is_stream)
{
    int rc = 0;
    while (!a->is_done && rc == 0) {
        a->has_news = false;
        rc = hw_ctl_wait(ctl, is_stream ? &a->has_news : &a->is_done, wait_ms);
    }
    if (!a->is_done) {
        hw_request_cancel(&a->request);
        while (!a->is_done) {
            hw_loop_turn(ctl->loop, true);
        }
    }
    return rc;
}

static int attempt_run(struct hw_ctl *ctl, unsigned i, const char *path, struct hw_slice request, uint64_t wait_ms,
                       bool is_stream, struct attempt *a)
{
    struct hw_ctl_endpoint *ep = &ctl->endpoints[i];
    /* The call's own deadline does the work; ours, a little later, is for a connection that hangs. */
    uint64_t guard_ms = is_stream ? wait_ms : wait_ms + 250;
    int rc;
    a->request = (struct hw_request){.ops = &request_ops, .data = a};
    rc = hw_request_start(ep->channel, &a->request, path, NULL, is_stream ? 0 : wait_ms, true, request, true);
    if (rc != 0) {
        return hw_error_set(a->e, rc, "%s", hw_err_text(rc));
    }
    a->was_sent = true;
    rc = await(ctl, a, guard_ms, is_stream);
    if (a->refused != 0) {
        return a->refused;
    }
    if (rc == HW_ERR_CANCELLED) {
        return hw_error_set(a->e, rc, "interrupted");
    }
    if (rc == HW_ERR_TIMEOUT || a->status == HW_GRPC_DEADLINE_EXCEEDED) {
        hw_ctl_drop(ctl, i);
        return hw_error_set(a->e, HW_ERR_TIMEOUT, "no answer within %llu ms", (unsigned long long)wait_ms);
    }
    rc = hw_ctl_code_of(a->status);
    return rc == 0 ? 0 : hw_error_set(a->e, rc, "%s", a->text[0] != '\0' ? a->text : hw_err_text(rc));
}

int hw_ctl_pack(const ProtobufCMessage *m, struct hw_buf *out, struct hw_error *e)
{
    size_t len = protobuf_c_message_get_packed_size(m);
    if (hw_buf_reserve(out, len + 1) != 0) {
        return hw_error_set(e, HW_ERR_NOMEM, "out of memory for a request of %zu bytes", len);
    }
    out->len += protobuf_c_message_pack(m, out->data + out->len);
    return 0;
}

struct unary {
    const ProtobufCMessageDescriptor *descriptor;
    ProtobufCMessage *response;
};

static int on_response(void *ctx, struct hw_slice message, struct hw_error *e)
{
    struct unary *u = ctx;
    if (u->response != NULL) {
        return hw_error_set(e, HW_ERR_PROTOCOL, "the server sent two answers to one request");
    }
    u->response = protobuf_c_message_unpack(u->descriptor, NULL, message.len, message.data);
    if (u->response == NULL) {
        return hw_error_set(e, HW_ERR_PROTOCOL, "the answer is not a %s", u->descriptor->name);
    }
    return 0;
}

static int unary_try(struct hw_ctl *ctl, unsigned i, const struct hw_ctl_method *method, struct hw_slice request,
                     uint64_t wait_ms, uint64_t connect_ms, bool *was_sent, ProtobufCMessage **response,
                     struct hw_error *e)
{
    struct unary u = {method->response, NULL};
    struct attempt a = {.on_message = on_response, .ctx = &u, .e = e};
    uint64_t start_ms = hw_mono_ms();
    uint64_t used_ms;
    int rc = hw_ctl_connect(ctl, i, connect_ms, e);
    *was_sent = false;
    if (rc != 0) {
        return rc;
    }
    used_ms = hw_mono_ms() - start_ms;
    rc = attempt_run(ctl, i, method->path, request, used_ms < wait_ms ? wait_ms - used_ms : 1, false, &a);
    *was_sent = a.was_sent;
    if (rc == 0 && u.response == NULL) {
        rc = hw_error_set(e, HW_ERR_PROTOCOL, "the server ended the call without an answer");
    }
    if (rc != 0 && u.response != NULL) {
        protobuf_c_message_free_unpacked(u.response, NULL);
        u.response = NULL;
    }
    *response = u.response;
    return rc;
}

int hw_ctl_unary_at(struct hw_ctl *ctl, unsigned i, const struct hw_ctl_method *method, const ProtobufCMessage *request,
                    ProtobufCMessage **response, struct hw_error *e)
{
    struct hw_buf packed = {0};
    bool was_sent;
    int rc = hw_ctl_pack(request, &packed, e);
    *response = NULL;
    if (rc == 0) {
        rc = unary_try(ctl, i, method, hw_buf_slice(&packed), ctl->settings.timeout_ms, ctl->settings.timeout_ms,
                       &was_sent, response, e);
    }
    hw_buf_free(&packed);
    return rc;
}

int hw_ctl_stream_at(struct hw_ctl *ctl, unsigned i, const char *path, const ProtobufCMessage *request,
                     uint64_t idle_ms, hw_ctl_message_fn on_stream_message, void *ctx, struct hw_error *e)
{
    struct hw_buf packed = {0};
    struct attempt a = {.on_message = on_stream_message, .ctx = ctx, .e = e};
    int rc = hw_ctl_pack(request, &packed, e);
    if (rc == 0) {
        rc = hw_ctl_connect(ctl, i, idle_ms, e);
    }
    if (rc == 0) {
        rc = attempt_run(ctl, i, path, hw_buf_slice(&packed), idle_ms, true, &a);
    }
    hw_buf_free(&packed);
    return rc;
}

/* ---- failing over ---- */

bool hw_ctl_may_go_on(const struct hw_ctl_method *method, bool was_sent, int code, const char *text)
{
    /* What etcd says, and HotWarm in its words, when a write was turned away before the log. */
    static const char *const not_applied[] = {"not hot", "no hot node", "not leader", "no leader"};
    bool is_dead = code == HW_ERR_CONNECT || code == HW_ERR_CLOSED || code == HW_ERR_UNAVAILABLE ||
                   code == HW_ERR_TIMEOUT || code == HW_ERR_PROTOCOL;
    if (!was_sent) {
        return is_dead;
    }
    if (!method->is_write) {
        return is_dead || (method->skips_refusals && code == HW_ERR_PRECONDITION);
    }
    if (code == HW_ERR_UNAVAILABLE && strncmp(text, HW_NOTHING_DONE, sizeof HW_NOTHING_DONE - 1) == 0) {
        return true;
    }
    for (size_t i = 0; code == HW_ERR_UNAVAILABLE && i < hw_array_len(not_applied); i++) {
        if (strcasestr(text, not_applied[i]) != NULL) {
            return true;
        }
    }
    return false;
}

static int no_endpoint_answered(struct hw_ctl *ctl, int code, bool was_reached, struct hw_error *e)
{
    hw_ctl_say_left(ctl);
    if (ctl->hint[0] == '\0') {
        hw_ctl_hint(ctl, "%s",
                    was_reached ? "Look at 'hwctl status' and at the logs of these agents:"
                                : "Check that an agent runs there and that --endpoints names its client "
                                  "address:");
    }
    return hw_error_set(e, code == HW_ERR_PRECONDITION ? code : HW_ERR_UNAVAILABLE, "no endpoint %s",
                        was_reached ? "could answer" : "could be reached");
}

/* What the answer cost: endpoints that failed, and those that were silent for so long that another was asked. */
static void note_skipped(struct hw_ctl *ctl)
{
    for (unsigned k = 0; k < ctl->endpoint_count; k++) {
        const struct hw_ctl_endpoint *ep = &ctl->endpoints[(ctl->preferred + k) % ctl->endpoint_count];
        uint64_t waited_ms = ep->channel != NULL ? hw_mono_ms() - ep->begun_mono_ms : 0;
        if (ep->is_left) {
            hw_ctl_note(ctl, "skipped %s: %s", ep->address, hw_error_text(&ep->why));
        } else if (ep->channel != NULL && !hw_channel_is_up(ep->channel) && waited_ms >= HW_CTL_RACE_MS) {
            hw_ctl_note(ctl, "skipped %s: no connection within %llu ms", ep->address, (unsigned long long)waited_ms);
        }
    }
}

static int write_failed(struct hw_ctl *ctl, unsigned i, bool was_sent, struct hw_error *e)
{
    bool is_unknown = was_sent && (e->code == HW_ERR_UNAVAILABLE || e->code == HW_ERR_TIMEOUT ||
                                   e->code == HW_ERR_CANCELLED || e->code == HW_ERR_PROTOCOL);
    if (e->code == HW_ERR_EXHAUSTED && strstr(e->text, "space exceeded") != NULL) {
        /* etcd's words for the quota of the state and for a disk alike */
        hw_ctl_hint(ctl,
                    "Nothing was written. See what is full with 'hwctl alarm list' and in the agents' logs. A full "
                    "state: delete keys, then 'hwctl compact REVISION'. A full disk: make room on it. Writes go "
                    "on by themselves then");
        e->code = HW_ERR_NOSPACE;
    }
    if (is_unknown) {
        hw_ctl_hint(ctl, "It may have been applied or not: read it back before you run it again");
        e->code = e->code == HW_ERR_UNAVAILABLE ? HW_ERR_UNKNOWN : e->code;
    }
    return hw_error_wrap(e, "%s", ctl->endpoints[i].address);
}

static unsigned count_in_race(const struct hw_ctl *ctl)
{
    unsigned n = 0;
    for (unsigned i = 0; i < ctl->endpoint_count; i++) {
        n += !ctl->endpoints[i].is_left;
    }
    return n;
}

/* Packed already. One endpoint after the other, as each gets a connection. */
static int unary_anywhere(struct hw_ctl *ctl, const struct hw_ctl_method *method, struct hw_slice request,
                          ProtobufCMessage **response, struct hw_error *e)
{
    uint64_t end_ms = hw_mono_ms() + ctl->settings.timeout_ms;
    bool was_reached = false;
    int code = HW_ERR_UNAVAILABLE;
    hw_ctl_race_again(ctl);
    for (;;) {
        uint64_t now_ms = hw_mono_ms();
        uint64_t left_ms = now_ms < end_ms ? end_ms - now_ms : 1;
        bool was_sent;
        unsigned i;
        int rc = hw_ctl_race(ctl, left_ms, &i, e);
        if (rc == HW_ERR_CONNECT) {
            return no_endpoint_answered(ctl, code, was_reached, e);
        }
        if (rc != 0) {
            return rc;
        }
        now_ms = hw_mono_ms();
        left_ms = now_ms < end_ms ? end_ms - now_ms : 1;
        if (!method->is_write) {
            left_ms = left_ms / count_in_race(ctl) + 1; /* an endpoint may be silent: leave time for the others */
        }
        rc = unary_try(ctl, i, method, request, left_ms, left_ms, &was_sent, response, e);
        was_reached = was_reached || was_sent;
        if (rc == 0) {
            note_skipped(ctl);
            ctl->preferred = i;
            return 0;
        }
        if (!hw_ctl_may_go_on(method, was_sent, rc, e->text)) {
            return write_failed(ctl, i, method->is_write && was_sent, e);
        }
        code = rc;
        hw_ctl_leave(ctl, i, e);
    }
}

int hw_ctl_unary(struct hw_ctl *ctl, const struct hw_ctl_method *method, const ProtobufCMessage *request,
                 ProtobufCMessage **response, struct hw_error *e)
{
    struct hw_buf packed = {0};
    int rc = hw_ctl_pack(request, &packed, e);
    *response = NULL;
    if (rc == 0) {
        rc = unary_anywhere(ctl, method, hw_buf_slice(&packed), response, e);
    }
    hw_buf_free(&packed);
    return rc;
}
