/* From a document to a struct hw_config: every key looked up in the schema, every problem reported where it stands. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/config/doc.h"
#include "agent/config/load.h"
#include "agent/config/value.h"

#define PATH_MAX_ 160
#define KNOWN_MAX 512

static void on_doc_problem(void *ctx, int line, const char *text)
{
    struct hw_config_loading *l = ctx;
    hw_config_report_at(&l->report, line, NULL, "%s", text);
}

/* "raft.tick_ms" from "raft." and "tick_ms"; quoted when it has characters that no key has. */
static const char *join_path(const char *prefix, const char *key, char path[PATH_MAX_])
{
    size_t plain = strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    if (key[0] != '\0' && key[plain] == '\0') {
        snprintf(path, PATH_MAX_, "%s%s", prefix, key);
    } else {
        snprintf(path, PATH_MAX_, "%s%s", prefix, hw_logq_into(key, (char[64]){0}, 64));
    }
    return path;
}

/* The keys directly below a prefix ("raft." or ""), comma-separated. */
static const char *known_keys(const char *prefix, char known[KNOWN_MAX])
{
    size_t prefix_len = strlen(prefix);
    const char *last = "";
    size_t last_len = 0;
    size_t n = 0;
    for (size_t i = 0; i < hw_config_row_count; i++) {
        const char *key = hw_config_rows[i].key + prefix_len;
        size_t len;
        if (strncmp(hw_config_rows[i].key, prefix, prefix_len) != 0) {
            continue;
        }
        len = strcspn(key, ".");
        if (len == last_len && strncmp(key, last, len) == 0) {
            continue;
        }
        n += (size_t)snprintf(known + n, KNOWN_MAX - n, "%s%.*s", n > 0 ? ", " : "", (int)len, key);
        hw_assert(n < KNOWN_MAX);
        last = key;
        last_len = len;
    }
    return known;
}

static void read_scalar(struct hw_config_loading *l, const struct hw_config_row *row, const struct hw_doc_node *node)
{
    struct hw_config_origin *origin = hw_config_origin(l, row);
    char why[HW_CONFIG_WHY_MAX];
    if (node->kind != HW_DOC_SCALAR) {
        origin->is_bad = true;
        hw_config_report_at(&l->report, node->line, row->key, "is a %s; one value belongs here",
                            node->kind == HW_DOC_MAP ? "group of keys" : "list");
    } else if (node->is_null) {
        origin->is_bad = true;
        hw_config_report_at(&l->report, node->line, row->key, "has no value; give it one or remove the key");
    } else if (hw_config_set(l->c, row, node->text, why) != 0) {
        origin->is_bad = true;
        hw_config_report_at(&l->report, node->line, row->key, "%s", why);
    }
}

/* A key that every item of a list has. */
static void read_item_key(struct hw_config_loading *l, const struct hw_doc_node *item, const char *path,
                          const char *key, enum hw_config_type type, char *out, size_t size)
{
    const struct hw_doc_node *node;
    int seen_line = 0;
    char key_path[PATH_MAX_ + 16];
    char why[HW_CONFIG_WHY_MAX];
    snprintf(key_path, sizeof key_path, "%s.%s", path, key);
    TAILQ_FOREACH(node, &item->children, link) {
        if (strcmp(node->key, key) != 0) {
            continue;
        }
        if (seen_line > 0) {
            hw_config_report_at(&l->report, node->line, key_path, "is given twice; the first is in line %d", seen_line);
        } else if (node->is_refused) {
            out[0] = '\0';
        } else if (node->kind != HW_DOC_SCALAR || node->is_null) {
            hw_config_report_at(&l->report, node->line, key_path, "has no value; one text belongs here");
        } else if (hw_config_set_item(type, node->text, out, size, why) != 0) {
            hw_config_report_at(&l->report, node->line, key_path, "%s", why);
        }
        seen_line = seen_line > 0 ? seen_line : node->line;
    }
    if (seen_line == 0) {
        hw_config_report_at(&l->report, item->line, key_path, "is missing; an item is {name: NAME, peer: HOST:PORT}");
    }
}

static void read_peer(struct hw_config_loading *l, const struct hw_doc_node *item, const char *path,
                      struct hw_config_peer *peer)
{
    const struct hw_doc_node *node;
    if (item->kind != HW_DOC_MAP) {
        hw_config_report_at(&l->report, item->line, path, "is not of the form {name: NAME, peer: HOST:PORT}");
        return;
    }
    read_item_key(l, item, path, "name", HW_CONFIG_NAME, peer->name, sizeof peer->name);
    read_item_key(l, item, path, "peer", HW_CONFIG_ADDRESS, peer->peer, sizeof peer->peer);
    TAILQ_FOREACH(node, &item->children, link) {
        if (!node->is_refused && strcmp(node->key, "name") != 0 && strcmp(node->key, "peer") != 0) {
            char prefix[PATH_MAX_];
            char key_path[PATH_MAX_];
            snprintf(prefix, sizeof prefix, "%s.", path);
            hw_config_report_at(&l->report, node->line, join_path(prefix, node->key, key_path),
                                "is not a known key; known here: name, peer");
        }
    }
}

static void read_list(struct hw_config_loading *l, const struct hw_config_row *row, const struct hw_doc_node *list)
{
    struct hw_config *c = l->c;
    bool is_peers = row->type == HW_CONFIG_PEERS;
    size_t problems = l->report.count + l->report.left_out;
    struct hw_doc_node *item;
    size_t count = 0;
    if (list->kind != HW_DOC_LIST && !list->is_null) {
        hw_config_report_at(&l->report, list->line, row->key,
                            "is not a list; write one item a line, each after \"- \"");
        hw_config_origin(l, row)->is_bad = true;
        return;
    }
    TAILQ_FOREACH(item, &list->children, link) {
        char path[HW_CONFIG_KEY_MAX + 24];
        char why[HW_CONFIG_WHY_MAX];
        size_t i = count++;
        if (i >= HW_CONFIG_NODES_MAX) {
            continue;
        }
        snprintf(path, sizeof path, "%s[%zu]", row->key, i);
        if (item->is_refused) {
            hw_config_origin(l, row)->is_bad = true;
        } else if (is_peers) {
            l->initial_lines[i] = item->line;
            read_peer(l, item, path, &c->members.initial[i]);
        } else {
            l->join_lines[i] = item->line;
            if (item->kind != HW_DOC_SCALAR || item->is_null) {
                hw_config_report_at(&l->report, item->line, path, "is not an address; HOST:PORT belongs here");
            } else if (hw_config_set_item(HW_CONFIG_ADDRESS, item->text, c->members.join[i], sizeof c->members.join[i],
                                          why) != 0) {
                hw_config_report_at(&l->report, item->line, path, "%s", why);
            }
        }
    }
    if (count > HW_CONFIG_NODES_MAX) {
        hw_config_report_at(&l->report, list->line, row->key, "has %zu items; at most %d are possible", count,
                            HW_CONFIG_NODES_MAX);
        count = HW_CONFIG_NODES_MAX;
    }
    *(is_peers ? &c->members.initial_count : &c->members.join_count) = count;
    if (l->report.count + l->report.left_out != problems) {
        hw_config_origin(l, row)->is_bad = true;
    }
}

static void read_row(struct hw_config_loading *l, const struct hw_config_row *row, const struct hw_doc_node *node)
{
    struct hw_config_origin *origin = hw_config_origin(l, row);
    if (origin->line > 0) {
        hw_config_report_at(&l->report, node->line, row->key, "is given twice; the first is in line %d", origin->line);
        return;
    }
    origin->line = node->line;
    if (node->is_refused) {
        origin->is_bad = true;
    } else if (hw_config_is_list(row)) {
        read_list(l, row, node);
    } else {
        read_scalar(l, row, node);
    }
}

/* The group is there but cannot be read: its keys are neither given nor missing. */
static void spoil_group(struct hw_config_loading *l, const char *prefix)
{
    for (size_t i = 0; i < hw_config_row_count; i++) {
        if (strncmp(hw_config_rows[i].key, prefix, strlen(prefix)) == 0) {
            l->origins[i].is_bad = true;
        }
    }
}

static void read_group(struct hw_config_loading *l, const struct hw_doc_node *map, const char *prefix);

static void read_entry(struct hw_config_loading *l, const struct hw_doc_node *map, const struct hw_doc_node *node,
                       const char *prefix)
{
    char path[PATH_MAX_];
    char known[KNOWN_MAX];
    const struct hw_doc_node *other;
    const struct hw_config_row *row;
    join_path(prefix, node->key, path);
    /* "raft.tick_ms: 5" as one key is no way to write it. */
    row = strchr(node->key, '.') == NULL ? hw_config_find(path) : NULL;
    if (row != NULL) {
        read_row(l, row, node);
        return;
    }
    if (strchr(node->key, '.') != NULL || !hw_config_is_group(path)) {
        if (node->is_refused) {
            return;
        }
        hw_config_report_at(&l->report, node->line, path, "is not a known key; known here: %s",
                            known_keys(prefix, known));
        return;
    }
    TAILQ_FOREACH(other, &map->children, link) {
        if (other == node) {
            break;
        }
        if (strcmp(other->key, node->key) == 0) {
            hw_config_report_at(&l->report, node->line, path, "is given twice; the first is in line %d", other->line);
            break;
        }
    }
    snprintf(path + strlen(path), sizeof path - strlen(path), ".");
    if (node->kind == HW_DOC_MAP) {
        read_group(l, node, path);
    } else if (node->is_refused) {
        spoil_group(l, path);
    } else if (!node->is_null) {
        spoil_group(l, path);
        hw_config_report_at(&l->report, node->line, node->key, "is a group of keys, not a value; known here: %s",
                            known_keys(path, known));
    }
}

static void read_group(struct hw_config_loading *l, const struct hw_doc_node *map, const char *prefix)
{
    const struct hw_doc_node *node;
    TAILQ_FOREACH(node, &map->children, link) {
        read_entry(l, map, node, prefix);
    }
}

/* A newer format may mean anything by its keys: say that, and nothing else. */
static bool is_newer_format(struct hw_config_loading *l, const struct hw_doc_node *root)
{
    const struct hw_doc_node *node;
    TAILQ_FOREACH(node, &root->children, link) {
        if (strcmp(node->key, "format") == 0 && node->kind == HW_DOC_SCALAR && !node->is_refused) {
            size_t len = strlen(node->text);
            bool is_number = len > 0 && strspn(node->text, "0123456789") == len && node->text[0] != '0';
            if (is_number && (len > 1 || node->text[0] - '0' > HW_CONFIG_FORMAT)) {
                hw_config_report_at(&l->report, node->line, "format",
                                    "%.20s is newer than this program knows (%d); use the program that the file is for",
                                    node->text, HW_CONFIG_FORMAT);
                return true;
            }
        }
    }
    return false;
}

int hw_config_read(struct hw_config_loading *l, const void *text, size_t len)
{
    struct hw_doc doc;
    int rc = hw_doc_read(&doc, text, len, on_doc_problem, l);
    l->is_cut = doc.is_cut;
    if (rc == 0 && doc.root != NULL && !doc.root->is_null) {
        if (doc.root->kind != HW_DOC_MAP) {
            hw_config_report_at(&l->report, doc.root->line, NULL,
                                "not a configuration: keys belong here, such as \"node:\"");
            l->is_cut = true;
        } else if (is_newer_format(l, doc.root)) {
            l->is_newer = true;
        } else {
            read_group(l, doc.root, "");
        }
    }
    hw_doc_free(&doc);
    return rc;
}
