#include "agent/api/errors.h"

#include "agent/base/assert.h"

static const struct {
    enum hw_grpc status;
    const char *text;
} refusals[HW_REFUSAL_COUNT] = {
#define X(name, status, text) [HW_REFUSE_##name] = {HW_GRPC_##status, text},
    HW_REFUSAL_LIST(X)
#undef X
};

enum hw_grpc hw_refusal_status(enum hw_refusal refusal)
{
    hw_assert((unsigned)refusal < HW_REFUSAL_COUNT);
    return refusals[refusal].status;
}

const char *hw_refusal_text(enum hw_refusal refusal)
{
    hw_assert((unsigned)refusal < HW_REFUSAL_COUNT);
    return refusals[refusal].text;
}

enum hw_refusal hw_refusal_of_result(int code)
{
    switch (code) {
    case HW_ERR_COMPACTED:
        return HW_REFUSE_COMPACTED;
    case HW_ERR_FUTURE:
        return HW_REFUSE_FUTURE;
    case HW_ERR_NOTFOUND:
        return HW_REFUSE_KEY_NOT_FOUND;
    case HW_ERR_INVALID:
        return HW_REFUSE_DUPLICATE_KEY;
    case HW_ERR_TOOBIG:
        return HW_REFUSE_DELETE_TOO_LARGE;
    case HW_ERR_PRECONDITION:
        return HW_REFUSE_LEASE_NOT_FOUND;
    case HW_ERR_EXHAUSTED:
        return HW_REFUSE_LEASE_FULL;
    default:
        return HW_REFUSE_NO_MEMORY;
    }
}

enum hw_refusal hw_refusal_of_status(int status)
{
    switch (status) {
    case HW_ERR_NOTHOT:
        return HW_REFUSE_LEADER_CHANGED;
    case HW_ERR_UNKNOWN:
        return HW_REFUSE_LEADER_FAIL;
    case HW_ERR_NOSPACE:
        return HW_REFUSE_NO_SPACE;
    case HW_ERR_CANCELLED:
        return HW_REFUSE_STOPPED;
    case HW_ERR_EXHAUSTED:
        return HW_REFUSE_TOO_MANY_REQUESTS;
    case HW_ERR_TOOBIG:
        return HW_REFUSE_REQUEST_TOO_LARGE;
    case HW_ERR_NOMEM:
        return HW_REFUSE_NO_MEMORY;
    case HW_ERR_INVALID:
        return HW_REFUSE_MALFORMED;
    case HW_ERR_UNAVAILABLE:
        return HW_REFUSE_NO_LEADER;
    default:
        return HW_REFUSE_TIMEOUT;
    }
}

enum hw_grpc hw_grpc_of_err(int code)
{
    return (enum hw_grpc)hw_err_grpc(code);
}
