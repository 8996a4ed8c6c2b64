/* The data folder of a node and the file that says who the node is.
 *
 * Life cycle: hw_datadir_open takes the folder's lock, so that two agents never share one; hw_datadir_close gives it
 * back (so does the end of the process). Everything else in storage/warm works on paths within a folder that is held.
 *
 * Folder: lock, identity, image.db, raft/ (libraft's own), incoming/ (parts of an image on their way here), quarantine/
 * (made when needed). See docs/disk-format.md.
 *
 * Errors: HW_ERR_LOCKED (the text names the process), HW_ERR_READONLY, HW_ERR_DENIED, HW_ERR_NOSPACE, HW_ERR_IO,
 * HW_ERR_INVALID (something else is in the way), HW_ERR_CORRUPT and HW_ERR_VERSION (identity damaged or newer: the
 * file is left alone). Blocking; for start-up and worker threads.
 */
#ifndef HW_WARM_IDENTITY_H
#define HW_WARM_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "storage/hot/command.h"

#define HW_IDENTITY_FORMAT 1
#define HW_IDENTITY_FILE "identity"
#define HW_RAFT_FOLDER "raft"
#define HW_INCOMING_FOLDER "incoming"
/* Parts in incoming/ that nobody wrote to for so long are removed on open; younger ones can be gone on with. */
#define HW_INCOMING_KEEP_MS (24ull * 3600 * 1000)
#define HW_IDENTITY_MEMBERS_MAX 64

/*  waiting --> forming --> member      a node of the first members
 *     |                       ^
 *     +-----------------------+        a node that joined later
 *
 *  member --> recovering --> member     the last one of a lost quorum goes on alone (hwctl recover) */
enum hw_identity_state {
    HW_IDENTITY_WAITING = 1, /* has a name, belongs to no cluster yet */
    HW_IDENTITY_FORMING,     /* knows the first members, has not started the log with them yet */
    HW_IDENTITY_MEMBER,      /* has a log */
    HW_IDENTITY_RECOVERING   /* has a log, and is to go on with it alone: the quorum was given up */
};

struct hw_identity_member {
    uint64_t id;
    char name[HW_NODE_NAME_MAX];
    char peer_address[HW_ADDRESS_MAX];
};

struct hw_identity {
    enum hw_identity_state state;
    uint64_t cluster_id; /* 0 only while waiting */
    uint64_t raft_id;    /* 0 only while waiting */
    uint64_t recovery;   /* which recovery of the cluster this is (0: none); members of a lower one are superseded */
    char name[HW_NODE_NAME_MAX];
    struct hw_identity_member members[HW_IDENTITY_MEMBERS_MAX]; /* at least one while forming, none otherwise */
    size_t member_count;
};

const char *hw_identity_state_name(enum hw_identity_state state);

struct hw_datadir;

/* Makes the folder (mode 0700; its parent must exist) and its sub-folders when they are absent. Blocks for up to
 * HW_LOCK_WAIT_MS while another process holds the lock: one that was killed just now lets go of it in that time. */
#define HW_LOCK_WAIT_MS 2000
int hw_datadir_open(const char *path, struct hw_datadir **d, struct hw_error *e);
/* NULL is allowed. */
void hw_datadir_close(struct hw_datadir *d);
/* Has data of a member been put aside here (an image, or a log with files in quarantine/)? Such a node may only join a
 * cluster that has the data: a new one formed of nodes like it would forget all of it without a word. */
bool hw_datadir_has_lost_data(const struct hw_datadir *d);
/* As given to open; lives as long as d. */
const char *hw_datadir_path(const struct hw_datadir *d);

/* HW_ERR_NOTFOUND when the node has none yet. */
int hw_identity_load(struct hw_datadir *d, struct hw_identity *identity, struct hw_error *e);
/* Replaces the file; durable on return, and wholly the old or the new one after a crash. HW_ERR_INVALID for an identity
 * that load would refuse; nothing is written then. A newer or damaged file in place is not protected: load first. */
int hw_identity_store(struct hw_datadir *d, const struct hw_identity *identity, struct hw_error *e);

#endif
