/* Which headers make a request malformed (RFC 9113 sections 8.1 to 8.3). Private to agent/rpc; pure.
 *
 * nghttp2 knows these rules but keeps them all or none, and one is too strict for the world: etcdctl 3.4 puts a URL
 * with its scheme into :authority (`endpoint status --cluster`), which etcd takes. So the server's side keeps them
 * here, and of :authority wants only what a header's value needs; nobody routes by it. Life cycle: zeroed for each
 * request.
 */
#ifndef HW_RPC_HEADER_RULES_H
#define HW_RPC_HEADER_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"

struct hw_header_rules {
    unsigned pseudo;         /* bits of those that were there */
    bool has_regular;        /* no pseudo header may follow */
    bool is_trailer;         /* the first block has ended */
    bool is_path_good;       /* it begins with '/', or is "*" */
    bool is_connect;         /* needs no path */
    bool has_content_length; /* then the body must have that length */
    uint64_t content_length;
    uint64_t body_bytes; /* counted by the caller */
};

/* 1: good; 0: to be ignored; -1: the request is malformed. */
int hw_header_rules_header(struct hw_header_rules *r, struct hw_slice name, struct hw_slice value);
/* A block of headers has ended. False: the request is malformed. */
bool hw_header_rules_block(struct hw_header_rules *r, bool end_stream);
/* The request has ended. False: the body has not the length that was announced. */
bool hw_header_rules_end(const struct hw_header_rules *r);

/* The characters that RFC 9113 8.2.1, RFC 9110 9 and RFC 3986 allow, as nghttp2 knows them; in session.c, which has its
 * header. */
bool hw_h2_is_header_name(struct hw_slice name);
bool hw_h2_is_header_value(struct hw_slice value);
bool hw_h2_is_method(struct hw_slice value);
bool hw_h2_is_path(struct hw_slice value);

#endif
