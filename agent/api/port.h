/* Private to agent/api: one listening port that several protocols share. The first bytes of a connection say which one
 * it speaks (section 3.4 of RFC 9113: an HTTP/2 client starts with "PRI * HTTP/2.0"); it is then handed on whole.
 *
 * A connection that says nothing for HW_SNIFF_MS, or something else, is closed; at most HW_SNIFFED_MAX are being looked
 * at, the oldest goes first. Loop thread.
 */
#ifndef HW_API_PORT_H
#define HW_API_PORT_H

#include <sys/queue.h>

#include "agent/loop/stream.h"

#define HW_SNIFF_MS 5000
#define HW_SNIFFED_MAX 1024
#define HW_SNIFF_BYTES 8

enum hw_sniff {
    HW_SNIFF_MORE, /* too little to tell */
    HW_SNIFF_RPC,
    HW_SNIFF_HTTP,
    HW_SNIFF_RAFT,
    HW_SNIFF_CLOSE /* none of ours */
};
/* What the first bytes are, on the client port or on the peer port. */
enum hw_sniff hw_sniff(const uint8_t *data, size_t len, bool is_peer);

struct hw_api;
struct hw_sniffer;

struct hw_port {
    struct hw_api *api;
    struct hw_listener *listener;
    bool is_peer;
    unsigned sniffer_count;
    TAILQ_HEAD(, hw_sniffer) sniffers; /* the oldest first */
};

int hw_port_open(struct hw_port *port, struct hw_api *api, const char *address, bool is_peer, struct hw_error *e);
/* No new connections; those being looked at are closed. Valid on a port that was never opened. */
void hw_port_close(struct hw_port *port);
void hw_port_tick(struct hw_port *port);

#endif
