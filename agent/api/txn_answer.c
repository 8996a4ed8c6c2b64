#include "agent/api/txn_answer.h"

#include <stdlib.h>

#include "agent/api/api_impl.h"

#define FIRST_STEP_KEYS 16

/* One transaction that is being written, and its operation under way; the outermost is frame 0. */
struct frame {
    const struct hw_txn_result *txn;
    size_t at;
    size_t begin; /* of the operation under way: a nested transaction or a deferred range */
};

enum step { NEXT_OP, SCAN, ENCODE, LET_GO };

struct hw_txn_answer {
    struct hw_exchange *x;
    struct hw_result result;
    struct hw_buf out;
    struct frame frames[HW_TXN_DEPTH_MAX];
    unsigned depth; /* frames in use; 0: all is written */
    enum step step;
    struct hw_scan *scan;
    size_t encoded;
    bool keys_only;
    TAILQ_ENTRY(hw_txn_answer) link;
};

bool hw_txn_has_deferred(const struct hw_txn_result *txn)
{
    for (size_t i = 0; i < txn->op_count; i++) {
        const struct hw_op_result *op = &txn->ops[i];
        if (op->range.deferred != NULL || (op->txn != NULL && hw_txn_has_deferred(op->txn))) {
            return true;
        }
    }
    return false;
}

/* ---- at once ---- */

static void answer_whole(struct hw_exchange *x, const struct hw_result *result)
{
    struct hw_header header = hw_exchange_header(x, result->revision);
    struct hw_buf *out = hw_exchange_out(x);
    size_t size = hw_encode_txn_size(&header, &result->txn);
    if (size > HW_ANSWER_BYTES_MAX) {
        hw_exchange_refuse(x, HW_REFUSE_ANSWER_TOO_LARGE);
        return;
    }
    hw_buf_reserve(out, size);
    hw_encode_txn(out, &header, &result->txn);
    hw_exchange_ok_out(x, out);
}

/* ---- in slices ---- */

static void answer_close(struct hw_exchange *x)
{
    struct hw_txn_answer *a = x->data;
    TAILQ_REMOVE(&x->api->ranges.txns, a, link);
    x->api->ranges.txn_count--;
    hw_scan_close(a->scan);
    hw_result_free(&a->result);
    hw_buf_free(&a->out);
    free(a);
    x->data = NULL;
    x->abort = NULL;
}

static void answer_refuse(struct hw_txn_answer *a, enum hw_refusal refusal)
{
    struct hw_exchange *x = a->x;
    answer_close(x);
    hw_exchange_refuse(x, refusal);
}

static void answer_done(struct hw_txn_answer *a)
{
    struct hw_exchange *x = a->x;
    struct hw_buf out = a->out;
    hw_ranges_charge(x->api, 0, out.len);
    hw_buf_init(&a->out);
    answer_close(x);
    hw_exchange_ok_out(x, &out);
    hw_buf_free(&out);
}

/* Operations up to the next that is deferred, or the end. 0, or HW_ERR_NOMEM. */
static int next_op(struct hw_txn_answer *a)
{
    while (a->depth > 0) {
        struct frame *f = &a->frames[a->depth - 1];
        struct hw_header inner = {.revision = a->result.revision};
        const struct hw_op_result *op;
        if (f->at == f->txn->op_count) {
            a->depth--;
            if (a->depth > 0) {
                hw_encode_op_end(&a->out, a->frames[a->depth - 1].begin);
            }
            continue;
        }
        op = &f->txn->ops[f->at++];
        if (op->type == HW_OP_TXN && hw_txn_has_deferred(op->txn)) {
            hw_assert(a->depth < HW_TXN_DEPTH_MAX);
            f->begin = hw_encode_op_begin(&a->out, HW_OP_TXN);
            hw_encode_txn_begin(&a->out, &inner, op->txn->succeeded);
            a->frames[a->depth++] = (struct frame){.txn = op->txn};
        } else if (op->range.deferred != NULL) {
            f->begin = hw_encode_op_begin(&a->out, HW_OP_RANGE);
            hw_encode_range_begin(&a->out, &inner);
            a->keys_only = op->range.keys_only;
            a->encoded = 0;
            a->step = SCAN;
            return hw_scan_start_deferred(hw_replica_hot(a->x->api->replica), op->range.deferred, &a->scan);
        } else {
            hw_encode_op(&a->out, &inner, op);
        }
    }
    return 0;
}

static int scan_slice(struct hw_txn_answer *a)
{
    struct hw_api *api = a->x->api;
    size_t left = api->config.scan_slice_keys;
    size_t step = FIRST_STEP_KEYS;
    int rc = 1;
    while (rc > 0 && left > 0) {
        size_t keys = step < left ? step : left;
        rc = hw_scan_step(a->scan, keys);
        hw_ranges_charge(api, keys, 0);
        left -= keys;
        step *= 2;
    }
    a->step = rc == 0 ? ENCODE : a->step;
    return rc < 0 ? rc : 0;
}

static void encode_slice(struct hw_txn_answer *a)
{
    size_t count;
    struct hw_version *const *kvs = hw_scan_kvs(a->scan, &count);
    size_t start = a->out.len;
    size_t first = a->encoded;
    size_t slice = a->x->api->config.scan_slice_keys;
    while (a->encoded < count && a->encoded - first < slice && a->out.len - start < HW_RANGE_SLICE_BYTES &&
           !a->out.failed) {
        hw_encode_range_kvs(&a->out, kvs + a->encoded, 1, a->keys_only);
        a->encoded++;
    }
    hw_ranges_charge(a->x->api, a->encoded - first + 1, a->out.len - start);
    if (a->encoded == count) {
        hw_encode_range_end(&a->out, hw_scan_has_more(a->scan), hw_scan_count(a->scan));
        hw_encode_op_end(&a->out, a->frames[a->depth - 1].begin);
        a->step = LET_GO;
    }
}

/* One slice; HW_ERR_NOMEM, HW_ERR_TOOBIG. */
static int answer_slice(struct hw_txn_answer *a)
{
    size_t slice = a->x->api->config.scan_slice_keys;
    int rc = 0;
    switch (a->step) {
    case NEXT_OP:
        rc = next_op(a);
        hw_ranges_charge(a->x->api, 1, 0);
        break;
    case SCAN:
        rc = scan_slice(a);
        break;
    case ENCODE:
        encode_slice(a);
        break;
    case LET_GO:
        hw_ranges_charge(a->x->api, a->encoded < slice ? a->encoded : slice, 0);
        if (hw_scan_close_step(a->scan, slice)) {
            a->scan = NULL;
            a->step = NEXT_OP;
        } else {
            a->encoded -= slice;
        }
        break;
    }
    return rc != 0 ? rc : a->out.failed ? HW_ERR_NOMEM : a->out.len > HW_ANSWER_BYTES_MAX ? HW_ERR_TOOBIG : 0;
}

static void refuse_those_over(struct hw_api *api)
{
    struct hw_txn_answer *a;
    struct hw_txn_answer *next;
    for (a = TAILQ_FIRST(&api->ranges.txns); a != NULL; a = next) {
        next = TAILQ_NEXT(a, link);
        if (hw_exchange_is_over(a->x)) {
            answer_refuse(a, HW_REFUSE_TIMEOUT);
        }
    }
}

static void on_go_on(struct hw_defer *d)
{
    struct hw_api *api = hw_container_of(d, struct hw_api, ranges.txns_go_on);
    struct hw_txn_answer *a;
    refuse_those_over(api);
    hw_loop_note(api->loop, "txn ranges");
    while ((a = TAILQ_FIRST(&api->ranges.txns)) != NULL && hw_ranges_may_walk(api)) {
        int rc = answer_slice(a);
        if (rc != 0) {
            answer_refuse(a, rc == HW_ERR_TOOBIG ? HW_REFUSE_ANSWER_TOO_LARGE : HW_REFUSE_NO_MEMORY);
        } else if (a->depth == 0 && a->step == NEXT_OP) {
            answer_done(a);
        }
    }
    if (!TAILQ_EMPTY(&api->ranges.txns)) {
        hw_defer_post(api->loop, d);
    }
}

void hw_txn_answer(struct hw_exchange *x, struct hw_result *result)
{
    struct hw_api *api = x->api;
    struct hw_txn_answer *a = NULL;
    struct hw_header header;
    if (!hw_txn_has_deferred(&result->txn)) {
        answer_whole(x, result);
        hw_result_free(result);
        return;
    }
    if (api->ranges.txn_count < HW_TXN_ANSWERS_MAX && !hw_ranges_is_memory_short(api)) {
        a = calloc(1, sizeof *a);
    }
    if (a == NULL) {
        hw_result_free(result);
        hw_exchange_refuse(x, HW_REFUSE_TOO_MANY_REQUESTS);
        return;
    }
    a->x = x;
    a->result = *result;
    a->frames[0].txn = &a->result.txn;
    a->depth = 1;
    header = hw_exchange_header(x, result->revision);
    hw_encode_txn_begin(&a->out, &header, a->result.txn.succeeded);
    x->data = a;
    x->abort = answer_close;
    TAILQ_INSERT_TAIL(&api->ranges.txns, a, link);
    api->ranges.txn_count++;
    hw_defer_post(api->loop, &api->ranges.txns_go_on);
}

size_t hw_txn_answers_bytes(const struct hw_api *api)
{
    const struct hw_txn_answer *a;
    size_t bytes = 0;
    TAILQ_FOREACH(a, &api->ranges.txns, link) {
        bytes += a->out.len;
    }
    return bytes;
}

void hw_txn_answers_init(struct hw_api *api)
{
    TAILQ_INIT(&api->ranges.txns);
    hw_defer_init(&api->ranges.txns_go_on, on_go_on);
}

void hw_txn_answers_close(struct hw_api *api)
{
    hw_assert(TAILQ_EMPTY(&api->ranges.txns));
    hw_defer_cancel(api->loop, &api->ranges.txns_go_on);
}
