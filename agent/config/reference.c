/* The reference page of all keys (docs/config.md), made from the schema so that it cannot be out of date. */
#include <inttypes.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/config/config.h"
#include "agent/config/load.h"
#include "agent/config/schema.h"

static const char intro[] =
    "# Configuration\n"
    "\n"
    "This page is made by the program itself: `hwagent --config-reference > docs/config.md`.\n"
    "\n"
    "An agent reads one YAML file. A key that is not in it has its default. Environment variables override the file:\n"
    "`HOTWARM_` and the key in capitals, dots as underscores (`node.name` is `HOTWARM_NODE_NAME`); lists can only be\n"
    "set in the file. Other variables that begin with `HOTWARM_` are not looked at.\n"
    "\n"
    "All problems of a configuration are reported at once, each with its line and key:\n"
    "\n"
    "```text\n"
    "config.yaml:12: raft.election_ms: 5 is below the minimum 20\n"
    "```\n"
    "\n"
    "Times and sizes are plain whole numbers in the unit that ends the key: `_ms` milliseconds, `_bytes` bytes, `_mb`\n"
    "megabytes (1048576 bytes). Unknown and repeated keys are problems, and so are anchors, aliases, tags, a second\n"
    "document, text that is not UTF-8, and a file larger than 1 MiB.\n"
    "\n"
    "## Example: a node of three\n"
    "\n"
    "```yaml\n"
    "format: 1\n"
    "cluster:\n"
    "  name: shop\n"
    "  initial:\n"
    "    - {name: a, peer: \"10.0.0.1:2380\"}\n"
    "    - {name: b, peer: \"10.0.0.2:2380\"}\n"
    "    - {name: c, peer: \"10.0.0.3:2380\"}\n"
    "node:\n"
    "  name: a\n"
    "  data: /var/lib/hotwarm\n"
    "listen:\n"
    "  client: \"10.0.0.1:2379\"\n"
    "  peer: \"10.0.0.1:2380\"\n"
    "insecure: true\n"
    "```\n"
    "\n"
    "A node that is added later has `join: [\"10.0.0.1:2380\", \"10.0.0.2:2380\"]` in place of `initial`.\n"
    "\n"
    "## Keys\n"
    "\n"
    "A key marked \"reload\" takes effect when the configuration is read again; every other one needs a restart.\n";

static const char *type_name(const struct hw_config_row *row)
{
    switch (row->type) {
    case HW_CONFIG_UINT:
        return "number";
    case HW_CONFIG_BOOL:
        return "`true` or `false`";
    case HW_CONFIG_NAME:
        return "name: letters, digits, `-`, `_`, `.`";
    case HW_CONFIG_PATH:
        return "path";
    case HW_CONFIG_ADDRESS:
        return "`host:port`";
    case HW_CONFIG_LEVELS:
        return "levels";
    case HW_CONFIG_PEERS:
        return "list of `{name, peer}`";
    case HW_CONFIG_ADDRESSES:
        return "list of `host:port`";
    }
    hw_unreachable();
}

static void put_default(const struct hw_config_row *row, struct hw_buf *out)
{
    if (row->type == HW_CONFIG_UINT) {
        hw_buf_printf(out, "%" PRIu64, row->def);
    } else if (row->type == HW_CONFIG_BOOL) {
        hw_buf_append_str(out, row->def != 0 ? "true" : "false");
    } else if (hw_config_is_list(row)) {
        hw_buf_append_str(out, "empty");
    } else if (row->def_key != NULL) {
        hw_buf_printf(out, "as `%s`", row->def_key);
    } else if (row->def_text != NULL) {
        hw_buf_printf(out, "`%s`", row->def_text);
    } else {
        hw_buf_append_str(out, "**required**");
    }
}

static void put_values(const struct hw_config_row *row, struct hw_buf *out)
{
    if (row->type == HW_CONFIG_UINT) {
        if (row->min == row->max) {
            hw_buf_printf(out, "%" PRIu64, row->min);
        } else {
            hw_buf_printf(out, "%" PRIu64 " to %" PRIu64, row->min, row->max);
        }
    } else {
        hw_buf_append_str(out, type_name(row));
    }
    if (hw_config_is_list(row)) {
        hw_buf_printf(out, ", at most %d", HW_CONFIG_NODES_MAX);
    }
}

void hw_config_reference(struct hw_buf *out)
{
    hw_buf_append_str(out, intro);
    hw_buf_append_str(out, "\n| key | default | values | what it is |\n| --- | --- | --- | --- |\n");
    for (size_t i = 0; i < hw_config_row_count; i++) {
        const struct hw_config_row *row = &hw_config_rows[i];
        hw_buf_printf(out, "| `%s` | ", row->key);
        put_default(row, out);
        hw_buf_append_str(out, " | ");
        put_values(row, out);
        hw_buf_printf(out, " | %s%s |\n", row->help, row->reloadable ? " (reload)" : "");
    }
    hw_buf_append_str(out, "\n## Checks of the whole\n\n");
    for (size_t i = 0; i < hw_config_check_count; i++) {
        hw_buf_printf(out, "- %s\n", hw_config_check_texts[i]);
    }
}
