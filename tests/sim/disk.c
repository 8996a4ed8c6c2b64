/* The disk half of a raft_io. Log writes, truncations and snapshots are done one after the other, as raft_uv's barriers
 * have it; term and vote are durable at once. What a crash leaves is a prefix of what was asked for. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"

enum disk_op_kind { DISK_APPEND, DISK_TRUNCATE, DISK_PUT, DISK_GET };

struct disk_op {
    struct sim_event event;
    TAILQ_ENTRY(disk_op) link;
    struct server *server;
    enum disk_op_kind op;
    struct raft_io_append *append;
    const struct raft_entry *entries;
    unsigned n;
    raft_index index; /* TRUNCATE: the first to go */
    struct raft_io_snapshot_put *put;
    raft_io_snapshot_put_cb put_cb;
    const struct raft_snapshot *snapshot;
    unsigned trailing;
    struct raft_io_snapshot_get *get;
    raft_io_snapshot_get_cb get_cb;
};

static struct server *of(struct raft_io *io)
{
    return io->impl;
}

static void *copy_of(const void *data, size_t len)
{
    void *p = raft_malloc(len > 0 ? len : 1);
    hw_assert(p != NULL);
    memcpy(p, data, len);
    return p;
}

void disk_init(struct disk *d)
{
    memset(d, 0, sizeof *d);
    d->first = 1;
    d->next_index = 1;
    TAILQ_INIT(&d->ops);
    TAILQ_INIT(&d->gets);
}

static void drop_from(struct disk *d, size_t keep)
{
    while (d->count > keep) {
        raft_free(d->entries[--d->count].buf.base);
    }
}

static void drop_front(struct disk *d, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        raft_free(d->entries[i].buf.base);
    }
    memmove(d->entries, d->entries + n, (d->count - n) * sizeof d->entries[0]);
    d->count -= n;
    d->first += n;
}

void disk_free(struct disk *d)
{
    drop_from(d, 0);
    free(d->entries);
    hw_buf_free(&d->conf);
    hw_buf_free(&d->data);
}

raft_index disk_last(const struct disk *d)
{
    return d->first + d->count - 1;
}

/* ---- what operations do to the durable part ---- */

static void write_entry(struct disk *d, const struct raft_entry *e)
{
    if (d->count == d->cap) {
        d->cap = d->cap == 0 ? 64 : d->cap * 2;
        d->entries = realloc(d->entries, d->cap * sizeof d->entries[0]);
        hw_assert(d->entries != NULL);
    }
    d->entries[d->count] = *e;
    d->entries[d->count].batch = NULL;
    d->entries[d->count++].buf.base = copy_of(e->buf.base, e->buf.len);
}

static void write_truncate(struct disk *d, raft_index index)
{
    if (index < d->first) {
        drop_from(d, 0);
        d->first = index;
    } else if (index - d->first < d->count) {
        drop_from(d, index - d->first);
    }
}

static void write_snapshot(struct disk *d, const struct raft_snapshot *s, unsigned trailing)
{
    struct raft_buffer conf;
    int rv = raft_configuration_encode(&s->configuration, &conf);
    hw_assert(rv == 0 && s->n_bufs == 1);
    hw_buf_clear(&d->conf);
    hw_buf_append(&d->conf, conf.base, conf.len);
    raft_free(conf.base);
    hw_buf_clear(&d->data);
    hw_buf_append(&d->data, s->bufs[0].base, s->bufs[0].len);
    d->has_snapshot = true;
    d->snapshot_index = s->index;
    d->snapshot_term = s->term;
    d->conf_index = s->configuration_index;
    if (trailing == 0) {
        drop_from(d, 0);
        d->first = s->index + 1;
    } else if (s->index > trailing && s->index - trailing >= d->first) {
        size_t n = s->index - trailing - d->first + 1;
        drop_front(d, n < d->count ? n : d->count);
    }
}

void disk_bootstrap(struct disk *d, const struct raft_configuration *conf)
{
    struct raft_entry e = {.term = 1, .type = RAFT_CHANGE};
    int rv = raft_configuration_encode(conf, &e.buf);
    hw_assert(rv == 0);
    d->term = 1;
    write_entry(d, &e);
    raft_free(e.buf.base);
}

static struct raft_snapshot *read_snapshot(const struct disk *d)
{
    struct raft_snapshot *s = raft_malloc(sizeof *s);
    struct raft_buffer conf = {.base = d->conf.data, .len = d->conf.len};
    int rv;
    hw_assert(s != NULL);
    memset(s, 0, sizeof *s);
    s->index = d->snapshot_index;
    s->term = d->snapshot_term;
    s->configuration_index = d->conf_index;
    raft_configuration_init(&s->configuration);
    rv = raft_configuration_decode(&conf, &s->configuration);
    s->bufs = raft_malloc(sizeof *s->bufs);
    hw_assert(rv == 0 && s->bufs != NULL);
    s->bufs[0].len = d->data.len;
    s->bufs[0].base = copy_of(d->data.data, d->data.len);
    s->n_bufs = 1;
    return s;
}

/* ---- operations ---- */

static void op_end(struct disk_op *op, struct disk_op_list *list)
{
    sim_cancel(op->server->sim, &op->event);
    TAILQ_REMOVE(list, op, link);
    free(op);
}

static void do_append(struct disk_op *op)
{
    struct server *v = op->server;
    struct disk *d = &v->disk;
    struct raft_io_append *req = op->append;
    int status = 0;
    if (d->fails_append) {
        d->fails_append = false;
        d->is_broken = true;
        v->sim->stats.disk_errors++;
    }
    if (d->is_broken) {
        status = RAFT_IOERR;
    } else {
        hw_assert(disk_last(d) + 1 == op->index);
        for (unsigned i = 0; i < op->n; i++) {
            write_entry(d, &op->entries[i]);
        }
    }
    sim_trace(v->sim, v->at, "appended", op->index, op->n);
    op_end(op, &d->ops);
    req->cb(req, status);
}

static void do_put(struct disk_op *op)
{
    struct server *v = op->server;
    struct disk *d = &v->disk;
    struct raft_io_snapshot_put *req = op->put;
    raft_io_snapshot_put_cb cb = op->put_cb;
    int status = 0;
    if (d->fails_puts > 0) {
        d->fails_puts--;
        v->sim->stats.put_errors++;
        status = RAFT_NOSPACE;
    } else {
        write_snapshot(d, op->snapshot, op->trailing);
        v->sim->stats.snapshots++;
    }
    sim_trace(v->sim, v->at, op->trailing == 0 ? "snapshot installed" : "snapshot written", d->snapshot_index,
              (uint64_t)status);
    op_end(op, &d->ops);
    cb(req, status);
}

static void on_op(struct sim *s, struct sim_event *e)
{
    struct disk_op *op = hw_container_of(e, struct disk_op, event);
    struct server *v = op->server;
    (void)s;
    switch (op->op) {
    case DISK_APPEND:
        do_append(op);
        break;
    case DISK_TRUNCATE:
        if (!v->disk.is_broken) {
            write_truncate(&v->disk, op->index);
        }
        op_end(op, &v->disk.ops);
        break;
    case DISK_PUT:
        do_put(op);
        break;
    case DISK_GET: {
        struct raft_io_snapshot_get *req = op->get;
        raft_io_snapshot_get_cb cb = op->get_cb;
        op_end(op, &v->disk.gets);
        cb(req, read_snapshot(&v->disk), 0);
        break;
    }
    }
    server_turn(v);
}

static struct disk_op *op_new(struct server *v, enum disk_op_kind kind)
{
    struct disk_op *op = calloc(1, sizeof *op);
    hw_assert(op != NULL);
    op->server = v;
    op->op = kind;
    return op;
}

static void op_queue(struct disk_op *op, const char *what)
{
    struct server *v = op->server;
    struct disk *d = &v->disk;
    uint64_t start = d->busy_until_ms > v->sim->now_ms ? d->busy_until_ms : v->sim->now_ms;
    d->busy_until_ms = start + sim_below(v->sim, d->latency_ms + 1);
    TAILQ_INSERT_TAIL(&d->ops, op, link);
    sim_after(v->sim, &op->event, d->busy_until_ms - v->sim->now_ms, v->at, what, on_op);
}

static int io_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[], unsigned n,
                     raft_io_append_cb cb)
{
    struct server *v = of(io);
    struct disk_op *op = op_new(v, DISK_APPEND);
    req->cb = cb;
    op->append = req;
    op->entries = entries;
    op->n = n;
    op->index = v->disk.next_index;
    v->disk.next_index += n;
    op_queue(op, "append");
    return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
    struct server *v = of(io);
    struct disk_op *op;
    if (index >= v->disk.next_index) {
        return 0;
    }
    op = op_new(v, DISK_TRUNCATE);
    op->index = index;
    v->disk.next_index = index;
    op_queue(op, "truncate");
    return 0;
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct server *v = of(io);
    struct disk_op *op = op_new(v, DISK_PUT);
    op->put = req;
    op->put_cb = cb;
    op->snapshot = snapshot;
    op->trailing = trailing;
    if (trailing == 0) {
        v->disk.next_index = snapshot->index + 1;
    }
    op_queue(op, "snapshot put");
    return 0;
}

static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
    struct server *v = of(io);
    struct disk_op *op = op_new(v, DISK_GET);
    op->get = req;
    op->get_cb = cb;
    TAILQ_INSERT_TAIL(&v->disk.gets, op, link);
    sim_after(v->sim, &op->event, sim_below(v->sim, v->disk.latency_ms + 1), v->at, "snapshot get", on_op);
    return 0;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
    struct server *v = of(io);
    v->disk.term = term;
    v->disk.vote = 0;
    return 0;
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
    of(io)->disk.vote = id;
    return 0;
}

static int io_load(struct raft_io *io, raft_term *term, raft_id *vote, struct raft_snapshot **snapshot,
                   raft_index *start_index, struct raft_entry *entries[], size_t *n)
{
    struct disk *d = &of(io)->disk;
    size_t bytes = 0;
    uint8_t *batch;
    *term = d->term;
    *vote = d->vote;
    *snapshot = d->has_snapshot ? read_snapshot(d) : NULL;
    *start_index = d->first;
    *n = d->count;
    *entries = NULL;
    d->next_index = d->first + d->count;
    for (size_t i = 0; i < d->count; i++) {
        bytes += d->entries[i].buf.len;
    }
    if (d->count > 0) {
        batch = raft_malloc(bytes);
        *entries = raft_malloc(d->count * sizeof **entries);
        hw_assert(batch != NULL && *entries != NULL);
        for (size_t i = 0, at = 0; i < d->count; i++) {
            (*entries)[i] = d->entries[i];
            (*entries)[i].batch = batch;
            (*entries)[i].buf.base = memcpy(batch + at, d->entries[i].buf.base, d->entries[i].buf.len);
            at += d->entries[i].buf.len;
        }
    }
    return 0;
}

void disk_wrap(struct server *v)
{
    v->io.load = io_load;
    v->io.set_term = io_set_term;
    v->io.set_vote = io_set_vote;
    v->io.append = io_append;
    v->io.truncate = io_truncate;
    v->io.snapshot_put = io_snapshot_put;
    v->io.snapshot_get = io_snapshot_get;
}

/* ---- crash ---- */

/* A read under way comes to its end: cancelled ones leak in libraft, which would hide leaks of ours. */
static void finish_reads(struct server *v)
{
    struct disk_op *op;
    while ((op = TAILQ_FIRST(&v->disk.gets)) != NULL) {
        struct raft_io_snapshot_get *req = op->get;
        raft_io_snapshot_get_cb cb = op->get_cb;
        op_end(op, &v->disk.gets);
        cb(req, read_snapshot(&v->disk), 0);
    }
}

/* Deliberate breaches of what a disk promises, which the checks must find. */
static void forget(struct server *v)
{
    struct disk *d = &v->disk;
    if (v->sim->options->canary == CANARY_VOTE) {
        d->vote = 0;
    } else if (v->sim->options->canary == CANARY_FSYNC && d->count > 3) {
        drop_from(d, d->count - sim_below(v->sim, 3));
    }
}

void disk_power_cut(struct server *v)
{
    struct disk *d = &v->disk;
    struct disk_op *op;
    finish_reads(v);
    TAILQ_FOREACH(op, &d->ops, link) {
        unsigned n = op->op == DISK_APPEND ? op->n : 1;
        unsigned done = d->is_broken ? 0 : (unsigned)sim_below(v->sim, n + 1);
        for (unsigned i = 0; op->op == DISK_APPEND && i < done; i++) {
            write_entry(d, &op->entries[i]);
        }
        if (op->op == DISK_TRUNCATE && done > 0) {
            write_truncate(d, op->index);
        } else if (op->op == DISK_PUT && done > 0) {
            write_snapshot(d, op->snapshot, op->trailing);
        }
        v->sim->stats.torn += op->op == DISK_APPEND && done > 0;
        if (done < n || d->is_broken) {
            break;
        }
    }
    forget(v);
}

void disk_cancel(struct server *v)
{
    struct disk *d = &v->disk;
    struct disk_op *op;
    while ((op = TAILQ_FIRST(&d->ops)) != NULL) {
        struct disk_op saved = *op;
        op_end(op, &d->ops);
        if (saved.op == DISK_APPEND) {
            saved.append->cb(saved.append, RAFT_CANCELED);
        } else if (saved.op == DISK_PUT) {
            saved.put_cb(saved.put, RAFT_CANCELED);
        }
    }
    hw_assert(TAILQ_EMPTY(&d->gets));
    d->is_broken = false;
    d->fails_append = false;
    d->busy_until_ms = 0;
}
