"""Bounds of the state: the quota on memory with its alarm, and automatic compaction."""
import time

import h2
from base import ClusterTest, StandAloneTest, assert_converged, wait_for

MIB = 1024 * 1024


class Quota(ClusterTest):
    EXTRA = {"limits": {"state_bytes_max": 8 * MIB}}

    def fill(self):
        """Put until it is refused; the text of the refusal."""
        node = self.cluster.warm()
        for i in range(1000):
            code, out, err = self.cluster.etcdctl("put", f"big/{i}", node=node, stdin="x" * 100000)
            if code != 0:
                return err
        self.fail("nothing was refused")

    def test_full_and_free_again(self):
        etcdctl, hot = self.cluster.etcdctl, self.cluster.hot()
        self.assertEqual(self.ok(etcdctl("alarm", "list", node=hot)), "")
        self.assertIn("etcdserver: mvcc: database space exceeded", self.fill())
        for n in self.cluster.nodes:  # whichever way a write takes
            for args, stdin in ((["put", "k"], "v"), (["lease", "grant", "60"], None),
                                (["txn"], '\nput a b\n\n\n')):
                code, out, err = etcdctl(*args, node=n, stdin=stdin)
                self.assertNotEqual(code, 0, (args, out))
                self.assertIn("database space exceeded", err)
            wait_for("the alarm is on", lambda: "alarm:NOSPACE" in self.ok(etcdctl("alarm", "list", node=n)))
            self.assertIn("NOSPACE", self.ok(etcdctl("endpoint", "status", "-w", "json", node=n)))
            self.assertTrue(self.ok(etcdctl("get", "big/0", node=n)).startswith("big/0"))
        self.assertIn("NOSPACE on node", self.ok(self.cluster.hwctl("alarm", "list")))
        self.assertIn("the state is full", self.cluster.hot().log_text())
        # the way out
        self.assertNotEqual(self.ok(etcdctl("del", "big/", "--prefix")), "0\n")
        self.ok(etcdctl("alarm", "disarm"))
        revision = self.json(etcdctl("get", "big/", "--prefix", "-w", "json"))["header"]["revision"]
        self.ok(etcdctl("compact", str(revision)))
        self.ok(etcdctl("defrag"))
        for n in self.cluster.nodes:
            wait_for("the alarm is off", lambda: self.ok(etcdctl("alarm", "list", node=n)) == "")
            self.ok(etcdctl("put", "k", "v", node=n))
            self.ok(etcdctl("lease", "grant", "60", node=n))
        self.assertIn("the state has room again", self.cluster.hot().log_text())
        assert_converged(self, self.cluster.nodes)

    def test_the_budgets_are_said_at_the_start(self):
        for n in self.cluster.nodes:
            lines = [line for line in n.log_text().splitlines() if 'msg="budgets"' in line]
            self.assertEqual(len(lines), 1)
            self.assertIn(f"state_bytes_max={8 * MIB}", lines[0])

    def test_defrag_is_answered_everywhere(self):
        self.assertEqual(len(self.ok(self.cluster.hwctl("defrag")).splitlines()), 3)


class Compaction(StandAloneTest):
    def compacted(self, node):
        return node.status().get("compacted", 0)

    def test_by_number_also_after_a_change_of_the_hot_node(self):
        cluster = self.make(3, compaction={"mode": "revision", "retention_revisions": 20, "interval_s": 1})
        with h2.Kv(cluster.hot().client) as kv:
            for i in range(100):
                revision = kv.put("k", str(i))
        wait_for("compacted", lambda: self.compacted(cluster.hot()) == revision - 20)
        old = cluster.hot()
        old.kill()
        with h2.Kv(cluster.hot().client) as kv:
            for i in range(50):
                revision = kv.put("k", str(i))
        wait_for("compacted again", lambda: self.compacted(cluster.hot()) == revision - 20)
        old.start()
        cluster.wait_ready()
        assert_converged(self, cluster.nodes)

    def test_by_age(self):
        cluster = self.make(1, cluster={"voters": 1}, compaction={"retention_s": 3, "interval_s": 1})
        began = time.monotonic()
        with h2.Kv(cluster.hot().client) as kv:
            for i in range(10):
                revision = kv.put("k", str(i))
        wait_for("compacted", lambda: self.compacted(cluster.hot()) == revision)
        self.assertGreater(time.monotonic() - began, 3)

    def test_off(self):
        cluster = self.make(1, cluster={"voters": 1},
                            compaction={"mode": "off", "retention_s": 1, "retention_revisions": 2, "interval_s": 1})
        with h2.Kv(cluster.hot().client) as kv:
            for i in range(10):
                kv.put("k", str(i))
        time.sleep(3)
        self.assertEqual(self.compacted(cluster.hot()), 0)
