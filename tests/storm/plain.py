"""What decent clients do: each answer must be whole and right."""

from __future__ import annotations

import asyncio
import hashlib
import json

import h11

from matrix.testing.wire import READ, Headers, Wire
from tests.storm.verdict import DONE_TWICE, RIGHT, Ended, Refused, Wrong
from tests.storm.visitor import LOST, Visitor


async def get(client: Visitor) -> str:
    """A body of any size, in any framing."""
    nonce, size = client.nonce(), client.size()
    how = client.rng.choice(("length", "length", "chunked", "close"))
    wire = await client.wire()
    head = await client.exchange(wire, "GET", f"/give?nonce={nonce}&size={size}&how={how}")
    return await client.verify(wire, head, nonce, client.content(nonce, size), how != "close")


async def head(client: Visitor) -> str:
    """The head of an answer alone."""
    nonce, size = client.nonce(), client.size()
    wire = await client.wire()
    answer = await client.exchange(wire, "HEAD", f"/give?nonce={nonce}&size={size}")
    if answer.headers.get("content-length") != str(size):
        raise Wrong(f"HEAD tells of {answer.headers}, not of {size} bytes")
    return await client.verify(wire, answer, nonce, b"")


async def feed(client: Visitor, wire: Wire, body: bytes, pause: float = 0.0) -> None:
    """Send a body in pieces; if it is not wanted any more, the answer says why."""
    try:
        while body:
            size = client.rng.randrange(1, 100_000)
            await wire.feed(body[:size])
            body = body[size:]
            if pause:
                await asyncio.sleep(client.rng.uniform(0, pause))
        await wire.finish()
    except (OSError, h11.LocalProtocolError):
        return


def framed(client: Visitor, size: int) -> Headers:
    """A length, or chunks; now and then asking before the body is sent."""
    framing = ("Content-Length", str(size))
    if client.rng.random() < 0.5:
        framing = ("Transfer-Encoding", "chunked")
    expect = client.rng.random() < 0.2 and size
    return [framing, ("Expect", "100-continue")] if expect else [framing]


async def post(client: Visitor, pause: float = 0.0, size: int | None = None) -> str:
    """An upload, of which the machine tells the hash."""
    nonce = client.nonce()
    body = client.content(nonce, client.size() if size is None else size)
    wire = await client.wire()
    await wire.begin("POST", f"/digest?nonce={nonce}", framed(client, len(body)))
    sending = asyncio.ensure_future(feed(client, wire, body, pause))
    try:
        answer = await client.answer(wire)
        client.check_mark(answer, nonce)
        told = json.loads(b"".join([part async for part in wire.parts()]))
        await sending
    finally:
        sending.cancel()
    digest = hashlib.sha256(body).hexdigest()
    if told != {"user": client.user.id, "length": len(body), "sha256": digest}:
        raise Wrong(f"of {len(body)} bytes the machine has seen {told}")
    if not wire.renew():
        client.leave("close")
    return RIGHT


async def echo(client: Visitor) -> str:
    """An upload that comes back while it is sent."""
    nonce = client.nonce()
    body = client.content(nonce, client.size(600_000))
    wire = await client.wire()
    await wire.begin("POST", f"/echo?nonce={nonce}", [("Content-Length", str(len(body)))])
    sending = asyncio.ensure_future(feed(client, wire, body))
    try:
        answer = await client.answer(wire)
        parts = [part async for part in wire.parts()]
        await sending
    finally:
        sending.cancel()
    client.check_mark(answer, nonce)
    if b"".join(parts) != body:
        raise Wrong(f"{len(body)} bytes came back as {sum(map(len, parts))} others")
    if not wire.renew():
        client.leave("close")
    return RIGHT


async def pipeline(client: Visitor) -> str:
    """Requests without waiting for answers, which come in the same order."""
    wire = await client.open()
    nonces = [client.nonce() for _ in range(client.rng.randrange(2, 10))]
    sizes = [client.size(100_000) for _ in nonces]
    fields = f"Host: {client.door.host}\r\nAuthorization: Bearer {client.token}\r\n\r\n"
    for nonce, size in zip(nonces, sizes, strict=True):
        target = f"/give?nonce={nonce}&size={size}"
        wire.writer.write(f"GET {target} HTTP/1.1\r\n{fields}".encode())
    rest = b""
    for nonce, size in zip(nonces, sizes, strict=True):
        reading = Wire(wire.reader, wire.writer, "", client.token)
        reading.expect(rest)
        answer = await client.answer(reading)
        await client.verify(reading, answer, nonce, client.content(nonce, size))
        rest = reading.unread
    if rest:
        raise Wrong(f"an answer to nothing: {rest[:200]!r}")
    return client.leave("close") and RIGHT


async def slow_post(client: Visitor) -> str:
    """An upload that takes its time."""
    return await post(client, pause=0.5, size=client.rng.randrange(1_000_000))


async def early(client: Visitor) -> str:
    """An answer that comes before the body was sent, and none of it is read."""
    nonce, size = client.nonce(), 5000
    wire = await client.open()
    length = 20_000_000  # more than all buffers on the way hold
    await wire.begin("POST", f"/early?nonce={nonce}&size={size}", [("Content-Length", str(length))])
    sending = asyncio.ensure_future(feed(client, wire, bytes(length // 2)))
    try:
        answer = await client.answer(wire)
        return await client.verify(wire, answer, nonce, client.content(nonce, size))
    finally:
        sending.cancel()
        client.leave("fin")


async def slow_reader(client: Visitor) -> str:
    """Reads, rests, reads on."""
    nonce, size = client.nonce(), client.rng.randrange(500_000, 3_000_000)
    wire = await client.open(window=16 * 1024)
    answer = await client.exchange(wire, "GET", f"/give?nonce={nonce}&size={size}")
    client.check_mark(answer, nonce)
    parts, naps = [], client.rng.randrange(1, 4)
    async for part in wire.parts():
        parts.append(part)
        if naps and client.rng.random() < 0.2:
            naps -= 1
            await asyncio.sleep(client.rng.uniform(0.2, 2.0))
    if b"".join(parts) != client.content(nonce, size):
        raise Wrong(f"the {size} bytes that were read slowly are others")
    return client.leave() and RIGHT


async def files(client: Visitor) -> str:
    """The daemon's files: what was put there is there, and what was cut off is not."""
    name, body = client.nonce(), client.content("file", client.size(300_000))
    target = f"/v1/files/{name}"
    wire = await client.wire()
    await _done(client, wire, "PUT", target, body)
    if await _done(client, wire, "GET", target) != body:
        raise Wrong(f"{name} has another content")
    if client.rng.random() < 0.3:
        wire = await client.open()
        await wire.begin("PUT", f"{target}-cut", [("Content-Length", "100000")])
        await wire.feed(body[:50_000])
        await asyncio.sleep(client.rng.uniform(0, 0.1))
        client.leave()
        wire = await client.open()
        try:
            await _done(client, wire, "GET", f"{target}-cut")
        except Refused as error:
            if error.status != 404:
                raise
        else:
            raise Wrong(f"{name} is there, though it was cut off")
        wire = await client.open()
    try:
        await _done(client, wire, "DELETE", target)
    except Refused as error:
        if error.status == 404:
            raise Ended(DONE_TWICE) from None
        raise
    return RIGHT


async def _done(
    client: Visitor, wire: Wire, method: str, target: str, body: bytes | None = None
) -> bytes:
    headers = [] if body is None else [("Content-Length", str(len(body)))]
    await wire.begin(method, target, headers)
    await feed(client, wire, body or b"")
    answer = await wire.head()
    if answer.status not in (200, 201, 204):
        await client.refused(wire, answer)
    content = b"".join([part async for part in wire.parts()])
    wire.renew()
    return content


async def waking_page(client: Visitor) -> str:
    """A browser: gets the page, or one that says the machine is waking, and follows how."""
    nonce = client.nonce()
    wire = await client.wire()
    try:
        answer = await client.exchange(
            wire, "GET", f"/give?nonce={nonce}&size=100", [("Accept", "text/html")]
        )
    except Refused as error:
        if error.status != 503:
            raise
    else:
        return await client.verify(wire, answer, nonce, client.content(nonce, 100))
    wire = await client.open()
    await wire.begin("GET", "/-/wake/events")
    await wire.finish()
    answer = await wire.head()
    if answer.status != 200:
        await client.refused(wire, answer)
    told = b""
    async for part in wire.parts():
        told += part
        if client.rng.random() < 0.1:
            return client.leave()
    if not any(name in told for name in (b"event: ready", b"event: failed")):
        raise Wrong(f"a wake without an end: {told!r}")
    client.leave()
    return "waking page"


async def half_close(client: Visitor) -> str:
    """Says that no more will come, without TLS's goodbye, and reads on."""
    nonce = client.nonce()
    wire = await client.open()
    await wire.begin("GET", f"/give?nonce={nonce}&size=1000")
    await wire.finish()
    if client.rng.random() < 0.5:
        await asyncio.sleep(client.rng.uniform(0, 0.02))
    client.shut()
    try:
        answer = await client.answer(wire)
        await client.verify(wire, answer, nonce, client.content(nonce, 1000))
    except LOST:
        return client.cut()
    return client.leave() and RIGHT


async def read_all(wire: Wire) -> bytes:
    """What comes until the other side ends the connection."""
    found = b""
    while data := await wire.reader.read(READ):
        found += data
    return found
