/* hwagent: the command line. */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/config/config.h"
#include "agent/node/node.h"

static const char usage[] =
    "hwagent: keeps a service's state alive when a node dies\n"
    "\n"
    "  hwagent --config FILE         run a node (docs/config.md lists every key)\n"
    "  hwagent --dev [--data DIR]    one node on loopback without a configuration; a temporary folder, or DIR\n"
    "\n"
    "  --check-config                read the configuration, print every problem, do not run\n"
    "  --print-config                print the configuration in effect, do not run\n"
    "  --config-reference            print the reference page of all keys (Markdown)\n"
    "  --version                     print the version\n"
    "  --help                        this text\n"
    "\n"
    "Environment variables override the file: HOTWARM_ and the key, e.g. HOTWARM_LISTEN_CLIENT=127.0.0.1:2379.\n"
    "Signals: SIGTERM and SIGINT stop cleanly (the hot tier is handed over first), SIGHUP reads the configuration "
    "again.\n"
    "Exit codes: 0 stopped cleanly, 2 bad command line or configuration,\n"
    "4 removed from the cluster, 6 no space, 7 data folder or disk, 70 bug.\n";

struct arguments {
    const char *config;
    const char *data;
    bool is_dev;
    bool is_check;
    bool is_print;
};

static int print_reference(void)
{
    struct hw_buf out;
    hw_buf_init(&out);
    hw_config_reference(&out);
    fwrite(out.data, 1, out.len, stdout);
    hw_buf_free(&out);
    return 0;
}

/* Fills what --dev leaves open; an environment variable wins over it. Returns the temporary folder to remove, or NULL.
 */
static char *prepare_dev(struct arguments *args)
{
    char *made = NULL;
    setenv("HOTWARM_CLUSTER_NAME", "dev", 0);
    setenv("HOTWARM_NODE_NAME", "dev", 0);
    if (args->data == NULL && getenv("HOTWARM_NODE_DATA") == NULL) {
        const char *base = getenv("TMPDIR");
        if (asprintf(&made, "%s/hotwarm-dev-XXXXXX", base != NULL ? base : "/tmp") < 0 || mkdtemp(made) == NULL) {
            perror("hwagent: temporary folder");
            exit(7);
        }
        args->data = made;
    }
    if (args->data != NULL) {
        setenv("HOTWARM_NODE_DATA", args->data, 1);
    }
    return made;
}

static void be_alone(struct hw_config *c)
{
    if (c->members.initial_count == 0 && c->members.join_count == 0) {
        c->members.initial_count = 1;
        snprintf(c->members.initial[0].name, sizeof c->members.initial[0].name, "%s", c->node.name);
        snprintf(c->members.initial[0].peer, sizeof c->members.initial[0].peer, "%s", c->advertise.peer);
        c->members.voters = 1;
    }
}

static void remove_folder(const char *path)
{
    pid_t child = fork();
    if (child == 0) {
        execlp("rm", "rm", "-rf", "--", path, (char *)NULL);
        _exit(127);
    }
    if (child > 0) {
        int status;
        waitpid(child, &status, 0);
    }
}

/* Files besides connections: libraft's segments, the image, peers, pipes. */
#define FILES_RESERVE 256u

/* Without files libraft could not write, so connections may not take them all: as many files as the system lets us
 * have, and no more connections than that carries. */
static void make_room_for_files(struct hw_config *config)
{
    struct rlimit files;
    uint64_t room;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) {
        return;
    }
    if (files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
        getrlimit(RLIMIT_NOFILE, &files);
    }
    room = files.rlim_cur > 2 * FILES_RESERVE ? (files.rlim_cur - FILES_RESERVE) / 2 : FILES_RESERVE / 2;
    if (config->limits.connections_max > room) { /* of each of the two ports */
        hw_log_warn("node", "fewer connections than configured: the limit of open files is too low (ulimit -n)",
                    "open_files=%" PRIu64 " configured=%" PRIu64 " connections_max=%" PRIu64, (uint64_t)files.rlim_cur,
                    (uint64_t)config->limits.connections_max, room);
        config->limits.connections_max = room;
    }
}

static int parse(int argc, char **argv, struct arguments *args)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"dev", no_argument, NULL, 'd'},
                                            {"data", required_argument, NULL, 'D'},
                                            {"check-config", no_argument, NULL, 'k'},
                                            {"print-config", no_argument, NULL, 'p'},
                                            {"config-reference", no_argument, NULL, 'r'},
                                            {"version", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int o;
    while ((o = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (o) {
        case 'c':
            args->config = optarg;
            break;
        case 'd':
            args->is_dev = true;
            break;
        case 'D':
            args->data = optarg;
            break;
        case 'k':
            args->is_check = true;
            break;
        case 'p':
            args->is_print = true;
            break;
        case 'r':
            exit(print_reference());
        case 'v':
            printf("hwagent %s\n", HW_VERSION);
            exit(0);
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            fputs("hwagent: see hwagent --help\n", stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "hwagent: unexpected argument '%s'; see hwagent --help\n", argv[optind]);
        return 2;
    }
    if (args->is_dev == (args->config != NULL)) {
        fputs("hwagent: give either --config FILE or --dev; see hwagent --help\n", stderr);
        return 2;
    }
    if (args->data != NULL && !args->is_dev) {
        fputs("hwagent: --data belongs to --dev; with --config the folder is the key node.data\n", stderr);
        return 2;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct hw_config config;
    struct arguments args = {0};
    struct hw_config_problems problems = {0};
    struct hw_node_options options = {0};
    char *temporary = NULL;
    int rc = parse(argc, argv, &args);
    if (rc != 0) {
        return rc;
    }
    signal(SIGPIPE, SIG_IGN);
    if (args.is_dev) {
        temporary = prepare_dev(&args);
    }
    rc = hw_config_load(args.config, &config, &problems);
    if (rc != 0) {
        fprintf(stderr, "hwagent: the configuration has %zu problem%s:\n%s\n", problems.count,
                problems.count == 1 ? "" : "s", (const char *)problems.text.data);
        rc = 2;
        goto out;
    }
    if (args.is_dev) {
        be_alone(&config);
    }
    if (args.is_print) {
        struct hw_buf out;
        hw_buf_init(&out);
        hw_config_print(&config, &out);
        fwrite(out.data, 1, out.len, stdout);
        hw_buf_free(&out);
    }
    if (args.is_check) {
        printf("%s: good\n", args.config != NULL ? args.config : "--dev");
    }
    if (!args.is_check && !args.is_print) {
        options.config_path = args.config;
        hw_log_configure(config.log.level);
        make_room_for_files(&config);
        rc = hw_err_exit(hw_node_run(&config, &options));
    }
out:
    hw_config_problems_free(&problems);
    if (temporary != NULL) {
        remove_folder(temporary);
        free(temporary);
    }
    return rc;
}
