"""Bad days of watches, leases, transactions and limits: clients that do not read, clocks that jump, values that are not
known, bounds that are reached in the middle of something."""
import os
import re
import resource
import socket
import struct
import time
import unittest

import compat
import h2
from base import HWCTL, PATIENCE, ClusterTest, StandAloneTest, assert_converged, run, states, wait_for
from compat import compare, op, otherwise, then
from lib.hotwarm import VARIANT

FAKETIME = "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1".format(os.uname().machine)


def memory_kb(node):
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def message(payload):
    return b"\0" + struct.pack(">I", len(payload)) + payload


class Unread:
    """A watch stream whose client takes the headers and one window of data, and then nothing until it is told to."""

    def __init__(self, address, *create):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) + h2.frame(
            h2.HEADERS, h2.END_HEADERS, 1, h2.encode_headers(h2.call_headers("/etcdserverpb.Watch/Watch"))) +
            h2.frame(h2.DATA, 0, 1, message(compat.create(*create))))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def reset(self):
        self.socket.sendall(h2.frame(h2.RST_STREAM, 0, 1, struct.pack(">I", 8)))

    def open_windows(self):
        for stream in (0, 1):
            self.socket.sendall(h2.frame(h2.WINDOW_UPDATE, 0, stream, struct.pack(">I", 2 ** 30)))

    def read(self, until, seconds=60):
        """WatchResponses, until one makes `until` true or the stream ends."""
        buffer, body, answers = b"", b"", []
        end = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < end:
            data = self.socket.recv(65536)
            if not data:
                return answers
            buffer += data
            while len(buffer) >= 9 and len(buffer) >= 9 + int.from_bytes(buffer[:3], "big"):
                n, kind, flags = int.from_bytes(buffer[:3], "big"), buffer[3], buffer[4]
                payload, buffer = buffer[9:9 + n], buffer[9 + n:]
                if kind == h2.SETTINGS and not flags & h2.ACK:
                    self.socket.sendall(h2.frame(h2.SETTINGS, h2.ACK, 0))
                elif kind == h2.PING and not flags & h2.ACK:
                    self.socket.sendall(h2.frame(h2.PING, h2.ACK, 0, payload))
                elif kind == h2.DATA:
                    body += payload
                while len(body) >= 5 and len(body) >= 5 + int.from_bytes(body[1:5], "big"):
                    n = int.from_bytes(body[1:5], "big")
                    answers.append(h2.decode(body[5:5 + n]))
                    body = body[5 + n:]
                    if until(answers[-1]):
                        return answers
        raise AssertionError(f"only {len(answers)} answers came")


def event_revisions(answers):
    return [h2.decode(h2.decode(event)[2][0])[3][0] for a in answers for event in a.get(11, [])]


class Watches(ClusterTest):
    def test_a_client_that_never_reads_is_waited_for_and_disturbs_nobody(self):
        node = self.cluster.warm()
        beside = next(n for n in self.cluster.nodes if n not in (node, self.cluster.hot()))
        with h2.Kv(node.client) as kv, Unread(node.client, (1, "u/"), (2, "u0"), (3, kv.put("u/first", "1"))) as u:
            before = memory_kb(node) - memory_kb(beside)
            for i in range(300):
                last = kv.put(f"u/{i % 50}", b"v" * 100000)
            # The state's 30 MB are on both; the watcher adds one bounded queue. The sanitizer keeps what was freed (its
            # quarantine, 256 MB), and this node has sent the writes on, so that there is nothing to measure there.
            if VARIANT != "asan":
                self.assertLess(memory_kb(node) - memory_kb(beside) - before, 20 * 1024)
            u.open_windows()
            got = event_revisions(u.read(lambda a: last in event_revisions([a])))
            self.assertEqual(got, sorted(got))
            self.assertEqual(len(got), 301)

    def test_compaction_while_a_watcher_catches_up(self):
        node = self.cluster.warm()
        with h2.Kv(self.cluster.hot().client) as kv:
            first = kv.put("c/0", "1")
            for i in range(200):
                last = kv.put("c/0", b"v" * 50000)
            wait_for("the node has them", lambda: node.status().get("revision", 0) >= last)
            with Unread(node.client, (1, "c/0"), (3, first)) as u:
                time.sleep(0.5)
                kv.call("Compact", h2.encode((1, last)))
                wait_for("the node knows", lambda: node.status().get("compacted", 0) >= last)
                u.open_windows()
                answers = u.read(lambda a: 4 in a or last in event_revisions([a]))
        got = event_revisions(answers)
        self.assertEqual(got, list(range(first, first + len(got))), "a gap")
        if 4 in answers[-1]:  # canceled
            self.assertEqual(answers[-1][5], [last])
        else:
            self.assertEqual(got[-1], last)

    def test_a_reset_in_the_middle_of_a_fragment(self):
        for node in self.cluster.nodes:
            with h2.Kv(node.client) as kv:
                for _ in range(5):
                    with Unread(node.client, (1, "f/"), (2, "f0"), (8, 1)) as u:
                        kv.call("Txn", h2.encode(*then(*(op("put", (1, f"f/{i}"), (2, b"v" * 140000)) for i in range(10)))))
                        time.sleep(0.05)
                        u.reset()
                        u.socket.sendall(h2.frame(h2.HEADERS, h2.END_HEADERS, 3, h2.encode_headers(h2.call_headers(
                            "/etcdserverpb.Watch/Watch"))) + h2.frame(h2.DATA, 0, 3, message(compat.create((1, "g")))))
                self.assertIsNotNone(kv.get("f/0")[0])
        self.assert_same_processes()

    def test_a_future_revision_on_every_node(self):
        start = h2.put(self.cluster.hot().client, "future", "0")
        streams = [Unread(n.client, (1, "future"), (3, start + 3)) for n in self.cluster.nodes]
        for i in range(1, 5):
            last = h2.put(self.cluster.hot().client, "future", str(i))
        for u in streams:
            got = event_revisions(u.read(lambda a: last in event_revisions([a])))
            self.assertEqual(got, [start + 3, start + 4])
            u.socket.close()


class Transactions(ClusterTest):
    def revisions_and_hashes(self):
        rows = wait_for("all nodes at one index", lambda: states(self.cluster.nodes))
        self.assertEqual(len({(r["revision"], r["state_hash"]) for r in rows}), 1, rows)
        return rows[0]["revision"]

    def test_writes_that_read_what_cannot_be_read_are_refused_whole(self):
        """etcd-io/etcd#18667: members of a cluster must not part over such a transaction."""
        with h2.Kv(self.cluster.hot().client) as kv:
            for i in range(5):
                revision = kv.put("t", str(i))
            kv.call("Compact", h2.encode((1, revision - 1)))
        before = self.revisions_and_hashes()
        entries = self.cluster.hot().status()["applied_index"]
        put = op("put", (1, "t/written"), (2, "1"))
        for node in self.cluster.nodes:
            for bad, text in ((revision + 1000, "future revision"), (revision - 3, "been compacted")):
                read = op("range", (1, "t"), (4, bad))
                for fields in (then(put, read), then(read, put), then(put, op("txn", *then(read))),
                               [compare("none", 0, 0, version=0), *then(put, read)],
                               [compare("none", 1, 0, version=0), *otherwise(put, op("range", (1, "t"), (3, 1), (4, bad)))],
                               then(op("delete", (1, "t")), read)):
                    with h2.Connection(node.client) as c:
                        status, said, _ = c.call("/etcdserverpb.KV/Txn", h2.encode(*fields))
                    self.assertEqual(status, h2.OUT_OF_RANGE, said)
                    self.assertIn(text, said)
        self.assertEqual(self.revisions_and_hashes(), before)
        self.assertEqual(self.cluster.hot().status()["applied_index"], entries, "refused before the log")
        with h2.Kv(self.cluster.warm().client) as kv:
            self.assertEqual(kv.get("t/written"), (None, 0))
            self.assertEqual(kv.put("t/after", "1"), before + 1)

    def test_values_that_are_not_known_are_refused_everywhere(self):
        """Enumerations are numbers on the wire: none may be used before it has been looked at."""
        bad = (7, 2 ** 31 - 1, -1, -2 ** 31)
        before = self.revisions_and_hashes()
        for node in self.cluster.nodes:
            for value in bad:
                reads = [h2.encode((1, "k"), (5, value)), h2.encode((1, "k"), (6, value))]
                compares = [h2.encode(compare("k", value, 0, version=0)), h2.encode(compare("k", 0, value, version=0))]
                calls = [("KV/Range", r) for r in reads] + [("KV/Txn", c) for c in compares]
                calls += [("KV/Txn", h2.encode((2, h2.encode((1, r))), *then(op("put", (1, "e"), (2, "v"))))) for r in reads]
                calls += [("KV/Txn", h2.encode(*then(op("txn", (1, h2.decode(c)[1][0])), op("put", (1, "e"), (2, "v")))))
                          for c in compares]
                calls += [("Maintenance/Alarm", h2.encode((1, value))), ("Maintenance/Alarm", h2.encode((3, value)))]
                for method, payload in calls:
                    with h2.Connection(node.client) as c:
                        status, text, _ = c.call("/etcdserverpb." + method, payload)
                    self.assertEqual(status, h2.INVALID_ARGUMENT, (method, payload, text))
                answers = compat.Endpoint(node.client).watch(compat.create((1, "k"), (5, value)), want=1)
                self.assertEqual(answers[0].get("canceled"), 1, answers)
        self.assertEqual(self.revisions_and_hashes(), before)
        self.assert_same_processes()


class Quota(ClusterTest):
    EXTRA = {"limits": {"state_bytes_max": 8 * 1024 * 1024}}

    def test_the_bound_is_reached_within_a_transaction(self):
        """Each transaction is taken or refused as a whole, whichever of its puts crosses the bound."""
        taken = None
        with h2.Kv(self.cluster.warm().client) as kv:
            for n in range(100):
                try:
                    kv.call("Txn", h2.encode(*then(*(op("put", (1, f"q/{n:03}/{i:03}"), (2, b"v" * 10000)) for i in range(100)))))
                except h2.Refused as e:
                    self.assertEqual(e.status, h2.RESOURCE_EXHAUSTED)
                    taken = n
                    break
            self.assertIsNotNone(taken, "nothing was refused")
            self.assertGreater(taken, 3)
            self.assertEqual(len(kv.range("q/", "q0")), 100 * taken)
            # a transaction that could put is refused whole, one that only deletes is not
            with self.assertRaises(h2.Refused):
                kv.call("Txn", h2.encode(*then(op("delete", (1, "q/000/000")), op("put", (1, "q/x"), (2, "v")))))
            self.assertEqual(len(kv.range("q/", "q0")), 100 * taken)
            kv.call("Txn", h2.encode(*then(op("delete", (1, "q/000/000")))))
        assert_converged(self, self.cluster.nodes)


class Connections(StandAloneTest):
    def test_ten_thousand_connections(self):
        """Of a limit of 5000 per port: those beyond are refused with a line in the log, nobody else notices."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        want = 10000
        if hard < want + 500:
            self.skipTest(f"at most {hard} open files are allowed here (ulimit -Hn)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        cluster = self.make(3, limits={"connections_max": 5000})
        node = cluster.hot()
        before = memory_kb(node)
        kept, longest = [], 0
        with h2.Kv(node.client) as kv:
            for i in range(want):
                s = socket.create_connection(node.client.rsplit(":", 1), timeout=30)
                s.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))
                kept.append(s)
                if i % 250 == 0:
                    began = time.monotonic()
                    revision = kv.put("beside", str(i))
                    self.assertEqual(kv.get("beside"), (str(i).encode(), revision))
                    longest = max(longest, time.monotonic() - began)
            after = memory_kb(node)
            time.sleep(0.5)
            alive = 0
            for s in kept:
                s.setblocking(False)
                try:
                    alive += s.recv(4096) != b""
                except BlockingIOError:
                    alive += 1
                except OSError:
                    pass
            print(f"(10000 connections: {alive} kept, {(after - before) / max(alive, 1):.1f} KiB each, longest put and get "
                  f"{longest * 1000:.0f} ms)", flush=True)
            kv.put("beside", "last")
        self.assertGreater(alive, 4900)
        self.assertLess(alive, 5000)
        self.assertIn("the listener has as many as it may", node.log_text())
        self.assertLess(longest, 2.0 * PATIENCE)
        self.assertLess(after - before, 512 * 1024 * (3 if VARIANT == "asan" else 1))
        self.assertIs(cluster.hot(), node)
        for s in kept:
            s.close()
        wait_for("there is room again", lambda: run(HWCTL, "--endpoints", node.client, "put", "k", "v")[0] == 0)

    def test_few_open_files_leave_room_for_the_log(self):
        cluster = self.make(1, start=False, cluster={"voters": 1})
        node = cluster.nodes[0]
        node.start(prefix=("prlimit", "--nofile=600:600"))
        cluster.wait_ready()
        self.assertIn("the limit of open files is too low", node.log_text())
        sockets = []
        for _ in range(400):
            s = socket.create_connection(node.client.rsplit(":", 1), timeout=30)
            sockets.append(s)
        for s in sockets[200:]:
            s.close()
        for s in sockets[:200]:
            s.close()
        for i in range(300):
            wait_for("a put", lambda i=i: self.put_one(node, i))

    @staticmethod
    def put_one(node, i):
        try:
            return h2.put(node.client, f"k{i}", b"v" * 10000)
        except (OSError, h2.Closed, h2.Refused):
            return 0


@unittest.skipIf(not os.path.exists(FAKETIME), "no libfaketime (Debian package faketime)")
@unittest.skipIf(VARIANT == "asan", "the sanitizer must be the first library")
class Clocks(StandAloneTest):
    def set_clock(self, node, offset):
        path = os.path.join(self.cluster.folder, node.name + ".clock")
        with open(path + ".new", "w", encoding="ascii") as f:
            f.write(offset + "\n")
        os.rename(path + ".new", path)
        return path

    def test_wall_clocks_that_jump_change_nothing(self):
        self.cluster = self.make(3, start=False, log={"level": "info"})
        for n in self.cluster.nodes:
            n.start(prefix=("env", f"LD_PRELOAD={FAKETIME}", f"FAKETIME_TIMESTAMP_FILE={self.set_clock(n, '+0')}",
                            "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"))
        self.cluster.wait_ready()
        hot = self.cluster.hot()
        epoch = hot.status()["epoch"]
        ctl = lambda *args: self.ok(self.cluster.hwctl(*args))  # noqa: E731
        left = lambda lease: self.json(self.cluster.hwctl("lease", "timetolive", lease, "-o", "json"))["TTL"]  # noqa: E731
        ctl("lease", "grant", "60", "--id", "7")
        ctl("put", "kept", "1", "--lease", "7")
        began = time.monotonic()
        for offset in ("+400d", "-400d", "+0"):
            for n in self.cluster.nodes:
                self.set_clock(n, offset)
                ctl("put", "k", "at " + offset)
                ctl("lease", "grant", "30", "--id", str(1000 + hash((offset, n.name)) % 100000))
            time.sleep(1.0)
            self.assertIs(self.cluster.hot(), hot)
            passed = time.monotonic() - began
            self.assertTrue(60 - passed - 4 < left("7") <= 60, (offset, passed, left("7")))
            self.assertIn("kept", ctl("get", "kept"))
        self.assertEqual(hot.status()["epoch"], epoch)
        # a short lease ends when it should, whatever the clock does meanwhile
        began = time.monotonic()
        ctl("lease", "grant", "3", "--id", "8")
        ctl("put", "short", "1", "--lease", "8")
        self.set_clock(hot, "-30d")
        code = lambda: self.cluster.hwctl("get", "short")[0]  # noqa: E731
        time.sleep(1.0)
        self.assertEqual(code(), 0)
        wait_for("the lease ends", lambda: code() == 4, 10)
        self.assertGreater(time.monotonic() - began, 2.5)
        # and a switchover and a failover happen as ever
        for n in self.cluster.nodes:
            self.set_clock(n, "+1000d")
        hot.kill()
        self.assertIsNot(self.cluster.hot(), hot)
        self.assertIn("kept", ctl("get", "kept"))
        years = {int(line[5:9]) for n in self.cluster.nodes for line in n.log_text().splitlines() if line.startswith("time=")}
        self.assertGreater(max(years), time.localtime().tm_year + 1, "the clocks did not move")
        assert_converged(self, [n for n in self.cluster.nodes if n.is_running()])
