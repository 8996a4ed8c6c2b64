/* The identity file: `key=value` lines that a person can read, one key once and in this order, and a checksum of every
 * byte before its own line. What is written is exactly what is read back: no blanks, no comments, no other order, so
 * that every change made by hand or by a bad disk is noticed.
 */
#include "storage/warm/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/base/buf.h"
#include "storage/warm/datadir.h"
#include "storage/warm/fs.h"
#include "storage/warm/schema.h"

#define IDENTITY_BYTES_MAX 65536

static const char *const state_names[] = {
    [HW_IDENTITY_WAITING] = "waiting",
    [HW_IDENTITY_FORMING] = "forming",
    [HW_IDENTITY_MEMBER] = "member",
    [HW_IDENTITY_RECOVERING] = "recovering",
};

const char *hw_identity_state_name(enum hw_identity_state state)
{
    return state >= HW_IDENTITY_WAITING && state <= HW_IDENTITY_RECOVERING ? state_names[state] : "unknown";
}

/* Blanks and line ends would break the file's lines; the rest is for those who print it. */
static bool is_word(const char *text, size_t size)
{
    size_t len = strnlen(text, size);
    if (len == 0 || len == size) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c <= ' ' || c == 0x7f) {
            return false;
        }
    }
    return true;
}

/* What is wrong with it; NULL when nothing is. */
static const char *find_fault(const struct hw_identity *id)
{
    bool is_waiting = id->state == HW_IDENTITY_WAITING;
    if (id->state < HW_IDENTITY_WAITING || id->state > HW_IDENTITY_RECOVERING) {
        return "its state is unknown";
    }
    if (!is_word(id->name, sizeof id->name)) {
        return "the name of the node is empty, too long or has blanks";
    }
    if (!is_waiting && (id->cluster_id == 0 || id->raft_id == 0)) {
        return "the cluster id or the Raft id is missing";
    }
    if (id->state == HW_IDENTITY_RECOVERING && id->recovery == 0) {
        return "the state 'recovering' belongs to a recovery, and none is counted";
    }
    if (id->member_count > HW_IDENTITY_MEMBERS_MAX) {
        return "it has too many members";
    }
    if ((id->state == HW_IDENTITY_FORMING) != (id->member_count > 0)) {
        return "members belong to the state 'forming' and to no other";
    }
    for (size_t i = 0; i < id->member_count; i++) {
        const struct hw_identity_member *m = &id->members[i];
        if (m->id == 0 || !is_word(m->name, sizeof m->name) || !is_word(m->peer_address, sizeof m->peer_address)) {
            return "a member lacks its id, name or address";
        }
        for (size_t j = 0; j < i; j++) {
            if (id->members[j].id == m->id || strcmp(id->members[j].name, m->name) == 0) {
                return "a member is there twice";
            }
        }
    }
    return NULL;
}

static int print_identity(const struct hw_identity *id, struct hw_buf *out)
{
    hw_buf_printf(out,
                  "format=%d\ncluster_id=%016" PRIx64 "\nnode=%s\nraft_id=%016" PRIx64 "\nrecovery=%016" PRIx64
                  "\nstate=%s\n",
                  HW_IDENTITY_FORMAT, id->cluster_id, id->name, id->raft_id, id->recovery, state_names[id->state]);
    for (size_t i = 0; i < id->member_count; i++) {
        hw_buf_printf(out, "member=%016" PRIx64 " %s %s\n", id->members[i].id, id->members[i].name,
                      id->members[i].peer_address);
    }
    if (out->failed) {
        return HW_ERR_NOMEM;
    }
    hw_buf_printf(out, "checksum=%016" PRIx64 "\n", XXH3_64bits(out->data, out->len));
    return out->failed ? HW_ERR_NOMEM : 0;
}

int hw_identity_store(struct hw_datadir *d, const struct hw_identity *identity, struct hw_error *e)
{
    const char *fault = find_fault(identity);
    struct hw_buf text = {0};
    int rc;
    if (fault != NULL) {
        return hw_error_set(e, HW_ERR_INVALID, "write the node's identity: %s", fault);
    }
    if (print_identity(identity, &text) != 0) {
        rc = hw_error_set(e, HW_ERR_NOMEM, "write the node's identity: out of memory");
    } else {
        rc = hw_fs_replace(d->path, HW_IDENTITY_FILE, hw_buf_slice(&text), e);
    }
    hw_buf_free(&text);
    return rc;
}

/* The rest of a text that has not been read yet. */
struct cursor {
    const char *pos;
    const char *end;
};

/* The value of the next line when its key is this one; the cursor stays where it is otherwise. */
static bool take_line(struct cursor *c, const char *key, struct hw_slice *value)
{
    size_t key_len = strlen(key);
    const char *line_end = memchr(c->pos, '\n', (size_t)(c->end - c->pos));
    if (line_end == NULL || (size_t)(line_end - c->pos) <= key_len || memcmp(c->pos, key, key_len) != 0 ||
        c->pos[key_len] != '=') {
        return false;
    }
    *value = hw_slice_of(c->pos + key_len + 1, (size_t)(line_end - c->pos) - key_len - 1);
    c->pos = line_end + 1;
    return true;
}

static bool copy_word(struct hw_slice value, char *out, size_t size)
{
    if (value.len >= size || memchr(value.data, '\0', value.len) != NULL) {
        return false;
    }
    memcpy(out, value.data, value.len);
    out[value.len] = '\0';
    return true;
}

static bool parse_state(struct hw_slice value, enum hw_identity_state *state)
{
    for (int i = HW_IDENTITY_WAITING; i <= HW_IDENTITY_RECOVERING; i++) {
        if (hw_slice_is_equal(value, hw_slice_str(state_names[i]))) {
            *state = (enum hw_identity_state)i;
            return true;
        }
    }
    return false;
}

/* "<id> <name> <address>" */
static bool parse_member(struct hw_slice value, struct hw_identity_member *m)
{
    const uint8_t *end = value.data + value.len;
    const uint8_t *first = memchr(value.data, ' ', value.len);
    const uint8_t *second = first == NULL ? NULL : memchr(first + 1, ' ', (size_t)(end - first - 1));
    return second != NULL && hw_hex_is_valid(hw_slice_of(value.data, (size_t)(first - value.data)), &m->id) &&
           copy_word(hw_slice_of(first + 1, (size_t)(second - first - 1)), m->name, sizeof m->name) &&
           copy_word(hw_slice_of(second + 1, (size_t)(end - second - 1)), m->peer_address, sizeof m->peer_address);
}

/* c stands after the line of the format; text is the whole file. What is wrong; NULL when nothing is. */
static const char *parse(const struct hw_buf *text, struct cursor *c, struct hw_identity *id)
{
    struct hw_slice value;
    uint64_t checksum;
    size_t covered;
    if (!take_line(c, "cluster_id", &value) || !hw_hex_is_valid(value, &id->cluster_id)) {
        return "the line of cluster_id is missing or wrong";
    }
    if (!take_line(c, "node", &value) || !copy_word(value, id->name, sizeof id->name)) {
        return "the line of node is missing or wrong";
    }
    if (!take_line(c, "raft_id", &value) || !hw_hex_is_valid(value, &id->raft_id)) {
        return "the line of raft_id is missing or wrong";
    }
    if (!take_line(c, "recovery", &value) || !hw_hex_is_valid(value, &id->recovery)) {
        return "the line of recovery is missing or wrong";
    }
    if (!take_line(c, "state", &value) || !parse_state(value, &id->state)) {
        return "the line of state is missing or wrong";
    }
    while (take_line(c, "member", &value)) {
        if (id->member_count == HW_IDENTITY_MEMBERS_MAX || !parse_member(value, &id->members[id->member_count])) {
            return "a line of member is wrong, or there are too many";
        }
        id->member_count++;
    }
    covered = (size_t)(c->pos - (const char *)text->data);
    if (!take_line(c, "checksum", &value) || !hw_hex_is_valid(value, &checksum)) {
        return "the line of checksum is missing or wrong";
    }
    if (c->pos != c->end) {
        return "something follows its last line";
    }
    if (XXH3_64bits(text->data, covered) != checksum) {
        return "it does not fit its checksum";
    }
    return find_fault(id);
}

/* The format is read before anything else is believed: a newer file may look altogether different after its first
 * line. */
static int parse_format(struct cursor *c, const char *path, struct hw_error *e)
{
    struct hw_slice value;
    uint64_t format = 0;
    if (!take_line(c, "format", &value) || value.len == 0 || value.len > 9 || value.data[0] == '0') {
        return hw_error_set(e, HW_ERR_CORRUPT, "%s is damaged: it does not begin with its format", path);
    }
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < '0' || value.data[i] > '9') {
            return hw_error_set(e, HW_ERR_CORRUPT, "%s is damaged: its format is not a number", path);
        }
        format = format * 10 + (uint64_t)(value.data[i] - '0');
    }
    if (format > HW_IDENTITY_FORMAT) {
        return hw_error_set(e, HW_ERR_VERSION,
                            "%s has format %" PRIu64 ", this program knows up to %d: install a newer HotWarm; the data "
                            "folder was left alone",
                            path, format, HW_IDENTITY_FORMAT);
    }
    return 0;
}

int hw_identity_load(struct hw_datadir *d, struct hw_identity *identity, struct hw_error *e)
{
    char path[PATH_MAX];
    struct hw_buf text = {0};
    struct cursor c;
    const char *fault;
    int rc;
    memset(identity, 0, sizeof *identity);
    if ((rc = hw_fs_join(path, d->path, HW_IDENTITY_FILE, "", e)) != 0) {
        return rc;
    }
    rc = hw_fs_read(path, IDENTITY_BYTES_MAX, &text, e);
    if (rc == HW_ERR_TOOBIG) {
        rc = hw_error_set(e, HW_ERR_CORRUPT, "%s is damaged: it is far too long", path);
    }
    if (rc == 0) {
        c = (struct cursor){(const char *)text.data, (const char *)text.data + text.len};
        rc = parse_format(&c, path, e);
    }
    if (rc == 0 && (fault = parse(&text, &c, identity)) != NULL) {
        rc = hw_error_set(
            e, HW_ERR_CORRUPT,
            "%s is damaged: %s. Restore it from a copy, or move the data folder away and let the node join "
            "again",
            path, fault);
    }
    if (rc != 0) {
        memset(identity, 0, sizeof *identity);
    }
    hw_buf_free(&text);
    return rc;
}
