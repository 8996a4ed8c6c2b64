#include <string.h>

#include "agent/api/port.h"
#include "agent/consensus/consensus.h"
#include "tests/unit/hw_test.h"

static enum hw_sniff client(const char *text)
{
    return hw_sniff((const uint8_t *)text, strlen(text), false);
}

static enum hw_sniff peer(const char *text)
{
    return hw_sniff((const uint8_t *)text, strlen(text), true);
}

static void the_client_port_tells_http2_from_http1(void)
{
    CHECK_EQ(client("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), HW_SNIFF_RPC);
    CHECK_EQ(client("PRI "), HW_SNIFF_RPC);
    CHECK_EQ(client("GET / HTTP/1.1\r\n"), HW_SNIFF_HTTP);
    CHECK_EQ(client("POST /x"), HW_SNIFF_HTTP);
    CHECK_EQ(client("PUT /x"), HW_SNIFF_HTTP);
    CHECK_EQ(client("PROPFIND"), HW_SNIFF_HTTP);
    CHECK_EQ(client("\x16\x03\x01"), HW_SNIFF_HTTP); /* TLS: the HTTP server says 400 */
}

static void a_start_that_fits_both_waits_for_more(void)
{
    CHECK_EQ(client("P"), HW_SNIFF_MORE);
    CHECK_EQ(client("PR"), HW_SNIFF_MORE);
    CHECK_EQ(client("PRI"), HW_SNIFF_MORE);
    CHECK_EQ(client("PRO"), HW_SNIFF_HTTP);
    CHECK_EQ(client("PU"), HW_SNIFF_HTTP);
}

static void the_peer_port_tells_rpc_from_raft(void)
{
    CHECK_EQ(peer("PRI * HTTP/2.0"), HW_SNIFF_RPC);
    CHECK_EQ(peer(HW_PEER_MAGIC), HW_SNIFF_RAFT);
    CHECK_EQ(peer(HW_PEER_MAGIC "more"), HW_SNIFF_RAFT);
    CHECK_EQ(peer("H"), HW_SNIFF_MORE);
    CHECK_EQ(peer("HW"), HW_SNIFF_MORE);
    CHECK_EQ(peer("HWRAFT1"), HW_SNIFF_MORE);
    CHECK_EQ(peer("P"), HW_SNIFF_MORE);
}

static void strangers_on_the_peer_port_are_closed(void)
{
    CHECK_EQ(peer("GET / HTTP/1.1"), HW_SNIFF_CLOSE);
    CHECK_EQ(peer("HWRAFT2\n"), HW_SNIFF_CLOSE);
    CHECK_EQ(peer("HX"), HW_SNIFF_CLOSE);
    CHECK_EQ(hw_sniff((const uint8_t *)"\0", 1, true), HW_SNIFF_CLOSE);
}

static void every_prefix_is_decided_by_eight_bytes(void)
{
    uint8_t bytes[HW_SNIFF_BYTES];
    for (unsigned first = 0; first < 256; first++) {
        memset(bytes, (int)first, sizeof bytes);
        CHECK(hw_sniff(bytes, sizeof bytes, true) != HW_SNIFF_MORE);
        CHECK(hw_sniff(bytes, sizeof bytes, false) != HW_SNIFF_MORE);
    }
}

HW_SUITE(api_port, HW_CASE(the_client_port_tells_http2_from_http1), HW_CASE(a_start_that_fits_both_waits_for_more),
         HW_CASE(the_peer_port_tells_rpc_from_raft), HW_CASE(strangers_on_the_peer_port_are_closed),
         HW_CASE(every_prefix_is_decided_by_eight_bytes))
