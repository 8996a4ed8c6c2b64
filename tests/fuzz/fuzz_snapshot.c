/* The stream that `hwctl snapshot save` receives. Input: records of u8 kind, u16 length (little-endian) and that many
 * bytes. Kinds: a message as it is, a chunk at the right place with these bytes, a new stream, start over, and a chunk
 * as packed by the server. What is complete must be the file that was announced. */
#include <string.h>
#include <sys/stat.h>

#include "cli/snapshot_file.h"
#include "proto/hotwarm.pb-c.h"
#include "tests/fuzz/fuzz_folder.h"
#include "tests/fuzz/fuzz_hash_seam.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int give_chunk(struct hw_ctl_snapshot *s, const uint8_t *data, size_t len, struct hw_error *e)
{
    Hotwarm__V1__SnapshotMessage m = HOTWARM__V1__SNAPSHOT_MESSAGE__INIT;
    Hotwarm__V1__SnapshotChunk chunk = HOTWARM__V1__SNAPSHOT_CHUNK__INIT;
    uint8_t *packed;
    int rc;
    chunk.offset = s->offset;
    chunk.data = (ProtobufCBinaryData){len, (uint8_t *)data};
    chunk.checksum = SEAM_HASH;
    m.part_case = HOTWARM__V1__SNAPSHOT_MESSAGE__PART_CHUNK;
    m.chunk = &chunk;
    packed = malloc(hotwarm__v1__snapshot_message__get_packed_size(&m));
    hw_assert(packed != NULL);
    rc = hw_ctl_snapshot_message(s, hw_slice_of(packed, hotwarm__v1__snapshot_message__pack(&m, packed)), e);
    free(packed);
    return rc;
}

static int one(struct hw_ctl_snapshot *s, uint8_t kind, const uint8_t *data, size_t len, struct hw_error *e)
{
    uint8_t *exact;
    int rc;
    switch (kind % 4) {
    case 1:
        return give_chunk(s, data, len, e);
    case 2:
        hw_ctl_snapshot_stream(s);
        return 0;
    case 3:
        return hw_ctl_snapshot_restart(s, e);
    default:
        exact = malloc(len + 1);
        hw_assert(exact != NULL);
        memcpy(exact + 1, data, len);
        rc = hw_ctl_snapshot_message(s, hw_slice_of(exact + 1, len), e);
        free(exact);
        return rc;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hw_ctl_snapshot s;
    struct hw_error e = {0};
    struct hw_reader r;
    struct stat st;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/saved", fuzz_folder());
    hw_assert(hw_ctl_snapshot_open(&s, path, true, &e) == 0);
    hw_reader_init(&r, data, size);
    while (hw_reader_left(&r) >= 3 && !s.is_complete) {
        uint8_t kind = hw_reader_u8(&r);
        size_t len = hw_reader_u8(&r);
        len |= (size_t)hw_reader_u8(&r) << 8;
        len = len < hw_reader_left(&r) ? len : hw_reader_left(&r);
        if (one(&s, kind, r.pos, len, &e) != 0) {
            hw_assert(e.text[0] != '\0');
            hw_ctl_snapshot_stream(&s);
        }
        hw_assert(s.offset <= s.size);
        r.pos += len;
    }
    hw_assert(fstat(s.fd, &st) == 0 && (uint64_t)st.st_size == s.offset);
    if (s.is_complete) {
        hw_assert(hw_ctl_snapshot_finish(&s, &e) == 0);
        fuzz_file_remove("saved");
    } else {
        hw_ctl_snapshot_abort(&s);
    }
    return 0;
}
