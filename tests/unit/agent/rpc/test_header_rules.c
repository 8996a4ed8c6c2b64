#include "agent/rpc/header_rules.h"

#include <string.h>

#include "tests/unit/hw_test.h"

/* "name: value" a line; a line "" ends a block. 1: well-formed. */
static int judge(const char *const *lines, uint64_t body_bytes)
{
    struct hw_header_rules r = {0};
    for (; *lines != NULL; lines++) {
        const char *colon = strstr(*lines, ": ");
        if (**lines == '\0') {
            if (!hw_header_rules_block(&r, lines[1] == NULL)) {
                return 0;
            }
        } else if (hw_header_rules_header(&r, hw_slice_of(*lines, (size_t)(colon - *lines)), hw_slice_str(colon + 2)) <
                   0) {
            return 0;
        }
    }
    r.body_bytes = body_bytes;
    return hw_header_rules_end(&r);
}

#define GOOD ":method: POST", ":scheme: http", ":path: /s/M"

static void what_grpc_clients_send_is_good(void)
{
    CHECK(judge((const char *const[]){GOOD, ":authority: h:1", "te: trailers", "content-type: x", "", NULL}, 0));
    CHECK(judge((const char *const[]){GOOD, ":authority: http://127.0.0.1:2379", "", NULL}, 0)); /* etcdctl 3.4 */
    CHECK(judge((const char *const[]){GOOD, "", NULL}, 0));
    CHECK(judge((const char *const[]){GOOD, "content-length: 5", "", NULL}, 5));
    CHECK(judge((const char *const[]){GOOD, "", "trailer: x", "", NULL}, 0));
}

static void malformed_requests_are_told(void)
{
    static const char *const cases[][8] = {
        {":method: POST", ":path: /s/M", "", NULL},
        {":method: POST", ":scheme: http", "", NULL},
        {":scheme: http", ":path: /s/M", "", NULL},
        {":method: POST", ":scheme: http", ":path: s/M", "", NULL},
        {":method: PO ST", ":scheme: http", ":path: /s/M", "", NULL},
        {GOOD, ":path: /s/M", "", NULL},
        {GOOD, ":status: 200", "", NULL},
        {GOOD, ":authority: a\x01z", "", NULL},
        {GOOD, "x: y", ":authority: h", "", NULL},
        {GOOD, "X-Upper: y", "", NULL},
        {GOOD, "connection: close", "", NULL},
        {GOOD, "transfer-encoding: chunked", "", NULL},
        {GOOD, "te: gzip", "", NULL},
        {GOOD, "content-length: 5", "", NULL},
        {GOOD, "content-length: -1", "", NULL},
        {GOOD, "content-length: 0", "content-length: 0", "", NULL},
        {GOOD, "", ":path: /s/M", "", NULL},
        {GOOD, "", "trailer: x", "", "more: x", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_EQ(judge(cases[i], 0), 0);
    }
}

HW_SUITE(rpc_header_rules, HW_CASE(what_grpc_clients_send_is_good), HW_CASE(malformed_requests_are_told))
