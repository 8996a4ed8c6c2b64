/* What commands print: tables (libsmartcols), JSON (jansson), and bytes made readable.
 *
 * A table is collected, then printed whole: aligned, two spaces between columns, no borders, never cut to the width of
 * the terminal. Colour is used on a terminal only (not with NO_COLOR) and never says anything that the words do not.
 * JSON is one object with stable names; 64-bit identities and hashes are hexadecimal strings, keys and values base64.
 */
#ifndef HW_CLI_OUTPUT_H
#define HW_CLI_OUTPUT_H

#include <jansson.h>

#include "cli/app.h"

#define HW_CTL_COLUMNS_MAX 64

struct hw_ctl_table;
/* Headings: NULL at the end; one that begins with '>' is right-aligned. Aborts when out of memory. */
struct hw_ctl_table *hw_ctl_table_new(struct hw_ctl *ctl, const char *const *headings);
/* Cells are copied: as many as headings; NULL is "-". */
void hw_ctl_table_add(struct hw_ctl_table *t, const char *const *cells);
/* The line added last is shown in this colour ("red", "yellow", "bold"). */
void hw_ctl_table_color(struct hw_ctl_table *t, const char *color);
/* Prints and frees. */
void hw_ctl_table_print(struct hw_ctl_table *t);
void hw_ctl_table_free(struct hw_ctl_table *t);

/* Prints on one line with a newline, and takes the value over. NULL (out of memory) is HW_ERR_NOMEM. */
int hw_ctl_json_print(struct hw_ctl *ctl, json_t *value, struct hw_error *e);
/* A text of the wire; what is not UTF-8 is escaped. NULL is "". */
json_t *hw_ctl_json_text(const char *text);
json_t *hw_ctl_json_bytes(const void *data, size_t len); /* base64 */
json_t *hw_ctl_json_hex(uint64_t v);                     /* "00c0ffee00c0ffee" */
json_t *hw_ctl_json_number(uint64_t v);                  /* above 2^63 - 1: that */

/* Control characters, backslashes and what the locale cannot show become \n, \t, \\ or \xNN. Appends to out. */
void hw_ctl_escape(struct hw_buf *out, const void *data, size_t len);
/* The same as a text in `scratch`, valid until its next use. */
const char *hw_ctl_escaped(struct hw_buf *scratch, const void *data, size_t len);
void hw_ctl_base64(struct hw_buf *out, const void *data, size_t len);

/* "1.5 GiB", "312 ms", "4.2 s", "3 min": for people. Return buf. */
#define HW_CTL_SHORT_SIZE 32
const char *hw_ctl_bytes_text(uint64_t bytes, char buf[HW_CTL_SHORT_SIZE]);
const char *hw_ctl_age_text(uint64_t ms, char buf[HW_CTL_SHORT_SIZE]);

#endif
