"""Tests of the limit on open files."""

from __future__ import annotations

import errno
import os
import resource

from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError, Unavailable
from matrix.net import FileShares, _files, allow_many_files, file_shares
from matrix.net._files import check_free

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


class ShareTests(SynchronousTestCase):
    def test_who_may_take_how_many(self) -> None:
        self.patch(_files.resource, "getrlimit", lambda what: (1024, 4096))
        self.assertEqual(file_shares(), FileShares(clients=768, machines=896, operators=960))

    def test_too_few_to_start_with(self) -> None:
        self.patch(_files.resource, "getrlimit", lambda what: (511, 511))
        with self.assertRaises(ConfigurationError) as caught:
            file_shares()
        for word in ("511", "512", "LimitNOFILE"):
            self.assertIn(word, str(caught.exception))

    def test_a_free_file(self) -> None:
        number = os.eventfd(0)
        os.close(number)
        check_free(number + 1)
        with self.assertRaises(Unavailable) as caught:
            check_free(number)
        self.assertEqual(caught.exception.reason, "connections")

    def test_no_file_at_all(self) -> None:
        def eventfd(initial: int) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(_files.os, "eventfd", eventfd)
        with self.assertRaises(Unavailable):
            check_free(1_000_000)
