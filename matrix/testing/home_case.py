"""A daemon in a process of its own, with a router and a repository in the test's reactor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from matrix.api import send_json
from matrix.errors import Unavailable
from matrix.http.interfaces import Exchange, Handler
from matrix.snapshots import MemoryStore, Repositories, Shape
from matrix.testing.daemon_process import TOKEN, DaemonProcess
from matrix.testing.restic import ALICE, CREDENTIALS, KnownCredentials, ResticCase

PASSWORD = "the-password-of-the-repository"  # noqa: S105 -- as ResticCase has it
_ROUTER_TOKEN = "token-of-the-router"  # noqa: S105


_T = TypeVar("_T")

_FRESH: dict[str, bytes] = {}
"""The objects of a repository that was begun and not used."""


class RouterTwin:
    """What a router answers its machines: what to restore, and their repositories."""

    def __init__(self, repositories: Handler) -> None:
        self._repositories = repositories
        self.point: str | None = None
        """The newest good snapshot."""
        self.size: int | None = None
        """Bytes that it holds, if that is known."""
        self.down = False
        """Whether everything is answered 503."""
        self.asked = 0

    def __call__(self, exchange: Exchange) -> None:
        """See L{matrix.http.interfaces.Handler}."""
        if self.down:
            raise Unavailable("not now")
        if not exchange.request.path.startswith(b"/machine/"):
            self._repositories(exchange)
            return
        assert exchange.request.path == f"/machine/v1/{ALICE}/restore".encode()
        assert exchange.request.get(b"authorization") == f"Bearer {_ROUTER_TOKEN}".encode()
        self.asked += 1
        told = {"snapshot": self.point, "at": None, "bytes_total": self.size}
        send_json(exchange, told)


class HomeCase(ResticCase):
    """
    Mix-in for trial: L{boot} daemons that have snapshots. Set C{reactor}.
    """

    async def open_doors(self, shape: Shape = Shape()) -> None:  # noqa: B008 -- it is frozen
        """Serve the router, with an empty store; to be called at the end of C{setUp}."""
        self.store = MemoryStore()
        repositories = Repositories(self.store, self.credentials(), self.reactor, shape)
        self.router = RouterTwin(repositories)
        await self.serve(self.router)
        self.top = self.folder / "machine"
        self.top.mkdir(exist_ok=True)

    async def begin_repository(self) -> None:
        """Have one, without the second or two that restic takes to make its key: it is made once
        in a process."""
        if not _FRESH:
            await self.done("init")
            _FRESH.update(self.store.objects)
        self.store.objects.update(_FRESH)

    def credentials(self) -> Any:
        """Who is let in to repositories."""
        return KnownCredentials()

    def boot(self, top: Path | None = None, **environment: str) -> DaemonProcess:
        """Start a machine of Alice's; not yet ready."""
        base = f"http://127.0.0.1:{self.port}"
        told = {
            "MATRIX_USER": ALICE,
            "MATRIX_ROUTER_URL": base,
            "MATRIX_ROUTER_TOKEN": _ROUTER_TOKEN,
            "MATRIX_RESTIC_REPOSITORY": f"rest:{base}/restic/{ALICE}/",
            "MATRIX_RESTIC_ACCOUNT": CREDENTIALS[ALICE],
            "MATRIX_RESTIC_PASSWORD": PASSWORD,
        }
        daemon = DaemonProcess(top or self.top, **{**told, **environment})
        self.addCleanup(daemon.stop)
        return daemon

    async def ready(self, daemon: DaemonProcess) -> float:
        """Wait until it answers; the seconds that took."""
        return await self.aside(daemon.ready)

    def aside(self, function: Callable[..., _T], *arguments: Any) -> Deferred[_T]:
        """Call what blocks in a thread: the router is in this one."""
        return deferToThread(function, *arguments)

    async def call(
        self, daemon: DaemonProcess, method: str, path: str, value: Any = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One call of the daemon."""

        def run() -> tuple[int, dict[str, str], bytes]:
            client = daemon.client()
            try:
                fields = {"authorization": f"Bearer {TOKEN}", "connection": "close"}
                body = None
                if value is not None:
                    body, fields["content_type"] = json.dumps(value).encode(), "application/json"
                client.send(method, path, body, **fields)
                status, answer = client.head()
                return status, answer, client.rest_of_it(answer)
            finally:
                client.socket.close()

        return await self.aside(run)

    async def snapshot(self, daemon: DaemonProcess, **wanted: Any) -> list[dict[str, Any]]:
        """Have it take a snapshot; its events."""
        body = {"cause": "operator", **wanted}
        status, _, content = await self.call(daemon, "POST", "/-/snapshot", body)
        assert status == 200, content
        return [json.loads(line) for line in content.splitlines()]

    async def taken(self, daemon: DaemonProcess, **wanted: Any) -> str:
        """Have it take a snapshot, which must succeed; its id. The router knows of it."""
        *_, last = await self.snapshot(daemon, **wanted)
        assert last["kind"] == "done", last
        self.router.point, self.router.size = last["snapshot"], last["bytes_total"]
        return str(last["snapshot"])
