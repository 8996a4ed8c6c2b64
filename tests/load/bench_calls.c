/* put, get, txn, mixed and range: N clients, each with one call under way (a closed loop), on C connections. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "tests/load/bench.h"

enum op { OP_PUT, OP_GET, OP_TXN, OP_RANGE };

/* mixed: what a service does with its critical state, mostly reading */
#define MIXED_GET_PERCENT 70
#define MIXED_PUT_PERCENT 20

struct caller {
    struct calls *calls;
    struct hw_request request;
    unsigned number;
    enum op op;
    uint32_t key;
    uint64_t started_ns;
    unsigned item_count; /* keys in the answer */
    bool has_answer;
    bool is_waiting; /* failed; tries again at the next tick */
};

struct calls {
    struct bench *b;
    struct caller *callers;
    unsigned running;
    unsigned waiting;
    uint64_t issued;
    int64_t *revisions; /* of each key, as last seen: what a transaction compares with */
    struct hw_buf out;
    struct hw_buf scratch;
    uint64_t value_number;
    struct hw_timer *retry;
};

static void caller_next(struct caller *c);

static enum op op_of(struct calls *l)
{
    const char *w = l->b->o.workload;
    uint64_t dice;
    if (strcmp(w, "mixed") == 0) {
        dice = hw_rng_below(&l->b->rng, 100);
        return dice < MIXED_GET_PERCENT ? OP_GET : dice < MIXED_GET_PERCENT + MIXED_PUT_PERCENT ? OP_PUT : OP_TXN;
    }
    return strcmp(w, "put") == 0 ? OP_PUT : strcmp(w, "get") == 0 ? OP_GET : strcmp(w, "txn") == 0 ? OP_TXN : OP_RANGE;
}

/* ---- the end of a call ---- */

static void caller_stopped(struct caller *c)
{
    if (--c->calls->running == 0 && c->calls->b->o.count > 0) {
        bench_window_close(c->calls->b); /* a run by count ends with its last answer */
    }
}

static void caller_done(struct caller *c)
{
    struct bench *b = c->calls->b;
    if (c->op == OP_GET || c->op == OP_RANGE) {
        b->missing += c->item_count == 0;
        b->items += b->is_open ? c->item_count : 0;
    }
    bench_op_done(b, c->started_ns);
    caller_next(c);
}

static void on_message(struct hw_request *r, struct hw_slice message)
{
    struct caller *c = r->data;
    struct calls *l = c->calls;
    c->has_answer = true;
    c->item_count = 0;
    if (c->op == OP_TXN) {
        struct bench_txn_answer answer = bench_txn_decode(message);
        l->revisions[c->key] = answer.is_succeeded ? answer.revision : answer.mod_revision;
        l->b->conflicts += !answer.is_succeeded;
    } else if (c->op == OP_PUT) {
        if (l->revisions != NULL) {
            l->revisions[c->key] = bench_revision_of(message);
        }
    } else {
        struct bench_field f;
        struct hw_reader reader;
        hw_reader_init(&reader, message.data, message.len);
        while (bench_field_next(&reader, &f)) {
            c->item_count += f.number == 2;
            if (f.number == 2 && c->op == OP_GET && l->revisions != NULL) {
                l->revisions[c->key] = bench_kv_decode(f.bytes).mod_revision;
            }
        }
    }
}

static void on_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct caller *c = r->data;
    if (status == HW_GRPC_OK && c->has_answer) {
        caller_done(c);
        return;
    }
    bench_op_failed(c->calls->b, status == HW_GRPC_OK ? HW_GRPC_UNKNOWN : status, text);
    c->is_waiting = true;
    c->calls->waiting++;
}

static const struct hw_request_ops ops = {.on_message = on_message, .on_end = on_end};

static void on_ideal_answer(void *ctx, uint64_t id)
{
    struct calls *l = ctx;
    struct caller *c = &l->callers[id % l->b->o.clients];
    c->item_count = 1;
    caller_done(c);
}

/* ---- the start of a call ---- */

static struct hw_slice value_of(struct calls *l)
{
    /* each value is another one, or a server could know it already */
    if (l->b->o.value_bytes >= sizeof l->value_number) {
        l->value_number++;
        memcpy(l->b->value, &l->value_number, sizeof l->value_number);
    }
    return hw_slice_of(l->b->value, l->b->o.value_bytes);
}

static const char *encode(struct caller *c)
{
    struct calls *l = c->calls;
    const struct bench_options *o = &l->b->o;
    char key[BENCH_KEY_BYTES_MAX];
    char end[BENCH_KEY_BYTES_MAX];
    struct bench_range range = {.is_serializable = o->is_serializable};
    struct hw_slice k = hw_slice_of(key, bench_key(l->b, c->key, key));
    hw_buf_clear(&l->out);
    switch (c->op) {
    case OP_PUT:
        bench_put_encode(&l->out, k, value_of(l));
        return BENCH_PATH_PUT;
    case OP_TXN:
        bench_txn_encode(&l->out, &l->scratch, k, value_of(l), l->revisions[c->key]);
        return BENCH_PATH_TXN;
    case OP_RANGE:
        range.end = hw_slice_of(end, bench_key(l->b, c->key + o->range_keys, end));
        range.limit = o->range_keys;
        break;
    case OP_GET:
        break;
    }
    range.key = k;
    bench_range_encode(&l->out, &range);
    return BENCH_PATH_RANGE;
}

static int caller_send(struct caller *c)
{
    struct bench *b = c->calls->b;
    const char *path;
    if (b->o.is_ideal) {
        return bench_ideal_send(b, c->number, c->op == OP_GET, c->key,
                                c->op == OP_GET ? hw_slice_of(NULL, 0) : value_of(c->calls));
    }
    path = encode(c);
    c->has_answer = false;
    c->request.ops = &ops;
    c->request.data = c;
    /* No deadline of its own: it would cost both sides, and the end of the window bounds every call. */
    return hw_request_start(b->channels[c->number % b->channel_count], &c->request, path, NULL, 0, true,
                            hw_buf_slice(&c->calls->out), true);
}

static void caller_next(struct caller *c)
{
    struct calls *l = c->calls;
    const struct bench_options *o = &l->b->o;
    uint32_t span = o->keys;
    if (l->b->is_stopping || (o->count > 0 && l->issued >= o->count)) {
        caller_stopped(c);
        return;
    }
    c->op = op_of(l);
    if (c->op == OP_RANGE) {
        span = o->keys - o->range_keys + 1;
    }
    c->key = (uint32_t)(o->is_sequential ? l->issued % span : hw_rng_below(&l->b->rng, span));
    l->issued++;
    c->started_ns = hw_mono_ns();
    if (caller_send(c) != 0) {
        l->b->refused++;
        c->is_waiting = true;
        l->waiting++;
    }
}

/* What failed is sent again as it was, so that a fill leaves no key out. The clock of its latency goes on. */
static void on_retry(void *ctx)
{
    struct calls *l = ctx;
    for (unsigned i = 0; i < l->b->o.clients && l->waiting > 0; i++) {
        struct caller *c = &l->callers[i];
        if (!c->is_waiting) {
            continue;
        }
        if (l->b->is_stopping) {
            c->is_waiting = false;
            l->waiting--;
            caller_stopped(c);
        } else if (caller_send(c) == 0) {
            c->is_waiting = false;
            l->waiting--;
        }
    }
}

/* ---- the run ---- */

static void on_known_key(void *ctx, const struct bench_kv *kv)
{
    struct calls *l = ctx;
    uint32_t number;
    if (bench_key_number(l->b, kv->key, &number) && number < l->b->o.keys) {
        l->revisions[number] = kv->mod_revision;
    }
}

static int prepare(struct calls *l)
{
    struct bench *b = l->b;
    bool is_with_txn = strcmp(b->o.workload, "txn") == 0 || strcmp(b->o.workload, "mixed") == 0;
    l->callers = calloc(b->o.clients, sizeof *l->callers);
    l->revisions = is_with_txn ? calloc(b->o.keys, sizeof *l->revisions) : NULL;
    if (l->callers == NULL || (is_with_txn && l->revisions == NULL)) {
        return HW_ERR_NOMEM;
    }
    if (strcmp(b->o.workload, "range") == 0 && b->o.range_keys > b->o.keys) {
        snprintf(b->text, sizeof b->text, "--range is above --keys");
        return HW_ERR_INVALID;
    }
    if (b->o.is_ideal) {
        if (is_with_txn || strcmp(b->o.workload, "range") == 0) {
            snprintf(b->text, sizeof b->text, "the bare replicator knows put and get only");
            return HW_ERR_UNIMPLEMENTED;
        }
        return bench_ideal_connect(b, on_ideal_answer, l);
    }
    return is_with_txn ? bench_visit_keys(b, false, on_known_key, l) : 0;
}

int bench_calls_run(struct bench *b)
{
    struct calls l = {.b = b};
    int rc = prepare(&l);
    if (rc != 0) {
        return rc;
    }
    l.retry = hw_timer_new(b->loop, "retry", on_retry, &l);
    hw_timer_start(l.retry, BENCH_RETRY_MS, BENCH_RETRY_MS);
    l.running = b->o.clients;
    bench_window_start(b);
    for (unsigned i = 0; i < b->o.clients; i++) {
        l.callers[i] = (struct caller){.calls = &l, .number = i};
        caller_next(&l.callers[i]);
    }
    while (l.running > 0 && bench_turn(b)) {
    }
    bench_window_close(b);
    b->unfinished = l.running;
    hw_buf_printf(&b->more, ", \"conflicts\": %llu, \"missing\": %llu, \"items\": %llu",
                  (unsigned long long)b->conflicts, (unsigned long long)b->missing, (unsigned long long)b->items);
    return 0;
}
