/* Synchronous calls: run the loop until one call has ended, and decide whether the next endpoint may be asked.
 *
 * Endpoints race (RFC 8305 does it with addresses): when one has not taken the connection after HW_CTL_RACE_MS the next
 * one is begun beside it, and the first good connection wins. "Good" is HTTP/2's first exchange, so that a process that
 * is stopped, for which the kernel takes connections, does not win.
 *
 * Rule of failing over: a read goes on to the next endpoint whenever one is dead, silent or answers UNAVAILABLE. A
 * write goes on only when it surely was not applied: no connection was made, or the node refused it as not hot before
 * it reached the log. Everything else ends with HW_ERR_UNKNOWN or the server's own error. Every endpoint that was left
 * behind is named on stderr with its reason; when all fail, the error lists them.
 */
#ifndef HW_CLI_CALL_H
#define HW_CLI_CALL_H

#include <protobuf-c/protobuf-c.h>

#include "cli/app.h"

/* Answers of ranges and queries may be large; what an agent sends is bounded there. */
#define HW_CTL_MESSAGE_BYTES_MAX (256u << 20)

/* A method and how it treats the state. */
struct hw_ctl_method {
    const char *path;
    const ProtobufCMessageDescriptor *response;
    bool is_write;
    bool skips_refusals; /* a read that one node may refuse (FAILED_PRECONDITION) and another may answer */
};

/* One unary call on the endpoints in order. On success *response is the caller's: protobuf_c_message_free_unpacked. */
int hw_ctl_unary(struct hw_ctl *ctl, const struct hw_ctl_method *method, const ProtobufCMessage *request,
                 ProtobufCMessage **response, struct hw_error *e);
/* The same on endpoint i alone. */
int hw_ctl_unary_at(struct hw_ctl *ctl, unsigned i, const struct hw_ctl_method *method, const ProtobufCMessage *request,
                    ProtobufCMessage **response, struct hw_error *e);

/* A server stream on endpoint i. on_message returns 0, or a negative code (e set) that ends the stream and is returned.
 * idle_ms: the longest time without a message. */
typedef int (*hw_ctl_message_fn)(void *ctx, struct hw_slice message, struct hw_error *e);
int hw_ctl_stream_at(struct hw_ctl *ctl, unsigned i, const char *path, const ProtobufCMessage *request,
                     uint64_t idle_ms, hw_ctl_message_fn on_message, void *ctx, struct hw_error *e);

/* How long an endpoint may stay silent before the next one is begun beside it. */
#define HW_CTL_RACE_MS 150

/* All endpoints take part again: the begin of a command, or of another round. */
void hw_ctl_race_again(struct hw_ctl *ctl);
/* The first of the endpoints that were not left which has a good connection, the preferred one first. HW_ERR_CANCELLED,
 * or HW_ERR_CONNECT when every one was left; their reasons are in `why`. */
int hw_ctl_race(struct hw_ctl *ctl, uint64_t wait_ms, unsigned *winner, struct hw_error *e);
/* Endpoint i takes no further part, for the reason e; its connection is closed. */
void hw_ctl_leave(struct hw_ctl *ctl, unsigned i, const struct hw_error *e);
/* The reasons of all that were left, as lines under the error. */
void hw_ctl_say_left(struct hw_ctl *ctl);

/* Make sure endpoint i has a connection, waiting at most wait_ms. */
int hw_ctl_connect(struct hw_ctl *ctl, unsigned i, uint64_t wait_ms, struct hw_error *e);
/* Close the connection of endpoint i, or of all. */
void hw_ctl_drop(struct hw_ctl *ctl, unsigned i);
void hw_ctl_disconnect(struct hw_ctl *ctl);

/* The nearest code of a gRPC status. */
int hw_ctl_code_of(enum hw_grpc status);

/* The rule above: may the next endpoint be asked after this one failed? text is the server's. */
bool hw_ctl_may_go_on(const struct hw_ctl_method *method, bool was_sent, int code, const char *text);

/* Pack a message; HW_ERR_NOMEM. The buffer is the caller's to free also on failure. */
int hw_ctl_pack(const ProtobufCMessage *m, struct hw_buf *out, struct hw_error *e);

#endif
