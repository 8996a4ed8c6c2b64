/* Values: from the text of a file or of the environment to a field, and what an address means. Pure: no memory, no I/O.
 * Private to agent/config. Where `why` is taken, a refusal is put there as the rest of a sentence that begins with the
 * key ("5 is below the minimum 20").
 */
#ifndef HW_CONFIG_VALUE_H
#define HW_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/config/schema.h"

#define HW_CONFIG_WHY_MAX 256

/* Check the text and store it in the field of the row. 0, or HW_ERR_INVALID and the field as it was. Not for lists. */
int hw_config_set(struct hw_config *c, const struct hw_config_row *row, const char *text, char why[HW_CONFIG_WHY_MAX]);
/* Check and store an item of a list, of type NAME or ADDRESS. */
int hw_config_set_item(enum hw_config_type type, const char *text, char *out, size_t size, char why[HW_CONFIG_WHY_MAX]);

struct hw_config_address {
    char host[HW_CONFIG_TEXT_MAX]; /* without the brackets of an IPv6 address */
    unsigned port;
};
/* "host:port" or "[v6]:port"; port 1 to 65535. 0 or HW_ERR_INVALID. */
int hw_config_split(const char *text, struct hw_config_address *a, char why[HW_CONFIG_WHY_MAX]);
/* Only this machine can reach it: 127.0.0.0/8, ::1, "localhost". */
bool hw_config_is_loopback(const char *host);
/* Means every address of the machine when listening, and nothing when connecting: 0.0.0.0, ::. */
bool hw_config_is_wildcard(const char *host);

#endif
