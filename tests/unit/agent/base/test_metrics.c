#include <string.h>

#include "agent/base/metrics.h"
#include "tests/unit/hw_test.h"

/* The whole text, with a zero at its end; valid until the next call. */
static const char *rendered(struct hw_metrics *m)
{
    static char text[8192];
    struct hw_buf b = {0};
    hw_metrics_render(m, &b);
    REQUIRE(!b.failed && b.len < sizeof text);
    if (b.len > 0) {
        memcpy(text, b.data, b.len);
    }
    text[b.len] = '\0';
    hw_buf_free(&b);
    return text;
}

static void counters_and_gauges_are_rendered_by_family(void)
{
    struct hw_metrics *m = hw_metrics_new();
    struct hw_counter *puts = hw_metrics_counter(m, "calls_total", "method=\"Put\"", "Calls.");
    struct hw_gauge *lag = hw_metrics_gauge(m, "lag_entries", NULL, "Entries behind.");
    struct hw_counter *gets = hw_metrics_counter(m, "calls_total", "method=\"Get\"", "Not shown.");
    CHECK_STR(rendered(m), "# HELP calls_total Calls.\n# TYPE calls_total counter\n"
                           "calls_total{method=\"Put\"} 0\ncalls_total{method=\"Get\"} 0\n"
                           "# HELP lag_entries Entries behind.\n# TYPE lag_entries gauge\nlag_entries 0\n");
    hw_counter_add(puts, 2);
    hw_counter_add(puts, 40);
    hw_counter_add(gets, UINT64_MAX);
    hw_gauge_set(lag, 7);
    hw_gauge_set(lag, INT64_MIN);
    CHECK_STR(rendered(m), "# HELP calls_total Calls.\n# TYPE calls_total counter\n"
                           "calls_total{method=\"Put\"} 42\ncalls_total{method=\"Get\"} 18446744073709551615\n"
                           "# HELP lag_entries Entries behind.\n# TYPE lag_entries gauge\n"
                           "lag_entries -9223372036854775808\n");
    hw_metrics_free(m);
}

static void the_same_name_and_labels_are_the_same_metric(void)
{
    struct hw_metrics *m = hw_metrics_new();
    struct hw_counter *c = hw_metrics_counter(m, "a_total", "x=\"1\"", "A.");
    CHECK(hw_metrics_counter(m, "a_total", "x=\"1\"", "A.") == c);
    CHECK(hw_metrics_counter(m, "a_total", "x=\"2\"", "A.") != c);
    CHECK(hw_metrics_counter(m, "a_total", NULL, "A.") == hw_metrics_counter(m, "a_total", "", "A."));
    CHECK(hw_metrics_counter(m, "b_total", "x=\"1\"", "B.") != c);
    hw_metrics_free(m);
    hw_metrics_free(NULL);
}

static void an_empty_registry_renders_nothing(void)
{
    struct hw_metrics *m = hw_metrics_new();
    CHECK_STR(rendered(m), "");
    hw_metrics_free(m);
}

static void a_duration_falls_into_its_bucket(void)
{
    static const struct {
        uint64_t us;
        size_t bucket; /* bounds belong to the lower one */
    } rows[] = {
        {0, 0},    {49, 0},     {50, 0},      {51, 1},       {100, 1},       {101, 2},       {1000, 4},
        {1001, 5}, {99999, 10}, {100000, 10}, {1000000, 13}, {10000000, 16}, {10000001, 17}, {UINT64_MAX / 4, 17}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hw_histogram h = {0};
        hw_histogram_observe_us(&h, rows[i].us);
        for (size_t k = 0; k <= HW_HISTOGRAM_BUCKETS; k++) {
            CHECK_EQ(h.buckets[k], k == rows[i].bucket);
        }
        CHECK_EQ(h.count, 1);
        CHECK_EQ(h.sum_us, rows[i].us);
        CHECK_EQ(h.max_us, rows[i].us);
    }
}

static void histograms_are_cumulative_and_in_seconds(void)
{
    static const char *const lines[] = {
        "# TYPE wait_seconds histogram\n",
        "wait_seconds_bucket{le=\"5e-05\"} 1\n",
        "wait_seconds_bucket{le=\"0.0001\"} 1\n",
        "wait_seconds_bucket{le=\"0.001\"} 3\n",
        "wait_seconds_bucket{le=\"10\"} 3\n",
        "wait_seconds_bucket{le=\"+Inf\"} 4\n",
        "wait_seconds_sum 20.001810\n",
        "wait_seconds_count 4\n",
        "wait_seconds_bucket{op=\"a\",le=\"+Inf\"} 0\n",
        "wait_seconds_sum{op=\"a\"} 0.000000\n",
        "wait_seconds_count{op=\"a\"} 0\n",
    };
    struct hw_metrics *m = hw_metrics_new();
    struct hw_histogram *h = hw_metrics_histogram(m, "wait_seconds", NULL, "Waiting.");
    const char *text;
    hw_metrics_histogram(m, "wait_seconds", "op=\"a\"", "Waiting.");
    hw_histogram_observe_us(h, 10);
    hw_histogram_observe_us(h, 900);
    hw_histogram_observe_us(h, 20000000);
    hw_histogram_observe_us(h, 900);
    CHECK_EQ(h->max_us, 20000000);
    text = rendered(m);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        const char *at = strstr(text, lines[i]);
        CHECK(at != NULL);
        CHECK(at == text || (at != NULL && at[-1] == '\n'));
    }
    CHECK(strstr(strstr(text, "# TYPE") + 1, "# TYPE") == NULL); /* one family */
    hw_metrics_free(m);
}

HW_SUITE(base_metrics, HW_CASE(counters_and_gauges_are_rendered_by_family),
         HW_CASE(the_same_name_and_labels_are_the_same_metric), HW_CASE(an_empty_registry_renders_nothing),
         HW_CASE(a_duration_falls_into_its_bucket), HW_CASE(histograms_are_cumulative_and_in_seconds))
