/* A node whose log no longer reaches the leader's (new, wiped, or away for long) makes itself whole: it streams an
 * image from a peer into incoming/, checks every chunk and the whole, loads it into a new state on the worker, puts it
 * in the place of its own image, and only then lets libraft store the manifest. libraft then calls restore, which swaps
 * the new state in; the log's entries after it follow.
 *
 *     pick a source -> stream chunks (resume with token and offset after a break) -> verify and load -> install ->
 * durable
 *
 * Any failure goes back to "pick a source" after a pause: libraft has no way to be told that an install failed. A crash
 * anywhere leaves the old image in place, or the new one beside an older log, which start accepts (entries that the
 * image already holds are skipped).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/replica/replica_impl.h"
#include "proto/hotwarm.pb-c.h"

#define RETRY_MS 300
#define PENDING_MAX (64u * 1024u * 1024u)
#define SAY_PERCENT 10
/* After a restart the source of the part that is on disk is waited for, before another one is begun with. */
#define RESUME_GRACE_MS 3000

static void stream_start(struct hw_replica *r);
static void writer_kick(struct hw_replica *r);

static void retry_later(struct hw_replica *r, const char *why)
{
    struct hw_rebuild *b = &r->rebuild;
    if (r->phase != HW_PHASE_MEMBER) {
        return;
    }
    hw_log_warn(HW_COMPONENT, "rebuild interrupted, trying again",
                "from=%016" PRIx64 " received=%" PRIu64 " total=%" PRIu64 " why=%s", b->source, b->received_bytes,
                b->total_bytes, hw_logq(why));
    b->attempts++;
    hw_timer_start(b->retry, RETRY_MS, 0);
}

static void start_over(struct hw_rebuild *b)
{
    b->token = 0;
    b->is_resumed = false;
    b->total_bytes = 0;
    b->received_bytes = 0;
    b->has_ended = false;
    hw_buf_free(&b->pending);
}

/* A reachable voter that is not hot first, the hot node when there is no other, another one after each failure. */
static struct hw_peer *pick_source(struct hw_replica *r)
{
    struct hw_rebuild *b = &r->rebuild;
    struct hw_peer *candidates[HW_MEMBERS_MAX];
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count = hw_consensus_members(r->consensus, members, HW_MEMBERS_MAX);
    size_t found = 0;
    struct hw_peer *p = b->token != 0 ? hw_peer_of(r, b->source) : NULL;
    if (p != NULL && p->is_up && b->attempts % 4 != 3) {
        return p; /* go on where the stream broke */
    }
    if (b->is_resumed && p != NULL && hw_loop_now_ms(r->loop) - b->started_ms < RESUME_GRACE_MS) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        p = hw_peer_of(r, members[i].id);
        if (p != NULL && p->is_up && members[i].role == HW_ROLE_VOTER && p->id != b->leader_id) {
            candidates[found++] = p;
        }
    }
    p = hw_peer_of(r, b->leader_id);
    if (p != NULL && p->is_up) {
        candidates[found++] = p;
    }
    return found == 0 ? NULL : candidates[b->attempts % found];
}

/* ---- the stream ---- */

static uint64_t received(const struct hw_rebuild *b)
{
    return b->received_bytes + b->pending.len;
}

static void say_progress(struct hw_rebuild *b)
{
    unsigned percent = b->total_bytes == 0 ? 0 : (unsigned)(received(b) * 100 / b->total_bytes);
    if (percent >= b->said_percent + SAY_PERCENT) {
        b->said_percent = percent - percent % SAY_PERCENT;
        hw_log_info(HW_COMPONENT, "image arriving", "percent=%u received=%" PRIu64 " total=%" PRIu64, percent,
                    received(b), b->total_bytes);
    }
}

static int on_begin(struct hw_replica *r, const Hotwarm__V1__SnapshotBegin *m)
{
    struct hw_rebuild *b = &r->rebuild;
    if (m->cluster_id != r->config.consensus.cluster_id) {
        return hw_error_set(&b->e, HW_ERR_FOREIGN, "the peer's image belongs to cluster %016" PRIx64, m->cluster_id);
    }
    if (m->index < b->index) {
        start_over(b);
        return hw_error_set(&b->e, HW_ERR_UNAVAILABLE,
                            "the peer's image is at log index %" PRIu64 ", %" PRIu64 " is needed", m->index, b->index);
    }
    if (b->token != m->token || m->size != b->total_bytes) {
        start_over(b);
    }
    b->token = m->token;
    b->copy_index = m->index;
    b->total_bytes = m->size;
    b->said_percent = b->total_bytes == 0 ? 0 : (unsigned)(received(b) * 100 / b->total_bytes);
    hw_log_info(HW_COMPONENT, received(b) > 0 ? "going on with an image" : "fetching an image",
                "from=%016" PRIx64 " received=%" PRIu64 " total=%" PRIu64 " index=%" PRIu64, b->source, received(b),
                b->total_bytes, m->index);
    return 0;
}

static int on_chunk(struct hw_replica *r, const Hotwarm__V1__SnapshotChunk *m)
{
    struct hw_rebuild *b = &r->rebuild;
    if (m->offset != b->received_bytes + b->pending.len || m->data.len > b->total_bytes - m->offset) {
        return hw_error_set(&b->e, HW_ERR_PROTOCOL, "a chunk at offset %" PRIu64 " where %" PRIu64 " was expected",
                            m->offset, b->received_bytes + (uint64_t)b->pending.len);
    }
    if (XXH3_64bits(m->data.data, m->data.len) != m->checksum) {
        return hw_error_set(&b->e, HW_ERR_CORRUPT, "the chunk at offset %" PRIu64 " was damaged on its way", m->offset);
    }
    if (b->pending.len + m->data.len > PENDING_MAX) {
        return hw_error_set(&b->e, HW_ERR_EXHAUSTED, "the disk is slower than the network; going on when it caught up");
    }
    if (hw_buf_append(&b->pending, m->data.data, m->data.len) != 0) {
        return hw_error_set(&b->e, HW_ERR_NOMEM, "no memory for a chunk");
    }
    say_progress(b);
    writer_kick(r);
    return 0;
}

static void on_message(struct hw_request *request, struct hw_slice message)
{
    struct hw_replica *r = hw_container_of(request, struct hw_replica, rebuild.request);
    struct hw_rebuild *b = &r->rebuild;
    Hotwarm__V1__SnapshotMessage *m;
    int rc = 0;
    if (b->is_cancelling) {
        return;
    }
    m = hotwarm__v1__snapshot_message__unpack(NULL, message.len, message.data);
    if (m == NULL) {
        rc = hw_error_set(&b->e, HW_ERR_PROTOCOL, "a message could not be read");
    } else if (m->part_case == HOTWARM__V1__SNAPSHOT_MESSAGE__PART_BEGIN) {
        rc = on_begin(r, m->begin);
    } else if (m->part_case == HOTWARM__V1__SNAPSHOT_MESSAGE__PART_CHUNK) {
        rc = on_chunk(r, m->chunk);
    } else if (m->part_case == HOTWARM__V1__SNAPSHOT_MESSAGE__PART_END) {
        b->has_ended = true;
        b->checksum = m->end->checksum;
    }
    if (m != NULL) {
        hotwarm__v1__snapshot_message__free_unpacked(m, NULL);
    }
    if (rc != 0) {
        b->is_cancelling = true;
        hw_request_cancel(request);
    }
}

static void on_end(struct hw_request *request, enum hw_grpc status, const char *text)
{
    struct hw_replica *r = hw_container_of(request, struct hw_replica, rebuild.request);
    struct hw_rebuild *b = &r->rebuild;
    b->is_streaming = false;
    if (b->is_cancelling) {
        retry_later(r, hw_error_text(&b->e));
    } else if (status != HW_GRPC_OK || !b->has_ended) {
        retry_later(r, text != NULL && text[0] != '\0' ? text : "the stream ended early");
    } else {
        writer_kick(r);
    }
    hw_replica_maybe_closed(r);
}

static const struct hw_request_ops request_ops = {.on_message = on_message, .on_end = on_end};

static void stream_start(struct hw_replica *r)
{
    struct hw_rebuild *b = &r->rebuild;
    Hotwarm__V1__SnapshotRequest m = HOTWARM__V1__SNAPSHOT_REQUEST__INIT;
    struct hw_peer *p;
    uint8_t packed[64];
    hw_peers_sync(r); /* a node just let in learns its peers from the manifest's configuration */
    p = pick_source(r);
    if (p == NULL) {
        hw_timer_start(b->retry, RETRY_MS, 0);
        return;
    }
    if (p->id != b->source) {
        start_over(b);
    }
    b->source = p->id;
    b->is_resumed = false;
    b->is_cancelling = false;
    b->has_ended = false;
    memset(&b->e, 0, sizeof b->e);
    m.token = b->token;
    m.offset = b->received_bytes + b->pending.len;
    m.min_index = b->index;
    hw_assert(hotwarm__v1__snapshot_request__get_packed_size(&m) <= sizeof packed);
    b->request.ops = &request_ops;
    if (hw_request_start(p->channel, &b->request, "/hotwarm.v1.Peer/Image", NULL, 0, true,
                         hw_slice_of(packed, hotwarm__v1__snapshot_request__pack(&m, packed)), true) != 0) {
        hw_timer_start(b->retry, RETRY_MS, 0);
        return;
    }
    b->is_streaming = true;
}

/* ---- the worker: writing, then loading and installing ---- */

static void write_work(struct hw_job *job)
{
    struct hw_rebuild *b = hw_container_of(job, struct hw_rebuild, job);
    struct hw_replica *r = hw_container_of(b, struct hw_replica, rebuild);
    b->status = b->writing_at == 0 ? hw_part_begin(r->data, &b->part, &b->e) : 0;
    if (b->status == 0) {
        b->status = hw_part_write(r->data, hw_buf_slice(&b->writing), b->writing_at, &b->e);
    }
}

static void write_done(struct hw_job *job)
{
    struct hw_rebuild *b = hw_container_of(job, struct hw_rebuild, job);
    struct hw_replica *r = hw_container_of(b, struct hw_replica, rebuild);
    b->is_writing = false;
    hw_buf_free(&b->writing);
    if (b->status != 0) {
        start_over(b);
        if (b->is_streaming) {
            b->is_cancelling = true;
            hw_request_cancel(&b->request);
        } else {
            retry_later(r, hw_error_text(&b->e));
        }
    } else {
        writer_kick(r);
    }
    hw_replica_maybe_closed(r);
}

static int load_image(struct hw_replica *r, const char *path)
{
    struct hw_rebuild *b = &r->rebuild;
    struct hw_image *image = NULL;
    struct hw_image_meta meta;
    int rc = hw_image_open_readonly(path, &image, &b->e);
    if (rc == 0) {
        rc = hw_image_read_meta(image, &meta, &b->e);
    }
    if (rc == 0 && meta.counters.applied < b->index) {
        rc = hw_error_set(&b->e, HW_ERR_UNAVAILABLE, "the received image is older than asked for");
    }
    if (rc == 0) {
        rc = hw_image_load(image, &b->loaded, NULL, NULL, &b->e);
        b->loaded_index = meta.counters.applied;
    }
    hw_image_close(image);
    return rc;
}

static void load_work(struct hw_job *job)
{
    struct hw_rebuild *b = hw_container_of(job, struct hw_rebuild, job);
    struct hw_replica *r = hw_container_of(b, struct hw_replica, rebuild);
    char path[PATH_MAX + 32];
    hw_part_path(r->data, path, sizeof path);
    b->loaded = NULL;
    b->status = hw_part_check(r->data, b->total_bytes, b->checksum, &b->e);
    if (b->status == 0) {
        b->status = load_image(r, path);
    }
    if (b->status == 0) {
        hw_image_close(r->image);
        r->image = NULL;
        b->status = hw_image_install(r->data, path, &b->e);
        if (hw_image_open(r->image_path, r->config.consensus.cluster_id, &r->image, &b->e) != 0) {
            b->status = b->e.code;
        }
    }
    hw_part_forget(r->data); /* installed, or no use */
    if (b->status != 0 && b->loaded != NULL) {
        hw_hot_free(b->loaded);
        b->loaded = NULL;
    }
}

static void load_done(struct hw_job *job)
{
    struct hw_rebuild *b = hw_container_of(job, struct hw_rebuild, job);
    struct hw_replica *r = hw_container_of(b, struct hw_replica, rebuild);
    b->is_writing = false;
    b->is_loading = false;
    if (b->status != 0) {
        start_over(b);
        retry_later(r, hw_error_text(&b->e));
    } else {
        hw_log_info(HW_COMPONENT, "image installed",
                    "from=%016" PRIx64 " bytes=%" PRIu64 " index=%" PRIu64 " took_ms=%" PRIu64, b->source,
                    b->total_bytes, b->loaded_index, hw_loop_now_ms(r->loop) - b->started_ms);
        b->is_installed = true;
        if (r->phase == HW_PHASE_MEMBER) {
            hw_consensus_durable(r->consensus);
        }
    }
    hw_replica_maybe_closed(r);
}

static void submit(struct hw_replica *r, void (*work)(struct hw_job *), void (*done)(struct hw_job *))
{
    struct hw_rebuild *b = &r->rebuild;
    b->job.work = work;
    b->job.done = done;
    if (hw_pool_submit(r->writer, &b->job) == 0) {
        b->is_writing = true;
    } else {
        hw_timer_start(b->retry, RETRY_MS, 0);
    }
}

static void writer_kick(struct hw_replica *r)
{
    struct hw_rebuild *b = &r->rebuild;
    if (b->is_writing || r->phase != HW_PHASE_MEMBER) {
        return;
    }
    if (b->pending.len > 0) {
        b->writing = b->pending;
        b->writing_at = b->received_bytes;
        b->part = (struct hw_part){.cluster_id = r->config.consensus.cluster_id,
                                   .source = b->source,
                                   .token = b->token,
                                   .index = b->copy_index,
                                   .total_bytes = b->total_bytes};
        hw_buf_init(&b->pending);
        b->received_bytes += b->writing.len;
        submit(r, write_work, write_done);
    } else if (b->has_ended && !b->is_streaming && !b->is_installed) {
        hw_checkpoint_suspend(r);
        if (!hw_checkpoint_is_idle(r)) {
            hw_timer_start(b->retry, RETRY_MS / 10, 0);
            return;
        }
        b->is_loading = true;
        submit(r, load_work, load_done);
    }
}

static void on_retry(void *ctx)
{
    struct hw_replica *r = ctx;
    struct hw_rebuild *b = &r->rebuild;
    if (!b->is_wanted || b->is_installed || b->is_streaming || r->phase != HW_PHASE_MEMBER) {
        return;
    }
    if (b->is_writing || b->pending.len > PENDING_MAX / 2) {
        writer_kick(r);
        hw_timer_start(b->retry, RETRY_MS, 0); /* the disk is behind: ask for more when it has caught up */
    } else if (b->has_ended) {
        writer_kick(r);
    } else {
        stream_start(r);
    }
}

/* What an earlier process has of an image that may still be there to be gone on with. */
static void resume_work(struct hw_job *job)
{
    struct hw_rebuild *b = hw_container_of(job, struct hw_rebuild, job);
    struct hw_replica *r = hw_container_of(b, struct hw_replica, rebuild);
    b->status = hw_part_load(r->data, r->config.consensus.cluster_id, &b->part, &b->e);
}

static void resume_done(struct hw_job *job)
{
    struct hw_rebuild *b = hw_container_of(job, struct hw_rebuild, job);
    struct hw_replica *r = hw_container_of(b, struct hw_replica, rebuild);
    b->is_writing = false;
    if (b->status == 0 && b->part.index >= b->index) {
        b->is_resumed = true;
        b->source = b->part.source;
        b->token = b->part.token;
        b->copy_index = b->part.index;
        b->total_bytes = b->part.total_bytes;
        b->received_bytes = b->part.received_bytes;
        hw_log_info(HW_COMPONENT, "a part of an image is here already",
                    "from=%016" PRIx64 " received=%" PRIu64 " total=%" PRIu64, b->source, b->received_bytes,
                    b->total_bytes);
    }
    if (r->phase == HW_PHASE_MEMBER) {
        stream_start(r);
    }
    hw_replica_maybe_closed(r);
}

void hw_rebuild_begin(struct hw_replica *r, uint64_t index, uint64_t leader_id)
{
    struct hw_rebuild *b = &r->rebuild;
    hw_log_info(HW_COMPONENT, "the log does not reach back far enough, fetching an image",
                "needed_index=%" PRIu64 " applied=%" PRIu64, index, hw_hot_applied(r->hot));
    b->is_wanted = true;
    b->is_installed = false;
    b->index = index;
    b->leader_id = leader_id;
    b->attempts = 0;
    b->source = 0;
    b->started_ms = hw_loop_now_ms(r->loop);
    start_over(b);
    hw_counter_add(r->m_rebuilds, 1);
    if (index <= hw_hot_applied(r->hot)) {
        /* Our image may be ahead of our log: then there is nothing to fetch, only to make durable. */
        b->is_wanted = false;
        r->ops->on_change(r->ctx);
        hw_replica_consensus_ops.make_durable(r, &(struct hw_durable){.index = index});
        return;
    }
    hw_peers_sync(r); /* a node that was just let in knows its peers from this snapshot only */
    if (b->is_writing) {
        stream_start(r); /* a job of an earlier rebuild is still under way */
    } else {
        submit(r, resume_work, resume_done);
    }
    r->ops->on_change(r->ctx);
}

void hw_rebuild_done(struct hw_replica *r)
{
    struct hw_rebuild *b = &r->rebuild;
    b->is_wanted = false;
    b->is_installed = false;
    start_over(b);
    hw_checkpoint_resume(r, b->loaded_index);
    hw_reads_on_applied(r);
    r->ops->on_change(r->ctx);
}

bool hw_rebuild_is_idle(const struct hw_replica *r)
{
    return !r->rebuild.is_writing && !r->rebuild.is_streaming;
}

void hw_rebuild_init(struct hw_replica *r)
{
    hw_buf_init(&r->rebuild.pending);
    hw_buf_init(&r->rebuild.writing);
    r->rebuild.retry = hw_timer_new(r->loop, "rebuild", on_retry, r);
}

void hw_rebuild_close(struct hw_replica *r)
{
    struct hw_rebuild *b = &r->rebuild;
    hw_timer_free(b->retry);
    b->retry = NULL;
    if (b->is_streaming) {
        b->is_cancelling = true;
        hw_request_cancel(&b->request);
    }
}
