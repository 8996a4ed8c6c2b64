/* Private to agent/api: etcdserverpb.Watch/Watch, streams of watches.
 *
 *     watch.c        streams: what clients ask, and the ends          watch_send.c   what streams tell their clients
 *
 * A stream holds any number of watches, each with a watcher of the replica's. When more than watch_queue_bytes_max of a
 * stream wait for its client to read, its watchers are told that it is full; when it has read, they go on where they
 * were. A client that asks without reading is cut off. All streams end when the replica goes away.
 *
 * Semantics and texts: etcd's (server/etcdserver/api/v3rpc/watch.go), but for a watch that is refused because of a
 * filter or a limit, where etcd has no text. Loop thread only.
 */
#ifndef HW_API_WATCH_H
#define HW_API_WATCH_H

#include <uthash.h>

#include "agent/api/kv_encode.h"
#include "agent/replica/watch.h"
#include "agent/rpc/rpc.h"

struct hw_api;
struct hw_api_config;
struct hw_watch;

TAILQ_HEAD(hw_watch_list, hw_watch);
TAILQ_HEAD(hw_watch_stream_list, hw_watch_stream);

/* All streams of an api, and what is encoded once for many of them. */
struct hw_watches {
    struct hw_watch_stream_list streams;
    struct hw_watch_stream_list full;
    struct hw_watch_list notify; /* that want progress, the one told longest ago first */
    uint64_t hotless_since_ms;   /* 0: there is a hot node */
    struct hw_buf out;
    struct hw_buf header; /* of the batch with the id below */
    struct hw_buf events;
    uint64_t batch_id;
    bool has_previous;
};

struct hw_watch_stream {
    struct hw_api *api;
    struct hw_call *call;
    TAILQ_ENTRY(hw_watch_stream) link;
    TAILQ_ENTRY(hw_watch_stream) full_link;
    struct hw_watch *watches; /* uthash by id */
    int64_t next_id;
    struct hw_watch_list full; /* watches whose watcher said so */
    struct hw_defer end;       /* in a turn of its own: calls and watchers are not freed within their own callbacks */
    enum hw_grpc end_status;
    const char *end_text;
    bool is_full; /* in the list of those */
    bool is_ending;
    bool wants_hot; /* the client wants to go elsewhere when there is no hot node */
    bool is_progress_asked;
};

struct hw_watch {
    int64_t id;
    struct hw_watch_stream *stream;
    struct hw_watcher *watcher;
    UT_hash_handle hh;
    TAILQ_ENTRY(hw_watch) full_link;
    TAILQ_ENTRY(hw_watch) notify_link;
    uint64_t told_ms;
    bool is_full;
    bool prev_kv;
    bool is_fragmented;
    bool is_notified;
};

/* For the server. */
void hw_watch_open(void *api, struct hw_call *call);
void hw_watch_message(void *api, struct hw_call *call, struct hw_slice message);

void hw_watches_init(struct hw_api *api);
/* Defaults for what is 0. */
void hw_watches_configure(struct hw_api_config *config);
void hw_watches_tick(struct hw_api *api);
/* All streams, at once. */
void hw_watches_end(struct hw_api *api);
/* The memory. */
void hw_watches_close(struct hw_api *api);

/* watch.c, for watch_send.c: end in a later turn. text is a constant. */
void hw_watch_stream_end(struct hw_watch_stream *s, enum hw_grpc status, const char *text);
/* Forget a watch; its watcher is freed. */
void hw_watch_drop(struct hw_watch *w);

/* watch_send.c */
extern const struct hw_watcher_ops hw_watch_watcher_ops;
/* What is not an event: a stream that cannot take it is ended. */
struct hw_watch_news {
    int64_t id;
    bool is_created;
    bool is_canceled;
    hw_rev compact_revision;
    const char *reason; /* may be NULL */
};
void hw_watch_tell(struct hw_watch_stream *s, const struct hw_watch_news *news);
/* Answer a question for progress once all watches of the stream are up to date. */
void hw_watch_try_progress(struct hw_watch_stream *s);
void hw_watch_on_drain(void *stream, struct hw_call *call);
/* A full stream has room again: its watchers go on. */
void hw_watch_try_resume(struct hw_watch_stream *s);
void hw_watch_not_full(struct hw_watch_stream *s);

#endif
