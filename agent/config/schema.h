/* The schema table: one row per key. Everything that knows keys (file, environment, print, diff, reference) walks it;
 * adding a key is adding a field to struct hw_config and a row here. Private to agent/config. Rows live for ever.
 */
#ifndef HW_CONFIG_SCHEMA_H
#define HW_CONFIG_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/config/config.h"

enum hw_config_type {
    HW_CONFIG_UINT,
    HW_CONFIG_BOOL,
    HW_CONFIG_NAME,      /* letters, digits, '-', '_', '.' */
    HW_CONFIG_PATH,      /* any text without control characters */
    HW_CONFIG_ADDRESS,   /* host:port */
    HW_CONFIG_LEVELS,    /* "info" or "info,replica=debug" */
    HW_CONFIG_PEERS,     /* list of {name, peer} */
    HW_CONFIG_ADDRESSES, /* list of host:port */
};

struct hw_config_row {
    const char *key; /* dotted: "raft.tick_ms"; rows of one group follow each other */
    enum hw_config_type type;
    size_t offset; /* of the field in struct hw_config */
    size_t size;   /* of the field: bounds texts, NUL included */
    uint64_t def;  /* UINT, BOOL */
    uint64_t min;  /* UINT, both ends included */
    uint64_t max;
    const char *def_text; /* texts; NULL with def_key NULL: the key is required */
    const char *def_key;  /* the default is the value of this key */
    bool reloadable;      /* takes effect without a restart */
    const char *help;     /* one line */
};

#define HW_CONFIG_ROWS_MAX 64
#define HW_CONFIG_KEY_MAX 64 /* of a dotted key, NUL included */

extern const struct hw_config_row hw_config_rows[];
extern const size_t hw_config_row_count;

/* NULL when there is no such key. */
const struct hw_config_row *hw_config_find(const char *key);
/* True when keys of the form "<key>.x" exist. */
bool hw_config_is_group(const char *key);
bool hw_config_is_list(const struct hw_config_row *row);
bool hw_config_is_text(const struct hw_config_row *row);
bool hw_config_is_required(const struct hw_config_row *row);

/* The field of a row, to be read as uint64_t, bool or NUL-terminated text. Lists are read by name. */
const void *hw_config_field(const struct hw_config *c, const struct hw_config_row *row);
void *hw_config_field_mut(struct hw_config *c, const struct hw_config_row *row);
/* Copy the value of row->def_key. */
void hw_config_take_default_key(struct hw_config *c, const struct hw_config_row *row);

#define HW_CONFIG_ENV_MAX (HW_CONFIG_KEY_MAX + 8)
/* "raft.tick_ms" -> "HOTWARM_RAFT_TICK_MS". Returns buf. */
const char *hw_config_env_name(const struct hw_config_row *row, char buf[HW_CONFIG_ENV_MAX]);

#endif
