#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "tests/load/bench.h"

#define GRACE_MS 10000u
/* A run by count has no end in time of its own; this is for a server that hangs. */
#define COUNT_RUN_MS_MAX 900000u
#define PAGE_KEYS 2000u
#define PAGE_TRIES 50u
#define PAGE_TIMEOUT_MS 10000u
#define KEY_DIGITS 8u

static uint64_t cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u + (uint64_t)u.ru_utime.tv_usec +
           (uint64_t)u.ru_stime.tv_usec;
}

static void open_window(struct bench *b)
{
    b->is_open = true;
    b->opened_ns = hw_mono_ns();
    b->cpu_us = cpu_us();
}

void bench_window_close(struct bench *b)
{
    if (b->is_open) {
        b->is_open = false;
        b->closed_ns = hw_mono_ns();
        b->cpu_us = cpu_us() - b->cpu_us;
    }
    if (!b->is_stopping) {
        b->is_stopping = true;
        hw_timer_start(b->timer, GRACE_MS, 0);
    }
}

static void on_timer(void *ctx)
{
    struct bench *b = ctx;
    if (b->is_stopping) {
        b->is_abandoned = true;
    } else if (!b->is_open) {
        open_window(b);
        hw_timer_start(b->timer, (uint64_t)(b->o.seconds * 1e3), 0);
    } else {
        bench_window_close(b);
    }
}

void bench_window_start(struct bench *b)
{
    b->timer = hw_timer_new(b->loop, "window", on_timer, b);
    if (b->o.count > 0) {
        open_window(b);
        hw_timer_start(b->timer, COUNT_RUN_MS_MAX, 0);
    } else {
        hw_timer_start(b->timer, (uint64_t)(b->o.warmup_s * 1e3), 0);
    }
}

bool bench_turn(struct bench *b)
{
    return !b->is_abandoned && hw_loop_turn(b->loop, true);
}

void bench_op_done(struct bench *b, uint64_t started_ns)
{
    b->ops_all++;
    if (b->is_open) {
        b->ops++;
        bench_hist_add(&b->hist, hw_mono_ns() - started_ns);
    }
}

void bench_op_failed(struct bench *b, enum hw_grpc status, const char *text)
{
    b->errors[(unsigned)status < BENCH_RPC_STATUSES ? status : HW_GRPC_UNKNOWN]++;
    if (b->text[0] == '\0') {
        snprintf(b->text, sizeof b->text, "%s", text != NULL ? text : "failed");
    }
    if (status == HW_GRPC_UNIMPLEMENTED) {
        b->is_unimplemented = true;
        b->is_abandoned = true;
    }
}

/* snprintf would be a third of what a call costs here. */
size_t bench_key(const struct bench *b, uint32_t number, char key[BENCH_KEY_BYTES_MAX])
{
    size_t n = strlen(b->o.prefix);
    memcpy(key, b->o.prefix, n);
    for (unsigned i = KEY_DIGITS; i > 0; i--) {
        key[n + i - 1] = (char)('0' + number % 10);
        number /= 10;
    }
    return n + KEY_DIGITS;
}

bool bench_key_number(const struct bench *b, struct hw_slice key, uint32_t *number)
{
    size_t n = strlen(b->o.prefix);
    if (key.len != n + KEY_DIGITS || memcmp(key.data, b->o.prefix, n) != 0) {
        return false;
    }
    *number = 0;
    for (size_t i = n; i < key.len; i++) {
        *number = *number * 10 + (uint32_t)(key.data[i] - '0');
    }
    return true;
}

/* ---- all keys of the prefix ---- */

struct pages {
    struct bench *b;
    struct hw_request request;
    void (*visit)(void *ctx, const struct bench_kv *kv);
    void *ctx;
    uint8_t next[BENCH_KEY_BYTES_MAX + 1]; /* where the next page begins */
    size_t next_len;
    bool has_more;
    bool is_ended;
    bool has_answer;
};

static void on_page(struct hw_request *r, struct hw_slice message)
{
    struct pages *p = r->data;
    struct bench_field f;
    struct hw_reader reader;
    hw_reader_init(&reader, message.data, message.len);
    while (bench_field_next(&reader, &f)) {
        if (f.number == 2) {
            struct bench_kv kv = bench_kv_decode(f.bytes);
            if (kv.key.len > 0 && kv.key.len < BENCH_KEY_BYTES_MAX) {
                p->visit(p->ctx, &kv);
                memcpy(p->next, kv.key.data, kv.key.len);
                p->next[kv.key.len] = 0; /* the key after it */
                p->next_len = kv.key.len + 1;
            }
        } else if (f.number == 3) {
            p->has_more = f.number_value != 0;
        }
    }
    p->has_answer = !reader.failed;
}

static void on_page_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct pages *p = r->data;
    p->is_ended = true;
    p->has_answer = p->has_answer && status == HW_GRPC_OK;
    if (status != HW_GRPC_OK) {
        snprintf(p->b->text, sizeof p->b->text, "read keys: %s", text != NULL ? text : "failed");
    }
}

static const struct hw_request_ops page_ops = {.on_message = on_page, .on_end = on_page_end};

/* One page from one of the channels; false when there was no whole answer. */
static bool read_page(struct pages *p, struct hw_channel *channel, struct bench_range *range)
{
    struct hw_buf out;
    bool is_started;
    hw_buf_init(&out);
    range->key = hw_slice_of(p->next, p->next_len);
    bench_range_encode(&out, range);
    p->is_ended = p->has_answer = p->has_more = false;
    p->request = (struct hw_request){.ops = &page_ops, .data = p};
    is_started = hw_request_start(channel, &p->request, BENCH_PATH_RANGE, NULL, PAGE_TIMEOUT_MS, false,
                                  hw_buf_slice(&out), true) == 0;
    hw_buf_free(&out);
    while (is_started && !p->is_ended && hw_loop_turn(p->b->loop, true)) {
    }
    return p->has_answer;
}

int bench_visit_keys(struct bench *b, bool is_serializable, void (*visit)(void *ctx, const struct bench_kv *kv),
                     void *ctx)
{
    struct pages p = {.b = b, .visit = visit, .ctx = ctx, .next_len = strlen(b->o.prefix)};
    uint8_t end[BENCH_KEY_BYTES_MAX];
    struct bench_range range = {.limit = PAGE_KEYS, .is_serializable = is_serializable, .is_keys_only = true};
    unsigned tries = 0;
    memcpy(p.next, b->o.prefix, p.next_len);
    memcpy(end, b->o.prefix, p.next_len);
    end[p.next_len - 1]++;
    range.end = hw_slice_of(end, p.next_len);
    do {
        /* a node may have gone away: ask another */
        if (!read_page(&p, b->channels[tries % b->channel_count], &range)) {
            if (++tries >= PAGE_TRIES) {
                return HW_ERR_UNAVAILABLE;
            }
            p.has_more = true;
        }
    } while (p.has_more);
    b->text[0] = '\0';
    return 0;
}
