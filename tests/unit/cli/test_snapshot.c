/* snapshot save against servers that break off, damage chunks and forget; snapshot verify on what is no image. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/base/rng.h"
#include "cli/snapshot_file.h"
#include "proto/hotwarm.pb-c.h"
#include "storage/warm/image.h"
#include "tests/unit/cli/fixture.h"
#include "tests/unit/hw_test.h"

#define PATH "/hotwarm.v1.Admin/Snapshot"
#define FILE_BYTES 100000
#define CHUNK_BYTES 7000

/* A server of one copy, with faults. */
struct source {
    uint8_t data[FILE_BYTES];
    uint64_t token;
    unsigned break_after;   /* end the first streams after so many chunks; 0: never */
    unsigned break_streams; /* how many streams break */
    unsigned damage_stream; /* this stream (from 1) sends a damaged chunk; 0: none */
    bool always_damages;
    bool has_wrong_sum;
    bool forgets; /* each stream is a new copy, and an old token is not found */
    unsigned streams;
    uint64_t last_token, last_offset; /* of the request */
};

static void send_begin(struct source *s, struct hw_call *call)
{
    Hotwarm__V1__SnapshotMessage m = HOTWARM__V1__SNAPSHOT_MESSAGE__INIT;
    Hotwarm__V1__SnapshotBegin b = HOTWARM__V1__SNAPSHOT_BEGIN__INIT;
    b.token = s->token;
    b.size = FILE_BYTES;
    b.index = 77;
    b.revision = 66;
    b.cluster_id = 0xabc;
    m.part_case = HOTWARM__V1__SNAPSHOT_MESSAGE__PART_BEGIN;
    m.begin = &b;
    fake_send(call, &m.base);
}

static void send_chunk(struct source *s, struct hw_call *call, uint64_t offset, bool is_damaged)
{
    Hotwarm__V1__SnapshotMessage m = HOTWARM__V1__SNAPSHOT_MESSAGE__INIT;
    Hotwarm__V1__SnapshotChunk c = HOTWARM__V1__SNAPSHOT_CHUNK__INIT;
    uint8_t copy[CHUNK_BYTES];
    c.offset = offset;
    c.data.len = FILE_BYTES - offset < CHUNK_BYTES ? FILE_BYTES - offset : CHUNK_BYTES;
    memcpy(copy, s->data + offset, c.data.len);
    c.data.data = copy;
    c.checksum = XXH3_64bits(copy, c.data.len);
    copy[3] = (uint8_t)(copy[3] ^ (is_damaged ? 0x10 : 0));
    m.part_case = HOTWARM__V1__SNAPSHOT_MESSAGE__PART_CHUNK;
    m.chunk = &c;
    fake_send(call, &m.base);
}

static void serve(struct fake_route *route, struct hw_call *call, struct hw_slice message)
{
    struct source *s = route->hook_ctx;
    Hotwarm__V1__SnapshotRequest *q = hotwarm__v1__snapshot_request__unpack(NULL, message.len, message.data);
    Hotwarm__V1__SnapshotMessage m = HOTWARM__V1__SNAPSHOT_MESSAGE__INIT;
    Hotwarm__V1__SnapshotEnd end = HOTWARM__V1__SNAPSHOT_END__INIT;
    unsigned chunks = 0;
    hw_assert(q != NULL);
    s->streams++;
    s->last_token = q->token;
    s->last_offset = q->offset;
    hotwarm__v1__snapshot_request__free_unpacked(q, NULL);
    if (s->forgets && s->last_token != 0) {
        s->token++;
        hw_call_end(call, HW_GRPC_NOT_FOUND, "that copy is gone");
        return;
    }
    send_begin(s, call);
    for (uint64_t at = s->last_token == s->token ? s->last_offset : 0; at < FILE_BYTES; at += CHUNK_BYTES, chunks++) {
        if (s->break_after > 0 && s->streams <= s->break_streams && chunks == s->break_after) {
            hw_call_end(call, HW_GRPC_UNAVAILABLE, "going away");
            return;
        }
        send_chunk(s, call, at, chunks == 2 && (s->always_damages || s->streams == s->damage_stream));
    }
    end.checksum = XXH3_64bits(s->data, FILE_BYTES) + s->has_wrong_sum;
    m.part_case = HOTWARM__V1__SNAPSHOT_MESSAGE__PART_END;
    m.end = &end;
    fake_send(call, &m.base);
    hw_call_end(call, HW_GRPC_OK, NULL);
}

static struct source *source_new(struct fake *f, uint64_t token)
{
    struct source *s = calloc(1, sizeof *s);
    struct hw_rng rng;
    REQUIRE(s != NULL);
    hw_rng_seed(&rng, 5);
    for (unsigned i = 0; i < FILE_BYTES; i++) {
        s->data[i] = (uint8_t)hw_rng_next(&rng);
    }
    s->token = token;
    fake_route(f, PATH)->hook = serve;
    fake_route(f, PATH)->hook_ctx = s;
    return s;
}

static bool is_saved(const char *path, const struct source *s)
{
    static uint8_t got[FILE_BYTES + 1];
    FILE *f = fopen(path, "re");
    size_t len = f != NULL ? fread(got, 1, sizeof got, f) : 0;
    if (f != NULL) {
        fclose(f);
    }
    return len == FILE_BYTES && memcmp(got, s->data, FILE_BYTES) == 0;
}

struct place {
    char file[300];
    char part[310];
};

static struct place place_new(void)
{
    struct place p;
    snprintf(p.file, sizeof p.file, "%s/copy.db", hw_test_dir());
    snprintf(p.part, sizeof p.part, "%s.part", p.file);
    return p;
}

static void a_whole_stream_becomes_the_file(void)
{
    struct fixture *fx = fixture_new();
    struct source *s = source_new(fake_new(fx), 9);
    struct place p = place_new();
    json_t *o;
    CHECK_EQ(fixture_run(fx, "snapshot", "save", p.file, "-o", "json", NULL), 0);
    CHECK(is_saved(p.file, s) && access(p.part, F_OK) != 0);
    o = fixture_json(fx);
    REQUIRE(o != NULL);
    CHECK_EQ(json_integer_value(json_object_get(o, "size")), FILE_BYTES);
    CHECK_EQ(json_integer_value(json_object_get(o, "revision")), 66);
    CHECK_STR(json_string_value(json_object_get(o, "cluster_id")), "0000000000000abc");
    json_decref(o);
    CHECK_EQ(fixture_run(fx, "snapshot", "save", p.file, NULL), 4);
    CHECK(strstr(fx->err, "--force") != NULL);
    CHECK_EQ(fixture_run(fx, "snapshot", "save", p.file, "--force", NULL), 0);
    free(s);
    fixture_free(fx);
}

static void a_broken_stream_goes_on_where_it_broke(void)
{
    struct fixture *fx = fixture_new();
    struct source *s = source_new(fake_new(fx), 9);
    struct place p = place_new();
    s->break_after = 4;
    s->break_streams = 2;
    CHECK_EQ(fixture_run(fx, "snapshot", "save", p.file, NULL), 0);
    CHECK(is_saved(p.file, s));
    CHECK_EQ(s->streams, 3);
    CHECK_EQ(s->last_token, 9);
    CHECK_EQ(s->last_offset, 8 * CHUNK_BYTES);
    CHECK(strstr(fx->err, "going away; received 28000 bytes, trying again") != NULL);
    free(s);
    fixture_free(fx);
}

static void a_damaged_chunk_is_asked_for_again(void)
{
    struct fixture *fx = fixture_new();
    struct source *s = source_new(fake_new(fx), 9);
    struct place p = place_new();
    s->damage_stream = 1;
    CHECK_EQ(fixture_run(fx, "snapshot", "save", p.file, NULL), 0);
    CHECK(is_saved(p.file, s));
    CHECK_EQ(s->streams, 2);
    CHECK_EQ(s->last_offset, 2 * CHUNK_BYTES);
    CHECK(strstr(fx->err, "chunk at byte 14000 arrived damaged") != NULL);
    free(s);
    fixture_free(fx);
}

static void a_server_that_forgot_the_copy_begins_anew(void)
{
    struct fixture *fx = fixture_new();
    struct source *s = source_new(fake_new(fx), 9);
    struct place p = place_new();
    s->forgets = true;
    s->break_after = 4;
    s->break_streams = 1;
    CHECK_EQ(fixture_run(fx, "snapshot", "save", p.file, NULL), 0);
    CHECK(is_saved(p.file, s));
    CHECK_EQ(s->streams, 3);
    CHECK_EQ(s->last_token, 0);
    free(s);
    fixture_free(fx);
}

static void another_endpoint_gives_another_copy(void)
{
    struct fixture *fx = fixture_new();
    struct source *a = source_new(fake_new(fx), 9);
    struct source *b = source_new(fake_new(fx), 10);
    struct place p = place_new();
    a->break_after = 1;
    a->break_streams = 1;
    a->data[FILE_BYTES - 1] ^= 1; /* so that a mixture of both would show */
    CHECK_EQ(fixture_run(fx, "snapshot", "save", p.file, NULL), 0);
    CHECK(is_saved(p.file, a) && b->streams == 0);
    a->streams = 0;
    a->break_streams = 1000;
    a->break_after = 2;
    a->forgets = true;
    CHECK_EQ(fixture_run(fx, "snapshot", "save", p.file, "--force", NULL), 0);
    CHECK(is_saved(p.file, b));
    free(a);
    free(b);
    fixture_free(fx);
}

static void damage_that_stays_leaves_nothing(void)
{
    struct fixture *fx = fixture_new();
    struct source *s = source_new(fake_new(fx), 9);
    struct place p = place_new();
    s->has_wrong_sum = true;
    CHECK_EQ(fixture_run(fx, "snapshot", "save", p.file, NULL), 7);
    CHECK(strstr(fx->err, "hwctl: snapshot save: ") != NULL && strstr(fx->err, "Nothing was kept") != NULL);
    CHECK(access(p.file, F_OK) != 0 && access(p.part, F_OK) != 0);
    CHECK(s->streams <= 4);
    s->has_wrong_sum = false;
    s->streams = 0;
    s->break_after = 1; /* never more than the first chunk of each stream, and the token always changes */
    s->break_streams = 1000;
    s->forgets = true;
    CHECK_EQ(fixture_run(fx, "snapshot", "save", p.file, NULL), 3);
    CHECK(s->streams < 10 && access(p.part, F_OK) != 0);
    free(s);
    fixture_free(fx);
}

static void a_silent_stream_ends(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    struct place p = place_new();
    fake_route(f, PATH)->is_silent = true;
    CHECK_EQ(fixture_run(fx, "snapshot", "save", p.file, "--timeout", "60", NULL), 3);
    CHECK(access(p.part, F_OK) != 0);
    fixture_free(fx);
}

static void a_second_run_on_the_same_file_is_refused(void)
{
    struct hw_ctl_snapshot a, b;
    struct hw_error e = {0};
    struct place p = place_new();
    REQUIRE(hw_ctl_snapshot_open(&a, p.file, false, &e) == 0);
    CHECK_EQ(hw_ctl_snapshot_open(&b, p.file, false, &e), HW_ERR_LOCKED);
    CHECK(access(p.part, F_OK) == 0);
    hw_ctl_snapshot_abort(&a);
    CHECK(access(p.part, F_OK) != 0);
    CHECK_EQ(hw_ctl_snapshot_open(&a, "/nonexistent/x", false, &e), HW_ERR_NOTFOUND);
}

static void verify_tells_an_image_from_other_files(void)
{
    struct fixture *fx = fixture_new();
    struct place p = place_new();
    struct hw_image *image;
    struct hw_error e = {0};
    FILE *f;
    fx->endpoints = "";
    CHECK_EQ(fixture_run(fx, "snapshot", "verify", p.file, NULL), 4);
    REQUIRE(hw_image_open(p.file, 0xabc, &image, &e) == 0);
    hw_image_close(image);
    CHECK_EQ(fixture_run(fx, "snapshot", "verify", p.file, NULL), 0);
    CHECK(strstr(fx->out, "is whole") != NULL && strstr(fx->out, "0000000000000abc") != NULL);
    CHECK_EQ(fixture_run(fx, "snapshot", "verify", p.file, "-o", "json", NULL), 0);
    CHECK(strstr(fx->out, "\"cluster_id\":\"0000000000000abc\"") != NULL);
    f = fopen(p.part, "we");
    REQUIRE(f != NULL);
    for (unsigned i = 0; i < 3000; i++) {
        fputs("no image ", f);
    }
    fclose(f);
    CHECK_EQ(fixture_run(fx, "snapshot", "verify", p.part, NULL), 7);
    fixture_free(fx);
}

HW_SUITE(cli_snapshot, HW_CASE(a_whole_stream_becomes_the_file), HW_CASE(a_broken_stream_goes_on_where_it_broke),
         HW_CASE(a_damaged_chunk_is_asked_for_again), HW_CASE(a_server_that_forgot_the_copy_begins_anew),
         HW_CASE(another_endpoint_gives_another_copy), HW_CASE(damage_that_stays_leaves_nothing),
         HW_CASE(a_silent_stream_ends), HW_CASE(a_second_run_on_the_same_file_is_refused),
         HW_CASE(verify_tells_an_image_from_other_files))
