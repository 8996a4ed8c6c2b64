/* Keeps io_destroy(2) off the loop.
 *
 * libraft writes each log segment through an AIO context of its own and destroys it on the loop thread when the segment
 * is closed. The kernel waits for an RCU grace period there: 20 to 36 ms measured, several times a second under load,
 * which is longer than everything else that a turn of the loop does. libraft has no setting for it, and it makes the
 * call through the C library's syscall(), so this file gives the program a syscall() of its own that runs exactly that
 * one call on a short-lived thread and passes every other one through. libraft destroys a context only after its last
 * request has completed, and ignores the result, so nothing waits for it.
 */
#ifndef HW_CONSENSUS_AIO_REAPER_H
#define HW_CONSENSUS_AIO_REAPER_H

#include <stdint.h>

/* How many contexts were destroyed off the loop so far. Referring to it also links the replacement in. */
uint64_t hw_aio_reaped(void);

#endif
