/* Calls that only the hot node can answer, sent to it over the peer connection. While none is known they are held; what
 * surely did not run is sent again to the next hot node; what may have run is not, unless repeating it does no harm. */
#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/replica/replica_impl.h"

#define TICK_MS 20
/* Texts of the peer service for calls that it refused without running them. */
#define NOT_RUN_TEXT "not hot"

static void answer(struct hw_forward *f, enum hw_grpc status, const char *text, struct hw_slice message)
{
    f->replica->forwards.count--;
    f->done(f, status, text, message);
}

static void hold(struct hw_forward *f)
{
    struct hw_replica *r = f->replica;
    f->is_sent = false;
    TAILQ_INSERT_HEAD(&r->forwards.held, f, link);
    if (!hw_timer_is_active(r->forwards.timer)) {
        hw_timer_start(r->forwards.timer, TICK_MS, TICK_MS);
    }
}

/* ForwardResponse is one bytes field: read it in place instead of copying it. */
static void on_message(struct hw_request *request, struct hw_slice message)
{
    struct hw_forward *f = hw_container_of(request, struct hw_forward, request);
    struct hw_reader rd;
    struct hw_slice payload = {NULL, 0};
    hw_reader_init(&rd, message.data, message.len);
    if (message.len > 0) {
        if (hw_reader_u8(&rd) != 0x0a) {
            return;
        }
        payload = hw_reader_bytes(&rd);
    }
    if (!rd.failed && hw_reader_left(&rd) == 0 && hw_buf_append(&f->answer, payload.data, payload.len) == 0) {
        f->is_answered = true;
    }
}

static void on_end(struct hw_request *request, enum hw_grpc status, const char *text)
{
    struct hw_forward *f = hw_container_of(request, struct hw_forward, request);
    struct hw_replica *r = f->replica;
    struct hw_buf message = f->answer;
    bool is_surely_not_run = status == HW_GRPC_UNAVAILABLE && text != NULL && strcmp(text, NOT_RUN_TEXT) == 0;
    bool is_broken = status == HW_GRPC_UNAVAILABLE || status == HW_GRPC_CANCELLED;
    TAILQ_REMOVE(&r->forwards.sent, f, link);
    hw_buf_init(&f->answer);
    if (r->phase == HW_PHASE_MEMBER && (is_surely_not_run || (is_broken && f->is_idempotent)) &&
        f->deadline_ms > hw_loop_now_ms(r->loop)) {
        hw_buf_free(&message);
        hold(f);
        return;
    }
    if (status == HW_GRPC_OK && !f->is_answered) {
        status = HW_GRPC_INTERNAL;
        text = "the hot node's answer could not be read";
    } else if (is_broken && !is_surely_not_run && (text == NULL || strncmp(text, "etcdserver:", 11) != 0)) {
        status = HW_GRPC_UNAVAILABLE;
        text = "etcdserver: request timed out, possibly due to connection lost";
    } else if (is_surely_not_run) {
        text = "etcdserver: no leader";
    }
    answer(f, status, text, hw_buf_slice(&message));
    hw_buf_free(&message);
    hw_replica_maybe_closed(r);
}

static const struct hw_request_ops request_ops = {.on_message = on_message, .on_end = on_end};

static int send_one(struct hw_forward *f, struct hw_channel *channel, uint64_t left_ms)
{
    struct hw_buf b;
    int rc;
    hw_buf_init(&b);
    hw_buf_put_u8(&b, 0x0a);
    hw_buf_put_bytes(&b, hw_slice_str(f->method));
    hw_buf_put_u8(&b, 0x12);
    hw_buf_put_bytes(&b, hw_buf_slice(&f->payload));
    rc = b.failed ? HW_ERR_NOMEM : 0;
    if (rc == 0) {
        hw_buf_init(&f->answer);
        f->is_answered = false;
        f->request.ops = &request_ops;
        rc = hw_request_start(channel, &f->request, "/hotwarm.v1.Peer/Forward", NULL, left_ms, true, hw_buf_slice(&b),
                              true);
    }
    hw_buf_free(&b);
    return rc;
}

static void kick_step(struct hw_defer *d)
{
    struct hw_replica *r = hw_container_of(d, struct hw_replica, forwards.kick);
    uint64_t now = hw_loop_now_ms(r->loop);
    struct hw_peer *peer = hw_peer_of(r, r->hot_id);
    struct hw_forward *f;
    while ((f = TAILQ_FIRST(&r->forwards.held)) != NULL) {
        if (r->is_hot) {
            TAILQ_REMOVE(&r->forwards.held, f, link);
            answer(f, HW_GRPC_ABORTED, HW_FORWARD_IS_LOCAL, hw_slice_of(NULL, 0));
            continue;
        }
        if (peer == NULL || !peer->is_up || f->deadline_ms <= now ||
            send_one(f, peer->channel, f->deadline_ms - now) != 0) {
            return; /* the timer comes again */
        }
        TAILQ_REMOVE(&r->forwards.held, f, link);
        TAILQ_INSERT_TAIL(&r->forwards.sent, f, link);
        f->is_sent = true;
        f->sent_to = r->hot_id;
        hw_counter_add(r->m_forwards, 1);
    }
}

void hw_forwards_kick(struct hw_replica *r)
{
    hw_defer_post(r->loop, &r->forwards.kick);
}

static void on_tick(void *ctx)
{
    struct hw_replica *r = ctx;
    uint64_t now = hw_loop_now_ms(r->loop);
    const char *trouble = hw_replica_trouble(r);
    char text[sizeof r->quorum.trouble + sizeof HW_NOTHING_DONE];
    struct hw_forward *f;
    struct hw_forward *next;
    snprintf(text, sizeof text, HW_NOTHING_DONE "%s", trouble);
    for (f = TAILQ_FIRST(&r->forwards.held); f != NULL; f = next) {
        next = TAILQ_NEXT(f, link);
        if (trouble[0] != '\0') {
            TAILQ_REMOVE(&r->forwards.held, f, link);
            answer(f, HW_GRPC_UNAVAILABLE, text, hw_slice_of(NULL, 0));
        } else if (f->deadline_ms <= now) {
            TAILQ_REMOVE(&r->forwards.held, f, link);
            answer(f, HW_GRPC_UNAVAILABLE, "etcdserver: no leader", hw_slice_of(NULL, 0));
        }
    }
    if (TAILQ_EMPTY(&r->forwards.held)) {
        hw_timer_stop(r->forwards.timer);
    } else {
        hw_forwards_kick(r);
    }
}

int hw_replica_forward(struct hw_replica *r, struct hw_forward *f, uint64_t timeout_ms)
{
    if (r->phase != HW_PHASE_MEMBER) {
        return HW_ERR_UNAVAILABLE;
    }
    if (r->forwards.count >= r->config.forwards_max) {
        return HW_ERR_EXHAUSTED;
    }
    r->forwards.count++;
    f->replica = r;
    f->deadline_ms = hw_loop_now_ms(r->loop) + timeout_ms;
    f->is_sent = false;
    TAILQ_INSERT_TAIL(&r->forwards.held, f, link);
    if (!hw_timer_is_active(r->forwards.timer)) {
        hw_timer_start(r->forwards.timer, TICK_MS, TICK_MS);
    }
    hw_forwards_kick(r);
    return 0;
}

void hw_forwards_init(struct hw_replica *r)
{
    TAILQ_INIT(&r->forwards.held);
    TAILQ_INIT(&r->forwards.sent);
    hw_defer_init(&r->forwards.kick, kick_step);
    r->forwards.timer = hw_timer_new(r->loop, "forwards", on_tick, r);
}

void hw_forwards_close(struct hw_replica *r)
{
    struct hw_forward *f;
    hw_timer_free(r->forwards.timer);
    r->forwards.timer = NULL;
    hw_defer_cancel(r->loop, &r->forwards.kick);
    while ((f = TAILQ_FIRST(&r->forwards.held)) != NULL) {
        TAILQ_REMOVE(&r->forwards.held, f, link);
        answer(f, HW_GRPC_UNAVAILABLE, "this node is stopping", hw_slice_of(NULL, 0));
    }
    TAILQ_FOREACH(f, &r->forwards.sent, link) {
        hw_request_cancel(&f->request);
    }
}
