/* Private to agent/consensus, part of impl.h: what leaves for other servers. */
#ifndef HW_CONSENSUS_OUTBOX_H
#define HW_CONSENSUS_OUTBOX_H

/* outbox.c: the send function, and what is corked */
struct peer *outbox_peer(struct hw_consensus *c, uint64_t id); /* NULL when there are too many */
int outbox_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m, raft_io_send_cb cb);
void outbox_flush(struct hw_consensus *c);

/* commit_note.c */
void commit_note_open(struct hw_consensus *c);
void commit_note_close(struct hw_consensus *c);
/* An entry was applied. */
void commit_note_applied(struct hw_consensus *c, uint64_t index, uint64_t term);
/* A message leaves for p. */
void commit_note_told(struct peer *p, const struct raft_append_entries *m);
void commit_note_step(struct hw_consensus *c);

#endif
