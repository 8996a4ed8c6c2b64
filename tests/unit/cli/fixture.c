#include "tests/unit/cli/fixture.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "cli/call.h"
#include "tests/unit/hw_test.h"

static const char *const paths[] = {
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Maintenance/HashKV",
    "/grpc.health.v1.Health/Check",
    "/hotwarm.v1.Admin/Status",
    "/hotwarm.v1.Admin/NodeList",
    "/hotwarm.v1.Admin/NodeAdd",
    "/hotwarm.v1.Admin/NodeRemove",
    "/hotwarm.v1.Admin/Switchover",
    "/hotwarm.v1.Admin/History",
    "/hotwarm.v1.Admin/Snapshot",
    "/hotwarm.v1.Admin/Query",
    "/hotwarm.v1.Admin/Version",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
};

static char *no_env(const char *name)
{
    (void)name;
    return NULL;
}

/* ---- fake agents ---- */

static void on_cancel(void *data, struct hw_call *call)
{
    (void)data;
    hw_call_end(call, HW_GRPC_CANCELLED, NULL);
}

static void on_unary(void *ctx, struct hw_call *call, struct hw_slice message)
{
    struct fake_route *r = ctx;
    r->calls++;
    if (r->calls == r->interrupts_after) {
        raise(SIGINT);
    }
    hw_buf_clear(&r->request);
    hw_buf_append(&r->request, message.data, message.len);
    if (r->hook != NULL) {
        r->hook(r, call, message);
    } else if (r->is_silent) {
        hw_call_on_cancel(call, on_cancel);
    } else if (r->status != HW_GRPC_OK && (r->fail_calls == 0 || r->calls <= r->fail_calls)) {
        hw_call_end(call, r->status, r->text);
    } else {
        hw_call_reply(call, hw_buf_slice(&r->reply));
    }
}

static void mute_data(void *ctx, const uint8_t *data, size_t len)
{
    (void)ctx;
    (void)data;
    (void)len;
}

static void mute_end(void *ctx, int status)
{
    struct hw_stream **slot = ctx;
    (void)status;
    *slot = NULL;
}

static void on_accept(void *ctx, struct hw_stream *s)
{
    static const struct hw_stream_ops ops = {mute_data, mute_end, NULL};
    struct fake *f = ctx;
    if (!f->is_mute) {
        hw_rpc_server_accept(f->server, s);
        return;
    }
    if (f->mute_count == hw_array_len(f->mute)) {
        hw_stream_close(s);
        return;
    }
    f->mute[f->mute_count] = s;
    hw_stream_own(s, &ops, &f->mute[f->mute_count++]);
}

static struct fake *make_fake(struct fixture *fx, bool is_mute)
{
    struct fake *f = calloc(1, sizeof *f);
    struct hw_method methods[hw_array_len(paths)];
    struct hw_rpc_limits limits;
    struct hw_error e = {0};
    REQUIRE(f != NULL && fx->fake_count < FAKES_MAX);
    f->fx = fx;
    f->is_mute = is_mute;
    memset(methods, 0, sizeof methods);
    for (size_t i = 0; i < hw_array_len(paths); i++) {
        f->routes[i].fake = f;
        f->routes[i].path = paths[i];
        f->routes[i].status = HW_GRPC_UNIMPLEMENTED;
        methods[i] = (struct hw_method){.path = paths[i], .on_unary = on_unary, .ctx = &f->routes[i]};
    }
    hw_rpc_limits_default(&limits);
    REQUIRE(hw_rpc_server_new(fx->loop, NULL, &limits, &f->server) == 0);
    hw_rpc_server_add(f->server, methods, hw_array_len(paths));
    REQUIRE(hw_listener_new(fx->loop, "127.0.0.1:0", 64, on_accept, f, &f->listener, &e) == 0);
    fx->fakes[fx->fake_count++] = f;
    return f;
}

struct fake *fake_new(struct fixture *fx)
{
    return make_fake(fx, false);
}

struct fake *fake_new_mute(struct fixture *fx)
{
    return make_fake(fx, true);
}

const char *fake_address(const struct fake *f)
{
    return hw_listener_address(f->listener);
}

struct fake_route *fake_route(struct fake *f, const char *path)
{
    for (size_t i = 0; i < hw_array_len(paths); i++) {
        if (strcmp(paths[i], path) == 0) {
            return &f->routes[i];
        }
    }
    hw_unreachable();
}

void fake_reply(struct fake *f, const char *path, const ProtobufCMessage *message)
{
    struct fake_route *r = fake_route(f, path);
    hw_buf_clear(&r->reply);
    hw_assert(hw_ctl_pack(message, &r->reply, NULL) == 0);
    r->status = HW_GRPC_OK;
}

void fake_refuse(struct fake *f, const char *path, enum hw_grpc status, const char *text)
{
    struct fake_route *r = fake_route(f, path);
    r->status = status;
    r->text = text;
}

void fake_send(struct hw_call *call, const ProtobufCMessage *message)
{
    struct hw_buf packed = {0};
    hw_assert(hw_ctl_pack(message, &packed, NULL) == 0);
    hw_call_send(call, hw_buf_slice(&packed));
    hw_buf_free(&packed);
}

static void on_closed(void *ctx)
{
    struct fake *f = ctx;
    f->is_closed = true;
}

static void free_fake(struct fake *f)
{
    for (unsigned i = 0; i < f->mute_count; i++) {
        if (f->mute[i] != NULL) {
            hw_stream_close(f->mute[i]);
        }
    }
    hw_listener_free(f->listener);
    hw_rpc_server_shut(f->server, 0, on_closed, f);
    while (!f->is_closed) {
        hw_loop_turn(f->fx->loop, true);
    }
    for (unsigned i = 0; i < 4; i++) {
        hw_loop_turn(f->fx->loop, false);
    }
    hw_rpc_server_free(f->server);
    for (size_t i = 0; i < FAKE_ROUTES_MAX; i++) {
        hw_buf_free(&f->routes[i].reply);
        hw_buf_free(&f->routes[i].request);
    }
    free(f);
}

/* ---- runs ---- */

struct fixture *fixture_new(void)
{
    struct fixture *fx = calloc(1, sizeof *fx);
    REQUIRE(fx != NULL && hw_loop_new(&fx->loop, NULL, 0) == 0);
    fx->get_env = no_env;
    return fx;
}

void fixture_free(struct fixture *fx)
{
    for (unsigned i = 0; i < fx->fake_count; i++) {
        free_fake(fx->fakes[i]);
    }
    hw_loop_run(fx->loop);
    hw_loop_free(fx->loop);
    free(fx->out);
    free(fx->err);
    free(fx);
}

static const char *all_fakes(struct fixture *fx)
{
    fx->address[0] = '\0';
    for (unsigned i = 0; i < fx->fake_count; i++) {
        size_t used = strlen(fx->address);
        snprintf(fx->address + used, sizeof fx->address - used, "%s%s", i > 0 ? "," : "", fake_address(fx->fakes[i]));
    }
    return fx->address;
}

int fixture_run(struct fixture *fx, ...)
{
    const char *argv[32] = {"hwctl"};
    int argc = 1;
    const char *endpoints = fx->endpoints != NULL ? fx->endpoints : all_fakes(fx);
    size_t out_len, err_len;
    struct hw_ctl_env env = {
        .err_is_tty = fx->err_is_tty, .takes_signals = fx->takes_signals, .get_env = fx->get_env, .loop = fx->loop};
    va_list ap;
    int rc;
    if (*endpoints != '\0') {
        argv[argc++] = "--endpoints";
        argv[argc++] = endpoints;
    }
    va_start(ap, fx);
    for (const char *word = va_arg(ap, const char *); word != NULL && argc < 31; word = va_arg(ap, const char *)) {
        argv[argc++] = word;
    }
    va_end(ap);
    free(fx->out);
    free(fx->err);
    env.in = fx->input != NULL && *fx->input != '\0' ? fmemopen((char *)fx->input, strlen(fx->input), "r")
                                                     : fopen("/dev/null", "re");
    env.out = open_memstream(&fx->out, &out_len);
    env.err = open_memstream(&fx->err, &err_len);
    rc = hw_ctl_main(&env, argc, argv);
    fclose(env.in);
    fclose(env.out);
    fclose(env.err);
    return rc;
}

json_t *fixture_json(const struct fixture *fx)
{
    return json_loads(fx->out, 0, NULL);
}
