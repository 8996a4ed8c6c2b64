/* SIGHUP: the configuration is read again on a worker; what can be changed while running is, and what cannot is named.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/log.h"
#include "agent/node/node_impl.h"

struct hw_reload {
    struct hw_job job;
    struct hw_agent *agent;
    const char *path;
    struct hw_config fresh;
    struct hw_config_problems problems;
    int status;
};

static void reload_work(struct hw_job *job)
{
    struct hw_reload *r = hw_container_of(job, struct hw_reload, job);
    r->status = hw_config_load(r->path, &r->fresh, &r->problems);
}

/* One log line a problem: a line has a limit, and each names its place in the file. */
static void say_problems(const struct hw_reload *r)
{
    char *rest = (char *)r->problems.text.data;
    char *line;
    while (rest != NULL && (line = strsep(&rest, "\n")) != NULL) {
        if (line[0] != '\0') {
            hw_log_error(COMPONENT, "the new configuration is refused, the running one stays", "problem=%s",
                         hw_logq(line));
        }
    }
}

static void adopt(struct hw_agent *a, const struct hw_config *fresh)
{
    struct hw_buf reloadable;
    struct hw_buf restart;
    hw_buf_init(&reloadable);
    hw_buf_init(&restart);
    hw_config_diff(a->config, fresh, &reloadable, &restart);
    hw_buf_append(&reloadable, "", 1);
    hw_buf_append(&restart, "", 1);
    if (!reloadable.failed && !restart.failed) {
        memcpy(a->running.log.level, fresh->log.level, sizeof a->running.log.level);
        hw_log_configure(fresh->log.level);
        hw_log_info(COMPONENT, "configuration read again", "reloaded=%s needs_restart=%s",
                    hw_logq((const char *)reloadable.data), hw_logq((const char *)restart.data));
    }
    hw_buf_free(&reloadable);
    hw_buf_free(&restart);
}

static void reload_done(struct hw_job *job)
{
    struct hw_reload *r = hw_container_of(job, struct hw_reload, job);
    r->agent->reload = NULL;
    if (r->status != 0) {
        say_problems(r);
    } else {
        adopt(r->agent, &r->fresh);
    }
    hw_config_problems_free(&r->problems);
    if (r->agent->is_reload_wanted) {
        r->agent->is_reload_wanted = false;
        hw_agent_on_reload_signal(r->agent, SIGHUP);
    }
    free(r);
}

void hw_agent_on_reload_signal(void *ctx, int signum)
{
    struct hw_agent *a = ctx;
    struct hw_reload *r;
    (void)signum;
    if (a->is_stopping) {
        return;
    }
    if (a->options->config_path == NULL) {
        hw_log_warn(COMPONENT, "there is no configuration file to read again", "next=\"start with --config FILE\"");
        return;
    }
    if (a->reload != NULL) {
        a->is_reload_wanted = true; /* the one under way may have read the file before it changed */
        return;
    }
    r = calloc(1, sizeof *r);
    if (r == NULL) {
        return;
    }
    r->agent = a;
    r->path = a->options->config_path;
    r->job.work = reload_work;
    r->job.done = reload_done;
    if (hw_pool_submit(a->resolver, &r->job) == 0) {
        a->reload = r;
    } else {
        free(r);
    }
}
