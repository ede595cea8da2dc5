"""
Many callers, one attempt: whether a user's machine is awake for this router, and what a
request, an idle timer or a death means in each case. The table is the documentation; its
diagram is docs/residency.md.
"""

from __future__ import annotations

from typing import Any, Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred

from matrix.errors import MatrixError


class Residency(Protocol):
    """What can happen to a user's machine, as this router sees it."""

    def want(self, waiter: Deferred[Any]) -> None:
        """A request needs the machine; C{waiter} fires when it is ready, or fails."""

    def found(self) -> None:
        """The machine was found running: after a restart of the router, say."""

    def woke(self) -> None:
        """The attempt to wake it succeeded."""

    def failed(self, error: MatrixError) -> None:
        """The attempt to wake it failed."""

    def rest(self, cause: str) -> None:
        """It is to be suspended."""

    def rested(self) -> None:
        """It is suspended."""

    def kept(self) -> None:
        """It was not suspended after all: somebody wants it, or it could not be done."""

    def lost(self) -> None:
        """It cannot be reached any more as it was: it died, or was changed by others."""


class Core(Protocol):
    """What the state machine works with: L{matrix.router.routes.Route}."""

    waiters: dict[Any, None]

    def begin_wake(self) -> None: ...

    def begin_rest(self, cause: str) -> None: ...

    def recall(self) -> None: ...

    def release(self) -> None: ...

    def refuse(self, error: MatrixError) -> None: ...

    def cut(self) -> None: ...


builder = TypeMachineBuilder(Residency, Core)  # type: ignore[type-abstract]

resting = builder.state("resting")
waking = builder.state("waking")
awake = builder.state("awake")
retiring = builder.state("retiring")
wanted_back = builder.state("wanted back")


@resting.upon(Residency.want).to(waking)
def _first_caller(machine: Residency, core: Core, waiter: Deferred[Any]) -> None:
    core.waiters[waiter] = None
    core.begin_wake()


@waking.upon(Residency.want).loop()
def _further_caller(machine: Residency, core: Core, waiter: Deferred[Any]) -> None:
    core.waiters[waiter] = None


@awake.upon(Residency.want).loop()
def _late_caller(machine: Residency, core: Core, waiter: Deferred[Any]) -> None:
    core.waiters[waiter] = None
    core.release()


@retiring.upon(Residency.want).to(wanted_back)
def _caller_back(machine: Residency, core: Core, waiter: Deferred[Any]) -> None:
    core.waiters[waiter] = None
    core.recall()


@wanted_back.upon(Residency.want).loop()
def _another_back(machine: Residency, core: Core, waiter: Deferred[Any]) -> None:
    core.waiters[waiter] = None


@waking.upon(Residency.woke).to(awake)
def _release_all(machine: Residency, core: Core) -> None:
    core.release()


@waking.upon(Residency.failed).to(resting)
def _refuse_all(machine: Residency, core: Core, error: MatrixError) -> None:
    core.refuse(error)


@awake.upon(Residency.rest).to(retiring)
def _begin_rest(machine: Residency, core: Core, cause: str) -> None:
    core.begin_rest(cause)


@wanted_back.upon(Residency.rested).to(waking)
def _turn_round(machine: Residency, core: Core) -> None:
    core.begin_wake()


@wanted_back.upon(Residency.kept).to(awake)
def _stay_for_them(machine: Residency, core: Core) -> None:
    core.release()


@awake.upon(Residency.lost).to(resting)
def _gone_from_awake(machine: Residency, core: Core) -> None:
    core.cut()


resting.upon(Residency.found).to(awake).returns(None)
retiring.upon(Residency.rested).to(resting).returns(None)
retiring.upon(Residency.kept).to(awake).returns(None)
for _state in (waking, awake, retiring, wanted_back):
    _state.upon(Residency.found).loop().returns(None)
for _state in (resting, waking, retiring, wanted_back):
    # The attempt that is under way finds out by itself; without one there is nothing to lose.
    _state.upon(Residency.lost).loop().returns(None)
for _state in (resting, waking, retiring, wanted_back):
    _state.upon(Residency.rest).loop().returns(None)

residency = builder.build()
