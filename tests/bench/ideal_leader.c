/* The leader: one thread for all sockets, one for its disk.
 *
 * In each turn of epoll all frames that have come are copied to the ring. At its end they are published to the writer
 * and sent to both followers, as far as the sockets take them: disk and network work at the same time, and what comes
 * meanwhile is the next batch. A write is answered when it is on the leader's disk and on one follower's.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/bench/ideal.h"
#include "tests/bench/ideal_log.h"

#define CLIENTS_MAX 64u
#define IN_BYTES (64u * 1024u)
#define OUT_BYTES (4u * 1024u * 1024u)
#define PENDING_MAX 65536u /* writes under way; a power of two */
#define EVENTS_MAX 128
#define READ_BIT (1ull << 63)
#define FRAME_HEADER_BYTES 16u /* length, id, key */
#define ANSWER_HEADER_BYTES 12u
/* One turn adds at most CLIENTS_MAX * IN_BYTES to the ring. */
#define ROOM_LOW (CLIENTS_MAX * IN_BYTES)

struct client {
    int fd;              /* -1: free */
    uint32_t generation; /* of the place: answers to a client that has gone are dropped */
    uint32_t in_len;
    uint32_t out_pos;
    uint32_t out_len;
    bool is_waiting_out;
    uint8_t *in;
    uint8_t *out;
};

struct follower {
    int fd;
    uint64_t sent;
    uint64_t written;
    uint8_t in[8]; /* a position, as far as it has come */
    uint32_t in_len;
    bool is_waiting_out;
};

struct pending {
    uint64_t end; /* position after the frame */
    uint64_t id;
    uint32_t frame_len;
    uint16_t client;
    uint32_t generation;
};

struct leader {
    struct ideal_log log;
    int epoll;
    int clients_epoll; /* of all clients; taken out of `epoll` while the ring is full */
    int written_event;
    int listener;
    bool is_paused;
    uint64_t end;
    uint64_t committed;
    struct client clients[CLIENTS_MAX];
    struct follower followers[IDEAL_FOLLOWERS];
    struct pending *pending;
    uint64_t pending_head;
    uint64_t pending_tail;
    uint8_t *slots; /* {u32 length, value} by key */
    uint32_t slot_count;
};

/* What epoll gives back: a kind and an index. */
enum kind { KIND_LISTENER, KIND_WRITTEN, KIND_CLIENTS, KIND_CLIENT, KIND_FOLLOWER };

static void poll_fd(int epoll, int op, int fd, uint32_t events, enum kind kind, uint32_t index)
{
    struct epoll_event e = {.events = events, .data.u64 = (uint64_t)kind << 32 | index};
    if (epoll_ctl(epoll, op, fd, &e) != 0) {
        ideal_die("epoll_ctl");
    }
}

static uint32_t get_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return le32toh(v);
}

static uint64_t get_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

/* ---- clients ---- */

static void client_close(struct client *c)
{
    close(c->fd);
    c->fd = -1;
    c->generation++;
    c->in_len = c->out_len = c->out_pos = 0;
    c->is_waiting_out = false;
}

static void client_answer(struct client *c, uint64_t id, const void *value, uint32_t value_len)
{
    uint32_t length = htole32(8 + value_len);
    uint64_t wire_id = htole64(id);
    if (c->out_len + ANSWER_HEADER_BYTES + value_len > OUT_BYTES) {
        fprintf(stderr, "ideal: a client does not read its answers\n");
        client_close(c);
        return;
    }
    memcpy(c->out + c->out_len, &length, sizeof length);
    memcpy(c->out + c->out_len + 4, &wire_id, sizeof wire_id);
    if (value_len > 0) { /* value may be NULL, which memcpy does not allow */
        memcpy(c->out + c->out_len + ANSWER_HEADER_BYTES, value, value_len);
    }
    c->out_len += ANSWER_HEADER_BYTES + value_len;
}

static void client_flush(struct leader *l, struct client *c)
{
    uint32_t index = (uint32_t)(c - l->clients);
    while (c->out_pos < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_pos, c->out_len - c->out_pos, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            if (!c->is_waiting_out) {
                c->is_waiting_out = true;
                poll_fd(l->clients_epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT, KIND_CLIENT, index);
            }
            return;
        }
        if (n <= 0) {
            client_close(c);
            return;
        }
        c->out_pos += (uint32_t)n;
    }
    c->out_pos = c->out_len = 0;
    if (c->is_waiting_out) {
        c->is_waiting_out = false;
        poll_fd(l->clients_epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, KIND_CLIENT, index);
    }
}

static void take_read(struct leader *l, struct client *c, uint64_t id, uint32_t key)
{
    const uint8_t *slot = l->slots + (size_t)(key % l->slot_count) * (IDEAL_SLOT_BYTES + 4);
    client_answer(c, id, slot + 4, get_u32(slot));
}

static bool take_write(struct leader *l, struct client *c, const uint8_t *frame, uint32_t len, uint64_t id)
{
    if (l->pending_head - l->pending_tail == PENDING_MAX) {
        return false;
    }
    ideal_ring_copy_in(&l->log, l->end, frame, len);
    l->end += len;
    l->pending[l->pending_head++ % PENDING_MAX] = (struct pending){
        .end = l->end, .id = id, .frame_len = len, .client = (uint16_t)(c - l->clients), .generation = c->generation};
    return true;
}

/* The frames that are whole; false for a client that must go. */
static bool take_frames(struct leader *l, struct client *c)
{
    uint32_t pos = 0;
    while (c->in_len - pos >= FRAME_HEADER_BYTES) {
        const uint8_t *frame = c->in + pos;
        uint32_t length = get_u32(frame);
        uint64_t id = get_u64(frame + 4);
        if (length < FRAME_HEADER_BYTES - 4 || length > FRAME_HEADER_BYTES - 4 + IDEAL_SLOT_BYTES) {
            return false;
        }
        if (c->in_len - pos < 4 + length) {
            break;
        }
        if ((id & READ_BIT) != 0) {
            take_read(l, c, id, get_u32(frame + 12));
        } else if (!take_write(l, c, frame, 4 + length, id)) {
            return false;
        }
        if (c->fd < 0) {
            return true; /* closed by its answer */
        }
        pos += 4 + length;
    }
    memmove(c->in, c->in + pos, c->in_len - pos);
    c->in_len -= pos;
    return true;
}

static void client_read(struct leader *l, struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_len, IN_BYTES - c->in_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        client_close(c);
        return;
    }
    c->in_len += (uint32_t)n;
    if (!take_frames(l, c)) {
        fprintf(stderr, "ideal: a client sent a bad frame, or too many\n");
        client_close(c);
    }
}

static void client_accept(struct leader *l)
{
    int fd = accept4(l->listener, NULL, NULL, SOCK_CLOEXEC);
    uint32_t i = 0;
    if (fd < 0) {
        return;
    }
    while (i < CLIENTS_MAX && l->clients[i].fd >= 0) {
        i++;
    }
    if (i == CLIENTS_MAX) {
        close(fd);
        return;
    }
    if (l->clients[i].in == NULL) {
        l->clients[i].in = malloc(IN_BYTES);
        l->clients[i].out = malloc(OUT_BYTES);
        if (l->clients[i].in == NULL || l->clients[i].out == NULL) {
            ideal_die("a client's buffers");
        }
    }
    l->clients[i].fd = fd;
    ideal_set_nodelay(fd);
    poll_fd(l->clients_epoll, EPOLL_CTL_ADD, fd, EPOLLIN, KIND_CLIENT, i);
}

/* ---- followers ---- */

static void follower_send(struct leader *l, struct follower *f)
{
    uint32_t index = (uint32_t)(f - l->followers);
    bool is_full = false;
    while (f->sent < l->end && !is_full) {
        uint64_t start = f->sent % IDEAL_RING_BYTES;
        uint64_t len = l->end - f->sent;
        ssize_t n;
        len = len < IDEAL_RING_BYTES - start ? len : IDEAL_RING_BYTES - start;
        n = send(f->fd, l->log.ring + start, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        is_full = n < 0 && errno == EAGAIN;
        if (n <= 0 && !is_full && errno != EINTR) {
            ideal_die("send to a follower");
        }
        f->sent += n > 0 ? (uint64_t)n : 0;
    }
    if (is_full != f->is_waiting_out) {
        f->is_waiting_out = is_full;
        poll_fd(l->epoll, EPOLL_CTL_MOD, f->fd, is_full ? EPOLLIN | EPOLLOUT : EPOLLIN, KIND_FOLLOWER, index);
    }
}

static void follower_read(struct follower *f)
{
    uint8_t data[4096];
    ssize_t n = recv(f->fd, data, sizeof data, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        ideal_die("a follower has gone");
    }
    for (ssize_t i = 0; i < n; i++) {
        f->in[f->in_len++] = data[i];
        if (f->in_len == sizeof f->in) {
            f->written = get_u64(f->in);
            f->in_len = 0;
        }
    }
}

static void followers_connect(struct leader *l, const struct ideal_options *o)
{
    for (uint32_t i = 0; i < IDEAL_FOLLOWERS; i++) {
        struct sockaddr_in a = {
            .sin_family = AF_INET, .sin_port = htons(o->follower_ports[i]), .sin_addr = {htonl(INADDR_LOOPBACK)}};
        struct follower *f = &l->followers[i];
        f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (f->fd < 0 || connect(f->fd, (struct sockaddr *)&a, sizeof a) != 0) {
            ideal_die("connect to a follower");
        }
        ideal_set_nodelay(f->fd);
        poll_fd(l->epoll, EPOLL_CTL_ADD, f->fd, EPOLLIN, KIND_FOLLOWER, i);
    }
}

/* ---- the turn ---- */

static void commit_one(struct leader *l, const struct pending *p)
{
    struct client *c = &l->clients[p->client];
    uint8_t frame[FRAME_HEADER_BYTES + IDEAL_SLOT_BYTES];
    uint32_t value_len = p->frame_len - FRAME_HEADER_BYTES;
    uint32_t wire_len = htole32(value_len);
    uint8_t *slot;
    ideal_ring_copy_out(&l->log, p->end - p->frame_len, frame, p->frame_len);
    slot = l->slots + (size_t)(get_u32(frame + 12) % l->slot_count) * (IDEAL_SLOT_BYTES + 4);
    memcpy(slot, &wire_len, sizeof wire_len);
    memcpy(slot + 4, frame + FRAME_HEADER_BYTES, value_len);
    if (c->fd >= 0 && c->generation == p->generation) {
        client_answer(c, p->id, NULL, 0);
    }
}

static void commit(struct leader *l)
{
    uint64_t own = ideal_log_written(&l->log);
    uint64_t other = l->followers[0].written;
    other = other > l->followers[1].written ? other : l->followers[1].written;
    l->committed = own < other ? own : other;
    while (l->pending_tail < l->pending_head && l->pending[l->pending_tail % PENDING_MAX].end <= l->committed) {
        commit_one(l, &l->pending[l->pending_tail % PENDING_MAX]);
        l->pending_tail++;
    }
}

/* What is in the ring must stay until it is committed here and sent to both followers. */
static void pause_clients(struct leader *l)
{
    uint64_t needed = l->committed;
    uint64_t room;
    for (uint32_t i = 0; i < IDEAL_FOLLOWERS; i++) {
        needed = l->followers[i].sent < needed ? l->followers[i].sent : needed;
    }
    room = IDEAL_RING_BYTES - (l->end - needed);
    if (!l->is_paused && room < ROOM_LOW) {
        l->is_paused = true;
        poll_fd(l->epoll, EPOLL_CTL_DEL, l->clients_epoll, 0, KIND_CLIENTS, 0);
    } else if (l->is_paused && room >= 2 * ROOM_LOW) {
        l->is_paused = false;
        poll_fd(l->epoll, EPOLL_CTL_ADD, l->clients_epoll, EPOLLIN, KIND_CLIENTS, 0);
    }
}

static void serve_clients(struct leader *l)
{
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(l->clients_epoll, events, EVENTS_MAX, 0);
    for (int i = 0; i < n; i++) {
        struct client *c = &l->clients[(uint32_t)events[i].data.u64];
        if (c->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
            client_read(l, c);
        }
    }
}

static void serve_turn(struct leader *l)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t count;
    int n = epoll_wait(l->epoll, events, EVENTS_MAX, -1);
    for (int i = 0; i < n; i++) {
        switch ((enum kind)(events[i].data.u64 >> 32)) {
        case KIND_LISTENER:
            client_accept(l);
            break;
        case KIND_WRITTEN:
            if (read(l->written_event, &count, sizeof count) < 0 && errno != EAGAIN) {
                ideal_die("read the writer's event");
            }
            break;
        case KIND_CLIENTS:
            serve_clients(l);
            break;
        case KIND_FOLLOWER:
            follower_read(&l->followers[(uint32_t)events[i].data.u64]);
            break;
        case KIND_CLIENT:
            break; /* in clients_epoll only */
        }
    }
    ideal_log_publish(&l->log, l->end);
    for (uint32_t i = 0; i < IDEAL_FOLLOWERS; i++) {
        follower_send(l, &l->followers[i]);
    }
    commit(l);
    for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
        if (l->clients[i].fd >= 0) {
            client_flush(l, &l->clients[i]);
        }
    }
    pause_clients(l);
}

static void on_written(void *ctx, uint64_t written)
{
    uint64_t one = 1;
    (void)written;
    if (write(((struct leader *)ctx)->written_event, &one, sizeof one) < 0) {
        ideal_die("tell the loop");
    }
}

void ideal_leader_run(const struct ideal_options *o)
{
    static struct leader l;
    l.slot_count = o->slot_count;
    l.slots = calloc(o->slot_count, IDEAL_SLOT_BYTES + 4);
    l.pending = calloc(PENDING_MAX, sizeof *l.pending);
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    l.clients_epoll = epoll_create1(EPOLL_CLOEXEC);
    l.written_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l.slots == NULL || l.pending == NULL || l.epoll < 0 || l.clients_epoll < 0 || l.written_event < 0) {
        ideal_die("set up");
    }
    for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
        l.clients[i].fd = -1;
    }
    l.listener = ideal_listen(o->listen_port);
    ideal_log_open(&l.log, o->file, o->file_bytes, on_written, &l);
    followers_connect(&l, o);
    poll_fd(l.epoll, EPOLL_CTL_ADD, l.listener, EPOLLIN, KIND_LISTENER, 0);
    poll_fd(l.epoll, EPOLL_CTL_ADD, l.written_event, EPOLLIN, KIND_WRITTEN, 0);
    poll_fd(l.epoll, EPOLL_CTL_ADD, l.clients_epoll, EPOLLIN, KIND_CLIENTS, 0);
    ideal_say_ready();
    for (;;) {
        serve_turn(&l);
    }
}
