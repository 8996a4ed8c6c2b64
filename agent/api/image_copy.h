/* Private to agent/api: copies of the image that are being sent to somebody (image_stream.c).
 *
 * A copy is a file data/transfer/<token>.db at one applied index, made on the replica's worker. Streams that ask for
 * the same or an older index share it. It is kept for HW_COPY_KEEP_MS after its last use, so that a broken transfer can
 * go on where it stopped, and deleted then; what a crash leaves behind is deleted when the next replica starts. At most
 * HW_COPIES_MAX. Files are touched on the worker only. Loop thread.
 */
#ifndef HW_API_IMAGE_COPY_H
#define HW_API_IMAGE_COPY_H

#include "agent/replica/replica.h"
#include "storage/warm/image.h"

#define HW_COPIES_MAX 4
#define HW_COPY_KEEP_MS 60000
#define HW_COPY_PATH_MAX 4096
#define HW_IMAGE_STREAMS_MAX 64

struct hw_api;
struct hw_call;

enum hw_copy_state {
    HW_COPY_WAITING, /* for the image to reach the index */
    HW_COPY_COPYING,
    HW_COPY_READY,
    HW_COPY_FAILED
};

struct hw_copy {
    enum hw_copy_state state;
    uint64_t token;
    uint64_t wanted_index; /* the copy holds at least this, once ready */
    uint64_t size;
    uint64_t checksum; /* xxh3-64 of the file */
    int fd;
    struct hw_image_meta meta;
    struct hw_error e; /* why it failed */
    unsigned users;

    /* private */
    struct hw_api *api;
    char source[HW_COPY_PATH_MAX];
    char path[HW_COPY_PATH_MAX];
    uint64_t last_used_ms;
    bool is_listed;
    struct hw_image_wait wait;
    struct hw_job job;
    TAILQ_ENTRY(hw_copy) link;
};

struct hw_image_stream;

struct hw_images {
    TAILQ_HEAD(, hw_copy) copies;
    TAILQ_HEAD(, hw_image_stream) streams;
    unsigned stream_count;
};

void hw_images_init(struct hw_api *api);
/* A replica is there: delete what an earlier process left. */
void hw_images_open(struct hw_api *api);
/* The replica goes away: ends every stream, lets go of every copy. */
void hw_images_close(struct hw_api *api);
void hw_images_tick(struct hw_api *api);

/* The copy with this token, if it is ready and still there; takes a use of it. */
struct hw_copy *hw_copy_find(struct hw_api *api, uint64_t token);
/* A copy that holds at least `index` (0: what is applied now): one that is there already, or a new one. Takes a use.
 * HW_ERR_UNAVAILABLE when this node has not applied so much, HW_ERR_EXHAUSTED, HW_ERR_NOMEM. */
int hw_copy_take(struct hw_api *api, uint64_t index, struct hw_copy **copy, struct hw_error *e);
void hw_copy_release(struct hw_copy *copy);

/* image_stream.c: Admin/Snapshot and Peer/Image; ctx is the api. */
void hw_image_stream_serve(void *api, struct hw_call *call, struct hw_slice message);
/* The state of a copy changed. */
void hw_image_streams_poke(struct hw_api *api, struct hw_copy *copy);
void hw_image_streams_close(struct hw_api *api);

#endif
