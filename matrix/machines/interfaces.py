"""What a provider is: whoever makes, starts, suspends and destroys machines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

from zope.interface import Attribute, Interface

from matrix.model import Address, Machine, MachineState, Stray, UserId

if TYPE_CHECKING:
    from matrix.machines._recall import Recall


class ProviderError(Exception):
    """
    The provider could not do it. The text is for the operator.

    C{retry_after} (seconds) is set when another attempt soon makes sense.
    """

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class MachineGone(ProviderError):
    """The provider knows no such machine: it is lost."""


class Recalled(ProviderError):
    """The machine was to be suspended, and is wanted: it runs on."""


class Stranded(ProviderError):
    """
    It cannot be started where it is, nor soon: its host has no room, or does not answer. It may
    be moved (L{IProvider.relocate}).
    """

    def __init__(self, text: str, *, can_copy: bool, retry_after: float | None = None) -> None:
        """@param can_copy: whether its data can be had for another place."""
        super().__init__(text, retry_after=retry_after)
        self.can_copy = can_copy


@dataclass(frozen=True, slots=True)
class Started:
    """A machine whose processes run (it need not answer yet)."""

    address: Address
    boot_id: str
    was: MachineState
    """The state it was found in: suspended, stopped, running, or provisioning (first boot)."""
    volume_id: str | None = None
    """Where its data are, as far as that is told: another host has another copy."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What the provider sees of a machine right now."""

    state: MachineState
    """One of running, suspended, stopped, lost."""
    address: Address | None = None
    boot_id: str | None = None


@dataclass(frozen=True, slots=True)
class Sighted:
    """A machine or volume as a survey shows it: at some time since the survey began."""

    id: str
    kind: Literal["machine", "volume"]
    app: str
    name: str
    region: str
    user_id: UserId | None
    """Whose it says that it is; the place's of something in stock."""
    ours: bool
    """Whether we made it, so that it is for us to delete it."""
    said: str = ""
    """Its state in the provider's word."""
    state: MachineState | None = None
    """As L{Observed} has it; C{None} for a machine on its way to another, and for volumes."""
    attached: str | None = None
    """The machine that has a volume."""
    since: datetime | None = None
    """Since when a machine has been in its state; when a volume was made."""


@dataclass(frozen=True, slots=True)
class SurveyPage:
    """Some of what there is."""

    found: tuple[Sighted, ...]
    blind: tuple[str, ...] = ()
    """Regions of which nothing is told now: what is there must not be taken for lost."""


class Paces(Protocol):
    """At which pace all processes of all routers together ask for something."""

    async def turn(self, name: str, per_second: float, burst: int) -> float:
        """
        Take the next turn; in how many seconds it is.

        @raise matrix.directory.interfaces.DirectoryUnavailable: nobody can tell now.
        """

    async def hold(self, name: str, seconds: float) -> None:
        """
        No turn is before so many seconds from now but those that were given.

        @raise matrix.directory.interfaces.DirectoryUnavailable: nobody can be told now.
        """


class Keep(Protocol):
    """Writes to a machine's row at once, so that it outlives us."""

    async def __call__(self, **fields: object) -> Machine:
        """
        The row as it is then.

        @param fields: attributes of L{Machine} and their new values.
        """


class IStocking(Interface):
    """
    A provider that can make machines before anybody asks for them. In the directory
    (L{matrix.directory.IStock}) each has a row like a user's, whose C{user_id} is its place.
    """

    made_of: str = Attribute("What machines are made of now: a digest.")

    claimed: str = Attribute(
        "The C{provision_step} of a user's row that got such a machine: L{IProvider.provision} "
        "then tells the machine whose it is."
    )

    async def stock_up(place: Machine, keep: Keep) -> str:
        """
        As L{IProvider.provision}, of a machine without a user; in no hurry.

        @param keep: writes to the place's row.
        """

    async def clear_out(place: Machine) -> None:
        """As L{IProvider.destroy}, of such a machine that nobody got."""


class IProvider(Interface):
    """
    Each method is idempotent: asking for what is already so succeeds. Each returns an
    awaitable and raises L{ProviderError}. A crash between any two lines leaves something
    that the next call adopts, never a second machine.
    """

    name: str = Attribute("The provider's name in the directory, such as C{local}.")

    moves: bool = Attribute(
        "Whether an address may become another machine's without our doing: then it counts only"
        " after a look at the machine."
    )

    sleeps: bool = Attribute(
        "Whether machines are ever put to sleep. If not, L{suspend} is not to be asked for."
    )

    async def provision(machine: Machine, environment: Mapping[str, str], keep: Keep) -> str:
        """
        Make the user's machine with its data place, not started. Returns its machine id; the
        existing one's if there is one.

        @param environment: as for L{start}.
        @param keep: writes down what a later attempt needs, each thing as soon as it is known.
        @raise Stranded: its data place is there, but no machine can be made beside it.
        """

    async def relocate(
        machine: Machine, environment: Mapping[str, str], keep: Keep, fresh: bool
    ) -> str:
        """
        Make the user another machine somewhere else, not started, beside the one that cannot be
        started. Returns its machine id, which was kept. The former machine and data place stay in
        the row (C{former_machine_id}, C{former_volume_id}) until L{confirm}; the new one is
        C{on_trial} until whoever asked has seen it answer. What was interrupted is taken up by
        L{provision}.

        @param fresh: with an empty data place, instead of a copy of what there is.
        @raise Stranded: its data cannot be copied.
        """

    async def confirm(machine: Machine, keep: Keep) -> bool:
        """
        Delete what the row still has of before the machine was moved, since the new one has
        answered: it is C{on_trial} no more.

        @return: whether nothing of it is left; if not, ask again in a while.
        """

    async def start(machine: Machine, environment: Mapping[str, str]) -> Started:
        """
        Start, resume, or find running. C{environment} reaches the machine's processes on a
        fresh boot; a resume keeps what it had. C{machine.state} is what it was said to be
        before it was wanted: a hint, which may save a look.

        @raise MachineGone: there is no such machine (any more).
        @raise Stranded: it is there, and cannot be started.
        """

    async def suspend(machine: Machine, recall: Recall | None = None) -> None:
        """
        Freeze it, memory kept, and see that it is. Suspending what does not run succeeds.

        @param recall: with which it may be called off. Once that is begun this may end before
            the machine sleeps, and a start at any moment, also by another provider of the same
            machines, brings it back, however long it would have taken to suspend.
        @raise Recalled: it was called off in time.
        """

    async def stop(machine: Machine) -> None:
        """End its processes, politely first. Its data stay."""

    async def destroy(machine: Machine) -> None:
        """End its processes and delete its data."""

    async def inspect(machine: Machine) -> Observed:
        """What is really there."""

    def survey() -> AsyncIterator[SurveyPage] | None:
        """
        Everything of ours that there is, from few calls and with low priority. C{None}: to
        inspect each machine costs no more.
        """

    async def discard(stray: Stray) -> bool:
        """
        Delete what belongs to nobody, if it still is as it was noted: whose it says that it is,
        and no machine has it.

        @return: whether it is gone, or about to be.
        """

    async def follow(machine: Machine, up: bool) -> Observed:
        """
        Wait for news of a machine that was started and does not answer yet: that its processes
        run now, or that they will not. May take minutes; cancel it to hear no more. What is not
        told again (C{address}) is as it was.

        @param up: whether it is known to run, so that only another state, or another address, is
            news; when there is none for long, it returns all the same.
        """

    def watch(died: Callable[[UserId], None]) -> None:
        """Call C{died} when a machine's processes end without having been asked to, if the
        provider is told of it; else L{inspect} shows it."""

    async def close(stop_machines: bool) -> None:
        """Let go of everything; machines go on running unless C{stop_machines}."""
