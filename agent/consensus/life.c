#include <raft/uv.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/base/rng.h"
#include "agent/consensus/aio_reaper.h"
#include "agent/consensus/impl.h"

/* From configuration to a running server, and back. */

#if RAFT_VERSION_NUMBER < 2200
#error "libraft is older than 0.22: elections there count entries that are not on disk"
#endif

#define INSTALL_RESEND_MS 60000
#define CATCH_UP_ROUNDS 10
#define CATCH_UP_ROUND_MS 10000
#define CONNECT_RETRY_MS 100
#define DISK_RETRY_MS 500
/* Entries sent ahead of a follower's answer. Large enough that group commit never meets it: at the limit libraft sends
 * an empty message for each new entry. */
#define INFLIGHT_ENTRIES 1024

void hw_consensus_config_default(struct hw_consensus_config *config)
{
    *config = (struct hw_consensus_config){
        .heartbeat_ms = 50,
        .election_ms = 300,
        .tick_ms = 10,
        .snapshot_threshold = 8192,
        .snapshot_trailing = 8192,
        .entry_bytes_max = 4 * 1024 * 1024,
        .proposals_max = 16384,
        .proposal_bytes_max = 64 * 1024 * 1024,
    };
}

static void run_step(struct hw_defer *d)
{
    struct hw_consensus *c = hw_container_of(d, struct hw_consensus, step);
    hw_loop_note(c->loop, "consensus");
    hw_consensus_step(c);
}

static void destroy(struct hw_consensus *c)
{
    if (c->loop != NULL) {
        hw_defer_cancel(c->loop, &c->step);
        hw_defer_cancel(c->loop, &c->closed);
    }
    io_free(c);
    transport_free(c->transport);
    free((char *)c->config.address);
    free((char *)c->config.folder);
    free(c);
}

static void run_closed(struct hw_defer *d)
{
    struct hw_consensus *c = hw_container_of(d, struct hw_consensus, closed);
    void (*on_closed)(void *) = c->on_closed;
    c->on_closed = NULL;
    if (c->is_freed) {
        destroy(c);
    } else if (on_closed != NULL) {
        on_closed(c->closed_ctx);
    }
}

void consensus_maybe_closed(struct hw_consensus *c)
{
    if (c->life == LIFE_CLOSED && !c->is_room_job && TAILQ_EMPTY(&c->completed) && c->change.kind == CHANGE_NONE &&
        (c->on_closed != NULL || c->is_freed)) {
        hw_defer_post(c->loop, &c->closed);
    }
}

static void on_raft_closed(struct raft *r)
{
    struct hw_consensus *c = r->data;
    raft_uv_close(&c->own_io);
    c->life = LIFE_CLOSED;
    consensus_post(c);
}

static void start_closing(struct hw_consensus *c)
{
    bool is_open = c->life == LIFE_OPEN || c->life == LIFE_STARTED;
    c->life = is_open ? LIFE_CLOSING : LIFE_CLOSED;
    commit_note_close(c);
    proposals_lose_queue(c, HW_ERR_CANCELLED);
    proposals_lose_inflight(c, HW_ERR_CANCELLED);
    changes_over(c, HW_ERR_CANCELLED);
    if (is_open) {
        raft_close(c->raft, on_raft_closed);
    }
    consensus_post(c);
}

void hw_consensus_shut(struct hw_consensus *c, void (*on_closed)(void *ctx), void *ctx)
{
    hw_assert(c->loop != NULL && !c->is_stepping && c->life != LIFE_CLOSING && c->life != LIFE_CLOSED);
    c->on_closed = on_closed;
    c->closed_ctx = ctx;
    start_closing(c);
}

void hw_consensus_free(struct hw_consensus *c)
{
    if (c == NULL) {
        return;
    }
    if (c->loop == NULL) {
        proposals_lose_queue(c, HW_ERR_CANCELLED);
        proposals_lose_inflight(c, HW_ERR_CANCELLED);
        changes_over(c, HW_ERR_CANCELLED);
        proposals_deliver(c);
        changes_step(c);
        destroy(c);
        return;
    }
    if (c->life == LIFE_CLOSED && !c->is_room_job) {
        destroy(c);
        return;
    }
    /* Opened but never shut, for instance after a failed start: the handles need some turns. */
    c->is_freed = true;
    c->on_closed = NULL;
    if (c->life != LIFE_CLOSING && c->life != LIFE_CLOSED) {
        start_closing(c);
    }
}

static void on_trace(struct raft_tracer *t, int type, const void *info)
{
    const struct raft_tracer_info *i = info;
    (void)t;
    if (type == RAFT_TRACER_DIAGNOSTIC) {
        hw_log_debug("libraft", "trace", "text=%s", hw_logq(i->diagnostic.message));
    }
}

static int config_check(const struct hw_consensus_config *config, struct hw_error *e)
{
    size_t len = config->address != NULL ? strlen(config->address) : 0;
    if (config->id == 0) {
        return hw_error_set(e, HW_ERR_INVALID, "consensus: the node id is 0");
    }
    if (len == 0 || len >= sizeof(struct hw_member){0}.address) {
        return hw_error_set(e, HW_ERR_INVALID, "consensus: the peer address must have 1 to 255 characters");
    }
    if (config->heartbeat_ms < 2 || config->heartbeat_ms >= config->election_ms || config->tick_ms == 0) {
        return hw_error_set(e, HW_ERR_INVALID,
                            "consensus: heartbeat_ms (%u) must be less than election_ms (%u), "
                            "and tick_ms (%u) at least 1",
                            config->heartbeat_ms, config->election_ms, config->tick_ms);
    }
    if (config->election_ms == 150 && config->heartbeat_ms == 15) {
        return hw_error_set(e, HW_ERR_INVALID,
                            "consensus: libraft triples election_ms 150 with heartbeat_ms 15; use other numbers");
    }
    /* libraft's raft_io tells an install from a snapshot of our own by trailing 0. */
    if (config->snapshot_threshold == 0 || config->snapshot_trailing == 0) {
        return hw_error_set(e, HW_ERR_INVALID, "consensus: snapshot_threshold and snapshot_trailing must not be 0");
    }
    if (config->proposals_max == 0 || config->entry_bytes_max == 0 || config->entry_bytes_max > 1u << 30 ||
        config->proposal_bytes_max < config->entry_bytes_max + FRAME_ENTRY_HEAD) {
        return hw_error_set(e, HW_ERR_INVALID,
                            "consensus: proposals_max and entry_bytes_max must not be 0, "
                            "entry_bytes_max at most 1 GiB, proposal_bytes_max more than entry_bytes_max");
    }
    return 0;
}

struct hw_consensus *consensus_object_new(const struct hw_consensus_config *config, const struct hw_consensus_ops *ops,
                                          void *ctx)
{
    struct hw_consensus *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    c->config = *config;
    c->config.address = strdup(config->address != NULL ? config->address : "");
    c->config.folder = strdup(config->folder != NULL ? config->folder : "");
    c->ops = ops;
    c->ctx = ctx;
    TAILQ_INIT(&c->queue);
    TAILQ_INIT(&c->inflight);
    TAILQ_INIT(&c->completed);
    hw_defer_init(&c->step, run_step);
    hw_defer_init(&c->closed, run_closed);
    io_fsm_init(c);
    if (c->config.address == NULL || c->config.folder == NULL) {
        destroy(c);
        return NULL;
    }
    return c;
}

static void metrics_init(struct hw_consensus *c, struct hw_metrics *metrics)
{
    static const char *const types[MESSAGE_TYPES] = {"append_entries",      "append_entries_result", "request_vote",
                                                     "request_vote_result", "install_snapshot",      "timeout_now"};
    for (int i = 0; i < MESSAGE_TYPES; i++) {
        char labels[64];
        snprintf(labels, sizeof labels, "type=\"%s\"", types[i]);
        c->sent[i] =
            hw_metrics_counter(metrics, "hotwarm_raft_messages_sent_total", labels, "Raft messages sent to peers.");
        c->received[i] = hw_metrics_counter(metrics, "hotwarm_raft_messages_received_total", labels,
                                            "Raft messages received from peers.");
    }
    c->dropped = hw_metrics_counter(metrics, "hotwarm_raft_messages_dropped_total", NULL,
                                    "Raft messages dropped: a peer that does not read, or a snapshot under way.");
    c->proposed = hw_metrics_counter(metrics, "hotwarm_raft_proposals_total", NULL, "Entries proposed by this node.");
    c->batches = hw_metrics_counter(metrics, "hotwarm_raft_batches_total", NULL,
                                    "Groups in which the proposals of one loop turn left together.");
}

int hw_consensus_new(struct hw_loop *loop, struct hw_pool *resolver, struct hw_metrics *metrics,
                     const struct hw_consensus_config *config, const struct hw_consensus_ops *ops, void *ctx,
                     struct hw_consensus **out, struct hw_error *e)
{
    struct hw_consensus *c;
    int rc = config_check(config, e);
    if (rc != 0) {
        return rc;
    }
    c = consensus_object_new(config, ops, ctx);
    if (c == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "consensus: out of memory");
    }
    (void)hw_aio_reaped(); /* links the replacement of syscall() in: see aio_reaper.h */
    c->loop = loop;
    c->pool = resolver;
    commit_note_open(c);
    c->room = (struct disk_room){.folder = c->config.folder, .owner = c, .free_mib = ROOM_MAX};
    if (metrics != NULL) {
        metrics_init(c, metrics);
    }
    *out = c;
    return 0;
}

static int open_failed(struct hw_consensus *c, int rv, const char *text, struct hw_error *e)
{
    return hw_error_set(e, consensus_code(rv), "open the log in %s: %s", c->config.folder,
                        text[0] != '\0' ? text : raft_strerror(rv));
}

/* raft_init opens handles on the loop, so it comes as late as possible. */
static int open_raft(struct hw_consensus *c, struct hw_error *e)
{
    const struct hw_consensus_config *config = &c->config;
    struct raft *r = &c->own_raft;
    int rv;
    if (c->life == LIFE_OPEN) {
        return 0;
    }
    if (c->transport == NULL) {
        c->transport = transport_new(c);
    }
    if (c->transport == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "open the log in %s: out of memory", config->folder);
    }
    rv = raft_uv_init(&c->own_io, hw_loop_uv(c->loop), config->folder, transport_raft(c->transport));
    if (rv != 0) {
        return open_failed(c, rv, c->own_io.errmsg, e);
    }
    raft_uv_set_connect_retry_delay(&c->own_io, CONNECT_RETRY_MS);
    raft_uv_set_disk_retry(&c->own_io, DISK_RETRY_MS);
    /* Auto recovery renames a damaged segment and goes on without it: a voter would forget entries that it has
     * acknowledged, and a majority could lose what clients were told is safe. The node is rebuilt instead. */
    raft_uv_set_auto_recovery(&c->own_io, false);
    r->data = c;
    rv = raft_init(r, &c->own_io, &c->fsm, config->id, config->address);
    if (rv != 0) {
        rv = open_failed(c, rv, r->errmsg, e);
        raft_uv_close(&c->own_io);
        return rv;
    }
    /* libraft formats every trace line before it asks whether anyone listens; NULL is the only cheap tracer. */
    c->tracer = (struct raft_tracer){.version = 2, .impl = c, .emit = on_trace};
    r->tracer = hw_log_is_on(HW_DEBUG, "libraft") ? &c->tracer : NULL;
    raft_uv_set_tracer(&c->own_io, r->tracer);
    raft_seed(r, (unsigned)hw_random_u64());
    raft_set_pre_vote(r, true);
    raft_set_heartbeat_timeout(r, config->heartbeat_ms);
    raft_set_election_timeout(r, config->election_ms);
    raft_set_install_snapshot_timeout(r, INSTALL_RESEND_MS);
    raft_set_snapshot_threshold(r, config->snapshot_threshold);
    raft_set_snapshot_trailing(r, config->snapshot_trailing);
    raft_set_max_catch_up_rounds(r, CATCH_UP_ROUNDS);
    raft_set_max_catch_up_round_duration(r, CATCH_UP_ROUND_MS);
    raft_set_max_inflight_entries(r, config->snapshot_trailing > INFLIGHT_ENTRIES ? INFLIGHT_ENTRIES
                                                                                  : config->snapshot_trailing);
    /* libraft's own threshold refuses every entry, also the one with which a new leader becomes hot, and nobody would
     * be hot while the disks are full. Writes of clients are refused in proposals.c; the few entries that the cluster
     * itself needs fit into the segments that raft_uv has allocated ahead. */
    raft_set_capacity_threshold(r, 0);
    c->raft = r;
    c->io = &c->own_io;
    io_wrap(c);
    c->life = LIFE_OPEN;
    return 0;
}

const char *hw_consensus_library(void)
{
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
    return TEXT(RAFT_VERSION_MAJOR) "." TEXT(RAFT_VERSION_MINOR) "." TEXT(RAFT_VERSION_RELEASE);
}

int hw_consensus_bootstrap(struct hw_consensus *c, const struct hw_member *members, size_t count, struct hw_error *e)
{
    static const int roles[] = {
        [HW_ROLE_STANDBY] = RAFT_STANDBY, [HW_ROLE_VOTER] = RAFT_VOTER, [HW_ROLE_SPARE] = RAFT_SPARE};
    struct raft_configuration conf;
    int rc;
    int rv = 0;
    hw_assert(c->life == LIFE_NEW || c->life == LIFE_OPEN);
    if (count == 0 || count > HW_MEMBERS_MAX) {
        return hw_error_set(e, HW_ERR_INVALID, "bootstrap: %zu members, expected 1 to %d", count, HW_MEMBERS_MAX);
    }
    if (!hw_consensus_folder_is_pristine(c->config.folder)) {
        return hw_error_set(e, HW_ERR_EXISTS, "bootstrap: %s already holds a log", c->config.folder);
    }
    rc = open_raft(c, e);
    if (rc != 0) {
        return rc;
    }
    raft_configuration_init(&conf);
    for (size_t i = 0; i < count && rv == 0; i++) {
        rv = (unsigned)members[i].role < hw_array_len(roles)
                 ? raft_configuration_add(&conf, members[i].id, members[i].address, roles[members[i].role])
                 : RAFT_BADROLE;
        if (rv != 0) {
            rc = hw_error_set(e, consensus_code(rv), "bootstrap: member %llu at %s: %s",
                              (unsigned long long)members[i].id, members[i].address, raft_strerror(rv));
        }
    }
    if (rv == 0) {
        rv = raft_bootstrap(c->raft, &conf);
        if (rv != 0) {
            rc = hw_error_set(e, consensus_code(rv), "bootstrap: write the first configuration in %s: %s",
                              c->config.folder, c->io->errmsg[0] != '\0' ? c->io->errmsg : raft_strerror(rv));
        }
    }
    raft_configuration_close(&conf);
    return rc;
}

/* raft_uv reports a file that ends early, whatever the reason, as an input/output error. */
static int start_code(struct hw_consensus *c, int rv)
{
    const char *text = raft_errmsg(c->raft);
    if (c->start_code != 0) {
        return c->start_code;
    }
    return strstr(text, "short read") != NULL || strstr(text, "file has only") != NULL ? HW_ERR_CORRUPT
                                                                                       : consensus_code(rv);
}

int hw_consensus_start(struct hw_consensus *c, struct hw_error *e)
{
    int rc;
    int rv;
    hw_assert(c->life == LIFE_NEW || c->life == LIFE_OPEN);
    rc = folder_check(c->config.folder, e);
    if (rc == 0) {
        rc = open_raft(c, e);
    }
    if (rc != 0) {
        return rc;
    }
    folder_room(&c->room);
    consensus_room_set(c);
    rv = raft_start(c->raft);
    if (rv == RAFT_CORRUPT && c->start_code == 0 && strstr(raft_errmsg(c->raft), "behind last snapshot") != NULL) {
        /* A crash while a snapshot was installed: the old segments, all of them covered by the snapshot, were not yet
         * removed. The first attempt has closed the open ones, and then the second knows to leave them all out. */
        rv = raft_start(c->raft);
    }
    if (rv != 0) {
        rc = start_code(c, rv);
        return hw_error_set(e, rc, "start from the log in %s: %s", c->config.folder,
                            c->start_code != 0 ? "its snapshot cannot be restored" : raft_errmsg(c->raft));
    }
    c->life = LIFE_STARTED;
    consensus_post(c);
    return 0;
}

void hw_consensus_accept(struct hw_consensus *c, struct hw_stream *stream)
{
    transport_accept(c->life == LIFE_STARTED ? c->transport : NULL, stream);
}
