/* A model of the state that is too simple to be wrong: every version ever written in plain arrays, every question
 * answered by looking at all of them. It knows nothing of the state's sources but the rules.
 */
#ifndef HW_TEST_HOT_MODEL_H
#define HW_TEST_HOT_MODEL_H

#include "storage/hot/hot.h"

#define MODEL_KEYS 48 /* all keys that are ever written */
#define MODEL_VALUE_MAX 8

struct mversion {
    hw_rev main;
    uint32_t sub;
    hw_rev create;
    int64_t version;
    bool is_tombstone;
    uint8_t value_len;
    uint8_t value[MODEL_VALUE_MAX];
    uint64_t hash;
};

struct mkey {
    char name[8];
    struct mversion *at;
    size_t count;
    size_t cap;
};

struct model {
    struct mkey keys[MODEL_KEYS]; /* sorted */
    hw_rev revision;
    hw_rev compacted;
    uint32_t sub; /* writes of the transaction under way */
};

void model_init(struct model *m);
void model_free(struct model *m);

/* Appends what a range answers at `rev` (INT64_MAX: now), in the words of hotkit_result_text. */
void model_range(struct model *m, const struct hw_range *r, hw_rev rev, struct hw_buf *out);
/* The hash of the state at `rev`. */
uint64_t model_hash(struct model *m, hw_rev rev);
/* The code of a transaction; when it is 0, what it answers is appended. */
int model_txn(struct model *m, const struct hw_txn *txn, struct hw_buf *out);

#endif
