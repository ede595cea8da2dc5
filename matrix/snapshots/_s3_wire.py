"""
Signed S3 requests whose bodies are streamed: minio's client takes bodies from memory only.

Everything blocks and belongs in a thread, but no thread waits for whoever sends the body:
each call moves the bytes it is given.
"""

from __future__ import annotations

import hashlib
import select
import ssl
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from time import monotonic
from urllib.parse import SplitResult, urlencode, urlsplit

from minio import time as amz_time
from minio.credentials.credentials import Credentials
from minio.helpers import DictType
from minio.signer import sign_v4_s3

from matrix.errors import ConfigurationError
from matrix.snapshots._s3_errors import code_of, refusal, translated

CONNECT_SECONDS = 3.0
"""The store is near, or it is down."""

IO_SECONDS = 30.0
"""Silence of the store after which a call fails. A disk that syncs may take seconds."""

IDLE_SECONDS = 10.0
"""A connection unused for longer is not trusted: servers close theirs, the first after 30 s."""

IDLE_CONNECTIONS = 16

ANSWER_LIMIT = 4 << 20
"""Bytes of an answer to these requests. A page of a listing of uploads has some hundred KiB."""

UNSIGNED = "UNSIGNED-PAYLOAD"
"""In place of a body's hash that is not known before the body is (Signature Version 4)."""


@dataclass(frozen=True, slots=True)
class S3Place:
    """Which bucket, where, and the key to it."""

    endpoint: str
    """C{http://HOST:PORT} or C{https://HOST[:PORT]}."""
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    ca_file: str | None = None
    """PEM of who signs the store's certificate; C{None} for the system's authorities."""

    @property
    def url(self) -> SplitResult:
        """
        The endpoint's parts.

        @raise ConfigurationError: it is in another form.
        """
        url = urlsplit(self.endpoint)
        try:
            proper = url.scheme in ("http", "https") and url.hostname and url.port != 0
        except ValueError:
            proper = False
        if not proper or url.path.strip("/") or url.query or url.username:
            raise ConfigurationError(
                "the S3 endpoint must be of the form http://HOST:PORT or https://HOST[:PORT], "
                "without a path, user or password"
            )
        return url

    def check(self) -> None:
        """
        @raise ConfigurationError: this cannot be reached, by its form.
        """
        if self.url.scheme == "https":
            self.tls()

    def tls(self) -> ssl.SSLContext:
        """
        How the store proves itself.

        @raise ConfigurationError: the CA's file cannot be read.
        """
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            reason = error.strerror or "no certificate in it"
            raise ConfigurationError(f"the S3 CA file {self.ca_file}: {reason}") from None


class Wire:
    """Connections to one store, used again and again."""

    def __init__(self, place: S3Place) -> None:
        self._place = place
        self._url = place.url
        self._tls = place.tls() if self._url.scheme == "https" else None
        self._credentials = Credentials(place.access_key, place.secret_key)
        self._idle: deque[tuple[float, HTTPConnection]] = deque()
        self._lock = threading.Lock()

    def begin(
        self,
        method: str,
        key: str,
        length: int,
        sha256: str = UNSIGNED,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Sending:
        """
        Send the head of a request whose body of C{length} bytes follows.

        @param key: empty for the bucket itself.
        @raise StoreUnavailable: the store cannot be reached.
        """
        target = f"/{self._place.bucket}/{key}" if key else f"/{self._place.bucket}"
        search = urlencode(sorted((query or {}).items()))
        fields = self._sign(method, target, search, sha256, headers or {})
        with translated():
            connection = self._connect()
            connection.putrequest(
                method,
                f"{target}?{search}" if search else target,
                skip_host=True,
                skip_accept_encoding=True,
            )
            for name, value in fields.items():
                connection.putheader(name, str(value))
            connection.putheader("Content-Length", str(length))
            connection.endheaders()
        return Sending(self, connection)

    def call(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """
        A whole request with a small body; the body of its answer.

        @raise matrix.errors.MatrixError: as L{refusal} says.
        """
        digest = hashlib.sha256(body).hexdigest()
        sending = self.begin(method, key, len(body), digest, query, headers)
        if body:
            sending.send(body)
        return sending.finish()[1]

    def recycle(self, connection: HTTPConnection) -> None:
        """Keep a connection whose answer was read to its end."""
        with self._lock:
            self._idle.append((monotonic(), connection))
            surplus = self._idle.popleft()[1] if len(self._idle) > IDLE_CONNECTIONS else None
        if surplus is not None:
            surplus.close()

    def close(self) -> None:
        """Close what is not in use."""
        with self._lock:
            connections = [connection for _, connection in self._idle]
            self._idle.clear()
        for connection in connections:
            connection.close()

    def _connect(self) -> HTTPConnection:
        while (idle := self._take_idle()) is not None:
            since, connection = idle
            # One that has something to say has been closed, or is out of step.
            readable = select.select([connection.sock], [], [], 0)[0]
            if not readable and monotonic() - since < IDLE_SECONDS:
                return connection
            connection.close()
        host, port = self._url.hostname or "", self._url.port
        if self._tls is None:
            fresh = HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        else:
            fresh = HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=self._tls)
        fresh.connect()
        fresh.sock.settimeout(IO_SECONDS)
        return fresh

    def _take_idle(self) -> tuple[float, HTTPConnection] | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _sign(
        self, method: str, target: str, search: str, sha256: str, headers: Mapping[str, str]
    ) -> DictType:
        date = amz_time.utcnow()
        return sign_v4_s3(
            method=method,
            url=self._url._replace(path=target, query=search),
            region=self._place.region,
            headers={
                "Host": self._url.netloc,
                "x-amz-date": amz_time.to_amz_date(date),
                "x-amz-content-sha256": sha256,
                **headers,
            },
            credentials=self._credentials,
            content_sha256=sha256,
            date=date,
        )


class Sending:
    """A request whose body is on its way. Blocks; for one thread at a time."""

    def __init__(self, wire: Wire, connection: HTTPConnection) -> None:
        self._wire = wire
        self._connection = connection

    def send(self, data: bytes | memoryview) -> None:
        """
        The next bytes of the body.

        @raise matrix.errors.MatrixError: the store has refused it, or is gone.
        """
        try:
            self._connection.send(data)
        except OSError as error:
            if isinstance(error, ConnectionError | ssl.SSLError):
                self.finish()  # whoever closes while we send may have said why
            self.abort()
            with translated():
                raise

    def finish(self) -> tuple[HTTPResponse, bytes]:
        """
        The answer, if it is a success.

        @raise matrix.errors.MatrixError: what L{refusal} makes of any other.
        """
        try:
            with translated():
                response = self._connection.getresponse()
                body = _whole(response)
        except BaseException:
            self.abort()
            raise
        if response.will_close:
            self.abort()
        else:
            self._wire.recycle(self._connection)
        # An error may come with status 200: the head was sent while the work went on.
        if response.status not in (200, 204) or b"<Error>" in body[:200]:
            raise refusal(response.status, code_of(body))
        return response, body

    def abort(self) -> None:
        """Break off; a body that is not complete is stored by no store."""
        self._connection.close()


def _whole(response: HTTPResponse) -> bytes:
    """
    An answer's body.

    @raise HTTPException: it is longer than any that there is.
    """
    body = response.read(ANSWER_LIMIT)
    if not response.isclosed():
        raise HTTPException("the answer is too long")
    return body
