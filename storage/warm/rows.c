#include "storage/warm/rows.h"

#include <string.h>

#define EVENT_COLUMNS "seq, log_index, wall_ms, epoch, node_id, node, kind, text"

static int damaged(struct hw_stmt *s, struct hw_db *db, const char *table, struct hw_error *e)
{
    if (s != NULL) {
        hw_stmt_reset(s);
    }
    return hw_error_set(e, HW_ERR_CORRUPT, "%s: a row of table %s is damaged", hw_db_path(db), table);
}

int hw_row_to_version(struct hw_stmt *s, struct hw_version **out, struct hw_error *e)
{
    int64_t sub = hw_stmt_i64(s, 2);
    int64_t tombstone = hw_stmt_i64(s, 7);
    struct hw_slice key = hw_stmt_blob(s, 3);
    struct hw_slice value = hw_stmt_blob(s, 8);
    struct hw_key_name *name;
    struct hw_version *v;
    if (sub < 0 || sub > UINT32_MAX || tombstone < 0 || tombstone > 1 || key.len > UINT32_MAX ||
        value.len > UINT32_MAX) {
        return hw_error_set(e, HW_ERR_CORRUPT, "a row of table revision is damaged (id %lld)",
                            (long long)hw_stmt_i64(s, 0));
    }
    name = hw_key_name_new(key);
    v = name == NULL ? NULL : hw_version_new(name, value);
    if (name != NULL) {
        hw_key_name_unref(name);
    }
    if (v == NULL) {
        return hw_error_set(e, HW_ERR_NOMEM, "read a row of %zu bytes: out of memory", value.len);
    }
    v->mod_main = hw_stmt_i64(s, 1);
    v->mod_sub = (uint32_t)sub;
    v->create_main = hw_stmt_i64(s, 4);
    v->version = hw_stmt_i64(s, 5);
    v->lease = hw_stmt_i64(s, 6);
    v->is_tombstone = tombstone == 1;
    *out = v;
    return 0;
}

int hw_row_insert(struct hw_stmt *s, uint64_t id, const struct hw_version *v, struct hw_error *e)
{
    hw_stmt_bind_i64(s, 1, (int64_t)id);
    hw_stmt_bind_i64(s, 2, v->mod_main);
    hw_stmt_bind_i64(s, 3, v->mod_sub);
    hw_stmt_bind_blob(s, 4, hw_slice_of(v->key->data, v->key->len));
    hw_stmt_bind_i64(s, 5, v->create_main);
    hw_stmt_bind_i64(s, 6, v->version);
    hw_stmt_bind_i64(s, 7, v->lease);
    hw_stmt_bind_i64(s, 8, v->is_tombstone ? 1 : 0);
    hw_stmt_bind_blob(s, 9, hw_slice_of(v->value, v->value_len));
    return hw_stmt_run(s, e);
}

static void bind_str(struct hw_stmt *s, int at, const char *text)
{
    hw_stmt_bind_text(s, at, text, strlen(text));
}

int hw_registry_replace(struct hw_db *db, const struct hw_node *nodes, size_t count, uint64_t *hash, struct hw_error *e)
{
    struct hw_stmt *clear;
    struct hw_stmt *insert;
    char id[HW_HEX_SIZE];
    int rc;
    if ((rc = hw_db_stmt(db, "DELETE FROM registry", &clear, e)) != 0 || (rc = hw_stmt_run(clear, e)) != 0 ||
        (rc = hw_db_stmt(db,
                         "INSERT INTO registry(id, name, peer_address, client_address, added_wall_ms) "
                         "VALUES(?1, ?2, ?3, ?4, ?5)",
                         &insert, e)) != 0) {
        return rc;
    }
    *hash = 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        hw_hex_put(id, nodes[i].id);
        bind_str(insert, 1, id);
        bind_str(insert, 2, nodes[i].name);
        bind_str(insert, 3, nodes[i].peer_address);
        bind_str(insert, 4, nodes[i].client_address);
        hw_stmt_bind_i64(insert, 5, (int64_t)nodes[i].added_wall_ms);
        rc = hw_stmt_run(insert, e);
        *hash += hw_node_hash(&nodes[i]);
    }
    return rc;
}

/* False when the text does not fit or holds a NUL, which none of ours does. */
static bool take_str(struct hw_stmt *s, int column, char *out, size_t size)
{
    struct hw_slice text = hw_stmt_text(s, column);
    if (text.len >= size || memchr(text.data, '\0', text.len) != NULL) {
        return false;
    }
    memcpy(out, text.data, text.len);
    out[text.len] = '\0';
    return true;
}

static bool take_node(struct hw_stmt *s, struct hw_node *node)
{
    memset(node, 0, sizeof *node);
    node->added_wall_ms = (uint64_t)hw_stmt_i64(s, 4);
    return hw_hex_is_valid(hw_stmt_text(s, 0), &node->id) && take_str(s, 1, node->name, sizeof node->name) &&
           take_str(s, 2, node->peer_address, sizeof node->peer_address) &&
           take_str(s, 3, node->client_address, sizeof node->client_address);
}

static bool take_event(struct hw_stmt *s, struct hw_event *event)
{
    memset(event, 0, sizeof *event);
    event->seq = (uint64_t)hw_stmt_i64(s, 0);
    event->index = (uint64_t)hw_stmt_i64(s, 1);
    event->wall_ms = (uint64_t)hw_stmt_i64(s, 2);
    event->epoch = (uint64_t)hw_stmt_i64(s, 3);
    return hw_hex_is_valid(hw_stmt_text(s, 4), &event->node_id) && take_str(s, 5, event->node, sizeof event->node) &&
           take_str(s, 6, event->kind, sizeof event->kind) && take_str(s, 7, event->text, sizeof event->text);
}

/* Dropping is by seq, which has no gaps, so it needs no count. */
static int drop_old_events(struct hw_db *db, uint64_t newest_seq, uint64_t *hash, struct hw_error *e)
{
    struct hw_stmt *select;
    struct hw_stmt *delete;
    struct hw_event event;
    int64_t last = (int64_t)(newest_seq - HW_HISTORY_MAX);
    int rc;
    if (newest_seq <= HW_HISTORY_MAX) {
        return 0;
    }
    if ((rc = hw_db_stmt(db, "SELECT " EVENT_COLUMNS " FROM event WHERE seq <= ?1", &select, e)) != 0 ||
        (rc = hw_db_stmt(db, "DELETE FROM event WHERE seq <= ?1", &delete, e)) != 0) {
        return rc;
    }
    hw_stmt_bind_i64(select, 1, last);
    while ((rc = hw_stmt_step(select, e)) > 0) {
        if (!take_event(select, &event)) {
            return damaged(select, db, "event", e);
        }
        *hash -= hw_event_hash(&event);
    }
    if (rc == 0) {
        hw_stmt_bind_i64(delete, 1, last);
        rc = hw_stmt_run(delete, e);
    }
    return rc;
}

int hw_events_append(struct hw_db *db, const struct hw_event *events, size_t count, uint64_t after_seq, uint64_t *hash,
                     struct hw_error *e)
{
    struct hw_stmt *s;
    char node_id[HW_HEX_SIZE];
    int rc;
    if (count == 0) {
        return 0;
    }
    rc = hw_db_stmt(db, "INSERT INTO event(" EVENT_COLUMNS ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", &s, e);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (events[i].seq <= after_seq) {
            continue;
        }
        hw_hex_put(node_id, events[i].node_id);
        hw_stmt_bind_i64(s, 1, (int64_t)events[i].seq);
        hw_stmt_bind_i64(s, 2, (int64_t)events[i].index);
        hw_stmt_bind_i64(s, 3, (int64_t)events[i].wall_ms);
        hw_stmt_bind_i64(s, 4, (int64_t)events[i].epoch);
        bind_str(s, 5, node_id);
        bind_str(s, 6, events[i].node);
        bind_str(s, 7, events[i].kind);
        bind_str(s, 8, events[i].text);
        rc = hw_stmt_run(s, e);
        *hash += hw_event_hash(&events[i]);
    }
    return rc != 0 ? rc : drop_old_events(db, events[count - 1].seq, hash, e);
}

static void take_lease(struct hw_stmt *s, struct hw_lease_record *lease)
{
    *lease =
        (struct hw_lease_record){.id = hw_stmt_i64(s, 0), .ttl_s = hw_stmt_i64(s, 1), .remaining_s = hw_stmt_i64(s, 2)};
}

/* The hash lets go of the row that was there. */
static int forget_lease(struct hw_stmt *select, int64_t id, uint64_t *hash, struct hw_error *e)
{
    struct hw_lease_record old;
    int rc;
    hw_stmt_bind_i64(select, 1, id);
    rc = hw_stmt_step(select, e);
    if (rc > 0) {
        take_lease(select, &old);
        *hash -= hw_lease_hash(&old);
        rc = hw_stmt_run(select, e);
    }
    return rc;
}

int hw_lease_rows_apply(struct hw_db *db, const struct hw_lease_record *leases, size_t count, uint64_t *hash,
                        struct hw_error *e)
{
    struct hw_stmt *select;
    struct hw_stmt *delete;
    struct hw_stmt *insert;
    int rc;
    if (count == 0) {
        return 0;
    }
    if ((rc = hw_db_stmt(db, "SELECT id, ttl_s, remaining_s FROM lease WHERE id = ?1", &select, e)) != 0 ||
        (rc = hw_db_stmt(db, "DELETE FROM lease WHERE id = ?1", &delete, e)) != 0 ||
        (rc = hw_db_stmt(db, "INSERT OR REPLACE INTO lease(id, ttl_s, remaining_s) VALUES(?1, ?2, ?3)", &insert, e)) !=
            0) {
        return rc;
    }
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct hw_stmt *s = leases[i].is_gone ? delete : insert;
        if ((rc = forget_lease(select, leases[i].id, hash, e)) != 0) {
            return rc;
        }
        hw_stmt_bind_i64(s, 1, leases[i].id);
        if (!leases[i].is_gone) {
            hw_stmt_bind_i64(s, 2, leases[i].ttl_s);
            hw_stmt_bind_i64(s, 3, leases[i].remaining_s);
            *hash += hw_lease_hash(&leases[i]);
        }
        rc = hw_stmt_run(s, e);
    }
    return rc;
}

static int check_hash(struct hw_db *db, const char *table, uint64_t found, uint64_t expected, struct hw_error *e)
{
    if (found != expected) {
        return hw_error_set(e, HW_ERR_CORRUPT, "%s: table %s does not fit its checksum", hw_db_path(db), table);
    }
    return 0;
}

int hw_registry_walk(struct hw_db *db, const struct hw_image_head *head, hw_node_fn fn, void *ctx, struct hw_error *e)
{
    struct hw_stmt *s;
    struct hw_node node;
    uint64_t hash = 0;
    int rc =
        hw_db_stmt(db, "SELECT id, name, peer_address, client_address, added_wall_ms FROM registry ORDER BY id", &s, e);
    while (rc == 0 && (rc = hw_stmt_step(s, e)) > 0) {
        if (!take_node(s, &node)) {
            return damaged(s, db, "registry", e);
        }
        hash += hw_node_hash(&node);
        rc = fn == NULL ? 0 : fn(ctx, &node);
        if (rc != 0) {
            hw_stmt_reset(s);
            return hw_error_set(e, rc, "%s: load a row of table registry: %s", hw_db_path(db), hw_err_text(rc));
        }
    }
    return rc != 0 ? rc : check_hash(db, "registry", hash, head->registry_hash, e);
}

int hw_events_walk(struct hw_db *db, const struct hw_image_head *head, hw_event_fn fn, void *ctx, struct hw_error *e)
{
    struct hw_stmt *s;
    struct hw_event event;
    uint64_t hash = 0;
    int rc = hw_db_stmt(db, "SELECT " EVENT_COLUMNS " FROM event ORDER BY seq", &s, e);
    while (rc == 0 && (rc = hw_stmt_step(s, e)) > 0) {
        if (!take_event(s, &event)) {
            return damaged(s, db, "event", e);
        }
        hash += hw_event_hash(&event);
        rc = fn == NULL ? 0 : fn(ctx, &event);
        if (rc != 0) {
            hw_stmt_reset(s);
            return hw_error_set(e, rc, "%s: load a row of table event: %s", hw_db_path(db), hw_err_text(rc));
        }
    }
    return rc != 0 ? rc : check_hash(db, "event", hash, head->event_hash, e);
}

int hw_lease_rows_walk(struct hw_db *db, const struct hw_image_head *head, hw_lease_row_fn fn, void *ctx,
                       struct hw_error *e)
{
    struct hw_stmt *s;
    struct hw_lease_record lease;
    uint64_t hash = 0;
    int rc = hw_db_stmt(db, "SELECT id, ttl_s, remaining_s FROM lease ORDER BY id", &s, e);
    while (rc == 0 && (rc = hw_stmt_step(s, e)) > 0) {
        take_lease(s, &lease);
        hash += hw_lease_hash(&lease);
        rc = fn == NULL ? 0 : fn(ctx, &lease);
        if (rc != 0) {
            hw_stmt_reset(s);
            return hw_error_set(e, rc, "%s: load a row of table lease: %s", hw_db_path(db), hw_err_text(rc));
        }
    }
    return rc != 0 ? rc : check_hash(db, "lease", hash, head->lease_hash, e);
}
