"""Every command of hwctl against a live cluster: what it prints for people, what it prints for programs, how it ends."""
import base64
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time

import h2
from base import HWCTL, PATIENCE, ClusterTest, assert_converged, free_ports, run, switchover, wait_for


def b64(text):
    return base64.b64encode(text.encode()).decode()


class Hwctl(ClusterTest):
    def setUp(self):
        self.cluster.wait_registered()
        super().setUp()
        self.folder = tempfile.mkdtemp(prefix="hotwarm-hwctl-")
        self.addCleanup(shutil.rmtree, self.folder, True)

    def ctl(self, *args, code=0, **kwargs):
        got, out, err = self.cluster.hwctl(*args, **kwargs)
        self.assertEqual(got, code, f"{args}: exit {got}\n{out}{err}")
        return out if code == 0 else err

    def ask(self, *args, **kwargs):
        """-o json: one object on one line."""
        out = self.ctl(*args, "-o", "json", **kwargs)
        self.assertEqual(out.count("\n"), 1, out)
        return json.loads(out)

    # ---- the cluster ----

    def test_status_and_node_list(self):
        hot = self.cluster.hot()
        wait_for("all are registered", lambda: sorted(n["name"] for n in self.ask("status")["nodes"]) == ["n1", "n2", "n3"])
        table = self.ctl("status")
        for word in ("n1", "n2", "n3", "hot", "warm", "voter"):
            self.assertIn(word, table)
        for command in (("status",), ("node", "list")):
            for n in self.cluster.nodes:
                answer = self.ask(*command, endpoints=n.client)
                self.assertEqual(answer["answered_by"], n.name)
                self.assertEqual(answer["hot_node"], hot.name)
                self.assertEqual(answer["cluster_name"], "test")
                rows = {r["name"]: r for r in answer["nodes"]}
                self.assertEqual(sorted(rows), ["n1", "n2", "n3"])
                self.assertEqual({r["tier"] for r in rows.values()}, {"hot", "warm"})
                self.assertEqual(rows[hot.name]["tier"], "hot")
                self.assertTrue(all(r["role"] == "voter" and r["health"] == "ok" and r["is_answering"] for r in
                                    rows.values()), rows)
                self.assertEqual(rows[n.name]["client_address"], n.client)
                self.assertRegex(rows[n.name]["id"], "^[0-9a-f]{16}$")
        self.assertIn("n2", self.ctl("node", "list"))

    def test_status_shows_a_node_that_is_down(self):
        node = self.cluster.warm()
        node.kill()
        try:
            row = wait_for("it is shown as down", lambda: next(
                (r for r in self.ask("status")["nodes"] if r["name"] == node.name and r["tier"] == "down"), None))
            self.assertIn("does not answer", row["health"])
            self.assertIn("down", self.ctl("status"))
            # a dead endpoint is passed over, and said so unless --quiet
            both = f"{node.client},{self.cluster.hot().client}"
            code, out, err = self.cluster.hwctl("put", "failover", "1", endpoints=both)
            self.assertEqual(code, 0, err)
            self.assertIn(node.client, err)
            code, out, err = self.cluster.hwctl("get", "failover", "-q", endpoints=both)
            self.assertEqual((code, err), (0, ""))
            self.assertIn("failover", out)
            self.ctl("health", code=3)
            self.assertEqual(self.ask_any("health")[1]["endpoints"][self.cluster.nodes.index(node)]["status"] == "SERVING",
                             False)
            self.ctl("hash", code=3)
        finally:
            node.start()
            self.cluster.wait_ready([node])
        self.ctl("health")

    def ask_any(self, *args):
        code, out, err = self.cluster.hwctl(*args, "-o", "json")
        return code, json.loads(out)

    def test_status_watch(self):
        process = subprocess.Popen([HWCTL, "--endpoints", self.cluster.endpoints(), "status", "--watch", "1", "-o", "json"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            for _ in range(2):
                self.assertEqual(len(json.loads(process.stdout.readline())["nodes"]), 3)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=10 * PATIENCE)
        self.assertIn(process.returncode, (0, 130))

    def test_switchover_and_history(self):
        hot = self.cluster.hot()
        target = self.cluster.warm()
        answer = switchover(self.cluster, "--to", target.name)
        self.assertEqual((answer["from"], answer["to"]), (hot.name, target.name))
        self.assertGreater(answer["epoch"], 0)
        self.assertIs(self.cluster.hot(), target)
        self.assertEqual(switchover(self.cluster)["from"], target.name)
        self.ctl("switchover", "--to", "nobody", code=4)
        self.ctl("switchover", "--to", self.cluster.hot().name, code=4)
        events = self.ask("history")["events"]
        self.assertTrue(any(target.name == e["node"] for e in events), events)
        self.assertEqual(len(self.ask("history", "--limit", "2")["events"]), 2)
        self.assertEqual(self.ask("history", "--limit", "2")["events"], self.ask("history")["events"][-2:])
        self.assertIn(target.name, self.ctl("history"))

    def test_node_commands_refuse_what_they_should(self):
        for args, code in ((("node", "remove", "nobody"), 4), (("node", "remove", self.cluster.hot().name), 4),
                           (("node", "add"), 2), (("node", "add", "n9", "127.0.0.1:1"), 4),
                           (("node", "frobnicate"), 2)):
            self.ctl(*args, code=code)

    def test_node_add_of_a_voter_changes_nothing(self):
        before = self.ask("node", "list")["nodes"]
        for n in self.cluster.nodes:
            err = self.ctl("node", "add", n.name, n.peer, code=4)
            self.assertIn("it is a voter of this cluster already: nothing was changed", err)
            self.assertIn("hwctl node list", err)
        strip = lambda rows: sorted((r["name"], r["id"], r["role"]) for r in rows)  # noqa: E731
        self.assertEqual(strip(self.ask("node", "list")["nodes"]), strip(before))

    def test_a_frozen_endpoint_costs_a_moment(self):
        hot, frozen = self.cluster.hot(), self.cluster.warm()
        other = next(n for n in self.cluster.nodes if n not in (hot, frozen))
        frozen.process.send_signal(signal.SIGSTOP)
        try:
            for args in (("put", "frozen", "1"), ("get", "frozen"), ("status",)):
                began = time.monotonic()
                self.ctl(*args, endpoints=f"{frozen.client},{other.client}")
                took = time.monotonic() - began
                # status also asks the frozen node how it is
                self.assertLess(took, (3.0 if args[0] == "status" else 1.0) * PATIENCE, args)
        finally:
            frozen.process.send_signal(signal.SIGCONT)
        assert_converged(self, self.cluster.nodes)

    # ---- keys ----

    def assert_missing(self, key, **kwargs):
        code, out, err = self.cluster.hwctl("get", key, "-o", "json", **kwargs)
        self.assertEqual(code, 4, err)
        self.assertEqual(json.loads(out)["count"], 0)

    def test_put_get_del(self):
        self.assertTrue(self.ctl("put", "h/a", "1"))
        answer = self.ask("put", "h/a", "2", "--prev-kv")
        self.assertEqual(answer["prev_kv"]["value"], b64("1"))
        self.ctl("put", "h/b", "-", stdin="from stdin\n")
        self.assertEqual(self.ctl("get", "h/b", "--print-value-only"), "from stdin\n\n")
        self.ctl("put", "h/c", "3")
        for n in self.cluster.nodes:
            got = self.ask("get", "h/", "--prefix", endpoints=n.client)
            self.assertEqual([base64.b64decode(kv["key"]) for kv in got["kvs"]], [b"h/a", b"h/b", b"h/c"])
            self.assertEqual(got["count"], 3)
        self.assertEqual(self.ctl("get", "h/", "--prefix", "--keys-only").split(), ["h/a", "h/b", "h/c"])
        self.assertEqual(self.ctl("get", "h/a", "h/c", "--keys-only").split(), ["h/a", "h/b"])
        self.assertIn("h/c", self.ctl("get", "h/b", "--from-key", "--keys-only"))
        self.assertEqual(self.ctl("get", "h/", "--prefix", "--count-only").strip(), "3")
        self.assertEqual(self.ask("get", "h/", "--prefix", "--limit", "1")["more"], True)
        down = self.ctl("get", "h/", "--prefix", "--sort-by", "key", "--order", "descend", "--keys-only")
        self.assertEqual(down.split(), ["h/c", "h/b", "h/a"])
        first = self.ask("get", "h/a")["kvs"][0]
        self.assertEqual(self.ctl("get", "h/a", "--rev", str(first["create_revision"]), "--print-value-only"), "1\n")
        self.assertEqual(self.ask("get", "h/a", "--serializable")["count"], 1)
        self.assertIn("h/a", self.ctl("get", "h/a", "-o", "plain"))
        self.assert_missing("nothing")
        self.ctl("get", "h/a", "--rev", "99999999", code=4)
        self.ctl("get", "h/a", "--prefix", "--from-key", code=2)
        self.ctl("put", "h/new", "--ignore-value", code=2)
        deleted = self.ask("del", "h/a", "--prev-kv")
        self.assertEqual((deleted["deleted"], deleted["prev_kvs"][0]["value"]), (1, b64("2")))
        self.assertEqual(self.ask("del", "h/", "--prefix")["deleted"], 2)
        self.assertEqual(self.ask("del", "h/", "--prefix")["deleted"], 0)
        self.ctl("put", "--", "-dash", "1")
        self.assertEqual(self.ctl("get", "--print-value-only", "--", "-dash"), "1\n")

    def test_txn(self):
        self.ctl("put", "x/a", "1")
        text = """
# all targets
if value("x/a") = "1"
if version("x/a") > 0
if create("x/a") > 0
if mod("x/a") > 0
if lease("x/a") = 0
if exists("x/a")
if missing("x/none")
then put x/b "two words" prev-kv
then get x/ prefix limit 5
else put x/else 1
"""
        answer = self.ask("txn", stdin=text)
        self.assertTrue(answer["succeeded"])
        self.assertEqual(answer["responses"][1]["response_range"]["count"], 2)
        self.assertTrue(self.ctl("txn", stdin=text))
        path = os.path.join(self.folder, "fails.txn")
        with open(path, "w") as f:
            f.write("if value(x/a) = nothing\nthen put x/no 1\nelse del x/b prev-kv\n")
        code, out, err = self.cluster.hwctl("txn", "-f", path, "--check", "-o", "json")
        self.assertEqual(code, 4, err)
        self.assertFalse(json.loads(out)["succeeded"])
        self.assert_missing("x/no")
        self.assert_missing("x/b")
        self.ctl("txn", stdin="nonsense\n", code=2)
        self.ctl("txn", stdin="then put a 1\nthen put a 2\n", code=2)
        self.ctl("txn", "-f", os.path.join(self.folder, "none"), code=4)

    def test_compact(self):
        self.ctl("put", "c/a", "1")
        self.ctl("put", "c/a", "2")
        revision = self.ask("get", "c/a")["header"]["revision"]
        self.assertEqual(self.ask("compact", str(revision))["compacted"], revision)
        self.ctl("compact", str(revision), code=4)
        self.ctl("compact", str(revision + 1000000), code=4)
        self.ctl("get", "c/a", "--rev", str(revision - 1), code=4)
        self.ctl("compact", "x", code=2)

    # ---- files, SQL, measuring ----

    def test_snapshot(self):
        with h2.Kv(self.cluster.hot().client) as kv:
            for i in range(300):
                kv.put(f"snap/{i}", "v" * 200)
        assert_converged(self, self.cluster.nodes)  # a node saves what it has
        for n in self.cluster.nodes:
            path = os.path.join(self.folder, n.name + ".db")
            saved = self.ask("snapshot", "save", path, endpoints=n.client)
            self.assertEqual(saved["size"], os.path.getsize(path))
            checked = self.ask("snapshot", "verify", path)
            for name in ("index", "revision", "cluster_id", "rows_hash", "checksum"):
                self.assertEqual(checked[name], saved[name], name)
            self.ctl("snapshot", "verify", path, "--checksum", saved["checksum"])
            self.ctl("snapshot", "verify", path, "--checksum", "1", code=7)
            self.ctl("snapshot", "verify", path, "--checksum", "x", code=2)
            db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            self.assertEqual(db.execute("SELECT count(*) FROM kv WHERE key LIKE 'snap/%'").fetchone()[0], 300)
            db.close()
        self.ctl("snapshot", "save", path, code=4)  # it is there
        self.ctl("snapshot", "save", path, "--force")
        self.assertTrue(self.ctl("snapshot", "verify", path))
        self.assertEqual(sorted(os.listdir(self.folder)), ["n1.db", "n2.db", "n3.db"])
        size = os.path.getsize(path)
        with open(path, "rb") as f:
            data = f.read()
        # a value, a key, the table of the schema, SQLite's header; bytes that nothing uses may be anything
        for at in (data.find(b"v" * 200), data.find(b"snap/"), data.find(b"CREATE TABLE"), 20):
            broken = os.path.join(self.folder, "broken.db")
            shutil.copy(path, broken)
            with open(broken, "r+b") as f:
                f.seek(at)
                was = f.read(8)
                f.seek(at)
                f.write(bytes(b ^ 0xff for b in was))
            code, out, err = run(HWCTL, "snapshot", "verify", broken)
            self.assertEqual(code, 7, f"damage at {at} of {size}: {out}{err}")
            self.assertIn("broken.db", err)
        os.truncate(broken, size // 2)
        self.assertEqual(run(HWCTL, "snapshot", "verify", broken)[0], 7)
        self.assertEqual(run(HWCTL, "snapshot", "verify", os.path.join(self.folder, "none"))[0], 4)
        code, out, err = self.cluster.hwctl("snapshot", "save", "/nowhere/at/all.db")
        self.assertNotEqual(code, 0)
        self.assertIn("/nowhere", err)

    def test_sql(self):
        revision = h2.put(self.cluster.hot().client, "sql/key", "value")
        hot, warm = self.cluster.hot(), self.cluster.warm()
        query = "SELECT key, value FROM kv WHERE key = 'sql/key'"
        answer = wait_for("the image has it", lambda: (lambda a: a if a["rows"] else None)(
            self.ask("sql", query, endpoints=warm.client)))
        self.assertEqual(answer["columns"], ["key", "value"])
        self.assertEqual(answer["rows"], [["sql/key", "value"]])
        self.assertEqual(answer["node"], warm.name)
        self.assertGreaterEqual(answer["revision"], revision)
        self.assertIn("sql/key", self.ctl("sql", query, endpoints=warm.client))
        self.assertIn("hot", self.ctl("sql", query, endpoints=hot.client, code=4))
        self.assertEqual(self.ask("sql", "SELECT 1", "--hot-too", endpoints=hot.client)["rows"], [["1"]])
        # with several endpoints the hot node is passed over
        self.assertNotEqual(self.ask("sql", "SELECT 1")["node"], hot.name)
        self.assertEqual(self.ask("sql", "SELECT NULL, x'ff'", endpoints=warm.client)["rows"][0][0], None)
        many = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 50) SELECT n FROM c"
        answer = self.ask("sql", many, "--rows", "7", endpoints=warm.client)
        self.assertEqual((len(answer["rows"]), answer["more"]), (7, True))
        for bad in ("DELETE FROM revision", "ATTACH 'x' AS y", "PRAGMA user_version = 9", "SELECT 1; SELECT 2", "nonsense",
                    "SELECT load_extension('x')", "VACUUM"):
            code, out, err = self.cluster.hwctl("sql", bad, endpoints=warm.client)
            self.assertIn(code, (2, 5), f"{bad}: {out}{err}")
        endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
        code, out, err = self.cluster.hwctl("sql", endless, "--timeout", "1500", endpoints=warm.client)
        self.assertEqual(code, 3, out + err)
        h2.put(warm.client, "sql/after", "1")

    def test_hash_health_version(self):
        answer = self.ask("hash")
        self.assertEqual(answer["verdict"], "equal")
        self.assertEqual(len({e["hash"] for e in answer["endpoints"]}), 1)
        self.assertTrue(self.ctl("hash"))
        revision = min(e["revision"] for e in answer["endpoints"])
        self.assertEqual(self.ask("hash", "--rev", str(revision))["verdict"], "equal")
        self.assertEqual(len(self.ask("health")["endpoints"]), 3)
        self.assertTrue(self.ctl("health"))
        version = self.ask("version")
        self.assertEqual({e["node"] for e in version["endpoints"]}, {"n1", "n2", "n3"})
        self.assertTrue(version["hwctl"])
        self.assertEqual(run(HWCTL, "version", "--client")[0], 0)

    def test_bench(self):
        for kind in ("put", "get", "mixed"):
            answer = self.ask("bench", kind, "--count", "500", "--clients", "8", "--channels", "2", "--keys", "100",
                              "--clean")
            self.assertEqual((answer["kind"], answer["ok"], answer["failed"]), (kind, 500, 0))
            for name in ("p50", "p90", "p99", "max", "mean"):
                self.assertGreater(answer["latency_us"][name], 0)
        self.assertTrue(self.ctl("bench", "put", "--duration", "1", "--rate", "200", "--clean"))
        self.assertEqual(self.ask("get", "hwctl-bench/", "--prefix")["count"], 0)

    # ---- itself ----

    def test_no_endpoint_reachable(self):
        a, b = (f"127.0.0.1:{p}" for p in free_ports(2))
        for args in (("status",), ("get", "k"), ("put", "k", "v"), ("history",), ("sql", "SELECT 1")):
            err = self.ctl(*args, "--timeout", "1500", endpoints=f"{a},{b}", code=3)
            self.assertIn(a, err)
            self.assertIn(b, err)
            self.assertTrue(err.startswith("hwctl: "), err)
        silent = socket.create_server(("127.0.0.1", 0))
        try:
            address = "127.0.0.1:%d" % silent.getsockname()[1]
            self.assertIn(address, self.ctl("status", "--timeout", "700", endpoints=address, code=3))
            self.assert_missing("nothing", endpoints=f"{address},{self.cluster.hot().client}")
        finally:
            silent.close()

    def test_settings(self):
        path = os.path.join(self.folder, "config")
        with open(path, "w") as f:
            f.write(f"endpoints={self.cluster.endpoints()}\noutput=json\n")
        code, out, err = run(HWCTL, "--config", path, "status")
        self.assertEqual(code, 0, err)
        self.assertEqual(len(json.loads(out)["nodes"]), 3)
        code, out, err = run(HWCTL, "status", "-o", "json", env={"HWCTL_ENDPOINTS": self.cluster.nodes[1].client})
        self.assertEqual(json.loads(out)["answered_by"], "n2")
        with open(path, "w") as f:
            f.write("nonsense=1\n")
        code, out, err = run(HWCTL, "--config", path, "status")
        self.assertEqual(code, 2)
        self.assertIn(path, err)

    def test_command_lines(self):
        for args in ((), ("frobnicate",), ("get",), ("put",), ("get", "k", "--nonsense"), ("status", "-o", "xml"),
                     ("--timeout", "x", "status"), ("--endpoints", "", "status"),
                     ("get", "a", "b", "c"), ("compact",), ("bench", "sideways"), ("snapshot",)):
            code, out, err = run(HWCTL, *args)
            self.assertEqual(code, 2, f"{args}: {out}{err}")
            self.assertTrue(err.startswith("hwctl: ") or "hwctl" in err, err)
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        with open(os.path.join(root, "docs", "hwctl.md")) as f:
            self.assertEqual(run(HWCTL, "help", "--reference")[1], f.read())
        for args in (("help",), ("--help",), ("help", "node", "add"), ("get", "--help"), ("completion",)):
            code, out, err = run(HWCTL, *args)
            self.assertEqual(code, 0, f"{args}: {err}")
            self.assertTrue(out)
