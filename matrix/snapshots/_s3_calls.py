"""What the minio client does for us, in our words and with our limits. Everything blocks."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from time import monotonic
from xml.etree import ElementTree

import urllib3
from minio import Minio
from minio.helpers import DictType

from matrix.snapshots._s3_errors import translated
from matrix.snapshots._s3_wire import CONNECT_SECONDS, IO_SECONDS, S3Place, Wire
from matrix.snapshots._s3_writing import drop_upload
from matrix.snapshots.interfaces import (
    NoSuchObject,
    OutOfRange,
    Span,
    Stored,
    StoreUnavailable,
)

CONNECTIONS = 32
"""Kept open. More are made when needed, and closed after use."""

RETRIES = urllib3.Retry(
    total=1, status=0, redirect=0, allowed_methods=["GET", "HEAD", "DELETE"], backoff_factor=0.1
)
"""One, for a kept connection that the store has closed. More would hold threads while the store
is down; whoever asked tries again."""

BUCKET_SECONDS = 5.0
"""For how long a bucket that was seen counts as there. Absences are certain only within it."""

PAGE = 1000
"""Objects in one answer of S3's."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def connection_pool(place: S3Place) -> urllib3.PoolManager:
    """
    Connections to a store, with our limits of time.

    @raise matrix.errors.ConfigurationError: the endpoint or the CA file is wrong.
    """
    return urllib3.PoolManager(
        maxsize=CONNECTIONS,
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=IO_SECONDS),
        retries=RETRIES,
        ssl_context=place.tls() if place.url.scheme == "https" else None,
    )


def minio_client(place: S3Place, pool: urllib3.PoolManager) -> Minio:
    """A client of a store."""
    url = place.url
    return Minio(
        url.netloc,
        place.access_key,
        place.secret_key,
        secure=url.scheme == "https",
        region=place.region,  # or each bucket's would be asked for
        http_client=pool,
    )


class S3Calls:
    """Calls on one bucket. May be used by many threads at once."""

    def __init__(self, place: S3Place) -> None:
        self.place = place
        self.bucket = place.bucket
        self._pool = connection_pool(place)
        self.minio = minio_client(place, self._pool)
        self.wire = Wire(place)
        self._bucket_seen = -BUCKET_SECONDS

    def size(self, key: str) -> int | None:
        """How many bytes an object has; C{None} if there certainly is none."""
        try:
            with translated():
                size = self.minio.stat_object(self.bucket, key).size
        except NoSuchObject:
            # To HEAD a store answers 404 also when it is the bucket that is missing.
            self._check_bucket()
            return None
        if size is None:
            raise StoreUnavailable("the store did not say how large an object is")
        return int(size)

    def read(self, key: str, span: Span | None) -> S3Response:
        """Begin to read; see L{matrix.snapshots.interfaces.IObjectStore.read}."""
        try:
            with translated():
                response = self.minio.get_object(
                    self.bucket, key, request_headers=_range_field(span)
                )
        except OutOfRange:
            return self._nothing(key, span)
        try:
            return S3Response(response)
        except BaseException:
            response.close()
            raise

    def delete(self, key: str) -> None:
        """See that there is no such object."""
        with translated():
            self.minio.remove_object(self.bucket, key)

    def pages(self, prefix: str) -> Iterator[Sequence[Stored]]:
        """All objects with this prefix, page by page; each step asks the store once or so."""
        with translated():
            found = self.minio.list_objects(self.bucket, prefix, recursive=True)
            stored = (Stored(str(one.object_name), int(one.size or 0)) for one in found)
            while page := [*islice(stored, PAGE)]:
                yield page

    def sweep(self, prefix: str, older: float) -> int:
        """Free the parts of uploads begun over C{older} seconds ago and never completed."""
        before = datetime.now(UTC) - timedelta(seconds=older)
        answer = self.wire.call("GET", "", {"uploads": "", "prefix": prefix})
        with translated():
            found = [*_uploads(answer)]
        stale = [(key, upload_id) for key, upload_id, begun in found if begun < before]
        return sum(drop_upload(self.wire, *one) for one in stale)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.wire.close()
        self._pool.clear()

    def _check_bucket(self) -> None:
        """@raise StoreUnavailable: the bucket is not there."""
        now = monotonic()
        if now - self._bucket_seen < BUCKET_SECONDS:
            return
        with translated():
            there = self.minio.bucket_exists(self.bucket)
        if not there:
            raise StoreUnavailable(f"the store has no bucket {self.bucket}")
        self._bucket_seen = now

    def _nothing(self, key: str, span: Span | None) -> S3Response:
        """The store has refused a range: right if it lies outside, but of an empty object
        every range does."""
        size = self.size(key)
        if size is None:
            raise NoSuchObject(f"there is no {key}")
        if span is not None:
            span.resolve(size)
        return S3Response(None)


class S3Response:
    """The bytes of an object as they come. Any thread may call; calls take turns."""

    def __init__(self, response: urllib3.BaseHTTPResponse | None) -> None:
        """
        @param response: C{None} for no bytes.
        @raise StoreUnavailable: the store does not say what it sends.
        """
        self._response = response
        self._lock = threading.Lock()
        self.size, self.wanted = (0, range(0)) if response is None else _extent(response)
        self._left = len(self.wanted)

    def read(self, size: int) -> bytes:
        """The next bytes, at most C{size}; empty at the end, or once closed."""
        with self._lock, translated():
            if self._response is None or not self._left:
                return b""
            data: bytes = self._response.read(min(size, self._left))
            if not data:
                raise StoreUnavailable("the store sent less than it said")
            self._left -= len(data)
            return data

    def close(self) -> None:
        """Let go of the connection: for others to use, if all was read."""
        with self._lock:
            response, self._response = self._response, None
            if response is None:
                return
            if self._left:
                response.close()
            else:
                response.drain_conn()
            response.release_conn()


def _extent(response: urllib3.BaseHTTPResponse) -> tuple[int, range]:
    """The size of the whole object, and which of its bytes come."""
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise StoreUnavailable("the store did not say how many bytes come")
    if response.status != 206:
        return int(length), range(int(length))
    said = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if said is None or int(said[2]) - int(said[1]) + 1 != int(length):
        raise StoreUnavailable("the store did not say which bytes come")
    return int(said[3]), range(int(said[1]), int(said[2]) + 1)


def _range_field(span: Span | None) -> DictType:
    if span is None:
        return {}
    if span.first < 0:
        return {"Range": f"bytes={span.first}"}
    return {"Range": f"bytes={span.first}-{'' if span.last is None else span.last}"}


def _uploads(answer: bytes) -> Iterator[tuple[str, str, datetime]]:
    """Key, id and begin of each upload in a listing of them."""
    document = ElementTree.fromstring(answer)  # noqa: S314 - from the store that we trust with all
    for upload in document.iterfind("{*}Upload"):
        key, upload_id = upload.findtext("{*}Key"), upload.findtext("{*}UploadId")
        begun = upload.findtext("{*}Initiated")
        if key and upload_id and begun:
            yield key, upload_id, datetime.fromisoformat(begun)
