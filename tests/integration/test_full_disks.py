"""Full disks of several nodes, or of the hot one, and how the others go on. One full disk of three is in test_bad_days."""
import os
import shutil
import subprocess
import unittest

import h2
from base import Failed, StandAloneTest, assert_converged, run, switchover, wait_for

SMALL_MB = 96


def has_private_mounts():
    return os.geteuid() == 0 and shutil.which("unshare") and run("unshare", "-m", "true")[0] == 0


class SmallDisk:
    """A node whose folder is on a small file system of its own, in a mount namespace that a process keeps open."""

    def __init__(self, test, node):
        self.node = node
        os.mkdir(node.data)
        self.holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", f"mount -t tmpfs -o size={SMALL_MB}m,mode=700 none {node.data} && "
             "echo mounted && exec sleep 1000"], stdout=subprocess.PIPE, text=True)
        test.addCleanup(self.holder.stdout.close)
        test.addCleanup(self.holder.wait)
        test.addCleanup(self.holder.kill)
        test.assertEqual(self.holder.stdout.readline().strip(), "mounted")
        self.filler = f"/proc/{self.holder.pid}/root{node.data}/filler"

    def start(self):
        self.node.start(("nsenter", "-m", "-t", str(self.holder.pid)))

    def fill(self):
        with open(self.filler, "wb") as f:
            try:
                while True:
                    f.write(b"\0" * 65536)
                    f.flush()
            except OSError:
                pass

    def free(self):
        if os.path.exists(self.filler):
            os.remove(self.filler)


@unittest.skipUnless(has_private_mounts(), "needs root and unshare -m")
class FullDisks(StandAloneTest):
    def make_small(self, count):
        """A cluster whose first `count` nodes have small disks."""
        cluster = self.make(start=False, raft={"disk_reserve_mb": 8, "snapshot_threshold": 256, "snapshot_trailing": 128})
        disks = [SmallDisk(self, n) for n in cluster.nodes[:count]]
        for d in disks:
            d.start()
        for n in cluster.nodes[count:]:
            n.start()
        cluster.wait_ready()
        cluster.wait_registered()
        return cluster, disks

    def put_until(self, cluster, prefix, is_enough, count=2000):
        """Puts wherever the hot node is until is_enough(refusals); {key: revision} of what was acknowledged."""
        acknowledged, refusals = {}, []
        for i in range(count):
            hot = next((n for n in cluster.nodes if n.is_running() and n.is_hot()), None)
            key = f"{prefix}{i:05}"
            try:
                if hot is None:
                    raise Failed("no hot node")
                acknowledged[key] = h2.put(hot.client, key, b"x" * 4000)
            except h2.Refused as e:
                refusals.append(f"{e.status} {e.text}")
            except (h2.Closed, OSError, Failed) as e:
                refusals.append(repr(e))
            if is_enough(refusals):
                return acknowledged, refusals
        self.fail(f"not in {count} puts: {refusals[-5:]}")

    def goes_on(self, cluster, acknowledged):
        cluster.wait_ready()

        def put_works():
            try:
                return h2.put(cluster.hot().client, "after", "space")
            except (h2.Refused, h2.Closed, OSError):
                return None
        acknowledged["after"] = wait_for("writes are taken again", put_works, 30)
        assert_converged(self, cluster.nodes)
        for n in cluster.nodes:
            with h2.Kv(n.client) as kv:
                for key, revision in acknowledged.items():
                    self.assertEqual(kv.get(key, serializable=True)[1], revision, f"{key} on {n.name}")

    def test_two_of_three_are_full_and_the_healthy_one_is_hot(self):
        cluster, disks = self.make_small(2)
        healthy = cluster.nodes[2]
        if cluster.hot() is not healthy:
            switchover(cluster, "--to", healthy.name)
        acknowledged = {"before": h2.put(healthy.client, "before", "v")}
        assert_converged(self, cluster.nodes)
        for d in disks:
            d.fill()
        more, refusals = self.put_until(cluster, "full/", lambda refused: len(refused) > 2)
        acknowledged.update(more)
        self.assertTrue(any(r.startswith("8 ") and "space" in r for r in refusals), refusals)
        for n in cluster.nodes:
            if n.is_running():
                self.assertEqual(h2.get(n.client, "before", serializable=True)[0], b"v")
        if healthy.is_hot():
            self.assertEqual(h2.get(healthy.client, "before")[0], b"v", "linearizable reads go on")
        for d in disks:
            d.free()
            if not d.node.is_running():
                d.start()
        self.goes_on(cluster, acknowledged)

    def fail_over(self, leave):
        cluster, (disk,) = self.make_small(1)
        if cluster.hot() is not disk.node:
            switchover(cluster, "--to", disk.node.name)
        acknowledged = {"before": h2.put(disk.node.client, "before", "v")}
        disk.fill()
        more, _ = self.put_until(cluster, "full/", lambda refused: len(refused) > 2 or not disk.node.is_hot())
        acknowledged.update(more)
        leave(cluster, disk.node)
        new = wait_for("a healthy hot node", lambda: next(
            (n for n in cluster.nodes if n is not disk.node and n.is_hot()), None), 20)

        def put_works():
            try:
                return h2.put(new.client, "healthy", "1")
            except (h2.Refused, h2.Closed, OSError):
                return None
        acknowledged["healthy"] = wait_for("the new hot node takes writes while the disk is full", put_works, 20)
        disk.free()
        if not disk.node.is_running():
            disk.start()
        self.goes_on(cluster, acknowledged)

    def test_switchover_from_a_full_hot_node(self):
        def leave(cluster, node):
            if node.is_running() and node.is_hot():
                switchover(cluster)
        self.fail_over(leave)

    def test_the_full_hot_node_is_killed(self):
        def leave(_, node):
            if node.is_running():
                node.kill()
        self.fail_over(leave)
