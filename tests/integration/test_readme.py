"""The README's tour, pasted into a shell as it stands: its blocks, its ports. Only the folders are other ones."""
import os
import shutil
import socket
import subprocess
import tempfile
import unittest

from base import BUG_SIGNS, HWCTL, PATIENCE, ROOT, Failed, wait_for

PORTS = [2379, 2380] + [p + n for p in (12370, 12380) for n in (1, 2, 3)]


def tour():
    """The indented blocks of the tour, in order."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        text = f.read().split("## Five-minute tour")[1].split("\n## ")[0]
    blocks = [[]]
    for line in text.splitlines():
        if line.startswith("    "):
            blocks[-1].append(line[4:])
        elif line and blocks[-1]:
            blocks.append([])
    return ["\n".join(b) + "\n" for b in blocks if b]


def are_free(ports):
    for port in ports:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


class Tour(unittest.TestCase):
    def test_the_tour_runs_as_it_is_written(self):
        try:
            wait_for("the ports of the tour are free", lambda: are_free(PORTS), 60, every=1)
        except Failed as e:
            self.skipTest(str(e))
        folder = tempfile.mkdtemp(prefix="hotwarm-tour-")
        self.addCleanup(shutil.rmtree, folder, True)
        lines = [line for block in tour() for line in block.splitlines()]
        self.assertGreater(len(lines), 40)
        # Built already; and SQLite's program is no part of this project.
        lines = [line for line in lines if not line.startswith("make ") and
                 (shutil.which("sqlite3") or not line.startswith("sqlite3 "))]
        script = "\n".join(lines).replace("$PWD/build/release", os.path.dirname(HWCTL)).replace("/tmp/hw-tour", folder + "/tour")
        # A command that fails ends the tour. wait tells how an agent ended, and that of a killed one is no failure.
        script = "set -eE\ntrap 'echo \"line $LINENO: $BASH_COMMAND: exit $?\" >&2; kill $(jobs -p) 2>/dev/null' ERR\n" + script
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=240 * PATIENCE,
                              stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": folder, "ETCDCTL_API": "3"})
        said = f"{done.stdout}\n{done.stderr}"
        self.assertEqual(done.returncode, 0, said)
        self.assertEqual(os.listdir(folder), [], "the tour leaves something behind")
        self.assertIsNone(BUG_SIGNS.search(said), said)
        for words in ("hello", "hot moved from", "tour/session", "DELETE tour/session", "is whole",
                      "still"):
            self.assertIn(words, said)
