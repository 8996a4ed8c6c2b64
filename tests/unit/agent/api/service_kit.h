/* One node in the test's process, without its composition root: loop, services on free ports, and a replica that is its
 * whole cluster. Calls go over real sockets. */
#ifndef HW_TEST_SERVICE_KIT_H
#define HW_TEST_SERVICE_KIT_H

#include <protobuf-c/protobuf-c.h>

#include "agent/api/api.h"
#include "tests/unit/hw_test.h"

#define KIT_SLICE_KEYS 100
#define KIT_CHUNK_BYTES 4096

struct kit {
    struct hw_loop *loop;
    struct hw_pool *resolver;
    struct hw_metrics *metrics;
    struct hw_api *api;
    struct hw_replica *replica;
    struct hw_channel *client; /* to the client port */
    struct hw_channel *peer;   /* to the peer port */
    const char *data;
    const char *phase; /* what hello says */
    const char *problem;
    char asked[600]; /* what was heard of others' initial nodes */
    bool is_started;
    bool is_closed;
    unsigned forms;
};

void kit_open(struct kit *k, uint64_t rate_mb);
void kit_start_replica(struct kit *k); /* returns when it is hot */
void kit_close(struct kit *k);
void kit_turn_until(struct kit *k, bool (*is_so)(void *arg), void *arg);

/* A call: messages as they came, then the status. */
struct kit_call {
    struct hw_request request;
    struct hw_buf messages[512];
    size_t count;
    bool is_over;
    enum hw_grpc status;
    char text[512];
};
void kit_begin(struct hw_channel *channel, struct kit_call *c, const char *path, const ProtobufCMessage *message);
void kit_end(struct kit *k, struct kit_call *c); /* wait for its end */
void kit_free(struct kit_call *c);
/* One message there and one back; NULL unless OK. Free the answer with protobuf_c_message_free_unpacked. */
void *kit_ask(struct kit *k, struct hw_channel *channel, const char *path, const ProtobufCMessage *message,
              const ProtobufCMessageDescriptor *answer, struct kit_call *c);
/* Put a key; true when acknowledged. */
bool kit_put(struct kit *k, const char *key, const char *value);

#endif
