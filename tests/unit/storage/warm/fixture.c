#include "tests/unit/storage/warm/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "storage/hot/changes.h"
#include "storage/hot/lease.h"

void fixture_init(struct fixture *f)
{
    f->hot = hw_hot_new();
    f->index = 0;
    hw_assert(f->hot != NULL);
}

void fixture_close(struct fixture *f)
{
    hw_hot_free(f->hot);
}

static void apply(struct fixture *f, struct hw_cmd *cmd)
{
    struct hw_buf data = {0};
    struct hw_error e = {0};
    cmd->wall_ms = 1700000000000ull + f->index;
    hw_assert(hw_cmd_encode(cmd, &data) == 0);
    hw_assert(hw_hot_apply(f->hot, ++f->index, data.data, data.len, NULL, &e) == 0);
    hw_buf_free(&data);
}

static void apply_op(struct fixture *f, struct hw_op *op)
{
    struct hw_cmd cmd = {.type = HW_CMD_TXN};
    cmd.txn.success = op;
    cmd.txn.success_count = 1;
    apply(f, &cmd);
}

void fixture_put(struct fixture *f, const char *key, const char *value)
{
    struct hw_op op = {.type = HW_OP_PUT};
    op.put.key = hw_slice_str(key);
    op.put.value = hw_slice_str(value);
    apply_op(f, &op);
}

void fixture_delete(struct fixture *f, const char *key)
{
    struct hw_op op = {.type = HW_OP_DELETE};
    op.del.key = hw_slice_str(key);
    apply_op(f, &op);
}

void fixture_put_and_delete(struct fixture *f, const char *key)
{
    struct hw_op put = {.type = HW_OP_PUT, .put = {.key = hw_slice_str(key)}};
    struct hw_op del = {.type = HW_OP_DELETE, .del = {.key = hw_slice_str(key)}};
    struct hw_txn first = {.success = &put, .success_count = 1};
    struct hw_txn second = {.success = &del, .success_count = 1};
    struct hw_op both[] = {{.type = HW_OP_TXN, .txn = &first}, {.type = HW_OP_TXN, .txn = &second}};
    apply(f, &(struct hw_cmd){.type = HW_CMD_TXN, .txn = {.success = both, .success_count = 2}});
}

void fixture_compact(struct fixture *f, hw_rev revision)
{
    struct hw_cmd cmd = {.type = HW_CMD_COMPACT, .compact = revision};
    apply(f, &cmd);
}

void fixture_grant(struct fixture *f, int64_t id, int64_t ttl_s)
{
    apply(f, &(struct hw_cmd){.type = HW_CMD_LEASE_GRANT, .grant = {id, ttl_s}});
}

void fixture_revoke(struct fixture *f, int64_t id)
{
    apply(f, &(struct hw_cmd){.type = HW_CMD_LEASE_REVOKE, .revoke = id});
}

void fixture_remaining(struct fixture *f, int64_t id, int64_t remaining_s)
{
    struct hw_lease_remaining one = {id, remaining_s};
    apply(f, &(struct hw_cmd){.type = HW_CMD_LEASE_CHECKPOINT, .checkpoint = {&one, 1}});
}

void fixture_put_leased(struct fixture *f, const char *key, const char *value, int64_t lease)
{
    struct hw_op op = {.type = HW_OP_PUT};
    op.put.key = hw_slice_str(key);
    op.put.value = hw_slice_str(value);
    op.put.lease = lease;
    apply_op(f, &op);
}

void fixture_node(struct fixture *f, uint64_t id, const char *name)
{
    struct hw_cmd cmd = {.type = HW_CMD_NODE_SET};
    cmd.node.id = id;
    cmd.node.added_wall_ms = 1700000000000ull;
    snprintf(cmd.node.name, sizeof cmd.node.name, "%s", name);
    snprintf(cmd.node.peer_address, sizeof cmd.node.peer_address, "%s.example:2380", name);
    snprintf(cmd.node.client_address, sizeof cmd.node.client_address, "%s.example:2379", name);
    apply(f, &cmd);
}

void fixture_event(struct fixture *f, const char *kind, const char *text)
{
    struct hw_cmd cmd = {.type = HW_CMD_EVENT};
    cmd.event.node_id = 1;
    snprintf(cmd.event.kind, sizeof cmd.event.kind, "%s", kind);
    snprintf(cmd.event.text, sizeof cmd.event.text, "%s", text);
    apply(f, &cmd);
}

void fixture_hot(struct fixture *f, uint64_t node_id, uint64_t epoch)
{
    struct hw_cmd cmd = {.type = HW_CMD_HOT_ACQUIRED};
    cmd.hot.node_id = node_id;
    cmd.hot.epoch = epoch;
    apply(f, &cmd);
}

int fixture_checkpoint(struct fixture *f, struct hw_image *image, struct hw_error *e)
{
    struct hw_cut *cut;
    int rc;
    hw_assert(hw_hot_cut(f->hot, &cut) == 0);
    rc = hw_image_apply(image, cut, 1700000000999ull, e);
    hw_cut_free(cut);
    return rc;
}

const char *fixture_path(const char *folder, const char *name)
{
    static char paths[64][4096];
    static unsigned next;
    char *path = paths[next++ % 64];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

char *fixture_slurp(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    char *data;
    long size;
    hw_assert(f != NULL && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0);
    rewind(f);
    data = malloc((size_t)size + 1);
    hw_assert(data != NULL && fread(data, 1, (size_t)size, f) == (size_t)size);
    fclose(f);
    data[size] = '\0';
    *len = (size_t)size;
    return data;
}

void fixture_spill(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "wb");
    hw_assert(f != NULL && fwrite(data, 1, len, f) == len && fclose(f) == 0);
}

void fixture_copy_file(const char *from, const char *to)
{
    size_t len;
    char *data = fixture_slurp(from, &len);
    fixture_spill(to, data, len);
    free(data);
}

static uint64_t hash_range(struct hw_hot *hot, hw_rev revision)
{
    struct hw_range range = {.key = hw_slice_of("", 1), .range_end = hw_slice_of("", 1), .revision = revision};
    struct hw_scan *scan;
    struct hw_version *const *kvs;
    uint64_t hash = 0;
    size_t count;
    if (hw_scan_start(hot, &range, &scan) != 0) {
        return 1;
    }
    while (hw_scan_step(scan, 1000) > 0) {
    }
    kvs = hw_scan_kvs(scan, &count);
    for (size_t i = 0; i < count; i++) {
        hash = hash * 31 + hw_version_hash(kvs[i]);
    }
    hw_scan_close(scan);
    return hash;
}

static uint64_t mix(uint64_t hash, const void *data, size_t len)
{
    return XXH3_64bits_withSeed(data, len, hash);
}

static uint64_t hash_changes(struct hw_hot *hot, uint64_t hash)
{
    struct hw_slice all = hw_slice_of("", 1);
    struct hw_changes *ch;
    struct hw_version *const *at;
    size_t count;
    hw_assert(hw_changes_start(hot, all, all, hw_hot_compacted(hot), INT64_MAX, &ch) == 0);
    while (hw_changes_step(ch, 1000) > 0) {
    }
    at = hw_changes_at(ch, &count);
    for (size_t i = 0; i < count; i++) {
        hash = hash * 31 + hw_version_hash(at[i]);
    }
    hw_changes_close(ch);
    return hash;
}

static uint64_t hash_leases(const struct hw_hot *hot, uint64_t hash)
{
    struct hw_lease_view view = {.id = INT64_MIN};
    while (hw_hot_lease_next(hot, view.id, &view) == 0) {
        struct hw_key_name *key = NULL;
        uint64_t numbers[] = {(uint64_t)view.id, (uint64_t)view.ttl_s, (uint64_t)view.remaining_s, view.key_count};
        hash = mix(hash, numbers, sizeof numbers);
        while (hw_hot_lease_keys(hot, view.id, key, &key, 1) == 1) {
            hash = mix(hash, key->data, key->len);
        }
    }
    return hash;
}

uint64_t fixture_digest(struct hw_hot *hot)
{
    uint64_t numbers[] = {hw_hot_applied(hot), (uint64_t)hw_hot_revision(hot), (uint64_t)hw_hot_compacted(hot),
                          hw_hot_epoch(hot),   hw_hot_hot_node(hot),           hw_hot_hash(hot)};
    uint64_t hash = mix(0, numbers, sizeof numbers);
    for (hw_rev r = hw_hot_compacted(hot) > 0 ? hw_hot_compacted(hot) : 1; r <= hw_hot_revision(hot); r++) {
        hash = hash * 31 + hash_range(hot, r);
    }
    hash = hash_leases(hot, hash_changes(hot, hash));
    for (size_t i = 0; i < hw_hot_node_count(hot); i++) {
        const struct hw_node *node = hw_hot_node_at(hot, i);
        hash = mix(hash, &node->id, sizeof node->id);
        hash = mix(hash, node->name, strlen(node->name));
        hash = mix(hash, node->peer_address, strlen(node->peer_address));
        hash = mix(hash, node->client_address, strlen(node->client_address));
    }
    for (size_t i = 0; i < hw_hot_event_count(hot); i++) {
        const struct hw_event *event = hw_hot_event_at(hot, i);
        hash = mix(hash, &event->seq, 5 * sizeof(uint64_t));
        hash = mix(hash, event->kind, strlen(event->kind));
        hash = mix(hash, event->text, strlen(event->text));
    }
    return hash;
}

int fixture_reopen(const char *path, struct hw_image_meta *meta, uint64_t *digest, struct hw_error *e)
{
    struct hw_image *image;
    struct hw_hot *hot;
    int rc = hw_image_open(path, FIXTURE_CLUSTER, &image, e);
    if (rc != 0) {
        return rc;
    }
    if ((rc = hw_image_verify(image, meta, e)) == 0 && (rc = hw_image_load(image, &hot, NULL, NULL, e)) == 0) {
        const char *broken = hw_hot_check(hot);
        *digest = fixture_digest(hot);
        rc = broken == NULL ? 0 : hw_error_set(e, HW_ERR_INTERNAL, "%s", broken);
        hw_hot_free(hot);
    }
    hw_image_close(image);
    return rc;
}
