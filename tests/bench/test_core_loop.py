"""The loop whose instructions are counted does what it says."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.core_loop import build


class CoreLoopTests(SynchronousTestCase):
    """The composition is kept by hand, and must follow the daemon's."""

    def test_requests_pass(self) -> None:
        """Each is forwarded, answered and logged; the loop itself looks."""
        build()(10)
