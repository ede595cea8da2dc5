"""Answers that stay open: an event stream and a WebSocket."""

from __future__ import annotations

from tests.router.world import Client, World

STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: 1\n\n\r\n"
)
"""An event stream with its first event."""


def open_websocket(
    world: World, token: str | None = "alice-token", wait: float = 0.2, **more: str
) -> Client:
    """
    A WebSocket to the machine, open both ways.

    @param wait: seconds that pass meanwhile.
    @param more: further header fields.
    """
    world.place().answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    client = world.ask(
        "/ws",
        token=token,
        Connection="Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        **more,
    )
    world.let_pass(wait)
    world.turn()
    assert client.status == 101
    return client


def say(client: Client) -> None:
    """A word from the client of a WebSocket."""
    client.connection.dataReceived(b"\x81\x82aaaa\x09\x08")
