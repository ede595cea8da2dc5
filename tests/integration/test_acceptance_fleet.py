"""C{script/fleet} in small: wakes, warm requests and a crowd, with Fly's emulator."""

from __future__ import annotations

from typing import ClassVar
from unittest import TestCase

from tests.fleet.figures import crowd, wakes, warm
from tests.fleet.site import Site

USERS = 12

LATE = 0.2, 1.0
"""Seconds beyond a machine's own time, on a host that does much else."""


class FleetTests(TestCase):
    site: ClassVar[Site]

    @classmethod
    def setUpClass(cls) -> None:
        cls.site = Site(USERS, resume=0.1)
        cls.addClassCleanup(cls.site.close)

    def test_wakes_warm_requests_and_a_crowd(self) -> None:
        measures = (
            lambda: wakes(self.site, USERS // 2, LATE),
            lambda: warm(self.site, 400, pause=0.0),
            lambda: crowd(self.site),
        )
        for measure in measures:
            verdict = measure()
            print("\n".join(verdict.lines))
            self.assertEqual(verdict.faults, [])
            self.site.all_asleep()
