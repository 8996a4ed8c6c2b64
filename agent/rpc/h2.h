/* One HTTP/2 connection that carries gRPC streams, for both sides: the only face of nghttp2 (session.c). Private to
 * agent/rpc; loop thread.
 *
 * A stream struct is embedded in the call of the server or of the client and is owned by it: from the time that it is
 * on the connection (on_open returned it, or hw_h2_request took it) until on_close, its memory must stay.
 * What is sent is framed into the stream's own buffer; at the end of the turn everything that flow control and the
 * socket allow leaves in one write. While the socket is behind (HW_STREAM_HIGH), bytes stay in the streams, where
 * hw_h2_queued shows them.
 *
 * Callbacks run while bytes are read, or at the end of a turn; they may call everything here. on_close runs once per
 * stream, on_end once per connection, last; its memory goes then.
 */
#ifndef HW_RPC_H2_H
#define HW_RPC_H2_H

#include "agent/rpc/header_rules.h"
#include "agent/rpc/rpc.h"
#include "agent/rpc/wire.h"

/* HTTP/2 error codes (RFC 9113 section 7) that we use ourselves. */
enum hw_h2_code {
    HW_H2_NO_ERROR = 0x0,
    HW_H2_PROTOCOL_ERROR = 0x1,
    HW_H2_INTERNAL_ERROR = 0x2,
    HW_H2_REFUSED_STREAM = 0x7,
    HW_H2_CANCEL = 0x8,
    HW_H2_ENHANCE_YOUR_CALM = 0xb
};
/* on_close: not a code of the wire, the connection has ended under the stream. */
#define HW_H2_CONNECTION_LOST UINT32_MAX

struct hw_h2;

struct hw_h2_stream {
    struct hw_h2 *h2; /* NULL before it is on a connection and after on_close */
    TAILQ_ENTRY(hw_h2_stream) link;
    TAILQ_ENTRY(hw_h2_stream) drain_link;
    int32_t id;
    bool has_moved;               /* bytes left in this turn; on the list of streams to tell */
    bool wants_drain;             /* on_drain is wanted */
    bool is_responded;            /* headers are out */
    bool is_deferred;             /* nghttp2 waits for more of us */
    bool is_done;                 /* nothing follows the queue */
    bool is_reset;                /* RST_STREAM is out or on its way */
    bool is_remote_closed;        /* the peer has sent END_STREAM */
    bool is_in_broken;            /* what still comes is dropped */
    bool is_malformed;            /* server: the request breaks HTTP/2's rules and was reset */
    struct hw_header_rules rules; /* server */
    enum hw_grpc status;          /* server: for the trailers */
    struct hw_buf text;           /* server: grpc-message, encoded */
    struct hw_wire_in in;
    size_t in_counted; /* bytes of `in` that the connection has counted */
    struct hw_buf out;
    size_t out_pos;
    size_t *account; /* the owner's count of queued bytes; never NULL after hw_h2_stream_init */
};

struct hw_h2_ops {
    /* Server: a new stream, or NULL to refuse it. */
    struct hw_h2_stream *(*on_open)(void *ctx);
    void (*on_header)(struct hw_h2_stream *s, struct hw_slice name, struct hw_slice value);
    /* A header block is complete; `end`: the peer sends nothing more (on_half_close does not follow). */
    void (*on_headers)(struct hw_h2_stream *s, bool end);
    void (*on_message)(struct hw_h2_stream *s, struct hw_slice message);
    /* The peer's messages can not be read any further. */
    void (*on_bad_message)(struct hw_h2_stream *s, enum hw_grpc status, const char *text);
    void (*on_half_close)(struct hw_h2_stream *s);
    void (*on_close)(struct hw_h2_stream *s, uint32_t h2_error);
    /* Bytes have left and not more than HW_STREAM_LOW remain. Only with wants_drain. */
    void (*on_drain)(struct hw_h2_stream *s);
    void (*on_up)(void *ctx);             /* the peer's SETTINGS are here */
    void (*on_goaway)(void *ctx);         /* the peer takes no new streams */
    void (*on_protocol_error)(void *ctx); /* counted; the connection or stream is on its way out */
    void (*on_end)(void *ctx, int status);
};

void hw_h2_stream_init(struct hw_h2_stream *s, size_t *account);
/* Ready for another use, memory kept within reason. Not while on a connection. */
void hw_h2_stream_reset(struct hw_h2_stream *s, size_t *account);
void hw_h2_stream_free(struct hw_h2_stream *s);

/* Owns the stream on success. */
int hw_h2_new(bool is_server, struct hw_stream *stream, const struct hw_rpc_limits *limits, const struct hw_h2_ops *ops,
              void *ctx, struct hw_h2 **h2);
const char *hw_h2_peer(const struct hw_h2 *h2);
/* Streams that the peer lets us have at once. */
unsigned hw_h2_streams_max(const struct hw_h2 *h2);
/* When bytes came last, on the loop's clock. */
uint64_t hw_h2_last_read_ms(const struct hw_h2 *h2);
/* fn does not take streams off the connection (nothing here does at once). */
void hw_h2_each_stream(struct hw_h2 *h2, void (*fn)(struct hw_h2_stream *s));
void hw_h2_ping(struct hw_h2 *h2);
/* Announce that no new streams are taken (GOAWAY); the connection ends when the last stream has. */
void hw_h2_shut(struct hw_h2 *h2);
/* GOAWAY with a code; the connection ends as soon as that is sent, or soon. */
void hw_h2_fail(struct hw_h2 *h2, enum hw_h2_code code);
/* Takes new streams: not failed, not ending, no GOAWAY in either direction. */
bool hw_h2_is_open(const struct hw_h2 *h2);
/* End at once; on_end comes in a later turn. */
void hw_h2_close(struct hw_h2 *h2);

/* Client: begin a stream. nv holds count pairs name, value as C strings that live until on_close; names in lower case.
 * What `out` holds follows. */
int hw_h2_request(struct hw_h2 *h2, struct hw_h2_stream *s, const char *const (*nv)[2], size_t count);
bool hw_h2_is_header_valid(const char *name, const char *value);
/* Queue one message (a stream may be filled before it is on a connection). HW_ERR_NOMEM, HW_ERR_TOOBIG. */
int hw_h2_send(struct hw_h2_stream *s, struct hw_slice message);
/* Client: no more messages. */
void hw_h2_half_close(struct hw_h2_stream *s);
/* Server: the status after the queue. */
void hw_h2_finish(struct hw_h2_stream *s, enum hw_grpc status, const char *text);
/* Server: answer with a bare HTTP status, e.g. 415. Nothing was sent before. */
void hw_h2_reject(struct hw_h2_stream *s, unsigned http_status);
/* RST_STREAM; the queue is dropped. */
void hw_h2_reset(struct hw_h2_stream *s, enum hw_h2_code code);
size_t hw_h2_queued(const struct hw_h2_stream *s);

#endif
