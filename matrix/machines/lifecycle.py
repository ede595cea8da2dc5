"""The life of a machine: which state may follow which, and why."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from automat import NoTransition, TypeMachineBuilder

from matrix.model import MachineState


class LifecycleEvent(StrEnum):
    """What happens to a machine; each is an input of the same name below."""

    WAKE = "wake"
    WOKE = "woke"
    IDLE = "idle"
    DRAINED = "drained"
    KEEP = "keep"
    SUSPENDED = "suspended"
    FAILED = "failed"
    DIED = "died"
    GONE = "gone"
    FOUND_SUSPENDED = "found_suspended"
    STOP = "stop"
    DESTROY = "destroy"
    DESTROYED = "destroyed"


class IllegalTransition(Exception):
    """An event that cannot happen in this state: whoever reported it is mistaken."""

    def __init__(self, state: MachineState, event: LifecycleEvent) -> None:
        super().__init__(f"a machine that is {state} cannot meet {event.value!r}")
        self.state = state
        self.event = event


class Life(Protocol):
    """The inputs; each returns the state that follows."""

    def wake(self) -> MachineState:
        """
        Somebody needs it and it does not answer, whatever its row says. A lost machine
        must first be made again; once it is, wake it again.
        """

    def woke(self) -> MachineState:
        """It answers HTTP."""

    def idle(self) -> MachineState:
        """Nobody has used it for its idle timeout."""

    def drained(self) -> MachineState:
        """The last exchange on it has ended."""

    def keep(self) -> MachineState:
        """
        It runs and goes on running: wanted again before it was frozen, could not be frozen,
        or was found running although its row says otherwise.
        """

    def suspended(self) -> MachineState:
        """The provider has frozen it."""

    def failed(self) -> MachineState:
        """The provider could not do what the state says is under way."""

    def died(self) -> MachineState:
        """Its processes ended, or were found ended, without anybody's asking."""

    def gone(self) -> MachineState:
        """The provider knows no such machine any more."""

    def found_suspended(self) -> MachineState:
        """It is frozen although its row says otherwise."""

    def stop(self) -> MachineState:
        """The operator, or Matrix itself when it ends, has its processes ended."""

    def destroy(self) -> MachineState:
        """Machine and data are to be deleted."""

    def destroyed(self) -> MachineState:
        """Nothing is left of it."""


class _Nothing:
    """A life needs no core: the row is elsewhere."""


_builder = TypeMachineBuilder(Life, _Nothing)

# The first one is where a machine's row begins.
_STATES = {state: _builder.state(state.value) for state in MachineState}


def _when(
    happens: Callable[[Life], MachineState], after: MachineState, *states: MachineState
) -> None:
    """In each of C{states} this may happen, and then the machine is C{after}."""
    for state in states:
        _STATES[state].upon(happens).to(_STATES[after]).returns(after)


_S = MachineState
_LIVING = tuple(state for state in MachineState if state not in (_S.DESTROYING, _S.DESTROYED))

# From every state: a router that died may have left its row in any of them.
_when(Life.wake, _S.STARTING, *(state for state in _LIVING if state is not _S.LOST))
_when(Life.wake, _S.PROVISIONING, _S.LOST)
_when(Life.woke, _S.RUNNING, _S.STARTING)
_when(Life.failed, _S.FAILED, _S.PROVISIONING, _S.STARTING)

_when(Life.idle, _S.DRAINING, _S.RUNNING)
_when(Life.drained, _S.SUSPENDING, _S.DRAINING)
_when(Life.suspended, _S.SUSPENDED, _S.SUSPENDING)

# What is really so is never refused: the row was wrong.
_when(Life.keep, _S.RUNNING, *_LIVING)
_when(Life.found_suspended, _S.SUSPENDED, *_LIVING)
_when(Life.gone, _S.LOST, *_LIVING)
_when(Life.died, _S.STOPPED, *(state for state in _LIVING if state is not _S.STARTING))
_when(Life.died, _S.FAILED, _S.STARTING)

_when(Life.stop, _S.STOPPED, *(state for state in _LIVING if state is not _S.LOST))
_when(Life.destroy, _S.DESTROYING, *_LIVING, _S.DESTROYING)
_when(Life.destroyed, _S.DESTROYED, _S.DESTROYING, _S.DESTROYED)

LIFECYCLE = _builder.build()
"""The whole of it, as an Automat machine; docs/lifecycle.md is drawn from it."""


def next_state(state: MachineState, event: LifecycleEvent) -> MachineState:
    """
    The state that follows. Every change of a machine's row asks here first.

    @raise IllegalTransition: the event cannot happen in this state.
    """
    life = LIFECYCLE(_Nothing(), _STATES[state])
    happens: Callable[[], MachineState] = getattr(life, event.value)
    try:
        return happens()
    except NoTransition:
        raise IllegalTransition(state, event) from None
