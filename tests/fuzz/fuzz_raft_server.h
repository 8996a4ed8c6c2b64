/* One server of three, without disk, network or time of its own: agent/consensus around libraft, for giving it
 * messages. Its log begins with a snapshot at index 1 and holds FIRST_ENTRIES entries of term 2. An entry's payload is
 * its index.
 *
 * Checked on the way: what is applied comes in order, once, and is the entry of its index; nothing applied is cut off.
 */
#ifndef HW_FUZZ_RAFT_SERVER_H
#define HW_FUZZ_RAFT_SERVER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/consensus/frame.h"
#include "agent/consensus/impl.h"

#define SELF 1
#define PEERS 3
#define FIRST_ENTRIES 4

struct pending_send {
    struct raft_io_send *req;
    raft_io_send_cb cb;
    STAILQ_ENTRY(pending_send) link;
};
struct pending_append {
    struct raft_io_append *req;
    raft_io_append_cb cb;
    STAILQ_ENTRY(pending_append) link;
};

struct pending_get {
    struct raft_io_snapshot_get *req;
    raft_io_snapshot_get_cb cb;
    STAILQ_ENTRY(pending_get) link;
};

struct server {
    struct raft raft;
    struct raft_io io;
    struct hw_consensus *consensus;
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    raft_time now;
    uint64_t applied;
    char failure[512]; /* why it gave up; empty: it did not */
    bool wants_durable;
    STAILQ_HEAD(, pending_send) sends;
    STAILQ_HEAD(, pending_append) appends;
    STAILQ_HEAD(, pending_get) gets;
};

/* ---- the io ---- */

static int io_init(struct raft_io *io, raft_id id, const char *address)
{
    (void)io;
    (void)id;
    (void)address;
    return 0;
}

static struct raft_snapshot *make_snapshot(void);

static void finish_get(struct server *v)
{
    struct pending_get *g = STAILQ_FIRST(&v->gets);
    STAILQ_REMOVE_HEAD(&v->gets, link);
    g->cb(g->req, make_snapshot(), 0);
    free(g);
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct server *v = io->impl;
    struct pending_send *s;
    struct pending_append *a;
    while (!STAILQ_EMPTY(&v->gets)) {
        finish_get(v); /* a cancelled one leaks in libraft */
    }
    while ((a = STAILQ_FIRST(&v->appends)) != NULL) {
        STAILQ_REMOVE_HEAD(&v->appends, link);
        a->cb(a->req, RAFT_CANCELED);
        free(a);
    }
    while ((s = STAILQ_FIRST(&v->sends)) != NULL) {
        STAILQ_REMOVE_HEAD(&v->sends, link);
        s->cb(s->req, RAFT_CANCELED);
        free(s);
    }
    cb(io);
}

/* An entry is what its index and term say it is. */
static void put_entry(struct hw_buf *out, uint64_t term, uint64_t index)
{
    struct hw_buf b = {0};
    hw_assert(frame_entry_begin(&b) == 0);
    hw_buf_put_u64(&b, index);
    hw_assert(frame_entry_end(&b) == 0);
    frame_entry_set_place(&b, term, index);
    hw_buf_append(out, b.data, b.len);
    hw_buf_free(&b);
}

static struct raft_entry *make_entries(uint64_t first, uint64_t term, unsigned count)
{
    struct raft_entry *entries = raft_malloc(count * sizeof *entries);
    struct hw_buf bytes = {0};
    uint8_t *batch;
    size_t each;
    for (unsigned i = 0; i < count; i++) {
        put_entry(&bytes, term, first + i);
    }
    each = bytes.len / count;
    batch = raft_malloc(bytes.len);
    hw_assert(entries != NULL && batch != NULL);
    memcpy(batch, bytes.data, bytes.len);
    hw_buf_free(&bytes);
    for (unsigned i = 0; i < count; i++) {
        entries[i] =
            (struct raft_entry){.term = term, .type = RAFT_COMMAND, .buf = {batch + i * each, each}, .batch = batch};
    }
    return entries;
}

static void make_configuration(struct raft_configuration *conf)
{
    static const char *const addresses[PEERS] = {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"};
    raft_configuration_init(conf);
    for (unsigned i = 0; i < PEERS; i++) {
        hw_assert(raft_configuration_add(conf, i + 1, addresses[i], RAFT_VOTER) == 0);
    }
}

static struct raft_snapshot *make_snapshot(void)
{
    struct raft_snapshot *s = raft_malloc(sizeof *s);
    struct hw_buf framed = {0};
    hw_assert(s != NULL);
    memset(s, 0, sizeof *s);
    s->index = 1;
    s->term = 1;
    make_configuration(&s->configuration);
    s->configuration_index = 1;
    hw_assert(frame_manifest_encode(hw_slice_str("manifest"), &framed) == 0);
    s->bufs = raft_malloc(sizeof *s->bufs);
    hw_assert(s->bufs != NULL);
    s->n_bufs = 1;
    s->bufs[0].len = framed.len;
    s->bufs[0].base = raft_malloc(framed.len);
    hw_assert(s->bufs[0].base != NULL);
    memcpy(s->bufs[0].base, framed.data, framed.len);
    hw_buf_free(&framed);
    return s;
}

/* The log begins with a snapshot, which holds the configuration. */
static int io_load(struct raft_io *io, raft_term *term, raft_id *voted_for, struct raft_snapshot **snapshot,
                   raft_index *start_index, struct raft_entry *entries[], size_t *n_entries)
{
    (void)io;
    *term = 2;
    *voted_for = 0;
    *snapshot = make_snapshot();
    *start_index = 2;
    *entries = make_entries(2, 2, FIRST_ENTRIES);
    *n_entries = FIRST_ENTRIES;
    return 0;
}

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct server *v = io->impl;
    (void)msecs;
    v->tick = tick;
    v->recv = recv;
    return 0;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
    (void)io;
    (void)term;
    return 0;
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
    (void)io;
    (void)id;
    return 0;
}

static int io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m, raft_io_send_cb cb)
{
    struct server *v = io->impl;
    struct pending_send *s = calloc(1, sizeof *s);
    hw_assert(s != NULL && m->server_id >= 1);
    s->req = req;
    s->cb = cb;
    STAILQ_INSERT_TAIL(&v->sends, s, link);
    return 0;
}

static int io_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[], unsigned n,
                     raft_io_append_cb cb)
{
    struct server *v = io->impl;
    struct pending_append *a = calloc(1, sizeof *a);
    hw_assert(a != NULL && n > 0);
    for (unsigned i = 0; i < n; i++) {
        hw_assert(entries[i].buf.len % 8 == 0);
    }
    a->req = req;
    a->cb = cb;
    STAILQ_INSERT_TAIL(&v->appends, a, link);
    return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
    struct server *v = io->impl;
    hw_assert(index > v->applied);
    return 0;
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    (void)io;
    (void)trailing;
    (void)snapshot;
    cb(req, 0);
    return 0;
}

static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
    struct server *v = io->impl;
    struct pending_get *g = calloc(1, sizeof *g);
    hw_assert(g != NULL);
    g->req = req;
    g->cb = cb;
    STAILQ_INSERT_TAIL(&v->gets, g, link);
    return 0;
}

static raft_time io_time(struct raft_io *io)
{
    struct server *v = io->impl;
    return v->now;
}

static int io_random(struct raft_io *io, int min, int max)
{
    (void)io;
    return min + (max - min) / 2;
}

/* ---- what consensus asks ---- */

static int on_apply(void *ctx, uint64_t index, uint64_t term, struct hw_slice entry, struct hw_proposal *mine)
{
    struct server *v = ctx;
    struct hw_reader r;
    (void)term;
    hw_assert(mine == NULL && index > v->applied);
    hw_reader_init(&r, entry.data, entry.len);
    hw_assert(hw_reader_u64(&r) == index && !r.failed);
    v->applied = index;
    return 0;
}

static int on_manifest(void *ctx, uint64_t index, struct hw_buf *out)
{
    (void)ctx;
    (void)index;
    return hw_buf_append(out, "manifest", 8);
}

static void on_make_durable(void *ctx, const struct hw_durable *d)
{
    struct server *v = ctx;
    hw_assert(d->manifest.len <= 8);
    v->wants_durable = true;
}

static int on_restore(void *ctx, struct hw_slice manifest)
{
    (void)ctx;
    hw_assert(manifest.len <= 8);
    return 0;
}

static void on_change(void *ctx, const struct hw_consensus_view *view)
{
    (void)ctx;
    hw_assert(view->term > 0);
}

static void on_applied(void *ctx, uint64_t applied_index)
{
    struct server *v = ctx;
    v->applied = applied_index > v->applied ? applied_index : v->applied;
}

static void on_failed(void *ctx, const char *why)
{
    struct server *v = ctx;
    hw_assert(why[0] != '\0');
    snprintf(v->failure, sizeof v->failure, "%s", why);
}

static const struct hw_consensus_ops ops = {.apply = on_apply,
                                            .manifest = on_manifest,
                                            .make_durable = on_make_durable,
                                            .restore = on_restore,
                                            .on_change = on_change,
                                            .on_applied = on_applied,
                                            .on_failed = on_failed};

static void server_open(struct server *v)
{
    struct hw_consensus_config config;
    memset(v, 0, sizeof *v);
    STAILQ_INIT(&v->sends);
    STAILQ_INIT(&v->appends);
    STAILQ_INIT(&v->gets);
    v->applied = 1;
    hw_consensus_config_default(&config);
    config.id = SELF;
    config.cluster_id = 9;
    config.address = "127.0.0.1:1";
    v->consensus = hw_consensus_new_detached(&config, &ops, v);
    hw_assert(v->consensus != NULL);
    v->io = (struct raft_io){.version = 2,
                             .capacity = UINT16_MAX,
                             .impl = v,
                             .init = io_init,
                             .close = io_close,
                             .load = io_load,
                             .start = io_start,
                             .set_term = io_set_term,
                             .set_vote = io_set_vote,
                             .send = io_send,
                             .append = io_append,
                             .truncate = io_truncate,
                             .snapshot_put = io_snapshot_put,
                             .snapshot_get = io_snapshot_get,
                             .time = io_time,
                             .random = io_random};
    hw_assert(raft_init(&v->raft, &v->io, hw_consensus_fsm(v->consensus), SELF, "127.0.0.1:1") == 0);
    v->raft.tracer = NULL;
    hw_consensus_attach(v->consensus, &v->raft, &v->io);
    raft_set_pre_vote(&v->raft, true);
    raft_set_heartbeat_timeout(&v->raft, 50);
    raft_set_election_timeout(&v->raft, 300);
    raft_set_snapshot_threshold(&v->raft, 16);
    raft_set_snapshot_trailing(&v->raft, 4);
    raft_set_max_inflight_entries(&v->raft, 1024);
    hw_assert(raft_start(&v->raft) == 0);
    hw_consensus_step(v->consensus);
}

static void server_close(struct server *v)
{
    raft_close(&v->raft, NULL);
    hw_consensus_free(v->consensus);
}

#endif
