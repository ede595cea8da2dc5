"""The supervisor's policy: as many workers as there should be, each alive, answering, counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from matrix.errors import ConfigurationError
from matrix.metrics import Merged, Merger, Registry, series
from matrix.router.workers.channel import Message
from matrix.router.workers.policy import Patience

LOOK_SECONDS = 1.0
"""Between two looks at the workers; policy.py counts in these."""
MEASURE_SECONDS = 5.0
"""Between two questions what was counted: a worker that is killed takes no more with it."""
ANSWER_SECONDS = 2.0
"""For the answer, when somebody waits for it; of one that is late the last answer counts."""
DUMP_SECONDS = 0.5
"""For a worker that hangs to write its stack, before it is killed."""
STOP_SECONDS = 12.0
"""For a worker to end when it is asked to: twice what its open answers get (C{door.GRACE}),
and some to close what it has."""

_log = Logger()


class IHand(Protocol):
    """A worker process: L{matrix.router.workers.hand.Hand}."""

    @property
    def pid(self) -> int: ...

    def send(self, kind: str, **fields: object) -> None: ...

    def dump(self) -> None: ...

    def kill(self) -> None: ...


Launch = Callable[[int, Callable[[Message], None], Callable[[int], None]], IHand]
"""Starts the worker of a number; is given what to call with its messages and at its end."""


class Place:
    """Where one worker after the other has the same number."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.hand: IHand | None = None
        self.up = False
        self.since = 0.0
        """When the present process was started, in the clock's seconds."""
        self.restarts = 0
        self.patience = Patience()
        self.hung = False
        self.retry: IDelayedCall | None = None
        self.refusal = ""
        """Why the present process cannot start, in its own words."""


class Crew:
    """The workers of one daemon; implements L{matrix.router.internal.Crew}."""

    def __init__(
        self,
        clock: IReactorTime,
        launch: Launch,
        count: int,
        registry: Registry,
        lost: Callable[[], None],
    ) -> None:
        """
        @param lost: called when a worker has died: it may have left work half-done.
        """
        self._clock = clock
        self._launch = launch
        self._registry = registry
        self._lost = lost
        self._places = [Place(number) for number in range(1, count + 1)]
        self._merger = Merger()
        self._starting: Deferred[None] | None = None
        self._answers: list[Deferred[None]] = []
        self._unanswered: set[int] = set()
        self._absent: set[int] = set()
        """The numbers for which the others stand in."""
        self._stopping = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._measuring = LoopingCall(self._ask)
        self._measuring.clock = clock
        registry.watch(series.WORKERS, lambda: sum(place.up for place in self._places), "up")
        registry.watch(series.WORKERS, lambda: sum(not place.up for place in self._places), "down")

    # starting

    async def start(self) -> None:
        """
        Start all workers; returns once all of them serve.

        @raise ConfigurationError: one cannot; says why, in one line.
        """
        started: Deferred[None] = Deferred()
        self._starting = started
        for place in self._places:
            self._fill(place)
        self._looking.start(LOOK_SECONDS, now=False)
        self._measuring.start(MEASURE_SECONDS, now=False)
        try:
            await started
        finally:
            self._starting = None

    def _fill(self, place: Place) -> None:
        place.retry = None
        place.since = self._clock.seconds()
        place.hung, place.refusal = False, ""
        place.patience.started()
        try:
            place.hand = self._launch(
                place.number,
                lambda message: self._heard(place, message),
                lambda status: self._ended(place, status),
            )
        except OSError as error:
            _log.error("worker {n} cannot be started: {error}", n=place.number, error=error)
            self._again(place)

    # what workers say

    def _heard(self, place: Place, message: Message) -> None:
        place.patience.heard()
        kind = message["kind"]
        if kind == "ready":
            place.up = True
            place.patience.ready()
            self._tell_absent(anew=place)
            assert place.hand is not None
            _log.info("worker {n} serves (process {pid})", n=place.number, pid=place.hand.pid)
            if self._starting is not None and all(each.up for each in self._places):
                self._starting.callback(None)
        elif kind == "refused":
            place.refusal = message["text"]
        elif kind == "measures":
            self._merger.heard(place.number, message["snapshot"])
            self._answered(place)

    def _ended(self, place: Place, status: int) -> None:
        was_up, place.up, place.hand = place.up, False, None
        self._merger.ended(place.number)
        self._answered(place)
        if self._stopping:
            return
        self._tell_absent()
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        if self._starting is not None and not self._starting.called:
            why = place.refusal or f"it ended {how} while it started; its log says more"
            self._starting.errback(ConfigurationError(f"worker {place.number}: {why}"))
            return
        _log.error(
            "worker {n} ended {how}; it is started again {why}",
            n=place.number,
            how=how,
            why=place.refusal,
        )
        self._registry.counter(series.WORKER_RESTARTS, "hung" if place.hung else "died").value += 1
        place.restarts += 1
        self._again(place)
        if was_up:
            self._lost()

    def _again(self, place: Place) -> None:
        delay = place.patience.ended(self._clock.seconds() - place.since)
        place.retry = self._clock.callLater(delay, self._fill, place)

    # looking after them

    def _tell_absent(self, anew: Place | None = None) -> None:
        """Whose connections are not accepted now, the others are to accept."""
        absent = {each.number for each in self._places if not each.up or each.patience.quiet}
        changed, self._absent = absent != self._absent, absent
        for place in self._places:
            if place.up and place.hand is not None and (changed or place is anew):
                place.hand.send("stand in", numbers=sorted(absent - {place.number}))

    def _look(self) -> None:
        for place in self._places:
            if place.hand is not None and not place.hung and place.patience.looked():
                place.hung, place.up = True, False
                _log.error("worker {n} does not answer; it is replaced", n=place.number)
                place.hand.dump()
                self._clock.callLater(DUMP_SECONDS, self._kill, place, place.hand)
        if self._starting is None:
            self._tell_absent()

    def _kill(self, place: Place, hand: IHand) -> None:
        if place.hand is hand:
            hand.kill()

    # L{matrix.router.internal.Crew}

    async def measures(self) -> Merged:
        """What all of them counted, and this process."""
        self._ask()
        if self._unanswered:
            answered: Deferred[None] = Deferred()
            self._answers.append(answered)
            try:
                await answered.addTimeout(ANSWER_SECONDS, self._clock)
            except DeferredTimeout:
                _log.warn("workers {late} are late to count", late=sorted(self._unanswered))
        return self._merger.merged(self._registry.snapshot())

    def _ask(self) -> None:
        for place in self._places:
            if place.up and place.hand is not None and not place.patience.quiet:
                self._unanswered.add(place.number)
                place.hand.send("measure")

    def _answered(self, place: Place) -> None:
        self._unanswered.discard(place.number)
        if not self._unanswered:
            answers, self._answers = self._answers, []
            for answer in answers:
                if not answer.called:
                    answer.callback(None)

    def report(self) -> Sequence[dict[str, object]]:
        """How each of them is."""
        return [
            {
                "number": place.number,
                "pid": None if place.hand is None else place.hand.pid,
                "up": place.up,
                "uptime_s": None
                if place.hand is None
                else round(self._clock.seconds() - place.since, 3),
                "restarts": place.restarts,
            }
            for place in self._places
        ]

    def reopen(self) -> None:
        """Let each go on in a new access log."""
        for place in self._places:
            if place.hand is not None:
                place.hand.send("reopen")

    # stopping

    async def stop(self) -> None:
        """Let all end properly; returns once none is left."""
        self._stopping = True
        for looping in (self._looking, self._measuring):
            if looping.running:
                looping.stop()
        for place in self._places:
            if place.retry is not None and place.retry.active():
                place.retry.cancel()
            if place.hand is not None:
                place.hand.send("stop")
        deadline = self._clock.seconds() + STOP_SECONDS
        while any(place.hand is not None for place in self._places):
            await deferLater(self._clock, 0.02)
            if self._clock.seconds() >= deadline:
                self._end_by_force()

    def _end_by_force(self) -> None:
        for place in self._places:
            if place.hand is not None:
                _log.error("worker {n} does not end; it is killed", n=place.number)
                place.hand.kill()
