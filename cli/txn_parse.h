/* The text form of a transaction, for `hwctl txn`. One condition or operation a line; blank lines and lines that begin
 * with '#' are skipped:
 *
 *     if TARGET(KEY [prefix]) OP OPERAND   TARGET: value version create mod lease; OP: = != < >
 *     if exists(KEY)   if missing(KEY)     short for version(KEY) > 0 and version(KEY) = 0
 *     then OPERATION                       done when every condition holds
 *     else OPERATION                       done otherwise
 *
 *     OPERATION: put KEY VALUE [lease N] [prev-kv]
 *                get KEY [prefix | from-key | to END] [limit N] [rev N] [keys-only] [count-only]
 *                del KEY [prefix | from-key | to END] [prev-kv]
 *
 * KEY, VALUE and END are bare words (no spaces, quotes, parentheses or '#') or "quoted", with \n \r \t \\ \" \xNN.
 * Pure: text in, message out.
 */
#ifndef HW_CLI_TXN_PARSE_H
#define HW_CLI_TXN_PARSE_H

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "proto/etcd.pb-c.h"

#define HW_CTL_TXN_BYTES_MAX (16u << 20)
#define HW_CTL_TXN_OPS_MAX 1024 /* of each part; the agent's own limit is lower and is its to say */

struct hw_ctl_txn_place {
    unsigned line;   /* from 1; 0: not about a place */
    unsigned column; /* from 1, in bytes */
};

/* On success *txn is the caller's: etcdserverpb__txn_request__free_unpacked. On HW_ERR_INVALID, e says what was wanted
 * and `place` where; the text of e begins with "line L, column C: ". */
int hw_ctl_txn_parse(struct hw_slice text, Etcdserverpb__TxnRequest **txn, struct hw_ctl_txn_place *place,
                     struct hw_error *e);

#endif
