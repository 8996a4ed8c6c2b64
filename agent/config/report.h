/* The list of problems while it is made: sorted by line at the end, bounded, one line each. Private to agent/config. */
#ifndef HW_CONFIG_REPORT_H
#define HW_CONFIG_REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/config/config.h"

#define HW_CONFIG_PROBLEMS_MAX 100 /* the rest is counted only */

struct hw_config_report {
    const char *name; /* of the file, for messages; borrowed */
    struct hw_buf text;
    struct {
        int order;
        size_t offset;
        size_t len;
    } items[HW_CONFIG_PROBLEMS_MAX];
    size_t count;
    size_t left_out;
};

void hw_config_report_init(struct hw_config_report *r, const char *name);
void hw_config_report_free(struct hw_config_report *r);

/* "<file>:<line>: <key>: <text>"; line 0: of the file as a whole; key NULL: none. */
void hw_config_report_at(struct hw_config_report *r, int line, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* "<variable>: <key>: <text>". */
void hw_config_report_env(struct hw_config_report *r, const char *variable, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Write the list: lines of the file first, then the environment, then what has no place. 0 or HW_ERR_NOMEM. */
int hw_config_report_done(struct hw_config_report *r, struct hw_config_problems *problems);

#endif
