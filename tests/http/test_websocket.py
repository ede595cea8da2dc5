"""WebSocket facts: the handshake's answer, our close frames, and following those of others."""

import struct
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from matrix.http import accept_key, close_frame
from matrix.http._websocket import FrameFollower


def parsed(data: bytes, masked: bool) -> Frame:
    """One frame, as the websockets library reads it."""
    stream = StreamReader()
    stream.feed_data(data)
    steps = Frame.parse(stream.read_exact, mask=masked)
    try:
        while True:
            next(steps)
    except StopIteration as done:
        return done.value


class HandshakeTests(SynchronousTestCase):
    def test_example_of_the_standard(self) -> None:
        """RFC 6455 section 1.3."""
        self.assertEqual(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")


class CloseFrameTests(SynchronousTestCase):
    def test_to_a_client(self) -> None:
        frame = parsed(close_frame(1012, "asleep"), masked=False)
        self.assertEqual((frame.opcode, frame.fin), (Opcode.CLOSE, True))
        self.assertEqual(frame.data, struct.pack("!H", 1012) + b"asleep")

    def test_to_a_machine_is_masked(self) -> None:
        frame = parsed(close_frame(1012, "asleep", masked=True), masked=True)
        self.assertEqual(frame.data, struct.pack("!H", 1012) + b"asleep")
        masks = {close_frame(1000, "", masked=True)[2:6] for _ in range(8)}
        self.assertGreater(len(masks), 1)

    def test_reason_fits_a_control_frame(self) -> None:
        frame = parsed(close_frame(1013, "x" * 500), masked=False)
        self.assertEqual(len(frame.data), 125)

    def test_reason_is_valid_text(self) -> None:
        """Section 5.5.1: UTF-8; cutting one short must not break a character."""
        frame = parsed(close_frame(1013, "Maschine schläft" * 20), masked=False)
        self.assertTrue(frame.data[2:].decode("utf-8").startswith("Maschine schl?ft"))


@st.composite
def frames(draw: st.DrawFn) -> tuple[bool, bytes, int]:
    """Whether it is a data frame, its bytes, and how many of them are its header."""
    data = draw(st.booleans())
    opcode = draw(st.sampled_from([0, 1, 2] if data else [9, 10]))
    size = draw(st.sampled_from([0, 1, 5, 125, 126, 200, 65535, 65536] if data else [0, 1, 125]))
    mask = b"\x11\x22\x33\x44" if draw(st.booleans()) else b""
    bit = 0x80 if mask else 0
    if size < 126:
        length = bytes([bit | size])
    elif size < 65536:
        length = bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([bit | 127]) + size.to_bytes(8, "big")
    header = bytes([draw(st.sampled_from([0, 0x80])) | opcode]) + length + mask
    return data, header + b"\x08" * size, len(header)


class FollowerTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(st.lists(frames(), max_size=6), st.lists(st.integers(0, 200000), max_size=12))
    def test_any_frames_in_any_split(
        self, sent: list[tuple[bool, bytes, int]], cuts: list[int]
    ) -> None:
        data = b"".join(frame for _, frame, _ in sent)
        boundaries, used_at, place = {0}, [], 0
        for is_data, frame, header in sent:
            if is_data:  # its first byte that tells, to its last
                used_at.append((place + header - 1, place + len(frame)))
            place += len(frame)
            boundaries.add(place)
        follower = FrameFollower()
        edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        for start, end in pairwise(edges):
            used = follower.feed(data[start:end])
            expected = any(first < end and start < last for first, last in used_at)
            self.assertEqual(used, expected, (start, end))
            self.assertEqual(follower.at_boundary, end in boundaries)
        self.assertFalse(follower.closing)

    def test_byte_by_byte(self) -> None:
        data = b"\x81\x85abcdhello\x89\x00\x82\x7e\x00\x80" + b"x" * 128
        follower, boundaries = FrameFollower(), []
        for at in range(len(data)):
            follower.feed(data[at : at + 1])
            if follower.at_boundary:
                boundaries.append(at + 1)
        self.assertEqual(boundaries, [11, 13, 13 + 4 + 128])

    def test_ping_and_pong_are_no_use(self) -> None:
        follower = FrameFollower()
        self.assertFalse(follower.feed(b"\x89\x04ping\x8a\x00"))
        self.assertTrue(follower.feed(b"\x89\x00\x81\x00"))
        self.assertFalse(follower.feed(b"\x8a\x00"))

    def test_ping_between_fragments(self) -> None:
        follower = FrameFollower()
        self.assertTrue(follower.feed(b"\x01\x03hel"))
        self.assertFalse(follower.feed(b"\x89\x01p"))
        self.assertTrue(follower.feed(b"\x80\x02l"))
        self.assertFalse(follower.at_boundary)
        self.assertTrue(follower.feed(b"o"))
        self.assertTrue(follower.at_boundary)

    def test_frame_of_8_gib(self) -> None:
        """And one byte more, so that no 32 bits hold its length; without a byte of it kept."""
        size = (8 << 30) + 1
        follower = FrameFollower()
        for byte in b"\x82\x7f" + struct.pack("!Q", size):
            self.assertTrue(follower.at_boundary or follower._header)
            follower.feed(bytes([byte]))
        piece = bytes(1 << 20)
        for _ in range(size >> 20):
            self.assertTrue(follower.feed(piece))
            self.assertFalse(follower.at_boundary)
        self.assertTrue(follower.feed(b"x\x89\x00"))
        self.assertTrue(follower.at_boundary)
        self.assertFalse(follower.feed(b"\x89\x00"))

    def test_longest_length_there_is(self) -> None:
        follower = FrameFollower()
        follower.feed(b"\x82\x7f" + b"\x7f" + b"\xff" * 7)
        self.assertTrue(follower.feed(bytes(1 << 20)))
        self.assertFalse(follower.at_boundary)

    def test_lengths_in_longer_forms_than_needed(self) -> None:
        for header in (b"\x81\x7e\x00\x02", b"\x81\x7f" + struct.pack("!Q", 2)):
            follower = FrameFollower()
            self.assertTrue(follower.feed(header + b"ok"))
            self.assertTrue(follower.at_boundary)

    def test_closing(self) -> None:
        for masked in (False, True):
            follower = FrameFollower()
            frame = close_frame(1000, "bye", masked=masked)
            self.assertFalse(follower.feed(frame[:1]))
            self.assertFalse(follower.closing)
            self.assertFalse(follower.feed(frame[1:]))
            self.assertTrue(follower.closing)
            self.assertTrue(follower.at_boundary)
