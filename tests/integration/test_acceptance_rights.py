"""Streams live as long as the right to them, at every router and worker; measured."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import h11
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

import matrix.testing
from matrix.testing.running import RunningMatrix
from matrix.testing.running_case import MatrixCase
from matrix.testing.supplied import TwoRoutersCase
from matrix.testing.wire import Wire, run

GRACE = 2
"""Seconds that streams outlive their token here."""

LIFE = 4
"""Seconds of a short-lived token, at most."""

SOON = 1.0
"""Seconds within which a lost right is felt everywhere."""

LATE = 1.0
"""Seconds by which an expiry may be late: two ticks of the wheel, and a busy host."""

LOG = "access.log"

UNHEARD = """
    DO $$ BEGIN
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid();
        UPDATE users SET state = 'blocked' WHERE id = '{}';
    END $$
"""
"""Nobody is there any more to be notified."""

PROGRAM = Path(matrix.testing.__path__[0], "stream_machine.py")
STREAMS = shlex.join([sys.executable, str(PROGRAM), "{socket}"])


class Session:
    """One sign-in of a user, and its tokens."""

    def __init__(self, matrix: RunningMatrix, user: str) -> None:
        self.id = str(uuid4())
        self.user = user
        self._matrix = matrix

    def token(self, life: int = 3600) -> tuple[str, int]:
        """A token of so many seconds, or a little less; the unix second in which it expires."""
        expires = int(time.time()) + life
        return self._matrix.token(self.user, session_id=self.id, exp=expires), expires


class Streams:
    """
    An event stream, a WebSocket, a download that is not read, and an upload that the machine
    does not take: all with one token, at one router.
    """

    def __init__(self, router: RunningMatrix, token: str) -> None:
        self._router = router
        self._token = token
        self._stack = AsyncExitStack()
        self.ended: dict[str, float] = {}
        """When each was over, in unix seconds."""
        self.closed: ConnectionClosed | None = None
        self.refused: dict[str, Any] = {}
        """What the upload was answered."""
        self._watching: list[asyncio.Task[None]] = []

    async def open(self, *kinds: str) -> Streams:
        """Begin those, or all, and watch them."""
        for kind in kinds or ("events", "websocket", "download", "upload"):
            watch: Callable[[], Awaitable[None]] = await getattr(self, f"_{kind}")()
            self._watching.append(asyncio.create_task(self._note(kind, watch)))
        return self

    async def _note(self, kind: str, watch: Callable[[], Awaitable[None]]) -> None:
        await watch()
        self.ended[kind] = time.time()

    async def over(self, seconds: float = 20.0) -> dict[str, float]:
        """Wait until all are over."""
        async with asyncio.timeout(seconds):
            await asyncio.gather(*self._watching)
        return self.ended

    async def close(self) -> None:
        for task in self._watching:
            task.cancel()
        await self._stack.aclose()

    async def _wire(self) -> Wire:
        return await self._stack.enter_async_context(self._router.door.wire(self._token))

    async def _events(self) -> Callable[[], Awaitable[None]]:
        wire = await self._wire()
        await wire.begin("GET", "/events?every=0.02&count=100000")
        await wire.finish()
        assert (await wire.head()).status == 200

        async def watch() -> None:
            async for _ in wire.parts():  # h11 raises if it does not end properly
                pass

        return watch

    async def _websocket(self) -> Callable[[], Awaitable[None]]:
        door = self._router.door
        socket: ClientConnection = await self._stack.enter_async_context(
            connect(
                f"wss://{door.host}:{door.port}/ws",
                ssl=door.context,
                additional_headers={"Authorization": f"Bearer {self._token}"},
                ping_interval=None,
                proxy=None,
            )
        )
        await socket.send("hello")
        await socket.recv()

        async def watch() -> None:
            try:
                await socket.recv()
            except ConnectionClosed as closed:
                self.closed = closed

        return watch

    async def _download(self) -> Callable[[], Awaitable[None]]:
        wire = await self._wire()
        await wire.begin("GET", f"/pour?bytes={1 << 34}")
        await wire.finish()
        assert (await wire.head()).status == 200

        async def watch() -> None:
            try:
                async for _ in wire.parts():
                    await asyncio.sleep(0.001)  # two workers and their machine share this host
            except (h11.RemoteProtocolError, ConnectionError):
                return  # cut short, as it should be

        return watch

    async def _upload(self) -> Callable[[], Awaitable[None]]:
        wire = await self._wire()
        await wire.begin("POST", "/swallow", [("Content-Length", str(1 << 30))])
        await wire.feed(b"x" * 100_000)

        async def watch() -> None:
            self.refused["status"] = (await wire.head()).status
            body = b"".join([part async for part in wire.parts()])
            self.refused["reason"] = json.loads(body)["reason"]

        return watch


class RightsCase(MatrixCase):
    SETTINGS: ClassVar[Mapping[str, Any]] = {"local_command": STREAMS, "stream_grace": GRACE}

    @property
    def routers(self) -> Sequence[RunningMatrix]:
        """All that must agree."""
        return [self.matrix]

    async def lose(self, user: str, path: str, session: Session) -> None:
        """Open everything at all routers; whether it ends so soon after the operator's word."""
        opened = [Streams(router, session.token()[0]) for router in self.routers]
        try:
            for streams in opened:
                await streams.open()
            await asyncio.sleep(1.5)  # the sessions are noted, and all is under way
            began = time.time()
            await asyncio.to_thread(self.matrix.admin, path, "POST")
            answered = time.time()
            for number, streams in enumerate(opened):
                ended = await streams.over()
                late = {kind: f"{(at - began) * 1000:.0f} ms" for kind, at in ended.items()}
                self.tell(f"router {number} after {path.rpartition('/')[2]}", **late)
                for kind, at in ended.items():
                    self.assertLess(at - began, SOON, kind)
            self.tell("the operator was answered", after=f"{(answered - began) * 1000:.0f} ms")
            self.closed = [streams.closed.rcvd for streams in opened if streams.closed]
            self.refused = [streams.refused for streams in opened]
        finally:
            for streams in opened:
                await streams.close()

    def check_lost(self, code: int, reason: str, status: int) -> None:
        found = {(frame.code, frame.reason) for frame in self.closed if frame is not None}
        self.assertEqual(found, {(code, reason)})
        for refused in self.refused:
            self.assertEqual(refused, {"status": status, "reason": reason})

    def check_blocked(self, user: str) -> None:
        session = Session(self.matrix, user)
        path = f"users/{self.matrix.user_id(user)}/block"
        run(self.lose(user, path, session))
        self.check_lost(4403, "blocked", 403)

    def check_revoked(self, user: str) -> None:
        session = Session(self.matrix, user)
        run(self.lose(user, f"sessions/{session.id}/revoke", session))
        self.check_lost(4401, "revoked", 401)


class ExpiryTests(RightsCase):
    SETTINGS: ClassVar[Mapping[str, Any]] = {**RightsCase.SETTINGS, "access_log": LOG}

    def test_streams_end_a_grace_after_their_token(self) -> None:
        expires, ended, closed = run(self.expire())
        late = {kind: at - expires - GRACE for kind, at in ended.items()}
        self.tell("after expiry and grace", **{k: f"{s * 1000:.0f} ms" for k, s in late.items()})
        for kind, seconds in late.items():
            self.assertGreaterEqual(seconds, 0.0, kind)
            self.assertLess(seconds, LATE, kind)
        self.assertEqual((closed.rcvd.code, closed.rcvd.reason), (4401, "expired"))
        self.matrix.until(lambda: self.logged() == ["expired"] * 2, 5, "the access log has both")
        for kind in ("sse", "websocket"):
            count = self.matrix.metric("matrix_rights_lost_total", kind=kind, cause="expired")
            self.assertEqual(count, 1)

    def logged(self) -> list[str | None]:
        """Why streams were closed, as the access log has it."""
        log = (self.matrix.home / LOG).read_text()
        lines = map(json.loads, log.splitlines())
        paths = ("/ws", "/events")
        return [line.get("close") for line in lines if line["path"].startswith(paths)]

    async def expire(self) -> tuple[int, dict[str, float], Any]:
        token, expires = Session(self.matrix, "alice").token(LIFE)
        streams = await Streams(self.matrix, token).open("events", "websocket")
        try:
            return expires, await streams.over(), streams.closed
        finally:
            await streams.close()

    def test_downloads_go_on(self) -> None:
        """Only what never ends by itself is ended: whoever came in in time is served."""
        run(self.download())

    async def download(self) -> None:
        token, expires = Session(self.matrix, "bob").token(LIFE)
        streams = await Streams(self.matrix, token).open("download")
        try:
            await asyncio.sleep(expires + GRACE + LATE - time.time())
            self.assertEqual(streams.ended, {})
        finally:
            await streams.close()


class ExtensionCase(RightsCase):
    def check_extended(self) -> None:
        run(self.extended())

    async def extended(self) -> None:
        """A newer token is shown at another router or worker each time."""
        session = Session(self.matrix, "carol")
        token, expires = session.token(LIFE)
        first, *others = self.routers
        streams = await Streams(first, token).open("events", "websocket")
        try:
            for router in (*others, first):
                await asyncio.sleep(expires - time.time())
                token, expires = session.token(LIFE)
                answer = await router.door.request("GET", "/counts", token)
                self.assertEqual(answer.status, 200)
            await asyncio.sleep(expires + GRACE - 0.1 - time.time())
            self.assertEqual(streams.ended, {})
            for kind, at in (await streams.over()).items():
                self.assertLess(at - expires - GRACE, LATE, kind)
        finally:
            await streams.close()


class OneRouterTests(ExtensionCase):
    """What holds at one holds at several, too: the tests of the classes below."""

    def test_a_newer_token_extends_streams(self) -> None:
        self.check_extended()

    def test_a_blocked_user_loses_all_at_once(self) -> None:
        self.check_blocked("alice")

    def test_a_revoked_session_loses_all_at_once(self) -> None:
        self.check_revoked("bob")


class WorkersTests(OneRouterTests):
    SETTINGS: ClassVar[Mapping[str, Any]] = {**RightsCase.SETTINGS, "workers": 2}

    @property
    def routers(self) -> Sequence[RunningMatrix]:
        # The kernel spreads connections by chance: of these hardly all go to one worker.
        return [self.matrix] * 4


class TwoRoutersTests(TwoRoutersCase, OneRouterTests):
    """On one database: what is said to one, or shown to one, holds at the other."""

    def test_what_nobody_heard_is_made_up_for(self) -> None:
        run(self.unheard())

    async def unheard(self) -> None:
        """The database drops all connections in the moment in which a user is blocked."""
        session = Session(self.matrix, "dave")
        opened = [Streams(router, session.token()[0]) for router in self.routers]
        try:
            for streams in opened:
                await streams.open("events", "websocket", "upload")
            began = time.time()
            await asyncio.to_thread(self.matrix.sql, UNHEARD.format(self.matrix.user_id("dave")))
            for number, streams in enumerate(opened):
                ended = (await streams.over()).items()
                late = {kind: f"{(at - began) * 1000:.0f} ms" for kind, at in ended}
                self.tell(f"router {number} after a gap", **late)
                self.assertEqual(streams.refused, {"status": 403, "reason": "blocked"})
        finally:
            for streams in opened:
                await streams.close()
