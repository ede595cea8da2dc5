"""How long is waited for a host that is down, before its machines begin anew elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.model import Machine, MachineState, Snapshot, SnapshotStatus, UserId
from matrix.router.rescue import DOWN_AFTER, GONE_AFTER, Refusal, Rescue, judge

WHO = UserId("6f1c1d4e-6c0b-4a55-9a0e-0f8f6f2f9d11")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
spans = st.timedeltas(timedelta(0), timedelta(days=2))


def stranded(since: timedelta | None, used: timedelta | None) -> Machine:
    """A row; both are so long ago."""
    return Machine(
        WHO, "fly", MachineState.STARTING, 1,
        stranded_at=None if since is None else NOW - since,
        last_active_at=None if used is None else NOW - used,
    )  # fmt: skip


def taken(ago: timedelta) -> Snapshot:
    """A good snapshot that was begun so long ago."""
    return Snapshot(1, WHO, "suspend", SnapshotStatus.DONE, NOW - ago, restic_id="ab" * 32)


class JudgeTests(SynchronousTestCase):
    """L{judge}."""

    def test_nothing_to_lose(self) -> None:
        machine, snapshot = stranded(DOWN_AFTER, timedelta(hours=2)), taken(timedelta(hours=1))
        self.assertEqual(judge(machine, snapshot, NOW), Rescue(snapshot, 0.0))
        early = stranded(DOWN_AFTER - SECOND, timedelta(hours=2))
        refused = judge(early, snapshot, NOW)
        assert isinstance(refused, Refusal)
        self.assertIn("in 1 s", refused.why)

    def test_something_to_lose(self) -> None:
        used, snapshot = timedelta(hours=1), taken(timedelta(hours=1, seconds=90))
        early = judge(stranded(GONE_AFTER - 60 * SECOND, used), snapshot, NOW)
        assert isinstance(early, Refusal)
        self.assertIn("the last 90 s of its use", early.why)
        self.assertIn("in 60 s", early.why)
        late = judge(stranded(GONE_AFTER, used), snapshot, NOW)
        self.assertEqual(late, Rescue(snapshot, 90.0))

    @given(spans, spans)
    def test_without_a_snapshot_never(self, since: timedelta, used: timedelta) -> None:
        self.assertIsInstance(judge(stranded(since, used), None, NOW), Refusal)

    @given(spans, spans)
    def test_not_at_the_first_sight(self, used: timedelta, ago: timedelta) -> None:
        self.assertIsInstance(judge(stranded(None, used), taken(ago), NOW), Refusal)

    @given(spans, spans, spans)
    def test_nothing_is_lost_before_the_host_counts_as_gone(
        self, since: timedelta, used: timedelta, ago: timedelta
    ) -> None:
        judged = judge(stranded(since, used), taken(ago), NOW)
        if isinstance(judged, Rescue):
            self.assertGreaterEqual(since, DOWN_AFTER)
            self.assertEqual(judged.loses_s > 0, ago > used)
            if judged.loses_s:
                self.assertGreaterEqual(since, GONE_AFTER)
        else:
            self.assertLess(since, GONE_AFTER)
