/* hwctl: the operator's command. See docs/hwctl.md. */
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/app.h"

int main(int argc, char **argv)
{
    struct hw_ctl_env env = {.in = stdin,
                             .out = stdout,
                             .err = stderr,
                             .out_is_tty = isatty(STDOUT_FILENO) == 1,
                             .err_is_tty = isatty(STDERR_FILENO) == 1,
                             .in_is_tty = isatty(STDIN_FILENO) == 1,
                             .get_env = getenv,
                             .takes_signals = true};
    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN); /* a closed pipe shows as EPIPE on stdout, and a closed socket must not kill us */
    return hw_ctl_main(&env, argc, (const char *const *)argv);
}
