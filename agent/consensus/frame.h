/* How our entries and snapshot manifests look as bytes. Private to agent/consensus.
 *
 * Entry: u32 payload length · u32 format · u64 term in which it was proposed · u64 log index · payload · zeros up to a
 * multiple of 8 (libraft's disk format stores lengths in 8-byte words and refuses others). The term is here because
 * libraft does not tell it when it applies; the index because its open segments do not say where they begin: with a
 * segment missing before them, their entries would slide to wrong places without a trace. Manifest: "HWMANIF1" · u32
 * payload length · u32 zero · u64 XXH64 of the payload · payload · zeros up to a multiple of 8. The checksum is here
 * because libraft's snapshot files have none for their data. All numbers little-endian.
 */
#ifndef HW_CONSENSUS_FRAME_H
#define HW_CONSENSUS_FRAME_H

#include "agent/base/buf.h"

#define FRAME_ENTRY_HEAD 24

/* Reserve the head; the payload is appended after it. */
int frame_entry_begin(struct hw_buf *b);
/* Fill the head but for the place, and pad. HW_ERR_INVALID when begin was forgotten. */
int frame_entry_end(struct hw_buf *b);
void frame_entry_set_place(struct hw_buf *b, uint64_t term, uint64_t index);
/* HW_ERR_CORRUPT, HW_ERR_VERSION. `payload` borrows from data. */
int frame_entry_decode(const void *data, size_t len, uint64_t *term, uint64_t *index, struct hw_slice *payload);

int frame_manifest_encode(struct hw_slice payload, struct hw_buf *out);
int frame_manifest_decode(const void *data, size_t len, struct hw_slice *payload);

#endif
