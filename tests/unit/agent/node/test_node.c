/* A whole node in this process: every way to start leaves nothing behind, and a folder that can be opened again. */
#include "agent/node/node.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/hw_test.h"

#define PATIENCE 1000
#define PAUSE_NS 20000000
#define PORT_MIN 10000
#define PORT_COUNT 20000

static struct hw_config config;
static const struct hw_node_options options;
static int client_port;

/* A listening socket on loopback; its port, which is below those that the kernel gives to outgoing connections. */
static int listen_somewhere(int *port)
{
    static int last;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = -1;
    last = last == 0 ? PORT_MIN + getpid() * 37 % PORT_COUNT : last;
    for (int i = 0; i < PORT_COUNT && rc != 0; i++) {
        struct sockaddr_in at = {.sin_family = AF_INET};
        last = PORT_MIN + (last - PORT_MIN + 1) % PORT_COUNT;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        at.sin_port = htons((uint16_t)last);
        rc = bind(fd, (struct sockaddr *)&at, sizeof at);
    }
    REQUIRE(rc == 0 && listen(fd, 1) == 0);
    *port = last;
    return fd;
}

static void configure(const char *data, const char *name, int client, int peer)
{
    struct hw_config_problems problems = {0};
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "format: 1\ncluster:\n  name: test\n  voters: 1\n  initial:\n"
                     "    - {name: %s, peer: \"127.0.0.1:%d\"}\n"
                     "node: {name: %s, data: %s}\nlisten: {client: \"127.0.0.1:%d\", peer: \"127.0.0.1:%d\"}\n",
                     name, peer, name, data, client, peer);
    REQUIRE(hw_config_parse("test", text, (size_t)n, &config, &problems) == 0);
    hw_config_problems_free(&problems);
}

static void pause_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
}

/* 200 from /hot: the node serves. */
static bool is_hot(void)
{
    static const char ask[] = "GET /hot HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)client_port)};
    char answer[16] = "";
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 && write(fd, ask, sizeof ask - 1) > 0 &&
        read(fd, answer, sizeof answer - 1) < 12) {
        answer[0] = '\0';
    }
    close(fd);
    return strncmp(answer, "HTTP/1.1 200", 12) == 0;
}

struct watcher {
    bool was_hot;
    atomic_bool has_ended; /* the node: nobody is there to take the signal */
};

static void *stop_when_hot(void *arg)
{
    struct watcher *w = arg;
    for (int i = 0; i < PATIENCE && !w->was_hot && !atomic_load(&w->has_ended); i++) {
        w->was_hot = is_hot();
        pause_a_little();
    }
    if (!atomic_load(&w->has_ended)) {
        kill(getpid(), SIGTERM);
    }
    return NULL;
}

static bool run_until_hot(void)
{
    pthread_t thread;
    struct watcher w = {0};
    REQUIRE(pthread_create(&thread, NULL, stop_when_hot, &w) == 0);
    CHECK_EQ(hw_node_run(&config, &options), 0);
    atomic_store(&w.has_ended, true);
    pthread_join(thread, NULL);
    return w.was_hot;
}

static void a_node_that_cannot_start_leaves_nothing_open(void)
{
    const char *data = hw_test_dir();
    int busy_port;
    int free_port;
    int busy = listen_somewhere(&busy_port);
    close(listen_somewhere(&free_port));
    configure(data, "n1", busy_port, free_port);
    CHECK_EQ(hw_node_run(&config, &options), HW_ERR_INUSE);
    configure(data, "n1", free_port, busy_port);
    CHECK_EQ(hw_node_run(&config, &options), HW_ERR_INUSE); /* the first port is free again, so is the folder */
    configure(data, "n2", free_port, free_port + 1);
    CHECK_EQ(hw_node_run(&config, &options), HW_ERR_FOREIGN);
    configure("/no/such/folder/at/all", "n1", free_port, free_port + 1);
    CHECK(hw_node_run(&config, &options) < 0);
    close(busy);
}

static void a_node_starts_stops_and_starts_again_in_one_process(void)
{
    const char *data = hw_test_dir();
    int peer_port;
    close(listen_somewhere(&client_port));
    close(listen_somewhere(&peer_port));
    configure(data, "n1", client_port, peer_port);
    CHECK(run_until_hot());
    CHECK(!is_hot()); /* its ports are closed */
    CHECK(run_until_hot());
}

HW_SUITE(node_life, HW_CASE(a_node_that_cannot_start_leaves_nothing_open),
         HW_CASE(a_node_starts_stops_and_starts_again_in_one_process))
