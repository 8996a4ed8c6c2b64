/* lease: grant N leases with `clients` calls under way, then keep them alive for the window: each stream has up to
 * PIPELINE keep-alives under way, over all of its leases in turn. The figures are the keep-alives'; grants are apart.
 */
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "tests/load/bench.h"

#define PIPELINE 16u
#define STREAMS_DEFAULT 8u
#define GRANT_MS_MAX 300000u

struct grant {
    struct hw_request request;
    struct lease_run *run;
};

/* Keep-alives of one stream are answered in order, so a ring of start times is enough. */
struct keeper {
    struct hw_request request;
    struct lease_run *run;
    unsigned at; /* its next lease: own number, then every stream_count-th */
    uint64_t started_ns[PIPELINE];
    uint64_t sent;
    uint64_t answered;
};

struct lease_run {
    struct bench *b;
    int64_t *ids;
    unsigned granted;
    unsigned asked;
    unsigned granting; /* calls under way */
    struct keeper *keepers;
    unsigned keeper_count;
    unsigned live;
    uint64_t expired;
    uint64_t granted_us;
    bool has_failed;
    struct hw_buf out;
};

/* ---- grants ---- */

static void grant_next(struct grant *g);

static void on_grant(struct hw_request *r, struct hw_slice message)
{
    struct grant *g = r->data;
    struct bench_field f;
    struct hw_reader reader;
    hw_reader_init(&reader, message.data, message.len);
    while (bench_field_next(&reader, &f)) {
        if (f.number == 2 && f.number_value != 0 && g->run->granted < g->run->b->o.leases) {
            g->run->ids[g->run->granted++] = (int64_t)f.number_value;
        }
    }
}

static void on_grant_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct grant *g = r->data;
    g->run->granting--;
    if (status != HW_GRPC_OK) {
        bench_op_failed(g->run->b, status, text);
        g->run->has_failed = true;
        return;
    }
    grant_next(g);
}

static const struct hw_request_ops grant_ops = {.on_message = on_grant, .on_end = on_grant_end};

static void grant_next(struct grant *g)
{
    struct lease_run *l = g->run;
    if (l->asked >= l->b->o.leases || l->has_failed) {
        return;
    }
    l->asked++;
    hw_buf_clear(&l->out);
    bench_grant_encode(&l->out, l->b->o.ttl_s);
    g->request = (struct hw_request){.ops = &grant_ops, .data = g};
    if (hw_request_start(l->b->channels[l->asked % l->b->channel_count], &g->request, BENCH_PATH_GRANT, NULL, 0, true,
                         hw_buf_slice(&l->out), true) != 0) {
        l->has_failed = true;
        return;
    }
    l->granting++;
}

static void on_late(void *ctx)
{
    ((struct lease_run *)ctx)->has_failed = true;
}

static int grant_all(struct lease_run *l)
{
    struct bench *b = l->b;
    struct grant *grants = calloc(b->o.clients, sizeof *grants);
    struct hw_timer *late = hw_timer_new(b->loop, "grants", on_late, l);
    uint64_t start_us = hw_mono_us();
    if (grants == NULL) {
        return HW_ERR_NOMEM;
    }
    hw_timer_start(late, GRANT_MS_MAX, 0);
    for (unsigned i = 0; i < b->o.clients; i++) {
        grants[i].run = l;
        grant_next(&grants[i]);
    }
    while (l->granting > 0 && bench_turn(b)) {
    }
    hw_timer_free(late);
    l->granted_us = hw_mono_us() - start_us;
    if (b->is_unimplemented) {
        return HW_ERR_UNIMPLEMENTED;
    }
    if (l->granted < b->o.leases) {
        if (b->text[0] == '\0') {
            snprintf(b->text, sizeof b->text, "%u of %u leases granted", l->granted, b->o.leases);
        }
        return HW_ERR_UNAVAILABLE;
    }
    return 0;
}

/* ---- keep-alives ---- */

static int64_t next_lease(struct keeper *k)
{
    int64_t id = k->run->ids[k->at];
    k->at += k->run->keeper_count;
    if (k->at >= k->run->granted) {
        k->at %= k->run->keeper_count;
    }
    return id;
}

static void keep_more(struct keeper *k, bool is_first)
{
    struct lease_run *l = k->run;
    while (!l->b->is_stopping && k->sent - k->answered < PIPELINE) {
        int rc;
        hw_buf_clear(&l->out);
        bench_keep_alive_encode(&l->out, next_lease(k));
        k->started_ns[k->sent % PIPELINE] = hw_mono_ns();
        rc = is_first ? hw_request_start(l->b->channels[k->at % l->b->channel_count], &k->request,
                                         BENCH_PATH_KEEP_ALIVE, NULL, 0, true, hw_buf_slice(&l->out), false)
                      : hw_request_send(&k->request, hw_buf_slice(&l->out));
        if (rc != 0) {
            l->b->refused++;
            return;
        }
        l->live += is_first;
        is_first = false;
        k->sent++;
    }
}

static void on_kept(struct hw_request *r, struct hw_slice message)
{
    struct keeper *k = r->data;
    struct bench_field f;
    struct hw_reader reader;
    uint64_t ttl = 0;
    hw_reader_init(&reader, message.data, message.len);
    while (bench_field_next(&reader, &f)) {
        if (f.number == 3) {
            ttl = f.number_value;
        }
    }
    k->run->expired += ttl == 0;
    if (k->answered < k->sent) {
        bench_op_done(k->run->b, k->started_ns[k->answered % PIPELINE]);
        k->answered++;
    }
    keep_more(k, false);
}

static void on_keeper_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct keeper *k = r->data;
    k->run->live--;
    k->run->has_failed = true;
    bench_op_failed(k->run->b, status, text);
}

static const struct hw_request_ops keeper_ops = {.on_message = on_kept, .on_end = on_keeper_end};

static uint64_t under_way(const struct lease_run *l)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < l->keeper_count; i++) {
        n += l->keepers[i].sent - l->keepers[i].answered;
    }
    return n;
}

int bench_lease_run(struct bench *b)
{
    static struct lease_run l;
    int rc;
    l = (struct lease_run){.b = b};
    l.ids = calloc(b->o.leases, sizeof *l.ids);
    l.keeper_count = b->o.streams > 0 ? b->o.streams : STREAMS_DEFAULT;
    l.keeper_count = l.keeper_count < b->o.leases ? l.keeper_count : b->o.leases;
    l.keepers = calloc(l.keeper_count, sizeof *l.keepers);
    if (l.ids == NULL || l.keepers == NULL) {
        return HW_ERR_NOMEM;
    }
    rc = grant_all(&l);
    if (rc != 0) {
        return rc;
    }
    bench_window_start(b);
    for (unsigned i = 0; i < l.keeper_count; i++) {
        struct keeper *k = &l.keepers[i];
        *k = (struct keeper){.run = &l, .at = i, .request = {.ops = &keeper_ops, .data = k}};
        keep_more(k, true);
    }
    while ((!b->is_stopping || under_way(&l) > 0) && !l.has_failed && bench_turn(b)) {
    }
    bench_window_close(b);
    b->unfinished = under_way(&l);
    hw_buf_printf(&b->more, ", \"leases\": %u, \"grants_per_second\": %.1f, \"expired\": %llu", l.granted,
                  (double)l.granted * 1e6 / (double)(l.granted_us > 0 ? l.granted_us : 1),
                  (unsigned long long)l.expired);
    return 0;
}
