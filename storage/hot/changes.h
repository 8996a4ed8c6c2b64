/* The versions of a range of keys that were written between two revisions, for a watcher that is behind.
 *
 *     rc = hw_changes_start(h, key, range_end, from, to, &ch);   HW_ERR_COMPACTED when from < compacted, HW_ERR_NOMEM
 *     while ((rc = hw_changes_step(ch, 1000)) > 0) ...            next turn of the loop; budget = versions looked at
 *     rc == 0: hw_changes_at gives them in revision order (main, then sub)
 *     hw_changes_close(ch);
 *
 * As a scan (hot.h) it holds what it needs against physical removal, sees nothing newer than `to`, and must be closed
 * before the state is freed (it counts in hw_hot_open_scans). Tombstones are included. A `to` beyond the state's
 * revision means that revision; from > to is a range without changes. The array and its versions are the changes' until
 * close.
 *
 * Starting at the compacted revision itself is allowed, as in etcd (server/storage/mvcc/watcher_group.go refuses only
 * what is below; its clients start again at the compact_revision that a refusal names): compaction keeps everything
 * that its own revision wrote. What is below stays while an open one may need it.
 */
#ifndef HW_HOT_CHANGES_H
#define HW_HOT_CHANGES_H

#include "storage/hot/hot.h"

struct hw_changes;
int hw_changes_start(struct hw_hot *h, struct hw_slice key, struct hw_slice range_end, hw_rev from, hw_rev to,
                     struct hw_changes **ch);
int hw_changes_step(struct hw_changes *ch, size_t budget);
struct hw_version *const *hw_changes_at(const struct hw_changes *ch, size_t *count);
void hw_changes_close(struct hw_changes *ch);

/* The version of v's key that was in force just before v (a live one), or NULL: created by v, deleted before, or
 * compacted away. Borrowed until the next apply or sweep; take a reference to keep it. For prev_kv. */
struct hw_version *hw_hot_previous(const struct hw_hot *h, const struct hw_version *v);

#endif
