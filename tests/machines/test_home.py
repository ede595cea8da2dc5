"""Tests for a local machine's directory: what it holds, who may enter, and its lock."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from twisted.trial.unittest import SynchronousTestCase

from matrix.machines import MachineGone, ProviderError
from matrix.machines._home import LOG_BYTES, Home, Record, passable
from matrix.model import UserId


class HomeCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="matrix-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.machines = self.directory / "state" / "machines"
        passable(self.machines)
        self.home = Home(self.machines, UserId(str(uuid4())))

    def made(self) -> Record:
        passable(self.home.path)
        return self.home.make(lambda _: None)


class RecordTests(HomeCase):
    def test_making_twice_is_making_once(self) -> None:
        record = self.made()
        self.assertEqual(self.home.make(self.fail), record)
        self.assertEqual(self.home.load(), record)

    def test_before_it_is_made_there_is_none(self) -> None:
        self.assertIsNone(self.home.load())
        self.assertIsNone(self.home.process())

    def test_a_save_leaves_no_scratch_file(self) -> None:
        record = replace(self.made(), boot_id="b", address="tcp:h:1")
        self.home.save(record)
        self.assertEqual(self.home.load(), record)
        names = sorted(path.name for path in self.home.path.iterdir())
        self.assertEqual(names, ["data", "machine.json"])

    def test_lost_data_begin_a_new_life_with_the_same_identity(self) -> None:
        record = self.made()
        self.home.save(replace(record, boot_id="b"))
        self.home.data.rmdir()
        self.assertFalse(self.home.complete())
        self.assertEqual(self.home.make(self.fail), record)

    def test_a_damaged_record_is_not_made_again(self) -> None:
        self.made()
        for text in ("", "[]", json.dumps({"surplus": 1})):
            (self.home.path / "machine.json").write_text(text)
            with self.assertRaisesRegex(ProviderError, r"machine\.json is damaged"):
                self.home.make(self.fail)

    def test_another_users_machine_is_refused(self) -> None:
        self.made()
        self.patch(os, "geteuid", lambda: 12345)
        with self.assertRaisesRegex(ProviderError, "we are 12345: run Matrix as that user"):
            self.home.load()

    def test_what_is_no_user_id_makes_no_path(self) -> None:
        with self.assertRaises(ValueError):
            Home(self.machines, UserId("../escape"))

    def test_a_long_log_is_set_aside(self) -> None:
        self.made()
        self.home.log.write_text("short")
        self.home.turn_log()
        self.assertTrue(self.home.log.exists())
        os.truncate(self.home.log, LOG_BYTES + 1)
        self.home.turn_log()
        self.assertFalse(self.home.log.exists())
        self.assertTrue((self.home.path / "log.1").exists())


class ModeTests(HomeCase):
    def test_the_way_can_be_passed_and_not_listed_and_the_end_is_private(self) -> None:
        self.made()
        for path in (self.machines.parent, self.machines, self.home.path):
            self.assertEqual(path.stat().st_mode & 0o777, 0o711)
        self.home.place_socket(self.made())
        for path in (self.home.data, self.home.path / "run"):
            self.assertEqual(path.stat().st_mode & 0o777, 0o700)
        self.assertEqual((self.home.path / "machine.json").stat().st_mode & 0o777, 0o600)

    def test_whatever_the_umask(self) -> None:
        self.addCleanup(os.umask, os.umask(0o077))
        passable(self.directory / "a" / "b")
        self.assertEqual((self.directory / "a").stat().st_mode & 0o777, 0o711)


class LockTests(HomeCase):
    def test_one_at_a_time(self) -> None:
        self.made()
        held = self.home.lock()
        assert held is not None
        self.assertIsNone(self.home.lock())
        os.close(held)
        again = self.home.lock()
        assert again is not None
        os.close(again)

    def test_the_lock_of_a_removed_directory_is_worth_nothing(self) -> None:
        self.made()
        held = self.home.lock()
        assert held is not None
        self.home.remove()
        with self.assertRaises(MachineGone):
            self.home.lock()
        self.made()
        fresh = self.home.lock()
        assert fresh is not None
        os.close(fresh)
        os.close(held)


class RemoveTests(HomeCase):
    def test_nothing_is_left_not_even_of_a_removal_cut_short(self) -> None:
        self.made()
        (self.machines / ".removed-before" / "data").mkdir(parents=True)
        self.home.remove()
        self.home.remove()
        self.assertEqual(list(self.machines.iterdir()), [])

    def test_links_are_not_followed(self) -> None:
        self.made()
        outside = self.directory / "outside"
        outside.mkdir()
        (outside / "kept").write_text("x")
        (self.home.data / "link").symlink_to(outside)
        self.home.remove()
        self.assertTrue((outside / "kept").exists())


class SocketTests(HomeCase):
    def setUp(self) -> None:
        super().setUp()
        deep = self.directory / ("x" * 60) / ("y" * 60)
        passable(deep)
        self.deep = Home(deep, self.home.user_id)
        passable(self.deep.path)
        self.addCleanup(self.deep.remove)

    def place(self, record: Record | None = None) -> tuple[Record, Path]:
        """A place for a socket below a name too long."""
        record, address = self.deep.place_socket(record or self.deep.make(lambda _: None))
        self.deep.save(record)
        return record, Path(str(address.path))

    def test_a_left_over_socket_is_removed(self) -> None:
        record, address = self.home.place_socket(self.made())
        path = Path(str(address.path))
        self.assertEqual(path, self.home.path / "run" / "sock")
        path.touch()
        self.assertEqual(self.home.place_socket(record), (record, address))
        self.assertFalse(path.exists())

    def test_a_short_directory_elsewhere_is_kept_and_goes_with_the_machine(self) -> None:
        record, path = self.place()
        self.assertFalse(path.is_relative_to(self.directory))
        self.assertLessEqual(len(str(path)), 107)
        self.assertEqual(path.parent.stat().st_mode & 0o777, 0o700)
        self.assertEqual(self.place(record), (record, path))
        self.deep.remove()
        self.assertFalse(path.parent.exists())

    def test_when_the_hosts_boot_has_cleared_it_there_is_another(self) -> None:
        record, path = self.place()
        path.parent.rmdir()
        _, again = self.place(record)
        self.assertNotEqual(again, path)
        self.assertTrue(again.parent.is_dir())

    def test_what_others_have_put_there_is_not_used_and_not_removed(self) -> None:
        record, path = self.place()
        path.parent.rmdir()
        path.parent.symlink_to(self.directory)
        self.addCleanup(path.parent.unlink)
        _, again = self.place(record)
        self.addCleanup(again.parent.rmdir)
        self.assertNotEqual(again, path)
        self.deep.save(record)
        self.deep.remove()
        self.assertTrue(path.parent.is_symlink())
