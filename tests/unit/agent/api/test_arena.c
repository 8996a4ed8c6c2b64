#include <stdint.h>
#include <string.h>

#include "agent/api/arena.h"
#include "proto/etcd.pb-c.h"
#include "tests/unit/hw_test.h"

static void pieces_are_aligned_and_apart(void)
{
    struct hw_arena a;
    unsigned char *pieces[200];
    hw_arena_init(&a);
    hw_arena_reset(&a, 1 << 24);
    for (size_t i = 0; i < 200; i++) {
        pieces[i] = hw_arena_alloc(&a, i * 37);
        REQUIRE(pieces[i] != NULL);
        CHECK_EQ((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (int)i, i * 37);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t k = 0; k < i * 37; k++) {
            REQUIRE(pieces[i][k] == (unsigned char)i);
        }
    }
    hw_arena_close(&a);
}

static void the_limit_refuses_and_is_remembered(void)
{
    struct hw_arena a;
    hw_arena_init(&a);
    hw_arena_reset(&a, 1000);
    CHECK(hw_arena_alloc(&a, 600) != NULL);
    CHECK(!a.is_exhausted);
    CHECK(hw_arena_alloc(&a, 600) == NULL);
    CHECK(a.is_exhausted);
    CHECK(hw_arena_alloc(&a, SIZE_MAX) == NULL);
    CHECK(hw_arena_alloc(&a, SIZE_MAX - 4) == NULL);
    hw_arena_reset(&a, 1000);
    CHECK(!a.is_exhausted);
    CHECK(hw_arena_alloc(&a, 992) != NULL);
    hw_arena_close(&a);
}

static void the_first_block_is_used_again(void)
{
    struct hw_arena a;
    void *first;
    hw_arena_init(&a);
    hw_arena_reset(&a, 1 << 24);
    first = hw_arena_alloc(&a, 10);
    hw_arena_alloc(&a, 1 << 20); /* a block of its own */
    hw_arena_alloc(&a, 100000);
    for (int i = 0; i < 3; i++) {
        hw_arena_reset(&a, 1 << 24);
        CHECK(hw_arena_alloc(&a, 10) == first);
    }
    hw_arena_close(&a);
}

static void a_message_that_is_too_large_is_not_unpacked(void)
{
    struct hw_arena a;
    Etcdserverpb__PutRequest m = ETCDSERVERPB__PUT_REQUEST__INIT;
    static uint8_t value[5000];
    uint8_t packed[6000];
    size_t len;
    m.key.data = value;
    m.key.len = 3;
    m.value.data = value;
    m.value.len = sizeof value;
    len = etcdserverpb__put_request__pack(&m, packed);
    hw_arena_init(&a);
    hw_arena_reset(&a, 4000);
    CHECK(etcdserverpb__put_request__unpack(&a.allocator, len, packed) == NULL);
    CHECK(a.is_exhausted);
    hw_arena_reset(&a, 10000);
    CHECK(etcdserverpb__put_request__unpack(&a.allocator, len, packed) != NULL);
    /* cut anywhere it is malformed, not read past its end */
    for (size_t cut = 1; cut < len; cut += 97) {
        hw_arena_reset(&a, 10000);
        etcdserverpb__put_request__unpack(&a.allocator, cut, packed);
        CHECK(!a.is_exhausted);
    }
    hw_arena_close(&a);
}

HW_SUITE(api_arena, HW_CASE(pieces_are_aligned_and_apart), HW_CASE(the_limit_refuses_and_is_remembered),
         HW_CASE(the_first_block_is_used_again), HW_CASE(a_message_that_is_too_large_is_not_unpacked))
