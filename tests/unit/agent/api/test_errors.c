#include <string.h>

#include "agent/api/errors.h"
#include "tests/unit/hw_test.h"

static const struct {
    enum hw_refusal refusal;
    enum hw_grpc status;
    const char *text;
} etcds[] = {
    /* etcd's api/v3rpc/rpctypes/error.go, the ones that HotWarm can say */
    {HW_REFUSE_EMPTY_KEY, HW_GRPC_INVALID_ARGUMENT, "etcdserver: key is not provided"},
    {HW_REFUSE_KEY_NOT_FOUND, HW_GRPC_INVALID_ARGUMENT, "etcdserver: key not found"},
    {HW_REFUSE_VALUE_PROVIDED, HW_GRPC_INVALID_ARGUMENT, "etcdserver: value is provided"},
    {HW_REFUSE_LEASE_PROVIDED, HW_GRPC_INVALID_ARGUMENT, "etcdserver: lease is provided"},
    {HW_REFUSE_TOO_MANY_OPS, HW_GRPC_INVALID_ARGUMENT, "etcdserver: too many operations in txn request"},
    {HW_REFUSE_DUPLICATE_KEY, HW_GRPC_INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"},
    {HW_REFUSE_SORT_OPTION, HW_GRPC_INVALID_ARGUMENT, "etcdserver: invalid sort option"},
    {HW_REFUSE_COMPACTED, HW_GRPC_OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"},
    {HW_REFUSE_FUTURE, HW_GRPC_OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"},
    {HW_REFUSE_NO_SPACE, HW_GRPC_RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"},
    {HW_REFUSE_LEASE_NOT_FOUND, HW_GRPC_NOT_FOUND, "etcdserver: requested lease not found"},
    {HW_REFUSE_LEASE_EXISTS, HW_GRPC_FAILED_PRECONDITION, "etcdserver: lease already exists"},
    {HW_REFUSE_LEASE_TTL_TOO_LARGE, HW_GRPC_OUT_OF_RANGE, "etcdserver: too large lease TTL"},
    {HW_REFUSE_MEMBER_NOT_FOUND, HW_GRPC_NOT_FOUND, "etcdserver: member not found"},
    {HW_REFUSE_REQUEST_TOO_LARGE, HW_GRPC_INVALID_ARGUMENT, "etcdserver: request is too large"},
    {HW_REFUSE_TOO_MANY_REQUESTS, HW_GRPC_RESOURCE_EXHAUSTED, "etcdserver: too many requests"},
    {HW_REFUSE_NO_LEADER, HW_GRPC_UNAVAILABLE, "etcdserver: no leader"},
    {HW_REFUSE_NOT_LEADER, HW_GRPC_FAILED_PRECONDITION, "etcdserver: not leader"},
    {HW_REFUSE_LEADER_CHANGED, HW_GRPC_UNAVAILABLE, "etcdserver: leader changed"},
    {HW_REFUSE_STOPPED, HW_GRPC_UNAVAILABLE, "etcdserver: server stopped"},
    {HW_REFUSE_TIMEOUT, HW_GRPC_UNAVAILABLE, "etcdserver: request timed out"},
    {HW_REFUSE_LEADER_FAIL, HW_GRPC_UNAVAILABLE,
     "etcdserver: request timed out, possibly due to previous leader failure"},
    {HW_REFUSE_BAD_TRANSFEREE, HW_GRPC_FAILED_PRECONDITION, "etcdserver: bad leader transferee"},
};

static void etcds_codes_and_texts_are_exact(void)
{
    for (size_t i = 0; i < sizeof etcds / sizeof etcds[0]; i++) {
        CHECK_EQ(hw_refusal_status(etcds[i].refusal), etcds[i].status);
        CHECK_STR(hw_refusal_text(etcds[i].refusal), etcds[i].text);
    }
}

static void every_refusal_has_a_status_and_a_text(void)
{
    for (int i = 0; i < HW_REFUSAL_COUNT; i++) {
        CHECK(hw_refusal_status((enum hw_refusal)i) != HW_GRPC_OK);
        CHECK(strlen(hw_refusal_text((enum hw_refusal)i)) > 0);
    }
}

/* agent/replica/forward.c sends such a call again: the text is between the two. */
static void not_hot_is_the_word_between_agents(void)
{
    CHECK_STR(hw_refusal_text(HW_REFUSE_NOT_HOT), "not hot");
    CHECK_EQ(hw_refusal_status(HW_REFUSE_NOT_HOT), HW_GRPC_UNAVAILABLE);
}

static void results_of_apply_have_their_refusals(void)
{
    CHECK_EQ(hw_refusal_of_result(HW_ERR_COMPACTED), HW_REFUSE_COMPACTED);
    CHECK_EQ(hw_refusal_of_result(HW_ERR_FUTURE), HW_REFUSE_FUTURE);
    CHECK_EQ(hw_refusal_of_result(HW_ERR_NOTFOUND), HW_REFUSE_KEY_NOT_FOUND);
    CHECK_EQ(hw_refusal_of_result(HW_ERR_INVALID), HW_REFUSE_DUPLICATE_KEY);
    CHECK_EQ(hw_refusal_of_result(HW_ERR_PRECONDITION), HW_REFUSE_LEASE_NOT_FOUND);
    CHECK_EQ(hw_refusal_of_result(HW_ERR_NOMEM), HW_REFUSE_NO_MEMORY);
}

static void ends_of_writes_have_their_refusals(void)
{
    CHECK_EQ(hw_refusal_of_status(HW_ERR_UNKNOWN), HW_REFUSE_LEADER_FAIL);
    CHECK_EQ(hw_refusal_of_status(HW_ERR_NOSPACE), HW_REFUSE_NO_SPACE);
    CHECK_EQ(hw_refusal_of_status(HW_ERR_CANCELLED), HW_REFUSE_STOPPED);
    CHECK_EQ(hw_refusal_of_status(HW_ERR_EXHAUSTED), HW_REFUSE_TOO_MANY_REQUESTS);
    CHECK_EQ(hw_refusal_of_status(HW_ERR_TOOBIG), HW_REFUSE_REQUEST_TOO_LARGE);
    CHECK_EQ(hw_refusal_of_status(HW_ERR_UNAVAILABLE), HW_REFUSE_NO_LEADER);
    CHECK_EQ(hw_refusal_of_status(HW_ERR_TIMEOUT), HW_REFUSE_TIMEOUT);
}

static void a_write_whose_outcome_is_unknown_is_never_called_refused(void)
{
    /* Clients repeat a write on some statuses: of an unknown outcome they must hear UNAVAILABLE, as from etcd. */
    CHECK_EQ(hw_refusal_status(hw_refusal_of_status(HW_ERR_UNKNOWN)), HW_GRPC_UNAVAILABLE);
    CHECK_EQ(hw_refusal_status(hw_refusal_of_status(HW_ERR_CANCELLED)), HW_GRPC_UNAVAILABLE);
}

HW_SUITE(api_errors, HW_CASE(etcds_codes_and_texts_are_exact), HW_CASE(every_refusal_has_a_status_and_a_text),
         HW_CASE(not_hot_is_the_word_between_agents), HW_CASE(results_of_apply_have_their_refusals),
         HW_CASE(ends_of_writes_have_their_refusals), HW_CASE(a_write_whose_outcome_is_unknown_is_never_called_refused))
