"""
The long fuzz run (script/fuzz): mutates requests and holds what we read against h11, against
ourselves with the bytes split elsewhere, and against what would go on to a machine.

Whatever leads to an outcome that was not seen before joins the corpus, which the tests replay.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import h11

from matrix.errors import MatrixError
from matrix.http import Limits, RequestHead
from matrix.http._reader import END, RequestReader
from tests.http.test_differential import Read, by_h11, origin_form, ours, sent_to_machine

CORPUS = Path(__file__).parent / "corpus"

SEEDS = (
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;e=1\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\nHost: h:80\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\n\r\n",
    b"GET http://h/p HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: x\r\n\r\n",
)
PIECES = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b";", b",", b"0", b"5", b"a", b"\xff", b"_",
    b"Host: h\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Expect: 100-continue\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Connection: close\r\n",
    b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.0", b"HTTP/2.0", b"chunked",
)  # fmt: skip

Outcome = tuple[object, ...]


def read_in(pieces: Iterable[bytes]) -> list[object]:
    """Everything that comes of the pieces: heads, bodies, and the refusal if there is one."""
    reader, seen, body = RequestReader(Limits()), list[object](), b""
    try:
        for piece in pieces:
            reader.feed(piece)
            while (event := reader.next_event()) is not None:
                if isinstance(event, RequestHead):
                    seen.append((event.method, event.target, event.http11, *event.headers))
                elif event is END:
                    seen += [body, tuple(reader.trailers)]
                    body = b""
                elif isinstance(event, bytes):
                    body += event
    except MatrixError as error:
        seen.append((error.status, error.reason))
    return [*seen, body]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few changes: pieces put in, bytes left out, doubled or changed."""
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((0, 1, 1, 2, 8, 30)))
        match rng.randrange(5):
            case 0 | 1:
                data = data[:at] + rng.choice(PIECES) + data[end if rng.random() < 0.5 else at :]
            case 2:
                data = data[:at] + data[end:]
            case 3:
                data = data[:end] + data[at:end] + data[end:]
            case _:
                data = data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :]
    return data[:4096]


def split(data: bytes, rng: random.Random) -> list[bytes]:
    """The same bytes as they might arrive."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((1, 2, 4, 9))))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def judge(data: bytes, rng: random.Random) -> Outcome:
    """
    What came of these bytes, in few words.

    @raise AssertionError: two readers disagree.
    """
    whole = read_in([data])
    assert read_in(split(data, rng)) == whole, "it matters how the bytes are split"
    mine = ours(data)
    if len(whole) == 4 and _is_used_up(data):  # one request, and nothing behind it
        # The second time the reader knows the header block, and takes a shorter way.
        assert read_in([data, data]) == [*whole[:3], *whole], "it matters what came before"
    refusal = whole[-2] if len(whole) > 1 and _is_refusal(whole[-2]) else None
    if mine is None:
        return ("refused", refusal)
    _agree(mine, data)
    if mine.complete:
        sent, answer = sent_to_machine(data[: len(data)])
        forwarded = by_h11(sent)
        assert (forwarded.method, forwarded.body) == (mine.method, mine.body), "relayed otherwise"
        assert not answer or answer[9:10] in b"45", "an answer of nobody's"
    framing = sorted({name for name, _ in mine.headers} & {b"content-length", b"transfer-encoding"})
    return ("read", *framing, mine.complete, min(len(whole), 5), refusal)


def _is_used_up(data: bytes) -> bool:
    """Whether all of it was read, to the end of a message."""
    reader = RequestReader(Limits())
    reader.feed(data)
    last: object = None
    while (event := reader.next_event()) is not None:
        last = event
    return last is END and not reader.buffered


def _is_refusal(event: object) -> bool:
    return isinstance(event, tuple) and len(event) == 2 and isinstance(event[0], int)


def _agree(mine: Read, data: bytes) -> None:
    try:
        theirs = by_h11(data.lstrip(b"\r\n"))
    except h11.RemoteProtocolError as error:
        raise AssertionError(f"h11 refuses what we read: {error}") from None
    theirs.target = origin_form(theirs.target)
    mine.headers = [
        (name, value.lower() if name == b"transfer-encoding" else value)
        for name, value in mine.headers
    ]
    assert mine == theirs, "h11 reads something else"


def corpus() -> list[bytes]:
    """The seeds, and what earlier runs found worth keeping."""
    return [*SEEDS, *(path.read_bytes() for path in sorted(CORPUS.glob("*.http")))]


def keep(data: bytes) -> None:
    """Add to the corpus."""
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{hashlib.sha256(data).hexdigest()[:16]}.http").write_bytes(data)


def run(minutes: float, seed: int) -> Counter[str]:
    """Fuzz for so long; how often each kind of outcome came."""
    rng, counts = random.Random(seed), Counter[str]()
    pool = corpus()
    seen = {judge(data, rng) for data in pool}
    deadline = time.monotonic() + minutes * 60
    while time.monotonic() < deadline:
        for _ in range(200):
            data = mutate(rng.choice(pool), rng)
            try:
                outcome = judge(data, rng)
            except AssertionError:
                keep(data)
                print(f"seed {seed}: {data!r}")
                raise
            counts[str(outcome[0])] += 1
            if outcome not in seen:
                seen.add(outcome)
                pool.append(data)
                keep(data)
    counts["outcomes"] = len(seen)
    return counts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    counts = run(options.minutes, options.seed)
    cases = counts["read"] + counts["refused"]
    print(
        f"{cases} cases in {options.minutes:g} min (seed {options.seed}): {counts['read']} read "
        f"alike by all, {counts['refused']} refused; {counts['outcomes']} kinds of outcome"
    )


if __name__ == "__main__":
    main()
