#!/usr/bin/env python3
"""Runs the integration tests: all, or those whose name contains the argument. One line per test, one at the end.

A test that does not end is a failure: an alarm interrupts it. With a failure, the last lines of the logs of the nodes
that were up are printed.
"""
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from lib.hotwarm import PATIENCE, Cluster  # noqa: E402

TEST_SECONDS = 120 * PATIENCE
LOG_LINES = 12


class Hung(Exception):
    pass


def on_alarm(_signum, _frame):
    raise Hung(f"the test did not end in {TEST_SECONDS:.0f} s")


def name_of(test):
    return test.id() if hasattr(test, "id") else str(test)


class Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.passed, self.failed, self.skip_count, self.has_failed = 0, 0, 0, False

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, TEST_SECONDS)

    def stopTest(self, test):
        signal.setitimer(signal.ITIMER_REAL, 0)
        super().stopTest(test)
        if self.has_failed:
            self.has_failed = False
            self.print_logs()

    def line(self, verdict, test, text=""):
        seconds = time.monotonic() - getattr(self, "started", time.monotonic())
        print(f"{verdict}  {seconds:6.2f} s  {name_of(test)}{text}", flush=True)

    def _failed(self, test, text):
        self.failed += 1
        self.line("FAIL", test)
        print(text, flush=True)
        self.has_failed = True

    def print_logs(self):
        for cluster in Cluster.live:
            for n in cluster.nodes:
                print(f"--- {n.name} ({'up' if n.is_running() else 'down'}), {n.log}", flush=True)
                print("\n".join(n.log_lines(LOG_LINES)), flush=True)

    def addSuccess(self, test):
        self.passed += 1
        self.line("PASS", test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._failed(test, self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self._failed(test, self.errors[-1][1])

    def addSubTest(self, test, subtest, err):
        if err is not None:
            super().addSubTest(test, subtest, err)
            self._failed(subtest, self._exc_info_to_string(err, test))

    def addExpectedFailure(self, test, err):
        """A known failure, written down as such: passes until it is mended, then it must lose the mark."""
        self.passed += 1
        self.line("PASS", test, " (known failure)")

    def addUnexpectedSuccess(self, test):
        self.failed += 1
        self.line("FAIL", test, ": works now; take the mark of the known failure away")

    def addSkip(self, test, reason):
        self.skip_count += 1
        self.line("SKIP", test, f": {reason}")


def tests_of(suite):
    for t in suite:
        if isinstance(t, unittest.TestSuite):
            yield from tests_of(t)
        else:
            yield t


def main():
    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts us in the background had it ignored
    wanted = sys.argv[1:]
    folder = os.path.dirname(os.path.abspath(__file__))
    found = list(tests_of(unittest.defaultTestLoader.discover(folder, pattern="test_*.py")))
    chosen = [t for t in found if not wanted or any(w in name_of(t) for w in wanted)]
    result = Result()
    if wanted and not chosen:
        print(f"no test has a name that contains {' or '.join(wanted)}", file=sys.stderr)
        return 2
    unittest.TestSuite(chosen).run(result)
    skipped = f", {result.skip_count} skipped" if result.skip_count else ""
    print(f"{result.passed} passed, {result.failed} failed{skipped}")
    return 1 if result.failed or result.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
