"""Answers and requests whose ends must be told right, over real sockets, with TLS and without."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from twisted.internet import reactor

from matrix.testing.proxy_case import RelayCase, get, head_of, on_loop, reset_on_close

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MB = 1 << 20

HEADS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
)
CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\n\r\n"


class FramingCase(RelayCase):
    reactor = reactor

    async def script(
        self,
        answer: bytes,
        reset: bool = False,
        tls: bool = False,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client before a machine that says this to every request, and then goes."""

        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                await head_of(reader)
            writer.write(answer)
            await writer.drain()
            await asyncio.sleep(0.1)
            if reset:
                reset_on_close(writer)
            writer.close()

        return await self.open(await self.proxy(machine, tls))

    async def rest(self, reader: asyncio.StreamReader) -> tuple[bytes, bool]:
        """All that comes, and whether it ended as an end should (over TLS: announced)."""
        got = b""
        try:
            while data := await asyncio.wait_for(reader.read(MB), 5):
                got += data
        except (ConnectionError, ssl.SSLError):
            return got, False
        return got, True


class CutShortTests(FramingCase):
    """What the machine does not complete is not completed: the client can tell."""

    @on_loop
    async def test_of_known_end(self) -> None:
        for tls in (False, True):
            for reset in (False, True):
                for answer in HEADS:
                    reader, writer = await self.script(answer + b"x", reset, tls)
                    writer.write(get())
                    got, proper = await self.rest(reader)
                    self.assertFalse(got.endswith(b"0\r\n\r\n"))
                    self.assertLess(len(got.partition(b"\r\n\r\n")[2]), 100)
                    self.assertFalse(proper, (tls, reset, answer))

    @on_loop
    async def test_of_an_end_told_by_a_reset(self) -> None:
        for tls in (False, True):
            reader, writer = await self.script(CLOSE_DELIMITED + b"part", True, tls)
            writer.write(get())
            got, proper = await self.rest(reader)
            self.assertFalse(got.endswith(b"0\r\n\r\n"))
            self.assertFalse(proper)

    @on_loop
    async def test_for_http10_without_framing_of_its_own(self) -> None:
        for tls in (False, True):
            for answer in HEADS:
                reader, writer = await self.script(answer + b"x", False, tls)
                writer.write(get().replace(b"1.1", b"1.0"))
                self.assertFalse((await self.rest(reader))[1], (tls, answer))


class DelimitedByCloseTests(FramingCase):
    @on_loop
    async def test_is_chunked_for_http11(self) -> None:
        for tls in (False, True):
            reader, writer = await self.script(CLOSE_DELIMITED + b"whole", tls=tls)
            writer.write(get())
            self.assertIn(b"Transfer-Encoding: chunked", await head_of(reader))
            self.assertEqual(await reader.readuntil(b"0\r\n\r\n"), b"5\r\nwhole\r\n0\r\n\r\n")

    @on_loop
    async def test_is_closed_for_http10(self) -> None:
        answers = (
            CLOSE_DELIMITED + b"whole",
            HEADS[1].replace(b"64", b"5") + b"whole\r\n0\r\n\r\n",
        )
        for tls in (False, True):
            for answer in answers:
                reader, writer = await self.script(answer, tls=tls)
                writer.write(get(more="Connection: keep-alive\r\n").replace(b"1.1", b"1.0"))
                got, proper = await self.rest(reader)
                self.assertTrue(got.endswith(b"\r\n\r\nwhole"))
                self.assertNotIn(b"chunked", got)
                self.assertTrue(proper)


class Http10Tests(FramingCase):
    @on_loop
    async def test_keep_alive_is_by_request(self) -> None:
        reader, writer = await self.script(OK)
        writer.write(get(more="Connection: keep-alive\r\n").replace(b"1.1", b"1.0"))
        self.assertIn(b"Connection: keep-alive", await head_of(reader))
        self.assertEqual(await reader.readexactly(2), b"ok")
        writer.write(get().replace(b"1.1", b"1.0"))
        got, proper = await self.rest(reader)
        self.assertIn(b"Connection: close", got)
        self.assertTrue(got.endswith(b"ok") and proper)


class EarlyAnswerTests(FramingCase):
    """The machine answers before the body was whole."""

    async def early(self, tls: bool, size: int) -> tuple[bytes, bool]:
        answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"
        reader, writer = await self.script(answer, tls=tls)
        writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
        reading = asyncio.ensure_future(self.rest(reader))
        with contextlib.suppress(ConnectionError):
            for _ in range(size // MB):
                writer.write(bytes(MB))
                await asyncio.wait_for(writer.drain(), 5)
        return await reading

    @on_loop
    async def test_the_client_can_read_it(self) -> None:
        """Also one that first sends all that it has: no reset takes the answer away."""
        for tls in (False, True):
            got, _ = await self.early(tls, 8 * MB)
            self.assertIn(b"HTTP/1.1 413 ", got)
            self.assertIn(b"Connection: close", got)
            self.assertTrue(got.endswith(b"\r\n\r\nno"))


class PipelineTests(FramingCase):
    @on_loop
    async def test_in_order_and_bounded(self) -> None:
        count = 2000

        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    path = (await head_of(reader)).split()[1]
                    if path == b"/0":
                        await asyncio.sleep(0.5)
                        self.waiting = self.kept()
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path)
                    )

        self.waiting = 0
        for tls in (False, True):
            proxy = await self.proxy(machine, tls)

            def kept(connections: set = proxy.factory.connections) -> int:  # type: ignore[type-arg]
                (connection,) = connections
                return int(connection._reader.buffered)

            self.kept = kept
            reader, writer = await self.open(proxy)
            writer.write(b"".join(get(f"/{n}", f"X-Long: {'x' * 200}\r\n") for n in range(count)))
            for number in range(count):
                await head_of(reader)
                path = b"/%d" % number
                self.assertEqual(await reader.readexactly(len(path)), path)
            self.assertGreater(self.waiting, 0)
            self.assertLessEqual(self.waiting, 64 * 1024)


class InterimTests(FramingCase):
    @on_loop
    async def test_continue_is_the_machines_to_say(self) -> None:
        """Passed on, and until then no byte of the body need be sent."""
        said = asyncio.Event()

        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await head_of(reader)
            self.assertIn(b"expect: 100-continue", head.lower())
            await said.wait()
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.assertEqual(await reader.readexactly(5), b"hello")
            writer.write(OK)

        reader, writer = await self.open(await self.proxy(machine, tls=True))
        writer.write(
            b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)
        said.set()
        self.assertIn(b" 103 ", await head_of(reader))
        self.assertIn(b" 100 ", await head_of(reader))
        writer.write(b"hello")
        self.assertIn(b" 200 ", await head_of(reader))

    @on_loop
    async def test_trailers_when_asked_for(self) -> None:
        data = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
        )
        for asked in ("", "TE: trailers\r\nConnection: TE\r\n"):
            reader, writer = await self.script(data)
            writer.write(get(more=asked))
            await head_of(reader)
            rest = await reader.readuntil(b"0\r\n" + (b"X-Sum: 1\r\n" if asked else b"") + b"\r\n")
            self.assertEqual(b"X-Sum" in rest, bool(asked))


class RetryTests(FramingCase):
    """A machine that closes its kept connection just as the next request arrives on it."""

    async def after_a_loss(self, request: bytes) -> tuple[bytes, list[bytes]]:
        heads: list[bytes] = []

        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            fresh = not heads
            with contextlib.suppress(asyncio.IncompleteReadError):
                heads.append(await head_of(reader))
                writer.write(OK)
                if not fresh:
                    return
                heads.append(await head_of(reader))
                writer.transport.abort()

        reader, writer = await self.open(await self.proxy(machine))
        writer.write(get())
        await head_of(reader)
        await reader.readexactly(2)
        writer.write(request)
        return await head_of(reader), heads

    @on_loop
    async def test_idempotent_is_sent_again(self) -> None:
        answer, heads = await self.after_a_loss(get("/again"))
        self.assertIn(b" 200 ", answer)
        self.assertEqual([b"/again" in head for head in heads], [False, True, True])

    @on_loop
    async def test_post_is_not(self) -> None:
        for body in (b"", b"hello"):
            request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b"
            answer, heads = await self.after_a_loss(request % (len(body), body))
            self.assertIn(b" 502 ", answer)
            self.assertEqual(len(heads), 2)
