/* Links between machines, and the network half of a raft_io. */
#ifndef HW_SIM_NET_H
#define HW_SIM_NET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct sim;
struct server;

struct message;
struct sending;
TAILQ_HEAD(message_list, message);
TAILQ_HEAD(sending_list, sending);
struct link {
    bool is_cut;
    bool is_stalled;
    uint64_t last_ms; /* of the newest delivery: one connection keeps its order */
    struct message_list stalled;
};

void net_init(struct sim *s);
void net_close(struct sim *s);
void net_wrap(struct server *v);
void net_heal(struct sim *s);
void net_stall(struct sim *s, unsigned from, unsigned to, bool on);
/* The sender is gone: its callbacks run with RAFT_CANCELED. */
void net_cancel(struct server *v);
/* Every connection to this server breaks. */
void net_reset_to(struct sim *s, unsigned to);
bool net_is_connected(const struct sim *s, unsigned a, unsigned b);

#endif
