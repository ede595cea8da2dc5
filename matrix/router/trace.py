"""Trace context for requests that bring none (W3C Trace Context, section 3.2). Pure."""

from __future__ import annotations

import os
from itertools import count

# Random once per process and counted on: ids must be unique, not unguessable.
_trace_prefix = os.urandom(8).hex().encode()
_ids = count(int.from_bytes(os.urandom(4), "big") << 16 | 1)


def new_trace() -> bytes:
    """A C{traceparent} line with CRLF, not sampled."""
    number = next(_ids)
    return b"traceparent: 00-%b%016x-%016x-00\r\n" % (_trace_prefix, number, number)
