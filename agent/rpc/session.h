/* Inside of an HTTP/2 connection, shared by session.c (the connection, reading) and session_send.c (frames out). Only
 * these two include it, and with it nghttp2.
 */
#ifndef HW_RPC_SESSION_H
#define HW_RPC_SESSION_H

#include <nghttp2/nghttp2.h>

#include "agent/rpc/h2.h"

#define FRAME_BYTES_MAX (64u * 1024u)
/* Buffers above this size are not kept for the next message or stream. */
#define KEEP_BYTES_MAX (16u * 1024u)

struct hw_h2 {
    nghttp2_session *ng;
    struct hw_stream *stream;
    struct hw_loop *loop;
    const struct hw_h2_ops *ops;
    void *ctx;
    struct hw_rpc_limits limits;
    struct hw_defer flush;
    struct hw_buf out;        /* serialised frames of this turn */
    size_t out_reserve_bytes; /* what the last turn needed */
    TAILQ_HEAD(, hw_h2_stream) streams;
    TAILQ_HEAD(, hw_h2_stream) moved;
    size_t in_bytes; /* of unfinished messages */
    size_t stream_count;
    uint64_t last_read_ms;
    uint64_t control_ms; /* when control_tokens was right */
    uint64_t control_tokens;
    bool is_server;
    bool is_up;
    bool is_stalled;   /* the socket is behind: no frames are made until on_drain */
    bool has_goaway;   /* sent or received: look for the end of the connection */
    bool is_failed;    /* the peer's bytes are not read any more */
    bool is_finishing; /* the stream below is closing */
    bool is_closed;
    bool is_paused;  /* nghttp2 stopped making frames because `out` is long enough */
    bool is_counted; /* the error that ends the connection is in the metrics */
};

/* session.c */
/* Frames leave at the end of this turn. */
void hw_h2_post(struct hw_h2 *h2);
/* After each submit to nghttp2; posts. */
void hw_h2_check(struct hw_h2 *h2, int rc);

/* session_send.c */
void hw_h2_attach(struct hw_h2 *h2, struct hw_h2_stream *s, int32_t id);
void hw_h2_forget_moved(struct hw_h2 *h2, struct hw_h2_stream *s);
void hw_h2_on_flush(struct hw_defer *d);
int hw_h2_on_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *header, size_t len,
                       nghttp2_data_source *source, void *ctx);
ssize_t hw_h2_on_read_length(nghttp2_session *ng, uint8_t type, int32_t id, int32_t connection_window,
                             int32_t stream_window, uint32_t remote_frame_bytes_max, void *ctx);

#endif
