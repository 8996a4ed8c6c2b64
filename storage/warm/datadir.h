/* What identity.c knows of a held data folder. Private to storage/warm; the public face is identity.h. */
#ifndef HW_WARM_DATADIR_H
#define HW_WARM_DATADIR_H

#include <limits.h>

#define HW_LOCK_FILE "lock"
#define HW_QUARANTINE_FOLDER "quarantine"

struct hw_datadir {
    int lock_fd;
    char path[PATH_MAX];
};

#endif
