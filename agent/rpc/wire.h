/* The gRPC parts of a call that are not HTTP/2: message framing, grpc-timeout, percent-encoded grpc-message, status
 * names. Pure: bytes in, values out. Private to agent/rpc.
 * Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
 */
#ifndef HW_RPC_WIRE_H
#define HW_RPC_WIRE_H

#include "agent/rpc/rpc.h"

#define HW_WIRE_PREFIX_BYTES 5

/* Takes messages out of a stream of DATA bytes. Zeroed is ready; the buffer is kept between messages. */
struct hw_wire_in {
    uint8_t prefix[HW_WIRE_PREFIX_BYTES];
    unsigned prefix_len;
    bool is_delivered;  /* the message in `body` was given out: the next call drops it */
    size_t want;        /* bytes of the message that has begun; the size that was refused after HW_ERR_TOOBIG */
    struct hw_buf body; /* of a message that came in pieces */
};

/* The next message of *data: 1 with *message set (borrowed: from the input, or from `in` until the next call), 0 when
 * the input is used up, negative when the stream can not go on: HW_ERR_TOOBIG (in->want says how big),
 * HW_ERR_UNIMPLEMENTED (compressed), HW_ERR_PROTOCOL (unknown flag), HW_ERR_NOMEM. */
int hw_wire_next(struct hw_wire_in *in, const uint8_t **data, size_t *len, size_t message_bytes_max,
                 struct hw_slice *message);
/* The message given out last is done with: a buffer above keep_bytes_max goes. */
void hw_wire_delivered(struct hw_wire_in *in, size_t keep_bytes_max);
/* A message has begun and is not complete. */
bool hw_wire_is_partial(const struct hw_wire_in *in);
/* Ready for another stream; a buffer above keep_bytes_max goes. */
void hw_wire_reset(struct hw_wire_in *in, size_t keep_bytes_max);
void hw_wire_prefix(uint8_t out[HW_WIRE_PREFIX_BYTES], size_t message_len);

/* "250m" -> 250 (rounded up to whole milliseconds); HW_ERR_INVALID. */
int hw_wire_timeout_parse(struct hw_slice text, uint64_t *ms);
#define HW_WIRE_TIMEOUT_SIZE 12
void hw_wire_timeout_format(uint64_t ms, char out[HW_WIRE_TIMEOUT_SIZE]);

/* Append; a text longer than HW_WIRE_TEXT_MAX is cut. */
#define HW_WIRE_TEXT_MAX 4096
void hw_wire_text_encode(const char *text, struct hw_buf *out);
/* Appends the text without a closing zero; what is not valid encoding stays as it is. */
void hw_wire_text_decode(struct hw_slice encoded, struct hw_buf *out);

#define HW_WIRE_STATUS_COUNT 17
/* "OK", "CANCELLED", ...; "UNKNOWN" beyond the list. */
const char *hw_wire_status_name(enum hw_grpc status);
/* "14" -> UNAVAILABLE; what is not a number of the list is UNKNOWN. */
enum hw_grpc hw_wire_status_parse(struct hw_slice text);
/* What an HTTP status without a grpc-status means. */
enum hw_grpc hw_wire_status_of_http(unsigned http_status);
/* What an HTTP/2 error code on a stream means. */
enum hw_grpc hw_wire_status_of_reset(uint32_t h2_error);

#endif
