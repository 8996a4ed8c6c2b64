"""Leases as etcd's clients see them, on every node: their life, their end, and that neither a change of the hot node nor
a stall ends them early or keeps them for ever."""
import re
import signal
import subprocess
import time

from base import (ClusterTest, StandAloneTest, assert_converged, run, wait_for)


def granted(out):
    """The id in what `etcdctl lease grant` prints."""
    return re.match(r"lease ([0-9a-f]+) granted with TTL\((\d+)s\)", out).group(1)


class Leases:
    """Questions to a cluster about leases."""

    def grant(self, ttl, node=None):
        return granted(self.ok(self.cluster.etcdctl("lease", "grant", str(ttl), node=node)))

    def left(self, lease, node=None):
        """(seconds left, granted); (-1, 0) when it is gone."""
        out = self.ok(self.cluster.etcdctl("lease", "timetolive", lease, node=node))
        found = re.search(r"granted with TTL\((\d+)s\), remaining\((-?\d+)s\)", out)
        return (int(found.group(2)), int(found.group(1))) if found else (-1, 0)

    def has(self, key, node=None):
        return self.ok(self.cluster.etcdctl("get", key, node=node)) != ""

    def refused(self, *args, node=None):
        code, out, err = self.cluster.etcdctl(*args, node=node)
        self.assertNotEqual(code, 0, out)
        return err

    def move_hot(self):
        before = self.cluster.hot()
        wait_for("a switchover", lambda: self.cluster.hwctl("switchover", "--timeout", "15000")[0] == 0)
        self.assertIsNot(self.cluster.hot(), before)


class OnEveryNode(ClusterTest, Leases):
    EXTRA = {"log": {"level": "info"}}

    def test_grant_keep_alive_revoke(self):
        for n in self.cluster.nodes:
            lease = self.grant(60, n)
            self.ok(self.cluster.etcdctl("put", "k/" + n.name, "v", "--lease=" + lease, node=n))
            self.ok(self.cluster.etcdctl("put", "k/more/" + n.name, "v", "--lease=" + lease, node=n))
            for each in self.cluster.nodes:
                left, whole = self.left(lease, each)
                self.assertEqual(whole, 60)
                self.assertIn(left, range(50, 61))
                self.assertIn(lease, self.ok(self.cluster.etcdctl("lease", "list", node=each)))
                out = self.ok(self.cluster.etcdctl("lease", "keep-alive", "--once", lease, node=each))
                self.assertIn("keepalived with TTL(60)", out)
            out = self.ok(self.cluster.etcdctl("lease", "timetolive", lease, "--keys", node=n))
            self.assertIn(f"attached keys([k/more/{n.name} k/{n.name}])", out)
            self.assertIn("revoked", self.ok(self.cluster.etcdctl("lease", "revoke", lease, node=n)))
            for each in self.cluster.nodes:
                self.assertFalse(self.has("k/" + n.name, each))
                self.assertEqual(self.left(lease, each), (-1, 0))
            self.assertIn("etcdserver: requested lease not found", self.refused("lease", "revoke", lease, node=n))
            code, _, err = self.cluster.etcdctl("lease", "keep-alive", "--once", lease, node=n)
            self.assertNotEqual(code, 0)
            self.assertIn("requested lease not found", err)

    def test_bad_times_and_ids(self):
        for n in self.cluster.nodes:
            self.assertIn("cannot be negative: -5", self.refused("lease", "grant", "--", "-5", node=n))
            self.assertIn("etcdserver: too large lease TTL", self.refused("lease", "grant", "9000000001", node=n))
            self.grant(9000000000, n)
            out = self.ok(self.cluster.etcdctl("lease", "grant", "0", node=n))
            self.assertIn("TTL(1s)", out)  # raised to the least
            self.assertIn("requested lease not found", self.refused("put", "x", "y", "--lease=4d2", node=n))
        self.assertEqual(self.cluster.hwctl("lease", "grant", "30", "--id", "77")[0], 0)
        code, _, err = self.cluster.hwctl("lease", "grant", "30", "--id", "77")
        self.assertEqual(code, 4)
        self.assertIn("etcdserver: lease already exists", err)

    def test_hwctl(self):
        answer = self.json(self.cluster.hwctl("lease", "grant", "30", "-o", "json"))
        lease = str(answer["ID"])
        self.assertEqual(answer["TTL"], 30)
        self.assertGreater(answer["ID"], 0)
        self.ok(self.cluster.hwctl("put", "h/1", "v", "--lease", lease))
        self.assertIn("s again", self.ok(self.cluster.hwctl("lease", "keep-alive", lease, "--once")))
        out = self.ok(self.cluster.hwctl("lease", "timetolive", hex(answer["ID"]), "--keys"))
        self.assertIn("left of 30 s\nh/1\n", out)
        self.assertIn({"ID": answer["ID"]}, self.json(self.cluster.hwctl("lease", "list", "-o", "json"))["leases"])
        self.assertIn(hex(answer["ID"]), self.ok(self.cluster.hwctl("lease", "list")))
        self.ok(self.cluster.hwctl("lease", "revoke", lease))
        self.assertFalse(self.has("h/1"))
        for command in (["revoke", lease], ["timetolive", lease], ["keep-alive", lease, "--once"]):
            self.assertEqual(self.cluster.hwctl("lease", *command)[0], 4, command)
        self.assertEqual(self.cluster.hwctl("lease", "revoke", "-x")[0], 2)
        self.assertEqual(self.cluster.hwctl("lease", "grant", "0")[0], 2)

    def test_the_end_deletes_the_keys_in_one_revision(self):
        warm = self.cluster.warm()
        lease = self.grant(2, warm)
        for i in range(3):
            self.ok(self.cluster.etcdctl("put", f"end/{i}", "v", "--lease=" + lease, node=warm))
        self.ok(self.cluster.etcdctl("put", "end/1", "mine now", node=warm))  # detached
        before = self.json(self.cluster.etcdctl("get", "end/", "--prefix", "-w", "json"))
        began = time.monotonic()
        wait_for("the keys are gone", lambda: not self.has("end/0", warm), 10)
        self.assertGreater(time.monotonic() - began, 1.0)
        after = self.json(self.cluster.etcdctl("get", "end/", "--prefix", "-w", "json"))
        self.assertEqual(len(before["kvs"]), 3)
        self.assertEqual(len(after["kvs"]), 1)
        self.assertEqual(after["header"]["revision"], before["header"]["revision"] + 1)
        old = self.ok(self.cluster.etcdctl("get", "end/", "--prefix", "--keys-only",
                                           f"--rev={before['header']['revision']}"))
        self.assertIn("end/0", old)

    def test_keep_alive_goes_on_through_switchovers(self):
        lease = self.grant(3)
        keepers = [subprocess.Popen(["etcdctl", "--endpoints", n.client, "lease", "keep-alive", lease],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={"ETCDCTL_API": "3"})
                   for n in self.cluster.nodes]
        try:
            self.ok(self.cluster.etcdctl("put", "kept", "v", "--lease=" + lease))
            end = time.monotonic() + 8
            while time.monotonic() < end:
                self.move_hot()
                self.assertTrue(self.has("kept"))
                time.sleep(1.5)
        finally:
            for k in keepers:
                k.kill()
                k.communicate()
        wait_for("it ends without its owners", lambda: not self.has("kept"), 15)

    def test_z_all_nodes_agree(self):
        assert_converged(self, self.cluster.nodes)


class Changes(StandAloneTest, Leases):
    def test_kill_of_the_hot_node_neither_ends_nor_renews_for_ever(self):
        self.cluster = self.make(3)
        lease = self.grant(12)
        self.ok(self.cluster.etcdctl("put", "k", "v", "--lease=" + lease))
        lefts = []
        began = time.monotonic()
        for _ in range(2):
            # a third of the time is used, and written down within moments after that
            use_until = self.left(lease)[0] - 6 if lefts else 7
            wait_for("time passes", lambda: self.left(lease)[0] <= use_until, 15, every=0.2)
            time.sleep(1.5)
            before = self.left(lease)[0]
            old = self.cluster.hot()
            old.kill()
            new = self.cluster.hot()
            self.assertIsNot(new, old)
            lefts.append(self.left(lease, new)[0])
            self.assertGreaterEqual(lefts[-1], before - 3, "gone early")
            self.assertTrue(self.has("k", new))
            old.start()
            self.cluster.wait_ready([old])
            if lefts[-1] < 7:
                break
        self.assertLess(lefts[-1], 11, "begun anew")
        wait_for("it ends", lambda: not self.has("k"), 30)
        self.assertGreater(time.monotonic() - began, 11)
        self.assertLess(time.monotonic() - began, 12 + 14)

    def test_remaining_time_falls_over_two_switchovers(self):
        self.cluster = self.make(3)
        self.cluster.wait_registered()
        lease = self.grant(30)
        lefts = [30]
        for want in (18, 7):
            wait_for("time passes", lambda: self.left(lease)[0] <= want, 30, every=0.2)
            self.move_hot()
            lefts.append(self.left(lease)[0])
        self.assertTrue(lefts[0] > lefts[1] > lefts[2] > 0, lefts)
        self.assertLess(lefts[2], 18, lefts)

    def test_changes_every_two_seconds_do_not_keep_a_lease(self):
        """Tenures that are all shorter than a third of its time."""
        self.cluster = self.make(3)
        self.cluster.wait_registered()
        for change in (self.move_hot, self.kill_hot):
            lease = self.grant(10)
            began = time.monotonic()
            while self.left(lease)[0] >= 0:
                self.assertLess(time.monotonic() - began, 30, change)
                time.sleep(2)
                change()
            self.assertGreater(time.monotonic() - began, 9.5, change)

    def kill_hot(self):
        old = self.cluster.hot()
        old.kill()
        self.assertIsNot(self.cluster.hot(), old)
        old.start()
        self.cluster.wait_ready([old])

    def test_a_stopped_process_finds_its_leases(self):
        self.cluster = self.make(1, cluster={"voters": 1})
        node = self.cluster.hot()
        leases = [self.grant(3) for _ in range(10)]
        node.process.send_signal(signal.SIGSTOP)
        time.sleep(5)
        node.process.send_signal(signal.SIGCONT)
        listed = self.ok(self.cluster.etcdctl("lease", "list"))
        for lease in leases:
            self.assertIn(lease, listed)
            self.assertIn("keepalived", self.ok(self.cluster.etcdctl("lease", "keep-alive", "--once", lease)))
        wait_for("they end", lambda: "found 0 leases" in self.ok(self.cluster.etcdctl("lease", "list")), 15)

    def test_a_stopped_hot_node_does_not_end_leases_of_the_others(self):
        self.cluster = self.make(3)
        hot = self.cluster.hot()
        others = [n for n in self.cluster.nodes if n is not hot]
        leases = [self.grant(4, others[0]) for _ in range(10)]
        hot.process.send_signal(signal.SIGSTOP)
        try:
            wait_for("another hot node", lambda: any(n.is_hot() for n in others))
            end = time.monotonic() + 5
            while time.monotonic() < end:
                for lease in leases:
                    self.ok(run("etcdctl", "--endpoints", others[0].client, "lease", "keep-alive", "--once", lease,
                                env={"ETCDCTL_API": "3"}))
        finally:
            hot.process.send_signal(signal.SIGCONT)
        listed = self.ok(self.cluster.etcdctl("lease", "list", node=others[1]))
        for lease in leases:
            self.assertIn(lease, listed)
        assert_converged(self, self.cluster.nodes)

    def test_all_nodes_killed_at_once(self):
        self.cluster = self.make(3)
        lease = self.grant(5)
        self.ok(self.cluster.etcdctl("put", "k", "v", "--lease=" + lease))
        for n in self.cluster.nodes:
            n.kill()
        time.sleep(6)
        self.cluster.start()
        self.assertTrue(self.has("k"))  # nobody could renew it
        self.assertEqual(self.left(lease)[1], 5)
        wait_for("it ends", lambda: not self.has("k"), 15)
