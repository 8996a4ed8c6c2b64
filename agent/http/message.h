/* One HTTP/1.1 request taken from bytes: the only face of http_parser (message.c). Private to agent/http; pure.
 *
 * hw_http_message_feed is called until it says that the request is complete or broken; then the accessors hold until
 * hw_http_message_reset. What is refused carries an HTTP status and a sentence; the bytes after it are not to be read.
 */
#ifndef HW_HTTP_MESSAGE_H
#define HW_HTTP_MESSAGE_H

#include "agent/http/http.h"

struct http_parser;

struct hw_http_message {
    struct http_parser *parser;
    struct hw_http_limits limits;
    struct hw_buf target; /* as sent, zero-terminated when complete */
    struct hw_buf fields; /* name\0value\0..., names in lower case */
    struct hw_buf path;   /* decoded, zero-terminated */
    struct hw_buf query;  /* name\0value\0..., decoded */
    struct hw_buf body;
    size_t header_bytes;
    unsigned field_count;
    const char *method;
    bool is_in_value;
    bool has_begun; /* a byte of it has come */
    bool is_complete;
    bool is_head;
    bool keeps_alive;
    bool wants_continue; /* the client waits for "100 Continue" before its body: the reader clears it */
    int error_status;    /* 0, or the HTTP status of the refusal */
    const char *error_text;
};

int hw_http_message_init(struct hw_http_message *m, const struct hw_http_limits *limits);
void hw_http_message_free(struct hw_http_message *m);
/* Ready for the next request. */
void hw_http_message_reset(struct hw_http_message *m);
/* 1 complete, 0 wants more, HW_ERR_PROTOCOL refused. *used bytes were taken. */
int hw_http_message_feed(struct hw_http_message *m, const uint8_t *data, size_t len, size_t *used);
/* NULL when absent. */
const char *hw_http_message_field(const struct hw_http_message *m, const char *lower_case_name);
const char *hw_http_message_query(const struct hw_http_message *m, const char *name);
/* "Not Found" for 404. */
const char *hw_http_reason(int status);

#endif
