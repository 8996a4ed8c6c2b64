"""A cluster of real agents on loopback, for the demo and the integration tests. Standard library only.

Every wait has a deadline and a condition; nothing sleeps in the hope that something has happened meanwhile. Only
processes started here are signalled, by their id.
"""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VARIANT = os.environ.get("VARIANT", "release")
BUILD = os.path.join(ROOT, "build", VARIANT)
HWAGENT = os.path.join(BUILD, "hwagent")
HWCTL = os.path.join(BUILD, "hwctl")
HWLOAD = os.path.join(BUILD, "hwload")
# Sanitizer builds are slower; a deadline is for a hang, not for speed.
PATIENCE = float(os.environ.get("PATIENCE", "3" if VARIANT == "asan" else "1"))


if VARIANT == "asan":
    # As in a release build: an allocation of an absurd size is an error to handle, not the end.
    os.environ.setdefault("ASAN_OPTIONS", "allocator_may_return_null=1")


class Failed(Exception):
    """A condition did not come true in time, or a command said no."""


_last_port = 0


def free_ports(count):
    """Ports that were free a moment ago, from below the range that the kernel gives to outgoing connections. None is
    given twice: the port of a node that is down just now is not free."""
    global _last_port
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        low = int(f.read().split()[0])
    ports, candidate = [], _last_port or 10000 + (os.getpid() * 37) % max(1, low - 11000)
    while len(ports) < count:
        candidate = _last_port = 10000 + (candidate - 10000 + 1) % max(1, low - 10001)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", candidate))
                ports.append(candidate)
            except OSError:
                pass
    return ports


def wait_for(what, condition, seconds=20.0, every=0.01):
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"not in {seconds * PATIENCE:.0f} s: {what}")
        time.sleep(every)


def http_get(address, path, timeout=2.0):
    """(status, body) or (0, reason)."""
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except OSError as e:
        return 0, str(e)
    except http.client.HTTPException as e:
        return 0, repr(e)
    finally:
        connection.close()


def run(*argv, timeout=30, stdin=None, env=None):
    """(exit code, stdout, stderr) of a command."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout * PATIENCE, input=stdin,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


class Node:
    def __init__(self, cluster, name, client, peer):
        self.cluster, self.name = cluster, name
        self.client, self.peer = f"127.0.0.1:{client}", f"127.0.0.1:{peer}"
        self.data = os.path.join(cluster.folder, name)
        self.config = os.path.join(cluster.folder, name + ".yaml")
        self.log = os.path.join(cluster.folder, name + ".log")
        self.process = None

    def write_config(self, initial=None, join=None, cluster=None, node=None, listen=None, **extra):
        """Sections of `extra` are added as they are (dicts, or one value for a key of the top); the keys of cluster,
        node and listen are added to what is written here."""
        name = (cluster or {}).get("name", "test")
        lines = ["format: 1", "cluster:", f"  name: {name}"]
        lines += [f"  {k}: {v}" for k, v in (cluster or {}).items() if k != "name"]
        if initial:
            lines.append("  initial:")
            for n in initial:
                lines += [f"    - name: {n.name}", f"      peer: {n.peer}"]
        if join:
            lines.append("  join:")
            lines += [f"    - {n.peer}" for n in join]
        own = {"name": self.name, "data": self.data, **(node or {})}
        listening = {"client": self.client, "peer": self.peer, **(listen or {})}
        for section, keys in {"node": own, "listen": listening, **extra}.items():
            if not isinstance(keys, dict):
                lines.append(f"{section}: {keys}")
                continue
            lines.append(f"{section}:")
            lines += [f"  {k}: {v}" for k, v in keys.items()]
        with open(self.config, "w") as f:
            f.write("\n".join(lines) + "\n")

    def start(self, prefix=()):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([*prefix, HWAGENT, "--config", self.config], stderr=log, stdout=log,
                                            stdin=subprocess.DEVNULL)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """kill -9"""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds=20):
        """SIGTERM; returns the exit code."""
        if not self.is_running():
            return self.process.returncode if self.process else None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed(f"{self.name} did not stop on SIGTERM; its log: {self.log}")

    def wipe(self):
        shutil.rmtree(self.data)

    def is_ready(self):
        return http_get(self.client, "/readyz")[0] == 200

    def is_hot(self):
        return http_get(self.client, "/hot")[0] == 200

    def status(self):
        """This node's own row of /v1/status; {} when it does not answer."""
        code, body = http_get(self.client, "/v1/status?local=true")
        return json.loads(body)["nodes"][0] if code == 200 else {}

    def cluster_status(self):
        """All of /v1/status, as this node sees it; {} when it does not answer."""
        code, body = http_get(self.client, "/v1/status", timeout=5.0)
        return json.loads(body) if code == 200 else {}

    def log_lines(self, count=8):
        return self.log_text().splitlines()[-count:] if os.path.exists(self.log) else []

    def log_text(self):
        with open(self.log, errors="replace") as f:
            return f.read()


class Cluster:
    """with Cluster(3) as c: ... stops its agents and removes its folder; keeps the folder when the block fails."""

    live = []  # what a runner shows the logs of when a test fails

    def __init__(self, count=3, start=True, folder=None, **extra):
        Cluster.live.append(self)
        self.folder = folder or tempfile.mkdtemp(prefix="hotwarm-test-")
        self.extra = extra
        ports = free_ports(2 * count)
        self.nodes = [Node(self, f"n{i + 1}", ports[2 * i], ports[2 * i + 1]) for i in range(count)]
        for n in self.nodes:
            n.write_config(initial=self.nodes, **extra)
        if start:
            self.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self in Cluster.live:
            Cluster.live.remove(self)
        for n in self.nodes:
            if n.is_running():
                try:
                    n.stop()
                except Failed:
                    if kind is None:
                        raise
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            print(f"(kept for reading: {self.folder})", flush=True)

    def start(self):
        for n in self.nodes:
            n.start()
        self.wait_ready()

    def wait_ready(self, nodes=None):
        for n in nodes or self.nodes:
            wait_for(f"{n.name} is ready", lambda n=n: n.is_ready() or self._died(n), 30)

    def wait_registered(self):
        """Until the nodes that run have said who and where they are: commands name nodes only after that."""
        names = {n.name for n in self.nodes if n.is_running()}
        wait_for("all nodes are registered", lambda: names <= {
            field.strip() for field in self.etcdctl("member", "list", node=self.hot())[1].replace("\n", ",").split(",")})

    @staticmethod
    def _died(n):
        if not n.is_running():
            raise Failed(f"{n.name} ended with {n.process.returncode}:\n" + "\n".join(n.log_text().splitlines()[-5:]))
        return False

    def hot(self, seconds=20):
        """The hot node; waits for one."""
        return wait_for("a hot node", lambda: next((n for n in self.nodes if n.is_running() and n.is_hot()), None),
                        seconds)

    def warm(self):
        hot = self.hot()
        return next(n for n in self.nodes if n is not hot and n.is_running())

    def add_node(self, name, **kwargs):
        ports = free_ports(2)
        n = Node(self, name, *ports)
        n.write_config(**{**self.extra, **kwargs})
        self.nodes.append(n)
        return n

    def endpoints(self):
        return ",".join(n.client for n in self.nodes)

    def hwctl(self, *args, endpoints=None, **kwargs):
        return run(HWCTL, "--endpoints", endpoints or self.endpoints(), *args, **kwargs)

    def etcdctl(self, *args, node=None, **kwargs):
        return run("etcdctl", "--endpoints", node.client if node else self.endpoints(), *args,
                   env={"ETCDCTL_API": "3"}, **kwargs)
