/* etcdserverpb.Lease/LeaseKeepAlive: a stream of ids in, each answered with the time that it has now, 0 for a lease
 * that is gone. On the hot node each is renewed here; elsewhere each is sent on, as one call. Answers come in the order
 * in which they are ready, as they carry the id.
 *
 * Bounds: WINDOW ids of a stream are under way, up to WAITING_MAX more wait their turn as 8 bytes each; a client that
 * sends more, or that reads nothing, is told so and its stream ends. What the replica cannot take just now waits too.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "agent/api/protowire.h"
#include "agent/replica/lease.h"

#define WINDOW 256u
#define WAITING_MAX 65536u
#define QUEUED_BYTES_MAX ((size_t)256 * 1024)

struct hw_keep_alive_stream {
    struct hw_api *api;
    struct hw_call *call;  /* NULL: ended, and the struct waits for its items */
    struct hw_buf waiting; /* int64_t each */
    size_t taken;          /* bytes of waiting that are done with */
    unsigned busy;
    bool is_half_closed;
    TAILQ_ENTRY(hw_keep_alive_stream) link;
};

/* One id under way. */
struct item {
    struct hw_keep_alive_stream *stream;
    int64_t id;
    union {
        struct hw_keep_alive keep_alive;
        struct hw_forward forward;
    } work;
};

static void stream_end(struct hw_keep_alive_stream *s, enum hw_grpc status, const char *text)
{
    struct hw_call *call = s->call;
    TAILQ_REMOVE(&s->api->keep_alives, s, link);
    s->call = NULL;
    hw_buf_free(&s->waiting);
    s->taken = 0;
    if (s->busy == 0) {
        free(s);
    }
    hw_call_end(call, status, text);
}

static void stream_refuse(struct hw_keep_alive_stream *s, enum hw_refusal refusal)
{
    stream_end(s, hw_refusal_status(refusal), hw_refusal_text(refusal));
}

static size_t waiting_count(const struct hw_keep_alive_stream *s)
{
    return (s->waiting.len - s->taken) / sizeof(int64_t);
}

/* False: the stream has ended. */
static bool wait_turn(struct hw_keep_alive_stream *s, int64_t id)
{
    if (waiting_count(s) >= WAITING_MAX) {
        stream_refuse(s, HW_REFUSE_TOO_MANY_REQUESTS);
        return false;
    }
    if (hw_buf_append(&s->waiting, &id, sizeof id) != 0) {
        stream_refuse(s, HW_REFUSE_NO_MEMORY);
        return false;
    }
    return true;
}

/* ---- one id ---- */

static bool stream_send(struct hw_keep_alive_stream *s, struct hw_slice message)
{
    if (hw_call_send(s->call, message) != 0) {
        stream_end(s, HW_GRPC_RESOURCE_EXHAUSTED, "the client does not read");
        return false;
    }
    return true;
}

static bool answer(struct hw_keep_alive_stream *s, int64_t id, int64_t ttl_s)
{
    struct hw_api *api = s->api;
    struct hw_header header = {.cluster_id = api->cluster_id,
                               .member_id = api->config.node_id,
                               .revision = hw_hot_revision(hw_replica_hot(api->replica)),
                               .raft_term = hw_replica_term(api->replica)};
    struct hw_buf out;
    bool is_open;
    hw_buf_init(&out);
    hw_encode_header(&out, &header);
    hw_pb_put_uint(&out, 2, (uint64_t)id);
    hw_pb_put_uint(&out, 3, (uint64_t)ttl_s);
    if (out.failed) {
        stream_refuse(s, HW_REFUSE_NO_MEMORY);
        is_open = false;
    } else {
        is_open = stream_send(s, hw_buf_slice(&out));
    }
    hw_buf_free(&out);
    return is_open;
}

static void pump(struct hw_keep_alive_stream *s);

/* NULL: the stream has ended meanwhile, nobody waits for the answer. */
static struct hw_keep_alive_stream *item_close(struct item *i)
{
    struct hw_keep_alive_stream *s = i->stream;
    struct hw_api *api = s->api;
    free(i);
    s->busy--;
    if (s->call == NULL) {
        if (s->busy == 0) {
            free(s);
        }
        s = NULL;
    }
    hw_api_unref(api);
    return s;
}

static void keep_alive_done(struct hw_keep_alive *k, int status)
{
    struct item *i = hw_container_of(k, struct item, work.keep_alive);
    int64_t id = i->id;
    int64_t ttl_s = status == 0 ? k->ttl_s : 0;
    struct hw_keep_alive_stream *s = item_close(i);
    if (s == NULL) {
        return;
    }
    if (!hw_api_has_state(s->api)) {
        stream_refuse(s, HW_REFUSE_STOPPED);
    } else if (status == HW_ERR_NOTHOT || status == HW_ERR_EXHAUSTED) {
        wait_turn(s, id); /* the tick sends it on, to where the hot node is then */
    } else if (status != 0 && status != HW_ERR_NOTFOUND) {
        stream_refuse(s, hw_refusal_of_status(status));
    } else if (answer(s, id, ttl_s)) {
        pump(s);
    }
}

static void forward_done(struct hw_forward *f, enum hw_grpc status, const char *text, struct hw_slice message)
{
    struct item *i = hw_container_of(f, struct item, work.forward);
    int64_t id = i->id;
    struct hw_keep_alive_stream *s;
    hw_buf_free(&f->payload);
    s = item_close(i);
    if (s == NULL) {
        return;
    }
    if (status == HW_GRPC_ABORTED && text != NULL && strcmp(text, HW_FORWARD_IS_LOCAL) == 0) {
        wait_turn(s, id);
    } else if (status != HW_GRPC_OK) {
        stream_end(s, status, text);
    } else if (stream_send(s, message)) {
        pump(s);
    }
}

static int item_forward(struct item *i)
{
    struct hw_forward *f = &i->work.forward;
    int rc;
    f->done = forward_done;
    f->method = HW_KEEP_ALIVE_PATH;
    f->is_idempotent = true;
    hw_buf_init(&f->payload);
    hw_pb_put_uint(&f->payload, 1, (uint64_t)i->id);
    rc = f->payload.failed ? HW_ERR_NOMEM
                           : hw_replica_forward(i->stream->api->replica, f, i->stream->api->config.request_timeout_ms);
    if (rc != 0) {
        hw_buf_free(&f->payload);
    }
    return rc;
}

static int item_start(struct hw_keep_alive_stream *s, int64_t id)
{
    struct item *i = calloc(1, sizeof *i);
    int rc;
    if (i == NULL) {
        return HW_ERR_NOMEM;
    }
    i->stream = s;
    i->id = id;
    if (hw_replica_is_hot(s->api->replica)) {
        i->work.keep_alive.done = keep_alive_done;
        i->work.keep_alive.id = id;
        rc = hw_replica_lease_keep_alive(s->api->replica, &i->work.keep_alive, s->api->config.request_timeout_ms);
    } else {
        rc = item_forward(i);
    }
    if (rc != 0) {
        free(i);
        return rc;
    }
    s->busy++;
    hw_api_ref(s->api);
    return 0;
}

/* ---- the stream ---- */

static void pump(struct hw_keep_alive_stream *s)
{
    while (waiting_count(s) > 0 && s->busy < WINDOW && hw_call_queued(s->call) < QUEUED_BYTES_MAX) {
        int64_t id;
        int rc;
        if (!hw_api_has_state(s->api)) {
            stream_refuse(s, HW_REFUSE_NO_LEADER);
            return;
        }
        memcpy(&id, s->waiting.data + s->taken, sizeof id);
        rc = item_start(s, id);
        if (rc == HW_ERR_EXHAUSTED) {
            return; /* the tick comes again */
        }
        if (rc != 0) {
            stream_refuse(s, hw_refusal_of_status(rc));
            return;
        }
        s->taken += sizeof id;
        if (s->taken == s->waiting.len || s->taken > WAITING_MAX * sizeof id) {
            hw_buf_consume(&s->waiting, s->taken);
            s->taken = 0;
        }
    }
    if (s->is_half_closed && s->busy == 0 && waiting_count(s) == 0) {
        stream_end(s, HW_GRPC_OK, NULL);
    }
}

static void on_cancel(void *data, struct hw_call *call)
{
    (void)call;
    stream_end(data, HW_GRPC_CANCELLED, NULL);
}

void hw_keep_alive_open(void *ctx, struct hw_call *call)
{
    struct hw_api *api = ctx;
    struct hw_keep_alive_stream *s = api->is_stopping ? NULL : calloc(1, sizeof *s);
    if (s == NULL) {
        enum hw_refusal refusal = api->is_stopping ? HW_REFUSE_STOPPED : HW_REFUSE_NO_MEMORY;
        hw_call_end(call, hw_refusal_status(refusal), hw_refusal_text(refusal));
        return;
    }
    s->api = api;
    s->call = call;
    TAILQ_INSERT_TAIL(&api->keep_alives, s, link);
    hw_call_set_data(call, s);
    hw_call_on_cancel(call, on_cancel);
}

void hw_keep_alive_message(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct hw_api *api = ctx;
    struct hw_keep_alive_stream *s = hw_call_data(call);
    struct hw_reader r;
    unsigned field;
    enum hw_pb_type type;
    uint64_t number;
    struct hw_slice bytes;
    int64_t id = 0;
    hw_loop_note(api->loop, HW_KEEP_ALIVE_PATH);
    hw_reader_init(&r, message.data, message.len);
    while (hw_protowire_next(&r, &field, &type, &number, &bytes)) {
        if (field == 1 && type == HW_PB_VARINT) {
            id = (int64_t)number;
        }
    }
    if (r.failed) {
        stream_refuse(s, HW_REFUSE_MALFORMED);
    } else if (wait_turn(s, id)) {
        pump(s);
    }
}

void hw_keep_alive_half_close(void *ctx, struct hw_call *call)
{
    struct hw_keep_alive_stream *s = hw_call_data(call);
    (void)ctx;
    s->is_half_closed = true;
    pump(s);
}

void hw_keep_alives_tick(struct hw_api *api)
{
    struct hw_keep_alive_stream *s;
    struct hw_keep_alive_stream *next;
    for (s = TAILQ_FIRST(&api->keep_alives); s != NULL; s = next) {
        next = TAILQ_NEXT(s, link);
        if (waiting_count(s) > 0) {
            pump(s);
        }
    }
}

void hw_keep_alives_close(struct hw_api *api)
{
    struct hw_keep_alive_stream *s;
    while ((s = TAILQ_FIRST(&api->keep_alives)) != NULL) {
        stream_refuse(s, HW_REFUSE_STOPPED);
    }
}
