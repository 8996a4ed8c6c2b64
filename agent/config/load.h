/* A configuration while it is loaded: values, where each came from, and the problems so far. Private to agent/config.
 */
#ifndef HW_CONFIG_LOAD_H
#define HW_CONFIG_LOAD_H

#include "agent/config/config.h"
#include "agent/config/report.h"
#include "agent/config/schema.h"

struct hw_config_origin {
    int line; /* in the file; 0: not there */
    bool is_env;
    bool is_bad; /* has a problem of its own: no check builds on it */
};

struct hw_config_loading {
    struct hw_config *c;
    struct hw_config_report report;
    struct hw_config_origin origins[HW_CONFIG_ROWS_MAX];
    int initial_lines[HW_CONFIG_NODES_MAX];
    int join_lines[HW_CONFIG_NODES_MAX];
    bool is_cut;   /* the file was not read to its end */
    bool is_newer; /* the file has a newer format: nothing else of it can be judged */
};

struct hw_config_origin *hw_config_origin(struct hw_config_loading *l, const struct hw_config_row *row);

/* Read a document into l->c. 0 (also with problems) or HW_ERR_NOMEM. */
int hw_config_read(struct hw_config_loading *l, const void *text, size_t len);

/* The checks that look at more than one key; what each demands, in words, for the reference page. */
void hw_config_check(struct hw_config_loading *l);
extern const char *const hw_config_check_texts[];
extern const size_t hw_config_check_count;

#endif
