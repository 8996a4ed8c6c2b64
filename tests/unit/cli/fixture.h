/* Runs hwctl in the test's process, against fake agents on the same loop.
 *
 *     struct fixture *fx = fixture_new();
 *     struct fake *a = fake_new(fx);
 *     fake_reply(a, "/etcdserverpb.KV/Put", &answer.base);
 *     CHECK_EQ(fixture_run(fx, "put", "k", "v", NULL), 0);
 *     CHECK(strstr(fx->out, "OK") != NULL);
 *     fixture_free(fx);
 *
 * --endpoints is added with all fakes, in the order of making, unless fx->endpoints says otherwise.
 */
#ifndef HW_TEST_CLI_FIXTURE_H
#define HW_TEST_CLI_FIXTURE_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

#include "agent/loop/loop.h"
#include "agent/rpc/rpc.h"
#include "cli/app.h"

#define FAKES_MAX 4
#define FAKE_ROUTES_MAX 24

struct fake;

struct fake_route {
    struct fake *fake;
    const char *path;
    bool is_silent;      /* never answers */
    enum hw_grpc status; /* not OK: the answer */
    const char *text;
    struct hw_buf reply;
    struct hw_buf request; /* the last one */
    unsigned calls;
    unsigned interrupts_after; /* raise SIGINT in this call */
    unsigned fail_calls;       /* the first n calls end with status, the others with the reply */
    void (*hook)(struct fake_route *route, struct hw_call *call, struct hw_slice message);
    void *hook_ctx;
};

struct fake {
    struct fixture *fx;
    struct hw_rpc_server *server;
    struct hw_listener *listener;
    struct fake_route routes[FAKE_ROUTES_MAX];
    struct hw_stream *mute[8]; /* connections that are taken and never read, when is_mute */
    unsigned mute_count;
    bool is_mute;
    bool is_closed;
};

struct fixture {
    struct hw_loop *loop;
    struct fake *fakes[FAKES_MAX];
    unsigned fake_count;
    const char *endpoints; /* NULL: all fakes; "": no flag */
    const char *input;     /* stdin */
    char *(*get_env)(const char *name);
    bool err_is_tty;
    bool takes_signals;
    char *out; /* of the last run */
    char *err;
    char address[FAKES_MAX * 64];
};

struct fixture *fixture_new(void);
void fixture_free(struct fixture *fx);
/* Words up to NULL; gives the exit code. */
int fixture_run(struct fixture *fx, ...) __attribute__((sentinel));
/* The output as JSON; the caller's to json_decref; NULL when it is none. */
json_t *fixture_json(const struct fixture *fx);

struct fake *fake_new(struct fixture *fx);
/* Takes connections and says nothing at all. */
struct fake *fake_new_mute(struct fixture *fx);
const char *fake_address(const struct fake *f);
struct fake_route *fake_route(struct fake *f, const char *path);
void fake_reply(struct fake *f, const char *path, const ProtobufCMessage *message);
void fake_refuse(struct fake *f, const char *path, enum hw_grpc status, const char *text);
/* Pack one message onto a call. */
void fake_send(struct hw_call *call, const ProtobufCMessage *message);

/* An address that nothing listens on. */
#define DEAD_ADDRESS "127.0.0.1:1"

#endif
