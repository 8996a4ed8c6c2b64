/* Admin/Query: one read-only SQL statement on this node's image, brought up to date first. It runs on the replica's
 * worker with a handle of its own, so it sees the image as of its start and holds nobody up. The answer names the
 * revision that it reflects. */
#include <string.h>
#include <stdlib.h>

#include "agent/api/api_impl.h"
#include "agent/base/assert.h"
#include "agent/api/protowire.h"
#include "proto/hotwarm.pb-c.h"
#include "storage/warm/image.h"

#define ROWS_DEFAULT 10000
#define ROWS_MAX 1000000
#define ANSWER_MAX ((size_t)16 * 1024 * 1024)
#define QUERY_TIMEOUT_MS 10000
#define QUERIES_MAX 8

/* Field numbers of QueryResponse, QueryRow and QueryValue, proto/hotwarm.proto. */
enum { COLUMNS = 1, ROWS = 2, MORE = 3, REVISION = 4, IMAGE_INDEX = 5, NODE = 6 };
enum { ROW_VALUES = 1 };
enum { VALUE_IS_NULL = 1, VALUE_TEXT = 2 };

struct query {
    struct hw_exchange *x;
    struct hw_job job;
    struct hw_image_wait wait;
    char path[4096];
    char *sql;
    size_t rows_max;
    /* the worker's */
    struct hw_buf answer;
    bool has_columns;
    bool more;
    struct hw_image_meta meta;
    int status;
    struct hw_error e;
};

/* ---- on the worker ---- */

static size_t value_size(const char *value)
{
    return value == NULL ? 2 : hw_pb_bytes_size(strlen(value));
}

static int on_row(void *ctx, int column_count, const char *const *names, const char *const *values)
{
    struct query *q = ctx;
    size_t size = 0;
    for (int i = 0; i < column_count && !q->has_columns; i++) {
        struct hw_slice name = hw_slice_str(names[i]);
        hw_pb_begin_message(&q->answer, COLUMNS, name.len); /* an empty name still is one */
        hw_buf_append(&q->answer, name.data, name.len);
    }
    q->has_columns = true;
    for (int i = 0; i < column_count; i++) {
        size += hw_pb_message_size(value_size(values[i]));
    }
    if (q->answer.len + size > ANSWER_MAX) {
        q->more = true;
        return HW_ERR_EXHAUSTED;
    }
    hw_pb_begin_message(&q->answer, ROWS, size);
    for (int i = 0; i < column_count; i++) {
        hw_pb_begin_message(&q->answer, ROW_VALUES, value_size(values[i]));
        if (values[i] == NULL) {
            hw_pb_put_uint(&q->answer, VALUE_IS_NULL, 1);
        } else {
            hw_pb_put_bytes(&q->answer, VALUE_TEXT, hw_slice_str(values[i]));
        }
    }
    return q->answer.failed ? HW_ERR_NOMEM : 0;
}

static void query_work(struct hw_job *job)
{
    struct query *q = hw_container_of(job, struct query, job);
    struct hw_image *image = NULL;
    q->status = hw_image_open_readonly(q->path, &image, &q->e);
    if (q->status == 0) {
        q->status = hw_image_read_meta(image, &q->meta, &q->e);
    }
    if (q->status == 0) {
        q->status = hw_image_query(image, q->sql, q->rows_max, QUERY_TIMEOUT_MS, on_row, q, &q->e);
    }
    if (q->status == HW_ERR_EXHAUSTED) {
        q->more = true; /* what fitted is an answer */
        q->status = 0;
    }
    hw_image_close(image);
}

/* ---- on the loop ---- */

static void query_free(struct query *q)
{
    q->x->api->queries--;
    hw_buf_free(&q->answer);
    free(q->sql);
    free(q);
}

static void query_done(struct hw_job *job)
{
    struct query *q = hw_container_of(job, struct query, job);
    struct hw_exchange *x = q->x;
    struct hw_buf answer = q->answer;
    if (q->status != 0) {
        struct hw_error e = q->e;
        int status = q->status;
        query_free(q);
        hw_admin_fail(x, status, &e);
        return;
    }
    hw_pb_put_uint(&answer, MORE, q->more);
    hw_pb_put_uint(&answer, REVISION, (uint64_t)q->meta.counters.revision);
    hw_pb_put_uint(&answer, IMAGE_INDEX, q->meta.counters.applied);
    hw_pb_put_bytes(&answer, NODE, hw_slice_str(x->api->config.node_name));
    hw_buf_init(&q->answer);
    query_free(q);
    hw_exchange_ok_out(x, &answer);
    hw_buf_free(&answer);
}

static struct query *query_new(struct hw_exchange *x, const Hotwarm__V1__QueryRequest *m)
{
    struct query *q = calloc(1, sizeof *q);
    if (q == NULL) {
        return NULL;
    }
    q->sql = strdup(m->sql);
    if (q->sql == NULL) {
        free(q);
        return NULL;
    }
    q->x = x;
    q->rows_max = m->rows_max == 0 ? ROWS_DEFAULT : m->rows_max > ROWS_MAX ? ROWS_MAX : (size_t)m->rows_max;
    strncpy(q->path, hw_replica_image_path(x->api->replica), sizeof q->path - 1);
    q->job.work = query_work;
    q->job.done = query_done;
    x->api->queries++;
    return q;
}

static void query_submit(struct query *q)
{
    struct hw_exchange *x = q->x;
    int rc = hw_pool_submit(hw_replica_pool(x->api->replica), &q->job);
    if (rc != 0) {
        query_free(q);
        hw_exchange_refuse(x, hw_refusal_of_status(rc));
    }
}

static void on_image_ready(struct hw_image_wait *w, int status)
{
    struct query *q = hw_container_of(w, struct query, wait);
    struct hw_exchange *x = q->x;
    if (status == 0) {
        query_submit(q);
        return;
    }
    query_free(q);
    hw_exchange_refuse(x, hw_refusal_of_status(status));
}

/* Who asks right after writing wants to see it, so the image is brought up to what is applied here first. A disk that
 * takes no checkpoint does not hold queries up: they see the image as it is, and the answer says how old that is. */
static int query_start(struct query *q)
{
    struct hw_replica *replica = q->x->api->replica;
    struct hw_replica_status status;
    hw_replica_status(replica, &status);
    if (status.is_disk_failing) {
        query_submit(q);
        return 0;
    }
    q->wait.done = on_image_ready;
    q->wait.index = 0;
    return hw_replica_image_wait(replica, &q->wait);
}

void hw_admin_query(struct hw_exchange *x)
{
    struct hw_api *api = x->api;
    Hotwarm__V1__QueryRequest *m = hw_exchange_unpack(x, &hotwarm__v1__query_request__descriptor);
    struct query *q;
    int rc;
    if (m == NULL) {
        return;
    }
    if (hw_replica_is_hot(api->replica) && !m->hot_too) {
        hw_exchange_failf(
            x, HW_GRPC_FAILED_PRECONDITION,
            "node %s is hot: queries go to a warm node, or say that the hot one may answer (hwctl sql --hot-too)",
            api->config.node_name);
        return;
    }
    if (api->queries >= QUERIES_MAX) {
        hw_exchange_refuse(x, HW_REFUSE_TOO_MANY_REQUESTS);
        return;
    }
    q = query_new(x, m);
    if (q == NULL) {
        hw_exchange_refuse(x, HW_REFUSE_NO_MEMORY);
        return;
    }
    rc = query_start(q);
    if (rc != 0) {
        query_free(q);
        hw_exchange_refuse(x, hw_refusal_of_status(rc));
    }
}
