/* A bounded load that remembers what was acknowledged, for the demo, the integration tests and the chaos run.
 *
 *   hwload write  --endpoints A,B,C --log FILE [--clients 8] [--seconds 5] [--rate 0] [--size 64] [--prefix load/]
 *   hwload verify --endpoints A --log FILE [--prefix load/]
 *
 * write: each client puts prefix<client>/<seq> with a value that names the key, one after the other. A put that did not
 * end with OK is repeated on the next endpoint until it does (it is the same put, so repeating it does no harm). Each
 * acknowledgement is one line of the log: "<key> <revision> <microseconds since the start>".
 * verify: reads every key under the prefix from one endpoint's own state (serializable) and checks that each logged key
 * is there with its value and a revision not below the acknowledged one. Both print one JSON object; exit 1 when
 * something acknowledged is missing, or nothing was acknowledged at all.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/rpc/rpc.h"
#include "proto/etcd.pb-c.h"

#define ENDPOINTS_MAX 9
#define CLIENTS_MAX 1024
#define CALL_TIMEOUT_MS 2000

struct options {
    const char *endpoints[ENDPOINTS_MAX];
    size_t endpoint_count;
    const char *log;
    const char *prefix;
    unsigned clients;
    double seconds;
    unsigned rate; /* puts a second over all clients; 0: as fast as it goes */
    size_t size;
};

struct client {
    struct load *load;
    struct hw_request request;
    unsigned number;
    uint64_t seq;
    uint64_t first_try_us;
    size_t endpoint;
    int64_t revision; /* of the answer under way */
    struct hw_timer *timer;
    bool is_done;
};

struct load {
    struct options o;
    struct hw_loop *loop;
    struct hw_pool *resolver;
    struct hw_channel *channels[ENDPOINTS_MAX];
    struct client *clients;
    unsigned running;
    FILE *log;
    uint64_t start_us;
    uint64_t end_us;
    uint64_t acks;
    uint64_t errors;
    uint64_t last_ack_us;
    uint64_t gap_us;
    uint64_t gap_at_us;
    uint32_t *latencies_us; /* one per acknowledgement, for the quantiles */
    size_t latency_cap;
};

static void client_next(struct client *c);
static void client_send(struct client *c);

static void key_of(const struct client *c, char *key, size_t size)
{
    snprintf(key, size, "%s%u/%" PRIu64, c->load->o.prefix, c->number, c->seq);
}

static void value_of(const char *key, char *value, size_t size)
{
    size_t n = (size_t)snprintf(value, size, "%s=", key);
    while (n < size) {
        value[n] = (char)('a' + n % 26);
        n++;
    }
}

static void on_timer(void *ctx)
{
    client_send(ctx);
}

static void on_message(struct hw_request *r, struct hw_slice message)
{
    struct client *c = hw_container_of(r, struct client, request);
    Etcdserverpb__PutResponse *m = etcdserverpb__put_response__unpack(NULL, message.len, message.data);
    c->revision = m != NULL && m->header != NULL ? m->header->revision : 0;
    etcdserverpb__put_response__free_unpacked(m, NULL);
}

static void acknowledged(struct client *c)
{
    struct load *l = c->load;
    uint64_t now = hw_mono_us();
    char key[128];
    key_of(c, key, sizeof key);
    fprintf(l->log, "%s %" PRId64 " %" PRIu64 "\n", key, c->revision, now - l->start_us);
    if (now - l->last_ack_us > l->gap_us) {
        l->gap_us = now - l->last_ack_us;
        l->gap_at_us = l->last_ack_us - l->start_us;
    }
    if (l->acks == l->latency_cap) {
        l->latency_cap = l->latency_cap == 0 ? 65536 : l->latency_cap * 2;
        l->latencies_us = realloc(l->latencies_us, l->latency_cap * sizeof *l->latencies_us);
        hw_assert(l->latencies_us != NULL);
    }
    /* A timer may fire a little before the moment that the rate set for this put. */
    l->latencies_us[l->acks] = now > c->first_try_us ? (uint32_t)(now - c->first_try_us) : 0;
    l->last_ack_us = now;
    l->acks++;
    c->seq++;
}

static void on_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct client *c = hw_container_of(r, struct client, request);
    (void)text;
    if (status == HW_GRPC_OK && c->revision > 0) {
        acknowledged(c);
        client_next(c);
        return;
    }
    c->load->errors++;
    c->endpoint = (c->endpoint + 1) % c->load->o.endpoint_count;
    if (hw_mono_us() > c->load->end_us + 10000000u) {
        c->is_done = true; /* long past the end, and still no answer: give up */
        c->load->running--;
        return;
    }
    hw_timer_start(c->timer, 5, 0);
}

static const struct hw_request_ops ops = {.on_message = on_message, .on_end = on_end};

static void client_send(struct client *c)
{
    struct load *l = c->load;
    Etcdserverpb__PutRequest m = ETCDSERVERPB__PUT_REQUEST__INIT;
    char key[128];
    char *value = malloc(l->o.size + 1);
    uint8_t *packed;
    hw_assert(value != NULL);
    key_of(c, key, sizeof key);
    value_of(key, value, l->o.size);
    m.key.data = (uint8_t *)key;
    m.key.len = strlen(key);
    m.value.data = (uint8_t *)value;
    m.value.len = l->o.size;
    packed = malloc(etcdserverpb__put_request__get_packed_size(&m));
    hw_assert(packed != NULL);
    c->revision = 0;
    c->request.ops = &ops;
    if (hw_request_start(l->channels[c->endpoint], &c->request, "/etcdserverpb.KV/Put", NULL, CALL_TIMEOUT_MS, true,
                         hw_slice_of(packed, etcdserverpb__put_request__pack(&m, packed)), true) != 0) {
        c->endpoint = (c->endpoint + 1) % l->o.endpoint_count;
        hw_timer_start(c->timer, 5, 0);
    }
    free(packed);
    free(value);
}

static void client_next(struct client *c)
{
    struct load *l = c->load;
    uint64_t now = hw_mono_us();
    uint64_t due = l->start_us;
    if (now >= l->end_us) {
        c->is_done = true;
        l->running--;
        return;
    }
    c->first_try_us = now;
    if (l->o.rate > 0) {
        due += (uint64_t)((double)(c->seq * l->o.clients + c->number) * 1e6 / l->o.rate);
    }
    if (due > now + 1000) {
        c->first_try_us = due;
        hw_timer_start(c->timer, (due - now) / 1000, 0);
        return;
    }
    client_send(c);
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double quantile_ms(const struct load *l, double q)
{
    return l->acks == 0 ? 0 : (double)l->latencies_us[(size_t)(q * (double)(l->acks - 1))] / 1e3;
}

static void print_result(struct load *l)
{
    double seconds = (double)(l->last_ack_us - l->start_us) / 1e6;
    if (l->acks > 0) {
        qsort(l->latencies_us, l->acks, sizeof *l->latencies_us, compare_u32);
    }
    printf("{\"acknowledged\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"seconds\": %.3f, \"per_second\": %.0f, "
           "\"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"longest_gap_ms\": %.1f, "
           "\"gap_at_ms\": %.1f, \"start_boottime_us\": %" PRIu64 "}\n",
           l->acks, l->errors, seconds, seconds > 0 ? (double)l->acks / seconds : 0, quantile_ms(l, 0.5),
           quantile_ms(l, 0.9), quantile_ms(l, 0.99), quantile_ms(l, 1), (double)l->gap_us / 1e3,
           (double)l->gap_at_us / 1e3, l->start_us);
}

static int run_write(struct load *l)
{
    l->log = fopen(l->o.log, "w");
    if (l->log == NULL) {
        perror(l->o.log);
        return 2;
    }
    l->clients = calloc(l->o.clients, sizeof *l->clients);
    hw_assert(l->clients != NULL);
    l->start_us = l->last_ack_us = hw_mono_us();
    l->end_us = l->start_us + (uint64_t)(l->o.seconds * 1e6);
    l->running = l->o.clients;
    for (unsigned i = 0; i < l->o.clients; i++) {
        struct client *c = &l->clients[i];
        c->load = l;
        c->number = i;
        c->endpoint = i % l->o.endpoint_count;
        c->timer = hw_timer_new(l->loop, "client", on_timer, c);
        c->first_try_us = l->start_us;
        hw_timer_start(c->timer, 0, 0);
    }
    while (l->running > 0 && hw_loop_turn(l->loop, true)) {
    }
    for (unsigned i = 0; i < l->o.clients; i++) {
        hw_timer_free(l->clients[i].timer);
    }
    fclose(l->log);
    print_result(l);
    free(l->latencies_us);
    free(l->clients);
    return l->acks > 0 ? 0 : 1;
}

/* ---- verify ---- */

struct seen {
    UT_hash_handle hh;
    int64_t revision;
    bool is_value_good;
    char key[];
};

struct verify {
    struct hw_request request;
    struct load *load;
    struct seen *seen;
    char last[160]; /* key to go on after */
    bool more;
    bool is_ended;
    int status;
    uint64_t count;
};

static void on_page(struct hw_request *r, struct hw_slice message)
{
    struct verify *v = hw_container_of(r, struct verify, request);
    Etcdserverpb__RangeResponse *m = etcdserverpb__range_response__unpack(NULL, message.len, message.data);
    if (m == NULL) {
        return;
    }
    v->more = m->more;
    for (size_t i = 0; i < m->n_kvs; i++) {
        struct seen *s = calloc(1, sizeof *s + m->kvs[i]->key.len + 1);
        char *want = malloc(m->kvs[i]->value.len + 1);
        hw_assert(s != NULL && want != NULL);
        memcpy(s->key, m->kvs[i]->key.data, m->kvs[i]->key.len);
        value_of(s->key, want, m->kvs[i]->value.len);
        s->revision = m->kvs[i]->mod_revision;
        s->is_value_good = memcmp(want, m->kvs[i]->value.data, m->kvs[i]->value.len) == 0;
        HASH_ADD_STR(v->seen, key, s);
        snprintf(v->last, sizeof v->last, "%s", s->key);
        v->count++;
        free(want);
    }
    etcdserverpb__range_response__free_unpacked(m, NULL);
}

static void on_page_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct verify *v = hw_container_of(r, struct verify, request);
    if (status != HW_GRPC_OK) {
        fprintf(stderr, "hwload: range: %s\n", text != NULL ? text : "failed");
    }
    v->status = (int)status;
    v->is_ended = true;
}

static const struct hw_request_ops page_ops = {.on_message = on_page, .on_end = on_page_end};

static int read_page(struct verify *v, const char *prefix)
{
    Etcdserverpb__RangeRequest m = ETCDSERVERPB__RANGE_REQUEST__INIT;
    uint8_t packed[512];
    char end[160];
    size_t n = strlen(prefix);
    snprintf(end, sizeof end, "%s", prefix);
    end[n - 1]++;
    m.key.data = (uint8_t *)v->last;
    m.key.len = strlen(v->last) + (v->count > 0); /* the key after the last one: with a zero byte */
    m.range_end.data = (uint8_t *)end;
    m.range_end.len = n;
    m.limit = 2000;
    m.serializable = true;
    v->is_ended = false;
    v->more = false;
    v->request.ops = &page_ops;
    if (hw_request_start(v->load->channels[0], &v->request, "/etcdserverpb.KV/Range", NULL, 10000, false,
                         hw_slice_of(packed, etcdserverpb__range_request__pack(&m, packed)), true) != 0) {
        return -1;
    }
    while (!v->is_ended && hw_loop_turn(v->load->loop, true)) {
    }
    return v->status == 0 ? 0 : -1;
}

static int run_verify(struct load *l)
{
    struct verify v = {.load = l};
    struct seen *s;
    struct seen *next;
    char key[128];
    int64_t revision;
    uint64_t us;
    uint64_t acked = 0;
    uint64_t missing = 0;
    FILE *log = fopen(l->o.log, "r");
    if (log == NULL) {
        perror(l->o.log);
        return 2;
    }
    snprintf(v.last, sizeof v.last, "%s", l->o.prefix);
    do {
        if (read_page(&v, l->o.prefix) != 0) {
            fclose(log);
            return 2;
        }
    } while (v.more);
    while (fscanf(log, "%127s %" SCNd64 " %" SCNu64, key, &revision, &us) == 3) {
        acked++;
        HASH_FIND_STR(v.seen, key, s);
        if (s == NULL || s->revision < revision || !s->is_value_good) {
            if (missing++ < 10) {
                fprintf(stderr, "hwload: lost: %s acknowledged at revision %" PRId64 ", found %s\n", key, revision,
                        s == NULL          ? "nothing"
                        : s->is_value_good ? "an older revision"
                                           : "another value");
            }
        }
    }
    fclose(log);
    HASH_ITER(hh, v.seen, s, next) {
        HASH_DEL(v.seen, s);
        free(s);
    }
    printf("{\"acknowledged\": %" PRIu64 ", \"keys\": %" PRIu64 ", \"missing\": %" PRIu64 "}\n", acked, v.count,
           missing);
    return acked > 0 && missing == 0 ? 0 : 1;
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"endpoints", 1, NULL, 'e'}, {"log", 1, NULL, 'l'},  {"clients", 1, NULL, 'c'}, {"seconds", 1, NULL, 's'},
        {"rate", 1, NULL, 'r'},      {"size", 1, NULL, 'z'}, {"prefix", 1, NULL, 'p'},  {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        char *rest = optarg;
        switch (c) {
        case 'e':
            while (rest != NULL && o->endpoint_count < ENDPOINTS_MAX) {
                o->endpoints[o->endpoint_count++] = strsep(&rest, ",");
            }
            break;
        case 'l':
            o->log = optarg;
            break;
        case 'c':
            o->clients = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 's':
            o->seconds = strtod(optarg, NULL);
            break;
        case 'r':
            o->rate = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'z':
            o->size = strtoul(optarg, NULL, 10);
            break;
        case 'p':
            o->prefix = optarg;
            break;
        default:
            return -1;
        }
    }
    return o->endpoint_count > 0 && o->log != NULL && o->clients > 0 && o->clients <= CLIENTS_MAX && o->size > 0 &&
                   o->size <= 1048576 && o->seconds <= 86400 && strlen(o->prefix) > 0 && strlen(o->prefix) < 64
               ? 0
               : -1;
}

int main(int argc, char **argv)
{
    struct load l = {.o = {.clients = 8, .seconds = 5, .size = 64, .prefix = "load/"}};
    int rc = 2;
    bool is_write = argc > 1 && strcmp(argv[1], "write") == 0;
    if (argc < 2 || (!is_write && strcmp(argv[1], "verify") != 0) || parse(argc - 1, argv + 1, &l.o) != 0) {
        fprintf(stderr, "usage: hwload write|verify --endpoints A,B --log FILE [--clients N] [--seconds S] [--rate N] "
                        "[--size BYTES] [--prefix P]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    if (hw_loop_new(&l.loop, NULL, 0) != 0 || hw_pool_new(l.loop, "resolver", 1, 64, &l.resolver, NULL) != 0) {
        return 2;
    }
    for (size_t i = 0; i < l.o.endpoint_count; i++) {
        hw_assert(hw_channel_new(l.loop, l.resolver, l.o.endpoints[i], NULL, NULL, NULL, &l.channels[i]) == 0);
        hw_channel_keep(l.channels[i]);
    }
    rc = is_write ? run_write(&l) : run_verify(&l);
    fflush(stdout);
    _Exit(rc); /* connections end with the process */
}
