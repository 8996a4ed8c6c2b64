"""What of etcd's API HotWarm answers, as a table of probes: each runs on both, and the table says how the two answers
relate. docs/etcd-compat.md is written from this table; test_compat.py runs it and fails where the table is wrong.

A probe is a function of an Endpoint and gives what a client sees, without what must differ between two clusters: ids,
terms, hashes, and revisions count from where the probe began.
"""
import json
import os
import re
import socket
import struct
import subprocess
import tempfile
import time

import h2
from base import ROOT, Failed, run, wait_for

SAME, DIFFERS, ABSENT = "same", "differs", "absent"
PAGE = os.path.join(ROOT, "docs", "etcd-compat.md")
ENV = {"ETCDCTL_API": "3"}

# ---- answers as Python values ----

REVISION, IDENTITY, TEXT, NUMBER, BYTES = "revision", "identity", "text", "number", "bytes"
HEADER = {1: ("cluster", IDENTITY), 2: ("member", IDENTITY), 3: ("revision", REVISION), 4: ("term", IDENTITY)}
KV = {1: ("key", BYTES), 2: ("created", REVISION), 3: ("modified", REVISION), 4: ("version", NUMBER), 5: ("value", BYTES),
      6: ("lease", NUMBER)}
RANGE = {1: ("header", HEADER), 2: ("kvs", KV), 3: ("more", NUMBER), 4: ("count", NUMBER)}
PUT = {1: ("header", HEADER), 2: ("before", KV)}
DELETE = {1: ("header", HEADER), 2: ("deleted", NUMBER), 3: ("before", KV)}
OP = {1: ("range", RANGE), 2: ("put", PUT), 3: ("delete", DELETE)}
TXN = {1: ("header", HEADER), 2: ("succeeded", NUMBER), 3: ("responses", OP)}
OP[4] = ("txn", TXN)
EVENT = {1: ("type", NUMBER), 2: ("kv", KV), 3: ("before", KV)}
WATCH = {1: ("header", HEADER), 2: ("watch", NUMBER), 3: ("created", NUMBER), 4: ("canceled", NUMBER),
         5: ("compacted", REVISION), 6: ("reason", TEXT), 7: ("fragment", NUMBER), 11: ("events", EVENT)}
ONLY_HEADER = {1: ("header", HEADER)}
ALARM = {1: ("header", HEADER), 2: ("alarms", {1: ("member", IDENTITY), 2: ("alarm", NUMBER)})}
MEMBERS = {1: ("header", HEADER), 2: ("members", {1: ("id", IDENTITY), 2: ("name", IDENTITY), 3: ("peers", IDENTITY),
                                                  4: ("clients", IDENTITY), 5: ("learner", NUMBER)})}
STATUS = {1: ("header", HEADER), 2: ("version", IDENTITY), 3: ("size", IDENTITY), 4: ("leader", IDENTITY),
          5: ("index", IDENTITY), 6: ("term", IDENTITY), 7: ("applied", IDENTITY), 8: ("errors", TEXT),
          9: ("in use", IDENTITY), 10: ("learner", NUMBER)}
ANSWERS = {
    "KV/Range": RANGE, "KV/Put": PUT, "KV/DeleteRange": DELETE, "KV/Txn": TXN, "KV/Compact": ONLY_HEADER, "Watch/Watch": WATCH,
    "Lease/LeaseGrant": {1: ("header", HEADER), 2: ("id", NUMBER), 3: ("ttl", NUMBER), 4: ("error", TEXT)},
    "Lease/LeaseRevoke": ONLY_HEADER,
    "Lease/LeaseKeepAlive": {1: ("header", HEADER), 2: ("id", NUMBER), 3: ("ttl", NUMBER)},
    "Lease/LeaseTimeToLive": {1: ("header", HEADER), 2: ("id", NUMBER), 3: ("ttl", NUMBER), 4: ("granted", NUMBER),
                              5: ("keys", BYTES)},
    "Lease/LeaseLeases": {1: ("header", HEADER), 2: ("leases", {1: ("id", NUMBER)})},
    "Cluster/MemberList": MEMBERS,
    "Maintenance/Status": STATUS, "Maintenance/Alarm": ALARM, "Maintenance/Defragment": ONLY_HEADER,
    "Maintenance/Hash": {1: ("header", HEADER), 2: ("hash", IDENTITY)},
    "Maintenance/HashKV": {1: ("header", HEADER), 2: ("hash", IDENTITY), 3: ("compacted", REVISION)},
    "Maintenance/MoveLeader": ONLY_HEADER,
}


class Endpoint:
    """One node, with one connection that is made again when the other side ends it."""

    def __init__(self, address):
        self.address, self.base, self.prefix, self.connection = address, 0, "", None

    def begin(self, number):
        """The next probe: its keys, and the revision from which it counts."""
        self.prefix = f"p{number}/"
        answer = wait_for("it answers", lambda: self.raw("KV/Range", h2.encode((1, "none")))[2], 5)
        self.base = h2.decode(h2.decode(answer[0])[1][0])[3][0]

    def key(self, name=""):
        return self.prefix + name

    def raw(self, method, payload, package="etcdserverpb", **kwargs):
        """(status, text, [messages])"""
        for attempt in (1, 2):
            if self.connection is None:
                self.connection = h2.Connection(self.address)
            try:
                return self.connection.call(f"/{package}.{method}", payload, **kwargs)
            except (h2.Closed, OSError):
                self.connection.close()
                self.connection = None
                if attempt == 2:
                    raise
        return None

    def shape(self, data, schema):
        """A message as {name: value}; numbers as signed."""
        out = {}
        for number, values in h2.decode(data).items():
            name, kind = schema.get(number, (f"field {number}", BYTES))
            shaped = [self.one(v, kind) for v in values]
            if shaped != [None] * len(shaped):
                out[name] = shaped if name in ("kvs", "events", "responses", "before", "keys", "leases", "members",
                                               "alarms", "errors") else shaped[0]
        return out

    def one(self, value, kind):
        if isinstance(kind, dict):
            return self.shape(value, kind)
        if kind == IDENTITY:
            return None
        if isinstance(value, int):
            value = value - 2 ** 64 if value >= 2 ** 63 else value
        if kind == REVISION:
            return f"+{value - self.base}" if value >= self.base else "before"
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def call(self, method, *fields, **kwargs):
        """The answer as a value: {name: value}, or (status, text)."""
        status, text, messages = self.raw(method, h2.encode(*fields), **kwargs)
        if status != h2.OK:
            return status, text
        return self.shape(messages[0], ANSWERS.get(method, {})) if messages else "nothing"

    def put(self, name, value, *more):
        return self.call("KV/Put", (1, self.key(name)), (2, value), *more)

    def range(self, name, *more):
        return self.call("KV/Range", (1, self.key(name)), *more)

    def all(self, *more):
        return self.call("KV/Range", (1, self.key()), (2, self.prefix[:-1] + "0"), *more)

    def txn(self, *fields):
        return self.call("KV/Txn", *fields)

    def stream(self, method, *messages, want=None, seconds=1.0):
        """What comes back on a stream to which `messages` (payloads, or functions to run in between) are sent; until
        there are `want` answers, and then a moment for more than that."""
        c = h2.Connection(self.address, timeout=0.2)
        got, used = [], 0
        try:
            c.open(f"/etcdserverpb.{method}")

            def read(seconds, count):
                end = time.monotonic() + seconds
                while time.monotonic() < end and not c.is_over and len(got) < count:
                    try:
                        c._step()
                    except socket.timeout:
                        pass
                    while len(c.body) >= 5 and len(c.body) >= 5 + int.from_bytes(c.body[1:5], "big"):
                        n = int.from_bytes(c.body[1:5], "big")
                        got.append(self.shape(bytes(c.body[5:5 + n]), ANSWERS[method]))
                        del c.body[:5 + n]
            for m in messages:
                if callable(m):
                    m()
                elif isinstance(m, int):
                    read(10, m)
                else:
                    c.send_data(b"\0" + struct.pack(">I", len(m)) + m, end=False)
            if want is not None:
                read(10, want)
            read(seconds if want is None else 0.3, 10 ** 6)
            used = int(c.headers["grpc-status"]) if "grpc-status" in c.headers else None
        except h2.Closed as e:
            used = str(e)
        finally:
            c.close()
        return got if used is None else (got, used)

    def watch(self, *messages, **kwargs):
        return self.stream("Watch/Watch", *messages, **kwargs)

    def http(self, method, path, body=None):
        """(status, body) over HTTP/1.1"""
        host, port = self.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=10) as s:
            data = body.encode() if body else b""
            s.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
                      .encode() + data)
            out = b""
            while chunk := s.recv(65536):
                out += chunk
        head, _, rest = out.partition(b"\r\n\r\n")
        return int(head.split()[1]), rest.decode("utf-8", "replace")

    def etcdctl(self, *args, stdin=None, timeout=30):
        """(exit code, output, the last line of an error), without ids and times."""
        code, out, err = run("etcdctl", "--endpoints", self.address, *args, stdin=stdin, env=ENV, timeout=timeout)
        errors = [line for line in err.splitlines() if line.startswith("Error")]
        return code, self.clean(out), self.clean(errors[-1] if errors else "")

    def clean(self, text):
        text = text.replace(self.address, "ADDRESS")
        text = re.sub(r"(?<=[a-z])://[\d.:]+", "://ADDRESS", text)
        text = re.sub(r"took = [\w.µ]+|took [\w.µ]+", "took TIME", text)
        return re.sub(r"\b[0-9a-f]{11,16}\b", "ID", text)


# ---- pieces of requests ----

def compare(key, result=0, target=0, **union):
    numbers = {"version": 4, "create": 5, "mod": 6, "value": 7, "lease": 8, "end": 64}
    return 1, h2.encode((1, result or None), (2, target or None), (3, key), *((numbers[k], v) for k, v in union.items()))


def op(kind, *fields):
    return h2.encode(({"range": 1, "put": 2, "delete": 3, "txn": 4}[kind], h2.encode(*fields)))


def then(*ops):
    return [(2, o) for o in ops]


def otherwise(*ops):
    return [(3, o) for o in ops]


def create(*fields):
    return h2.encode((1, h2.encode(*fields)))


# ---- probes that are more than one expression ----

def fill(e, count=4):
    for i in range(count):
        e.put("abcdefgh"[i], str((i * 3) % 5))


def filled(e, *calls):
    """A few keys with different versions, then each of the calls."""
    fill(e)
    e.put("b", "again")
    e.put("a", "0")
    return [c(e) for c in calls]


def compacted(e):
    """Revisions +1 to +4 of one key, of which +3 is the oldest that is kept."""
    for i in range(4):
        e.put("c", str(i))
    return e.call("KV/Compact", (1, e.base + 3))


def sorts(e):
    return filled(e, *(lambda e, o=o, t=t: e.all((5, o or None), (6, t or None)) for o in range(3) for t in range(5)))


def compares(e):
    """Every target with every relation, each against a smaller, an equal and a larger value."""
    e.put("k", "m")
    e.put("k", "m")
    out = []
    values = {"version": (1, 2, 3), "create": tuple(e.base + i for i in range(3)), "mod": tuple(e.base + i for i in (1, 2, 3)),
              "value": ("l", "m", "n"), "lease": (0, 0, 1)}
    for target, (name, against) in enumerate(values.items()):
        for result in range(4):
            for value in against:
                out.append(e.txn(compare(e.key("k"), result, target, **{name: value}))["succeeded"]
                           if "succeeded" in e.txn(compare(e.key("k"), result, target, **{name: value})) else 0)
    return out


def watch_of_changes(e, *create_fields, want=3):
    key = e.key("w")
    return e.watch(create((1, key), *create_fields), 1, lambda: (e.put("w", "1"), e.put("w", "2"),
                                                                e.call("KV/DeleteRange", (1, key))), want=1 + want)


def merged(answers):
    """Events may come in one answer or in several: what matters is their order."""
    events = [event for a in answers for event in a.get("events", [])]
    return [{k: v for k, v in a.items() if k not in ("events", "header")} for a in answers if "events" not in a], events


def fragments(e, is_asked):
    """One transaction of 3 MB as its watcher gets it: are there several answers, and is all there?"""
    values = [op("put", (1, e.key(f"f{i}")), (2, b"v" * 300000)) for i in range(4)]
    got = e.watch(create((1, e.key("f")), (2, e.key("g")), (8, 1 if is_asked else None)), 1,
                  lambda: [e.txn(*then(*values)) for _ in range(1)], want=2)
    return [len([ev for a in got for ev in a.get("events", [])]), {a.get("watch", 0) for a in got}]


def lease(e, ttl=100, number=None):
    number = number or 1000000 + int(re.sub(r"\D", "", e.prefix))
    return number, e.call("Lease/LeaseGrant", (1, ttl), (2, number))


def lease_with_keys(e, *calls):
    number, granted = lease(e)
    e.put("x", "1", (3, number))
    e.put("y", "2", (3, number))
    return [granted, *(c(number) for c in calls)]


def near(answer, name="ttl"):
    """Time passes while a probe runs."""
    if isinstance(answer, dict) and isinstance(answer.get(name), int) and answer[name] > 90:
        answer = {**answer, name: "about 100"}
    return answer


def expiry(e):
    """A key and its lease of 2 s, until both are gone; the time it took, roughly."""
    number, _ = lease(e, ttl=2)
    granted = e.call("Lease/LeaseTimeToLive", (1, number)).get("granted")
    e.put("x", "1", (3, number))
    began = time.monotonic()
    while e.range("x").get("count") and time.monotonic() - began < 20:
        time.sleep(0.1)
    left = e.call("Lease/LeaseTimeToLive", (1, number))
    return granted == 2, e.range("x"), left


def deadline(e, want, *args, stdin=None):
    """A command that does not end by itself: what it has said when it has said what is wanted, or after 10 s."""
    with tempfile.TemporaryFile("w+") as out:
        command = subprocess.Popen(["etcdctl", "--endpoints", e.address, *args], stdin=subprocess.PIPE, stdout=out,
                                   stderr=subprocess.STDOUT, text=True, env={**os.environ, **ENV})

        def said():
            return os.pread(out.fileno(), 65536, 0).decode()
        try:
            if stdin:
                command.stdin.write(stdin)
                command.stdin.flush()
            wait_for("its words", lambda: want in said() or command.poll() is not None, 10)
        except Failed:
            pass
        finally:
            command.kill()
            command.communicate()
        return e.clean(said())


def mirror(e):
    """From one prefix to another of the same cluster: what is there, and what comes."""
    e.put("from/a", "1")
    command = subprocess.Popen(["etcdctl", "--endpoints", e.address, "make-mirror", "--prefix", e.key("from/"), "--dest-prefix",
                                e.key("to/"), e.address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, **ENV})
    try:
        wait_for("the first key is mirrored", lambda: e.range("to/a").get("count") == 1)
        e.put("from/b", "2")
        wait_for("the second key is mirrored", lambda: e.range("to/b").get("count") == 1)
    finally:
        command.kill()
        command.wait()
    return "mirrored"


def saved(e, *args):
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "saved")
        result = e.etcdctl("snapshot", "save", file)
        if result[0] == 0 and args:
            result = e.etcdctl("snapshot", args[0], file, *(a.replace("FOLDER", folder) for a in args[1:]))
        return result[0], result[2]


def status(e):
    return {k: v for k, v in e.call("Maintenance/Status").items() if k != "header"}


def metrics(e):
    code, body = e.http("GET", "/metrics")
    return code, "# TYPE" in body, "etcd_server_has_leader" in body


def lock(e, package, method, *fields):
    status, text, _ = e.raw(method, h2.encode(*fields), package=package)
    return status, text if status == h2.UNIMPLEMENTED else ""


def auth(e, method, *fields):
    status, text, _ = e.raw("Auth/" + method, h2.encode(*fields))
    return status, text


def snapshot(e):
    status, text, messages = e.raw("Maintenance/Snapshot", b"")
    return status, text, len(messages) > 0


def json_gateway(e):
    code, body = e.http("POST", "/v3/kv/range", json.dumps({"key": "bm9uZQ=="}))
    return code, code == 200 and "header" in body


def move_leader(e, target):
    return e.call("Maintenance/MoveLeader", (1, target))


def member_ids(e):
    answer = h2.decode(e.raw("Cluster/MemberList", b"")[2][0])
    return [h2.decode(m)[1][0] for m in answer[2]]


def learners(e):
    answer = e.call("Cluster/MemberList")
    return [m for m in answer["members"]][:1] if isinstance(answer, dict) else answer


# ---- the table ----

class Probe:
    def __init__(self, area, name, relation, sentence, call):
        self.area, self.name, self.relation, self.sentence, self.call = area, name, relation, sentence, call


PROBES = []


def add(area, name, relation, sentence, call):
    PROBES.append(Probe(area, name, relation, sentence, call))


def same(area, name, sentence, call):
    add(area, name, SAME, sentence, call)


def kv_probes():
    a = "KV"
    same(a, "Put", "key, value, the header's revision", lambda e: [e.put("k", "1"), e.put("k", "2"), e.range("k")])
    same(a, "Put prev_kv", "what was there before", lambda e: [e.put("k", "1", (4, 1)), e.put("k", "2", (4, 1))])
    same(a, "Put ignore_value", "keeps the value; refused with a value, and for a key that is not there",
         lambda e: [e.put("k", "1"), e.call("KV/Put", (1, e.key("k")), (5, 1)), e.range("k"), e.put("k", "x", (5, 1)),
                    e.call("KV/Put", (1, e.key("none")), (5, 1))])
    same(a, "Put lease, ignore_lease", "keeps the lease; refused with a lease, and for a key that is not there",
         lambda e: [lease(e), e.put("k", "1", (3, lease(e)[0])), e.put("k", "2", (6, 1)), e.range("k"),
                    e.put("k", "x", (3, 5), (6, 1)), e.put("none", "x", (6, 1))])
    same(a, "Put with a lease that is not there", "NOT_FOUND", lambda e: e.put("k", "1", (3, 424242)))
    same(a, "Put without a key", "INVALID_ARGUMENT", lambda e: e.call("KV/Put", (2, "v")))
    same(a, "Put above the size limit", "INVALID_ARGUMENT", lambda e: e.put("k", b"v" * (1536 * 1024 + 600)))
    same(a, "Range of one key", "found and not found", lambda e: filled(e, lambda e: e.range("b"), lambda e: e.range("none")))
    same(a, "Range range_end", "ranges, prefixes, from a key on, everything, an empty one",
         lambda e: filled(e, lambda e: e.all(), lambda e: e.range("a", (2, e.key("c"))), lambda e: e.range("c", (2, e.key("a"))),
                          lambda e: e.call("KV/Range", (1, e.prefix + "d"), (2, e.prefix + "\xff"))))
    same(a, "Range limit", "more and count", lambda e: filled(e, lambda e: e.all((3, 2)), lambda e: e.all((3, 4)),
                                                              lambda e: e.all((3, 9)), lambda e: e.all((3, -1))))
    same(a, "Range revision", "an older state, a future one, a negative one",
         lambda e: filled(e, lambda e: e.all((4, e.base + 3)), lambda e: e.all((4, e.base + 1000)), lambda e: e.all((4, -1))))
    same(a, "Range of a compacted revision", "OUT_OF_RANGE", lambda e: [compacted(e), e.range("c", (4, e.base + 2)),
                                                                       e.range("c", (4, e.base + 3))])
    same(a, "Range sort_order, sort_target", "every pair", sorts)
    add(a, "Range with an unknown sort order or target", DIFFERS,
        "INVALID_ARGUMENT; etcd's process ends over an unknown target.",
         lambda e: [e.range("k", (5, 9)), e.range("k", (6, 9)), e.range("k", (5, -1))])
    same(a, "Range serializable, keys_only, count_only", "", lambda e: filled(
        e, lambda e: e.all((7, 1)), lambda e: e.all((8, 1)), lambda e: e.all((9, 1)), lambda e: e.all((9, 1), (3, 1))))
    same(a, "Range min_ and max_ revisions", "mod and create, alone and with a limit",
         lambda e: filled(e, *(lambda e, f=f, r=r: e.all((f, e.base + r)) for f in (10, 11, 12, 13) for r in (1, 3, 6)),
                          lambda e: e.all((10, e.base + 3), (3, 1))))
    same(a, "DeleteRange", "one, none, a range, prev_kv", lambda e: filled(
        e, lambda e: e.call("KV/DeleteRange", (1, e.key("a")), (3, 1)), lambda e: e.call("KV/DeleteRange", (1, e.key("a"))),
        lambda e: e.call("KV/DeleteRange", (1, e.key("a")), (2, e.key("z")), (3, 1)), lambda e: e.all()))
    same(a, "DeleteRange without a key", "INVALID_ARGUMENT", lambda e: e.call("KV/DeleteRange"))
    same(a, "Compact", "the past, again, the future", lambda e: [compacted(e), e.call("KV/Compact", (1, e.base + 3)),
                                                                e.call("KV/Compact", (1, e.base + 9999))])
    same(a, "Compact physical", "answers; HotWarm does not wait for the space, which is freed within moments",
         lambda e: [compacted(e), e.call("KV/Compact", (1, e.base + 4), (2, 1))])
    same(a, "Compact of revision 0 and of a negative one", "OUT_OF_RANGE",
         lambda e: [e.call("KV/Compact"), e.call("KV/Compact", (1, -5))])


def txn_probes():
    a = "Txn"
    same(a, "compare, success, failure", "both branches, several operations", lambda e: [
        e.put("k", "1"),
        e.txn(compare(e.key("k"), 0, 3, value="1"), *then(op("put", (1, e.key("t")), (2, "y")), op("range", (1, e.key("k")))),
              *otherwise(op("put", (1, e.key("f")), (2, "n")))),
        e.txn(compare(e.key("k"), 0, 3, value="2"), *then(op("put", (1, e.key("t2")), (2, "y"))),
              *otherwise(op("delete", (1, e.key("t")), (3, 1)), op("range", (1, e.key("t"))))), e.all()])
    same(a, "empty transaction", "succeeds, uses no revision", lambda e: [e.txn(), e.put("k", "1")])
    same(a, "every target with every relation", "version, create, mod, value, lease; =, >, <, !=", compares)
    same(a, "compare of a key that is not there", "value compares fail, numbers are 0", lambda e: [
        e.txn(compare(e.key("n"), r, t, **{n: v})) for r in (0, 3) for t, n, v in ((0, "version", 0), (2, "mod", 0),
                                                                                    (3, "value", ""), (4, "lease", 0))])
    same(a, "compare range_end", "holds when it holds for every key", lambda e: filled(
        e, *(lambda e, v=v: e.txn(compare(e.key("a"), 1, 0, version=v, end=e.key("z"))) for v in (0, 1, 2)),
        lambda e: e.txn(compare(e.key("x"), 1, 0, version=7, end=e.key("z")))))
    same(a, "compare with a union that does not fit its target", "counts as the target's zero",
         lambda e: [e.txn(compare(e.key("k"), 0, 0, value="x")), e.txn(compare(e.key("k"), 0, 0, value="x"))])
    add(a, "compare with an unknown target or relation", DIFFERS, "INVALID_ARGUMENT; etcd takes it as one that holds.",
        lambda e: [e.txn(compare(e.key("k"), 0, 9, version=0)), e.txn(compare(e.key("k"), 9, 0, version=0))])
    add(a, "nested transactions", DIFFERS, "The same but for the inner header, in which etcd leaves the revision out.",
        lambda e: [e.txn(*then(op("txn", *then(op("put", (1, e.key("in")), (2, "1"))))),
                                                        *otherwise(op("txn"))), e.all()])
    same(a, "the same key put twice", "INVALID_ARGUMENT, also across nested ones", lambda e: [
        e.txn(*then(op("put", (1, e.key("k")), (2, "1")), op("put", (1, e.key("k")), (2, "2")))),
        e.txn(*then(op("put", (1, e.key("k")), (2, "1")), op("txn", *then(op("put", (1, e.key("k")), (2, "2")))))), e.all()])
    same(a, "a key put and deleted", "INVALID_ARGUMENT for overlaps; two deletes of one key are taken", lambda e: [
        e.txn(*then(op("put", (1, e.key("k")), (2, "1")), op("delete", (1, e.key("a")), (2, e.key("z"))))),
        e.txn(*then(op("delete", (1, e.key("a")), (2, e.key("z"))), op("delete", (1, e.key("k"))))), e.all()])
    same(a, "operations see those before them", "", lambda e: [e.txn(*then(
        op("put", (1, e.key("k")), (2, "1")), op("range", (1, e.key("k"))), op("delete", (1, e.key("j"))))), e.all()])
    same(a, "more than 128 operations", "INVALID_ARGUMENT", lambda e: [
        e.txn(*then(*(op("put", (1, e.key(str(i))), (2, "v")) for i in range(129)))), e.all((9, 1))])
    same(a, "an operation without a type, or without a key", "INVALID_ARGUMENT", lambda e: [
        e.txn((2, b"")), e.txn(*then(op("put", (2, "v")))), e.txn(*then(op("range"))), e.txn(compare("", 0, 0, version=0))])
    same(a, "a read at a future revision beside a write", "refused whole, and no revision is used", lambda e: [
        e.txn(*then(op("put", (1, e.key("k")), (2, "1")), op("range", (1, e.key("k")), (4, e.base + 1000)))), e.put("z", "1"),
        e.all()])
    same(a, "a read at a compacted revision beside a write", "refused whole, and no revision is used", lambda e: [
        compacted(e), e.txn(*then(op("put", (1, e.key("k")), (2, "1")), op("range", (1, e.key("c")), (4, e.base + 1)))),
        e.put("z", "1"), e.range("k")])
    same(a, "a lease that is not there", "refused whole", lambda e: [
        e.txn(*then(op("put", (1, e.key("k")), (2, "1")), op("put", (1, e.key("l")), (2, "1"), (3, 424242)))), e.all()])
    add(a, "nested more than 8 deep", DIFFERS, "INVALID_ARGUMENT; etcd has no bound.", lambda e: e.txn((2, deep(e, 40))))


def deep(e, depth):
    inner = op("put", (1, e.key("deep")), (2, "1"))
    for _ in range(depth):
        inner = h2.encode((4, h2.encode((2, inner))))
    return inner


def watch_probes():
    a = "Watch"
    same(a, "create_request, events", "puts and deletes in order", lambda e: merged(watch_of_changes(e)))
    same(a, "prev_kv", "", lambda e: merged(watch_of_changes(e, (6, 1))))
    same(a, "filters", "NOPUT, NODELETE", lambda e: [merged(watch_of_changes(e, (5, 0), want=1)),
                                                    merged(watch_of_changes(e, (5, 1), want=2))])
    same(a, "range_end", "a prefix", lambda e: merged(e.watch(
        create((1, e.key()), (2, e.prefix[:-1] + "0")), 1, lambda: fill(e), want=5)))
    same(a, "start_revision", "events of the past, then those to come", lambda e: merged(
        [e.put("s", "1"), e.put("s", "2")] and e.watch(create((1, e.key("s")), (3, e.base + 1)), 2, lambda: e.put("s", "3"),
                                                       want=3)))
    same(a, "start_revision in the future", "waits for it", lambda e: merged(e.watch(
        create((1, e.key("s")), (3, e.base + 3)), 1, lambda: [e.put("s", str(i)) for i in range(4)], want=3)))
    add(a, "start_revision that is compacted", DIFFERS,
        "created, then cancelled with compact_revision, in both; HotWarm also says why (cancel_reason).", lambda e: [
        compacted(e), e.watch(create((1, e.key("c")), (3, e.base + 1)), want=2)])
    same(a, "negative start_revision", "", lambda e: len(e.watch(create((1, e.key("s")), (3, -1)), want=1)))
    same(a, "watch_id", "given, chosen, in use already", lambda e: e.watch(
        create((1, e.key("a")), (7, 77)), 1, create((1, e.key("b"))), 2, create((1, e.key("c")), (7, 77)), want=3))
    same(a, "several on one stream", "each has its events", lambda e: sorted(str(x) for x in merged(e.watch(
        create((1, e.key("a"))), 1, create((1, e.key("a"))), 2, lambda: e.put("a", "1"), want=4))[1]))
    same(a, "cancel_request", "", lambda e: e.watch(create((1, e.key("a")), (7, 5)), 1, h2.encode((2, h2.encode((1, 5)))), 2,
                                                    lambda: e.put("a", "1"), want=2))
    same(a, "cancel_request of none", "nothing happens", lambda e: e.watch(h2.encode((2, h2.encode((1, 55)))),
                                                                          create((1, e.key("a"))), want=1))
    same(a, "progress_request", "", lambda e: e.watch(create((1, e.key("a"))), 1, lambda: e.put("b", "1"),
                                                      lambda: time.sleep(0.3), h2.encode((3, b"")), want=2))
    same(a, "progress_notify", "taken; both tell every ten minutes", lambda e: e.watch(create((1, e.key("a")), (4, 1)), want=1))
    same(a, "fragment", "answers of more than the message limit come in parts when asked for",
         lambda e: [fragments(e, True), fragments(e, False)])
    same(a, "without a key", "means every key", lambda e: len(merged(e.watch(create((1, b"\0"), (2, b"\0")), 1,
                                                                             lambda: e.put("any", "1"), want=2))[1]))
    same(a, "an empty range", "created and cancelled", lambda e: e.watch(create((1, e.key("b")), (2, e.key("a"))), want=1))
    add(a, "an unknown filter", DIFFERS, "Cancelled with a reason; etcd ignores the filter.", lambda e: e.watch(create((1,
        e.key("b")), (5, 9)), want=1))
    same(a, "a request without a kind", "is ignored", lambda e: e.watch(b"", create((1, e.key("b"))), want=1))
    same(a, "events of one transaction", "", lambda e: merged(e.watch(create((1, e.key()), (2, e.prefix[:-1] + "0")), 1,
        lambda: e.txn(
        *then(op("put", (1, e.key("a")), (2, "1")), op("put", (1, e.key("b")), (2, "1")))), want=2)))


def lease_probes():
    a = "Lease"
    same(a, "LeaseGrant", "an id that is given", lambda e: lease(e))
    same(a, "LeaseGrant without an id", "one is chosen", lambda e: e.call("Lease/LeaseGrant", (1, 50)).get("id", 0) > 0)
    same(a, "LeaseGrant of an id in use", "FAILED_PRECONDITION", lambda e: [lease(e), lease(e)])
    same(a, "LeaseGrant with a TTL that is too large", "OUT_OF_RANGE", lambda e: lease(e, 9000000001))
    add(a, "LeaseGrant with a TTL of 0, or below", DIFFERS,
        "0 is raised to the least TTL, which follows the election timeout in both; a negative one is refused, where etcd "
        "raises it, too.", lambda e: [lease(e, 0), lease(e, -7, 43)])
    add(a, "LeaseGrant with a negative id", DIFFERS, "INVALID_ARGUMENT; etcd grants it.",
        lambda e: e.call("Lease/LeaseGrant", (1, 60), (2, -7)))
    same(a, "LeaseRevoke", "deletes the keys in one revision; NOT_FOUND the second time", lambda e: lease_with_keys(
        e, lambda n: e.call("Lease/LeaseRevoke", (1, n)), lambda n: e.all(), lambda n: e.call("Lease/LeaseRevoke", (1, n))))
    same(a, "LeaseKeepAlive", "", lambda e: lease_with_keys(
        e, lambda n: e.stream("Lease/LeaseKeepAlive", h2.encode((1, n)), 1, h2.encode((1, n)), want=2)))
    same(a, "LeaseKeepAlive of none", "a TTL of 0", lambda e: e.stream("Lease/LeaseKeepAlive", h2.encode((1, 424242)), want=1))
    same(a, "LeaseTimeToLive", "the time left, and the keys", lambda e: [near(x) for x in lease_with_keys(
        e, lambda n: e.call("Lease/LeaseTimeToLive", (1, n)), lambda n: e.call("Lease/LeaseTimeToLive", (1, n), (2, 1)))])
    same(a, "LeaseTimeToLive of none", "a TTL of -1", lambda e: e.call("Lease/LeaseTimeToLive", (1, 424242)))
    same(a, "LeaseLeases", "", lambda e: [lease(e), {"id": lease(e)[0]} in e.call("Lease/LeaseLeases")["leases"]])
    same(a, "a key that goes to another lease", "its first lease lets it go", lambda e: lease_with_keys(
        e, lambda n: lease(e, number=n + 500000), lambda n: e.put("x", "2", (3, n + 500000)),
        lambda n: e.call("Lease/LeaseRevoke", (1, n)), lambda n: e.all()))
    same(a, "the end of a lease", "deletes its keys", expiry)


def cluster_probes():
    a = "Cluster"
    same(a, "MemberList", "", learners)
    add(a, "MemberAdd", ABSENT,
        "`hwctl node add`: the new node runs first, and becomes a voter by itself when it has caught up.",
            lambda e: lock(e, "etcdserverpb", "Cluster/MemberAdd", (1, "http://127.0.0.1:1"), (2, 1)))
    add(a, "MemberUpdate", ABSENT, "A node says its addresses itself: change its configuration.", lambda e: lock(e,
        "etcdserverpb", "Cluster/MemberUpdate", (1, 4711), (2, "http://127.0.0.1:2")))
    add(a, "MemberRemove", ABSENT, "`hwctl node remove`, by name.", lambda e: lock(e, "etcdserverpb",
        "Cluster/MemberRemove", (1, 4711)))
    add(a, "MemberPromote", ABSENT, "Not needed: roles follow by themselves.", lambda e: lock(e, "etcdserverpb",
        "Cluster/MemberPromote", (1, 4711)))


def maintenance_probes():
    a = "Maintenance"
    same(a, "Status", "", status)
    add(a, "Alarm GET", DIFFERS, "The same, with a header, which etcd leaves out.", lambda e: e.call("Maintenance/Alarm"))
    add(a, "Alarm DEACTIVATE", DIFFERS,
        "Answered as if needed, with a header: alarms go off by themselves when there is room.",
            lambda e: e.call("Maintenance/Alarm", (1, 2), (3, 1)))
    add(a, "Alarm ACTIVATE", ABSENT, "Alarms follow the disk and the size of the state.",
        lambda e: [e.call("Maintenance/Alarm", (1, 1), (2, 1), (3, 2)),
                                                   e.call("Maintenance/Alarm", (1, 2), (2, 1), (3, 2))][0])
    add(a, "Alarm with an unknown action", DIFFERS, "INVALID_ARGUMENT; etcd's process ends.",
        lambda e: e.call("Maintenance/Alarm", (1, 7)))
    add(a, "Alarm of an unknown kind", DIFFERS, "INVALID_ARGUMENT; etcd ignores it.",
        lambda e: e.call("Maintenance/Alarm", (1, 2), (3, 7)))
    add(a, "Defragment", DIFFERS,
        "Nothing stops for it: cleans up in the background. The same, with a header, which etcd leaves out.",
            lambda e: e.call("Maintenance/Defragment"))
    same(a, "Hash", "", lambda e: e.call("Maintenance/Hash"))
    same(a, "HashKV", "of now, and of a revision", lambda e: [fill(e), e.call("Maintenance/HashKV").get("header"),
                                                              e.call("Maintenance/HashKV", (1, e.base + 2)).get("header")])
    same(a, "HashKV of a compacted and of a future revision", "", lambda e: [
        compacted(e), e.call("Maintenance/HashKV", (1, e.base + 1)), e.call("Maintenance/HashKV", (1, e.base + 1000))])
    add(a, "Snapshot", ABSENT, "An image is a SQLite file, not a bbolt file: `hwctl snapshot save`.", lambda e: snapshot(e))
    same(a, "MoveLeader to nobody", "", lambda e: move_leader(e, 4711))
    add(a, "Downgrade", SAME, "", lambda e: lock(e, "etcdserverpb", "Maintenance/Downgrade", (1, 0), (2, "3.3.0"))[0])


def other_probes():
    a = "Auth"
    for method, fields in (("AuthEnable", ()), ("AuthDisable", ()), ("Authenticate", ((1, "root"), (2, "x"))),
                           ("UserAdd", ((1, "u"), (2, "p"))), ("UserGet", ((1, "u"),)), ("UserList", ()),
                           ("UserChangePassword", ((1, "u"), (2, "q"))), ("RoleAdd", ((1, "r"),)),
                           ("UserGrantRole", ((1, "u"), (2, "r"))), ("UserRevokeRole", ((1, "u"), (2, "r"))),
                           ("RoleGrantPermission", ((1, "r"), (2, h2.encode((1, 2), (2, "k"))))),
                           ("RoleRevokePermission", ((1, "r"), (2, "k"))), ("RoleGet", ((1, "r"),)), ("RoleList", ()),
                           ("RoleDelete", ((1, "r"),)), ("UserDelete", ((1, "u"),))):
        add(a, method, ABSENT, "No users and roles in this version.", lambda e, m=method, f=fields: auth(e, m, *f))
    a = "Lock and Election"
    add(a, "v3lock Lock, Unlock", ABSENT,
        "The server-side service only: locks of client libraries (and `etcdctl lock`) are leases, keys and watches, "
        "and work.", lambda e: [
        lock(e, "v3lockpb", "Lock/Lock", (1, e.key("l"))), lock(e, "v3lockpb", "Lock/Unlock", (1, e.key("l")))][0])
    add(a, "v3election Campaign, Leader, Observe, Proclaim, Resign", ABSENT, "As for locks: `etcdctl elect` works.", lambda e: [
        lock(e, "v3electionpb", "Election/Leader", (1, e.key("l")))][0])
    a = "Health, metrics, JSON"
    same(a, "grpc.health.v1.Health/Check", "", lambda e: e.raw("Health/Check", b"", package="grpc.health.v1"))
    same(a, "GET /health", "for scripts made for etcd; /livez, /readyz, /hot and /warm say more", lambda e: e.http("GET",
        "/health"))
    same(a, "GET /version", "which of etcd's versions the API is like",
         lambda e: (e.http("GET", "/version")[0], sorted(json.loads(e.http("GET", "/version")[1]))))
    add(a, "GET /metrics", DIFFERS, "Prometheus in both; the names are HotWarm's own (`hotwarm_...`).", metrics)
    add(a, "gRPC gateway, POST /v3/kv/range", ABSENT, "No JSON over HTTP for keys: use gRPC, or `hwctl -o json`.", json_gateway)


def etcdctl_probes():
    a = "etcdctl"
    c = lambda *args, **kwargs: (lambda e: e.etcdctl(*(x.replace("P/", e.prefix) for x in args), **kwargs))  # noqa: E731
    steps = lambda *calls: (lambda e: [call(e) for call in calls])  # noqa: E731
    elsewhere = lambda e: "run by another test"  # noqa: E731
    same(a, "put, get, del", "test_etcdctl.py compares every flag", steps(
        c("put", "P/a", "1"), c("get", "P/a"), c("del", "P/a"), c("get", "P/a")))
    same(a, "txn", "also with -i", steps(c("txn", stdin='version("none") = "0"\n\nput P/1 x\n\n\n'), c("txn", "-i",
        stdin="\n\n\n")))
    same(a, "compaction", "", lambda e: [e.put("a", "1"), e.etcdctl("compaction", "999999"),
                                         e.etcdctl("compaction", "--physical", str(e.base + 1))[0]])
    same(a, "watch", "test_watch.py has -i, --rev, --prefix, --prev-kv and a command", lambda e: [
        e.put("a", "1"), e.put("a", "2"), deadline(e, "\n2\n", "watch", f"--rev={e.base + 1}", e.key("a")),
        deadline(e, "\n2\n", "watch", "-i", stdin=f"watch --rev={e.base + 1} {e.key('a')}\n")])
    same(a, "lease grant", "", lambda e: [re.sub("lease ID", "", str(e.etcdctl("lease", "grant", "60"))),
        e.etcdctl("lease", "grant", "x")[0]])
    same(a, "lease revoke", "", lambda e: [lease(e), e.etcdctl("lease", "revoke", f"{lease(e)[0]:x}"), e.etcdctl("lease",
        "revoke", "4d2")])
    same(a, "lease timetolive", "", lambda e: [lease(e), re.sub(r"remaining\(\d+s\)", "", str(e.etcdctl(
        "lease", "timetolive", "--keys", f"{lease(e)[0]:x}"))), e.etcdctl("lease", "timetolive", "4d2")])
    same(a, "lease keep-alive", "", lambda e: [lease(e), e.etcdctl("lease", "keep-alive", "--once", f"{lease(e)[0]:x}"),
                                               e.etcdctl("lease", "keep-alive", "--once", "4d2")])
    same(a, "lease list", "", lambda e: [lease(e), f"{lease(e)[0]:x}" in e.etcdctl("lease", "list")[1]])
    same(a, "alarm list", "", c("alarm", "list"))
    same(a, "alarm disarm", "", c("alarm", "disarm"))
    same(a, "defrag", "", c("defrag"))
    same(a, "endpoint health", "", c("endpoint", "health"))
    # Members' client URLs become :authority as they are, with their scheme.
    same(a, "endpoint status, hashkv, defrag: --cluster", "", lambda e: [
        e.etcdctl(*words, "--cluster")[0] for words in (("endpoint", "status"), ("endpoint", "hashkv"), ("defrag",))])
    same(a, "endpoint status, endpoint hashkv", "", lambda e: [e.etcdctl("endpoint", "status")[0], e.etcdctl("endpoint",
        "hashkv")[0]])
    same(a, "member list", "", lambda e: e.etcdctl("member", "list")[0])
    for name, args in (("member add", ("x", "--learner", "--peer-urls=http://127.0.0.1:9")), ("member remove", ("4d2",)),
                       ("member update", ("4d2", "--peer-urls=http://127.0.0.1:9")), ("member promote", ("4d2",))):
        add(a, name, ABSENT, "The answer names the command of hwctl.", c(*name.split(), *args))
    same(a, "move-leader", "", c("move-leader", "4d2"))
    same(a, "lock", "", lambda e: e.etcdctl("lock", e.key("lock"), "echo", "held"))
    same(a, "elect", "", lambda e: deadline(e, "me\n", "elect", e.key("elect"), "me"))
    same(a, "make-mirror", "", mirror)
    add(a, "snapshot save", ABSENT, "`hwctl snapshot save`", saved)
    add(a, "snapshot status", ABSENT, "`hwctl snapshot verify`", lambda e: saved(e, "status"))
    add(a, "snapshot restore", ABSENT, "etcd's files are not HotWarm's; see `hwctl snapshot`.",
        lambda e: saved(e, "restore", "--data-dir", "FOLDER/restored"))
    same(a, "migrate", "Works on etcd's files and asks no server.", elsewhere)
    same(a, "check perf", "test_etcdctl.py runs it", elsewhere)
    same(a, "check datascale", "", lambda e: [e.etcdctl("check", "datascale", timeout=120)[0]])
    for name, args in (("auth enable", ()), ("auth disable", ()), ("role add", ("r",)), ("role get", ("r",)), ("role list", ()),
                       ("role grant-permission", ("r", "read", "k")), ("role revoke-permission", ("r", "k")),
                       ("user add", ("u:p",)), ("user get", ("u",)), ("user list", ()), ("user grant-role", ("u", "r")),
                       ("user revoke-role", ("u", "r")), ("user passwd", ("u", "--interactive=false")),
                       ("user delete", ("u",)), ("role delete", ("r",))):
        add(a, name, ABSENT, "No users and roles in this version.", c(*name.split(), *args, stdin="q\n"))
    same(a, "version", "", c("version"))


for probes in (kv_probes, txn_probes, watch_probes, lease_probes, cluster_probes, maintenance_probes, other_probes,
               etcdctl_probes):
    probes()


# ---- relations, and the page ----

def is_absent(seen):
    """Does an answer say that there is no such call?"""
    text = str(seen)
    return f"({h2.UNIMPLEMENTED}," in text or "(404," in text or "Unimplemented" in text or "unknown service" in text or \
        "unknown method" in text or "(405," in text


def relation(etcd, hotwarm):
    if etcd == hotwarm:
        return SAME
    return ABSENT if is_absent(hotwarm) and not is_absent(etcd) else DIFFERS


HEAD = """# etcd compatibility

Written by `make compat` from the table of probes in `tests/integration/compat.py`; do not edit. Each probe runs on a real
etcd (3.4) and on HotWarm, side by side, and `tests/integration/test_compat.py` fails when the relation is another than
the one that stands here. Compared is all that a client sees but identities, terms, hashes and sizes; revisions count from
where a probe begins.

*same*: the two answers are equal. *differs*: HotWarm answers otherwise, as said. *absent*: HotWarm answers UNIMPLEMENTED (or
404), in words. A node of either tier gives these answers: a warm node sends on what only the hot node can do.

"""


def page():
    count = {r: sum(p.relation == r for p in PROBES) for r in (SAME, DIFFERS, ABSENT)}
    out = [HEAD, f"{len(PROBES)} probes: {count[SAME]} same, {count[DIFFERS]} differ, {count[ABSENT]} absent.\n"]
    for area in dict.fromkeys(p.area for p in PROBES):
        out.append(f"\n## {area}\n\n| probe | relation | |\n| --- | --- | --- |\n")
        out += [f"| {p.name} | {p.relation} | {p.sentence} |\n" for p in PROBES if p.area == area]
    return "".join(out)


if __name__ == "__main__":
    with open(PAGE, "w", encoding="utf-8") as written:
        written.write(page())
