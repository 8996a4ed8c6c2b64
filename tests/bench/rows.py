"""The rows of the table. A row runs its systems in turn, `rounds` times, beginning with another one each round, and
reports medians: what the host does to one system it soon does to the others."""
import os
import random
import socket
import statistics
import time

from lib.hotwarm import Failed, wait_for
from measure import finish_hwbench, load, rss_mib, start_hwbench
from systems import OUT, Etcd, HotWarm

ABSENT = "not in this version"
TRIAL_S = 4.0


class Plan:
    """How much of everything: for the record, or --quick to see that it works."""

    def __init__(self, quick, trials, seconds, rounds):
        self.quick = quick
        self.seconds = seconds or (0.5 if quick else 4)
        self.warmup = 0.2 if quick else 1
        self.rounds = rounds or (1 if quick else 3)
        self.trials = trials or (1 if quick else 20)
        self.keys = 10000 if quick else 100000
        self.state_keys = 20000 if quick else 1000000
        self.leases = 2000 if quick else 100000
        self.watchers = (1, 100, 1000) if quick else (1, 100, 10000)
        self.range_keys = 10000


class Bench:
    def __init__(self, systems, plan, table):
        self.systems, self.plan, self.table = systems, plan, table
        self.filled = set()

    def fill(self, system):
        """Once: all keys that the rows work on."""
        if system.name not in self.filled:
            load(system, "put", "--sequential", "--clients", 256, "--count", self.plan.keys, "--keys", self.plan.keys)
            self.filled.add(system.name)

    def alternate(self, measure, needs=()):
        """{column: [result of each round]}; None for what a system does not know."""
        results = {s.column: [] for s in self.systems}
        for i in range(self.plan.rounds):
            turn = i % len(self.systems)
            for s in self.systems[turn:] + self.systems[:turn]:
                known = set(needs) <= s.can and None not in results[s.column]
                results[s.column].append(measure(s) if known else None)
        return results

    def line(self, name, results, field, unit, better, scale=1.0, places=0, judged=True, key=None):
        values = {}
        for column, rounds in results.items():
            if None in rounds:
                values[column] = ABSENT if column in ("hotwarm", "etcd") else None
            else:
                values[column] = statistics.median(r[field] for r in rounds) * scale
        self.table.add(name, key or field, values, unit, better, places, judged, results)

    def calls(self, title, workload, clients, *args, needs):
        plan = self.plan

        def measure(s):
            self.fill(s)
            s.compact()
            return load(s, workload, "--clients", clients, "--seconds", plan.seconds, "--warmup", plan.warmup,
                        "--keys", plan.keys, *args)

        results = self.alternate(measure, needs)
        self.line(title, results, "per_second", "/s", "more")
        self.line("  p50", results, "p50_us", "ms", "less", 1e-3, 3)
        self.line("  p99", results, "p99_us", "ms", "less", 1e-3, 3)
        self.line("  CPU of the three servers, per operation", results, "server_cpu_us", "us", "less", 1, 1)
        self.line("  CPU of the client, per operation", results, "client_cpu_us", "us", "less", 1, 2, judged=False)
        return results

    # ---- rows ----

    def put(self, clients):
        results = self.calls(f"put, {clients} clients", "put", clients, needs=["put"])
        if clients in (1, 64):
            self.line("  disk bytes, all three (device)", results, "device_per_op", "B", "less")
            self.line("  disk bytes, all three (as charged)", results, "written_per_op", "B", "less", judged=False)

    def idle(self):
        time.sleep(0 if self.plan.quick else 5)
        results = self.alternate(lambda s: {"mib": statistics.mean(rss_mib(n) for n in s.nodes)})
        self.line("memory of a node, idle", results, "mib", "MiB", "less", 1, 1)

    def range(self):
        self.calls(f"range of {self.plan.range_keys:,} keys, 4 clients", "range", 4, "--range", self.plan.range_keys,
                   needs=["range"])

    def watch_delay(self):
        plan = self.plan
        results = self.alternate(lambda s: load(s, "watch", "--watchers", 1, "--rate", 1000, "--seconds", plan.seconds,
                                                "--warmup", plan.warmup), ["watch"])
        self.line("watch delay, 1,000 puts/s: p50", results, "p50_us", "ms", "less", 1e-3, 3)
        self.line("  p99", results, "p99_us", "ms", "less", 1e-3, 3)

    def watch(self, watchers):
        """Events per second as fast as they go; the delay at a rate that makes about 10,000 events a second."""
        plan = self.plan
        rate = max(1, min(1000, 10000 // watchers))

        def measure(s):
            base = ["--watchers", watchers, "--prefix", "watched/"]
            fast = load(s, "watch", *base, "--rate", 0, "--seconds", plan.seconds, "--warmup", plan.warmup)
            if fast is None:
                return None
            slow = load(s, "watch", *base, "--rate", rate, "--seconds", max(plan.seconds, 10 / rate), "--warmup",
                        plan.warmup)
            return {"events": fast["per_second"], "p50_us": slow["p50_us"], "p99_us": slow["p99_us"],
                    "peak_mib": fast["peak_mib"], "runs": [fast, slow]}

        results = self.alternate(measure, ["watch"])
        self.line(f"watch, {watchers:,} watchers: events", results, "events", "/s", "more")
        self.line(f"  delay at {rate:,} puts/s: p50", results, "p50_us", "ms", "less", 1e-3, 3)
        self.line("  p99", results, "p99_us", "ms", "less", 1e-3, 3)
        self.line("  memory of the hot node, most", results, "peak_mib", "MiB", "less", 1, 1)

    def lease(self):
        plan = self.plan
        results = self.alternate(lambda s: load(s, "lease", "--leases", plan.leases, "--clients", 64, "--ttl", 600,
                                                "--seconds", plan.seconds, "--warmup", plan.warmup), ["lease"])
        self.line(f"{plan.leases:,} leases: grants", results, "grants_per_second", "/s", "more")
        self.line("  keep-alives", results, "per_second", "/s", "more")
        self.line("  keep-alive p99", results, "p99_us", "ms", "less", 1e-3, 3)
        self.line("  memory of the hot node, most", results, "peak_mib", "MiB", "less", 1, 1)

    # ---- rows with clusters of their own ----

    def state(self):
        """A million keys: what they cost, and how a node comes back with them."""
        results = {"hotwarm": [], "etcd": []}
        for make in (HotWarm, Etcd):
            with make() as system:
                results[system.column].append(self.state_of(system))
        keys = self.plan.state_keys
        self.line(f"{keys:,} keys filled, 256 clients", results, "fill_per_second", "/s", "more")
        self.line("  memory of a node with them", results, "mib", "MiB", "less", 1, 1)
        self.line("  snapshot save", results, "save_s", "s", "less", 1, 2)
        self.line("  size of that file", results, "save_mb", "MB", "less", 1, 1, judged=False)
        self.line("  restart of a node until it answers", results, "restart_s", "s", "less", 1, 2)
        self.line("  rebuild of a wiped node", results, "rebuild_s", "s", "less", 1, 2)

    def state_of(self, system):
        keys = self.plan.state_keys
        filled = load(system, "put", "--sequential", "--clients", 256, "--count", keys, "--keys", keys, "--prefix", "m/")
        # the last write of all: a node that has it has everything
        load(system, "put", "--count", 1, "--keys", 1, "--prefix", "marker/")
        node = next(n for n in system.nodes if n is not system.leader())
        for n in system.nodes:
            self.wait_marker(n)
        result = {"fill_per_second": filled["per_second"], "mib": statistics.mean(rss_mib(n) for n in system.nodes)}
        path = os.path.join(system.folder, "saved.snapshot")
        began = time.monotonic()
        system.save_snapshot(path)
        result["save_s"] = time.monotonic() - began
        result["save_mb"] = os.path.getsize(path) / 1e6
        os.unlink(path)
        result["restart_s"] = self.restart(system, node)
        began, is_member = system.rebuild(node)
        self.wait_marker(node)
        wait_for("the rebuilt node is a member", is_member, 120)
        result["rebuild_s"] = time.monotonic() - began
        return result

    def restart(self, system, node):
        began = system.restart(node)
        return self.wait_marker(node) - began

    @staticmethod
    def wait_marker(node):
        """When the node's own state has the marker."""
        host, port = node.client.split(":")

        class One:
            flags, name = [], node.name

        def listens():
            try:
                socket.create_connection((host, int(port)), 1).close()
                return True
            except OSError:
                return False

        def has_marker():
            if not node.is_running():
                raise Failed(f"{node.name} has ended")
            if not listens():
                return False
            try:
                result = finish_hwbench(start_hwbench(One, "get", "--serializable", "--count", 1, "--keys", 1,
                                                      "--prefix", "marker/", endpoints=node.client), "marker", 60)
            except Failed:
                return False
            return result is not None and result["ops_all"] == 1 and result["missing"] == 0

        wait_for(f"{node.name} has everything", has_marker, 300, 0.01)
        return time.monotonic()

    def trials(self, action):
        """The same trial on HotWarm, etcd and the tuned etcd in turn; {column: [result]}."""
        results = {}
        with HotWarm() as ours, Etcd() as theirs, Etcd(tuned=True) as tuned:
            for trial in range(self.plan.trials):
                for s in (ours, theirs, tuned):
                    results.setdefault(s.column, []).append(action(s, f"t{trial}/"))
        return results

    def kill(self):
        results = self.trials(self.kill_one)
        self.line(f"kill -9 to first acknowledged write, median of {self.plan.trials}", results, "first_ack_ms", "ms",
                  "less", 1, 1)
        worst = {c: [max(r, key=lambda x: x["first_ack_ms"])] for c, r in results.items()}
        self.line("  the worst of them (p99)", worst, "first_ack_ms", "ms", "less", 1, 1, key="p99")
        tuned = statistics.median(x["first_ack_ms"] for x in results["etcd_tuned"])
        self.table.add("  ... against the tuned etcd's median", "p99_against_median",
                       {"hotwarm": worst["hotwarm"][0]["first_ack_ms"], "etcd_tuned": tuned}, "ms", "less", 1, True, {})
        lost = {c: [{"lost": sum(x["lost"] for x in r)}] for c, r in results.items()}
        self.line("  acknowledged writes lost, all trials", lost, "lost", "", "zero")

    @staticmethod
    def kill_one(s, prefix):
        leader = s.leader()
        others = ",".join(n.client for n in s.nodes if n is not leader)
        load_process = start_hwbench(s, "gap", "--seconds", TRIAL_S, "--rate", 500, "--prefix", prefix, "--kill",
                                     leader.process.pid, "--kill-after-ms", random.randint(500, 1000), endpoints=others)
        result = finish_hwbench(load_process, f"kill on {s.name}", 120)
        leader.process.wait(10)
        if "first_ack_ms" not in result:
            raise Failed(f"kill on {s.name}: nothing was acknowledged within {TRIAL_S} s of it")
        s.start(leader)
        return result

    def switchover(self):
        results = self.trials(self.switch_one)
        moved = {c: [x for x in r if x] or [None] for c, r in results.items()}
        self.line(f"planned switchover, longest pause, median of {self.plan.trials}", moved, "longest_gap_ms", "ms",
                  "less", 1, 1)
        failed = {c: [{"failed": statistics.mean(x["errors"] + x["refused"] for x in r if x)}] if any(r) else [None]
                  for c, r in results.items()}
        self.line("  failed requests, mean of a switchover", failed, "failed", "", "less", 1, 1, judged=False)
        lost = {c: [{"lost": sum(x["lost"] for x in r if x)}] for c, r in results.items()}
        self.line("  acknowledged writes lost, all trials", lost, "lost", "", "zero")

    @staticmethod
    def switch_one(s, prefix):
        process = start_hwbench(s, "gap", "--seconds", 2, "--rate", 500, "--prefix", "sw" + prefix,
                                endpoints=",".join(n.client for n in s.nodes))
        time.sleep(0.6)
        has_moved = s.move_leader()
        result = finish_hwbench(process, f"switchover on {s.name}", 120)
        if not has_moved:
            print(f"  (!) {s.name} refused a switchover", flush=True)
        return result if has_moved else None


def all_rows(bench):
    """Name: what to run, in the order of the table."""
    rows = {"idle": bench.idle}
    for clients in (1, 64, 256, 1000):
        rows[f"put{clients}"] = lambda c=clients: bench.put(c)
    rows["get"] = lambda: bench.calls("get, linearizable, 256 clients", "get", 256, needs=["get"])
    rows["getser"] = lambda: bench.calls("get, serializable, 256 clients", "get", 256, "--serializable", needs=["get"])
    rows["txn"] = lambda: bench.calls("read-modify-write, 64 clients", "txn", 64, needs=["txn"])
    rows["mixed"] = lambda: bench.calls("mixed 70 get/20 put/10 txn, 64 clients", "mixed", 64, needs=["txn"])
    rows["range"] = bench.range
    rows["watchdelay"] = bench.watch_delay
    for watchers in bench.plan.watchers:
        rows[f"watch{watchers}"] = lambda w=watchers: bench.watch(w)
    rows["lease"] = bench.lease
    rows["state"] = bench.state
    rows["kill"] = bench.kill
    rows["switchover"] = bench.switchover
    return rows
