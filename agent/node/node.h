/* The composition root: owns every part of an agent, starts and stops them in order, carries facts between siblings as
 * plain values. No logic of its own beyond that order.
 *
 *     data folder -> identity -> ports -> (formation | replica -> cluster) ... stop: hand over, ports, replica, folder
 */
#ifndef HW_NODE_NODE_H
#define HW_NODE_NODE_H

#include <stdbool.h>

#include "agent/config/config.h"

struct hw_node_options {
    const char *config_path; /* read again on SIGHUP; NULL: none */
};

/* Runs an agent until SIGTERM or SIGINT. Returns 0, or the code of the reason for which it ended, which has been
 * logged. Damaged files of a node that has peers are moved to quarantine/ and the node starts anew by itself. */
int hw_node_run(const struct hw_config *config, const struct hw_node_options *options);

#endif
