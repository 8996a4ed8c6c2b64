#include "agent/consensus/aio_reaper.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/base/assert.h"

typedef long (*syscall_fn)(long number, ...);

static atomic_uint_fast64_t reaped;

static syscall_fn libc_syscall(void)
{
    static _Atomic(syscall_fn) found;
    syscall_fn fn = atomic_load(&found);
    if (fn == NULL) {
        fn = (syscall_fn)dlsym(RTLD_NEXT, "syscall");
        hw_assert(fn != NULL);
        atomic_store(&found, fn);
    }
    return fn;
}

static void *destroy(void *context)
{
    libc_syscall()(SYS_io_destroy, (long)context);
    atomic_fetch_add(&reaped, 1);
    return NULL;
}

static int destroy_elsewhere(long context)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all;
    sigset_t before;
    int rc;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the loop thread takes the signals */
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    rc = pthread_create(&thread, &attributes, destroy, (void *)context);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

uint64_t hw_aio_reaped(void)
{
    return atomic_load(&reaped);
}

/* The ABI passes up to six words in registers whatever the call needs, so reading six is what the C library does too.
 */
long syscall(long number, ...)
{
    long a[6];
    va_list ap;
    va_start(ap, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(ap, long);
    }
    va_end(ap);
    if (number == SYS_io_destroy && destroy_elsewhere(a[0]) == 0) {
        return 0;
    }
    return libc_syscall()(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
