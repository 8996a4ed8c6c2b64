/* txn: a transaction in text form, from stdin or a file. */
#include <errno.h>

#include "cli/call.h"
#include "cli/kv_print.h"
#include "cli/run.h"
#include "cli/txn_parse.h"

static const struct hw_ctl_method txn_method = {
    .path = "/etcdserverpb.KV/Txn", .response = &etcdserverpb__txn_response__descriptor, .is_write = true};

static int read_text(struct hw_ctl *ctl, const struct hw_ctl_args *args, struct hw_buf *text, struct hw_error *e)
{
    const char *path = hw_ctl_text(args, "file", "-");
    FILE *f;
    int rc;
    if (path[0] == '-' && path[1] == '\0') {
        if (ctl->env->in_is_tty) {
            hw_ctl_note(ctl, "txn: reading the transaction from the terminal; end it with Ctrl-D");
        }
        return hw_ctl_read_all(ctl->env->in, "stdin", HW_CTL_TXN_BYTES_MAX, text, e);
    }
    f = fopen(path, "re");
    if (f == NULL) {
        return hw_error_errno(e, errno, "open %s", path);
    }
    rc = hw_ctl_read_all(f, path, HW_CTL_TXN_BYTES_MAX, text, e);
    fclose(f);
    return rc;
}

static void print_op(struct hw_ctl *ctl, const Etcdserverpb__ResponseOp *op)
{
    switch (op->response_case) {
    case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE:
        fprintf(ctl->out, "get: %lld found\n", (long long)op->response_range->count);
        hw_ctl_print_kvs(ctl, op->response_range->kvs, op->response_range->n_kvs);
        break;
    case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_PUT:
        fprintf(ctl->out, "put: OK\n");
        hw_ctl_print_kvs(ctl, &op->response_put->prev_kv, op->response_put->prev_kv != NULL);
        break;
    case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_DELETE_RANGE:
        fprintf(ctl->out, "del: %lld deleted\n", (long long)op->response_delete_range->deleted);
        hw_ctl_print_kvs(ctl, op->response_delete_range->prev_kvs, op->response_delete_range->n_prev_kvs);
        break;
    default:
        break;
    }
}

static int print_answer(struct hw_ctl *ctl, const Etcdserverpb__TxnResponse *r, struct hw_error *e)
{
    if (hw_ctl_is_json(ctl)) {
        return hw_ctl_json_print(ctl, hw_ctl_json_txn(r), e);
    }
    fprintf(ctl->out, "%s, revision %lld\n", r->succeeded ? "conditions held" : "conditions did not hold",
            (long long)hw_ctl_header_revision(r->header));
    for (size_t i = 0; i < r->n_responses; i++) {
        print_op(ctl, r->responses[i]);
    }
    return 0;
}

HW_CTL_RUN(txn)
{
    struct hw_buf text = {0};
    struct hw_ctl_txn_place place;
    Etcdserverpb__TxnRequest *txn = NULL;
    ProtobufCMessage *answer = NULL;
    int rc = read_text(ctl, args, &text, e);
    if (rc == 0) {
        rc = hw_ctl_txn_parse(hw_buf_slice(&text), &txn, &place, e);
        if (rc == HW_ERR_INVALID) {
            hw_ctl_hint(ctl, "'hwctl help txn' shows the form");
        }
    }
    if (rc == 0) {
        rc = hw_ctl_unary(ctl, &txn_method, &txn->base, &answer, e);
    }
    if (rc == 0) {
        const Etcdserverpb__TxnResponse *r = (Etcdserverpb__TxnResponse *)answer;
        rc = print_answer(ctl, r, e);
        if (rc == 0 && !r->succeeded && hw_ctl_is_set(args, "check")) {
            rc = hw_error_set(e, HW_ERR_PRECONDITION, "the conditions did not hold");
            hw_ctl_hint(ctl, "What 'else' says was done");
        }
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    if (txn != NULL) {
        etcdserverpb__txn_request__free_unpacked(txn, NULL);
    }
    hw_buf_free(&text);
    return rc;
}
