/* etcdserverpb.Cluster: who the members are. Changing them is hotwarm.v1.Admin's: a HotWarm node is let in by name and
 * says its own id, which etcd's calls have no room for. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_impl.h"
#include "proto/etcd.pb-c.h"

#define URL_MAX (HW_ADDRESS_MAX + 8)

struct member {
    Etcdserverpb__Member m;
    char name[HW_NODE_NAME_MAX];
    char peer_url[URL_MAX];
    char client_url[URL_MAX];
    char *peer_urls[1];
    char *client_urls[1];
};

static void fill(const struct hw_member *from, const struct hw_node *node, struct member *to)
{
    etcdserverpb__member__init(&to->m);
    to->m.id = from->id;
    to->m.name = to->name;
    to->m.islearner = from->role != HW_ROLE_VOTER;
    to->name[0] = '\0';
    snprintf(to->peer_url, sizeof to->peer_url, "http://%s", from->address);
    to->peer_urls[0] = to->peer_url;
    to->client_urls[0] = to->client_url;
    to->m.n_peerurls = 1;
    to->m.peerurls = to->peer_urls;
    if (node != NULL) { /* as in etcd, a member has no name and no client URL before it has said who it is */
        snprintf(to->name, sizeof to->name, "%s", node->name);
        snprintf(to->client_url, sizeof to->client_url, "http://%s", node->client_address);
        to->m.n_clienturls = 1;
        to->m.clienturls = to->client_urls;
    }
}

static void list(struct hw_exchange *x)
{
    struct hw_hot *hot = hw_replica_hot(x->api->replica);
    struct hw_header h = hw_exchange_header(x, 0); /* etcd leaves the revision out here */
    Etcdserverpb__MemberListResponse m = ETCDSERVERPB__MEMBER_LIST_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    struct hw_member found[HW_MEMBERS_MAX];
    struct member members[HW_MEMBERS_MAX];
    Etcdserverpb__Member *pointers[HW_MEMBERS_MAX];
    size_t count = hw_consensus_members(hw_replica_consensus(x->api->replica), found, HW_MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        fill(&found[i], hw_hot_node_by_id(hot, found[i].id), &members[i]);
        pointers[i] = &members[i].m;
    }
    header.cluster_id = h.cluster_id;
    header.member_id = h.member_id;
    header.raft_term = h.raft_term;
    m.header = &header;
    m.n_members = count;
    m.members = pointers;
    hw_exchange_ok_message(x, &m.base);
}

static void handle_member_list(struct hw_exchange *x)
{
    Etcdserverpb__MemberListRequest *m = hw_exchange_unpack(x, &etcdserverpb__member_list_request__descriptor);
    if (m == NULL) {
        return;
    }
    if (m->linearizable) {
        hw_exchange_read(x, list);
    } else {
        list(x);
    }
}

static void refuse_add(struct hw_exchange *x)
{
    hw_exchange_fail(x, HW_GRPC_UNIMPLEMENTED,
                     "members are added with `hwctl node add NAME PEER_ADDRESS`, once the new node runs");
}

static void refuse_remove(struct hw_exchange *x)
{
    hw_exchange_fail(x, HW_GRPC_UNIMPLEMENTED,
                     "members are removed by name with `hwctl node remove NAME` and added with `hwctl node add`");
}

static void refuse_update(struct hw_exchange *x)
{
    hw_exchange_fail(
        x, HW_GRPC_UNIMPLEMENTED,
        "a node says its addresses itself: change its configuration and restart it, or see `hwctl node add`");
}

static void refuse_promote(struct hw_exchange *x)
{
    hw_exchange_fail(x, HW_GRPC_UNIMPLEMENTED,
                     "nodes added with `hwctl node add` become voters by themselves when they have caught up");
}

const struct hw_service_method hw_cluster_methods[] = {
    {"/etcdserverpb.Cluster/MemberList", handle_member_list, HW_METHOD_REPLICA, 0},
    {"/etcdserverpb.Cluster/MemberAdd", refuse_add, 0, 0},
    {"/etcdserverpb.Cluster/MemberRemove", refuse_remove, 0, 0},
    {"/etcdserverpb.Cluster/MemberUpdate", refuse_update, 0, 0},
    {"/etcdserverpb.Cluster/MemberPromote", refuse_promote, 0, 0},
};
const size_t hw_cluster_method_count = hw_array_len(hw_cluster_methods);
