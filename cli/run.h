/* The functions of the command table (commands.c), one a command; each file of the name cmd_*.c holds a group. */
#ifndef HW_CLI_RUN_H
#define HW_CLI_RUN_H

#include "cli/command.h"

#define HW_CTL_RUN(name) int hw_ctl_run_##name(struct hw_ctl *ctl, const struct hw_ctl_args *args, struct hw_error *e)

HW_CTL_RUN(status);
HW_CTL_RUN(node_list);
HW_CTL_RUN(node_add);
HW_CTL_RUN(node_remove);
HW_CTL_RUN(switchover);
HW_CTL_RUN(history);
HW_CTL_RUN(recover);
HW_CTL_RUN(get);
HW_CTL_RUN(put);
HW_CTL_RUN(del);
HW_CTL_RUN(watch);
HW_CTL_RUN(txn);
HW_CTL_RUN(compact);
HW_CTL_RUN(lease_grant);
HW_CTL_RUN(lease_revoke);
HW_CTL_RUN(lease_keep_alive);
HW_CTL_RUN(lease_timetolive);
HW_CTL_RUN(lease_list);
HW_CTL_RUN(alarm_list);
HW_CTL_RUN(defrag);
HW_CTL_RUN(snapshot_save);
HW_CTL_RUN(snapshot_verify);
HW_CTL_RUN(sql);
HW_CTL_RUN(bench);
HW_CTL_RUN(hash);
HW_CTL_RUN(health);
HW_CTL_RUN(version);
HW_CTL_RUN(completion);
HW_CTL_RUN(help);

#endif
