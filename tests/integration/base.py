"""What the integration tests share: a cluster per class, and questions to it."""
import hashlib
import json
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import h2  # noqa: E402
from lib.hotwarm import (ROOT, HWAGENT, HWCTL, HWLOAD, PATIENCE, Cluster, Failed, Node, free_ports, http_get,  # noqa: E402,F401
                         run, wait_for)

BUG_SIGNS = re.compile(r"ERROR: (Address|Leak)Sanitizer|runtime error:|assertion failed|Assertion `")


def close(cluster, check=True):
    """Stop what still runs; nodes that were killed do not count. A clean stop ends with 0."""
    if cluster in Cluster.live:
        Cluster.live.remove(cluster)
    codes = {}
    for n in cluster.nodes:
        if n.is_running():
            codes[n.name] = n.stop()
    bugs = [f"{n.name}: {line}" for n in cluster.nodes if os.path.exists(n.log)
            for line in n.log_text().splitlines() if BUG_SIGNS.search(line)]
    if bugs:
        raise Failed(f"bugs in the logs below {cluster.folder}:\n" + "\n".join(bugs[:10]))
    if check and any(codes.values()):
        raise Failed(f"exit codes of SIGTERM: {codes}; logs in {cluster.folder}")
    cluster.__exit__(None, None, None)


class ClusterTest(unittest.TestCase):
    """One cluster for all tests of the class. A node that ended without having been told to is a failure."""

    COUNT = 3
    EXTRA = {}

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(cls.COUNT, **cls.EXTRA)

    @classmethod
    def tearDownClass(cls):
        close(cls.cluster)

    def setUp(self):
        self.pids = {n.name: n.process.pid for n in self.cluster.nodes if n.is_running()}

    def tearDown(self):
        for n in self.cluster.nodes:
            if n.process is not None and not n.is_running() and n.process.returncode not in (0, -9):
                self.fail(f"{n.name} ended with {n.process.returncode}:\n" + "\n".join(n.log_lines(5)))

    def assert_same_processes(self):
        for n in self.cluster.nodes:
            self.assertTrue(n.is_running(), f"{n.name} has ended: {n.log_lines(5)}")
            self.assertEqual(n.process.pid, self.pids[n.name])

    def ok(self, result):
        """stdout of a command that must succeed."""
        code, out, err = result
        self.assertEqual(code, 0, f"exit {code}\n{out}{err}")
        return out

    def json(self, result):
        return json.loads(self.ok(result))


class StandAloneTest(unittest.TestCase):
    """Tests that make clusters of their own."""

    def make(self, count=3, **kwargs):
        cluster = Cluster(count, **kwargs)
        self.addCleanup(self._close, cluster)
        return cluster

    def _close(self, cluster):
        failed = any(error for _, error in getattr(self._outcome, "errors", [])) or \
            len(self._result_failures()) > 0
        if failed:
            cluster.__exit__(Failed, None, None)
        else:
            close(cluster, check=False)

    def _result_failures(self):
        result = getattr(self._outcome, "result", None)
        return [t for t, _ in (result.failures + result.errors) if t is self] if result is not None else []

    ok = ClusterTest.ok
    json = ClusterTest.json


def states(nodes):
    """The rows of these nodes once they agree on the applied index, else None."""
    rows = [n.status() for n in nodes]
    return rows if all("applied_index" in r for r in rows) and len({r["applied_index"] for r in rows}) == 1 else None


def assert_converged(test, nodes):
    rows = wait_for("all nodes at one applied index", lambda: states(nodes), 30)
    test.assertEqual(len({r["state_hash"] for r in rows}), 1, f"the states differ: {rows}")
    test.assertEqual(len({r["revision"] for r in rows}), 1)


def member_names(node):
    return sorted(r["name"] for r in node.cluster_status().get("nodes", []))


def voters(node):
    return sorted(r["name"] for r in node.cluster_status().get("nodes", []) if r["role"] == "voter")


def wait_voters(node, names, seconds=40):
    names = sorted(names)
    try:
        wait_for(f"voters {names}", lambda: voters(node) == names, seconds)
    except Failed as e:
        raise Failed(f"{e}; it is: {[(r['name'], r['role'], r['health']) for r in node.cluster_status()['nodes']]}") from e


class Load:
    """hwload in the background; what it was told is written is checked against nodes afterwards."""

    def __init__(self, cluster, seconds, name="load", clients=8, rate=1500, endpoints=None, size=64):
        self.log = os.path.join(cluster.folder, f"{name}.acknowledged")
        self.prefix = f"{name}/"
        self.process = subprocess.Popen(
            [HWLOAD, "write", "--endpoints", endpoints or cluster.endpoints(), "--log", self.log, "--clients",
             str(clients), "--seconds", str(seconds), "--rate", str(rate), "--prefix", self.prefix, "--size", str(size)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for("the load runs", self.acknowledged, 20)

    def acknowledged(self):
        """Lower bound: the log is buffered."""
        return self.process.poll() is not None or (os.path.exists(self.log) and os.path.getsize(self.log) > 0)

    def end(self):
        out, err = self.process.communicate(timeout=60 * PATIENCE)
        if self.process.returncode != 0:
            raise Failed(f"hwload: exit {self.process.returncode}: {out}{err}")
        return json.loads(out)

    def verify(self, test, nodes):
        for n in nodes:
            code, out, err = run(HWLOAD, "verify", "--endpoints", n.client, "--log", self.log, "--prefix", self.prefix)
            test.assertEqual(code, 0, f"verify on {n.name}: {out}{err}")
            test.assertEqual(json.loads(out)["missing"], 0)


def put_many(node, prefix, count, size=16):
    with h2.Kv(node.client) as kv:
        for i in range(count):
            kv.put(f"{prefix}{i:05}", "v" * size)


def checksums(folder):
    """{path: hash} of all files below a folder."""
    out = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as f:
                out[os.path.relpath(path, folder)] = hashlib.sha256(f.read()).hexdigest()
    return out


def switchover(cluster, *args):
    """hwctl switchover, as JSON. A busy disk may be too slow for the handover: then it says so, nothing has moved, and
    it is asked for again."""
    def attempt():
        code, out, err = cluster.hwctl("switchover", *args, "-o", "json", "--timeout", "15000")
        if code not in (0, 6):
            raise Failed(f"switchover {args}: exit {code}: {err}")
        return json.loads(out) if code == 0 else None
    return wait_for("a switchover", attempt, 30)
