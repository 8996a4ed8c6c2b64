"""Days on which the disk, the folder, the configuration or the machine is not what it should be."""
import glob
import hashlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import unittest

import h2
from base import (HWAGENT, PATIENCE, Cluster, ClusterTest, Failed, Load, StandAloneTest, assert_converged, checksums, close,
                  free_ports, http_get, put_many, run, switchover, wait_for, wait_voters)

EXIT_DATA = 7
ONE = {"cluster": {"voters": 1}}


def has_private_mounts():
    return os.geteuid() == 0 and shutil.which("unshare") and run("unshare", "-m", "true")[0] == 0


def ends(node, seconds=20):
    """Starts the node and waits until it ends by itself; its exit code and what it said."""
    before = len(node.log_text()) if os.path.exists(node.log) else 0
    node.start()
    try:
        code = node.process.wait(seconds * PATIENCE)
    except subprocess.TimeoutExpired:
        node.kill()
        raise Failed(f"{node.name} goes on running:\n{node.log_text()[before:]}")
    return code, node.log_text()[before:]


def start_fails(test, node, *words, code=EXIT_DATA, prefix=()):
    """It ends with this code and a sentence with these words, and leaves every file as it was."""
    before = checksums(node.data)
    at = len(node.log_text())
    node.start(prefix)
    try:
        got = node.process.wait(20 * PATIENCE)
    except subprocess.TimeoutExpired:
        node.kill()
        raise Failed(f"{node.name} goes on running:\n{node.log_text()[at:]}")
    said = node.log_text()[at:]
    test.assertEqual(got, code, said)
    for word in words:
        test.assertRegex(said, word)
    after = checksums(node.data)
    # An image that was looked at may have SQLite's empty companions beside it.
    empty = hashlib.sha256(b"").hexdigest()
    for files in (before, after):
        for name in [n for n, h in files.items() if n in ("lock", "image.db-shm") or (n == "image.db-wal" and h == empty)]:
            del files[name]
    test.assertEqual(after, before)


class Alone(ClusterTest):
    """A node without others to rebuild from changes nothing and says what is wrong."""

    COUNT = 1
    EXTRA = ONE

    def setUp(self):
        self.node = self.cluster.nodes[0]
        if not self.node.is_running():  # a test before failed halfway
            if os.path.exists(self.node.data + ".copy"):
                shutil.rmtree(self.node.data)
                os.rename(self.node.data + ".copy", self.node.data)
            self.node.start()
            self.cluster.wait_ready()
        super().setUp()

    def stopped(self):
        self.revision = h2.put(self.node.client, "kept", "value")
        self.assertEqual(self.node.stop(), 0)
        self.copy = self.node.data + ".copy"
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.node.data, self.copy)
        return self.node

    def restored(self):
        """With the folder as it was, the node is as it was."""
        shutil.rmtree(self.node.data)
        os.rename(self.copy, self.node.data)
        self.node.start()
        self.cluster.wait_ready()
        self.assertEqual(h2.get(self.node.client, "kept"), (b"value", self.revision))

    def test_folder_locked_by_another_process(self):
        client, peer = free_ports(2)
        config = self.node.config + ".second"
        with open(self.node.config) as f, open(config, "w") as out:
            out.write(f.read().replace(self.node.client, f"127.0.0.1:{client}").replace(self.node.peer,
                                                                                        f"127.0.0.1:{peer}"))
        code, out, err = run(HWAGENT, "--config", config)
        self.assertEqual(code, EXIT_DATA, out + err)
        self.assertIn(str(self.node.process.pid), out + err)
        self.assertIn("LOCKED", out + err)
        h2.put(self.node.client, "k", "still served")

    def test_ports_in_use(self):
        node = self.stopped()
        for address in (node.client, node.peer):
            host, port = address.rsplit(":", 1)
            with socket.create_server((host, int(port))):
                start_fails(self, node, address, "(?i)in ?use")
        self.restored()

    def test_newer_identity(self):
        node = self.stopped()
        path = os.path.join(node.data, "identity")
        with open(path) as f:
            text = f.read()
        with open(path, "w") as f:
            f.write(text.replace("format=1\n", "format=9\n"))
        start_fails(self, node, "VERSION", "newer", "identity")
        self.restored()

    def test_newer_image(self):
        node = self.stopped()
        db = sqlite3.connect(os.path.join(node.data, "image.db"))
        db.execute("PRAGMA user_version = 99")
        db.commit()
        db.close()
        for left in glob.glob(os.path.join(node.data, "image.db-*")):
            os.remove(left)
        start_fails(self, node, "VERSION", "newer", "99")
        self.restored()

    def test_image_of_another_cluster(self):
        other = Cluster(1, **ONE)
        theirs = other.nodes[0]
        put_many(theirs, "x", 5)
        wait_for("the image is written", lambda: theirs.status()["image_index"] == theirs.status()["applied_index"])
        theirs.stop()
        node = self.stopped()
        shutil.copy(os.path.join(theirs.data, "image.db"), os.path.join(node.data, "image.db"))
        start_fails(self, node, "FOREIGN", "cluster")
        close(other)
        self.restored()

    def test_another_node_name(self):
        node = self.stopped()
        with open(node.config) as f:
            text = f.read()
        with open(node.config, "w") as f:
            f.write(text.replace("name: n1", "name: other"))
        start_fails(self, node, "FOREIGN", "'n1'", "'other'")
        with open(node.config, "w") as f:
            f.write(text)
        self.restored()

    def test_damage_without_others(self):
        node = self.stopped()
        with open(os.path.join(node.data, "image.db"), "r+b") as f:
            f.truncate(5000)
        start_fails(self, node, "CORRUPT", "image.db")
        self.restored()

        node = self.stopped()
        shutil.rmtree(os.path.join(node.data, "raft"))
        os.mkdir(os.path.join(node.data, "raft"))
        start_fails(self, node, "CORRUPT", "log")
        self.restored()

    @unittest.skipUnless(has_private_mounts(), "needs root and unshare -m")
    def test_folder_on_a_read_only_file_system(self):
        node = self.stopped()
        script = f"mount --bind {node.data} {node.data} && mount -o remount,ro,bind {node.data} && exec \"$@\""
        start_fails(self, node, "READONLY", "(?i)read-only", prefix=("unshare", "-m", "sh", "-c", script, "sh"))
        self.restored()

    def test_folder_that_is_a_file_or_has_no_parent(self):
        node = self.stopped()
        for path, make in ((node.data + ".file", True), ("/nowhere/at/all", False)):
            if make:
                open(path, "w").close()
            code, out, err = run(HWAGENT, "--config", node.config, env={"HOTWARM_NODE_DATA": path})
            self.assertNotEqual(code, 0)
            self.assertIn(path, out + err)
        self.restored()


class Damage(ClusterTest):
    """Any one file of one node may be damaged: the node is made whole by the others."""

    EXTRA = {"raft": {"snapshot_threshold": 64, "snapshot_trailing": 32}, "image": {"checkpoint_interval_ms": 20}}

    def kinds(self, data):
        """One file of each kind that is there."""
        found = {}
        for path in sorted(glob.glob(os.path.join(data, "*")) + glob.glob(os.path.join(data, "raft", "*"))):
            name = os.path.basename(path)
            if not os.path.isfile(path) or name == "lock" or os.path.getsize(path) == 0:
                continue
            kind = "snapshot meta" if name.endswith(".meta") else "snapshot" if name.startswith("snapshot-") else \
                "open segment" if name.startswith("open-") else "segment" if name[:1].isdigit() else name
            found.setdefault(kind, path)
        return found

    @staticmethod
    def flip(path):
        size = os.path.getsize(path)
        with open(path, "r+b") as f:
            for at in (size // 2, size // 2 + 1, size // 3, 9 if size > 9 else 0):
                f.seek(at)
                byte = f.read(1)
                f.seek(at)
                f.write(bytes([byte[0] ^ 0x5a]))

    @staticmethod
    def truncate(path):
        os.truncate(path, os.path.getsize(path) // 2)

    @staticmethod
    def empty(path):
        os.truncate(path, 0)

    @staticmethod
    def remove(path):
        os.remove(path)

    def harm(self, node, kind, how):
        old_id = node.status()["id"]
        with h2.Kv(self.cluster.hot().client) as kv:
            for i in range(90):
                self.acknowledged[f"damage/{i % 40}"] = kv.put(f"damage/{i % 40}", f"{kind} {how.__name__} {i}")
        node.kill()
        path = self.kinds(node.data).get(kind)
        if path is None:
            node.start()
            self.cluster.wait_ready([node])
            return False
        how(path)
        node.start()
        self.cluster.wait_ready([node])
        hot = self.cluster.hot()
        wait_voters(hot, [n.name for n in self.cluster.nodes])
        moved = glob.glob(os.path.join(node.data, "quarantine", "*-raft"))
        if len(moved) > len(self.moved):
            self.assertNotEqual(node.status()["id"], old_id, "voted again under its old id after its log was gone")
        self.moved = moved
        with h2.Kv(node.client) as kv:
            for key, revision in self.acknowledged.items():
                self.assertEqual(kv.get(key, serializable=False)[1], revision, f"{key} after {how.__name__} of {kind}") \
                    if key == "damage/0" else self.assertEqual(kv.get(key, serializable=True)[1], revision)
        return True

    def each(self, how, kinds):
        node = self.cluster.warm()
        self.acknowledged, self.moved = {}, glob.glob(os.path.join(node.data, "quarantine", "*-raft"))
        done = []
        for kind in kinds:
            try:
                if self.harm(node, kind, how):
                    done.append(kind)
            except Failed as e:
                raise Failed(f"{how.__name__} of {kind}: {e}") from e
        assert_converged(self, self.cluster.nodes)
        self.assertIn("image.db", done)
        return done

    KINDS = ["image.db", "image.db-wal", "identity", "metadata1", "metadata2", "segment", "open segment", "snapshot meta",
             "snapshot"]

    def test_flipped_bytes(self):
        self.each(self.flip, self.KINDS)

    def test_truncated(self):
        self.each(self.truncate, self.KINDS)

    def test_emptied(self):
        self.each(self.empty, ["image.db", "identity", "metadata1", "segment", "snapshot"])

    def test_removed(self):
        self.each(self.remove, ["image.db", "identity", "metadata1", "segment", "snapshot meta"])

    def test_whole_log_gone(self):
        node = self.cluster.warm()
        old_id = node.status()["id"]
        node.kill()
        shutil.rmtree(os.path.join(node.data, "raft"))
        node.start()
        self.cluster.wait_ready([node])
        wait_voters(self.cluster.hot(), [n.name for n in self.cluster.nodes])
        self.assertNotEqual(node.status()["id"], old_id)


class AllDamaged(StandAloneTest):
    """When every node's data is damaged at once, nobody is left to be rebuilt from: a new, empty cluster must not stand
    up in the place of the old one as if nothing had been lost."""

    def check(self, harm):
        cluster = self.make()
        put_many(cluster.hot(), "precious/", 20)
        assert_converged(self, cluster.nodes)
        for n in cluster.nodes:
            n.stop()
        for n in cluster.nodes:
            harm(n)
            n.start()
        for n in cluster.nodes:
            wait_for(f"{n.name} says why it waits", lambda n=n: "quarantine folder" in http_get(n.client, "/readyz")[1], 30)
            self.assertFalse(n.is_ready())
            self.assertNotIn("forming a cluster", n.log_text().split("starting again")[-1].split("starting anew")[-1])
        for n in cluster.nodes:  # what an operator does who wants to begin anew
            n.stop()
            os.rename(os.path.join(n.data, "quarantine"), n.data + ".kept")
            n.start()
        cluster.wait_ready()
        self.assertIsNone(h2.get(cluster.hot().client, "precious/00000")[0])

    def test_images(self):
        def harm(n):
            image = os.path.join(n.data, "image.db")
            for path in glob.glob(image + "-*"):
                os.remove(path)
            Damage.flip(image)
        self.check(harm)

    def test_logs(self):
        self.check(lambda n: shutil.rmtree(os.path.join(n.data, "raft")))


class LostTail(StandAloneTest):
    """A voter whose disk loses the end of its log, entries that it had acknowledged, must not stay behind for ever: the
    hot node believes that it has them."""

    def test_damaged_open_segment(self):
        cluster = self.make(image={"checkpoint_interval_ms": 600000})
        put_many(cluster.hot(), "tail/", 100)
        node = cluster.warm()
        assert_converged(self, cluster.nodes)
        node.kill()
        with open(sorted(glob.glob(os.path.join(node.data, "raft", "open-*")))[0], "r+b") as f:
            f.seek(1500)
            f.write(b"damage")
        node.start()
        cluster.wait_ready([node])
        with h2.Kv(node.client) as kv:
            self.assertEqual(kv.get("tail/00099")[0], b"v" * 16)
        assert_converged(self, cluster.nodes)


class DamagedMiddle(StandAloneTest):
    """Writes that two of three voters acknowledged, then damage in the middle of one's log while the other is down and the
    third is behind: what is left of the log must not become the truth."""

    def check(self, is_image_ahead=False, **extra):
        cluster = self.make(**extra)
        cluster.wait_registered()
        hot = cluster.hot()
        a, b = (n for n in cluster.nodes if n is not hot)
        put_many(hot, "before/", 20)
        assert_converged(self, cluster.nodes)
        b.kill()
        with h2.Kv(hot.client) as kv:
            acknowledged = {f"middle/{i:05}": kv.put(f"middle/{i:05}", b"v" * 16) for i in range(200)}
        assert_converged(self, [hot, a])
        if is_image_ahead:
            index = a.status()["applied_index"]
            wait_for("the image has everything", lambda: a.status().get("image_index", 0) >= index, 30)
        old_id = a.status()["id"]
        hot.kill()
        a.kill()
        segment = next(p for p in sorted(glob.glob(os.path.join(a.data, "raft", "open-*"))) if self.has_data(p))
        with open(segment, "r+b") as f:
            f.seek(1500)
            f.write(b"damage")
        at = len(a.log_text())
        a.start()
        b.start()
        wait_for("the damage is noticed", lambda: "is damaged" in a.log_text()[at:], 20)
        wait_for("the damaged log is put aside", lambda: glob.glob(os.path.join(a.data, "quarantine", "*-raft")), 20)
        self.assertFalse(a.is_hot() or b.is_hot(), "hot without what was acknowledged")
        hot.start()
        cluster.wait_ready()
        wait_voters(cluster.hot(), [n.name for n in cluster.nodes])
        self.assertNotEqual(a.status()["id"], old_id)
        assert_converged(self, cluster.nodes)
        for n in cluster.nodes:
            with h2.Kv(n.client) as kv:
                for key, revision in acknowledged.items():
                    self.assertEqual(kv.get(key, serializable=True)[:2], (b"v" * 16, revision), f"{key} on {n.name}")

    @staticmethod
    def has_data(path):
        with open(path, "rb") as f:
            return any(f.read(4096))

    def test_image_behind_the_log(self):
        self.check(image={"checkpoint_interval_ms": 600000})

    def test_image_ahead_of_the_damage(self):
        self.check(is_image_ahead=True)


class Foreign(StandAloneTest):
    def test_whole_folder_of_another_cluster(self):
        mine, other = self.make(), self.make()
        put_many(mine.hot(), "mine/", 5)
        for n in other.nodes:
            n.stop()
        name = mine.warm().name
        a, b = (next(n for n in c.nodes if n.name == name) for c in (mine, other))
        a.stop()
        shutil.move(a.data, a.data + ".own")
        shutil.copytree(b.data, a.data)
        a.start()
        wait_for("the refusal is logged", lambda: "this node belongs to cluster" in mine.hot().log_text(), 20)
        self.assertFalse(a.is_ready())
        h2.put(mine.hot().client, "goes-on", "1")
        a.stop()
        shutil.rmtree(a.data)
        shutil.move(a.data + ".own", a.data)
        a.start()
        mine.wait_ready([a])
        assert_converged(self, mine.nodes)


@unittest.skipUnless(has_private_mounts(), "needs root and unshare -m")
class FullDisk(StandAloneTest):
    """One node has its folder on a small file system of its own, which is filled and emptied."""

    SIZE_MB = 96

    def make_with_small_disk(self):
        cluster = self.make(start=False, raft={"disk_reserve_mb": 8, "snapshot_threshold": 256, "snapshot_trailing": 128})
        self.node = cluster.nodes[0]
        os.mkdir(self.node.data)
        self.holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", f"mount -t tmpfs -o size={self.SIZE_MB}m,mode=700 none {self.node.data} && "
             "echo mounted && exec sleep 1000"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.holder.stdout.close)
        self.addCleanup(self.holder.wait)
        self.addCleanup(self.holder.kill)
        self.assertEqual(self.holder.stdout.readline().strip(), "mounted")
        self.inside = f"/proc/{self.holder.pid}/root{self.node.data}"
        for n in cluster.nodes:
            self.start(n)
        cluster.wait_ready()
        cluster.wait_registered()
        return cluster

    def start(self, n):
        n.start(("nsenter", "-m", "-t", str(self.holder.pid)) if n is self.node else ())

    def fill(self):
        with open(os.path.join(self.inside, "filler"), "wb") as f:
            try:
                while True:
                    f.write(b"\0" * 65536)
                    f.flush()
            except OSError:
                pass

    def free(self):
        try:
            os.remove(os.path.join(self.inside, "filler"))
        except OSError:
            pass

    def put_until_refused(self, cluster, prefix, count=3000):
        """Puts wherever they are taken; {key: revision} of what was acknowledged, and the texts of refusals."""
        acknowledged, refusals = {}, {}
        for i in range(count):
            key = f"{prefix}{i:05}"
            n = next((n for n in cluster.nodes if n.is_running() and n.is_hot()), None)
            if n is None:
                refusals["no hot node"] = refusals.get("no hot node", 0) + 1
                continue
            try:
                with h2.Kv(n.client) as kv:
                    for _ in range(20):
                        acknowledged[key] = kv.put(key, b"x" * 4000)
                        key = f"{prefix}{i:05}-{_}"
            except (h2.Refused, h2.Closed, OSError) as e:
                text = f"{e.status} {e.text}" if isinstance(e, h2.Refused) else repr(e)
                refusals[text] = refusals.get(text, 0) + 1
                if len(acknowledged) > 300 or sum(refusals.values()) > 20:
                    break
            if len(acknowledged) > 1500:
                break
        return acknowledged, refusals

    def check(self, is_hot):
        cluster = self.make_with_small_disk()
        if is_hot and cluster.hot() is not self.node:
            switchover(cluster, "--to", self.node.name)
        if not is_hot and cluster.hot() is self.node:
            switchover(cluster)
        acknowledged = {}
        with h2.Kv(cluster.hot().client) as kv:
            for i in range(50):
                acknowledged[f"before/{i}"] = kv.put(f"before/{i}", "v")
        self.fill()
        more, refusals = self.put_until_refused(cluster, "full/")
        acknowledged.update(more)
        if not self.node.is_running():
            said = "\n".join(self.node.log_lines(6))
            self.assertRegex(said, "(?i)space|disk|full", f"ended without a named reason: {said}")
            self.assertNotEqual(self.node.process.returncode, -6, said)
        elif refusals:
            self.assertTrue(any(t.startswith("8 ") for t in refusals), f"refused with {refusals}")
            self.assertEqual(h2.get(self.node.client, "before/0", serializable=True)[0], b"v")
        self.free()
        if not self.node.is_running():
            self.start(self.node)
        cluster.wait_ready()

        def put_works():
            try:
                return h2.put(self.node.client, "after", "space")
            except (h2.Refused, h2.Closed, OSError):
                return None
        acknowledged["after"] = wait_for("writes are taken again", put_works, 30)
        assert_converged(self, cluster.nodes)
        for n in cluster.nodes:
            with h2.Kv(n.client) as kv:
                kv.get("after")
                for key, revision in acknowledged.items():
                    self.assertEqual(kv.get(key, serializable=True)[1], revision, f"{key} on {n.name}")

    def test_warm_node(self):
        self.check(False)

    def test_hot_node(self):
        self.check(True)


class Stopped(ClusterTest):
    def test_hot_node_that_was_frozen_does_not_answer_with_old_data(self):
        """SIGSTOP: the others elect; what the old hot node is asked meanwhile it answers truly afterwards, or not."""
        for turn in range(2):
            load = Load(self.cluster, 4, f"freeze{turn}", rate=800)
            old = self.cluster.hot()
            with h2.Kv(old.client) as stale, h2.Kv(old.client) as writer:
                stale.put("frozen", f"old {turn}")
                writer.get("frozen")
                old.process.send_signal(signal.SIGSTOP)
                try:
                    others = [n for n in self.cluster.nodes if n is not old]
                    new = wait_for("another hot node", lambda: next((n for n in others if n.is_hot()), None), 30)
                    revision = h2.put(new.client, "frozen", f"new {turn}")
                    c = stale.connection
                    c.open("/etcdserverpb.KV/Range")
                    body = h2.encode((1, "frozen"))
                    c.send_data(b"\0" + len(body).to_bytes(4, "big") + body)
                    w = writer.connection
                    w.open("/etcdserverpb.KV/Put")
                    body = h2.encode((1, "frozen-write"), (2, f"{turn}"))
                    w.send_data(b"\0" + len(body).to_bytes(4, "big") + body)
                finally:
                    old.process.send_signal(signal.SIGCONT)
                status, text, messages = c.answer()
                if status == h2.OK:
                    kv = h2.decode(h2.decode(messages[0])[2][0])
                    self.assertEqual((kv[5][0], kv[3][0]), (f"new {turn}".encode(), revision))
                status, text, messages = w.answer()
                written = h2.decode(h2.decode(messages[0])[1][0])[3][0] if status == h2.OK else None
            wait_for("the old hot node has stepped down", lambda: not old.is_hot() and old.is_ready())
            if written is not None:
                self.assertEqual(h2.get(new.client, "frozen-write")[1], written)
            self.assertEqual(h2.get(old.client, "frozen"), (f"new {turn}".encode(), revision))
            load.end()
            assert_converged(self, self.cluster.nodes)
            load.verify(self, self.cluster.nodes)
        self.assert_same_processes()

    def test_without_a_quorum_nothing_is_answered_that_might_be_wrong(self):
        hot = self.cluster.hot()
        h2.put(hot.client, "quorum", "1")
        others = [n for n in self.cluster.nodes if n is not hot]
        for n in others:
            n.process.send_signal(signal.SIGSTOP)
        try:
            with h2.Kv(hot.client) as kv:
                for attempt in (lambda: kv.put("quorum", "2", timeout="700m"), lambda: kv.get("quorum", timeout="700m")):
                    with self.assertRaises(h2.Refused) as refused:
                        attempt()
                    self.assertIn(refused.exception.status, (h2.UNAVAILABLE, h2.DEADLINE_EXCEEDED))
                self.assertEqual(kv.get("quorum", serializable=True)[0], b"1")
            wait_for("it says that it is not ready", lambda: not hot.is_hot())
            self.assertEqual(http_get(hot.client, "/livez")[0], 200)
        finally:
            for n in others:
                n.process.send_signal(signal.SIGCONT)
        self.cluster.wait_ready()
        new = self.cluster.hot()
        h2.put(new.client, "quorum", "3")
        assert_converged(self, self.cluster.nodes)


class CommandLine(unittest.TestCase):
    def refuse(self, *args, env=None):
        code, out, err = run(HWAGENT, *args, env=env)
        self.assertEqual(code, 2, out + err)
        return err

    def test_bad_configuration_lists_every_problem_with_its_line(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
            f.write("format: 1\ncluster:\n  name: \"bad name\"\n  voters: 4\nnode:\n  name: a\n  data: /tmp/x\n"
                    "raft:\n  election_ms: 5\n  nonsense: 1\nlisten:\n  client: 0.0.0.0:2379\n")
            f.flush()
            for args in ((), ("--check-config",)):
                err = self.refuse("--config", f.name, *args)
                for line, key in ((3, "cluster.name"), (4, "cluster.voters"), (9, "raft.election_ms"), (10, "nonsense"),
                                  (12, "listen.client")):
                    self.assertRegex(err, rf"{f.name}:{line}: .*{key}")

    def test_bad_files(self):
        for text in ("", "][", "format: 99\n", "\0\1\2", "a: &x 1\nb: *x\n", "x: " + "y" * 2000000):
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
                f.write(text)
                f.flush()
                self.assertIn(f.name, self.refuse("--config", f.name))
        self.assertIn("/no/such/file", self.refuse("--config", "/no/such/file"))
        self.assertIn("/tmp", self.refuse("--config", "/tmp"))

    def test_bad_command_lines(self):
        for args in ((), ("--nonsense",), ("--config",), ("extra",), ("--dev", "--config", "x"), ("--dev", "extra"),
                     ("--config", "x", "--data", "y")):
            self.assertIn("hwagent", self.refuse(*args))
        self.assertIn("HOTWARM_RAFT_ELECTION_MS", self.refuse("--dev", env={"HOTWARM_RAFT_ELECTION_MS": "x"}))

    def test_what_prints_and_ends(self):
        self.assertEqual(run(HWAGENT, "--version")[0], 0)
        self.assertIn("hwagent", run(HWAGENT, "--help")[1])
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        with open(os.path.join(root, "docs", "config.md")) as f:
            self.assertEqual(run(HWAGENT, "--config-reference")[1], f.read())
        code, out, err = run(HWAGENT, "--dev", "--print-config")
        self.assertEqual(code, 0, err)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
            f.write(out)
            f.flush()
            self.assertEqual(run(HWAGENT, "--config", f.name, "--check-config")[0], 0, "what is printed can be read")
