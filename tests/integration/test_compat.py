"""The table of compat.py, run: every probe on a real etcd and on HotWarm, and the page that it writes.

`make compat` writes the page; with etcd at hand the run says whether the table tells the truth.
"""
import os
import shutil
import subprocess
import tempfile
import unittest

import compat
import h2
from base import Cluster, Failed, free_ports, http_get, run, wait_for
from test_etcdctl import find_etcd

ENDED = "the server ended"


class Etcd:
    """A real etcd of one member, begun anew without data when a probe has ended it."""

    def __init__(self, program):
        self.program, self.process, self.folder = program, None, tempfile.mkdtemp(prefix="hotwarm-etcd-")

    def start(self):
        self.stop()
        client, peer = free_ports(2)
        data = os.path.join(self.folder, str(client))
        with open(data + ".log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [self.program, "--data-dir", data, "--listen-client-urls", f"http://127.0.0.1:{client}",
                 "--advertise-client-urls", f"http://127.0.0.1:{client}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
                 "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster",
                 f"default=http://127.0.0.1:{peer}"], stdout=log, stderr=log)
        address = f"127.0.0.1:{client}"
        wait_for("etcd is healthy", lambda: http_get(address, "/health")[0] == 200, 30)
        return compat.Endpoint(address)

    def is_running(self):
        try:
            return self.process is not None and self.process.wait(0.05) is None
        except subprocess.TimeoutExpired:
            return True

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def close(self):
        self.stop()
        shutil.rmtree(self.folder, True)


def seen_by(endpoint, number, probe):
    try:
        endpoint.begin(number)
        return probe.call(endpoint)
    except (h2.Closed, OSError, Failed) as e:
        return f"{ENDED}: {e}"


def run_probes(wanted=lambda probe: True, on_probe=lambda *_: None):
    """[(probe, relation, what etcd said, what HotWarm said)]; None without an etcd."""
    program = find_etcd()
    if program is None:
        return None
    etcd, out = Etcd(program), []
    try:
        theirs = etcd.start()
        with Cluster(3) as cluster:
            cluster.wait_registered()
            ours = compat.Endpoint(cluster.hot().client)
            for number, probe in enumerate(compat.PROBES):
                if not wanted(probe):
                    continue
                a, b = seen_by(theirs, number, probe), seen_by(ours, number, probe)
                if not etcd.is_running():
                    a, theirs = ENDED, etcd.start()
                out.append((probe, compat.relation(a, b), a, b))
                on_probe(*out[-1])
            if any(not n.is_running() for n in cluster.nodes):
                raise Failed("a node has ended")
    finally:
        etcd.close()
    return out


class Compat(unittest.TestCase):
    def test_the_table_is_true(self):
        program = find_etcd()
        if program is None or " 3.4." not in run(program, "--version")[1]:
            self.skipTest("no etcd 3.4 here to compare with (Debian 12's package etcd-server)")
        found = run_probes()
        for probe, relation, etcd, hotwarm in found:
            with self.subTest(probe=f"{probe.area}: {probe.name}"):
                self.assertEqual(relation, probe.relation, f"\netcd:    {etcd}\nHotWarm: {hotwarm}")

    def test_the_page_is_what_the_table_says(self):
        with open(compat.PAGE, encoding="utf-8") as f:
            self.assertEqual(f.read(), compat.page(), "run make compat")

    def test_every_command_of_etcdctl_has_a_row(self):
        out = run("etcdctl", "help", env=compat.ENV)[1].split("COMMANDS:")[1].split("OPTIONS:")[0]
        names = [line.strip().split("\t")[0] for line in out.splitlines() if line.strip()]
        rows = [p.name for p in compat.PROBES if p.area == "etcdctl"]
        known = {name for row in rows for name in row.split(", ")}
        self.assertEqual([n for n in names if n not in known and n not in ("help",) and
                          not n.startswith("completion")], [])
