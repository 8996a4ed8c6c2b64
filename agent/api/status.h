/* Private to agent/api: what a node says about itself, and what all of them say together. The same facts serve
 * hotwarm.v1's Status, the JSON of /v1/status and the peers' questions.
 */
#ifndef HW_API_STATUS_H
#define HW_API_STATUS_H

#include "agent/replica/replica.h"
#include "proto/hotwarm.pb-c.h"

struct hw_api;
struct hw_exchange;

#define HW_HEALTH_TEXT_MAX 800

/* A NodeStatus with the memory of its strings; do not copy it. */
struct hw_node_status {
    Hotwarm__V1__NodeStatus m;
    char name[HW_NODE_NAME_MAX];
    char health[HW_HEALTH_TEXT_MAX];
    char peer_address[HW_ADDRESS_MAX];
    char client_address[HW_ADDRESS_MAX];
};
/* This node, as of now; also without a replica. */
void hw_status_own(struct hw_api *api, struct hw_node_status *status);

/* Answer with this node only. */
void hw_status_answer_own(struct hw_exchange *x);

/* The cluster's part of the answer: name, id, hot node, epoch. hot_node has room for HW_NODE_NAME_MAX. */
void hw_status_cluster(struct hw_api *api, Hotwarm__V1__StatusResponse *m, char *hot_node);

/* Ask every member, at most HW_STATUS_TIMEOUT_MS long; those that do not answer are listed as "down". done runs once,
 * in a later turn; the message is valid within it. HW_ERR_NOMEM. Without a replica only this node is listed. */
#define HW_STATUS_TIMEOUT_MS 1000
int hw_status_collect(struct hw_api *api, void (*done)(void *arg, const Hotwarm__V1__StatusResponse *m), void *arg);

#endif
