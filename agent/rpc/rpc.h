/* gRPC over HTTP/2 (nghttp2), server and client. Knows no service: methods are paths, messages are bytes.
 * Sources: RFC 9113 (HTTP/2), https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
 *
 * A call is one HTTP/2 stream. Both sides see the same shapes: messages in, messages out, one end with a status.
 * Bounds (struct hw_rpc_limits) hold per connection and per message; what exceeds them is answered with
 * RESOURCE_EXHAUSTED on the call, or GOAWAY on the connection for a protocol violation; the process lives on.
 * Compression is not offered; a compressed message is answered with UNIMPLEMENTED (grpc-encoding is named).
 * Everything is for the loop thread. Frames made in one turn of the loop leave in one write at its end.
 */
#ifndef HW_RPC_RPC_H
#define HW_RPC_RPC_H

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/metrics.h"
#include "agent/loop/loop.h"
#include "agent/loop/stream.h"

/* gRPC status codes, https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
enum hw_grpc {
    HW_GRPC_OK = 0,
    HW_GRPC_CANCELLED,
    HW_GRPC_UNKNOWN,
    HW_GRPC_INVALID_ARGUMENT,
    HW_GRPC_DEADLINE_EXCEEDED,
    HW_GRPC_NOT_FOUND,
    HW_GRPC_ALREADY_EXISTS,
    HW_GRPC_PERMISSION_DENIED,
    HW_GRPC_RESOURCE_EXHAUSTED,
    HW_GRPC_FAILED_PRECONDITION,
    HW_GRPC_ABORTED,
    HW_GRPC_OUT_OF_RANGE,
    HW_GRPC_UNIMPLEMENTED,
    HW_GRPC_INTERNAL,
    HW_GRPC_UNAVAILABLE,
    HW_GRPC_DATA_LOSS,
    HW_GRPC_UNAUTHENTICATED
};

struct hw_rpc_limits {
    size_t message_bytes_max;    /* one message, default 2 MiB */
    unsigned streams_max;        /* concurrent calls of a connection, default 1024 */
    size_t header_bytes_max;     /* header list of a call, default 16 KiB */
    size_t send_queue_bytes_max; /* not yet sent bytes of a connection beyond which calls are refused, default 64 MiB */
    unsigned ping_ms;            /* keep-alive ping of clients, default 2000; 0: none */
    unsigned ping_timeout_ms;    /* default 2000; of servers: a client's SETTINGS must come within five times this */
};
void hw_rpc_limits_default(struct hw_rpc_limits *l);

/* ---- server ---- */

/* A status text that begins so says that the call surely changed nothing, so that a client may make it again. */
#define HW_NOTHING_DONE "nothing was done: "

struct hw_rpc_server;
struct hw_call; /* server side */

struct hw_method {
    const char *path; /* "/etcdserverpb.KV/Put" */
    /* Unary and server-streaming: runs when the one request message is complete. NULL for a streaming request. */
    void (*on_unary)(void *ctx, struct hw_call *call, struct hw_slice message);
    /* Client-streaming and bidirectional; on_open is then needed, the others may be NULL: */
    void (*on_open)(void *ctx, struct hw_call *call);
    void (*on_message)(void *ctx, struct hw_call *call, struct hw_slice message);
    void (*on_half_close)(void *ctx, struct hw_call *call); /* the client sends no more */
    void *ctx;
};

int hw_rpc_server_new(struct hw_loop *loop, struct hw_metrics *metrics, const struct hw_rpc_limits *limits,
                      struct hw_rpc_server **server);
/* The table is copied; paths and functions must outlive the server. A path registered twice is a bug. */
void hw_rpc_server_add(struct hw_rpc_server *server, const struct hw_method *methods, size_t count);
/* Own a fresh connection whose first bytes (the HTTP/2 preface included) are unread. */
void hw_rpc_server_accept(struct hw_rpc_server *server, struct hw_stream *stream);
/* No new calls (GOAWAY), then on_closed once when all calls have ended or after grace_ms. */
void hw_rpc_server_shut(struct hw_rpc_server *server, uint64_t grace_ms, void (*on_closed)(void *ctx), void *ctx);
void hw_rpc_server_free(struct hw_rpc_server *server);
unsigned hw_rpc_server_connection_count(const struct hw_rpc_server *server);
/* Not yet sent bytes of all connections; walks them. */
size_t hw_rpc_server_queued(const struct hw_rpc_server *server);

/* A call lives from its handler until hw_call_end (or hw_call_reply). A handler may keep the pointer and answer later;
 * when the client goes away first, on_cancel runs (if set) and the call still wants its hw_call_end. */
void hw_call_set_data(struct hw_call *call, void *data);
void *hw_call_data(const struct hw_call *call);
void hw_call_on_cancel(struct hw_call *call, void (*on_cancel)(void *data, struct hw_call *call));
bool hw_call_is_cancelled(const struct hw_call *call);
/* Milliseconds left by grpc-timeout; UINT64_MAX without one. The server ends calls past it by itself
 * (DEADLINE_EXCEEDED) and runs on_cancel. */
uint64_t hw_call_time_left_ms(const struct hw_call *call);
const char *hw_call_path(const struct hw_call *call);
const char *hw_call_peer(const struct hw_call *call);
/* A request header (lower-case name), NULL when absent; valid while the call lives. */
const char *hw_call_header(const struct hw_call *call, const char *name);
/* Send one message; copies. HW_ERR_EXHAUSTED above the queue limit, HW_ERR_CANCELLED. */
int hw_call_send(struct hw_call *call, struct hw_slice message);
/* Bytes of this call not yet given to the connection, and when to go on: on_drain runs at the end of a turn in which
 * bytes of this call have left and no more than HW_STREAM_LOW remain, so a sender may stop at any size below that. */
size_t hw_call_queued(const struct hw_call *call);
void hw_call_on_drain(struct hw_call *call, void (*on_drain)(void *data, struct hw_call *call));
/* The same for all calls of this call's connection, which is what send_queue_bytes_max limits. */
size_t hw_call_connection_queued(const struct hw_call *call);
/* Calls of one connection have the same; for comparing only, valid while the call lives. */
const void *hw_call_connection(const struct hw_call *call);
/* End with a status; text may be NULL. The pointer is dead afterwards. */
void hw_call_end(struct hw_call *call, enum hw_grpc status, const char *text);
/* One message and OK; RESOURCE_EXHAUSTED when hw_call_send refuses it. */
void hw_call_reply(struct hw_call *call, struct hw_slice message);

/* ---- client ---- */

/* A channel is one multiplexed connection to one address. It connects on the first call, reconnects when needed with a
 * back-off (20 ms doubling to 1 s), and tells its owner about the connection's life. Calls issued while it is down wait
 * for the connection up to their deadline unless `fail_fast`. */
struct hw_channel;
struct hw_channel_ops {
    void (*on_up)(void *ctx);               /* may be NULL */
    void (*on_down)(void *ctx, int status); /* connection lost or refused; may be NULL */
};
/* limits NULL: the defaults (also of a server); ops NULL: none. */
int hw_channel_new(struct hw_loop *loop, struct hw_pool *resolver, const char *address,
                   const struct hw_rpc_limits *limits, const struct hw_channel_ops *ops, void *ctx,
                   struct hw_channel **channel);
/* Connect now and stay connected, reconnecting until free. */
void hw_channel_keep(struct hw_channel *channel);
bool hw_channel_is_up(const struct hw_channel *channel);
const char *hw_channel_address(const struct hw_channel *channel);
/* All calls end with HW_GRPC_CANCELLED in later turns; memory goes after the last. */
void hw_channel_free(struct hw_channel *channel);

struct hw_request;
struct hw_request_ops {
    void (*on_message)(struct hw_request *r, struct hw_slice message); /* borrowed */
    /* Exactly once, last. text is borrowed. */
    void (*on_end)(struct hw_request *r, enum hw_grpc status, const char *text);
    void (*on_drain)(struct hw_request *r); /* may be NULL */
};
/* The caller owns the struct and keeps it until on_end. */
struct hw_request {
    const struct hw_request_ops *ops;
    void *data;
    void *impl;
};
/* timeout_ms 0: none. Sends `first` (copied) at once; half_close for unary and server-streaming calls. Without
 * half_close a `first` whose data is NULL is no message.
 * headers: NULL or pairs {name, value, ..., NULL}. HW_ERR_EXHAUSTED when too many calls or bytes wait. */
int hw_request_start(struct hw_channel *channel, struct hw_request *r, const char *path, const char *const *headers,
                     uint64_t timeout_ms, bool fail_fast, struct hw_slice first, bool half_close);
int hw_request_send(struct hw_request *r, struct hw_slice message);
void hw_request_half_close(struct hw_request *r);
size_t hw_request_queued(const struct hw_request *r);
/* Hurries the end (HW_GRPC_CANCELLED); on_end still runs once, later. */
void hw_request_cancel(struct hw_request *r);

#endif
