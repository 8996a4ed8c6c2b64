"""An image on its way to a node: what happens when one of the two is killed in the middle."""
import os
import re

import h2
from base import StandAloneTest, assert_converged, put_many, wait_for

SLOW = {"raft": {"snapshot_threshold": 64, "snapshot_trailing": 32},
        "image": {"transfer_rate_mb": 1, "transfer_chunk_bytes": 16384, "checkpoint_interval_ms": 20}}
KEYS, SIZE = 600, 8000


class Interrupted(StandAloneTest):
    """A fourth node, which is no voter, fetches an image of about 5 MB at 1 MB/s."""

    def begin(self):
        cluster = self.make(**SLOW)
        cluster.wait_registered()
        put_many(cluster.hot(), "big/", KEYS, SIZE)
        assert_converged(self, cluster.nodes)
        node = cluster.add_node("n4", join=cluster.nodes[:3])
        node.start()
        wait_for("a part is there", lambda: self.received(node) > 1000000, 30)
        self.assertIn("rebuilding", cluster.hwctl("status", endpoints=node.client)[1])
        self.assertRegex(node.log_text(), r'msg="image arriving" percent=\d+ received=\d+ total=\d+')
        return cluster, node

    @staticmethod
    def received(node):
        return node.status().get("rebuild_done_bytes", 0)

    def ends_well(self, cluster, node):
        cluster.wait_ready([node])
        assert_converged(self, cluster.nodes)
        with h2.Kv(node.client) as kv:
            self.assertEqual(len(kv.range("big/", "big0")), KEYS)
        self.assertEqual(os.listdir(os.path.join(node.data, "incoming")), [])

    def test_the_receiver_is_killed_and_goes_on(self):
        cluster, node = self.begin()
        node.kill()
        part = os.path.getsize(os.path.join(node.data, "incoming", "image.part"))
        self.assertGreater(part, 500000)
        at = len(node.log_text())
        node.start()
        self.ends_well(cluster, node)
        said = re.search(r'msg="going on with an image" from=\w+ received=(\d+) total=(\d+)', node.log_text()[at:])
        self.assertIsNotNone(said, node.log_text()[at:])
        self.assertEqual(int(said[1]), part)
        self.assertNotIn('msg="fetching an image"', node.log_text()[at:])

    def test_the_source_is_killed_and_another_one_is_asked(self):
        cluster, node = self.begin()
        source = re.search(r'msg="fetching an image" from=(\w+)', node.log_text())[1]
        victim = next(n for n in cluster.nodes if n.status().get("id") == source)
        self.assertFalse(victim.is_hot(), "a warm node is the source where there is one")
        victim.kill()
        at = len(node.log_text())
        wait_for("another source", lambda: 'msg="fetching an image"' in node.log_text()[at:], 30)
        other = re.search(r'msg="fetching an image" from=(\w+) received=0', node.log_text()[at:])
        self.assertIsNotNone(other, node.log_text()[at:])
        self.assertNotEqual(other[1], source)
        victim.start()
        cluster.wait_ready()
        self.ends_well(cluster, node)

    def test_a_part_of_a_copy_that_is_gone_is_begun_anew(self):
        cluster, node = self.begin()
        node.kill()
        path = os.path.join(node.data, "incoming", "image.part.from")
        with open(path) as f:
            text = f.read()
        with open(path, "w") as f:
            f.write(text.replace("token=", "token=0"))
        at = len(node.log_text())
        node.start()
        self.ends_well(cluster, node)
        self.assertRegex(node.log_text()[at:], r'msg="fetching an image" from=\w+ received=0')
