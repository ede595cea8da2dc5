"""Tests for the users that machines run as."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.machines import ProviderError
from matrix.machines._uids import NARROW, WIDE, Uids, _taken, usable_uids
from matrix.model import UserId

ANN = UserId("11111111-1111-4111-8111-111111111111")


class MapTests(SynchronousTestCase):
    """What an id map leaves to choose from (user_namespaces(7))."""

    def test_a_host_maps_all(self) -> None:
        self.assertEqual(usable_uids("         0          0 4294967295\n"), WIDE)

    def test_a_container_maps_65536(self) -> None:
        self.assertEqual(usable_uids("0 100000 65536\n"), NARROW)

    def test_several_spans(self) -> None:
        self.assertEqual(usable_uids("0 1000 1\n1 100000 65536\n"), NARROW)

    def test_a_map_of_one_leaves_none(self) -> None:
        self.assertIsNone(usable_uids("0 1000 1\n"))

    @given(st.integers(0, 2**31), st.integers(1, 2**31))
    def test_every_number_offered_is_mapped(self, first: int, count: int) -> None:
        offered = usable_uids(f"{first} 0 {count}\n")
        if offered is not None:
            self.assertGreaterEqual(offered[0], first)
            self.assertLess(offered[-1], first + count)


class AllocationTests(SynchronousTestCase):
    """Each number once."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="matrix-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.foreign: set[int] = set()

    def uids(self, *draws: int) -> Uids:
        numbers: Iterator[int] = iter(draws)
        return Uids(
            self.directory / "uids",
            range(10, 20),
            taken=self.foreign.__contains__,
            draw=lambda _: next(numbers),
        )

    def test_a_number_is_on_record_with_its_owner(self) -> None:
        self.assertEqual(self.uids(12).allocate(ANN), 12)
        self.assertEqual((self.directory / "uids" / "12").read_text(), ANN)

    def test_never_twice_not_even_by_another_process(self) -> None:
        first, second = self.uids(12, 12, 13), self.uids(12, 13, 14)
        self.assertEqual([first.allocate(ANN), first.allocate(ANN)], [12, 13])
        self.assertEqual(second.allocate(ANN), 14)

    def test_what_others_on_the_host_use_is_left_to_them(self) -> None:
        self.foreign.add(11)
        self.assertEqual(self.uids(11, 15).allocate(ANN), 15)
        self.assertFalse((self.directory / "uids" / "11").exists())

    def test_when_none_is_left_it_says_so(self) -> None:
        self.foreign.update(range(10, 20))
        with self.assertRaisesRegex(ProviderError, "no free user id found in 10-19"):
            Uids(self.directory, range(10, 20), taken=self.foreign.__contains__).allocate(ANN)

    def test_accounts_and_running_users_are_taken(self) -> None:
        self.assertTrue(_taken(0))
        self.assertTrue(_taken(os.getuid()))
        self.assertFalse(_taken(WIDE[-1] + 1))
