#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/err.h"
#include "agent/config/doc.h"
#include "agent/config/load.h"
#include "agent/config/value.h"

struct hw_config_origin *hw_config_origin(struct hw_config_loading *l, const struct hw_config_row *row)
{
    hw_assert(row != NULL && row >= hw_config_rows && row < hw_config_rows + hw_config_row_count);
    return &l->origins[row - hw_config_rows];
}

static void loading_init(struct hw_config_loading *l, struct hw_config *c, const char *name)
{
    memset(l, 0, sizeof *l);
    l->c = c;
    hw_config_default(c);
    hw_config_report_init(&l->report, name);
}

static void read_environment(struct hw_config_loading *l)
{
    for (size_t i = 0; i < hw_config_row_count; i++) {
        const struct hw_config_row *row = &hw_config_rows[i];
        char variable[HW_CONFIG_ENV_MAX];
        char why[HW_CONFIG_WHY_MAX];
        const char *text = getenv(hw_config_env_name(row, variable));
        if (text == NULL) {
            continue;
        }
        if (hw_config_is_list(row)) {
            hw_config_report_env(&l->report, variable, row->key, "is a list; only the file can set it");
            l->origins[i].is_bad = true;
            continue;
        }
        /* A good value here heals a bad one of the file for the checks; the problem in the file stays listed. */
        l->origins[i].is_env = true;
        l->origins[i].is_bad = hw_config_set(l->c, row, text, why) != 0;
        if (l->origins[i].is_bad) {
            hw_config_report_env(&l->report, variable, row->key, "%s", why);
        }
    }
}

static void fill_defaults(struct hw_config_loading *l)
{
    for (size_t i = 0; i < hw_config_row_count; i++) {
        const struct hw_config_row *row = &hw_config_rows[i];
        const struct hw_config_origin *origin = &l->origins[i];
        bool is_given = origin->line > 0 || origin->is_env;
        if (is_given || origin->is_bad) {
            continue;
        }
        if (row->def_key != NULL) {
            hw_config_take_default_key(l->c, row);
            l->origins[i].is_bad = hw_config_origin(l, hw_config_find(row->def_key))->is_bad;
        } else if (hw_config_is_required(row) && !l->is_cut) {
            char variable[HW_CONFIG_ENV_MAX];
            hw_config_report_at(&l->report, 0, row->key, "is missing and has no default; add it, or set %s",
                                hw_config_env_name(row, variable));
            l->origins[i].is_bad = true;
        }
    }
}

static int finish(struct hw_config_loading *l, struct hw_config_problems *problems)
{
    int rc;
    if (!l->is_newer) {
        fill_defaults(l);
        if (!l->is_cut) {
            hw_config_check(l);
        }
    }
    rc = hw_config_report_done(&l->report, problems);
    hw_config_report_free(&l->report);
    if (rc != 0) {
        return rc;
    }
    return problems->count == 0 ? 0 : HW_ERR_INVALID;
}

static int give_up(struct hw_config_loading *l, int code)
{
    hw_config_report_free(&l->report);
    return code;
}

int hw_config_parse(const char *name, const void *text, size_t len, struct hw_config *c,
                    struct hw_config_problems *problems)
{
    struct hw_config_loading l;
    int rc;
    memset(problems, 0, sizeof *problems);
    loading_init(&l, c, name);
    rc = hw_config_read(&l, text, len);
    return rc != 0 ? give_up(&l, rc) : finish(&l, problems);
}

/* Reads one byte more than is allowed, so that a file that is too large shows. */
static int read_file(const char *path, char **text, size_t *len, int *errnum)
{
    FILE *f = fopen(path, "re");
    int rc = 0;
    if (f == NULL) {
        *errnum = errno;
        return errno == ENOENT ? HW_ERR_NOTFOUND : HW_ERR_IO;
    }
    *text = malloc(HW_DOC_BYTES_MAX + 1);
    if (*text == NULL) {
        fclose(f);
        return HW_ERR_NOMEM;
    }
    *len = fread(*text, 1, HW_DOC_BYTES_MAX + 1, f);
    if (ferror(f)) {
        *errnum = errno;
        rc = HW_ERR_IO;
        free(*text);
        *text = NULL;
    }
    fclose(f);
    return rc;
}

int hw_config_load(const char *path, struct hw_config *c, struct hw_config_problems *problems)
{
    struct hw_config_loading l;
    char *text = NULL;
    size_t len = 0;
    int errnum = 0;
    int rc;
    memset(problems, 0, sizeof *problems);
    loading_init(&l, c, path != NULL ? path : "environment");
    if (path != NULL) {
        rc = read_file(path, &text, &len, &errnum);
        if (rc == HW_ERR_NOMEM) {
            return give_up(&l, rc);
        }
        if (rc != 0) {
            hw_config_report_at(&l.report, 0, NULL, "cannot be read: %s", strerror(errnum));
            hw_config_report_done(&l.report, problems);
            return give_up(&l, rc);
        }
        rc = hw_config_read(&l, text, len);
        free(text);
        if (rc != 0) {
            return give_up(&l, rc);
        }
    }
    read_environment(&l);
    return finish(&l, problems);
}
