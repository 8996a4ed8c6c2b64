#include "cli/status_print.h"

#include <string.h>

static bool is_down(const Hotwarm__V1__NodeStatus *n)
{
    return strcmp(n->tier, "down") == 0;
}

static const char *or_dash(const char *text)
{
    return *text != '\0' ? text : "-";
}

static const char *number_text(char buf[HW_CTL_SHORT_SIZE], uint64_t v)
{
    snprintf(buf, HW_CTL_SHORT_SIZE, "%llu", (unsigned long long)v);
    return buf;
}

/* What is wrong; a rebuild shows how far it is. */
static const char *health_text(const Hotwarm__V1__NodeStatus *n, char *buf, size_t size)
{
    if (is_down(n) && (*n->health == '\0' || strcmp(n->health, "ok") == 0)) {
        return "does not answer";
    }
    if (strcmp(n->phase, "rebuilding") == 0 && n->rebuild_total_bytes > 0) {
        snprintf(buf, size, "rebuilding %llu%%",
                 (unsigned long long)(n->rebuild_done_bytes * 100 / n->rebuild_total_bytes));
        return buf;
    }
    return or_dash(n->health);
}

static void print_head(struct hw_ctl *ctl, const Hotwarm__V1__StatusResponse *r)
{
    unsigned down = 0;
    for (size_t i = 0; i < r->n_nodes; i++) {
        down += is_down(r->nodes[i]);
    }
    fprintf(ctl->out, "cluster %s  hot %s  epoch %llu  nodes %zu", or_dash(r->cluster_name),
            *r->hot_node != '\0' ? r->hot_node : "(none)", (unsigned long long)r->epoch, r->n_nodes);
    if (down > 0) {
        fprintf(ctl->out, "  down %u", down);
    }
    fprintf(ctl->out, "  (says %s)\n", or_dash(r->answered_by));
}

static void add_node(struct hw_ctl_table *t, const Hotwarm__V1__NodeStatus *n)
{
    char term[2 * HW_CTL_SHORT_SIZE];
    char applied[HW_CTL_SHORT_SIZE];
    char lag[HW_CTL_SHORT_SIZE];
    char age[HW_CTL_SHORT_SIZE];
    char health[64];
    const char *health_shown = health_text(n, health, sizeof health);
    const char *address = or_dash(*n->client_address != '\0' ? n->client_address : n->peer_address);
    if (is_down(n)) {
        hw_ctl_table_add(
            t, (const char *[]){n->name, "down", or_dash(n->role), health_shown, NULL, NULL, NULL, NULL, address});
        hw_ctl_table_color(t, "red");
        return;
    }
    snprintf(term, sizeof term, "%llu/%llu", (unsigned long long)n->term, (unsigned long long)n->epoch);
    hw_ctl_table_add(t, (const char *[]){n->name, or_dash(n->tier), or_dash(n->role), health_shown, term,
                                         number_text(applied, n->applied_index), number_text(lag, n->lag),
                                         hw_ctl_age_text(n->image_age_ms, age), address});
    if (strcmp(n->health, "ok") != 0) {
        hw_ctl_table_color(t, "yellow");
    } else if (strcmp(n->tier, "hot") == 0) {
        hw_ctl_table_color(t, "bold");
    }
}

void hw_ctl_print_status(struct hw_ctl *ctl, const Hotwarm__V1__StatusResponse *r)
{
    static const char *const headings[] = {"NODE",     "TIER", "ROLE",       "HEALTH",  ">TERM/EPOCH",
                                           ">APPLIED", ">LAG", ">IMAGE-AGE", "ADDRESS", NULL};
    struct hw_ctl_table *t = hw_ctl_table_new(ctl, headings);
    print_head(ctl, r);
    for (size_t i = 0; i < r->n_nodes; i++) {
        add_node(t, r->nodes[i]);
    }
    hw_ctl_table_print(t);
}

void hw_ctl_print_nodes(struct hw_ctl *ctl, const Hotwarm__V1__StatusResponse *r)
{
    static const char *const headings[] = {"NODE", "ID", "ROLE", "TIER", "PEER-ADDRESS", "CLIENT-ADDRESS", NULL};
    struct hw_ctl_table *t = hw_ctl_table_new(ctl, headings);
    for (size_t i = 0; i < r->n_nodes; i++) {
        const Hotwarm__V1__NodeStatus *n = r->nodes[i];
        char id[HW_CTL_SHORT_SIZE];
        snprintf(id, sizeof id, "%016llx", (unsigned long long)n->id);
        hw_ctl_table_add(t, (const char *[]){n->name, id, or_dash(n->role), or_dash(n->tier), or_dash(n->peer_address),
                                             or_dash(n->client_address)});
    }
    hw_ctl_table_print(t);
}

static json_t *json_node(const Hotwarm__V1__NodeStatus *n)
{
    json_t *o = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b}", "id", hw_ctl_json_hex(n->id), "name",
                          hw_ctl_json_text(n->name), "tier", hw_ctl_json_text(n->tier), "role",
                          hw_ctl_json_text(n->role), "health", hw_ctl_json_text(n->health), "phase",
                          hw_ctl_json_text(n->phase), "peer_address", hw_ctl_json_text(n->peer_address),
                          "client_address", hw_ctl_json_text(n->client_address), "is_answering", n->is_answering);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"term", n->term},
        {"epoch", n->epoch},
        {"applied_index", n->applied_index},
        {"commit_index", n->commit_index},
        {"lag", n->lag},
        {"image_index", n->image_index},
        {"image_age_ms", n->image_age_ms},
        {"revision", (uint64_t)n->revision},
        {"compacted", (uint64_t)n->compacted},
        {"key_count", n->key_count},
        {"state_bytes", n->state_bytes},
        {"uptime_ms", n->uptime_ms},
        {"proposals", n->proposals},
        {"rebuild_done_bytes", n->rebuild_done_bytes},
        {"rebuild_total_bytes", n->rebuild_total_bytes},
        {"loop_stalls", n->loop_stalls},
        {"loop_busy_us_max", n->loop_busy_us_max},
    };
    int rc = o != NULL ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < sizeof numbers / sizeof numbers[0]; i++) {
        rc = json_object_set_new(o, numbers[i].name, hw_ctl_json_number(numbers[i].value));
    }
    if (rc == 0) {
        rc = json_object_set_new(o, "state_hash", hw_ctl_json_hex(n->state_hash));
    }
    if (rc == 0) {
        rc = json_object_set_new(o, "version", hw_ctl_json_text(n->version));
    }
    if (rc != 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

json_t *hw_ctl_json_status(const Hotwarm__V1__StatusResponse *r)
{
    json_t *nodes = json_array();
    for (size_t i = 0; nodes != NULL && i < r->n_nodes; i++) {
        if (json_array_append_new(nodes, json_node(r->nodes[i])) != 0) {
            json_decref(nodes);
            nodes = NULL;
        }
    }
    if (nodes == NULL) {
        return NULL;
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "cluster_id", hw_ctl_json_hex(r->cluster_id), "cluster_name",
                     hw_ctl_json_text(r->cluster_name), "answered_by", hw_ctl_json_text(r->answered_by), "hot_node",
                     hw_ctl_json_text(r->hot_node), "epoch", hw_ctl_json_number(r->epoch), "nodes", nodes);
}
