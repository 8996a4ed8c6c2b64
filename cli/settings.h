/* What hwctl works with on every command: endpoints, output form, deadline. A flag wins over the environment, that over
 * the configuration file, that over the default.
 *
 * The file (--config, else $XDG_CONFIG_HOME/hwctl/config, else ~/.config/hwctl/config) holds lines key=value:
 * endpoints=a:2379,b:2379 · output=table|json|plain · timeout_ms=5000. '#' begins a comment line. A file that was named
 * and is not there is an error; the default one may be absent.
 */
#ifndef HW_CLI_SETTINGS_H
#define HW_CLI_SETTINGS_H

#include "cli/command.h"

#define HW_CTL_ENDPOINTS_MAX 16
#define HW_CTL_ADDRESS_SIZE 280
#define HW_CTL_TIMEOUT_MS 5000
#define HW_CTL_TIMEOUT_MS_MAX 3600000
#define HW_CTL_PORT "2379"

enum hw_ctl_output { HW_CTL_TABLE, HW_CTL_JSON, HW_CTL_PLAIN };

struct hw_ctl_settings {
    char endpoints[HW_CTL_ENDPOINTS_MAX][HW_CTL_ADDRESS_SIZE];
    unsigned endpoint_count;
    enum hw_ctl_output output;
    uint64_t timeout_ms;
    bool is_quiet;
};

int hw_ctl_settings_load(const struct hw_ctl_args *args, char *(*get_env)(const char *name),
                         struct hw_ctl_settings *settings, struct hw_error *e);

/* Parse a list "a:2379,[::1]:2379,b": a missing port is 2379, a leading "http://" is dropped. */
int hw_ctl_settings_endpoints(struct hw_ctl_settings *settings, const char *list, struct hw_error *e);
/* Apply the text of a configuration file; `name` is for the error, which tells the line. */
int hw_ctl_settings_parse(struct hw_ctl_settings *settings, const char *name, const char *text, struct hw_error *e);

#endif
