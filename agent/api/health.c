/* grpc.health.v1.Health (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). The services it knows: ""
 * (the node can answer), "hot" (it is hot), "warm" (it can answer and is not hot). Watch tells of changes within
 * HW_API_TICK_MS. */
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "agent/api/protowire.h"
#include "proto/health.pb-c.h"

#define WATCHERS_MAX 4096

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving;
#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

enum subject { NODE, HOT, WARM, UNKNOWN };

struct hw_health_watcher {
    struct hw_api *api;
    struct hw_call *call;
    enum subject subject;
    serving told;
    TAILQ_ENTRY(hw_health_watcher) link;
};

static enum subject subject_of(const char *service)
{
    if (service[0] == '\0') {
        return NODE;
    }
    return strcmp(service, "hot") == 0 ? HOT : strcmp(service, "warm") == 0 ? WARM : UNKNOWN;
}

static serving state_of(struct hw_api *api, enum subject subject)
{
    const char *why;
    bool is_ready = hw_api_is_ready(api, &why);
    bool is_hot = hw_api_has_state(api) && hw_replica_is_hot(api->replica);
    switch (subject) {
    case NODE:
        return is_ready ? SERVING : NOT_SERVING;
    case HOT:
        return is_ready && is_hot ? SERVING : NOT_SERVING;
    case WARM:
        return is_ready && !is_hot ? SERVING : NOT_SERVING;
    case UNKNOWN:
        break;
    }
    return SERVICE_UNKNOWN;
}

static void handle_check(struct hw_exchange *x)
{
    Grpc__Health__V1__HealthCheckRequest *request =
        hw_exchange_unpack(x, &grpc__health__v1__health_check_request__descriptor);
    Grpc__Health__V1__HealthCheckResponse m = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    if (request == NULL) {
        return;
    }
    m.status = state_of(x->api, subject_of(request->service));
    if (m.status == SERVICE_UNKNOWN) {
        hw_exchange_fail(x, HW_GRPC_NOT_FOUND, "unknown service: the known ones are \"\", \"hot\" and \"warm\"");
    } else {
        hw_exchange_ok_message(x, &m.base);
    }
}

/* ---- Watch ---- */

static void watcher_end(struct hw_health_watcher *w, enum hw_grpc status, const char *text)
{
    struct hw_call *call = w->call;
    TAILQ_REMOVE(&w->api->watchers, w, link);
    w->api->watcher_count--;
    free(w);
    hw_call_end(call, status, text);
}

static void on_cancel(void *data, struct hw_call *call)
{
    (void)call;
    watcher_end(data, HW_GRPC_CANCELLED, NULL);
}

static int tell(struct hw_health_watcher *w)
{
    Grpc__Health__V1__HealthCheckResponse m = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    struct hw_buf out;
    int rc;
    hw_buf_init(&out);
    m.status = w->told;
    rc = hw_pack(&m.base, &out);
    if (rc == 0) {
        rc = hw_call_send(w->call, hw_buf_slice(&out));
    }
    hw_buf_free(&out);
    return rc;
}

void hw_health_watch(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct hw_api *api = ctx;
    Grpc__Health__V1__HealthCheckRequest *m =
        grpc__health__v1__health_check_request__unpack(NULL, message.len, message.data);
    struct hw_health_watcher *w = NULL;
    if (m == NULL) {
        hw_call_end(call, hw_refusal_status(HW_REFUSE_MALFORMED), hw_refusal_text(HW_REFUSE_MALFORMED));
        return;
    }
    if (api->watcher_count < WATCHERS_MAX) {
        w = calloc(1, sizeof *w);
    }
    if (w == NULL || api->is_stopping) {
        hw_call_end(call, HW_GRPC_UNAVAILABLE, "too many watch the health of this node, or it is stopping");
        free(w);
    } else {
        w->api = api;
        w->call = call;
        w->subject = subject_of(m->service);
        w->told = state_of(api, w->subject);
        TAILQ_INSERT_TAIL(&api->watchers, w, link);
        api->watcher_count++;
        hw_call_set_data(call, w);
        hw_call_on_cancel(call, on_cancel);
        if (tell(w) != 0) {
            watcher_end(w, HW_GRPC_RESOURCE_EXHAUSTED, "no room to send");
        }
    }
    grpc__health__v1__health_check_request__free_unpacked(m, NULL);
}

void hw_health_tick(struct hw_api *api)
{
    struct hw_health_watcher *w;
    struct hw_health_watcher *next;
    serving states[UNKNOWN + 1];
    if (TAILQ_EMPTY(&api->watchers)) {
        return;
    }
    for (int i = NODE; i <= UNKNOWN; i++) {
        states[i] = state_of(api, (enum subject)i);
    }
    for (w = TAILQ_FIRST(&api->watchers); w != NULL; w = next) {
        next = TAILQ_NEXT(w, link);
        if (w->told != states[w->subject]) {
            w->told = states[w->subject];
            if (tell(w) != 0) {
                watcher_end(w, HW_GRPC_RESOURCE_EXHAUSTED, "the watcher does not read");
            }
        }
    }
}

void hw_health_close(struct hw_api *api)
{
    struct hw_health_watcher *w;
    while ((w = TAILQ_FIRST(&api->watchers)) != NULL) {
        watcher_end(w, HW_GRPC_UNAVAILABLE, "this node is stopping");
    }
}

const struct hw_service_method hw_health_methods[] = {
    {"/grpc.health.v1.Health/Check", handle_check, 0, 0},
};
const size_t hw_health_method_count = hw_array_len(hw_health_methods);
