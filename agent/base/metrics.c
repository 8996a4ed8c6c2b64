#include "agent/base/metrics.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "agent/base/assert.h"

enum kind { COUNTER, GAUGE, HISTOGRAM };

struct metric {
    STAILQ_ENTRY(metric) link;
    enum kind kind;
    char *labels;
    union {
        struct hw_counter counter;
        struct hw_gauge gauge;
        struct hw_histogram histogram;
    };
};

/* All label sets of one name: the text format wants them together, under one HELP and TYPE. */
struct family {
    STAILQ_ENTRY(family) link;
    char *name;
    char *help;
    enum kind kind;
    STAILQ_HEAD(, metric) metrics;
};

struct hw_metrics {
    STAILQ_HEAD(, family) families;
};

static const uint64_t bounds_us[HW_HISTOGRAM_BUCKETS] = {
    50,    100,    200,    500,    1000,    2000,    5000,    10000,    20000,
    50000, 100000, 200000, 500000, 1000000, 2000000, 5000000, 10000000,
};

struct hw_metrics *hw_metrics_new(void)
{
    struct hw_metrics *m = calloc(1, sizeof *m);
    hw_assert(m != NULL);
    STAILQ_INIT(&m->families);
    return m;
}

void hw_metrics_free(struct hw_metrics *m)
{
    struct family *f;
    if (m == NULL) {
        return;
    }
    while ((f = STAILQ_FIRST(&m->families)) != NULL) {
        struct metric *x;
        while ((x = STAILQ_FIRST(&f->metrics)) != NULL) {
            STAILQ_REMOVE_HEAD(&f->metrics, link);
            free(x->labels);
            free(x);
        }
        STAILQ_REMOVE_HEAD(&m->families, link);
        free(f->name);
        free(f->help);
        free(f);
    }
    free(m);
}

static char *copy(const char *s)
{
    char *c = strdup(s);
    hw_assert(c != NULL);
    return c;
}

static struct family *family_of(struct hw_metrics *m, enum kind kind, const char *name, const char *help)
{
    struct family *f;
    STAILQ_FOREACH(f, &m->families, link) {
        if (strcmp(f->name, name) == 0) {
            hw_assert(f->kind == kind);
            return f;
        }
    }
    f = calloc(1, sizeof *f);
    hw_assert(f != NULL);
    f->kind = kind;
    f->name = copy(name);
    f->help = copy(help);
    STAILQ_INIT(&f->metrics);
    STAILQ_INSERT_TAIL(&m->families, f, link);
    return f;
}

static struct metric *metric_of(struct hw_metrics *m, enum kind kind, const char *name, const char *labels,
                                const char *help)
{
    struct family *f = family_of(m, kind, name, help);
    struct metric *x;
    if (labels == NULL) {
        labels = "";
    }
    STAILQ_FOREACH(x, &f->metrics, link) {
        if (strcmp(x->labels, labels) == 0) {
            return x;
        }
    }
    x = calloc(1, sizeof *x);
    hw_assert(x != NULL);
    x->kind = kind;
    x->labels = copy(labels);
    STAILQ_INSERT_TAIL(&f->metrics, x, link);
    return x;
}

struct hw_counter *hw_metrics_counter(struct hw_metrics *m, const char *name, const char *labels, const char *help)
{
    return &metric_of(m, COUNTER, name, labels, help)->counter;
}

struct hw_gauge *hw_metrics_gauge(struct hw_metrics *m, const char *name, const char *labels, const char *help)
{
    return &metric_of(m, GAUGE, name, labels, help)->gauge;
}

struct hw_histogram *hw_metrics_histogram(struct hw_metrics *m, const char *name, const char *labels, const char *help)
{
    return &metric_of(m, HISTOGRAM, name, labels, help)->histogram;
}

void hw_counter_add(struct hw_counter *c, uint64_t n)
{
    atomic_fetch_add_explicit(&c->value, n, memory_order_relaxed);
}

void hw_gauge_set(struct hw_gauge *g, int64_t v)
{
    atomic_store_explicit(&g->value, v, memory_order_relaxed);
}

void hw_histogram_observe_us(struct hw_histogram *h, uint64_t us)
{
    size_t i = 0;
    uint_fast64_t max = atomic_load_explicit(&h->max_us, memory_order_relaxed);
    while (i < HW_HISTOGRAM_BUCKETS && us > bounds_us[i]) {
        i++;
    }
    atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum_us, us, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->count, 1, memory_order_relaxed);
    while (us > max &&
           !atomic_compare_exchange_weak_explicit(&h->max_us, &max, us, memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void render_histogram(const char *name, struct metric *x, struct hw_buf *out)
{
    const char *comma = x->labels[0] != '\0' ? "," : "";
    const char *open = x->labels[0] != '\0' ? "{" : "";
    const char *close = x->labels[0] != '\0' ? "}" : "";
    uint64_t total = 0;
    for (size_t i = 0; i < HW_HISTOGRAM_BUCKETS; i++) {
        total += x->histogram.buckets[i];
        hw_buf_printf(out, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, x->labels, comma, (double)bounds_us[i] / 1e6,
                      total);
    }
    total += x->histogram.buckets[HW_HISTOGRAM_BUCKETS];
    hw_buf_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, x->labels, comma, total);
    hw_buf_printf(out, "%s_sum%s%s%s %.6f\n", name, open, x->labels, close, (double)x->histogram.sum_us / 1e6);
    hw_buf_printf(out, "%s_count%s%s%s %" PRIu64 "\n", name, open, x->labels, close, total);
}

void hw_metrics_render(struct hw_metrics *m, struct hw_buf *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    struct family *f;
    struct metric *x;
    STAILQ_FOREACH(f, &m->families, link) {
        hw_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, types[f->kind]);
        STAILQ_FOREACH(x, &f->metrics, link) {
            const char *open = x->labels[0] != '\0' ? "{" : "";
            const char *close = x->labels[0] != '\0' ? "}" : "";
            if (f->kind == HISTOGRAM) {
                render_histogram(f->name, x, out);
            } else if (f->kind == COUNTER) {
                hw_buf_printf(out, "%s%s%s%s %" PRIuFAST64 "\n", f->name, open, x->labels, close, x->counter.value);
            } else {
                hw_buf_printf(out, "%s%s%s%s %" PRId64 "\n", f->name, open, x->labels, close, x->gauge.value);
            }
        }
    }
}
