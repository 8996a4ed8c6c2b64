/* Latencies of a run: kept exactly up to a bound, then as a uniform sample of all (reservoir, Vitter's algorithm R), so
 * that memory does not grow with the length of the run. The maximum and the mean are always exact.
 */
#ifndef HW_CLI_SAMPLES_H
#define HW_CLI_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

#include "agent/base/rng.h"

#define HW_CTL_SAMPLES_MAX (1u << 20)

struct hw_ctl_samples {
    uint32_t *values_us;
    size_t kept;
    uint64_t count;
    uint64_t sum_us;
    uint64_t max_us;
    struct hw_rng rng;
};

int hw_ctl_samples_init(struct hw_ctl_samples *s); /* HW_ERR_NOMEM */
void hw_ctl_samples_close(struct hw_ctl_samples *s);
void hw_ctl_samples_add(struct hw_ctl_samples *s, uint64_t us);
/* Sorts; the permille-th value (500 is the median) by the nearest-rank rule, 0 without any. */
uint64_t hw_ctl_samples_quantile_us(struct hw_ctl_samples *s, unsigned permille);

#endif
