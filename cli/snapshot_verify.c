/* snapshot verify: read a saved image whole and check it.
 *
 * The one place where hwctl includes a layer above rpc: storage/warm owns the format of an image, and a second reader
 * of it here would be a second truth. It is used read-only and without a cluster.
 */
#include "agent/base/clock.h"
#include "cli/output.h"
#include "cli/run.h"
#include "storage/warm/image.h"

static int print_meta(struct hw_ctl *ctl, const char *path, const struct hw_image_meta *m, struct hw_error *e)
{
    char when[HW_RFC3339_SIZE];
    if (hw_ctl_is_json(ctl)) {
        return hw_ctl_json_print(
            ctl,
            json_pack("{s:o, s:i, s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "file", hw_ctl_json_text(path),
                      "format", (int)m->format, "cluster_id", hw_ctl_json_hex(m->cluster_id), "index",
                      hw_ctl_json_number(m->counters.applied), "revision", (json_int_t)m->counters.revision,
                      "compacted", (json_int_t)m->counters.compacted, "epoch", hw_ctl_json_number(m->counters.epoch),
                      "rows", hw_ctl_json_number(m->row_count), "rows_hash", hw_ctl_json_hex(m->rows_hash),
                      "state_hash", hw_ctl_json_hex(m->counters.hash), "written_wall_ms",
                      hw_ctl_json_number(m->written_wall_ms)),
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
            "  format     %u\n",
            path, (unsigned long long)m->cluster_id, (long long)m->counters.revision, (long long)m->counters.compacted,
            (unsigned long long)m->counters.applied, (unsigned long long)m->counters.epoch,
            (unsigned long long)m->row_count, (unsigned long long)m->rows_hash, (unsigned long long)m->counters.hash,
            hw_rfc3339(m->written_wall_ms, when), m->format);
    return 0;
}

HW_CTL_RUN(snapshot_verify)
{
    const char *path = hw_ctl_word(args, 0);
    struct hw_image_meta meta;
    struct hw_image *image;
    int rc = hw_image_open_readonly(path, &image, e);
    if (rc != 0) {
        return rc;
    }
    rc = hw_image_verify(image, &meta, e);
    hw_image_close(image);
    return rc == 0 ? print_meta(ctl, path, &meta, e) : rc;
}
