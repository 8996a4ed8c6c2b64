#include "storage/warm/manifest.h"

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#include "storage/warm/image.h"

static const char magic[4] = {'H', 'W', 'm', 'f'};

int hw_manifest_encode(const struct hw_manifest *m, struct hw_buf *out)
{
    size_t start = out->len;
    hw_buf_append(out, magic, sizeof magic);
    hw_buf_put_u32(out, HW_MANIFEST_FORMAT);
    hw_buf_put_u64(out, m->cluster_id);
    hw_buf_put_u64(out, m->index);
    hw_buf_put_u64(out, (uint64_t)m->revision);
    hw_buf_put_u32(out, m->image_format);
    hw_buf_put_u64(out, m->hash);
    if (out->failed) {
        return HW_ERR_NOMEM;
    }
    hw_buf_put_u64(out, XXH3_64bits(out->data + start, out->len - start));
    return out->failed ? HW_ERR_NOMEM : 0;
}

static int read_fields(struct hw_reader *r, const void *data, size_t len, struct hw_manifest *m, struct hw_error *e)
{
    m->cluster_id = hw_reader_u64(r);
    m->index = hw_reader_u64(r);
    m->revision = (hw_rev)hw_reader_u64(r);
    m->image_format = hw_reader_u32(r);
    m->hash = hw_reader_u64(r);
    if (len != HW_MANIFEST_BYTES) {
        return hw_error_set(e, HW_ERR_CORRUPT, "Raft snapshot: the manifest has %zu bytes instead of %d", len,
                            HW_MANIFEST_BYTES);
    }
    if (hw_reader_u64(r) != XXH3_64bits(data, HW_MANIFEST_BYTES - 8)) {
        return hw_error_set(e, HW_ERR_CORRUPT, "Raft snapshot: the manifest does not fit its checksum");
    }
    if (m->revision < 1 || m->image_format < 1) {
        return hw_error_set(e, HW_ERR_CORRUPT, "Raft snapshot: the manifest contradicts itself");
    }
    if (m->image_format > HW_IMAGE_FORMAT) {
        return hw_error_set(e, HW_ERR_VERSION,
                            "Raft snapshot: it stands for image format %" PRIu32
                            ", this program knows up to %d: install "
                            "a newer HotWarm on this node",
                            m->image_format, HW_IMAGE_FORMAT);
    }
    return 0;
}

int hw_manifest_decode(const void *data, size_t len, struct hw_manifest *m, struct hw_error *e)
{
    struct hw_reader r;
    memset(m, 0, sizeof *m);
    hw_reader_init(&r, data, len);
    if (len < 8 || memcmp(data, magic, sizeof magic) != 0) {
        return hw_error_set(e, HW_ERR_CORRUPT, "Raft snapshot: this is not a HotWarm manifest");
    }
    (void)hw_reader_u32(&r);
    m->format = hw_reader_u32(&r);
    if (m->format > HW_MANIFEST_FORMAT) {
        return hw_error_set(e, HW_ERR_VERSION,
                            "Raft snapshot: manifest format %" PRIu32 ", this program knows up to %d: install a newer "
                            "HotWarm on this node",
                            m->format, HW_MANIFEST_FORMAT);
    }
    if (m->format < 1) {
        return hw_error_set(e, HW_ERR_CORRUPT, "Raft snapshot: the manifest has no format");
    }
    return read_fields(&r, data, len, m, e);
}
