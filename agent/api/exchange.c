#include "agent/api/exchange.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "agent/api/protowire.h"
#include "agent/base/log.h"
#include "proto/hotwarm.pb-c.h"

#define SPARES_MAX 1024
#define SPARE_REQUEST_BYTES_MAX ((size_t)16 * 1024)
#define SPARE_OUT_BYTES_MAX ((size_t)1024 * 1024)
/* A call that this node could not take although it is, or was, hot: soon again. */
#define RETRY_MS 10
/* What unpacking a message may take beside the message itself. Transactions are counted before they are unpacked
 * (txn.c); an operation takes some 300 bytes of structs. */
#define ARENA_EXTRA_BYTES ((size_t)4 * 1024 * 1024)
#define ARENA_OP_BYTES ((size_t)512)

/* ---- life ---- */

static struct hw_exchange *exchange_new(struct hw_api *api, const struct hw_service_method *method,
                                        struct hw_call *call, bool is_forwarded, struct hw_slice message)
{
    struct hw_exchanges *all = &api->exchanges;
    struct hw_exchange *x = TAILQ_FIRST(&all->spare);
    if (all->count >= HW_EXCHANGES_MAX) {
        return NULL;
    }
    if (x != NULL) {
        struct hw_buf request = x->request;
        TAILQ_REMOVE(&all->spare, x, link);
        all->spare_count--;
        memset(x, 0, sizeof *x);
        x->request = request;
    } else {
        x = calloc(1, sizeof *x);
        if (x == NULL) {
            return NULL;
        }
    }
    hw_buf_clear(&x->request);
    if (hw_buf_append(&x->request, message.data, message.len) != 0) {
        hw_buf_free(&x->request);
        free(x);
        return NULL;
    }
    x->api = api;
    x->method = method;
    x->call = call;
    x->is_forwarded = is_forwarded;
    x->is_slow = method->timeout_ms != 0;
    x->deadline_ms = hw_loop_now_ms(api->loop) + (x->is_slow ? method->timeout_ms : api->config.request_timeout_ms);
    if (x->is_slow) {
        TAILQ_INSERT_TAIL(&all->slow, x, link);
    } else {
        TAILQ_INSERT_TAIL(&all->usual, x, link);
    }
    all->count++;
    hw_api_ref(api);
    return x;
}

static void exchange_free(struct hw_exchange *x)
{
    hw_buf_free(&x->request);
    free(x);
}

static void unlist(struct hw_exchange *x)
{
    struct hw_exchanges *all = &x->api->exchanges;
    if (x->call == NULL) {
        TAILQ_REMOVE(&all->over, x, link);
    } else if (x->is_slow) {
        TAILQ_REMOVE(&all->slow, x, link);
    } else {
        TAILQ_REMOVE(&all->usual, x, link);
    }
}

/* The handler has ended. */
static void exchange_end(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    struct hw_exchanges *all = &api->exchanges;
    hw_assert(!x->defer.is_posted && !x->is_waiting);
    unlist(x);
    all->count--;
    if (!api->is_freed && all->spare_count < SPARES_MAX && x->request.cap <= SPARE_REQUEST_BYTES_MAX) {
        TAILQ_INSERT_HEAD(&all->spare, x, link);
        all->spare_count++;
    } else {
        exchange_free(x);
    }
    hw_api_unref(api);
}

/* The client has its answer, the handler has not ended. */
static void client_end(struct hw_exchange *x, enum hw_refusal refusal)
{
    struct hw_call *call = x->call;
    unlist(x);
    x->call = NULL;
    TAILQ_INSERT_TAIL(&x->api->exchanges.over, x, link);
    hw_call_end(call, hw_refusal_status(refusal), hw_refusal_text(refusal));
}

/* ---- answers ---- */

static void call_ok(struct hw_exchange *x, struct hw_slice message)
{
    struct hw_buf wrapped;
    if (!x->is_forwarded) {
        hw_call_reply(x->call, message);
        return;
    }
    hw_buf_init(&wrapped);
    hw_pb_put_bytes(&wrapped, 1, message); /* ForwardResponse.payload */
    if (wrapped.failed) {
        hw_call_end(x->call, hw_refusal_status(HW_REFUSE_NO_MEMORY), hw_refusal_text(HW_REFUSE_NO_MEMORY));
    } else {
        hw_call_reply(x->call, hw_buf_slice(&wrapped));
    }
    hw_buf_free(&wrapped);
}

void hw_exchange_ok(struct hw_exchange *x, struct hw_slice message)
{
    if (x->call != NULL && message.len > HW_ANSWER_BYTES_MAX) {
        hw_exchange_refuse(x, HW_REFUSE_ANSWER_TOO_LARGE);
        return;
    }
    if (x->call != NULL) {
        call_ok(x, message);
    }
    exchange_end(x);
}

void hw_exchange_fail(struct hw_exchange *x, enum hw_grpc status, const char *text)
{
    hw_assert(status != HW_GRPC_OK);
    if (x->call != NULL) {
        hw_call_end(x->call, status, text);
    }
    exchange_end(x);
}

void hw_exchange_failf(struct hw_exchange *x, enum hw_grpc status, const char *fmt, ...)
{
    char text[HW_ERROR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    hw_exchange_fail(x, status, text);
}

void hw_exchange_refuse(struct hw_exchange *x, enum hw_refusal refusal)
{
    hw_exchange_fail(x, hw_refusal_status(refusal), hw_refusal_text(refusal));
}

void hw_exchange_ok_out(struct hw_exchange *x, struct hw_buf *out)
{
    if (out->failed) {
        hw_exchange_refuse(x, HW_REFUSE_NO_MEMORY);
    } else {
        hw_exchange_ok(x, hw_buf_slice(out));
    }
}

void hw_exchange_ok_message(struct hw_exchange *x, const ProtobufCMessage *message)
{
    struct hw_buf *out = hw_exchange_out(x);
    hw_pack(message, out);
    hw_exchange_ok_out(x, out);
}

struct hw_buf *hw_exchange_out(struct hw_exchange *x)
{
    struct hw_buf *out = &x->api->out;
    if (out->cap > SPARE_OUT_BYTES_MAX) {
        hw_buf_free(out);
    }
    hw_buf_clear(out);
    return out;
}

struct hw_header hw_exchange_header(const struct hw_exchange *x, hw_rev revision)
{
    const struct hw_api *api = x->api;
    return (struct hw_header){
        .cluster_id = api->cluster_id,
        .member_id = api->config.node_id,
        .revision = revision,
        .raft_term = api->replica == NULL ? 0 : hw_replica_term(api->replica),
    };
}

/* ---- the path of a call ---- */

bool hw_exchange_is_over(const struct hw_exchange *x)
{
    return x->call == NULL || hw_call_is_cancelled(x->call);
}

uint64_t hw_exchange_time_left_ms(const struct hw_exchange *x)
{
    uint64_t now = hw_loop_now_ms(x->api->loop);
    uint64_t left = x->deadline_ms > now ? x->deadline_ms - now : 0;
    uint64_t call_left = x->call == NULL ? 0 : hw_call_time_left_ms(x->call);
    return left < call_left ? left : call_left;
}

size_t hw_exchange_unsent(const struct hw_exchange *x)
{
    return x->call == NULL ? 0 : hw_call_connection_queued(x->call);
}

const void *hw_exchange_connection(const struct hw_exchange *x)
{
    return x->call == NULL ? NULL : hw_call_connection(x->call);
}

static void forward_done(struct hw_forward *f, enum hw_grpc status, const char *text, struct hw_slice answer)
{
    struct hw_exchange *x = f->data;
    struct hw_buf payload = f->payload;
    if (status == HW_GRPC_ABORTED && text != NULL && strcmp(text, HW_FORWARD_IS_LOCAL) == 0) {
        hw_buf_free(&x->request);
        x->request = payload;
        hw_exchange_reroute(x);
        return;
    }
    if (status == HW_GRPC_OK) {
        hw_exchange_ok(x, answer);
    } else {
        hw_exchange_fail(x, status, text);
    }
    hw_buf_free(&payload);
}

static void forward(struct hw_exchange *x)
{
    struct hw_forward *f = &x->work.forward;
    uint64_t left_ms = hw_exchange_time_left_ms(x);
    int rc;
    memset(f, 0, sizeof *f);
    f->done = forward_done;
    f->data = x;
    f->method = x->method->path;
    f->is_idempotent = (x->method->flags & HW_METHOD_IDEMPOTENT) != 0;
    f->payload = x->request;
    hw_buf_init(&x->request);
    rc = left_ms == 0 ? HW_ERR_TIMEOUT : hw_replica_forward(x->api->replica, f, left_ms);
    if (rc != 0) {
        x->request = f->payload;
        hw_exchange_refuse(x, hw_refusal_of_status(rc));
    }
}

bool hw_exchange_try_here(struct hw_exchange *x)
{
    if (hw_replica_is_hot(x->api->replica)) {
        return true;
    }
    if (x->is_forwarded) {
        hw_exchange_refuse(x, HW_REFUSE_NOT_HOT);
    } else {
        forward(x);
    }
    return false;
}

static void refuse_without_replica(struct hw_exchange *x)
{
    hw_exchange_failf(x, HW_GRPC_UNAVAILABLE, HW_NOTHING_DONE "node %s is %s: it has no state to answer from",
                      x->api->config.node_name, hw_api_phase(x->api));
}

static void route(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    unsigned flags = x->method->flags;
    if ((flags & (HW_METHOD_REPLICA | HW_METHOD_HOT | HW_METHOD_CLUSTER)) != 0 && !hw_api_has_state(api)) {
        refuse_without_replica(x);
    } else if ((flags & HW_METHOD_HOT) == 0) {
        x->method->handle(x);
    } else if (!hw_exchange_try_here(x)) {
        return;
    } else if ((flags & HW_METHOD_CLUSTER) != 0 && api->cluster == NULL) {
        hw_exchange_reroute(x); /* it comes with the tenure, in a moment */
    } else {
        x->method->handle(x);
    }
}

/* Not at once: libraft refuses proposals while it hands the leadership over, and this node would still call itself hot.
 */
void hw_exchange_reroute(struct hw_exchange *x)
{
    struct hw_exchanges *all = &x->api->exchanges;
    if (x->is_forwarded) {
        hw_exchange_refuse(x, HW_REFUSE_NOT_HOT); /* the sender knows how to go on */
        return;
    }
    if (hw_exchange_is_over(x) || x->api->is_stopping || hw_exchange_time_left_ms(x) == 0) {
        hw_exchange_refuse(x, x->api->is_stopping ? HW_REFUSE_STOPPED : HW_REFUSE_NO_LEADER);
        return;
    }
    x->is_waiting = true;
    TAILQ_INSERT_TAIL(&all->retry, x, retry_link);
    if (!hw_timer_is_active(all->retry_timer)) {
        hw_timer_start(all->retry_timer, RETRY_MS, 0);
    }
}

static void on_retry(void *ctx)
{
    struct hw_api *api = ctx;
    struct hw_exchange_list due = TAILQ_HEAD_INITIALIZER(due);
    struct hw_exchange *x;
    TAILQ_CONCAT(&due, &api->exchanges.retry, retry_link);
    while ((x = TAILQ_FIRST(&due)) != NULL) {
        TAILQ_REMOVE(&due, x, retry_link);
        x->is_waiting = false;
        if (hw_exchange_is_over(x)) {
            hw_exchange_refuse(x, HW_REFUSE_TIMEOUT);
        } else {
            route(x);
        }
    }
}

static void serve(struct hw_api *api, const struct hw_service_method *method, struct hw_call *call, bool is_forwarded,
                  struct hw_slice message)
{
    struct hw_exchange *x = NULL;
    enum hw_refusal refusal = HW_REFUSE_TOO_MANY_REQUESTS;
    if (message.len > api->config.request_bytes_max) {
        refusal = HW_REFUSE_REQUEST_TOO_LARGE;
    } else {
        x = exchange_new(api, method, call, is_forwarded, message);
    }
    if (x == NULL) {
        hw_call_end(call, hw_refusal_status(refusal), hw_refusal_text(refusal));
        return;
    }
    route(x);
}

void hw_exchange_serve(void *endpoint, struct hw_call *call, struct hw_slice message)
{
    struct hw_endpoint *ep = endpoint;
    hw_loop_note(ep->api->loop, ep->method->path);
    serve(ep->api, ep->method, call, false, message);
}

void hw_exchange_serve_forward(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct hw_api *api = ctx;
    const struct hw_service_method *method;
    ProtobufCMessage *unpacked;
    Hotwarm__V1__ForwardRequest *m;
    hw_loop_note(api->loop, "forward");
    hw_arena_reset(&api->arena, message.len + ARENA_EXTRA_BYTES);
    unpacked = protobuf_c_message_unpack(&hotwarm__v1__forward_request__descriptor, &api->arena.allocator, message.len,
                                         message.data);
    m = (Hotwarm__V1__ForwardRequest *)unpacked;
    if (m == NULL) {
        hw_call_end(call, hw_refusal_status(HW_REFUSE_MALFORMED), hw_refusal_text(HW_REFUSE_MALFORMED));
        return;
    }
    method = hw_api_forwarded_method(m->method);
    if (method == NULL) {
        hw_call_end(call, HW_GRPC_UNIMPLEMENTED, "this version does not answer forwarded calls of that method");
        return;
    }
    serve(api, method, call, true, hw_slice_of(m->payload.data, m->payload.len));
}

void *hw_exchange_unpack(struct hw_exchange *x, const ProtobufCMessageDescriptor *descriptor)
{
    struct hw_api *api = x->api;
    ProtobufCMessage *m;
    hw_arena_reset(&api->arena, 2 * x->request.len + ARENA_EXTRA_BYTES + api->config.txn_ops_max * ARENA_OP_BYTES);
    m = protobuf_c_message_unpack(descriptor, &api->arena.allocator, x->request.len,
                                  x->request.len == 0 ? (const uint8_t *)"" : x->request.data);
    if (m == NULL) {
        hw_exchange_refuse(x, api->arena.is_exhausted ? HW_REFUSE_NO_MEMORY : HW_REFUSE_MALFORMED);
    }
    return m;
}

/* ---- writes and reads ---- */

static void write_done(struct hw_write *w, int status)
{
    struct hw_exchange *x = w->data;
    if (status == HW_ERR_NOTHOT) {
        hw_exchange_reroute(x);
    } else if (status != 0) {
        hw_exchange_refuse(x, hw_refusal_of_status(status));
    } else if (w->result.code != 0) {
        hw_exchange_refuse(x, hw_refusal_of_result(w->result.code));
    } else if (x->call == NULL) {
        hw_exchange_refuse(x, HW_REFUSE_TIMEOUT);
    } else {
        x->on_applied(x, &w->result);
    }
}

void hw_exchange_write_to(struct hw_exchange *x, const struct hw_cmd *cmd, void (*done)(struct hw_write *w, int status),
                          void (*on_applied)(struct hw_exchange *x, const struct hw_result *result))
{
    struct hw_write *w = &x->work.write;
    int rc;
    memset(w, 0, sizeof *w);
    w->done = done;
    w->data = x;
    x->on_applied = on_applied;
    rc = hw_write_encode(w, cmd);
    if (rc == 0) {
        rc = hw_replica_write(x->api->replica, w);
    }
    if (rc != 0) {
        done(w, rc);
    }
}

void hw_exchange_write(struct hw_exchange *x, const struct hw_cmd *cmd,
                       void (*on_applied)(struct hw_exchange *x, const struct hw_result *result))
{
    hw_exchange_write_to(x, cmd, write_done, on_applied);
}

static enum hw_refusal refusal_of_read(const struct hw_exchange *x, int status)
{
    if (status != HW_ERR_UNAVAILABLE) {
        return hw_refusal_of_status(status);
    }
    return x->api->replica == NULL || hw_replica_hot_id(x->api->replica) == 0 ? HW_REFUSE_NO_LEADER : HW_REFUSE_TIMEOUT;
}

/* UNAVAILABLE where this node knows better than "no leader" why. */
static void refuse_read(struct hw_exchange *x, int status)
{
    const char *trouble = x->api->replica == NULL ? "" : hw_replica_trouble(x->api->replica);
    if (status == HW_ERR_UNAVAILABLE && trouble[0] != '\0') {
        hw_exchange_fail(x, HW_GRPC_UNAVAILABLE, trouble);
    } else {
        hw_exchange_refuse(x, refusal_of_read(x, status));
    }
}

static void read_done(struct hw_read *rd, int status)
{
    struct hw_exchange *x = rd->data;
    if (status != 0) {
        refuse_read(x, status);
    } else if (hw_exchange_is_over(x) || !hw_api_has_state(x->api)) {
        hw_exchange_refuse(x, HW_REFUSE_TIMEOUT);
    } else {
        x->on_readable(x);
    }
}

void hw_exchange_read(struct hw_exchange *x, void (*on_readable)(struct hw_exchange *x))
{
    struct hw_read *rd = &x->work.read;
    int rc;
    memset(rd, 0, sizeof *rd);
    rd->done = read_done;
    rd->data = x;
    x->on_readable = on_readable;
    rc = hw_replica_read(x->api->replica, rd, hw_exchange_time_left_ms(x));
    if (rc != 0) {
        refuse_read(x, rc);
    }
}

/* ---- all of them ---- */

void hw_exchanges_init(struct hw_api *api)
{
    struct hw_exchanges *all = &api->exchanges;
    TAILQ_INIT(&all->usual);
    TAILQ_INIT(&all->slow);
    TAILQ_INIT(&all->over);
    TAILQ_INIT(&all->retry);
    TAILQ_INIT(&all->spare);
    all->retry_timer = hw_timer_new(api->loop, "api retry", on_retry, api);
    hw_ranges_init(api);
}

void hw_exchanges_tick(struct hw_api *api)
{
    uint64_t now = hw_loop_now_ms(api->loop);
    struct hw_exchange *x;
    struct hw_exchange *next;
    while ((x = TAILQ_FIRST(&api->exchanges.usual)) != NULL && x->deadline_ms <= now) {
        client_end(x, HW_REFUSE_TIMEOUT);
    }
    for (x = TAILQ_FIRST(&api->exchanges.slow); x != NULL; x = next) {
        next = TAILQ_NEXT(x, link);
        if (x->deadline_ms <= now) {
            client_end(x, HW_REFUSE_TIMEOUT);
        }
    }
}

static void abort_list(struct hw_exchange_list *list)
{
    struct hw_exchange *x;
    struct hw_exchange *next;
    for (x = TAILQ_FIRST(list); x != NULL; x = next) {
        next = TAILQ_NEXT(x, link);
        if (x->abort != NULL) {
            x->abort(x);
            hw_exchange_refuse(x, HW_REFUSE_STOPPED);
        }
    }
}

void hw_exchanges_abort(struct hw_api *api)
{
    abort_list(&api->exchanges.usual);
    abort_list(&api->exchanges.slow);
    abort_list(&api->exchanges.over);
}

void hw_exchanges_cancel(struct hw_api *api)
{
    struct hw_exchange *x;
    while ((x = TAILQ_FIRST(&api->exchanges.retry)) != NULL) {
        TAILQ_REMOVE(&api->exchanges.retry, x, retry_link);
        x->is_waiting = false;
        hw_exchange_refuse(x, HW_REFUSE_STOPPED);
    }
    hw_exchanges_abort(api);
    while ((x = TAILQ_FIRST(&api->exchanges.usual)) != NULL || (x = TAILQ_FIRST(&api->exchanges.slow)) != NULL) {
        client_end(x, HW_REFUSE_STOPPED);
    }
}

void hw_exchanges_close(struct hw_api *api)
{
    struct hw_exchange *x;
    hw_ranges_close(api);
    hw_timer_free(api->exchanges.retry_timer);
    api->exchanges.retry_timer = NULL;
    while ((x = TAILQ_FIRST(&api->exchanges.spare)) != NULL) {
        TAILQ_REMOVE(&api->exchanges.spare, x, link);
        exchange_free(x);
    }
    api->exchanges.spare_count = 0;
}
