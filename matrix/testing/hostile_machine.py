"""
A machine for tests that tells exactly which bytes reached it, and says whatever it is told to.

Run by path, with nothing but the standard library: C{hostile_machine.py SOCKET}. A request for
C{/say?HEX} has it do the steps that the hexadecimal digits are JSON of: C{["send", HEX, TIMES]},
C{["wait", SECONDS]}, C{["close"]}, C{["reset"]}. For C{/seen} it tells the heads of all requests
since it was asked last. Any other request is answered with itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys


class Machine:
    """Reads requests as a trusting server does: what is smuggled past the door shows here."""

    def __init__(self) -> None:
        self._heads: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._request(reader, writer):
                await writer.drain()
        writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        target = head.split(" ")[1]
        if target == "/seen":
            heads, self._heads = self._heads, []
            _answer(writer, heads)
        elif target == "/healthz":
            _answer(writer, "ok")
        else:
            self._heads.append(head)
            if target.startswith("/say?"):
                return await _obey(json.loads(bytes.fromhex(target[5:])), writer)
            body = await _body(head.lower(), reader)
            _answer(writer, {"head": head, "body": body.decode("latin-1")})
        return True


async def _body(head: str, reader: asyncio.StreamReader) -> bytes:
    if "\r\ntransfer-encoding: chunked\r\n" in head:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return body
    length = head.partition("\r\ncontent-length:")[2].partition("\r\n")[0]
    return await reader.readexactly(int(length or "0"))


async def _obey(steps: list[list[str | float]], writer: asyncio.StreamWriter) -> bool:
    for name, *value in steps:
        match name:
            case "send":
                for _ in range(int(value[1])):
                    writer.write(bytes.fromhex(str(value[0])))
                    await writer.drain()
            case "wait":
                await asyncio.sleep(float(value[0]))
            case "close":
                return False
            case "reset":
                writer.transport.abort()
                return False
    return True


def _answer(writer: asyncio.StreamWriter, content: object) -> None:
    body = json.dumps(content).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def main(path: str) -> None:
    """Serve until killed."""
    machine = Machine()
    async with await asyncio.start_unix_server(machine.serve, path, limit=1 << 20) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
