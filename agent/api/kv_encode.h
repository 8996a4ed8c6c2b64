/* Private to agent/api: answers about keys, from the state's own records straight into the bytes of the wire. Building
 * protobuf-c's structs first would cost an allocation per key; here a key is written once, where it goes.
 *
 * Every function appends to `out`, which remembers a lack of memory (out->failed). The bytes are the ones protobuf-c
 * would write for the same message.
 */
#ifndef HW_API_KV_ENCODE_H
#define HW_API_KV_ENCODE_H

#include "agent/base/buf.h"
#include "storage/hot/hot.h"

/* etcd's ResponseHeader. Within the answers of a transaction only the revision is filled, as etcd does. */
struct hw_header {
    uint64_t cluster_id;
    uint64_t member_id;
    hw_rev revision;
    uint64_t raft_term;
};

void hw_encode_header(struct hw_buf *out, const struct hw_header *header);

/* One KeyValue as the given field of a message, and its size without tag and length. */
void hw_encode_kv(struct hw_buf *out, unsigned field, const struct hw_version *v);
size_t hw_encode_kv_size(const struct hw_version *v);

/* RangeResponse in pieces, so that a long one can be written over many turns: header, then versions, then the end. */
void hw_encode_range_begin(struct hw_buf *out, const struct hw_header *header);
void hw_encode_range_kvs(struct hw_buf *out, struct hw_version *const *kvs, size_t count, bool keys_only);
void hw_encode_range_end(struct hw_buf *out, bool more, int64_t count);

/* previous may be NULL. */
void hw_encode_put(struct hw_buf *out, const struct hw_header *header, const struct hw_version *previous);
void hw_encode_delete(struct hw_buf *out, const struct hw_header *header, int64_t deleted,
                      struct hw_version *const *previous, size_t count);
void hw_encode_txn(struct hw_buf *out, const struct hw_header *header, const struct hw_txn_result *txn);

/* How many bytes hw_encode_txn will append: an answer that is too large is refused before it is written. */
size_t hw_encode_txn_size(const struct hw_header *header, const struct hw_txn_result *txn);

/* TxnResponse in pieces, for one with deferred ranges: begin, then each operation, whole (hw_encode_op) or as its
 * begin, its content and its end with what begin returned. A nested transaction's content is a begin and operations
 * again. Lengths that are not known yet take five bytes, which protobuf's decoders read as well as the shortest form.
 */
void hw_encode_txn_begin(struct hw_buf *out, const struct hw_header *header, bool succeeded);
void hw_encode_op(struct hw_buf *out, const struct hw_header *header, const struct hw_op_result *op);
size_t hw_encode_op_begin(struct hw_buf *out, enum hw_op_type type);
void hw_encode_op_end(struct hw_buf *out, size_t begin);

#endif
