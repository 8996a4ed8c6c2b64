/* Metrics: counters, gauges and histograms, rendered in Prometheus' text format 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/).
 *
 * A registry belongs to one agent; metrics live as long as it. Updating is safe from any thread (relaxed atomics),
 * creating and rendering only on the loop thread. Creating the same name with the same labels twice returns the first.
 * Names carry Prometheus' unit suffixes (_seconds, _bytes, _total). `labels` is the text between the braces, e.g.
 * "method=\"Put\"", or NULL. Creation never fails: a registry out of memory aborts, as it happens only at start.
 */
#ifndef HW_BASE_METRICS_H
#define HW_BASE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "agent/base/buf.h"

struct hw_metrics;

struct hw_counter {
    atomic_uint_fast64_t value;
};
struct hw_gauge {
    _Atomic int64_t value;
};
/* Durations in microseconds in, seconds out: buckets 50 us, 100, 200, 500, 1 ms, ... 10 s. */
#define HW_HISTOGRAM_BUCKETS 17
struct hw_histogram {
    atomic_uint_fast64_t buckets[HW_HISTOGRAM_BUCKETS + 1];
    atomic_uint_fast64_t sum_us;
    atomic_uint_fast64_t count;
    atomic_uint_fast64_t max_us;
};

struct hw_metrics *hw_metrics_new(void);
void hw_metrics_free(struct hw_metrics *m);

struct hw_counter *hw_metrics_counter(struct hw_metrics *m, const char *name, const char *labels, const char *help);
struct hw_gauge *hw_metrics_gauge(struct hw_metrics *m, const char *name, const char *labels, const char *help);
struct hw_histogram *hw_metrics_histogram(struct hw_metrics *m, const char *name, const char *labels, const char *help);

void hw_counter_add(struct hw_counter *c, uint64_t n);
void hw_gauge_set(struct hw_gauge *g, int64_t v);
void hw_histogram_observe_us(struct hw_histogram *h, uint64_t us);

/* Appends the whole text. */
void hw_metrics_render(struct hw_metrics *m, struct hw_buf *out);

#endif
