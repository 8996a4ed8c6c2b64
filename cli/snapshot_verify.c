/* snapshot verify: read a saved image whole and check it.
 *
 * The one place where hwctl includes a layer above rpc: storage/warm owns the format of an image, and a second reader
 * of it here would be a second truth. It is used read-only and without a cluster.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/clock.h"
#include "cli/output.h"
#include "cli/run.h"
#include "storage/warm/image.h"

#define READ_BYTES ((size_t)1 << 20)

/* Of the whole file, as `snapshot save` prints it (xxh3-64). */
static int file_checksum(const char *path, uint64_t *checksum, struct hw_error *e)
{
    XXH3_state_t *state = XXH3_createState();
    uint8_t *bytes = malloc(READ_BYTES);
    FILE *f = fopen(path, "rb");
    size_t n;
    int rc = 0;
    if (f == NULL) {
        rc = hw_error_errno(e, errno, "open %s", path);
    } else if (state == NULL || bytes == NULL) {
        rc = hw_error_set(e, HW_ERR_NOMEM, "out of memory");
    } else {
        XXH3_64bits_reset(state);
        while ((n = fread(bytes, 1, READ_BYTES, f)) > 0) {
            XXH3_64bits_update(state, bytes, n);
        }
        *checksum = XXH3_64bits_digest(state);
        rc = ferror(f) ? hw_error_set(e, HW_ERR_IO, "%s cannot be read to its end", path) : 0;
    }
    if (f != NULL) {
        fclose(f);
    }
    free(bytes);
    XXH3_freeState(state);
    return rc;
}

/* 0: it is the wanted one, or none is wanted. */
static int compare(const char *path, const char *wanted, uint64_t checksum, struct hw_error *e)
{
    char *end;
    if (wanted == NULL) {
        return 0;
    }
    if (wanted[0] == '\0' || strlen(wanted) != strspn(wanted, "0123456789abcdefABCDEF") || strlen(wanted) > 16) {
        return hw_error_set(e, HW_ERR_INVALID, "--checksum '%s' is not a hexadecimal number of up to 16 digits",
                            wanted);
    }
    if (strtoull(wanted, &end, 16) != checksum) {
        return hw_error_set(e, HW_ERR_CORRUPT, "%s has the checksum %016" PRIx64 " and not %s: it is another file",
                            path, checksum, wanted);
    }
    return 0;
}

static int print_meta(struct hw_ctl *ctl, const char *path, const struct hw_image_meta *m, uint64_t checksum,
                      struct hw_error *e)
{
    char when[HW_RFC3339_SIZE];
    if (hw_ctl_is_json(ctl)) {
        return hw_ctl_json_print(
            ctl,
            json_pack("{s:o, s:i, s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "file", hw_ctl_json_text(path),
                      "format", (int)m->format, "cluster_id", hw_ctl_json_hex(m->cluster_id), "index",
                      hw_ctl_json_number(m->counters.applied), "revision", (json_int_t)m->counters.revision,
                      "compacted", (json_int_t)m->counters.compacted, "epoch", hw_ctl_json_number(m->counters.epoch),
                      "rows", hw_ctl_json_number(m->row_count), "rows_hash", hw_ctl_json_hex(m->rows_hash),
                      "state_hash", hw_ctl_json_hex(m->counters.hash), "written_wall_ms",
                      hw_ctl_json_number(m->written_wall_ms), "checksum", hw_ctl_json_hex(checksum)),
            e);
    }
    fprintf(ctl->out,
            "%s is whole\n"
            "  cluster    %016llx\n"
            "  revision   %lld (compacted %lld)\n"
            "  index      %llu\n"
            "  epoch      %llu\n"
            "  rows       %llu, hash %016llx\n"
            "  state hash %016llx\n"
            "  written    %s\n"
            "  format     %u\n"
            "  checksum   %016llx\n",
            path, (unsigned long long)m->cluster_id, (long long)m->counters.revision, (long long)m->counters.compacted,
            (unsigned long long)m->counters.applied, (unsigned long long)m->counters.epoch,
            (unsigned long long)m->row_count, (unsigned long long)m->rows_hash, (unsigned long long)m->counters.hash,
            hw_rfc3339(m->written_wall_ms, when), m->format, (unsigned long long)checksum);
    return 0;
}

HW_CTL_RUN(snapshot_verify)
{
    const char *path = hw_ctl_word(args, 0);
    struct hw_image_meta meta;
    struct hw_image *image;
    uint64_t checksum = 0;
    int rc = hw_image_open_readonly(path, &image, e);
    if (rc != 0) {
        return rc;
    }
    rc = hw_image_verify(image, &meta, e);
    hw_image_close(image);
    if (rc == 0) {
        rc = file_checksum(path, &checksum, e);
    }
    if (rc == 0) {
        rc = compare(path, hw_ctl_text(args, "checksum", NULL), checksum, e);
    }
    return rc == 0 ? print_meta(ctl, path, &meta, checksum, e) : rc;
}
