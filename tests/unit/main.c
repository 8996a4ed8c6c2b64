/* The unit test runner: see hw_test.h. Exit 0 when every case passed and at least one ran. */
#include <CUnit/Basic.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/log.h"
#include "tests/unit/hw_test.h"

static struct hw_suite *suites;
static char *dirs[256];
static size_t dir_count;

void hw_suite_register(struct hw_suite *s)
{
    struct hw_suite **at = &suites;
    while (*at != NULL && strcmp((*at)->name, s->name) < 0) {
        at = &(*at)->next;
    }
    s->next = *at;
    *at = s;
}

const char *hw_test_dir(void)
{
    const char *base = getenv("TMPDIR");
    char *path = NULL;
    if (dir_count == sizeof dirs / sizeof dirs[0]) {
        dir_count--; /* the oldest stay for the clean-up, this one is left to the caller */
    }
    if (asprintf(&path, "%s/hw-unit-XXXXXX", base != NULL ? base : "/tmp") < 0 || mkdtemp(path) == NULL) {
        perror("unit: temporary folder");
        exit(2);
    }
    dirs[dir_count++] = path;
    return path;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int is_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strncmp(name, argv[i], strlen(argv[i])) == 0) {
            return 1;
        }
    }
    return argc < 2;
}

int main(int argc, char **argv)
{
    unsigned failed;
    unsigned ran;
    signal(SIGPIPE, SIG_IGN);
    hw_log_configure(getenv("VERBOSE") != NULL ? "debug" : "error");
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (CU_initialize_registry() != CUE_SUCCESS) {
        return 2;
    }
    for (struct hw_suite *s = suites; s != NULL; s = s->next) {
        CU_pSuite suite;
        if (!is_wanted(s->name, argc, argv)) {
            continue;
        }
        suite = CU_add_suite(s->name, NULL, NULL);
        for (size_t i = 0; i < s->case_count; i++) {
            CU_add_test(suite, s->cases[i].name, s->cases[i].run);
        }
    }
    CU_basic_set_mode(getenv("VERBOSE") != NULL ? CU_BRM_VERBOSE : CU_BRM_NORMAL);
    CU_basic_run_tests();
    failed = CU_get_number_of_failures();
    ran = CU_get_number_of_tests_run();
    CU_cleanup_registry();
    for (size_t i = 0; i < dir_count; i++) {
        nftw(dirs[i], remove_entry, 16, FTW_DEPTH | FTW_PHYS);
        free(dirs[i]);
    }
    if (ran == 0) {
        fprintf(stderr, "unit: no suite matches; known:");
        for (struct hw_suite *s = suites; s != NULL; s = s->next) {
            fprintf(stderr, " %s", s->name);
        }
        fprintf(stderr, "\n");
    }
    return failed == 0 && ran > 0 ? 0 : 1;
}
