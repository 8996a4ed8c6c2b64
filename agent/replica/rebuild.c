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
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/replica/replica_impl.h"
#include "proto/hotwarm.pb-c.h"

#define RETRY_MS 300
#define PENDING_MAX (64u * 1024u * 1024u)

static void stream_start(struct hw_replica *r);
static void writer_kick(struct hw_replica *r);

static void part_path(const struct hw_replica *r, char *path, size_t size)
{
    snprintf(path, size, "%s/incoming/image.part", r->data);
}

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

static int on_begin(struct hw_replica *r, const Hotwarm__V1__SnapshotBegin *m)
{
    struct hw_rebuild *b = &r->rebuild;
    if (m->cluster_id != r->config.consensus.cluster_id) {
        return hw_error_set(&b->e, HW_ERR_FOREIGN, "the peer's image belongs to cluster %016" PRIx64, m->cluster_id);
    }
    if (m->index < b->index) {
        return hw_error_set(&b->e, HW_ERR_UNAVAILABLE,
                            "the peer's image is at log index %" PRIu64 ", %" PRIu64 " is needed", m->index, b->index);
    }
    if (b->token != m->token || m->size < b->received_bytes + b->pending.len) {
        start_over(b);
    }
    b->token = m->token;
    b->total_bytes = m->size;
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

static int write_part(const char *path, struct hw_slice data, uint64_t at, struct hw_error *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (at == 0 ? O_TRUNC : 0), 0600);
    if (fd < 0) {
        return hw_error_errno(e, errno, "open %s", path);
    }
    while (data.len > 0) {
        ssize_t n = pwrite(fd, data.data, data.len, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            int rc = hw_error_errno(e, errno, "write %s", path);
            close(fd);
            return rc;
        }
        data.data += n;
        data.len -= (size_t)n;
        at += (uint64_t)n;
    }
    close(fd);
    return 0;
}

static int check_part(const char *path, uint64_t size, uint64_t checksum, struct hw_error *e)
{
    enum { BLOCK = 1 << 20 };
    XXH3_state_t *state = XXH3_createState();
    uint8_t *block = malloc(BLOCK);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint64_t seen = 0;
    ssize_t n = 0;
    int rc = 0;
    if (state == NULL || block == NULL) {
        rc = hw_error_set(e, HW_ERR_NOMEM, "check %s: out of memory", path);
    } else if (fd < 0) {
        rc = hw_error_errno(e, errno, "open %s", path);
    } else {
        XXH3_64bits_reset(state);
        while ((n = read(fd, block, BLOCK)) > 0) {
            XXH3_64bits_update(state, block, (size_t)n);
            seen += (uint64_t)n;
        }
        if (n < 0 || fsync(fd) != 0) {
            rc = hw_error_errno(e, errno, "read %s", path);
        } else if (seen != size || XXH3_64bits_digest(state) != checksum) {
            rc = hw_error_set(e, HW_ERR_CORRUPT, "the received image is damaged (%" PRIu64 " of %" PRIu64 " bytes)",
                              seen, size);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    free(block);
    XXH3_freeState(state);
    return rc;
}

static void write_work(struct hw_job *job)
{
    struct hw_rebuild *b = hw_container_of(job, struct hw_rebuild, job);
    struct hw_replica *r = hw_container_of(b, struct hw_replica, rebuild);
    char path[PATH_MAX + 32];
    part_path(r, path, sizeof path);
    b->status = write_part(path, hw_buf_slice(&b->writing), b->writing_at, &b->e);
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
    part_path(r, path, sizeof path);
    b->loaded = NULL;
    b->status = check_part(path, b->total_bytes, b->checksum, &b->e);
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
    stream_start(r);
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
