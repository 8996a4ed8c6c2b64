/* Failing the nth file operation: a VFS of SQLite's that wraps the system's, and the seam of storage/warm/fs.h, with
 * one counter for both.
 *
 * Usage: fault_install() once; fault_arm(n, kind); run; fault_disarm(); fault_was_hit() says whether operation n was
 * reached: a sweep ends when it was not. Writes that no fsync followed can be undone with fault_power_cut(), once every
 * handle is closed, so that what is left is what a machine keeps that lost its power.
 */
#ifndef HW_TEST_WARM_FAULT_H
#define HW_TEST_WARM_FAULT_H

#include <stdbool.h>

enum fault_kind {
    FAULT_ONCE,    /* one operation fails with an I/O error, the next ones go on */
    FAULT_FOREVER, /* every operation fails from the nth on; half of a failing write reaches the file */
    FAULT_FULL,    /* every write fails from the nth on: the disk is full */
    FAULT_READONLY /* every file opens read-only, folders refuse new names */
};

void fault_install(void);
void fault_arm(unsigned nth, enum fault_kind kind);
void fault_disarm(void);
bool fault_was_hit(void);
void fault_power_cut(void);

#endif
