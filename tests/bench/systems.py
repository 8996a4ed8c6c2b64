"""The systems that are measured: three nodes each on loopback, one class a system, the same methods.

    nodes, leader(), endpoints(nodes), start(node), kill(node), compact(), move_leader(), save_snapshot(path),
    rebuild(node), flags (of hwbench), can (what the rows may ask of it)
"""
import glob
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time

from lib.hotwarm import BUILD, ROOT, Cluster, Failed, free_ports, run, wait_for

OUT = os.path.join(ROOT, "build", "bench")
HWBENCH = os.path.join(BUILD, "hwbench")
IDEAL = os.path.join(BUILD, "ideal")
V3 = {"ETCDCTL_API": "3"}
KV = {"put", "get", "txn", "range", "watch", "lease", "kill", "move", "state"}


def find_etcd(path):
    """The binary and its version. Without a path the distribution's package is unpacked, not installed."""
    found = path or shutil.which("etcd") or os.path.join(OUT, "etcd-server", "usr", "bin", "etcd")
    if not path and not os.path.exists(found):
        print("bench: unpacking the distribution's etcd-server (nothing is installed)", flush=True)
        with tempfile.TemporaryDirectory(dir=OUT) as tmp:
            done = subprocess.run(["apt-get", "download", "-q", "etcd-server"], cwd=tmp, capture_output=True, text=True)
            packages = glob.glob(os.path.join(tmp, "*.deb"))
            if done.returncode != 0 or not packages:
                raise Failed("etcd-server cannot be fetched; give --etcd PATH: " + done.stderr.strip()[-300:])
            subprocess.run(["dpkg", "-x", packages[0], os.path.join(OUT, "etcd-server")], check=True)
    try:
        return found, run(found, "--version")[1].splitlines()[0]
    except (OSError, IndexError) as e:
        raise Failed(f"{found} is not an etcd that runs here: {e}") from e


def is_healthy(client):
    return run("etcdctl", "--endpoints", client, "endpoint", "health", env=V3)[0] == 0


def compact_at(client):
    """Forget old versions, so that no row pays for the puts of the rows before it."""
    code, out, err = run("etcdctl", "--endpoints", client, "-w", "json", "get", "bench-no-such-key", env=V3)
    if code != 0:
        raise Failed(f"compact: {err}")
    revision = json.loads(out)["header"]["revision"]
    run("etcdctl", "--endpoints", client, "compaction", str(revision), env=V3, timeout=120)


class HotWarm(Cluster):
    name, column, flags, can = "HotWarm", "hotwarm", [], KV

    def __init__(self):
        super().__init__(3, folder=tempfile.mkdtemp(prefix="hotwarm-", dir=OUT))

    def start(self, n=None):
        if n is None:
            super().start()
            return
        n.start()
        self.wait_ready([n])
        wait_for(f"{n.name} votes", lambda: n.status().get("role") == "voter", 60)

    def leader(self):
        return self.hot()

    def kill(self, n):
        n.kill()

    def restart(self, n):
        n.stop()
        began = time.monotonic()
        n.start()
        return began

    def compact(self):
        compact_at(self.hot().client)

    def move_leader(self):
        return self.hwctl("switchover", "--timeout", "15000")[0] == 0

    def save_snapshot(self, path):
        code, _, err = self.hwctl("snapshot", "save", path, "--timeout", "60000", timeout=600)
        if code != 0:
            raise Failed(f"snapshot save: {err}")

    def rebuild(self, n):
        n.kill()
        n.wipe()
        began = time.monotonic()
        n.start()
        return began, lambda: n.status().get("role") == "voter"


class EtcdNode:
    def __init__(self, name, folder, client, peer):
        self.name, self.data = name, os.path.join(folder, name)
        self.client, self.peer = f"127.0.0.1:{client}", f"127.0.0.1:{peer}"
        self.process = None

    def is_running(self):
        return self.process is not None and self.process.poll() is None


class Etcd:
    """tuned: heartbeat 20 ms, election 200 ms, for who wants a fast failover from etcd."""

    flags, can = [], KV
    binary = None

    def __init__(self, tuned=False):
        self.tuned = tuned
        self.name, self.column = ("etcd 20/200", "etcd_tuned") if tuned else ("etcd", "etcd")
        self.folder = tempfile.mkdtemp(prefix="etcd-", dir=OUT)
        ports = free_ports(6)
        self.nodes = [EtcdNode(f"e{i}", self.folder, ports[2 * i], ports[2 * i + 1]) for i in range(3)]

    def __enter__(self):
        try:
            for n in self.nodes:
                self.spawn(n)
            for n in self.nodes:
                wait_for(f"etcd {n.name} is healthy", lambda n=n: is_healthy(n.client), 30, 0.1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for n in self.nodes:
            if n.is_running():
                self.kill(n)
        shutil.rmtree(self.folder, ignore_errors=True)

    def spawn(self, n, state="new"):
        initial = ",".join(f"{m.name}=http://{m.peer}" for m in self.nodes)
        argv = [self.binary, "--name", n.name, "--data-dir", n.data, "--listen-client-urls", f"http://{n.client}",
                "--advertise-client-urls", f"http://{n.client}", "--listen-peer-urls", f"http://{n.peer}",
                "--initial-advertise-peer-urls", f"http://{n.peer}", "--initial-cluster", initial,
                "--initial-cluster-state", state, "--logger", "zap", "--log-level", "error",
                "--quota-backend-bytes", str(8 << 30)]
        if self.tuned:
            argv += ["--heartbeat-interval", "20", "--election-timeout", "200"]
        n.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder)

    def start(self, n):
        self.spawn(n)
        wait_for(f"etcd {n.name} is healthy", lambda: is_healthy(n.client), 60, 0.1)

    def kill(self, n):
        n.process.kill()
        n.process.wait()

    def restart(self, n):
        n.process.send_signal(signal.SIGTERM)
        n.process.wait(60)
        began = time.monotonic()
        self.spawn(n)
        return began

    def status(self):
        """(node, member id, is leader) of each that runs."""
        live = [n for n in self.nodes if n.is_running()]
        code, out, _ = run("etcdctl", "--endpoints", ",".join(n.client for n in live), "-w", "json", "endpoint",
                           "status", env=V3)
        rows = [r for r in (json.loads(out) if code == 0 else []) if "header" in r.get("Status", {})]
        return [(next(n for n in live if n.client == r["Endpoint"]), r["Status"]["header"]["member_id"],
                 r["Status"]["leader"] == r["Status"]["header"]["member_id"]) for r in rows]

    def leader(self):
        return wait_for("a leader of etcd", lambda: next((n for n, _, leads in self.status() if leads), None), 20, 0.1)

    def endpoints(self):
        return ",".join(n.client for n in self.nodes)

    def compact(self):
        compact_at(self.leader().client)

    def move_leader(self):
        status = self.status()
        old = next(n for n, _, leads in status if leads)
        to = next(member for _, member, leads in status if not leads)
        return run("etcdctl", "--endpoints", old.client, "move-leader", f"{to:x}", env=V3)[0] == 0

    def save_snapshot(self, path):
        code, _, err = run("etcdctl", "--endpoints", self.leader().client, "snapshot", "save", path, env=V3, timeout=600)
        if code != 0:
            raise Failed(f"snapshot save: {err}")

    def rebuild(self, n):
        """What its manual says: take the member out, let it in again, start it empty."""
        member = next(m for node, m, _ in self.status() if node is n)
        self.kill(n)
        shutil.rmtree(n.data)
        other = next(m for m in self.nodes if m is not n)
        began = time.monotonic()
        for argv in (["member", "remove", f"{member:x}"], ["member", "add", n.name, f"--peer-urls=http://{n.peer}"]):
            wait_for(" ".join(argv[:2]), lambda a=argv: run("etcdctl", "--endpoints", other.client, *a, env=V3)[0] == 0,
                     30, 0.1)
        self.spawn(n, "existing")
        return began, lambda: True


class IdealNode:
    def __init__(self, name, port):
        self.name, self.client, self.process = name, f"127.0.0.1:{port}", None

    def is_running(self):
        return self.process is not None and self.process.poll() is None


class Ideal:
    """The bare replicator (ideal.h): writes and reads, and nothing else."""

    name, column, flags, can = "ideal", "ideal", ["--system", "ideal"], {"put", "get"}

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="ideal-", dir=OUT)
        self.nodes = [IdealNode(name, port) for name, port in zip(("leader", "follower1", "follower2"), free_ports(3))]

    def __enter__(self):
        try:
            for n in self.nodes[1:]:
                self.spawn(n, "follower")
            self.spawn(self.nodes[0], "leader", "--followers",
                       ",".join(n.client.split(":")[1] for n in self.nodes[1:]))
        except BaseException:
            self.__exit__()
            raise
        return self

    def spawn(self, n, role, *args):
        n.process = subprocess.Popen([IDEAL, role, "--listen", n.client.split(":")[1], "--file",
                                      os.path.join(self.folder, n.name), *args], stdout=subprocess.PIPE, text=True)
        if not select.select([n.process.stdout], [], [], 60)[0] or n.process.stdout.readline() != "ready\n":
            raise Failed(f"the ideal's {n.name} is not ready")

    def __exit__(self, *_):
        for n in self.nodes:
            if n.is_running():
                n.process.kill()
                n.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def leader(self):
        return self.nodes[0]

    def compact(self):
        """It keeps no versions."""
