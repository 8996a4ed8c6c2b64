/* The cluster's status and node list as tables and JSON. */
#ifndef HW_CLI_STATUS_PRINT_H
#define HW_CLI_STATUS_PRINT_H

#include "cli/output.h"
#include "proto/hotwarm.pb-c.h"

/* A line on the cluster, then a table of its nodes. */
void hw_ctl_print_status(struct hw_ctl *ctl, const Hotwarm__V1__StatusResponse *r);
void hw_ctl_print_nodes(struct hw_ctl *ctl, const Hotwarm__V1__StatusResponse *r);
/* NULL: out of memory. */
json_t *hw_ctl_json_status(const Hotwarm__V1__StatusResponse *r);

#endif
