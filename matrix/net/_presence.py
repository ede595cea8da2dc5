"""What the kernel knows of a peer from whose socket nobody reads."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios

from matrix.net.interfaces import Presence

_SKIPPED = bytearray(64 * 1024)
"""Where bytes go that are only stepped over."""
_PIECES_MAX = 1024
"""Buffers of one call (C{IOV_MAX} of Linux): 64 MiB, which is beyond what a socket holds."""

_INT = struct.Struct("i")


def presence(descriptor: int) -> Presence:
    """Ask for a connected socket, whatever of its bytes is unread."""
    look = select.poll()
    look.register(descriptor, select.POLLRDHUP)  # errors and hang-ups come unasked (poll(2))
    events = sum(found for _, found in look.poll(0))
    if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
        return Presence.GONE
    return Presence.ENDED if events & select.POLLRDHUP else Presence.HERE


def unread(descriptor: int) -> int:
    """How many bytes have arrived that nobody has read."""
    answer = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(_INT.size))
    return int(_INT.unpack(answer)[0])


def unread_end(descriptor: int, size: int) -> bytes:
    """The last C{size} unread bytes, or as many as there are; they stay unread."""
    there = unread(descriptor)
    if not there:
        return b""
    end = bytearray(min(size, there))
    pieces, rest = divmod(there - len(end), len(_SKIPPED))
    skipped = [_SKIPPED] * min(pieces, _PIECES_MAX - 2)
    with socket.socket(fileno=os.dup(descriptor)) as own:
        into: list[bytearray | memoryview] = [*skipped, memoryview(_SKIPPED)[:rest], end]
        own.recvmsg_into(into, 0, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return bytes(end)
