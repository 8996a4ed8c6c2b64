#include "agent/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct entry {
    int code;
    int grpc;
    int exit;
    const char *name;
    const char *text;
};

static const struct entry table[] = {{0, 0, 0, "OK", "ok"},
#define X(name, code, grpc, exit, text) {code, grpc, exit, #name, text},
                                     HW_ERR_LIST(X)
#undef X
};

static const struct entry *find(int code)
{
    static const struct entry unlisted = {HW_ERR_INTERNAL, 13, 70, "INTERNAL", "internal error"};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].code == code) {
            return &table[i];
        }
    }
    return &unlisted;
}

const char *hw_err_name(int code)
{
    return find(code)->name;
}

const char *hw_err_text(int code)
{
    return find(code)->text;
}

int hw_err_grpc(int code)
{
    return find(code)->grpc;
}

int hw_err_exit(int code)
{
    return find(code)->exit;
}

int hw_err_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].name, name) == 0) {
            return table[i].code;
        }
    }
    return 0;
}

int hw_err_from_errno(int errnum)
{
    switch (errnum) {
    case ENOMEM:
        return HW_ERR_NOMEM;
    case EINVAL:
    case ENOTDIR:
    case ENAMETOOLONG:
        return HW_ERR_INVALID;
    case ENOENT:
        return HW_ERR_NOTFOUND;
    case EEXIST:
        return HW_ERR_EXISTS;
    case EACCES:
    case EPERM:
        return HW_ERR_DENIED;
    case ENOSPC:
    case EDQUOT:
        return HW_ERR_NOSPACE;
    case EROFS:
        return HW_ERR_READONLY;
    case EADDRINUSE:
        return HW_ERR_INUSE;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return HW_ERR_CONNECT;
    case ETIMEDOUT:
        return HW_ERR_TIMEOUT;
    case ECONNRESET:
    case EPIPE:
        return HW_ERR_CLOSED;
    case EFBIG:
    case EMSGSIZE:
        return HW_ERR_TOOBIG;
    case EMFILE:
    case ENFILE:
        return HW_ERR_EXHAUSTED;
    default:
        return HW_ERR_IO;
    }
}

int hw_error_set(struct hw_error *e, int code, const char *fmt, ...)
{
    va_list ap;
    if (e == NULL) {
        return code;
    }
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    return code;
}

int hw_error_errno(struct hw_error *e, int errnum, const char *fmt, ...)
{
    int code = hw_err_from_errno(errnum);
    va_list ap;
    size_t used;
    if (e == NULL) {
        return code;
    }
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    used = strlen(e->text);
    snprintf(e->text + used, sizeof e->text - used, ": %s", strerror(errnum));
    return code;
}

int hw_error_wrap(struct hw_error *e, const char *fmt, ...)
{
    char what[HW_ERROR_TEXT_MAX];
    char inner[HW_ERROR_TEXT_MAX];
    va_list ap;
    if (e == NULL) {
        return HW_ERR_INTERNAL;
    }
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    memcpy(inner, hw_error_text(e), strlen(hw_error_text(e)) + 1);
    size_t used = strlen(what);
    if (used > sizeof e->text - 3) {
        used = sizeof e->text - 3;
    }
    memcpy(e->text, what, used);
    snprintf(e->text + used, sizeof e->text - used, ": %s", inner);
    return e->code;
}

const char *hw_error_text(const struct hw_error *e)
{
    if (e == NULL) {
        return "unknown error";
    }
    return e->text[0] != '\0' ? e->text : hw_err_text(e->code);
}
