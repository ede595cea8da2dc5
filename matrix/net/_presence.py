"""What the kernel knows of a peer from whose socket nobody reads."""

from __future__ import annotations

import select

from matrix.net.interfaces import Presence


def presence(descriptor: int) -> Presence:
    """Ask for a connected socket, whatever of its bytes is unread."""
    look = select.poll()
    look.register(descriptor, select.POLLRDHUP)  # errors and hang-ups come unasked (poll(2))
    events = sum(found for _, found in look.poll(0))
    if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
        return Presence.GONE
    return Presence.ENDED if events & select.POLLRDHUP else Presence.HERE
