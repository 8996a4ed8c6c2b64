#include "cli/samples.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"

int hw_ctl_samples_init(struct hw_ctl_samples *s)
{
    memset(s, 0, sizeof *s);
    hw_rng_seed(&s->rng, 1);
    s->values_us = malloc(HW_CTL_SAMPLES_MAX * sizeof *s->values_us);
    return s->values_us != NULL ? 0 : HW_ERR_NOMEM;
}

void hw_ctl_samples_close(struct hw_ctl_samples *s)
{
    free(s->values_us);
    s->values_us = NULL;
}

void hw_ctl_samples_add(struct hw_ctl_samples *s, uint64_t us)
{
    uint32_t v = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
    s->count++;
    s->sum_us += us;
    s->max_us = us > s->max_us ? us : s->max_us;
    if (s->kept < HW_CTL_SAMPLES_MAX) {
        s->values_us[s->kept++] = v;
        return;
    }
    uint64_t at = hw_rng_below(&s->rng, s->count);
    if (at < HW_CTL_SAMPLES_MAX) {
        s->values_us[at] = v;
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

uint64_t hw_ctl_samples_quantile_us(struct hw_ctl_samples *s, unsigned permille)
{
    size_t rank;
    if (s->kept == 0) {
        return 0;
    }
    qsort(s->values_us, s->kept, sizeof *s->values_us, compare);
    rank = (s->kept * (size_t)permille + 999) / 1000;
    return s->values_us[rank > 0 ? rank - 1 : 0];
}
