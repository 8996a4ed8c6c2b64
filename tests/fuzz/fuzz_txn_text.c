/* The text of `hwctl txn`: what is accepted packs and unpacks, what is not is refused with a place. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "cli/txn_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Etcdserverpb__TxnRequest *txn = NULL;
    Etcdserverpb__TxnRequest *again;
    struct hw_ctl_txn_place place = {0};
    struct hw_error e = {0};
    uint8_t *packed;
    size_t len;
    int rc = hw_ctl_txn_parse(hw_slice_of(data, size), &txn, &place, &e);
    if (rc != 0) {
        hw_assert(txn == NULL && e.text[0] != '\0');
        hw_assert(rc != HW_ERR_INVALID || place.line == 0 || place.column > 0);
        return 0;
    }
    len = etcdserverpb__txn_request__get_packed_size(txn);
    packed = malloc(len + 1);
    hw_assert(packed != NULL);
    hw_assert(etcdserverpb__txn_request__pack(txn, packed) == len);
    again = etcdserverpb__txn_request__unpack(NULL, len, packed);
    hw_assert(again != NULL && again->n_compare == txn->n_compare && again->n_success == txn->n_success &&
              again->n_failure == txn->n_failure);
    etcdserverpb__txn_request__free_unpacked(again, NULL);
    etcdserverpb__txn_request__free_unpacked(txn, NULL);
    free(packed);
    return 0;
}
