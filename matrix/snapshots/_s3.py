"""Objects in an S3 bucket (MinIO, SeaweedFS, …), reached with the minio client from threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from matrix.snapshots._bucket import Keeping, prepare_bucket
from matrix.snapshots._content import Expected
from matrix.snapshots._s3_calls import S3Calls, S3Response
from matrix.snapshots._s3_wire import S3Place
from matrix.snapshots._s3_writing import PART_BYTES, SINGLE_BYTES, S3Upload
from matrix.snapshots._threads import StoreThreads
from matrix.snapshots.interfaces import IObjectStore, Reading, Span, Stored, Writing


@implementer(IObjectStore)
class S3Store:
    """
    The objects of one bucket. L{start} it before use and L{stop} it after.

    A write is a conditional request whose body is streamed. What a store makes visible is
    whole: it stores nothing of a body cut short, and we cut short what is not right. So
    there are no temporary objects; what can stay behind are the parts of a long upload.
    """

    durable = True

    def __init__(
        self,
        place: S3Place,
        reactor: Any,
        single_bytes: int = SINGLE_BYTES,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """
        @param reactor: IReactorThreads.
        @param single_bytes: longer objects are sent in parts.
        @param part_bytes: at least 5 MiB, or a store may refuse them.
        @raise matrix.errors.ConfigurationError: the place cannot be one.
        """
        self._calls = S3Calls(place)
        self._threads = StoreThreads(reactor)
        self._single_bytes = single_bytes
        self._part_bytes = part_bytes

    def start(self) -> None:
        """Start the threads."""
        self._threads.start()

    def stop(self) -> None:
        """Wait for the calls under way. B{Blocks}, for as long as a call may take."""
        self._threads.stop()
        self._calls.close()

    async def prepare(self, keeping: Keeping) -> Sequence[str]:
        """
        Make the bucket if need be and let it keep what is deleted for a while.

        @return: what the store would not do, a line each, for the log.
        @raise matrix.errors.ConfigurationError: the bucket cannot be used.
        @raise matrix.snapshots.interfaces.StoreUnavailable: not now.
        """
        return await self._threads.run(prepare_bucket, self._calls, keeping)

    async def size(self, key: str) -> int | None:
        return await self._threads.run(self._calls.size, key)

    async def read(self, key: str, span: Span | None = None) -> Reading:
        def close(late: S3Response) -> None:
            self._threads.release(late.close)

        response = await self._threads.run(self._calls.read, key, span, late=close)
        return _S3Reading(response, self._threads)

    async def write(
        self, key: str, length: int, sha256: str | None = None, replace: bool = False
    ) -> Writing:
        upload = S3Upload(
            self._calls.wire,
            key,
            Expected(length, sha256),
            sha256,
            replace,
            self._single_bytes,
            self._part_bytes,
        )
        return _S3Writing(upload, self._threads)

    def check(self, length: int, sha256: str) -> Writing:
        return _Checking(Expected(length, sha256), self._threads)

    async def delete(self, key: str) -> None:
        await self._threads.run(self._calls.delete, key)

    async def list(self, prefix: str) -> AsyncIterator[Sequence[Stored]]:
        pages = self._calls.pages(prefix)
        while (page := await self._threads.run(next, pages, ())) != ():
            yield page

    async def sweep(self, older: float) -> int:
        return await self._threads.run(self._calls.sweep, "", older)


class _S3Reading:
    def __init__(self, response: S3Response, threads: StoreThreads) -> None:
        self._response = response
        self._threads = threads
        self.size = response.size
        self.wanted = response.wanted

    def read(self, size: int) -> Deferred[bytes]:
        return self._threads.run(self._response.read, size)

    def close(self) -> None:
        self._threads.release(self._response.close)


class _S3Writing:
    def __init__(self, upload: S3Upload, threads: StoreThreads) -> None:
        self._upload = upload
        self._threads = threads

    def write(self, chunks: Sequence[bytes]) -> Deferred[None]:
        return self._threads.run(self._upload.write, chunks)

    def commit(self) -> Deferred[None]:
        return self._threads.run(self._upload.commit)

    def abort(self) -> None:
        self._threads.release(self._upload.abort)


class _Checking:
    """Hashes in the threads what is stored nowhere."""

    def __init__(self, expected: Expected, threads: StoreThreads) -> None:
        self._expected = expected
        self._threads = threads

    def write(self, chunks: Sequence[bytes]) -> Deferred[None]:
        return self._threads.run(self._expected.accept, chunks)

    def commit(self) -> Deferred[None]:
        return self._threads.run(self._expected.finish)

    def abort(self) -> None:
        """There is nothing to end."""
