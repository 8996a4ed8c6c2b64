/* One server: a machine with a disk and an image that survive, and a life that a crash ends. */
#ifndef HW_SIM_SERVER_H
#define HW_SIM_SERVER_H

#include "tests/sim/disk.h"
#include "tests/sim/event.h"
#include "tests/sim/image.h"
#include "tests/sim/net.h"

#include "agent/consensus/consensus.h"

struct checkpoint {
    struct sim_event timer;
    struct sim_event write;
    struct hw_cut *cut;
    bool is_suspended;
    bool is_failing;
    bool has_durable_wait;
    uint64_t durable_index;
};

struct install {
    bool is_wanted;
    bool is_copying;
    bool is_installed;
    uint64_t index;
    unsigned source;
    unsigned source_life;
    struct image incoming;
    struct hw_hot *loaded;
    struct sim_event event;
};

struct server {
    struct sim *sim;
    unsigned at; /* which machine */
    uint64_t id; /* which incarnation of its disk */
    char address[16];
    bool is_up;
    unsigned life; /* counts starts */
    struct disk disk;
    struct image image;
    /* of this life */
    struct raft raft;
    struct raft_io io;
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    unsigned tick_ms;
    struct sim_event tick_event;
    struct sim_event driver_event;
    struct sim_event crash_event;
    struct sim_event start_event;
    struct sending_list sendings;
    struct hw_consensus *consensus;
    struct hw_hot *hot;
    struct checkpoint checkpoint;
    struct install install;
    uint64_t acquire_term;
    bool is_acquiring;
    bool is_changing;
    bool was_leader;
    struct hw_change change;
    const char *crash_why;
};

void server_init(struct sim *s, unsigned at);
void server_free(struct server *v);
void server_start(struct server *v);
void server_crash(struct server *v, const char *why);
/* The disk and all on it are gone; the machine comes back as another node. */
void server_wipe(struct server *v);
/* What the loop does at the end of a turn. */
void server_turn(struct server *v);
bool server_is_leader(const struct server *v);
bool server_is_hot(const struct server *v);
void server_transfer(struct server *v);
struct server *server_of_id(struct sim *s, uint64_t id);

/* keep.c: checkpoints and installs */
void keep_start(struct server *v);
void keep_crash(struct server *v);
/* Answer consensus once the image holds `index`. */
void keep_durable(struct server *v, uint64_t index);
void keep_install(struct server *v, uint64_t index);
/* The state is now the installed image's. */
void keep_swap(struct server *v);

/* driver.c: roles and members */
void driver_start(struct server *v);

#endif
