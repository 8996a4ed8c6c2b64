/* watch: W watchers of one key on S streams, and a writer of that key in the same process. A value begins with the time
 * at which its put was sent, so an event's delay is from there to its arrival here, both on one clock.
 *
 * With --rate the writer sends on time whatever happens (delay under a known load); without it keeps WINDOW puts under
 * way and sends the next one when every watcher has seen the oldest (events per second).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "tests/load/bench.h"

#define WINDOW 8u
#define PUTS_MAX 1024u /* not yet seen by everybody; beyond it a put that is due is left out and counted */
#define TICK_MS 1u
#define SETUP_MS 60000u
#define STREAMS_DEFAULT 64u

struct stamp {
    uint64_t sent_ns;
    uint64_t number;
    uint64_t run; /* of this process: a late event of another one does not count */
};

struct watch_stream {
    struct hw_request request;
    struct watch *watch;
};

struct put {
    struct hw_request request;
    struct watch *watch;
    uint32_t seen; /* watchers that have had its event */
    bool is_called;
    bool is_used;
};

struct watch {
    struct bench *b;
    struct watch_stream *streams;
    unsigned stream_count;
    unsigned created;
    unsigned live; /* streams */
    bool has_failed;
    struct put puts[PUTS_MAX]; /* by number */
    uint64_t next;
    unsigned under_way;
    uint64_t left_out;
    uint64_t puts_done;
    uint64_t run;
    uint64_t start_ns;
    struct hw_buf out;
    struct hw_buf scratch;
    struct hw_timer *tick;
};

static void write_more(struct watch *w);

static struct hw_slice watched_key(const struct bench *b, char key[BENCH_KEY_BYTES_MAX])
{
    return hw_slice_of(key, bench_key(b, 0, key));
}

static void put_release(struct put *p)
{
    if (p->is_used && !p->is_called && p->seen >= p->watch->b->o.watchers) {
        p->is_used = false;
        p->watch->under_way--;
    }
}

static void on_put_message(struct hw_request *r, struct hw_slice message)
{
    (void)r;
    (void)message;
}

static void on_put_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct put *p = r->data;
    p->is_called = false;
    if (status != HW_GRPC_OK) {
        bench_op_failed(p->watch->b, status, text);
        p->seen = p->watch->b->o.watchers; /* there may be no event of it */
    } else {
        p->watch->puts_done++;
    }
    put_release(p);
    if (p->watch->b->o.rate == 0) {
        write_more(p->watch);
    }
}

static const struct hw_request_ops put_ops = {.on_message = on_put_message, .on_end = on_put_end};

/* False when it can not be sent now. */
static bool write_one(struct watch *w)
{
    struct bench *b = w->b;
    struct put *p = &w->puts[w->next % PUTS_MAX];
    struct stamp stamp = {hw_mono_ns(), w->next, w->run};
    char key[BENCH_KEY_BYTES_MAX];
    if (p->is_used) {
        return false;
    }
    memcpy(b->value, &stamp, sizeof stamp);
    hw_buf_clear(&w->out);
    bench_put_encode(&w->out, watched_key(b, key), hw_slice_of(b->value, b->o.value_bytes));
    *p = (struct put){.watch = w, .request = {.ops = &put_ops, .data = p}, .is_called = true, .is_used = true};
    if (hw_request_start(b->channels[0], &p->request, BENCH_PATH_PUT, NULL, 0, true, hw_buf_slice(&w->out), true) !=
        0) {
        p->is_used = false;
        b->refused++;
        return false;
    }
    w->under_way++;
    w->next++;
    return true;
}

static void write_more(struct watch *w)
{
    while (!w->b->is_stopping && w->under_way < WINDOW && write_one(w)) {
    }
}

static void on_tick(void *ctx)
{
    struct watch *w = ctx;
    uint64_t due = (hw_mono_ns() - w->start_ns) / 1000u * w->b->o.rate / 1000000u;
    if (w->b->o.rate == 0) {
        write_more(w);
        return;
    }
    while (!w->b->is_stopping && w->next + w->left_out < due) {
        if (!write_one(w)) {
            w->left_out++;
        }
    }
}

static void on_event(struct watch *w, struct hw_slice event)
{
    struct bench_field f;
    struct hw_reader r;
    struct stamp stamp;
    struct hw_slice value = {NULL, 0};
    struct put *p;
    hw_reader_init(&r, event.data, event.len);
    while (bench_field_next(&r, &f)) {
        if (f.number == 2) {
            value = bench_kv_decode(f.bytes).value;
        }
    }
    if (value.len < sizeof stamp) {
        return;
    }
    memcpy(&stamp, value.data, sizeof stamp);
    if (stamp.run != w->run) {
        return;
    }
    bench_op_done(w->b, stamp.sent_ns);
    p = &w->puts[stamp.number % PUTS_MAX];
    if (p->is_used) {
        p->seen++;
        put_release(p);
    }
}

static void on_message(struct hw_request *r, struct hw_slice message)
{
    struct watch_stream *s = r->data;
    struct watch *w = s->watch;
    struct bench_field f;
    struct hw_reader reader;
    hw_reader_init(&reader, message.data, message.len);
    while (bench_field_next(&reader, &f)) {
        if (f.number == 3 && f.number_value != 0) {
            w->created++;
        } else if (f.number == 4 && f.number_value != 0) {
            w->has_failed = true;
        } else if (f.number == 11) {
            on_event(w, f.bytes);
        }
    }
    if (w->b->o.rate == 0 && w->start_ns != 0) {
        write_more(w);
    }
}

static void on_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct watch_stream *s = r->data;
    s->watch->live--;
    s->watch->has_failed = true;
    bench_op_failed(s->watch->b, status, text);
}

static const struct hw_request_ops ops = {.on_message = on_message, .on_end = on_end};

static int create_watchers(struct watch *w)
{
    struct bench *b = w->b;
    char key[BENCH_KEY_BYTES_MAX];
    struct hw_slice k = watched_key(b, key);
    for (unsigned i = 0; i < b->o.watchers; i++) {
        struct watch_stream *s = &w->streams[i % w->stream_count];
        int rc;
        hw_buf_clear(&w->out);
        bench_watch_create_encode(&w->out, &w->scratch, k);
        if (s->watch == NULL) {
            *s = (struct watch_stream){.watch = w, .request = {.ops = &ops, .data = s}};
            rc = hw_request_start(b->channels[i % b->channel_count], &s->request, BENCH_PATH_WATCH, NULL, 0, true,
                                  hw_buf_slice(&w->out), false);
            w->live += rc == 0;
        } else {
            rc = hw_request_send(&s->request, hw_buf_slice(&w->out));
        }
        if (rc != 0) {
            snprintf(b->text, sizeof b->text, "create watcher %u: %s", i, hw_err_text(rc));
            return rc;
        }
    }
    return 0;
}

static void on_late(void *ctx)
{
    ((struct watch *)ctx)->has_failed = true;
}

/* Until the server has said "created" to each. */
static int wait_created(struct watch *w, uint64_t *took_us)
{
    struct hw_timer *late = hw_timer_new(w->b->loop, "setup", on_late, w);
    uint64_t start_us = hw_mono_us();
    int rc = create_watchers(w);
    if (rc != 0) {
        return rc;
    }
    hw_timer_start(late, SETUP_MS, 0);
    while (w->created < w->b->o.watchers && !w->has_failed && bench_turn(w->b)) {
    }
    hw_timer_free(late);
    *took_us = hw_mono_us() - start_us;
    if (w->b->is_unimplemented) {
        return HW_ERR_UNIMPLEMENTED;
    }
    if (w->created < w->b->o.watchers) {
        snprintf(w->b->text, sizeof w->b->text, "%u of %u watchers created", w->created, w->b->o.watchers);
        return HW_ERR_UNAVAILABLE;
    }
    return 0;
}

int bench_watch_run(struct bench *b)
{
    static struct watch w;
    uint64_t created_us = 0;
    uint64_t hanging = 0;
    int rc;
    w = (struct watch){.b = b, .run = hw_random_u64()};
    w.stream_count = b->o.streams > 0 ? b->o.streams : STREAMS_DEFAULT;
    w.stream_count = w.stream_count < b->o.watchers ? w.stream_count : b->o.watchers;
    w.streams = calloc(w.stream_count, sizeof *w.streams);
    if (w.streams == NULL) {
        return HW_ERR_NOMEM;
    }
    if (b->o.value_bytes < sizeof(struct stamp)) {
        snprintf(b->text, sizeof b->text, "--size is below %zu, which the time stamp needs", sizeof(struct stamp));
        return HW_ERR_INVALID;
    }
    rc = wait_created(&w, &created_us);
    if (rc != 0) {
        return rc;
    }
    w.tick = hw_timer_new(b->loop, "writer", on_tick, &w);
    hw_timer_start(w.tick, TICK_MS, TICK_MS);
    bench_window_start(b);
    w.start_ns = hw_mono_ns();
    on_tick(&w);
    while ((!b->is_stopping || w.under_way > 0) && !w.has_failed && bench_turn(b)) {
    }
    bench_window_close(b);
    for (unsigned i = 0; i < PUTS_MAX; i++) {
        hanging += w.puts[i].is_used && !w.puts[i].is_called ? b->o.watchers - w.puts[i].seen : 0;
    }
    b->unfinished = w.under_way;
    hw_buf_printf(&b->more,
                  ", \"watchers\": %u, \"streams\": %u, \"created_ms\": %.1f, \"puts\": %llu, \"left_out\": %llu, "
                  "\"events_missing\": %llu",
                  b->o.watchers, w.stream_count, (double)created_us / 1e3, (unsigned long long)w.puts_done,
                  (unsigned long long)w.left_out, (unsigned long long)hanging);
    return 0;
}
