"""The sizes and times that bound a connection (DESIGN: HTTP rules). Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    target: int = 16 * 1024
    head: int = 64 * 1024
    fields: int = 128
    chunk_extension: int = 1024
    ahead: int = 16 * 1024
    """Bytes that nobody wants yet, of a body whose machine wakes or of further requests, with
    which reading stops. What one read brings comes on top: up to 48 KiB."""
    drain: int = 256 * 1024
    """Bytes of an unwanted body that are read to keep a connection usable."""

    head_time: float = 10.0
    body_silence: float = 60.0
    keep_alive: float = 75.0
    response_time: float = 120.0
    stream_silence: float = 3600.0
    linger: float = 2.0
    """For a client to read the last answer before its connection is closed under it."""
