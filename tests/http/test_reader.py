"""The sans-IO core: refusals, bodies, and that it never matters how bytes are split."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from time import perf_counter

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import BadGateway, BadRequest, MatrixError
from matrix.http import Limits, RequestHead
from matrix.http._heads import ResponseHead
from matrix.http._reader import END, RequestReader, ResponseReader

LIMITS = Limits()
SMALL = Limits(target=24, head=64, fields=4, chunk_extension=8)

POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
MAX_HEAD = LIMITS.head

REFUSED: list[tuple[bytes, int, str]] = [
    (b"GET / HTTP/1.1\nHost: h\r\n\r\n", 400, "bare-lf"),
    (b"GET / HTTP/1.1\nHost: h\n\n", 400, "bare-lf"),
    (b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bare-lf"),
    (b"GET / HTTP/1.1\r\nHost: h\n\r\n\r\n", 400, "bare-lf"),
    (b"GET / HTTP/1.1\rHost: h\r\n\r\n", 400, "request-line"),
    (b"GET / HTTP/1.1\r\nHost: h\rA: b\r\n\r\n", 400, "control"),
    (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\r\n\r\n", 400, "control"),
    (b"GET / HTTP/1.1\r\n\r\n", 400, "host"),
    (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "te-and-cl"),
    (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "content-length"),
    (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400, "transfer-encoding"),
    (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 405, "method"),
    (b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505, "version"),
    (b"GET /" + b"x" * 16384 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414, "target"),
    (b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414, "target"),
    (POST + b"A: " + b"x" * MAX_HEAD + b"\r\n\r\n", 431, "head"),
    (POST + b"A: 1\r\n" * 128 + b"\r\n", 431, "fields"),
    (CHUNKED + b"\r\n", 400, "chunk"),
    (CHUNKED + b"x\r\n", 400, "chunk"),
    (CHUNKED + b"-1\r\n", 400, "chunk"),
    (CHUNKED + b"0x1\r\n", 400, "chunk"),
    (CHUNKED + b" 1\r\n", 400, "chunk"),
    (CHUNKED + b"1 \r\n", 400, "chunk"),
    (CHUNKED + b"1 ;a\r\n", 400, "chunk"),
    (CHUNKED + b"1_0\r\n", 400, "chunk"),
    (CHUNKED + b"1\n", 400, "chunk"),
    (CHUNKED + b"1;a\nb\r\n", 400, "chunk"),
    (CHUNKED + b"1000000000000000\r\n", 400, "chunk"),
    (CHUNKED + b"3\r\nabcd\r\n", 400, "chunk"),
    (CHUNKED + b"3\r\nabc\n", 400, "chunk"),
    (CHUNKED + b"3\r\nabc\rx", 400, "chunk"),
    (CHUNKED + b"1;" + b"x" * 1024 + b"\r\n", 400, "chunk-extension"),
    (CHUNKED + b"0\r\nA\r\n\r\n", 400, "field-colon"),
    (CHUNKED + b"0\r\nA: b\nc\r\n\r\n", 400, "bare-lf"),
    (CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", 400, "obs-fold"),
    (CHUNKED + b"0\r\nA: " + b"x" * MAX_HEAD + b"\r\n\r\n", 431, "head"),
    (CHUNKED + b"0\r\n" + b"A: b\r\n" * 129 + b"\r\n", 431, "fields"),
]

Seen = list[tuple[object, ...]]


def read(reader: RequestReader | ResponseReader, pieces: Iterable[bytes]) -> Seen:
    """What a reader makes of the pieces, body bytes joined; last, how it refused if it did."""
    seen: Seen = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (event := reader.next_event()) is not None:
                if isinstance(event, RequestHead):
                    seen.append((event.method, event.target, event.http11, *event.headers))
                elif isinstance(event, ResponseHead):
                    seen.append((event.status, event.reason, *event.fields.lines))
                elif event is END:
                    seen.append(("end", *reader.trailers))
                elif seen and seen[-1][0] == "body":
                    seen[-1] = ("body", seen[-1][1] + event)  # type: ignore[operator]
                else:
                    seen.append(("body", event))
    except MatrixError as error:
        seen.append(("refused", error.status, error.reason))
    return seen


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The data in pieces, none empty."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def requests(data: bytes, limits: Limits = LIMITS) -> Seen:
    return read(RequestReader(limits), [data])


class RefusedRequestTests(SynchronousTestCase):
    def test_each_with_its_status_and_reason(self) -> None:
        for data, status, reason in REFUSED:
            self.assertEqual(requests(data)[-1], ("refused", status, reason), data[:200])

    def test_byte_by_byte_the_same(self) -> None:
        for data, status, reason in REFUSED:
            if len(data) < 4096:
                pieces = [data[at : at + 1] for at in range(len(data))]
                seen = read(RequestReader(LIMITS), pieces)
                self.assertEqual(seen[-1], ("refused", status, reason), data)

    def test_refused_as_early_as_it_can_be_known(self) -> None:
        for start in (b"GET / HTTP/1.1\n", b"GET /" + b"x" * (MAX_HEAD + 4)):
            self.assertEqual(requests(start)[-1][0], "refused")

    def test_bounds_are_the_same_whole_and_in_pieces(self) -> None:
        """A head of exactly the longest length, and one byte more."""
        for extra, accepted in ((0, True), (1, False)):
            data = b"GET / HTTP/1.1\r\nHost: h\r\nA: "
            data += b"x" * (LIMITS.head - len(data) + extra) + b"\r\n\r\n"
            for cut in range(1, 6):
                seen = read(RequestReader(LIMITS), [data[:-cut], data[-cut:]])
                self.assertEqual(seen[-1] == ("end",), accepted, (extra, cut))

    def test_a_flood_of_empty_lines_takes_no_time(self) -> None:
        """A quarter of a megabyte at once; one copy for each line would take seconds."""
        reader = RequestReader(LIMITS)
        self.assertEqual(read(reader, [b"\r\n" * 131072]), [])
        self.assertEqual(reader.buffered, 0)


class RequestBodyTests(SynchronousTestCase):
    def test_counted(self) -> None:
        seen = requests(POST + b"Content-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: i\r\n\r\n")
        self.assertEqual([one[0] for one in seen], [b"POST", "body", "end", b"GET", "end"])
        self.assertEqual(seen[1], ("body", b"abc"))

    def test_none(self) -> None:
        self.assertEqual(requests(POST + b"\r\n")[1:], [("end",)])
        self.assertEqual(requests(POST + b"Content-Length: 0\r\n\r\n")[1:], [("end",)])

    def test_chunked(self) -> None:
        body = b'3\r\nabc\r\n0a;ext="v"\r\n0123456789\r\n0;last\r\nX-Sum: 1\r\n\r\n'
        self.assertEqual(
            requests(CHUNKED + body)[1:],
            [("body", b"abc0123456789"), ("end", (b"x-sum", b"1", b"X-Sum: 1"))],
        )

    def test_a_flood_of_tiny_chunks_takes_no_time(self) -> None:
        """They come as one piece; what is wrong behind them is told after it."""
        count = 200_000
        reader = RequestReader(LIMITS)
        reader.feed(CHUNKED + b"1\r\nx\r\n" * count + b"?")
        self.assertIsInstance(reader.next_event(), RequestHead)
        began = perf_counter()
        self.assertEqual(reader.next_event(), b"x" * count)
        self.assertLess(perf_counter() - began, 5)  # seconds; it was a minute
        self.assertRaises(BadRequest, reader.next_event)

    def test_a_long_head_is_not_kept(self) -> None:
        """Thousands of idle connections could each bring one."""
        block = b"Host: h\r\n" + b"".join(b"A%d: %b\r\n" % (n, b"x" * 1000) for n in range(30))
        reader = RequestReader(LIMITS)
        for _ in range(2):
            reader.feed(b"GET / HTTP/1.1\r\n%b\r\n" % block)
            self.assertIsInstance(reader.next_event(), RequestHead)
            self.assertIs(reader.next_event(), END)
        self.assertEqual((reader._known, reader._known_fields), (b"", None))

    def test_trailers_are_those_of_their_own_message(self) -> None:
        with_one = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: 1\r\n\r\n"
        without = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        reader = ResponseReader(LIMITS)
        for data, count in ((with_one, 1), (without, 0)):
            reader.expect(b"GET")
            read(reader, [data])
            self.assertEqual(len(reader.trailers), count)

    def test_longest_chunk_extension(self) -> None:
        body = b"1;" + b"x" * 1023 + b"\r\na\r\n0\r\n\r\n"
        self.assertEqual(requests(CHUNKED + body)[1:], [("body", b"a"), ("end",)])

    def test_empty_lines_before_a_request(self) -> None:
        seen = requests(b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n\r\n" + POST + b"\r\n")
        self.assertEqual([one[0] for one in seen], [b"GET", "end", b"POST", "end"])

    def test_how_much_of_a_body_is_left(self) -> None:
        reader = RequestReader(LIMITS)
        read(reader, [POST + b"Content-Length: 10\r\n\r\nabc"])
        self.assertEqual(reader.left_of_body, 7)
        read(reader, [b"defghijGET"])
        self.assertEqual((reader.left_of_body, reader.buffered), (0, 3))
        self.assertEqual((reader.take_rest(), reader.buffered), (b"GET", 0))

    def test_a_block_seen_before_is_not_parsed_again(self) -> None:
        reader = RequestReader(LIMITS)
        reader.feed(POST + b"\r\n" + POST + b"\r\n")
        first, _, second = reader.next_event(), reader.next_event(), reader.next_event()
        assert isinstance(first, RequestHead)
        assert isinstance(second, RequestHead)
        self.assertIs(first.fields, second.fields)

    def test_a_known_block_does_not_excuse_the_line(self) -> None:
        data = POST + b"\r\n" + POST.replace(b" / ", b"\n/ ") + b"\r\n"
        self.assertEqual(requests(data)[-1], ("refused", 400, "bare-lf"))


def responses(
    data: bytes, method: bytes = b"GET", upgrade: bool = False
) -> tuple[ResponseReader, Seen]:
    reader = ResponseReader(LIMITS)
    reader.expect(method, upgrade)
    return reader, read(reader, [data])


class ResponseTests(SynchronousTestCase):
    def test_interim_heads_come_first(self) -> None:
        data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n"
        data += b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
        _, seen = responses(data)
        self.assertEqual([one[0] for one in seen], [100, 103, 200, "body", "end"])

    def test_upgrade_only_if_asked_for(self) -> None:
        data = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x81\x00"
        _, seen = responses(data)
        self.assertEqual(seen, [("refused", 502, "upgrade")])
        reader = ResponseReader(LIMITS)
        reader.expect(b"GET", upgrade=True)
        reader.feed(data)
        head = reader.next_event()
        assert isinstance(head, ResponseHead)
        self.assertEqual((head.status, reader.take_rest()), (101, b"\x81\x00"))

    def test_until_close(self) -> None:
        reader, seen = responses(b"HTTP/1.1 200 OK\r\n\r\nabc")
        self.assertEqual(seen[-1], ("body", b"abc"))
        self.assertFalse(reader.keeps_alive)
        self.assertIs(reader.closed(), END)

    def test_cut_short(self) -> None:
        for data in (
            b"",
            b"HTTP/1.1 200 OK\r\nContent-",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        ):
            reader, _ = responses(data)
            with self.assertRaises(BadGateway, msg=repr(data)):
                reader.closed()

    def test_without_body(self) -> None:
        for method, head in (
            (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
            (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ):
            reader, seen = responses(head, method)
            self.assertEqual(seen[1:], [("end",)])
            self.assertTrue(reader.keeps_alive)

    def test_breaches_are_the_machines(self) -> None:
        for data, reason in (
            (b"HTTP/1.1 200 OK\nA: b\r\n\r\n", "bare-lf"),
            (b"SSH-2.0-x\r\n\r\n", "status-line"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "content-length",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "te-and-cl",
            ),
            (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer-encoding"),
            (b"HTTP/1.1 200 OK\r\nA: " + b"x" * MAX_HEAD + b"\r\n\r\n", "head"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "chunk"),
        ):
            _, seen = responses(data)
            self.assertEqual(seen[-1], ("refused", 502, reason), data[:80])

    def test_keeping_alive(self) -> None:
        for head, keeps in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        ):
            self.assertEqual(responses(head)[0].keeps_alive, keeps)


PIECES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1\r\n", b"POST /a?b HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"GET", b" "),
        *(b"Host: h\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"A: b\r\n"),
        *(b"\r\n", b"\r", b"\n", b":", b";", b"0\r\n", b"3\r\n", b"abc", b"3\r\nabc\r\n", b"0"),
        *(b"x" * 8, b"3;ext=1\r\n", b"\0", b"\t", b"HTTP/1.1 204 No\r\n", b"HTTP/1.1 100 C\r\n"),
        *(b"Content-Length: 3\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n", b"Host: h\r\n\r\n"),
    ]
)
STREAMS = st.lists(PIECES, max_size=14).map(b"".join)
CUTS = st.lists(st.integers(min_value=0, max_value=400), max_size=8)


class AnySplitTests(SynchronousTestCase):
    """Any bytes in any split give the same events, or the same refusal."""

    @settings(max_examples=400, deadline=None)
    @given(STREAMS | st.binary(max_size=60), CUTS)
    @example(b"3\r\n\r\n\r\n", [1, 2, 3])
    def test_requests(self, data: bytes, cuts: list[int]) -> None:
        whole = requests(data, SMALL)
        self.assertEqual(read(RequestReader(SMALL), split(data, cuts)), whole)
        each = [data[at : at + 1] for at in range(len(data))]
        self.assertEqual(read(RequestReader(SMALL), each), whole)

    @settings(max_examples=400, deadline=None)
    @given(STREAMS, CUTS)
    def test_chunked_bodies(self, data: bytes, cuts: list[int]) -> None:
        data = CHUNKED.replace(b"Encoding: ", b"Encoding:") + data
        limits = Limits(target=24, head=70, fields=4, chunk_extension=8)
        whole = requests(data, limits)
        self.assertEqual(whole[0][0], b"POST")
        self.assertEqual(read(RequestReader(limits), split(data, cuts)), whole)

    @settings(max_examples=400, deadline=None)
    @given(STREAMS, CUTS, st.sampled_from([b"GET", b"HEAD"]))
    def test_responses(self, data: bytes, cuts: list[int], method: bytes) -> None:
        seen = []
        for pieces in ([data], split(data, cuts), [data[at : at + 1] for at in range(len(data))]):
            reader = ResponseReader(SMALL)
            reader.expect(method)
            seen.append(read(reader, pieces))
        self.assertEqual(seen[0], seen[1])
        self.assertEqual(seen[0], seen[2])
