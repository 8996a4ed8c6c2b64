/* What happens at a point of virtual time; embedded in what it is about. */
#ifndef HW_SIM_EVENT_H
#define HW_SIM_EVENT_H

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>

struct sim;
struct sim_event {
    RB_ENTRY(sim_event) link;
    uint64_t at_ms;
    uint64_t seq;
    const char *what;
    unsigned server;
    bool is_set;
    void (*fire)(struct sim *s, struct sim_event *e);
};
RB_HEAD(sim_event_tree, sim_event);

/* Once, after delay_ms; an event that is set already moves. */
void sim_after(struct sim *s, struct sim_event *e, uint64_t delay_ms, unsigned server, const char *what,
               void (*fire)(struct sim *s, struct sim_event *e));
void sim_cancel(struct sim *s, struct sim_event *e);
/* Part of the trace that two runs of a seed must agree on. */
void sim_trace(struct sim *s, unsigned server, const char *what, uint64_t a, uint64_t b);
/* The first violation ends the run. */
void sim_fail(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t sim_below(struct sim *s, uint64_t bound);
bool sim_chance(struct sim *s, unsigned percent);
/* In [lo, hi]. */
uint64_t sim_between(struct sim *s, uint64_t lo, uint64_t hi);

#endif
