"""An issuer's HTTP side that answers when a test says so, and the key source that asks it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from matrix.auth import JwksKeys, Key
from matrix.errors import Unavailable

URL = "https://ref.supabase.example/auth/v1/.well-known/jwks.json"
UNIX = 1_800_000_000.0


def jwk(kid: str) -> dict[str, Any]:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return ECAlgorithm.to_jwk(public, as_dict=True) | {"kid": kid, "alg": "ES256"}


FIRST, SECOND = jwk("first"), jwk("second")


@implementer(IResponse)
class Response:
    """An answer whose body comes at once, or never ends."""

    version = (b"HTTP", 1, 1)
    phrase = b""
    previousResponse = None
    request = None

    def __init__(self, code: int, body: bytes, headers: dict[bytes, bytes], ends: bool) -> None:
        self.code = code
        self.headers = Headers({name: [value] for name, value in headers.items()})
        self.length = len(body)
        self._body = body
        self._ends = ends

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(None)
        for start in range(0, len(self._body), 1000):
            protocol.dataReceived(self._body[start : start + 1000])
        if self._ends:
            protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: object) -> None:
        raise NotImplementedError


@implementer(IAgent)
class Issuer:
    """An agent that holds each request until the test answers it."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Response]] = []
        self.seen: list[tuple[bytes, bytes, Headers]] = []
        self.cancelled = 0

    def request(
        self, method: bytes, uri: bytes, headers: Headers, bodyProducer: object = None
    ) -> Deferred[Response]:
        self.seen.append((method, uri, headers))
        answer: Deferred[Response] = Deferred(self._cancel)
        self.waiting.append(answer)
        return answer

    def _cancel(self, answer: Deferred[Response]) -> None:
        self.cancelled += 1
        self.waiting.remove(answer)

    def answer(self, body: object, *, code: int = 200, ends: bool = True, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {name.replace("_", "-").encode(): v.encode() for name, v in headers.items()}
        self.waiting.pop(0).callback(Response(code, data, fields, ends))

    def serve(self, *keys: object, max_age: int = 600) -> None:
        self.answer({"keys": keys}, cache_control=f"public, max-age={max_age}")

    def fail(self) -> None:
        self.waiting.pop(0).errback(ConnectionRefusedError())


class KeysCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.issuer = Issuer()
        self.keys = self.make()

    def make(self, path: Path | None = None, url: str = URL, **options: bool) -> JwksKeys:
        keys = JwksKeys(self.issuer, url, self.clock, self.now, path, **options)
        self.addCleanup(keys.stop)
        return keys

    def now(self) -> float:
        return UNIX + self.clock.seconds()

    def ask(self, kid: str) -> Deferred[Key | None]:
        return Deferred.fromCoroutine(self.keys.find(kid))

    def found(self, kid: str) -> Key | None:
        return self.successResultOf(self.ask(kid))

    def down(self, kid: str) -> Unavailable:
        error: Unavailable = self.failureResultOf(self.ask(kid), Unavailable).value
        return error

    def start(self, *served: object) -> None:
        self.keys.start()
        self.issuer.serve(*served)

    def advance(self, seconds: float, answer: Callable[[], None] | None = None) -> None:
        """Let time pass by the second, each request meanwhile getting the same answer."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            while answer is not None and self.issuer.waiting:
                answer()
