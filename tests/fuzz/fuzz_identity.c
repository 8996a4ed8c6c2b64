/* The identity file: what is accepted is stored again as the same bytes. */
#include <string.h>
#include <sys/stat.h>

#include "storage/warm/fs.h"
#include "storage/warm/identity.h"
#include "tests/fuzz/fuzz_folder.h"
#include "tests/fuzz/fuzz_hash_seam.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct hw_datadir *folder;

static void close_folder(void)
{
    hw_datadir_close(folder);
    fuzz_file_remove("lock");
    fuzz_file_remove(HW_IDENTITY_FILE);
    fuzz_file_remove(HW_IDENTITY_FILE ".new");
}

/* Once: taking the lock costs more than reading the file. */
static void open_folder(void)
{
    static const char *const sub_folders[] = {HW_RAFT_FOLDER, HW_INCOMING_FOLDER};
    struct hw_error e = {0};
    char path[PATH_MAX];
    hw_assert(hw_datadir_open(fuzz_folder(), &folder, &e) == 0);
    for (size_t i = 0; i < hw_array_len(sub_folders); i++) {
        snprintf(path, sizeof path, "%s/%s", fuzz_folder(), sub_folders[i]);
        rmdir(path);
    }
    atexit(close_folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct hw_identity identity;
    struct hw_error e = {0};
    struct hw_buf again = {0};
    const char *path;
    if (folder == NULL) {
        open_folder();
    }
    path = fuzz_file(HW_IDENTITY_FILE, data, size);
    if (hw_identity_load(folder, &identity, &e) != 0) {
        hw_assert(e.text[0] != '\0' && identity.name[0] == '\0');
        return 0;
    }
    hw_assert(hw_identity_store(folder, &identity, &e) == 0);
    hw_assert(hw_fs_read(path, size + 1, &again, &e) == 0);
    hw_assert(again.len == size && memcmp(again.data, data, size) == 0);
    hw_buf_free(&again);
    return 0;
}
