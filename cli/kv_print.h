/* etcd answers as tables, plain text and JSON. The JSON has etcd's field names (those of its gRPC gateway): keys and
 * values base64, revisions as numbers; a field is always there, also when it is 0.
 */
#ifndef HW_CLI_KV_PRINT_H
#define HW_CLI_KV_PRINT_H

#include "proto/etcd.pb-c.h"
#include "cli/output.h"

json_t *hw_ctl_json_header(const Etcdserverpb__ResponseHeader *h);
json_t *hw_ctl_json_range(const Etcdserverpb__RangeResponse *r);
json_t *hw_ctl_json_put(const Etcdserverpb__PutResponse *r);
json_t *hw_ctl_json_delete(const Etcdserverpb__DeleteRangeResponse *r);
json_t *hw_ctl_json_txn(const Etcdserverpb__TxnResponse *r);

/* KEY VALUE MOD VERSION, values escaped and long ones cut. */
void hw_ctl_print_kvs(struct hw_ctl *ctl, Mvccpb__KeyValue *const *kvs, size_t count);
/* Raw: each key and value on its own line, or only values. */
void hw_ctl_print_kvs_raw(struct hw_ctl *ctl, Mvccpb__KeyValue *const *kvs, size_t count, bool with_keys,
                          bool with_values);
int64_t hw_ctl_header_revision(const Etcdserverpb__ResponseHeader *h);

#endif
