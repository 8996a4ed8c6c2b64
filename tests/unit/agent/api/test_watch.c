/* etcdserverpb.Watch/Watch over real sockets. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#undef HW_COMPONENT /* each folder has its own; limits of both are set here */
#include "agent/replica/replica_impl.h"
#include "proto/etcd.pb-c.h"
#include "tests/unit/agent/api/service_kit.h"
#include "tests/unit/agent/loop/loop_test.h"

#define ANSWERS_MAX 12000

typedef Etcdserverpb__WatchResponse answer;

struct stream {
    struct hw_request request;
    answer *answers[ANSWERS_MAX]; /* kept, but for what `is_counting` only counts */
    size_t count;
    size_t events;
    size_t created;
    size_t largest;
    bool is_counting;
    bool is_over;
    enum hw_grpc status;
    char text[256];
};

static struct kit k;
static struct stream a, b;

static void on_message(struct hw_request *r, struct hw_slice message)
{
    struct stream *s = hw_container_of(r, struct stream, request);
    answer *m = etcdserverpb__watch_response__unpack(NULL, message.len, message.data);
    REQUIRE(m != NULL);
    s->events += m->n_events;
    s->created += m->created && !m->canceled;
    s->largest = message.len > s->largest ? message.len : s->largest;
    if (s->is_counting) {
        etcdserverpb__watch_response__free_unpacked(m, NULL);
        return;
    }
    REQUIRE(s->count < ANSWERS_MAX);
    s->answers[s->count++] = m;
}

static void on_end(struct hw_request *r, enum hw_grpc status, const char *text)
{
    struct stream *s = hw_container_of(r, struct stream, request);
    s->status = status;
    snprintf(s->text, sizeof s->text, "%s", text == NULL ? "" : text);
    s->is_over = true;
}

static const struct hw_request_ops ops = {.on_message = on_message, .on_end = on_end};

static void open_on(struct hw_channel *channel, struct stream *s)
{
    memset(s, 0, sizeof *s);
    s->request.ops = &ops;
    REQUIRE(hw_request_start(channel, &s->request, "/etcdserverpb.Watch/Watch", NULL, 0, false, hw_slice_of(NULL, 0),
                             false) == 0);
}

static void begin(struct stream *s)
{
    open_on(k.client, s);
}

static void forget(struct stream *s)
{
    while (s->count > 0) {
        etcdserverpb__watch_response__free_unpacked(s->answers[--s->count], NULL);
    }
}

static bool is_over(void *arg)
{
    return ((struct stream *)arg)->is_over;
}

static void end(struct stream *s)
{
    hw_request_cancel(&s->request);
    kit_turn_until(&k, is_over, s);
    forget(s);
}

static void ask(struct stream *s, const Etcdserverpb__WatchRequest *q)
{
    struct hw_buf out;
    hw_buf_init(&out);
    REQUIRE(hw_buf_reserve(&out, etcdserverpb__watch_request__get_packed_size(q) + 1) == 0);
    out.len = etcdserverpb__watch_request__pack(q, out.data);
    REQUIRE(hw_request_send(&s->request, hw_buf_slice(&out)) == 0);
    hw_buf_free(&out);
}

static Etcdserverpb__WatchCreateRequest create_of(const char *key, const char *end_key)
{
    Etcdserverpb__WatchCreateRequest c = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    c.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    c.range_end = (ProtobufCBinaryData){strlen(end_key), (uint8_t *)end_key};
    return c;
}

static void create(struct stream *s, Etcdserverpb__WatchCreateRequest *c)
{
    Etcdserverpb__WatchRequest q = ETCDSERVERPB__WATCH_REQUEST__INIT;
    q.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    q.create_request = c;
    ask(s, &q);
}

static void cancel(struct stream *s, int64_t id)
{
    Etcdserverpb__WatchRequest q = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCancelRequest c = ETCDSERVERPB__WATCH_CANCEL_REQUEST__INIT;
    c.watch_id = id;
    q.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST;
    q.cancel_request = &c;
    ask(s, &q);
}

static void ask_progress(struct stream *s)
{
    Etcdserverpb__WatchRequest q = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchProgressRequest p = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;
    q.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    q.progress_request = &p;
    ask(s, &q);
}

struct want {
    struct stream *s;
    size_t count;
    size_t events;
    size_t created;
};

static bool is_there(void *arg)
{
    const struct want *w = arg;
    return (w->s->count >= w->count && w->s->events >= w->events && w->s->created >= w->created) || w->s->is_over;
}

/* The n-th answer (from 1), waited for. */
static const answer *nth(struct stream *s, size_t n)
{
    struct want w = {.s = s, .count = n};
    kit_turn_until(&k, is_there, &w);
    REQUIRE(s->count >= n);
    return s->answers[n - 1];
}

static bool is_text(const ProtobufCBinaryData *data, const char *text)
{
    return data->len == strlen(text) && memcmp(data->data, text, data->len) == 0;
}

static bool remove_key(const char *key)
{
    Etcdserverpb__DeleteRangeRequest m = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    static struct kit_call c;
    void *r;
    m.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    r = kit_ask(&k, k.client, "/etcdserverpb.KV/DeleteRange", &m.base, &etcdserverpb__delete_range_response__descriptor,
                &c);
    if (r != NULL) {
        protobuf_c_message_free_unpacked(r, NULL);
    }
    return r != NULL;
}

static void compact(hw_rev revision)
{
    Etcdserverpb__CompactionRequest m = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    static struct kit_call c;
    void *r;
    m.revision = revision;
    r = kit_ask(&k, k.client, "/etcdserverpb.KV/Compact", &m.base, &etcdserverpb__compaction_response__descriptor, &c);
    REQUIRE(r != NULL);
    protobuf_c_message_free_unpacked(r, NULL);
}

static void start(void)
{
    kit_open(&k, 0);
    kit_start_replica(&k);
}

/* ---- claims ---- */

static void events_say_what_happened(void)
{
    Etcdserverpb__WatchCreateRequest c = create_of("a", "");
    const answer *m;
    start();
    begin(&a);
    c.prev_kv = true;
    create(&a, &c);
    m = nth(&a, 1);
    CHECK(m->created && !m->canceled && m->watch_id == 0 && m->n_events == 0);
    CHECK(m->header->cluster_id == 4242 && m->header->member_id == 77 && m->header->revision == 1);
    CHECK(kit_put(&k, "a", "1") && kit_put(&k, "b", "x") && kit_put(&k, "a", "2") && remove_key("a"));
    m = nth(&a, 2);
    CHECK(m->n_events == 1 && m->header->revision == 2 && m->watch_id == 0 && !m->created);
    CHECK(m->events[0]->type == MVCCPB__EVENT__EVENT_TYPE__PUT && m->events[0]->prev_kv == NULL);
    CHECK(is_text(&m->events[0]->kv->value, "1") && m->events[0]->kv->mod_revision == 2);
    m = nth(&a, 3);
    CHECK(m->header->revision == 4 && m->events[0]->kv->version == 2 && is_text(&m->events[0]->prev_kv->value, "1"));
    m = nth(&a, 4);
    CHECK(m->events[0]->type == MVCCPB__EVENT__EVENT_TYPE__DELETE && is_text(&m->events[0]->prev_kv->value, "2"));
    CHECK(is_text(&m->events[0]->kv->key, "a") && m->events[0]->kv->mod_revision == 5);
    CHECK(m->events[0]->kv->value.len == 0 && m->events[0]->kv->version == 0 && m->events[0]->kv->create_revision == 0);
    end(&a);
    kit_close(&k);
}

static void ids_are_chosen_found_and_refused(void)
{
    Etcdserverpb__WatchCreateRequest c = create_of("a", "");
    Etcdserverpb__WatchCreateRequest__FilterType bad = 7;
    const answer *m;
    start();
    begin(&a);
    c.watch_id = 1;
    create(&a, &c);
    CHECK_EQ(nth(&a, 1)->watch_id, 1);
    create(&a, &c);
    m = nth(&a, 2);
    CHECK(m->created && m->canceled && m->watch_id == -1);
    CHECK_STR(m->cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    c.watch_id = 0;
    create(&a, &c);
    create(&a, &c);
    CHECK_EQ(nth(&a, 3)->watch_id, 0);
    CHECK_EQ(nth(&a, 4)->watch_id, 2); /* 1 is taken */
    cancel(&a, 99);
    cancel(&a, 1);
    m = nth(&a, 5);
    CHECK(m->canceled && !m->created && m->watch_id == 1 && m->cancel_reason[0] == '\0');
    c = create_of("b", "a");
    create(&a, &c);
    CHECK_STR(nth(&a, 6)->cancel_reason, "mvcc: watcher range is empty");
    c = create_of("b", "");
    c.filters = &bad;
    c.n_filters = 1;
    create(&a, &c);
    m = nth(&a, 7);
    CHECK(m->created && m->canceled && m->watch_id == -1 && strstr(m->cancel_reason, "filter") != NULL);
    CHECK_EQ(hw_replica_watcher_count(k.replica), 2);
    end(&a);
    test_turn_for(k.loop, 30);
    CHECK_EQ(hw_replica_watcher_count(k.replica), 0); /* a reset frees all */
    kit_close(&k);
}

static void starts_in_the_past_the_future_and_before_the_compaction(void)
{
    Etcdserverpb__WatchCreateRequest c = create_of("", "");
    const answer *m;
    start();
    CHECK(kit_put(&k, "a", "1") && kit_put(&k, "b", "2") && kit_put(&k, "a", "3"));
    begin(&a);
    c.range_end = (ProtobufCBinaryData){1, (uint8_t *)"\0"}; /* all keys */
    c.start_revision = 2;
    create(&a, &c);
    CHECK(nth(&a, 1)->created);
    m = nth(&a, 2);
    CHECK(m->n_events == 3 && m->events[0]->kv->mod_revision == 2 && m->events[2]->kv->mod_revision == 4);
    CHECK_EQ(m->header->revision, 4);
    cancel(&a, 0);
    c.start_revision = 6;
    create(&a, &c);
    CHECK(nth(&a, 4)->created);
    CHECK(kit_put(&k, "a", "5") && kit_put(&k, "a", "6"));
    m = nth(&a, 5);
    CHECK(m->n_events == 1 && m->events[0]->kv->mod_revision == 6);
    cancel(&a, 1);
    nth(&a, 6);
    compact(4);
    c.start_revision = 3;
    create(&a, &c);
    m = nth(&a, 7);
    CHECK(m->created && !m->canceled && m->watch_id == 2);
    m = nth(&a, 8);
    CHECK(m->canceled && !m->created && m->watch_id == 2 && m->compact_revision == 4);
    CHECK_STR(m->cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    end(&a);
    kit_close(&k);
}

static void filters_leave_out(void)
{
    Etcdserverpb__WatchCreateRequest__FilterType filter = ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT;
    Etcdserverpb__WatchCreateRequest c = create_of("a", "");
    start();
    begin(&a);
    c.filters = &filter;
    c.n_filters = 1;
    create(&a, &c);
    nth(&a, 1);
    filter = ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE;
    create(&a, &c);
    nth(&a, 2);
    CHECK(kit_put(&k, "a", "1") && remove_key("a"));
    CHECK(nth(&a, 3)->watch_id == 1 && nth(&a, 3)->events[0]->type == MVCCPB__EVENT__EVENT_TYPE__PUT);
    CHECK(nth(&a, 4)->watch_id == 0 && nth(&a, 4)->events[0]->type == MVCCPB__EVENT__EVENT_TYPE__DELETE);
    test_turn_for(k.loop, 20);
    CHECK_EQ(a.count, 4);
    end(&a);
    kit_close(&k);
}

static void progress_is_told_on_request_and_to_the_quiet(void)
{
    Etcdserverpb__WatchCreateRequest c = create_of("a", "");
    const answer *m;
    start();
    k.api->config.watch_progress_ms = 300;
    begin(&a);
    ask_progress(&a); /* without a watch */
    m = nth(&a, 1);
    CHECK(m->watch_id == -1 && m->header->revision == 1);
    create(&a, &c);
    nth(&a, 2);
    CHECK(kit_put(&k, "other", "1"));
    ask_progress(&a);
    m = nth(&a, 3);
    CHECK(m->watch_id == -1 && m->n_events == 0 && m->header->revision == 2 && !m->created && !m->canceled);
    c.start_revision = 5; /* one that waits holds the answer back */
    create(&a, &c);
    nth(&a, 4);
    ask_progress(&a);
    test_turn_for(k.loop, 150);
    CHECK_EQ(a.count, 4);
    CHECK(kit_put(&k, "other", "2") && kit_put(&k, "other", "3"));
    CHECK(nth(&a, 5)->watch_id == -1 && nth(&a, 5)->header->revision == 4);
    end(&a);
    begin(&b);
    c = create_of("a", "");
    c.progress_notify = true;
    create(&b, &c);
    m = nth(&b, 2);
    CHECK(m->watch_id == 0 && m->n_events == 0 && m->header->revision == 4 && !m->created);
    end(&b);
    kit_close(&k);
}

/* The limit of the kit is 100,000 bytes. */
static void large_batches_are_fragmented_for_those_who_ask(void)
{
    static char value[60001];
    Etcdserverpb__WatchCreateRequest c = create_of("k", "l");
    struct want w = {.s = &a, .events = 10};
    size_t fragments = 0;
    start();
    memset(value, 'v', sizeof value - 1);
    for (int i = 0; i < 10; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%d", i);
        REQUIRE(kit_put(&k, key, value));
    }
    begin(&a);
    begin(&b);
    c.start_revision = 2;
    create(&b, &c);
    c.fragment = true;
    create(&a, &c);
    kit_turn_until(&k, is_there, &w);
    for (size_t i = 1; i < a.count; i++) {
        CHECK_EQ(a.answers[i]->n_events, 1);
        CHECK_EQ(a.answers[i]->fragment, i + 1 < a.count);
        CHECK_EQ(a.answers[i]->header->revision, 11);
        CHECK_EQ(a.answers[i]->events[0]->kv->mod_revision, (int64_t)i + 1);
        fragments += a.answers[i]->fragment;
    }
    CHECK(fragments == 9 && a.largest < 100000);
    CHECK(nth(&b, 2)->n_events == 10 && !nth(&b, 2)->fragment);
    end(&a);
    end(&b);
    kit_close(&k);
}

/* ---- many, and slow ---- */

static void ten_thousand_watches_on_a_stream_all_hear(void)
{
    enum { MANY = 10000 };
    Etcdserverpb__WatchCreateRequest c = create_of("a", "");
    struct want w = {.s = &a, .created = MANY};
    start();
    begin(&a);
    a.is_counting = true;
    for (int i = 0; i < MANY; i++) {
        create(&a, &c);
        if (i % 100 == 0) {
            hw_loop_turn(k.loop, false);
        }
    }
    kit_turn_until(&k, is_there, &w);
    CHECK_EQ(hw_replica_watcher_count(k.replica), MANY);
    for (size_t i = 1; i <= 5; i++) {
        CHECK(kit_put(&k, "a", "v"));
        w.events = i * MANY;
    }
    kit_turn_until(&k, is_there, &w);
    CHECK_EQ(a.events, 5 * MANY);
    end(&a);
    test_turn_for(k.loop, 50);
    CHECK_EQ(hw_replica_watcher_count(k.replica), 0);
    kit_close(&k);
}

static bool is_slow_up(void *arg)
{
    (void)arg;
    return hw_replica_watcher_count(k.replica) == 2;
}

static bool has_ended_one(void *arg)
{
    (void)arg;
    return hw_replica_watcher_count(k.replica) == 1;
}

/* Its client has a loop of its own, which is not turned any more once its watch stands. */
static void a_client_that_never_reads_disturbs_nobody(void)
{
    enum { PUTS = 300 };
    static char value[60001];
    Etcdserverpb__WatchCreateRequest c = create_of("k", "");
    struct hw_loop *other = test_loop_new();
    struct hw_channel *channel;
    struct want w = {.s = &a};
    size_t queued_max = 0;
    start();
    k.api->config.watch_queue_bytes_max = 128 * 1024;
    k.replica->watch.stall_ms = 400;
    memset(value, 'v', sizeof value - 1);
    begin(&a);
    a.is_counting = true;
    create(&a, &c);
    REQUIRE(hw_channel_new(other, k.resolver, hw_api_client_bound(k.api), NULL, NULL, NULL, &channel) == 0);
    open_on(channel, &b);
    create(&b, &c);
    for (int i = 0; i < 2000 && !is_slow_up(NULL); i++) {
        hw_loop_turn(other, false);
        hw_loop_turn(k.loop, false);
    }
    REQUIRE(is_slow_up(NULL));
    for (size_t i = 1; i <= PUTS; i++) {
        struct hw_watch_stream *s;
        REQUIRE(kit_put(&k, "k", value));
        TAILQ_FOREACH(s, &k.api->watches.streams, link) {
            size_t queued = hw_call_queued(s->call);
            queued_max = queued > queued_max ? queued : queued_max;
        }
        w.events = i;
        kit_turn_until(&k, is_there, &w);
    }
    CHECK_EQ(a.events, PUTS);
    CHECK(queued_max > 128 * 1024 && queued_max < 2 * 1024 * 1024);
    kit_turn_until(&k, has_ended_one, NULL);
    /* It begins to read: what was sent, then why there is no more. */
    for (int i = 0; i < 20000 && (b.count == 0 || !b.answers[b.count - 1]->canceled); i++) {
        hw_loop_turn(other, false);
        hw_loop_turn(k.loop, false);
    }
    REQUIRE(b.count > 0 && b.answers[b.count - 1]->canceled);
    CHECK(strstr(b.answers[b.count - 1]->cancel_reason, "does not read") != NULL);
    CHECK(b.events < PUTS);
    hw_channel_free(channel);
    for (int i = 0; i < 2000 && !b.is_over; i++) {
        hw_loop_turn(other, false);
    }
    while (hw_loop_turn(other, false)) {
    }
    hw_loop_free(other);
    forget(&b);
    end(&a);
    kit_close(&k);
}

/* ---- ends ---- */

static void without_a_replica_streams_end_with_unavailable(void)
{
    Etcdserverpb__WatchCreateRequest c = create_of("a", "");
    kit_open(&k, 0);
    begin(&a);
    kit_turn_until(&k, is_over, &a);
    CHECK_EQ(a.status, HW_GRPC_UNAVAILABLE);
    CHECK_STR(a.text, "node solo is joining: it has no state to watch");
    kit_start_replica(&k);
    begin(&a);
    create(&a, &c);
    nth(&a, 1);
    hw_api_set_replica(k.api, NULL, 0);
    CHECK_EQ(hw_replica_watcher_count(k.replica), 0);
    kit_turn_until(&k, is_over, &a);
    CHECK_EQ(a.status, HW_GRPC_UNAVAILABLE);
    CHECK_STR(a.text, "etcdserver: server stopped");
    forget(&a);
    hw_api_set_replica(k.api, k.replica, 4242);
    begin(&a);
    create(&a, &c);
    nth(&a, 1);
    begin(&b);
    REQUIRE(hw_request_send(&b.request, hw_slice_str("not a request")) == 0);
    kit_turn_until(&k, is_over, &b);
    CHECK_EQ(b.status, HW_GRPC_INVALID_ARGUMENT);
    kit_close(&k); /* with a stream open */
    forget(&a);
}

HW_SUITE(api_watch, HW_CASE(events_say_what_happened), HW_CASE(ids_are_chosen_found_and_refused),
         HW_CASE(starts_in_the_past_the_future_and_before_the_compaction), HW_CASE(filters_leave_out),
         HW_CASE(progress_is_told_on_request_and_to_the_quiet), HW_CASE(large_batches_are_fragmented_for_those_who_ask),
         HW_CASE(ten_thousand_watches_on_a_stream_all_hear), HW_CASE(a_client_that_never_reads_disturbs_nobody),
         HW_CASE(without_a_replica_streams_end_with_unavailable))
