/* status, node, switchover, history, hash, health, version, sql: what is shown. */
#include <stdlib.h>
#include <string.h>

#include "proto/etcd.pb-c.h"
#include "proto/health.pb-c.h"
#include "proto/hotwarm.pb-c.h"
#include "tests/unit/cli/fixture.h"
#include "tests/unit/hw_test.h"

#define STR(literal) ((char *)(char[]){literal})

static void reply_status(struct fake *f, const char *path)
{
    Hotwarm__V1__StatusResponse r = HOTWARM__V1__STATUS_RESPONSE__INIT;
    Hotwarm__V1__NodeStatus n[3] = {HOTWARM__V1__NODE_STATUS__INIT, HOTWARM__V1__NODE_STATUS__INIT,
                                    HOTWARM__V1__NODE_STATUS__INIT};
    Hotwarm__V1__NodeStatus *nodes[] = {&n[0], &n[1], &n[2]};
    n[0].id = 1;
    n[0].name = STR("a");
    n[0].tier = STR("hot");
    n[0].role = STR("voter");
    n[0].health = STR("ok");
    n[0].term = 7;
    n[0].epoch = 7;
    n[0].applied_index = 1200;
    n[0].image_age_ms = 950;
    n[0].client_address = STR("10.0.0.1:2379");
    n[0].peer_address = STR("10.0.0.1:2380");
    n[0].state_hash = 0xfeedbeefcafe0001u;
    n[0].is_answering = true;
    n[1] = n[0];
    n[1].id = 2;
    n[1].name = STR("b");
    n[1].tier = STR("warm");
    n[1].health = STR("catching up");
    n[1].phase = STR("rebuilding");
    n[1].rebuild_done_bytes = 45;
    n[1].rebuild_total_bytes = 100;
    n[1].lag = 1150;
    n[1].applied_index = 50;
    n[1].image_age_ms = 61000;
    n[2].id = 0xc;
    n[2].name = STR("long-name-c");
    n[2].tier = STR("down");
    n[2].role = STR("voter");
    n[2].health = STR("no answer for 12 s");
    n[2].peer_address = STR("10.0.0.3:2380");
    r.cluster_id = 0xabc;
    r.cluster_name = STR("prod");
    r.answered_by = STR("a");
    r.hot_node = STR("a");
    r.epoch = 7;
    r.n_nodes = 3;
    r.nodes = nodes;
    fake_reply(f, path, &r.base);
}

static void status_is_one_line_a_node(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    reply_status(f, "/hotwarm.v1.Admin/Status");
    CHECK_EQ(fixture_run(fx, "status", NULL), 0);
    CHECK_STR(fx->out,
              "cluster prod  hot a  epoch 7  nodes 3  down 1  (says a)\n"
              "NODE         TIER  ROLE   HEALTH              TERM/EPOCH  APPLIED   LAG  IMAGE-AGE  ADDRESS\n"
              "a            hot   voter  ok                         7/7     1200     0     950 ms  10.0.0.1:2379\n"
              "b            warm  voter  rebuilding 45%             7/7       50  1150     61.0 s  10.0.0.1:2379\n"
              "long-name-c  down  voter  no answer for 12 s           -        -     -          -  10.0.0.3:2380\n");
    CHECK_STR(fx->err, "");
    fixture_free(fx);
}

static void status_without_a_hot_node_says_so(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    Hotwarm__V1__StatusResponse r = HOTWARM__V1__STATUS_RESPONSE__INIT;
    r.cluster_name = STR("p");
    fake_reply(f, "/hotwarm.v1.Admin/Status", &r.base);
    CHECK_EQ(fixture_run(fx, "status", NULL), 0);
    CHECK(strstr(fx->out, "cluster p  hot (none)  epoch 0  nodes 0") == fx->out);
    fixture_free(fx);
}

static void status_json_has_stable_names(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    json_t *o;
    json_t *node;
    reply_status(f, "/hotwarm.v1.Admin/Status");
    CHECK_EQ(fixture_run(fx, "status", "-o", "json", NULL), 0);
    o = fixture_json(fx);
    REQUIRE(o != NULL);
    CHECK_STR(json_string_value(json_object_get(o, "cluster_id")), "0000000000000abc");
    CHECK_STR(json_string_value(json_object_get(o, "hot_node")), "a");
    CHECK_EQ(json_integer_value(json_object_get(o, "epoch")), 7);
    CHECK_EQ(json_array_size(json_object_get(o, "nodes")), 3);
    node = json_array_get(json_object_get(o, "nodes"), 0);
    CHECK_STR(json_string_value(json_object_get(node, "state_hash")), "feedbeefcafe0001");
    CHECK_EQ(json_integer_value(json_object_get(node, "image_age_ms")), 950);
    CHECK(json_is_true(json_object_get(node, "is_answering")));
    CHECK_EQ(json_object_size(node), 28);
    CHECK(strchr(fx->out, '\n') == fx->out + strlen(fx->out) - 1);
    json_decref(o);
    fixture_free(fx);
}

static void node_list_shows_ids_and_addresses(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    reply_status(f, "/hotwarm.v1.Admin/NodeList");
    CHECK_EQ(fixture_run(fx, "node", "list", NULL), 0);
    CHECK(strstr(fx->out, "long-name-c  000000000000000c  voter  down  10.0.0.3:2380  -\n") != NULL);
    fixture_free(fx);
}

static void node_add_checks_the_address_and_reports(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    Hotwarm__V1__NodeResponse r = HOTWARM__V1__NODE_RESPONSE__INIT;
    Hotwarm__V1__NodeAddRequest *q;
    struct fake_route *route = fake_route(f, "/hotwarm.v1.Admin/NodeAdd");
    r.id = 0xd;
    r.text = STR("joins as standby");
    fake_reply(f, "/hotwarm.v1.Admin/NodeAdd", &r.base);
    CHECK_EQ(fixture_run(fx, "node", "add", "d", "nowhere", NULL), 2);
    CHECK_EQ(route->calls, 0);
    CHECK_EQ(fixture_run(fx, "node", "add", "d", "10.0.0.4:2380", NULL), 0);
    CHECK_STR(fx->out, "added d (id 000000000000000d): joins as standby\n");
    q = hotwarm__v1__node_add_request__unpack(NULL, route->request.len, route->request.data);
    REQUIRE(q != NULL);
    CHECK_STR(q->name, "d");
    CHECK_STR(q->peer_address, "10.0.0.4:2380");
    hotwarm__v1__node_add_request__free_unpacked(q, NULL);
    fake_refuse(f, "/hotwarm.v1.Admin/NodeAdd", HW_GRPC_ALREADY_EXISTS, "it is a voter of this cluster already");
    CHECK_EQ(fixture_run(fx, "node", "add", "d", "10.0.0.4:2380", NULL), 4);
    CHECK(strstr(fx->err, "a voter of this cluster already. See who is there with 'hwctl node list'.") != NULL);
    fake_refuse(f, "/hotwarm.v1.Admin/NodeRemove", HW_GRPC_FAILED_PRECONDITION, "d is hot");
    CHECK_EQ(fixture_run(fx, "node", "remove", "d", NULL), 4);
    CHECK(strstr(fx->err, "hwctl: node remove: ") == fx->err && strstr(fx->err, "d is hot") != NULL);
    fixture_free(fx);
}

static void switchover_and_history_are_told(void)
{
    struct fixture *fx = fixture_new();
    struct fake *f = fake_new(fx);
    Hotwarm__V1__SwitchoverResponse s = HOTWARM__V1__SWITCHOVER_RESPONSE__INIT;
    Hotwarm__V1__HistoryResponse h = HOTWARM__V1__HISTORY_RESPONSE__INIT;
    Hotwarm__V1__Event v = HOTWARM__V1__EVENT__INIT;
    Hotwarm__V1__Event *events[] = {&v};
    s.from = STR("a");
    s.to = STR("b");
    s.epoch = 8;
    s.took_ms = 31;
    fake_reply(f, "/hotwarm.v1.Admin/Switchover", &s.base);
    CHECK_EQ(fixture_run(fx, "switchover", "--to", "b", NULL), 0);
    CHECK_STR(fx->out, "hot moved from a to b in 31 ms, epoch 8\n");
    v.seq = 3;
    v.epoch = 8;
    v.node = STR("b");
    v.kind = STR("promoted");
    v.text = STR("took 31 ms\nafter a switchover");
    h.n_events = 1;
    h.events = events;
    fake_reply(f, "/hotwarm.v1.Admin/History", &h.base);
    CHECK_EQ(fixture_run(fx, "history", "--limit", "5", NULL), 0);
    CHECK(strstr(fx->out, "  3  1970-01-01T00:00:00.000Z      8  b     promoted  took 31 ms\\nafter a switchover\n") !=
          NULL);
    fixture_free(fx);
}

static void reply_hash(struct fake *f, uint32_t hash, int64_t revision)
{
    Etcdserverpb__HashKVResponse r = ETCDSERVERPB__HASH_KVRESPONSE__INIT;
    r.hash = hash;
    r.hash_revision = revision;
    fake_reply(f, "/etcdserverpb.Maintenance/HashKV", &r.base);
}

static void hash_compares_at_one_revision(void)
{
    struct fixture *fx = fixture_new();
    struct fake *a = fake_new(fx);
    struct fake *b = fake_new(fx);
    json_t *o;
    reply_hash(a, 7, 100);
    reply_hash(b, 7, 100);
    CHECK_EQ(fixture_run(fx, "hash", NULL), 0);
    CHECK_EQ(fake_route(a, "/etcdserverpb.Maintenance/HashKV")->calls, 1);
    reply_hash(b, 8, 100);
    CHECK_EQ(fixture_run(fx, "hash", NULL), 1);
    CHECK(strstr(fx->err, "nodes differ at revision 100") != NULL);
    reply_hash(b, 8, 99); /* a is asked again for 99, and keeps to 100: nothing to compare */
    CHECK_EQ(fixture_run(fx, "hash", "-o", "json", NULL), 0);
    CHECK_EQ(fake_route(a, "/etcdserverpb.Maintenance/HashKV")->calls, 4);
    o = fixture_json(fx);
    CHECK_STR(json_string_value(json_object_get(o, "verdict")), "equal");
    json_decref(o);
    fake_refuse(b, "/etcdserverpb.Maintenance/HashKV", HW_GRPC_UNAVAILABLE, "loading");
    CHECK_EQ(fixture_run(fx, "hash", NULL), 3);
    CHECK(strstr(fx->out, "loading") != NULL && strstr(fx->err, "1 of 2 endpoints did not answer") != NULL);
    fixture_free(fx);
}

static void health_fails_when_one_does_not_serve(void)
{
    struct fixture *fx = fixture_new();
    struct fake *a = fake_new(fx);
    struct fake *b = fake_new(fx);
    Grpc__Health__V1__HealthCheckResponse r = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    r.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    fake_reply(a, "/grpc.health.v1.Health/Check", &r.base);
    fake_reply(b, "/grpc.health.v1.Health/Check", &r.base);
    CHECK_EQ(fixture_run(fx, "health", NULL), 0);
    r.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
    fake_reply(b, "/grpc.health.v1.Health/Check", &r.base);
    CHECK_EQ(fixture_run(fx, "health", NULL), 3);
    CHECK(strstr(fx->out, "not serving") != NULL && strstr(fx->err, "1 of 2 endpoints do not serve") != NULL);
    fixture_free(fx);
}

static void health_waits_until_all_serve(void)
{
    struct fixture *fx = fixture_new();
    struct fake *a = fake_new(fx);
    struct fake_route *route = fake_route(a, "/grpc.health.v1.Health/Check");
    Grpc__Health__V1__HealthCheckResponse r = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    r.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    fake_reply(a, "/grpc.health.v1.Health/Check", &r.base);
    fake_refuse(a, "/grpc.health.v1.Health/Check", HW_GRPC_UNAVAILABLE, "loading");
    route->fail_calls = 3;
    CHECK_EQ(fixture_run(fx, "health", "--wait", "20", NULL), 0);
    CHECK_EQ(route->calls, 4);
    CHECK(strstr(fx->out, "serving") != NULL);
    CHECK_STR(fx->err, "");
    fx->endpoints = DEAD_ADDRESS;
    CHECK_EQ(fixture_run(fx, "health", "--wait", "1", NULL), 3);
    CHECK(strstr(fx->out, "down") != NULL);
    fixture_free(fx);
}

static void version_needs_no_cluster(void)
{
    struct fixture *fx = fixture_new();
    fx->endpoints = DEAD_ADDRESS;
    CHECK_EQ(fixture_run(fx, "version", NULL), 0);
    CHECK(strstr(fx->out, "hwctl " HW_VERSION "\n") == fx->out && strstr(fx->out, "down: cannot connect") != NULL);
    CHECK_EQ(fixture_run(fx, "version", "--client", NULL), 0);
    CHECK_STR(fx->out, "hwctl " HW_VERSION "\n");
    fixture_free(fx);
}

static void sql_asks_the_next_node_when_one_refuses(void)
{
    struct fixture *fx = fixture_new();
    struct fake *hot = fake_new(fx);
    struct fake *warm = fake_new(fx);
    Hotwarm__V1__QueryResponse r = HOTWARM__V1__QUERY_RESPONSE__INIT;
    Hotwarm__V1__QueryRow row = HOTWARM__V1__QUERY_ROW__INIT;
    Hotwarm__V1__QueryRow *rows[] = {&row};
    Hotwarm__V1__QueryValue v[2] = {HOTWARM__V1__QUERY_VALUE__INIT, HOTWARM__V1__QUERY_VALUE__INIT};
    Hotwarm__V1__QueryValue *values[] = {&v[0], &v[1]};
    char *columns[] = {STR("n"), STR("note")};
    fake_refuse(hot, "/hotwarm.v1.Admin/Query", HW_GRPC_FAILED_PRECONDITION, "this node is hot");
    v[0].text = (ProtobufCBinaryData){2, (uint8_t *)STR("42")};
    v[1].is_null = true;
    row.n_values = 2;
    row.values = values;
    r.n_columns = 2;
    r.columns = columns;
    r.n_rows = 1;
    r.rows = rows;
    r.revision = 9;
    r.node = STR("b");
    fake_reply(warm, "/hotwarm.v1.Admin/Query", &r.base);
    CHECK_EQ(fixture_run(fx, "sql", "SELECT 42 AS n, NULL AS note", NULL), 0);
    CHECK_STR(fx->out, "n   note\n42  NULL\n");
    CHECK(strstr(fx->err, "1 rows from b as of revision 9") != NULL);
    CHECK_EQ(fixture_run(fx, "sql", "SELECT 1", "-o", "json", NULL), 0);
    CHECK_STR(fx->out, "{\"columns\":[\"n\",\"note\"],\"rows\":[[\"42\",null]],\"more\":false,\"revision\":9,"
                       "\"image_index\":0,\"node\":\"b\"}\n");
    fake_refuse(warm, "/hotwarm.v1.Admin/Query", HW_GRPC_FAILED_PRECONDITION, "this node is hot");
    CHECK_EQ(fixture_run(fx, "sql", "SELECT 1", NULL), 4);
    CHECK(strstr(fx->err, "--hot-too") != NULL);
    fixture_free(fx);
}

HW_SUITE(cli_cluster, HW_CASE(status_is_one_line_a_node), HW_CASE(status_without_a_hot_node_says_so),
         HW_CASE(status_json_has_stable_names), HW_CASE(node_list_shows_ids_and_addresses),
         HW_CASE(node_add_checks_the_address_and_reports), HW_CASE(switchover_and_history_are_told),
         HW_CASE(hash_compares_at_one_revision), HW_CASE(health_fails_when_one_does_not_serve),
         HW_CASE(health_waits_until_all_serve), HW_CASE(version_needs_no_cluster),
         HW_CASE(sql_asks_the_next_node_when_one_refuses))
