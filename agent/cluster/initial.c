#include "agent/cluster/initial.h"

#include <stdio.h>
#include <string.h>

#define NEXT \
    "make cluster.initial the same on every node and start the changed ones again; no cluster is formed until then"

void hw_initial_copy(char *to, size_t size, const char *from)
{
    size_t n = 0;
    for (; n + 1 < size && from[n] != '\0'; n++) {
        to[n] = (char)(from[n] < ' ' || from[n] > '~' ? '?' : from[n]);
    }
    to[n] = '\0';
}

static const struct hw_formation_peer *find(const struct hw_formation_peer *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, name) == 0) {
            return &list[i];
        }
    }
    return NULL;
}

/* The first row of `a` that `b` has not, or has with another address. */
static const struct hw_formation_peer *first_other(const struct hw_formation_peer *a, size_t a_count,
                                                   const struct hw_formation_peer *b, size_t b_count)
{
    for (size_t i = 0; i < a_count; i++) {
        const struct hw_formation_peer *same = find(b, b_count, a[i].name);
        if (same == NULL || strcmp(same->address, a[i].address) != 0) {
            return &a[i];
        }
    }
    return NULL;
}

bool hw_initial_differs(const struct hw_formation_peer *here, size_t here_count, const struct hw_formation_peer *there,
                        size_t there_count, const char *other, char why[HW_INITIAL_WHY_MAX])
{
    const struct hw_formation_peer *mine = first_other(here, here_count, there, there_count);
    const struct hw_formation_peer *theirs = first_other(there, there_count, here, here_count);
    const struct hw_formation_peer *both = mine == NULL ? NULL : find(there, there_count, mine->name);
    char who[HW_NODE_NAME_MAX];
    char name[HW_NODE_NAME_MAX];
    char address[100];
    hw_initial_copy(who, sizeof who, other);
    if (both != NULL) {
        hw_initial_copy(address, sizeof address, both->address);
        snprintf(why, HW_INITIAL_WHY_MAX,
                 "cluster.initial differs on node '%s': '%s' is at %.99s here and at %s there; " NEXT, who, mine->name,
                 mine->address, address);
    } else if (mine != NULL) {
        snprintf(why, HW_INITIAL_WHY_MAX,
                 "cluster.initial differs on node '%s': '%s' (%.99s) is in the list here and not there; " NEXT, who,
                 mine->name, mine->address);
    } else if (theirs != NULL) {
        hw_initial_copy(name, sizeof name, theirs->name);
        hw_initial_copy(address, sizeof address, theirs->address);
        snprintf(why, HW_INITIAL_WHY_MAX,
                 "cluster.initial differs on node '%s': '%s' (%s) is in the list there and not here; " NEXT, who, name,
                 address);
    }
    return mine != NULL || theirs != NULL;
}
