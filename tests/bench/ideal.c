/* ideal leader   --listen PORT --followers PORT,PORT --file PATH [--file-mb 64] [--keys 100000]
 * ideal follower --listen PORT --file PATH [--file-mb 64]
 * See ideal.h. Listens on 127.0.0.1 only, prints "ready", ends with its parent or with its leader. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/ideal.h"
#include "tests/bench/ideal_log.h"

#define MB (1024u * 1024u)

int ideal_listen(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 128) != 0) {
        ideal_die("listen");
    }
    return fd;
}

void ideal_set_nodelay(int fd)
{
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) {
        ideal_die("set TCP_NODELAY");
    }
}

void ideal_say_ready(void)
{
    puts("ready");
    fflush(stdout);
}

/* ---- follower: what comes from the leader goes to the ring, the writer answers ---- */

static void send_position(void *ctx, uint64_t written)
{
    const uint8_t *at = (const uint8_t *)&written;
    size_t left = sizeof written;
    while (left > 0) {
        ssize_t n = send(*(int *)ctx, at, left, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            _exit(0); /* the leader has gone */
        }
        at += n;
        left -= (size_t)n;
    }
}

static void follow(const struct ideal_options *o)
{
    static struct ideal_log log;
    static int leader = -1;
    int listener = ideal_listen(o->listen_port);
    uint64_t end = 0;
    ideal_log_open(&log, o->file, o->file_bytes, send_position, &leader);
    ideal_say_ready();
    leader = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (leader < 0) {
        ideal_die("accept the leader");
    }
    close(listener);
    ideal_set_nodelay(leader);
    for (;;) {
        uint64_t start = end % IDEAL_RING_BYTES;
        uint64_t room;
        ssize_t n;
        if (end - ideal_log_written(&log) == IDEAL_RING_BYTES) {
            ideal_log_wait(&log, end - IDEAL_RING_BYTES / 2);
        }
        room = IDEAL_RING_BYTES - (end - ideal_log_written(&log));
        room = room < IDEAL_RING_BYTES - start ? room : IDEAL_RING_BYTES - start;
        n = recv(leader, log.ring + start, room, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            _exit(0);
        }
        end += (uint64_t)n;
        ideal_log_publish(&log, end);
    }
}

/* ---- arguments ---- */

/* A whole number in [low, high], or 0. */
static uint64_t number(const char *text, uint64_t low, uint64_t high, char **rest)
{
    uint64_t v = strtoull(text, rest, 10);
    return *rest != text && v >= low && v <= high ? v : 0;
}

static int parse(int argc, char **argv, struct ideal_options *o)
{
    static const struct option longs[] = {{"listen", 1, NULL, 'l'}, {"followers", 1, NULL, 'f'},
                                          {"file", 1, NULL, 'p'},   {"file-mb", 1, NULL, 'm'},
                                          {"keys", 1, NULL, 'k'},   {NULL, 0, NULL, 0}};
    char *rest = NULL;
    int c;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'l':
            o->listen_port = (uint16_t)number(optarg, 1, 65535, &rest);
            break;
        case 'f':
            o->follower_ports[0] = (uint16_t)number(optarg, 1, 65535, &rest);
            o->follower_ports[1] = *rest == ',' ? (uint16_t)number(rest + 1, 1, 65535, &rest) : 0;
            break;
        case 'p':
            o->file = optarg;
            break;
        case 'm':
            o->file_bytes = number(optarg, 1, 4096, &rest) * MB;
            break;
        case 'k':
            o->slot_count = (uint32_t)number(optarg, 1, 10000000, &rest);
            break;
        default:
            return -1;
        }
    }
    return optind == argc && o->listen_port != 0 && o->file != NULL && o->file_bytes != 0 && o->slot_count != 0 ? 0
                                                                                                                : -1;
}

int main(int argc, char **argv)
{
    struct ideal_options o = {.file_bytes = 64u * MB, .slot_count = 100000};
    int is_leader = argc > 1 && strcmp(argv[1], "leader") == 0;
    int is_follower = argc > 1 && strcmp(argv[1], "follower") == 0;
    if ((!is_leader && !is_follower) || parse(argc - 1, argv + 1, &o) != 0 ||
        (is_leader && (o.follower_ports[0] == 0 || o.follower_ports[1] == 0))) {
        fputs("usage: ideal leader --listen PORT --followers PORT,PORT --file PATH [--file-mb N] [--keys N]\n"
              "       ideal follower --listen PORT --file PATH [--file-mb N]\n",
              stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (is_leader) {
        ideal_leader_run(&o);
    }
    follow(&o);
    return 0;
}
