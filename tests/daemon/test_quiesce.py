"""Data fit to be read: one number for their state, and whole copies of databases in use."""

import os
import socket
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon import quiesce
from matrix.daemon.quiesce import Found, prepare
from matrix.testing.scratch import scratch

LONG_AGO = 10**9


class QuiesceCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = scratch(self)
        self.copies = self.data / "copies"
        self.copies.mkdir()
        self.patch(os, "umask", lambda mask: 0)  # It is this process's, here.

    def prepare(self, **wanted: Any) -> Found:
        defaults = {
            "data": str(self.data),
            "left_out": ["copies", "private"],
            "copies": str(self.copies),
            "unless": None,
            "in_use": [],
            "live_after": 0.0,
        }
        return prepare({**defaults, **wanted})

    def database(self, name: str, mode: str = "DELETE") -> sqlite3.Connection:
        connection = sqlite3.connect(self.data / name, isolation_level=None)
        self.addCleanup(connection.close)
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE t (n)")
        connection.execute("INSERT INTO t VALUES (1)")
        return connection

    def copied(self, name: str) -> list[Any]:
        with closing(sqlite3.connect(self.copies / name)) as copy:
            self.assertEqual(copy.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            return copy.execute("SELECT n FROM t").fetchall()


class StateTests(QuiesceCase):
    def test_each_change_shows(self) -> None:
        file = self.data / "f"
        seen = [self.prepare().state]

        def after(change: Any) -> None:
            change()
            seen.append(self.prepare().state)
            self.assertEqual(self.prepare().state, seen[-1])

        after(lambda: file.write_text("1"))
        after(lambda: file.write_text("2"))
        after(lambda: file.chmod(0o600))
        after(lambda: os.utime(file, (1, 1)))
        after(lambda: file.rename(self.data / "g"))
        after(lambda: (self.data / "d").mkdir())
        after(lambda: (self.data / "d" / "link").symlink_to("x"))
        after(lambda: (self.data / "d").chmod(0o700))
        after(lambda: (self.data / "g").unlink())
        self.assertEqual(len(set(seen)), len(seen))

    def test_what_is_no_data_does_not_show(self) -> None:
        before = self.prepare().state
        (self.data / "private").mkdir()
        (self.data / "private" / "f").touch()
        (self.copies / "f").touch()
        with closing(socket.socket(socket.AF_UNIX)) as there:
            there.bind(str(self.data / "s"))
        self.assertEqual(self.prepare().state, before)

    def test_content_of_a_cache_does_not_show(self) -> None:
        cache = self.data / "cache"
        cache.mkdir()
        (cache / "CACHEDIR.TAG").write_bytes(quiesce.TAG)
        before = self.prepare().state
        (cache / "object").touch()
        self.assertEqual(self.prepare().state, before)
        (cache / "CACHEDIR.TAG").write_bytes(b"something else")
        self.assertNotEqual(self.prepare().state, before)

    def test_names_that_are_no_text(self) -> None:
        (self.data / os.fsdecode(b"caf\xe9")).touch()
        self.assertEqual(self.prepare().files, 1)


class CopyTests(QuiesceCase):
    def test_database_in_use_is_copied_with_its_log(self) -> None:
        live = self.database("app.db", "WAL")
        live.execute("INSERT INTO t VALUES (2)")
        self.assertTrue((self.data / "app.db-wal").stat().st_size)
        (self.data / "app.db").chmod(0o640)
        found = self.prepare()
        self.assertEqual((found.copied, found.databases, found.troubles), (["app.db"], {}, []))
        self.assertEqual(self.copied("app.db"), [(1,), (2,)])
        self.assertEqual(os.listdir(self.copies), ["app.db"])
        self.assertEqual((self.copies / "app.db").stat().st_mode & 0o777, 0o640)
        live.execute("INSERT INTO t VALUES (3)")

    def test_copy_of_one_that_rests_is_the_same_bytes(self) -> None:
        self.database("app.db").close()
        time.sleep(2 * quiesce.TICK)
        self.assertEqual(self.prepare().copied, ["app.db"])
        copy, original = self.copies / "app.db", self.data / "app.db"
        self.assertEqual(copy.read_bytes(), original.read_bytes())
        self.assertEqual(copy.stat().st_mtime_ns, original.stat().st_mtime_ns)

    def test_one_that_rests_stays_where_it_is(self) -> None:
        self.database("app.db").close()
        found = self.prepare(live_after=time.time() + 60)
        self.assertEqual((found.copied, list(found.databases)), ([], ["app.db"]))
        self.assertEqual(os.listdir(self.copies), [])
        again = self.prepare(live_after=time.time() + 60, in_use=["app.db"])
        self.assertEqual(again.copied, ["app.db"])

    def test_transaction_half_way_is_not_in_the_copy(self) -> None:
        live = self.database("app.db")
        live.execute("BEGIN IMMEDIATE")
        live.execute("INSERT INTO t VALUES (2)")
        self.assertEqual(self.prepare().copied, ["app.db"])
        self.assertEqual(self.copied("app.db"), [(1,)])

    def test_nothing_is_copied_of_what_is_unchanged(self) -> None:
        self.database("app.db").close()
        self.assertEqual(self.prepare(unless=self.prepare().state).copied, [])

    def test_nothing_is_copied_where_only_a_look_is_wanted(self) -> None:
        self.database("app.db").close()
        self.assertEqual(list(self.prepare(copies=None).databases), ["app.db"])

    def test_damaged_one_is_told_and_left(self) -> None:
        (self.data / "bad.db").write_bytes(quiesce.HEADER + b"\xff" * 1008)
        (self.data / "bad.db-wal").write_bytes(b"x" * 512)
        found = self.prepare()
        self.assertEqual((found.copied, list(found.databases)), ([], ["bad.db"]))
        self.assertIn("bad.db", found.troubles[0])
        self.assertEqual(os.listdir(self.copies), [])

    def test_one_locked_for_good_is_told_in_time(self) -> None:
        self.patch(quiesce, "COPY_SECONDS", 0.2)
        live = self.database("app.db")
        live.execute("PRAGMA locking_mode = EXCLUSIVE")
        live.execute("BEGIN EXCLUSIVE")
        live.execute("INSERT INTO t VALUES (2)")
        found = self.prepare()
        self.assertEqual(list(found.databases), ["app.db"])
        self.assertIn("app.db", found.troubles[0])

    def test_file_that_only_looks_like_one(self) -> None:
        (self.data / "f.db").write_bytes(b"x" * 4096)
        found = self.prepare()
        self.assertEqual((found.copied, found.databases), ([], {}))

    def test_one_that_is_never_left_alone_is_copied_in_one_go(self) -> None:
        self.patch(quiesce, "PAGES", 1)
        self.patch(quiesce, "COPY_SECONDS", 0.0)
        live = self.database("app.db", "WAL")
        live.execute("CREATE TABLE pairs (a, b)")
        live.execute("INSERT INTO t VALUES (zeroblob(4000000))")
        over = threading.Event()
        writer = threading.Thread(target=_write_pairs, args=(self.data / "app.db", over))
        writer.start()
        try:
            found = self.prepare()
        finally:
            over.set()
            writer.join()
        self.assertEqual((found.copied, found.troubles), (["app.db"], []))

    def test_copies_under_a_hail_of_writes_are_whole(self) -> None:
        for mode in ("WAL", "DELETE"):
            name = f"{mode}.db"
            live = self.database(name, mode)
            live.execute("CREATE TABLE pairs (a, b)")
            live.close()
            over = threading.Event()
            writer = threading.Thread(target=_write_pairs, args=(self.data / name, over))
            writer.start()
            try:
                for _ in range(5):
                    self.assertIn(name, self.prepare(in_use=[name]).copied)
                    with closing(sqlite3.connect(self.copies / name)) as copy:
                        odd = copy.execute("SELECT count(*) FROM pairs WHERE a != b").fetchall()
                        ok = copy.execute("PRAGMA integrity_check").fetchall()
                    self.assertEqual((odd, ok), ([(0,)], [("ok",)]))
                    (self.copies / name).unlink()
            finally:
                over.set()
                writer.join()


def _write_pairs(place: Path, over: threading.Event) -> None:
    """Transactions after each of which both columns agree, and within which they do not."""
    with closing(sqlite3.connect(place, timeout=30, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        number = 0
        while not over.is_set():
            number += 1
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO pairs VALUES (?, NULL)", (number,))
            connection.execute("UPDATE pairs SET b = a WHERE b IS NULL")
            connection.execute("COMMIT")
