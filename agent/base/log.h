/* Structured log: one logfmt line per event on stderr.
 *
 *     time=2026-01-31T23:59:59.123Z level=info component=replica msg="became hot" epoch=7 took_ms=12
 *
 * Operator news is logged once, by whoever decides what to do about it. Levels can be set per component
 * ("info,replica=debug"). The message is a constant; what varies goes into the fields: a printf format that makes
 * `key=value` pairs. Text of unknown content is quoted with hw_logq. Thread-safe (one write(2) a line).
 */
#ifndef HW_BASE_LOG_H
#define HW_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum hw_level { HW_DEBUG, HW_INFO, HW_WARN, HW_ERROR };

/* Parse and set the levels; returns HW_ERR_INVALID, with nothing changed, for a text that is not
 * LEVEL[,COMPONENT=LEVEL]... The configuration's check of log.level has the sentences. */
int hw_log_configure(const char *spec);
/* Letters, digits, '-', '_' and '.', at least one. */
bool hw_log_is_component(const char *name, size_t len);
bool hw_log_is_on(enum hw_level level, const char *component);
/* fields may be NULL. */
void hw_log(enum hw_level level, const char *component, const char *msg, const char *fields, ...)
    __attribute__((format(printf, 4, 5)));

/* Lines longer than this are cut. */
#define HW_LOG_LINE_MAX 2048

/* Quote a text for a field: spaces, quotes, control characters. Writes at most `size` bytes, returns buf. */
const char *hw_logq_into(const char *text, char *buf, size_t size);
#define hw_logq(text) hw_logq_into((text), (char[256]){0}, 256)

#define hw_log_debug(component, msg, ...) \
    (hw_log_is_on(HW_DEBUG, component) ? hw_log(HW_DEBUG, component, msg, __VA_ARGS__) : (void)0)
#define hw_log_info(component, msg, ...) hw_log(HW_INFO, component, msg, __VA_ARGS__)
#define hw_log_warn(component, msg, ...) hw_log(HW_WARN, component, msg, __VA_ARGS__)
#define hw_log_error(component, msg, ...) hw_log(HW_ERROR, component, msg, __VA_ARGS__)

#endif
