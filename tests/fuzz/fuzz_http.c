/* What a client may send to the HTTP/1.1 server. The first byte chooses: bits 0-1 how many bytes come in one turn, bit
 * 2 a peer that never reads, bit 3 handlers that answer late.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. tests/fuzz/fuzz_http.c \
 *         agent/http/X.c agent/base/X.c -lhttp_parser
 */
#include "agent/http/http.h"
#include "tests/fuzz/fuzz_rpc_seam.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct hw_http_req *held;
static bool answers_late;

static void answer(struct hw_http_req *req)
{
    const char *q = hw_http_query(req, "q");
    const char *x = hw_http_header(req, "x");
    struct hw_buf out = {0};
    hw_buf_printf(&out, "%s %s %s %s", hw_http_method(req), hw_http_path(req), q != NULL ? q : "", x != NULL ? x : "");
    hw_buf_append(&out, hw_http_body(req).data, hw_http_body(req).len);
    hw_http_reply(req, 200, "text/plain", hw_buf_slice(&out), NULL);
    hw_buf_free(&out);
}

static void on_any(void *ctx, struct hw_http_req *req)
{
    (void)ctx;
    if (answers_late) {
        hw_assert(held == NULL);
        held = req;
    } else {
        answer(req);
    }
}

static void answer_held(void)
{
    struct hw_http_req *req = held;
    if (req != NULL) {
        held = NULL;
        answer(req);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t steps[] = {1u << 20, 50, 7, 1};
    static const struct hw_http_route routes[] = {{"GET", "/", on_any, NULL}, {"POST", "/p", on_any, NULL}};
    const struct hw_http_limits limits = {.header_bytes_max = 300, .body_bytes_max = 200, .idle_ms = 1000};
    struct hw_http_server *server;
    struct hw_loop *loop;
    struct hw_stream *s;
    size_t step;
    if (size == 0) {
        return 0;
    }
    answers_late = (data[0] & 8) != 0;
    step = steps[data[0] & 3];
    loop = seam_loop_new();
    hw_assert(hw_http_server_new(loop, NULL, &limits, &server) == 0);
    hw_http_server_add(server, routes, hw_array_len(routes));
    s = seam_stream_new(loop);
    s->is_stuck = (data[0] & 4) != 0;
    hw_http_server_accept(server, s);
    for (size_t at = 1; at < size && (s = seam_stream_alive(loop)) != NULL && !s->is_paused;) {
        size_t n = size - at < step ? size - at : step;
        uint8_t *exact = malloc(n); /* so that the sanitizer sees a read past the end */
        hw_assert(exact != NULL);
        memcpy(exact, data + at, n);
        s->ops->on_data(s->ctx, exact, n);
        free(exact);
        at += n;
        seam_turn(loop);
        if (at % 2 == 0) {
            answer_held();
        }
        seam_advance(loop, 1);
    }
    if (size % 2 == 0) {
        seam_advance(loop, 5000); /* idle */
        seam_turn(loop);
        answer_held();
    }
    hw_http_server_free(server);
    seam_turn(loop);
    answer_held();
    seam_turn(loop);
    seam_loop_free(loop);
    return 0;
}
