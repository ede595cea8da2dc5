"""While keys rotate and the issuer is down, nobody whose token is good is refused."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import TestCase
from uuid import uuid4

import matrix.testing
from matrix.auth._keys import THROTTLE
from matrix.testing.issuer import LocalIssuer
from matrix.testing.supplied import SuppliedMatrix
from matrix.testing.wire import run

PROGRAM = Path(matrix.testing.__path__[0], "stream_machine.py")
STREAMS = shlex.join([sys.executable, str(PROGRAM), "{socket}"])

USERS = 4
"""Who ask at the same time, each on a connection: with two workers, hardly all at one."""

PAUSE = 0.1
"""Seconds between two requests of each."""

ENOUGH = 20
"""Answers to each kind of token that say how users fare."""

ENOUGH_SECONDS = 30.0
"""For those, on a busy host."""

LONG = os.environ.get("ACCEPTANCE_KEYS") == "all"
"""Whether to wait for all that takes half a minute each, as script/soak does."""

LONGEST = 600.0
"""Seconds for everything."""

FAULTS: Sequence[tuple[str, dict[str, Any]]] = (
    ("fault", {"kind": "error"}),
    ("fault", {"kind": "slow", "delay": 20.0}),
    ("fault", {"kind": "invalid"}),
    ("fault", {"kind": "empty"}),
    ("close", {}),
)
"""How the issuer fails: 5xx, silence, no JSON, no keys, nobody at its port."""

AT_STARTS = FAULTS if LONG else (FAULTS[1], FAULTS[-1])
"""Those that a start is tried with: of all of them, unless C{script/soak} asks, the slowest to be
noticed and the quickest."""


class Traffic:
    """Users who go on asking: half with a token that is known, half with a new one each time."""

    def __init__(self, matrix: SuppliedMatrix) -> None:
        self._matrix = matrix
        self.issuer: LocalIssuer = matrix.issuer()
        """Who signs the new ones; looked at for each, so a test may replace it."""
        self._known = self.issuer.mint("alice")
        self.answers: Counter[str] = Counter()
        """By kind of token, status, and reason of a refusal."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: run(self._ask(), LONGEST))

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    async def _ask(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(USERS):
                group.create_task(self._user(known=number % 2 == 0))

    async def _user(self, known: bool) -> None:
        async with self._matrix.door.wire() as wire:
            while not self._over.is_set():
                token = self._known if known else self.issuer.mint("alice")
                header = [("Authorization", f"Bearer {token}")]
                answer = await wire.request("GET", "/counts", header)
                told = "" if answer.status == 200 else str(answer.json().get("reason"))
                self.answers[f"{'known' if known else 'new'} {answer.status} {told}".strip()] += 1
                await asyncio.sleep(PAUSE)


class KeysCase(TestCase):
    workers = 1

    def setUp(self) -> None:
        self.matrix = SuppliedMatrix(local_command=STREAMS, workers=self.workers)
        self.addCleanup(self.matrix.close)
        self.issuer = self.matrix.supply.issuer
        self.start()

    def start(self) -> None:
        self.matrix.start()
        self.asked_at = time.monotonic()
        answer = self.matrix.door.ask("GET", "/counts", self.matrix.token("alice"))
        self.assertEqual(answer.status, 200, answer)

    def have_it_ask(self) -> int:
        """Make the router ask for keys, as it does for a key id that it has not heard of; the
        status that such a token gets."""
        time.sleep(max(self.asked_at + THROTTLE + 1 - time.monotonic(), 0))
        token = self.matrix.token("alice", header={"kid": str(uuid4())})
        self.asked_at = time.monotonic()
        return self.matrix.door.ask("GET", "/", token).status

    def until_enough(self, traffic: Traffic) -> None:
        """Wait until users of both kinds were answered often enough, one way or another."""
        answers = traffic.answers
        self.matrix.until(
            lambda: min(_of_kind(answers, "known"), _of_kind(answers, "new")) >= ENOUGH,
            ENOUGH_SECONDS,
            "users are answered",
        )

    def told(self, traffic: Traffic) -> None:
        self.assertEqual(set(traffic.answers), {"known 200", "new 200"})
        self.assertGreaterEqual(min(traffic.answers.values()), ENOUGH)


def _of_kind(answers: Counter[str], kind: str) -> int:
    return sum(count for name, count in [*answers.items()] if name.startswith(kind))


class OutageTests(KeysCase):
    workers = 2

    def test_starts_without_the_issuer_from_the_keys_that_were_kept(self) -> None:
        for command, details in AT_STARTS:
            with self.subTest(command, **details):
                self.assertEqual(self.matrix.stop(), -15)
                self.issuer.tell(command, **details)
                before = self.issuer.fetches()
                self.start()
                with Traffic(self.matrix) as traffic:
                    self.until_enough(traffic)
                self.told(traffic)
                if command != "close":
                    self.assertGreaterEqual(self.issuer.fetches(), before + self.workers)
                self.issuer.tell("fault", kind="none")

    def test_the_issuer_goes_down_and_comes_back(self) -> None:
        """Workers do not share keys, so each has to ask in vain."""
        with Traffic(self.matrix) as traffic:
            for command, details in FAULTS if LONG else FAULTS[:1]:
                self.issuer.tell(command, **details)
                for _ in range(6):  # whichever worker it comes to
                    self.assertIn(self.have_it_ask(), (401, 503))
                    self.asked_at -= THROTTLE
                self.asked_at += THROTTLE
            if command == "close":
                self.issuer.tell("listen")
            self.issuer.tell("fault", kind="none")
            self.have_it_ask()
        self.told(traffic)


class RotationTests(KeysCase):
    def test_a_key_is_announced_signs_and_goes(self) -> None:
        old = self.matrix.token("alice")
        with Traffic(self.matrix) as traffic:
            self.issuer.tell("prepare", algorithm="RS256")
            self.assertEqual(self.have_it_ask(), 401)
            self.assertEqual(self.issuer.fetches(), 2)
            self.issuer.tell("rotate")
            traffic.issuer = self.matrix.issuer()
            time.sleep(1.0)
            self.assertEqual(self.matrix.door.ask("GET", "/", old).status, 200)
            self.assertEqual(self.issuer.fetches(), 2)
        self.told(traffic)
        if LONG:
            self.revoke(old)

    def revoke(self, old: str) -> None:
        known = self.matrix.token("alice")
        self.assertEqual(self.matrix.door.ask("GET", "/counts", known).status, 200)
        self.issuer.tell("revoke")
        self.assertEqual(self.have_it_ask(), 401)
        refused = self.matrix.door.ask("GET", "/counts", old)
        self.assertEqual((refused.status, refused.json()["reason"]), (401, "unknown-key"))
        self.assertEqual(self.matrix.door.ask("GET", "/counts", known).status, 200)
        with Traffic(self.matrix) as traffic:
            self.until_enough(traffic)
        self.told(traffic)
