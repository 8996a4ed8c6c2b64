#include "agent/api/range.h"

#include <string.h>

#include "agent/api/api_impl.h"
#include "agent/api/txn.h"
#include "agent/api/txn_answer.h"

/* The first step of a slice looks at so few keys, each further one at twice as many: what is charged for a small range
 * is then near to what it cost. */
#define FIRST_STEP_KEYS 16
/* How often connections are looked at that ranges wait for, and how many of these ranges at a time. */
#define AGAIN_MS 10
#define WAITING_LOOKED_MAX 1024
#define NO_TURN UINT64_MAX

enum progress {
    DONE,
    MORE,
    ENDED /* refused: the exchange is gone */
};

/* ---- budget ---- */

static void budget_renew(struct hw_api *api)
{
    struct hw_ranges *r = &api->ranges;
    struct hw_loop_stats stats;
    hw_loop_stats(api->loop, &stats, false);
    if (r->turn != stats.turns) {
        r->turn = stats.turns;
        r->keys_left = (int64_t)HW_RANGE_TURN_SLICES * api->config.scan_slice_keys;
        r->bytes_left = (int64_t)(HW_RANGE_TURN_SLICES * HW_RANGE_SLICE_BYTES);
        r->keys_turn = 0;
    }
}

static void charge_keys(struct hw_ranges *r, size_t keys)
{
    r->keys_left -= (int64_t)keys;
    r->keys_turn += keys;
    if (r->keys_turn > r->keys_turn_max) {
        r->keys_turn_max = r->keys_turn;
    }
}

/* `slices`: what is to be left over. */
static bool has_budget(const struct hw_api *api, unsigned slices)
{
    const struct hw_ranges *r = &api->ranges;
    return r->keys_left > (int64_t)slices * api->config.scan_slice_keys &&
           r->bytes_left > (int64_t)(slices * HW_RANGE_SLICE_BYTES);
}

/* ---- memory ---- */

/* Counted once a turn: there may be many connections. */
static size_t unsent(struct hw_api *api)
{
    struct hw_ranges *r = &api->ranges;
    if (r->unsent_turn != r->turn) {
        r->unsent_turn = r->turn;
        r->unsent = hw_rpc_server_queued(api->client_rpc);
    }
    return r->unsent;
}

static bool is_memory_short(struct hw_api *api)
{
    struct hw_ranges *r = &api->ranges;
    size_t bytes = unsent(api);
    struct hw_exchange *x;
    TAILQ_FOREACH(x, &r->built, work.range.link) {
        bytes += x->work.range.answer.len;
    }
    bytes += hw_txn_answers_bytes(api);
    if (bytes > r->bytes_peak) {
        r->bytes_peak = bytes;
    }
    return bytes > r->bytes_max;
}

/* ---- life ---- */

static void unlist(struct hw_exchange *x)
{
    struct hw_ranges *r = &x->api->ranges;
    struct hw_range_work *w = &x->work.range;
    if (w->list == NULL) {
        return;
    }
    TAILQ_REMOVE(w->list, x, work.range.link);
    r->waiting_count -= w->list == &r->waiting;
    r->built_count -= w->list == &r->built;
    w->list = NULL;
}

static void enlist(struct hw_exchange *x, struct hw_range_list *list)
{
    struct hw_ranges *r = &x->api->ranges;
    unlist(x);
    x->work.range.list = list;
    TAILQ_INSERT_TAIL(list, x, work.range.link);
    r->waiting_count += list == &r->waiting;
    r->built_count += list == &r->built;
}

static void let_go(struct hw_exchange *x)
{
    struct hw_range_work *w = &x->work.range;
    hw_scan_close(w->scan);
    w->scan = NULL;
    hw_buf_free(&w->answer);
    w->encoded = 0;
    w->is_scanned = false;
}

static void range_close(struct hw_exchange *x)
{
    unlist(x);
    let_go(x);
    x->abort = NULL;
}

static void range_refuse(struct hw_exchange *x, enum hw_refusal refusal)
{
    range_close(x);
    hw_exchange_refuse(x, refusal);
}

static bool is_connection_behind(const struct hw_exchange *x)
{
    return hw_exchange_unsent(x) > HW_RANGE_UNSENT_BYTES;
}

static bool may_be_built(const struct hw_exchange *x)
{
    const struct hw_ranges *r = &x->api->ranges;
    const struct hw_exchange *other;
    if (r->built_count >= HW_RANGES_BUILT_MAX || is_connection_behind(x)) {
        return false;
    }
    TAILQ_FOREACH(other, &r->built, work.range.link) {
        if (hw_exchange_connection(other) == hw_exchange_connection(x)) {
            return false;
        }
    }
    return true;
}

static void wait_for_a_place(struct hw_exchange *x)
{
    let_go(x);
    enlist(x, &x->api->ranges.waiting);
}

/* ---- one slice ---- */

/* The request is read here, each time: what was unpacked before a wait is gone. */
static bool range_open(struct hw_exchange *x)
{
    struct hw_range_work *w = &x->work.range;
    enum hw_refusal refusal;
    Etcdserverpb__RangeRequest *m;
    struct hw_range range;
    int rc;
    if (hw_exchange_is_over(x) || !hw_api_has_state(x->api)) {
        range_refuse(x, HW_REFUSE_TIMEOUT);
        return false;
    }
    unlist(x); /* unpacking may refuse */
    x->abort = NULL;
    m = hw_exchange_unpack(x, &etcdserverpb__range_request__descriptor);
    if (m == NULL) {
        return false;
    }
    if (!hw_range_convert(m, &range, &refusal)) {
        hw_exchange_refuse(x, refusal);
        return false;
    }
    w->keys_only = range.keys_only;
    w->is_single = range.range_end.len == 0;
    rc = hw_scan_start(hw_replica_hot(x->api->replica), &range, &w->scan);
    if (rc != 0) {
        hw_exchange_refuse(x, hw_refusal_of_result(rc));
        return false;
    }
    x->abort = range_close;
    return true;
}

static int scan_slice(struct hw_exchange *x)
{
    struct hw_range_work *w = &x->work.range;
    size_t left = x->api->config.scan_slice_keys;
    size_t step = w->is_single ? 1 : FIRST_STEP_KEYS;
    int rc = 1;
    while (rc > 0 && left > 0) {
        size_t keys = step < left ? step : left;
        rc = hw_scan_step(w->scan, keys);
        charge_keys(&x->api->ranges, keys);
        left -= keys;
        step *= 2;
    }
    return rc;
}

/* True when everything is encoded. */
static bool encode_slice(struct hw_exchange *x)
{
    struct hw_range_work *w = &x->work.range;
    size_t count;
    struct hw_version *const *kvs = hw_scan_kvs(w->scan, &count);
    size_t start = w->answer.len;
    size_t first = w->encoded;
    size_t stop = count - first > x->api->config.scan_slice_keys ? first + x->api->config.scan_slice_keys : count;
    if (first == 0) {
        struct hw_header header = hw_exchange_header(x, hw_scan_revision(w->scan));
        hw_encode_range_begin(&w->answer, &header);
    }
    while (w->encoded < stop && w->answer.len - start < HW_RANGE_SLICE_BYTES && !w->answer.failed) {
        hw_encode_range_kvs(&w->answer, kvs + w->encoded, 1, w->keys_only);
        w->encoded++;
    }
    if (w->encoded == count) {
        hw_encode_range_end(&w->answer, hw_scan_has_more(w->scan), hw_scan_count(w->scan));
    }
    charge_keys(&x->api->ranges, w->encoded - first);
    x->api->ranges.bytes_left -= (int64_t)(w->answer.len - start);
    return w->encoded == count;
}

static enum progress range_slice(struct hw_exchange *x)
{
    struct hw_range_work *w = &x->work.range;
    bool is_done = false;
    hw_loop_note(x->api->loop, "range");
    if (!w->is_scanned) {
        int rc = scan_slice(x);
        if (rc < 0) {
            range_refuse(x, hw_refusal_of_result(rc));
            return ENDED;
        }
        w->is_scanned = rc == 0;
    }
    if (w->is_scanned) {
        is_done = encode_slice(x);
    }
    if (w->answer.failed || w->answer.len > HW_ANSWER_BYTES_MAX) {
        range_refuse(x, w->answer.failed ? HW_REFUSE_NO_MEMORY : HW_REFUSE_ANSWER_TOO_LARGE);
        return ENDED;
    }
    return is_done ? DONE : MORE;
}

/* The answer is copied for the connection and the versions are let go of, both in one go: that may be most of what the
 * range costs, so nothing else of size follows in this turn. */
static void range_done(struct hw_exchange *x)
{
    struct hw_ranges *r = &x->api->ranges;
    struct hw_range_work *w = &x->work.range;
    struct hw_buf answer = w->answer;
    if (w->encoded > x->api->config.scan_slice_keys) {
        r->keys_left -= (int64_t)w->encoded;
    }
    r->bytes_left -= (int64_t)answer.len;
    r->unsent += answer.len;
    hw_buf_init(&w->answer);
    range_close(x);
    hw_exchange_ok_out(x, &answer);
    hw_buf_free(&answer);
}

/* Answered if one slice is enough. Else it is large, and its place is found here. */
static void range_try(struct hw_exchange *x)
{
    if (!range_open(x)) {
        return;
    }
    switch (range_slice(x)) {
    case DONE:
        if (x->work.range.answer.len > HW_RANGE_SMALL_BYTES && is_connection_behind(x)) {
            wait_for_a_place(x);
        } else {
            range_done(x);
        }
        break;
    case MORE:
        if (is_memory_short(x->api)) {
            range_refuse(x, HW_REFUSE_TOO_MANY_REQUESTS);
        } else if (may_be_built(x)) {
            enlist(x, &x->api->ranges.built);
        } else {
            wait_for_a_place(x);
        }
        break;
    case ENDED:
        break;
    }
}

/* ---- all of them ---- */

static void try_list(struct hw_api *api, struct hw_range_list *list)
{
    struct hw_exchange *x;
    while (has_budget(api, 0) && (x = TAILQ_FIRST(list)) != NULL) {
        range_try(x);
    }
}

/* Room for the first to end in: what the others have so far is given up, and they wait again. Answers that have no
 * reader stay in memory, so without this as many as are under way could still be added to them. */
static void leave_one(struct hw_api *api)
{
    struct hw_ranges *r = &api->ranges;
    while (r->built_count > 1 && is_memory_short(api)) {
        wait_for_a_place(TAILQ_LAST(&r->built, hw_range_list));
    }
}

static void build_one(struct hw_api *api)
{
    struct hw_ranges *r = &api->ranges;
    struct hw_exchange *x = TAILQ_FIRST(&r->built);
    if (hw_exchange_is_over(x)) {
        range_refuse(x, HW_REFUSE_TIMEOUT);
        return;
    }
    switch (range_slice(x)) {
    case DONE:
        range_done(x);
        break;
    case MORE:
        if (is_memory_short(api)) {
            leave_one(api);
        } else {
            enlist(x, &r->built); /* behind the others */
        }
        break;
    case ENDED:
        break;
    }
}

static void admit_waiting(struct hw_api *api)
{
    struct hw_ranges *r = &api->ranges;
    unsigned looked = r->waiting_count < WAITING_LOOKED_MAX ? r->waiting_count : WAITING_LOOKED_MAX;
    bool is_short = is_memory_short(api);
    while (looked-- > 0 && r->built_count < HW_RANGES_BUILT_MAX) {
        struct hw_exchange *x = TAILQ_FIRST(&r->waiting);
        if (hw_exchange_is_over(x)) {
            range_refuse(x, HW_REFUSE_TIMEOUT);
        } else if (is_short || !may_be_built(x)) {
            enlist(x, &r->waiting);
        } else if (range_open(x)) {
            enlist(x, &r->built);
        }
    }
}

static void arm(struct hw_api *api)
{
    struct hw_ranges *r = &api->ranges;
    if (!TAILQ_EMPTY(&r->singles) || !TAILQ_EMPTY(&r->fresh) || !TAILQ_EMPTY(&r->built)) {
        hw_defer_post(api->loop, &r->go_on);
    } else if (!TAILQ_EMPTY(&r->waiting) && !hw_timer_is_active(r->again)) {
        hw_timer_start(r->again, AGAIN_MS, 0);
    }
}

/* New ranges may not keep those under way from getting on: these have the first slice, and what is left at the end. */
static void ranges_go_on(struct hw_api *api)
{
    struct hw_ranges *r = &api->ranges;
    budget_renew(api);
    admit_waiting(api);
    if (!TAILQ_EMPTY(&r->built) && has_budget(api, 0)) {
        build_one(api);
    }
    try_list(api, &r->singles);
    try_list(api, &r->fresh);
    while (!TAILQ_EMPTY(&r->built) && has_budget(api, 0)) {
        build_one(api);
    }
    arm(api);
}

static void on_go_on(struct hw_defer *d)
{
    ranges_go_on(hw_container_of(d, struct hw_api, ranges.go_on));
}

static void on_again(void *ctx)
{
    ranges_go_on(ctx);
}

static void try_or_enlist(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    struct hw_ranges *r = &api->ranges;
    bool has_slice = has_budget(api, TAILQ_EMPTY(&r->built) ? 0 : 1);
    struct hw_range_list *list = &r->fresh;
    if (!has_slice || !TAILQ_EMPTY(&r->singles) || !TAILQ_EMPTY(&r->fresh)) {
        Etcdserverpb__RangeRequest *m = hw_exchange_unpack(x, &etcdserverpb__range_request__descriptor);
        if (m == NULL) {
            return;
        }
        list = m->range_end.len == 0 ? &r->singles : &r->fresh;
    }
    if (has_slice && TAILQ_EMPTY(list)) {
        range_try(x);
    } else {
        x->abort = range_close;
        enlist(x, list);
    }
}

void hw_range_answer(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    memset(&x->work.range, 0, sizeof x->work.range);
    budget_renew(api);
    try_or_enlist(x);
    arm(api);
}

bool hw_ranges_may_walk(struct hw_api *api)
{
    struct hw_ranges *r = &api->ranges;
    budget_renew(api);
    if (has_budget(api, 0)) {
        return true;
    }
    if (r->grace_turn == r->turn) {
        return false;
    }
    r->grace_turn = r->turn;
    return true;
}

void hw_ranges_charge(struct hw_api *api, size_t keys, size_t bytes)
{
    charge_keys(&api->ranges, keys);
    api->ranges.bytes_left -= (int64_t)bytes;
}

bool hw_ranges_is_memory_short(struct hw_api *api)
{
    budget_renew(api);
    return is_memory_short(api);
}

void hw_ranges_init(struct hw_api *api)
{
    struct hw_ranges *r = &api->ranges;
    TAILQ_INIT(&r->singles);
    TAILQ_INIT(&r->fresh);
    TAILQ_INIT(&r->waiting);
    TAILQ_INIT(&r->built);
    r->bytes_max = HW_RANGE_BYTES_MAX;
    r->turn = NO_TURN;
    r->unsent_turn = NO_TURN;
    r->grace_turn = NO_TURN;
    hw_defer_init(&r->go_on, on_go_on);
    hw_txn_answers_init(api);
    r->again = hw_timer_new(api->loop, "api ranges", on_again, api);
}

void hw_ranges_close(struct hw_api *api)
{
    struct hw_ranges *r = &api->ranges;
    hw_assert(TAILQ_EMPTY(&r->singles) && TAILQ_EMPTY(&r->fresh) && r->waiting_count == 0 && r->built_count == 0);
    hw_txn_answers_close(api);
    hw_defer_cancel(api->loop, &r->go_on);
    hw_timer_free(r->again);
    r->again = NULL;
}
