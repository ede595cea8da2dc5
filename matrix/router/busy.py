"""Busy leases: a machine says that it works on though nobody uses it, and for how long."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from matrix.api import read_model, send_json
from matrix.directory import IDirectory, UnknownUser
from matrix.errors import Conflict, Forbidden, TooManyRequests
from matrix.http.interfaces import Exchange
from matrix.model import Busy, Machine, MachineState, UserId
from matrix.router.asking import reaching_the_directory
from matrix.router.leases import end_of
from matrix.router.machine_api import MachineApi

LONGEST_LEASE: Final = 86400.0
"""Seconds that can be asked for at once: whoever is busy for longer says so again."""

REASON_LENGTH: Final = 200
"""Characters: it is shown in a line."""

BODY_LIMIT: Final = 4096
"""Bytes: of a number and a reason, whatever escapes it is written with."""

BURST: Final = 5
"""Calls of one machine that are answered at once; after them one a second."""

MEMORY: Final = 10_000
"""Machines of which the last calls are remembered."""

_BEYOND_RECALL = frozenset({MachineState.SUSPENDING, MachineState.SUSPENDED, MachineState.STOPPED})


class Request(BaseModel):
    """What a machine asks for."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=REASON_LENGTH),
    ]
    seconds: float = Field(gt=0, le=LONGEST_LEASE, allow_inf_nan=False)


class BusyApi:
    """C{/machine/v1/USER/busy}: C{PUT} begins a lease or sets its end anew, C{DELETE} ends it,
    C{GET} tells of it."""

    def __init__(self, directory: IDirectory, longest: float, now: Callable[[], float]) -> None:
        """
        @param longest: seconds without use for which leases keep a machine awake.
        @param now: the unix time, seconds.
        """
        self._directory = directory
        self._longest = longest
        self._now = now
        self._full_at: OrderedDict[UserId, float] = OrderedDict()
        """When each of those who called lately may make all of a burst again."""

    def join(self, api: MachineApi) -> None:
        """Be part of what machines may ask."""
        api.add("PUT", "busy", self._hold)
        api.add("DELETE", "busy", self._end)
        api.add("GET", "busy", self._tell)

    async def _hold(self, exchange: Exchange, user_id: UserId) -> None:
        self._admit(user_id)
        wanted = await read_model(exchange, Request, BODY_LIMIT)
        with reaching_the_directory():
            try:
                busy = await self._directory.busy.hold(
                    user_id, wanted.reason, wanted.seconds, self._longest
                )
            except UnknownUser:
                raise Forbidden(
                    "this machine's user may not come in, so nothing keeps it awake",
                    reason="user",
                ) from None
            machine = await self._directory.machine(user_id)
        if machine is not None and machine.state in _BEYOND_RECALL:
            raise Conflict(
                "the machine falls asleep already; say it again when it is awake",
                reason="asleep",
            )
        send_json(exchange, self._busy_json(busy, machine))

    async def _end(self, exchange: Exchange, user_id: UserId) -> None:
        self._admit(user_id)
        with reaching_the_directory():
            was = await self._directory.busy.end(user_id)
        send_json(exchange, {"was_busy": was})

    async def _tell(self, exchange: Exchange, user_id: UserId) -> None:
        self._admit(user_id)
        with reaching_the_directory():
            busy = (await self._directory.busy.of([user_id])).get(user_id)
            machine = await self._directory.machine(user_id)
        send_json(exchange, {"busy": None if busy is None else self._busy_json(busy, machine)})

    def _admit(self, user_id: UserId) -> None:
        """
        @raise TooManyRequests: a machine that asks all the time must not become a load.
        """
        now = self._now()
        full_at = max(self._full_at.pop(user_id, now), now) + 1
        if full_at > now + BURST:
            self._full_at[user_id] = full_at - 1
            raise TooManyRequests(
                f"over {BURST} calls at once: come again in a second",
                reason="busy-calls",
                retry_after=1.0,
            )
        self._full_at[user_id] = full_at
        if len(self._full_at) > MEMORY:
            self._full_at.popitem(last=False)

    def _busy_json(self, busy: Busy, machine: Machine | None) -> dict[str, object]:
        until = end_of(busy, machine, self._longest)
        return {
            "reason": busy.reason,
            "since": busy.since.isoformat(),
            "until": until.isoformat(),
            "seconds": round(max(0.0, until.timestamp() - self._now()), 3),
            "shortened": until < busy.until,
        }
