/* Private to agent/api: requests about keys, from protobuf-c's structs to the state's, and what is wrong with them.
 *
 * Enumerations come from a peer: a value that this version does not know is refused here, before anybody uses it as an
 * index. The converted structs borrow from the messages; arrays of a transaction come from the arena.
 */
#ifndef HW_API_TXN_H
#define HW_API_TXN_H

#include "agent/api/arena.h"
#include "agent/api/errors.h"
#include "proto/etcd.pb-c.h"
#include "storage/hot/command.h"

/* Nesting and number of operations, read from the bytes: unpacking recurses and allocates for each, so this comes
 * first. False, and the refusal: MALFORMED, TXN_TOO_DEEP, TOO_MANY_OPS (HW_TXN_OPS_HARD_MAX over all branches). */
bool hw_txn_is_unpackable(struct hw_slice message, enum hw_refusal *refusal);

bool hw_range_convert(const Etcdserverpb__RangeRequest *m, struct hw_range *range, enum hw_refusal *refusal);
bool hw_put_convert(const Etcdserverpb__PutRequest *m, struct hw_put *put, enum hw_refusal *refusal);
bool hw_delete_convert(const Etcdserverpb__DeleteRangeRequest *m, struct hw_delete *del, enum hw_refusal *refusal);
/* Conversion only: the shape (how many, empty keys, duplicates) is hw_hot_check_txn's. */
bool hw_txn_convert(const Etcdserverpb__TxnRequest *m, struct hw_arena *arena, struct hw_txn *txn,
                    enum hw_refusal *refusal);

/* No operation writes, in whatever branch. */
bool hw_txn_is_readonly(const struct hw_txn *txn);
/* A read-only transaction whose ranges all are serializable (etcd: such a one needs no confirmation). */
bool hw_txn_is_serializable(const Etcdserverpb__TxnRequest *m);

#endif
