"""Machines as process groups on this host: the provider of embedded mode."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from matrix.errors import ConfigurationError
from matrix.machines._boot import boot
from matrix.machines._command import Command
from matrix.machines._home import Home, Record, passable, residents_of
from matrix.machines._recall import Recall
from matrix.machines._residents import Residents
from matrix.machines._turns import Turns, shielded
from matrix.machines._uids import own_uids
from matrix.machines.interfaces import (
    IProvider,
    Keep,
    MachineGone,
    Observed,
    ProviderError,
    Started,
    Stranded,
)
from matrix.model import Address, Machine, MachineState, Stray, UserId
from matrix.processes import ExitWatch, Process, watch_exit

_T = TypeVar("_T")
_P = ParamSpec("_P")

Work = Callable[[Home, int], Coroutine[Any, Any, _T]]
"""What is done to a machine by the one whose turn it is; gets the descriptor of the lock."""

THREADS = 8
"""At once in system calls, for each takes milliseconds; waiting is done in the reactor."""

STEP_SECONDS = (0.001, 0.1)
"""First and longest pause between looks at processes that are to stop or end."""

LOCK_SECONDS = 0.02
"""Between two attempts at a lock that another process has."""

LOOK_SECONDS = 0.1
"""Between two looks at a machine that runs and does not answer yet."""

FREEZE_SECONDS = 5.0
"""A process in an uninterruptible system call stops when that call returns."""

KILL_SECONDS = 10.0
"""What SIGKILL does not end within this time hangs in the kernel; the operator must know."""


@implementer(IProvider)
class LocalProvider:
    """
    Each machine is a session of its own with its own directory, C{machines/<user id>/}
    below the state directory::

        data/         the user's, and nobody else's (0700)
        run/          where it makes its socket (0700)
        machine.json  ids and address
        pid           the leading process, for good (pid, start ticks, boot of the host)
        log           standard output and error

    As root each machine has a user id of its own: it can read no other machine's data,
    nor anything of ours, and its processes are found by that id wherever they hide. Without
    root all machines run as us: they are apart only in where they look, so it is for trying
    things out. Machines outlive us and are adopted by the next provider.
    """

    name = "local"
    moves = False
    sleeps = True
    _log = Logger()

    def __init__(
        self,
        directory: Path,
        command: str | None,
        reactor: Any,
        *,
        grace: float = 5.0,
        uids: range | None = None,
    ) -> None:
        """
        @param directory: the state directory; made if missing.
        @param command: C{MATRIX_LOCAL_COMMAND}.
        @param reactor: provides C{IReactorTime}, C{IReactorFDSet} and
            C{IReactorFromThreads}.
        @param grace: seconds from SIGTERM to SIGKILL.
        @param uids: the user ids to draw from, as root; by default what the host's id map
            allows.
        @raise matrix.errors.ConfigurationError: the command is unusable.
        """
        self._command = Command.parse(command)
        self._machines = directory.absolute() / "machines"
        try:
            passable(self._machines)
        except OSError as error:
            raise ConfigurationError(f"MATRIX_STATE_DIR cannot be used: {error}") from None
        self._uids = own_uids(self._machines / "uids", uids)
        self._reactor = reactor
        self._grace = grace
        self._turns = Turns()
        self._watches: dict[UserId, tuple[Process, ExitWatch]] = {}
        self._died: list[Callable[[UserId], None]] = []
        self._closed = False
        self._pool = ThreadPool(0, THREADS, "machines")
        self._pool.start()
        self._guard = reactor.addSystemEventTrigger("after", "shutdown", self._pool.stop)

    async def provision(self, machine: Machine, environment: Mapping[str, str], keep: Keep) -> str:
        """Make the machine's directory, and choose its user id."""

        async def make(home: Home, lock: int) -> str:
            if not await self._in_thread(home.complete):
                await self._stop(home, lock)  # what outlived its data would pass for the new one
            return (await self._in_thread(home.make, self._allocate)).machine_id

        home = Home(self._machines, machine.user_id)
        while True:
            await self._in_thread(passable, home.path)
            try:
                return await self._alone(machine.user_id, make)
            except MachineGone:
                continue  # destroyed while we waited for our turn

    async def relocate(
        self, machine: Machine, environment: Mapping[str, str], keep: Keep, fresh: bool
    ) -> str:
        """
        Only to an empty data directory: the former one is set aside. See L{IProvider}.

        @raise Stranded: a copy is wanted, for which there is no other place.
        """
        if not fresh:
            raise Stranded("machines of this host have no other place", can_copy=False)

        async def begin_anew(home: Home, lock: int) -> str:
            await self._stop(home, lock)
            await keep(former_machine_id=machine.machine_id, on_trial=True)
            return (await self._in_thread(home.set_aside, not machine.on_trial)).machine_id

        return await self._alone(machine.user_id, begin_anew)

    async def confirm(self, machine: Machine, keep: Keep) -> bool:
        """Delete what was set aside. See L{IProvider}."""

        async def settle(home: Home, _: int) -> None:
            await self._in_thread(home.drop_former)

        await self._unless_gone(machine.user_id, settle)
        if machine.former_machine_id is not None:
            await keep(former_machine_id=None)
        return True

    async def start(self, machine: Machine, environment: Mapping[str, str]) -> Started:
        """Boot, thaw, or adopt what runs."""

        async def run(home: Home, lock: int) -> Started:
            record, residents, was = await self._in_thread(_look, home)
            if was is MachineState.STOPPED:
                was = was if record.boot_id else MachineState.PROVISIONING
                await self._end(home, residents, grace=0.0)
                record = await self._in_thread(boot, home, record, self._command, environment, lock)
            elif was is MachineState.SUSPENDED:
                await self._in_thread(residents.thaw)
            await self._attend(home)
            return Started(Address.parse(str(record.address)), str(record.boot_id), was)

        return await self._alone(machine.user_id, run)

    async def suspend(self, machine: Machine, recall: Recall | None = None) -> None:
        """SIGSTOP to all its processes, until each is seen stopped."""
        calling_off = recall or Recall()

        async def freeze(home: Home, _: int) -> None:
            calling_off.check()
            record, residents, was = await self._in_thread(_look, home)
            if was is MachineState.STOPPED:
                return
            if not await self._until(
                lambda: calling_off.asked or residents.freeze(), FREEZE_SECONDS
            ):
                await self._in_thread(residents.thaw)
                raise ProviderError(
                    f"machine {record.machine_id} did not freeze within {FREEZE_SECONDS:.0f} s",
                    retry_after=FREEZE_SECONDS,
                )
            if calling_off.asked:
                await self._in_thread(residents.thaw)
                calling_off.check()
            calling_off.begin()
            await self._attend(home)

        await self._unless_gone(machine.user_id, freeze)

    async def stop(self, machine: Machine) -> None:
        """SIGTERM, a grace, SIGKILL: nobody is left afterwards."""
        await self._unless_gone(machine.user_id, self._stop)

    async def destroy(self, machine: Machine) -> None:
        """As L{stop}; then its directory goes too. Its user id is never given again."""

        async def remove(home: Home, lock: int) -> None:
            await self._stop(home, lock)
            await self._in_thread(home.remove)

        await self._unless_gone(machine.user_id, remove)

    async def inspect(self, machine: Machine) -> Observed:
        """Look at the leading process; takes no turn, and adopts what runs."""
        home = Home(self._machines, machine.user_id)
        try:
            record, _, state = await self._in_thread(_look, home)
        except MachineGone:
            return Observed(MachineState.LOST)
        if state is MachineState.STOPPED:
            return Observed(state)
        await self._attend(home)
        return Observed(state, Address.parse(str(record.address)), record.boot_id)

    def survey(self) -> None:
        """To look at each costs no call. See L{IProvider}."""

    async def discard(self, stray: Stray) -> bool:
        """There are none. See L{IProvider}."""
        return False

    async def follow(self, machine: Machine, up: bool) -> Observed:
        """Once they are started its processes run; whether they still do is looked at often."""
        if up:
            await deferLater(self._reactor, LOOK_SECONDS)
        return await self.inspect(machine)

    def watch(self, died: Callable[[UserId], None]) -> None:
        """C{died} is called in the reactor, at once."""
        self._died.append(died)

    async def close(self, stop_machines: bool) -> None:
        """Finish what is under way, and let go."""
        if self._closed:
            return
        self._closed = True
        await self._turns.drained()
        if stop_machines:
            names = await self._in_thread(residents_of, self._machines)
            await gatherResults([Deferred.fromCoroutine(self._stop_last(name)) for name in names])
        for _, watch in self._watches.values():
            watch.cancel()
        self._watches.clear()
        self._reactor.removeSystemEventTrigger(self._guard)
        self._pool.stop()

    async def _stop(self, home: Home, _: int) -> None:
        record = await self._in_thread(home.load)
        if record is not None:
            residents = await self._in_thread(Residents.of, home, record)
            await self._end(home, residents, self._grace)
            await self._in_thread(home.forget_process)

    async def _stop_last(self, user_id: UserId) -> None:
        """Stop one of many: the others must not suffer from its failure."""
        try:
            await self._take_turn(user_id, self._stop)
        except ProviderError as error:
            self._log.error("machine.stop-failed {user_id}: {error}", user_id=user_id, error=error)

    async def _end(self, home: Home, residents: Residents, grace: float) -> None:
        """
        End all of a machine's processes.

        @raise ProviderError: some do not end even so.
        """
        _, watch = self._watches.pop(home.user_id, (None, None))
        if watch is not None:
            watch.cancel()
        if grace > 0 and not await self._in_thread(residents.gone):
            await self._in_thread(residents.ask_to_end)
            await self._until(residents.gone, grace)
        if not await self._until(residents.kill, KILL_SECONDS):
            raise ProviderError(
                f"processes of machine {residents.record.machine_id} survive SIGKILL: "
                f"the kernel holds them, see {home.path}"
            )

    async def _attend(self, home: Home) -> None:
        """See to it that the death of the present leader is noticed."""
        process = await self._in_thread(home.process)
        known, watch = self._watches.get(home.user_id, (None, None))
        if process is None or process == known or self._closed:
            return
        if watch is not None:
            watch.cancel()
        watch = watch_exit(process, self._reactor, lambda: self._ended(home.user_id))
        if watch is None:
            self._reactor.callLater(0, self._ended, home.user_id)
        else:
            self._watches[home.user_id] = (process, watch)

    def _ended(self, user_id: UserId) -> None:
        self._watches.pop(user_id, None)
        self._log.info("machine.died {user_id}", user_id=user_id)
        for died in self._died:
            died(user_id)

    def _allocate(self, user_id: UserId) -> int | None:
        return None if self._uids is None else self._uids.allocate(user_id)

    async def _unless_gone(self, user_id: UserId, work: Work[None]) -> None:
        """Do it, or be content that there is nothing to do it to."""
        try:
            await self._alone(user_id, work)
        except MachineGone:
            return

    async def _alone(self, user_id: UserId, work: Work[_T]) -> _T:
        """Do it when it is its turn, to the end even if the caller leaves."""
        if self._closed:
            raise ProviderError("the local provider was closed: Matrix is stopping")
        return await shielded(Deferred.fromCoroutine(self._take_turn(user_id, work)))

    async def _take_turn(self, user_id: UserId, work: Work[_T]) -> _T:
        home = Home(self._machines, user_id)
        async with self._turns.turn(home.user_id, lambda: self._lock(home)) as lock:
            return await work(home, lock)

    async def _lock(self, home: Home) -> int:
        """Wait for the machine's lock among the processes of this host."""
        while (descriptor := await self._in_thread(home.lock)) is None:
            await deferLater(self._reactor, LOCK_SECONDS)
        return descriptor

    async def _until(self, step: Callable[[], bool], seconds: float) -> bool:
        """Repeat a step until it is true; false if it was not so within C{seconds}."""
        deadline = self._reactor.seconds() + seconds
        pause, longest = STEP_SECONDS
        while not await self._in_thread(step):
            if self._reactor.seconds() >= deadline:
                return False
            await deferLater(self._reactor, pause)
            pause = min(pause * 2, longest)
        return True

    async def _in_thread(
        self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """
        Call what may block.

        @raise ProviderError: the operating system refused.
        """
        try:
            return await deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs)
        except OSError as error:
            raise ProviderError(str(error)) from error


def _look(home: Home) -> tuple[Record, Residents, MachineState]:
    """
    What is there of a machine. Blocks.

    @raise MachineGone: nothing, or no data.
    """
    record = home.load()
    if record is None or not home.complete():
        raise MachineGone(f"user {home.user_id} has no machine in {home.path}")
    residents = Residents.of(home, record)
    return record, residents, residents.observe()
