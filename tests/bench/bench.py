#!/usr/bin/env python3
"""make bench: HotWarm, etcd and a bare replicator (ideal.h) on this machine, in one run, alternating. Prints a table
with ratios, writes build/bench/bench.json and bench.svg. Nothing here is compared with figures from elsewhere.

  bench.py [--etcd PATH] [--rows NAME,...] [--rounds N] [--seconds S] [--trials N] [--quick] [--publish] [--list]

Without --etcd the distribution's etcd-server package is unpacked (not installed) into build/bench. Exit 1 when an
acknowledged write was lost by HotWarm, or when a row could not be measured.
"""
import argparse
import contextlib
import os
import shutil
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

PAGE = os.path.join(ROOT, "docs", "performance.md")
PAGE_BEGIN, PAGE_END = "<!-- the table of make bench begins -->\n", "<!-- the table ends -->\n"
OWN_CLUSTERS = ("state", "kill", "switchover")


def as_the_unit_file_says():
    """The environment that deploy/hotwarm.service gives to an agent. The load generator and the ideal get it too."""
    with open(os.path.join(ROOT, "deploy", "hotwarm.service")) as f:
        for line in f:
            if line.startswith("Environment="):
                name, value = line.strip().removeprefix("Environment=").split("=", 1)
                os.environ.setdefault(name, value)


def publish(text):
    with open(PAGE) as f:
        head, rest = f.read().split(PAGE_BEGIN)
    with open(PAGE, "w") as f:
        f.write(head + PAGE_BEGIN + "\n```text\n" + "\n".join(text) + "\n```\n\n" + PAGE_END +
                rest.split(PAGE_END)[1])
    shutil.copy(os.path.join(OUT, "bench.svg"), os.path.join(ROOT, "docs", "performance.svg"))


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
    parser.add_argument("--seconds", type=float, help="measured time of one turn (4)")
    parser.add_argument("--trials", type=int, help="kills and switchovers of each system (20)")
    parser.add_argument("--quick", action="store_true", help="a short pass to see that it works; not for figures")
    parser.add_argument("--publish", action="store_true",
                        help="put the table into docs/performance.md and the picture beside it")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    return parser.parse_args()


def run_rows(names, plan, table):
    """The rows that fail, each with its reason."""
    failed, began = {}, time.monotonic()
    with contextlib.ExitStack() as stack:
        bench = Bench([], plan, table)
        for i, name in enumerate(names):
            print(f"  -- {name}: row {i + 1} of {len(names)}, {time.monotonic() - began:.0f} s so far", flush=True)
            table.row = name
            try:
                if name in OWN_CLUSTERS:
                    stack.close()  # nothing idle beside what is measured now
                elif not bench.systems:
                    bench = Bench([stack.enter_context(make()) for make in (HotWarm, Etcd, Ideal)], plan, table)
                all_rows(bench)[name]()
            except Exception as e:  # whatever it is: the other rows are worth having
                failed[name] = f"{type(e).__name__}: {e}"
                print(f"  (!) row {name}: {failed[name]}", flush=True)
                bench = Bench([], plan, table)  # fresh clusters for the next
                close_quietly(stack)
    return failed


def close_quietly(stack):
    try:
        stack.close()
    except Exception as e:
        print(f"  (!) closing the clusters: {e}", flush=True)


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
    as_the_unit_file_says()
    build_tools()
    Etcd.binary, version = find_etcd(args.etcd)
    table, before, began = Table(), stat_ticks(), time.monotonic()
    load_before = os.getloadavg()
    table.out(f"HotWarm ({VARIANT}) beside {version} and the ideal: three nodes each on this machine, alternating; "
              f"{os.cpu_count()} processors, load before {load_before[0]:.2f}; {plan.rounds} turns of {plan.seconds:g} s, "
              f"{plan.trials} trials")
    if args.quick:
        table.out("QUICK: shows that it works; these are not figures to quote")
    if load_before[0] > 0.5:
        table.out("(!) the machine was not idle before this run: expect noise")
    table.out("\n" + HEADER)
    failed = run_rows([n for n in known if n in chosen], plan, table)
    steal, took = steal_percent(before), time.monotonic() - began
    about = {"etcd": version, "variant": VARIANT, "quick": args.quick, "rounds": plan.rounds, "seconds": plan.seconds,
             "trials": plan.trials, "processors": os.cpu_count(), "loadavg_before": load_before,
             "steal_percent": steal, "took_s": took, "failed": failed}
    table.write_json(os.path.join(OUT, "bench.json"), about)
    table.write_svg(os.path.join(OUT, "bench.svg"), f"HotWarm and {version}" + (" (quick pass)" if args.quick else ""))
    met, wanted = table.score()
    table.out(f"\n  {met} of {wanted} targets met; steal {steal:.1f} %; {took:.0f} s")
    for name, why in failed.items():
        table.out(f"  row {name} could not be measured: {why}")
    print("  build/bench/bench.json, build/bench/bench.svg")
    if args.publish:
        publish(table.text)
    lost = sum(line["values"]["hotwarm"] for line in table.lines if line["better"] == "zero")
    return 1 if lost or failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as e:
        print(f"bench: {e}", file=sys.stderr)
        sys.exit(1)
