"""Errors as answers, and status lines."""

import inspect
import json
from http import HTTPStatus

from twisted.trial.unittest import SynchronousTestCase

from matrix import errors
from matrix.errors import BadRequest, MatrixError, Unauthorized, Unavailable
from matrix.http import error_headers, problem
from matrix.http._status import status_line

LEAVES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, MatrixError)
]


class ProblemTests(SynchronousTestCase):
    def test_every_error_is_a_problem(self) -> None:
        """RFC 9457 section 3.1: type, title, status and detail."""
        for error in LEAVES:
            status, headers, body = problem(error("what is wrong"), "req-1")
            content = json.loads(body)
            self.assertEqual(status, error.status)
            self.assertIn((b"Content-Type", b"application/problem+json"), headers)
            self.assertEqual(
                content,
                {
                    "type": f"urn:matrix:problem:{error.slug}",
                    "title": error.title,
                    "status": error.status,
                    "detail": "what is wrong",
                    "request_id": "req-1",
                },
            )

    def test_nothing_is_said_that_is_not_known(self) -> None:
        content = json.loads(problem(MatrixError(), "r")[2])
        self.assertEqual(set(content), {"type", "title", "status", "request_id"})

    def test_reason(self) -> None:
        content = json.loads(problem(BadRequest("x", reason="bare-lf"), "r")[2])
        self.assertEqual(content["reason"], "bare-lf")

    def test_never_cached(self) -> None:
        self.assertIn((b"Cache-Control", b"no-store"), error_headers(MatrixError()))

    def test_retry_after_is_whole_seconds_and_at_least_one(self) -> None:
        for seconds, told in ((0.0, b"1"), (0.2, b"1"), (1.2, b"2"), (30, b"30")):
            headers = dict(error_headers(Unavailable(retry_after=seconds)))
            self.assertEqual(headers[b"Retry-After"], told)
        self.assertNotIn(b"Retry-After", dict(error_headers(Unavailable())))

    def test_exact_retry_after_is_in_the_body(self) -> None:
        content = json.loads(problem(Unavailable(retry_after=0.41234), "r")[2])
        self.assertEqual(content["retry_after"], 0.412)

    def test_headers_of_the_error(self) -> None:
        challenge = (b"WWW-Authenticate", b"Bearer")
        self.assertIn(challenge, problem(Unauthorized(headers=[challenge]), "r")[1])

    def test_detail_of_any_text(self) -> None:
        content = json.loads(problem(BadRequest('"\udcff\r\n'), "r")[2])
        self.assertEqual(content["detail"], '"\udcff\r\n')


class StatusLineTests(SynchronousTestCase):
    def test_standard_phrases(self) -> None:
        for status in HTTPStatus:
            expected = b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
            self.assertEqual(status_line(status, b""), expected)

    def test_phrase_of_the_machine(self) -> None:
        self.assertEqual(status_line(200, b"Fine"), b"HTTP/1.1 200 Fine\r\n")

    def test_unknown_status(self) -> None:
        """The space stays: RFC 9112 section 4."""
        self.assertEqual(status_line(599, b""), b"HTTP/1.1 599 \r\n")
