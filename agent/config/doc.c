#include "agent/config/doc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "agent/base/assert.h"
#include "agent/base/err.h"

/* Events and not yaml_parser_load: that one drops anchors without a trace, and the whole document at a syntax error;
 * here what stands before the error is still checked. */
struct reading {
    struct hw_doc *doc;
    const char *text;
    size_t len;
    hw_doc_problem_fn on_problem;
    void *ctx;
    struct hw_doc_node *open[HW_DOC_DEPTH_MAX]; /* mappings and lists not ended yet, outermost first */
    size_t depth;
    char *key; /* of the innermost mapping, waiting for its value */
    int key_line;
    bool is_key_refused;
    bool is_done; /* nothing more is to be read */
    int status;
};

static void problem(struct reading *r, int line, const char *text)
{
    r->on_problem(r->ctx, line, text);
}

static void stop(struct reading *r, int line, const char *text)
{
    problem(r, line, text);
    r->doc->is_cut = true;
    r->is_done = true;
}

static void fail(struct reading *r)
{
    r->status = HW_ERR_NOMEM;
    r->is_done = true;
}

static bool is_null_text(const yaml_event_t *e)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    if (e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) {
        return false;
    }
    for (size_t i = 0; i < hw_array_len(nulls); i++) {
        if (strcmp((const char *)e->data.scalar.value, nulls[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Says what is refused about a node; true when there was something. */
static bool is_forbidden(struct reading *r, int line, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor != NULL) {
        problem(r, line, "anchors (&) are not read here; write the value where it is used");
    }
    if (tag != NULL) {
        problem(r, line, "tags (!) are not read here; write the plain value");
    }
    return anchor != NULL || tag != NULL;
}

static bool is_key_expected(const struct reading *r)
{
    return r->depth > 0 && r->open[r->depth - 1]->kind == HW_DOC_MAP && r->key == NULL;
}

static struct hw_doc_node *add_node(struct reading *r, enum hw_doc_kind kind, int line)
{
    struct hw_doc *doc = r->doc;
    struct hw_doc_node *node;
    if (doc->node_count == HW_DOC_NODES_MAX) {
        stop(r, line, "the file has more than 2000 values; reading stops here");
        return NULL;
    }
    node = calloc(1, sizeof *node);
    if (node == NULL) {
        fail(r);
        return NULL;
    }
    node->kind = kind;
    node->line = line;
    TAILQ_INIT(&node->children);
    STAILQ_INSERT_TAIL(&doc->nodes, node, all);
    doc->node_count++;
    if (r->depth == 0) {
        doc->root = node;
        return node;
    }
    TAILQ_INSERT_TAIL(&r->open[r->depth - 1]->children, node, link);
    if (r->key != NULL) {
        node->key = r->key;
        node->line = r->key_line;
        node->is_refused = r->is_key_refused;
        r->key = NULL;
        r->is_key_refused = false;
    }
    return node;
}

static void on_scalar(struct reading *r, const yaml_event_t *e, int line)
{
    bool is_bad = is_forbidden(r, line, e->data.scalar.anchor, e->data.scalar.tag);
    const char *value = (const char *)e->data.scalar.value;
    struct hw_doc_node *node;
    char *copy;
    if (memchr(value, '\0', e->data.scalar.length) != NULL) {
        problem(r, line, "a text has a NUL character inside");
        is_bad = true;
    }
    copy = strdup(value);
    if (copy == NULL) {
        fail(r);
        return;
    }
    if (is_key_expected(r)) {
        r->key = copy;
        r->key_line = line;
        r->is_key_refused = is_bad;
        return;
    }
    node = add_node(r, HW_DOC_SCALAR, line);
    if (node == NULL) {
        free(copy);
        return;
    }
    node->text = copy;
    node->is_null = is_null_text(e);
    node->is_refused |= is_bad;
}

static void on_alias(struct reading *r, int line)
{
    problem(r, line, "aliases (*) are not read here; write the value itself");
    if (is_key_expected(r)) {
        r->key = strdup("");
        r->key_line = line;
        r->is_key_refused = true;
        if (r->key == NULL) {
            fail(r);
        }
    } else {
        struct hw_doc_node *node = add_node(r, HW_DOC_SCALAR, line);
        if (node != NULL) {
            node->is_refused = true;
        }
    }
}

static void on_open(struct reading *r, enum hw_doc_kind kind, int line, const yaml_char_t *anchor,
                    const yaml_char_t *tag)
{
    struct hw_doc_node *node;
    if (is_key_expected(r)) {
        stop(r, line, "a key must be a plain word, not a list or a group; reading stops here");
        return;
    }
    if (r->depth == HW_DOC_DEPTH_MAX) {
        stop(r, line, "nested deeper than 8 levels; reading stops here");
        return;
    }
    is_forbidden(r, line, anchor, tag); /* what is inside can be looked at all the same */
    node = add_node(r, kind, line);
    if (node != NULL) {
        r->open[r->depth++] = node;
    }
}

static void on_event(struct reading *r, const yaml_event_t *e)
{
    int line = (int)e->start_mark.line + 1;
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        on_scalar(r, e, line);
        break;
    case YAML_ALIAS_EVENT:
        on_alias(r, line);
        break;
    case YAML_MAPPING_START_EVENT:
        on_open(r, HW_DOC_MAP, line, e->data.mapping_start.anchor, e->data.mapping_start.tag);
        break;
    case YAML_SEQUENCE_START_EVENT:
        on_open(r, HW_DOC_LIST, line, e->data.sequence_start.anchor, e->data.sequence_start.tag);
        break;
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        hw_assert(r->depth > 0 && r->key == NULL);
        r->depth--;
        break;
    case YAML_DOCUMENT_START_EVENT:
        if (r->doc->root != NULL) {
            stop(r, line, "a second document (---) begins here; the file must hold one");
        }
        break;
    case YAML_STREAM_END_EVENT:
        r->is_done = true;
        break;
    default:
        break;
    }
}

static int line_of_offset(const struct reading *r, size_t offset)
{
    int line = 1;
    for (size_t i = 0; i < offset && i < r->len; i++) {
        line += r->text[i] == '\n';
    }
    return line;
}

static bool is_tab_indented(const struct reading *r, int line)
{
    const char *p = r->text;
    const char *end = r->text + r->len;
    for (int at = 1; at < line; at++) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        if (eol == NULL) {
            return false;
        }
        p = eol + 1;
    }
    while (p < end && *p == ' ') {
        p++;
    }
    return p < end && *p == '\t';
}

static void on_parse_error(struct reading *r, const yaml_parser_t *p)
{
    char text[256];
    int line = (int)p->problem_mark.line + 1;
    if (p->error == YAML_MEMORY_ERROR) {
        fail(r);
        return;
    }
    if (p->error == YAML_READER_ERROR) {
        line = line_of_offset(r, p->problem_offset);
        snprintf(text, sizeof text, "not UTF-8 text: %s; save the file as UTF-8", p->problem);
    } else if (is_tab_indented(r, line)) {
        snprintf(text, sizeof text, "a tab in the indentation; YAML is indented with spaces");
    } else {
        snprintf(text, sizeof text, "not YAML: %s%s%s; what follows was not read", p->context ? p->context : "",
                 p->context ? ", " : "", p->problem ? p->problem : "unknown problem");
    }
    stop(r, line, text);
}

int hw_doc_read(struct hw_doc *doc, const void *text, size_t len, hw_doc_problem_fn on_problem, void *ctx)
{
    struct reading r = {.doc = doc, .text = text, .len = len, .on_problem = on_problem, .ctx = ctx};
    yaml_parser_t parser;
    memset(doc, 0, sizeof *doc);
    STAILQ_INIT(&doc->nodes);
    if (len > HW_DOC_BYTES_MAX) {
        stop(&r, 1, "larger than 1 MiB, which is the most that is read");
        return 0;
    }
    if (yaml_parser_initialize(&parser) == 0) {
        return HW_ERR_NOMEM;
    }
    /* Named, so that a byte order mark cannot switch to UTF-16. */
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, text, len);
    while (!r.is_done) {
        yaml_event_t event;
        if (yaml_parser_parse(&parser, &event) == 0) {
            on_parse_error(&r, &parser);
            break;
        }
        on_event(&r, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    free(r.key);
    return r.status;
}

void hw_doc_free(struct hw_doc *doc)
{
    while (!STAILQ_EMPTY(&doc->nodes)) {
        struct hw_doc_node *node = STAILQ_FIRST(&doc->nodes);
        STAILQ_REMOVE_HEAD(&doc->nodes, all);
        free((char *)node->key);
        free((char *)node->text);
        free(node);
    }
    doc->root = NULL;
}
