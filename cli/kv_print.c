#include "cli/kv_print.h"

#include <string.h>

#define VALUE_SHOWN_MAX 256

/* A missing value would make json_object_set_new fail silently: the whole is dropped when any part is. */
static json_t *object(json_t *o, const char *name, json_t *value)
{
    if (o == NULL || json_object_set_new(o, name, value) != 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

int64_t hw_ctl_header_revision(const Etcdserverpb__ResponseHeader *h)
{
    return h != NULL ? h->revision : 0;
}

json_t *hw_ctl_json_header(const Etcdserverpb__ResponseHeader *h)
{
    json_t *o = json_object();
    o = object(o, "cluster_id", hw_ctl_json_hex(h != NULL ? h->cluster_id : 0));
    o = object(o, "member_id", hw_ctl_json_hex(h != NULL ? h->member_id : 0));
    o = object(o, "revision", json_integer(hw_ctl_header_revision(h)));
    return object(o, "raft_term", hw_ctl_json_number(h != NULL ? h->raft_term : 0));
}

static json_t *json_kv(const Mvccpb__KeyValue *kv)
{
    json_t *o = json_object();
    o = object(o, "key", hw_ctl_json_bytes(kv->key.data, kv->key.len));
    o = object(o, "create_revision", json_integer(kv->create_revision));
    o = object(o, "mod_revision", json_integer(kv->mod_revision));
    o = object(o, "version", json_integer(kv->version));
    o = object(o, "value", hw_ctl_json_bytes(kv->value.data, kv->value.len));
    return object(o, "lease", json_integer(kv->lease));
}

static json_t *json_kvs(Mvccpb__KeyValue *const *kvs, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        if (json_array_append_new(list, json_kv(kvs[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

json_t *hw_ctl_json_range(const Etcdserverpb__RangeResponse *r)
{
    json_t *o = object(json_object(), "header", hw_ctl_json_header(r->header));
    o = object(o, "kvs", json_kvs(r->kvs, r->n_kvs));
    o = object(o, "more", json_boolean(r->more));
    return object(o, "count", json_integer(r->count));
}

json_t *hw_ctl_json_put(const Etcdserverpb__PutResponse *r)
{
    json_t *o = object(json_object(), "header", hw_ctl_json_header(r->header));
    return object(o, "prev_kv", r->prev_kv != NULL ? json_kv(r->prev_kv) : json_null());
}

json_t *hw_ctl_json_delete(const Etcdserverpb__DeleteRangeResponse *r)
{
    json_t *o = object(json_object(), "header", hw_ctl_json_header(r->header));
    o = object(o, "deleted", json_integer(r->deleted));
    return object(o, "prev_kvs", json_kvs(r->prev_kvs, r->n_prev_kvs));
}

static json_t *json_op(const Etcdserverpb__ResponseOp *op)
{
    switch (op->response_case) {
    case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE:
        return object(json_object(), "response_range", hw_ctl_json_range(op->response_range));
    case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_PUT:
        return object(json_object(), "response_put", hw_ctl_json_put(op->response_put));
    case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_DELETE_RANGE:
        return object(json_object(), "response_delete_range", hw_ctl_json_delete(op->response_delete_range));
    default: /* the text form makes no nested transactions */
        return json_object();
    }
}

json_t *hw_ctl_json_txn(const Etcdserverpb__TxnResponse *r)
{
    json_t *list = json_array();
    json_t *o = object(json_object(), "header", hw_ctl_json_header(r->header));
    o = object(o, "succeeded", json_boolean(r->succeeded));
    for (size_t i = 0; i < r->n_responses; i++) {
        if (json_array_append_new(list, json_op(r->responses[i])) != 0) {
            json_decref(list);
            list = NULL;
            break;
        }
    }
    return object(o, "responses", list);
}

void hw_ctl_print_kvs(struct hw_ctl *ctl, Mvccpb__KeyValue *const *kvs, size_t count)
{
    static const char *const headings[] = {"KEY", "VALUE", ">MOD", ">VERSION", NULL};
    struct hw_ctl_table *t;
    struct hw_buf key = {0};
    struct hw_buf value = {0};
    if (count == 0) {
        return;
    }
    t = hw_ctl_table_new(ctl, headings);
    for (size_t i = 0; i < count; i++) {
        const Mvccpb__KeyValue *kv = kvs[i];
        size_t shown = kv->value.len < VALUE_SHOWN_MAX ? kv->value.len : VALUE_SHOWN_MAX;
        char mod[24];
        char version[24];
        hw_buf_clear(&value);
        hw_ctl_escape(&value, kv->value.data, shown);
        if (shown < kv->value.len) {
            hw_buf_printf(&value, "... (%zu bytes)", kv->value.len);
        }
        hw_buf_append(&value, "", 1);
        snprintf(mod, sizeof mod, "%lld", (long long)kv->mod_revision);
        snprintf(version, sizeof version, "%lld", (long long)kv->version);
        hw_ctl_table_add(t, (const char *[]){hw_ctl_escaped(&key, kv->key.data, kv->key.len),
                                             value.failed ? NULL : (const char *)value.data, mod, version});
    }
    hw_ctl_table_print(t);
    hw_buf_free(&key);
    hw_buf_free(&value);
}

static void print_raw_line(FILE *out, const ProtobufCBinaryData *bytes)
{
    if (bytes->len > 0) {
        fwrite(bytes->data, 1, bytes->len, out);
    }
    fputc('\n', out);
}

void hw_ctl_print_kvs_raw(struct hw_ctl *ctl, Mvccpb__KeyValue *const *kvs, size_t count, bool with_keys,
                          bool with_values)
{
    for (size_t i = 0; i < count; i++) {
        if (with_keys) {
            print_raw_line(ctl->out, &kvs[i]->key);
        }
        if (with_values) {
            print_raw_line(ctl->out, &kvs[i]->value);
        }
    }
}
