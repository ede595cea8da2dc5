"""What an object's bytes must be, checked while they come. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from matrix.snapshots.interfaces import WrongContent


class Expected:
    """
    Counts and hashes the bytes of an upload. The last of them is accepted only if all
    together are what was announced, so a caller who passes on only what was accepted never
    completes anything else.
    """

    def __init__(self, length: int, sha256: str | None) -> None:
        """@param sha256: lower-case hex; C{None} for any content of that length."""
        self.length = length
        self._sha256 = sha256
        self._hash = hashlib.sha256()
        self.seen = 0
        if not length:
            self._check()

    def accept(self, chunks: Sequence[bytes]) -> None:
        """
        The next bytes.

        @raise WrongContent: they are too many, or the last and the hash is another.
        """
        self.seen += sum(map(len, chunks))
        if self.seen > self.length:
            raise WrongContent(f"there are more than the {self.length} bytes announced")
        if self._sha256 is not None:
            for chunk in chunks:
                self._hash.update(chunk)
        if self.seen == self.length:
            self._check()

    def finish(self) -> None:
        """
        There are no more bytes.

        @raise WrongContent: some are missing.
        """
        if self.seen < self.length:
            raise WrongContent(f"only {self.seen} of {self.length} bytes came")

    def _check(self) -> None:
        if self._sha256 is not None and self._hash.hexdigest() != self._sha256:
            raise WrongContent("the SHA-256 of the bytes is not the file's name")
