/* One run of hwctl: where it reads and writes, its settings, its loop, its endpoints.
 *
 * hw_ctl_main parses, runs one command and says what went wrong, always in the form
 * 'hwctl: <what failed>: <why>. <next step>'. It returns the exit code. Tests call it with streams and a loop of their
 * own: servers on that loop are then answered while a command waits.
 *
 * The loop is made at the first need, so that help, parsing and reading stdin never touch it. Everything here is for
 * one thread, and blocks: hwctl is the one program of the project that may.
 */
#ifndef HW_CLI_APP_H
#define HW_CLI_APP_H

#include <stdio.h>

#include "agent/base/buf.h"
#include "agent/rpc/rpc.h"
#include "cli/command.h"
#include "cli/settings.h"

struct hw_ctl_env {
    FILE *in, *out, *err;
    bool in_is_tty, out_is_tty, err_is_tty;
    char *(*get_env)(const char *name);
    bool takes_signals;   /* Ctrl-C ends a wait; a second one ends the process */
    struct hw_loop *loop; /* NULL: one of its own */
};

struct hw_ctl_endpoint {
    const char *address;
    struct hw_channel *channel; /* NULL: not connected */
    bool is_settled;            /* the first answer of the connection came: up or down */
    int down_status;
    struct hw_ctl *ctl;
    uint64_t begun_mono_ms; /* when the connection was begun */
    bool is_left;           /* behind, by the command under way */
    struct hw_error why;    /* it was left */
};

struct hw_ctl {
    const struct hw_ctl_env *env;
    struct hw_ctl_settings settings;
    FILE *out; /* = env->out */
    struct hw_ctl_endpoint endpoints[HW_CTL_ENDPOINTS_MAX];
    unsigned endpoint_count;
    unsigned preferred; /* the endpoint that answered last */
    bool has_news;      /* a connection came up or went down since this was cleared */
    struct hw_loop *loop;
    struct hw_pool *resolver;
    struct hw_timer *alarm;
    struct hw_signal *interrupt;
    bool is_interrupted;
    bool is_pool_closed;
    char hint[320];       /* the next step; empty: the usual one for the code */
    struct hw_buf detail; /* lines under the error: each endpoint and its reason */
};

/* Exit codes beside those of hw_err_exit. */
#define HW_CTL_EXIT_DIFFERS 1
#define HW_CTL_EXIT_INTERRUPTED 130

int hw_ctl_main(const struct hw_ctl_env *env, int argc, const char *const *argv);

/* Make the loop, the resolver and the signal handler, once. */
int hw_ctl_start(struct hw_ctl *ctl, struct hw_error *e);

/* Turn the loop until *done: 0, HW_ERR_TIMEOUT after wait_ms, HW_ERR_CANCELLED at Ctrl-C. done may be NULL (sleep). */
int hw_ctl_wait(struct hw_ctl *ctl, const bool *done, uint64_t wait_ms);

/* The next step of the error line; the last one set stands. */
void hw_ctl_hint(struct hw_ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* One line of news on stderr, not with --quiet: "hwctl: ...". */
void hw_ctl_note(struct hw_ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The reader of stdout went away (head). */
bool hw_ctl_is_out_closed(const struct hw_ctl *ctl);
/* Does the command print JSON? */
bool hw_ctl_is_json(const struct hw_ctl *ctl);

/* All of a stream or a file, at most bytes_max. */
int hw_ctl_read_all(FILE *f, const char *name, size_t bytes_max, struct hw_buf *out, struct hw_error *e);

#endif
