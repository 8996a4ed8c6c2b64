"""A quorum that is lost for good: the plan, the last node goes on alone, and the others cannot come back as they were."""
import unittest

from base import StandAloneTest, assert_converged, h2, put_many, wait_for, wait_voters


def epoch_of(node):
    return node.cluster_status().get("epoch", 0)


class Recover(StandAloneTest):
    def lose_quorum(self, cluster):
        """Two of three are killed; returns (who is left, the others)."""
        hot = cluster.hot()
        left = cluster.warm()
        gone = [n for n in cluster.nodes if n is not left]
        self.assertIn(hot, gone)
        for n in gone:
            n.kill()
        wait_for("the one that is left knows of no hot node", lambda: not left.cluster_status().get("hot_node"))
        return left, gone

    def apply(self, cluster, left, *args):
        return cluster.hwctl("recover", "--apply", "--survivor", left.name, "--timeout", "20000", *args,
                             endpoints=left.client)

    def test_plan_apply_and_the_others_come_back_as_fresh_nodes(self):
        cluster = self.make()
        cluster.wait_registered()
        put_many(cluster.hot(), "kept/", 40)
        assert_converged(self, cluster.nodes)
        before = epoch_of(cluster.hot())
        left, gone = self.lose_quorum(cluster)
        ids = {n.name: None for n in gone}

        out = self.ok(cluster.hwctl("recover", endpoints=left.client))
        self.assertIn("goes on", out)
        self.assertIn("LOST", out)
        for n in gone:
            self.assertIn(n.name, out)
        plan = self.json(cluster.hwctl("recover", "-o", "json", endpoints=left.client))
        self.assertEqual(plan["survivor"], left.name)
        self.assertEqual(sorted(plan["missing_voters"]), sorted(ids))

        self.ok(self.apply(cluster, left))
        self.assertTrue(left.is_hot())
        self.assertGreaterEqual(epoch_of(left), before + 1000000, "an epoch that the others may have reached")
        h2.put(left.client, "after", "1")
        self.assertEqual(h2.get(left.client, "kept/00039")[0], b"v" * 16)
        self.assertIn("recovered", self.ok(cluster.hwctl("history", endpoints=left.client)))

        for n in gone:
            n.start()
        cluster.wait_ready(gone)
        wait_voters(left, [n.name for n in cluster.nodes])
        assert_converged(self, cluster.nodes)
        for n in gone:
            self.assertIn("superseded", n.log_text())
            self.assertEqual(h2.get(n.client, "after")[0], b"1")
        code, _, err = cluster.hwctl("recover")
        self.assertEqual(code, 4, err)
        self.assertIn("not lost", err)

    def test_the_survivor_goes_on_after_a_restart(self):
        cluster = self.make()
        cluster.wait_registered()
        put_many(cluster.hot(), "kept/", 10)
        assert_converged(self, cluster.nodes)
        left, _ = self.lose_quorum(cluster)
        self.ok(self.apply(cluster, left))
        first = epoch_of(left)
        h2.put(left.client, "after", "1")
        left.kill()
        left.start()
        cluster.wait_ready([left])
        wait_for("hot again", left.is_hot)
        self.assertEqual(h2.get(left.client, "after")[0], b"1")
        self.assertGreaterEqual(epoch_of(left), first)

    def test_of_two_survivors_one_is_superseded(self):
        """Recovered one after the other, each alone: when both run they find each other, and the higher number wins."""
        cluster = self.make()
        cluster.wait_registered()
        put_many(cluster.hot(), "kept/", 10)
        assert_converged(self, cluster.nodes)
        for n in cluster.nodes:
            n.kill()
        a, b, c = cluster.nodes
        for n in (a, b):
            n.start()
            wait_for("it has loaded its data", lambda n=n: n.status().get("phase") == "member")
            wait_for("no hot node is known", lambda n=n: not n.cluster_status().get("hot_node"))
            self.ok(self.apply(cluster, n))
            h2.put(n.client, "of", n.name)
            n.kill()
        for n in cluster.nodes:
            n.start()
        wait_for("one of the two is superseded",
                 lambda: sum("superseded" in n.log_text() for n in (a, b)) == 1, 30)
        survivor = next(n for n in (a, b) if "superseded" not in n.log_text())
        cluster.wait_ready()
        wait_voters(survivor, [n.name for n in cluster.nodes])
        assert_converged(self, cluster.nodes)
        self.assertEqual(h2.get(c.client, "of")[0], survivor.name.encode())

    def test_refusals(self):
        cluster = self.make()
        cluster.wait_registered()
        put_many(cluster.hot(), "kept/", 10)
        warm = cluster.warm()
        code, _, err = self.apply(cluster, warm)
        self.assertEqual(code, 4, err)
        self.assertIn("quorum is not lost", err)
        code, _, err = cluster.hwctl("recover", "--apply")
        self.assertEqual(code, 2, err)
        self.assertIn("--survivor", err)
        code, _, err = cluster.hwctl("recover", "--apply", "--survivor", "nobody")
        self.assertNotEqual(code, 0)
        self.assertIn("nobody", err)
        self.assertTrue(warm.is_running())

    def test_a_majority_that_was_given_up_although_it_lived_is_superseded(self):
        """Forced: two clusters for a moment. Who was given up hears of it and joins anew; nobody acts on both."""
        cluster = self.make()
        cluster.wait_registered()
        put_many(cluster.hot(), "kept/", 10)
        assert_converged(self, cluster.nodes)
        survivor = cluster.warm()
        self.ok(self.apply(cluster, survivor, "--force"))
        others = [n for n in cluster.nodes if n is not survivor]
        for n in others:
            wait_for(f"{n.name} is superseded", lambda n=n: "superseded" in n.log_text(), 30)
        cluster.wait_ready()
        wait_voters(survivor, [n.name for n in cluster.nodes])
        assert_converged(self, cluster.nodes)


if __name__ == "__main__":
    unittest.main()
