/* A model of the state that is too simple to be wrong: every version ever written in plain arrays, every question
 * answered by looking at all of them. It knows nothing of the state's sources but the rules.
 */
#ifndef HW_TEST_HOT_MODEL_H
#define HW_TEST_HOT_MODEL_H

#include "storage/hot/hot.h"

#define MODEL_KEYS 48 /* all keys that are ever written */
#define MODEL_VALUE_MAX 8
#define MODEL_LEASES 6 /* their ids are 1 to so many */

struct mversion {
    hw_rev main;
    uint32_t sub;
    hw_rev create;
    int64_t version;
    int64_t lease;
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

struct mlease {
    bool is_there;
    int64_t ttl_s;
    int64_t remaining_s;
};

struct model {
    struct mkey keys[MODEL_KEYS]; /* sorted */
    struct mlease leases[MODEL_LEASES];
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
/* The codes of the commands. */
int model_grant(struct model *m, int64_t id, int64_t ttl_s);
int model_revoke(struct model *m, int64_t id);
void model_remaining(struct model *m, const struct hw_lease_remaining *leases, size_t count);
/* What hotkit_lease_text answers. Appends. */
void model_lease_text(struct model *m, int64_t id, struct hw_buf *out);
/* The code of a transaction; when it is 0, what it answers is appended. */
int model_txn(struct model *m, const struct hw_txn *txn, struct hw_buf *out);

#endif
