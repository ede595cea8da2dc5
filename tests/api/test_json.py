"""JSON bodies are bounded and checked, and each refusal says what to change."""

from collections.abc import Coroutine
from typing import Any

from pydantic import BaseModel, Field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.api import read_json, read_model, send_json
from matrix.errors import BadRequest, MatrixError, PayloadTooLarge
from matrix.testing.exchange import FakeExchange


class Pet(BaseModel):
    name: str
    age: int = Field(ge=0)
    tags: list[str] = []


class JsonTests(SynchronousTestCase):
    def posted(self, body: bytes, content_type: str = "application/json") -> FakeExchange:
        headers = {"content-type": content_type} if content_type else {}
        return FakeExchange.of("POST", "/", headers, body)

    def run_now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def refused(self, coroutine: Coroutine[Any, Any, Any]) -> MatrixError:
        error = self.failureResultOf(Deferred.fromCoroutine(coroutine)).value
        assert isinstance(error, MatrixError)
        return error

    def test_reads_json(self) -> None:
        for kind in ("application/json", "Application/JSON; charset=utf-8"):
            value = self.run_now(read_json(self.posted('{"a": "ü"}'.encode(), kind)))
            self.assertEqual(value, {"a": "ü"})

    def test_wants_the_content_type(self) -> None:
        for kind in ("", "text/plain", "application/jsonp", "application/x-www-form-urlencoded"):
            error = self.refused(read_json(self.posted(b"{}", kind)))
            self.assertIsInstance(error, BadRequest)
            self.assertEqual(error.reason, "content-type")

    def test_refuses_what_is_not_json(self) -> None:
        for body in (b"", b"{", b"{'a': 1}", b"\xff", b"NaN", b"[" * 60_000):
            error = self.refused(read_json(self.posted(body)))
            self.assertIsInstance(error, BadRequest, body[:10])
            self.assertEqual(error.reason, "json")

    def test_says_where_the_syntax_breaks(self) -> None:
        self.assertIn("line 2, column 1", str(self.refused(read_json(self.posted(b'{"a":\n}')))))

    def test_is_bounded(self) -> None:
        error = self.refused(read_json(self.posted(b'"' + b"x" * 100 + b'"'), limit=99))
        self.assertIsInstance(error, PayloadTooLarge)

    def test_reads_a_model(self) -> None:
        body = b'{"name": "Rex", "age": 3}'
        self.assertEqual(self.run_now(read_model(self.posted(body), Pet)), Pet(name="Rex", age=3))

    def test_names_each_field_at_fault_and_repeats_no_value(self) -> None:
        body = b'{"age": -17, "tags": ["a", {"secret": "hunter2"}]}'
        error = self.refused(read_model(self.posted(body), Pet))
        self.assertIsInstance(error, BadRequest)
        self.assertEqual(error.reason, "field")
        for field in ("name: ", "age: ", "tags.1: "):
            self.assertIn(field, str(error))
        self.assertNotIn("hunter2", str(error))
        self.assertNotIn("-17", str(error))

    def test_names_the_body_when_it_is_no_object(self) -> None:
        self.assertIn("body: ", str(self.refused(read_model(self.posted(b"[]"), Pet))))

    def test_sends_json(self) -> None:
        exchange = FakeExchange()
        send_json(exchange, {"a": ["ü", 1]}, 201, [(b"location", b"/x")])
        self.assertEqual(exchange.status, 201)
        self.assertEqual(exchange.answer, '{"a":["ü",1]}'.encode())
        self.assertEqual(exchange.header(b"content-type"), b"application/json")
        self.assertEqual(exchange.header(b"cache-control"), b"no-store")
        self.assertEqual(exchange.header(b"location"), b"/x")

    def test_caller_may_say_how_the_answer_is_cached(self) -> None:
        exchange = FakeExchange()
        send_json(exchange, {}, headers=[(b"cache-control", b"no-cache")])
        self.assertEqual(exchange.header(b"cache-control"), b"no-cache")

    def test_sends_text_that_utf8_cannot_carry(self) -> None:
        exchange = FakeExchange()
        send_json(exchange, "\udcff")
        self.assertEqual(exchange.answer, b'"\\udcff"')
