"""A user in chaos: asks, posts, listens and talks, and between that lets the machine sleep."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import pairwise

import h11
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from matrix.testing.wire import Answer, Wire
from tests.chaos.machine import content
from tests.chaos.site import Router
from tests.chaos.tally import (
    AWAY,
    CROSSING,
    CUT,
    EARLY,
    RIGHT,
    Broken,
    Outages,
    Refused,
    Tally,
    Wrong,
)

LOST = (OSError, h11.RemoteProtocolError, EOFError, Broken)
"""How a connection's end shows."""

HUNG = 60.0
"""Seconds for any one thing: more than the limits of wake and answer together."""

WELL_FORMED = {503: "1013", 504: "1014"}
SERVICE_RESTART = 1012

Work = Callable[[Router], Awaitable[str]]


class Talk:
    """When something was said on a stream."""

    def __init__(self) -> None:
        self._said = [time.monotonic()]

    def heard(self) -> None:
        """Something is said now."""
        self._said.append(time.monotonic())

    @property
    def last(self) -> float:
        """When something was said last."""
        return self._said[-1]

    @property
    def silent(self) -> float:
        """
        Seconds for which nothing was said, now or up to a moment ago: what crosses with a
        suspend that was decided in a long silence does not undo it.
        """
        now = time.monotonic()
        gaps = ((since, at) for since, at in pairwise([*self._said, now]))
        return max(at - since for since, at in gaps if at > now - CROSSING)

    def __str__(self) -> str:
        gaps = [at - since for since, at in pairwise([*self._said, time.monotonic()])]
        return ", ".join(f"{gap:.2f}" for gap in gaps[-12:])


class User:
    """One, with one thing under way at a time, or a stream and requests beside it."""

    def __init__(
        self, name: str, user_id: str, token: str, routers: Sequence[Router], idle: float, seed: str
    ) -> None:
        """@param idle: seconds without use before the machine sleeps."""
        self.name = name
        self.id = user_id
        self.token = token
        self.machines: set[str] = set()
        """Ids of those that answered."""
        self._routers = routers
        self._idle = idle
        self._rng = random.Random(f"{seed}-{name}")
        self._written = self._tried = 0
        self._nonces = 0

    async def live(self, until: float, tally: Tally, outages: Outages) -> None:
        """Come and go until then, by the loop's time."""
        loop, rng = asyncio.get_running_loop(), self._rng
        self._tally, self._outages = tally, outages
        await asyncio.sleep(rng.uniform(0, 2 * self._idle))
        while loop.time() < until:
            stream: list[Work] = [self._websocket, self._events]
            if rng.random() < 0.3:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._visit(rng.choice(stream)))
                    if rng.random() < 0.5:
                        group.create_task(self._errands())
            else:
                await self._errands()
            pause = rng.choice((0.2, 0.5, 2.0)) * self._idle
            await asyncio.sleep(min(rng.uniform(0, 2) * pause, max(0.0, until - loop.time())))

    async def look(self) -> str:
        """Whether the machine answers, and has all that was written."""
        return await self._read(self._rng.choice(self._routers))

    # what may become of it

    async def _visit(self, work: Work) -> None:
        router = self._rng.choice(self._routers)
        name, began = work.__name__.strip("_"), time.monotonic()
        try:
            outcome = await asyncio.wait_for(work(router), HUNG)
        except Wrong as error:
            self._fault(name, "WRONG", router, error, began)
        except TimeoutError as error:
            self._fault(name, "HUNG", router, error, began)
        except Refused as error:
            self._tally.note(name, str(error))
        except LOST as error:
            if not self._outages.explain(router.name, began):
                self._fault(name, "BROKEN", router, error, began)
            elif isinstance(error, ConnectionRefusedError):
                self._tally.note(name, AWAY)
            else:
                self._tally.note(name, CUT)
        else:
            self._tally.note(name, outcome)

    def _fault(
        self, name: str, outcome: str, router: Router, error: Exception, began: float
    ) -> None:
        after = time.monotonic() - began
        story = f"{self.name} ({self.id}) at {router.name}, after {after:.2f} s: {error!r}"
        self._tally.fault(name, outcome, story)

    def _nonce(self) -> str:
        self._nonces += 1
        return f"{self.name}-{self._nonces}"

    # requests

    async def _errands(self) -> None:
        """Some requests, one after another, on connections of their own or not."""
        rng = self._rng
        works: list[Work] = [self._get, self._get, self._post, self._write, self._read]
        for _ in range(rng.randrange(1, 6)):
            await self._visit(rng.choice(works))
            await asyncio.sleep(rng.choice((0.0, 0.05, 1.0)))

    async def _get(self, router: Router) -> str:
        """A few on one connection; some answers come when the machine would sleep already."""
        return await self._with_wire(router, self._give)

    async def _post(self, router: Router) -> str:
        return await self._with_wire(router, self._digest)

    async def _write(self, router: Router) -> str:
        return await self._with_wire(router, self._write_note)

    async def _read(self, router: Router) -> str:
        return await self._with_wire(router, self._read_note)

    async def _with_wire(self, router: Router, work: Callable[[Wire], Awaitable[str]]) -> str:
        assert router.door is not None
        async with router.door.wire(self.token) as wire:
            return await work(wire)

    async def _give(self, wire: Wire) -> str:
        rng = self._rng
        for _ in range(rng.randrange(1, 4)):
            nonce, size = self._nonce(), rng.choice((0, 100, 10_000, 200_000))
            wait = rng.choice((*[0] * 8, 300, 2000, int(1300 * self._idle)))
            target = f"/give?nonce={nonce}&size={size}&wait={wait}"
            answer = await self._ask(wire, "GET", target, nonce)
            if answer.body != content(self.id, nonce, size):
                raise Wrong(f"{len(answer.body)} bytes, not the {size} of {nonce}")
            if answer.headers.get("connection", "").lower() == "close":
                break
        return RIGHT

    async def _digest(self, wire: Wire) -> str:
        nonce = self._nonce()
        body = content(self.id, nonce, self._rng.choice((1, 1000, 60_000, 300_000)))
        answer = await self._ask(wire, "POST", f"/digest?nonce={nonce}", nonce, body)
        if answer.body.decode() != hashlib.sha256(body).hexdigest():
            raise Wrong(f"{nonce} arrived as something else: {answer.body!r}")
        return RIGHT

    async def _write_note(self, wire: Wire) -> str:
        nonce = self._nonce()
        self._tried = number = self._tried + 1
        body = str(number).encode()
        answer = await self._ask(wire, "PUT", f"/note?nonce={nonce}", nonce, body)
        if answer.body != body:
            raise Wrong(f"{number} was written, {answer.body!r} is there")
        self._written = number
        return RIGHT

    async def _read_note(self, wire: Wire) -> str:
        nonce = self._nonce()
        answer = await self._ask(wire, "GET", f"/note?nonce={nonce}", nonce)
        if not self._written <= int(answer.body) <= self._tried:
            known = f"{self._written} was written, {self._tried} tried"
            raise Wrong(f"DATA LOST: {known}, {answer.body!r} is there")
        return RIGHT

    async def _ask(
        self, wire: Wire, method: str, target: str, nonce: str, body: bytes = b""
    ) -> Answer:
        """
        The machine's answer.

        @raise Refused: Matrix's own.
        @raise Wrong: another's, or one that is none.
        """
        answer = await wire.request(method, target, body=body)
        self._check(answer.status, answer.headers, answer.body, nonce)
        return answer

    def _check(self, status: int, headers: dict[str, str], body: bytes, nonce: str) -> None:
        mark = headers.get("x-chaos", "")
        if not mark:
            raise refusal(status, headers, body)
        whose, machine, which = mark.split(" ")
        if (whose, which) != (self.id, nonce) or status not in (101, 200):
            raise Wrong(f"the answer to {self.id} {nonce} is {status} {mark}")
        self.machines.add(machine)

    # streams

    async def _events(self, router: Router) -> str:
        assert router.door is not None
        rng, nonce = self._rng, self._nonce()
        count, every = rng.choice(((40, 100), (8, 700), (3, int(1300 * self._idle))))
        async with router.door.wire(self.token) as wire:
            await wire.begin("GET", f"/events?nonce={nonce}&count={count}&every={every}")
            await wire.finish()
            head = await wire.head()
            if "x-chaos" not in head.headers:
                raise refusal(head.status, head.headers, await _rest(wire))
            self._check(head.status, head.headers, b"", nonce)
            told, talk = b"", Talk()
            async for part in wire.parts():
                told += part
                talk.heard()
        seen = told.decode().split("\n\n")[:-1]
        if seen != [f"data: {self.id} {nonce} {number}" for number in range(len(seen))]:
            raise Wrong(f"events of somebody else: {seen[-3:]}")
        return RIGHT if len(seen) == count else self._rested(router, talk)

    def _rested(self, router: Router, talk: Talk) -> str:
        """
        A stream was ended in order.

        @raise Wrong: nothing justifies that.
        """
        silent = talk.silent + self._outages.stalls.longest(talk.last - self._idle)
        if silent >= self._idle - EARLY:
            return "ended, the machine slept"
        if self._outages.explain(router.name, talk.last):
            return "ended, the router went"
        raise Wrong(f"a stream was ended between whose words were {talk} s")

    async def _websocket(self, router: Router) -> str:
        assert router.door is not None
        nonce, door = self._nonce(), router.door
        talk = Talk()
        try:
            async with connect(
                f"wss://{door.host}:{door.port}/ws?nonce={nonce}",
                ssl=door.context,
                additional_headers={"Authorization": f"Bearer {self.token}"},
                compression=None,
                ping_interval=None,
                open_timeout=HUNG,
                close_timeout=10,
                proxy=None,
            ) as socket:
                talk.heard()
                if await socket.recv() != f"{self.id} {nonce}":
                    raise Wrong("another user's or request's WebSocket")
                for number in range(self._rng.randrange(1, 12)):
                    await self._echo(socket, f"{nonce} {number}")
                    talk.heard()
                    await self._pause(socket)
        except ConnectionClosed as error:
            return self._closed(router, error, talk)
        except InvalidStatus as error:
            answer = error.response
            headers = {name.lower(): value for name, value in answer.headers.raw_items()}
            self._check(answer.status_code, headers, bytes(answer.body or b""), nonce)
            raise Wrong(f"a WebSocket that is answered {answer.status_code}") from None
        except InvalidHandshake as error:
            raise Broken(repr(error)) from None
        return RIGHT

    async def _echo(self, socket: ClientConnection, text: str) -> None:
        message = text + "." * self._rng.choice((0, 100, 20_000))
        await socket.send(message)
        if await socket.recv() != message:
            raise Wrong("a WebSocket's message came back as another")

    async def _pause(self, socket: ClientConnection) -> None:
        """
        Say nothing for a while, sometimes for so long that the machine falls asleep.

        @raise ConnectionClosed: it was ended meanwhile.
        """
        seconds = self._rng.choice((0.0, 0.1, 0.1, 1.0, 2.0, 1.5 * self._idle))
        with suppress(TimeoutError):
            await asyncio.wait_for(socket.wait_closed(), seconds)
            await socket.recv()

    def _closed(self, router: Router, error: ConnectionClosed, talk: Talk) -> str:
        closed = error.rcvd
        if closed is None:
            raise Broken(repr(error))
        if closed.code == SERVICE_RESTART:
            return self._rested(router, talk)
        if str(closed.code) in WELL_FORMED.values():
            return f"closed {closed.code} {closed.reason}"
        raise Wrong(f"closed {closed.code} {closed.reason}")


def refusal(status: int, headers: dict[str, str], body: bytes) -> Refused | Wrong:
    """What Matrix itself says: well-formed, and for now, or it is wrong."""
    said = f"{status} {headers} {body[:300]!r}"
    if status not in WELL_FORMED:
        return Wrong(said)
    if headers.get("content-type") != "application/problem+json":
        return Wrong(f"no problem document: {said}")
    try:
        problem = json.loads(body)
    except ValueError:
        return Wrong(f"no JSON: {said}")
    if problem.get("status") != status or not problem.get("title"):
        return Wrong(f"no proper problem document: {said}")
    if status == 503 and not headers.get("retry-after", "").isdecimal():
        return Wrong(f"nobody knows when to try again: {said}")
    return Refused(status, str(problem.get("reason") or problem.get("detail") or problem["title"]))


async def _rest(wire: Wire) -> bytes:
    return b"".join([part async for part in wire.parts()])
