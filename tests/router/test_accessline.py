"""Whatever a request holds, its line is one JSON object, and holds no token."""

import json
import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.router.accessline import (
    SECRET_PARAMETERS,
    TARGET_LIMIT,
    Record,
    format_combined,
    format_record,
    redact,
)

WARM = Record(
    time=1_795_355_619.5,
    request_id="01JDC8Z2Q4",
    user_id="0a1b2c3d-0000-4000-8000-00000000000a",
    method=b"GET",
    target=b"/files?path=/a",
    status=200,
    bytes_in=0,
    bytes_out=1024,
    auth_s=0.00001,
    route_s=0.000004,
    wake_s=None,
    ready_s=None,
    upstream_s=0.0021,
    total_s=0.0022,
    wake_cause=None,
    peer="203.0.113.9",
    tls="TLSv1.3",
    close_reason=None,
)

JWT = b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"

durations = st.none() | st.floats(0, 1e6)
texts = st.none() | st.text()
records = st.builds(
    Record,
    time=st.floats(0, 4e9),
    request_id=st.text(),
    user_id=texts,
    method=st.binary(),
    target=st.binary(),
    status=st.integers(100, 999),
    bytes_in=st.integers(0),
    bytes_out=st.integers(0),
    auth_s=durations,
    route_s=durations,
    wake_s=durations,
    ready_s=durations,
    upstream_s=durations,
    total_s=st.floats(0, 1e6),
    wake_cause=texts,
    peer=st.text(),
    tls=texts,
    close_reason=texts,
    http11=st.booleans(),
    referer=st.none() | st.binary(),
    user_agent=st.none() | st.binary(),
)

# As tools that read the combined format take it apart.
COMBINED = re.compile(
    r"(\S+) - (\S+) \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "
    r'"((?:[^"\\]|\\.)*)" (\d{3}) (\d+) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"\n'
)


class FormatTests(SynchronousTestCase):
    def test_warm_request(self) -> None:
        self.assertEqual(
            json.loads(format_record(WARM)),
            {
                "time": "2026-11-22T13:53:39.500Z",
                "id": "01JDC8Z2Q4",
                "user": "0a1b2c3d-0000-4000-8000-00000000000a",
                "method": "GET",
                "path": "/files?path=/a",
                "status": 200,
                "bytes_in": 0,
                "bytes_out": 1024,
                "auth_ms": 0.01,
                "route_ms": 0.004,
                "upstream_ms": 2.1,
                "total_ms": 2.2,
                "client": "203.0.113.9",
                "tls": "TLSv1.3",
            },
        )

    def test_a_wake_and_an_end_of_connection_show(self) -> None:
        line = WARM._replace(
            wake_s=0.412, ready_s=0.05, wake_cause="request", close_reason="client-gone"
        )
        found = json.loads(format_record(line))
        self.assertEqual((found["wake_ms"], found["ready_ms"]), (412.0, 50.0))
        self.assertEqual((found["wake"], found["close"]), ("request", "client-gone"))

    def test_refused_request_has_no_user(self) -> None:
        found = json.loads(format_record(WARM._replace(user_id=None, tls=None, auth_s=None)))
        self.assertFalse({"user", "tls", "auth_ms"} & found.keys())

    def test_a_long_target_is_cut_after_its_tokens_are_gone(self) -> None:
        filler = b"/" + b"a" * (TARGET_LIMIT - 10)
        line = format_record(WARM._replace(target=filler + b"?token=abcdefgh"))
        self.assertEqual(len(json.loads(line)["path"]), TARGET_LIMIT)
        self.assertNotIn("abc", line)

    def test_bytes_that_are_no_text_are_shown_escaped(self) -> None:
        found = json.loads(format_record(WARM._replace(target=b"/\xff\xc3\xa4\n")))
        self.assertEqual(found["path"], "/\\xff\u00e4\n")

    @given(records)
    @example(WARM._replace(target=b'/"\\\x00\r\n\x7f'))
    @example(WARM._replace(peer="\ud800"))
    def test_every_line_is_one_json_object(self, record: Record) -> None:
        line = format_record(record)
        self.assertTrue(line.endswith("\n"))
        self.assertEqual(line.count("\n"), 1)
        self.assertTrue(line.isascii())
        found = json.loads(line)
        self.assertEqual(found["status"], record.status)
        self.assertEqual(found["id"], record.request_id)
        self.assertEqual(found.get("close"), record.close_reason)
        self.assertRegex(found["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


class RedactTests(SynchronousTestCase):
    def test_each_secret_parameter_loses_its_value(self) -> None:
        for name in SECRET_PARAMETERS:
            self.assertEqual(
                redact(b"/a?x=1&" + name + b"=s3cret"), b"/a?x=1&" + name + b"=REDACTED"
            )

    def test_other_spellings(self) -> None:
        for name in (b"Access_Token", b"access-token", b"%61ccess_token", b"access%5Ftoken",
                     b"+token", b"%20token", b"API-KEY"):  # fmt: skip
            self.assertNotIn(b"s3cret", redact(b"/?" + name + b"=s3cret"), name)

    def test_every_occurrence_and_odd_separators(self) -> None:
        self.assertEqual(
            redact(b"/?token=a&token=b=c;token=d&&y"),
            b"/?token=REDACTED&token=REDACTED;token=REDACTED&&y",
        )
        self.assertNotIn(b"s3cret", redact(b"/?x=1;jwt=s3cret?jwt=s3cret"))

    def test_jwts_anywhere(self) -> None:
        for target in (
            b"/t/" + JWT,
            b"/?next=%2F%3Ft%3D" + JWT,
            b"/?q=" + JWT.replace(b".", b"%2E"),
        ):
            self.assertNotIn(b"c2lnbmF0dXJl", redact(target))

    def test_the_rest_stays_as_it_was(self) -> None:
        for target in (b"/", b"*", b"/a?", b"/a?tokens=1&my_code_x=2", b"/?x=%zz&%", b"/eyJ/a.b",
                       b"/?token", b"/a?b?c=d;e=f"):  # fmt: skip
            self.assertEqual(redact(target), target)

    @given(
        st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=5)), max_size=3),
        st.sampled_from(sorted(SECRET_PARAMETERS)),
        st.sampled_from([b"&", b";"]),
    )
    def test_no_neighbour_hides_a_secret(
        self, others: list[tuple[bytes, bytes]], name: bytes, separator: bytes
    ) -> None:
        query = b"".join(key + b"=" + value + separator for key, value in others)
        found = redact(b"/?" + query + name + b"=s3cret" + separator + b"z=1")
        self.assertNotIn(b"s3cret", found)
        self.assertTrue(found.endswith(separator + b"z=1"))


class CombinedTests(SynchronousTestCase):
    def read(self, record: Record) -> tuple[str, ...]:
        found = COMBINED.fullmatch(format_combined(record))
        assert found is not None, format_combined(record)
        return found.groups()

    def test_a_request(self) -> None:
        record = WARM._replace(
            time=1795442400.5, user_agent=b"curl/8.0", referer=b"https://door/?token=abc&x=1"
        )
        self.assertEqual(
            format_combined(record),
            "203.0.113.9 - 0a1b2c3d-0000-4000-8000-00000000000a [23/Nov/2026:14:00:00 +0000] "
            '"GET /files?path=/a HTTP/1.1" 200 1024 '
            '"https://door/?token=REDACTED&x=1" "curl/8.0"\n',
        )

    def test_nothing_known(self) -> None:
        record = WARM._replace(user_id=None, http11=False, target=b"/?code=secret")
        fields = self.read(record)
        self.assertEqual(fields[1], "-")
        self.assertEqual(fields[3], "GET /?code=REDACTED HTTP/1.0")
        self.assertEqual(fields[6:], ("-", "-"))

    def test_no_value_can_end_its_field_or_line(self) -> None:
        record = WARM._replace(user_agent=b'a"b\\c\n\xe9')
        self.assertEqual(self.read(record)[7], r"a\x22b\x5cc\x0a\xe9")

    @given(records.filter(lambda record: record.time < 4e9))
    def test_one_line_whatever_it_holds(self, record: Record) -> None:
        # What comes from us has no blanks: addresses and user ids.
        record = record._replace(peer="192.0.2.1", user_id=None)
        self.read(record)
