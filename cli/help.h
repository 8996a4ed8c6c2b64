/* Texts made from the command table: help, the reference page docs/hwctl.md, and bash completion. */
#ifndef HW_CLI_HELP_H
#define HW_CLI_HELP_H

#include <stdio.h>

#include "cli/command.h"

void hw_ctl_help_overview(FILE *out);
/* Help of a command, of a group ("node"), or the overview when both are NULL. */
void hw_ctl_help_for(FILE *out, const struct hw_ctl_command *command, const char *group);
void hw_ctl_help_reference(FILE *out);
void hw_ctl_help_completion(FILE *out);

#endif
