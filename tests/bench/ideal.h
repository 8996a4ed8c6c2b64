/* The bare replicator: what this machine can do at all for a write that is durable on a majority of three. One leader,
 * two followers, frames with a length, group commit; no consensus, no gRPC, no recovery. ideal.c has the arguments and
 * the follower, ideal_leader.c the leader, ideal_log.c the disk. Any failure ends the process.
 *
 * Frames, little-endian. Client to leader: {u32 length of what follows, u64 id, u32 key, value}; the top bit of the id
 * says read. Leader to client: {u32 length, u64 id, value of a read}. Leader to follower: the clients' frames as they
 * are, a stream of bytes. Follower to leader: u64, the position up to which that stream is on its disk.
 */
#ifndef HW_TESTS_BENCH_IDEAL_H
#define HW_TESTS_BENCH_IDEAL_H

#include <stdint.h>

#define IDEAL_FOLLOWERS 2
#define IDEAL_SLOT_BYTES 1024u /* longest value */

struct ideal_options {
    uint16_t listen_port;
    uint16_t follower_ports[IDEAL_FOLLOWERS];
    const char *file;
    uint64_t file_bytes;
    uint32_t slot_count; /* keys */
};

/* A socket that listens on the loopback port. */
int ideal_listen(uint16_t port);
void ideal_set_nodelay(int fd);
/* Print "ready" for whoever started this process. */
void ideal_say_ready(void);
void ideal_leader_run(const struct ideal_options *o) __attribute__((noreturn));

#endif
