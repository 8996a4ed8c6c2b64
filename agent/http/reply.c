#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/http/server.h"

static void count(struct hw_http_server *server, int status)
{
    struct hw_counter **c = &server->requests[status - HW_HTTP_STATUS_MIN];
    if (*c == NULL) {
        char labels[32];
        snprintf(labels, sizeof labels, "code=\"%d\"", status);
        *c = hw_metrics_counter(server->metrics, "hotwarm_http_requests_total", labels, "HTTP requests by status.");
    }
    hw_counter_add(*c, 1);
}

/* RFC 9110 section 6.6.1, formatted once a second. */
static const char *date_of(struct hw_http_server *server)
{
    uint64_t now_s = hw_wall_ms() / 1000;
    if (now_s != server->date_s) {
        time_t t = (time_t)now_s;
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(server->date, sizeof server->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        server->date_s = now_s;
    }
    return server->date;
}

/* A line end inside a value would let it write fields of its own. */
static bool is_clean(const char *s)
{
    return strpbrk(s, "\r\n") == NULL;
}

void hw_http_write(struct hw_http_connection *c, int status, const char *content_type, struct hw_slice body,
                   const char *const *headers, bool is_head, bool ends)
{
    struct hw_buf out;
    bool has_body = status >= 200 && status != 204 && status != 304;
    hw_assert(status >= HW_HTTP_STATUS_MIN && status < HW_HTTP_STATUS_END);
    count(c->server, status);
    if (c->stream == NULL) {
        return;
    }
    hw_buf_init(&out);
    hw_buf_reserve(&out, 256 + (is_head ? 0 : body.len));
    hw_buf_printf(&out, "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, hw_http_reason(status), date_of(c->server));
    if (has_body) {
        hw_buf_printf(&out, "Content-Length: %zu\r\n", body.len);
        if (content_type != NULL && is_clean(content_type)) {
            hw_buf_printf(&out, "Content-Type: %s\r\n", content_type);
        }
    }
    for (size_t i = 0; headers != NULL && headers[i] != NULL; i += 2) {
        if (is_clean(headers[i]) && is_clean(headers[i + 1])) {
            hw_buf_printf(&out, "%s: %s\r\n", headers[i], headers[i + 1]);
        }
    }
    hw_buf_printf(&out, "Connection: %s\r\n\r\n", ends ? "close" : "keep-alive");
    if (has_body && !is_head) {
        hw_buf_append(&out, body.data, body.len);
    }
    if (out.failed || hw_stream_write_buf(c->stream, &out) != 0) {
        hw_buf_free(&out);
        c->is_closing = true;
        hw_stream_close(c->stream);
    }
}

static const char *error_name(int status)
{
    switch (status) {
    case 404:
        return "not_found";
    case 405:
        return "method_not_allowed";
    case 413:
    case 414:
    case 431:
        return "too_large";
    case 503:
        return "unavailable";
    default:
        return "bad_request";
    }
}

void hw_http_write_error(struct hw_http_connection *c, int status, const char *message, const char *const *headers,
                         bool is_head, bool ends)
{
    char body[256];
    int n = snprintf(body, sizeof body, "{\"error\": \"%s\", \"message\": \"%s\"}\n", error_name(status), message);
    hw_assert(n > 0 && (size_t)n < sizeof body);
    hw_http_write(c, status, "application/json", hw_slice_of(body, (size_t)n), headers, is_head, ends);
}

/* ---- what handlers see ---- */

const char *hw_http_method(const struct hw_http_req *req)
{
    return req->connection->message.method;
}

const char *hw_http_path(const struct hw_http_req *req)
{
    return (const char *)req->connection->message.path.data;
}

const char *hw_http_query(struct hw_http_req *req, const char *name)
{
    return hw_http_message_query(&req->connection->message, name);
}

const char *hw_http_header(const struct hw_http_req *req, const char *lower_case_name)
{
    return hw_http_message_field(&req->connection->message, lower_case_name);
}

struct hw_slice hw_http_body(const struct hw_http_req *req)
{
    return hw_buf_slice(&req->connection->message.body);
}

bool hw_http_is_gone(const struct hw_http_req *req)
{
    return req->connection->stream == NULL;
}

void hw_http_reply(struct hw_http_req *req, int status, const char *content_type, struct hw_slice body,
                   const char *const *headers)
{
    struct hw_http_connection *c = req->connection;
    bool ends = !c->message.keeps_alive || c->server->is_shut;
    hw_assert(req->is_open);
    req->is_open = false;
    c->is_closing = c->is_closing || ends;
    hw_histogram_observe_us(c->server->seconds, hw_mono_us() - req->start_us);
    hw_http_write(c, status, content_type, body, headers, c->message.is_head, ends);
    hw_http_answered(c);
}
