"""One object on its way into S3: a single request, or parts that become visible together."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence

from matrix.errors import MatrixError
from matrix.snapshots._content import Expected
from matrix.snapshots._s3_wire import UNSIGNED, Sending, Wire
from matrix.snapshots.interfaces import StoreUnavailable

SINGLE_BYTES = 64 << 20
"""Longer objects are sent in parts. restic's packs have 16 MiB unless told otherwise."""

PART_BYTES = 32 << 20
"""S3 wants at least 5 MiB in all but the last part."""

ONLY_NEW = {"If-None-Match": "*"}
"""Let the store refuse to replace an object (RFC 9110 section 13.1.2), also in a race."""

_UPLOAD_ID = re.compile(rb"<UploadId>([^<]{1,2000})</UploadId>")


class S3Upload:
    """
    Everything blocks. Any thread may call, each call waits for the one before it.

    Bytes are passed on only after L{Expected} has accepted them, so the last ones leave us
    only if all are right; without them no store makes the object visible.
    """

    def __init__(
        self,
        wire: Wire,
        key: str,
        expected: Expected,
        sha256: str | None,
        replace: bool,
        single_bytes: int = SINGLE_BYTES,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._wire = wire
        self._key = key
        self._expected = expected
        self._condition = {} if replace else ONLY_NEW
        self._sha256 = sha256 or UNSIGNED
        self._part_bytes = part_bytes if expected.length > single_bytes else expected.length
        self._lock = threading.Lock()
        self._over = False
        self._sending: Sending | None = None
        self._room = 0
        """Bytes until the present part is full."""
        self._begun = 0
        """Bytes in all parts that were begun."""
        self._upload_id = ""
        self._etags: list[str] = []

    def write(self, chunks: Sequence[bytes]) -> None:
        """See L{matrix.snapshots.interfaces.Writing.write}."""
        with self._lock:
            self._check_open()
            try:
                self._expected.accept(chunks)
                for chunk in chunks:
                    self._pass_on(memoryview(chunk))
            except BaseException:
                self._give_up()
                raise

    def commit(self) -> None:
        """See L{matrix.snapshots.interfaces.Writing.commit}."""
        with self._lock:
            self._check_open()
            try:
                self._expected.finish()
                if self._sending is None and not self._etags:
                    self._begin_part()  # an empty object
                if self._sending is not None:
                    self._end_part()
                if self._upload_id:
                    self._join()
            except BaseException:
                self._give_up()
                raise
            self._over = True

    def abort(self) -> None:
        """See L{matrix.snapshots.interfaces.Writing.abort}."""
        with self._lock:
            if not self._over:
                self._give_up()

    def _check_open(self) -> None:
        if self._over:
            raise StoreUnavailable("the upload was broken off")

    def _pass_on(self, data: memoryview) -> None:
        while data:
            if self._sending is None:
                self._begin_part()
            assert self._sending is not None
            piece, data = data[: self._room], data[self._room :]
            self._sending.send(piece)
            self._room -= len(piece)
            # The last one is ended by the commit: for a single request that is the commit.
            if not self._room and self._begun < self._expected.length:
                self._end_part()

    @property
    def _is_single(self) -> bool:
        return self._part_bytes == self._expected.length

    def _begin_part(self) -> None:
        length = min(self._part_bytes, self._expected.length - self._begun)
        if self._is_single:
            self._sending = self._wire.begin(
                "PUT", self._key, length, self._sha256, headers=self._condition
            )
        else:
            if not self._upload_id:
                self._upload_id = self._create()
            query = {"partNumber": str(len(self._etags) + 1), "uploadId": self._upload_id}
            self._sending = self._wire.begin("PUT", self._key, length, query=query)
        self._room = length
        self._begun += length

    def _end_part(self) -> None:
        assert self._sending is not None
        sending, self._sending = self._sending, None
        response, _ = sending.finish()
        self._etags.append(response.getheader("ETag", ""))

    def _create(self) -> str:
        answer = self._wire.call("POST", self._key, {"uploads": ""})
        found = _UPLOAD_ID.search(answer)
        if found is None:
            raise StoreUnavailable("the store gave a new upload no id")
        return found[1].decode()

    def _join(self) -> None:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in enumerate(self._etags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        query = {"uploadId": self._upload_id}
        self._wire.call("POST", self._key, query, body, self._condition)

    def _give_up(self) -> None:
        self._over = True
        if self._sending is not None:
            self._sending.abort()
            self._sending = None
        if self._upload_id:
            upload_id, self._upload_id = self._upload_id, ""
            drop_upload(self._wire, self._key, upload_id)


def drop_upload(wire: Wire, key: str, upload_id: str) -> bool:
    """Free the parts of an upload; whether that worked. What stays is swept later."""
    try:
        wire.call("DELETE", key, {"uploadId": upload_id})
    except MatrixError:
        return False
    return True
