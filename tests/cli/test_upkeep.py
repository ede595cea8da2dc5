"""C{matrix upkeep}: what is wrong, in a line each."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.api import Api
from matrix.cli import _upkeep, main
from matrix.directory import Chore, MemoryDirectory
from matrix.model import UserId
from matrix.router.upkeep_api import UpkeepApi
from matrix.testing.exchange import FakeExchange

ALICE = UserId("0a1b2c3d-0000-4000-8000-00000000000a")


class UpkeepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = MemoryDirectory(Clock())
        self.api = Api(lambda request: None)
        UpkeepApi(self.directory).join(self.api.add)
        self.patch(_upkeep, "locate", lambda settings: self)

    def get(self, path: str) -> Any:
        """What the server answers."""
        return FakeExchange.of("GET", f"/admin/v1/{path}", {}).handle(self.api).json

    def shown(self) -> str:
        ran = CliRunner().invoke(main, ["upkeep"], prog_name="matrix")
        self.assertEqual(ran.exit_code, 0, ran.output)
        return ran.output

    def run_now(self, coroutine: Any) -> None:
        self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_all_is_well(self) -> None:
        self.assertEqual(self.shown(), "no trouble\n")

    def test_whose_and_why(self) -> None:
        self.run_now(self.directory.admit(ALICE, ""))
        self.run_now(self.directory.create_machine(ALICE, "local"))
        upkeep = self.directory.upkeep
        self.run_now(upkeep.claim(Chore.SCRUB, "box", 60.0))
        why = "scrub: 1 of 9 files are damaged\x1b[2J"
        self.run_now(upkeep.failed(ALICE, "box", Chore.SCRUB, 60.0, why))
        [_, line] = self.shown().splitlines()
        self.assertRegex(line, rf"^{ALICE} +scrub +1 +never +scrub: 1 of 9 files are damaged")
        self.assertNotIn("\x1b", line)
