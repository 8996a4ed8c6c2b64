"""Life of a cluster: forming, moving the hot tier, losing and regaining nodes, under load and with proof that nothing
acknowledged was lost."""
import glob
import os
import signal
import subprocess
import tempfile
import unittest

import h2
from base import (HWAGENT, PATIENCE, ClusterTest, Failed, Load, Node, StandAloneTest, assert_converged, free_ports,
                  http_get, member_names, put_many, run, switchover, voters, wait_for, wait_voters)

# Little log is kept, so that a node which misses some hundred writes needs an image. It is cut after a checkpoint.
SHORT_LOG = {"raft": {"snapshot_threshold": 64, "snapshot_trailing": 32}, "image": {"checkpoint_interval_ms": 20}}


class Together(ClusterTest):
    """What leaves three nodes as they were: three voters, nothing lost."""

    EXTRA = {"log": {"level": "info"}}

    def setUp(self):
        self.cluster.wait_ready()
        self.cluster.wait_registered()
        super().setUp()

    def test_a_formed_three_voters_and_one_hot(self):
        hot = self.cluster.hot()
        wait_voters(hot, ["n1", "n2", "n3"])
        for n in self.cluster.nodes:
            self.assertEqual(http_get(n.client, "/livez")[0], 200)
            self.assertEqual(http_get(n.client, "/hot")[0], 200 if n is hot else 503)
            self.assertEqual(http_get(n.client, "/warm")[0], 503 if n is hot else 200)
            self.assertIn("hotwarm", http_get(n.client, "/metrics")[1])
            wait_for("it knows the hot node's name", lambda: n.cluster_status()["hot_node"] == hot.name)
        self.assertEqual(len({n.cluster_status()["cluster_id"] for n in self.cluster.nodes}), 1)

    def test_b_reads_see_every_write_whatever_the_node(self):
        nodes = self.cluster.nodes
        connections = [h2.Kv(n.client) for n in nodes]
        try:
            for i in range(200):
                writer, reader = connections[i % 3], connections[(i // 3 + i) % 3]
                revision = writer.put("linear", str(i))
                value, seen = reader.get("linear")
                self.assertEqual((value, seen), (str(i).encode(), revision), f"round {i}")
        finally:
            for c in connections:
                c.connection.close()
        assert_converged(self, nodes)

    def test_c_switchover_to_each_node(self):
        first = self.cluster.hot()
        for n in [n for n in self.cluster.nodes if n is not first] + [first]:
            before = self.cluster.hot()
            answer = switchover(self.cluster, "--to", n.name)
            self.assertEqual((answer["from"], answer["to"]), (before.name, n.name))
            self.assertIs(self.cluster.hot(), n)
            for each in self.cluster.nodes:
                h2.put(each.client, "after-switchover", n.name)
        self.assert_same_processes()

    def test_d_switchover_under_load_loses_nothing(self):
        load = Load(self.cluster, 2, "switch")
        for _ in range(3):
            switchover(self.cluster)
        load.end()
        assert_converged(self, self.cluster.nodes)
        load.verify(self, self.cluster.nodes)

    def test_e_kill_of_the_hot_node_under_load(self):
        load = Load(self.cluster, 4, "kill")
        old = self.cluster.hot()
        old.kill()
        new = self.cluster.hot()
        self.assertIsNot(new, old)
        old.start()
        self.cluster.wait_ready([old])
        load.end()
        assert_converged(self, self.cluster.nodes)
        load.verify(self, self.cluster.nodes)
        wait_voters(new, ["n1", "n2", "n3"])

    def test_f_clean_stop_of_the_hot_node_hands_over(self):
        load = Load(self.cluster, 3, "stop")
        old = self.cluster.hot()
        self.assertEqual(old.stop(), 0)
        self.assertIn("handed the hot tier over", old.log_text())
        self.assertIsNot(self.cluster.hot(), old)
        old.start()
        self.cluster.wait_ready([old])
        load.end()
        assert_converged(self, self.cluster.nodes)
        load.verify(self, self.cluster.nodes)

    def test_g_kill_and_restart_of_a_warm_node(self):
        load = Load(self.cluster, 2, "warm")
        warm = self.cluster.warm()
        warm.kill()
        warm.start()
        self.cluster.wait_ready([warm])
        load.end()
        assert_converged(self, self.cluster.nodes)
        load.verify(self, self.cluster.nodes)

    def test_h_all_killed_at_once(self):
        load = Load(self.cluster, 3, "all")
        with h2.Kv(self.cluster.hot().client) as kv:
            revision = kv.put("before-the-crash", "1")
        for n in self.cluster.nodes:
            n.process.send_signal(signal.SIGKILL)
        for n in self.cluster.nodes:
            n.process.wait()
            n.start()
        self.cluster.wait_ready()
        load.end()
        for n in self.cluster.nodes:
            self.assertEqual(h2.get(n.client, "before-the-crash"), (b"1", revision))
        assert_converged(self, self.cluster.nodes)
        load.verify(self, self.cluster.nodes)
        equal = self.json(self.cluster.hwctl("hash", "-o", "json"))
        self.assertEqual(equal["verdict"], "equal")

    def test_i_reload_of_the_configuration(self):
        n = self.cluster.nodes[0]
        hangup = lambda: n.process.send_signal(signal.SIGHUP)  # noqa: E731
        lines = lambda: [x for x in n.log_text().splitlines() if "needs_restart=" in x]  # noqa: E731
        n.write_config(initial=self.cluster.nodes, log={"level": "debug"})
        hangup()
        wait_for("the reload is logged", lambda: len(lines()) == 1)
        self.assertIn('reloaded=', lines()[0])
        self.assertIn("log.level", lines()[0].split("needs_restart=")[0])
        n.write_config(initial=self.cluster.nodes, log={"level": "info"}, raft={"heartbeat_ms": 60})
        hangup()
        wait_for("the second reload is logged", lambda: len(lines()) == 2)
        self.assertIn("raft.heartbeat_ms", lines()[1].split("needs_restart=")[1])
        n.write_config(initial=self.cluster.nodes, log={"level": "nonsense"})
        hangup()
        wait_for("the refusal is logged", lambda: "the new configuration is refused" in n.log_text())
        n.write_config(initial=self.cluster.nodes, **self.EXTRA)
        self.assert_same_processes()
        h2.put(n.client, "after-reload", "1")

    def test_j_wiped_node_comes_back_as_somebody_else(self):
        load = Load(self.cluster, 3, "wipe")
        node = self.cluster.warm()
        old_id = node.status()["id"]
        node.kill()
        node.wipe()
        node.start()
        self.cluster.wait_ready([node])
        hot = self.cluster.hot()
        wait_voters(hot, ["n1", "n2", "n3"])
        self.assertNotEqual(node.status()["id"], old_id)
        wait_for("the old incarnation is gone",
                 lambda: old_id not in [r["id"] for r in hot.cluster_status()["nodes"]])
        self.assertEqual(member_names(hot), ["n1", "n2", "n3"])
        load.end()
        assert_converged(self, self.cluster.nodes)
        load.verify(self, self.cluster.nodes)

    def test_k_wiped_hot_node(self):
        load = Load(self.cluster, 3, "wipehot")
        node = self.cluster.hot()
        old_id = node.status()["id"]
        node.kill()
        node.wipe()
        node.start()
        self.cluster.wait_ready([node])
        wait_voters(self.cluster.hot(), ["n1", "n2", "n3"])
        self.assertNotEqual(node.status()["id"], old_id)
        load.end()
        assert_converged(self, self.cluster.nodes)
        load.verify(self, self.cluster.nodes)

    def test_l_history_tells_what_happened(self):
        text = self.ok(self.cluster.hwctl("history"))
        events = self.json(self.cluster.hwctl("history", "-o", "json"))["events"]
        self.assertGreater(len(events), 5, text)
        self.assertEqual(sorted(e["seq"] for e in events), list(range(min(e["seq"] for e in events),
                                                                      max(e["seq"] for e in events) + 1)))


class Membership(StandAloneTest):
    """Nodes that come and go."""

    def test_join_add_and_remove(self):
        cluster = self.make()
        first = list(cluster.nodes)
        hot = cluster.hot()
        put_many(hot, "m/", 50)

        fourth = cluster.add_node("n4", join=first)
        fourth.start()
        cluster.wait_ready([fourth])
        wait_for("n4 is a member", lambda: "n4" in member_names(hot))
        self.assertEqual(h2.get(fourth.client, "m/00049")[0], b"v" * 16)
        self.assertEqual(len(voters(hot)), 3, "an even number of voters")

        fifth = cluster.add_node("n5")  # neither initial nor join: waits to be added
        fifth.start()
        wait_for("n5 waits", lambda: fifth.status().get("phase") == "waiting")
        self.assertEqual(http_get(fifth.client, "/readyz")[0], 503)
        self.ok(cluster.hwctl("node", "add", "n5", fifth.peer, "--timeout", "20000", endpoints=hot.client))
        cluster.wait_ready([fifth])
        self.assertEqual(h2.get(fifth.client, "m/00000")[0], b"v" * 16)
        self.assertEqual(len(voters(hot)) % 2, 1)
        assert_converged(self, cluster.nodes)

        # a name that a live node has is refused, and the log of the newcomer says so
        twin = Node(cluster, "n1", *free_ports(2))
        twin.data, twin.config, twin.log = twin.data + "-twin", twin.config + ".twin", twin.log + ".twin"
        twin.write_config(join=first)
        twin.start()
        try:
            wait_for("the refusal is in the log", lambda: any(
                "called 'n1'" in x for x in twin.log_lines(20)))
            self.assertFalse(twin.is_ready())
            self.assertEqual(member_names(hot), ["n1", "n2", "n3", "n4", "n5"])
        finally:
            twin.stop()
        code, out, err = cluster.hwctl("node", "add", "n1", fifth.peer, endpoints=hot.client)
        self.assertNotEqual(code, 0, out)

        # a voter is removed: one of the others takes its place, and the number stays odd
        gone = next(n for n in first if n is not hot)
        self.ok(cluster.hwctl("node", "remove", gone.name, "--timeout", "40000", endpoints=hot.client))
        wait_for(f"{gone.name} is no member", lambda: gone.name not in member_names(hot))
        wait_for("three voters again", lambda: len(voters(hot)) == 3, 30)
        gone.stop()
        cluster.nodes.remove(gone)
        h2.put(hot.client, "after-removal", "1")
        for refused in (hot.name, "nobody"):
            code, out, err = cluster.hwctl("node", "remove", refused, endpoints=hot.client)
            self.assertEqual(code, 4, out + err)
        assert_converged(self, cluster.nodes)

    def test_a_dead_voter_is_replaced_by_a_standby(self):
        cluster = self.make()
        first = list(cluster.nodes)
        fourth = cluster.add_node("n4", join=first)
        fourth.start()
        cluster.wait_ready([fourth])
        dead = cluster.warm()
        if dead is fourth:
            dead = next(n for n in first if n is not cluster.hot())
        dead.kill()
        hot = cluster.hot()
        h2.put(hot.client, "while-one-is-dead", "1")
        code, out, err = cluster.hwctl("node", "remove", dead.name, "--timeout", "40000", endpoints=hot.client)
        self.assertEqual(code, 0, out + err)
        wait_for("three voters", lambda: len(voters(hot)) == 3, 30)
        self.assertIn("n4", voters(hot))

    def test_forming_with_a_late_node_and_a_crash(self):
        cluster = self.make(start=False)
        a, b, c = cluster.nodes
        a.start()
        b.start()
        wait_for("it says for whom it waits", lambda: "waiting for the other nodes" in a.log_text())
        for n in (a, b):
            wait_for(f"{n.name} answers", lambda n=n: http_get(n.client, "/readyz")[0] == 503)
            self.assertEqual(http_get(n.client, "/livez")[0], 200)
        a.kill()
        a.start()
        c.start()
        cluster.wait_ready()
        wait_voters(cluster.hot(), ["n1", "n2", "n3"])


class Behind(StandAloneTest):
    """A node that is further behind than the log reaches back."""

    def test_a_lagging_node_gets_an_image(self):
        cluster = self.make(**SHORT_LOG)
        late = cluster.warm()
        late.stop()
        load = Load(cluster, 2, "gap", endpoints=cluster.hot().client)
        load.end()
        late.start()
        cluster.wait_ready([late])
        assert_converged(self, cluster.nodes)
        load.verify(self, cluster.nodes)
        self.assertRegex(late.log_text(), "(?i)rebuil|image")

        # killed again while it lags under load, and the hot node dies while it is being rebuilt
        late.kill()
        load = Load(cluster, 4, "again", size=512, rate=800)
        put_many(cluster.hot(), "pad/", 300, 2000)
        late.start()
        hot = next(n for n in cluster.nodes if n is not late and n.is_hot())
        hot.kill()
        hot.start()
        cluster.wait_ready()
        load.end()
        assert_converged(self, cluster.nodes)
        load.verify(self, cluster.nodes)
        wait_voters(cluster.hot(), ["n1", "n2", "n3"])

    def test_the_hot_node_dies_while_an_empty_node_is_rebuilt(self):
        cluster = self.make(raft=SHORT_LOG["raft"], image={**SHORT_LOG["image"], "transfer_rate_mb": 1,
                                                           "transfer_chunk_bytes": 16384})
        put_many(cluster.hot(), "big/", 400, 8000)
        node = cluster.warm()
        node.kill()
        node.wipe()
        node.start()
        wait_for("the rebuild runs, or is over already",
                 lambda: node.status().get("phase") in ("rebuilding", "member"), 30)
        others = [n for n in cluster.nodes if n is not node]
        hot = next((n for n in others if n.is_hot()), others[0])
        hot.kill()
        hot.start()
        cluster.wait_ready()
        wait_voters(cluster.hot(), ["n1", "n2", "n3"], 60)
        with h2.Kv(node.client) as kv:
            self.assertEqual(len(kv.range("big/", "big0")), 400)
        assert_converged(self, cluster.nodes)


class Alone(unittest.TestCase):
    """hwagent --dev"""

    def start(self, *args, **env):
        client, peer = free_ports(2)
        self.folder = tempfile.mkdtemp(prefix="hotwarm-dev-test-")
        self.log = os.path.join(self.folder, "log")
        with open(self.log, "w") as log:
            process = subprocess.Popen([HWAGENT, "--dev", *args], stdout=log, stderr=log, env={
                **os.environ, "TMPDIR": self.folder, "HOTWARM_LISTEN_CLIENT": f"127.0.0.1:{client}",
                "HOTWARM_LISTEN_PEER": f"127.0.0.1:{peer}", **env})
        self.addCleanup(run, "rm", "-rf", self.folder)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.address = f"127.0.0.1:{client}"
        wait_for("the node is hot", lambda: http_get(self.address, "/hot")[0] == 200 or self.ended(process), 30)
        return process

    def ended(self, process):
        if process.poll() is not None:
            with open(self.log) as f:
                raise Failed(f"hwagent --dev ended with {process.returncode}: {f.read()}")
        return False

    def test_dev_node_serves_and_removes_its_folder(self):
        process = self.start()
        revision = h2.put(self.address, "k", "v")
        self.assertEqual(h2.get(self.address, "k"), (b"v", revision))
        self.assertEqual(len(glob.glob(os.path.join(self.folder, "hotwarm-dev-*"))), 1)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20 * PATIENCE), 0)
        self.assertEqual(glob.glob(os.path.join(self.folder, "hotwarm-dev-*")), [])

    def test_dev_node_with_a_folder_keeps_it(self):
        data = os.path.join(tempfile.mkdtemp(prefix="hotwarm-dev-data-"), "d")
        self.addCleanup(run, "rm", "-rf", os.path.dirname(data))
        process = self.start("--data", data)
        revision = h2.put(self.address, "k", "v")
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = self.start("--data", data, )
        self.assertEqual(h2.get(self.address, "k"), (b"v", revision))
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(20 * PATIENCE), 0)
