#include "agent/cluster/formation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/base/rng.h"
#include "agent/cluster/initial.h"
#include "agent/rpc/rpc.h"
#include "proto/hotwarm.pb-c.h"

#define COMPONENT "formation"
#define TICK_MS 100
#define CALL_TIMEOUT_MS 2000
#define JOIN_TIMEOUT_MS 30000
#define NEWS_EVERY_MS 10000
#define MAJORITY_GRACE_MS 2000
#define NEWS_CHANGED_MS 1000 /* sooner when there is something new to say */
#define NEWS_MAX 768
#define ASKER_FRESH_MS 5000 /* who waits asks every TICK_MS; one that was corrected or stopped is forgotten */

enum call { CALL_NONE, CALL_HELLO, CALL_FORM };

struct other {
    struct hw_formation *formation;
    struct hw_formation_peer peer;
    struct hw_channel *channel;
    struct hw_request request;
    enum call call;
    struct hw_request join; /* may take long: who is there is asked meanwhile */
    bool is_join_asked;
    bool has_answered; /* Hello, since the last change of connection */
    bool is_empty;     /* belongs to no cluster and waits */
    bool has_lost;     /* its data is in quarantine */
    bool is_stranger;  /* another cluster name, or not the node we expect there */
    bool has_accepted; /* Form */
    bool knows_hot;    /* belongs to a cluster that has a hot node */
    uint64_t id;
    uint64_t cluster_id;
    uint64_t recovery;
    char name[HW_NODE_NAME_MAX];
    char why[256];
    char refused[256];                /* the last Join */
    char differs[HW_INITIAL_WHY_MAX]; /* its list and ours; empty: they agree, or it has none */
    char trouble[HW_INITIAL_WHY_MAX]; /* why its cluster has no hot node */
};

struct hw_formation {
    struct hw_loop *loop;
    struct hw_formation_config config;
    const struct hw_formation_ops *ops;
    void *ctx;
    struct hw_timer *timer;
    struct other others[HW_FORMATION_PEERS_MAX];
    struct hw_formation_member members[HW_FORMATION_PEERS_MAX];
    size_t member_count;
    uint64_t cluster_id;
    uint64_t recovery; /* of the cluster that let us in */
    bool is_forming;
    bool is_joining;
    bool is_done;
    bool is_freed;
    unsigned calls;
    uint64_t news_ms;
    uint64_t majority_ms; /* since when a majority has the list; 0: not yet */
    char news[NEWS_MAX];
    struct hw_formation_peer initial[HW_FORMATION_PEERS_MAX + 1]; /* the whole list, this node included */
    size_t initial_count;
    char asker[HW_NODE_NAME_MAX]; /* whose list differs */
    char asker_differs[HW_INITIAL_WHY_MAX];
    uint64_t asker_ms;
    char problem[NEWS_MAX];
    uint64_t problem_ms; /* when it was logged */
};

static void free_now(struct hw_formation *f)
{
    if (f->is_freed && f->calls == 0) {
        free(f);
    }
}

static void finish(struct hw_formation *f)
{
    f->is_done = true;
    hw_timer_stop(f->timer);
}

/* ---- answers ---- */

static void read_lists(struct other *o, const Hotwarm__V1__HelloResponse *m)
{
    struct hw_formation *f = o->formation;
    struct hw_formation_peer there[HW_FORMATION_PEERS_MAX + 1];
    size_t count = 0;
    o->differs[0] = '\0';
    hw_initial_copy(o->trouble, sizeof o->trouble, m->cluster_id != 0 && m->hot_id == 0 ? m->trouble : "");
    for (; count < m->n_initial && count < hw_array_len(there); count++) {
        hw_initial_copy(there[count].name, sizeof there[count].name, m->initial[count]->name);
        hw_initial_copy(there[count].address, sizeof there[count].address, m->initial[count]->peer_address);
    }
    if (count > 0 && f->initial_count > 0 && m->cluster_id == 0 &&
        strcmp(m->cluster_name, f->config.cluster_name) == 0) {
        hw_initial_differs(f->initial, f->initial_count, there, count, m->name, o->differs);
    }
}

static void on_hello(struct other *o, struct hw_slice message)
{
    struct hw_formation *f = o->formation;
    Hotwarm__V1__HelloResponse *m = hotwarm__v1__hello_response__unpack(NULL, message.len, message.data);
    if (m == NULL) {
        return;
    }
    o->has_answered = true;
    o->id = m->id;
    o->cluster_id = m->cluster_id;
    o->recovery = m->recovery;
    o->knows_hot = m->hot_id != 0;
    if (m->cluster_id == 0) {
        o->refused[0] = '\0';
    }
    o->has_lost = m->cluster_id == 0 && m->lost_data;
    o->is_empty = m->cluster_id == 0 && strcmp(m->phase, "waiting") == 0 && !m->lost_data;
    snprintf(o->name, sizeof o->name, "%s", m->name);
    o->is_stranger = strcmp(m->cluster_name, f->config.cluster_name) != 0 ||
                     (o->peer.name[0] != '\0' && strcmp(o->peer.name, m->name) != 0);
    o->why[0] = '\0';
    if (o->is_stranger) {
        snprintf(o->why, sizeof o->why, "'%s' of cluster '%s' answers there", m->name, m->cluster_name);
    }
    read_lists(o, m);
    hotwarm__v1__hello_response__free_unpacked(m, NULL);
}

static void on_form(struct other *o, struct hw_slice message)
{
    Hotwarm__V1__FormResponse *m = hotwarm__v1__form_response__unpack(NULL, message.len, message.data);
    if (m == NULL) {
        return;
    }
    o->has_accepted = m->accepted;
    if (!m->accepted) {
        snprintf(o->why, sizeof o->why, "%s", m->why);
    }
    hotwarm__v1__form_response__free_unpacked(m, NULL);
}

static void on_join(struct other *o, struct hw_slice message)
{
    struct hw_formation *f = o->formation;
    Hotwarm__V1__JoinResponse *m = hotwarm__v1__join_response__unpack(NULL, message.len, message.data);
    uint64_t cluster_id = m == NULL ? 0 : m->cluster_id;
    uint64_t recovery = m == NULL ? 0 : m->recovery;
    hotwarm__v1__join_response__free_unpacked(m, NULL);
    if (cluster_id != 0 && !f->is_done && !f->is_freed) {
        f->cluster_id = cluster_id;
        f->recovery = recovery;
    }
}

static void on_message(struct hw_request *request, struct hw_slice message)
{
    struct other *o = hw_container_of(request, struct other, request);
    if (o->call == CALL_HELLO) {
        on_hello(o, message);
    } else {
        on_form(o, message);
    }
}

static void on_join_message(struct hw_request *request, struct hw_slice message)
{
    on_join(hw_container_of(request, struct other, join), message);
}

static void on_end(struct hw_request *request, enum hw_grpc status, const char *text)
{
    struct other *o = hw_container_of(request, struct other, request);
    struct hw_formation *f = o->formation;
    o->call = CALL_NONE;
    f->calls--;
    if (f->is_freed) {
        free_now(f);
        return;
    }
    if (status != HW_GRPC_OK) {
        o->has_answered = false;
        o->differs[0] = o->trouble[0] = '\0';
        snprintf(o->why, sizeof o->why, "%s", text != NULL && text[0] != '\0' ? text : "no answer");
    }
}

static void on_join_end(struct hw_request *request, enum hw_grpc status, const char *text)
{
    struct other *o = hw_container_of(request, struct other, join);
    struct hw_formation *f = o->formation;
    o->is_join_asked = false;
    f->calls--;
    if (f->is_freed) {
        free_now(f);
        return;
    }
    f->is_joining = false;
    if (status != HW_GRPC_OK) {
        o->has_answered = false; /* ask who it is before asking again */
        snprintf(o->refused, sizeof o->refused, "%s", text != NULL && text[0] != '\0' ? text : "no answer");
    }
    if (f->cluster_id != 0 && !f->is_done) {
        hw_log_info(COMPONENT, "let into the cluster", "cluster=%016" PRIx64 " by=%s", f->cluster_id, o->peer.address);
        finish(f);
        f->ops->on_joined(f->ctx, f->cluster_id, f->recovery);
    }
}

static const struct hw_request_ops request_ops = {.on_message = on_message, .on_end = on_end};
static const struct hw_request_ops join_ops = {.on_message = on_join_message, .on_end = on_join_end};

/* ---- questions ---- */

static bool ask(struct other *o, enum call call, const char *path, uint64_t timeout_ms, struct hw_buf *packed)
{
    struct hw_formation *f = o->formation;
    bool is_sent = false;
    if (o->call == CALL_NONE && !packed->failed) {
        o->request.ops = &request_ops;
        is_sent =
            hw_request_start(o->channel, &o->request, path, NULL, timeout_ms, false, hw_buf_slice(packed), true) == 0;
    }
    if (is_sent) {
        o->call = call;
        f->calls++;
    }
    hw_buf_free(packed);
    return is_sent;
}

static void pack(struct hw_buf *b, const ProtobufCMessage *m)
{
    size_t size = protobuf_c_message_get_packed_size(m);
    hw_buf_init(b);
    if (hw_buf_reserve(b, size + 1) == 0) {
        b->len = protobuf_c_message_pack(m, b->data);
    }
}

static void ask_hello(struct other *o)
{
    Hotwarm__V1__HelloRequest m = HOTWARM__V1__HELLO_REQUEST__INIT;
    struct hw_formation *f = o->formation;
    Hotwarm__V1__PeerMember rows[HW_FORMATION_PEERS_MAX + 1];
    Hotwarm__V1__PeerMember *list[HW_FORMATION_PEERS_MAX + 1];
    struct hw_buf b;
    for (size_t i = 0; i < f->initial_count; i++) {
        hotwarm__v1__peer_member__init(&rows[i]);
        rows[i].name = f->initial[i].name;
        rows[i].peer_address = f->initial[i].address;
        list[i] = &rows[i];
    }
    m.from_id = f->config.self.id;
    m.from_name = f->config.self.name;
    m.initial = list;
    m.n_initial = f->initial_count;
    m.cluster_name = (char *)f->config.cluster_name;
    pack(&b, &m.base);
    ask(o, CALL_HELLO, "/hotwarm.v1.Peer/Hello", CALL_TIMEOUT_MS, &b);
}

static void ask_join(struct other *o)
{
    struct hw_formation *f = o->formation;
    Hotwarm__V1__JoinRequest m = HOTWARM__V1__JOIN_REQUEST__INIT;
    struct hw_buf b;
    m.id = f->config.self.id;
    m.name = f->config.self.name;
    m.peer_address = f->config.self.peer_address;
    m.client_address = f->config.self.client_address;
    m.cluster_name = (char *)f->config.cluster_name;
    pack(&b, &m.base);
    o->join.ops = &join_ops;
    if (!o->is_join_asked && !b.failed &&
        hw_request_start(o->channel, &o->join, "/hotwarm.v1.Peer/Join", NULL, JOIN_TIMEOUT_MS, false, hw_buf_slice(&b),
                         true) == 0) {
        o->is_join_asked = f->is_joining = true;
        f->calls++;
    }
    hw_buf_free(&b);
}

static void ask_form(struct other *o)
{
    struct hw_formation *f = o->formation;
    Hotwarm__V1__FormRequest m = HOTWARM__V1__FORM_REQUEST__INIT;
    Hotwarm__V1__PeerMember rows[HW_FORMATION_PEERS_MAX];
    Hotwarm__V1__PeerMember *list[HW_FORMATION_PEERS_MAX];
    struct hw_buf b;
    for (size_t i = 0; i < f->member_count; i++) {
        hotwarm__v1__peer_member__init(&rows[i]);
        rows[i].id = f->members[i].id;
        rows[i].name = f->members[i].name;
        rows[i].peer_address = f->members[i].peer_address;
        list[i] = &rows[i];
    }
    m.cluster_id = f->cluster_id;
    m.cluster_name = (char *)f->config.cluster_name;
    m.members = list;
    m.n_members = f->member_count;
    pack(&b, &m.base);
    ask(o, CALL_FORM, "/hotwarm.v1.Peer/Form", CALL_TIMEOUT_MS, &b);
}

/* ---- decisions ---- */

static bool is_seed(const struct hw_formation *f)
{
    for (size_t i = 0; i < f->config.peer_count; i++) {
        if (strcmp(f->config.peers[i].name, f->config.self.name) < 0) {
            return false;
        }
    }
    return f->config.is_initial;
}

static void decide_members(struct hw_formation *f)
{
    uint64_t cluster_id = hw_random_u64() >> 1; /* positive also where a signed column shows it */
    size_t n = 0;
    if (f->asker_differs[0] != '\0' || f->config.has_lost_data) {
        return;
    }
    for (size_t i = 0; i < f->config.peer_count; i++) {
        const struct other *o = &f->others[i];
        if (!o->has_answered || !o->is_empty || o->is_stranger || o->differs[0] != '\0') {
            return;
        }
    }
    f->members[n].id = f->config.self.id;
    memcpy(f->members[n].name, f->config.self.name, sizeof f->members[n].name);
    memcpy(f->members[n++].peer_address, f->config.self.peer_address, sizeof f->members[0].peer_address);
    for (size_t i = 0; i < f->config.peer_count; i++) {
        f->members[n].id = f->others[i].id;
        memcpy(f->members[n].name, f->others[i].name, sizeof f->members[n].name);
        memcpy(f->members[n++].peer_address, f->others[i].peer.address, sizeof f->members[0].peer_address);
    }
    if (f->ops->on_decided(f->ctx, cluster_id, f->members, n) != 0) {
        return; /* said by the owner; the next tick tries again */
    }
    f->cluster_id = cluster_id;
    f->member_count = n;
    f->is_forming = true;
    hw_log_info(COMPONENT, "every initial node is there and empty, forming a cluster",
                "cluster=%016" PRIx64 " members=%zu", cluster_id, n);
}

static void form_step(struct hw_formation *f)
{
    unsigned accepted = 1;
    for (size_t i = 0; i < f->config.peer_count; i++) {
        struct other *o = &f->others[i];
        accepted += o->has_accepted;
        if (!o->has_accepted && o->call == CALL_NONE) {
            ask_form(o);
        }
    }
    if (accepted <= f->member_count / 2) {
        return;
    }
    if (f->majority_ms == 0) {
        f->majority_ms = hw_loop_now_ms(f->loop);
    }
    /* A majority is enough; the others get a moment, because who misses the list has to ask to be let in. */
    if (accepted == f->member_count || hw_loop_now_ms(f->loop) - f->majority_ms >= MAJORITY_GRACE_MS) {
        finish(f);
        f->ops->on_formed(f->ctx);
    }
}

/* What keeps this node without a cluster, from what the others say. */
static void find_problem(struct hw_formation *f)
{
    const struct other *stuck = NULL;
    const struct other *lost = NULL;
    bool has_hot = false;
    if (hw_loop_now_ms(f->loop) - f->asker_ms > ASKER_FRESH_MS) {
        f->asker_differs[0] = '\0';
    }
    snprintf(f->problem, sizeof f->problem, "%s", f->asker_differs);
    for (size_t i = 0; i < f->config.peer_count; i++) {
        const struct other *o = &f->others[i];
        if (o->differs[0] != '\0') {
            snprintf(f->problem, sizeof f->problem, "%s", o->differs);
        }
        lost = o->has_lost && !o->is_stranger ? o : lost;
        if (o->cluster_id != 0 && !o->is_stranger) {
            has_hot |= o->knows_hot;
            stuck = o->trouble[0] != '\0' ? o : stuck;
        }
    }
    if (!has_hot && f->problem[0] == '\0' && (f->config.has_lost_data || lost != NULL)) {
        snprintf(
            f->problem, sizeof f->problem,
            "the damaged data of %s is in its quarantine folder, so no new cluster is formed, which would forget it: "
            "start a node that still has the data; to begin with an empty cluster on purpose, move the quarantine "
            "folders away",
            f->config.has_lost_data ? "this node" : lost->name);
    }
    if (stuck != NULL && !has_hot && f->problem[0] == '\0') {
        snprintf(f->problem, sizeof f->problem, "this node has no data, and its cluster cannot let it in: %s says: %s",
                 stuck->name, stuck->trouble);
    }
}

/* Once when it changes, and again now and then: somebody has to do something. */
static void say_problem(struct hw_formation *f)
{
    char before[sizeof f->problem];
    uint64_t now_ms = hw_loop_now_ms(f->loop);
    memcpy(before, f->problem, sizeof before);
    find_problem(f);
    if (f->problem[0] == '\0' || (strcmp(before, f->problem) == 0 && now_ms - f->problem_ms < NEWS_EVERY_MS)) {
        return;
    }
    f->problem_ms = now_ms;
    hw_log_warn(COMPONENT, "no cluster for this node", "name=%s why=%s", f->config.self.name,
                hw_logq_into(f->problem, (char[NEWS_MAX + 64]){0}, NEWS_MAX + 64));
}

static void say_news(struct hw_formation *f)
{
    uint64_t age_ms = hw_loop_now_ms(f->loop) - f->news_ms;
    char text[NEWS_MAX] = "";
    size_t n = 0;
    if (age_ms < NEWS_CHANGED_MS || (f->config.is_initial && f->config.peer_count == 0)) {
        return; /* alone: it forms at once */
    }
    for (size_t i = 0; i < f->config.peer_count && n < sizeof text - 1; i++) {
        struct other *o = &f->others[i];
        const char *what = o->refused[0] != '\0' ? o->refused
                           : o->why[0] != '\0'   ? o->why
                           : o->has_answered     ? "there"
                                                 : "no answer yet";
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s (%s)", n > 0 ? ", " : "", o->peer.address, what);
    }
    if (age_ms < NEWS_EVERY_MS && strcmp(text, f->news) == 0) {
        return;
    }
    f->news_ms += age_ms;
    memcpy(f->news, text, sizeof text);
    hw_log_info(COMPONENT, f->config.peer_count > 0 ? "waiting for the other nodes" : "waiting to be added",
                "name=%s address=%s next=%s others=%s", f->config.self.name, f->config.self.peer_address,
                f->config.peer_count > 0 ? "\"start them, check their addresses\"" : "\"hwctl node add\"",
                hw_logq_into(text, (char[800]){0}, 800));
}

static uint64_t newest_recovery(const struct hw_formation *f)
{
    uint64_t newest = 0;
    for (size_t i = 0; i < f->config.peer_count; i++) {
        const struct other *o = &f->others[i];
        if (o->cluster_id != 0 && !o->is_stranger && o->recovery > newest) {
            newest = o->recovery;
        }
    }
    return newest;
}

static void on_timer(void *ctx)
{
    struct hw_formation *f = ctx;
    if (f->is_done) {
        return;
    }
    say_problem(f);
    say_news(f);
    if (f->is_forming) {
        form_step(f);
        return;
    }
    for (size_t i = 0; i < f->config.peer_count; i++) {
        struct other *o = &f->others[i];
        if (o->has_answered && o->cluster_id != 0 && !o->is_stranger && o->knows_hot && !f->is_joining &&
            o->recovery >= newest_recovery(f)) {
            ask_join(o);
        }
        if (o->call == CALL_NONE) {
            ask_hello(o);
        }
    }
    if (!f->is_joining && f->cluster_id == 0 && is_seed(f)) {
        decide_members(f);
    }
}

static void fill_initial(struct hw_formation *f)
{
    const struct hw_formation_config *c = &f->config;
    if (!c->is_initial) {
        return;
    }
    memcpy(f->initial[0].name, c->self.name, sizeof f->initial[0].name);
    memcpy(f->initial[0].address, c->self.peer_address, sizeof f->initial[0].address);
    memcpy(&f->initial[1], c->peers, c->peer_count * sizeof c->peers[0]);
    f->initial_count = c->peer_count + 1;
}

int hw_formation_new(struct hw_loop *loop, struct hw_pool *resolver, const struct hw_formation_config *config,
                     const struct hw_formation_ops *ops, void *ctx, struct hw_formation **formation)
{
    struct hw_formation *f = calloc(1, sizeof *f);
    int rc = 0;
    if (f == NULL) {
        return HW_ERR_NOMEM;
    }
    hw_assert(config->peer_count <= HW_FORMATION_PEERS_MAX);
    f->loop = loop;
    f->config = *config;
    f->ops = ops;
    f->ctx = ctx;
    f->timer = hw_timer_new(loop, "formation", on_timer, f);
    fill_initial(f);
    for (size_t i = 0; i < config->peer_count && rc == 0; i++) {
        struct other *o = &f->others[i];
        o->formation = f;
        o->peer = config->peers[i];
        rc = hw_channel_new(loop, resolver, o->peer.address, NULL, NULL, NULL, &o->channel);
    }
    if (rc != 0) {
        hw_formation_free(f);
        return rc;
    }
    if (config->forming_count > 0) {
        f->is_forming = true;
        f->cluster_id = config->forming_cluster_id;
        f->member_count = config->forming_count;
        memcpy(f->members, config->forming, config->forming_count * sizeof config->forming[0]);
    }
    *formation = f;
    return 0;
}

void hw_formation_start(struct hw_formation *f)
{
    hw_timer_start(f->timer, 0, TICK_MS);
}

void hw_formation_free(struct hw_formation *f)
{
    if (f == NULL) {
        return;
    }
    f->is_freed = true;
    hw_timer_free(f->timer);
    for (size_t i = 0; i < f->config.peer_count; i++) {
        if (f->others[i].channel != NULL) {
            hw_channel_free(f->others[i].channel);
        }
    }
    free_now(f);
}

const char *hw_formation_phase(const struct hw_formation *f)
{
    return f->is_forming ? "forming" : f->is_joining ? "joining" : "waiting";
}

void hw_formation_note_asker(struct hw_formation *f, const char *name, const struct hw_formation_peer *initial,
                             size_t count)
{
    char differs[HW_INITIAL_WHY_MAX];
    char asker[sizeof f->asker];
    if (f->initial_count == 0 || count == 0) {
        return;
    }
    hw_initial_copy(asker, sizeof asker, name);
    if (hw_initial_differs(f->initial, f->initial_count, initial, count, asker, differs)) {
        memcpy(f->asker, asker, sizeof asker);
        memcpy(f->asker_differs, differs, sizeof differs);
        f->asker_ms = hw_loop_now_ms(f->loop);
    } else if (strcmp(f->asker, asker) == 0) {
        f->asker_differs[0] = '\0';
    }
}

const char *hw_formation_problem(const struct hw_formation *f)
{
    return f->problem[0] != '\0' ? f->problem : NULL;
}
