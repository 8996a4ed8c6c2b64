/* sim --seeds N --first S [--steps K] [--verbose] [--canary NAME]: N runs from seed S on; see sim.h. Prints a line for
 * each run, the sentence of each violation, and what really happened. Exit 0 when every run passed and no kind of fault
 * was missing; with --canary, when a run found what was broken on purpose. */
#include "tests/sim/sim.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEPS_DEFAULT 30000
/* Fewer runs are a replay, not a proof: a kind of fault may well be missing. */
#define SEEDS_FOR_COVERAGE 50
/* Every so many runs are done twice, and must agree in every event. */
#define REPLAY_EVERY 50

static struct sim sim;
static const char *const canaries[] = {[CANARY_VOTE] = "vote",
                                       [CANARY_FSYNC] = "fsync",
                                       [CANARY_DURABLE] = "durable",
                                       [CANARY_ACK] = "ack",
                                       [CANARY_LEASE] = "lease"};

/* libraft leaks the entry of a membership change that it refuses. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:raft_add\nleak:raft_assign\nleak:raft_remove\n";
}

/* An assertion of the code under test ends the process: say which run it was. */
static void on_signal(int signum)
{
    char text[128];
    int n = snprintf(text, sizeof text, "sim: seed %" PRIu64 " ended by signal %d after %" PRIu64 " steps\n", sim.seed,
                     signum, sim.steps);
    if (write(STDOUT_FILENO, text, (size_t)n) < 0) {
        _exit(2);
    }
    signal(signum, SIG_DFL);
    raise(signum);
}

static void add(struct sim_stats *total, const struct sim_stats *one)
{
#define X(name, text, required) total->name += one->name;
    SIM_STATS(X)
#undef X
}

static unsigned print_totals(const struct sim_stats *total, bool is_complete)
{
    unsigned missing = 0;
#define X(name, text, required)                          \
    printf("  %10" PRIu64 " %s\n", total->name, text);   \
    if (is_complete && (required) && total->name == 0) { \
        printf("sim: it never happened: %s\n", text);    \
        missing++;                                       \
    }
    SIM_STATS(X)
#undef X
    return missing;
}

static bool run_one(uint64_t seed, const struct sim_options *options, bool twice, struct sim_stats *total)
{
    uint64_t trace;
    sim_run(&sim, seed, options);
    add(total, &sim.stats);
    printf("seed %" PRIu64 ": %s steps=%" PRIu64 " ms=%" PRIu64 " servers=%u voters=%u acked=%" PRIu64
           " elections=%" PRIu64 " crashes=%" PRIu64 " installs=%" PRIu64 " trace=%016" PRIx64 "\n",
           seed, sim.has_failed ? "FAILED" : "ok", sim.steps, sim.now_ms, sim.server_count, sim.voters_wanted,
           sim.stats.acked, sim.stats.elections, sim.stats.crashes, sim.stats.installs, sim.trace);
    if (sim.has_failed) {
        printf("seed %" PRIu64 ": %s\n", seed, sim.failure);
        return false;
    }
    trace = sim.trace;
    if (twice) {
        sim_run(&sim, seed, options);
        if (sim.trace != trace) {
            printf("seed %" PRIu64 ": FAILED: the second run took another course (%016" PRIx64 ")\n", seed, sim.trace);
            return false;
        }
    }
    return true;
}

static bool parse_canary(const char *name, struct sim_options *options)
{
    for (unsigned i = CANARY_NONE + 1; i < sizeof canaries / sizeof canaries[0]; i++) {
        if (strcmp(name, canaries[i]) == 0) {
            options->canary = (enum canary)i;
        }
    }
    return options->canary != CANARY_NONE;
}

static bool parse(int argc, char **argv, uint64_t *seeds, uint64_t *first, struct sim_options *options)
{
    for (int i = 1; i < argc; i++) {
        uint64_t *number = strcmp(argv[i], "--seeds") == 0   ? seeds
                           : strcmp(argv[i], "--first") == 0 ? first
                           : strcmp(argv[i], "--steps") == 0 ? &options->steps
                                                             : NULL;
        char *end = NULL;
        if (strcmp(argv[i], "--verbose") == 0) {
            options->is_verbose = true;
            continue;
        }
        if (strcmp(argv[i], "--canary") == 0 && i + 1 < argc && parse_canary(argv[i + 1], options)) {
            i++;
            continue;
        }
        if (number == NULL || i + 1 >= argc) {
            return false;
        }
        *number = strtoull(argv[++i], &end, 10);
        if (*end != '\0' || end == argv[i]) {
            return false;
        }
    }
    return *seeds > 0;
}

int main(int argc, char **argv)
{
    struct sim_options options = {.steps = STEPS_DEFAULT};
    struct sim_stats total = {0};
    uint64_t seeds = 100;
    uint64_t first = 1;
    uint64_t failed = 0;
    unsigned missing;
    if (!parse(argc, argv, &seeds, &first, &options)) {
        fprintf(stderr, "usage: sim [--seeds N] [--first S] [--steps K] [--verbose] "
                        "[--canary vote|fsync|durable|ack|lease]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
    if (!options.is_verbose) { /* what the code under test logs about faults is no news here */
        int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (fd >= 0 && getenv("SIM_LOG") == NULL) {
            dup2(fd, STDERR_FILENO);
        }
    }
    for (uint64_t i = 0; i < seeds; i++) {
        failed += !run_one(first + i, &options, i % REPLAY_EVERY == 0, &total);
        if (failed > 0 && options.canary != CANARY_NONE) {
            break;
        }
    }
    if (options.canary != CANARY_NONE) {
        printf("sim: canary %s %s\n", canaries[options.canary], failed > 0 ? "found" : "NOT FOUND");
        return failed > 0 ? 0 : 1;
    }
    missing = print_totals(&total, seeds >= SEEDS_FOR_COVERAGE);
    printf("sim: %" PRIu64 " passed, %" PRIu64 " failed; %" PRIu64 " elections, %" PRIu64 " crashes, %" PRIu64
           " partitions, %" PRIu64 " installs, %" PRIu64 " snapshots, %" PRIu64 " acked\n",
           seeds - failed, failed, total.elections, total.crashes, total.partitions + total.one_way + total.stalls,
           total.installs, total.snapshots, total.acked);
    return failed == 0 && missing == 0 ? 0 : 1;
}
