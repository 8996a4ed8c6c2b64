#!/usr/bin/env python3
"""make bench: HotWarm beside etcd on this machine, in one run, alternating. Prints a table with ratios and writes
build/bench/bench.json. Nothing here is compared with figures from elsewhere.

  bench.py [--etcd PATH] [--trials N] [--seconds S] [--quick]

Without --etcd the distribution's etcd-server package is unpacked (not installed) into build/bench.
"""
import argparse
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from lib.hotwarm import HWLOAD, PATIENCE, ROOT, Cluster, Failed, free_ports, run, wait_for  # noqa: E402

OUT = os.path.join(ROOT, "build", "bench")


def find_etcd(path):
    if path:
        return path
    found = shutil.which("etcd") or os.path.join(OUT, "etcd-server", "usr", "bin", "etcd")
    if not os.path.exists(found):
        print("bench: unpacking the distribution's etcd-server (nothing is installed)", flush=True)
        with tempfile.TemporaryDirectory(dir=OUT) as tmp:
            done = subprocess.run(["apt-get", "download", "-q", "etcd-server"], cwd=tmp, capture_output=True, text=True)
            packages = glob.glob(os.path.join(tmp, "*.deb"))
            if done.returncode != 0 or not packages:
                raise Failed("etcd-server cannot be fetched; give --etcd PATH: " + done.stderr.strip()[-300:])
            subprocess.run(["dpkg", "-x", packages[0], os.path.join(OUT, "etcd-server")], check=True)
    return found


class EtcdNode:
    def __init__(self, name, folder, client, peer):
        self.name, self.folder = name, folder
        self.client, self.peer = f"127.0.0.1:{client}", f"127.0.0.1:{peer}"
        self.process = None


class Etcd:
    """Three members of etcd on loopback. tuned: heartbeat 20 ms, election 200 ms, etcd's fastest sensible setting."""

    def __init__(self, binary, tuned=False):
        self.binary, self.tuned = binary, tuned
        self.folder = tempfile.mkdtemp(prefix="bench-etcd-", dir=OUT)
        ports = free_ports(6)
        self.nodes = [EtcdNode(f"e{i}", os.path.join(self.folder, f"e{i}"), ports[2 * i], ports[2 * i + 1])
                      for i in range(3)]

    def __enter__(self):
        for n in self.nodes:
            self.start(n)
        for n in self.nodes:
            wait_for(f"etcd {n.name} is healthy",
                     lambda n=n: run("etcdctl", "--endpoints", n.client, "endpoint", "health",
                                     env={"ETCDCTL_API": "3"})[0] == 0, 30, 0.2)
        return self

    def start(self, n):
        initial = ",".join(f"{m.name}=http://{m.peer}" for m in self.nodes)
        argv = [self.binary, "--name", n.name, "--data-dir", n.folder, "--listen-client-urls", f"http://{n.client}",
                "--advertise-client-urls", f"http://{n.client}", "--listen-peer-urls", f"http://{n.peer}",
                "--initial-advertise-peer-urls", f"http://{n.peer}", "--initial-cluster", initial,
                "--logger", "zap", "--log-level", "error"]
        if self.tuned:
            argv += ["--heartbeat-interval", "20", "--election-timeout", "200"]
        n.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder,
                                     env={**os.environ, "ETCD_UNSUPPORTED_ARCH": ""})

    def __exit__(self, *_):
        for n in self.nodes:
            if n.process and n.process.poll() is None:
                n.process.kill()
                n.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def hot(self):
        code, out, _ = run("etcdctl", "--endpoints", ",".join(n.client for n in self.nodes if n.process.poll() is None),
                           "-w", "json", "endpoint", "status", env={"ETCDCTL_API": "3"})
        for row in json.loads(out) if code == 0 else []:
            if row["Status"]["leader"] == row["Status"]["header"]["member_id"]:
                return next(n for n in self.nodes if n.client == row["Endpoint"])
        raise Failed("etcd has no leader")

    def kill(self, n):
        n.process.kill()
        n.process.wait()


class HotWarm(Cluster):
    def kill(self, n):
        n.kill()

    def start(self, n=None):
        if n is None:
            super().start()
        else:
            n.start()


def rss_mb(nodes):
    pages = 0
    for n in nodes:
        with open(f"/proc/{n.process.pid}/status") as f:
            pages += int(next(line for line in f if line.startswith("VmRSS")).split()[1])
    return pages / len(nodes) / 1024


def cpu_seconds(nodes):
    total = 0.0
    for n in nodes:
        with open(f"/proc/{n.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def steal_ticks():
    with open("/proc/stat") as f:
        fields = f.readline().split()
    return int(fields[8]), sum(int(x) for x in fields[1:9])


def put_load(system, clients, seconds, prefix):
    log = os.path.join(OUT, "acknowledged.log")
    before = cpu_seconds(system.nodes)
    code, out, err = run(HWLOAD, "write", "--endpoints", system.hot().client, "--log", log, "--clients", str(clients),
                         "--seconds", str(seconds), "--size", "256", "--prefix", prefix, timeout=seconds + 60)
    if code != 0:
        raise Failed(f"load: {err}")
    result = json.loads(out)
    result["server_us_per_put"] = (cpu_seconds(system.nodes) - before) * 1e6 / result["acknowledged"]
    return result


def kill_trial(system, trial):
    """kill -9 of the hot node under a light load, clients on the survivors; the gap around the kill, and what was lost."""
    log = os.path.join(OUT, "acknowledged.log")
    hot = system.hot()
    others = [n for n in system.nodes if n is not hot]
    load = subprocess.Popen([HWLOAD, "write", "--endpoints", ",".join(n.client for n in others), "--log", log,
                             "--clients", "4", "--seconds", "5", "--rate", "400", "--prefix", f"kill{trial}/"],
                            stdout=subprocess.PIPE, text=True)
    time.sleep(1.0)
    system.kill(hot)
    out, _ = load.communicate(timeout=60 * PATIENCE)
    result = json.loads(out)
    code, text, _ = run(HWLOAD, "verify", "--endpoints", others[0].client, "--log", log, "--prefix", f"kill{trial}/")
    result["lost"] = json.loads(text)["missing"] if code in (0, 1) else -1
    system.start(hot)
    wait_for("the killed node answers again",
             lambda: run("etcdctl", "--endpoints", hot.client, "endpoint", "health", env={"ETCDCTL_API": "3"})[0] == 0,
             30, 0.1)
    return result


def row(name, ours, theirs, unit, better, places=1):
    ratio = ours / theirs if theirs else float("nan")
    print(f"  {name:<44}{ours:>14,.{places}f}{theirs:>14,.{places}f}  {unit:<6}{ratio:>8.2f}x  {better}", flush=True)
    return {"name": name, "hotwarm": ours, "etcd": theirs, "unit": unit, "ratio": ratio}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--etcd")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--quick", action="store_true", help="one short pass, to see that it works")
    args = parser.parse_args()
    if args.quick:
        args.trials, args.seconds = 1, 2
    os.makedirs(OUT, exist_ok=True)
    etcd = find_etcd(args.etcd)
    version = run(etcd, "--version")[1].splitlines()[0]
    rows, lost = [], {"hotwarm": 0, "etcd": 0}
    steal = steal_ticks()
    print(f"HotWarm beside {version}, three nodes each on this machine, alternating in one run\n")
    print(f"  {'':<44}{'HotWarm':>14}{'etcd':>14}  {'':<6}{'ratio':>9}")
    with HotWarm(3, folder=tempfile.mkdtemp(prefix="bench-hotwarm-", dir=OUT)) as ours, Etcd(etcd) as theirs:
        rows.append(row("resident memory of a node, idle", rss_mb(ours.nodes), rss_mb(theirs.nodes), "MiB", "less is better"))
        for clients in (1, 64, 256):
            a = put_load(ours, clients, args.seconds, f"put{clients}/")
            b = put_load(theirs, clients, args.seconds, f"put{clients}/")
            rows.append(row(f"put, {clients} clients, 256 bytes", a["per_second"], b["per_second"], "/s", "more is better", 0))
            for q in ("p50_ms", "p99_ms"):
                rows.append(row(f"put, {clients} clients, {q[:3]}", a[q], b[q], "ms", "less is better", 2))
            rows.append(row(f"put, {clients} clients, server CPU of all nodes", a["server_us_per_put"],
                            b["server_us_per_put"], "us", "less is better"))
        keys = [json.loads(run("etcdctl", "--endpoints", s.hot().client, "-w", "json", "get", "put", "--prefix",
                               "--limit", "1", env={"ETCDCTL_API": "3"})[1])["count"] for s in (ours, theirs)]
        a, b = rss_mb(ours.nodes), rss_mb(theirs.nodes)
        rows.append(row("resident memory of a node, after the puts", a, b, "MiB", f"keys held: {keys[0]:,} and {keys[1]:,}"))
    gaps = {"hotwarm": [], "etcd": [], "etcd tuned": []}
    for trial in range(args.trials):
        for name, make in (("hotwarm", lambda: HotWarm(3, folder=tempfile.mkdtemp(prefix="bench-hotwarm-", dir=OUT))),
                           ("etcd", lambda: Etcd(etcd)), ("etcd tuned", lambda: Etcd(etcd, tuned=True))):
            with make() as system:
                result = kill_trial(system, trial)
                gaps[name].append(result["longest_gap_ms"])
                lost["hotwarm" if name == "hotwarm" else "etcd"] += max(result["lost"], 0)
    med = {k: statistics.median(v) for k, v in gaps.items()}
    rows.append(row(f"kill -9 to next acknowledgement, median", med["hotwarm"], med["etcd"], "ms", "at defaults"))
    rows.append(row("  beside etcd at heartbeat 20, election 200", med["hotwarm"], med["etcd tuned"], "ms", "less is better"))
    rows.append(row("acknowledged puts lost in those kills", lost["hotwarm"], lost["etcd"], "", "must be 0", 0))
    now = steal_ticks()
    stolen = 100.0 * (now[0] - steal[0]) / max(1, now[1] - steal[1])
    print(f"\n  steal during the run: {stolen:.1f} %; json: build/bench/bench.json")
    with open(os.path.join(OUT, "bench.json"), "w") as f:
        json.dump({"etcd": version, "rows": rows, "gaps_ms": gaps, "lost": lost, "steal_percent": stolen}, f, indent=1)
    return 1 if lost["hotwarm"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as e:
        print(f"bench: {e}", file=sys.stderr)
        sys.exit(1)
