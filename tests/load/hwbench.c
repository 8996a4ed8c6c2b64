/* hwbench: one bounded run of one kind of load on one system; one JSON object on stdout. tests/bench/bench.py drives
 * it. It speaks etcd's API over agent/rpc, so it costs a few microseconds a call, and measures HotWarm and etcd alike.
 *
 * Latency is from the start of a call to its end; quantiles are off by less than 1 %. Warm-up is not in the figures
 * (ops_all counts it, for costs that were measured from outside). client_cpu_us is this process's. Exit codes: 0, 1
 * nothing was done, 2 usage or no connection, 3 the server does not know the method ("unimplemented": true).
 */
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "tests/load/bench.h"

#define CONNECT_MS 5000u
#define MESSAGE_BYTES_MAX (64u * 1024u * 1024u) /* an answer with 10,000 keys is 3 MB */
#define SECONDS_MAX 3600

static const char usage[] =
    "usage: hwbench put|get|txn|mixed|range|watch|lease|gap --endpoints A[,B...] [OPTIONS]\n"
    "  --system etcd|ideal     what answers (etcd: anything with its API; default)\n"
    "  --clients N             calls under way at once (1)          --connections C  default min(N, 8)\n"
    "  --seconds S             measured time (5)                    --warmup S       before it (1)\n"
    "  --count N               so many operations instead\n"
    "  --keys N                different keys (100000)              --size BYTES     of a value (256)\n"
    "  --prefix P              keys are P and eight digits          --sequential     each key in turn\n"
    "  --serializable          reads may be old                     --range K        keys of a range (10000)\n"
    "  --watchers W            of one key (1)                       --streams S      that carry them, or keep-alives\n"
    "  --rate R                puts a second of watch and gap; 0: watch as fast as events arrive\n"
    "  --leases N              to grant and keep alive (1000)       --ttl S          of a lease (600)\n"
    "  --kill PID              gap: kill -9 it, --kill-after-ms MS after the start\n"
    "  --seed N                of keys and values (1)\n"
    "hwbench selftest          checks its own histogram and messages\n";

enum {
    OPT_ENDPOINTS = 256,
    OPT_SYSTEM,
    OPT_CLIENTS,
    OPT_CONNECTIONS,
    OPT_SECONDS,
    OPT_WARMUP,
    OPT_COUNT,
    OPT_KEYS,
    OPT_SIZE,
    OPT_PREFIX,
    OPT_SEQUENTIAL,
    OPT_SERIALIZABLE,
    OPT_RANGE,
    OPT_WATCHERS,
    OPT_STREAMS,
    OPT_RATE,
    OPT_LEASES,
    OPT_TTL,
    OPT_KILL,
    OPT_KILL_AFTER,
    OPT_SEED
};

static const struct option longs[] = {{"endpoints", 1, NULL, OPT_ENDPOINTS},
                                      {"system", 1, NULL, OPT_SYSTEM},
                                      {"clients", 1, NULL, OPT_CLIENTS},
                                      {"connections", 1, NULL, OPT_CONNECTIONS},
                                      {"seconds", 1, NULL, OPT_SECONDS},
                                      {"warmup", 1, NULL, OPT_WARMUP},
                                      {"count", 1, NULL, OPT_COUNT},
                                      {"keys", 1, NULL, OPT_KEYS},
                                      {"size", 1, NULL, OPT_SIZE},
                                      {"prefix", 1, NULL, OPT_PREFIX},
                                      {"sequential", 0, NULL, OPT_SEQUENTIAL},
                                      {"serializable", 0, NULL, OPT_SERIALIZABLE},
                                      {"range", 1, NULL, OPT_RANGE},
                                      {"watchers", 1, NULL, OPT_WATCHERS},
                                      {"streams", 1, NULL, OPT_STREAMS},
                                      {"rate", 1, NULL, OPT_RATE},
                                      {"leases", 1, NULL, OPT_LEASES},
                                      {"ttl", 1, NULL, OPT_TTL},
                                      {"kill", 1, NULL, OPT_KILL},
                                      {"kill-after-ms", 1, NULL, OPT_KILL_AFTER},
                                      {"seed", 1, NULL, OPT_SEED},
                                      {NULL, 0, NULL, 0}};

/* A whole number in [low, high]; clears *is_good otherwise. */
static uint64_t number(const char *text, uint64_t low, uint64_t high, bool *is_good)
{
    char *end;
    uint64_t v = strtoull(text, &end, 10);
    *is_good = *is_good && end != text && *end == '\0' && text[0] != '-' && v >= low && v <= high;
    return v;
}

static double seconds(const char *text, bool *is_good)
{
    char *end;
    double v = strtod(text, &end);
    *is_good = *is_good && end != text && *end == '\0' && v >= 0 && v <= SECONDS_MAX;
    return v;
}

static void take_endpoints(struct bench_options *o, char *list)
{
    while (list != NULL && o->endpoint_count < BENCH_ENDPOINTS_MAX) {
        o->endpoints[o->endpoint_count++] = strsep(&list, ",");
    }
}

static bool take_option(struct bench_options *o, int option, char *arg)
{
    bool is_good = true;
    switch (option) {
    case OPT_ENDPOINTS:
        take_endpoints(o, arg);
        break;
    case OPT_SYSTEM:
        o->is_ideal = strcmp(arg, "ideal") == 0;
        return o->is_ideal || strcmp(arg, "etcd") == 0;
    case OPT_CLIENTS:
        o->clients = (unsigned)number(arg, 1, BENCH_CLIENTS_MAX, &is_good);
        break;
    case OPT_CONNECTIONS:
        o->connections = (unsigned)number(arg, 1, BENCH_CHANNELS_MAX, &is_good);
        break;
    case OPT_SECONDS:
        o->seconds = seconds(arg, &is_good);
        break;
    case OPT_WARMUP:
        o->warmup_s = seconds(arg, &is_good);
        break;
    case OPT_COUNT:
        o->count = number(arg, 1, 1000000000u, &is_good);
        break;
    case OPT_KEYS:
        o->keys = (uint32_t)number(arg, 1, BENCH_KEYS_MAX, &is_good);
        break;
    case OPT_SIZE:
        o->value_bytes = number(arg, 1, BENCH_VALUE_BYTES_MAX, &is_good);
        break;
    case OPT_PREFIX:
        o->prefix = arg;
        return strlen(arg) > 0 && strlen(arg) < 64;
    case OPT_SEQUENTIAL:
        o->is_sequential = true;
        break;
    case OPT_SERIALIZABLE:
        o->is_serializable = true;
        break;
    case OPT_RANGE:
        o->range_keys = (unsigned)number(arg, 1, 100000, &is_good);
        break;
    case OPT_WATCHERS:
        o->watchers = (unsigned)number(arg, 1, 100000, &is_good);
        break;
    case OPT_STREAMS:
        o->streams = (unsigned)number(arg, 1, 1000, &is_good);
        break;
    case OPT_RATE:
        o->rate = (unsigned)number(arg, 0, 100000, &is_good);
        break;
    case OPT_LEASES:
        o->leases = (unsigned)number(arg, 1, 1000000, &is_good);
        break;
    case OPT_TTL:
        o->ttl_s = (unsigned)number(arg, 1, 86400, &is_good);
        break;
    case OPT_KILL:
        o->kill_pid = (long)number(arg, 2, 1u << 30, &is_good);
        break;
    case OPT_KILL_AFTER:
        o->kill_after_ms = (unsigned)number(arg, 1, 60000, &is_good);
        break;
    case OPT_SEED:
        o->seed = number(arg, 0, UINT64_MAX, &is_good);
        break;
    default:
        return false;
    }
    return is_good;
}

static bool parse(int argc, char **argv, struct bench_options *o)
{
    int option;
    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (!take_option(o, option, optarg)) {
            fprintf(stderr, "hwbench: a bad option or value%s%s\n", optarg != NULL ? ": " : "",
                    optarg != NULL ? optarg : "");
            return false;
        }
    }
    if (o->connections == 0) {
        o->connections = o->clients < 8 ? o->clients : 8;
    }
    return optind == argc && o->endpoint_count > 0;
}

/* ---- the run ---- */

static void on_deadline(void *ctx)
{
    *(bool *)ctx = true;
}

/* `connections` to one endpoint, or one to each of several. */
static int connect_all(struct bench *b)
{
    struct hw_rpc_limits limits;
    bool is_late = false;
    struct hw_timer *deadline = hw_timer_new(b->loop, "connect", on_deadline, &is_late);
    unsigned up;
    hw_rpc_limits_default(&limits);
    limits.message_bytes_max = MESSAGE_BYTES_MAX;
    b->channel_count = b->o.connections > b->o.endpoint_count ? b->o.connections : b->o.endpoint_count;
    for (unsigned i = 0; i < b->channel_count; i++) {
        if (hw_channel_new(b->loop, b->resolver, b->o.endpoints[i % b->o.endpoint_count], &limits, NULL, NULL,
                           &b->channels[i]) != 0) {
            return HW_ERR_INVALID;
        }
        hw_channel_keep(b->channels[i]);
    }
    hw_timer_start(deadline, CONNECT_MS, 0);
    do {
        up = 0;
        for (unsigned i = 0; i < b->channel_count; i++) {
            up += hw_channel_is_up(b->channels[i]);
        }
    } while (up < b->channel_count && !is_late && hw_loop_turn(b->loop, true));
    hw_timer_free(deadline);
    return up == b->channel_count ? 0 : HW_ERR_CONNECT;
}

static int (*runner_of(const char *workload))(struct bench *b)
{
    static const struct {
        const char *name;
        int (*run)(struct bench *b);
    } runners[] = {{"put", bench_calls_run},   {"get", bench_calls_run},   {"txn", bench_calls_run},
                   {"mixed", bench_calls_run}, {"range", bench_calls_run}, {"watch", bench_watch_run},
                   {"lease", bench_lease_run}, {"gap", bench_gap_run}};
    for (size_t i = 0; i < hw_array_len(runners); i++) {
        if (strcmp(runners[i].name, workload) == 0) {
            return runners[i].run;
        }
    }
    return NULL;
}

static double us(uint64_t ns)
{
    return (double)ns / 1e3;
}

static void print_text(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        putchar((unsigned char)*text < ' ' || *text == '"' || *text == '\\' ? ' ' : *text);
    }
    putchar('"');
}

static void print_result(struct bench *b)
{
    const struct bench_hist *h = &b->hist;
    double window_s = (double)(b->closed_ns - b->opened_ns) / 1e9;
    uint64_t errors = 0;
    for (unsigned i = 0; i < BENCH_RPC_STATUSES; i++) {
        errors += b->errors[i];
    }
    printf("{\"workload\": \"%s\", \"clients\": %u, \"connections\": %u, \"ops\": %" PRIu64 ", \"ops_all\": %" PRIu64
           ", \"seconds\": %.3f, \"per_second\": %.1f",
           b->o.workload, b->o.clients, b->o.connections, b->ops, b->ops_all, window_s,
           window_s > 0 ? (double)b->ops / window_s : 0);
    printf(", \"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f, "
           "\"mean_us\": %.1f",
           us(bench_hist_quantile_ns(h, 0.5)), us(bench_hist_quantile_ns(h, 0.9)), us(bench_hist_quantile_ns(h, 0.99)),
           us(bench_hist_quantile_ns(h, 0.999)), us(h->max_ns), h->count > 0 ? us(h->sum_ns) / (double)h->count : 0);
    printf(", \"client_cpu_us\": %.3f, \"errors\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"unfinished\": %" PRIu64
           ", \"unimplemented\": %s",
           b->ops > 0 ? (double)b->cpu_us / (double)b->ops : 0, errors, b->refused, b->unfinished,
           b->is_unimplemented ? "true" : "false");
    printf("%.*s, \"text\": ", (int)b->more.len, b->more.len > 0 ? (const char *)b->more.data : "");
    print_text(b->text);
    printf("}\n");
}

static int run(struct bench *b)
{
    int (*runner)(struct bench * b) = runner_of(b->o.workload);
    int rc;
    if (hw_loop_new(&b->loop, NULL, 0) != 0 || hw_pool_new(b->loop, "resolver", 1, 64, &b->resolver, NULL) != 0) {
        return 2;
    }
    b->value = malloc(b->o.value_bytes);
    hw_assert(b->value != NULL);
    hw_rng_seed(&b->rng, b->o.seed);
    for (size_t i = 0; i < b->o.value_bytes; i++) {
        b->value[i] = (uint8_t)hw_rng_next(&b->rng);
    }
    if (!b->o.is_ideal && connect_all(b) != 0) {
        fprintf(stderr, "hwbench: no connection to %s within %u ms\n", b->o.endpoints[0], CONNECT_MS);
        return 2;
    }
    rc = runner(b);
    b->is_unimplemented = b->is_unimplemented || rc == HW_ERR_UNIMPLEMENTED;
    if (rc != 0 && !b->is_unimplemented) {
        fprintf(stderr, "hwbench: %s: %s\n", b->o.workload, b->text[0] != '\0' ? b->text : hw_err_text(rc));
        return 2;
    }
    print_result(b);
    return b->is_unimplemented ? 3 : b->ops_all > 0 ? 0 : 1;
}

/* ---- selftest: every figure passes through these two ---- */

static int selftest(void)
{
    static struct bench_hist h;
    struct hw_buf out;
    struct hw_buf scratch;
    struct bench_kv kv;
    unsigned bad = 0;
    hw_buf_init(&out);
    hw_buf_init(&scratch);
    for (uint64_t v = 1; v < 1ull << 39; v += v / 97 + 1) {
        memset(&h, 0, sizeof h);
        bench_hist_add(&h, v);
        h.max_ns = UINT64_MAX; /* or the exact maximum would answer */
        bad += fabs((double)bench_hist_quantile_ns(&h, 0.5) - (double)v) > 0.01 * (double)v;
    }
    memset(&h, 0, sizeof h);
    for (uint64_t v = 1; v <= 1000; v++) {
        bench_hist_add(&h, v * 1000);
    }
    bad += fabs((double)bench_hist_quantile_ns(&h, 0.99) - 990e3) > 9.9e3;
    bad += bench_hist_quantile_ns(&h, 1) != 1000000;
    bench_put_encode(&out, hw_slice_str("k"), hw_slice_str("value"));
    kv = bench_kv_decode(hw_buf_slice(&out));
    bad += !hw_slice_is_equal(kv.key, hw_slice_str("k"));
    hw_buf_clear(&out);
    bench_txn_encode(&out, &scratch, hw_slice_str("k"), hw_slice_str("v"), 300);
    /* compare {target MOD, key k, mod_revision 300}, success put k v, failure range k: as etcd's own encoder does */
    static const uint8_t txn[] = {0x0a, 0x08, 0x10, 0x02, 0x1a, 0x01, 'k',  0x30, 0xac, 0x02, 0x12, 0x08, 0x12, 0x06,
                                  0x0a, 0x01, 'k',  0x12, 0x01, 'v',  0x1a, 0x05, 0x0a, 0x03, 0x0a, 0x01, 'k'};
    bad += !hw_slice_is_equal(hw_buf_slice(&out), hw_slice_of(txn, sizeof txn));
    printf("selftest: %u wrong\n", bad);
    return bad == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static struct bench b = {.o = {.clients = 1,
                                   .seconds = 5,
                                   .warmup_s = 1,
                                   .keys = 100000,
                                   .value_bytes = 256,
                                   .range_keys = 10000,
                                   .watchers = 1,
                                   .leases = 1000,
                                   .ttl_s = 600,
                                   .seed = 1,
                                   .prefix = "bench/",
                                   .kill_after_ms = 1000,
                                   .rate = 500}};
    int rc;
    if (argc == 2 && strcmp(argv[1], "selftest") == 0) {
        return selftest();
    }
    if (argc < 2 || runner_of(argv[1]) == NULL || !parse(argc - 1, argv + 1, &b.o)) {
        fputs(usage, stderr);
        return 2;
    }
    b.o.workload = argv[1];
    signal(SIGPIPE, SIG_IGN);
    rc = run(&b);
    fflush(stdout);
    _Exit(rc); /* connections end with the process */
}
