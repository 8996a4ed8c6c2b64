/* snapshot save: stream an image to a file, over as many streams as it takes. */
#include <string.h>

#include "agent/base/clock.h"
#include "cli/call.h"
#include "cli/output.h"
#include "cli/run.h"
#include "cli/snapshot_file.h"
#include "proto/hotwarm.pb-c.h"

#define SNAPSHOT_PATH "/hotwarm.v1.Admin/Snapshot"
/* Streams in a row that brought nothing, per endpoint; one that brought something begins the count anew. */
#define FRUITLESS_PER_ENDPOINT 3
#define RETRY_PAUSE_MS 100 /* longer after each fruitless one */
#define PROGRESS_PERIOD_MS 200

struct save {
    struct hw_ctl *ctl;
    struct hw_ctl_snapshot file;
    uint64_t start_ms;
    uint64_t progress_ms;
};

static void show_progress(struct save *s, bool is_last)
{
    uint64_t now_ms = hw_mono_ms();
    uint64_t took_ms = now_ms - s->start_ms;
    char done[HW_CTL_SHORT_SIZE];
    char total[HW_CTL_SHORT_SIZE];
    char rate[HW_CTL_SHORT_SIZE];
    if (!s->ctl->env->err_is_tty || s->ctl->settings.is_quiet ||
        (!is_last && now_ms - s->progress_ms < PROGRESS_PERIOD_MS)) {
        return;
    }
    s->progress_ms = now_ms;
    fprintf(s->ctl->env->err, "\r%3llu%%  %s of %s  %s/s   %s",
            (unsigned long long)(s->file.size > 0 ? s->file.offset * 100 / s->file.size : 0),
            hw_ctl_bytes_text(s->file.offset, done), hw_ctl_bytes_text(s->file.size, total),
            hw_ctl_bytes_text(took_ms > 0 ? s->file.offset * 1000 / took_ms : 0, rate), is_last ? "\n" : "");
    fflush(s->ctl->env->err);
}

static int on_message(void *ctx, struct hw_slice message, struct hw_error *e)
{
    struct save *s = ctx;
    int rc = hw_ctl_snapshot_message(&s->file, message, e);
    show_progress(s, false);
    return rc;
}

/* Is another stream worth a try? Not after a fault of our own disk, and not when the server says no. */
static bool is_worth_trying(int rc)
{
    return rc == HW_ERR_CONNECT || rc == HW_ERR_CLOSED || rc == HW_ERR_UNAVAILABLE || rc == HW_ERR_TIMEOUT ||
           rc == HW_ERR_PROTOCOL || rc == HW_ERR_CORRUPT || rc == HW_ERR_ABORTED || rc == HW_ERR_EXHAUSTED ||
           rc == HW_ERR_INTERNAL;
}

static int one_stream(struct save *s, unsigned endpoint, struct hw_error *e)
{
    Hotwarm__V1__SnapshotRequest q = HOTWARM__V1__SNAPSHOT_REQUEST__INIT;
    int rc;
    q.token = s->file.token;
    q.offset = s->file.offset;
    hw_ctl_snapshot_stream(&s->file);
    rc = hw_ctl_stream_at(s->ctl, endpoint, SNAPSHOT_PATH, &q.base, s->ctl->settings.timeout_ms, on_message, s, e);
    if (rc == HW_ERR_NOTFOUND && q.token != 0) { /* of a copy that was there: it went with its node or its time */
        struct hw_error restart = {0};
        rc = hw_ctl_snapshot_restart(&s->file, &restart);
        if (rc != 0) {
            *e = restart;
            return rc;
        }
        e->code = HW_ERR_UNAVAILABLE;
        return hw_error_wrap(e, "the copy did not last");
    }
    if (rc == 0 && !s->file.is_complete) {
        rc = hw_error_set(e, HW_ERR_PROTOCOL, "the stream ended at byte %llu of %llu without its end mark",
                          (unsigned long long)s->file.offset, (unsigned long long)s->file.size);
    }
    return rc;
}

/* The same endpoint is tried again first: it may still have the copy. Then the next one. */
static int all_streams(struct save *s, struct hw_error *e)
{
    struct hw_ctl *ctl = s->ctl;
    unsigned fruitless = 0;
    unsigned endpoint = ctl->preferred;
    bool has_begun = false;
    int rc;
    hw_ctl_race_again(ctl);
    if (hw_ctl_race(ctl, ctl->settings.timeout_ms, &endpoint, e) != 0) {
        endpoint = ctl->preferred; /* whose reason is as good as any */
    }
    for (;;) {
        uint64_t before = s->file.offset;
        uint64_t token = s->file.token;
        bool is_gain;
        rc = one_stream(s, endpoint, e);
        if (s->file.is_complete) {
            return 0;
        }
        if (rc == HW_ERR_CANCELLED || !is_worth_trying(rc)) {
            return hw_error_wrap(e, "%s", ctl->endpoints[endpoint].address);
        }
        hw_ctl_note(ctl, "snapshot save: %s: %s; received %llu bytes, trying again", ctl->endpoints[endpoint].address,
                    hw_error_text(e), (unsigned long long)s->file.offset);
        /* Another copy that began anew is no gain, or a server that drops its copies would keep us for ever. */
        is_gain = s->file.offset > before && (s->file.token == token || !has_begun);
        has_begun = has_begun || s->file.token != 0;
        fruitless = is_gain ? 0 : fruitless + 1;
        if (fruitless >= FRUITLESS_PER_ENDPOINT * ctl->endpoint_count) {
            return hw_error_wrap(e, "%s", ctl->endpoints[endpoint].address);
        }
        if (rc == HW_ERR_CORRUPT && s->file.offset == s->file.size) {
            rc = hw_ctl_snapshot_restart(&s->file, e); /* damaged as a whole: no part of it is of use */
            if (rc != 0) {
                return rc;
            }
        }
        if (fruitless > 0 && fruitless % FRUITLESS_PER_ENDPOINT == 0) {
            hw_ctl_drop(ctl, endpoint);
            endpoint = (endpoint + 1) % ctl->endpoint_count;
        } else if (hw_ctl_wait(ctl, NULL, RETRY_PAUSE_MS * (fruitless + 1)) == HW_ERR_CANCELLED) {
            return hw_error_set(e, HW_ERR_CANCELLED, "interrupted");
        }
    }
}

static int print_saved(struct save *s, struct hw_error *e)
{
    const struct hw_ctl_snapshot *f = &s->file;
    char size[HW_CTL_SHORT_SIZE];
    if (hw_ctl_is_json(s->ctl)) {
        return hw_ctl_json_print(s->ctl,
                                 json_pack("{s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o}", "file",
                                           hw_ctl_json_text(f->path), "size", hw_ctl_json_number(f->size), "index",
                                           hw_ctl_json_number(f->index), "revision", (json_int_t)f->revision,
                                           "cluster_id", hw_ctl_json_hex(f->cluster_id), "rows_hash",
                                           hw_ctl_json_hex(f->rows_hash), "checksum", hw_ctl_json_hex(f->checksum),
                                           "took_ms", hw_ctl_json_number(hw_mono_ms() - s->start_ms)),
                                 e);
    }
    fprintf(s->ctl->out, "saved %s: %s, revision %lld, index %llu, cluster %016llx, checksum %016llx\n", f->path,
            hw_ctl_bytes_text(f->size, size), (long long)f->revision, (unsigned long long)f->index,
            (unsigned long long)f->cluster_id, (unsigned long long)f->checksum);
    return 0;
}

HW_CTL_RUN(snapshot_save)
{
    struct save s = {.ctl = ctl, .start_ms = hw_mono_ms()};
    int rc = hw_ctl_snapshot_open(&s.file, hw_ctl_word(args, 0), hw_ctl_is_set(args, "force"), e);
    if (rc == HW_ERR_EXISTS) {
        hw_ctl_hint(ctl, "Choose another name, or replace it with --force");
    }
    if (rc != 0) {
        return rc;
    }
    rc = hw_ctl_start(ctl, e);
    if (rc == 0) {
        rc = all_streams(&s, e);
    }
    if (rc != 0) {
        hw_ctl_snapshot_abort(&s.file);
        if (rc == HW_ERR_CORRUPT) {
            hw_ctl_hint(ctl, "Nothing was kept; take the snapshot from another node with --endpoints");
        }
        return rc;
    }
    show_progress(&s, true);
    rc = hw_ctl_snapshot_finish(&s.file, e);
    return rc == 0 ? print_saved(&s, e) : rc;
}
