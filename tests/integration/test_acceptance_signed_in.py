"""Signed in at a running Matrix: two routers, two workers, refreshes, outages, signing out."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar
from unittest import TestCase
from urllib.parse import urlencode

import matrix.testing
from matrix.testing.running import RunningMatrix
from matrix.testing.running_case import MatrixCase
from matrix.testing.supplied import SuppliedMatrix, Supply
from matrix.testing.wire import Answer, run

KEY = "sb_publishable_of_the_test"
LIFE = 6.0
"""Seconds that tokens live: due after three."""
PROGRAM = Path(matrix.testing.__path__[0], "stream_machine.py")
STREAMS = shlex.join([sys.executable, str(PROGRAM), "{socket}"])
SETTINGS = {
    "supabase_key": KEY,
    "token_leeway": 0,
    "stream_grace": 1,
    "local_command": STREAMS,
}


def send(router: RunningMatrix, path: str, cookie: str = "", **fields: str) -> Answer:
    """Send a form as a browser does."""
    headers = [("Origin", router.url), ("Content-Type", "application/x-www-form-urlencoded")]
    if cookie:
        headers.append(("Cookie", cookie))
    body = urlencode(fields).encode()
    headers.append(("Content-Length", str(len(body))))
    return router.door.ask("POST", path, "", headers, body)


def sign_in(router: RunningMatrix, name: str = "alice") -> str:
    """The cookie of a new session."""
    given = {"email": f"{name}@localhost", "password": router.issuer().password(name)}
    answer = send(router, "/-/signin", how="password", **given)
    assert answer.status == 303, answer
    return answer.headers["set-cookie"].partition(";")[0]


def who(router: RunningMatrix, cookie: str) -> Answer:
    return router.door.ask("GET", "/-/session", "", [("Cookie", cookie)])


class TwoRoutersTests(TestCase):
    """On one database and with one issuer."""

    supply: ClassVar[Any]
    routers: ClassVar[Sequence[RunningMatrix]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.supply = Supply()
        cls.addClassCleanup(cls.supply.close)
        cls.supply.issuer.tell("want_key", key=KEY)
        made: list[RunningMatrix] = []
        for _ in range(2):
            router = SuppliedMatrix(cls.supply, **SETTINGS)
            cls.addClassCleanup(router.close)
            made.append(router.start())
        cls.routers = made

    def setUp(self) -> None:
        self.supply.issuer.tell("fault", kind="none")
        self.supply.issuer.tell("live", life=3600.0)

    def granted(self) -> int:
        """How many sign-ins and refreshes the issuer was asked for."""
        return int(self.supply.issuer.tell("look")["requests"]["/token"])

    def statuses(self, cookie: str, each: int = 10) -> set[int]:
        """What many requests at once are answered, at both routers."""
        with ThreadPoolExecutor(8) as pool:
            asked = [router for router in self.routers for _ in range(each)]
            return {answer.status for answer in pool.map(lambda one: who(one, cookie), asked)}

    def until_over(self, router: RunningMatrix, cookie: str) -> None:
        router.until(lambda: who(router, cookie).status == 401, 2, "it has heard of the end")

    def test_a_session_begun_at_one_is_one_at_the_other_until_it_is_ended(self) -> None:
        one, other = self.routers
        cookie = sign_in(one)
        self.assertEqual(who(other, cookie).json()["session"], who(one, cookie).json()["session"])
        answer = send(other, "/-/logout", cookie)
        self.assertEqual(answer.status, 303)
        self.until_over(one, cookie)
        self.assertEqual(who(one, cookie).json()["reason"], "signed-out")
        self.assertEqual(self.supply.issuer.tell("look")["requests"]["/logout"], 1)

    def test_requests_at_both_never_fail_over_three_refreshes(self) -> None:
        self.supply.issuer.tell("live", life=LIFE)
        cookie = sign_in(self.routers[0])
        before, seen = self.granted(), set()
        ends = time.monotonic() + 1.6 * LIFE
        while time.monotonic() < ends:
            seen |= self.statuses(cookie)
        self.assertEqual(seen, {200})
        refreshed = self.granted() - before
        self.assertIn(refreshed, (2, 3), "one for each time that they were due")

    def test_nor_through_an_outage_shorter_than_a_token(self) -> None:
        self.supply.issuer.tell("live", life=4 * LIFE)
        cookie = sign_in(self.routers[0])
        self.assertEqual(self.statuses(cookie), {200})
        self.supply.issuer.tell("fault", kind="error")
        ends, seen = time.monotonic() + 2.5 * LIFE, set()
        while time.monotonic() < ends:
            seen |= self.statuses(cookie, 2)
        self.assertEqual(seen, {200})
        self.supply.issuer.tell("fault", kind="none")
        ends = time.monotonic() + 2 * LIFE
        while time.monotonic() < ends:
            seen |= self.statuses(cookie, 2)
        self.assertEqual(seen, {200}, "beyond the life of the first token")

    def test_a_stream_outlives_its_token_with_no_request_at_all(self) -> None:
        self.supply.issuer.tell("live", life=LIFE)
        run(self.stream(self.routers[0], sign_in(self.routers[0])))

    async def stream(self, router: RunningMatrix, cookie: str) -> None:
        async with router.door.wire() as wire:
            await wire.begin("GET", "/events?every=0.1&count=100000", [("Cookie", cookie)])
            await wire.finish()
            self.assertEqual((await wire.head()).status, 200)
            parts = aiter(wire.parts())
            ends = time.monotonic() + 3 * LIFE
            while time.monotonic() < ends:
                await anext(parts)
            await asyncio.to_thread(send, router, "/-/logout", cookie)
            ended = time.monotonic()
            async for _ in parts:  # h11 raises if it does not end properly
                self.assertLess(time.monotonic() - ended, 1.0, "signing out ends it")

    def test_an_operator_ends_it_at_both(self) -> None:
        one, other = self.routers
        cookie = sign_in(one, "bob")
        session = who(other, cookie).json()["session"]
        one.admin(f"sessions/{session}/revoke", "POST")
        for router in self.routers:
            self.until_over(router, cookie)

    def test_secrets_are_in_no_output(self) -> None:
        cookie = sign_in(self.routers[0])
        password = self.routers[0].issuer().password("alice")
        for router in self.routers:
            text = router.output()
            for secret in (password, cookie.partition("=")[2], KEY):
                self.assertNotIn(secret, text)


class WorkersTests(MatrixCase):
    """Embedded, with two processes at the public listener."""

    SETTINGS = {"workers": 2}

    def test_the_printed_link_works_at_each_worker(self) -> None:
        link = self.matrix.sign_in_link.removeprefix(self.matrix.url)
        for _ in range(6):
            answer = self.matrix.door.ask("GET", link)
            self.assertEqual(answer.status, 303)
            cookie = answer.headers["set-cookie"].partition(";")[0]
            found = {who(self.matrix, cookie).status for _ in range(6)}
            self.assertEqual(found, {200})

    def test_the_printed_password_does_too(self) -> None:
        cookie = sign_in(self.matrix)
        self.assertEqual(who(self.matrix, cookie).json()["user"], self.matrix.user_id("alice"))
        self.assertIn(self.matrix.issuer().password("alice"), self.matrix.output())
