/* A gRPC server with a few methods, a client channel to it and raw sockets, all on one loop, for the rpc_* suites. */
#ifndef HW_TEST_RPC_RIG_H
#define HW_TEST_RPC_RIG_H

#include "agent/rpc/rpc.h"
#include "tests/unit/hw_test.h"

struct rpc_rig {
    struct hw_loop *loop;
    struct hw_pool *pool;
    struct hw_metrics *metrics;
    struct hw_rpc_limits limits;
    struct hw_listener *listener;
    struct hw_rpc_server *server;
    struct hw_channel *channel;
    struct hw_timer *tick;
    char address[64];
    int ups;
    int downs;
    int down_status;
    bool is_closed; /* on_closed of the server's shutdown */
    /* What the server's handlers saw. */
    struct hw_call *held; /* of Hold */
    int held_count;
    int cancels;
    bool ends_on_cancel;
    uint64_t time_left_ms;
    char seen_header[64];
    char seen_peer[64];
    size_t queued_max; /* of Count */
    int drains;
    size_t sunk_bytes;
};

/* Default limits when NULL. Starts the server and makes a channel to it. */
void rpc_rig_open(struct rpc_rig *rig, const struct hw_rpc_limits *limits);
void rpc_rig_close(struct rpc_rig *rig);
void rpc_rig_server_start(struct rpc_rig *rig, const char *address);
/* Shut with a grace, wait for it, free. */
void rpc_rig_server_stop(struct rpc_rig *rig, uint64_t grace_ms);
void rpc_rig_channel_start(struct rpc_rig *rig, const char *address);
void rpc_rig_turns(struct rpc_rig *rig, unsigned ms);
/* Turn the loop until the flag is set; false after ms. */
bool rpc_rig_until(struct rpc_rig *rig, const bool *flag, unsigned ms);
/* Until *value >= want. */
bool rpc_rig_until_count(struct rpc_rig *rig, const int *value, int want, unsigned ms);
/* The value of a sample in the rendered metrics; -1 when absent. */
double rpc_rig_metric(struct rpc_rig *rig, const char *sample);

/* A call of the client and what came of it. */
struct rpc_probe {
    struct hw_request r;
    bool is_done;
    int ends;
    enum hw_grpc status;
    char text[256];
    int messages;
    size_t bytes;
    struct hw_buf last;
    int drains;
};
int rpc_probe_start(struct rpc_probe *p, struct hw_channel *channel, const char *method, const char *message,
                    uint64_t timeout_ms);
extern const struct hw_request_ops rpc_probe_ops;
void rpc_probe_free(struct rpc_probe *p);

/* A raw client of the server. */
int rpc_raw_connect(const char *address);
void rpc_raw_send(int fd, const void *data, size_t len);
void rpc_raw_preface(int fd);
void rpc_raw_frame(int fd, uint8_t type, uint8_t flags, uint32_t id, const void *payload, size_t len);
/* HEADERS of a call; end_stream or not. */
void rpc_raw_headers(int fd, uint32_t id, const char *path, const char *extra_name, const char *extra_value,
                     bool end_stream);
/* Collects what the server sends, until it closes (true) or ms are over. */
bool rpc_raw_read(struct rpc_rig *rig, int fd, struct hw_buf *in, unsigned ms);
/* The first frame of a type in what was read: its payload, len SIZE_MAX when none. */
struct hw_slice rpc_raw_find(const struct hw_buf *in, uint8_t type, uint32_t id, unsigned *count);

#endif
