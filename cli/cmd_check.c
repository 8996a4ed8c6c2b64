/* hash, health, version: every endpoint is asked, each for itself. */
#include <string.h>

#include "agent/base/clock.h"
#include "cli/call.h"
#include "cli/output.h"
#include "cli/run.h"
#include "proto/etcd.pb-c.h"
#include "proto/health.pb-c.h"
#include "proto/hotwarm.pb-c.h"

#define HEALTH_PAUSE_MS 100

static const struct hw_ctl_method hash_method = {.path = "/etcdserverpb.Maintenance/HashKV",
                                                 .response = &etcdserverpb__hash_kvresponse__descriptor};
static const struct hw_ctl_method health_method = {.path = "/grpc.health.v1.Health/Check",
                                                   .response = &grpc__health__v1__health_check_response__descriptor};
static const struct hw_ctl_method version_method = {.path = "/hotwarm.v1.Admin/Version",
                                                    .response = &hotwarm__v1__version_response__descriptor};

/* ---- hash ---- */

struct hash_row {
    bool answered;
    uint32_t hash;
    int64_t revision;
    int64_t compacted;
    struct hw_error e;
};

static void hash_ask(struct hw_ctl *ctl, unsigned i, int64_t revision, struct hash_row *row)
{
    Etcdserverpb__HashKVRequest q = ETCDSERVERPB__HASH_KVREQUEST__INIT;
    const Etcdserverpb__HashKVResponse *r;
    ProtobufCMessage *answer;
    q.revision = revision;
    row->answered = hw_ctl_unary_at(ctl, i, &hash_method, &q.base, &answer, &row->e) == 0;
    if (!row->answered) {
        return;
    }
    r = (Etcdserverpb__HashKVResponse *)answer;
    row->hash = r->hash;
    row->compacted = r->compact_revision;
    row->revision = r->hash_revision != 0 ? r->hash_revision : r->header != NULL ? r->header->revision : 0;
    protobuf_c_message_free_unpacked(answer, NULL);
}

/* The oldest revision among the answers, and whether all have it: the one that every node can be asked for. */
static int64_t oldest_revision(const struct hash_row *rows, unsigned count, bool *is_common)
{
    int64_t oldest = 0;
    *is_common = true;
    for (unsigned i = 0; i < count; i++) {
        if (!rows[i].answered) {
            continue;
        }
        *is_common = *is_common && (oldest == 0 || rows[i].revision == oldest);
        oldest = oldest == 0 || rows[i].revision < oldest ? rows[i].revision : oldest;
    }
    return oldest;
}

static bool rows_differ(const struct hash_row *rows, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned k = 0; k < i; k++) {
            if (rows[i].answered && rows[k].answered && rows[i].revision == rows[k].revision &&
                rows[i].compacted == rows[k].compacted && rows[i].hash != rows[k].hash) {
                return true;
            }
        }
    }
    return false;
}

static int hash_print_json(struct hw_ctl *ctl, const struct hash_row *rows, const char *verdict, struct hw_error *e)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < ctl->endpoint_count; i++) {
        const struct hash_row *r = &rows[i];
        json_t *error = r->answered ? json_null() : hw_ctl_json_text(hw_error_text(&r->e));
        json_array_append_new(list, json_pack("{s:s, s:b, s:o, s:I, s:I, s:o}", "endpoint", ctl->endpoints[i].address,
                                              "answered", r->answered, "hash", hw_ctl_json_number(r->hash), "revision",
                                              (json_int_t)r->revision, "compacted", (json_int_t)r->compacted, "error",
                                              error));
    }
    return hw_ctl_json_print(ctl, json_pack("{s:s, s:o}", "verdict", verdict, "endpoints", list), e);
}

static void hash_print_table(struct hw_ctl *ctl, const struct hash_row *rows)
{
    static const char *const headings[] = {"ENDPOINT", "HASH", ">REVISION", ">COMPACTED", "NOTE", NULL};
    struct hw_ctl_table *t = hw_ctl_table_new(ctl, headings);
    for (unsigned i = 0; i < ctl->endpoint_count; i++) {
        const struct hash_row *r = &rows[i];
        char hash[HW_CTL_SHORT_SIZE];
        char revision[HW_CTL_SHORT_SIZE];
        char compacted[HW_CTL_SHORT_SIZE];
        snprintf(hash, sizeof hash, "%08x", r->hash);
        snprintf(revision, sizeof revision, "%lld", (long long)r->revision);
        snprintf(compacted, sizeof compacted, "%lld", (long long)r->compacted);
        if (r->answered) {
            hw_ctl_table_add(t, (const char *[]){ctl->endpoints[i].address, hash, revision, compacted, NULL});
        } else {
            hw_ctl_table_add(t, (const char *[]){ctl->endpoints[i].address, NULL, NULL, NULL, hw_error_text(&r->e)});
            hw_ctl_table_color(t, "red");
        }
    }
    hw_ctl_table_print(t);
}

HW_CTL_RUN(hash)
{
    struct hash_row rows[HW_CTL_ENDPOINTS_MAX];
    int64_t revision = hw_ctl_number(args, "rev", 0);
    unsigned missing = 0;
    bool is_common;
    bool differ;
    const char *verdict;
    int rc = 0;
    memset(rows, 0, sizeof rows);
    for (unsigned i = 0; i < ctl->endpoint_count && !ctl->is_interrupted; i++) {
        hash_ask(ctl, i, revision, &rows[i]);
    }
    revision = oldest_revision(rows, ctl->endpoint_count, &is_common);
    for (unsigned i = 0; !is_common && i < ctl->endpoint_count && !ctl->is_interrupted; i++) {
        if (rows[i].answered && rows[i].revision != revision) {
            hash_ask(ctl, i, revision, &rows[i]); /* writes went on between the answers: compare the past */
        }
    }
    if (ctl->is_interrupted) {
        return hw_error_set(e, HW_ERR_CANCELLED, "interrupted");
    }
    for (unsigned i = 0; i < ctl->endpoint_count; i++) {
        missing += !rows[i].answered;
    }
    differ = rows_differ(rows, ctl->endpoint_count);
    verdict = differ ? "different" : missing > 0 ? "incomplete" : "equal";
    if (hw_ctl_is_json(ctl)) {
        rc = hash_print_json(ctl, rows, verdict, e);
    } else {
        hash_print_table(ctl, rows);
    }
    if (rc == 0 && differ) {
        hw_ctl_note(ctl,
                    "hash: nodes differ at revision %lld. Compare 'hwctl status' state hashes, keep the images, and "
                    "remove and re-add the node that is wrong.",
                    (long long)revision);
        return HW_CTL_EXIT_DIFFERS;
    }
    if (rc == 0 && missing > 0) {
        hw_ctl_hint(ctl, "The others agree; bring the missing ones back and run it again");
        rc = hw_error_set(e, HW_ERR_UNAVAILABLE, "%u of %u endpoints did not answer", missing, ctl->endpoint_count);
    }
    return rc;
}

/* ---- health ---- */

struct health_row {
    const char *text;
    uint64_t took_ms;
    bool is_serving;
    struct hw_error e;
};

static void health_ask(struct hw_ctl *ctl, unsigned i, struct health_row *row)
{
    static const char *const texts[] = {"unknown", "serving", "not serving", "service unknown"};
    Grpc__Health__V1__HealthCheckRequest q = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    uint64_t start_ms = hw_mono_ms();
    ProtobufCMessage *answer;
    unsigned status;
    int rc = hw_ctl_unary_at(ctl, i, &health_method, &q.base, &answer, &row->e);
    row->took_ms = hw_mono_ms() - start_ms;
    row->text = "down";
    if (rc != 0) {
        return;
    }
    status = (unsigned)((Grpc__Health__V1__HealthCheckResponse *)answer)->status;
    row->text = status < sizeof texts / sizeof texts[0] ? texts[status] : texts[0];
    row->is_serving = status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    protobuf_c_message_free_unpacked(answer, NULL);
}

static int health_print(struct hw_ctl *ctl, const struct health_row *rows, struct hw_error *e)
{
    static const char *const headings[] = {"ENDPOINT", "STATUS", ">TOOK", "NOTE", NULL};
    json_t *list = json_array();
    struct hw_ctl_table *t = hw_ctl_table_new(ctl, headings);
    for (unsigned i = 0; i < ctl->endpoint_count; i++) {
        const char *why = rows[i].e.code != 0 ? hw_error_text(&rows[i].e) : NULL;
        char took[HW_CTL_SHORT_SIZE];
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o}", "endpoint", ctl->endpoints[i].address, "status",
                                              rows[i].text, "took_ms", hw_ctl_json_number(rows[i].took_ms), "error",
                                              why != NULL ? hw_ctl_json_text(why) : json_null()));
        hw_ctl_table_add(
            t, (const char *[]){ctl->endpoints[i].address, rows[i].text, hw_ctl_age_text(rows[i].took_ms, took), why});
        if (!rows[i].is_serving) {
            hw_ctl_table_color(t, "red");
        }
    }
    if (hw_ctl_is_json(ctl)) {
        hw_ctl_table_free(t);
        return hw_ctl_json_print(ctl, json_pack("{s:o}", "endpoints", list), e);
    }
    json_decref(list);
    hw_ctl_table_print(t);
    return 0;
}

/* How many do not serve; HW_ERR_CANCELLED. */
static int health_round(struct hw_ctl *ctl, struct health_row *rows)
{
    int bad = 0;
    memset(rows, 0, HW_CTL_ENDPOINTS_MAX * sizeof rows[0]);
    for (unsigned i = 0; i < ctl->endpoint_count; i++) {
        health_ask(ctl, i, &rows[i]);
        if (ctl->is_interrupted) {
            return HW_ERR_CANCELLED;
        }
        bad += !rows[i].is_serving;
    }
    return bad;
}

HW_CTL_RUN(health)
{
    struct health_row rows[HW_CTL_ENDPOINTS_MAX];
    uint64_t end_ms = hw_mono_ms() + 1000 * (uint64_t)hw_ctl_number(args, "wait", 0);
    int bad = health_round(ctl, rows);
    int rc;
    while (bad > 0 && hw_mono_ms() < end_ms) {
        bad = hw_ctl_wait(ctl, NULL, HEALTH_PAUSE_MS);
        bad = bad == HW_ERR_TIMEOUT ? health_round(ctl, rows) : bad;
    }
    if (bad < 0) {
        return hw_error_set(e, bad, "interrupted");
    }
    rc = health_print(ctl, rows, e);
    if (rc == 0 && bad > 0) {
        rc = hw_error_set(e, HW_ERR_UNAVAILABLE, "%d of %u endpoints do not serve", bad, ctl->endpoint_count);
    }
    return rc;
}

/* ---- version ---- */

static int version_row(struct hw_ctl *ctl, unsigned i, struct hw_ctl_table *t, json_t *list)
{
    Hotwarm__V1__VersionRequest q = HOTWARM__V1__VERSION_REQUEST__INIT;
    const char *address = ctl->endpoints[i].address;
    struct hw_error why = {0};
    const Hotwarm__V1__VersionResponse *r;
    ProtobufCMessage *answer;
    int rc = hw_ctl_unary_at(ctl, i, &version_method, &q.base, &answer, &why);
    if (rc != 0) {
        char text[HW_ERROR_TEXT_MAX + 8];
        snprintf(text, sizeof text, "down: %s", hw_error_text(&why));
        hw_ctl_table_add(t, (const char *[]){address, text, NULL, NULL, NULL, NULL});
        json_array_append_new(
            list, json_pack("{s:s, s:o}", "endpoint", address, "error", hw_ctl_json_text(hw_error_text(&why))));
        return rc;
    }
    r = (Hotwarm__V1__VersionResponse *)answer;
    hw_ctl_table_add(t,
                     (const char *[]){address, r->node, r->version, r->etcd_version,
                                      *r->libraft != '\0' ? r->libraft : NULL, *r->sqlite != '\0' ? r->sqlite : NULL});
    json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "endpoint", address, "node",
                                          hw_ctl_json_text(r->node), "version", hw_ctl_json_text(r->version),
                                          "etcd_version", hw_ctl_json_text(r->etcd_version), "libraft",
                                          hw_ctl_json_text(r->libraft), "sqlite", hw_ctl_json_text(r->sqlite)));
    protobuf_c_message_free_unpacked(answer, NULL);
    return 0;
}

HW_CTL_RUN(version)
{
    static const char *const headings[] = {"ENDPOINT", "NODE", "HOTWARM", "ETCD-API", "LIBRAFT", "SQLITE", NULL};
    struct hw_ctl_table *t = hw_ctl_table_new(ctl, headings);
    json_t *list = json_array();
    bool asks = !hw_ctl_is_set(args, "client");
    for (unsigned i = 0; asks && i < ctl->endpoint_count && !ctl->is_interrupted; i++) {
        version_row(ctl, i, t, list);
    }
    if (hw_ctl_is_json(ctl)) {
        hw_ctl_table_free(t);
        return hw_ctl_json_print(ctl, json_pack("{s:s, s:o}", "hwctl", HW_VERSION, "endpoints", list), e);
    }
    json_decref(list);
    fprintf(ctl->out, "hwctl %s\n", HW_VERSION);
    if (asks) {
        hw_ctl_table_print(t);
    } else {
        hw_ctl_table_free(t);
    }
    return 0;
}
