/* Errors: one list of codes for the whole project, and a carrier for a text that every level wraps.
 *
 * A function that can be refused returns 0 or a negative `enum hw_err`. Where a person will read the reason, it also
 * takes a `struct hw_error *` and fills the text: the innermost level sets it, each level above prefixes what it was
 * doing ("restore snapshot: open image: no space left on device"). A NULL carrier is allowed everywhere.
 *
 * Each code maps to one gRPC status (https://grpc.github.io/grpc/core/md_doc_statuscodes.html) and to one exit code of
 * hwctl and hwagent. Bugs are not errors: they are hw_assert.
 */
#ifndef HW_BASE_ERR_H
#define HW_BASE_ERR_H

#include <stddef.h>

/*   name             code grpc exit text */
#define HW_ERR_LIST(X)                                               \
    X(NOMEM, -1, 8, 70, "out of memory")                             \
    X(INVALID, -2, 3, 2, "invalid argument")                         \
    X(NOTFOUND, -3, 5, 4, "not found")                               \
    X(EXISTS, -4, 6, 4, "already exists")                            \
    X(DENIED, -5, 7, 5, "permission denied")                         \
    X(EXHAUSTED, -6, 8, 6, "a queue or limit is full")               \
    X(NOSPACE, -7, 8, 6, "no space left on the disk")                \
    X(PRECONDITION, -8, 9, 4, "precondition failed")                 \
    X(ABORTED, -9, 10, 6, "aborted")                                 \
    X(COMPACTED, -10, 11, 4, "required revision has been compacted") \
    X(FUTURE, -11, 11, 4, "required revision is a future revision")  \
    X(UNIMPLEMENTED, -12, 12, 2, "not implemented")                  \
    X(INTERNAL, -13, 13, 70, "internal error")                       \
    X(UNAVAILABLE, -14, 14, 3, "unavailable")                        \
    X(NOTHOT, -15, 14, 3, "this node is not hot")                    \
    X(UNKNOWN, -16, 14, 3, "the outcome is unknown")                 \
    X(TIMEOUT, -17, 4, 3, "deadline exceeded")                       \
    X(CANCELLED, -18, 1, 3, "cancelled")                             \
    X(CORRUPT, -19, 15, 7, "damaged data")                           \
    X(IO, -20, 13, 7, "input/output error")                          \
    X(LOCKED, -21, 9, 7, "locked by another process")                \
    X(VERSION, -22, 9, 7, "format is newer than this program")       \
    X(FOREIGN, -23, 9, 7, "belongs to another cluster")              \
    X(CONNECT, -24, 14, 3, "cannot connect")                         \
    X(CLOSED, -25, 14, 3, "connection closed")                       \
    X(PROTOCOL, -26, 13, 3, "protocol error")                        \
    X(TOOBIG, -27, 8, 2, "too large")                                \
    X(READONLY, -28, 9, 7, "read-only")                              \
    X(INUSE, -29, 9, 7, "address already in use")

enum hw_err {
    HW_OK = 0,
#define X(name, code, grpc, exit, text) HW_ERR_##name = code,
    HW_ERR_LIST(X)
#undef X
};

/* Stable name ("NOSPACE"), text, gRPC status and exit code of a code; 0 gives "OK", "ok", 0, 0. */
const char *hw_err_name(int code);
const char *hw_err_text(int code);
int hw_err_grpc(int code);
int hw_err_exit(int code);

/* The code of a name; 0 when the name is not in the list. */
int hw_err_by_name(const char *name);

/* The nearest code for an errno value, e.g. ENOSPC -> HW_ERR_NOSPACE. Never 0. */
int hw_err_from_errno(int errnum);

#define HW_ERROR_TEXT_MAX 512

struct hw_error {
    int code;
    char text[HW_ERROR_TEXT_MAX];
};

/* Set code and text; returns code, so that `return hw_error_set(...)` reads well. */
int hw_error_set(struct hw_error *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As hw_error_set, with ": <strerror(errnum)>" at the end and the code that fits errnum. */
int hw_error_errno(struct hw_error *e, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Prefix the text with "<what>: "; returns e->code (HW_ERR_INTERNAL with a NULL carrier). */
int hw_error_wrap(struct hw_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The text, or the code's own text when none was set. */
const char *hw_error_text(const struct hw_error *e);

#endif
