/* etcdserverpb.Lease: LeaseGrant, LeaseRevoke, LeaseTimeToLive, LeaseLeases; LeaseKeepAlive, a stream, is in
 * lease_stream.c, but as it arrives from another node, as one call, it is answered here.
 *
 * What is asked about time is the hot node's to answer: only it has a clock. Answers of many ids or keys are written in
 * slices of scan_slice_keys a turn; unlike a range they may mix what was there at slightly different moments. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "agent/api/protowire.h"
#include "agent/base/clock.h"
#include "agent/base/rng.h"
#include "agent/replica/lease.h"
#include "proto/etcd.pb-c.h"

_Static_assert(sizeof(void *) >= sizeof(int64_t), "an exchange's data holds a lease id");

static void header_of(struct hw_exchange *x, hw_rev revision, Etcdserverpb__ResponseHeader *header)
{
    struct hw_header h = hw_exchange_header(x, revision);
    etcdserverpb__response_header__init(header);
    header->cluster_id = h.cluster_id;
    header->member_id = h.member_id;
    header->revision = h.revision;
    header->raft_term = h.raft_term;
}

/* ---- writes: with the refusals of leases ---- */

static void refuse_result(struct hw_exchange *x, int code)
{
    switch (code) {
    case HW_ERR_EXISTS:
        hw_exchange_refuse(x, HW_REFUSE_LEASE_EXISTS);
        break;
    case HW_ERR_NOTFOUND:
        hw_exchange_refuse(x, HW_REFUSE_LEASE_NOT_FOUND);
        break;
    case HW_ERR_EXHAUSTED:
        hw_exchange_failf(x, HW_GRPC_RESOURCE_EXHAUSTED, "there are %u leases, and no more are allowed", HW_LEASES_MAX);
        break;
    default:
        hw_exchange_refuse(x, hw_refusal_of_result(code));
        break;
    }
}

static void lease_written(struct hw_write *w, int status)
{
    struct hw_exchange *x = w->data;
    if (status == HW_ERR_NOTHOT) {
        hw_exchange_reroute(x);
    } else if (status != 0) {
        hw_exchange_refuse(x, hw_refusal_of_status(status));
    } else if (w->result.code != 0) {
        refuse_result(x, w->result.code);
    } else {
        x->on_applied(x, &w->result);
    }
}

/* ---- LeaseGrant ---- */

static int64_t fresh_id(struct hw_hot *hot)
{
    struct hw_lease_view view;
    int64_t id;
    do {
        id = (int64_t)(hw_random_u64() & INT64_MAX);
    } while (id == 0 || hw_hot_lease(hot, id, &view) == 0);
    return id;
}

static void answer_grant(struct hw_exchange *x, const struct hw_result *result)
{
    Etcdserverpb__LeaseGrantResponse m = ETCDSERVERPB__LEASE_GRANT_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader header;
    struct hw_lease_view view;
    header_of(x, result->revision, &header);
    m.header = &header;
    m.id = (intptr_t)x->data;
    if (hw_hot_lease(hw_replica_hot(x->api->replica), m.id, &view) == 0) {
        m.ttl = view.ttl_s;
    }
    hw_exchange_ok_message(x, &m.base);
}

static void handle_grant(struct hw_exchange *x)
{
    struct hw_replica *replica = x->api->replica;
    Etcdserverpb__LeaseGrantRequest *m = hw_exchange_unpack(x, &etcdserverpb__lease_grant_request__descriptor);
    struct hw_cmd cmd = {.type = HW_CMD_LEASE_GRANT, .wall_ms = hw_wall_ms()};
    int64_t ttl_min_s = hw_replica_lease_ttl_min_s(replica);
    if (m == NULL) {
        return;
    }
    if (m->ttl > HW_LEASE_TTL_MAX) {
        hw_exchange_refuse(x, HW_REFUSE_LEASE_TTL_TOO_LARGE);
        return;
    }
    if (m->ttl < 0 || m->id < 0) {
        hw_exchange_failf(x, HW_GRPC_INVALID_ARGUMENT, "the %s of a lease cannot be negative: %" PRId64,
                          m->ttl < 0 ? "TTL" : "ID", m->ttl < 0 ? m->ttl : m->id);
        return;
    }
    if (!hw_replica_may_grow(replica)) {
        hw_exchange_refuse(x, HW_REFUSE_NO_SPACE);
        return;
    }
    cmd.grant.id = m->id != 0 ? m->id : fresh_id(hw_replica_hot(replica));
    cmd.grant.ttl_s = m->ttl > ttl_min_s ? m->ttl : ttl_min_s;
    x->data = (void *)(intptr_t)cmd.grant.id;
    hw_exchange_write_to(x, &cmd, lease_written, answer_grant);
}

/* ---- LeaseRevoke ---- */

static void answer_revoke(struct hw_exchange *x, const struct hw_result *result)
{
    Etcdserverpb__LeaseRevokeResponse m = ETCDSERVERPB__LEASE_REVOKE_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader header;
    header_of(x, result->revision, &header);
    m.header = &header;
    hw_exchange_ok_message(x, &m.base);
}

static void handle_revoke(struct hw_exchange *x)
{
    Etcdserverpb__LeaseRevokeRequest *m = hw_exchange_unpack(x, &etcdserverpb__lease_revoke_request__descriptor);
    struct hw_cmd cmd = {.type = HW_CMD_LEASE_REVOKE, .wall_ms = hw_wall_ms()};
    if (m == NULL) {
        return;
    }
    if (m->id <= 0) { /* no lease has such an id, and no command may carry it */
        hw_exchange_refuse(x, HW_REFUSE_LEASE_NOT_FOUND);
        return;
    }
    cmd.revoke = m->id;
    hw_exchange_write_to(x, &cmd, lease_written, answer_revoke);
}

/* ---- LeaseKeepAlive, sent on by another node ---- */

static void keep_alive_done(struct hw_keep_alive *k, int status)
{
    struct hw_exchange *x = k->data;
    Etcdserverpb__LeaseKeepAliveResponse m = ETCDSERVERPB__LEASE_KEEP_ALIVE_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader header;
    m.id = k->id;
    m.ttl = status == 0 ? k->ttl_s : 0;
    free(k);
    if (status == HW_ERR_NOTHOT) {
        hw_exchange_reroute(x);
    } else if (status != 0 && status != HW_ERR_NOTFOUND) {
        hw_exchange_refuse(x, hw_refusal_of_status(status));
    } else if (!hw_api_has_state(x->api)) {
        hw_exchange_refuse(x, HW_REFUSE_STOPPED);
    } else {
        header_of(x, hw_hot_revision(hw_replica_hot(x->api->replica)), &header);
        m.header = &header;
        hw_exchange_ok_message(x, &m.base);
    }
}

static void handle_keep_alive(struct hw_exchange *x)
{
    Etcdserverpb__LeaseKeepAliveRequest *m = hw_exchange_unpack(x, &etcdserverpb__lease_keep_alive_request__descriptor);
    struct hw_keep_alive *k;
    int rc;
    if (m == NULL) {
        return;
    }
    k = calloc(1, sizeof *k);
    if (k == NULL) {
        hw_exchange_refuse(x, HW_REFUSE_NO_MEMORY);
        return;
    }
    k->done = keep_alive_done;
    k->data = x;
    k->id = m->id;
    rc = hw_replica_lease_keep_alive(x->api->replica, k, hw_exchange_time_left_ms(x));
    if (rc != 0) {
        keep_alive_done(k, rc);
    }
}

/* ---- LeaseTimeToLive, LeaseLeases: answers over several turns ---- */

struct listing {
    struct hw_buf out;
    int64_t id;                /* LeaseTimeToLive: whose keys; LeaseLeases: the last one written */
    struct hw_key_name *after; /* the last key written; a reference */
    bool (*slice)(struct hw_exchange *x, struct listing *l); /* true: there is more */
};

static void listing_close(struct hw_exchange *x)
{
    struct listing *l = x->data;
    hw_defer_cancel(x->api->loop, &x->defer);
    hw_buf_free(&l->out);
    if (l->after != NULL) {
        hw_key_name_unref(l->after);
    }
    free(l);
    x->data = NULL;
    x->abort = NULL;
}

static void listing_refuse(struct hw_exchange *x, enum hw_refusal refusal)
{
    listing_close(x);
    hw_exchange_refuse(x, refusal);
}

static void listing_step(struct hw_defer *d)
{
    struct hw_exchange *x = hw_container_of(d, struct hw_exchange, defer);
    struct listing *l = x->data;
    struct hw_buf out;
    bool has_more;
    if (hw_exchange_is_over(x)) {
        listing_refuse(x, HW_REFUSE_TIMEOUT);
        return;
    }
    hw_loop_note(x->api->loop, "lease listing");
    has_more = l->slice(x, l);
    if (l->out.failed || l->out.len > HW_ANSWER_BYTES_MAX) {
        listing_refuse(x, l->out.failed ? HW_REFUSE_NO_MEMORY : HW_REFUSE_ANSWER_TOO_LARGE);
    } else if (has_more) {
        hw_defer_post(x->api->loop, &x->defer);
    } else {
        out = l->out;
        hw_buf_init(&l->out);
        listing_close(x);
        hw_exchange_ok_out(x, &out);
        hw_buf_free(&out);
    }
}

static struct listing *listing_new(struct hw_exchange *x, bool (*slice)(struct hw_exchange *x, struct listing *l))
{
    struct hw_header header = hw_exchange_header(x, hw_hot_revision(hw_replica_hot(x->api->replica)));
    struct listing *l = calloc(1, sizeof *l);
    if (l == NULL) {
        hw_exchange_refuse(x, HW_REFUSE_NO_MEMORY);
        return NULL;
    }
    l->slice = slice;
    hw_encode_header(&l->out, &header);
    x->data = l;
    x->abort = listing_close;
    hw_defer_init(&x->defer, listing_step);
    return l;
}

#define KEYS_AT_ONCE 64

static bool slice_of_keys(struct hw_exchange *x, struct listing *l)
{
    struct hw_hot *hot = hw_replica_hot(x->api->replica);
    struct hw_key_name *keys[KEYS_AT_ONCE];
    size_t count = KEYS_AT_ONCE;
    for (unsigned left = x->api->config.scan_slice_keys / KEYS_AT_ONCE + 1; left > 0 && count == KEYS_AT_ONCE; left--) {
        count = hw_hot_lease_keys(hot, l->id, l->after, keys, KEYS_AT_ONCE);
        for (size_t i = 0; i < count; i++) {
            hw_pb_put_bytes(&l->out, 5, hw_slice_of(keys[i]->data, keys[i]->len));
        }
        if (count > 0) {
            if (l->after != NULL) {
                hw_key_name_unref(l->after);
            }
            l->after = hw_key_name_ref(keys[count - 1]);
        }
    }
    return count == KEYS_AT_ONCE;
}

static bool slice_of_nothing(struct hw_exchange *x, struct listing *l)
{
    (void)x;
    (void)l;
    return false;
}

static void time_to_live_answer(struct hw_exchange *x)
{
    Etcdserverpb__LeaseTimeToLiveRequest *m =
        hw_exchange_unpack(x, &etcdserverpb__lease_time_to_live_request__descriptor);
    struct hw_replica *replica = x->api->replica;
    struct hw_lease_view view = {0};
    struct listing *l;
    int64_t left_s = -1; /* etcd's answer for one that is not there */
    int rc;
    if (m == NULL) {
        return;
    }
    rc = hw_replica_lease_left(replica, m->id, &left_s);
    if (rc == HW_ERR_NOTHOT) {
        hw_exchange_reroute(x);
        return;
    }
    if (rc == 0 && hw_hot_lease(hw_replica_hot(replica), m->id, &view) != 0) {
        left_s = -1;
    }
    l = listing_new(x, rc == 0 && m->keys ? slice_of_keys : slice_of_nothing);
    if (l == NULL) {
        return;
    }
    l->id = m->id;
    hw_pb_put_uint(&l->out, 2, (uint64_t)m->id);
    hw_pb_put_uint(&l->out, 3, (uint64_t)left_s);
    hw_pb_put_uint(&l->out, 4, (uint64_t)view.ttl_s);
    listing_step(&x->defer);
}

static void handle_time_to_live(struct hw_exchange *x)
{
    hw_exchange_read(x, time_to_live_answer);
}

static bool slice_of_leases(struct hw_exchange *x, struct listing *l)
{
    struct hw_hot *hot = hw_replica_hot(x->api->replica);
    struct hw_lease_view view;
    for (unsigned left = x->api->config.scan_slice_keys; left > 0; left--) {
        if (hw_hot_lease_next(hot, l->id, &view) != 0) {
            return false;
        }
        hw_pb_begin_message(&l->out, 2, hw_pb_uint_size((uint64_t)view.id));
        hw_pb_put_uint(&l->out, 1, (uint64_t)view.id);
        l->id = view.id;
    }
    return true;
}

static void leases_answer(struct hw_exchange *x)
{
    struct listing *l = listing_new(x, slice_of_leases);
    if (l != NULL) {
        l->id = INT64_MIN;
        listing_step(&x->defer);
    }
}

static void handle_leases(struct hw_exchange *x)
{
    hw_exchange_read(x, leases_answer);
}

const struct hw_service_method hw_lease_methods[] = {
    {"/etcdserverpb.Lease/LeaseGrant", handle_grant, HW_METHOD_HOT | HW_METHOD_FORWARDED, 0},
    {"/etcdserverpb.Lease/LeaseRevoke", handle_revoke, HW_METHOD_HOT | HW_METHOD_FORWARDED, 0},
    {HW_KEEP_ALIVE_PATH, handle_keep_alive,
     HW_METHOD_HOT | HW_METHOD_FORWARDED | HW_METHOD_IDEMPOTENT | HW_METHOD_STREAM, 0},
    {"/etcdserverpb.Lease/LeaseTimeToLive", handle_time_to_live,
     HW_METHOD_HOT | HW_METHOD_FORWARDED | HW_METHOD_IDEMPOTENT, 0},
    {"/etcdserverpb.Lease/LeaseLeases", handle_leases, HW_METHOD_REPLICA, 0},
};
const size_t hw_lease_method_count = hw_array_len(hw_lease_methods);
