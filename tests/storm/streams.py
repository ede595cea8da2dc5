"""Clients of event streams and WebSockets, most of whom end them without a word."""

from __future__ import annotations

import asyncio
import socket as sockets

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.storm.rude import DAWDLE
from tests.storm.verdict import BROKEN, RIGHT, Ended, Refused, Wrong
from tests.storm.visitor import NO_LINGER, Visitor

SERVICE_RESTART = 1012
"""The code of a WebSocket whose machine goes to sleep."""


async def events(client: Visitor) -> str:
    """Reads events, and leaves when it has enough."""
    nonce, count = client.nonce(), client.rng.randrange(1, 60)
    every = client.rng.choice((0, 5, 50))
    wire = await client.open()
    answer = await client.exchange(
        wire, "GET", f"/events?nonce={nonce}&count={count}&every={every}"
    )
    client.check_mark(answer, nonce)
    wanted = [f"data: {client.user.id} {nonce} {number}" for number in range(count)]
    leave_after = client.rng.randrange(2 * count)
    told = b""
    async for part in wire.parts():
        told += part
        if told.count(b"\n\n") > leave_after:
            return client.leave()
    seen = told.decode().split("\n\n")[:-1]
    if seen != wanted[: len(seen)]:
        raise Wrong(f"events of somebody else: {seen[-3:]}")
    client.leave()
    if len(seen) < count:
        raise Ended("stream ended")
    return RIGHT


async def websocket(client: Visitor) -> str:
    """Has messages echoed, and ends in one way or another."""
    nonce = client.nonce()
    place = await client.dial()
    try:
        async with connect(
            f"wss://{client.door.host}:{client.door.port}/ws?nonce={nonce}",
            sock=place,
            ssl=client.door.context,
            server_hostname=client.door.host,
            additional_headers={"Authorization": f"Bearer {client.token}"},
            compression=client.rng.choice(("deflate", None)),
            ping_interval=None,
            open_timeout=40,
            close_timeout=10,
            proxy=None,
        ) as socket:
            return await _converse(client, socket, nonce)
    except ConnectionClosed as error:
        closed = error.rcvd
        raise Ended(f"closed {closed.code} {closed.reason}" if closed else BROKEN) from None
    except InvalidStatus as error:
        raise Refused(error.response.status_code, "websocket") from None
    finally:
        client.socket = None


async def _converse(client: Visitor, socket: ClientConnection, nonce: str) -> str:
    rng = client.rng
    if await socket.recv() != f"{client.user.id} {nonce}":
        raise Wrong("another user's or request's WebSocket")
    for number in range(rng.randrange(12)):
        message = client.content(f"{nonce} {number}", client.size(200_000))
        pieces = [message[:1000], message[1000:]] if rng.random() < 0.3 else message
        await socket.send(pieces)
        if await socket.recv() != message:
            raise Wrong("a WebSocket's message came back as another")
        await asyncio.sleep(rng.choice((0, 0, 0.01, 0.5)))
    if rng.random() < 0.1:
        return await _fall_silent(socket)
    match rng.randrange(4):
        case 0:
            await socket.close(4000, "enough")
            return RIGHT
        case 1:
            await socket.send(bytes(100_000))
        case 2 if client.socket is not None:
            client.socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, NO_LINGER)
        case _:
            pass
    socket.transport.abort()
    return "left"


async def _fall_silent(socket: ClientConnection) -> str:
    """For longer than a stream may be silent."""
    await asyncio.sleep(2 * DAWDLE)
    try:
        await socket.recv()
    except ConnectionClosed as error:
        # If that made its machine fall asleep, it is told so.
        if error.rcvd is None or error.rcvd.code == SERVICE_RESTART:
            return BROKEN
        raise
    raise Wrong("a message out of nothing")
