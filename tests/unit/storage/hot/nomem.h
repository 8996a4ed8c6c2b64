/* Failing the nth allocation of this thread. The test program's own malloc, calloc and realloc stand in front of the C
 * library's; they only count while armed, and are not there at all under a sanitizer, which needs that place itself.
 */
#ifndef HW_TEST_HOT_NOMEM_H
#define HW_TEST_HOT_NOMEM_H

#include <stdbool.h>

/* False: allocations cannot be failed in this build or under this tool, and the cases have nothing to do. */
bool nomem_is_available(void);
/* The nth allocation from now on fails (1: the next), and only that one. */
void nomem_arm(unsigned nth);
/* True when an allocation has failed since nomem_arm. */
bool nomem_disarm(void);

#endif
