#include <stdio.h>
#include <string.h>

#include "storage/warm/image.h"
#include "tests/unit/hw_test.h"
#include "tests/unit/storage/warm/fixture.h"

struct answer {
    char text[4096]; /* "a|b\n" a row; NULL is "-" */
    size_t rows;
    int stop_at; /* row at which the receiver refuses, 0: never */
};

static int collect(void *ctx, int column_count, const char *const *names, const char *const *values)
{
    struct answer *a = ctx;
    size_t used = strlen(a->text);
    for (int i = 0; i < column_count; i++) {
        CHECK(names[i] != NULL);
        used += (size_t)snprintf(a->text + used, sizeof a->text - used, "%s%s", i > 0 ? "|" : "",
                                 values[i] == NULL ? "-" : values[i]);
        REQUIRE(used < sizeof a->text);
    }
    snprintf(a->text + used, sizeof a->text - used, "\n");
    a->rows++;
    return (int)a->rows == a->stop_at ? HW_ERR_CANCELLED : 0;
}

static struct hw_image *open_sample(bool is_readonly)
{
    const char *path = fixture_path(hw_test_dir(), "image.db");
    struct hw_image *image;
    struct hw_error e = {0};
    struct fixture f;
    fixture_init(&f);
    REQUIRE(hw_image_open(path, FIXTURE_CLUSTER, &image, &e) == 0);
    fixture_put(&f, "colour", "red");
    fixture_put(&f, "colour", "gr\xc3\xbcn");
    fixture_put(&f, "gone", "x");
    fixture_delete(&f, "gone");
    fixture_put(&f, "raw", "\xff\xfe");
    fixture_put(&f, "empty", "");
    fixture_node(&f, 1, "alpha");
    fixture_event(&f, "promoted", "alpha became hot");
    REQUIRE(fixture_checkpoint(&f, image, &e) == 0);
    fixture_close(&f);
    if (is_readonly) {
        hw_image_close(image);
        REQUIRE(hw_image_open_readonly(path, &image, &e) == 0);
    }
    return image;
}

static void expect(struct hw_image *image, const char *sql, const char *rows)
{
    struct answer a = {0};
    struct hw_error e = {0};
    CHECK_EQ(hw_image_query(image, sql, 100, 5000, collect, &a, &e), 0);
    if (strcmp(a.text, rows) != 0) {
        printf("\n  %s\n  gives %s\n  error %s\n", sql, a.text, e.text);
    }
    CHECK_STR(a.text, rows);
}

static void a_person_can_read_the_state(void)
{
    for (int is_readonly = 0; is_readonly < 2; is_readonly++) {
        struct hw_image *image = open_sample(is_readonly == 1);
        expect(image, "SELECT key, value, create_revision, mod_revision, version FROM kv ORDER BY key",
               "colour|gr\xc3\xbcn|2|3|2\nempty||7|7|1\nraw|x'fffe'|6|6|1\n");
        expect(image, "SELECT * FROM node",
               "0000000000000001|alpha|alpha.example:2380|alpha.example:2379|2023-11-14T22:13:20.006Z\n");
        expect(image, "SELECT seq, time, node, kind, text FROM history WHERE kind = 'promoted'",
               "2|2023-11-14T22:13:20.007Z|alpha|promoted|alpha became hot\n");
        expect(image, "SELECT value FROM meta WHERE name IN ('cluster_id', 'revision') ORDER BY name; -- and no more",
               "1234567890abcdef\n7\n");
        expect(image, "SELECT NULL, 1, 2.5, x'00ff', ''", "-|1|2.5|x'00ff'|\n");
        expect(image, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n",
               "1\n2\n3\n");
        expect(image, "PRAGMA user_version", "1\n");
        hw_image_close(image);
    }
}

static void whatever_does_more_than_read_is_refused(void)
{
    static const char *const refused[] = {
        "DELETE FROM revision",
        "INSERT INTO meta VALUES('x', 1)",
        "UPDATE revision SET value = x''",
        "CREATE TABLE t(x)",
        "CREATE TEMP TABLE t(x)",
        "DROP VIEW kv",
        "ATTACH '/tmp/other.db' AS other",
        "DETACH main",
        "PRAGMA user_version = 9",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = 1",
        "PRAGMA wal_checkpoint",
        "PRAGMA database_list",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT s",
        "VACUUM",
        "VACUUM INTO '/tmp/hw-stolen.db'",
        "REINDEX",
        "ANALYZE",
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('x')",
        "EXPLAIN DELETE FROM revision",
        "WITH x AS (SELECT 1) DELETE FROM revision",
    };
    for (int is_readonly = 0; is_readonly < 2; is_readonly++) {
        struct hw_image *image = open_sample(is_readonly == 1);
        struct hw_image_meta meta;
        for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
            struct answer a = {0};
            struct hw_error e = {0};
            int rc = hw_image_query(image, refused[i], 100, 5000, collect, &a, &e);
            if (rc != HW_ERR_DENIED && rc != HW_ERR_INVALID) {
                printf("\n  %s: %d %s\n", refused[i], rc, e.text);
            }
            CHECK(rc == HW_ERR_DENIED || rc == HW_ERR_INVALID);
            CHECK_EQ(a.rows, 0);
        }
        CHECK_EQ(hw_image_verify(image, &meta, NULL), 0);
        hw_image_close(image);
    }
}

static void nonsense_is_refused_in_words(void)
{
    static const char *const wrong[] = {"",
                                        ";",
                                        "-- nothing",
                                        "SELEC 1",
                                        "SELECT 1; SELECT 2",
                                        "SELECT ?1",
                                        "SELECT * FROM nowhere",
                                        "SELECT 1; DROP TABLE meta"};
    struct hw_image *image = open_sample(true);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct answer a = {0};
        struct hw_error e = {0};
        CHECK_EQ(hw_image_query(image, wrong[i], 100, 5000, collect, &a, &e), HW_ERR_INVALID);
        CHECK(e.text[0] != '\0');
        CHECK_EQ(a.rows, 0);
    }
    hw_image_close(image);
}

static void rows_time_and_size_are_bounded(void)
{
    static const char endless[] =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    struct hw_image *image = open_sample(true);
    struct answer a = {0};
    struct hw_error e = {0};
    CHECK_EQ(hw_image_query(image, "SELECT 1 FROM revision", 2, 5000, collect, &a, &e), HW_ERR_EXHAUSTED);
    CHECK_EQ(a.rows, 2);
    CHECK_EQ(hw_image_query(image, endless, 100, 50, collect, &a, &e), HW_ERR_TIMEOUT);
    CHECK_EQ(hw_image_query(image, "SELECT zeroblob(200000000)", 100, 5000, collect, &a, &e), HW_ERR_TOOBIG);
    memset(&a, 0, sizeof a);
    a.stop_at = 1;
    CHECK_EQ(hw_image_query(image, "SELECT 1 FROM revision", 100, 5000, collect, &a, &e), HW_ERR_CANCELLED);
    CHECK_EQ(a.rows, 1);
    expect(image, "SELECT 1", "1\n"); /* nothing of the refusals is left over */
    hw_image_close(image);
}

HW_SUITE(warm_query, HW_CASE(a_person_can_read_the_state), HW_CASE(whatever_does_more_than_read_is_refused),
         HW_CASE(nonsense_is_refused_in_words), HW_CASE(rows_time_and_size_are_bounded))
