/* bench: a closed loop of `clients` calls in flight, over several connections, for a number of operations or a time.
 *
 * With --rate an operation has a due time, and its latency counts from that: a server that stalls cannot hide the
 * operations that had to wait for it (coordinated omission). Without it, from the moment it was sent.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "cli/call.h"
#include "cli/output.h"
#include "cli/run.h"
#include "cli/samples.h"
#include "proto/etcd.pb-c.h"

#define CHANNELS_MAX 64
#define STATUS_COUNT 17
#define COUNT_DEFAULT 10000
#define TICK_MS 1

struct bench;

struct client {
    struct hw_request request;
    struct bench *bench;
    unsigned channel;
    bool is_busy;
    uint64_t due_us;
};

struct bench {
    struct hw_ctl *ctl;
    unsigned put_percent;
    unsigned channel_count;
    unsigned client_count;
    uint64_t count_max; /* 0: by time */
    uint64_t end_us;    /* 0: by count */
    uint64_t key_count;
    uint64_t rate; /* operations a second; 0: as fast as they go */
    const char *prefix;
    struct hw_buf value;
    struct hw_buf packed;
    struct hw_channel *channels[CHANNELS_MAX];
    struct client *clients;
    struct hw_timer *tick;
    struct hw_rng rng;
    struct hw_ctl_samples samples;
    uint64_t start_us;
    uint64_t stop_us;
    uint64_t started;
    uint64_t ok;
    uint64_t errors[STATUS_COUNT];
    unsigned in_flight;
    bool is_over; /* nothing more is started */
    bool is_done;
    char first_error[256];
};

static bool has_more(const struct bench *b, uint64_t now_us)
{
    if (b->is_over || b->ctl->is_interrupted) {
        return false;
    }
    return b->count_max > 0 ? b->started < b->count_max : now_us < b->end_us;
}

static uint64_t due_of_next(const struct bench *b, uint64_t now_us)
{
    return b->rate > 0 ? b->start_us + b->started * 1000000 / b->rate : now_us;
}

static int pack_operation(struct bench *b, const char **path)
{
    char key[256];
    bool is_put = hw_rng_below(&b->rng, 100) < b->put_percent;
    struct hw_error e;
    int n = snprintf(key, sizeof key, "%s%010llu", b->prefix, (unsigned long long)hw_rng_below(&b->rng, b->key_count));
    ProtobufCBinaryData key_bytes = {(size_t)n, (uint8_t *)key};
    hw_buf_clear(&b->packed);
    if (is_put) {
        Etcdserverpb__PutRequest q = ETCDSERVERPB__PUT_REQUEST__INIT;
        q.key = key_bytes;
        q.value = (ProtobufCBinaryData){b->value.len, b->value.data};
        *path = "/etcdserverpb.KV/Put";
        return hw_ctl_pack(&q.base, &b->packed, &e);
    }
    Etcdserverpb__RangeRequest q = ETCDSERVERPB__RANGE_REQUEST__INIT;
    q.key = key_bytes;
    *path = "/etcdserverpb.KV/Range";
    return hw_ctl_pack(&q.base, &b->packed, &e);
}

static const struct hw_request_ops request_ops;

/* One operation, if one is due; false when this client stays idle until the next tick. */
static bool start_one(struct bench *b, struct client *c)
{
    uint64_t now_us = hw_mono_us();
    uint64_t due_us = due_of_next(b, now_us);
    const char *path;
    if (!has_more(b, now_us) || due_us > now_us || pack_operation(b, &path) != 0) {
        return false;
    }
    c->due_us = due_us;
    c->request = (struct hw_request){.ops = &request_ops, .data = c};
    if (hw_request_start(b->channels[c->channel], &c->request, path, NULL, b->ctl->settings.timeout_ms, false,
                         hw_buf_slice(&b->packed), true) != 0) {
        return false; /* the channel's queue is full: the next tick tries again */
    }
    b->started++;
    b->in_flight++;
    c->is_busy = true;
    return true;
}

static void on_message(struct hw_request *r, struct hw_slice message)
{
    (void)r;
    (void)message; /* what the keys hold is not the question */
}

static void on_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct client *c = r->data;
    struct bench *b = c->bench;
    uint64_t now_us = hw_mono_us();
    c->is_busy = false;
    b->in_flight--;
    b->stop_us = now_us;
    if (status == HW_GRPC_OK) {
        b->ok++;
        hw_ctl_samples_add(&b->samples, now_us - c->due_us);
    } else if (status != HW_GRPC_CANCELLED || !b->is_over) { /* what bench itself cut short is no failure */
        b->errors[(unsigned)status < STATUS_COUNT ? (unsigned)status : HW_GRPC_UNKNOWN]++;
        if (b->first_error[0] == '\0') {
            snprintf(b->first_error, sizeof b->first_error, "%s",
                     text != NULL && *text != '\0' ? text : "no reason given");
        }
    }
    b->is_done = b->in_flight == 0 && !has_more(b, now_us);
    if (status == HW_GRPC_OK) { /* after a failure the next tick goes on: no spinning on a dead server */
        start_one(b, c);
    }
}

static const struct hw_request_ops request_ops = {on_message, on_end, NULL};

static void on_tick(void *ctx)
{
    struct bench *b = ctx;
    for (unsigned i = 0; i < b->client_count; i++) {
        if (!b->clients[i].is_busy && !start_one(b, &b->clients[i])) {
            break; /* nothing is due */
        }
    }
    b->is_done = b->in_flight == 0 && !has_more(b, hw_mono_us());
}

/* ---- set-up ---- */

/* Channels of our own beside the endpoints' first ones, spread over the endpoints that answer. */
static int open_channels(struct bench *b, unsigned wanted, struct hw_error *e)
{
    struct hw_ctl *ctl = b->ctl;
    unsigned alive[HW_CTL_ENDPOINTS_MAX];
    unsigned alive_count = 0;
    struct hw_rpc_limits limits;
    hw_rpc_limits_default(&limits);
    limits.message_bytes_max = HW_CTL_MESSAGE_BYTES_MAX;
    for (unsigned i = 0; i < ctl->endpoint_count; i++) {
        int rc = hw_ctl_connect(ctl, i, ctl->settings.timeout_ms / ctl->endpoint_count, e);
        if (rc == 0) {
            alive[alive_count++] = i;
        } else if (rc == HW_ERR_CANCELLED) {
            return rc;
        } else {
            hw_ctl_note(ctl, "skipped %s: %s", ctl->endpoints[i].address, hw_error_text(e));
        }
    }
    if (alive_count == 0) {
        hw_ctl_hint(ctl, "Check that an agent runs there and that --endpoints names its client address");
        return hw_error_set(e, HW_ERR_UNAVAILABLE, "no endpoint could be reached");
    }
    for (unsigned i = 0; i < wanted; i++) {
        int rc = hw_channel_new(ctl->loop, ctl->resolver, ctl->endpoints[alive[i % alive_count]].address, &limits, NULL,
                                NULL, &b->channels[i]);
        if (rc != 0) {
            return hw_error_set(e, rc, "open a connection: %s", hw_err_text(rc));
        }
        b->channel_count++;
    }
    return 0;
}

static int set_up(struct bench *b, const struct hw_ctl_args *args, struct hw_error *e)
{
    const char *kind = hw_ctl_word(args, 0);
    int64_t size = hw_ctl_number(args, "size", 128);
    unsigned channels = (unsigned)hw_ctl_number(args, "channels", 4);
    if (!hw_ctl_is_choice("put|get|mixed", kind)) {
        return hw_error_set(e, HW_ERR_INVALID, "KIND is put, get or mixed, not \"%.40s\"", kind);
    }
    if (hw_ctl_is_set(args, "count") && hw_ctl_is_set(args, "duration")) {
        return hw_error_set(e, HW_ERR_INVALID, "--count and --duration exclude each other");
    }
    b->put_percent = strcmp(kind, "put") == 0   ? 100
                     : strcmp(kind, "get") == 0 ? 0
                                                : (unsigned)hw_ctl_number(args, "puts", 50);
    b->client_count = (unsigned)hw_ctl_number(args, "clients", 32);
    b->key_count = (uint64_t)hw_ctl_number(args, "keys", 10000);
    b->rate = (uint64_t)hw_ctl_number(args, "rate", 0);
    b->prefix = hw_ctl_text(args, "prefix", "hwctl-bench/");
    b->count_max = hw_ctl_is_set(args, "duration") ? 0 : (uint64_t)hw_ctl_number(args, "count", COUNT_DEFAULT);
    if (*b->prefix == '\0' || strlen(b->prefix) > 200) {
        return hw_error_set(e, HW_ERR_INVALID, "--prefix has 1 to 200 bytes");
    }
    hw_rng_seed(&b->rng, (uint64_t)hw_ctl_number(args, "seed", 1));
    b->clients = calloc(b->client_count, sizeof *b->clients);
    if (b->clients == NULL || hw_buf_reserve(&b->value, (size_t)size + 8) != 0 ||
        hw_ctl_samples_init(&b->samples) != 0) {
        return hw_error_set(e, HW_ERR_NOMEM, "out of memory for %u clients", b->client_count);
    }
    while (b->value.len < (size_t)size) {
        hw_buf_put_u64(&b->value, hw_rng_next(&b->rng));
    }
    b->value.len = (size_t)size;
    channels = channels < b->client_count ? channels : b->client_count;
    int rc = open_channels(b, channels, e);
    for (unsigned i = 0; rc == 0 && i < b->client_count; i++) {
        b->clients[i].bench = b;
        b->clients[i].channel = i % b->channel_count;
    }
    return rc;
}

static void tear_down(struct bench *b)
{
    for (unsigned i = 0; i < b->channel_count; i++) {
        hw_channel_free(b->channels[i]);
    }
    hw_timer_free(b->tick);
    hw_ctl_samples_close(&b->samples);
    hw_buf_free(&b->value);
    hw_buf_free(&b->packed);
    free(b->clients);
}

static void run(struct bench *b, uint64_t duration_ms)
{
    uint64_t guard_ms = b->ctl->settings.timeout_ms + 1000;
    b->start_us = hw_mono_us();
    b->stop_us = b->start_us;
    b->end_us = b->count_max > 0 ? 0 : b->start_us + duration_ms * 1000;
    b->tick = hw_timer_new(b->ctl->loop, "bench", on_tick, b);
    hw_timer_start(b->tick, TICK_MS, TICK_MS);
    hw_ctl_wait(b->ctl, &b->is_done, b->count_max > 0 ? UINT32_MAX : duration_ms + guard_ms);
    b->is_over = true;
    hw_timer_stop(b->tick);
    for (unsigned i = 0; i < b->client_count; i++) {
        if (b->clients[i].is_busy) {
            hw_request_cancel(&b->clients[i].request);
        }
    }
    while (b->in_flight > 0) {
        hw_loop_turn(b->ctl->loop, true);
    }
}

/* ---- report ---- */

static const char *const status_names[STATUS_COUNT] = {
    "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
};

static int report_json(struct bench *b, const char *kind, double seconds, uint64_t failed, struct hw_error *e)
{
    json_t *errors = json_object();
    json_t *latency = json_pack(
        "{s:o, s:o, s:o, s:o, s:o}", "p50", hw_ctl_json_number(hw_ctl_samples_quantile_us(&b->samples, 500)), "p90",
        hw_ctl_json_number(hw_ctl_samples_quantile_us(&b->samples, 900)), "p99",
        hw_ctl_json_number(hw_ctl_samples_quantile_us(&b->samples, 990)), "max", hw_ctl_json_number(b->samples.max_us),
        "mean", hw_ctl_json_number(b->samples.count > 0 ? b->samples.sum_us / b->samples.count : 0));
    for (unsigned i = 1; i < STATUS_COUNT; i++) {
        if (b->errors[i] > 0) {
            json_object_set_new(errors, status_names[i], hw_ctl_json_number(b->errors[i]));
        }
    }
    return hw_ctl_json_print(b->ctl,
                             json_pack("{s:s, s:i, s:i, s:f, s:o, s:o, s:f, s:o, s:o}", "kind", kind, "clients",
                                       (int)b->client_count, "channels", (int)b->channel_count, "seconds", seconds,
                                       "ok", hw_ctl_json_number(b->ok), "failed", hw_ctl_json_number(failed),
                                       "ops_per_second", seconds > 0 ? (double)b->ok / seconds : 0.0, "latency_us",
                                       latency, "errors", errors),
                             e);
}

static const char *latency_text(uint64_t us, char buf[HW_CTL_SHORT_SIZE])
{
    snprintf(buf, HW_CTL_SHORT_SIZE, "%.2f ms", (double)us / 1000);
    return buf;
}

static void report_table(struct bench *b, const char *kind, double seconds, uint64_t failed)
{
    static const char *const headings[] = {"KIND", ">OK", ">FAILED", ">OPS/S", ">P50", ">P90", ">P99", ">MAX", NULL};
    struct hw_ctl_table *t = hw_ctl_table_new(b->ctl, headings);
    char text[7][HW_CTL_SHORT_SIZE];
    snprintf(text[0], sizeof text[0], "%llu", (unsigned long long)b->ok);
    snprintf(text[1], sizeof text[1], "%llu", (unsigned long long)failed);
    snprintf(text[2], sizeof text[2], "%.0f", seconds > 0 ? (double)b->ok / seconds : 0);
    hw_ctl_table_add(t, (const char *[]){kind, text[0], text[1], text[2],
                                         latency_text(hw_ctl_samples_quantile_us(&b->samples, 500), text[3]),
                                         latency_text(hw_ctl_samples_quantile_us(&b->samples, 900), text[4]),
                                         latency_text(hw_ctl_samples_quantile_us(&b->samples, 990), text[5]),
                                         latency_text(b->samples.max_us, text[6])});
    fprintf(b->ctl->out, "%u clients, %u connections, %.2f s\n", b->client_count, b->channel_count, seconds);
    hw_ctl_table_print(t);
    for (unsigned i = 1; i < STATUS_COUNT; i++) {
        if (b->errors[i] > 0) {
            fprintf(b->ctl->out, "%llu failed with %s\n", (unsigned long long)b->errors[i], status_names[i]);
        }
    }
    if (failed > 0) {
        fprintf(b->ctl->out, "first error: %s\n", b->first_error);
    }
}

static int report(struct bench *b, const char *kind, struct hw_error *e)
{
    double seconds = (double)(b->stop_us - b->start_us) / 1e6;
    uint64_t failed = 0;
    unsigned worst = HW_GRPC_UNAVAILABLE;
    int rc = 0;
    for (unsigned i = 1; i < STATUS_COUNT; i++) {
        worst = b->errors[i] > b->errors[worst] ? i : worst;
        failed += b->errors[i];
    }
    if (hw_ctl_is_json(b->ctl)) {
        rc = report_json(b, kind, seconds, failed, e);
    } else {
        report_table(b, kind, seconds, failed);
    }
    if (rc == 0 && b->ok == 0 && failed > 0 && !b->ctl->is_interrupted) {
        return hw_error_set(e, hw_ctl_code_of((enum hw_grpc)worst), "every operation failed: %s", b->first_error);
    }
    return rc;
}

/* Take away what was put. */
static int clean(struct bench *b, struct hw_error *e)
{
    static const struct hw_ctl_method method = {.path = "/etcdserverpb.KV/DeleteRange",
                                                .response = &etcdserverpb__delete_range_response__descriptor,
                                                .is_write = true};
    Etcdserverpb__DeleteRangeRequest q = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    ProtobufCMessage *answer;
    char end[256];
    int rc;
    /* Keys continue with a digit: everything from the prefix to just behind '9' is ours. */
    snprintf(end, sizeof end, "%s:", b->prefix);
    q.key = (ProtobufCBinaryData){strlen(b->prefix), (uint8_t *)b->prefix};
    q.range_end = (ProtobufCBinaryData){strlen(end), (uint8_t *)end};
    rc = hw_ctl_unary(b->ctl, &method, &q.base, &answer, e);
    if (rc == 0) {
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    return rc != 0 ? hw_error_wrap(e, "remove the keys that bench made") : 0;
}

HW_CTL_RUN(bench)
{
    struct bench b = {.ctl = ctl};
    int rc = set_up(&b, args, e);
    if (rc == 0) {
        run(&b, (uint64_t)hw_ctl_number(args, "duration", 0) * 1000);
        rc = report(&b, hw_ctl_word(args, 0), e);
    }
    if (rc == 0 && hw_ctl_is_set(args, "clean") && !ctl->is_interrupted) {
        rc = clean(&b, e);
    }
    tear_down(&b);
    return rc;
}
