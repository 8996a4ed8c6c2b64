/* What another agent may answer to a node: to its greeting, to calls sent on to it, to questions for the confirmed
 * index and the term, to the request for an image, and to a node that looks for its cluster. Bytes come over HTTP/2
 * from the peer's connection.
 *
 * The first byte chooses: bits 0-1 a warm node, one that needs an image, or one that looks for a cluster; bit 2 a
 * greeting that is answered by the input, too. Then records: u8 what (below), u8 stream, u16 length (little-endian),
 * bytes.
 */
#include <sys/stat.h>

#include "agent/base/log.h"
#include "agent/cluster/formation.h"
#include "proto/hotwarm.pb-c.h"
#include "tests/fuzz/fuzz_answers.h"
#include "tests/fuzz/fuzz_folder.h"
#include "tests/fuzz/fuzz_frames.h"
#include "tests/fuzz/fuzz_hash_seam.h"
#include "tests/fuzz/fuzz_node.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECORDS_MAX 100

struct scene {
    struct node node;
    struct hw_stream *peer;   /* the connection that the node opened; it may have ended */
    struct hw_stream *client; /* where calls come from */
    uint32_t client_id;
    struct hw_formation *formation;
    bool greets;
};

/* Only the part of an image is written and looked at; what would be installed is refused. */
static const struct hw_job *part_job;

static bool takes_job(const struct hw_job *job)
{
    return job == part_job;
}

/* ---- the peer ---- */

static void give(struct scene *s, struct hw_stream *to, struct hw_buf *b)
{
    if (to != NULL && is_alive(&s->node, to)) {
        seam_receive(to, b->data, b->len);
    }
    hw_buf_free(b);
    turn(&s->node);
}

static void put_response(struct hw_buf *b, uint32_t id)
{
    struct hw_buf block = {0};
    frame_put_header(&block, ":status", "200");
    frame_put_header(&block, "content-type", "application/grpc");
    frame_put(b, FRAME_HEADERS, FRAME_END_HEADERS, id, block.data, block.len);
    hw_buf_free(&block);
}

static void put_trailers(struct hw_buf *b, uint32_t id, unsigned status)
{
    static const char *const texts[] = {"", "not hot", "etcdserver: leader changed", "x"};
    static const char *const codes[] = {"0", "14", "1", "13"};
    struct hw_buf block = {0};
    frame_put_header(&block, "grpc-status", codes[status & 3]);
    frame_put_header(&block, "grpc-message", texts[status >> 2 & 3]);
    frame_put(b, FRAME_HEADERS, FRAME_END_HEADERS | FRAME_END_STREAM, id, block.data, block.len);
    hw_buf_free(&block);
}

static void answer(struct scene *s, uint32_t id, const void *data, size_t len)
{
    struct hw_buf b = {0};
    put_response(&b, id);
    frame_put_message(&b, id, data, len, false);
    put_trailers(&b, id, 0);
    give(s, s->peer, &b);
}

static void answer_hello(struct scene *s)
{
    Hotwarm__V1__HelloResponse m = HOTWARM__V1__HELLO_RESPONSE__INIT;
    uint8_t packed[256];
    m.id = OTHER_ID;
    m.name = (char *)"n2";
    m.phase = (char *)"member";
    m.cluster_id = 9;
    m.hot_id = OTHER_ID;
    m.term = 5;
    m.cluster_name = (char *)"fuzz";
    hw_assert(hotwarm__v1__hello_response__get_packed_size(&m) <= sizeof packed);
    answer(s, 1, packed, hotwarm__v1__hello_response__pack(&m, packed));
}

static void let_connect(struct scene *s)
{
    struct hw_stream *stream = seam_connected(s->node.loop);
    struct hw_buf b = {0};
    if (stream == NULL) {
        return;
    }
    s->peer = stream;
    frame_put(&b, FRAME_SETTINGS, 0, 0, NULL, 0);
    give(s, s->peer, &b);
    if (s->greets) {
        answer_hello(s);
    }
}

/* ---- the client, whose calls make the node ask ---- */

static void ask(struct scene *s, const char *path, const uint8_t *data, size_t len)
{
    struct hw_buf b = {0};
    struct hw_buf block = {0};
    if (s->client == NULL || !is_alive(&s->node, s->client)) {
        s->client = dial(&s->node, false);
        s->client_id = 1;
        hw_buf_append_str(&b, HTTP2_PREFACE);
        frame_put(&b, FRAME_SETTINGS, 0, 0, NULL, 0);
    }
    frame_put_header(&block, ":method", "POST");
    frame_put_header(&block, ":scheme", "http");
    frame_put_header(&block, ":path", path);
    frame_put_header(&block, "content-type", "application/grpc");
    frame_put(&b, FRAME_HEADERS, FRAME_END_HEADERS, s->client_id, block.data, block.len);
    frame_put_message(&b, s->client_id, data, len, true);
    hw_buf_free(&block);
    s->client_id += 2;
    give(s, s->client, &b);
}

static void one(struct scene *s, uint8_t what, uint8_t stream, const uint8_t *data, size_t len)
{
    static const uint8_t put[] = {0x0a, 1, 'a', 0x12, 1, 'v'};
    static const uint8_t range[] = {0x0a, 1, 'a'};
    static const uint8_t lease[] = {0x08, 1};
    uint32_t id = 1 + 2 * (uint32_t)stream;
    struct hw_buf b = {0};
    switch (what % ANSWER_KINDS) {
    case ANSWER_WHOLE:
        answer(s, id, data, len);
        break;
    case ANSWER_BEGIN:
        put_response(&b, id);
        give(s, s->peer, &b);
        break;
    case ANSWER_MESSAGE:
        frame_put_message(&b, id, data, len, false);
        give(s, s->peer, &b);
        break;
    case ANSWER_END:
        put_trailers(&b, id, len);
        give(s, s->peer, &b);
        break;
    case ASK_PUT:
        ask(s, "/etcdserverpb.KV/Put", put, sizeof put);
        break;
    case ASK_RANGE:
        ask(s, "/etcdserverpb.KV/Range", range, sizeof range);
        break;
    case ASK_KEEP_ALIVE:
        ask(s, "/etcdserverpb.Lease/LeaseKeepAlive", lease, sizeof lease);
        break;
    case ASK_STATUS:
        ask(s, "/hotwarm.v1.Admin/Status", NULL, 0);
        break;
    case ANSWER_LATER:
        seam_advance(s->node.loop, 40 * (uint64_t)stream);
        turn(&s->node);
        let_connect(s);
        break;
    default:
        if (s->peer != NULL && is_alive(&s->node, s->peer)) {
            seam_end(s->peer, HW_ERR_CLOSED);
        }
        turn(&s->node);
    }
}

static void play(struct scene *s, struct hw_reader *r)
{
    for (unsigned i = 0; i < RECORDS_MAX && hw_reader_left(r) >= 4; i++) {
        uint8_t what = hw_reader_u8(r);
        uint8_t stream = hw_reader_u8(r);
        size_t len = hw_reader_u8(r);
        len |= (size_t)hw_reader_u8(r) << 8;
        len = len < hw_reader_left(r) ? len : hw_reader_left(r);
        one(s, what, stream, r->pos, len);
        r->pos += len;
    }
}

/* ---- a node that looks for its cluster ---- */

static int on_decided(void *ctx, uint64_t cluster_id, const struct hw_formation_member *members, size_t count)
{
    (void)ctx;
    hw_assert(cluster_id != 0 && members != NULL && count > 0);
    return 0;
}

static void on_formed(void *ctx)
{
    struct scene *s = ctx;
    hw_formation_free(s->formation);
    s->formation = NULL;
}

static void on_joined(void *ctx, uint64_t cluster_id, uint64_t recovery)
{
    (void)recovery;
    hw_assert(cluster_id != 0);
    on_formed(ctx);
}

static const struct hw_formation_ops formation_ops = {on_decided, on_formed, on_joined};

static void look_for_cluster(struct scene *s, bool is_initial)
{
    struct hw_formation_config *f = calloc(1, sizeof *f);
    hw_assert(f != NULL);
    f->cluster_name = "fuzz";
    f->self = (struct hw_node){.id = SELF_ID, .name = "n1"};
    snprintf(f->self.peer_address, sizeof f->self.peer_address, "127.0.0.1:2");
    snprintf(f->self.client_address, sizeof f->self.client_address, "127.0.0.1:1");
    f->is_initial = is_initial;
    f->peer_count = 1;
    snprintf(f->peers[0].name, sizeof f->peers[0].name, "%s", is_initial ? "n2" : "");
    snprintf(f->peers[0].address, sizeof f->peers[0].address, "127.0.0.1:3");
    hw_assert(hw_formation_new(s->node.loop, NULL, f, &formation_ops, s, &s->formation) == 0);
    free(f);
    hw_formation_start(s->formation);
}

static const char *data_folder(void)
{
    static char incoming[PATH_MAX];
    if (incoming[0] == '\0') {
        snprintf(incoming, sizeof incoming, "%s/incoming", fuzz_folder());
        hw_assert(mkdir(incoming, 0700) == 0);
    }
    return fuzz_folder();
}

static void clean_up(void)
{
    char path[PATH_MAX];
    fuzz_file_remove("incoming/image.part");
    snprintf(path, sizeof path, "%s/incoming", fuzz_folder());
    rmdir(path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    data_folder();
    atexit(clean_up);
    return hw_log_configure("error");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct node_setup setup = {.data = fuzz_folder()};
    struct scene s = {0};
    struct hw_reader r;
    unsigned kind;
    if (size < 5) {
        return 0;
    }
    kind = data[0] & SCENE_MASK;
    setup.is_empty = kind == SCENE_FORMING || kind == SCENE_JOINING;
    s.greets = (data[0] & SCENE_OWN_HELLO) == 0 && !setup.is_empty;
    hw_reader_init(&r, data + 1, size - 1);
    node_open(&s.node, &setup);
    if (setup.is_empty) {
        look_for_cluster(&s, kind == SCENE_FORMING);
    }
    turn(&s.node);
    let_connect(&s);
    if (kind == SCENE_REBUILD) {
        part_job = &s.node.replica->rebuild.job;
        seam_takes_job = takes_job;
        hw_rebuild_begin(s.node.replica, 100, OTHER_ID);
        turn(&s.node);
    }
    play(&s, &r);
    hw_formation_free(s.formation);
    node_close(&s.node);
    seam_takes_job = NULL;
    return 0;
}
