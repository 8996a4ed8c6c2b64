"""Clusters that cannot come about, or cannot go on: every node says why, and what to do."""
import json
import time

import h2
from base import Node, StandAloneTest, assert_converged, http_get, put_many, wait_for, wait_voters


def reason(node):
    """What /readyz gives as the reason; "" when the node is ready or does not answer."""
    code, body = http_get(node.client, "/readyz")
    return json.loads(body)["reason"] if code == 503 else ""


class Disagreement(StandAloneTest):
    """Lists of initial nodes that differ form nothing."""

    def check(self, cluster, expect):
        """expect: node name -> words that its reason must have."""
        for n in cluster.nodes:
            n.start()
        for n in cluster.nodes:
            for word in expect.get(n.name, []):
                wait_for(f"{n.name} says {word}", lambda n=n, word=word: word in reason(n))
        for n in cluster.nodes:
            if n.name not in expect:
                continue
            self.assertIn("cluster.initial differs", n.log_text())
            self.assertIn("cluster.initial differs", n.status()["health"])
            out = self.ok(cluster.hwctl("status", endpoints=n.client))
            self.assertIn("cluster.initial differs", out)
        self.assertFalse(any(n.is_ready() for n in cluster.nodes))
        self.assertFalse(any("forming a cluster" in n.log_text() for n in cluster.nodes))

    def mend(self, cluster, node):
        node.stop()
        node.write_config(initial=cluster.nodes)
        node.start()
        cluster.wait_ready()
        wait_voters(cluster.hot(), ["n1", "n2", "n3"])

    def test_another_address(self):
        cluster = self.make(start=False)
        n1, n2, n3 = cluster.nodes
        elsewhere = Node(cluster, "n3", 1, 1)
        n2.write_config(initial=[n1, n2, elsewhere])
        self.check(cluster, {"n1": ["'n2'", "'n3' is at " + n3.peer], "n2": ["127.0.0.1:1 here"], "n3": ["'n2'"]})
        self.mend(cluster, n2)

    def test_a_node_that_is_not_in_the_list_of_the_others(self):
        cluster = self.make(start=False)
        n1, n2, n3 = cluster.nodes
        n1.write_config(initial=[n1, n2])
        self.check(cluster, {"n1": ["'n3'", "not here"], "n2": ["'n1'", "not there"], "n3": ["'n1'", "not there"]})
        self.mend(cluster, n1)


class JustFormed(StandAloneTest):
    def test_the_hot_node_has_a_name_from_the_first_moment(self):
        cluster = self.make()  # ready, but not registered yet
        names = {"", *(n.name for n in cluster.nodes)}
        for n in cluster.nodes:
            self.assertIn(n.cluster_status()["hot_node"], names)


class QuorumLost(StandAloneTest):
    def test_two_of_three_nodes_wiped(self):
        cluster = self.make()
        put_many(cluster.hot(), "kept/", 20)
        cluster.wait_registered()
        assert_converged(self, cluster.nodes)
        survivor = cluster.hot()
        lost = [n for n in cluster.nodes if n is not survivor]
        for n in lost:
            n.kill()
        wait_for("it is not hot any more", lambda: not survivor.is_hot())
        for n in lost:
            n.data, n.kept = n.data + ".new", n.data
            n.write_config(initial=cluster.nodes)
            n.start()
        wait_for("the survivor says so", lambda: all(
            w in reason(survivor) for w in ("the quorum is lost: 1 of 3", lost[0].name, lost[1].name, "its data is gone",
                                            "start these nodes with the data")))
        for n in lost:
            wait_for(f"{n.name} says so", lambda n=n: f"{survivor.name} says: the quorum is lost" in reason(n))
            self.assertIn("the quorum is lost", n.status()["health"])
            self.assertRegex(n.log_text(), r"no cluster for this node.*the quorum is lost")
        self.assertIn("the quorum is lost", survivor.status()["health"])
        self.assertIn("the quorum is lost: 1 of 3", survivor.log_text())
        out = self.ok(cluster.hwctl("status", endpoints=survivor.client))
        self.assertIn("the quorum is lost", out)
        for words in (("put", "a", "b"), ("get", "a")):
            began = time.monotonic()
            code, _, err = cluster.hwctl(*words, endpoints=survivor.client)
            self.assertNotEqual(code, 0)
            self.assertIn("the quorum is lost: 1 of 3", err)
            self.assertNotIn("may have been applied", err)
            self.assertLess(time.monotonic() - began, 2)
        code, _, err = cluster.hwctl("put", "a", "b", endpoints=lost[0].client)
        self.assertIn("it has no state to answer from", err)
        self.assertNotIn("may have been applied", err)
        self.assertEqual(h2.get(survivor.client, "kept/00007", serializable=True)[0], b"v" * 16)

        # what they had comes back: all goes on
        for n in lost:
            n.stop()
            n.data = n.kept
            n.write_config(initial=cluster.nodes)
            n.start()
        cluster.wait_ready()
        wait_for("it is said that it is over", lambda: "the quorum is back" in survivor.log_text())
        self.assertEqual(reason(survivor), "")
        h2.put(cluster.hot().client, "kept/after", "1")
        assert_converged(self, cluster.nodes)
