/* Private to agent/api: one request and its answer.
 *
 * A method's handler gets an exchange and does not care where the call came from: from a client, or packed into
 * Peer/Forward by another node. It ends the exchange exactly once, now or in a later turn, with hw_exchange_ok,
 * hw_exchange_fail or hw_exchange_refuse; the pointer is dead afterwards. Until then it may use `request` (the message,
 * the exchange's own copy), `data`, `work` and the helpers below.
 *
 * The path of a call: size and readiness are checked; a method of the hot node (HW_METHOD_HOT) is sent there when this
 * node is not hot, and its answer is passed through; else the handler runs. Time is kept here: after the method's limit
 * the client gets its answer ("request timed out") even though the handler goes on; what the handler says later is
 * dropped. So an exchange lives as long as its handler, not as long as its call.
 *
 * Bounds: HW_EXCHANGES_MAX exchanges at once. Spare exchanges are kept, so that a request costs no malloc. Loop thread.
 */
#ifndef HW_API_EXCHANGE_H
#define HW_API_EXCHANGE_H

#include <protobuf-c/protobuf-c.h>

#include "agent/api/api.h"
#include "agent/api/errors.h"
#include "agent/api/kv_encode.h"

#define HW_EXCHANGES_MAX 65536
/* An answer of any method. */
#define HW_ANSWER_BYTES_MAX ((size_t)64 * 1024 * 1024)

struct hw_exchange;

enum hw_method_flags {
    HW_METHOD_REPLICA = 1,     /* UNAVAILABLE while the node has no replica */
    HW_METHOD_CLUSTER = 2,     /* as above, for membership: runs on the hot node, where api->cluster must be */
    HW_METHOD_HOT = 4,         /* runs on the hot node: sent there from elsewhere */
    HW_METHOD_FORWARDED = 8,   /* may come through Peer/Forward */
    HW_METHOD_IDEMPOTENT = 16, /* running it twice does no harm: sent again when the connection broke */
    HW_METHOD_STREAM = 32      /* clients reach it as a stream (api.c adds that); here only for Peer/Forward */
};

struct hw_service_method {
    const char *path;
    void (*handle)(struct hw_exchange *x);
    unsigned flags;
    unsigned timeout_ms; /* 0: request_timeout_ms of the configuration */
};

/* A method as a server knows it: ctx of hw_exchange_serve. */
struct hw_endpoint {
    struct hw_api *api;
    const struct hw_service_method *method;
};

/* A range: see range.h. */
TAILQ_HEAD(hw_range_list, hw_exchange);
struct hw_range_work {
    struct hw_scan *scan;
    struct hw_buf answer;
    size_t encoded; /* versions written to answer so far */
    bool is_scanned;
    bool is_single;
    bool keys_only;
    struct hw_range_list *list; /* NULL: in none */
    TAILQ_ENTRY(hw_exchange) link;
};

struct hw_exchange {
    struct hw_api *api;
    const struct hw_service_method *method;
    struct hw_buf request;
    void *data; /* the handler's */
    union {
        struct hw_write write;
        struct hw_forward forward;
        struct hw_read read;
        struct hw_range_work range;
    } work;
    struct hw_defer defer; /* the handler's, for going on in a later turn */
    /* Set while the exchange holds something of the replica's over turns: lets go of it, at once. */
    void (*abort)(struct hw_exchange *x);

    /* private */
    struct hw_call *call; /* NULL once the client was answered */
    bool is_forwarded;
    bool is_slow;
    bool is_waiting; /* in the list of those that try again */
    uint64_t deadline_ms;
    void (*on_applied)(struct hw_exchange *x, const struct hw_result *result);
    void (*on_readable)(struct hw_exchange *x);
    TAILQ_ENTRY(hw_exchange) link;
    TAILQ_ENTRY(hw_exchange) retry_link;
};

/* The on_unary of every method but the streams. */
void hw_exchange_serve(void *endpoint, struct hw_call *call, struct hw_slice message);
/* The on_unary of Peer/Forward; ctx is the api. */
void hw_exchange_serve_forward(void *api, struct hw_call *call, struct hw_slice message);

void hw_exchange_ok(struct hw_exchange *x, struct hw_slice message);
void hw_exchange_fail(struct hw_exchange *x, enum hw_grpc status, const char *text);
void hw_exchange_failf(struct hw_exchange *x, enum hw_grpc status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void hw_exchange_refuse(struct hw_exchange *x, enum hw_refusal refusal);
/* The shared answer buffer's content, or NO_MEMORY when it could not be written. */
void hw_exchange_ok_out(struct hw_exchange *x, struct hw_buf *out);
/* Pack and answer. */
void hw_exchange_ok_message(struct hw_exchange *x, const ProtobufCMessage *message);
/* This node turned out not to be hot, and the call surely did nothing: send it where the hot node is now. `request`
 * must be the message as it came. */
void hw_exchange_reroute(struct hw_exchange *x);
/* For a method that only sometimes needs the hot node: true when this node is hot; else the call is sent there (or
 * refused), and the handler is done with it. */
bool hw_exchange_try_here(struct hw_exchange *x);
/* Nobody waits for the answer any more. */
bool hw_exchange_is_over(const struct hw_exchange *x);
uint64_t hw_exchange_time_left_ms(const struct hw_exchange *x);
/* While it is not over: bytes that the client's connection has still to send, and which connection that is (to compare
 * with that of another exchange). 0 and NULL afterwards. */
size_t hw_exchange_unsent(const struct hw_exchange *x);
const void *hw_exchange_connection(const struct hw_exchange *x);

/* An empty buffer for the answer, shared by all: use it up in this turn. */
struct hw_buf *hw_exchange_out(struct hw_exchange *x);
/* etcd's header, as of now. */
struct hw_header hw_exchange_header(const struct hw_exchange *x, hw_rev revision);

/* Unpack the request into the shared arena; valid until the next hw_exchange_unpack of anybody. NULL: already refused.
 */
void *hw_exchange_unpack(struct hw_exchange *x, const ProtobufCMessageDescriptor *descriptor);

/* Put a command into the log. Then on_applied runs with its result (code 0 only); any other end is answered here. */
void hw_exchange_write(struct hw_exchange *x, const struct hw_cmd *cmd,
                       void (*on_applied)(struct hw_exchange *x, const struct hw_result *result));
/* As hw_exchange_write, but every end is told to `done`, whose w->data is the exchange; also one at once. It runs
 * x->on_applied itself. */
void hw_exchange_write_to(struct hw_exchange *x, const struct hw_cmd *cmd, void (*done)(struct hw_write *w, int status),
                          void (*on_applied)(struct hw_exchange *x, const struct hw_result *result));
/* Wait until the state here may answer a linearizable read. A failure is answered here. */
void hw_exchange_read(struct hw_exchange *x, void (*on_readable)(struct hw_exchange *x));

#endif
