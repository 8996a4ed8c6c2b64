/* The command table: the one place that says what hwctl can do. Parsing, help, completion, suggestions and
 * docs/hwctl.md come from it.
 */
#include <stddef.h>

#include "cli/command.h"
#include "cli/run.h"
#include "cli/settings.h"

#define FLAGS(...)               \
    (const struct hw_ctl_flag[]) \
    {                            \
        __VA_ARGS__,             \
        {                        \
            .name = NULL         \
        }                        \
    }
#define EXAMPLES(...)     \
    (const char *const[]) \
    {                     \
        __VA_ARGS__, NULL \
    }

#define SWITCH(flag_name, text)         \
    {                                   \
        .name = flag_name, .help = text \
    }
#define TEXT(flag_name, called, text)                    \
    {                                                    \
        .name = flag_name, .value = called, .help = text \
    }
#define NUMBER(flag_name, called, lowest, highest, text)                                \
    {                                                                                   \
        .name = flag_name, .value = called, .min = lowest, .max = highest, .help = text \
    }

const struct hw_ctl_flag hw_ctl_globals[] = {
    {.name = "endpoints", .value = "LIST", .help = "client addresses, host:port,...; default 127.0.0.1:2379"},
    {.name = "output", .letter = 'o', .value = "table|json|plain", .help = "form of the output; plain for get only"},
    {.name = "timeout",
     .value = "MS",
     .min = 1,
     .max = HW_CTL_TIMEOUT_MS_MAX,
     .help = "deadline of the command in milliseconds; default 5000"},
    {.name = "quiet", .letter = 'q', .help = "no news on stderr, only errors"},
    {.name = "config", .value = "FILE", .help = "configuration file; default ~/.config/hwctl/config"},
    {.name = NULL},
};

static const char range_details[] =
    "RANGE_END is the first key behind the range. At most one of RANGE_END, --prefix and --from-key may be given.\n"
    "All keys are: \"\" --prefix.\n";

static const char kvs_json[] = "header      {cluster_id, member_id: hex; revision, raft_term}\n"
                               "kvs         [{key, value: base64; create_revision, mod_revision, version, lease}]\n"
                               "more        true when --limit cut the answer\n"
                               "count       keys in the range, whatever the limit\n";

static const char status_json[] =
    "cluster_id, cluster_name, answered_by, hot_node (\"\": none known), epoch\n"
    "nodes       [{id, name, tier, role, health, phase, peer_address, client_address, is_answering, term, epoch,\n"
    "            applied_index, commit_index, lag, image_index, image_age_ms, revision, compacted, key_count,\n"
    "            state_bytes, uptime_ms, proposals, rebuild_done_bytes, rebuild_total_bytes, loop_stalls,\n"
    "            loop_busy_us_max, state_hash, version}]\n";

static const char lease_details[] =
    "ID is the number that 'lease grant' gave, or 0x and hexadecimal digits as etcdctl prints it.\n";

static const char txn_details[] =
    "One condition or operation a line; blank lines and lines that begin with '#' are skipped:\n"
    "\n"
    "    if TARGET(KEY [prefix]) OP OPERAND   TARGET: value version create mod lease; OP: = != < >\n"
    "    if exists(KEY)   if missing(KEY)     short for version(KEY) > 0 and version(KEY) = 0\n"
    "    then OPERATION                       done when every condition holds\n"
    "    else OPERATION                       done otherwise\n"
    "\n"
    "    OPERATION: put KEY VALUE [lease N] [prev-kv]\n"
    "               get KEY [prefix | from-key | to END] [limit N] [rev N] [keys-only] [count-only]\n"
    "               del KEY [prefix | from-key | to END] [prev-kv]\n"
    "\n"
    "KEY, VALUE and END are bare words or \"quoted\", with \\n \\r \\t \\\\ \\\" \\xNN. For example:\n"
    "\n"
    "    if value(\"leader\") = \"a\"\n"
    "    then put leader b\n"
    "    else get leader\n";

const struct hw_ctl_command hw_ctl_commands[] = {
    {
        .name = "status",
        .arguments = "",
        .help = "Show the cluster, its hot node, and every node's state",
        .details =
            "A node that does not answer is shown as 'down' with the reason. LAG counts log entries behind the hot\n"
            "node; IMAGE-AGE is the time since the node's image was brought up to date.\n",
        .json = status_json,
        .flags = FLAGS({.name = "watch",
                        .value = "SECONDS",
                        .min = 1,
                        .max = 86400,
                        .is_optional = true,
                        .help = "refresh in place until Ctrl-C; default every 2 seconds"}),
        .examples = EXAMPLES("status", "status --watch", "status -o json | jq -r .hot_node"),
        .run = hw_ctl_run_status,
    },
    {
        .name = "node list",
        .arguments = "",
        .help = "List the nodes that are registered",
        .json = status_json,
        .examples = EXAMPLES("node list"),
        .run = hw_ctl_run_node_list,
    },
    {
        .name = "node add",
        .arguments = "NAME PEER_ADDRESS",
        .help = "Let a new node into the cluster",
        .json = "id, name, text\n",
        .examples = EXAMPLES("node add d 10.0.0.4:2380"),
        .run = hw_ctl_run_node_add,
    },
    {
        .name = "node remove",
        .arguments = "NAME",
        .help = "Take a node out of the cluster",
        .json = "id, name, text\n",
        .examples = EXAMPLES("node remove d"),
        .run = hw_ctl_run_node_remove,
    },
    {
        .name = "switchover",
        .arguments = "",
        .help = "Move the hot tier to another node as planned",
        .details = "Without --to the most up-to-date voter is taken. Give --timeout the time that the move may take.\n",
        .json = "from, to, epoch, took_ms\n",
        .flags = FLAGS(TEXT("to", "NODE", "the node that becomes hot")),
        .examples = EXAMPLES("switchover", "switchover --to b"),
        .run = hw_ctl_run_switchover,
    },
    {
        .name = "history",
        .arguments = "",
        .help = "Show promotions, demotions, membership changes and rebuilds",
        .json = "events      [{seq, index, wall_ms, epoch, node, kind, text}]\n",
        .flags = FLAGS(NUMBER("limit", "N", 1, 100000, "only the newest N; default all that is kept")),
        .examples = EXAMPLES("history", "history --limit 20"),
        .run = hw_ctl_run_history,
    },
    {
        .name = "recover",
        .arguments = "",
        .help = "Give up a quorum that is lost for good",
        .details =
            "Without --apply it only shows the plan: where each node's log ends, who would go on, and what would be\n"
            "lost. Name the client addresses of all nodes with --endpoints. With --apply the survivor becomes the\n"
            "only voter, in a new epoch; the others can never come back with their old data: when they see it they\n"
            "put that data in quarantine and join anew. First bring back the nodes that can be brought back.\n",
        .json = "hot_node, survivor, missing_voters [name]\n"
                "nodes       [{endpoint, answered, verdict, name, role, recovery, last_term, last_index,\n"
                "             applied_index, revision}]\n"
                "            with --apply: survivor, recovery\n",
        .flags = FLAGS(SWITCH("apply", "do it"), TEXT("survivor", "NODE", "with --apply: who goes on, as planned"),
                       SWITCH("force", "although a majority can be reached, or another log is more complete")),
        .examples = EXAMPLES("recover", "recover --apply --survivor n1 --timeout 20000"),
        .run = hw_ctl_run_recover,
    },
    {
        .name = "get",
        .arguments = "KEY [RANGE_END]",
        .help = "Read a key or a range of keys",
        .details = range_details,
        .json = kvs_json,
        .has_plain = true,
        .flags =
            FLAGS(SWITCH("prefix", "all keys that begin with KEY"), SWITCH("from-key", "KEY and all keys behind it"),
                  NUMBER("limit", "N", 1, INT64_MAX, "at most N keys"),
                  NUMBER("rev", "N", 1, INT64_MAX, "as of this revision"),
                  SWITCH("keys-only", "print keys, one a line"), SWITCH("count-only", "print how many there are"),
                  SWITCH("serializable", "from the answering node's memory, which may be behind"),
                  TEXT("sort-by", "key|version|create|mod|value", "sort by this"),
                  TEXT("order", "ascend|descend", "direction of the sort"),
                  SWITCH("print-value-only", "print raw values, one a line")),
        .examples = EXAMPLES("get app/config", "get app/ --prefix --keys-only", "get app/config --print-value-only",
                             "get \"\" --prefix --count-only", "get app/config --rev 42 -o plain"),
        .run = hw_ctl_run_get,
    },
    {
        .name = "put",
        .arguments = "KEY [VALUE]",
        .help = "Write a key",
        .details = "VALUE '-' reads the value from stdin as it is. VALUE is left out with --ignore-value only.\n",
        .json = "header      as in get\nprev_kv     null, or the key before\n",
        .flags = FLAGS(SWITCH("prev-kv", "show what was there before"),
                       NUMBER("lease", "ID", 0, INT64_MAX, "attach the key to a lease"),
                       SWITCH("ignore-value", "keep the value that is there, change the lease"),
                       SWITCH("ignore-lease", "keep the lease that is there")),
        .examples = EXAMPLES("put app/config on", "put app/blob - < blob.bin", "put app/config on --prev-kv"),
        .run = hw_ctl_run_put,
    },
    {
        .name = "del",
        .arguments = "KEY [RANGE_END]",
        .help = "Delete a key or a range of keys",
        .details = range_details,
        .json = "header      as in get\ndeleted     how many keys\nprev_kvs    with --prev-kv: what was there\n",
        .flags = FLAGS(SWITCH("prefix", "all keys that begin with KEY"),
                       SWITCH("from-key", "KEY and all keys behind it"), SWITCH("prev-kv", "show what was deleted")),
        .examples = EXAMPLES("del app/config", "del app/ --prefix"),
        .run = hw_ctl_run_del,
    },
    {
        .name = "watch",
        .arguments = "KEY [RANGE_END]",
        .help = "Show the changes of a key or a range of keys as they happen",
        .details = "RANGE_END is the first key behind the range. At most one of RANGE_END, --prefix and --from-key may "
                   "be given.\n"
                   "When the endpoint is lost, the next one is asked from the revision after the last one shown: "
                   "nothing is lost\n"
                   "and nothing is shown twice. Ctrl-C ends. --timeout holds for each connection.\n",
        .json = "header      as in get\n"
                "events      [{type: PUT or DELETE, kv, prev_kv: null or as kv}], whole revisions, one object a line\n",
        .flags =
            FLAGS(SWITCH("prefix", "all keys that begin with KEY"), SWITCH("from-key", "KEY and all keys behind it"),
                  NUMBER("rev", "N", 1, INT64_MAX, "begin with the changes of this revision; default from now on"),
                  SWITCH("prev-kv", "show what was there before each change")),
        .examples =
            EXAMPLES("watch app/config", "watch app/ --prefix --prev-kv", "watch app/ --prefix --rev 42 -o json"),
        .run = hw_ctl_run_watch,
    },
    {
        .name = "txn",
        .arguments = "",
        .help = "Run conditions and operations as one transaction",
        .details = txn_details,
        .json = "header      as in get\nsucceeded   the conditions held\n"
                "responses   [{response_range | response_put | response_delete_range: as in get, put, del}]\n",
        .flags =
            FLAGS({.name = "file", .letter = 'f', .value = "FILE", .help = "read the text from here; default stdin"},
                  SWITCH("check", "exit 4 when the conditions do not hold")),
        .examples = EXAMPLES("txn -f move.txn", "txn --check < lock.txn"),
        .run = hw_ctl_run_txn,
    },
    {
        .name = "compact",
        .arguments = "REVISION",
        .help = "Forget the history of keys before a revision",
        .json = "header      as in get\ncompacted   the revision\n",
        .flags = FLAGS(SWITCH("physical", "answer when the space has been freed")),
        .examples = EXAMPLES("compact 1000"),
        .run = hw_ctl_run_compact,
    },
    {
        .name = "lease grant",
        .arguments = "TTL",
        .help = "Make a lease: keys attached to it go when it ends",
        .details = "TTL is in seconds; one that is shorter than a change of the hot node may take is raised. Attach\n"
                   "keys with 'put --lease ID'.\n",
        .json = "header      as in get\nID, TTL     numbers; TTL is what was granted\n",
        .flags = FLAGS(NUMBER("id", "ID", 1, INT64_MAX, "this id; default a random one")),
        .examples = EXAMPLES("lease grant 30", "lease grant 30 --id 7"),
        .run = hw_ctl_run_lease_grant,
    },
    {
        .name = "lease revoke",
        .arguments = "ID",
        .help = "End a lease now and delete its keys",
        .details = lease_details,
        .json = "header      as in get\n",
        .examples = EXAMPLES("lease revoke 7"),
        .run = hw_ctl_run_lease_revoke,
    },
    {
        .name = "lease keep-alive",
        .arguments = "ID",
        .help = "Renew a lease again and again, until Ctrl-C",
        .details = lease_details,
        .json = "header      as in get\nID, TTL     numbers; one object each time\n",
        .flags = FLAGS(SWITCH("once", "renew once and end")),
        .examples = EXAMPLES("lease keep-alive 7", "lease keep-alive 7 --once"),
        .run = hw_ctl_run_lease_keep_alive,
    },
    {
        .name = "lease timetolive",
        .arguments = "ID",
        .help = "Show how much time a lease has left",
        .details = lease_details,
        .json = "header      as in get\nID, TTL, grantedTTL   numbers\nkeys        base64, with --keys\n",
        .flags = FLAGS(SWITCH("keys", "and the keys that are attached")),
        .examples = EXAMPLES("lease timetolive 7 --keys"),
        .run = hw_ctl_run_lease_timetolive,
    },
    {
        .name = "lease list",
        .arguments = "",
        .help = "List the leases that there are",
        .json = "header      as in get\nleases      [{ID}]\n",
        .examples = EXAMPLES("lease list"),
        .run = hw_ctl_run_lease_list,
    },
    {
        .name = "alarm list",
        .arguments = "",
        .help = "List the alarms that are on",
        .details = "NOSPACE: the state has reached limits.state_bytes_max, or a node's disk cannot take its image. It "
                   "goes off\n"
                   "by itself when there is room again.\n",
        .json = "header      as in get\nalarms      [{memberID: hex, alarm}]\n",
        .examples = EXAMPLES("alarm list"),
        .run = hw_ctl_run_alarm_list,
    },
    {
        .name = "defrag",
        .arguments = "",
        .help = "Remove what compaction has left behind now, in the background",
        .details = "Asks every endpoint. It is done anyhow, a little later; nothing stops for it.\n",
        .json = "endpoints   [those that have begun]\n",
        .examples = EXAMPLES("defrag"),
        .run = hw_ctl_run_defrag,
    },
    {
        .name = "snapshot save",
        .arguments = "FILE",
        .help = "Save a consistent copy of the state to a file",
        .details =
            "Bytes go to FILE.part; FILE appears when it is whole, checked and durable. A broken stream is taken up\n"
            "where it broke. --timeout is the longest pause without a byte, not the length of the copy.\n",
        .json = "file, size, index, revision, cluster_id, rows_hash, checksum, took_ms\n",
        .flags = FLAGS(SWITCH("force", "replace FILE when it is there")),
        .examples = EXAMPLES("snapshot save backup.db", "snapshot save backup.db --endpoints 10.0.0.2:2379"),
        .run = hw_ctl_run_snapshot_save,
    },
    {
        .name = "snapshot verify",
        .arguments = "FILE",
        .help = "Check a saved file and say what it holds",
        .details = "Reads every row; no cluster is needed. Exit 7 when it is damaged.\n",
        .json = "file, format, cluster_id, index, revision, compacted, epoch, rows, rows_hash, state_hash, "
                "written_wall_ms, checksum\n",
        .flags = FLAGS(TEXT("checksum", "HEX", "the file must be the one for which 'snapshot save' printed this")),
        .examples = EXAMPLES("snapshot verify backup.db", "snapshot verify backup.db --checksum 5d2cf0a5c31b1d0e"),
        .run = hw_ctl_run_snapshot_verify,
    },
    {
        .name = "sql",
        .arguments = "STATEMENT",
        .help = "Run one read-only SQL statement on a warm node's image",
        .details = "The answer may be as old as the node's image; it names the revision. The hot node refuses unless\n"
                   "--hot-too is given; with several endpoints the next one is asked.\n",
        .json = "columns     [name]\n"
                "rows        [[text or null; {base64} when it is not UTF-8]]\n"
                "more        true when --rows cut the answer\n"
                "revision, image_index, node\n",
        .flags = FLAGS(NUMBER("rows", "N", 1, 1000000, "at most N rows; default 10000"),
                       SWITCH("hot-too", "allow the hot node to answer")),
        .examples = EXAMPLES("sql 'SELECT count(*) FROM kv'"),
        .run = hw_ctl_run_sql,
    },
    {
        .name = "bench",
        .arguments = "KIND",
        .help = "Measure throughput and latency (KIND: put, get or mixed)",
        .details =
            "Writes keys below --prefix into the cluster that it is pointed at; --clean deletes them afterwards.\n"
            "--timeout holds for each operation. With --rate latency counts from when an operation was due.\n",
        .json = "kind, clients, channels, seconds, ok, failed, ops_per_second\n"
                "latency_us  {p50, p90, p99, max, mean}\n"
                "errors      {gRPC status name: count}\n",
        .flags = FLAGS(NUMBER("clients", "N", 1, 4096, "operations in flight; default 32"),
                       NUMBER("channels", "N", 1, 64, "connections; default 4"),
                       NUMBER("count", "N", 1, 1000000000, "operations in all; default 10000"),
                       NUMBER("duration", "S", 1, 86400, "run for this many seconds instead"),
                       NUMBER("size", "BYTES", 1, 1 << 20, "bytes of a value; default 128"),
                       NUMBER("keys", "N", 1, 1000000000, "different keys; default 10000"),
                       NUMBER("rate", "N", 1, 10000000, "operations a second; default as fast as they go"),
                       NUMBER("puts", "PERCENT", 0, 100, "share of puts in mixed; default 50"),
                       NUMBER("seed", "N", 0, INT64_MAX, "seed of keys and values; default 1"),
                       TEXT("prefix", "TEXT", "keys begin with this; default hwctl-bench/"),
                       SWITCH("clean", "delete the keys afterwards")),
        .examples = EXAMPLES("bench put --count 100000 --clients 64", "bench mixed --duration 10 --rate 5000 --clean"),
        .run = hw_ctl_run_bench,
    },
    {
        .name = "hash",
        .arguments = "",
        .help = "Compare the state of all endpoints by its hash",
        .details = "Exit 1 when two nodes differ at one revision, 3 when an endpoint did not answer. --timeout holds "
                   "for each\n"
                   "endpoint.\n",
        .json = "verdict     equal, different or incomplete\n"
                "endpoints   [{endpoint, answered, hash, revision, compacted, error}]\n",
        .flags = FLAGS(NUMBER("rev", "N", 1, INT64_MAX, "as of this revision; default the latest that all have")),
        .examples = EXAMPLES("hash --endpoints a:2379,b:2379,c:2379"),
        .run = hw_ctl_run_hash,
    },
    {
        .name = "health",
        .arguments = "",
        .help = "Ask every endpoint whether it serves",
        .details = "Exit 3 when one does not. --timeout holds for each endpoint.\n"
                   "An endpoint serves when its node has its state and knows a hot node.\n",
        .json = "endpoints   [{endpoint, status, took_ms, error}]\n",
        .flags = FLAGS(NUMBER("wait", "S", 1, 86400, "until all serve, at most this many seconds")),
        .examples = EXAMPLES("health", "health --endpoints a:2379,b:2379 --timeout 500", "health --wait 30"),
        .run = hw_ctl_run_health,
    },
    {
        .name = "version",
        .arguments = "",
        .help = "Show the versions of hwctl and of every endpoint",
        .details =
            "An endpoint that does not answer is shown as down; that is no error. --timeout holds for each endpoint.\n",
        .json = "hwctl\nendpoints   [{endpoint, node, version, etcd_version, libraft, sqlite} or {endpoint, error}]\n",
        .flags = FLAGS(SWITCH("client", "only hwctl's own")),
        .examples = EXAMPLES("version", "version --client"),
        .run = hw_ctl_run_version,
    },
    {
        .name = "completion",
        .arguments = "",
        .help = "Print the completion script for bash",
        .examples = EXAMPLES("completion > /etc/bash_completion.d/hwctl"),
        .run = hw_ctl_run_completion,
    },
    {
        .name = "help",
        .arguments = "[COMMAND] [SUB_COMMAND]",
        .help = "Explain a command",
        .flags = FLAGS(SWITCH("reference", "print the reference page, docs/hwctl.md")),
        .examples = EXAMPLES("help", "help node add"),
        .run = hw_ctl_run_help,
    },
    {.name = NULL},
};
