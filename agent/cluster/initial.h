/* Are the lists of initial nodes (cluster.initial) of two nodes the same? The order does not matter, names and
 * addresses do, as they are written: nodes that disagree would form different clusters. Pure.
 */
#ifndef HW_CLUSTER_INITIAL_H
#define HW_CLUSTER_INITIAL_H

#include "agent/cluster/formation.h"

/* Room for the sentence. */
#define HW_INITIAL_WHY_MAX 512

/* True when they differ; `why` is then a sentence: which node, the first difference, what to do. `other` is the name of
 * the node whose list is `there`. Texts of the other side are cut and made printable. */
bool hw_initial_differs(const struct hw_formation_peer *here, size_t here_count, const struct hw_formation_peer *there,
                        size_t there_count, const char *other, char why[HW_INITIAL_WHY_MAX]);

/* Copy a text of another node, cut to `size` and with '?' for what is not printable ASCII. */
void hw_initial_copy(char *to, size_t size, const char *from);

#endif
