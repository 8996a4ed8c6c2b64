/* help, completion: no cluster is needed. */
#include <stdio.h>
#include <string.h>

#include "cli/app.h"
#include "cli/help.h"
#include "cli/run.h"

HW_CTL_RUN(help)
{
    const char *first = hw_ctl_word(args, 0);
    const char *second = hw_ctl_word(args, 1);
    const struct hw_ctl_command *command;
    char name[80];
    if (hw_ctl_is_set(args, "reference")) {
        hw_ctl_help_reference(ctl->out);
        return 0;
    }
    if (first == NULL) {
        hw_ctl_help_overview(ctl->out);
        return 0;
    }
    snprintf(name, sizeof name, "%.32s%s%.32s", first, second != NULL ? " " : "", second != NULL ? second : "");
    command = hw_ctl_command_find(name);
    if (command == NULL && (second != NULL || !hw_ctl_is_group(first))) {
        const char *nearest = hw_ctl_suggest(name);
        return hw_error_set(e, HW_ERR_INVALID, "no command \"%s\"%s%s%s", name,
                            nearest != NULL ? "; did you mean \"" : "", nearest != NULL ? nearest : "",
                            nearest != NULL ? "\"?" : "");
    }
    hw_ctl_help_for(ctl->out, command, first);
    return 0;
}

HW_CTL_RUN(completion)
{
    (void)args;
    (void)e;
    hw_ctl_help_completion(ctl->out);
    return 0;
}
