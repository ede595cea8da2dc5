"""The emulator's port: Fly's API under C{/v1}, its own under C{/_emulator}."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from matrix.testing.connections import Connections
from matrix.testing.fly.api import Answer, Asked, FlyApi
from matrix.testing.fly.control import PREFIX, Control

WebRequest = Any
"""A C{twisted.web.server.Request}, which has no types of its own."""


class _Root(Resource):
    """All paths."""

    isLeaf = True
    _log = Logger()

    def __init__(self, api: FlyApi, control: Control) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._api = api
        self._control = control

    def render(self, request: WebRequest) -> int:
        path, _, query = request.uri.decode("latin-1").partition("?")
        asked = Asked(
            request.method.decode("latin-1"),
            path,
            query,
            request.getHeader("authorization") or "",
            request.getHeader("fly-machine-lease-nonce"),
            request.content.read(),
        )
        handler = self._control if path.startswith(PREFIX) else self._api
        work = Deferred.fromCoroutine(handler.answer(asked))
        gone: Deferred[None] = request.notifyFinish()
        # What was asked for is done, whoever left; but nobody waits on.
        gone.addErrback(lambda _: work.cancel() if path.endswith("/wait") else None)
        work.addCallback(self._write, request)
        work.addErrback(self._broken, request)
        return NOT_DONE_YET

    def _write(self, answer: Answer, request: WebRequest) -> None:
        if request._disconnected:
            return
        if answer.status == 0:
            request.transport.abortConnection()
            return
        request.setResponseCode(answer.status)
        for name, value in answer.headers.items():
            request.setHeader(name, value)
        if answer.value is not None and answer.status != 204:
            request.setHeader("content-type", "application/json; charset=utf-8")
            request.write(json.dumps(answer.value).encode())
        request.finish()

    def _broken(self, failure: Failure, request: WebRequest) -> None:
        if isinstance(failure.value, CancelledError):  # the caller left
            return
        self._log.failure("the emulator failed at {uri}", failure=failure, uri=request.uri)
        self._write(Answer(500, {"error": f"the emulator failed: {failure.value}"}), request)


class _Site(Site):
    """Without a log line for each request: L{matrix.testing.fly.calls} has them."""

    noisy = False
    displayTracebacks = False

    def log(self, request: WebRequest) -> None:
        """Called after each request."""


class Port:
    """Where the emulator listens."""

    def __init__(self, api: FlyApi, control: Control, reactor: Any) -> None:
        self._reactor = reactor
        site = _Site(_Root(api, control), reactor=reactor)  # type: ignore[no-untyped-call]
        self._connections = Connections(site)
        self._port: Any = None

    def listen(self, host: str, port: int) -> str:
        """
        @param port: 0 for any free one.
        @return: the URL, without a slash at the end.
        """
        self._port = self._reactor.listenTCP(port, self._connections, interface=host, backlog=1024)
        return f"http://{host}:{self._port.getHost().port}"

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        if self._port is not None:
            await self._port.stopListening()
            await self._connections.abort()
