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
    ep->down_status = 0;
}

static void on_down(void *ctx, int status)
{
    struct hw_ctl_endpoint *ep = ctx;
    ep->is_settled = true;
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

int hw_ctl_connect(struct hw_ctl *ctl, unsigned i, uint64_t wait_ms, struct hw_error *e)
{
    static const struct hw_channel_ops ops = {on_up, on_down};
    struct hw_ctl_endpoint *ep = &ctl->endpoints[i];
    struct hw_rpc_limits limits;
    int rc = hw_ctl_start(ctl, e);
    if (rc != 0 || (ep->channel != NULL && hw_channel_is_up(ep->channel))) {
        return rc;
    }
    hw_ctl_drop(ctl, i);
    hw_rpc_limits_default(&limits);
    limits.message_bytes_max = HW_CTL_MESSAGE_BYTES_MAX;
    ep->is_settled = false;
    ep->down_status = 0;
    rc = hw_channel_new(ctl->loop, ctl->resolver, ep->address, &limits, &ops, ep, &ep->channel);
    if (rc != 0) {
        ep->channel = NULL;
        return hw_error_set(e, rc, "%s", hw_err_text(rc));
    }
    hw_channel_keep(ep->channel);
    rc = hw_ctl_wait(ctl, &ep->is_settled, wait_ms);
    if (rc == 0 && hw_channel_is_up(ep->channel)) {
        return 0;
    }
    hw_ctl_drop(ctl, i);
    if (rc == HW_ERR_CANCELLED) {
        return hw_error_set(e, rc, "interrupted");
    }
    if (rc == HW_ERR_TIMEOUT) {
        return hw_error_set(e, HW_ERR_CONNECT, "no connection within %llu ms", (unsigned long long)wait_ms);
    }
    return hw_error_set(e, HW_ERR_CONNECT, "%s", down_text(ep->down_status));
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
    char text[384];
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
    /* What HotWarm and etcd say when a write was turned away before the log. */
    static const char *const not_applied[] = {"not hot", "no hot node", "not leader", "no leader"};
    bool is_dead = code == HW_ERR_CONNECT || code == HW_ERR_CLOSED || code == HW_ERR_UNAVAILABLE ||
                   code == HW_ERR_TIMEOUT || code == HW_ERR_PROTOCOL;
    if (!was_sent) {
        return is_dead;
    }
    if (!method->is_write) {
        return is_dead || (method->skips_refusals && code == HW_ERR_PRECONDITION);
    }
    for (size_t i = 0; code == HW_ERR_UNAVAILABLE && i < hw_array_len(not_applied); i++) {
        if (strcasestr(text, not_applied[i]) != NULL) {
            return true;
        }
    }
    return false;
}

struct reason {
    const char *address;
    struct hw_error e;
};

static int no_endpoint_answered(struct hw_ctl *ctl, const struct reason *reasons, unsigned count, bool was_reached,
                                struct hw_error *e)
{
    int code = reasons[count - 1].e.code;
    for (unsigned k = 0; k < count; k++) {
        hw_buf_printf(&ctl->detail, "  %s: %s\n", reasons[k].address, hw_error_text(&reasons[k].e));
    }
    if (ctl->hint[0] == '\0') {
        hw_ctl_hint(ctl, "%s",
                    was_reached ? "Look at 'hwctl status' and at the logs of these agents:"
                                : "Check that an agent runs there and that --endpoints names its client "
                                  "address:");
    }
    return hw_error_set(e, code == HW_ERR_PRECONDITION ? code : HW_ERR_UNAVAILABLE, "no endpoint %s",
                        was_reached ? "could answer" : "could be reached");
}

static int write_failed(struct hw_ctl *ctl, unsigned i, bool was_sent, struct hw_error *e)
{
    bool is_unknown = was_sent && (e->code == HW_ERR_UNAVAILABLE || e->code == HW_ERR_TIMEOUT ||
                                   e->code == HW_ERR_CANCELLED || e->code == HW_ERR_PROTOCOL);
    if (is_unknown) {
        hw_ctl_hint(ctl, "It may have been applied or not: read it back before you run it again");
        e->code = e->code == HW_ERR_UNAVAILABLE ? HW_ERR_UNKNOWN : e->code;
    }
    return hw_error_wrap(e, "%s", ctl->endpoints[i].address);
}

int hw_ctl_unary(struct hw_ctl *ctl, const struct hw_ctl_method *method, const ProtobufCMessage *request,
                 ProtobufCMessage **response, struct hw_error *e)
{
    struct reason *reasons = calloc(HW_CTL_ENDPOINTS_MAX, sizeof *reasons);
    struct hw_buf packed = {0};
    uint64_t end_ms = hw_mono_ms() + ctl->settings.timeout_ms;
    unsigned failed = 0;
    bool was_reached = false;
    int rc = reasons != NULL ? hw_ctl_pack(request, &packed, e) : hw_error_set(e, HW_ERR_NOMEM, "out of memory");
    *response = NULL;
    for (unsigned n = 0; rc == 0 && n < ctl->endpoint_count; n++) {
        unsigned i = (ctl->preferred + n) % ctl->endpoint_count;
        uint64_t now_ms = hw_mono_ms();
        uint64_t left_ms = now_ms < end_ms ? end_ms - now_ms : 1;
        uint64_t share_ms = left_ms / (ctl->endpoint_count - n);
        bool was_sent;
        struct hw_error *why = &reasons[failed].e;
        share_ms = share_ms > 0 ? share_ms : 1;
        reasons[failed].address = ctl->endpoints[i].address;
        rc = unary_try(ctl, i, method, hw_buf_slice(&packed), method->is_write ? left_ms : share_ms, share_ms,
                       &was_sent, response, why);
        was_reached = was_reached || was_sent;
        if (rc == 0) {
            ctl->preferred = i;
            break;
        }
        if (!hw_ctl_may_go_on(method, was_sent, rc, why->text)) {
            *e = *why;
            rc = write_failed(ctl, i, method->is_write && was_sent, e);
            break;
        }
        failed++;
        rc = 0;
    }
    if (rc == 0 && *response == NULL) {
        rc = no_endpoint_answered(ctl, reasons, failed, was_reached, e);
    }
    for (unsigned k = 0; *response != NULL && k < failed; k++) {
        hw_ctl_note(ctl, "skipped %s: %s", reasons[k].address, hw_error_text(&reasons[k].e));
    }
    free(reasons);
    hw_buf_free(&packed);
    return rc;
}
