"""What no well-behaved client or peer sends. After each the same process still serves."""
import os
import re
import socket
import struct
import time

import h2
from base import Cluster, ClusterTest, PATIENCE, close, http_get, wait_for

MIB = 1024 * 1024


def message(payload):
    """A message of a call, as gRPC frames it."""
    return b"\0" + struct.pack(">I", len(payload)) + payload


def raw(address, timeout=30.0):
    host, port = address.rsplit(":", 1)
    s = socket.create_connection((host, int(port)), timeout=timeout * PATIENCE)
    return s


def read_all(s):
    """Everything until the other side closes; whether it did so with a reset is of no interest."""
    out = b""
    try:
        while True:
            data = s.recv(65536)
            if not data:
                return out
            out += data
    except ConnectionError:
        return out


class BadInput(ClusterTest):
    def tearDown(self):
        for n in self.cluster.nodes:
            revision = h2.put(n.client, "still-here", self.id())
            self.assertEqual(h2.get(n.client, "still-here"), (self.id().encode(), revision))
        self.assert_same_processes()
        super().tearDown()

    def refused(self, node, method, payload, service="etcdserverpb.KV", **kwargs):
        with h2.Connection(node.client) as c:
            status, text, _ = c.call(f"/{service}/{method}", payload, **kwargs)
            return status, text

    def both_tiers(self):
        return [self.cluster.hot(), self.cluster.warm()]

    # ---- sizes ----

    def test_largest_request_is_taken_and_larger_ones_are_refused(self):
        for n in self.both_tiers():
            value = b"v" * (1536 * 1024 - 100)
            with h2.Kv(n.client) as kv:
                revision = kv.put("large", value)
                self.assertEqual(kv.get("large"), (value, revision))
            for size in (1536 * 1024 + 1, 1900 * 1024):
                self.assertEqual(self.refused(n, "Put", h2.encode((1, "k"), (2, b"v" * size))),
                                 (h2.INVALID_ARGUMENT, "etcdserver: request is too large"))
            self.assertEqual(self.refused(n, "Put", h2.encode((1, b"k" * (1536 * 1024)), (2, "v"))),
                             (h2.INVALID_ARGUMENT, "etcdserver: request is too large"))
            # beyond what a message may be at all: refused by its length, before its bytes are taken
            status, _ = self.refused(n, "Put", h2.encode((1, "k"), (2, b"v" * (20 * MIB))))
            self.assertEqual(status, h2.RESOURCE_EXHAUSTED)
            self.assertEqual(h2.get(n.client, "k"), (None, 0))

    def test_transaction_of_129_operations(self):
        for n in self.both_tiers():
            puts = [(2, h2.encode((2, h2.encode((1, f"txn/{i}"), (2, "v"))))) for i in range(129)]
            self.assertEqual(self.refused(n, "Txn", h2.encode(*puts)),
                             (h2.INVALID_ARGUMENT, "etcdserver: too many operations in txn request"))
            self.assertEqual(h2.get(n.client, "txn/0"), (None, 0))
            with h2.Kv(n.client) as kv:
                kv.call("Txn", h2.encode(*puts[:128]))
                self.assertEqual(kv.get("txn/127")[0], b"v")
                kv.call("DeleteRange", h2.encode((1, "txn/"), (2, "txn0")))

    def test_deeply_nested_transaction(self):
        inner = h2.encode((2, h2.encode((2, h2.encode((1, "deep"), (2, "v"))))))
        for _ in range(2000):
            inner = h2.encode((2, h2.encode((4, inner))))
        status, _ = self.refused(self.cluster.hot(), "Txn", inner)
        self.assertEqual(status, h2.INVALID_ARGUMENT)

    # ---- meaning ----

    def test_errors_of_etcd_word_for_word(self):
        for n in self.both_tiers():
            with h2.Kv(n.client) as kv:
                kv.put("old", "1")
                middle = kv.put("old", "2")
                kv.put("old", "3")
                kv.call("Compact", h2.encode((1, middle)))
            cases = [
                ("Put", h2.encode((2, "v")), h2.INVALID_ARGUMENT, "etcdserver: key is not provided"),
                ("Range", b"", h2.INVALID_ARGUMENT, "etcdserver: key is not provided"),
                ("DeleteRange", b"", h2.INVALID_ARGUMENT, "etcdserver: key is not provided"),
                ("Put", h2.encode((1, "k"), (2, "v"), (5, 1)), h2.INVALID_ARGUMENT, "etcdserver: value is provided"),
                ("Put", h2.encode((1, "k"), (3, 7), (6, 1)), h2.INVALID_ARGUMENT, "etcdserver: lease is provided"),
                ("Put", h2.encode((1, "none"), (5, 1)), h2.INVALID_ARGUMENT, "etcdserver: key not found"),
                ("Put", h2.encode((1, "k"), (2, "v"), (3, 7)), h2.NOT_FOUND, "etcdserver: requested lease not found"),
                ("Range", h2.encode((1, "k"), (5, 9)), h2.INVALID_ARGUMENT, "etcdserver: invalid sort option"),
                ("Range", h2.encode((1, "old"), (4, middle - 1)), h2.OUT_OF_RANGE,
                 "etcdserver: mvcc: required revision has been compacted"),
                ("Range", h2.encode((1, "old"), (4, middle + 100000)), h2.OUT_OF_RANGE,
                 "etcdserver: mvcc: required revision is a future revision"),
                ("Compact", h2.encode((1, middle)), h2.OUT_OF_RANGE,
                 "etcdserver: mvcc: required revision has been compacted"),
                ("Compact", h2.encode((1, 2 ** 62)), h2.OUT_OF_RANGE,
                 "etcdserver: mvcc: required revision is a future revision"),
                ("Txn", h2.encode((2, b"")), h2.INVALID_ARGUMENT, "etcdserver: key not found"),
            ]
            for method, payload, status, text in cases:
                self.assertEqual(self.refused(n, method, payload), (status, text), f"{method} on {n.name}")

    # ---- protobuf and gRPC ----

    def test_malformed_protobuf(self):
        for n in self.both_tiers():
            for junk in (b"\xff", b"\x0a\x7f", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", os.urandom(300),
                         b"\x08" + b"\xff" * 12):
                for method in ("Range", "Put", "DeleteRange", "Txn", "Compact"):
                    status, text = self.refused(n, method, junk)
                    self.assertEqual(status, h2.INVALID_ARGUMENT, f"{method} {junk[:20]!r}: {text}")

    def test_malformed_grpc_frames(self):
        n = self.cluster.hot()
        put = h2.encode((1, "k"), (2, "v"))
        for body in (b"", b"\0\0", message(put)[:-1], b"\0\0\0\0\xff" + put, b"\0\xff\xff\xff\xff" + put,
                     b"\x07" + message(put)[1:], b"\x01" + message(put)[1:], message(put) + message(put)):
            with h2.Connection(n.client) as c:
                c.open("/etcdserverpb.KV/Put")
                c.send_data(body)
                status, text, _ = c.answer()
                self.assertNotEqual(status, h2.OK, body[:20])
                # the connection goes on
                self.assertEqual(c.call("/etcdserverpb.KV/Range", h2.encode((1, "still-here")))[0], h2.OK)

    def test_unknown_method_and_bad_headers(self):
        n = self.cluster.warm()
        with h2.Connection(n.client) as c:
            for path in ("/etcdserverpb.KV/Nothing", "/no.such.Service/Call", "/", "/etcdserverpb.Auth/UserAdd",
                         "/hotwarm.v1.Peer/Forward", "/hotwarm.v1.Peer/Join"):
                self.assertEqual(c.call(path, b"")[0], h2.UNIMPLEMENTED, path)
            self.assertEqual(c.call("/etcdserverpb.KV/Range", h2.encode((1, "still-here")))[0], h2.OK)
        for bad in ({"timeout": "soon"}, {"content_type": "text/html"}, {"method": "GET"}):
            with h2.Connection(n.client) as c:
                c.open("/etcdserverpb.KV/Range", **bad)
                try:
                    c.send_data(message(h2.encode((1, "still-here"))))
                    status, _, _ = c.answer()
                    self.assertNotEqual(status, h2.OK, bad)
                except h2.Closed:
                    pass  # an HTTP status or a reset stream will do too

    def test_calls_that_are_given_up(self):
        n = self.cluster.warm()
        with h2.Connection(n.client) as c:
            for i in range(300):
                stream = c.open("/etcdserverpb.KV/Put")
                c.send(h2.frame(h2.DATA, h2.END_STREAM, stream, message(h2.encode((1, "given-up"), (2, str(i))))))
                c.send(h2.frame(h2.RST_STREAM, 0, stream, struct.pack(">I", 8)))
            try:
                self.assertEqual(c.call("/etcdserverpb.KV/Range", h2.encode((1, "still-here")))[0], h2.OK)
            except h2.Closed:
                pass  # so many resets may also cost the connection

    def test_large_ranges_whose_answers_nobody_takes(self):
        """200 ranges over everything on one connection that opens no window. Others go on as if nothing was."""
        n = self.cluster.hot()
        keys, value = 20000, b"v" * 1000
        with h2.Kv(n.client, timeout=60 * PATIENCE) as kv:
            for start in range(0, keys, 100):
                kv.call("Txn", h2.encode(*((2, h2.encode((2, h2.encode((1, f"many/{i:06}"), (2, value)))))
                                           for i in range(start, start + 100))))
        asked = h2.encode((1, b"\0"), (2, b"\0"))
        calls = b"".join(h2.frame(h2.HEADERS, h2.END_HEADERS, i, h2.encode_headers(
            h2.call_headers("/etcdserverpb.KV/Range"))) + h2.frame(h2.DATA, h2.END_STREAM, i, message(asked))
            for i in range(1, 400, 2))
        with raw(n.client) as s, h2.Kv(n.client) as kv:
            s.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) + calls)
            longest, end, count = 0, time.monotonic() + 3, 0
            while time.monotonic() < end:
                began = time.monotonic()
                revision = kv.put("beside", str(count))
                self.assertEqual(kv.get("beside"), (str(count).encode(), revision))
                longest, count = max(longest, time.monotonic() - began), count + 1
            with open(f"/proc/{n.process.pid}/status", encoding="ascii") as f:
                peak_kb = int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))
        self.assertLess(longest, 1.0 * PATIENCE)
        self.assertGreater(count, 10)
        self.assertLess(peak_kb, 1024 * 1024)
        self.assertIs(self.cluster.hot(), n)
        with h2.Kv(n.client, timeout=60 * PATIENCE) as kv:
            self.assertEqual(len(kv.range("many/", "many0")), keys)
            kv.call("DeleteRange", h2.encode((1, "many/"), (2, "many0")))

    def test_deadline_in_the_past_and_a_tiny_one(self):
        n = self.cluster.warm()
        for timeout in ("1n", "1u"):
            status, _ = self.refused(n, "Range", h2.encode((1, "still-here")), timeout=timeout)
            self.assertIn(status, (h2.OK, h2.DEADLINE_EXCEEDED, h2.UNAVAILABLE))

    # ---- HTTP/2 ----

    def test_http2_garbage(self):
        settings = h2.frame(h2.SETTINGS, 0, 0)
        opened = h2.encode_headers(h2.call_headers("/etcdserverpb.KV/Range"))
        cases = {
            "random bytes": os.urandom(5000),
            "half a preface": h2.PREFACE[:10],
            "a frame that is too long": settings + b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 100,
            "headers that do not decode": settings + h2.frame(h2.HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
            "headers without end": settings + h2.frame(h2.HEADERS, 0, 1, opened) +
            b"".join(h2.frame(h2.CONTINUATION, 0, 1, b"\0\1a\1b" * 2000) for _ in range(200)),
            "data on no stream": settings + h2.frame(h2.DATA, 1, 7, b"hello"),
            "settings with a bad length": h2.frame(h2.SETTINGS, 0, 0, b"12345"),
            "window update of nothing": settings + h2.frame(h2.WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
            "even stream": settings + h2.frame(h2.HEADERS, 5, 2, opened),
            "settings flood": settings * 20000,
            "ping flood": settings + h2.frame(h2.PING, 0, 0, b"12345678") * 20000,
            "a flood of resets": settings + b"".join(
                h2.frame(h2.HEADERS, 4, i, opened) + h2.frame(h2.RST_STREAM, 0, i, b"\0\0\0\x08")
                for i in range(1, 6001, 2)),
        }
        for port in ("client", "peer"):
            for name, data in cases.items():
                with self.subTest(case=name, port=port), raw(getattr(self.cluster.hot(), port)) as s:
                    try:
                        s.sendall(data if name == "half a preface" else h2.PREFACE + data)
                        s.shutdown(socket.SHUT_WR)
                    except OSError:
                        pass  # it closed while we were still talking
                    read_all(s)  # it ends

    # ---- HTTP/1 ----

    def test_http1_garbage(self):
        n = self.cluster.hot()
        cases = [
            (b"GARBAGE\r\n\r\n", rb"HTTP/1\.1 4"),
            (os.urandom(4000), None),
            (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * (2 * MIB) + b"\r\n\r\n", None),
            (b"GET /" + b"a" * MIB + b" HTTP/1.1\r\nhost: x\r\n\r\n", None),
            (b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: 1\r\n" % i for i in range(20000)) + b"\r\n", None),
            (b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", rb"HTTP/1\.1 404"),
            (b"DELETE /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", rb"HTTP/1\.1 405"),
            (b"POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n", rb"HTTP/1\.1 4"),
            (b"POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999\r\n\r\n", rb"HTTP/1\.1 4"),
            (b"POST /livez HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nzzz\r\n", None),
            (b"GET /../../etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", rb"HTTP/1\.1 40"),
        ]
        for request, want in cases:
            with self.subTest(request=request[:40]), raw(n.client) as s:
                try:
                    s.sendall(request)
                    s.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                got = read_all(s)
                if want is not None:
                    self.assertRegex(got, want)
                self.assertNotRegex(got, rb"HTTP/1\.1 (200|5)")

    def test_pipelined_requests_are_answered_in_order(self):
        with raw(self.cluster.hot().client) as s:
            s.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 20 +
                      b"GET /v1/version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            got = read_all(s)
        self.assertEqual(got.count(b"HTTP/1.1 200"), 21)
        self.assertIn(b"etcd_version", got.split(b"HTTP/1.1 200")[-1])

    # ---- connections ----

    def test_slow_loris(self):
        """Connections that send a byte now and then are ended, and others are served meanwhile."""
        n = self.cluster.hot()
        sockets = [raw(n.client) for _ in range(50)]
        for s in sockets:
            s.sendall(b"GET / HTTP/1.1\r\nx: ")
        deadline = time.monotonic() + 60 * PATIENCE
        served, left = 0, list(sockets)
        while left and time.monotonic() < deadline:
            for s in list(left):
                try:
                    s.sendall(b"y")
                    s.setblocking(False)
                    try:
                        is_over = not s.recv(4096)
                    except BlockingIOError:
                        is_over = False
                    finally:
                        s.setblocking(True)
                except OSError:
                    is_over = True
                if is_over:
                    left.remove(s)
            h2.put(n.client, "loris", str(served))
            served += 1
            time.sleep(0.05)
        for s in sockets:
            s.close()
        self.assertEqual(len(left), 0, "slow connections are kept for ever")
        self.assertGreater(served, 0)

    def test_200_silent_connections(self):
        sockets = [raw(address) for n in self.cluster.nodes for address in [n.client] * 200 + [n.peer] * 30]
        try:
            for n in self.cluster.nodes:
                h2.put(n.client, "silent", n.name)
            self.cluster.hot()
        finally:
            for s in sockets:
                s.close()

    def test_connections_that_come_and_go(self):
        n = self.cluster.hot()
        for i in range(300):
            with raw(n.client if i % 2 else n.peer) as s:
                if i % 3 == 0:
                    s.sendall(h2.PREFACE[:i % 24])
                if i % 5 == 0:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset

    # ---- the peer port ----

    def hello(self, node, cluster=None, to=None, address=b"127.0.0.1:1"):
        status = node.cluster_status()
        cluster = int(status["cluster_id"], 16) if cluster is None else cluster
        to = int(node.status()["id"], 16) if to is None else to
        return b"HWRAFT1\n" + struct.pack("<QQQH", cluster, 4711, to, len(address)) + address

    def answer(self, s):
        """(status, reason) of the handshake, or None when it just closed."""
        head = b""
        while len(head) < 3:
            try:
                data = s.recv(3 - len(head))
            except ConnectionError:
                data = b""
            if not data:
                return None
            head += data
        code, n = struct.unpack("<BH", head)
        return code, s.recv(n).decode() if n else ""

    def test_half_open_peer(self):
        n = self.cluster.hot()
        whole = self.hello(n)
        sockets = []
        for cut in (1, 7, 8, 12, 20, 33, len(whole) - 1):
            s = raw(n.peer)
            s.sendall(whole[:cut])
            sockets.append(s)
        h2.put(n.client, "half-open", "1")
        for s in sockets:  # each is ended by the other side
            read_all(s)
            s.close()

    def test_wrong_magic_and_wrong_names(self):
        n = self.cluster.warm()
        with raw(n.peer) as s:
            s.sendall(b"HWRAFT9\n" + b"x" * 40)
            self.assertEqual(read_all(s), b"")
        with raw(n.peer) as s:
            s.sendall(b"GET / HTTP/1.1\r\n\r\n")
            self.assertEqual(read_all(s), b"")
        cases = [(self.hello(n, cluster=0x1234), "cluster"), (self.hello(n, to=99), "node"),
                 (self.hello(n, address=b""), None),
                 (self.hello(n)[:32] + b"\xff\xff" + b"a" * 70000, None)]
        for data, word in cases:
            with raw(n.peer) as s:
                try:
                    s.sendall(data)
                except OSError:
                    pass
                answer = self.answer(s)
                if word is not None:
                    self.assertIsNotNone(answer)
                if answer is not None:
                    self.assertNotEqual(answer[0], 0, f"welcomed: {data[:60]!r}")
                    self.assertIn(word or "", answer[1])
                read_all(s)

    def test_garbage_after_a_good_handshake(self):
        """A stranger that knows cluster and node id is let in; what it then sends is libraft's to refuse."""
        n = self.cluster.warm()
        with raw(n.peer) as s:
            s.sendall(self.hello(n))
            answer = self.answer(s)
            if answer is not None and answer[0] == 0:
                try:
                    s.sendall(struct.pack("<QQ", 2 ** 40, 2 ** 63) + os.urandom(64))
                    s.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # ended already
                read_all(s)


class TwoClusters(ClusterTest):
    """A node of one cluster is no peer of the other, whatever its addresses say."""

    COUNT = 1
    EXTRA = {"cluster": {"voters": 1}}

    def test_handshake_of_another_cluster(self):
        other = Cluster(1, cluster={"voters": 1})
        try:
            mine, theirs = self.cluster.nodes[0], other.nodes[0]
            stranger = int(theirs.cluster_status()["cluster_id"], 16)
            with raw(mine.peer) as s:
                s.sendall(BadInput.hello(self, mine, cluster=stranger))
                code, reason = BadInput.answer(self, s)
            self.assertNotEqual(code, 0)
            self.assertRegex(reason, "cluster")
            h2.put(mine.client, "k", "v")
        finally:
            close(other)

    def test_join_under_another_name(self):
        n = self.cluster.nodes[0]
        joiner = self.cluster.add_node("x2", join=self.cluster.nodes[:1], cluster={"name": "elsewhere", "voters": 1})
        joiner.start()
        try:
            wait_for("the log says why", lambda: re.search("cluster.*(elsewhere|test)", joiner.log_text()), 20)
            self.assertNotEqual(http_get(joiner.client, "/readyz")[0], 200)
            self.assertEqual(len(n.cluster_status()["nodes"]), 1)
        finally:
            joiner.stop()
            self.cluster.nodes.remove(joiner)
