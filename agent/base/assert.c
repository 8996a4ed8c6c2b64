#include "agent/base/assert.h"

#include <stdio.h>
#include <stdlib.h>

void hw_assert_fail(const char *expr, const char *file, int line, const char *func)
{
    fprintf(stderr, "level=fatal component=assert msg=\"bug: invariant broken\" expr=\"%s\" at=%s:%d func=%s\n", expr,
            file, line, func);
    abort();
}
