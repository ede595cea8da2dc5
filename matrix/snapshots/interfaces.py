"""The contract between repositories and the store of objects that keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from matrix.errors import BadRequest, Conflict, NotFound, RangeNotSatisfiable, Unavailable
from matrix.http.interfaces import Request
from matrix.model import UserId


class StoreUnavailable(Unavailable):
    """
    The store cannot be reached, is overloaded, refuses our credentials or has lost its
    bucket: nothing is known about any object. A client is to come back, and must never
    take it for an absence.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail, reason="store", retry_after=RETRY_SECONDS)


RETRY_SECONDS = 5.0
"""What we tell clients; restic has a back-off of its own, from one second on."""


class NoSuchObject(NotFound):
    """There is no object of this name; the store was asked, and is well."""


class AlreadyThere(Conflict):
    """An object has this name already, and it stays as it is."""


class WrongContent(BadRequest):
    """The bytes that came are not those that were announced. Nothing was stored."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, reason="content")


class OutOfRange(RangeNotSatisfiable):
    """The wanted bytes lie behind the end of the object."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One object in a listing."""

    key: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Span:
    """
    The bytes that are wanted of an object: from C{first} to C{last}, both included, to the
    end without C{last}; the last C{-first} bytes if C{first} is negative.
    """

    first: int
    last: int | None = None

    def resolve(self, size: int) -> range:
        """
        Which bytes these are in an object of C{size} bytes (RFC 9110 section 14.1.2). In an
        empty one they are none, which is no error: a client that reads all asks for C{0-}.

        @raise OutOfRange: there are none of these.
        """
        if not size:
            return range(0)
        first = self.first if self.first >= 0 else max(0, size + self.first)
        stop = size if self.last is None else min(self.last + 1, size)
        if first >= stop:
            content_range = (b"content-range", b"bytes */%d" % size)
            raise OutOfRange(f"there are {size} bytes", headers=[content_range])
        return range(first, stop)


class Reading(Protocol):
    """Some bytes of an object on their way to us. Always L{close} it."""

    size: int
    """Bytes of the whole object."""
    wanted: range
    """Which of them come."""

    def read(self, size: int) -> Deferred[bytes]:
        """
        The next bytes, at most C{size}; empty at the end. One call at a time.

        @raise StoreUnavailable: the store broke off.
        """

    def close(self) -> None:
        """Let go of it, read to its end or not. May be called at any time, also twice."""


class Writing(Protocol):
    """
    An object on its way to the store; nobody sees anything of it until it is whole. Ends
    with L{commit} or L{abort}.
    """

    def write(self, chunks: Sequence[bytes]) -> Deferred[None]:
        """
        The next bytes. One call at a time, that is, wait for the result: it comes once the
        store takes more.

        @raise WrongContent: more bytes than announced, or all of them and their hash is
            another. They never get to where a reader could see them.
        @raise AlreadyThere: another was faster. (Or L{commit} says so.)
        @raise StoreUnavailable: nothing was stored, as far as we know.
        """

    def commit(self) -> Deferred[None]:
        """
        The object is there, whole and durable, once this fires.

        @raise WrongContent: fewer bytes than announced.
        @raise AlreadyThere: another was faster, whose object stays as it is.
        @raise StoreUnavailable: it may or may not be there.
        """

    def abort(self) -> None:
        """Store nothing. May be called at any time, also twice or after the end."""


class IObjectStore(Interface):
    """
    Objects by name, none of them ever half there.

    A key is one or more names of C{a-z0-9._-} with slashes between them. All methods raise
    L{StoreUnavailable} when the store cannot say or do what it should. Cancelling an
    awaitable abandons its result.
    """

    durable: bool = Attribute("Whether what was committed survives the end of this process.")

    async def size(key: str) -> int | None:
        """How many bytes an object has; C{None} if there is none, and that is certain."""

    async def read(key: str, span: Span | None = None) -> Reading:
        """
        Begin to read an object, by default all of it.

        @raise NoSuchObject: there is none.
        @raise OutOfRange: it does not have those bytes.
        """

    async def write(
        key: str, length: int, sha256: str | None = None, replace: bool = False
    ) -> Writing:
        """
        Begin to write an object of C{length} bytes.

        @param sha256: the content's SHA-256 in lower-case hex: other content is refused.
        @param replace: whether it takes the place of one that is there.
        """

    def check(length: int, sha256: str) -> Writing:
        """Like L{write}, to nowhere: only says whether the content is right."""

    async def delete(key: str) -> None:
        """See that there is no such object. Where the store keeps versions, the content stays
        retrievable for its operator for a while."""

    def list(prefix: str) -> AsyncIterator[Sequence[Stored]]:
        """All objects whose keys begin with C{prefix}, in pages, each in order of the keys.
        What comes or goes meanwhile may be in it or not."""

    async def sweep(older: float) -> int:
        """
        Free what uploads left behind that were broken off.

        @param older: seconds; younger ones may still be under way in another process.
        @return: how many.
        """


@dataclass(frozen=True, slots=True)
class Access:
    """What the bearer of a credential may do: everything is within one user's repository."""

    user_id: UserId
    full: bool = False
    """Whether also to delete and so rewrite history: retention may, a machine never."""


class Admission(Protocol):
    """Who may use which repository."""

    async def admit(self, request: Request) -> Access:
        """
        Whose repository a request may touch.

        @raise matrix.errors.Unauthorized: the credential is bad, and that is certain.
        @raise matrix.errors.Unavailable: that cannot be said now.
        """


class Proof(Protocol):
    """Who knows the backup credentials of machines."""

    async def fits(self, who: UserId, given: bytes) -> bool:
        """
        Whether this is the backup credential of the user's machine; compared in constant time.

        @raise matrix.errors.Forbidden: it is, and the user was deleted.
        @raise matrix.errors.Unavailable: that cannot be said now.
        """
