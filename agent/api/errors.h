/* Private to agent/api: refusals as etcd says them.
 *
 * etcd's clients compare the text of a status to tell errors apart (api/v3rpc/rpctypes/error.go), so code and text are
 * part of the wire: where etcd has an error for a case, it is exactly that one; where it has none, a sentence of ours.
 */
#ifndef HW_API_ERRORS_H
#define HW_API_ERRORS_H

#include "agent/base/err.h"
#include "agent/rpc/rpc.h"

/*   name                 gRPC status          text */
#define HW_REFUSAL_LIST(X)                                                                                          \
    X(EMPTY_KEY, INVALID_ARGUMENT, "etcdserver: key is not provided")                                               \
    X(KEY_NOT_FOUND, INVALID_ARGUMENT, "etcdserver: key not found")                                                 \
    X(VALUE_PROVIDED, INVALID_ARGUMENT, "etcdserver: value is provided")                                            \
    X(LEASE_PROVIDED, INVALID_ARGUMENT, "etcdserver: lease is provided")                                            \
    X(TOO_MANY_OPS, INVALID_ARGUMENT, "etcdserver: too many operations in txn request")                             \
    X(DUPLICATE_KEY, INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")                            \
    X(SORT_OPTION, INVALID_ARGUMENT, "etcdserver: invalid sort option")                                             \
    X(COMPACTED, OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")                            \
    X(FUTURE, OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")                             \
    X(DELETE_TOO_LARGE, RESOURCE_EXHAUSTED,                                                                         \
      "the deletes cover more than 200000 keys: delete in parts, for instance by narrower prefixes")                \
    X(COMPARE_TOO_LARGE, RESOURCE_EXHAUSTED,                                                                        \
      "the compares cover more than 20000 keys: compare single keys, or narrower prefixes")                         \
    X(LEASE_FULL, RESOURCE_EXHAUSTED, "the lease has 200000 keys, the most that one can have: grant another lease") \
    X(NO_SPACE, RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")                                    \
    X(LEASE_NOT_FOUND, NOT_FOUND, "etcdserver: requested lease not found")                                          \
    X(LEASE_EXISTS, FAILED_PRECONDITION, "etcdserver: lease already exists")                                        \
    X(LEASE_TTL_TOO_LARGE, OUT_OF_RANGE, "etcdserver: too large lease TTL")                                         \
    X(MEMBER_NOT_FOUND, NOT_FOUND, "etcdserver: member not found")                                                  \
    X(REQUEST_TOO_LARGE, INVALID_ARGUMENT, "etcdserver: request is too large")                                      \
    X(TOO_MANY_REQUESTS, RESOURCE_EXHAUSTED, "etcdserver: too many requests")                                       \
    X(NO_LEADER, UNAVAILABLE, "etcdserver: no leader")                                                              \
    X(NOT_LEADER, FAILED_PRECONDITION, "etcdserver: not leader")                                                    \
    X(LEADER_CHANGED, UNAVAILABLE, "etcdserver: leader changed")                                                    \
    X(STOPPED, UNAVAILABLE, "etcdserver: server stopped")                                                           \
    X(TIMEOUT, UNAVAILABLE, "etcdserver: request timed out")                                                        \
    X(LEADER_FAIL, UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure")           \
    X(BAD_TRANSFEREE, FAILED_PRECONDITION, "etcdserver: bad leader transferee")                                     \
    X(MALFORMED, INVALID_ARGUMENT, "the message is not the one that this method takes: it cannot be read")          \
    X(COMPARE_OPTION, INVALID_ARGUMENT, "a compare has a result or target that this version does not know")         \
    X(TXN_TOO_DEEP, INVALID_ARGUMENT, "transactions are nested more than 8 deep")                                   \
    X(NO_MEMORY, RESOURCE_EXHAUSTED, "this node is out of memory for the request")                                  \
    X(ANSWER_TOO_LARGE, RESOURCE_EXHAUSTED,                                                                         \
      "the answer is larger than 64 MiB: ask for fewer keys at a time with limit, or for keys only")                \
    X(NOT_HOT, UNAVAILABLE, HW_NOT_HOT_TEXT)

/* What Peer/Forward answers when it did not run the call: the sender may try the next hot node. */
#define HW_NOT_HOT_TEXT "not hot"

enum hw_refusal {
#define X(name, status, text) HW_REFUSE_##name,
    HW_REFUSAL_LIST(X)
#undef X
        HW_REFUSAL_COUNT
};

enum hw_grpc hw_refusal_status(enum hw_refusal refusal);
const char *hw_refusal_text(enum hw_refusal refusal);

/* For the result code of an applied command, and for what hw_scan_start refuses. */
enum hw_refusal hw_refusal_of_result(int code);
/* For the status with which a write, a read or a call to another part ended. HW_ERR_NOTHOT is the caller's to handle
 * first (the call is sent on); here it is LEADER_CHANGED. */
enum hw_refusal hw_refusal_of_status(int status);
/* For any other code, with a text of its own beside it. */
enum hw_grpc hw_grpc_of_err(int code);

#endif
