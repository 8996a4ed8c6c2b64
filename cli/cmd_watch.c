/* watch: events of a key or a range, as they happen. The connection may be lost and the node may go: the next endpoint
 * is asked from the revision after the last complete one, so no event is lost and none is shown twice. */
#include <string.h>

#include "agent/base/assert.h"
#include "cli/call.h"
#include "cli/kv_print.h"
#include "cli/range.h"
#include "cli/run.h"

#define WATCH_PATH "/etcdserverpb.Watch/Watch"
#define PAUSE_MS 200
#define FOREVER_MS ((uint64_t)INT64_MAX / 4)
/* Parts of one revision that are kept until the last one came. */
#define PARTS_MAX 4096

struct watch {
    struct hw_ctl *ctl;
    Etcdserverpb__WatchCreateRequest create;
    int64_t next;        /* 0: from now on, and no answer yet */
    bool was_created;    /* by any endpoint */
    bool is_created;     /* by this one */
    bool is_cancelled;   /* by the server, and it may be tried again */
    char cancelled[256]; /* its words */
    Etcdserverpb__WatchResponse *parts[PARTS_MAX];
    size_t part_count;
};

/* ---- printing ---- */

static json_t *json_kv(const Mvccpb__KeyValue *kv)
{
    if (kv == NULL) {
        return json_null();
    }
    return json_pack("{s:o, s:I, s:I, s:I, s:o, s:I}", "key", hw_ctl_json_bytes(kv->key.data, kv->key.len),
                     "create_revision", (json_int_t)kv->create_revision, "mod_revision", (json_int_t)kv->mod_revision,
                     "version", (json_int_t)kv->version, "value", hw_ctl_json_bytes(kv->value.data, kv->value.len),
                     "lease", (json_int_t)kv->lease);
}

static const char *type_name(const Mvccpb__Event *event)
{
    return event->type == MVCCPB__EVENT__EVENT_TYPE__DELETE ? "DELETE" : "PUT";
}

static int print_json(const struct watch *w, struct hw_error *e)
{
    json_t *events = json_array();
    const Etcdserverpb__WatchResponse *last = w->parts[w->part_count - 1];
    for (size_t i = 0; i < w->part_count; i++) {
        for (size_t k = 0; k < w->parts[i]->n_events; k++) {
            const Mvccpb__Event *event = w->parts[i]->events[k];
            json_array_append_new(events, json_pack("{s:s, s:o, s:o}", "type", type_name(event), "kv",
                                                    json_kv(event->kv), "prev_kv", json_kv(event->prev_kv)));
        }
    }
    return hw_ctl_json_print(w->ctl,
                             json_pack("{s:o, s:o}", "header", hw_ctl_json_header(last->header), "events", events), e);
}

static void print_text(const struct watch *w)
{
    struct hw_buf key = {0};
    struct hw_buf value = {0};
    for (size_t i = 0; i < w->part_count; i++) {
        for (size_t k = 0; k < w->parts[i]->n_events; k++) {
            const Mvccpb__Event *event = w->parts[i]->events[k];
            bool is_put = event->type != MVCCPB__EVENT__EVENT_TYPE__DELETE;
            fprintf(w->ctl->out, "%lld %s %s%s%s", (long long)event->kv->mod_revision, type_name(event),
                    hw_ctl_escaped(&key, event->kv->key.data, event->kv->key.len), is_put ? " " : "",
                    is_put ? hw_ctl_escaped(&value, event->kv->value.data, event->kv->value.len) : "");
            if (event->prev_kv != NULL) {
                fprintf(w->ctl->out, "  before: %s",
                        hw_ctl_escaped(&value, event->prev_kv->value.data, event->prev_kv->value.len));
            }
            fputc('\n', w->ctl->out);
        }
    }
    hw_buf_free(&key);
    hw_buf_free(&value);
}

static void drop_parts(struct watch *w)
{
    while (w->part_count > 0) {
        protobuf_c_message_free_unpacked(&w->parts[--w->part_count]->base, NULL);
    }
}

static int print_parts(struct watch *w, struct hw_error *e)
{
    int rc = 0;
    if (hw_ctl_is_json(w->ctl)) {
        rc = print_json(w, e);
    } else {
        print_text(w);
    }
    fflush(w->ctl->out);
    return rc == 0 && hw_ctl_is_out_closed(w->ctl) ? hw_error_set(e, HW_ERR_CLOSED, "nobody reads the output") : rc;
}

/* ---- receiving ---- */

static int on_cancelled(struct watch *w, const Etcdserverpb__WatchResponse *r, struct hw_error *e)
{
    if (r->compact_revision > 0) {
        return hw_error_set(e, HW_ERR_COMPACTED,
                            "the history before revision %lld has been compacted, and %lld is next",
                            (long long)r->compact_revision, (long long)w->next);
    }
    if (r->created) {
        return hw_error_set(e, HW_ERR_INVALID, "%s", r->cancel_reason);
    }
    snprintf(w->cancelled, sizeof w->cancelled, "%s", r->cancel_reason);
    w->is_cancelled = true;
    return hw_error_set(e, HW_ERR_UNAVAILABLE, "%s", w->cancelled);
}

static int on_events(struct watch *w, Etcdserverpb__WatchResponse *r, struct hw_error *e)
{
    const Mvccpb__Event *last = r->events[r->n_events - 1];
    int rc;
    if (w->part_count == PARTS_MAX) {
        protobuf_c_message_free_unpacked(&r->base, NULL);
        return hw_error_set(e, HW_ERR_TOOBIG, "one revision came in more than %d parts", PARTS_MAX);
    }
    w->parts[w->part_count++] = r;
    if (r->fragment) {
        return 0;
    }
    rc = print_parts(w, e);
    w->next = last->kv->mod_revision + 1;
    drop_parts(w);
    return rc;
}

static int on_message(void *ctx, struct hw_slice message, struct hw_error *e)
{
    struct watch *w = ctx;
    Etcdserverpb__WatchResponse *r = etcdserverpb__watch_response__unpack(NULL, message.len, message.data);
    int rc = 0;
    if (r == NULL) {
        return hw_error_set(e, HW_ERR_PROTOCOL, "the answer is not a WatchResponse");
    }
    for (size_t i = 0; i < r->n_events; i++) {
        if (r->events[i]->kv == NULL) {
            etcdserverpb__watch_response__free_unpacked(r, NULL);
            return hw_error_set(e, HW_ERR_PROTOCOL, "an event without a key");
        }
    }
    if (r->n_events > 0) {
        return on_events(w, r, e);
    }
    if (r->canceled) {
        rc = on_cancelled(w, r, e);
    } else if (r->created) {
        w->is_created = true;
        w->was_created = true;
        if (w->next == 0) {
            w->next = hw_ctl_header_revision(r->header) + 1;
        }
    }
    etcdserverpb__watch_response__free_unpacked(r, NULL);
    return rc;
}

/* ---- endpoints ---- */

static int watch_on(struct watch *w, unsigned i, struct hw_error *e)
{
    Etcdserverpb__WatchRequest q = ETCDSERVERPB__WATCH_REQUEST__INIT;
    int rc;
    w->is_created = false;
    w->is_cancelled = false;
    w->create.start_revision = w->next;
    q.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    q.create_request = &w->create;
    rc = hw_ctl_stream_at(w->ctl, i, WATCH_PATH, &q.base, FOREVER_MS, on_message, w, e);
    drop_parts(w); /* the next endpoint begins with this revision again */
    return rc != 0 ? rc : hw_error_set(e, HW_ERR_UNAVAILABLE, "the server ended the stream");
}

static bool may_go_on(int rc)
{
    return rc == HW_ERR_CONNECT || rc == HW_ERR_CLOSED || rc == HW_ERR_UNAVAILABLE || rc == HW_ERR_TIMEOUT ||
           rc == HW_ERR_PROTOCOL || rc == HW_ERR_EXHAUSTED || rc == HW_ERR_CANCELLED;
}

/* One endpoint until it is lost; 0: try another. */
static int watch_one(struct watch *w, unsigned i, struct hw_error *e)
{
    struct hw_ctl *ctl = w->ctl;
    int rc = watch_on(w, i, e);
    if (ctl->is_interrupted || hw_ctl_is_out_closed(ctl) || !may_go_on(rc)) {
        return hw_error_wrap(e, "%s", ctl->endpoints[i].address);
    }
    if (w->is_created) {
        hw_ctl_note(ctl, "watch: lost %s: %s; going on from revision %lld", ctl->endpoints[i].address, hw_error_text(e),
                    (long long)w->next);
        hw_ctl_race_again(ctl); /* the others may be back; this one comes last */
    }
    hw_ctl_leave(ctl, i, e);
    return 0;
}

/* Until Ctrl-C, until nobody reads, or until the server says no. */
static int watch_all(struct watch *w, struct hw_error *e)
{
    struct hw_ctl *ctl = w->ctl;
    int rc;
    hw_ctl_race_again(ctl);
    do {
        unsigned i;
        rc = hw_ctl_race(ctl, ctl->settings.timeout_ms, &i, e);
        if (rc == 0) {
            rc = watch_one(w, i, e);
        } else if (rc == HW_ERR_CONNECT && w->was_created) {
            hw_ctl_race_again(ctl);
            rc = hw_ctl_wait(ctl, NULL, PAUSE_MS) == HW_ERR_CANCELLED ? HW_ERR_CANCELLED : 0;
        } else if (rc == HW_ERR_CONNECT) {
            hw_ctl_say_left(ctl);
            rc = hw_error_set(e, HW_ERR_UNAVAILABLE, "no endpoint could be watched");
        }
    } while (rc == 0);
    return ctl->is_interrupted || hw_ctl_is_out_closed(ctl) ? 0 : rc;
}

HW_CTL_RUN(watch)
{
    struct watch w = {.ctl = ctl, .create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT};
    bool is_prefix = hw_ctl_is_set(args, "prefix");
    bool is_from = hw_ctl_is_set(args, "from-key");
    const char *word = hw_ctl_word(args, 1);
    struct hw_slice key = hw_slice_str(hw_ctl_word(args, 0));
    struct hw_slice end = word != NULL ? hw_slice_str(word) : hw_slice_of(NULL, 0);
    struct hw_buf end_buf = {0};
    int rc;
    if (is_prefix + is_from + (word != NULL) > 1) {
        return hw_error_set(e, HW_ERR_INVALID, "RANGE_END, --prefix and --from-key exclude each other");
    }
    if (key.len == 0 && !is_prefix && !is_from) {
        return hw_error_set(e, HW_ERR_INVALID, "the key is empty; all keys are: \"\" --prefix");
    }
    if (word == NULL) {
        hw_ctl_range_of(is_prefix ? HW_CTL_RANGE_PREFIX
                        : is_from ? HW_CTL_RANGE_FROM
                                  : HW_CTL_RANGE_ONE,
                        &key, &end, &end_buf);
    }
    w.create.key = (ProtobufCBinaryData){key.len, (uint8_t *)key.data};
    w.create.range_end = (ProtobufCBinaryData){end.len, (uint8_t *)end.data};
    w.create.prev_kv = hw_ctl_is_set(args, "prev-kv");
    w.create.fragment = true;
    w.next = hw_ctl_number(args, "rev", 0);
    rc = end_buf.failed ? hw_error_set(e, HW_ERR_NOMEM, "out of memory") : watch_all(&w, e);
    hw_buf_free(&end_buf);
    return rc;
}
