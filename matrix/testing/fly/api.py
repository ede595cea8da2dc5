"""From a request to an answer: who asks, how often, what goes wrong, and what is done."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import Map, Rule

from matrix.testing.fly.answers import check_answer, described_config
from matrix.testing.fly.call import Action, Call
from matrix.testing.fly.calls import Calls, Made
from matrix.testing.fly.faults import Fault, Faults, Kind
from matrix.testing.fly.rates import Rates
from matrix.testing.fly.refusals import ROWS, Refusal, invalid
from matrix.testing.fly.schema import breaches
from matrix.testing.fly.world import World

PREFIX = "/v1"
OPEN_BODIES = frozenset({"CreateLeaseRequest", "StopRequest"})
"""Of what may be sent without a body."""

BESIDE = {"CreateAppRequest": ("app_name",)}
"""What Fly takes although its description does not have it (facts/fly.md section 2)."""


@dataclass(frozen=True)
class Asked:
    """A request as HTTP brings it."""

    method: str
    path: str
    query: str = ""
    authorization: str = ""
    nonce: str | None = None
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What HTTP brings back."""

    status: int
    """0 to close the connection without a word."""
    value: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class FlyApi:
    """Fly's Machines API, without HTTP."""

    def __init__(
        self,
        world: World,
        actions: Iterable[Action],
        tokens: Mapping[str, str],
        faults: Faults,
        check_answers: bool,
    ) -> None:
        """
        @param tokens: the organization of each token.
        @param check_answers: whether to raise L{WrongAnswer} at what Fly would not answer.
        """
        self._world = world
        self._tokens = tokens
        self._check = check_answers
        self.faults = faults
        self.rates = Rates(world.now)
        self.calls = Calls()
        self.actions: Sequence[Action] = tuple(actions)
        self._routes = Map(
            [Rule(PREFIX + one.path, methods=[one.method], endpoint=one) for one in self.actions],
            strict_slashes=False,
        ).bind("fly")

    async def answer(self, asked: Asked) -> Answer:
        """
        What Fly would answer.

        @raise WrongAnswer: ours is none of Fly's.
        """
        request_id = self._world.new_ulid() + "-emu"
        headers = {"fly-request-id": request_id}
        try:
            action, path = self._find(asked)
        except Refusal as refusal:
            self.calls.begun("unknown")
            return Answer(refusal.status, refusal.body(), headers)
        self.calls.begun(action.name)
        subjects = frozenset(path.values())
        fault: Fault | None = None
        try:
            org = self._organization(asked.authorization)
            self._limit(action, path, headers)
            fault = self.faults.draw(action.name, subjects)
            status, value = await self._befallen(action, path, asked, org, fault)
        except Refusal as refusal:
            status, value = refusal.status, refusal.body()
        subject = path.get("machine") or path.get("volume") or path.get("app") or ""
        kind = None if fault is None else str(fault.kind)
        made = Made(self._world.now(), action.name, subject, status, kind, request_id)
        self.calls.ended(made)
        return Answer(status, value, headers)

    def _find(self, asked: Asked) -> tuple[Action, Mapping[str, str]]:
        try:
            action, path = self._routes.match(asked.path, asked.method)
        except MethodNotAllowed:
            raise Refusal(405, f"method {asked.method} is not allowed here") from None
        except HTTPException:
            raise Refusal(404, "404 page not found") from None
        return action, path

    def _organization(self, authorization: str) -> str:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() in ("bearer", "flyv1"):
            for known, org in self._tokens.items():
                if hmac.compare_digest(known.encode(), token.strip().encode()):
                    return org
        raise Refusal(401, "unauthorized: invalid token")

    def _limit(self, action: Action, path: Mapping[str, str], headers: dict[str, str]) -> None:
        if self._world.tuning.switches.rate_limits == "off":
            return
        whose = path.get("machine") or path.get("volume") or path.get("app") or path.get("org")
        wait = self.rates.take((action.name, whose), action.rate)
        if wait > 0:
            if self._world.tuning.switches.retry_after == "yes":
                headers["retry-after"] = str(max(1, round(wait)))
            raise ROWS["rate"].refusal({})

    async def _befallen(
        self, action: Action, path: Mapping[str, str], asked: Asked, org: str, fault: Fault | None
    ) -> tuple[int, Any]:
        """Do it, unless something goes wrong before."""
        if fault is None:
            return await self._done(action, path, asked, org)
        if fault.kind is Kind.ROW:
            raise ROWS[fault.row].refusal(path)
        if fault.kind is Kind.STATUS:
            raise Refusal(fault.status, "internal: an injected fault", "unknown")
        if fault.kind is Kind.ERROR_IN_OK:
            return 200, {"status": "error", "message": "an injected fault"}
        if fault.kind is Kind.BEFORE:
            return 0, None
        if fault.kind is Kind.SLOW:
            await deferLater(self._world.clock, fault.seconds)
        status, value = await self._done(action, path, asked, org)
        if fault.kind is Kind.LOST:
            return 0, None
        if fault.kind is Kind.DONE_STATUS:
            raise Refusal(fault.status, "internal: an injected fault", "unknown")
        return status, value

    async def _done(
        self, action: Action, path: Mapping[str, str], asked: Asked, org: str
    ) -> tuple[int, Any]:
        query = parse_qs(asked.query, keep_blank_values=True)
        body = _body(action, asked.body)
        call = Call(action.name, path, query, body, asked.nonce, org)
        value = action.do(call)
        if isinstance(value, Deferred) or isawaitable(value):
            value = await value
        if self._check and action.answer is not None:
            check_answer(action.answer, value)
        return action.status, value


def _body(action: Action, sent: bytes) -> Any:
    """
    What was sent, if it is as it should be.

    @raise Refusal: it is not; names each breach.
    """
    if action.body is None:
        return None
    if not sent and action.body in OPEN_BODIES:
        return {}
    try:
        body = json.loads(sent)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refusal(400, "the body is no JSON object")
    if "config" in body:
        body["config"] = described_config(body["config"])
    beside = BESIDE.get(action.body, ())
    wrong = breaches(action.body, {name: one for name, one in body.items() if name not in beside})
    if wrong:
        raise invalid(f"{action.body}: {'; '.join(wrong)}")
    return body
