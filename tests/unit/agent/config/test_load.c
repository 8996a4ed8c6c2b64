/* Each row is a file and the exact list of problems that it must give. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config/config.h"
#include "tests/unit/hw_test.h"

#define ID "cluster: {name: c}\nnode: {name: a, data: d}\n" /* two lines that make a file complete */

struct bad_file {
    const char *text;
    const char *problems;
};

static const char *problems_of(const char *text, size_t len, struct hw_config *c, struct hw_config_problems *p)
{
    int rc = hw_config_parse("f", text, len, c, p);
    CHECK_EQ(rc, p->count == 0 ? 0 : HW_ERR_INVALID);
    return p->count == 0 ? "" : (const char *)p->text.data;
}

static void check_file(const char *text, size_t len, const char *expected)
{
    struct hw_config c;
    struct hw_config_problems p;
    const char *found = problems_of(text, len, &c, &p);
    size_t lines = 0;
    for (const char *s = expected; *s != '\0'; s++) {
        lines += *s == '\n';
    }
    if (strcmp(found, expected) != 0) {
        printf("\n--- file:\n%.200s\n--- expected:\n%s--- found:\n%s", text, expected, found);
    }
    CHECK_STR(found, expected);
    CHECK_EQ(p.count, lines);
    hw_config_problems_free(&p);
}

static void check_files(const struct bad_file *files, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check_file(files[i].text, strlen(files[i].text), files[i].problems);
    }
}

#define CHECK_FILES(files) check_files((files), sizeof(files) / sizeof((files)[0]))

static void every_problem_is_reported_at_once_in_order(void)
{
    static const struct bad_file files[] = {
        {"format: 1\n"
         "cluster: {name: sh op, voters: 4}\n"
         "node:\n"
         "  name: a\n"
         "  data: d\n"
         "  colour: red\n"
         "raft:\n"
         "  election_ms: 5\n"
         "  heartbeat_ms: 50\n"
         "  tick_ms: 60\n"
         "limits: {txn_ops_max: 65537, reads_max: many}\n"
         "raft: {heartbeat_ms: 40}\n"
         "listen: {client: \"0.0.0.0:2379\"}\n"
         "advertise: {client: \"h\"}\n",
         "f:2: cluster.name: \"sh op\" has something else than letters, digits, '-', '_' and '.' at position 3\n"
         "f:2: cluster.voters: 4 is even: 4 voters survive the loss of 1, as 3 do; choose 3 or 5\n"
         "f:6: node.colour: is not a known key; known here: name, data\n"
         "f:8: raft.election_ms: 5 is below the minimum 20\n"
         "f:10: raft.tick_ms: tick_ms 60 is above heartbeat_ms 50: a heartbeat would leave only every 60 ms; lower "
         "tick_ms to 50 or less\n"
         "f:11: limits.txn_ops_max: 65537 is above the maximum 65536\n"
         "f:11: limits.reads_max: \"many\" is not a plain whole number; write digits only, in the unit that the key "
         "names\n"
         "f:12: raft: is given twice; the first is in line 7\n"
         "f:12: raft.heartbeat_ms: is given twice; the first is in line 9\n"
         "f:13: listen.client: \"0.0.0.0:2379\" can be reached from other machines, without encryption; listen on "
         "127.0.0.1, or accept it with insecure: true\n"
         "f:14: advertise.client: \"h\" is not host:port of at most 255 characters\n"},
    };
    CHECK_FILES(files);
}

static void missing_keys_are_named(void)
{
    static const char all[] = "f: cluster.name: is missing and has no default; add it, or set HOTWARM_CLUSTER_NAME\n"
                              "f: node.name: is missing and has no default; add it, or set HOTWARM_NODE_NAME\n"
                              "f: node.data: is missing and has no default; add it, or set HOTWARM_NODE_DATA\n";
    static const struct bad_file files[] = {
        {"", all},
        {"# nothing but a comment\n", all},
        {"---\n", all},
        {"format: 1\ncluster:\nnode: {}\n", all},
        {"cluster: {name: c}\nnode: {name: a}\n",
         "f: node.data: is missing and has no default; add it, or set HOTWARM_NODE_DATA\n"},
    };
    CHECK_FILES(files);
}

static void a_newer_format_is_the_only_problem(void)
{
    static const struct bad_file files[] = {
        {"format: 2\nwonder: 1\n",
         "f:1: format: 2 is newer than this program knows (1); use the program that the file is for\n"},
        {"format: 10\n",
         "f:1: format: 10 is newer than this program knows (1); use the program that the file is for\n"},
        {ID "format: 0\n", "f:3: format: 0 is below the minimum 1\n"},
    };
    CHECK_FILES(files);
}

static void shapes_that_do_not_fit_are_refused(void)
{
    static const struct bad_file files[] = {
        {"- a\n- b\n", "f:1: not a configuration: keys belong here, such as \"node:\"\n"},
        {"hello\n", "f:1: not a configuration: keys belong here, such as \"node:\"\n"},
        {ID "raft: 5\n", "f:3: raft: is a group of keys, not a value; known here: heartbeat_ms, election_ms, tick_ms, "
                         "snapshot_threshold, snapshot_trailing, disk_reserve_mb\n"},
        {"cluster: {name: c}\nnode: a\n", "f:2: node: is a group of keys, not a value; known here: name, data\n"},
        {ID "insecure: {a: b}\n", "f:3: insecure: is a group of keys; one value belongs here\n"},
        {ID "insecure: [true]\n", "f:3: insecure: is a list; one value belongs here\n"},
        {ID "insecure:\n", "f:3: insecure: has no value; give it one or remove the key\n"},
        {"cluster: {name: ~}\nnode: {name: null, data: ''}\n",
         "f:1: cluster.name: has no value; give it one or remove the key\n"
         "f:2: node.name: has no value; give it one or remove the key\n"
         "f:2: node.data: is empty\n"},
        {ID "raft.tick_ms: 5\n",
         "f:3: \"raft.tick_ms\": is not a known key; known here: format, cluster, node, listen, advertise, insecure, "
         "raft, image, compaction, limits, log, stop_timeout_ms\n"},
        {ID "insecure: false\ninsecure: true\n", "f:4: insecure: is given twice; the first is in line 3\n"},
    };
    CHECK_FILES(files);
}

static void values_out_of_their_type_or_range_are_refused(void)
{
#define NOT_PLAIN " is not a plain whole number; write digits only, in the unit that the key names\n"
    static const struct bad_file files[] = {
        {ID "raft: {tick_ms: -1}\n", "f:3: raft.tick_ms: \"-1\"" NOT_PLAIN},
        {ID "raft: {tick_ms: 1.5}\n", "f:3: raft.tick_ms: \"1.5\"" NOT_PLAIN},
        {ID "raft: {tick_ms: 010}\n", "f:3: raft.tick_ms: \"010\"" NOT_PLAIN},
        {ID "raft: {tick_ms: 0x10}\n", "f:3: raft.tick_ms: \"0x10\"" NOT_PLAIN},
        {ID "raft: {tick_ms: 10ms}\n", "f:3: raft.tick_ms: \"10ms\"" NOT_PLAIN},
        {ID "raft: {tick_ms: ''}\n", "f:3: raft.tick_ms: \"\"" NOT_PLAIN},
        {ID "image: {checkpoint_dirty_bytes: 64MiB}\n", "f:3: image.checkpoint_dirty_bytes: \"64MiB\"" NOT_PLAIN},
        {ID "raft: {tick_ms: 0}\n", "f:3: raft.tick_ms: 0 is below the minimum 1\n"},
        {ID "raft: {tick_ms: 18446744073709551615}\n",
         "f:3: raft.tick_ms: 18446744073709551615 is above the maximum 1000\n"},
        {ID "raft: {tick_ms: 18446744073709551616}\n",
         "f:3: raft.tick_ms: \"18446744073709551616\" does not fit into 64 bits\n"},
        {ID "limits: {txn_ops_max: 65536}\n", ""},
        {ID "insecure: yes\n", "f:3: insecure: \"yes\" is neither true nor false\n"},
        {ID "log: {level: info replica=debug}\n",
         "f:3: log.level: \"info replica=debug\" names a component \"info replica\", but names have letters, digits, "
         "'-', "
         "'_' and '.' only; a comma without a space stands between LEVEL and COMPONENT=LEVEL\n"},
        {ID "log: {level: loud}\n", "f:3: log.level: \"loud\" is not LEVEL[,COMPONENT=LEVEL]... with the levels debug, "
                                    "info, warn and error\n"},
        {"cluster: {name: c}\nnode: {name: a, data: \"x\\ty\"}\n",
         "f:2: node.data: \"x?y\" has a control character at position 2\n"},
        {"cluster: {name: c}\nnode: {name: a, data: \"x\\0y\"}\n", "f:2: a text has a NUL character inside\n"},
        {"cluster: {name: c}\nnode: {data: d, name: "
         "a234567890123456789012345678901234567890123456789012345678901234}\n",
         "f:2: node.name: \"a234567890123456789012345678901234567890123456789012345678901234\" has 64 characters; at "
         "most 63 are possible\n"},
    };
    CHECK_FILES(files);
}

static void addresses_are_host_and_port(void)
{
    static const struct bad_file files[] = {
        {ID "listen: {client: \":2379\"}\n",
         "f:3: listen.client: \":2379\" is not host:port with a host name or address\n"},
        {ID "listen: {client: \"localhost\"}\n",
         "f:3: listen.client: \"localhost\" is not host:port of at most 255 characters\n"},
        {ID "listen: {client: \"localhost:\"}\n",
         "f:3: listen.client: \"localhost:\" has no port from 1 to 65535 after its colon\n"},
        {ID "listen: {client: \"localhost:0\"}\n",
         "f:3: listen.client: \"localhost:0\" has no port from 1 to 65535 after its colon\n"},
        {ID "listen: {client: \"localhost:65536\"}\n",
         "f:3: listen.client: \"localhost:65536\" has no port from 1 to 65535 after its colon\n"},
        {ID "listen: {client: \"127.0.0.256:1\"}\n",
         "f:3: listen.client: \"127.0.0.256:1\" has no valid IPv4 address before its colon\n"},
        {ID "listen: {client: \"::1:2379\"}\n", "f:3: listen.client: \"::1:2379\" has more than one colon; an IPv6 "
                                                "address goes into brackets: [::1]:2379\n"},
        {ID "listen: {client: \"[::g]:1\"}\n", "f:3: listen.client: \"[::g]:1\" has no IPv6 address in its brackets\n"},
        {ID "listen: {client: \"[]:1\"}\n", "f:3: listen.client: \"[]:1\" has no IPv6 address in its brackets\n"},
        {ID "listen: {client: \"[::1:1\"}\n", "f:3: listen.client: \"[::1:1\" is not [address]:port\n"},
        {ID "listen: {client: \"http://h:1\"}\n", "f:3: listen.client: \"http://h:1\" has more than one colon; an IPv6 "
                                                  "address goes into brackets: [::1]:2379\n"},
        {ID "listen: {client: \"a b:1\"}\n",
         "f:3: listen.client: \"a b:1\" is not host:port with a host name or address\n"},
        {ID "listen: {client: \"[::1]:2379\", peer: \"localhost:65535\"}\n", ""},
        {ID "listen: {client: \"127.8.8.8:1\"}\n", ""},
    };
    CHECK_FILES(files);
}

static void lists_are_checked_item_by_item(void)
{
    static const struct bad_file files[] = {
        {ID "advertise: {peer: \"h:1\"}\n"
            "cluster:\n"
            "  initial:\n"
            "    - {name: a, peer: \"h:1\", port: 1}\n"
            "    - {name: b}\n"
            "    - {name: b!, peer: x, name: c}\n"
            "    - word\n"
            "    - {name: [], peer: \"h:5\"}\n",
         "f:4: cluster: is given twice; the first is in line 1\n"
         "f:6: cluster.initial[0].port: is not a known key; known here: name, peer\n"
         "f:7: cluster.initial[1].peer: is missing; an item is {name: NAME, peer: HOST:PORT}\n"
         "f:8: cluster.initial[2].name: \"b!\" has something else than letters, digits, '-', '_' and '.' at position "
         "2\n"
         "f:8: cluster.initial[2].name: is given twice; the first is in line 8\n"
         "f:8: cluster.initial[2].peer: \"x\" is not host:port of at most 255 characters\n"
         "f:9: cluster.initial[3]: is not of the form {name: NAME, peer: HOST:PORT}\n"
         "f:10: cluster.initial[4].name: has no value; one text belongs here\n"},
        {"node: {name: a, data: d}\ncluster: {name: c, join: here}\n",
         "f:2: cluster.join: is not a list; write one item a line, each after \"- \"\n"},
        {"node: {name: a, data: d}\ncluster: {name: c, join: [{a: b}, x, ~]}\n",
         "f:2: cluster.join[0]: is not an address; HOST:PORT belongs here\n"
         "f:2: cluster.join[1]: \"x\" is not host:port of at most 255 characters\n"
         "f:2: cluster.join[2]: is not an address; HOST:PORT belongs here\n"},
        {"node: {name: a, data: d}\n"
         "cluster: {name: c, join: [\"h:1\", \"h:2\", \"h:3\", \"h:4\", \"h:5\", \"h:6\", \"h:7\", \"h:8\", \"h:9\", "
         "\"h:10\"]}\n",
         "f:2: cluster.join: has 10 items; at most 9 are possible\n"},
        {"node: {name: a, data: d}\ncluster: {name: c, join: , initial: []}\n", ""},
    };
    CHECK_FILES(files);
}

static void checks_of_the_whole_show_their_arithmetic(void)
{
    static const struct bad_file files[] = {
        {ID "raft: {election_ms: 149}\n",
         "f:3: raft.election_ms: election_ms 149 is below 3 x heartbeat_ms (3 x 50 = 150); raise election_ms to 150 or "
         "lower heartbeat_ms to 49\n"},
        {ID "raft: {election_ms: 150}\n", ""},
        {ID "raft: {heartbeat_ms: 101}\n",
         "f:3: raft.heartbeat_ms: election_ms 300 is below 3 x heartbeat_ms (3 x 101 = 303); raise election_ms to 303 "
         "or lower heartbeat_ms to 100\n"},
        {ID "raft: {heartbeat_ms: 15, election_ms: 150}\n",
         "f:3: raft.election_ms: 150 with heartbeat_ms 15 is a pair that the consensus library silently triples (to 3 "
         "x "
         "150 = 450 and 3 x 15 = 45); choose 151 or another number\n"},
        {ID "raft: {heartbeat_ms: 9}\n",
         "f:3: raft.heartbeat_ms: tick_ms 10 is above heartbeat_ms 9: a heartbeat would leave only every 10 ms; lower "
         "tick_ms to 9 or less\n"},
        {"cluster: {name: c, voters: 2}\nnode: {name: a, data: d}\n",
         "f:1: cluster.voters: 2 is even: 2 voters survive the loss of 0, as 1 do; choose 1 or 3\n"},
        {ID "listen: {peer: \"127.0.0.1:2379\"}\n",
         "f:3: listen.peer: listen.client \"127.0.0.1:2379\" and listen.peer \"127.0.0.1:2379\" collide on port 2379; "
         "give each its own port\n"},
        {ID "insecure: true\nlisten: {peer: \"0.0.0.0:2379\"}\nadvertise: {peer: \"h:2379\"}\n",
         "f:4: listen.peer: listen.client \"127.0.0.1:2379\" and listen.peer \"0.0.0.0:2379\" collide on port 2379; "
         "give each its own port\n"},
        {ID "insecure: true\nlisten:\n  client: \"[::]:2379\"\nadvertise:\n  client: \"[::]:2379\"\n",
         "f:7: advertise.client: \"[::]:2379\" means any address and cannot be connected to; set it to the one that "
         "others use\n"},
        {ID "limits: {request_bytes_max: 100000, proposal_bytes_max: 70000}\n",
         "f:3: limits.proposal_bytes_max: proposal_bytes_max 70000 is below request_bytes_max 100000 by 30000: the "
         "largest request could never be written\n"},
        {ID "listen: {peer: \"example.org:2380\"}\n",
         "f:3: listen.peer: \"example.org:2380\" can be reached from other machines, without encryption; listen on "
         "127.0.0.1, or accept it with insecure: true\n"},
    };
    CHECK_FILES(files);
}

static void members_must_agree_with_this_node(void)
{
    static const struct bad_file files[] = {
        {"node: {name: a, data: d}\n"
         "cluster:\n"
         "  name: c\n"
         "  initial: [{name: a, peer: \"127.0.0.1:2380\"}]\n"
         "  join: [\"h:1\", \"H:1\", \"127.0.0.1:2380\"]\n",
         "f:5: cluster.join: given together with cluster.initial (line 4); a node either forms a new cluster or joins "
         "an existing one: keep one of them\n"
         "f:5: cluster.join[1]: \"H:1\" is also the address in line 5\n"
         "f:5: cluster.join[2]: \"127.0.0.1:2380\" is this node itself (advertise.peer); name the nodes that are there "
         "already\n"},
        {"node: {name: a, data: d}\ncluster: {name: c, initial: [*x, {name: *y, peer: \"h:1\"}]}\n",
         "f:2: aliases (*) are not read here; write the value itself\n"
         "f:2: aliases (*) are not read here; write the value itself\n"},
        {"node: {name: a, data: d}\ncluster: {name: c, join: [*x]}\n",
         "f:2: aliases (*) are not read here; write the value itself\n"},
        {"node: {name: z, data: d}\n"
         "cluster: {name: c, initial: [{name: a, peer: \"h:1\"}]}\n",
         "f:1: node.name: \"z\" is not among the 1 names of cluster.initial; add this node there, or name it as it is "
         "there\n"},
        {"node: {name: a, data: d}\n"
         "cluster:\n"
         "  name: c\n"
         "  initial:\n"
         "    - {name: a, peer: \"h:1\"}\n"
         "    - {name: a, peer: \"h:2\"}\n"
         "    - {name: b, peer: \"h:1\"}\n",
         "f:5: cluster.initial[0].peer: \"h:1\" is not advertise.peer of this node, \"127.0.0.1:2380\"; make them "
         "equal\n"
         "f:6: cluster.initial[1].name: \"a\" is also the name in line 5; every node has its own\n"
         "f:7: cluster.initial[2].peer: \"h:1\" is also the address in line 5; every node has its own\n"},
    };
    CHECK_FILES(files);
}

static void what_is_not_plain_yaml_is_refused_with_its_line(void)
{
    static const struct bad_file files[] = {
        {ID "raft:\n\ttick_ms: 5\n", "f:4: a tab in the indentation; YAML is indented with spaces\n"},
        {"wrong: 1\nnode: {name: a\n",
         "f:1: wrong: is not a known key; known here: format, cluster, node, listen, advertise, insecure, raft, image, "
         "compaction, "
         "limits, log, stop_timeout_ms\n"
         "f:3: not YAML: while parsing a flow mapping, did not find expected ',' or '}'; what follows was not read\n"},
        {ID "log: &x {level: info}\n", "f:3: anchors (&) are not read here; write the value where it is used\n"},
        {ID "log: *x\n", "f:3: aliases (*) are not read here; write the value itself\n"},
        {ID "*x : 1\n", "f:3: aliases (*) are not read here; write the value itself\n"},
        {"cluster: {name: c}\nnode: *x\n", "f:2: aliases (*) are not read here; write the value itself\n"},
        {ID "raft: {tick_ms: !!int 5}\n", "f:3: tags (!) are not read here; write the plain value\n"},
        {"--- !hw\n" ID, "f:1: tags (!) are not read here; write the plain value\n"},
        {ID "? [a, b]\n: c\n", "f:3: a key must be a plain word, not a list or a group; reading stops here\n"},
        {ID "---\nformat: 1\n", "f:3: a second document (---) begins here; the file must hold one\n"},
        {ID "log: {level: [[[[[[[[[[]]]]]]]]]]}\n", "f:3: nested deeper than 8 levels; reading stops here\n"
                                                    "f:3: log.level: is a list; one value belongs here\n"},
        {ID "#\n\xff\n", "f:4: not UTF-8 text: invalid leading UTF-8 octet; save the file as UTF-8\n"},
        {"\xff\xfe" ID, "f:1: not UTF-8 text: invalid leading UTF-8 octet; save the file as UTF-8\n"},
    };
    CHECK_FILES(files);
    check_file("a: \0", 4, "f:1: not UTF-8 text: control characters are not allowed; save the file as UTF-8\n");
}

static void size_and_number_of_values_are_bounded(void)
{
    size_t size = 1024 * 1024 + 1;
    char *big = malloc(size);
    char *p;
    REQUIRE(big != NULL);
    memset(big, '#', size);
    check_file(big, size, "f:1: larger than 1 MiB, which is the most that is read\n");
    memcpy(big, ID, strlen(ID)); /* then one long comment */
    check_file(big, size - 1, "");
    p = stpcpy(big, ID "x: [");
    for (int i = 0; i < 3000; i++) {
        p = stpcpy(p, "1,\n");
    }
    stpcpy(p, "]\n");
    check_file(big, strlen(big),
               "f:3: x: is not a known key; known here: format, cluster, node, listen, advertise, insecure, raft, "
               "image, compaction, limits, log, stop_timeout_ms\n"
               "f:1996: the file has more than 2000 values; reading stops here\n");
    free(big);
}

static void a_long_list_of_problems_is_cut_and_counted(void)
{
    char text[8192] = ID;
    struct hw_config c;
    struct hw_config_problems p;
    const char *found;
    for (int i = 0; i < 150; i++) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "x%d: 1\n", i);
    }
    found = problems_of(text, strlen(text), &c, &p);
    CHECK_EQ(p.count, 150);
    CHECK(strstr(found, "f:102: x99: ") != NULL);
    CHECK(strstr(found, "x100") == NULL);
    CHECK(strstr(found, "f: 50 more problems are not listed\n") != NULL);
    hw_config_problems_free(&p);
}

static void what_is_not_given_has_its_default(void)
{
    struct hw_config c;
    struct hw_config_problems p;
    CHECK_STR(problems_of(ID, strlen(ID), &c, &p), "");
    CHECK_EQ(c.format, 1);
    CHECK_STR(c.cluster, "c");
    CHECK_STR(c.node.name, "a");
    CHECK_STR(c.node.data, "d");
    CHECK_STR(c.listen.client, "127.0.0.1:2379");
    CHECK_STR(c.advertise.peer, "127.0.0.1:2380");
    CHECK_EQ(c.members.voters, 3);
    CHECK_EQ(c.members.initial_count, 0);
    CHECK(!c.insecure);
    CHECK_EQ(c.raft.heartbeat_ms, 50);
    CHECK_EQ(c.raft.election_ms, 300);
    CHECK_EQ(c.raft.tick_ms, 10);
    CHECK_EQ(c.image.checkpoint_dirty_bytes, 64u * 1024 * 1024);
    CHECK_EQ(c.limits.request_bytes_max, 1572864);
    CHECK_EQ(c.limits.txn_ops_max, 128);
    CHECK_STR(c.log.level, "info");
    CHECK_EQ(c.stop_timeout_ms, 10000);
    hw_config_problems_free(&p);
}

static void advertise_follows_listen(void)
{
    static const char text[] =
        ID "listen: {client: \"127.0.0.1:1\", peer: \"127.0.0.1:2\"}\nadvertise: {peer: \"h:3\"}\n";
    struct hw_config c;
    struct hw_config_problems p;
    CHECK_STR(problems_of(text, strlen(text), &c, &p), "");
    CHECK_STR(c.advertise.client, "127.0.0.1:1");
    CHECK_STR(c.advertise.peer, "h:3");
    hw_config_problems_free(&p);
}

static const char *write_file(const char *text)
{
    static char path[512];
    FILE *f;
    snprintf(path, sizeof path, "%s/config.yaml", hw_test_dir());
    f = fopen(path, "w");
    REQUIRE(f != NULL);
    fputs(text, f);
    fclose(f);
    return path;
}

static void environment_overrides_the_file(void)
{
    const char *path = write_file(ID "raft: {tick_ms: 7, election_ms: 400}\nlog: {level: warn}\n");
    struct hw_config c;
    struct hw_config_problems p;
    setenv("HOTWARM_NODE_NAME", "from-env", 1);
    setenv("HOTWARM_RAFT_TICK_MS", "5", 1);
    setenv("HOTWARM_INSECURE", "true", 1);
    setenv("HOTWARM_LISTEN_PEER", "127.0.0.1:9", 1);
    setenv("HOTWARM_PORT", "tcp://10.0.0.1:80", 1); /* as Kubernetes sets for a service of that name */
    CHECK_EQ(hw_config_load(path, &c, &p), 0);
    CHECK_EQ(p.count, 0);
    CHECK_STR(c.node.name, "from-env");
    CHECK_EQ(c.raft.tick_ms, 5);
    CHECK_EQ(c.raft.election_ms, 400);
    CHECK_STR(c.log.level, "warn");
    CHECK_STR(c.advertise.peer, "127.0.0.1:9");
    CHECK(c.insecure);
    hw_config_problems_free(&p);
    /* hw_config_parse does not look at it. */
    CHECK_STR(problems_of(ID, strlen(ID), &c, &p), "");
    CHECK_STR(c.node.name, "a");
    unsetenv("HOTWARM_NODE_NAME");
    unsetenv("HOTWARM_RAFT_TICK_MS");
    unsetenv("HOTWARM_INSECURE");
    unsetenv("HOTWARM_LISTEN_PEER");
    unsetenv("HOTWARM_PORT");
    hw_config_problems_free(&p);
}

static void environment_problems_name_the_variable(void)
{
    const char *path = write_file(ID "raft: {tick_ms: x}\n");
    char expected[2048];
    struct hw_config c;
    struct hw_config_problems p;
    setenv("HOTWARM_RAFT_TICK_MS", "60", 1); /* heals the file's value for the checks, which refuse it again */
    setenv("HOTWARM_CLUSTER_JOIN", "h:1", 1);
    setenv("HOTWARM_LOG_LEVEL", "", 1);
    CHECK_EQ(hw_config_load(path, &c, &p), HW_ERR_INVALID);
    snprintf(
        expected, sizeof expected,
        "%s:3: raft.tick_ms: \"x\" is not a plain whole number; write digits only, in the unit that the key names\n"
        "HOTWARM_CLUSTER_JOIN: cluster.join: is a list; only the file can set it\n"
        "HOTWARM_LOG_LEVEL: log.level: is empty\n"
        "HOTWARM_RAFT_TICK_MS: raft.tick_ms: tick_ms 60 is above heartbeat_ms 50: a heartbeat would leave only "
        "every 60 ms; lower tick_ms to 50 or less\n",
        path);
    CHECK_EQ(p.count, 4);
    CHECK_STR((const char *)p.text.data, expected);
    hw_config_problems_free(&p);
    unsetenv("HOTWARM_RAFT_TICK_MS");
    unsetenv("HOTWARM_CLUSTER_JOIN");
    unsetenv("HOTWARM_LOG_LEVEL");
}

static void no_file_means_defaults_and_environment(void)
{
    struct hw_config c;
    struct hw_config_problems p;
    CHECK_EQ(hw_config_load(NULL, &c, &p), HW_ERR_INVALID);
    CHECK_STR((const char *)p.text.data,
              "environment: cluster.name: is missing and has no default; add it, or set HOTWARM_CLUSTER_NAME\n"
              "environment: node.name: is missing and has no default; add it, or set HOTWARM_NODE_NAME\n"
              "environment: node.data: is missing and has no default; add it, or set HOTWARM_NODE_DATA\n");
    hw_config_problems_free(&p);
    setenv("HOTWARM_CLUSTER_NAME", "c", 1);
    setenv("HOTWARM_NODE_NAME", "a", 1);
    setenv("HOTWARM_NODE_DATA", "d", 1);
    CHECK_EQ(hw_config_load(NULL, &c, &p), 0);
    CHECK_STR(c.cluster, "c");
    hw_config_problems_free(&p);
    unsetenv("HOTWARM_CLUSTER_NAME");
    unsetenv("HOTWARM_NODE_NAME");
    unsetenv("HOTWARM_NODE_DATA");
}

static void a_file_that_cannot_be_read_is_one_problem(void)
{
    struct hw_config c;
    struct hw_config_problems p;
    CHECK_EQ(hw_config_load("/nonexistent/config.yaml", &c, &p), HW_ERR_NOTFOUND);
    CHECK_EQ(p.count, 1);
    CHECK_STR((const char *)p.text.data, "/nonexistent/config.yaml: cannot be read: No such file or directory\n");
    hw_config_problems_free(&p);
    CHECK_EQ(hw_config_load(hw_test_dir(), &c, &p), HW_ERR_IO);
    CHECK_EQ(p.count, 1);
    CHECK(strstr((const char *)p.text.data, "cannot be read: Is a directory") != NULL);
    hw_config_problems_free(&p);
}

HW_SUITE(config_load, HW_CASE(every_problem_is_reported_at_once_in_order), HW_CASE(missing_keys_are_named),
         HW_CASE(a_newer_format_is_the_only_problem), HW_CASE(shapes_that_do_not_fit_are_refused),
         HW_CASE(values_out_of_their_type_or_range_are_refused), HW_CASE(addresses_are_host_and_port),
         HW_CASE(lists_are_checked_item_by_item), HW_CASE(checks_of_the_whole_show_their_arithmetic),
         HW_CASE(members_must_agree_with_this_node), HW_CASE(what_is_not_plain_yaml_is_refused_with_its_line),
         HW_CASE(size_and_number_of_values_are_bounded), HW_CASE(a_long_list_of_problems_is_cut_and_counted),
         HW_CASE(what_is_not_given_has_its_default), HW_CASE(advertise_follows_listen),
         HW_CASE(environment_overrides_the_file), HW_CASE(environment_problems_name_the_variable),
         HW_CASE(no_file_means_defaults_and_environment), HW_CASE(a_file_that_cannot_be_read_is_one_problem))
