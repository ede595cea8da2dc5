"""Where uploads wait until they are whole: beside the workspace, never in it."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Sequence

from matrix.daemon.tree import explained_write
from matrix.errors import ClientGone, ConfigurationError, InsufficientStorage

RESERVE = 16 * 1024 * 1024
"""Bytes that an upload of known length must leave free: a disk filled to its last block
stops databases and logs, the user's too."""


WRITE_BACK = 8 * 1024 * 1024
"""Bytes after which the kernel is asked to begin writing to the disk. Left alone it would
begin after some seconds, and the last step of a large upload would wait for gigabytes."""


class StagedFile:
    """
    A file being written. Its methods block and may be called from different threads: each
    waits for the one before, so that a file is never closed under a write.
    """

    def __init__(self, folder: int, name: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._folder = folder
        self._descriptor = os.open(name, flags, 0o666, dir_fd=folder)
        self.lock = threading.RLock()
        """Held for as long as several steps must not be interrupted by L{close}."""
        self._there = True
        self._written = 0
        self._sent_back = 0
        self.name = name

    def write(self, chunks: Sequence[bytes]) -> None:
        """
        Append C{chunks}.

        @raise InsufficientStorage: the disk is full.
        """
        # One copy here, off the event loop, costs less than hundreds of small writes.
        rest = memoryview(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        with self.lock:
            while rest and self._descriptor >= 0:
                try:
                    count = os.write(self._descriptor, rest)
                except OSError as error:
                    raise explained_write(error, "the upload") from None
                self._written += count
                rest = rest[count:]
            self._begin_write_back()

    def read(self, offset: int, size: int) -> bytes:
        """Up to C{size} bytes from C{offset}; empty past the end, and after L{close}."""
        with self.lock:
            return os.pread(self._descriptor, size, offset) if self._descriptor >= 0 else b""

    def _begin_write_back(self) -> None:
        size = self._written - self._sent_back
        if size >= WRITE_BACK and self._descriptor >= 0:
            # For pages not yet on the disk this advice means: write them, without waiting.
            advice = os.POSIX_FADV_DONTNEED
            os.posix_fadvise(self._descriptor, self._sent_back, size, advice)
            self._sent_back = self._written

    def finish(self) -> None:
        """
        Have the file whole on the disk.

        @raise InsufficientStorage: the disk is full.
        @raise ClientGone: it was closed because nobody waits for it any more.
        """
        with self.lock:
            if self._descriptor < 0:
                raise ClientGone("the client left before the file was in place")
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                raise explained_write(error, "the upload") from None

    def stat(self) -> os.stat_result:
        """What the file system says of it, wherever it is by now."""
        return os.fstat(self._descriptor)

    def placed(self) -> None:
        """The file was moved to its place: there is nothing to remove any more."""
        self._there = False

    def close(self) -> None:
        """Let go of the file, and remove it if it was not placed."""
        with self.lock:
            if self._descriptor < 0:
                return
            os.close(self._descriptor)
            self._descriptor = -1
            if self._there:
                os.unlink(self.name, dir_fd=self._folder)


class Staging:
    """
    The folder of what is not yet, or no longer, in the workspace. Whatever a crash left in
    it is swept at the next start.
    """

    def __init__(self, path: bytes) -> None:
        """
        Make the folder if need be, and claim it.

        @raise ConfigurationError: another daemon has it.
        """
        os.makedirs(path, mode=0o700, exist_ok=True)
        self.folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(self.folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.folder)
            raise ConfigurationError(
                f"{os.fsdecode(path)} is in use: another daemon serves this data directory"
            ) from None

    def sweep(self) -> int:
        """Remove what a crash left behind; how many things that were."""
        with os.scandir(self.folder) as entries:
            names = [os.fsencode(entry.name) for entry in entries]
        for name in names:
            self.remove(name)
        return len(names)

    def fresh_name(self) -> bytes:
        """A name that is not taken."""
        return secrets.token_hex(16).encode()

    def create(self, length: int | None) -> StagedFile:
        """
        Begin a file.

        @param length: bytes that will come, if known.
        @raise InsufficientStorage: they do not fit.
        """
        disk = os.fstatvfs(self.folder)
        if length is not None and length + RESERVE > disk.f_bavail * disk.f_frsize:
            raise InsufficientStorage(
                f"{length} bytes do not fit on the disk: delete something first"
            )
        return StagedFile(self.folder, self.fresh_name())

    def remove(self, name: bytes) -> None:
        """Remove a file, or a folder with all it contains, links not followed."""
        try:
            os.unlink(name, dir_fd=self.folder)
        except IsADirectoryError:
            shutil.rmtree(os.fsdecode(name), dir_fd=self.folder)

    def close(self) -> None:
        """Let go of the folder, and of the claim to it."""
        os.close(self.folder)
