"""The contract of L{IObjectStore} as tests: every implementation passes all of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from uuid import uuid4

from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from matrix.errors import MatrixError
from matrix.snapshots.interfaces import (
    AlreadyThere,
    IObjectStore,
    NoSuchObject,
    OutOfRange,
    Span,
    WrongContent,
)

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Case
else:
    _Case = object

TEXT = b"0123456789" * 1000


def sha256(content: bytes) -> str:
    """What a repository calls a file."""
    return hashlib.sha256(content).hexdigest()


class ObjectStoreContract(_Case):
    """
    Mix into a trial C{TestCase} whose C{setUp} sets L{store}. All keys are below a prefix
    of the test's own.
    """

    store: IObjectStore

    large = 300_000
    """Bytes of a content that does not travel in one piece."""

    crowd = 1003
    """Objects in a long listing: S3 tells of 1000 at once."""

    @property
    def prefix(self) -> str:
        """Where this test's objects are."""
        if not hasattr(self, "_prefix"):
            self._prefix = f"users/{uuid4()}/"
        return self._prefix

    def key(self, name: str = "one") -> str:
        """A key of this test's."""
        return self.prefix + name

    async def put(
        self, content: bytes, name: str = "one", replace: bool = False, pieces: int = 3
    ) -> None:
        """Write an object whose hash is told, in so many pieces."""
        key = self.key(name)
        writing = await self.store.write(key, len(content), sha256(content), replace)
        size = max(1, -(-len(content) // pieces))
        for start in range(0, len(content), size):
            await writing.write([content[start : start + size]])
        await writing.commit()

    async def get(self, name: str = "one", span: Span | None = None) -> bytes:
        """An object's bytes, read in pieces."""
        reading = await self.store.read(self.key(name), span)
        try:
            chunks = []
            while chunk := await reading.read(70_000):
                chunks.append(chunk)
            assert sum(map(len, chunks)) == len(reading.wanted)
            return b"".join(chunks)
        finally:
            reading.close()

    async def names(self, prefix: str = "") -> list[tuple[str, int]]:
        """The names and sizes of this test's objects."""
        found = []
        async for page in self.store.list(self.prefix + prefix):
            found += [(one.key.removeprefix(self.prefix), one.size) for one in page]
        return found

    async def refused(self, kind: type[MatrixError], doing: Deferred[None]) -> MatrixError:
        """The error with which something fails."""
        try:
            await doing
        except kind as error:
            return error
        raise self.failureException(f"{kind.__name__} was not raised")

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(IObjectStore, self.store)

    async def test_what_is_absent(self) -> None:
        assert await self.store.size(self.key()) is None
        assert await self.names() == []
        await self.refused(NoSuchObject, Deferred.fromCoroutine(self.swallow(self.get())))
        await self.store.delete(self.key())

    async def swallow(self, getting: object) -> None:
        """Await something, for L{refused}."""
        await getting  # type: ignore[misc]

    async def test_what_was_written_is_read(self) -> None:
        await self.put(TEXT)
        assert await self.store.size(self.key()) == len(TEXT)
        assert await self.get() == TEXT
        assert await self.names() == [("one", len(TEXT))]

    async def test_large_content(self) -> None:
        content = hashlib.shake_128(b"seed").digest(self.large)
        await self.put(content, pieces=11)
        assert await self.get() == content
        assert await self.get(span=Span(self.large - 5)) == content[-5:]

    async def test_an_empty_object(self) -> None:
        await self.put(b"")
        assert await self.store.size(self.key()) == 0
        assert await self.get() == b""
        assert await self.get(span=Span(0)) == b""

    async def test_spans(self) -> None:
        await self.put(TEXT)
        for span, wanted in (
            (Span(0), range(10_000)),
            (Span(10, 19), range(10, 20)),
            (Span(9_999), range(9_999, 10_000)),
            (Span(9_990, 20_000), range(9_990, 10_000)),
            (Span(-3), range(9_997, 10_000)),
            (Span(-20_000), range(10_000)),
        ):
            reading = await self.store.read(self.key(), span)
            assert (reading.size, reading.wanted) == (10_000, wanted), span
            reading.close()
            assert await self.get(span=span) == TEXT[wanted.start : wanted.stop], span

    async def test_a_span_outside(self) -> None:
        await self.put(TEXT)
        error = await self.refused(
            OutOfRange, Deferred.fromCoroutine(self.swallow(self.get(span=Span(10_000))))
        )
        assert dict(error.headers) == {b"content-range": b"bytes */10000"}

    async def test_reading_may_stop_early(self) -> None:
        await self.put(TEXT)
        reading = await self.store.read(self.key())
        assert await reading.read(10) == TEXT[:10]
        reading.close()
        reading.close()
        assert await self.get() == TEXT

    async def test_nothing_is_seen_before_the_commit(self) -> None:
        writing = await self.store.write(self.key(), len(TEXT), sha256(TEXT))
        await writing.write([TEXT[:5_000]])
        assert await self.store.size(self.key()) is None
        await writing.write([TEXT[5_000:]])
        assert await self.names() in ([], [("one", len(TEXT))])
        await writing.commit()
        assert await self.names() == [("one", len(TEXT))]

    async def test_other_content_is_refused(self) -> None:
        writing = await self.store.write(self.key(), len(TEXT), sha256(b"another"))
        await writing.write([TEXT[:-1]])
        await self.refused(WrongContent, writing.write([TEXT[-1:]]))
        await self.nothing_is_there()

    async def test_too_much_is_refused(self) -> None:
        writing = await self.store.write(self.key(), len(TEXT))
        await self.refused(WrongContent, writing.write([TEXT, b"x"]))
        await self.nothing_is_there()

    async def test_too_little_is_refused(self) -> None:
        writing = await self.store.write(self.key(), len(TEXT), sha256(TEXT))
        await writing.write([TEXT[:-1]])
        await self.refused(WrongContent, writing.commit())
        await self.nothing_is_there()

    async def test_breaking_off(self) -> None:
        for sent in (0, 1, 5_000):
            writing = await self.store.write(self.key(), len(TEXT), sha256(TEXT))
            if sent:
                await writing.write([TEXT[:sent]])
            writing.abort()
            writing.abort()
        await self.nothing_is_there()

    async def nothing_is_there(self) -> None:
        """Neither the object, nor anything beside it."""
        assert await self.store.size(self.key()) is None
        assert await self.names() == []
        await self.put(TEXT)
        assert await self.get() == TEXT

    async def test_what_is_there_stays(self) -> None:
        await self.put(TEXT)
        await self.refused(AlreadyThere, Deferred.fromCoroutine(self.put(b"another")))
        assert await self.get() == TEXT

    async def test_replacing(self) -> None:
        await self.put(TEXT)
        await self.put(b"another", replace=True)
        assert await self.get() == b"another"
        assert await self.names() == [("one", 7)]

    async def test_of_many_at_once_one_wins(self) -> None:
        contents = [bytes([number]) * 50_000 for number in range(5)]
        outcomes = await gatherResults(
            [Deferred.fromCoroutine(self.won(content)) for content in contents]
        )
        assert sum(outcomes) == 1
        assert await self.get() == contents[outcomes.index(True)]

    async def won(self, content: bytes) -> bool:
        """Whether this content was written and no other."""
        try:
            await self.put(content)
        except AlreadyThere:
            return False
        return True

    async def test_deleting(self) -> None:
        await self.put(TEXT)
        await self.store.delete(self.key())
        assert await self.store.size(self.key()) is None
        assert await self.names() == []
        await self.put(b"again")
        assert await self.get() == b"again"

    async def test_listing_by_prefix(self) -> None:
        wanted = [("data/aa/aa1", 1), ("data/ab/ab1", 2), ("keys/k", 3), ("keys2/k", 4)]
        for name, size in reversed(wanted):
            await self.put(b"x" * size, name)
        assert await self.names() == wanted
        assert await self.names("data/") == wanted[:2]
        assert await self.names("keys/") == wanted[2:3]
        assert await self.names("locks/") == []

    async def test_sweeping_takes_nothing_that_counts(self) -> None:
        await self.put(TEXT)
        writing = await self.store.write(self.key("two"), self.large)
        await writing.write([bytes(self.large - 1)])
        await self.store.sweep(3600.0)
        await writing.write([b"x"])
        await writing.commit()
        assert await self.names() == [("one", len(TEXT)), ("two", self.large)]

    async def test_listing_a_crowd(self) -> None:
        names = [f"many/{number:05}" for number in range(self.crowd)]
        for start in range(0, len(names), 50):
            some = names[start : start + 50]
            await gatherResults([Deferred.fromCoroutine(self.put(b"x", name)) for name in some])
        assert [name for name, _ in await self.names("many/")] == names
