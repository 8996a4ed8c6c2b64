#include "tests/unit/storage/hot/nomem.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

bool nomem_is_available(void)
{
    return false;
}

void nomem_arm(unsigned nth)
{
    (void)nth;
}

bool nomem_disarm(void)
{
    return false;
}

#else

static __thread unsigned countdown; /* 0: not armed */
static __thread bool has_failed;

static bool is_failing(void)
{
    if (countdown == 0 || --countdown > 0) {
        return false;
    }
    has_failed = true;
    return true;
}

/* Looked up, and not called by glibc's other names, so that valgrind's replacements are found. */
static void *next(const char *name)
{
    void *at = dlsym(RTLD_NEXT, name);
    if (at == NULL) {
        abort();
    }
    return at;
}

void *malloc(size_t size)
{
    static void *(*real)(size_t);
    if (real == NULL) {
        *(void **)&real = next("malloc");
    }
    return is_failing() ? NULL : real(size);
}

void *calloc(size_t count, size_t size)
{
    static void *(*real)(size_t, size_t);
    if (real == NULL) {
        *(void **)&real = next("calloc");
    }
    return is_failing() ? NULL : real(count, size);
}

void *realloc(void *at, size_t size)
{
    static void *(*real)(void *, size_t);
    if (real == NULL) {
        *(void **)&real = next("realloc");
    }
    return is_failing() ? NULL : real(at, size);
}

/* Tried, not assumed: valgrind puts its own functions before these. By a pointer, for a compiler knows that the malloc
 * it knows does not read `countdown`. */
bool nomem_is_available(void)
{
    void *(*volatile allocate)(size_t) = malloc;
    bool is_available;
    nomem_arm(1);
    free(allocate(1));
    is_available = nomem_disarm();
    if (!is_available) {
        puts("  allocations cannot be failed here: skipped");
    }
    return is_available;
}

void nomem_arm(unsigned nth)
{
    has_failed = false;
    countdown = nth;
}

bool nomem_disarm(void)
{
    countdown = 0;
    return has_failed;
}

#endif
