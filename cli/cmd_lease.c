/* lease grant, revoke, keep-alive, timetolive, list. Ids are decimal, as `put --lease` and the key's `lease` field have
 * them; 0x... is taken too, for ids that etcdctl has printed in hexadecimal. */
#include <inttypes.h>
#include <string.h>

#include "cli/call.h"
#include "cli/kv_print.h"
#include "cli/run.h"

#define LEASE(name) "/etcdserverpb.Lease/Lease" name

static const struct hw_ctl_method grant_method = {
    .path = LEASE("Grant"), .response = &etcdserverpb__lease_grant_response__descriptor, .is_write = true};
static const struct hw_ctl_method revoke_method = {
    .path = LEASE("Revoke"), .response = &etcdserverpb__lease_revoke_response__descriptor, .is_write = true};
static const struct hw_ctl_method keep_alive_method = {
    .path = LEASE("KeepAlive"), .response = &etcdserverpb__lease_keep_alive_response__descriptor};
static const struct hw_ctl_method time_method = {.path = LEASE("TimeToLive"),
                                                 .response = &etcdserverpb__lease_time_to_live_response__descriptor};
static const struct hw_ctl_method list_method = {.path = LEASE("Leases"),
                                                 .response = &etcdserverpb__lease_leases_response__descriptor};

static bool is_id(const char *word, int64_t *id)
{
    uint64_t value = 0;
    char end;
    if (strncmp(word, "0x", 2) != 0) {
        return hw_ctl_is_number(word, 1, INT64_MAX, id);
    }
    if (strlen(word) > 18 || sscanf(word + 2, "%" SCNx64 "%c", &value, &end) != 1 || value == 0 || value > INT64_MAX) {
        return false;
    }
    *id = (int64_t)value;
    return true;
}

static int id_of_args(const struct hw_ctl_args *args, int64_t *id, struct hw_error *e)
{
    return is_id(hw_ctl_word(args, 0), id)
               ? 0
               : hw_error_set(e, HW_ERR_INVALID, "ID is a number above 0, or 0x and hexadecimal digits, not \"%.40s\"",
                              hw_ctl_word(args, 0));
}

static int gone(struct hw_ctl *ctl, int64_t id, struct hw_error *e)
{
    hw_ctl_hint(ctl, "List what there is with 'hwctl lease list'");
    return hw_error_set(e, HW_ERR_NOTFOUND, "lease %" PRId64 " is not there", id);
}

/* ---- grant, revoke ---- */

HW_CTL_RUN(lease_grant)
{
    Etcdserverpb__LeaseGrantRequest q = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    const Etcdserverpb__LeaseGrantResponse *r;
    ProtobufCMessage *answer;
    int64_t ttl_s;
    int rc;
    if (!hw_ctl_is_number(hw_ctl_word(args, 0), 1, INT64_MAX, &ttl_s)) {
        return hw_error_set(e, HW_ERR_INVALID, "TTL is a number of seconds above 0, not \"%.40s\"",
                            hw_ctl_word(args, 0));
    }
    q.ttl = ttl_s;
    q.id = hw_ctl_number(args, "id", 0);
    rc = hw_ctl_unary(ctl, &grant_method, &q.base, &answer, e);
    if (rc != 0) {
        return rc;
    }
    r = (Etcdserverpb__LeaseGrantResponse *)answer;
    if (hw_ctl_is_json(ctl)) {
        rc = hw_ctl_json_print(ctl,
                               json_pack("{s:o, s:I, s:I}", "header", hw_ctl_json_header(r->header), "ID",
                                         (json_int_t)r->id, "TTL", (json_int_t)r->ttl),
                               e);
    } else {
        fprintf(ctl->out, "lease %" PRId64 " granted for %" PRId64 " s\n", r->id, r->ttl);
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    return rc;
}

HW_CTL_RUN(lease_revoke)
{
    Etcdserverpb__LeaseRevokeRequest q = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    const Etcdserverpb__LeaseRevokeResponse *r;
    ProtobufCMessage *answer;
    int rc = id_of_args(args, &q.id, e);
    if (rc == 0) {
        rc = hw_ctl_unary(ctl, &revoke_method, &q.base, &answer, e);
    }
    if (rc != 0) {
        return rc;
    }
    r = (Etcdserverpb__LeaseRevokeResponse *)answer;
    if (hw_ctl_is_json(ctl)) {
        rc = hw_ctl_json_print(ctl, json_pack("{s:o}", "header", hw_ctl_json_header(r->header)), e);
    } else {
        fprintf(ctl->out, "lease %" PRId64 " revoked, revision %" PRId64 "\n", q.id, hw_ctl_header_revision(r->header));
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    return rc;
}

/* ---- keep-alive ---- */

static int keep_alive_once(struct hw_ctl *ctl, int64_t id, int64_t *ttl_s, struct hw_error *e)
{
    Etcdserverpb__LeaseKeepAliveRequest q = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    const Etcdserverpb__LeaseKeepAliveResponse *r;
    ProtobufCMessage *answer;
    int rc;
    q.id = id;
    rc = hw_ctl_unary(ctl, &keep_alive_method, &q.base, &answer, e);
    if (rc != 0) {
        return rc;
    }
    r = (Etcdserverpb__LeaseKeepAliveResponse *)answer;
    *ttl_s = r->ttl;
    if (r->ttl <= 0) {
        rc = gone(ctl, id, e);
    } else if (hw_ctl_is_json(ctl)) {
        rc = hw_ctl_json_print(ctl,
                               json_pack("{s:o, s:I, s:I}", "header", hw_ctl_json_header(r->header), "ID",
                                         (json_int_t)r->id, "TTL", (json_int_t)r->ttl),
                               e);
    } else {
        fprintf(ctl->out, "lease %" PRId64 " has %" PRId64 " s again\n", r->id, r->ttl);
    }
    fflush(ctl->out);
    protobuf_c_message_free_unpacked(answer, NULL);
    return rc;
}

HW_CTL_RUN(lease_keep_alive)
{
    int64_t id;
    int64_t ttl_s = 0;
    int rc = id_of_args(args, &id, e);
    while (rc == 0) {
        rc = keep_alive_once(ctl, id, &ttl_s, e);
        if (rc != 0 || hw_ctl_is_set(args, "once") || hw_ctl_is_out_closed(ctl)) {
            break;
        }
        /* A third of its time, as etcd's clients do: two attempts may fail. */
        rc = hw_ctl_wait(ctl, NULL, (uint64_t)ttl_s * 1000 / 3);
        if (rc == HW_ERR_CANCELLED) {
            return HW_CTL_EXIT_INTERRUPTED;
        }
        rc = rc == HW_ERR_TIMEOUT ? 0 : rc;
    }
    return rc;
}

/* ---- timetolive, list ---- */

static int print_time(struct hw_ctl *ctl, const Etcdserverpb__LeaseTimeToLiveResponse *r, struct hw_error *e)
{
    if (!hw_ctl_is_json(ctl)) {
        struct hw_buf shown = {0};
        fprintf(ctl->out, "lease %" PRId64 ": %" PRId64 " s left of %" PRId64 " s\n", r->id, r->ttl, r->grantedttl);
        for (size_t i = 0; i < r->n_keys; i++) {
            fprintf(ctl->out, "%s\n", hw_ctl_escaped(&shown, r->keys[i].data, r->keys[i].len));
        }
        hw_buf_free(&shown);
        return 0;
    }
    json_t *keys = json_array();
    for (size_t i = 0; i < r->n_keys; i++) {
        json_array_append_new(keys, hw_ctl_json_bytes(r->keys[i].data, r->keys[i].len));
    }
    return hw_ctl_json_print(ctl,
                             json_pack("{s:o, s:I, s:I, s:I, s:o}", "header", hw_ctl_json_header(r->header), "ID",
                                       (json_int_t)r->id, "TTL", (json_int_t)r->ttl, "grantedTTL",
                                       (json_int_t)r->grantedttl, "keys", keys),
                             e);
}

HW_CTL_RUN(lease_timetolive)
{
    Etcdserverpb__LeaseTimeToLiveRequest q = ETCDSERVERPB__LEASE_TIME_TO_LIVE_REQUEST__INIT;
    const Etcdserverpb__LeaseTimeToLiveResponse *r;
    ProtobufCMessage *answer;
    int rc = id_of_args(args, &q.id, e);
    if (rc == 0) {
        q.keys = hw_ctl_is_set(args, "keys");
        rc = hw_ctl_unary(ctl, &time_method, &q.base, &answer, e);
    }
    if (rc != 0) {
        return rc;
    }
    r = (Etcdserverpb__LeaseTimeToLiveResponse *)answer;
    rc = r->ttl < 0 ? gone(ctl, q.id, e) : print_time(ctl, r, e);
    protobuf_c_message_free_unpacked(answer, NULL);
    return rc;
}

static int print_list(struct hw_ctl *ctl, const Etcdserverpb__LeaseLeasesResponse *r, struct hw_error *e)
{
    if (hw_ctl_is_json(ctl)) {
        json_t *leases = json_array();
        for (size_t i = 0; i < r->n_leases; i++) {
            json_array_append_new(leases, json_pack("{s:I}", "ID", (json_int_t)r->leases[i]->id));
        }
        return hw_ctl_json_print(ctl,
                                 json_pack("{s:o, s:o}", "header", hw_ctl_json_header(r->header), "leases", leases), e);
    }
    struct hw_ctl_table *t = hw_ctl_table_new(ctl, (const char *const[]){">ID", "HEX", NULL});
    for (size_t i = 0; i < r->n_leases; i++) {
        char id[32];
        char hex[32];
        snprintf(id, sizeof id, "%" PRId64, r->leases[i]->id);
        snprintf(hex, sizeof hex, "0x%" PRIx64, (uint64_t)r->leases[i]->id);
        hw_ctl_table_add(t, (const char *const[]){id, hex});
    }
    hw_ctl_table_print(t);
    return 0;
}

HW_CTL_RUN(lease_list)
{
    Etcdserverpb__LeaseLeasesRequest q = ETCDSERVERPB__LEASE_LEASES_REQUEST__INIT;
    ProtobufCMessage *answer;
    int rc = hw_ctl_unary(ctl, &list_method, &q.base, &answer, e);
    (void)args;
    if (rc == 0) {
        rc = print_list(ctl, (Etcdserverpb__LeaseLeasesResponse *)answer, e);
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    return rc;
}
