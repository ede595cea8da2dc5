"""One call to Fly's API: its turn, its request, its answer, and what a refusal means."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.client import RequestNotSent  # type: ignore[attr-defined]
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from matrix.directory.interfaces import DirectoryUnavailable
from matrix.flights import Flights
from matrix.machines._fly_errors import Action, FlyError, Refusal, Verdict, judge, unheard
from matrix.machines._fly_line import Line
from matrix.machines._fly_rates import USUAL, Priority, Rate, RateLimiter
from matrix.machines.interfaces import Paces

CALL_TIMEOUT = 30.0
"""Seconds for one call, the wait for its turn not counted. Starts and creates have been seen to
take more than ten."""

MAX_ANSWER = 32 * 1024 * 1024
"""Bytes. A page of a thousand machines has some two million."""

_NOT_SENT = (ConnectError, DNSLookupError, RequestNotSent)

_Answer = TypeVar("_Answer")
_log = Logger()


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of Fly."""

    action: Action
    method: str
    path: str
    """Below C{/v1}."""
    subject: Hashable
    """Whose rate limit it counts for: a machine's id, or an app."""
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] | None = None
    nonce: str = ""
    """Of the lease that we hold on the machine."""
    rate: Rate = USUAL
    timeout: float = CALL_TIMEOUT
    """Seconds."""
    shared: bool = False
    """Whether routers come in each other's way: what concerns one machine only one of them asks
    at a time, but an app is everybody's."""
    joint: bool = False
    """Whether one answer does for all who ask before the question is out: it then costs one turn,
    however many there are."""
    before: Callable[[], Awaitable[None]] | None = None
    """Awaited once it is this call's turn, which may take long, right before it is made."""

    @property
    def bucket(self) -> Hashable:
        """Which calls share a limit with this one."""
        return (self.method, self.action, self.subject)

    @property
    def pace(self) -> str:
        """The same for all processes."""
        return f"fly {self.method} {self.action} {self.subject}"


class FlyHttp:
    """Makes calls, each at its turn."""

    def __init__(
        self,
        agent: IAgent,
        clock: IReactorTime,
        base: str,
        token: str,
        limiter: RateLimiter | None = None,
        paces: Paces | None = None,
    ) -> None:
        """
        @param base: C{https://api.machines.dev}, or C{http://_api.internal:4280} on the mesh.
        @param token: an org's; it appears in no error and no log.
        @param limiter: who gives calls their turns; one of our own by default.
        @param paces: shared with other processes that call for the same apps.
        """
        self._http = HTTPClient(agent)
        self._clock = clock
        self._base = base.rstrip("/")
        # Macaroons come with a scheme of their own (facts/fly.md section 1).
        self._authorization = token if " " in token else f"Bearer {token}"
        self._limiter = RateLimiter(clock) if limiter is None else limiter
        self._paces = paces
        self._lines: dict[str, Line] = {}
        """Of this process, by what is asked of which app."""
        self._flights: Flights[object] = Flights()
        self.calls = 0
        """How many were made."""

    async def ask(
        self, call: Call, answer: type[_Answer], priority: Priority = Priority.WAKE
    ) -> _Answer:
        """
        Make a call; what it answers.

        @param answer: the type of the answer.
        @raise FlyError: Fly refused, or no answer came; the verdict says what to do.
        """
        document = await self.tell(call, priority)
        try:
            return TypeAdapter(answer).validate_python(document)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, one["loc"])) for one in error.errors()[:3])
            raise FlyError(
                unheard(call.action, sent=True),
                "bad-answer",
                f"Fly's answer to {call.method} {call.path} is not as described: {places}",
            ) from None

    async def tell(self, call: Call, priority: Priority = Priority.WAKE) -> object:
        """
        Make a call whose answer says no more than that it was done; the answer all the same.

        @raise FlyError: as L{ask}.
        """
        if not call.joint:
            await self._turn(call, priority)
            if call.before is not None:
                await call.before()
            return await self._exchange(call)
        name = f"{call.pace} {priority}"

        async def together() -> object:
            await self._turn(call, priority)
            self._flights.close(name)
            return await self._exchange(call)

        return await self._flights.join(name, together)

    def close(self) -> None:
        """Give up the questions that are asked for many; whoever waits for an answer is told."""
        self._flights.stop()

    async def _turn(self, call: Call, priority: Priority) -> None:
        if not call.shared or self._paces is None:
            await self._limiter.turn(call.bucket, call.rate, priority)
            return
        # One of each process at a time: a turn that is taken is lost if its caller gives up,
        # and with many who took theirs long before, nobody's would come in time.
        async with self._lines.setdefault(call.pace, Line()).turn(priority):
            await self._limiter.turn(call.bucket, call.rate, priority)
            await self._shared_turn(call, self._paces)

    async def _shared_turn(self, call: Call, paces: Paces) -> None:
        try:
            seconds = await paces.turn(call.pace, call.rate.per_second, call.rate.burst)
        except DirectoryUnavailable:
            return  # Fly says so itself if it is too soon
        if seconds > 0:
            await deferLater(self._clock, seconds)

    async def _too_soon(self, call: Call, after: float | None) -> None:
        """Fly said 429: its count is another than ours."""
        self._limiter.refused(call.bucket, call.rate, after)
        if call.shared and self._paces is not None:
            try:
                await self._paces.hold(call.pace, after or 1 / call.rate.per_second)
            except DirectoryUnavailable:
                return  # at least this process waits

    async def _exchange(self, call: Call) -> Any:
        self.calls += 1
        sending = Deferred.fromCoroutine(self._send(call))
        timer = self._clock.callLater(call.timeout, sending.cancel)
        try:
            response, body = await sending
        except FlyError:
            raise
        except _NOT_SENT as error:
            raise self._unheard(call, error, sent=False) from None
        except Exception as error:  # whatever treq and the agent make of a broken connection
            if timer.active() and _was_cancelled(error):
                raise CancelledError from None  # by whoever waits, not by the timer
            raise self._unheard(call, error, sent=True) from error
        finally:
            if timer.active():
                timer.cancel()
        request_id = _header(response, b"fly-request-id")
        _log.debug(
            "{method} {path}: {status}, fly-request-id {request_id}",
            method=call.method, path=call.path, status=response.code, request_id=request_id,
        )  # fmt: skip
        if 200 <= response.code < 300:
            return _load(body)
        if response.code == 429:
            await self._too_soon(call, _seconds(_header(response, b"retry-after")))
        raise self._refused(call, response, body, request_id)

    async def _send(self, call: Call) -> tuple[IResponse, bytes]:
        headers = {"Authorization": [self._authorization], "User-Agent": ["matrix"]}
        body = None
        if call.body is not None:
            headers["Content-Type"] = ["application/json"]
            body = json.dumps(call.body).encode()
        if call.nonce:
            headers["fly-machine-lease-nonce"] = [call.nonce]
        response = await self._http.request(
            call.method,
            f"{self._base}/v1{call.path}",
            params=dict(call.query or {}),
            headers=Headers(headers),
            data=body,
            allow_redirects=False,
        )
        collected = bytearray()

        def collect(data: bytes) -> None:
            collected.extend(data)
            if len(collected) > MAX_ANSWER:
                raise FlyError(Verdict.PERMANENT, "too-long", "Fly's answer has no end")

        await response.collect(collect)
        return response, bytes(collected)

    def _unheard(self, call: Call, error: BaseException, *, sent: bool) -> FlyError:
        kind = type(error).__name__
        return FlyError(
            unheard(call.action, sent), "unheard", f"{call.method} {call.path}: no answer ({kind})"
        )

    def _refused(self, call: Call, response: IResponse, body: bytes, request_id: str) -> FlyError:
        refusal = Refusal.read(response.code, body)
        verdict, reason = judge(call.action, refusal)
        after = _seconds(_header(response, b"retry-after"))
        return FlyError(
            verdict,
            reason,
            f"{call.method} {call.path}: {refusal.status} {refusal.text} "
            f"(fly-request-id {request_id or 'unknown'})",
            status=refusal.status,
            request_id=request_id,
            retry_after=after,
        )


def _was_cancelled(error: Exception) -> bool:
    """Whether that is why nothing came; the agent wraps it up."""
    return isinstance(error, CancelledError) or any(
        reason.check(CancelledError) for reason in getattr(error, "reasons", ())
    )


def _header(response: IResponse, name: bytes) -> str:
    values = response.headers.getRawHeaders(name)
    return values[0].decode("latin-1") if values else ""


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() else None


def _load(body: bytes) -> Any:
    try:
        return json.loads(body) if body.strip() else None
    except (ValueError, RecursionError):
        return None
