"""Watch: etcdctl in all its forms on every node, and streams that outlive the hot node, each event once and in order."""
import base64
import json
import os
import signal
import subprocess
import tempfile
import threading
import time

import h2
from base import HWCTL, ClusterTest, StandAloneTest, put_many, run, wait_for

ENV = {**os.environ, "ETCDCTL_API": "3"}


class Watching:
    """A watching command in the background; its output so far as text."""

    def __init__(self, *argv, stdin=None):
        self.out = tempfile.NamedTemporaryFile("w+", prefix="hotwarm-watch-", suffix=".out")
        self.err = tempfile.NamedTemporaryFile("w+", prefix="hotwarm-watch-", suffix=".err")
        self.process = subprocess.Popen(argv, stdout=self.out, stderr=self.err, env=ENV,
                                        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL, text=True)
        if stdin is not None:
            self.process.stdin.write(stdin)
            self.process.stdin.flush()

    def text(self):
        with open(self.out.name, errors="replace") as f:
            return f.read()

    def errors(self):
        with open(self.err.name, errors="replace") as f:
            return f.read()

    def wait(self, want, seconds=20):
        """Until the output is, or contains, what is wanted."""
        def is_there():
            if self.process.poll() is not None and want not in self.text():
                raise AssertionError(f"ended with {self.process.returncode}: {self.text()}{self.errors()}")
            return want in self.text()
        try:
            return wait_for(f"output {want!r}", is_there, seconds)
        except Exception as e:
            raise AssertionError(f"{e}; it is: {self.text()!r} {self.errors()!r}") from e

    def interrupt(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        if self.process.stdin:
            self.process.stdin.close()
        try:
            code = self.process.wait(20)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.out.close()
            self.err.close()
        return code


def etcdctl_watch(node, *args, **kwargs):
    return Watching("etcdctl", "--endpoints", node.client, "watch", *args, **kwargs)


def hwctl_watch(endpoints, *args):
    return Watching(HWCTL, "--endpoints", endpoints, "watch", *args)


def hwctl_events(watching):
    """[(type, key, value, revision)] of hwctl watch -o json."""
    events = []
    for line in watching.text().splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            break  # the last line is being written
        for e in answer["events"]:
            events.append((e["type"], base64.b64decode(e["kv"]["key"]).decode(),
                           base64.b64decode(e["kv"]["value"]).decode(), e["kv"]["mod_revision"]))
    return events


def revision_of(node):
    return json.loads(run("etcdctl", "--endpoints", node.client, "-w", "json", "get", "none", env=ENV)[1])["header"]["revision"]


class EtcdctlWatch(ClusterTest):
    def write(self, *args, stdin=None):
        return self.ok(self.cluster.etcdctl(*args, node=self.cluster.hot(), stdin=stdin))

    def until_watching(self, watching, key):
        """An etcdctl says nothing when its watch stands: write a mark until one comes back."""
        def is_seen():
            self.write("put", key, "mark")
            return "mark" in watching.text()
        wait_for(f"the watch of {key} stands", is_seen, every=0.05)
        return watching

    def test_a_key_on_every_node(self):
        watching = [self.until_watching(etcdctl_watch(n, "a/key"), "a/key") for n in self.cluster.nodes]
        self.write("put", "a/other", "no")
        self.write("put", "a/key", "one")
        self.write("del", "a/key")
        self.write("put", "a/key", "end")
        for w in watching:
            w.wait("PUT\na/key\none\nDELETE\na/key\n\nPUT\na/key\nend\n")
            self.assertNotIn("other", w.text())
            w.interrupt()

    def test_b_prefix_range_and_prev_kv(self):
        for i, n in enumerate(self.cluster.nodes):
            p = f"b{i}/"
            self.write("put", p + "x", "0")
            by_prefix = self.until_watching(etcdctl_watch(n, "--prefix", "--prev-kv", p), p + "mark")
            by_range = self.until_watching(etcdctl_watch(n, p + "x", p + "z"), p + "x")
            self.write("put", p + "x", "1")
            self.write("txn", stdin=f"\nput {p}y 2\nput {p}z 3\n\n\n")
            self.write("del", p, "--prefix")
            by_prefix.wait(f"PUT\n{p}x\nmark\n{p}x\n1\n")
            by_prefix.wait(f"PUT\n{p}y\n2\nPUT\n{p}z\n3\n")
            by_prefix.wait(f"DELETE\n{p}y\n2\n{p}y\n\nDELETE\n{p}z\n3\n{p}z\n\n")
            by_range.wait(f"PUT\n{p}x\n1\nPUT\n{p}y\n2\nDELETE\n{p}x\n\nDELETE\n{p}y\n\n")
            self.assertNotIn(p + "z", by_range.text())
            by_prefix.interrupt()
            by_range.interrupt()

    def test_c_from_a_revision(self):
        hot = self.cluster.hot()
        start = revision_of(hot) + 1
        for i in range(5):
            self.write("put", "c/key", f"v{i}")
        for n in self.cluster.nodes:
            w = etcdctl_watch(n, f"--rev={start}", "c/key")
            w.wait("".join(f"PUT\nc/key\nv{i}\n" for i in range(5)))
            w.interrupt()
            w = etcdctl_watch(n, f"--rev={start + 2}", "c/key")
            w.wait("PUT\nc/key\nv2\nPUT\nc/key\nv3\nPUT\nc/key\nv4\n")
            self.assertNotIn("v1", w.text())
            w.interrupt()

    def test_d_interactive(self):
        for n in self.cluster.nodes:
            w = etcdctl_watch(n, "-i", stdin="watch d/one\nwatch --prefix d/two/\n")
            self.until_watching(w, "d/one")
            wait_for("the second stands", lambda: (self.write("put", "d/two/m", "marktwo"), "marktwo" in w.text())[1],
                     every=0.05)
            self.write("put", "d/one", "1st")
            self.write("put", "d/two/x", "2nd")
            w.wait("PUT\nd/one\n1st\n")
            w.wait("PUT\nd/two/x\n2nd\n")
            w.interrupt()

    def test_e_json_has_etcds_fields(self):
        w = Watching("etcdctl", "--endpoints", self.cluster.warm().client, "-w", "json", "watch", "e/key")
        self.until_watching_json(w)
        self.write("put", "e/key", "value")
        w.wait(base64.b64encode(b"value").decode())
        last = json.loads(w.text().splitlines()[-1])
        self.assertEqual(last["Events"][0]["kv"]["mod_revision"], last["Header"]["revision"])
        w.interrupt()

    def until_watching_json(self, w):
        wait_for("the watch stands", lambda: (self.write("put", "e/key", "mark"), "Events" in w.text())[1], every=0.05)

    def test_f_hwctl(self):
        start = str(revision_of(self.cluster.hot()) + 1)
        w = hwctl_watch(self.cluster.endpoints(), "f/", "--prefix", "--prev-kv", "--rev", start)
        self.write("put", "f/a", "1")
        self.write("put", "f/a", "2")
        self.write("del", "f/a")
        w.wait(" PUT f/a 1\n")
        w.wait(" PUT f/a 2  before: 1\n")
        w.wait(" DELETE f/a  before: 2\n")
        self.assertEqual(w.interrupt(), 0)
        code, _, err = self.cluster.hwctl("watch", "k", "--prefix", "--from-key")
        self.assertEqual(code, 2, err)

    def test_z_compacted(self):
        start = revision_of(self.cluster.hot())
        for i in range(5):
            self.write("put", "z/key", str(i))
        self.write("compaction", str(start + 4))
        for n in self.cluster.nodes:
            wait_for("the node knows", lambda n=n: n.status().get("compacted", 0) >= start + 4)
            w = etcdctl_watch(n, f"--rev={start}", "z/key")
            wait_for("it is told", lambda w=w: "required revision has been compacted" in w.text() + w.errors())
            w.interrupt()
            w = etcdctl_watch(n, f"--rev={start + 4}", "z/key")
            w.wait("PUT\nz/key\n3\nPUT\nz/key\n4\n")
            w.interrupt()
            code, _, err = run(HWCTL, "--endpoints", n.client, "watch", "z/key", "--rev", str(start))
            self.assertEqual(code, 4, err)
            self.assertIn("compacted", err)


class Writer(threading.Thread):
    """Puts numbered values until told to stop; what was acknowledged must be seen, what was not may be."""

    def __init__(self, cluster, key):
        super().__init__(daemon=True)
        self.cluster, self.key = cluster, key
        self.acknowledged, self.sent = [], 0
        self.is_over = threading.Event()

    def run(self):
        at = 0
        while not self.is_over.is_set():
            node = self.cluster.nodes[at % len(self.cluster.nodes)]
            if not node.is_running():
                at += 1
                continue
            try:
                self.sent += 1
                h2.put(node.client, self.key, str(self.sent), timeout=3.0)
                self.acknowledged.append(self.sent)
            except (OSError, h2.Closed, h2.Refused):
                at += 1
                time.sleep(0.02)

    def end(self):
        self.is_over.set()
        self.join(30)


class WatchAcrossChanges(StandAloneTest):
    def check(self, events, writer):
        """Every acknowledged value once, in order, by rising revisions."""
        values = [int(v) for _, _, v, _ in events]
        revisions = [r for *_, r in events]
        self.assertEqual(revisions, sorted(set(revisions)), "revisions repeat or fall")
        self.assertEqual(values, sorted(set(values)), "events repeat or are out of order")
        missing = set(writer.acknowledged) - set(values)
        self.assertFalse(missing, f"acknowledged, not seen: {sorted(missing)[:10]}")
        self.assertGreater(len(values), 20)

    def settled(self, watching, writer):
        writer.end()
        last = str(writer.acknowledged[-1])
        wait_for("the last event", lambda: any(e[2] == last for e in hwctl_events(watching)))

    def start(self, cluster, nodes):
        watching = [hwctl_watch(n if isinstance(n, str) else n.client, "w/key", "--rev", "1", "-o", "json") for n in nodes]
        writer = Writer(cluster, "w/key")
        writer.start()
        for w in watching:
            wait_for("events come", lambda w=w: len(hwctl_events(w)) > 10)
        return watching, writer

    def test_kill_of_the_hot_node(self):
        cluster = self.make()
        hot = cluster.hot()
        survivors = [n for n in cluster.nodes if n is not hot]
        watching, writer = self.start(cluster, survivors)
        plain = etcdctl_watch(survivors[0], "--rev=1", "w/key")
        before = len(writer.acknowledged)
        hot.kill()
        wait_for("writes go on", lambda: len(writer.acknowledged) > before + 50)
        for w in watching:
            self.settled(w, writer)
            self.assertNotIn("lost", w.errors())  # one stream, uninterrupted
            self.check(hwctl_events(w), writer)
        plain.wait(f"PUT\nw/key\n{writer.acknowledged[-1]}\n")
        seen = [int(v) for v in plain.text().split("PUT\nw/key\n")[1:]]
        self.assertEqual(seen, [int(v) for _, _, v, _ in hwctl_events(watching[0])])
        for w in (*watching, plain):
            w.interrupt()

    def test_switchover(self):
        cluster = self.make()
        cluster.wait_registered()
        watching, writer = self.start(cluster, cluster.nodes)
        for _ in range(2):
            before = len(writer.acknowledged)
            self.ok(cluster.hwctl("switchover", "--timeout", "15000"))
            wait_for("writes go on", lambda: len(writer.acknowledged) > before + 30)
        for w in watching:
            self.settled(w, writer)
            self.assertNotIn("lost", w.errors())
            self.check(hwctl_events(w), writer)
            w.interrupt()

    def test_hwctl_goes_on_at_the_next_endpoint(self):
        cluster = self.make()
        watching, writer = self.start(cluster, [cluster.endpoints()])
        cluster.nodes[0].kill()
        before = len(writer.acknowledged)
        wait_for("writes go on", lambda: len(writer.acknowledged) > before + 50)
        self.settled(watching[0], writer)
        self.assertIn("lost", watching[0].errors())
        self.check(hwctl_events(watching[0]), writer)
        watching[0].interrupt()

    def test_a_node_that_is_rebuilt(self):
        """A stopped process loses the log that it lacks; its stream stays, and gets what happened from the new state."""
        cluster = self.make(raft={"snapshot_threshold": 64, "snapshot_trailing": 64},
                            image={"checkpoint_interval_ms": 20})
        lagging = cluster.warm()
        put_many(cluster.hot(), "r/", 10)
        w = hwctl_watch(lagging.client, "r/", "--prefix", "--rev", "1", "-o", "json")
        # The client's own keep-alive would give the silent node up; etcdctl has none.
        plain = etcdctl_watch(lagging, "--prefix", "--rev=1", "r/")
        plain.wait("r/00009\n")
        lagging.process.send_signal(signal.SIGSTOP)
        try:
            put_many(cluster.hot(), "r/more/", 1500)
        finally:
            lagging.process.send_signal(signal.SIGCONT)
        wait_for("the node has an image", lambda: "image installed" in lagging.log_text() and lagging.is_ready(), 40)
        plain.wait("r/more/01499\n", 40)
        put_many(cluster.hot(), "r/last/", 1)
        plain.wait("r/last/00000\n")
        keys = [k for k in plain.text().split("\n") if k.startswith("r/")]
        self.assertEqual(keys, [f"r/{i:05}" for i in range(10)] + [f"r/more/{i:05}" for i in range(1500)] + ["r/last/00000"])
        wait_for("hwctl has all", lambda: len(hwctl_events(w)) == len(keys), 40)
        self.assertEqual([k for _, k, _, _ in hwctl_events(w)], keys)
        plain.interrupt()
        w.interrupt()
