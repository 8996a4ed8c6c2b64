/* The format of fuzz_services' inputs, shared with the program that makes its first ones (seeds.c).
 *
 * A byte of modes, then records: u8 method (modulo their number), u8 flags, u16 length (little-endian), the message.
 */
#ifndef HW_FUZZ_SERVICES_H
#define HW_FUZZ_SERVICES_H

enum {
    MODE_WARM = 1,    /* not the hot node: calls for it wait and are refused */
    MODE_STUCK = 2,   /* clients that never read */
    MODE_FULL = 4,    /* a state that may hardly grow */
    MODE_EMPTY = 8,   /* a node that has no replica yet */
    MODE_CUT_ALL = 16 /* connections break at the end, instead of a stop with grace */
};

enum {
    CALL_FORWARDED = 1, /* as another node sends it on, over Peer/Forward */
    CALL_GOES_ON = 2,   /* one more message on the stream of the call before */
    CALL_HALF_CLOSE = 4,
    CALL_LATER = 8,       /* a tick before it */
    CALL_MUCH_LATER = 16, /* deadlines pass before it */
    CALL_RESET = 32,      /* the stream of the call before is reset first */
    CALL_RAW = 64         /* the bytes are written as they are, onto a connection of their own: any protocol */
};

static const char *const service_paths[] = {
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Defragment",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/hotwarm.v1.Admin/Status",
    "/hotwarm.v1.Admin/NodeList",
    "/hotwarm.v1.Admin/NodeAdd",
    "/hotwarm.v1.Admin/NodeRemove",
    "/hotwarm.v1.Admin/Switchover",
    "/hotwarm.v1.Admin/History",
    "/hotwarm.v1.Admin/Snapshot",
    "/hotwarm.v1.Admin/Query",
    "/hotwarm.v1.Admin/Version",
    "/hotwarm.v1.Peer/Hello",
    "/hotwarm.v1.Peer/Form",
    "/hotwarm.v1.Peer/Join",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Cluster/MemberRemove",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Cluster/MemberPromote",
    "/etcdserverpb.Maintenance/Downgrade",
    "/etcdserverpb.Maintenance/Snapshot",
    "/hotwarm.v1.Peer/Forward",
    "/hotwarm.v1.Peer/ReadIndex",
    "/hotwarm.v1.Peer/Term",
    "/hotwarm.v1.Peer/Image",
    "/hotwarm.v1.Peer/Status",
};

#endif
