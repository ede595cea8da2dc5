"""A store in memory, for tests: everything that L{IObjectStore} promises but durability."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from matrix.errors import MatrixError
from matrix.snapshots._content import Expected
from matrix.snapshots.interfaces import (
    AlreadyThere,
    IObjectStore,
    NoSuchObject,
    Reading,
    Span,
    Stored,
    StoreUnavailable,
    Writing,
)

PAGE = 1000
"""Objects in one page of a listing, as S3 has it."""


@implementer(IObjectStore)
class MemoryStore:
    """Objects in a dictionary. A test may break it: see C{down} and C{lose_answers}."""

    durable = False

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.down = False
        """Whether every call fails as if the store could not be reached."""
        self.lose_answers = 0
        """How many of the next commits are done and yet seem to have failed."""
        self.begun: set[_MemoryWriting] = set()
        """Writings that have not ended."""

    def ask(self) -> None:
        """@raise StoreUnavailable: the store is down."""
        if self.down:
            raise StoreUnavailable("the store was taken down by a test")

    async def size(self, key: str) -> int | None:
        self.ask()
        content = self.objects.get(key)
        return None if content is None else len(content)

    async def read(self, key: str, span: Span | None = None) -> Reading:
        self.ask()
        content = self.objects.get(key)
        if content is None:
            raise NoSuchObject(f"there is no {key}")
        wanted = range(len(content)) if span is None else span.resolve(len(content))
        return _MemoryReading(self, content, wanted)

    async def write(
        self, key: str, length: int, sha256: str | None = None, replace: bool = False
    ) -> Writing:
        self.ask()
        return _MemoryWriting(self, key, Expected(length, sha256), replace)

    def check(self, length: int, sha256: str) -> Writing:
        return _MemoryWriting(MemoryStore(), "", Expected(length, sha256), replace=True)

    async def delete(self, key: str) -> None:
        self.ask()
        self.objects.pop(key, None)

    async def list(self, prefix: str) -> AsyncIterator[Sequence[Stored]]:
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        for start in range(0, max(len(keys), 1), PAGE):
            self.ask()
            page = [key for key in keys[start : start + PAGE] if key in self.objects]
            yield [Stored(key, len(self.objects[key])) for key in page]

    async def sweep(self, older: float) -> int:
        self.ask()
        return 0


class _MemoryReading:
    def __init__(self, store: MemoryStore, content: bytes, wanted: range) -> None:
        self._store = store
        self._content = content
        self._position = wanted.start
        self.size = len(content)
        self.wanted = wanted

    def read(self, size: int) -> Deferred[bytes]:
        try:
            self._store.ask()
        except StoreUnavailable:
            return fail(Failure())  # type: ignore[no-untyped-call]
        stop = min(self._position + size, self.wanted.stop)
        chunk, self._position = self._content[self._position : stop], stop
        return succeed(chunk)

    def close(self) -> None:
        self._position = self.wanted.stop


class _MemoryWriting:
    def __init__(self, store: MemoryStore, key: str, expected: Expected, replace: bool) -> None:
        self._store = store
        self._key = key
        self._expected = expected
        self._replace = replace
        self._chunks: list[bytes] = []
        store.begun.add(self)

    def write(self, chunks: Sequence[bytes]) -> Deferred[None]:
        try:
            self._store.ask()
            self._expected.accept(chunks)
        except MatrixError:
            self.abort()
            return fail(Failure())  # type: ignore[no-untyped-call]
        self._chunks += chunks
        return succeed(None)

    def commit(self) -> Deferred[None]:
        store = self._store
        store.begun.discard(self)
        try:
            self._expected.finish()
            store.ask()
            if not self._replace and self._key in store.objects:
                raise AlreadyThere(f"there is a {self._key} already")
            store.objects[self._key] = b"".join(self._chunks)
            if store.lose_answers:
                store.lose_answers -= 1
                raise StoreUnavailable("the answer was lost by a test")
        except MatrixError:
            return fail(Failure())  # type: ignore[no-untyped-call]
        return succeed(None)

    def abort(self) -> None:
        self._store.begun.discard(self)
        self._chunks.clear()
