#!/usr/bin/env python3
"""make bench: HotWarm, etcd and a bare replicator (ideal.h) on this machine, in one run, alternating. Prints a table
with ratios, writes build/bench/bench.json and bench.svg. Nothing here is compared with figures from elsewhere.

  bench.py [--etcd PATH] [--rows NAME,...] [--rounds N] [--seconds S] [--trials N] [--quick] [--list]

Without --etcd the distribution's etcd-server package is unpacked (not installed) into build/bench. Exit 1 when an
acknowledged write was lost by HotWarm, or when a row could not be measured.
"""
import argparse
import contextlib
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
from lib.hotwarm import ROOT, VARIANT, Failed  # noqa: E402
from measure import stat_ticks, steal_percent  # noqa: E402
from rows import Bench, Plan, all_rows  # noqa: E402
from systems import HWBENCH, OUT, Etcd, HotWarm, Ideal, find_etcd  # noqa: E402
from table import HEADER, Table  # noqa: E402

OWN_CLUSTERS = ("state", "kill", "switchover")


def build_tools():
    done = subprocess.run(["make", "--no-print-directory", "-f", "tests/bench/bench.mk", f"VARIANT={VARIANT}",
                           "bench-tools"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed("the load generator and the ideal cannot be built:\n" + done.stderr[-2000:])
    if subprocess.run([HWBENCH, "selftest"], stdout=subprocess.DEVNULL).returncode != 0:
        raise Failed("hwbench's own check failed: its figures would be wrong")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etcd", help="a binary to use instead of the distribution's")
    parser.add_argument("--rows", help="only these, by name (--list)")
    parser.add_argument("--rounds", type=int, help="times that each system has its turn in a row (3)")
    parser.add_argument("--seconds", type=float, help="measured time of one turn (5)")
    parser.add_argument("--trials", type=int, help="kills and switchovers of each system (20)")
    parser.add_argument("--quick", action="store_true", help="a short pass to see that it works; not for figures")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    return parser.parse_args()


def run_rows(names, plan, table):
    """The rows that fail, each with its reason."""
    failed = {}
    with contextlib.ExitStack() as stack:
        shared = [n for n in names if n not in OWN_CLUSTERS]
        systems = [stack.enter_context(make()) for make in ((HotWarm, Etcd, Ideal) if shared else ())]
        bench = Bench(systems, plan, table)
        rows = all_rows(bench)
        for name in names:
            if name in OWN_CLUSTERS and systems:
                stack.close()  # nothing idle beside what is measured now
                systems = []
            table.row = name
            try:
                rows[name]()
            except Failed as e:
                failed[name] = str(e)
                print(f"  (!) row {name}: {e}", flush=True)
    return failed


def main():
    args = parse()
    plan = Plan(args.quick, args.trials, args.seconds, args.rounds)
    known = list(all_rows(Bench([], plan, Table())))
    if args.list:
        print("\n".join(known))
        return 0
    # The shared clusters are closed before the rows that have their own, so those come last whatever was asked.
    chosen = args.rows.split(",") if args.rows else known
    unknown = [n for n in chosen if n not in known]
    if unknown:
        raise Failed(f"no such row: {', '.join(unknown)}; --list prints them")
    os.makedirs(OUT, exist_ok=True)
    build_tools()
    Etcd.binary, version = find_etcd(args.etcd)
    table, before, began = Table(), stat_ticks(), time.monotonic()
    load_before = os.getloadavg()
    print(f"HotWarm ({VARIANT}) beside {version} and the ideal: three nodes each on this machine, alternating; "
          f"{os.cpu_count()} processors, load before {load_before[0]:.2f}")
    if args.quick:
        print("QUICK: shows that it works; these are not figures to quote")
    if load_before[0] > 0.5:
        print("(!) the machine was not idle before this run: expect noise")
    print("\n" + HEADER, flush=True)
    failed = run_rows([n for n in known if n in chosen], plan, table)
    steal, took = steal_percent(before), time.monotonic() - began
    about = {"etcd": version, "variant": VARIANT, "quick": args.quick, "rounds": plan.rounds, "seconds": plan.seconds,
             "trials": plan.trials, "processors": os.cpu_count(), "loadavg_before": load_before,
             "steal_percent": steal, "took_s": took, "failed": failed}
    table.write_json(os.path.join(OUT, "bench.json"), about)
    table.write_svg(os.path.join(OUT, "bench.svg"), f"HotWarm and {version}" + (" (quick pass)" if args.quick else ""))
    judged = [line for line in table.lines if line["target"]]
    met = sum(line["verdict"] == "met" for line in judged)
    print(f"\n  {met} of {len(judged)} targets met; steal {steal:.1f} %; {took:.0f} s; "
          "build/bench/bench.json, build/bench/bench.svg")
    lost = sum(line["values"]["hotwarm"] for line in table.lines if line["better"] == "zero")
    return 1 if lost or failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as e:
        print(f"bench: {e}", file=sys.stderr)
        sys.exit(1)
