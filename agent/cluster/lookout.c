#include "agent/cluster/lookout.h"

#include <stdlib.h>

#include "agent/base/assert.h"
#include "agent/rpc/rpc.h"
#include "proto/hotwarm.pb-c.h"

#define ASK_EVERY_MS 1000
#define ASK_TIMEOUT_MS 2000

struct place {
    struct hw_lookout *lookout;
    struct hw_channel *channel;
    struct hw_request request;
    bool is_asking;
};

struct hw_lookout {
    uint64_t cluster_id;
    void (*on_heard)(void *ctx, uint64_t recovery);
    void *ctx;
    struct hw_timer *timer;
    struct place places[HW_LOOKOUT_ADDRESSES_MAX];
    size_t count;
    unsigned calls;
    bool is_freed;
};

static void on_message(struct hw_request *request, struct hw_slice message)
{
    struct place *p = hw_container_of(request, struct place, request);
    struct hw_lookout *l = p->lookout;
    Hotwarm__V1__HelloResponse *m;
    uint64_t recovery;
    bool is_ours;
    if (l->is_freed) {
        return;
    }
    m = hotwarm__v1__hello_response__unpack(NULL, message.len, message.data);
    if (m == NULL) {
        return;
    }
    is_ours = m->cluster_id == l->cluster_id;
    recovery = m->recovery;
    hotwarm__v1__hello_response__free_unpacked(m, NULL);
    if (is_ours) {
        l->on_heard(l->ctx, recovery);
    }
}

static void on_end(struct hw_request *request, enum hw_grpc status, const char *text)
{
    struct place *p = hw_container_of(request, struct place, request);
    struct hw_lookout *l = p->lookout;
    (void)status;
    (void)text;
    p->is_asking = false;
    l->calls--;
    if (l->is_freed && l->calls == 0) {
        free(l);
    }
}

static const struct hw_request_ops request_ops = {.on_message = on_message, .on_end = on_end};

static void on_timer(void *ctx)
{
    struct hw_lookout *l = ctx;
    for (size_t i = 0; i < l->count; i++) {
        struct place *p = &l->places[i];
        if (p->is_asking) {
            continue;
        }
        p->request.ops = &request_ops;
        /* An empty message: nobody in particular asks. */
        if (hw_request_start(p->channel, &p->request, "/hotwarm.v1.Peer/Hello", NULL, ASK_TIMEOUT_MS, false,
                             hw_slice_of("", 0), true) == 0) {
            p->is_asking = true;
            l->calls++;
        }
    }
}

int hw_lookout_new(struct hw_loop *loop, struct hw_pool *resolver, uint64_t cluster_id, const char *const *addresses,
                   size_t count, void (*on_heard)(void *ctx, uint64_t recovery), void *ctx, struct hw_lookout **out)
{
    struct hw_lookout *l = calloc(1, sizeof *l);
    int rc = l == NULL ? HW_ERR_NOMEM : 0;
    if (rc != 0) {
        return rc;
    }
    hw_assert(count <= HW_LOOKOUT_ADDRESSES_MAX);
    l->cluster_id = cluster_id;
    l->on_heard = on_heard;
    l->ctx = ctx;
    l->timer = hw_timer_new(loop, "lookout", on_timer, l);
    for (size_t i = 0; i < count && rc == 0; i++) {
        struct place *p = &l->places[i];
        p->lookout = l;
        rc = hw_channel_new(loop, resolver, addresses[i], NULL, NULL, NULL, &p->channel);
        l->count += rc == 0;
    }
    if (rc != 0) {
        hw_lookout_free(l);
        return rc;
    }
    hw_timer_start(l->timer, 0, ASK_EVERY_MS);
    *out = l;
    return 0;
}

void hw_lookout_free(struct hw_lookout *l)
{
    if (l == NULL) {
        return;
    }
    l->is_freed = true;
    hw_timer_free(l->timer);
    for (size_t i = 0; i < l->count; i++) {
        hw_channel_free(l->places[i].channel);
    }
    if (l->calls == 0) {
        free(l);
    }
}
