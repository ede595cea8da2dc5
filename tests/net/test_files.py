"""Tests of the limit on open files."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from matrix.net import _files, allow_many_files

UNLIMITED = resource.RLIM_INFINITY


class LimitTests(SynchronousTestCase):
    def limits(self, soft: int, hard: int) -> list[tuple[int, int]]:
        """Pretend limits; what they are set to."""
        changes: list[tuple[int, int]] = []
        self.patch(_files.resource, "getrlimit", lambda what: (soft, hard))
        self.patch(_files.resource, "setrlimit", lambda what, pair: changes.append(pair))
        return changes

    def test_the_soft_limit_becomes_the_hard_one(self) -> None:
        changes = self.limits(1024, 20_000)
        self.assertEqual(allow_many_files(), 20_000)
        self.assertEqual(changes, [(20_000, 20_000)])

    def test_but_stays_within_reason(self) -> None:
        for hard in (1_073_741_816, UNLIMITED):
            changes = self.limits(1024, hard)
            self.assertEqual(allow_many_files(), _files.MOST)
            self.assertEqual(changes, [(_files.MOST, hard)])

    def test_a_higher_one_is_left_alone(self) -> None:
        for soft in (20_000, 2_000_000, UNLIMITED):
            changes = self.limits(soft, UNLIMITED if soft != 20_000 else 20_000)
            self.assertEqual(allow_many_files(), soft)
            self.assertEqual(changes, [])

    def test_it_works_on_this_system(self) -> None:
        now = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, now)
        allowed = allow_many_files()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (allowed, now[1]))
