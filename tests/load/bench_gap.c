/* gap: how long nothing is acknowledged while a system loses or moves its leader.
 *
 * Puts are sent at a steady rate whatever has become of the earlier ones (an open loop), to the endpoints in turn: a
 * closed loop would measure how long its own calls hang on a server that does not know yet that its leader is gone.
 * Each put has a key of its own, and all that were acknowledged are read back at the end. With --kill this process
 * does the kill itself, so the time of it is exact; first_ack_ms is from there to the first acknowledgement of a put
 * that was sent after it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "tests/load/bench.h"

#define TICK_MS 1u
#define CALL_MS 5000u
#define UNDER_WAY_MAX 16384u
#define PUTS_MAX 1000000u

struct probe {
    struct hw_request request;
    struct gap *gap;
    uint32_t number;
    uint64_t sent_ns;
    bool has_answer;
    struct probe *next_free;
};

struct gap {
    struct bench *b;
    struct probe *free;
    uint8_t *acked; /* by number: 1 acknowledged, 2 and found again */
    uint32_t puts_max;
    uint32_t next;
    uint32_t acked_count;
    uint32_t found;
    unsigned under_way;
    uint64_t left_out;
    uint64_t start_ns;
    uint64_t killed_ns;    /* 0: not yet */
    uint64_t first_ack_ns; /* of a put sent after the kill */
    uint64_t last_ack_ns;
    uint64_t gap_ns;
    uint64_t gap_at_ns;
    int kill_error;
    struct hw_buf out;
    struct hw_timer *tick;
};

static void on_message(struct hw_request *r, struct hw_slice message)
{
    ((struct probe *)r->data)->has_answer = bench_revision_of(message) > 0;
}

static void acknowledged(struct gap *g, const struct probe *p)
{
    uint64_t now = hw_mono_ns();
    g->acked[p->number] = 1;
    g->acked_count++;
    if (now - g->last_ack_ns > g->gap_ns) {
        g->gap_ns = now - g->last_ack_ns;
        g->gap_at_ns = g->last_ack_ns - g->start_ns;
    }
    g->last_ack_ns = now;
    if (g->killed_ns != 0 && g->first_ack_ns == 0 && p->sent_ns > g->killed_ns) {
        g->first_ack_ns = now;
    }
    bench_op_done(g->b, p->sent_ns);
}

static void on_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct probe *p = r->data;
    struct gap *g = p->gap;
    if (status == HW_GRPC_OK && p->has_answer) {
        acknowledged(g, p);
    } else {
        bench_op_failed(g->b, status == HW_GRPC_OK ? HW_GRPC_UNKNOWN : status, text);
    }
    g->under_way--;
    p->next_free = g->free;
    g->free = p;
}

static const struct hw_request_ops ops = {.on_message = on_message, .on_end = on_end};

static void probe_send(struct gap *g)
{
    struct bench *b = g->b;
    struct probe *p = g->free;
    char key[BENCH_KEY_BYTES_MAX];
    if (p == NULL) {
        g->left_out++;
        return;
    }
    p->request = (struct hw_request){.ops = &ops, .data = p};
    p->gap = g;
    p->has_answer = false;
    p->number = g->next++;
    p->sent_ns = hw_mono_ns();
    hw_buf_clear(&g->out);
    bench_put_encode(&g->out, hw_slice_of(key, bench_key(b, p->number, key)), hw_slice_of(b->value, b->o.value_bytes));
    if (hw_request_start(b->channels[p->number % b->channel_count], &p->request, BENCH_PATH_PUT, NULL, CALL_MS, true,
                         hw_buf_slice(&g->out), true) != 0) {
        b->refused++;
        return;
    }
    g->free = p->next_free;
    g->under_way++;
}

static void on_tick(void *ctx)
{
    struct gap *g = ctx;
    const struct bench_options *o = &g->b->o;
    uint64_t elapsed_us = (hw_mono_ns() - g->start_ns) / 1000u;
    uint64_t due = elapsed_us * o->rate / 1000000u;
    if (o->kill_pid != 0 && g->killed_ns == 0 && elapsed_us >= o->kill_after_ms * 1000u) {
        g->killed_ns = hw_mono_ns();
        g->kill_error = kill((pid_t)o->kill_pid, SIGKILL) == 0 ? 0 : errno;
    }
    while (!g->b->is_stopping && g->next + g->left_out < due && g->next < g->puts_max) {
        probe_send(g);
    }
}

static void on_found(void *ctx, const struct bench_kv *kv)
{
    struct gap *g = ctx;
    uint32_t number;
    if (bench_key_number(g->b, kv->key, &number) && number < g->next && g->acked[number] == 1) {
        g->acked[number] = 2;
        g->found++;
    }
}

static int prepare(struct gap *g)
{
    const struct bench_options *o = &g->b->o;
    double puts = (o->seconds + o->warmup_s) * o->rate + 1000;
    struct probe *probes = calloc(UNDER_WAY_MAX, sizeof *probes);
    g->puts_max = puts < PUTS_MAX ? (uint32_t)puts : PUTS_MAX;
    g->acked = calloc(g->puts_max, 1);
    if (o->rate == 0) {
        snprintf(g->b->text, sizeof g->b->text, "gap needs a --rate above 0");
        return HW_ERR_INVALID;
    }
    if (probes == NULL || g->acked == NULL) {
        return HW_ERR_NOMEM;
    }
    for (unsigned i = 0; i < UNDER_WAY_MAX; i++) {
        probes[i].next_free = g->free;
        g->free = &probes[i];
    }
    return 0;
}

int bench_gap_run(struct bench *b)
{
    static struct gap g;
    int rc;
    g = (struct gap){.b = b};
    rc = prepare(&g);
    if (rc != 0) {
        return rc;
    }
    b->o.warmup_s = 0;
    g.tick = hw_timer_new(b->loop, "probes", on_tick, &g);
    g.start_ns = g.last_ack_ns = hw_mono_ns();
    hw_timer_start(g.tick, TICK_MS, TICK_MS);
    bench_window_start(b);
    while ((!b->is_stopping || g.under_way > 0) && bench_turn(b)) {
    }
    bench_window_close(b);
    b->unfinished = g.under_way;
    if (g.kill_error != 0) {
        snprintf(b->text, sizeof b->text, "kill %ld: %s", b->o.kill_pid, strerror(g.kill_error));
        return HW_ERR_NOTFOUND;
    }
    rc = bench_visit_keys(b, false, on_found, &g);
    if (rc != 0) {
        return rc;
    }
    hw_buf_printf(&b->more,
                  ", \"acknowledged\": %u, \"lost\": %u, \"left_out\": %llu, \"longest_gap_ms\": %.2f, "
                  "\"gap_at_ms\": %.1f",
                  g.acked_count, g.acked_count - g.found, (unsigned long long)g.left_out, (double)g.gap_ns / 1e6,
                  (double)g.gap_at_ns / 1e6);
    if (g.first_ack_ns != 0) {
        hw_buf_printf(&b->more, ", \"first_ack_ms\": %.2f", (double)(g.first_ack_ns - g.killed_ns) / 1e6);
    }
    return 0;
}
