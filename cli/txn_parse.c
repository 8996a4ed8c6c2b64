#include "cli/txn_parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "cli/range.h"

/* The message is built from malloc alone, so that free_unpacked of protobuf-c can take it apart, whole or half made. */

struct parser {
    const uint8_t *pos;
    const uint8_t *line_end;
    const uint8_t *line_start;
    unsigned line;
    struct hw_ctl_txn_place *place;
    struct hw_error *e;
    struct hw_buf word; /* the last word, unescaped */
    const uint8_t *word_at;
    bool is_quoted;
    Etcdserverpb__TxnRequest *txn;
};

__attribute__((format(printf, 3, 4))) static int fail(struct parser *p, const uint8_t *at, const char *fmt, ...)
{
    char why[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    p->place->line = p->line;
    p->place->column = (unsigned)(at - p->line_start) + 1;
    return hw_error_set(p->e, HW_ERR_INVALID, "line %u, column %u: %s", p->place->line, p->place->column, why);
}

static int no_memory(struct parser *p)
{
    return hw_error_set(p->e, HW_ERR_NOMEM, "out of memory");
}

/* ---- words ---- */

static void skip_blanks(struct parser *p)
{
    while (p->pos < p->line_end && (*p->pos == ' ' || *p->pos == '\t' || *p->pos == '\r')) {
        p->pos++;
    }
}

static bool is_at_end(struct parser *p)
{
    skip_blanks(p);
    return p->pos == p->line_end || *p->pos == '#';
}

static int hex_digit(int c)
{
    return isdigit(c) ? c - '0' : isxdigit(c) ? tolower(c) - 'a' + 10 : -1;
}

static int read_escape(struct parser *p)
{
    static const char from[] = "nrt\\\"";
    static const char to[] = "\n\r\t\\\"";
    const uint8_t *at = p->pos - 1; /* the backslash */
    const char *known;
    if (p->pos == p->line_end) {
        return fail(p, at, "the quote is not closed");
    }
    if (*p->pos == 'x') {
        int high = p->pos + 1 < p->line_end ? hex_digit(p->pos[1]) : -1;
        int low = p->pos + 2 < p->line_end ? hex_digit(p->pos[2]) : -1;
        if (high < 0 || low < 0) {
            return fail(p, at, "\\x wants two hexadecimal digits");
        }
        hw_buf_put_u8(&p->word, (uint8_t)(high << 4 | low));
        p->pos += 3;
        return 0;
    }
    known = *p->pos != '\0' ? strchr(from, *p->pos) : NULL;
    if (known == NULL) {
        return fail(p, at, "unknown escape; known: \\n \\r \\t \\\\ \\\" \\xNN");
    }
    hw_buf_put_u8(&p->word, (uint8_t)to[known - from]);
    p->pos++;
    return 0;
}

static int read_quoted(struct parser *p)
{
    p->pos++;
    p->is_quoted = true;
    for (;;) {
        if (p->pos == p->line_end) {
            return fail(p, p->word_at, "the quote is not closed");
        }
        uint8_t c = *p->pos++;
        if (c == '"') {
            return p->word.failed ? no_memory(p) : 0;
        }
        if (c == '\\') {
            int rc = read_escape(p);
            if (rc != 0) {
                return rc;
            }
        } else {
            hw_buf_put_u8(&p->word, c);
        }
    }
}

static bool is_bare(uint8_t c)
{
    return c > ' ' && c != 0x7f && strchr("\"()#", c) == NULL;
}

/* A word into p->word; `what` says what was wanted. */
static int read_word(struct parser *p, const char *what)
{
    hw_buf_clear(&p->word);
    p->is_quoted = false;
    if (is_at_end(p)) {
        return fail(p, p->pos, "%s is missing", what);
    }
    p->word_at = p->pos;
    if (*p->pos == '"') {
        return read_quoted(p);
    }
    while (p->pos < p->line_end && is_bare(*p->pos)) {
        hw_buf_put_u8(&p->word, *p->pos++);
    }
    if (p->pos == p->word_at) {
        return fail(p, p->pos, "want %s, not '%c'", what, isprint(*p->pos) ? *p->pos : '?');
    }
    return p->word.failed ? no_memory(p) : 0;
}

static bool is_word(const struct parser *p, const char *text)
{
    return !p->is_quoted && hw_slice_is_equal(hw_buf_slice(&p->word), hw_slice_str(text));
}

static int read_bytes(struct parser *p, const char *what, bool may_be_empty, ProtobufCBinaryData *out)
{
    int rc = read_word(p, what);
    if (rc != 0) {
        return rc;
    }
    if (p->word.len == 0 && !may_be_empty) {
        return fail(p, p->word_at, "%s is empty", what);
    }
    out->data = malloc(p->word.len + 1);
    if (out->data == NULL) {
        return no_memory(p);
    }
    out->len = p->word.len;
    if (out->len > 0) {
        memcpy(out->data, p->word.data, out->len);
    }
    return 0;
}

static int read_number(struct parser *p, const char *what, int64_t *out)
{
    char text[32];
    char *end;
    int rc = read_word(p, what);
    if (rc != 0) {
        return rc;
    }
    snprintf(text, sizeof text, "%.*s", (int)(p->word.len < 31 ? p->word.len : 31), (const char *)p->word.data);
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (p->is_quoted || p->word.len > 30 || end == text || *end != '\0' || errno != 0 || *out < 0) {
        return fail(p, p->word_at, "%s is a number from 0, without quotes", what);
    }
    return 0;
}

static int expect(struct parser *p, char c, const char *after)
{
    skip_blanks(p);
    if (p->pos == p->line_end || *p->pos != c) {
        return fail(p, p->pos, "want '%c' after %s", c, after);
    }
    p->pos++;
    return 0;
}

/* ---- ranges ---- */

/* "prefix", "from-key" or "to END" behind a key; *matched tells whether the word was one of them. */
static int read_range_option(struct parser *p, ProtobufCBinaryData *key, ProtobufCBinaryData *range_end, bool *matched)
{
    bool is_prefix = is_word(p, "prefix");
    struct hw_buf buf = {0};
    struct hw_slice k = hw_slice_of(key->data, key->len);
    struct hw_slice end;
    *matched = is_prefix || is_word(p, "from-key") || is_word(p, "to");
    if (!*matched) {
        return 0;
    }
    if (range_end->data != NULL) {
        return fail(p, p->word_at, "prefix, from-key and to exclude each other");
    }
    if (is_word(p, "to")) {
        return read_bytes(p, "the end of the range", false, range_end);
    }
    hw_ctl_range_of(is_prefix ? HW_CTL_RANGE_PREFIX : HW_CTL_RANGE_FROM, &k, &end, &buf);
    range_end->data = buf.failed ? NULL : malloc(end.len);
    if (range_end->data != NULL) {
        memcpy(range_end->data, end.data, end.len);
        range_end->len = end.len;
    }
    if (range_end->data != NULL && key->len == 0) { /* read_bytes left room for the one byte */
        key->data[0] = 0;
        key->len = 1;
    }
    hw_buf_free(&buf);
    return range_end->data != NULL ? 0 : no_memory(p);
}

/* ---- conditions ---- */

struct target {
    const char *name;
    Etcdserverpb__Compare__CompareTarget target;
    Etcdserverpb__Compare__TargetUnionCase which;
};

static const struct target targets[] = {
    {"value", ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE, ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE},
    {"version", ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION, ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION},
    {"create", ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE, ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION},
    {"mod", ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD, ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION},
    {"lease", ETCDSERVERPB__COMPARE__COMPARE_TARGET__LEASE, ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE},
};

static int read_operator(struct parser *p, Etcdserverpb__Compare__CompareResult *result)
{
    skip_blanks(p);
    if (p->pos < p->line_end && *p->pos == '=') {
        *result = ETCDSERVERPB__COMPARE__COMPARE_RESULT__EQUAL;
    } else if (p->pos < p->line_end && *p->pos == '<') {
        *result = ETCDSERVERPB__COMPARE__COMPARE_RESULT__LESS;
    } else if (p->pos < p->line_end && *p->pos == '>') {
        *result = ETCDSERVERPB__COMPARE__COMPARE_RESULT__GREATER;
    } else if (p->pos + 1 < p->line_end && p->pos[0] == '!' && p->pos[1] == '=') {
        *result = ETCDSERVERPB__COMPARE__COMPARE_RESULT__NOT_EQUAL;
        p->pos++;
    } else {
        return fail(p, p->pos, "want one of = != < >");
    }
    p->pos++;
    return 0;
}

/* "(KEY [prefix])" */
static int read_subject(struct parser *p, Etcdserverpb__Compare *c)
{
    bool matched = false;
    int rc = expect(p, '(', "the target");
    if (rc == 0) {
        rc = read_bytes(p, "the key", true, &c->key);
    }
    skip_blanks(p);
    if (rc == 0 && p->pos < p->line_end && *p->pos != ')') {
        rc = read_word(p, "')'");
        if (rc == 0) {
            rc = read_range_option(p, &c->key, &c->range_end, &matched);
        }
        if (rc == 0 && !matched) {
            rc = fail(p, p->word_at, "want ')', prefix, from-key or to END behind the key");
        }
    }
    if (rc == 0) {
        rc = expect(p, ')', "the key");
    }
    return rc == 0 && c->key.len == 0 ? fail(p, p->word_at, "the key is empty") : rc;
}

static int read_condition(struct parser *p, Etcdserverpb__Compare *c)
{
    const uint8_t *at;
    int rc = read_word(p, "a condition");
    if (rc != 0) {
        return rc;
    }
    at = p->word_at;
    if (is_word(p, "exists") || is_word(p, "missing")) {
        c->result = is_word(p, "exists") ? ETCDSERVERPB__COMPARE__COMPARE_RESULT__GREATER
                                         : ETCDSERVERPB__COMPARE__COMPARE_RESULT__EQUAL;
        c->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION;
        c->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION;
        return read_subject(p, c);
    }
    for (size_t i = 0; i < hw_array_len(targets); i++) {
        if (!is_word(p, targets[i].name)) {
            continue;
        }
        rc = read_subject(p, c);
        if (rc == 0) {
            rc = read_operator(p, &c->result);
        }
        if (rc != 0) {
            return rc;
        }
        c->target = targets[i].target;
        if (targets[i].which == ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE) {
            rc = read_bytes(p, "the value", true, &c->value);
        } else {
            rc = read_number(p, "the operand", &c->version); /* all numbers of the union share their place */
        }
        c->target_union_case = rc == 0 ? targets[i].which : ETCDSERVERPB__COMPARE__TARGET_UNION__NOT_SET;
        return rc;
    }
    return fail(p, at, "want a condition: value, version, create, mod, lease, exists or missing, then (KEY)");
}

/* ---- operations ---- */

static int unknown_option(struct parser *p, const char *known)
{
    return fail(p, p->word_at, "unknown word \"%.*s\"; may follow: %s", (int)(p->word.len < 40 ? p->word.len : 40),
                (const char *)p->word.data, known);
}

static int read_put(struct parser *p, Etcdserverpb__PutRequest *q)
{
    int rc = read_bytes(p, "the key", false, &q->key);
    if (rc == 0) {
        rc = read_bytes(p, "the value", true, &q->value);
    }
    while (rc == 0 && !is_at_end(p)) {
        rc = read_word(p, "an option");
        if (rc == 0 && is_word(p, "lease")) {
            rc = read_number(p, "the lease", &q->lease);
        } else if (rc == 0 && is_word(p, "prev-kv")) {
            q->prev_kv = true;
        } else if (rc == 0) {
            rc = unknown_option(p, "lease N, prev-kv (quote a value that holds spaces)");
        }
    }
    return rc;
}

static int read_get(struct parser *p, Etcdserverpb__RangeRequest *q)
{
    bool matched;
    int rc = read_bytes(p, "the key", true, &q->key);
    const uint8_t *key_at = p->word_at;
    while (rc == 0 && !is_at_end(p)) {
        rc = read_word(p, "an option");
        if (rc == 0) {
            rc = read_range_option(p, &q->key, &q->range_end, &matched);
        }
        if (rc != 0 || matched) {
            continue;
        }
        if (is_word(p, "limit")) {
            rc = read_number(p, "the limit", &q->limit);
        } else if (is_word(p, "rev")) {
            rc = read_number(p, "the revision", &q->revision);
        } else if (is_word(p, "keys-only")) {
            q->keys_only = true;
        } else if (is_word(p, "count-only")) {
            q->count_only = true;
        } else {
            rc = unknown_option(p, "prefix, from-key, to END, limit N, rev N, keys-only, count-only");
        }
    }
    return rc == 0 && q->key.len == 0 ? fail(p, key_at, "the key is empty") : rc;
}

static int read_del(struct parser *p, Etcdserverpb__DeleteRangeRequest *q)
{
    bool matched;
    int rc = read_bytes(p, "the key", true, &q->key);
    const uint8_t *key_at = p->word_at;
    while (rc == 0 && !is_at_end(p)) {
        rc = read_word(p, "an option");
        if (rc == 0) {
            rc = read_range_option(p, &q->key, &q->range_end, &matched);
        }
        if (rc == 0 && !matched && is_word(p, "prev-kv")) {
            q->prev_kv = true;
        } else if (rc == 0 && !matched) {
            rc = unknown_option(p, "prefix, from-key, to END, prev-kv");
        }
    }
    return rc == 0 && q->key.len == 0 ? fail(p, key_at, "the key is empty") : rc;
}

static int read_operation(struct parser *p, Etcdserverpb__RequestOp *op)
{
    int rc = read_word(p, "an operation (put, get or del)");
    if (rc != 0) {
        return rc;
    }
    if (is_word(p, "put")) {
        op->request_put = malloc(sizeof *op->request_put);
        if (op->request_put == NULL) {
            return no_memory(p);
        }
        etcdserverpb__put_request__init(op->request_put);
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
        return read_put(p, op->request_put);
    }
    if (is_word(p, "get")) {
        op->request_range = malloc(sizeof *op->request_range);
        if (op->request_range == NULL) {
            return no_memory(p);
        }
        etcdserverpb__range_request__init(op->request_range);
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
        return read_get(p, op->request_range);
    }
    if (is_word(p, "del")) {
        op->request_delete_range = malloc(sizeof *op->request_delete_range);
        if (op->request_delete_range == NULL) {
            return no_memory(p);
        }
        etcdserverpb__delete_range_request__init(op->request_delete_range);
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
        return read_del(p, op->request_delete_range);
    }
    return fail(p, p->word_at, "want an operation: put, get or del");
}

/* ---- lines ---- */

/* Room for one more pointer in a growing list. */
static int grow(struct parser *p, void *list, size_t count)
{
    void **grown;
    void ***slot = list;
    if (count >= HW_CTL_TXN_OPS_MAX) {
        return fail(p, p->word_at, "more than %d lines of this kind", HW_CTL_TXN_OPS_MAX);
    }
    grown = realloc(*slot, (count + 1) * sizeof *grown);
    if (grown == NULL) {
        return no_memory(p);
    }
    *slot = grown;
    return 0;
}

static int add_condition(struct parser *p)
{
    Etcdserverpb__Compare *c;
    int rc = grow(p, &p->txn->compare, p->txn->n_compare);
    if (rc != 0) {
        return rc;
    }
    c = malloc(sizeof *c);
    if (c == NULL) {
        return no_memory(p);
    }
    etcdserverpb__compare__init(c);
    p->txn->compare[p->txn->n_compare++] = c;
    return read_condition(p, c);
}

static int add_operation(struct parser *p, Etcdserverpb__RequestOp ***list, size_t *count)
{
    Etcdserverpb__RequestOp *op;
    int rc = grow(p, list, *count);
    if (rc != 0) {
        return rc;
    }
    op = malloc(sizeof *op);
    if (op == NULL) {
        return no_memory(p);
    }
    etcdserverpb__request_op__init(op);
    (*list)[(*count)++] = op;
    return read_operation(p, op);
}

static int read_line(struct parser *p)
{
    int rc;
    if (is_at_end(p)) {
        return 0;
    }
    rc = read_word(p, "if, then or else");
    if (rc != 0) {
        return rc;
    }
    if (is_word(p, "if")) {
        rc = add_condition(p);
    } else if (is_word(p, "then")) {
        rc = add_operation(p, &p->txn->success, &p->txn->n_success);
    } else if (is_word(p, "else")) {
        rc = add_operation(p, &p->txn->failure, &p->txn->n_failure);
    } else {
        return fail(p, p->word_at, "a line begins with if, then or else");
    }
    return rc == 0 && !is_at_end(p) ? fail(p, p->pos, "nothing may follow here") : rc;
}

int hw_ctl_txn_parse(struct hw_slice text, Etcdserverpb__TxnRequest **txn, struct hw_ctl_txn_place *place,
                     struct hw_error *e)
{
    const uint8_t *end = text.data + text.len;
    struct parser p = {.pos = text.data, .place = place, .e = e};
    int rc = 0;
    *txn = NULL;
    *place = (struct hw_ctl_txn_place){0, 0};
    p.txn = malloc(sizeof *p.txn);
    if (p.txn == NULL) {
        return no_memory(&p);
    }
    etcdserverpb__txn_request__init(p.txn);
    while (rc == 0 && p.pos < end) {
        const uint8_t *newline = memchr(p.pos, '\n', (size_t)(end - p.pos));
        p.line++;
        p.line_start = p.pos;
        p.line_end = newline != NULL ? newline : end;
        rc = read_line(&p);
        p.pos = newline != NULL ? newline + 1 : end;
    }
    if (rc == 0 && p.txn->n_success + p.txn->n_failure == 0) {
        rc = hw_error_set(e, HW_ERR_INVALID, "the transaction has no operation; want a line like: then put KEY VALUE");
    }
    hw_buf_free(&p.word);
    if (rc != 0) {
        etcdserverpb__txn_request__free_unpacked(p.txn, NULL);
        return rc;
    }
    *txn = p.txn;
    return 0;
}
