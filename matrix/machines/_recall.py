"""What passes between who has a machine suspended and its provider while that goes on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred

from matrix.machines.interfaces import Recalled

_T = TypeVar("_T")


class Recall:
    """
    One suspend, which may be called off.

    Before it is L{begun}, L{ask} keeps the machine awake: the provider asks for nothing any
    more, and L{matrix.machines.IProvider.suspend} raises L{Recalled}. After that only a start
    helps, by whomever: the provider need not be waited for then, and L{ask} ends its waiting.
    """

    __slots__ = ("_on_begun", "_waiting", "asked", "begun")

    def __init__(self, on_begun: Callable[[], None] = lambda: None) -> None:
        """@param on_begun: called once the machine is beyond recall."""
        self.asked = False
        """Whether it was called off."""
        self.begun = False
        """Whether the machine falls asleep, or sleeps, unless somebody starts it. Nothing is
        asked for any more that could put it to sleep later."""
        self._on_begun = on_begun
        self._waiting: Deferred[Any] | None = None

    def ask(self) -> None:
        """Somebody wants the machine."""
        self.asked = True
        if self._waiting is not None:
            self._waiting.cancel()

    # for providers

    def begin(self) -> None:
        """Say that the machine is beyond recall."""
        if not self.begun:
            self.begun = True
            self._on_begun()

    def check(self) -> None:
        """
        @raise Recalled: it was called off.
        """
        if self.asked:
            raise Recalled("the machine is wanted: it is not put to sleep")

    async def unless_asked(self, work: Coroutine[Any, Any, _T]) -> _T:
        """
        The result of what nobody needs any more once it is called off.

        @raise Recalled: it was.
        """
        if self.asked:
            work.close()
            self.check()
        self._waiting = waiting = Deferred.fromCoroutine(work)
        try:
            return await waiting
        except CancelledError:
            self.check()
            raise
        finally:
            self._waiting = None
