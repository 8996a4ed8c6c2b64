/* sql: one read-only statement on the image of a warm node. */
#include <string.h>

#include "cli/call.h"
#include "cli/output.h"
#include "cli/run.h"
#include "proto/hotwarm.pb-c.h"

/* A node that is hot refuses; the next endpoint is asked then. */
static const struct hw_ctl_method query_method = {
    .path = "/hotwarm.v1.Admin/Query", .response = &hotwarm__v1__query_response__descriptor, .skips_refusals = true};

static json_t *json_row(const Hotwarm__V1__QueryRow *row)
{
    json_t *cells = json_array();
    for (size_t i = 0; i < row->n_values; i++) {
        const Hotwarm__V1__QueryValue *v = row->values[i];
        json_t *cell;
        if (v->is_null) {
            cell = json_null();
        } else {
            cell = json_stringn(v->text.len > 0 ? (const char *)v->text.data : "", v->text.len);
            if (cell == NULL) { /* not UTF-8 */
                cell = json_pack("{s:o}", "base64", hw_ctl_json_bytes(v->text.data, v->text.len));
            }
        }
        json_array_append_new(cells, cell);
    }
    return cells;
}

static int print_json(struct hw_ctl *ctl, const Hotwarm__V1__QueryResponse *r, struct hw_error *e)
{
    json_t *columns = json_array();
    json_t *rows = json_array();
    for (size_t i = 0; i < r->n_columns; i++) {
        json_array_append_new(columns, hw_ctl_json_text(r->columns[i]));
    }
    for (size_t i = 0; i < r->n_rows; i++) {
        json_array_append_new(rows, json_row(r->rows[i]));
    }
    return hw_ctl_json_print(ctl,
                             json_pack("{s:o, s:o, s:b, s:I, s:o, s:o}", "columns", columns, "rows", rows, "more",
                                       r->more, "revision", (json_int_t)r->revision, "image_index",
                                       hw_ctl_json_number(r->image_index), "node", hw_ctl_json_text(r->node)),
                             e);
}

static int print_table(struct hw_ctl *ctl, const Hotwarm__V1__QueryResponse *r, struct hw_error *e)
{
    const char *headings[HW_CTL_COLUMNS_MAX + 1] = {NULL};
    struct hw_buf cells[HW_CTL_COLUMNS_MAX];
    struct hw_ctl_table *t;
    if (r->n_columns > HW_CTL_COLUMNS_MAX) {
        return hw_error_set(e, HW_ERR_TOOBIG, "the answer has %zu columns, a table shows at most %d; take -o json",
                            r->n_columns, HW_CTL_COLUMNS_MAX);
    }
    memset(cells, 0, sizeof cells);
    for (size_t i = 0; i < r->n_columns; i++) {
        headings[i] = *r->columns[i] != '\0' && *r->columns[i] != '>' ? r->columns[i] : "?";
    }
    t = hw_ctl_table_new(ctl, headings);
    for (size_t k = 0; k < r->n_rows; k++) {
        const Hotwarm__V1__QueryRow *row = r->rows[k];
        const char *texts[HW_CTL_COLUMNS_MAX];
        for (size_t i = 0; i < r->n_columns; i++) {
            const Hotwarm__V1__QueryValue *v = i < row->n_values ? row->values[i] : NULL;
            texts[i] = v == NULL || v->is_null ? "NULL" : hw_ctl_escaped(&cells[i], v->text.data, v->text.len);
        }
        hw_ctl_table_add(t, texts);
    }
    if (r->n_columns > 0) {
        hw_ctl_table_print(t);
    } else {
        hw_ctl_table_free(t);
    }
    for (size_t i = 0; i < r->n_columns; i++) {
        hw_buf_free(&cells[i]);
    }
    hw_ctl_note(ctl, "%zu rows from %s as of revision %lld%s", r->n_rows, r->node, (long long)r->revision,
                r->more ? "; there are more, see --rows" : "");
    return 0;
}

HW_CTL_RUN(sql)
{
    Hotwarm__V1__QueryRequest q = HOTWARM__V1__QUERY_REQUEST__INIT;
    ProtobufCMessage *answer;
    int rc;
    q.sql = (char *)hw_ctl_word(args, 0);
    q.rows_max = (uint64_t)hw_ctl_number(args, "rows", 0);
    q.hot_too = hw_ctl_is_set(args, "hot-too");
    rc = hw_ctl_unary(ctl, &query_method, &q.base, &answer, e);
    if (rc == HW_ERR_PRECONDITION && !q.hot_too) {
        hw_ctl_hint(ctl, "Name a warm node with --endpoints, or allow the hot one with --hot-too:");
    }
    if (rc != 0) {
        return rc;
    }
    rc = hw_ctl_is_json(ctl) ? print_json(ctl, (Hotwarm__V1__QueryResponse *)answer, e)
                             : print_table(ctl, (Hotwarm__V1__QueryResponse *)answer, e);
    protobuf_c_message_free_unpacked(answer, NULL);
    return rc;
}
