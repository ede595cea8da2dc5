"""Conditions and ranges decide as RFC 9110 says."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.conditions import (
    Version,
    check_change,
    http_date,
    is_unmodified,
    wanted_range,
)
from matrix.errors import BadRequest, PreconditionFailed, RangeNotSatisfiable
from matrix.testing.exchange import FakeRequest

NOW = Version(b'"v2"', 784_111_777)
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"


def request(**fields: str) -> FakeRequest:
    return FakeRequest(
        headers=[(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in fields.items()]
    )


class DateTests(SynchronousTestCase):
    def test_dates_are_the_preferred_form(self) -> None:
        self.assertEqual(http_date(NOW.modified), DATE.encode())


class ChangeTests(SynchronousTestCase):
    def passes(self, now: Version | None, **fields: str) -> bool:
        try:
            check_change(request(**fields), now)
        except PreconditionFailed as error:
            self.assertIn(error.reason, ("if-match", "if-none-match", "if-unmodified-since"))
            return False
        return True

    def test_without_conditions_all_goes(self) -> None:
        self.assertTrue(self.passes(NOW))
        self.assertTrue(self.passes(None))

    def test_if_match(self) -> None:
        for field, there, nothing in (
            ('"v2"', True, False),
            ('"v1", "v2"', True, False),
            ("*", True, False),
            ('"v1"', False, False),
            ('W/"v2"', False, False),
        ):
            self.assertIs(self.passes(NOW, if_match=field), there, field)
            self.assertIs(self.passes(None, if_match=field), nothing, field)

    def test_if_none_match(self) -> None:
        for field, there in (("*", False), ('"v2"', False), ('W/"v2"', False), ('"v1"', True)):
            self.assertIs(self.passes(NOW, if_none_match=field), there, field)
            self.assertTrue(self.passes(None, if_none_match=field), field)

    def test_if_unmodified_since(self) -> None:
        self.assertTrue(self.passes(NOW, if_unmodified_since=DATE))
        self.assertFalse(self.passes(NOW, if_unmodified_since=EARLIER))
        self.assertTrue(self.passes(None, if_unmodified_since=EARLIER))
        self.assertTrue(self.passes(NOW, if_unmodified_since="last tuesday"))

    def test_if_match_overrides_the_date(self) -> None:
        self.assertTrue(self.passes(NOW, if_match='"v2"', if_unmodified_since=EARLIER))

    def test_malformed_tags_are_named(self) -> None:
        for field in ("v2", '"v2', "", '"a" "b"', '*, "v2"'):
            error = self.assertRaises(BadRequest, check_change, request(if_match=field), NOW)
            self.assertEqual(error.reason, "if-match")


class UnmodifiedTests(SynchronousTestCase):
    def unmodified(self, **fields: str) -> bool:
        return is_unmodified(request(**fields), NOW)

    def test_if_none_match(self) -> None:
        self.assertFalse(self.unmodified())
        self.assertTrue(self.unmodified(if_none_match='"v2"'))
        self.assertTrue(self.unmodified(if_none_match='"x", W/"v2"'))
        self.assertTrue(self.unmodified(if_none_match="*"))
        self.assertFalse(self.unmodified(if_none_match='"v1"'))

    def test_if_modified_since(self) -> None:
        self.assertTrue(self.unmodified(if_modified_since=DATE))
        self.assertTrue(self.unmodified(if_modified_since=LATER))
        self.assertFalse(self.unmodified(if_modified_since=EARLIER))
        self.assertFalse(self.unmodified(if_modified_since="rubbish"))

    def test_tag_overrides_the_date(self) -> None:
        self.assertFalse(self.unmodified(if_none_match='"v1"', if_modified_since=LATER))

    def test_if_match_of_another_version_fails(self) -> None:
        self.assertRaises(PreconditionFailed, is_unmodified, request(if_match='"v1"'), NOW)


class RangeTests(SynchronousTestCase):
    def wanted(self, field: str, size: int = 1000, **more: str) -> range | None:
        clock = NOW.modified + 3600.0
        return wanted_range(request(range=field, **more), NOW, size, clock)

    def test_the_forms(self) -> None:
        for field, expected in {
            "bytes=0-499": range(500),
            "bytes=500-": range(500, 1000),
            "bytes=-200": range(800, 1000),
            "bytes=-5000": range(1000),
            "bytes=990-5000": range(990, 1000),
            "Bytes=0-0": range(1),
            "bytes=999-999": range(999, 1000),
        }.items():
            self.assertEqual(self.wanted(field), expected, field)

    def test_what_is_no_single_range_is_ignored(self) -> None:
        for field in ("bytes=5-2", "bytes=-", "bytes=0-1,5-9", "lines=1-2", "bytes 0-1", "x"):
            self.assertIsNone(self.wanted(field), field)

    def test_absurd_numbers_are_ignored(self) -> None:
        self.assertIsNone(self.wanted("bytes=" + "9" * 5000 + "-"))

    def test_outside_the_file_is_refused_with_its_size(self) -> None:
        for field in ("bytes=1000-", "bytes=5000-6000", "bytes=-0"):
            error = self.assertRaises(RangeNotSatisfiable, self.wanted, field)
            self.assertEqual(error.headers, ((b"content-range", b"bytes */1000"),))

    def test_empty_file(self) -> None:
        self.assertIsNone(self.wanted("bytes=-5", size=0))
        self.assertRaises(RangeNotSatisfiable, self.wanted, "bytes=0-", size=0)

    def test_if_range_of_this_version_holds(self) -> None:
        self.assertEqual(self.wanted("bytes=0-0", if_range='"v2"'), range(1))
        self.assertEqual(self.wanted("bytes=0-0", if_range=DATE), range(1))

    def test_if_range_of_another_version_means_all(self) -> None:
        for field in ('"v1"', 'W/"v2"', EARLIER, LATER, "rubbish"):
            self.assertIsNone(self.wanted("bytes=0-0", if_range=field), field)

    def test_date_of_this_very_second_proves_nothing(self) -> None:
        asked = request(range="bytes=0-0", if_range=DATE)
        self.assertIsNone(wanted_range(asked, NOW, 10, NOW.modified + 0.5))

    @given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
    def test_what_is_sent_lies_in_the_file(self, size: int, first: int, last: int) -> None:
        for field in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
            try:
                wanted = self.wanted(field, size)
            except RangeNotSatisfiable:
                continue
            if wanted is not None:
                self.assertTrue(0 <= wanted.start < wanted.stop <= size, (field, wanted))
