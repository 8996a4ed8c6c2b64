/* The first inputs of the fuzzers, made by the product's own encoders, so that they can be made anew when a format
 * changes (`make fuzz-seeds`):
 *
 *     seeds FOLDER     writes FOLDER/<fuzzer>/<name>
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/api/protowire.h"
#include "agent/config/config.h"
#include "agent/consensus/consensus.h"
#include "agent/consensus/frame.h"
#include "proto/etcd.pb-c.h"
#include "proto/health.pb-c.h"
#include "proto/hotwarm.pb-c.h"
#include "storage/hot/command.h"
#include "storage/warm/fs.h"
#include "storage/warm/identity.h"
#include "storage/warm/manifest.h"
#include "tests/fuzz/fuzz_answers.h"
#include "tests/fuzz/fuzz_folder.h"
#include "tests/fuzz/fuzz_hash_seam.h"
#include "tests/fuzz/fuzz_services.h"

static const char *target;

static void seed(const char *fuzzer, const char *name, struct hw_buf *b)
{
    char path[PATH_MAX];
    FILE *f;
    hw_assert(!b->failed);
    mkdir(target, 0777);
    snprintf(path, sizeof path, "%s/%s", target, fuzzer);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", target, fuzzer, name);
    f = fopen(path, "wb");
    hw_assert(f != NULL && fwrite(b->data, 1, b->len, f) == b->len && fclose(f) == 0);
    hw_buf_free(b);
}

static void seed_text(const char *fuzzer, const char *name, const char *text)
{
    struct hw_buf b = {0};
    hw_buf_append_str(&b, text);
    seed(fuzzer, name, &b);
}

static void seed_bytes(const char *fuzzer, const char *name, const void *data, size_t len)
{
    struct hw_buf b = {0};
    hw_buf_append(&b, data, len);
    seed(fuzzer, name, &b);
}

/* ---- log commands, manifests, frames ---- */

static void command(const char *name, const struct hw_cmd *cmd)
{
    struct hw_buf b = {0};
    hw_assert(hw_cmd_encode(cmd, &b) == 0);
    seed("fuzz_command", name, &b);
}

static void commands(void)
{
    struct hw_compare compare = {.target = HW_CMP_MOD, .key = hw_slice_str("a"), .number = 3};
    struct hw_op inner_op = {.type = HW_OP_PUT, .put = {.key = hw_slice_str("in")}};
    struct hw_txn inner = {.success = &inner_op, .success_count = 1};
    struct hw_op success[] = {
        {.type = HW_OP_PUT, .put = {.key = hw_slice_str("a"), .value = hw_slice_str("v"), .lease = 1, .prev_kv = true}},
        {.type = HW_OP_DELETE, .del = {.key = hw_slice_str("b"), .range_end = hw_slice_str("c"), .prev_kv = true}},
        {.type = HW_OP_TXN, .txn = &inner},
    };
    struct hw_op failure = {.type = HW_OP_RANGE, .range = {.key = hw_slice_str("a"), .limit = 2, .max_mod = 9}};
    struct hw_lease_remaining left[] = {{1, 20}, {2, 0}};
    struct hw_cmd node = {.type = HW_CMD_NODE_SET, .node = {.id = 7, .name = "n7"}};
    struct hw_cmd event = {.type = HW_CMD_EVENT, .event = {.node_id = 7, .kind = "note", .text = "said"}};
    struct hw_cmd acquired = {.type = HW_CMD_HOT_ACQUIRED, .hot = {.node_id = 7, .epoch = 3, .name = "n7"}};
    snprintf(node.node.peer_address, sizeof node.node.peer_address, "127.0.0.1:2");
    snprintf(node.node.client_address, sizeof node.node.client_address, "127.0.0.1:1");
    command("txn", &(struct hw_cmd){.type = HW_CMD_TXN,
                                    .wall_ms = 1,
                                    .txn = {&compare, 1, success, hw_array_len(success), &failure, 1}});
    command("compact", &(struct hw_cmd){.type = HW_CMD_COMPACT, .compact = 2});
    command("acquired", &acquired);
    command("node-set", &node);
    command("node-remove", &(struct hw_cmd){.type = HW_CMD_NODE_REMOVE, .node_id = 7});
    command("event", &event);
    command("grant", &(struct hw_cmd){.type = HW_CMD_LEASE_GRANT, .grant = {5, 60}});
    command("revoke", &(struct hw_cmd){.type = HW_CMD_LEASE_REVOKE, .revoke = 1});
    command("checkpoint", &(struct hw_cmd){.type = HW_CMD_LEASE_CHECKPOINT, .checkpoint = {left, hw_array_len(left)}});
}

static void frames(void)
{
    struct hw_manifest m = {.cluster_id = 9, .index = 100, .revision = 50, .image_format = 1, .hash = 1};
    struct hw_buf entry = {0};
    struct hw_buf manifest = {0};
    struct hw_buf framed = {0};
    hw_assert(hw_manifest_encode(&m, &manifest) == 0);
    hw_assert(frame_manifest_encode(hw_buf_slice(&manifest), &framed) == 0);
    seed("fuzz_frame", "manifest", &framed);
    seed_bytes("fuzz_command", "manifest", manifest.data, manifest.len);
    seed("fuzz_frame", "manifest-alone", &manifest);
    hw_assert(frame_entry_begin(&entry) == 0);
    hw_buf_append_str(&entry, "payload of 21 bytes..");
    hw_assert(frame_entry_end(&entry) == 0);
    frame_entry_set_place(&entry, 3, 17);
    seed("fuzz_frame", "entry", &entry);
}

/* ---- files and texts ---- */

static void identity(const char *name, const struct hw_identity *id)
{
    struct hw_datadir *d;
    struct hw_error e = {0};
    struct hw_buf text = {0};
    char path[PATH_MAX];
    hw_assert(hw_datadir_open(fuzz_folder(), &d, &e) == 0);
    hw_assert(hw_identity_store(d, id, &e) == 0);
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), HW_IDENTITY_FILE);
    hw_assert(hw_fs_read(path, 1u << 20, &text, &e) == 0);
    hw_datadir_close(d);
    seed("fuzz_identity", name, &text);
    for (size_t i = 0; i < 3; i++) {
        static const char *const names[] = {HW_IDENTITY_FILE, "lock", "image.db"};
        fuzz_file_remove(names[i]);
    }
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), HW_RAFT_FOLDER);
    rmdir(path);
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), HW_INCOMING_FOLDER);
    rmdir(path);
}

static void identities(void)
{
    static struct hw_identity id = {.state = HW_IDENTITY_WAITING, .name = "n1"};
    identity("waiting", &id);
    id.state = HW_IDENTITY_MEMBER;
    id.cluster_id = 9;
    id.raft_id = 7;
    identity("member", &id);
    id.state = HW_IDENTITY_FORMING;
    id.member_count = 2;
    for (size_t i = 0; i < 2; i++) {
        id.members[i].id = 7 + i;
        snprintf(id.members[i].name, sizeof id.members[i].name, "n%zu", i + 1);
        snprintf(id.members[i].peer_address, sizeof id.members[i].peer_address, "127.0.0.1:%zu", i + 1);
    }
    identity("forming", &id);
}

static void texts(void)
{
    struct hw_config config;
    struct hw_buf printed = {0};
    hw_config_default(&config);
    hw_config_print(&config, &printed);
    seed("fuzz_config", "defaults", &printed);
    seed_text("fuzz_config", "three-nodes",
              "format: 1\ncluster:\n  name: tour\n  initial:\n    - {name: n1, peer: 127.0.0.1:12381}\n"
              "    - {name: n2, peer: 127.0.0.1:12382}\nnode: {name: n1, data: /tmp/x}\n"
              "listen: {client: 127.0.0.1:1, peer: \"127.0.0.1:2\"}\n");
    seed_text("fuzz_txn_text", "conditions",
              "# comment\nif value(a) = \"b c\\x00\"\nif version(\"k\" prefix) > 3\nif exists(x)\nif missing(y)\n"
              "if lease(a) != 4\n");
    seed_text("fuzz_txn_text", "operations",
              "then put a \"v\\n\" lease 5 prev-kv\nthen get a to b limit 3 rev 2 keys-only\nelse del a from-key\n"
              "else get x prefix count-only\n");
    seed_text("fuzz_http", "get", "\x08GET /a?q=1%20&x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nGET / HTTP/1.0\r\n\r\n");
    seed_text("fuzz_http", "post", "\x01POST /p HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    seed_text("fuzz_http", "chunked",
              "\x02POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHEAD / HTTP/1.1\r\n\r\n");
}

static void connections(void)
{
    static const uint8_t batches[] = {0, 4, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 3, 1, 2, 3, 2, 200, 0};
    static const uint8_t torn[] = {2, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 1, 2, 3, 0, 2, 9, 9};
    static const uint8_t client[] = {0, 0x01, 1, 2, 0x22, 1, 0, 'a', 'b', 'c', 'd', 0x01, 1, 1, 0x00, 4, 0x07, 9};
    static const uint8_t server[] = {0, 0x80, 1, 0, 0x03, 1, 5, 1, 2, 3, 0x83, 3, 8, 0x02, 3, 1, 0, 0};
    static const uint8_t welcome[] = {1, 0, 0, 0};
    static const uint8_t refusal[] = {1 | 8, 1, 4, 0, 'n', 'o', 'p', 'e'};
    static const uint8_t edits[] = {1, 0, 3, 1, 9, 3 | 2 << 2, 40, 0, 0, 1, 2};
    static const uint8_t cut[] = {0, 0, 0, 32, 0};
    struct hw_buf hello = {0};
    hw_buf_put_u8(&hello, 0);
    hw_buf_append(&hello, HW_PEER_MAGIC, HW_PEER_MAGIC_LEN);
    hw_buf_put_u64(&hello, 9);
    hw_buf_put_u64(&hello, 2);
    hw_buf_put_u64(&hello, 1);
    hw_buf_put_u8(&hello, 11);
    hw_buf_put_u8(&hello, 0);
    hw_buf_append_str(&hello, "127.0.0.1:3");
    seed("fuzz_peer_hello", "hello", &hello);
    seed_bytes("fuzz_peer_hello", "welcome", welcome, sizeof welcome);
    seed_bytes("fuzz_peer_hello", "refusal", refusal, sizeof refusal);
    seed_bytes("fuzz_segments", "batches", batches, sizeof batches);
    seed_bytes("fuzz_segments", "torn", torn, sizeof torn);
    seed_bytes("fuzz_rpc_client", "answers", client, sizeof client);
    seed_bytes("fuzz_rpc_server", "calls", server, sizeof server);
    seed_bytes("fuzz_image", "cell-and-bytes", edits, sizeof edits);
    seed_bytes("fuzz_image", "cut", cut, sizeof cut);
}

/* ---- messages ---- */

static void put_record(struct hw_buf *b, uint8_t first, uint8_t second, const void *message)
{
    struct hw_buf packed = {0};
    if (message != NULL) {
        hw_assert(hw_pack(message, &packed) == 0);
    }
    hw_buf_put_u8(b, first);
    hw_buf_put_u8(b, second);
    hw_buf_put_u8(b, (uint8_t)packed.len);
    hw_buf_put_u8(b, (uint8_t)(packed.len >> 8));
    hw_buf_append(b, packed.data, packed.len);
    hw_buf_free(&packed);
}

static uint8_t method(const char *name)
{
    for (size_t i = 0; i < hw_array_len(service_paths); i++) {
        if (strcmp(strrchr(service_paths[i], '.') + 1, name) == 0) {
            return (uint8_t)i;
        }
    }
    hw_assert(!"there is such a method");
    return 0;
}

/* One input per method, on the hot node, on a warm one, and as another node sends it on. */
static void service(const char *name, const void *message)
{
    static const struct {
        const char *prefix;
        uint8_t mode;
        uint8_t flags;
    } ways[] = {{"hot", 0, CALL_HALF_CLOSE}, {"warm", MODE_WARM, CALL_HALF_CLOSE}, {"forwarded", 0, CALL_FORWARDED}};
    for (size_t i = 0; i < hw_array_len(ways); i++) {
        struct hw_buf b = {0};
        char file[128];
        snprintf(file, sizeof file, "%s-%s", ways[i].prefix, name);
        *strchr(file, '/') = '-';
        hw_buf_put_u8(&b, ways[i].mode);
        put_record(&b, method(name), ways[i].flags, message);
        put_record(&b, method("KV/Put"), CALL_HALF_CLOSE | CALL_LATER, NULL);
        seed("fuzz_services", file, &b);
    }
}

#define BYTES(text) ((ProtobufCBinaryData){sizeof(text) - 1, (uint8_t *)(text)})

static void transactions(void)
{
    Etcdserverpb__RangeRequest range = ETCDSERVERPB__RANGE_REQUEST__INIT;
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__DeleteRangeRequest del = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__Compare compare = ETCDSERVERPB__COMPARE__INIT;
    Etcdserverpb__RequestOp ops[3] = {ETCDSERVERPB__REQUEST_OP__INIT, ETCDSERVERPB__REQUEST_OP__INIT,
                                      ETCDSERVERPB__REQUEST_OP__INIT};
    Etcdserverpb__RequestOp *op[] = {&ops[0], &ops[1], &ops[2]};
    Etcdserverpb__Compare *compares[] = {&compare};
    struct hw_buf b = {0};
    range.key = BYTES("a");
    range.range_end = BYTES("z");
    range.limit = 3;
    range.sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND;
    range.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__VALUE;
    service("KV/Range", &range);
    put.key = BYTES("k");
    put.value = BYTES("v");
    put.lease = 1;
    put.prev_kv = true;
    service("KV/Put", &put);
    del.key = BYTES("b");
    del.range_end = BYTES("c");
    del.prev_kv = true;
    service("KV/DeleteRange", &del);
    compare.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE;
    compare.key = BYTES("a");
    compare.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
    compare.value = BYTES("1");
    ops[0].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    ops[0].request_put = &put;
    ops[1].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
    ops[1].request_range = &range;
    ops[2].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    ops[2].request_delete_range = &del;
    txn.n_compare = 1;
    txn.compare = compares;
    txn.n_success = 3;
    txn.success = op;
    txn.n_failure = 1;
    txn.failure = &op[1];
    service("KV/Txn", &txn);
    hw_assert(hw_pack(&txn.base, &b) == 0);
    seed("fuzz_protowire", "txn", &b);
}

static void etcd_services(void)
{
    Etcdserverpb__CompactionRequest compaction = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    Etcdserverpb__LeaseGrantRequest grant = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    Etcdserverpb__LeaseRevokeRequest revoke = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    Etcdserverpb__LeaseKeepAliveRequest keep = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    Etcdserverpb__LeaseTimeToLiveRequest left = ETCDSERVERPB__LEASE_TIME_TO_LIVE_REQUEST__INIT;
    Etcdserverpb__HashKVRequest hash = ETCDSERVERPB__HASH_KVREQUEST__INIT;
    Etcdserverpb__MoveLeaderRequest move = ETCDSERVERPB__MOVE_LEADER_REQUEST__INIT;
    Etcdserverpb__AlarmRequest alarm = ETCDSERVERPB__ALARM_REQUEST__INIT;
    Grpc__Health__V1__HealthCheckRequest health = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    compaction.revision = 3;
    compaction.physical = true;
    service("KV/Compact", &compaction);
    grant.ttl = 60;
    grant.id = 5;
    service("Lease/LeaseGrant", &grant);
    revoke.id = keep.id = left.id = 1;
    left.keys = true;
    service("Lease/LeaseRevoke", &revoke);
    service("Lease/LeaseKeepAlive", &keep);
    service("Lease/LeaseTimeToLive", &left);
    service("Lease/LeaseLeases", NULL);
    service("Cluster/MemberList", NULL);
    service("Maintenance/Status", NULL);
    service("Maintenance/Hash", NULL);
    service("Maintenance/Defragment", NULL);
    hash.revision = 3;
    service("Maintenance/HashKV", &hash);
    move.targetid = 2;
    service("Maintenance/MoveLeader", &move);
    alarm.alarm = ETCDSERVERPB__ALARM_TYPE__NOSPACE;
    service("Maintenance/Alarm", &alarm);
    health.service = (char *)"etcdserverpb.KV";
    service("Health/Check", &health);
    service("Health/Watch", &health);
}

/* A watch, writes that it sees, its end. */
static void watches(void)
{
    Etcdserverpb__WatchCreateRequest create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    Etcdserverpb__WatchCancelRequest cancel = ETCDSERVERPB__WATCH_CANCEL_REQUEST__INIT;
    Etcdserverpb__WatchProgressRequest progress = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;
    Etcdserverpb__WatchRequest m = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    struct hw_buf b = {0};
    create.key = BYTES("a");
    create.range_end = BYTES("z");
    create.start_revision = 3;
    create.prev_kv = create.progress_notify = create.fragment = true;
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    m.create_request = &create;
    hw_buf_put_u8(&b, 0);
    put_record(&b, method("Watch/Watch"), 0, &m);
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    m.progress_request = &progress;
    put_record(&b, method("Watch/Watch"), CALL_GOES_ON, &m);
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST;
    m.cancel_request = &cancel;
    put_record(&b, method("Watch/Watch"), CALL_GOES_ON | CALL_HALF_CLOSE | CALL_LATER, &m);
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    m.create_request = &create;
    create.start_revision = 0;
    put_record(&b, method("Watch/Watch"), 0, &m);
    put.key = BYTES("b");
    put.value = BYTES("w");
    put_record(&b, method("KV/Put"), CALL_HALF_CLOSE, &put);
    put_record(&b, method("KV/Put"), CALL_HALF_CLOSE | CALL_LATER, &put);
    seed("fuzz_services", "watch", &b);
}

static void own_services(void)
{
    Hotwarm__V1__StatusRequest status = HOTWARM__V1__STATUS_REQUEST__INIT;
    Hotwarm__V1__NodeAddRequest add = HOTWARM__V1__NODE_ADD_REQUEST__INIT;
    Hotwarm__V1__NodeRemoveRequest node_remove = HOTWARM__V1__NODE_REMOVE_REQUEST__INIT;
    Hotwarm__V1__SwitchoverRequest switchover = HOTWARM__V1__SWITCHOVER_REQUEST__INIT;
    Hotwarm__V1__HistoryRequest history = HOTWARM__V1__HISTORY_REQUEST__INIT;
    Hotwarm__V1__SnapshotRequest snapshot = HOTWARM__V1__SNAPSHOT_REQUEST__INIT;
    Hotwarm__V1__QueryRequest query = HOTWARM__V1__QUERY_REQUEST__INIT;
    Hotwarm__V1__HelloRequest hello = HOTWARM__V1__HELLO_REQUEST__INIT;
    Hotwarm__V1__PeerMember member = HOTWARM__V1__PEER_MEMBER__INIT;
    Hotwarm__V1__PeerMember *members[] = {&member, &member};
    Hotwarm__V1__FormRequest form = HOTWARM__V1__FORM_REQUEST__INIT;
    Hotwarm__V1__JoinRequest join = HOTWARM__V1__JOIN_REQUEST__INIT;
    Hotwarm__V1__ForwardRequest forward = HOTWARM__V1__FORWARD_REQUEST__INIT;
    status.local = true;
    service("Admin/Status", &status);
    service("Peer/Status", &status);
    service("Admin/NodeList", NULL);
    service("Admin/Version", NULL);
    add.name = join.name = (char *)"n3";
    add.peer_address = join.peer_address = (char *)"127.0.0.1:9";
    service("Admin/NodeAdd", &add);
    node_remove.name = switchover.to = (char *)"n2";
    service("Admin/NodeRemove", &node_remove);
    service("Admin/Switchover", &switchover);
    history.limit = 5;
    service("Admin/History", &history);
    snapshot.token = 1;
    snapshot.offset = 4096;
    service("Admin/Snapshot", &snapshot);
    service("Peer/Image", &snapshot);
    query.sql = (char *)"SELECT * FROM kv";
    query.rows_max = 10;
    query.hot_too = true;
    service("Admin/Query", &query);
    hello.from_id = 2;
    hello.from_name = (char *)"n2";
    service("Peer/Hello", &hello);
    member.id = 2;
    member.name = (char *)"n2";
    member.peer_address = (char *)"127.0.0.1:3";
    form.cluster_id = 9;
    form.cluster_name = join.cluster_name = (char *)"fuzz";
    form.n_members = 2;
    form.members = members;
    service("Peer/Form", &form);
    join.id = 3;
    join.client_address = (char *)"127.0.0.1:8";
    service("Peer/Join", &join);
    forward.method = (char *)"/etcdserverpb.KV/Put";
    forward.payload = BYTES("\n\1k");
    service("Peer/Forward", &forward);
    service("Peer/ReadIndex", NULL);
    service("Peer/Term", NULL);
}

/* ---- answers of a peer ---- */

static void image_streams(void)
{
    Hotwarm__V1__SnapshotBegin begin = HOTWARM__V1__SNAPSHOT_BEGIN__INIT;
    Hotwarm__V1__SnapshotChunk chunk = HOTWARM__V1__SNAPSHOT_CHUNK__INIT;
    Hotwarm__V1__SnapshotEnd end = HOTWARM__V1__SNAPSHOT_END__INIT;
    Hotwarm__V1__SnapshotMessage parts[3] = {HOTWARM__V1__SNAPSHOT_MESSAGE__INIT, HOTWARM__V1__SNAPSHOT_MESSAGE__INIT,
                                             HOTWARM__V1__SNAPSHOT_MESSAGE__INIT};
    struct hw_buf answer = {0};
    struct hw_buf saved = {0};
    begin.token = 4;
    begin.size = 3;
    begin.index = 100;
    begin.cluster_id = 9;
    chunk.data = BYTES("abc");
    chunk.checksum = end.checksum = SEAM_HASH;
    parts[0].part_case = HOTWARM__V1__SNAPSHOT_MESSAGE__PART_BEGIN;
    parts[0].begin = &begin;
    parts[1].part_case = HOTWARM__V1__SNAPSHOT_MESSAGE__PART_CHUNK;
    parts[1].chunk = &chunk;
    parts[2].part_case = HOTWARM__V1__SNAPSHOT_MESSAGE__PART_END;
    parts[2].end = &end;
    hw_buf_put_u8(&answer, SCENE_REBUILD);
    put_record(&answer, ANSWER_BEGIN, 1, NULL);
    for (size_t i = 0; i < 3; i++) {
        struct hw_buf packed = {0};
        put_record(&answer, ANSWER_MESSAGE, 1, &parts[i]);
        hw_assert(hw_pack(&parts[i].base, &packed) == 0);
        hw_buf_put_u8(&saved, 0);
        hw_buf_put_u8(&saved, (uint8_t)packed.len);
        hw_buf_put_u8(&saved, 0);
        hw_buf_append(&saved, packed.data, packed.len);
        hw_buf_free(&packed);
    }
    put_record(&answer, ANSWER_END, 1, NULL);
    put_record(&answer, ANSWER_LATER, 20, NULL);
    seed("fuzz_answers", "image", &answer);
    seed("fuzz_snapshot", "whole", &saved);
}

static void answers(void)
{
    Hotwarm__V1__HelloResponse hello = HOTWARM__V1__HELLO_RESPONSE__INIT;
    Hotwarm__V1__ForwardResponse forward = HOTWARM__V1__FORWARD_RESPONSE__INIT;
    Hotwarm__V1__ReadIndexResponse index = HOTWARM__V1__READ_INDEX_RESPONSE__INIT;
    Hotwarm__V1__JoinResponse join = HOTWARM__V1__JOIN_RESPONSE__INIT;
    Hotwarm__V1__FormResponse form = HOTWARM__V1__FORM_RESPONSE__INIT;
    struct hw_buf warm = {0};
    struct hw_buf joining = {0};
    struct hw_buf forming = {0};
    forward.payload = BYTES("\n\2\10\1");
    index.index = 7;
    index.term = 5;
    hw_buf_put_u8(&warm, SCENE_WARM);
    put_record(&warm, ASK_PUT, 0, NULL);
    put_record(&warm, ANSWER_WHOLE, 1, &forward);
    put_record(&warm, ASK_RANGE, 0, NULL);
    put_record(&warm, ANSWER_WHOLE, 2, &index);
    seed("fuzz_answers", "forward-and-read", &warm);
    hello.id = 2;
    hello.name = (char *)"n2";
    hello.cluster_name = (char *)"fuzz";
    hello.phase = (char *)"member";
    hello.cluster_id = 9;
    hello.peer_address = (char *)"127.0.0.1:3";
    join.cluster_id = 9;
    hw_buf_put_u8(&joining, SCENE_JOINING);
    put_record(&joining, ANSWER_WHOLE, 0, &hello);
    put_record(&joining, ANSWER_WHOLE, 1, &join);
    seed("fuzz_answers", "joining", &joining);
    hello.cluster_id = 0;
    hello.phase = (char *)"waiting";
    form.accepted = true;
    hw_buf_put_u8(&forming, SCENE_FORMING);
    put_record(&forming, ANSWER_WHOLE, 0, &hello);
    put_record(&forming, ANSWER_WHOLE, 1, &form);
    seed("fuzz_answers", "forming", &forming);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: seeds FOLDER\n", stderr);
        return 2;
    }
    target = argv[1];
    commands();
    frames();
    identities();
    texts();
    connections();
    transactions();
    etcd_services();
    watches();
    own_services();
    image_streams();
    answers();
    return 0;
}
