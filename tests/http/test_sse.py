"""Server-sent events: telling events from comments, however the bytes are split."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.http._sse import EventSpotter


def field_bytes(data: bytes) -> list[bool]:
    """Of each byte whether it belongs to a field's line: the plain way, one byte at a time."""
    found, line = [], ""
    for byte in data:
        if byte in b"\r\n":
            line = ""
        elif not line:
            line = "comment" if byte == ord(":") else "field"
        found.append(line == "field")
    return found


class EventSpotterTests(SynchronousTestCase):
    @settings(max_examples=600, deadline=None)
    @given(
        st.lists(st.sampled_from([b":", b"\n", b"\r", b"\r\n", b"data: x", b"a", b"\n\n"])),
        st.lists(st.integers(0, 100), max_size=10),
    )
    def test_any_split(self, pieces: list[bytes], cuts: list[int]) -> None:
        data = b"".join(pieces)
        expected = field_bytes(data)
        spotter = EventSpotter()
        edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        for start, end in pairwise(edges):
            used = spotter.feed(data[start:end])
            self.assertEqual(used, any(expected[start:end]), (data, start, end))

    def test_keep_alive_comments_are_no_use(self) -> None:
        spotter = EventSpotter()
        for data in (b": ping\n\n", b":\n\n", b"\n", b":a", b" data: no event\r\n", b"\r\n"):
            self.assertFalse(spotter.feed(data), data)

    def test_events_are(self) -> None:
        for data in (
            b"data: 1\n\n",
            b": c\ndata: 1\n\n",
            b"\rid:1\r",
            b"event: ping\n\n",
            b"retry:1",
        ):
            self.assertTrue(EventSpotter().feed(data), data)

    def test_rest_of_an_event_is(self) -> None:
        spotter = EventSpotter()
        self.assertTrue(spotter.feed(b"da"))
        self.assertTrue(spotter.feed(b"ta: 1"))
        self.assertFalse(spotter.feed(b"\n\n"))
