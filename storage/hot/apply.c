#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "storage/hot/state.h"

struct hw_hot *hw_hot_new(void)
{
    struct hw_hot *h = calloc(1, sizeof *h);
    if (h == NULL) {
        return NULL;
    }
    hw_index_init(&h->index);
    hw_lease_table_init(&h->leases);
    TAILQ_INIT(&h->pins);
    h->revision = 1;
    return h;
}

static bool free_keys(struct hw_index *ix, size_t *budget)
{
    struct hw_index_key *k = hw_index_first(ix);
    while (k != NULL && *budget > 0) {
        struct hw_index_key *next = hw_index_next(k);
        uint32_t n = k->count < *budget ? k->count : (uint32_t)*budget;
        hw_index_drop_oldest(ix, k, n);
        *budget -= n;
        if (k->count > 0) {
            return false;
        }
        hw_index_remove(ix, k);
        k = next;
    }
    return k == NULL;
}

bool hw_hot_free_step(struct hw_hot *h, size_t budget)
{
    hw_assert(budget > 0);
    hw_assert(TAILQ_EMPTY(&h->pins)); /* scans and hashers are closed before */
    if (!hw_lease_table_free_step(&h->leases, &budget) || !free_keys(&h->index, &budget)) {
        return false;
    }
    while (h->dirty.count > 0) {
        if (budget-- == 0) {
            return false;
        }
        hw_dirty_pop(&h->dirty);
    }
    if (h->sweep.at != NULL) {
        hw_key_name_unref(h->sweep.at);
    }
    free(h->dirty.at);
    free(h->registry.nodes);
    free(h->history.at);
    free(h);
    return true;
}

void hw_hot_free(struct hw_hot *h)
{
    if (h != NULL) {
        bool is_gone = hw_hot_free_step(h, SIZE_MAX);
        hw_assert(is_gone);
    }
}

static int dispatch(struct hw_hot *h, uint64_t index, const struct hw_cmd *cmd, struct hw_result *result, int *code)
{
    switch (cmd->type) {
    case HW_CMD_TXN:
        return hw_txn_apply(h, &cmd->txn, result, code);
    case HW_CMD_COMPACT:
        hw_compact_apply(h, cmd->compact, index, code);
        return 0;
    case HW_CMD_HOT_ACQUIRED:
        return hw_tenure_apply(h, cmd->hot.node_id, cmd->hot.name, cmd->hot.epoch, cmd->wall_ms, index);
    case HW_CMD_NODE_SET:
        return hw_registry_set(h, &cmd->node, cmd->wall_ms, index, code);
    case HW_CMD_NODE_REMOVE:
        return hw_registry_remove(h, cmd->node_id, cmd->wall_ms, index, code);
    case HW_CMD_EVENT:
        return hw_history_add(h, &cmd->event, cmd->wall_ms, index);
    case HW_CMD_LEASE_GRANT:
        return hw_lease_grant(h, cmd->grant.id, cmd->grant.ttl_s, index, code);
    case HW_CMD_LEASE_REVOKE:
        return hw_lease_revoke(h, cmd->revoke, index, code);
    case HW_CMD_LEASE_CHECKPOINT:
        hw_lease_checkpoint(h, cmd->checkpoint.leases, cmd->checkpoint.count, index);
        return 0;
    case HW_CMD_TYPE_END:
        break;
    }
    hw_unreachable(); /* the decoder lets no other type through */
}

int hw_hot_apply(struct hw_hot *h, uint64_t index, const void *data, size_t len, struct hw_result *result,
                 struct hw_error *e)
{
    struct hw_cmd cmd;
    int code = 0;
    int rc;
    hw_assert(index > h->applied);
    rc = hw_cmd_decode(data, len, &cmd, e);
    if (rc != 0) {
        hw_error_wrap(e, "apply log entry %" PRIu64, index);
    } else {
        rc = dispatch(h, index, &cmd, result, &code);
        if (rc != 0) {
            hw_error_set(e, rc, "apply log entry %" PRIu64 ": out of memory", index);
        }
    }
    hw_cmd_free(&cmd);
    if (rc != 0) {
        if (result != NULL) {
            hw_result_free(result);
        }
        return rc;
    }
    h->applied = index;
    if (result != NULL) {
        result->code = code;
        result->revision = h->revision;
    }
    return 0;
}

void hw_hot_note_index(struct hw_hot *h, uint64_t index)
{
    if (index > h->applied) {
        h->applied = index;
    }
}

void hw_hot_set_feed(struct hw_hot *h, hw_feed_fn fn, void *ctx)
{
    h->feed = fn;
    h->feed_ctx = ctx;
}

uint64_t hw_hot_applied(const struct hw_hot *h)
{
    return h->applied;
}

hw_rev hw_hot_revision(const struct hw_hot *h)
{
    return h->revision;
}

hw_rev hw_hot_compacted(const struct hw_hot *h)
{
    return h->compacted;
}

size_t hw_hot_key_count(const struct hw_hot *h)
{
    return h->index.live_count;
}

size_t hw_hot_version_count(const struct hw_hot *h)
{
    return h->index.version_count;
}

size_t hw_hot_bytes(const struct hw_hot *h)
{
    return h->index.bytes + h->dirty.cap * sizeof h->dirty.at[0] + h->registry.cap * sizeof(struct hw_node) +
           h->history.cap * sizeof(struct hw_event) + hw_lease_table_bytes(&h->leases);
}
