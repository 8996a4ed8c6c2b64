/* get, put, del, compact: the key space. */
#include <string.h>

#include "agent/base/assert.h"
#include "cli/call.h"
#include "cli/kv_print.h"
#include "cli/range.h"
#include "cli/run.h"

/* The agent refuses longer requests; reading more of stdin would be for nothing. */
#define VALUE_BYTES_MAX (16u << 20)

static const struct hw_ctl_method range_method = {.path = "/etcdserverpb.KV/Range",
                                                  .response = &etcdserverpb__range_response__descriptor};
static const struct hw_ctl_method put_method = {
    .path = "/etcdserverpb.KV/Put", .response = &etcdserverpb__put_response__descriptor, .is_write = true};
static const struct hw_ctl_method delete_method = {.path = "/etcdserverpb.KV/DeleteRange",
                                                   .response = &etcdserverpb__delete_range_response__descriptor,
                                                   .is_write = true};
static const struct hw_ctl_method compact_method = {
    .path = "/etcdserverpb.KV/Compact", .response = &etcdserverpb__compaction_response__descriptor, .is_write = true};

static ProtobufCBinaryData bytes_of(struct hw_slice s)
{
    return (ProtobufCBinaryData){s.len, (uint8_t *)s.data};
}

struct range {
    struct hw_slice key;
    struct hw_slice end;
    struct hw_buf buf;
    bool is_single;
};

/* KEY [RANGE_END] with --prefix or --from-key. */
static int range_of_args(const struct hw_ctl_args *args, struct range *r, struct hw_error *e)
{
    bool is_prefix = hw_ctl_is_set(args, "prefix");
    bool is_from = hw_ctl_is_set(args, "from-key");
    const char *end = hw_ctl_word(args, 1);
    if (is_prefix + is_from + (end != NULL) > 1) {
        return hw_error_set(e, HW_ERR_INVALID, "RANGE_END, --prefix and --from-key exclude each other");
    }
    memset(r, 0, sizeof *r);
    r->key = hw_slice_str(hw_ctl_word(args, 0));
    r->is_single = !is_prefix && !is_from && end == NULL;
    if (r->is_single && r->key.len == 0) {
        return hw_error_set(e, HW_ERR_INVALID, "the key is empty; all keys are: \"\" --prefix");
    }
    if (end != NULL) {
        r->end = hw_slice_str(end);
        return 0;
    }
    hw_ctl_range_of(is_prefix ? HW_CTL_RANGE_PREFIX
                    : is_from ? HW_CTL_RANGE_FROM
                              : HW_CTL_RANGE_ONE,
                    &r->key, &r->end, &r->buf);
    return r->buf.failed ? hw_error_set(e, HW_ERR_NOMEM, "out of memory") : 0;
}

/* ---- get ---- */

static void fill_sort(const struct hw_ctl_args *args, Etcdserverpb__RangeRequest *q)
{
    static const char *const targets[] = {"key", "version", "create", "mod", "value"};
    const char *target = hw_ctl_text(args, "sort-by", NULL);
    const char *order = hw_ctl_text(args, "order", NULL);
    for (unsigned i = 0; target != NULL && i < hw_array_len(targets); i++) {
        if (strcmp(target, targets[i]) == 0) {
            q->sort_target = (Etcdserverpb__RangeRequest__SortTarget)i;
            q->sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__ASCEND;
        }
    }
    if (order != NULL) {
        q->sort_order = strcmp(order, "descend") == 0 ? ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND
                                                      : ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__ASCEND;
    }
}

static int print_range(struct hw_ctl *ctl, const struct hw_ctl_args *args, const struct range *range,
                       Etcdserverpb__RangeResponse *r, struct hw_error *e)
{
    bool keys_only = hw_ctl_is_set(args, "keys-only");
    bool values_only = hw_ctl_is_set(args, "print-value-only");
    int rc = 0;
    if (hw_ctl_is_json(ctl)) {
        rc = hw_ctl_json_print(ctl, hw_ctl_json_range(r), e);
    } else if (hw_ctl_is_set(args, "count-only")) {
        fprintf(ctl->out, "%lld\n", (long long)r->count);
    } else if (values_only || ctl->settings.output == HW_CTL_PLAIN || keys_only) {
        hw_ctl_print_kvs_raw(ctl, r->kvs, r->n_kvs, !values_only, !keys_only);
    } else {
        hw_ctl_print_kvs(ctl, r->kvs, r->n_kvs);
    }
    if (rc == 0 && r->more) {
        hw_ctl_note(ctl, "get: %zu of %lld keys shown; raise --limit for more", r->n_kvs, (long long)r->count);
    }
    if (rc == 0 && range->is_single && r->count == 0) {
        struct hw_buf shown = {0};
        rc = hw_error_set(e, HW_ERR_NOTFOUND, "key \"%.200s\" is not there",
                          hw_ctl_escaped(&shown, range->key.data, range->key.len));
        hw_buf_free(&shown);
        hw_ctl_hint(ctl, "List what there is with 'hwctl get PREFIX --prefix --keys-only'");
    }
    return rc;
}

HW_CTL_RUN(get)
{
    Etcdserverpb__RangeRequest q = ETCDSERVERPB__RANGE_REQUEST__INIT;
    struct range range;
    ProtobufCMessage *answer;
    int rc = range_of_args(args, &range, e);
    if (rc == 0 && hw_ctl_is_set(args, "keys-only") && hw_ctl_is_set(args, "print-value-only")) {
        rc = hw_error_set(e, HW_ERR_INVALID, "--keys-only and --print-value-only exclude each other");
    }
    if (rc != 0) {
        return rc;
    }
    q.key = bytes_of(range.key);
    q.range_end = bytes_of(range.end);
    q.limit = hw_ctl_number(args, "limit", 0);
    q.revision = hw_ctl_number(args, "rev", 0);
    q.serializable = hw_ctl_is_set(args, "serializable");
    q.keys_only = hw_ctl_is_set(args, "keys-only");
    q.count_only = hw_ctl_is_set(args, "count-only");
    fill_sort(args, &q);
    rc = hw_ctl_unary(ctl, &range_method, &q.base, &answer, e);
    if (rc == 0) {
        rc = print_range(ctl, args, &range, (Etcdserverpb__RangeResponse *)answer, e);
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    hw_buf_free(&range.buf);
    return rc;
}

/* ---- put ---- */

static int value_of_args(struct hw_ctl *ctl, const struct hw_ctl_args *args, struct hw_buf *stdin_value,
                         struct hw_slice *value, struct hw_error *e)
{
    const char *word = hw_ctl_word(args, 1);
    bool is_ignored = hw_ctl_is_set(args, "ignore-value");
    *value = hw_slice_of(NULL, 0);
    if (is_ignored || word == NULL) {
        return is_ignored && word == NULL
                   ? 0
                   : hw_error_set(e, HW_ERR_INVALID,
                                  is_ignored ? "--ignore-value excludes a VALUE" : "VALUE is missing");
    }
    if (strcmp(word, "-") != 0) {
        *value = hw_slice_str(word);
        return 0;
    }
    int rc = hw_ctl_read_all(ctl->env->in, "stdin", VALUE_BYTES_MAX, stdin_value, e);
    *value = hw_buf_slice(stdin_value);
    return rc;
}

HW_CTL_RUN(put)
{
    Etcdserverpb__PutRequest q = ETCDSERVERPB__PUT_REQUEST__INIT;
    struct hw_buf stdin_value = {0};
    struct hw_slice key = hw_slice_str(hw_ctl_word(args, 0));
    struct hw_slice value;
    ProtobufCMessage *answer;
    int rc = key.len == 0 ? hw_error_set(e, HW_ERR_INVALID, "the key is empty")
                          : value_of_args(ctl, args, &stdin_value, &value, e);
    if (rc == 0) {
        q.key = bytes_of(key);
        q.value = bytes_of(value);
        q.lease = hw_ctl_number(args, "lease", 0);
        q.prev_kv = hw_ctl_is_set(args, "prev-kv");
        q.ignore_value = hw_ctl_is_set(args, "ignore-value");
        q.ignore_lease = hw_ctl_is_set(args, "ignore-lease");
        rc = hw_ctl_unary(ctl, &put_method, &q.base, &answer, e);
    }
    if (rc == 0) {
        const Etcdserverpb__PutResponse *r = (Etcdserverpb__PutResponse *)answer;
        if (hw_ctl_is_json(ctl)) {
            rc = hw_ctl_json_print(ctl, hw_ctl_json_put(r), e);
        } else if (!ctl->settings.is_quiet || r->prev_kv != NULL) {
            fprintf(ctl->out, "OK revision %lld\n", (long long)hw_ctl_header_revision(r->header));
            hw_ctl_print_kvs(ctl, (Mvccpb__KeyValue *const *)&r->prev_kv, r->prev_kv != NULL);
        }
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    hw_buf_free(&stdin_value);
    return rc;
}

/* ---- del, compact ---- */

HW_CTL_RUN(del)
{
    Etcdserverpb__DeleteRangeRequest q = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    struct range range;
    ProtobufCMessage *answer;
    int rc = range_of_args(args, &range, e);
    if (rc != 0) {
        return rc;
    }
    q.key = bytes_of(range.key);
    q.range_end = bytes_of(range.end);
    q.prev_kv = hw_ctl_is_set(args, "prev-kv");
    rc = hw_ctl_unary(ctl, &delete_method, &q.base, &answer, e);
    if (rc == 0) {
        const Etcdserverpb__DeleteRangeResponse *r = (Etcdserverpb__DeleteRangeResponse *)answer;
        if (hw_ctl_is_json(ctl)) {
            rc = hw_ctl_json_print(ctl, hw_ctl_json_delete(r), e);
        } else {
            fprintf(ctl->out, "%lld deleted, revision %lld\n", (long long)r->deleted,
                    (long long)hw_ctl_header_revision(r->header));
            hw_ctl_print_kvs(ctl, r->prev_kvs, r->n_prev_kvs);
        }
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    hw_buf_free(&range.buf);
    return rc;
}

HW_CTL_RUN(compact)
{
    Etcdserverpb__CompactionRequest q = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    ProtobufCMessage *answer;
    int64_t revision;
    int rc;
    if (!hw_ctl_is_number(hw_ctl_word(args, 0), 1, INT64_MAX, &revision)) {
        return hw_error_set(e, HW_ERR_INVALID, "REVISION is a number above 0, not \"%.40s\"", hw_ctl_word(args, 0));
    }
    q.revision = revision;
    q.physical = hw_ctl_is_set(args, "physical");
    rc = hw_ctl_unary(ctl, &compact_method, &q.base, &answer, e);
    if (rc != 0) {
        return rc;
    }
    if (hw_ctl_is_json(ctl)) {
        json_t *header = hw_ctl_json_header(((Etcdserverpb__CompactionResponse *)answer)->header);
        rc = hw_ctl_json_print(ctl, json_pack("{s:o, s:I}", "header", header, "compacted", (json_int_t)revision), e);
    } else {
        fprintf(ctl->out, "compacted up to revision %lld\n", (long long)revision);
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    return rc;
}
