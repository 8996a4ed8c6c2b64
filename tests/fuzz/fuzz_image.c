/* A damaged image. Input: edits of a sound one, in records of u8 kind and what it takes: bytes somewhere, a cut, a page
 * over another, or a cell set through SQLite, so that values are wrong in a file whose structure is right. Whatever is
 * in the file, it is refused in words or gives a sound state, from which the image can be brought up to date. */
#include <sqlite3.h>
#include <string.h>

#include "storage/warm/fs.h"
#include "storage/warm/image.h"
#include "tests/fuzz/fuzz_folder.h"
#include "tests/fuzz/fuzz_hash_seam.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAGE 4096
#define EDITS_MAX 20

static struct hw_buf sound;

static void apply(struct hw_hot *hot, const struct hw_cmd *cmd)
{
    struct hw_buf b = {0};
    hw_assert(hw_cmd_encode(cmd, &b) == 0);
    hw_assert(hw_hot_apply(hot, hw_hot_applied(hot) + 1, b.data, b.len, NULL, NULL) == 0);
    hw_buf_free(&b);
}

static void put(struct hw_hot *hot, const char *key, const char *value, int64_t lease)
{
    struct hw_op op = {.type = HW_OP_PUT,
                       .put = {.key = hw_slice_str(key), .value = hw_slice_str(value), .lease = lease}};
    apply(hot, &(struct hw_cmd){.type = HW_CMD_TXN, .wall_ms = 7, .txn = {.success = &op, .success_count = 1}});
}

static void furnish(struct hw_hot *hot)
{
    struct hw_op del = {.type = HW_OP_DELETE, .del = {.key = hw_slice_str("gone")}};
    struct hw_cmd node = {.type = HW_CMD_NODE_SET, .wall_ms = 5, .node = {.id = 1, .name = "n1"}};
    struct hw_cmd acquired = {.type = HW_CMD_HOT_ACQUIRED, .wall_ms = 6, .hot = {.node_id = 1, .epoch = 3}};
    memcpy(node.node.peer_address, "127.0.0.1:2", 12);
    memcpy(node.node.client_address, "127.0.0.1:1", 12);
    memcpy(acquired.hot.name, "n1", 3);
    apply(hot, &node);
    apply(hot, &acquired);
    apply(hot, &(struct hw_cmd){.type = HW_CMD_LEASE_GRANT, .grant = {1, 60}});
    put(hot, "a", "1", 1);
    put(hot, "a", "2", 1);
    put(hot, "gone", "x", 0);
    apply(hot, &(struct hw_cmd){.type = HW_CMD_TXN, .txn = {.success = &del, .success_count = 1}});
    put(hot, "key", "value", 0);
    apply(hot, &(struct hw_cmd){.type = HW_CMD_COMPACT, .compact = 3});
}

static void bring_up_to_date(struct hw_image *image, struct hw_hot *hot)
{
    struct hw_error e = {0};
    struct hw_cut *cut;
    hw_assert(hw_hot_cut(hot, &cut) == 0);
    if (hw_image_apply(image, cut, 1, &e) != 0) {
        hw_assert(e.text[0] != '\0');
    }
    hw_cut_free(cut);
}

/* Made by the product, so that inputs stay valid when the format changes. */
static void make_sound(void)
{
    struct hw_error e = {0};
    struct hw_image *image;
    struct hw_hot *hot = hw_hot_new();
    char path[PATH_MAX];
    char copy[PATH_MAX];
    hw_assert(hot != NULL);
    furnish(hot);
    snprintf(path, sizeof path, "%s/sound", fuzz_folder());
    snprintf(copy, sizeof copy, "%s/copy", fuzz_folder());
    hw_assert(hw_image_open(path, 9, &image, &e) == 0);
    bring_up_to_date(image, hot);
    hw_image_close(image);
    hw_assert(hw_image_copy(path, copy, NULL, &e) == 0);
    hw_assert(hw_fs_read(copy, 1u << 24, &sound, &e) == 0);
    hw_hot_free(hot);
    fuzz_file_remove("sound");
    fuzz_file_remove("sound-wal");
    fuzz_file_remove("sound-shm");
    fuzz_file_remove("copy");
}

/* ---- edits ---- */

static void set_cell(struct hw_reader *r, sqlite3 *db)
{
    static const char *const statements[] = {
        "UPDATE meta SET value = ?1 WHERE name = (SELECT name FROM meta LIMIT 1 OFFSET ?2 % 18)",
        "UPDATE revision SET main = ?1 WHERE id = ?2",
        "UPDATE revision SET sub = ?1 WHERE id = ?2",
        "UPDATE revision SET key = ?1 WHERE id = ?2",
        "UPDATE revision SET create_revision = ?1 WHERE id = ?2",
        "UPDATE revision SET version = ?1 WHERE id = ?2",
        "UPDATE revision SET lease = ?1 WHERE id = ?2",
        "UPDATE revision SET tombstone = ?1 WHERE id = ?2",
        "UPDATE revision SET value = ?1 WHERE id = ?2",
        "UPDATE revision SET id = ?1 WHERE id = ?2",
        "UPDATE registry SET id = ?1",
        "UPDATE registry SET name = ?1",
        "UPDATE registry SET peer_address = ?1",
        "UPDATE registry SET added_wall_ms = ?1",
        "UPDATE event SET seq = ?1 WHERE seq = ?2",
        "UPDATE event SET log_index = ?1 WHERE seq = ?2",
        "UPDATE event SET kind = ?1 WHERE seq = ?2",
        "UPDATE event SET text = ?1 WHERE seq = ?2",
        "UPDATE event SET node_id = ?1 WHERE seq = ?2",
        "UPDATE event SET node = ?1 WHERE seq = ?2",
        "UPDATE lease SET id = ?1",
        "UPDATE lease SET ttl_s = ?1",
        "UPDATE lease SET remaining_s = ?1",
        "DELETE FROM revision WHERE id = ?2 AND ?1 IS NOT NULL",
        "DELETE FROM meta WHERE name = (SELECT name FROM meta LIMIT 1 OFFSET ?2 % 18) AND ?1 IS NOT NULL",
        "DELETE FROM lease WHERE ?1 IS NOT NULL",
        "INSERT INTO revision SELECT ?1, main + ?2, sub, key, create_revision, version, lease, 0, value FROM revision",
        "INSERT INTO lease VALUES (?1, ?2, 0)",
        "INSERT INTO registry SELECT ?1, name, peer_address, client_address, added_wall_ms FROM registry LIMIT 1",
    };
    uint8_t which = hw_reader_u8(r);
    uint8_t row = hw_reader_u8(r);
    uint8_t type = hw_reader_u8(r);
    size_t len = type & 0x1f;
    sqlite3_stmt *s = NULL;
    len = len < hw_reader_left(r) ? len : hw_reader_left(r);
    if (sqlite3_prepare_v2(db, statements[which % hw_array_len(statements)], -1, &s, NULL) == SQLITE_OK) {
        int64_t number = 0;
        memcpy(&number, r->pos, len < sizeof number ? len : sizeof number);
        if (type >> 6 == 0) {
            sqlite3_bind_int64(s, 1, number);
        } else if (type >> 6 == 1) {
            sqlite3_bind_text(s, 1, (const char *)r->pos, (int)len, SQLITE_STATIC);
        } else if (type >> 6 == 2) {
            sqlite3_bind_blob(s, 1, r->pos, (int)len, SQLITE_STATIC);
        } else {
            sqlite3_bind_int64(s, 1, INT64_MAX - (int64_t)len);
        }
        sqlite3_bind_int(s, 2, row);
        sqlite3_step(s);
    }
    sqlite3_finalize(s);
    r->pos += len;
}

static void set_cells(struct hw_reader *r, unsigned count)
{
    sqlite3 *db;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/image.db", fuzz_folder());
    hw_assert(sqlite3_open(path, &db) == SQLITE_OK);
    sqlite3_exec(db, "PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY", NULL, NULL, NULL);
    for (unsigned i = 0; i < count && hw_reader_left(r) > 0; i++) {
        set_cell(r, db);
    }
    hw_assert(sqlite3_close(db) == SQLITE_OK);
}

static size_t offset(struct hw_reader *r, size_t len)
{
    size_t at = hw_reader_u8(r);
    at |= (size_t)hw_reader_u8(r) << 8;
    at |= (size_t)hw_reader_u8(r) << 16;
    return len == 0 ? 0 : at % len;
}

static void set_bytes(struct hw_reader *r, struct hw_buf *file)
{
    uint8_t kind = hw_reader_u8(r);
    size_t at = offset(r, file->len);
    size_t len = kind >> 2;
    switch (kind & 3) {
    case 0:
        file->len = at;
        break;
    case 1:
        if (file->len >= 2 * PAGE) {
            size_t from = offset(r, file->len) / PAGE * PAGE;
            at = at / PAGE * PAGE;
            if (at + PAGE <= file->len && from + PAGE <= file->len) {
                memmove(file->data + at, file->data + from, PAGE);
            }
        }
        break;
    default:
        len = len < hw_reader_left(r) ? len : hw_reader_left(r);
        len = len < file->len - at ? len : file->len - at;
        if (len > 0) {
            memcpy(file->data + at, r->pos, len);
        }
        r->pos += len;
    }
}

/* ---- what is done with an image ---- */

static int on_row(void *ctx, int column_count, const char *const *names, const char *const *values)
{
    (void)ctx;
    for (int i = 0; i < column_count; i++) {
        hw_assert(names[i] != NULL && (values[i] == NULL || strlen(values[i]) < 1u << 20));
    }
    return 0;
}

static void read_only(const char *path)
{
    static const char *const queries[] = {"SELECT * FROM kv", "SELECT * FROM node", "SELECT * FROM history"};
    struct hw_image *image;
    struct hw_image_meta meta;
    struct hw_error e = {0};
    if (hw_image_open_readonly(path, &image, &e) != 0) {
        hw_assert(e.text[0] != '\0');
        return;
    }
    (void)hw_image_read_meta(image, &meta, &e);
    (void)hw_image_verify(image, &meta, &e);
    for (size_t i = 0; i < hw_array_len(queries); i++) {
        (void)hw_image_query(image, queries[i], 50, 0, on_row, NULL, &e);
    }
    hw_image_close(image);
}

static void start(const char *path)
{
    struct hw_image *image;
    struct hw_hot *hot;
    struct hw_error e = {0};
    if (hw_image_open(path, 9, &image, &e) != 0) {
        hw_assert(e.text[0] != '\0');
        return;
    }
    if (hw_image_load(image, &hot, NULL, NULL, &e) != 0) {
        hw_assert(e.code < 0 && e.text[0] != '\0');
    } else {
        hw_assert(hw_hot_check(hot) == NULL);
        if (hw_hot_applied(hot) < UINT64_MAX && hw_hot_revision(hot) < INT64_MAX - 1) {
            put(hot, "a", "new", 0);
            hw_assert(hw_hot_check(hot) == NULL);
            bring_up_to_date(image, hot);
        }
        hw_hot_free(hot);
    }
    for (int i = 0; i < 10 && hw_image_sweep(image, 10, &e) > 0; i++) {
    }
    hw_image_close(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hw_buf file = {0};
    struct hw_reader r;
    struct hw_error e = {0};
    const char *path;
    if (sound.len == 0) {
        make_sound();
    }
    if (size == 0) {
        return 0;
    }
    hw_reader_init(&r, data + 1, size - 1);
    path = fuzz_file(HW_IMAGE_FILE, sound.data, sound.len);
    set_cells(&r, data[0] & 7);
    hw_assert(hw_fs_read(path, 1u << 24, &file, &e) == 0);
    for (int i = 0; i < EDITS_MAX && hw_reader_left(&r) > 3; i++) {
        set_bytes(&r, &file);
    }
    path = fuzz_file(HW_IMAGE_FILE, file.data, file.len);
    read_only(path);
    start(path);
    hw_buf_free(&file);
    fuzz_file_remove(HW_IMAGE_FILE);
    fuzz_file_remove(HW_IMAGE_FILE "-wal");
    fuzz_file_remove(HW_IMAGE_FILE "-shm");
    return 0;
}
