/* hw_assert: a bug, on in production. Prints where and what, then aborts: a replica that goes on after a broken
 * invariant could acknowledge a write that it does not have. Never used for input, peers, disks or memory sized by a
 * peer: those are refusals (err.h). Also the small macros that every file needs.
 */
#ifndef HW_BASE_ASSERT_H
#define HW_BASE_ASSERT_H

#include <stddef.h>

__attribute__((noreturn, cold)) void hw_assert_fail(const char *expr, const char *file, int line, const char *func);

#define hw_assert(expr) ((expr) ? (void)0 : hw_assert_fail(#expr, __FILE__, __LINE__, __func__))
#define hw_unreachable() hw_assert_fail("unreachable", __FILE__, __LINE__, __func__)

#define hw_array_len(a) (sizeof(a) / sizeof((a)[0]))
#define hw_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
