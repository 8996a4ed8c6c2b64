/* The newest versions, so that a watcher that is a little behind need not search the state. */
#include <stdlib.h>
#include <string.h>

#include "agent/replica/watch_hub.h"

static void drop(struct hw_watch_recent *recent, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct hw_version *v = recent->at[recent->start++];
        recent->bytes -= hw_watch_bytes(v);
        hw_version_unref(v);
    }
    recent->count -= n;
    if (recent->count == 0) {
        recent->start = 0;
    }
}

void hw_watch_recent_begin(struct hw_watch_recent *recent, hw_rev first)
{
    drop(recent, recent->count);
    recent->first = first;
}

void hw_watch_recent_close(struct hw_watch_recent *recent)
{
    drop(recent, recent->count);
    free(recent->at);
    recent->at = NULL;
    recent->cap = 0;
}

static bool reserve(struct hw_watch_recent *recent, size_t more)
{
    struct hw_version **bigger;
    size_t cap = recent->cap;
    if (recent->start > 0 && recent->start + recent->count + more > recent->cap) {
        memmove(recent->at, recent->at + recent->start, recent->count * sizeof *recent->at);
        recent->start = 0;
    }
    if (recent->count + more <= cap) {
        return true;
    }
    while (cap < recent->count + more) {
        cap = cap == 0 ? 64 : 2 * cap;
    }
    bigger = realloc(recent->at, cap * sizeof *bigger);
    if (bigger == NULL) {
        return false;
    }
    recent->at = bigger;
    recent->cap = cap;
    return true;
}

/* Down to half of a bound that was reached: the array is then moved seldom. Whole revisions go. */
static void shrink(struct hw_watch_recent *recent)
{
    size_t n = 0;
    size_t bytes = recent->bytes;
    if (recent->count <= recent->versions_max && bytes <= HW_WATCH_RECENT_BYTES) {
        return;
    }
    while (n < recent->count && (recent->count - n > recent->versions_max / 2 || bytes > HW_WATCH_RECENT_BYTES / 2)) {
        hw_rev revision = recent->at[recent->start + n]->mod_main;
        for (; n < recent->count && recent->at[recent->start + n]->mod_main == revision; n++) {
            bytes -= hw_watch_bytes(recent->at[recent->start + n]);
        }
        recent->first = revision + 1;
    }
    drop(recent, n);
}

void hw_watch_recent_push(struct hw_watch_recent *recent, hw_rev revision, struct hw_version *const *versions,
                          size_t count)
{
    if (count > recent->versions_max || !reserve(recent, count)) {
        hw_watch_recent_begin(recent, revision + 1);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        recent->at[recent->start + recent->count++] = hw_version_ref(versions[i]);
        recent->bytes += hw_watch_bytes(versions[i]);
    }
    shrink(recent);
}

struct hw_version *const *hw_watch_recent_from(const struct hw_watch_recent *recent, hw_rev revision, size_t *count)
{
    size_t low = 0;
    size_t high = recent->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (recent->at[recent->start + middle]->mod_main < revision) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *count = recent->count - low;
    return *count == 0 ? NULL : recent->at + recent->start + low;
}
