#include "storage/warm/schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"

#define APPLICATION_ID 0x4857696d /* "HWim"; what file(1) and hw_schema_check look at */

/* The text of each is compared with what the file holds: a table that is not exactly ours would be misread, and a view
 * could answer with something else than it says. */
static const struct {
    const char *name;
    const char *sql;
} objects[] = {
    {"meta", "CREATE TABLE meta(name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID"},
    {"revision", "CREATE TABLE revision(id INTEGER PRIMARY KEY, main INTEGER NOT NULL, sub INTEGER NOT NULL, "
                 "key BLOB NOT NULL, create_revision INTEGER NOT NULL, version INTEGER NOT NULL, "
                 "lease INTEGER NOT NULL, tombstone INTEGER NOT NULL, value BLOB NOT NULL) STRICT"},
    {"revision_by_key", "CREATE UNIQUE INDEX revision_by_key ON revision(key, main, sub)"},
    {"registry", "CREATE TABLE registry(id TEXT PRIMARY KEY, name TEXT NOT NULL, peer_address TEXT NOT NULL, "
                 "client_address TEXT NOT NULL, added_wall_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID"},
    {"event", "CREATE TABLE event(seq INTEGER PRIMARY KEY, log_index INTEGER NOT NULL, wall_ms INTEGER NOT NULL, "
              "epoch INTEGER NOT NULL, node_id TEXT NOT NULL, node TEXT NOT NULL, kind TEXT NOT NULL, "
              "text TEXT NOT NULL) STRICT"},
    {"lease",
     "CREATE TABLE lease(id INTEGER PRIMARY KEY, ttl_s INTEGER NOT NULL, remaining_s INTEGER NOT NULL) STRICT"},
    {"kv", "CREATE VIEW kv AS SELECT "
           "CASE WHEN instr(r.key, x'00') THEN r.key ELSE CAST(r.key AS TEXT) END AS key, "
           "CASE WHEN instr(r.value, x'00') THEN r.value ELSE CAST(r.value AS TEXT) END AS value, "
           "r.create_revision, r.main AS mod_revision, r.version, r.lease "
           "FROM revision r WHERE r.tombstone = 0 AND NOT EXISTS (SELECT 1 FROM revision n "
           "WHERE n.key = r.key AND (n.main, n.sub) > (r.main, r.sub))"},
    {"node", "CREATE VIEW node AS SELECT id, name, peer_address, client_address, "
             "strftime('%Y-%m-%dT%H:%M:%fZ', added_wall_ms / 1000.0, 'unixepoch') AS added FROM registry"},
    {"history", "CREATE VIEW history AS SELECT e.seq, "
                "strftime('%Y-%m-%dT%H:%M:%fZ', e.wall_ms / 1000.0, 'unixepoch') AS time, e.epoch, "
                "nullif(e.node, '') AS node, e.kind, e.text, e.log_index FROM event e"},
};

enum field_kind { FIELD_COUNT, FIELD_HEX, FIELD_U32 };

#define FIELD(field_name, kind, member)                          \
    {                                                            \
        field_name, kind, offsetof(struct hw_image_head, member) \
    }
static const struct {
    const char *name;
    enum field_kind kind;
    size_t offset;
} fields[] = {
    FIELD("format", FIELD_U32, meta.format),
    FIELD("cluster_id", FIELD_HEX, meta.cluster_id),
    FIELD("written_wall_ms", FIELD_COUNT, meta.written_wall_ms),
    FIELD("row_count", FIELD_COUNT, meta.row_count),
    FIELD("rows_hash", FIELD_HEX, meta.rows_hash),
    FIELD("registry_hash", FIELD_HEX, registry_hash),
    FIELD("event_hash", FIELD_HEX, event_hash),
    FIELD("lease_hash", FIELD_HEX, lease_hash),
    FIELD("applied", FIELD_COUNT, meta.counters.applied),
    FIELD("revision", FIELD_COUNT, meta.counters.revision),
    FIELD("compacted", FIELD_COUNT, meta.counters.compacted),
    FIELD("epoch", FIELD_COUNT, meta.counters.epoch),
    FIELD("hot_node", FIELD_HEX, meta.counters.hot_node),
    FIELD("event_seq", FIELD_COUNT, meta.counters.event_seq),
    FIELD("state_hash", FIELD_HEX, meta.counters.hash),
    FIELD("last_id", FIELD_COUNT, last_id),
    FIELD("swept", FIELD_COUNT, swept),
    FIELD("sweep_last_id", FIELD_COUNT, sweep_last_id),
};
static const char head_hash_name[] = "head_hash";

static uint64_t field_get(const struct hw_image_head *head, size_t i)
{
    const char *at = (const char *)head + fields[i].offset;
    uint32_t small;
    uint64_t value;
    if (fields[i].kind == FIELD_U32) {
        memcpy(&small, at, sizeof small);
        return small;
    }
    memcpy(&value, at, sizeof value);
    return value;
}

static void field_set(struct hw_image_head *head, size_t i, uint64_t value)
{
    char *at = (char *)head + fields[i].offset;
    uint32_t small = (uint32_t)value;
    if (fields[i].kind == FIELD_U32) {
        memcpy(at, &small, sizeof small);
    } else {
        memcpy(at, &value, sizeof value);
    }
}

/* The image travels between machines, so what is hashed has one byte order. */
static void put_le(uint8_t *out, uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        out[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t head_hash(const struct hw_image_head *head)
{
    uint8_t bytes[hw_array_len(fields) * 8];
    for (size_t i = 0; i < hw_array_len(fields); i++) {
        put_le(bytes + i * 8, field_get(head, i));
    }
    return XXH3_64bits(bytes, sizeof bytes);
}

void hw_hex_put(char out[HW_HEX_SIZE], uint64_t value)
{
    snprintf(out, HW_HEX_SIZE, "%016" PRIx64, value);
}

bool hw_hex_is_valid(struct hw_slice text, uint64_t *value)
{
    *value = 0;
    if (text.len != HW_HEX_SIZE - 1) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) {
            return false;
        }
        *value = *value << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
}

/* Lengths are hashed too, or bytes could move from one string to the next unseen. */
static uint64_t hash_strings(uint64_t seed, const char *const *strings, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        seed = XXH3_64bits_withSeed(strings[i], strlen(strings[i]), seed + 1);
    }
    return seed;
}

uint64_t hw_node_hash(const struct hw_node *node)
{
    const char *strings[] = {node->name, node->peer_address, node->client_address};
    uint8_t numbers[16];
    put_le(numbers, node->id);
    put_le(numbers + 8, node->added_wall_ms);
    return hash_strings(XXH3_64bits(numbers, sizeof numbers), strings, hw_array_len(strings));
}

uint64_t hw_event_hash(const struct hw_event *event)
{
    const char *strings[] = {event->node, event->kind, event->text};
    uint8_t numbers[40];
    put_le(numbers, event->seq);
    put_le(numbers + 8, event->index);
    put_le(numbers + 16, event->wall_ms);
    put_le(numbers + 24, event->epoch);
    put_le(numbers + 32, event->node_id);
    return hash_strings(XXH3_64bits(numbers, sizeof numbers), strings, hw_array_len(strings));
}

uint64_t hw_lease_hash(const struct hw_lease_record *lease)
{
    uint8_t numbers[24];
    put_le(numbers, (uint64_t)lease->id);
    put_le(numbers + 8, (uint64_t)lease->ttl_s);
    put_le(numbers + 16, (uint64_t)lease->remaining_s);
    return XXH3_64bits(numbers, sizeof numbers);
}

int hw_schema_create(struct hw_db *db, uint64_t cluster_id, struct hw_error *e)
{
    struct hw_image_head head = {.meta = {.format = HW_IMAGE_FORMAT, .cluster_id = cluster_id}};
    char sql[128];
    int rc;
    head.meta.counters.revision = 1; /* the revision of the empty state */
    snprintf(sql, sizeof sql, "PRAGMA page_size = 4096; PRAGMA application_id = %d; PRAGMA user_version = %d",
             APPLICATION_ID, HW_IMAGE_FORMAT);
    if ((rc = hw_db_exec(db, sql, e)) != 0 || (rc = hw_db_begin_write(db, e)) != 0) {
        return rc;
    }
    for (size_t i = 0; rc == 0 && i < hw_array_len(objects); i++) {
        rc = hw_db_exec(db, objects[i].sql, e);
    }
    if (rc == 0) {
        rc = hw_head_write(db, &head, e);
    }
    if (rc == 0) {
        rc = hw_db_commit(db, e);
    }
    if (rc != 0) {
        hw_db_rollback(db);
    }
    return rc;
}

static int check_objects(struct hw_db *db, struct hw_error *e)
{
    struct hw_stmt *s;
    int rc = hw_db_stmt(db, "SELECT sql FROM sqlite_schema WHERE name = ?1", &s, e);
    for (size_t i = 0; rc == 0 && i < hw_array_len(objects); i++) {
        bool is_ours = false;
        hw_stmt_bind_text(s, 1, objects[i].name, strlen(objects[i].name));
        rc = hw_stmt_step(s, e);
        if (rc > 0) {
            is_ours = hw_slice_is_equal(hw_stmt_text(s, 0), hw_slice_str(objects[i].sql));
            hw_stmt_reset(s);
            rc = 0;
        }
        if (rc == 0 && !is_ours) {
            return hw_error_set(e, HW_ERR_CORRUPT, "%s: table or view '%s' is not that of image format %d",
                                hw_db_path(db), objects[i].name, HW_IMAGE_FORMAT);
        }
    }
    return rc;
}

int hw_schema_check(struct hw_db *db, struct hw_error *e)
{
    int64_t id;
    int64_t format;
    int rc;
    if ((rc = hw_db_read_i64(db, "PRAGMA application_id", &id, e)) != 0 ||
        (rc = hw_db_read_i64(db, "PRAGMA user_version", &format, e)) != 0) {
        return rc;
    }
    if (id != APPLICATION_ID) {
        return hw_error_set(e, HW_ERR_CORRUPT, "%s is not a HotWarm image", hw_db_path(db));
    }
    if (format > HW_IMAGE_FORMAT) {
        return hw_error_set(e, HW_ERR_VERSION,
                            "%s has image format %" PRId64
                            ", this program knows up to %d: install a newer HotWarm; the "
                            "file was left alone",
                            hw_db_path(db), format, HW_IMAGE_FORMAT);
    }
    if (format < 1) {
        return hw_error_set(e, HW_ERR_CORRUPT, "%s has no image format", hw_db_path(db));
    }
    return check_objects(db, e);
}

static bool take_value(struct hw_stmt *s, enum field_kind kind, uint64_t *value)
{
    if (kind == FIELD_HEX) {
        return hw_stmt_is_text(s, 1) && hw_hex_is_valid(hw_stmt_text(s, 1), value);
    }
    *value = (uint64_t)hw_stmt_i64(s, 1);
    return kind != FIELD_U32 || *value <= UINT32_MAX;
}

int hw_head_read(struct hw_db *db, struct hw_image_head *head, struct hw_error *e)
{
    struct hw_stmt *s;
    uint64_t hash = 0;
    size_t found = 0;
    int rc = hw_db_stmt(db, "SELECT name, value FROM meta", &s, e);
    memset(head, 0, sizeof *head);
    while (rc == 0 && (rc = hw_stmt_step(s, e)) > 0) {
        struct hw_slice name = hw_stmt_text(s, 0);
        bool is_valid = true;
        uint64_t value = 0;
        for (size_t i = 0; i < hw_array_len(fields); i++) {
            if (hw_slice_is_equal(name, hw_slice_str(fields[i].name))) {
                is_valid = take_value(s, fields[i].kind, &value);
                field_set(head, i, value);
                found++;
            }
        }
        if (hw_slice_is_equal(name, hw_slice_str(head_hash_name))) {
            is_valid = take_value(s, FIELD_HEX, &hash);
            found++;
        }
        rc = 0;
        if (!is_valid) {
            rc = hw_error_set(e, HW_ERR_CORRUPT, "%s: a value of table meta is damaged", hw_db_path(db));
            hw_stmt_reset(s);
        }
    }
    if (rc != 0) {
        return rc;
    }
    if (found != hw_array_len(fields) + 1 || hash != head_hash(head)) {
        return hw_error_set(e, HW_ERR_CORRUPT, "%s: table meta is damaged: it does not fit its checksum",
                            hw_db_path(db));
    }
    return 0;
}

static int put_field(struct hw_stmt *s, const char *name, enum field_kind kind, uint64_t value, struct hw_error *e)
{
    char hex[HW_HEX_SIZE];
    hw_stmt_bind_text(s, 1, name, strlen(name));
    if (kind == FIELD_HEX) {
        hw_hex_put(hex, value);
        hw_stmt_bind_text(s, 2, hex, sizeof hex - 1);
    } else {
        hw_stmt_bind_i64(s, 2, (int64_t)value);
    }
    return hw_stmt_run(s, e);
}

int hw_head_write(struct hw_db *db, const struct hw_image_head *head, struct hw_error *e)
{
    struct hw_stmt *s;
    int rc = hw_db_stmt(db, "INSERT OR REPLACE INTO meta(name, value) VALUES(?1, ?2)", &s, e);
    for (size_t i = 0; rc == 0 && i < hw_array_len(fields); i++) {
        rc = put_field(s, fields[i].name, fields[i].kind, field_get(head, i), e);
    }
    return rc != 0 ? rc : put_field(s, head_hash_name, FIELD_HEX, head_hash(head), e);
}
