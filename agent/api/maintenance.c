/* etcdserverpb.Maintenance: status, hashes, alarms, moving the leadership. Status, Hash and HashKV are about the node
 * that is asked. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/api/api_impl.h"
#include "proto/etcd.pb-c.h"

#define IMAGE_SIZE_EVERY_MS 1000
#define MOVE_TIMEOUT_MS 10000

static void fill_header(struct hw_exchange *x, Etcdserverpb__ResponseHeader *header)
{
    struct hw_header h = hw_exchange_header(x, hw_hot_revision(hw_replica_hot(x->api->replica)));
    etcdserverpb__response_header__init(header);
    header->cluster_id = h.cluster_id;
    header->member_id = h.member_id;
    header->revision = h.revision;
    header->raft_term = h.raft_term;
}

/* ---- Status ---- */

static void size_work(struct hw_job *job)
{
    struct hw_image_size *s = hw_container_of(job, struct hw_image_size, job);
    struct stat st;
    s->found = stat(s->path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void size_done(struct hw_job *job)
{
    struct hw_image_size *s = hw_container_of(job, struct hw_image_size, job);
    struct hw_api *api = hw_container_of(s, struct hw_api, image_size);
    s->bytes = s->found;
    s->is_busy = false;
    hw_api_unref(api);
}

void hw_maintenance_tick(struct hw_api *api)
{
    struct hw_image_size *s = &api->image_size;
    uint64_t now = hw_loop_now_ms(api->loop);
    if (api->replica == NULL || s->is_busy || (s->looked_ms != 0 && now - s->looked_ms < IMAGE_SIZE_EVERY_MS)) {
        return;
    }
    s->looked_ms = now;
    strncpy(s->path, hw_replica_image_path(api->replica), sizeof s->path - 1);
    s->job.work = size_work;
    s->job.done = size_done;
    if (hw_pool_submit(hw_replica_pool(api->replica), &s->job) == 0) {
        s->is_busy = true;
        hw_api_ref(api);
    }
}

static void handle_status(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    struct hw_replica_status s;
    Etcdserverpb__StatusResponse m = ETCDSERVERPB__STATUS_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader header;
    char *errors[3];
    char alarm[64];
    hw_replica_status(api->replica, &s);
    fill_header(x, &header);
    m.header = &header;
    m.version = (char *)HW_ETCD_VERSION;
    m.dbsize = (int64_t)api->image_size.bytes;
    m.dbsizeinuse = (int64_t)hw_hot_bytes(hw_replica_hot(api->replica));
    m.leader = s.hot_id;
    m.raftindex = s.view.commit_index;
    m.raftterm = s.view.term;
    m.raftappliedindex = s.applied_index;
    m.islearner = s.view.role != HW_ROLE_VOTER;
    m.errors = errors;
    if (s.hot_id == 0) {
        errors[m.n_errors++] = (char *)hw_refusal_text(HW_REFUSE_NO_LEADER);
    }
    if (s.is_disk_failing) {
        errors[m.n_errors++] = s.disk_problem;
    }
    if (s.is_full) { /* as etcd prints an alarm */
        snprintf(alarm, sizeof alarm, "memberID:%" PRIu64 " alarm:NOSPACE ", s.hot_id);
        errors[m.n_errors++] = alarm;
    }
    hw_exchange_ok_message(x, &m.base);
}

/* ---- hashes ---- */

static uint32_t fold(uint64_t hash)
{
    return (uint32_t)(hash ^ hash >> 32);
}

static void handle_hash(struct hw_exchange *x)
{
    Etcdserverpb__HashResponse m = ETCDSERVERPB__HASH_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader header;
    fill_header(x, &header);
    m.header = &header;
    m.hash = fold(hw_hot_hash(hw_replica_hot(x->api->replica)));
    hw_exchange_ok_message(x, &m.base);
}

static void hash_close(struct hw_exchange *x)
{
    hw_defer_cancel(x->api->loop, &x->defer);
    hw_hasher_close(x->data);
    x->abort = NULL;
}

static void hash_answer(struct hw_exchange *x)
{
    struct hw_hasher *hasher = x->data;
    Etcdserverpb__HashKVResponse m = ETCDSERVERPB__HASH_KVRESPONSE__INIT;
    Etcdserverpb__ResponseHeader header;
    fill_header(x, &header);
    m.header = &header;
    m.hash = fold(hw_hasher_hash(hasher));
    m.compact_revision = hw_hasher_compacted(hasher);
    m.hash_revision = hw_hasher_revision(hasher);
    hash_close(x);
    hw_exchange_ok_message(x, &m.base);
}

static void hash_step(struct hw_defer *d)
{
    struct hw_exchange *x = hw_container_of(d, struct hw_exchange, defer);
    int rc;
    if (hw_exchange_is_over(x)) {
        hash_close(x);
        hw_exchange_refuse(x, HW_REFUSE_TIMEOUT);
        return;
    }
    rc = 1;
    if (hw_ranges_may_walk(x->api)) {
        hw_loop_note(x->api->loop, "hash");
        rc = hw_hasher_step(x->data, x->api->config.scan_slice_keys);
        hw_ranges_charge(x->api, x->api->config.scan_slice_keys, 0);
    }
    if (rc > 0) {
        hw_defer_post(x->api->loop, &x->defer);
    } else if (rc < 0) {
        hash_close(x);
        hw_exchange_refuse(x, hw_refusal_of_result(rc));
    } else {
        hash_answer(x);
    }
}

static void handle_hash_kv(struct hw_exchange *x)
{
    Etcdserverpb__HashKVRequest *m = hw_exchange_unpack(x, &etcdserverpb__hash_kvrequest__descriptor);
    struct hw_hasher *hasher = NULL;
    int rc;
    if (m == NULL) {
        return;
    }
    rc = hw_hasher_start(hw_replica_hot(x->api->replica), m->revision, &hasher);
    if (rc != 0) {
        hw_exchange_refuse(x, hw_refusal_of_result(rc));
        return;
    }
    x->data = hasher;
    x->abort = hash_close;
    hw_defer_init(&x->defer, hash_step);
    hash_step(&x->defer);
}

/* ---- alarms ---- */

/* Two can be on, and both go off by themselves: the one of this node's disk, and, as the hot node's, that the state is
 * full. Every node has the same state and the same bound, so every node knows that. Clearing them by hand is answered
 * as if it were needed: scripts written for etcd go on to compact and to write. */
static void handle_alarm(struct hw_exchange *x)
{
    Etcdserverpb__AlarmRequest *request = hw_exchange_unpack(x, &etcdserverpb__alarm_request__descriptor);
    Etcdserverpb__AlarmResponse m = ETCDSERVERPB__ALARM_RESPONSE__INIT;
    Etcdserverpb__AlarmMember disk = ETCDSERVERPB__ALARM_MEMBER__INIT;
    Etcdserverpb__AlarmMember full = ETCDSERVERPB__ALARM_MEMBER__INIT;
    Etcdserverpb__AlarmMember *alarms[2];
    Etcdserverpb__ResponseHeader header;
    struct hw_replica_status s;
    if (request == NULL) {
        return;
    }
    if ((unsigned)request->action > ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE ||
        (unsigned)request->alarm > ETCDSERVERPB__ALARM_TYPE__CORRUPT) {
        hw_exchange_fail(x, HW_GRPC_INVALID_ARGUMENT, "an alarm request has an action or a kind that is not known");
        return;
    }
    if (request->action == ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__ACTIVATE) {
        hw_exchange_fail(x, HW_GRPC_UNIMPLEMENTED,
                         "alarms cannot be set by hand: they follow the disk and the size of the state");
        return;
    }
    hw_replica_status(x->api->replica, &s);
    fill_header(x, &header);
    m.header = &header;
    m.alarms = alarms;
    disk.alarm = full.alarm = ETCDSERVERPB__ALARM_TYPE__NOSPACE;
    disk.memberid = x->api->config.node_id;
    full.memberid = s.hot_id != 0 ? s.hot_id : x->api->config.node_id;
    if (request->action == ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET) {
        if (s.is_full) {
            alarms[m.n_alarms++] = &full;
        }
        if (s.is_disk_failing && !(s.is_full && full.memberid == disk.memberid)) {
            alarms[m.n_alarms++] = &disk;
        }
    }
    hw_exchange_ok_message(x, &m.base);
}

/* ---- MoveLeader ---- */

struct move {
    struct hw_switchover s;
    struct hw_exchange *x;
};

static void move_answer(struct hw_exchange *x)
{
    Etcdserverpb__MoveLeaderResponse m = ETCDSERVERPB__MOVE_LEADER_RESPONSE__INIT;
    hw_exchange_ok_message(x, &m.base);
}

static void move_done(struct hw_switchover *s, int status)
{
    struct move *move = hw_container_of(s, struct move, s);
    struct hw_exchange *x = move->x;
    if (status == 0) {
        move_answer(x);
    } else {
        hw_admin_fail(x, status, &s->e);
    }
    free(move);
}

static bool is_voter(struct hw_api *api, uint64_t id)
{
    struct hw_member members[HW_MEMBERS_MAX];
    size_t count = hw_consensus_members(hw_replica_consensus(api->replica), members, HW_MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (members[i].id == id) {
            return members[i].role == HW_ROLE_VOTER;
        }
    }
    return false;
}

/* As in etcd only the leader itself takes this call (etcdctl looks for it first): it is not sent on. */
static void handle_move_leader(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    Etcdserverpb__MoveLeaderRequest *m = hw_exchange_unpack(x, &etcdserverpb__move_leader_request__descriptor);
    struct move *move;
    int rc;
    if (m == NULL) {
        return;
    }
    if (!hw_replica_is_hot(api->replica) || api->cluster == NULL) {
        hw_exchange_refuse(x, HW_REFUSE_NOT_LEADER);
        return;
    }
    if (!is_voter(api, m->targetid)) {
        hw_exchange_refuse(x, HW_REFUSE_BAD_TRANSFEREE);
        return;
    }
    if (m->targetid == api->config.node_id) {
        move_answer(x); /* it is there already */
        return;
    }
    move = calloc(1, sizeof *move);
    if (move == NULL) {
        hw_exchange_refuse(x, HW_REFUSE_NO_MEMORY);
        return;
    }
    move->x = x;
    move->s.done = move_done;
    move->s.to = m->targetid;
    rc = hw_cluster_switchover(api->cluster, &move->s, MOVE_TIMEOUT_MS);
    if (rc != 0) {
        hw_admin_fail(x, rc, &move->s.e);
        free(move);
    }
}

/* Nothing stops for it: what compaction made unreachable is removed in the background anyhow, this only asks for it
 * now. The image's free pages are used again by what is written next. */
static void handle_defragment(struct hw_exchange *x)
{
    Etcdserverpb__DefragmentResponse m = ETCDSERVERPB__DEFRAGMENT_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader header;
    hw_replica_defragment(x->api->replica);
    fill_header(x, &header);
    m.header = &header;
    hw_exchange_ok_message(x, &m.base);
}

static void refuse_snapshot(struct hw_exchange *x)
{
    hw_exchange_fail(x, HW_GRPC_UNIMPLEMENTED,
                     "an image is not a bbolt file: take it with `hwctl snapshot save FILE`, which is a SQLite file");
}

static void refuse_downgrade(struct hw_exchange *x)
{
    hw_exchange_fail(x, HW_GRPC_UNIMPLEMENTED, "downgrading is not supported by this version");
}

const struct hw_service_method hw_maintenance_methods[] = {
    {"/etcdserverpb.Maintenance/Status", handle_status, HW_METHOD_REPLICA, 0},
    {"/etcdserverpb.Maintenance/Hash", handle_hash, HW_METHOD_REPLICA, 0},
    {"/etcdserverpb.Maintenance/HashKV", handle_hash_kv, HW_METHOD_REPLICA, 0},
    {"/etcdserverpb.Maintenance/Alarm", handle_alarm, HW_METHOD_REPLICA, 0},
    {"/etcdserverpb.Maintenance/MoveLeader", handle_move_leader, HW_METHOD_REPLICA | HW_METHOD_FORWARDED,
     MOVE_TIMEOUT_MS + 2000},
    {"/etcdserverpb.Maintenance/Defragment", handle_defragment, HW_METHOD_REPLICA, 0},
    {"/etcdserverpb.Maintenance/Snapshot", refuse_snapshot, 0, 0},
    {"/etcdserverpb.Maintenance/Downgrade", refuse_downgrade, 0, 0},
};
const size_t hw_maintenance_method_count = hw_array_len(hw_maintenance_methods);
