#include "cli/app.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "cli/call.h"
#include "cli/help.h"

/* ---- loop ---- */

static void on_alarm(void *ctx)
{
    (void)ctx; /* only wakes the loop; hw_ctl_wait looks at the clock */
}

static void on_interrupt(void *ctx, int signum)
{
    struct hw_ctl *ctl = ctx;
    (void)signum;
    if (ctl->is_interrupted) {
        _exit(HW_CTL_EXIT_INTERRUPTED);
    }
    ctl->is_interrupted = true;
}

int hw_ctl_start(struct hw_ctl *ctl, struct hw_error *e)
{
    int rc;
    if (ctl->alarm != NULL) {
        return 0;
    }
    hw_log_configure("error"); /* what the layers below would log is said by hwctl's own error line */
    if (ctl->loop == NULL) {
        ctl->loop = ctl->env->loop;
    }
    if (ctl->loop == NULL) {
        rc = hw_loop_new(&ctl->loop, NULL, 0);
        if (rc != 0) {
            return hw_error_set(e, rc, "make the event loop: %s", hw_err_text(rc));
        }
    }
    if (ctl->resolver == NULL) {
        rc = hw_pool_new(ctl->loop, "resolver", 2, HW_CTL_ENDPOINTS_MAX * 8, &ctl->resolver, e);
        if (rc != 0) {
            return rc;
        }
    }
    ctl->alarm = hw_timer_new(ctl->loop, "hwctl", on_alarm, ctl);
    if (ctl->env->takes_signals) {
        ctl->interrupt = hw_signal_new(ctl->loop, SIGINT, on_interrupt, ctl);
    }
    return 0;
}

static void on_pool_closed(void *ctx)
{
    struct hw_ctl *ctl = ctx;
    ctl->is_pool_closed = true;
}

static void stop(struct hw_ctl *ctl)
{
    if (ctl->loop == NULL) {
        return;
    }
    hw_ctl_disconnect(ctl);
    hw_timer_free(ctl->alarm);
    if (ctl->interrupt != NULL) {
        hw_signal_free(ctl->interrupt);
    }
    if (ctl->resolver != NULL) {
        hw_pool_shut(ctl->resolver, on_pool_closed, ctl);
        while (!ctl->is_pool_closed) {
            hw_loop_turn(ctl->loop, true);
        }
    }
    if (ctl->env->loop == NULL) {
        hw_loop_run(ctl->loop); /* until the last handle is closed */
    } else {
        for (unsigned i = 0; i < 8; i++) {
            hw_loop_turn(ctl->loop, false);
        }
    }
    if (ctl->resolver != NULL) {
        hw_pool_free(ctl->resolver);
    }
    if (ctl->env->loop == NULL) {
        hw_loop_free(ctl->loop);
    }
}

int hw_ctl_wait(struct hw_ctl *ctl, const bool *done, uint64_t wait_ms)
{
    uint64_t deadline_ms = hw_mono_ms() + wait_ms;
    for (;;) {
        uint64_t now_ms = hw_mono_ms();
        if (done != NULL && *done) {
            hw_timer_stop(ctl->alarm);
            return 0;
        }
        if (ctl->is_interrupted || now_ms >= deadline_ms) {
            hw_timer_stop(ctl->alarm);
            return ctl->is_interrupted ? HW_ERR_CANCELLED : HW_ERR_TIMEOUT;
        }
        hw_timer_start(ctl->alarm, deadline_ms - now_ms, 0);
        hw_loop_turn(ctl->loop, true);
    }
}

/* ---- saying things ---- */

void hw_ctl_hint(struct hw_ctl *ctl, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(ctl->hint, sizeof ctl->hint, fmt, ap);
    va_end(ap);
}

void hw_ctl_note(struct hw_ctl *ctl, const char *fmt, ...)
{
    va_list ap;
    if (ctl->settings.is_quiet) {
        return;
    }
    fputs("hwctl: ", ctl->env->err);
    va_start(ap, fmt);
    vfprintf(ctl->env->err, fmt, ap);
    va_end(ap);
    fputc('\n', ctl->env->err);
}

bool hw_ctl_is_out_closed(const struct hw_ctl *ctl)
{
    return ferror(ctl->out) != 0;
}

bool hw_ctl_is_json(const struct hw_ctl *ctl)
{
    return ctl->settings.output == HW_CTL_JSON;
}

static const char *usual_hint(int code)
{
    switch (code) {
    case HW_ERR_INVALID:
    case HW_ERR_TOOBIG:
        return "Correct the command and run it again";
    case HW_ERR_NOTFOUND:
        return "Check the name";
    case HW_ERR_EXISTS:
    case HW_ERR_PRECONDITION:
    case HW_ERR_LOCKED:
        return "Change what is in the way, then run it again";
    case HW_ERR_DENIED:
        return "Run it as someone who may, or on an endpoint that allows it";
    case HW_ERR_EXHAUSTED:
    case HW_ERR_ABORTED:
        return "Wait a moment and run it again; 'hwctl status' shows what is under load";
    case HW_ERR_NOSPACE:
        return "Make room on the disk that is named, then run it again";
    case HW_ERR_COMPACTED:
    case HW_ERR_FUTURE:
        return "Ask for a revision that is still kept, or for the latest one";
    case HW_ERR_UNIMPLEMENTED:
        return "Compare 'hwctl version' of both sides";
    case HW_ERR_TIMEOUT:
        return "Look at 'hwctl status', or allow more time with --timeout MS";
    case HW_ERR_UNKNOWN:
        return "It may have been applied or not: read it back before you run it again";
    case HW_ERR_CANCELLED:
        return "Nothing more was done";
    case HW_ERR_CORRUPT:
        return "Keep the file for analysis and take another source";
    default:
        return "Look at 'hwctl status' and at the log of the agent";
    }
}

static void say_error(struct hw_ctl *ctl, const char *what, const struct hw_error *e)
{
    const char *why = hw_error_text(e);
    const char *hint = ctl->hint[0] != '\0' ? ctl->hint : usual_hint(e->code);
    size_t len = strlen(why);
    size_t hint_len = strlen(hint);
    const char *stop_mark = len > 0 && strchr(".?!", why[len - 1]) != NULL ? "" : ".";
    fflush(ctl->out);
    fprintf(ctl->env->err, "hwctl: %s%s%s%s %s%s\n", what, *what != '\0' ? ": " : "", why, stop_mark, hint,
            hint_len > 0 && strchr(".?!:", hint[hint_len - 1]) != NULL ? "" : ".");
    if (ctl->detail.len > 0) {
        fprintf(ctl->env->err, "%.*s", (int)ctl->detail.len, (const char *)ctl->detail.data);
    }
}

int hw_ctl_read_all(FILE *f, const char *name, size_t bytes_max, struct hw_buf *out, struct hw_error *e)
{
    uint8_t chunk[8192];
    for (;;) {
        size_t n;
        errno = 0;
        n = fread(chunk, 1, sizeof chunk, f);
        if (out->len + n > bytes_max) {
            return hw_error_set(e, HW_ERR_TOOBIG, "%s is longer than %zu bytes", name, bytes_max);
        }
        if (hw_buf_append(out, chunk, n) != 0) {
            return hw_error_set(e, HW_ERR_NOMEM, "read %s: out of memory", name);
        }
        if (n < sizeof chunk) {
            return ferror(f) != 0 ? hw_error_errno(e, errno != 0 ? errno : EIO, "read %s", name) : 0;
        }
    }
}

/* ---- running ---- */

/* The read end of a pipe or socket is closed. errno of the write that failed may be long gone, so ask the kernel. */
static bool is_reader_gone(FILE *f)
{
    struct pollfd p = {.fd = fileno(f), .events = POLLOUT};
    return p.fd >= 0 && poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP)) != 0;
}

/* What was written must have arrived; a reader that closed the pipe had enough and is no error. */
static int finish_output(struct hw_ctl *ctl, int exit_code)
{
    struct hw_error e = {0};
    int why;
    errno = 0;
    if (fflush(ctl->out) == 0 && ferror(ctl->out) == 0) {
        return exit_code;
    }
    why = errno;
    if (why == EPIPE || is_reader_gone(ctl->out)) {
        return exit_code;
    }
    hw_error_errno(&e, why != 0 ? why : EIO, "write the output");
    ctl->hint[0] = '\0';
    hw_buf_clear(&ctl->detail);
    say_error(ctl, "", &e);
    return hw_err_exit(e.code);
}

static int run_command(struct hw_ctl *ctl, const struct hw_ctl_args *args, struct hw_error *e)
{
    int rc = hw_ctl_settings_load(args, ctl->env->get_env, &ctl->settings, e);
    if (rc != 0) {
        hw_ctl_hint(ctl, "See 'hwctl help' for endpoints and the configuration file");
        return rc;
    }
    ctl->endpoint_count = ctl->settings.endpoint_count;
    for (unsigned i = 0; i < ctl->endpoint_count; i++) {
        ctl->endpoints[i].address = ctl->settings.endpoints[i];
    }
    return args->command->run(ctl, args, e);
}

static int exit_code_of(struct hw_ctl *ctl, const char *what, int rc, struct hw_error *e)
{
    if (rc >= 0) {
        return rc;
    }
    if (hw_ctl_is_out_closed(ctl)) {
        return 0; /* a pipe that closed cut the command short on purpose */
    }
    if (e->code == 0) {
        hw_error_set(e, rc, "%s", hw_err_text(rc));
    }
    say_error(ctl, what, e);
    return rc == HW_ERR_CANCELLED && ctl->is_interrupted ? HW_CTL_EXIT_INTERRUPTED : hw_err_exit(rc);
}

int hw_ctl_main(const struct hw_ctl_env *env, int argc, const char *const *argv)
{
    struct hw_ctl ctl = {.env = env, .out = env->out};
    struct hw_ctl_args args;
    struct hw_error e = {0};
    const char *what = "";
    int rc;
    if (argc < 2) {
        hw_ctl_help_overview(env->err);
        return hw_err_exit(HW_ERR_INVALID);
    }
    rc = hw_ctl_parse(argc, argv, &args, &e);
    if (rc != 0) {
        what = args.command != NULL ? args.command->name : "";
        hw_ctl_hint(&ctl, "See 'hwctl help%s%s'", args.command != NULL || args.group != NULL ? " " : "",
                    args.command != NULL ? args.command->name
                    : args.group != NULL ? args.group
                                         : "");
    } else if (args.is_help) {
        hw_ctl_help_for(env->out, args.command, args.group);
    } else {
        what = args.command->name;
        rc = run_command(&ctl, &args, &e);
    }
    rc = exit_code_of(&ctl, what, rc, &e);
    stop(&ctl);
    rc = finish_output(&ctl, rc);
    hw_buf_free(&ctl.detail);
    return rc;
}
