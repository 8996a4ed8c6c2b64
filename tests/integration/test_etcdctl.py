"""etcd's own command line client (Debian's etcdctl 3.4) against every node, with no flag but --endpoints."""
import base64
import glob
import json
import os
import shutil
import subprocess
import tempfile
import unittest

from base import ROOT, Cluster, ClusterTest, free_ports, http_get, run, wait_for

ENV = {"ETCDCTL_API": "3"}


def find_etcd():
    """$ETCD, an installed one, or the distribution's package, unpacked (not installed) under build/; None without."""
    found = shutil.which(os.environ.get("ETCD", "etcd"))
    folder = os.path.join(ROOT, "build", "bench")
    unpacked = os.path.join(folder, "etcd-server", "usr", "bin", "etcd")
    if found or os.path.exists(unpacked):
        return found or unpacked
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
        subprocess.run(["apt-get", "download", "-q", "etcd-server"], cwd=tmp, capture_output=True, text=True)
        for package in glob.glob(os.path.join(tmp, "*.deb")):
            subprocess.run(["dpkg", "-x", package, os.path.join(folder, "etcd-server")], check=True)
    return unpacked if os.path.exists(unpacked) else None


def etcdctl(endpoint, *args, stdin=None):
    return run("etcdctl", "--endpoints", endpoint, *args, stdin=stdin, env=ENV)


# No lease(): etcdctl 3.4 panics over it, whatever the server. test_hwctl.py has it.
TXN_THEN_ELSE = 'value("t/a") = "1"\nversion("t/a") > "0"\nmod("t/a") > "0"\ncreate("t/a") > "0"\n\n' \
    'put t/then yes\nget t/a\n\nput t/else yes\n\n'
TXN_FAILS = 'value("t/a") = "wrong"\n\nput t/no 1\n\ndel t/then\nget t/a\n\n'


# Steps that mean the same to etcd and to HotWarm: (name, arguments, stdin). Revisions begin at 1 in both.
SCRIPT = [
    ("put", ["put", "k/a", "1"], None),
    ("put again", ["put", "k/a", "11", "--prev-kv"], None),
    ("put b", ["put", "k/b", "2"], None),
    ("put c", ["put", "k/c", "0"], None),
    ("put other", ["put", "l", "other"], None),
    ("put stdin", ["put", "k/stdin"], "from stdin"),
    ("put ignore value", ["put", "k/b", "--ignore-value"], None),
    ("put ignore value of nothing", ["put", "k/none", "--ignore-value"], None),
    ("put with unknown lease", ["put", "k/b", "x", "--lease=4d2"], None),
    ("get", ["get", "k/a"], None),
    ("get missing", ["get", "nothing"], None),
    ("get prefix", ["get", "--prefix", "k/"], None),
    ("get range", ["get", "k/a", "k/c"], None),
    ("get from key", ["get", "--from-key", "k/c"], None),
    ("get all", ["get", "", "--prefix"], None),
    ("get limit", ["get", "--prefix", "k/", "--limit=2"], None),
    ("get rev", ["get", "k/a", "--rev=2"], None),
    ("get keys only", ["get", "--prefix", "k/", "--keys-only"], None),
    ("get value only", ["get", "--prefix", "k/", "--print-value-only"], None),
    ("get linearizable", ["get", "k/a", "--consistency=l"], None),
    ("get serializable", ["get", "k/a", "--consistency=s"], None),
    *[(f"get {order} by {by}", ["get", "--prefix", "k/", f"--sort-by={by}", f"--order={order}"], None)
      for by in ("KEY", "VERSION", "CREATE", "MODIFY", "VALUE") for order in ("ASCEND", "DESCEND")],
    ("get sorted with limit", ["get", "--prefix", "k/", "--sort-by=VALUE", "--order=DESCEND", "--limit=2"], None),
    ("get future", ["get", "k/a", "--rev=99999"], None),
    ("del missing", ["del", "nothing"], None),
    ("del", ["del", "k/c", "--prev-kv"], None),
    ("get at a revision before del", ["get", "--prefix", "k/", "--rev=5"], None),
    ("put d1", ["put", "d/1", "x"], None),
    ("put d2", ["put", "d/2", "y"], None),
    ("put d3", ["put", "d/3", "z"], None),
    ("del range", ["del", "d/1", "d/3", "--prev-kv"], None),
    ("del prefix", ["del", "--prefix", "d/"], None),
    ("del from key", ["del", "--from-key", "zzz"], None),
    ("put t/a", ["put", "t/a", "1"], None),
    ("txn then", ["txn"], TXN_THEN_ELSE),
    ("txn else", ["txn"], TXN_FAILS),
    ("txn without compares", ["txn"], "\nput t/x 1\nput t/y 2\n\n\n"),
    ("txn not equal and less", ["txn"], 'value("t/a") < "5"\nversion("t/a") < "9"\n\nget t/a\n\nput never 1\n\n'),
    ("txn duplicate key", ["txn"], "\nput t/x 1\nput t/x 2\n\n\n"),
    ("txn del and get", ["txn"], "\ndel t/x --prev-kv\nget --prefix t/\n\n\n"),
    ("compaction", ["compaction", "6"], None),
    ("compaction again", ["compaction", "6"], None),
    ("compaction of the future", ["compaction", "99999"], None),
    ("get compacted", ["get", "k/a", "--rev=2"], None),
    ("get at the compaction", ["get", "k/a", "--rev=6"], None),
]


def without_identity(value):
    """A JSON answer without what must differ between two clusters."""
    if isinstance(value, dict):
        return {k: without_identity(v) for k, v in value.items() if k not in ("cluster_id", "member_id", "raft_term")}
    return [without_identity(v) for v in value] if isinstance(value, list) else value


class Etcdctl(ClusterTest):
    def out(self, node, *args, stdin=None):
        return self.ok(etcdctl(node.client, *args, stdin=stdin))

    def answer(self, node, *args, stdin=None):
        return json.loads(self.out(node, *args, "-w", "json", stdin=stdin))

    def error(self, node, *args, stdin=None):
        code, out, err = etcdctl(node.client, *args, stdin=stdin)
        self.assertNotEqual(code, 0, out)
        return err

    def test_put_and_get_in_all_forms(self):
        for n in self.cluster.nodes:
            p = f"{n.name}/"
            self.assertEqual(self.out(n, "put", p + "a", "3"), "OK\n")
            self.assertEqual(self.out(n, "put", p + "b", "2"), "OK\n")
            self.out(n, "put", p + "b", "1")
            self.out(n, "put", p + "c", "2")
            self.assertEqual(self.out(n, "put", p + "a", "3", "--prev-kv"), f"OK\n{p}a\n3\n")
            self.assertEqual(self.out(n, "get", p + "a"), f"{p}a\n3\n")
            self.assertEqual(self.out(n, "get", p + "missing"), "")
            keys = lambda *args: self.out(n, "get", *args, "--keys-only").split()  # noqa: E731
            self.assertEqual(keys("--prefix", p), [p + "a", p + "b", p + "c"])
            self.assertEqual(keys(p + "a", p + "c"), [p + "a", p + "b"])
            self.assertEqual(keys("--prefix", p, "--limit=1"), [p + "a"])
            self.assertIn(p + "c", keys("--from-key", p + "b"))
            self.assertNotIn(p + "a", keys("--from-key", p + "b"))
            orders = {"KEY": "abc", "VERSION": None, "CREATE": "abc", "MODIFY": "bca", "VALUE": "bca"}
            for by, order in orders.items():
                up = keys("--prefix", p, f"--sort-by={by}", "--order=ASCEND")
                down = keys("--prefix", p, f"--sort-by={by}", "--order=DESCEND")
                if order:
                    self.assertEqual(up, [p + c for c in order], by)
                    self.assertEqual(down, [p + c for c in reversed(order)], by)
                else:
                    self.assertEqual(up[0], p + "c")
                    self.assertEqual(down[-1], p + "c")
            for consistency in ("l", "s"):
                wait_for("the value is here", lambda: self.out(n, "get", p + "a", f"--consistency={consistency}") ==
                         f"{p}a\n3\n")
            kv = self.answer(n, "get", p + "b")["kvs"][0]
            self.assertEqual(base64.b64decode(kv["value"]), b"1")
            self.assertEqual(kv["version"], 2)
            self.assertEqual(self.out(n, "get", p + "b", f"--rev={kv['create_revision']}"), f"{p}b\n2\n")
            limited = self.answer(n, "get", "--prefix", p, "--limit=2")
            self.assertEqual((limited["count"], limited.get("more"), len(limited["kvs"])), (3, True, 2))

    def test_del_in_all_forms(self):
        for n in self.cluster.nodes:
            p = f"del-{n.name}/"
            for i in range(6):
                self.out(n, "put", f"{p}{i}", str(i))
            self.assertEqual(self.out(n, "del", p + "0"), "1\n")
            self.assertEqual(self.out(n, "del", p + "0"), "0\n")
            self.assertEqual(self.out(n, "del", p + "1", p + "3", "--prev-kv"), f"2\n{p}1\n1\n{p}2\n2\n")
            self.assertEqual(self.out(n, "del", "--prefix", p), "3\n")
            self.assertEqual(self.out(n, "get", "--prefix", p), "")

    def test_txn(self):
        for n in self.cluster.nodes:
            self.out(n, "put", "t/a", "1")
            self.assertEqual(self.out(n, "txn", stdin=TXN_THEN_ELSE).split(), ["SUCCESS", "OK", "t/a", "1"])
            self.assertEqual(self.out(n, "get", "t/then"), "t/then\nyes\n")
            self.assertEqual(self.out(n, "txn", stdin=TXN_FAILS).split(), ["FAILURE", "1", "t/a", "1"])
            self.assertEqual(self.out(n, "get", "t/no"), "")
            for compare, holds in [('version("t/none") = "0"', True), ('value("t/a") > "0"', True),
                                   ('value("t/a") < "0"', False), ('mod("t/a") < "2"', False),
                                   ('create("t/a") = "1"', False),
                                   ('version("t/a") > "0"', True)]:
                out = self.out(n, "txn", stdin=f"{compare}\n\n\n\n")
                self.assertEqual(out.split()[0], "SUCCESS" if holds else "FAILURE", compare)
            self.assertIn("etcdserver: duplicate key given in txn request",
                          self.error(n, "txn", stdin="\nput t/x 1\nput t/x 2\n\n\n"))

    def test_errors_are_etcds(self):
        for n in self.cluster.nodes:
            self.out(n, "put", "e/a", "1")
            revision = self.answer(n, "get", "e/a")["header"]["revision"]
            self.assertIn("etcdserver: mvcc: required revision is a future revision",
                          self.error(n, "get", "e/a", f"--rev={revision + 100000}"))
            self.assertIn("etcdserver: mvcc: required revision is a future revision",
                          self.error(n, "compaction", str(revision + 100000)))
            self.out(n, "put", "e/a", "2")
            self.assertIn("compacted revision", self.out(n, "compaction", str(revision + 1)))
            self.assertIn("etcdserver: mvcc: required revision has been compacted",
                          self.error(n, "get", "e/a", f"--rev={revision}"))
            self.assertIn("etcdserver: mvcc: required revision has been compacted",
                          self.error(n, "compaction", str(revision)))
            self.assertIn("etcdserver: requested lease not found", self.error(n, "put", "e/a", "x", "--lease=4d2"))

    def test_members_and_endpoints(self):
        names = sorted(n.name for n in self.cluster.nodes)
        for n in self.cluster.nodes:
            members = wait_for("all members have said who they are", lambda: (
                lambda m: m if all(x.get("clientURLs") for x in m) else None)(self.answer(n, "member", "list")["members"]))
            self.assertEqual(sorted(m["name"] for m in members), names)
            self.assertEqual(len({m["ID"] for m in members}), 3)
            self.assertEqual(sorted(m["peerURLs"][0] for m in members),
                             sorted(f"http://{x.peer}" for x in self.cluster.nodes))
            table = self.out(n, "member", "list", "-w", "table")
            self.assertTrue(all(name in table for name in names), table)
            status = self.answer(n, "endpoint", "status")[0]["Status"]
            self.assertEqual(len({status["leader"]} & {m["ID"] for m in members}), 1)
            self.assertGreater(status["raftIndex"], 0)
            self.assertIn("3.", status["version"])
            code, out, err = etcdctl(n.client, "endpoint", "health")
            self.assertEqual(code, 0, out + err)
            self.assertIn("is healthy", out + err)
        code, out, err = etcdctl(self.cluster.endpoints(), "endpoint", "health")
        self.assertEqual((out + err).count("is healthy"), 3, out + err)
        hot = self.cluster.hot()
        leaders = {json.loads(self.ok(etcdctl(n.client, "endpoint", "status", "-w", "json")))[0]["Status"]["leader"]
                   for n in self.cluster.nodes}
        ids = {m["ID"] for m in self.answer(hot, "member", "list")["members"] if m["name"] == hot.name}
        self.assertEqual(leaders, ids)

    def test_hashkv_is_equal(self):
        hot = self.cluster.hot()
        for i in range(20):
            self.out(hot, "put", f"hash/{i}", str(i))
        self.out(hot, "del", "hash/3")

        def hashes():
            answers = json.loads(self.ok(etcdctl(self.cluster.endpoints(), "endpoint", "hashkv", "-w", "json")))
            revisions = {a["HashKV"]["header"]["revision"] for a in answers}
            return [a["HashKV"]["hash"] for a in answers] if len(revisions) == 1 else None
        found = wait_for("all nodes at one revision", hashes)
        self.assertEqual(len(found), 3)
        self.assertEqual(len(set(found)), 1, found)
        self.assertNotEqual(found[0], 0)

    def test_z_move_leader(self):
        hot = self.cluster.hot()
        members = self.answer(hot, "member", "list")["members"]
        warm = next(n for n in self.cluster.nodes if n is not hot)
        target = next(m["ID"] for m in members if m["name"] == warm.name)
        out = self.ok(etcdctl(self.cluster.endpoints(), "move-leader", f"{target:x}"))
        self.assertIn("Leadership transferred", out)
        self.assertIs(self.cluster.hot(), warm)
        self.assertIn("no leader endpoint given", self.error(hot, "move-leader", f"{target:x}"))
        self.out(hot, "put", "after-the-move", "1")


class CheckPerf(ClusterTest):
    def test_check_perf(self):
        """A minute of 150 writes a second. What it says of latencies is about this machine's disk and neighbours."""
        code, out, err = run("etcdctl", "--endpoints", self.cluster.endpoints(), "check", "perf", "--load", "s", env=ENV,
                             timeout=100)
        self.assertIn("PASS: Throughput", out, err)
        self.assertNotIn("FAIL: too many errors", out)
        self.assertEqual(code, 0 if "FAIL" not in out else 1)
        self.assertEqual(self.ok(self.cluster.etcdctl("get", "/etcdctl-check-perf/", "--prefix")), "")  # it cleans up


class RealEtcd(unittest.TestCase):
    """The same script to a real etcd and to a node of each tier: every field of every answer but the identities."""

    def setUp(self):
        etcd = find_etcd()
        if etcd is None:
            self.skipTest("no etcd here to compare with (Debian package etcd-server)")
        client, peer = free_ports(2)
        self.folder = tempfile.mkdtemp(prefix="hotwarm-etcd-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        with open(os.path.join(self.folder, "log"), "w") as log:
            self.etcd = subprocess.Popen(
                [etcd, "--data-dir", os.path.join(self.folder, "data"), "--listen-client-urls", f"http://127.0.0.1:{client}",
                 "--advertise-client-urls", f"http://127.0.0.1:{client}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
                 "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster",
                 f"default=http://127.0.0.1:{peer}"], stdout=log, stderr=log)
        self.addCleanup(self.etcd.wait)
        self.addCleanup(self.etcd.kill)
        self.endpoint = f"127.0.0.1:{client}"
        wait_for("etcd is healthy", lambda: http_get(self.endpoint, "/health")[0] == 200, 30)

    def test_answers_are_the_same(self):
        with Cluster(3) as cluster:
            warm = cluster.warm()
            for name, args, stdin in SCRIPT:
                want = etcdctl(self.endpoint, *args, "-w", "json", stdin=stdin)
                have = etcdctl(warm.client, *args, "-w", "json", stdin=stdin)
                with self.subTest(step=name):
                    self.assertEqual(have[0], want[0], (have, want))
                    self.assertEqual(self.shape(have[1]), self.shape(want[1]))
                    self.assertEqual(self.reason(have[2]), self.reason(want[2]))
                simple = [etcdctl(e, *args, stdin=stdin) for e in (self.endpoint, cluster.hot().client)] \
                    if args[0] == "get" else []
                if simple:
                    with self.subTest(step=name, node="hot"):
                        self.assertEqual(simple[1][1], simple[0][1])

    @staticmethod
    def shape(out):
        return [without_identity(json.loads(line)) if line.startswith("{") else line for line in out.splitlines()]

    @staticmethod
    def reason(err):
        """etcdctl 3.4 logs a retry with a time and its target before the error; only the error is compared."""
        return [line for line in err.splitlines() if line.startswith("Error")]
