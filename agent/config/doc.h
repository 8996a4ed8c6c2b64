/* A YAML document as a tree of our own nodes, each with its line: the one file that includes yaml.h is doc.c.
 *
 * The subset is small on purpose: one document of mappings, lists and scalars. Anchors, aliases and tags are problems
 * (an alias can make a small file stand for an endless one). Depth, nodes and size are bounded. Nothing here knows
 * keys.
 *
 * Life cycle: hw_doc_read, then hw_doc_free, also after an error. Texts live as long as the document. Private to
 * agent/config.
 */
#ifndef HW_CONFIG_DOC_H
#define HW_CONFIG_DOC_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#define HW_DOC_BYTES_MAX (1024 * 1024)
#define HW_DOC_DEPTH_MAX 8
#define HW_DOC_NODES_MAX 2000

enum hw_doc_kind { HW_DOC_SCALAR, HW_DOC_MAP, HW_DOC_LIST };

struct hw_doc_node {
    enum hw_doc_kind kind;
    int line;         /* from 1: of the key in a mapping, else of the value */
    bool is_null;     /* nothing, ~ or null */
    bool is_refused;  /* a problem was reported already: do not look at the value */
    const char *key;  /* in a mapping, else NULL */
    const char *text; /* of a scalar: no NUL inside */
    TAILQ_HEAD(hw_doc_children, hw_doc_node) children;
    TAILQ_ENTRY(hw_doc_node) link; /* in the parent's children */
    STAILQ_ENTRY(hw_doc_node) all;
};

struct hw_doc {
    struct hw_doc_node *root; /* NULL: the document is empty */
    bool is_cut;              /* reading stopped at a problem: there is more in the file than in the tree */
    size_t node_count;
    STAILQ_HEAD(hw_doc_all, hw_doc_node) nodes;
};

typedef void (*hw_doc_problem_fn)(void *ctx, int line, const char *text);

/* Problems go to on_problem, in the order of the file. 0 (also with problems) or HW_ERR_NOMEM. */
int hw_doc_read(struct hw_doc *doc, const void *text, size_t len, hw_doc_problem_fn on_problem, void *ctx);
void hw_doc_free(struct hw_doc *doc);

#endif
