/* What the state is made of: immutable, reference-counted records.
 *
 * A version is one write of one key. The loop thread makes it and links it into the state; from then on nobody changes
 * it, so the checkpoint worker and the wire share it without copying. hw_version_ref/unref are safe from any thread;
 * the last unref frees.
 */
#ifndef HW_HOT_RECORD_H
#define HW_HOT_RECORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"

typedef int64_t hw_rev;

/* The bytes of a key, shared by all its versions. */
struct hw_key_name {
    atomic_uint refs;
    uint32_t len;
    uint8_t data[];
};

struct hw_version {
    atomic_uint refs;
    uint32_t mod_sub;   /* position within the transaction that wrote it */
    hw_rev mod_main;    /* etcd's mod_revision */
    hw_rev create_main; /* etcd's create_revision; 0 for a tombstone */
    int64_t version;    /* etcd's version: 1 on creation; 0 for a tombstone */
    int64_t lease;      /* 0 for none */
    struct hw_key_name *key;
    bool is_tombstone;
    uint32_t value_len;
    uint8_t value[];
};

/* New records with one reference; NULL when out of memory. hw_version_new takes a reference of its own on key. */
struct hw_key_name *hw_key_name_new(struct hw_slice key);
struct hw_key_name *hw_key_name_ref(struct hw_key_name *k);
void hw_key_name_unref(struct hw_key_name *k);
struct hw_version *hw_version_new(struct hw_key_name *key, struct hw_slice value);
struct hw_version *hw_version_ref(struct hw_version *v);
void hw_version_unref(struct hw_version *v);

/* Hash of everything in the record (xxh3, 64 bit); the state hash is the sum of these modulo 2^64, so that it does not
 * depend on order and can be kept up to date by adding and subtracting. */
uint64_t hw_version_hash(const struct hw_version *v);

#endif
