"""
What it costs to know who sent a request: a token that was seen before, and one that was not.

The second is held against bare pyjwt with the same key object, in turns in the same process, so
that the ratio does not depend on how fast the machine is just then.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jwt

from bench.processes import BenchError
from matrix.auth import Failures, Issuer, Key, Origins, Places, Policy, StaticKeys, TokenGate
from matrix.auth._jwk import read_key
from matrix.http import Limits, RequestHead
from matrix.http._fields import Fields, parse_lines
from matrix.metrics import Registry
from matrix.model import Principal
from matrix.router.bearings import Compass
from matrix.router.tickets import Tickets
from matrix.router.validate import Validator
from matrix.testing.issuer import LocalIssuer

TOKENS = 500
"""Each is verified once in a round, so that nothing is remembered of it."""

ROUNDS = 41
"""Their median is told."""

REMEMBERED = 10_000
"""Tokens that a cached check finds its own among: too many for the processor's caches."""

CACHED_ROUNDS = 9

CACHED_BAR = 3.0
"""Microseconds."""

UNCACHED_BAR = 1.3
"""Times bare pyjwt."""


def check_tokens() -> int:
    """
    Measure, and hold the figures against the bars.

    @return: an exit status; 1 if a bar is missed.
    """
    with tempfile.TemporaryDirectory(prefix="matrix-bench-") as directory:
        issuer = LocalIssuer.open(Path(directory))
    tokens = [issuer.mint("alice").encode() for _ in range(REMEMBERED)]
    key = read_key(issuer.keys["current"].jwk())
    cached = _cached(issuer, key, tokens)
    ours, theirs, ratio = _uncached(issuer, key, tokens[:TOKENS])
    sys.stdout.write(
        f"cached check: {cached.gate:.2f} us in the gate; {cached.again:.2f} us from a header "
        f"block that was seen before (bar: at most {CACHED_BAR:.0f}), {cached.new:.2f} us from a "
        "new one\n"
        f"uncached ES256: {ours:.1f} us, bare pyjwt {theirs:.1f} us, "
        f"ratio {ratio:.2f} (bar: at most {UNCACHED_BAR})\n"
    )
    return 0 if cached.again <= CACHED_BAR and ratio <= UNCACHED_BAR else 1


class Cached(NamedTuple):
    """Microseconds of a check of a token that is known."""

    gate: float
    """The look-up itself."""
    new: float
    """From a header block, all that is read from it included."""
    again: float
    """From one that repeats an earlier one on its connection, as most do."""


def _gate(issuer: LocalIssuer, key: Key) -> TokenGate:
    return TokenGate([Issuer(Policy(issuer.issuer), StaticKeys([key]))], time.time)


def _verified(gate: TokenGate, token: bytes) -> Principal:
    """What the gate says; no issuer is asked, so nothing is waited for."""
    work = gate.verify(token)
    try:
        work.send(None)
    except StopIteration as done:
        principal: Principal = done.value
        return principal
    raise BenchError("the gate waits for something")


def _cached(issuer: LocalIssuer, key: Key, tokens: list[bytes]) -> Cached:
    gate = _gate(issuer, key)
    for token in tokens:
        _verified(gate, token)
    nothing: Any = None
    compass, failures = Compass(Places(), Origins()), Failures(300, time.monotonic)
    validator = Validator(gate, Registry(), failures, nothing, compass, Tickets(nothing))

    def recall(brought: list[bytes]) -> None:
        known = gate.recall
        for token in brought:
            known(token)

    def check(brought: list[RequestHead]) -> None:
        known, credential = validator.recall, validator.credential
        for request in brought:
            known(credential(request).token)

    rounds = []
    for _ in range(CACHED_ROUNDS):
        # Copies: an object that was looked up before would have its hash with it.
        copies = [bytes(bytearray(token)) for token in tokens]
        heads = [_head(token) for token in tokens]
        works = partial(recall, copies), partial(check, heads), partial(check, heads)
        rounds.append([_timed(work) / REMEMBERED * 1e6 for work in works])
    return Cached(*map(statistics.median, zip(*rounds, strict=True)))


def _head(token: bytes) -> RequestHead:
    """A browser's request with a token."""
    block = b"Host: localhost\r\nAccept: */*\r\nAuthorization: Bearer %b\r\n" % token
    return RequestHead(b"GET", b"/", True, Fields(parse_lines(block, Limits())))


def _uncached(issuer: LocalIssuer, key: Key, tokens: list[bytes]) -> tuple[float, float, float]:
    """Microseconds of ours, of bare pyjwt, and the median ratio."""

    def ours() -> None:
        gate = _gate(issuer, key)
        for token in tokens:
            _verified(gate, token)

    def theirs() -> None:
        for token in tokens:
            jwt.decode(
                token,
                key.material,
                algorithms=["ES256"],
                audience="authenticated",
                issuer=issuer.issuer,
                leeway=30,
            )

    pairs = [(_timed(ours), _timed(theirs)) for _ in range(ROUNDS)]
    ratio = statistics.median(one / other for one, other in pairs)
    first, second = (statistics.median(side) / TOKENS * 1e6 for side in zip(*pairs, strict=True))
    return first, second, ratio


def _timed(work: Callable[[], None]) -> float:
    """Seconds of processor time: what others do meanwhile matters less."""
    began = time.thread_time()
    work()
    return time.thread_time() - began
