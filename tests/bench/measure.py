"""One run of hwbench on one system, with what the servers and the machine did meanwhile."""
import json
import os
import subprocess
import threading
import time

from lib.hotwarm import Failed
from systems import HWBENCH, OUT

SECTOR_BYTES = 512
STEAL_WORTH_SAYING = 2.0  # percent


def stat_ticks():
    """(stolen, all) of the machine."""
    with open("/proc/stat") as f:
        fields = f.readline().split()
    return int(fields[8]), sum(int(x) for x in fields[1:9])


def steal_percent(since):
    now = stat_ticks()
    return 100.0 * (now[0] - since[0]) / max(1, now[1] - since[1])


def cpu_seconds(nodes):
    total = 0.0
    for n in nodes:
        with open(f"/proc/{n.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def rss_mib(n):
    with open(f"/proc/{n.process.pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1]) / 1024


def written_bytes(nodes):
    """As the kernel charges it to the processes: the whole page of the cache for every write into it, and such a page
    may be large. So this depends on how a file was made, and device_bytes is what counts."""
    total = 0
    for n in nodes:
        with open(f"/proc/{n.process.pid}/io") as f:
            total += int(next(line for line in f if line.startswith("write_bytes")).split()[1])
    return total


def device_bytes():
    """Written to the disk of the bench folder, by anybody."""
    device = os.stat(OUT).st_dev
    with open("/proc/diskstats") as f:
        for line in f:
            fields = line.split()
            if os.makedev(int(fields[0]), int(fields[1])) == device:
                return int(fields[9]) * SECTOR_BYTES
    return 0  # not a disk that the kernel counts, e.g. an overlay


class PeakMemory:
    """The most memory that a node had while the block ran."""

    def __init__(self, node):
        self.node, self.peak, self.over = node, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while not self.over.wait(0.05):
            try:
                self.peak = max(self.peak, rss_mib(self.node))
            except (OSError, StopIteration):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def start_hwbench(system, workload, *args, endpoints=None):
    argv = [HWBENCH, workload, *system.flags, "--endpoints", endpoints or system.leader().client, *map(str, args)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish_hwbench(process, what, timeout):
    """Its JSON; None when the server does not know the method."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Failed(f"{what}: hwbench did not end in {timeout} s") from None
    if process.returncode == 3:
        return None
    if process.returncode != 0:
        raise Failed(f"{what}: {err.strip() or out.strip() or process.returncode}")
    return json.loads(out)


def load(system, workload, *args, timeout=1000):
    """hwbench's figures, and server_cpu_us, written_per_op, device_per_op, peak_mib of the leader, steal."""
    what = f"{workload} on {system.name}"
    leader = system.leader()
    before = cpu_seconds(system.nodes), written_bytes(system.nodes), device_bytes(), stat_ticks(), time.monotonic()
    with PeakMemory(leader) as memory:
        result = finish_hwbench(start_hwbench(system, workload, *args, endpoints=leader.client), what, timeout)
    if result is None:
        return None
    if result["ops"] == 0:
        raise Failed(f"{what}: nothing ended within the window, so every time would read as 0: {result['text']}")
    ops = result["ops_all"]
    result["server_cpu_us"] = (cpu_seconds(system.nodes) - before[0]) * 1e6 / ops
    result["written_per_op"] = (written_bytes(system.nodes) - before[1]) / ops
    result["device_per_op"] = (device_bytes() - before[2]) / ops
    result["steal_percent"] = steal_percent(before[3])
    result["wall_s"] = time.monotonic() - before[4]
    result["peak_mib"] = memory.peak
    if result["steal_percent"] > STEAL_WORTH_SAYING:
        print(f"  (!) {what}: {result['steal_percent']:.1f} % of the time was stolen by the host", flush=True)
    if result["errors"] or result["refused"] or result["unfinished"] or result.get("missing"):
        print(f"  (!) {what}: {result['errors']} errors, {result['refused']} refused, {result['unfinished']} unfinished,"
              f" {result.get('missing', 0)} not found: {result['text']}", flush=True)
    return result
