"""What clients do that break off, dawdle, forge, or talk nonsense; and machines that are broken."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from matrix.testing.wire import READ
from tests.storm.plain import feed, read_all
from tests.storm.verdict import BROKEN, RIGHT, Refused, Wrong
from tests.storm.visitor import LOST, Visitor

DAWDLE = 6.0
"""Seconds without a sign of life: above the limits that a storm's Matrix is given."""

NONSENSE = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: h\n\n",
    b"GET / HTTP/9.9\r\nHost: h\r\n\r\n",
    b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    b"GET /" + b"u" * 17_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


async def leave_in_head(client: Visitor) -> str:
    """Leaves before the head is whole."""
    wire = await client.open()
    head = f"GET /give?nonce=x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {client.token}\r\n"
    wire.writer.write(head[: client.rng.randrange(1, len(head))].encode())
    await asyncio.sleep(client.rng.choice((0, 0.001, 0.1)))
    return client.leave()


async def leave_in_body(client: Visitor) -> str:
    """Leaves while a body is sent."""
    wire = await client.wire()
    path = client.rng.choice(("digest", "echo"))
    size = client.rng.randrange(1000, 1_000_000)
    await wire.begin("POST", f"/{path}?nonce=x", [("Content-Length", str(size))])
    with contextlib.suppress(OSError):
        await wire.feed(bytes(client.rng.randrange(size)))
    await asyncio.sleep(client.rng.choice((0, 0.001, 0.05)))
    return client.leave()


async def leave_in_answer(client: Visitor) -> str:
    """Leaves while the answer comes, or before it does."""
    wire = await client.open(window=client.rng.choice((0, 8192)))
    nonce, size = client.nonce(), client.rng.randrange(3_000_000)
    await wire.begin("GET", f"/give?nonce={nonce}&size={size}")
    await wire.finish()
    if client.rng.random() < 0.3:
        await asyncio.sleep(client.rng.uniform(0, 0.01))
        return client.leave()
    client.check_mark(await client.answer(wire), nonce)
    enough = client.rng.randrange(size + 1)
    async for part in wire.parts():
        enough -= len(part)
        if enough <= 0:
            break
    return client.leave()


async def leave_in_pipeline(client: Visitor) -> str:
    """Asks for much at once and leaves."""
    wire = await client.open()
    ask = (
        f"GET /give?nonce=x&size=200000 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {client.token}"
    )
    wire.writer.write(f"{ask}\r\n\r\n".encode() * client.rng.randrange(2, 20))
    with contextlib.suppress(OSError):
        await wire.reader.read(client.rng.randrange(1, 500_000))
    return client.leave()


async def stop_reading(client: Visitor) -> str:
    """Reads no further, for longer than is allowed."""
    wire = await client.open(window=8192)
    nonce, size = client.nonce(), 12_000_000  # more than the kernel holds, which is 6 MB
    answer = await client.exchange(wire, "GET", f"/give?nonce={nonce}&size={size}")
    await asyncio.sleep(client.rng.uniform(DAWDLE, 1.5 * DAWDLE))
    try:
        await client.verify(wire, answer, nonce, client.content(nonce, size))
    except LOST:
        return client.cut()
    raise Wrong("a client that does not read keeps its connection")


async def stop_writing(client: Visitor) -> str:
    """Falls silent in the middle of a head or a body."""
    wire = await client.open()
    if client.rng.random() < 0.5:
        await wire.begin("POST", "/digest?nonce=x", [("Content-Length", "1000")])
        await wire.feed(b"x" * client.rng.randrange(1000))
        reason = "408 body-silence"
    else:
        wire.writer.write(b"POST /digest HTTP/1.1\r\nHo")
        wire.expect(b"")
        reason = "408 head-time"
    try:
        await client.answer(wire)
    except Refused as error:
        if str(error) != reason:
            raise
        return str(error)
    raise Wrong("an answer to half a request")


async def half_close_in_body(client: Visitor) -> str:
    """Says that no more will come, in the middle of a body."""
    wire = await client.open()
    await wire.begin("POST", "/digest?nonce=x", [("Content-Length", "1000")])
    await wire.feed(b"x" * client.rng.randrange(1000))
    client.shut()
    try:
        await client.answer(wire)
    except LOST:
        return client.cut()
    except Refused as error:
        if str(error) != "400 body-cut":
            raise
        return str(error)
    raise Wrong("an answer to half a body")


async def idle(client: Visitor) -> str:
    """Opens a connection and says nothing; is let go of."""
    wire = await client.open()
    if await read_all(wire):
        raise Wrong("an answer to nothing")
    return client.cut()


async def half_handshake(client: Visitor) -> str:
    """Gives up, or falls silent, in the middle of TLS's handshake."""
    place = await client.dial()
    loop = asyncio.get_running_loop()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.door.context.wrap_bio(incoming, outgoing, server_hostname=client.door.host)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    await loop.sock_sendall(place, hello[: client.rng.randrange(len(hello) + 1)])
    if client.rng.random() < 0.3:
        with contextlib.suppress(OSError):
            while await loop.sock_recv(place, READ):
                pass
    else:
        await asyncio.sleep(client.rng.choice((0, 0.01, 1.0)))
    return client.leave()


async def nonsense(client: Visitor) -> str:
    """Is no HTTP, or none that can be read in one way only."""
    wire = await client.open()
    noise = client.rng.randbytes(client.rng.randrange(1, 300)) + b"\r\n\r\n"
    wire.writer.write(client.rng.choice((*NONSENSE, noise)))
    wire.expect(b"")
    try:
        await client.answer(wire)
    except Refused as error:
        if not 400 <= error.status < 506 or error.status in (401, 403):
            raise
        return str(error)
    raise Wrong("an answer to nonsense")


async def bad_token(client: Visitor, tokens: dict[str, str]) -> str:
    """Shows a token that is expired, forged, or no token at all."""
    kind = client.rng.choice(sorted(tokens))
    wire = await client.open(token=tokens[kind])
    try:
        await client.exchange(wire, "GET", "/give?nonce=x&size=10")
    except Refused as error:
        if error.status != 401:
            raise
        return str(error)
    raise Wrong(f"a token that is {kind} opens the door")


BROKEN_MACHINES = {
    "give?size=200000&cut=100000": BROKEN,
    "give?size=200000&cut=100000&how=chunked": BROKEN,
    "shut": "502",
    "half": "502",
    "garbage": "502",
    "stall": "504",
}
"""What a machine does, and what its user must be told."""


async def broken_machine(client: Visitor) -> str:
    """A machine that cuts its answer short, gives none, or talks nonsense."""
    path, wanted = client.rng.choice(sorted(BROKEN_MACHINES.items()))
    nonce = client.nonce()
    wire = await client.open()
    method = client.rng.choice(("GET", "POST"))
    target = f"/{path}{'&' if '?' in path else '?'}nonce={nonce}"
    try:
        if method == "POST":
            await wire.begin(method, target, [("Content-Length", "5000")])
            await feed(client, wire, bytes(5000))
            answer = await client.answer(wire)
        else:
            answer = await client.exchange(wire, method, target)
        await client.verify(wire, answer, nonce, client.content(nonce, 200_000))
    except LOST:
        if wanted != BROKEN:
            raise
        return client.cut()
    except Refused as error:
        if str(error.status) != wanted:
            raise
        return str(error)
    raise Wrong(f"a whole answer of a machine that was to {path}")


async def deadly(client: Visitor) -> str:
    """A request that kills the machine."""
    wire = await client.open()
    with client.troubles.of(client.user.id, "killed"):
        try:
            await client.exchange(wire, client.rng.choice(("GET", "POST")), "/die?nonce=x")
        except LOST:
            return client.cut()
        except Refused as error:
            if error.status not in (502, 503, 504):
                raise
            return str(error)
    raise Wrong("an answer of the dead")


async def leave_a_stall(client: Visitor) -> str:
    """Gives up on a machine that does not answer."""
    wire = await client.open()
    await wire.begin("GET", "/stall?nonce=x")
    await wire.finish()
    await asyncio.sleep(client.rng.uniform(0, 1.0))
    return client.leave() and RIGHT
